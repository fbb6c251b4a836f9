//! What a subcommand fails with: one clear line on standard error.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

/// A failure of a subcommand: a line for the user and an exit status.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    status: u8,
}

impl Failure {
    /// A failure with exit status 1.
    pub(crate) fn new(message: impl Display) -> Failure {
        Failure {
            message: message.to_string(),
            status: 1,
        }
    }

    /// A failure of `what`: an endpoint, a file, ... for errors that do not name it.
    pub(crate) fn of(what: impl Display, error: impl Display) -> Failure {
        Failure::new(format_args!("{what}: {error}"))
    }

    /// A failure with an exit status of its own.
    pub(crate) fn with_status(message: impl Display, status: u8) -> Failure {
        Failure {
            message: message.to_string(),
            status,
        }
    }

    /// Prints the line and gives the exit status. A closed pipe is quiet.
    pub(crate) fn report(self) -> ExitCode {
        if !self.message.is_empty() {
            // Where nobody reads it, the status says enough.
            let _ = writeln!(std::io::stderr(), "ringway: {}", self.message);
        }
        ExitCode::from(self.status)
    }
}

impl From<crate::Error> for Failure {
    fn from(error: crate::Error) -> Failure {
        Failure::new(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            // Whoever read our output has had enough: end quietly, as `yes | head` does.
            return Failure {
                message: String::new(),
                status: 0,
            };
        }
        Failure::new(error)
    }
}
