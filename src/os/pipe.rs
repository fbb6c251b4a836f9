//! Pipes and FIFOs.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::clock::Deadline;
use super::{check, poll, retry};

/// The most bytes that one write puts into a pipe whole or not at all.
pub(crate) const ATOMIC: usize = libc::PIPE_BUF;

/// A new pipe: its reading and its writing end, both non-blocking and closed on exec.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1 as RawFd; 2];
    // SAFETY: `fds` has room for the two descriptors.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK).into() })?;
    // SAFETY: pipe2 returned two descriptors that nobody else owns.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// Whether `fd` is a pipe or a FIFO, and if so whether it can be (read, written).
pub(crate) fn modes(fd: BorrowedFd<'_>) -> io::Result<Option<(bool, bool)>> {
    if super::inode::kind(fd)? != libc::S_IFIFO {
        return Ok(None);
    }
    // SAFETY: F_GETFL takes no argument.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL).into() })?;
    let access = flags as libc::c_int & libc::O_ACCMODE;
    Ok(Some((access != libc::O_WRONLY, access != libc::O_RDONLY)))
}

/// Makes `fd` non-blocking without touching the file description it may share with others: by
/// opening the pipe anew. Where that is refused (another user's pipe), by setting the flag.
pub(crate) fn own_description(fd: OwnedFd, writable: bool) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    match open(Path::new(&path), writable, true) {
        Ok(own) => Ok(own),
        Err(_) => {
            // SAFETY: F_GETFL takes no argument.
            let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL).into() })?;
            let flags = flags as libc::c_int | libc::O_NONBLOCK;
            // SAFETY: F_SETFL takes an integer.
            check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags).into() })?;
            set_cloexec(fd.as_raw_fd(), true)?;
            Ok(fd)
        }
    }
}

/// Has reading and writing wait, as programs expect of what they are given.
pub(crate) fn set_blocking(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: F_GETFL takes no argument.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL).into() })?;
    let flags = flags as libc::c_int & !libc::O_NONBLOCK;
    // SAFETY: F_SETFL takes an integer.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags).into() }).map(drop)
}

/// Whether a program started by this process gets `fd` too.
pub(crate) fn set_cloexec(fd: RawFd, closed: bool) -> io::Result<()> {
    let flag = if closed { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: F_SETFD takes an integer.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, flag).into() }).map(drop)
}

/// Opens one end of the FIFO (or, through `/proc`, the pipe) at `path`, without waiting for the
/// other. A writing end cannot be opened while there is no reader (`ENXIO`).
/// Unless it may `follow` one, a symbolic link is refused (`ELOOP`).
pub(crate) fn open(path: &Path, writable: bool, follow: bool) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mode = if writable {
        libc::O_WRONLY
    } else {
        libc::O_RDONLY
    };
    let follow = if follow { 0 } else { libc::O_NOFOLLOW };
    let flags = mode | follow | libc::O_NONBLOCK | libc::O_CLOEXEC;
    let fd = retry(|| {
        // SAFETY: `path` is NUL-terminated.
        unsafe { libc::open(path.as_ptr(), flags).into() }
    })?;
    // SAFETY: open returned a descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Whether there is a FIFO at `path` itself, not where a symbolic link there leads to.
pub(crate) fn is_fifo(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_fifo())
}

/// Changes the mode bits of the FIFO at `path` without opening it: who opens a FIFO is somebody's peer.
pub(crate) fn change_mode(path: &Path, change: impl FnOnce(u32) -> u32) -> io::Result<()> {
    use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
    let place = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
        .open(path)?;
    let there = place.metadata()?;
    if !there.file_type().is_fifo() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mode = change(there.permissions().mode() & 0o7777);
    let place = format!("/proc/self/fd/{}", place.as_raw_fd());
    std::fs::set_permissions(place, std::fs::Permissions::from_mode(mode))
}

/// Makes a FIFO at `path`, for its owner only. Fails with `EEXIST`.
pub(crate) fn mkfifo(path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: `path` is NUL-terminated.
    check(unsafe { libc::mkfifo(path.as_ptr(), 0o600).into() }).map(drop)
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a path with a NUL byte"))
}

/// Reads what is there. `Ok(Some(0))`: there is no writer. `Ok(None)`: there is nothing now.
pub(crate) fn read(fd: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<Option<usize>> {
    // SAFETY: `into` is writable for its length.
    let result = retry(|| unsafe {
        libc::read(fd.as_raw_fd(), into.as_mut_ptr().cast(), into.len()) as libc::c_long
    });
    match result {
        Ok(read) => Ok(Some(read as usize)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes `header` and `payload`, at most [`ATOMIC`] bytes together, whole (true) or not at all
/// (false: there is no room now). `EPIPE`, without the signal, when there is no reader.
pub(crate) fn write(fd: BorrowedFd<'_>, header: &[u8], payload: &[u8]) -> io::Result<bool> {
    debug_assert!(header.len() + payload.len() <= ATOMIC);
    let parts = [header, payload].map(|part| libc::iovec {
        iov_base: part.as_ptr().cast_mut().cast(),
        iov_len: part.len(),
    });
    let result = without_sigpipe(|| {
        // SAFETY: the two iovecs point to live slices, which writev only reads.
        retry(|| unsafe { libc::writev(fd.as_raw_fd(), parts.as_ptr(), 2) as libc::c_long })
    });
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// Runs `f` such that a write without a reader does not raise SIGPIPE, whatever the program has
/// chosen to do about that signal (a Rust program ignores it, and then this costs one call).
pub(crate) fn without_sigpipe<T>(f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    // SAFETY: an all-zero sigaction is a valid place to read one into.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    // SAFETY: `action` is writable; a null new action changes nothing.
    unsafe { libc::sigaction(libc::SIGPIPE, core::ptr::null(), &mut action) };
    if action.sa_sigaction == libc::SIG_IGN {
        return f();
    }
    // SAFETY: all-zero signal sets are valid; sigemptyset, sigaddset and sigpending write to them, and the
    // mask calls, sigismember and sigtimedwait read and write them and read `now`: all of them variables
    // that live through it. What a null pointer stands for is not written. SIGPIPE of a write is directed to
    // this very thread, so that blocking it here and taking the pending one away touches nobody else's.
    unsafe {
        let mut pipe: libc::sigset_t = core::mem::zeroed();
        let mut old: libc::sigset_t = core::mem::zeroed();
        let mut pending: libc::sigset_t = core::mem::zeroed();
        libc::sigemptyset(&mut pipe);
        libc::sigaddset(&mut pipe, libc::SIGPIPE);
        libc::sigpending(&mut pending);
        let was_pending = libc::sigismember(&pending, libc::SIGPIPE) == 1;
        libc::pthread_sigmask(libc::SIG_BLOCK, &pipe, &mut old);
        let result = f();
        let broken = matches!(&result, Err(e) if e.raw_os_error() == Some(libc::EPIPE));
        if broken && !was_pending {
            let now = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            libc::sigtimedwait(&pipe, core::ptr::null_mut(), &now);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &old, core::ptr::null_mut());
        result
    }
}

/// How many bytes the pipe holds at most.
pub(crate) fn capacity(fd: BorrowedFd<'_>) -> io::Result<usize> {
    // SAFETY: F_GETPIPE_SZ takes no argument.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETPIPE_SZ).into() }).map(|n| n as usize)
}

/// Asks for a pipe of at least `bytes`.
pub(crate) fn set_capacity(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    // SAFETY: F_SETPIPE_SZ takes an integer.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETPIPE_SZ, bytes).into() }).map(drop)
}

/// Watches a path for being opened or written: how a writer waits for the FIFO's first reader, and
/// an end for the other's word, without asking again and again.
pub(crate) struct OpenWatch(OwnedFd);

impl OpenWatch {
    /// Watches `path` from now on.
    pub(crate) fn new(path: &Path) -> io::Result<OpenWatch> {
        // SAFETY: inotify_init1 takes an integer.
        let fd =
            check(unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK).into() })?;
        // SAFETY: inotify_init1 returned a descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        let path = c_path(path)?;
        let events = libc::IN_OPEN | libc::IN_MODIFY | libc::IN_DELETE_SELF | libc::IN_ATTRIB;
        // SAFETY: `path` is NUL-terminated.
        check(unsafe { libc::inotify_add_watch(fd.as_raw_fd(), path.as_ptr(), events).into() })?;
        Ok(OpenWatch(fd))
    }

    /// Waits until the path has been opened since the last call, or until `deadline`.
    pub(crate) fn wait(&self, deadline: Deadline) -> io::Result<()> {
        use std::os::fd::AsFd;
        poll::one(self.0.as_fd(), poll::READABLE, deadline)?;
        let mut events = [0u8; 4096];
        read(self.0.as_fd(), &mut events).map(drop)
    }
}

/// Takes over what the process has open as number `fd`, under which `/dev/null` is from then on:
/// so nothing that still uses the number (standard input, say) meets with something else.
pub(crate) fn inherited(fd: u32) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: F_DUPFD_CLOEXEC takes an integer, and fails for a descriptor that is not open.
    let own = check(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3).into() })?;
    // SAFETY: fcntl returned a descriptor that nobody else owns.
    let own = unsafe { OwnedFd::from_raw_fd(own as RawFd) };
    let null = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    // SAFETY: dup2 takes two descriptors, both open; the number stays open, so that whoever owns
    // it still does.
    check(unsafe { libc::dup2(null.as_raw_fd(), fd).into() })?;
    Ok(own)
}
