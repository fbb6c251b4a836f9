//! What joins two neighbours that both speak messages: a ring, handed to both by inheritance.

use std::os::fd::{AsFd, AsRawFd, RawFd};

use crate::stage::Joint;
use crate::{Error, mpmc, spsc};

/// Slots of a ring between several processes a side.
const SLOTS: u64 = 1024;
/// Bytes of a ring between two processes, and how many of the longest messages it has room for
/// even if that takes more.
const CAPACITY: u64 = 1 << 20;
const LONGEST: u64 = 8;

/// A ring between two stages.
pub(super) enum Link {
    /// One process on each side.
    Pair(spsc::Ring),
    /// Several on one side at least. The handles are the supervisor's own: while it has them,
    /// neither side finds that the other has gone; not before it has come, and not between the
    /// death of a process and its successor.
    Several {
        ring: mpmc::Ring,
        sending: Option<Box<mpmc::Producer>>,
        receiving: Option<Box<mpmc::Consumer>>,
    },
}

impl Link {
    /// A ring for messages of up to `longest` bytes.
    pub(super) fn new(several: bool, longest: usize) -> Result<Link, Error> {
        let longest = longest as u64;
        if several {
            let config = mpmc::Config::default().slots(SLOTS).slot_size(longest);
            let ring = mpmc::Ring::anonymous(config)?;
            let (sending, receiving) = (ring.producer()?, ring.consumer()?);
            return Ok(Link::Several {
                ring,
                sending: Some(Box::new(sending)),
                receiving: Some(Box::new(receiving)),
            });
        }
        let capacity = CAPACITY.max(longest.saturating_mul(LONGEST).next_power_of_two());
        spsc::Ring::anonymous(spsc::Config::default().capacity(capacity)).map(Link::Pair)
    }

    /// The descriptor that both sides inherit.
    pub(super) fn descriptor(&self) -> RawFd {
        match self {
            Link::Pair(ring) => ring.as_fd().as_raw_fd(),
            Link::Several { ring, .. } => ring.as_fd().as_raw_fd(),
        }
    }

    /// How a stage is told of it.
    pub(super) fn joint(&self) -> Joint {
        match self {
            Link::Pair(_) => Joint::Spsc(self.descriptor()),
            Link::Several { .. } => Joint::Mpmc(self.descriptor()),
        }
    }

    /// The stage before has ended for good: the one behind gets what is there, and then the end.
    pub(super) fn end_sending(&mut self) {
        match self {
            // As the successor of one that died, or in place of one that never came; one that
            // has closed the ring itself leaves nothing to do. What is refused because a child of
            // the stage still has the role is that child's to end.
            Link::Pair(ring) => drop(ring.producer()),
            Link::Several { sending, .. } => {
                if let Some(mut producer) = sending.take() {
                    // The only error is that of a forked child's, which this is not.
                    let _ = producer.close();
                }
            }
        }
    }

    /// The stage behind has ended for good: the one before cannot send any more.
    pub(super) fn end_receiving(&mut self) {
        match self {
            Link::Pair(ring) => drop(ring.consumer()),
            Link::Several { receiving, .. } => {
                if let Some(mut consumer) = receiving.take() {
                    let _ = consumer.close();
                }
            }
        }
    }
}
