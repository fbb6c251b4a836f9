//! The side that obeys.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};

use super::post::{self, Inbox, LINE, Outbox, Over, Refusal};
use super::{Command, check_name, escape};
use crate::Error;
use crate::channel::Patience;

/// How many commands are sorted at once; what is beyond waits in the FIFO or the queue.
const SORTED: usize = 1024;
/// Of so many commands that are carried out, one is the oldest there is, however urgent others are: so none
/// waits for ever.
const TURNS: u64 = 16;
/// The longest answer, in bytes; a longer one is cut off. What fits the smallest inbox of a client
/// that is slow to read.
const LONGEST: usize = 24 << 10;
/// How many clients can wait for answers at once.
pub(super) const CLIENTS: u32 = 64;

/// Where the commands for one pipeline arrive.
///
/// It never blocks on a client and never fails because of one: broken, half and endless commands
/// are answered with an error where they say whom to answer, and dropped otherwise.
#[derive(Debug)]
pub struct Server {
    inbox: Inbox,
    base: String,
    /// Those of each priority, in order, with a number that says who came first of all.
    waiting: [VecDeque<(u64, Request)>; Command::PRIORITIES],
    held: usize,
    arrived: u64,
    served: u64,
    malformed: u64,
}

impl Server {
    /// Takes commands for `pipeline`, over a FIFO if that can be had, else over a message queue.
    ///
    /// # Errors
    /// `AlreadyExists` while a living server of that name is there; `PermissionDenied` or `NotOurs`
    /// when the name is another user's; what else keeps both a FIFO and a queue from being made.
    pub fn bind(pipeline: &str) -> Result<Server, Error> {
        match Server::bind_over(pipeline, Over::Fifo) {
            Err(
                error
                @ (Error::AlreadyExists { .. } | Error::NotOurs { .. } | Error::Config { .. }),
            ) => Err(error),
            // One that is there and refuses us is another user's: that is no reason to go round it.
            Err(error @ Error::PermissionDenied { .. })
                if std::path::Path::new(&post::address(Over::Fifo, &format!("{pipeline}.ctl")))
                    .exists() =>
            {
                Err(error)
            }
            Err(first) => Server::bind_over(pipeline, Over::Queue).map_err(|_| first),
            bound => bound,
        }
    }

    /// As [`bind`](Server::bind), over the one given.
    ///
    /// # Errors
    /// As [`bind`](Server::bind).
    pub fn bind_over(pipeline: &str, over: Over) -> Result<Server, Error> {
        check_name(pipeline)?;
        let base = format!("{pipeline}.ctl");
        // A live server may be on the other kind of post.
        let other = match over {
            Over::Fifo => Over::Queue,
            Over::Queue => Over::Fifo,
        };
        let taken = || Error::AlreadyExists {
            what: "control server",
            name: pipeline.into(),
        };
        match Outbox::open(other, &base) {
            Ok(Some(_)) => return Err(taken()),
            Err(error @ (Error::PermissionDenied { .. } | Error::NotOurs { .. })) => {
                return Err(error);
            }
            Ok(None) | Err(_) => {}
        }
        let inbox = Inbox::create(over, &base).map_err(|refusal| match refusal {
            Refusal::Taken => taken(),
            Refusal::Failed(error) => error,
        })?;
        Ok(Server {
            inbox,
            base,
            waiting: Default::default(),
            held: 0,
            arrived: 0,
            served: 0,
            malformed: 0,
        })
    }

    /// What it listens on: a path, or a queue's name.
    pub fn address(&self) -> &str {
        self.inbox.address()
    }

    /// Whether that is a FIFO or a queue.
    pub fn over(&self) -> Over {
        self.inbox.over()
    }

    /// How many lines were no commands.
    pub fn malformed(&self) -> u64 {
        self.malformed
    }

    /// The most urgent command that has arrived, and now and then the oldest. Does not block. When the descriptor is readable,
    /// call this until it says `None`.
    #[allow(clippy::should_implement_trait)] // it does not end at None
    pub fn next(&mut self) -> Option<Request> {
        while self.held < SORTED {
            match self.inbox.line() {
                Ok(Some(line)) => self.take(&line),
                // Nothing more, or nothing that can be read: what has arrived is still served.
                Ok(None) | Err(_) => break,
            }
        }
        self.served += 1;
        let there = self.waiting.iter_mut().filter(|queue| !queue.is_empty());
        let next = if self.served.is_multiple_of(TURNS) {
            there.min_by_key(|queue| queue[0].0)
        } else {
            there.last()
        };
        let (_, request) = next?.pop_front()?;
        self.held -= 1;
        Some(request)
    }

    /// As [`next`](Server::next), waiting as long as `patience` says.
    pub fn wait(&mut self, patience: Patience) -> Option<Request> {
        loop {
            if let Some(request) = self.next() {
                return Some(request);
            }
            if !post::wait_for_any(&self.inbox, patience) {
                return self.next();
            }
        }
    }

    fn take(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_matches(['\n', '\r', ' ']);
        let (reply, command) = match text.strip_prefix('@') {
            None => (None, text),
            Some(rest) => {
                let mut words = rest.splitn(3, ' ');
                let client = words.next().and_then(|n| n.parse::<u32>().ok());
                let id = words.next().and_then(|n| n.parse::<u64>().ok());
                match (client, id) {
                    (Some(client), Some(id)) if client < CLIENTS => {
                        let over = self.inbox.over();
                        let base = format!("{}.{client}", self.base);
                        (Some(ReplyTo { over, base, id }), words.next().unwrap_or(""))
                    }
                    _ => {
                        self.malformed += 1;
                        return;
                    }
                }
            }
        };
        match command.parse::<Command>() {
            Ok(command) => {
                self.arrived += 1;
                let queue = &mut self.waiting[command.priority() as usize];
                queue.push_back((self.arrived, Request { command, reply }));
                self.held += 1;
            }
            Err(error) => {
                self.malformed += 1;
                if let Some(reply) = reply {
                    reply.send(Err(&error.to_string()));
                }
            }
        }
    }
}

impl AsFd for Server {
    /// Readable when a command has arrived.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inbox.as_fd()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Not all in a flood: whoever is not answered sees that nobody is there any more.
        for _ in 0..SORTED {
            let Some(request) = self.next() else { break };
            request.reply(Err("the pipeline has ended"));
        }
        // Clients that were killed leave their inboxes behind.
        for client in 0..CLIENTS {
            let base = format!("{}.{client}", self.base);
            if matches!(Outbox::open(self.inbox.over(), &base), Ok(None)) {
                let over = self.inbox.over();
                let _ = post::remove_if_abandoned(over, &post::address(over, &base));
            }
        }
    }
}

/// A command and whom to answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    command: Command,
    reply: Option<ReplyTo>,
}

#[derive(Debug, PartialEq, Eq)]
struct ReplyTo {
    over: Over,
    base: String,
    id: u64,
}

impl Request {
    /// What is asked for.
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// Answers: done, or why not. Does not block; a client that is dead, gone or not reading loses
    /// its answer. An answer of more than 24 KiB is cut off.
    pub fn reply(self, answer: Result<&str, &str>) {
        if let Some(reply) = self.reply {
            reply.send(answer);
        }
    }
}

impl ReplyTo {
    fn send(&self, answer: Result<&str, &str>) {
        let Ok(Some(outbox)) = Outbox::open(self.over, &self.base) else {
            return;
        };
        let (last, text) = match answer {
            Ok(text) => ('+', text),
            Err(text) => ('-', text),
        };
        let text = escape(&text[..boundary(text, LONGEST)]);
        let room = LINE - 32;
        let mut rest = text.as_str();
        loop {
            let (chunk, after) = rest.split_at(boundary(rest, room));
            let kind = if after.is_empty() { last } else { '=' };
            let line = format!("\n{} {kind}{chunk}\n", self.id);
            if !matches!(outbox.put(line.as_bytes(), 0), Ok(true)) || after.is_empty() {
                return;
            }
            rest = after;
        }
    }
}

/// The last place at or before `at` where `text` can be cut.
fn boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
