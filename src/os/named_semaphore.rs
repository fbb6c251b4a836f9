//! POSIX semaphores with a name.

use std::ffi::CString;
use std::io;

use super::semaphore::Semaphore;
use super::{check, retry};

/// A named semaphore that is open.
#[derive(Debug)]
pub(crate) struct Named(*mut libc::sem_t);

// SAFETY: POSIX semaphores are made to be used from any thread; the pointer is only closed on drop.
unsafe impl Send for Named {}
// SAFETY: as above.
unsafe impl Sync for Named {}

fn c_name(name: &str) -> io::Result<CString> {
    CString::new(name)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a name with a NUL byte"))
}

/// Calls `open` until it fails with something else than `EINTR`.
fn opened(mut open: impl FnMut() -> *mut libc::sem_t) -> io::Result<Named> {
    let mut semaphore = libc::SEM_FAILED;
    retry(|| {
        semaphore = open();
        if semaphore == libc::SEM_FAILED { -1 } else { 0 }
    })?;
    Ok(Named(semaphore))
}

impl Named {
    /// Makes the semaphore `name` (with its slash), with `value`; `EEXIST` when it is there.
    pub(crate) fn create(name: &str, mode: u32, value: u32) -> io::Result<Named> {
        let name = c_name(name)?;
        let flags = libc::O_CREAT | libc::O_EXCL;
        // SAFETY: `name` is NUL-terminated; O_CREAT has sem_open read a mode and a value.
        opened(|| unsafe { libc::sem_open(name.as_ptr(), flags, mode as libc::c_uint, value) })
    }

    /// Opens the semaphore `name`.
    pub(crate) fn open(name: &str) -> io::Result<Named> {
        let name = c_name(name)?;
        // SAFETY: `name` is NUL-terminated; without O_CREAT no further arguments are read.
        opened(|| unsafe { libc::sem_open(name.as_ptr(), 0) })
    }

    /// Removes the name.
    pub(crate) fn unlink(name: &str) -> io::Result<()> {
        let name = c_name(name)?;
        // SAFETY: `name` is NUL-terminated.
        retry(|| unsafe { libc::sem_unlink(name.as_ptr()).into() }).map(drop)
    }

    /// The semaphore, which must not be used after this is dropped.
    pub(crate) fn semaphore(&self) -> Semaphore {
        // SAFETY: sem_open returned a mapped semaphore, which stays mapped until it is closed.
        unsafe { Semaphore::at(self.0.cast()) }
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        // SAFETY: opened by sem_open, closed once. It cannot fail then.
        let _ = check(unsafe { libc::sem_close(self.0).into() });
    }
}
