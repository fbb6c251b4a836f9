//! Looking at a ring from outside: how full it is, who takes part and lives, what has passed.
//!
//! An [`Observer`] takes no role, holds no lock and keeps no name alive. It does not even map the
//! memory: it reads the ring's file, so that neither a peer that writes nonsense nor one that cuts the
//! file short can harm it. Those who take part are not slowed down, but for the cache lines that a
//! look borrows. Figures are for people: they are not read at one instant.
//!
//! ```
//! # let name = format!("doc-observer-{}", std::process::id());
//! let ring = ringway::spsc::create(&name, Default::default())?;
//! let (mut tx, mut rx) = (ring.producer()?, ring.consumer()?);
//! tx.send(b"one")?;
//! tx.send(b"two")?;
//! rx.recv()?;
//!
//! let observer = ringway::observe::Observer::open(&name)?;
//! let seen = observer.snapshot()?;
//! assert_eq!((seen.sent, seen.received, seen.waiting), (2, Some(1), Some(1)));
//! assert!(seen.participants.iter().all(|participant| participant.is_alive()));
//! # ring.unlink()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::Error;
use crate::layout::{self, Header, Kind};
use crate::mapping::{self, Place};
use crate::participant::{self, Life, Record};
use crate::primitive::Ordering;
use crate::ring::spsc::Control;
use crate::wait::WaitStrategy;
use crate::{broadcast, mpmc, os, spsc};

/// So many bytes of records are counted at most, for one figure.
const COUNTED: u64 = 1 << 20;

/// How often a participant that changes under our eyes is looked at again.
const TRIES: u32 = 16;

/// Looks at one ring.
#[derive(Debug)]
pub struct Observer {
    name: String,
    file: File,
    header: Header,
    kind: Kind,
    wait: WaitStrategy,
}

/// What one look at a ring has shown.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Messages sent since its creation.
    pub sent: u64,
    /// Messages taken since its creation, redelivered ones again. `None` of a broadcast ring, whose
    /// subscribers do not count.
    pub received: Option<u64>,
    /// Messages sent and not taken yet; of a broadcast ring by the one that is furthest behind of those
    /// that hold the producer back. `None` where that cannot be told: in a lossy ring, in one of which
    /// more would have to be read than is worth a figure (a mebibyte), or in one that moves too fast.
    pub waiting: Option<u64>,
    /// What of its capacity is in use: bytes (spsc, broadcast) or slots (mpmc).
    pub used: u64,
    /// Its capacity, in the same unit.
    pub capacity: u64,
    /// Bytes that were sent since its creation: of payload (mpmc), or with the headers of messages and
    /// what is lost at the end of the area (spsc, broadcast).
    pub sent_bytes: u64,
    /// The same of what was taken.
    pub received_bytes: Option<u64>,
    /// Whether no more will be sent unless somebody attaches anew.
    pub closed: bool,
    /// Whether anybody is attached, in whatever role.
    pub attached: bool,
    /// Everybody who has a record: those who live, those who died, and those who left last.
    pub participants: Vec<Participant>,
}

/// One who takes part in a ring, or did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Participant {
    /// The number of its record.
    pub index: u32,
    /// What it does: "producer", "consumer" or "subscriber".
    pub role: &'static str,
    /// Whether it lives.
    pub presence: Presence,
    /// Its process id, as it sees it itself.
    pub pid: u32,
    /// Whether that id means this process's processes: it is in the same pid namespace.
    pub same_namespace: bool,
    /// When its process started, in clock ticks since boot.
    pub start_time: u64,
    /// The counters of its record, which go on with its successors.
    pub counters: Counters,
}

impl Participant {
    /// Whether it lives.
    pub fn is_alive(&self) -> bool {
        self.presence == Presence::Alive
    }
}

/// What has become of a participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Presence {
    /// It is attached and lives.
    Alive,
    /// It is just attaching, and settles the affairs of a dead one first.
    Joining,
    /// It left.
    Left,
    /// It died without leaving, and nobody has taken its place.
    Died,
}

/// What a participant counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Messages that it sent or took. `None` of subscribers, which do not count them.
    pub messages: Option<u64>,
    /// Bytes of them, as in [`Snapshot::sent_bytes`].
    pub bytes: Option<u64>,
    /// Times it found the ring full, or empty, and had to wait.
    pub stalls: u64,
    /// Times it slept.
    pub parks: u64,
    /// Times it woke a peer.
    pub wakes: u64,
    /// Claims of dead participants that it undid.
    pub repairs: u64,
    /// Messages that it got and that a consumer which died may have seen.
    pub redelivered: u64,
    /// Participants in this place that died and were succeeded.
    pub deaths: u64,
}

/// A type that any bytes are valid for, and whose copy is useful.
///
/// # Safety
/// Every field is an integer, an atomic integer, or an array or a padded one of them.
unsafe trait Plain {}

// SAFETY: atomic integers only.
unsafe impl Plain for Record {}
// SAFETY: atomic integers, padded.
unsafe impl Plain for Control {}
// SAFETY: atomic integers and bells, which are one each, padded.
unsafe impl Plain for mpmc::Control {}
// SAFETY: as above.
unsafe impl Plain for broadcast::Control {}
// SAFETY: atomic integers, padded.
unsafe impl Plain for broadcast::Seat {}

impl Observer {
    /// Looks at the ring `name`: one of those in `/dev/shm`, the path of a plain file, or
    /// `/proc/PID/fd/NUMBER` for a ring without a name that a process has open.
    ///
    /// # Errors
    /// As [`spsc::attach`].
    pub fn open(name: &str) -> Result<Observer, Error> {
        match Place::of(name)? {
            Place::Path(path) => Observer::open_path(name, &path),
            Place::Anonymous => unreachable!("names stand for paths"),
        }
    }

    /// As [`Observer::open`], for the file at `path`, which is called `name` in messages.
    pub(crate) fn open_path(name: &str, path: &Path) -> Result<Observer, Error> {
        let file = if path.starts_with("/proc") {
            // What is there looks like a symbolic link and is the file itself.
            File::open(path).map_err(|error| Error::os("open", name, error))?
        } else {
            mapping::open(name, path, "ring", false)?
        };
        let header = mapping::read_any_header(name, &file)?;
        let corrupt = |what| Error::Corrupt {
            name: name.into(),
            what,
            offset: 16,
        };
        let kind = Kind::from_code(header.kind).ok_or(corrupt("kind of ring"))?;
        let wait = WaitStrategy::from_code(header.strategy).ok_or(corrupt("wait strategy"))?;
        match kind {
            Kind::Spsc => spsc::check_header(name, &header)?,
            Kind::Mpmc => mpmc::check_header(name, &header)?,
            Kind::Broadcast => broadcast::check_header(name, &header)?,
        }
        Ok(Observer {
            name: name.into(),
            file,
            header,
            kind,
            wait,
        })
    }

    /// The name it was opened by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What kind of ring it is: "spsc ring", "mpmc ring" or "broadcast ring".
    pub fn kind(&self) -> &'static str {
        self.kind.name()
    }

    /// Its capacity: bytes (spsc, broadcast) or slots (mpmc).
    pub fn capacity(&self) -> u64 {
        self.header.capacity
    }

    /// Bytes of memory that it takes, all told.
    pub fn memory(&self) -> u64 {
        self.header.total()
    }

    /// How its participants wait.
    pub fn wait_strategy(&self) -> WaitStrategy {
        self.wait
    }

    /// When it was created, by its creator's clock.
    pub fn created(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(self.header.created)
    }

    /// Looks.
    ///
    /// # Errors
    /// [`Error::Os`] when the file was cut short.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        let records = self.records()?;
        let mut snapshot = Snapshot {
            sent: 0,
            received: None,
            waiting: None,
            used: 0,
            capacity: self.header.capacity,
            sent_bytes: 0,
            received_bytes: None,
            closed: false,
            attached: self.is_attached(),
            participants: Vec::new(),
        };
        for (index, record) in records.iter().enumerate() {
            let index = index as u32;
            // Most records of a large table were never used: no look at the file again.
            if participant::was_never_used(record) {
                continue;
            }
            snapshot.participants.extend(self.participant(index)?);
        }
        match self.kind {
            Kind::Spsc => self.look_at_spsc(&mut snapshot)?,
            Kind::Mpmc => self.look_at_mpmc(&mut snapshot)?,
            Kind::Broadcast => self.look_at_broadcast(&mut snapshot)?,
        }
        Ok(snapshot)
    }

    fn look_at_spsc(&self, snapshot: &mut Snapshot) -> Result<(), Error> {
        let control: Box<Control> = self.copy(self.header.control())?;
        // Both are multiples of 8, unless somebody else wrote there.
        let received = control.consumer.position.load(Ordering::Relaxed) & !7;
        let sent = control.producer.progress.position.load(Ordering::Relaxed) & !7;
        snapshot.sent_bytes = sent;
        snapshot.received_bytes = Some(received);
        snapshot.sent = control.producer.progress.messages.load(Ordering::Relaxed);
        let taken = control.consumer.messages.load(Ordering::Relaxed);
        snapshot.received = Some(taken);
        snapshot.used = sent.saturating_sub(received).min(self.header.capacity);
        // Of redelivered messages the consumer counts some twice; an empty ring holds none.
        snapshot.waiting = Some(match snapshot.used {
            0 => 0,
            used => snapshot.sent.saturating_sub(taken).clamp(1, used / 8),
        });
        snapshot.closed = self.word(sent)? & crate::ring::spsc::CLOSED != 0;
        for participant in &mut snapshot.participants {
            let (messages, bytes) = match participant.index {
                0 => (snapshot.sent, sent),
                _ => (taken, received),
            };
            participant.counters.messages = Some(messages);
            participant.counters.bytes = Some(bytes);
        }
        Ok(())
    }

    fn look_at_mpmc(&self, snapshot: &mut Snapshot) -> Result<(), Error> {
        let control: Box<mpmc::Control> = self.copy(self.header.control())?;
        let seen = control.cursors.seen();
        snapshot.sent = seen.tail;
        snapshot.received = Some(seen.head);
        snapshot.closed = seen.closed;
        let waiting = seen.tail.saturating_sub(seen.head);
        snapshot.used = waiting.min(self.header.capacity);
        snapshot.waiting = Some(snapshot.used);
        let mut taken = 0u64;
        for participant in &snapshot.participants {
            let total = match participant.role {
                "producer" => &mut snapshot.sent_bytes,
                _ => &mut taken,
            };
            *total = total.wrapping_add(participant.counters.bytes.unwrap_or(0));
        }
        snapshot.received_bytes = Some(taken);
        Ok(())
    }

    fn look_at_broadcast(&self, snapshot: &mut Snapshot) -> Result<(), Error> {
        let control: Box<broadcast::Control> = self.copy(self.header.control())?;
        let (_, oldest) = control.oldest.read().map_err(|_| self.no_mark())?;
        let progress = &control.producer.progress;
        let sent = progress.position.load(Ordering::Relaxed) & !7;
        snapshot.sent = progress.messages.load(Ordering::Relaxed);
        snapshot.sent_bytes = sent;
        let awaited = broadcast::awaits(&self.header, &control);
        // The one that is furthest behind, of those that hold the producer back.
        let mut behind = if awaited { oldest.position } else { u64::MAX };
        for participant in &mut snapshot.participants {
            if participant.index == 0 {
                participant.counters.messages = Some(snapshot.sent);
                participant.counters.bytes = Some(sent);
                continue;
            }
            participant.counters.messages = None;
            participant.counters.bytes = None;
            let at = broadcast::seat_at(&self.header, participant.index - 1);
            let seat: Box<broadcast::Seat> = self.copy(at)?;
            let position = seat.exact();
            if position < sent && participant.presence != Presence::Left {
                behind = behind.min(position);
            }
        }
        snapshot.used = sent.saturating_sub(behind).min(self.header.capacity);
        snapshot.waiting = match behind {
            _ if broadcast::is_lossy(&self.header) => None,
            // Nobody is behind.
            u64::MAX => Some(0),
            behind => self.records_until(&control, behind)?.map(|taken| {
                // A record behind the tail takes a word at least.
                let most = sent.saturating_sub(behind) / 8;
                snapshot.sent.saturating_sub(taken).clamp(1, most.max(1))
            }),
        };
        snapshot.closed = self.word(sent)? & crate::ring::record::CLOSED != 0;
        Ok(())
    }

    fn no_mark(&self) -> Error {
        Error::Corrupt {
            name: self.name.clone(),
            what: "mark",
            offset: self.header.control(),
        }
    }

    /// How many records of a broadcast ring begin before `position`, where one does: counted from the
    /// nearest place whose number is known.
    fn records_until(
        &self,
        control: &broadcast::Control,
        position: u64,
    ) -> Result<Option<u64>, Error> {
        let mark = |mark: &crate::ring::broadcast::Mark| mark.read().map_err(|_| self.no_mark());
        let (_, oldest) = mark(&control.oldest)?;
        let (_, recent) = mark(&control.producer.recent)?;
        let near = [recent, oldest]
            .into_iter()
            .min_by_key(|spot| spot.position.abs_diff(position))
            .unwrap_or(oldest);
        let (from, to) = (near.position.min(position), near.position.max(position));
        let Some(between) = self.count_records(from, to)? else {
            return Ok(None);
        };
        // What is before the first record that is whole was overwritten meanwhile, and read as anything.
        let now: Box<broadcast::Control> = self.copy(self.header.control())?;
        Ok(if mark(&now.oldest)?.1.position > from {
            None
        } else if near.position <= position {
            Some(near.sequence.saturating_add(between))
        } else {
            near.sequence.checked_sub(between)
        })
    }

    /// The records between two positions at which records begin; `None` when it is too far, or the
    /// headers do not lead there.
    fn count_records(&self, from: u64, to: u64) -> Result<Option<u64>, Error> {
        use crate::ring::record::{COMMITTED, PAD, record};
        const CHUNK: u64 = 64 << 10;
        if to - from > COUNTED.min(self.header.capacity) {
            return Ok(None);
        }
        let (mut at, mut count) = (from, 0);
        let (mut read_from, mut read) = (from, Vec::new());
        while at < to {
            // A chunk at a time, none of which wraps.
            let rest: Option<&[u8]> = read.get((at - read_from) as usize..);
            let Some(word) = rest.and_then(|rest| rest.first_chunk()) else {
                let offset = at % self.header.capacity;
                let len = CHUNK.min(self.header.capacity - offset).min(to - at);
                read.resize(len as usize, 0);
                self.read(self.header.data() + offset, &mut read)?;
                read_from = at;
                continue;
            };
            let word = u64::from_ne_bytes(*word);
            if word & COMMITTED == 0 {
                return Ok(None);
            }
            count += u64::from(word & PAD == 0);
            at += record(word >> 32);
        }
        Ok((at == to).then_some(count))
    }

    /// The word of the data area at `position`.
    fn word(&self, position: u64) -> Result<u64, Error> {
        let mut word = [0; 8];
        let offset = (position % self.header.capacity) & !7;
        self.read(self.header.data() + offset, &mut word)?;
        Ok(u64::from_ne_bytes(word))
    }

    /// Whether anybody is attached.
    pub(crate) fn is_attached(&self) -> bool {
        os::inode::is_locked(self.file.as_fd(), layout::PRESENCE, 1).unwrap_or(true)
    }

    /// How far both sides are, in positions (spsc) or tickets (mpmc), and the messages sent so far; of a
    /// broadcast ring, what is still there.
    #[cfg(feature = "cli")]
    pub(crate) fn cursors(&self) -> Result<(u64, u64, u64), Error> {
        match self.kind {
            Kind::Spsc => {
                let control: Box<Control> = self.copy(self.header.control())?;
                let taken = control.consumer.position.load(Ordering::Relaxed) & !7;
                let sent = control.producer.progress.position.load(Ordering::Relaxed) & !7;
                let messages = control.producer.progress.messages.load(Ordering::Relaxed);
                // The producer's position is written after its header: the consumer may be ahead of it.
                // No honest position is near the end of the numbers.
                let (sent, taken) = (sent.min(1 << 62), taken.min(1 << 62));
                Ok((sent.max(taken), taken, messages))
            }
            Kind::Mpmc => {
                let control: Box<mpmc::Control> = self.copy(self.header.control())?;
                let seen = control.cursors.seen();
                Ok((seen.tail.max(seen.head), seen.head, seen.tail))
            }
            Kind::Broadcast => {
                let control: Box<broadcast::Control> = self.copy(self.header.control())?;
                let (_, oldest) = control.oldest.read().map_err(|_| self.no_mark())?;
                let progress = &control.producer.progress;
                let sent = progress.position.load(Ordering::Relaxed) & !7;
                let messages = progress.messages.load(Ordering::Relaxed);
                Ok((
                    sent.min(1 << 62).max(oldest.position),
                    oldest.position,
                    messages,
                ))
            }
        }
    }

    /// Whether nothing in the ring is undelivered, if nobody is attached to it: as the last one to leave asks, since the
    /// cursors do not tell all. It maps the memory; a file with holes, which would be filled by that, is not asked, and
    /// counts as not drained: no ring is made so.
    #[cfg(feature = "cli")]
    pub(crate) fn is_drained(&self) -> Result<bool, Error> {
        use std::os::unix::fs::MetadataExt;
        let (name, file, header) = (&self.name, &self.file, self.header);
        let meta = file
            .metadata()
            .map_err(|error| Error::os("fstat", name, error))?;
        if meta.blocks() * 512 < header.total() {
            return Ok(false);
        }
        match self.kind {
            Kind::Spsc => spsc::is_drained(name, file, header),
            Kind::Mpmc => mpmc::is_drained(name, file, header),
            Kind::Broadcast => self.snapshot().map(|seen| seen.used == 0),
        }
    }

    /// The header, checked.
    #[cfg(feature = "cli")]
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Which kind it is.
    #[cfg(feature = "cli")]
    pub(crate) fn ring_kind(&self) -> Kind {
        self.kind
    }

    /// Reads bytes of the file.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Error> {
        self.file
            .read_exact_at(into, offset)
            .map_err(|error| Error::os("read", &self.name, error))
    }

    /// Reads as much as is there.
    fn copy<T: Plain>(&self, offset: u64) -> Result<Box<T>, Error> {
        let mut room = Box::new(MaybeUninit::<T>::zeroed());
        // SAFETY: `size_of::<T>()` bytes, all initialised (zero, padding too), of which nobody else
        // knows.
        let bytes = unsafe {
            core::slice::from_raw_parts_mut(room.as_mut_ptr().cast::<u8>(), size_of::<T>())
        };
        self.read(offset, bytes)?;
        // SAFETY: any bytes are a valid `T`, as `Plain` says.
        Ok(unsafe { Box::<MaybeUninit<T>>::assume_init(room) })
    }

    fn records(&self) -> Result<Vec<Record>, Error> {
        // 32 KiB at most: both kinds bound their participants.
        let count = self.header.participants.min(1024);
        (0..count).map(|index| self.record(index)).collect()
    }

    fn record(&self, index: u32) -> Result<Record, Error> {
        let at = layout::PARTICIPANTS + u64::from(index) * layout::PARTICIPANT;
        Ok(*self.copy::<Record>(at)?)
    }

    /// What is known of the participant in record `index`.
    fn participant(&self, index: u32) -> Result<Option<Participant>, Error> {
        let mut tries = 0;
        let (record, life) = loop {
            let record = self.record(index)?;
            let life = participant::life_seen(&record, index, self.file.as_fd());
            tries += 1;
            // It may have left, or been followed by another, between the two looks.
            let same = participant::is_same_state(&record, &self.record(index)?);
            if same || tries == TRIES {
                break (record, life);
            }
        };
        let presence = match life {
            Life::Never => return Ok(None),
            Life::Alive => Presence::Alive,
            Life::Joining => Presence::Joining,
            Life::Left => Presence::Left,
            Life::Dead => Presence::Died,
        };
        let get = |word: &crate::primitive::AtomicU64| word.load(Ordering::Relaxed);
        let role = record.role.load(Ordering::Relaxed);
        Ok(Some(Participant {
            index,
            role: match (self.kind, role) {
                (Kind::Spsc, 0) | (Kind::Mpmc, 1) | (Kind::Broadcast, 0) => "producer",
                (Kind::Spsc, 1) | (Kind::Mpmc, 2) => "consumer",
                (Kind::Broadcast, _) => "subscriber",
                _ => "unknown",
            },
            presence,
            pid: record.pid.load(Ordering::Relaxed),
            same_namespace: get(&record.namespace) == os::life::pid_namespace(),
            start_time: get(&record.start_time),
            counters: Counters {
                messages: Some(get(&record.messages)),
                bytes: Some(get(&record.bytes)),
                stalls: get(&record.stalls),
                parks: get(&record.parks),
                wakes: get(&record.wakes),
                repairs: get(&record.repairs),
                redelivered: get(&record.redelivered),
                deaths: get(&record.deaths),
            },
        }))
    }
}

/// Where the ring `name` lies.
#[cfg(feature = "cli")]
pub(crate) fn path_of(name: &str) -> Result<std::path::PathBuf, Error> {
    match Place::of(name)? {
        Place::Path(path) => Ok(path),
        Place::Anonymous => unreachable!("names stand for paths"),
    }
}
