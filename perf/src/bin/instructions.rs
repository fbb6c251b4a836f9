//! `cargo run --release --no-default-features --bin instructions [compare|record]`: how many instructions one operation
//! takes, counted by callgrind, which is exact, beside the baseline kept in `baseline/`.
//!
//! Each operation runs 1,000 and then 2,000 times under callgrind; the difference is free of all that
//! comes before and after. A baseline is only comparable under the same compiler and C library, which
//! it names; under others, and where valgrind is missing, `compare` says so and passes.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};

use ringway::mpmc;
use ringway::spsc::{Config, Ring};
use ringway::wait::WaitStrategy;

/// More growth than this fails.
const GROWTH: f64 = 0.02;
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline/instructions.json");
const OPERATIONS: [&str; 8] = [
    "spsc spin 8 B",
    "spsc spin 64 B",
    "spsc spin 1 KiB",
    "spsc adaptive 8 B",
    "spsc spin batch 8 B",
    "mpmc spin 8 B",
    "mpmc adaptive 8 B",
    "mpmc spin batch 8 B",
];

/// Runs an operation (a message sent and received) `count` times.
fn operate(name: &str, count: u64) -> Result<(), Box<dyn std::error::Error>> {
    let wait = if name.contains("adaptive") {
        WaitStrategy::Adaptive
    } else {
        WaitStrategy::Spin
    };
    let size = match name {
        _ if name.ends_with("64 B") => 64,
        _ if name.ends_with("KiB") => 1024,
        _ => 8,
    };
    let message = vec![7u8; size];
    let mut room = vec![0u8; size];
    if name.starts_with("spsc") {
        let ring = Ring::anonymous(Config::default().wait(wait))?;
        let (mut tx, mut rx) = (ring.producer()?, ring.consumer()?);
        if name.contains("batch") {
            for _ in 0..count / 25 {
                tx.send_batch(std::iter::repeat_n(&message, 25))?;
                for message in rx.drain(25) {
                    room.copy_from_slice(&message);
                }
            }
        } else {
            for _ in 0..count {
                tx.send(&message)?;
                rx.recv_into_slice(&mut room)?;
            }
        }
    } else {
        let ring = mpmc::Ring::anonymous(mpmc::Config::default().wait(wait))?;
        let (mut tx, mut rx) = (ring.producer()?, ring.consumer()?);
        if name.contains("batch") {
            for _ in 0..count / 25 {
                tx.send_batch(std::iter::repeat_n(&message, 25))?;
                let mut batch = rx.drain(25)?;
                while let Some(message) = batch.next_message()? {
                    room.copy_from_slice(message);
                }
            }
        } else {
            for _ in 0..count {
                tx.send(&message)?;
                room.copy_from_slice(&rx.recv()?);
            }
        }
    }
    Ok(())
}

/// Instructions of this program for `count` operations, all told.
fn counted(name: &str, count: u64) -> Result<u64, String> {
    let exe = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(exe)
        .args(["operate", name, &count.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error}; install it (apt-get install valgrind)"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("{name}: {text}"));
    }
    text.lines()
        .find_map(|line| line.split_once("Collected : "))
        .and_then(|(_, number)| number.trim().parse().ok())
        .ok_or_else(|| format!("{name}: callgrind says no count: {text}"))
}

/// The compiler and the C library: counts are comparable only under the same.
fn toolchain() -> BTreeMap<String, String> {
    let first_line = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().next().map(str::to_owned)
    };
    let rustc = first_line("rustc", &["--version"]);
    let libc = first_line("ldd", &["--version"]);
    BTreeMap::from([
        ("rustc".into(), rustc.unwrap_or_default()),
        ("libc".into(), libc.unwrap_or_default()),
        ("target".into(), std::env::consts::ARCH.into()),
    ])
}

fn run() -> Result<ExitCode, String> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let record = match args[..] {
        ["operate", name, count] => {
            let count = count.parse().map_err(|error| format!("{count}: {error}"))?;
            operate(name, count).map_err(|error| error.to_string())?;
            return Ok(ExitCode::SUCCESS);
        }
        ["record"] => true,
        [] | ["compare"] => false,
        _ => return Err("usage: instructions [compare|record]".into()),
    };
    if !record && Command::new("valgrind").arg("--version").output().is_err() {
        println!("valgrind is not here: instructions are not counted (apt-get install valgrind)");
        return Ok(ExitCode::SUCCESS);
    }
    let mut counts = BTreeMap::new();
    for name in OPERATIONS {
        let each = (counted(name, 2000)? as f64 - counted(name, 1000)? as f64) / 1000.0;
        counts.insert(name.to_owned(), each);
    }
    let here = toolchain();
    if record {
        let baseline = serde_json::json!({"toolchain": here, "instructions": counts});
        let text = serde_json::to_string_pretty(&baseline).map_err(|error| error.to_string())?;
        std::fs::write(BASELINE, text + "\n").map_err(|error| format!("{BASELINE}: {error}"))?;
    }
    if !Path::new(BASELINE).exists() {
        return Err(format!(
            "{BASELINE}: there is none yet; make one with `record`"
        ));
    }
    let text = std::fs::read_to_string(BASELINE).map_err(|error| error.to_string())?;
    let baseline: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| format!("{BASELINE}: {error}"))?;
    let mut grown = false;
    println!(
        "{:<24}{:>10}{:>10}{:>9}",
        "instructions", "baseline", "now", ""
    );
    for (name, &now) in &counts {
        let before = baseline["instructions"][name].as_f64();
        let growth = before.map_or(0.0, |before| now / before - 1.0);
        grown |= growth > GROWTH;
        let shown = before.map_or_else(|| "-".into(), |before| format!("{before:.1}"));
        println!("{name:<24}{shown:>10}{now:>10.1}{:>+8.1}%", growth * 100.0);
    }
    if baseline["toolchain"] != serde_json::json!(here) {
        println!(
            "the baseline is of {}, this is {}: counts of the two do not compare",
            baseline["toolchain"],
            serde_json::json!(here)
        );
        return Ok(ExitCode::SUCCESS);
    }
    if grown {
        println!("more than {:.0} % above the baseline", GROWTH * 100.0);
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    run().unwrap_or_else(|error| {
        eprintln!("instructions: {error}");
        ExitCode::FAILURE
    })
}
