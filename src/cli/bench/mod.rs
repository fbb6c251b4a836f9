//! `ringway bench`: every way for two processes to hand each other messages, measured side by side
//! with the limits of the machine.
//!
//! This process plans and reports; each repetition runs in two new processes ([`worker`]), which
//! take up the two ends of a mechanism ([`mechanism`]) and are driven by one engine ([`engine`]),
//! the same for all. The cases are gone through round by round, so that whatever the machine does
//! meanwhile meets them all alike; every repetition probes before and after how far apart the
//! processors are ([`control`]), and is judged by that ([`record`]).

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::ValueEnum;

use super::Failure;
use crate::os::measure;
use plan::{Mechanism, Mode, Wait};
use worker::Effort;

mod busy;
mod chart;
mod compare;
mod control;
mod engine;
mod group;
mod link;
mod machine;
mod mechanism;
mod message;
mod output;
mod plan;
mod record;
mod report;
mod rows;
mod standing;
mod statistics;
mod table;
pub(crate) mod worker;

const EXAMPLES: &str = "\
Examples:
  ringway bench --quick
  ringway bench --mechanism spsc,pipe --size 64 --mode rtt
  ringway bench --mechanism spsc --wait adaptive --rate 100000
  ringway bench --json results.ndjson --html report.html
  ringway bench --compare monday.ndjson tuesday.ndjson";

/// The sizes that are measured unless some are given.
const SIZES: [usize; 6] = [0, 8, 64, 1 << 10, 64 << 10, 1 << 20];
/// The size of what is measured at one only, unless some are given: the one that all can carry.
const ONE_SIZE: usize = 8;
/// The rates of open load unless some are given, in messages a second.
const RATES: [u64; 8] = [
    1_000, 10_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000, 30_000_000,
];
/// How long the processors are watched before the first round, for who else uses them.
const LOOK_AROUND: Duration = Duration::from_millis(300);
/// A mechanism that comes through with less than this share of a rate is not asked for more.
const KEPT_UP: f64 = 0.8;

/// Compare every mechanism, side by side with the limits of this machine.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Only these mechanisms.
    ///
    /// The limits they are compared with are always measured.
    #[arg(long, short, value_enum, value_delimiter = ',', value_name = "NAME")]
    mechanism: Vec<Mechanism>,
    /// Only these message sizes: bytes, such as 8 or 64K.
    ///
    /// [default: 0,8,64,1KiB,64KiB,1MiB; 8 for the modes oneway and paced, and with --quick].
    #[arg(long, short, value_delimiter = ',', value_parser = parse_size)]
    size: Vec<usize>,
    /// Only these modes.
    ///
    /// [default: all; with --rate: paced; with --quick: rtt,throughput].
    #[arg(long, value_enum, value_delimiter = ',')]
    mode: Vec<Mode>,
    /// Only these ways to wait, for mechanisms that have a choice [default: all].
    #[arg(long, short, value_enum, value_delimiter = ',', hide_short_help = true)]
    wait: Vec<Wait>,
    /// How many interleaved rounds [default: 6]. Rows that are unsettled after them
    /// get up to twice as many more, except with --quick or --bare, or at a rate that they mostly did not keep.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), hide_short_help = true)]
    rounds: Option<u32>,
    /// How long each repetition measures, in milliseconds, up to an hour [default: 60; with --quick:
    /// 20].
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=3_600_000), hide_short_help = true)]
    duration: Option<u64>,
    /// Measure this many messages in each repetition, however long they take (--duration then says
    /// how long to warm up).
    #[arg(long, value_name = "MESSAGES", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000), hide_short_help = true)]
    count: Option<u64>,
    /// The two CPUs to use, or one for both [default: the first two allowed].
    #[arg(long, value_delimiter = ',', num_args = 1..=2, hide_short_help = true)]
    cpus: Vec<usize>,
    /// Messages a second for the paced mode: latency from when each message was due, whether or
    /// not it could be sent then, so that a stall counts for all that it delayed [default: 1,000 to
    /// 30,000,000, up to the first that a mechanism cannot keep].
    #[arg(long, value_name = "MESSAGES_PER_SECOND", value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1..), hide_short_help = true)]
    rate: Vec<u64>,
    /// A first look in under 30 seconds: 8 bytes, short repetitions.
    #[arg(long)]
    quick: bool,
    /// Only the mechanisms named: no limits, no count of system calls, no more rounds than asked.
    #[arg(long, requires = "mechanism", hide_short_help = true)]
    bare: bool,
    /// Also write the results as JSON.
    ///
    /// On one line; `-` for standard output instead of the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write the results as CSV; `-` for standard output instead of the table.
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    csv: Option<PathBuf>,
    /// Also write a report with charts.
    ///
    /// One HTML file that needs nothing else.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Measure nothing: compare the results of two runs, as --json wrote them. Exit status 1 if a row
    /// that was settled in both differs by more than 15 % of the lesser, or if no row was.
    #[arg(long, num_args = 2, value_names = ["BEFORE", "AFTER"], exclusive = true, hide_short_help = true)]
    compare: Vec<PathBuf>,
}

impl Args {
    /// The files to write.
    fn outputs(&self) -> impl Iterator<Item = &Path> {
        let all = [&self.json, &self.csv, &self.html];
        all.into_iter().flatten().map(PathBuf::as_path)
    }
}

/// What was asked for and would be ignored, with the remedy.
fn contradiction(args: &Args) -> Option<String> {
    let has_choice = |mechanism: &&Mechanism| !mechanism.waits().is_empty();
    let choosers = Mechanism::value_variants().iter().filter(has_choice);
    let mut outputs: Vec<&Path> = args.outputs().collect();
    outputs.sort();
    if !args.rate.is_empty() && !args.mode.is_empty() && !args.mode.contains(&Mode::Paced) {
        Some("--rate is for the mode paced: add it to --mode, or leave --mode out".into())
    } else if !args.wait.is_empty()
        && !args.mechanism.is_empty()
        && !args.mechanism.iter().any(|one| has_choice(&one))
    {
        Some(format!(
            "--wait: the kernel does the waiting of those named; add one that has a choice ({}), or \
             leave --wait out",
            names(choosers)
        ))
    } else {
        let twice = outputs.windows(2).find(|pair| pair[0] == pair[1])?;
        let name = twice[0].display();
        Some(format!("two outputs are to go to {name}: give each a file"))
    }
}

/// Why nothing of what was asked for can be measured, if so.
fn nothing(args: &Args, cases: &[plan::Case], left_out: &[plan::LeftOut]) -> Option<String> {
    let named = &args.mechanism;
    let asked = |case: &plan::Case| match &named[..] {
        [] => !case.mechanism.is_limit(),
        named => named.contains(&case.mechanism) || named.iter().any(|one| one.is_probed()),
    };
    if cases.iter().any(asked) {
        return None;
    }
    let reasons: Vec<String> = left_out.iter().map(plan::LeftOut::describe).collect();
    Some(match &reasons[..] {
        [] => format!(
            "nothing to measure: {} has no such --mode or --wait, or is a limit that is probed around \
             what else is measured; name another --mechanism too",
            names(named)
        ),
        reasons => format!("nothing to measure: {}", reasons.join("; ")),
    })
}

/// Mechanisms in a list.
fn names<'a>(mechanisms: impl IntoIterator<Item = &'a Mechanism>) -> String {
    let names: Vec<String> = mechanisms.into_iter().map(|one| one.name()).collect();
    names.join(", ")
}

fn parse_size(text: &str) -> Result<usize, String> {
    super::size::size_in(0..=16 << 20, text)
}

/// What was asked for, with everything that was not filled in.
struct Settings {
    mechanisms: Vec<Mechanism>,
    waits: Vec<Wait>,
    modes: Vec<(Mode, Vec<usize>)>,
    rounds: usize,
    /// How many rounds more for the rows that are unsettled.
    more_rounds: usize,
    effort: Effort,
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
        let mut mechanisms = args.mechanism.clone();
        if mechanisms.is_empty() {
            mechanisms = Mechanism::value_variants().to_vec();
        } else if !args.bare {
            mechanisms.extend(Mechanism::value_variants().iter().filter(|m| m.is_limit()));
        }
        let modes: &[Mode] = match &args.mode[..] {
            [] if !args.rate.is_empty() => &[Mode::Paced],
            [] if args.quick => &[Mode::Rtt, Mode::Throughput],
            [] => Mode::value_variants(),
            modes => modes,
        };
        let sizes = |mode: Mode| match mode {
            _ if !args.size.is_empty() => args.size.clone(),
            Mode::Oneway | Mode::Paced => vec![ONE_SIZE],
            _ if args.quick => vec![ONE_SIZE],
            _ => SIZES.to_vec(),
        };
        let mut rates = args.rate.clone();
        if rates.is_empty() {
            rates = RATES.to_vec();
        }
        rates.sort_unstable();
        let rounds = args.rounds.unwrap_or(6) as usize;
        Ok(Settings {
            mechanisms,
            waits: args.wait.clone(),
            modes: modes.iter().map(|&mode| (mode, sizes(mode))).collect(),
            rounds,
            more_rounds: if args.quick || args.bare {
                0
            } else {
                2 * rounds
            },
            effort: Effort {
                duration_ms: args.duration.unwrap_or(if args.quick { 20 } else { 60 }),
                count: args.count,
            },
            cpus,
            rates,
            census: !args.bare,
        })
    }
}

/// Runs the subcommand.
pub(crate) fn main(args: Args) -> Result<ExitCode, Failure> {
    if let [before, after] = &args.compare[..] {
        return compare::main(before, after);
    }
    let settings = Settings::new(&args)?;
    let (cases, left_out) = plan::cases(&plan::Choice {
        mechanisms: &settings.mechanisms,
        waits: &settings.waits,
        modes: &settings.modes,
        rates: &settings.rates,
    });
    if let Some(why) = contradiction(&args).or_else(|| nothing(&args, &cases, &left_out)) {
        return Err(Failure::with_status(why, 2));
    }
    for path in args.outputs() {
        output::check(path)?;
    }
    if settings.cpus[0] == settings.cpus[1] {
        // What the workers share, whoever starts them has: so a ring knows that spinning is no use.
        measure::pin(settings.cpus[0])?;
    }
    clean_up_when_ended();
    let mut machine = machine::Machine::here(settings.cpus);
    let warn = |machine: &mut machine::Machine, warnings: Vec<String>| {
        for warning in warnings {
            eprintln!("warning: {warning}");
            machine.warnings.push(warning);
        }
    };
    let doubts = machine.doubts();
    warn(&mut machine, doubts);
    if !args.bare
        && let Some(before) = busy::Snapshot::take()
    {
        std::thread::sleep(LOOK_AROUND);
        let others = busy::Snapshot::take().map(|now| now.since(&before));
        warn(&mut machine, others.unwrap_or_default());
    }
    let begun = busy::Snapshot::take();
    let record = measure_all(&settings, &cases)?;
    let mut rows = record.rows();
    if args.bare {
        // The limits that are probed all the same have given the ratios.
        rows.retain(|row| args.mechanism.contains(&row.mechanism));
    }
    if args.outputs().all(|path| path != Path::new("-")) {
        print(&output::Results {
            header: &machine,
            rows: &rows,
            left_out: &left_out,
        })?;
    }
    if let (Some(begun), Some(now)) = (begun, busy::Snapshot::take()) {
        warn(&mut machine, now.since(&begun));
    }
    let doubts = record.doubts(&rows, &machine);
    warn(&mut machine, doubts);
    let results = output::Results {
        header: &machine,
        rows: &rows,
        left_out: &left_out,
    };
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
        writeln!(out, "not measured: {}", one.describe())?;
    }
    Ok(())
}

/// Goes through the cases round by round.
fn measure_all(settings: &Settings, cases: &[plan::Case]) -> Result<record::Record, Failure> {
    let mut record = record::Record::new(settings.rounds);
    let progress = indicatif::ProgressBar::new((cases.len() * settings.rounds) as u64);
    progress.set_style(
        indicatif::ProgressStyle::with_template("{wide_bar} {pos}/{len} {msg} {eta}")
            .map_err(Failure::new)?,
    );
    if !std::io::stderr().is_terminal() {
        progress.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    for _ in 0..settings.rounds {
        round(settings, cases, &mut record, &progress)?;
    }
    for _ in 0..settings.more_rounds {
        let unsettled = record.unsettled(cases);
        if unsettled.is_empty() {
            break;
        }
        progress.inc_length(unsettled.len() as u64);
        round(settings, &unsettled, &mut record, &progress)?;
    }
    if settings.census {
        progress.inc_length(cases.len() as u64);
        progress.set_message("counting system calls");
        for case in cases {
            count_calls(case, settings, &mut record);
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    Ok(record)
}

/// One repetition of each case. A mechanism that cannot keep a rate is not tried at a higher one.
fn round(
    settings: &Settings,
    cases: &[plan::Case],
    record: &mut record::Record,
    progress: &indicatif::ProgressBar,
) -> Result<(), Failure> {
    let mut fell_behind: Option<plan::Case> = None;
    for case in cases {
        let rateless = |case: plan::Case| plan::Case { rate: None, ..case };
        if fell_behind.is_some_and(|slow| rateless(slow) == rateless(*case)) {
            progress.inc(1);
            continue;
        }
        progress.set_message(format!("{} {}", case.label(), table::size(case.size)));
        let repetition =
            worker::repeat(case, settings.cpus, settings.effort).map_err(Failure::new)?;
        if !repetition.keeps_up(case.rate) {
            fell_behind = Some(*case);
        }
        record.add(*case, repetition);
        progress.inc(1);
    }
    Ok(())
}

/// Counts the system calls of a message. Where they cannot be counted (a container may forbid it) the
/// column stays empty.
fn count_calls(case: &plan::Case, settings: &Settings, record: &mut record::Record) {
    if case.mechanism == Mechanism::Memcpy || case.mode == Mode::Paced {
        return; // none, and those that depend on the rate
    }
    // Watching slows a process down where it makes a call, which can tip a wait that adapts into
    // sleeping: the least of three counts is what it does when left alone.
    let tries = if case.stays_in_user_space() && settings.more_rounds > 0 {
        3
    } else {
        1
    };
    let counted = (0..tries)
        .filter_map(|_| worker::census(case, settings.cpus).ok())
        .min_by(f64::total_cmp);
    if let Some(per_message) = counted {
        record.add_census(*case, per_message);
    }
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
