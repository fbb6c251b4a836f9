//! What one who takes no part sees of a buffer, and how a dead one's name is taken away.

use std::io;
use std::path::Path;

use super::memory::{self, Memory};
use super::{GOING, Named, RECEIVING, SENDING};
use crate::os::{self, shm};
use crate::primitive::Ordering;

/// What a look at a buffer shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Whether anybody attends on either side.
    pub(crate) attended: bool,
    /// Bytes that wait in it.
    pub(crate) used: u64,
    pub(crate) capacity: u64,
}

/// What became of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Abandoned {
    Removed,
    InUse,
    Undelivered,
}

fn open(path: &Path) -> io::Result<Memory> {
    Memory::map(shm::open(path, true)?).map_err(|refusal| match refusal {
        Ok(why) => io::Error::new(io::ErrorKind::InvalidData, why),
        Err(error) => error,
    })
}

fn seen(memory: &Memory) -> Look {
    let header = memory.header();
    let head = header.head.load(Ordering::Relaxed);
    let tail = header.tail.load(Ordering::Relaxed);
    let capacity = memory.capacity() as u64;
    Look {
        attended: memory.attended(SENDING) || memory.attended(RECEIVING),
        used: tail.wrapping_sub(head).min(capacity),
        capacity,
    }
}

/// Looks at the buffer at `path`.
pub(crate) fn look(path: &Path) -> io::Result<Look> {
    open(path).map(|memory| seen(&memory))
}

/// Takes the buffer `name` at `path` away if nobody attends it; with what is in it only if `undelivered`
/// says so. Whoever comes sits down first and then takes the guard: it is seen here, or it sees GOING.
pub(crate) fn remove_if_abandoned(
    path: &Path,
    name: &str,
    undelivered: bool,
) -> io::Result<Abandoned> {
    let memory = open(path)?;
    let Some(_guard) = os::inode::guard(memory.fd()) else {
        return Ok(Abandoned::InUse);
    };
    let look = seen(&memory);
    if look.attended {
        return Ok(Abandoned::InUse);
    }
    if look.used > 0 && !undelivered {
        return Ok(Abandoned::Undelivered);
    }
    memory.header().state.store(GOING, Ordering::Release);
    if memory.is_named() {
        for name in memory::names(name) {
            let _ = Named::unlink(&name);
        }
    }
    if os::inode::is_at(memory.fd(), path) {
        std::fs::remove_file(path)?;
    }
    Ok(Abandoned::Removed)
}
