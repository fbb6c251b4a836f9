//! POSIX message queues: named, kept by the kernel, with priorities.
//!
//! Messages are those of the queue itself, without any framing, so that a program that knows
//! nothing of Ringway can be at the other end. A message that was retrieved is gone, also when its
//! receiver dies with it. Messages wait in the queue while nobody has it open; the last one to
//! close its end removes the name if the queue is empty.
//!
//! The descriptor ([`Sender::as_fd`], [`Receiver::as_fd`]) can be polled.
//!
//! ```
//! use ringway::channel::{Patience, Receiver, Sender, mqueue};
//!
//! let name = format!("/ringway-doc-{}", std::process::id());
//! let mut tx = mqueue::Sender::open(&name, mqueue::Config::default())?;
//! let mut rx = mqueue::Receiver::attach(&name)?;
//! tx.send(b"some work")?;
//! tx.send_priority(b"stop!", 9, Patience::Now)?;
//! let mut message = Vec::new();
//! assert_eq!(rx.recv_priority(&mut message, Patience::Now)?, 9);
//! assert_eq!(message, b"stop!");
//! rx.recv(&mut message)?;
//! assert_eq!(message, b"some work");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::attendance::{self, Peer, Side};
use super::{Boundaries, Capabilities, Notice, Patience};
use crate::os::inode::Token;
use crate::os::{self, poll};
use crate::selector::{self, sealed::Source};
use crate::{Error, RecvError, SendError};

/// How often a blocked end looks whether the other one is gone.
const LOOK: Duration = Duration::from_millis(50);

/// How a queue is made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// How many messages it holds. Default 10, which is as many as an ordinary system allows
    /// (`/proc/sys/fs/mqueue/msg_max`).
    pub depth: usize,
    /// The longest message, in bytes. Default 8192, likewise (`msgsize_max`).
    pub message: usize,
    /// Who may open it: read and write bits as of `chmod`. Default 0600.
    pub mode: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            depth: 10,
            message: 8192,
            mode: 0o600,
        }
    }
}

impl Config {
    /// Sets how many messages the queue holds.
    pub fn depth(mut self, depth: usize) -> Config {
        self.depth = depth;
        self
    }

    /// Sets the longest message, in bytes.
    pub fn message(mut self, bytes: usize) -> Config {
        self.message = bytes;
        self
    }

    /// Sets who may open it.
    pub fn mode(mut self, mode: u32) -> Config {
        self.mode = mode;
        self
    }
}

/// One end of a queue.
#[derive(Debug)]
struct End {
    token: Option<Token>,
    name: String,
    max: usize,
    side: Side,
    looked: Instant,
}

/// The name as the system calls want it.
fn slashed(name: &str) -> String {
    if name.starts_with('/') {
        name.into()
    } else {
        format!("/{name}")
    }
}

/// Removes the name, if it is still that of this queue. The caller has the inode's guard.
fn unlink(fd: BorrowedFd<'_>, name: &str) {
    if os::mqueue::is_at(fd, name) {
        let _ = os::mqueue::unlink(name);
    }
}

fn refused(name: &str, config: &Config, error: std::io::Error) -> Error {
    let no_room = |needed: String, remedy: &str| Error::NoRoom {
        name: name.into(),
        needed,
        why: error.to_string(),
        remedy: remedy.into(),
    };
    let queue = || {
        format!(
            "a queue of {} messages of {} bytes",
            config.depth, config.message
        )
    };
    match error.raw_os_error() {
        _ if name[1..].contains('/') => Error::Config {
            what: "message queue",
            value: name.into(),
            why: "there are no directories of queues".into(),
            remedy: "leave the slash out".into(),
        },
        Some(os::EINVAL) => Error::Config {
            what: "message queue",
            value: name.into(),
            why: format!("the system refuses {}, or the name", queue()),
            remedy: "stay within /proc/sys/fs/mqueue/msg_max and msgsize_max, and name it /NAME \
                     with no other slash"
                .into(),
        },
        // Linux says EMFILE both for too few descriptors and for RLIMIT_MSGQUEUE.
        Some(os::EMFILE) if os::mqueue::descriptors_left() => no_room(
            queue(),
            "remove queues, use a smaller depth or message, or raise the limit with `ulimit -q`",
        ),
        Some(os::EMFILE | os::ENFILE) => no_room(
            "1 file descriptor".into(),
            "close some, or raise the limit with `ulimit -n`",
        ),
        Some(os::ENOSPC) => no_room(
            queue(),
            "remove queues, or raise /proc/sys/fs/mqueue/queues_max",
        ),
        Some(os::ENOENT) => Error::NotFound {
            what: "message queue",
            name: name.into(),
        },
        Some(os::ENOSYS) => Error::Unsupported {
            mechanism: "mq",
            what: "be used: this kernel has no POSIX message queues",
            remedy: "use a FIFO or a socket",
        },
        _ => Error::os("mq_open", name, error),
    }
}

impl End {
    /// Opens the queue; with a config, makes it where it is missing.
    fn open(name: &str, side: Side, config: Option<&Config>) -> Result<End, Error> {
        let name = slashed(name);
        let usual = Config::default();
        let fail = |error| refused(&name, config.unwrap_or(&usual), error);
        for attempt in 0..attendance::GOING_MOST {
            let mut made = None;
            let fd = match (os::mqueue::open(&name), config) {
                (Ok(fd), _) => fd,
                (Err(error), Some(config)) if error.raw_os_error() == Some(os::ENOENT) => {
                    match os::mqueue::create(&name, config.depth, config.message) {
                        Ok(fd) => {
                            made = Some(config.mode);
                            fd
                        }
                        Err(error) if error.raw_os_error() == Some(os::EEXIST) => continue,
                        Err(error) => return Err(fail(error)),
                    }
                }
                (Err(error), _) => return Err(fail(error)),
            };
            if !attendance::sit(fd.as_fd(), side, true).map_err(fail)? {
                return Err(Error::TooManyParticipants { name, max: 1024 });
            }
            let empty = || os::mqueue::geometry(fd.as_fd()).is_ok_and(|queue| queue.waiting == 0);
            if attendance::come(fd.as_fd(), side, made, empty).map_err(fail)? {
                let max = os::mqueue::geometry(fd.as_fd()).map_err(fail)?.message;
                let token = Token::new(fd).map_err(fail)?;
                return Ok(End {
                    token: Some(token),
                    max,
                    side,
                    looked: Instant::now(),
                    name,
                });
            }
            // The last one to leave is about to remove the name; or it was killed just before.
            if attempt > attendance::GOING_PATIENCE {
                attendance::finish_removal(fd.as_fd(), || unlink(fd.as_fd(), &name));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(Error::Os {
            op: "mq_open",
            name,
            source: std::io::ErrorKind::TimedOut.into(),
        })
    }

    /// Looks at the other side. Where that is gone, the next call looks again: what was refused once is not
    /// taken before somebody has come.
    fn peer(&mut self, fd: BorrowedFd<'_>) -> Peer {
        let peer = attendance::peer(fd, self.side.other());
        if matches!(peer, Peer::Here | Peer::Never) {
            self.looked = Instant::now();
        }
        peer
    }

    fn close(&mut self) {
        let Some(token) = self.token.take() else {
            return;
        };
        if token.is_here() {
            let fd = token.as_fd();
            let empty = || os::mqueue::geometry(fd).is_ok_and(|queue| queue.waiting == 0);
            attendance::leave_and_remove(fd, self.side, empty, || unlink(fd, &self.name));
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            mechanism: "mq",
            max_message: self.max,
            unrelated: Some("by name"),
            boundaries: Boundaries::Native,
            priorities: os::mqueue::PRIORITIES,
            many_senders: true,
            many_receivers: true,
            keeps_messages: true,
            notices: Notice::Within(LOOK),
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.close();
    }
}

/// Takes the queue `name`, and what waits in it, away if nobody attends it. False when somebody does.
pub(crate) fn remove_if_abandoned(name: &str) -> Result<bool, Error> {
    let name = slashed(name);
    let queue = match os::mqueue::open(&name) {
        Ok(queue) => queue,
        Err(error) if error.raw_os_error() == Some(os::ENOENT) => return Ok(true),
        Err(error) => return Err(refused(&name, &Config::default(), error)),
    };
    let fd = queue.as_fd();
    Ok(attendance::remove_if_unattended(
        fd,
        || true,
        || {
            unlink(fd, &name);
            true
        },
    ))
}

/// The sending end of a message queue.
#[derive(Debug)]
pub struct Sender(End);

impl Sender {
    /// Opens the queue `name`, making it if it is not there. A queue that is there keeps its depth
    /// and message size.
    ///
    /// # Errors
    /// `Config` when the system refuses the depth, the size or the name; `NoRoom` when
    /// `RLIMIT_MSGQUEUE`, the number of queues or the descriptors are exhausted;
    /// `PermissionDenied`.
    pub fn open(name: &str, config: Config) -> Result<Sender, Error> {
        End::open(name, Side::Sending, Some(&config)).map(Sender)
    }

    /// As [`open`](Sender::open), but the queue must be there.
    ///
    /// # Errors
    /// `NotFound` besides.
    pub fn attach(name: &str) -> Result<Sender, Error> {
        End::open(name, Side::Sending, None).map(Sender)
    }

    /// Sends `message` with a priority from 0 (that of [`send`](super::Sender::send)) to 32767;
    /// the receiver gets the highest first, and those of one priority in order.
    ///
    /// # Errors
    /// As [`send_with`](super::Sender::send_with).
    pub fn send_priority(
        &mut self,
        message: &[u8],
        priority: u32,
        patience: Patience,
    ) -> Result<(), SendError> {
        let end = &mut self.0;
        let token = end.token.take().ok_or(SendError::Closed)?;
        let result = end.send(&token, message, priority, patience);
        end.token = Some(token);
        result
    }

    /// The queue's descriptor: writable when there is room. `None` after closing.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.token.as_ref().map(AsFd::as_fd)
    }
}

impl End {
    fn send(
        &mut self,
        token: &Token,
        message: &[u8],
        priority: u32,
        patience: Patience,
    ) -> Result<(), SendError> {
        if !token.is_here() {
            return Err(SendError::Forked);
        }
        if message.len() > self.max {
            return Err(SendError::MessageTooLarge {
                len: message.len(),
                max: self.max,
            });
        }
        let deadline = patience.deadline();
        let fd = token.as_fd();
        let mut look = self.looked.elapsed() >= LOOK;
        loop {
            if look {
                match self.peer(fd) {
                    Peer::Left => return Err(SendError::Closed),
                    Peer::Died => return Err(SendError::PeerDied),
                    Peer::Here | Peer::Never => {}
                }
            }
            match os::mqueue::send(fd, message, priority) {
                Ok(true) => return Ok(()),
                Ok(false) if patience != Patience::Now && !deadline.passed() => {}
                // Full. Why, is worth a look.
                Ok(false) if look => return Err(patience.full()),
                Ok(false) => {
                    look = true;
                    continue;
                }
                Err(source) => {
                    return Err(SendError::Os {
                        op: "mq_send",
                        source,
                    });
                }
            }
            let slice = deadline.at_most(LOOK.as_nanos() as u64);
            look = poll::one(fd, poll::WRITABLE, slice)
                .map_err(|source| SendError::Os { op: "poll", source })?
                == 0;
        }
    }

    fn recv(
        &mut self,
        token: &Token,
        into: &mut Vec<u8>,
        patience: Patience,
    ) -> Result<u32, RecvError> {
        if !token.is_here() {
            return Err(RecvError::Forked);
        }
        let deadline = patience.deadline();
        let fd = token.as_fd();
        let take = |into: &mut Vec<u8>| {
            os::mqueue::receive(fd, into, self.max).map_err(|source| RecvError::Os {
                op: "mq_receive",
                source,
            })
        };
        loop {
            if let Some(priority) = take(into)? {
                return Ok(priority);
            }
            let gone = match attendance::peer(fd, self.side.other()) {
                Peer::Left => Some(RecvError::Closed),
                Peer::Died => Some(RecvError::PeerDied),
                Peer::Here | Peer::Never => None,
            };
            if let Some(error) = gone {
                // Whatever it sent, it sent before it went.
                return take(into)?.ok_or(error);
            }
            if patience == Patience::Now || deadline.passed() {
                return Err(patience.empty());
            }
            let slice = deadline.at_most(LOOK.as_nanos() as u64);
            poll::one(fd, poll::READABLE, slice)
                .map_err(|source| RecvError::Os { op: "poll", source })?;
        }
    }
}

impl super::Sender for Sender {
    fn send_with(&mut self, message: &[u8], patience: Patience) -> Result<(), SendError> {
        self.send_priority(message, 0, patience)
    }

    fn close(&mut self) {
        self.0.close();
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
}

/// The receiving end of a message queue.
#[derive(Debug)]
pub struct Receiver(End);

impl Receiver {
    /// Opens the queue `name`, making it if it is not there. A queue that is there keeps its depth
    /// and message size.
    ///
    /// # Errors
    /// As [`Sender::open`].
    pub fn open(name: &str, config: Config) -> Result<Receiver, Error> {
        End::open(name, Side::Receiving, Some(&config)).map(Receiver)
    }

    /// As [`open`](Receiver::open), but the queue must be there.
    ///
    /// # Errors
    /// `NotFound` besides.
    pub fn attach(name: &str) -> Result<Receiver, Error> {
        End::open(name, Side::Receiving, None).map(Receiver)
    }

    /// Takes the oldest message of the highest priority there is, and tells its priority.
    ///
    /// # Errors
    /// As [`recv_with`](super::Receiver::recv_with).
    pub fn recv_priority(
        &mut self,
        into: &mut Vec<u8>,
        patience: Patience,
    ) -> Result<u32, RecvError> {
        let end = &mut self.0;
        let token = end.token.take().ok_or(RecvError::Closed)?;
        let result = end.recv(&token, into, patience);
        end.token = Some(token);
        result
    }

    /// The queue's descriptor: readable when there is a message. `None` after closing.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.token.as_ref().map(AsFd::as_fd)
    }
}

impl super::Receiver for Receiver {
    fn recv_with(&mut self, into: &mut Vec<u8>, patience: Patience) -> Result<(), RecvError> {
        self.recv_priority(into, patience).map(drop)
    }

    fn close(&mut self) {
        self.0.close();
    }

    fn awaited(&mut self) -> Source<'_> {
        match &self.0.token {
            Some(token) => selector::descriptors([token.as_fd().as_raw_fd()]),
            None => Source::Ready,
        }
    }

    fn has_ended(&mut self) -> bool {
        let Some(token) = self.0.token.take() else {
            return true;
        };
        let peer = self.0.peer(token.as_fd());
        self.0.token = Some(token);
        matches!(peer, Peer::Left | Peer::Died)
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
}
