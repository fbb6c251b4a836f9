//! The futex: sleep while a shared word has a value. Never `PRIVATE`: the word is in a mapping
//! that other processes share, and a private futex would not be found by their wakes.

use std::io;
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
