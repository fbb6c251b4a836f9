//! The receiving side.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;
use std::time::Duration;

use crate::awaited::Awaited;
use crate::error::RecvError;
use crate::mapping::Mapping;
use crate::os;
use crate::os::clock::Deadline;
use crate::participant::{self, Life, Watch};
use crate::primitive::{AtomicU64, Data};
use crate::ring::broadcast::{Corrupt, MORE, Manner, Next, Notify, REST, Record, Rx, Start};
use crate::sleeper::{Door, Sleeper};
use crate::wait::{Backoff, Blocking, WaitStrategy, block_on};

use super::ring::{LOST, PRODUCER, Side};

/// Fruitless attempts after which a non-blocking call looks whether the producer is dead.
const LOOK_INTO_IT: u32 = 1024;
/// As many of them as make the next call look, and tell.
const TELL: u32 = LOOK_INTO_IT;
/// The first and the longest sleep of one that the producer does not know of, in nanoseconds.
const NAP: u64 = 50_000;
const NAP_MOST: u64 = 2_000_000;

/// Receives every message that is sent after it joined, or from where it was told to start. Holds its
/// seat until dropped.
///
/// On a lossless ring it holds the producer back, and messages are borrowed in place. (One that joins others gets
/// copies until it has caught up with the producer for the first time.) On a lossy ring,
/// and as an [observer](super::Ring::observer), it does not: messages are copied to a buffer of its
/// own and then looked at, so that what was overwritten meanwhile is never seen
/// ([`Subscriber::recv_with`] does without the copy), and one that was too slow gets
/// [`RecvError::Missed`], once, with the exact number.
pub struct Subscriber {
    /// Its views live as long as `side`, which keeps the mapping.
    rx: Rx<'static>,
    /// What is lent out where it may not be in the ring: words, so that values in it are aligned as there.
    copy: Vec<u64>,
    /// Where it goes on after it was overrun.
    resume: Start,
    backoff: Backoff,
    fruitless: u32,
    producer: Watch,
    side: Side,
}

impl Subscriber {
    /// One in the seat `index`, which holds the producer back if the ring is lossless.
    pub(super) fn seated(side: Side, index: usize, start: Start) -> Result<Subscriber, Corrupt> {
        let shared = &side.shared;
        if !shared.manner().gated {
            return Subscriber::free(side, start);
        }
        let (control, seats) = (shared.control(), shared.seats());
        let manner = Manner {
            touch: os::membarrier::register(),
            ..shared.waking_manner()
        };
        match Rx::gated(
            control,
            seats,
            index,
            shared.data(),
            manner,
            start,
            os::membarrier::all,
        ) {
            Ok(rx) => {
                // SAFETY: only the lifetime changes. What `rx` refers to is in the mapping, which
                // `side` keeps and which is dropped after it; `rx` is private and never lent out with
                // that lifetime.
                let rx = unsafe { core::mem::transmute::<Rx<'_>, Rx<'static>>(rx) };
                Ok(Subscriber::new(side, rx))
            }
            Err(corrupt) => {
                let _ = side.leave_seat();
                Err(corrupt)
            }
        }
    }

    /// One that holds nobody back.
    pub(super) fn free(side: Side, start: Start) -> Result<Subscriber, Corrupt> {
        match Rx::free(side.shared.control(), side.shared.data(), start) {
            Ok(rx) => {
                // SAFETY: as above.
                let rx = unsafe { core::mem::transmute::<Rx<'_>, Rx<'static>>(rx) };
                Ok(Subscriber::new(side, rx))
            }
            Err(corrupt) => {
                let _ = side.leave_seat();
                Err(corrupt)
            }
        }
    }

    fn new(side: Side, rx: Rx<'static>) -> Subscriber {
        Subscriber {
            rx,
            copy: Vec::new(),
            resume: Start::Oldest,
            backoff: Backoff::new(side.shared.geometry.capacity),
            fruitless: 0,
            producer: Watch::new(PRODUCER),
            side,
        }
    }

    /// Where to go on after messages were missed: [`Start::Oldest`] unless told. (With
    /// [`Start::Newest`] and [`Start::Next`] the messages passed over count as missed.)
    pub fn resume_at(&mut self, start: Start) {
        self.resume = start;
    }

    /// The sequence of the next message to be received: how many were sent before it.
    pub fn sequence(&self) -> u64 {
        self.rx.sequence()
    }

    /// The longest message, in bytes.
    pub fn max_message(&self) -> usize {
        self.side.shared.geometry.max
    }

    /// What comes before every operation: in its own process, with nothing lent out.
    #[inline(always)]
    fn ready(&mut self) -> Result<(), RecvError> {
        if !self.side.here.is_here() {
            return Err(RecvError::Forked);
        }
        if self.rx.is_open() {
            self.let_go();
        }
        Ok(())
    }

    #[inline(always)]
    fn let_go(&mut self) {
        if self.rx.let_go() == Notify::Peer {
            self.wake_producer();
        }
    }

    #[cold]
    fn wake_producer(&self) {
        self.side.count(|record| &record.wakes);
        let shared = &self.side.shared;
        let wait = shared.geometry.wait;
        if let Some(member) = &self.side.membership
            && let Ok(producer) = Sleeper::new(&shared.mapping, wait, None, Door::Room)
        {
            producer.wake(shared.seats()[member.index() as usize - 1].room_word());
        }
    }

    #[cold]
    pub(super) fn corrupt(&self, corrupt: Corrupt) -> RecvError {
        RecvError::Corrupt {
            what: corrupt.what,
            offset: self.side.shared.offset(corrupt),
        }
    }

    /// Goes on after an overrun. An error, unless it was only padding that was overwritten.
    #[cold]
    fn skip(&mut self) -> Result<(), RecvError> {
        match self.rx.skip(self.resume) {
            Ok(0) => Ok(()),
            Ok(count) => Err(RecvError::Missed { count }),
            Err(corrupt) => Err(self.corrupt(corrupt)),
        }
    }

    /// Looks for a message if the fast path can.
    #[inline(always)]
    fn look_at_once(&mut self) -> Option<Record> {
        if !self.side.here.is_here() || self.rx.is_open() {
            return None;
        }
        match self.rx.look() {
            Ok(Next::Message(record)) => Some(record),
            _ => None,
        }
    }

    #[cold]
    #[inline(never)]
    fn look_until(&mut self, deadline: Deadline) -> Result<Record, RecvError> {
        self.ready()?;
        let mut spinner = self.side.spinner.clone();
        let mut arrival = Arrival {
            subscriber: self,
            deadline,
            nap: NAP,
            over: None,
        };
        let result = block_on(&mut arrival, &mut spinner);
        self.side.spinner = spinner;
        result
    }

    #[cold]
    #[inline(never)]
    fn look_now(&mut self) -> Result<Record, RecvError> {
        self.ready()?;
        match self.look()? {
            Some(record) => Ok(record),
            None => Err(self.empty()),
        }
    }

    fn look(&mut self) -> Result<Option<Record>, RecvError> {
        match self.rx.look() {
            Ok(Next::Message(record)) => Ok(Some(record)),
            Ok(Next::Empty) => {
                self.rx.rest();
                Ok(None)
            }
            Ok(Next::Closed) => {
                self.rx.rest();
                Err(RecvError::Closed)
            }
            Ok(Next::Overrun) => self.skip().map(|()| None),
            Err(corrupt) => Err(self.corrupt(corrupt)),
        }
    }

    #[cold]
    fn empty(&mut self) -> RecvError {
        self.fruitless += 1;
        if self.fruitless < LOOK_INTO_IT {
            return RecvError::Empty;
        }
        self.fruitless = 0;
        if self.side.shared.mapping.is_lost() {
            return self.corrupt(LOST);
        }
        let life = self.side.life(&self.producer);
        // It may have published something just before it went.
        match life {
            Life::Dead if matches!(self.rx.has_nothing(), Ok(true)) => RecvError::PeerDied,
            Life::Left if matches!(self.rx.has_nothing(), Ok(true)) => RecvError::Closed,
            _ => RecvError::Empty,
        }
    }

    /// Whether what was read of the message was not overwritten meanwhile; if it was, goes on, with an
    /// error if anything was missed.
    #[inline(always)]
    fn confirm(&mut self) -> Result<bool, RecvError> {
        match self.rx.is_intact() {
            Ok(true) => Ok(true),
            Ok(false) => self.skip().map(|()| false),
            Err(corrupt) => Err(self.corrupt(corrupt)),
        }
    }

    /// Takes the message that was looked at, and lends it out. `None` when there was none after all.
    #[inline(always)]
    fn lend(&mut self, record: Record) -> Result<Option<Lent>, RecvError> {
        let len = record.len as usize;
        let bytes = if self.rx.may_lend() {
            NonNull::new(self.rx.data().pointer(record.payload)).unwrap_or(NonNull::dangling())
        } else {
            self.copy.reserve(len.div_ceil(8)); // it is always empty
            let to = self.copy.as_mut_ptr().cast();
            // SAFETY: `look` checked that the record lies in the data area; there is room for so many words.
            unsafe { self.rx.data().copy_out_shared(record.payload, to, len) };
            if !self.confirm()? {
                return Ok(None);
            }
            NonNull::new(to).unwrap_or(NonNull::dangling())
        };
        let lent = Lent {
            bytes,
            len,
            sequence: self.rx.sequence(),
            flags: record.flags,
        };
        self.rx.pass(record);
        Ok(Some(lent))
    }

    #[inline(always)]
    fn receive(
        &mut self,
        mut look: impl FnMut(&mut Subscriber) -> Result<Record, RecvError>,
    ) -> Result<Message<'_>, RecvError> {
        loop {
            let record = match self.look_at_once() {
                Some(record) => record,
                None => look(self)?,
            };
            if let Some(lent) = self.lend(record)? {
                return Ok(Message {
                    lent,
                    subscriber: NonNull::from(self),
                    borrow: PhantomData,
                });
            }
        }
    }

    /// The next message, if one is there now.
    ///
    /// # Errors
    /// [`RecvError::Empty`]; [`RecvError::Missed`] when it was overrun: the next call receives;
    /// [`RecvError::Closed`] and [`RecvError::PeerDied`] when nothing is there and the producer is gone
    /// (a death is noticed here only now and then); [`RecvError::Corrupt`]; [`RecvError::Forked`].
    ///
    /// ```
    /// # let ring = ringway::broadcast::Ring::anonymous(Default::default())?;
    /// let mut rx = ring.subscriber()?;
    /// assert!(matches!(rx.try_recv(), Err(ringway::RecvError::Empty)));
    /// # Ok::<(), ringway::Error>(())
    /// ```
    #[inline]
    pub fn try_recv(&mut self) -> Result<Message<'_>, RecvError> {
        self.receive(Subscriber::look_now)
    }

    /// The next message; waits for it.
    ///
    /// # Errors
    /// As [`Subscriber::try_recv`], but for [`RecvError::Empty`].
    #[inline]
    pub fn recv(&mut self) -> Result<Message<'_>, RecvError> {
        self.receive(|subscriber| subscriber.look_until(Deadline::NEVER))
    }

    /// The next message; waits for it no longer than `timeout`.
    ///
    /// # Errors
    /// As [`Subscriber::recv`], and [`RecvError::TimedOut`].
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Message<'_>, RecvError> {
        let deadline = Deadline::after(timeout);
        self.receive(|subscriber| subscriber.look_until(deadline))
    }

    /// Copies the next message to `buffer`, in place of what is there; waits for it. Returns its
    /// sequence. This is safe from a producer that is not trusted: what is looked at is the copy.
    ///
    /// # Errors
    /// As [`Subscriber::recv`].
    ///
    /// ```
    /// # let ring = ringway::broadcast::Ring::anonymous(Default::default())?;
    /// # let (mut tx, mut rx) = (ring.producer()?, ring.subscriber()?);
    /// let mut buffer = Vec::new();
    /// tx.send(b"copied")?;
    /// assert_eq!(rx.recv_into(&mut buffer)?, 0);
    /// assert_eq!(buffer, b"copied");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn recv_into(&mut self, buffer: &mut Vec<u8>) -> Result<u64, RecvError> {
        self.receive_into(buffer, Some(Deadline::NEVER))
    }

    /// As [`Subscriber::recv_into`], if a message is there now.
    ///
    /// # Errors
    /// As [`Subscriber::try_recv`].
    #[inline]
    pub fn try_recv_into(&mut self, buffer: &mut Vec<u8>) -> Result<u64, RecvError> {
        self.receive_into(buffer, None)
    }

    /// As [`Subscriber::recv_into`], waiting no longer than `timeout`.
    ///
    /// # Errors
    /// As [`Subscriber::recv_timeout`].
    pub fn recv_into_timeout(
        &mut self,
        buffer: &mut Vec<u8>,
        timeout: Duration,
    ) -> Result<u64, RecvError> {
        self.receive_into(buffer, Some(Deadline::after(timeout)))
    }

    #[inline(always)]
    fn receive_into(
        &mut self,
        buffer: &mut Vec<u8>,
        wait: Option<Deadline>,
    ) -> Result<u64, RecvError> {
        self.read_next(wait, |data, record| {
            // SAFETY: `look` checked that the record lies in the data area.
            unsafe { copy_shared(data, record, buffer) }
        })
        .map(|(sequence, ())| sequence)
    }

    /// Has `read` read the next message and passes over it, with its sequence; waits for it. No copy is
    /// made, on a lossy ring neither: there the message may be overwritten while it is read, so it is
    /// given as a [`View`], which allows that, and what `read` returned counts only if it was not. If it
    /// was, this is [`RecvError::Missed`], and whatever `read` did has to be undone or not to matter.
    ///
    /// # Errors
    /// As [`Subscriber::recv`].
    ///
    /// ```
    /// # use ringway::broadcast::{Config, Policy, Ring};
    /// # let ring = Ring::anonymous(Config::default().policy(Policy::Lossy))?;
    /// # let (mut tx, mut rx) = (ring.producer()?, ring.subscriber()?);
    /// tx.send(&[7; 20_000])?;
    /// let (_sequence, length_and_first) = rx.recv_with(|frame| {
    ///     let mut first = [0; 8]; // of a long frame just what is needed
    ///     frame.read(0, &mut first);
    ///     (frame.len(), first)
    /// })?;
    /// assert_eq!(length_and_first, (20_000, [7; 8]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn recv_with<R>(
        &mut self,
        mut read: impl FnMut(View<'_>) -> R,
    ) -> Result<(u64, R), RecvError> {
        let wait = Some(Deadline::NEVER);
        self.read_next(wait, |data, record| read(View { data, record }))
    }

    /// Whether, after a look that found nothing, a message comes within the microsecond or so that an
    /// answer may take. If so the fast path takes it: of all that comes after the message is there, each
    /// instruction is latency.
    #[inline(never)]
    fn answer_comes(&mut self) -> bool {
        self.side.spinner.expects_answers() && self.rx.answer_comes()
    }

    /// Has `read` read a message if the fast path can.
    #[inline(always)]
    fn consume_at_once(&mut self, read: impl FnOnce(Data<'_>, Record)) -> bool {
        if !self.side.here.is_here() || self.rx.is_open() {
            return false;
        }
        match self.rx.consume_at_once(read) {
            Some(Notify::Nobody) => true,
            Some(Notify::Peer) => {
                self.wake_producer();
                true
            }
            None => false,
        }
    }

    /// Has `read` read the next message where it lies, and passes over it, with its sequence; waits for it
    /// until the deadline `wait`, if there is one.
    #[inline(always)]
    pub(super) fn read_next<R>(
        &mut self,
        wait: Option<Deadline>,
        mut read: impl FnMut(Data<'_>, Record) -> R,
    ) -> Result<(u64, R), RecvError> {
        let mut result = None;
        let mut at_once = |subscriber: &mut Subscriber, result: &mut Option<R>| {
            subscriber.consume_at_once(|data, record| *result = Some(read(data, record)))
        };
        let mut taken = at_once(self, &mut result);
        if !taken && result.is_none() && wait.is_some() && self.answer_comes() {
            taken = at_once(self, &mut result);
        }
        match result {
            Some(result) if taken => return Ok((self.rx.sequence().wrapping_sub(1), result)),
            // It was overwritten while it was read.
            Some(_) => self.skip()?,
            None => {}
        }
        loop {
            let record = match wait {
                None => self.look_now()?,
                Some(deadline) => self.look_until(deadline)?,
            };
            let result = read(self.rx.data(), record);
            if self.confirm()? {
                let sequence = self.rx.sequence();
                self.rx.pass(record);
                self.let_go();
                return Ok((sequence, result));
            }
        }
    }

    /// An iterator over copies of all messages to come; waits for each. Ends when the producer has left
    /// and every message was taken; any other error is an item, and all but [`RecvError::Missed`] the
    /// last one.
    ///
    /// ```
    /// # let ring = ringway::broadcast::Ring::anonymous(Default::default())?;
    /// # let (mut tx, mut rx) = (ring.producer()?, ring.subscriber()?);
    /// tx.send(b"the only one")?;
    /// tx.close();
    /// let all: Vec<_> = rx.iter().collect::<Result<_, _>>()?;
    /// assert_eq!(all, [b"the only one"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&mut self) -> Iter<'_> {
        Iter {
            subscriber: Some(self),
        }
    }

    /// Waits for the next message, leaves it, and tells whether it continues a stream.
    pub(super) fn next_is_continuation(&mut self) -> Result<bool, RecvError> {
        loop {
            let record = self.look_until(Deadline::NEVER)?;
            if self.confirm()? {
                return Ok(record.flags & REST != 0);
            }
        }
    }

    /// Whether a producer is attached and alive now. A system call or two.
    pub fn has_peer(&self) -> bool {
        self.side.life(&self.producer) == Life::Alive
    }

    /// Leaves, as dropping does: the producer waits for it no longer.
    pub fn close(self) {}
}

impl Subscriber {
    pub(crate) fn awaited(&mut self) -> &mut (dyn Awaited + 'static) {
        self
    }

    /// Leaves the mark that it is going to sleep, if it can leave one.
    fn announce_sleep(&mut self) -> Result<Option<u64>, Corrupt> {
        if self.side.membership.is_some() {
            self.side.lie_down();
            let shared = &self.side.shared;
            self.rx.announce(|| {
                // (A producer that looked before it could see the demand may miss this one: once, for a slice
                // of time.)
                if !shared.fence_others() {
                    shared.control().bell.demand_fences();
                }
            })
        } else {
            self.rx.doze()
        }
    }
}

impl Awaited for Subscriber {
    fn is_ready(&mut self) -> bool {
        // What keeps it from being used is what the next call tells.
        let has_something = |rx: &mut Rx<'_>| !matches!(rx.has_nothing(), Ok(true));
        self.ready().is_err() || has_something(&mut self.rx) || self.fruitless == TELL
    }

    fn announce(&mut self) -> Option<u64> {
        // The producer learns of all the room there is before this side sleeps.
        self.rx.rest();
        self.announce_sleep().unwrap_or_else(|_| {
            self.fruitless = TELL;
            None
        })
    }

    fn may_miss(&self) -> bool {
        let shared = &self.side.shared;
        let adaptive = shared.geometry.wait == WaitStrategy::Adaptive;
        self.side.membership.is_none() || (adaptive && !os::membarrier::register())
    }

    fn pulse(&mut self) {
        let lost = self.side.shared.mapping.is_lost();
        let gone = matches!(self.side.life(&self.producer), Life::Dead | Life::Left);
        if lost || gone && matches!(self.rx.has_nothing(), Ok(true)) {
            self.fruitless = TELL;
        }
    }

    fn word(&self) -> &AtomicU64 {
        self.side.shared.control().bell.word()
    }

    fn sleeper(&self) -> &Sleeper {
        &self.side.own
    }

    fn strategy(&self) -> WaitStrategy {
        self.side.shared.geometry.wait
    }

    fn mapping(&self) -> &Mapping {
        &self.side.shared.mapping
    }

    fn index(&self) -> u32 {
        let member = self.side.membership.as_ref();
        member.map_or(PRODUCER, |member| member.index())
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        if !self.side.here.is_here() {
            return; // A forked child: the seat is the parent's.
        }
        if self.side.leave_seat() == Notify::Peer {
            self.wake_producer();
        }
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber")
            .field("sequence", &self.sequence())
            .finish_non_exhaustive()
    }
}

/// Copies a message to `buffer`, in place of what is there. It may be being overwritten.
///
/// # Safety
/// It lies in the data area.
#[inline(always)]
unsafe fn copy_shared(data: Data<'_>, record: Record, buffer: &mut Vec<u8>) {
    let len = record.len as usize;
    let room = len.next_multiple_of(8);
    if buffer.capacity() < room {
        buffer.clear();
        buffer.reserve(room);
    }
    // SAFETY: in the data area (caller), at a multiple of 8, as all records are; there is room for
    // `len` bytes rounded up, of which the copy initialises `len`.
    unsafe {
        data.copy_out_shared(record.payload, buffer.as_mut_ptr(), len);
        buffer.set_len(len);
    }
}

/// Waits for a message.
struct Arrival<'a> {
    subscriber: &'a mut Subscriber,
    deadline: Deadline,
    /// How long to sleep next, if the producer does not know of it, in nanoseconds.
    nap: u64,
    /// Why to give up, if there still is nothing.
    over: Option<RecvError>,
}

impl Blocking for Arrival<'_> {
    type Output = Record;
    type Error = RecvError;

    #[inline(always)]
    fn attempt(&mut self, _: bool) -> Result<Option<Record>, RecvError> {
        match self.subscriber.rx.look() {
            Ok(Next::Message(record)) => Ok(Some(record)),
            Ok(Next::Empty) => {
                let streak = self.subscriber.rx.rest();
                if !self.subscriber.side.spinner.is_crowded() {
                    self.subscriber.backoff.rest(streak);
                }
                self.over.take().map_or(Ok(None), Err)
            }
            _ => self.subscriber.look(),
        }
    }

    fn announce(&mut self) -> Result<Option<u64>, RecvError> {
        let announced = self.subscriber.announce_sleep();
        announced.map_err(|corrupt| self.subscriber.corrupt(corrupt))
    }

    fn sleep(&mut self, expected: u64) -> Result<(), RecvError> {
        let side = &self.subscriber.side;
        side.count(|record| &record.parks);
        let mut deadline = self.deadline;
        if side.membership.is_none() {
            deadline = deadline.at_most(self.nap);
            self.nap = (2 * self.nap).min(NAP_MOST);
        }
        let bell = side.shared.control().bell.word();
        let slept = side.own.sleep(bell, expected, deadline);
        slept.map_err(|source| RecvError::Os {
            op: "sleep",
            source,
        })?;
        if !matches!(self.subscriber.rx.has_nothing(), Ok(true)) {
            return Ok(());
        }
        self.pulse()
    }

    fn pulse(&mut self) -> Result<(), RecvError> {
        if self.subscriber.side.shared.mapping.is_lost() {
            return Err(self.subscriber.corrupt(LOST));
        }
        self.over = match self.subscriber.side.life(&self.subscriber.producer) {
            Life::Dead => Some(RecvError::PeerDied),
            // It leaves a closed header; this is one that was killed between the two.
            Life::Left => Some(RecvError::Closed),
            _ if self.deadline.passed() => Some(RecvError::TimedOut),
            _ => None,
        };
        Ok(())
    }

    fn is_alone(&self) -> bool {
        self.subscriber.side.is_alone()
    }

    fn is_crowded(&self) -> bool {
        let side = &self.subscriber.side;
        side.membership.is_some() && participant::are_crowded(&side.shared.mapping)
    }
}

struct Lent {
    bytes: NonNull<u8>,
    len: usize,
    sequence: u64,
    flags: u64,
}

/// A message, borrowed: of a lossless ring in place, of a lossy one, and in the beginning of one that joined others,
/// from the subscriber's own buffer. Let go when dropped.
///
/// Of a lossless ring, its bytes are in memory that the producer can write, and other subscribers. Those that
/// keep the protocol do not; where one is not trusted, use [`Subscriber::recv_into`].
pub struct Message<'a> {
    lent: Lent,
    subscriber: NonNull<Subscriber>,
    borrow: PhantomData<&'a mut Subscriber>,
}

impl Message<'_> {
    /// How many messages were sent before this one.
    pub fn sequence(&self) -> u64 {
        self.lent.sequence
    }

    /// Where it stands in the file, in bytes.
    pub(super) fn offset(&self) -> u64 {
        // SAFETY: borrowed for as long as this lives, and not used by anybody else meanwhile.
        let subscriber = unsafe { self.subscriber.as_ref() };
        // It is what was passed last.
        let position = subscriber.rx.position() - (self.lent.len as u64).next_multiple_of(8);
        subscriber
            .side
            .shared
            .offset(Corrupt { what: "", position })
    }

    /// Whether this is part of a longer whole, and more of it
    /// follows.
    pub fn is_continued(&self) -> bool {
        self.lent.flags & MORE != 0
    }

    /// Whether this is part of a stream and some of it came before.
    pub fn is_continuation(&self) -> bool {
        self.lent.flags & REST != 0
    }
}

impl Deref for Message<'_> {
    type Target = [u8];
    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes: of the subscriber's buffer, which is borrowed; or of the data
        // area, without wrapping (checked by `look`), which no producer that keeps the protocol writes
        // before they are let go, when this is dropped, and no other subscriber touches (`may_lend`). That they do
        // keep it is the trust that zero-copy takes.
        unsafe { core::slice::from_raw_parts(self.lent.bytes.as_ptr(), self.lent.len) }
    }
}

impl AsRef<[u8]> for Message<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl Drop for Message<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the subscriber is borrowed mutably for as long as this lives, and not used by anybody
        // else meanwhile.
        let subscriber = unsafe { self.subscriber.as_mut() };
        // A forked child's copy lets nothing go: the message is its parent's.
        if subscriber.side.here.is_here() {
            subscriber.let_go();
        }
    }
}

/// A message that may be overwritten while it is read; see [`Subscriber::recv_with`]. It is read by
/// atomic loads, so that this is allowed, and what was read may be torn until the call has returned.
#[derive(Clone, Copy)]
pub struct View<'a> {
    data: Data<'a>,
    record: Record,
}

impl View<'_> {
    /// Its length, in bytes. (It may be wrong, but nothing outside the ring is ever read.)
    #[expect(
        clippy::len_without_is_empty,
        reason = "an empty view is of no interest"
    )]
    pub fn len(&self) -> usize {
        self.record.len as usize
    }

    /// Copies what is there from byte `from` on to `to`; returns how many bytes, fewer at the end. Quick where
    /// `from` is a multiple of 8.
    #[inline]
    pub fn read(&self, from: usize, to: &mut [u8]) -> usize {
        let from = from.min(self.len());
        let len = to.len().min(self.len() - from);
        let at = self.record.payload + from as u64;
        let whole = if at.is_multiple_of(8) { len & !7 } else { 0 };
        if whole > 0 {
            // SAFETY: inside of the message, which lies in the data area, as `look` checked; `to` has room for
            // so many bytes, whole words.
            unsafe { self.data.copy_out_shared(at, to.as_mut_ptr(), whole) };
        }
        for (at, byte) in (at + whole as u64..).zip(&mut to[whole..len]) {
            // Relaxed: it counts only if it is found to be intact later.
            let word = self.data.word(at).load(crate::primitive::Ordering::Relaxed);
            *byte = word.to_ne_bytes()[(at % 8) as usize];
        }
        len
    }
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("len", &self.len()).finish()
    }
}

/// Copies of all messages to come; see [`Subscriber::iter`].
#[derive(Debug)]
pub struct Iter<'a> {
    subscriber: Option<&'a mut Subscriber>,
}

impl Iterator for Iter<'_> {
    type Item = Result<Vec<u8>, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut buffer = Vec::new();
        match self.subscriber.as_mut()?.recv_into(&mut buffer) {
            Ok(_) => Some(Ok(buffer)),
            Err(missed @ RecvError::Missed { .. }) => Some(Err(missed)),
            Err(error) => {
                self.subscriber = None;
                (!matches!(error, RecvError::Closed)).then_some(Err(error))
            }
        }
    }
}
