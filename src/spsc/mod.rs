//! One producer, one consumer, byte messages of any length: the fastest ring.
//!
//! ```
//! use ringway::spsc::{self, Config};
//!
//! # let name = format!("doc-spsc-{}", std::process::id());
//! let mut orders = spsc::create(&name, Config::default())?.producer()?; // in one process
//! let mut matching = spsc::attach(&name)?.consumer()?;                   // in another
//!
//! orders.send(b"buy 100")?;
//! assert_eq!(&*matching.recv()?, b"buy 100"); // borrowed from the ring: no copy
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Roles
//!
//! A [`Ring`] is the memory; [`Ring::producer`] and [`Ring::consumer`] take a role in it. Either
//! side may create the ring or attach to it, in any order. A role has one holder at a time: a second
//! one is refused while the first lives, and takes over when it is gone.
//!
//! # When a message is acknowledged
//!
//! A [`Message`] is acknowledged when it is dropped; those of a [`Drain`] when the drain and all of
//! them are; those that [`Consumer::drain_with`] has read, when it returns; one that is leaked, when the consumer is
//! next used. Only then may the producer write
//! over it. A consumer that dies has not acknowledged what it held: its successor gets it again,
//! marked [`Message::redelivered`]. At least once, and never lost.
//!
//! # Leaving and dying
//!
//! A producer that is dropped leaves the ring closed: the consumer takes what is there, and then is
//! told [`RecvError::Closed`](crate::RecvError::Closed). One that was killed leaves a consumer with
//! [`RecvError::PeerDied`](crate::RecvError::PeerDied), within 100 ms. In both cases a new producer may
//! attach, and the consumer may go on. A producer whose consumer left or died may fill the ring, for
//! a successor, and is told [`SendError::Closed`](crate::SendError::Closed) or
//! [`SendError::PeerDied`](crate::SendError::PeerDied) when there is no room left. A side that finds no
//! peer yet waits for one.
//!
//! # Trust
//!
//! Whatever a peer writes into the memory, nothing outside it is read or written, and nothing loops or
//! crashes: what cannot be is [`RecvError::Corrupt`](crate::RecvError::Corrupt). But the bytes of a
//! borrowed [`Message`] are in memory that the peer can write: use [`Consumer::recv_into`], which
//! copies them out first, where the peer is not trusted.

mod config;
mod consumer;
mod producer;
mod ring;
pub mod typed;

pub use config::Config;
pub(crate) use config::check_header;
pub use consumer::{Consumer, Drain, Iter, Message, View};
pub use producer::{BatchError, Producer, Reservation};
#[cfg(feature = "cli")]
pub(crate) use ring::is_drained;
pub use ring::{Ring, Stats, attach, create, create_or_attach};
pub use typed::typed;

crate::stream::streams!(Producer, Consumer);
