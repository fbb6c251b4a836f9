//! `ringway recv`: an endpoint to standard output.

use std::os::fd::AsFd;
use std::process::ExitCode;

use super::Failure;
use super::progress::Progress;
use crate::channel::Receiver;
use crate::endpoint::{Endpoint, open_receiver};
use crate::stage::{Format, Writer};
use crate::{RecvError, SendError};

/// Write what comes at an endpoint to standard output
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
    match receive(&mut *from, &mut to, args.count, &mut progress) {
        // Whoever reads our output has had enough: end quietly, as `yes | head` does.
        Err(Ended::Output(SendError::Closed)) => Ok(ExitCode::SUCCESS),
        Err(Ended::Output(error)) => Err(error.into()),
        Err(Ended::Input(error)) => {
            to.flush()?;
            Err(error.into())
        }
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

enum Ended {
    Input(RecvError),
    Output(SendError),
}

fn receive(
    from: &mut dyn Receiver,
    to: &mut Writer,
    count: u64,
    progress: &mut Progress,
) -> Result<(), Ended> {
    let mut message = Vec::new();
    for _ in 0..count {
        let mut got = from.try_recv(&mut message);
        if matches!(got, Err(RecvError::Empty)) {
            // What has come is not kept back until more does.
            to.flush().map_err(Ended::Output)?;
            got = from.recv(&mut message);
        }
        match got {
            Ok(()) => {}
            Err(RecvError::Closed) => break,
            Err(error) => return Err(Ended::Input(error)),
        }
        to.push(&message).map_err(Ended::Output)?;
        progress.add(message.len());
    }
    to.flush().map_err(Ended::Output)
}
