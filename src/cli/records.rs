//! The messages in a ring, as one who only looks on can have them: copied first, and believed only when
//! a second look shows that nobody can have written there meanwhile.
//!
//! The copies are read from the ring's file. What is found there is checked like what a hostile peer
//! wrote: each length against the bytes that were read, and every loop ends.

use serde::Serialize;

use crate::Error;
use crate::layout::Kind;
use crate::observe::Observer;
use crate::primitive::LINE;
use crate::ring::mpmc::{ADOPTED, POISON};
use crate::ring::spsc::{CLOSED, COMMITTED, MORE, PAD, REST};

use super::show;

/// Bytes of a header word, of which all positions are multiples.
const WORD: u64 = 8;
/// The header of a slot: sequence, length, and a word that is not used.
const SLOT: usize = 16;
/// Bytes read at once, unless one message is longer.
const CHUNK: u64 = 256 << 10;

/// A message or a slot, for people and for JSON.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Slot {
    /// Position of its header (spsc, broadcast) or its ticket (mpmc).
    pub(super) position: u64,
    /// What becomes of it: "waiting", "being written", "being read", ...
    pub(super) state: &'static str,
    /// Bytes of payload.
    pub(super) len: u64,
    /// How the payload begins.
    pub(super) begins: String,
}

impl Slot {
    /// One line for it, in `width` columns.
    pub(super) fn line(&self, width: usize) -> String {
        let room = width.clamp(48, 200) - 42;
        let begins = show::cut(&self.begins, room);
        format!(
            "{:>12}  {:<15} {:>8} B  {begins}",
            self.position, self.state, self.len
        )
    }
}

/// The beginning of a payload, as text if it is, else in hexadecimal digits.
pub(super) fn preview(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(200)];
    let text = String::from_utf8_lossy(bytes);
    let text = text.trim_end_matches('\u{fffd}');
    if !text.is_empty()
        && text
            .chars()
            .all(|c| !c.is_control() || "\n\t\r".contains(c))
    {
        return format!("{:?}", text);
    }
    let mut hex = String::new();
    for (i, byte) in bytes.iter().take(64).enumerate() {
        if i > 0 && i % 8 == 0 {
            hex.push(' ');
        }
        hex.push_str(&format!("{byte:02x}"));
    }
    hex
}

/// Up to `count` messages or slots around the cursors of a ring, oldest first.
pub(super) fn around(observer: &Observer, count: usize) -> Result<Vec<Slot>, Error> {
    match observer.ring_kind() {
        Kind::Spsc | Kind::Broadcast => {
            let cursors = Cursors::of(observer)?;
            let mut follower = Follower::at(observer, cursors.taken);
            let mut found = Vec::new();
            while found.len() < count {
                let before = found.len();
                follower.poll(|message| {
                    if found.len() < count {
                        found.push(Slot {
                            position: message.position,
                            state: message.state,
                            len: message.bytes.len() as u64,
                            begins: preview(message.bytes),
                        });
                    }
                })?;
                if found.len() == before {
                    break;
                }
            }
            Ok(found)
        }
        Kind::Mpmc => slots(observer, count as u64),
    }
}

/// The slots from a little before the consumers' cursor on.
fn slots(observer: &Observer, count: u64) -> Result<Vec<Slot>, Error> {
    let cursors = Cursors::of(observer)?;
    let geometry = Slots::of(observer);
    let first = cursors.taken.saturating_sub(count / 4);
    let last = cursors.sent.min(first.saturating_add(count));
    let mut found = Vec::new();
    let mut slot = vec![0; geometry.stride as usize];
    for ticket in first..last {
        geometry.read(observer, ticket, &mut slot)?;
        let word = word_at(&slot, 0);
        let taken = ticket < cursors.taken;
        let state = match word {
            _ if word & POISON != 0 => "given up",
            _ if word & ADOPTED != 0 => "being read again",
            _ if word == ticket + 1 && taken => "being read",
            _ if word == ticket + 1 => "waiting",
            _ if word == ticket => "being written",
            _ => "done",
        };
        if state == "done" {
            continue;
        }
        let payload = geometry.payload(&slot);
        let shown = state == "waiting" || state == "being read";
        found.push(Slot {
            position: ticket,
            state,
            len: payload.len() as u64,
            begins: if shown {
                preview(payload)
            } else {
                String::new()
            },
        });
    }
    Ok(found)
}

fn word_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).map_or(0, |word| {
        u64::from_ne_bytes(word.try_into().unwrap_or_default())
    })
}

/// Flag of a ring of pairs, in its header: a slot is a sequence and an item of 8 bytes.
const PAIRED: u32 = 4;

/// How the slots of an MPMC ring lie; from the checked header.
struct Slots {
    capacity: u64,
    stride: u64,
    size: usize,
    data: u64,
    /// Slots are pairs.
    paired: bool,
}

impl Slots {
    fn of(observer: &Observer) -> Slots {
        let header = observer.header();
        Slots {
            capacity: header.capacity,
            stride: header.data_len / header.capacity,
            size: header.slot as usize,
            data: header.data(),
            paired: header.flags & PAIRED != 0,
        }
    }

    /// Reads the slots from that of `ticket` on: as many as `into` holds, which do not wrap.
    fn read(&self, observer: &Observer, ticket: u64, into: &mut [u8]) -> Result<(), Error> {
        observer.read(self.data + ticket % self.capacity * self.stride, into)
    }

    /// The payload of a slot that was read: no longer than a slot, whatever its length says.
    fn payload<'a>(&self, slot: &'a [u8]) -> &'a [u8] {
        if self.paired {
            return slot.get(8..16).unwrap_or_default();
        }
        let len = (word_at(slot, 8) as u32 as usize).min(self.size);
        slot.get(SLOT..SLOT + len).unwrap_or_default()
    }
}

/// How far both sides are: positions (spsc, and of a broadcast ring what is still there) or tickets (mpmc).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursors {
    pub(super) sent: u64,
    pub(super) taken: u64,
    /// Messages sent so far.
    pub(super) messages: u64,
}

impl Cursors {
    pub(super) fn of(observer: &Observer) -> Result<Cursors, Error> {
        observer.cursors().map(|(sent, taken, messages)| Cursors {
            sent,
            taken,
            messages,
        })
    }
}

/// A message that passes by.
pub(super) struct Passing<'a> {
    pub(super) position: u64,
    pub(super) state: &'static str,
    pub(super) bytes: &'a [u8],
}

/// Follows the messages of a ring without taking part: who is too slow misses some.
pub(super) struct Follower<'a> {
    observer: &'a Observer,
    /// The next message to look at.
    position: u64,
    capacity: u64,
    room: Vec<u8>,
    /// Looks in a row that found nothing believable.
    fruitless: u32,
}

/// After so many looks that found nothing believable it goes on at the newest message.
const FRUITLESS: u32 = 1000;

impl<'a> Follower<'a> {
    /// Follows from `position` on, where a message begins.
    pub(super) fn at(observer: &'a Observer, position: u64) -> Follower<'a> {
        Follower {
            observer,
            position,
            capacity: observer.header().capacity,
            room: Vec::new(),
            fruitless: 0,
        }
    }

    /// Hands the messages that are there to `give`, a chunk of them at most. Returns how many.
    pub(super) fn poll(&mut self, give: impl FnMut(Passing<'_>)) -> Result<u64, Error> {
        match self.observer.ring_kind() {
            Kind::Spsc | Kind::Broadcast => self.poll_records(give),
            Kind::Mpmc => self.poll_slots(give),
        }
    }

    /// Goes on where a message surely begins and is not overwritten just now.
    fn resynchronise(&mut self, cursors: Cursors) {
        self.fruitless = 0;
        self.position = if self.is_whole(cursors.taken, cursors) {
            cursors.taken
        } else {
            cursors.sent
        };
    }

    /// Whether what begins at `position` and was read before the cursors were cannot have been
    /// overwritten: the producer does not write over what is not acknowledged; and what is, it comes to
    /// last of all. (Half of the ring is as long as one message can be.) Of a broadcast ring the producer
    /// says what it is going to overwrite.
    fn is_whole(&self, position: u64, cursors: Cursors) -> bool {
        position >= cursors.taken
            || self.observer.ring_kind() == Kind::Spsc
                && position.saturating_add(self.capacity / 2)
                    >= cursors.sent.saturating_add(2 * LINE)
    }

    fn poll_records(&mut self, mut give: impl FnMut(Passing<'_>)) -> Result<u64, Error> {
        let cursors = Cursors::of(self.observer)?;
        if !self.is_whole(self.position, cursors) || self.position > cursors.sent {
            self.resynchronise(cursors);
        }
        let there = (cursors.sent - self.position).min(self.capacity);
        if there < WORD {
            return Ok(0);
        }
        let mut want = there.min(CHUNK);
        loop {
            self.read(self.position, want)?;
            let after = Cursors::of(self.observer)?;
            match self.parse(want, after, &mut give) {
                Parsed::Some { to, messages } if to > self.position => {
                    self.position = to;
                    self.fruitless = 0;
                    return Ok(messages);
                }
                Parsed::Short if want < there => want = there,
                // Nothing believable: overwritten meanwhile, or not what an honest producer writes.
                _ => {
                    self.fruitless += 1;
                    if self.fruitless > FRUITLESS || !self.is_whole(self.position, after) {
                        self.resynchronise(after);
                    }
                    return Ok(0);
                }
            }
        }
    }

    /// Reads `len` bytes of the data area from `position` on, round its end if need be.
    fn read(&mut self, position: u64, len: u64) -> Result<(), Error> {
        self.room.resize(len as usize, 0);
        let data = self.observer.header().data();
        let offset = position % self.capacity;
        let before_end = len.min(self.capacity - offset) as usize;
        let (first, second) = self.room.split_at_mut(before_end);
        self.observer.read(data + offset, first)?;
        self.observer.read(data, second)
    }

    /// Hands out the records among the first `len` bytes that were read from `self.position` on.
    fn parse(&self, len: u64, after: Cursors, give: &mut impl FnMut(Passing<'_>)) -> Parsed {
        let (mut at, mut messages) = (0, 0);
        while at + WORD <= len {
            let position = self.position + at;
            let word = word_at(&self.room, at as usize);
            if word & COMMITTED == 0 || word & CLOSED != 0 || !self.is_whole(position, after) {
                break;
            }
            let size = (word >> 32).next_multiple_of(WORD) + WORD;
            if position % self.capacity + size > self.capacity {
                break;
            }
            if at + size > len {
                return match at {
                    0 => Parsed::Short,
                    _ => Parsed::Some {
                        to: position,
                        messages,
                    },
                };
            }
            if word & PAD == 0 {
                let from = (at + WORD) as usize;
                give(Passing {
                    position,
                    state: match (position < after.taken, word & (MORE | REST) != 0) {
                        (false, _) if self.observer.ring_kind() == Kind::Broadcast => "still there",
                        (false, false) => "waiting",
                        (false, true) => "waiting, a part",
                        (true, _) => "taken",
                    },
                    bytes: &self.room[from..from + (word >> 32) as usize],
                });
                messages += 1;
            }
            at += size;
        }
        Parsed::Some {
            to: self.position + at,
            messages,
        }
    }

    fn poll_slots(&mut self, mut give: impl FnMut(Passing<'_>)) -> Result<u64, Error> {
        let geometry = Slots::of(self.observer);
        let cursors = Cursors::of(self.observer)?;
        let oldest = cursors.sent.saturating_sub(self.capacity);
        if self.position < oldest || self.position > cursors.sent {
            self.position = cursors.taken.clamp(oldest, cursors.sent);
        }
        let to_end = self.capacity - self.position % self.capacity;
        let most = (CHUNK / geometry.stride).max(1);
        let count = (cursors.sent - self.position).min(to_end).min(most);
        if count == 0 {
            return Ok(0);
        }
        let len = (count * geometry.stride) as usize;
        let mut again = vec![0; len];
        self.room.resize(len, 0);
        geometry.read(self.observer, self.position, &mut self.room)?;
        geometry.read(self.observer, self.position, &mut again)?;
        let after = Cursors::of(self.observer)?;
        let stride = geometry.stride as usize;
        let (mut messages, mut done) = (0, 0);
        for (slot, again) in self
            .room
            .chunks_exact(stride)
            .zip(again.chunks_exact(stride))
        {
            let ticket = self.position + done;
            let (first, second) = (word_at(slot, 0), word_at(again, 0));
            if first == ticket {
                break; // It is being written: wait for it, and for order.
            }
            // Whole if it was ready before, and nobody has claimed the slot for the next lap after.
            let released = ticket + self.capacity;
            let untouched = second == ticket + 1 || second == released && after.sent <= released;
            if first & (POISON | ADOPTED) == 0 && first == ticket + 1 && untouched {
                give(Passing {
                    position: ticket,
                    state: if ticket < after.taken {
                        "taken"
                    } else {
                        "waiting"
                    },
                    bytes: geometry.payload(slot),
                });
                messages += 1;
            } else if first == released && after.sent <= released && !geometry.paired {
                // Taken and given back before we came, and nobody has written there since.
                give(Passing {
                    position: ticket,
                    state: "taken",
                    bytes: geometry.payload(slot),
                });
                messages += 1;
            }
            done += 1;
        }
        self.position += done;
        Ok(messages)
    }
}

/// What [`Follower::parse`] found.
enum Parsed {
    /// So many messages, up to this position.
    Some { to: u64, messages: u64 },
    /// The first message is longer than what was read.
    Short,
}
