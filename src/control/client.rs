//! The side that commands.

use std::hash::{BuildHasher, RandomState};

use super::post::{self, Inbox, LINE, Outbox, Over, Refusal};
use super::server::CLIENTS;
use super::{Command, check_name, unescape};
use crate::Error;
use crate::channel::Patience;

/// A connection to the server of one pipeline.
#[derive(Debug)]
pub struct Client {
    inbox: Inbox,
    outbox: Outbox,
    number: u32,
    last_id: u64,
}

/// Why a command was not answered, or was refused.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The server says no.
    #[error("{0}")]
    Refused(String),
    /// No answer came in time.
    #[error("timed out: the pipeline did not answer in time; it may be stopped or very busy")]
    TimedOut,
    /// The server has ended.
    #[error("the pipeline has ended")]
    Gone,
    /// The command does not fit a line.
    #[error("a command of {0} bytes is too long; the longest is 4000")]
    TooLong(usize),
    /// A system call failed.
    #[error("{op}: {source}")]
    Os {
        /// What failed.
        op: &'static str,
        /// The error of the operating system.
        source: std::io::Error,
    },
}

crate::error::debug_is_display!(RequestError);

impl Client {
    /// Connects to the server of `pipeline`, whichever it listens on.
    ///
    /// # Errors
    /// `NotFound` when there is no living server; `PermissionDenied` or `NotOurs` when it is another
    /// user's; `TooManyParticipants` when 64 clients are waiting for answers.
    pub fn connect(pipeline: &str) -> Result<Client, Error> {
        check_name(pipeline)?;
        let base = format!("{pipeline}.ctl");
        for over in [Over::Fifo, Over::Queue] {
            match Outbox::open(over, &base) {
                Ok(Some(outbox)) => return Client::join(outbox, over, &base),
                Ok(None) => {}
                // There may be no queues on this machine; then there is none of that name.
                Err(Error::Os { .. }) if over == Over::Queue => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::NotFound {
            what: "running pipeline",
            name: pipeline.into(),
        })
    }

    fn join(outbox: Outbox, over: Over, base: &str) -> Result<Client, Error> {
        for number in 0..CLIENTS {
            match Inbox::create(over, &format!("{base}.{number}")) {
                Ok(inbox) => {
                    return Ok(Client {
                        inbox,
                        outbox,
                        number,
                        // Answers to a former client of this number are not taken for ours.
                        last_id: RandomState::new().hash_one(number) >> 1,
                    });
                }
                Err(Refusal::Taken) => {}
                Err(Refusal::Failed(error)) => return Err(error),
            }
        }
        Err(Error::TooManyParticipants {
            name: base.into(),
            max: CLIENTS as usize,
        })
    }

    /// Sends `command` and waits for the answer as long as `patience` says (with
    /// [`Patience::Now`], not at all: the answer is then lost).
    ///
    /// # Errors
    /// See [`RequestError`].
    pub fn request(
        &mut self,
        command: &Command,
        patience: Patience,
    ) -> Result<String, RequestError> {
        self.last_id += 1;
        let id = self.last_id;
        // The newline in front ends whatever half command somebody else has left behind.
        let line = format!("\n@{} {id} {command}\n", self.number);
        if line.len() > LINE {
            return Err(RequestError::TooLong(line.len()));
        }
        let deadline = patience.deadline();
        let os_error = |op| move |source| RequestError::Os { op, source };
        loop {
            // Answers to somebody else must not take the room of ours.
            while self.inbox.line().map_err(os_error("read"))?.is_some() {}
            // With `Now`, too, it is tried once.
            match self.outbox.put_soon(line.as_bytes(), command.priority()) {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) if error.raw_os_error() == Some(crate::os::EPIPE) => {
                    return Err(RequestError::Gone);
                }
                Err(error) => return Err(os_error("write")(error)),
            }
            if !self.outbox.is_owned() {
                return Err(RequestError::Gone);
            }
            if deadline.passed() {
                return Err(RequestError::TimedOut);
            }
        }
        let mut answer = String::new();
        loop {
            // Looked at before reading: an answer given just before the end is still found.
            let owned = self.outbox.is_owned();
            while let Some(line) = self.inbox.line().map_err(os_error("read"))? {
                let line = String::from_utf8_lossy(&line);
                let Some((number, rest)) = line.trim_matches('\n').split_once(' ') else {
                    continue;
                };
                if number.parse() != Ok(id) {
                    continue;
                }
                let mut rest = rest.chars();
                let kind = rest.next();
                answer.push_str(rest.as_str());
                match kind {
                    Some('+') => return Ok(unescape(&answer)),
                    Some('-') => return Err(RequestError::Refused(unescape(&answer))),
                    _ => {}
                }
            }
            if !owned {
                return Err(RequestError::Gone);
            }
            let more = post::wait_for_line(&self.inbox, &self.outbox, deadline);
            if !more.map_err(os_error("poll"))? {
                return Err(RequestError::TimedOut);
            }
        }
    }
}
