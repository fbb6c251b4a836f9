// The models of waiting: the loop in which every blocking call waits (`wait::block_on`), over the SPSC ring in
// `super::algorithm`, with time-outs and deaths.
//
// The two sides here do what the handles' do (`Arrival` and `Room` in `spsc/`), with a modelled futex. The end
// of a slice of sleep, and of the time given, is an event that another thread brings about at any moment; a
// death is an unwinding before any access to shared memory, which the kernel then makes known.

use super::algorithm::*;
use crate::harness::{deaths, explore};
use crate::primitive::{AtomicU64, Data, Ordering, full_fence};
use crate::wait::{Blocking, Spinner, WaitStrategy, block_on};
use loom::sync::atomic::AtomicBool;
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// The kernel's futex: compares the low half under its lock, wakes under its lock.
struct Futex(Mutex<()>, Condvar);

impl Futex {
    fn new() -> Futex {
        Futex(Mutex::new(()), Condvar::new())
    }

    /// Sleeps while the word is as expected, unless the slice of sleep is over, or until something happens.
    fn sleep(&self, word: &AtomicU64, expected: u64, is_over: impl Fn() -> bool) {
        let guard = self.0.lock().unwrap();
        if word.load(Ordering::Relaxed) as u32 == expected as u32 && !is_over() {
            drop(self.1.wait(guard).unwrap());
        }
    }

    fn wake(&self) {
        let _guard = self.0.lock().unwrap();
        self.1.notify_one();
    }
}

struct Ring {
    manner: Manner,
    control: Control,
    area: Vec<AtomicU64>,
    consumer: Futex,
    producer: Futex,
    /// The time given is over; with it, the slice of sleep.
    late: AtomicBool,
    /// The peer is dead, as the kernel tells; with it, the slice of sleep is over.
    dead: AtomicBool,
}

impl Ring {
    fn new(manner: Manner) -> Arc<Ring> {
        Arc::new(Ring {
            manner,
            control: Control::new(),
            area: (0..8).map(|_| AtomicU64::new(0)).collect(),
            consumer: Futex::new(),
            producer: Futex::new(),
            late: AtomicBool::new(false),
            dead: AtomicBool::new(false),
        })
    }

    fn tx(&self) -> Tx<'_> {
        let tx = Tx::resume(&self.control, Data(&self.area), self.manner).expect("resume");
        // As the handle does.
        self.consumer.wake();
        tx
    }

    fn rx(&self) -> Rx<'_> {
        Rx::resume(&self.control, Data(&self.area), self.manner).expect("resume")
    }

    fn why_over(&self) -> Option<Over> {
        if self.dead.load(Ordering::Acquire) {
            Some(Over::PeerDied)
        } else {
            self.late.load(Ordering::Relaxed).then_some(Over::TimedOut)
        }
    }

    /// Time passes at some moment.
    fn time_passes(&self) {
        self.late.store(true, Ordering::Relaxed);
        self.consumer.wake();
        self.producer.wake();
    }

    /// The kernel makes the death known, and slices of sleep end.
    fn death_is_known(&self) {
        self.dead.store(true, Ordering::Release);
        self.consumer.wake();
        self.producer.wake();
    }
}

const PARKING: Manner = Manner {
    parks: true,
    rarely: false,
    touch: false,
    fences: true,
};
const RARELY: Manner = Manner {
    rarely: true,
    fences: false,
    ..PARKING
};

/// Of a consumer: one for both sides.
fn barrier() -> bool {
    full_fence();
    true
}

/// Why a wait ended without what was waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    TimedOut,
    PeerDied,
    Closed,
}

struct Arrival<'a, 'r> {
    rx: &'a mut Rx<'r>,
    ring: &'r Ring,
    over: Option<Over>,
}

impl Blocking for Arrival<'_, '_> {
    type Output = u64;
    type Error = Over;

    fn attempt(&mut self, _: bool) -> Result<Option<u64>, Over> {
        match self.rx.take().expect("honest peers") {
            Next::Message(record) => {
                let mut bytes = [0; 8];
                // SAFETY: loom checks.
                unsafe { self.rx.data().copy_out(record.payload, &mut bytes) };
                if self.rx.acknowledge() == Notify::Peer {
                    self.ring.producer.wake();
                }
                Ok(Some(u64::from_le_bytes(bytes)))
            }
            Next::Empty => {
                self.rx.rest();
                self.over.take().map_or(Ok(None), Err)
            }
            Next::Closed => Err(Over::Closed),
        }
    }

    fn announce(&mut self) -> Result<Option<u64>, Over> {
        Ok(self.rx.announce(barrier).expect("honest peers"))
    }

    fn sleep(&mut self, expected: u64) -> Result<(), Over> {
        self.ring
            .consumer
            .sleep(self.rx.sleeping_word(), expected, || {
                self.ring.why_over().is_some()
            });
        if self.rx.has_next() {
            return Ok(());
        }
        self.pulse()
    }

    fn pulse(&mut self) -> Result<(), Over> {
        self.over = self.ring.why_over();
        Ok(())
    }

    fn is_alone(&self) -> bool {
        true
    }
}

struct Room<'a, 'r> {
    tx: &'a mut Tx<'r>,
    ring: &'r Ring,
    over: Option<Over>,
}

impl Blocking for Room<'_, '_> {
    type Output = ();
    type Error = Over;

    fn attempt(&mut self, _: bool) -> Result<Option<()>, Over> {
        if self.tx.has_room(8).expect("honest peers") {
            return Ok(Some(()));
        }
        self.over.take().map_or(Ok(None), Err)
    }

    fn announce(&mut self) -> Result<Option<u64>, Over> {
        Ok(self.tx.announce(8, full_fence).expect("honest peers"))
    }

    fn sleep(&mut self, expected: u64) -> Result<(), Over> {
        self.ring
            .producer
            .sleep(self.tx.sleeping_word(), expected, || {
                self.ring.why_over().is_some()
            });
        if self.tx.has_room(8).expect("honest peers") {
            return Ok(());
        }
        self.pulse()
    }

    fn pulse(&mut self) -> Result<(), Over> {
        self.over = self.ring.why_over();
        Ok(())
    }

    fn is_alone(&self) -> bool {
        true
    }
}

/// Sleeps at once; or looks and yields first, as on one processor.
fn spinner(looks_first: bool) -> Spinner {
    let strategy = if looks_first {
        WaitStrategy::Adaptive
    } else {
        WaitStrategy::Futex
    };
    let yield_now = || {
        loom::thread::yield_now();
        false
    };
    Spinner::new(strategy, yield_now, true)
}

fn receive(rx: &mut Rx<'_>, ring: &Ring, spinner: &mut Spinner) -> Result<u64, Over> {
    // SAFETY: the two borrow from one ring, which the caller holds for as long as both.
    let (rx, ring) = unsafe {
        (
            &mut *std::ptr::from_mut(rx).cast::<Rx<'static>>(),
            &*std::ptr::from_ref(ring),
        )
    };
    block_on(
        &mut Arrival {
            rx,
            ring,
            over: None,
        },
        spinner,
    )
}

fn publish(tx: &mut Tx<'_>, ring: &Ring, value: u64) -> bool {
    match tx.try_send(&value.to_le_bytes(), 0) {
        Ok(Notify::Peer) => {
            if tx.takes_the_mark() {
                ring.consumer.wake();
            }
        }
        Ok(Notify::Nobody) => {}
        Err(Refused::Full) => return false,
        Err(Refused::Corrupt(corrupt)) => panic!("{corrupt:?}"),
    }
    true
}

/// Without a time-out: whatever is sent arrives, whichever way the consumer waits.
pub(crate) fn one_who_waits_is_woken() {
    for (looks_first, manner) in [(false, PARKING), (true, PARKING), (false, RARELY)] {
        explore("one who waits", move || {
            let ring = Ring::new(manner);
            let other = ring.clone();
            let sending = thread::spawn(move || {
                let mut tx = other.tx();
                assert!(publish(&mut tx, &other, 1));
                assert!(publish(&mut tx, &other, 2));
            });
            let mut rx = ring.rx();
            let mut spinner = spinner(looks_first);
            assert_eq!(receive(&mut rx, &ring, &mut spinner), Ok(1));
            assert_eq!(receive(&mut rx, &ring, &mut spinner), Ok(2));
            sending.join().unwrap();
        });
    }
}

/// The time is over at any moment: the answer is the message or the time-out, and the message is there for
/// the next who asks; a mark that a time-out left behind harms nobody.
pub(crate) fn a_time_out_loses_nothing() {
    for manner in [PARKING, RARELY] {
        explore("a time-out", move || {
            let ring = Ring::new(manner);
            let (r1, r2) = (ring.clone(), ring.clone());
            let sending = thread::spawn(move || assert!(publish(&mut r1.tx(), &r1, 1)));
            let clock = thread::spawn(move || r2.time_passes());
            let mut rx = ring.rx();
            let mut spinner = spinner(false);
            match receive(&mut rx, &ring, &mut spinner) {
                Ok(value) => assert_eq!(value, 1),
                Err(over) => {
                    assert_eq!(over, Over::TimedOut);
                    clock.join().unwrap();
                    ring.late.store(false, Ordering::Relaxed);
                    assert_eq!(receive(&mut rx, &ring, &mut spinner), Ok(1));
                    sending.join().unwrap();
                    return;
                }
            }
            clock.join().unwrap();
            sending.join().unwrap();
        });
    }
}

/// The producer dies before each of its steps; the death becomes known. The consumer gets what was published,
/// and then learns of the death; it never waits for ever.
pub(crate) fn one_who_waits_for_the_dead_is_told() {
    for manner in [PARKING, RARELY] {
        deaths("a producer that dies", move |producer| {
            let ring = Ring::new(manner);
            let (other, producer) = (ring.clone(), producer.clone());
            let dying = thread::spawn(move || {
                producer.run(|| {
                    let mut tx = other.tx();
                    assert!(publish(&mut tx, &other, 1));
                });
                other.death_is_known();
            });
            let mut rx = ring.rx();
            let mut spinner = spinner(false);
            match receive(&mut rx, &ring, &mut spinner) {
                Ok(value) => {
                    assert_eq!(value, 1);
                    assert_eq!(receive(&mut rx, &ring, &mut spinner), Err(Over::PeerDied));
                }
                Err(over) => {
                    assert_eq!(over, Over::PeerDied);
                    // Nothing that was published before the death is left behind.
                    assert_eq!(rx.take().expect("honest peers"), Next::Empty);
                }
            }
            dying.join().unwrap();
        });
    }
}

/// A producer waits for room; the consumer gives some back, dies before any step of that, and the death
/// becomes known: the producer goes on, or is told.
pub(crate) fn one_who_waits_for_room_from_the_dead_is_told() {
    for manner in [PARKING, RARELY] {
        deaths("a consumer that dies", move |consumer| {
            let ring = Ring::new(manner);
            let mut tx = ring.tx();
            assert!(publish(&mut tx, &ring, 1) && publish(&mut tx, &ring, 2));
            let (other, consumer) = (ring.clone(), consumer.clone());
            let dying = thread::spawn(move || {
                let done = consumer.run(|| {
                    let mut rx = other.rx();
                    for _ in 0..2 {
                        rx.take().expect("honest peers");
                    }
                    if rx.acknowledge() == Notify::Peer {
                        other.producer.wake();
                    }
                });
                other.death_is_known();
                done.is_some()
            });
            // SAFETY: the ring outlives both views.
            let ring_ref = unsafe { &*std::ptr::from_ref::<Ring>(&*ring) };
            let tx: &mut Tx<'static> = unsafe { &mut *(&raw mut tx).cast() };
            let mut spinner = spinner(false);
            let mut room = Room {
                tx,
                ring: ring_ref,
                over: None,
            };
            let result = block_on(&mut room, &mut spinner);
            let all = dying.join().unwrap();
            match result {
                Ok(()) => assert!(publish(tx, &ring, 3), "room, and then none"),
                Err(over) => {
                    assert_eq!(over, Over::PeerDied);
                    assert!(!all, "there was room");
                }
            }
        });
    }
}
