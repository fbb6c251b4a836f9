//! The keys that are pressed, from the terminal itself.
//!
//! `crossterm` could read them, and reads a terminal that has gone away for ever: it takes nothing for
//! "not yet", and looks at nothing else meanwhile, signals included.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::os::fd::{AsFd, BorrowedFd};

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A character, or what Ctrl makes of one.
    Byte(u8),
    Escape,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
}

/// The terminal, to read from.
pub(super) struct Keyboard(File);

impl Keyboard {
    pub(super) fn open() -> std::io::Result<Keyboard> {
        let stdin = std::io::stdin();
        Ok(Keyboard(if stdin.is_terminal() {
            stdin.as_fd().try_clone_to_owned()?.into()
        } else {
            File::open("/dev/tty")?
        }))
    }

    /// What was pressed, once there is something to read; nothing if the terminal is gone.
    pub(super) fn read(&mut self) -> Option<Vec<Key>> {
        let mut bytes = [0; 256];
        match self.0.read(&mut bytes) {
            Ok(0) => None,
            Ok(count) => Some(keys(&bytes[..count])),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Some(Vec::new()),
            Err(_) => None,
        }
    }
}

impl AsFd for Keyboard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The keys that a terminal sends these bytes for; those that mean nothing here are left out.
fn keys(mut bytes: &[u8]) -> Vec<Key> {
    const ESCAPE: u8 = 0x1b;
    let mut keys = Vec::new();
    while let Some((&first, rest)) = bytes.split_first() {
        bytes = rest;
        match (first, rest) {
            (ESCAPE, []) => keys.push(Key::Escape),
            // ESC [ or ESC O, numbers, and a letter that ends it.
            (ESCAPE, [b'[' | b'O', body @ ..]) => {
                let end = body.iter().position(|byte| (0x40..0x7f).contains(byte));
                let end = end.unwrap_or(body.len());
                let (numbers, rest) = body.split_at(end);
                bytes = rest.get(1..).unwrap_or_default();
                keys.extend(match (numbers, rest.first()) {
                    (_, Some(b'A')) => Some(Key::Up),
                    (_, Some(b'B')) => Some(Key::Down),
                    (_, Some(b'H')) | (b"1" | b"7", Some(b'~')) => Some(Key::Home),
                    (_, Some(b'F')) | (b"4" | b"8", Some(b'~')) => Some(Key::End),
                    (b"5", Some(b'~')) => Some(Key::PageUp),
                    (b"6", Some(b'~')) => Some(Key::PageDown),
                    _ => None,
                });
            }
            // With Alt.
            (ESCAPE, [_, rest @ ..]) => bytes = rest,
            (byte, _) => keys.push(Key::Byte(byte)),
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::{Key, keys};

    #[test]
    fn keys_are_told_from_what_terminals_send_for_them() {
        assert_eq!(keys(b"q\x03"), [Key::Byte(b'q'), Key::Byte(3)]);
        assert_eq!(keys(b"\x1b"), [Key::Escape]);
        assert_eq!(
            keys(b"\x1b[A\x1bOBr"),
            [Key::Up, Key::Down, Key::Byte(b'r')]
        );
        assert_eq!(keys(b"\x1b[5~\x1b[6~"), [Key::PageUp, Key::PageDown]);
        assert_eq!(keys(b"\x1b[H\x1b[1~\x1b[F\x1b[4~").len(), 4);
        // Of no meaning here, or cut off.
        assert_eq!(keys(b"\x1bq\x1b[200~\x1b["), []);
    }
}
