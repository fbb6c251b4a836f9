//! Passing a ring over a Unix socket: its memory, and the event descriptors that `EventFd` waits on.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use crate::error::Error;
use crate::layout::Kind;
use crate::mapping::Mapping;
use crate::os::{self, eventfd::EventFd};
use crate::sleeper::Events;

/// Sends the descriptors of a ring. Blocks while the socket is full.
pub(crate) fn send(
    socket: &UnixStream,
    mapping: &Mapping,
    events: Option<&Events>,
) -> Result<(), Error> {
    let mut fds = vec![mapping.as_fd()];
    if let Some(events) = events {
        fds.extend(events.iter().map(|event| event.as_fd()));
    }
    os::pass::send(socket.as_fd(), &fds)
        .map_err(|error| Error::os("sendmsg", mapping.name(), error))
}

/// Receives what [`send`] sent, a ring of that kind. Blocks until it comes.
pub(crate) fn receive(socket: &UnixStream, kind: Kind) -> Result<(Mapping, Option<Events>), Error> {
    let fail = |error| Error::os("recvmsg", "(socket)", error);
    let mut fds = os::pass::receive(socket.as_fd()).map_err(fail)?.into_iter();
    let memory = fds.next().ok_or_else(|| {
        fail(io::Error::new(
            io::ErrorKind::InvalidData,
            "no ring came with the message",
        ))
    })?;
    let events = match (fds.next(), fds.next()) {
        (Some(messages), Some(room)) => {
            let event = |fd| EventFd::try_from(fd).map_err(fail);
            Some(Events::from([event(messages)?, event(room)?]))
        }
        _ => None,
    };
    Ok((Mapping::from_fd(memory, kind)?, events))
}
