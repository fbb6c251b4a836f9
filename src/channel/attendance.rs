//! Who attends a channel that has no shared memory: kept in the inode of the pipe, FIFO or queue.
//!
//! | question | answered by |
//! | --- | --- |
//! | is somebody there? | a lock on a byte of the inode, held by each who attends (pipes: by the kernel, as end of file and `EPIPE`) |
//! | did the last one leave, or die? | a mode bit, set by whoever leaves, cleared by whoever comes |
//! | was anybody ever there? | a mode bit, set by whoever comes |
//! | is the name about to vanish? | a mode bit, set by the last one before it removes the name |
//!
//! The locks die with their holders and the bits outlive everybody, so that "left" and "died"
//! differ without any memory, file or message besides the channel itself. The bits are those for
//! executing and set-user-id, which mean nothing here. Only the inode's owner may set them: where another user
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
    /// The bytes of the inode that those on this side hold locks on: the first, and how many.
    fn bytes(self) -> (u64, u64) {
        match self {
            Side::Sending => (0, SEATS),
            Side::Receiving => (SEATS, SEATS),
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

/// How many can attend on one side at once.
const SEATS: u64 = 1024;
/// The bit of an inode whose name is being removed.
const GOING: u32 = 0o4000;
/// Those who may open it.
const PERMISSIONS: u32 = 0o666;

/// Takes a seat on `side`: a lock that shows that somebody is there, and dies with the process.
/// `writable` says what `fd` allows. False when all seats are taken.
pub(crate) fn sit(fd: BorrowedFd<'_>, side: Side, writable: bool) -> io::Result<bool> {
    let (first, count) = side.bytes();
    if !writable {
        return inode::lock(fd, first, false);
    }
    for byte in first..first + count {
        if inode::lock(fd, byte, true)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether somebody else sits on `side`.
pub(crate) fn attended(fd: BorrowedFd<'_>, side: Side) -> io::Result<bool> {
    let (first, count) = side.bytes();
    inode::is_locked(fd, first, count)
}

/// Whether somebody else sits on either side.
fn anybody(fd: BorrowedFd<'_>) -> bool {
    [Side::Sending, Side::Receiving]
        .iter()
        .any(|side| attended(fd, *side).unwrap_or(true))
}

/// The bits of an inode with `mode` that may be opened as `permissions` says.
pub(crate) fn permitting(mode: u32, permissions: u32) -> u32 {
    mode & !PERMISSIONS | permissions & PERMISSIONS
}

/// Notes that somebody has come to `side`, and sets the permissions if it made the inode. Where
/// nobody else sits and `empty` says so, what is known of former peers is forgotten: a crash leaves
/// nothing that a new pair would trip over. False when the inode's name is being removed: whoever
/// came by name looks again for another.
pub(crate) fn come(
    fd: BorrowedFd<'_>,
    side: Side,
    made: Option<u32>,
    empty: impl FnOnce() -> bool,
) -> io::Result<bool> {
    let _guard = inode::guard(fd);
    let mut mode = inode::mode(fd)?;
    if mode & GOING != 0 {
        return Ok(false);
    }
    if !anybody(fd) && empty() {
        mode &= !(side.other().came() | side.other().left());
    }
    if let Some(permissions) = made {
        mode = permitting(mode, permissions);
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

/// As [`leave`]; and if nobody else sits on either side and `empty` says so, runs `remove`, which
/// removes the name.
pub(crate) fn leave_and_remove(
    fd: BorrowedFd<'_>,
    side: Side,
    empty: impl FnOnce() -> bool,
    remove: impl FnOnce(),
) {
    let _guard = inode::guard(fd);
    let Ok(mode) = inode::mode(fd) else { return };
    // Before it gets up, or a peer that looks in between takes it for dead.
    let _ = inode::set_mode(fd, mode | side.left());
    // Got up under the guard: of two who leave at once, the second sees that the first is gone.
    // A newcomer sits down first and takes the guard then: either it is seen here, or it sees GOING.
    let _ = inode::unlock_all(fd);
    let mode = if attended(fd, side).unwrap_or(false) {
        mode // what becomes of this side is for those who stay to say
    } else {
        mode | side.left()
    };
    if !anybody(fd) && empty() && inode::set_mode(fd, mode | GOING).is_ok() {
        remove();
    } else {
        let _ = inode::set_mode(fd, mode);
    }
}

/// Runs `remove`, which removes the name and says whether it did, if nobody sits on either side and
/// `empty` says so: for one who never sat there. Whether the name is gone. Whoever comes meanwhile sees
/// that it is going, and makes it anew.
pub(crate) fn remove_if_unattended(
    fd: BorrowedFd<'_>,
    empty: impl FnOnce() -> bool,
    remove: impl FnOnce() -> bool,
) -> bool {
    let Some(_guard) = inode::guard(fd) else {
        return false;
    };
    let Ok(mode) = inode::mode(fd) else {
        return false;
    };
    if anybody(fd) || !empty() || inode::set_mode(fd, mode | GOING).is_err() {
        return false;
    }
    // Looked at again: whoever sat down before the mark was there waits for this guard, and then sees it.
    let removed = !anybody(fd) && remove();
    if !removed {
        let _ = inode::set_mode(fd, mode & !GOING);
    }
    removed
}

/// How often one who comes looks again, a millisecond apart, at a name that is just being removed, and how
/// often before it takes a hand.
pub(crate) const GOING_MOST: u32 = 1000;
pub(crate) const GOING_PATIENCE: u32 = 50;

/// Runs `remove`, which removes the name, if one who was to remove it was killed after it had said so.
/// Nobody attends such an inode, or ever will: whoever comes sees the mark and turns away. `remove` makes
/// sure that the name is still that of this inode; as every other one who removes has the guard, too, it
/// stays so until it is done.
pub(crate) fn finish_removal(fd: BorrowedFd<'_>, remove: impl FnOnce()) {
    let Some(_guard) = inode::guard(fd) else {
        return;
    };
    if inode::mode(fd).is_ok_and(|mode| mode & GOING != 0) {
        remove();
    }
}

/// What is known of `side`, whose seats or hang-up `is_there` looks at. Looked at together with the bits, under the
/// guard: a successor that comes between the two looks clears the bit of one who left, who would seem to have died.
pub(crate) fn gone(fd: BorrowedFd<'_>, side: Side, is_there: impl FnOnce() -> bool) -> Peer {
    let _guard = inode::guard(fd);
    if is_there() {
        return Peer::Here;
    }
    // Whoever left set its bit before it got up.
    match inode::mode(fd) {
        Ok(mode) if mode & side.left() != 0 => Peer::Left,
        Ok(mode) if mode & side.came() != 0 => Peer::Died,
        _ => Peer::Never,
    }
}

/// What is known of `side`, where those who attend sit.
pub(crate) fn peer(fd: BorrowedFd<'_>, side: Side) -> Peer {
    let is_there = || attended(fd, side).unwrap_or(false);
    if is_there() {
        return Peer::Here;
    }
    gone(fd, side, is_there)
}
