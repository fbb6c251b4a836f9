//! Where commands and answers arrive: a FIFO or a message queue, read a line at a time.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use crate::os::clock::Deadline;
use crate::os::inode::{self, Token};
use crate::os::{self, poll};
use crate::{Error, channel::Patience};

/// The longest line, its newlines included: what a FIFO takes whole, so that the lines of several
/// writers never mix.
pub(super) const LINE: usize = 4096;

/// What carries commands and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// A FIFO, `/tmp/ringway.NAME.ctl`.
    Fifo,
    /// A POSIX message queue, `/ringway.NAME.ctl`.
    Queue,
}

/// The path or the name of the post called `base`.
pub(super) fn address(over: Over, base: &str) -> String {
    match over {
        Over::Fifo => crate::os::directory()
            .join(format!("ringway.{base}"))
            .display()
            .to_string(),
        Over::Queue => format!("/ringway.{base}"),
    }
}

/// A place where lines arrive, owned by one process while it lives.
#[derive(Debug)]
pub(super) struct Inbox {
    over: Over,
    address: String,
    token: Token,
    /// Of a FIFO: its writing end, held so that the last writer's leaving is no end of file, which
    /// would make the descriptor readable for ever.
    _held: Option<Token>,
    /// What was read of the FIFO and is not a whole line yet.
    held: Vec<u8>,
    /// The line under way is too long: it is dropped up to its end.
    skipping: bool,
}

/// How an inbox is refused.
pub(super) enum Refusal {
    /// Another process has it.
    Taken,
    Failed(Error),
}

impl Inbox {
    pub(super) fn create(over: Over, base: &str) -> Result<Inbox, Refusal> {
        let address = address(over, base);
        let made = match over {
            Over::Fifo => fifo(&address)?,
            Over::Queue => (queue(&address)?, None),
        };
        let token = |fd| {
            Token::new(fd).map_err(|error| Refusal::Failed(Error::os("fcntl", &address, error)))
        };
        Ok(Inbox {
            over,
            token: token(made.0)?,
            _held: made.1.map(token).transpose()?,
            address: address.clone(),
            held: Vec::new(),
            skipping: false,
        })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn over(&self) -> Over {
        self.over
    }

    /// The next line that is there, and whether anything was left out before it.
    pub(super) fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self.over {
            Over::Queue => {
                let mut line = Vec::new();
                Ok(os::mqueue::receive(self.token.as_fd(), &mut line, LINE)?.map(|_| line))
            }
            Over::Fifo => loop {
                if let Some(end) = self.held.iter().position(|&byte| byte == b'\n') {
                    let mut line: Vec<u8> = self.held.drain(..=end).collect();
                    line.pop();
                    let skipped = std::mem::take(&mut self.skipping);
                    if line.is_empty() || skipped {
                        continue;
                    }
                    return Ok(Some(line));
                }
                if self.held.len() > LINE {
                    self.held.clear();
                    self.skipping = true;
                }
                let start = self.held.len();
                self.held.resize(start + LINE, 0);
                let read = os::pipe::read(self.token.as_fd(), &mut self.held[start..]);
                let read = match read {
                    Ok(read) => read.unwrap_or(0),
                    Err(error) => {
                        self.held.truncate(start);
                        return Err(error);
                    }
                };
                self.held.truncate(start + read);
                if read == 0 {
                    return Ok(None);
                }
            },
        }
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.token.as_fd()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        if self.token.is_here() {
            remove(self.over, &self.address);
        }
    }
}

/// Removes a post's name.
pub(super) fn remove(over: Over, address: &str) {
    // The only failure that matters is that it is gone already.
    let _ = match over {
        Over::Fifo => std::fs::remove_file(address),
        Over::Queue => os::mqueue::unlink(address),
    };
}

/// Removes the name of a post that nobody owns: its owner holds a lock on the whole of it, and whoever is just making
/// one takes that lock before it believes the name. Whether the name is gone; or what failed.
pub(crate) fn remove_if_abandoned(
    over: Over,
    address: &str,
) -> Result<bool, (&'static str, io::Error)> {
    let failed = |op| move |error| (op, error);
    let is_gone = |error: &io::Error| error.raw_os_error() == Some(os::ENOENT);
    match over {
        Over::Queue => {
            let queue = match os::mqueue::open(address) {
                Err(error) if is_gone(&error) => return Ok(true),
                queue => queue.map_err(failed("mq_open"))?,
            };
            if !inode::lock(queue.as_fd(), 0, true).map_err(failed("fcntl"))? {
                return Ok(false);
            }
            if os::mqueue::is_at(queue.as_fd(), address) {
                os::mqueue::unlink(address).map_err(failed("mq_unlink"))?;
            }
        }
        Over::Fifo => {
            let path = std::path::Path::new(address);
            let fd = match os::pipe::open(path, false, false) {
                Err(error) if is_gone(&error) => return Ok(true),
                fd => fd.map_err(failed("open"))?,
            };
            if !inode::claim(fd.as_fd()).map_err(failed("flock"))? {
                return Ok(false);
            }
            if inode::is_at(fd.as_fd(), path) {
                std::fs::remove_file(path).map_err(failed("unlink"))?;
            }
        }
    }
    Ok(true)
}

fn fifo(address: &str) -> Result<(OwnedFd, Option<OwnedFd>), Refusal> {
    let path = PathBuf::from(address);
    let failed = |op| move |error| Refusal::Failed(Error::os(op, address, error));
    loop {
        match os::pipe::mkfifo(&path) {
            Err(error) if error.raw_os_error() != Some(os::EEXIST) => {
                return Err(failed("mkfifo")(error));
            }
            _ => {}
        }
        let reading = match os::pipe::open(&path, false, false) {
            Ok(fd) => fd,
            Err(error) if error.raw_os_error() == Some(os::ENOENT) => continue,
            Err(error) => return Err(failed("open")(error)),
        };
        check_fifo(reading.as_fd(), address).map_err(Refusal::Failed)?;
        if !inode::claim(reading.as_fd()).map_err(failed("flock"))? {
            return Err(Refusal::Taken);
        }
        if inode::is_at(reading.as_fd(), &path) {
            let writing = os::pipe::open(&path, true, false).map_err(failed("open"))?;
            return Ok((reading, Some(writing)));
        }
        // Its former owner removed it under our hands: once more.
    }
}

/// Refuses what is not a FIFO of this user's.
fn check_fifo(fd: BorrowedFd<'_>, address: &str) -> Result<(), Error> {
    let not_ours = |why: &str| Error::NotOurs {
        what: "control FIFO",
        name: address.into(),
        why: why.into(),
    };
    if !matches!(os::pipe::modes(fd), Ok(Some(_))) {
        return Err(not_ours("it is another kind of file"));
    }
    match inode::identity(fd) {
        Ok((_, _, owner)) if owner == inode::effective_user() => Ok(()),
        _ => Err(not_ours("it belongs to another user")),
    }
}

fn queue(address: &str) -> Result<OwnedFd, Refusal> {
    let failed = |op| move |error| Refusal::Failed(Error::os(op, address, error));
    let names = |fd: &OwnedFd| os::mqueue::is_at(fd.as_fd(), address);
    loop {
        match os::mqueue::create(address, 10, LINE) {
            Ok(fd) => {
                // Before it was locked it looked like a dead one's, and somebody may have removed it.
                if inode::lock(fd.as_fd(), 0, true).map_err(failed("fcntl"))? && names(&fd) {
                    return Ok(fd);
                }
            }
            Err(error) if error.raw_os_error() == Some(os::EEXIST) => {}
            Err(error) => return Err(failed("mq_open")(error)),
        }
        // One is there. If its owner is dead, what waits in it was meant for the dead one.
        match os::mqueue::open(address) {
            Ok(old) if !inode::lock(old.as_fd(), 0, true).map_err(failed("fcntl"))? => {
                return Err(Refusal::Taken);
            }
            // Looked at again with the lock in hand: somebody else who found the dead one may have put
            // a queue of its own in its place by now, which is not ours to remove.
            Ok(old) if names(&old) => remove(Over::Queue, address),
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(os::ENOENT) => {}
            Err(error) => return Err(failed("mq_open")(error)),
        }
    }
}

/// The way to somebody's inbox.
#[derive(Debug)]
pub(super) struct Outbox {
    over: Over,
    fd: OwnedFd,
}

impl Outbox {
    /// Opens the way to the inbox `base`: `Ok(None)` when nobody owns it.
    pub(super) fn open(over: Over, base: &str) -> Result<Option<Outbox>, Error> {
        let address = address(over, base);
        let opened = match over {
            Over::Fifo => os::pipe::open(address.as_ref(), true, false),
            Over::Queue => os::mqueue::open(&address),
        };
        let fd = match opened {
            Ok(fd) => fd,
            Err(e) if matches!(e.raw_os_error(), Some(os::ENOENT | os::ENXIO)) => return Ok(None),
            Err(e) => return Err(Error::os("open", address, e)),
        };
        if over == Over::Fifo {
            check_fifo(fd.as_fd(), &address)?;
        }
        let outbox = Outbox { over, fd };
        Ok(outbox.is_owned().then_some(outbox))
    }

    /// Whether somebody still reads.
    pub(super) fn is_owned(&self) -> bool {
        match self.over {
            Over::Fifo => {
                let now = Deadline::after(Duration::ZERO);
                poll::one(self.fd.as_fd(), 0, now).is_ok_and(|ready| ready & poll::ERROR == 0)
            }
            Over::Queue => inode::is_locked(self.fd.as_fd(), 0, 1).unwrap_or(false),
        }
    }

    /// Puts a line of at most [`LINE`] bytes in; false when there is no room.
    pub(super) fn put(&self, line: &[u8], priority: u32) -> io::Result<bool> {
        match self.over {
            Over::Fifo => os::pipe::write(self.fd.as_fd(), line, &[]),
            Over::Queue => os::mqueue::send(self.fd.as_fd(), line, priority),
        }
    }

    /// Puts a line in as soon as there is room, waiting for it for a moment at most. It gets its turn also
    /// among others who write all the time.
    pub(super) fn put_soon(&self, line: &[u8], priority: u32) -> io::Result<bool> {
        match self.over {
            Over::Fifo => {
                if self.put(line, priority)? {
                    return Ok(true);
                }
                // A pipe is full for `poll` while the last of its pages has room for a line.
                let soon = Deadline::NEVER.at_most(1_000_000);
                poll::one(self.fd.as_fd(), poll::WRITABLE, soon)?;
                Ok(false)
            }
            Over::Queue => os::mqueue::send_within(self.fd.as_fd(), line, priority, 50_000_000),
        }
    }
}

/// Waits until a line may be there, looking now and then whether `whence` is still owned.
pub(super) fn wait_for_line(
    inbox: &Inbox,
    whence: &Outbox,
    deadline: Deadline,
) -> io::Result<bool> {
    let slice = deadline.at_most(50_000_000);
    poll::any(
        [
            (inbox.as_fd(), poll::READABLE),
            // A FIFO reports its reader's death at once, a queue does not.
            (whence.fd.as_fd(), 0),
        ],
        slice,
    )?;
    Ok(!deadline.passed())
}

/// Waits for a line as long as `patience` says; false when the time is over.
pub(super) fn wait_for_any(inbox: &Inbox, patience: Patience) -> bool {
    match patience {
        Patience::Now => false,
        _ => matches!(
            poll::one(inbox.as_fd(), poll::READABLE, patience.deadline()),
            Ok(1..)
        ),
    }
}
