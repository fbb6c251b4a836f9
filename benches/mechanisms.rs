//! Every mechanism's round trip and throughput at 64 bytes, between real processes, so that
//! criterion keeps the history: `cargo bench --features cli --bench mechanisms`.
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
const CASES: [(&str, &str); 15] = [
    ("spsc", "spin"),
    ("spsc", "adaptive"),
    ("spsc", "futex"),
    ("mpmc", "adaptive"),
    ("bare-futex", ""),
    ("semaphore", ""),
    ("eventfd", ""),
    ("pipe", ""),
    ("fifo", ""),
    ("mqueue", ""),
    ("sysv", ""),
    ("unix-stream", ""),
    ("unix-seqpacket", ""),
    ("unix-datagram", ""),
    ("tcp", ""),
];

/// Seconds of one operation, in a repetition of its own.
fn seconds(mechanism: &str, wait: &str, mode: &str) -> f64 {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    command.args(["bench", "--rounds", "1", "--duration", "10", "--bare"]);
    command.args(["--mechanism", mechanism, "--mode", mode, "--json", "-"]);
    command.args(["--size", &SIZE.to_string()]);
    if !wait.is_empty() {
        command.args(["--wait", wait]);
    }
    let output = command.output().expect("ringway bench runs");
    let found: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("ringway bench prints JSON");
    let row = found["rows"]
        .as_array()
        .and_then(|rows| rows.iter().find(|row| row["mechanism"] == mechanism));
    let per_second = row.and_then(|row| row["msgs_per_s"].as_f64());
    1.0 / per_second.expect("a row of the mechanism")
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
    measure(&mut criterion.benchmark_group("round trip, 64 B"), "rtt");
    let mut group = criterion.benchmark_group("throughput, 64 B");
    group.throughput(Throughput::Bytes(SIZE));
    measure(&mut group, "throughput");
}

criterion_group!(benches, mechanisms);
criterion_main!(benches);
