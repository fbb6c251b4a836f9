//! What one signal carries: eight bytes.
//!
//! | first byte | the other seven |
//! | --- | --- |
//! | 0..=7 | that many bytes of a message; more follow |
//! | 8..=15 | that many less 8, which are its last ones |
//! | HELLO | the process of the sender, whose thread is in the signal itself |
//! | ABORT | the bytes that came before are void |
//! | LEAVE | whoever sent this leaves |
//! | ACK | so many words have been taken |

/// Bytes of a message in a word.
pub(super) const PAYLOAD: usize = 7;

const LAST: u8 = 8;
const HELLO: u8 = 16;
const ABORT: u8 = 17;
const LEAVE: u8 = 18;
const ACK: u8 = 19;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Data {
        bytes: [u8; PAYLOAD],
        count: usize,
        last: bool,
    },
    Hello(u32),
    Abort,
    Leave,
    Ack(u32),
}

impl Word {
    /// The first bytes of `rest`, and how many they are.
    pub(super) fn data(rest: &[u8]) -> (Word, usize) {
        let count = rest.len().min(PAYLOAD);
        let mut bytes = [0; PAYLOAD];
        bytes[..count].copy_from_slice(&rest[..count]);
        let last = count == rest.len();
        (Word::Data { bytes, count, last }, count)
    }

    pub(super) fn encode(self) -> u64 {
        let mut word = [0u8; 8];
        let number = |word: &mut [u8; 8], kind, number: u32| {
            word[0] = kind;
            word[1..5].copy_from_slice(&number.to_le_bytes());
        };
        match self {
            Word::Data { bytes, count, last } => {
                word[0] = count as u8 | if last { LAST } else { 0 };
                word[1..].copy_from_slice(&bytes);
            }
            Word::Hello(process) => number(&mut word, HELLO, process),
            Word::Abort => word[0] = ABORT,
            Word::Leave => word[0] = LEAVE,
            Word::Ack(count) => number(&mut word, ACK, count),
        }
        u64::from_le_bytes(word)
    }

    /// `None` for what nobody here sends.
    pub(super) fn decode(value: u64) -> Option<Word> {
        let word = value.to_le_bytes();
        let number = u32::from_le_bytes([word[1], word[2], word[3], word[4]]);
        let [kind, bytes @ ..] = word;
        Some(match kind {
            0..16 => Word::Data {
                bytes,
                count: usize::from(kind & 7),
                last: kind & LAST != 0,
            },
            HELLO => Word::Hello(number),
            ABORT => Word::Abort,
            LEAVE => Word::Leave,
            ACK => Word::Ack(number),
            _ => return None,
        })
    }
}

/// The process that introduces itself by this word.
pub(super) fn hello(value: u64) -> Option<u32> {
    match Word::decode(value) {
        Some(Word::Hello(process)) => Some(process),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_as_it_was_written() {
        for length in 0..20 {
            let (data, count) = Word::data(&vec![0xab; length]);
            assert_eq!(count, length.min(PAYLOAD));
            assert_eq!(Word::decode(data.encode()), Some(data));
        }
        for word in [Word::Hello(70_000), Word::Abort, Word::Leave, Word::Ack(64)] {
            assert_eq!(Word::decode(word.encode()), Some(word));
        }
        assert_eq!(Word::decode(0xff), None);
    }
}
