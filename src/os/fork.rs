//! Telling a forked child from the process that attached.
//!
//! A child of `fork` inherits every handle and every open file description of its parent, also
//! when the `fork` was made by somebody else's library with a raw system call. Two things keep it
//! from passing for its parent: a page that the kernel wipes in the child (`MADV_WIPEONFORK`),
//! which every handle looks at; and a `pthread_atfork` handler that closes, in the child, the
//! descriptors whose locks are the parent's tokens of life.

use std::os::fd::RawFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// How many tokens of life one process can hold at once.
const TOKENS: usize = 4096;

/// Descriptors to be closed in a forked child; -1 is a free entry.
static DESCRIPTORS: [AtomicI32; TOKENS] = [const { AtomicI32::new(-1) }; TOKENS];

/// A word that holds the id of the process that called [`Mark::here`] first, and 0 in its forked children,
/// until they call it themselves; and the id that the caller had.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(&'static AtomicU32, u32);

impl Mark {
    /// The mark of this process.
    pub(crate) fn here() -> Mark {
        static PAGE: OnceLock<usize> = OnceLock::new();
        let page = *PAGE.get_or_init(|| {
            // SAFETY: sysconf takes no pointers.
            let len = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
            // SAFETY: a fresh anonymous private mapping; nothing is replaced.
            let page = unsafe {
                libc::mmap(
                    core::ptr::null_mut(),
                    len,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                    -1,
                    0,
                )
            };
            if page == libc::MAP_FAILED {
                // Without a page there is no mark: every handle is taken to be its process's own.
                return (&FALLBACK as *const AtomicU32) as usize;
            }
            // SAFETY: the page was mapped above. A kernel without WIPEONFORK (before 4.14) leaves
            // the page alone, and handles are then only protected by the atfork handler.
            unsafe { libc::madvise(page, len, libc::MADV_WIPEONFORK) };
            // SAFETY: the handler only calls close and atomics, which may be called after fork.
            unsafe { libc::pthread_atfork(None, None, Some(close_in_child)) };
            page as usize
        });
        // SAFETY: the page is never unmapped, zero-initialised, and aligned; a zero AtomicU32 is
        // valid.
        let word = unsafe { &*(page as *const AtomicU32) };
        // The first caller in this process, or in a child whose page was wiped, numbers it by its
        // process id, which its parent cannot share.
        let pid = std::process::id();
        let _ = word.compare_exchange(0, pid, Ordering::Relaxed, Ordering::Relaxed);
        Mark(word, pid)
    }

    /// Whether this is still the process that called [`Mark::here`].
    #[inline(always)]
    pub(crate) fn is_here(self) -> bool {
        self.0.load(Ordering::Relaxed) == self.1
    }
}

static FALLBACK: AtomicU32 = AtomicU32::new(0);

/// Has `fd` closed in children of `fork`. False when there is no room to remember it.
pub(crate) fn close_on_fork(fd: RawFd) -> bool {
    DESCRIPTORS.iter().any(|entry| {
        entry
            .compare_exchange(-1, fd, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    })
}

/// Forgets `fd`; to be called before it is closed.
pub(crate) fn forget(fd: RawFd) {
    for entry in &DESCRIPTORS {
        if entry
            .compare_exchange(fd, -1, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
        {
            return;
        }
    }
}

extern "C" fn close_in_child() {
    for entry in &DESCRIPTORS {
        let fd = entry.swap(-1, Ordering::Relaxed);
        if fd >= 0 {
            // SAFETY: close is async-signal-safe; the descriptor is a token of the parent's, which
            // no code in the child may use.
            unsafe { libc::close(fd) };
        }
    }
}
