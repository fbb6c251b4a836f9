//! One producer, one consumer, byte messages of any length.
//!
//! # The memory
//!
//! ```text
//!            acknowledged            tail (not stored on the hot path:
//!                 |                    |   it is where the first zero header stands)
//!   ..............v____________________v0000000............................
//!   free          |h|payload|h|payload||0|zeros| dirty: payload of the last lap
//!                 ^ record             ^       ^
//!                                      next    zeroed (the producer's private frontier)
//! ```
//!
//! A record is a header word and its payload, padded to 8 bytes; it never wraps: where it does not
//! fit before the end of the area, a PAD record fills the rest. The header is written last, so one
//! cache line carries a small message, length and payload. Positions are 64-bit, only grow, and are
//! taken modulo the capacity.
//!
//! # The header word
//!
//! | value | meaning | who may move it on |
//! | --- | --- | --- |
//! | 0 | nothing here yet | producer: to COMMITTED; consumer: to WAITING |
//! | WAITING | nothing yet, and the consumer sleeps or is about to (not where that is rare) | producer: to COMMITTED, and then it wakes the consumer |
//! | COMMITTED, length above | a message (MORE, REST: a fragment of a stream) | producer, a lap later |
//! | COMMITTED, PAD | nothing up to the end of the area | producer, a lap later |
//! | COMMITTED, CLOSED | the producer has left; does not advance | a new producer: to 0 |
//!
//! # The argument
//!
//! *Zero frontier.* Before publishing at `T` the header at `next(T)` is zero; after publishing `T`
//! nothing at or below `next(T)` is zeroed (the consumer may have put WAITING there already). So a
//! consumer that follows headers always ends at a zero or WAITING word, never in old payload. Room
//! for the terminator and the frontier, two lines, is always kept free. Whoever dirties words past
//! the frontier without publishing them (a reservation) lowers `zeroed` first, so nothing need be
//! undone; and a successor, who cannot know what was dirtied, zeroes all free room.
//!
//! *No lost wake-up.* WAITING and COMMITTED are in one word, changed by read-modify-writes, so one
//! comes first: either the consumer's compare-exchange fails and it sees the message, or the
//! producer's swap returns WAITING and it wakes. A producer that waits for room marks `waiting`, makes
//! a barrier, and looks at `acknowledged`; the consumer writes `acknowledged`, fences, and looks at
//! `waiting`: of the two fences one comes first, so one of them sees the other. Where sleeping is rare
//! (`rarely`) a consumer that waits for a message does the same: it marks `asleep`, makes a barrier, and looks
//! at the header; the producer stores the header, fences, and looks at `asleep`. The fence of whoever
//! publishes or acknowledges costs nothing where the sleeper's is one for all processors (`fences` false), and a
//! store does not wait, as a swap would, until all stores before it are through. Both sleep on the word that they
//! marked: one who takes the mark away late, when it was made anew, wakes after that, or keeps it from sleeping.
//! A mark that nobody took away needs no barrier when it is made again: of what was published since the last one the
//! producer would have taken it away, and what was before is seen. A consumer that cannot make barriers has the
//! producer fence, as long as it is attached.
//! A ring whose sides never sleep (`parks` false) does none of this.
//!
//! *Death.* An unpublished record is invisible. A successor of the producer finds the tail by
//! following headers. A successor of the consumer resumes at `acknowledged`: what lay between that
//! and `taken` may have been seen by the dead one, and is marked redelivered.
//!
//! *Touch.* Before it gives lines back, a consumer that is behind stores the last word of each
//! (the same value: a redelivery must see intact bytes). The line then is the consumer's own when
//! the producer comes to write it, and moves without first being shared. The word is always above
//! `acknowledged`, so nobody else accesses it.
//!
//! Sources: the in-band length word written last is Aeron's; the zero frontier, the touch, and the
//! sleeper's mark in the header are measured and argued in ARCHITECTURE.md.

use crate::primitive::{AtomicU64, CachePadded, Data, LINE, Ordering, full_fence, light_fence};

pub(crate) use crate::ring::record::{
    CLOSED, COMMITTED, Corrupt, MORE, Notify, PAD, Place, REST, Refused, max_message,
};
use crate::ring::record::{
    FLAGS, POSITION_MAX, Progress, TOUCH_AFTER, TOUCH_MOST, WORD, answer_comes, fit, header,
    line_end, record, touch_lines,
};

/// In a header word: the consumer sleeps, or is about to.
pub(crate) const WAITING: u64 = 2;
/// In `asleep`: the same, in a ring where that is rare.
const ASLEEP: u64 = 1;
/// In `asleep`: the consumer makes no barriers, and the producer is to fence.
const FENCE: u64 = 2;

/// The shared words of a ring beside its data area.
#[repr(C)]
pub(crate) struct Control {
    /// Written by the producer, and by a consumer that goes to sleep; read by observers.
    pub(crate) producer: CachePadded<Published>,
    /// How far the producer may write, published lazily by the consumer and polled by the producer.
    pub(crate) head: CachePadded<AtomicU64>,
    /// Written by the consumer (and `waiting` by the producer); the producer looks here only when the
    /// ring seems full.
    pub(crate) consumer: CachePadded<Acknowledged>,
}

/// The producer's line.
#[repr(C)]
pub(crate) struct Published {
    /// Not on the data path.
    pub(crate) progress: Progress,
    /// ASLEEP when a consumer sleeps until something is published, or is about to, in a ring where that is rare; it
    /// sleeps on this word. Also FENCE.
    pub(crate) asleep: AtomicU64,
}

/// The consumer's line.
#[repr(C)]
pub(crate) struct Acknowledged {
    /// Everything below was taken and is done with, exactly.
    pub(crate) position: AtomicU64,
    /// Everything below may have been seen; between `position` and here a successor redelivers.
    pub(crate) taken: AtomicU64,
    /// Messages so far.
    pub(crate) messages: AtomicU64,
    /// 1 when a producer sleeps until `position` grows, or is about to; it sleeps on this word.
    pub(crate) waiting: AtomicU64,
}

impl Control {
    /// The words of an empty ring, whose data area is all zero.
    pub(crate) fn new() -> Control {
        Control {
            producer: CachePadded::new(Published {
                progress: Progress::new(),
                asleep: AtomicU64::new(0),
            }),
            head: CachePadded::new(AtomicU64::new(0)),
            consumer: CachePadded::new(Acknowledged {
                position: AtomicU64::new(0),
                taken: AtomicU64::new(0),
                messages: AtomicU64::new(0),
                waiting: AtomicU64::new(0),
            }),
        }
    }
}

/// How a ring is used; fixed at its creation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Whether the two sides may sleep, and so have to look for sleepers when they publish.
    pub(crate) parks: bool,
    /// Whether they do so rarely: then whoever sleeps can as well make a barrier for both, and the consumer
    /// does not mark the next header.
    pub(crate) rarely: bool,
    /// Whether the consumer touches the lines that it gives back.
    pub(crate) touch: bool,
    /// Whether this side fences before it looks for a sleeper. If not, its processor takes part in the
    /// barrier that a sleeper makes.
    pub(crate) fences: bool,
}

impl Manner {
    /// Before a look whether the other side sleeps.
    #[inline(always)]
    fn fence(self) {
        if self.fences {
            full_fence();
        } else {
            light_fence();
        }
    }
}

/// Adds to a counter that nobody else writes; it is never read back for anything but showing it.
#[inline(always)]
fn add(counter: &AtomicU64, more: u64) {
    let count = counter.load(Ordering::Relaxed).wrapping_add(more);
    counter.store(count, Ordering::Relaxed);
}

/// Checks a committed header against the private geometry; gives the size of the record and the
/// length of its payload.
#[inline(always)]
fn check_record(word: u64, position: u64, capacity: u64) -> Result<(u64, u64), Corrupt> {
    let len = word >> 32;
    let need = record(len);
    if (position & (capacity - 1)) + need > capacity {
        return Err(Corrupt {
            what: "length of a message",
            position,
        });
    }
    Ok((need, len))
}

/// The producing side. All fields are private memory, which nothing a peer writes can move.
pub(crate) struct Tx<'a> {
    control: &'a Control,
    data: Data<'a>,
    manner: Manner,
    /// Where the next record goes, those of an open batch included.
    position: u64,
    /// No record may end above this: the acknowledged position seen last, and the capacity less the
    /// two lines kept free.
    limit: u64,
    /// Words above the next header and below this are known to be zero.
    zeroed: u64,
    /// The first header of the open batch, withheld until the batch is published.
    first: Option<(u64, u64)>,
    /// Messages in the open batch.
    staged: u64,
}

impl<'a> Tx<'a> {
    /// Takes the place of the producer: of none, or of one that left or died. The caller has proof
    /// that no other producer lives, and wakes a consumer on [`Tx::next_unread`] after this.
    pub(crate) fn resume(
        control: &'a Control,
        data: Data<'a>,
        manner: Manner,
    ) -> Result<Tx<'a>, Corrupt> {
        let capacity = data.capacity();
        // SYNC: room handed to the producer (what the consumer read there is over).
        let acknowledged = control.consumer.position.load(Ordering::Acquire) & !(WORD - 1);
        if acknowledged > POSITION_MAX {
            return Err(Corrupt {
                what: "acknowledged position",
                position: acknowledged,
            });
        }
        let mut position = acknowledged;
        loop {
            // Relaxed: these are our own predecessor's headers. Proof of its death orders all that
            // it wrote before this.
            let word = data.word(position).load(Ordering::Relaxed);
            if word & COMMITTED == 0 {
                break;
            }
            if word & CLOSED != 0 {
                // The one before left; we reopen. The consumer does not sleep on a closed header.
                // Relaxed: it carries no payload.
                data.word(position).store(0, Ordering::Relaxed);
                break;
            }
            position += check_record(word, position, capacity)?.0;
            if position > acknowledged + capacity - 2 * LINE {
                return Err(Corrupt {
                    what: "records without an end",
                    position,
                });
            }
        }
        // What the one before wrote and did not publish would go live as headers later on. The word
        // at `position` itself is zero or WAITING, and must stay so.
        // SAFETY: the room between the tail and the acknowledged position a lap on is the
        // producer's, which is us.
        unsafe { data.zero(position + WORD, acknowledged + capacity) };
        // Relaxed: for observers.
        let progress = &control.producer.progress;
        progress.position.store(position, Ordering::Relaxed);
        if manner.rarely {
            let asleep = &control.producer.asleep;
            // SYNC: message and sleepers. The one before may have died between publishing and its look at the mark:
            // whoever marks it after this sees the message; who did so before is woken by the caller.
            full_fence();
            // Relaxed: the fence orders it.
            asleep.fetch_and(!ASLEEP, Ordering::Relaxed);
        }
        let limit = acknowledged + capacity - 2 * LINE;
        let zeroed = line_end(position);
        Ok(Tx {
            control,
            data,
            manner,
            position,
            limit,
            zeroed,
            first: None,
            staged: 0,
        })
    }

    /// The view of the data area.
    #[inline(always)]
    pub(crate) fn data(&self) -> Data<'a> {
        self.data
    }

    /// Where the next header goes, unless a batch is open.
    #[inline(always)]
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Publishes one message, no longer than [`max_message`], if it fits without padding into the room
    /// known of; otherwise nothing happens. No batch is open. The fast path, kept short: the processor
    /// looks a few hundred instructions ahead, and the fewer a message takes, the more lines are under
    /// way at once.
    #[inline(always)]
    pub(crate) fn send_at_once(&mut self, message: &[u8], flags: u64) -> Option<Notify> {
        let (at, len, data) = (self.position, message.len() as u64, self.data);
        let end = at + record(len);
        let fits = (at & (data.capacity() - 1)) + record(len) <= data.capacity();
        if !fits || end > self.limit {
            return None;
        }
        // SAFETY: free room (`limit`), whole and without wrapping (`fits`).
        unsafe { data.copy_in(at + WORD, message) };
        Some(self.publish_from(at, header(len, flags), 1, end))
    }

    /// Publishes one message, no longer than [`max_message`]. No batch is open.
    pub(crate) fn try_send(&mut self, message: &[u8], flags: u64) -> Result<Notify, Refused> {
        let place = self.find(message.len() as u64)?;
        // SAFETY: `find` gave free room, whole and without wrapping.
        unsafe { self.data.copy_in(place.payload(), message) };
        Ok(self.publish_at(place, message.len() as u64, flags))
    }

    /// Finds room for a message of `len` bytes, no more than [`max_message`], that is written in
    /// place. Nothing need be done to give it up. No batch is open.
    #[inline]
    pub(crate) fn reserve(&mut self, len: u64) -> Result<Place, Refused> {
        let place = self.find(len)?;
        // From here on the room may be dirtied: nothing past the next header is known to be zero.
        self.zeroed = self.position + WORD;
        Ok(place)
    }

    /// Publishes the first `len` bytes of what was written in a reserved place.
    #[inline]
    pub(crate) fn commit(&mut self, place: Place, len: u64, flags: u64) -> Notify {
        debug_assert!(len <= place.len && place.header >= self.position);
        if len == place.len {
            // All that was dirtied is now payload: the old frontier holds again.
            self.zeroed = place.zeroed;
        }
        self.publish_at(place, len, flags)
    }

    /// Writes a message, no longer than [`max_message`], behind those of the open batch, or opens
    /// one; the consumer sees none of them before [`Tx::publish`].
    pub(crate) fn stage(&mut self, message: &[u8]) -> Result<(), Refused> {
        let len = message.len() as u64;
        let place = self.find(len)?;
        // SAFETY: `find` gave free room, whole and without wrapping.
        unsafe { self.data.copy_in(place.payload(), message) };
        let (at, word) = self.first_header(place, header(len, 0));
        if self.first.is_none() {
            self.first = Some((at, word));
        } else {
            // Relaxed: made visible by the release of the batch's first header.
            self.data.word(at).store(word, Ordering::Relaxed);
        }
        self.staged += 1;
        self.position = place.header + record(len);
        Ok(())
    }

    /// The open batch, to be written on: for as many messages as fit without padding into the room known
    /// of, and into `most` bytes of batch.
    #[inline(always)]
    pub(crate) fn run(&mut self, most: u64) -> Run<'_, 'a> {
        let lap = (self.position | (self.data.capacity() - 1)) + 1;
        let stop = match self.first {
            Some((first, _)) => self.limit.min(lap).min(first + most),
            None => 0,
        };
        Run {
            data: self.data,
            position: self.position,
            stop,
            staged: self.staged,
            tx: self,
        }
    }

    /// Bytes in the open batch, headers and padding included.
    #[inline(always)]
    pub(crate) fn staged(&self) -> u64 {
        self.first.map_or(0, |(at, _)| self.position - at)
    }

    /// Publishes the open batch, if any: its first header is written last.
    #[inline(always)]
    pub(crate) fn publish(&mut self) -> Notify {
        match self.first.take() {
            Some((at, word)) => {
                let staged = core::mem::take(&mut self.staged);
                self.publish_from(at, word, staged, self.position)
            }
            None => Notify::Nobody,
        }
    }

    /// Marks the ring closed. Messages before the mark are still received. No batch is open.
    pub(crate) fn close(&mut self) -> Notify {
        self.publish_header(self.position, header(0, CLOSED))
    }

    /// True when a message of `len` bytes has room now, by the exact acknowledged position.
    pub(crate) fn has_room(&mut self, len: u64) -> Result<bool, Corrupt> {
        match self.find(len) {
            Ok(_) => Ok(true),
            Err(Refused::Full) => Ok(false),
            Err(Refused::Corrupt(corrupt)) => Err(corrupt),
        }
    }

    /// True when a message of `len` bytes has room by the position that the consumer publishes
    /// lazily. For spinning: it does not drag the consumer's own line over.
    #[inline]
    pub(crate) fn has_room_lazily(&mut self, len: u64) -> Result<bool, Corrupt> {
        // SYNC: room handed to the producer.
        self.raise_limit(self.control.head.load(Ordering::Acquire))?;
        Ok(self.fit(len).1 <= self.limit)
    }

    /// Marks that the producer is going to sleep until `acknowledged` grows, and looks once more.
    /// Returns the value of the word to sleep on, or `None` when a message of `len` bytes has room now.
    /// `barrier` is a full fence at least, and one for the processors of consumers that do not fence.
    pub(crate) fn announce(
        &mut self,
        len: u64,
        barrier: impl FnOnce(),
    ) -> Result<Option<u64>, Corrupt> {
        let consumer = &self.control.consumer;
        // Relaxed: the barrier orders it.
        consumer.waiting.store(1, Ordering::Relaxed);
        // SYNC: room and sleepers. Between the mark and the look at the room.
        barrier();
        // SYNC: room handed to the producer.
        let seen = consumer.position.load(Ordering::Acquire);
        self.raise_limit(seen & !(WORD - 1))?;
        if self.fit(len).1 > self.limit {
            return Ok(Some(1));
        }
        // Relaxed: it spares the consumer a wake-up, and nothing hangs on it.
        consumer.waiting.store(0, Ordering::Relaxed);
        Ok(None)
    }

    /// The word on which a producer sleeps.
    pub(crate) fn sleeping_word(&self) -> &'a AtomicU64 {
        &self.control.consumer.waiting
    }

    /// The word on which the consumer sleeps, if it does and has acknowledged all that it took. For a
    /// successor: the one before may have been killed between publishing and waking.
    pub(crate) fn next_unread(&self) -> &'a AtomicU64 {
        // Relaxed: a wake-up on another word than the consumer's does nothing.
        self.waited_for(self.control.consumer.position.load(Ordering::Relaxed))
    }

    /// The word on which a consumer sleeps that waits for the header at `at`.
    pub(crate) fn waited_for(&self, at: u64) -> &'a AtomicU64 {
        waited_for(self.control, self.data, self.manner, at)
    }

    /// Where the header of a record with `len` bytes of payload goes, and where the record ends.
    #[inline(always)]
    fn fit(&self, len: u64) -> (u64, u64) {
        fit(self.position, len, self.data.capacity())
    }

    #[inline(always)]
    fn find(&mut self, len: u64) -> Result<Place, Refused> {
        debug_assert!(len <= max_message(self.data.capacity()));
        let (at, end) = self.fit(len);
        if end > self.limit {
            self.refresh(end)?;
        }
        Ok(Place {
            header: at,
            len,
            zeroed: self.zeroed,
        })
    }

    /// Possibly full: looks at `head`, then, before it says so, at the exact position.
    #[cold]
    #[inline(never)]
    fn refresh(&mut self, end: u64) -> Result<(), Refused> {
        for word in [&*self.control.head, &self.control.consumer.position] {
            // SYNC: room handed to the producer.
            let seen = word.load(Ordering::Acquire) & !(WORD - 1);
            self.raise_limit(seen).map_err(Refused::Corrupt)?;
            if end <= self.limit {
                return Ok(());
            }
        }
        Err(Refused::Full)
    }

    fn raise_limit(&mut self, acknowledged: u64) -> Result<(), Corrupt> {
        if acknowledged > self.position {
            return Err(Corrupt {
                what: "acknowledged beyond the tail",
                position: acknowledged,
            });
        }
        // Never back: `head` lags behind the exact position, and a peer may write anything.
        self.limit = self
            .limit
            .max(acknowledged + self.data.capacity() - 2 * LINE);
        Ok(())
    }

    /// The header to be published first for a record at `place`: its own, or that of the padding
    /// before it, behind which its own is then written at once.
    #[inline(always)]
    fn first_header(&mut self, place: Place, word: u64) -> (u64, u64) {
        if place.header == self.position {
            (place.header, word)
        } else {
            self.pad(place, word)
        }
    }

    #[cold]
    fn pad(&mut self, place: Place, word: u64) -> (u64, u64) {
        // Relaxed: made visible by the release of the padding before it, or of the batch's first.
        self.data.word(place.header).store(word, Ordering::Relaxed);
        (
            self.position,
            header(place.header - self.position - WORD, PAD),
        )
    }

    #[inline(always)]
    fn publish_at(&mut self, place: Place, len: u64, flags: u64) -> Notify {
        let (at, word) = self.first_header(place, header(len, flags));
        self.publish_from(at, word, 1, place.header + record(len))
    }

    /// Publishes everything from the header at `at`, which becomes `word`, to `end`. (Which is given, and not
    /// read back from `position`: that would wait until it is stored.)
    #[inline(always)]
    fn publish_from(&mut self, at: u64, word: u64, messages: u64, end: u64) -> Notify {
        // At hand: to the compiler, each store to the ring could have changed the fields.
        let (data, control) = (self.data, self.control);
        let mut zeroed = self.zeroed;
        if end >= zeroed {
            zeroed = line_end(end);
            // SAFETY: free room, by the two lines kept back in `limit`; not published yet.
            unsafe { data.zero_rest_of_line(end) };
        }
        let notify = self.publish_header(at, word);
        // From here on off the critical path: the consumer is on its way already. (A single message that ends with a line
        // zeroes one more, or a record of one line would always find the next one not its producer's yet.)
        if zeroed < end + LINE + u64::from(messages == 1) {
            // SAFETY: free room, by the two lines kept back in `limit`. It lies above the header
            // after the last record, so the consumer does not look at it before the next release.
            unsafe { data.zero_line(zeroed) };
            zeroed += LINE;
        }
        (self.position, self.zeroed) = (end, zeroed);
        // Relaxed: for observers, who act on nothing.
        let progress = &control.producer.progress;
        progress.position.store(end, Ordering::Relaxed);
        add(&progress.messages, messages);
        notify
    }

    #[inline(always)]
    fn publish_header(&mut self, at: u64, word: u64) -> Notify {
        // SYNC: payload visible to the consumer. Release: everything written to the record, to
        // the later records of a batch, and the zero after them happens before the consumer sees
        // this word. No acquire: nothing is read on the strength of WAITING.
        let header = self.data.word(at);
        let asleep = if !self.manner.parks {
            header.store(word, Ordering::Release);
            false
        } else if self.manner.rarely {
            header.store(word, Ordering::Release);
            self.has_sleeper()
        } else {
            header.swap(word, Ordering::Release) & WAITING != 0
        };
        if asleep { Notify::Peer } else { Notify::Nobody }
    }

    /// After publishing: whether a consumer may be asleep that waits for it.
    #[inline(always)]
    fn has_sleeper(&self) -> bool {
        // SYNC: message and sleepers. Between the published header and the look at the mark.
        self.manner.fence();
        // Relaxed: the fence orders it.
        self.control.producer.asleep.load(Ordering::Relaxed) != 0
    }

    /// After [`Notify::Peer`]: whether to wake the consumer. Takes its mark away, where it has one of its own.
    #[cold]
    pub(crate) fn takes_the_mark(&self) -> bool {
        if !self.manner.rarely {
            return true;
        }
        let asleep = &self.control.producer.asleep;
        if asleep.load(Ordering::Relaxed) & FENCE != 0 {
            // SYNC: message and sleepers. Between the published header and the look at the mark, for one whose
            // barrier does not reach this processor.
            full_fence();
        }
        // Relaxed, both: a fence orders the look, and whoever marks it anew looks at the header after that.
        asleep.load(Ordering::Relaxed) & ASLEEP != 0
            && asleep.fetch_and(!ASLEEP, Ordering::Relaxed) & ASLEEP != 0
    }
}

/// An open batch while it is written on. What changes with each message is here and not in the [`Tx`], which
/// gets it in the end: here the compiler keeps it in registers, there every message would wait until what
/// the one before stored can be loaded.
pub(crate) struct Run<'t, 'a> {
    tx: &'t mut Tx<'a>,
    data: Data<'a>,
    position: u64,
    /// No record may end above this; 0 when no batch is open.
    stop: u64,
    staged: u64,
}

impl Run<'_, '_> {
    /// Writes a message behind those of the batch; false, and nothing happens, if it does not fit.
    #[inline(always)]
    pub(crate) fn stage(&mut self, message: &[u8]) -> bool {
        let (at, len) = (self.position, message.len() as u64);
        let end = at + record(len);
        if end > self.stop {
            return false;
        }
        // SAFETY: free room, whole and without wrapping (`stop`).
        unsafe { self.data.copy_in(at + WORD, message) };
        // Relaxed: made visible by the release of the batch's first header.
        self.data.word(at).store(header(len, 0), Ordering::Relaxed);
        self.position = end;
        self.staged += 1;
        true
    }
}

impl Drop for Run<'_, '_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.tx.position = self.position;
        self.tx.staged = self.staged;
    }
}

/// A message that is there to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Where its payload begins.
    pub(crate) payload: u64,
    /// Length of the payload, in bytes; inside the data area, without wrapping.
    pub(crate) len: u64,
    /// MORE, REST and AGAIN, or nothing. (AGAIN is no field of its own: a byte that is written and
    /// read back with its padding, as the compiler does when it moves a record about, is not forwarded
    /// from the store buffer, and cost four fifths of the time at 8 bytes.)
    pub(crate) flags: u64,
}

/// Where a consumer is, for as long as it takes one message after the other: at hand, as in [`Run`].
pub(crate) struct Walk {
    position: u64,
    messages: u64,
}

/// A consumer that passes along messages without anything else in between. What changes with each is here and not
/// in the [`Rx`], which gets it in the end: in registers. Each store of a message, wherever to, would wait in line behind
/// those that touch lines, until these have come over.
pub(crate) struct Passage<'r, 'a> {
    rx: &'r mut Rx<'a>,
    data: Data<'a>,
    position: u64,
    messages: u64,
    /// As in [`Rx`].
    like: (u64, u64),
    /// No record may end above this: where the area ends; 0 where messages may have been seen.
    stop: u64,
}

impl Passage<'_, '_> {
    /// The next message, if it is a whole one that nobody has seen: where its payload is, and its length in bytes.
    /// It is counted by [`Rx::count_passed`].
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<(u64, u64)> {
        let at = self.position;
        // SYNC: payload visible to the consumer. Acquire: the payload is read after the header.
        let word = self.data.word(at).load(Ordering::Acquire);
        if word != self.like.0 {
            if word & FLAGS != COMMITTED {
                return None;
            }
            self.like = (word, record(word >> 32));
        }
        let end = at + self.like.1;
        if end > self.stop {
            return None;
        }
        self.position = end;
        self.messages += 1;
        // Relaxed: as in `Rx::taken`.
        let taken = &self.rx.control.consumer.taken;
        taken.store(end, Ordering::Relaxed);
        Some((at + WORD, word >> 32))
    }
}

impl Drop for Passage<'_, '_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.rx.position = self.position;
        self.rx.passed += self.messages;
        self.rx.like = self.like;
    }
}

/// Flag of a record, never of a header: a consumer that died may have seen it.
pub(crate) const AGAIN: u64 = 1 << 63;

/// What a look at the next header gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A message.
    Message(Record),
    /// Nothing yet.
    Empty,
    /// Nothing, and the producer has left.
    Closed,
}

/// The consuming side. All fields are private memory, which nothing a peer writes can move.
pub(crate) struct Rx<'a> {
    control: &'a Control,
    data: Data<'a>,
    manner: Manner,
    /// The next header to look at: everything below was handed out.
    position: u64,
    /// Everything below was given back.
    acknowledged: u64,
    /// The last plain header, and the bytes of its record. Messages are mostly as long as the one before:
    /// the processor takes that for granted, and goes on to the next header before it has this one.
    like: (u64, u64),
    /// The value of `head` that was published last.
    published: u64,
    /// Messages below this may have been seen by one that died.
    redelivered: u64,
    /// Whether the mark that it made in `asleep` last was followed by a barrier for all processors.
    barred: bool,
    /// Messages passed along that are not counted yet.
    passed: u64,
    /// Where `position` and the count of messages stood when the ring was last found empty.
    rested: (u64, u64),
}

impl<'a> Rx<'a> {
    /// Takes the place of the consumer: of none, or of one that left or died. The caller has proof
    /// that no other consumer lives.
    pub(crate) fn resume(
        control: &'a Control,
        data: Data<'a>,
        manner: Manner,
    ) -> Result<Rx<'a>, Corrupt> {
        // Relaxed, all: our own predecessor's words. Proof of its death orders all that it wrote.
        let acknowledged = control.consumer.position.load(Ordering::Relaxed) & !(WORD - 1);
        let head = control.head.load(Ordering::Relaxed);
        if acknowledged > POSITION_MAX {
            return Err(Corrupt {
                what: "acknowledged position",
                position: acknowledged,
            });
        }
        if head > acknowledged || acknowledged - head > data.capacity() {
            return Err(Corrupt {
                what: "head",
                position: head,
            });
        }
        if manner.rarely {
            // Relaxed: nothing orders it against a message that is just being published. What its producer does not
            // see then is found after a slice of sleep; all later ones are published behind a fence.
            let asleep = &control.producer.asleep;
            if manner.fences {
                asleep.fetch_or(FENCE, Ordering::Relaxed);
            } else {
                asleep.fetch_and(!FENCE, Ordering::Relaxed);
            }
        }
        Ok(Rx {
            control,
            data,
            manner,
            position: acknowledged,
            acknowledged,
            like: (header(0, 0), record(0)),
            published: head,
            redelivered: control.consumer.taken.load(Ordering::Relaxed),
            barred: false,
            passed: 0,
            rested: (acknowledged, 0),
        })
    }

    /// The view of the data area.
    #[inline(always)]
    pub(crate) fn data(&self) -> Data<'a> {
        self.data
    }

    /// The next header to look at.
    #[inline(always)]
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The message at `at`, if it is a whole one that nobody has seen: its length, and where its record
    /// ends. The fast path, kept short as that of the producer is.
    #[inline(always)]
    fn plain(&mut self, at: u64) -> Option<(u64, u64)> {
        let data = self.data;
        // SYNC: payload visible to the consumer. Acquire: the payload is read after the header.
        let word = data.word(at).load(Ordering::Acquire);
        if word != self.like.0 {
            if word & FLAGS != COMMITTED {
                return None;
            }
            self.like = (word, record(word >> 32));
        }
        let (need, capacity) = (self.like.1, data.capacity());
        let fits = (at & (capacity - 1)) + need <= capacity;
        (fits && at >= self.redelivered).then_some((word >> 32, at + need))
    }

    /// Takes the next message if it is a whole one that nobody has seen; otherwise nothing happens.
    /// Returns where its payload is and its length, in bytes.
    #[inline(always)]
    pub(crate) fn take_at_once(&mut self) -> Option<(u64, u64)> {
        let at = self.position;
        let (len, end) = self.plain(at)?;
        self.position = end;
        self.taken();
        Some((at + WORD, len))
    }

    /// Along the messages that are there.
    #[inline(always)]
    pub(crate) fn passage(&mut self) -> Passage<'_, 'a> {
        let lap = (self.position | (self.data.capacity() - 1)) + 1;
        Passage {
            data: self.data,
            position: self.position,
            messages: 0,
            like: self.like,
            stop: if self.position < self.redelivered {
                0
            } else {
                lap
            },
            rx: self,
        }
    }

    /// Counts what was passed along.
    #[inline(always)]
    pub(crate) fn count_passed(&mut self) {
        let passed = core::mem::take(&mut self.passed);
        add(&self.control.consumer.messages, passed);
    }

    /// Where a consumer is that takes one message after the other.
    #[inline(always)]
    pub(crate) fn walk(&self) -> Walk {
        Walk {
            position: self.position,
            // Relaxed: our own counter.
            messages: self.control.consumer.messages.load(Ordering::Relaxed),
        }
    }

    /// As [`Rx::take_at_once`], for one who has taken nothing but by `walk` since it began.
    #[inline(always)]
    pub(crate) fn take_on(&mut self, walk: &mut Walk) -> Option<(u64, u64)> {
        debug_assert!(walk.position == self.position);
        let at = walk.position;
        let (len, end) = self.plain(at)?;
        walk.position = end;
        walk.messages = walk.messages.wrapping_add(1);
        self.position = end;
        let consumer = &self.control.consumer;
        // Relaxed: as in `taken`.
        consumer.taken.store(end, Ordering::Relaxed);
        consumer.messages.store(walk.messages, Ordering::Relaxed);
        Some((at + WORD, len))
    }

    /// Has `read` read the next message if it is a whole one that nobody has seen, and acknowledges it;
    /// otherwise, or if `read` refuses it, nothing happens. `read` gets where the payload is and its
    /// length, in bytes. Nothing is open. A consumer that dies in `read` has not handed the message to
    /// anybody.
    #[inline(always)]
    pub(crate) fn consume_at_once(
        &mut self,
        read: impl FnOnce(Data<'a>, u64, u64) -> bool,
    ) -> Option<Notify> {
        let (at, data, control) = (self.position, self.data, self.control);
        let (len, end) = self.plain(at)?;
        if !read(data, at + WORD, len) {
            return None;
        }
        self.position = end;
        add(&control.consumer.messages, 1);
        Some(self.give_back(at, end))
    }

    /// Looks for the next message, and takes it: it is the consumer's until [`Rx::acknowledge`].
    #[inline(always)]
    pub(crate) fn take(&mut self) -> Result<Next, Corrupt> {
        // SYNC: payload visible to the consumer. Acquire: the payload is read after the header.
        let word = self.data.word(self.position).load(Ordering::Acquire);
        if word & COMMITTED == 0 {
            return Ok(Next::Empty);
        }
        if word & (FLAGS & !(COMMITTED | MORE | REST)) != 0 {
            return self.take_special(word);
        }
        self.take_record(word)
    }

    #[inline(always)]
    fn take_record(&mut self, word: u64) -> Result<Next, Corrupt> {
        let at = self.position;
        let (need, len) = check_record(word, at, self.data.capacity())?;
        self.position = at + need;
        self.taken();
        Ok(Next::Message(Record {
            payload: at + WORD,
            len,
            flags: word & (MORE | REST) | if at < self.redelivered { AGAIN } else { 0 },
        }))
    }

    #[cold]
    fn take_special(&mut self, word: u64) -> Result<Next, Corrupt> {
        if word & FLAGS == COMMITTED | CLOSED {
            return Ok(Next::Closed);
        }
        let at = self.position;
        let capacity = self.data.capacity();
        let offset = at & (capacity - 1);
        if word & FLAGS != COMMITTED | PAD || word >> 32 != capacity - offset - WORD {
            return Err(Corrupt {
                what: "header of a message",
                position: at,
            });
        }
        let start = at + capacity - offset;
        // Relaxed: the padding, which was acquired, was published after the record behind it.
        let word = self.data.word(start).load(Ordering::Relaxed);
        // The padding is published together with the record after it, which is no padding: so the
        // steps taken here are bounded, whatever a peer writes.
        if word & FLAGS & !(MORE | REST) != COMMITTED {
            return Err(Corrupt {
                what: "header after padding",
                position: start,
            });
        }
        self.position = start;
        let taken = self.take_record(word);
        if taken.is_err() {
            self.position = at;
        }
        taken
    }

    /// Before a message is handed out: it is known to have been seen.
    #[inline(always)]
    fn taken(&self) {
        // Relaxed: a successor reads it after proof of our death, which orders everything.
        self.control
            .consumer
            .taken
            .store(self.position, Ordering::Relaxed);
        add(&self.control.consumer.messages, 1);
    }

    /// Whether something was taken that is not acknowledged.
    #[inline(always)]
    pub(crate) fn is_open(&self) -> bool {
        self.position != self.acknowledged
    }

    /// Bytes taken that are not acknowledged, headers and padding included.
    pub(crate) fn open(&self) -> u64 {
        self.position - self.acknowledged
    }

    /// Undoes the last [`Rx::take`], with nothing else open: the message is still to be taken.
    pub(crate) fn put_back(&mut self) {
        self.position = self.acknowledged;
        add(&self.control.consumer.messages, 1u64.wrapping_neg());
    }

    /// The word on which a producer sleeps.
    pub(crate) fn room_word(&self) -> &'a AtomicU64 {
        &self.control.consumer.waiting
    }

    /// Gives back everything that was taken.
    #[inline(always)]
    pub(crate) fn acknowledge(&mut self) -> Notify {
        self.give_back(self.acknowledged, self.position)
    }

    /// Gives back everything between `from`, where `acknowledged` is, and `to`, where `position` is.
    #[inline(always)]
    fn give_back(&mut self, from: u64, to: u64) -> Notify {
        let (data, control) = (self.data, self.control);
        self.acknowledged = to;
        // Asked here, so that question and answer, where nobody is behind, is spared the call.
        if (from ^ to) >= LINE && self.manner.touch && to - self.rested.0 > TOUCH_AFTER {
            self.touch(from, to);
        }
        // SYNC: room handed to the producer. Release: our reads are over before it writes there.
        control.consumer.position.store(to, Ordering::Release);
        if to - self.published >= data.capacity() / 8 {
            self.publish_head(to);
        }
        if self.manner.parks && self.has_sleeper() {
            // Relaxed: whoever marks it anew looks at the room after that.
            self.control.consumer.waiting.store(0, Ordering::Relaxed);
            return Notify::Peer;
        }
        Notify::Nobody
    }

    /// After acknowledging: whether a producer may be asleep for want of the room.
    #[inline(always)]
    fn has_sleeper(&self) -> bool {
        // SYNC: room and sleepers. Between the acknowledged position and the look at the mark.
        self.manner.fence();
        // Relaxed: the fence orders it.
        self.control.consumer.waiting.load(Ordering::Relaxed) != 0
    }

    /// Publishes to the producer how far it may write.
    #[inline]
    fn publish_head(&mut self, to: u64) {
        self.published = to;
        // SYNC: room handed to the producer. Release: as for the exact position.
        self.control.head.store(to, Ordering::Release);
    }

    /// To be called when [`Rx::take`] said Empty: the producer learns of all the room there is.
    /// Returns the bytes taken since this was called last, or 0 if they were just one message: that,
    /// however long, is an answer and no streak.
    #[inline]
    pub(crate) fn rest(&mut self) -> u64 {
        if self.published != self.acknowledged {
            self.publish_head(self.acknowledged);
        }
        // Relaxed: our own counter.
        let messages = self.control.consumer.messages.load(Ordering::Relaxed);
        let (from, before) = core::mem::replace(&mut self.rested, (self.position, messages));
        if messages.wrapping_sub(before) > 1 {
            self.position - from
        } else {
            0
        }
    }

    /// When nothing is there, and the last thing was one single message, as in question and answer: looks
    /// for a microsecond or so whether the next one comes.
    pub(crate) fn answer_comes(&mut self) -> bool {
        // Relaxed: our own counter.
        let messages = self.control.consumer.messages.load(Ordering::Relaxed);
        if messages.wrapping_sub(self.rested.1) != 1 || self.is_open() {
            return false;
        }
        self.rested = (self.position, messages);
        answer_comes(|| self.has_next())
    }

    /// For a consumer that is behind: stores the last word of every line that ends in `from..=to`, unchanged, unless
    /// these are more than TOUCH_MOST bytes.
    #[inline(never)]
    fn touch(&self, from: u64, to: u64) {
        if to - from > TOUCH_MOST {
            return;
        }
        // No participant that keeps the protocol accesses these words until they are acknowledged.
        touch_lines(self.data, from, to);
    }

    /// Marks that the consumer is going to sleep until the next header changes. Returns the value
    /// of the word to sleep on, or `None` when there is something now. Where it sleeps rarely, `barrier` is called: a
    /// full fence at least, and one for the processors of producers that do not fence if it returns true.
    pub(crate) fn announce(
        &mut self,
        barrier: impl FnOnce() -> bool,
    ) -> Result<Option<u64>, Corrupt> {
        if self.manner.rarely {
            return self.announce_apart(barrier);
        }
        let word = self.data.word(self.position);
        // Relaxed: on success nothing is read on the strength of it; on failure `take` loads again.
        match word.compare_exchange(0, WAITING, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Ok(Some(WAITING)),
            // A mark left by ourselves at a time-out, or by one who died asleep.
            Err(WAITING) => Ok(Some(WAITING)),
            Err(word) if word & COMMITTED != 0 => Ok(None),
            Err(_) => Err(Corrupt {
                what: "header of a message",
                position: self.position,
            }),
        }
    }

    fn announce_apart(&mut self, barrier: impl FnOnce() -> bool) -> Result<Option<u64>, Corrupt> {
        let asleep = &self.control.producer.asleep;
        // Relaxed, all: the barrier orders them.
        let mut mark = asleep.load(Ordering::Relaxed);
        if mark & ASLEEP == 0 || !self.barred {
            mark = asleep.fetch_or(ASLEEP, Ordering::Relaxed) | ASLEEP;
            // SYNC: message and sleepers. Between the mark and the look at the header.
            self.barred = barrier();
        }
        self.check_next()?;
        if !self.has_next() {
            return Ok(Some(mark));
        }
        // Relaxed: it spares the producer a wake-up, and nothing hangs on it.
        asleep.fetch_and(!ASLEEP, Ordering::Relaxed);
        Ok(None)
    }

    /// Refuses a next header that no honest producer writes.
    pub(crate) fn check_next(&self) -> Result<(), Corrupt> {
        // Relaxed: nothing is read on the strength of it.
        let word = self.data.word(self.position).load(Ordering::Relaxed);
        if word & COMMITTED != 0 || word & !WAITING == 0 {
            return Ok(());
        }
        Err(Corrupt {
            what: "header of a message",
            position: self.position,
        })
    }

    /// Whether the next header says anything (for one who wakes).
    pub(crate) fn has_next(&self) -> bool {
        // Relaxed: `take` looks again.
        self.data.word(self.position).load(Ordering::Relaxed) & COMMITTED != 0
    }

    /// The word on which a consumer sleeps.
    pub(crate) fn sleeping_word(&self) -> &'a AtomicU64 {
        waited_for(self.control, self.data, self.manner, self.position)
    }
}

/// The word on which a consumer sleeps that waits for the header at `at`.
fn waited_for<'a>(control: &'a Control, data: Data<'a>, manner: Manner, at: u64) -> &'a AtomicU64 {
    if manner.rarely {
        &control.producer.asleep
    } else {
        data.word(at)
    }
}
