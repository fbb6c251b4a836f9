//! Tokens of life: how one process knows that another is dead.
//!
//! The token is an open-file-description lock on one byte of the ring's own file. The kernel drops
//! it when the last descriptor of the description is closed, and so on any death whatever; it is
//! immune to the reuse of process ids and to pid namespaces. A description inherited by a raw
//! `fork` would keep a dead parent's lock: a process descriptor (pidfd) that says dead overrules it.

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::process::Stat;
use super::{check, fork, retry};

fn lock_of(kind: libc::c_int, byte: u64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte as libc::off_t,
        l_len: 1,
        l_pid: 0,
    }
}

/// A file description of one's own for a ring's file, on which locks are held. Its descriptor is
/// closed in forked children, so that the locks die with this process.
pub(crate) struct LockFile {
    /// Closed on drop, unless this is a forked child, in which it is closed already and its number
    /// may be another file's.
    file: ManuallyDrop<File>,
    here: fork::Mark,
}

impl LockFile {
    /// Opens the file behind `fd` anew.
    pub(crate) fn reopen(fd: BorrowedFd<'_>, writable: bool) -> io::Result<LockFile> {
        let path = format!("/proc/self/fd/{}\0", fd.as_raw_fd());
        let mode = if writable {
            libc::O_RDWR
        } else {
            libc::O_RDONLY
        };
        let fd = retry(|| {
            // SAFETY: `path` is a NUL-terminated string.
            unsafe { libc::open(path.as_ptr().cast(), mode | libc::O_CLOEXEC) as libc::c_long }
        })?;
        // SAFETY: open returned a descriptor that nobody else owns.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
        if !fork::close_on_fork(file.as_raw_fd()) {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        Ok(LockFile {
            file: ManuallyDrop::new(file),
            here: fork::Mark::here(),
        })
    }

    /// Whether this is the process that opened it, and not a forked child.
    pub(crate) fn is_here(&self) -> bool {
        self.here.is_here()
    }

    /// Takes the lock on `byte`, for this description alone or shared with others. False when
    /// another description holds it.
    pub(crate) fn try_lock(&self, byte: u64, exclusive: bool) -> io::Result<bool> {
        let lock = lock_of(
            if exclusive {
                libc::F_WRLCK
            } else {
                libc::F_RDLCK
            },
            byte,
        );
        // SAFETY: F_OFD_SETLK reads `lock`, which is fully initialised.
        let result = retry(|| unsafe {
            libc::fcntl(self.file.as_raw_fd(), libc::F_OFD_SETLK, &lock) as libc::c_long
        });
        match result {
            Ok(_) => Ok(true),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// As [`LockFile::try_lock`], for a lock that others hold for a moment only. False when it cannot be had for a
    /// second: whoever is stopped while holding it must not stop everybody.
    pub(crate) fn lock_soon(&self, byte: u64, exclusive: bool) -> io::Result<bool> {
        for round in 0..200 {
            if self.try_lock(byte, exclusive)? {
                return Ok(true);
            }
            if round < 20 {
                super::yield_now();
            } else {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        }
        Ok(false)
    }

    /// Gives up the lock on `byte`.
    pub(crate) fn unlock(&self, byte: u64) -> io::Result<()> {
        self.unlock_as(&lock_of(libc::F_UNLCK, byte))
    }

    fn unlock_as(&self, lock: &libc::flock) -> io::Result<()> {
        // SAFETY: F_OFD_SETLK reads `lock`, which is fully initialised.
        retry(|| unsafe {
            libc::fcntl(self.file.as_raw_fd(), libc::F_OFD_SETLK, lock) as libc::c_long
        })
        .map(drop)
    }

    /// Whether another description holds a lock on `byte` (0.4 µs).
    pub(crate) fn is_locked(&self, byte: u64) -> io::Result<bool> {
        let mut lock = lock_of(libc::F_WRLCK, byte);
        // SAFETY: F_OFD_GETLK reads and writes `lock`.
        retry(|| unsafe {
            libc::fcntl(self.file.as_raw_fd(), libc::F_OFD_GETLK, &mut lock) as libc::c_long
        })?;
        Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        if self.here.is_here() {
            // Closing is not enough: a process that another thread has started just now has a copy of the
            // descriptor until it runs its program, and with it the locks.
            let all = libc::flock {
                l_len: 0,
                ..lock_of(libc::F_UNLCK, 0)
            };
            let _ = self.unlock_as(&all);
            fork::forget(self.file.as_raw_fd());
            // SAFETY: dropped once, here.
            unsafe { ManuallyDrop::drop(&mut self.file) };
        }
    }
}

/// A descriptor of a process, readable once that process is dead.
pub(crate) struct Pidfd(OwnedFd);

impl Pidfd {
    /// Opens process `pid` of this pid namespace.
    pub(crate) fn open(pid: u32) -> io::Result<Pidfd> {
        // SAFETY: pidfd_open takes two integers.
        let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) })?;
        // SAFETY: pidfd_open returned a descriptor that nobody else owns.
        Ok(Pidfd(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
    }

    /// Whether every thread of the process is gone (0.3 µs).
    pub(crate) fn is_dead(&self) -> bool {
        let mut poll = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one initialised pollfd, and a time-out of 0.
        unsafe { libc::poll(&mut poll, 1, 0) == 1 }
    }
}

impl std::os::fd::AsFd for Pidfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// When process `pid` started, in clock ticks since boot; 0 when there is none. With the id it
/// names a process for good, since ids are used again.
pub(crate) fn start_time(pid: u32) -> u64 {
    Stat::of(pid).and_then(|stat| stat.field(22)).unwrap_or(0)
}

/// The inode of this process's pid namespace: only inside the same one does a process id of
/// another mean anything. 0 when unknown.
pub(crate) fn pid_namespace() -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |meta| meta.ino())
}
