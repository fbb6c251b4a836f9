//! Programs that want a terminal.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use super::Reaped;

/// A terminal of the given size, and the program in it; what it shows comes from the file returned.
pub fn in_terminal(command: &mut Command, rows: u16, columns: u16) -> (Reaped, File) {
    let size = nix::pty::Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let pty = nix::pty::openpty(Some(&size), None).unwrap();
    // Or the program would have the other end of its own terminal open.
    for fd in [&pty.master, &pty.slave] {
        use nix::fcntl::{FcntlArg, FdFlag, fcntl};
        fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap();
    }
    let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
    let child = command
        .env("TERM", "xterm-256color")
        .stdin(end(&pty.slave))
        .stdout(end(&pty.slave))
        .stderr(end(&pty.slave))
        .spawn()
        .unwrap();
    (Reaped(child), pty.master.into())
}

/// What comes next from a terminal; nothing when no program has it open any more.
///
/// An end is believed when it comes twice: Linux looks whether something is left before it looks
/// whether the other side is closed, and what is left and the close may both come between these two
/// looks (seen once in 320,000 programs).
pub fn next_piece(terminal: &mut File) -> Option<Vec<u8>> {
    let mut piece = vec![0; 4096];
    let mut ends = 0;
    while ends < 2 {
        match terminal.read(&mut piece) {
            Ok(count @ 1..) => {
                piece.truncate(count);
                return Some(piece);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => ends += 1,
        }
    }
    None
}

/// All that comes from a terminal until no program has it open any more.
pub fn until_closed(terminal: &mut File) -> Vec<u8> {
    std::iter::from_fn(|| next_piece(terminal))
        .flatten()
        .collect()
}
