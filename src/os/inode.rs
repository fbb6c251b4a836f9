//! What the inode behind a descriptor tells, and what can be kept in it.
//!
//! Pipes, FIFOs and message queues have no memory that both ends share, but they do have an inode:
//! its locks say who is there and die with their holder, and its mode bits outlive everybody.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::{check, fork, retry};

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

fn lock_of(kind: libc::c_int, first: u64, count: u64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: first as libc::off_t,
        l_len: count as libc::off_t,
        l_pid: 0,
    }
}

/// Takes an open-file-description lock on `byte`: an exclusive one, for which `fd` must be
/// writable, or a shared one, for which it must be readable. False when another description holds
/// a lock that excludes it.
pub(crate) fn lock(fd: BorrowedFd<'_>, byte: u64, exclusive: bool) -> io::Result<bool> {
    let kind = if exclusive {
        libc::F_WRLCK
    } else {
        libc::F_RDLCK
    };
    let lock = lock_of(kind, byte, 1);
    let result = retry(|| {
        // SAFETY: F_OFD_SETLK reads `lock`.
        unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &lock).into() }
    });
    match result {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether another description holds a lock on one of `count` bytes from `first` on.
pub(crate) fn is_locked(fd: BorrowedFd<'_>, first: u64, count: u64) -> io::Result<bool> {
    let mut lock = lock_of(libc::F_WRLCK, first, count);
    // SAFETY: F_OFD_GETLK reads and writes `lock`.
    retry(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &mut lock).into() })?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}

/// Whether `path` itself, not what a symbolic link there leads to, is the file behind `fd`.
pub(crate) fn is_at(fd: BorrowedFd<'_>, path: &std::path::Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (std::fs::symlink_metadata(path), identity(fd)) {
        (Ok(there), Ok((device, inode, _))) => (there.dev(), there.ino()) == (device, inode),
        _ => false,
    }
}

/// A descriptor whose locks are a token of this process's life: it is closed in forked children.
#[derive(Debug)]
pub(crate) struct Token {
    fd: std::mem::ManuallyDrop<OwnedFd>,
    mark: fork::Mark,
}

impl Token {
    /// Takes `fd` over. Fails when there is no room to remember it.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Token> {
        if !fork::close_on_fork(fd.as_raw_fd()) {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        Ok(Token {
            fd: std::mem::ManuallyDrop::new(fd),
            mark: fork::Mark::here(),
        })
    }

    /// Whether this is the process that took it, and the descriptor thus open.
    pub(crate) fn is_here(&self) -> bool {
        self.mark.is_here()
    }
}

impl AsFd for Token {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        // In a forked child the number was closed at the fork and may by now be somebody else's.
        if self.is_here() {
            // Closing is not enough: a process that another thread has started just now has a copy of the
            // descriptor until it runs its program, and with it the locks.
            let _ = unlock_all(self.fd.as_fd());
            // SAFETY: flock takes two integers.
            unsafe { libc::flock(self.fd.as_raw_fd(), libc::LOCK_UN) };
            fork::forget(self.fd.as_raw_fd());
            // SAFETY: dropped here only, and not used again.
            unsafe { std::mem::ManuallyDrop::drop(&mut self.fd) };
        }
    }
}

/// Claims the inode for this file description, until it is closed. False when another has it.
pub(crate) fn claim(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let result = retry(|| {
        // SAFETY: flock takes two integers.
        unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB).into() }
    });
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens the plain file at `path`, made for its owner only if it is not there; a symbolic link is
/// refused (`ELOOP`).
pub(crate) fn open_file(path: &std::path::Path) -> io::Result<OwnedFd> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
        .map(OwnedFd::from)
}

/// Gives up the lock on `byte`.
pub(crate) fn unlock(fd: BorrowedFd<'_>, byte: u64) -> io::Result<()> {
    give_up(fd, byte, 1)
}

/// Gives up all locks that this file description has.
pub(crate) fn unlock_all(fd: BorrowedFd<'_>) -> io::Result<()> {
    give_up(fd, 0, 0) // a length of 0 is up to the end
}

fn give_up(fd: BorrowedFd<'_>, first: u64, count: u64) -> io::Result<()> {
    let lock = lock_of(libc::F_UNLCK, first, count);
    // SAFETY: F_OFD_SETLK reads `lock`.
    retry(|| unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &lock).into() }).map(drop)
}

/// Opens the file behind `fd` anew, for reading and writing: a description, and locks, of its own.
pub(crate) fn reopen(fd: BorrowedFd<'_>) -> io::Result<std::fs::File> {
    std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As one that another thread has started, and that has yet to run its program.
    #[test]
    fn a_seat_that_was_given_up_is_free_though_a_new_process_has_a_copy_of_its_descriptor() {
        let path = std::env::temp_dir().join(format!("ringway-token-{}", std::process::id()));
        let token = Token::new(open_file(&path).unwrap()).unwrap();
        assert!(lock(token.as_fd(), 3, true).unwrap() && claim(token.as_fd()).unwrap());
        // SAFETY: the child makes system calls only; a bare call runs no handler that closes tokens.
        let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) } as i32;
        if child == 0 {
            // SAFETY: pause and _exit take no pointers.
            unsafe {
                libc::pause();
                libc::_exit(0);
            }
        }
        assert!(child > 0);
        drop(token);
        let other = open_file(&path).unwrap();
        let free = (lock(other.as_fd(), 3, true), claim(other.as_fd()));
        // SAFETY: these take integers, and a null pointer for a status that nobody wants.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, core::ptr::null_mut(), 0);
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(free, (Ok(true), Ok(true))), "{free:?}");
    }
}
