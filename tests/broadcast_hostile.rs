//! Somebody writes whatever they like into a broadcast ring, all the time: nothing outside it is touched,
//! nothing hangs, nothing crashes. Longer: `RINGWAY_HOSTILE_SECONDS=60`.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringway::broadcast::{self, Config, Policy, Ring, Start};

mod common;
use common::{Random, deep, watchdog};

/// Writes likely and unlikely words everywhere behind the header, until told to stop.
fn scribble(path: String, seed: u64, stop: Arc<AtomicBool>) -> u64 {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len();
    let (mut random, mut writes) = (Random(seed), 0);
    while !stop.load(Ordering::Relaxed) {
        let word = match random.below(6) {
            0 => 0,
            1 => u64::MAX,
            2 => random.below(1 << 16),
            3 => random.below(1 << 12) << 32 | random.below(64),
            4 => random.below(2000) * 8,
            _ => random.next(),
        };
        // The control words more often than their size would have it.
        let at = if random.below(2) == 0 {
            2048 + random.below(4096)
        } else {
            2048 + random.below(len - 2048 - 8)
        };
        file.write_all_at(&word.to_ne_bytes(), at & !7).unwrap();
        writes += 1;
    }
    writes
}

#[test]
fn whatever_is_written_into_the_memory_nothing_hangs_or_crashes() {
    let seconds = std::env::var("RINGWAY_HOSTILE_SECONDS").ok();
    let seconds: f64 = seconds.map_or(2.0, |seconds| seconds.parse().unwrap());
    let _watchdog = watchdog(60 + seconds as u64);
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let (mut rounds, mut calls, mut writes) = (0u64, 0u64, 0);
    while Instant::now() < end {
        rounds += 1;
        let policy = [Policy::Lossless, Policy::Lossy][(rounds % 2) as usize];
        let name = format!("test-bcast-hostile-{}-{rounds}", std::process::id());
        let config = Config::default()
            .capacity(1024)
            .subscribers(4)
            .policy(policy);
        let ring = broadcast::create(&name, config).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (path, stopped) = (format!("/dev/shm/ringway.{name}"), stop.clone());
        let scribbler = std::thread::spawn(move || scribble(path, rounds, stopped));
        let mut tx = ring.producer().ok();
        let mut rx = ring.subscriber().ok();
        let mut eye = Ring::observe(&name)
            .and_then(|ring| ring.observer(Start::Oldest))
            .ok();
        let mut random = Random(!rounds);
        let (until, short) = (
            Instant::now() + Duration::from_millis(100),
            Duration::from_micros(50),
        );
        let mut buffer = Vec::new();
        while Instant::now() < until {
            calls += 1;
            let len = random.below(400) as usize;
            if let Some(tx) = &mut tx {
                let _ = match random.below(4) {
                    0 => tx.try_reserve(len).map(|mut room| {
                        room.fill(1);
                        room.commit_len(len / 2);
                    }),
                    1 => tx.send_timeout(&vec![3; len], short),
                    _ => tx.try_send(&vec![2; len]),
                };
            }
            for rx in [&mut rx, &mut eye].into_iter().flatten() {
                let _ = match random.below(3) {
                    0 => rx.try_recv().map(|message| assert!(message.len() <= 1024)),
                    1 => rx.try_recv_into(&mut buffer).map(drop),
                    _ => rx.recv_into_timeout(&mut buffer, short).map(drop),
                };
            }
            // New ones come, and old ones go.
            match random.below(40) {
                0 => tx = tx.take().map_or_else(|| ring.producer().ok(), |_| None),
                1 => rx = ring.subscriber_from(Start::Last(random.below(20))).ok(),
                2 => eye = ring.observer(Start::Newest).ok(),
                3 => drop(ring.living_subscribers()),
                _ => {}
            }
        }
        stop.store(true, Ordering::Relaxed);
        writes += scribbler.join().unwrap();
        drop((tx, rx, eye));
        ring.unlink().unwrap();
    }
    println!(
        "{calls} rounds of calls in {rounds} rings, {writes} words scribbled: nothing happened"
    );
}

/// Whoever can still be had uses the ring a little.
fn use_a_little(ring: &Ring, spoil: impl FnOnce()) {
    let (mut tx, mut rx) = (ring.producer().ok(), ring.subscriber().ok());
    let mut eye = ring.observer(Start::Oldest).ok();
    let mut spoil = Some(spoil);
    for round in 0..30 {
        if round == 10
            && let Some(spoil) = spoil.take()
        {
            spoil();
        }
        if let Some(tx) = &mut tx {
            let _ = tx.try_send(&[9; 100]);
        }
        for rx in [&mut rx, &mut eye].into_iter().flatten() {
            let _ = rx.try_recv().map(|message| assert!(message.len() <= 1024));
        }
        if round % 8 == 0 {
            rx = ring.subscriber_from(Start::Last(2)).ok();
            eye = ring.observer(Start::Newest).ok();
        }
        if round == 20 {
            tx = tx.take().and_then(|_| ring.producer().ok());
        }
    }
}

#[test]
fn every_word_beside_the_data_may_say_what_it_can() {
    let _watchdog = watchdog(120);
    let mut tried = 0;
    for policy in [Policy::Lossless, Policy::Lossy] {
        let config = Config::default()
            .capacity(1024)
            .subscribers(1)
            .policy(policy);
        let len = File::from(ring_file(&config)).metadata().unwrap().len();
        let data = len - 4096; // the data area has the last page
        // The control words; with `RINGWAY_DEEP` the records of the participants, too.
        let (from, words) = if deep() {
            (2048, &[u64::MAX, 1 << 62, 24][..])
        } else {
            (2048 + 2 * 128, &[u64::MAX][..])
        };
        for at in (from..data).step_by(8) {
            for word in words {
                // Before anybody comes, and while all are there.
                for before in [true, false] {
                    let ring = Ring::anonymous(config.clone()).unwrap();
                    let file = File::from(ring.as_fd().try_clone_to_owned().unwrap());
                    let spoil = || file.write_all_at(&word.to_ne_bytes(), at).unwrap();
                    if before {
                        spoil();
                        use_a_little(&ring, || {});
                    } else {
                        use_a_little(&ring, spoil);
                    }
                    tried += 1;
                }
            }
        }
    }
    println!("{tried} rings with one word changed: nothing happened");
}

fn ring_file(config: &Config) -> std::os::fd::OwnedFd {
    let ring = Ring::anonymous(config.clone()).unwrap();
    ring.as_fd().try_clone_to_owned().unwrap()
}
