//! The supervisor: starts the stages and joins them ([`start`]), watches them, and brings them to an end.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use super::fan::{Fan, Program, order};
use super::links::Link;
use super::{Event, Outcome, Reason, STAGE_VARIABLE, StageFailure};
use crate::Error;
use crate::endpoint::Endpoint;
use crate::os::process::{self, Child, Spawn};

mod start;

pub(super) use start::start;

/// The capacity asked for of a pipe between two stages, in bytes.
pub(super) const PIPE: usize = 256 << 10;

/// What carries out a stage.
enum Work {
    /// One process, or several of a program that takes messages.
    Processes(Box<Processes>),
    /// A plain program's workers, which come and go.
    Fan(Fan),
    Ended,
}

struct Processes {
    running: Vec<Child>,
    /// Where a successor is put; only for a stage that takes its messages from a ring.
    seat: Option<Seat>,
    /// How many successors there may still be.
    restarts: u32,
    /// Those that were told to end, and are to be replaced.
    replaced: Vec<u32>,
    /// Why the stage has failed, if one of its processes has for good.
    failed: Option<Reason>,
}

/// All that a process of a stage is started with.
struct Seat {
    program: Program,
    variable: Option<OsString>,
    inherit: Vec<RawFd>,
    stdin: OwnedFd,
    stdout: OwnedFd,
}

impl Seat {
    fn start(&self) -> io::Result<Child> {
        let variable = (STAGE_VARIABLE, self.variable.clone());
        process::spawn(&Spawn {
            program: &self.program.file,
            name: &self.program.name,
            args: &self.program.args,
            env: &self.program.environment(&[variable]),
            stdin: self.stdin.as_fd(),
            stdout: self.stdout.as_fd(),
            inherit: &self.inherit,
            own_group: self.program.own_group,
            ignore_interrupt: self.program.ignore_interrupt,
        })
    }
}

/// A stage that was started.
struct Started {
    /// Its number for people. An adapter has that of the stage it serves.
    number: usize,
    adapter: bool,
    text: String,
    /// What it hands its output on by, if that was chosen.
    via: Option<Endpoint>,
    work: Work,
    /// Told to end: that it does is no failure.
    excused: bool,
}

/// A pipeline that runs. Dropped before its end, it is stopped.
pub struct Running {
    stages: Vec<Started>,
    /// The rings: the one at i joins the stages i and i + 1.
    links: Vec<Option<Link>>,
    outcome: Outcome,
    happened: Sender<Event>,
    events: Receiver<Event>,
    paused: bool,
}

impl Running {
    /// Waits for the end of every stage.
    ///
    /// # Errors
    /// When the operating system refuses to say how the stages do.
    pub fn wait(mut self) -> Result<Outcome, Error> {
        while !self.is_finished() {
            self.step(&[], None)?;
        }
        Ok(std::mem::take(&mut self.outcome))
    }

    /// Whether every stage has ended.
    pub fn is_finished(&self) -> bool {
        self.stages
            .iter()
            .all(|stage| matches!(stage.work, Work::Ended))
    }

    /// What has come to pass so far, in the order of time.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// What was set right since the last call.
    pub fn events(&self) -> Vec<Event> {
        self.events.try_iter().collect()
    }

    /// The processes of each stage. That of a stage whose workers come and go is left out.
    pub fn processes(&self) -> Vec<Vec<u32>> {
        self.stages
            .iter()
            .filter(|stage| !stage.adapter)
            .map(|stage| match &stage.work {
                Work::Processes(processes) => processes.running.iter().map(Child::pid).collect(),
                Work::Fan(_) | Work::Ended => Vec::new(),
            })
            .collect()
    }

    /// What one would like to know of a running pipeline: one line a stage.
    pub fn statistics(&self) -> String {
        let mut lines = Vec::new();
        for stage in self.stages.iter().filter(|stage| !stage.adapter) {
            let state = match &stage.work {
                Work::Processes(processes) => {
                    let pids = processes
                        .running
                        .iter()
                        .map(|child| child.pid().to_string());
                    format!("process {}", pids.collect::<Vec<_>>().join(", "))
                }
                Work::Fan(_) => "working".to_owned(),
                Work::Ended => "ended".to_owned(),
            };
            let via = stage.via.as_ref();
            let via = via.map_or(String::new(), |via| format!("; hands on by {via}"));
            lines.push(format!(
                "stage {} ({}): {state}{via}",
                stage.number, stage.text
            ));
        }
        lines.join("\n")
    }

    /// Waits until a stage ends, something is set right, or one of `others` is readable, or for
    /// `timeout`, and sees to what is to be done about the stages. Tells which of the others are readable.
    pub(crate) fn step(
        &mut self,
        others: &[BorrowedFd<'_>],
        timeout: Option<Duration>,
    ) -> Result<Vec<bool>, Error> {
        let mut watched: Vec<_> = others.iter().copied().map(Some).collect();
        let mut stages = Vec::new();
        for (index, stage) in self.stages.iter().enumerate() {
            match &stage.work {
                Work::Processes(processes) => {
                    watched.extend(processes.running.iter().map(|child| Some(child.as_fd())));
                }
                Work::Fan(fan) => watched.push(Some(fan.as_fd())),
                Work::Ended => {}
            }
            stages.resize(watched.len() - others.len(), index);
        }
        let mut ready = process::poll(&watched, timeout)
            .map_err(|error| Error::os("ppoll", "the stages", error))?;
        let ended = ready.split_off(others.len());
        let mut stages: Vec<usize> = stages
            .into_iter()
            .zip(ended)
            .filter(|(_, ended)| *ended)
            .map(|(index, _)| index)
            .collect();
        stages.dedup();
        for index in stages {
            self.look_at(index)?;
        }
        Ok(ready)
    }

    /// Takes note of a stage of which a process, or all of it, may have ended.
    fn look_at(&mut self, index: usize) -> Result<(), Error> {
        let stage = &mut self.stages[index];
        let reason = match &mut stage.work {
            Work::Processes(processes) => {
                let happened = &self.happened;
                processes.settle(stage.number, stage.excused, &stage.text, happened)?;
                if !processes.running.is_empty() {
                    return Ok(());
                }
                processes.failed.take()
            }
            Work::Fan(fan) => match fan.end() {
                Ok(end) => Reason::of(end),
                Err(error) => Some(Reason::Workers(error)),
            },
            Work::Ended => return Ok(()),
        };
        stage.work = Work::Ended;
        if let Some(reason) = reason.filter(|_| !stage.excused) {
            let command = stage.text.clone();
            self.outcome.add(StageFailure {
                stage: stage.number,
                command,
                reason,
            });
        }
        if let Some(Some(before)) = index.checked_sub(1).map(|before| &mut self.links[before]) {
            before.end_receiving();
        }
        if let Some(Some(behind)) = self.links.get_mut(index) {
            behind.end_sending();
        }
        Ok(())
    }

    /// Ends the first stage, so that the others come to their end with what is under way: nothing
    /// that has left the first stage is lost.
    pub fn drain(&mut self) {
        self.resume();
        let Some(first) = self.stages.first_mut() else {
            return;
        };
        first.excused = true;
        match &first.work {
            Work::Processes(processes) => processes.signal(process::SIGTERM),
            Work::Fan(fan) => fan.order(order::DRAIN),
            Work::Ended => {}
        }
    }

    /// Asks every stage to end now.
    pub fn stop(&mut self) {
        self.resume();
        self.end_all(process::SIGTERM);
    }

    /// Kills every stage.
    pub fn kill(&mut self) {
        self.end_all(process::SIGKILL);
    }

    fn end_all(&mut self, signal: i32) {
        for stage in &mut self.stages {
            stage.excused |= !matches!(stage.work, Work::Ended);
            match &stage.work {
                Work::Processes(processes) => processes.signal(signal),
                Work::Fan(fan) => fan.order(order::STOP),
                Work::Ended => {}
            }
        }
    }

    /// Replaces the process of a stage, named by its number from 1 or by its program: its messages
    /// go to a successor.
    ///
    /// # Errors
    /// A sentence that says why not.
    #[cfg(feature = "cli")]
    pub(crate) fn restart(&mut self, stage: &str) -> Result<(), String> {
        let number = stage.parse::<usize>();
        let mut stages = self.stages.iter_mut().filter(|it| !it.adapter);
        let found = stages.find(|started| match number {
            Ok(number) => started.number == number,
            Err(_) => started.text.split(' ').next() == Some(stage),
        });
        let Some(found) = found else {
            let last = self.stages.last().map_or(0, |last| last.number);
            return Err(format!(
                "{stage}: no such stage; there are stages 1 to {last}"
            ));
        };
        match &mut found.work {
            Work::Processes(processes) if processes.seat.is_some() => {
                processes.replaced = processes.running.iter().map(Child::pid).collect();
                processes.signal(process::SIGTERM);
                Ok(())
            }
            Work::Ended => Err(format!("stage {} has ended", found.number)),
            Work::Processes(_) | Work::Fan(_) => Err(format!(
                "stage {} does not take messages from a ring: what it has read would be lost",
                found.number
            )),
        }
    }

    /// Sets how often the dead processes of each stage that takes its messages from a ring may still be
    /// replaced.
    #[cfg(feature = "cli")]
    pub(crate) fn set_restarts(&mut self, restarts: u32) {
        for stage in &mut self.stages {
            if let Work::Processes(processes) = &mut stage.work {
                processes.restarts = restarts;
            }
        }
    }

    /// Stops the clock for every stage until [`resume`](Running::resume): nothing is lost.
    pub fn pause(&mut self) {
        if !std::mem::replace(&mut self.paused, true) {
            self.signal_all(process::SIGSTOP, order::PAUSE);
        }
    }

    /// Lets paused stages go on.
    pub fn resume(&mut self) {
        if std::mem::replace(&mut self.paused, false) {
            self.signal_all(process::SIGCONT, order::RESUME);
        }
    }

    fn signal_all(&self, signal: i32, order: u8) {
        for stage in &self.stages {
            match &stage.work {
                Work::Processes(processes) => processes.signal(signal),
                Work::Fan(fan) => fan.order(order),
                Work::Ended => {}
            }
        }
    }
}

impl Processes {
    fn signal(&self, signal: i32) {
        self.running.iter().for_each(|child| child.signal(signal));
    }

    /// Takes out the processes that have ended, and puts successors in the places of those that
    /// were not to.
    fn settle(
        &mut self,
        stage: usize,
        excused: bool,
        text: &str,
        happened: &Sender<Event>,
    ) -> Result<(), Error> {
        let mut at = 0;
        while at < self.running.len() {
            let end = self.running[at]
                .end()
                .map_err(|error| Error::os("waitid", text, error))?;
            let Some(end) = end else {
                at += 1;
                continue;
            };
            let died = self.running.swap_remove(at).pid();
            let asked = self.replaced.contains(&died);
            self.replaced.retain(|pid| *pid != died);
            let reason = Reason::of(end);
            // One that ended by itself, however badly, has had its say; one that was asked to end, so
            // that another takes its place, has not, however well it ended.
            let killed = matches!(reason, Some(Reason::Killed(_))) && self.restarts > 0;
            let again = self.seat.is_some() && !excused && (asked || killed);
            if !again {
                if let Some(reason) = reason {
                    self.failed.get_or_insert(reason);
                }
                continue;
            }
            self.restarts -= u32::from(!asked);
            match self.seat.as_ref().map(Seat::start) {
                Some(Ok(child)) => {
                    let successor = child.pid();
                    let _ = happened.send(Event::Restarted {
                        stage,
                        died,
                        successor,
                    });
                    self.running.push(child);
                }
                Some(Err(error)) => {
                    let error = Error::os("execute", text, error);
                    self.failed.get_or_insert(Reason::CannotStart(error));
                }
                None => {}
            }
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_finished() {
            return;
        }
        self.kill();
        for stage in &mut self.stages {
            match &mut stage.work {
                Work::Processes(processes) => {
                    processes
                        .running
                        .iter_mut()
                        .for_each(|child| drop(child.wait()));
                }
                Work::Fan(fan) => drop(fan.end()),
                Work::Ended => {}
            }
        }
    }
}
