//! Passing descriptors over Unix sockets.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};

/// The most descriptors passed at once.
const MOST: usize = 8;
/// Words that a header and that many descriptors take, rounded up: aligned as headers must be.
const ROOM: usize = (size_of::<libc::cmsghdr>() + MOST * size_of::<RawFd>()).div_ceil(8);

/// Sends one byte with `fds`. Blocks while the socket is full.
pub(crate) fn send(socket: BorrowedFd<'_>, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let fds: Vec<_> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let byte = [IoSlice::new(b"R")];
    loop {
        match sendmsg::<UnixAddr>(
            socket.as_raw_fd(),
            &byte,
            &rights,
            MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives one byte and the descriptors that come with it. Blocks until they do. Fails with
/// `EMFILE`, and keeps none, when this process may not hold them all.
///
/// nix's `recvmsg` refuses to hand out what came when the kernel had to cut some off, and those it
/// has opened by then would stay open for ever: hence the bare call.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut byte = 0u8;
    let mut bytes = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    let mut room = [0u64; ROOM];
    // SAFETY: an all-zero msghdr is a valid one that refers to nothing.
    let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = &mut bytes;
    message.msg_iovlen = 1;
    message.msg_control = room.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&room);
    // SAFETY: `message` refers to `byte` and `room` with their sizes, and both outlive the call.
    let received = super::retry(|| unsafe {
        libc::recvmsg(socket.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC) as libc::c_long
    })?;
    let mut fds = Vec::new();
    // SAFETY: the kernel has filled `message` in, and `room`, to which it refers, still lives.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(&message) };
    while !next.is_null() {
        // SAFETY: not null, so a whole header inside `room`, which is aligned for it.
        let control = unsafe { &*next };
        if (control.cmsg_level, control.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: the data of a header of the kernel's lie behind it.
            let data = unsafe { libc::CMSG_DATA(next) }.cast::<RawFd>();
            // SAFETY: only computes the size of a header.
            let before = unsafe { libc::CMSG_LEN(0) } as usize;
            for i in 0..(control.cmsg_len - before) / size_of::<RawFd>() {
                // SAFETY: one of the descriptors, as many as the length says, which the kernel has
                // just made for us; perhaps not aligned.
                fds.push(unsafe { OwnedFd::from_raw_fd(data.add(i).read_unaligned()) });
            }
        }
        // SAFETY: as for the first.
        next = unsafe { libc::CMSG_NXTHDR(&message, next) };
    }
    if message.msg_flags & libc::MSG_CTRUNC != 0 {
        return Err(if fds.len() < MOST {
            Errno::EMFILE.into()
        } else {
            io::Error::new(io::ErrorKind::InvalidData, "too many descriptors came")
        });
    }
    if received == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(fds)
}
