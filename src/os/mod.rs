//! Every system call of the library. Nothing else in the crate calls the operating system.
//!
//! Each function here handles `EINTR`, and returns `io::Error`s that its caller names.

#[cfg(feature = "cli")]
pub(crate) mod bare;
pub(crate) mod clock;
#[cfg(feature = "tokio")]
pub(crate) mod epoll;
pub(crate) mod eventfd;
#[cfg(feature = "cli")]
pub(crate) mod facts;
pub(crate) mod fork;
pub(crate) mod futex;
pub(crate) mod guard;
pub(crate) mod inode;
pub(crate) mod life;
#[cfg(feature = "cli")]
pub(crate) mod measure;
pub(crate) mod membarrier;
pub(crate) mod memory;
pub(crate) mod mqueue;
pub(crate) mod named_semaphore;
pub(crate) mod pass;
pub(crate) mod pipe;
pub(crate) mod poll;
pub(crate) mod process;
pub(crate) mod rtsignal;
pub(crate) mod semaphore;
pub(crate) mod shm;
pub(crate) mod socket;
pub(crate) mod stop;

pub(crate) use libc::{
    EACCES, EADDRINUSE, EAGAIN, ECONNREFUSED, ECONNRESET, EEXIST, EFBIG, EINVAL, ELOOP, EMFILE,
    ENAMETOOLONG, ENFILE, ENOENT, ENOSPC, ENOSYS, ENXIO, EPIPE, EPROTOTYPE, ESRCH,
};

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use clock::Deadline;

/// What looking for a process that does not exist fails with.
pub(crate) const NO_PROCESS: i32 = libc::ESRCH;

/// What a wait on a page that was truncated away fails with.
pub(crate) const NO_MEMORY_THERE: i32 = libc::EFAULT;

/// What a wait that ran out of time fails with.
pub(crate) const TIMED_OUT: i32 = libc::ETIMEDOUT;

/// Turns the -1 of a system call into the error it stands for.
pub(crate) fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Calls `f` until it fails with something else than `EINTR`.
pub(crate) fn retry(mut f: impl FnMut() -> libc::c_long) -> io::Result<libc::c_long> {
    loop {
        match check(f()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Lets another runnable thread have this processor.
pub(crate) fn yield_now() {
    // SAFETY: sched_yield takes nothing and cannot fail on Linux.
    unsafe { libc::sched_yield() };
}

/// As [`yield_now`]; whether others kept it for a millisecond or more.
pub(crate) fn yield_for_long() -> bool {
    let begun = std::time::Instant::now();
    yield_now();
    begun.elapsed() >= std::time::Duration::from_millis(1)
}

/// The processors this thread may run on: one bit each, modulo 64. All of them when unknown.
pub(crate) fn processors() -> u64 {
    // SAFETY: an all-zero cpu_set_t is a valid, empty set.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    // SAFETY: `set` is writable and its size is given.
    let result = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) };
    if result != 0 {
        return u64::MAX;
    }
    // SAFETY: a cpu_set_t is an array of words of bits, one a processor; any alignment will do.
    let words: [u64; size_of::<libc::cpu_set_t>() / 8] = unsafe { core::mem::transmute(set) };
    words.iter().fold(0, |bits, word| bits | word)
}

/// The directory for what has a name in the file system and is no ring: `$RINGWAY_DIR`, or `/tmp`.
pub(crate) fn directory() -> std::path::PathBuf {
    std::env::var_os("RINGWAY_DIR")
        .filter(|dir| !dir.is_empty())
        .map_or_else(|| "/tmp".into(), Into::into)
}

/// Sleeps until `fd` is readable (or hung up, or in error); false when `deadline` passed first.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, deadline: Deadline) -> io::Result<bool> {
    wait_ready(fd, libc::POLLIN, deadline)
}

/// Sleeps until `fd` is ready for `events`; false when `deadline` passed first.
pub(crate) fn wait_ready(
    fd: BorrowedFd<'_>,
    events: libc::c_short,
    deadline: Deadline,
) -> io::Result<bool> {
    let mut poll = libc::pollfd {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    };
    retry(|| {
        let left = deadline.left().map(|left| libc::timespec {
            tv_sec: left.as_secs() as libc::time_t,
            tv_nsec: left.subsec_nanos() as libc::c_long,
        });
        let left = left
            .as_ref()
            .map_or(core::ptr::null(), |left| left as *const libc::timespec);
        // SAFETY: one initialised pollfd; `left` is null or a valid time; no signal mask.
        unsafe { libc::ppoll(&mut poll, 1, left, core::ptr::null()) as libc::c_long }
    })
    .map(|ready| ready > 0)
}
