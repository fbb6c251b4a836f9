//! The subscribing side.

use super::{
    CHECKPOINTS, CLOSED, COMMITTED, Control, Corrupt, FLAGS, GONE, MORE, Manner, Notify, REST,
    Seat, Spot, TRIES, WORD, answer_comes, check_record, record,
};
use crate::primitive::{Data, LINE, Ordering, fence, full_fence, light_fence};
use crate::ring::record::{TOUCH_AFTER, TOUCH_MOST, touch_lines};

/// Where a subscriber begins, and where one goes on that was overrun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Start {
    /// At the oldest message that is still there.
    Oldest,
    /// At the last message that was sent; at the next one if there is none.
    Newest,
    /// At the next message to be sent.
    #[default]
    Next,
    /// So that it gets the last so many messages, or as many of them as are still there.
    Last(u64),
}

/// A message that is there to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Where its payload begins.
    pub(crate) payload: u64,
    /// Length of the payload, in bytes; inside the data area, without wrapping.
    pub(crate) len: u64,
    /// MORE and REST, or nothing.
    pub(crate) flags: u64,
}

impl Record {
    #[inline(always)]
    fn end(self) -> u64 {
        self.payload - WORD + record(self.len)
    }
}

/// Whether a gated subscriber lends messages out where they lie.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lends {
    /// Copies only: it could not make the barrier that tells others to touch nothing.
    Copies,
    /// Copies, until it comes to a header that is not there yet.
    CopiesYet,
    /// Yes: nobody else touches them.
    InPlace,
}

/// What a look at the next header gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A message. To a free subscriber it is one only if [`Rx::is_intact`] says so after it was read.
    Message(Record),
    /// Nothing yet.
    Empty,
    /// Nothing, and the producer has left.
    Closed,
    /// It was overwritten: [`Rx::skip`].
    Overrun,
}

/// A subscriber: gated, with a seat, or free. All fields but the views are private memory.
pub(crate) struct Rx<'a> {
    control: &'a Control,
    data: Data<'a>,
    /// Whether the producer may sleep for want of what this one holds.
    parks: bool,
    /// See [`Manner::fences`].
    fences: bool,
    seat: Option<&'a Seat>,
    /// All seats, and which is ours.
    seats: (&'a [Seat], usize),
    /// The value of `joined` as long as which nobody else has a seat; 0 when somebody may have.
    alone: u64,
    /// See [`Manner::touch`].
    touch: bool,
    /// Whether messages may be lent out where they lie.
    lends: Lends,
    /// The next header to look at, and which message that is.
    next: Spot,
    /// Bytes below that were handed out and not let go.
    open: u64,
    /// The value of the seat's `head`.
    published: u64,
    /// The mark `oldest` as last seen: how often it was moved, and its position.
    oldest: (u64, u64),
    /// What was next when nothing was there last.
    rested: Spot,
}

impl<'a> Rx<'a> {
    /// A free subscriber: it holds nobody back, and writes nothing.
    pub(crate) fn free(
        control: &'a Control,
        data: Data<'a>,
        start: Start,
    ) -> Result<Rx<'a>, Corrupt> {
        let mut rx = Rx {
            control,
            data,
            parks: false,
            fences: false,
            seat: None,
            seats: (&[], 0),
            alone: 0,
            touch: false,
            lends: Lends::Copies,
            next: Spot::default(),
            open: 0,
            published: 0,
            oldest: (0, 0),
            rested: Spot::default(),
        };
        rx.locate(start)?;
        rx.rested = rx.next;
        Ok(rx)
    }

    /// A gated subscriber in the seat `index`, which is the caller's. `barrier` is a fence for the processors of
    /// all that touch; false if it could not be made.
    pub(crate) fn gated(
        control: &'a Control,
        seats: &'a [Seat],
        index: usize,
        data: Data<'a>,
        manner: Manner,
        start: Start,
        barrier: impl FnOnce() -> bool,
    ) -> Result<Rx<'a>, Corrupt> {
        let seat = &seats[index];
        // Relaxed, failing: tried again with what it is.
        let mut used = control.seats.load(Ordering::Relaxed);
        while used <= index as u64 {
            // Relaxed: what is published below publishes it, too; a seat never used is free from the beginning.
            used = match control.seats.compare_exchange(
                used,
                index as u64 + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(used) => used,
            };
        }
        let (turn, oldest) = control.oldest.read()?;
        seat.head.store(oldest.position, Ordering::Relaxed);
        seat.own.exact.store(oldest.position, Ordering::Relaxed);
        // SEQCST: SYNC: seated before looking, moved before asking. If the mark was moved by one who did not
        // see the seat, `locate` sees that, and begins there. From that on nothing is overwritten.
        full_fence();
        // Count first: `expected` may have been what kept that so.
        // SYNC: who came is seen in its seat. Relaxed: the fence above releases.
        control.joined.fetch_add(1, Ordering::Relaxed);
        // SYNC: joined before touched. Whoever touches from here on sees that this one came.
        let lends = match barrier() {
            true => Lends::CopiesYet,
            false => Lends::Copies,
        };
        let mut rx = Rx {
            control,
            data,
            parks: manner.parks,
            fences: manner.fences,
            seat: Some(seat),
            seats: (seats, index),
            alone: 0,
            touch: manner.touch,
            lends,
            next: oldest,
            open: 0,
            published: oldest.position,
            oldest: (turn, oldest.position),
            rested: oldest,
        };
        rx.locate(start)?;
        if rx.next.position < oldest.position {
            return Err(Corrupt {
                what: "mark that goes back",
                position: rx.next.position,
            });
        }
        rx.rested = rx.next;
        rx.look_around();
        // Nobody waits for what was just taken, or it looks again: a slice of sleep at most.
        let _ = rx.let_go();
        Ok(rx)
    }

    /// The view of the data area.
    #[inline(always)]
    pub(crate) fn data(&self) -> Data<'a> {
        self.data
    }

    /// The next header to look at.
    #[inline(always)]
    pub(crate) fn position(&self) -> u64 {
        self.next.position
    }

    /// Which message comes next.
    #[inline(always)]
    pub(crate) fn sequence(&self) -> u64 {
        self.next.sequence
    }

    /// Goes to where `start` says.
    fn locate(&mut self, start: Start) -> Result<(), Corrupt> {
        for _ in 0..TRIES {
            let (_, recent) = self.control.producer.recent.read()?;
            let oldest = self.look_at_oldest()?;
            let sent = self.control.sent();
            let wanted = match start {
                Start::Oldest => 0,
                Start::Newest => sent.saturating_sub(1),
                Start::Next => sent,
                Start::Last(count) => sent.saturating_sub(count),
            };
            let near = wanted >= recent.sequence && recent.position >= oldest.position;
            self.next = if near { recent } else { oldest };
            if self.walk(wanted)? {
                return Ok(());
            }
        }
        // The producer goes round faster than the records can be counted: it is the newest then.
        self.next = self.control.producer.recent.read()?.1;
        Ok(())
    }

    /// Passes over messages before `wanted`; false when they were overwritten meanwhile.
    fn walk(&mut self, wanted: u64) -> Result<bool, Corrupt> {
        let from = self.next.position;
        while self.next.sequence < wanted {
            match self.look()? {
                Next::Message(record) => {
                    if !self.is_intact()? {
                        return Ok(false);
                    }
                    self.pass(record);
                }
                Next::Empty | Next::Closed => break,
                Next::Overrun => return Ok(false),
            }
            if self.next.position - from > self.data.capacity() {
                return Err(Corrupt {
                    what: "records without an end",
                    position: self.next.position,
                });
            }
        }
        self.is_intact()
    }

    /// The mark `oldest`, noted as seen.
    fn look_at_oldest(&mut self) -> Result<Spot, Corrupt> {
        let (turn, oldest) = self.control.oldest.read()?;
        self.oldest = (turn, oldest.position);
        Ok(oldest)
    }

    /// Whether what was read since the last look from the next message on, or found not to be there,
    /// was not overwritten meanwhile. Always true for a gated subscriber.
    #[inline(always)]
    pub(crate) fn is_intact(&mut self) -> Result<bool, Corrupt> {
        if self.seat.is_some() {
            return Ok(true);
        }
        // SYNC: the mark before what is overwritten.
        fence(Ordering::Acquire);
        // Relaxed: the fence orders it.
        if self.control.oldest.turn.load(Ordering::Relaxed) == self.oldest.0 {
            return Ok(self.next.position >= self.oldest.1);
        }
        self.is_still_intact()
    }

    #[cold]
    #[inline(never)]
    fn is_still_intact(&mut self) -> Result<bool, Corrupt> {
        Ok(self.look_at_oldest()?.position <= self.next.position)
    }

    /// Has `read` read the next message if it is a whole one, without padding before it and no fragment, and
    /// passes over it; otherwise nothing happens, save that `read` may have read what was overwritten
    /// meanwhile. Nothing is open. The fast path, kept short as that of the producer is.
    #[inline(always)]
    pub(crate) fn consume_at_once(
        &mut self,
        read: impl FnOnce(Data<'a>, Record),
    ) -> Option<Notify> {
        let at = self.next.position;
        // SYNC: payload visible to subscribers. Acquire: the payload is read after the header.
        let word = self.data.word(at).load(Ordering::Acquire);
        let (len, capacity) = (word >> 32, self.data.capacity());
        let end = at + record(len);
        if word & FLAGS != COMMITTED || (at & (capacity - 1)) + record(len) > capacity {
            return None;
        }
        let (payload, flags) = (at + WORD, 0);
        read(
            self.data,
            Record {
                payload,
                len,
                flags,
            },
        );
        if !matches!(self.is_intact(), Ok(true)) {
            return None;
        }
        self.next.position = end;
        self.next.sequence = self.next.sequence.wrapping_add(1);
        Some(self.give_back(at, end))
    }

    /// Looks for the next message.
    #[inline(always)]
    pub(crate) fn look(&mut self) -> Result<Next, Corrupt> {
        let at = self.next.position;
        // SYNC: payload visible to subscribers. Acquire: the payload is read after the header.
        let word = self.data.word(at).load(Ordering::Acquire);
        let (len, capacity) = (word >> 32, self.data.capacity());
        let fits = (at & (capacity - 1)) + record(len) <= capacity;
        if word & FLAGS == COMMITTED && fits {
            return Ok(Next::Message(Record {
                payload: at + WORD,
                len,
                flags: 0,
            }));
        }
        if word & COMMITTED == 0 {
            // A gated subscriber is nearly always right; a free one looks whether it is far behind.
            return Ok(if self.is_intact()? {
                Next::Empty
            } else {
                Next::Overrun
            });
        }
        self.look_closely(word)
    }

    #[cold]
    fn look_closely(&mut self, word: u64) -> Result<Next, Corrupt> {
        let found = self.interpret(word);
        // What was overwritten may say anything.
        match found {
            Ok(Next::Message(_)) => found,
            _ if self.is_intact()? => found,
            _ => Ok(Next::Overrun),
        }
    }

    fn interpret(&self, word: u64) -> Result<Next, Corrupt> {
        if word & FLAGS == COMMITTED | CLOSED {
            return Ok(Next::Closed);
        }
        let (mut at, mut word, capacity) = (self.next.position, word, self.data.capacity());
        let (need, is_message) = check_record(word, at, capacity)?;
        if !is_message {
            at += need;
            // Relaxed: it was written before the padding was published.
            word = self.data.word(at).load(Ordering::Relaxed);
            // The padding is published together with the record after it, which is no padding: so the
            // steps taken here are bounded, whatever a peer writes.
            if !check_record(word, at, capacity)?.1 {
                return Err(Corrupt {
                    what: "header after padding",
                    position: at,
                });
            }
        }
        Ok(Next::Message(Record {
            payload: at + WORD,
            len: word >> 32,
            flags: word & (MORE | REST),
        }))
    }

    /// Takes the message that was looked at.
    #[inline(always)]
    pub(crate) fn pass(&mut self, record: Record) {
        let end = record.end();
        self.open += end - self.next.position;
        self.next.position = end;
        self.next.sequence = self.next.sequence.wrapping_add(1);
    }

    /// Whether a message is held that was not let go.
    #[inline(always)]
    pub(crate) fn is_open(&self) -> bool {
        self.open != 0
    }

    /// Lets go of everything that was taken.
    #[inline(always)]
    pub(crate) fn let_go(&mut self) -> Notify {
        let to = self.next.position;
        let from = to - core::mem::take(&mut self.open);
        self.give_back(from, to)
    }

    /// Lets go of everything from `from` on, what was let go before, to `to`, which is next.
    #[inline(always)]
    fn give_back(&mut self, from: u64, to: u64) -> Notify {
        let Some(seat) = self.seat else {
            return Notify::Nobody;
        };
        if (from ^ to) >= LINE && self.alone != 0 {
            self.touch(from, to);
        }
        // SYNC: room handed to the producer. Release: our reads are over before it writes there.
        seat.own.exact.store(to, Ordering::Release);
        if to - self.published >= self.data.capacity() / CHECKPOINTS {
            self.publish_head(seat, to);
            if self.touch && self.alone == 0 {
                self.look_around();
            }
        }
        if self.parks {
            seat.notify(self.fences)
        } else {
            Notify::Nobody
        }
    }

    /// When it is behind, and still alone: stores the last word of every line that ends in `from..=to`,
    /// unchanged.
    #[inline(never)]
    fn touch(&mut self, from: u64, to: u64) {
        if to - self.rested.position <= TOUCH_AFTER || to - from > TOUCH_MOST {
            return;
        }
        // SYNC: joined before touched. Between what was found to be there and the look at who has come.
        light_fence();
        // Relaxed: the fence orders it.
        if self.control.joined.load(Ordering::Relaxed) != self.alone {
            self.alone = 0;
            return;
        }
        // The producer does not write these words before they are let go, nobody else does at all, and nobody
        // reads them but by atomic loads.
        touch_lines(self.data, from, to);
    }

    /// Finds out whether nobody else has a seat.
    #[cold]
    fn look_around(&mut self) {
        // SYNC: who came is seen in its seat. Acquire: the seats of all that are counted.
        let joined = self.control.joined.load(Ordering::Acquire);
        // Relaxed: who came is counted.
        let used = self.control.seats.load(Ordering::Relaxed) as usize;
        let (seats, own) = self.seats;
        let mut others = seats.iter().take(used).enumerate();
        // Who has gone has touched its last before that: `exact` acquires it.
        if others.all(|(index, seat)| index == own || seat.exact() == GONE) {
            self.lends = Lends::InPlace;
            if self.touch {
                self.alone = joined;
            }
        }
    }

    /// Whether the payload of messages may be read plainly: nobody else writes there, not even what is
    /// there already. Otherwise it is to be copied out by [`Data::copy_out_shared`].
    #[inline(always)]
    pub(crate) fn may_lend(&self) -> bool {
        self.lends == Lends::InPlace
    }

    #[inline]
    fn publish_head(&mut self, seat: &Seat, to: u64) {
        self.published = to;
        // SYNC: room handed to the producer. Release: as for the exact position.
        seat.head.store(to, Ordering::Release);
    }

    /// To be called when nothing is there: the producer learns of all the room there is. Returns the
    /// bytes passed since this was called last, or 0 if they were just one message: that, however long,
    /// is an answer and no streak.
    #[inline]
    pub(crate) fn rest(&mut self) -> u64 {
        if self.lends == Lends::CopiesYet {
            self.lends = Lends::InPlace;
        }
        let to = self.next.position - self.open;
        if let Some(seat) = self.seat
            && self.published != to
        {
            self.publish_head(seat, to);
        }
        let from = core::mem::replace(&mut self.rested, self.next);
        if self.next.sequence.wrapping_sub(from.sequence) > 1 {
            self.next.position.wrapping_sub(from.position)
        } else {
            0
        }
    }

    /// When nothing is there, and the last thing was one single message, as in question and answer: looks
    /// for a microsecond or so whether the next one comes.
    pub(crate) fn answer_comes(&mut self) -> bool {
        if self.next.sequence.wrapping_sub(self.rested.sequence) != 1 || self.is_open() {
            return false;
        }
        self.rested = self.next;
        let next = self.data.word(self.next.position);
        // Relaxed: `consume_at_once` looks again.
        answer_comes(|| next.load(Ordering::Relaxed) & COMMITTED != 0)
    }

    /// After an overrun: goes on where `start` says, and returns how many messages were missed.
    #[cold]
    pub(crate) fn skip(&mut self, start: Start) -> Result<u64, Corrupt> {
        let from = self.next;
        self.open = 0;
        self.locate(start)?;
        self.rested = self.next;
        match self.next.sequence.checked_sub(from.sequence) {
            Some(missed) if self.next.position >= from.position => Ok(missed),
            _ => Err(Corrupt {
                what: "mark that goes back",
                position: self.next.position,
            }),
        }
    }

    /// Marks that the subscriber is going to sleep until the bell rings. Returns the value of its word,
    /// or `None` when there is something to look at now. `barrier` is a full fence at least, and one for
    /// the processor of a producer that does not fence.
    pub(crate) fn announce(&mut self, barrier: impl FnOnce()) -> Result<Option<u64>, Corrupt> {
        let word = self.control.bell.announce_with(barrier);
        Ok(self.has_nothing()?.then_some(word))
    }

    /// The same for one that cannot leave a mark: it may be rung for by chance only.
    pub(crate) fn doze(&mut self) -> Result<Option<u64>, Corrupt> {
        // Relaxed: nothing is read on the strength of it.
        let word = self.control.bell.word().load(Ordering::Relaxed);
        Ok(self.has_nothing()?.then_some(word))
    }

    /// Whether there is nothing to look at.
    pub(crate) fn has_nothing(&mut self) -> Result<bool, Corrupt> {
        // Relaxed: `look` looks again.
        let word = self.data.word(self.next.position).load(Ordering::Relaxed);
        Ok(word & COMMITTED == 0 && self.is_intact()?)
    }
}
