//! The receiving side.

use std::fmt;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::awaited::Awaited;
use crate::error::{Error, RecvError};
use crate::mapping::Mapping;
use crate::os::clock::Deadline;
use crate::os::eventfd::EventFd;
use crate::primitive::{AtomicU64, Ordering, Slots, copy_bytes};
use crate::ring::mpmc::{Blocked, Queue, Run};
use crate::ring::record::answer_comes;
use crate::sleeper::Sleeper;
use crate::wait::{Blocking, Distance, WaitStrategy, block_on};

use super::participant::{Gone, LOST_RECEIVING, Participant, Role};
use super::ring::Shared;

/// Fruitless attempts after which a non-blocking call looks whether somebody dead is in the way.
const LOOK_INTO_IT: u32 = 1024;

/// Messages in slots of this many bytes and more are touched in a drain, too.
const TOUCH_IN_DRAIN: usize = 512;

/// Messages claimed together by [`Consumer::hold_into`]: who finds a dead one's looks at each of them.
const MOST_HELD: u64 = 1024;

/// Receives messages from an MPMC ring. Attached as a participant until dropped.
///
/// A clone is a participant of its own. Where there is no record left for it, the clone attaches at
/// its first use that finds one, and until then returns the error.
pub struct Consumer {
    member: Result<Participant, (Arc<Shared>, Error)>,
    /// Messages taken and not released: borrowed, or their guard was leaked. A [`Run`] in one word, which is written
    /// with every message; 0 for none.
    open: u64,
    /// How many of those were handed out by [`Consumer::hold_into`].
    held: u64,
    /// The alarm for messages of dead consumers that has been answered.
    alarm: u64,
    distance: Distance,
    /// The head when nothing was there last.
    rested: u64,
    fruitless: u32,
    gone: Option<Gone>,
}

/// A message that was taken: its ticket, and the bit [`Taken::AGAIN`] if another consumer had it before
/// and died. (One word: a flag in a byte of its own is written, and read back with its padding when the
/// value is moved about, which the processor cannot forward from its store buffer.)
#[derive(Clone, Copy)]
struct Taken(u64);

impl Taken {
    const AGAIN: u64 = 1 << 63;

    #[inline(always)]
    fn ticket(self) -> u64 {
        self.0 & !Taken::AGAIN
    }

    #[inline(always)]
    fn redelivered(self) -> bool {
        self.0 & Taken::AGAIN != 0
    }
}

/// A taken message: how long it says that it is, and whether it can be.
struct Found {
    taken: Taken,
    len: usize,
    fits: bool,
}

impl Consumer {
    pub(super) fn new(participant: Participant) -> Consumer {
        Consumer {
            member: Ok(participant),
            open: 0,
            held: 0,
            alarm: STALE,
            distance: Distance::new(),
            rested: 0,
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

    /// What comes before every operation: attached, in its own process, with no message left open.
    #[inline(always)]
    fn ready(&mut self) -> Result<(), RecvError> {
        match &self.member {
            Ok(participant) if participant.is_here() => {}
            _ => self.not_ready()?,
        }
        if self.open != 0 {
            self.settle();
        }
        Ok(())
    }

    #[cold]
    fn not_ready(&mut self) -> Result<(), RecvError> {
        let Err((shared, _)) = &self.member else {
            return Err(RecvError::Forked);
        };
        match Participant::join(shared, Role::Consumer) {
            Ok(participant) => {
                self.member = Ok(participant);
                Ok(())
            }
            Err(error) => Err(RecvError::Os {
                op: "attach a clone",
                source: std::io::Error::other(error),
            }),
        }
    }

    /// Releases what was taken. (A forked child's copy releases nothing: it is its parent's.)
    #[inline(never)]
    fn settle(&mut self) {
        let participant = self.participant();
        if !participant.is_here() {
            return;
        }
        let queue = participant.queue();
        for ticket in Run::from_word(self.open).tickets(queue.slots.capacity()) {
            queue.release(ticket);
        }
        participant.notify();
        self.open = 0;
    }

    /// Takes a message if that needs one attempt and there is nothing to be settled or looked into: the short
    /// path.
    #[inline(always)]
    fn take_at_once(&mut self) -> Option<Found> {
        let Ok(participant) = &self.member else {
            return None;
        };
        if !participant.is_here() || self.open != 0 {
            return None;
        }
        // A copy: its parts stay in registers. A reference would be followed again after each access to
        // shared memory.
        let queue = *participant.queue();
        if queue.alarm() != self.alarm {
            return None;
        }
        let first = queue.claim_read_at_once(participant.intents())?;
        // Loaded once: a hostile producer may change it at any time.
        let len = queue.slots.length(first).load(Ordering::Relaxed) as usize;
        participant.passed(len);
        let fits = len <= participant.slot_size;
        self.open = Run { first, count: 1 }.word();
        Some(Found {
            taken: Taken(first),
            len,
            fits,
        })
    }

    #[inline(never)]
    fn take(&mut self) -> Result<Option<Taken>, RecvError> {
        if self.participant().queue().alarm() != self.alarm
            && let Some(taken) = self.adopt()
        {
            return Ok(Some(taken));
        }
        let mut rested = false;
        loop {
            let participant = self.participant();
            match participant.queue().claim_read(participant.intents()) {
                Ok(first) => {
                    self.open = Run { first, count: 1 }.word();
                    return Ok(Some(Taken(first)));
                }
                Err(Blocked::NotNow) if !rested && self.rests() => rested = true,
                Err(blocked) => return self.blocked(blocked),
            }
        }
    }

    /// Takes up to `most` messages. Whether it is one of a dead consumer instead.
    #[inline]
    fn take_run(&mut self, most: u64) -> Result<bool, RecvError> {
        let mut rested = false;
        loop {
            let participant = self.participant();
            let queue = participant.queue();
            match queue.claim_read_run(participant.intents(), most) {
                Ok(run) => {
                    self.open = run.word();
                    return Ok(false);
                }
                Err(Blocked::NotNow) if !rested && self.rests() => rested = true,
                Err(blocked) => return Ok(self.blocked(blocked)?.is_some()),
            }
        }
    }

    /// There was nothing. Whether it has rested, so that it is worth another look at once.
    #[inline]
    fn rests(&mut self) -> bool {
        let queue = self.participant().queue();
        let (at, slots) = (queue.cursors.head(), queue.slots.capacity());
        self.distance.rest(at, slots)
    }

    #[cold]
    fn blocked(&mut self, blocked: Blocked) -> Result<Option<Taken>, RecvError> {
        let participant = self.participant();
        if participant.is_lost() {
            return Err(LOST_RECEIVING);
        }
        match blocked {
            Blocked::Corrupt(ticket) => {
                let offset = participant.offset_of(ticket);
                return Err(RecvError::Corrupt {
                    what: "slot sequence",
                    offset,
                });
            }
            Blocked::NotNow | Blocked::Closed => {}
        }
        let queue = participant.queue();
        let closing = self.gone.is_some() || Queue::tells_of_closing(self.alarm);
        let drained = closing && queue.is_drained();
        if drained && let Some(taken) = self.look_into_it() {
            return Ok(Some(taken));
        }
        let gone = self.gone.take();
        if drained || gone == Some(Gone::Left) {
            self.participant().pass_on();
            return Err(RecvError::Closed);
        }
        if gone == Some(Gone::Died) {
            self.participant().pass_on();
            return Err(RecvError::PeerDied);
        }
        Ok(None)
    }

    /// Takes over a message of a dead consumer, if there is one.
    #[cold]
    fn adopt(&mut self) -> Option<Taken> {
        let participant = self.participant();
        let alarm = participant.queue().alarm();
        let ticket = participant
            .queue()
            .adopt(participant.index(), |index| participant.is_dead(index));
        match ticket {
            Some(ticket) => {
                participant.adopted();
                let run = Run {
                    first: ticket,
                    count: 1,
                };
                self.open = run.word();
                Some(Taken(ticket | Taken::AGAIN))
            }
            None => {
                self.alarm = alarm;
                None
            }
        }
    }

    /// Repairs what a dead producer left in the way, and looks for messages of dead consumers.
    #[cold]
    fn look_into_it(&mut self) -> Option<Taken> {
        self.repair();
        self.adopt()
    }

    /// Repairs what a dead producer left in the way.
    #[cold]
    fn repair(&self) {
        let participant = self.participant();
        if participant
            .queue()
            .unblock_reader(|index| participant.is_dead(index))
        {
            participant.repaired();
            // The slots behind it will be free before long; and others may find a message now.
            participant.pass_on();
        }
    }

    /// A call that does not block found nothing: now and then it asks why.
    #[inline]
    fn fruitless(&mut self) -> Result<Option<Taken>, RecvError> {
        self.fruitless = self.fruitless.wrapping_add(1);
        if !self.fruitless.is_multiple_of(LOOK_INTO_IT) {
            return Ok(None);
        }
        let found = self.look_into_it();
        if found.is_some() {
            return Ok(found);
        }
        self.ask_for_peers();
        self.take()
    }

    /// Whether there is anybody left to wait for; told after one more attempt, since what a peer sent
    /// last counts. A claim of a dead producer in front of messages of others comes first.
    #[cold]
    pub(crate) fn ask_for_peers(&mut self) {
        let queue = self.participant().queue();
        if queue.len() == 0 {
            // A closer that was killed half-way may have told nobody.
            self.gone = if queue.is_drained() {
                Some(Gone::Left)
            } else {
                self.participant().peers_gone()
            };
        }
    }

    /// Waits for a message.
    #[inline(always)]
    fn receive(&mut self, deadline: Deadline) -> Result<Message<'_>, RecvError> {
        let found = match self.take_at_once() {
            Some(found) => found,
            None => match self.take_answer() {
                Some(found) => found,
                None => self.receive_again(deadline)?,
            },
        };
        self.message(found)
    }

    /// A message that comes within the microsecond or so that an answer may take. By the short path: of all that
    /// comes after it is there, each instruction is latency.
    #[inline(always)]
    fn take_answer(&mut self) -> Option<Found> {
        if self.answer_comes() {
            self.take_at_once()
        } else {
            None
        }
    }

    /// When nothing is there, and the last thing was one single message, as in question and answer: looks for a
    /// microsecond or so whether the next one comes.
    #[inline(never)]
    fn answer_comes(&mut self) -> bool {
        let Ok(participant) = &self.member else {
            return false;
        };
        let queue = participant.queue();
        let head = queue.cursors.head();
        let passed = head.wrapping_sub(std::mem::replace(&mut self.rested, head));
        passed == 1 && participant.spinner.expects_answers() && answer_comes(|| queue.has_message())
    }

    #[inline(never)]
    fn receive_again(&mut self, deadline: Deadline) -> Result<Found, RecvError> {
        self.ready()?;
        let taken = match self.take()? {
            Some(taken) => taken,
            None => self.wait_for_message(deadline)?,
        };
        Ok(self.found(taken))
    }

    /// What there is to know of a taken message.
    fn found(&self, taken: Taken) -> Found {
        let participant = self.participant();
        let slots = participant.queue().slots;
        // Loaded once: a hostile producer may change it at any time.
        let len = slots.length(taken.ticket()).load(Ordering::Relaxed) as usize;
        participant.passed(len);
        Found {
            taken,
            len,
            fits: len <= participant.slot_size,
        }
    }

    #[cold]
    fn wait_for_message(&mut self, deadline: Deadline) -> Result<Taken, RecvError> {
        self.participant().stalled();
        let mut spinner = self.participant().spinner.clone();
        let waiting = &mut WaitForMessage {
            consumer: self,
            deadline,
            slept: false,
            found: None,
        };
        let result = block_on(waiting, &mut spinner);
        let slept = waiting.slept;
        if let Ok(participant) = &mut self.member {
            participant.spinner = spinner;
        }
        self.gone = None;
        // One message wakes one sleeper; what came meanwhile is for another.
        if slept && result.is_ok() && self.participant().queue().may_read() {
            self.participant().pass_on();
        }
        result
    }

    #[inline(always)]
    fn message(&mut self, found: Found) -> Result<Message<'_>, RecvError> {
        if !found.fits {
            self.settle();
            return Err(too_long(self.participant(), found.taken.ticket()));
        }
        Ok(Message {
            consumer: self,
            taken: found.taken,
            len: found.len,
        })
    }

    /// Takes a message if there is one. Never blocks.
    ///
    /// # Errors
    /// [`RecvError::Empty`]; [`RecvError::Closed`] when the ring was closed and everything was taken.
    #[inline(always)]
    pub fn try_recv(&mut self) -> Result<Message<'_>, RecvError> {
        let found = match self.take_at_once() {
            Some(found) => found,
            None => self.try_again()?,
        };
        self.message(found)
    }

    #[inline(never)]
    fn try_again(&mut self) -> Result<Found, RecvError> {
        self.ready()?;
        let taken = match self.take()? {
            Some(taken) => taken,
            None => self.fruitless()?.ok_or(RecvError::Empty)?,
        };
        Ok(self.found(taken))
    }

    /// Takes a message; blocks while there is none. It is borrowed in place: no copy. It counts as
    /// done with when the [`Message`] is dropped.
    ///
    /// # Errors
    /// When everything was taken: [`RecvError::Closed`] if the ring was closed or every producer left,
    /// [`RecvError::PeerDied`] if the last producers died and were not replaced. While no producer has
    /// come yet, it waits.
    #[inline(always)]
    pub fn recv(&mut self) -> Result<Message<'_>, RecvError> {
        self.receive(Deadline::NEVER)
    }

    /// As [`Consumer::recv`], but gives up after `timeout`.
    ///
    /// # Errors
    /// As [`Consumer::recv`], and [`RecvError::TimedOut`].
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Message<'_>, RecvError> {
        self.receive(Deadline::after(timeout))
    }

    #[inline(always)]
    pub(super) fn recv_until(&mut self, deadline: Deadline) -> Result<Message<'_>, RecvError> {
        self.receive(deadline)
    }

    /// Takes a message and copies it out, replacing the contents of `buffer`: the way to receive from
    /// a peer that is not trusted. Blocks while there is none. Returns whether it was redelivered.
    ///
    /// # Errors
    /// As [`Consumer::recv`].
    pub fn recv_into(&mut self, buffer: &mut Vec<u8>) -> Result<bool, RecvError> {
        let message = self.recv()?;
        let (ticket, len) = (message.taken.ticket(), message.len);
        // SAFETY: the message is ours until dropped, and `Consumer::message` checked its length.
        unsafe { message.consumer.copy_out(ticket, len, buffer) };
        Ok(message.redelivered())
    }

    /// Copies message `ticket` to `buffer`, in place of what is there.
    ///
    /// # Safety
    /// The message is this consumer's; a slot holds `len` bytes.
    unsafe fn copy_out(&self, ticket: u64, len: usize, buffer: &mut Vec<u8>) {
        buffer.clear();
        buffer.reserve(len);
        let slots = self.participant().queue().slots;
        // By address, not through a slice: a peer that breaks the protocol may be writing there.
        // SAFETY: the slot holds `len` bytes (caller), mapped as long as the consumer; `buffer` has room
        // for them, is private memory, and they are there when its length says so.
        unsafe {
            copy_bytes(slots.payload(ticket), buffer.as_mut_ptr(), len);
            buffer.set_len(len);
        }
    }

    /// As [`Consumer::recv_into`], but the message is done with only by [`Consumer::release`], and left to
    /// the other consumers by [`Consumer::give_up`]. Up to `most` are claimed together, and no more than
    /// leaves the producers room; `Empty` also when all of those are held. Waits, if it has a deadline.
    pub(crate) fn hold_into(
        &mut self,
        buffer: &mut Vec<u8>,
        most: u64,
        wait: Option<Deadline>,
    ) -> Result<(), RecvError> {
        if self.held == Run::from_word(self.open).count {
            if self.held > 0 {
                return Err(RecvError::Empty);
            }
            self.ready()?;
            let room = self.participant().queue().slots.capacity() / 4;
            let most = most.min(room.min(MOST_HELD));
            let alarmed = self.participant().queue().alarm() != self.alarm;
            let adopted = alarmed && self.adopt().is_some();
            if !adopted && !self.take_run(most)? && self.open == 0 {
                match wait {
                    Some(deadline) => self.wait_for_message(deadline)?,
                    None => self.fruitless()?.ok_or(RecvError::Empty)?,
                };
            }
        }
        let run = Run::from_word(self.open);
        let found = self.found(Taken(run.first.wrapping_add(self.held)));
        self.held += 1;
        if !found.fits {
            return Err(too_long(self.participant(), found.taken.ticket()));
        }
        // SAFETY: the message is ours until released, and its length was checked just now.
        unsafe { self.copy_out(found.taken.ticket(), found.len, buffer) };
        Ok(())
    }

    /// What is held is done with.
    pub(crate) fn release(&mut self) {
        let run = Run::from_word(self.open);
        let held = std::mem::take(&mut self.held);
        if held == 0 || !self.participant().is_here() {
            return;
        }
        self.open = Run { count: held, ..run }.word();
        self.settle();
        let left = Run {
            first: run.first.wrapping_add(held),
            count: run.count - held,
        };
        self.open = if left.count == 0 { 0 } else { left.word() };
    }

    /// Drops it. What it has claimed and not released, the other consumers get as from one that died:
    /// when this process ends.
    pub(crate) fn give_up(self) {
        if self.open != 0 {
            std::mem::forget(self);
        }
    }

    /// Takes up to `max` messages that are there now, or none. Never blocks. They are handed out one
    /// after the other; those not asked for are released unread when the [`Drain`] is dropped.
    ///
    /// # Errors
    /// [`RecvError::Closed`] as for [`Consumer::try_recv`]; no message is not an error.
    ///
    /// ```
    /// # let ring = ringway::mpmc::Ring::anonymous(Default::default())?;
    /// # let (mut producer, mut consumer) = (ring.producer()?, ring.consumer()?);
    /// producer.send_batch([b"one", b"two"])?;
    /// let mut batch = consumer.drain(64)?;
    /// assert_eq!(batch.next_message()?, Some(&b"one"[..]));
    /// assert_eq!(batch.next_message()?, Some(&b"two"[..]));
    /// assert_eq!(batch.next_message()?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn drain(&mut self, max: usize) -> Result<Drain<'_>, RecvError> {
        self.ready()?;
        let mut redelivered = false;
        let claim = if self.participant().queue().alarm() != self.alarm {
            self.adopt()
        } else {
            None
        };
        if claim.is_some() {
            redelivered = true;
        } else if max > 0 {
            redelivered = self.take_run(max as u64)?;
        }
        let open = Run::from_word(self.open);
        if self.participant().slot_size >= TOUCH_IN_DRAIN {
            self.touch_run(open);
        }
        Ok(Drain {
            next: open.first,
            // Wrapping, here and below: a hostile peer may have moved the head anywhere.
            end: open.first.wrapping_add(open.count),
            held: false,
            redelivered,
            messages: 0,
            bytes: 0,
            consumer: self,
        })
    }

    /// Touches all messages of a run, before they are read: between two of them the next one would wait for it.
    #[cold]
    #[inline(never)]
    fn touch_run(&self, run: Run) {
        let participant = self.participant();
        let slots = participant.queue().slots;
        for ticket in run.tickets(slots.capacity()) {
            // Relaxed: ours since it was claimed. Too long a one is refused when its turn comes.
            let len = slots.length(ticket).load(Ordering::Relaxed) as usize;
            participant.touch(ticket, len);
        }
    }

    /// Closes the ring for everybody: no send succeeds any more. (A consumer that only leaves is
    /// dropped instead.)
    ///
    /// # Errors
    /// [`RecvError::Forked`].
    pub fn close(&mut self) -> Result<(), RecvError> {
        self.ready()?;
        self.participant().close();
        Ok(())
    }
}

/// The error for message `ticket`, which says that it is longer than a slot.
#[cold]
fn too_long(participant: &Participant, ticket: u64) -> RecvError {
    RecvError::Corrupt {
        what: "message length",
        offset: participant.offset_of(ticket) + 8,
    }
}

/// What the alarm never shows: look for messages of dead consumers.
const STALE: u64 = u64::MAX >> 1;

impl Consumer {
    fn has_orphan(&self) -> bool {
        let participant = self.participant();
        participant
            .queue()
            .has_orphan(|index| participant.is_dead(index))
    }
}

impl Consumer {
    /// The descriptor to wait for in an event loop of one's own, of a ring with
    /// [`WaitStrategy::EventFd`]; `None` for others. It is readable when there is something to receive,
    /// provided that [`Consumer::arm`] was asked before. Wait for it to be readable with `poll`, `epoll` or
    /// what your loop has, but do not read from it. (A [`Selector`](crate::selector::Selector) does all
    /// this, and for rings of most other strategies, too.)
    ///
    /// It does not tell of a producer that was killed: look now and then by [`Consumer::recv_timeout`].
    ///
    /// ```
    /// # let ring = ringway::mpmc::Ring::anonymous(ringway::mpmc::Config::default().wait(ringway::wait::WaitStrategy::EventFd))?;
    /// # let (mut tx, mut rx) = (ring.producer()?, ring.consumer()?);
    /// # tx.send(b"hello")?;
    /// if rx.arm() {
    ///     let descriptor = rx.event_fd().expect("a ring with event descriptors");
    ///     // wait until `descriptor` is readable
    /// }
    /// assert_eq!(&*rx.try_recv()?, b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.event().map(EventFd::as_fd)
    }

    /// Says that this side is going to wait for [`Consumer::event_fd`], so that the other one signals it;
    /// clears what was signalled before. False when there is something to receive now, or an error to be
    /// told: do not wait then. Before each wait, also where the last one was in vain.
    pub fn arm(&mut self) -> bool {
        if let Some(event) = self.event() {
            event.clear();
        }
        !self.is_ready() && self.announce().is_some()
    }

    fn event(&self) -> Option<&EventFd> {
        self.member.as_ref().ok()?.sleeper().event()
    }

    pub(crate) fn awaited(&mut self) -> &mut (dyn Awaited + 'static) {
        self
    }
}

impl Awaited for Consumer {
    fn is_attached(&self) -> bool {
        self.member.is_ok()
    }

    fn is_ready(&mut self) -> bool {
        if self.ready().is_err() {
            return true; // The next call tells why.
        }
        let queue = self.participant().queue();
        let alarm = queue.alarm();
        if alarm != self.alarm {
            if self.has_orphan() {
                return true;
            }
            self.alarm = alarm;
        }
        let queue = self.participant().queue();
        let closed = Queue::tells_of_closing(self.alarm) && queue.is_drained();
        if queue.may_read() {
            self.gone = None;
            return true;
        }
        closed || self.gone.is_some() || self.participant().is_lost()
    }

    fn announce(&mut self) -> Option<u64> {
        self.repair();
        // Producers may sleep over a slot that was just stepped over.
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
        if self.ready().is_err() {
            return;
        }
        self.repair();
        if self.has_orphan() {
            self.alarm = STALE;
        } else {
            self.ask_for_peers();
        }
    }

    fn pass_on(&mut self) -> bool {
        if self.member.is_ok() && self.participant().is_here() {
            self.participant().woken();
            if self.participant().queue().may_read() {
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

impl Clone for Consumer {
    fn clone(&self) -> Consumer {
        let shared = match &self.member {
            Ok(participant) => &participant.shared,
            Err((shared, _)) => shared,
        };
        let member =
            Participant::join(shared, Role::Consumer).map_err(|error| (shared.clone(), error));
        Consumer {
            member,
            open: 0,
            held: 0,
            alarm: STALE,
            distance: Distance::new(),
            rested: 0,
            fruitless: 0,
            gone: None,
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        if self.open != 0 {
            self.settle();
        }
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("open", &Run::from_word(self.open).count)
            .finish_non_exhaustive()
    }
}

/// A consumer that waits for a message.
struct WaitForMessage<'a> {
    consumer: &'a mut Consumer,
    deadline: Deadline,
    slept: bool,
    /// Found while looking into why there is nothing.
    found: Option<Taken>,
}

impl WaitForMessage<'_> {
    /// Looks why there is nothing. What it finds stays found until an attempt takes it, however often it is asked to
    /// look before that. Whether there is something.
    fn look_into_it(&mut self) -> bool {
        if self.found.is_none() {
            self.found = self.consumer.look_into_it();
        }
        self.found.is_some()
    }
}

impl Blocking for WaitForMessage<'_> {
    type Output = Taken;
    type Error = RecvError;

    #[inline]
    fn attempt(&mut self, _spinning: bool) -> Result<Option<Taken>, RecvError> {
        match self.found.take() {
            None => self.consumer.take(),
            found => Ok(found),
        }
    }

    fn announce(&mut self) -> Result<Option<u64>, RecvError> {
        // What it waits for may be a dead one's. (This looks at memory only, unless somebody holds
        // something.)
        if self.look_into_it() {
            return Ok(None);
        }
        // Producers may sleep over a slot that was just stepped over.
        self.consumer.participant().notify();
        let expected = self.consumer.participant().announce();
        let participant = self.consumer.participant();
        if participant.queue().is_drained() {
            // A closer that was killed half-way told nobody; without the telling, this would look
            // again for ever.
            participant.queue().close();
        }
        let look_again =
            participant.queue().may_read() || participant.queue().alarm() != self.consumer.alarm;
        Ok((!look_again).then_some(expected))
    }

    fn sleep(&mut self, expected: u64) -> Result<(), RecvError> {
        self.slept = true;
        self.consumer
            .participant()
            .sleep(expected, self.deadline)
            .map_err(|source| RecvError::Os {
                op: "sleep",
                source,
            })?;
        if self.consumer.participant().queue().may_read() {
            return Ok(());
        }
        self.pulse()
    }

    fn pulse(&mut self) -> Result<(), RecvError> {
        if self.look_into_it() {
            return Ok(());
        }
        // Before the time is looked at: a caller with little of it would never learn that all have gone.
        self.consumer.ask_for_peers();
        if self.consumer.gone.is_none() && self.deadline.passed() {
            return Err(RecvError::TimedOut);
        }
        Ok(())
    }

    fn is_alone(&self) -> bool {
        self.consumer.participant().is_alone()
    }
}

/// A message, borrowed in place. Dropping it releases its slot; a leaked one is released at the
/// consumer's next use. Until then it is redelivered if this process dies.
pub struct Message<'a> {
    consumer: &'a mut Consumer,
    taken: Taken,
    len: usize,
}

impl Message<'_> {
    /// Where it lies in the file.
    pub(super) fn offset(&self) -> u64 {
        let participant = self.consumer.participant();
        participant.offset_of(self.taken.ticket()) + Slots::PAYLOAD
    }

    /// Whether another consumer had this message before, and died before it was done with it: what it
    /// stands for may have been done already.
    pub fn redelivered(&self) -> bool {
        self.taken.redelivered()
    }
}

impl Deref for Message<'_> {
    type Target = [u8];
    #[inline(always)]
    fn deref(&self) -> &[u8] {
        let slots = self.consumer.participant().queue().slots;
        let payload = slots.payload(self.taken.ticket());
        // SAFETY: the message is ours until released: nobody who keeps the protocol writes to it; its
        // slot holds `slot_size` bytes, which `len` does not exceed (checked in `Consumer::message`), initialised
        // as all shared memory is, and mapped as long as the consumer.
        unsafe { core::slice::from_raw_parts(payload, self.len) }
    }
}

impl Drop for Message<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        let participant = self.consumer.participant();
        // A forked child's copy releases nothing: the message is its parent's.
        if participant.is_here() {
            participant.release(self.taken.ticket(), self.len);
            participant.notify();
            self.consumer.open = 0;
        }
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("len", &self.len)
            .field("redelivered", &self.redelivered())
            .finish_non_exhaustive()
    }
}

/// Messages taken together. See [`Consumer::drain`].
pub struct Drain<'a> {
    consumer: &'a mut Consumer,
    next: u64,
    end: u64,
    /// Whether the one before `next` is handed out.
    held: bool,
    redelivered: bool,
    /// Handed out so far, for the counters.
    messages: u64,
    bytes: u64,
}

impl Drain<'_> {
    /// The next message, borrowed in place until the one after it is asked for, which releases it.
    ///
    /// # Errors
    /// [`RecvError::Corrupt`].
    #[inline]
    pub fn next_message(&mut self) -> Result<Option<&[u8]>, RecvError> {
        let consumer = &mut *self.consumer;
        let Ok(participant) = &consumer.member else {
            unreachable!("there was a message");
        };
        let queue = *participant.queue();
        // The one handed out before. (In a forked child they are all the parent's.)
        if self.held && participant.is_here() {
            self.held = false;
            queue.release(self.next.wrapping_sub(1));
            let left = Run {
                first: self.next,
                count: self.end.wrapping_sub(self.next),
            };
            consumer.open = if left.count == 0 { 0 } else { left.word() };
        }
        if self.next == self.end {
            return Ok(None);
        }
        let ticket = self.next;
        self.next = ticket.wrapping_add(1);
        self.held = true;
        // Loaded once: a hostile producer may change it at any time.
        let len = queue.slots.length(ticket).load(Ordering::Relaxed) as usize;
        if len > participant.slot_size {
            return Err(too_long(participant, ticket));
        }
        self.messages += 1;
        self.bytes += len as u64;
        // SAFETY: the message is ours until released: nobody who keeps the protocol writes to it; its
        // slot holds `slot_size` bytes, which `len` does not exceed, mapped as long as the consumer.
        Ok(Some(unsafe {
            core::slice::from_raw_parts(queue.slots.payload(ticket), len)
        }))
    }

    /// How many messages were not asked for yet.
    pub fn remaining(&self) -> usize {
        self.end.wrapping_sub(self.next) as usize
    }

    /// Whether these are redelivered messages: another consumer had them before, and died.
    pub fn redelivered(&self) -> bool {
        self.redelivered
    }
}

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        // Releases what is left and, once for all of them, tells those who wait for room.
        self.consumer.settle();
        let participant = self.consumer.participant();
        participant.passed_several(self.messages, self.bytes);
    }
}

impl fmt::Debug for Drain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain")
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    use super::super::{Config, Ring};
    use super::*;

    /// Waits, for no time at all.
    fn wait(consumer: &mut Consumer) -> WaitForMessage<'_> {
        WaitForMessage {
            consumer,
            deadline: Deadline::after(Duration::ZERO),
            slept: false,
            found: None,
        }
    }

    /// The loop that waits may look twice, or announce, before it attempts anything.
    #[test]
    fn a_dead_ones_message_that_a_waiting_consumer_found_stays_found() {
        let ring = Ring::anonymous(Config::default()).unwrap();
        let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
        tx.send(b"precious").unwrap();
        // SAFETY: the child only takes the message, and is gone.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let mut taker = ring.consumer();
                let taken = taker.as_mut().map(|rx| rx.try_recv().map(std::mem::forget));
                // SAFETY: ends the child, which holds the message, without running anything of the parent's.
                unsafe { libc::_exit(if let Ok(Ok(())) = taken { 0 } else { 1 }) }
            }
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
            }
        }
        let mut waiting = wait(&mut rx);
        waiting.pulse().unwrap();
        waiting.pulse().unwrap();
        assert_eq!(waiting.announce().unwrap(), None);
        waiting.pulse().unwrap();
        let taken = waiting.attempt(true).unwrap().expect("it was found");
        assert!(taken.redelivered());
        let found = rx.found(taken);
        assert_eq!(&*rx.message(found).unwrap(), b"precious");
    }
}
