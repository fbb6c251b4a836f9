//! `cargo run --release --bin flame -- OUT.svg [ARGUMENTS OF ringway bench]`: a flame graph of a
//! benchmark's two workers, sampled by `perf record`. Where the hardware counters are missing, as on
//! most virtual machines, the kernel's clock does the sampling.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use inferno::collapse::Collapse;
use inferno::collapse::perf::Folder;
use inferno::flamegraph::{self, Options};

const RINGWAY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/ringway");
/// What is looked at unless something else is asked for.
const USUAL: [&str; 8] = [
    "--mechanism=spsc",
    "--wait=spin",
    "--size=8",
    "--mode=throughput",
    "--bare",
    "--rounds=1",
    "--duration=1000",
    "--csv=-",
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flame: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let out = args.next().filter(|arg| !arg.starts_with('-'));
    let out = out.ok_or("usage: flame OUT.svg [ARGUMENTS OF ringway bench]")?;
    let args: Vec<String> = args.collect();
    if !Path::new(RINGWAY).exists() {
        return Err(format!("{RINGWAY}: build it first: cargo ringway --version").into());
    }
    let event = event()?;
    let data = format!("{out}.data");
    // Stacks by the debug information: a release build keeps no frame pointers.
    let mut record = Command::new("perf");
    record.args([
        "record",
        "-q",
        "-e",
        event,
        "-F",
        "1999",
        "--call-graph",
        "dwarf,4096",
    ]);
    record.args(["-o", &data, "--", RINGWAY, "bench"]);
    if args.is_empty() {
        record.args(USUAL);
    } else {
        record.args(&args);
    }
    if !record.status()?.success() {
        return Err(
            "perf record failed; /proc/sys/kernel/perf_event_paranoid must be 2 or less".into(),
        );
    }
    let mut script = Command::new("perf")
        .args(["script", "--no-inline", "-i", &data])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let stacks = script.stdout.take().ok_or("perf script has no output")?;
    let mut folded = Vec::new();
    Folder::default().collapse(BufReader::new(stacks), &mut folded)?;
    script.wait()?;
    std::fs::remove_file(&data)?;
    // The workers: the program that starts them only waits.
    let folded = String::from_utf8(folded)?;
    let mut options = Options::default();
    options.title = format!("ringway bench {}, by {event}", args.join(" "));
    flamegraph::from_lines(&mut options, folded.lines(), File::create(&out)?)?;
    println!(
        "{out}: {} different stacks, sampled by {event}",
        folded.lines().count()
    );
    Ok(())
}

/// What samples are taken by: cycles, or the kernel's clock where they cannot be counted.
fn event() -> Result<&'static str, Box<dyn std::error::Error>> {
    let output = Command::new("perf")
        .args(["stat", "-x,", "-e", "cycles", "true"])
        .output()
        .map_err(|error| format!("perf: {error}; install it (apt-get install linux-perf)"))?;
    let counted = String::from_utf8_lossy(&output.stderr);
    let number = counted.split(',').next().unwrap_or_default().trim();
    Ok(if number.parse::<u64>().is_ok() {
        "cycles"
    } else {
        "cpu-clock"
    })
}
