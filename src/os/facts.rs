//! What this machine has, allows and knows: for the tool, which shows it to people.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

use super::{check, retry};

/// The name of user `uid`, or its number where it has none.
pub(crate) fn user_name(uid: u32) -> String {
    nix::unistd::User::from_uid(uid.into())
        .ok()
        .flatten()
        .map_or_else(|| uid.to_string(), |user| user.name)
}

/// Columns of the terminal on standard output, if it is one.
pub(crate) fn terminal_width() -> Option<u16> {
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCGWINSZ writes a winsize.
    check(unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &mut size).into() }).ok()?;
    (size.ws_col > 0).then_some(size.ws_col)
}

/// A limit of this process: what it may use now, and what it may raise that to. `None` is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) soft: Option<u64>,
    pub(crate) hard: Option<u64>,
}

/// Which limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    /// Bytes in message queues.
    MessageQueues,
    /// Descriptors.
    Descriptors,
    /// Bytes locked in memory.
    LockedMemory,
    /// Signals that are queued.
    Signals,
}

/// The limit of a resource.
pub(crate) fn limit(resource: Resource) -> io::Result<Limit> {
    let resource = match resource {
        Resource::MessageQueues => libc::RLIMIT_MSGQUEUE,
        Resource::Descriptors => libc::RLIMIT_NOFILE,
        Resource::LockedMemory => libc::RLIMIT_MEMLOCK,
        Resource::Signals => libc::RLIMIT_SIGPENDING,
    };
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is writable.
    check(unsafe { libc::getrlimit(resource, &mut limit).into() })?;
    let finite = |value| (value != libc::RLIM_INFINITY).then_some(value);
    Ok(Limit {
        soft: finite(limit.rlim_cur),
        hard: finite(limit.rlim_max),
    })
}

/// Bytes of the file system at `path`, and how many of them are free for this user.
pub(crate) fn space(path: &CStr) -> io::Result<(u64, u64)> {
    // SAFETY: an all-zero statvfs is a valid place to read one into.
    let mut stat: libc::statvfs = unsafe { core::mem::zeroed() };
    // SAFETY: `path` is NUL-terminated and `stat` is writable.
    retry(|| unsafe { libc::statvfs(path.as_ptr(), &mut stat).into() })?;
    Ok((stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize))
}

/// The directory of all message queues: where it is mounted, or else, for those who may, a mount of
/// its own that nobody else sees and that goes with the descriptor returned.
pub(crate) fn queues() -> io::Result<(PathBuf, Option<OwnedFd>)> {
    let mounted = Path::new("/dev/mqueue");
    let is_mounted = std::fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| {
        mounts
            .lines()
            .any(|line| line.contains(" /dev/mqueue mqueue "))
    });
    if is_mounted {
        return Ok((mounted.into(), None));
    }
    const FSOPEN_CLOEXEC: libc::c_int = 1;
    const FSMOUNT_CLOEXEC: libc::c_int = 1;
    const FSCONFIG_CMD_CREATE: libc::c_int = 6;
    // SAFETY: a NUL-terminated string and an integer.
    let context =
        owned(unsafe { libc::syscall(libc::SYS_fsopen, c"mqueue".as_ptr(), FSOPEN_CLOEXEC) })?;
    let null = core::ptr::null::<libc::c_char>();
    // SAFETY: the command to create takes neither key nor value.
    check(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            FSCONFIG_CMD_CREATE,
            null,
            null,
            0,
        )
    })?;
    // SAFETY: three integers.
    let mount = owned(unsafe {
        libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, 0)
    })?;
    Ok((
        format!("/proc/self/fd/{}", mount.as_raw_fd()).into(),
        Some(mount),
    ))
}

fn owned(fd: libc::c_long) -> io::Result<OwnedFd> {
    let fd = check(fd)?;
    // SAFETY: a descriptor that the system call just returned; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Device and inode number as `/proc/locks` writes them.
pub(crate) fn lock_key(device: u64, inode: u64) -> String {
    let (major, minor) = (libc::major(device), libc::minor(device));
    format!("{major:02x}:{minor:02x}:{inode}")
}

/// Tries a feature of the kernel that Ringway uses, or would.
pub(crate) fn probe(feature: Feature) -> io::Result<()> {
    match feature {
        Feature::Memfd => super::shm::memfd(c"ringway doctor").map(drop),
        Feature::Seals => super::shm::seal(&super::shm::memfd(c"ringway doctor")?),
        Feature::HugePages => {
            super::shm::allocate(&super::shm::memfd_huge(c"ringway doctor")?, 2 << 20)
        }
        Feature::Pidfd => super::life::Pidfd::open(std::process::id()).map(drop),
        Feature::OfdLocks => {
            let file: File = super::shm::memfd(c"ringway doctor")?;
            super::inode::lock(std::os::fd::AsFd::as_fd(&file), 0, true).map(drop)
        }
        Feature::TmpFile => super::shm::unnamed(Path::new("/dev/shm"), 0o600).map(drop),
        Feature::Futex => {
            let word = std::sync::atomic::AtomicU32::new(0);
            // Not the expected value: returns at once, if there are futexes at all.
            let now = super::clock::Deadline::after(std::time::Duration::ZERO);
            super::futex::wait(&word, 1, now)
        }
        Feature::FutexWaitv => {
            #[repr(C)]
            struct Waiter {
                value: u64,
                address: u64,
                flags: u32,
                reserved: u32,
            }
            const SIZE_32: u32 = 2;
            let word = std::sync::atomic::AtomicU32::new(0);
            let waiter = Waiter {
                value: 1,
                address: word.as_ptr() as u64,
                flags: SIZE_32,
                reserved: 0,
            };
            // SAFETY: one waiter, whose word is alive; not the expected value: returns at once.
            let result = check(unsafe {
                libc::syscall(
                    libc::SYS_futex_waitv,
                    &waiter,
                    1,
                    0,
                    core::ptr::null::<libc::timespec>(),
                    libc::CLOCK_MONOTONIC,
                )
            });
            match result {
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok(()),
                result => result.map(drop),
            }
        }
        Feature::EventFd => super::eventfd::EventFd::new().map(drop),
        Feature::Queue => {
            let name = format!("/ringway-doctor-{}", std::process::id());
            let queue = super::mqueue::create(&name, 10, 8192);
            let _ = super::mqueue::unlink(&name);
            queue.map(drop)
        }
    }
}

/// Something that a kernel may have, and a sandbox may forbid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feature {
    /// Memory without a name.
    Memfd,
    /// Which cannot be cut short.
    Seals,
    /// Huge pages for it.
    HugePages,
    /// Descriptors of processes.
    Pidfd,
    /// Locks that belong to an open file.
    OfdLocks,
    /// Files in `/dev/shm` that have no name at first.
    TmpFile,
    /// Sleeping on a word of memory.
    Futex,
    /// Sleeping on several.
    FutexWaitv,
    /// Descriptors that stand for an event.
    EventFd,
    /// A message queue of the usual size.
    Queue,
}
