//! The command-line tool: one file a subcommand, each with its `Args` and its `main`.

use std::process::ExitCode;

use clap::Parser;

mod adapter;
mod bench;
mod clean;
mod ctl;
mod failure;
mod generate;
mod inspect;
mod inventory;
mod list;
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

pub(crate) use failure::Failure;
use size::size;

/// Fast and crash-proof messages between processes of one machine.
#[derive(Parser)]
#[command(name = "ringway", version, max_term_width = 100)]
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
    Ctl(ctl::Args),
    #[command(name = "gen")]
    Generate(generate::Args),
    Inspect(inspect::Args),
    List(list::Args),
    Map(map::Args),
    Recv(recv::Args),
    Rm(rm::Args),
    Run(run::Args),
    Send(send::Args),
    Sink(sink::Args),
}

/// Runs the tool on the arguments of the process. Exit status 0 is success, 1 a failure, 2 bad
/// arguments (clap's own), as ripgrep and grep have it.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // A ring may be truncated by whoever may write to it; without a handler that is fatal, as before.
    let _ = crate::survive_truncation();
    let result: Result<ExitCode, Failure> = match cli.command {
        Command::Adapter(args) => adapter::main(&args),
        Command::Bench(args) => bench::main(*args),
        Command::BenchWorker(args) => bench::worker::main(&args).map(|()| ExitCode::SUCCESS),
        Command::Clean(args) => clean::main(args),
        Command::Ctl(args) => ctl::main(args),
        Command::Generate(args) => generate::main(args),
        Command::Inspect(args) => inspect::main(args),
        Command::List(args) => list::main(args),
        Command::Map(args) => map::main(args),
        Command::Recv(args) => recv::main(args),
        Command::Rm(args) => rm::main(args),
        Command::Run(args) => run::main(args),
        Command::Send(args) => send::main(args),
        Command::Sink(args) => sink::main(args),
    };
    result.unwrap_or_else(|failure| failure.report())
}
