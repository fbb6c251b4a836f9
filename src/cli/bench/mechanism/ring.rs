//! Ringway's own rings, anonymous, one in each direction.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::super::control::Role;
use super::super::link::{Link, Outcome};
use super::super::plan::Wait;
use super::{Ends, directions};
use crate::wait::WaitStrategy;
use crate::{RecvError, broadcast, mpmc, spsc};

impl From<Wait> for WaitStrategy {
    fn from(wait: Wait) -> WaitStrategy {
        match wait {
            Wait::Spin => WaitStrategy::Spin,
            Wait::Adaptive => WaitStrategy::Adaptive,
            Wait::Futex => WaitStrategy::Futex,
            Wait::Semaphore => WaitStrategy::Semaphore,
            Wait::Eventfd => WaitStrategy::EventFd,
        }
    }
}

/// Bytes of a ring that stay in the near caches: there, more room costs more than it helps.
const NEAR: usize = 1 << 20;

/// How large an SPSC or broadcast ring is for messages of `size` bytes: 64 KiB, or what 8 messages need if they
/// stay in the near caches, or twice what one needs.
fn capacity(size: usize) -> u64 {
    let several = (8 * size).clamp(64 << 10, NEAR);
    several.max(2 * size + 1).next_power_of_two() as u64
}

/// Two sockets, the leader's and the follower's, each with the rings there and back in it. (A socket
/// also carries the event descriptors that `EventFd` waits on.)
fn through_sockets(
    mut send: impl FnMut(&UnixStream) -> Result<(), crate::Error>,
) -> Outcome<[OwnedFd; 2]> {
    let mut filled = || -> Outcome<OwnedFd> {
        let (from, to) = UnixStream::pair()?;
        send(&from)?;
        Ok(to.into())
    };
    Ok([filled()?, filled()?])
}

/// Two rings for one producer and one consumer, there and back.
pub(super) fn spsc_rings(size: usize, wait: Wait) -> Outcome<[OwnedFd; 2]> {
    let config = spsc::Config::default()
        .capacity(capacity(size))
        .wait(wait.into());
    let rings = [
        spsc::Ring::anonymous(config.clone())?,
        spsc::Ring::anonymous(config)?,
    ];
    through_sockets(|socket| rings.iter().try_for_each(|ring| ring.send_over(socket)))
}

/// One end of two rings for one producer and one consumer.
pub(super) struct SpscLink {
    output: spsc::Producer,
    input: spsc::Consumer,
}

impl SpscLink {
    pub(super) fn new(role: Role, ends: &mut Ends) -> Outcome<SpscLink> {
        let (out, back) = directions(role);
        let socket = UnixStream::from(ends.take(out));
        let rings = [
            spsc::Ring::receive_over(&socket)?,
            spsc::Ring::receive_over(&socket)?,
        ];
        Ok(SpscLink {
            output: rings[out].producer()?,
            input: rings[back].consumer()?,
        })
    }
}

impl Link for SpscLink {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        Ok(self.output.send(message)?)
    }

    #[inline(always)]
    fn recv(&mut self, into: &mut [u8]) -> Outcome<usize> {
        Ok(self.input.recv_into_slice(into)?)
    }

    fn send_batch(&mut self, messages: &[Vec<u8>]) -> Outcome<()> {
        self.output.send_batch(messages)?;
        Ok(())
    }

    #[inline(always)]
    fn recv_batch(
        &mut self,
        max: usize,
        into: &mut [u8],
        see: &mut impl FnMut(&[u8]) -> Outcome<()>,
    ) -> Outcome<usize> {
        // Nothing there: wait for one, the way the ring waits; then take what came with it.
        let len = self.input.recv_into_slice(into)?;
        see(&into[..len])?;
        let mut seen = 1;
        for message in self.input.drain(max - 1) {
            let len = copy(&message, into)?;
            see(&into[..len])?;
            seen += 1;
        }
        Ok(seen)
    }
}

/// Two rings for many producers and consumers, there and back.
pub(super) fn mpmc_rings(size: usize, wait: Wait) -> Outcome<[OwnedFd; 2]> {
    let slots = (NEAR / size.max(64)).clamp(2, 1024) as u64;
    let config = mpmc::Config::default()
        .slots(slots)
        .slot_size(size.max(48) as u64)
        .participants(4)
        .wait(wait.into());
    let rings = [
        mpmc::Ring::anonymous(config.clone())?,
        mpmc::Ring::anonymous(config)?,
    ];
    through_sockets(|socket| rings.iter().try_for_each(|ring| ring.send_over(socket)))
}

/// One end of two rings for many.
pub(super) struct MpmcLink {
    output: mpmc::Producer,
    input: mpmc::Consumer,
}

impl MpmcLink {
    pub(super) fn new(role: Role, ends: &mut Ends) -> Outcome<MpmcLink> {
        let (out, back) = directions(role);
        let socket = UnixStream::from(ends.take(out));
        let rings = [
            mpmc::Ring::receive_over(&socket)?,
            mpmc::Ring::receive_over(&socket)?,
        ];
        Ok(MpmcLink {
            output: rings[out].producer()?,
            input: rings[back].consumer()?,
        })
    }
}

impl Link for MpmcLink {
    #[inline]
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        Ok(self.output.send(message)?)
    }

    #[inline]
    fn recv(&mut self, into: &mut [u8]) -> Outcome<usize> {
        let message = self.input.recv()?;
        copy(&message, into)
    }

    fn send_batch(&mut self, messages: &[Vec<u8>]) -> Outcome<()> {
        Ok(self.output.send_batch(messages)?)
    }

    fn recv_batch(
        &mut self,
        max: usize,
        into: &mut [u8],
        see: &mut impl FnMut(&[u8]) -> Outcome<()>,
    ) -> Outcome<usize> {
        let mut seen = 0;
        let mut batch = self.input.drain(max)?;
        while let Some(message) = batch.next_message()? {
            let len = copy(message, into)?;
            see(&into[..len])?;
            seen += 1;
        }
        drop(batch);
        if seen == 0 {
            // Nothing there: wait for one, the way the ring waits.
            let len = self.recv(into)?;
            see(&into[..len])?;
            seen = 1;
        }
        Ok(seen)
    }
}

/// Two rings whose subscribers each see every message, there and back. Nothing is overwritten before the one
/// that is expected has come.
pub(super) fn broadcast_rings(size: usize, wait: Wait) -> Outcome<[OwnedFd; 2]> {
    let config = broadcast::Config::default()
        .capacity(capacity(size))
        .subscribers(1)
        .expected(1)
        .wait(wait.into());
    let ring = || -> Outcome<OwnedFd> {
        let ring = broadcast::Ring::anonymous(config.clone())?;
        Ok(ring.as_fd().try_clone_to_owned()?)
    };
    Ok([ring()?, ring()?])
}

/// One end of two rings with a subscriber each.
pub(super) struct BroadcastLink {
    output: broadcast::Producer,
    input: broadcast::Subscriber,
}

impl BroadcastLink {
    pub(super) fn new(role: Role, ends: &mut Ends) -> Outcome<BroadcastLink> {
        let (out, back) = directions(role);
        let (out, back) = (ends.take(out), ends.take(back));
        let start = broadcast::Start::Oldest;
        Ok(BroadcastLink {
            output: broadcast::Ring::from_fd(out)?.producer()?,
            input: broadcast::Ring::from_fd(back)?.subscriber_from(start)?,
        })
    }
}

impl Link for BroadcastLink {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        Ok(self.output.send(message)?)
    }

    #[inline(always)]
    fn recv(&mut self, into: &mut [u8]) -> Outcome<usize> {
        let read = |message: broadcast::View<'_>| (message.len(), message.read(0, into));
        match self.input.recv_with(read)?.1 {
            (len, read) if len == read => Ok(len),
            (len, _) => too_long(len, into),
        }
    }

    fn send_batch(&mut self, messages: &[Vec<u8>]) -> Outcome<()> {
        self.output.send_batch(messages)?;
        Ok(())
    }

    #[inline(always)]
    fn recv_batch(
        &mut self,
        max: usize,
        into: &mut [u8],
        see: &mut impl FnMut(&[u8]) -> Outcome<()>,
    ) -> Outcome<usize> {
        // Nothing there: wait for one, the way the ring waits; then take what came with it.
        let len = self.recv(into)?;
        see(&into[..len])?;
        let mut seen = 1;
        while seen < max {
            let len = match self.input.try_recv() {
                Ok(message) => copy(&message, into)?,
                Err(RecvError::Empty) => break,
                Err(error) => return Err(error.into()),
            };
            see(&into[..len])?;
            seen += 1;
        }
        Ok(seen)
    }
}

/// Copies a message to memory of the receiver's own.
#[inline(always)]
fn copy(message: &[u8], into: &mut [u8]) -> Outcome<usize> {
    match into.get_mut(..message.len()) {
        Some(room) => {
            room.copy_from_slice(message);
            Ok(message.len())
        }
        None => too_long(message.len(), into),
    }
}

#[cold]
fn too_long(len: usize, into: &[u8]) -> Outcome<usize> {
    Err(format!("a message of {len} bytes instead of {}", into.len()).into())
}
