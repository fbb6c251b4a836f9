//! How a side that keeps up lets messages, or room, gather.

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

/// Rings of fewer slots give no room to keep apart in.
const SLOTS_LEAST: u64 = 256;
/// Fruitless looks at one place after which the other side is taken to be idle, or to wait for an answer.
const LOOKS: u32 = 4;
/// Fruitless looks, each at another place, after which the side takes itself to be close behind the other.
const CLOSE: i32 = 4;
/// Looks with a pause: about 1.5 µs here.
const REST: u32 = 64;
/// Messages that have to come by in a rest for it to be worth its while.
const WORTH: u64 = 16;
const PATIENCE_LEAST: i32 = 64;
const PATIENCE_MOST: i32 = 4096;

/// Keeps the two sides of a ring of slots apart, one message a line.
///
/// The side that is the faster one, be it by little, catches up with the other, and then takes each line the
/// moment it is given: the other one, which is about to write beside it, or has fetched it already, waits for it
/// with every message. Where a side finds nothing at one place after another, having passed few messages
/// between, it rests for a while, and then has many at once. Not in ping-pong, where it looks at one
/// place again and again; and where a rest brought little, not again for a long time.
#[derive(Clone, Debug)]
pub(crate) struct Distance {
    /// Where it found nothing last, and how often.
    last: u64,
    looks: u32,
    /// How often in a row it was close behind; negative while it has no mind to rest.
    score: i32,
    patience: i32,
    rested: bool,
}

impl Distance {
    /// Of a side that has not looked yet.
    pub(crate) fn new() -> Distance {
        Distance {
            last: 0,
            looks: 0,
            score: 0,
            patience: PATIENCE_LEAST,
            rested: false,
        }
    }

    /// Nothing was found at `position` of a ring of `capacity` slots. Whether it has rested, so that it is worth
    /// another look at once.
    #[cold]
    pub(crate) fn rest(&mut self, position: u64, capacity: u64) -> bool {
        let passed = position.wrapping_sub(self.last);
        self.last = position;
        if passed == 0 {
            self.looks += 1;
            if self.looks == LOOKS {
                self.score = self.score.min(0);
                self.rested = false;
            }
            return false;
        }
        self.looks = 0;
        if passed > capacity / 4 || capacity < SLOTS_LEAST {
            self.score = self.score.min(0);
            self.rested = false;
            return false;
        }
        if self.rested && passed < WORTH {
            self.score = -self.patience;
            self.patience = (self.patience * 2).min(PATIENCE_MOST);
        } else if self.rested {
            self.patience = PATIENCE_LEAST;
        }
        self.score = (self.score + 1).min(CLOSE);
        self.rested = self.score == CLOSE;
        if self.rested {
            (0..REST).for_each(|_| spin_loop());
        }
        self.rested
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often one rests whose fruitless looks are `step` messages apart, with `looks` at each place.
    fn rests(step: u64, looks: u32) -> usize {
        let mut distance = Distance::new();
        let place = |i: u64| std::iter::repeat_n(i * step, looks as usize);
        let looks = (1..=1000).flat_map(place);
        looks.filter(|at| distance.rest(*at, 1024)).count()
    }

    #[test]
    fn one_that_is_close_behind_rests() {
        assert!(rests(20, 1) > 900);
    }

    #[test]
    fn one_that_waits_for_answers_hardly_rests() {
        assert_eq!(rests(1, 20), 0);
        // An impatient one, that looks seldom.
        assert!(rests(1, 2) < 10);
    }

    #[test]
    fn one_that_is_far_behind_does_not_rest() {
        assert_eq!(rests(500, 1), 0);
    }
}
