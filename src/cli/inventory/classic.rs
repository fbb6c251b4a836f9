//! The mechanisms that are no rings: who attends them is told by locks on their inodes.

use std::fs::{self, Metadata};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Attendee, Fill, Finder, Kind, State, Thing, process};
use crate::channel::semaphore;
use crate::os::{self, facts};

/// The mode bits that attendance leaves on an inode.
const ATTENDANCE: u32 = 0o5111;

impl Finder<'_> {
    /// Whether somebody holds a lock on the file, or is known to have it open.
    fn is_used(&self, meta: &Metadata) -> bool {
        let key = facts::lock_key(meta.dev(), meta.ino());
        self.locked.contains(&key) || !self.openers.of(meta.dev(), meta.ino()).is_empty()
    }

    /// Those who have the file open, as far as this user may know.
    fn attendees(
        &self,
        device: u64,
        inode: u64,
        role: fn(bool, bool) -> &'static str,
    ) -> Vec<Attendee> {
        let own = std::process::id();
        let of = |opened: process::Opened| {
            let process = process(opened.pid, 0)?;
            Some(Attendee {
                role: role(opened.reads, opened.writes),
                pid: opened.pid,
                state: process.state,
                age: Some(process.age),
                command: process.command,
                counters: None,
            })
        };
        let all = self.openers.of(device, inode).into_iter();
        all.filter(|opened| opened.pid != own)
            .filter_map(of)
            .collect()
    }

    /// A FIFO: a channel's, a pipeline's, or that of one who commands a pipeline. Never opened here: an
    /// opening end would be somebody's peer.
    pub(super) fn fifo(&self, path: &Path, name: &str, meta: &Metadata) -> Thing {
        let client = name
            .rsplit_once('.')
            .and_then(|(base, number)| Some((base.strip_suffix(".ctl")?, number)))
            .filter(|(_, number)| number.bytes().all(|byte| byte.is_ascii_digit()));
        let (kind, name) = match (name.strip_suffix(".ctl"), client) {
            (Some(pipeline), _) => (Kind::Pipeline, pipeline.to_owned()),
            (_, Some(_)) => (Kind::Inbox, format!("fifo:{}", path.display())),
            _ => (Kind::Fifo, format!("fifo:{}", path.display())),
        };
        let mut thing = self.thing(kind, name, path, meta);
        thing.participants = self.attendees(meta.dev(), meta.ino(), |reads, writes| {
            match (reads, writes) {
                (true, false) => "receiver",
                (false, _) => "sender",
                _ => "both",
            }
        });
        if kind == Kind::Pipeline {
            for participant in &mut thing.participants {
                participant.role = "supervisor";
            }
        }
        thing.state = if self.is_used(meta) {
            State::Live
        } else {
            State::Dead
        };
        thing
    }

    /// A Unix socket. Not connected to: the receiver would take that for a sender.
    pub(super) fn socket(&self, path: &Path, meta: &Metadata) -> Thing {
        let mut thing = self.thing(Kind::Socket, format!("unix:{}", path.display()), path, meta);
        let bound = fs::read_to_string("/proc/net/unix").unwrap_or_default();
        let shown = path.display().to_string();
        let is_bound = bound.lines().any(|line| line.ends_with(&shown));
        thing.state = if is_bound { State::Live } else { State::Dead };
        thing
    }

    /// Where the two ends of `auto:` meet.
    pub(super) fn meeting(&self, path: &Path, name: &str, meta: &Metadata) -> Thing {
        let name = name.strip_suffix(".auto").unwrap_or(name);
        let mut thing = self.thing(Kind::Meeting, format!("auto:{name}"), path, meta);
        thing.participants = self.attendees(meta.dev(), meta.ino(), |_, _| "end");
        thing.state = if self.is_used(meta) {
            State::Live
        } else {
            State::Dead
        };
        thing
    }

    /// A buffer guarded by semaphores.
    pub(super) fn semaphores(&self, path: &Path, name: &str, meta: &Metadata) -> Thing {
        let mut thing = self.thing(Kind::Semaphores, format!("sem:{name}"), path, meta);
        thing.participants = self.attendees(meta.dev(), meta.ino(), |_, _| "end");
        match semaphore::look(path) {
            Ok(look) => {
                thing.fill = Some(Fill {
                    messages: None,
                    used: look.used,
                    capacity: look.capacity,
                });
                thing.state = match (look.attended, look.used) {
                    (true, _) => State::Live,
                    (false, 0) => State::Dead,
                    (false, _) => State::Undelivered,
                };
            }
            Err(error) => thing.why = Some(error.to_string()),
        }
        thing
    }

    /// One of the named semaphores of a buffer whose file is gone.
    pub(super) fn lone_semaphore(&self, path: &Path, name: &str, meta: &Metadata) -> Option<Thing> {
        let (buffer, _) = name.rsplit_once('.')?;
        if Path::new(&format!("/dev/shm/ringway.{buffer}.semaphore")).exists() {
            return None;
        }
        let mut thing = self.thing(Kind::Semaphore, path.display().to_string(), path, meta);
        thing.why = Some("the buffer that it belonged to is gone".into());
        Some(thing)
    }

    /// The message queues that are ours: by their name, or by the marks that our ends leave on them.
    pub(super) fn queues(&self) -> Vec<Thing> {
        let Ok((directory, _mount)) = facts::queues() else {
            return Vec::new();
        };
        let mut things = Vec::new();
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let (Ok(name), Ok(meta)) = (entry.file_name().into_string(), entry.metadata()) else {
                continue;
            };
            if name.starts_with("ringway") || meta.mode() & ATTENDANCE != 0 {
                things.push(self.queue(&name, &meta));
            }
        }
        things
    }

    fn queue(&self, name: &str, meta: &Metadata) -> Thing {
        let path = format!("/{name}");
        let pipeline = name
            .strip_prefix("ringway.")
            .and_then(|name| name.strip_suffix(".ctl"));
        let (kind, shown) = match pipeline {
            Some(pipeline) => (Kind::Pipeline, pipeline.to_owned()),
            None => (Kind::Queue, format!("mq:{name}")),
        };
        let mut thing = self.thing(kind, shown, Path::new(&path), meta);
        thing.participants = self.attendees(meta.dev(), meta.ino(), |_, _| "end");
        let look = os::mqueue::open(&path).and_then(|queue| {
            let geometry = os::mqueue::geometry(queue.as_fd())?;
            // All the bytes on which those who attend, or own it, hold locks.
            let attended = os::inode::is_locked(queue.as_fd(), 0, 1 << 20)?;
            Ok((geometry, attended))
        });
        match look {
            Ok((geometry, attended)) => {
                let waiting = geometry.waiting as u64;
                thing.bytes = (geometry.depth * geometry.message) as u64;
                thing.fill = Some(Fill {
                    messages: Some(waiting),
                    used: waiting,
                    capacity: geometry.depth as u64,
                });
                thing.state = match (attended || !thing.participants.is_empty(), waiting) {
                    (true, _) => State::Live,
                    (false, 0) => State::Dead,
                    (false, _) => State::Undelivered,
                };
            }
            Err(error) => thing.why = Some(error.to_string()),
        }
        thing
    }
}
