//! Shared memory guarded by POSIX semaphores: the classic bounded buffer, made to survive its users.
//!
//! One semaphore guards the buffer, two others are what senders and receivers sleep at. They are
//! process-shared and live in the mapping itself, or have names (`/dev/shm/sem.ringway.NAME.*`), as
//! chosen. A process that is killed while it holds the buffer does not lock the others out: they
//! notice within 20 ms, and go on with the buffer as it was before the dead one's unfinished
//! operation. A message that was being taken when its receiver died is still there.
//!
//! Messages wait in the buffer while nobody has it open; the last one to close its end removes the
//! name if the buffer is empty.
//!
//! It needs a lock and two system calls or so where a ring needs none; it is here because it is what
//! systems without futexes have, and to be compared with.
//!
//! ```
//! use ringway::channel::{Receiver, Sender, semaphore};
//!
//! let name = format!("doc-sem-{}", std::process::id());
//! let config = semaphore::Config::default().capacity(4096).named_semaphores(true);
//! let mut tx = semaphore::Sender::open(&name, config)?;
//! let mut rx = semaphore::Receiver::attach(&name)?;
//! tx.send(b"hello")?;
//! let mut message = Vec::new();
//! rx.recv(&mut message)?;
//! assert_eq!(message, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::attendance::{GOING_MOST, GOING_PATIENCE};
use super::{Boundaries, Capabilities, Notice, Patience};
use crate::os::clock::Deadline;
use crate::os::named_semaphore::Named;
use crate::os::{self, shm};
use crate::primitive::Ordering;
use crate::{Error, RecvError, SendError};

mod memory;
mod outside;

pub(crate) use outside::remove_abandoned;
#[cfg(feature = "cli")]
pub(crate) use outside::{Abandoned, look, remove_if_abandoned};

use memory::{GOING, HEADER, LEAST, Memory, SEATS};

/// How often a blocked end looks whether the other one is gone.
const LOOK: Duration = Duration::from_millis(50);
/// Bytes of a message's length.
const PREFIX: usize = 4;
/// Positions from here on are no honest ones.
const POSITION_MAX: u64 = 1 << 62;
/// Somebody has been there; the last one to go left.
const CAME: u32 = 1;
const LEFT: u32 = 2;
/// The two sides, and what each sleeps at.
const SENDING: usize = 0;
const RECEIVING: usize = 1;
const ITEMS: usize = 0;
const ROOM: usize = 1;

/// How a buffer is made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Bytes of the buffer; a message needs 4 more than its length. Default 64 KiB.
    pub capacity: usize,
    /// Who may open it: read and write bits as of `chmod`. Default 0600.
    pub mode: u32,
    /// Whether the semaphores of a named buffer have names of their own, rather than being in the
    /// mapping. Default false.
    pub named_semaphores: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            capacity: 64 << 10,
            mode: 0o600,
            named_semaphores: false,
        }
    }
}

impl Config {
    /// Sets the bytes of the buffer.
    pub fn capacity(mut self, bytes: usize) -> Config {
        self.capacity = bytes;
        self
    }

    /// Sets who may open it.
    pub fn mode(mut self, mode: u32) -> Config {
        self.mode = mode;
        self
    }

    /// Sets whether the semaphores have names.
    pub fn named_semaphores(mut self, named: bool) -> Config {
        self.named_semaphores = named;
        self
    }

    fn check(&self) -> Result<(), Error> {
        if (LEAST..=1 << 30).contains(&self.capacity) {
            return Ok(());
        }
        Err(Error::Config {
            what: "capacity",
            value: format!("{} bytes", self.capacity),
            why: "the buffer would hold nothing, or more than can be counted".into(),
            remedy: "use 16 bytes to 1 GiB".into(),
        })
    }
}

/// A new buffer without a name, for relatives: pass [`Sender::as_fd`] on, and take it over with
/// [`Sender::from_fd`] or [`Receiver::from_fd`].
///
/// # Errors
/// `NoRoom`, `Config`.
pub fn pair(config: Config) -> Result<(Sender, Receiver), Error> {
    config.check()?;
    let failed = |op| move |error| Error::os(op, "semaphore buffer", error);
    let file = shm::memfd(c"ringway-semaphore").map_err(failed("memfd_create"))?;
    fill(&file, &config, false, "semaphore buffer")?;
    shm::seal(&file).map_err(failed("fcntl"))?;
    let other = file.try_clone().map_err(failed("dup"))?;
    Ok((
        Sender::from_fd(file.into())?,
        Receiver::from_fd(other.into())?,
    ))
}

fn fill(file: &File, config: &Config, named: bool, name: &str) -> Result<(), Error> {
    let length = HEADER + config.capacity;
    shm::allocate(file, length as u64).map_err(|error| match error.raw_os_error() {
        Some(os::ENOSPC | os::EFBIG) => Error::NoRoom {
            name: name.into(),
            needed: format!("{length} bytes of shared memory"),
            why: error.to_string(),
            remedy: "use a smaller capacity, or make /dev/shm larger".into(),
        },
        _ => Error::os("fallocate", name, error),
    })?;
    Memory::write_header(file, config.capacity, named)
        .map_err(|error| Error::os("mmap", name, error))
}

/// Where a named buffer lives.
fn path_of(name: &str) -> Result<PathBuf, Error> {
    let plain = name.trim_start_matches('/');
    if plain.is_empty() || plain.len() > 200 || plain.contains(['/', '\0']) {
        return Err(Error::Config {
            what: "name",
            value: format!("{name:?}"),
            why: "it cannot be part of a file name".into(),
            remedy: "use 1 to 200 characters without a slash".into(),
        });
    }
    Ok(format!("/dev/shm/ringway.{plain}.semaphore").into())
}

/// Whether there is a buffer of that name, whoever may use it.
pub(crate) fn exists(name: &str) -> bool {
    path_of(name).is_ok_and(|path| std::fs::symlink_metadata(path).is_ok())
}

#[derive(Debug)]
struct End {
    memory: Option<Memory>,
    /// The name and where it is.
    name: Option<(String, PathBuf)>,
    side: usize,
}

impl End {
    fn from_fd(fd: OwnedFd, side: usize) -> Result<End, Error> {
        let name = "semaphore buffer";
        // A description of its own: locks belong to descriptions.
        let file = os::inode::reopen(fd.as_fd()).map_err(|error| Error::os("open", name, error))?;
        let mut end = End {
            memory: Some(map(file, name, side)?),
            name: None,
            side,
        };
        end.come(0o600)?;
        Ok(end)
    }

    /// Opens the buffer; with a config, makes it where it is missing.
    fn open(name: &str, side: usize, config: Option<&Config>) -> Result<End, Error> {
        let path = path_of(name)?;
        let name = name.trim_start_matches('/');
        if let Some(config) = config {
            config.check()?;
        }
        for attempt in 0..GOING_MOST {
            let file = match (shm::open(&path, true), config) {
                (Ok(file), _) => file,
                (Err(error), None) if error.raw_os_error() == Some(os::ENOENT) => {
                    return Err(Error::NotFound {
                        what: "semaphore buffer",
                        name: name.into(),
                    });
                }
                (Err(error), Some(config)) if error.raw_os_error() == Some(os::ENOENT) => {
                    make(&path, name, config)?;
                    continue;
                }
                (Err(error), _) => return Err(Error::os("open", name, error)),
            };
            let mut end = End {
                memory: Some(map(file, name, side)?),
                name: Some((name.into(), path.clone())),
                side,
            };
            if end.come(config.map_or(0o600, |config| config.mode))? {
                return Ok(end);
            }
            // The last one to leave is about to remove the name; or it was killed just before.
            // Only this one goes: what is there by that name now may be another, with messages in it.
            if let Some(memory) = end.memory.take()
                && attempt > GOING_PATIENCE
            {
                let _ = outside::remove_if_unattended(&memory, &path, name, true);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err(Error::Os {
            op: "attach",
            name: name.into(),
            source: std::io::ErrorKind::TimedOut.into(),
        })
    }

    /// Sets up what must be and notes that this one has come; false when the name is on its way out.
    fn come(&mut self, mode: u32) -> Result<bool, Error> {
        let Some(memory) = &mut self.memory else {
            return Ok(false);
        };
        let name = self.name.as_ref().map(|(name, _)| name.as_str());
        let failed = |op| {
            let shown = name.unwrap_or("semaphore buffer").to_owned();
            move |error| Error::os(op, shown, error)
        };
        if memory.header().state.load(Ordering::Acquire) == GOING {
            return Ok(false);
        }
        match memory.set_up(name, mode) {
            Ok(Some(())) => {}
            Ok(None) => return Ok(false),
            // Named semaphores go before the buffer's own name does.
            Err(error) if error.raw_os_error() == Some(os::ENOENT) => return Ok(false),
            Err(error) => return Err(failed("sem_open")(error)),
        }
        // Sat down already, and now the guard: either a leaver sees this one, or this one sees GOING.
        let _guard = os::inode::guard(memory.fd());
        let deadline = Deadline::after(Duration::from_secs(5));
        let Some(held) = memory.hold(deadline).map_err(failed("sem_wait"))? else {
            return Err(Error::Os {
                op: "sem_wait",
                name: name.unwrap_or("semaphore buffer").into(),
                source: std::io::ErrorKind::TimedOut.into(),
            });
        };
        let header = memory.header();
        // All below is ordered by the holding of the buffer.
        if header.state.load(Ordering::Relaxed) == GOING {
            return Ok(false);
        }
        let other = 1 - self.side;
        let empty = header.head.load(Ordering::Relaxed) == header.tail.load(Ordering::Relaxed);
        if empty && !memory.attended(SENDING) && !memory.attended(RECEIVING) {
            // A crash leaves nothing that a new pair would trip over.
            header.sides[other].store(0, Ordering::Relaxed);
        }
        header.sides[self.side].store(CAME, Ordering::Relaxed);
        drop(held);
        Ok(true)
    }

    fn close(&mut self) {
        let Some(memory) = self.memory.take() else {
            return;
        };
        if !memory.is_here() {
            return;
        }
        let _guard = os::inode::guard(memory.fd());
        let header = memory.header();
        let deadline = Deadline::after(Duration::from_secs(1));
        match memory.hold(deadline) {
            Ok(Some(_held)) if !memory.attended(self.side) => {
                header.sides[self.side].store(CAME | LEFT, Ordering::Relaxed);
            }
            _ => {}
        }
        // Under the guard: of two who leave at once, the second sees that the first is gone.
        let _ = os::inode::unlock_all(memory.fd());
        let empty = header.head.load(Ordering::Relaxed) == header.tail.load(Ordering::Relaxed);
        let last = !memory.attended(SENDING) && !memory.attended(RECEIVING);
        if let Some((name, path)) = &self.name
            && last
            && empty
        {
            let _ = outside::remove(&memory, path, name);
        }
        memory.wake(ITEMS);
        memory.wake(ROOM);
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            mechanism: "sem",
            max_message: self
                .memory
                .as_ref()
                .map_or(0, |memory| memory.capacity() - PREFIX),
            unrelated: Some("by name, or a passed descriptor"),
            boundaries: Boundaries::Framed,
            priorities: 1,
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

fn map(file: File, name: &str, side: usize) -> Result<Memory, Error> {
    let mut memory = Memory::map(file).map_err(|refused| match refused {
        Ok(why) => Error::NotOurs {
            what: "semaphore buffer",
            name: name.into(),
            why: why.into(),
        },
        Err(error) => Error::os("mmap", name, error),
    })?;
    if memory
        .sit(side)
        .map_err(|error| Error::os("fcntl", name, error))?
    {
        return Ok(memory);
    }
    Err(Error::TooManyParticipants {
        name: name.into(),
        max: SEATS as usize,
    })
}

/// Makes the file and gives it its name, in one step.
fn make(path: &std::path::Path, name: &str, config: &Config) -> Result<(), Error> {
    let directory = std::path::Path::new("/dev/shm");
    let file = shm::unnamed(directory, config.mode & 0o666)
        .map_err(|error| Error::os("open", "/dev/shm", error))?;
    fill(&file, config, config.named_semaphores, name)?;
    match shm::link(&file, path) {
        Err(error) if error.raw_os_error() != Some(os::EEXIST) => {
            Err(Error::os("linkat", name, error))
        }
        _ => Ok(()),
    }
}

/// What one look at the buffer came to.
enum Look<T> {
    Done(T),
    /// There is no room, or nothing there; the other side is still to come, or there.
    Wait,
    Gone {
        left: bool,
    },
    Busy,
}

impl End {
    /// What became of the other side, if nobody is there.
    fn gone(&self, memory: &Memory) -> Option<bool> {
        let other = 1 - self.side;
        if memory.attended(other) {
            return None;
        }
        match memory.header().sides[other].load(Ordering::Relaxed) {
            0 => None,
            state => Some(state & LEFT != 0),
        }
    }

    /// Runs `operate` on the buffer until it gives something, waiting in between.
    fn operate<T>(
        &mut self,
        patience: Patience,
        sleeps_at: usize,
        mut operate: impl FnMut(&memory::Held<'_>, &Memory) -> Result<Option<T>, (&'static str, u64)>,
    ) -> Result<Result<T, Stop>, std::io::Error> {
        let Some(memory) = &self.memory else {
            return Ok(Err(Stop::Closed));
        };
        if !memory.is_here() {
            return Ok(Err(Stop::Forked));
        }
        let deadline = patience.deadline();
        let header = memory.header();
        // Counted among the sleepers, though awake.
        let mut announced = false;
        loop {
            if memory.is_lost() {
                return Ok(Err(Stop::Corrupt((crate::mapping::LOST, 0))));
            }
            // Without patience for anything else, there is still some for a holder that is quick.
            let soon = match patience {
                Patience::Now => Deadline::after(LOOK),
                _ => deadline,
            };
            let held = match memory.hold(soon) {
                // Nothing that is wrong with it then is worth telling.
                Err(_) if memory.is_lost() => continue,
                held => held?,
            };
            let look = match held {
                None => Look::Busy,
                Some(held) => {
                    // Ordered by the holding of the buffer.
                    let count = |which: usize, difference: i32| {
                        let waiting = &header.waiting[which];
                        let count = waiting.load(Ordering::Relaxed);
                        waiting.store(count.saturating_add_signed(difference), Ordering::Relaxed);
                        count
                    };
                    if std::mem::take(&mut announced) {
                        count(sleeps_at, -1);
                    }
                    match operate(&held, memory) {
                        Err(corrupt) => return Ok(Err(Stop::Corrupt(corrupt))),
                        Ok(Some(done)) => {
                            let sleeper = count(1 - sleeps_at, -1) > 0;
                            drop(held);
                            if sleeper {
                                memory.wake(1 - sleeps_at);
                            }
                            Look::Done(done)
                        }
                        Ok(None) => match self.gone(memory) {
                            Some(left) => Look::Gone { left },
                            None if patience == Patience::Now || deadline.passed() => Look::Busy,
                            None => {
                                count(sleeps_at, 1);
                                Look::Wait
                            }
                        },
                    }
                }
            };
            match look {
                Look::Done(done) => return Ok(Ok(done)),
                Look::Gone { left } => {
                    return Ok(Err(if left { Stop::Closed } else { Stop::Died }));
                }
                Look::Wait => {
                    // Whoever wakes a sleeper counts it off.
                    let slice = deadline.at_most(LOOK.as_nanos() as u64);
                    announced = match memory.sleep(sleeps_at, slice) {
                        Err(_) if memory.is_lost() => continue,
                        woken => !woken?,
                    };
                }
                Look::Busy if patience == Patience::Now || deadline.passed() => {
                    return Ok(Err(Stop::Later));
                }
                Look::Busy => {}
            }
        }
    }
}

/// Why there was no result.
enum Stop {
    Closed,
    Died,
    Later,
    Forked,
    Corrupt((&'static str, u64)),
}

/// The bytes in the buffer, if the two counts make sense.
fn used(memory: &Memory) -> Result<(u64, u64, usize), (&'static str, u64)> {
    let header = memory.header();
    let head = header.head.load(Ordering::Relaxed);
    let tail = header.tail.load(Ordering::Relaxed);
    match tail.checked_sub(head) {
        Some(used) if used <= memory.capacity() as u64 && tail < POSITION_MAX => {
            Ok((head, tail, used as usize))
        }
        _ => Err(("head and tail", 264)),
    }
}

/// The sending end.
#[derive(Debug)]
pub struct Sender {
    end: End,
    looked: Instant,
}

impl Sender {
    fn new(end: End) -> Sender {
        let looked = Instant::now();
        Sender { end, looked }
    }

    /// Opens the buffer `name`, making it if it is not there. One that is there keeps its capacity.
    ///
    /// # Errors
    /// `Config`, `NoRoom`, `PermissionDenied`, `NotOurs`, `TooManyParticipants` (64 on a side).
    pub fn open(name: &str, config: Config) -> Result<Sender, Error> {
        End::open(name, SENDING, Some(&config)).map(Sender::new)
    }

    /// As [`open`](Sender::open), but the buffer must be there.
    ///
    /// # Errors
    /// `NotFound` besides.
    pub fn attach(name: &str) -> Result<Sender, Error> {
        End::open(name, SENDING, None).map(Sender::new)
    }

    /// Attaches to the buffer behind a descriptor that was inherited or passed.
    ///
    /// # Errors
    /// `NotOurs`, `TooManyParticipants`.
    pub fn from_fd(fd: OwnedFd) -> Result<Sender, Error> {
        End::from_fd(fd, SENDING).map(Sender::new)
    }

    /// The descriptor, to be passed on. `None` after closing.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.end.memory.as_ref().map(Memory::fd)
    }
}

impl super::Sender for Sender {
    fn send_with(&mut self, message: &[u8], patience: Patience) -> Result<(), SendError> {
        let max = match &self.end.memory {
            Some(memory) => memory.capacity() - PREFIX,
            None => return Err(SendError::Closed),
        };
        if message.len() > max {
            return Err(SendError::MessageTooLarge {
                len: message.len(),
                max,
            });
        }
        // While there is room, nobody else asks whether a receiver is still there. Where none was, the
        // next call looks again: what was refused once is not taken before somebody has come.
        if self.looked.elapsed() >= LOOK {
            match self.end.memory.as_ref().map(|memory| self.end.gone(memory)) {
                Some(Some(true)) => return Err(SendError::Closed),
                Some(Some(false)) => return Err(SendError::PeerDied),
                _ => self.looked = Instant::now(),
            }
        }
        let sent = self.end.operate(patience, ROOM, |held, memory| {
            let (_, tail, used) = used(memory)?;
            if memory.capacity() - used < PREFIX + message.len() {
                return Ok(None);
            }
            held.write(tail, &(message.len() as u32).to_le_bytes());
            held.write(tail + PREFIX as u64, message);
            let next = tail + (PREFIX + message.len()) as u64;
            memory.header().tail.store(next, Ordering::Relaxed);
            Ok(Some(()))
        });
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Stop::Closed)) => Err(SendError::Closed),
            Ok(Err(Stop::Died)) => Err(SendError::PeerDied),
            Ok(Err(Stop::Later)) => Err(patience.full()),
            Ok(Err(Stop::Forked)) => Err(SendError::Forked),
            Ok(Err(Stop::Corrupt((what, offset)))) => Err(SendError::Corrupt { what, offset }),
            Err(source) => Err(SendError::Os {
                op: "sem_wait",
                source,
            }),
        }
    }

    fn close(&mut self) {
        self.end.close();
    }

    fn capabilities(&self) -> Capabilities {
        self.end.capabilities()
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct Receiver(End);

impl Receiver {
    /// Opens the buffer `name`, making it if it is not there. One that is there keeps its capacity.
    ///
    /// # Errors
    /// As [`Sender::open`].
    pub fn open(name: &str, config: Config) -> Result<Receiver, Error> {
        End::open(name, RECEIVING, Some(&config)).map(Receiver)
    }

    /// As [`open`](Receiver::open), but the buffer must be there.
    ///
    /// # Errors
    /// `NotFound` besides.
    pub fn attach(name: &str) -> Result<Receiver, Error> {
        End::open(name, RECEIVING, None).map(Receiver)
    }

    /// Attaches to the buffer behind a descriptor that was inherited or passed.
    ///
    /// # Errors
    /// `NotOurs`, `TooManyParticipants`.
    pub fn from_fd(fd: OwnedFd) -> Result<Receiver, Error> {
        End::from_fd(fd, RECEIVING).map(Receiver)
    }

    /// The descriptor, to be passed on. `None` after closing.
    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.memory.as_ref().map(Memory::fd)
    }
}

impl super::Receiver for Receiver {
    fn recv_with(&mut self, into: &mut Vec<u8>, patience: Patience) -> Result<(), RecvError> {
        let received = self.0.operate(patience, ITEMS, |held, memory| {
            let (head, _, used) = used(memory)?;
            if used == 0 {
                return Ok(None);
            }
            let mut length = [0; PREFIX];
            held.read(head, &mut length);
            let length = u32::from_le_bytes(length) as usize;
            if used < PREFIX || length > used - PREFIX {
                return Err(("the length of a message", head % memory.capacity() as u64));
            }
            into.clear();
            into.resize(length, 0);
            held.read(head + PREFIX as u64, into);
            let next = head + (PREFIX + length) as u64;
            memory.header().head.store(next, Ordering::Relaxed);
            Ok(Some(()))
        });
        match received {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Stop::Closed)) => Err(RecvError::Closed),
            Ok(Err(Stop::Died)) => Err(RecvError::PeerDied),
            Ok(Err(Stop::Later)) => Err(patience.empty()),
            Ok(Err(Stop::Forked)) => Err(RecvError::Forked),
            Ok(Err(Stop::Corrupt((what, offset)))) => Err(RecvError::Corrupt { what, offset }),
            Err(source) => Err(RecvError::Os {
                op: "sem_wait",
                source,
            }),
        }
    }

    fn close(&mut self) {
        self.0.close();
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }
}
