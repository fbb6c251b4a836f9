//! What of Ringway's is on this machine: rings, queues, FIFOs, sockets, semaphores, pipelines.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;

use super::Failure;
use crate::Error;
use crate::mapping::PREFIX;
use crate::observe::{Counters, Observer, Participant, Presence, Snapshot};
use crate::os::{self, facts};

mod classic;
mod process;
mod removal;

pub(crate) use process::{Openers, process};
pub(crate) use removal::{Outcome, remove};

/// Where named rings live.
const SHM: &str = "/dev/shm";

/// One thing that was found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Thing {
    /// What it is.
    pub(crate) kind: Kind,
    /// As the tool takes it: a ring's name, or `mq:NAME`, `fifo:PATH`, ...
    pub(crate) name: String,
    /// Its file, or the queue's name.
    pub(crate) path: String,
    /// Whose it is.
    pub(crate) owner: String,
    /// Bytes that it takes.
    pub(crate) bytes: u64,
    /// How much of it is in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fill: Option<Fill>,
    /// Whether it is in use.
    pub(crate) state: State,
    /// Why it cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    /// Seconds since it was made.
    pub(crate) age: u64,
    pub(crate) participants: Vec<Attendee>,
    /// Device and inode: what it is, whatever it is called.
    #[serde(skip)]
    pub(crate) id: (u64, u64),
}

/// What kinds of things there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Spsc,
    Mpmc,
    Broadcast,
    /// A file of ours that cannot be read.
    Ring,
    Semaphores,
    Semaphore,
    Queue,
    Fifo,
    Socket,
    Meeting,
    Pipeline,
    Inbox,
}

impl Kind {
    /// The word for it in a table.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Kind::Spsc => "spsc",
            Kind::Mpmc => "mpmc",
            Kind::Broadcast => "broadcast",
            Kind::Ring => "ring",
            Kind::Semaphores => "sem",
            Kind::Semaphore => "semaphore",
            Kind::Queue => "queue",
            Kind::Fifo => "fifo",
            Kind::Socket => "socket",
            Kind::Meeting => "auto",
            Kind::Pipeline => "pipeline",
            Kind::Inbox => "ctl client",
        }
    }

    pub(crate) fn is_ring(self) -> bool {
        matches!(self, Kind::Spsc | Kind::Mpmc | Kind::Broadcast)
    }
}

/// Whether a thing is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// Somebody is attached.
    Live,
    /// Nobody is, and messages wait in it for whoever comes.
    Undelivered,
    /// Nobody is, and nothing is in it.
    Dead,
    /// It cannot be told.
    Unknown,
}

impl State {
    pub(crate) fn word(self) -> &'static str {
        match self {
            State::Live => "live",
            State::Undelivered => "undelivered",
            State::Dead => "dead",
            State::Unknown => "unknown",
        }
    }
}

/// How full something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Fill {
    /// Messages that wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) messages: Option<u64>,
    /// What is in use, of `capacity`.
    pub(crate) used: u64,
    pub(crate) capacity: u64,
}

/// One who takes part.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Attendee {
    pub(crate) role: &'static str,
    pub(crate) pid: u32,
    /// "running", "sleeping", "stopped", ... or "died", "left", "elsewhere" (another pid namespace).
    pub(crate) state: &'static str,
    /// Its program and arguments.
    pub(crate) command: String,
    /// Seconds since its process started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) age: Option<u64>,
    /// Of participants in rings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) counters: Option<Count>,
}

/// A ring's counters, in JSON.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Count {
    /// Nothing of those who do not count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) messages: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<u64>,
    pub(crate) stalls: u64,
    pub(crate) parks: u64,
    pub(crate) wakes: u64,
    pub(crate) repairs: u64,
    pub(crate) redelivered: u64,
    pub(crate) deaths: u64,
}

impl From<Counters> for Count {
    fn from(counters: Counters) -> Count {
        Count {
            messages: counters.messages,
            bytes: counters.bytes,
            stalls: counters.stalls,
            parks: counters.parks,
            wakes: counters.wakes,
            repairs: counters.repairs,
            redelivered: counters.redelivered,
            deaths: counters.deaths,
        }
    }
}

/// One who takes part in a ring, as a person wants to see it.
pub(crate) fn attendee(participant: &Participant) -> Attendee {
    let known = participant
        .same_namespace
        .then(|| process(participant.pid, participant.start_time))
        .flatten();
    let state = match participant.presence {
        Presence::Alive if !participant.same_namespace => "elsewhere",
        Presence::Alive => known.as_ref().map_or("alive", |process| process.state),
        Presence::Joining => "joining",
        Presence::Left => "left",
        Presence::Died => "died",
    };
    let gone = matches!(participant.presence, Presence::Left | Presence::Died);
    let known = known.filter(|_| !gone);
    Attendee {
        role: participant.role,
        pid: participant.pid,
        state,
        age: known.as_ref().map(|process| process.age),
        command: known.map_or_else(String::new, |process| process.command),
        counters: Some(participant.counters.into()),
    }
}

/// What is the matter with a ring, from one look at it.
pub(crate) fn state_of(snapshot: &Snapshot) -> State {
    match (snapshot.attached, snapshot.used) {
        (true, _) => State::Live,
        (false, 0) => State::Dead,
        (false, _) => State::Undelivered,
    }
}

/// Finds everything of ours: what has a name in `/dev/shm`, in `$RINGWAY_DIR` or `/tmp`, among the
/// message queues, and in `directories`; and rings without a name that processes have open.
pub(crate) fn find(directories: &[PathBuf], openers: &Openers) -> Vec<Thing> {
    let locked = process::locked_files();
    let finder = Finder { openers, locked };
    let mut things = Vec::new();
    let mut seen = Vec::new();
    let own = [PathBuf::from(SHM), os::directory()];
    for directory in own.iter().chain(directories) {
        if seen.contains(&directory) {
            continue;
        }
        seen.push(directory);
        let told = directories.contains(directory);
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            things.extend(finder.look(&entry.path(), told));
        }
    }
    things.extend(finder.queues());
    things.extend(finder.nameless());
    things.sort_by(|one, other| (one.kind, &one.name).cmp(&(other.kind, &other.name)));
    things
}

/// Those in this state that have a name which stays: only those can be left behind.
pub(crate) fn names(things: &[Thing], state: State) -> Vec<&Thing> {
    let is_meant = |thing: &&Thing| thing.state == state && thing.has_name();
    things.iter().filter(is_meant).collect()
}

/// The thing that the tool calls `name`: as [`find`] shows it, or a path.
pub(crate) fn named(name: &str) -> Result<Thing, Failure> {
    // As an endpoint names it, or as the table does.
    let plain = ["ring:", "mpmc:", "bcast:", "broadcast:"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix)?.split('?').next())
        .unwrap_or(name);
    let path = plain.split_once(':').map_or(plain, |(_, path)| path);
    let directory = path
        .contains('/')
        .then(|| Path::new(path).parent())
        .flatten();
    let directory: Vec<PathBuf> = directory
        .filter(|directory| !directory.starts_with("/proc"))
        .map(Path::to_path_buf)
        .into_iter()
        .collect();
    let openers = Openers::find();
    let things = find(&directory, &openers);
    let found = things
        .iter()
        .find(|thing| thing.name == plain)
        .or_else(|| things.iter().find(|thing| thing.path == path));
    if let Some(thing) = found {
        return Ok(thing.clone());
    }
    if !plain.contains(':') {
        // Any other path, and the error that says what is wrong with it.
        let path = crate::observe::path_of(plain)?;
        let observer = Observer::open_path(plain, &path);
        let observer = observer.map_err(|error| match error {
            Error::NotFound { .. } => Failure::new(format!(
                "there is no {plain}; `ringway list` shows what there is"
            )),
            error => error.into(),
        })?;
        let meta = fs::metadata(&path)?;
        let finder = Finder {
            openers: &openers,
            locked: Vec::new(),
        };
        let mut thing = finder.thing(Kind::of(&observer), plain.into(), &path, &meta);
        thing.see(&observer);
        return Ok(thing);
    }
    Err(Failure::new(format!(
        "there is no {plain}; `ringway list` shows what there is"
    )))
}

/// What is looked up once for all things.
struct Finder<'a> {
    openers: &'a Openers,
    locked: Vec<String>,
}

impl Finder<'_> {
    /// What `path` is, if it is ours. `told`: in a directory that the user named, where a ring may have
    /// any name.
    fn look(&self, path: &Path, told: bool) -> Option<Thing> {
        let file_name = path.file_name().and_then(OsStr::to_str)?;
        let meta = fs::symlink_metadata(path).ok()?;
        let plain = file_name.strip_prefix(PREFIX);
        let kind = meta.file_type();
        if path.starts_with(SHM) {
            if let Some(name) = plain.and_then(|name| name.strip_suffix(".semaphore")) {
                return Some(self.semaphores(path, name, &meta));
            }
            if let Some(name) = file_name.strip_prefix("sem.ringway.") {
                return self.lone_semaphore(path, name, &meta);
            }
            return self.ring(path, plain?.into(), &meta, false);
        }
        match plain {
            Some(name) if kind.is_fifo() => Some(self.fifo(path, name, &meta)),
            Some(_) if kind.is_socket() => Some(self.socket(path, &meta)),
            Some(name) if name.ends_with(".auto") => Some(self.meeting(path, name, &meta)),
            _ if told && kind.is_fifo() => Some(self.fifo(path, "", &meta)),
            _ if told && kind.is_file() => self.ring(path, path.display().to_string(), &meta, true),
            _ => None,
        }
    }

    fn thing(&self, kind: Kind, name: String, path: &Path, meta: &fs::Metadata) -> Thing {
        let made = meta.created().or_else(|_| meta.modified());
        let age = made
            .ok()
            .and_then(|made| SystemTime::now().duration_since(made).ok());
        Thing {
            kind,
            name,
            path: path.display().to_string(),
            owner: facts::user_name(meta.uid()),
            bytes: meta.len(),
            fill: None,
            state: State::Unknown,
            why: None,
            age: age.map_or(0, |age| age.as_secs()),
            participants: Vec::new(),
            id: (meta.dev(), meta.ino()),
        }
    }

    /// A ring in the file at `path`; `any`: other files may be there, too.
    fn ring(&self, path: &Path, name: String, meta: &fs::Metadata, any: bool) -> Option<Thing> {
        let observer = match Observer::open_path(&name, path) {
            Ok(observer) => observer,
            Err(Error::NotFound { .. }) => return None,
            Err(_) if any => return None,
            Err(error) => {
                let mut thing = self.thing(Kind::Ring, name, path, meta);
                thing.why = Some(error.to_string());
                return Some(thing);
            }
        };
        let mut thing = self.thing(Kind::of(&observer), name, path, meta);
        thing.see(&observer);
        Some(thing)
    }

    /// Rings without a name, by a descriptor that some process has of each.
    fn nameless(&self) -> Vec<Thing> {
        let find = |opened: &process::Opened| {
            let path = PathBuf::from(format!("/proc/{}/fd/{}", opened.pid, opened.fd));
            let meta = fs::metadata(&path).ok()?;
            self.ring(&path, path.display().to_string(), &meta, true)
        };
        self.openers.memory().iter().filter_map(find).collect()
    }
}

impl Kind {
    /// The kind of the ring that is looked at.
    pub(crate) fn of(observer: &Observer) -> Kind {
        match observer.ring_kind() {
            crate::layout::Kind::Spsc => Kind::Spsc,
            crate::layout::Kind::Mpmc => Kind::Mpmc,
            crate::layout::Kind::Broadcast => Kind::Broadcast,
        }
    }
}

impl Thing {
    /// Whether it has a name, which outlives those who use it. What has none vanishes with them.
    pub(crate) fn has_name(&self) -> bool {
        !self.path.starts_with("/proc/")
    }

    /// Looks at the ring that it is.
    fn see(&mut self, observer: &Observer) {
        self.bytes = observer.memory();
        let age = SystemTime::now().duration_since(observer.created());
        self.age = age.map_or(0, |age| age.as_secs());
        match observer.snapshot() {
            Ok(snapshot) => {
                self.state = match state_of(&snapshot) {
                    State::Live => State::Live,
                    // Nobody changes it any more, and its cursors do not tell all.
                    seen => match observer.is_drained() {
                        Ok(true) => State::Dead,
                        Ok(false) => State::Undelivered,
                        Err(_) => seen,
                    },
                };
                // How many wait cannot be told where it is not by the cursors.
                let hidden = self.state == State::Undelivered && snapshot.used == 0;
                self.fill = Some(Fill {
                    messages: snapshot.waiting.filter(|_| !hidden),
                    used: snapshot.used,
                    capacity: snapshot.capacity,
                });
                self.participants = snapshot.participants.iter().map(attendee).collect();
            }
            Err(error) => self.why = Some(error.to_string()),
        }
    }
}
