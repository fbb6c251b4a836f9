//! The command-line tool: one file a subcommand, each with its `Args` and its `main`.

use std::process::ExitCode;

use clap::{Arg, ArgAction, CommandFactory, FromArgMatches, Parser};

mod adapter;
mod bench;
mod clean;
mod completions;
mod ctl;
mod doctor;
mod failure;
mod generate;
mod inspect;
mod inventory;
mod list;
mod man;
mod map;
mod probe;
mod progress;
mod records;
mod recv;
mod rm;
mod run;
mod send;
mod show;
mod sink;
mod size;
mod stats;
mod tap;
mod tee;
mod top;

pub(crate) use failure::Failure;
use size::size;

/// The first screen: every command, grouped, and where to go on. (A test compares it with the
/// commands that there are.)
const HELP: &str = "\
{about}

Usage: ringway COMMAND [ARGUMENTS]      ringway COMMAND --help shows examples

  run          run programs as a pipeline, joined by rings where they speak them
  send recv    lines, records or bytes, to and from any endpoint
  ctl          command a running pipeline: stats, pause, drain, stop, ...
  gen map sink stages to try pipelines with
  tee          standard input to several commands (run --tee: in a pipeline)
  list         what is on this machine, who uses it, how full it is
  top          the same live: rates, stalls, waiting times, deaths
  inspect tap  one ring: all there is to know; its messages as they pass
  stats        counters of rings, for people or for Prometheus
  rm clean     remove by name; remove what the dead have left
  doctor       what this machine lacks for it, and the remedy
  bench        compare every mechanism on this machine
  completions  for bash, zsh, fish, elvish, powershell      man  manual pages

  ringway run 'seq 1 1000000' 'grep 7' 'wc -l'  ringway bench --quick
  journalctl -f | ringway send ring:log         ringway recv ring:log

{options}";

/// Fast and crash-proof messages between processes of one machine.
#[derive(Parser)]
#[command(
    name = "ringway",
    version,
    max_term_width = 100,
    help_template = HELP,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    #[command(hide = true)]
    Adapter(adapter::Args),
    Bench(Box<bench::Args>),
    #[command(name = bench::worker::SUBCOMMAND, hide = true)]
    BenchWorker(bench::worker::Args),
    Clean(clean::Args),
    Completions(completions::Args),
    Ctl(ctl::Args),
    Doctor(doctor::Args),
    #[command(name = "gen")]
    Generate(generate::Args),
    Inspect(inspect::Args),
    List(list::Args),
    Man(man::Args),
    Map(map::Args),
    Recv(recv::Args),
    Rm(rm::Args),
    Run(run::Args),
    Send(send::Args),
    Sink(sink::Args),
    Stats(stats::Args),
    Tap(tap::Args),
    Tee(tee::Args),
    Top(top::Args),
}

/// The definition of the tool. What `--help` says of a command fits a screen: the first paragraph of each
/// text, and three examples. All the rest is in `--help-all` and in the manual.
fn command() -> clap::Command {
    let help = |name, action| Arg::new(name).long(name).action(action);
    Cli::command().mut_subcommands(|command| {
        let examples = command.get_after_help().map(|text| text.to_string());
        let examples = examples.unwrap_or_default();
        let few: Vec<&str> = examples.lines().take(4).collect();
        let brief = help("help", ArgAction::HelpShort).short('h');
        command
            .after_help(few.join("\n"))
            .after_long_help(&examples)
            .disable_help_flag(true)
            .arg(brief.help("Print this (--help-all: all there is to say)"))
            .arg(
                help("help-all", ArgAction::HelpLong)
                    .hide_short_help(true)
                    .help("Print all of it"),
            )
    })
}

/// The same, of what users are meant to see.
fn visible() -> clap::Command {
    let all = command();
    let commands = all
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    clap::Command::new("ringway")
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .args(all.get_arguments().cloned())
        .subcommands(commands.cloned())
}

/// Runs the tool on the arguments of the process. Exit status 0 is success, 1 a failure, 2 bad
/// arguments (clap's own), as ripgrep and grep have it.
pub fn main() -> ExitCode {
    let cli = Cli::from_arg_matches(&command().get_matches());
    let cli = cli.unwrap_or_else(|error| error.exit());
    // A ring may be truncated by whoever may write to it; without a handler that is fatal, as before.
    let _ = crate::survive_truncation();
    let result: Result<ExitCode, Failure> = match cli.command {
        Command::Adapter(args) => adapter::main(&args),
        Command::Bench(args) => bench::main(*args),
        Command::BenchWorker(args) => bench::worker::main(&args).map(|()| ExitCode::SUCCESS),
        Command::Clean(args) => clean::main(args),
        Command::Completions(args) => completions::main(args),
        Command::Ctl(args) => ctl::main(args),
        Command::Doctor(args) => doctor::main(args),
        Command::Generate(args) => generate::main(args),
        Command::Inspect(args) => inspect::main(args),
        Command::List(args) => list::main(args),
        Command::Man(args) => man::main(args),
        Command::Map(args) => map::main(args),
        Command::Recv(args) => recv::main(args),
        Command::Rm(args) => rm::main(args),
        Command::Run(args) => run::main(args),
        Command::Send(args) => send::main(args),
        Command::Sink(args) => sink::main(args),
        Command::Stats(args) => stats::main(args),
        Command::Tap(args) => tap::main(args),
        Command::Tee(args) => tee::main(args),
        Command::Top(args) => top::main(args),
    };
    result.unwrap_or_else(|failure| failure.report())
}
