//! The broadcast ring: what a user sees, in one process and between several.
#![allow(clippy::forget_non_drop, clippy::drop_non_drop)] // that nothing happens is what is tested

use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use ringway::broadcast::{self, Config, Policy, Producer, Ring, Start, Subscriber};
use ringway::observe::Observer;
use ringway::wait::WaitStrategy;
use ringway::{Error, RecvError, SendError};

mod common;
use common::{Random, Reaped, child, task, until, watchdog};

fn small() -> Config {
    Config::default().capacity(256)
}

fn lossy(capacity: u64) -> Config {
    Config::default().capacity(capacity).policy(Policy::Lossy)
}

fn name(what: &str) -> String {
    format!("test-bcast-{what}-{}", std::process::id())
}

fn path(name: &str) -> std::path::PathBuf {
    format!("/dev/shm/ringway.{name}").into()
}

/// Bytes that tell where they are, for the message of number `i` and length `len`.
fn pattern(i: u64, len: usize) -> Vec<u8> {
    let mut random = Random(i);
    let mut bytes: Vec<u8> = (0..len.div_ceil(8))
        .flat_map(|_| random.next().to_le_bytes())
        .collect();
    bytes.truncate(len);
    bytes
}

/// What a subscriber makes of the next message: its sequence and bytes, or how many it missed.
fn next(rx: &mut Subscriber) -> Result<Option<(u64, Vec<u8>)>, u64> {
    match rx.try_recv() {
        Ok(message) => Ok(Some((message.sequence(), message.to_vec()))),
        Err(RecvError::Empty) => Ok(None),
        Err(RecvError::Missed { count }) => Err(count),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn every_subscriber_gets_every_length_at_every_offset_of_the_ring() {
    let _watchdog = watchdog(60);
    for config in [small(), small().policy(Policy::Lossy)] {
        let ring = Ring::anonymous(config).unwrap();
        let mut tx = ring.producer().unwrap();
        let mut all: Vec<_> = (0..3).map(|_| ring.subscriber().unwrap()).collect();
        all.push(ring.observer(Start::Next).unwrap());
        let max = ring.max_message();
        assert_eq!(max, 56);
        for i in 0..5_000u64 {
            let bytes = pattern(i, Random(i).below(max as u64 + 1) as usize);
            tx.try_send(&bytes).unwrap();
            for rx in &mut all {
                assert_eq!(next(rx), Ok(Some((i, bytes.clone()))));
                assert_eq!(next(rx), Ok(None));
            }
        }
    }
}

#[test]
fn the_slowest_subscriber_holds_a_lossless_producer_back() {
    let _watchdog = watchdog(60);
    let ring = Ring::anonymous(small()).unwrap();
    let mut tx = ring.producer().unwrap();
    let (mut fast, mut slow) = (ring.subscriber().unwrap(), ring.subscriber().unwrap());
    let (mut sent, mut received) = (0u64, 0u64);
    for _ in 0..500 {
        while tx.try_send(&sent.to_le_bytes()).is_ok() {
            sent += 1;
            assert_eq!(next(&mut fast).unwrap().unwrap().0, sent - 1);
        }
        assert!(sent > received && sent - received <= 16);
        let message = slow.recv().unwrap();
        assert_eq!(
            (message.sequence(), &*message),
            (received, &received.to_le_bytes()[..])
        );
        received += 1;
    }
}

/// Where the bytes of the next message are.
fn place(rx: &mut Subscriber) -> usize {
    let message = rx.try_recv().unwrap();
    assert_eq!(*message, [7; 100]);
    message.as_ptr() as usize
}

#[test]
fn who_joins_others_borrows_copies_until_it_has_caught_up() {
    let ring = Ring::anonymous(Config::default()).unwrap();
    let mut tx = ring.producer().unwrap();
    let mut first = ring.subscriber().unwrap();
    let mut send = || tx.send(&[7; 100]).unwrap();
    send();
    let mut second = ring.subscriber_from(Start::Oldest).unwrap();
    send();
    // The first may be touching what was sent before the second had found nothing more.
    for _ in 0..2 {
        assert_ne!(place(&mut second), place(&mut first));
    }
    assert_eq!(next(&mut second), Ok(None));
    send();
    assert_eq!(place(&mut second), place(&mut first));
    // Nor does one that is alone copy.
    drop((first, second));
    let mut alone = ring.subscriber_from(Start::Last(2)).unwrap();
    assert_eq!(place(&mut alone) + 112, place(&mut alone));
}

#[test]
fn one_that_is_alone_is_left_so_and_is_joined_again_receives_everything() {
    let _watchdog = watchdog(60);
    let ring = Ring::anonymous(Config::default().capacity(512)).unwrap();
    let mut tx = ring.producer().unwrap();
    let mut stays = ring.subscriber().unwrap();
    let receiving = std::thread::spawn(move || {
        let mut count = 0;
        while let Ok(message) = stays.recv() {
            assert_eq!(*message, *pattern(count, (count % 90) as usize));
            count += 1;
        }
        count
    });
    let coming = std::thread::spawn(move || {
        let mut taken = 0;
        loop {
            let mut comes = ring.subscriber().unwrap();
            for _ in 0..20 {
                match comes.recv() {
                    Ok(message) => {
                        let number = message.sequence();
                        assert_eq!(*message, *pattern(number, (number % 90) as usize));
                        taken += 1;
                    }
                    Err(RecvError::Closed) => return taken,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
    for number in 0..200_000 {
        tx.send(&pattern(number, (number % 90) as usize)).unwrap();
    }
    tx.close();
    assert_eq!(receiving.join().unwrap(), 200_000);
    assert!(coming.join().unwrap() > 0);
}

#[test]
fn a_lossy_producer_never_waits_and_a_slow_subscriber_is_told_how_many_it_missed() {
    let _watchdog = watchdog(60);
    let ring = Ring::anonymous(lossy(256)).unwrap();
    let mut tx = ring.producer().unwrap();
    let mut rx = ring.subscriber().unwrap();
    let (mut random, mut sent, mut expected) = (Random(3), 0u64, 0u64);
    for _ in 0..2_000 {
        for _ in 0..random.below(40) {
            tx.try_send(&pattern(sent, random.below(57) as usize))
                .unwrap();
            sent += 1;
        }
        for _ in 0..random.below(20) {
            match next(&mut rx) {
                Ok(None) => assert_eq!(expected, sent),
                Err(missed) => expected += missed,
                Ok(Some((sequence, bytes))) => {
                    assert_eq!(sequence, expected);
                    assert_eq!(bytes, pattern(sequence, bytes.len()));
                    expected += 1;
                }
            }
        }
    }
    assert!(expected > 1000);
}

#[test]
fn a_subscriber_that_was_overrun_goes_on_where_it_chose_to() {
    let _watchdog = watchdog(60);
    let ring = Ring::anonymous(lossy(1024)).unwrap();
    let mut tx = ring.producer().unwrap();
    for (start, at) in [
        (Start::Newest, 999),
        (Start::Next, 1000),
        (Start::Last(3), 997),
    ] {
        let mut rx = ring.subscriber().unwrap();
        rx.resume_at(start);
        let before = tx.sequence();
        for i in 0..1000u64 {
            tx.send(&i.to_le_bytes()).unwrap();
        }
        assert_eq!(next(&mut rx), Err(at));
        assert_eq!(rx.sequence(), before + at);
        if at < 1000 {
            assert_eq!(next(&mut rx).unwrap().unwrap().1, at.to_le_bytes());
        } else {
            assert_eq!(next(&mut rx), Ok(None));
        }
    }
    let mut rx = ring.subscriber().unwrap();
    for i in 0..1000u64 {
        tx.send(&i.to_le_bytes()).unwrap();
    }
    let missed = next(&mut rx).unwrap_err();
    let kept = 1000 - missed;
    assert!(kept >= 16 * 3, "of 64 that fit, {kept} were kept");
    for i in missed..1000 {
        assert_eq!(next(&mut rx).unwrap().unwrap().1, i.to_le_bytes());
    }
}

#[test]
fn a_subscriber_joins_at_the_oldest_the_newest_the_next_or_the_last_few() {
    let _watchdog = watchdog(60);
    for policy in [Policy::Lossless, Policy::Lossy] {
        let ring = Ring::anonymous(Config::default().capacity(4096).policy(policy)).unwrap();
        let mut tx = ring.producer().unwrap();
        // Before there is anything.
        for start in [Start::Oldest, Start::Newest, Start::Next, Start::Last(5)] {
            assert_eq!(ring.subscriber_from(start).unwrap().sequence(), 0);
        }
        for sent in 1..2000u64 {
            tx.send(&pattern(sent - 1, (sent % 50) as usize)).unwrap();
            let at = |start| {
                let mut rx = ring.subscriber_from(start).unwrap();
                let sequence = rx.sequence();
                if let Some((got, bytes)) = next(&mut rx).unwrap() {
                    assert_eq!((got, &bytes), (sequence, &pattern(got, bytes.len())));
                }
                assert_eq!(ring.observer(start).unwrap().sequence(), sequence);
                sequence
            };
            assert_eq!(at(Start::Next), sent);
            assert_eq!(at(Start::Newest), sent - 1);
            assert_eq!(at(Start::Last(0)), sent);
            assert_eq!(at(Start::Last(10)), sent.saturating_sub(10));
            let oldest = at(Start::Oldest);
            assert_eq!(at(Start::Last(u64::MAX)), oldest);
            assert!(sent - oldest >= sent.min(40), "{oldest} of {sent}");
        }
    }
}

#[test]
fn a_reservation_is_sent_whole_shorter_or_not_at_all() {
    let _watchdog = watchdog(60);
    for config in [small(), small().policy(Policy::Lossy)] {
        let ring = Ring::anonymous(config).unwrap();
        let (mut tx, mut rx) = (ring.producer().unwrap(), ring.subscriber().unwrap());
        let mut random = Random(5);
        for i in 0..3_000u64 {
            let len = random.below(57) as usize;
            let mut room = tx.reserve(len).unwrap();
            let bytes = pattern(i, len);
            match random.below(3) {
                0 => {
                    // Would be taken for headers.
                    for word in room.chunks_mut(8) {
                        word.copy_from_slice(&(8u64 << 32 | 1).to_le_bytes()[..word.len()]);
                    }
                    drop(room);
                    assert_eq!(next(&mut rx), Ok(None));
                    continue;
                }
                1 => {
                    room.copy_from_slice(&bytes);
                    room.commit_len(len / 2);
                    assert_eq!(&*rx.recv().unwrap(), &bytes[..len / 2]);
                }
                _ => {
                    room.copy_from_slice(&bytes);
                    room.commit();
                    assert_eq!(&*rx.recv().unwrap(), bytes);
                }
            }
            assert_eq!(next(&mut rx), Ok(None));
        }
    }
}

#[test]
fn batches_of_any_length_arrive_whole_and_in_order() {
    let _watchdog = watchdog(60);
    for policy in [Policy::Lossless, Policy::Lossy] {
        let ring = Ring::anonymous(Config::default().capacity(1024).policy(policy)).unwrap();
        let mut tx = ring.producer().unwrap();
        let mut rx = ring.subscriber().unwrap();
        let receiving = std::thread::spawn(move || {
            let (mut expected, mut missed) = (0, 0);
            while expected < 100_000 {
                match rx.recv() {
                    Ok(message) => {
                        assert_eq!(message.sequence(), expected);
                        assert_eq!(*message, pattern(expected, message.len()));
                        expected += 1;
                    }
                    Err(RecvError::Missed { count }) => {
                        missed += count;
                        expected += count;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            missed
        });
        let (mut random, mut sent) = (Random(8), 0u64);
        while sent < 100_000 {
            let count = random.below(200).min(100_000 - sent);
            let batch: Vec<_> = (sent..sent + count)
                .map(|i| pattern(i, Random(i ^ 99).below(440) as usize))
                .collect();
            assert_eq!(tx.send_batch(&batch).unwrap() as u64, count);
            sent += count;
        }
        let missed = receiving.join().unwrap();
        assert!(policy == Policy::Lossy || missed == 0);
    }
}

#[test]
fn a_message_that_is_held_is_not_overwritten_and_one_that_was_leaked_is_let_go_later() {
    let _watchdog = watchdog(60);
    let ring = Ring::anonymous(small()).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.subscriber().unwrap());
    tx.send(b"held").unwrap();
    let held = rx.recv().unwrap();
    while tx.try_send(&[0xff; 20]).is_ok() {}
    assert_eq!(&*held, b"held");
    std::mem::forget(held);
    assert!(matches!(tx.try_send(&[1; 20]), Err(SendError::Full)));
    while rx.try_recv().is_ok() {}
    tx.try_send(&[1; 20]).unwrap();
}

#[test]
fn without_subscribers_a_lossless_producer_does_not_wait_unless_some_are_expected() {
    let _watchdog = watchdog(60);
    let ring = Ring::anonymous(small()).unwrap();
    let mut tx = ring.producer().unwrap();
    for i in 0..1000u64 {
        tx.try_send(&i.to_le_bytes()).unwrap();
    }
    let ring = Ring::anonymous(small().expected(2)).unwrap();
    let mut tx = ring.producer().unwrap();
    let mut sent = 0u64;
    while tx.try_send(&sent.to_le_bytes()).is_ok() {
        sent += 1;
    }
    assert!(sent >= 8);
    let timeout = Duration::from_millis(1);
    assert!(matches!(
        tx.send_timeout(&[], timeout),
        Err(SendError::TimedOut)
    ));
    let mut first = ring.subscriber_from(Start::Oldest).unwrap();
    for i in 0..sent {
        assert_eq!(&*first.recv().unwrap(), i.to_le_bytes());
    }
    assert!(matches!(tx.try_send(&[]), Err(SendError::Full)));
    let mut second = ring.subscriber_from(Start::Oldest).unwrap();
    assert_eq!(second.sequence(), 0);
    assert!(matches!(tx.try_send(&[]), Err(SendError::Full)));
    second.recv().unwrap();
    second.recv().unwrap();
    tx.try_send(&[]).unwrap();
}

#[test]
fn a_producer_that_waits_for_expected_subscribers_is_woken_when_they_come() {
    let _watchdog = watchdog(60);
    for wait in [WaitStrategy::Futex, WaitStrategy::Semaphore] {
        let ring = Ring::anonymous(small().expected(1).wait(wait)).unwrap();
        let mut tx = ring.producer().unwrap();
        let sending = std::thread::spawn(move || {
            for i in 0..1000u64 {
                tx.send(&i.to_le_bytes()).unwrap();
            }
        });
        let mut rx = ring.subscriber_from(Start::Oldest).unwrap();
        for i in 0..1000u64 {
            assert_eq!(&*rx.recv().unwrap(), i.to_le_bytes());
        }
        assert!(matches!(rx.recv(), Err(RecvError::Closed)));
        sending.join().unwrap();
    }
}

#[test]
fn every_wait_strategy_passes_everything_to_all_and_tells_the_end() {
    let _watchdog = watchdog(120);
    for wait in [
        WaitStrategy::Spin,
        WaitStrategy::Adaptive,
        WaitStrategy::Futex,
        WaitStrategy::Semaphore,
    ] {
        for policy in [Policy::Lossless, Policy::Lossy] {
            let config = Config::default().capacity(1024).wait(wait).policy(policy);
            let ring = Ring::anonymous(config).unwrap();
            let mut tx = ring.producer().unwrap();
            let messages = if wait == WaitStrategy::Spin {
                2_000
            } else {
                10_000
            };
            let receive = |mut rx: Subscriber, gated: bool| {
                std::thread::spawn(move || {
                    let mut expected = 0u64;
                    loop {
                        match rx.recv() {
                            Ok(message) => {
                                assert_eq!(message.sequence(), expected);
                                assert_eq!(*message, pattern(expected, message.len()));
                                expected += 1;
                            }
                            Err(RecvError::Missed { count }) if !gated => expected += count,
                            Err(RecvError::Closed) => return assert_eq!(expected, messages),
                            Err(error) => panic!("{error}"),
                        }
                    }
                })
            };
            let gated = policy == Policy::Lossless;
            let mut all: Vec<_> = (0..3)
                .map(|_| receive(ring.subscriber().unwrap(), gated))
                .collect();
            all.push(receive(ring.observer(Start::Next).unwrap(), false));
            for i in 0..messages {
                tx.send(&pattern(i, (i % 64) as usize)).unwrap();
            }
            drop(tx);
            for thread in all {
                thread.join().unwrap();
            }
        }
    }
}

#[test]
fn event_descriptors_are_refused_with_a_remedy() {
    let _watchdog = watchdog(60);
    let refused = Ring::anonymous(Config::default().wait(WaitStrategy::EventFd));
    let error = refused.unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }));
    assert!(
        error.to_string().contains("another wait strategy"),
        "{error}"
    );
}

#[test]
fn a_thousand_sleepers_are_all_woken_by_one_message() {
    let _watchdog = watchdog(120);
    const SLEEPERS: u64 = 1000;
    // Each has a descriptor.
    let files = Resource::RLIMIT_NOFILE;
    let (soft, hard) = getrlimit(files).unwrap();
    setrlimit(files, soft.max((2 * SLEEPERS).min(hard)), hard).unwrap();
    for wait in [WaitStrategy::Futex, WaitStrategy::Semaphore] {
        let config = Config::default()
            .subscribers(SLEEPERS)
            .wait(wait)
            .policy(Policy::Lossy);
        let ring = Ring::anonymous(config).unwrap();
        let mut tx = ring.producer().unwrap();
        let sleepers: Vec<_> = (0..SLEEPERS)
            .map(|_| {
                let mut rx = ring.subscriber().unwrap();
                std::thread::spawn(move || rx.recv().unwrap().to_vec())
            })
            .collect();
        let file = format!("/proc/self/fd/{}", ring.as_fd().as_raw_fd());
        let observer = Observer::open(&file).unwrap();
        until(|| {
            let all = observer.snapshot().unwrap().participants;
            let parked = all.iter().filter(|one| one.counters.parks > 0);
            parked.count() == SLEEPERS as usize
        });
        tx.send(b"wake up").unwrap();
        for sleeper in sleepers {
            assert_eq!(sleeper.join().unwrap(), b"wake up");
        }
        let all = observer.snapshot().unwrap().participants;
        let wakes = all.iter().map(|one| (one.role, one.counters.wakes));
        let producer: Vec<_> = wakes.filter(|one| one.0 == "producer").collect();
        assert_eq!(producer, [("producer", 1)]);
    }
}

#[test]
fn seats_are_given_back_and_the_last_one_is_refused_with_the_limit() {
    let _watchdog = watchdog(60);
    let ring = Ring::anonymous(small().subscribers(2)).unwrap();
    for _ in 0..10 {
        let first = ring.subscriber().unwrap();
        let second = ring.subscriber().unwrap();
        assert_eq!(ring.living_subscribers().unwrap(), 2);
        assert!(matches!(
            ring.subscriber(),
            Err(Error::TooManyParticipants { max: 2, .. })
        ));
        ring.observer(Start::Next).unwrap();
        drop((first, second));
    }
    assert_eq!(ring.living_subscribers().unwrap(), 0);
}

#[test]
fn a_second_producer_is_refused_and_a_successor_continues_the_sequence() {
    let _watchdog = watchdog(60);
    let small = || Config::default().capacity(1024);
    for config in [small(), small().policy(Policy::Lossy)] {
        let ring = Ring::anonymous(config).unwrap();
        let mut rx = ring.subscriber().unwrap();
        for i in 0..300u64 {
            let mut tx = ring.producer().unwrap();
            assert_eq!(tx.sequence(), 2 * i);
            assert!(matches!(ring.producer(), Err(Error::RoleTaken { .. })));
            tx.send(&pattern(i, (i % 57) as usize)).unwrap();
            tx.reserve(50).unwrap().fill(0xff); // given up
            tx.send(b"second").unwrap();
            drop(tx);
            assert_eq!(&*rx.recv().unwrap(), pattern(i, (i % 57) as usize));
            assert_eq!(&*rx.recv().unwrap(), b"second");
            assert!(matches!(rx.try_recv(), Err(RecvError::Closed)));
        }
    }
}

#[test]
fn a_view_reads_parts_of_a_message_in_place() {
    let _watchdog = watchdog(60);
    let ring = Ring::anonymous(lossy(4096)).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.subscriber().unwrap());
    let bytes = pattern(1, 1001);
    tx.send(&bytes).unwrap();
    tx.send(&bytes).unwrap();
    let (sequence, ()) = rx
        .recv_with(|view| {
            assert_eq!(view.len(), 1001);
            for from in [0, 1, 7, 8, 500, 993, 1000, 1001, 2000] {
                let mut part = [0; 20];
                let len = view.read(from, &mut part);
                let expected = bytes.get(from..).unwrap_or(&[]);
                assert_eq!(part[..len], expected[..expected.len().min(20)]);
            }
        })
        .unwrap();
    assert_eq!(sequence, 0);
    let mut seen = 0;
    let overrun = rx.recv_with(|view| {
        seen += 1;
        for _ in 0..100 {
            tx.send(&bytes).unwrap();
        }
        view.len()
    });
    assert!(matches!(overrun, Err(RecvError::Missed { .. })) && seen == 1);
}

#[test]
fn a_message_that_is_overwritten_while_it_is_copied_is_never_seen() {
    let _watchdog = watchdog(60);
    let ring = Ring::anonymous(lossy(4096)).unwrap();
    let mut tx = ring.producer().unwrap();
    let readers: Vec<_> = (0..2)
        .map(|i| {
            let mut rx = ring.subscriber().unwrap();
            rx.resume_at([Start::Oldest, Start::Newest][i]);
            std::thread::spawn(move || {
                let (mut expected, mut seen, mut missed) = (0u64, 0u64, 0u64);
                loop {
                    match rx.recv() {
                        Ok(message) => {
                            assert_eq!(message.sequence(), expected);
                            assert!(message.iter().all(|byte| *byte == expected as u8));
                            (expected, seen) = (expected + 1, seen + 1);
                        }
                        Err(RecvError::Missed { count }) => {
                            expected += count;
                            missed += count;
                        }
                        Err(RecvError::Closed) => return (expected, seen, missed),
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    for i in 0..200_000u64 {
        tx.send(&[i as u8; 1500][..1 + (i * 7 % 1500) as usize])
            .unwrap();
    }
    drop(tx);
    for reader in readers {
        let (expected, seen, missed) = reader.join().unwrap();
        assert_eq!(expected, 200_000);
        assert!(seen > 0 && missed > 0, "{seen} seen, {missed} missed");
    }
}

#[test]
fn a_name_is_attached_observed_and_taken_away_by_the_last() {
    let _watchdog = watchdog(60);
    let name = name("name");
    let ring = broadcast::create(&name, small()).unwrap();
    assert!(matches!(
        broadcast::create(&name, small()),
        Err(Error::AlreadyExists { .. })
    ));
    assert!(matches!(
        ringway::spsc::attach(&name),
        Err(Error::NotOurs { .. })
    ));
    let other = broadcast::attach(&name).unwrap();
    let watched = Ring::observe(&name).unwrap();
    assert!(matches!(watched.producer(), Err(Error::Unsupported { .. })));
    assert!(matches!(
        watched.subscriber(),
        Err(Error::Unsupported { .. })
    ));
    let mut eye = watched.observer(Start::Oldest).unwrap();
    let mut rx = other.subscriber().unwrap();
    ring.producer().unwrap().send(b"to both").unwrap();
    assert_eq!(&*rx.recv().unwrap(), b"to both");
    assert_eq!(&*eye.recv().unwrap(), b"to both");
    drop((rx, ring));
    assert!(path(&name).exists());
    drop(other);
    assert!(!path(&name).exists(), "an observer keeps no name alive");
    assert!(matches!(eye.recv(), Err(RecvError::Closed)));
    let named: Ring = broadcast::create_or_attach(&name, small()).unwrap();
    named.unlink().unwrap();
    assert!(!path(&name).exists());
}

#[test]
fn what_was_sent_to_expected_subscribers_keeps_its_name() {
    let _watchdog = watchdog(60);
    let name = name("kept");
    let config = small().expected(1);
    let mut tx = broadcast::create(&name, config)
        .unwrap()
        .producer()
        .unwrap();
    tx.send(b"for whoever comes").unwrap();
    drop(tx);
    assert!(path(&name).exists());
    let ring = broadcast::attach(&name).unwrap();
    let mut rx = ring.subscriber_from(Start::Oldest).unwrap();
    assert_eq!(&*rx.recv().unwrap(), b"for whoever comes");
    assert!(matches!(rx.recv(), Err(RecvError::Closed)));
    drop((rx, ring));
    assert!(!path(&name).exists());
}

#[test]
fn a_ring_is_found_again_in_a_descriptor_that_was_passed() {
    let _watchdog = watchdog(60);
    let ring = Ring::anonymous(small()).unwrap();
    let fd = ring.as_fd().try_clone_to_owned().unwrap();
    let mut rx = Ring::from_fd(fd).unwrap().subscriber().unwrap();
    ring.producer().unwrap().send(b"passed").unwrap();
    assert_eq!(&*rx.recv().unwrap(), b"passed");
}

#[test]
fn wrong_settings_are_refused_with_a_remedy() {
    let _watchdog = watchdog(60);
    let refused = |config: Config| Ring::anonymous(config).unwrap_err().to_string();
    for (config, says) in [
        (Config::default().capacity(1000), "use 1024"),
        (Config::default().capacity(8), "between 256 bytes and 4 GiB"),
        (Config::default().subscribers(0), "1 to 4095"),
        (Config::default().subscribers(5000), "1 to 4095"),
        (
            Config::default().subscribers(1).expected(2),
            "raise `subscribers`",
        ),
    ] {
        let said = refused(config);
        assert!(said.contains(says), "{said}");
    }
    let ring = Ring::anonymous(small()).unwrap();
    let mut tx = ring.producer().unwrap();
    assert!(matches!(
        tx.send(&[0; 57]),
        Err(SendError::MessageTooLarge { len: 57, max: 56 })
    ));
}

#[test]
fn a_stream_is_read_whole_and_one_with_a_gap_is_not_taken_for_one() {
    use std::io::{Read, Write};
    let _watchdog = watchdog(60);
    let ring = Ring::anonymous(small()).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.subscriber().unwrap());
    let bytes = pattern(9, 10_000);
    let sent = bytes.clone();
    let sending = std::thread::spawn(move || {
        let mut stream = tx.stream();
        stream.write_all(&sent).unwrap();
        stream.finish().unwrap();
        tx.send(b"plain").unwrap();
    });
    let mut all = Vec::new();
    rx.stream().unwrap().read_to_end(&mut all).unwrap();
    assert!(all == bytes);
    assert_eq!(&*rx.recv().unwrap(), b"plain");
    sending.join().unwrap();
    let ring = Ring::anonymous(lossy(256)).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.subscriber().unwrap());
    let mut stream = tx.stream();
    stream.write_all(&bytes[..20]).unwrap();
    let mut reader = rx.stream().unwrap();
    reader.read_exact(&mut [0; 20]).unwrap();
    stream.write_all(&bytes).unwrap();
    assert!(
        reader
            .read(&mut [0; 20])
            .unwrap_err()
            .to_string()
            .contains("missed")
    );
    // What follows a gap is not its continuation.
    assert!(reader.read(&mut [0; 20]).is_err());
    stream.finish().unwrap();
    tx.send(b"plain").unwrap();
    all.clear();
    rx.stream().unwrap().read_to_end(&mut all).unwrap();
    assert_eq!(all, b"plain");
}

mod model {
    //! Against a simple model: a list of everything that was sent.
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Send(usize),
        Batch(Vec<usize>),
        Abort(usize),
        Cut(usize, usize),
        Receive(usize, usize),
        Join(usize, Start),
        Leave(usize),
        Succeed,
    }

    fn start() -> impl Strategy<Value = Start> {
        prop_oneof![
            Just(Start::Oldest),
            Just(Start::Newest),
            Just(Start::Next),
            (0u64..20).prop_map(Start::Last),
        ]
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let len = 0usize..=56;
        let step = prop_oneof![
            6 => len.clone().prop_map(Step::Send),
            1 => prop::collection::vec(len.clone(), 0..12).prop_map(Step::Batch),
            1 => len.clone().prop_map(Step::Abort),
            1 => (len.clone(), len).prop_map(|(a, b)| Step::Cut(a.max(b), a.min(b))),
            6 => (0usize..4, 1usize..12).prop_map(|(who, most)| Step::Receive(who, most)),
            1 => (0usize..4, start()).prop_map(|(who, start)| Step::Join(who, start)),
            1 => (0usize..4).prop_map(Step::Leave),
            1 => Just(Step::Succeed),
        ];
        prop::collection::vec(step, 1..200)
    }

    fn run(policy: Policy, steps: Vec<Step>) {
        let ring = Ring::anonymous(small().policy(policy)).unwrap();
        let mut tx: Option<Producer> = Some(ring.producer().unwrap());
        let mut subscribers: [Option<(Subscriber, u64)>; 4] = Default::default();
        let mut sent: Vec<Vec<u8>> = Vec::new();
        for step in steps {
            let producer = tx.as_mut().unwrap();
            let number = sent.len() as u64;
            match step {
                Step::Send(len) => match producer.try_send(&pattern(number, len)) {
                    Ok(()) => sent.push(pattern(number, len)),
                    Err(SendError::Full) => assert_eq!(policy, Policy::Lossless),
                    Err(error) => panic!("{error}"),
                },
                Step::Batch(lens) if policy == Policy::Lossy => {
                    let batch: Vec<_> = (number..)
                        .zip(lens)
                        .map(|(number, len)| pattern(number, len))
                        .collect();
                    assert_eq!(producer.send_batch(&batch).unwrap(), batch.len());
                    sent.extend(batch);
                }
                Step::Batch(_) => {}
                Step::Abort(len) => {
                    if let Ok(mut room) = producer.try_reserve(len) {
                        room.fill(0x11);
                    }
                }
                Step::Cut(len, kept) => {
                    if let Ok(mut room) = producer.try_reserve(len) {
                        room.fill(0x11);
                        let bytes = pattern(number, kept);
                        room[..kept].copy_from_slice(&bytes);
                        room.commit_len(kept);
                        sent.push(bytes);
                    }
                }
                Step::Receive(who, most) => {
                    let Some((rx, expected)) = &mut subscribers[who] else {
                        continue;
                    };
                    for _ in 0..most {
                        match next(rx) {
                            Ok(None) => assert_eq!(*expected, number),
                            Err(missed) => {
                                assert_eq!(policy, Policy::Lossy);
                                assert!(missed > 0);
                                *expected += missed;
                            }
                            Ok(Some((sequence, bytes))) => {
                                assert_eq!(sequence, *expected);
                                assert_eq!(bytes, sent[sequence as usize]);
                                *expected += 1;
                            }
                        }
                    }
                }
                Step::Join(who, start) => {
                    let rx = ring.subscriber_from(start).unwrap();
                    let at = rx.sequence();
                    match start {
                        Start::Oldest => assert!(at <= number),
                        Start::Newest => assert!(at == number.saturating_sub(1) || at == number),
                        Start::Next => assert_eq!(at, number),
                        Start::Last(count) => {
                            assert!(at >= number.saturating_sub(count) && at <= number);
                        }
                    }
                    subscribers[who] = Some((rx, at));
                }
                Step::Leave(who) => subscribers[who] = None,
                Step::Succeed => {
                    drop(tx.take());
                    tx = Some(ring.producer().unwrap());
                    assert_eq!(tx.as_ref().unwrap().sequence(), number);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: std::env::var("RINGWAY_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(150),
            ..ProptestConfig::default()
        })]

        #[test]
        fn a_lossless_ring_is_a_list_that_all_read(steps in steps()) {
            run(Policy::Lossless, steps);
        }

        #[test]
        fn a_lossy_ring_is_a_list_whose_beginning_may_be_gone(steps in steps()) {
            run(Policy::Lossy, steps);
        }
    }
}

/// What the other processes of the tests below do.
#[test]
fn other_process() {
    let Some(task) = task() else { return };
    let _watchdog = watchdog(60);
    let mut words = task.split(' ');
    let (what, name) = (words.next().unwrap(), words.next().unwrap());
    let ring = broadcast::attach(name).unwrap();
    match what {
        "sit" => {
            let _rx = ring.subscriber().unwrap();
            loop {
                std::thread::park();
            }
        }
        "sum" => {
            let mut rx = ring.subscriber_from(Start::Oldest).unwrap();
            let mut expected = 0u64;
            loop {
                match rx.recv() {
                    Ok(message) => {
                        assert_eq!(message.sequence(), expected);
                        assert_eq!(*message, pattern(expected, message.len()));
                        expected += 1;
                    }
                    Err(RecvError::Closed) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!(expected, 20_000);
        }
        "send" => {
            let mut tx = ring.producer().unwrap();
            for i in 0.. {
                tx.send(&pattern(i, (i % 57) as usize)).unwrap();
            }
        }
        what => panic!("{what}?"),
    }
}

#[test]
fn processes_receive_everything_each() {
    let _watchdog = watchdog(60);
    let name = name("processes");
    let ring = broadcast::create(&name, Config::default().capacity(4096).expected(3)).unwrap();
    let mut children: Vec<_> = (0..3)
        .map(|_| {
            Reaped(
                child("other_process", &format!("sum {name}"))
                    .spawn()
                    .unwrap(),
            )
        })
        .collect();
    let mut tx = ring.producer().unwrap();
    for i in 0..20_000 {
        tx.send(&pattern(i, (i % 57) as usize)).unwrap();
    }
    drop(tx);
    for child in &mut children {
        assert!(child.0.wait().unwrap().success());
    }
}

#[test]
fn a_dead_subscriber_holds_nobody_back() {
    let _watchdog = watchdog(60);
    for wait in [
        WaitStrategy::Adaptive,
        WaitStrategy::Spin,
        WaitStrategy::Semaphore,
    ] {
        let name = name(&format!("dead-{wait}"));
        let ring = broadcast::create(&name, small().wait(wait)).unwrap();
        let mut tx = ring.producer().unwrap();
        let mut rx = ring.subscriber().unwrap();
        let mut dead: Vec<_> = (0..3)
            .map(|_| {
                Reaped(
                    child("other_process", &format!("sit {name}"))
                        .spawn()
                        .unwrap(),
                )
            })
            .collect();
        until(|| ring.living_subscribers().unwrap() == 4);
        for child in &mut dead {
            child.0.kill().unwrap();
            child.0.wait().unwrap();
        }
        for i in 0..100u64 {
            tx.send(&i.to_le_bytes()).unwrap();
            assert_eq!(&*rx.recv().unwrap(), i.to_le_bytes());
        }
        // Their seats can be had again.
        let _again: Vec<_> = (0..3).map(|_| ring.subscriber().unwrap()).collect();
        assert_eq!(ring.living_subscribers().unwrap(), 4);
    }
}

#[test]
fn subscribers_learn_of_the_producers_death_and_a_successor_goes_on() {
    let _watchdog = watchdog(60);
    for policy in [Policy::Lossless, Policy::Lossy] {
        let name = name(&format!("producer-{policy:?}"));
        let ring = broadcast::create(&name, small().policy(policy)).unwrap();
        let mut all = [
            ring.subscriber().unwrap(),
            ring.observer(Start::Next).unwrap(),
        ];
        let mut expected = [0, 0];
        let mut child = Reaped(
            child("other_process", &format!("send {name}"))
                .spawn()
                .unwrap(),
        );
        let mut read = |all: &mut [Subscriber], until: Option<u64>| {
            for (rx, expected) in all.iter_mut().zip(&mut expected) {
                loop {
                    match rx.recv() {
                        Ok(message) => {
                            assert_eq!(message.sequence(), *expected);
                            assert_eq!(*message, pattern(*expected, message.len()));
                            *expected += 1;
                        }
                        Err(RecvError::Missed { count }) => *expected += count,
                        Err(RecvError::PeerDied) => break,
                        Err(error) => panic!("{error}"),
                    }
                    if until.is_some_and(|until| *expected >= until) {
                        break;
                    }
                }
            }
            expected
        };
        read(&mut all, Some(1000));
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        let seen = read(&mut all, None);
        assert_eq!(seen[0], seen[1]);
        let mut tx = ring.producer().unwrap();
        assert_eq!(tx.sequence(), seen[0]);
        // What the one before published last it may not have counted: its successor has.
        assert_eq!(ring.sent(), seen[0]);
        for i in seen[0]..seen[0] + 100 {
            tx.send(&pattern(i, (i % 57) as usize)).unwrap();
            read(&mut all, Some(i + 1));
        }
    }
}
