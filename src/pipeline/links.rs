//! What joins two neighbours that both speak messages: a ring, handed to both by inheritance.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use crate::stage::Joint;
use crate::{Error, mpmc};

/// Slots of a ring between several processes a side, and the longest message in bytes.
const SLOTS: u64 = 1024;

/// A ring between two stages.
pub(super) struct Link {
    ring: mpmc::Ring,
    /// Handles of the supervisor's own. While it has them, neither side finds that the other has
    /// gone: not before it has come, and not between the death of a process and its successor.
    sending: Option<mpmc::Producer>,
    receiving: Option<mpmc::Consumer>,
}

impl Link {
    /// A ring for messages of up to `longest` bytes.
    pub(super) fn new(longest: usize) -> Result<Link, Error> {
        let config = mpmc::Config::default()
            .slots(SLOTS)
            .slot_size(longest as u64);
        let ring = mpmc::Ring::anonymous(config)?;
        Ok(Link {
            sending: Some(ring.producer()?),
            receiving: Some(ring.consumer()?),
            ring,
        })
    }

    /// The descriptor that both sides inherit.
    pub(super) fn descriptor(&self) -> RawFd {
        self.ring.as_fd().as_raw_fd()
    }

    /// How a stage is told of it.
    pub(super) fn joint(&self) -> Joint {
        Joint::Mpmc(self.descriptor())
    }

    /// The stage before has ended for good: the one behind gets what is there, and then the end.
    pub(super) fn end_sending(&mut self) {
        if let Some(mut producer) = self.sending.take() {
            // The only error is that of a forked child's, which this is not.
            let _ = producer.close();
        }
    }

    /// The stage behind has ended for good: the one before cannot send any more.
    pub(super) fn end_receiving(&mut self) {
        if let Some(mut consumer) = self.receiving.take() {
            let _ = consumer.close();
        }
    }

    /// How many messages wait in it.
    pub(super) fn len(&self) -> u64 {
        self.ring.len()
    }
}
