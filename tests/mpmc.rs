//! The MPMC ring in one process: what a user sees.

use std::os::fd::AsFd;
use std::time::Duration;

use ringway::mpmc::{self, Config, OnDeath, Ring};
use ringway::wait::WaitStrategy;
use ringway::{Error, RecvError, SendError};

mod common;
use common::watchdog;

fn ring(config: Config) -> Ring {
    Ring::anonymous(config).unwrap()
}

#[test]
fn messages_of_one_producer_come_in_order_through_many_laps() {
    let _watchdog = watchdog(20);
    let ring = ring(Config::default().slots(4).slot_size(16));
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    for lap in 0..1000u64 {
        for i in 0..4 {
            tx.try_send(&(lap * 4 + i).to_le_bytes()).unwrap();
        }
        assert!(matches!(tx.try_send(b"more"), Err(SendError::Full)));
        for i in 0..4 {
            assert_eq!(&rx.try_recv().unwrap()[..], (lap * 4 + i).to_le_bytes());
        }
        assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
    }
}

#[test]
fn every_message_goes_to_exactly_one_of_many_consumers_whatever_the_wait_strategy() {
    let _watchdog = watchdog(120);
    for wait in WaitStrategy::ALL {
        let ring = ring(Config::default().slots(8).slot_size(8).wait(wait));
        const EACH: u64 = 2000;
        let sum = std::thread::scope(|scope| {
            let first = ring.producer().unwrap();
            for id in 0..3u64 {
                let mut tx = first.clone();
                scope.spawn(move || {
                    for i in 0..EACH {
                        tx.send(&(id * EACH + i).to_le_bytes()).unwrap();
                    }
                });
            }
            drop(first);
            let consumers: Vec<_> = (0..3)
                .map(|_| {
                    let mut rx = ring.consumer().unwrap();
                    scope.spawn(move || {
                        let (mut sum, mut count, mut last) = (0, 0, [None; 3]);
                        loop {
                            match rx.recv() {
                                Ok(message) => {
                                    let value = u64::from_le_bytes(message[..].try_into().unwrap());
                                    let seen = &mut last[(value / EACH) as usize];
                                    assert!(seen.is_none_or(|seen| seen < value), "out of order");
                                    *seen = Some(value);
                                    (sum, count) = (sum + value, count + 1);
                                }
                                Err(RecvError::Closed) => return (sum, count),
                                Err(error) => panic!("{error}"),
                            }
                        }
                    })
                })
                .collect();
            consumers
                .into_iter()
                .map(|consumer| consumer.join().unwrap())
                .fold((0, 0), |total, (sum, count)| {
                    (total.0 + sum, total.1 + count)
                })
        });
        assert_eq!(sum, ((0..3 * EACH).sum(), 3 * EACH), "{wait}");
    }
}

#[test]
fn batches_are_sent_and_drained() {
    let _watchdog = watchdog(20);
    let ring = ring(Config::default().slots(16).slot_size(8));
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    for lap in 0..100u64 {
        tx.send_batch((0..16).map(|i| (lap * 16 + i).to_le_bytes()))
            .unwrap();
        let mut expected = lap * 16;
        for max in [1, 3, 100] {
            let mut batch = rx.drain(max).unwrap();
            while let Some(message) = batch.next_message().unwrap() {
                assert_eq!(message, expected.to_le_bytes());
                expected += 1;
            }
        }
        assert_eq!(expected, lap * 16 + 16);
    }
    // What a drain was not asked for is released all the same.
    tx.send_batch([b"1", b"2", b"3"]).unwrap();
    drop(rx.drain(2).unwrap());
    assert_eq!(&rx.recv().unwrap()[..], b"3");
}

#[test]
fn a_batch_larger_than_the_ring_goes_through_with_a_consumer() {
    let _watchdog = watchdog(30);
    let ring = ring(Config::default().slots(4).slot_size(8));
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(move || tx.send_batch((0..1000u64).map(u64::to_le_bytes)).unwrap());
        for i in 0..1000u64 {
            assert_eq!(&rx.recv().unwrap()[..], i.to_le_bytes());
        }
    });
}

#[test]
fn a_dropped_reservation_is_stepped_over() {
    let _watchdog = watchdog(20);
    let ring = ring(Config::default().slots(2).slot_size(8));
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    for _ in 0..10 {
        let mut slot = tx.reserve(8).unwrap();
        slot.copy_from_slice(b"discards");
        drop(slot);
        let mut slot = tx.reserve(8).unwrap();
        slot[..4].copy_from_slice(b"kept");
        slot.commit_len(4);
        assert_eq!(&rx.recv().unwrap()[..], b"kept");
    }
}

#[test]
fn a_leaked_reservation_is_settled_by_the_next_send() {
    let _watchdog = watchdog(20);
    let ring = ring(Config::default().slots(4).slot_size(8));
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    for i in 0..20u64 {
        std::mem::forget(tx.reserve(8).unwrap());
        tx.send(&i.to_le_bytes()).unwrap();
        assert_eq!(&rx.recv().unwrap()[..], i.to_le_bytes());
    }
}

#[test]
fn a_leaked_message_is_released_by_the_next_receive() {
    let _watchdog = watchdog(20);
    let ring = ring(Config::default().slots(2).slot_size(8));
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    for i in 0..20u64 {
        tx.send(&i.to_le_bytes()).unwrap();
        let message = rx.recv().unwrap();
        assert_eq!(&message[..], i.to_le_bytes());
        std::mem::forget(message);
    }
}

#[test]
fn closing_refuses_sends_everywhere_and_lets_consumers_drain() {
    let _watchdog = watchdog(20);
    let ring = ring(Config::default());
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    let mut other = tx.clone();
    tx.send(b"last").unwrap();
    other.close().unwrap();
    assert!(matches!(tx.send(b"late"), Err(SendError::Closed)));
    assert_eq!(&rx.recv().unwrap()[..], b"last");
    assert!(matches!(rx.recv(), Err(RecvError::Closed)));
    assert!(matches!(rx.try_recv(), Err(RecvError::Closed)));
}

#[test]
fn closing_wakes_everyone_who_sleeps() {
    let _watchdog = watchdog(20);
    let ring = ring(Config::default().wait(WaitStrategy::Futex));
    let mut tx = ring.producer().unwrap();
    std::thread::scope(|scope| {
        let sleepers: Vec<_> = (0..4)
            .map(|_| {
                let mut rx = ring.consumer().unwrap();
                scope.spawn(move || assert!(matches!(rx.recv(), Err(RecvError::Closed))))
            })
            .collect();
        tx.close().unwrap();
        sleepers
            .into_iter()
            .for_each(|sleeper| sleeper.join().unwrap());
    });
}

#[test]
fn a_full_ring_whose_consumers_left_says_closed() {
    let _watchdog = watchdog(20);
    let ring = ring(Config::default().slots(2));
    let mut tx = ring.producer().unwrap();
    drop(ring.consumer().unwrap());
    tx.send(b"1").unwrap();
    tx.send(b"2").unwrap();
    assert!(matches!(tx.send(b"3"), Err(SendError::Closed)));
}

/// The time-out is over when the first look at the peers is due: they come first all the same, or a caller that
/// waits a little at a time would never learn that nobody is there.
#[test]
fn a_wait_however_short_tells_that_all_peers_left_as_it_does_over_spsc() {
    let _watchdog = watchdog(60);
    for wait in WaitStrategy::ALL {
        let both_closed = |sent: Result<(), SendError>, received: Result<(), RecvError>| {
            assert!(matches!(sent, Err(SendError::Closed)), "{wait:?} {sent:?}");
            let closed = matches!(received, Err(RecvError::Closed));
            assert!(closed, "{wait:?} {received:?}");
        };
        for short in [Duration::ZERO, Duration::from_millis(5)] {
            let config = || Config::default().slots(2).wait(wait);
            let (messages, rest) = (ring(config()), ring(config()));
            let (mut tx, mut rx) = (messages.producer().unwrap(), rest.consumer().unwrap());
            drop((messages.consumer().unwrap(), rest.producer().unwrap()));
            while tx.try_send(b"fill").is_ok() {}
            both_closed(
                tx.send_timeout(b"more", short),
                rx.recv_timeout(short).map(drop),
            );

            let items = || mpmc::items::Ring::anonymous(config()).unwrap();
            let (full, rest) = (items(), items());
            let (mut tx, mut rx) = (full.producer().unwrap(), rest.consumer().unwrap());
            drop((full.consumer().unwrap(), rest.producer().unwrap()));
            while tx.try_send(1).is_ok() {}
            both_closed(tx.send_timeout(2, short), rx.recv_timeout(short).map(drop));

            let bytes = || {
                let config = ringway::spsc::Config::default().capacity(4096);
                ringway::spsc::Ring::anonymous(config.wait(wait)).unwrap()
            };
            let (full, rest) = (bytes(), bytes());
            let (mut tx, mut rx) = (full.producer().unwrap(), rest.consumer().unwrap());
            drop((full.consumer().unwrap(), rest.producer().unwrap()));
            while tx.try_send(b"fill").is_ok() {}
            both_closed(
                tx.send_timeout(b"more", short),
                rx.recv_timeout(short).map(drop),
            );
        }
    }
}

#[test]
fn none_attached_yet_is_waited_for() {
    let _watchdog = watchdog(20);
    let ring = ring(Config::default().slots(2));
    let mut rx = ring.consumer().unwrap();
    let short = Duration::from_millis(120);
    assert!(matches!(rx.recv_timeout(short), Err(RecvError::TimedOut)));
    let mut tx = ring.producer().unwrap();
    drop(rx);
    let ring = self::ring(Config::default().slots(2));
    drop(tx);
    tx = ring.producer().unwrap();
    tx.send(b"1").unwrap();
    tx.send(b"2").unwrap();
    assert!(matches!(
        tx.send_timeout(b"3", short),
        Err(SendError::TimedOut)
    ));
}

#[test]
fn more_participants_than_records_are_refused_until_one_leaves() {
    let _watchdog = watchdog(60);
    let ring = ring(Config::default().slots(4));
    let mut all: Vec<_> = (0..255).map(|_| ring.producer().unwrap()).collect();
    assert!(matches!(
        ring.consumer(),
        Err(Error::TooManyParticipants { max: 255, .. })
    ));
    let mut clone = all[0].clone();
    let message = clone.try_send(b"x").unwrap_err().to_string();
    assert!(message.contains("255 participant records"), "{message}");
    drop(all.pop());
    clone.try_send(b"x").unwrap();
    all.pop();
    let mut rx = ring.consumer().unwrap();
    assert_eq!(&rx.recv().unwrap()[..], b"x");
}

#[test]
fn messages_that_do_not_fit_are_refused_with_the_limit() {
    let ring = ring(Config::default().slot_size(10));
    let mut tx = ring.producer().unwrap();
    assert_eq!(tx.max_message(), 10);
    assert!(matches!(
        tx.send(&[0; 11]),
        Err(SendError::MessageTooLarge { len: 11, max: 10 })
    ));
    tx.send(&[0; 10]).unwrap();
    tx.send(&[]).unwrap();
    let mut rx = ring.consumer().unwrap();
    assert_eq!(rx.recv().unwrap().len(), 10);
    assert_eq!(rx.recv().unwrap().len(), 0);
}

#[test]
fn settings_that_cannot_be_used_are_refused_with_the_range() {
    for (config, word) in [
        (Config::default().slots(1), "slots 1"),
        (Config::default().slots(0), "slots 0"),
        (Config::default().slot_size(7), "slot size 7"),
        (Config::default().participants(256), "participants 256"),
        (Config::default().slots(1 << 32).slot_size(1 << 30), "1 TiB"),
    ] {
        let message = Ring::anonymous(config).unwrap_err().to_string();
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn a_ring_is_found_by_its_name_and_by_its_descriptor() {
    let name = format!("test-mpmc-name-{}", std::process::id());
    let config = Config::default()
        .slots(3)
        .slot_size(100)
        .on_death(OnDeath::Drop);
    let ring = mpmc::create(&name, config).unwrap();
    assert!(matches!(
        mpmc::create(&name, Config::default()),
        Err(Error::AlreadyExists { .. })
    ));
    let other = mpmc::attach(&name).unwrap();
    assert_eq!((other.capacity(), other.slot_size()), (4, 100));
    ring.producer().unwrap().send(b"by name").unwrap();
    let third = Ring::from_fd(ring.as_fd().try_clone_to_owned().unwrap()).unwrap();
    assert_eq!(&third.consumer().unwrap().recv().unwrap()[..], b"by name");
    drop(third);
    drop((ring, other));
    assert!(
        matches!(mpmc::attach(&name), Err(Error::NotFound { .. })),
        "the last one unlinks"
    );
}

#[test]
fn event_descriptors_have_no_name_and_a_ring_with_them_is_refused_one() {
    let _watchdog = watchdog(60);
    let name = format!("mpmc-eventfd-{}", std::process::id());
    let config = Config::default().slots(4).wait(WaitStrategy::EventFd);
    let error = mpmc::create(&name, config.clone()).unwrap_err().to_string();
    assert!(error.contains("send_over"), "{error}");
    assert!(!std::path::Path::new(&format!("/dev/shm/ringway.{name}")).exists());
    // Its memory alone is not the ring either.
    let ring = Ring::anonymous(config).unwrap();
    let fd = ring.as_fd().try_clone_to_owned().unwrap();
    let error = Ring::from_fd(fd).unwrap_err().to_string();
    assert!(error.contains("send_over"), "{error}");
    // Passed whole, it is, and sleepers on both sides are woken.
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    ring.send_over(&ours).unwrap();
    let passed = Ring::receive_over(&theirs).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut tx = passed.producer().unwrap();
            for i in 0..1000u64 {
                tx.send(&i.to_le_bytes()).unwrap();
            }
        });
        let mut rx = ring.consumer().unwrap();
        for i in 0..1000u64 {
            assert_eq!(&rx.recv().unwrap()[..], i.to_le_bytes());
        }
    });
}

#[test]
fn items_go_to_exactly_one_consumer_each_in_both_forms() {
    let _watchdog = watchdog(120);
    for (form, wait) in [
        (Config::default(), WaitStrategy::Adaptive),
        (Config::default(), WaitStrategy::Futex),
        (Config::default(), WaitStrategy::Semaphore),
        (Config::default(), WaitStrategy::Spin),
        (Config::default().portable_items(), WaitStrategy::Adaptive),
    ] {
        let ring = mpmc::items::Ring::anonymous(form.slots(8).wait(wait)).unwrap();
        const EACH: u64 = 5000;
        let total: (u64, u64) = std::thread::scope(|scope| {
            for id in 0..3 {
                let mut tx = ring.producer().unwrap();
                scope.spawn(move || {
                    (0..EACH).for_each(|i| tx.send(id * EACH + i).unwrap());
                });
            }
            let consumers: Vec<_> = (0..3)
                .map(|_| {
                    let mut rx = ring.consumer().unwrap();
                    scope.spawn(move || {
                        let (mut sum, mut count, mut last) = (0, 0, [None; 3]);
                        loop {
                            match rx.recv() {
                                Ok(item) => {
                                    let seen = &mut last[(item / EACH) as usize];
                                    assert!(seen.is_none_or(|seen| seen < item), "out of order");
                                    *seen = Some(item);
                                    (sum, count) = (sum + item, count + 1);
                                }
                                Err(RecvError::Closed) => return (sum, count),
                                Err(error) => panic!("{error}"),
                            }
                        }
                    })
                })
                .collect();
            let each = consumers
                .into_iter()
                .map(|consumer| consumer.join().unwrap());
            each.fold((0, 0), |total, (sum, count)| {
                (total.0 + sum, total.1 + count)
            })
        });
        assert_eq!(total, ((0..3 * EACH).sum(), 3 * EACH), "{wait}");
    }
}

#[test]
fn items_fill_every_slot_through_many_laps_and_close() {
    let _watchdog = watchdog(20);
    for form in [Config::default(), Config::default().portable_items()] {
        let ring = mpmc::items::Ring::anonymous(form.slots(4)).unwrap();
        let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
        for lap in 0..1000 {
            (0..4).for_each(|i| tx.try_send(lap * 4 + i).unwrap());
            assert!(matches!(tx.try_send(0), Err(SendError::Full)));
            (0..4).for_each(|i| assert_eq!(rx.try_recv().unwrap(), lap * 4 + i));
            assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
        }
        (0..4).for_each(|i| tx.try_send(i).unwrap());
        tx.close().unwrap();
        assert!(matches!(tx.send(9), Err(SendError::Closed)));
        (0..4).for_each(|i| assert_eq!(rx.recv().unwrap(), i));
        assert!(matches!(rx.recv(), Err(RecvError::Closed)));
    }
}

#[test]
fn a_ring_of_items_is_not_taken_for_one_of_messages() {
    let name = format!("test-mpmc-items-{}", std::process::id());
    let ring = mpmc::items::create(&name, Config::default()).unwrap();
    let message = mpmc::attach(&name).unwrap_err().to_string();
    assert!(message.contains("8-byte items"), "{message}");
    let mut rx = mpmc::items::attach(&name).unwrap().consumer().unwrap();
    ring.producer().unwrap().send(5).unwrap();
    assert_eq!(rx.recv().unwrap(), 5);
    ring.producer().unwrap();
    assert!(matches!(
        rx.recv_timeout(Duration::ZERO),
        Err(RecvError::TimedOut | RecvError::Closed)
    ));
}
