//! POSIX message queues. On Linux a queue's descriptor is a file descriptor: it can be polled, and
//! its inode locked.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::{check, inode, retry};

/// One more than the highest priority.
pub(crate) const PRIORITIES: u32 = 32768;

/// What a queue holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    /// How long one may be.
    pub(crate) message: usize,
    /// How many it holds now.
    pub(crate) waiting: usize,
    /// How many it can hold.
    #[cfg(feature = "cli")]
    pub(crate) depth: usize,
}

fn c_name(name: &str) -> io::Result<CString> {
    CString::new(name)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a name with a NUL byte"))
}

const FLAGS: libc::c_int = libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC;

/// Opens the queue `name` (with its slash).
pub(crate) fn open(name: &str) -> io::Result<OwnedFd> {
    let name = c_name(name)?;
    // SAFETY: `name` is NUL-terminated; without O_CREAT no further arguments are read.
    let fd = retry(|| unsafe { libc::mq_open(name.as_ptr(), FLAGS).into() })?;
    // SAFETY: mq_open returned a descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Makes the queue `name`; fails with `EEXIST`.
pub(crate) fn create(name: &str, depth: usize, message: usize) -> io::Result<OwnedFd> {
    let name = c_name(name)?;
    // SAFETY: an all-zero mq_attr is valid.
    let mut attr: libc::mq_attr = unsafe { core::mem::zeroed() };
    attr.mq_maxmsg = libc::c_long::try_from(depth).unwrap_or(libc::c_long::MAX);
    attr.mq_msgsize = libc::c_long::try_from(message).unwrap_or(libc::c_long::MAX);
    let flags = FLAGS | libc::O_CREAT | libc::O_EXCL;
    let mode: libc::mode_t = 0o600;
    // SAFETY: `name` is NUL-terminated; O_CREAT has mq_open read a mode and a pointer to `attr`.
    let fd = retry(|| unsafe { libc::mq_open(name.as_ptr(), flags, mode, &attr).into() })?;
    // SAFETY: mq_open returned a descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Removes the name.
pub(crate) fn unlink(name: &str) -> io::Result<()> {
    let name = c_name(name)?;
    // SAFETY: `name` is NUL-terminated.
    check(unsafe { libc::mq_unlink(name.as_ptr()).into() }).map(drop)
}

/// Whether the name is that of this very queue.
pub(crate) fn is_at(queue: BorrowedFd<'_>, name: &str) -> bool {
    match (open(name), inode::identity(queue)) {
        (Ok(there), Ok(ours)) => inode::identity(there.as_fd()).is_ok_and(|there| there == ours),
        _ => false,
    }
}

/// What the queue holds.
pub(crate) fn geometry(queue: BorrowedFd<'_>) -> io::Result<Geometry> {
    // SAFETY: an all-zero mq_attr is a valid place to read one into.
    let mut attr: libc::mq_attr = unsafe { core::mem::zeroed() };
    // SAFETY: `attr` is writable.
    check(unsafe { libc::mq_getattr(queue.as_raw_fd(), &mut attr).into() })?;
    Ok(Geometry {
        message: attr.mq_msgsize as usize,
        waiting: attr.mq_curmsgs as usize,
        #[cfg(feature = "cli")]
        depth: attr.mq_maxmsg as usize,
    })
}

/// Puts a message in; false when the queue is full.
pub(crate) fn send(queue: BorrowedFd<'_>, message: &[u8], priority: u32) -> io::Result<bool> {
    let (data, len) = (message.as_ptr().cast(), message.len());
    // SAFETY: `message` is readable for its length.
    let sent = retry(|| unsafe { libc::mq_send(queue.as_raw_fd(), data, len, priority).into() });
    match sent {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// As [`send`], but waits in the queue's own line of senders for up to `nanos`: with others in it, room
/// passes from one to the next and is never there for one who only looks. False when the time has passed, or
/// a signal came.
pub(crate) fn send_within(
    queue: BorrowedFd<'_>,
    message: &[u8],
    priority: u32,
    nanos: u64,
) -> io::Result<bool> {
    // SAFETY: all-zero times and attributes are valid.
    let (mut until, blocking): (libc::timespec, libc::mq_attr) = unsafe { core::mem::zeroed() };
    let mut before = blocking;
    // SAFETY: `until` is writable.
    check(unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut until).into() })?;
    let nanos = until.tv_nsec as u64 + nanos;
    until.tv_sec += (nanos / 1_000_000_000) as libc::time_t;
    until.tv_nsec = (nanos % 1_000_000_000) as libc::c_long;
    let fd = queue.as_raw_fd();
    // SAFETY: both attributes are initialised and `before` is writable; only the flag that keeps this
    // description from blocking changes.
    check(unsafe { libc::mq_setattr(fd, &blocking, &mut before).into() })?;
    let (data, len) = (message.as_ptr().cast(), message.len());
    // SAFETY: `message` is readable for its length, and `until` is a valid time.
    let sent = check(unsafe { libc::mq_timedsend(fd, data, len, priority, &until).into() });
    // SAFETY: as above.
    check(unsafe { libc::mq_setattr(fd, &before, core::ptr::null_mut()).into() })?;
    match sent {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => Ok(false),
            _ => Err(error),
        },
    }
}

/// Takes a message of at most `max` bytes (the queue's maximum) and its priority; `None` when the
/// queue is empty.
pub(crate) fn receive(
    queue: BorrowedFd<'_>,
    into: &mut Vec<u8>,
    max: usize,
) -> io::Result<Option<u32>> {
    into.clear();
    into.reserve(max);
    let mut priority = 0;
    // SAFETY: the vector has at least `max` writable bytes of spare capacity, and `priority` is
    // writable.
    let taken = retry(|| unsafe {
        libc::mq_receive(
            queue.as_raw_fd(),
            into.as_mut_ptr().cast(),
            max,
            &mut priority,
        ) as libc::c_long
    });
    match taken {
        Ok(len) => {
            // SAFETY: mq_receive initialised that many bytes, at most `max`.
            unsafe { into.set_len(len as usize) };
            Ok(Some(priority))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether this process may open another descriptor: tells the two meanings of `EMFILE` apart.
pub(crate) fn descriptors_left() -> bool {
    std::fs::File::open("/").is_ok()
}
