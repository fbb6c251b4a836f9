//! `ringway run`: a pipeline of processes, supervised.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, FromArgMatches};

use super::Failure;
use crate::os::clock::Deadline;
use crate::os::process::{self, Signals};
use crate::pipeline::{Aware, Outcome, Pipeline, Running, Stage};

/// Run a pipeline of programs, joined by rings where they can and by pipes where not
///
/// Standard output and exit status are those of a shell with pipefail. Ctrl-C and SIGTERM end the
/// first stage and let the others finish what is under way; a second one stops them all.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ringway run 'seq 1 2000000' 'grep 7' 'wc -l'
  ringway run 'ringway gen --count 10000000 --size 64' 'ringway map' 'ringway sink'
  ringway run 'seq 1 1000000' -j4 --restart 'grep 7' 'sort -n'")]
struct Options {
    /// The command of a stage, quoted; as many as there are stages
    ///
    /// A simple command is executed directly, anything else by `sh -c`. `ringway` is this very
    /// program. `ring:COMMAND` says that the command speaks messages though its executable does
    /// not tell, `plain:COMMAND` that it does not.
    #[arg(value_name = "STAGE", required = true, num_args = 1..)]
    stage: Vec<String>,

    /// Run N copies of the stage that follows at once
    ///
    /// Plain programs get chunks of whole lines, one run of the program a chunk; programs that
    /// speak messages take them one by one.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Vec<u16>,

    /// Have a killed worker's chunk or messages done again, each up to N times
    ///
    /// A plain program without -j cannot be replaced: what it had read is lost.
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "5")]
    restart: Option<u32>,

    /// Give the output of -j in the order of its input
    #[arg(short, long)]
    keep_order: bool,

    /// The size of a chunk for -j, such as 256K or 1M
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = super::size)]
    block: usize,

    /// Print nothing about stages that fail or are replaced
    #[arg(short, long)]
    quiet: bool,
}

/// How long stages that were told to stop have before they are killed.
const GRACE: Duration = Duration::from_secs(2);

/// The arguments, and which stage each `-j` stands before.
pub(crate) struct Args {
    options: Options,
    jobs: Vec<Option<usize>>,
}

impl clap::Args for Args {
    fn augment_args(command: clap::Command) -> clap::Command {
        Options::augment_args(command)
    }
    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Options::augment_args_for_update(command)
    }
}

impl FromArgMatches for Args {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Args, clap::Error> {
        let options = Options::from_arg_matches(matches)?;
        let at = |id| matches.indices_of(id).into_iter().flatten();
        let mut jobs = vec![None; options.stage.len()];
        for (at_jobs, count) in at("jobs").zip(&options.jobs) {
            match at("stage").position(|at_stage| at_stage > at_jobs) {
                Some(stage) => jobs[stage] = Some(usize::from(*count)),
                None => {
                    return Err(clap::Error::raw(
                        clap::error::ErrorKind::MissingRequiredArgument,
                        format!(
                            "-j {count} stands behind the last stage; put it before the stage that it is for\n"
                        ),
                    ));
                }
            }
        }
        Ok(Args { options, jobs })
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Args::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Which sides of our own subcommands are messages.
fn sides(args: &[std::ffi::OsString]) -> Aware {
    match args.first().and_then(|arg| arg.to_str()) {
        Some("gen") => Aware {
            input: false,
            output: true,
        },
        Some("map") => Aware::BOTH,
        Some("sink") => Aware {
            input: true,
            output: false,
        },
        _ => Aware::NO,
    }
}

/// The file of this very program, also when it was replaced since it was started.
fn this_program() -> PathBuf {
    use std::os::unix::fs::MetadataExt;
    let running = PathBuf::from("/proc/self/exe");
    let identity = |path: &PathBuf| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    match (std::env::current_exe(), identity(&running)) {
        (Ok(path), Ok(ours)) if identity(&path).is_ok_and(|theirs| theirs == ours) => path,
        _ => running,
    }
}

pub(crate) fn main(args: Args) -> Result<ExitCode, Failure> {
    let Args { options, jobs } = args;
    let stages = options
        .stage
        .iter()
        .zip(jobs)
        .map(|(line, jobs)| match jobs {
            Some(jobs) => Stage::parse(line).jobs(jobs),
            None => Stage::parse(line),
        });
    let signals = Signals::take(&[
        process::SIGINT,
        process::SIGTERM,
        process::SIGHUP,
        process::SIGUSR1,
    ])?;
    process::adopt_orphans();
    let running = Pipeline::new(stages)
        .tool("ringway", this_program(), sides)
        .restarts(options.restart.unwrap_or(0))
        .keep_order(options.keep_order)
        .block(options.block)
        .start()
        .map_err(|failure| Failure::with_status(&failure, failure.reason.status()))?;
    supervise(running, &signals, options.quiet)
}

/// Sees the pipeline to its end, and heeds the signals meanwhile.
fn supervise(mut running: Running, signals: &Signals, quiet: bool) -> Result<ExitCode, Failure> {
    let say = |line: &dyn std::fmt::Display| {
        if !quiet {
            eprintln!("ringway: {line}");
        }
    };
    // Once told to stop, the stages get some time to do so.
    let mut kill_at = Deadline::NEVER;
    // The signal that asked for the end, and how often one did.
    let mut asked = (0, 0);
    while !running.is_finished() {
        let ready = running.step(&[signals.as_fd()], kill_at.left())?;
        if kill_at.passed() {
            kill_at = Deadline::NEVER;
            running.kill();
        }
        running.events().iter().for_each(|event| say(event));
        if !ready[0] {
            continue;
        }
        while let Some(signal) = signals.next() {
            let name = process::signal_name(signal);
            match signal {
                process::SIGHUP => say(&format_args!("{name}: there is nothing to reload")),
                process::SIGUSR1 => say(&running.statistics()),
                _ => {
                    asked = (signal, asked.1 + 1);
                    match asked.1 {
                        1 => {
                            say(&format_args!("{name}: draining; once more stops at once"));
                            running.drain();
                        }
                        2 => {
                            say(&format_args!("{name}: stopping; once more kills"));
                            running.stop();
                            kill_at = Deadline::after(GRACE);
                        }
                        _ => running.kill(),
                    }
                }
            }
        }
    }
    running.events().iter().for_each(|event| say(event));
    let outcome: &Outcome = running.outcome();
    if outcome.cause().is_some() {
        say(outcome);
    }
    if asked.1 > 0 {
        // What the stages left running would outlive what was asked for.
        process::kill_descendants();
    }
    let status = match outcome.status() {
        0 if asked.1 > 0 => (128 + asked.0) as u8,
        status => status,
    };
    Ok(ExitCode::from(status))
}
