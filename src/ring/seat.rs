//! Who sits in a participant's record: the word that says so, and the locks that say who lives.
//!
//! The word holds a generation and, in its two lowest bits, a phase:
//!
//! | phase | meaning | who may move it on |
//! | --- | --- | --- |
//! | FREE | never used | a joiner, to LIVE of the next generation |
//! | LIVE | attached, or died without leaving (its token tells) | its owner to LEFT; if its token is free, a joiner to JOINING or LIVE of the next generation |
//! | LEFT | it detached | a joiner, as above |
//! | JOINING | a joiner is settling the affairs of the one before it; counts as dead | that joiner to LIVE, or back; if its token is free, another joiner |
//!
//! Every generation has a *token of life*, a lock that the kernel drops when its holder dies. A joiner is
//! whoever holds the record's lock for joining, of which there is one at a time; it takes the next
//! generation's token before it writes its word. So a word that says LIVE, and whose token is free, is that
//! of a dead one, *if the word is still the same after the look at the token*: one who leaves writes LEFT
//! before it gives its token up.

use crate::primitive::{AtomicU64, Ordering, fence};

const PHASE: u64 = 3;
const FREE: u64 = 0;
const LIVE: u64 = 1;
const LEFT: u64 = 2;
const JOINING: u64 = 3;

/// What a look at a record shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nobody ever sat there.
    Never,
    /// Whoever sat there left.
    Left,
    /// A joiner is settling what the one before left behind.
    Joining,
    /// Whoever sat there died; for good, as long as the word is this.
    Dead(u64),
    /// Somebody sits there whose token is held; the word.
    Held(u64),
    /// Somebody new had just sat down.
    Replaced,
}

/// How an attempt to sit down ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sat {
    /// With this word.
    Down(u64),
    /// The next token is held by somebody: not by an honest peer, if the one before is gone.
    Locked,
    /// What the one before left behind could not be settled; everything is as it was.
    Unsettled,
}

/// The generation of a word, by which its token is found.
pub(crate) fn generation(word: u64) -> u64 {
    word / (PHASE + 1)
}

/// Whether a word says that nobody ever sat there.
pub(crate) fn is_free(word: u64) -> bool {
    word & PHASE == FREE
}

/// Whether a word says that somebody is attached (or was when it died).
pub(crate) fn is_live(word: u64) -> bool {
    word & PHASE == LIVE
}

/// Whether a word says that its owner left.
pub(crate) fn has_left(word: u64) -> bool {
    word & PHASE == LEFT
}

/// Looks at who sits in the record of `state`. `known_dead` is a word that was found [`Seen::Dead`] before, or
/// 0; `is_held` tells of the token of a word's generation. An error of its counts as held: rather wait for one
/// who is dead than rob one who lives.
pub(crate) fn look<E>(
    state: &AtomicU64,
    known_dead: u64,
    is_held: impl Fn(u64) -> Result<bool, E>,
) -> Seen {
    // ACQUIRE: of one who left or joined, what it did before. SYNC: the word of a seat
    let word = state.load(Ordering::Acquire);
    match word & PHASE {
        FREE => return Seen::Never,
        LEFT => return Seen::Left,
        LIVE if word == known_dead => return Seen::Dead(word),
        _ => {}
    }
    if is_held(word).unwrap_or(true) {
        return if is_live(word) {
            Seen::Held(word)
        } else {
            Seen::Joining
        };
    }
    // Did it leave, give up joining, or was it followed by another, between the two looks? ACQUIRE: as
    // above.
    match state.load(Ordering::Acquire) {
        now if now == word => Seen::Dead(word),
        now if has_left(now) => Seen::Left,
        _ => Seen::Replaced,
    }
}

/// Whether the word is still `seen` after more of the record was read: if so, that was not of one who sat
/// down after the owner of `seen` left.
pub(crate) fn is_still(state: &AtomicU64, seen: u64) -> bool {
    // ACQUIRE: the look at the word comes after what was read. SYNC: word changed before the record
    fence(Ordering::Acquire);
    state.load(Ordering::Relaxed) == seen
}

/// Sits down. To be called by a joiner, and only if a look showed that nobody sits there, or one who left or
/// is dead. `take` takes the token of a word's generation: whether it was free. `settle`, called while the
/// record counts as dead, says whether what the one before left behind is settled; `introduce` writes who it
/// is.
pub(crate) fn sit<E>(
    state: &AtomicU64,
    take: impl FnOnce(u64) -> Result<bool, E>,
    settle: Option<impl FnOnce() -> bool>,
    introduce: impl FnOnce(),
) -> Result<Sat, E> {
    // RELAXED: nobody but the joiner changes the word of one who is gone, and the look acquired it.
    let old = state.load(Ordering::Relaxed);
    let generation = (old & !PHASE).wrapping_add(PHASE + 1);
    if !take(generation)? {
        return Ok(Sat::Locked);
    }
    if let Some(settle) = settle {
        // RELEASE: who sees JOINING sees at least what we have seen of the one before.
        // SYNC: the word of a seat
        state.store(generation | JOINING, Ordering::Release);
        if !settle() {
            // RELEASE: as above.
            state.store(old, Ordering::Release);
            return Ok(Sat::Unsettled);
        }
    }
    // RELEASE: who reads of the record what comes now finds LEFT, or what came after, in the word.
    // SYNC: word changed before the record
    fence(Ordering::Release);
    introduce();
    // RELEASE: who sees LIVE sees whose it is, that old affairs are settled, and finds the token held.
    // SYNC: the word of a seat
    state.store(generation | LIVE, Ordering::Release);
    Ok(Sat::Down(generation | LIVE))
}

/// Says that the owner of word `own` leaves. Its token is given up after that.
pub(crate) fn leave(state: &AtomicU64, own: u64) {
    // RELEASE: what it did here comes before its leaving. SYNC: the word of a seat
    state.store(own & !PHASE | LEFT, Ordering::Release);
}
