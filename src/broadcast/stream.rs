//! Messages longer than the longest: streams of fragments.
//!
//! A fragment says whether more follow and whether some came before. So a reader always knows where a
//! stream begins and ends, also when its writer gave up or died in the middle.

use std::io;

use crate::error::{RecvError, SendError};
use crate::ring::broadcast::{MORE, REST};

use super::producer::Producer;
use super::subscriber::Subscriber;

impl Producer {
    /// Writes one message of any length, as a stream of fragments. [`StreamWriter::finish`] ends it;
    /// dropped before, it is cut short, which readers are told when the next message comes or the
    /// producer leaves.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// # let ring = ringway::broadcast::Ring::anonymous(ringway::broadcast::Config::default().capacity(4096))?;
    /// # let (mut tx, mut rx) = (ring.producer()?, ring.subscriber()?);
    /// # let sender = std::thread::spawn(move || {
    /// let mut stream = tx.stream();
    /// stream.write_all(&[7; 100_000])?; // through a ring of 4096 bytes
    /// stream.finish()
    /// # });
    /// # ; let mut all = Vec::new();
    /// rx.stream()?.read_to_end(&mut all)?;
    /// assert_eq!(all.len(), 100_000);
    /// # sender.join().unwrap()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn stream(&mut self) -> StreamWriter<'_> {
        // Two fragments fit at once, so that one is read while the next is written.
        let fragment = (self.max_message() / 2).max(1);
        StreamWriter {
            producer: self,
            begun: false,
            fragment,
        }
    }
}

/// Writes one message of any length; see [`Producer::stream`].
#[derive(Debug)]
pub struct StreamWriter<'a> {
    producer: &'a mut Producer,
    begun: bool,
    fragment: usize,
}

impl StreamWriter<'_> {
    /// Ends the message. Waits for room.
    ///
    /// # Errors
    /// Those of [`Producer::send`], as [`io::Error`].
    pub fn finish(mut self) -> io::Result<()> {
        self.put(&[], 0)
    }

    fn put(&mut self, bytes: &[u8], more: u64) -> io::Result<()> {
        let rest = if self.begun { REST } else { 0 };
        self.producer
            .send_flagged(bytes, more | rest)
            .map_err(send_failed)?;
        self.begun = true;
        Ok(())
    }
}

impl io::Write for StreamWriter<'_> {
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

impl Subscriber {
    /// Reads the next message, whatever its length: one that was sent whole, or the stream of fragments
    /// that [`Producer::stream`] wrote. Waits for it to begin. What is left of an earlier stream, that
    /// was not read to its end, is passed over first.
    ///
    /// # Errors
    /// As [`Subscriber::recv`].
    pub fn stream(&mut self) -> Result<StreamReader<'_>, RecvError> {
        loop {
            let (rest, more, bytes) = self.fragment()?;
            if !rest {
                return Ok(StreamReader {
                    subscriber: self,
                    bytes,
                    at: 0,
                    more,
                });
            }
        }
    }

    /// The next fragment: whether some came before, whether more follow, and its bytes.
    fn fragment(&mut self) -> Result<(bool, bool, Vec<u8>), RecvError> {
        let message = self.recv()?;
        Ok((
            message.is_continuation(),
            message.is_continued(),
            message.to_vec(),
        ))
    }
}

/// Reads one message of any length; see [`Subscriber::stream`]. Gives
/// [`io::ErrorKind::UnexpectedEof`] where its writer gave up or died; the message after that is left
/// in the ring. On a lossy ring a reader that was too slow gets an error that holds
/// [`RecvError::Missed`], and the rest of the stream is passed over.
#[derive(Debug)]
pub struct StreamReader<'a> {
    subscriber: &'a mut Subscriber,
    bytes: Vec<u8>,
    at: usize,
    more: bool,
}

impl io::Read for StreamReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.bytes.len() {
            if !self.more || into.is_empty() {
                return Ok(0);
            }
            // Unless all goes well there is no more of it: what follows a gap is not its continuation.
            self.more = false;
            if !self
                .subscriber
                .next_is_continuation()
                .map_err(recv_failed)?
            {
                let cut = "the stream was cut short: its writer gave up or died";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, cut));
            }
            (_, self.more, self.bytes) = self.subscriber.fragment().map_err(recv_failed)?;
            self.at = 0;
        }
        let len = into.len().min(self.bytes.len() - self.at);
        into[..len].copy_from_slice(&self.bytes[self.at..self.at + len]);
        self.at += len;
        Ok(len)
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
