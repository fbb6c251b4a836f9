//! Time: monotonic nanoseconds, shared by all processes of the machine.

use std::time::Duration;

/// Nanoseconds of `CLOCK_MONOTONIC`; comparable between processes.
#[inline]
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is writable; CLOCK_MONOTONIC always exists on Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A point in monotonic time at which a wait gives up; `None` waits for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(Option<u64>);

impl Deadline {
    /// Never.
    pub(crate) const NEVER: Deadline = Deadline(None);

    /// `timeout` from now; one too long to express never comes.
    pub(crate) fn after(timeout: Duration) -> Deadline {
        Deadline(
            u64::try_from(timeout.as_nanos())
                .ok()
                .and_then(|nanos| now().checked_add(nanos)),
        )
    }

    /// Whether it has passed.
    pub(crate) fn passed(self) -> bool {
        self.0.is_some_and(|at| now() >= at)
    }

    /// The absolute time, in the form the kernel takes.
    pub(crate) fn timespec(self) -> Option<libc::timespec> {
        self.0.map(|at| libc::timespec {
            tv_sec: (at / 1_000_000_000) as libc::time_t,
            tv_nsec: (at % 1_000_000_000) as libc::c_long,
        })
    }

    /// The earlier of this and `nanos` from now.
    pub(crate) fn at_most(self, nanos: u64) -> Deadline {
        let slice = now().saturating_add(nanos);
        Deadline(Some(self.0.map_or(slice, |at| at.min(slice))))
    }

    /// What is left, `None` if it never comes.
    pub(crate) fn left(self) -> Option<Duration> {
        self.0
            .map(|at| Duration::from_nanos(at.saturating_sub(now())))
    }
}
