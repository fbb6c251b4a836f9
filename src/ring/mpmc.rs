//! Many producers, many consumers, each message to exactly one of them: Vyukov's bounded queue, plus
//! an *intent* that every participant writes down before it claims, so that a claim of the dead can
//! be told from a claim of the living, and undone.
//!
//! ```text
//!            head = 5        tail = 8
//!               v               v
//!  ticket   4   5   6   7   8   9
//!         .---.---.---.---.---.---.        capacity 4: slot of ticket t is t mod 4
//!         | F | R | R | w | free  |        F released, R ready, w claimed and not yet written
//!         '---'---'---'---'---'---'
//!  intents: producer 3: write (7,1)   consumer 9: read (4,1)  <- done with: harmless
//! ```
//!
//! A **claim** is: write the intent (a ticket and a count, in one word), then move the cursor by
//! compare-exchange. An intent alone claims nothing; it only names who *may* have claimed. The
//! **rule of repair**: a ticket that the cursor has passed, whose slot has not moved on, belongs to
//! one of those who name it; if one of them lives, wait; if all of them are dead (and there is one),
//! its claimant is dead. The claimant is always among those who name it, because the intent is
//! written before the cursor moves, and overwritten only after the slot has moved on.
//!
//! What repair does to the slot is one compare-exchange from the exact word it saw. No word of a slot
//! ever comes back (tickets only grow), so a repairer that was overtaken does nothing, any number of
//! them may work at once, and one that dies half-way has either done it or not.
//!
//! **Order**: messages leave in the order of their tickets, and one producer's tickets are in the
//! order of its sends. Redelivered messages are the exception: they come when their reader's death is
//! noticed, after messages that were sent later.
//!
//! # Dead readers, and the records they leave
//!
//! The message of a reader that died before it released it is *adopted* by another consumer (or
//! dropped, as the ring was created). Who may adopt is settled in the slot: its word becomes
//! ADOPTED, with the adopter's record and a round that grows with each adoption, so that nobody who
//! decided on an older state can still act on it. An adopted ticket stays named by the dead reader's
//! record until it is released: that is how it is found again if its adopter dies too. So a record
//! whose reads are not settled cannot simply be used again. Whoever takes it over moves its `read`
//! to its `legacy` first, which names tickets whose reader is certainly dead; a record with both
//! unsettled has to wait for a consumer. While it does this it counts as dead itself (`Joining` in
//! the participant's record), or its own old intents would look like a living one's.

use crate::primitive::{AtomicU64, CachePadded, Ordering, Slots, leave_the_line};

/// Tickets are below this: one more is refused as if the ring were closed, after nearly six years at
/// a hundred million messages a second. Bits above are flags.
const LIMIT: u64 = (1 << TICKET_BITS) - 1;
const TICKET_BITS: u32 = 54;
const TICKET: u64 = LIMIT;
/// In `tail`: no claim succeeds any more. In the cursor itself, so that a claim either precedes the
/// closing, and is delivered, or fails.
const CLOSED: u64 = 1 << 63;
/// In a slot: the ticket was claimed, and given up or its claimant died; consumers step over it.
pub(crate) const POISON: u64 = 1 << 63;
/// In a slot: the message's reader died, and it is another's now.
pub(crate) const ADOPTED: u64 = 1 << 62;
const OWNER_SHIFT: u32 = 54;
const ROUND_SHIFT: u32 = 40;
const ROUND_MASK: u64 = (1 << (OWNER_SHIFT - ROUND_SHIFT)) - 1;
const SHORT_TICKET: u64 = (1 << ROUND_SHIFT) - 1;
/// The owner of an adopted message whose adopter's record was taken over: nobody, so anybody.
const NOBODY: u64 = 255;
/// The most participants there can be: their numbers are below [`NOBODY`].
pub(crate) const MAX_PARTICIPANTS: usize = NOBODY as usize;
/// The most tickets in one claim.
pub(crate) const MAX_RUN: u64 = (1 << (64 - TICKET_BITS)) - 1;
/// Up to so many records, a producer of batches asks them which slots are free, and not the slots.
const FEW_RECORDS: usize = 16;
/// Failed compare-exchanges in one call before it gives up with a "try again": only a hostile peer
/// can make so many.
const ATTEMPTS: u32 = 1 << 20;

/// Tickets `first .. first + count`: what one claim claims. As a word it is an intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: u64,
    pub(crate) count: u64,
}

impl Run {
    /// No ticket. As a word: what an intent holds when nothing is intended.
    pub(crate) const NONE: Run = Run { first: 0, count: 0 };

    /// The word that says so in an intent.
    #[inline(always)]
    pub(crate) fn word(self) -> u64 {
        self.first << (64 - TICKET_BITS) | self.count
    }

    /// The run that `word` says.
    #[inline(always)]
    pub(crate) fn from_word(word: u64) -> Run {
        Run {
            first: word >> (64 - TICKET_BITS),
            count: word & MAX_RUN,
        }
    }

    fn contains(self, ticket: u64) -> bool {
        ticket.wrapping_sub(self.first) < self.count
    }

    /// Its tickets; never more than `capacity`, whatever a hostile peer wrote.
    pub(crate) fn tickets(self, capacity: u64) -> impl Iterator<Item = u64> {
        (0..self.count.min(capacity)).map(move |i| self.first.wrapping_add(i))
    }
}

/// The cursors. Each on lines of its own.
#[repr(C)]
pub(crate) struct Cursors {
    /// The next ticket to be claimed by a producer, or with [`CLOSED`].
    ///
    /// | change | by | ordering |
    /// | --- | --- | --- |
    /// | t → t + n | a producer, its intent written | release: the intent |
    /// | t → t + CLOSED | whoever closes | relaxed |
    tail: CachePadded<AtomicU64>,
    /// The next ticket to be taken by a consumer. Never goes back.
    ///
    /// | change | by | ordering |
    /// | --- | --- | --- |
    /// | h → h + n | a consumer, its intent written | release: the intent |
    /// | h → h + 1 | whoever steps over a poisoned slot | release |
    head: CachePadded<AtomicU64>,
    /// What a consumer should know, on a line that hardly ever changes: grows whenever somebody has
    /// seen a message of a dead reader, and has [`CLOSED`] once the ring is closed (which `tail`
    /// decides; here it saves consumers looking at the producers' line).
    alarm: CachePadded<AtomicU64>,
    /// Records below this have been used; only grows.
    used: CachePadded<AtomicU64>,
}

/// The cursors as an onlooker sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Tickets claimed by producers.
    pub(crate) tail: u64,
    /// Tickets taken by consumers.
    pub(crate) head: u64,
    /// Whether no claim for writing succeeds any more.
    pub(crate) closed: bool,
}

impl Cursors {
    /// How far both sides are. For people: the two are not read at one instant.
    pub(crate) fn seen(&self) -> Seen {
        let tail = self.tail.load(Ordering::Relaxed);
        Seen {
            tail: tail & TICKET,
            head: self.head.load(Ordering::Relaxed) & TICKET,
            closed: tail & CLOSED != 0,
        }
    }

    /// The next ticket for a producer, as a hint. (The other cursor's line is left alone.)
    #[inline]
    pub(crate) fn tail(&self) -> u64 {
        self.tail.load(Ordering::Relaxed)
    }

    /// The next ticket for a consumer, as a hint.
    #[inline]
    pub(crate) fn head(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    /// Tail and head, for the ring of items, to which they are hints.
    #[inline(always)]
    pub(crate) fn as_hints(&self) -> (&AtomicU64, &AtomicU64) {
        (&self.tail, &self.head)
    }

    pub(crate) fn new() -> Cursors {
        Cursors {
            tail: CachePadded::new(AtomicU64::new(0)),
            head: CachePadded::new(AtomicU64::new(0)),
            alarm: CachePadded::new(AtomicU64::new(0)),
            used: CachePadded::new(AtomicU64::new(0)),
        }
    }
}

/// What a participant is about to claim, or has claimed and not finished. On lines of its own.
///
/// | word | names | overwritten |
/// | --- | --- | --- |
/// | `write` | tickets that it may have claimed for writing | by its owner, when no slot of the run waits for it any more; before it returns, waits or spins after a claim that failed |
/// | `read` | tickets that it may have taken | likewise |
/// | `legacy` | tickets taken by a dead predecessor of this record | by a joiner, when all are settled |
#[repr(C, align(128))]
pub(crate) struct Intents {
    pub(crate) write: AtomicU64,
    pub(crate) read: AtomicU64,
    legacy: AtomicU64,
}

impl Intents {
    pub(crate) fn new() -> Intents {
        Intents {
            write: AtomicU64::new(Run::NONE.word()),
            read: AtomicU64::new(Run::NONE.word()),
            legacy: AtomicU64::new(Run::NONE.word()),
        }
    }
}

/// Why nothing was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// Producer: no slot is free. Consumer: the next message is not there yet.
    NotNow,
    /// No claim will succeed any more.
    Closed,
    /// A slot holds what no honest peer writes: its ticket.
    Corrupt(u64),
}

/// What becomes of a message whose reader died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnDeath {
    /// Another consumer gets it.
    Redeliver,
    /// It is lost.
    Drop,
}

/// A view of one ring: what all functions work on.
#[derive(Clone, Copy)]
pub(crate) struct Queue<'a> {
    pub(crate) cursors: &'a Cursors,
    pub(crate) intents: &'a [Intents],
    pub(crate) slots: Slots<'a>,
    pub(crate) on_death: OnDeath,
}

/// How far the slot word `word` is ahead of `value`, as tickets. A word that belongs to an adopted
/// message k counts as k + 1, as it did when the message was ready.
#[inline]
fn lead(word: u64, value: u64) -> i64 {
    if word & ADOPTED != 0 {
        let shift = 64 - ROUND_SHIFT;
        return (word.wrapping_add(1).wrapping_sub(value) << shift) as i64 >> shift;
    }
    ((word & TICKET).wrapping_sub(value) << (64 - TICKET_BITS)) as i64 >> (64 - TICKET_BITS)
}

/// The word of slot `ticket` when its message is ready.
#[inline(always)]
fn ready(ticket: u64) -> u64 {
    // Wrapping, here and elsewhere: the cursors are in shared memory, and may hold anything.
    ticket.wrapping_add(1)
}

/// The word of slot `ticket` when there will be no message.
fn poisoned(ticket: u64) -> u64 {
    ready(ticket) | POISON
}

/// The word of message `ticket` adopted by `owner` for the `round`th time.
fn adopted(owner: u64, round: u64, ticket: u64) -> u64 {
    ADOPTED | owner << OWNER_SHIFT | (round & ROUND_MASK) << ROUND_SHIFT | ticket & SHORT_TICKET
}

/// The owner and round of an adopted message's word; `None` if it is not `ticket`'s.
fn adoption(word: u64, ticket: u64) -> Option<(u64, u64)> {
    (word & (POISON | ADOPTED) == ADOPTED && word & SHORT_TICKET == ticket & SHORT_TICKET)
        .then_some((word >> OWNER_SHIFT & 0xff, word >> ROUND_SHIFT & ROUND_MASK))
}

/// Names nothing any more.
#[inline]
fn clear(intent: &AtomicU64) {
    // RELEASE: SYNC: intent overwritten after the slot moved on
    intent.store(Run::NONE.word(), Ordering::Release);
}

/// Another one moved the cursor first.
#[cold]
fn lost_race(intent: &AtomicU64) {
    // A loser must not be taken for the claimant: before it returns, waits or spins, it names nothing.
    clear(intent);
    // The cursor's line is the winner's for a while. Taken from each other with every message, it would be
    // neither's.
    leave_the_line();
}

// The data path.
impl<'a> Queue<'a> {
    /// As [`Queue::claim_write`], if one attempt does. By value, and calling nothing that is not inlined:
    /// so the view's parts stay in registers between accesses to shared memory.
    #[inline(always)]
    pub(crate) fn claim_write_at_once(self, me: &Intents) -> Option<u64> {
        let tail = self.cursors.tail.load(Ordering::Relaxed);
        // ACQUIRE: the reader's accesses to the payload. SYNC: slot free for the next lap
        let is_free = self.slots.sequence(tail).load(Ordering::Acquire) == tail;
        if !is_free {
            return None;
        }
        match self.move_tail(me, tail, 1) {
            Ok(()) => Some(tail),
            Err(_) => {
                lost_race(&me.write);
                None
            }
        }
    }

    /// Claims one slot for writing. It stays the caller's until [`Queue::commit`] or
    /// [`Queue::abort`], one of which must come before its next claim.
    #[inline(never)]
    pub(crate) fn claim_write(&self, me: &Intents) -> Result<u64, Blocked> {
        let mut tail = self.cursors.tail.load(Ordering::Relaxed);
        for _ in 0..ATTEMPTS {
            // ACQUIRE: the reader's accesses to the payload. SYNC: slot free for the next lap
            let word = self.slots.sequence(tail).load(Ordering::Acquire);
            if word != tail {
                tail = self.no_slot(tail, word)?;
                continue;
            }
            match self.move_tail(me, tail, 1) {
                Ok(()) => return Ok(tail),
                Err(_) => {
                    lost_race(&me.write);
                    tail = self.cursors.tail.load(Ordering::Relaxed);
                }
            }
        }
        Err(Blocked::NotNow)
    }

    /// Claims between 1 and `most` slots in a row for writing. `free` is the caller's own: slots of tickets
    /// below it are known to be free, unless the tail has passed them.
    #[inline]
    pub(crate) fn claim_write_run(
        &self,
        me: &Intents,
        free: &mut u64,
        most: u64,
    ) -> Result<Run, Blocked> {
        let most = most.clamp(1, MAX_RUN.min(self.slots.capacity()));
        let mut tail = self.cursors.tail.load(Ordering::Relaxed);
        for _ in 0..ATTEMPTS {
            let mut count = self.free_run(free, tail, most);
            if count == 0 {
                // ACQUIRE: SYNC: slot free for the next lap
                let word = self.slots.sequence(tail).load(Ordering::Acquire);
                if word != tail {
                    tail = self.no_slot(tail, word)?;
                    continue;
                }
                count = 1;
            }
            match self.move_tail(me, tail, count) {
                Ok(()) => return Ok(Run { first: tail, count }),
                Err(_) => {
                    lost_race(&me.write);
                    tail = self.cursors.tail.load(Ordering::Relaxed);
                }
            }
        }
        Err(Blocked::NotNow)
    }

    /// How many slots from `tail` on are free, up to `most`. (A free slot stays free until the tail has moved
    /// past it, so what was found once need not be looked at again.)
    #[inline]
    fn free_run(&self, free: &mut u64, tail: u64, most: u64) -> u64 {
        if tail >= LIMIT {
            return 0;
        }
        let known = |free: u64| free.saturating_sub(tail).min(most);
        if known(*free) < most && self.records().len() <= FEW_RECORDS {
            *free = self.find_free();
        }
        if known(*free) > 0 {
            return known(*free);
        }
        // ACQUIRE: SYNC: slot free for the next lap
        let is_free = |i: &u64| self.slots.sequence(tail + i).load(Ordering::Acquire) == tail + i;
        (0..most).take_while(is_free).count() as u64
    }

    /// The ticket up to which all slots are free or claimed already, told from the head and the readers' names
    /// instead of from each slot: its line would come here to be looked at, and have to come again to be written.
    ///
    /// A message that was taken and not released is named by its reader's record, or its late reader's. So what
    /// is below the head and not named was released. (Or stepped over, and its slot perhaps not freed yet: the
    /// next claimant may write to it all the same, since nobody else will, and nobody reads a poisoned slot.)
    #[cold]
    fn find_free(&self) -> u64 {
        // ACQUIRE: the names of those who took what is below. SYNC: intent before its claim
        let head = self.cursors.head.load(Ordering::Acquire);
        let mut oldest = head;
        for intents in self.records() {
            // A joiner writes `legacy` before it clears `read`: read in the other order.
            for word in [&intents.read, &intents.legacy] {
                // ACQUIRE: whatever it named before was released, and its reader is done with the payload.
                // SYNC: intent overwritten after the slot moved on; SYNC: read moved to legacy
                let run = Run::from_word(word.load(Ordering::Acquire));
                let held = run
                    .tickets(self.slots.capacity())
                    .find(|&ticket| ticket < head && self.is_unreleased(ticket));
                oldest = oldest.min(held.unwrap_or(head));
            }
        }
        oldest.wrapping_add(self.slots.capacity())
    }

    /// The claim itself: intent, then cursor.
    #[inline(always)]
    fn move_tail(self, me: &Intents, tail: u64, count: u64) -> Result<(), u64> {
        // RELEASE: whoever finds the old intent gone must find the slot that it named moved on.
        // SYNC: intent overwritten after the slot moved on
        me.write
            .store(Run { first: tail, count }.word(), Ordering::Release);
        // RELEASE: whoever sees the tail moved must see the intent. SYNC: intent before its claim
        // Not acquire: what the slot's last reader did was acquired with the slot's word.
        self.cursors
            .tail
            .compare_exchange(
                tail,
                tail.wrapping_add(count),
                Ordering::Release,
                Ordering::Relaxed,
            )
            .map(drop)
    }

    /// The slot at `tail` is not free, but holds `word`: where to try next, or why not.
    #[cold]
    fn no_slot(&self, tail: u64, word: u64) -> Result<u64, Blocked> {
        if tail >= LIMIT {
            return Err(Blocked::Closed);
        }
        if lead(word, tail) < 0 {
            return Err(Blocked::NotNow);
        }
        // Somebody else claimed it meanwhile, and the tail moved before the slot did.
        let now = self.cursors.tail.load(Ordering::Relaxed);
        // Nor does the slot of a tail that stands still hold anything else of this lap.
        if now == tail {
            return Err(Blocked::Corrupt(tail));
        }
        Ok(now)
    }

    /// Makes the message in claimed slot `ticket` visible.
    #[inline(always)]
    pub(crate) fn commit(self, ticket: u64) {
        // RELEASE: the payload. SYNC: message ready
        self.slots
            .sequence(ticket)
            .store(ready(ticket), Ordering::Release);
    }

    /// Gives claimed slot `ticket` up; consumers step over it.
    #[cold]
    pub(crate) fn abort(&self, ticket: u64) {
        // RELEASE: the claimant's accesses to the payload come before the next one's.
        // SYNC: slot poisoned
        self.slots
            .sequence(ticket)
            .store(poisoned(ticket), Ordering::Release);
    }

    /// As [`Queue::claim_read`], if one attempt does. By value: see [`Queue::claim_write_at_once`].
    #[inline(always)]
    pub(crate) fn claim_read_at_once(self, me: &Intents) -> Option<u64> {
        let head = self.cursors.head.load(Ordering::Relaxed);
        // ACQUIRE: the payload. SYNC: message ready
        let is_ready = self.slots.sequence(head).load(Ordering::Acquire) == ready(head);
        if !is_ready {
            return None;
        }
        match self.move_head(me, head, 1) {
            Ok(()) => Some(head),
            Err(_) => {
                lost_race(&me.read);
                None
            }
        }
    }

    /// Takes one message. It stays the caller's until [`Queue::release`], which must come before its
    /// next claim.
    #[inline(never)]
    pub(crate) fn claim_read(&self, me: &Intents) -> Result<u64, Blocked> {
        let mut head = self.cursors.head.load(Ordering::Relaxed);
        for _ in 0..ATTEMPTS {
            // ACQUIRE: the payload. SYNC: message ready
            let word = self.slots.sequence(head).load(Ordering::Acquire);
            if word != ready(head) {
                head = self.no_message(head, word)?;
                continue;
            }
            match self.move_head(me, head, 1) {
                Ok(()) => return Ok(head),
                Err(_) => {
                    lost_race(&me.read);
                    head = self.cursors.head.load(Ordering::Relaxed);
                }
            }
        }
        Err(Blocked::NotNow)
    }

    /// Takes between 1 and `most` messages in a row.
    #[inline]
    pub(crate) fn claim_read_run(&self, me: &Intents, most: u64) -> Result<Run, Blocked> {
        let most = most.clamp(1, MAX_RUN.min(self.slots.capacity()));
        let mut head = self.cursors.head.load(Ordering::Relaxed);
        for _ in 0..ATTEMPTS {
            // ACQUIRE: the payload. SYNC: message ready
            let word = self.slots.sequence(head).load(Ordering::Acquire);
            if word != ready(head) {
                head = self.no_message(head, word)?;
                continue;
            }
            // A ready message stays so until the head has moved past it. ACQUIRE: SYNC: message ready
            let is_ready = |i: &u64| {
                let ticket = head.wrapping_add(*i);
                self.slots.sequence(ticket).load(Ordering::Acquire) == ready(ticket)
            };
            let count = 1 + (1..most).take_while(is_ready).count() as u64;
            match self.move_head(me, head, count) {
                Ok(()) => return Ok(Run { first: head, count }),
                Err(_) => {
                    lost_race(&me.read);
                    head = self.cursors.head.load(Ordering::Relaxed);
                }
            }
        }
        Err(Blocked::NotNow)
    }

    #[inline(always)]
    fn move_head(self, me: &Intents, head: u64, count: u64) -> Result<(), u64> {
        // RELEASE: as in `move_tail`. SYNC: intent overwritten after the slot moved on
        me.read
            .store(Run { first: head, count }.word(), Ordering::Release);
        // RELEASE: as in `move_tail`. SYNC: intent before its claim
        self.cursors
            .head
            .compare_exchange(
                head,
                head.wrapping_add(count),
                Ordering::Release,
                Ordering::Relaxed,
            )
            .map(drop)
    }

    #[cold]
    fn no_message(&self, head: u64, word: u64) -> Result<u64, Blocked> {
        if word == poisoned(head) {
            self.step_over(head);
            return Ok(self.cursors.head.load(Ordering::Relaxed));
        }
        if lead(word, ready(head)) < 0 {
            return Err(Blocked::NotNow);
        }
        let now = self.cursors.head.load(Ordering::Relaxed);
        // Nor does the slot of a head that stands still hold anything else of this lap.
        if now == head {
            return Err(Blocked::Corrupt(head));
        }
        Ok(now)
    }

    /// Gives the slot of a message that was taken, or adopted, to the producers.
    #[inline(always)]
    pub(crate) fn release(self, ticket: u64) {
        // RELEASE: the reader's accesses to the payload. SYNC: slot free for the next lap
        self.slots
            .sequence(ticket)
            .store(self.next_lap(ticket), Ordering::Release);
    }

    /// The word of slot `ticket` when it is free again.
    #[inline(always)]
    fn next_lap(self, ticket: u64) -> u64 {
        ticket.wrapping_add(self.slots.capacity())
    }
}

// Off the data path: who waits long asks why, and repairs.
impl<'a> Queue<'a> {
    /// No claim for writing succeeds from here on; messages that were claimed before are delivered.
    pub(crate) fn close(&self) {
        // RELAXED: it orders nothing; its place among the claims is its place in `tail`'s order.
        self.cursors.tail.fetch_or(CLOSED, Ordering::Relaxed);
        // RELAXED: a hint to look at the tail. Whoever sees it and still finds the tail open looks
        // again, and before it sleeps the bell's fence orders its look.
        self.cursors.alarm.fetch_or(CLOSED, Ordering::Relaxed);
    }

    /// Whether an alarm says that the ring may be closed: a hint to ask [`Queue::is_drained`].
    #[inline(always)]
    pub(crate) fn tells_of_closing(alarm: u64) -> bool {
        alarm & CLOSED != 0
    }

    /// Whether nothing can be sent any more and everything sent was taken (not: released).
    pub(crate) fn is_drained(&self) -> bool {
        let tail = self.cursors.tail.load(Ordering::Relaxed);
        tail >= LIMIT && self.cursors.head.load(Ordering::Relaxed) >= tail & !CLOSED
    }

    /// Whether a consumer that found nothing should look again before it sleeps.
    pub(crate) fn may_read(&self) -> bool {
        let head = self.cursors.head.load(Ordering::Relaxed);
        // RELAXED, here and in `may_write`: the bell's fence orders it; whoever then looks acquires.
        let word = self.slots.sequence(head).load(Ordering::Relaxed);
        lead(word, ready(head)) >= 0 || self.is_drained()
    }

    /// Whether there is a message, looking at no line but that of the slot and the consumers' own: the producers are
    /// left alone.
    #[inline(always)]
    pub(crate) fn has_message(&self) -> bool {
        // RELAXED, both: whoever takes it claims by compare-exchange, and acquires.
        let head = self.cursors.head.load(Ordering::Relaxed);
        self.slots.sequence(head).load(Ordering::Relaxed) == ready(head)
    }

    /// Whether a producer that found no room should look again before it sleeps.
    pub(crate) fn may_write(&self) -> bool {
        let tail = self.cursors.tail.load(Ordering::Relaxed);
        let word = self.slots.sequence(tail).load(Ordering::Relaxed);
        tail >= LIMIT || lead(word, tail) >= 0
    }

    /// How many tickets are claimed and not yet taken.
    pub(crate) fn len(&self) -> u64 {
        // ACQUIRE: a tail no older than this head, or messages that are there would not be counted.
        // SYNC: intent before its claim
        let head = self.cursors.head.load(Ordering::Acquire);
        let tail = self.cursors.tail.load(Ordering::Relaxed) & !CLOSED;
        tail.saturating_sub(head).min(self.slots.capacity())
    }

    /// Whether nothing is there for anybody to come, not even what a dead reader had taken. For one who has the ring to
    /// itself.
    pub(crate) fn holds_nothing(&self) -> bool {
        let capacity = self.slots.capacity();
        let is_taken = |index: u64| {
            // RELAXED: whoever wrote it has gone, as the lock on the ring's presence told.
            let word = self.slots.sequence(index).load(Ordering::Relaxed);
            let is_ready = word & (capacity - 1) == ready(index) & (capacity - 1);
            word & POISON == 0 && (is_ready || word & ADOPTED != 0)
        };
        self.len() == 0 && (self.on_death == OnDeath::Drop || !(0..capacity).any(is_taken))
    }

    /// What the alarm shows: when it has changed, [`Queue::adopt`] may find something.
    #[inline(always)]
    pub(crate) fn alarm(&self) -> u64 {
        // RELAXED: a hint to look, and looking acquires what it needs.
        self.cursors.alarm.load(Ordering::Relaxed)
    }

    /// Has every consumer look for messages of dead readers.
    pub(crate) fn raise_alarm(&self) {
        self.cursors.alarm.fetch_add(1, Ordering::Relaxed);
    }

    /// Moves the head past a poisoned slot, then frees it. Anyone may, and finish what another began.
    fn step_over(&self, ticket: u64) {
        // The head moves first: a slot freed before would be filled again under a head that still
        // waits for it. RELEASE: the claimant's accesses are over for a batch that goes by the head.
        // SYNC: intent before its claim
        let _ = self.cursors.head.compare_exchange(
            ticket,
            ticket.wrapping_add(1),
            Ordering::Release,
            Ordering::Relaxed,
        );
        if self.has_taken(ticket) {
            // RELEASE: whoever finds it free finds the head moved. SYNC: slot free for the next lap
            // Not acquire: a read-modify-write goes on with the release of the poisoning, so the next
            // claimant acquires what the last one did.
            let _ = self.slots.sequence(ticket).compare_exchange(
                poisoned(ticket),
                self.next_lap(ticket),
                Ordering::Release,
                Ordering::Relaxed,
            );
        }
    }

    fn has_taken(&self, ticket: u64) -> bool {
        // ACQUIRE: the intents of those who claimed up to here. SYNC: intent before its claim
        let head = self.cursors.head.load(Ordering::Acquire);
        head > ticket
    }

    fn has_claimed(&self, ticket: u64) -> bool {
        // ACQUIRE: as in `has_taken`. SYNC: intent before its claim
        let tail = self.cursors.tail.load(Ordering::Acquire);
        tail & !CLOSED > ticket
    }

    /// The records that were ever used. To be called after the cursor was acquired: whoever claimed
    /// up to there is among them.
    fn records(&self) -> &'a [Intents] {
        // RELAXED: raised before the claims that the acquired cursor shows.
        let used = self.cursors.used.load(Ordering::Relaxed);
        &self.intents[..(used as usize).min(self.intents.len())]
    }

    /// Record `index` is going to be used: repairers have to look at it from now on.
    pub(crate) fn admit(&self, index: usize) {
        let used = index as u64 + 1;
        let mut now = self.cursors.used.load(Ordering::Relaxed);
        while now < used {
            // RELAXED: the claim that follows releases it. SYNC: intent before its claim
            let result =
                self.cursors
                    .used
                    .compare_exchange(now, used, Ordering::Relaxed, Ordering::Relaxed);
            match result {
                Ok(_) => return,
                Err(other) => now = other,
            }
        }
    }

    /// Whether somebody names `ticket` and all who do are dead; `None` if nobody names it.
    fn claimant_is_dead(
        &self,
        ticket: u64,
        word_of: impl Fn(&'a Intents) -> &'a AtomicU64,
        is_dead: &impl Fn(usize) -> bool,
    ) -> Option<bool> {
        let mut named = None;
        for (index, intents) in self.records().iter().enumerate() {
            // ACQUIRE: if the claimant's intent is another by now, its slot is seen to have moved on.
            // SYNC: intent overwritten after the slot moved on
            if Run::from_word(word_of(intents).load(Ordering::Acquire)).contains(ticket) {
                if !is_dead(index) {
                    return Some(false);
                }
                named = Some(true);
            }
        }
        named
    }

    /// Poisons `ticket` if it was claimed by a dead producer that did not finish it. Whether it did.
    fn poison(&self, ticket: u64, is_dead: &impl Fn(usize) -> bool) -> bool {
        // A batch may have been claimed over a slot that was stepped over and not freed.
        let before = ticket.wrapping_sub(self.slots.capacity());
        if self.slots.sequence(ticket).load(Ordering::Relaxed) == poisoned(before) {
            self.step_over(before);
        }
        // In this order: a ticket that nobody has claimed yet may be named by the dead, too.
        // RELAXED: the compare-exchange below decides; what the slot's last reader did there was
        // acquired by the claimant, and comes with the proof of its death.
        if !self.has_claimed(ticket)
            || self.slots.sequence(ticket).load(Ordering::Relaxed) != ticket
            || self.claimant_is_dead(ticket, |intents| &intents.write, is_dead) != Some(true)
        {
            return false;
        }
        // RELEASE: passes on what was acquired: what the dead one wrote, and that the tail is beyond.
        // SYNC: slot poisoned
        self.slots
            .sequence(ticket)
            .compare_exchange(
                ticket,
                poisoned(ticket),
                Ordering::Release,
                Ordering::Relaxed,
            )
            .is_ok()
    }

    /// The word of message `ticket`, if it was taken by a reader that is dead and nobody alive has
    /// it. `heir`: it is named by a legacy, so its reader is known to be dead.
    fn orphan(&self, ticket: u64, heir: bool, is_dead: &impl Fn(usize) -> bool) -> Option<u64> {
        if !self.has_taken(ticket) {
            return None;
        }
        // ACQUIRE: the payload, and what its last owner did; an adoption is from this very word.
        // SYNC: message ready; SYNC: message adopted
        let word = self.slots.sequence(ticket).load(Ordering::Acquire);
        let orphaned = if word == ready(ticket) {
            match self.claimant_is_dead(ticket, |intents| &intents.read, is_dead) {
                Some(dead) => dead,
                None => heir,
            }
        } else {
            match adoption(word, ticket) {
                // Nobody's, or of a record that does not exist: a forgery, which nobody holds either.
                Some((owner, _)) => owner as usize >= self.intents.len() || is_dead(owner as usize),
                None => false,
            }
        };
        orphaned.then_some(word)
    }

    /// Whether message `ticket` was taken and is not released yet, whoever has it.
    fn is_held(&self, ticket: u64) -> bool {
        self.has_taken(ticket) && self.is_unreleased(ticket)
    }

    /// As [`Queue::is_held`], of a message that was taken for certain.
    fn is_unreleased(&self, ticket: u64) -> bool {
        // ACQUIRE: if it was released, its reader's accesses. SYNC: slot free for the next lap
        let word = self.slots.sequence(ticket).load(Ordering::Acquire);
        word == ready(ticket) || adoption(word, ticket).is_some()
    }

    /// Goes through the messages whose dead readers are still on record, until `f` has an answer.
    fn find_orphan<T>(
        &self,
        is_dead: &impl Fn(usize) -> bool,
        mut f: impl FnMut(u64, u64) -> Option<T>,
    ) -> Option<T> {
        // Of those held there are never more than slots, each named once, and perhaps a second time by
        // one who lost it: only forged intents name more, which would take minutes to ask about.
        let mut most = 2 * self.slots.capacity();
        for intents in self.records() {
            // A joiner writes `legacy` before it clears `read`: read in the other order.
            for (word, heir) in [(&intents.read, false), (&intents.legacy, true)] {
                // ACQUIRE: SYNC: read moved to legacy
                let run = Run::from_word(word.load(Ordering::Acquire));
                for ticket in run.tickets(self.slots.capacity()) {
                    if !self.is_held(ticket) {
                        continue;
                    }
                    most = most.checked_sub(1)?;
                    if let Some(word) = self.orphan(ticket, heir, is_dead)
                        && let Some(answer) = f(ticket, word)
                    {
                        return Some(answer);
                    }
                }
            }
        }
        None
    }

    /// Takes a message of a dead reader, for the participant of record `me`, which must not hold
    /// another. It is released like any other. (With policy drop, frees the slots of all of them.)
    #[cold]
    pub(crate) fn adopt(&self, me: usize, is_dead: impl Fn(usize) -> bool) -> Option<u64> {
        self.find_orphan(&is_dead, |ticket, word| {
            if self.on_death == OnDeath::Drop {
                self.try_own(ticket, word, self.next_lap(ticket));
                return None;
            }
            let round = adoption(word, ticket).map_or(0, |(_, round)| round + 1);
            self.try_own(ticket, word, adopted(me as u64, round, ticket))
                .then_some(ticket)
        })
    }

    /// Whether [`Queue::adopt`] would find a message. (With policy drop, frees the slots as it does.)
    #[cold]
    pub(crate) fn has_orphan(&self, is_dead: impl Fn(usize) -> bool) -> bool {
        let found = self.find_orphan(&is_dead, |ticket, word| match self.on_death {
            OnDeath::Redeliver => Some(()),
            OnDeath::Drop => {
                self.try_own(ticket, word, self.next_lap(ticket));
                None
            }
        });
        found.is_some()
    }

    fn try_own(&self, ticket: u64, word: u64, owned: u64) -> bool {
        // RELEASE: passes on what was acquired with `word`, or with the proof of its owner's death.
        // SYNC: message adopted; SYNC: slot free for the next lap
        self.slots
            .sequence(ticket)
            .compare_exchange(word, owned, Ordering::Release, Ordering::Relaxed)
            .is_ok()
    }

    /// A consumer found nothing, and has waited: undoes what a dead producer left at the head.
    /// Whether it did anything.
    #[cold]
    pub(crate) fn unblock_reader(&self, is_dead: impl Fn(usize) -> bool) -> bool {
        // RELAXED: a ticket to look at; `poison` looks.
        let head = self.cursors.head.load(Ordering::Relaxed);
        self.poison(head, &is_dead)
    }

    /// A producer found no room, and has waited: undoes what a dead participant left in its way.
    /// Whether it did anything. Where the message of a dead consumer is in the way that only a
    /// consumer can adopt, it raises the alarm; the caller wakes the consumers.
    #[cold]
    pub(crate) fn unblock_writer(&self, is_dead: impl Fn(usize) -> bool) -> Unblocked {
        // RELAXED, both: a ticket to look at, and how; `poison` and `orphan` look.
        let tail = self.cursors.tail.load(Ordering::Relaxed);
        let Some(ticket) = tail
            .checked_sub(self.slots.capacity())
            .filter(|_| tail < LIMIT)
        else {
            return Unblocked::No;
        };
        let word = self.slots.sequence(ticket).load(Ordering::Relaxed);
        if word == ticket {
            self.poison(ticket, &is_dead);
        }
        // ACQUIRE: the claimant's accesses, for `step_over` to pass on. SYNC: slot poisoned
        if self.slots.sequence(ticket).load(Ordering::Acquire) == poisoned(ticket) {
            self.step_over(ticket);
            return if self.has_taken(ticket) {
                Unblocked::Yes
            } else {
                Unblocked::No
            };
        }
        match (self.orphan(ticket, false, &is_dead), self.on_death) {
            (Some(word), OnDeath::Drop) => {
                self.try_own(ticket, word, self.next_lap(ticket));
                Unblocked::Yes
            }
            (Some(_), OnDeath::Redeliver) => {
                self.raise_alarm();
                Unblocked::ByConsumer
            }
            (None, _) => Unblocked::No,
        }
    }

    /// Takes over record `me` from a dead participant: settles its claims, or keeps their names. To
    /// be called while `is_dead(me)` is true for everybody. False when the record cannot be used for
    /// now, because somebody alive may still name the same tickets, or it would forget messages.
    pub(crate) fn settle(&self, me: usize, is_dead: impl Fn(usize) -> bool) -> bool {
        self.admit(me);
        let capacity = self.slots.capacity();
        let intents = &self.intents[me];
        // An old name may only go when nothing waits for it. If two joiners cleared for each other,
        // a slot that both name would be named by nobody, and stay claimed for ever.
        // RELAXED, all loads here: the proof that the owner is gone orders its intents, the joiners'
        // lock those of other joiners; and a slot's word that is seen too old only has the caller
        // come back later.
        let write = Run::from_word(intents.write.load(Ordering::Relaxed));
        for ticket in write.tickets(capacity) {
            self.poison(ticket, &is_dead);
            if self.has_claimed(ticket)
                && self.slots.sequence(ticket).load(Ordering::Relaxed) == ticket
            {
                return false;
            }
        }
        clear(&intents.write);
        let (read, legacy) = (
            Run::from_word(intents.read.load(Ordering::Relaxed)),
            Run::from_word(intents.legacy.load(Ordering::Relaxed)),
        );
        let mut held = false;
        for ticket in read
            .tickets(capacity)
            .filter(|&ticket| self.is_held(ticket))
        {
            match (self.orphan(ticket, false, &is_dead), self.on_death) {
                (Some(word), OnDeath::Drop) => {
                    self.try_own(ticket, word, self.next_lap(ticket));
                }
                (Some(_), OnDeath::Redeliver) => held = true,
                // Somebody alive has it, by name or by adoption.
                (None, _) => {
                    let word = self.slots.sequence(ticket).load(Ordering::Relaxed);
                    if adoption(word, ticket).is_some() {
                        held = true;
                    } else if word == ready(ticket) {
                        return false;
                    }
                }
            }
        }
        if held && legacy != read {
            if legacy.tickets(capacity).any(|ticket| self.is_held(ticket)) {
                return false;
            }
            // RELAXED: the clearing of `read` that follows releases it.
            intents.legacy.store(read.word(), Ordering::Relaxed);
        }
        // RELEASE: `legacy` is there before `read` is gone. SYNC: read moved to legacy
        clear(&intents.read);
        self.disown(me);
        if held {
            self.raise_alarm();
        }
        true
    }

    /// Messages that the dead owner of record `me` had adopted become nobody's.
    fn disown(&self, me: usize) {
        for intents in self.records() {
            for word in [&intents.read, &intents.legacy] {
                // ACQUIRE: as in `find_orphan`. SYNC: read moved to legacy
                let run = Run::from_word(word.load(Ordering::Acquire));
                for ticket in run.tickets(self.slots.capacity()) {
                    // RELAXED: what the dead adopter did comes with the proof of its death.
                    let word = self.slots.sequence(ticket).load(Ordering::Relaxed);
                    if let Some((owner, round)) = adoption(word, ticket)
                        && owner == me as u64
                    {
                        self.try_own(ticket, word, adopted(NOBODY, round + 1, ticket));
                        self.raise_alarm();
                    }
                }
            }
        }
    }
}

/// What [`Queue::unblock_writer`] could do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unblocked {
    /// Nothing was to be done, or nothing could.
    No,
    /// There may be room now.
    Yes,
    /// A consumer has to adopt a message; the alarm was raised.
    ByConsumer,
}
