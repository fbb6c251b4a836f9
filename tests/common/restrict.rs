//! What a process can be refused, to be called between `fork` and `exec`.
#![allow(dead_code, unreachable_pub)] // each test binary uses its own part

/// A mount namespace of one's own, in which `mount` says what `target` is.
pub fn mounted(
    target: &'static std::ffi::CStr,
    options: &'static std::ffi::CStr,
    flags: u64,
) -> std::io::Result<()> {
    // SAFETY: all strings are NUL-terminated.
    unsafe {
        if libc::unshare(libc::CLONE_NEWNS) != 0 {
            return Err(std::io::Error::last_os_error());
        }
        let private = libc::MS_REC | libc::MS_PRIVATE;
        libc::mount(
            c"none".as_ptr(),
            c"/".as_ptr(),
            std::ptr::null(),
            private,
            std::ptr::null(),
        );
        let done = libc::mount(
            c"tmpfs".as_ptr(),
            target.as_ptr(),
            c"tmpfs".as_ptr(),
            flags,
            options.as_ptr().cast(),
        );
        if done != 0 {
            return Err(std::io::Error::last_os_error());
        }
    }
    Ok(())
}

/// What is refused, and how.
pub type Restriction = (&'static str, fn() -> std::io::Result<()>);

/// The ways in which `/dev/shm` can be of no use.
pub const NO_SHARED_MEMORY: [Restriction; 3] = [
    ("full", || mounted(c"/dev/shm", c"size=4096", 0)),
    ("missing", || {
        // `/dev` with what a process needs, and no `shm` in it.
        mounted(c"/dev", c"size=65536", 0)?;
        let null = libc::makedev(1, 3);
        // SAFETY: a NUL-terminated path.
        unsafe { libc::mknod(c"/dev/null".as_ptr(), libc::S_IFCHR | 0o666, null) };
        Ok(())
    }),
    ("not writable", || {
        mounted(c"/dev/shm", c"size=65536", libc::MS_RDONLY)
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
