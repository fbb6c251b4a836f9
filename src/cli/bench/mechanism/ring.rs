//! Ringway's own rings, anonymous, one in each direction.

use std::os::fd::{AsFd, OwnedFd};

use super::super::link::{Link, Outcome};
use super::super::plan::Wait;
use super::super::worker::Job;
use super::{Ends, directions};
use crate::mpmc;
use crate::wait::WaitStrategy;

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

/// Two rings for many producers and consumers, there and back.
pub(super) fn mpmc_rings(size: usize, wait: Wait) -> Outcome<[OwnedFd; 2]> {
    let slots = (1024 * 1024 / size.max(64)).clamp(8, 1024) as u64;
    let config = mpmc::Config::default()
        .slots(slots)
        .slot_size(size.max(48) as u64)
        .participants(4)
        .wait(wait.into());
    let make = || -> Outcome<OwnedFd> {
        Ok(mpmc::Ring::anonymous(config.clone())?
            .as_fd()
            .try_clone_to_owned()?)
    };
    Ok([make()?, make()?])
}

/// One end of two rings for many.
pub(super) struct MpmcLink {
    output: mpmc::Producer,
    input: mpmc::Consumer,
}

impl MpmcLink {
    pub(super) fn new(job: &Job, ends: &mut Ends) -> Outcome<MpmcLink> {
        let (out, back) = directions(job.role);
        Ok(MpmcLink {
            output: mpmc::Ring::from_fd(ends.take(out))?.producer()?,
            input: mpmc::Ring::from_fd(ends.take(back))?.consumer()?,
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

/// Copies a message to memory of the receiver's own.
#[inline(always)]
fn copy(message: &[u8], into: &mut [u8]) -> Outcome<usize> {
    match into.get_mut(..message.len()) {
        Some(room) => {
            room.copy_from_slice(message);
            Ok(message.len())
        }
        None => Err(format!(
            "a message of {} bytes instead of {}",
            message.len(),
            into.len()
        )
        .into()),
    }
}
