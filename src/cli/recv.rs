//! `ringway recv`: an endpoint to standard output.

use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::Duration;

use super::Failure;
use super::progress::Progress;
use crate::channel::{Patience, Receiver};
use crate::endpoint::{Endpoint, open_receiver};
use crate::os::stop;
use crate::stage::{Format, Writer};
use crate::{RecvError, SendError};

/// Write what comes at an endpoint to standard output
///
/// From a ring (ring:, mpmc:), each message at least once: it is done with only when it is written, so
/// that what a `recv` which was killed, or could not write, had taken comes again at the next one. Any
/// other endpoint gives a message away when it is taken: there, such a `recv` loses what it has taken
/// and not written, up to 256 KiB and a message. What was written is the next program's: a `head` that
/// leaves takes with it what it was given and has not read.
///
/// SIGINT and SIGTERM end it in good order: what it has taken is written, and a name that nobody needs
/// any more goes.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ringway recv ring:numbers | wc -l
  ringway recv --as raw unix:/tmp/copy.sock > backup.tar
  ringway recv --count 1 mq:jobs")]
pub(crate) struct Args {
    /// Where from, such as ring:NAME, unix:PATH, fifo:PATH or mq:NAME; several are tried in order
    #[arg(value_name = "ENDPOINT", required = true, num_args = 1..)]
    endpoints: Vec<Endpoint>,

    /// What becomes of a message: a line, a record (its length in 4 bytes, the least significant
    /// first, and its bytes), or its raw bytes
    #[arg(long = "as", value_name = "FORMAT", default_value = "lines")]
    format: Format,

    /// How many messages to take; without it, until the senders have left
    #[arg(short, long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    count: u64,

    /// Say on standard error which of several endpoints was taken, and why the others were not
    #[arg(short, long)]
    verbose: bool,
}

pub(crate) fn main(args: Args) -> Result<ExitCode, Failure> {
    let opened = open_receiver(&args.endpoints).map_err(Failure::new)?;
    if args.verbose {
        opened
            .refused
            .iter()
            .for_each(|refusal| eprintln!("ringway: {refusal}"));
        eprintln!("ringway: receiving from {}", opened.taken);
    }
    let mut from = opened.channel;
    let mut progress = Progress::new(None);
    let mut to = Writer::new(std::io::stdout().as_fd().try_clone_to_owned()?, args.format);
    stop::heed();
    let ended = receive(&mut *from, &mut to, args.count, &mut progress);
    match (ended, stop::asked()) {
        (Err(Ended::Input(error)), None) => Err(Failure::of(&opened.taken, error)),
        // Whoever reads our output has had enough: end quietly, as `yes | head` does.
        (Err(Ended::Output(SendError::Closed)), None) | (Ok(()), None) => Ok(ExitCode::SUCCESS),
        (Err(Ended::Output(error)), None) => Err(Failure::of("standard output", error)),
        (_, Some(signal)) => Ok(stop::status(signal)),
    }
}

enum Ended {
    Input(RecvError),
    Output(SendError),
}

/// How long one waits before looking whether one was told to stop: longer than a channel waits before it
/// looks whether its peer still lives.
const SLICE: Duration = Duration::from_millis(200);

fn receive(
    from: &mut dyn Receiver,
    to: &mut Writer,
    count: u64,
    progress: &mut Progress,
) -> Result<(), Ended> {
    let mut message = Vec::new();
    let mut left = count;
    // What has come is not kept back until more does.
    let mut waiting = false;
    while left > 0 && stop::asked().is_none() {
        let patience = if waiting {
            Patience::Within(SLICE)
        } else {
            Patience::Now
        };
        match from.hold_with(&mut message, left, patience) {
            Ok(()) => {
                to.push(&message).map_err(Ended::Output)?;
                progress.add(message.len());
                left -= 1;
                waiting = false;
            }
            Err(RecvError::Empty | RecvError::TimedOut) => {
                // Done with is what was written.
                to.flush().map_err(Ended::Output)?;
                from.release();
                waiting = true;
            }
            Err(error) => {
                to.flush().map_err(Ended::Output)?;
                from.release();
                return match error {
                    RecvError::Closed => Ok(()),
                    error => Err(Ended::Input(error)),
                };
            }
        }
    }
    to.flush().map_err(Ended::Output)?;
    from.release();
    Ok(())
}
