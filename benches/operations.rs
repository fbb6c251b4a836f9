//! The rings' own operations, in one thread: what the code costs when no cache line has to travel.
//! `cargo bench --bench operations`.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringway::mpmc::{self, items};
use ringway::spsc;
use ringway::wait::WaitStrategy;

const BATCH: usize = 32;
const SIZES: [usize; 3] = [8, 64, 1024];

fn waits() -> [(&'static str, WaitStrategy); 2] {
    [
        ("spin", WaitStrategy::Spin),
        ("adaptive", WaitStrategy::Adaptive),
    ]
}

fn spsc(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("spsc, one thread");
    for (name, wait) in waits() {
        let ring = spsc::Ring::anonymous(spsc::Config::default().wait(wait)).expect("a ring");
        let (mut tx, mut rx) = (
            ring.producer().expect("a producer"),
            ring.consumer().expect("a consumer"),
        );
        for size in SIZES {
            let message = vec![7u8; size];
            let mut room = vec![0u8; size];
            group.throughput(Throughput::Elements(1));
            group.bench_function(
                format!("send, recv_into_slice {size} B, {name}"),
                |bencher| {
                    bencher.iter(|| {
                        tx.send(black_box(&message)).expect("room");
                        rx.recv_into_slice(&mut room).expect("a message")
                    });
                },
            );
            group.bench_function(format!("send, recv {size} B, {name}"), |bencher| {
                bencher.iter(|| {
                    tx.send(black_box(&message)).expect("room");
                    black_box(rx.recv().expect("a message").first().copied())
                });
            });
            group.bench_function(
                format!("reserve, commit, recv {size} B, {name}"),
                |bencher| {
                    bencher.iter(|| {
                        let mut place = tx.reserve(size).expect("room");
                        place.copy_from_slice(black_box(&message));
                        place.commit();
                        black_box(rx.recv().expect("a message").first().copied())
                    });
                },
            );
            group.throughput(Throughput::Elements(BATCH as u64));
            group.bench_function(
                format!("send_batch, drain {BATCH} x {size} B, {name}"),
                |bencher| {
                    bencher.iter(|| {
                        tx.send_batch(std::iter::repeat_n(black_box(&message), BATCH))
                            .expect("room");
                        rx.drain(BATCH).map(|message| message.len()).sum::<usize>()
                    });
                },
            );
        }
    }
    let ring = spsc::Ring::anonymous(spsc::Config::default()).expect("a ring");
    let mut tx = ring.producer().expect("a producer");
    group.throughput(Throughput::Elements(1));
    group.bench_function("reserve, drop", |bencher| {
        bencher.iter(|| black_box(tx.reserve(64).expect("room").len()));
    });
    let mut rx = ring.consumer().expect("a consumer");
    group.bench_function("try_recv, empty", |bencher| {
        bencher.iter(|| black_box(rx.try_recv().is_err()));
    });
    group.finish();
}

fn mpmc(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mpmc, one thread");
    for (name, wait) in waits() {
        for size in SIZES {
            let config = mpmc::Config::default().wait(wait).slot_size(size as u64);
            let ring = mpmc::Ring::anonymous(config).expect("a ring");
            let (mut tx, mut rx) = (
                ring.producer().expect("a producer"),
                ring.consumer().expect("a consumer"),
            );
            let message = vec![7u8; size];
            group.throughput(Throughput::Elements(1));
            group.bench_function(format!("send, recv {size} B, {name}"), |bencher| {
                bencher.iter(|| {
                    tx.send(black_box(&message)).expect("room");
                    black_box(rx.recv().expect("a message").first().copied())
                });
            });
            group.throughput(Throughput::Elements(BATCH as u64));
            group.bench_function(
                format!("send_batch, drain {BATCH} x {size} B, {name}"),
                |bencher| {
                    bencher.iter(|| {
                        tx.send_batch(std::iter::repeat_n(black_box(&message), BATCH))
                            .expect("room");
                        let mut batch = rx.drain(BATCH).expect("messages");
                        let mut bytes = 0;
                        while let Some(message) = batch.next_message().expect("a message") {
                            bytes += message.len();
                        }
                        bytes
                    });
                },
            );
        }
        let config = mpmc::Config::default().wait(wait);
        let ring = items::Ring::anonymous(config).expect("a ring");
        let (mut tx, mut rx) = (
            ring.producer().expect("a producer"),
            ring.consumer().expect("a consumer"),
        );
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("items: send, recv, {name}"), |bencher| {
            bencher.iter(|| {
                tx.send(black_box(7)).expect("room");
                rx.recv().expect("an item")
            });
        });
    }
    group.finish();
}

/// What has to be done once: it is no part of any message's time.
fn setting_up(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("setting up");
    group.sample_size(20);
    group.bench_function("spsc: create, attach both, leave", |bencher| {
        bencher.iter_batched(
            spsc::Config::default,
            |config| {
                let ring = spsc::Ring::anonymous(config).expect("a ring");
                (
                    ring.producer().expect("a role"),
                    ring.consumer().expect("a role"),
                )
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("mpmc: create, attach both, leave", |bencher| {
        bencher.iter_batched(
            mpmc::Config::default,
            |config| {
                let ring = mpmc::Ring::anonymous(config).expect("a ring");
                (
                    ring.producer().expect("a role"),
                    ring.consumer().expect("a role"),
                )
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(std::time::Duration::from_millis(200))
        .measurement_time(std::time::Duration::from_secs(1));
    targets = spsc, mpmc, setting_up
}
criterion_main!(benches);
