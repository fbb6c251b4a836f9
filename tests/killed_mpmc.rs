//! The MPMC ring: a process is killed at every instruction of an operation, and so is whoever repairs
//! what it left. What do the survivors find?
//!
//! As in `killed.rs`, an operation is stepped through once, and the ring's memory is copied whenever it
//! has changed: a copy is what a death at that instruction leaves. Repairs are operations on such
//! copies, and are stepped in turn. `RINGWAY_DEEP=1` repairs every copy of every operation (and repairs
//! the repairs), instead of a selection.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::drop_non_drop)] // giving up a reservation is what is tested

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Duration;

use ringway::mpmc::{self, Config, Consumer, Producer, Ring};
use ringway::wait::WaitStrategy;
use ringway::{RecvError, SendError};

mod common;
#[path = "common/image.rs"]
mod image;
#[path = "common/step.rs"]
mod step;
use common::{Random, child, deep, task, until, watchdog};
use image::{Steps, record};
use step::{End, Stepped};

const SLOTS: usize = 4;
const SLOT_SIZE: usize = 24;
const PARTICIPANTS: usize = 5;
const SOON: Duration = Duration::from_millis(2);
const LATE: Duration = Duration::from_secs(60);

/// One operation, and the ring it meets.
struct Case {
    operation: &'static str,
    /// How many messages have passed through before.
    passed: usize,
    /// Whether a reservation was given up before the first message that is there.
    gap: bool,
    /// How many messages are there.
    there: usize,
    /// How many messages it sends.
    sends: usize,
    /// How many messages it receives.
    receives: usize,
    end: End,
}

const fn case(operation: &'static str) -> Case {
    Case {
        operation,
        passed: 0,
        gap: false,
        there: 2,
        sends: 0,
        receives: 0,
        end: End::Done,
    }
}

/// What a producer does. The word before a comma is the operation, the rest tells cases apart.
#[rustfmt::skip]
fn producing() -> Vec<Case> {
    vec![
        Case { sends: 1, ..case("send") },
        Case { there: 0, sends: 1, ..case("send, to an empty ring") },
        Case { passed: 7, sends: 1, ..case("send, on a later lap") },
        Case { there: 0, sends: 1, ..case("send, to a sleeper") },
        Case { there: 4, sends: 1, end: End::Asleep, ..case("send, going to sleep on a full ring") },
        Case { gap: true, there: 3, sends: 1, ..case("send, on a ring full but for a gap") },
        Case { sends: 1, ..case("reserve, and commit") },
        case("abort"),
        Case { sends: 1, ..case("forget, and send") },
        Case { there: 0, sends: 4, ..case("send_batch") },
        Case { passed: 3, there: 1, sends: 3, ..case("send_batch, wrapping") },
        case("attach producer"),
        case("leave producer"),
        case("close"),
    ]
}

/// What a consumer does; again, when it has received a message already, and need not look for those of the dead.
#[rustfmt::skip]
fn consuming() -> Vec<Case> {
    vec![
        Case { receives: 1, ..case("recv") },
        Case { there: 3, receives: 2, ..case("recv, again") },
        Case { passed: 7, there: 4, receives: 1, ..case("recv, on a full ring") },
        Case { gap: true, receives: 1, ..case("recv, over a gap") },
        Case { receives: 1, ..case("recv_into") },
        Case { passed: 2, there: 3, receives: 3, ..case("drain") },
        Case { there: 3, receives: 3, ..case("drain, again") },
        Case { there: 0, end: End::Asleep, ..case("recv, going to sleep") },
        case("attach consumer"),
        case("leave consumer"),
    ]
}

fn cases() -> Vec<Case> {
    let all = producing().into_iter().chain(consuming());
    all.chain(repairing()).collect()
}

/// What is done about a dead one's doings; `there` is only the number of what is sent.
#[rustfmt::skip]
fn repairing() -> Vec<Case> {
    vec![
        Case { receives: 1, ..case("recv, repairing") },
        Case { there: 50, sends: 1, ..case("send, repairing") },
        case("attach producer"),
        case("attach consumer"),
    ]
}

fn pattern(number: usize) -> Vec<u8> {
    (0..number * 7 % (SLOT_SIZE + 1))
        .chain(0..1)
        .take(SLOT_SIZE)
        .map(|at| (number * 37 + at + 1) as u8)
        .collect()
}

fn config() -> Config {
    Config::default()
        .slots(SLOTS as u64)
        .slot_size(SLOT_SIZE as u64)
        .participants(PARTICIPANTS)
        .wait(WaitStrategy::Futex)
}

fn name(what: &str) -> String {
    let what: String = what.chars().filter(|c| c.is_alphanumeric()).collect();
    format!("test-killed-mpmc-{what}-{}", std::process::id())
}

fn path(name: &str) -> String {
    format!("/dev/shm/ringway.{name}")
}

/// A named ring as the case wants it, and two ends.
fn ring(name: &str, case: &Case) -> (Ring, Producer, Consumer) {
    let ring = mpmc::create(name, config()).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    for number in 100..100 + case.passed {
        tx.try_send(&pattern(number)).unwrap();
        assert_eq!(*rx.try_recv().unwrap(), pattern(number));
    }
    if case.gap {
        drop(tx.reserve(4).unwrap());
    }
    for number in 0..case.there {
        tx.try_send(&pattern(number)).unwrap();
    }
    (ring, tx, rx)
}

/// Between the two marks is what is stepped.
fn marked<R>(f: impl FnOnce() -> R) -> R {
    step::here();
    let result = f();
    step::here();
    result
}

/// In the stepped process: the operation, between two marks.
fn operate(case: &Case, ring: &Ring) {
    let sends: Vec<Vec<u8>> = (case.there..case.there + case.sends.max(1))
        .map(pattern)
        .collect();
    let (verb, _) = case
        .operation
        .split_once(',')
        .unwrap_or((case.operation, ""));
    let consumer = || {
        let mut rx = ring.consumer().unwrap();
        if case.operation.ends_with("again") {
            drop(rx.recv().unwrap());
        }
        rx
    };
    step::traced();
    match verb {
        "attach producer" => drop(marked(|| ring.producer().unwrap())),
        "attach consumer" => drop(marked(|| ring.consumer().unwrap())),
        "leave producer" => {
            let end = ring.producer().unwrap();
            marked(|| drop(end));
        }
        "leave consumer" => {
            let end = ring.consumer().unwrap();
            marked(|| drop(end));
        }
        "recv" => {
            let mut rx = consumer();
            // Nobody may be there who could send: that is an answer, too.
            marked(|| drop(rx.recv()));
        }
        "recv_into" => {
            let (mut rx, mut buffer) = (ring.consumer().unwrap(), Vec::new());
            marked(|| rx.recv_into(&mut buffer).unwrap());
        }
        "drain" => {
            let mut rx = consumer();
            marked(|| {
                let mut drain = rx.drain(10).unwrap();
                while drain.next_message().unwrap().is_some() {}
            });
        }
        "reserve" => {
            let mut tx = ring.producer().unwrap();
            marked(|| {
                let mut slot = tx.reserve(SLOT_SIZE).unwrap();
                slot.fill(0xff);
                slot[..sends[0].len()].copy_from_slice(&sends[0]);
                slot.commit_len(sends[0].len());
            });
        }
        "abort" => {
            let mut tx = ring.producer().unwrap();
            marked(|| {
                let mut slot = tx.reserve(SLOT_SIZE).unwrap();
                slot.fill(0xff);
                drop(slot);
            });
        }
        "forget" => {
            let mut tx = ring.producer().unwrap();
            marked(|| {
                std::mem::forget(tx.reserve(SLOT_SIZE).unwrap());
                tx.send(&sends[0]).unwrap();
            });
        }
        "send_batch" => {
            let mut tx = ring.producer().unwrap();
            marked(|| tx.send_batch(&sends).unwrap());
        }
        "close" => {
            let mut tx = ring.producer().unwrap();
            marked(|| tx.close().unwrap());
        }
        _ => {
            let mut tx = ring.producer().unwrap();
            marked(|| drop(tx.send(&sends[0])));
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
        drop(marked(|| mpmc::create(name, config()).unwrap()));
        return;
    }
    let case = cases().into_iter().find(|case| case.operation == operation);
    operate(&case.unwrap(), &mpmc::attach(name).unwrap());
}

/// What one message was, and whether it was marked as redelivered.
type Found = Vec<(Vec<u8>, bool)>;

/// Takes everything that is there, repairing what is in the way. Whether the ring is closed.
fn take_all(rx: &mut Consumer, found: &mut Found) -> Result<bool, String> {
    loop {
        match rx.recv_timeout(SOON) {
            Ok(message) => found.push((message.to_vec(), message.redelivered())),
            Err(RecvError::TimedOut) => return Ok(false),
            Err(RecvError::Closed) => return Ok(true),
            Err(error) => return Err(format!("after {} messages: {error}", found.len())),
        }
    }
}

/// What survivors find in the image: the messages there. They attach anew, and then every slot is usable,
/// a thousand more messages pass, and as many can attach as the ring was made for.
fn survive(image: &[u8], seed: u64) -> Result<Found, String> {
    let ring = Ring::from_fd(image::copy(image)).unwrap();
    let mut rx = ring.consumer().map_err(|e| format!("consumer: {e}"))?;
    let mut tx = ring.producer().map_err(|e| format!("producer: {e}"))?;
    let mut found = Vec::new();
    if take_all(&mut rx, &mut found)? {
        return Ok(found);
    }
    for number in 0..SLOTS {
        // Not `try_send`, which looks only now and then why there is no room.
        tx.send_timeout(&pattern(number), LATE)
            .map_err(|e| format!("of {SLOTS} slots, number {number}: {e}"))?;
    }
    match tx.try_send(b"one too many") {
        Err(SendError::Full) => {}
        other => return Err(format!("{SLOTS} slots are full, but: {other:?}")),
    }
    let mut random = Random(seed);
    let (mut sent, mut received) = (SLOTS, 0);
    while received < 1000 {
        while received < sent {
            match rx.try_recv() {
                Ok(message) if *message == pattern(received)[..] => received += 1,
                Ok(_) => return Err(format!("message {received} of the new ones is torn")),
                Err(error) => return Err(format!("message {received} of the new ones: {error}")),
            }
        }
        for _ in 0..=random.below(SLOTS as u64 - 1) {
            tx.try_send(&pattern(sent))
                .map_err(|e| format!("message {sent} of the new ones: {e}"))?;
            sent += 1;
        }
    }
    let more: Result<Vec<_>, _> = (2..PARTICIPANTS).map(|_| ring.producer()).collect();
    more.map_err(|e| format!("a record is lost: {e}"))?;
    Ok(found)
}

/// What must hold whenever the operation is cut off; how many were received, and how many sent, which
/// can only grow from image to image.
fn check(case: &Case, found: &Found) -> Result<(usize, usize), String> {
    let wanted = |number: usize| {
        found
            .iter()
            .filter(|(bytes, _)| *bytes == pattern(number))
            .count()
    };
    let marked = |number: usize| found.contains(&(pattern(number), true));
    let fail = |what: &str| Err(format!("{what}: {found:?}"));
    let gone = (0..case.there)
        .take_while(|&number| wanted(number) == 0)
        .count();
    let extra = (case.there..case.there + case.sends)
        .filter(|&n| wanted(n) == 1)
        .count();
    if gone > case.receives {
        return fail("a message that was committed is lost");
    }
    if (gone..case.there + extra).any(|number| wanted(number) != 1) {
        return fail("lost, doubled or torn");
    }
    if found.len() != case.there + extra - gone {
        return fail("there is what nobody sent");
    }
    if (case.receives..case.there + extra).any(marked) {
        return fail("marked, and nobody had it");
    }
    // Marked ones come when they come; the others in order.
    let order: Vec<&Vec<u8>> = found
        .iter()
        .filter(|(_, marked)| !marked)
        .map(|(bytes, _)| bytes)
        .collect();
    let expected: Vec<Vec<u8>> = (gone..case.there + extra)
        .filter(|&n| !marked(n))
        .map(pattern)
        .collect();
    if order != expected.iter().collect::<Vec<_>>() {
        return fail("out of order");
    }
    Ok((gone, extra))
}

/// Steps through a case on a ring with living peers.
fn step_through(case: &Case) -> Steps {
    let name = name(case.operation);
    let (held, tx, rx) = ring(&name, case);
    let file = File::open(path(&name)).unwrap();
    let task = format!("{name}:{}", case.operation);
    let stepped = Stepped::start(&mut child("stepped_process", &task));
    let (mut sleeper, mut rx) = (None, Some(rx));
    if case.operation == "send, to a sleeper" {
        let mut rx = rx.take().unwrap();
        let mut before = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut before, 0).unwrap();
        sleeper = Some(std::thread::spawn(move || {
            rx.recv_timeout(LATE).map(|message| message.to_vec())
        }));
        // Until it has announced that it sleeps.
        let mut now = before.clone();
        until(|| {
            file.read_exact_at(&mut now, 0).unwrap();
            now != before
        });
    }
    let steps = record(stepped, &file);
    if let Some(sleeper) = sleeper {
        let got = sleeper.join().unwrap();
        assert_eq!(got.unwrap(), pattern(case.there), "it was woken");
    }
    drop((tx, rx));
    let _ = held.unlink();
    steps
}

/// Steps through a case on a copy of a ring, all of whose participants are dead.
fn step_through_image(image: &[u8], case: &Case, what: &str) -> Steps {
    let name = name(what);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path(&name))
        .unwrap();
    file.write_all(image).unwrap();
    let task = format!("{name}:{}", case.operation);
    let stepped = Stepped::start(&mut child("stepped_process", &task));
    let steps = record(stepped, &file);
    let _ = std::fs::remove_file(path(&name));
    steps
}

fn every_image_is_survived(cases: &[Case]) {
    for case in cases {
        let steps = step_through(case);
        assert_eq!(steps.end, case.end, "{}", case.operation);
        let mut before = (0, 0);
        for (i, image) in steps.images.iter().enumerate() {
            let found = survive(image, i as u64);
            // The live sleeper may have taken the message, or have been about to.
            let is_his = |found: &Vec<(_, bool)>| found.iter().all(|(_, again)| *again);
            if case.operation == "send, to a sleeper" && found.as_ref().is_ok_and(is_his) {
                continue;
            }
            let now = found.and_then(|found| check(case, &found));
            let now = now.unwrap_or_else(|why| panic!("{}, image {i}: {why}", case.operation));
            assert!(
                before.0 <= now.0 && before.1 <= now.1,
                "{}, image {i}: back",
                case.operation
            );
            before = now;
        }
        if case.end == End::Done && case.operation != "send, to a sleeper" {
            assert_eq!(
                before,
                (case.receives, case.sends),
                "{} done",
                case.operation
            );
        }
        println!(
            "{:<40} {:>7} instructions {:>4} images",
            case.operation,
            steps.instructions,
            steps.images.len()
        );
        assert!(steps.instructions > 10 && steps.images.len() > 1);
    }
}

#[test]
fn a_producer_killed_at_any_instruction_loses_at_most_its_own_message() {
    let _watchdog = watchdog(600);
    every_image_is_survived(&producing());
}

#[test]
fn a_consumer_killed_at_any_instruction_loses_nothing_it_has_not_received() {
    let _watchdog = watchdog(600);
    every_image_is_survived(&consuming());
}

/// What must hold when a repair is cut off, or done, on an image in which survivors found `before`.
fn check_repair(before: &Found, found: &Found, repair: &Case) -> Result<(), String> {
    let count = |found: &Found, bytes: &Vec<u8>| found.iter().filter(|(b, _)| b == bytes).count();
    let sent = pattern(repair.there);
    let mut missing = 0;
    for (bytes, was_marked) in before {
        match count(found, bytes) {
            0 => missing += 1,
            1 if *was_marked && !found.contains(&(bytes.clone(), true)) => {
                return Err(format!("seen before, and not marked any more: {found:?}"));
            }
            1 => {}
            _ => return Err(format!("doubled: {found:?}")),
        }
    }
    let extra = usize::from(repair.sends > 0 && count(found, &sent) == 1);
    if missing > repair.receives || found.len() != before.len() - missing + extra {
        return Err(format!("of {before:?} there is {found:?}"));
    }
    Ok(())
}

#[test]
fn a_repairer_killed_at_any_instruction_is_repaired() {
    let _watchdog = watchdog(if deep() { 3600 } else { 300 });
    // Attaching takes twenty times as many instructions as anything else.
    let every = |repair: &Case| match repair.operation {
        _ if deep() => 1,
        "attach producer" | "attach consumer" => 60,
        _ => 10,
    };
    let broken = [
        "send",
        "send, on a later lap",
        "reserve, and commit",
        "forget, and send",
        "send_batch",
        "recv",
        "recv, again",
        "recv, on a full ring",
        "recv, over a gap",
        "drain",
        "attach consumer",
    ];
    let (mut repairs, mut instructions, mut images, mut again) = (0, 0, 0, 0);
    let repairing = repairing();
    let (mut turns, mut done) = (vec![0; repairing.len()], vec![0; repairing.len()]);
    for case in cases()
        .iter()
        .filter(|case| broken.contains(&case.operation))
    {
        let steps = step_through(case);
        for (i, image) in steps.images.iter().enumerate() {
            for (kind, repair) in repairing.iter().enumerate() {
                turns[kind] += 1;
                if turns[kind] % every(repair) != every(repair) / 2 {
                    continue;
                }
                done[kind] += 1;
                let what = format!("{}, image {i}, then {}", case.operation, repair.operation);
                let before = survive(image, 1).unwrap();
                let repaired = step_through_image(image, repair, &what);
                repairs += 1;
                instructions += repaired.instructions;
                images += repaired.images.len();
                for (j, image) in repaired.images.iter().enumerate() {
                    survive(image, j as u64)
                        .and_then(|found| check_repair(&before, &found, repair))
                        .unwrap_or_else(|why| panic!("{what}, image {j}: {why}"));
                    // Whoever repairs that dies, too.
                    if !deep() || j == 0 || repair.operation != "recv, repairing" {
                        continue;
                    }
                    let before = survive(image, 1).unwrap();
                    let what = format!("{what}, image {j}, and again");
                    for (k, image) in step_through_image(image, repair, &what)
                        .images
                        .iter()
                        .enumerate()
                    {
                        again += 1;
                        survive(image, k as u64)
                            .and_then(|found| check_repair(&before, &found, repair))
                            .unwrap_or_else(|why| panic!("{what}, image {k}: {why}"));
                    }
                }
            }
        }
    }
    println!(
        "{repairs} repairs, {instructions} instructions, {images} images; of repairs of repairs {again}"
    );
    assert!(
        repairs > 10 && !done.contains(&0),
        "of each kind {done:?}, of {turns:?}"
    );
}

#[test]
fn a_creator_killed_between_any_two_system_calls_leaves_nothing_that_blocks_the_name() {
    let _watchdog = watchdog(300);
    let name = name("create");
    let mut kills = 0;
    loop {
        let mut stepped = Stepped::start(&mut child("stepped_process", &format!("{name}:create")));
        let done = (0..=kills).any(|_| stepped.next_call() == End::Done);
        drop(stepped);
        match mpmc::attach(&name) {
            Ok(ring) => {
                let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
                tx.try_send(b"whole").unwrap();
                assert_eq!(&*rx.try_recv().unwrap(), b"whole");
            }
            Err(ringway::Error::NotFound { .. }) => {}
            Err(error) => panic!("killed at stop {kills}: {error}"),
        }
        let ring = mpmc::create(&name, config()).unwrap();
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

/// How far apart the instructions are at which a process is really killed, or stopped.
fn stride() -> usize {
    if deep() { 11 } else { 307 }
}

#[test]
fn live_survivors_get_everything_from_one_really_killed() {
    let _watchdog = watchdog(if deep() { 3600 } else { 300 });
    for operation in ["send", "send_batch", "recv", "drain"] {
        let case = cases()
            .into_iter()
            .find(|case| case.operation == operation)
            .unwrap();
        let name = name(&format!("real-{operation}"));
        let (mut kills, mut at, mut done) = (0, 1, false);
        while !done {
            let (ring, tx, mut rx) = ring(&name, &case);
            let mut tx = Some(tx);
            if case.sends > 0 {
                tx = None; // the stepped one is the only producer
            }
            let mut stepped = Stepped::start(&mut child(
                "stepped_process",
                &format!("{name}:{operation}"),
            ));
            done = stepped.run(|n| n < at) == End::Done;
            drop(stepped);
            let mut found = Vec::new();
            if case.sends > 0 {
                let error = loop {
                    match rx.recv_timeout(LATE) {
                        Ok(message) => found.push((message.to_vec(), message.redelivered())),
                        Err(error) => break error,
                    }
                };
                assert!(matches!(error, RecvError::PeerDied), "{error}");
            } else {
                take_all(&mut rx, &mut found).unwrap();
            }
            check(&case, &found).unwrap_or_else(|why| panic!("{operation}, killed at {at}: {why}"));
            // Whoever comes now has a whole ring.
            let mut tx = tx.unwrap_or_else(|| ring.producer().unwrap());
            for number in 0..SLOTS {
                tx.send_timeout(&pattern(number), LATE).unwrap();
            }
            for number in 0..SLOTS {
                assert_eq!(*rx.recv_timeout(LATE).unwrap(), pattern(number));
            }
            drop((tx, rx));
            let _ = ring.unlink();
            kills += 1;
            at += stride();
        }
        println!("{operation}: {kills} real kills with live survivors");
        assert!(kills > 3);
    }
}

/// Stopped in the middle, as by a terminal: the others go on, it is robbed of nothing, and when it is
/// continued it ends what it began.
#[test]
fn one_stopped_at_any_instruction_is_waited_for_and_not_robbed() {
    let _watchdog = watchdog(if deep() { 3600 } else { 300 });
    for operation in [
        "send",
        "reserve, and commit",
        "send_batch",
        "recv",
        "drain",
        "recv, over a gap",
    ] {
        let case = cases()
            .into_iter()
            .find(|case| case.operation == operation)
            .unwrap();
        let name = name(&format!("stop-{operation}"));
        let (mut stops, mut at, mut done) = (0, 1, false);
        while !done {
            let (ring, mut tx, mut rx) = ring(&name, &case);
            let mut stepped = Stepped::start(&mut child(
                "stepped_process",
                &format!("{name}:{operation}"),
            ));
            done = stepped.run(|n| n < at) == End::Done;
            let stopped = stepped.stop();
            let mut found = Vec::new();
            take_all(&mut rx, &mut found).unwrap();
            // The others go on: what is not claimed by the stopped one can be used by them.
            let mut others = Vec::new();
            while others.len() < 20 && tx.try_send(&pattern(60 + others.len())).is_ok() {
                others.push((pattern(60 + others.len()), false));
                take_all(&mut rx, &mut found).unwrap();
            }
            assert!(
                !others.is_empty() || case.sends >= SLOTS,
                "stopped at {at}: nobody can send"
            );
            // One who only meant to receive may find nothing left: this is for it, or for us. (There may
            // be no room if it already holds something.)
            if case.receives > 0 {
                let _ = tx.send_timeout(&pattern(90), 20 * SOON);
            }
            stopped.finish();
            take_all(&mut rx, &mut found).unwrap();
            found.retain(|(bytes, _)| *bytes != pattern(90));
            assert!(
                found.iter().all(|(_, marked)| !marked),
                "robbed: stopped at {at}: {found:?}"
            );
            let (theirs, own): (Found, Found) = found.into_iter().partition(|m| others.contains(m));
            assert_eq!(theirs, others, "stopped at {at}: the others' messages");
            let (taken, sent) = check(&case, &own)
                .unwrap_or_else(|why| panic!("{operation}, stopped at {at}: {why}"));
            assert_eq!(sent, case.sends);
            assert!(taken <= case.receives);
            drop((tx, rx));
            let _ = ring.unlink();
            stops += 1;
            at += stride();
        }
        println!("{operation}: stopped and continued at {stops} instructions");
        assert!(stops > 3);
    }
}

/// Nothing waits in the ring then, and yet it is not empty.
#[test]
fn the_last_one_leaves_a_name_to_what_a_dead_consumer_was_reading() {
    let _watchdog = watchdog(60);
    let name = name("held");
    let (ring, tx, mut rx) = ring(
        &name,
        &Case {
            there: 1,
            ..case("recv")
        },
    );
    let message = rx.try_recv().unwrap();
    // In a copy all are dead.
    std::fs::copy(path(&name), path(&(name.clone() + "-copy"))).unwrap();
    drop(message);
    drop((tx, rx, ring));
    assert!(!std::path::Path::new(&path(&name)).exists(), "all is taken");
    let name = name + "-copy";
    let ring = mpmc::attach(&name).unwrap();
    drop(ring.producer().unwrap());
    drop(ring);
    let ring = mpmc::attach(&name).unwrap();
    let mut rx = ring.consumer().unwrap();
    let message = rx.recv_timeout(LATE).unwrap();
    assert_eq!((&*message, message.redelivered()), (&pattern(0)[..], true));
    drop(message);
    drop((rx, ring));
    assert!(!std::path::Path::new(&path(&name)).exists());
}

#[test]
fn a_message_published_before_its_bytes_is_caught() {
    let case = Case {
        sends: 1,
        ..case("send")
    };
    let name = name("seeded");
    let (ring, mut tx, rx) = ring(&name, &case);
    tx.try_send(&pattern(case.there)).unwrap();
    let mut image = std::fs::read(path(&name)).unwrap();
    check(&case, &survive(&image, 1).unwrap()).unwrap();
    let wanted = pattern(case.there);
    let at = image
        .windows(wanted.len())
        .rposition(|bytes| bytes == wanted);
    image[at.unwrap()..][..wanted.len()].fill(0);
    assert!(check(&case, &survive(&image, 1).unwrap()).is_err());
    drop((tx, rx));
    ring.unlink().unwrap();
}
