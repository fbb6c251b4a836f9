//! `ringway gen`: a source of messages.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::Failure;
use super::probe::{self, Maker};
use crate::os::stop;
use crate::stage::{self, Format, Input, Output};
use crate::{RecvError, SendError};

/// Make messages, or take them from a file, for trying out a pipeline
///
/// The messages made are numbered, carry a checksum, and some of them the time; `ringway sink`
/// checks them.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ringway run 'ringway gen --count 10000000 --size 64' 'ringway map' 'ringway sink'
  ringway run 'ringway gen --rate 100000 --count 500000' 'ringway sink'
  ringway run 'ringway gen --from /var/log/syslog' 'ringway sink'")]
pub(crate) struct Args {
    /// How many messages to make; without it, until stopped
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,

    /// The size of a message in bytes, such as 64 or 4K
    #[arg(short, long, default_value = "64", value_parser = super::size)]
    size: usize,

    /// Messages per second; as many as there is room for if not given
    ///
    /// Each message then carries the time at which it was due, so that latencies include what a
    /// message had to wait because an earlier one was late.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    rate: Option<u64>,

    /// Take the messages from this file instead, `-` being standard input
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["size", "rate"])]
    from: Option<PathBuf>,

    /// What a message is in that file
    #[arg(
        long = "as",
        value_name = "FORMAT",
        default_value = "lines",
        requires = "from"
    )]
    format: Format,
}

/// Bytes of messages made at once.
const BATCH_BYTES: usize = 16 << 10;
/// Messages made at once, of which the first carries the time.
const BATCH: usize = 64;

pub(crate) fn main(args: Args) -> Result<ExitCode, Failure> {
    let mut output = stage::output()?;
    if args.from.is_none() {
        stop::heed();
    }
    let done = match (&args.from, args.rate) {
        (Some(path), _) => copy(&args, path, &mut output),
        (None, Some(rate)) => make_at(&args, rate, &mut output),
        (None, None) => make(&args, &mut output),
    };
    done.and_then(|()| output.close().map_err(ended))?;
    Ok(stop::asked().map_or(ExitCode::SUCCESS, stop::status))
}

/// How many there are to be: told to stop, one more, which says that it is the last.
fn last(count: u64, sequence: u64) -> u64 {
    stop::asked().map_or(count, |_| sequence + 1)
}

/// As fast as they are taken.
fn make(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let mut count = args.count.unwrap_or(u64::MAX);
    let maker = Maker::new(args.size);
    let batch = (BATCH_BYTES / args.size).clamp(1, BATCH) as u64;
    let mut message = vec![0; args.size];
    let mut sequence = 0;
    while sequence < count {
        count = last(count, sequence);
        let mut time = probe::now();
        let end = count.min(sequence + batch);
        while sequence < end {
            maker.make(&mut message, sequence, time, sequence + 1 == count);
            output.send_soon(&message).map_err(ended)?;
            sequence += 1;
            time = 0;
        }
    }
    Ok(())
}

/// At a rate: each when it is due, or at once if that is past.
fn make_at(args: &Args, rate: u64, output: &mut Output) -> Result<(), Failure> {
    /// Nearer than this, sleeping would come too late.
    const NEAR: u64 = 150_000;
    let mut count = args.count.unwrap_or(u64::MAX);
    let maker = Maker::new(args.size);
    let mut message = vec![0; args.size];
    let start = probe::now();
    let due =
        |sequence: u64| start + (u128::from(sequence) * 1_000_000_000 / u128::from(rate)) as u64;
    let mut sequence = 0;
    while sequence < count {
        count = last(count, sequence);
        let now = probe::now();
        while sequence < count && due(sequence) <= now {
            maker.make(&mut message, sequence, due(sequence), sequence + 1 == count);
            output.send_soon(&message).map_err(ended)?;
            sequence += 1;
        }
        output.flush().map_err(ended)?;
        match due(sequence).saturating_sub(probe::now()) {
            NEAR.. if sequence < count => {
                let left = due(sequence).saturating_sub(probe::now() + NEAR / 2);
                std::thread::sleep(Duration::from_nanos(left));
            }
            _ => std::hint::spin_loop(),
        }
    }
    Ok(())
}

/// From a file.
fn copy(args: &Args, path: &PathBuf, output: &mut Output) -> Result<(), Failure> {
    let file: OwnedFd = if path.as_os_str() == "-" {
        io::stdin().as_fd().try_clone_to_owned()?
    } else {
        let name = |error| Failure::new(format_args!("{}: {error}", path.display()));
        File::open(path).map_err(name)?.into()
    };
    let mut input = Input::from_stream(file, args.format);
    forward(&mut input, output, args.count.unwrap_or(u64::MAX))
}

/// Passes on up to `count` messages; none waits here for the next one to come.
pub(super) fn forward(input: &mut Input, output: &mut Output, count: u64) -> Result<(), Failure> {
    for _ in 0..count {
        match input.try_recv() {
            Ok(message) => {
                output.send_soon(&message).map_err(ended)?;
                continue;
            }
            Err(RecvError::Closed) => return Ok(()),
            Err(RecvError::Empty) => {}
            Err(error) => return Err(Failure::of("input", error)),
        }
        output.flush().map_err(ended)?;
        match input.recv() {
            Ok(message) => output.send_soon(&message).map_err(ended)?,
            Err(RecvError::Closed) => return Ok(()),
            Err(error) => return Err(Failure::of("input", error)),
        }
    }
    Ok(())
}

/// What became of a stage that could not send: a stage behind it that has ended is no failure of
/// its own, and ends it as a broken pipe does.
pub(super) fn ended(error: SendError) -> Failure {
    match error {
        SendError::Closed => Failure::with_status("", 141),
        error => Failure::of("output", error),
    }
}
