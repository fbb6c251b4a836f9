//! Items of 8 bytes, for those who need nothing more: nearly twice the speed, and no guarantee for the
//! item that a consumer had just taken when it died.
//!
//! Where the processor can change 16 bytes at once (x86-64 since 2006), an item is claimed and
//! published by one instruction: a producer that is killed has sent it or has not, and there is nothing
//! to repair. Elsewhere the same calls work on the general ring with [`OnDeath::Drop`](super::OnDeath::Drop).
//!
//! ```
//! use ringway::mpmc::{Config, items};
//!
//! let ring = items::Ring::anonymous(Config::default().slots(1024))?;
//! let (mut producer, mut consumer) = (ring.producer()?, ring.consumer()?);
//! producer.send(7)?;
//! assert_eq!(consumer.recv()?, 7);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Messages of one producer are taken in its order. An item is delivered at most once: exactly once
//! unless its consumer dies within the call that takes it (or before it has done with it what it wants).

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::participant::{Gone, LOST_RECEIVING, LOST_SENDING, Participant, Role};
use super::{Config, ring};
use crate::error::{Error, RecvError, SendError};
use crate::os::clock::Deadline;
use crate::primitive::Pairs;
use crate::ring::items::Items;
use crate::ring::mpmc::{Blocked, Queue};
use crate::wait::{Blocking, Distance, block_on};

/// Calls in vain after which one that does not block looks whether anybody is there.
const LOOK_INTO_IT: u32 = 1024;

/// A ring of 8-byte items that this process has mapped.
#[derive(Clone, Debug)]
pub struct Ring(ring::Ring);

/// The memory of `queue`, which is one of pairs.
#[inline(always)]
pub(super) fn view<'a>(queue: &Queue<'a>) -> Items<'a> {
    let (tail, head) = queue.cursors.as_hints();
    Items {
        tail,
        head,
        pairs: Pairs::new(queue.slots),
    }
}

/// Creates the ring `name`. Of `config`, the slot size and what becomes of messages of the dead are not
/// used.
///
/// # Errors
/// As [`super::create`].
pub fn create(name: &str, config: Config) -> Result<Ring, Error> {
    ring::create(name, config.items()).map(Ring)
}

/// Attaches to the ring `name`.
///
/// # Errors
/// As [`super::attach`]; [`Error::Mismatch`] if it is a ring of messages.
pub fn attach(name: &str) -> Result<Ring, Error> {
    ring::attach_any(name).and_then(Ring::checked)
}

impl Ring {
    /// A ring without a name.
    ///
    /// # Errors
    /// As [`super::Ring::anonymous`].
    pub fn anonymous(config: Config) -> Result<Ring, Error> {
        ring::Ring::anonymous(config.items()).map(Ring)
    }

    /// The ring in an open file: one that [`Ring::as_fd`] gave, inherited or received.
    ///
    /// # Errors
    /// As [`attach`].
    pub fn from_fd(fd: OwnedFd) -> Result<Ring, Error> {
        ring::Ring::from_fd_any(fd).and_then(Ring::checked)
    }

    fn checked(ring: ring::Ring) -> Result<Ring, Error> {
        ring.must_hold_items(true).map(|()| Ring(ring))
    }

    /// A producer, attached as a participant of its own.
    ///
    /// # Errors
    /// As [`super::Ring::producer`].
    pub fn producer(&self) -> Result<Producer, Error> {
        Ok(Producer(match self.0.is_paired() {
            true => Sending::Pairs(Side::new(&self.0, Role::Producer)?),
            false => Sending::General(self.0.producer()?),
        }))
    }

    /// A consumer, attached as a participant of its own.
    ///
    /// # Errors
    /// As [`super::Ring::consumer`].
    pub fn consumer(&self) -> Result<Consumer, Error> {
        Ok(Consumer(match self.0.is_paired() {
            true => Receiving::Pairs(Side::new(&self.0, Role::Consumer)?),
            false => Receiving::General(self.0.consumer()?),
        }))
    }

    /// How many items fit.
    pub fn capacity(&self) -> u64 {
        self.0.capacity()
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sends items. Attached as a participant until dropped.
pub struct Producer(Sending);

enum Sending {
    Pairs(Side),
    General(super::Producer),
}

/// Receives items. Attached as a participant until dropped.
pub struct Consumer(Receiving);

enum Receiving {
    Pairs(Side),
    General(super::Consumer),
}

/// One side of a ring of pairs.
struct Side {
    participant: Participant,
    distance: Distance,
    fruitless: u32,
    gone: Option<Gone>,
}

impl Side {
    fn new(ring: &ring::Ring, role: Role) -> Result<Side, Error> {
        let participant = Participant::join(ring.shared(), role)?;
        Ok(Side {
            participant,
            distance: Distance::new(),
            fruitless: 0,
            gone: None,
        })
    }

    #[inline(always)]
    fn items(&self) -> Items<'_> {
        view(self.participant.queue())
    }

    /// Sends `item` if one attempt does: the short path. Whether it did.
    #[inline(always)]
    fn push_at_once(&self, item: u64) -> bool {
        let done = self.participant.is_here() && self.items().push_at_once(item);
        if done {
            self.participant.notify_after_exchange();
        }
        done
    }

    /// Takes an item if one attempt does: the short path.
    #[inline(always)]
    fn pop_at_once(&self) -> Option<u64> {
        if !self.participant.is_here() {
            return None;
        }
        let item = self.items().pop_at_once()?;
        self.participant.notify_after_exchange();
        Some(item)
    }

    /// Makes an attempt; where it is in vain, perhaps another one after a rest.
    #[inline]
    fn attempt<T>(
        &mut self,
        attempt: impl Fn(Items<'_>) -> Result<T, Blocked>,
    ) -> Result<T, Blocked> {
        let result = attempt(self.items());
        if matches!(result, Err(Blocked::NotNow)) {
            let queue = self.participant.queue();
            let at = match self.participant.role() {
                Role::Producer => queue.cursors.tail(),
                Role::Consumer => queue.cursors.head(),
            };
            if self.distance.rest(at, queue.slots.capacity()) {
                return attempt(self.items());
            }
        }
        result
    }

    #[inline(never)]
    fn push(&mut self, item: u64) -> Result<Option<()>, SendError> {
        if !self.participant.is_here() {
            return Err(SendError::Forked);
        }
        match self.attempt(|items| items.push(item)) {
            Ok(()) => {
                self.participant.notify_after_exchange();
                Ok(Some(()))
            }
            Err(Blocked::Closed) => {
                self.participant.pass_on();
                Err(SendError::Closed)
            }
            Err(_) if self.participant.is_lost() => Err(LOST_SENDING),
            Err(_) => match self.gone.take() {
                None => Ok(None),
                Some(Gone::Died) => Err(SendError::PeerDied),
                Some(Gone::Left) => Err(SendError::Closed),
            },
        }
    }

    #[inline(never)]
    fn pop(&mut self) -> Result<Option<u64>, RecvError> {
        if !self.participant.is_here() {
            return Err(RecvError::Forked);
        }
        match self.attempt(|items| items.pop()) {
            Ok(item) => {
                self.participant.notify_after_exchange();
                Ok(Some(item))
            }
            Err(Blocked::Closed) => {
                self.participant.pass_on();
                Err(RecvError::Closed)
            }
            Err(_) if self.participant.is_lost() => Err(LOST_RECEIVING),
            Err(_) => match self.gone.take() {
                None => Ok(None),
                Some(Gone::Died) => Err(RecvError::PeerDied),
                Some(Gone::Left) => Err(RecvError::Closed),
            },
        }
    }

    /// A call that does not block was in vain: now and then it asks whether anybody is there. True
    /// when it is worth one more attempt, which tells.
    #[inline]
    fn ask(&mut self) -> bool {
        self.fruitless = self.fruitless.wrapping_add(1);
        let now = self.fruitless.is_multiple_of(LOOK_INTO_IT);
        if now {
            self.gone = self.participant.peers_gone();
        }
        now
    }

    fn close(&self) {
        self.items().close();
        self.participant.notify();
        self.participant.pass_on();
    }
}

impl Producer {
    /// Sends `item` if there is room. Never blocks.
    ///
    /// # Errors
    /// As [`super::Producer::try_send`].
    #[inline(always)]
    pub fn try_send(&mut self, item: u64) -> Result<(), SendError> {
        match &mut self.0 {
            Sending::General(producer) => producer.try_send(&item.to_ne_bytes()),
            Sending::Pairs(side) if side.push_at_once(item) => Ok(()),
            Sending::Pairs(side) => side.try_push(item),
        }
    }

    /// Sends `item`; blocks while there is no room.
    ///
    /// # Errors
    /// As [`super::Producer::send`].
    #[inline(always)]
    pub fn send(&mut self, item: u64) -> Result<(), SendError> {
        self.send_until(item, Deadline::NEVER)
    }

    /// As [`Producer::send`], but gives up after `timeout`.
    ///
    /// # Errors
    /// As [`Producer::send`], and [`SendError::TimedOut`].
    pub fn send_timeout(&mut self, item: u64, timeout: Duration) -> Result<(), SendError> {
        self.send_until(item, Deadline::after(timeout))
    }

    #[inline(always)]
    fn send_until(&mut self, item: u64, deadline: Deadline) -> Result<(), SendError> {
        match &mut self.0 {
            Sending::General(producer) => producer.send_until(&item.to_ne_bytes(), deadline),
            Sending::Pairs(side) if side.push_at_once(item) => Ok(()),
            Sending::Pairs(side) => side.wait_to_push(item, deadline),
        }
    }

    /// Closes the ring for all producers; consumers get what was sent before, and then `Closed`.
    ///
    /// # Errors
    /// [`SendError::Forked`].
    pub fn close(&mut self) -> Result<(), SendError> {
        match &mut self.0 {
            Sending::General(producer) => producer.close(),
            Sending::Pairs(side) if !side.participant.is_here() => Err(SendError::Forked),
            Sending::Pairs(side) => {
                side.close();
                Ok(())
            }
        }
    }
}

impl Consumer {
    /// Takes an item if there is one. Never blocks.
    ///
    /// # Errors
    /// As [`super::Consumer::try_recv`].
    #[inline(always)]
    pub fn try_recv(&mut self) -> Result<u64, RecvError> {
        match &mut self.0 {
            Receiving::General(consumer) => item_of(&consumer.try_recv()?),
            Receiving::Pairs(side) => match side.pop_at_once() {
                Some(item) => Ok(item),
                None => side.try_pop(),
            },
        }
    }

    /// Takes an item; blocks while there is none.
    ///
    /// # Errors
    /// As [`super::Consumer::recv`].
    #[inline(always)]
    pub fn recv(&mut self) -> Result<u64, RecvError> {
        self.recv_until(Deadline::NEVER)
    }

    /// As [`Consumer::recv`], but gives up after `timeout`.
    ///
    /// # Errors
    /// As [`Consumer::recv`], and [`RecvError::TimedOut`].
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<u64, RecvError> {
        self.recv_until(Deadline::after(timeout))
    }

    #[inline(always)]
    fn recv_until(&mut self, deadline: Deadline) -> Result<u64, RecvError> {
        match &mut self.0 {
            Receiving::General(consumer) => item_of(&consumer.recv_until(deadline)?),
            Receiving::Pairs(side) => match side.pop_at_once() {
                Some(item) => Ok(item),
                None => side.wait_to_pop(deadline),
            },
        }
    }
}

/// The item that a message of the general ring is.
fn item_of(message: &[u8]) -> Result<u64, RecvError> {
    let bytes = message.try_into();
    bytes
        .map(u64::from_ne_bytes)
        .map_err(|_| RecvError::Corrupt {
            what: "length of an item",
            offset: 0,
        })
}

impl Side {
    #[inline(never)]
    fn try_push(&mut self, item: u64) -> Result<(), SendError> {
        match self.push(item)? {
            Some(()) => Ok(()),
            None if self.ask() => self.push(item)?.ok_or(SendError::Full),
            None => Err(SendError::Full),
        }
    }

    #[inline(never)]
    fn try_pop(&mut self) -> Result<u64, RecvError> {
        match self.pop()? {
            Some(item) => Ok(item),
            None if self.ask() => self.pop()?.ok_or(RecvError::Empty),
            None => Err(RecvError::Empty),
        }
    }

    #[cold]
    fn wait_to_push(&mut self, item: u64, deadline: Deadline) -> Result<(), SendError> {
        if let Some(sent) = self.push(item)? {
            return Ok(sent);
        }
        self.participant.stalled();
        let mut spinner = self.participant.spinner.clone();
        let mut waiting = Waiting {
            side: self,
            deadline,
            attempt: |side: &mut Side| side.push(item),
        };
        let result = block_on(&mut waiting, &mut spinner);
        self.settle(spinner, self.items().may_push());
        result
    }

    #[cold]
    fn wait_to_pop(&mut self, deadline: Deadline) -> Result<u64, RecvError> {
        if let Some(item) = self.pop()? {
            return Ok(item);
        }
        self.participant.stalled();
        let mut spinner = self.participant.spinner.clone();
        let mut waiting = Waiting {
            side: self,
            deadline,
            attempt: Side::pop,
        };
        let result = block_on(&mut waiting, &mut spinner);
        self.settle(spinner, self.items().may_pop());
        result
    }

    /// After a wait. `more`: there is something for another one that waits.
    fn settle(&mut self, spinner: crate::wait::Spinner, more: bool) {
        self.participant.spinner = spinner;
        self.gone = None;
        if more {
            self.participant.pass_on();
        }
    }

    fn may_go_on(&self) -> bool {
        match self.participant.role() {
            Role::Producer => self.items().may_push(),
            Role::Consumer => self.items().may_pop(),
        }
    }
}

/// A side that waits; `attempt` is what it tries.
struct Waiting<'a, F> {
    side: &'a mut Side,
    deadline: Deadline,
    attempt: F,
}

/// The errors of both sides, as far as waiting makes them.
trait WaitError {
    const TIMED_OUT: Self;
    fn os(source: std::io::Error) -> Self;
}

impl WaitError for SendError {
    const TIMED_OUT: SendError = SendError::TimedOut;
    fn os(source: std::io::Error) -> SendError {
        SendError::Os {
            op: "sleep",
            source,
        }
    }
}

impl WaitError for RecvError {
    const TIMED_OUT: RecvError = RecvError::TimedOut;
    fn os(source: std::io::Error) -> RecvError {
        RecvError::Os {
            op: "sleep",
            source,
        }
    }
}

impl<T, E: WaitError, F: FnMut(&mut Side) -> Result<Option<T>, E>> Blocking for Waiting<'_, F> {
    type Output = T;
    type Error = E;

    #[inline]
    fn attempt(&mut self, _spinning: bool) -> Result<Option<T>, E> {
        (self.attempt)(self.side)
    }

    fn announce(&mut self) -> Result<Option<u64>, E> {
        let expected = self.side.participant.announce();
        Ok((!self.side.may_go_on()).then_some(expected))
    }

    fn sleep(&mut self, expected: u64) -> Result<(), E> {
        self.side
            .participant
            .sleep(expected, self.deadline)
            .map_err(E::os)?;
        if self.side.may_go_on() {
            Ok(())
        } else {
            self.pulse()
        }
    }

    fn pulse(&mut self) -> Result<(), E> {
        // Told after one more attempt: what a peer did last counts. And before the time is looked at: a caller
        // with little of it would never learn that all have gone.
        self.side.gone = self.side.participant.peers_gone();
        if self.side.gone.is_none() && self.deadline.passed() {
            return Err(E::TIMED_OUT);
        }
        Ok(())
    }

    fn is_alone(&self) -> bool {
        self.side.participant.is_alone()
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").finish_non_exhaustive()
    }
}
