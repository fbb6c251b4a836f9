//! The futex: sleep while a shared word has a value. Never `PRIVATE`: the word is in a mapping
//! that other processes share, and a private futex would not be found by their wakes.

use std::io;
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;

use super::check;
use super::clock::Deadline;

/// Sleeps while `word` is `expected`, until woken or until `deadline`. Returns at once if it is
/// not. May return early for no reason: the caller looks at the word again.
///
/// # Errors
/// `ETIMEDOUT` when the deadline has passed; `EFAULT` when the page has been truncated away.
pub(crate) fn wait(word: &AtomicU32, expected: u32, deadline: Deadline) -> io::Result<()> {
    let time = deadline.timespec();
    let time = time
        .as_ref()
        .map_or(core::ptr::null(), |time| time as *const libc::timespec);
    // SAFETY: `word` is a valid address for the call; FUTEX_WAIT_BITSET reads it, and `time`, an
    // absolute CLOCK_MONOTONIC time or null.
    let result = check(unsafe {
        libc::syscall(
            libc::SYS_futex,
            word.as_ptr(),
            libc::FUTEX_WAIT_BITSET,
            expected,
            time,
            core::ptr::null::<u32>(),
            libc::FUTEX_BITSET_MATCH_ANY,
        )
    });
    match result {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Wakes up to `count` sleepers on `word`; returns how many were woken.
pub(crate) fn wake(word: &AtomicU32, count: u32) -> usize {
    let count = count.min(i32::MAX as u32);
    // SAFETY: FUTEX_WAKE uses the address of `word` only, as a key.
    let woken = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, count) };
    usize::try_from(woken).unwrap_or(0)
}

/// The most words that can be waited for at once.
pub(crate) const MANY: usize = 128;

/// A word to wait for, among others.
#[derive(Clone, Copy)]
pub(crate) struct Waited<'a> {
    /// The word.
    pub(crate) word: &'a AtomicU32,
    /// Sleep while it is this.
    pub(crate) expected: u32,
}

/// Sleeps while each of `words`, of which there are at most [`MANY`], is what is expected, until one
/// is woken or until `deadline`. Says which, or `None` where one was not what was expected. May
/// return early for no reason, and others may have been woken, too.
///
/// # Errors
/// `ETIMEDOUT`; `EFAULT` as for [`wait`]; `ENOSYS` where the kernel (before 5.16) cannot.
pub(crate) fn wait_any(words: &[Waited<'_>], deadline: Deadline) -> io::Result<Option<usize>> {
    let mut list = [const { MaybeUninit::<libc::futex_waitv>::zeroed() }; MANY];
    for (entry, waited) in list.iter_mut().zip(words) {
        // SAFETY: all zero is a valid entry: it is made of integers.
        let entry = unsafe { entry.assume_init_mut() };
        entry.val = waited.expected.into();
        entry.uaddr = waited.word.as_ptr() as u64;
        entry.flags = libc::FUTEX2_SIZE_U32 as u32;
    }
    let time = deadline.timespec();
    let time = time
        .as_ref()
        .map_or(core::ptr::null(), |time| time as *const libc::timespec);
    // SAFETY: the first `words.len()` entries are initialised and name words that are valid for the
    // call; `time` is an absolute CLOCK_MONOTONIC time or null.
    let result = check(unsafe {
        libc::syscall(
            libc::SYS_futex_waitv,
            list.as_ptr(),
            words.len().min(MANY),
            0,
            time,
            libc::CLOCK_MONOTONIC,
        )
    });
    match result {
        Ok(index) => Ok(usize::try_from(index).ok()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the kernel can wait for many words at once.
pub(crate) fn can_wait_for_many() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let word = AtomicU32::new(1);
        let waited = Waited {
            word: &word,
            expected: 0,
        };
        // A word that is not what is expected: it comes back at once, or is refused.
        wait_any(&[waited], Deadline::NEVER).is_ok()
    })
}
