//! Message queues of the kernel: POSIX and System V.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, MutexGuard};

use super::super::control::Role;
use super::super::link::{Link, Outcome};
use super::super::worker::Job;
use super::{Ends, directions};
use crate::os::bare::{self, SystemVQueue};

/// How many messages a POSIX queue holds: the most that an ordinary user may ask for.
const DEPTH: usize = 10;

/// Two POSIX queues, there and back, whose names are gone.
pub(super) fn posix(size: usize) -> Outcome<[OwnedFd; 2]> {
    let max = size.max(8);
    let _names = names();
    Ok([
        bare::posix_queue(DEPTH, max)?,
        bare::posix_queue(DEPTH, max)?,
    ])
}

/// One end of two POSIX queues.
pub(super) struct PosixLink {
    output: OwnedFd,
    input: OwnedFd,
    room: [u8; 8],
}

impl PosixLink {
    pub(super) fn new(role: Role, ends: &mut Ends) -> PosixLink {
        let (out, back) = directions(role);
        PosixLink {
            output: ends.take(out),
            input: ends.take(back),
            room: [0; 8],
        }
    }
}

impl Link for PosixLink {
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        Ok(bare::posix_send(self.output.as_fd(), message)?)
    }

    fn recv(&mut self, into: &mut [u8]) -> Outcome<usize> {
        if into.len() < self.room.len() {
            // The kernel refuses a buffer that is smaller than the queue's maximum.
            let len = bare::posix_recv(self.input.as_fd(), &mut self.room)?;
            let fits = len.min(into.len());
            into[..fits].copy_from_slice(&self.room[..fits]);
            return Ok(len);
        }
        Ok(bare::posix_recv(self.input.as_fd(), into)?)
    }
}

/// The System V queues that exist now: the kernel keeps them until they are removed. Also held by
/// whoever makes a name and takes it away again, so that no end can come in between.
static ALIVE: Mutex<Vec<SystemVQueue>> = Mutex::new(Vec::new());

/// To be held while something exists that the kernel would keep.
pub(super) fn names() -> MutexGuard<'static, Vec<SystemVQueue>> {
    ALIVE
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A System V queue that is removed when this is dropped.
pub(crate) struct SystemVOwner(SystemVQueue);

impl SystemVOwner {
    pub(super) fn id(&self) -> SystemVQueue {
        self.0
    }
}

impl Drop for SystemVOwner {
    fn drop(&mut self) {
        let mut alive = names();
        alive.retain(|&id| id != self.0);
        bare::system_v_remove(self.0);
    }
}

/// Removes every System V queue, for a program that is about to be ended by a signal; from then on
/// none can be made, so that none is left.
pub(crate) fn remove_all() {
    let alive = names();
    for &id in alive.iter() {
        bare::system_v_remove(id);
    }
    std::mem::forget(alive);
}

/// Two System V queues, there and back.
pub(super) fn system_v() -> Outcome<Vec<SystemVOwner>> {
    let make = || -> Outcome<SystemVOwner> {
        let mut alive = names();
        let id = bare::system_v_queue()?;
        alive.push(id);
        Ok(SystemVOwner(id))
    };
    Ok(vec![make()?, make()?])
}

/// One end of two System V queues.
pub(super) struct SystemVLink {
    output: SystemVQueue,
    input: SystemVQueue,
    /// A message behind its type.
    framed: Vec<u8>,
}

impl SystemVLink {
    pub(super) fn new(job: &Job) -> Outcome<SystemVLink> {
        let (out, back) = directions(job.role);
        let &[there, returning] = job.queues.as_slice() else {
            return Err("two System V queues are needed".into());
        };
        let queues = [there, returning];
        let mut framed = vec![0; 8 + job.case.size];
        framed[..8].copy_from_slice(&1u64.to_ne_bytes());
        Ok(SystemVLink {
            output: queues[out],
            input: queues[back],
            framed,
        })
    }
}

impl Link for SystemVLink {
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        self.framed[8..].copy_from_slice(message);
        Ok(bare::system_v_send(self.output, &self.framed)?)
    }

    fn recv(&mut self, into: &mut [u8]) -> Outcome<usize> {
        let len = bare::system_v_recv(self.input, &mut self.framed)?;
        into[..len].copy_from_slice(&self.framed[8..8 + len]);
        Ok(len)
    }
}
