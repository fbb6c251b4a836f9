//! The classic mechanisms at their barest, one system call an operation and no framing: what
//! `ringway bench` compares the rings with. The channels add boundaries, lengths and liveness to
//! these; a comparison must not charge the mechanism for that.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use super::{check, retry};

/// Shared memory without a name, of a fixed length, zeroed and faulted in.
pub(crate) struct Area {
    base: *mut u8,
    len: usize,
}

impl Area {
    /// Makes the memory; the descriptor is how another process maps it.
    pub(crate) fn create(len: usize) -> io::Result<OwnedFd> {
        // SAFETY: the name is a NUL-terminated string.
        let fd =
            check(unsafe { libc::memfd_create(c"ringway-bench".as_ptr(), 0) as libc::c_long })?;
        // SAFETY: memfd_create returned a descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        // SAFETY: ftruncate takes integers only.
        check(unsafe { libc::ftruncate(fd.as_raw_fd(), len as libc::off_t) as libc::c_long })?;
        Ok(fd)
    }

    /// Maps `len` bytes of the memory behind `fd`.
    pub(crate) fn map(fd: BorrowedFd<'_>, len: usize) -> io::Result<Area> {
        // SAFETY: a new shared mapping at an address of the kernel's choice; nothing is replaced.
        let base = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Area {
            base: base.cast(),
            len,
        })
    }

    /// The first byte.
    pub(crate) fn base(&self) -> *mut u8 {
        self.base
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        // SAFETY: exactly what mmap returned, and no reference to it outlives the value.
        unsafe { libc::munmap(self.base.cast(), self.len) };
    }
}

/// Lets children inherit `fd` across exec.
pub(crate) fn inherit(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: F_SETFD takes an integer.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, 0) as libc::c_long }).map(drop)
}

/// A pair of connected sockets that keep message boundaries and order.
pub(crate) fn seqpacket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: `fds` has room for the two descriptors.
    check(unsafe {
        libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0, fds.as_mut_ptr()) as libc::c_long
    })?;
    // SAFETY: socketpair returned two descriptors that nobody else owns.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// Gives a socket room for `bytes` under way.
pub(crate) fn send_buffer(fd: BorrowedFd<'_>, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: the option value is an int, whose size is given.
    check(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            (&raw const bytes).cast(),
            size_of_val(&bytes) as libc::socklen_t,
        ) as libc::c_long
    })
    .map(drop)
}

/// Enlarges a pipe or FIFO to `bytes` where the limit of this user allows it.
pub(crate) fn pipe_buffer(fd: BorrowedFd<'_>, bytes: usize) {
    // SAFETY: F_SETPIPE_SZ takes an integer; a refusal leaves the pipe as it was.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETPIPE_SZ, bytes as libc::c_int) };
}

/// Makes a FIFO at `path`.
pub(crate) fn make_fifo(path: &Path) -> io::Result<()> {
    use std::os::unix::ffi::OsStrExt;
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `path` is a NUL-terminated string.
    check(unsafe { libc::mkfifo(path.as_ptr(), 0o600) as libc::c_long }).map(drop)
}

/// Sends one message on a socket that keeps boundaries.
pub(crate) fn send(fd: BorrowedFd<'_>, message: &[u8]) -> io::Result<()> {
    retry(|| {
        // SAFETY: the pointer and length are those of `message`.
        unsafe {
            libc::send(
                fd.as_raw_fd(),
                message.as_ptr().cast(),
                message.len(),
                libc::MSG_NOSIGNAL,
            ) as libc::c_long
        }
    })
    .map(drop)
}

/// Receives one message from a socket that keeps boundaries.
pub(crate) fn recv(fd: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    retry(|| {
        // SAFETY: the pointer and length are those of `into`.
        unsafe {
            libc::recv(fd.as_raw_fd(), into.as_mut_ptr().cast(), into.len(), 0) as libc::c_long
        }
    })
    .map(|n| n as usize)
}

/// A counter for an eventfd; as a semaphore, each read takes one.
pub(crate) fn event_counter() -> io::Result<OwnedFd> {
    // SAFETY: eventfd takes integers only.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_SEMAPHORE) as libc::c_long })?;
    // SAFETY: eventfd returned a descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Adds one to an eventfd.
pub(crate) fn event_post(fd: BorrowedFd<'_>) -> io::Result<()> {
    let one = 1u64;
    // SAFETY: the eight bytes of `one` are readable.
    retry(|| unsafe { libc::write(fd.as_raw_fd(), (&raw const one).cast(), 8) as libc::c_long })
        .map(drop)
}

/// Takes one from an eventfd, sleeping while it is zero.
pub(crate) fn event_wait(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut taken = 0u64;
    // SAFETY: the eight bytes of `taken` are writable.
    retry(|| unsafe { libc::read(fd.as_raw_fd(), (&raw mut taken).cast(), 8) as libc::c_long })
        .map(drop)
}

/// A POSIX semaphore that lies in memory shared between processes.
#[derive(Clone, Copy)]
pub(crate) struct SharedSemaphore(*mut libc::sem_t);

impl SharedSemaphore {
    /// The semaphore at `at`.
    ///
    /// # Safety
    /// `at` is aligned, in a shared mapping that outlives the value, with room for a `sem_t`, and
    /// `init` is called on it once, by one process, before anything else.
    pub(crate) unsafe fn at(at: *mut u8) -> SharedSemaphore {
        SharedSemaphore(at.cast())
    }

    /// Sets it up with `value`.
    pub(crate) fn init(self, value: u32) -> io::Result<()> {
        // SAFETY: `at` promised room for a semaphore there.
        check(unsafe { libc::sem_init(self.0, 1, value) as libc::c_long }).map(drop)
    }

    /// Adds one.
    pub(crate) fn post(self) -> io::Result<()> {
        // SAFETY: `at` promised an initialised semaphore.
        check(unsafe { libc::sem_post(self.0) as libc::c_long }).map(drop)
    }

    /// Takes one, sleeping while there is none.
    pub(crate) fn wait(self) -> io::Result<()> {
        // SAFETY: `at` promised an initialised semaphore.
        retry(|| unsafe { libc::sem_wait(self.0) as libc::c_long }).map(drop)
    }
}

/// Makes a POSIX message queue whose name is gone before this returns.
pub(crate) fn posix_queue(depth: usize, max: usize) -> io::Result<OwnedFd> {
    let name = CString::new(format!("/ringway-bench-{}", std::process::id()))?;
    // SAFETY: an all-zero mq_attr is valid.
    let mut attributes: libc::mq_attr = unsafe { core::mem::zeroed() };
    attributes.mq_maxmsg = depth as libc::c_long;
    attributes.mq_msgsize = max as libc::c_long;
    // SAFETY: the name is NUL-terminated and the attributes are initialised.
    let fd = check(unsafe {
        libc::mq_open(
            name.as_ptr(),
            libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
            0o600 as libc::c_uint,
            &raw const attributes,
        ) as libc::c_long
    })?;
    // SAFETY: a NUL-terminated name; the queue lives on in its descriptors.
    unsafe { libc::mq_unlink(name.as_ptr()) };
    // SAFETY: on Linux a queue descriptor is a file descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends one message to a POSIX queue.
pub(crate) fn posix_send(queue: BorrowedFd<'_>, message: &[u8]) -> io::Result<()> {
    retry(|| {
        // SAFETY: the pointer and length are those of `message`.
        unsafe {
            libc::mq_send(queue.as_raw_fd(), message.as_ptr().cast(), message.len(), 0)
                as libc::c_long
        }
    })
    .map(drop)
}

/// Receives one message from a POSIX queue; `into` has room for the queue's maximum.
pub(crate) fn posix_recv(queue: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    retry(|| {
        // SAFETY: the pointer and length are those of `into`; the priority is not wanted.
        unsafe {
            libc::mq_receive(
                queue.as_raw_fd(),
                into.as_mut_ptr().cast(),
                into.len(),
                core::ptr::null_mut(),
            ) as libc::c_long
        }
    })
    .map(|n| n as usize)
}

/// The number of a System V message queue.
pub(crate) type SystemVQueue = libc::c_int;

/// Makes a private System V message queue, which lives until it is removed.
pub(crate) fn system_v_queue() -> io::Result<SystemVQueue> {
    // SAFETY: msgget takes integers only.
    check(unsafe { libc::msgget(libc::IPC_PRIVATE, 0o600) as libc::c_long })
        .map(|id| id as SystemVQueue)
}

/// Removes a System V message queue.
pub(crate) fn system_v_remove(queue: SystemVQueue) {
    // SAFETY: IPC_RMID takes no structure. That it may be gone already is no harm.
    unsafe { libc::msgctl(queue, libc::IPC_RMID, core::ptr::null_mut()) };
}

/// Sends one message; the first eight bytes of `framed` are its type, which must be positive.
pub(crate) fn system_v_send(queue: SystemVQueue, framed: &[u8]) -> io::Result<()> {
    debug_assert!(framed.len() >= 8);
    retry(|| {
        // SAFETY: the kernel reads 8 + (len - 8) bytes, all inside `framed`.
        unsafe { libc::msgsnd(queue, framed.as_ptr().cast(), framed.len() - 8, 0) as libc::c_long }
    })
    .map(drop)
}

/// Receives one message behind eight bytes of type; returns the length without them.
pub(crate) fn system_v_recv(queue: SystemVQueue, framed: &mut [u8]) -> io::Result<usize> {
    debug_assert!(framed.len() >= 8);
    retry(|| {
        // SAFETY: the kernel writes at most 8 + (len - 8) bytes, all inside `framed`.
        unsafe {
            libc::msgrcv(queue, framed.as_mut_ptr().cast(), framed.len() - 8, 0, 0) as libc::c_long
        }
    })
    .map(|n| n as usize)
}

/// The set with the one real-time signal that carries messages.
fn message_signal() -> libc::sigset_t {
    // SAFETY: an all-zero sigset_t is writable memory of the right size, and SIGRTMIN is valid.
    unsafe {
        let mut set: libc::sigset_t = core::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGRTMIN());
        set
    }
}

/// Holds message signals back, so that they queue up until they are asked for.
pub(crate) fn signal_block() -> io::Result<()> {
    let set = message_signal();
    // SAFETY: `set` is initialised; the old mask is not wanted.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, core::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Queues a signal with eight bytes of payload to process `pid`; while the queue of this user is
/// full, others get the processor.
pub(crate) fn signal_send(pid: u32, payload: u64) -> io::Result<()> {
    loop {
        let value = libc::sigval {
            sival_ptr: payload as *mut libc::c_void,
        };
        // SAFETY: sigqueue takes the value as it is and reads nothing through it.
        match check(unsafe {
            libc::sigqueue(pid as libc::pid_t, libc::SIGRTMIN(), value) as libc::c_long
        }) {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => super::yield_now(),
            result => return result.map(drop),
        }
    }
}

/// Sleeps until a message signal comes, and returns its payload.
pub(crate) fn signal_recv() -> io::Result<u64> {
    let set = message_signal();
    // SAFETY: an all-zero siginfo_t is valid.
    let mut info: libc::siginfo_t = unsafe { core::mem::zeroed() };
    // SAFETY: `set` is initialised and `info` is writable.
    retry(|| unsafe { libc::sigwaitinfo(&set, &mut info) as libc::c_long })?;
    // SAFETY: the signal was sent with sigqueue (or kill, whose value is zero): it has a value.
    Ok(unsafe { info.si_value() }.sival_ptr as u64)
}
