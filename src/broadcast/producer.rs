//! The sending side.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::SendError;
use crate::os::clock::Deadline;
use crate::participant::{self, Life, Watch};
use crate::ring::broadcast::{Awaited, Corrupt, Notify, Place, Refused, Tx};
use crate::sleeper::SLICE_UNSEEN;
use crate::wait::{Blocking, block_on};

use super::ring::{LOST, Side};

/// Between two looks at who is dead while calls that do not block find no room, in nanoseconds.
const LOOK_INTO_IT: u64 = 20_000_000;
/// The longest sleep without a look at who is dead, in nanoseconds.
const SLICE: u64 = 40_000_000;

/// Sends messages to all subscribers. Holds the role of the producer until dropped; dropping it leaves
/// the ring closed.
///
/// Every call that sends publishes at once: there is nothing to flush. On a lossy ring none of them
/// ever waits, and [`SendError::Full`] and [`SendError::TimedOut`] do not occur.
pub struct Producer {
    /// Its views live as long as `side`, which keeps the mapping.
    tx: Tx<'static>,
    max: usize,
    /// When a call that does not block may look next who is dead.
    look: Deadline,
    dead: Dead,
    /// Bytes of a message for which an executor waits until there is room.
    #[cfg(feature = "tokio")]
    wanted: u64,
    /// What it waits for.
    #[cfg(feature = "tokio")]
    awaited: Option<Awaited>,
    /// Whether subscribers may not see that it sleeps.
    #[cfg(feature = "tokio")]
    may_miss: bool,
    /// The next call has something to say.
    #[cfg(feature = "tokio")]
    told: bool,
    side: Side,
}

/// Clears the seats of dead subscribers.
struct Dead {
    /// By seat, made when one is first in the way.
    watches: Vec<Option<Watch>>,
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

impl Dead {
    /// Clears the seats of those who hold a message of `len` bytes back and are dead; whether there
    /// were any. System calls for each who holds it back.
    #[cold]
    fn bury(&mut self, tx: &Tx<'_>, side: &Side, len: u64) -> bool {
        let mapping = &side.shared.mapping;
        let seats = tx.seated();
        let mut any = false;
        self.watches.resize_with(seats.len(), || None);
        for (index, (seat, watch)) in seats.iter().zip(&mut self.watches).enumerate() {
            if tx.is_held_by(index, len) {
                let watch = watch.get_or_insert_with(|| Watch::new(index as u32 + 1));
                any |= participant::bury(mapping, watch, side.lock_file(), || {
                    let _ = seat.leave();
                });
            }
        }
        any
    }
}

/// Whether somebody truncated the ring's memory.
fn lost(side: &Side) -> Option<SendError> {
    side.shared.mapping.is_lost().then(|| SendError::Corrupt {
        what: LOST.what,
        offset: side.shared.offset(LOST),
    })
}

/// How those went who were expected, if none is left. System calls for each.
#[cold]
fn gone(tx: &Tx<'_>, side: &Side) -> Option<SendError> {
    let died = |index| side.life(&Watch::new(index)) == Life::Dead;
    let joins = &side.shared.control().joined;
    // ACQUIRE: who came is seen in its seat. SYNC: who came is seen in its seat.
    let joined = joins.load(Ordering::Acquire);
    let deserted = tx.is_deserted();
    // One that left may have waited for another to come first, to a seat that was passed by before that.
    // RELAXED: the seats of those who left were acquired before, and with them what those had waited for.
    (deserted && joins.load(Ordering::Relaxed) == joined).then(|| {
        if (1..=tx.seated().len() as u32).any(died) {
            SendError::PeerDied
        } else {
            SendError::Closed
        }
    })
}

impl Producer {
    pub(super) fn new(side: Side) -> Result<Producer, Corrupt> {
        let shared = &side.shared;
        let tx = Tx::resume(
            shared.control(),
            shared.seats(),
            shared.data(),
            shared.waking_manner(),
        )?;
        // SAFETY: only the lifetime changes. What `tx` refers to is in the mapping, which `side` keeps
        // and which is dropped after it; `tx` is private and never lent out with that lifetime.
        let tx = unsafe { core::mem::transmute::<Tx<'_>, Tx<'static>>(tx) };
        let max = shared.geometry.max;
        Ok(Producer {
            tx,
            max,
            look: Deadline::NEVER,
            dead: Dead {
                watches: Vec::new(),
            },
            #[cfg(feature = "tokio")]
            wanted: 0,
            #[cfg(feature = "tokio")]
            awaited: None,
            #[cfg(feature = "tokio")]
            may_miss: false,
            #[cfg(feature = "tokio")]
            told: false,
            side,
        })
    }

    /// The longest message, in bytes.
    pub fn max_message(&self) -> usize {
        self.max
    }

    /// The sequence of the next message: how many were sent before, by this producer and those before
    /// it.
    pub fn sequence(&self) -> u64 {
        self.tx.sequence()
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
    fn notify(&self, notify: Notify) {
        if notify == Notify::Peer {
            self.side.count(|record| &record.wakes);
            self.side.shared.wake_subscribers();
        }
    }

    /// Sends a message if there is room now.
    ///
    /// # Errors
    /// [`SendError::Full`] while the slowest living subscriber of a lossless ring has not made room, or
    /// the [expected](super::Config::expected) ones have not come; [`SendError::Closed`] or
    /// [`SendError::PeerDied`] when those who were expected have gone, all of them, and there is no room;
    /// [`SendError::MessageTooLarge`]; [`SendError::Corrupt`]; [`SendError::Forked`].
    ///
    /// ```
    /// # let ring = ringway::broadcast::Ring::anonymous(ringway::broadcast::Config::default().capacity(256))?;
    /// let mut tx = ring.producer()?;
    /// let slow = ring.subscriber()?;
    /// while tx.try_send(b"fills the ring").is_ok() {}
    /// assert!(matches!(tx.try_send(b"one more"), Err(ringway::SendError::Full)));
    /// drop(slow);
    /// tx.try_send(b"one more")?; // without subscribers there is always room
    /// # Ok::<(), Box<dyn std::error::Error>>(())
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
        match self.tx.send_at_once(message, flags) {
            Some(notify) => {
                self.notify(notify);
                true
            }
            None => false,
        }
    }

    #[inline(never)]
    fn try_send_flagged(&mut self, message: &[u8], flags: u64) -> Result<(), SendError> {
        self.check(message.len())?;
        if let Some(error) = lost(&self.side) {
            return Err(error);
        }
        let mut sent = self.tx.try_send(message, flags);
        if sent == Err(Refused::Full) && self.looks_into_it(message.len()) {
            sent = self.tx.try_send(message, flags);
        }
        match sent {
            Ok(notify) => {
                self.look = Deadline::NEVER;
                self.notify(notify);
                Ok(())
            }
            Err(refused) => Err(self.refused(refused)),
        }
    }

    /// There was no room for `len` bytes in a call that does not wait. Clears, now and then, the seats
    /// of the dead; whether there were any.
    #[cold]
    fn looks_into_it(&mut self, len: usize) -> bool {
        if self.look != Deadline::NEVER && !self.look.passed() {
            return false;
        }
        self.look = Deadline::NEVER.at_most(LOOK_INTO_IT);
        self.dead.bury(&self.tx, &self.side, len as u64)
    }

    #[cold]
    fn refused(&self, refused: Refused) -> SendError {
        match refused {
            Refused::Corrupt(corrupt) => self.corrupt(corrupt),
            Refused::Full => gone(&self.tx, &self.side).unwrap_or(SendError::Full),
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
        loop {
            self.wait_for_room(message.len() as u64, deadline)?;
            match self.try_send_flagged(message, flags) {
                // Somebody is just sitting down, and held for a moment what had been let go.
                Err(SendError::Full) => {}
                sent => return sent,
            }
        }
    }

    fn wait_for_room(&mut self, len: u64, deadline: Deadline) -> Result<(), SendError> {
        if matches!(self.tx.has_room(len), Ok(true)) {
            return Ok(()); // It was only a checkpoint that was due.
        }
        self.side.count(|record| &record.stalls);
        let mut room = Room {
            tx: &mut self.tx,
            side: &self.side,
            dead: &mut self.dead,
            len,
            deadline,
            awaited: None,
            slice: SLICE,
            over: None,
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
    /// # let ring = ringway::broadcast::Ring::anonymous(Default::default())?;
    /// # let (mut tx, mut rx) = (ring.producer()?, ring.subscriber()?);
    /// let mut frame = tx.reserve(1024)?;
    /// frame.fill(7);
    /// frame.commit();
    /// assert_eq!(rx.recv()?.len(), 1024);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reserve(&mut self, len: usize) -> Result<Reservation<'_>, SendError> {
        self.check(len)?;
        loop {
            match self.tx.reserve(len as u64) {
                Ok(place) => return Ok(self.reservation(place)),
                Err(Refused::Full) => self.wait_for_room(len as u64, Deadline::NEVER)?,
                Err(refused) => return Err(self.refused(refused)),
            }
        }
    }

    /// As [`Producer::reserve`], if there is room now.
    ///
    /// # Errors
    /// As [`Producer::try_send`].
    pub fn try_reserve(&mut self, len: usize) -> Result<Reservation<'_>, SendError> {
        self.check(len)?;
        if matches!(self.tx.has_room(len as u64), Ok(false)) {
            self.looks_into_it(len);
        }
        match self.tx.reserve(len as u64) {
            Ok(place) => Ok(self.reservation(place)),
            Err(refused) => Err(self.refused(refused)),
        }
    }

    /// The message to be written at `place`, which was just reserved.
    fn reservation(&mut self, place: Place) -> Reservation<'_> {
        // SAFETY: free room in the data area, whole and without wrapping; ours until the
        // reservation, which borrows `self`, is settled. Bytes in shared memory are always
        // initialised. No reader that keeps the protocol makes use of what it reads there; one
        // that was overrun may be loading it, atomically, and throws it away (see "Trust" in
        // the module's documentation).
        let bytes = unsafe {
            let at = self.tx.data().pointer(place.payload());
            core::slice::from_raw_parts_mut(at, place.len as usize)
        };
        Reservation {
            bytes,
            place,
            producer: &raw mut *self,
        }
    }

    /// Sends all messages of a batch, waiting for room; returns how many. Subscribers see the first ones
    /// when the last are written, which lets cache lines stream, and are woken once.
    ///
    /// # Errors
    /// As [`Producer::send`], with the number of messages sent before.
    ///
    /// ```
    /// # let ring = ringway::broadcast::Ring::anonymous(Default::default())?;
    /// # let (mut tx, mut rx) = (ring.producer()?, ring.subscriber()?);
    /// assert_eq!(tx.send_batch(["one", "two", "three"])?, 3);
    /// assert_eq!(&*rx.recv()?, b"one");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send_batch<I>(&mut self, messages: I) -> Result<usize, BatchError>
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        // A batch longer than this gains nothing, and lets subscribers wait.
        let most = (self.side.shared.geometry.capacity / 8).min(16 << 10);
        // Published when the iterator panics, too: what is staged was said to be sent.
        let batch = Batch(self);
        let mut sent = 0;
        for message in messages {
            let message = message.as_ref();
            batch
                .0
                .stage(message, most)
                .map_err(|error| BatchError { sent, error })?;
            sent += 1;
        }
        Ok(sent)
    }

    #[inline]
    fn stage(&mut self, message: &[u8], most: u64) -> Result<(), SendError> {
        self.check(message.len())?;
        if self.tx.staged() >= most {
            self.publish();
        }
        match self.tx.stage(message) {
            Err(Refused::Full) => {}
            Ok(()) => return Ok(()),
            Err(refused) => return Err(self.refused(refused)),
        }
        self.publish();
        loop {
            self.wait_for_room(message.len() as u64, Deadline::NEVER)?;
            match self.tx.stage(message) {
                Err(Refused::Full) => {} // as in `send_slowly`
                staged => return staged.map_err(|refused| self.refused(refused)),
            }
        }
    }

    fn publish(&mut self) {
        let notify = self.tx.publish();
        self.notify(notify);
    }

    /// Leaves, as dropping does: subscribers take what is there, and are told that the producer left.
    pub fn close(self) {}
}

/// For executors, which wait for room in its stead.
#[cfg(feature = "tokio")]
impl crate::awaited::Awaited for Producer {
    fn is_ready(&mut self) -> bool {
        // What keeps it from being used is what the next call tells.
        !self.side.here.is_here()
            || std::mem::take(&mut self.told)
            || !matches!(self.tx.has_room(self.wanted), Ok(false))
            || self.tx.is_deserted()
    }

    fn want(&mut self, len: usize) {
        self.wanted = len.min(self.max) as u64;
    }

    fn announce(&mut self) -> Option<u64> {
        self.dead.bury(&self.tx, &self.side, self.wanted);
        let shared = &self.side.shared;
        let mut may_miss = false;
        self.awaited = self
            .tx
            .announce(self.wanted, || may_miss = !shared.fence_others());
        self.may_miss = may_miss;
        self.awaited.map(|awaited| match awaited {
            Awaited::Seat(_) => 1,
            Awaited::Subscribers(joined) => joined,
        })
    }

    fn may_miss(&self) -> bool {
        self.may_miss
    }

    fn pulse(&mut self) {
        let buried = self.dead.bury(&self.tx, &self.side, self.wanted);
        self.told = buried || self.side.shared.mapping.is_lost();
    }

    fn word(&self) -> &crate::primitive::AtomicU64 {
        self.side.shared.room_word(self.awaited)
    }

    fn sleeper(&self) -> &crate::sleeper::Sleeper {
        &self.side.own
    }

    fn strategy(&self) -> crate::wait::WaitStrategy {
        self.side.shared.geometry.wait
    }

    fn mapping(&self) -> &crate::mapping::Mapping {
        &self.side.shared.mapping
    }

    fn index(&self) -> u32 {
        super::ring::PRODUCER
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        if !self.side.here.is_here() {
            return; // A forked child: the role is the parent's.
        }
        let notify = self.tx.close();
        if let Some(member) = &self.side.membership {
            member.leave(&self.side.shared.mapping);
        }
        self.notify(notify);
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer")
            .field("max_message", &self.max)
            .field("sequence", &self.sequence())
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
    dead: &'a mut Dead,
    len: u64,
    deadline: Deadline,
    /// What it is going to sleep on.
    awaited: Option<Awaited>,
    /// The longest sleep without a look, in nanoseconds.
    slice: u64,
    /// Why to give up, if there still is no room.
    over: Option<SendError>,
}

impl Room<'_> {
    /// Notes why to give up, if there is a reason.
    fn give_up(&mut self) {
        let late = || self.deadline.passed().then_some(SendError::TimedOut);
        self.over = lost(self.side)
            .or_else(|| gone(self.tx, self.side))
            .or_else(late);
    }
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
            Ok(false) => self.over.take().map_or(Ok(None), Err),
            Err(corrupt) => Err(SendError::Corrupt {
                what: corrupt.what,
                offset: self.side.shared.offset(corrupt),
            }),
        }
    }

    fn announce(&mut self) -> Result<Option<u64>, SendError> {
        // A few system calls, where a sleep costs tens of microseconds; so the dead cost just that.
        if self.dead.bury(self.tx, self.side, self.len) {
            return Ok(None);
        }
        self.over = gone(self.tx, self.side);
        if self.over.is_some() {
            return Ok(None);
        }
        self.slice = SLICE;
        let (shared, slice) = (&self.side.shared, &mut self.slice);
        self.awaited = self.tx.announce(self.len, || {
            if !shared.fence_others() {
                *slice = SLICE_UNSEEN;
            }
        });
        Ok(self.awaited.map(|awaited| match awaited {
            Awaited::Seat(_) => 1,
            Awaited::Subscribers(joined) => joined,
        }))
    }

    fn sleep(&mut self, expected: u64) -> Result<(), SendError> {
        let word = self.side.shared.room_word(self.awaited);
        self.side.count(|record| &record.parks);
        // Half the usual slice: the dead are to cost the living less than 100 ms.
        let slice = self.deadline.at_most(self.slice);
        let slept = self.side.own.sleep(word, expected, slice);
        slept.map_err(|source| SendError::Os {
            op: "sleep",
            source,
        })?;
        self.give_up();
        Ok(())
    }

    fn pulse(&mut self) -> Result<(), SendError> {
        self.dead.bury(self.tx, self.side, self.len);
        self.give_up();
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
        let notify = producer.tx.commit(self.place, len as u64, 0);
        producer.notify(notify);
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
