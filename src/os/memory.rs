//! Searching memory, as fast as the C library does it for this processor.

/// Where `byte` first stands in `bytes`.
pub(crate) fn find(byte: u8, bytes: &[u8]) -> Option<usize> {
    let base = bytes.as_ptr();
    // SAFETY: `bytes` is readable for its length.
    let at = unsafe { libc::memchr(base.cast(), byte.into(), bytes.len()) };
    (!at.is_null()).then(|| at as usize - base as usize)
}

/// Where `byte` last stands in `bytes`.
pub(crate) fn find_last(byte: u8, bytes: &[u8]) -> Option<usize> {
    let base = bytes.as_ptr();
    // SAFETY: `bytes` is readable for its length.
    let at = unsafe { libc::memrchr(base.cast(), byte.into(), bytes.len()) };
    (!at.is_null()).then(|| at as usize - base as usize)
}
