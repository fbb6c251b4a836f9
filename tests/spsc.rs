//! The SPSC ring: what a user sees, in one process and between two.
#![allow(clippy::forget_non_drop, clippy::drop_non_drop)] // that nothing happens is what is tested

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ringway::spsc::{self, Config, Ring};
use ringway::wait::WaitStrategy;
use ringway::{Error, RecvError, SendError};

mod common;
use common::{Random, Reaped, child, task, until, watchdog};

fn small() -> Config {
    Config::default().capacity(256)
}

fn name(what: &str) -> String {
    format!("test-spsc-{what}-{}", std::process::id())
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

#[test]
fn every_length_arrives_at_every_offset_of_the_ring() {
    let _watchdog = watchdog(60);
    let ring = Ring::anonymous(small()).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    let max = ring.max_message();
    assert_eq!(max, 56);
    for i in 0..20_000u64 {
        let bytes = pattern(i, Random(i).below(max as u64 + 1) as usize);
        tx.try_send(&bytes).unwrap();
        assert_eq!(&*rx.try_recv().unwrap(), bytes);
        assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
    }
}

#[test]
fn the_ring_fills_and_empties_in_order_with_messages_of_all_lengths() {
    let _watchdog = watchdog(60);
    let ring = Ring::anonymous(Config::default().capacity(1024)).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    let (mut sent, mut received, mut random) = (0u64, 0u64, Random(1));
    while received < 20_000 {
        for _ in 0..random.below(40) {
            let bytes = pattern(sent, (Random(sent).next() % 441) as usize);
            match tx.try_send(&bytes) {
                Ok(()) => sent += 1,
                Err(SendError::Full) => break,
                Err(error) => panic!("{error}"),
            }
        }
        for _ in 0..random.below(40) {
            match rx.try_recv() {
                Ok(message) => {
                    let bytes = pattern(received, (Random(received).next() % 441) as usize);
                    assert_eq!(&*message, bytes);
                    received += 1;
                }
                Err(RecvError::Empty) => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_message_that_can_never_fit_is_refused_with_the_limit() {
    let ring = Ring::anonymous(small()).unwrap();
    let mut tx = ring.producer().unwrap();
    let error = tx.send(&[0; 57]).unwrap_err();
    assert!(
        matches!(error, SendError::MessageTooLarge { len: 57, max: 56 }),
        "{error}"
    );
    assert!(matches!(
        tx.reserve(57),
        Err(SendError::MessageTooLarge { .. })
    ));
    assert!(
        tx.send_batch([&[0u8; 1][..], &[0; 57]])
            .is_err_and(|error| error.sent == 1)
    );
}

#[test]
fn a_reservation_dropped_leaked_or_cut_short_leaves_the_ring_whole() {
    let _watchdog = watchdog(60);
    let ring = Ring::anonymous(small()).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    let mut random = Random(7);
    for i in 0..20_000u64 {
        let mut slot = tx.reserve(random.below(57) as usize).unwrap();
        slot.fill(0xff); // were it taken for headers, it would be corrupt ones
        match random.below(4) {
            0 => drop(slot),
            1 => std::mem::forget(slot),
            2 => {
                let len = random.below(slot.len() as u64 + 1) as usize;
                slot.commit_len(len);
                assert_eq!(&*rx.try_recv().unwrap(), vec![0xff; len]);
            }
            _ => {
                let len = slot.len();
                slot.commit();
                assert_eq!(&*rx.try_recv().unwrap(), vec![0xff; len]);
            }
        }
        assert!(matches!(rx.try_recv(), Err(RecvError::Empty)), "at {i}");
        if random.below(2) == 0 {
            tx.try_send(b"between").unwrap();
            assert_eq!(&*rx.try_recv().unwrap(), b"between");
        }
    }
}

#[test]
fn a_message_is_acknowledged_when_it_is_dropped_and_a_leaked_one_at_the_next_use() {
    let _watchdog = watchdog(60);
    let ring = Ring::anonymous(small()).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    while tx.try_send(&[1; 56]).is_ok() {}
    let message = rx.try_recv().unwrap();
    assert!(matches!(tx.try_send(&[2; 56]), Err(SendError::Full)));
    drop(message);
    tx.try_send(&[2; 56]).unwrap();
    std::mem::forget(rx.try_recv().unwrap());
    assert!(matches!(tx.try_send(&[3; 56]), Err(SendError::Full)));
    drop(rx.try_recv().unwrap());
    tx.try_send(&[3; 56]).unwrap();
}

#[test]
fn drained_messages_are_acknowledged_together_when_the_last_is_dropped() {
    let _watchdog = watchdog(60);
    let ring = Ring::anonymous(Config::default().capacity(1024)).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    tx.send_batch((0..10u8).map(|i| [i])).unwrap();
    let used = ring.stats().used;
    let mut kept: Vec<_> = rx.drain(4).collect();
    assert_eq!(ring.stats().used, used);
    kept.truncate(1);
    assert_eq!(ring.stats().used, used);
    drop(kept);
    assert_eq!(ring.stats().used, used - 4 * 16);
    assert_eq!(
        rx.drain(100).map(|message| message[0]).collect::<Vec<_>>(),
        [4, 5, 6, 7, 8, 9]
    );
    assert_eq!(ring.stats().used, 0);
}

#[test]
fn messages_are_read_where_they_lie_and_acknowledged_together() {
    let ring = Ring::anonymous(Config::default().capacity(2048)).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    let (mut number, mut expected) = (0u64, 0u64);
    // Over the end of the area, with lengths alike and not.
    for round in 0..200 {
        for i in 0..1 + round % 9 {
            let len = if round % 2 == 0 { 24 } else { 8 + i * 5 };
            let mut message = vec![number as u8; len];
            message[..8].copy_from_slice(&number.to_le_bytes());
            tx.send(&message).unwrap();
            number += 1;
        }
        for most in [2, 100] {
            let (from, used) = (expected, ring.stats().used);
            let count = rx.drain_with(most, |message| {
                assert_eq!(ring.stats().used, used, "nothing is acknowledged yet");
                assert_eq!(message[..8], expected.to_le_bytes());
                assert!(message[8..].iter().all(|byte| *byte == expected as u8));
                assert!(!message.redelivered());
                expected += 1;
            });
            assert_eq!(count as u64, expected - from);
        }
        assert_eq!((expected, ring.stats().used), (number, 0));
    }
    assert_eq!(ring.stats().received, number);
    assert_eq!(rx.drain_with(9, |_| unreachable!()), 0);
}

#[test]
fn what_a_reader_that_panics_was_given_counts_as_read() {
    let ring = Ring::anonymous(Config::default()).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    tx.send_batch((0..5u8).map(|i| [i])).unwrap();
    let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        rx.drain_with(9, |message| assert!(message[0] != 2, "deliberately"));
    }));
    assert!(panics.is_err());
    let mut left = Vec::new();
    rx.drain_with(9, |message| left.push(message[0]));
    assert_eq!(left, [3, 4]);
    assert_eq!((ring.stats().received, ring.stats().used), (5, 0));
}

#[test]
fn a_batch_larger_than_the_ring_passes_through_it() {
    let _watchdog = watchdog(60);
    for wait in WaitStrategy::ALL {
        let ring = Ring::anonymous(small().wait(wait)).unwrap();
        let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
        std::thread::scope(|scope| {
            scope.spawn(move || {
                assert_eq!(
                    tx.send_batch((0..5000u32).map(|i| i.to_le_bytes()))
                        .unwrap(),
                    5000
                );
            });
            for i in 0..5000u32 {
                assert_eq!(&*rx.recv().unwrap(), i.to_le_bytes(), "{wait}");
            }
            assert!(matches!(rx.recv(), Err(RecvError::Closed)));
        });
    }
}

#[test]
fn streams_keep_their_bounds_also_when_a_writer_gives_up() {
    let _watchdog = watchdog(60);
    let ring = Ring::anonymous(small()).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    let long = pattern(3, 100_000);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = tx.stream();
            stream.write_all(&long).unwrap();
            stream.finish().unwrap();
            tx.stream().finish().unwrap(); // of length 0
            let mut cut = tx.stream();
            cut.write_all(b"half of it").unwrap();
            drop(cut);
            tx.send(b"whole").unwrap();
        });
        let mut bytes = Vec::new();
        rx.stream().unwrap().read_to_end(&mut bytes).unwrap();
        assert!(bytes == long);
        bytes.clear();
        rx.stream().unwrap().read_to_end(&mut bytes).unwrap();
        assert!(bytes.is_empty());
        let error = rx.stream().unwrap().read_to_end(&mut bytes).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
        assert_eq!(&*rx.recv().unwrap(), b"whole");
    });
}

#[test]
fn a_buffer_that_is_too_small_leaves_the_message() {
    let ring = Ring::anonymous(small()).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    tx.send(b"twelve bytes").unwrap();
    let mut buffer = [0; 12];
    let error = rx.recv_into_slice(&mut buffer[..11]).unwrap_err();
    assert!(matches!(
        error,
        RecvError::BufferTooSmall { len: 12, room: 11 }
    ));
    assert_eq!(rx.recv_into_slice(&mut buffer).unwrap(), 12);
    assert_eq!(&buffer, b"twelve bytes");
}

#[test]
fn waits_end_in_time() {
    let _watchdog = watchdog(60);
    for wait in WaitStrategy::ALL {
        let ring = Ring::anonymous(small().wait(wait)).unwrap();
        let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
        let short = Duration::from_millis(5);
        assert!(matches!(rx.recv_timeout(short), Err(RecvError::TimedOut)));
        while tx.try_send(&[0; 56]).is_ok() {}
        assert!(matches!(
            tx.send_timeout(&[0; 56], short),
            Err(SendError::TimedOut)
        ));
        // The marks that the sleepers left do no harm.
        drop(rx.recv().unwrap());
        tx.send(&[0; 56]).unwrap();
    }
}

#[test]
fn a_role_has_one_holder_and_passes_on() {
    let _watchdog = watchdog(60);
    let ring = Ring::anonymous(small()).unwrap();
    let mut first = ring.producer().unwrap();
    let error = ring.producer().unwrap_err();
    assert!(
        matches!(
            error,
            Error::RoleTaken {
                role: "producer",
                ..
            }
        ),
        "{error}"
    );
    first.send(b"from the first").unwrap();
    drop(first);
    let mut rx = ring.consumer().unwrap();
    let mut second = ring.producer().unwrap();
    second.send(b"from the second").unwrap();
    assert_eq!(&*rx.recv().unwrap(), b"from the first");
    assert_eq!(&*rx.recv().unwrap(), b"from the second");
    drop(second);
    assert!(matches!(rx.recv(), Err(RecvError::Closed)));
    assert!(matches!(rx.recv(), Err(RecvError::Closed)));
    let mut third = ring.producer().unwrap();
    assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
    third.send(b"from the third").unwrap();
    assert_eq!(&*rx.recv().unwrap(), b"from the third");
    drop(rx);
    while third.try_send(&[0; 56]).is_ok() {}
    assert!(matches!(third.send(&[0; 56]), Err(SendError::Closed)));
}

#[test]
fn settings_that_cannot_be_are_refused_with_the_remedy() {
    for capacity in [0, 8, 255, 5000, (1 << 32) + 1, 1 << 33, u64::MAX] {
        let error = Ring::anonymous(Config::default().capacity(capacity))
            .unwrap_err()
            .to_string();
        assert!(error.contains(&capacity.to_string()), "{error}");
    }
    let error = Ring::anonymous(Config::default().capacity(5000))
        .unwrap_err()
        .to_string();
    assert!(error.contains("8192"), "{error}");
    for name in ["", "a\0b", &"x".repeat(300)] {
        assert!(matches!(
            spsc::create(name, small()),
            Err(Error::Config { what: "name", .. })
        ));
    }
    let wait = WaitStrategy::EventFd;
    let error = spsc::create(&name("eventfd"), small().wait(wait))
        .unwrap_err()
        .to_string();
    assert!(error.contains("send_over"), "{error}");
    assert!(!path(&name("eventfd")).exists());
}

#[test]
fn what_is_no_ring_is_not_attached_to() {
    let directory = tempfile::tempdir().unwrap();
    let at = |what: &str| directory.path().join(what).display().to_string();
    assert!(matches!(
        spsc::attach(&name("none")),
        Err(Error::NotFound { .. })
    ));
    assert!(matches!(
        spsc::attach(&at("none")),
        Err(Error::NotFound { .. })
    ));
    std::fs::write(at("short"), b"RINGWAY").unwrap();
    assert!(matches!(
        spsc::attach(&at("short")),
        Err(Error::NotOurs { .. })
    ));
    std::fs::write(at("other"), vec![1; 10_000]).unwrap();
    assert!(matches!(
        spsc::attach(&at("other")),
        Err(Error::NotOurs { .. })
    ));
    std::os::unix::fs::symlink(at("other"), at("link")).unwrap();
    let error = spsc::attach(&at("link")).unwrap_err().to_string();
    assert!(error.contains("symbolic link"), "{error}");
    assert!(matches!(spsc::attach(&at(".")), Err(Error::NotOurs { .. })));
    // A real ring, with a word of its header changed at a time.
    let ring = spsc::create(&at("ring"), small()).unwrap();
    let mut tx = ring.producer().unwrap();
    tx.send(b"kept").unwrap();
    let good = std::fs::read(at("ring")).unwrap();
    for offset in (0..96)
        .step_by(4)
        .filter(|offset| ![64, 68, 72].contains(offset))
    {
        for value in [0u32, 3, 0x7fff_ffff, 0xffff_ffff] {
            let mut bad = good.clone();
            bad[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
            std::fs::write(at("bad"), &bad).unwrap();
            // Attached or refused, but neither a panic nor an access outside.
            let _ = spsc::attach(&at("bad")).and_then(|ring| ring.consumer());
        }
    }
    let mut version = good.clone();
    version[8] = 99;
    std::fs::write(at("bad"), &version).unwrap();
    assert!(matches!(
        spsc::attach(&at("bad")),
        Err(Error::Version { found: 99, .. })
    ));
    std::fs::write(at("bad"), &good[..good.len() - 4096]).unwrap();
    assert!(matches!(
        spsc::attach(&at("bad")),
        Err(Error::NotOurs { .. })
    ));
    let error = ringway::mpmc::attach(&at("ring")).unwrap_err().to_string();
    assert!(error.contains("it is a spsc ring"), "{error}");
}

#[test]
fn the_name_goes_with_the_last_one_unless_something_is_undelivered() {
    let name = name("unlink");
    let ring = spsc::create(&name, small()).unwrap();
    assert!(matches!(
        spsc::create(&name, small()),
        Err(Error::AlreadyExists { .. })
    ));
    let other = spsc::attach(&name).unwrap();
    drop(ring);
    assert!(path(&name).exists());
    let mut tx = other.producer().unwrap();
    tx.send(b"undelivered").unwrap();
    drop((tx, other));
    assert!(path(&name).exists());
    let mut rx = spsc::attach(&name).unwrap().consumer().unwrap();
    assert_eq!(&*rx.recv().unwrap(), b"undelivered");
    assert!(matches!(rx.recv(), Err(RecvError::Closed)));
    drop(rx);
    assert!(!path(&name).exists());
}

#[test]
fn an_abandoned_name_is_replaced_by_create_and_taken_up_by_attach() {
    let name = name("abandoned");
    for _ in 0..2 {
        let ring = spsc::create(&name, small()).unwrap();
        ring.producer().unwrap().send(b"left behind").unwrap();
    }
    let ring = spsc::create_or_attach(&name, small()).unwrap();
    assert_eq!(ring.stats().used, 24);
    ring.unlink().unwrap();
    assert!(!path(&name).exists());
}

#[test]
fn a_ring_is_passed_over_a_socket() {
    let _watchdog = watchdog(60);
    for wait in WaitStrategy::ALL {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let ring = Ring::anonymous(small().wait(wait)).unwrap();
        ring.send_over(&ours).unwrap();
        let mut tx = Ring::receive_over(&theirs).unwrap().producer().unwrap();
        let mut rx = ring.consumer().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for i in 0..1000u32 {
                    tx.send(&i.to_le_bytes()).unwrap();
                }
            });
            for i in 0..1000u32 {
                assert_eq!(&*rx.recv().unwrap(), i.to_le_bytes());
            }
        });
    }
}

#[test]
fn memory_that_is_not_sealed_is_refused() {
    let file = nix::sys::memfd::memfd_create(c"x", nix::sys::memfd::MFdFlags::empty()).unwrap();
    let ring = Ring::anonymous(small()).unwrap();
    let image = std::fs::read(format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&ring.as_fd())
    ))
    .unwrap();
    let mut copy = std::fs::File::from(file);
    copy.write_all(&image).unwrap();
    let error = Ring::from_fd(copy.into()).unwrap_err().to_string();
    assert!(error.contains("not sealed"), "{error}");
}

/// Other processes run this: they do one task on a named ring.
#[test]
fn other_process() {
    let Some(task) = task() else { return };
    let _watchdog = watchdog(200);
    let words: Vec<&str> = task.split(' ').collect();
    match words[..] {
        ["send", name, from, to] => {
            let mut tx = spsc::attach(name).unwrap().producer().unwrap();
            for i in from.parse::<u64>().unwrap()..to.parse().unwrap() {
                tx.send(&pattern(
                    i,
                    Random(i).below(tx.max_message() as u64 + 1) as usize,
                ))
                .unwrap();
            }
        }
        ["send-for-ever", name] => {
            let mut tx = spsc::attach(name).unwrap().producer().unwrap();
            let mut i = spsc::attach(name).unwrap().stats().sent;
            loop {
                tx.send(&i.to_le_bytes()).unwrap();
                i += 1;
            }
        }
        ["take-and-hang", name] => {
            let mut rx = spsc::attach(name).unwrap().consumer().unwrap();
            let message = rx.recv().unwrap();
            std::fs::write(format!("/dev/shm/{name}.taken"), &*message).unwrap();
            loop {
                std::thread::park();
            }
        }
        ["attach-and-hang", name] => {
            let ring = spsc::attach(name).unwrap();
            let _roles = (ring.producer().unwrap(), ring.consumer().unwrap());
            std::fs::write(format!("/dev/shm/{name}.taken"), b"").unwrap();
            loop {
                std::thread::park();
            }
        }
        _ => panic!("{task}"),
    }
}

fn run(task: &str) -> Reaped {
    Reaped(child("other_process", task).spawn().unwrap())
}

#[test]
fn random_messages_arrive_byte_for_byte_from_another_process_with_every_strategy() {
    let _watchdog = watchdog(200);
    for wait in WaitStrategy::ALL
        .into_iter()
        .filter(|wait| *wait != WaitStrategy::EventFd)
    {
        let name = name(&format!("bytes-{wait}"));
        let ring = spsc::create(&name, Config::default().capacity(4096).wait(wait)).unwrap();
        let mut rx = ring.consumer().unwrap();
        let mut child = run(&format!("send {name} 0 20000"));
        for i in 0..20_000u64 {
            let message = rx.recv().unwrap();
            let len = Random(i).below(ring.max_message() as u64 + 1) as usize;
            assert!(*message == pattern(i, len), "{wait} {i}");
        }
        assert!(matches!(rx.recv(), Err(RecvError::Closed)));
        assert!(child.0.wait().unwrap().success());
    }
}

#[test]
fn a_killed_producer_is_noticed_and_followed_and_loses_nothing_it_published() {
    let _watchdog = watchdog(100);
    for wait in WaitStrategy::ALL
        .into_iter()
        .filter(|wait| *wait != WaitStrategy::EventFd)
    {
        let name = name(&format!("producer-{wait}"));
        let ring = spsc::create(&name, small().wait(wait)).unwrap();
        let mut rx = ring.consumer().unwrap();
        let mut expected = 0u64;
        for round in 0..10 {
            let mut child = run(&format!("send-for-ever {name}"));
            until(|| rx.has_peer());
            for _ in 0..Random(round).below(5000) {
                assert_eq!(&*rx.recv().unwrap(), expected.to_le_bytes());
                expected += 1;
            }
            child.0.kill().unwrap();
            loop {
                match rx.recv() {
                    Ok(message) => assert_eq!(&*message, expected.to_le_bytes()),
                    Err(RecvError::PeerDied) => break,
                    Err(error) => panic!("{error}"),
                }
                expected += 1;
            }
            // It may have died between publishing and counting: the ring's word is what counts.
            let sent = ring.stats().sent;
            assert!(sent == expected || sent + 1 == expected);
            expected = sent;
        }
    }
}

#[test]
fn a_killed_consumers_message_is_redelivered_and_marked() {
    let _watchdog = watchdog(100);
    let name = name("redelivered");
    let ring = spsc::create(&name, small()).unwrap();
    let mut tx = ring.producer().unwrap();
    tx.send(b"first").unwrap();
    tx.send(b"second").unwrap();
    let taken = format!("/dev/shm/{name}.taken");
    let mut child = run(&format!("take-and-hang {name}"));
    until(|| std::fs::read(&taken).is_ok_and(|bytes| bytes == b"first"));
    std::fs::remove_file(&taken).unwrap();
    assert!(matches!(
        ring.consumer(),
        Err(Error::RoleTaken {
            role: "consumer",
            ..
        })
    ));
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    let mut rx = ring.consumer().unwrap();
    let message = rx.recv().unwrap();
    assert_eq!((&*message, message.redelivered()), (&b"first"[..], true));
    drop(message);
    let message = rx.recv().unwrap();
    assert_eq!((&*message, message.redelivered()), (&b"second"[..], false));
}

#[test]
fn a_sender_that_waits_for_room_learns_that_its_consumer_died() {
    let _watchdog = watchdog(100);
    let name = name("full");
    let ring = spsc::create(&name, small()).unwrap();
    let mut tx = ring.producer().unwrap();
    tx.send(b"first").unwrap();
    let taken = format!("/dev/shm/{name}.taken");
    let mut child = run(&format!("take-and-hang {name}"));
    until(|| std::fs::metadata(&taken).is_ok());
    std::fs::remove_file(&taken).unwrap();
    let killer = std::thread::spawn(move || child.0.kill().unwrap());
    loop {
        match tx.send(&[0; 56]) {
            Ok(()) => {}
            Err(SendError::PeerDied) => break,
            Err(error) => panic!("{error}"),
        }
    }
    killer.join().unwrap();
    ring.unlink().unwrap();
}

#[test]
fn a_name_whose_owners_were_killed_does_not_block_a_restart() {
    let _watchdog = watchdog(100);
    let name = name("restart");
    drop({
        let ring = spsc::create(&name, small()).unwrap();
        ring.producer().unwrap().send(b"keeps the name").unwrap();
        ring
    });
    let mut child = run(&format!("attach-and-hang {name}"));
    let taken = format!("/dev/shm/{name}.taken");
    until(|| std::fs::metadata(&taken).is_ok());
    std::fs::remove_file(&taken).unwrap();
    assert!(matches!(
        spsc::create(&name, small()),
        Err(Error::AlreadyExists { .. })
    ));
    child.0.kill().unwrap();
    child.0.wait().unwrap();
    let ring = spsc::create(&name, small()).unwrap();
    assert_eq!(ring.stats().sent, 0);
}

#[test]
fn of_two_who_leave_at_once_one_takes_the_name_away() {
    let _watchdog = watchdog(100);
    let name = name("at-once");
    for round in 0..1000 {
        let created = spsc::create(&name, small()).unwrap();
        let attached = spsc::attach(&name).unwrap();
        let tx = created.producer().unwrap();
        let rx = attached.consumer().unwrap();
        let meet = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                meet.wait();
                drop((tx, created));
            });
            meet.wait();
            drop((rx, attached));
        });
        assert!(!path(&name).exists(), "round {round}");
    }
}

/// A consumer may find no ring, and then that its producer has created one, sent into it and left.
#[test]
fn what_was_sent_before_a_ring_is_attached_to_or_created_is_received() {
    let _watchdog = watchdog(100);
    let name = name("comes-and-goes");
    let meet = std::sync::Barrier::new(2);
    for round in 0..500 {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                meet.wait();
                let ring = spsc::create_or_attach(&name, small()).unwrap();
                ring.producer().unwrap().send(b"sent").unwrap();
            });
            meet.wait();
            for _ in 0..round % 32 * 32 {
                std::hint::spin_loop();
            }
            let ring = spsc::create_or_attach(&name, small()).unwrap();
            let mut rx = ring.consumer().unwrap();
            let received = rx.recv_timeout(Duration::from_secs(10));
            assert_eq!(
                received.as_deref().ok(),
                Some(&b"sent"[..]),
                "round {round}"
            );
        });
        assert!(!path(&name).exists(), "round {round}");
    }
}

#[test]
fn a_forked_child_cannot_pass_for_its_parent_nor_keep_it_alive() {
    let _watchdog = watchdog(100);
    let ring = Ring::anonymous(small()).unwrap();
    let mut tx = ring.producer().unwrap();
    // SAFETY: the child calls nothing that another thread could have held a lock of but what it needs
    // to look at its handle, and leaves with _exit.
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Child => {
            let refused = matches!(tx.try_send(b"as the parent"), Err(SendError::Forked));
            drop(tx);
            // SAFETY: ends the process.
            unsafe { nix::libc::_exit(if refused { 0 } else { 1 }) }
        }
        nix::unistd::ForkResult::Parent { child } => {
            let status = nix::sys::wait::waitpid(child, None).unwrap();
            assert!(
                matches!(status, nix::sys::wait::WaitStatus::Exited(_, 0)),
                "{status:?}"
            );
        }
    }
    assert!(matches!(ring.producer(), Err(Error::RoleTaken { .. })));
    tx.try_send(b"still the parent").unwrap();
}

#[test]
fn an_observer_neither_keeps_a_name_nor_takes_a_role() {
    let name = name("observer");
    let ring = spsc::create(&name, small()).unwrap();
    let observer = Ring::observe(&name).unwrap();
    let error = observer.producer().unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    drop(ring);
    assert!(!path(&name).exists());
    assert_eq!(observer.stats().sent, 0);
}

#[test]
fn a_forgotten_drain_does_not_hold_later_messages() {
    let _watchdog = watchdog(60);
    let ring = Ring::anonymous(small()).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    std::mem::forget(rx.drain(9));
    tx.send(b"later").unwrap();
    drop(rx.recv().unwrap());
    assert_eq!(ring.stats().used, 0);
}

#[test]
fn what_a_forked_child_drops_is_still_its_parents() {
    let _watchdog = watchdog(100);
    let ring = Ring::anonymous(small()).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    tx.send(b"held").unwrap();
    let message = rx.recv().unwrap();
    let mut place = tx.reserve(5).unwrap();
    place.fill(1);
    // SAFETY: the child only drops what it inherited, and leaves with _exit.
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Child => {
            drop(message);
            place.commit();
            // SAFETY: ends the process.
            unsafe { nix::libc::_exit(0) }
        }
        nix::unistd::ForkResult::Parent { child } => {
            nix::sys::wait::waitpid(child, None).unwrap();
        }
    }
    assert_eq!(ring.stats().used, 16);
    drop(message);
    assert_eq!(ring.stats().used, 0);
    place.commit();
    assert_eq!(rx.recv().unwrap().len(), 5);
}
