//! Messages in pieces: how boundaries are kept where the mechanism keeps none, or not for messages
//! of any length.
//!
//! ```text
//! byte  0        3 4       5        8                       8 + length
//!       | length  | flags | stream   | length bytes of payload ... |
//!         u24       u8      u32
//! ```
//!
//! A piece is written whole or not at all, so that several senders can share a pipe: `stream` says
//! whose piece it is, and each sender's pieces are put together apart. A sender that dies half-way
//! through a message, or gives it up (flag ABORT), harms nobody's message but its own.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use crate::{RecvError, SendError};

/// Bytes of the header of a piece.
pub(super) const HEADER: usize = 8;
/// The longest message that is sent in pieces. A bound on what a receiver holds for one sender.
pub(super) const MAX_MESSAGE: usize = 16 << 20;
/// How many messages may be under way, one a sender, before the receiver says that it is corrupt.
const MAX_STREAMS: usize = 4096;

/// More pieces of this message follow.
const MORE: u8 = 1;
/// The pieces of this stream that came before are void.
const ABORT: u8 = 2;

fn header(length: usize, flags: u8, stream: u32) -> [u8; HEADER] {
    let word = length as u32 | u32::from(flags) << 24;
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&word.to_le_bytes());
    header[4..].copy_from_slice(&stream.to_le_bytes());
    header
}

/// The sending side.
#[derive(Debug)]
pub(super) struct Outgoing {
    stream: u32,
    piece: usize,
    /// A message of which `.1` bytes are on their way, when its sender ran out of patience; none that can be
    /// gone on with, if its receiver is gone.
    begun: Option<(Option<Vec<u8>>, usize)>,
}

impl Outgoing {
    /// Sends pieces of at most `piece` bytes, header included.
    pub(super) fn new(piece: usize) -> Outgoing {
        Outgoing {
            stream: RandomState::new().hash_one(std::process::id()) as u32,
            piece: piece - HEADER,
            begun: None,
        }
    }

    /// Sends `message` by `put`, which sends a header and a payload whole (true) or not at all
    /// (false), and calls `wait` whenever there is no room; `wait`'s error ends it.
    pub(super) fn send(
        &mut self,
        message: &[u8],
        mut put: impl FnMut(&[u8], &[u8]) -> Result<bool, SendError>,
        mut wait: impl FnMut() -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        if message.len() > MAX_MESSAGE {
            return Err(SendError::MessageTooLarge {
                len: message.len(),
                max: MAX_MESSAGE,
            });
        }
        let mut sent = 0;
        match &self.begun {
            Some((Some(begun), done)) if begun == message => sent = *done,
            Some(_) => {
                while !put(&header(0, ABORT, self.stream), &[])? {
                    wait()?;
                }
            }
            None => {}
        }
        self.begun = None;
        loop {
            let rest = &message[sent..];
            let length = rest.len().min(self.piece);
            let more = if length < rest.len() { MORE } else { 0 };
            let refused = match put(&header(length, more, self.stream), &rest[..length]) {
                Ok(true) => {
                    sent += length;
                    if more == 0 {
                        return Ok(());
                    }
                    continue;
                }
                Ok(false) => wait(),
                Err(error) => Err(error),
            };
            // However it failed: the receiver keeps what went before.
            if let Err(error) = refused {
                if sent > 0 {
                    self.begun = Some((Some(message.to_vec()), sent));
                }
                return Err(error);
            }
        }
    }

    /// Takes back what is on its way of a message that was given up.
    pub(super) fn abandon(&mut self, put: impl FnOnce(&[u8], &[u8])) {
        if self.begun.take().is_some() {
            put(&header(0, ABORT, self.stream), &[]);
        }
    }

    /// Gives up what was on its way to a receiver that is gone. It may have left some of it for a successor,
    /// who is told that it is void.
    pub(super) fn forget(&mut self) {
        if let Some((begun, _)) = &mut self.begun {
            *begun = None;
        }
    }
}

/// The receiving side.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    partial: HashMap<u32, Vec<u8>>,
    /// Bytes that were read, for error messages.
    offset: u64,
}

impl Incoming {
    /// The length of the payload that a header announces.
    pub(super) fn length(&self, head: [u8; HEADER], piece: usize) -> Result<usize, RecvError> {
        let word = u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize;
        if word > piece - HEADER || head[3] & !(MORE | ABORT) != 0 {
            return Err(RecvError::Corrupt {
                what: "the header of a piece (is another program writing here?)",
                offset: self.offset,
            });
        }
        Ok(word)
    }

    /// Takes a piece; true when it completes a message, which then replaces the contents of `into`.
    pub(super) fn accept(
        &mut self,
        head: [u8; HEADER],
        payload: &[u8],
        into: &mut Vec<u8>,
    ) -> Result<bool, RecvError> {
        self.offset += (HEADER + payload.len()) as u64;
        let flags = head[3];
        let stream = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if flags & ABORT != 0 {
            self.partial.remove(&stream);
            return Ok(false);
        }
        if flags & MORE == 0 && !self.partial.contains_key(&stream) {
            into.clear();
            into.extend_from_slice(payload);
            return Ok(true);
        }
        let room = self.partial.len() < MAX_STREAMS || self.partial.contains_key(&stream);
        let begun = self.partial.entry(stream).or_default();
        if !room || begun.len() + payload.len() > MAX_MESSAGE {
            self.partial.remove(&stream);
            return Err(RecvError::Corrupt {
                what: "a message without end",
                offset: self.offset,
            });
        }
        begun.extend_from_slice(payload);
        if flags & MORE != 0 {
            return Ok(false);
        }
        *into = self.partial.remove(&stream).unwrap_or_default();
        Ok(true)
    }

    /// Drops what was under way: its senders are gone.
    pub(super) fn reset(&mut self) {
        self.partial.clear();
    }
}
