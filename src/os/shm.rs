//! Shared memory: where a ring's descriptor comes from, and how a name appears and vanishes.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{check, retry};

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a name with a NUL byte"))
}

fn file(fd: libc::c_long) -> File {
    // SAFETY: called with the descriptor that an open call just returned; nobody else owns it.
    File::from(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// An anonymous memory file that can be sealed. `name` is for people, in `/proc`.
pub(crate) fn memfd(name: &CStr) -> io::Result<File> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: `name` is NUL-terminated.
    Ok(file(check(unsafe {
        libc::memfd_create(name.as_ptr(), flags) as libc::c_long
    })?))
}

/// An anonymous memory file of huge pages of the default size.
pub(crate) fn memfd_huge(name: &CStr) -> io::Result<File> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | libc::MFD_HUGETLB;
    // SAFETY: `name` is NUL-terminated.
    Ok(file(check(unsafe {
        libc::memfd_create(name.as_ptr(), flags) as libc::c_long
    })?))
}

/// Seals a memory file against shrinking, growing, and the taking back of these seals.
pub(crate) fn seal(file: &File) -> io::Result<()> {
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: F_ADD_SEALS takes an integer.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) as libc::c_long })
        .map(drop)
}

/// Whether a file is sealed against shrinking. `None` for a file that cannot be sealed at all.
pub(crate) fn is_sealed(file: &File) -> Option<bool> {
    // SAFETY: F_GET_SEALS takes nothing.
    let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    (seals >= 0).then_some(seals & libc::F_SEAL_SHRINK != 0)
}

/// A file without a name in `directory`, readable and writable.
pub(crate) fn unnamed(directory: &Path, mode: u32) -> io::Result<File> {
    let path = c_path(directory)?;
    let flags = libc::O_TMPFILE | libc::O_RDWR | libc::O_CLOEXEC;
    let file = file(retry(|| {
        // SAFETY: `path` is NUL-terminated; O_TMPFILE takes a mode.
        unsafe { libc::open(path.as_ptr(), flags, mode) as libc::c_long }
    })?);
    // The mode given to open was cut by the umask; what the user asked for is what it gets.
    // SAFETY: fchmod takes two integers.
    check(unsafe { libc::fchmod(file.as_raw_fd(), mode) as libc::c_long })?;
    Ok(file)
}

/// Gives an unnamed file its name, in one step. `EEXIST` when the name is taken.
pub(crate) fn link(file: &File, path: &Path) -> io::Result<()> {
    let from = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let to = c_path(path)?;
    // SAFETY: both paths are NUL-terminated.
    check(unsafe {
        libc::linkat(
            libc::AT_FDCWD,
            from.as_ptr(),
            libc::AT_FDCWD,
            to.as_ptr(),
            libc::AT_SYMLINK_FOLLOW,
        ) as libc::c_long
    })
    .map(drop)
}

/// Opens an existing file, never through a symbolic link, and never blocking on a FIFO.
pub(crate) fn open(path: &Path, writable: bool) -> io::Result<File> {
    let c = c_path(path)?;
    let mode = if writable {
        libc::O_RDWR
    } else {
        libc::O_RDONLY
    };
    let flags = mode | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    Ok(file(retry(|| {
        // SAFETY: `c` is NUL-terminated.
        unsafe { libc::open(c.as_ptr(), flags) as libc::c_long }
    })?))
}

/// Sets the length of a file and has all of it allocated, so that no later access can fail for want
/// of memory.
pub(crate) fn allocate(file: &File, len: u64) -> io::Result<()> {
    file.set_len(len)?;
    // SAFETY: fallocate takes integers.
    retry(|| unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len as libc::off_t) as libc::c_long })
        .map(drop)
}

/// Has all of the first `len` bytes allocated, without changing the file's length or what it holds.
pub(crate) fn fill_holes(file: &File, len: u64) -> io::Result<()> {
    let keep = libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: fallocate takes integers.
    retry(|| unsafe {
        libc::fallocate(file.as_raw_fd(), keep, 0, len as libc::off_t) as libc::c_long
    })
    .map(drop)
}

/// Whether `path` still names this file.
pub(crate) fn is_named(file: &File, path: &Path) -> bool {
    let (Ok(ours), Ok(theirs)) = (file.metadata(), std::fs::symlink_metadata(path)) else {
        return false;
    };
    ours.dev() == theirs.dev() && ours.ino() == theirs.ino()
}
