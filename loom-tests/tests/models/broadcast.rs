// The models of the broadcast ring, for the algorithm in `super::algorithm`: the real one, or a mutant.
//
// Lines of 16 bytes and areas of 64 or 128, so that everything wraps; preemptions bounded by
// `LOOM_MAX_PREEMPTIONS`; 3, 2 or 1 unless told. Gated subscribers read payload plainly, so that any write that is
// not ordered with it fails; free ones read atomically, and what they then take to be intact must be what
// was sent.

use super::algorithm::*;
use crate::harness::{
    deaths_within, executions as explore, executions_within as explore_within, say,
};
use crate::primitive::{AtomicU64, Data, Ordering, full_fence};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

struct Ring {
    control: Control,
    seats: Vec<Seat>,
    area: Vec<AtomicU64>,
    manner: Manner,
    bell: Futex,
    room: Futex,
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

    fn wake_all(&self) {
        let _guard = self.0.lock().unwrap();
        self.1.notify_all();
    }
}

const LOSSLESS: Manner = Manner {
    parks: true,
    gated: true,
    expected: 0,
    fences: true,
    touch: false,
};
const SPINNING: Manner = Manner {
    parks: false,
    gated: true,
    expected: 0,
    fences: true,
    touch: false,
};
const LOSSY: Manner = Manner {
    parks: true,
    gated: false,
    expected: 0,
    fences: true,
    touch: false,
};

/// Where those who sleep make a barrier for those who do not fence.
const LIGHT: Manner = Manner {
    fences: false,
    ..LOSSLESS
};

/// Where a subscriber that is alone touches what it lets go. Nobody sleeps there: or each look for sleepers would
/// be a fence in the models, and make up for barriers.
const TOUCHING: Manner = Manner {
    touch: true,
    ..SPINNING
};

/// The ring for as long as the process lives, as far as the borrow checker is concerned.
fn borrow(ring: &Arc<Ring>) -> &'static Ring {
    // SAFETY: whoever holds the reference holds the `Arc` beside it.
    unsafe { &*std::ptr::from_ref::<Ring>(ring) }
}

struct Producer {
    tx: Tx<'static>,
    ring: Arc<Ring>,
}

struct Subscriber {
    rx: Rx<'static>,
    index: Option<usize>,
    ring: Arc<Ring>,
}

/// Looks like the header of a message of 8 bytes.
const GARBAGE: u64 = 8 << 32 | COMMITTED;

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// What the message of number `sequence` says, in `len` words: so that a torn one is told.
fn said(sequence: u64, len: usize) -> Vec<u64> {
    vec![(sequence + 1) << 32 | 0xffff_fff8; len]
}

impl Ring {
    fn new(capacity: u64, manner: Manner) -> Arc<Ring> {
        Arc::new(Ring {
            control: Control::new(),
            seats: vec![Seat::new(), Seat::new()],
            area: (0..capacity / 8).map(|_| AtomicU64::new(0)).collect(),
            manner,
            bell: Futex::new(),
            room: Futex::new(),
        })
    }

    fn producer(ring: &Arc<Ring>) -> Producer {
        let held = borrow(ring);
        let data = Data(&held.area);
        Producer {
            tx: Tx::resume(&held.control, &held.seats, data, ring.manner).expect("resume"),
            ring: ring.clone(),
        }
    }

    /// A subscriber in seat `index` if the ring is lossless.
    fn subscriber(ring: &Arc<Ring>, index: usize, start: Start) -> Subscriber {
        let held = borrow(ring);
        let (control, seats, data) = (&held.control, &held.seats, Data(&held.area));
        let gated = ring.manner.gated;
        let rx = if gated {
            Rx::gated(control, seats, index, data, ring.manner, start, || {
                full_fence();
                true
            })
        } else {
            Rx::free(control, data, start)
        };
        if gated {
            ring.room.wake_all();
        }
        Subscriber {
            rx: rx.expect("honest peers"),
            index: gated.then_some(index),
            ring: ring.clone(),
        }
    }

    fn observer(ring: &Arc<Ring>, start: Start) -> Subscriber {
        let held = borrow(ring);
        Subscriber {
            rx: Rx::free(&held.control, Data(&held.area), start).expect("honest peers"),
            index: None,
            ring: ring.clone(),
        }
    }
}

impl Producer {
    fn notify(&self, notify: Notify) {
        if notify == Notify::Peer {
            self.ring.bell.wake_all();
        }
    }

    /// Whether there was room: by the short path, or else the long one, as the handle does.
    fn try_send(&mut self, words: &[u64]) -> bool {
        let message = bytes(words);
        let sent = match self.tx.send_at_once(&message, 0) {
            Some(notify) => Ok(notify),
            None => self.tx.try_send(&message, 0),
        };
        match sent {
            Ok(notify) => {
                self.notify(notify);
                true
            }
            Err(Refused::Full) => false,
            Err(Refused::Corrupt(corrupt)) => panic!("{corrupt:?}"),
        }
    }

    /// Sends the next message, of `len` words, if there is room.
    fn tell(&mut self, len: usize) -> bool {
        let words = said(self.tx.sequence(), len);
        self.try_send(&words)
    }

    fn send(&mut self, len: usize) {
        while !self.tell(len) {
            match self.tx.announce(len as u64 * 8, full_fence) {
                None => {}
                Some(Awaited::Seat(index)) => {
                    let ring = self.ring.clone();
                    ring.room.sleep(ring.seats[index].room_word(), 1);
                }
                Some(Awaited::Subscribers(value)) => {
                    let ring = self.ring.clone();
                    ring.room.sleep(&ring.control.joined, value);
                }
            }
        }
    }

    fn stage(&mut self, len: usize) -> bool {
        let words = said(self.tx.sequence(), len);
        self.tx.stage(&bytes(&words)).is_ok()
    }

    fn publish(&mut self) {
        let notify = self.tx.publish();
        self.notify(notify);
    }

    /// A reservation all of which is dirtied with what would be taken for headers.
    fn reserve(&mut self, words: usize) -> Place {
        let place = self.tx.reserve(words as u64 * 8).expect("room");
        // SAFETY: loom checks.
        unsafe {
            self.tx
                .data()
                .copy_in_shared(place.payload(), &bytes(&vec![GARBAGE; words]))
        };
        place
    }

    fn close(mut self) {
        let notify = self.tx.close();
        self.notify(notify);
    }
}

/// A copy of a message, made plainly where nobody may be overwriting it.
fn copied(data: Data<'_>, record: Record, plain: bool) -> Vec<u8> {
    let mut bytes = vec![0; record.len as usize];
    // SAFETY: loom checks, and `bytes` has room.
    unsafe {
        if plain {
            data.copy_out(record.payload, &mut bytes);
        } else {
            data.copy_out_shared(record.payload, bytes.as_mut_ptr(), bytes.len());
        }
    }
    bytes
}

/// Whether this is what was sent as message `sequence`.
fn check(bytes: &[u8], sequence: u64) {
    let words: Vec<_> = bytes
        .chunks(8)
        .map(|word| u64::from_le_bytes(word.try_into().unwrap()))
        .collect();
    assert_eq!(words, said(sequence, words.len()));
}

#[derive(Debug, PartialEq, Eq)]
enum Got {
    /// Its sequence.
    Message(u64),
    Missed(u64),
    Empty,
    Closed,
}

impl Subscriber {
    fn notify(&self, notify: Notify) {
        if notify == Notify::Peer {
            self.ring.room.wake_all();
        }
    }

    fn skip(&mut self) -> Got {
        Got::Missed(self.rx.skip(Start::Oldest).expect("honest peers"))
    }

    /// The next message, checked, and let go: by the short path, or else the long one, as the handle does.
    fn take(&mut self) -> Got {
        let (sequence, plain, mut bytes) = (self.rx.sequence(), self.rx.may_lend(), Vec::new());
        let taken = self
            .rx
            .consume_at_once(|data, record| bytes = copied(data, record, plain));
        if let Some(notify) = taken {
            check(&bytes, sequence);
            self.notify(notify);
            return Got::Message(sequence);
        }
        match self.rx.look().expect("honest peers") {
            Next::Message(record) => {
                let bytes = copied(self.rx.data(), record, plain);
                if !self.rx.is_intact().expect("honest peers") {
                    return self.skip();
                }
                check(&bytes, sequence);
                self.rx.pass(record);
                let notify = self.rx.let_go();
                self.notify(notify);
                Got::Message(sequence)
            }
            Next::Empty => {
                self.rx.rest();
                Got::Empty
            }
            Next::Closed => Got::Closed,
            Next::Overrun => self.skip(),
        }
    }

    /// Takes `count` messages that are there, and then lets go of all. How many.
    fn take_at_once(&mut self, count: u64) -> u64 {
        for _ in 0..count {
            let Next::Message(record) = self.rx.look().expect("honest peers") else {
                panic!("nothing there");
            };
            let bytes = copied(self.rx.data(), record, self.rx.may_lend());
            check(&bytes, self.rx.sequence());
            self.rx.pass(record);
        }
        let notify = self.rx.let_go();
        self.notify(notify);
        count
    }

    /// Reads the next message, and does not let go of it.
    fn peek(&mut self) {
        let Next::Message(record) = self.rx.look().expect("honest peers") else {
            panic!("nothing there");
        };
        let mut bytes = vec![0; record.len as usize];
        // SAFETY: loom checks, and `bytes` has room.
        unsafe { self.rx.data().copy_out(record.payload, &mut bytes) };
    }

    /// Waits for a message, or for the end.
    fn recv(&mut self) -> Got {
        loop {
            match self.take() {
                Got::Empty => {
                    if let Some(expected) = self.rx.announce(full_fence).expect("honest peers") {
                        let ring = self.ring.clone();
                        ring.bell.sleep(ring.control.bell.word(), expected);
                    }
                }
                got => return got,
            }
        }
    }

    /// Takes `looks` messages, or looks in vain; returns which one comes next by its count.
    fn follow(&mut self, mut expected: u64, looks: usize) -> u64 {
        for _ in 0..looks {
            expected = self.follow_one(expected);
        }
        expected
    }

    fn follow_one(&mut self, expected: u64) -> u64 {
        match self.take() {
            Got::Message(sequence) => {
                assert_eq!(sequence, expected);
                expected + 1
            }
            Got::Missed(count) => {
                assert!(self.index.is_none());
                expected + count
            }
            Got::Empty | Got::Closed => expected,
        }
    }

    /// Takes all that is there.
    fn drain(&mut self, mut expected: u64) -> u64 {
        for _ in 0..40 {
            let next = self.follow_one(expected);
            if next == expected && self.rx.has_nothing().unwrap() {
                return expected;
            }
            expected = next;
        }
        panic!("there is no end: {expected}");
    }

    fn leave(self) {
        if let Some(index) = self.index {
            let notify = self.ring.seats[index].leave();
            self.notify(notify);
        }
    }
}

/// A ring with messages of `len` words up to `start`, and a subscriber that has followed them.
fn ring_at(capacity: u64, start: u64, manner: Manner, len: usize) -> (Producer, Subscriber) {
    let ring = Ring::new(capacity, manner);
    let mut producer = Ring::producer(&ring);
    let mut subscriber = Ring::subscriber(&ring, 0, Start::Oldest);
    let need = 8 + 8 * len as u64;
    let (mut at, mut expected) = (0, 0);
    while at + need <= start {
        assert!(producer.tell(len));
        expected = subscriber.follow(expected, 1);
        at += need;
    }
    if at < start {
        assert!(producer.tell(0));
        expected = subscriber.follow(expected, 1);
    }
    assert_eq!(expected, producer.tx.sequence());
    (producer, subscriber)
}

fn commit_and_wrap(name: &str, manner: Manner) {
    // The first message is padded, the second, the third, and none but in the middle of a line.
    for start in [56, 40, 32, 8] {
        let count = explore(move || {
            let (mut producer, mut subscriber) = ring_at(64, start, manner, 1);
            let before = producer.tx.sequence();
            let sending = thread::spawn(move || {
                for _ in 0..3 {
                    producer.tell(1);
                }
                producer
            });
            let expected = subscriber.follow(before, 3);
            let mut producer = sending.join().unwrap();
            let expected = subscriber.drain(expected);
            assert_eq!(expected, producer.tx.sequence());
            // And it still works.
            assert!(producer.tell(1));
            assert_eq!(subscriber.drain(expected), expected + 1);
        });
        say(&format!("{name} from {start}"), count);
    }
}

pub(crate) fn commit_and_wrap_parking() {
    commit_and_wrap("commit_and_wrap_parking", LOSSLESS);
}

pub(crate) fn commit_and_wrap_spinning() {
    commit_and_wrap("commit_and_wrap_spinning", SPINNING);
}

pub(crate) fn commit_and_wrap_lightly() {
    commit_and_wrap("commit_and_wrap_lightly", LIGHT);
}

pub(crate) fn who_joins_during_a_batch_sees_it_whole() {
    let count = explore_within(2, move || {
        let ring = Ring::new(128, LOSSY);
        let mut producer = Ring::producer(&ring);
        assert!(producer.tell(1));
        let sending = thread::spawn(move || {
            // Each is longer than the mark may lag.
            assert!(producer.stage(1) && producer.stage(1) && producer.stage(1));
            producer.publish();
            producer
        });
        let mut subscriber = Ring::subscriber(&ring, 0, Start::Next);
        let joined = subscriber.rx.sequence();
        assert!(
            joined == 1 || joined == 4,
            "in the middle of a batch: {joined}"
        );
        let expected = subscriber.follow(joined, 1);
        let producer = sending.join().unwrap();
        assert_eq!(subscriber.drain(expected), producer.tx.sequence());
    });
    say("who joins during a batch", count);
}

/// Where nothing but the mark's own fence stands between one of its moves and the next.
pub(crate) fn who_joins_while_the_mark_is_moved_twice_reads_it_whole() {
    let manner = Manner {
        parks: false,
        ..LOSSY
    };
    let count = explore(move || {
        let ring = Ring::new(128, manner);
        let mut producer = Ring::producer(&ring);
        assert!(producer.tell(1));
        let sending = thread::spawn(move || {
            assert!(producer.tell(1) && producer.tell(1));
        });
        let mut subscriber = Ring::subscriber(&ring, 0, Start::Next);
        let joined = subscriber.rx.sequence();
        sending.join().unwrap();
        assert_eq!(subscriber.drain(joined), 3);
    });
    say("who joins while the mark is moved twice", count);
}

pub(crate) fn a_batch_is_seen_whole() {
    for start in [64, 104, 120] {
        let count = explore(move || {
            let (mut producer, mut subscriber) = ring_at(128, start, LOSSLESS, 1);
            let before = producer.tx.sequence();
            let sending = thread::spawn(move || {
                assert!(producer.stage(1) && producer.stage(1));
                producer.publish();
            });
            let mut expected = subscriber.follow(before, 1);
            if expected > before {
                expected = subscriber.follow(expected, 1);
                assert_eq!(expected, before + 2);
            }
            sending.join().unwrap();
            assert_eq!(subscriber.drain(expected), before + 2);
        });
        say(&format!("a_batch_is_seen_whole from {start}"), count);
    }
}

pub(crate) fn a_batch_does_not_overwrite_itself() {
    let count = explore(move || {
        let (mut producer, mut subscriber) = ring_at(64, 0, LOSSY, 1);
        let sending = thread::spawn(move || {
            let mut staged = 0;
            while staged < 5 && producer.stage(1) {
                staged += 1;
            }
            assert!(staged >= 2);
            producer.publish();
            assert!(producer.stage(1));
            producer.publish();
            staged + 1
        });
        let expected = subscriber.follow(0, 2);
        let sent = sending.join().unwrap();
        assert_eq!(subscriber.drain(expected), sent);
    });
    say("a_batch_does_not_overwrite_itself", count);
}

pub(crate) fn nothing_of_an_aborted_or_cut_message_is_seen() {
    // In the middle of a line, too: what was zeroed ahead reaches beyond the next header then.
    for (cut, start) in [(false, 64), (true, 64), (true, 96), (false, 72), (true, 72)] {
        let count = explore(move || {
            let (mut producer, mut subscriber) = ring_at(128, start, LOSSLESS, 1);
            let before = producer.tx.sequence();
            let sending = thread::spawn(move || {
                let place = producer.reserve(5);
                if cut {
                    let word = bytes(&said(before, 1));
                    // SAFETY: loom checks.
                    unsafe { producer.tx.data().copy_in_shared(place.payload(), &word) };
                    let notify = producer.tx.commit(place, 8, 0);
                    producer.notify(notify);
                }
                producer.tell(1);
                producer
            });
            let expected = subscriber.follow(before, 2);
            let producer = sending.join().unwrap();
            let sent = before + 1 + u64::from(cut);
            assert_eq!(producer.tx.sequence(), sent);
            assert_eq!(subscriber.drain(expected), sent);
        });
        say(
            &format!("an aborted message, cut {cut}, from {start}"),
            count,
        );
    }
}

pub(crate) fn an_overrun_reader_never_takes_what_was_torn() {
    // Its next message is the first that is overwritten; messages of three words.
    for start in [128, 160] {
        let count = explore_within(2, move || {
            let (mut producer, mut subscriber) = ring_at(128, start, LOSSY, 3);
            let before = producer.tx.sequence();
            // It is nearly a lap behind.
            assert!(producer.tell(3) && producer.tell(3));
            let sending = thread::spawn(move || {
                assert!(producer.tell(3) && producer.tell(3));
                producer
            });
            let expected = subscriber.follow(before, 2);
            let producer = sending.join().unwrap();
            assert_eq!(subscriber.drain(expected), producer.tx.sequence());
        });
        say(&format!("an overrun reader from {start}"), count);
    }
}

pub(crate) fn an_overrun_reader_counts_what_it_missed() {
    let count = explore_within(2, move || {
        let (mut producer, mut subscriber) = ring_at(64, 64, LOSSY, 1);
        let before = producer.tx.sequence();
        for _ in 0..5 {
            assert!(producer.tell(1));
        }
        let sending = thread::spawn(move || {
            assert!(producer.tell(1) && producer.tell(1));
            producer
        });
        let expected = subscriber.follow(before, 2);
        assert!(expected > before);
        let producer = sending.join().unwrap();
        assert_eq!(subscriber.drain(expected), producer.tx.sequence());
    });
    say("an overrun reader counts", count);
}

pub(crate) fn a_newcomer_gets_everything_from_where_it_sat_down() {
    // Nobody holds the producer back before it comes, and the mark moves with each message.
    for (before, start) in [(3, Start::Oldest), (4, Start::Next)] {
        let count = explore_within(2, move || {
            let ring = Ring::new(64, LOSSLESS);
            let mut producer = Ring::producer(&ring);
            for _ in 0..before {
                assert!(producer.tell(1));
            }
            let sending = thread::spawn(move || {
                producer.tell(1);
                producer
            });
            let mut subscriber = Ring::subscriber(&ring, 0, start);
            let joined = subscriber.rx.sequence();
            let expected = subscriber.follow(joined, 1);
            let mut producer = sending.join().unwrap();
            let expected = subscriber.drain(expected);
            assert_eq!(expected, producer.tx.sequence());
            // It is not forgotten.
            let before = producer.tx.sequence();
            while producer.tell(1) {
                assert!(producer.tx.sequence() < before + 8);
            }
            assert_eq!(subscriber.drain(expected), producer.tx.sequence());
        });
        say(&format!("a newcomer after {before}, {start:?}"), count);
    }
}

/// What it sat down at is what is overwritten next.
pub(crate) fn a_newcomer_is_seen_before_anything_it_reads_is_overwritten() {
    let count = explore_within(2, move || {
        let ring = Ring::new(128, LOSSLESS);
        let mut producer = Ring::producer(&ring);
        assert!(producer.tell(5) && producer.tell(5));
        let sending = thread::spawn(move || {
            producer.tell(5);
            producer
        });
        let mut subscriber = Ring::subscriber(&ring, 0, Start::Oldest);
        let joined = subscriber.rx.sequence();
        let expected = subscriber.follow(joined, 1);
        let producer = sending.join().unwrap();
        assert_eq!(subscriber.drain(expected), producer.tx.sequence());
    });
    say("a newcomer is seen", count);
}

pub(crate) fn nothing_is_overwritten_before_those_who_were_expected_have_come() {
    let manner = Manner {
        expected: 2,
        ..LOSSLESS
    };
    let count = explore_within(2, move || {
        let (mut producer, mut first) = ring_at(64, 0, manner, 1);
        while producer.tell(1) {}
        let (ring, sent) = (producer.ring.clone(), producer.tx.sequence());
        // It holds nothing back.
        assert_eq!(first.drain(0), sent);
        let sending = thread::spawn(move || {
            producer.tell(1);
            producer
        });
        let mut second = Ring::subscriber(&ring, 1, Start::Oldest);
        assert_eq!(second.rx.sequence(), 0, "it was not waited for");
        let expected = second.follow(0, 1);
        let producer = sending.join().unwrap();
        assert_eq!(second.drain(expected), producer.tx.sequence());
        assert_eq!(first.drain(sent), producer.tx.sequence());
    });
    say("those who were expected", count);
}

pub(crate) fn what_a_leaver_read_is_not_overwritten_before_it_leaves() {
    let count = explore_within(2, move || {
        let (mut producer, mut subscriber) = ring_at(128, 0, LOSSLESS, 1);
        assert!(producer.tell(5) && producer.tell(5));
        let sending = thread::spawn(move || {
            let _ = (0..2).any(|_| producer.tell(5));
        });
        subscriber.peek();
        subscriber.leave();
        sending.join().unwrap();
    });
    say("what a leaver read", count);
}

pub(crate) fn room_that_was_let_go_is_found() {
    for manner in [LOSSLESS, SPINNING] {
        let count = explore(move || {
            let (mut producer, mut subscriber) = ring_at(64, 64, manner, 1);
            let before = producer.tx.sequence();
            while producer.tell(1) {}
            let sending = thread::spawn(move || {
                if producer.tx.has_room_lazily(8).expect("honest peers") {
                    assert!(producer.tell(1), "room once seen is there");
                }
                producer.tell(1);
                producer
            });
            let expected = subscriber.follow(before, 3);
            let producer = sending.join().unwrap();
            assert_eq!(subscriber.drain(expected), producer.tx.sequence());
        });
        say(&format!("room that was let go, {}", manner.parks), count);
    }
}

pub(crate) fn a_long_message_is_read_before_it_is_overwritten() {
    for manner in [LOSSLESS, SPINNING, LIGHT] {
        let count = explore_within(2, move || {
            let (mut producer, mut subscriber) = ring_at(128, 0, manner, 1);
            assert!(producer.tell(5) && producer.tell(5));
            let sending = thread::spawn(move || {
                let _ = (0..2).any(|_| producer.tell(5));
                producer
            });
            let expected = subscriber.follow(0, 2);
            let mut producer = sending.join().unwrap();
            let expected = subscriber.drain(expected);
            assert_eq!(expected, producer.tx.sequence());
            assert!(producer.tell(5));
            assert_eq!(subscriber.drain(expected), expected + 1);
        });
        say("a_long_message_is_read_before_it_is_overwritten", count);
    }
}

fn a_producer_sleeps(manner: Manner) -> usize {
    explore(move || {
        let (mut producer, mut subscriber) = ring_at(64, 64, manner, 1);
        let before = producer.tx.sequence();
        while producer.tell(1) {}
        let sending = thread::spawn(move || {
            producer.send(1);
            producer
        });
        let mut expected = before;
        while !subscriber.rx.has_nothing().unwrap() {
            expected = subscriber.follow(expected, 1);
        }
        let producer = sending.join().unwrap();
        assert_eq!(subscriber.drain(expected), producer.tx.sequence());
    })
}

pub(crate) fn touched_lines_are_the_subscribers() {
    // Lets go of `held` messages at once; the streak is long from the start.
    for (capacity, start, held) in [(64, 136, 1), (64, 160, 1), (64, 168, 1), (128, 176, 4)] {
        let count = explore(move || {
            let (mut producer, mut subscriber) = ring_at(capacity, start, TOUCHING, 1);
            let before = producer.tx.sequence();
            for _ in 0..held {
                assert!(producer.tell(1));
            }
            let sending = thread::spawn(move || {
                for _ in 0..held + 2 {
                    producer.tell(1);
                }
                producer
            });
            let expected = subscriber.take_at_once(held) + before;
            let expected = subscriber.follow(expected, 1);
            let producer = sending.join().unwrap();
            assert_eq!(subscriber.drain(expected), producer.tx.sequence());
        });
        say(
            &format!("touched_lines_are_the_subscribers, {held} from {start}"),
            count,
        );
    }
}

pub(crate) fn a_newcomer_lends_out_nothing_that_is_touched() {
    // Whether the message that the newcomer lends out is sent by the one who is just touching.
    for alongside in [false, true] {
        let count = explore(move || {
            let (mut producer, mut first) = ring_at(64, 144, TOUCHING, 1);
            let before = producer.tx.sequence();
            assert!(alongside || producer.tell(1));
            let ring = producer.ring.clone();
            let (mut here, mut there) = (None, None);
            *if alongside { &mut there } else { &mut here } = Some(producer);
            let touching = thread::spawn(move || {
                there.as_mut().map(|producer| producer.tell(1));
                let expected = first.follow(before, if alongside { 1 } else { 2 });
                (first, expected, there)
            });
            let start = if alongside {
                Start::Next
            } else {
                Start::Oldest
            };
            let mut second = Ring::subscriber(&ring, 1, start);
            let sequence = second.rx.sequence();
            let mut expected = second.follow(sequence, if alongside { 1 } else { 3 });
            here.as_mut().map(|producer| producer.tell(1));
            expected = second.follow(expected, 1);
            let (mut first, other, there) = touching.join().unwrap();
            let producer = here.or(there).expect("it is one of them");
            assert_eq!(first.drain(other), producer.tx.sequence());
            assert_eq!(second.drain(expected), producer.tx.sequence());
        });
        say(
            &format!("a_newcomer_lends_out_nothing_that_is_touched, alongside {alongside}"),
            count,
        );
    }
}

pub(crate) fn what_a_leaver_lent_out_is_not_touched_before_it_leaves() {
    let count = explore(move || {
        let (mut producer, mut first) = ring_at(64, 144, TOUCHING, 1);
        let mut second = Ring::subscriber(&producer.ring.clone(), 1, Start::Next);
        let before = producer.tx.sequence();
        // From here on it lends messages out where they lie.
        assert_eq!(second.drain(before), before);
        assert!(producer.tell(1) && producer.tell(1));
        let leaving = thread::spawn(move || {
            second.follow(before, 2);
            second.leave();
        });
        let expected = first.follow(before, 2);
        leaving.join().unwrap();
        assert!(producer.tell(1));
        assert_eq!(first.drain(expected), before + 3);
    });
    say(
        "what_a_leaver_lent_out_is_not_touched_before_it_leaves",
        count,
    );
}

pub(crate) fn a_sleeping_producer_is_woken() {
    for manner in [LOSSLESS, LIGHT] {
        say("a_sleeping_producer_is_woken", a_producer_sleeps(manner));
    }
}

pub(crate) fn a_producer_that_sleeps_for_one_who_leaves_is_woken() {
    let count = explore(move || {
        let (mut producer, subscriber) = ring_at(64, 64, LOSSLESS, 1);
        while producer.tell(1) {}
        let sending = thread::spawn(move || producer.send(1));
        subscriber.leave();
        sending.join().unwrap();
    });
    say("a producer that sleeps for one who leaves", count);
}

/// All who were expected have left, and one more comes: the producer sleeps for want of anybody, or it sees the
/// seat of the one.
pub(crate) fn a_producer_that_sleeps_until_somebody_comes_is_woken() {
    let manner = Manner {
        expected: 1,
        ..LOSSLESS
    };
    let count = explore(move || {
        let (mut producer, first) = ring_at(64, 0, manner, 1);
        while producer.tell(1) {}
        first.leave();
        let ring = producer.ring.clone();
        let waiting = thread::spawn(move || {
            let awaited = producer.tx.announce(8, full_fence);
            if let Some(Awaited::Subscribers(value)) = awaited {
                let ring = producer.ring.clone();
                ring.room.sleep(&ring.control.joined, value);
            }
        });
        let _second = Ring::subscriber(&ring, 1, Start::Oldest);
        waiting.join().unwrap();
    });
    say("a producer that sleeps until somebody comes", count);
}

pub(crate) fn two_sleepers_are_woken_by_one_message() {
    for fences in [true, false] {
        two_sleepers(Manner { fences, ..LOSSY });
    }
}

fn two_sleepers(manner: Manner) {
    let count = explore_within(2, move || {
        let ring = Ring::new(64, manner);
        let mut producer = Ring::producer(&ring);
        let sleepers = [(); 2].map(|()| {
            let mut subscriber = Ring::subscriber(&ring, 0, Start::Oldest);
            thread::spawn(move || assert_eq!(subscriber.recv(), Got::Message(0)))
        });
        assert!(producer.tell(1));
        for sleeper in sleepers {
            sleeper.join().unwrap();
        }
    });
    say("two_sleepers_are_woken_by_one_message", count);
}

pub(crate) fn closing_is_seen_after_the_last_message() {
    for manner in [LOSSLESS, LOSSY] {
        let count = explore(move || {
            let (mut producer, mut subscriber) = ring_at(64, 56, manner, 1);
            let before = producer.tx.sequence();
            let sending = thread::spawn(move || {
                assert!(producer.tell(1));
                producer.close();
            });
            assert_eq!(subscriber.recv(), Got::Message(before));
            assert_eq!(subscriber.recv(), Got::Closed);
            sending.join().unwrap();
        });
        say("closing_is_seen_after_the_last_message", count);
    }
}

/// The producer ends before each single access of `operation`; its successor goes on while a subscriber
/// and an observer follow. Whatever was not published is not seen, and once round the ring nothing dirty
/// comes to life.
fn succession(name: &str, capacity: u64, start: u64, most: u64, operation: fn(&mut Producer)) {
    for manner in [LOSSLESS, LOSSY] {
        let name = format!("{name}, lossless {}", manner.gated);
        deaths_within(1, &name, move |mortal| {
            let (mut producer, mut subscriber) = ring_at(capacity, start, manner, 1);
            let mut observer = Ring::observer(&producer.ring, Start::Next);
            let (ring, before) = (producer.ring.clone(), producer.tx.sequence());
            let mortal = mortal.clone();
            let sending = thread::spawn(move || {
                mortal.run(|| operation(&mut producer));
                drop(producer);
                let mut successor = Ring::producer(&ring);
                let sent = successor.tx.sequence();
                assert!(sent >= before && sent <= before + most);
                successor.tell(1);
                successor
            });
            let expected = subscriber.follow(before, 1);
            let mut successor = sending.join().unwrap();
            let mut expected = subscriber.drain(expected);
            let mut observed = observer.drain(before);
            for _ in 0..6 {
                assert_eq!(expected, successor.tx.sequence());
                assert_eq!(observed, expected);
                assert!(successor.tell(1));
                expected = subscriber.drain(expected);
                observed = observer.drain(observed);
            }
            let newest = Ring::observer(&successor.ring, Start::Newest);
            assert_eq!(newest.rx.sequence(), expected - 1);
        });
    }
}

pub(crate) fn a_producer_that_died_sending_is_succeeded() {
    succession("died sending", 64, 64, 2, |producer| {
        producer.tell(1);
        producer.tell(1);
    });
}

/// It may have moved the mark already past what a subscriber was reading just before, and not fenced yet.
pub(crate) fn a_successor_overwrites_nothing_that_is_being_read() {
    // So that the zeros behind the last message reach into the first: it tells how far it has let go now and
    // then, and at once.
    for (capacity, short) in [(256, 12), (128, 4)] {
        let name = format!("died moving the mark of {capacity} bytes");
        deaths_within(1, &name, move |mortal| {
            let (mut producer, mut subscriber) = ring_at(capacity, 0, LOSSLESS, 1);
            assert!(producer.tell(2));
            assert!((0..short).all(|_| producer.tell(1)));
            assert!(!producer.tell(1));
            let (ring, mortal) = (producer.ring.clone(), mortal.clone());
            let sending = thread::spawn(move || {
                mortal.run(|| producer.tell(1));
                drop(producer);
                let mut successor = Ring::producer(&ring);
                let _ = successor.tell(1) && successor.tell(1);
                successor
            });
            let expected = subscriber.follow(0, 1);
            let successor = sending.join().unwrap();
            assert_eq!(subscriber.drain(expected), successor.tx.sequence());
        });
    }
}

pub(crate) fn a_producer_that_died_wrapping_is_succeeded() {
    succession("died wrapping", 64, 56, 1, |producer| {
        producer.tell(1);
    });
}

pub(crate) fn a_producer_that_died_in_a_batch_is_succeeded() {
    succession("died in a batch", 128, 104, 2, |producer| {
        producer.stage(1);
        producer.stage(1);
        producer.publish();
    });
}

pub(crate) fn a_producer_that_died_in_a_reservation_is_succeeded() {
    succession("died in a reservation", 128, 64, 0, |producer| {
        producer.reserve(5);
    });
}

pub(crate) fn a_producer_that_died_closing_is_succeeded() {
    succession("died closing", 64, 64, 0, |producer| {
        let notify = producer.tx.close();
        producer.notify(notify);
    });
}
