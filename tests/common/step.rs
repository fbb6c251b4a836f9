//! Steps another process by single instructions, and looks after each one; or leaves it stopped there.
#![allow(dead_code, unreachable_pub)] // each test binary uses its own part

use std::process::{Child, Command};

/// How a stepped stretch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The process came to its next [`here`].
    Done,
    /// It slept in the kernel, and nobody woke it.
    Asleep,
    /// The observer asked to stop.
    Enough,
}

/// A traced process, killed when this is dropped.
pub struct Stepped {
    child: Child,
    /// The thread that is traced: a test runs in a thread of its own.
    thread: i32,
    /// Instructions so far.
    pub steps: usize,
}

/// In the stepped process: marks the beginning and the end of what is stepped.
pub fn here() {
    // SAFETY: raise takes a signal number.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// In the stepped process, once: asks to be traced by the parent. Ends with it, stopped or not: a test that is
/// aborted drops nothing.
pub fn traced() {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).unwrap();
    // SAFETY: PTRACE_TRACEME takes no further arguments.
    let result = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

impl Stepped {
    /// Starts the process and waits until it is at its first [`here`]. To be used by one thread only.
    pub fn start(command: &mut Command) -> Stepped {
        let child = command
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("spawn");
        let mut status = 0;
        // Of this thread's children and tracees there is one only.
        // SAFETY: `status` is writable.
        let thread = unsafe { libc::waitpid(-1, &mut status, libc::__WALL | libc::__WNOTHREAD) };
        assert!(
            thread > 0 && libc::WIFSTOPPED(status),
            "no stop: {status:#x}"
        );
        Stepped {
            child,
            thread,
            steps: 0,
        }
    }

    /// Waits until it stops, and for which signal.
    fn wait(&self) -> i32 {
        let mut status = 0;
        // SAFETY: `status` is writable.
        let pid = unsafe { libc::waitpid(self.thread, &mut status, libc::__WALL) };
        assert!(
            pid == self.thread && libc::WIFSTOPPED(status),
            "the stepped process ended by itself: {status:#x}"
        );
        libc::WSTOPSIG(status)
    }

    fn request(&self, request: libc::c_uint, signal: i32) {
        // SAFETY: the process is stopped and ours; these requests take a signal number.
        let result = unsafe { libc::ptrace(request, self.thread, 0, i64::from(signal)) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }

    fn registers(&self) -> libc::user_regs_struct {
        // SAFETY: registers are integers.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        // SAFETY: the process is stopped and ours; `registers` is writable.
        unsafe { libc::ptrace(libc::PTRACE_GETREGS, self.thread, 0, &mut registers) };
        registers
    }

    /// Whether the next instruction is a system call that may put it to sleep until somebody wakes it.
    fn may_sleep(&self) -> bool {
        let registers = self.registers();
        // SAFETY: the process is stopped and ours; the instruction pointer of a running program is readable by
        // the kernel, which copies the word.
        let word = unsafe { libc::ptrace(libc::PTRACE_PEEKTEXT, self.thread, registers.rip, 0) };
        let call = registers.rax as i64;
        word & 0xffff == 0x050f && (call == libc::SYS_futex || call == libc::SYS_futex_waitv)
    }

    /// Steps until the end, and calls `look` after every instruction; `false` from it ends it. It is asleep when
    /// nobody woke it for as long as it sleeps at a time, after which it would look around and go on sleeping.
    pub fn run(&mut self, mut look: impl FnMut(usize) -> bool) -> End {
        loop {
            let may_sleep = self.may_sleep();
            self.request(libc::PTRACE_SINGLESTEP, 0);
            match self.wait() {
                libc::SIGSTOP => return End::Done,
                libc::SIGTRAP => {}
                other => panic!("signal {other} while stepped"),
            }
            if may_sleep && self.registers().rax as i64 == i64::from(-libc::ETIMEDOUT) {
                return End::Asleep;
            }
            self.steps += 1;
            if !look(self.steps) {
                return End::Enough;
            }
        }
    }

    /// Runs to the next beginning or end of a system call.
    pub fn next_call(&mut self) -> End {
        self.request(libc::PTRACE_SYSCALL, 0);
        self.steps += 1;
        match self.wait() {
            libc::SIGSTOP => End::Done,
            _ => End::Enough,
        }
    }

    /// Runs to the beginning or end of the next system call; whether that is the beginning of one of `calls`.
    pub fn next_call_is<const N: usize>(&mut self, calls: [i64; N]) -> bool {
        self.next_call();
        let r = self.registers();
        // At the beginning of a call the kernel has it fail, until it is done.
        r.rax as i64 == i64::from(-libc::ENOSYS) && calls.contains(&(r.orig_rax as i64))
    }

    /// Runs to the next [`here`]. `fail` is asked at the beginning of each system call (its number and
    /// arguments), and may have it fail with an errno instead of being made. (`close` is made all the same:
    /// on Linux it always closes.)
    pub fn calls(&mut self, mut fail: impl FnMut(i64, [u64; 6]) -> Option<i32>) {
        // Stops at system calls are told from signals.
        let option = libc::PTRACE_O_TRACESYSGOOD;
        // SAFETY: the process is stopped and ours; the request takes a number.
        unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, self.thread, 0, option) };
        let (mut deliver, mut inside, mut errno) = (0, false, None);
        loop {
            self.request(libc::PTRACE_SYSCALL, deliver);
            deliver = 0;
            match self.wait() {
                signal if signal == libc::SIGTRAP | 0x80 => {}
                libc::SIGSTOP => return,
                signal => {
                    deliver = signal;
                    continue;
                }
            }
            inside = !inside;
            let mut r = self.registers();
            if inside {
                errno = fail(r.orig_rax as i64, [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9]);
                if errno.is_none() {
                    continue;
                }
                if r.orig_rax as i64 != libc::SYS_close {
                    r.orig_rax = u64::MAX; // no such call: nothing is done
                }
            } else {
                let Some(errno) = errno.take() else { continue };
                r.rax = i64::from(-errno) as u64;
            }
            // SAFETY: the process is stopped and ours; `r` holds what was read and one change.
            unsafe { libc::ptrace(libc::PTRACE_SETREGS, self.thread, 0, &r) };
        }
    }

    /// Runs to the next [`here`] undisturbed.
    pub fn go_on(&mut self) {
        let mut deliver = 0;
        loop {
            self.request(libc::PTRACE_CONT, deliver);
            match self.wait() {
                libc::SIGSTOP => return,
                signal => deliver = signal,
            }
        }
    }

    /// Lets go of it where it is, stopped by SIGSTOP as by a terminal or a debugger.
    pub fn stop(self) -> Stopped {
        // SAFETY: this is forgotten below, so the child has one owner.
        let child = unsafe { std::ptr::read(&raw const self.child) };
        self.request(libc::PTRACE_DETACH, libc::SIGSTOP);
        std::mem::forget(self);
        let stopped = Stopped(child);
        assert!(!stopped.wait(), "it ended instead of stopping");
        stopped
    }
}

impl Drop for Stepped {
    fn drop(&mut self) {
        let _ = self.child.kill();
        // The process is not gone before its traced thread is waited for.
        let mut status = 0;
        loop {
            // SAFETY: `status` is writable.
            let thread = unsafe { libc::waitpid(self.thread, &mut status, libc::__WALL) };
            if thread != self.thread || !libc::WIFSTOPPED(status) {
                break;
            }
        }
        let _ = self.child.wait();
    }
}

/// A process that was stopped in the middle of something; killed when this is dropped.
pub struct Stopped(Child);

impl Stopped {
    /// Waits until it stops, or ends well: whether it ended.
    fn wait(&self) -> bool {
        let mut status = 0;
        // SAFETY: `status` is writable.
        let pid = unsafe {
            let pid = self.0.id() as i32;
            libc::waitpid(pid, &mut status, libc::WUNTRACED | libc::__WALL)
        };
        assert_eq!(
            pid,
            self.0.id() as i32,
            "{}",
            std::io::Error::last_os_error()
        );
        if libc::WIFSTOPPED(status) {
            return false;
        }
        assert_eq!(status, 0, "it failed after it was continued");
        true
    }

    /// Continues it, over its marks too, until it has ended well.
    pub fn finish(self) {
        loop {
            // SAFETY: the process is ours and not waited for yet.
            unsafe { libc::kill(self.0.id() as i32, libc::SIGCONT) };
            if self.wait() {
                break;
            }
        }
        // Waited for already: nothing is left to be dropped but the descriptors, of which it has none.
        std::mem::forget(self);
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
