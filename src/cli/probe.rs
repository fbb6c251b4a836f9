//! The messages that `ringway gen` makes and `ringway sink` checks.
//!
//! ```text
//! 24 bytes and more:  | sequence and LAST u64 | time u64 | check u64 | payload ... |
//! 8 to 23 bytes:      | sequence 39 bits, LAST, check 24 bits | payload ... |
//! fewer:              | payload |, which is only counted
//! ```
//!
//! `time` is monotonic nanoseconds, or 0 for a message whose latency is not measured.

use crate::os::clock;

/// How many different payloads there are; which one a message has is told by its sequence.
const VARIANTS: usize = 8;
/// Set in the first word of the last message of a stream.
const LAST: u64 = 1 << 63;
const LAST_SHORT: u64 = 1 << 39;
const SEQUENCE_SHORT: u64 = LAST_SHORT - 1;
/// Odd numbers without a pattern.
const MIX: [u64; 4] = [
    0x9E37_79B9_7F4A_7C15,
    0xBF58_476D_1CE4_E5B9,
    0x94D0_49BB_1331_11EB,
    0xD6E8_FEB8_6659_FD93,
];

/// A sum over the payload that a change of any bit changes. Four lanes, since one multiplication
/// waits for the one before it.
#[inline]
fn sum(payload: &[u8]) -> u64 {
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
    let mut lanes = MIX;
    let mut blocks = payload.chunks_exact(32);
    for block in &mut blocks {
        for (lane, bytes) in lanes.iter_mut().zip(block.chunks_exact(8)) {
            *lane = (*lane ^ word(bytes)).wrapping_mul(MIX[0]);
        }
    }
    let mut words = blocks.remainder().chunks_exact(8);
    for bytes in &mut words {
        lanes[0] = (lanes[0] ^ word(bytes))
            .wrapping_mul(MIX[1])
            .rotate_left(29);
    }
    for &byte in words.remainder() {
        lanes[1] = (lanes[1] ^ u64::from(byte))
            .wrapping_mul(MIX[2])
            .rotate_left(31);
    }
    let [a, b, c, d] = lanes;
    fold(
        a ^ b.rotate_left(17) ^ c.rotate_left(31) ^ d.rotate_left(47),
        payload.len() as u64,
    )
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let mixed = (a ^ b.wrapping_mul(MIX[3])).wrapping_mul(MIX[1]);
    mixed ^ (mixed >> 29)
}

#[inline]
fn check(sum: u64, first: u64, time: u64) -> u64 {
    fold(fold(sum, first), time)
}

#[inline]
fn check_short(sum: u64, first: u64) -> u64 {
    fold(sum, first) >> 40
}

/// Makes the messages of one size.
pub(super) struct Maker {
    size: usize,
    /// Payloads of all variants: variant v begins at byte v * 8.
    payload: Vec<u8>,
    sums: [u64; VARIANTS],
}

impl Maker {
    pub(super) fn new(size: usize) -> Maker {
        let header = header_of(size);
        let mut state = 1u64;
        let payload: Vec<u8> = std::iter::repeat_with(|| {
            state = fold(state, MIX[2]).wrapping_add(MIX[0]);
            (state >> 32) as u8
        })
        .take(size - header + 8 * VARIANTS)
        .collect();
        let sums = std::array::from_fn(|v| sum(&payload[v * 8..][..size - header]));
        Maker {
            size,
            payload,
            sums,
        }
    }

    /// Writes message number `sequence` into `message`, which has the size.
    #[inline]
    pub(super) fn make(&self, message: &mut [u8], sequence: u64, time: u64, last: bool) {
        let header = header_of(self.size);
        let variant = sequence as usize % VARIANTS;
        let payload = &self.payload[variant * 8..][..self.size - header];
        message[header..].copy_from_slice(payload);
        let sum = self.sums[variant];
        if header == 24 {
            let first = sequence | if last { LAST } else { 0 };
            message[..8].copy_from_slice(&first.to_le_bytes());
            message[8..16].copy_from_slice(&time.to_le_bytes());
            message[16..24].copy_from_slice(&check(sum, first, time).to_le_bytes());
        } else if header == 8 {
            let first = sequence & SEQUENCE_SHORT | if last { LAST_SHORT } else { 0 };
            let first = first | check_short(sum, first) << 40;
            message[..8].copy_from_slice(&first.to_le_bytes());
        }
    }
}

fn header_of(size: usize) -> usize {
    match size {
        24.. => 24,
        8.. => 8,
        _ => 0,
    }
}

/// What a message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) sequence: u64,
    pub(super) time: u64,
    pub(super) last: bool,
}

/// Reads a message; `None` if it is not as it was made (or was not made by [`Maker`]).
#[inline]
pub(super) fn read(message: &[u8]) -> Option<Told> {
    let first = u64::from_le_bytes(*message.first_chunk()?);
    if let Some((header, payload)) = message.split_at_checked(24) {
        let time = u64::from_le_bytes(header[8..16].try_into().ok()?);
        let stated = u64::from_le_bytes(header[16..24].try_into().ok()?);
        (stated == check(sum(payload), first, time)).then_some(Told {
            sequence: first & !LAST,
            time,
            last: first & LAST != 0,
        })
    } else {
        let stated = first >> 40;
        let first = first & (LAST_SHORT | SEQUENCE_SHORT);
        (stated == check_short(sum(&message[8..]), first)).then_some(Told {
            sequence: first & SEQUENCE_SHORT,
            time: 0,
            last: first & LAST_SHORT != 0,
        })
    }
}

/// Which of the numbers from 0 up have been seen. Cheap while they come about in order.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// All below were seen.
    next: u64,
    /// Later ones: start to end of runs with gaps between them.
    runs: std::collections::BTreeMap<u64, u64>,
    /// How often one came that had come before.
    pub(super) doubled: u64,
}

impl Seen {
    /// Whether it came late: for the first time, but behind a greater one.
    #[inline]
    pub(super) fn add(&mut self, number: u64) -> bool {
        if number == self.next && self.runs.is_empty() {
            self.next += 1;
            return false;
        }
        self.add_out_of_order(number)
    }

    #[cold]
    fn add_out_of_order(&mut self, number: u64) -> bool {
        let before = self
            .runs
            .range(..=number)
            .next_back()
            .map(|(start, end)| (*start, *end));
        if number < self.next || before.is_some_and(|(_, end)| number < end) {
            self.doubled += 1;
            return false;
        }
        let late = number < self.end();
        let mut start = number;
        if let Some((run, _)) = before.filter(|(_, end)| *end == number) {
            start = run;
        }
        let end = self.runs.remove(&(number + 1)).unwrap_or(number + 1);
        if start == self.next {
            self.runs.remove(&start);
            self.next = end;
            // What follows without a gap was joined above.
        } else {
            self.runs.insert(start, end);
        }
        if let Some(end) = self.runs.remove(&self.next) {
            self.next = end;
        }
        late
    }

    /// One more than the greatest.
    fn end(&self) -> u64 {
        let last = self.runs.last_key_value();
        last.map_or(self.next, |(_, end)| *end)
    }

    /// How many different numbers were seen, and one more than the greatest.
    pub(super) fn total(&self) -> (u64, u64) {
        let later: u64 = self.runs.iter().map(|(start, end)| end - start).sum();
        (self.next + later, self.end())
    }
}

/// Now, in the unit of [`Told::time`].
#[inline]
pub(super) fn now() -> u64 {
    clock::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_tells_what_it_was_made_with() {
        for size in [8, 9, 23, 24, 25, 31, 64, 1000] {
            let maker = Maker::new(size);
            let mut message = vec![0; size];
            for (sequence, last) in [(0, false), (1, false), (7, false), (1 << 38, true)] {
                let time = if size < 24 { 0 } else { 123_456_789 };
                maker.make(&mut message, sequence, time, last);
                assert_eq!(
                    read(&message),
                    Some(Told {
                        sequence,
                        time,
                        last
                    }),
                    "{size}"
                );
            }
        }
        assert_eq!(read(b"short"), None);
        assert_eq!(read(b"a line of somebody else's, long enough"), None);
    }

    #[test]
    fn any_changed_bit_is_noticed() {
        for size in [8, 20, 24, 64, 77] {
            let mut message = vec![0; size];
            Maker::new(size).make(&mut message, 5, 77, false);
            for bit in 0..size * 8 {
                message[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(read(&message), None, "bit {bit} of {size} bytes");
                message[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn every_number_is_accounted_for_in_any_order() {
        let mut seen = Seen::default();
        let numbers = [0, 1, 5, 3, 2, 5, 9, 4, 0, 8, 7];
        let late: Vec<u64> = numbers.into_iter().filter(|&n| seen.add(n)).collect();
        assert_eq!(late, [3, 2, 4, 8, 7]);
        assert_eq!((seen.total(), seen.doubled), ((9, 10), 2));
        seen.add(6);
        seen.add(10);
        assert_eq!((seen.total(), seen.runs.len()), ((11, 11), 0));
    }
}
