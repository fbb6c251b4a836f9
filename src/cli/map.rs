//! `ringway map`: a stage that passes messages on.

use std::process::ExitCode;

use super::Failure;
use super::generate::{ended, forward};
use crate::stage;

/// Pass messages on from the stage before to the stage behind
///
/// The smallest stage there is: for trying out what a stage in the middle costs, what becomes of
/// its messages when it is killed, and how several share the work.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ringway run 'ringway gen --count 10000000' 'ringway map' 'ringway sink'
  ringway run 'ringway gen' 'ringway map --count 1000' 'ringway sink'")]
pub(crate) struct Args {
    /// How many to pass on; without it, all
    #[arg(short, long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    count: u64,
}

pub(crate) fn main(args: Args) -> Result<ExitCode, Failure> {
    let mut input = stage::input()?;
    let mut output = stage::output()?;
    forward(&mut input, &mut output, args.count)?;
    output.close().map_err(ended)?;
    Ok(ExitCode::SUCCESS)
}
