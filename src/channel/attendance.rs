//! Who attends a channel that has no shared memory: kept in the inode of the pipe, FIFO or queue.
//!
//! | question | answered by |
//! | --- | --- |
//! | is somebody there? | a lock on a byte of the inode, held by each who attends (pipes: by the kernel, as end of file and `EPIPE`) |
//! | did the last one leave, or die? | a mode bit, set by whoever leaves, cleared by whoever comes |
//! | was anybody ever there? | a mode bit, set by whoever comes |
//! | is the name about to vanish? | the owner's read and write bits are gone |
//!
//! The locks die with their holders and the bits outlive everybody, so that "left" and "died"
//! differ without any memory, file or message besides the channel itself. The bits are those for
//! executing, which mean nothing here. Only the inode's owner may set them: where another user
//! attends, a leaver among the strangers is reported as dead.

use std::io;
use std::os::fd::BorrowedFd;

use crate::os::inode;

/// One side of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// It sends.
    Sending,
    /// It receives.
    Receiving,
}

/// What is known of the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Nobody has come yet.
    Never,
    /// Somebody is there.
    Here,
    /// The last one to go closed its end.
    Left,
    /// They are gone, and none of them closed its end.
    Died,
}

impl Side {
    /// The byte of the inode that those on this side hold a lock on.
    pub(crate) fn byte(self) -> u64 {
        match self {
            Side::Sending => 0,
            Side::Receiving => 1,
        }
    }

    fn came(self) -> u32 {
        match self {
            Side::Sending => 0o100,
            Side::Receiving => 0o001,
        }
    }

    fn left(self) -> u32 {
        match self {
            Side::Sending => 0o010,
            Side::Receiving => 0o1000,
        }
    }

    /// The other side.
    pub(crate) fn other(self) -> Side {
        match self {
            Side::Sending => Side::Receiving,
            Side::Receiving => Side::Sending,
        }
    }
}

/// The owner's permission to read and write; gone from an inode whose name is being removed.
const ALIVE: u32 = 0o600;

/// Notes that somebody has come to `side`. False when the inode's name is being removed: whoever
/// came by name looks again for another.
pub(crate) fn come(fd: BorrowedFd<'_>, side: Side) -> io::Result<bool> {
    let _guard = inode::guard(fd);
    let mode = inode::mode(fd)?;
    if mode & ALIVE == 0 {
        return Ok(false);
    }
    // Not the owner: the bits stay, and the locks must do.
    let _ = inode::set_mode(fd, (mode | side.came()) & !side.left());
    Ok(true)
}

/// Notes that somebody leaves `side`.
pub(crate) fn leave(fd: BorrowedFd<'_>, side: Side) {
    let _guard = inode::guard(fd);
    if let Ok(mode) = inode::mode(fd) {
        let _ = inode::set_mode(fd, mode | side.left());
    }
}

/// As [`leave`]; and if nobody else attends and `empty` says so, runs `remove`, which removes the
/// name.
pub(crate) fn leave_and_remove(
    fd: BorrowedFd<'_>,
    side: Side,
    empty: impl FnOnce() -> bool,
    remove: impl FnOnce(),
) {
    let _guard = inode::guard(fd);
    let Ok(mode) = inode::mode(fd) else { return };
    let attended = [Side::Sending, Side::Receiving]
        .iter()
        .any(|side| inode::is_locked(fd, side.byte()).unwrap_or(true));
    if !attended && mode & ALIVE != 0 && empty() && inode::set_mode(fd, mode & !ALIVE).is_ok() {
        remove();
    } else {
        let _ = inode::set_mode(fd, mode | side.left());
    }
}

/// What is known of `side` once nobody is there any more.
pub(crate) fn gone(fd: BorrowedFd<'_>, side: Side) -> Peer {
    match inode::mode(fd) {
        Ok(mode) if mode & side.left() != 0 => Peer::Left,
        Ok(mode) if mode & side.came() != 0 => Peer::Died,
        _ => Peer::Never,
    }
}

/// What is known of `side`, where those who attend hold its lock.
pub(crate) fn peer(fd: BorrowedFd<'_>, side: Side) -> Peer {
    if inode::is_locked(fd, side.byte()).unwrap_or(false) {
        return Peer::Here;
    }
    // Read after the lock was seen free: whoever left set its bit before it gave up its lock.
    gone(fd, side)
}
