//! Fan-out to plain programs (`-j N`): chunks of whole lines, one run of the program a chunk.
//!
//! A run gets its chunk as a file in memory for its standard input, and another one for its
//! output, which is passed on only once the run has ended by itself. So a run that was killed has
//! done nothing, and its chunk can simply be done again. No byte goes through a pipe to a worker;
//! one thread hands out, watches and collects, and blocks only in `poll` (and in writing to the
//! next stage, which is back-pressure).

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use super::Event;
use super::fan::{Job, order};
use crate::Error;
use crate::os::memory;
use crate::os::process::{self, Child, End};

/// Programs whose status 1 says "nothing found" and not "failed": over all chunks, one find is
/// a find.
const SEARCHES: &[&str] = &["grep", "egrep", "fgrep", "zgrep", "rg", "ag", "ack"];

/// How many chunks a worker may be ahead of the one that is passed on next, in order.
const AHEAD: u64 = 8;

struct Chunk {
    number: u64,
    input: File,
    /// Its last line has no end: what comes of it has to come last.
    open: bool,
    tries: u32,
}

struct Run {
    chunk: Chunk,
    output: File,
    child: Child,
}

struct Chunks {
    job: Job,
    /// Bytes read that are not handed out yet.
    pending: Vec<u8>,
    /// Behind the last line end in `pending`.
    whole: usize,
    /// All input was read, or no more is wanted.
    ended: bool,
    next: u64,
    running: Vec<Run>,
    /// Chunks whose run was killed: they come before any new one.
    again: VecDeque<Chunk>,
    /// Outputs that wait for those before them, when the order is kept.
    done: BTreeMap<u64, File>,
    /// The chunk to be passed on next, when the order is kept.
    release: u64,
    /// The output of the chunk that has to come last.
    tail: Option<File>,
    /// Inputs to be used again: their memory is there already.
    spare: Vec<File>,
    statuses: Statuses,
}

/// Hands out the job's input in chunks until all is done or has failed for good.
pub(super) fn run(job: Job) -> Result<End, Error> {
    let name = job.program.name.to_string_lossy().into_owned();
    let mut chunks = Chunks {
        pending: Vec::new(),
        whole: 0,
        ended: false,
        next: 0,
        running: Vec::with_capacity(job.workers),
        again: VecDeque::new(),
        done: BTreeMap::new(),
        release: 0,
        tail: None,
        spare: Vec::new(),
        statuses: Statuses::of(&name),
        job,
    };
    let end = chunks.work();
    for run in &mut chunks.running {
        run.child.signal(process::SIGKILL);
        let _ = run.child.wait();
    }
    match end {
        Ok(end) => Ok(end),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            Ok(End::Killed(process::SIGPIPE))
        }
        Err(error) => Err(Error::os("run", name, error)),
    }
}

impl Chunks {
    fn work(&mut self) -> io::Result<End> {
        loop {
            self.start_runs()?;
            // With nothing running and no more to come, `start_runs` found nothing left.
            if self.ended && self.running.is_empty() {
                if let Some(tail) = self.tail.take() {
                    self.pass_on(&tail)?;
                }
                return Ok(End::Exited(self.statuses.value()));
            }
            let wanted = !self.ended && !self.has_chunk();
            let mut watched = vec![
                Some(self.job.orders.as_fd()),
                wanted.then(|| self.job.input.as_fd()),
            ];
            watched.extend(self.running.iter().map(|run| Some(run.child.as_fd())));
            let ready = process::poll(&watched, None)?;
            if ready[0]
                && let Some(end) = self.obey()?
            {
                return Ok(end);
            }
            if ready[1] {
                self.read()?;
            }
            // From the back, so that removing one leaves the others where `ready` has them.
            for index in (0..ready.len() - 2).rev() {
                if ready[2 + index]
                    && let Some(end) = self.running[index].child.end()?
                {
                    let run = self.running.swap_remove(index);
                    if let Some(end) = self.finish(run, end)? {
                        return Ok(end);
                    }
                }
            }
        }
    }

    /// Does as ordered; an end is one at once.
    fn obey(&mut self) -> io::Result<Option<End>> {
        match self.job.order() {
            order::PAUSE => {
                self.running
                    .iter()
                    .for_each(|run| run.child.signal(process::SIGSTOP));
                let end = self.obey()?;
                self.running
                    .iter()
                    .for_each(|run| run.child.signal(process::SIGCONT));
                Ok(end)
            }
            order::RESUME => Ok(None),
            order::DRAIN => {
                self.ended = true;
                Ok(None)
            }
            _ => Ok(Some(End::Killed(process::SIGTERM))),
        }
    }

    fn has_chunk(&self) -> bool {
        self.whole > 0 && self.pending.len() >= self.job.block
    }

    /// Takes in what input there is: up to a chunk, or with a longer line, up to its end.
    fn read(&mut self) -> io::Result<()> {
        let len = self.pending.len();
        let room = self.job.block.saturating_sub(len).max(64 << 10);
        self.pending.resize(len + room, 0);
        let read = process::read(self.job.input.as_fd(), &mut self.pending[len..]);
        self.pending.truncate(len + *read.as_ref().unwrap_or(&0));
        self.ended |= read? == 0;
        if let Some(at) = memory::find_last(b'\n', &self.pending[len..]) {
            self.whole = len + at + 1;
        }
        Ok(())
    }

    /// Gives every free worker a chunk, as far as there are any.
    fn start_runs(&mut self) -> io::Result<()> {
        while self.running.len() < self.job.workers {
            let Some(chunk) = self.take_chunk()? else {
                return Ok(());
            };
            (&chunk.input).rewind()?;
            let output = process::memory_file(c"ringway output")?;
            let child = self.job.program.start_worker(
                chunk.input.as_fd(),
                output.as_fd(),
                &[
                    ("RINGWAY_CHUNK", Some(chunk.number.to_string().into())),
                    ("RINGWAY_TRY", Some(chunk.tries.to_string().into())),
                ],
            )?;
            self.running.push(Run {
                chunk,
                output,
                child,
            });
        }
        Ok(())
    }

    fn take_chunk(&mut self) -> io::Result<Option<Chunk>> {
        if let Some(chunk) = self.again.pop_front() {
            return Ok(Some(chunk));
        }
        if self.job.keep_order && self.next >= self.release + AHEAD * self.job.workers as u64 {
            return Ok(None);
        }
        let len = if self.has_chunk() {
            self.whole
        } else if self.ended && (!self.pending.is_empty() || self.next == 0) {
            // What is left; and for no input at all one run, as the shell does it.
            self.pending.len()
        } else {
            return Ok(None);
        };
        let input = match self.spare.pop() {
            Some(file) => file,
            None => process::memory_file(c"ringway chunk")?,
        };
        input.write_all_at(&self.pending[..len], 0)?;
        input.set_len(len as u64)?;
        let open = len > 0 && self.pending[len - 1] != b'\n';
        self.pending.drain(..len);
        self.whole = 0;
        let number = self.next;
        self.next += 1;
        Ok(Some(Chunk {
            number,
            input,
            open,
            tries: 0,
        }))
    }

    /// Passes on the output of a run that ended by itself, and has the chunk of any other done
    /// again; an end is that of the stage.
    fn finish(&mut self, run: Run, end: End) -> io::Result<Option<End>> {
        let Run {
            mut chunk, output, ..
        } = run;
        let status = match end {
            End::Exited(status) => status,
            End::Killed(signal) => {
                if chunk.tries == self.job.restarts {
                    return Ok(Some(end));
                }
                chunk.tries += 1;
                let _ = self.job.events.send(Event::ChunkRedone {
                    stage: self.job.stage,
                    chunk: chunk.number,
                    signal,
                });
                self.again.push_back(chunk);
                return Ok(None);
            }
        };
        self.statuses.add(status);
        self.spare.push(chunk.input);
        if !self.job.keep_order {
            if chunk.open {
                self.tail = Some(output);
                return Ok(None);
            }
            self.pass_on(&output)?;
            return Ok(None);
        }
        self.done.insert(chunk.number, output);
        while let Some(output) = self.done.remove(&self.release) {
            self.pass_on(&output)?;
            self.release += 1;
        }
        Ok(None)
    }

    fn pass_on(&self, output: &File) -> io::Result<()> {
        let len = output.metadata()?.len();
        match process::send_file(output, self.job.output.as_fd(), len) {
            // The kernel does not do it for every kind of file (one opened to append, say).
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                (&*output).rewind()?;
                let mut buffer = vec![0; 128 << 10];
                loop {
                    let read = (&*output).read(&mut buffer)?;
                    if read == 0 {
                        return Ok(());
                    }
                    (&self.job.output).write_all(&buffer[..read])?;
                }
            }
            result => result.map(drop),
        }
    }
}

/// What the statuses of all runs come to.
pub(super) struct Statuses {
    search: bool,
    least: Option<i32>,
    greatest: i32,
}

impl Statuses {
    pub(super) fn of(program: &str) -> Statuses {
        let name = program.rsplit('/').next().unwrap_or(program);
        Statuses {
            search: SEARCHES.contains(&name),
            least: None,
            greatest: 0,
        }
    }

    pub(super) fn add(&mut self, status: i32) {
        self.least = Some(self.least.map_or(status, |least| least.min(status)));
        self.greatest = self.greatest.max(status);
    }

    pub(super) fn value(&self) -> i32 {
        if self.search && self.greatest == 1 {
            self.least.unwrap_or(0)
        } else {
            self.greatest
        }
    }
}
