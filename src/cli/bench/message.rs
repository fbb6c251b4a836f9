//! What the messages hold, so that a fast wrong answer is an error.
//!
//! A message starts with its number and, from 16 bytes on, ends with a check word made from that
//! number; between them lies a fixed pattern. Numbers and check words are compared for every
//! message; the whole body during the warm-up, and for one message in 1,024 after it (comparing
//! all of it always would measure the comparison).

use super::link::Outcome;

/// How often the whole body is compared while measuring.
const WHOLE_EVERY: u64 = 1024;

/// The check word of message `number`.
#[inline(always)]
fn check_word(number: u64) -> u64 {
    (number ^ 0x5249_4E47_5741_5921).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// A message with its pattern in place.
pub(crate) fn blank(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8 ^ 0xA5).collect()
}

/// Gives `message` its number.
#[inline(always)]
pub(crate) fn stamp(message: &mut [u8], number: u64) {
    let len = message.len();
    if let Some((first, _)) = message.split_first_chunk_mut::<8>() {
        *first = number.to_le_bytes();
        if len >= 16
            && let Some((_, last)) = message.split_last_chunk_mut::<8>()
        {
            *last = check_word(number).to_le_bytes();
        }
    } else {
        message.copy_from_slice(&number.to_le_bytes()[..len]);
    }
}

/// The first word of a message, its number or its time of sending; 0 for one that is too short.
#[inline(always)]
pub(crate) fn first_word(message: &[u8]) -> u64 {
    message
        .first_chunk()
        .map_or(0, |word| u64::from_le_bytes(*word))
}

/// Compares messages with what they must be.
pub(crate) struct Checker {
    pattern: Vec<u8>,
}

impl Checker {
    pub(crate) fn new(size: usize) -> Checker {
        Checker {
            pattern: blank(size),
        }
    }

    /// Checks that `message` is number `number`; its whole body too if `whole`, or if its turn has
    /// come.
    #[inline(always)]
    pub(crate) fn check(&self, message: &[u8], number: u64, whole: bool) -> Outcome<()> {
        let size = self.pattern.len();
        let mut right = message.len() == size;
        if right && size >= 8 {
            right = first_word(message) == number;
            if size >= 16 {
                right &= message
                    .last_chunk()
                    .is_some_and(|word| u64::from_le_bytes(*word) == check_word(number));
            }
        } else if right && size > 0 {
            // Not of nothing: to compare nothing where no memory is takes the C library 50 ns.
            right = message == &number.to_le_bytes()[..size];
        }
        if right && size > 16 && (whole || number.is_multiple_of(WHOLE_EVERY)) {
            right = message[8..size - 8] == self.pattern[8..size - 8];
        }
        if right {
            Ok(())
        } else {
            Err(wrong(message, number, size))
        }
    }
}

/// Says how a message differs.
#[cold]
#[inline(never)]
fn wrong(message: &[u8], number: u64, size: usize) -> super::link::Trouble {
    if message.len() != size {
        format!(
            "message {number} arrived with {} bytes instead of {size}",
            message.len()
        )
        .into()
    } else if size >= 8 && first_word(message) != number {
        format!(
            "message {} arrived where message {number} was due",
            first_word(message)
        )
        .into()
    } else {
        format!("message {number} of {size} bytes arrived with a wrong content").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_damage_is_noticed() {
        for size in [1, 7, 8, 9, 15, 16, 17, 24, 100, 4096] {
            let checker = Checker::new(size);
            let mut message = blank(size);
            stamp(&mut message, 41);
            checker.check(&message, 41, true).unwrap();
            assert!(checker.check(&message, 42, true).is_err(), "number, {size}");
            assert!(
                checker.check(&message[..size - 1], 41, true).is_err(),
                "length, {size}"
            );
            if size > 16 {
                message[size / 2] ^= 1;
                assert!(checker.check(&message, 41, true).is_err(), "body, {size}");
            }
            if size >= 16 {
                message[size / 2] ^= 1;
                message[size - 1] ^= 1;
                assert!(
                    checker.check(&message, 41, false).is_err(),
                    "check word, {size}"
                );
            }
        }
    }

    #[test]
    fn the_body_is_compared_at_its_turn_also_while_measuring() {
        let checker = Checker::new(64);
        let mut message = blank(64);
        stamp(&mut message, 2048);
        message[30] ^= 1;
        assert!(checker.check(&message, 2048, false).is_err());
    }
}
