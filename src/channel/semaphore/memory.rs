//! The shared memory of a channel guarded by semaphores, and the guard that outlives its holders.
//!
//! ```text
//! offset 0    8       12     16        24     64     128    192   256     264   272   280/284   288/292
//!       magic version named  capacity  state  guard  items  room  holder  head  tail  waiting   sides
//! 4096  data: a ring of bytes; each message is its length (u32) and its bytes, wrapping at the end
//! ```
//!
//! | `holder` | meaning | who may change it |
//! | --- | --- | --- |
//! | 0 | nobody has the buffer | whoever wants it, to itself |
//! | generation, s + 1; seat s locked | its participant has it | that one, to 0 |
//! | generation, s + 1; seat s free | its participant died with it | whoever finds that out, to itself |
//!
//! The semaphore `guard` is the gate: it lets one in at a time, and puts the others to sleep. The
//! truth is `holder`, a seat of which shows, by a lock that dies with its process, whether the holder
//! lives. So a process that dies after it went through the gate locks nobody out: those who sleep at
//! the gate look every 20 ms, take over from a dead holder (or from nobody, if it died before it
//! became one), and put the gate's count right. Whoever comes through the gate and finds a living
//! holder waits again: its ticket was one too many.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use memmap2::MmapRaw;

use crate::os::clock::Deadline;
use crate::os::guard::Noted;
use crate::os::inode::{self, Token};
use crate::os::named_semaphore::Named;
use crate::os::semaphore::Semaphore;
use crate::primitive::{AtomicU32, AtomicU64, Ordering};

/// "RWSEMBUF".
const MAGIC: u64 = u64::from_le_bytes(*b"RWSEMBUF");
const VERSION: u32 = 1;
/// Bytes before the data.
pub(super) const HEADER: usize = 4096;
/// The byte of the file whose lock shows that the channel is being made.
const MAKING: u64 = 1000;
/// How many can attend on one side.
pub(super) const SEATS: u64 = 64;
/// How often those at the gate look whether the holder lives, in nanoseconds.
const LOOK: u64 = 20_000_000;

/// The fewest bytes of data.
pub(super) const LEAST: usize = 16;

/// The states of the whole.
pub(super) const NEW: u32 = 0;
pub(super) const READY: u32 = 1;
pub(super) const GOING: u32 = 2;

/// What stands at the front of the memory.
#[repr(C, align(64))]
pub(super) struct Header {
    magic: AtomicU64,
    version: AtomicU32,
    named: AtomicU32,
    capacity: AtomicU64,
    pub(super) state: AtomicU32,
    _pad: [u8; 36],
    guard: [u8; 64],
    items: [u8; 64],
    room: [u8; 64],
    holder: AtomicU32,
    _pad2: u32,
    /// Bytes taken since the beginning.
    pub(super) head: AtomicU64,
    /// Bytes put since the beginning.
    pub(super) tail: AtomicU64,
    /// How many sleep at `items` and at `room`.
    pub(super) waiting: [AtomicU32; 2],
    /// What is known of the senders and of the receivers: CAME and LEFT.
    pub(super) sides: [AtomicU32; 2],
    _pad3: [u8; 24],
    /// How often each seat has been taken.
    generations: [AtomicU32; 2 * SEATS as usize],
}

const _: () = {
    assert!(size_of::<Header>() <= HEADER);
    assert!(std::mem::offset_of!(Header, guard) == 64);
    assert!(std::mem::offset_of!(Header, holder) == 256);
    assert!(std::mem::offset_of!(Header, head) == 264);
    assert!(std::mem::offset_of!(Header, sides) == 288);
    assert!(Semaphore::SIZE <= 64);
};

/// The three semaphores, wherever they are.
#[derive(Debug)]
struct Semaphores {
    guard: Semaphore,
    items: Semaphore,
    room: Semaphore,
    /// The named ones, kept open.
    _named: Vec<Named>,
}

/// What a participant has of it.
#[derive(Debug)]
pub(super) struct Memory {
    // Dropped before the mapping that holds them.
    semaphores: Option<Semaphores>,
    noted: Noted,
    map: MmapRaw,
    token: Token,
    capacity: usize,
    /// What stands in `holder` when this participant has the buffer.
    me: u32,
}

pub(super) fn names(name: &str) -> [String; 3] {
    ["guard", "items", "room"].map(|which| format!("/ringway.{name}.{which}"))
}

impl Memory {
    /// Writes the header of a new file of the right length, all zero.
    pub(super) fn write_header(file: &File, capacity: usize, named: bool) -> io::Result<()> {
        let map = MmapRaw::map_raw(file)?;
        // SAFETY: the file is HEADER bytes and more, zero, mapped at a page; all-zero is a valid
        // header, and nobody else has the file yet.
        let header = unsafe { &*map.as_mut_ptr().cast::<Header>() };
        header.capacity.store(capacity as u64, Ordering::Relaxed);
        header.version.store(VERSION, Ordering::Relaxed);
        header.named.store(named.into(), Ordering::Relaxed);
        // Whoever maps the file does so after it was given away or named: the kernel orders that.
        header.magic.store(MAGIC, Ordering::Relaxed);
        Ok(())
    }

    /// Maps what `file` holds. `Err(Ok(why))` when that is not a buffer of this kind.
    pub(super) fn map(file: File) -> Result<Memory, Result<&'static str, io::Error>> {
        let length = file.metadata().map_err(Err)?.len() as usize;
        if length < HEADER + LEAST {
            return Err(Ok("it is too short"));
        }
        let map = MmapRaw::map_raw(&file).map_err(Err)?;
        // SAFETY: more than HEADER bytes are mapped, at a page; every bit pattern is valid.
        let header = unsafe { &*map.as_mut_ptr().cast::<Header>() };
        if header.magic.load(Ordering::Relaxed) != MAGIC {
            return Err(Ok("it is no buffer guarded by semaphores"));
        }
        if header.version.load(Ordering::Relaxed) != VERSION {
            return Err(Ok("it is of another version"));
        }
        let capacity = header.capacity.load(Ordering::Relaxed) as usize;
        if capacity != length - HEADER {
            return Err(Ok("its length is not what it says"));
        }
        let token = Token::new(OwnedFd::from(file)).map_err(Err)?;
        Ok(Memory {
            semaphores: None,
            noted: Noted::new(map.as_mut_ptr(), map.len(), true),
            map,
            token,
            capacity,
            me: 0,
        })
    }

    pub(super) fn header(&self) -> &Header {
        // SAFETY: `map` checked the length; the mapping lives as long as `self`, is page-aligned,
        // and every field is atomic (the semaphores are only touched through their pointers).
        unsafe { &*self.map.as_mut_ptr().cast::<Header>() }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.token.as_fd()
    }

    /// Whether somebody took the memory away, and this process goes on without.
    pub(super) fn is_lost(&self) -> bool {
        self.noted.is_lost()
    }

    pub(super) fn is_here(&self) -> bool {
        self.token.is_here()
    }

    /// The bytes of the ring, as checked when it was mapped.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn is_named(&self) -> bool {
        self.header().named.load(Ordering::Relaxed) != 0
    }

    /// Takes a seat on `side` (0 sending, 1 receiving); false when all are taken.
    pub(super) fn sit(&mut self, side: usize) -> io::Result<bool> {
        let first = side as u64 * SEATS;
        for seat in first..first + SEATS {
            if inode::lock(self.token.as_fd(), seat, true)? {
                let header = self.header();
                // A number of one's own for the time on this seat: whoever saw the former one dead
                // must not take the buffer from this one. (It comes round after 16 million.)
                let generation = header.generations[seat as usize].fetch_add(1, Ordering::Relaxed);
                let me = generation << 8 | (seat as u32 + 1);
                // Whoever sat here before and died with the buffer seems to live again: it is freed.
                let holder = header.holder.load(Ordering::Relaxed);
                if holder & 0xff == me & 0xff {
                    let free = (Ordering::AcqRel, Ordering::Relaxed);
                    let _ = header.holder.compare_exchange(holder, 0, free.0, free.1);
                }
                self.me = me;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether somebody else sits on `side`.
    pub(super) fn attended(&self, side: usize) -> bool {
        inode::is_locked(self.token.as_fd(), side as u64 * SEATS, SEATS).unwrap_or(true)
    }

    /// Makes the semaphores, or opens them if they are there. `None`: another process is making
    /// them just now.
    pub(super) fn set_up(&mut self, name: Option<&str>, mode: u32) -> io::Result<Option<()>> {
        let header = self.header();
        let at = |field: &[u8; 64]| {
            // SAFETY: the field is 64 bytes of the mapping, which outlives `semaphores`.
            unsafe { Semaphore::at(field.as_ptr().cast_mut()) }
        };
        let inside = [at(&header.guard), at(&header.items), at(&header.room)];
        let names = name.filter(|_| self.is_named()).map(names);
        let making = header.state.load(Ordering::Acquire) == NEW;
        if making {
            if !inode::lock(self.fd(), MAKING, true)? {
                return Ok(None);
            }
            // The former maker may have finished just before it gave up the lock.
            if header.state.load(Ordering::Acquire) != NEW {
                inode::unlock(self.fd(), MAKING)?;
                return Ok(None);
            }
        }
        let mut open = Vec::new();
        let values = [1, 0, 0];
        for (index, value) in values.into_iter().enumerate() {
            match (&names, making) {
                (Some(names), true) => {
                    let _ = Named::unlink(&names[index]);
                    open.push(Named::create(&names[index], mode, value)?);
                }
                (Some(names), false) => open.push(Named::open(&names[index])?),
                (None, true) => inside[index].init(value)?,
                (None, false) => {}
            }
        }
        if making {
            // SYNC: the semaphores are made before anybody who sees READY uses them. An exchange, as
            // somebody may have found the buffer abandoned and marked it as going just before.
            let (new, made) = (Ordering::Release, Ordering::Relaxed);
            let made = header.state.compare_exchange(NEW, READY, new, made);
            inode::unlock(self.fd(), MAKING)?;
            if made.is_err() {
                for name in names.iter().flatten() {
                    let _ = Named::unlink(name);
                }
                return Ok(None);
            }
        }
        let which = |index: usize| open.get(index).map_or(inside[index], Named::semaphore);
        self.semaphores = Some(Semaphores {
            guard: which(0),
            items: which(1),
            room: which(2),
            _named: open,
        });
        Ok(Some(()))
    }

    fn semaphores(&self) -> io::Result<&Semaphores> {
        self.semaphores
            .as_ref()
            .ok_or_else(|| io::Error::other("the semaphores are not open"))
    }

    /// Gets hold of the buffer; `None` when `deadline` came first.
    pub(super) fn hold(&self, deadline: Deadline) -> io::Result<Option<Held<'_>>> {
        let gate = self.semaphores()?.guard;
        loop {
            let ticket = gate.try_wait() || gate.wait(deadline.at_most(LOOK))?;
            if self.claim()? {
                return Ok(Some(Held {
                    memory: self,
                    gate,
                    ticket,
                }));
            }
            if deadline.passed() {
                return Ok(None);
            }
        }
    }

    /// Becomes the holder if there is none, or a dead one; false if there is a living one.
    fn claim(&self) -> io::Result<bool> {
        let holder = &self.header().holder;
        let mut seen = 0;
        loop {
            // SYNC: what the last holder did to the buffer is seen by the next. Acquire pairs with
            // the Release in `Held::drop`. A dead holder released nothing; but its stores were made
            // before the kernel dropped its lock, which was seen below.
            let claimed =
                holder.compare_exchange(seen, self.me, Ordering::Acquire, Ordering::Relaxed);
            let Err(other) = claimed else {
                return Ok(true);
            };
            let seat = u64::from(other & 0xff).wrapping_sub(1);
            if other != 0 && seat < 2 * SEATS && inode::is_locked(self.fd(), seat, 1)? {
                // It lives, and opens the gate when it is done.
                return Ok(false);
            }
            seen = other;
        }
    }

    /// Sleeps until somebody put something in (0) or took something out (1), or until `deadline`.
    pub(super) fn sleep(&self, which: usize, deadline: Deadline) -> io::Result<bool> {
        let semaphores = self.semaphores()?;
        [semaphores.items, semaphores.room][which].wait(deadline)
    }

    /// Wakes one who sleeps there.
    pub(super) fn wake(&self, which: usize) {
        if let Ok(semaphores) = self.semaphores() {
            [semaphores.items, semaphores.room][which].post();
        }
    }

    fn data(&self) -> *mut u8 {
        // SAFETY: HEADER bytes and more are mapped.
        unsafe { self.map.as_mut_ptr().add(HEADER) }
    }
}

/// The buffer, held by this process.
pub(super) struct Held<'a> {
    memory: &'a Memory,
    gate: Semaphore,
    ticket: bool,
}

impl Held<'_> {
    /// Puts `bytes` at `position`, which wraps at the end.
    pub(super) fn write(&self, position: u64, bytes: &[u8]) {
        let capacity = self.memory.capacity;
        assert!(bytes.len() <= capacity);
        let start = (position % capacity as u64) as usize;
        let first = bytes.len().min(capacity - start);
        // SAFETY: both parts lie within the `capacity` bytes of data: start < capacity, first <=
        // capacity - start, and the rest is at most capacity - first. So they do within `bytes`, which they
        // make up together; and it is not that data, which is lent to nobody as a slice. Others keep away
        // while this process holds the buffer.
        unsafe {
            let data = self.memory.data();
            data.add(start)
                .copy_from_nonoverlapping(bytes.as_ptr(), first);
            data.copy_from_nonoverlapping(bytes.as_ptr().add(first), bytes.len() - first);
        }
    }

    /// Copies what is at `position`, which wraps at the end.
    pub(super) fn read(&self, position: u64, into: &mut [u8]) {
        let capacity = self.memory.capacity;
        assert!(into.len() <= capacity);
        let start = (position % capacity as u64) as usize;
        let first = into.len().min(capacity - start);
        // SAFETY: as in `write`, with `into` in place of `bytes`, which is borrowed for writing. The bytes of
        // shared memory are always initialised.
        unsafe {
            let data = self.memory.data();
            into.as_mut_ptr()
                .copy_from_nonoverlapping(data.add(start), first);
            into.as_mut_ptr()
                .add(first)
                .copy_from_nonoverlapping(data, into.len() - first);
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // SYNC: what the last holder did to the buffer is seen by the next. A compare-exchange: if
        // somebody took us for dead (a truncated lock table, say), the buffer is no longer ours.
        let holder = &self.memory.header().holder;
        let _ = holder.compare_exchange(self.memory.me, 0, Ordering::Release, Ordering::Relaxed);
        if !self.ticket {
            // The ticket of whoever died is lost, or still in the hand of somebody who has not
            // looked yet, and who gives it up when it does.
            // There are no more tickets than participants, unless somebody forges them.
            for _ in 0..2 * SEATS {
                if !self.gate.try_wait() {
                    break;
                }
            }
        }
        self.gate.post();
    }
}
