//! What a record is, in the rings whose messages have any length: the words and the arithmetic that `spsc`
//! and `broadcast` share.
//!
//! A record is a header word and its payload, padded to 8 bytes. It never wraps: where it does not fit before
//! the end of the area, a PAD record fills the rest. Positions are 64-bit, only grow, and are taken modulo the
//! capacity.

use crate::primitive::{AtomicU64, Data, LINE, Ordering, spin_loop};

/// A header word with this bit is published.
pub(crate) const COMMITTED: u64 = 1;
/// The record fills the area to its end and carries nothing.
pub(crate) const PAD: u64 = 4;
/// The producer has left.
pub(crate) const CLOSED: u64 = 8;
/// The record is a fragment of a stream, and not the last one.
pub(crate) const MORE: u64 = 16;
/// The record is a fragment of a stream, and not the first one.
pub(crate) const REST: u64 = 32;
/// The half of a header word that holds its flags; the length is in the other.
pub(crate) const FLAGS: u64 = 0xffff_ffff;

/// Bytes of a header word, the unit of all positions.
pub(crate) const WORD: u64 = 8;
/// Bytes taken without a pause before lines are touched: below that the two sides alternate, and
/// the touch would stand between a message and its answer.
pub(crate) const TOUCH_AFTER: u64 = 8 * LINE;
/// More than this, given back at once, in bytes, is not touched: it has left the nearer caches by then.
pub(crate) const TOUCH_MOST: u64 = 1 << 20;
/// Looks for an answer, with a pause after each: a microsecond or so.
const ANSWER_LOOKS: u32 = 50;
/// Positions above this are no honest ones; adding a capacity to those below cannot overflow.
pub(crate) const POSITION_MAX: u64 = 1 << 62;

/// How far a producer is. Written by it alone; read by observers, who act on nothing.
#[repr(C)]
pub(crate) struct Progress {
    /// Where the next message goes.
    pub(crate) position: AtomicU64,
    /// Messages so far.
    pub(crate) messages: AtomicU64,
}

impl Progress {
    /// Of one that has sent nothing.
    pub(crate) fn new() -> Progress {
        Progress {
            position: AtomicU64::new(0),
            messages: AtomicU64::new(0),
        }
    }
}

/// A value in the mapping that no honest peer writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Corrupt {
    /// What is wrong.
    pub(crate) what: &'static str,
    /// The position at which it was found.
    pub(crate) position: u64,
}

/// Why nothing was placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is no room until those who receive give back more.
    Full,
    /// See [`Corrupt`].
    Corrupt(Corrupt),
}

/// Whether the other side sleeps and has to be woken.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notify {
    /// It does not sleep.
    Nobody,
    /// It sleeps until what was just written is there.
    Peer,
}

/// Room for a record that is not published yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Where its header goes; the payload follows 8 bytes later.
    pub(crate) header: u64,
    /// The length it was asked for, in bytes.
    pub(crate) len: u64,
    /// The frontier as it was, to be restored when the whole place was used.
    pub(crate) zeroed: u64,
}

impl Place {
    /// The position of its payload.
    #[inline(always)]
    pub(crate) fn payload(self) -> u64 {
        self.header + WORD
    }
}

/// The longest message, in bytes, of a ring of `capacity` bytes: it fits, with the padding before
/// it and the two lines after it, whatever the position.
pub(crate) const fn max_message(capacity: u64) -> u64 {
    capacity / 2 - LINE - WORD
}

/// Bytes of a record with `len` bytes of payload.
#[inline(always)]
pub(crate) const fn record(len: u64) -> u64 {
    WORD + ((len + (WORD - 1)) & !(WORD - 1))
}

/// The header word of a record with `len` bytes of payload.
#[inline(always)]
pub(crate) const fn header(len: u64, flags: u64) -> u64 {
    len << 32 | flags | COMMITTED
}

/// Where the next line begins.
#[inline(always)]
pub(crate) const fn line_end(position: u64) -> u64 {
    (position | (LINE - 1)) + 1
}

/// Where the header of a record with `len` bytes of payload goes, behind what ends at `position`, and where
/// the record ends.
#[inline(always)]
pub(crate) const fn fit(position: u64, len: u64, capacity: u64) -> (u64, u64) {
    let need = record(len);
    let rest = capacity - (position & (capacity - 1));
    let at = if need > rest {
        position + rest
    } else {
        position
    };
    (at, at + need)
}

/// Stores the last word of every line that ends in `from..=to`, unchanged: the lines are this processor's own then.
/// Whoever touches them holds them: nobody who keeps the protocol writes there meanwhile, or reads there plainly.
#[inline(always)]
pub(crate) fn touch_lines(data: Data<'_>, from: u64, to: u64) {
    let mut end = line_end(from);
    while end <= to {
        let word = data.word(end - WORD);
        // Relaxed: what is written is what is there.
        word.store(word.load(Ordering::Relaxed), Ordering::Relaxed);
        end += LINE;
    }
}

/// Whether an answer that is due comes within the microsecond or so that one may take: looks until
/// `has_next` says that it is there.
#[inline(always)]
pub(crate) fn answer_comes(has_next: impl Fn() -> bool) -> bool {
    for _ in 0..ANSWER_LOOKS {
        if has_next() {
            return true;
        }
        spin_loop();
    }
    false
}
