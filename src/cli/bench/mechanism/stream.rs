//! Byte streams: pipe, FIFO, Unix stream socket, TCP over loopback.
//!
//! Both ends know the length of a message, so there is no framing; the receiver reads as much as
//! there is and hands out messages from it, as any serious user of a stream does.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::super::control::Role;
use super::super::link::{Link, Outcome};
use super::queue::names;
use super::{Ends, directions};
use crate::os::bare;

/// How much is read at once, and how much a pipe is made to hold.
const BUFFER: usize = 64 * 1024;

/// Two pipes, there and back: read end, write end, read end, write end.
pub(super) fn pipes() -> Outcome<[OwnedFd; 4]> {
    let (there_out, there_in) = std::io::pipe()?;
    let (back_out, back_in) = std::io::pipe()?;
    Ok([
        there_out.into(),
        there_in.into(),
        back_out.into(),
        back_in.into(),
    ])
}

/// Two FIFOs, in the order of `pipes`. Their names are gone when this returns.
pub(super) fn fifos() -> Outcome<[OwnedFd; 4]> {
    let _names = names();
    let fifo = |which: &str| -> Outcome<(OwnedFd, OwnedFd)> {
        let name = format!("ringway-bench-{}-{which}", std::process::id());
        let path = std::env::temp_dir().join(name);
        bare::make_fifo(&path)?;
        // Opened for both, a FIFO does not wait for its other end.
        let opened = File::options().read(true).write(true).open(&path);
        std::fs::remove_file(&path)?;
        let end = opened?;
        Ok((end.try_clone()?.into(), end.into()))
    };
    let (there_out, there_in) = fifo("there")?;
    let (back_out, back_in) = fifo("back")?;
    Ok([there_out, there_in, back_out, back_in])
}

/// A pair of Unix stream sockets: the leader's, the follower's.
pub(super) fn unix() -> Outcome<[OwnedFd; 2]> {
    let (leader, follower) = UnixStream::pair()?;
    Ok([leader.into(), follower.into()])
}

/// The two ends of a TCP connection over loopback, without Nagle's delay.
pub(super) fn tcp() -> Outcome<[OwnedFd; 2]> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let leader = TcpStream::connect(listener.local_addr()?)?;
    let (follower, _) = listener.accept()?;
    leader.set_nodelay(true)?;
    follower.set_nodelay(true)?;
    Ok([leader.into(), follower.into()])
}

/// One end of a byte stream in each direction.
pub(super) struct Stream {
    output: File,
    input: File,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    gathered: Vec<u8>,
}

impl Stream {
    fn new(output: OwnedFd, input: OwnedFd) -> Stream {
        Stream {
            output: output.into(),
            input: input.into(),
            buffer: vec![0; BUFFER],
            start: 0,
            end: 0,
            gathered: Vec::new(),
        }
    }

    /// An end of two one-way streams.
    pub(super) fn one_way_pair(role: Role, ends: &mut Ends) -> Stream {
        let (out, back) = directions(role);
        let (output, input) = (ends.take(2 * out + 1), ends.take(2 * back));
        bare::pipe_buffer(output.as_fd(), BUFFER);
        Stream::new(output, input)
    }

    /// An end of one two-way stream.
    pub(super) fn two_way(role: Role, ends: &mut Ends) -> Outcome<Stream> {
        let output = ends.take(directions(role).0);
        let input = output.try_clone()?;
        Ok(Stream::new(output, input))
    }
}

impl Link for Stream {
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        // A stream cannot carry nothing: one byte stands for the empty message.
        let message = if message.is_empty() { &[0] } else { message };
        Ok(self.output.write_all(message)?)
    }

    fn recv(&mut self, into: &mut [u8]) -> Outcome<usize> {
        let need = into.len().max(1);
        if self.start == self.end && need >= BUFFER {
            self.input.read_exact(into)?; // too large to gain by the buffer
            return Ok(into.len());
        }
        let mut filled = 0;
        while filled < need {
            if self.start == self.end {
                (self.start, self.end) = (0, self.input.read(&mut self.buffer)?);
                if self.end == 0 {
                    return Err("the stream ended".into());
                }
            }
            let some = (need - filled).min(self.end - self.start);
            if let Some(room) = into.get_mut(filled..filled + some) {
                room.copy_from_slice(&self.buffer[self.start..self.start + some]);
            }
            self.start += some;
            filled += some;
        }
        Ok(into.len())
    }

    fn send_batch(&mut self, messages: &[Vec<u8>]) -> Outcome<()> {
        if messages.iter().any(Vec::is_empty) {
            return messages.iter().try_for_each(|message| self.send(message));
        }
        self.gathered.clear();
        for message in messages {
            self.gathered.extend_from_slice(message);
        }
        Ok(self.output.write_all(&self.gathered)?)
    }
}
