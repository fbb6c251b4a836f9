//! A ring: its memory, shared by the handles of this process.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use crate::error::Error;
use crate::layout::{Header, Kind};
use crate::mapping::{self, Abandoned, Making, Mapping, Place};
use crate::os;
use crate::os::life::LockFile;
use crate::os::semaphore::Semaphore;
use crate::participant::{self, Life, Membership, Watch};
use crate::primitive::{Data, full_fence};
use crate::ring::broadcast::{Awaited, Control, Corrupt, Manner, Notify, Seat, Start};
use crate::ring::record::{CLOSED, COMMITTED};
use crate::sleeper::{self, Sleeper};
use crate::wait::{Spinner, WaitStrategy};

use super::config::{Config, Geometry, Policy};
use super::producer::Producer;
use super::subscriber::Subscriber;

/// What is wrong when somebody truncated the memory.
pub(super) const LOST: Corrupt = Corrupt {
    what: mapping::LOST,
    position: 0,
};

/// The participant record of the producer; that of the subscriber in seat `i` is `i + 1`.
pub(super) const PRODUCER: u32 = 0;
/// The roles, as the records show them.
const ROLE_PRODUCER: u32 = 0;
const ROLE_SUBSCRIBER: u32 = 1;

/// Creates the ring `name`, which must not exist (a name all of whose owners are dead is replaced).
/// A name with a slash is the path of a plain file; one without lives in `/dev/shm`.
///
/// # Errors
/// [`Error::AlreadyExists`], [`Error::Config`], [`Error::NoRoom`], [`Error::PermissionDenied`],
/// [`Error::Unsupported`] for wait strategy `EventFd`.
///
/// ```
/// # let name = format!("doc-bcast-create-{}", std::process::id());
/// let ring = ringway::broadcast::create(&name, Default::default())?;
/// let subscriber = ringway::broadcast::attach(&name)?.subscriber()?;
/// # Ok::<(), ringway::Error>(())
/// ```
pub fn create(name: &str, config: Config) -> Result<Ring, Error> {
    Ring::make(name, Place::of(name)?, &config, Abandoned::Replace)
}

/// Attaches to the ring `name`.
///
/// # Errors
/// [`Error::NotFound`], [`Error::NotOurs`], [`Error::Version`], [`Error::Corrupt`],
/// [`Error::PermissionDenied`].
pub fn attach(name: &str) -> Result<Ring, Error> {
    Ring::open(Mapping::attach(
        name,
        Place::of(name)?,
        Kind::Broadcast,
        true,
    )?)
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

/// A ring that this process has mapped. Handles are taken from it. Cheap to clone; the memory stays
/// mapped until the last handle is gone.
///
/// # Who unlinks a name
///
/// The last one to leave takes the name away, unless subscribers that were
/// [expected](Config::expected) have not come yet and something was sent to them. [`Ring::unlink`]
/// takes it away at once.
#[derive(Clone)]
pub struct Ring(Arc<Shared>);

/// Where one subscriber sleeps, if the strategy is `Semaphore`.
#[repr(C, align(128))]
pub(super) struct Door {
    asleep: AtomicU32,
    semaphore: [AtomicU32; 16],
}

const _: () = assert!(Semaphore::SIZE <= size_of::<[AtomicU32; 16]>() - 8);

impl Door {
    fn semaphore(&self) -> Semaphore {
        let at = self.semaphore.as_ptr().wrapping_add(1);
        // SAFETY: `at` is 8 bytes into the door, which is aligned to 128 and has room for it, in a
        // mapping that whoever holds sleepers keeps; the words are atomics, written by the C library.
        unsafe { Semaphore::at(at.cast_mut().cast()) }
    }
}

/// What the handles of one process share.
pub(super) struct Shared {
    pub(super) mapping: Mapping,
    pub(super) geometry: Geometry,
}

impl Shared {
    pub(super) fn control(&self) -> &Control {
        let at = self.mapping.at(self.mapping.header().control());
        // SAFETY: the control words lie there (geometry checked against the header), aligned to 128;
        // they are atomics, valid whatever a peer writes, and stay mapped as long as `self`.
        unsafe { &*at.cast::<Control>() }
    }

    fn after_control<T>(&self, offset: usize) -> &[T] {
        let at = self.mapping.header().control() + offset as u64;
        // SAFETY: `subscribers` of them lie there (geometry checked: control words, seats, doors),
        // aligned to 128; they are atomics, valid whatever a peer writes, mapped as long as `self`.
        unsafe {
            core::slice::from_raw_parts(
                self.mapping.at(at).cast::<T>(),
                self.geometry.subscribers as usize,
            )
        }
    }

    pub(super) fn seats(&self) -> &[Seat] {
        self.after_control(size_of::<Control>())
    }

    fn doors(&self) -> &[Door] {
        let seats = size_of::<Seat>() * self.geometry.subscribers as usize;
        self.after_control(size_of::<Control>() + seats)
    }

    pub(super) fn data(&self) -> Data<'_> {
        let base = self.mapping.at(self.mapping.header().data());
        // SAFETY: `capacity` bytes lie there, a power of two (checked), aligned to a page, mapped as
        // long as `self`, and writable if the mapping is; observers only load.
        unsafe { Data::new(base, self.geometry.capacity) }
    }

    pub(super) fn manner(&self) -> Manner {
        Manner {
            parks: self.geometry.wait.parks(),
            gated: self.geometry.policy == Policy::Lossless,
            expected: self.geometry.expected,
            fences: true,
            touch: false,
        }
    }

    /// The manner of a side in this process that looks for sleepers. It need not fence where these sleep so
    /// rarely that they can as well make a barrier over all processors each time, and this process can take
    /// part.
    pub(super) fn waking_manner(&self) -> Manner {
        let rarely = self.geometry.wait == WaitStrategy::Adaptive;
        Manner {
            fences: !(rarely && os::membarrier::register()),
            ..self.manner()
        }
    }

    /// The fence of one that is going to sleep, for both sides; false if those who look for sleepers without
    /// one of their own may miss it.
    #[cold]
    pub(super) fn fence_others(&self) -> bool {
        let fenced = self.geometry.wait != WaitStrategy::Adaptive || os::membarrier::all();
        full_fence();
        fenced
    }

    /// Whether subscribers who were expected have not come yet.
    fn awaits(&self) -> bool {
        self.manner().gated
            && self.control().joined.load(Ordering::Acquire) < self.geometry.expected
    }

    /// Whether the producer has closed the ring: it is about to give up its role then, or has done so.
    fn is_closed(&self) -> bool {
        // RELAXED: a hint how long to wait for the role; whether it is free is asked of the record, under its lock.
        let progress = &self.control().producer.progress;
        let at = progress.position.load(Ordering::Relaxed);
        let word = self.data().word(at).load(Ordering::Relaxed);
        word & COMMITTED != 0 && word & CLOSED != 0
    }

    /// Where `corrupt` stands in the file.
    pub(super) fn offset(&self, corrupt: Corrupt) -> u64 {
        self.mapping.header().data() + corrupt.position % self.geometry.capacity
    }

    fn corrupt(&self, corrupt: Corrupt) -> Error {
        Error::Corrupt {
            name: self.mapping.name().to_owned(),
            what: corrupt.what,
            offset: self.offset(corrupt),
        }
    }

    /// The word on which a producer sleeps that waits for this.
    pub(super) fn room_word(&self, awaited: Option<Awaited>) -> &AtomicU64 {
        match awaited {
            Some(Awaited::Seat(index)) => self.seats()[index].room_word(),
            _ => &self.control().joined,
        }
    }

    /// Wakes all subscribers that sleep.
    #[cold]
    pub(super) fn wake_subscribers(&self) {
        if self.geometry.wait != WaitStrategy::Semaphore {
            return sleeper::wake_all(self.control().bell.word());
        }
        // SEQCST: SYNC: asleep before announcing, asked before looking who.
        fence(Ordering::SeqCst);
        for door in self.doors() {
            if door.asleep.load(Ordering::Relaxed) != 0
                && door.asleep.swap(0, Ordering::Relaxed) != 0
            {
                door.semaphore().post();
            }
        }
    }

    /// Wakes the producer if it waits for the subscriber in this seat, or for any to come.
    #[cold]
    fn wake_producer(&self, seat: &Seat) -> Result<(), Error> {
        let door = sleeper::Door::Room;
        let producer = Sleeper::new(&self.mapping, self.geometry.wait, None, door)?;
        producer.wake(seat.room_word());
        producer.wake(&self.control().joined);
        Ok(())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.mapping.is_writable() {
            self.mapping
                .unlink_if_last(|| !self.awaits() || self.control().sent() == 0);
        }
    }
}

/// What a side needs besides the algorithm: its place among the participants, and how to wait.
pub(super) struct Side {
    /// None for one that only looks on.
    pub(super) membership: Option<Membership>,
    /// A description for looking at others' locks with, of one that only looks on.
    lock: Option<LockFile>,
    pub(super) own: Sleeper,
    pub(super) spinner: Spinner,
    pub(super) here: os::fork::Mark,
    /// Keeps the memory mapped: last, so that it goes last.
    pub(super) shared: Arc<Shared>,
}

impl Side {
    fn new(shared: &Arc<Shared>, membership: Option<Membership>) -> Result<Side, Error> {
        let wait = shared.geometry.wait;
        let own = match &membership {
            // It is not woken, but for by chance.
            None => Sleeper::Futex,
            Some(member) if member.index() != PRODUCER && wait == WaitStrategy::Semaphore => {
                Sleeper::Semaphore(shared.doors()[member.index() as usize - 1].semaphore())
            }
            Some(_) => Sleeper::new(&shared.mapping, wait, None, sleeper::Door::Room)?,
        };
        let lock = match &membership {
            Some(_) => None,
            None => Some(shared.mapping.lock_file()?),
        };
        let mut side = Side {
            membership,
            lock,
            own,
            spinner: Spinner::new(wait, os::yield_for_long, false),
            here: os::fork::Mark::here(),
            shared: shared.clone(),
        };
        side.spinner = Spinner::new(wait, os::yield_for_long, side.is_alone());
        Ok(side)
    }

    /// Whether everybody has just one processor.
    pub(super) fn is_alone(&self) -> bool {
        match &self.membership {
            Some(member) => participant::are_alone(&self.shared.mapping, member),
            None => {
                let producer = participant::record(&self.shared.mapping, PRODUCER);
                let all = os::processors() | producer.processors.load(Ordering::Relaxed);
                all.count_ones() == 1
            }
        }
    }

    /// What has become of another. A system call or two.
    pub(super) fn life(&self, watch: &Watch) -> Life {
        watch.life(&self.shared.mapping, self.lock_file())
    }

    pub(super) fn lock_file(&self) -> &LockFile {
        match (&self.membership, &self.lock) {
            (Some(member), _) => member.lock_file(),
            (None, Some(lock)) => lock,
            (None, None) => unreachable!("made with one or the other"),
        }
    }

    /// Counts one more of what happens seldom.
    #[cold]
    pub(super) fn count(&self, counter: fn(&participant::Record) -> &AtomicU64) {
        if let Some(member) = &self.membership {
            let record = participant::record(&self.shared.mapping, member.index());
            participant::Record::add(counter(record), 1);
        }
    }

    /// A subscriber leaves, if it has a seat; whether the producer sleeps there. The seat is given up
    /// before the record: a successor may be sitting there from then on.
    pub(super) fn leave_seat(&self) -> Notify {
        let Some(member) = &self.membership else {
            return Notify::Nobody;
        };
        let slept = self.shared.seats()[member.index() as usize - 1].leave();
        member.leave(&self.shared.mapping);
        slept
    }

    /// Its door, if it sleeps at one of its own.
    fn door(&self) -> Option<&Door> {
        let index = self.membership.as_ref()?.index();
        let parks = self.shared.geometry.wait == WaitStrategy::Semaphore && index != PRODUCER;
        parks.then(|| &self.shared.doors()[index as usize - 1])
    }

    /// Before a subscriber announces that it is going to sleep.
    pub(super) fn lie_down(&self) {
        if let Some(door) = self.door() {
            door.asleep.store(1, Ordering::Relaxed);
            // SEQCST: SYNC: asleep before announcing, asked before looking who.
            fence(Ordering::SeqCst);
        }
    }
}

impl Ring {
    /// A ring without a name: for this process, for children that inherit it, and for others that are
    /// given its descriptor.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::NoRoom`], [`Error::Unsupported`].
    pub fn anonymous(config: Config) -> Result<Ring, Error> {
        Ring::make("(anonymous)", Place::Anonymous, &config, Abandoned::Replace)
    }

    /// The ring in an open file: one that [`Ring::as_fd`] gave, inherited or received.
    ///
    /// # Errors
    /// As [`attach`].
    pub fn from_fd(fd: OwnedFd) -> Result<Ring, Error> {
        Ring::open(Mapping::from_fd(fd, Kind::Broadcast)?)
    }

    /// Looks on at the ring `name`: its memory is mapped read-only, and what this process does cannot
    /// harm the ring. [`Ring::observer`] receives from it; no role can be taken.
    ///
    /// # Errors
    /// As [`attach`]. Permission to read is enough.
    ///
    /// ```
    /// use ringway::broadcast::{self, Ring, Start};
    /// # let name = format!("doc-bcast-observe-{}", std::process::id());
    /// let mut prices = broadcast::create(&name, Default::default())?.producer()?;
    /// prices.send(b"seen by all")?;
    /// let mut tap = Ring::observe(&name)?.observer(Start::Oldest)?;
    /// assert_eq!(&*tap.recv()?, b"seen by all");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn observe(name: &str) -> Result<Ring, Error> {
        Ring::open(Mapping::attach(
            name,
            Place::of(name)?,
            Kind::Broadcast,
            false,
        )?)
    }

    fn make(
        name: &str,
        place: Place,
        config: &Config,
        abandoned: Abandoned,
    ) -> Result<Ring, Error> {
        let header = config.header()?;
        let geometry = Geometry::of(name, &header)?;
        let making = Making {
            mode: config.file_mode(),
            huge: false,
            abandoned,
        };
        let mapping = Mapping::create(name, place, header, &making, |mapping| {
            fill(mapping, &geometry)?;
            sleeper::init(mapping)
        })?;
        Ring::open(mapping)
    }

    fn open(mapping: Mapping) -> Result<Ring, Error> {
        let geometry = Geometry::of(mapping.name(), mapping.header())?;
        Ok(Ring(Arc::new(Shared { mapping, geometry })))
    }

    pub(super) fn name(&self) -> &str {
        self.0.mapping.name()
    }

    pub(super) fn header(&self) -> &Header {
        self.0.mapping.header()
    }

    fn may_write(&self) -> Result<(), Error> {
        if self.0.mapping.is_writable() {
            return Ok(());
        }
        Err(Error::Unsupported {
            mechanism: "an observer",
            what: "take a role, since its memory is mapped read-only",
            remedy: "use Ring::observer, or attach instead of observing",
        })
    }

    /// Takes the role of the producer.
    ///
    /// # Errors
    /// [`Error::RoleTaken`] while another producer lives; [`Error::Corrupt`] when what the one before
    /// left cannot be; [`Error::NoRoom`] when there are no descriptors left; [`Error::Unsupported`] for
    /// a ring that is only observed.
    pub fn producer(&self) -> Result<Producer, Error> {
        self.may_write()?;
        let (mapping, name) = (&self.0.mapping, "producer");
        let is_leaving = || self.0.is_closed();
        let member = Membership::join(mapping, PRODUCER, ROLE_PRODUCER, name, is_leaving)?;
        let side = Side::new(&self.0, Some(member))?;
        Producer::new(side).map_err(|corrupt| self.0.corrupt(corrupt))
    }

    /// A subscriber that gets the next messages to be sent: [`Ring::subscriber_from`] with
    /// [`Start::Next`].
    ///
    /// # Errors
    /// As [`Ring::subscriber_from`].
    pub fn subscriber(&self) -> Result<Subscriber, Error> {
        self.subscriber_from(Start::Next)
    }

    /// A subscriber that starts where it is told to. On a lossless ring the producer waits for it from
    /// here on.
    ///
    /// # Errors
    /// [`Error::TooManyParticipants`]; [`Error::Corrupt`]; [`Error::NoRoom`] when there are no
    /// descriptors left; [`Error::Unsupported`] for a ring that is only observed.
    pub fn subscriber_from(&self, start: Start) -> Result<Subscriber, Error> {
        self.may_write()?;
        let member = self.take_seat()?;
        let index = member.index() as usize - 1;
        let seat = &self.0.seats()[index];
        let side = Side::new(&self.0, Some(member))?;
        let subscriber = Subscriber::seated(side, index, start);
        let subscriber = subscriber.map_err(|corrupt| self.0.corrupt(corrupt))?;
        self.0.wake_producer(seat)?;
        Ok(subscriber)
    }

    /// One that looks on: it holds nobody back, whatever the ring's policy is, is told how many
    /// messages it missed if it was too slow, and writes nothing. When nothing is there it looks now
    /// and then: it sees a message up to 2 ms late, since it cannot tell the producer that it sleeps.
    ///
    /// # Errors
    /// [`Error::Corrupt`]; [`Error::NoRoom`] when there are no descriptors left.
    pub fn observer(&self, start: Start) -> Result<Subscriber, Error> {
        let side = Side::new(&self.0, None)?;
        Subscriber::free(side, start).map_err(|corrupt| self.0.corrupt(corrupt))
    }

    /// Takes a record for a subscriber: a free one, or a dead one's.
    fn take_seat(&self) -> Result<Membership, Error> {
        let mapping = &self.0.mapping;
        let lock = mapping.lock_file()?;
        for (index, seat) in (1..).zip(self.0.seats()) {
            if Watch::new(index).life(mapping, &lock) == Life::Alive {
                continue;
            }
            let settle = |_: &LockFile| {
                let _ = seat.leave();
                true
            };
            if let Some(member) = Membership::join_settled(mapping, index, ROLE_SUBSCRIBER, settle)?
            {
                return Ok(member);
            }
        }
        Err(Error::TooManyParticipants {
            name: mapping.name().into(),
            max: self.0.geometry.subscribers as usize,
        })
    }

    /// Bytes of the data area.
    pub fn capacity(&self) -> u64 {
        self.0.geometry.capacity
    }

    /// The longest message, in bytes.
    pub fn max_message(&self) -> usize {
        self.0.geometry.max
    }

    /// What happens when a subscriber is slow.
    pub fn policy(&self) -> Policy {
        self.0.geometry.policy
    }

    /// How both sides wait.
    pub fn wait_strategy(&self) -> WaitStrategy {
        self.0.geometry.wait
    }

    /// Whether subscribers that were [expected](Config::expected) have not come yet.
    pub fn is_waiting_for_subscribers(&self) -> bool {
        self.0.awaits()
    }

    /// Messages sent since creation. What a producer published last before it was killed is counted when
    /// it has a successor.
    pub fn sent(&self) -> u64 {
        self.0.control().sent()
    }

    /// Subscribers that are attached and alive now, observers not counted. A system call for each.
    ///
    /// # Errors
    /// [`Error::NoRoom`] when there are no descriptors left.
    pub fn living_subscribers(&self) -> Result<usize, Error> {
        let mapping = &self.0.mapping;
        let lock = mapping.lock_file()?;
        let lives = |index: &u32| Watch::new(*index).life(mapping, &lock) == Life::Alive;
        Ok((1..=self.0.geometry.subscribers).filter(lives).count())
    }

    /// Takes the name away: nobody can attach by it any more. Those attached keep their ring.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`].
    pub fn unlink(&self) -> Result<(), Error> {
        self.0.mapping.unlink()
    }
}

/// Puts the words of an empty ring where they belong.
fn fill(mapping: &Mapping, geometry: &Geometry) -> Result<(), Error> {
    let control = mapping.header().control();
    let seats = control + size_of::<Control>() as u64;
    let doors = seats + u64::from(geometry.subscribers) * size_of::<Seat>() as u64;
    // SAFETY: the control words lie there, aligned to 128, in memory that nobody else has yet.
    unsafe { mapping.at(control).cast::<Control>().write(Control::new()) };
    for index in 0..u64::from(geometry.subscribers) {
        let at = mapping.at(seats + index * size_of::<Seat>() as u64);
        // SAFETY: as above, for the seats that follow.
        unsafe { at.cast::<Seat>().write(Seat::new()) };
        if geometry.wait == WaitStrategy::Semaphore {
            let at = mapping.at(doors + index * size_of::<Door>() as u64);
            // SAFETY: as above, for the doors that follow; new memory is zero, a valid door.
            let door = unsafe { &*at.cast::<Door>() };
            let made = door.semaphore().init(0);
            made.map_err(|error| Error::os("sem_init", mapping.name(), error))?;
        }
    }
    Ok(())
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
