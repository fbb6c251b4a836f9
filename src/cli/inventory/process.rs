//! What `/proc` knows of processes: for showing only, nothing is decided by it.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::os::process::Stat;

/// Clock ticks in a second, as `/proc` counts: 100 on every Linux.
const TICKS: u64 = 100;

/// What is known of a living process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// Its program and arguments.
    pub(crate) command: String,
    /// What it does: "running", "sleeping", "stopped", ...
    pub(crate) state: &'static str,
    /// Since when, in seconds.
    pub(crate) age: u64,
    /// When it started, in ticks since boot.
    start_time: u64,
}

/// Process `pid`; if `start_time` is not 0, only the one that started then, since numbers are used
/// again.
pub(crate) fn process(pid: u32, start_time: u64) -> Option<Process> {
    let stat = Stat::of(pid)?;
    let state = match stat.field::<char>(3)? {
        'R' => "running",
        'S' | 'I' => "sleeping",
        'D' => "in the kernel",
        'T' => "stopped",
        't' => "traced",
        'Z' | 'X' => "ended",
        _ => "unknown",
    };
    let started: u64 = stat.field(22)?;
    if start_time != 0 && started != start_time {
        return None;
    }
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Process {
        command: command(pid).unwrap_or_else(|| stat.name().to_owned()),
        state,
        age: (uptime as u64).saturating_sub(started / TICKS),
        start_time: started,
    })
}

/// The command line, its program without the directory.
fn command(pid: u32) -> Option<String> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line
        .split(|byte| *byte == 0)
        .filter(|word| !word.is_empty())
        .map(String::from_utf8_lossy);
    let program = words.next()?;
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    Some(words.fold(program, |line, word| line + " " + &word))
}

/// A file that a process has open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) pid: u32,
    pub(crate) fd: u32,
    pub(crate) reads: bool,
    pub(crate) writes: bool,
}

/// Which processes have what open, by device and inode: of the files that Ringway may have to do with,
/// and of the processes that this user may look into.
#[derive(Debug, Default)]
pub(crate) struct Openers {
    by_file: HashMap<(u64, u64), Vec<Opened>>,
    /// One of the descriptors of each memory file of ours.
    memory: Vec<Opened>,
}

impl Openers {
    /// Looks at all processes. Takes about a millisecond for a few hundred.
    pub(crate) fn find() -> Openers {
        let mut openers = Openers::default();
        let numbers = |path: &str| {
            fs::read_dir(path)
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        };
        for pid in numbers("/proc") {
            for fd in numbers(&format!("/proc/{pid}/fd")) {
                openers.look(pid, fd);
            }
        }
        openers
    }

    fn look(&mut self, pid: u32, fd: u32) {
        let path = format!("/proc/{pid}/fd/{fd}");
        let Ok(link) = fs::read_link(&path) else {
            return;
        };
        let Some(link) = link.to_str() else { return };
        // A queue's link is its name in its own file system, with a slash and no directory.
        let is_queue = link.starts_with('/') && !link[1..].contains('/');
        let is_memory = link.starts_with("/memfd:ringway");
        if !is_memory && !is_queue && !link.contains("/ringway.") {
            return;
        }
        let (Ok(meta), Ok(info)) = (
            fs::metadata(&path),
            fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")),
        ) else {
            return;
        };
        let flags = info
            .lines()
            .find_map(|line| line.strip_prefix("flags:"))
            .and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok())
            .unwrap_or(0);
        let opened = Opened {
            pid,
            fd,
            reads: flags & 3 != 1,
            writes: flags & 3 != 0,
        };
        let all = self.by_file.entry((meta.dev(), meta.ino())).or_default();
        if link.starts_with("/memfd:ringway ") {
            // Whoever only looks on, this process too, may not write, and is no sign that a ring is used.
            if !opened.writes {
                return;
            }
            if all.is_empty() {
                self.memory.push(opened.clone());
            }
        }
        all.push(opened);
    }

    /// Who has the file open, each process once.
    pub(crate) fn of(&self, device: u64, inode: u64) -> Vec<Opened> {
        let mut found: Vec<Opened> = Vec::new();
        for opened in self.by_file.get(&(device, inode)).into_iter().flatten() {
            match found.iter_mut().find(|known| known.pid == opened.pid) {
                Some(known) => {
                    known.reads |= opened.reads;
                    known.writes |= opened.writes;
                }
                None => found.push(opened.clone()),
            }
        }
        found
    }

    /// A descriptor of each ring without a name.
    pub(crate) fn memory(&self) -> &[Opened] {
        &self.memory
    }
}

/// The files that somebody holds a lock on, as `/proc/locks` names them.
pub(crate) fn locked_files() -> Vec<String> {
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    locks
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(5).map(str::to_owned))
        .collect()
}
