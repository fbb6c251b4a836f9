//! One producer, many subscribers: every subscriber sees every message.
//!
//! For market data, sensors, video, logs with taps. Subscribers come and go at any time; what happens
//! when one is slow is chosen when the ring is created ([`Policy`]), and a dead one is nobody's problem.
//!
//! ```
//! use ringway::broadcast::{self, Config, Start};
//!
//! # let name = format!("doc-bcast-{}", std::process::id());
//! let mut prices = broadcast::create(&name, Config::default())?.producer()?; // in one process
//! let mut trader = broadcast::attach(&name)?.subscriber()?;                  // in another
//! let mut logger = broadcast::attach(&name)?.subscriber()?;                  // and another
//!
//! prices.send(b"ACME 42.10")?;
//! assert_eq!(&*trader.recv()?, b"ACME 42.10");
//! assert_eq!(&*logger.recv()?, b"ACME 42.10");
//!
//! let mut late = broadcast::attach(&name)?.subscriber_from(Start::Last(1))?; // what was sent last
//! assert_eq!(&*late.recv()?, b"ACME 42.10");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Lossless and lossy
//!
//! On a [lossless](Policy::Lossless) ring the slowest living subscriber holds the producer back: nobody
//! who joined misses anything. One that is killed holds it back for no longer than 100 ms; one that is only
//! stopped, for as long as it is stopped.
//!
//! On a [lossy](Policy::Lossy) ring the producer never waits, and does not even know of its
//! subscribers, save that some of them sleep. One that falls behind by more than the ring holds is told
//! exactly how many messages it missed ([`RecvError::Missed`](crate::RecvError::Missed)), and goes on
//! where it chose to ([`Subscriber::resume_at`]). It never sees a message that was overwritten while it
//! was read.
//!
//! # Observers
//!
//! [`Ring::observe`] maps the memory without the permission to write, and [`Ring::observer`] then
//! receives from a ring of either policy without holding anybody back. The kernel sees to it that it
//! harms nobody; permission to read the file is enough. The price: it cannot tell the producer that it
//! sleeps, so it looks every 2 ms at the latest.
//!
//! # Leaving and dying
//!
//! A producer that is dropped leaves the ring closed: subscribers take what is there, and then are told
//! [`RecvError::Closed`](crate::RecvError::Closed). One that was killed leaves them with
//! [`RecvError::PeerDied`](crate::RecvError::PeerDied), within 100 ms. In both cases a new producer may
//! come, which continues the sequence, and subscribers may go on. A message that was not committed never
//! appears.
//!
//! # Trust
//!
//! Whatever a peer writes into the memory, nothing outside it is read or written, and nothing loops or
//! crashes. A subscriber with permission to write can still spoil what the others read, and one that
//! never lets go holds a lossless ring back: let those who are not trusted observe.
//!
//! Messages are written and read by relaxed atomic stores and loads of whole words, so that a free
//! reader may be reading what is just being overwritten, and find out afterwards. There are two
//! exceptions, which make up zero-copy: a borrowed [`Message`] of a lossless ring, which is not
//! overwritten while it is held; and a [`Reservation`], which the producer writes as ordinary memory. A
//! reader that was overrun may be loading the same words at that time; it throws away what it read.
//! Threads of one process that find this too little should [`send`](Producer::send) from a buffer.

mod config;
mod producer;
mod ring;
mod subscriber;
pub mod typed;

pub use crate::ring::broadcast::Start;
pub(crate) use crate::ring::broadcast::{Control, Seat};
pub use config::{Config, Policy};
pub(crate) use config::{awaits, check_header, is_lossy, seat_at};
pub use producer::{BatchError, Producer, Reservation};
pub use ring::{Ring, attach, create, create_or_attach};
pub use subscriber::{Iter, Message, Subscriber, View};
pub use typed::typed;

crate::stream::streams!(Producer, Subscriber);
