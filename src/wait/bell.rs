//! The bell: how any number of sleepers wait for something that no single word tells, and how those
//! who bring it find out, with one load, that nobody sleeps.
//!
//! ```text
//! sleeper                          notifier
//!   announce: set WAITING            make it true (a message, room)
//!   fence                            fence
//!   look again: is it true?          load the word: WAITING?
//!   sleep while the word is same     if so: count up, clear WAITING, wake one
//! ```
//!
//! Of the two fences one comes first in their order. If the sleeper's, the notifier sees WAITING; if
//! the notifier's, the sleeper sees that it is true. With either fence left out both can miss.
//!
//! The caller hands the fences in. They are full ones, or an asymmetric pair: a notifier's that is none but
//! for the compiler, because the sleeper's is a system call that has every running thread pass a full one.
//! Sleeping costs so much that this adds little, and whoever keeps up pays nothing. A sleeper that cannot
//! make that call sets FENCE, which tells all notifiers to fence by themselves.
//!
//! Whoever is woken announces once more (others may sleep still, and who woke it cleared WAITING) and
//! rings on if there is more: one message wakes one sleeper, and those who come while that one is
//! waking up are not lost to the others. A notifier killed between its change and its wake, or a sleeper killed between its waking and its ringing on,
//! costs the others no more than the slice of time after which every sleeper looks again.

use crate::primitive::{AtomicU64, Ordering, fence_after_exchange, full_fence};

const WAITING: u64 = 1;
/// A light fence is not enough for notifiers. Never taken back.
const FENCE: u64 = 2;
const COUNT: u64 = 4;

/// A bell in shared memory: a count in the upper bits, so that a sleeper's value never comes back
/// under it, and WAITING and FENCE in the lowest.
#[repr(transparent)]
pub(crate) struct Bell(AtomicU64);

impl Bell {
    /// One at which nobody waits.
    pub(crate) fn new() -> Bell {
        Bell(AtomicU64::new(0))
    }

    /// Says that one is going to sleep. The caller looks again, and then sleeps while the word is
    /// what is returned.
    #[cold]
    pub(crate) fn announce(&self) -> u64 {
        self.announce_with(full_fence)
    }

    /// As [`Bell::announce`], with a `barrier` that makes up for what notifiers leave out.
    #[cold]
    pub(crate) fn announce_with(&self, barrier: impl FnOnce()) -> u64 {
        let word = self.0.fetch_or(WAITING, Ordering::Relaxed) | WAITING;
        // SEQCST: SYNC: announced before looking, changed before asking
        barrier();
        word
    }

    /// Has all notifiers pass a full fence, from now on.
    #[cold]
    pub(crate) fn demand_fences(&self) {
        self.0.fetch_or(FENCE, Ordering::Relaxed);
    }

    /// After a change: whether the caller has to wake one.
    #[inline(always)]
    pub(crate) fn ring(&self) -> bool {
        self.ring_with(full_fence)
    }

    /// As [`Bell::ring`], where the change was a compare-exchange that nothing came after.
    #[inline(always)]
    pub(crate) fn ring_after_exchange(&self) -> bool {
        self.ring_with(fence_after_exchange)
    }

    /// As [`Bell::ring`], with a `barrier` of the caller's choice.
    #[inline(always)]
    pub(crate) fn ring_with(&self, barrier: impl FnOnce()) -> bool {
        // SEQCST: SYNC: announced before looking, changed before asking
        barrier();
        // RELAXED: the fence orders it.
        self.0.load(Ordering::Relaxed) & (WAITING | FENCE) != 0 && self.ring_carefully()
    }

    #[cold]
    #[inline(never)]
    fn ring_carefully(&self) -> bool {
        if self.0.load(Ordering::Relaxed) & FENCE != 0 {
            // SEQCST: SYNC: announced before looking, changed before asking
            full_fence();
        }
        self.strike()
    }

    #[cold]
    fn strike(&self) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        while word & WAITING != 0 {
            let next = (word & !WAITING).wrapping_add(COUNT);
            // RELAXED: whoever it wakes looks at what was changed, with an ordering of its own.
            match self
                .0
                .compare_exchange(word, next, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        // Another notifier struck it: who is woken rings on if there is more.
        false
    }

    /// The word to sleep on.
    pub(crate) fn word(&self) -> &AtomicU64 {
        &self.0
    }
}
