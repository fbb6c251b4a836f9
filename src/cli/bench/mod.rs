//! `ringway bench`: every way for two processes to hand each other messages, measured side by side
//! with the limits of the machine.
//!
//! This process plans and reports; each repetition runs in two new processes ([`worker`]), which
//! take up the two ends of a mechanism ([`mechanism`]) and are driven by one engine ([`engine`]),
//! the same for all. The cases are gone through round by round, so that whatever the machine does
//! meanwhile meets them all alike; every repetition probes before and after how far apart the
//! processors are ([`control`]), and is judged by that ([`rows`]).

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;

use super::Failure;
use crate::os::measure;
use plan::{Choice, Mechanism, Mode, Wait};

mod chart;
mod control;
mod engine;
mod link;
mod machine;
mod mechanism;
mod message;
mod output;
mod plan;
mod report;
mod rows;
mod statistics;
mod table;
pub(crate) mod worker;

const EXAMPLES: &str = "\
Examples:
  ringway bench --quick
  ringway bench --mechanism spsc,pipe --size 64 --mode rtt
  ringway bench --mechanism spsc --wait adaptive --rate 100000
  ringway bench --json results.ndjson --html report.html";

/// Compare every mechanism, side by side with the limits of this machine.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Only these mechanisms (the limits they are compared with are always measured).
    #[arg(long, short, value_enum, value_delimiter = ',')]
    mechanism: Vec<Mechanism>,
    /// Only these message sizes: bytes, or with KiB or MiB [default: 8,64,1KiB,64KiB].
    #[arg(long, short, value_delimiter = ',', value_parser = parse_size)]
    size: Vec<usize>,
    /// Only these modes [default: rtt,throughput,batch; with --rate: paced].
    #[arg(long, value_enum, value_delimiter = ',')]
    mode: Vec<Mode>,
    /// Only these ways to wait, for mechanisms that have a choice [default: all].
    #[arg(long, short, value_enum, value_delimiter = ',')]
    wait: Vec<Wait>,
    /// How many interleaved rounds [default: 5; with --quick: 3].
    #[arg(long)]
    rounds: Option<usize>,
    /// How long each repetition measures, in milliseconds [default: 200; with --quick: 20].
    #[arg(long, value_name = "MS")]
    duration: Option<u64>,
    /// The two CPUs to use, or one for both [default: the first two allowed].
    #[arg(long, value_delimiter = ',', num_args = 1..=2)]
    cpus: Vec<usize>,
    /// Messages a second for the paced mode: latency from when each message was due, whether or
    /// not it could be sent then, so that a stall counts for all that it delayed.
    #[arg(long, value_name = "MESSAGES_PER_SECOND", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..))]
    rate: Vec<u64>,
    /// A first look in under 30 seconds: 64 bytes, short repetitions.
    #[arg(long)]
    quick: bool,
    /// Leave out the limits and the count of system calls: only the mechanisms named.
    #[arg(long, requires = "mechanism")]
    bare: bool,
    /// Also write the results as JSON, on one line; `-` for standard output instead of the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write the results as CSV; `-` for standard output instead of the table.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Also write a report with charts, one HTML file that needs nothing else.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// A message size: a number of bytes, with an optional B, K, KiB, M or MiB.
fn parse_size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match text[digits.len()..].trim() {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        unit => return Err(format!("`{unit}` is no unit; use none, KiB or MiB")),
    };
    let size = digits
        .parse::<usize>()
        .ok()
        .and_then(|n| n.checked_mul(1 << shift))
        .filter(|&size| size <= 16 << 20);
    size.ok_or_else(|| "a size is a number of bytes from 0 to 16 MiB".into())
}

/// What was asked for, with everything that was not filled in.
struct Settings {
    mechanisms: Vec<Mechanism>,
    waits: Vec<Wait>,
    modes: Vec<Mode>,
    sizes: Vec<usize>,
    rounds: usize,
    duration_ms: u64,
    cpus: [usize; 2],
    rates: Vec<u64>,
    census: bool,
}

impl Settings {
    fn new(args: &Args) -> Result<Settings, Failure> {
        let allowed = measure::allowed_cpus();
        let cpus = match args.cpus[..] {
            [] => [allowed[0], *allowed.get(1).unwrap_or(&allowed[0])],
            [one] => [one, one],
            [first, second, ..] => [first, second],
        };
        if let Some(cpu) = cpus.iter().find(|cpu| !allowed.contains(cpu)) {
            return Err(Failure::new(format!(
                "--cpus {cpu}: this process may not run there; it may on {allowed:?}"
            )));
        }
        let or = |given: &[usize], default: &[usize]| {
            if given.is_empty() { default } else { given }.to_vec()
        };
        let mut mechanisms = args.mechanism.clone();
        if mechanisms.is_empty() {
            mechanisms = Mechanism::value_variants().to_vec();
        } else if !args.bare {
            mechanisms.extend(Mechanism::value_variants().iter().filter(|m| m.is_limit()));
        }
        let modes = match &args.mode[..] {
            [] if !args.rate.is_empty() => vec![Mode::Paced],
            [] if args.quick => vec![Mode::Rtt, Mode::Throughput],
            [] => vec![Mode::Rtt, Mode::Throughput, Mode::Batch],
            modes => modes.to_vec(),
        };
        if modes.contains(&Mode::Paced) && args.rate.is_empty() {
            return Err(Failure::new(
                "--mode paced: it needs a rate; add --rate, for example --rate 10000",
            ));
        }
        if args.rounds == Some(0) || args.duration == Some(0) {
            return Err(Failure::new(
                "--rounds and --duration: 0 measures nothing; give at least 1",
            ));
        }
        Ok(Settings {
            mechanisms,
            waits: args.wait.clone(),
            modes,
            sizes: or(
                &args.size,
                if args.quick {
                    &[64]
                } else {
                    &[8, 64, 1024, 65536]
                },
            ),
            rounds: args.rounds.unwrap_or(if args.quick { 3 } else { 5 }),
            duration_ms: args.duration.unwrap_or(if args.quick { 20 } else { 200 }),
            cpus,
            rates: args.rate.clone(),
            census: !args.bare,
        })
    }
}

/// Runs the subcommand.
pub(crate) fn main(args: Args) -> Result<ExitCode, Failure> {
    let settings = Settings::new(&args)?;
    output::check(&[&args.json, &args.csv, &args.html].map(|path| path.as_deref()))?;
    if settings.cpus[0] == settings.cpus[1] {
        // What the workers share, whoever starts them has: so a ring knows that spinning is no use.
        measure::pin(settings.cpus[0])?;
    }
    clean_up_when_ended();
    let machine = machine::Machine::here(settings.cpus);
    for warning in machine.warnings() {
        eprintln!("warning: {warning}");
    }
    let (cases, left_out) = plan::cases(&Choice {
        mechanisms: &settings.mechanisms,
        waits: &settings.waits,
        modes: &settings.modes,
        sizes: &settings.sizes,
        rates: &settings.rates,
    });
    let record = measure_all(&settings, &cases)?;
    let rows = record.rows();
    let results = output::Results {
        header: &machine,
        rows: &rows,
        left_out: &left_out,
    };
    if ![&args.json, &args.csv, &args.html]
        .into_iter()
        .flatten()
        .any(|path| path == Path::new("-"))
    {
        print(&results)?;
    }
    if let Some(path) = &args.json {
        output::json(path, &results)?;
    }
    if let Some(path) = &args.csv {
        output::csv(path, &rows)?;
    }
    if let Some(path) = &args.html {
        report::write(path, &results)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows the results in the terminal.
fn print(results: &output::Results<'_>) -> Result<(), Failure> {
    let machine = results.header;
    let mut out = std::io::stdout().lock();
    write!(
        out,
        "{} · kernel {} · CPUs {} and {} · {}\n{}",
        machine.cpu,
        machine.kernel,
        machine.pinning[0],
        machine.pinning[1],
        machine.date,
        table::render(results.rows)
    )?;
    for one in results.left_out {
        writeln!(
            out,
            "not measured: {} at {} ({})",
            one.mechanism.name(),
            table::size(one.size),
            one.why
        )?;
    }
    Ok(())
}

/// Goes through the cases round by round.
fn measure_all(settings: &Settings, cases: &[plan::Case]) -> Result<rows::Record, Failure> {
    let mut record = rows::Record::default();
    let progress = indicatif::ProgressBar::new((cases.len() * (settings.rounds + 1)) as u64);
    progress.set_style(
        indicatif::ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg} {eta}")
            .map_err(Failure::new)?,
    );
    if !std::io::stderr().is_terminal() {
        progress.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    for _ in 0..settings.rounds {
        for case in cases {
            progress.set_message(format!("{} {}", case.label(), table::size(case.size)));
            let repetition =
                worker::repeat(case, settings.cpus, settings.duration_ms).map_err(Failure::new)?;
            record.add(*case, repetition);
            progress.inc(1);
        }
    }
    progress.set_message("counting system calls");
    for case in cases {
        // Where it cannot be counted (a container may forbid it) the column stays empty. Watching
        // slows a process down where it makes a call, which can tip a wait that adapts into
        // sleeping: the least of three counts is what it does when left alone.
        let tries = if case.stays_in_user_space() { 3 } else { 1 };
        let counted = (0..tries)
            .filter(|_| settings.census && case.mechanism != Mechanism::Memcpy)
            .filter_map(|_| worker::census(case, settings.cpus).ok())
            .min_by(f64::total_cmp);
        if let Some(per_message) = counted {
            record.add_census(*case, per_message);
        }
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(record)
}

/// When a user ends this program, what the kernel would keep is removed first. The workers go with
/// this process by themselves.
fn clean_up_when_ended() {
    measure::hold_endings(true);
    std::thread::spawn(|| {
        let signal = measure::wait_for_ending();
        mechanism::remove_all();
        std::process::exit(128 + signal);
    });
}
