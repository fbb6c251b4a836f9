//! Control of a running pipeline from outside: commands over a FIFO or a message queue.
//!
//! A [`Server`] belongs to whoever supervises the pipeline; a [`Client`] sends it one of the
//! [`Command`]s and waits for the answer. Whoever may open the FIFO or queue (mode 0600: the same
//! user, or root as that user) may command; everybody else is refused by the kernel.
//!
//! A command is a line of text, so that a shell will do where there is no client:
//! `echo stop > /tmp/ringway.NAME.ctl`. The directory is `/tmp`, or `$RINGWAY_DIR` if that is set
//! (for both sides).
//!
//! ```
//! use ringway::channel::Patience;
//! use ringway::control::{Client, Command, Server};
//!
//! let name = format!("doc-{}", std::process::id());
//! let mut server = Server::bind(&name)?;
//! let serving = std::thread::spawn(move || {
//!     while let Some(request) = server.wait(Patience::Forever) {
//!         match request.command().clone() {
//!             Command::Ping => request.reply(Ok("pong")),
//!             Command::Stop => return request.reply(Ok("stopping")),
//!             other => {
//!                 let why = format!("{other} is not for me");
//!                 request.reply(Err(&why));
//!             }
//!         }
//!     }
//! });
//! let mut client = Client::connect(&name)?;
//! assert_eq!(client.request(&Command::Ping, Patience::Forever)?, "pong");
//! assert_eq!(client.request(&Command::Stop, Patience::Forever)?, "stopping");
//! serving.join().expect("the server has removed its FIFO");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt;
use std::str::FromStr;

mod client;
mod post;
mod server;

pub use client::{Client, RequestError};
pub use post::Over;
#[cfg(feature = "cli")]
pub(crate) use post::remove_if_abandoned;
pub use server::{Request, Server};

use crate::Error;

/// What a pipeline can be told.
///
/// Printing a command and parsing it give each other back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Answer.
    Ping,
    /// Tell the statistics.
    Stats,
    /// Let no message through until told to resume.
    Pause,
    /// Go on.
    Resume,
    /// Take no new input, finish what is under way, then end.
    Drain,
    /// End now.
    Stop,
    /// Replace a stage, named by its number (from 1) or its program, by a fresh process.
    Restart(String),
    /// Change a setting.
    Set {
        /// Its name.
        key: String,
        /// What it is to be.
        value: String,
    },
}

/// What [`Command`]'s parser says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}; the commands are: ping, stats, pause, resume, drain, stop, restart STAGE, set KEY VALUE"
)]
pub struct BadCommand(String);

impl Command {
    /// How many priorities there are.
    const PRIORITIES: usize = 8;

    /// Those of a higher priority are answered first, whatever came before them: stop before all.
    pub fn priority(&self) -> u32 {
        match self {
            Command::Stop => 7,
            Command::Drain => 6,
            Command::Pause => 5,
            Command::Resume => 4,
            Command::Restart(_) => 3,
            Command::Set { .. } => 2,
            Command::Stats => 1,
            Command::Ping => 0,
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Command::Ping => f.write_str("ping"),
            Command::Stats => f.write_str("stats"),
            Command::Pause => f.write_str("pause"),
            Command::Resume => f.write_str("resume"),
            Command::Drain => f.write_str("drain"),
            Command::Stop => f.write_str("stop"),
            Command::Restart(stage) => write!(f, "restart {}", escape(stage)),
            Command::Set { key, value } => write!(f, "set {} {}", escape(key), escape(value)),
        }
    }
}

impl FromStr for Command {
    type Err = BadCommand;

    fn from_str(text: &str) -> Result<Command, BadCommand> {
        let text = text.trim_matches([' ', '\t', '\r']);
        let mut words = text.splitn(3, ' ');
        let verb = words.next().unwrap_or_default();
        let arguments: Vec<String> = words
            .map(|word| unescape(word.trim_matches(' ')))
            .filter(|word| !word.is_empty())
            .collect();
        let command = match (verb, arguments.as_slice()) {
            ("ping", []) => Command::Ping,
            ("stats", []) => Command::Stats,
            ("pause", []) => Command::Pause,
            ("resume", []) => Command::Resume,
            ("drain", []) => Command::Drain,
            ("stop", []) => Command::Stop,
            ("restart", [stage]) => Command::Restart(stage.clone()),
            ("set", [key, value]) => Command::Set {
                key: key.clone(),
                value: value.clone(),
            },
            ("restart", []) => return Err(BadCommand("restart needs a stage".into())),
            ("set", _) => return Err(BadCommand("set needs a key and a value".into())),
            ("ping" | "stats" | "pause" | "resume" | "drain" | "stop" | "restart", _) => {
                return Err(BadCommand(format!("too many words after {verb}")));
            }
            ("", _) => return Err(BadCommand("an empty command".into())),
            _ => {
                let shown: String = verb.chars().take(40).collect();
                return Err(BadCommand(format!("{shown:?} is no command")));
            }
        };
        Ok(command)
    }
}

/// Makes text fit for a line: newlines and the like become escapes.
pub(crate) fn escape(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            ' ' => line.push_str("\\s"),
            '\t' => line.push_str("\\t"),
            '\0' => line.push_str("\\0"),
            c => line.push(c),
        }
    }
    line
}

/// Undoes [`escape`]; an escape that it does not make stands for itself.
fn unescape(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => text.push('\n'),
            Some('r') => text.push('\r'),
            Some('s') => text.push(' '),
            Some('t') => text.push('\t'),
            Some('0') => text.push('\0'),
            Some('\\') | None => text.push('\\'),
            Some(other) => text.extend(['\\', other]),
        }
    }
    text
}

/// Refuses a pipeline's name that cannot be part of a file's.
fn check_name(name: &str) -> Result<(), Error> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !name.is_empty() && name.len() <= 64 && name.chars().all(fine) {
        return Ok(());
    }
    Err(Error::Config {
        what: "pipeline name",
        value: format!("{name:?}"),
        why: "it cannot be part of a file name".into(),
        remedy: "use 1 to 64 letters, digits, dots, dashes and underscores".into(),
    })
}
