//! The two ends of a stage: what a program in a pipeline calls to take and to give messages.
//!
//! ```no_run
//! use ringway::{RecvError, stage};
//!
//! let mut input = stage::input()?;
//! let mut output = stage::output()?;
//! loop {
//!     match input.recv() {
//!         Ok(message) => output.send(&message.to_ascii_uppercase())?,
//!         Err(RecvError::Closed) => break, // the stage before has ended
//!         Err(error) => return Err(error.into()),
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Like standard input and output, but a ring in shared memory where the neighbour is such a
//! program too and [`pipeline`](crate::pipeline) (`ringway run`) has started both, or the mechanism that
//! the pipeline was told to use ([`Pipeline::via`](crate::pipeline::Pipeline::via)). Otherwise the
//! messages go over standard input and output, as [`Records`](Format::Records).
//!
//! A stage before this one that was killed looks like one that has ended, as with a pipe: the
//! supervisor, which knows better, reports it, and either starts a successor, in which case this
//! side just waits, or ends the input.

use std::hint::black_box;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, RawFd};
use std::time::Duration;

mod channel;
mod stream;

pub use stream::Format;
pub(crate) use stream::{Next, Reader, Writer};

use crate::os::process;
use crate::pipeline::STAGE_VARIABLE;
use crate::{Endpoint, Error, RecvError, SendError, mpmc, spsc};
use channel::{Inlet, Outlet};

/// The mark in the executable of a program that calls [`input`], which refers to it: the linker
/// keeps the section exactly when the function is kept. See `pipeline/aware.rs`.
#[unsafe(link_section = "ringway_in")]
static TAKES_MESSAGES: u8 = 1;

/// The mark in the executable of a program that calls [`output`].
#[unsafe(link_section = "ringway_out")]
static GIVES_MESSAGES: u8 = 1;

/// In [`STAGE_VARIABLE`]: a stage before has several workers.
pub(crate) const ANY_ORDER: &str = "order=any";

/// How long to wait for what the supervisor makes of a neighbour's death, before asking again.
const VERDICT: Duration = Duration::from_micros(200);

/// What one side of a stage is joined by, as the supervisor puts it into [`STAGE_VARIABLE`]:
/// `in=mpmc:7,out=lines`. A side that is not there has records on standard input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Joint {
    /// A ring for one producer and one consumer, in this inherited descriptor.
    Spsc(RawFd),
    /// A ring for several of each.
    Mpmc(RawFd),
    /// A channel of another mechanism.
    Channel {
        /// This end of it.
        endpoint: Endpoint,
        /// The inherited descriptor that hangs up when the neighbour has ended for good.
        verdict: RawFd,
        /// Whether the neighbour is several processes.
        several: bool,
    },
    /// Messages on standard input or output.
    Stream(Format),
}

impl Joint {
    /// As it stands in the variable, for side `in` or `out`.
    pub(crate) fn to_text(&self, side: &str) -> String {
        match self {
            Joint::Spsc(fd) => format!("{side}=spsc:{fd}"),
            Joint::Mpmc(fd) => format!("{side}=mpmc:{fd}"),
            Joint::Channel {
                endpoint,
                verdict,
                several,
            } => {
                let kind = if *several { "channels" } else { "channel" };
                // A comma ends this side of the variable.
                let endpoint = endpoint.to_string().replace(',', "%2C");
                format!("{side}={kind}:{verdict}:{endpoint}")
            }
            Joint::Stream(Format::Lines) => format!("{side}=lines"),
            Joint::Stream(Format::Raw) => format!("{side}=raw"),
            Joint::Stream(Format::Records) => format!("{side}=records"),
        }
    }

    /// Reads the variable.
    fn of(side: &str, variable: &str) -> Result<Joint, Error> {
        for part in variable.split(',') {
            let Some((name, joint)) = part.split_once('=') else {
                continue;
            };
            if name != side {
                continue;
            }
            let (kind, rest) = joint.split_once(':').unwrap_or((joint, ""));
            let (fd, endpoint) = rest.split_once(':').unwrap_or((rest, ""));
            return match (kind, fd.parse()) {
                ("spsc", Ok(fd)) => Ok(Joint::Spsc(fd)),
                ("mpmc", Ok(fd)) => Ok(Joint::Mpmc(fd)),
                ("channel" | "channels", Ok(verdict)) => Ok(Joint::Channel {
                    endpoint: endpoint.parse()?,
                    verdict,
                    several: kind == "channels",
                }),
                ("lines", _) => Ok(Joint::Stream(Format::Lines)),
                ("raw", _) => Ok(Joint::Stream(Format::Raw)),
                ("records", _) => Ok(Joint::Stream(Format::Records)),
                _ => Err(Error::NotOurs {
                    what: "description of a stage",
                    name: STAGE_VARIABLE.into(),
                    why: format!("{part} means nothing to this version"),
                }),
            };
        }
        Ok(Joint::Stream(Format::Records))
    }

    fn from_environment(side: &str) -> Result<Joint, Error> {
        let variable = std::env::var(STAGE_VARIABLE).unwrap_or_default();
        Joint::of(side, &variable)
    }
}

/// Whether messages come in the order in which the first stage sent them: none before this one has
/// several workers.
pub(crate) fn keeps_order() -> bool {
    let variable = std::env::var(STAGE_VARIABLE).unwrap_or_default();
    !variable.split(',').any(|part| part == ANY_ORDER)
}

/// The messages of the stage before this one.
///
/// # Errors
/// When the supervisor has handed over something that this version does not understand, or when
/// the input was taken before.
pub fn input() -> Result<Input, Error> {
    black_box(&TAKES_MESSAGES);
    let from = match Joint::from_environment("in")? {
        Joint::Spsc(fd) => {
            let ring = process::take_inherited(fd).map_err(|e| Error::os("fcntl", "input", e))?;
            Source::Spsc(Box::new(spsc::Ring::from_fd(ring)?.consumer()?))
        }
        Joint::Mpmc(fd) => {
            let ring = process::take_inherited(fd).map_err(|e| Error::os("fcntl", "input", e))?;
            Source::Mpmc(Box::new(mpmc::Ring::from_fd(ring)?.consumer()?))
        }
        Joint::Channel {
            endpoint,
            verdict,
            several,
        } => {
            let verdict =
                process::take_inherited(verdict).map_err(|e| Error::os("fcntl", "input", e))?;
            Source::Channel(Inlet::open(&endpoint, verdict, several)?)
        }
        Joint::Stream(format) => {
            let stdin = io::stdin().as_fd().try_clone_to_owned();
            let stdin = stdin.map_err(|e| Error::os("dup", "standard input", e))?;
            Source::Stream(Reader::new(stdin, format))
        }
    };
    Ok(Input { from })
}

/// Where the messages for the next stage go.
///
/// # Errors
/// As [`input`].
pub fn output() -> Result<Output, Error> {
    black_box(&GIVES_MESSAGES);
    let to = match Joint::from_environment("out")? {
        Joint::Spsc(fd) => {
            let ring = process::take_inherited(fd).map_err(|e| Error::os("fcntl", "output", e))?;
            Sink::Spsc(Box::new(spsc::Ring::from_fd(ring)?.producer()?))
        }
        Joint::Mpmc(fd) => {
            let ring = process::take_inherited(fd).map_err(|e| Error::os("fcntl", "output", e))?;
            Sink::Mpmc(Box::new(mpmc::Ring::from_fd(ring)?.producer()?))
        }
        Joint::Channel {
            endpoint,
            verdict,
            several,
        } => {
            let verdict =
                process::take_inherited(verdict).map_err(|e| Error::os("fcntl", "output", e))?;
            Sink::Channel(Outlet::open(&endpoint, verdict, several)?)
        }
        Joint::Stream(format) => {
            let stdout = io::stdout().as_fd().try_clone_to_owned();
            let stdout = stdout.map_err(|e| Error::os("dup", "standard output", e))?;
            Sink::Stream(Writer::new(stdout, format))
        }
    };
    Ok(Output { to })
}

/// The input of a stage, from [`input`].
#[derive(Debug)]
pub struct Input {
    from: Source,
}

#[derive(Debug)]
enum Source {
    Spsc(Box<spsc::Consumer>),
    Mpmc(Box<mpmc::Consumer>),
    Channel(Inlet),
    Stream(Reader),
}

/// A message of the stage before. From a ring it is borrowed, with no copy, and counts as taken
/// when this is dropped: a stage that dies before leaves it to its successor.
#[derive(Debug)]
pub struct Message<'a>(Borrowed<'a>);

#[derive(Debug)]
enum Borrowed<'a> {
    Spsc(spsc::Message<'a>),
    Mpmc(mpmc::Message<'a>),
    Bytes(&'a [u8]),
}

impl Message<'_> {
    /// Whether a dead predecessor of this process may have worked on it.
    pub fn redelivered(&self) -> bool {
        match &self.0 {
            Borrowed::Spsc(message) => message.redelivered(),
            Borrowed::Mpmc(message) => message.redelivered(),
            Borrowed::Bytes(_) => false,
        }
    }
}

impl Deref for Message<'_> {
    type Target = [u8];
    #[inline(always)]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Borrowed::Spsc(message) => message,
            Borrowed::Mpmc(message) => message,
            Borrowed::Bytes(bytes) => bytes,
        }
    }
}

impl Input {
    /// An input that takes messages from a stream.
    #[cfg(feature = "cli")]
    pub(crate) fn from_stream(from: std::os::fd::OwnedFd, format: Format) -> Input {
        Input {
            from: Source::Stream(Reader::new(from, format)),
        }
    }

    /// The next message; waits for it.
    ///
    /// # Errors
    /// [`RecvError::Closed`] at the end: the stage before has ended, and every message was taken.
    #[inline]
    pub fn recv(&mut self) -> Result<Message<'_>, RecvError> {
        match &mut self.from {
            Source::Spsc(consumer) => loop {
                let consumer = &raw mut **consumer;
                // SAFETY: the borrow is given out or has ended: each turn of the loop holds none
                // of the turn before. (The borrow checker takes a borrow that is returned in one
                // arm to last through all of them.)
                let consumer = unsafe { &mut *consumer };
                match consumer.recv() {
                    Ok(message) => return Ok(Message(Borrowed::Spsc(message))),
                    Err(RecvError::PeerDied) => std::thread::sleep(VERDICT),
                    Err(error) => return Err(error),
                }
            },
            Source::Mpmc(consumer) => loop {
                let consumer = &raw mut **consumer;
                // SAFETY: the borrow is given out or has ended: each turn of the loop holds none
                // of the turn before. (The borrow checker takes a borrow that is returned in one
                // arm to last through all of them.)
                let consumer = unsafe { &mut *consumer };
                match consumer.recv() {
                    Ok(message) => return Ok(Message(Borrowed::Mpmc(message))),
                    Err(RecvError::PeerDied) => std::thread::sleep(VERDICT),
                    Err(error) => return Err(error),
                }
            },
            Source::Channel(inlet) => {
                inlet.recv()?;
                Ok(Message(Borrowed::Bytes(inlet.message())))
            }
            Source::Stream(reader) => match reader.next(true)? {
                Next::Message(at) => Ok(Message(Borrowed::Bytes(reader.bytes(at)))),
                Next::End | Next::Empty => Err(RecvError::Closed),
            },
        }
    }

    /// The next message, if there is one now.
    ///
    /// # Errors
    /// [`RecvError::Empty`] when there is none now; as [`recv`](Input::recv) besides.
    #[inline]
    pub fn try_recv(&mut self) -> Result<Message<'_>, RecvError> {
        match &mut self.from {
            Source::Spsc(consumer) => match consumer.try_recv() {
                Ok(message) => Ok(Message(Borrowed::Spsc(message))),
                Err(RecvError::PeerDied) => Err(RecvError::Empty),
                Err(error) => Err(error),
            },
            Source::Mpmc(consumer) => match consumer.try_recv() {
                Ok(message) => Ok(Message(Borrowed::Mpmc(message))),
                Err(RecvError::PeerDied) => Err(RecvError::Empty),
                Err(error) => Err(error),
            },
            Source::Channel(inlet) => {
                inlet.try_recv()?;
                Ok(Message(Borrowed::Bytes(inlet.message())))
            }
            Source::Stream(reader) => match reader.next(false)? {
                Next::Message(at) => Ok(Message(Borrowed::Bytes(reader.bytes(at)))),
                Next::Empty => Err(RecvError::Empty),
                Next::End => Err(RecvError::Closed),
            },
        }
    }

    /// Whether the messages come through a ring.
    pub fn is_ring(&self) -> bool {
        matches!(self.from, Source::Spsc(_) | Source::Mpmc(_))
    }
}

/// The output of a stage, from [`output`]. Dropping it ends the output.
#[derive(Debug)]
pub struct Output {
    to: Sink,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // there is one of it in a process
enum Sink {
    Spsc(Box<spsc::Producer>),
    Mpmc(Box<mpmc::Producer>),
    Channel(Outlet),
    Stream(Writer),
}

impl Output {
    /// Sends a message; waits for room.
    ///
    /// # Errors
    /// [`SendError::Closed`] when the next stage has ended; [`SendError::MessageTooLarge`].
    #[inline]
    pub fn send(&mut self, message: &[u8]) -> Result<(), SendError> {
        self.send_soon(message)?;
        self.flush()
    }

    /// Sends a message, but where it takes a system call, not before [`flush`](Output::flush) or
    /// until a good deal has come together.
    ///
    /// # Errors
    /// As [`send`](Output::send).
    #[inline]
    pub fn send_soon(&mut self, message: &[u8]) -> Result<(), SendError> {
        match &mut self.to {
            Sink::Spsc(producer) => loop {
                match producer.send(message) {
                    Err(SendError::PeerDied) => std::thread::sleep(VERDICT),
                    result => return result,
                }
            },
            Sink::Mpmc(producer) => loop {
                match producer.send(message) {
                    Err(SendError::PeerDied) => std::thread::sleep(VERDICT),
                    result => return result,
                }
            },
            Sink::Channel(outlet) => outlet.send(message),
            Sink::Stream(writer) => writer.push(message),
        }
    }

    /// Sends what was put off.
    ///
    /// # Errors
    /// As [`send`](Output::send).
    #[inline]
    pub fn flush(&mut self) -> Result<(), SendError> {
        match &mut self.to {
            Sink::Spsc(_) | Sink::Mpmc(_) | Sink::Channel(_) => Ok(()),
            Sink::Stream(writer) => writer.flush(),
        }
    }

    /// Ends the output: the next stage finds its input [`Closed`](RecvError::Closed) once it has
    /// taken every message. Dropping does the same, but cannot tell of an error.
    ///
    /// # Errors
    /// As [`send`](Output::send).
    pub fn close(mut self) -> Result<(), SendError> {
        self.flush()
    }

    /// Whether the messages go through a ring.
    pub fn is_ring(&self) -> bool {
        matches!(self.to, Sink::Spsc(_) | Sink::Mpmc(_))
    }

    /// The longest message that can be sent, in bytes.
    #[cfg(feature = "cli")]
    pub(crate) fn longest_message(&self) -> usize {
        match &self.to {
            Sink::Spsc(producer) => producer.max_message(),
            Sink::Mpmc(producer) => producer.max_message(),
            Sink::Channel(outlet) => outlet.longest_message(),
            Sink::Stream(_) => u32::MAX as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_supervisor_writes_is_what_the_stage_reads() {
        for joint in [
            Joint::Spsc(7),
            Joint::Mpmc(8),
            Joint::Stream(Format::Lines),
            Joint::Stream(Format::Raw),
            Joint::Stream(Format::Records),
            Joint::Channel {
                endpoint: "fifo:/tmp/a, b=c:d?mode=0640".parse().unwrap(),
                verdict: 9,
                several: false,
            },
            Joint::Channel {
                endpoint: "pipe:?fd=4".parse().unwrap(),
                verdict: 3,
                several: true,
            },
        ] {
            let variable = format!("{},{}", Joint::Mpmc(3).to_text("in"), joint.to_text("out"));
            assert_eq!(Joint::of("out", &variable).unwrap(), joint);
            assert_eq!(Joint::of("in", &variable).unwrap(), Joint::Mpmc(3));
        }
        assert_eq!(Joint::of("in", "").unwrap(), Joint::Stream(Format::Records));
        assert_eq!(
            Joint::of("in", "out=lines").unwrap(),
            Joint::Stream(Format::Records)
        );
        assert!(Joint::of("in", "in=teleport:3").is_err());
    }
}
