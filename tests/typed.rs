//! Rings of values: what two sides have to agree on, and what is told when they do not.

use std::fmt::Debug;
use std::os::fd::AsFd;

use ringway::spsc::Config;
use ringway::{Error, RecvError, SendError, broadcast, mpmc, spsc, typed};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, TryFromBytes};

mod common;
use common::{child, task, watchdog};

#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Order {
    id: u64,
    price: f64,
    quantity: u64,
}

fn order(id: u64) -> Order {
    Order {
        id,
        price: id as f64 / 4.0,
        quantity: 100 + id,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, TryFromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(u8)]
enum Side {
    Buy = 1,
    Sell = 2,
}

fn unique(what: &str) -> String {
    format!("test-typed-{what}-{}", std::process::id())
}

fn in_shm(name: &str) -> bool {
    std::path::Path::new("/dev/shm")
        .join(format!("ringway.{name}"))
        .exists()
}

#[test]
fn values_arrive_by_copy_in_place_and_in_slices() {
    let _dog = watchdog(30);
    let ring = spsc::typed::<Order>().anonymous().unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    tx.send(&order(1)).unwrap();
    assert_eq!(rx.recv().unwrap(), order(1));
    assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));

    let mut slot = tx.reserve().unwrap();
    *slot = order(2);
    slot.id = 3;
    slot.commit();
    assert_eq!(rx.recv_ref().unwrap().id, 3);

    {
        let _given_up = tx.reserve().unwrap();
    }
    let all: Vec<_> = (0..5).map(order).collect();
    assert_eq!(tx.send_batch(&all).unwrap(), 5);
    for value in &all {
        assert_eq!(*rx.try_recv_ref().unwrap(), *value);
    }
    tx.send_slice(&all).unwrap();
    tx.send_slice(&[]).unwrap();
    tx.send(&order(9)).unwrap();
    assert_eq!(*rx.recv_slice().unwrap(), all[..]);
    let mut copies = all;
    rx.recv_vec(&mut copies).unwrap();
    assert_eq!(copies, []);
    assert_eq!(*rx.recv_slice().unwrap(), [order(9)]);
    tx.close();
    assert!(matches!(rx.recv(), Err(RecvError::Closed)));
}

#[test]
fn values_pass_through_slots_too() {
    let _dog = watchdog(30);
    let config = mpmc::Config::default().slots(8).slot_size(72);
    let ring = mpmc::typed::<Order>().config(config).anonymous().unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    let mut another = tx.clone();
    tx.send(&order(1)).unwrap();
    another.send_batch([order(2), order(3)]).unwrap();
    assert_eq!(rx.recv().unwrap(), order(1));
    assert_eq!(*rx.recv_ref().unwrap(), order(2));
    assert_eq!(rx.clone().recv().unwrap(), order(3));
    assert_eq!(tx.max_slice(), 3);
    tx.send_slice(&[order(4), order(5)]).unwrap();
    assert_eq!(*rx.recv_slice().unwrap(), [order(4), order(5)]);
    assert!(matches!(
        tx.send_slice(&[order(0); 4]),
        Err(SendError::MessageTooLarge { len: 96, max: 72 })
    ));
    let mut slot = tx.reserve().unwrap();
    *slot = order(6);
    slot.commit();
    let mut copies = Vec::new();
    rx.recv_vec(&mut copies).unwrap();
    assert_eq!(copies, [order(6)]);
    tx.close().unwrap();
    assert!(matches!(rx.recv(), Err(RecvError::Closed)));
}

#[test]
fn slots_are_made_large_enough_for_one_value_and_a_capacity_that_is_not_is_refused() {
    type Frame = [u64; 100];
    let ring = mpmc::typed::<Frame>().anonymous().unwrap();
    assert_eq!(ring.untyped().slot_size(), 800);
    let small = spsc::typed::<Frame>().config(Config::default().capacity(1024));
    let error = small.anonymous().unwrap_err();
    assert!(matches!(error, Error::Config { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("capacity 1024") && text.contains("800"),
        "{text}"
    );
}

/// Refuses to attach, and says what is there and what was asked for.
fn refused<R: Debug>(result: Result<R, Error>, found: &str, expected: &str) {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::TypeMismatch { .. }), "{error}");
    let text = error.to_string();
    let (before, after) = text.split_once("this program speaks").expect(&text);
    assert!(before.contains(found), "{text}");
    assert!(after.contains(expected), "{text}");
    assert!(after.contains("ringway rm"), "{text}");
}

#[test]
fn another_type_size_alignment_name_or_version_is_refused_with_both_sides_named() {
    let name = unique("agree");
    let ours = spsc::typed::<Order>().version(3);
    let ring = ours.create(&name).unwrap();
    assert!(ours.attach(&name).is_ok() && ours.create_or_attach(&name).is_ok());
    let found = "Order (version 3, 24 bytes, aligned to 8)";
    refused(
        spsc::typed::<Order>().attach(&name),
        found,
        "Order (version 0, 24 bytes",
    );
    refused(spsc::typed::<u64>().attach(&name), found, "u64");
    refused(
        spsc::typed::<Order>()
            .version(3)
            .name("Trade")
            .attach(&name),
        found,
        "Trade (version 3",
    );
    // What cannot be told apart by size and alignment is what the version is for.
    let alike = spsc::typed::<[u64; 3]>().version(3).name("Order");
    assert!(alike.attach(&name).is_ok());
    refused(alike.version(4).attach(&name), found, "version 4");
    refused(
        spsc::typed::<[u32; 6]>()
            .version(3)
            .name("Order")
            .create_or_attach(&name),
        found,
        "aligned to 4",
    );
    let fd = ring.as_fd().try_clone_to_owned().unwrap();
    refused(
        spsc::typed::<u8>().from_fd(fd),
        found,
        "u8 (version 0, 1 bytes",
    );
    ring.untyped().unlink().unwrap();

    let raw = spsc::create(&name, Config::default()).unwrap();
    refused(
        spsc::typed::<u64>().attach(&name),
        "raw bytes of no type",
        "u64",
    );
    drop(raw);

    let slots = mpmc::typed::<Order>().create(&name).unwrap();
    refused(
        mpmc::typed::<i64>().attach(&name),
        "Order (version 0",
        "i64",
    );
    // Another kind of ring is another error.
    assert!(matches!(
        spsc::typed::<Order>().attach(&name),
        Err(Error::NotOurs { .. })
    ));
    drop(slots);
    assert!(!in_shm(&name));
}

#[test]
fn a_raw_handle_may_attach_and_what_it_sends_that_is_no_value_is_told_and_passed_over() {
    let _dog = watchdog(30);
    let name = unique("raw");
    let ring = spsc::typed::<Side>().create(&name).unwrap();
    let mut rx = ring.consumer().unwrap();
    let mut tx = spsc::attach(&name).unwrap().producer().unwrap();
    for bytes in [&[1][..], &[7], &[1, 2], &[], &[2]] {
        tx.send(bytes).unwrap();
    }
    assert_eq!(rx.recv().unwrap(), Side::Buy);
    for _ in 0..3 {
        let error = rx.recv().unwrap_err();
        assert!(matches!(error, RecvError::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains("value"), "{error}");
    }
    assert_eq!(rx.recv().unwrap(), Side::Sell);
    tx.send(&[1, 2, 1]).unwrap();
    tx.send(&[1, 3]).unwrap();
    let mut sides = Vec::new();
    rx.recv_vec(&mut sides).unwrap();
    assert_eq!(sides, [Side::Buy, Side::Sell, Side::Buy]);
    assert!(matches!(
        rx.recv_vec(&mut sides),
        Err(RecvError::Corrupt { .. })
    ));

    let ring = mpmc::typed::<u32>().anonymous().unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    for bytes in [&b"five!"[..], b"four", b"seven..", b"four"] {
        tx.untyped().send(bytes).unwrap();
    }
    assert!(matches!(rx.recv(), Err(RecvError::Corrupt { .. })));
    assert_eq!(*rx.recv_ref().unwrap(), u32::from_ne_bytes(*b"four"));
    assert!(matches!(rx.recv_slice(), Err(RecvError::Corrupt { .. })));
    assert_eq!(rx.recv().unwrap(), u32::from_ne_bytes(*b"four"));
}

#[test]
fn a_type_of_great_alignment_passes_by_copy() {
    #[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, KnownLayout, Immutable)]
    #[repr(C, align(64))]
    struct Line([u64; 8]);
    let ring = spsc::typed::<Line>().anonymous().unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    for i in 0..50 {
        let lines = [Line([i; 8]), Line([i + 1; 8])];
        tx.send(&lines[0]).unwrap();
        tx.send_slice(&lines).unwrap();
        assert_eq!(rx.recv().unwrap(), lines[0]);
        let mut copies = Vec::new();
        rx.recv_vec(&mut copies).unwrap();
        assert_eq!(copies, lines);
    }
}

#[test]
fn the_bounds_of_a_value_can_be_named() {
    fn pass<T: typed::Value + PartialEq + Debug>(value: T) {
        let ring = mpmc::typed::<T>().anonymous().unwrap();
        let mut rx = ring.consumer().unwrap();
        ring.producer().unwrap().send(&value).unwrap();
        assert_eq!(rx.recv().unwrap(), value);
    }
    pass(7u16);
    pass('ä');
    pass([true, false]);
}

#[test]
fn values_reach_every_subscriber_by_copy_in_place_and_in_slices() {
    use broadcast::{Config, Policy, Start};
    let _dog = watchdog(30);
    for policy in [Policy::Lossless, Policy::Lossy] {
        let config = Config::default().policy(policy);
        let ring = broadcast::typed::<Order>()
            .config(config)
            .anonymous()
            .unwrap();
        let mut tx = ring.producer().unwrap();
        let mut all = [
            ring.subscriber().unwrap(),
            ring.subscriber_from(Start::Oldest).unwrap(),
            ring.observer(Start::Next).unwrap(),
        ];
        tx.send(&order(1)).unwrap();
        let mut slot = tx.reserve().unwrap();
        *slot = order(2);
        slot.id = 3;
        slot.commit();
        let many: Vec<_> = (0..5).map(order).collect();
        assert_eq!(tx.send_batch(&many).unwrap(), 5);
        tx.send_slice(&many).unwrap();
        tx.send_slice(&many[..3]).unwrap();
        tx.send_slice(&[]).unwrap();
        let max = tx.max_slice();
        assert!(matches!(
            tx.send_slice(&vec![order(0); max + 1]),
            Err(SendError::MessageTooLarge { .. })
        ));
        for rx in &mut all {
            assert_eq!(rx.recv().unwrap(), order(1));
            assert_eq!(rx.recv_ref().unwrap().id, 3);
            for value in &many {
                assert_eq!(*rx.try_recv_ref().unwrap(), *value);
            }
            assert_eq!(*rx.recv_slice().unwrap(), many[..]);
            let mut copies = vec![order(7)];
            rx.recv_vec(&mut copies).unwrap();
            assert_eq!(copies, many[..3]);
            rx.recv_vec(&mut copies).unwrap();
            assert_eq!(copies, []);
            assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
        }
        tx.close();
        for rx in &mut all {
            assert!(matches!(rx.recv(), Err(RecvError::Closed)));
        }
    }
}

#[test]
fn who_subscribes_to_another_type_is_refused_and_who_was_overrun_is_told_before_values_go_on() {
    use broadcast::{Config, Policy, Start};
    let _dog = watchdog(30);
    let name = unique("broadcast");
    let config = Config::default().capacity(256).policy(Policy::Lossy);
    let sides = broadcast::typed::<[Side; 3]>().config(config).version(2);
    let ring = sides.create_or_attach(&name).unwrap();
    let other = broadcast::typed::<[Side; 3]>();
    for error in [
        other.attach(&name).unwrap_err(),
        other.observe(&name).unwrap_err(),
        broadcast::typed::<u32>().attach(&name).unwrap_err(),
    ] {
        assert!(matches!(error, Error::TypeMismatch { .. }), "{error}");
        assert!(error.to_string().contains("[Side; 3] (version 2, 3 bytes"));
    }
    assert!(spsc::typed::<[Side; 3]>().attach(&name).is_err());
    let small = broadcast::typed::<[u64; 40]>().config(Config::default().capacity(256));
    assert!(matches!(small.anonymous(), Err(Error::Config { .. })));

    let mut rx = sides.attach(&name).unwrap().subscriber().unwrap();
    let mut tap = sides.observe(&name).unwrap().observer(Start::Next).unwrap();
    let mut tx = ring.producer().unwrap();
    for _ in 0..100 {
        tx.send(&[Side::Sell; 3]).unwrap();
    }
    tx.untyped().send(&[1, 9, 1]).unwrap(); // no value of the type
    tx.send(&[Side::Buy; 3]).unwrap();
    for rx in [&mut rx, &mut tap] {
        let Err(RecvError::Missed { count }) = rx.recv() else {
            panic!("nothing was missed");
        };
        for _ in count..100 {
            assert_eq!(rx.recv().unwrap(), [Side::Sell; 3]);
        }
        let error = rx.recv().unwrap_err();
        assert!(matches!(error, RecvError::Corrupt { .. }), "{error}");
        assert_eq!(rx.recv().unwrap(), [Side::Buy; 3]);
    }
    drop((rx, tap, tx, ring));
    assert!(!in_shm(&name));
}

const MANY: u64 = 20_000;

#[test]
fn two_processes_pass_values_each_with_a_definition_of_its_own() {
    let _dog = watchdog(60);
    if let Some(name) = task() {
        // What this program calls by the same name.
        mod theirs {
            use super::*;
            #[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
            #[repr(C)]
            pub(super) struct Order(pub(super) u64, f64, u64);
        }
        let ring = spsc::typed::<theirs::Order>().version(1).attach(&name);
        let mut rx = ring.unwrap().consumer().unwrap();
        for id in 0..MANY {
            assert_eq!(rx.recv_ref().unwrap().0, id);
        }
        assert!(matches!(rx.recv(), Err(RecvError::Closed)));
        return;
    }
    let name = unique("processes");
    let ring = spsc::typed::<Order>().version(1).create(&name).unwrap();
    let mut tx = ring.producer().unwrap();
    let entry = "two_processes_pass_values_each_with_a_definition_of_its_own";
    let mut child = child(entry, &name).spawn().unwrap();
    tx.send_batch((0..MANY).map(order)).unwrap();
    tx.close();
    assert!(child.wait().unwrap().success());
    drop(ring);
    assert!(!in_shm(&name));
}
