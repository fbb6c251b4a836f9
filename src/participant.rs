//! Who is attached to a ring, and who of them is alive.
//!
//! Each attached handle holds a record in the mapping and, as its token of life, a lock on a byte of
//! the file that belongs to that record and generation. The kernel drops the lock on any death
//! whatever, so it cannot be forged by a stale record, by a process id used again, or by another
//! pid namespace. A lock can outlive its process only where a raw `fork`, by somebody else's library,
//! copied the descriptor; a process descriptor that says dead overrules it then.

use std::cell::{Cell, RefCell};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::error::Error;
use crate::layout;
use crate::mapping::Mapping;
use crate::os;
use crate::os::life::{LockFile, Pidfd};
use crate::ring::seat::{self, Sat, Seen};
use crate::sleeper::futex_half;

/// Locks that belong to one record: its generations take turns.
const GENERATIONS: u64 = 1 << 20;
/// How often a joiner looks again at a record that another is just joining.
const JOIN_TRIES: u32 = 100_000;

/// What a participant shows of itself in the mapping: a pair of cache lines of its own.
#[repr(C, align(128))]
pub(crate) struct Record {
    /// Generation and phase: see [`seat`], where the table of its states stands.
    pub(crate) state: AtomicU64,
    /// Its process id, as that process sees it; for people, and for a process descriptor.
    pub(crate) pid: AtomicU32,
    /// What it does here, by the ring's own numbering.
    pub(crate) role: AtomicU32,
    /// When its process started, in clock ticks since boot.
    pub(crate) start_time: AtomicU64,
    /// The pid namespace in which `pid` means something.
    pub(crate) namespace: AtomicU64,
    /// Times it slept. This and the counters below have one writer, the participant itself (for
    /// `deaths`: whoever takes the record over); they go on counting with the next participant in this
    /// record, and are figures for people: nothing is decided by them.
    pub(crate) parks: AtomicU64,
    /// Times it woke a peer.
    pub(crate) wakes: AtomicU64,
    /// Times it found the ring full, or empty, and had to wait.
    pub(crate) stalls: AtomicU64,
    /// The processors it may run on, one bit each, modulo 64.
    pub(crate) processors: AtomicU64,
    /// Messages that it sent, or took. (Of an SPSC ring the control words have that.)
    pub(crate) messages: AtomicU64,
    /// Bytes of their payloads.
    pub(crate) bytes: AtomicU64,
    /// Claims of dead participants that it undid.
    pub(crate) repairs: AtomicU64,
    /// Messages that it got and that a consumer which died may have seen.
    pub(crate) redelivered: AtomicU64,
    /// Participants of this record that died and were succeeded.
    pub(crate) deaths: AtomicU64,
    /// The ring's own words.
    pub(crate) words: [AtomicU64; 3],
}

impl Record {
    /// Adds to one of the counters, which nobody else writes: a load and a store do.
    #[inline(always)]
    pub(crate) fn add(counter: &AtomicU64, more: u64) {
        let count = counter.load(Ordering::Relaxed).wrapping_add(more);
        counter.store(count, Ordering::Relaxed);
    }

    /// Writes down who has it now, after one that went as `before` says. Relaxed, all: the release of
    /// its state comes after.
    fn introduce(&self, role: u32, before: Life) {
        if before == Life::Dead {
            Record::add(&self.deaths, 1);
        }
        let pid = std::process::id();
        self.pid.store(pid, Ordering::Relaxed);
        self.role.store(role, Ordering::Relaxed);
        self.processors.store(os::processors(), Ordering::Relaxed);
        self.start_time
            .store(os::life::start_time(pid), Ordering::Relaxed);
        self.namespace
            .store(os::life::pid_namespace(), Ordering::Relaxed);
    }
}

const _: () = assert!(size_of::<Record>() as u64 == layout::PARTICIPANT);

/// What is known of a participant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// There never was one.
    Never,
    /// It lives.
    Alive,
    /// It is being taken over by a newcomer, who has to settle its affairs first.
    Joining,
    /// It detached.
    Left,
    /// It died without detaching.
    Dead,
}

/// The record at `index` of a mapping.
pub(crate) fn record(mapping: &Mapping, index: u32) -> &Record {
    assert!(index < mapping.header().participants);
    let at = mapping.at(layout::PARTICIPANTS + u64::from(index) * layout::PARTICIPANT);
    // SAFETY: the table lies in the mapping (checked header), aligned to 128; every field is an
    // atomic, valid whatever a peer writes; the mapping outlives the reference.
    unsafe { &*at.cast::<Record>() }
}

/// A file description of one's own that counts as present: as long as it is open, the name is not
/// abandoned.
fn present(mapping: &Mapping) -> Result<LockFile, Error> {
    let lock = mapping.lock_file()?;
    // Not had at once only in a forked child, whose parent is just leaving or whose ring is just being replaced.
    lock.lock_soon(layout::PRESENCE, false)
        .map_err(|error| Error::os("fcntl", mapping.name(), error))?;
    Ok(lock)
}

fn token(index: u32, state: u64) -> u64 {
    layout::TOKENS + u64::from(index) * GENERATIONS + seat::generation(state) % GENERATIONS
}

/// An attached participant: its record and its token of life. Dropping it detaches.
pub(crate) struct Membership {
    index: u32,
    state: u64,
    lock: LockFile,
}

impl Membership {
    /// Takes record `index` for `role`, if the one who has it left or is dead. One of whom `is_leaving` says that it
    /// is just going is waited for, for a moment.
    pub(crate) fn join(
        mapping: &Mapping,
        index: u32,
        role: u32,
        role_name: &'static str,
        is_leaving: impl Fn() -> bool,
    ) -> Result<Membership, Error> {
        let name = mapping.name();
        let os_error = |error| Error::os("fcntl", name, error);
        let lock = present(mapping)?;
        let joining = layout::JOINING + u64::from(index);
        let mut tries = 0;
        while !lock.try_lock(joining, true).map_err(os_error)? {
            tries += 1;
            if tries > JOIN_TRIES {
                let pid = record(mapping, index).pid.load(Ordering::Relaxed);
                return Err(Error::RoleTaken {
                    name: name.into(),
                    role: role_name,
                    pid,
                });
            }
            os::yield_now();
        }
        let record = record(mapping, index);
        let watch = Watch::new(index);
        let mut tries = 0;
        let before = loop {
            match watch.life(mapping, &lock) {
                Life::Alive if is_leaving() && tries < JOIN_TRIES => tries += 1,
                Life::Alive => {
                    let pid = record.pid.load(Ordering::Relaxed);
                    return Err(Error::RoleTaken {
                        name: name.into(),
                        role: role_name,
                        pid,
                    });
                }
                before => break before,
            }
            os::yield_now();
        };
        let take = |word| lock.try_lock(token(index, word), true).map_err(os_error);
        let none = None::<fn() -> bool>;
        let sat = seat::sit(&record.state, take, none, || record.introduce(role, before))?;
        let Sat::Down(state) = sat else {
            // The lock of the next generation is held: somebody wrote in the record who should not.
            let offset = layout::PARTICIPANTS + u64::from(index) * layout::PARTICIPANT;
            return Err(Error::Corrupt {
                name: name.into(),
                what: "participant record",
                offset,
            });
        };
        joined(mapping);
        lock.unlock(joining).map_err(os_error)?;
        Ok(Membership { index, state, lock })
    }

    /// Takes record `index` for `role` if nobody alive has it, nobody else is just joining it, and
    /// `settle`, called while the record counts as dead (JOINING), can settle what the one before
    /// left behind. Otherwise everything stays as it was.
    pub(crate) fn join_settled(
        mapping: &Mapping,
        index: u32,
        role: u32,
        settle: impl FnOnce(&LockFile) -> bool,
    ) -> Result<Option<Membership>, Error> {
        let os_error = |error| Error::os("fcntl", mapping.name(), error);
        let lock = present(mapping)?;
        let joining = layout::JOINING + u64::from(index);
        if !lock.try_lock(joining, true).map_err(os_error)? {
            return Ok(None);
        }
        let before = Watch::new(index).life(mapping, &lock);
        if before == Life::Alive {
            return Ok(None);
        }
        let record = record(mapping, index);
        let take = |word| lock.try_lock(token(index, word), true).map_err(os_error);
        let settle = Some(|| settle(&lock));
        let sat = seat::sit(&record.state, take, settle, || {
            record.introduce(role, before)
        })?;
        let Sat::Down(state) = sat else {
            return Ok(None);
        };
        joined(mapping);
        lock.unlock(joining).map_err(os_error)?;
        Ok(Some(Membership { index, state, lock }))
    }

    /// The number of its record.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// A description for looking at others' locks with.
    pub(crate) fn lock_file(&self) -> &LockFile {
        &self.lock
    }

    /// Says that it leaves; its lock is dropped with it.
    pub(crate) fn leave(&self, mapping: &Mapping) {
        seat::leave(&record(mapping, self.index).state, self.state);
    }
}

/// If whoever had record `index` is dead or gone, has `bury` do away with what it left, while nobody can
/// take the record over. Whether it was.
pub(crate) fn bury(mapping: &Mapping, watch: &Watch, lock: &LockFile, bury: impl FnOnce()) -> bool {
    let is_gone = || matches!(watch.life(mapping, lock), Life::Dead | Life::Left);
    let joining = layout::JOINING + u64::from(watch.index);
    if !is_gone() || !matches!(lock.try_lock(joining, true), Ok(true)) {
        return false;
    }
    // Whoever came in between is alive; and nobody can come now.
    let gone = is_gone();
    if gone {
        bury();
    }
    let _ = lock.unlock(joining);
    gone
}

/// Whether all who are attached may run on one and the same processor only, so that none can do
/// anything while another spins. A thread pinned to one processor cannot tell by itself: its peer may
/// be pinned to another. So each shows its own in its record; `own` is renewed here.
pub(crate) fn are_alone(mapping: &Mapping, own: &Membership) -> bool {
    let processors = os::processors();
    // Relaxed: a hint.
    record(mapping, own.index)
        .processors
        .store(processors, Ordering::Relaxed);
    let mut all = processors;
    let mut others = false;
    for index in 0..mapping.header().participants {
        if all.count_ones() > 1 {
            return false;
        }
        let record = record(mapping, index);
        if index != own.index && seat::is_live(record.state.load(Ordering::Relaxed)) {
            others = true;
            all |= record.processors.load(Ordering::Relaxed);
        }
    }
    others && all.count_ones() == 1
}

/// Whether more are attached that may run nowhere but where this thread may than there are processors there.
pub(crate) fn are_crowded(mapping: &Mapping) -> bool {
    let processors = os::processors();
    let mut room = processors.count_ones();
    for index in 0..mapping.header().participants {
        let record = record(mapping, index);
        // Relaxed, both: a hint.
        if seat::is_live(record.state.load(Ordering::Relaxed))
            && record.processors.load(Ordering::Relaxed) & !processors == 0
        {
            if room == 0 {
                return true;
            }
            room -= 1;
        }
    }
    false
}

/// Looks at whether one other participant is alive; keeps a process descriptor of it.
pub(crate) struct Watch {
    index: u32,
    seen: Cell<u64>,
    /// The state in which it was last found dead: it stays so in that state, and a forger who has the
    /// dead asked about again and again costs no system calls.
    dead: Cell<u64>,
    process: RefCell<Process>,
}

impl Watch {
    /// A watch on record `index`.
    pub(crate) fn new(index: u32) -> Watch {
        Watch {
            index,
            seen: Cell::new(0),
            dead: Cell::new(0),
            process: RefCell::new(Process::Unknown),
        }
    }

    /// Whether it has left, by a look at shared memory alone.
    pub(crate) fn has_left(&self, mapping: &Mapping) -> bool {
        seat::has_left(record(mapping, self.index).state.load(Ordering::Acquire))
    }

    /// What has become of it. A system call or two.
    pub(crate) fn life(&self, mapping: &Mapping, lock: &LockFile) -> Life {
        let record = record(mapping, self.index);
        let is_held = |word| lock.is_locked(token(self.index, word));
        let state = match seat::look(&record.state, self.dead.get(), is_held) {
            Seen::Never => return Life::Never,
            Seen::Left => return Life::Left,
            Seen::Joining => return Life::Joining,
            Seen::Replaced => return Life::Alive,
            Seen::Dead(word) => {
                if seat::is_live(word) {
                    self.dead.set(word);
                }
                return Life::Dead;
            }
            Seen::Held(word) => word,
        };
        // The lock is held, but a raw `fork` may have copied it.
        if self.seen.replace(state) != state {
            *self.process.borrow_mut() = find_process(record);
        }
        let dead = match &*self.process.borrow() {
            Process::Unknown => false,
            Process::Found(pidfd) => pidfd.is_dead(),
            Process::Gone => true,
        };
        // What was read of the record may have been its next owner's already.
        if dead && seat::is_still(&record.state, state) {
            self.dead.set(state);
            Life::Dead
        } else {
            Life::Alive
        }
    }
}

/// Whether nobody ever had the record of which this is a copy.
pub(crate) fn was_never_used(copy: &Record) -> bool {
    seat::is_free(copy.state.load(Ordering::Relaxed))
}

/// Whether two copies of a record are of the same participant in the same phase.
pub(crate) fn is_same_state(one: &Record, other: &Record) -> bool {
    one.state.load(Ordering::Relaxed) == other.state.load(Ordering::Relaxed)
}

/// What has become of the participant of whose record this is a copy, for one who only looks on, at
/// the ring's `file`. If it is said to be dead, whoever asks compares the record again: it may have
/// left meanwhile.
pub(crate) fn life_seen(copy: &Record, index: u32, file: BorrowedFd<'_>) -> Life {
    let state = copy.state.load(Ordering::Relaxed);
    let alive = match state {
        _ if seat::is_free(state) => return Life::Never,
        _ if seat::has_left(state) => return Life::Left,
        _ if seat::is_live(state) => Life::Alive,
        _ => Life::Joining,
    };
    match os::inode::is_locked(file, token(index, state), 1) {
        Ok(false) => return Life::Dead,
        Ok(true) => {}
        Err(_) => return alive,
    }
    // The lock is held, but a raw `fork` may have copied it.
    match find_process(copy) {
        Process::Gone => Life::Dead,
        Process::Found(pidfd) if pidfd.is_dead() => Life::Dead,
        _ => alive,
    }
}

/// How many have joined so far, as a word to sleep on: who waits for the deaths of others has to learn
/// of newcomers.
pub(crate) fn joins(mapping: &Mapping) -> &AtomicU64 {
    // SAFETY: the word lies in the header's page, aligned, inside the mapping, which outlives the
    // reference; an atomic, valid whatever a peer writes.
    unsafe { &*mapping.at(layout::JOINS).cast::<AtomicU64>() }
}

fn joined(mapping: &Mapping) {
    let joins = joins(mapping);
    // RELEASE: who sees the count finds the newcomer LIVE. SYNC: joined before it was counted
    joins.fetch_add(1, Ordering::Release);
    os::futex::wake(futex_half(joins), u32::MAX);
}

/// The state of record `index`: its generation and phase.
#[cfg(feature = "tokio")]
pub(crate) fn state(mapping: &Mapping, index: u32) -> u64 {
    // Acquire: pairs with the release in `join` and in `leave`.
    record(mapping, index).state.load(Ordering::Acquire)
}

/// Another participant, whose death somebody wants to learn of.
#[cfg(feature = "tokio")]
pub(crate) struct Other {
    /// Its record, and the state in which it was seen.
    pub(crate) index: u32,
    /// See `index`.
    pub(crate) state: u64,
    /// How to learn of it.
    pub(crate) process: Witness,
}

/// How the death of a process is learnt of.
#[cfg(feature = "tokio")]
pub(crate) enum Witness {
    /// It is this very process.
    Own,
    /// By its descriptor.
    Process(Pidfd),
    /// It is gone already.
    Gone,
    /// It is in a pid namespace that is not seen from here: only by looking, now and then.
    None,
}

/// All who are attached besides the one of record `own`, as far as they are not in `known`.
#[cfg(feature = "tokio")]
pub(crate) fn others(
    mapping: &Mapping,
    own: u32,
    known: impl Fn(u32, u64) -> bool,
) -> impl Iterator<Item = Other> {
    (0..mapping.header().participants)
        .filter(move |index| *index != own)
        .filter_map(move |index| {
            let record = record(mapping, index);
            // Acquire: pairs with the release in `join`.
            let state = record.state.load(Ordering::Acquire);
            if !seat::is_live(state) || known(index, state) {
                return None;
            }
            let namespace = record.namespace.load(Ordering::Relaxed);
            let seen = namespace != 0 && namespace == os::life::pid_namespace();
            let process = match find_process(record) {
                _ if seen && record.pid.load(Ordering::Relaxed) == std::process::id() => {
                    Witness::Own
                }
                Process::Found(pidfd) => Witness::Process(pidfd),
                Process::Gone => Witness::Gone,
                Process::Unknown => Witness::None,
            };
            Some(Other {
                index,
                state,
                process,
            })
        })
}

/// What is known of the process that a record names, seen from this one.
enum Process {
    /// Nothing: it is another pid namespace's, or this very process, or there is no `/proc`.
    Unknown,
    /// It was there when last looked for.
    Found(Pidfd),
    /// It is gone, and its number free or another's.
    Gone,
}

fn find_process(record: &Record) -> Process {
    let pid = record.pid.load(Ordering::Relaxed);
    let namespace = record.namespace.load(Ordering::Relaxed);
    if pid == std::process::id() || namespace == 0 || namespace != os::life::pid_namespace() {
        return Process::Unknown;
    }
    let pidfd = match Pidfd::open(pid) {
        Ok(pidfd) => pidfd,
        Err(error) if error.raw_os_error() == Some(os::NO_PROCESS) => return Process::Gone,
        Err(_) => return Process::Unknown,
    };
    // The number may have been given to another process since.
    let started = record.start_time.load(Ordering::Relaxed);
    match os::life::start_time(pid) {
        0 => Process::Unknown,
        now if started == 0 || now == started => Process::Found(pidfd),
        _ => Process::Gone,
    }
}
