//! A stage's ends of channels that are neither rings nor standard input and output: those that
//! `ringway run --via` was told to use.
//!
//! Such a channel tells whether the neighbour's process has left or died, but not whether there will
//! be another one: a successor, or a worker that has not come yet. The supervisor knows, and says so by
//! letting go of the *verdict*, a pipe that this process has inherited and in which nothing is ever
//! written: its end of file means that the neighbour has ended for good.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::channel::{Receiver, Sender};
use crate::os::{clock::Deadline, poll};
use crate::{Endpoint, Error, RecvError, SendError};

/// How long one waits on the channel before looking at the verdict.
const SLICE: Duration = Duration::from_millis(50);
/// How long one waits for the verdict before looking at the channel, in nanoseconds.
const VERDICT: u64 = 1_000_000;

/// What the supervisor says of the neighbour.
struct Verdict(OwnedFd);

impl Verdict {
    /// Whether the neighbour has ended for good, waiting for it until `deadline`.
    fn ended(&self, deadline: Deadline) -> bool {
        poll::one(self.0.as_fd(), poll::READABLE, deadline).is_ok_and(|ready| ready != 0)
    }

    fn ended_by_now(&self) -> bool {
        self.ended(Deadline::after(Duration::ZERO))
    }

    fn ended_soon(&self) -> bool {
        self.ended(Deadline::NEVER.at_most(VERDICT))
    }
}

/// The end from which a stage takes its messages.
pub(super) struct Inlet {
    from: Box<dyn Receiver>,
    verdict: Verdict,
    /// Several processes send: that those who have come have left is not the end.
    several: bool,
    message: Vec<u8>,
}

impl Inlet {
    pub(super) fn open(
        endpoint: &Endpoint,
        verdict: OwnedFd,
        several: bool,
    ) -> Result<Self, Error> {
        Ok(Inlet {
            from: endpoint.receiver()?,
            verdict: Verdict(verdict),
            several,
            message: Vec::new(),
        })
    }

    /// The message that was received last.
    pub(super) fn message(&self) -> &[u8] {
        &self.message
    }

    /// Receives the next message, waiting for it.
    pub(super) fn recv(&mut self) -> Result<(), RecvError> {
        // The verdict counts only for a look that came after it: what the neighbour sent, it sent
        // before it ended.
        let mut ended = false;
        loop {
            match self.from.recv_timeout(&mut self.message, SLICE) {
                Err(RecvError::Closed) if !self.several => return Err(RecvError::Closed),
                Err(RecvError::Closed | RecvError::PeerDied | RecvError::TimedOut) if ended => {
                    return Err(RecvError::Closed);
                }
                Err(RecvError::Closed | RecvError::PeerDied) => ended = self.verdict.ended_soon(),
                Err(RecvError::TimedOut) => ended = self.verdict.ended_by_now(),
                result => return result,
            }
        }
    }

    /// Receives the next message if there is one now.
    pub(super) fn try_recv(&mut self) -> Result<(), RecvError> {
        let ended = self.verdict.ended_by_now();
        match self.from.try_recv(&mut self.message) {
            Err(RecvError::Closed) if !self.several => Err(RecvError::Closed),
            // Not long any more, but what was sent may still be on its way.
            Err(RecvError::Closed | RecvError::PeerDied | RecvError::Empty) if ended => self.recv(),
            Err(RecvError::Closed | RecvError::PeerDied) => Err(RecvError::Empty),
            result => result,
        }
    }
}

/// The end to which a stage gives its messages.
pub(super) struct Outlet {
    to: Box<dyn Sender>,
    verdict: Verdict,
    /// Several processes receive: that those who have come have left is not the end.
    several: bool,
}

impl Outlet {
    pub(super) fn open(
        endpoint: &Endpoint,
        verdict: OwnedFd,
        several: bool,
    ) -> Result<Self, Error> {
        Ok(Outlet {
            to: endpoint.sender()?,
            verdict: Verdict(verdict),
            several,
        })
    }

    /// The longest message that can be sent.
    #[cfg(feature = "cli")]
    pub(super) fn longest_message(&self) -> usize {
        self.to.capabilities().max_message
    }

    /// Sends a message, waiting for room.
    pub(super) fn send(&mut self, message: &[u8]) -> Result<(), SendError> {
        loop {
            let ended = match self.to.send_timeout(message, SLICE) {
                Err(SendError::Closed) if !self.several => true,
                Err(SendError::Closed | SendError::PeerDied) => self.verdict.ended_soon(),
                Err(SendError::TimedOut) => self.verdict.ended_by_now(),
                result => return result,
            };
            if ended {
                return Err(SendError::Closed);
            }
        }
    }
}

impl std::fmt::Debug for Inlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.from.capabilities().mechanism)
    }
}

impl std::fmt::Debug for Outlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.to.capabilities().mechanism)
    }
}
