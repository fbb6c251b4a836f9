//! A process is killed at every instruction of an operation on a broadcast ring: what do the survivors
//! find? As `tests/killed.rs` has it: each different image of the memory, on which nobody holds a lock.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::drop_non_drop)] // giving up a reservation is what is tested

use std::collections::HashSet;
use std::ffi::CString;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use ringway::broadcast::{self, Config, Policy, Ring, Start};
use ringway::wait::WaitStrategy;
use ringway::{RecvError, SendError};

mod common;
#[path = "common/step.rs"]
mod step;
use common::{Random, child, deep, task, watchdog};
use step::{End, Stepped};

/// One operation, and the ring it meets.
#[derive(Clone, Copy)]
struct Case {
    operation: &'static str,
    /// Messages that were sent before; those who attend have received them.
    before: u64,
    /// Messages that the operation sends.
    sends: u64,
}

const CASES: &[Case] = &[
    Case {
        operation: "send",
        before: 3,
        sends: 1,
    },
    Case {
        operation: "send, wrapping",
        before: 8,
        sends: 1,
    },
    Case {
        operation: "send, moving the mark",
        before: 30,
        sends: 1,
    },
    Case {
        operation: "send_batch",
        before: 3,
        sends: 4,
    },
    Case {
        operation: "send_batch, overwriting",
        before: 40,
        sends: 4,
    },
    Case {
        operation: "reserve, commit",
        before: 13,
        sends: 1,
    },
    Case {
        operation: "reserve, commit less",
        before: 13,
        sends: 1,
    },
    Case {
        operation: "reserve, drop",
        before: 13,
        sends: 0,
    },
    Case {
        operation: "attach producer",
        before: 13,
        sends: 0,
    },
    Case {
        operation: "leave producer",
        before: 13,
        sends: 0,
    },
    Case {
        operation: "attach subscriber",
        before: 13,
        sends: 0,
    },
    Case {
        operation: "leave subscriber",
        before: 13,
        sends: 0,
    },
    Case {
        operation: "recv",
        before: 13,
        sends: 0,
    },
];

/// The message of that number.
fn message(number: u64) -> Vec<u8> {
    let mut random = Random(number);
    let len = 8 + random.below(80) as usize;
    (0..len).map(|_| random.next() as u8).collect()
}

fn config(policy: Policy) -> Config {
    Config::default()
        .capacity(1024)
        .subscribers(4)
        .policy(policy)
        .wait(WaitStrategy::Futex)
}

/// In the stepped process: the operation, between two marks.
fn operate(case: Case, ring: &Ring) {
    let sends: Vec<_> = (case.before..case.before + case.sends)
        .map(message)
        .collect();
    step::traced();
    match case.operation {
        "attach producer" => {
            step::here();
            let end = ring.producer().unwrap();
            step::here();
            drop(end);
        }
        "leave producer" => {
            let end = ring.producer().unwrap();
            step::here();
            drop(end);
            step::here();
        }
        "attach subscriber" => {
            step::here();
            let end = ring.subscriber_from(Start::Last(2)).unwrap();
            step::here();
            drop(end);
        }
        "leave subscriber" => {
            let end = ring.subscriber_from(Start::Last(2)).unwrap();
            step::here();
            drop(end);
            step::here();
        }
        "recv" => {
            let mut rx = ring.subscriber_from(Start::Last(2)).unwrap();
            step::here();
            drop(rx.recv().unwrap());
            drop(rx.recv().unwrap());
            step::here();
        }
        "send_batch" | "send_batch, overwriting" => {
            let mut tx = ring.producer().unwrap();
            step::here();
            tx.send_batch(&sends).unwrap();
            step::here();
        }
        "reserve, commit" | "reserve, commit less" | "reserve, drop" => {
            let mut tx = ring.producer().unwrap();
            let more = if case.operation.ends_with("less") {
                100
            } else {
                0
            };
            step::here();
            let len = sends.first().map_or(200, |bytes| bytes.len() + more);
            let mut slot = tx.reserve(len).unwrap();
            // Would be taken for headers.
            for word in slot.chunks_mut(8) {
                word.copy_from_slice(&(8u64 << 32 | 1).to_le_bytes()[..word.len()]);
            }
            if let Some(bytes) = sends.first() {
                slot[..bytes.len()].copy_from_slice(bytes);
                slot.commit_len(bytes.len());
            } else {
                drop(slot);
            }
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
    let case = CASES.iter().find(|case| case.operation == operation);
    operate(*case.unwrap(), &broadcast::attach(name).unwrap());
}

/// A sealed copy of a ring's memory, which nobody has locked.
fn copy(image: &[u8]) -> Ring {
    let name = CString::new("image").unwrap();
    // SAFETY: the name is NUL-terminated; the descriptor is new, and ours alone.
    let mut file = unsafe {
        let fd = libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        File::from(OwnedFd::from_raw_fd(fd))
    };
    file.write_all(image).unwrap();
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: F_ADD_SEALS takes an integer.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) };
    assert_eq!(result, 0);
    Ring::from_fd(file.into()).unwrap()
}

/// What survivors find in the image: how many messages were sent. Those that are there are whole and
/// without a gap up to the last, and a hundred more pass (`RINGWAY_DEEP`: three hundred), to one who comes and to
/// one who looks on.
fn survive(image: &[u8], seed: u64, before: u64) -> Result<u64, String> {
    let ring = copy(image);
    let mut eye = ring
        .observer(Start::Oldest)
        .map_err(|e| format!("observer: {e}"))?;
    let mut expected = eye.sequence();
    loop {
        match eye.try_recv() {
            Ok(found) if found.sequence() != expected => return Err("a gap".into()),
            Ok(found) if *found != message(expected)[..] => {
                return Err(format!("message {expected} is torn"));
            }
            Ok(_) => expected += 1,
            Err(RecvError::Empty | RecvError::Closed) => break,
            Err(error) => return Err(format!("after message {expected}: {error}")),
        }
    }
    let found = expected;
    let mut rx = ring
        .subscriber_from(Start::Next)
        .map_err(|e| format!("subscriber: {e}"))?;
    // (What was published just before the death may not have been marked as the newest yet.)
    if rx.sequence() > found || rx.sequence() < before {
        return Err(format!(
            "{found} messages, but the next is {}",
            rx.sequence()
        ));
    }
    let mut tx = ring.producer().map_err(|e| format!("producer: {e}"))?;
    if tx.sequence() != found {
        return Err(format!(
            "{found} messages, but {} for the producer",
            tx.sequence()
        ));
    }
    let (mut random, mut received) = (Random(seed), rx.sequence());
    let mut sent = found;
    let more = if deep() { 300 } else { 100 };
    while received < found + more {
        for _ in 0..random.below(12) {
            match tx.try_send(&message(sent)) {
                Ok(()) => sent += 1,
                Err(SendError::Full) => break,
                Err(error) => return Err(format!("new message {sent}: {error}")),
            }
        }
        while received < sent {
            match rx.try_recv() {
                Ok(got) if *got == message(received)[..] => received += 1,
                Ok(_) => return Err(format!("new message {received} is torn")),
                Err(RecvError::Missed { count }) if ring.policy() == Policy::Lossy => {
                    received += count;
                }
                Err(error) => return Err(format!("new message {received}: {error}")),
            }
        }
        while expected < sent {
            match eye.try_recv() {
                Ok(got) if *got == message(expected)[..] => expected += 1,
                Ok(_) => return Err(format!("the observer's message {expected} is torn")),
                Err(RecvError::Missed { count }) => expected += count,
                Err(error) => return Err(format!("the observer's message {expected}: {error}")),
            }
        }
    }
    Ok(found)
}

/// Steps through the case; says how many instructions and how many different images there were.
fn step_through(case: Case, policy: Policy) -> (usize, usize) {
    let name = format!("test-killed-bcast-{}", std::process::id());
    let ring = broadcast::create(&name, config(policy)).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.subscriber().unwrap());
    for number in 0..case.before {
        tx.try_send(&message(number)).unwrap();
        assert_eq!(*rx.recv().unwrap(), message(number)[..]);
    }
    drop(tx);
    let file = File::open(format!("/dev/shm/ringway.{name}")).unwrap();
    let task = format!("{name}:{}", case.operation);
    let mut stepped = Stepped::start(&mut child("stepped_process", &task));
    let mut now = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut now, 0).unwrap();
    let mut images = vec![now.clone()];
    let mut known = HashSet::from([now.clone()]);
    let mut before = now.clone();
    let mut keep = |now: &mut Vec<u8>| {
        file.read_exact_at(now, 0).unwrap();
        if *now != before && known.insert(now.clone()) {
            images.push(now.clone());
        }
        before.clone_from(now);
    };
    let end = stepped.run(|_| {
        keep(&mut now);
        true
    });
    assert_eq!(end, End::Done, "{}", case.operation);
    keep(&mut now);
    let steps = stepped.steps;
    drop(stepped);
    let mut found = Vec::new();
    for (i, image) in images.iter().enumerate() {
        let sent = survive(image, i as u64, case.before)
            .unwrap_or_else(|why| panic!("{}, image {i}: {why}", case.operation));
        // A batch is published an eighth of the capacity at a time.
        let (before, after) = (case.before, case.before + case.sends);
        let short = case.operation.starts_with("send_batch") && sent > before && sent < after;
        assert!(
            sent == before || sent == after || short,
            "{}: {sent}",
            case.operation
        );
        found.push(sent);
    }
    assert!(found.is_sorted(), "{}: {found:?}", case.operation);
    assert_eq!(found.last(), Some(&(case.before + case.sends)));
    drop(rx);
    let _ = ring.unlink();
    println!(
        "{policy:?} {:<26} {steps:>7} instructions {:>4} images",
        case.operation,
        images.len()
    );
    (steps, images.len())
}

#[test]
fn whoever_is_killed_at_any_instruction_leaves_whole_messages_and_a_ring_that_goes_on() {
    let _watchdog = watchdog(300);
    let (mut steps, mut images) = (0, 0);
    for policy in [Policy::Lossless, Policy::Lossy] {
        // Of a lossy ring what writes differs in little: a part of it, unless all is asked for.
        let part = policy == Policy::Lossy && !deep();
        for case in CASES.iter().filter(|case| !part || case.before >= 30) {
            let (more_steps, more_images) = step_through(*case, policy);
            assert!(more_steps > 10, "{}", case.operation);
            steps += more_steps;
            images += more_images;
        }
    }
    println!("{steps} instructions, {images} images");
}
