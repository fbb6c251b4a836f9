//! Unix-domain sockets of the kind that keeps message boundaries and order (`SOCK_SEQPACKET`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{check, retry};

const KIND: libc::c_int = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;

/// Two sockets that are connected.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1 as RawFd; 2];
    // SAFETY: `fds` has room for the two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, KIND, 0, fds.as_mut_ptr()).into() })?;
    // SAFETY: socketpair returned two descriptors that nobody else owns.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: socket takes three integers.
    let fd = check(unsafe { libc::socket(libc::AF_UNIX, KIND, 0).into() })?;
    // SAFETY: socket returned a descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The longest path of a socket, in bytes.
pub(crate) const LONGEST_PATH: usize = 107;

fn address(path: &Path) -> io::Result<libc::sockaddr_un> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() || bytes.len() > LONGEST_PATH || bytes.contains(&0) {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    // SAFETY: an all-zero sockaddr_un is valid.
    let mut address: libc::sockaddr_un = unsafe { core::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    Ok(address)
}

const ADDRESS_LEN: libc::socklen_t = size_of::<libc::sockaddr_un>() as libc::socklen_t;

/// A socket that listens at `path`, to which those whom `mode` lets write may connect.
/// `EADDRINUSE` when something is there.
pub(crate) fn listen(path: &Path, mode: u32) -> io::Result<OwnedFd> {
    let address = address(path)?;
    let fd = socket()?;
    use std::os::fd::AsFd;
    // Before the name exists, so that nobody slips in under another mode.
    super::inode::set_mode(fd.as_fd(), mode)?;
    let pointer = (&address as *const libc::sockaddr_un).cast();
    // SAFETY: `pointer` and the length describe `address`.
    check(unsafe { libc::bind(fd.as_raw_fd(), pointer, ADDRESS_LEN).into() })?;
    // SAFETY: listen takes two integers.
    check(unsafe { libc::listen(fd.as_raw_fd(), 128).into() })?;
    Ok(fd)
}

/// Connects to the socket at `path`. `ENOENT`: nothing is there; `ECONNREFUSED`: nobody listens any
/// more; `EAGAIN`: too many wait to be accepted.
pub(crate) fn connect(path: &Path) -> io::Result<OwnedFd> {
    let address = address(path)?;
    let fd = socket()?;
    let pointer = (&address as *const libc::sockaddr_un).cast();
    // SAFETY: `pointer` and the length describe `address`.
    retry(|| unsafe { libc::connect(fd.as_raw_fd(), pointer, ADDRESS_LEN).into() })?;
    Ok(fd)
}

/// Lets nobody connect any more; those who wait to be accepted still can be, and then `EINVAL` is said.
pub(crate) fn stop_listening(listener: BorrowedFd<'_>) {
    // SAFETY: shutdown takes two integers.
    unsafe { libc::shutdown(listener.as_raw_fd(), libc::SHUT_RD) };
}

/// Takes the next connection, if one is waiting.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: null pointers: the peer's address is not asked for.
    let accepted = retry(|| unsafe {
        libc::accept4(
            listener.as_raw_fd(),
            core::ptr::null_mut(),
            core::ptr::null_mut(),
            flags,
        )
        .into()
    });
    match accepted {
        // SAFETY: accept4 returned a descriptor that nobody else owns.
        Ok(fd) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
        // It hung up before it was accepted.
        Err(e) if e.raw_os_error() == Some(libc::ECONNABORTED) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Sends a packet of two parts; false when there is no room now.
pub(crate) fn send(fd: BorrowedFd<'_>, header: &[u8], payload: &[u8]) -> io::Result<bool> {
    let mut parts = [header, payload].map(|part| libc::iovec {
        iov_base: part.as_ptr().cast_mut().cast(),
        iov_len: part.len(),
    });
    // SAFETY: an all-zero msghdr is valid: no address, no control data.
    let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = 2;
    // SAFETY: `message` points to two iovecs of live slices, which sendmsg only reads.
    let sent = retry(|| unsafe {
        libc::sendmsg(
            fd.as_raw_fd(),
            &message,
            libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
        ) as libc::c_long
    });
    match sent {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// Receives a packet: its length, 0 at the end, `None` when there is none now. A packet longer than
/// the buffer is cut.
pub(crate) fn receive(fd: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<Option<usize>> {
    let mut once_more = true;
    loop {
        // SAFETY: `into` is writable for its length.
        let received = retry(|| unsafe {
            libc::recv(
                fd.as_raw_fd(),
                into.as_mut_ptr().cast(),
                into.len(),
                libc::MSG_DONTWAIT,
            ) as libc::c_long
        });
        match received {
            Ok(len) => return Ok(Some(len as usize)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            // The peer closed without having read all that was sent to it. That is told once, and
            // before what it sent itself, which is still there.
            Err(e) if e.raw_os_error() == Some(libc::ECONNRESET) && once_more => {
                once_more = false;
            }
            Err(e) => return Err(e),
        }
    }
}

/// Lets more data wait in the socket than until now; how much is up to the system.
pub(crate) fn make_room(fd: BorrowedFd<'_>) {
    let bytes: libc::c_int = 16 << 20;
    // SAFETY: SO_SNDBUF reads one int. Its failing changes nothing.
    unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            (&bytes as *const libc::c_int).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
}
