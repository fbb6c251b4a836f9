//! The sending side.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use crate::awaited::Awaited;
use crate::error::SendError;
use crate::mapping::Mapping;
use crate::os::clock::Deadline;
use crate::participant::Life;
use crate::primitive::AtomicU64;
use crate::ring::record::record;
use crate::ring::spsc::{Corrupt, Manner, Notify, Place, Refused, Tx};
use crate::sleeper::{SLICE, SLICE_UNSEEN, Sleeper};
use crate::wait::{Blocking, WaitStrategy, block_on};

use super::ring::{LOST, Side};

/// Fruitless attempts after which a non-blocking call looks whether the consumer is dead.
const LOOK_INTO_IT: u32 = 1024;
/// At how many bytes a batch is published, unless an eighth of the ring is less.
const LONGEST_BATCH: u64 = 16 << 10;
/// In place of their number: there is something to tell, if there is no room.
const TELL: u32 = u32::MAX;

/// Sends messages into an SPSC ring. Holds the role of its producer until dropped; dropping it
/// leaves the ring closed.
///
/// Every call that sends publishes at once: there is nothing to flush.
pub struct Producer {
    /// Its views live as long as `side`, which keeps the mapping.
    tx: Tx<'static>,
    max: usize,
    fruitless: u32,
    /// Bytes of a message for which somebody else waits until there is room.
    wanted: u64,
    /// How long that one may sleep at a stretch, in nanoseconds.
    slice: u64,
    side: Side,
}

/// Why a batch was not sent whole.
#[derive(thiserror::Error)]
#[error("after {sent} messages of the batch: {error}")]
pub struct BatchError {
    /// How many of its messages were sent.
    pub sent: usize,
    /// Why the next one was not.
    #[source]
    pub error: SendError,
}

crate::error::debug_is_display!(BatchError);

impl Producer {
    pub(super) fn new(side: Side, manner: Manner) -> Result<Producer, Corrupt> {
        let tx = Tx::resume(side.shared.control(), side.shared.data(), manner)?;
        // SAFETY: only the lifetime changes. What `tx` refers to is in the mapping, which `side` keeps
        // and which is dropped after it; `tx` is private and never lent out with that lifetime.
        let tx = unsafe { core::mem::transmute::<Tx<'_>, Tx<'static>>(tx) };
        let max = side.shared.geometry.max;
        // The one before may have been killed between publishing and waking.
        side.other_may_sleep_on(tx.next_unread());
        Ok(Producer {
            tx,
            max,
            fruitless: 0,
            wanted: 0,
            slice: SLICE,
            side,
        })
    }

    /// The longest message, in bytes.
    pub fn max_message(&self) -> usize {
        self.max
    }

    #[inline(always)]
    fn check(&self, len: usize) -> Result<(), SendError> {
        if !self.side.here.is_here() {
            return Err(SendError::Forked);
        }
        if len > self.max {
            return Err(SendError::MessageTooLarge { len, max: self.max });
        }
        Ok(())
    }

    #[inline(always)]
    fn notify(&self, notify: Notify, at: u64) {
        if notify == Notify::Peer {
            self.wake(at);
        }
    }

    #[cold]
    #[inline(never)]
    fn wake(&self, at: u64) {
        if self.tx.takes_the_mark() {
            self.side.wake(self.tx.waited_for(at));
        }
    }

    /// Sends a message if there is room now.
    ///
    /// # Errors
    /// [`SendError::Full`]; [`SendError::Closed`] or [`SendError::PeerDied`] when there is no room and
    /// the consumer is gone; [`SendError::MessageTooLarge`]; [`SendError::Corrupt`];
    /// [`SendError::Forked`].
    ///
    /// ```
    /// # let ring = ringway::spsc::Ring::anonymous(ringway::spsc::Config::default().capacity(256))?;
    /// let mut tx = ring.producer()?;
    /// while tx.try_send(b"fills the ring").is_ok() {}
    /// assert!(matches!(tx.try_send(b"one more"), Err(ringway::SendError::Full)));
    /// # Ok::<(), ringway::Error>(())
    /// ```
    #[inline]
    pub fn try_send(&mut self, message: &[u8]) -> Result<(), SendError> {
        if self.send_at_once(message, 0) {
            return Ok(());
        }
        self.try_send_flagged(message, 0)
    }

    /// Sends a message if the fast path can.
    #[inline(always)]
    fn send_at_once(&mut self, message: &[u8], flags: u64) -> bool {
        if !self.side.here.is_here() || message.len() > self.max {
            return false;
        }
        let at = self.tx.position();
        match self.tx.send_at_once(message, flags) {
            Some(notify) => {
                self.notify(notify, at);
                true
            }
            None => false,
        }
    }

    #[inline(never)]
    fn try_send_flagged(&mut self, message: &[u8], flags: u64) -> Result<(), SendError> {
        self.check(message.len())?;
        let at = self.tx.position();
        match self.tx.try_send(message, flags) {
            Ok(notify) => {
                self.notify(notify, at);
                Ok(())
            }
            Err(refused) => Err(self.refused(refused)),
        }
    }

    #[cold]
    fn refused(&mut self, refused: Refused) -> SendError {
        match refused {
            Refused::Corrupt(corrupt) => self.corrupt(corrupt),
            Refused::Full => {
                if self.side.shared.mapping.is_lost() {
                    return self.corrupt(LOST);
                }
                if self.side.peer.has_left(&self.side.shared.mapping) {
                    return SendError::Closed;
                }
                self.fruitless = self.fruitless.saturating_add(1);
                if self.fruitless >= LOOK_INTO_IT {
                    self.fruitless = 0;
                    if self.side.peer_life() == Life::Dead {
                        return SendError::PeerDied;
                    }
                }
                SendError::Full
            }
        }
    }

    fn corrupt(&self, corrupt: Corrupt) -> SendError {
        SendError::Corrupt {
            what: corrupt.what,
            offset: self.side.shared.offset(corrupt),
        }
    }

    /// Sends a message, waiting for room.
    ///
    /// # Errors
    /// As [`Producer::try_send`], but for [`SendError::Full`].
    #[inline]
    pub fn send(&mut self, message: &[u8]) -> Result<(), SendError> {
        self.send_flagged(message, 0)
    }

    #[inline(always)]
    pub(super) fn send_flagged(&mut self, message: &[u8], flags: u64) -> Result<(), SendError> {
        if self.send_at_once(message, flags) {
            return Ok(());
        }
        self.send_slowly(message, flags, Deadline::NEVER)
    }

    /// Sends a message, waiting for room no longer than `timeout`.
    ///
    /// # Errors
    /// As [`Producer::send`], and [`SendError::TimedOut`].
    pub fn send_timeout(&mut self, message: &[u8], timeout: Duration) -> Result<(), SendError> {
        if self.send_at_once(message, 0) {
            return Ok(());
        }
        self.send_slowly(message, 0, Deadline::after(timeout))
    }

    #[cold]
    #[inline(never)]
    fn send_slowly(
        &mut self,
        message: &[u8],
        flags: u64,
        deadline: Deadline,
    ) -> Result<(), SendError> {
        self.check(message.len())?;
        self.wait_for_room(message.len() as u64, deadline)?;
        self.try_send_flagged(message, flags)
    }

    fn wait_for_room(&mut self, len: u64, deadline: Deadline) -> Result<(), SendError> {
        let mut room = Room {
            tx: &mut self.tx,
            side: &self.side,
            len,
            deadline,
            over: None,
            slice: SLICE,
            stalled: false,
        };
        let mut spinner = self.side.spinner.clone();
        let result = block_on(&mut room, &mut spinner);
        self.side.spinner = spinner;
        result
    }

    /// Room for a message of `len` bytes, to be written in place: no copy. What is in it at first is
    /// unspecified. Sent by [`Reservation::commit`]; given up when dropped. Waits for room.
    ///
    /// # Errors
    /// As [`Producer::send`].
    ///
    /// ```
    /// # let ring = ringway::spsc::Ring::anonymous(Default::default())?;
    /// # let (mut tx, mut rx) = (ring.producer()?, ring.consumer()?);
    /// let mut frame = tx.reserve(1024)?;
    /// frame.fill(7);
    /// frame.commit();
    /// assert_eq!(rx.recv()?.len(), 1024);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reserve(&mut self, len: usize) -> Result<Reservation<'_>, SendError> {
        self.check(len)?;
        if !self.has_room(len)? {
            self.wait_for_room(len as u64, Deadline::NEVER)?;
        }
        self.reserve_now(len)
    }

    /// As [`Producer::reserve`], if there is room now.
    ///
    /// # Errors
    /// As [`Producer::try_send`].
    pub fn try_reserve(&mut self, len: usize) -> Result<Reservation<'_>, SendError> {
        self.check(len)?;
        self.reserve_now(len)
    }

    fn has_room(&mut self, len: usize) -> Result<bool, SendError> {
        self.tx
            .has_room(len as u64)
            .map_err(|corrupt| self.corrupt(corrupt))
    }

    fn reserve_now(&mut self, len: usize) -> Result<Reservation<'_>, SendError> {
        match self.tx.reserve(len as u64) {
            Ok(place) => {
                // SAFETY: free room in the data area, whole and without wrapping; ours until the
                // reservation, which borrows `self`, is settled. Bytes in shared memory are always
                // initialised. That no peer writes there is the trust that zero-copy takes.
                let bytes = unsafe {
                    core::slice::from_raw_parts_mut(self.tx.data().pointer(place.payload()), len)
                };
                Ok(Reservation {
                    bytes,
                    place,
                    producer: &raw mut *self,
                })
            }
            Err(refused) => Err(self.refused(refused)),
        }
    }

    /// Sends all messages of a batch, waiting for room; returns how many. The consumer sees the first
    /// ones when the last are written, which lets cache lines stream.
    ///
    /// # Errors
    /// As [`Producer::send`], with the number of messages sent before.
    ///
    /// ```
    /// # let ring = ringway::spsc::Ring::anonymous(Default::default())?;
    /// # let (mut tx, mut rx) = (ring.producer()?, ring.consumer()?);
    /// assert_eq!(tx.send_batch(["one", "two", "three"])?, 3);
    /// assert_eq!(rx.drain(10).count(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send_batch<I>(&mut self, messages: I) -> Result<usize, BatchError>
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        // Published when the iterator panics, too: what is staged was said to be sent.
        let batch = Batch(self);
        let mut messages = messages.into_iter();
        let mut sent = 0;
        while let Some(message) = batch.0.stage_run(&mut messages, &mut sent) {
            batch
                .0
                .stage_slowly(message.as_ref())
                .map_err(|error| BatchError { sent, error })?;
            sent += 1;
        }
        Ok(sent)
    }

    /// At how many bytes a batch is published.
    #[inline(always)]
    fn longest_batch(&self) -> u64 {
        (self.side.shared.geometry.capacity / 8).min(LONGEST_BATCH)
    }

    /// Writes messages on to the open batch, up to one that does not fit, which is returned.
    #[inline(always)]
    fn stage_run<I>(&mut self, messages: &mut I, sent: &mut usize) -> Option<I::Item>
    where
        I: Iterator,
        I::Item: AsRef<[u8]>,
    {
        let (max, here) = (self.max, self.side.here);
        let mut run = self.tx.run(self.longest_batch());
        for message in messages {
            let bytes = message.as_ref();
            if bytes.len() > max || !here.is_here() || !run.stage(bytes) {
                return Some(message);
            }
            *sent += 1;
        }
        None
    }

    /// Writes a message for which the run has no room: the batch is full, or the ring, or its end is near.
    #[cold]
    #[inline(never)]
    fn stage_slowly(&mut self, message: &[u8]) -> Result<(), SendError> {
        self.check(message.len())?;
        // A batch longer than this gains nothing, and lets the consumer wait.
        if self.tx.staged() + record(message.len() as u64) > self.longest_batch() {
            self.publish();
        }
        match self.tx.stage(message) {
            Err(Refused::Full) => {}
            Ok(()) => return Ok(()),
            Err(refused) => return Err(self.refused(refused)),
        }
        self.publish();
        self.wait_for_room(message.len() as u64, Deadline::NEVER)?;
        self.tx
            .stage(message)
            .map_err(|refused| self.refused(refused))
    }

    #[inline(always)]
    fn publish(&mut self) {
        let at = self.tx.position() - self.tx.staged();
        let notify = self.tx.publish();
        self.notify(notify, at);
    }

    /// Whether a consumer is attached and alive now. A system call or two.
    pub fn has_peer(&self) -> bool {
        self.side.peer_life() == Life::Alive
    }

    /// Leaves, as dropping does: the consumer takes what is there, and is told that this side closed.
    pub fn close(self) {}
}

impl Awaited for Producer {
    fn is_ready(&mut self) -> bool {
        !self.side.here.is_here()
            || self.fruitless == TELL
            || self.tx.has_room(self.wanted).unwrap_or(true)
    }

    fn want(&mut self, len: usize) {
        self.wanted = len.min(self.max) as u64;
    }

    fn announce(&mut self) -> Option<u64> {
        let (announced, slice) = announce(&mut self.tx, &self.side, self.wanted);
        self.slice = slice;
        announced.unwrap_or(None)
    }

    fn may_miss(&self) -> bool {
        self.slice < SLICE
    }

    fn pulse(&mut self) {
        let lost = self.side.shared.mapping.is_lost();
        if lost || matches!(self.side.peer_life(), Life::Dead | Life::Left) {
            self.fruitless = TELL;
        }
    }

    fn word(&self) -> &AtomicU64 {
        self.tx.sleeping_word()
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

impl Drop for Producer {
    fn drop(&mut self) {
        if !self.side.here.is_here() {
            return; // A forked child: the role is the parent's.
        }
        let at = self.tx.position();
        let notify = self.tx.close();
        self.side.membership.leave(&self.side.shared.mapping);
        self.notify(notify, at);
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("max_message", &self.max)
            .finish_non_exhaustive()
    }
}

/// Publishes what is staged, whatever happens.
struct Batch<'a>(&'a mut Producer);

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        if self.0.side.here.is_here() {
            self.0.publish();
        }
    }
}

/// Waits for room.
struct Room<'a> {
    tx: &'a mut Tx<'static>,
    side: &'a Side,
    len: u64,
    deadline: Deadline,
    /// Why to give up, if there still is no room.
    over: Option<SendError>,
    /// The longest sleep without a look, in nanoseconds.
    slice: u64,
    /// Whether this wait was counted.
    stalled: bool,
}

impl Room<'_> {
    fn corrupt(&self, corrupt: Corrupt) -> SendError {
        SendError::Corrupt {
            what: corrupt.what,
            offset: self.side.shared.offset(corrupt),
        }
    }
}

/// Announces that the producer is going to sleep for want of room for `len` bytes, and says how long it
/// may sleep at a stretch, in nanoseconds.
fn announce(tx: &mut Tx<'_>, side: &Side, len: u64) -> (Result<Option<u64>, Corrupt>, u64) {
    let mut slice = SLICE;
    let barrier = || {
        if !side.barrier() {
            // Consumers elsewhere may count on it all the same: what they miss is found soon.
            slice = SLICE_UNSEEN;
        }
    };
    (tx.announce(len, barrier), slice)
}

impl Blocking for Room<'_> {
    type Output = ();
    type Error = SendError;

    #[inline]
    fn attempt(&mut self, spinning: bool) -> Result<Option<()>, SendError> {
        let lazily = spinning && self.over.is_none();
        let room = if lazily {
            self.tx.has_room_lazily(self.len)
        } else {
            self.tx.has_room(self.len)
        };
        match room {
            Ok(true) => Ok(Some(())),
            Ok(false) => {
                if !self.stalled {
                    self.stalled = true;
                    self.side.count(|record| &record.stalls);
                }
                self.over.take().map_or(Ok(None), Err)
            }
            Err(corrupt) => Err(self.corrupt(corrupt)),
        }
    }

    fn announce(&mut self) -> Result<Option<u64>, SendError> {
        let (announced, slice) = announce(self.tx, self.side, self.len);
        self.slice = slice;
        announced.map_err(|corrupt| self.corrupt(corrupt))
    }

    fn sleep(&mut self, expected: u64) -> Result<(), SendError> {
        self.side.count(|record| &record.parks);
        self.side
            .own
            .sleep(
                self.tx.sleeping_word(),
                expected,
                self.deadline.at_most(self.slice),
            )
            .map_err(|source| SendError::Os {
                op: "sleep",
                source,
            })?;
        if matches!(self.tx.has_room(self.len), Ok(true)) {
            return Ok(());
        }
        self.pulse()
    }

    fn pulse(&mut self) -> Result<(), SendError> {
        if self.side.shared.mapping.is_lost() {
            return Err(self.corrupt(LOST));
        }
        self.over = match self.side.peer_life() {
            Life::Left => Some(SendError::Closed),
            Life::Dead => Some(SendError::PeerDied),
            _ if self.deadline.passed() => Some(SendError::TimedOut),
            _ => None,
        };
        Ok(())
    }

    fn is_alone(&self) -> bool {
        self.side.is_alone()
    }
}

/// Room in the ring for a message that is written in place. See [`Producer::reserve`].
pub struct Reservation<'a> {
    bytes: &'a mut [u8],
    place: Place,
    /// Borrowed for `'a`, like `bytes`, which it does not use meanwhile.
    producer: *mut Producer,
}

impl Reservation<'_> {
    /// Sends the message.
    pub fn commit(self) {
        let len = self.bytes.len();
        self.commit_len(len);
    }

    /// Sends the first `len` bytes of it.
    ///
    /// # Panics
    /// When `len` is more than was reserved.
    pub fn commit_len(self, len: usize) {
        assert!(
            len <= self.bytes.len(),
            "committed {len} of {} bytes",
            self.bytes.len()
        );
        // SAFETY: borrowed for 'a by `reserve`, and no other reference to it is in use.
        let producer = unsafe { &mut *self.producer };
        if !producer.side.here.is_here() {
            return; // A forked child: the room is the parent's.
        }
        let at = producer.tx.position();
        let notify = producer.tx.commit(self.place, len as u64, 0);
        producer.notify(notify, at);
    }
}

impl Deref for Reservation<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl DerefMut for Reservation<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes
    }
}

impl fmt::Debug for Reservation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("len", &self.bytes.len())
            .finish_non_exhaustive()
    }
}
