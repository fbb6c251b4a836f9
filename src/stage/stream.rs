//! Messages on a stream of bytes: a pipe or a file.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::os::{memory, process, stop};
use crate::{RecvError, SendError};

/// How messages lie on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Format {
    /// Each message is its length, 4 bytes with the least significant first, and its bytes.
    Records,
    /// Each line is a message, without its line end. What is written gets one.
    Lines,
    /// Bytes as they come, with no boundaries: pieces of up to 64 KiB.
    Raw,
}

/// Bytes read or written at once.
const BLOCK: usize = 256 << 10;
/// The longest message of [`Format::Raw`].
const PIECE: usize = 64 << 10;

/// What there is of a message.
pub(crate) enum Next {
    /// It stands there, in [`Reader::bytes`].
    Message(Range<usize>),
    /// There is none yet.
    Empty,
    /// There will be none.
    End,
}

/// Takes messages from a stream.
#[derive(Debug)]
pub(crate) struct Reader {
    from: File,
    format: Format,
    buffer: Vec<u8>,
    /// What of the buffer was read and not yet given out.
    unread: Range<usize>,
    /// Up to here there is no line end.
    searched: usize,
    /// Bytes given out so far, for errors.
    offset: u64,
    ended: bool,
}

impl Reader {
    pub(crate) fn new(from: OwnedFd, format: Format) -> Reader {
        Reader {
            from: File::from(from),
            format,
            buffer: vec![0; BLOCK],
            unread: 0..0,
            searched: 0,
            offset: 0,
            ended: false,
        }
    }

    /// The bytes of the message that [`Next::Message`] told of.
    #[inline(always)]
    pub(crate) fn bytes(&self, at: Range<usize>) -> &[u8] {
        &self.buffer[at]
    }

    /// The next message; waits for it if told to.
    #[inline]
    pub(crate) fn next(&mut self, wait: bool) -> Result<Next, RecvError> {
        loop {
            if let Some(at) = self.take() {
                return Ok(Next::Message(at));
            }
            if self.ended {
                return self.last();
            }
            if !self.fill(wait)? {
                return Ok(Next::Empty);
            }
        }
    }

    /// A whole message, if there is one in the buffer.
    #[inline]
    fn take(&mut self) -> Option<Range<usize>> {
        let Range { start, end } = self.unread;
        let (at, next) = match self.format {
            Format::Records => {
                let header = self.buffer[start..end].first_chunk()?;
                let len = u32::from_le_bytes(*header) as usize;
                if end - start - 4 < len {
                    return None;
                }
                (start + 4..start + 4 + len, start + 4 + len)
            }
            Format::Lines => {
                let from = self.searched.max(start);
                let Some(at) = memory::find(b'\n', &self.buffer[from..end]) else {
                    self.searched = end;
                    return None;
                };
                (start..from + at, from + at + 1)
            }
            Format::Raw if start == end => return None,
            Format::Raw => (start..end.min(start + PIECE), end.min(start + PIECE)),
        };
        self.offset += (next - start) as u64;
        self.unread.start = next;
        Some(at)
    }

    /// What is left when the stream has ended.
    #[cold]
    fn last(&mut self) -> Result<Next, RecvError> {
        let left = self.unread.clone();
        self.unread.start = left.end;
        if left.is_empty() {
            return Ok(Next::End);
        }
        if self.format == Format::Lines {
            return Ok(Next::Message(left));
        }
        Err(RecvError::Corrupt {
            what: "the input ends within a message",
            offset: self.offset,
        })
    }

    /// Reads more; false when that would have to wait and may not.
    #[cold]
    fn fill(&mut self, wait: bool) -> Result<bool, RecvError> {
        let failed = |op| move |source| RecvError::Os { op, source };
        if !wait {
            let ready = process::poll(&[Some(self.from.as_fd())], Some(Duration::ZERO));
            if !ready.map_err(failed("ppoll"))?[0] {
                return Ok(false);
            }
        }
        if self.unread.end == self.buffer.len() {
            let Range { start, end } = self.unread;
            if start > 0 {
                self.buffer.copy_within(start..end, 0);
                self.searched = self.searched.saturating_sub(start);
                self.unread = 0..end - start;
            } else {
                // Only as bytes really come: a length that lies costs no memory.
                self.buffer.resize(2 * end, 0);
            }
        }
        let room = &mut self.buffer[self.unread.end..];
        let read = process::read(self.from.as_fd(), room).map_err(failed("read"))?;
        self.unread.end += read;
        self.ended = read == 0;
        Ok(true)
    }
}

/// Puts messages on a stream.
#[derive(Debug)]
pub(crate) struct Writer {
    to: File,
    format: Format,
    buffer: Vec<u8>,
}

impl Writer {
    pub(crate) fn new(to: OwnedFd, format: Format) -> Writer {
        Writer {
            to: File::from(to),
            format,
            buffer: Vec::with_capacity(2 * BLOCK),
        }
    }

    /// Buffers a message; writes when there is a good deal.
    #[inline]
    pub(crate) fn push(&mut self, message: &[u8]) -> Result<(), SendError> {
        match self.format {
            Format::Records => {
                let Ok(len) = u32::try_from(message.len()) else {
                    let max = u32::MAX as usize;
                    return Err(SendError::MessageTooLarge {
                        len: message.len(),
                        max,
                    });
                };
                self.buffer.extend_from_slice(&len.to_le_bytes());
                self.buffer.extend_from_slice(message);
            }
            Format::Lines => {
                self.buffer.extend_from_slice(message);
                self.buffer.push(b'\n');
            }
            Format::Raw => self.buffer.extend_from_slice(message),
        }
        if self.buffer.len() >= BLOCK {
            return self.flush();
        }
        Ok(())
    }

    /// Writes what is buffered.
    #[cold]
    pub(crate) fn flush(&mut self) -> Result<(), SendError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = self.write();
        self.buffer.clear();
        written.map_err(|source| match source.kind() {
            io::ErrorKind::BrokenPipe => SendError::Closed,
            _ => SendError::Os {
                op: "write",
                source,
            },
        })
    }
}

impl Writer {
    /// As `write_all`, but a process that was told to stop does not wait for its reader for ever.
    fn write(&self) -> io::Result<()> {
        let mut rest = &self.buffer[..];
        while !rest.is_empty() {
            match (&self.to).write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted && !stop::overdue() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes the messages, and reads them back through a pipe.
    fn there_and_back(format: Format, messages: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let (read, write) = process::pipe(4096).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut writer = Writer::new(write, format);
                messages
                    .iter()
                    .for_each(|message| writer.push(message).unwrap());
            });
            let mut reader = Reader::new(read, format);
            let mut got = Vec::new();
            while let Next::Message(at) = reader.next(true).unwrap() {
                got.push(reader.bytes(at).to_vec());
            }
            got
        })
    }

    #[test]
    fn messages_of_any_length_come_back_as_they_were() {
        let messages: Vec<Vec<u8>> = [0, 1, 3, 4, 5, 0, 100_000, 64 << 10, 3 << 20, 0, 7]
            .into_iter()
            .map(|len| (0..len).map(|i| (i % 10) as u8).collect())
            .collect();
        assert_eq!(there_and_back(Format::Records, &messages), messages);
        let lines: Vec<Vec<u8>> = messages
            .iter()
            .map(|message| message.iter().map(|byte| byte + b'0').collect())
            .collect();
        assert_eq!(there_and_back(Format::Lines, &lines), lines);
        assert_eq!(
            there_and_back(Format::Raw, &messages).concat(),
            messages.concat()
        );
    }

    #[test]
    fn a_last_line_without_an_end_is_a_message() {
        assert_eq!(read_all(Format::Lines, b"a\n\nb").unwrap(), ["a", "", "b"]);
    }

    #[test]
    fn an_input_that_ends_within_a_record_is_corrupt() {
        for bytes in [
            &b"\x05\0\0\0abcd"[..],
            b"\x05\0\0",
            b"\0\0\0\0\xff\xff\xff\xffx",
        ] {
            assert!(matches!(
                read_all(Format::Records, bytes),
                Err(RecvError::Corrupt { .. })
            ));
        }
    }

    fn read_all(format: Format, bytes: &[u8]) -> Result<Vec<String>, RecvError> {
        let (read, write) = process::pipe(4096).unwrap();
        File::from(write).write_all(bytes).unwrap();
        let mut reader = Reader::new(read, format);
        let mut got = Vec::new();
        while let Next::Message(at) = reader.next(true)? {
            got.push(String::from_utf8(reader.bytes(at).to_vec()).unwrap());
        }
        Ok(got)
    }

    #[test]
    fn nothing_there_is_no_end() {
        let (read, write) = process::pipe(4096).unwrap();
        let mut reader = Reader::new(read, Format::Lines);
        assert!(matches!(reader.next(false), Ok(Next::Empty)));
        File::from(write).write_all(b"a\n").unwrap();
        assert!(matches!(reader.next(false), Ok(Next::Message(_))));
        assert!(matches!(reader.next(false), Ok(Next::End)));
    }
}
