//! Messages longer than the longest: streams of fragments, in rings whose messages have any length.
//!
//! A fragment says whether more follow and whether some came before. So a reader always knows where a
//! stream begins and ends, also when its writer gave up or died in the middle.
//!
//! ```
//! use std::io::{Read, Write};
//! # let ring = ringway::spsc::Ring::anonymous(ringway::spsc::Config::default().capacity(4096))?;
//! # let (mut tx, mut rx) = (ring.producer()?, ring.consumer()?);
//! # let sender = std::thread::spawn(move || {
//! let mut stream = tx.stream();
//! stream.write_all(&[7; 100_000])?; // through a ring of 4096 bytes
//! stream.finish()
//! # });
//! # ; let mut all = Vec::new();
//! rx.stream()?.read_to_end(&mut all)?;
//! assert_eq!(all.len(), 100_000);
//! # sender.join().unwrap()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::io;

use crate::error::{RecvError, SendError};
use crate::ring::record::{MORE, REST};
use sealed::{Receives, Sends};

pub(crate) mod sealed {
    use crate::error::{RecvError, SendError};

    /// What a [`Writer`](super::Writer) writes to.
    pub trait Sends {
        #[doc(hidden)]
        fn longest(&self) -> usize;
        /// Waits for room.
        #[doc(hidden)]
        fn send_fragment(&mut self, bytes: &[u8], flags: u64) -> Result<(), SendError>;
    }

    /// What a [`Reader`](super::Reader) reads from.
    pub trait Receives {
        /// Waits for the next message, leaves it, and tells whether it continues a stream.
        #[doc(hidden)]
        fn next_is_continuation(&mut self) -> Result<bool, RecvError>;
        /// The next fragment, waiting for it.
        #[doc(hidden)]
        fn fragment(&mut self) -> Result<Fragment, RecvError>;
    }

    /// A message, as a part of a stream.
    #[derive(Debug)]
    pub struct Fragment {
        pub(crate) rest: bool,
        pub(crate) more: bool,
        pub(crate) bytes: Vec<u8>,
    }
}

/// Writes one message of any length. [`Writer::finish`] ends it; dropped before, it is cut short, which readers
/// are told when the next message comes or the producer leaves.
pub struct Writer<'a, P: Sends> {
    producer: &'a mut P,
    begun: bool,
    fragment: usize,
}

impl<'a, P: Sends> Writer<'a, P> {
    pub(crate) fn new(producer: &'a mut P) -> Writer<'a, P> {
        // Two fragments fit at once, so that one is read while the next is written.
        let fragment = (producer.longest() / 2).max(1);
        Writer {
            producer,
            begun: false,
            fragment,
        }
    }

    /// Ends the message. Waits for room.
    ///
    /// # Errors
    /// Those of the producer's `send`, as [`io::Error`].
    pub fn finish(mut self) -> io::Result<()> {
        self.put(&[], 0)
    }

    fn put(&mut self, bytes: &[u8], more: u64) -> io::Result<()> {
        let rest = if self.begun { REST } else { 0 };
        self.producer
            .send_fragment(bytes, more | rest)
            .map_err(send_failed)?;
        self.begun = true;
        Ok(())
    }
}

impl<P: Sends> io::Write for Writer<'_, P> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(self.fragment)];
        if !bytes.is_empty() {
            self.put(bytes, MORE)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<P: Sends> fmt::Debug for Writer<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("begun", &self.begun)
            .finish_non_exhaustive()
    }
}

/// Reads one message of any length. Gives [`io::ErrorKind::UnexpectedEof`] where its writer gave up or died; the
/// message after that is left in the ring. A reader of a lossy ring that was too slow gets an error that holds
/// [`RecvError::Missed`], and the rest of the stream is passed over.
pub struct Reader<'a, C: Receives> {
    consumer: &'a mut C,
    bytes: Vec<u8>,
    at: usize,
    more: bool,
    /// What follows does not continue it, whatever it says.
    cut: bool,
}

impl<'a, C: Receives> Reader<'a, C> {
    /// Of the next message. What is left of an earlier stream, that was not read to its end, is passed over.
    pub(crate) fn new(consumer: &'a mut C) -> Result<Reader<'a, C>, RecvError> {
        loop {
            let next = consumer.fragment()?;
            if !next.rest {
                return Ok(Reader {
                    consumer,
                    bytes: next.bytes,
                    at: 0,
                    more: next.more,
                    cut: false,
                });
            }
        }
    }

    /// Gets the next fragment, of which there is one.
    fn advance(&mut self) -> io::Result<()> {
        // Unless all goes well there is no more of it: what follows a gap is not its continuation.
        let was_cut = std::mem::replace(&mut self.cut, true);
        if was_cut || !self.consumer.next_is_continuation().map_err(recv_failed)? {
            let cut = "the stream was cut short: its writer gave up or died";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, cut));
        }
        let next = self.consumer.fragment().map_err(recv_failed)?;
        (self.more, self.bytes, self.at, self.cut) = (next.more, next.bytes, 0, false);
        Ok(())
    }
}

impl<C: Receives> io::Read for Reader<'_, C> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.bytes.len() {
            if !self.more || into.is_empty() {
                return Ok(0);
            }
            self.advance()?;
        }
        let len = into.len().min(self.bytes.len() - self.at);
        into[..len].copy_from_slice(&self.bytes[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}

impl<C: Receives> fmt::Debug for Reader<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("more", &self.more)
            .finish_non_exhaustive()
    }
}

fn send_failed(error: SendError) -> io::Error {
    let kind = match error {
        SendError::Closed | SendError::PeerDied => io::ErrorKind::BrokenPipe,
        SendError::TimedOut => io::ErrorKind::TimedOut,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

fn recv_failed(error: RecvError) -> io::Error {
    let kind = match error {
        RecvError::Closed | RecvError::PeerDied => io::ErrorKind::UnexpectedEof,
        RecvError::TimedOut => io::ErrorKind::TimedOut,
        RecvError::Corrupt { .. } => io::ErrorKind::InvalidData,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// The ends of a ring write and read streams.
macro_rules! streams {
    ($producer:ty, $consumer:ty) => {
        impl $crate::stream::sealed::Sends for $producer {
            fn longest(&self) -> usize {
                self.max_message()
            }

            fn send_fragment(
                &mut self,
                bytes: &[u8],
                flags: u64,
            ) -> Result<(), $crate::error::SendError> {
                self.send_flagged(bytes, flags)
            }
        }

        impl $producer {
            /// Writes one message of any length, as a stream of fragments; see [`stream`](crate::stream). A
            /// reader that dies in the middle has let go of the fragments that it read: its successor does
            /// not get them again.
            pub fn stream(&mut self) -> StreamWriter<'_> {
                $crate::stream::Writer::new(self)
            }
        }

        impl $crate::stream::sealed::Receives for $consumer {
            fn next_is_continuation(&mut self) -> Result<bool, $crate::error::RecvError> {
                self.next_is_continuation()
            }

            fn fragment(
                &mut self,
            ) -> Result<$crate::stream::sealed::Fragment, $crate::error::RecvError> {
                let message = self.recv()?;
                Ok($crate::stream::sealed::Fragment {
                    rest: message.is_continuation(),
                    more: message.is_continued(),
                    bytes: message.to_vec(),
                })
            }
        }

        impl $consumer {
            /// Reads the next message, whatever its length: one that was sent whole, or the stream of
            /// fragments that [`Producer::stream`] wrote. Waits for it to begin. What is left of an earlier
            /// stream, that was not read to its end, is passed over first.
            ///
            /// # Errors
            /// As its `recv`.
            pub fn stream(&mut self) -> Result<StreamReader<'_>, $crate::error::RecvError> {
                $crate::stream::Reader::new(self)
            }
        }

        /// Writes one message of any length; see [`Producer::stream`].
        pub type StreamWriter<'a> = $crate::stream::Writer<'a, $producer>;
        /// Reads one message of any length; see [`Producer::stream`].
        pub type StreamReader<'a> = $crate::stream::Reader<'a, $consumer>;
    };
}
pub(crate) use streams;
