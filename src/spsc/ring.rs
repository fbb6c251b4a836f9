//! A ring: its memory, shared by the handles of this process.

use std::fmt;
#[cfg(feature = "cli")]
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::error::Error;
use crate::layout::{Header, Kind};
use crate::mapping::{self, Abandoned, Making, Mapping, Place};
use crate::os;
use crate::os::eventfd::EventFd;
use crate::participant::{self, Life, Membership, Watch};
use crate::passing;
use crate::primitive::{AtomicU64, Data, Ordering, full_fence};
use crate::ring::spsc::{AGAIN, CLOSED, COMMITTED, Control, Corrupt, Manner, Record};
use crate::sleeper::{self, Door, Events, Sleeper};
use crate::wait::{Spinner, WaitStrategy};

use super::config::{Config, Geometry};
use super::consumer::Consumer;
use super::producer::Producer;

/// Why an observer takes no role.
const OBSERVER: Error = Error::Unsupported {
    mechanism: "an observer",
    what: "take a role, since its memory is mapped read-only",
    remedy: "attach instead of observing",
};

/// What is wrong with a ring whose memory somebody took away.
pub(super) const LOST: Corrupt = Corrupt {
    what: mapping::LOST,
    position: 0,
};

/// The participant record of the producer, and of the consumer.
pub(super) const PRODUCER: u32 = 0;
pub(super) const CONSUMER: u32 = 1;

/// Creates the ring `name`, which must not exist (a name all of whose owners are dead is replaced).
/// A name with a slash is the path of a plain file; one without lives in `/dev/shm`.
///
/// # Errors
/// [`Error::AlreadyExists`], [`Error::Config`], [`Error::NoRoom`], [`Error::PermissionDenied`].
///
/// ```
/// # let name = format!("doc-create-{}", std::process::id());
/// let ring = ringway::spsc::create(&name, ringway::spsc::Config::default().capacity(4096))?;
/// assert!(ringway::spsc::create(&name, Default::default()).is_err()); // it lives
/// # Ok::<(), ringway::Error>(())
/// ```
pub fn create(name: &str, config: Config) -> Result<Ring, Error> {
    Ring::make(name, Place::of(name)?, &config, Abandoned::Replace)
}

/// Attaches to the ring `name`.
///
/// # Errors
/// [`Error::NotFound`], [`Error::NotOurs`], [`Error::Version`], [`Error::Corrupt`],
/// [`Error::PermissionDenied`]; [`Error::Unsupported`] for a ring with event descriptors, which
/// cannot be had by name.
pub fn attach(name: &str) -> Result<Ring, Error> {
    Ring::open(
        Mapping::attach(name, Place::of(name)?, Kind::Spsc, true)?,
        None,
    )
}

/// Attaches to the ring `name`, or creates it if it does not exist. `config` is only used then.
///
/// # Errors
/// As [`create`] and [`attach`].
pub fn create_or_attach(name: &str, config: Config) -> Result<Ring, Error> {
    let place = Place::of(name)?;
    mapping::create_or_attach(
        || attach(name),
        |abandoned| Ring::make(name, place.clone(), &config, abandoned),
    )
}

/// Whether nothing is undelivered in the ring in `file`, which nobody is attached to: what the last one to leave asks.
#[cfg(feature = "cli")]
pub(crate) fn is_drained(name: &str, file: &File, header: Header) -> Result<bool, Error> {
    let ring = Ring::open(Mapping::look(name, file, header)?, None)?;
    Ok(ring.0.is_drained())
}

/// A ring that this process has mapped. The two roles are taken from it. Cheap to clone; the memory
/// stays mapped until the last handle is gone.
///
/// # Who unlinks a name
///
/// The last one to leave takes the name away, if nothing undelivered is in the ring; if there is, the
/// name stays, for a consumer to come. [`Ring::unlink`] takes it away at once.
///
/// # Children
///
/// A forked child may use a `Ring` that it inherits, and take roles from it. It may not use the
/// parent's [`Producer`] or [`Consumer`]: that is an error.
#[derive(Clone)]
pub struct Ring(Arc<Shared>);

/// What the handles of one process share.
pub(super) struct Shared {
    pub(super) mapping: Mapping,
    pub(super) geometry: Geometry,
    events: Option<Events>,
}

impl Shared {
    pub(super) fn control(&self) -> &Control {
        let at = self.mapping.at(self.mapping.header().control());
        // SAFETY: the control words lie there (geometry checked against the header), aligned to 128;
        // they are atomics, valid whatever a peer writes, and stay mapped as long as `self`.
        unsafe { &*at.cast::<Control>() }
    }

    pub(super) fn data(&self) -> Data<'_> {
        let base = self.mapping.at(self.mapping.header().data());
        // SAFETY: `capacity` bytes lie there, a power of two (checked), aligned to a page, mapped as
        // long as `self`, and writable if the mapping is; observers only load.
        unsafe { Data::new(base, self.geometry.capacity) }
    }

    /// The manner of a side in this process. It need not fence where the other one sleeps so rarely that
    /// it can as well make a barrier over all processors each time, and this process can take part.
    fn manner(&self) -> Manner {
        let rarely = self.geometry.wait == WaitStrategy::Adaptive;
        Manner {
            parks: self.geometry.wait.parks(),
            rarely,
            touch: self.geometry.touch,
            fences: !(rarely && os::membarrier::register()),
        }
    }

    /// Where `corrupt` stands in the file.
    pub(super) fn offset(&self, corrupt: Corrupt) -> u64 {
        self.mapping.header().data() + corrupt.position % self.geometry.capacity
    }

    /// Whether the producer has closed the ring: it is about to give up its role then, or has done so.
    fn is_closed(&self) -> bool {
        // RELAXED: a hint how long to wait for the role; whether it is free is asked of the record, under its lock.
        let progress = &self.control().producer.progress;
        let at = progress.position.load(Ordering::Relaxed);
        let word = self.data().word(at).load(Ordering::Relaxed);
        word & COMMITTED != 0 && word & CLOSED != 0
    }

    /// Whether every message was taken.
    fn is_drained(&self) -> bool {
        let taken = self.control().consumer.position.load(Ordering::Acquire);
        let word = self.data().word(taken).load(Ordering::Acquire);
        word & COMMITTED == 0 || word & CLOSED != 0
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.mapping.is_writable() {
            self.mapping.unlink_if_last(|| self.is_drained());
        }
    }
}

/// What a side needs besides the algorithm: its place among the participants, and how to wait.
pub(super) struct Side {
    pub(super) membership: Membership,
    pub(super) peer: Watch,
    /// Where this side sleeps.
    pub(super) own: Sleeper,
    /// Where the peer sleeps.
    other: Sleeper,
    pub(super) spinner: Spinner,
    pub(super) here: os::fork::Mark,
    /// Keeps the memory mapped: last, so that it goes last.
    pub(super) shared: Arc<Shared>,
}

impl Side {
    fn join(shared: &Arc<Shared>, index: u32) -> Result<Side, Error> {
        if !shared.mapping.is_writable() {
            return Err(OBSERVER);
        }
        let (name, own, other) = match index {
            PRODUCER => ("producer", Door::Room, Door::Messages),
            _ => ("consumer", Door::Messages, Door::Room),
        };
        let wait = shared.geometry.wait;
        let sleeper = |door| Sleeper::new(&shared.mapping, wait, shared.events.as_ref(), door);
        let (own, other) = (sleeper(own)?, sleeper(other)?);
        let is_leaving = || index == PRODUCER && shared.is_closed();
        let membership = Membership::join(&shared.mapping, index, index, name, is_leaving)?;
        if let Some(event) = other.event() {
            // A peer that is asleep learns whose death it has to learn of.
            event.notify();
        }
        let alone = participant::are_alone(&shared.mapping, &membership);
        Ok(Side {
            membership,
            peer: Watch::new(1 - index),
            own,
            other,
            spinner: Spinner::new(wait, os::yield_for_long, alone),
            here: os::fork::Mark::here(),
            shared: shared.clone(),
        })
    }

    /// Whether the two sides have just one processor.
    pub(super) fn is_alone(&self) -> bool {
        participant::are_alone(&self.shared.mapping, &self.membership)
    }

    /// Adds one to a counter of this side. Off the data path of a ring that keeps up.
    pub(super) fn count(&self, counter: fn(&participant::Record) -> &AtomicU64) {
        let record = participant::record(&self.shared.mapping, self.membership.index());
        participant::Record::add(counter(record), 1);
    }

    /// Counts a message that a consumer which died may have seen; gives the message back.
    #[inline(always)]
    pub(super) fn seen(&self, message: Record) -> Record {
        if message.flags & AGAIN != 0 {
            self.count(|record| &record.redelivered);
        }
        message
    }

    /// Before this side sleeps, with its mark made: a fence, and where sleeping is rare one for the other side, too. False
    /// if it should have been and is not.
    pub(super) fn barrier(&self) -> bool {
        let rarely = self.shared.geometry.wait == WaitStrategy::Adaptive;
        if rarely && os::membarrier::all() {
            return true;
        }
        full_fence();
        !rarely
    }

    /// Wakes the peer if it sleeps on `word`, as nobody may have told it of what is there.
    pub(super) fn other_may_sleep_on(&self, word: &AtomicU64) {
        if self.shared.geometry.wait.parks() {
            self.wake_other(word);
        }
    }

    /// Wakes the peer, which sleeps on `word`.
    #[cold]
    pub(super) fn wake(&self, word: &AtomicU64) {
        self.count(|record| &record.wakes);
        self.wake_other(word);
    }

    /// One side sleeps on a word, by one call; but a wait of its selector or its executor that is over may not have been
    /// taken back yet, and a wake-up for one could go to that.
    fn wake_other(&self, word: &AtomicU64) {
        match &self.other {
            Sleeper::Futex => sleeper::wake_all(word),
            other => other.wake(word),
        }
    }

    /// What has become of the peer. A system call or two.
    pub(super) fn peer_life(&self) -> Life {
        self.peer
            .life(&self.shared.mapping, self.membership.lock_file())
    }
}

impl Ring {
    /// A ring without a name: for this process, for children that inherit it, and for others that it
    /// is passed to.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::NoRoom`].
    ///
    /// ```
    /// let ring = ringway::spsc::Ring::anonymous(Default::default())?;
    /// let (mut tx, mut rx) = (ring.producer()?, ring.consumer()?);
    /// tx.send(b"hello")?;
    /// assert_eq!(&*rx.recv()?, b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn anonymous(config: Config) -> Result<Ring, Error> {
        Ring::make("(anonymous)", Place::Anonymous, &config, Abandoned::Replace)
    }

    /// The ring in an open file: one that [`Ring::as_fd`] gave, inherited or received.
    ///
    /// # Errors
    /// As [`attach`].
    pub fn from_fd(fd: OwnedFd) -> Result<Ring, Error> {
        Ring::open(Mapping::from_fd(fd, Kind::Spsc)?, None)
    }

    /// Passes the ring, with its event descriptors if it has any, to the process at the other end of
    /// a Unix socket, which takes it with [`Ring::receive_over`]. Blocks while the socket is full.
    ///
    /// # Errors
    /// [`Error::Os`] when the socket fails.
    ///
    /// ```
    /// use ringway::spsc::{Config, Ring};
    /// let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    /// let ring = Ring::anonymous(Config::default().wait("eventfd".parse()?))?;
    /// ring.send_over(&ours)?;
    /// let mut tx = ring.producer()?;
    /// let mut rx = Ring::receive_over(&theirs)?.consumer()?;
    /// tx.send(b"passed")?;
    /// assert_eq!(&*rx.recv()?, b"passed");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send_over(&self, socket: &UnixStream) -> Result<(), Error> {
        passing::send(socket, &self.0.mapping, self.0.events.as_ref())
    }

    /// Takes a ring that the process at the other end passes with [`Ring::send_over`]. Blocks until it
    /// does.
    ///
    /// # Errors
    /// As [`attach`]; [`Error::Os`] when the socket fails or is closed; [`Error::NoRoom`] when this
    /// process has no descriptors left for it: what was sent is then lost, and nothing stays open.
    pub fn receive_over(socket: &UnixStream) -> Result<Ring, Error> {
        let (mapping, events) = passing::receive(socket, Kind::Spsc)?;
        Ring::open(mapping, events)
    }

    fn make(
        name: &str,
        place: Place,
        config: &Config,
        abandoned: Abandoned,
    ) -> Result<Ring, Error> {
        let header = config.header()?;
        let geometry = Geometry::of(name, &header)?;
        let events = match geometry.wait {
            WaitStrategy::EventFd if place != Place::Anonymous => return Err(sleeper::NO_EVENTS),
            WaitStrategy::EventFd => {
                let event = || EventFd::new().map_err(|error| Error::os("eventfd", name, error));
                Some(Events::from([event()?, event()?]))
            }
            _ => None,
        };
        let making = Making {
            mode: config.file_mode(),
            huge: config.asks_huge_pages(),
            abandoned,
        };
        let mapping = Mapping::create(name, place, header, &making, |mapping| {
            let at = mapping.at(mapping.header().control()).cast::<Control>();
            // SAFETY: the control words lie there, aligned to 128, in memory that nobody else has yet.
            unsafe { at.write(Control::new()) };
            sleeper::init(mapping)
        })?;
        Ring::open(mapping, events)
    }

    fn open(mapping: Mapping, events: Option<Events>) -> Result<Ring, Error> {
        let geometry = Geometry::of(mapping.name(), mapping.header())?;
        if geometry.wait == WaitStrategy::EventFd && events.is_none() && mapping.is_writable() {
            return Err(sleeper::NO_EVENTS);
        }
        Ok(Ring(Arc::new(Shared {
            mapping,
            geometry,
            events,
        })))
    }

    /// Takes the role of the producer.
    ///
    /// # Errors
    /// [`Error::RoleTaken`] while another producer lives; [`Error::Corrupt`] when what the one before
    /// left cannot be; [`Error::NoRoom`] when there are no descriptors left.
    pub fn producer(&self) -> Result<Producer, Error> {
        let side = Side::join(&self.0, PRODUCER)?;
        Producer::new(side, self.0.manner()).map_err(|corrupt| self.corrupt(corrupt))
    }

    /// Takes the role of the consumer.
    ///
    /// # Errors
    /// As [`Ring::producer`].
    pub fn consumer(&self) -> Result<Consumer, Error> {
        let side = Side::join(&self.0, CONSUMER)?;
        Consumer::new(side, self.0.manner()).map_err(|corrupt| self.corrupt(corrupt))
    }

    pub(super) fn name(&self) -> &str {
        self.0.mapping.name()
    }

    pub(super) fn header(&self) -> &Header {
        self.0.mapping.header()
    }

    fn corrupt(&self, corrupt: Corrupt) -> Error {
        let name = self.0.mapping.name().to_owned();
        Error::Corrupt {
            name,
            what: corrupt.what,
            offset: self.0.offset(corrupt),
        }
    }

    /// Bytes of the data area.
    pub fn capacity(&self) -> u64 {
        self.0.geometry.capacity
    }

    /// The longest message, in bytes.
    pub fn max_message(&self) -> usize {
        self.0.geometry.max
    }

    /// How both sides wait.
    pub fn wait_strategy(&self) -> WaitStrategy {
        self.0.geometry.wait
    }

    /// Why there are no huge pages although they were asked for, if so.
    pub fn huge_pages_refused(&self) -> Option<&io::Error> {
        self.0.mapping.huge_refused()
    }

    /// What has passed so far, as the two sides show it; the two are not read at one instant.
    pub fn stats(&self) -> Stats {
        let control = self.0.control();
        // Relaxed: figures for people.
        let received = control.consumer.position.load(Ordering::Relaxed) & !7;
        let progress = &control.producer.progress;
        let sent = progress.position.load(Ordering::Relaxed);
        Stats {
            sent: progress.messages.load(Ordering::Relaxed),
            received: control.consumer.messages.load(Ordering::Relaxed),
            used: sent.saturating_sub(received).min(self.capacity()),
        }
    }

    /// Looks at the ring `name` without taking part: its memory is mapped read-only, and no role can
    /// be taken.
    ///
    /// # Errors
    /// As [`attach`].
    ///
    /// ```
    /// # let name = format!("doc-observe-{}", std::process::id());
    /// # let ring = ringway::spsc::create(&name, Default::default())?;
    /// ring.producer()?.send(b"seen")?;
    /// let observer = ringway::spsc::Ring::observe(&name)?;
    /// assert_eq!(observer.stats().sent, 1);
    /// assert!(observer.consumer().is_err());
    /// # ring.unlink()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn observe(name: &str) -> Result<Ring, Error> {
        Ring::open(
            Mapping::attach(name, Place::of(name)?, Kind::Spsc, false)?,
            None,
        )
    }

    /// Takes the name away: nobody can attach by it any more. Those attached keep their ring.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`].
    pub fn unlink(&self) -> Result<(), Error> {
        self.0.mapping.unlink()
    }
}

/// What has passed through a ring; see [`Ring::stats`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Messages sent since creation.
    pub sent: u64,
    /// Messages taken since creation, redelivered ones again.
    pub received: u64,
    /// Bytes of the data area in use.
    pub used: u64,
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.mapping.as_fd()
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("name", &self.0.mapping.name())
            .field("geometry", &self.0.geometry)
            .finish_non_exhaustive()
    }
}
