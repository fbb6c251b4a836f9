//! Event descriptors: a wake-up that `poll`, `epoll` and every event loop can wait for.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::clock::Deadline;
use super::{check, retry};

/// An event descriptor, non-blocking.
#[derive(Debug)]
pub(crate) struct EventFd(OwnedFd);

impl EventFd {
    /// A new one, not signalled.
    pub(crate) fn new() -> io::Result<EventFd> {
        // SAFETY: eventfd takes two integers.
        let fd = check(unsafe {
            libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) as libc::c_long
        })?;
        // SAFETY: eventfd returned a descriptor that nobody else owns.
        Ok(EventFd(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
    }

    /// Signals it.
    pub(crate) fn notify(&self) {
        let one = 1u64;
        // SAFETY: writes 8 bytes from `one`. EAGAIN means that the counter is full: signalled.
        let _ = retry(|| unsafe {
            libc::write(self.0.as_raw_fd(), (&raw const one).cast(), 8) as libc::c_long
        });
    }

    /// Clears the signal; whether there was one.
    pub(crate) fn clear(&self) -> bool {
        let mut count = 0u64;
        // SAFETY: reads at most 8 bytes into `count`.
        retry(|| unsafe {
            libc::read(self.0.as_raw_fd(), (&raw mut count).cast(), 8) as libc::c_long
        })
        .is_ok()
    }

    /// Sleeps until it is signalled, then clears it; false when `deadline` passed first.
    pub(crate) fn wait(&self, deadline: Deadline) -> io::Result<bool> {
        let ready = super::wait_readable(self.as_fd(), deadline)?;
        Ok(ready && self.clear())
    }
}

impl AsFd for EventFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl TryFrom<OwnedFd> for EventFd {
    type Error = io::Error;

    /// The event descriptor that another process passed: not if it is something else, to write to which
    /// might block, or kill.
    fn try_from(fd: OwnedFd) -> io::Result<EventFd> {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        if std::fs::read_link(path)?.as_os_str() != "anon_inode:[eventfd]" {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "what came with the ring is no event descriptor",
            ));
        }
        // SAFETY: F_SETFL takes an integer.
        check(unsafe {
            libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) as libc::c_long
        })?;
        Ok(EventFd(fd))
    }
}
