//! Shared memory guarded by two counters, the way of the textbooks: slots, a counter of filled ones
//! and a counter of free ones. The counters are POSIX semaphores or eventfds.

use std::os::fd::{AsFd, OwnedFd};

use super::super::link::{Link, Outcome};
use super::super::worker::Job;
use super::{Ends, directions};
use crate::os::bare::{self, Area, SharedSemaphore};

/// Where the slots begin; before it lie the semaphores, each on its own line pair.
const SLOTS_AT: usize = 4096;
const FREE_AT: usize = 0;
const FILLED_AT: usize = 256;

/// A slot is a length and the bytes, in whole cache lines.
fn stride(size: usize) -> usize {
    (8 + size).next_multiple_of(64)
}

/// As many slots as make about 256 KiB, at least 2 and at most 1,024.
fn slots(size: usize) -> usize {
    (256 * 1024 / stride(size)).clamp(2, 1024)
}

fn area_len(size: usize) -> usize {
    SLOTS_AT + stride(size) * slots(size)
}

/// The areas there and back, with their semaphores set up.
pub(super) fn semaphores(size: usize) -> Outcome<[OwnedFd; 2]> {
    let make = || -> Outcome<OwnedFd> {
        let fd = Area::create(area_len(size))?;
        let area = Area::map(fd.as_fd(), area_len(size))?;
        for (at, value) in [(FREE_AT, slots(size)), (FILLED_AT, 0)] {
            // SAFETY: both places lie before SLOTS_AT in the mapping, aligned and apart by more
            // than a sem_t, and the value is not used after `area` is dropped.
            let semaphore = unsafe { SharedSemaphore::at(area.base().add(at)) };
            semaphore.init(value as u32)?;
        }
        Ok(fd)
    };
    Ok([make()?, make()?])
}

/// The areas there and back, then the counters of each: free, filled, free, filled.
pub(super) fn eventfds(size: usize) -> Outcome<[OwnedFd; 6]> {
    let counters = || -> Outcome<[OwnedFd; 2]> {
        let (free, filled) = (bare::event_counter()?, bare::event_counter()?);
        for _ in 0..slots(size) {
            bare::event_post(free.as_fd())?;
        }
        Ok([free, filled])
    };
    let areas = [Area::create(area_len(size))?, Area::create(area_len(size))?];
    let ([there, back], [a, b], [c, d]) = (areas, counters()?, counters()?);
    Ok([there, back, a, b, c, d])
}

/// A counter that can be waited on while it is zero.
pub(super) trait Counter {
    fn post(&self) -> Outcome<()>;
    fn wait(&self) -> Outcome<()>;
}

impl Counter for SharedSemaphore {
    fn post(&self) -> Outcome<()> {
        Ok(SharedSemaphore::post(*self)?)
    }

    fn wait(&self) -> Outcome<()> {
        Ok(SharedSemaphore::wait(*self)?)
    }
}

impl Counter for OwnedFd {
    fn post(&self) -> Outcome<()> {
        Ok(bare::event_post(self.as_fd())?)
    }

    fn wait(&self) -> Outcome<()> {
        Ok(bare::event_wait(self.as_fd())?)
    }
}

/// Slots in shared memory in one direction; either end.
struct Slots<C> {
    free: C,
    filled: C,
    area: Area,
    stride: usize,
    slots: usize,
    next: usize,
}

impl<C: Counter> Slots<C> {
    /// The slot whose turn it is.
    fn slot(&mut self) -> *mut u8 {
        let at = SLOTS_AT + self.next * self.stride;
        self.next = (self.next + 1) % self.slots;
        // SAFETY: `next` is below `slots`, so that the whole slot lies in the mapping.
        unsafe { self.area.base().add(at) }
    }

    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        self.free.wait()?;
        let slot = self.slot();
        assert!(8 + message.len() <= self.stride, "a message fits its slot");
        // SAFETY: the slot has `stride` bytes, aligned to 64, and is ours until `filled` is posted.
        unsafe {
            slot.cast::<u64>().write(message.len() as u64);
            core::ptr::copy_nonoverlapping(message.as_ptr(), slot.add(8), message.len());
        }
        self.filled.post()
    }

    fn recv(&mut self, into: &mut [u8]) -> Outcome<usize> {
        self.filled.wait()?;
        let slot = self.slot();
        // SAFETY: the slot is aligned and was filled before `filled` was posted.
        let len = unsafe { slot.cast::<u64>().read() } as usize;
        if len > into.len() {
            return Err(format!("a slot holds {len} bytes instead of {}", into.len()).into());
        }
        // SAFETY: `into` has at least `len` bytes, and so has the slot, which held them when sent;
        // it is ours until `free` is posted.
        unsafe { core::ptr::copy_nonoverlapping(slot.add(8), into.as_mut_ptr(), len) };
        self.free.post()?;
        Ok(len)
    }
}

/// One end of guarded slots in both directions.
pub(super) struct GuardedLink<C> {
    output: Slots<C>,
    input: Slots<C>,
}

/// Guarded by POSIX semaphores.
pub(super) type SemaphoreLink = GuardedLink<SharedSemaphore>;
/// Guarded by eventfds.
pub(super) type EventLink = GuardedLink<OwnedFd>;

fn slots_in<C>(job: &Job, area: Area, counters: impl FnOnce(&Area) -> [C; 2]) -> Slots<C> {
    let [free, filled] = counters(&area);
    Slots {
        free,
        filled,
        area,
        stride: stride(job.case.size),
        slots: slots(job.case.size),
        next: 0,
    }
}

impl SemaphoreLink {
    pub(super) fn new(job: &Job, ends: &mut Ends) -> Outcome<SemaphoreLink> {
        let (out, back) = directions(job.role);
        let mut take = |index| -> Outcome<Slots<SharedSemaphore>> {
            let area = Area::map(ends.take(index).as_fd(), area_len(job.case.size))?;
            Ok(slots_in(job, area, |area| {
                // SAFETY: the parent initialised semaphores at both places, which lie before the
                // slots; the mapping is kept beside them.
                [FREE_AT, FILLED_AT].map(|at| unsafe { SharedSemaphore::at(area.base().add(at)) })
            }))
        };
        Ok(GuardedLink {
            output: take(out)?,
            input: take(back)?,
        })
    }
}

impl EventLink {
    pub(super) fn new(job: &Job, ends: &mut Ends) -> Outcome<EventLink> {
        let (out, back) = directions(job.role);
        let mut take = |index: usize| -> Outcome<Slots<OwnedFd>> {
            let area = Area::map(ends.take(index).as_fd(), area_len(job.case.size))?;
            let counters = [ends.take(2 + 2 * index), ends.take(3 + 2 * index)];
            Ok(slots_in(job, area, |_| counters))
        };
        Ok(GuardedLink {
            output: take(out)?,
            input: take(back)?,
        })
    }
}

impl<C: Counter> Link for GuardedLink<C> {
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        self.output.send(message)
    }

    fn recv(&mut self, into: &mut [u8]) -> Outcome<usize> {
        self.input.recv(into)
    }
}
