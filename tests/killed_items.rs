//! The ring of items: a process is killed at every instruction of an operation. As `tests/killed.rs` has it: each
//! different image of the memory, on which nobody holds a lock. Attaching is what it is for other MPMC rings
//! (`tests/killed_mpmc.rs`), takes long, and is left to `RINGWAY_DEEP=1`.
#![cfg(target_arch = "x86_64")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use ringway::mpmc::Config;
use ringway::mpmc::items::{self, Consumer, Producer, Ring};
use ringway::wait::WaitStrategy;
use ringway::{RecvError, SendError};

mod common;
#[path = "common/image.rs"]
mod image;
#[path = "common/step.rs"]
mod step;
use common::{child, deep, task, until, watchdog};
use image::{Steps, record};
use step::{End, Stepped};

const SLOTS: u64 = 4;
const PARTICIPANTS: usize = 5;
const LATE: Duration = Duration::from_secs(60);

/// One operation, and the ring it meets. Items are numbered from 0 on.
#[derive(Clone, Copy)]
struct Case {
    operation: &'static str,
    /// How many items have passed through before.
    passed: u64,
    /// How many items are there.
    there: u64,
    sends: u64,
    receives: u64,
    end: End,
}

const fn case(operation: &'static str) -> Case {
    Case {
        operation,
        passed: 0,
        there: 2,
        sends: 0,
        receives: 0,
        end: End::Done,
    }
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { sends: 1, ..case("send") },
    Case { passed: 7, there: 0, sends: 1, ..case("send, to an empty ring on a later lap") },
    Case { there: 0, sends: 1, ..case("send, to a sleeper") },
    Case { there: SLOTS, end: End::Asleep, ..case("send, going to sleep") },
    Case { receives: 1, ..case("recv") },
    Case { passed: 7, there: SLOTS, receives: 1, ..case("recv, on a full ring") },
    Case { there: 0, end: End::Asleep, ..case("recv, going to sleep") },
    case("close"),
    case("attach producer"),
    case("attach consumer"),
    case("leave producer"),
    case("leave consumer"),
];

/// A named ring as the case wants it, and two ends.
fn ring(name: &str, case: Case) -> (Ring, Producer, Consumer) {
    let config = Config::default()
        .slots(SLOTS)
        .participants(PARTICIPANTS)
        .wait(WaitStrategy::Futex);
    let ring = items::create(name, config).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    for item in 0..case.passed {
        tx.try_send(item).unwrap();
        assert_eq!(rx.try_recv().unwrap(), item);
    }
    for item in case.passed..case.passed + case.there {
        tx.try_send(item).unwrap();
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

/// What [`child`] runs: the operation, between two marks.
#[test]
fn stepped_process() {
    let Some(task) = task() else { return };
    let (name, operation) = task.split_once(':').unwrap();
    let mut cases = CASES.iter();
    let case = cases.find(|case| case.operation == operation).unwrap();
    let (first, next) = (case.passed, case.passed + case.there);
    let ring = items::attach(name).unwrap();
    step::traced();
    match operation.split(',').next().unwrap() {
        "send" => {
            let mut tx = ring.producer().unwrap();
            marked(|| tx.send(next).unwrap());
        }
        "recv" => {
            let mut rx = ring.consumer().unwrap();
            assert_eq!(marked(|| rx.recv()).unwrap(), first);
        }
        "close" => {
            let mut tx = ring.producer().unwrap();
            marked(|| tx.close().unwrap());
        }
        "attach producer" => drop(marked(|| ring.producer().unwrap())),
        "attach consumer" => drop(marked(|| ring.consumer().unwrap())),
        "leave producer" => {
            let end = ring.producer().unwrap();
            marked(|| drop(end));
        }
        _ => {
            let end = ring.consumer().unwrap();
            marked(|| drop(end));
        }
    }
}

/// The items that survivors find in the image, in order. They attach anew, and then every slot is usable, a
/// thousand more items pass, and as many can attach as the ring was made for.
fn survive(image: &[u8]) -> Result<Vec<u64>, String> {
    let ring = Ring::from_fd(image::copy(image)).unwrap();
    let mut rx = ring.consumer().map_err(|e| format!("consumer: {e}"))?;
    let mut tx = ring.producer().map_err(|e| format!("producer: {e}"))?;
    let mut found = Vec::new();
    loop {
        match rx.try_recv() {
            Ok(item) => found.push(item),
            Err(RecvError::Empty) => break,
            Err(RecvError::Closed) => return Ok(found),
            Err(error) => return Err(format!("after {found:?}: {error}")),
        }
    }
    for lap in 0..1000 / SLOTS {
        for item in 0..SLOTS {
            tx.try_send(item)
                .map_err(|e| format!("lap {lap}, {item}: {e}"))?;
        }
        if !matches!(tx.try_send(9), Err(SendError::Full)) {
            return Err(format!("lap {lap}: room for more than there is"));
        }
        for item in 0..SLOTS {
            match rx.try_recv() {
                Ok(got) if got == item => {}
                other => return Err(format!("lap {lap}, {item}: {other:?}")),
            }
        }
    }
    let more: Result<Vec<_>, _> = (2..PARTICIPANTS).map(|_| ring.producer()).collect();
    more.map_err(|e| format!("a record is lost: {e}"))?;
    Ok(found)
}

/// Steps through the case; how many instructions and images there were.
fn step_through(case: Case) -> (usize, usize) {
    let operation = case.operation;
    let name = format!("test-killed-items-{}", std::process::id());
    let (ring, tx, rx) = ring(&name, case);
    let file = File::open(format!("/dev/shm/ringway.{name}")).unwrap();
    let stepped = Stepped::start(&mut child(
        "stepped_process",
        &format!("{name}:{operation}"),
    ));
    let (mut sleeper, mut rx) = (None, Some(rx));
    if operation == "send, to a sleeper" {
        let mut then = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut then, 0).unwrap();
        let mut rx = rx.take().unwrap();
        sleeper = Some(std::thread::spawn(move || rx.recv_timeout(LATE)));
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
    assert_eq!(end, case.end, "{operation}");
    let was_taken = sleeper.is_some();
    if let Some(sleeper) = sleeper {
        assert_eq!(sleeper.join().unwrap().unwrap(), 0, "it was woken");
    }
    // What was there, less what it takes, and with what it sends: each only grows.
    let (mut gone, mut extra) = (0, 0);
    for (i, image) in images.iter().enumerate() {
        let found = survive(image).unwrap_or_else(|why| panic!("{operation}, image {i}: {why}"));
        let (first, next) = (case.passed, case.passed + case.there);
        let now = (
            found
                .first()
                .map_or(case.there, |item| next.min(*item) - first),
            found
                .last()
                .map_or(0, |item| (item + 1).saturating_sub(next)),
        );
        let whole = found.iter().copied().eq(first + now.0..next + now.1);
        assert!(whole, "{operation}, image {i}: {found:?}");
        // The live sleeper may have taken it.
        if !was_taken {
            assert!(
                gone <= now.0 && extra <= now.1,
                "{operation}, image {i}: back"
            );
        }
        (gone, extra) = now;
        assert!(
            gone <= case.receives && extra <= case.sends,
            "{operation}, image {i}: {found:?}"
        );
    }
    if end == End::Done && !was_taken {
        assert_eq!(
            (gone, extra),
            (case.receives, case.sends),
            "{operation} done"
        );
    }
    // Its name goes with the last one, if nothing is left in it.
    let path = format!("/dev/shm/ringway.{name}");
    drop((tx, rx, ring));
    let _ = std::fs::remove_file(path);
    println!(
        "{operation:<40} {instructions:>7} instructions {:>4} images",
        images.len()
    );
    (instructions, images.len())
}

#[test]
fn whoever_is_killed_at_any_instruction_loses_at_most_the_item_that_it_was_taking() {
    let _watchdog = watchdog(300);
    let (mut steps, mut images) = (0, 0);
    let all = |case: &&Case| deep() || !case.operation.starts_with("attach");
    for case in CASES.iter().filter(all) {
        let (more_steps, more_images) = step_through(*case);
        assert!(more_steps > 10 && more_images > 1, "{}", case.operation);
        steps += more_steps;
        images += more_images;
    }
    println!("{steps} instructions, {images} images");
}

/// The word that says where to begin looking goes back when somebody was stopped before writing it.
#[test]
fn the_last_one_leaves_a_name_to_items_that_no_cursor_tells_of() {
    let _watchdog = watchdog(60);
    let name = format!("test-killed-items-name-{}", std::process::id());
    let (ring, tx, rx) = ring(&name, case("send"));
    let path = format!("/dev/shm/ringway.{name}");
    let file = File::options().write(true).open(&path).unwrap();
    let tail = 2048 + 128 * PARTICIPANTS as u64;
    file.write_all_at(&0u64.to_ne_bytes(), tail).unwrap();
    drop((tx, rx, ring));
    let mut rx = items::attach(&name).unwrap().consumer().unwrap();
    assert_eq!((rx.try_recv().unwrap(), rx.try_recv().unwrap()), (0, 1));
    drop(rx);
    assert!(
        !std::path::Path::new(&path).exists(),
        "nothing is left in it"
    );
}

#[test]
fn an_item_that_is_taken_before_its_slot_is_ready_is_caught() {
    let name = format!("test-killed-items-seeded-{}", std::process::id());
    let (ring, tx, rx) = ring(&name, case("send"));
    let mut image = std::fs::read(format!("/dev/shm/ringway.{name}")).unwrap();
    assert_eq!(survive(&image), Ok(vec![0, 1]));
    // The slots have the last page; of the first one, the word says that it is ready.
    let slots = image.len() - 4096;
    assert_eq!(image[slots..][..8], 1u64.to_ne_bytes());
    image[slots..][..8].fill(0);
    assert_ne!(survive(&image), Ok(vec![0, 1]));
    drop((tx, rx, ring));
    std::fs::remove_file(format!("/dev/shm/ringway.{name}")).unwrap();
}
