//! A side of a ring for which somebody else waits: a selector, an executor, an event loop.
//!
//! `wait::block_on` waits for one thing and holds the thread; who waits for many takes its loop apart:
//!
//! ```text
//! is_ready?  -- yes: the next call says something at once
//!    | no
//! announce   -- None: look again
//!    | the word is announced as it is
//! sleep for the word (a futex among others, or the event descriptor), or for the death of a peer
//!    |
//! woken, and look again
//! ```
//!
//! The protocol is that of `wait`, part for part, so the argument against lost wake-ups is the same; new
//! is only who sleeps. What is announced and not slept on costs its notifier one needless wake-up.

use crate::mapping::Mapping;
use crate::primitive::AtomicU64;
use crate::sleeper::Sleeper;
use crate::wait::WaitStrategy;

/// See the module.
pub(crate) trait Awaited {
    /// Whether it takes part at all. What follows is only asked of one that does.
    #[cfg_attr(not(feature = "tokio"), allow(dead_code))] // asked by executors only
    fn is_attached(&self) -> bool {
        true
    }

    /// Whether the next call that does not block has something to say: a message or room, or why there
    /// will be none. Looks at memory only.
    fn is_ready(&mut self) -> bool;

    /// Of a side that sends: waits are for room for a message of `len` bytes from now on.
    #[cfg_attr(not(feature = "tokio"), allow(dead_code))] // told by executors only
    fn want(&mut self, len: usize) {
        let _ = len; // Room is room, unless the side says otherwise.
    }

    /// Leaves the mark that it is going to be slept for; returns the value of the word to sleep on, or
    /// `None` when it has to be looked at again first.
    fn announce(&mut self) -> Option<u64>;

    /// After each sleep, whatever ended it.
    fn woken(&mut self) {}

    /// Whether the peer may not see that this side sleeps, so that it has to look now and then.
    #[cfg_attr(not(feature = "tokio"), allow(dead_code))] // asked by executors only
    fn may_miss(&self) -> bool {
        false
    }

    /// Asks what has become of the peers; if there is something to tell, it is ready from then on.
    /// Repairs what the dead left in the way. A few system calls.
    fn pulse(&mut self);

    /// After a wait that was announced, however it ended: what may have been brought for this one, too,
    /// is for another. Whether there may be another who sleeps for the same.
    #[cfg_attr(not(feature = "tokio"), allow(dead_code))] // asked by executors only
    fn pass_on(&mut self) -> bool {
        false
    }

    /// The word to sleep on.
    fn word(&self) -> &AtomicU64;

    /// By what means this side sleeps.
    fn sleeper(&self) -> &Sleeper;

    /// How the ring's sides wait.
    fn strategy(&self) -> WaitStrategy;

    /// The memory.
    fn mapping(&self) -> &Mapping;

    /// The number of its own record.
    #[cfg_attr(not(feature = "tokio"), allow(dead_code))] // asked by executors only
    fn index(&self) -> u32;
}

/// How long to look before going to sleep: as long as that has paid lately. (`wait::Spinner` decides
/// this for one who waits for one thing; here a look costs more, and the thread may have other work.)
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    score: u32,
    waits: u32,
}

const SCORE_MAX: u32 = 64;
/// Looks at the highest score: with a pause after each, about the cost of one wake-up.
const LOOKS: u32 = 1200;

impl Budget {
    pub(crate) fn new() -> Budget {
        let score = SCORE_MAX / 2;
        Budget { score, waits: 0 }
    }

    /// How many looks to take. One when it does not pay, but now and then some more, so that the score
    /// can rise again.
    pub(crate) fn looks(&mut self) -> u32 {
        self.waits = self.waits.wrapping_add(1);
        let again = if self.waits.is_multiple_of(16) { 64 } else { 1 };
        again.max(LOOKS * self.score / SCORE_MAX)
    }

    /// What was waited for came.
    pub(crate) fn paid(&mut self) {
        self.score += (SCORE_MAX - self.score).div_ceil(4);
    }

    /// It did not.
    pub(crate) fn failed(&mut self) {
        self.score -= self.score.div_ceil(4);
    }
}
