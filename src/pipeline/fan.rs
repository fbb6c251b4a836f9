//! Fan-out to plain programs: what the ways of handing out work have in common. Each runs on a
//! thread of its own in the supervisor, takes orders through a pipe, and tells what happened
//! through a channel.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use super::{Event, STAGE_VARIABLE};
use crate::Error;
use crate::os::process::{self, Child, End, Spawn};
use crate::stage::{Format, Joint};

/// The orders that a distributor takes, one byte each.
pub(super) mod order {
    pub(in super::super) const PAUSE: u8 = b'p';
    pub(in super::super) const RESUME: u8 = b'c';
    /// Take no more input, do what was read.
    pub(in super::super) const DRAIN: u8 = b'd';
    pub(in super::super) const STOP: u8 = b's';
}

/// A program and its arguments, found and ready to be started any number of times.
#[derive(Clone)]
pub(super) struct Program {
    pub(super) file: PathBuf,
    pub(super) name: OsString,
    pub(super) args: Vec<OsString>,
    pub(super) path: Option<OsString>,
    pub(super) own_group: bool,
    pub(super) ignore_interrupt: bool,
}

impl Program {
    /// The environment it gets: ours, with these variables set or removed.
    pub(super) fn environment(
        &self,
        variables: &[(&'static str, Option<OsString>)],
    ) -> Vec<(&'static str, Option<OsString>)> {
        let mut env = vec![(STAGE_VARIABLE, None)];
        env.extend(self.path.iter().map(|path| ("PATH", Some(path.clone()))));
        env.extend_from_slice(variables);
        env
    }

    /// Starts it as one of several workers.
    pub(super) fn start_worker(
        &self,
        stdin: BorrowedFd<'_>,
        stdout: BorrowedFd<'_>,
        variables: &[(&'static str, Option<OsString>)],
    ) -> io::Result<Child> {
        // One that speaks messages finds a message in each line.
        let lines = ["in", "out"].map(|side| Joint::Stream(Format::Lines).to_text(side));
        let mut variables = variables.to_vec();
        variables.push((STAGE_VARIABLE, Some(lines.join(",").into())));
        process::spawn(&Spawn {
            program: &self.file,
            name: &self.name,
            args: &self.args,
            env: &self.environment(&variables),
            stdin,
            stdout,
            inherit: &[],
            own_group: self.own_group,
            ignore_interrupt: true,
        })
    }
}

/// What a distributor is to do.
pub(super) struct Job {
    /// The stage it works for; the first is 1.
    pub(super) stage: usize,
    pub(super) program: Program,
    pub(super) workers: usize,
    /// Bytes in a chunk.
    pub(super) block: usize,
    /// How often a chunk is done again.
    pub(super) restarts: u32,
    pub(super) keep_order: bool,
    pub(super) input: File,
    pub(super) output: File,
    pub(super) orders: File,
    pub(super) events: Sender<Event>,
}

impl Job {
    /// The next order; its absence (the supervisor has gone) is an order to stop.
    pub(super) fn order(&self) -> u8 {
        let mut byte = [order::STOP];
        loop {
            match (&self.orders).read(&mut byte) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return byte[0],
            }
        }
    }
}

/// The supervisor's side of a distributor.
pub(super) struct Fan {
    thread: Option<JoinHandle<Result<End, Error>>>,
    orders: File,
    done: OwnedFd,
}

impl Fan {
    /// Starts the thread; `work` gets the job completed with the end of the pipe for orders.
    pub(super) fn start(
        job: impl FnOnce(File) -> Job,
        work: fn(Job) -> Result<End, Error>,
    ) -> io::Result<Fan> {
        let (order, orders) = process::pipe(4096)?;
        let (done, working) = process::pipe(4096)?;
        let job = job(File::from(order));
        let thread = std::thread::Builder::new()
            .name(format!("stage {}", job.stage))
            .spawn(move || {
                process::ignore_broken_pipes();
                let end = work(job);
                drop(working);
                end
            })?;
        Ok(Fan {
            thread: Some(thread),
            orders: File::from(orders),
            done,
        })
    }

    /// Gives an order.
    pub(super) fn order(&self, order: u8) {
        // A distributor that has ended needs none.
        let _ = (&self.orders).write_all(&[order]);
    }

    /// How it ended; to be called once it is readable.
    pub(super) fn end(&mut self) -> Result<End, Error> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(end)) => end,
            // It panicked, which is a defect; its workers died with the thread.
            _ => Ok(End::Killed(process::SIGKILL)),
        }
    }
}

impl AsFd for Fan {
    /// Readable (hung up) once it has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.done.as_fd()
    }
}
