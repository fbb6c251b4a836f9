//! The supervisor: starts the stages, joins them, watches them, and brings them to an end.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::command::{self, Missing};
use super::fan::{Fan, Job, Program, order};
use super::links::Link;
use super::persistent;
use super::{
    Aware, Event, Outcome, Pipeline, Reason, STAGE_VARIABLE, Stage, StageFailure, Tool, aware,
    chunks,
};
use crate::Error;
use crate::os::process::{self, Child, Spawn};
use crate::stage::{Format, Joint};

/// The capacity asked for of a pipe between two stages, in bytes.
const PIPE: usize = 256 << 10;

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
    text: String,
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

/// The stages with their programs found.
struct Found {
    program: Program,
    aware: Aware,
}

fn find(stage: &Stage, tool: Option<&Tool>, first: bool, terminal: bool) -> Result<Found, Reason> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let program = |file: PathBuf, name: OsString, args: Vec<OsString>| Program {
        file,
        name,
        args,
        path: None,
        own_group: !terminal,
        ignore_interrupt: terminal && !first,
    };
    let missing = |missing| match missing {
        Missing::NotFound => Reason::NotFound,
        Missing::NotExecutable => Reason::NotExecutable,
    };
    let Some((name, args)) = stage.words.as_ref().and_then(|words| words.split_first()) else {
        if stage.text.is_empty() {
            return Err(Reason::NotFound);
        }
        let file = command::find("sh".as_ref(), &path).map_err(missing)?;
        let mut shell = program(
            file,
            "sh".into(),
            vec!["-c".into(), stage.text.clone().into()],
        );
        // The tool is found by a shell too.
        if let Some(tool) = tool
            && command::find(&tool.name, &path).ok().as_ref() != Some(&tool.file)
            && tool.file.file_name() == Some(&tool.name)
            && let Some(directory) = tool.file.parent()
        {
            let directories = std::iter::once(directory.into()).chain(std::env::split_paths(&path));
            shell.path = std::env::join_paths(directories).ok();
        }
        return Ok(Found {
            program: shell,
            aware: stage.aware.unwrap_or(Aware::NO),
        });
    };
    if let Some(tool) = tool.filter(|tool| tool.name == *name) {
        let aware = stage.aware.unwrap_or_else(|| (tool.aware)(args));
        return Ok(Found {
            program: program(tool.file.clone(), name.clone(), args.to_vec()),
            aware,
        });
    }
    let file = command::find(name, &path).map_err(missing)?;
    let aware = stage.aware.unwrap_or_else(|| aware::marks(&file));
    Ok(Found {
        program: program(file, name.clone(), args.to_vec()),
        aware,
    })
}

/// Starts a pipeline.
pub(super) fn start(pipeline: Pipeline) -> Result<Running, Box<StageFailure>> {
    let terminal = process::in_foreground();
    let stages = &pipeline.stages;
    let failure = |stage: usize, reason| {
        Box::new(StageFailure {
            stage: stage + 1,
            command: stages[stage].text.clone(),
            reason,
        })
    };
    // Every program is looked for before any is started: a pipeline with a hole does harm.
    let mut found = Vec::with_capacity(stages.len());
    for (index, stage) in stages.iter().enumerate() {
        let one = find(stage, pipeline.tool.as_ref(), index == 0, terminal);
        found.push(one.map_err(|reason| failure(index, reason))?);
    }
    // Several workers of a stage whose messages no ring brings get chunks of lines.
    let mut chunked = Vec::new();
    let mut links: Vec<Option<Link>> = Vec::new();
    for (index, pair) in found.windows(2).enumerate() {
        let from_ring = index > 0 && links[index - 1].is_some();
        chunked.push(stages[index].jobs.is_some() && !from_ring);
        let ring = pair[0].aware.output && pair[1].aware.input && !chunked[index];
        let several = stages[index].jobs.is_some() || stages[index + 1].jobs.is_some();
        let link = ring
            .then(|| Link::new(several, pipeline.longest))
            .transpose();
        links.push(link.map_err(|error| failure(index, Reason::CannotStart(error)))?);
    }
    let from_ring = links.last().is_some_and(Option::is_some);
    chunked.push(stages.last().is_some_and(|last| last.jobs.is_some()) && !from_ring);

    let (happened, events) = channel();
    let mut running = Running {
        stages: Vec::new(),
        links,
        outcome: Outcome::default(),
        happened,
        events,
        paused: false,
    };
    let mut input = pipeline
        .input
        .as_ref()
        .map(|fd| fd.as_fd().try_clone_to_owned());
    for (index, found) in found.into_iter().enumerate() {
        let cannot = |error| failure(index, Reason::CannotStart(error));
        let system = |op| move |error| Error::os(op, stages[index].text.clone(), error);
        let (work, next) = running
            .start_stage(&pipeline, &chunked, index, found, input.take())
            .map_err(|(op, error)| cannot(system(op)(error)))?;
        running.stages.push(Started {
            text: stages[index].text.clone(),
            work,
            excused: false,
        });
        input = next.map(Ok);
    }
    Ok(running)
}

/// What is started, and what the next stage reads.
type Begun = (Work, Option<OwnedFd>);

impl Running {
    /// Starts stage `index`, which reads `input` unless a ring brings its messages.
    fn start_stage(
        &self,
        pipeline: &Pipeline,
        chunked: &[bool],
        index: usize,
        Found { program, .. }: Found,
        input: Option<io::Result<OwnedFd>>,
    ) -> Result<Begun, (&'static str, io::Error)> {
        let before = index
            .checked_sub(1)
            .and_then(|index| self.links[index].as_ref());
        let behind = self.links.get(index).and_then(Option::as_ref);
        let duplicate = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map_err(|e| ("dup", e));
        let stdin = match input {
            Some(input) => input.map_err(|e| ("dup", e))?,
            None if before.is_some() => File::open("/dev/null")
                .map_err(|e| ("open /dev/null for", e))?
                .into(),
            None => duplicate(io::stdin().as_fd())?,
        };
        let (stdout, next) = if behind.is_some() {
            // What a stage prints while its messages go through a ring is for people.
            (duplicate(io::stderr().as_fd())?, None)
        } else if index + 1 < pipeline.stages.len() {
            let (read, write) = process::pipe(PIPE).map_err(|e| ("pipe2", e))?;
            (write, Some(read))
        } else if let Some(output) = &pipeline.output {
            (duplicate(output.as_fd())?, None)
        } else {
            (duplicate(io::stdout().as_fd())?, None)
        };
        if let Some(workers) = pipeline.stages[index].jobs.filter(|_| chunked[index]) {
            let events = Sender::clone(&self.happened);
            let job = |orders| Job {
                stage: index + 1,
                program,
                workers,
                block: pipeline.block,
                restarts: pipeline.restarts,
                keep_order: pipeline.keep_order,
                input: File::from(stdin),
                output: File::from(stdout),
                orders,
                events,
            };
            let work = if pipeline.persistent {
                persistent::run
            } else {
                chunks::run
            };
            let fan = Fan::start(job, work).map_err(|e| ("start workers for", e))?;
            return Ok((Work::Fan(fan), next));
        }
        let joint = |side, link: Option<&Link>, neighbour: Option<&bool>| {
            let lines = (neighbour == Some(&true)).then_some(Joint::Stream(Format::Lines));
            Some(link.map(Link::joint).or(lines)?.to_text(side))
        };
        let joints: Vec<String> = joint("in", before, index.checked_sub(1).map(|i| &chunked[i]))
            .into_iter()
            .chain(joint("out", behind, chunked.get(index + 1)))
            .collect();
        let seat = Seat {
            program,
            variable: (!joints.is_empty()).then(|| joints.join(",").into()),
            inherit: before
                .into_iter()
                .chain(behind)
                .map(Link::descriptor)
                .collect(),
            stdin,
            stdout,
        };
        let jobs = pipeline.stages[index].jobs.unwrap_or(1);
        let running: io::Result<Vec<Child>> = (0..jobs).map(|_| seat.start()).collect();
        Ok((
            Work::Processes(Box::new(Processes {
                running: running.map_err(|e| ("execute", e))?,
                seat: before.map(|_| seat),
                restarts: pipeline.restarts,
                replaced: Vec::new(),
                failed: None,
            })),
            next,
        ))
    }

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
            .map(|stage| match &stage.work {
                Work::Processes(processes) => processes.running.iter().map(Child::pid).collect(),
                Work::Fan(_) | Work::Ended => Vec::new(),
            })
            .collect()
    }

    /// What one would like to know of a running pipeline: one line a stage.
    pub fn statistics(&self) -> String {
        let mut lines = Vec::new();
        for (index, stage) in self.stages.iter().enumerate() {
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
            lines.push(format!("stage {} ({}): {state}", index + 1, stage.text));
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
                processes.settle(index, stage.excused, &stage.text, happened)?;
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
                stage: index + 1,
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
        let index = match stage.parse::<usize>() {
            Ok(number) => number
                .checked_sub(1)
                .filter(|index| *index < self.stages.len()),
            Err(_) => self
                .stages
                .iter()
                .position(|started| started.text.split(' ').next() == Some(stage)),
        };
        let index = index.ok_or_else(|| {
            format!(
                "{stage}: no such stage; there are stages 1 to {}",
                self.stages.len()
            )
        })?;
        match &mut self.stages[index].work {
            Work::Processes(processes) if processes.seat.is_some() => {
                processes.replaced = processes.running.iter().map(Child::pid).collect();
                processes.signal(process::SIGTERM);
                Ok(())
            }
            Work::Ended => Err(format!("stage {} has ended", index + 1)),
            Work::Processes(_) | Work::Fan(_) => Err(format!(
                "stage {} does not take messages from a ring: what it has read would be lost",
                index + 1
            )),
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
        index: usize,
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
            let Some(reason) = Reason::of(end) else {
                continue;
            };
            // One that ended by itself, however badly, has had its say.
            let killed = matches!(reason, Reason::Killed(_)) && self.restarts > 0;
            let again = self.seat.is_some() && !excused && (asked || killed);
            if !again {
                self.failed.get_or_insert(reason);
                continue;
            }
            self.restarts -= u32::from(!asked);
            match self.seat.as_ref().map(Seat::start) {
                Some(Ok(child)) => {
                    let successor = child.pid();
                    let stage = index + 1;
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
