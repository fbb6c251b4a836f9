//! Waiting until descriptors are ready.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;
use super::clock::Deadline;

/// There is something to read, or the other end is gone.
pub(crate) const READABLE: i16 = libc::POLLIN;
/// There is room to write, or the other end is gone.
pub(crate) const WRITABLE: i16 = libc::POLLOUT;
/// The other end is gone; reported whether asked for or not.
pub(crate) const HUNG_UP: i16 = libc::POLLHUP;
/// The other end is gone (of a pipe's writing end), or an error is pending.
pub(crate) const ERROR: i16 = libc::POLLERR;

/// Waits until one of `fds` is ready for its events, or until `deadline`. Returns what each is
/// ready for, all zero when the time has passed. A signal does not end the wait.
pub(crate) fn any<const N: usize>(
    fds: [(BorrowedFd<'_>, i16); N],
    deadline: Deadline,
) -> io::Result<[i16; N]> {
    let mut polls = fds.map(|(fd, events)| libc::pollfd {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    });
    several(&mut polls, deadline)?;
    Ok(polls.map(|poll| poll.revents))
}

/// As [`any`], for one descriptor.
pub(crate) fn one(fd: BorrowedFd<'_>, events: i16, deadline: Deadline) -> io::Result<i16> {
    any([(fd, events)], deadline).map(|[ready]| ready)
}

/// As [`any`], for a list of any length; the answer is left in `polls`.
pub(crate) fn several(polls: &mut [libc::pollfd], deadline: Deadline) -> io::Result<()> {
    loop {
        let left = deadline.left().map(|left| libc::timespec {
            tv_sec: libc::time_t::try_from(left.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: left.subsec_nanos() as libc::c_long,
        });
        let timeout = left
            .as_ref()
            .map_or(core::ptr::null(), |time| time as *const libc::timespec);
        // SAFETY: `polls` is a slice of initialised pollfds of the given length; `timeout` is null
        // or points to `left`, which outlives the call; a null mask leaves the signals alone.
        let result = check(unsafe {
            libc::ppoll(
                polls.as_mut_ptr(),
                polls.len() as libc::nfds_t,
                timeout,
                core::ptr::null(),
            ) as libc::c_long
        });
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(drop),
        }
    }
}

/// A descriptor to be asked whether it is readable.
pub(crate) fn readable(fd: std::os::fd::RawFd) -> libc::pollfd {
    libc::pollfd {
        fd,
        events: READABLE,
        revents: 0,
    }
}

/// Waits until one of `fds` is readable, or until `deadline`, and says which are.
pub(crate) fn which(fds: &[std::os::fd::RawFd], deadline: Deadline) -> io::Result<Vec<bool>> {
    let mut polls: Vec<_> = fds
        .iter()
        .map(|&fd| libc::pollfd {
            fd,
            events: READABLE,
            revents: 0,
        })
        .collect();
    several(&mut polls, deadline)?;
    Ok(polls.iter().map(|poll| poll.revents != 0).collect())
}
