//! POSIX semaphores, process-shared.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use super::clock::Deadline;
use super::{check, retry};

#[cfg(target_env = "gnu")]
unsafe extern "C" {
    // glibc 2.30; the libc crate does not declare it yet.
    fn sem_clockwait(
        semaphore: *mut libc::sem_t,
        clock: libc::clockid_t,
        time: *const libc::timespec,
    ) -> libc::c_int;
}

/// A semaphore in memory that other processes map too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Semaphore(*mut libc::sem_t);

// SAFETY: POSIX semaphores are made to be used from any thread of any process that maps them.
unsafe impl Send for Semaphore {}
// SAFETY: as above.
unsafe impl Sync for Semaphore {}

impl Semaphore {
    /// Bytes and alignment that a semaphore needs.
    pub(crate) const SIZE: usize = size_of::<libc::sem_t>();

    /// The semaphore at `memory`.
    ///
    /// # Safety
    /// `memory` points to [`Semaphore::SIZE`] writable bytes, aligned to 8, that stay mapped as long
    /// as this value and its copies are used, and hold a semaphore when anything but
    /// [`Semaphore::init`] is called. What else is written there cannot lead the C library astray in
    /// memory, but it can have it end the process: see [`Semaphore::is_sound`].
    pub(crate) unsafe fn at(memory: *mut u8) -> Semaphore {
        Semaphore(memory.cast())
    }

    /// Makes a process-shared semaphore there, with `value`.
    pub(crate) fn init(self, value: u32) -> io::Result<()> {
        // SAFETY: `at`'s caller vouched for the memory.
        check(unsafe { libc::sem_init(self.0, 1, value) as libc::c_long }).map(drop)
    }

    /// Whether the part of it that never changes is still what `sem_init` writes there. With something
    /// else in its place the system call under the semaphore fails, and the C library then ends the
    /// process ("The futex facility returned an unexpected error code"). A stray write is found here
    /// before that; not one that comes between this look and the call.
    fn is_sound(self) -> bool {
        /// Where glibc and musl keep whether a semaphore is shared.
        const SHARED: usize = 8;
        static EXPECTED: OnceLock<u32> = OnceLock::new();
        let word = |semaphore: *const libc::sem_t| {
            // SAFETY: bytes 8 to 12 of a semaphore, aligned to 4; an atomic is valid whatever they hold.
            unsafe { &*semaphore.byte_add(SHARED).cast::<AtomicU32>() }.load(Ordering::Relaxed)
        };
        let expected = EXPECTED.get_or_init(|| {
            // SAFETY: an all-zero sem_t is valid memory for sem_init, and nobody else has it.
            let mut pattern: libc::sem_t = unsafe { core::mem::zeroed() };
            // SAFETY: as above.
            unsafe { libc::sem_init(&mut pattern, 1, 0) };
            word(&pattern)
        });
        word(self.0) == *expected
    }

    /// Adds one, and wakes a sleeper if there is one. A semaphore at its maximum stays there, and one that
    /// was overwritten is left alone.
    pub(crate) fn post(self) {
        if !self.is_sound() {
            return;
        }
        // SAFETY: `at`'s caller vouched for the memory. EOVERFLOW means that there are two thousand
        // million wake-ups pending, and one more would change nothing.
        unsafe { libc::sem_post(self.0) };
    }

    /// Takes one if there is one.
    pub(crate) fn try_wait(self) -> bool {
        // SAFETY: `at`'s caller vouched for the memory.
        self.is_sound() && retry(|| unsafe { libc::sem_trywait(self.0) as libc::c_long }).is_ok()
    }

    /// Takes one, sleeping until there is one; false when `deadline` passed first.
    pub(crate) fn wait(self, deadline: Deadline) -> io::Result<bool> {
        if !self.is_sound() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "somebody overwrote the semaphore",
            ));
        }
        let result = match deadline.timespec() {
            // SAFETY: `at`'s caller vouched for the memory.
            None => retry(|| unsafe { libc::sem_wait(self.0) as libc::c_long }),
            Some(time) => retry(|| self.wait_until(&time)),
        };
        match result {
            Ok(_) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ETIMEDOUT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    #[cfg(target_env = "gnu")]
    fn wait_until(self, time: &libc::timespec) -> libc::c_long {
        // SAFETY: `at`'s caller vouched for the memory; `time` is a valid monotonic time.
        unsafe { sem_clockwait(self.0, libc::CLOCK_MONOTONIC, time) as libc::c_long }
    }

    /// Without `sem_clockwait` the deadline is carried over to the real-time clock at each call.
    #[cfg(not(target_env = "gnu"))]
    fn wait_until(self, time: &libc::timespec) -> libc::c_long {
        let mut real = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: `real` is writable.
        unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut real) };
        let at = time.tv_sec as i128 * 1_000_000_000 + time.tv_nsec as i128;
        let left = (at - super::clock::now() as i128).max(0);
        let end = real.tv_sec as i128 * 1_000_000_000 + real.tv_nsec as i128 + left;
        let end = libc::timespec {
            tv_sec: (end / 1_000_000_000) as libc::time_t,
            tv_nsec: (end % 1_000_000_000) as libc::c_long,
        };
        // SAFETY: `at`'s caller vouched for the memory; `end` is a valid real time.
        unsafe { libc::sem_timedwait(self.0, &end) as libc::c_long }
    }
}
