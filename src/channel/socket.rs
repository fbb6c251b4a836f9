//! Unix-domain sockets: a connected pair between relatives, or at a path.
//!
//! They are of the kind that keeps boundaries (`SOCK_SEQPACKET`); messages longer than a packet go
//! in pieces. The receiver listens at the path, any number of senders connect, in whatever order
//! they are started. The receiver removes the path when it closes; what a killed one left is taken
//! over by the next.
//!
//! ```
//! use ringway::channel::{Receiver, Sender, socket};
//!
//! let path = format!("/tmp/doc-socket-{}", std::process::id());
//! let mut tx = socket::Sender::open(&path)?; // before there is anybody to receive
//! let mut rx = socket::Receiver::open(&path, socket::Config::default())?;
//! tx.send(b"hello")?;
//! let mut message = Vec::new();
//! rx.recv(&mut message)?;
//! assert_eq!(message, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::frame::{HEADER, Incoming, MAX_MESSAGE, Outgoing};
use super::{Boundaries, Capabilities, Notice, Patience};
use crate::os::fork::Mark;
use crate::os::{self, clock::Deadline, poll};
use crate::selector::{self, sealed::Source};
use crate::{Error, RecvError, SendError};

/// Bytes of the largest packet.
const PACKET: usize = 32 << 10;
/// The packet that says that its sender leaves; no piece of a message looks like it.
const FAREWELL: [u8; HEADER] = [0xff; HEADER];
/// How often a sender looks for a receiver that is not there yet.
const LOOK: Duration = Duration::from_millis(5);

/// How a socket is made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Who may connect: write bits as of `chmod`. Default 0600.
    pub mode: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config { mode: 0o600 }
    }
}

impl Config {
    /// Sets who may connect.
    pub fn mode(mut self, mode: u32) -> Config {
        self.mode = mode;
        self
    }
}

/// Two connected ends.
///
/// # Errors
/// `NoRoom` when the process has no descriptors left (2 are needed).
pub fn pair() -> Result<(Sender, Receiver), Error> {
    let (one, other) = os::socket::pair().map_err(|e| Error::os("socketpair", "socket", e))?;
    Ok((
        Sender::new(None, Some(one)),
        Receiver::new(None, vec![other]),
    ))
}

fn capabilities(named: bool) -> Capabilities {
    Capabilities {
        mechanism: "unix",
        max_message: MAX_MESSAGE,
        unrelated: Some("by path, or a passed descriptor"),
        boundaries: Boundaries::Framed,
        priorities: 1,
        many_senders: named,
        many_receivers: false,
        keeps_messages: false,
        notices: Notice::AtOnce,
    }
}

fn failed(op: &'static str, path: &Path, error: std::io::Error) -> Error {
    let name = path.display().to_string();
    if error.raw_os_error() == Some(os::ENAMETOOLONG) {
        return Error::Config {
            what: "socket path",
            value: name,
            why: "it is empty, longer than 107 bytes, or holds a NUL byte".into(),
            remedy: "use a shorter path".into(),
        };
    }
    Error::os(op, name, error)
}

/// Says goodbye; false when nobody is there to hear it. There may be no room for it: then the socket
/// gets more.
fn farewell(fd: BorrowedFd<'_>) -> bool {
    let mut said = os::socket::send(fd, &FAREWELL, &[]);
    if matches!(said, Ok(false)) {
        os::socket::make_room(fd);
        said = os::socket::send(fd, &FAREWELL, &[]);
    }
    said.is_ok()
}

/// The sending end of a socket.
#[derive(Debug)]
pub struct Sender {
    path: Option<PathBuf>,
    link: Link,
    outgoing: Outgoing,
    user: Mark,
}

#[derive(Debug)]
enum Link {
    /// No receiver has been there yet.
    Never,
    Up(OwnedFd),
    /// The receiver is gone: it left (true), or it died.
    Lost(bool),
    Closed,
}

impl Sender {
    fn new(path: Option<PathBuf>, fd: Option<OwnedFd>) -> Sender {
        Sender {
            path,
            link: fd.map_or(Link::Never, Link::Up),
            outgoing: Outgoing::new(PACKET),
            user: Mark::here(),
        }
    }

    /// Takes over one end of a connected pair of sockets.
    pub fn from_fd(fd: OwnedFd) -> Sender {
        Sender::new(None, Some(fd))
    }

    /// Connects to the receiver at `path`; if none is there yet, the first send waits for it.
    ///
    /// # Errors
    /// `PermissionDenied`; `NotOurs` when another kind of file is there; `Config` when the path is
    /// too long.
    pub fn open(path: impl Into<PathBuf>) -> Result<Sender, Error> {
        let mut sender = Sender::new(Some(path.into()), None);
        sender.connect()?;
        Ok(sender)
    }

    /// Tries to connect, if there is no connection.
    fn connect(&mut self) -> Result<(), Error> {
        let (Link::Never | Link::Lost(_), Some(path)) = (&self.link, &self.path) else {
            return Ok(());
        };
        match os::socket::connect(path) {
            Ok(fd) => self.link = Link::Up(fd),
            Err(error) => match error.raw_os_error() {
                Some(os::ENOENT | os::EAGAIN) => {}
                // What a dead receiver left, or one that is just being replaced.
                Some(os::ECONNREFUSED) if is_socket(path) || !path.exists() => {}
                Some(os::ECONNREFUSED | os::EPROTOTYPE) => {
                    return Err(Error::NotOurs {
                        what: "socket of messages",
                        name: path.display().to_string(),
                        why: "it is another kind of file or socket".into(),
                    });
                }
                _ => return Err(failed("connect", path, error)),
            },
        }
        Ok(())
    }

    /// Waits until there is a connection.
    fn join(&mut self, patience: Patience, deadline: Deadline) -> Result<(), SendError> {
        loop {
            self.connect().map_err(|error| SendError::Os {
                op: "connect",
                source: std::io::Error::other(error.to_string()),
            })?;
            match self.link {
                Link::Up(_) => return Ok(()),
                Link::Closed | Link::Lost(true) => return Err(SendError::Closed),
                Link::Lost(false) => return Err(SendError::PeerDied),
                Link::Never if patience == Patience::Now || deadline.passed() => {
                    return Err(patience.full());
                }
                Link::Never => std::thread::sleep(deadline.left().unwrap_or(LOOK).min(LOOK)),
            }
        }
    }
}

/// Removes what a dead receiver left at `path`, unless it has a successor.
pub(crate) fn bury(path: &Path) {
    let Ok(directory) = std::fs::File::open(directory_of(path)) else {
        return;
    };
    let _guard = os::inode::guard(directory.as_fd());
    if matches!(os::socket::connect(path), Err(e) if e.raw_os_error() == Some(os::ECONNREFUSED))
        && is_socket(path)
    {
        let _ = std::fs::remove_file(path);
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

impl super::Sender for Sender {
    fn send_with(&mut self, message: &[u8], patience: Patience) -> Result<(), SendError> {
        if message.len() > MAX_MESSAGE {
            return Err(SendError::MessageTooLarge {
                len: message.len(),
                max: MAX_MESSAGE,
            });
        }
        if !self.user.is_here() {
            self.user = Mark::here();
            self.outgoing = Outgoing::new(PACKET);
        }
        let deadline = patience.deadline();
        self.join(patience, deadline)?;
        let Link::Up(fd) = &self.link else {
            return Err(SendError::Closed);
        };
        let fd = fd.as_fd();
        let result = self.outgoing.send(
            message,
            |header, payload| {
                os::socket::send(fd, header, payload).map_err(|source| {
                    match source.raw_os_error() {
                        Some(os::EPIPE | os::ECONNRESET) => {
                            let mut last = [0; HEADER];
                            match os::socket::receive(fd, &mut last) {
                                Ok(Some(HEADER)) if last == FAREWELL => SendError::Closed,
                                _ => SendError::PeerDied,
                            }
                        }
                        _ => SendError::Os { op: "send", source },
                    }
                })
            },
            || {
                if patience == Patience::Now {
                    return Err(SendError::Full);
                }
                match poll::one(fd, poll::WRITABLE, deadline) {
                    Ok(0) => Err(patience.full()),
                    Ok(_) => Ok(()),
                    Err(source) => Err(SendError::Os { op: "poll", source }),
                }
            },
        );
        if let Err(gone @ (SendError::Closed | SendError::PeerDied)) = &result {
            self.link = Link::Lost(matches!(gone, SendError::Closed));
            self.outgoing.forget();
        }
        result
    }

    fn close(&mut self) {
        match std::mem::replace(&mut self.link, Link::Closed) {
            Link::Up(fd) if self.user.is_here() => {
                self.outgoing.abandon(|header, payload| {
                    let _ = os::socket::send(fd.as_fd(), header, payload);
                });
                if let (false, Some(path)) = (farewell(fd.as_fd()), &self.path) {
                    bury(path);
                }
            }
            Link::Never | Link::Lost(false) => {
                if let Some(path) = &self.path {
                    bury(path);
                }
            }
            _ => {}
        }
    }

    fn capabilities(&self) -> Capabilities {
        capabilities(self.path.is_some())
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
    /// If the sender is not connected.
    fn from(mut sender: Sender) -> OwnedFd {
        match std::mem::replace(&mut sender.link, Link::Closed) {
            Link::Up(fd) => fd,
            _ => panic!("a sender that is not connected has no descriptor"),
        }
    }
}

impl From<Sender> for Stdio {
    fn from(sender: Sender) -> Stdio {
        OwnedFd::from(sender).into()
    }
}

/// The receiving end of a socket.
#[derive(Debug)]
pub struct Receiver {
    listener: Option<(OwnedFd, PathBuf)>,
    connections: Vec<Connection>,
    /// Whom to ask first: everybody in turn.
    turn: usize,
    /// What became of the last sender, once all are gone: it left (true), or it died.
    gone: Option<bool>,
    packet: Box<[u8]>,
    closed: bool,
    user: Mark,
}

#[derive(Debug)]
struct Connection {
    fd: OwnedFd,
    incoming: Incoming,
}

impl Receiver {
    fn new(listener: Option<(OwnedFd, PathBuf)>, fds: Vec<OwnedFd>) -> Receiver {
        let connections = fds.into_iter().map(Connection::new).collect();
        Receiver {
            listener,
            connections,
            turn: 0,
            gone: None,
            packet: vec![0; PACKET].into(),
            closed: false,
            user: Mark::here(),
        }
    }

    /// Takes over one end of a connected pair of sockets.
    pub fn from_fd(fd: OwnedFd) -> Receiver {
        Receiver::new(None, vec![fd])
    }

    /// Listens at `path`.
    ///
    /// # Errors
    /// `RoleTaken` while a receiver listens there; `NotOurs` when another kind of file is there;
    /// `PermissionDenied`; `Config` when the path is too long.
    pub fn open(path: impl Into<PathBuf>, config: Config) -> Result<Receiver, Error> {
        let path = path.into();
        let name = || path.display().to_string();
        let parent = directory_of(&path);
        let directory = std::fs::File::open(parent).map_err(|e| failed("open", parent, e))?;
        // Two that find the socket of a dead one must not both replace it.
        let _guard = os::inode::guard(directory.as_fd());
        let mut listening = os::socket::listen(&path, config.mode);
        if matches!(&listening, Err(e) if e.raw_os_error() == Some(os::EADDRINUSE)) {
            if !is_socket(&path) {
                return Err(Error::NotOurs {
                    what: "socket",
                    name: name(),
                    why: "it is another kind of file".into(),
                });
            }
            match os::socket::connect(&path) {
                Err(error) if error.raw_os_error() == Some(os::ECONNREFUSED) => {
                    std::fs::remove_file(&path).map_err(|e| failed("unlink", &path, e))?;
                    listening = os::socket::listen(&path, config.mode);
                }
                Err(error) if error.raw_os_error() == Some(os::EACCES) => {
                    return Err(failed("connect", &path, error));
                }
                _ => {
                    return Err(Error::RoleTaken {
                        name: name(),
                        role: "receiver",
                        pid: 0,
                    });
                }
            }
        }
        let listener = listening.map_err(|error| failed("bind", &path, error))?;
        Ok(Receiver::new(Some((listener, path)), Vec::new()))
    }

    /// Takes all connections that wait; true if there was one.
    fn accept(&mut self) -> Result<bool, RecvError> {
        let Some((listener, _)) = &self.listener else {
            return Ok(false);
        };
        let mut any = false;
        loop {
            let accepted =
                os::socket::accept(listener.as_fd()).map_err(|source| RecvError::Os {
                    op: "accept",
                    source,
                })?;
            let Some(fd) = accepted else { return Ok(any) };
            self.connections.push(Connection::new(fd));
            self.gone = None;
            any = true;
        }
    }

    /// Takes the next message that is there, from whomever.
    fn take(&mut self, into: &mut Vec<u8>) -> Result<bool, RecvError> {
        let mut index = self.turn;
        let mut idle = 0;
        while idle < self.connections.len() {
            index %= self.connections.len();
            let connection = &mut self.connections[index];
            match connection.take(into, &mut self.packet)? {
                Took::Message => {
                    self.turn = index + 1;
                    return Ok(true);
                }
                Took::Piece => idle = 0,
                Took::Nothing => {
                    idle += 1;
                    index += 1;
                }
                Took::End(left) => {
                    self.connections.swap_remove(index);
                    self.gone = Some(left || self.gone == Some(true));
                    idle = 0;
                }
            }
        }
        Ok(false)
    }
}

enum Took {
    Message,
    Piece,
    Nothing,
    End(bool),
}

impl Connection {
    fn new(fd: OwnedFd) -> Connection {
        Connection {
            fd,
            incoming: Incoming::default(),
        }
    }

    fn take(&mut self, into: &mut Vec<u8>, packet: &mut [u8]) -> Result<Took, RecvError> {
        let received = match os::socket::receive(self.fd.as_fd(), packet) {
            Ok(Some(0)) => return Ok(Took::End(false)),
            Ok(Some(received)) => &packet[..received],
            Ok(None) => return Ok(Took::Nothing),
            Err(error) if error.raw_os_error() == Some(os::ECONNRESET) => {
                return Ok(Took::End(false));
            }
            Err(source) => return Err(RecvError::Os { op: "recv", source }),
        };
        if received == FAREWELL {
            return Ok(Took::End(true));
        }
        let corrupt = RecvError::Corrupt {
            what: "a packet (is another program sending here?)",
            offset: 0,
        };
        let Some((head, payload)) = received.split_first_chunk::<HEADER>() else {
            return Err(corrupt);
        };
        if self.incoming.length(*head, PACKET)? != payload.len() {
            return Err(corrupt);
        }
        Ok(match self.incoming.accept(*head, payload, into)? {
            true => Took::Message,
            false => Took::Piece,
        })
    }
}

impl super::Receiver for Receiver {
    fn recv_with(&mut self, into: &mut Vec<u8>, patience: Patience) -> Result<(), RecvError> {
        if self.closed {
            return Err(RecvError::Closed);
        }
        if !self.user.is_here() {
            self.user = Mark::here();
        }
        let deadline = patience.deadline();
        loop {
            if self.take(into)? {
                return Ok(());
            }
            if self.accept()? {
                continue;
            }
            match self.gone {
                Some(true) if self.connections.is_empty() => return Err(RecvError::Closed),
                Some(false) if self.connections.is_empty() => return Err(RecvError::PeerDied),
                _ => {}
            }
            if patience == Patience::Now || deadline.passed() {
                return Err(patience.empty());
            }
            let listener = self.listener.iter().map(|(fd, _)| fd.as_raw_fd());
            let all = self.connections.iter().map(|c| c.fd.as_raw_fd());
            let all: Vec<_> = listener.chain(all).collect();
            poll::which(&all, deadline).map_err(|source| RecvError::Os { op: "poll", source })?;
        }
    }

    fn close(&mut self) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        if !self.user.is_here() {
            self.connections.clear();
            self.listener = None;
            return;
        }
        if let Some((listener, path)) = &self.listener {
            // While it listens nobody else takes the path. Then nobody finds it, and then nobody gets in;
            // those who did and still wait are told as well.
            let _ = std::fs::remove_file(path);
            os::socket::stop_listening(listener.as_fd());
            let _ = self.accept();
        }
        for connection in self.connections.drain(..) {
            farewell(connection.fd.as_fd());
        }
        self.listener = None;
    }

    fn awaited(&mut self) -> Source<'_> {
        if self.closed || (self.gone.is_some() && self.connections.is_empty()) {
            return Source::Ready;
        }
        let listener = self.listener.iter().map(|(fd, _)| fd.as_raw_fd());
        let all = self.connections.iter().map(|c| c.fd.as_raw_fd());
        selector::descriptors(listener.chain(all))
    }

    fn capabilities(&self) -> Capabilities {
        capabilities(self.listener.is_some())
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
    /// If it is not one end of a pair.
    fn from(mut receiver: Receiver) -> OwnedFd {
        match receiver.connections.pop() {
            Some(connection) if receiver.listener.is_none() => connection.fd,
            _ => panic!("only one end of a pair is a single descriptor"),
        }
    }
}

impl From<Receiver> for Stdio {
    fn from(receiver: Receiver) -> Stdio {
        OwnedFd::from(receiver).into()
    }
}
