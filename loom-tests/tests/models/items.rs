// The models of the ring of 8-byte items, for the algorithm in `super::algorithm`. Capacity 2; two threads
// and what is left.

use super::algorithm::Items;
use super::mpmc::Blocked;
use crate::harness::explore;
use crate::primitive::{AtomicU64, Ordering, Pair, Pairs};
use loom::sync::Arc;
use loom::thread;

struct Ring {
    tail: AtomicU64,
    head: AtomicU64,
    pairs: Vec<Pair>,
}

impl Ring {
    fn new() -> Arc<Ring> {
        Arc::new(Ring {
            tail: AtomicU64::new(0),
            head: AtomicU64::new(0),
            pairs: (0..2).map(Pair::new).collect(),
        })
    }

    fn items(&self) -> Items<'_> {
        Items {
            tail: &self.tail,
            head: &self.head,
            pairs: Pairs(&self.pairs),
        }
    }

    /// As the handles do: by the short path, or else the long one.
    fn push(&self, item: u64) -> Result<(), Blocked> {
        match self.items().push_at_once(item) {
            true => Ok(()),
            false => self.items().push(item),
        }
    }

    fn pop(&self) -> Result<u64, Blocked> {
        let item = self.items().pop_at_once();
        item.map_or_else(|| self.items().pop(), Ok)
    }
}

/// Everything left, and then: is every slot usable?
fn drain(ring: &Ring) -> Vec<u64> {
    let mut left = Vec::new();
    while let Ok(item) = ring.pop() {
        left.push(item);
    }
    for item in [90, 91] {
        assert_eq!(ring.push(item), Ok(()));
    }
    assert_eq!(ring.push(99), Err(Blocked::NotNow));
    assert_eq!((ring.pop(), ring.pop()), (Ok(90), Ok(91)));
    left
}

pub(crate) fn nothing_is_lost_or_doubled_with_two_producers() {
    explore("2 producers, 1 consumer", || {
        let ring = Ring::new();
        let (r1, r2) = (ring.clone(), ring.clone());
        let a = thread::spawn(move || {
            [11, 12]
                .into_iter()
                .filter(|i| r1.push(*i).is_ok())
                .collect::<Vec<_>>()
        });
        let b = thread::spawn(move || r2.push(21).is_ok());
        let mut got = Vec::from_iter(ring.pop().ok());
        let mut sent = a.join().unwrap();
        if b.join().unwrap() {
            sent.push(21);
        }
        got.extend(drain(&ring));
        let place = |item| got.iter().position(|got| *got == item);
        if let (Some(first), Some(second)) = (place(11), place(12)) {
            assert!(first < second, "one producer's items out of order");
        }
        got.sort_unstable();
        sent.sort_unstable();
        assert_eq!(got, sent);
    });
}

pub(crate) fn two_consumers_take_different_items() {
    explore("1 producer, 2 consumers", || {
        let ring = Ring::new();
        let (r1, r2) = (ring.clone(), ring.clone());
        ring.push(1).unwrap();
        let a = thread::spawn(move || r1.pop().ok());
        let b = thread::spawn(move || r2.pop().ok());
        let mut sent = vec![1];
        sent.extend([2, 3].into_iter().filter(|i| ring.push(*i).is_ok()));
        let mut got: Vec<u64> = a
            .join()
            .unwrap()
            .into_iter()
            .chain(b.join().unwrap())
            .collect();
        got.extend(drain(&ring));
        got.sort_unstable();
        assert_eq!(got, sent);
    });
}

pub(crate) fn closing_loses_nothing_that_was_sent() {
    explore("closing", || {
        let ring = Ring::new();
        let (r1, r2) = (ring.clone(), ring.clone());
        let producer = thread::spawn(move || {
            [1, 2, 3]
                .into_iter()
                .filter(|i| r1.push(*i).is_ok())
                .collect::<Vec<u64>>()
        });
        let closer = thread::spawn(move || r2.items().close());
        let mut got = Vec::from_iter(ring.pop().ok());
        let sent = producer.join().unwrap();
        closer.join().unwrap();
        assert_eq!(ring.push(9), Err(Blocked::Closed));
        loop {
            match ring.pop() {
                Ok(item) => got.push(item),
                Err(blocked) => {
                    assert_eq!(blocked, Blocked::Closed);
                    break;
                }
            }
        }
        assert_eq!(got, sent);
    });
}
