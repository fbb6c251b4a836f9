// The models of who sits in a participant's record, for the algorithm in `super::algorithm`: the real one, or a
// mutant. The kernel's locks are a loom mutex; a death gives up all locks of the dead, as the kernel does after
// its last instruction. What a participant owns while it sits is a cell, so that two at once are found.

use super::algorithm::*;
use crate::harness::{deaths, explore};
use crate::primitive::{AtomicU64, Ordering};
use loom::cell::UnsafeCell;
use loom::sync::{Arc, Mutex};
use loom::thread;

/// Processes that hold the joining lock, and the tokens of the generations.
#[derive(Default)]
struct Held {
    joining: Option<usize>,
    tokens: [Option<usize>; 5],
}

struct Record {
    state: AtomicU64,
    locks: Mutex<Held>,
    /// What only the one who sits there, or its joiner, may touch.
    affairs: UnsafeCell<u64>,
    /// What one who left, or introduced itself, shows to all, by generation.
    shown: [UnsafeCell<u64>; 5],
    /// Who introduced itself last, and when it began, which anybody may read at any time: here the same.
    process: [AtomicU64; 2],
}

impl Record {
    fn new() -> Arc<Record> {
        Arc::new(Record {
            state: AtomicU64::new(0),
            locks: Mutex::new(Held::default()),
            affairs: UnsafeCell::new(0),
            shown: std::array::from_fn(|_| UnsafeCell::new(0)),
            process: std::array::from_fn(|_| AtomicU64::new(0)),
        })
    }

    fn take(&self, me: usize, word: u64) -> Result<bool, ()> {
        let token = &mut self.locks.lock().unwrap().tokens[generation(word) as usize];
        let free = token.is_none();
        if free {
            *token = Some(me);
        }
        Ok(free)
    }

    fn look(&self) -> Seen {
        let held = |word| {
            Ok::<_, ()>(self.locks.lock().unwrap().tokens[generation(word) as usize].is_some())
        };
        look(&self.state, 0, held)
    }

    /// The kernel gives up what the process held.
    fn drops(&self, me: usize) {
        let mut locks = self.locks.lock().unwrap();
        if locks.joining == Some(me) {
            locks.joining = None;
        }
        for token in &mut locks.tokens {
            if *token == Some(me) {
                *token = None;
            }
        }
    }

    fn work(&self) {
        // SAFETY: loom checks that nobody else does this.
        self.affairs.with_mut(|affairs| unsafe { *affairs += 1 });
    }

    /// What a participant shows under its generation.
    fn show(&self, generation: u64) {
        // SAFETY: loom checks.
        self.shown[generation as usize].with_mut(|shown| unsafe { *shown = generation });
    }

    fn is_shown(&self, generation: u64) {
        // SAFETY: loom checks.
        self.shown[generation as usize].with(|shown| assert_eq!(unsafe { *shown }, generation));
    }

    /// As `Membership::join_settled`: the word, if it sat down.
    fn join(&self, me: usize, settles: bool) -> Option<u64> {
        {
            let mut locks = self.locks.lock().unwrap();
            if locks.joining.is_some() {
                return None;
            }
            locks.joining = Some(me);
        }
        let gone = matches!(self.look(), Seen::Never | Seen::Left | Seen::Dead(_));
        let mut sat = Sat::Locked;
        if gone {
            let settle = || {
                self.work();
                settles
            };
            let next = generation(self.state.load(Ordering::Relaxed)) + 1;
            sat = sit(
                &self.state,
                |word| self.take(me, word),
                Some(settle),
                || {
                    self.show(next);
                    for word in &self.process {
                        word.store(me as u64, Ordering::Relaxed);
                    }
                },
            )
            .unwrap();
            assert_ne!(sat, Sat::Locked, "nobody else joins");
        }
        if let Sat::Down(word) = sat {
            self.locks.lock().unwrap().joining = None;
            return Some(word);
        }
        self.drops(me);
        None
    }

    fn leave(&self, me: usize, word: u64) {
        leave(&self.state, word);
        self.drops(me);
    }
}

/// The owner dies or leaves; two want its place. Never two at once, and the place is usable after all.
pub(crate) fn one_at_a_time_sits_there() {
    for leaves in [false, true] {
        explore("two joiners", move || {
            let record = Record::new();
            let first = record.join(1, true).expect("a fresh record");
            let (r1, r2) = (record.clone(), record.clone());
            let owner = thread::spawn(move || {
                r1.work();
                if leaves {
                    leave(&r1.state, first);
                }
                r1.drops(1);
            });
            let joins = |record: &Record, me: usize| {
                if let Some(word) = record.join(me, true) {
                    record.work();
                    record.leave(me, word);
                }
            };
            let other = thread::spawn(move || joins(&r2, 2));
            joins(&record, 3);
            owner.join().unwrap();
            other.join().unwrap();
            assert!(record.join(4, true).is_some(), "the place is lost");
        });
    }
}

/// Nobody dies here: one leaves, another comes, and stays. Whoever looks is never told of a death; and of one
/// who left, or sits there, everything that it showed is seen.
pub(crate) fn the_living_are_not_taken_for_dead() {
    explore("one who leaves, one who comes", || {
        let record = Record::new();
        let first = record.join(1, true).expect("a fresh record");
        let (r1, r2) = (record.clone(), record.clone());
        let owner = thread::spawn(move || r1.leave(1, first));
        let joiner = thread::spawn(move || r2.join(2, true));
        for _ in 0..2 {
            match record.look() {
                Seen::Dead(_) => panic!("nobody died"),
                Seen::Held(word) => record.is_shown(generation(word)),
                Seen::Left => record.is_shown(1),
                Seen::Never | Seen::Joining | Seen::Replaced => {}
            }
        }
        owner.join().unwrap();
        joiner.join().unwrap();
    });
    // A process of that number which began at another time than the record says is not its owner: that one is
    // gone. Half of what was read may be of the next owner, though.
    explore("a record that changes while it is read", || {
        let record = Record::new();
        let first = record.join(1, true).expect("a fresh record");
        let r1 = record.clone();
        let others = thread::spawn(move || {
            r1.leave(1, first);
            r1.join(2, true)
        });
        if let Seen::Held(word) = record.look() {
            let [number, began] = &record.process;
            let is_gone = number.load(Ordering::Relaxed) != began.load(Ordering::Relaxed);
            assert!(!(is_gone && is_still(&record.state, word)), "nobody died");
        }
        others.join().unwrap();
    });
}

/// The owner is dead; one comes, works and leaves, or cannot settle what there is. Whoever is told that it left
/// sees what it showed.
pub(crate) fn of_one_who_left_all_is_seen() {
    explore("one who comes and leaves", || {
        let record = Record::new();
        record.join(1, true).expect("a fresh record");
        record.drops(1);
        let r1 = record.clone();
        let joiner = thread::spawn(move || {
            if let Some(word) = r1.join(2, true) {
                r1.leave(2, word);
            }
        });
        match record.look() {
            Seen::Left => record.is_shown(2),
            Seen::Held(word) => record.is_shown(generation(word)),
            _ => {}
        }
        joiner.join().unwrap();
    });
    explore("one who leaves, one who cannot settle", || {
        let record = Record::new();
        let first = record.join(1, true).expect("a fresh record");
        let (r1, r2) = (record.clone(), record.clone());
        let owner = thread::spawn(move || r1.leave(1, first));
        let joiner = thread::spawn(move || assert_eq!(r2.join(2, false), None));
        match record.look() {
            Seen::Left => record.is_shown(1),
            Seen::Dead(_) => panic!("nobody died"),
            _ => {}
        }
        owner.join().unwrap();
        joiner.join().unwrap();
        assert_eq!(record.look(), Seen::Left);
        assert!(record.join(4, true).is_some(), "the place is lost");
    });
}

/// A joiner dies before each of its steps, and another comes meanwhile: the place can be taken, and never
/// by two.
pub(crate) fn a_joiner_that_died_is_succeeded() {
    deaths("a joiner that dies", |joiner| {
        let record = Record::new();
        record.join(1, true).expect("a fresh record");
        record.drops(1);
        let (r1, joiner) = (record.clone(), joiner.clone());
        let dying = thread::spawn(move || {
            joiner.run(|| r1.join(2, true));
            r1.drops(2);
        });
        if let Some(word) = record.join(3, true) {
            record.work();
            record.leave(3, word);
        }
        dying.join().unwrap();
        let last = record.join(4, true).expect("the place is lost");
        assert_eq!(record.look(), Seen::Held(last));
    });
}
