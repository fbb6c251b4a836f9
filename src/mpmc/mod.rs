//! Many producers, many consumers: each message goes to exactly one consumer.
//!
//! A work queue between processes that keeps going when any of them is killed, at any instruction:
//! what a dead producer had claimed and not sent is stepped over; what a dead consumer had taken and
//! not released goes to another one, marked [`redelivered`](Message::redelivered) (or is dropped, as
//! the [`Config`] says). Whoever meets the dead one's slot repairs it: there is no daemon, no lock, and
//! no time-out that could mistake a slow process for a dead one.
//!
//! ```
//! use ringway::mpmc::{self, Config};
//!
//! let ring = mpmc::Ring::anonymous(Config::default().slots(16).slot_size(64))?;
//! let mut jobs = ring.producer()?;
//! let mut worker = ring.consumer()?;
//! jobs.send(b"resize cat.png")?;
//! assert_eq!(&worker.recv()?[..], b"resize cat.png");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is ordered, and what is not
//!
//! * The messages of one producer are taken in the order in which it sent them, except those that are
//!   marked redelivered: they come when their consumer's death is noticed.
//! * Messages of different producers are taken in the order in which their slots were claimed.
//! * Different consumers work at the same time: which one is *done* first is not ordered at all.
//!
//! # What cannot be had
//!
//! * A participant that is stopped (not dead) between claim and commit is never robbed: the others go
//!   on up to the capacity, then wait until it continues.
//! * A message that was being read at the moment of death is delivered again, although its reader may
//!   have acted on it: at least once. With [`OnDeath::Drop`] it is lost: at most once.

mod config;
mod consumer;
pub mod items;
mod participant;
mod producer;
mod ring;
pub mod typed;

pub(crate) use config::check_header;
pub use config::{Config, OnDeath};
pub use consumer::{Consumer, Drain, Message};
pub(crate) use participant::Control;
pub use producer::{Producer, Reservation};
#[cfg(feature = "cli")]
pub(crate) use ring::is_drained;
pub use ring::{Ring, attach, create, create_or_attach};
pub use typed::typed;
