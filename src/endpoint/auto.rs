//! `auto:NAME`: both ends agree on the best mechanism that both can use.
//!
//! They meet at a small file, `/tmp/ringway.NAME.auto` (or in `$RINGWAY_DIR`), for which no shared
//! memory is needed. The sender makes a channel and proposes it; the receiver opens it and agrees,
//! or says why it cannot, and the next is proposed. Nothing is sent before both have it open. Each
//! end holds a lock on a byte of the file, so that the death of one is seen by the other; the last to
//! leave removes it.
//!
//! | state | written by | meaning |
//! | --- | --- | --- |
//! | (empty) | | nobody has proposed anything |
//! | `proposed N ENDPOINT` | sender | it has that one open; a refused one before it has a line of its own |
//! | `refused N ENDPOINT` | receiver | it cannot open it; why is in the last line |
//! | `agreed N ENDPOINT` | receiver | it has it open too: use it |

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use super::list::open_one;
use super::{Endpoint, Mechanism};
use crate::channel::{Boundaries, Capabilities, Notice, Patience, Receiver, Sender};
use crate::os::clock::Deadline;
use crate::os::inode::{self, Token};
use crate::os::pipe::OpenWatch;
use crate::{Error, RecvError, SendError, os};

/// The bytes whose locks show that an end is there.
const SENDER: u64 = 0;
const RECEIVER: u64 = 1;

/// What may be proposed for `name`, the best first.
fn candidates(name: &str) -> Vec<Endpoint> {
    let path = |kind: &str| {
        os::directory()
            .join(format!("ringway.{name}.{kind}"))
            .display()
            .to_string()
    };
    [
        (Mechanism::Ring, format!("{name}.auto")),
        (Mechanism::Sem, format!("{name}.auto")),
        (Mechanism::Unix, path("sock")),
        (Mechanism::Fifo, path("fifo")),
        (Mechanism::Mq, format!("ringway.{name}.auto")),
    ]
    .into_iter()
    .filter_map(|(mechanism, name)| Endpoint::new(mechanism, name).ok())
    .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Proposed,
    Refused,
    Agreed,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Stage::Proposed => "proposed",
            Stage::Refused => "refused",
            Stage::Agreed => "agreed",
        }
    }
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    stage: Stage,
    round: u64,
    endpoint: Endpoint,
    /// The mechanisms refused so far, by whom and why.
    refusals: Vec<String>,
}

impl State {
    fn print(&self) -> String {
        let mut text = format!("{} {} {}\n", self.stage.name(), self.round, self.endpoint);
        for refusal in &self.refusals {
            let _ = writeln!(text, "{}", refusal.replace('\n', " "));
        }
        text
    }

    fn parse(text: &str) -> Option<State> {
        let mut lines = text.lines();
        let mut words = lines.next()?.splitn(3, ' ');
        let stage = words.next()?;
        let stage = [Stage::Proposed, Stage::Refused, Stage::Agreed]
            .into_iter()
            .find(|known| known.name() == stage)?;
        Some(State {
            stage,
            round: words.next()?.parse().ok()?,
            endpoint: words.next()?.parse().ok()?,
            refusals: lines.map(str::to_owned).collect(),
        })
    }
}

/// The meeting place.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    token: Token,
    name: String,
}

impl Place {
    /// Goes there and takes the seat of `byte`.
    fn enter(name: &str, byte: u64) -> Result<Place, Error> {
        let fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.len() > 64 || !name.chars().all(fine) {
            return Err(super::bad(
                &format!("auto:{name}"),
                "the name cannot be part of a file name",
                "use 1 to 64 letters, digits, dots, dashes and underscores",
            ));
        }
        let path = os::directory().join(format!("ringway.{name}.auto"));
        let shown = path.display().to_string();
        let failed = |op| {
            let shown = shown.clone();
            move |error| Error::os(op, shown, error)
        };
        loop {
            let fd = inode::open_file(&path).map_err(failed("open"))?;
            let (_, _, owner) = inode::identity(fd.as_fd()).map_err(failed("fstat"))?;
            if owner != inode::effective_user() {
                return Err(Error::NotOurs {
                    what: "meeting place",
                    name: shown,
                    why: "it belongs to another user".into(),
                });
            }
            if !inode::lock(fd.as_fd(), byte, true).map_err(failed("fcntl"))? {
                return Err(Error::RoleTaken {
                    name: format!("auto:{name}"),
                    role: if byte == SENDER { "sender" } else { "receiver" },
                    pid: 0,
                });
            }
            let guarded = inode::guard(fd.as_fd());
            let there = inode::is_at(fd.as_fd(), &path);
            drop(guarded);
            if there {
                let token = Token::new(fd).map_err(failed("open"))?;
                return Ok(Place {
                    path,
                    token,
                    name: name.into(),
                });
            }
            // The last one of a former pair has just removed it.
        }
    }

    fn file(&self) -> std::io::Result<File> {
        self.token
            .as_fd()
            .try_clone_to_owned()
            .map(|fd: OwnedFd| File::from(fd))
    }

    fn read(&self) -> std::io::Result<Option<State>> {
        let mut file = self.file()?;
        let mut text = String::new();
        file.rewind()?;
        file.take(64 << 10).read_to_string(&mut text)?;
        Ok(State::parse(&text))
    }

    fn write(&self, state: &State) -> std::io::Result<()> {
        let mut file = self.file()?;
        file.rewind()?;
        file.set_len(0)?;
        file.write_all(state.print().as_bytes())
    }

    /// Whether the other end is there.
    fn met(&self, byte: u64) -> bool {
        inode::is_locked(self.token.as_fd(), byte, 1).unwrap_or(false)
    }

    /// Waits until the file may have changed.
    fn wait(&self, watch: &OpenWatch, deadline: Deadline) -> std::io::Result<()> {
        // The watch tells of every change; a death, which changes nothing, is looked for.
        watch.wait(deadline.at_most(50_000_000))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.token.is_here() {
            return;
        }
        let fd = self.token.as_fd();
        let _guard = inode::guard(fd);
        // Under the guard: of two who leave at once, the second sees that the first is gone.
        let _ = inode::unlock_all(fd);
        if !self.met(SENDER) && !self.met(RECEIVER) && inode::is_at(fd, &self.path) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Why no agreement was reached.
enum Failure {
    Later,
    Failed(&'static str, std::io::Error),
}

fn other(error: impl std::fmt::Display) -> std::io::Error {
    std::io::Error::other(error.to_string())
}

/// The sending end of `auto:NAME`.
///
/// It can be opened before there is a receiver; the first send waits for one.
pub struct AutoSender {
    place: Option<Arc<Place>>,
    channel: Option<(Endpoint, Box<dyn Sender>)>,
    /// What was proposed and awaits an answer.
    proposed: Option<State>,
    refusals: Vec<String>,
    next: usize,
    agreed: bool,
}

impl AutoSender {
    /// Goes to the meeting place of `name`.
    ///
    /// # Errors
    /// `RoleTaken` when it has a sender; `PermissionDenied` or `NotOurs` when it is another user's.
    pub fn open(name: &str) -> Result<AutoSender, Error> {
        let place = Place::enter(name, SENDER)?;
        Ok(AutoSender {
            place: Some(Arc::new(place)),
            channel: None,
            proposed: None,
            refusals: Vec::new(),
            next: 0,
            agreed: false,
        })
    }

    /// The mechanism agreed on, once it is, and one line for each that was refused before.
    pub fn agreed(&self) -> Option<(&Endpoint, &[String])> {
        match &self.channel {
            Some((endpoint, _)) if self.agreed => Some((endpoint, &self.refusals)),
            _ => None,
        }
    }

    fn agree(&mut self, patience: Patience, deadline: Deadline) -> Result<(), Failure> {
        let failed = |op| move |error| Failure::Failed(op, error);
        let place = self.place.clone().ok_or(Failure::Later)?;
        let watch = OpenWatch::new(&place.path).map_err(failed("inotify"))?;
        loop {
            let guard = inode::guard(place.token.as_fd());
            let state = place.read().map_err(failed("read"))?;
            let round = state.as_ref().map_or(0, |state| state.round);
            match (&self.proposed, state) {
                (Some(mine), Some(state)) if mine.round == state.round => match state.stage {
                    Stage::Agreed => {
                        self.agreed = true;
                        return Ok(());
                    }
                    Stage::Refused => {
                        self.refusals = state.refusals;
                        self.channel = None;
                        self.proposed = None;
                        self.next += 1;
                        continue;
                    }
                    Stage::Proposed => {}
                },
                // A receiver that outlived its sender still has the agreed one open.
                (None, Some(state)) if state.stage == Stage::Agreed && place.met(RECEIVER) => {
                    if let Ok(channel) = open_one(&state.endpoint, Endpoint::sender) {
                        self.channel = Some((state.endpoint, channel));
                        self.refusals = state.refusals;
                        self.agreed = true;
                        return Ok(());
                    }
                    return Err(Failure::Failed("open", other("the agreed channel is gone")));
                }
                _ => {
                    self.propose(round + 1)?;
                    continue;
                }
            }
            drop(guard);
            if patience == Patience::Now || deadline.passed() {
                return Err(Failure::Later);
            }
            place.wait(&watch, deadline).map_err(failed("poll"))?;
        }
    }

    /// Opens the next candidate that can be opened here, and proposes it.
    fn propose(&mut self, round: u64) -> Result<(), Failure> {
        // What was proposed before and is answered by nobody any more (a receiver was killed while it wrote its
        // answer) may be the next candidate again, and its role is taken as long as it is open here.
        (self.channel, self.proposed) = (None, None);
        let place = self.place.as_ref().ok_or(Failure::Later)?;
        let candidates = candidates(&place.name);
        while let Some(endpoint) = candidates.get(self.next) {
            match open_one(endpoint, Endpoint::sender) {
                Ok(channel) => {
                    let state = State {
                        stage: Stage::Proposed,
                        round,
                        endpoint: endpoint.clone(),
                        refusals: self.refusals.clone(),
                    };
                    place
                        .write(&state)
                        .map_err(|error| Failure::Failed("write", error))?;
                    self.channel = Some((endpoint.clone(), channel));
                    self.proposed = Some(state);
                    return Ok(());
                }
                Err((error, true)) => return Err(Failure::Failed("open", other(error))),
                Err((error, false)) => {
                    self.refusals
                        .push(format!("{endpoint}: refused by the sender: {error}"));
                    self.next += 1;
                }
            }
        }
        Err(Failure::Failed(
            "auto",
            other(format!(
                "no mechanism is left: {}",
                self.refusals.join("; ")
            )),
        ))
    }
}

impl Sender for AutoSender {
    fn send_with(&mut self, message: &[u8], patience: Patience) -> Result<(), SendError> {
        if self.place.is_none() {
            return Err(SendError::Closed);
        }
        let deadline = patience.deadline();
        if !self.agreed {
            self.agree(patience, deadline)
                .map_err(|failure| match failure {
                    Failure::Later => patience.full(),
                    Failure::Failed(op, source) => SendError::Os { op, source },
                })?;
        }
        let Some((_, channel)) = &mut self.channel else {
            return Err(SendError::Closed);
        };
        channel.send_with(message, rest(patience, deadline))
    }

    fn close(&mut self) {
        self.channel = None;
        self.place = None;
    }

    fn capabilities(&self) -> Capabilities {
        capabilities(self.channel.as_ref().map(|(_, it)| it.capabilities()))
    }
}

/// What is left of the patience.
fn rest(patience: Patience, deadline: Deadline) -> Patience {
    match (patience, deadline.left()) {
        (Patience::Within(_), Some(left)) => Patience::Within(left),
        _ => patience,
    }
}

/// Those of the channel agreed on; before that, what holds for each that may be.
fn capabilities(agreed: Option<Capabilities>) -> Capabilities {
    let mut capabilities = agreed.unwrap_or(Capabilities {
        mechanism: "auto",
        max_message: 8192,
        unrelated: Some("by name"),
        boundaries: Boundaries::Framed,
        priorities: 1,
        many_senders: false,
        many_receivers: false,
        keeps_messages: false,
        notices: Notice::Within(std::time::Duration::from_millis(100)),
    });
    // The meeting place has two seats, whatever the mechanism could do.
    capabilities.many_senders = false;
    capabilities.many_receivers = false;
    capabilities
}

/// The receiving end of `auto:NAME`.
pub struct AutoReceiver {
    place: Option<Arc<Place>>,
    channel: Option<(Endpoint, Box<dyn Receiver>)>,
    refusals: Vec<String>,
}

impl AutoReceiver {
    /// Goes to the meeting place of `name`.
    ///
    /// # Errors
    /// `RoleTaken` when it has a receiver; `PermissionDenied` or `NotOurs` when it is another
    /// user's.
    pub fn open(name: &str) -> Result<AutoReceiver, Error> {
        Ok(AutoReceiver {
            place: Some(Arc::new(Place::enter(name, RECEIVER)?)),
            channel: None,
            refusals: Vec::new(),
        })
    }

    /// The mechanism agreed on, once it is, and one line for each that was refused before.
    pub fn agreed(&self) -> Option<(&Endpoint, &[String])> {
        self.channel
            .as_ref()
            .map(|(endpoint, _)| (endpoint, self.refusals.as_slice()))
    }

    fn agree(&mut self, patience: Patience, deadline: Deadline) -> Result<(), Failure> {
        let failed = |op| move |error| Failure::Failed(op, error);
        let place = self.place.clone().ok_or(Failure::Later)?;
        let watch = OpenWatch::new(&place.path).map_err(failed("inotify"))?;
        loop {
            let guard = inode::guard(place.token.as_fd());
            let state = place.read().map_err(failed("read"))?;
            if let Some(mut state) = state
                && (state.stage == Stage::Agreed
                    || state.stage == Stage::Proposed && place.met(SENDER))
            {
                match open_one(&state.endpoint, Endpoint::receiver) {
                    Ok(channel) => {
                        state.stage = Stage::Agreed;
                        place.write(&state).map_err(failed("write"))?;
                        self.refusals = state.refusals;
                        self.channel = Some((state.endpoint, channel));
                        return Ok(());
                    }
                    Err((error, true)) => return Err(Failure::Failed("open", other(error))),
                    Err((error, false)) if state.stage == Stage::Proposed => {
                        let endpoint = &state.endpoint;
                        let line = format!("{endpoint}: refused by the receiver: {error}");
                        state.refusals.push(line);
                        state.stage = Stage::Refused;
                        place.write(&state).map_err(failed("write"))?;
                    }
                    // What a former pair agreed on is of no use: a sender will propose anew.
                    Err((_, false)) => {}
                }
            }
            drop(guard);
            if patience == Patience::Now || deadline.passed() {
                return Err(Failure::Later);
            }
            place.wait(&watch, deadline).map_err(failed("poll"))?;
        }
    }

    /// The channel agreed on, once it is.
    fn channel(
        &mut self,
        patience: Patience,
        deadline: Deadline,
    ) -> Result<&mut dyn Receiver, RecvError> {
        if self.place.is_none() {
            return Err(RecvError::Closed);
        }
        if self.channel.is_none() {
            self.agree(patience, deadline)
                .map_err(|failure| match failure {
                    Failure::Later => patience.empty(),
                    Failure::Failed(op, source) => RecvError::Os { op, source },
                })?;
        }
        match &mut self.channel {
            Some((_, channel)) => Ok(&mut **channel),
            None => Err(RecvError::Closed),
        }
    }
}

impl Receiver for AutoReceiver {
    fn recv_with(&mut self, into: &mut Vec<u8>, patience: Patience) -> Result<(), RecvError> {
        let deadline = patience.deadline();
        let channel = self.channel(patience, deadline)?;
        channel.recv_with(into, rest(patience, deadline))
    }

    fn hold_with(
        &mut self,
        into: &mut Vec<u8>,
        most: u64,
        patience: Patience,
    ) -> Result<(), RecvError> {
        let deadline = patience.deadline();
        let channel = self.channel(patience, deadline)?;
        channel.hold_with(into, most, rest(patience, deadline))
    }

    fn release(&mut self) {
        if let Some((_, channel)) = &mut self.channel {
            channel.release();
        }
    }

    fn close(&mut self) {
        self.channel = None;
        self.place = None;
    }

    fn capabilities(&self) -> Capabilities {
        capabilities(self.channel.as_ref().map(|(_, it)| it.capabilities()))
    }
}
