//! `ringway adapter`: between a plain program and a channel of messages. `ringway run --via` puts them
//! where they are needed; nobody else calls it.

use std::os::fd::AsFd;
use std::process::ExitCode;

use super::Failure;
use crate::stage::{self, Format, Next, Reader, Writer};
use crate::{RecvError, SendError};

/// Between a plain program and a channel of messages
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Whether bytes become messages (in), or messages bytes (out)
    direction: Direction,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Direction {
    In,
    Out,
}

pub(crate) fn main(args: &Args) -> Result<ExitCode, Failure> {
    let passed = match args.direction {
        Direction::In => take_in(),
        Direction::Out => give_out(),
    };
    passed.map(|()| ExitCode::SUCCESS)
}

/// Bytes of standard input, as messages. A stage behind that has ended ends this quietly: the program
/// before then finds its pipe broken, as it would without an adapter.
fn take_in() -> Result<(), Failure> {
    let mut from = Reader::new(std::io::stdin().as_fd().try_clone_to_owned()?, Format::Raw);
    let mut to = stage::output()?;
    let longest = to.longest_message();
    while let Next::Message(at) = from.next(true).map_err(input)? {
        for piece in from.bytes(at).chunks(longest) {
            match to.send(piece) {
                Ok(()) => {}
                Err(SendError::Closed) => return Ok(()),
                Err(error) => return Err(Failure::of("output", error)),
            }
        }
    }
    Ok(())
}

/// Messages, as bytes on standard output.
fn give_out() -> Result<(), Failure> {
    let mut from = stage::input()?;
    let mut to = Writer::new(std::io::stdout().as_fd().try_clone_to_owned()?, Format::Raw);
    // What has come is not kept back until more does.
    let mut waiting = false;
    loop {
        let got = if waiting {
            from.recv()
        } else {
            from.try_recv()
        };
        waiting = matches!(got, Err(RecvError::Empty));
        let written = match got {
            Ok(message) => to.push(&message),
            Err(RecvError::Empty) => to.flush(),
            Err(RecvError::Closed) => return end(to.flush()),
            Err(error) => return Err(input(error)),
        };
        if written.is_err() {
            return end(written);
        }
    }
}

fn input(error: RecvError) -> Failure {
    Failure::of("input", error)
}

/// A program behind that has ended has had enough.
fn end(written: Result<(), SendError>) -> Result<(), Failure> {
    match written {
        Ok(()) | Err(SendError::Closed) => Ok(()),
        Err(error) => Err(Failure::of("output", error)),
    }
}
