//! Real-time signals with a payload, sent to one thread of a process.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::{check, retry};

/// The signal used. A thread that receives has it blocked and every other one need not know of it,
/// since it is always sent to that very thread.
pub(crate) fn number() -> libc::c_int {
    libc::SIGRTMAX() - 5
}

/// The kernel's `siginfo` of a queued signal on a 64-bit machine.
#[repr(C)]
struct Info {
    signo: i32,
    errno: i32,
    code: i32,
    padding: i32,
    pid: i32,
    uid: u32,
    value: u64,
    rest: [u64; 12],
}

const _: () = assert!(size_of::<Info>() == 128);

/// A signal that was received.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received {
    /// Who sent it: a thread of the sending process, as that says.
    pub(crate) from: u32,
    /// The payload.
    pub(crate) value: u64,
}

/// Queues the signal with `value` for `thread` of `process`, naming `from` as its sender. False
/// when the receiving user's signal queue is full.
pub(crate) fn send(process: u32, thread: u32, from: u32, value: u64) -> io::Result<bool> {
    let info = Info {
        signo: number(),
        errno: 0,
        code: libc::SI_QUEUE,
        padding: 0,
        pid: from as i32,
        uid: super::inode::effective_user(),
        value,
        rest: [0; 12],
    };
    // SAFETY: the kernel reads 128 bytes, the size of `Info`, all of them initialised.
    let sent = check(unsafe {
        libc::syscall(
            libc::SYS_rt_tgsigqueueinfo,
            process as libc::pid_t,
            thread as libc::pid_t,
            number(),
            &info as *const Info,
        )
    });
    match sent {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// This thread's number.
pub(crate) fn thread() -> u32 {
    // SAFETY: gettid takes nothing and cannot fail.
    unsafe { libc::syscall(libc::SYS_gettid) as u32 }
}

/// The signals that a thread lets through, put back when this is dropped.
struct Mask(libc::sigset_t);

impl Drop for Mask {
    fn drop(&mut self) {
        // SAFETY: pthread_sigmask reads the set, which it has itself filled in.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, core::ptr::null_mut()) };
    }
}

/// Runs `f` with every signal blocked in this thread. A thread that `f` begins has them blocked from
/// its first instruction on, and for good: it is never interrupted by the program's handlers, and a
/// signal that is sent to it waits to be read, however early it comes.
pub(crate) fn blocked<T>(f: impl FnOnce() -> T) -> T {
    // SAFETY: all-zero signal sets are valid places for sigfillset and pthread_sigmask to write to;
    // the latter reads the first.
    let _mask = unsafe {
        let mut all: libc::sigset_t = core::mem::zeroed();
        let mut before: libc::sigset_t = core::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        Mask(before)
    };
    f()
}

/// A descriptor from which a thread reads the signals that were sent to it and that it blocks:
/// whoever reads gets its own, whoever made the descriptor.
pub(crate) fn descriptor() -> io::Result<OwnedFd> {
    // SAFETY: an all-zero signal set is a valid place for sigemptyset to write to; sigaddset reads and
    // writes it, signalfd reads it.
    let fd = unsafe {
        let mut ours: libc::sigset_t = core::mem::zeroed();
        libc::sigemptyset(&mut ours);
        libc::sigaddset(&mut ours, number());
        check(libc::signalfd(-1, &ours, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK).into())?
    };
    // SAFETY: signalfd returned a descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Takes the signals that are there, oldest first, at most 64; those that were not queued with a
/// payload are left out.
pub(crate) fn receive(fd: BorrowedFd<'_>, into: &mut Vec<Received>) -> io::Result<bool> {
    const MANY: usize = 64;
    // SAFETY: an all-zero signalfd_siginfo is valid.
    let mut infos: [libc::signalfd_siginfo; MANY] = unsafe { core::mem::zeroed() };
    // SAFETY: `infos` is writable for its size.
    let read = retry(|| unsafe {
        libc::read(
            fd.as_raw_fd(),
            infos.as_mut_ptr().cast(),
            size_of_val(&infos),
        ) as libc::c_long
    });
    let read = match read {
        Ok(read) => read as usize / size_of::<libc::signalfd_siginfo>(),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        Err(error) => return Err(error),
    };
    let queued = infos[..read]
        .iter()
        .filter(|info| info.ssi_code == libc::SI_QUEUE)
        .map(|info| Received {
            from: info.ssi_pid,
            value: info.ssi_ptr,
        });
    into.extend(queued);
    Ok(read > 0)
}
