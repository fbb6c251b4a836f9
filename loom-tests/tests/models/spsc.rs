// The models of the SPSC ring, for the algorithm in `super::algorithm`: the real one, or a mutant.
//
// Lines of 16 bytes and areas of 64 or 128, so that everything wraps; two threads; preemptions bounded
// by `LOOM_MAX_PREEMPTIONS`, 3 unless told. Payload is accessed plainly, headers atomically, in the same
// words: an access to a header that is still payload, or to payload that is not one's own, fails.

use super::algorithm::*;
use crate::harness::{deaths, executions, say};
use crate::primitive::{AtomicU64, Data, Ordering, full_fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

struct Ring {
    control: Control,
    area: Vec<AtomicU64>,
    consumer: Futex,
    producer: Futex,
}

/// The kernel's futex: compares the low half under its lock, wakes under its lock.
struct Futex(Mutex<()>, Condvar);

impl Futex {
    fn new() -> Futex {
        Futex(Mutex::new(()), Condvar::new())
    }

    fn sleep(&self, word: &AtomicU64, expected: u64) {
        let guard = self.0.lock().unwrap();
        if word.load(Ordering::Relaxed) as u32 == expected as u32 {
            drop(self.1.wait(guard).unwrap());
        }
    }

    fn wake(&self) {
        let _guard = self.0.lock().unwrap();
        self.1.notify_one();
    }
}

impl Ring {
    fn new(capacity: u64) -> Arc<Ring> {
        Arc::new(Ring {
            control: Control::new(),
            area: (0..capacity / 8).map(|_| AtomicU64::new(0)).collect(),
            consumer: Futex::new(),
            producer: Futex::new(),
        })
    }
}

/// One side, with the ring that it borrows from.
struct Producer {
    tx: Tx<'static>,
    ring: Arc<Ring>,
}

struct Consumer {
    rx: Rx<'static>,
    ring: Arc<Ring>,
}

const PARKING: Manner = Manner {
    parks: true,
    rarely: false,
    touch: false,
    fences: true,
};
/// Sides that sleep rarely take part in the barrier of the one that does, instead of fencing.
const RARELY: Manner = Manner {
    rarely: true,
    fences: false,
    ..PARKING
};
/// Where one cannot take part.
const RARELY_FENCED: Manner = Manner {
    rarely: true,
    ..PARKING
};
const SPINNING: Manner = Manner {
    parks: false,
    ..PARKING
};

/// Of a consumer: one for both sides.
fn barrier() -> bool {
    full_fence();
    true
}

/// The ring for as long as the process lives, as far as the borrow checker is concerned.
fn borrow(ring: &Arc<Ring>) -> &'static Ring {
    // SAFETY: whoever holds the reference holds the `Arc` beside it.
    unsafe { &*std::ptr::from_ref::<Ring>(ring) }
}

impl Producer {
    fn new(ring: &Arc<Ring>, manner: Manner) -> Producer {
        let held = borrow(ring);
        Producer {
            tx: Tx::resume(&held.control, Data(&held.area), manner).expect("resume"),
            ring: ring.clone(),
        }
    }

    fn notify(&self, notify: Notify) {
        if notify == Notify::Peer && self.tx.takes_the_mark() {
            self.ring.consumer.wake();
        }
    }

    /// The short path, or else the long one, as the handle does.
    fn send_once(&mut self, words: &[u64]) -> Result<Notify, Refused> {
        let message = bytes(words);
        match self.tx.send_at_once(&message, 0) {
            Some(notify) => Ok(notify),
            None => self.tx.try_send(&message, 0),
        }
    }

    fn stage(&mut self, words: &[u64]) {
        let message = bytes(words);
        if !self.tx.run(1 << 20).stage(&message) {
            self.tx.stage(&message).expect("room");
        }
    }

    /// Whether there was room.
    fn try_send(&mut self, words: &[u64]) -> bool {
        match self.send_once(words) {
            Ok(notify) => {
                self.notify(notify);
                true
            }
            Err(Refused::Full) => false,
            Err(Refused::Corrupt(corrupt)) => panic!("{corrupt:?}"),
        }
    }

    fn send(&mut self, words: &[u64]) {
        while !self.try_send(words) {
            let len = words.len() as u64 * 8;
            if let Some(expected) = self.tx.announce(len, full_fence).expect("announce") {
                self.ring.producer.sleep(self.tx.sleeping_word(), expected);
            }
        }
    }

    /// A reservation all of which is dirtied with what would be taken for headers.
    fn reserve(&mut self, words: u64) -> Place {
        let place = self.tx.reserve(words * 8).expect("room");
        // SAFETY: loom checks.
        unsafe {
            self.tx
                .data()
                .copy_in(place.payload(), &bytes(&vec![GARBAGE; words as usize]))
        };
        place
    }
}

/// Looks like the header of a message of 8 bytes.
const GARBAGE: u64 = 8 << 32 | COMMITTED;

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn read(data: Data<'_>, payload: u64, len: u64) -> Vec<u64> {
    let mut bytes = vec![0; len as usize];
    // SAFETY: loom checks.
    unsafe { data.copy_out(payload, &mut bytes) };
    bytes
        .chunks(8)
        .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
        .collect()
}

#[derive(Debug, PartialEq, Eq)]
enum Got {
    Message(Vec<u64>, bool),
    Empty,
    Closed,
}

impl Consumer {
    fn new(ring: &Arc<Ring>, manner: Manner) -> Consumer {
        let held = borrow(ring);
        Consumer {
            rx: Rx::resume(&held.control, Data(&held.area), manner).expect("resume"),
            ring: ring.clone(),
        }
    }

    /// Takes the next message and reads it: by a short path (that of a drain, if it is not the first), or
    /// else the long one.
    fn take(&mut self) -> Got {
        let short = match self.rx.is_open() {
            true => {
                let mut walk = self.rx.walk();
                self.rx.take_on(&mut walk)
            }
            false => self.rx.take_at_once(),
        };
        if let Some((payload, len)) = short {
            return Got::Message(read(self.rx.data(), payload, len), false);
        }
        match self.rx.take().expect("honest peers") {
            Next::Message(record) => Got::Message(
                read(self.rx.data(), record.payload, record.len),
                record.flags & AGAIN != 0,
            ),
            Next::Empty => {
                self.rx.rest();
                Got::Empty
            }
            Next::Closed => Got::Closed,
        }
    }

    fn acknowledge(&mut self) {
        if self.rx.acknowledge() == Notify::Peer {
            self.ring.producer.wake();
        }
    }

    /// Takes a message, if there is one, and gives it back: by one short path or the other, or the long one.
    fn try_recv(&mut self) -> Option<Vec<u64>> {
        let passed = match self.rx.position() & 16 {
            0 => None,
            _ => self.rx.passage().next(),
        };
        if let Some((payload, len)) = passed {
            let words = read(self.rx.data(), payload, len);
            self.acknowledge();
            return Some(words);
        }
        let mut message = None;
        let consumed = self.rx.consume_at_once(|data, payload, len| {
            message = Some(read(data, payload, len));
            true
        });
        if let Some(notify) = consumed {
            if notify == Notify::Peer {
                self.ring.producer.wake();
            }
            return message;
        }
        match self.take() {
            Got::Message(words, _) => {
                self.acknowledge();
                Some(words)
            }
            _ => None,
        }
    }

    /// Waits for a message, or for the end.
    fn recv(&mut self) -> Option<Vec<u64>> {
        loop {
            match self.take() {
                Got::Message(words, _) => {
                    self.acknowledge();
                    return Some(words);
                }
                Got::Closed => return None,
                Got::Empty => {
                    if let Some(expected) = self.rx.announce(barrier).expect("announce") {
                        self.ring.consumer.sleep(self.rx.sleeping_word(), expected);
                    }
                }
            }
        }
    }

    /// Everything that is there.
    fn drain(&mut self) -> Vec<Vec<u64>> {
        std::iter::from_fn(|| self.try_recv()).collect()
    }
}

/// A ring whose cursors are at `start`, and whose area is full of old payload as far as it goes.
fn ring_at(capacity: u64, start: u64, manner: Manner) -> (Producer, Consumer) {
    let ring = Ring::new(capacity);
    let mut producer = Producer::new(&ring, manner);
    let mut consumer = Consumer::new(&ring, manner);
    while producer.tx.position() + 16 <= start {
        assert!(producer.try_send(&[GARBAGE]));
        assert_eq!(consumer.try_recv(), Some(vec![GARBAGE]));
    }
    if producer.tx.position() < start {
        assert!(producer.try_send(&[]));
        assert_eq!(consumer.try_recv(), Some(vec![]));
    }
    assert_eq!(producer.tx.position(), start);
    (producer, consumer)
}

/// Messages with values 1, 2, …, one word each, so far as they are there.
fn are_in_order(received: &[Vec<u64>], sent: u64) {
    let expected: Vec<_> = (1..=sent).map(|value| vec![value]).collect();
    assert_eq!(received, expected);
}

fn commit_and_wrap(name: &str, manner: Manner) {
    // The first message is padded, the second, the third, and none but in the middle of a line.
    for start in [56, 40, 32, 8] {
        let count = executions(move || {
            let (mut producer, mut consumer) = ring_at(64, start, manner);
            let sending = thread::spawn(move || {
                let mut sent = 0;
                for _ in 0..4 {
                    sent += u64::from(producer.try_send(&[sent + 1]));
                }
                (producer, sent)
            });
            let mut received: Vec<_> = (0..3).filter_map(|_| consumer.try_recv()).collect();
            let (mut producer, mut sent) = sending.join().unwrap();
            received.extend(consumer.drain());
            are_in_order(&received, sent);
            // And it still works.
            sent += u64::from(producer.try_send(&[sent + 1]));
            received.extend(consumer.drain());
            are_in_order(&received, sent);
        });
        say(&format!("{name} from {start}"), count);
    }
}

pub(crate) fn commit_and_wrap_parking() {
    commit_and_wrap("commit_and_wrap_parking", PARKING);
}

pub(crate) fn commit_and_wrap_spinning() {
    commit_and_wrap("commit_and_wrap_spinning", SPINNING);
}

pub(crate) fn a_batch_is_seen_whole() {
    // Without padding; with padding before the second; and before the first.
    for (start, manner) in [
        (64, PARKING),
        (104, PARKING),
        (120, PARKING),
        (104, SPINNING),
    ] {
        let count = executions(move || {
            let (mut producer, mut consumer) = ring_at(128, start, manner);
            let sending = thread::spawn(move || {
                for value in 1..=3 {
                    producer.stage(&[value]);
                }
                let notify = producer.tx.publish();
                producer.notify(notify);
                producer.try_send(&[4]);
            });
            let mut received = Vec::new();
            for _ in 0..2 {
                if let Some(first) = consumer.try_recv() {
                    received.push(first);
                    while received.len() < 3 {
                        received.push(consumer.try_recv().expect("the whole batch is there"));
                    }
                }
            }
            sending.join().unwrap();
            received.extend(consumer.drain());
            are_in_order(&received, 4);
        });
        say(&format!("a_batch_is_seen_whole from {start}"), count);
    }
}

pub(crate) fn nothing_of_an_aborted_or_cut_message_is_seen() {
    for (start, manner) in [(16, PARKING), (24, PARKING), (88, PARKING), (24, SPINNING)] {
        let count = executions(move || {
            let (mut producer, mut consumer) = ring_at(128, start, manner);
            let sending = thread::spawn(move || {
                let place = producer.reserve(4);
                // SAFETY: loom checks.
                unsafe { producer.tx.data().copy_in(place.payload(), &bytes(&[1])) };
                let notify = producer.tx.commit(place, 8, 0);
                producer.notify(notify);
                let _aborted = producer.reserve(5);
                producer.try_send(&[2]);
                producer
            });
            let mut received: Vec<_> = (0..2).filter_map(|_| consumer.try_recv()).collect();
            let mut producer = sending.join().unwrap();
            received.extend(consumer.drain());
            are_in_order(&received, 2);
            // Round once more, over what was dirtied.
            for value in 3..12 {
                assert!(producer.try_send(&[value]));
                received.extend(consumer.drain());
            }
            are_in_order(&received, 11);
        });
        say(&format!("aborted_or_cut from {start}"), count);
    }
}

pub(crate) fn room_that_was_given_back_is_found() {
    for manner in [PARKING, SPINNING] {
        let count = executions(move || {
            let (mut producer, mut consumer) = ring_at(64, 0, manner);
            assert!(producer.try_send(&[1]));
            assert!(producer.try_send(&[2]));
            assert!(!producer.try_send(&[3]), "full");
            let sending = thread::spawn(move || {
                let mut sent = 2;
                for _ in 0..3 {
                    let seen = producer.tx.has_room_lazily(8).expect("honest peers")
                        || producer.tx.has_room(8).expect("honest peers");
                    let done = producer.try_send(&[sent + 1]);
                    assert!(done || !seen, "there was room before");
                    sent += u64::from(done);
                }
                (producer, sent)
            });
            let mut received: Vec<_> = (0..2).map(|_| consumer.try_recv().unwrap()).collect();
            let (mut producer, mut sent) = sending.join().unwrap();
            // All the room acknowledged is seen, exactly, however lazily `head` is published.
            while sent < 4 {
                sent += 1;
                assert!(producer.try_send(&[sent]), "acknowledged, but not found");
            }
            received.extend(consumer.drain());
            are_in_order(&received, sent);
        });
        say("room_that_was_given_back_is_found", count);
    }
}

pub(crate) fn a_long_message_is_read_before_it_is_overwritten() {
    for manner in [PARKING, SPINNING] {
        let count = executions(move || {
            let (mut producer, mut consumer) = ring_at(128, 32, manner);
            assert!(producer.try_send(&[1; 5]));
            assert!(producer.try_send(&[2; 5]));
            let sending = thread::spawn(move || {
                let sent = (0..2).any(|_| producer.try_send(&[3; 5]));
                (producer, sent)
            });
            let mut received: Vec<_> = (0..2).filter_map(|_| consumer.try_recv()).collect();
            let (mut producer, sent) = sending.join().unwrap();
            assert!(sent || producer.try_send(&[3; 5]));
            received.extend(consumer.drain());
            assert_eq!(received, [[1; 5], [2; 5], [3; 5]]);
        });
        say("a_long_message_is_read_before_it_is_overwritten", count);
    }
}

pub(crate) fn a_sleeping_consumer_is_woken() {
    for (start, manner) in [
        (0, PARKING),
        (8, PARKING),
        (56, PARKING),
        (8, RARELY),
        (56, RARELY),
        (8, RARELY_FENCED),
    ] {
        let count = executions(move || {
            let (mut producer, mut consumer) = ring_at(64, start, manner);
            let sending = thread::spawn(move || {
                assert!(producer.try_send(&[1]));
                producer.send(&[2]);
            });
            let received: Vec<_> = (0..2).filter_map(|_| consumer.recv()).collect();
            sending.join().unwrap();
            are_in_order(&received, 2);
        });
        say(&format!("a_sleeping_consumer_is_woken from {start}"), count);
    }
}

pub(crate) fn a_sleeping_producer_is_woken() {
    for manner in [PARKING, RARELY] {
        let count = executions(move || {
            let (mut producer, mut consumer) = ring_at(64, 0, manner);
            assert!(producer.try_send(&[1]));
            assert!(producer.try_send(&[2]));
            let sending = thread::spawn(move || {
                producer.send(&[3]);
                producer.send(&[4]);
            });
            let mut received: Vec<_> = (0..2).filter_map(|_| consumer.try_recv()).collect();
            sending.join().unwrap();
            received.extend(consumer.drain());
            are_in_order(&received, 4);
        });
        say("a_sleeping_producer_is_woken", count);
    }
}

pub(crate) fn both_sides_sleep() {
    for (start, manner) in [(0, PARKING), (40, PARKING), (0, RARELY), (40, RARELY)] {
        let count = executions(move || {
            let (mut producer, mut consumer) = ring_at(64, start, manner);
            let sending = thread::spawn(move || {
                (1..=3).for_each(|value| producer.send(&[value]));
            });
            let received: Vec<_> = (0..3).filter_map(|_| consumer.recv()).collect();
            sending.join().unwrap();
            are_in_order(&received, 3);
        });
        say(&format!("both_sides_sleep from {start}"), count);
    }
}

pub(crate) fn closing_is_seen_after_the_last_message() {
    for manner in [PARKING, RARELY] {
        let count = executions(move || {
            let (mut producer, mut consumer) = ring_at(64, 40, manner);
            let sending = thread::spawn(move || {
                producer.send(&[1]);
                let notify = producer.tx.close();
                producer.notify(notify);
            });
            let received: Vec<_> = std::iter::from_fn(|| consumer.recv()).collect();
            sending.join().unwrap();
            are_in_order(&received, 1);
        });
        say("closing_is_seen_after_the_last_message", count);
    }
}

pub(crate) fn a_closed_ring_is_reopened() {
    for manner in [PARKING, RARELY, SPINNING] {
        let count = executions(move || {
            let (mut producer, mut consumer) = ring_at(64, 40, manner);
            let sending = thread::spawn(move || {
                assert!(producer.try_send(&[1]));
                let _ = producer.tx.close();
                let mut producer = Producer::new(&producer.ring, manner);
                producer.try_send(&[2])
            });
            let mut received: Vec<_> = (0..3).filter_map(|_| consumer.try_recv()).collect();
            let sent = 1 + u64::from(sending.join().unwrap());
            received.extend(consumer.drain());
            are_in_order(&received, sent);
        });
        say("a_closed_ring_is_reopened", count);
    }
}

pub(crate) fn touched_lines_are_the_consumers() {
    let manner = Manner {
        touch: true,
        ..RARELY
    };
    // The streak is long from the start.
    for start in [136, 160, 168] {
        let count = executions(move || {
            let (mut producer, mut consumer) = ring_at(64, start, manner);
            assert!(producer.try_send(&[1]));
            let sending = thread::spawn(move || {
                let mut sent = 1;
                for _ in 0..4 {
                    sent += u64::from(producer.try_send(&[sent + 1]));
                }
                sent
            });
            let mut received: Vec<_> = (0..2).filter_map(|_| consumer.try_recv()).collect();
            let sent = sending.join().unwrap();
            received.extend(consumer.drain());
            are_in_order(&received, sent);
        });
        say(
            &format!("touched_lines_are_the_consumers from {start}"),
            count,
        );
    }
}

/// A producer dies after each visible step of `last`, at the latest after all of it, which would have
/// sent `count` messages; its successor goes on. The consumer runs meanwhile, and may fall asleep.
fn producer_dies(
    name: &str,
    (capacity, start, manner): (u64, u64, Manner),
    count: u64,
    last: impl Fn(&mut Producer) + Send + Sync + Copy + 'static,
) {
    deaths(name, move |mortal| {
        let (mut producer, mut consumer) = ring_at(capacity, start, manner);
        let mortal = mortal.clone();
        let dying = thread::spawn(move || {
            mortal.run(|| last(&mut producer));
            // On this thread: proof of the death orders what the dead one did.
            let mut successor = Producer::new(&producer.ring, manner);
            let from = successor.tx.position();
            let woke = successor.send_once(&[]);
            if let Err(Refused::Corrupt(corrupt)) = woke {
                panic!("{corrupt:?}");
            }
            (successor, from, woke)
        });
        let mut received = Vec::new();
        let mut asleep = None;
        for _ in 0..2 {
            match consumer.take() {
                Got::Message(words, redelivered) => {
                    assert!(!redelivered);
                    consumer.acknowledge();
                    received.push(words);
                }
                Got::Empty => {
                    let there = consumer.rx.announce(barrier).expect("announce");
                    if there.is_some() {
                        // The record goes behind this position; padding is before it.
                        asleep = Some(received.len());
                        break;
                    }
                }
                Got::Closed => {}
            }
        }
        let (mut successor, from, woke) = dying.join().unwrap();
        // Closing may have taken the mark away, and died before it woke.
        // (Where sleeping is rare, the successor takes all marks away and wakes: see
        // `a_consumer_asleep_beside_the_dead_is_woken`.)
        let marked = !manner.rarely && asleep == Some(0);
        if marked && from == start && woke.is_ok() && count > 0 {
            assert_eq!(woke, Ok(Notify::Peer), "the successor lost a sleeper");
        }
        received.extend(consumer.drain());
        if woke.is_err() {
            assert!(successor.try_send(&[]), "room is lost");
            received.extend(consumer.drain());
        }
        assert_eq!(received.pop(), Some(vec![]));
        let survived = received.len() as u64;
        assert!(survived == 0 || survived == count, "a part was published");
        assert_eq!(survived == 0, from == start);
        are_in_order(&received, survived);
        // Once round the ring: nothing that the dead one left comes to life.
        for value in 0..capacity / 8 {
            assert!(successor.try_send(&[value]));
            assert_eq!(consumer.drain(), [[value]]);
        }
    });
}

pub(crate) fn a_producer_that_died_sending_is_succeeded() {
    for manner in [PARKING, RARELY] {
        producer_dies(
            "a_producer_that_died_sending",
            (64, 16, manner),
            1,
            |producer| assert!(producer.try_send(&[1])),
        );
    }
}

pub(crate) fn a_producer_that_died_wrapping_is_succeeded() {
    producer_dies(
        "a_producer_that_died_wrapping",
        (64, 56, PARKING),
        1,
        |producer| {
            assert!(producer.try_send(&[1]));
        },
    );
}

pub(crate) fn a_producer_that_died_in_a_batch_is_succeeded() {
    producer_dies(
        "a_producer_that_died_in_a_batch",
        (128, 104, PARKING),
        2,
        |producer| {
            producer.stage(&[1]);
            producer.stage(&[2]);
            let _ = producer.tx.publish();
        },
    );
}

pub(crate) fn a_producer_that_died_in_a_reservation_is_succeeded() {
    producer_dies(
        "a_producer_that_died_in_a_reservation",
        (128, 64, PARKING),
        1,
        |producer| {
            let place = producer.reserve(3);
            // SAFETY: loom checks.
            unsafe { producer.tx.data().copy_in(place.payload(), &bytes(&[1])) };
            let _ = producer.tx.commit(place, 8, 0);
        },
    );
}

pub(crate) fn a_producer_that_died_closing_is_succeeded() {
    for manner in [PARKING, RARELY] {
        producer_dies(
            "a_producer_that_died_closing",
            (64, 40, manner),
            0,
            |producer| {
                let _ = producer.reserve(1);
                let _ = producer.tx.close();
            },
        );
    }
}

/// A producer dies after each visible step of sending a message to a consumer that is going to sleep. Its successor
/// wakes, as the handle does, and sends only what the dead one did not.
pub(crate) fn a_consumer_asleep_beside_the_dead_is_woken() {
    for manner in [PARKING, RARELY] {
        deaths("a_consumer_asleep_beside_the_dead", move |mortal| {
            let (mut producer, mut consumer) = ring_at(64, 16, manner);
            let mortal = mortal.clone();
            let dying = thread::spawn(move || {
                mortal.run(|| assert!(producer.try_send(&[1])));
                let mut successor = Producer::new(&producer.ring, manner);
                successor.ring.consumer.wake();
                if successor.tx.position() == 16 {
                    assert!(successor.try_send(&[1]));
                }
            });
            assert_eq!(consumer.recv(), Some(vec![1]));
            dying.join().unwrap();
        });
    }
}

/// A consumer dies after each visible step of going to sleep; its successor goes to sleep, too, and is woken.
pub(crate) fn one_who_sleeps_in_the_place_of_the_dead_is_woken() {
    deaths("one_who_sleeps_in_the_place_of_the_dead", |mortal| {
        let (mut producer, mut consumer) = ring_at(64, 16, RARELY);
        let sending = thread::spawn(move || assert!(producer.try_send(&[1])));
        mortal.run(|| {
            let _ = consumer.rx.announce(barrier).expect("announce");
        });
        let mut successor = Consumer::new(&consumer.ring, RARELY);
        assert_eq!(successor.recv(), Some(vec![1]));
        sending.join().unwrap();
    });
}

/// The consumer dies after each visible step of taking, reading and acknowledging two messages; its
/// successor goes on. The producer runs meanwhile.
pub(crate) fn a_consumer_that_died_is_succeeded() {
    deaths("a_consumer_that_died", |mortal| {
        let (mut producer, mut consumer) = ring_at(64, 40, PARKING);
        assert!(producer.try_send(&[1]));
        let sending = thread::spawn(move || {
            let mut sent = 1;
            for _ in 0..2 {
                sent += u64::from(producer.try_send(&[sent + 1]));
            }
            sent
        });
        let mut received: Vec<Vec<u64>> = Vec::new();
        let done = mortal.run(|| {
            for _ in 0..2 {
                if let Got::Message(words, _) = consumer.take() {
                    // Seen from here on.
                    received.push(words);
                    consumer.acknowledge();
                }
            }
        });
        let mut successor = Consumer::new(&consumer.ring, PARKING);
        let seen = received.len() as u64;
        let mut again = false;
        if let Got::Message(words, redelivered) = successor.take() {
            successor.acknowledge();
            if words == [seen] {
                assert!(redelivered, "twice, and not marked");
                again = true;
            } else {
                received.push(words);
            }
        }
        assert!(
            !(again && done.is_some()),
            "acknowledged, and delivered again"
        );
        let sent = sending.join().unwrap();
        received.extend(successor.drain());
        are_in_order(&received, sent);
    });
}
