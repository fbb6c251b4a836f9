// The models of the bell, for the one in `super::algorithm`: the real one, or a mutant.

use super::algorithm::Bell;
use crate::harness::explore;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// The kernel's futex: compares under its lock, wakes under its lock.
struct Futex(Mutex<()>, Condvar);

struct Shared {
    bell: Bell,
    futex: Futex,
    available: AtomicU64,
}

impl Shared {
    fn new() -> Arc<Shared> {
        Arc::new(Shared {
            bell: Bell::new(),
            futex: Futex(Mutex::new(()), Condvar::new()),
            available: AtomicU64::new(0),
        })
    }

    fn take(&self) -> bool {
        let mut now = self.available.load(Ordering::Acquire);
        while now > 0 {
            match self
                .available
                .compare_exchange(now, now - 1, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(other) => now = other,
            }
        }
        false
    }

    fn ring(&self) {
        self.wake_if(self.bell.ring());
    }

    fn wake_if(&self, rung: bool) {
        if rung {
            let _guard = self.futex.0.lock().unwrap();
            self.futex.1.notify_one();
        }
    }

    /// Makes one available, and tells.
    fn give(&self) {
        self.available.fetch_add(1, Ordering::Release);
        self.ring();
    }

    /// Makes one available by a compare-exchange, and tells.
    fn give_by_exchange(&self) {
        let mut now = self.available.load(Ordering::Relaxed);
        while let Err(other) =
            self.available
                .compare_exchange(now, now + 1, Ordering::Release, Ordering::Relaxed)
        {
            now = other;
        }
        self.wake_if(self.bell.ring_after_exchange());
    }

    /// Waits for one, as the handles do.
    fn wait(&self) {
        loop {
            if self.take() {
                return;
            }
            let expected = self.bell.announce();
            if self.available.load(Ordering::Acquire) > 0 {
                continue;
            }
            {
                let guard = self.futex.0.lock().unwrap();
                if self.bell.word().load(Ordering::Relaxed) == expected {
                    drop(self.futex.1.wait(guard).unwrap());
                }
            }
            self.bell.announce();
            if self.take() {
                if self.available.load(Ordering::Acquire) > 0 {
                    self.ring();
                }
                return;
            }
        }
    }
}

pub(crate) fn a_sleeper_is_always_woken() {
    explore("one sleeper, one notifier", || {
        let shared = Shared::new();
        let other = shared.clone();
        let giver = thread::spawn(move || other.give());
        shared.wait();
        giver.join().unwrap();
    });
}

pub(crate) fn a_sleeper_is_woken_after_an_exchange() {
    explore("one sleeper, one notifier by compare-exchange", || {
        let shared = Shared::new();
        let other = shared.clone();
        let giver = thread::spawn(move || other.give_by_exchange());
        shared.wait();
        giver.join().unwrap();
    });
}

/// A notifier whose own fence is a light one, where some sleeper demanded full ones.
pub(crate) fn a_sleeper_that_demands_fences_is_woken() {
    explore("one sleeper that demands fences", || {
        let shared = Shared::new();
        shared.bell.demand_fences();
        let other = shared.clone();
        let giver = thread::spawn(move || {
            other.available.fetch_add(1, Ordering::Release);
            other.wake_if(other.bell.ring_with(|| ()));
        });
        shared.wait();
        giver.join().unwrap();
    });
}

pub(crate) fn two_messages_wake_two_sleepers() {
    explore("two sleepers, one notifier of two", || {
        let shared = Shared::new();
        let sleepers = [(); 2].map(|()| {
            let shared = shared.clone();
            thread::spawn(move || shared.wait())
        });
        shared.give();
        shared.give();
        for sleeper in sleepers {
            sleeper.join().unwrap();
        }
    });
}
