//! The thread to which a process's signals for one channel end are sent.
//!
//! A signal goes to whichever thread does not block it, and one that nobody blocks ends the process.
//! A library cannot have every thread of its program block a signal. So each end has a thread of its
//! own, which blocks all signals, to which its peer's signals are addressed, and which hands on what
//! they carry. It also watches the processes of the peers.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use super::word;
use crate::os::clock::Deadline;
use crate::os::fork::Mark;
use crate::os::life::Pidfd;
use crate::os::rtsignal::{self, Received};
use crate::os::{self, poll};

/// What arrives at a port.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Word(Received),
    /// The process is dead, and whatever it sent came before this.
    Dead(u32),
}

#[derive(Debug, Default)]
struct Shared {
    events: Mutex<VecDeque<Event>>,
    arrived: Condvar,
}

impl Shared {
    fn events(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The owner's side.
#[derive(Debug)]
pub(super) struct Port {
    shared: Arc<Shared>,
    /// The thread's number: where signals are sent.
    pub(super) thread: u32,
    /// Closed to end the thread.
    stop: Option<OwnedFd>,
    handle: Option<JoinHandle<()>>,
    mark: Mark,
}

impl Port {
    /// Starts the thread, under the name `comm` (at most 15 bytes), watching process `peer`.
    pub(super) fn open(comm: &str, peer: Option<u32>) -> io::Result<Port> {
        let shared = Arc::new(Shared::default());
        let (stopped, stop) = os::pipe::pipe()?;
        let watched = peer.map(|peer| (peer, Pidfd::open(peer).ok()));
        let signals = rtsignal::descriptor()?;
        let (ready, started) = mpsc::channel();
        let theirs = shared.clone();
        let thread = std::thread::Builder::new()
            .name(comm.into())
            .stack_size(256 << 10);
        // The thread can be found by its name, and be sent signals, before it runs a line of ours: it
        // must not be born with any signal unblocked.
        let handle = rtsignal::blocked(|| {
            thread.spawn(move || {
                let _ = ready.send(rtsignal::thread());
                serve(&theirs, &signals, &stopped, watched.into_iter().collect());
            })
        })?;
        let thread = started
            .recv()
            .map_err(|_| io::Error::other("the signal thread ended"))?;
        Ok(Port {
            shared,
            thread,
            stop: Some(stop),
            handle: Some(handle),
            mark: Mark::here(),
        })
    }

    /// Whether this is the process whose thread it is.
    pub(super) fn is_here(&self) -> bool {
        self.mark.is_here()
    }

    /// The next event, if one is there.
    pub(super) fn next(&self) -> Option<Event> {
        self.shared.events().pop_front()
    }

    /// Waits until there is an event or the time has passed.
    pub(super) fn wait(&self, deadline: Deadline) {
        let mut events = self.shared.events();
        while events.is_empty() && !deadline.passed() {
            events = match deadline.left() {
                None => self
                    .shared
                    .arrived
                    .wait(events)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    self.shared
                        .arrived
                        .wait_timeout(events, left)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
            };
        }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let here = self.is_here();
        self.stop = None;
        if let Some(handle) = self.handle.take()
            && here
        {
            let _ = handle.join();
        }
    }
}

/// What the thread does. A process that cannot be watched (no pidfd) is looked at every so often.
fn serve(
    shared: &Shared,
    signals: &OwnedFd,
    stopped: &OwnedFd,
    mut watched: Vec<(u32, Option<Pidfd>)>,
) {
    let mut received = Vec::new();
    loop {
        let mut fds = vec![stopped.as_raw_fd(), signals.as_raw_fd()];
        let pidfds = watched.iter().filter_map(|(_, pidfd)| pidfd.as_ref());
        fds.extend(pidfds.map(|pidfd| pidfd.as_fd().as_raw_fd()));
        let blind = watched.iter().any(|(_, pidfd)| pidfd.is_none());
        let deadline = if blind {
            Deadline::NEVER.at_most(50_000_000)
        } else {
            Deadline::NEVER
        };
        let Ok(ready) = poll::which(&fds, deadline) else {
            return;
        };
        if ready[0] {
            return;
        }
        // First who is dead, then what is there: so all that the dead one sent comes before its
        // death.
        let dead: Vec<u32> = watched
            .iter()
            .filter(|(process, pidfd)| match pidfd {
                Some(pidfd) => pidfd.is_dead(),
                None => !std::path::Path::new(&format!("/proc/{process}")).exists(),
            })
            .map(|(process, _)| *process)
            .collect();
        while rtsignal::receive(signals.as_fd(), &mut received).unwrap_or(false) {}
        for word in &received {
            if let Some(process) = word::hello(word.value)
                && watched.iter().all(|(known, _)| *known != process)
            {
                watched.push((process, Pidfd::open(process).ok()));
            }
        }
        watched.retain(|(process, _)| !dead.contains(process));
        let mut events = shared.events();
        events.extend(received.drain(..).map(Event::Word));
        events.extend(dead.into_iter().map(Event::Dead));
        drop(events);
        shared.arrived.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// What the kernel says of every thread of that name: the signals that it blocks.
    fn masks(comm: &str) -> Vec<u64> {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        tasks
            .filter_map(|task| {
                let status = std::fs::read_to_string(task.path().join("status")).ok()?;
                let field = |name| status.lines().find_map(|line| line.strip_prefix(name));
                // One that has ended is shown with nothing blocked, and as a thread of none.
                let found = field("Name:\t")? == comm && field("Threads:\t")? != "0";
                found.then(|| u64::from_str_radix(field("SigBlk:\t").unwrap(), 16).unwrap())
            })
            .collect()
    }

    /// Whoever finds the name may send a signal at once, which would end the process.
    #[test]
    fn a_thread_that_has_its_name_has_its_signals_blocked() {
        let comm = "rw:born-blocked";
        let done = AtomicBool::new(false);
        let seen = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    drop(Port::open(comm, None).unwrap());
                }
            });
            let mut masks = std::iter::repeat_with(|| masks(comm)).flatten();
            let seen: Vec<_> = masks.by_ref().take(1000).collect();
            done.store(true, Ordering::Relaxed);
            seen
        });
        let bit = 1 << (rtsignal::number() - 1);
        let naked = seen.iter().filter(|mask| **mask & bit == 0).count();
        assert_eq!(naked, 0, "of {}", seen.len());
    }
}
