//! A process is killed at every instruction of an operation: what do the survivors find?
//!
//! The operation is stepped through once, instruction by instruction, and the ring's memory is
//! copied whenever it has changed: a copy is what a death at that instruction leaves. Nobody holds a
//! lock on a copy, so all its participants are dead. What the kernel does at a death is shown by
//! real kills at sampled instructions.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::drop_non_drop)] // giving up a reservation is what is tested

use std::fs::File;
use std::time::Duration;

use ringway::observe::Observer;
use ringway::spsc::{self, Config, Consumer, Producer, Ring};
use ringway::wait::WaitStrategy;
use ringway::{Error, RecvError, SendError};

mod common;
#[path = "common/image.rs"]
mod image;
#[path = "common/step.rs"]
mod step;
use common::{Random, child, deep, task, until, watchdog};
use step::{End, Stepped};

const CAPACITY: u64 = 512;

/// One operation, and the ring it meets.
struct Case {
    operation: &'static str,
    /// Lengths of messages that have passed through before.
    passed: &'static [usize],
    /// Lengths of the messages that are there.
    there: &'static [usize],
    /// Lengths of the messages that it sends.
    sends: &'static [usize],
    /// How many messages it receives.
    receives: usize,
    end: End,
    wait: WaitStrategy,
}

/// Sleeps at once, and marks the header that it waits for.
const WAIT: WaitStrategy = WaitStrategy::Futex;
/// Sleeps rarely, and marks that in a word of its own.
const RARELY: WaitStrategy = WaitStrategy::Adaptive;

const fn case(operation: &'static str) -> Case {
    Case {
        operation,
        passed: &[],
        there: &[5, 24, 60],
        sends: &[],
        receives: 0,
        end: End::Done,
        wait: WAIT,
    }
}

/// Positions 0 to 448 of 512 are used up, so that a message of 64 bytes does not fit before the end.
const NEAR_END: &[usize] = &[56, 56, 56, 56, 56, 56, 56];

#[rustfmt::skip]
fn producing() -> Vec<Case> {
    vec![
        Case { sends: &[33], ..case("send") },
        Case { operation: "send, to an empty ring", there: &[], sends: &[33], ..case("") },
        Case { operation: "send, wrapping", passed: NEAR_END, there: &[16], sends: &[100], ..case("") },
        Case { operation: "send, to the last free byte", there: &[100, 100], sends: &[120], ..case("") },
        Case { operation: "send, to a sleeper", there: &[], sends: &[33], ..case("") },
        Case { operation: "send, adaptive", sends: &[33], wait: RARELY, ..case("") },
        Case { operation: "send, to a sleeper, adaptive", there: &[], sends: &[33], wait: RARELY, ..case("") },
        Case { operation: "send, going to sleep on a full ring", there: &[100, 100, 100], sends: &[120], end: End::Asleep, ..case("") },
        Case { sends: &[48], ..case("reserve, commit") },
        Case { sends: &[10], ..case("reserve, commit less") },
        case("reserve, drop"),
        Case { sends: &[8, 30, 0, 64], ..case("send_batch") },
        Case { operation: "send_batch, wrapping", passed: NEAR_END, there: &[8], sends: &[8, 30, 0, 64], ..case("") },
        Case { operation: "send_batch, adaptive", sends: &[8, 30, 0, 64], wait: RARELY, ..case("") },
        case("attach producer"),
        case("leave producer"),
    ]
}

#[rustfmt::skip]
fn consuming() -> Vec<Case> {
    vec![
        Case { receives: 1, ..case("recv") },
        Case { operation: "recv, past the end", passed: NEAR_END, there: &[16, 100], receives: 2, ..case("") },
        Case { receives: 1, ..case("recv_into") },
        Case { receives: 3, ..case("drain") },
        Case { receives: 3, ..case("drain_with") },
        Case { operation: "recv, going to sleep", there: &[], end: End::Asleep, ..case("") },
        Case { operation: "recv, going to sleep, adaptive", there: &[], end: End::Asleep, wait: RARELY, ..case("") },
        case("attach consumer"),
        case("leave consumer"),
    ]
}

fn pattern(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number * 37 + at + 1) as u8).collect()
}

/// The messages with the lengths, numbered from `first`.
fn messages(first: usize, lens: &[usize]) -> Vec<Vec<u8>> {
    lens.iter()
        .enumerate()
        .map(|(i, &len)| pattern(first + i, len))
        .collect()
}

fn config(wait: WaitStrategy) -> Config {
    Config::default().capacity(CAPACITY).wait(wait)
}

fn name(what: &str) -> String {
    format!("test-killed-{what}-{}", std::process::id())
}

/// A named ring as the case wants it, and its two ends.
fn ring(name: &str, case: &Case) -> (Ring, Producer, Consumer) {
    let ring = spsc::create(name, config(case.wait)).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    for message in messages(100, case.passed) {
        tx.try_send(&message).unwrap();
        assert_eq!(&*rx.try_recv().unwrap(), message);
    }
    for message in messages(0, case.there) {
        tx.try_send(&message).unwrap();
    }
    (ring, tx, rx)
}

/// In the stepped process: the operation, between two marks.
fn operate(case: &Case, ring: &Ring) {
    let sends = messages(case.there.len(), case.sends);
    step::traced();
    match case.operation {
        "attach producer" => {
            step::here();
            let end = ring.producer().unwrap();
            step::here();
            drop(end);
        }
        "attach consumer" => {
            step::here();
            let end = ring.consumer().unwrap();
            step::here();
            drop(end);
        }
        "leave producer" => {
            let end = ring.producer().unwrap();
            step::here();
            drop(end);
            step::here();
        }
        "leave consumer" => {
            let end = ring.consumer().unwrap();
            step::here();
            drop(end);
            step::here();
        }
        "recv"
        | "recv, past the end"
        | "recv, going to sleep"
        | "recv, going to sleep, adaptive" => {
            let mut rx = ring.consumer().unwrap();
            step::here();
            for _ in 0..case.receives.max(1) {
                drop(rx.recv().unwrap());
            }
            step::here();
        }
        "recv_into" => {
            let (mut rx, mut buffer) = (ring.consumer().unwrap(), Vec::new());
            step::here();
            rx.recv_into(&mut buffer).unwrap();
            step::here();
        }
        "drain" => {
            let mut rx = ring.consumer().unwrap();
            step::here();
            assert_eq!(rx.drain(10).count(), case.receives);
            step::here();
        }
        "drain_with" => {
            let mut rx = ring.consumer().unwrap();
            step::here();
            assert_eq!(rx.drain_with(10, |_| ()), case.receives);
            step::here();
        }
        "reserve, commit" | "reserve, commit less" | "reserve, drop" => {
            let mut tx = ring.producer().unwrap();
            step::here();
            let mut slot = tx.reserve(48).unwrap();
            slot.fill(0xff);
            match sends.first() {
                Some(bytes) => {
                    slot[..bytes.len()].copy_from_slice(bytes);
                    slot.commit_len(bytes.len());
                }
                None => drop(slot),
            }
            step::here();
        }
        "send_batch" | "send_batch, wrapping" | "send_batch, adaptive" => {
            let mut tx = ring.producer().unwrap();
            let batch: Vec<&[u8]> = sends.iter().map(Vec::as_slice).collect();
            step::here();
            tx.send_batch(batch).unwrap();
            step::here();
        }
        _ => {
            let mut tx = ring.producer().unwrap();
            step::here();
            tx.send(&sends[0]).unwrap();
            step::here();
        }
    }
}

/// What [`child`] runs.
#[test]
fn stepped_process() {
    let Some(task) = task() else { return };
    let (name, operation) = task.split_once(':').unwrap();
    if operation == "create" {
        step::traced();
        step::here();
        let ring = spsc::create(name, config(WAIT)).unwrap();
        step::here();
        drop(ring);
        return;
    }
    let cases = producing().into_iter().chain(consuming());
    let case = cases.into_iter().find(|case| case.operation == operation);
    operate(&case.unwrap(), &spsc::attach(name).unwrap());
}

/// What survivors find in the image: the messages there, and whether each was marked. They attach
/// anew, and then a thousand more messages must pass.
fn survive(image: &[u8], seed: u64) -> Result<Vec<(Vec<u8>, bool)>, String> {
    let ring = Ring::from_fd(image::copy(image)).unwrap();
    let mut tx = ring.producer().map_err(|e| format!("producer: {e}"))?;
    let mut rx = ring.consumer().map_err(|e| format!("consumer: {e}"))?;
    let mut found = Vec::new();
    loop {
        match rx.try_recv() {
            Ok(message) => found.push((message.to_vec(), message.redelivered())),
            Err(RecvError::Empty) => break,
            Err(error) => return Err(format!("after {} messages: {error}", found.len())),
        }
    }
    let mut random = Random(seed);
    let (mut sent, mut received) = (0, 0);
    let len = |i: usize| Random(seed + i as u64).below(ring.max_message() as u64 + 1) as usize;
    while received < 1000 {
        for _ in 0..random.below(8) {
            match tx.try_send(&pattern(sent, len(sent))) {
                Ok(()) => sent += 1,
                Err(SendError::Full) => break,
                Err(error) => return Err(format!("message {sent} of the new ones: {error}")),
            }
        }
        while received < sent {
            match rx.try_recv() {
                Ok(message) if *message == pattern(received, len(received))[..] => received += 1,
                Ok(_) => return Err(format!("message {received} of the new ones is torn")),
                Err(error) => return Err(format!("message {received} of the new ones: {error}")),
            }
        }
    }
    Ok(found)
}

/// What must hold whenever the operation is cut off.
fn check(case: &Case, found: &[(Vec<u8>, bool)]) -> Result<(), String> {
    let (there, sends) = (case.there.len(), case.sends.len());
    let mut all = messages(0, case.there);
    all.extend(messages(there, case.sends));
    // A suffix of what was there (what was received may be gone), and a prefix of what it sends.
    for gone in 0..=case.receives {
        for extra in 0..=sends {
            let expected = &all[gone..there + extra];
            let same = found.iter().map(|(bytes, _)| bytes).eq(expected);
            let marked = found
                .iter()
                .skip(case.receives - gone)
                .any(|(_, marked)| *marked);
            if same && !marked {
                return Ok(());
            }
        }
    }
    Err(format!("found {found:?}"))
}

/// Steps through the case; says how many instructions and how many different images there were.
fn step_through(index: usize, case: &Case, produces: bool) -> (usize, usize) {
    let name = name(&format!("{produces}-{index}"));
    let (held, tx, rx) = ring(&name, case);
    let (tx, rx) = if produces {
        drop(tx);
        (None, Some(rx))
    } else {
        drop(rx);
        (Some(tx), None)
    };
    let path = format!("/dev/shm/ringway.{name}");
    let file = File::open(&path).unwrap();
    let task = format!("{name}:{}", case.operation);
    let stepped = Stepped::start(&mut child("stepped_process", &task));
    let (mut sleeper, mut rx) = (None, rx);
    if case.operation.starts_with("send, to a sleeper") {
        let mut rx = rx.take().unwrap();
        sleeper = Some(std::thread::spawn(move || {
            let message = rx.recv_timeout(Duration::from_secs(60));
            message.map(|message| message.to_vec())
        }));
        // Until it has announced that it sleeps.
        let observer = Observer::open(&path).unwrap();
        until(|| {
            let all = observer.snapshot().unwrap().participants;
            all.iter().any(|one| one.counters.parks > 0)
        });
    }
    let image::Steps {
        images,
        instructions,
        end,
    } = image::record(stepped, &file);
    assert_eq!(end, case.end, "{}", case.operation);
    if let Some(sleeper) = sleeper {
        let got = sleeper.join().unwrap();
        assert_eq!(got.unwrap(), messages(0, case.sends)[0], "it was woken");
    }
    let mut last = Vec::new();
    for (i, image) in images.iter().enumerate() {
        let found = survive(image, i as u64)
            .and_then(|found| {
                // The live sleeper may have taken the message, or have been reading it: then it comes again, marked.
                let taken = case.operation.starts_with("send, to a sleeper")
                    && match &found[..] {
                        [] => true,
                        [(message, marked)] => *marked && *message == messages(0, case.sends)[0],
                        _ => false,
                    };
                if !taken {
                    check(case, &found)?;
                }
                Ok(found)
            })
            .unwrap_or_else(|why| panic!("{}, image {i}: {why}", case.operation));
        last = found;
    }
    if end == End::Done && !case.operation.starts_with("send, to a sleeper") {
        let expected = case.there.len() + case.sends.len() - case.receives;
        assert_eq!(last.len(), expected, "{} done", case.operation);
        assert!(last.iter().all(|(_, marked)| !marked));
    }
    drop((tx, rx));
    let _ = held.unlink();
    println!(
        "{:<40} {instructions:>7} instructions {:>4} images",
        case.operation,
        images.len()
    );
    (instructions, images.len())
}

#[test]
fn a_producer_killed_at_any_instruction_loses_at_most_its_own_message() {
    let _watchdog = watchdog(300);
    for (index, case) in producing().iter().enumerate() {
        let (steps, images) = step_through(index, case, true);
        assert!(steps > 10 && images > 1, "{}", case.operation);
    }
}

#[test]
fn a_consumer_killed_at_any_instruction_loses_nothing_it_has_not_received() {
    let _watchdog = watchdog(300);
    for (index, case) in consuming().iter().enumerate() {
        let (steps, images) = step_through(index, case, false);
        assert!(steps > 10 && images > 1, "{}", case.operation);
    }
}

#[test]
fn a_creator_killed_between_any_two_system_calls_leaves_nothing_that_blocks_the_name() {
    let _watchdog = watchdog(300);
    let name = name("create");
    let mut kills = 0;
    loop {
        let task = format!("{name}:create");
        let mut stepped = Stepped::start(&mut child("stepped_process", &task));
        let done = (0..=kills).any(|_| stepped.next_call() == End::Done);
        drop(stepped);
        match spsc::attach(&name) {
            Ok(ring) => {
                let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
                tx.try_send(b"whole").unwrap();
                assert_eq!(&*rx.try_recv().unwrap(), b"whole");
            }
            Err(ringway::Error::NotFound { .. }) => {}
            Err(error) => panic!("killed at stop {kills}: {error}"),
        }
        let ring = spsc::create(&name, config(WAIT)).unwrap();
        ring.producer().unwrap().try_send(b"again").unwrap();
        ring.unlink().unwrap();
        if done {
            break;
        }
        kills += 1;
    }
    println!("create: {kills} kills, at the beginning and the end of every system call");
    assert!(kills > 10);
}

#[test]
fn a_live_survivor_gets_the_message_or_learns_of_the_death() {
    let _watchdog = watchdog(300);
    for (operation, cases) in [("send", producing()), ("recv", consuming())] {
        let produces = operation == "send";
        let case = cases.iter().find(|case| case.operation == operation);
        let case = case.unwrap();
        let name = name(&format!("real-{operation}"));
        let (mut kills, mut at, mut done) = (0, 1, false);
        while !done {
            let (ring, mut tx, mut rx) = ring(&name, case);
            // The stepped process takes one role; the other is ours.
            let (tx, rx) = if produces {
                drop(tx);
                (None, Some(&mut rx))
            } else {
                drop(rx);
                (Some(&mut tx), None)
            };
            let task = format!("{name}:{operation}");
            let mut stepped = Stepped::start(&mut child("stepped_process", &task));
            done = stepped.run(|n| n < at) == End::Done;
            drop(stepped);
            if let Some(rx) = rx {
                let mut found = Vec::new();
                let error = loop {
                    match rx.recv_timeout(Duration::from_secs(60)) {
                        Ok(message) => found.push((message.to_vec(), message.redelivered())),
                        Err(error) => break error,
                    }
                };
                assert!(matches!(error, RecvError::PeerDied), "{error}");
                check(case, &found).unwrap();
            }
            if let Some(tx) = tx {
                // Never the time-out.
                let error = loop {
                    match tx.send_timeout(&[7; 100], Duration::from_secs(60)) {
                        Ok(()) => {}
                        Err(error) => break error,
                    }
                };
                assert!(matches!(error, SendError::PeerDied), "{error}");
            }
            ring.unlink().unwrap();
            kills += 1;
            at += if deep() { 7 } else { 97 };
        }
        println!("{operation}: {kills} real kills with a live survivor");
        assert!(kills > 3);
    }
}

/// Stopped in the middle, as by a terminal: its peer goes on, nobody takes its place, and when it is
/// continued it ends what it began.
#[test]
fn one_stopped_at_any_instruction_is_waited_for_and_not_robbed() {
    let _watchdog = watchdog(if deep() { 3600 } else { 300 });
    let stride = if deep() { 11 } else { 149 };
    for operation in ["send", "reserve, commit", "send_batch", "recv", "recv_into"] {
        let produces = producing().iter().any(|case| case.operation == operation);
        let mut cases = producing().into_iter().chain(consuming());
        let case = cases.find(|case| case.operation == operation).unwrap();
        let name = name(&format!("stop-{operation}"));
        let (mut stops, mut at, mut done) = (0, 1, false);
        while !done {
            let (ring, tx, rx) = ring(&name, &case);
            let (mut tx, mut rx) = if produces {
                drop(tx);
                (None, Some(rx))
            } else {
                drop(rx);
                (Some(tx), None)
            };
            let task = format!("{name}:{operation}");
            let mut stepped = Stepped::start(&mut child("stepped_process", &task));
            done = stepped.run(|n| n < at) == End::Done;
            let stopped = stepped.stop();
            let mut found = Vec::new();
            let mut take = |rx: &mut Consumer| {
                while let Ok(message) = rx.try_recv() {
                    found.push((message.to_vec(), message.redelivered()));
                }
            };
            let others = messages(60, &[7, 40]);
            if let Some(rx) = &mut rx {
                assert!(matches!(ring.producer(), Err(Error::RoleTaken { .. })));
                take(rx);
            }
            if let Some(tx) = &mut tx {
                assert!(matches!(ring.consumer(), Err(Error::RoleTaken { .. })));
                others.iter().for_each(|other| tx.try_send(other).unwrap());
            }
            stopped.finish();
            let mut rx = rx.unwrap_or_else(|| ring.consumer().unwrap());
            take(&mut rx);
            assert!(found.iter().all(|(_, marked)| !marked), "stopped at {at}");
            let mut expected = messages(0, case.there).split_off(case.receives);
            expected.extend(messages(case.there.len(), case.sends));
            if !produces {
                expected.extend(others);
            }
            let found: Vec<Vec<u8>> = found.into_iter().map(|(bytes, _)| bytes).collect();
            assert_eq!(found, expected, "{operation}, stopped at {at}");
            drop((tx, rx));
            let _ = ring.unlink();
            stops += 1;
            at += stride;
        }
        println!("{operation}: stopped and continued at {stops} instructions");
        assert!(stops > 3);
    }
}

#[test]
fn a_message_published_before_its_bytes_is_caught() {
    let case = Case {
        sends: &[33],
        ..case("send")
    };
    let name = name("seeded");
    let (ring, mut tx, rx) = ring(&name, &case);
    tx.try_send(&messages(case.there.len(), case.sends)[0])
        .unwrap();
    let mut image = std::fs::read(format!("/dev/shm/ringway.{name}")).unwrap();
    let whole = survive(&image, 1).unwrap();
    check(&case, &whole).unwrap();
    let wanted = &messages(case.there.len(), case.sends)[0];
    let at = image
        .windows(wanted.len())
        .rposition(|bytes| bytes == wanted);
    image[at.unwrap()..][..wanted.len()].fill(0);
    let torn = survive(&image, 1).unwrap();
    assert!(check(&case, &torn).is_err());
    drop((tx, rx));
    ring.unlink().unwrap();
}
