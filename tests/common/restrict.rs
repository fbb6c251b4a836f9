//! What a process can be refused, to be called between `fork` and `exec`.
#![allow(dead_code, unreachable_pub)] // each test binary uses its own part

use std::ffi::CStr;

/// A user namespace of one's own, in which one is who one was and may mount.
fn become_able_to_mount() -> std::io::Result<()> {
    // SAFETY: these take nothing, or an integer.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    if user == 0 {
        return Ok(());
    }
    // SAFETY: as above.
    if unsafe { libc::unshare(libc::CLONE_NEWUSER) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
}

/// Whether a process can be refused shared memory by what is mounted for it; if not, that is said.
pub fn can_mount() -> bool {
    use std::os::unix::process::CommandExt;
    let mut command = std::process::Command::new("true");
    // SAFETY: what is run between fork and exec are system calls, and allocations, which the C library
    // allows there.
    unsafe { command.pre_exec(NO_SHARED_MEMORY[0].1) };
    let able = command.status().is_ok_and(|status| status.success());
    if !able {
        super::common::not_shown("to mount takes root, or a user namespace");
    }
    able
}

fn done(result: libc::c_int) -> std::io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// A mount namespace of one's own.
fn own_mounts() -> std::io::Result<()> {
    become_able_to_mount()?;
    let private = libc::MS_REC | libc::MS_PRIVATE;
    let none = std::ptr::null();
    // SAFETY: all strings are NUL-terminated.
    unsafe {
        done(libc::unshare(libc::CLONE_NEWNS))?;
        done(libc::mount(
            c"none".as_ptr(),
            c"/".as_ptr(),
            none,
            private,
            none.cast(),
        ))
    }
}

/// Has memory of its own, with these `options`, stand at `target`.
fn mount(target: &CStr, options: &CStr, flags: u64) -> std::io::Result<()> {
    let (kind, options) = (c"tmpfs".as_ptr(), options.as_ptr().cast());
    // SAFETY: all strings are NUL-terminated.
    done(unsafe { libc::mount(kind, target.as_ptr(), kind, flags, options) })
}

/// What is refused, and how.
pub type Restriction = (&'static str, fn() -> std::io::Result<()>);

/// The ways in which `/dev/shm` can be of no use.
pub const NO_SHARED_MEMORY: [Restriction; 3] = [
    ("full", || {
        own_mounts()?;
        mount(c"/dev/shm", c"size=4096", 0)
    }),
    ("missing", || {
        // `/dev` with what a process needs, and no `shm` in it.
        own_mounts()?;
        let null = std::fs::File::open("/dev/null")?;
        let path = format!("/proc/self/fd/{}\0", std::os::fd::AsRawFd::as_raw_fd(&null));
        mount(c"/dev", c"size=65536", 0)?;
        std::fs::write("/dev/null", "")?;
        let (target, none) = (c"/dev/null".as_ptr(), std::ptr::null());
        let path = path.as_ptr().cast();
        // SAFETY: all strings are NUL-terminated.
        done(unsafe { libc::mount(path, target, none, libc::MS_BIND, none.cast()) })
    }),
    ("not writable", || {
        own_mounts()?;
        mount(c"/dev/shm", c"size=65536", libc::MS_RDONLY)
    }),
];

/// Has the system call `memfd_create` fail with EPERM, as a sandbox does.
pub fn deny_memfd_create() -> std::io::Result<()> {
    const fn filter(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
        libc::sock_filter {
            code: code as u16,
            jt,
            jf,
            k,
        }
    }
    let program = [
        filter(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        filter(
            libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
            0,
            1,
            libc::SYS_memfd_create as u32,
        ),
        filter(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::EPERM as u32,
        ),
        filter(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: `program` points to a filter that outlives the call.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        if libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}
