//! Every mechanism of inter-process communication behind the same two traits.
//!
//! A [`Sender`] and a [`Receiver`] carry byte messages, whole, in order, from one process to
//! another. What a mechanism can and cannot do, it says in its [`Capabilities`]; what it cannot do
//! is a clear error. [`Duplex`] joins two one-way channels.
//!
//! | mechanism | related processes | unrelated ones | senders, receivers | longest message | what was sent, when nobody has it open |
//! | --- | --- | --- | --- | --- | --- |
//! | [`ring`]: spsc | inherited memfd | name, passed descriptor | one, one | just under half of the ring | stays |
//! | [`ring`]: mpmc | inherited memfd | name, passed descriptor | many, many | a slot (256 bytes unless told) | stays |
//! | [`pipe`] | inherited | passed descriptor, `/proc/PID/fd/N` | many, one | 16 MiB, in pieces | goes |
//! | [`fifo`] | path | path | many, one | 16 MiB, in pieces | goes |
//! | [`socket`] | inherited pair, path | path, passed descriptor | many (a pair: one), one | 16 MiB, in pieces | goes |
//! | [`mqueue`] | name | name | many, many | that of the queue (8 KiB unless told) | stays |
//! | [`semaphore`] | inherited memfd, name | name, passed descriptor | many, many | the buffer (64 KiB unless told) | stays |
//! | [`signal`] | name, process id | name, process id, same user | many, one | 64 KiB, 7 bytes a signal | goes |
//!
//! | mechanism | a dead or gone peer is noticed | priorities | can be waited for by `poll` |
//! | --- | --- | --- | --- |
//! | [`ring`] | within 100 ms | none | with the `EventFd` strategy of the rings' own handles |
//! | [`pipe`], [`fifo`] | at once | none | [`pipe::Receiver::as_fd`], [`fifo::Receiver::as_fd`] |
//! | [`socket`] | at once | none | no: a descriptor for each sender |
//! | [`mqueue`] | within 50 ms | 32768 | [`mqueue::Receiver::as_fd`] |
//! | [`semaphore`] | within 50 ms | none | no |
//! | [`signal`] | at once | none | no: a thread of its own reads the signals |
//!
//! Where bytes have no boundaries, each message has a header (see [`Boundaries`]), so that both ends must be
//! of this library. Message queues carry the bare message: any program can be at the other end.
//!
//! ```
//! use ringway::channel::{self, Receiver, Sender};
//!
//! let (mut tx, mut rx) = channel::pipe::pair()?;
//! tx.send(b"hello")?;
//! let mut message = Vec::new();
//! rx.recv(&mut message)?;
//! assert_eq!(message, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::time::Duration;

use crate::os::clock::Deadline;
use crate::selector::sealed::Source;
use crate::{RecvError, SendError};

pub(crate) mod attendance;
pub mod fifo;
mod frame;
pub mod mqueue;
pub mod pipe;
pub mod ring;
pub mod semaphore;
pub mod signal;
pub mod socket;

/// How long an operation may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Not at all: `Full` or `Empty` at once.
    Now,
    /// Up to this long, then `TimedOut`.
    Within(Duration),
    /// Until it can be done, or never can.
    Forever,
}

impl Patience {
    /// When it ends. With `Now` it has ended already.
    pub(crate) fn deadline(self) -> Deadline {
        match self {
            Patience::Now => Deadline::after(Duration::ZERO),
            Patience::Within(timeout) => Deadline::after(timeout),
            Patience::Forever => Deadline::NEVER,
        }
    }

    /// What a sender says when it has ended.
    pub(crate) fn full(self) -> SendError {
        match self {
            Patience::Now => SendError::Full,
            _ => SendError::TimedOut,
        }
    }

    /// What a receiver says when it has ended.
    pub(crate) fn empty(self) -> RecvError {
        match self {
            Patience::Now => RecvError::Empty,
            _ => RecvError::TimedOut,
        }
    }
}

/// The sending end of a channel of byte messages.
///
/// A message arrives whole or not at all, and after those sent before it by the same sender.
/// Dropping a sender closes it; a process that ends otherwise (`kill -9`) has not closed it, and
/// the receiver can tell the two apart.
pub trait Sender: Send {
    /// Sends `message`, waiting for room as long as `patience` says.
    ///
    /// # Errors
    /// `Full` (with [`Patience::Now`]) or `TimedOut`: the message is not sent; where it is larger
    /// than what the mechanism moves at once, a part may be on its way, and sending *the same*
    /// message again goes on from there, while sending another, or closing, takes the part back.
    /// `MessageTooLarge`; `Closed` after [`close`](Sender::close) or when every receiver has left;
    /// `PeerDied` when the receiver died; `Os`.
    fn send_with(&mut self, message: &[u8], patience: Patience) -> Result<(), SendError>;

    /// Sends `message` if there is room now.
    ///
    /// # Errors
    /// As [`send_with`](Sender::send_with); `Full` when there is no room.
    fn try_send(&mut self, message: &[u8]) -> Result<(), SendError> {
        self.send_with(message, Patience::Now)
    }

    /// Sends `message`, waiting for room.
    ///
    /// # Errors
    /// As [`send_with`](Sender::send_with).
    fn send(&mut self, message: &[u8]) -> Result<(), SendError> {
        self.send_with(message, Patience::Forever)
    }

    /// Sends `message`, waiting for room for at most `timeout`.
    ///
    /// # Errors
    /// As [`send_with`](Sender::send_with); `TimedOut` when there was no room in time.
    fn send_timeout(&mut self, message: &[u8], timeout: Duration) -> Result<(), SendError> {
        self.send_with(message, Patience::Within(timeout))
    }

    /// Leaves. The receiver gets what was sent, then `Closed`. Every later send fails with
    /// `Closed`. Closing twice does nothing. Does not block.
    fn close(&mut self);

    /// What this mechanism can do.
    fn capabilities(&self) -> Capabilities;
}

/// The receiving end of a channel of byte messages.
///
/// Dropping a receiver closes it, as with [`Sender`].
pub trait Receiver: Send {
    /// Replaces the contents of `into` by the next message, waiting for it as long as `patience`
    /// says. While no sender has attached yet, it waits.
    ///
    /// # Errors
    /// `Empty` (with [`Patience::Now`]) or `TimedOut`; `Closed` when every message was taken and the
    /// senders have left, or after [`close`](Receiver::close); `PeerDied` when every message was
    /// taken and the senders are dead; `Corrupt`; `Os`. The contents of `into` are then whatever.
    fn recv_with(&mut self, into: &mut Vec<u8>, patience: Patience) -> Result<(), RecvError>;

    /// Takes the next message if there is one now.
    ///
    /// # Errors
    /// As [`recv_with`](Receiver::recv_with); `Empty` when there is none.
    fn try_recv(&mut self, into: &mut Vec<u8>) -> Result<(), RecvError> {
        self.recv_with(into, Patience::Now)
    }

    /// Takes the next message, waiting for it.
    ///
    /// # Errors
    /// As [`recv_with`](Receiver::recv_with).
    fn recv(&mut self, into: &mut Vec<u8>) -> Result<(), RecvError> {
        self.recv_with(into, Patience::Forever)
    }

    /// Takes the next message, waiting for it for at most `timeout`.
    ///
    /// # Errors
    /// As [`recv_with`](Receiver::recv_with); `TimedOut` when none came in time.
    fn recv_timeout(&mut self, into: &mut Vec<u8>, timeout: Duration) -> Result<(), RecvError> {
        self.recv_with(into, Patience::Within(timeout))
    }

    /// Leaves. A sender that sends on fails with `Closed`. Every later receive fails with `Closed`,
    /// also when messages are left. Closing twice does nothing. Does not block.
    fn close(&mut self);

    /// What this mechanism can do.
    fn capabilities(&self) -> Capabilities;

    /// As [`recv_with`](Receiver::recv_with); but a channel that gives a message of a dead receiver to
    /// the next one does so with this one until [`release`](Receiver::release). At most `most` more are
    /// wanted before that. `Empty` also says that no more can be held, whatever the patience.
    #[doc(hidden)]
    fn hold_with(
        &mut self,
        into: &mut Vec<u8>,
        most: u64,
        patience: Patience,
    ) -> Result<(), RecvError> {
        let _ = most;
        self.recv_with(into, patience)
    }

    /// What was held is done with. Without it, dropping the receiver leaves it to the next one.
    #[doc(hidden)]
    fn release(&mut self) {}

    /// By what a [`Selector`](crate::selector::Selector) waits for it.
    #[doc(hidden)]
    fn awaited(&mut self) -> Source<'_> {
        Source::Alone(self.capabilities().mechanism)
    }

    /// Whether, although no descriptor says so, there is nothing to wait for any more.
    #[doc(hidden)]
    fn has_ended(&mut self) -> bool {
        false
    }
}

impl<T: Sender + ?Sized> Sender for Box<T> {
    fn send_with(&mut self, message: &[u8], patience: Patience) -> Result<(), SendError> {
        (**self).send_with(message, patience)
    }

    fn close(&mut self) {
        (**self).close();
    }

    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }
}

impl<T: Receiver + ?Sized> Receiver for Box<T> {
    fn hold_with(
        &mut self,
        into: &mut Vec<u8>,
        most: u64,
        patience: Patience,
    ) -> Result<(), RecvError> {
        (**self).hold_with(into, most, patience)
    }

    fn release(&mut self) {
        (**self).release();
    }

    fn awaited(&mut self) -> Source<'_> {
        (**self).awaited()
    }

    fn has_ended(&mut self) -> bool {
        (**self).has_ended()
    }

    fn recv_with(&mut self, into: &mut Vec<u8>, patience: Patience) -> Result<(), RecvError> {
        (**self).recv_with(into, patience)
    }

    fn close(&mut self) {
        (**self).close();
    }

    fn capabilities(&self) -> Capabilities {
        (**self).capabilities()
    }
}

/// What a mechanism can and cannot do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Its name, as in an endpoint: "pipe", "fifo", "mq", ...
    pub mechanism: &'static str,
    /// The longest message, in bytes; a longer one is refused with `MessageTooLarge`.
    pub max_message: usize,
    /// How a process that is not a relative gets at it; `None` when it cannot.
    pub unrelated: Option<&'static str>,
    /// How the boundaries of messages are kept.
    pub boundaries: Boundaries,
    /// How many priorities a message can have; 1 when all are equal.
    pub priorities: u32,
    /// Whether several senders may use the channel at once.
    pub many_senders: bool,
    /// Whether several receivers may use the channel at once.
    pub many_receivers: bool,
    /// Whether messages wait for a receiver that comes after their sender has gone.
    pub keeps_messages: bool,
    /// How soon a blocked end learns that the other one is gone.
    pub notices: Notice,
}

/// How the boundaries of messages are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundaries {
    /// By the mechanism itself.
    Native,
    /// By a header before each piece; both ends must speak it.
    Framed,
}

/// How soon a blocked end learns that the other one has left or died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The operating system wakes it.
    AtOnce,
    /// It looks every so often.
    Within(Duration),
}

/// Two one-way channels that run in opposite directions.
///
/// Messages in the two directions are independent. The halves can be split to be used by two
/// threads.
///
/// ```
/// use ringway::channel::{Duplex, Receiver, Sender, pipe};
///
/// let (mut here, mut there) = Duplex::pair(pipe::pair()?, pipe::pair()?);
/// here.tx.send(b"question")?;
/// let mut message = Vec::new();
/// there.rx.recv(&mut message)?;
/// there.tx.send(b"answer")?;
/// here.rx.recv(&mut message)?;
/// assert_eq!(message, b"answer");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Duplex<S, R> {
    /// What this end sends goes here.
    pub tx: S,
    /// What the other end sends comes from here.
    pub rx: R,
}

impl<S: Sender, R: Receiver> Duplex<S, R> {
    /// Joins a sender and a receiver.
    pub fn new(tx: S, rx: R) -> Duplex<S, R> {
        Duplex { tx, rx }
    }

    /// Joins the ends of two channels crosswise: the two ends of one duplex.
    pub fn pair(one: (S, R), other: (S, R)) -> (Duplex<S, R>, Duplex<S, R>) {
        (Duplex::new(one.0, other.1), Duplex::new(other.0, one.1))
    }

    /// Splits it again.
    pub fn split(self) -> (S, R) {
        (self.tx, self.rx)
    }

    /// Leaves both directions.
    pub fn close(&mut self) {
        self.tx.close();
        self.rx.close();
    }
}
