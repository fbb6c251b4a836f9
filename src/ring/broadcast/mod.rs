//! One producer, any number of subscribers, each of which sees every message; bytes of any length.
//!
//! # The memory
//!
//! ```text
//!        oldest                                            tail (where the first zero header stands)
//!          |             a subscriber        recent          |
//!   .......v_________________v_________________v_____________v0000000..........................
//!   free   |h|payload|h|payload|h|payload|h|payload|h|payload||0|zeros| dirty: the last lap
//!          intact: whoever reads here reads what was sent     ^       ^
//!                                                            next    zeroed (the producer's own)
//! ```
//!
//! Records, padding and positions are those of the SPSC ring: a header word and the payload, padded to
//! 8 bytes, the header written last, so that one cache line carries a small message to everybody.
//!
//! # The header word
//!
//! | value | meaning | who may move it on |
//! | --- | --- | --- |
//! | 0 | nothing here yet | the producer: to COMMITTED |
//! | COMMITTED, length above | a message (MORE, REST: a fragment of a stream) | the producer, a lap later |
//! | COMMITTED, PAD | nothing up to the end of the area | the producer, a lap later |
//! | COMMITTED, CLOSED | the producer has left; does not advance | a new producer: to 0 |
//!
//! Subscribers never change the data area, and those that are free write nothing at all.
//!
//! # The argument
//!
//! *Zero frontier.* As in the SPSC ring: before publishing at `T` the header at `next(T)` is zero, so a
//! reader that follows headers ends at a zero word, never in old payload. Two lines are kept free.
//!
//! *Free readers.* Everything from `oldest` on is intact. The producer moves `oldest` on *before* it
//! overwrites what is below: mark, release fence, relaxed stores. A reader loads header and payload
//! (relaxed), fence, and then looks at the mark. If anything it read had been overwritten, it sees
//! a mark beyond it: the two fences synchronise through the word that it read. So what was torn is
//! known to be before anybody looks at it. `oldest` carries the sequence of its record, so that a reader
//! that was overrun knows how many it missed, exactly.
//!
//! *Gated readers.* Each has a seat: how far it has let go. The producer moves `oldest`, full fence,
//! looks at the seats, and writes only below the slowest. A newcomer sits down at `oldest`, full fence,
//! and begins where `oldest` is then: of the two fences one comes first, so either the producer sees the
//! seat or the newcomer sees how far the mark was moved. Seats of the dead are cleared by whoever has proof.
//!
//! *Touch.* As in the SPSC ring: before it lets lines go, a gated subscriber that is behind stores the last word of
//! each, unchanged, so that the line is its own when the producer comes to write it. That pays only for one
//! that is alone, and is right only then: another one may have lent out a message there, to be read plainly.
//! Alone is who has found all other seats free, as long as nobody has joined since: it counted `joined` before it
//! looked at the seats, and looks at it again with each touch. A newcomer sits down, counts, and makes a barrier
//! over all processors. From then on whoever touches sees that it came; what is being touched at that moment had
//! been published. So, unless it has found all other seats free, the newcomer lends out copies until it
//! has come to a header that was not there yet: behind that nobody touches.
//!
//! *No lost wake-up.* Subscribers sleep at one bell: announce, fence, look; publish, fence, ask. The
//! producer sleeps on the seat of one that holds it back: it marks the seat's `waiting`, fences, looks
//! how far that has come; the subscriber says how far, fences, looks at `waiting`. Of two fences one comes
//! first, so one side sees the other. Those of who publishes and of who lets go cost nothing where the
//! sleeper makes a barrier over all processors (`fences` false): sleeping is rare, messages are not.
//!
//! *Death.* An unpublished record is invisible. A successor of the producer follows the headers from
//! `oldest` to the tail; what the dead one wrote beyond is old payload like any other. Marks have two
//! slots and a turn that says which is valid, so that one that was half written is not read.
//!
//! *Checkpoints.* To move `oldest` the producer needs to know where a record begins. It notes a place
//! every eighth of the capacity, in private memory, and goes from note to note; only when subscribers
//! hold it back more closely than that does it step over its own headers.
//!
//! *Joining.* Whoever starts near the end follows the headers from `recent`, where the tail was not long
//! ago, and counts. So a message pays for nobody who may join: two plain stores say how many there were.

mod rx;
mod tx;

pub use rx::Start;
pub(crate) use rx::{Next, Record, Rx};
pub(crate) use tx::{Awaited, Tx};

pub(crate) use crate::ring::record::{
    COMMITTED, Corrupt, MORE, Notify, Place, REST, Refused, max_message,
};

use crate::primitive::{AtomicU64, CachePadded, Ordering, fence, full_fence, light_fence};
use crate::ring::record::{
    CLOSED, FLAGS, PAD, POSITION_MAX, Progress, WORD, answer_comes, fit, header, line_end, record,
};
use crate::wait::Bell;

/// The position of a seat that nobody has: it holds nothing back.
pub(crate) const GONE: u64 = !(WORD - 1);
/// Checkpoints are this part of the capacity apart.
const CHECKPOINTS: u64 = 8;
/// The mark `recent` is no more than this behind, in bytes, nor than checkpoints are apart.
const RECENT: u64 = 32 << 10;
/// Attempts at something that only a producer running at full speed can spoil, over and over.
const TRIES: u32 = 1000;

/// A record: where it begins, and which one it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spot {
    /// The position of its header.
    pub(crate) position: u64,
    /// The messages sent before it.
    pub(crate) sequence: u64,
}

/// A spot that one writer moves and anybody may read, whole.
///
/// | turn | slot | meaning |
/// | --- | --- | --- |
/// | t | t mod 2 | the spot |
/// | t | the other | the one before, or the next one, half written |
#[repr(C)]
pub(crate) struct Mark {
    turn: AtomicU64,
    slots: [[AtomicU64; 2]; 2],
}

impl Mark {
    fn new() -> Mark {
        let slot = || [AtomicU64::new(0), AtomicU64::new(0)];
        Mark {
            turn: AtomicU64::new(0),
            slots: [slot(), slot()],
        }
    }

    /// The writer, which has moved it `turn - 1` times before, moves it to `spot`.
    #[inline(always)]
    fn publish(&self, turn: u64, spot: Spot) {
        // SYNC: the turn before its successor's slot. Release: who reads what is written below sees
        // that the turn has moved on since this slot was valid.
        fence(Ordering::Release);
        let slot = &self.slots[(turn & 1) as usize];
        slot[0].store(spot.position, Ordering::Relaxed);
        slot[1].store(spot.sequence, Ordering::Relaxed);
        // SYNC: the slot of a mark.
        self.turn.store(turn, Ordering::Release);
    }

    /// The spot, and how often it was moved before. `None` while it is being moved.
    fn look(&self) -> Option<(u64, Spot)> {
        // SYNC: the slot of a mark.
        let turn = self.turn.load(Ordering::Acquire);
        let slot = &self.slots[(turn & 1) as usize];
        let spot = Spot {
            position: slot[0].load(Ordering::Relaxed),
            sequence: slot[1].load(Ordering::Relaxed),
        };
        // SYNC: the turn before its successor's slot.
        fence(Ordering::Acquire);
        (self.turn.load(Ordering::Relaxed) == turn).then_some((turn, spot))
    }

    /// The spot, and how often it was moved before.
    pub(crate) fn read(&self) -> Result<(u64, Spot), Corrupt> {
        let seen = (0..TRIES).find_map(|_| self.look()).ok_or(Corrupt {
            what: "mark that never rests",
            position: 0,
        })?;
        if seen.1.position > POSITION_MAX || !seen.1.position.is_multiple_of(WORD) {
            return Err(Corrupt {
                what: "position of a mark",
                position: 0,
            });
        }
        Ok(seen)
    }
}

/// The shared words of a ring beside its seats and its data area.
#[repr(C)]
pub(crate) struct Control {
    /// Written by the producer alone; read by observers, and by those who join.
    pub(crate) producer: CachePadded<Published>,
    /// The first record that is intact. Written by the producer, seldom; read with each message by
    /// free subscribers.
    pub(crate) oldest: CachePadded<Mark>,
    /// Where subscribers wait for messages.
    pub(crate) bell: CachePadded<Bell>,
    /// Gated subscribers that ever sat down. Who does counts up, and then wakes the producer. Read by one
    /// that is alone whenever it touches lines.
    pub(crate) joined: CachePadded<AtomicU64>,
    /// Seats from this one on were never used.
    seats: CachePadded<AtomicU64>,
}

impl Control {
    /// The words of an empty ring, whose data area is all zero.
    pub(crate) fn new() -> Control {
        Control {
            producer: CachePadded::new(Published {
                progress: Progress::new(),
                recent: Mark::new(),
            }),
            oldest: CachePadded::new(Mark::new()),
            bell: CachePadded::new(Bell::new()),
            joined: CachePadded::new(AtomicU64::new(0)),
            seats: CachePadded::new(AtomicU64::new(0)),
        }
    }

    /// How many messages were sent.
    pub(crate) fn sent(&self) -> u64 {
        // Relaxed: nothing is read on the strength of it.
        self.producer.progress.messages.load(Ordering::Relaxed)
    }
}

/// The producer's line.
#[repr(C)]
pub(crate) struct Published {
    /// How far it is, with each message.
    pub(crate) progress: Progress,
    /// Where it was not long ago: between records, all that lies before it published.
    pub(crate) recent: Mark,
}

/// How far a gated subscriber has let go.
#[repr(C)]
pub(crate) struct Seat {
    /// The same, published now and then: what the producer looks at first. Never ahead of `exact`,
    /// except in a seat that is just being left.
    head: CachePadded<AtomicU64>,
    own: CachePadded<LetGo>,
}

/// The line of a gated subscriber.
#[repr(C)]
struct LetGo {
    /// Everything below is done with; [`GONE`] when nobody sits here.
    exact: AtomicU64,
    /// 1 when the producer sleeps until `exact` grows, or is about to; it sleeps on this word.
    waiting: AtomicU64,
}

impl Seat {
    /// One that nobody has.
    pub(crate) fn new() -> Seat {
        Seat {
            head: CachePadded::new(AtomicU64::new(GONE)),
            own: CachePadded::new(LetGo {
                exact: AtomicU64::new(GONE),
                waiting: AtomicU64::new(0),
            }),
        }
    }

    /// Frees the seat: of the caller, or of one of whose death the caller has proof. Whether the
    /// producer sleeps here.
    pub(crate) fn leave(&self) -> Notify {
        // SYNC: room handed to the producer. Release: our reads are over before it writes there.
        self.own.exact.store(GONE, Ordering::Release);
        self.head.store(GONE, Ordering::Release);
        self.notify(true)
    }

    /// After more was let go: whether the producer may be asleep for want of it.
    #[inline(always)]
    fn notify(&self, fences: bool) -> Notify {
        // SYNC: room and sleepers. Between the position and the look at the mark.
        if fences {
            full_fence();
        } else {
            light_fence();
        }
        // Relaxed: the fence orders it.
        if self.own.waiting.load(Ordering::Relaxed) == 0 {
            return Notify::Nobody;
        }
        // Relaxed: whoever marks it anew looks at the room after that.
        self.own.waiting.store(0, Ordering::Relaxed);
        Notify::Peer
    }

    /// Everything below this was let go; [`GONE`] if nobody sits here.
    pub(crate) fn exact(&self) -> u64 {
        // SYNC: room handed to the producer. Acquire: it fences before it writes there, but may die before
        // that, when its mark has told its successor already.
        self.own.exact.load(Ordering::Acquire) & !(WORD - 1)
    }

    /// The word on which a producer sleeps that waits for whoever sits here.
    pub(crate) fn room_word(&self) -> &AtomicU64 {
        &self.own.waiting
    }

    /// Everything below this was let go, or more.
    #[inline]
    fn position(&self, at_least: u64) -> u64 {
        // SYNC: room handed to the producer.
        match self.head.load(Ordering::Acquire) {
            head if head >= at_least => head,
            _ => self.exact(),
        }
    }
}

/// How a ring is used; fixed at its creation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Whether subscribers may sleep, so that the producer has to ask.
    pub(crate) parks: bool,
    /// Whether subscribers have seats and hold the producer back.
    pub(crate) gated: bool,
    /// Gated subscribers that have to have come before anything is overwritten; if it is not 0, nothing
    /// is either while none of them is left.
    pub(crate) expected: u64,
    /// Whether this side fences before it looks for sleepers. If not, its processor takes part in the
    /// barriers that those make before they sleep.
    pub(crate) fences: bool,
    /// Whether a gated subscriber that is alone touches the lines that it lets go. If so, its processor takes
    /// part in the barriers that newcomers make.
    pub(crate) touch: bool,
}

/// The size of the record or padding with this header at `position`, checked against the private
/// geometry, and whether it is a message.
#[inline(always)]
fn check_record(word: u64, position: u64, capacity: u64) -> Result<(u64, bool), Corrupt> {
    let need = record(word >> 32);
    let rest = capacity - (position & (capacity - 1));
    match word & FLAGS & !(MORE | REST) {
        COMMITTED if need <= rest && word >> 32 <= max_message(capacity) => Ok((need, true)),
        flags if flags == COMMITTED | PAD && need == rest => Ok((need, false)),
        _ => Err(Corrupt {
            what: "header of a message",
            position,
        }),
    }
}
