//! Those who come to a ring while others leave it.

mod common;
#[path = "common/step.rs"]
mod step;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::{Random, Reaped, child, deep, task, until, watchdog};
use ringway::broadcast::{self, Policy, Start};
use ringway::channel::Receiver as _;
use ringway::{RecvError, SendError, mpmc, spsc};
use step::{End, Stepped, here, traced};

fn name(test: &str) -> String {
    format!("rings-{}-{test}", std::process::id())
}

fn path(name: &str) -> PathBuf {
    format!("/dev/shm/ringway.{name}").into()
}

/// Has another process do `what` a few times, and calls `meanwhile` at any of its instructions. It ends, and so does
/// the test, if what it does does not end as it should.
fn at_any_instruction(what: &str, mut meanwhile: impl FnMut()) {
    let mut other = Stepped::start(&mut child("child_process", what));
    let mut random = Random(1);
    for _ in 0..if deep() { 20 } else { 5 } {
        let end = other.run(|_| {
            if random.below(64) == 0 {
                meanwhile();
            }
            true
        });
        assert_eq!(end, End::Done);
        other.go_on();
    }
}

/// The other process of the tests here.
#[test]
fn child_process() {
    let Some(task) = task() else { return };
    let _dog = watchdog(110);
    let words: Vec<&str> = task.split(' ').collect();
    match words[..] {
        ["recv", name] => {
            // As a channel it asks each time who is there.
            let ring = mpmc::attach(name).unwrap();
            let mut rx = ringway::channel::ring::Receiver::try_from(&ring).unwrap();
            let mut got = Vec::new();
            traced();
            loop {
                here();
                let received = rx.try_recv(&mut got);
                here();
                assert!(matches!(received, Err(RecvError::Empty)), "{received:?}");
            }
        }
        ["send", name] => {
            let mut tx = broadcast::attach(name).unwrap().producer().unwrap();
            while tx.try_send(&[0; 32]).is_ok() {}
            traced();
            loop {
                here();
                let sent = tx.try_send(&[0; 32]);
                here();
                assert!(matches!(sent, Err(SendError::Full)), "{sent:?}");
            }
        }
        ["close", one, all] => {
            let tx = spsc::attach(one).unwrap().producer().unwrap();
            let to_all = broadcast::attach(all).unwrap().producer().unwrap();
            traced();
            here();
            drop((tx, to_all));
            here();
        }
        ["die", name] => {
            let _rx = mpmc::attach(name).unwrap().consumer().unwrap();
            // SAFETY: ends the process, which does not leave the ring.
            unsafe { libc::_exit(0) }
        }
        ["join", name] => {
            let ring = mpmc::attach(name).unwrap();
            traced();
            here();
            let joined = ring.consumer();
            here();
            joined.unwrap();
            here();
        }
        ["fork", name] => {
            let ring = spsc::create(name, Default::default()).unwrap();
            let said = path(&format!("{name}.said"));
            // SAFETY: of this process's threads this one alone does anything, so nothing is locked.
            if let nix::unistd::ForkResult::Child = unsafe { nix::unistd::fork() }.unwrap() {
                let rx = ring.consumer().unwrap();
                std::fs::write(&said, "").unwrap();
                until(|| !said.exists());
                drop((rx, ring));
                // SAFETY: ends the process.
                unsafe { libc::_exit(0) }
            }
            until(|| said.exists());
            drop(ring);
            std::fs::remove_file(&said).unwrap();
            nix::sys::wait::wait().unwrap();
        }
        ["unlink", name] => {
            traced();
            loop {
                let ring = spsc::attach(name).unwrap();
                here();
                ring.unlink().unwrap();
                here();
            }
        }
        _ => panic!("{task}"),
    }
}

#[test]
fn of_producers_that_hand_over_to_each_other_none_is_missed() {
    let _dog = watchdog(100);
    let name = name("producers");
    let config = mpmc::Config::default().slots(2);
    let ring = mpmc::create(&name, config).unwrap();
    // The records before theirs are looked at first.
    let mut producers = vec![ring.producer().unwrap()];
    at_any_instruction(&format!("recv {name}"), || {
        producers.push(ring.producer().unwrap());
        producers.remove(0);
    });
    drop((producers, ring));
    assert!(!path(&name).exists());
}

#[test]
fn of_subscribers_that_hand_over_to_each_other_none_is_missed() {
    let _dog = watchdog(100);
    let name = name("subscribers");
    let config = broadcast::Config::default().capacity(1024).expected(1);
    let config = config.policy(Policy::Lossless);
    let ring = broadcast::create(&name, config).unwrap();
    let subscriber = || ring.subscriber_from(Start::Oldest).unwrap();
    let mut subscribers = vec![subscriber()];
    at_any_instruction(&format!("send {name}"), || {
        subscribers.push(subscriber());
        subscribers.remove(0);
    });
    drop((subscribers, ring));
    assert!(!path(&name).exists());
}

/// Who is told that the producer has left takes its place.
#[test]
fn the_place_of_a_producer_that_has_closed_the_ring_is_free() {
    let _dog = watchdog(100);
    let name = name("closed");
    let (one, all) = (format!("{name}-one"), format!("{name}-all"));
    let ring = spsc::create(&one, Default::default()).unwrap();
    let many = broadcast::create(&all, Default::default()).unwrap();
    let (mut rx, mut subscriber) = (ring.consumer().unwrap(), many.subscriber().unwrap());
    let mut other = Stepped::start(&mut child("child_process", &format!("close {one} {all}")));
    std::thread::scope(|scope| {
        let (mut next, mut next_of_many) = (None, None);
        let end = other.run(|_| {
            if next.is_none() && matches!(rx.try_recv(), Err(RecvError::Closed)) {
                next = Some(scope.spawn(|| drop(ring.producer().unwrap())));
            }
            if next_of_many.is_none() && matches!(subscriber.try_recv(), Err(RecvError::Closed)) {
                next_of_many = Some(scope.spawn(|| drop(many.producer().unwrap())));
            }
            true
        });
        assert_eq!(end, End::Done);
        next.unwrap().join().unwrap();
        next_of_many.unwrap().join().unwrap();
    });
}

/// One leaves, and another comes, in the place of one that was killed. There is room for one more all the time.
#[test]
fn one_that_comes_is_not_refused_because_others_change_places_meanwhile() {
    let _dog = watchdog(100);
    let name = name("places");
    for at in 0.. {
        let ring = mpmc::create(&name, mpmc::Config::default().participants(2)).unwrap();
        let mut leaves = Some(ring.consumer().unwrap());
        let mut killed = child("child_process", &format!("die {name}"))
            .spawn()
            .unwrap();
        killed.wait().unwrap();
        let mut other = Stepped::start(&mut child("child_process", &format!("join {name}")));
        let (mut call, mut comes) = (0, None);
        other.calls(|_, _| {
            if call == at {
                drop(leaves.take());
                comes = Some(ring.consumer().unwrap());
            }
            call += 1;
            None
        });
        other.go_on();
        if comes.is_none() {
            assert!(at > 10, "it makes {at} calls");
            break;
        }
    }
}

/// Both ends of a ring may say that its name is not needed any more; then it is free for others.
#[test]
fn two_who_take_a_name_away_at_once_leave_the_next_ones_alone() {
    let _dog = watchdog(100);
    let name = name("unlinked");
    let create = || spsc::create(&name, spsc::Config::default().capacity(256)).unwrap();
    let mut ring = create();
    let mut other = Stepped::start(&mut child("child_process", &format!("unlink {name}")));
    let replaced = |ring: &spsc::Ring| {
        ring.unlink().unwrap();
        create()
    };
    for at in 0.. {
        let reached = std::thread::scope(|scope| {
            let (mut call, mut replacing) = (0, None);
            other.calls(|_, _| {
                if call == at {
                    let thread = scope.spawn(|| replaced(&ring));
                    // It is done, or waits for the other one: which of the two does not matter.
                    let soon = Instant::now() + Duration::from_millis(50);
                    until(|| thread.is_finished() || Instant::now() > soon);
                    replacing = Some(thread);
                }
                call += 1;
                None
            });
            let next = replacing.map(|thread| thread.join().unwrap());
            assert!(next.is_none() || path(&name).exists(), "call {at}");
            next.is_some()
        });
        if !reached {
            assert!(at > 3, "it makes {at} calls");
            break;
        }
        ring = create();
        other.go_on();
    }
    drop(other);
    drop(ring);
}

#[test]
fn a_forked_child_that_is_the_last_to_leave_takes_the_name_away() {
    let _dog = watchdog(100);
    let name = name("forked");
    let mut other = Reaped(
        child("child_process", &format!("fork {name}"))
            .spawn()
            .unwrap(),
    );
    assert!(other.0.wait().unwrap().success());
    assert!(!path(&name).exists());
}
