//! Unix sockets that keep message boundaries: seqpacket and datagram.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use super::super::control::Role;
use super::super::link::{Link, Outcome};
use super::{Ends, directions};
use crate::os::bare;

/// A pair of seqpacket sockets: the leader's, the follower's.
pub(super) fn seqpacket(size: usize) -> Outcome<[OwnedFd; 2]> {
    let (leader, follower) = bare::seqpacket_pair()?;
    with_room([leader, follower], size)
}

/// A pair of datagram sockets: the leader's, the follower's.
pub(super) fn datagram(size: usize) -> Outcome<[OwnedFd; 2]> {
    let (leader, follower) = UnixDatagram::pair()?;
    with_room([leader.into(), follower.into()], size)
}

/// Leaves the system's default room, unless a message would not fit it.
fn with_room(ends: [OwnedFd; 2], size: usize) -> Outcome<[OwnedFd; 2]> {
    if size > 64 * 1024 {
        for end in &ends {
            bare::send_buffer(end.as_fd(), size + 4096)?;
        }
    }
    Ok(ends)
}

/// One end of a pair.
pub(super) struct Packet(OwnedFd);

impl Packet {
    pub(super) fn new(role: Role, ends: &mut Ends) -> Packet {
        Packet(ends.take(directions(role).0))
    }
}

impl Link for Packet {
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        Ok(bare::send(self.0.as_fd(), message)?)
    }

    fn recv(&mut self, into: &mut [u8]) -> Outcome<usize> {
        Ok(bare::recv(self.0.as_fd(), into)?)
    }
}
