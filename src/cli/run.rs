//! `ringway run`: a pipeline of processes, supervised.

use std::ffi::OsString;
use std::fmt::Display;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, FromArgMatches};

use super::Failure;
use crate::Endpoint;
use crate::control::{Command, Server};
use crate::os::clock::Deadline;
use crate::os::process::{self, Signals};
use crate::pipeline::{Aware, Pipeline, Running, Stage};

/// Run a pipeline of programs, joined by rings where they can and by pipes where not
///
/// Standard output and exit status are those of a shell with pipefail. Ctrl-C and SIGTERM end the
/// first stage and let the others finish what is under way; a second one stops them all.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ringway run 'seq 1 2000000' 'grep 7' 'wc -l'
  ringway run 'ringway gen --count 10000000' 'ringway map' 'ringway sink'
  ringway run 'seq 1 1000000' -j4 --restart 'grep 7' 'sort -n'
  ringway run 'seq 100' --tee 'gzip > all.gz' 'grep 7'
  ringway run --via mq 'ringway gen --count 100000' 'ringway sink'")]
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

    /// Give what the stage before hands on to this command, too, and to the stage that follows
    ///
    /// Any number of times. The slowest of them holds the others back; one that has had enough is left
    /// out. What such a command prints goes to standard error. Its failure is the pipeline's.
    #[arg(long, value_name = "COMMAND")]
    tee: Vec<String>,

    /// Have a killed worker's chunk or messages done again, each up to N times
    ///
    /// A plain program without -j cannot be replaced: what it had read is lost.
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "5")]
    restart: Option<u32>,

    /// Give the output of -j in the order of its input
    ///
    /// For plain programs. Several workers that speak messages take each as it comes, so this is refused
    /// with them: number the messages, or have the workers take lines with `plain:COMMAND`.
    #[arg(short, long, hide_short_help = true)]
    keep_order: bool,

    /// Keep plain workers of -j running until the input ends, instead of one run a chunk
    ///
    /// For programs that take long to start. This cannot promise more than the shell does: what a
    /// worker that dies had read is lost, and the pipeline fails.
    #[arg(long, conflicts_with_all = ["restart", "keep_order"], hide_short_help = true)]
    persistent: bool,

    /// The size of a chunk for -j, such as 256K or 1M
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = super::size, hide_short_help = true)]
    block: usize,

    /// The longest message that rings between stages are made for, such as 4K or 1M
    #[arg(long, value_name = "SIZE", default_value = "4K", value_parser = super::size, hide_short_help = true)]
    longest_message: usize,

    /// Join the stages by this mechanism: ring, mpmc, pipe, fifo, unix, mq, sem, signal or auto
    ///
    /// Alone, or as an endpoint: `mq:jobs?depth=4`. The link behind stage N is then called
    /// `mq:jobs.N`. Given several times, the first that can be had is taken. Plain programs get the bytes
    /// of a pipe or a FIFO directly, and by adapters with every other mechanism.
    #[arg(long, value_name = "ENDPOINT", value_parser = crate::pipeline::parse_via)]
    via: Vec<Endpoint>,

    /// Take commands under this name: `ringway ctl NAME stats`
    ///
    /// ping, stats, pause, resume, drain, stop, restart STAGE, set quiet true|false, set grace SECONDS
    /// (between being told to stop and being killed), set restarts N (how often the killed processes of
    /// each stage may still be replaced).
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Print nothing about stages that fail or are replaced
    #[arg(short, long, hide_short_help = true)]
    quiet: bool,
}

/// How many commands are carried out before the stages are looked after again: a flood of them must not
/// keep the supervisor from its work.
const COMMANDS: usize = 64;

/// How long stages that were told to stop have before they are killed.
const GRACE: Duration = Duration::from_secs(2);

/// The arguments, and which stage each `-j` stands before.
pub(crate) struct Args {
    options: Options,
    jobs: Vec<Option<usize>>,
    /// The commands of the `--tee`s before each stage.
    tees: Vec<Vec<OsString>>,
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
        let mut tees = vec![Vec::new(); options.stage.len()];
        for (at_tee, command) in at("tee").zip(&options.tee) {
            match at("stage").position(|at_stage| at_stage > at_tee) {
                Some(stage) if stage > 0 => tees[stage].push(OsString::from(command)),
                _ => {
                    return Err(clap::Error::raw(
                        clap::error::ErrorKind::MissingRequiredArgument,
                        format!(
                            "--tee {command:?} does not stand between two stages; put it behind the stage whose output it gets, and before the one that gets it too\n"
                        ),
                    ));
                }
            }
        }
        Ok(Args {
            options,
            jobs,
            tees,
        })
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Args::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Which sides of our own subcommands are messages.
pub(super) fn sides(args: &[std::ffi::OsString]) -> Aware {
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
pub(super) fn this_program() -> PathBuf {
    use std::os::unix::fs::MetadataExt;
    let running = PathBuf::from("/proc/self/exe");
    let identity = |path: &PathBuf| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    match (std::env::current_exe(), identity(&running)) {
        (Ok(path), Ok(ours)) if identity(&path).is_ok_and(|theirs| theirs == ours) => path,
        _ => running,
    }
}

pub(crate) fn main(args: Args) -> Result<ExitCode, Failure> {
    let Args {
        options,
        jobs,
        tees,
    } = args;
    let mut stages = Vec::new();
    for ((line, jobs), tees) in options.stage.iter().zip(jobs).zip(tees) {
        if !tees.is_empty() {
            let arguments = ["tee".into(), "--".into()].into_iter().chain(tees);
            stages.push(Stage::command("ringway", arguments));
        }
        let stage = Stage::parse(line);
        stages.push(match jobs {
            Some(jobs) => stage.jobs(jobs),
            None => stage,
        });
    }
    let signals = Signals::take(&[
        process::SIGINT,
        process::SIGTERM,
        process::SIGHUP,
        process::SIGUSR1,
    ])?;
    let control = options.name.as_deref().map(Server::bind).transpose()?;
    process::adopt_orphans();
    let running = options
        .via
        .into_iter()
        .fold(Pipeline::new(stages), Pipeline::via)
        .tool("ringway", this_program(), sides)
        .restarts(options.restart.unwrap_or(0))
        .keep_order(options.keep_order)
        .persistent(options.persistent)
        .block(options.block)
        .longest_message(options.longest_message)
        .start()
        .map_err(|failure| Failure::with_status(&failure, failure.reason.status()))?;
    let supervisor = Supervisor {
        running,
        control,
        quiet: options.quiet,
        asked: (0, 0),
        kill_at: Deadline::NEVER,
        grace: GRACE,
    };
    supervisor.run(&signals)
}

/// What the supervisor does besides watching the stages.
struct Supervisor {
    running: Running,
    /// Where commands from outside arrive, if the pipeline has a name.
    control: Option<Server>,
    quiet: bool,
    /// The signal that last asked for the end, and how often one did.
    asked: (i32, u32),
    /// Told to stop, the stages get some time to do so.
    kill_at: Deadline,
    grace: Duration,
}

impl Supervisor {
    fn say(&self, line: &dyn Display) {
        if !self.quiet {
            eprintln!("ringway: {line}");
        }
    }

    /// Sees the pipeline to its end, and heeds signals and commands meanwhile.
    fn run(mut self, signals: &Signals) -> Result<ExitCode, Failure> {
        // More commands are there than were carried out.
        let mut more = false;
        while !self.running.is_finished() {
            let mut others = vec![signals.as_fd()];
            others.extend(self.control.as_ref().map(AsFd::as_fd));
            let patience = if more {
                Some(Duration::ZERO)
            } else {
                self.kill_at.left()
            };
            let ready = self.running.step(&others, patience)?;
            self.running
                .events()
                .iter()
                .for_each(|event| self.say(event));
            if self.kill_at.passed() {
                self.kill_at = Deadline::NEVER;
                self.running.kill();
            }
            while ready[0]
                && let Some(signal) = signals.next()
            {
                self.heed(signal);
            }
            if more || ready.get(1) == Some(&true) {
                more = self.commands();
            }
        }
        self.running
            .events()
            .iter()
            .for_each(|event| self.say(event));
        let outcome = self.running.outcome();
        if outcome.cause().is_some() {
            self.say(outcome);
        }
        if self.asked.1 > 0 {
            // What the stages left running would outlive what was asked for.
            process::kill_descendants();
        }
        let status = match outcome.status() {
            0 if self.asked.0 > 0 => (128 + self.asked.0) as u8,
            status => status,
        };
        Ok(ExitCode::from(status))
    }

    /// Carries out the commands that are there; true when there may be more of them.
    fn commands(&mut self) -> bool {
        for _ in 0..COMMANDS {
            let Some(request) = self.control.as_mut().and_then(Server::next) else {
                return false;
            };
            let answer = self.obey(request.command());
            request.reply(answer.as_deref().map_err(String::as_str));
        }
        true
    }

    fn heed(&mut self, signal: i32) {
        let name = process::signal_name(signal);
        match signal {
            process::SIGHUP => self.say(&format_args!("{name}: there is nothing to reload")),
            process::SIGUSR1 => self.say(&self.running.statistics()),
            _ => {
                self.asked = (signal, self.asked.1 + 1);
                match self.asked.1 {
                    1 => {
                        self.say(&format_args!("{name}: draining; once more stops at once"));
                        self.running.drain();
                    }
                    2 => {
                        self.say(&format_args!("{name}: stopping; once more kills"));
                        self.stop();
                    }
                    _ => self.running.kill(),
                }
            }
        }
    }

    fn stop(&mut self) {
        self.running.stop();
        self.kill_at = Deadline::after(self.grace);
    }

    /// Carries out a command from outside. The end that it brings is no failure of the pipeline's.
    fn obey(&mut self, command: &Command) -> Result<String, String> {
        match command {
            Command::Ping => return Ok("pong".into()),
            Command::Stats => return Ok(self.running.statistics()),
            Command::Pause => self.running.pause(),
            Command::Resume => self.running.resume(),
            Command::Drain => {
                self.asked.1 = self.asked.1.max(1);
                self.running.drain();
            }
            Command::Stop => {
                self.asked.1 = self.asked.1.max(2);
                self.stop();
            }
            Command::Restart(stage) => self.running.restart(stage)?,
            Command::Set { key, value } => self.set(key, value)?,
        }
        Ok(format!("{command}: done"))
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "quiet" => {
                self.quiet = value
                    .parse()
                    .map_err(|_| "set quiet true, or false".to_owned())?;
            }
            "grace" => {
                let seconds = value.parse().ok();
                let grace = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                self.grace = grace.ok_or("set grace to a number of seconds")?;
            }
            "restarts" => {
                let count = value.parse().ok();
                let count = count.ok_or("set restarts to a number")?;
                self.running.set_restarts(count);
            }
            _ => {
                return Err(format!(
                    "{key}: no such setting; there are: quiet true|false (print nothing of stages that \
                     fail or are replaced), grace SECONDS (between being told to stop and being killed), \
                     restarts N (how often each killed process may still be replaced)"
                ));
            }
        }
        Ok(())
    }
}
