//! `ringway ctl`: commands for a running pipeline.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use super::Failure;
use crate::channel::Patience;
use crate::control::{Client, Command};

/// Command a running pipeline.
///
/// ping, stats, pause, resume, drain (finish what is under way, then end), stop (end now), restart STAGE
/// (by its number, from 1, or its program), set KEY VALUE. The keys are quiet (true or false), grace (seconds
/// between being told to stop and being killed) and restarts (how often the killed processes of each
/// stage may still be replaced).
#[derive(clap::Args)]
#[command(after_help = "Example:\n  ringway run --name words 'cat' 'sort' &\n  \
                        ringway ctl words stats\n  ringway ctl words stop")]
pub(crate) struct Args {
    /// The name of the pipeline (`ringway run --name`).
    pipeline: String,
    /// The command and its arguments.
    #[arg(required = true, num_args = 1.., allow_hyphen_values = true)]
    command: Vec<String>,
    /// How many seconds to wait for the answer.
    #[arg(long, short, default_value_t = 10.0, value_name = "SECONDS")]
    timeout: f64,
}

pub(crate) fn main(args: Args) -> Result<ExitCode, Failure> {
    let timeout = Duration::try_from_secs_f64(args.timeout)
        .map_err(|error| Failure::new(format!("--timeout {}: {error}", args.timeout)))?;
    // An argument in quotes may hold spaces: it stays one word.
    let words: Vec<String> = match args.command.as_slice() {
        [line] => vec![line.clone()],
        words => words
            .iter()
            .map(|word| crate::control::escape(word))
            .collect(),
    };
    let command: Command = words.join(" ").parse().map_err(Failure::new)?;
    let mut client = Client::connect(&args.pipeline)?;
    let answer = client
        .request(&command, Patience::Within(timeout))
        .map_err(|error| Failure::new(format!("{}: {error}", args.pipeline)))?;
    if !answer.is_empty() {
        writeln!(std::io::stdout(), "{}", answer.trim_end_matches('\n'))?;
    }
    Ok(ExitCode::SUCCESS)
}
