//! `ringway tee`: standard input to standard output and to several commands; what `ringway run --tee`
//! puts before a stage.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use super::Failure;
use super::run::{sides, this_program};
use crate::os::process;
use crate::pipeline::{Pipeline, Running, Stage};

/// Bytes passed on at once, and asked for of the pipe to a branch.
const CHUNK: usize = 64 << 10;
const PIPE: usize = 256 << 10;

/// Copy standard input to standard output and to the standard input of each command
///
/// The slowest holds the others back. One that has had enough is left out from then on; the copying
/// ends when nobody is left, or the input ends. What the commands print goes to standard error.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  seq 100 | ringway tee 'wc -l' 'grep -c 7' | tail -1
  ringway run 'seq 100' --tee 'wc -l' 'tail -1'        the same in a pipeline")]
pub(crate) struct Args {
    /// The commands, each quoted, as for `ringway run`
    #[arg(value_name = "COMMAND", required = true, num_args = 1..)]
    command: Vec<String>,
}

pub(crate) fn main(args: Args) -> Result<ExitCode, Failure> {
    let mut branches: Vec<Running> = Vec::new();
    let mut outputs = vec![Some(File::from(io::stdout().as_fd().try_clone_to_owned()?))];
    for command in &args.command {
        let (read, write) = process::pipe(PIPE)?;
        let branch = Pipeline::new([Stage::parse(command)])
            .tool("ringway", this_program(), sides)
            .input(read)
            .output(io::stderr().as_fd().try_clone_to_owned()?)
            .start()
            .map_err(|failure| Failure::with_status(&failure, failure.reason.status()))?;
        branches.push(branch);
        outputs.push(Some(File::from(write)));
    }
    copy(&mut io::stdin().lock(), &mut outputs)?;
    // The end of its input is how a branch learns of the end.
    drop(outputs);
    let mut status = 0;
    for branch in branches {
        let outcome = branch.wait()?;
        if outcome.cause().is_some() {
            eprintln!("ringway: {outcome}");
        }
        if status == 0 {
            status = outcome.status();
        }
    }
    Ok(ExitCode::from(status))
}

/// Copies to all that still listen, until the input ends or nobody does.
fn copy(from: &mut impl Read, to: &mut [Option<File>]) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    while to.iter().any(Option::is_some) {
        let len = match from.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) => len,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        for output in to.iter_mut() {
            let Some(file) = output else { continue };
            match file.write_all(&chunk[..len]) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => *output = None,
                result => result?,
            }
        }
    }
    Ok(())
}
