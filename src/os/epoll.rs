//! A set of descriptors that is itself one, readable when any of them is.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::{check, retry};

/// An epoll descriptor.
#[derive(Debug)]
pub(crate) struct Epoll(OwnedFd);

impl Epoll {
    /// One of nothing.
    pub(crate) fn new() -> io::Result<Epoll> {
        // SAFETY: epoll_create1 takes an integer.
        let fd =
            check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) as libc::c_long })? as RawFd;
        // SAFETY: it returned a descriptor that nobody else owns.
        Ok(Epoll(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Adds `fd`, under `number`. It goes when it is closed.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, number: u64) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: number,
        };
        // SAFETY: `event` is initialised, and only read.
        check(unsafe {
            libc::epoll_ctl(
                self.0.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                fd.as_raw_fd(),
                &mut event,
            ) as libc::c_long
        })
        .map(drop)
    }

    /// Calls `each` with the numbers of some that are readable now; whether there may be more.
    pub(crate) fn readable(&self, mut each: impl FnMut(u64)) -> io::Result<bool> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; 16];
        // SAFETY: `events` has room for as many as is said; the time-out is 0.
        let count = retry(|| unsafe {
            libc::epoll_wait(
                self.0.as_raw_fd(),
                events.as_mut_ptr(),
                events.len() as libc::c_int,
                0,
            ) as libc::c_long
        })? as usize;
        for event in &events[..count] {
            each(event.u64);
        }
        Ok(count == events.len())
    }
}

impl AsFd for Epoll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
