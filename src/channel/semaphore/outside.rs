//! What one who takes no part sees of a buffer, and how a dead one's name is taken away.

use std::io;
use std::path::Path;

use super::memory::{self, Memory};
use super::{GOING, Named, RECEIVING, SENDING, path_of};
use crate::Error;
use crate::os::{self, shm};
use crate::primitive::Ordering;

/// What a look at a buffer shows.
#[cfg(feature = "cli")]
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

fn is_attended(memory: &Memory) -> bool {
    memory.attended(SENDING) || memory.attended(RECEIVING)
}

fn used(memory: &Memory) -> u64 {
    let header = memory.header();
    let head = header.head.load(Ordering::Relaxed);
    let tail = header.tail.load(Ordering::Relaxed);
    tail.wrapping_sub(head).min(memory.capacity() as u64)
}

/// Looks at the buffer at `path`.
#[cfg(feature = "cli")]
pub(crate) fn look(path: &Path) -> io::Result<Look> {
    open(path).map(|memory| Look {
        attended: is_attended(&memory),
        used: used(&memory),
        capacity: memory.capacity() as u64,
    })
}

/// Takes the name away, if it is still that of this buffer; and before it, so that they do not outlive it,
/// those of the semaphores. The caller has the inode's guard and knows that nobody attends: whoever comes
/// takes the guard next, and sees GOING.
pub(super) fn remove(memory: &Memory, path: &Path, name: &str) -> io::Result<()> {
    memory.header().state.store(GOING, Ordering::Release);
    if !os::inode::is_at(memory.fd(), path) {
        return Ok(());
    }
    if memory.is_named() {
        for name in memory::names(name) {
            let _ = Named::unlink(&name);
        }
    }
    std::fs::remove_file(path)
}

/// Takes the buffer `name`, and what waits in it, away if nobody attends it. False when somebody does.
pub(crate) fn remove_abandoned(name: &str) -> Result<bool, Error> {
    let path = path_of(name)?;
    match remove_if_abandoned(&path, name.trim_start_matches('/'), true) {
        Ok(what) => Ok(what == Abandoned::Removed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::os("unlink", name, error)),
    }
}

/// Takes the buffer `name` at `path` away if nobody attends it; with what is in it only if `undelivered`
/// says so. Whoever comes sits down first and then takes the guard: it is seen here, or it sees GOING.
pub(crate) fn remove_if_abandoned(
    path: &Path,
    name: &str,
    undelivered: bool,
) -> io::Result<Abandoned> {
    remove_if_unattended(&open(path)?, path, name, undelivered)
}

/// As [`remove_if_abandoned`], for the buffer `memory`, which need not be the one at `path` any more: another
/// that has replaced it is left alone. Whoever has `memory` itself does not count.
pub(super) fn remove_if_unattended(
    memory: &Memory,
    path: &Path,
    name: &str,
    undelivered: bool,
) -> io::Result<Abandoned> {
    let Some(_guard) = os::inode::guard(memory.fd()) else {
        return Ok(Abandoned::InUse);
    };
    if is_attended(memory) {
        return Ok(Abandoned::InUse);
    }
    if used(memory) > 0 && !undelivered {
        return Ok(Abandoned::Undelivered);
    }
    remove(memory, path, name)?;
    Ok(Abandoned::Removed)
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Receiver, Sender};
    use super::*;
    use crate::channel::{Receiver as _, Sender as _};

    /// One who found a buffer that is going, and removes it, may come late.
    #[test]
    fn a_buffer_that_has_replaced_the_failing_one_keeps_its_messages() {
        for named in [false, true] {
            let name = format!("test-sem-late-{}-{named}", std::process::id());
            let path = path_of(&name).unwrap();
            let config = Config::default().named_semaphores(named);
            let first = Sender::open(&name, config.clone()).unwrap();
            let failing = open(&path).unwrap();
            drop(first);
            assert!(!path.exists());
            let mut tx = Sender::open(&name, config).unwrap();
            tx.send(b"kept").unwrap();
            drop(tx);
            remove_if_unattended(&failing, &path, &name, true).unwrap();
            let mut rx = Receiver::attach(&name).unwrap();
            let mut got = Vec::new();
            rx.try_recv(&mut got).unwrap();
            assert_eq!(got, b"kept");
            drop(rx);
            assert!(!path.exists());
        }
    }
}
