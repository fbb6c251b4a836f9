//! Real-time signals that carry messages.
//!
//! A queued signal carries eight bytes; a message goes in as many as it needs. The kernel's queue of
//! signals is limited (`RLIMIT_SIGPENDING`, shared by all processes of the user), and a full one
//! refuses: so a sender has at most 256 signals under way, which the receiver acknowledges, by
//! signals too, as it takes them, and where the queue is full for others' sake the sender waits.
//! Nothing is lost.
//!
//! A receiver is found by its name, or by the id of its process. The name is that of a thread, as
//! `/proc` shows it: nothing is created in any file system, and nothing can be left there. To send a
//! signal to a process one must have the same user (or be root).
//!
//! It is the slowest of the mechanisms for anything but the shortest messages.
//!
//! ```
//! use ringway::channel::{Receiver, Sender, signal};
//!
//! let name = format!("doc-signal-{}", std::process::id());
//! let mut rx = signal::Receiver::open(&name)?;
//! let mut tx = signal::Sender::open(&name)?; // or signal::Sender::attach(process id)
//! tx.send(b"hello")?;
//! let mut message = Vec::new();
//! rx.recv(&mut message)?;
//! assert_eq!(message, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use super::{Boundaries, Capabilities, Notice, Patience};
use crate::os::clock::Deadline;
use crate::os::process::Stat;
use crate::os::{self, rtsignal};
use crate::{Error, RecvError, SendError};

mod port;
mod word;

use port::{Event, Port};
use word::Word;

/// The longest message, in bytes.
const MAX_MESSAGE: usize = 64 << 10;
/// How many words may be under way from one sender.
const WINDOW: u32 = 256;
/// How many words are acknowledged at once.
const BATCH: u32 = 64;
/// How often a sender looks for a receiver that is not there yet.
const LOOK: Duration = Duration::from_millis(10);
/// How long one waits when the queue of signals is full.
const PAUSE: Duration = Duration::from_millis(1);

fn capabilities() -> Capabilities {
    Capabilities {
        mechanism: "signal",
        max_message: MAX_MESSAGE,
        unrelated: Some("by name or process id, with the permission to signal it"),
        boundaries: Boundaries::Framed,
        priorities: 1,
        many_senders: true,
        many_receivers: false,
        keeps_messages: false,
        notices: Notice::AtOnce,
    }
}

/// The name of the receiving thread: 15 bytes at most, the kernel allows no more.
fn comm(name: &str) -> String {
    // FNV-1a.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("rw:{:012x}", hash & 0xffff_ffff_ffff)
}

#[derive(Clone, Copy, Debug)]
struct Address {
    process: u32,
    thread: u32,
    user: u32,
}

/// The receiving thread in a process whose name starts with `comm`. One that is ending receives nothing more: its
/// name is free.
fn find_in(process: u32, comm: &str) -> Option<Address> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).ok()?;
    for task in tasks.flatten() {
        let Some(stat) = Stat::read(task.path().join("stat")) else {
            continue;
        };
        if stat.name().starts_with(comm) && !stat.is_ending() {
            return Some(Address {
                process,
                thread: task.file_name().to_str()?.parse().ok()?,
                user: std::fs::metadata(format!("/proc/{process}")).ok()?.uid(),
            });
        }
    }
    None
}

/// The receiver of that name; one of this user's if there are several.
fn find(name: &str) -> Option<Address> {
    let comm = comm(name);
    let me = os::inode::effective_user();
    let mut strange = None;
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        match find_in(process, &comm) {
            Some(address) if address.user == me => return Some(address),
            Some(address) => strange = Some(address),
            None => {}
        }
    }
    strange
}

#[derive(Clone, Debug)]
enum Target {
    Name(String),
    Process(u32),
}

impl Target {
    fn find(&self) -> Option<Address> {
        match self {
            Target::Name(name) => find(name),
            Target::Process(process) => find_in(*process, "rw:"),
        }
    }

    fn name(&self) -> String {
        match self {
            Target::Name(name) => name.clone(),
            Target::Process(process) => format!("process {process}"),
        }
    }
}

/// The sending end.
#[derive(Debug)]
pub struct Sender {
    target: Target,
    link: Link,
    /// A message of which so many bytes are on their way, when its sender ran out of patience.
    begun: Option<(Vec<u8>, usize)>,
}

#[derive(Debug)]
enum Link {
    Never,
    Up {
        port: Port,
        to: Address,
        /// How many words are under way.
        out: u32,
    },
    /// The receiver is gone: it left (true), or it died.
    Lost(bool),
    Closed,
}

impl Sender {
    /// A sender to the receiver called `name`; if there is none yet, the first send waits for it.
    ///
    /// # Errors
    /// `PermissionDenied` when the receiver is another user's.
    pub fn open(name: &str) -> Result<Sender, Error> {
        Sender::new(Target::Name(name.into()))
    }

    /// A sender to the receiver in process `pid`.
    ///
    /// # Errors
    /// `NotFound` when that process has no receiver; `PermissionDenied` when it is another user's.
    pub fn attach(pid: u32) -> Result<Sender, Error> {
        let sender = Sender::new(Target::Process(pid))?;
        match sender.link {
            Link::Never => Err(Error::NotFound {
                what: "receiver of signals",
                name: format!("process {pid}"),
            }),
            _ => Ok(sender),
        }
    }

    fn new(target: Target) -> Result<Sender, Error> {
        let mut sender = Sender {
            target,
            link: Link::Never,
            begun: None,
        };
        sender.connect()?;
        Ok(sender)
    }

    /// Introduces itself to the receiver, if it is there.
    fn connect(&mut self) -> Result<(), Error> {
        let (Link::Never | Link::Lost(_)) = self.link else {
            return Ok(());
        };
        let Some(to) = self.target.find() else {
            return Ok(());
        };
        let failed = |op| {
            let name = self.target.name();
            move |error| Error::os(op, name, error)
        };
        let port = Port::open("rw-ack", Some(to.process)).map_err(failed("signalfd"))?;
        let hello = Word::Hello(std::process::id()).encode();
        match rtsignal::send(to.process, to.thread, port.thread, hello) {
            Ok(true) => self.link = Link::Up { port, to, out: 0 },
            Ok(false) => {}
            // It ended just now.
            Err(error) if error.raw_os_error() == Some(os::ESRCH) => {}
            Err(error) => return Err(failed("rt_tgsigqueueinfo")(error)),
        }
        Ok(())
    }

    fn join(&mut self, patience: Patience, deadline: Deadline) -> Result<(), SendError> {
        loop {
            self.connect().map_err(|error| SendError::Os {
                op: "connect",
                source: io::Error::other(error.to_string()),
            })?;
            match self.link {
                Link::Up { .. } => return Ok(()),
                Link::Closed | Link::Lost(true) => return Err(SendError::Closed),
                Link::Lost(false) => return Err(SendError::PeerDied),
                Link::Never if patience == Patience::Now || deadline.passed() => {
                    return Err(patience.full());
                }
                Link::Never => std::thread::sleep(deadline.left().unwrap_or(LOOK).min(LOOK)),
            }
        }
    }

    /// Takes in what the receiver said. False when it is gone.
    fn listen(&mut self) -> Result<(), SendError> {
        let Link::Up { port, to, out } = &mut self.link else {
            return Ok(());
        };
        let mut gone = None;
        while let Some(event) = port.next() {
            match event {
                Event::Dead(_) => gone = gone.or(Some(false)),
                Event::Word(word) if word.from == to.thread => match Word::decode(word.value) {
                    Some(Word::Ack(count)) => *out = out.saturating_sub(count),
                    Some(Word::Leave) => gone = Some(true),
                    _ => {}
                },
                Event::Word(_) => {}
            }
        }
        match gone {
            None => Ok(()),
            Some(left) => Err(self.lose(left)),
        }
    }

    fn lose(&mut self, left: bool) -> SendError {
        self.link = Link::Lost(left);
        self.begun = None;
        if left {
            SendError::Closed
        } else {
            SendError::PeerDied
        }
    }

    /// Sends a word; false when there is no room for it now.
    fn put(&mut self, word: Word) -> Result<bool, SendError> {
        self.listen()?;
        let Link::Up { port, to, out } = &mut self.link else {
            return Err(SendError::Closed);
        };
        let counted = matches!(word, Word::Data { .. });
        if counted && *out >= WINDOW {
            return Ok(false);
        }
        match rtsignal::send(to.process, to.thread, port.thread, word.encode()) {
            Ok(true) => {
                *out += u32::from(counted);
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(error) if error.raw_os_error() == Some(os::ESRCH) => {
                // Its thread has ended. If it said why, that is here already or comes right now.
                port.wait(Deadline::after(Duration::from_millis(100)));
                self.listen()?;
                Err(self.lose(false))
            }
            Err(source) => Err(SendError::Os {
                op: "rt_tgsigqueueinfo",
                source,
            }),
        }
    }

    /// Waits until there may be room.
    fn wait(&mut self, patience: Patience, deadline: Deadline) -> Result<(), SendError> {
        if patience == Patience::Now || deadline.passed() {
            return Err(patience.full());
        }
        if let Link::Up { port, out, .. } = &self.link {
            if *out >= WINDOW {
                port.wait(deadline);
            } else {
                // The queue of signals is full; nothing tells when it no longer is.
                port.wait(deadline.at_most(PAUSE.as_nanos() as u64));
            }
        }
        Ok(())
    }

    fn transmit(
        &mut self,
        message: &[u8],
        patience: Patience,
        deadline: Deadline,
    ) -> Result<(), SendError> {
        let mut sent = 0;
        match &self.begun {
            Some((begun, done)) if begun == message => sent = *done,
            Some(_) => {
                while !self.put(Word::Abort)? {
                    self.wait(patience, deadline)?;
                }
            }
            None => {}
        }
        self.begun = None;
        loop {
            let (word, count) = Word::data(&message[sent..]);
            let refused = match self.put(word) {
                Ok(true) => {
                    sent += count;
                    if sent == message.len() {
                        return Ok(());
                    }
                    continue;
                }
                Ok(false) => self.wait(patience, deadline),
                Err(error) => Err(error),
            };
            // However it failed: the receiver keeps what went before.
            if let Err(error) = refused {
                if sent > 0 {
                    self.begun = Some((message.to_vec(), sent));
                }
                return Err(error);
            }
        }
    }
}

/// Sends a word that must arrive, unless the queue of signals stays full.
fn insist(to: Address, from: u32, word: Word) {
    let deadline = Deadline::after(Duration::from_millis(200));
    while let Ok(false) = rtsignal::send(to.process, to.thread, from, word.encode()) {
        if deadline.passed() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

impl super::Sender for Sender {
    fn send_with(&mut self, message: &[u8], patience: Patience) -> Result<(), SendError> {
        if message.len() > MAX_MESSAGE {
            return Err(SendError::MessageTooLarge {
                len: message.len(),
                max: MAX_MESSAGE,
            });
        }
        if matches!(&self.link, Link::Up { port, .. } if !port.is_here()) {
            return Err(SendError::Forked);
        }
        let deadline = patience.deadline();
        self.join(patience, deadline)?;
        self.transmit(message, patience, deadline)
    }

    fn close(&mut self) {
        if let Link::Up { port, to, .. } = std::mem::replace(&mut self.link, Link::Closed)
            && port.is_here()
        {
            if self.begun.take().is_some() {
                insist(to, port.thread, Word::Abort);
            }
            insist(to, port.thread, Word::Leave);
        }
    }

    fn capabilities(&self) -> Capabilities {
        capabilities()
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        super::Sender::close(self);
    }
}

/// The receiving end.
#[derive(Debug)]
pub struct Receiver {
    port: Option<Port>,
    senders: HashMap<u32, Connection>,
    /// What became of the last sender, once all are gone: it left (true), or it died.
    gone: Option<bool>,
}

#[derive(Debug)]
struct Connection {
    process: u32,
    message: Vec<u8>,
    /// The message is longer than may be: its rest is not kept.
    endless: bool,
    /// Words taken and not yet acknowledged.
    owed: u32,
}

impl Receiver {
    /// A receiver called `name`.
    ///
    /// # Errors
    /// `RoleTaken` when a process has a receiver of that name; `NoRoom` when the process has no
    /// descriptors left (3 are needed, and 1 for each sender).
    pub fn open(name: &str) -> Result<Receiver, Error> {
        if let Some(other) = find(name).filter(|it| it.user == os::inode::effective_user()) {
            return Err(Error::RoleTaken {
                name: name.into(),
                role: "receiver",
                pid: other.process,
            });
        }
        let port =
            Port::open(&comm(name), None).map_err(|error| Error::os("signalfd", name, error))?;
        Ok(Receiver {
            port: Some(port),
            senders: HashMap::new(),
            gone: None,
        })
    }

    /// Handles one event; true when it completed a message.
    fn handle(&mut self, event: Event, into: &mut Vec<u8>) -> Result<bool, RecvError> {
        let word = match event {
            Event::Word(word) => word,
            Event::Dead(process) => {
                let before = self.senders.len();
                self.senders.retain(|_, sender| sender.process != process);
                if self.senders.len() < before && self.gone.is_none() {
                    self.gone = Some(false);
                }
                return Ok(false);
            }
        };
        match Word::decode(word.value) {
            Some(Word::Hello(process)) => {
                self.gone = None;
                self.senders.insert(
                    word.from,
                    Connection {
                        process,
                        message: Vec::new(),
                        endless: false,
                        owed: 0,
                    },
                );
            }
            Some(Word::Data { bytes, count, last }) => {
                let Some(sender) = self.senders.get_mut(&word.from) else {
                    return Ok(false);
                };
                sender.owed += 1;
                if sender.message.len() + count > MAX_MESSAGE {
                    sender.endless = true;
                }
                if !sender.endless {
                    sender.message.extend_from_slice(&bytes[..count]);
                }
                if last {
                    let message = std::mem::take(&mut sender.message);
                    if std::mem::take(&mut sender.endless) {
                        return Err(RecvError::Corrupt {
                            what: "a message without end",
                            offset: 0,
                        });
                    }
                    *into = message;
                    return Ok(true);
                }
            }
            Some(Word::Abort) => {
                if let Some(sender) = self.senders.get_mut(&word.from) {
                    sender.message.clear();
                    sender.endless = false;
                }
            }
            Some(Word::Leave) => {
                if self.senders.remove(&word.from).is_some() {
                    self.gone = Some(true);
                }
            }
            Some(Word::Ack(_)) | None => {}
        }
        Ok(false)
    }

    /// Acknowledges what is due; false when the queue of signals is full.
    fn acknowledge(&mut self, port: &Port) -> bool {
        let mut all = true;
        for (thread, sender) in &mut self.senders {
            if sender.owed >= BATCH {
                let ack = Word::Ack(sender.owed).encode();
                // One that is gone needs none, and its end is told otherwise.
                match rtsignal::send(sender.process, *thread, port.thread, ack) {
                    Ok(false) => all = false,
                    Ok(true) | Err(_) => sender.owed = 0,
                }
            }
        }
        all
    }

    fn receive(
        &mut self,
        port: &Port,
        into: &mut Vec<u8>,
        patience: Patience,
    ) -> Result<(), RecvError> {
        let deadline = patience.deadline();
        loop {
            while let Some(event) = port.next() {
                let complete = self.handle(event, into)?;
                if self.senders.values().any(|sender| sender.owed >= BATCH) {
                    self.acknowledge(port);
                }
                if complete {
                    return Ok(());
                }
            }
            match self.gone {
                Some(true) if self.senders.is_empty() => return Err(RecvError::Closed),
                Some(false) if self.senders.is_empty() => return Err(RecvError::PeerDied),
                _ => {}
            }
            let told = self.acknowledge(port);
            if patience == Patience::Now || deadline.passed() {
                return Err(patience.empty());
            }
            if told {
                port.wait(deadline);
            } else {
                port.wait(deadline.at_most(PAUSE.as_nanos() as u64));
            }
        }
    }
}

impl super::Receiver for Receiver {
    fn recv_with(&mut self, into: &mut Vec<u8>, patience: Patience) -> Result<(), RecvError> {
        let port = self.port.take().ok_or(RecvError::Closed)?;
        let result = if port.is_here() {
            self.receive(&port, into, patience)
        } else {
            Err(RecvError::Forked)
        };
        self.port = Some(port);
        result
    }

    fn close(&mut self) {
        let Some(port) = self.port.take() else { return };
        if !port.is_here() {
            return;
        }
        // Those who are not known yet but have introduced themselves are told as well.
        while let Some(event) = port.next() {
            let _ = self.handle(event, &mut Vec::new());
        }
        for (&thread, sender) in &self.senders {
            let to = Address {
                process: sender.process,
                thread,
                user: 0,
            };
            insist(to, port.thread, Word::Leave);
        }
        self.senders.clear();
    }

    fn capabilities(&self) -> Capabilities {
        capabilities()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        super::Receiver::close(self);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A thread that was joined stands in `/proc` for a moment more, longer where processors are scarce. An
    /// ended process that nobody has waited for shows the same for as long as one likes to look.
    #[test]
    fn the_name_of_a_thread_that_has_ended_is_free() {
        let directory = tempfile::tempdir().unwrap();
        let name = comm("ended");
        let program = directory.path().join(&name);
        std::os::unix::fs::symlink("/bin/sleep", &program).unwrap();
        let mut child = Command::new(&program).arg("1000").spawn().unwrap();
        let process = child.id();
        assert!(find_in(process, &name).is_some());
        child.kill().unwrap();
        let stat = || Stat::of(process).unwrap();
        while stat().field(3) != Some('Z') {
            std::thread::yield_now();
        }
        assert_eq!(stat().name(), name);
        assert!(find_in(process, &name).is_none());
        child.wait().unwrap();
    }
}
