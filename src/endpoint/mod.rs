//! Endpoints: a channel in one line of text.
//!
//! | endpoint | channel | options |
//! | --- | --- | --- |
//! | `ring:orders` | the SPSC ring of that name | `capacity`, `mode` |
//! | `mpmc:jobs` | the MPMC ring of that name | `slots`, `slot`: the bytes of one, `mode` |
//! | `bcast:prices` | the broadcast ring of that name: every receiver gets every message | `capacity`, `mode`, `lossy`: 1 if the sender never waits, `expected`: receivers that it waits for (1 unless told), `subscribers`: the most there can be, `history`: the messages that a receiver begins with (unless told, all if it is expected, else none) |
//! | `pipe:` | a pipe inherited as standard input (receiving) or output (sending) | `fd`, `pid`: descriptor FD, of process PID |
//! | `fifo:/run/x` | the FIFO at that path | `mode` |
//! | `unix:/run/x` | the Unix-domain socket at that path | `mode` |
//! | `sem:jobs` | shared memory of that name, guarded by semaphores | `capacity`, `mode`, `named`: 1 for semaphores with names |
//! | `mq:jobs` | the POSIX message queue of that name | `depth`, `message`, `mode` |
//! | `signal:jobs` | signals to the receiver of that name | `pid`: to that process instead |
//! | `auto:jobs` | the best that both ends can use | |
//!
//! Options follow a question mark: `mq:jobs?depth=10&message=4KiB`. Sizes are in bytes, or with a
//! unit (`64K`, `1MiB`, `2GB`; a kilo is 1024); a mode is octal. `%` escapes (`%3F`) stand for characters
//! of a name that would mean something else.
//!
//! ```
//! use ringway::Endpoint;
//! use ringway::channel::{Receiver, Sender};
//!
//! let endpoint: Endpoint = format!("mq:doc-{}?depth=4", std::process::id()).parse()?;
//! let mut tx = endpoint.sender()?;
//! let mut rx = endpoint.receiver()?;
//! tx.send(b"by whatever way")?;
//! let mut message = Vec::new();
//! rx.recv(&mut message)?;
//! assert_eq!(message, b"by whatever way");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::Error;
use crate::broadcast::{Policy, Start};
use crate::channel::{self, Receiver, Sender};

mod auto;
mod list;

pub use auto::{AutoReceiver, AutoSender};
pub(crate) use list::first;
pub use list::{OpenError, Opened, Pair, Refusal, open_pair, open_receiver, open_sender};

/// The mechanism of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Mechanism {
    /// A ring from one producer to one consumer.
    Ring,
    /// A ring from many producers to many consumers.
    Mpmc,
    /// A ring from one producer to many subscribers, each of which gets every message.
    Broadcast,
    /// A pipe.
    Pipe,
    /// A FIFO.
    Fifo,
    /// A Unix-domain socket.
    Unix,
    /// A POSIX message queue.
    Mq,
    /// Shared memory guarded by semaphores.
    Sem,
    /// Real-time signals.
    Signal,
    /// Whatever both ends can use.
    Auto,
}

/// How the value of an option is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    Number,
    Bytes,
    Octal,
}

/// The options of each mechanism.
const OPTIONS: &[(Mechanism, &str, Unit)] = &[
    (Mechanism::Ring, "capacity", Unit::Bytes),
    (Mechanism::Ring, "mode", Unit::Octal),
    (Mechanism::Mpmc, "slots", Unit::Number),
    (Mechanism::Mpmc, "slot", Unit::Bytes),
    (Mechanism::Mpmc, "mode", Unit::Octal),
    (Mechanism::Broadcast, "capacity", Unit::Bytes),
    (Mechanism::Broadcast, "expected", Unit::Number),
    (Mechanism::Broadcast, "history", Unit::Number),
    (Mechanism::Broadcast, "lossy", Unit::Number),
    (Mechanism::Broadcast, "mode", Unit::Octal),
    (Mechanism::Broadcast, "subscribers", Unit::Number),
    (Mechanism::Pipe, "fd", Unit::Number),
    (Mechanism::Pipe, "pid", Unit::Number),
    (Mechanism::Fifo, "mode", Unit::Octal),
    (Mechanism::Unix, "mode", Unit::Octal),
    (Mechanism::Mq, "depth", Unit::Number),
    (Mechanism::Mq, "message", Unit::Bytes),
    (Mechanism::Mq, "mode", Unit::Octal),
    (Mechanism::Sem, "capacity", Unit::Bytes),
    (Mechanism::Sem, "mode", Unit::Octal),
    (Mechanism::Sem, "named", Unit::Number),
    (Mechanism::Signal, "pid", Unit::Number),
];

impl Mechanism {
    /// All of them.
    pub const ALL: &'static [Mechanism] = &[
        Mechanism::Ring,
        Mechanism::Mpmc,
        Mechanism::Broadcast,
        Mechanism::Pipe,
        Mechanism::Fifo,
        Mechanism::Unix,
        Mechanism::Mq,
        Mechanism::Sem,
        Mechanism::Signal,
        Mechanism::Auto,
    ];

    /// Its name in an endpoint.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Ring => "ring",
            Mechanism::Mpmc => "mpmc",
            Mechanism::Broadcast => "bcast",
            Mechanism::Pipe => "pipe",
            Mechanism::Fifo => "fifo",
            Mechanism::Unix => "unix",
            Mechanism::Mq => "mq",
            Mechanism::Sem => "sem",
            Mechanism::Signal => "signal",
            Mechanism::Auto => "auto",
        }
    }

    /// Whether its endpoints need a name.
    pub(crate) fn is_named(self) -> bool {
        self != Mechanism::Pipe
    }

    fn options(self) -> impl Iterator<Item = (&'static str, Unit)> {
        OPTIONS
            .iter()
            .filter(move |(mechanism, ..)| *mechanism == self)
            .map(|(_, key, unit)| (*key, *unit))
    }

    /// How many descriptors one end needs at most.
    pub(crate) fn descriptors(self) -> usize {
        match self {
            Mechanism::Pipe | Mechanism::Mq => 1,
            Mechanism::Fifo | Mechanism::Unix | Mechanism::Sem => 2,
            Mechanism::Ring => 3,
            Mechanism::Mpmc | Mechanism::Broadcast | Mechanism::Signal => 4,
            Mechanism::Auto => 6,
        }
    }
}

/// Names one channel and says how it is made. Printing and parsing give each other back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    mechanism: Mechanism,
    name: String,
    options: BTreeMap<&'static str, u64>,
}

fn bad(value: &str, why: impl Into<String>, remedy: impl Into<String>) -> Error {
    Error::Config {
        what: "endpoint",
        value: format!("{value:?}"),
        why: why.into(),
        remedy: remedy.into(),
    }
}

impl Endpoint {
    /// The endpoint of that name, without options.
    ///
    /// # Errors
    /// `Config` when the mechanism needs a name and gets none, or gets one and needs none.
    pub fn new(mechanism: Mechanism, name: impl Into<String>) -> Result<Endpoint, Error> {
        let name = name.into();
        if mechanism.is_named() == name.is_empty() {
            let shown = format!("{}:{name}", mechanism.name());
            return Err(if name.is_empty() {
                bad(&shown, "it has no name", "put one after the colon")
            } else {
                bad(
                    &shown,
                    "a pipe has no name",
                    "use pipe:?pid=PID&fd=FD, or fifo:PATH",
                )
            });
        }
        Ok(Endpoint {
            mechanism,
            name,
            options: BTreeMap::new(),
        })
    }

    /// What stands for a channel without a name in a report.
    fn nameless(mechanism: Mechanism) -> Endpoint {
        Endpoint {
            mechanism,
            name: String::new(),
            options: BTreeMap::new(),
        }
    }

    /// The same under another name.
    pub(crate) fn renamed(&self, name: String) -> Endpoint {
        Endpoint {
            name,
            ..self.clone()
        }
    }

    /// Sets an option (a size in bytes; a mode as a number).
    ///
    /// # Errors
    /// `Config` when the mechanism has no such option.
    pub fn with(mut self, key: &str, value: u64) -> Result<Endpoint, Error> {
        let Some((key, _)) = self.mechanism.options().find(|(known, _)| *known == key) else {
            let known: Vec<_> = self.mechanism.options().map(|(known, _)| known).collect();
            let remedy = if known.is_empty() {
                "leave it out".to_owned()
            } else {
                format!("it has: {}", known.join(", "))
            };
            let why = format!("{} has no option {key:?}", self.mechanism.name());
            return Err(bad(&self.to_string(), why, remedy));
        };
        self.options.insert(key, value);
        Ok(self)
    }

    /// The mechanism.
    pub fn mechanism(&self) -> Mechanism {
        self.mechanism
    }

    /// The name or path; empty for a pipe.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// An option, if it was given.
    pub fn option(&self, key: &str) -> Option<u64> {
        self.options.get(key).copied()
    }

    pub(crate) fn small(&self, key: &str) -> Result<Option<u32>, Error> {
        self.option(key)
            .map(|value| {
                u32::try_from(value).map_err(|_| {
                    bad(
                        &self.to_string(),
                        format!("{key} is too large"),
                        format!("the largest is {}", u32::MAX),
                    )
                })
            })
            .transpose()
    }

    /// Opens the sending end, making the channel if it is not there.
    ///
    /// # Errors
    /// What keeps the mechanism from being used.
    pub fn sender(&self) -> Result<Box<dyn Sender>, Error> {
        Ok(match self.mechanism {
            Mechanism::Ring => Box::new(channel::ring::Sender::spsc(&self.name, self.spsc()?)?),
            Mechanism::Mpmc => Box::new(channel::ring::Sender::mpmc(&self.name, self.mpmc()?)?),
            Mechanism::Broadcast => {
                let config = self.broadcast()?;
                Box::new(channel::ring::Sender::broadcast(&self.name, config)?)
            }
            Mechanism::Pipe => Box::new(match (self.small("pid")?, self.small("fd")?) {
                (None, fd) => channel::pipe::Sender::inherited(fd.unwrap_or(1))?,
                (Some(pid), fd) => channel::pipe::Sender::attach(pid, fd.unwrap_or(0))?,
            }),
            Mechanism::Fifo => {
                let config = channel::fifo::Config::default();
                let mode = self.small("mode")?.unwrap_or(config.mode);
                Box::new(channel::fifo::Sender::open(self.path(), config.mode(mode))?)
            }
            Mechanism::Unix => Box::new(channel::socket::Sender::open(self.path())?),
            Mechanism::Mq => Box::new(channel::mqueue::Sender::open(&self.name, self.queue()?)?),
            Mechanism::Sem => {
                let config = self.semaphore()?;
                Box::new(channel::semaphore::Sender::open(&self.name, config)?)
            }
            Mechanism::Signal => Box::new(match self.small("pid")? {
                Some(pid) => channel::signal::Sender::attach(pid)?,
                None => channel::signal::Sender::open(&self.name)?,
            }),
            Mechanism::Auto => Box::new(AutoSender::open(&self.name)?),
        })
    }

    /// Opens the receiving end, making the channel if it is not there.
    ///
    /// # Errors
    /// What keeps the mechanism from being used.
    pub fn receiver(&self) -> Result<Box<dyn Receiver>, Error> {
        Ok(match self.mechanism {
            Mechanism::Ring => Box::new(channel::ring::Receiver::spsc(&self.name, self.spsc()?)?),
            Mechanism::Mpmc => Box::new(channel::ring::Receiver::mpmc(&self.name, self.mpmc()?)?),
            Mechanism::Broadcast => {
                let (config, history) = (self.broadcast()?, self.option("history"));
                let start = history.map(Start::Last);
                let name = &self.name;
                Box::new(channel::ring::Receiver::broadcast(name, config, start)?)
            }
            Mechanism::Pipe => Box::new(match (self.small("pid")?, self.small("fd")?) {
                (None, fd) => channel::pipe::Receiver::inherited(fd.unwrap_or(0))?,
                (Some(pid), fd) => channel::pipe::Receiver::attach(pid, fd.unwrap_or(1))?,
            }),
            Mechanism::Fifo => {
                let config = channel::fifo::Config::default();
                let mode = self.small("mode")?.unwrap_or(config.mode);
                Box::new(channel::fifo::Receiver::open(
                    self.path(),
                    config.mode(mode),
                )?)
            }
            Mechanism::Unix => {
                let config = channel::socket::Config::default();
                let mode = self.small("mode")?.unwrap_or(config.mode);
                Box::new(channel::socket::Receiver::open(
                    self.path(),
                    config.mode(mode),
                )?)
            }
            Mechanism::Mq => Box::new(channel::mqueue::Receiver::open(&self.name, self.queue()?)?),
            Mechanism::Sem => {
                let config = self.semaphore()?;
                Box::new(channel::semaphore::Receiver::open(&self.name, config)?)
            }
            Mechanism::Signal => Box::new(channel::signal::Receiver::open(&self.name)?),
            Mechanism::Auto => Box::new(AutoReceiver::open(&self.name)?),
        })
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(&self.name)
    }

    pub(crate) fn spsc(&self) -> Result<crate::spsc::Config, Error> {
        let mut config = crate::spsc::Config::default();
        if let Some(capacity) = self.option("capacity") {
            config = config.capacity(capacity);
        }
        if let Some(mode) = self.small("mode")? {
            config = config.mode(mode);
        }
        Ok(config)
    }

    pub(crate) fn mpmc(&self) -> Result<crate::mpmc::Config, Error> {
        let mut config = crate::mpmc::Config::default();
        if let Some(slots) = self.option("slots") {
            config = config.slots(slots);
        }
        if let Some(slot) = self.option("slot") {
            config = config.slot_size(slot);
        }
        if let Some(mode) = self.small("mode")? {
            config = config.mode(mode);
        }
        Ok(config)
    }

    pub(crate) fn broadcast(&self) -> Result<crate::broadcast::Config, Error> {
        let expected = self.option("expected").unwrap_or(1);
        let mut config = crate::broadcast::Config::default().expected(expected);
        if let Some(capacity) = self.option("capacity") {
            config = config.capacity(capacity);
        }
        if let Some(subscribers) = self.option("subscribers") {
            config = config.subscribers(subscribers);
        }
        if self.option("lossy").is_some_and(|lossy| lossy != 0) {
            config = config.policy(Policy::Lossy);
        }
        if let Some(mode) = self.small("mode")? {
            config = config.mode(mode);
        }
        Ok(config)
    }

    fn semaphore(&self) -> Result<channel::semaphore::Config, Error> {
        let mut config = channel::semaphore::Config::default();
        if let Some(capacity) = self.option("capacity") {
            config.capacity = capacity as usize;
        }
        if let Some(mode) = self.small("mode")? {
            config.mode = mode;
        }
        config.named_semaphores = self.option("named").is_some_and(|named| named != 0);
        Ok(config)
    }

    fn queue(&self) -> Result<channel::mqueue::Config, Error> {
        let mut config = channel::mqueue::Config::default();
        if let Some(depth) = self.option("depth") {
            config.depth = depth as usize;
        }
        if let Some(message) = self.option("message") {
            config.message = message as usize;
        }
        if let Some(mode) = self.small("mode")? {
            config.mode = mode;
        }
        Ok(config)
    }
}

const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

fn print(value: u64, unit: Unit) -> String {
    match unit {
        Unit::Number => value.to_string(),
        Unit::Octal => format!("{value:04o}"),
        Unit::Bytes => UNITS
            .iter()
            .find(|(_, size)| value > 0 && value.is_multiple_of(*size))
            .map_or_else(
                || value.to_string(),
                |(name, size)| format!("{}{name}", value / size),
            ),
    }
}

fn parse(text: &str, unit: Unit) -> Option<u64> {
    match unit {
        Unit::Number => text.parse().ok(),
        Unit::Octal => u64::from_str_radix(text, 8).ok(),
        Unit::Bytes => parse_bytes(text),
    }
}

/// Reads a number of bytes as people write it: `4096`, `64K`, `1MB`, `2GiB`; a kilo is 1024.
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.mechanism.name())?;
        for c in self.name.chars() {
            match c {
                '?' | '%' | '\0'..=' ' | '\x7f' => write!(f, "%{:02X}", c as u32)?,
                c => write!(f, "{c}")?,
            }
        }
        let mut separator = '?';
        for (key, value) in &self.options {
            let unit = self.mechanism.options().find(|(known, _)| known == key);
            let value = print(*value, unit.map_or(Unit::Number, |(_, unit)| unit));
            write!(f, "{separator}{key}={value}")?;
            separator = '&';
        }
        Ok(())
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Endpoint, Error> {
        let kinds = || {
            let names: Vec<_> = Mechanism::ALL.iter().map(|it| it.name()).collect();
            format!("write MECHANISM:NAME, with one of: {}", names.join(", "))
        };
        let (mechanism, rest) = text
            .split_once(':')
            .ok_or_else(|| bad(text, "it has no colon", kinds()))?;
        let mechanism = Mechanism::ALL
            .iter()
            .find(|known| known.name() == mechanism)
            .ok_or_else(|| bad(text, format!("{mechanism:?} is no mechanism"), kinds()))?;
        let (name, options) = match rest.split_once('?') {
            Some((name, options)) => (name, Some(options)),
            None => (rest, None),
        };
        let name = unescape(name).ok_or_else(|| {
            bad(
                text,
                "a % that escapes nothing",
                "write %25 for a percent sign",
            )
        })?;
        let mut endpoint = Endpoint::new(*mechanism, name)?;
        for option in options.into_iter().flat_map(|options| options.split('&')) {
            let (key, value) = option.split_once('=').ok_or_else(|| {
                bad(
                    text,
                    format!("option {option:?} has no value"),
                    "write KEY=VALUE",
                )
            })?;
            let unit = mechanism.options().find(|(known, _)| *known == key);
            let unit = unit.map_or(Unit::Number, |(_, unit)| unit);
            // An unknown key is refused before its value is looked at.
            endpoint = endpoint.with(key, 0)?;
            let value = parse(value, unit).ok_or_else(|| {
                let form = match unit {
                    Unit::Number => "a number",
                    Unit::Bytes => "a number of bytes, such as 4096, 64K or 1MiB",
                    Unit::Octal => "an octal number, such as 0600",
                };
                bad(text, format!("{key} is {value:?}"), format!("write {form}"))
            })?;
            endpoint = endpoint.with(key, value)?;
        }
        Ok(endpoint)
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}
