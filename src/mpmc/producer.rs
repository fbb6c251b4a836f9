//! The sending side.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use crate::awaited::Awaited;
use crate::error::{Error, SendError};
use crate::mapping::Mapping;
use crate::os::clock::Deadline;
use crate::primitive::{AtomicU64, Ordering};
use crate::ring::mpmc::{Blocked, Queue, Run, Unblocked};
use crate::sleeper::Sleeper;
use crate::wait::{Blocking, Distance, WaitStrategy, block_on};

use super::participant::{Gone, LOST_SENDING, Participant, Role};
use super::ring::Shared;

/// Fruitless attempts after which a non-blocking call looks whether somebody dead is in the way.
const LOOK_INTO_IT: u32 = 1024;
/// The most slots claimed at once for a batch.
const BATCH: u64 = 64;

/// Sends messages into an MPMC ring. Attached as a participant until dropped.
///
/// A clone is a participant of its own. Where there is no record left for it, the clone attaches at
/// its first use that finds one, and until then returns the error.
pub struct Producer {
    member: Result<Participant, (Arc<Shared>, Error)>,
    /// Slots claimed and not settled: by an open reservation, or one that was leaked.
    open: Run,
    /// Slots of tickets below this are known to be free, as far as the tail has not passed them.
    free: u64,
    distance: Distance,
    fruitless: u32,
    gone: Option<Gone>,
}

impl Producer {
    pub(super) fn new(participant: Participant) -> Producer {
        Producer {
            member: Ok(participant),
            open: Run::NONE,
            free: 0,
            distance: Distance::new(),
            fruitless: 0,
            gone: None,
        }
    }

    #[inline(always)]
    fn participant(&self) -> &Participant {
        match &self.member {
            Ok(participant) => participant,
            Err(_) => unreachable!("`ready` comes first"),
        }
    }

    /// What comes before every operation: attached, in its own process, with no claim left open.
    #[inline(always)]
    fn ready(&mut self) -> Result<(), SendError> {
        match &self.member {
            Ok(participant) if participant.is_here() => {}
            _ => self.not_ready()?,
        }
        if self.open.count != 0 {
            self.settle();
        }
        Ok(())
    }

    #[cold]
    fn not_ready(&mut self) -> Result<(), SendError> {
        let Err((shared, _)) = &self.member else {
            return Err(SendError::Forked);
        };
        match Participant::join(shared, Role::Producer) {
            Ok(participant) => {
                self.member = Ok(participant);
                Ok(())
            }
            Err(error) => Err(SendError::Os {
                op: "attach a clone",
                source: std::io::Error::other(error),
            }),
        }
    }

    /// Gives up what is claimed and not committed. (A forked child's copy gives nothing up: it is its parent's.)
    #[cold]
    fn settle(&mut self) {
        if !self.participant().is_here() {
            return;
        }
        let queue = self.participant().queue();
        for ticket in self.open.tickets(queue.slots.capacity()) {
            queue.abort(ticket);
        }
        self.open = Run::NONE;
        self.participant().notify();
    }

    #[inline(always)]
    fn check(&self, len: usize) -> Result<(), SendError> {
        let max = self.participant().slot_size;
        if len > max {
            Err(SendError::MessageTooLarge { len, max })
        } else {
            Ok(())
        }
    }

    #[inline]
    fn claim(&mut self) -> Result<Option<u64>, SendError> {
        let mut rested = false;
        loop {
            let participant = self.participant();
            match participant.queue().claim_write(participant.intents()) {
                Ok(ticket) => return Ok(Some(ticket)),
                Err(Blocked::NotNow) if !rested && self.rests() => rested = true,
                Err(blocked) => return self.blocked(blocked).map(|()| None),
            }
        }
    }

    /// Claims up to `most` slots.
    #[inline]
    fn claim_run(&mut self, most: u64) -> Result<Option<Run>, SendError> {
        let mut rested = false;
        loop {
            let mut free = self.free;
            let participant = self.participant();
            let queue = participant.queue();
            let claim = queue.claim_write_run(participant.intents(), &mut free, most);
            self.free = free;
            match claim {
                Ok(run) => return Ok(Some(run)),
                Err(Blocked::NotNow) if !rested && self.rests() => rested = true,
                Err(blocked) => return self.blocked(blocked).map(|()| None),
            }
        }
    }

    /// There was no room. Whether it has rested, so that it is worth another look at once.
    #[inline]
    fn rests(&mut self) -> bool {
        let queue = self.participant().queue();
        let (at, slots) = (queue.cursors.tail(), queue.slots.capacity());
        self.distance.rest(at, slots)
    }

    #[cold]
    fn blocked(&mut self, blocked: Blocked) -> Result<(), SendError> {
        if self.participant().is_lost() {
            return Err(LOST_SENDING);
        }
        match blocked {
            Blocked::Closed => {
                self.participant().pass_on();
                Err(SendError::Closed)
            }
            Blocked::Corrupt(ticket) => {
                let offset = self.participant().offset_of(ticket);
                Err(SendError::Corrupt {
                    what: "slot sequence",
                    offset,
                })
            }
            Blocked::NotNow => match self.gone.take() {
                Some(Gone::Died) => Err(SendError::PeerDied),
                Some(Gone::Left) => Err(SendError::Closed),
                None => Ok(()),
            },
        }
    }

    /// Repairs what a dead participant left in the way.
    #[cold]
    fn look_into_it(&self) {
        let participant = self.participant();
        match participant
            .queue()
            .unblock_writer(|index| participant.is_dead(index))
        {
            Unblocked::No => {}
            // A poisoned slot that was stepped over may have had messages behind it.
            repaired => {
                if repaired == Unblocked::Yes {
                    participant.repaired();
                }
                participant.notify();
            }
        }
    }

    /// Sends `message` if that takes one attempt and there is nothing to be settled or refused: the short path.
    /// Whether it did.
    #[inline(always)]
    fn send_at_once(&self, message: &[u8]) -> bool {
        let Ok(participant) = &self.member else {
            return false;
        };
        if !participant.is_here() || self.open.count != 0 || message.len() > participant.slot_size {
            return false;
        }
        // A copy: its parts stay in registers. A reference would be followed again after each access to
        // shared memory.
        let queue = *participant.queue();
        let Some(ticket) = queue.claim_write_at_once(participant.intents()) else {
            return false;
        };
        fill(queue, ticket, message);
        queue.commit(ticket);
        participant.passed(message.len());
        participant.notify();
        true
    }

    fn put(&mut self, ticket: u64, bytes: &[u8]) {
        let participant = self.participant();
        fill(*participant.queue(), ticket, bytes);
        participant.queue().commit(ticket);
        participant.passed(bytes.len());
        participant.notify();
    }

    /// Sends a copy of `message` if there is room. Never blocks.
    ///
    /// # Errors
    /// [`SendError::Full`]; [`SendError::Closed`]; [`SendError::MessageTooLarge`].
    #[inline(always)]
    pub fn try_send(&mut self, message: &[u8]) -> Result<(), SendError> {
        if self.send_at_once(message) {
            return Ok(());
        }
        self.try_send_again(message)
    }

    #[inline(never)]
    fn try_send_again(&mut self, message: &[u8]) -> Result<(), SendError> {
        self.ready()?;
        self.check(message.len())?;
        let ticket = match self.claim()? {
            Some(ticket) => ticket,
            None => self.fruitless()?.ok_or(SendError::Full)?,
        };
        self.put(ticket, message);
        Ok(())
    }

    /// A call that does not block found no room: now and then it asks why.
    #[inline]
    fn fruitless(&mut self) -> Result<Option<u64>, SendError> {
        self.fruitless = self.fruitless.wrapping_add(1);
        if !self.fruitless.is_multiple_of(LOOK_INTO_IT) {
            return Ok(None);
        }
        self.look_into_it();
        self.gone = self.participant().peers_gone();
        self.claim()
    }

    /// Sends a copy of `message`; blocks while there is no room.
    ///
    /// # Errors
    /// [`SendError::Closed`]; when there is no room, [`SendError::PeerDied`] if every consumer died
    /// and [`SendError::Closed`] if every consumer left; [`SendError::MessageTooLarge`]. While no
    /// consumer has come yet, it waits.
    #[inline(always)]
    pub fn send(&mut self, message: &[u8]) -> Result<(), SendError> {
        self.send_until(message, Deadline::NEVER)
    }

    /// As [`Producer::send`], but gives up after `timeout`.
    ///
    /// # Errors
    /// As [`Producer::send`], and [`SendError::TimedOut`].
    pub fn send_timeout(&mut self, message: &[u8], timeout: Duration) -> Result<(), SendError> {
        self.send_until(message, Deadline::after(timeout))
    }

    #[inline(always)]
    pub(super) fn send_until(
        &mut self,
        message: &[u8],
        deadline: Deadline,
    ) -> Result<(), SendError> {
        if self.send_at_once(message) {
            return Ok(());
        }
        self.send_again(message, deadline)
    }

    #[inline(never)]
    fn send_again(&mut self, message: &[u8], deadline: Deadline) -> Result<(), SendError> {
        self.ready()?;
        self.check(message.len())?;
        let ticket = match self.claim()? {
            Some(ticket) => ticket,
            None => self.wait_for_room(deadline)?,
        };
        self.put(ticket, message);
        Ok(())
    }

    #[cold]
    fn wait_for_room(&mut self, deadline: Deadline) -> Result<u64, SendError> {
        self.participant().stalled();
        let mut spinner = self.participant().spinner.clone();
        let result = block_on(
            &mut WaitForRoom {
                producer: self,
                deadline,
            },
            &mut spinner,
        );
        if let Ok(participant) = &mut self.member {
            participant.spinner = spinner;
        }
        self.gone = None;
        if result.is_ok() && self.participant().queue().may_write() {
            self.participant().pass_on();
        }
        result
    }

    /// Claims a slot and lends it out, to be written in place: no copy. Blocks while there is no room.
    ///
    /// # Errors
    /// As [`Producer::send`].
    ///
    /// ```
    /// # let ring = ringway::mpmc::Ring::anonymous(Default::default())?;
    /// # let (mut producer, mut consumer) = (ring.producer()?, ring.consumer()?);
    /// let mut slot = producer.reserve(5)?;
    /// slot.copy_from_slice(b"hello");
    /// slot.commit();
    /// assert_eq!(&consumer.recv()?[..], b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reserve(&mut self, len: usize) -> Result<Reservation<'_>, SendError> {
        self.ready()?;
        self.check(len)?;
        let ticket = match self.claim()? {
            Some(ticket) => ticket,
            None => self.wait_for_room(Deadline::NEVER)?,
        };
        Ok(self.lend(ticket, len))
    }

    /// As [`Producer::reserve`], but never blocks.
    ///
    /// # Errors
    /// As [`Producer::try_send`].
    pub fn try_reserve(&mut self, len: usize) -> Result<Reservation<'_>, SendError> {
        self.ready()?;
        self.check(len)?;
        match self.claim()? {
            Some(ticket) => Ok(self.lend(ticket, len)),
            None => match self.fruitless()? {
                Some(ticket) => Ok(self.lend(ticket, len)),
                None => Err(SendError::Full),
            },
        }
    }

    fn lend(&mut self, ticket: u64, len: usize) -> Reservation<'_> {
        self.open = Run {
            first: ticket,
            count: 1,
        };
        Reservation {
            producer: self,
            ticket,
            len,
        }
    }

    /// Sends all `messages`, in order, claiming many slots at a time; blocks while there is no room.
    /// The messages of one batch need not end up side by side when others send, too. They become visible
    /// up to 64 at a time, as many as the iterator's `size_hint` promises and there is room for.
    ///
    /// # Errors
    /// As [`Producer::send`]; what was sent before the error stays sent.
    ///
    /// ```
    /// # let ring = ringway::mpmc::Ring::anonymous(Default::default())?;
    /// # let (mut producer, mut consumer) = (ring.producer()?, ring.consumer()?);
    /// producer.send_batch([b"one", b"two"])?;
    /// assert_eq!(&consumer.recv()?[..], b"one");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send_batch<I>(&mut self, messages: I) -> Result<(), SendError>
    where
        I: IntoIterator<Item: AsRef<[u8]>>,
    {
        self.ready()?;
        let mut messages = messages.into_iter();
        let mut next = messages.next();
        while let Some(first) = next {
            // As many slots as there are messages for certain.
            let most = BATCH.min(1 + messages.size_hint().0 as u64);
            // Open until they are committed: the iterator may panic, or have promised too much.
            let run = match self.claim_run(most)? {
                Some(run) => run,
                None => Run {
                    first: self.wait_for_room(Deadline::NEVER)?,
                    count: 1,
                },
            };
            self.open = run;
            next = Some(first);
            let participant = self.participant();
            let (queue, max) = (*participant.queue(), participant.slot_size);
            let (mut filled, mut bytes, mut result) = (0, 0, Ok(()));
            while filled < run.count
                && let Some(message) = next
            {
                let message = message.as_ref();
                let len = message.len();
                if len > max {
                    result = Err(SendError::MessageTooLarge { len, max });
                    next = None;
                    break;
                }
                fill(queue, run.first.wrapping_add(filled), message);
                filled += 1;
                bytes += len as u64;
                next = messages.next();
            }
            // One after the other, when all are there: consumers find them together, and the lines stream.
            for i in 0..filled {
                queue.commit(run.first.wrapping_add(i));
            }
            participant.passed_several(filled, bytes);
            self.open = Run {
                first: run.first.wrapping_add(filled),
                count: run.count - filled,
            };
            if self.open.count != 0 {
                self.settle();
            } else {
                self.participant().notify();
            }
            result?;
        }
        Ok(())
    }

    /// Closes the ring for all producers: no send succeeds any more, anywhere; consumers get what was
    /// sent before, and then `Closed`. (A producer that only leaves is dropped instead.)
    ///
    /// # Errors
    /// [`SendError::Forked`].
    pub fn close(&mut self) -> Result<(), SendError> {
        self.ready()?;
        self.participant().close();
        Ok(())
    }

    /// The longest message, in bytes.
    pub fn max_message(&self) -> usize {
        let shared = match &self.member {
            Ok(participant) => &participant.shared,
            Err((shared, _)) => shared,
        };
        shared.geometry.slot_size as usize
    }
}

/// Writes length and payload of the message in claimed slot `ticket`.
#[inline(always)]
fn fill(queue: Queue<'_>, ticket: u64, message: &[u8]) {
    let len = message.len() as u32;
    queue.slots.length(ticket).store(len, Ordering::Relaxed);
    // SAFETY: the slot is claimed, so nobody else accesses its payload, of at least `slot_size` bytes,
    // which `message` does not exceed (checked by the callers).
    unsafe { queue.slots.copy_in(ticket, message) }
}

impl Awaited for Producer {
    fn is_attached(&self) -> bool {
        self.member.is_ok()
    }

    fn is_ready(&mut self) -> bool {
        self.ready().is_err()
            || self.participant().queue().may_write()
            || self.gone.is_some()
            || self.participant().is_lost()
    }

    fn announce(&mut self) -> Option<u64> {
        self.look_into_it();
        // Consumers may sleep over messages behind a slot that was just stepped over.
        self.participant().notify();
        let expected = self.participant().announce();
        (!self.is_ready()).then_some(expected)
    }

    fn woken(&mut self) {
        self.participant().woken();
    }

    fn may_miss(&self) -> bool {
        self.participant().may_be_missed()
    }

    fn pulse(&mut self) {
        if self.ready().is_ok() {
            self.look_into_it();
            self.gone = self.participant().peers_gone();
        }
    }

    fn pass_on(&mut self) -> bool {
        if self.member.is_ok() && self.participant().is_here() {
            self.participant().woken();
            if self.participant().queue().may_write() {
                self.participant().pass_on();
            }
        }
        true
    }

    fn word(&self) -> &AtomicU64 {
        self.participant().bell_word()
    }

    fn sleeper(&self) -> &Sleeper {
        self.participant().sleeper()
    }

    fn strategy(&self) -> WaitStrategy {
        self.participant().shared.geometry.wait
    }

    fn mapping(&self) -> &Mapping {
        &self.participant().shared.mapping
    }

    fn index(&self) -> u32 {
        self.participant().index() as u32
    }
}

impl Clone for Producer {
    fn clone(&self) -> Producer {
        let shared = match &self.member {
            Ok(participant) => &participant.shared,
            Err((shared, _)) => shared,
        };
        let member =
            Participant::join(shared, Role::Producer).map_err(|error| (shared.clone(), error));
        Producer {
            member,
            open: Run::NONE,
            free: 0,
            distance: Distance::new(),
            fruitless: 0,
            gone: None,
        }
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        if self.open.count != 0 {
            self.settle();
        }
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("open", &self.open.count)
            .finish_non_exhaustive()
    }
}

/// A producer that waits for room.
struct WaitForRoom<'a> {
    producer: &'a mut Producer,
    deadline: Deadline,
}

impl Blocking for WaitForRoom<'_> {
    type Output = u64;
    type Error = SendError;

    #[inline]
    fn attempt(&mut self, _spinning: bool) -> Result<Option<u64>, SendError> {
        self.producer.claim()
    }

    fn announce(&mut self) -> Result<Option<u64>, SendError> {
        // What is in the way may be a dead one's.
        self.producer.look_into_it();
        // Consumers may sleep over messages behind a slot that was just stepped over.
        self.producer.participant().notify();
        let expected = self.producer.participant().announce();
        Ok((!self.producer.participant().queue().may_write()).then_some(expected))
    }

    fn sleep(&mut self, expected: u64) -> Result<(), SendError> {
        self.producer
            .participant()
            .sleep(expected, self.deadline)
            .map_err(|source| SendError::Os {
                op: "sleep",
                source,
            })?;
        self.pulse()
    }

    fn pulse(&mut self) -> Result<(), SendError> {
        self.producer.look_into_it();
        // Told after one more attempt: what a peer did last counts. And before the time is looked at: a caller
        // with little of it would never learn that all have gone.
        self.producer.gone = self.producer.participant().peers_gone();
        if self.producer.gone.is_none() && self.deadline.passed() {
            return Err(SendError::TimedOut);
        }
        Ok(())
    }

    fn is_alone(&self) -> bool {
        self.producer.participant().is_alone()
    }
}

/// A slot lent out to be written in place. Committed with [`Reservation::commit`]; dropped, it is
/// given up; leaked, it is given up at the producer's next use.
pub struct Reservation<'a> {
    producer: &'a mut Producer,
    ticket: u64,
    len: usize,
}

impl Reservation<'_> {
    /// Sends what was written.
    #[inline]
    pub fn commit(self) {
        let len = self.len;
        self.commit_len(len);
    }

    /// Sends the first `len` bytes of what was written (all of them, if `len` is more).
    #[inline]
    pub fn commit_len(self, len: usize) {
        let participant = self.producer.participant();
        // In a forked child it is the parent's to send.
        if !participant.is_here() {
            return;
        }
        let queue = participant.queue();
        let len = len.min(self.len);
        queue
            .slots
            .length(self.ticket)
            .store(len as u32, Ordering::Relaxed);
        participant.passed(len);
        queue.commit(self.ticket);
        participant.notify();
        self.producer.open = Run::NONE;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.producer.open.count != 0 {
            self.producer.settle();
        }
    }
}

impl Deref for Reservation<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        let payload = self
            .producer
            .participant()
            .queue()
            .slots
            .payload(self.ticket);
        // SAFETY: the slot is claimed: nobody who keeps the protocol accesses its payload, which has
        // room for `len` bytes (checked) and stays mapped as long as the producer.
        unsafe { core::slice::from_raw_parts(payload, self.len) }
    }
}

impl DerefMut for Reservation<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        let payload = self
            .producer
            .participant()
            .queue()
            .slots
            .payload(self.ticket);
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { core::slice::from_raw_parts_mut(payload, self.len) }
    }
}

impl fmt::Debug for Reservation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}
