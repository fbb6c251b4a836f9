//! Pipes: between relatives, by inheritance; between strangers, by a passed descriptor or through
//! `/proc`.
//!
//! Messages are framed, and every piece of up to `PIPE_BUF` bytes is written whole, so that several
//! processes may hold the writing end at once. Both ends must speak the framing; it is not for
//! talking to a program that expects plain bytes.
//!
//! After `fork`, each process drops the end it does not use. That is no leaving, in a process that
//! never used the end. Only where *parent and child both* could be taken for the user of one end,
//! the parent says [`release`](Sender::release) instead of dropping it, or passes it on as the
//! descriptor it is: `Command::new(..).stdin(rx)`.
//!
//! A reader that waits in `poll` uses [`Receiver::as_fd`]; it reads ahead, so it must take messages by
//! [`try_recv`](super::Receiver::try_recv) until there is none before it waits again.
//!
//! ```
//! use ringway::channel::{Receiver, Sender, pipe};
//!
//! let (mut tx, mut rx) = pipe::pair()?;
//! tx.set_capacity(1 << 20)?;
//! tx.send(b"one")?;
//! tx.send(b"another")?;
//! let mut message = Vec::new();
//! rx.recv(&mut message)?;
//! assert_eq!(message, b"one"); // each comes for itself
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A child of this process, which takes its end over by
//! [`Receiver::inherited`]`(0)` or as the endpoint `pipe:`:
//!
//! ```no_run
//! use ringway::channel::{Sender, pipe};
//!
//! let (mut tx, rx) = pipe::pair()?;
//! let mut child = std::process::Command::new("worker").stdin(rx).spawn()?;
//! tx.send(b"some work")?;
//! tx.close();
//! child.wait()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::process::Stdio;

use super::attendance::{self, Peer, Side};
use super::frame::{HEADER, Incoming, MAX_MESSAGE, Outgoing};
use super::{Boundaries, Capabilities, Notice, Patience};
use crate::os::clock::Deadline;
use crate::os::fork::Mark;
use crate::os::{self, poll};
use crate::selector::{self, sealed::Source};
use crate::{Error, RecvError, SendError};

/// A new pipe.
///
/// # Errors
/// `NoRoom` when the process has no descriptors left (2 are needed).
pub fn pair() -> Result<(Sender, Receiver), Error> {
    let (reading, writing) = os::pipe::pipe().map_err(|error| match error.raw_os_error() {
        Some(os::EMFILE | os::ENFILE) => Error::NoRoom {
            name: "pipe".into(),
            needed: "2 file descriptors".into(),
            why: error.to_string(),
            remedy: "close some, or raise the limit with `ulimit -n`".into(),
        },
        _ => Error::os("pipe2", "pipe", error),
    })?;
    Ok((
        Sender::new(writing, "pipe"),
        Receiver::new(reading, "pipe", false),
    ))
}

pub(crate) fn capabilities(mechanism: &'static str, unrelated: &'static str) -> Capabilities {
    Capabilities {
        mechanism,
        max_message: MAX_MESSAGE,
        unrelated: Some(unrelated),
        boundaries: Boundaries::Framed,
        priorities: 1,
        many_senders: true,
        many_receivers: false,
        keeps_messages: false,
        notices: Notice::AtOnce,
    }
}

fn refuse_unless(fd: BorrowedFd<'_>, writable: bool, name: &str) -> Result<(), Error> {
    let not_ours = |why: &str| Error::NotOurs {
        what: "pipe",
        name: name.into(),
        why: why.into(),
    };
    match os::pipe::modes(fd) {
        Ok(Some((reads, writes))) if if writable { writes } else { reads } => Ok(()),
        Ok(Some(_)) if writable => Err(not_ours("it is the reading end")),
        Ok(Some(_)) => Err(not_ours("it is the writing end")),
        Ok(None) => Err(not_ours("it is another kind of file")),
        Err(error) => Err(Error::os("fstat", name, error)),
    }
}

/// The path by which another process reaches descriptor `fd` of process `pid`.
fn path_of(pid: u32, fd: u32) -> String {
    format!("/proc/{pid}/fd/{fd}")
}

/// The sending end of a pipe.
///
/// A clone made by `fork` is a sender of its own from its first use on.
#[derive(Debug)]
pub struct Sender {
    fd: Option<OwnedFd>,
    outgoing: Outgoing,
    user: Mark,
    mechanism: &'static str,
}

impl Sender {
    pub(super) fn new(fd: OwnedFd, mechanism: &'static str) -> Sender {
        Sender {
            fd: Some(fd),
            outgoing: Outgoing::new(os::pipe::ATOMIC),
            user: Mark::here(),
            mechanism,
        }
    }

    /// Takes over the writing end of a pipe that was inherited or passed.
    ///
    /// # Errors
    /// `NotOurs` when `fd` is not the writing end of a pipe.
    pub fn from_fd(fd: OwnedFd) -> Result<Sender, Error> {
        refuse_unless(fd.as_fd(), true, "pipe")?;
        let fd = os::pipe::own_description(fd, true)
            .map_err(|error| Error::os("fcntl", "pipe", error))?;
        let _ = attendance::come(fd.as_fd(), Side::Sending, None, || false);
        Ok(Sender::new(fd, "pipe"))
    }

    /// Takes over the writing end that this process has inherited as descriptor number `fd`,
    /// under which `/dev/null` is found from then on.
    ///
    /// # Errors
    /// `NotOurs` when that is not the writing end of a pipe; `Os` when it is not open.
    pub fn inherited(fd: u32) -> Result<Sender, Error> {
        Sender::from_fd(inherited(fd)?)
    }

    /// Opens the pipe that process `pid` has open as descriptor `fd` (either end). Permitted where
    /// the two processes belong to the same user.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`; `NotOurs` when that is not a pipe.
    pub fn attach(pid: u32, fd: u32) -> Result<Sender, Error> {
        let path = path_of(pid, fd);
        let fd = open(&path, true)?;
        refuse_unless(fd.as_fd(), true, &path)?;
        let _ = attendance::come(fd.as_fd(), Side::Sending, None, || false);
        Ok(Sender::new(fd, "pipe"))
    }

    /// Closes this process's hold on the end without leaving: another process has taken it over.
    pub fn release(mut self) {
        self.fd = None;
    }

    /// The descriptor: writable when there is room. `None` after closing.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Gives the pipe room for at least `bytes`; an unprivileged process may go up to
    /// `/proc/sys/fs/pipe-max-size`. Returns what it got.
    ///
    /// # Errors
    /// `PermissionDenied` above that size; `Closed` is told as `Os`.
    pub fn set_capacity(&self, bytes: usize) -> Result<usize, Error> {
        let fd = self.fd.as_ref().ok_or_else(|| closed(self.mechanism))?;
        os::pipe::set_capacity(fd.as_fd(), bytes)
            .and_then(|()| os::pipe::capacity(fd.as_fd()))
            .map_err(|error| Error::os("fcntl", self.mechanism, error))
    }

    /// On the first use after `fork`: from now on this process is a sender too.
    fn adopt(&mut self) {
        if !self.user.is_here() {
            self.user = Mark::here();
            self.outgoing = Outgoing::new(os::pipe::ATOMIC);
            if let Some(fd) = &self.fd {
                let _ = attendance::come(fd.as_fd(), Side::Sending, None, || false);
            }
        }
    }

    /// Closes the end, running `leave` in place of the usual farewell.
    pub(super) fn close_with(&mut self, leave: impl FnOnce(BorrowedFd<'_>)) {
        if let Some(fd) = self.fd.take()
            && self.user.is_here()
        {
            self.outgoing.abandon(|header, payload| {
                let _ = os::pipe::write(fd.as_fd(), header, payload);
            });
            leave(fd.as_fd());
        }
    }
}

fn inherited(fd: u32) -> Result<OwnedFd, Error> {
    os::pipe::inherited(fd).map_err(|error| Error::os("fcntl", format!("descriptor {fd}"), error))
}

/// Writes pieces to the pipe; where there is no reader, `gone` says what has become of it.
fn put(
    fd: BorrowedFd<'_>,
    mut gone: impl FnMut() -> SendError,
) -> impl FnMut(&[u8], &[u8]) -> Result<bool, SendError> {
    move |header, payload| {
        os::pipe::write(fd, header, payload).map_err(|source| match source.raw_os_error() {
            Some(os::EPIPE) => gone(),
            _ => SendError::Os {
                op: "write",
                source,
            },
        })
    }
}

/// Whether the other end of the pipe is open nowhere, which `event` tells.
fn hangs_up(fd: BorrowedFd<'_>, event: i16) -> bool {
    let now = Deadline::after(std::time::Duration::ZERO);
    poll::one(fd, 0, now).is_ok_and(|ready| ready & event != 0)
}

fn closed(mechanism: &'static str) -> Error {
    Error::Config {
        what: "channel",
        value: mechanism.into(),
        why: "it is closed".into(),
        remedy: "set it up before closing it".into(),
    }
}

fn open(path: &str, writable: bool) -> Result<OwnedFd, Error> {
    os::pipe::open(path.as_ref(), writable, true).map_err(|error| match error.raw_os_error() {
        Some(os::ENOENT) => Error::NotFound {
            what: "pipe",
            name: path.into(),
        },
        _ => Error::os("open", path, error),
    })
}

impl super::Sender for Sender {
    fn send_with(&mut self, message: &[u8], patience: Patience) -> Result<(), SendError> {
        self.adopt();
        let fd = self.fd.as_ref().ok_or(SendError::Closed)?.as_fd();
        let deadline = patience.deadline();
        loop {
            let mut has_successor = false;
            let gone = || match attendance::gone(fd, Side::Receiving, || !hangs_up(fd, poll::ERROR))
            {
                Peer::Here => {
                    has_successor = true;
                    SendError::Closed
                }
                Peer::Left => SendError::Closed,
                Peer::Died | Peer::Never => SendError::PeerDied,
            };
            let result = self.outgoing.send(message, put(fd, gone), || {
                if patience == Patience::Now {
                    return Err(SendError::Full);
                }
                match poll::one(fd, poll::WRITABLE, deadline) {
                    Ok(0) => Err(patience.full()),
                    Ok(_) => Ok(()),
                    Err(source) => Err(SendError::Os { op: "poll", source }),
                }
            });
            if matches!(result, Err(SendError::Closed | SendError::PeerDied)) {
                // What was begun went with the receiver; a successor gets whole messages.
                self.outgoing.forget();
            }
            // A successor that has just come may as well have come before.
            if !has_successor {
                return result;
            }
        }
    }

    fn close(&mut self) {
        self.close_with(|fd| attendance::leave(fd, Side::Sending));
    }

    fn capabilities(&self) -> Capabilities {
        capabilities(self.mechanism, "a passed descriptor, or /proc/PID/fd/N")
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        super::Sender::close(self);
    }
}

impl From<Sender> for OwnedFd {
    /// The descriptor, without leaving; to be passed to another process.
    ///
    /// # Panics
    /// If the sender has been closed.
    fn from(mut sender: Sender) -> OwnedFd {
        sender.fd.take().expect("a closed sender has no descriptor")
    }
}

impl From<Sender> for Stdio {
    fn from(sender: Sender) -> Stdio {
        OwnedFd::from(sender).into()
    }
}

/// How much is read at once.
const CHUNK: usize = 64 << 10;

/// The receiving end of a pipe.
#[derive(Debug)]
pub struct Receiver {
    fd: Option<OwnedFd>,
    /// What was read and not yet taken is `buffer[start..end]`.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    incoming: Incoming,
    user: Mark,
    mechanism: &'static str,
    /// The descriptor blocks: ask before reading. (The description is shared with strangers, who
    /// do not expect it to be changed; and one opened anew would not know that its writers left.)
    blocking: bool,
}

impl Receiver {
    pub(super) fn new(fd: OwnedFd, mechanism: &'static str, blocking: bool) -> Receiver {
        Receiver {
            fd: Some(fd),
            buffer: vec![0; CHUNK].into(),
            start: 0,
            end: 0,
            incoming: Incoming::default(),
            user: Mark::here(),
            mechanism,
            blocking,
        }
    }

    /// Takes over the reading end of a pipe that was inherited or passed. Nobody else may read it.
    ///
    /// # Errors
    /// `NotOurs` when `fd` is not the reading end of a pipe.
    pub fn from_fd(fd: OwnedFd) -> Result<Receiver, Error> {
        refuse_unless(fd.as_fd(), false, "pipe")?;
        let _ = os::pipe::set_cloexec(fd.as_raw_fd(), true);
        let _ = attendance::come(fd.as_fd(), Side::Receiving, None, || false);
        Ok(Receiver::new(fd, "pipe", true))
    }

    /// Takes over the reading end that this process has inherited as descriptor number `fd`,
    /// under which `/dev/null` is found from then on.
    ///
    /// # Errors
    /// `NotOurs` when that is not the reading end of a pipe; `Os` when it is not open.
    pub fn inherited(fd: u32) -> Result<Receiver, Error> {
        Receiver::from_fd(inherited(fd)?)
    }

    /// Opens the pipe that process `pid` has open as descriptor `fd` (either end). Permitted where
    /// the two processes belong to the same user. Its own reader must have released it, and while
    /// no sender is there the new one waits for one.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`; `NotOurs` when that is not a pipe.
    pub fn attach(pid: u32, fd: u32) -> Result<Receiver, Error> {
        let path = path_of(pid, fd);
        let fd = open(&path, false)?;
        refuse_unless(fd.as_fd(), false, &path)?;
        let _ = attendance::come(fd.as_fd(), Side::Receiving, None, || false);
        Ok(Receiver::new(fd, "pipe", false))
    }

    /// Closes this process's hold on the end without leaving: another process has taken it over.
    pub fn release(mut self) {
        self.fd = None;
    }

    /// The descriptor: readable when something has come, or the senders have gone. `None` after closing.
    ///
    /// What was read ahead does not show in it: take messages by [`try_recv`](super::Receiver::try_recv)
    /// until there is none before waiting.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    fn adopt(&mut self) {
        if !self.user.is_here() {
            self.user = Mark::here();
            // What the parent had read is the parent's.
            (self.start, self.end) = (0, 0);
            self.incoming.reset();
            if let Some(fd) = &self.fd {
                let _ = attendance::come(fd.as_fd(), Side::Receiving, None, || false);
            }
        }
    }

    /// Whether the next piece was read already (or what cannot be one).
    fn holds_piece(&self) -> bool {
        let held = &self.buffer[self.start..self.end];
        let Some((head, rest)) = held.split_first_chunk::<HEADER>() else {
            return false;
        };
        let length = self.incoming.length(*head, os::pipe::ATOMIC);
        length.map_or(true, |length| rest.len() >= length)
    }

    /// Takes the next piece out of the buffer: `None` when it is not whole yet, and else whether it
    /// completed a message.
    fn piece(&mut self, into: &mut Vec<u8>) -> Result<Option<bool>, RecvError> {
        let held = &self.buffer[self.start..self.end];
        let Some((head, rest)) = held.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = self.incoming.length(*head, os::pipe::ATOMIC)?;
        let Some(payload) = rest.get(..length) else {
            return Ok(None);
        };
        self.start += HEADER + length;
        self.incoming.accept(*head, payload, into).map(Some)
    }

    pub(super) fn close_with(&mut self, leave: impl FnOnce(BorrowedFd<'_>)) {
        if let Some(fd) = self.fd.take()
            && self.user.is_here()
        {
            leave(fd.as_fd());
        }
    }
}

impl super::Receiver for Receiver {
    fn recv_with(&mut self, into: &mut Vec<u8>, patience: Patience) -> Result<(), RecvError> {
        self.adopt();
        if self.fd.is_none() {
            return Err(RecvError::Closed);
        }
        let deadline = patience.deadline();
        let os_error = |op| move |source| RecvError::Os { op, source };
        loop {
            while let Some(complete) = self.piece(into)? {
                if complete {
                    return Ok(());
                }
            }
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            let Some(fd) = &self.fd else {
                return Err(RecvError::Closed);
            };
            if self.blocking {
                let ready =
                    poll::one(fd.as_fd(), poll::READABLE, deadline).map_err(os_error("poll"))?;
                if ready == 0 {
                    return Err(patience.empty());
                }
            }
            let read = os::pipe::read(fd.as_fd(), &mut self.buffer[self.end..])
                .map_err(os_error("read"))?;
            match read {
                Some(read) if read > 0 => {
                    self.end += read;
                    continue;
                }
                Some(_) => {
                    // No writer. A FIFO whose first writer is still to come does not hang up.
                    let fd = fd.as_fd();
                    let is_there = || !hangs_up(fd, poll::HUNG_UP);
                    let gone = match is_there() {
                        true => Peer::Here,
                        false => attendance::gone(fd, Side::Sending, is_there),
                    };
                    // If a successor has come just now, it may as well have come before.
                    if gone != Peer::Here {
                        self.incoming.reset();
                        (self.start, self.end) = (0, 0);
                        return Err(match gone {
                            Peer::Left => RecvError::Closed,
                            _ => RecvError::PeerDied,
                        });
                    }
                }
                None => {}
            }
            if patience == Patience::Now {
                return Err(RecvError::Empty);
            }
            if !self.blocking
                && poll::one(fd.as_fd(), poll::READABLE, deadline).map_err(os_error("poll"))? == 0
            {
                return Err(RecvError::TimedOut);
            }
        }
    }

    fn close(&mut self) {
        self.close_with(|fd| attendance::leave(fd, Side::Receiving));
    }

    fn awaited(&mut self) -> Source<'_> {
        match &self.fd {
            Some(fd) if !self.holds_piece() => selector::descriptors([fd.as_raw_fd()]),
            _ => Source::Ready,
        }
    }

    fn capabilities(&self) -> Capabilities {
        capabilities(self.mechanism, "a passed descriptor, or /proc/PID/fd/N")
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        super::Receiver::close(self);
    }
}

impl From<Receiver> for OwnedFd {
    /// The descriptor, without leaving; to be passed to another process.
    ///
    /// # Panics
    /// If the receiver has been closed.
    fn from(mut receiver: Receiver) -> OwnedFd {
        receiver
            .fd
            .take()
            .expect("a closed receiver has no descriptor")
    }
}

impl From<Receiver> for Stdio {
    fn from(receiver: Receiver) -> Stdio {
        OwnedFd::from(receiver).into()
    }
}
