//! The receiving side.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::time::Duration;

use crate::awaited::Awaited;
use crate::error::RecvError;
use crate::mapping::Mapping;
use crate::os::clock::Deadline;
use crate::os::eventfd::EventFd;
use crate::participant::Life;
use crate::primitive::{AtomicU64, Data};
use crate::ring::spsc::{AGAIN, Corrupt, MORE, Manner, Next, Notify, REST, Record, Rx, Walk};
use crate::sleeper::Sleeper;
use crate::wait::{Backoff, Blocking, WaitStrategy, block_on};

use super::ring::{LOST, Side};

/// Fruitless attempts after which a non-blocking call looks whether the producer is dead.
const LOOK_INTO_IT: u32 = 1024;
/// In place of their number: there is something to tell, if there is no message.
const TELL: u32 = u32::MAX;

/// Receives messages from an SPSC ring. Holds the role of its consumer until dropped.
pub struct Consumer {
    /// Its views live as long as `side`, which keeps the mapping.
    rx: Rx<'static>,
    backoff: Backoff,
    fruitless: u32,
    /// Messages that were handed out and not dropped; while a drain is going on, which counts what it
    /// hands out itself, less those.
    lent: u32,
    /// Whether a drain is going on, which acknowledges all at once.
    draining: bool,
    side: Side,
}

impl Consumer {
    pub(super) fn new(side: Side, manner: Manner) -> Result<Consumer, Corrupt> {
        let rx = Rx::resume(side.shared.control(), side.shared.data(), manner)?;
        // SAFETY: only the lifetime changes. What `rx` refers to is in the mapping, which `side` keeps
        // and which is dropped after it; `rx` is private and never lent out with that lifetime.
        let rx = unsafe { core::mem::transmute::<Rx<'_>, Rx<'static>>(rx) };
        let backoff = Backoff::new(side.shared.geometry.capacity);
        Ok(Consumer {
            rx,
            backoff,
            fruitless: 0,
            lent: 0,
            draining: false,
            side,
        })
    }

    /// What comes before every operation: in its own process, with nothing lent out.
    #[inline(always)]
    fn ready(&mut self) -> Result<(), RecvError> {
        if !self.side.here.is_here() {
            return Err(RecvError::Forked);
        }
        if self.rx.is_open() {
            self.settle();
        }
        Ok(())
    }

    /// Acknowledges what was leaked.
    #[cold]
    fn settle(&mut self) {
        self.lent = 0;
        self.draining = false;
        self.acknowledge();
    }

    #[inline(always)]
    fn acknowledge(&mut self) {
        if self.rx.acknowledge() == Notify::Peer {
            self.side.wake(self.rx.room_word());
        }
    }

    #[inline(always)]
    fn take(&mut self) -> Result<Option<Record>, RecvError> {
        match self.rx.take() {
            Ok(Next::Message(record)) => Ok(Some(self.side.seen(record))),
            other => self.took_none(other),
        }
    }

    #[cold]
    fn took_none(&mut self, next: Result<Next, Corrupt>) -> Result<Option<Record>, RecvError> {
        match next {
            Ok(Next::Closed) => {
                self.rx.rest();
                Err(RecvError::Closed)
            }
            Ok(_) => {
                self.rx.rest();
                Ok(None)
            }
            Err(corrupt) => Err(self.corrupt(corrupt)),
        }
    }

    fn corrupt(&self, corrupt: Corrupt) -> RecvError {
        RecvError::Corrupt {
            what: corrupt.what,
            offset: self.side.shared.offset(corrupt),
        }
    }

    #[inline(never)]
    fn try_take(&mut self) -> Result<Record, RecvError> {
        self.ready()?;
        match self.take()? {
            Some(record) => Ok(record),
            None => Err(self.empty()),
        }
    }

    #[cold]
    fn empty(&mut self) -> RecvError {
        self.fruitless = self.fruitless.saturating_add(1);
        if self.fruitless < LOOK_INTO_IT {
            return RecvError::Empty;
        }
        self.fruitless = 0;
        if self.side.shared.mapping.is_lost() {
            return self.corrupt(LOST);
        }
        if let Err(corrupt) = self.rx.check_next() {
            return self.corrupt(corrupt);
        }
        let gone = match self.side.peer_life() {
            Life::Dead => RecvError::PeerDied,
            // It leaves a closed header; this is one that was killed between the two.
            Life::Left => RecvError::Closed,
            _ => return RecvError::Empty,
        };
        // It may have published something just before it went.
        match self.rx.take() {
            Ok(Next::Message(_)) => {
                self.rx.put_back();
                RecvError::Empty
            }
            _ => gone,
        }
    }

    /// Whether, after a look that found nothing, a message comes within the microsecond or so that an
    /// answer may take. If so the fast path takes it: of all that comes after the message is there, each
    /// instruction is latency.
    #[inline(never)]
    fn answer_comes(&mut self) -> bool {
        self.side.spinner.expects_answers() && self.rx.answer_comes()
    }

    /// Takes a message if the fast path can.
    #[inline(always)]
    fn take_at_once(&mut self) -> Option<(u64, u64)> {
        if !self.side.here.is_here() || self.rx.is_open() {
            return None;
        }
        self.rx.take_at_once()
    }

    #[cold]
    #[inline(never)]
    fn take_until(&mut self, deadline: Deadline) -> Result<Record, RecvError> {
        self.ready()?;
        self.wait(deadline)
    }

    fn wait(&mut self, deadline: Deadline) -> Result<Record, RecvError> {
        let mut spinner = self.side.spinner.clone();
        let side = &self.side;
        let mut arrival = Arrival {
            rx: &mut self.rx,
            backoff: &mut self.backoff,
            side,
            deadline,
            over: None,
            stalled: false,
        };
        let result = block_on(&mut arrival, &mut spinner);
        self.side.spinner = spinner;
        result
    }

    /// For a drain: the next message if it is no plain one.
    #[cold]
    #[inline(never)]
    fn take_slowly(&mut self) -> Option<Record> {
        match self.rx.take() {
            Ok(Next::Message(record)) => Some(self.side.seen(record)),
            _ => None,
        }
    }

    /// A message was dropped, and no drain is going on.
    #[inline(never)]
    fn returned(&mut self) {
        // A forked child's copy gives nothing back: the message is its parent's.
        if self.lent == 0 && self.side.here.is_here() {
            self.acknowledge();
        }
    }

    #[inline(always)]
    fn lend(&mut self, record: Record) -> Message<'_> {
        self.draining = false;
        self.lent += 1;
        let data = self.rx.data();
        Message::new(NonNull::from(self), data, record)
    }

    /// The next message, if one is there now.
    ///
    /// # Errors
    /// [`RecvError::Empty`]; [`RecvError::Closed`] and [`RecvError::PeerDied`] when nothing is there and
    /// the producer is gone (a death is noticed here only now and then); [`RecvError::Corrupt`];
    /// [`RecvError::Forked`].
    ///
    /// ```
    /// # let ring = ringway::spsc::Ring::anonymous(Default::default())?;
    /// let mut rx = ring.consumer()?;
    /// assert!(matches!(rx.try_recv(), Err(ringway::RecvError::Empty)));
    /// # Ok::<(), ringway::Error>(())
    /// ```
    #[inline]
    pub fn try_recv(&mut self) -> Result<Message<'_>, RecvError> {
        if let Some((payload, len)) = self.take_at_once() {
            return Ok(self.lend(Record {
                payload,
                len,
                flags: 0,
            }));
        }
        let record = self.try_take()?;
        Ok(self.lend(record))
    }

    /// The next message; waits for it.
    ///
    /// # Errors
    /// As [`Consumer::try_recv`], but for [`RecvError::Empty`].
    #[inline]
    pub fn recv(&mut self) -> Result<Message<'_>, RecvError> {
        if let Some((payload, len)) = self.take_at_once() {
            return Ok(self.lend(Record {
                payload,
                len,
                flags: 0,
            }));
        }
        let record = self.take_until(Deadline::NEVER)?;
        Ok(self.lend(record))
    }

    /// The next message; waits for it no longer than `timeout`.
    ///
    /// # Errors
    /// As [`Consumer::recv`], and [`RecvError::TimedOut`].
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Message<'_>, RecvError> {
        if let Some((payload, len)) = self.take_at_once() {
            return Ok(self.lend(Record {
                payload,
                len,
                flags: 0,
            }));
        }
        let record = self.take_until(Deadline::after(timeout))?;
        Ok(self.lend(record))
    }

    /// Copies the next message to `buffer`, in place of what is there, and acknowledges it; waits for
    /// it. This is safe from a peer that is not trusted: what is looked at is the copy.
    ///
    /// # Errors
    /// As [`Consumer::recv`].
    ///
    /// ```
    /// # let ring = ringway::spsc::Ring::anonymous(Default::default())?;
    /// # let (mut tx, mut rx) = (ring.producer()?, ring.consumer()?);
    /// let mut buffer = Vec::new();
    /// tx.send(b"copied")?;
    /// rx.recv_into(&mut buffer)?;
    /// assert_eq!(buffer, b"copied");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline(always)]
    pub fn recv_into(&mut self, buffer: &mut Vec<u8>) -> Result<(), RecvError> {
        if self.copy_at_once(buffer) || self.answer_comes() && self.copy_at_once(buffer) {
            return Ok(());
        }
        let record = self.take_until(Deadline::NEVER)?;
        self.copy_out(record, buffer);
        Ok(())
    }

    /// As [`Consumer::recv_into`], if a message is there now.
    ///
    /// # Errors
    /// As [`Consumer::try_recv`].
    #[inline(always)]
    pub fn try_recv_into(&mut self, buffer: &mut Vec<u8>) -> Result<(), RecvError> {
        if self.copy_at_once(buffer) {
            return Ok(());
        }
        let record = self.try_take()?;
        self.copy_out(record, buffer);
        Ok(())
    }

    /// As [`Consumer::recv_into`], waiting no longer than `timeout`.
    ///
    /// # Errors
    /// As [`Consumer::recv_timeout`].
    pub fn recv_into_timeout(
        &mut self,
        buffer: &mut Vec<u8>,
        timeout: Duration,
    ) -> Result<(), RecvError> {
        let record = self.take_until(Deadline::after(timeout))?;
        self.copy_out(record, buffer);
        Ok(())
    }

    /// Copies the next message to the front of `buffer` and acknowledges it; returns its length. Waits
    /// for it.
    ///
    /// # Errors
    /// As [`Consumer::recv`], and [`RecvError::BufferTooSmall`], with the message left in the ring.
    #[inline(always)]
    pub fn recv_into_slice(&mut self, buffer: &mut [u8]) -> Result<usize, RecvError> {
        let mut len = 0;
        let mut at_once = |consumer: &mut Consumer| {
            consumer.consume_at_once(|data, payload, found| {
                len = found as usize;
                let room = buffer.get_mut(..len);
                // SAFETY: a message lies in the data area.
                room.is_some_and(|room| unsafe {
                    data.copy_out(payload, room);
                    true
                })
            })
        };
        if at_once(self) || self.answer_comes() && at_once(self) {
            return Ok(len);
        }
        self.wait_into_slice(buffer)
    }

    #[cold]
    #[inline(never)]
    fn wait_into_slice(&mut self, buffer: &mut [u8]) -> Result<usize, RecvError> {
        let record = self.take_until(Deadline::NEVER)?;
        let len = record.len as usize;
        let Some(room) = buffer.get_mut(..len) else {
            self.rx.put_back();
            return Err(RecvError::BufferTooSmall {
                len,
                room: buffer.len(),
            });
        };
        // SAFETY: `take` checked that the record lies in the data area.
        unsafe { self.rx.data().copy_out(record.payload, room) };
        self.acknowledge();
        Ok(len)
    }

    /// Copies a message out if the fast path can.
    #[inline(always)]
    fn copy_at_once(&mut self, buffer: &mut Vec<u8>) -> bool {
        // SAFETY: a message lies in the data area.
        self.consume_at_once(|data, payload, len| unsafe {
            copy_to_vec(data, payload, len as usize, buffer);
            true
        })
    }

    /// Has `read` read a message, where it is and how long, if the fast path can and `read` does not refuse.
    #[inline(always)]
    fn consume_at_once(&mut self, read: impl FnOnce(Data<'_>, u64, u64) -> bool) -> bool {
        if !self.side.here.is_here() || self.rx.is_open() {
            return false;
        }
        match self.rx.consume_at_once(read) {
            Some(Notify::Nobody) => true,
            Some(Notify::Peer) => {
                self.side.wake(self.rx.room_word());
                true
            }
            None => false,
        }
    }

    /// Has `read` read the next message where it lies, and acknowledges it; waits for it until the
    /// deadline `wait`, if there is one. What `read` says is wrong with it is an error, and the message
    /// is gone.
    #[inline(always)]
    pub(super) fn read_next<R>(
        &mut self,
        wait: Option<Deadline>,
        mut read: impl FnMut(*const u8, usize) -> Result<R, &'static str>,
    ) -> Result<R, RecvError> {
        let mut outcome = None;
        let mut position = self.rx.position();
        let mut at_once = |consumer: &mut Consumer| {
            consumer.consume_at_once(|data, payload, len| {
                outcome = Some(read(data.pointer(payload), len as usize));
                true
            })
        };
        let _ = at_once(self) || wait.is_some() && self.answer_comes() && at_once(self);
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => {
                let record = match wait {
                    None => self.try_take()?,
                    Some(deadline) => self.take_until(deadline)?,
                };
                position = record.payload;
                let at = self.rx.data().pointer(record.payload);
                let outcome = read(at, record.len as usize);
                self.acknowledge();
                outcome
            }
        };
        outcome.map_err(|what| self.corrupt(Corrupt { what, position }))
    }

    /// As [`Consumer::recv_into`], but acknowledged is the message only by [`Consumer::release`], and left
    /// to the next consumer by [`Consumer::give_up`]. Waits, if it has a deadline. `Empty` also when so
    /// much is held that the producer would have to wait for room.
    pub(crate) fn hold_into(
        &mut self,
        buffer: &mut Vec<u8>,
        wait: Option<Deadline>,
    ) -> Result<(), RecvError> {
        if !self.side.here.is_here() {
            return Err(RecvError::Forked);
        }
        if self.rx.open() > self.side.shared.geometry.capacity / 4 {
            return Err(RecvError::Empty);
        }
        let record = match (self.take()?, wait) {
            (Some(record), _) => record,
            (None, Some(deadline)) if !self.rx.is_open() => self.wait(deadline)?,
            (None, _) => return Err(self.empty()),
        };
        // SAFETY: `take` checked that the record lies in the data area.
        unsafe { copy_to_vec(self.rx.data(), record.payload, record.len as usize, buffer) };
        Ok(())
    }

    /// Acknowledges what is held.
    pub(crate) fn release(&mut self) {
        if self.side.here.is_here() && self.rx.is_open() {
            self.acknowledge();
        }
    }

    /// Leaves what is held to the next consumer.
    pub(crate) fn give_up(&mut self) {
        if self.side.here.is_here() && self.rx.is_open() {
            self.rx.put_back();
        }
    }

    fn copy_out(&mut self, record: Record, buffer: &mut Vec<u8>) {
        // SAFETY: `take` checked that the record lies in the data area.
        unsafe { copy_to_vec(self.rx.data(), record.payload, record.len as usize, buffer) };
        self.acknowledge();
    }

    /// The messages that are there now, up to `max`, without waiting. All are acknowledged at once, when
    /// the drain and all of its messages are dropped. Ends early at anything that is not a message,
    /// which the next call to receive then tells.
    ///
    /// ```
    /// # let ring = ringway::spsc::Ring::anonymous(Default::default())?;
    /// # let (mut tx, mut rx) = (ring.producer()?, ring.consumer()?);
    /// tx.send_batch(["a", "b", "c"])?;
    /// for message in rx.drain(2) {
    ///     println!("{message:?}");
    /// }
    /// assert_eq!(&*rx.recv()?, b"c");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn drain(&mut self, max: usize) -> Drain<'_> {
        let left = if self.ready().is_ok() { max } else { 0 };
        self.draining = true;
        Drain {
            walk: self.rx.walk(),
            consumer: NonNull::from(self),
            left,
            handed: 0,
            borrow: PhantomData,
        }
    }

    /// Has `read` read the messages that are there now, up to `max` of them, where they lie, and acknowledges them
    /// together. Returns how many; never blocks: nothing when nothing is there, and [`Consumer::recv`] tells why. The
    /// quickest way to receive many short ones: no message is lent out that could be kept, so nothing is noted of each.
    ///
    /// When `read` panics, what it was given counts as read.
    ///
    /// ```
    /// # let ring = ringway::spsc::Ring::anonymous(Default::default())?;
    /// # let (mut tx, mut rx) = (ring.producer()?, ring.consumer()?);
    /// tx.send_batch([[1], [2], [3]])?;
    /// let mut sum = 0;
    /// assert_eq!(rx.drain_with(64, |message| sum += message[0]), 3);
    /// assert_eq!(sum, 6);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn drain_with(&mut self, max: usize, mut read: impl FnMut(View<'_>)) -> usize {
        if self.ready().is_err() {
            return 0;
        }
        let reading = Reading(self);
        let Consumer { rx, side, .. } = &mut *reading.0;
        let (data, here) = (rx.data(), side.here);
        let mut count = 0;
        // No honest producer sends more than the area holds while nothing is acknowledged.
        while count < max && rx.open() <= data.capacity() {
            let mut passage = rx.passage();
            while count < max
                && here.is_here()
                && let Some((payload, len)) = passage.next()
            {
                count += 1;
                // SAFETY: `next` checked the record; it is acknowledged when `reading` is dropped, after all reading.
                read(unsafe { View::new(data, payload, len, 0) });
            }
            drop(passage);
            if count == max || !here.is_here() {
                break;
            }
            let Ok(Next::Message(record)) = rx.take() else {
                break;
            };
            let Record {
                payload,
                len,
                flags,
            } = side.seen(record);
            count += 1;
            // SAFETY: as above; `take` checked it.
            read(unsafe { View::new(data, payload, len, flags) });
        }
        count
    }

    /// An iterator over copies of all messages to come; waits for each. Ends when the producer has left
    /// and every message was taken; any other error is its last item.
    ///
    /// ```
    /// # let ring = ringway::spsc::Ring::anonymous(Default::default())?;
    /// # let (mut tx, mut rx) = (ring.producer()?, ring.consumer()?);
    /// tx.send(b"the only one")?;
    /// tx.close();
    /// let all: Vec<_> = rx.iter().collect::<Result<_, _>>()?;
    /// assert_eq!(all, [b"the only one"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn iter(&mut self) -> Iter<'_> {
        Iter {
            consumer: Some(self),
        }
    }

    /// Waits for the next message, leaves it, and tells whether it continues a stream.
    pub(super) fn next_is_continuation(&mut self) -> Result<bool, RecvError> {
        let record = self.take_until(Deadline::NEVER)?;
        self.rx.put_back();
        Ok(record.flags & REST != 0)
    }

    /// Whether a producer is attached and alive now. A system call or two.
    pub fn has_peer(&self) -> bool {
        self.side.peer_life() == Life::Alive
    }

    /// Leaves, as dropping does: the producer is told that this side closed, once there is no room.
    pub fn close(self) {}
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
    /// # let ring = ringway::spsc::Ring::anonymous(ringway::spsc::Config::default().wait(ringway::wait::WaitStrategy::EventFd))?;
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
        self.side.own.event()
    }

    pub(crate) fn awaited(&mut self) -> &mut (dyn Awaited + 'static) {
        self
    }
}

impl Awaited for Consumer {
    fn is_ready(&mut self) -> bool {
        // What keeps it from being used is what the next call tells.
        self.ready().is_err() || self.rx.has_next() || self.fruitless == TELL
    }

    fn announce(&mut self) -> Option<u64> {
        // The producer learns of all the room there is before this side sleeps.
        self.rx.rest();
        let announced = self.rx.announce(|| self.side.barrier());
        announced.unwrap_or_else(|_| {
            self.fruitless = TELL;
            None
        })
    }

    fn pulse(&mut self) {
        let lost = self.side.shared.mapping.is_lost();
        let gone = || matches!(self.side.peer_life(), Life::Dead | Life::Left);
        if lost || (gone() && !self.rx.has_next()) {
            self.fruitless = TELL;
        }
    }

    fn word(&self) -> &AtomicU64 {
        self.rx.sleeping_word()
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
        self.side.membership.index()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        if !self.side.here.is_here() {
            return; // A forked child: the role is the parent's.
        }
        // All writes to the ring come before the role is given up: a successor may be writing the same
        // words from then on. This acknowledges what was leaked.
        let _ = self.rx.acknowledge();
        self.side.membership.leave(&self.side.shared.mapping);
        // A producer that waits for room sees that we left.
        self.side.wake(self.rx.room_word());
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").finish_non_exhaustive()
    }
}

/// Copies `len` bytes at `payload` to `buffer`, in place of what is there.
///
/// # Safety
/// They lie in the data area.
#[inline(always)]
unsafe fn copy_to_vec(data: Data<'_>, payload: u64, len: usize, buffer: &mut Vec<u8>) {
    if buffer.capacity() < len {
        buffer.clear();
        buffer.reserve(len);
    }
    // SAFETY: in the data area (caller); there is room for `len` bytes, which the copy initialises.
    unsafe {
        data.copy_out_raw(payload, buffer.as_mut_ptr(), len);
        buffer.set_len(len);
    }
}

/// Waits for a message.
struct Arrival<'a> {
    rx: &'a mut Rx<'static>,
    backoff: &'a mut Backoff,
    side: &'a Side,
    deadline: Deadline,
    /// Why to give up, if there still is nothing.
    over: Option<RecvError>,
    /// Whether this wait was counted.
    stalled: bool,
}

impl Arrival<'_> {
    fn corrupt(&self, corrupt: Corrupt) -> RecvError {
        RecvError::Corrupt {
            what: corrupt.what,
            offset: self.side.shared.offset(corrupt),
        }
    }
}

impl Blocking for Arrival<'_> {
    type Output = Record;
    type Error = RecvError;

    #[inline(always)]
    fn attempt(&mut self, _: bool) -> Result<Option<Record>, RecvError> {
        match self.rx.take() {
            Ok(Next::Message(record)) => Ok(Some(self.side.seen(record))),
            Ok(Next::Empty) => {
                if !self.stalled {
                    self.stalled = true;
                    self.side.count(|record| &record.stalls);
                }
                self.backoff.rest(self.rx.rest());
                self.over.take().map_or(Ok(None), Err)
            }
            Ok(Next::Closed) => Err(RecvError::Closed),
            Err(corrupt) => Err(self.corrupt(corrupt)),
        }
    }

    fn announce(&mut self) -> Result<Option<u64>, RecvError> {
        let announced = self.rx.announce(|| self.side.barrier());
        announced.map_err(|corrupt| self.corrupt(corrupt))
    }

    fn sleep(&mut self, expected: u64) -> Result<(), RecvError> {
        self.side.count(|record| &record.parks);
        self.side
            .own
            .sleep(self.rx.sleeping_word(), expected, self.deadline)
            .map_err(|source| RecvError::Os {
                op: "sleep",
                source,
            })?;
        if self.rx.has_next() {
            return Ok(());
        }
        self.pulse()
    }

    fn pulse(&mut self) -> Result<(), RecvError> {
        if self.side.shared.mapping.is_lost() {
            return Err(self.corrupt(LOST));
        }
        self.over = match self.side.peer_life() {
            Life::Dead => Some(RecvError::PeerDied),
            // It leaves a closed header; this is one that was killed between the two.
            Life::Left => Some(RecvError::Closed),
            _ if self.deadline.passed() => Some(RecvError::TimedOut),
            _ => None,
        };
        Ok(())
    }

    fn is_alone(&self) -> bool {
        self.side.is_alone()
    }
}

/// A message in the ring, borrowed: no copy. Acknowledged when dropped.
///
/// Its bytes are in memory that the producer can write. A producer that keeps the protocol does not;
/// where it is not trusted, use [`Consumer::recv_into`].
pub struct Message<'a> {
    bytes: &'a [u8],
    flags: u64,
    /// Borrowed for `'a`; not used by anybody else while messages are lent out.
    consumer: NonNull<Consumer>,
}

impl<'a> Message<'a> {
    #[inline(always)]
    fn new(consumer: NonNull<Consumer>, data: Data<'_>, record: Record) -> Message<'a> {
        let at = data.pointer(record.payload);
        // SAFETY: the record lies in the data area without wrapping (checked by `take`), is initialised
        // shared memory, and is not written by a producer that keeps the protocol before it is
        // acknowledged, which happens when this is dropped. That the peer keeps it is the trust that
        // zero-copy takes.
        let bytes = unsafe { core::slice::from_raw_parts(at, record.len as usize) };
        let flags = record.flags;
        Message {
            bytes,
            flags,
            consumer,
        }
    }

    /// Where it lies in the file.
    pub(super) fn offset(&self) -> u64 {
        // SAFETY: borrowed for 'a; only looked at.
        let consumer = unsafe { self.consumer.as_ref() };
        let data = consumer.side.shared.mapping.header().data();
        let base = consumer.rx.data().pointer(0) as u64;
        data + self.bytes.as_ptr() as u64 - base
    }

    /// Whether a consumer that died may have seen this message before.
    pub fn redelivered(&self) -> bool {
        self.flags & AGAIN != 0
    }

    /// Whether this is part of a stream ([`Producer::stream`](super::Producer::stream)) and more of it
    /// follows.
    pub fn is_continued(&self) -> bool {
        self.flags & MORE != 0
    }

    /// Whether this is part of a stream and some of it came before.
    pub fn is_continuation(&self) -> bool {
        self.flags & REST != 0
    }
}

impl Deref for Message<'_> {
    type Target = [u8];
    #[inline(always)]
    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl AsRef<[u8]> for Message<'_> {
    fn as_ref(&self) -> &[u8] {
        self.bytes
    }
}

impl fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.bytes, f)
    }
}

impl Drop for Message<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the consumer is borrowed for 'a, and nothing else uses it while messages are lent
        // out, but for the drain they come from, which does so in its own methods only; neither is
        // `Send`, so all are on one thread.
        let consumer = unsafe { self.consumer.as_mut() };
        consumer.lent = consumer.lent.wrapping_sub(1);
        if !consumer.draining {
            consumer.returned();
        }
    }
}

/// Acknowledges and counts what was read, also when reading it panics.
struct Reading<'c>(&'c mut Consumer);

impl Drop for Reading<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if self.0.side.here.is_here() && self.0.rx.is_open() {
            self.0.rx.count_passed();
            self.0.acknowledge();
        }
    }
}

/// A message in the ring, for the time of a call of [`Consumer::drain_with`]. Its bytes are in memory that the producer
/// can write: see [`Message`]. (Not what [`broadcast::View`](crate::broadcast::View) is, which may be overwritten while it is
/// read.)
///
/// ```
/// # let ring = ringway::spsc::Ring::anonymous(Default::default())?;
/// # let (mut tx, mut rx) = (ring.producer()?, ring.consumer()?);
/// tx.send(b"hello")?;
/// rx.drain_with(1, |message| {
///     assert_eq!(&*message, b"hello");
///     assert!(!message.redelivered() && !message.is_continued());
/// });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy)]
pub struct View<'a> {
    bytes: &'a [u8],
    flags: u64,
}

impl View<'_> {
    /// As [`Message::redelivered`].
    pub fn redelivered(&self) -> bool {
        self.flags & AGAIN != 0
    }

    /// As [`Message::is_continued`].
    pub fn is_continued(&self) -> bool {
        self.flags & MORE != 0
    }

    /// As [`Message::is_continuation`].
    pub fn is_continuation(&self) -> bool {
        self.flags & REST != 0
    }

    /// # Safety
    /// The record lies in the data area, whole, and stays the consumer's for as long as the view lasts.
    #[inline(always)]
    unsafe fn new<'d>(data: Data<'d>, payload: u64, len: u64, flags: u64) -> View<'d> {
        // SAFETY: in the area, mapped and initialised as all of it is; nobody who keeps the protocol writes there (all by
        // the caller's word).
        let bytes = unsafe { core::slice::from_raw_parts(data.pointer(payload), len as usize) };
        View { bytes, flags }
    }
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.bytes, f)
    }
}

impl Deref for View<'_> {
    type Target = [u8];
    #[inline(always)]
    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

/// The messages that are there now; see [`Consumer::drain`].
pub struct Drain<'a> {
    consumer: NonNull<Consumer>,
    walk: Walk,
    left: usize,
    /// Messages handed out.
    handed: u32,
    borrow: PhantomData<&'a mut Consumer>,
}

impl<'a> Iterator for Drain<'a> {
    type Item = Message<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<Message<'a>> {
        // SAFETY: borrowed for 'a; messages use it only when they are dropped, on this thread.
        let consumer = unsafe { self.consumer.as_mut() };
        if self.left == 0 || !consumer.side.here.is_here() {
            return None;
        }
        let record = match consumer.rx.take_on(&mut self.walk) {
            Some((payload, len)) => Record {
                payload,
                len,
                flags: 0,
            },
            None => match consumer.take_slowly() {
                Some(record) => {
                    self.walk = consumer.rx.walk();
                    record
                }
                None => {
                    self.left = 0;
                    return None;
                }
            },
        };
        self.left -= 1;
        self.handed = self.handed.wrapping_add(1);
        Some(Message::new(self.consumer, consumer.rx.data(), record))
    }
}

impl Drop for Drain<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: as in `next`.
        let consumer = unsafe { self.consumer.as_mut() };
        consumer.draining = false;
        consumer.lent = consumer.lent.wrapping_add(self.handed);
        if self.handed != 0 {
            consumer.returned();
        }
    }
}

impl fmt::Debug for Drain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

/// Copies of all messages to come; see [`Consumer::iter`].
#[derive(Debug)]
pub struct Iter<'a> {
    consumer: Option<&'a mut Consumer>,
}

impl Iterator for Iter<'_> {
    type Item = Result<Vec<u8>, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut buffer = Vec::new();
        match self.consumer.as_mut()?.recv_into(&mut buffer) {
            Ok(()) => Some(Ok(buffer)),
            Err(error) => {
                self.consumer = None;
                if matches!(error, RecvError::Closed) {
                    None
                } else {
                    Some(Err(error))
                }
            }
        }
    }
}

// SAFETY: a consumer is the sole user of its role, from whichever thread. The raw pointers inside its
// views are to shared memory, and those in messages and drains borrow it.
unsafe impl Send for Consumer {}
