//! What the inode behind a descriptor tells, and what can be kept in it.
//!
//! Pipes, FIFOs and message queues have no memory that both ends share, but they do have an inode:
//! its locks say who is there and die with their holder, and its mode bits outlive everybody.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{check, retry};

fn stat(fd: BorrowedFd<'_>) -> io::Result<libc::stat> {
    // SAFETY: an all-zero stat is a valid place to read one into.
    let mut stat: libc::stat = unsafe { core::mem::zeroed() };
    // SAFETY: `stat` is writable.
    check(unsafe { libc::fstat(fd.as_raw_fd(), &mut stat).into() })?;
    Ok(stat)
}

/// The kind of file (`S_IFIFO`, ...).
pub(crate) fn kind(fd: BorrowedFd<'_>) -> io::Result<libc::mode_t> {
    Ok(stat(fd)?.st_mode & libc::S_IFMT)
}

/// The permission bits.
pub(crate) fn mode(fd: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(stat(fd)?.st_mode & 0o7777)
}

/// Sets the permission bits; only the owner may.
pub(crate) fn set_mode(fd: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    // SAFETY: fchmod takes two integers.
    check(unsafe { libc::fchmod(fd.as_raw_fd(), mode as libc::mode_t).into() }).map(drop)
}

/// Device and inode number, which name the file, and its owner.
pub(crate) fn identity(fd: BorrowedFd<'_>) -> io::Result<(u64, u64, u32)> {
    stat(fd).map(|stat| (stat.st_dev, stat.st_ino, stat.st_uid))
}

/// The user this process acts as.
pub(crate) fn effective_user() -> u32 {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// An exclusive lock on the whole inode (`flock`, which any descriptor may take, also one that
/// cannot write), given up when this is dropped and when the process dies.
pub(crate) struct Guard<'a>(BorrowedFd<'a>);

/// Takes the inode's lock. Gives up after a second: whoever is stopped while holding it must not
/// stop everybody (it is held for a few microseconds).
pub(crate) fn guard(fd: BorrowedFd<'_>) -> Option<Guard<'_>> {
    for round in 0..200 {
        // SAFETY: flock takes two integers.
        let result = retry(|| unsafe {
            libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) as libc::c_long
        });
        match result {
            Ok(_) => return Some(Guard(fd)),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return None,
            Err(_) if round < 20 => super::yield_now(),
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(5)),
        }
    }
    None
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        // SAFETY: flock takes two integers.
        unsafe { libc::flock(self.0.as_raw_fd(), libc::LOCK_UN) };
    }
}

fn lock_of(kind: libc::c_int, byte: u64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte as libc::off_t,
        l_len: 1,
        l_pid: 0,
    }
}

/// Takes an open-file-description lock on `byte`: a shared one if `fd` can only be read, and
/// otherwise an exclusive one. False when another description holds a lock that excludes it.
pub(crate) fn lock(fd: BorrowedFd<'_>, byte: u64, exclusive: bool) -> io::Result<bool> {
    let lock = lock_of(
        if exclusive {
            libc::F_WRLCK
        } else {
            libc::F_RDLCK
        },
        byte,
    );
    // SAFETY: F_OFD_SETLK reads `lock`.
    let result = retry(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &lock).into() });
    match result {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether another description holds a lock on `byte`.
pub(crate) fn is_locked(fd: BorrowedFd<'_>, byte: u64) -> io::Result<bool> {
    let mut lock = lock_of(libc::F_WRLCK, byte);
    // SAFETY: F_OFD_GETLK reads and writes `lock`.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &mut lock).into() })?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}
