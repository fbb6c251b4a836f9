//! Being told to stop by SIGINT or SIGTERM, for the tool: the signal is noted, and whoever works looks at
//! the note. Unless [`heed`] was called, nothing is changed, and both answers are always no.

#[cfg(feature = "cli")]
use std::sync::atomic::AtomicI32;
use std::sync::atomic::{AtomicBool, Ordering};

/// The signal that came.
#[cfg(feature = "cli")]
static ASKED: AtomicI32 = AtomicI32::new(0);
/// It came a second ago, or more.
static OVERDUE: AtomicBool = AtomicBool::new(false);

/// The signal that asked this process to stop, if one did.
#[cfg(feature = "cli")]
pub(crate) fn asked() -> Option<i32> {
    // Relaxed, here and below: nothing hangs on the order.
    Some(ASKED.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
}

/// Whether one did some time ago, so that what still blocks is to be given up.
pub(crate) fn overdue() -> bool {
    OVERDUE.load(Ordering::Relaxed)
}

/// The exit status of a process that stopped because it was asked to.
#[cfg(feature = "cli")]
pub(crate) fn status(signal: i32) -> std::process::ExitCode {
    std::process::ExitCode::from((128 + signal) as u8)
}

/// Has SIGINT and SIGTERM noted from now on, unless they are ignored; a second one ends the process as it
/// would have. The alarm that follows interrupts whatever call blocks by then: one that began to just
/// after the signal, too.
#[cfg(feature = "cli")]
pub(crate) fn heed() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGALRM] {
        // SAFETY: an all-zero sigaction may be filled in: no flags (so that calls are interrupted), an
        // empty mask. The handler makes only calls that are async-signal-safe.
        unsafe {
            let mut action: libc::sigaction = core::mem::zeroed();
            libc::sigaction(signal, core::ptr::null(), &mut action);
            if action.sa_sigaction == libc::SIG_IGN && signal != libc::SIGALRM {
                continue;
            }
            action = core::mem::zeroed();
            action.sa_sigaction = note as *const () as libc::sighandler_t;
            libc::sigaction(signal, &action, core::ptr::null_mut());
        }
    }
}

#[cfg(feature = "cli")]
extern "C" fn note(signal: i32) {
    if signal == libc::SIGALRM {
        OVERDUE.store(true, Ordering::Relaxed);
    } else if ASKED.swap(signal, Ordering::Relaxed) != 0 {
        // SAFETY: both take integers; the signal comes once this handler has returned.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
    }
    // SAFETY: alarm takes an integer.
    unsafe { libc::alarm(1) };
}
