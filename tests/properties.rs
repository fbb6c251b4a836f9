//! Rings against a simple queue: any sequence of operations does what a queue of limited length does;
//! and what processes see of an MPMC ring could be seen of a queue whose operations take no time.
//!
//! `PROPTEST_CASES=100000` tries more sequences; `RINGWAY_DEEP=1` takes ten times as many of everything.
#![allow(clippy::forget_non_drop, clippy::drop_non_drop)] // leaking and giving up is what is tested

use std::collections::VecDeque;
use std::io::{BufRead, Write};
use std::time::Duration;

use proptest::prelude::*;
use ringway::wait::WaitStrategy;
use ringway::{RecvError, SendError, mpmc, spsc};

mod common;
use common::{Random, Reaped, child, deep, task, watchdog};

fn times(few: u32) -> u32 {
    let cases = std::env::var("PROPTEST_CASES").ok();
    let cases = cases.and_then(|cases| cases.parse().ok());
    cases.unwrap_or(if deep() { few * 10 } else { few })
}

/// Seconds that a test may take: some, unless it was told to take its time.
fn limit() -> u64 {
    let is_long = deep() || std::env::var_os("PROPTEST_CASES").is_some();
    if is_long { 3600 } else { 300 }
}

fn payload(number: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (number * 31 + at * 7) as u8).collect()
}

fn strategies() -> impl Strategy<Value = WaitStrategy> {
    proptest::sample::select(&WaitStrategy::ALL[..])
}

/// What a single thread can do with both ends of an SPSC ring without waiting for ever.
#[derive(Clone, Debug)]
enum Spsc {
    Send(u8),
    /// Reserves so much, and commits so much of it.
    Commit(u8, u8),
    Abort(u8),
    LeakReservation(u8),
    /// Sent only while the ring is empty, so that it cannot wait for room.
    Batch(Vec<u8>),
    Recv,
    RecvInto,
    LeakMessage,
    /// Drains so many, and looks at so many of them.
    Drain(u8, u8),
    /// The producer leaves; what is left is taken, then the end; another producer comes.
    NewProducer,
    NewConsumer,
}

fn spsc_operations() -> impl Strategy<Value = Vec<Spsc>> {
    let one = prop_oneof![
        6 => any::<u8>().prop_map(Spsc::Send),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Spsc::Commit(a.max(b), a.min(b))),
        1 => any::<u8>().prop_map(Spsc::Abort),
        1 => any::<u8>().prop_map(Spsc::LeakReservation),
        1 => prop::collection::vec(0u8..40, 0..5).prop_map(Spsc::Batch),
        6 => Just(Spsc::Recv),
        2 => Just(Spsc::RecvInto),
        1 => Just(Spsc::LeakMessage),
        2 => (0u8..6, 0u8..6).prop_map(|(a, b)| Spsc::Drain(a, b)),
        1 => Just(Spsc::NewProducer),
        1 => Just(Spsc::NewConsumer),
    ];
    prop::collection::vec(one, 1..200)
}

fn run_spsc(
    capacity: u64,
    wait: WaitStrategy,
    touch: bool,
    operations: &[Spsc],
) -> Result<(), TestCaseError> {
    let config = spsc::Config::default()
        .capacity(capacity)
        .wait(wait)
        .touch(touch);
    let ring = spsc::Ring::anonymous(config).unwrap();
    let max = ring.max_message();
    let (mut tx, mut rx) = (
        Some(ring.producer().unwrap()),
        Some(ring.consumer().unwrap()),
    );
    let mut model: VecDeque<Vec<u8>> = VecDeque::new();
    // A message that was leaked keeps its room until the consumer does something else.
    let mut leaked = false;
    let mut number = 0;
    let mut next = |len: usize| {
        number += 1;
        payload(number, len.min(max))
    };
    for operation in operations {
        let (p, c) = (tx.as_mut().unwrap(), rx.as_mut().unwrap());
        let by_producer = matches!(
            operation,
            Spsc::Send(_)
                | Spsc::Commit(..)
                | Spsc::Abort(_)
                | Spsc::LeakReservation(_)
                | Spsc::Batch(_)
        );
        leaked &= by_producer;
        match operation {
            Spsc::Send(len) => {
                let message = next(*len as usize);
                match p.try_send(&message) {
                    Ok(()) => model.push_back(message),
                    Err(SendError::Full) => {
                        prop_assert!(leaked || !model.is_empty(), "full, and empty")
                    }
                    Err(error) => prop_assert!(false, "{error}"),
                }
            }
            Spsc::Commit(room, len) => {
                let message = next(*len as usize);
                match p.try_reserve((*room as usize).min(max).max(message.len())) {
                    Ok(mut slot) => {
                        slot.fill(0xff);
                        slot[..message.len()].copy_from_slice(&message);
                        slot.commit_len(message.len());
                        model.push_back(message);
                    }
                    Err(SendError::Full) => {
                        prop_assert!(leaked || !model.is_empty(), "full, and empty")
                    }
                    Err(error) => prop_assert!(false, "{error}"),
                }
            }
            Spsc::Abort(room) | Spsc::LeakReservation(room) => {
                if let Ok(mut slot) = p.try_reserve((*room as usize).min(max)) {
                    slot.fill(0xff);
                    if matches!(operation, Spsc::LeakReservation(_)) {
                        std::mem::forget(slot);
                    }
                }
            }
            Spsc::Batch(lens) => {
                if model.is_empty() {
                    // What was leaked is given back by this.
                    prop_assert!(matches!(c.try_recv(), Err(RecvError::Empty)));
                    leaked = false;
                    let messages: Vec<_> = lens.iter().map(|len| next(*len as usize)).collect();
                    prop_assert_eq!(p.send_batch(&messages).unwrap(), messages.len());
                    model.extend(messages);
                }
            }
            Spsc::Recv | Spsc::LeakMessage => match (c.try_recv(), model.pop_front()) {
                (Ok(message), Some(expected)) => {
                    prop_assert_eq!(&*message, &expected[..]);
                    prop_assert!(!message.redelivered());
                    if matches!(operation, Spsc::LeakMessage) {
                        leaked = true;
                        std::mem::forget(message);
                    }
                }
                (Err(RecvError::Empty), None) => {}
                (got, expected) => prop_assert!(false, "{:?} instead of {:?}", got, expected),
            },
            Spsc::RecvInto => {
                let mut buffer = vec![1, 2, 3];
                match (c.try_recv_into(&mut buffer), model.pop_front()) {
                    (Ok(()), Some(expected)) => prop_assert_eq!(buffer, expected),
                    (Err(RecvError::Empty), None) => {}
                    (got, expected) => prop_assert!(false, "{:?} instead of {:?}", got, expected),
                }
            }
            Spsc::Drain(most, look) => {
                if look > most {
                    let mut got = Vec::new();
                    c.drain_with(*most as usize, |message| got.push(message.to_vec()));
                    let there = model.len().min(*most as usize);
                    prop_assert_eq!(got, model.drain(..there).collect::<Vec<_>>());
                    continue;
                }
                let mut drain = c.drain(*most as usize);
                for _ in 0..(*look).min(*most) {
                    let got = drain.next().map(|message| message.to_vec());
                    prop_assert_eq!(got, model.pop_front());
                }
            }
            Spsc::NewProducer => {
                drop(tx.take());
                for expected in model.drain(..) {
                    prop_assert_eq!(&*c.try_recv().unwrap(), &expected[..]);
                }
                prop_assert!(matches!(c.try_recv(), Err(RecvError::Closed)));
                tx = Some(ring.producer().unwrap());
            }
            Spsc::NewConsumer => {
                drop(rx.take());
                rx = Some(ring.consumer().unwrap());
            }
        }
    }
    let c = rx.as_mut().unwrap();
    for expected in model {
        prop_assert_eq!(&*c.try_recv().unwrap(), &expected[..]);
    }
    prop_assert!(matches!(c.try_recv(), Err(RecvError::Empty)));
    // The longest message fits an empty ring, wherever it stands.
    let longest = vec![7; max];
    prop_assert!(tx.as_mut().unwrap().try_send(&longest).is_ok());
    prop_assert_eq!(&*c.try_recv().unwrap(), &longest[..]);
    Ok(())
}

#[test]
fn an_spsc_ring_does_what_a_queue_does() {
    let _watchdog = watchdog(limit());
    let config = ProptestConfig {
        cases: times(256),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let capacities = proptest::sample::select(&[512u64, 1024, 4096][..]);
    let input = (capacities, strategies(), any::<bool>(), spsc_operations());
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(&input, |(capacity, wait, touch, operations)| {
            run_spsc(capacity, wait, touch, &operations)
        })
        .unwrap();
}

/// What a single thread can do with two producers and two consumers of an MPMC ring; the first number says
/// which of them.
#[derive(Clone, Debug)]
enum Mpmc {
    Send(usize, u8),
    Commit(usize, u8),
    Abort(usize),
    LeakReservation(usize),
    Batch(usize, usize),
    Recv(usize),
    LeakMessage(usize),
    Drain(usize, usize),
    NewProducer(usize),
    NewConsumer(usize),
    Close,
}

fn mpmc_operations() -> impl Strategy<Value = Vec<Mpmc>> {
    let one = prop_oneof![
        8 => (0usize..2, 0u8..40).prop_map(|(i, len)| Mpmc::Send(i, len)),
        3 => (0usize..2, 0u8..40).prop_map(|(i, len)| Mpmc::Commit(i, len)),
        2 => (0usize..2).prop_map(Mpmc::Abort),
        1 => (0usize..2).prop_map(Mpmc::LeakReservation),
        2 => (0usize..2, 1usize..5).prop_map(|(i, count)| Mpmc::Batch(i, count)),
        9 => (0usize..2).prop_map(Mpmc::Recv),
        1 => (0usize..2).prop_map(Mpmc::LeakMessage),
        2 => (0usize..2, 1usize..6).prop_map(|(i, most)| Mpmc::Drain(i, most)),
        1 => (0usize..2).prop_map(Mpmc::NewProducer),
        1 => (0usize..2).prop_map(Mpmc::NewConsumer),
    ];
    let ending = prop_oneof![Just(vec![]), Just(vec![Mpmc::Close])];
    (prop::collection::vec(one, 1..200), ending).prop_map(|(mut operations, ending)| {
        operations.extend(ending);
        operations
    })
}

/// What a slot holds, in the model.
#[derive(Clone, Debug, PartialEq)]
enum Held {
    Claimed,
    Ready(Vec<u8>),
    Gap,
    Taken,
    Free,
}

/// A queue of slots with tickets.
struct Model {
    slots: usize,
    tickets: Vec<Held>,
    head: usize,
    /// What producers and consumers have leaked: their tickets.
    reserved: [Option<usize>; 2],
    taken: [Vec<usize>; 2],
}

impl Model {
    fn room(&self) -> usize {
        let tail = self.tickets.len();
        let is_free = |i: &usize| {
            (tail + i)
                .checked_sub(self.slots)
                .is_none_or(|old| self.tickets.get(old) == Some(&Held::Free))
        };
        (0..self.slots).take_while(is_free).count()
    }

    fn settle_producer(&mut self, i: usize) {
        if let Some(ticket) = self.reserved[i].take() {
            self.tickets[ticket] = Held::Gap;
        }
    }

    fn settle_consumer(&mut self, i: usize) {
        for ticket in self.taken[i].drain(..) {
            self.tickets[ticket] = Held::Free;
        }
    }

    /// Steps over gaps, and takes the next message.
    fn take(&mut self) -> Option<(usize, Vec<u8>)> {
        while self.tickets.get(self.head) == Some(&Held::Gap) {
            self.tickets[self.head] = Held::Free;
            self.head += 1;
        }
        let ticket = self.head;
        let Some(Held::Ready(_)) = self.tickets.get(ticket) else {
            return None;
        };
        self.head += 1;
        let Held::Ready(bytes) = std::mem::replace(&mut self.tickets[ticket], Held::Taken) else {
            unreachable!()
        };
        Some((ticket, bytes))
    }
}

fn run_mpmc(slots: usize, wait: WaitStrategy, operations: &[Mpmc]) -> Result<(), TestCaseError> {
    const SIZE: usize = 32;
    let config = mpmc::Config::default()
        .slots(slots as u64)
        .slot_size(SIZE as u64)
        .participants(6)
        .wait(wait);
    let ring = mpmc::Ring::anonymous(config).unwrap();
    let mut tx = [ring.producer().unwrap(), ring.producer().unwrap()];
    let mut rx = [ring.consumer().unwrap(), ring.consumer().unwrap()];
    let mut model = Model {
        slots,
        tickets: Vec::new(),
        head: 0,
        reserved: [None, None],
        taken: [vec![], vec![]],
    };
    let mut closed = false;
    for (number, operation) in operations.iter().enumerate() {
        match *operation {
            Mpmc::Send(i, len) | Mpmc::Commit(i, len) => {
                let message = payload(number, (len as usize).min(SIZE));
                model.settle_producer(i);
                let result = if matches!(operation, Mpmc::Send(..)) {
                    tx[i].try_send(&message)
                } else {
                    tx[i].try_reserve(SIZE).map(|mut slot| {
                        slot.fill(0xff);
                        slot[..message.len()].copy_from_slice(&message);
                        slot.commit_len(message.len());
                    })
                };
                if model.room() > 0 {
                    prop_assert!(result.is_ok(), "{:?}", result);
                    model.tickets.push(Held::Ready(message));
                } else {
                    prop_assert!(matches!(result, Err(SendError::Full)), "{:?}", result);
                }
            }
            Mpmc::Abort(i) | Mpmc::LeakReservation(i) => {
                model.settle_producer(i);
                match tx[i].try_reserve(SIZE) {
                    Ok(mut slot) => {
                        prop_assert!(model.room() > 0);
                        slot.fill(0xff);
                        model.tickets.push(Held::Claimed);
                        let ticket = model.tickets.len() - 1;
                        if matches!(operation, Mpmc::Abort(_)) {
                            drop(slot);
                            model.tickets[ticket] = Held::Gap;
                        } else {
                            std::mem::forget(slot);
                            model.reserved[i] = Some(ticket);
                        }
                    }
                    Err(error) => prop_assert!(
                        matches!(error, SendError::Full) && model.room() == 0,
                        "{error}"
                    ),
                }
            }
            Mpmc::Batch(i, count) => {
                model.settle_producer(i);
                // No more than there is room for: it would wait.
                let count = count.min(model.room());
                let messages: Vec<_> = (0..count).map(|k| payload(number + k, 8 * k)).collect();
                prop_assert!(tx[i].send_batch(&messages).is_ok());
                model.tickets.extend(messages.into_iter().map(Held::Ready));
            }
            Mpmc::Recv(i) | Mpmc::LeakMessage(i) => {
                model.settle_consumer(i);
                match (rx[i].try_recv(), model.take()) {
                    (Ok(message), Some((ticket, expected))) => {
                        prop_assert_eq!(&*message, &expected[..]);
                        prop_assert!(!message.redelivered());
                        if matches!(operation, Mpmc::LeakMessage(_)) {
                            std::mem::forget(message);
                            model.taken[i].push(ticket);
                        } else {
                            model.tickets[ticket] = Held::Free;
                        }
                    }
                    (Err(RecvError::Empty), None) => {}
                    (got, expected) => prop_assert!(false, "{:?} instead of {:?}", got, expected),
                }
            }
            Mpmc::Drain(i, most) => {
                model.settle_consumer(i);
                let mut drain = match rx[i].drain(most) {
                    Ok(drain) => drain,
                    Err(error) => {
                        prop_assert!(
                            matches!(error, RecvError::Empty) && model.take().is_none(),
                            "{error}"
                        );
                        continue;
                    }
                };
                // A run: what stands side by side without a gap.
                let mut got = 0;
                while let Some(message) = drain.next_message().unwrap() {
                    let (ticket, expected) = model.take().expect("in the model, too");
                    prop_assert_eq!(message, &expected[..]);
                    model.tickets[ticket] = Held::Free;
                    got += 1;
                }
                prop_assert!(
                    got <= most && (got > 0 || model.take().is_none()),
                    "{got} of {most}"
                );
            }
            Mpmc::NewProducer(i) => {
                model.settle_producer(i);
                tx[i] = ring.producer().unwrap();
            }
            Mpmc::NewConsumer(i) => {
                model.settle_consumer(i);
                rx[i] = ring.consumer().unwrap();
            }
            Mpmc::Close => {
                model.settle_producer(0);
                tx[0].close().unwrap();
                closed = true;
                prop_assert!(matches!(tx[0].try_send(b"late"), Err(SendError::Closed)));
            }
        }
    }
    for i in 0..2 {
        model.settle_producer(i);
        model.settle_consumer(i);
    }
    drop(tx);
    let [mut rx, other] = rx;
    drop(other);
    while let Some((_, expected)) = model.take() {
        let message = rx.recv_timeout(Duration::from_secs(60));
        prop_assert_eq!(&*message.unwrap(), &expected[..]);
    }
    let end = rx.recv_timeout(Duration::from_secs(60));
    prop_assert!(matches!(end, Err(RecvError::Closed)), "{:?}", end);
    drop(end);
    if !closed {
        let mut tx = ring.producer().unwrap();
        for number in 0..slots {
            prop_assert!(
                tx.send_timeout(&payload(number, 5), Duration::from_secs(60))
                    .is_ok()
            );
        }
        prop_assert!(matches!(tx.try_send(b"one more"), Err(SendError::Full)));
    }
    Ok(())
}

#[test]
fn an_mpmc_ring_does_what_a_queue_does() {
    let _watchdog = watchdog(limit());
    let config = ProptestConfig {
        cases: times(256),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let slots = proptest::sample::select(&[2usize, 4, 16][..]);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(
            &(slots, strategies(), mpmc_operations()),
            |(slots, wait, operations)| run_mpmc(slots, wait, &operations),
        )
        .unwrap();
}

/// What a single thread can do with two producers and two consumers of a ring of items.
#[derive(Clone, Debug)]
enum Items {
    Send(usize),
    Recv(usize),
    NewProducer(usize),
    NewConsumer(usize),
}

fn run_items(slots: usize, wait: WaitStrategy, operations: &[Items]) -> Result<(), TestCaseError> {
    let config = mpmc::Config::default()
        .slots(slots as u64)
        .participants(6)
        .wait(wait);
    let ring = mpmc::items::Ring::anonymous(config).unwrap();
    let mut tx = [ring.producer().unwrap(), ring.producer().unwrap()];
    let mut rx = [ring.consumer().unwrap(), ring.consumer().unwrap()];
    let mut model: VecDeque<u64> = VecDeque::new();
    for (item, operation) in (0..).zip(operations) {
        match *operation {
            Items::Send(i) => match tx[i].try_send(item) {
                Ok(()) => {
                    prop_assert!(model.len() < slots);
                    model.push_back(item);
                }
                Err(SendError::Full) => prop_assert_eq!(model.len(), slots),
                Err(error) => prop_assert!(false, "{}", error),
            },
            Items::Recv(i) => match rx[i].try_recv() {
                Ok(item) => prop_assert_eq!(Some(item), model.pop_front()),
                Err(RecvError::Empty) => prop_assert!(model.is_empty()),
                Err(error) => prop_assert!(false, "{}", error),
            },
            Items::NewProducer(i) => tx[i] = ring.producer().unwrap(),
            Items::NewConsumer(i) => rx[i] = ring.consumer().unwrap(),
        }
    }
    tx[0].close().unwrap();
    prop_assert!(matches!(tx[1].try_send(0), Err(SendError::Closed)));
    for item in model {
        prop_assert_eq!(rx[0].try_recv().unwrap(), item);
    }
    prop_assert!(matches!(rx[1].try_recv(), Err(RecvError::Closed)));
    Ok(())
}

#[test]
fn a_ring_of_items_does_what_a_queue_does() {
    let _watchdog = watchdog(limit());
    let config = ProptestConfig {
        cases: times(256),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let operation = prop_oneof![
        8 => (0usize..2).prop_map(Items::Send),
        8 => (0usize..2).prop_map(Items::Recv),
        1 => (0usize..2).prop_map(Items::NewProducer),
        1 => (0usize..2).prop_map(Items::NewConsumer),
    ];
    let slots = proptest::sample::select(&[2usize, 4, 16][..]);
    let operations = prop::collection::vec(operation, 1..200);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(
            &(slots, strategies(), operations),
            |(slots, wait, operations)| run_items(slots, wait, &operations),
        )
        .unwrap();
}

/// One operation as a process saw it: when it began and ended, in nanoseconds of the clock that all
/// processes share, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Event {
    began: u64,
    ended: u64,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Sent(u64),
    Received(u64),
    /// A consumer was told that there is nothing.
    Empty,
}

fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is writable.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    assert_eq!(result, 0);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn timed<R>(f: impl FnOnce() -> R) -> (u64, R, u64) {
    let began = now();
    let result = f();
    (began, result, now())
}

/// Whether the history is one of a queue, whose values are all different: the conditions of Henzinger,
/// Sezgin and Vafeiadis, for which no search is needed. "Empty" is excused while a send is under way: its
/// claim may stand in front of messages that were sent after it began.
fn is_a_queues(history: &[Event]) -> Result<(), String> {
    let mut sends = std::collections::HashMap::new();
    let mut receives = std::collections::HashMap::new();
    for event in history {
        match event.what {
            What::Sent(value) => drop(sends.insert(value, *event)),
            What::Received(value) => {
                if receives.insert(value, *event).is_some() {
                    return Err(format!("{value} came twice"));
                }
            }
            What::Empty => {}
        }
    }
    for (value, receive) in &receives {
        match sends.get(value) {
            None => return Err(format!("{value} was never sent")),
            Some(send) if receive.ended < send.began => {
                return Err(format!("{value} came before it was sent"));
            }
            Some(_) => {}
        }
    }
    if let Some(value) = sends.keys().find(|value| !receives.contains_key(value)) {
        return Err(format!("{value} is lost"));
    }
    // Of two values the one whose send had ended before the other's began is received first, or at the
    // same time.
    let mut by_end: Vec<(&Event, &Event)> = sends
        .iter()
        .map(|(value, send)| (send, &receives[value]))
        .collect();
    by_end.sort_by_key(|(send, _)| send.ended);
    let mut by_begin = by_end.clone();
    by_begin.sort_by_key(|(send, _)| send.began);
    let (mut earlier, mut latest) = (by_end.iter().peekable(), 0);
    for (send, receive) in by_begin {
        while let Some((_, other)) = earlier.next_if(|(other, _)| other.ended < send.began) {
            latest = latest.max(other.began);
        }
        if receive.ended < latest {
            return Err(format!("{:?} overtook what was sent before", receive.what));
        }
    }
    // Nobody is told "empty" while all the time something is certainly there, and nobody is sending.
    let mut spans: Vec<(u64, u64)> = Vec::new();
    for (value, send) in &sends {
        if send.ended < receives[value].began {
            spans.push((send.ended, receives[value].began));
        }
    }
    spans.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (from, to) in spans {
        match merged.last_mut() {
            Some(last) if from < last.1 => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    let mut sending: Vec<(u64, u64)> = sends
        .values()
        .map(|send| (send.began, send.ended))
        .collect();
    sending.sort_unstable();
    for event in history.iter().filter(|event| event.what == What::Empty) {
        let at = merged.partition_point(|span| span.0 < event.began);
        let covered = at > 0 && merged[at - 1].1 > event.ended;
        let excused = sending
            .iter()
            .any(|send| send.0 <= event.ended && event.began <= send.1);
        if covered && !excused {
            return Err(format!("told that there is nothing: {event:?}"));
        }
    }
    Ok(())
}

/// Makes a ring of messages, or of items, and attends, so that nobody sees it without a peer before all are there;
/// what is returned closes it.
fn hold(kind: &str, name: &str, config: mpmc::Config) -> Box<dyn FnOnce()> {
    if kind == "items" {
        let ring = mpmc::items::create(name, config).unwrap();
        let (mut tx, rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
        Box::new(move || drop((tx.close().unwrap(), rx)))
    } else {
        let ring = mpmc::create(name, config).unwrap();
        let (mut tx, rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
        Box::new(move || drop((tx.close().unwrap(), rx)))
    }
}

/// Sends to one.
fn sender(kind: &str, name: &str) -> Box<dyn FnMut(u64) -> Result<(), SendError>> {
    if kind == "items" {
        let mut tx = mpmc::items::attach(name).unwrap().producer().unwrap();
        Box::new(move |value| tx.send(value))
    } else {
        let mut tx = mpmc::attach(name).unwrap().producer().unwrap();
        Box::new(move |value| tx.send(&value.to_le_bytes()))
    }
}

/// Receives from one.
fn receiver(kind: &str, name: &str) -> Box<dyn FnMut() -> Result<u64, RecvError>> {
    if kind == "items" {
        let mut rx = mpmc::items::attach(name).unwrap().consumer().unwrap();
        Box::new(move || rx.try_recv())
    } else {
        let mut rx = mpmc::attach(name).unwrap().consumer().unwrap();
        Box::new(move || {
            let message = rx.try_recv()?;
            Ok(u64::from_le_bytes((*message).try_into().unwrap()))
        })
    }
}

/// What [`child`] runs: sends, or receives, and prints what it saw.
#[test]
fn history_process() {
    let Some(task) = task() else { return };
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).unwrap();
    let words: Vec<&str> = task.split(' ').collect();
    let (kind, name) = words[1].split_once('/').unwrap();
    let (id, count): (u64, u64) = (words[2].parse().unwrap(), words[3].parse().unwrap());
    let mut random = Random(id);
    let mut history = Vec::new();
    let pause = |random: &mut Random| (0..random.below(200)).for_each(|_| std::hint::spin_loop());
    if words[0] == "send" {
        let mut send = sender(kind, name);
        for value in id << 32..(id << 32) + count {
            pause(&mut random);
            let (began, result, ended) = timed(|| send(value));
            result.unwrap();
            history.push(Event {
                began,
                ended,
                what: What::Sent(value),
            });
        }
    } else {
        let mut receive = receiver(kind, name);
        loop {
            pause(&mut random);
            let (began, result, ended) = timed(&mut receive);
            let what = match result {
                Ok(value) => What::Received(value),
                Err(RecvError::Empty) => What::Empty,
                Err(RecvError::Closed) => break,
                Err(error) => panic!("{error}"),
            };
            // Of looks in vain one in a row is enough.
            if what != What::Empty
                || history
                    .last()
                    .is_none_or(|last: &Event| last.what != What::Empty)
            {
                history.push(Event { began, ended, what });
            } else {
                std::thread::yield_now();
            }
        }
    }
    let mut out = std::io::BufWriter::new(std::fs::File::create(words[4]).unwrap());
    for Event { began, ended, what } in history {
        let (kind, value) = match what {
            What::Sent(value) => ('s', value),
            What::Received(value) => ('r', value),
            What::Empty => ('e', 0),
        };
        writeln!(out, "{began} {ended} {kind} {value}").unwrap();
    }
}

fn read(path: &std::path::Path) -> Vec<Event> {
    std::io::BufReader::new(std::fs::File::open(path).unwrap())
        .lines()
        .map(|line| {
            let line = line.unwrap();
            let words: Vec<&str> = line.split(' ').collect();
            let value = words[3].parse().unwrap();
            let what = match words[2] {
                "s" => What::Sent(value),
                "r" => What::Received(value),
                _ => What::Empty,
            };
            Event {
                began: words[0].parse().unwrap(),
                ended: words[1].parse().unwrap(),
                what,
            }
        })
        .collect()
}

#[test]
fn histories_of_processes_are_those_of_a_queue() {
    let _watchdog = watchdog(limit());
    let folder = tempfile::tempdir().unwrap();
    let (mut histories, mut events) = (0, 0);
    // Event descriptors have no name by which other processes could find them.
    let named = WaitStrategy::ALL.map(|wait| (wait != WaitStrategy::EventFd).then_some(wait));
    let named: Vec<WaitStrategy> = named.into_iter().flatten().collect();
    for round in 0..u64::from(times(4).min(300)) {
        let name = format!("test-history-{}-{round}", std::process::id());
        let kind = ["messages", "items"][round as usize % 2];
        let wait = named[(round / 2 + round) as usize % named.len()];
        let slots = [4, 64, 1024][round as usize % 3];
        let config = mpmc::Config::default().slots(slots).slot_size(8).wait(wait);
        let close = hold(kind, &name, config);
        let mut files = Vec::new();
        let mut start = |role: &str, id: u64| {
            let file = folder.path().join(format!("{round}-{role}-{id}"));
            let task = format!("{role} {kind}/{name} {id} 2000 {}", file.display());
            files.push(file);
            let mut command = child("history_process", &task);
            Reaped(command.stdout(std::process::Stdio::null()).spawn().unwrap())
        };
        let receivers = [1, 2].map(|id| start("recv", 10 * round + id));
        let senders = [3, 4].map(|id| start("send", 10 * round + id));
        for mut sender in senders {
            assert!(sender.0.wait().unwrap().success());
        }
        close();
        for mut receiver in receivers {
            assert!(receiver.0.wait().unwrap().success());
        }
        let history: Vec<Event> = files.iter().flat_map(|file| read(file)).collect();
        is_a_queues(&history)
            .unwrap_or_else(|why| panic!("round {round}, {kind}, {wait}, {slots} slots: {why}"));
        histories += 1;
        events += history.len();
    }
    println!("{histories} histories, {events} operations");
}

#[test]
fn histories_that_no_queue_has_are_told_from_others() {
    let event = |began, ended, what| Event { began, ended, what };
    let good = [
        event(0, 1, What::Sent(1)),
        event(2, 3, What::Sent(2)),
        event(4, 5, What::Received(1)),
        event(6, 7, What::Received(2)),
        event(8, 9, What::Empty),
    ];
    assert_eq!(is_a_queues(&good), Ok(()));
    // Each of these has one thing wrong.
    let mut overtaken = good;
    (overtaken[2].what, overtaken[3].what) = (What::Received(2), What::Received(1));
    let mut twice = good;
    twice[3].what = What::Received(1);
    let mut invented = good;
    invented[3].what = What::Received(3);
    let mut empty = good;
    empty[4] = event(3, 4, What::Empty);
    empty[1].ended = 2;
    for bad in [&overtaken[..], &twice, &invented, &empty, &good[..3]] {
        assert!(is_a_queues(bad).is_err(), "{bad:?}");
    }
    // While somebody sends, "empty" is excused.
    let mut excused = empty;
    excused[1].ended = 5;
    assert_eq!(is_a_queues(&excused), Ok(()));
}
