//! Fan-out to plain programs that keep running (`-j N --persistent`): whole lines go to whichever
//! worker has room, and whole lines are collected from all of them.
//!
//! For programs that take long to start. What a worker that dies had read is lost, as under
//! a shell: the stage then fails.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::chunks::Statuses;
use super::fan::{Job, order};
use crate::Error;
use crate::os::memory;
use crate::os::process::{self, Child, End};

/// Bytes read from a worker at once, and the room of the pipes to and from it.
const ROOM: usize = 256 << 10;
/// How long until the distributor looks again for a worker that has room.
const BUSY: Duration = Duration::from_millis(1);

/// Hands out the job's input to workers that all run until it ends.
pub(super) fn run(job: Job) -> Result<End, Error> {
    let name = job.program.name.to_string_lossy().into_owned();
    match distribute(&job, &name) {
        Ok(end) => Ok(end),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            Ok(End::Killed(process::SIGPIPE))
        }
        Err(error) => Err(Error::os("run", name, error)),
    }
}

fn distribute(job: &Job, name: &str) -> io::Result<End> {
    let mut workers = Vec::new();
    let mut pipes = Vec::new();
    for _ in 0..job.workers {
        let (stdin, to) = process::pipe(ROOM)?;
        let (from, stdout) = process::pipe(ROOM)?;
        workers.push(
            job.program
                .start_worker(stdin.as_fd(), stdout.as_fd(), &[])?,
        );
        pipes.push((to, from));
    }
    let output = Mutex::new(&job.output);
    let (give, take) = sync_channel(job.workers);
    // Each feeder has a share: when the last has ended, giving fails.
    let take = Arc::new(Mutex::new(take));
    let collected = std::thread::scope(|scope| {
        let collectors: Vec<_> = pipes
            .into_iter()
            .map(|(to, from)| {
                let take = Arc::clone(&take);
                scope.spawn(move || feed(to, &take));
                scope.spawn(|| collect(from, &output))
            })
            .collect();
        drop(take);
        let ordered = read(job, give, &workers);
        if !matches!(ordered, Ok(None)) {
            workers
                .iter()
                .for_each(|worker| worker.signal(process::SIGKILL));
        }
        let collected: io::Result<Vec<()>> = collectors
            .into_iter()
            .map(|collector| collector.join().unwrap_or(Err(io::ErrorKind::Other.into())))
            .collect();
        ordered.and_then(|end| collected.map(|_| end))
    });
    let mut statuses = Statuses::of(name);
    let mut killed = None;
    for worker in &mut workers {
        match worker.wait()? {
            End::Exited(status) => statuses.add(status),
            end @ End::Killed(_) => killed = Some(end),
        }
    }
    Ok(collected?
        .or(killed)
        .unwrap_or(End::Exited(statuses.value())))
}

/// Reads the input to its end, or until told otherwise: an end is that of the stage.
fn read(job: &Job, give: SyncSender<Vec<u8>>, workers: &[Child]) -> io::Result<Option<End>> {
    let mut pending = Vec::new();
    let mut full: Option<Vec<u8>> = None;
    loop {
        let watched = [
            Some(job.orders.as_fd()),
            full.is_none().then(|| job.input.as_fd()),
        ];
        let ready = process::poll(&watched, full.as_ref().map(|_| BUSY))?;
        if ready[0] {
            let signal = |signal| workers.iter().for_each(|worker| worker.signal(signal));
            match job.order() {
                order::PAUSE => signal(process::SIGSTOP),
                order::RESUME => signal(process::SIGCONT),
                order::DRAIN => return Ok(None),
                _ => return Ok(Some(End::Killed(process::SIGTERM))),
            }
        }
        if ready[1] {
            let len = pending.len();
            pending.resize(len + job.block.min(ROOM), 0);
            let read = process::read(job.input.as_fd(), &mut pending[len..])?;
            pending.truncate(len + read);
            if read == 0 {
                full = Some(std::mem::take(&mut pending)).filter(|rest| !rest.is_empty());
                while let Some(rest) = full.take() {
                    match give.try_send(rest) {
                        Err(TrySendError::Full(rest)) => full = Some(rest),
                        Ok(()) | Err(TrySendError::Disconnected(_)) => break,
                    }
                    std::thread::sleep(BUSY);
                }
                return Ok(None);
            }
            if let Some(at) = memory::find_last(b'\n', &pending[len..]) {
                let rest = pending.split_off(len + at + 1);
                full = Some(std::mem::replace(&mut pending, rest));
            }
        }
        if let Some(chunk) = full.take() {
            match give.try_send(chunk) {
                Ok(()) => {}
                Err(TrySendError::Full(chunk)) => full = Some(chunk),
                // No worker reads any more.
                Err(TrySendError::Disconnected(_)) => return Ok(None),
            }
        }
    }
}

/// Gives a worker its input until there is no more, or it takes no more.
fn feed(to: OwnedFd, chunks: &Mutex<Receiver<Vec<u8>>>) {
    process::ignore_broken_pipes();
    let mut to = File::from(to);
    loop {
        let chunk = match chunks.lock() {
            Ok(chunks) => chunks.recv(),
            Err(_) => return,
        };
        match chunk {
            Ok(chunk) if to.write_all(&chunk).is_ok() => {}
            _ => return,
        }
    }
}

/// Passes on a worker's output, whole lines at a time.
fn collect(from: OwnedFd, output: &Mutex<&File>) -> io::Result<()> {
    process::ignore_broken_pipes();
    let mut pending = Vec::new();
    let pass_on = |bytes: &[u8]| match output.lock() {
        Ok(mut output) => output.write_all(bytes),
        Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
    };
    loop {
        let len = pending.len();
        pending.resize(len + ROOM, 0);
        let read = process::read(from.as_fd(), &mut pending[len..])?;
        pending.truncate(len + read);
        if read == 0 {
            return pass_on(&pending);
        }
        if let Some(at) = memory::find_last(b'\n', &pending[len..]) {
            pass_on(&pending[..len + at + 1])?;
            pending.drain(..len + at + 1);
        }
    }
}
