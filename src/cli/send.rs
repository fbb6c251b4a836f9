//! `ringway send`: standard input to an endpoint.

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use super::Failure;
use super::progress::Progress;
use crate::SendError;
use crate::channel::Sender;
use crate::endpoint::{Endpoint, open_sender};
use crate::os::{process, stop};
use crate::stage::{Format, Next, Reader};

/// Send what comes on standard input to an endpoint
///
/// SIGINT and SIGTERM end it as the end of its input does.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  seq 1 1000000 | ringway send ring:numbers
  ringway send --as raw unix:/tmp/copy.sock < backup.tar
  ringway send mq:jobs fifo:/tmp/jobs < jobs.txt")]
pub(crate) struct Args {
    /// Where to, such as ring:NAME, unix:PATH, fifo:PATH or mq:NAME; several are tried in order
    #[arg(value_name = "ENDPOINT", required = true, num_args = 1..)]
    endpoints: Vec<Endpoint>,

    /// What a message is: a line, a record (its length in 4 bytes, the least significant first, and
    /// its bytes), or any piece of raw bytes
    #[arg(long = "as", value_name = "FORMAT", default_value = "lines")]
    format: Format,

    /// Say on standard error which of several endpoints was taken, and why the others were not
    #[arg(short, long)]
    verbose: bool,
}

pub(crate) fn main(args: Args) -> Result<ExitCode, Failure> {
    let opened = open_sender(&args.endpoints).map_err(Failure::new)?;
    if args.verbose {
        opened
            .refused
            .iter()
            .for_each(|refusal| eprintln!("ringway: {refusal}"));
        eprintln!("ringway: sending to {}", opened.taken);
    }
    let mut to = opened.channel;
    let longest = match args.format {
        Format::Raw => to.capabilities().max_message,
        Format::Lines | Format::Records => usize::MAX,
    };
    let stdin = std::io::stdin();
    let mut progress = Progress::new(Some(&stdin));
    let mut from = Reader::new(stdin.as_fd().try_clone_to_owned()?, args.format);
    stop::heed();
    let mut number = 0u64;
    while stop::asked().is_none() {
        let message = match from.next(false) {
            Ok(Next::Message(at)) => from.bytes(at),
            Ok(Next::End) => break,
            Ok(Next::Empty) => {
                process::poll(&[Some(stdin.as_fd())], None)?;
                continue;
            }
            Err(error) => return Err(Failure::of("standard input", error)),
        };
        number += 1;
        let name = |error| {
            let what = match args.format {
                Format::Lines => "line",
                Format::Records => "record",
                Format::Raw => "piece",
            };
            Failure::of(&opened.taken, format_args!("{what} {number}: {error}"))
        };
        if message.len() <= longest {
            send(&mut *to, message).map_err(name)?;
        } else {
            message
                .chunks(longest)
                .try_for_each(|piece| send(&mut *to, piece))
                .map_err(name)?;
        }
        progress.add(message.len());
    }
    to.close();
    Ok(stop::asked().map_or(ExitCode::SUCCESS, stop::status))
}

/// How long one waits for room before looking whether one was told to stop: longer than a channel waits before it
/// looks whether its peer still lives.
const SLICE: Duration = Duration::from_millis(200);

/// Sends a message, unless told to stop before there is room.
fn send(to: &mut dyn Sender, message: &[u8]) -> Result<(), SendError> {
    let mut sent = to.try_send(message);
    while let Err(SendError::Full | SendError::TimedOut) = sent {
        if stop::asked().is_some() {
            return Ok(());
        }
        sent = to.send_timeout(message, SLICE);
    }
    sent
}
