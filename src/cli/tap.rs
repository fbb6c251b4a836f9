//! `ringway tap`: watches messages pass, without taking them.

use std::io::Write;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use super::Failure;
use super::inspect;
use super::inventory::Kind;
use super::records::{Cursors, Follower, Passing, preview};
use super::show;
use crate::broadcast::{self, Start};
use crate::error::RecvError;
use crate::observe::Observer;
use crate::os::process::{SIGINT, SIGTERM, Signals, is_unread};
use crate::stage::Format;

/// Watch the messages of a ring pass, without taking them or holding anybody up
///
/// Messages are copied as they pass; a ring that is faster than the reader goes on without it, and
/// how many were missed is said in the end. Shown is only what cannot have been overwritten while it
/// was copied. Ends with the ring, with whoever reads the output, or by Ctrl-C.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ringway tap orders
  ringway tap -n 10 --waiting orders
  ringway tap --as lines orders | grep --line-buffered 'sell'")]
pub(crate) struct Args {
    /// A ring, as `ringway list` shows it, or a path
    name: String,

    /// End after so many messages
    #[arg(long, short = 'n', value_name = "NUMBER", default_value_t = u64::MAX, hide_default_value = true)]
    count: u64,

    /// Begin with the messages that wait in the ring now
    #[arg(long, short)]
    waiting: bool,

    /// Print the messages themselves: as lines, as records, or their raw bytes
    #[arg(long = "as", value_name = "FORMAT")]
    format: Option<Format>,
}

/// The longest pause between two looks at a ring in which nothing happens.
const PAUSE: Duration = Duration::from_millis(20);
/// So many pauses without anybody attached are the end.
const DESERTED: u32 = 10;

pub(crate) fn main(args: Args) -> Result<ExitCode, Failure> {
    let (thing, observer) = inspect::ring(&args.name)?;
    let signals = Signals::take(&[SIGINT, SIGTERM])?;
    if thing.kind == Kind::Broadcast {
        return broadcast(&args, &thing.name, &signals);
    }
    let first = steady(&observer)?;
    let start = if args.waiting {
        first.taken
    } else {
        first.sent
    };
    let mut follower = Follower::at(&observer, start);
    let mut out = std::io::stdout().lock();
    let mut seen = 0;
    let mut result = Ok(());
    let (mut quiet, mut deserted) = (0u32, 0u32);
    let width = show::width();
    while seen < args.count && signals.next().is_none() && deserted < DESERTED && result.is_ok() {
        let found = follower.poll(|message| {
            if seen < args.count && result.is_ok() {
                seen += 1;
                result = write(&mut out, args.format, width, &message);
            }
        })?;
        if found > 0 {
            (quiet, deserted) = (0, 0);
            continue;
        }
        out.flush()?;
        quiet = (quiet + 1).min(20);
        if quiet == 20 && !observer.is_attached() {
            deserted += 1;
        }
        if is_unread(std::io::stdout().as_fd(), PAUSE / 20 * quiet) {
            break;
        }
    }
    result?;
    out.flush()?;
    let passed = Cursors::of(&observer)?
        .messages
        .saturating_sub(first.messages);
    let before = if args.waiting {
        observer.snapshot()?.waiting.unwrap_or(0)
    } else {
        0
    };
    // What was waiting had passed before, and what is waiting behind the last one seen is not missed.
    let missed = if args.count == u64::MAX {
        passed.saturating_sub(seen + before.min(passed))
    } else {
        0
    };
    eprintln!("ringway: saw {}, missed {missed}", show::messages(seen));
    Ok(ExitCode::SUCCESS)
}

/// Of a broadcast ring one that only looks on is told itself what it missed.
fn broadcast(args: &Args, name: &str, signals: &Signals) -> Result<ExitCode, Failure> {
    let start = if args.waiting {
        Start::Oldest
    } else {
        Start::Next
    };
    let ring = broadcast::Ring::observe(name)?;
    let mut from = ring.observer(start)?;
    let mut out = std::io::stdout().lock();
    let (mut seen, mut missed) = (0, 0u64);
    let mut message = Vec::new();
    let width = show::width();
    while seen < args.count && signals.next().is_none() {
        match from.recv_into_timeout(&mut message, PAUSE) {
            Ok(sequence) => {
                seen += 1;
                let passing = Passing {
                    position: sequence,
                    bytes: &message,
                    state: "",
                };
                write(&mut out, args.format, width, &passing)?;
            }
            Err(RecvError::Missed { count }) => missed = missed.saturating_add(count),
            Err(RecvError::TimedOut) => {
                out.flush()?;
                if is_unread(std::io::stdout().as_fd(), Duration::ZERO) {
                    break;
                }
            }
            Err(RecvError::Closed | RecvError::PeerDied) => break,
            Err(error) => return Err(Failure::of(&args.name, error)),
        }
    }
    out.flush()?;
    eprintln!("ringway: saw {}, missed {missed}", show::messages(seen));
    Ok(ExitCode::SUCCESS)
}

/// The cursors at one instant, as far as they stand still long enough.
fn steady(observer: &Observer) -> Result<Cursors, Failure> {
    let mut seen = Cursors::of(observer)?;
    for _ in 0..100 {
        let now = Cursors::of(observer)?;
        if now == seen {
            break;
        }
        seen = now;
    }
    Ok(seen)
}

fn write(
    out: &mut impl Write,
    format: Option<Format>,
    width: usize,
    message: &Passing<'_>,
) -> std::io::Result<()> {
    let bytes = message.bytes;
    match format {
        None => {
            let begins = show::safe(&preview(bytes));
            let line = format!("{:>12} {:>8} B  {begins}", message.position, bytes.len());
            writeln!(out, "{}", show::cut(&line, width))
        }
        Some(Format::Raw) => out.write_all(bytes),
        Some(Format::Lines) => {
            out.write_all(bytes)?;
            out.write_all(b"\n")
        }
        Some(Format::Records) => {
            out.write_all(&(bytes.len() as u32).to_le_bytes())?;
            out.write_all(bytes)
        }
    }
}
