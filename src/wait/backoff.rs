//! How a receiver that keeps up lets messages gather.

use crate::primitive::spin_loop;

/// A streak shorter than this, in bytes, is no streak.
const STREAK: u64 = 512;
/// A streak shorter than this, in bytes, means that it looked too soon.
const STREAK_SHORT: u64 = 4096;
const PAUSES_MAX: u32 = 128;

/// Keeps a receiver that is as fast as its producer from reading every line the moment it is written:
/// after a streak of messages it waits a little before it looks again, and so finds several. Never in
/// ping-pong, where each streak is one message.
#[derive(Debug)]
pub(crate) struct Backoff {
    pauses: u32,
    long: u64,
}

impl Backoff {
    /// For a ring of `capacity` bytes.
    pub(crate) fn new(capacity: u64) -> Backoff {
        Backoff {
            pauses: 0,
            long: capacity / 4,
        }
    }

    /// The ring was found empty after `streak` bytes.
    #[inline(always)]
    pub(crate) fn rest(&mut self, streak: u64) {
        if streak > STREAK {
            self.pause(streak);
        }
    }

    #[cold]
    fn pause(&mut self, streak: u64) {
        if streak < STREAK_SHORT {
            self.pauses = (self.pauses * 2).clamp(4, PAUSES_MAX);
        } else if streak > self.long {
            self.pauses /= 2;
        }
        for _ in 0..self.pauses {
            spin_loop();
        }
    }
}
