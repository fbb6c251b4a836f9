//! A round trip between two processes: blocking, and on tokio, of rings with the default strategy and
//! with event descriptors, in turns. `cargo bench --features tokio --bench async_round_trip`.
//!
//! The rounds are interleaved, so that what the machine does meanwhile meets all alike; the medians of
//! batches of 100 trips are compared within each round, and the median of the ratios is what counts.

use std::time::Instant;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use ringway::spsc::{Config, Ring};

const BATCH: u32 = 100;
const BATCHES: usize = 300;
const ROUNDS: usize = 9;

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

/// Nanoseconds of a trip: the median of the batches.
fn median(mut batches: Vec<f64>) -> f64 {
    batches.sort_by(f64::total_cmp);
    batches[batches.len() / 2]
}

fn blocking(there: &Ring, back: &Ring) -> f64 {
    let mut tx = there.producer().expect("a role");
    let mut rx = back.consumer().expect("a role");
    let mut buffer = Vec::new();
    let mut times = Vec::new();
    for _ in 0..BATCHES {
        let began = Instant::now();
        for _ in 0..BATCH {
            tx.send(&[7; 8]).expect("sent");
            rx.recv_into(&mut buffer).expect("received");
        }
        times.push(began.elapsed().as_nanos() as f64 / f64::from(BATCH));
    }
    median(times)
}

fn echo_blocking(there: &Ring, back: &Ring) {
    let mut rx = there.consumer().expect("a role");
    let mut tx = back.producer().expect("a role");
    let mut buffer = Vec::new();
    while rx.recv_into(&mut buffer).is_ok() {
        tx.send(&buffer).expect("sent");
    }
}

fn on_tokio(there: &Ring, back: &Ring) -> f64 {
    runtime().block_on(async {
        let mut tx = there
            .producer()
            .expect("a role")
            .into_async()
            .expect("tokio");
        let mut rx = back
            .consumer()
            .expect("a role")
            .into_async()
            .expect("tokio");
        let mut buffer = Vec::new();
        let mut times = Vec::new();
        for _ in 0..BATCHES {
            let began = Instant::now();
            for _ in 0..BATCH {
                tx.send(&[7; 8]).await.expect("sent");
                rx.recv_into(&mut buffer).await.expect("received");
            }
            times.push(began.elapsed().as_nanos() as f64 / f64::from(BATCH));
        }
        median(times)
    })
}

fn echo_on_tokio(there: &Ring, back: &Ring) {
    runtime().block_on(async {
        let mut rx = there
            .consumer()
            .expect("a role")
            .into_async()
            .expect("tokio");
        let mut tx = back
            .producer()
            .expect("a role")
            .into_async()
            .expect("tokio");
        let mut buffer = Vec::new();
        while rx.recv_into(&mut buffer).await.is_ok() {
            tx.send(&buffer).await.expect("sent");
        }
    });
}

/// The first two processors that this process may use. Both sides are to keep up: a scheduler that puts them on one
/// makes them sleep.
fn two_processors() -> [usize; 2] {
    let may = sched_getaffinity(Pid::this()).expect("an affinity");
    let mut all = (0..CpuSet::count()).filter(|cpu| may.is_set(*cpu).is_ok_and(|is| is));
    let first = all.next().expect("a processor");
    [first, all.next().unwrap_or(first)]
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).expect("a processor");
    sched_setaffinity(Pid::this(), &set).expect("pinned");
}

/// Runs `measure` here against `echo` in a forked child.
fn round(
    cpus: [usize; 2],
    config: &Config,
    measure: fn(&Ring, &Ring) -> f64,
    echo: fn(&Ring, &Ring),
) -> f64 {
    let there = Ring::anonymous(config.clone()).expect("a ring");
    let back = Ring::anonymous(config.clone()).expect("a ring");
    // SAFETY: no other thread but the bridge's, which holds nothing that the child needs; it uses rings, which a
    // child may, and exits.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "a child");
    if pid == 0 {
        pin(cpus[1]);
        echo(&there, &back);
        std::process::exit(0);
    }
    let time = measure(&there, &back);
    let mut status = 0;
    // SAFETY: waits for the child made above.
    unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!(status, 0);
    time
}

fn main() {
    let futex = Config::default();
    let event = Config::default().wait(ringway::wait::WaitStrategy::EventFd);
    let cpus = two_processors();
    pin(cpus[0]);
    let mut results = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        results[0].push(round(cpus, &futex, blocking, echo_blocking));
        results[1].push(round(cpus, &futex, on_tokio, echo_on_tokio));
        results[2].push(round(cpus, &event, on_tokio, echo_on_tokio));
    }
    let against = |column: &[f64]| {
        median(
            column
                .iter()
                .zip(&results[0])
                .map(|(one, base)| one / base)
                .collect(),
        )
    };
    println!("round trip of 8 bytes, two processes, {ROUNDS} rounds, medians:");
    for (name, column) in ["blocking, adaptive", "tokio, adaptive", "tokio, eventfd"]
        .iter()
        .zip(&results)
    {
        println!(
            "{name:20} {:8.0} ns  ×{:.2}",
            median(column.clone()),
            against(column)
        );
    }
}
