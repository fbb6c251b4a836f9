//! FIFOs: pipes with a path, between any two processes that may open it.
//!
//! Either end may come first and makes the FIFO if it is not there. One receiver at a time; any
//! number of senders. The last one to close its end removes the path. What was sent and not yet
//! received is gone when the receiver goes: a FIFO keeps nothing while nobody has it open.
//!
//! The trap of opening a FIFO for both reading and writing (`O_RDWR`, which never waits for the
//! other end): the process is then its own peer, so that nobody is ever told that the real one is
//! gone, neither by end of file nor by `EPIPE`. Nothing here does so. A [`Duplex`](super::Duplex)
//! is two FIFOs.
//!
//! ```
//! use ringway::channel::{Receiver, Sender, fifo};
//!
//! let path = format!("/tmp/doc-fifo-{}", std::process::id());
//! let mut rx = fifo::Receiver::open(&path, fifo::Config::default())?; // in one process
//! let mut tx = fifo::Sender::open(&path, fifo::Config::default())?; // in another
//! tx.send(b"hello")?;
//! let mut message = Vec::new();
//! rx.recv(&mut message)?;
//! assert_eq!(message, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::attendance::{self, Side};
use super::{Capabilities, Patience, pipe};
use crate::os::{self, inode};
use crate::selector::sealed::Source;
use crate::{Error, RecvError, SendError};

/// How a FIFO is made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Who may open it, if this end makes it: read and write bits as of `chmod`. Default 0600.
    pub mode: u32,
}

impl Default for Config {
    fn default() -> Config {
        Config { mode: 0o600 }
    }
}

impl Config {
    /// Sets who may open it.
    pub fn mode(mut self, mode: u32) -> Config {
        self.mode = mode;
        self
    }
}

const REACH: &str = "by path";

fn not_ours(path: &Path, why: &str) -> Error {
    Error::NotOurs {
        what: "FIFO",
        name: path.display().to_string(),
        why: why.into(),
    }
}

/// Runs `f` while no receiver comes to a FIFO in the directory of `path`, and nobody takes one away that
/// nobody has open. For the latter the FIFO itself cannot be locked: who opens it is somebody's peer.
/// `f` is told whether it can rely on that (the directory may be one that this user cannot read).
fn in_directory<T>(path: &Path, f: impl FnOnce(bool) -> T) -> T {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let directory = std::fs::File::open(directory).ok();
    let guard = directory.as_ref().and_then(|it| inode::guard(it.as_fd()));
    f(guard.is_some())
}

/// Removes the path, if it is still that of this FIFO. The caller has the inode's guard.
fn unlink(fd: BorrowedFd<'_>, path: &Path) {
    if inode::is_at(fd, path) {
        let _ = std::fs::remove_file(path);
    }
}

/// Opens one end of the FIFO at `path`; with a config, makes it first where it is missing.
/// `Ok(None)`: the writing end cannot be opened because there is no reader.
fn open(path: &Path, side: Side, config: Option<&Config>) -> Result<Option<OwnedFd>, Error> {
    let mut made = None;
    for attempt in 0..attendance::GOING_MOST {
        let tried = match side {
            Side::Sending => try_open(path, side, config, &mut made)?,
            Side::Receiving => in_directory(path, |_| try_open(path, side, config, &mut made))?,
        };
        match tried {
            Tried::Opened(fd) => return Ok(Some(fd)),
            Tried::NoReader => return Ok(None),
            Tried::Made => {}
            // The last one to leave is about to remove the path; or it was killed just before.
            Tried::Going(fd) => {
                if attempt > attendance::GOING_PATIENCE {
                    attendance::finish_removal(fd.as_fd(), || unlink(fd.as_fd(), path));
                }
                drop(fd);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    let source = std::io::ErrorKind::TimedOut.into();
    Err(Error::os("open", path.display().to_string(), source))
}

enum Tried {
    Opened(OwnedFd),
    NoReader,
    /// There was none, and now there is.
    Made,
    /// It is not one to stay with.
    Going(OwnedFd),
}

fn try_open(
    path: &Path,
    side: Side,
    config: Option<&Config>,
    made: &mut Option<u32>,
) -> Result<Tried, Error> {
    let writable = side == Side::Sending;
    let name = || path.display().to_string();
    let fd = match os::pipe::open(path, writable, false) {
        Ok(fd) => fd,
        Err(error) => match (error.raw_os_error(), config) {
            (Some(os::ENXIO), _) => {
                // Nobody is there to open it with, so that what would be noted on coming is noted now.
                if let Some(mode) = made.take() {
                    let permitting = |now| attendance::permitting(now, mode);
                    match os::pipe::change_mode(path, permitting) {
                        Err(error) if error.raw_os_error() != Some(os::ENOENT) => {
                            return Err(Error::os("chmod", name(), error));
                        }
                        // Another sender came, found nobody, and took it away: it is made anew.
                        _ => {}
                    }
                }
                return Ok(Tried::NoReader);
            }
            (Some(os::ELOOP), _) => return Err(not_ours(path, "it is a symbolic link")),
            (Some(os::ENOENT), None) => {
                return Err(Error::NotFound {
                    what: "FIFO",
                    name: name(),
                });
            }
            (Some(os::ENOENT), Some(config)) => {
                match os::pipe::mkfifo(path) {
                    Ok(()) => *made = Some(config.mode),
                    Err(error) if error.raw_os_error() == Some(os::EEXIST) => {}
                    Err(error) => return Err(Error::os("mkfifo", name(), error)),
                }
                return Ok(Tried::Made);
            }
            _ => return Err(Error::os("open", name(), error)),
        },
    };
    if !matches!(os::pipe::modes(fd.as_fd()), Ok(Some(_))) {
        return Err(not_ours(path, "it is another kind of file"));
    }
    let failed = |error| Error::os("fcntl", name(), error);
    let seated = {
        // Of two receivers that come at once, the second sees that the first sits.
        let _guard = (side == Side::Receiving).then(|| inode::guard(fd.as_fd()));
        if side == Side::Receiving && attendance::attended(fd.as_fd(), side).map_err(failed)? {
            return Err(Error::RoleTaken {
                name: name(),
                role: "receiver",
                pid: 0,
            });
        }
        attendance::sit(fd.as_fd(), side, writable).map_err(failed)?
    };
    if !seated {
        return Err(Error::TooManyParticipants {
            name: name(),
            max: 1024,
        });
    }
    if attendance::come(fd.as_fd(), side, *made, || true).map_err(failed)?
        && inode::is_at(fd.as_fd(), path)
    {
        return Ok(Tried::Opened(fd));
    }
    Ok(Tried::Going(fd))
}

fn leave(path: &Path, fd: BorrowedFd<'_>, side: Side) {
    attendance::leave_and_remove(fd, side, || true, || unlink(fd, path));
}

/// The sending end of a FIFO.
///
/// It may be opened before there is a receiver; the first send then waits for one, without using
/// the processor.
#[derive(Debug)]
pub struct Sender {
    path: PathBuf,
    config: Config,
    end: End,
}

#[derive(Debug)]
enum End {
    /// No receiver has come yet. True if this sender made the FIFO.
    Alone,
    Joined(pipe::Sender),
    Closed,
}

impl Sender {
    /// Opens the sending end of the FIFO at `path`, making it if it is not there.
    ///
    /// # Errors
    /// `PermissionDenied`; `NotOurs` when another kind of file is there, a symbolic link included.
    pub fn open(path: impl Into<PathBuf>, config: Config) -> Result<Sender, Error> {
        let path = path.into();
        let end = match open(&path, Side::Sending, Some(&config))? {
            Some(fd) => End::Joined(pipe::Sender::new(fd, "fifo")),
            None => End::Alone,
        };
        Ok(Sender { path, config, end })
    }

    /// As [`open`](Sender::open), but the FIFO must be there.
    ///
    /// # Errors
    /// `NotFound` besides.
    pub fn attach(path: impl Into<PathBuf>) -> Result<Sender, Error> {
        let path = path.into();
        let end = match open(&path, Side::Sending, None)? {
            Some(fd) => End::Joined(pipe::Sender::new(fd, "fifo")),
            None => End::Alone,
        };
        Ok(Sender {
            path,
            config: Config::default(),
            end,
        })
    }

    /// Waits for a receiver.
    fn join(&mut self, patience: Patience) -> Result<(), SendError> {
        let deadline = patience.deadline();
        let failed = |op, error: Error| SendError::Os {
            op,
            source: std::io::Error::other(error.to_string()),
        };
        let os_failed = |op| move |source| SendError::Os { op, source };
        loop {
            // Watch first and look then: whoever comes between the two is noticed.
            let watch = match patience {
                Patience::Now => None,
                _ => match os::pipe::OpenWatch::new(&self.path) {
                    Ok(watch) => Some(watch),
                    Err(error) if error.raw_os_error() == Some(os::ENOENT) => None,
                    Err(error) => return Err(os_failed("inotify")(error)),
                },
            };
            let opened = open(&self.path, Side::Sending, Some(&self.config));
            if let Some(fd) = opened.map_err(|error| failed("open", error))? {
                self.end = End::Joined(pipe::Sender::new(fd, "fifo"));
                return Ok(());
            }
            if patience == Patience::Now || deadline.passed() {
                return Err(patience.full());
            }
            if let Some(watch) = watch {
                watch.wait(deadline).map_err(os_failed("poll"))?;
            }
        }
    }
}

impl super::Sender for Sender {
    fn send_with(&mut self, message: &[u8], patience: Patience) -> Result<(), SendError> {
        let started = std::time::Instant::now();
        let mut patience = patience;
        if let End::Alone = self.end {
            let max = super::frame::MAX_MESSAGE;
            if message.len() > max {
                return Err(SendError::MessageTooLarge {
                    len: message.len(),
                    max,
                });
            }
            self.join(patience)?;
            if let Patience::Within(timeout) = patience {
                patience = Patience::Within(timeout.saturating_sub(started.elapsed()));
            }
        }
        match &mut self.end {
            End::Joined(pipe) => pipe.send_with(message, patience),
            _ => Err(SendError::Closed),
        }
    }

    fn close(&mut self) {
        match std::mem::replace(&mut self.end, End::Closed) {
            End::Joined(mut pipe) => {
                pipe.close_with(|fd| leave(&self.path, fd, Side::Sending));
            }
            End::Alone => {
                // Nobody to tell. If a receiver came meanwhile, it learns that this sender has
                // left; otherwise the path goes, and who else waits at it makes it anew.
                let path = &self.path;
                let came = in_directory(path, |alone| {
                    let tried = try_open(path, Side::Sending, None, &mut None);
                    if matches!(tried, Ok(Tried::NoReader)) && alone && os::pipe::is_fifo(path) {
                        let _ = std::fs::remove_file(path);
                    }
                    tried
                });
                if let Ok(Tried::Opened(fd)) = came {
                    leave(path, fd.as_fd(), Side::Sending);
                }
            }
            End::Closed => {}
        }
    }

    fn capabilities(&self) -> Capabilities {
        pipe::capabilities("fifo", REACH)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        super::Sender::close(self);
    }
}

/// The receiving end of a FIFO.
#[derive(Debug)]
pub struct Receiver {
    path: PathBuf,
    pipe: pipe::Receiver,
}

impl Receiver {
    /// Opens the receiving end of the FIFO at `path`, making it if it is not there.
    ///
    /// # Errors
    /// `RoleTaken` while it has a receiver; `PermissionDenied`; `NotOurs` when another kind of file
    /// is there, a symbolic link included.
    pub fn open(path: impl Into<PathBuf>, config: Config) -> Result<Receiver, Error> {
        Receiver::new(path.into(), Some(&config))
    }

    /// As [`open`](Receiver::open), but the FIFO must be there.
    ///
    /// # Errors
    /// `NotFound` besides.
    pub fn attach(path: impl Into<PathBuf>) -> Result<Receiver, Error> {
        Receiver::new(path.into(), None)
    }

    fn new(path: PathBuf, config: Option<&Config>) -> Result<Receiver, Error> {
        let fd = open(&path, Side::Receiving, config)?
            .ok_or_else(|| not_ours(&path, "its reading end cannot be opened"))?;
        let pipe = pipe::Receiver::new(fd, "fifo", false);
        Ok(Receiver { path, pipe })
    }

    /// The descriptor: readable when something has come; see [`pipe::Receiver::as_fd`]. `None` after
    /// closing.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_fd()
    }
}

impl super::Receiver for Receiver {
    fn recv_with(&mut self, into: &mut Vec<u8>, patience: Patience) -> Result<(), RecvError> {
        self.pipe.recv_with(into, patience)
    }

    fn close(&mut self) {
        self.pipe
            .close_with(|fd| leave(&self.path, fd, Side::Receiving));
    }

    fn awaited(&mut self) -> Source<'_> {
        self.pipe.awaited()
    }

    fn capabilities(&self) -> Capabilities {
        pipe::capabilities("fifo", REACH)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        super::Receiver::close(self);
    }
}
