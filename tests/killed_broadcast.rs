//! A process is killed at every instruction of an operation on a broadcast ring: what do the survivors
//! find? As `tests/killed.rs` has it: each different image of the memory, on which nobody holds a lock; real kills, and
//! stops, at sampled instructions.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::drop_non_drop)] // giving up a reservation is what is tested

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use ringway::broadcast::{self, Config, Policy, Producer, Ring, Start, Subscriber};
use ringway::wait::WaitStrategy;
use ringway::{Error, RecvError, SendError};

mod common;
#[path = "common/image.rs"]
mod image;
#[path = "common/step.rs"]
mod step;
use common::{Random, child, deep, task, until, watchdog};
use image::{Steps, record};
use step::{End, Stepped};

const SUBSCRIBERS: u64 = 4;
const LATE: Duration = Duration::from_secs(60);

/// One operation, and the ring it meets.
#[derive(Clone, Copy)]
struct Case {
    operation: &'static str,
    /// Messages that were sent before; those who attend have received them.
    before: u64,
    /// Whether as many more were sent as there is room for, which nobody has received.
    full: bool,
    /// Messages that are sent when the process is ready, and before it begins: by itself, if it is the producer, which
    /// knows of room from then on.
    meanwhile: u64,
    /// Messages that the operation sends.
    sends: u64,
    end: End,
}

const fn case(operation: &'static str, before: u64, sends: u64) -> Case {
    Case {
        operation,
        before,
        full: false,
        meanwhile: 0,
        sends,
        end: End::Done,
    }
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    case("send", 3, 1),
    Case { meanwhile: 1, ..case("send, again", 3, 1) },
    case("send, wrapping", 8, 1),
    case("send, moving the mark", 30, 1),
    case("send, to a sleeper", 13, 1),
    Case { full: true, end: End::Asleep, ..case("send, going to sleep", 13, 0) },
    case("send_batch", 3, 4),
    Case { meanwhile: 1, ..case("send_batch, after one", 3, 4) },
    case("send_batch, overwriting", 40, 4),
    case("reserve, commit", 13, 1),
    case("reserve, commit less", 13, 1),
    case("reserve, drop", 13, 0),
    case("attach producer", 13, 0),
    case("leave producer", 13, 0),
    case("attach subscriber", 13, 0),
    case("leave subscriber", 13, 0),
    case("recv", 13, 0),
    case("recv_into", 13, 0),
    Case { meanwhile: 60, ..case("recv, overrun", 13, 0) },
    Case { end: End::Asleep, ..case("recv, going to sleep", 13, 0) },
];

impl Case {
    fn of(operation: &str) -> Case {
        let mut cases = CASES.iter();
        *cases.find(|case| case.operation == operation).unwrap()
    }

    /// Whether it can happen under that policy.
    fn is_of(&self, policy: Policy) -> bool {
        match policy {
            Policy::Lossless => self.meanwhile == 0 || !self.receives(),
            _ => !self.full,
        }
    }

    /// Whether it is a subscriber's.
    fn receives(&self) -> bool {
        self.operation.starts_with("recv") || self.operation.ends_with("subscriber")
    }
}

/// The message of that number.
fn message(number: u64) -> Vec<u8> {
    let mut random = Random(number);
    let len = 8 + random.below(80) as usize;
    (0..len).map(|_| random.next() as u8).collect()
}

fn config(policy: Policy) -> Config {
    Config::default()
        .capacity(1024)
        .subscribers(SUBSCRIBERS)
        .policy(policy)
        .wait(WaitStrategy::Futex)
}

/// A named ring as the case wants it, its two ends, and how many messages were sent.
fn ring(name: &str, case: Case, policy: Policy) -> (Ring, Producer, Subscriber, u64) {
    let ring = broadcast::create(name, config(policy)).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.subscriber().unwrap());
    for number in 0..case.before {
        tx.try_send(&message(number)).unwrap();
        assert_eq!(*rx.recv().unwrap(), message(number)[..]);
    }
    if case.full {
        while tx.try_send(&message(tx.sequence())).is_ok() {}
    }
    let sent = tx.sequence();
    (ring, tx, rx, sent)
}

/// Between the two marks is what is stepped.
fn marked<R>(f: impl FnOnce() -> R) -> R {
    step::here();
    let result = f();
    step::here();
    result
}

/// In the stepped process: the operation, between two marks.
fn operate(case: Case, ring: &Ring) {
    let last = || ring.subscriber_from(Start::Last(2)).unwrap();
    let first = ring.sent();
    let sent = first..first + case.meanwhile;
    let sends: Vec<_> = (sent.end..sent.end + case.sends.max(1))
        .map(message)
        .collect();
    let verb = case.operation.split(',').next().unwrap();
    step::traced();
    match verb {
        "attach producer" => drop(marked(|| ring.producer().unwrap())),
        "attach subscriber" => drop(marked(last)),
        "leave producer" => {
            let end = ring.producer().unwrap();
            marked(|| drop(end));
        }
        "leave subscriber" => {
            let end = last();
            marked(|| drop(end));
        }
        "recv" if case.end == End::Asleep => {
            let mut rx = ring.subscriber().unwrap();
            marked(|| drop(rx.recv()));
        }
        "recv" if case.meanwhile > 0 => {
            let mut rx = last();
            let expected = message(first + case.meanwhile - 1);
            let mut missed = 0;
            marked(|| {
                loop {
                    match rx.recv() {
                        Ok(found) if *found == expected[..] => break,
                        Ok(_) => {}
                        Err(RecvError::Missed { count }) => missed += count,
                        Err(error) => panic!("{error}"),
                    }
                }
            });
            assert!(missed > 0);
        }
        "recv" => {
            let (mut rx, expected) = (last(), [message(first - 2), message(first - 1)]);
            marked(|| {
                for expected in &expected {
                    assert_eq!(*rx.recv().unwrap(), expected[..]);
                }
            });
        }
        "recv_into" => {
            let (mut rx, mut buffer, expected) = (last(), Vec::new(), message(first - 2));
            marked(|| assert_eq!(rx.recv_into(&mut buffer).unwrap(), first - 2));
            assert_eq!(buffer, expected);
        }
        "send_batch" => {
            let mut tx = ring.producer().unwrap();
            sent.for_each(|number| tx.send(&message(number)).unwrap());
            marked(|| tx.send_batch(&sends).unwrap());
        }
        "reserve" => {
            let mut tx = ring.producer().unwrap();
            let kept = if case.sends > 0 { sends[0].len() } else { 0 };
            let len = match case.operation {
                "reserve, commit" => kept,
                _ => kept + 100,
            };
            marked(|| {
                let mut slot = tx.reserve(len).unwrap();
                // Would be taken for headers.
                for word in slot.chunks_mut(8) {
                    word.copy_from_slice(&(8u64 << 32 | 1).to_le_bytes()[..word.len()]);
                }
                slot[..kept].copy_from_slice(&sends[0][..kept]);
                match kept {
                    0 => drop(slot),
                    _ => slot.commit_len(kept),
                }
            });
        }
        _ => {
            let mut tx = ring.producer().unwrap();
            sent.for_each(|number| tx.send(&message(number)).unwrap());
            marked(|| tx.send(&sends[0]).unwrap());
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
        drop(marked(|| {
            broadcast::create(name, config(Policy::Lossless)).unwrap()
        }));
        return;
    }
    operate(Case::of(operation), &broadcast::attach(name).unwrap());
}

fn start(name: &str, case: Case) -> Stepped {
    let task = format!("{name}:{}", case.operation);
    Stepped::start(&mut child("stepped_process", &task))
}

/// What survivors find in the image: how many messages were sent. Those that are there are whole and
/// without a gap up to the last, and a hundred more pass (`RINGWAY_DEEP`: three hundred), to one who comes and to
/// one who looks on; and as many can attend as the ring was made for.
fn survive(image: &[u8], seed: u64, before: u64) -> Result<u64, String> {
    let ring = Ring::from_fd(image::copy(image)).unwrap();
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
    let others: Result<Vec<_>, _> = (1..SUBSCRIBERS).map(|_| ring.subscriber()).collect();
    others.map_err(|e| format!("a seat is lost: {e}"))?;
    Ok(found)
}

fn name(what: &str) -> String {
    let what: String = what.chars().filter(|c| c.is_alphanumeric()).collect();
    format!("test-killed-bcast-{what}-{}", std::process::id())
}

/// Steps through the case; says how many instructions and how many different images there were.
fn step_through(case: Case, policy: Policy) -> (usize, usize) {
    let name = name("image");
    let (ring, tx, rx, mut before) = ring(&name, case, policy);
    // Of producers there is only one; who receives has one to wait for.
    let mut tx = case.receives().then_some(tx);
    let file = File::open(format!("/dev/shm/ringway.{name}")).unwrap();
    let stepped = start(&name, case);
    for number in before..before + case.meanwhile {
        if let Some(tx) = &mut tx {
            tx.try_send(&message(number)).unwrap();
        }
    }
    before += case.meanwhile;
    let (mut sleeper, mut rx) = (None, Some(rx));
    if case.operation == "send, to a sleeper" {
        let mut then = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut then, 0).unwrap();
        let mut rx = rx.take().unwrap();
        sleeper = Some(std::thread::spawn(move || {
            rx.recv_timeout(LATE).map(|message| message.to_vec())
        }));
        // Until it has announced that it sleeps.
        let mut now = then.clone();
        until(|| {
            file.read_exact_at(&mut now, 0).unwrap();
            now != then
        });
    }
    let Steps {
        images,
        instructions,
        end,
    } = record(stepped, &file);
    assert_eq!(end, case.end, "{}", case.operation);
    if let Some(sleeper) = sleeper {
        let got = sleeper.join().unwrap();
        assert_eq!(got.unwrap(), message(before), "it was woken");
    }
    let mut found = Vec::new();
    for (i, image) in images.iter().enumerate() {
        let sent = survive(image, i as u64, before)
            .unwrap_or_else(|why| panic!("{}, image {i}: {why}", case.operation));
        // A batch is published an eighth of the capacity at a time.
        let after = before + case.sends;
        let short = case.operation.starts_with("send_batch") && sent > before && sent < after;
        assert!(
            sent == before || sent == after || short,
            "{}: {sent}",
            case.operation
        );
        found.push(sent);
    }
    assert!(found.is_sorted(), "{}: {found:?}", case.operation);
    assert_eq!(found.last(), Some(&(before + case.sends)));
    drop((tx, rx));
    let _ = ring.unlink();
    println!(
        "{policy:?} {:<26} {instructions:>7} instructions {:>4} images",
        case.operation,
        images.len()
    );
    (instructions, images.len())
}

#[test]
fn whoever_is_killed_at_any_instruction_leaves_whole_messages_and_a_ring_that_goes_on() {
    let _watchdog = watchdog(300);
    let (mut operations, mut steps, mut images) = (0, 0, 0);
    for policy in [Policy::Lossless, Policy::Lossy] {
        // Of a lossy ring what writes differs in little: a part of it, unless all is asked for.
        let part = policy == Policy::Lossy && !deep();
        for case in CASES.iter().filter(|case| case.is_of(policy)) {
            let differs = case.before >= 30 || case.receives() && case.meanwhile > 0;
            if part && !differs {
                continue;
            }
            let (more_steps, more_images) = step_through(*case, policy);
            // Who receives from a lossy ring writes nothing.
            let writes = policy == Policy::Lossless || !case.operation.starts_with("recv");
            let expected = if writes { 2.. } else { 1.. };
            assert!(more_steps > 10 && expected.contains(&more_images));
            operations += 1;
            steps += more_steps;
            images += more_images;
        }
    }
    println!("{operations} operations, {steps} instructions, {images} images");
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
        match broadcast::attach(&name) {
            Ok(ring) => {
                let (mut tx, mut rx) = (ring.producer().unwrap(), ring.subscriber().unwrap());
                tx.try_send(b"whole").unwrap();
                assert_eq!(&*rx.try_recv().unwrap(), b"whole");
            }
            Err(Error::NotFound { .. }) => {}
            Err(error) => panic!("killed at stop {kills}: {error}"),
        }
        let ring = broadcast::create(&name, config(Policy::Lossy)).unwrap();
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

/// Every so many instructions a process is really killed, or stopped.
fn stride() -> usize {
    if deep() { 31 } else { 499 }
}

/// Runs the operation to its first instruction, in a ring of its own, and then to others, until it is done: what
/// `look` does is given the process there, and whether that is the end.
fn at_sampled_instructions(
    operation: &str,
    what: &str,
    mut look: impl FnMut(Case, Stepped, bool, (&Ring, Option<Producer>, Subscriber, u64)),
) {
    let (case, name) = (Case::of(operation), name(&format!("{what}-{operation}")));
    let (mut times, mut at, mut done) = (0, 1, false);
    while !done {
        let (ring, tx, rx, before) = ring(&name, case, Policy::Lossless);
        let tx = case.receives().then_some(tx);
        let mut stepped = start(&name, case);
        done = stepped.run(|n| n < at) == End::Done;
        look(case, stepped, done, (&ring, tx, rx, before));
        let _ = ring.unlink();
        times += 1;
        at += stride();
    }
    println!("{operation}: {what} at {times} instructions");
    assert!(times > 3);
}

#[test]
fn live_survivors_get_everything_from_one_really_killed() {
    let _watchdog = watchdog(if deep() { 3600 } else { 300 });
    for operation in ["send", "send_batch", "reserve, commit", "recv"] {
        at_sampled_instructions(operation, "killed", |case, stepped, done, sides| {
            let (ring, tx, mut rx, before) = sides;
            drop(stepped);
            let mut sent = before;
            if tx.is_none() {
                let error = loop {
                    match rx.recv_timeout(LATE) {
                        Ok(found) => assert_eq!(*found, message(sent)[..]),
                        Err(error) => break error,
                    }
                    sent += 1;
                };
                assert!(matches!(error, RecvError::PeerDied), "{error}");
                assert!(sent <= before + case.sends && (!done || sent == before + case.sends));
            }
            // Another goes on where it was, and nobody who is dead holds it back.
            let mut tx = tx.unwrap_or_else(|| ring.producer().unwrap());
            assert_eq!(tx.sequence(), sent);
            for number in sent..sent + 60 {
                tx.send_timeout(&message(number), LATE).unwrap();
                assert_eq!(*rx.recv_timeout(LATE).unwrap(), message(number)[..]);
            }
        });
    }
}

/// Stopped in the middle, as by a terminal: the others go on, it is robbed of nothing, and when it is continued it
/// ends what it began.
#[test]
fn one_stopped_at_any_instruction_is_waited_for_and_not_robbed() {
    let _watchdog = watchdog(if deep() { 3600 } else { 300 });
    for operation in ["send", "send_batch", "reserve, commit", "recv", "recv_into"] {
        at_sampled_instructions(operation, "stopped", |case, stepped, _, sides| {
            let (ring, tx, mut rx, mut received) = sides;
            let last = received + case.sends;
            let stopped = stepped.stop();
            let mut take = |sent: u64| {
                while let Ok(found) = rx.try_recv() {
                    assert!(received < sent, "nobody sent that");
                    assert_eq!(*found, message(received)[..]);
                    received += 1;
                }
                received
            };
            let Some(mut tx) = tx else {
                assert!(matches!(ring.producer(), Err(Error::RoleTaken { .. })));
                take(last);
                stopped.finish();
                assert_eq!(take(last), last);
                return;
            };
            // It has not received these yet, and so is waited for.
            let mut sent = last;
            while tx.try_send(&message(sent)).is_ok() {
                sent += 1;
                assert!(take(sent) == sent && sent < last + 40, "it is passed by");
            }
            assert_eq!(ring.living_subscribers().unwrap(), 2);
            stopped.finish();
            tx.send_timeout(&message(sent), LATE).unwrap();
            assert_eq!(take(sent + 1), sent + 1);
        });
    }
}

#[test]
fn a_message_published_before_its_bytes_is_caught() {
    let name = name("seeded");
    let (ring, tx, rx, before) = ring(&name, Case::of("send"), Policy::Lossless);
    let mut image = std::fs::read(format!("/dev/shm/ringway.{name}")).unwrap();
    assert_eq!(survive(&image, 1, before), Ok(before));
    let wanted = message(before - 1);
    let at = image
        .windows(wanted.len())
        .rposition(|bytes| bytes == wanted);
    image[at.unwrap()..][..wanted.len()].fill(0);
    assert!(survive(&image, 1, before).is_err());
    drop((tx, rx));
    ring.unlink().unwrap();
}
