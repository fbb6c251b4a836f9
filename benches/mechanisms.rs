//! Every mechanism's round trip and throughput at 64 bytes, between real processes, so that
//! criterion keeps the history: `cargo bench --bench mechanisms`.
//!
//! Each sample is a repetition of `ringway bench`, whose engine measures inside the two processes;
//! criterion is told how long its number of iterations would have taken. So neither the starting of
//! processes nor criterion's own loop is ever part of a result.

use std::process::Command;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};

const SIZE: u64 = 64;

/// Mechanism, and wait where it has a choice.
const CASES: [(&str, &str); 26] = [
    ("spsc", "spin"),
    ("spsc", "adaptive"),
    ("spsc", "futex"),
    ("spsc", "semaphore"),
    ("spsc", "eventfd"),
    ("mpmc", "spin"),
    ("mpmc", "adaptive"),
    ("mpmc", "futex"),
    ("mpmc", "semaphore"),
    ("mpmc", "eventfd"),
    ("broadcast", "spin"),
    ("broadcast", "adaptive"),
    ("broadcast", "futex"),
    ("broadcast", "semaphore"),
    ("bare-futex", ""),
    ("semaphore", ""),
    ("eventfd", ""),
    ("pipe", ""),
    ("fifo", ""),
    ("mqueue", ""),
    ("sysv", ""),
    ("signal", ""),
    ("unix-stream", ""),
    ("unix-seqpacket", ""),
    ("unix-datagram", ""),
    ("tcp", ""),
];

/// The tool, which cargo builds before the bench.
const TOOL: &str = env!("CARGO_BIN_EXE_ringway");

/// Seconds of one operation, in a repetition of its own.
fn seconds(mechanism: &str, wait: &str, mode: &str) -> f64 {
    let size = if mechanism == "signal" { 8 } else { SIZE };
    let mut command = Command::new(TOOL);
    command.args(["bench", "--rounds=1", "--duration=10", "--bare", "--csv=-"]);
    command.args(["--mechanism", mechanism, "--mode", mode]);
    command.args(["--size", &size.to_string()]);
    if !wait.is_empty() {
        command.args(["--wait", wait]);
    }
    let output = command.output().expect("ringway bench runs");
    let table = String::from_utf8(output.stdout).expect("ringway bench prints text");
    let mut lines = table.lines().map(|line| line.split(','));
    let names = lines.next().expect("a line of names");
    let column = names.clone().position(|name| name == "msgs_per_s");
    let row = lines.find(|row| row.clone().next() == Some(mechanism));
    let per_second = row.and_then(|mut row| row.nth(column?)?.parse::<f64>().ok());
    1.0 / per_second
        .unwrap_or_else(|| panic!("{mechanism}: {}", String::from_utf8_lossy(&output.stderr)))
}

fn measure(group: &mut BenchmarkGroup<'_, WallTime>, mode: &str) {
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(1))
        .measurement_time(Duration::from_millis(100));
    for (mechanism, wait) in CASES {
        if mechanism == "bare-futex" && mode != "rtt" {
            continue;
        }
        let name = [mechanism, wait].join(" ");
        group.bench_function(name.trim(), |bencher| {
            bencher.iter_custom(|iterations| {
                Duration::from_secs_f64(seconds(mechanism, wait, mode) * iterations as f64)
            });
        });
    }
}

fn mechanisms(criterion: &mut Criterion) {
    // (A signal carries 8 bytes.)
    measure(&mut criterion.benchmark_group("round trip, 64 B"), "rtt");
    let mut group = criterion.benchmark_group("throughput, 64 B");
    group.throughput(Throughput::Bytes(SIZE));
    measure(&mut group, "throughput");
}

criterion_group!(benches, mechanisms);
criterion_main!(benches);
