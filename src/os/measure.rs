//! What a measurement asks of the operating system: processors, processor time, and that nothing
//! is left behind.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::check;

/// Keeps this thread on processor `cpu`.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is a valid, empty set.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    if cpu >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: `cpu` is inside the set, which was checked.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: `set` is initialised and its size is given.
    check(unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) as libc::c_long }).map(drop)
}

/// The processors this thread may run on.
pub(crate) fn allowed_cpus() -> Vec<usize> {
    // SAFETY: an all-zero cpu_set_t is a valid, empty set.
    let mut set: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    // SAFETY: `set` is writable and its size is given.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &mut set) } != 0 {
        return vec![0];
    }
    (0..libc::CPU_SETSIZE as usize)
        // SAFETY: the index is inside the set, which was filled in above.
        .filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) })
        .collect()
}

/// Has the kernel kill this process when the thread that started it ends; false when `parent` is
/// gone already.
pub(crate) fn die_with(parent: u32) -> bool {
    // SAFETY: PR_SET_PDEATHSIG takes an integer.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    // SAFETY: getppid takes nothing.
    let now = unsafe { libc::getppid() };
    now as u32 == parent
}

/// Has the kernel end this process after `limit`, whatever it is doing.
pub(crate) fn end_after(limit: Duration) {
    let seconds = limit.as_secs().clamp(1, 86_400) as libc::c_uint;
    // SAFETY: alarm takes an integer; SIGALRM keeps its default action, which ends the process.
    unsafe { libc::alarm(seconds) };
}

/// Whether files can be made in `directory`, without making one.
pub(crate) fn can_create_in(directory: &Path) -> io::Result<()> {
    use nix::unistd::{AccessFlags, access};
    Ok(access(
        &directory.join("."),
        AccessFlags::W_OK | AccessFlags::X_OK,
    )?)
}

/// What this process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Processor time, user and system, in nanoseconds.
    pub(crate) cpu_ns: u64,
    /// How often it gave up the processor to wait for something.
    pub(crate) sleeps: u64,
    /// How often the processor was taken from it.
    pub(crate) preemptions: u64,
}

/// What this process has used so far.
pub(crate) fn usage() -> Usage {
    // SAFETY: an all-zero rusage is valid.
    let mut usage: libc::rusage = unsafe { core::mem::zeroed() };
    // SAFETY: `usage` is writable.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &mut usage) };
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is writable; the process clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Usage {
        cpu_ns: time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64,
        sleeps: usage.ru_nvcsw as u64,
        preemptions: usage.ru_nivcsw as u64,
    }
}

/// Processor time of this process and its children that have ended, in seconds.
pub(crate) fn seconds_with_children() -> f64 {
    [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN]
        .into_iter()
        .map(|who| {
            // SAFETY: an all-zero rusage is valid.
            let mut usage: libc::rusage = unsafe { core::mem::zeroed() };
            // SAFETY: `usage` is writable.
            unsafe { libc::getrusage(who, &mut usage) };
            [usage.ru_utime, usage.ru_stime]
                .iter()
                .map(|time| time.tv_sec as f64 + time.tv_usec as f64 / 1e6)
                .sum::<f64>()
        })
        .sum()
}

/// How many ticks of the clock the kernel counts in a second.
pub(crate) fn ticks_a_second() -> f64 {
    // SAFETY: sysconf takes an integer.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if ticks > 0 { ticks as f64 } else { 100.0 }
}

/// The signals by which a user ends a program.
fn ending_signals() -> libc::sigset_t {
    // SAFETY: an all-zero sigset_t is writable memory of the right size; the signals are valid.
    unsafe {
        let mut set: libc::sigset_t = core::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(&mut set, signal);
        }
        set
    }
}

/// Holds back SIGINT, SIGTERM and SIGHUP for this thread and those it starts, for
/// [`wait_for_ending`] to take; or lets them through again.
pub(crate) fn hold_endings(hold: bool) {
    let how = if hold {
        libc::SIG_BLOCK
    } else {
        libc::SIG_UNBLOCK
    };
    // SAFETY: the set is initialised; the old mask is not wanted.
    unsafe { libc::pthread_sigmask(how, &ending_signals(), core::ptr::null_mut()) };
}

/// Sleeps until one of the held signals comes, and returns its number.
pub(crate) fn wait_for_ending() -> i32 {
    let set = ending_signals();
    let mut signal = 0;
    // SAFETY: `set` is initialised and `signal` is writable.
    while unsafe { libc::sigwait(&set, &mut signal) } != 0 {}
    signal
}

/// Asks the process that started this one to watch its system calls, and stops until it does.
pub(crate) fn be_traced() -> io::Result<()> {
    // SAFETY: PTRACE_TRACEME takes nothing else.
    check(unsafe { libc::ptrace(libc::PTRACE_TRACEME) })?;
    // SAFETY: raise takes an integer; the tracer lets this process go on.
    check(unsafe { libc::raise(libc::SIGSTOP) as libc::c_long }).map(drop)
}

/// Counts the system calls that children, which called [`be_traced`], make while `counting` says so
/// of their index, until all have ended. The thread that started them must call this.
///
/// # Errors
/// When a child ends otherwise than by `exit(0)`; the others are killed then.
pub(crate) fn count_system_calls(
    children: &[u32],
    counting: impl Fn(usize) -> bool,
) -> io::Result<u64> {
    let ptrace = |request: libc::c_uint, pid: libc::pid_t, data: usize| {
        // SAFETY: these requests take an integer in place of a pointer.
        unsafe { libc::ptrace(request, pid, 0usize, data) }
    };
    let mut inside = vec![None; children.len()];
    let mut left = children.len();
    let mut calls = 0;
    let mut failed = false;
    while left > 0 {
        let mut status = 0;
        // SAFETY: `status` is writable. Only the children given exist.
        let pid = super::retry(|| unsafe {
            libc::waitpid(-1, &mut status, libc::__WALL) as libc::c_long
        })? as libc::pid_t;
        let Some(index) = children.iter().position(|&child| child == pid as u32) else {
            continue;
        };
        if !libc::WIFSTOPPED(status) {
            left -= 1;
            if status != 0 && !failed {
                failed = true;
                for &child in children {
                    // SAFETY: kill takes integers; these are children that were not all waited for.
                    unsafe { libc::kill(child as libc::pid_t, libc::SIGKILL) };
                }
            }
            continue;
        }
        let signal = libc::WSTOPSIG(status);
        let deliver = match (inside[index], signal) {
            (None, libc::SIGSTOP) => {
                // Its first stop: from now on a stop at a system call shows as SIGTRAP | 0x80.
                inside[index] = Some(false);
                ptrace(
                    libc::PTRACE_SETOPTIONS,
                    pid,
                    (libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL) as usize,
                );
                0
            }
            (Some(within), signal) if signal == libc::SIGTRAP | 0x80 => {
                calls += u64::from(!within && counting(index));
                inside[index] = Some(!within);
                0
            }
            (_, signal) => signal,
        };
        ptrace(libc::PTRACE_SYSCALL, pid, deliver as usize);
    }
    if failed {
        return Err(io::Error::other("a traced process failed"));
    }
    Ok(calls)
}
