//! Processes on one Linux machine hand each other messages through shared memory: nearly as fast as a
//! cache line moves between two processors, and still right when one of them is killed.
//!
//! ```
//! use ringway::spsc::{self, Config};
//!
//! # let name = format!("doc-crate-{}", std::process::id());
//! let mut orders = spsc::create_or_attach(&name, Config::default())?.producer()?; // in one process
//! let mut matching = spsc::create_or_attach(&name, Config::default())?.consumer()?; // in another
//! orders.send(b"buy 100")?;
//! assert_eq!(&*matching.recv()?, b"buy 100");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The memory
//!
//! A ring is one file in memory, which every participant has mapped: anonymous, or under a name in
//! `/dev/shm`. All that there is to know of it is in it; there is no daemon.
//!
//! ```text
//!   +--------+---------------+---------+------------------------------------------------+
//!   | header | who is there, | cursors |   |len|message|len|message|0| free             |
//!   | (fixed)| who is alive  |         |    ^                       ^                   |
//!   +--------+---------------+---------+----|-----------------------|-------------------+
//!                                         head                    tail
//!                             the consumer has let go        the producer writes here,
//!                             of all before this             and the length last
//! ```
//!
//! To send is to write the message and then, as the last thing, its length. To receive is to look
//! whether a length is there. Nobody calls the operating system, unless one side has to wait so long
//! that it goes to sleep. [`spsc`] draws messages one after another, as here; [`mpmc`] has slots of one
//! size, each with a sequence number that says whose turn it is.
//!
//! # Choosing a ring
//!
//! | you have | take |
//! | --- | --- |
//! | one sender and one receiver | [`spsc`]: the fastest, messages of any length |
//! | workers that share one queue of jobs | [`mpmc`]: each message goes to exactly one of them |
//! | items of at most 8 bytes, of which one may be lost with its consumer | [`mpmc::items`] |
//! | many who are to see every message | [`broadcast`]: nobody misses anything, or the slow ones are told what they missed |
//! | answers to requests | two rings, one each way |
//! | a peer that cannot use shared memory, or a choice made by configuration | a [`channel`] or an [`Endpoint`] |
//! | several of these to wait for at once | a [`selector`] |
//! | programs one after another | a [`pipeline`] of [`stage`]s |
//!
//! Give a ring room for what comes in a burst, and no more: small rings stay in the nearer caches. Of
//! [`spsc`] rings a message may take a little under half.
//!
//! # Choosing a wait strategy
//!
//! A look at a line that has not changed costs a nanosecond; waking a process that sleeps costs
//! microseconds. So it pays to look for a while. [`WaitStrategy`](wait::WaitStrategy) is chosen when a ring
//! is created:
//!
//! * **Adaptive**, the default, looks as long as that has paid lately, then sleeps. Keep it unless you know
//!   better.
//! * **Spin** never sleeps: the least latency, at the price of a processor for each side.
//! * **Futex** sleeps at once: for messages that are rare, and processors that others need.
//! * **Semaphore** is for programs to which futexes are forbidden, **EventFd** for those that can wait only
//!   by `poll`; such a ring has no name, and is inherited or passed over a Unix socket.
//!
//! # When a process dies
//!
//! Each participant holds a lock on a byte of the ring's file, which the kernel drops when the process is
//! gone, however it went. So a death is a fact and never a guess by the clock; a process that is only
//! stopped is waited for.
//!
//! * A message that was not committed never appears.
//! * A message that was taken and not acknowledged (a borrowed message is, when it is dropped) comes again,
//!   marked `redelivered`: at least once.
//! * A peer that waits is told [`RecvError::PeerDied`] within 100 ms; [`RecvError::Closed`] is for those who
//!   leave properly. A successor attaches, takes the role over, and both go on.
//! * The last one to leave takes the name away; a name whose owners are all dead blocks nobody.
//!
//! # Whom to trust
//!
//! Whatever a peer writes into the memory, nothing outside it is read or written, nothing loops for ever and
//! nothing crashes: what cannot be is [`RecvError::Corrupt`]. These things remain its to do:
//!
//! * change the bytes of a *borrowed* message while you read them. `recv_into` copies a message first;
//! * never answer. Use the calls with a time-out;
//! * write into a POSIX semaphore, for which the C library may end the process. So the wait strategy
//!   `Semaphore` and the channel `sem:` are for peers that are trusted not to (a stray write is found, one
//!   timed to the instruction is not); likewise `EventFd`, whose descriptors a peer can make block;
//! * truncate the file of a *named* ring, which ends its users by SIGBUS, unless they asked to
//!   [survive](survive_truncation) it. Names are of mode 0600, for one user
//!   only, unless told otherwise; anonymous rings are sealed against it and can be passed over a
//!   Unix socket.
//!
//! # Features
//!
//! `tokio` makes asynchronous handles (`async_io`); `cli` builds the command-line tool `ringway`. The library alone needs few dependencies and none of those.
#![doc(html_no_source)]
#![warn(rust_2018_idioms)]

#[cfg(not(target_os = "linux"))]
compile_error!("Ringway needs Linux: futexes, memfd and open-file-description locks");
#[cfg(not(target_pointer_width = "64"))]
compile_error!("Ringway needs a 64-bit target: its cursors are 64-bit atomics");

pub(crate) mod primitive;

mod awaited;
mod bridge;
mod error;
mod layout;
mod mapping;
pub(crate) mod os;
mod participant;
mod passing;
pub(crate) mod ring;
mod schema;
mod sleeper;
pub mod wait;

#[cfg(feature = "tokio")]
pub mod async_io;
pub mod broadcast;
pub mod channel;
pub mod control;
pub mod endpoint;
#[cfg(any(doc, doctest, test))]
pub mod guide;
pub mod mpmc;
pub mod observe;
pub mod selector;
pub mod spsc;
pub mod stream;
pub mod typed;

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;

pub mod pipeline;
pub mod stage;

/// The code in the README compiles and runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use endpoint::Endpoint;
pub use error::{Error, RecvError, SendError};

/// From now on this process survives that somebody truncates the file of a named ring which it has mapped
/// (or makes a hole in it when no memory is left to fill it again). Whoever uses the ring is told
/// `Corrupt`; what was in it is lost.
///
/// This installs a handler for SIGBUS in the whole process, which is why it is done only when asked for. The
/// handler acts on rings of this library; any other SIGBUS goes where it went before. Install handlers of
/// your own before calling this, and have them passed what is not theirs.
///
/// Anonymous rings do not need it: they are sealed. Of named ones only those do that other users may
/// write to ([`Config::mode`](spsc::Config::mode)), or whose own user is not trusted. Calling it again does
/// nothing.
///
/// # Errors
/// [`Error::Os`], when the system refuses a handler.
///
/// ```
/// ringway::survive_truncation()?;
/// # Ok::<(), ringway::Error>(())
/// ```
pub fn survive_truncation() -> Result<(), Error> {
    os::guard::install().map_err(|error| Error::os("sigaction", "SIGBUS", error))
}
