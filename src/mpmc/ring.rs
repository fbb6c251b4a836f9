//! A ring: its memory, shared by the handles of this process.

use std::fmt;
#[cfg(feature = "cli")]
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::error::Error;
use crate::layout::{Header, Kind};
use crate::mapping::{self, Abandoned, Making, Mapping, Place};
use crate::os::eventfd::EventFd;
use crate::passing;
use crate::ring::mpmc::{Intents, Queue};
use crate::sleeper::{self, Events};
use crate::wait::WaitStrategy;

use super::config::{Config, Geometry};
use super::consumer::Consumer;
use super::items;
use super::participant::{Control, Participant, Role};
use super::producer::Producer;
use crate::primitive::{AtomicU64, Pairs, Slots};

/// Creates the ring `name`, which must not exist (a name all of whose owners are dead is replaced).
///
/// # Errors
/// [`Error::AlreadyExists`], [`Error::Config`], [`Error::NoRoom`], [`Error::PermissionDenied`].
///
/// ```
/// # let name = format!("doc-mpmc-create-{}", std::process::id());
/// let ring = ringway::mpmc::create(&name, Default::default())?;
/// let worker = ringway::mpmc::attach(&name)?.consumer()?;
/// # Ok::<(), ringway::Error>(())
/// ```
pub fn create(name: &str, config: Config) -> Result<Ring, Error> {
    Ring::make(name, Place::of(name)?, config, Abandoned::Replace)
}

/// Attaches to the ring `name`.
///
/// # Errors
/// [`Error::NotFound`], [`Error::NotOurs`], [`Error::Version`], [`Error::Corrupt`],
/// [`Error::PermissionDenied`].
pub fn attach(name: &str) -> Result<Ring, Error> {
    let ring = attach_any(name)?;
    ring.must_hold_items(false)?;
    Ok(ring)
}

/// Attaches to the ring `name`, of messages or of items.
pub(super) fn attach_any(name: &str) -> Result<Ring, Error> {
    let mapping = Mapping::attach(name, Place::of(name)?, Kind::Mpmc, true)?;
    Ring::open(mapping, None)
}

/// Attaches to the ring `name`, or creates it if it does not exist. `config` is only used then.
///
/// # Errors
/// As [`create`] and [`attach`].
pub fn create_or_attach(name: &str, config: Config) -> Result<Ring, Error> {
    let place = Place::of(name)?;
    mapping::create_or_attach(
        || attach(name),
        |abandoned| Ring::make(name, place.clone(), config.clone(), abandoned),
    )
}

/// Whether nothing is undelivered in the ring in `file`, which nobody is attached to: what the last one to leave asks.
#[cfg(feature = "cli")]
pub(crate) fn is_drained(name: &str, file: &File, header: Header) -> Result<bool, Error> {
    let ring = Ring::open(Mapping::look(name, file, header)?, None)?;
    Ok(ring.0.is_drained())
}

/// A ring that this process has mapped. Handles are taken from it: [`Ring::producer`] and
/// [`Ring::consumer`]. Cheap to clone; the memory stays mapped until the last handle is gone.
#[derive(Clone)]
pub struct Ring(Arc<Shared>);

/// What the handles of one process share.
pub(super) struct Shared {
    pub(super) mapping: Mapping,
    pub(super) geometry: Geometry,
    pub(super) events: Option<Events>,
}

impl Shared {
    pub(super) fn control(&self) -> &Control {
        let at = self.mapping.at(self.mapping.header().control());
        // SAFETY: the control words lie there (geometry checked against the header), aligned to 128;
        // they are atomics, valid whatever a peer writes, and stay mapped as long as `self`.
        unsafe { &*at.cast::<Control>() }
    }

    pub(super) fn queue(&self) -> Queue<'_> {
        let header = self.mapping.header();
        let intents = self
            .mapping
            .at(header.control() + size_of::<Control>() as u64);
        // SAFETY: `participants` of them follow the control words (geometry checked); they are
        // atomics, aligned to 128 like the control words, mapped as long as `self`.
        let intents = unsafe {
            core::slice::from_raw_parts(
                intents.cast::<Intents>(),
                self.geometry.participants as usize,
            )
        };
        // SAFETY: the slots lie there, `capacity` times `stride` bytes (geometry checked), aligned to
        // a page; payloads are only accessed by whoever the protocol gives them to.
        let slots = unsafe {
            Slots::new(
                self.mapping.at(header.data()),
                self.geometry.capacity,
                self.geometry.stride,
            )
        };
        let on_death = self.geometry.on_death.policy();
        Queue {
            cursors: &self.control().cursors,
            intents,
            slots,
            on_death,
        }
    }

    /// Whether nothing is there for anybody to come. For one who has the ring to itself.
    fn is_drained(&self) -> bool {
        match self.geometry.paired {
            true => items::view(&self.queue()).holds_nothing(),
            false => self.queue().holds_nothing(),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.mapping.unlink_if_last(|| self.is_drained());
    }
}

impl Ring {
    /// A ring without a name: for this process, and for others that are given its descriptor.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::NoRoom`].
    pub fn anonymous(config: Config) -> Result<Ring, Error> {
        Ring::make("(anonymous)", Place::Anonymous, config, Abandoned::Replace)
    }

    /// The ring in an open file: one that [`Ring::as_fd`] gave, inherited or received.
    ///
    /// # Errors
    /// As [`attach`].
    pub fn from_fd(fd: OwnedFd) -> Result<Ring, Error> {
        let ring = Ring::from_fd_any(fd)?;
        ring.must_hold_items(false)?;
        Ok(ring)
    }

    /// Passes the ring, with its event descriptors if it has any, to the process at the other end of
    /// a Unix socket, which takes it with [`Ring::receive_over`]. Blocks while the socket is full.
    ///
    /// # Errors
    /// [`Error::Os`] when the socket fails.
    ///
    /// ```
    /// use ringway::mpmc::{Config, Ring};
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
        let (mapping, events) = passing::receive(socket, Kind::Mpmc)?;
        let ring = Ring::open(mapping, events)?;
        ring.must_hold_items(false)?;
        Ok(ring)
    }

    /// As [`Ring::from_fd`], of messages or of items.
    pub(super) fn from_fd_any(fd: OwnedFd) -> Result<Ring, Error> {
        Ring::open(Mapping::from_fd(fd, Kind::Mpmc)?, None)
    }

    fn make(name: &str, place: Place, config: Config, abandoned: Abandoned) -> Result<Ring, Error> {
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
            huge: false,
            abandoned,
        };
        let mapping = Mapping::create(name, place, header, &making, |mapping| {
            fill(mapping, &geometry);
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

    /// Refuses a ring that holds items where messages are wanted, or the other way round.
    pub(super) fn must_hold_items(&self, wanted: bool) -> Result<(), Error> {
        let geometry = &self.0.geometry;
        let word = |items| if items { "8-byte items" } else { "messages" };
        if geometry.items == wanted && (!geometry.paired || Pairs::are_possible()) {
            return Ok(());
        }
        Err(Error::Mismatch {
            name: self.0.mapping.name().into(),
            what: "what it carries",
            found: word(geometry.items).into(),
            expected: word(wanted).into(),
        })
    }

    /// Whether its slots are changed 16 bytes at a time.
    pub(super) fn is_paired(&self) -> bool {
        self.0.geometry.paired
    }

    pub(super) fn name(&self) -> &str {
        self.0.mapping.name()
    }

    pub(super) fn header(&self) -> &Header {
        self.0.mapping.header()
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }

    /// A producer, attached as a participant of its own.
    ///
    /// # Errors
    /// [`Error::TooManyParticipants`]; [`Error::NoRoom`] when there are no descriptors left.
    pub fn producer(&self) -> Result<Producer, Error> {
        Participant::join(&self.0, Role::Producer).map(Producer::new)
    }

    /// A consumer, attached as a participant of its own.
    ///
    /// # Errors
    /// As [`Ring::producer`].
    pub fn consumer(&self) -> Result<Consumer, Error> {
        Participant::join(&self.0, Role::Consumer).map(Consumer::new)
    }

    /// How many messages fit.
    pub fn capacity(&self) -> u64 {
        self.0.geometry.capacity
    }

    /// The longest message, in bytes.
    pub fn slot_size(&self) -> usize {
        self.0.geometry.slot_size as usize
    }

    /// How many messages are waiting (or being written) now.
    pub fn len(&self) -> u64 {
        self.0.queue().len()
    }

    /// Whether no message is waiting now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How both sides wait.
    pub fn wait_strategy(&self) -> WaitStrategy {
        self.0.geometry.wait
    }

    /// Takes the name away: nobody can attach by it any more. Those attached keep their ring.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`].
    pub fn unlink(&self) -> Result<(), Error> {
        self.0.mapping.unlink()
    }
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
            .finish_non_exhaustive()
    }
}

/// Puts the words of an empty ring into fresh memory.
fn fill(mapping: &Mapping, geometry: &Geometry) {
    let header = mapping.header();
    let control = mapping.at(header.control());
    // SAFETY: nobody else has the mapping yet; control words, intents and slots lie in it one after
    // the other, aligned, as the header was computed from their sizes.
    unsafe {
        control.cast::<Control>().write(Control::new());
        let intents = control.add(size_of::<Control>()).cast::<Intents>();
        for index in 0..geometry.participants as usize {
            intents.add(index).write(Intents::new());
        }
        let slots = mapping.at(header.data());
        for index in 0..geometry.capacity {
            slots
                .add((index * geometry.stride) as usize)
                .cast::<AtomicU64>()
                .write(AtomicU64::new(index));
        }
    }
}
