//! `ringway send`: standard input to an endpoint.

use std::process::ExitCode;

use super::Failure;
use super::progress::Progress;
use crate::channel::Sender;
use crate::endpoint::{Endpoint, open_sender};
use crate::stage::{Format, Next, Reader};
use std::os::fd::AsFd;

/// Send what comes on standard input to an endpoint
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
    let largest = match args.format {
        Format::Raw => to.capabilities().max_message,
        Format::Lines | Format::Records => usize::MAX,
    };
    let stdin = std::io::stdin();
    let mut progress = Progress::new(Some(&stdin));
    let mut from = Reader::new(stdin.as_fd().try_clone_to_owned()?, args.format);
    while let Next::Message(at) = from.next(true)? {
        let message = from.bytes(at);
        if message.len() <= largest {
            to.send(message)?;
        } else {
            message
                .chunks(largest)
                .try_for_each(|piece| to.send(piece))?;
        }
        progress.add(message.len());
    }
    to.close();
    Ok(ExitCode::SUCCESS)
}
