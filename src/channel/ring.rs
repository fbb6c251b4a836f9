//! Rings as channels: [`spsc`], [`mpmc`] and [`broadcast`] behind the common traits.
//!
//! The traits copy each message out of the ring. Who wants to read it in place, or to write it in
//! place, takes the rings' own handles.
//!
//! ```
//! use ringway::channel::{Receiver, Sender, ring};
//!
//! let name = format!("doc-channel-ring-{}", std::process::id());
//! let mut tx = ring::Sender::spsc(&name, Default::default())?;
//! let mut rx = ring::Receiver::spsc(&name, Default::default())?;
//! tx.send(b"hello")?;
//! let mut message = Vec::new();
//! rx.recv(&mut message)?;
//! assert_eq!(message, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::time::Duration;

use super::{Boundaries, Capabilities, Notice, Patience};
use crate::broadcast::{self, Start};
use crate::selector::sealed::{Side, Source};
use crate::{Error, RecvError, SendError, mpmc, spsc};

const SPSC: &str = "ring";
const MPMC: &str = "mpmc";
const BROADCAST: &str = "bcast";

fn capabilities(mechanism: &'static str, max_message: usize) -> Capabilities {
    Capabilities {
        mechanism,
        max_message,
        unrelated: Some("by name, or a passed descriptor"),
        boundaries: Boundaries::Native,
        priorities: 1,
        many_senders: mechanism == MPMC,
        many_receivers: mechanism != SPSC,
        keeps_messages: true,
        notices: Notice::Within(Duration::from_millis(100)),
    }
}

/// A new SPSC ring without a name.
///
/// # Errors
/// `Config`, `NoRoom`.
pub fn pair(config: spsc::Config) -> Result<(Sender, Receiver), Error> {
    let ring = spsc::Ring::anonymous(config)?;
    Ok((Sender::from(ring.producer()?), Receiver::try_from(&ring)?))
}

/// The sending end of a ring.
#[derive(Debug)]
pub struct Sender {
    tx: Option<Tx>,
    max: usize,
    mechanism: &'static str,
}

#[derive(Debug)]
enum Tx {
    Spsc(spsc::Producer),
    Mpmc(mpmc::Producer),
    Broadcast(Box<broadcast::Producer>),
}

impl Sender {
    /// Opens the SPSC ring `name`, making it if it is not there.
    ///
    /// # Errors
    /// As [`spsc::create_or_attach`]; `RoleTaken` while it has a producer.
    pub fn spsc(name: &str, config: spsc::Config) -> Result<Sender, Error> {
        spsc::create_or_attach(name, config)?
            .producer()
            .map(Sender::from)
    }

    /// Opens the MPMC ring `name`, making it if it is not there.
    ///
    /// # Errors
    /// As [`mpmc::create_or_attach`]; `TooManyParticipants`.
    pub fn mpmc(name: &str, config: mpmc::Config) -> Result<Sender, Error> {
        mpmc::create_or_attach(name, config)?
            .producer()
            .map(Sender::from)
    }

    /// Opens the broadcast ring `name`, making it if it is not there.
    ///
    /// # Errors
    /// As [`broadcast::create_or_attach`]; `RoleTaken` while it has a producer.
    pub fn broadcast(name: &str, config: broadcast::Config) -> Result<Sender, Error> {
        broadcast::create_or_attach(name, config)?
            .producer()
            .map(Sender::from)
    }
}

impl From<spsc::Producer> for Sender {
    fn from(producer: spsc::Producer) -> Sender {
        Sender {
            max: producer.max_message(),
            tx: Some(Tx::Spsc(producer)),
            mechanism: SPSC,
        }
    }
}

impl From<mpmc::Producer> for Sender {
    fn from(producer: mpmc::Producer) -> Sender {
        Sender {
            max: producer.max_message(),
            tx: Some(Tx::Mpmc(producer)),
            mechanism: MPMC,
        }
    }
}

impl From<broadcast::Producer> for Sender {
    fn from(producer: broadcast::Producer) -> Sender {
        Sender {
            max: producer.max_message(),
            tx: Some(Tx::Broadcast(Box::new(producer))),
            mechanism: BROADCAST,
        }
    }
}

impl super::Sender for Sender {
    fn send_with(&mut self, message: &[u8], patience: Patience) -> Result<(), SendError> {
        match (&mut self.tx, patience) {
            (None, _) => Err(SendError::Closed),
            (Some(Tx::Spsc(tx)), Patience::Now) => tx.try_send(message),
            (Some(Tx::Spsc(tx)), Patience::Within(timeout)) => tx.send_timeout(message, timeout),
            (Some(Tx::Spsc(tx)), Patience::Forever) => tx.send(message),
            (Some(Tx::Mpmc(tx)), Patience::Now) => tx.try_send(message),
            (Some(Tx::Mpmc(tx)), Patience::Within(timeout)) => tx.send_timeout(message, timeout),
            (Some(Tx::Mpmc(tx)), Patience::Forever) => tx.send(message),
            (Some(Tx::Broadcast(tx)), Patience::Now) => tx.try_send(message),
            (Some(Tx::Broadcast(tx)), Patience::Within(timeout)) => {
                tx.send_timeout(message, timeout)
            }
            (Some(Tx::Broadcast(tx)), Patience::Forever) => tx.send(message),
        }
    }

    fn close(&mut self) {
        self.tx = None;
    }

    fn capabilities(&self) -> Capabilities {
        capabilities(self.mechanism, self.max)
    }
}

/// The receiving end of a ring.
#[derive(Debug)]
pub struct Receiver {
    rx: Option<Rx>,
    max: usize,
    mechanism: &'static str,
}

#[derive(Debug)]
enum Rx {
    Spsc(spsc::Consumer),
    Mpmc(mpmc::Consumer),
    Broadcast(Box<broadcast::Subscriber>),
}

impl TryFrom<&spsc::Ring> for Receiver {
    type Error = Error;

    /// A consumer of that ring.
    fn try_from(ring: &spsc::Ring) -> Result<Receiver, Error> {
        Ok(Receiver {
            rx: Some(Rx::Spsc(ring.consumer()?)),
            max: ring.max_message(),
            mechanism: SPSC,
        })
    }
}

impl TryFrom<&mpmc::Ring> for Receiver {
    type Error = Error;

    /// A consumer of that ring.
    fn try_from(ring: &mpmc::Ring) -> Result<Receiver, Error> {
        Ok(Receiver {
            rx: Some(Rx::Mpmc(ring.consumer()?)),
            max: ring.slot_size(),
            mechanism: MPMC,
        })
    }
}

impl Receiver {
    /// Opens the SPSC ring `name`, making it if it is not there.
    ///
    /// # Errors
    /// As [`spsc::create_or_attach`]; `RoleTaken` while it has a consumer.
    pub fn spsc(name: &str, config: spsc::Config) -> Result<Receiver, Error> {
        Receiver::try_from(&spsc::create_or_attach(name, config)?)
    }

    /// Opens the MPMC ring `name`, making it if it is not there.
    ///
    /// # Errors
    /// As [`mpmc::create_or_attach`]; `TooManyParticipants`.
    pub fn mpmc(name: &str, config: mpmc::Config) -> Result<Receiver, Error> {
        Receiver::try_from(&mpmc::create_or_attach(name, config)?)
    }

    /// Opens the broadcast ring `name`, making it if it is not there. Receives every message from where
    /// `start` says, whoever else does; unless told, one of those who are
    /// [expected](broadcast::Config::expected) begins with the first message, any other with the next.
    ///
    /// # Errors
    /// As [`broadcast::create_or_attach`]; `TooManyParticipants`.
    pub fn broadcast(
        name: &str,
        config: broadcast::Config,
        start: Option<Start>,
    ) -> Result<Receiver, Error> {
        let ring = broadcast::create_or_attach(name, config)?;
        let usual = if ring.is_waiting_for_subscribers() {
            Start::Oldest
        } else {
            Start::Next
        };
        ring.subscriber_from(start.unwrap_or(usual))
            .map(Receiver::from)
    }
}

impl From<broadcast::Subscriber> for Receiver {
    fn from(subscriber: broadcast::Subscriber) -> Receiver {
        Receiver {
            max: subscriber.max_message(),
            rx: Some(Rx::Broadcast(Box::new(subscriber))),
            mechanism: BROADCAST,
        }
    }
}

impl Rx {
    fn recv(&mut self, into: &mut Vec<u8>, patience: Patience) -> Result<(), RecvError> {
        match self {
            Rx::Spsc(rx) => match patience {
                Patience::Now => rx.try_recv_into(into),
                Patience::Within(timeout) => rx.recv_into_timeout(into, timeout),
                Patience::Forever => rx.recv_into(into),
            },
            Rx::Mpmc(rx) => {
                let message = match patience {
                    Patience::Now => rx.try_recv(),
                    Patience::Within(timeout) => rx.recv_timeout(timeout),
                    Patience::Forever => rx.recv(),
                }?;
                into.clear();
                into.extend_from_slice(&message);
                Ok(())
            }
            Rx::Broadcast(rx) => match patience {
                Patience::Now => rx.try_recv_into(into),
                Patience::Within(timeout) => rx.recv_into_timeout(into, timeout),
                Patience::Forever => rx.recv_into(into),
            }
            .map(|_| ()),
        }
    }
}

impl Rx {
    /// Whether, if there is nothing, anything can still come.
    #[cold]
    fn look_again(&mut self, into: &mut Vec<u8>) -> Result<(), RecvError> {
        let looked = match self {
            Rx::Spsc(_) | Rx::Broadcast(_) => self.recv(into, Patience::Within(Duration::ZERO)),
            Rx::Mpmc(rx) => {
                rx.ask_for_peers();
                self.recv(into, Patience::Now)
            }
        };
        match looked {
            Err(RecvError::TimedOut) => Err(RecvError::Empty),
            looked => looked,
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        super::Receiver::close(self);
    }
}

impl super::Receiver for Receiver {
    fn recv_with(&mut self, into: &mut Vec<u8>, patience: Patience) -> Result<(), RecvError> {
        let Some(rx) = &mut self.rx else {
            return Err(RecvError::Closed);
        };
        match rx.recv(into, patience) {
            // The rings do not ask after their peers where nobody waits. Nothing came, so there is
            // the time to ask.
            Err(RecvError::Empty) => rx.look_again(into),
            result => result,
        }
    }

    fn hold_with(
        &mut self,
        into: &mut Vec<u8>,
        most: u64,
        patience: Patience,
    ) -> Result<(), RecvError> {
        let wait = (patience != Patience::Now).then(|| patience.deadline());
        match &mut self.rx {
            None => Err(RecvError::Closed),
            Some(Rx::Spsc(rx)) => rx.hold_into(into, wait),
            Some(Rx::Mpmc(rx)) => rx.hold_into(into, most, wait),
            // A subscriber's messages are nobody else's.
            Some(Rx::Broadcast(_)) => self.recv_with(into, patience),
        }
    }

    fn release(&mut self) {
        match &mut self.rx {
            Some(Rx::Spsc(rx)) => rx.release(),
            Some(Rx::Mpmc(rx)) => rx.release(),
            Some(Rx::Broadcast(_)) | None => {}
        }
    }

    fn close(&mut self) {
        match self.rx.take() {
            Some(Rx::Spsc(mut rx)) => rx.give_up(),
            Some(Rx::Mpmc(rx)) => rx.give_up(),
            Some(Rx::Broadcast(_)) | None => {}
        }
    }

    fn awaited(&mut self) -> Source<'_> {
        match &mut self.rx {
            None => Source::Ready,
            Some(Rx::Spsc(rx)) => Source::Ring(Side(rx.awaited())),
            Some(Rx::Mpmc(rx)) => Source::Ring(Side(rx.awaited())),
            Some(Rx::Broadcast(rx)) => Source::Ring(Side(rx.awaited())),
        }
    }

    fn capabilities(&self) -> Capabilities {
        capabilities(self.mechanism, self.max)
    }
}
