//! Processes: start them, watch them through process descriptors, signal them with all that they
//! started, and read one's own signals from a descriptor.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::life::Pidfd;
use super::{check, retry};

pub(crate) use libc::{SIGCONT, SIGKILL, SIGPIPE, SIGSTOP, SIGTERM};
#[cfg(feature = "cli")]
pub(crate) use libc::{SIGHUP, SIGINT, SIGUSR1, SIGWINCH};

/// What to start, and what it is given.
pub(crate) struct Spawn<'a> {
    /// The file to execute.
    pub(crate) program: &'a Path,
    /// The name it is told it has.
    pub(crate) name: &'a OsStr,
    /// Its arguments, without the name.
    pub(crate) args: &'a [OsString],
    /// Environment variables to set, or to remove.
    pub(crate) env: &'a [(&'static str, Option<OsString>)],
    /// Its standard input.
    pub(crate) stdin: BorrowedFd<'a>,
    /// Its standard output.
    pub(crate) stdout: BorrowedFd<'a>,
    /// Further descriptors that it inherits, under the numbers they have here.
    pub(crate) inherit: &'a [RawFd],
    /// Whether it gets a process group of its own. Without, it stays in ours, as under a shell
    /// without job control, and may use the terminal.
    pub(crate) own_group: bool,
    /// Whether it starts with SIGINT ignored.
    pub(crate) ignore_interrupt: bool,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, with this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

/// A child process. It is neither killed nor waited for when this is dropped.
pub(crate) struct Child {
    child: std::process::Child,
    pidfd: Pidfd,
    own_group: bool,
    end: Option<End>,
}

/// Starts a process that the kernel kills when the calling thread ends.
pub(crate) fn spawn(spawn: &Spawn<'_>) -> io::Result<Child> {
    let mut command = Command::new(spawn.program);
    command
        .arg0(spawn.name)
        .args(spawn.args)
        .stdin(Stdio::from(spawn.stdin.try_clone_to_owned()?))
        .stdout(Stdio::from(spawn.stdout.try_clone_to_owned()?));
    for (name, value) in spawn.env {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if spawn.own_group {
        command.process_group(0);
    }
    let inherit = spawn.inherit.to_vec();
    let ignore_interrupt = spawn.ignore_interrupt;
    let parent = std::process::id() as libc::pid_t;
    let in_child = move || {
        for &fd in &inherit {
            // SAFETY: F_SETFD takes an integer.
            check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) as libc::c_long })?;
        }
        // SAFETY: an all-zero sigset_t may be handed to sigemptyset. What this process blocks to
        // take it from a descriptor is no affair of the child's.
        unsafe {
            let mut none: libc::sigset_t = core::mem::zeroed();
            libc::sigemptyset(&mut none);
            libc::pthread_sigmask(libc::SIG_SETMASK, &none, core::ptr::null_mut());
        }
        if ignore_interrupt {
            // SAFETY: SIG_IGN is a valid disposition.
            unsafe { libc::signal(libc::SIGINT, libc::SIG_IGN) };
        }
        // SAFETY: PR_SET_PDEATHSIG takes a signal number.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, SIGKILL) as libc::c_long })?;
        // SAFETY: getppid takes nothing.
        if unsafe { libc::getppid() } != parent {
            // The parent died before the line above could have noticed.
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: the closure makes system calls that are async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(in_child) };
    let child = command.spawn()?;
    // The child was not waited for, so that its id cannot have passed to another process.
    let pidfd = Pidfd::open(child.id())?;
    Ok(Child {
        child,
        pidfd,
        own_group: spawn.own_group,
        end: None,
    })
}

impl Child {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended; `None` while it runs.
    pub(crate) fn end(&mut self) -> io::Result<Option<End>> {
        if self.end.is_none() {
            self.end = self.child.try_wait()?.map(end_of);
        }
        Ok(self.end)
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> io::Result<End> {
        let end = end_of(self.child.wait()?);
        self.end = Some(end);
        Ok(end)
    }

    /// Sends `signal` to it and to what it started: its process group, or without one of its own,
    /// all its descendants.
    pub(crate) fn signal(&self, signal: i32) {
        let pid = self.child.id() as libc::pid_t;
        if self.own_group {
            // A group lives on while it has a member, also when its leader has ended; without
            // one the call fails, which is as good.
            // SAFETY: kill takes two integers.
            unsafe { libc::kill(-pid, signal) };
        } else if self.end.is_none() {
            for descendant in descendants(pid as u32) {
                // SAFETY: kill takes two integers.
                unsafe { libc::kill(descendant as libc::pid_t, signal) };
            }
            // SAFETY: as above; the child was not waited for, so the id is its own.
            unsafe { libc::kill(pid, signal) };
        }
    }
}

impl AsFd for Child {
    /// Readable once it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

fn end_of(status: std::process::ExitStatus) -> End {
    match status.code() {
        Some(code) => End::Exited(code),
        None => End::Killed(status.signal().unwrap_or(SIGKILL)),
    }
}

/// The processes that descend from `ancestor`, as far as `/proc` shows them.
fn descendants(ancestor: u32) -> Vec<u32> {
    let mut parents: Vec<(u32, u32)> = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if let Some(parent) = parent_of(pid) {
            parents.push((pid, parent));
        }
    }
    let mut found = vec![ancestor];
    let mut next = 0;
    while next < found.len() {
        let parent = found[next];
        found.extend(
            parents
                .iter()
                .filter(|(_, p)| *p == parent)
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    found.remove(0);
    found
}

fn parent_of(pid: u32) -> Option<u32> {
    Stat::of(pid)?.field(4)
}

/// What `/proc` says of a process, or of one of its threads.
pub(crate) struct Stat(String);

impl Stat {
    /// What is said of process `pid`.
    pub(crate) fn of(pid: u32) -> Option<Stat> {
        Stat::read(format!("/proc/{pid}/stat"))
    }

    /// Reads the `stat` file at `path`; none when that process or thread is gone.
    pub(crate) fn read(path: impl AsRef<Path>) -> Option<Stat> {
        let stat = Stat(std::fs::read_to_string(path).ok()?);
        stat.parts().is_some().then_some(stat)
    }

    /// The name, and what stands behind it. The name, in parentheses, may itself hold spaces and
    /// parentheses.
    fn parts(&self) -> Option<(&str, &str)> {
        self.0.split_once('(')?.1.rsplit_once(')')
    }

    /// The name.
    pub(crate) fn name(&self) -> &str {
        self.parts().map_or("", |(name, _)| name)
    }

    /// Field `number` as proc(5) counts them, from 3 (the state) on.
    pub(crate) fn field<T: std::str::FromStr>(&self, number: usize) -> Option<T> {
        let mut fields = self.parts()?.1.split_ascii_whitespace();
        fields.nth(number - 3)?.parse().ok()
    }

    /// Whether it is on its way out: it runs no more of its program. To whoever has joined it, it has ended, though
    /// `/proc` shows it for a moment more.
    pub(crate) fn is_ending(&self) -> bool {
        const PF_EXITING: u32 = 4;
        self.field::<u32>(9)
            .is_none_or(|flags| flags & PF_EXITING != 0)
    }
}

/// Makes orphans among our descendants our children, so that [`kill_descendants`] finds them.
#[cfg(feature = "cli")]
pub(crate) fn adopt_orphans() {
    // SAFETY: PR_SET_CHILD_SUBREAPER takes an integer. A kernel that refuses leaves things as
    // they were.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
}

/// Kills every descendant of this process, and reaps those that became its children.
#[cfg(feature = "cli")]
pub(crate) fn kill_descendants() {
    // A process may fork between our look and our kill; its children are then ours at the next
    // look. One that forks faster than this loop is given up on.
    for _ in 0..100 {
        let left = descendants(std::process::id());
        if left.is_empty() {
            return;
        }
        for pid in left {
            let Ok(pidfd) = Pidfd::open(pid) else {
                continue;
            };
            // Looked at again with the descriptor in hand: it cannot be somebody else's by now.
            if descendants(std::process::id()).contains(&pid) {
                // SAFETY: pidfd_send_signal takes a descriptor, a signal, no information and no
                // flags.
                unsafe {
                    libc::syscall(
                        libc::SYS_pidfd_send_signal,
                        pidfd.as_fd().as_raw_fd(),
                        SIGKILL,
                        core::ptr::null::<libc::siginfo_t>(),
                        0,
                    );
                }
                let _ = poll(&[Some(pidfd.as_fd())], Some(Duration::from_millis(100)));
            }
        }
        // SAFETY: waitpid with a null status reaps one ended child; only the stray ones are left.
        while unsafe { libc::waitpid(-1, core::ptr::null_mut(), libc::WNOHANG) } > 0 {}
    }
}

/// Whether this process may use a terminal: it is in the foreground of one.
pub(crate) fn in_foreground() -> bool {
    let Ok(terminal) = File::open("/dev/tty") else {
        return false;
    };
    // SAFETY: both take integers.
    unsafe { libc::tcgetpgrp(terminal.as_raw_fd()) == libc::getpgrp() }
}

/// A pipe, closed on exec: the end to read and the end to write. `capacity` is the room asked
/// for in bytes; the kernel may refuse, and the pipe then keeps its usual 64 KiB.
pub(crate) fn pipe(capacity: usize) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds: [RawFd; 2] = [-1; 2];
    // SAFETY: pipe2 writes two descriptors into the array.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) as libc::c_long })?;
    // SAFETY: pipe2 returned two descriptors that nobody else owns.
    let (read, write) = unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) };
    // SAFETY: F_SETPIPE_SZ takes an integer.
    unsafe {
        libc::fcntl(
            write.as_raw_fd(),
            libc::F_SETPIPE_SZ,
            capacity as libc::c_int,
        )
    };
    Ok((read, write))
}

/// Takes over a descriptor that was inherited under this number; it is closed on exec from now on.
pub(crate) fn take_inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD takes an integer; a number that is no descriptor fails.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) as libc::c_long })?;
    // SAFETY: the descriptor is open. Whoever names it promises that it was handed down for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An anonymous file in memory.
pub(crate) fn memory_file(name: &std::ffi::CStr) -> io::Result<File> {
    // SAFETY: `name` is NUL-terminated.
    let fd =
        check(unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) as libc::c_long })?;
    // SAFETY: memfd_create returned a descriptor that nobody else owns.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
}

/// Copies `len` bytes of a file, from its start, to another descriptor within the kernel; less if
/// the file is shorter. Where the kernel cannot, the caller reads and writes (`EINVAL`).
pub(crate) fn send_file(from: &File, to: BorrowedFd<'_>, len: u64) -> io::Result<u64> {
    let mut offset: libc::off_t = 0;
    while (offset as u64) < len {
        // SAFETY: `offset` is writable; both descriptors are open.
        let sent = retry(|| unsafe {
            libc::sendfile(
                to.as_raw_fd(),
                from.as_raw_fd(),
                &mut offset,
                (len - offset as u64) as usize,
            ) as libc::c_long
        })?;
        if sent == 0 {
            break;
        }
    }
    Ok(offset as u64)
}

/// Reads what there is, at least one byte unless the input has ended.
pub(crate) fn read(from: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is writable and its length is given.
    let len = retry(|| unsafe {
        libc::read(from.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) as libc::c_long
    })?;
    Ok(len as usize)
}

/// Has a write of this thread to a pipe that nobody reads fail, instead of ending the process.
pub(crate) fn ignore_broken_pipes() {
    // SAFETY: an all-zero sigset_t may be handed to sigemptyset; the signal number is valid. A
    // blocked SIGPIPE stays pending in this thread, which it was sent to, and ends with it.
    unsafe {
        let mut set: libc::sigset_t = core::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, core::ptr::null_mut());
    }
}

/// Waits until one of the descriptors is readable (or hung up), or for `timeout`. Entries that
/// are `None` are passed over. The answer has one entry for each.
pub(crate) fn poll(
    fds: &[Option<BorrowedFd<'_>>],
    timeout: Option<Duration>,
) -> io::Result<Vec<bool>> {
    let mut polled: Vec<libc::pollfd> = fds
        .iter()
        .map(|fd| libc::pollfd {
            fd: fd.map_or(-1, |fd| fd.as_raw_fd()),
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: timeout.subsec_nanos() as libc::c_long,
    });
    let timeout = timeout.as_ref().map_or(core::ptr::null(), |timeout| {
        timeout as *const libc::timespec
    });
    // SAFETY: `polled` is as long as given; `timeout` is null or valid; no signal mask.
    let ready = check(unsafe {
        libc::ppoll(
            polled.as_mut_ptr(),
            polled.len() as libc::nfds_t,
            timeout,
            core::ptr::null(),
        ) as libc::c_long
    });
    match ready {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            return Ok(vec![false; fds.len()]);
        }
        Err(error) => return Err(error),
    }
    Ok(polled.iter().map(|polled| polled.revents != 0).collect())
}

/// Waits for `timeout`, or until nobody has the other end of what is written to `fd` open any more; whether
/// that is so.
#[cfg(feature = "cli")]
pub(crate) fn is_unread(fd: BorrowedFd<'_>, timeout: Duration) -> bool {
    let mut polled = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: 0,
        revents: 0,
    };
    let timeout = timeout.as_millis().min(1000) as libc::c_int;
    // SAFETY: one entry, which is writable.
    unsafe { libc::poll(&mut polled, 1, timeout) > 0 }
}

/// Signals of this process, read from a descriptor instead of interrupting it.
#[cfg(feature = "cli")]
pub(crate) struct Signals {
    fd: OwnedFd,
    set: libc::sigset_t,
}

#[cfg(feature = "cli")]
impl Signals {
    /// Blocks `signals` in this thread (and in those that it starts from now on) and takes them
    /// from the descriptor. Dropping it unblocks them.
    pub(crate) fn take(signals: &[i32]) -> io::Result<Signals> {
        // SAFETY: an all-zero sigset_t may be handed to sigemptyset.
        let mut set: libc::sigset_t = unsafe { core::mem::zeroed() };
        // SAFETY: `set` is writable; the signal numbers are valid.
        unsafe {
            libc::sigemptyset(&mut set);
            for &signal in signals {
                libc::sigaddset(&mut set, signal);
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, &set, core::ptr::null_mut());
        }
        // SAFETY: `set` is initialised; -1 asks for a new descriptor.
        let fd = check(unsafe {
            libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) as libc::c_long
        })?;
        // SAFETY: signalfd returned a descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
        Ok(Signals { fd, set })
    }

    /// The next signal that has come, if one has.
    pub(crate) fn next(&self) -> Option<i32> {
        // SAFETY: an all-zero signalfd_siginfo is valid.
        let mut info: libc::signalfd_siginfo = unsafe { core::mem::zeroed() };
        // SAFETY: `info` is writable and its size is given.
        let len = retry(|| unsafe {
            libc::read(
                self.fd.as_raw_fd(),
                (&raw mut info).cast(),
                size_of_val(&info),
            ) as libc::c_long
        });
        match len {
            Ok(len) if len as usize == size_of_val(&info) => Some(info.ssi_signo as i32),
            _ => None,
        }
    }
}

#[cfg(feature = "cli")]
impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(feature = "cli")]
impl Drop for Signals {
    fn drop(&mut self) {
        // SAFETY: `set` is initialised.
        unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &self.set, core::ptr::null_mut()) };
    }
}

/// The name of a signal, as `kill -l` has it.
pub(crate) fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal).map_or_else(
        |_| format!("signal {signal}"),
        |signal| signal.as_str().to_owned(),
    )
}
