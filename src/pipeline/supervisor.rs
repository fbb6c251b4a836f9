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
use super::links::{Link, Side};
use super::persistent;
use super::via::{self, Join, Shape};
use super::{
    Aware, Event, Outcome, Pipeline, Reason, STAGE_VARIABLE, Stage, StageFailure, Tool, aware,
    chunks,
};
use crate::Error;
use crate::endpoint::Endpoint;
use crate::os::process::{self, Child, Spawn};
use crate::stage::{Format, Joint};

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
    let (happened, events) = channel();
    let mut running = Running {
        stages: Vec::new(),
        links: Vec::new(),
        outcome: Outcome::default(),
        happened,
        events,
        paused: false,
    };
    let mut input = pipeline
        .input
        .as_ref()
        .map(|fd| fd.as_fd().try_clone_to_owned());
    let mut places = running.arrange(&pipeline, found)?;
    for index in 0..places.len() {
        let place = &mut places[index];
        let (number, text) = (place.number, place.text.clone());
        let (adapter, via) = (place.adapter, place.via.take());
        let work = running.start_stage(&pipeline, &mut places, index, input.take());
        let (work, next) = work.map_err(|(op, error)| {
            let reason = Reason::CannotStart(Error::os(op, text.clone(), error));
            failure(number - 1, reason)
        })?;
        running.stages.push(Started {
            number,
            adapter,
            text,
            via,
            work,
            excused: false,
        });
        input = next.map(Ok);
    }
    running.links.iter_mut().flatten().for_each(Link::let_go);
    Ok(running)
}

/// A stage, or an adapter, as it is going to be started.
struct Place {
    program: Option<Program>,
    number: usize,
    adapter: bool,
    text: String,
    jobs: Option<usize>,
    /// Its workers get chunks of lines.
    chunked: bool,
    /// Whether it has messages as lines on its standard input, and output.
    lines: (bool, bool),
    /// What it hands its output on by, if that was chosen, and the pipe or the like if it is bytes.
    via: Option<Endpoint>,
    bytes: Option<(OwnedFd, OwnedFd)>,
}

/// What is started, and what the next stage reads.
type Begun = (Work, Option<OwnedFd>);

impl Running {
    /// Lays out the stages and makes what joins them: a link for each pair that has messages between
    /// them; adapters where the mechanism that was asked for needs them.
    fn arrange(
        &mut self,
        pipeline: &Pipeline,
        found: Vec<Found>,
    ) -> Result<Vec<Place>, Box<StageFailure>> {
        let stages = &pipeline.stages;
        // Several workers of a stage to which no link brings messages get chunks of lines.
        let mut chunked = vec![stages[0].jobs.is_some()];
        let mut messages = Vec::new();
        for (index, pair) in found.windows(2).enumerate() {
            messages.push(pair[0].aware.output && pair[1].aware.input && !chunked[index]);
            chunked.push(stages[index + 1].jobs.is_some() && !messages[index]);
        }
        // Workers that speak messages take each as it comes and finish each when it is done.
        let unordered = (0..stages.len())
            .find(|&index| !chunked[index] && stages[index].jobs.is_some_and(|jobs| jobs > 1));
        if pipeline.keep_order
            && let Some(index) = unordered
        {
            return Err(Box::new(StageFailure {
                stage: index + 1,
                command: stages[index].text.clone(),
                reason: Reason::CannotStart(Error::Unsupported {
                    mechanism: "-j before a program that speaks messages",
                    what: "keep their order (--keep-order)",
                    remedy: "number the messages and sort by that behind the stage, or write plain:COMMAND to hand it chunks of lines, whose order is kept",
                }),
            }));
        }
        let adapter = |number: usize, side: &str| Place {
            program: pipeline.tool.as_ref().map(|tool| Program {
                file: tool.file.clone(),
                name: tool.name.clone(),
                args: vec!["adapter".into(), side.into()],
                path: None,
                own_group: !process::in_foreground(),
                ignore_interrupt: true,
            }),
            number,
            adapter: true,
            text: format!("the adapter to stage {number}"),
            jobs: None,
            chunked: false,
            lines: (false, false),
            via: None,
            bytes: None,
        };
        let mut places: Vec<Place> = Vec::new();
        for (index, found) in found.into_iter().enumerate() {
            let next = index + 1;
            places.push(Place {
                program: Some(found.program),
                number: index + 1,
                adapter: false,
                text: stages[index].text.clone(),
                jobs: stages[index].jobs,
                chunked: chunked[index],
                lines: (
                    index > 0 && chunked[index - 1],
                    chunked.get(next) == Some(&true),
                ),
                via: None,
                bytes: None,
            });
            if next == stages.len() {
                break;
            }
            let several = (stages[index].jobs.is_some(), stages[next].jobs.is_some());
            let cannot = |error| {
                Box::new(StageFailure {
                    stage: index + 1,
                    command: stages[index].text.clone(),
                    reason: Reason::CannotStart(error),
                })
            };
            let mut refused = Vec::new();
            let mut list = pipeline.via.clone();
            if list.is_empty() {
                if !messages[index] {
                    self.links.push(None);
                    continue;
                }
                match Link::new(several.0 || several.1, pipeline.longest) {
                    Ok(link) => {
                        self.links.push(Some(link));
                        continue;
                    }
                    // No memory without a name, then: whatever else there is.
                    Err(error) => {
                        refused.push(format!("a ring without a name: refused: {error}"));
                        list.push(via::anything().map_err(cannot)?);
                    }
                }
            }
            let shape = Shape {
                link: index + 1,
                messages: messages[index],
                several,
                longest: pipeline.longest,
                adapters: pipeline.tool.is_some(),
            };
            let opened = via::join(&list, shape).map_err(|error| cannot(via::refused(error)))?;
            refused.extend(opened.refused.iter().map(ToString::to_string));
            if !refused.is_empty() {
                let taken = opened.taken.to_string();
                let _ = self.happened.send(Event::FellBack {
                    stage: index + 1,
                    refused,
                    taken,
                });
            }
            if let Some(place) = places.last_mut() {
                place.via = Some(opened.taken);
            }
            match opened.channel {
                Join::Link(link) => self.links.push(Some(link)),
                Join::Bytes(read, write) => {
                    self.links.push(None);
                    if let Some(place) = places.last_mut() {
                        place.bytes = Some((read, write));
                    }
                }
                Join::Adapted(link) => {
                    self.links.extend([None, Some(link), None]);
                    places.extend([adapter(index + 1, "in"), adapter(next + 1, "out")]);
                }
            }
        }
        Ok(places)
    }

    /// Starts the stage of place `index`, which reads `input` unless a link brings its messages.
    fn start_stage(
        &self,
        pipeline: &Pipeline,
        places: &mut [Place],
        index: usize,
        input: Option<io::Result<OwnedFd>>,
    ) -> Result<Begun, (&'static str, io::Error)> {
        let last = index + 1 == places.len();
        let place = &mut places[index];
        let no_program = || ("execute", io::Error::from(io::ErrorKind::NotFound));
        let program = place.program.take().ok_or_else(no_program)?;
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
            // What a stage prints while its messages go through a link is for people.
            (duplicate(io::stderr().as_fd())?, None)
        } else if !last {
            let made = match place.bytes.take() {
                Some(ends) => Ok(ends),
                None => process::pipe(PIPE),
            };
            let (read, write) = made.map_err(|e| ("pipe2", e))?;
            (write, Some(read))
        } else if let Some(output) = &pipeline.output {
            (duplicate(output.as_fd())?, None)
        } else {
            (duplicate(io::stdout().as_fd())?, None)
        };
        if let Some(workers) = place.jobs.filter(|_| place.chunked) {
            let events = Sender::clone(&self.happened);
            let stage = place.number;
            let job = |orders| Job {
                stage,
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
        let joint = |name, link: Option<&Link>, side, lines: bool| {
            let lines = lines.then_some(Joint::Stream(Format::Lines));
            Some(link.map(|link| link.joint(side)).or(lines)?.to_text(name))
        };
        let joints: Vec<String> = joint("in", before, Side::Receiving, place.lines.0)
            .into_iter()
            .chain(joint("out", behind, Side::Sending, place.lines.1))
            .collect();
        let sides = [(before, Side::Receiving), (behind, Side::Sending)];
        let seat = Seat {
            program,
            variable: (!joints.is_empty()).then(|| joints.join(",").into()),
            inherit: sides
                .iter()
                .flat_map(|(link, side)| Some(link.as_ref()?.descriptors(*side)))
                .flatten()
                .collect(),
            stdin,
            stdout,
        };
        let replaceable = before.is_some()
            && sides
                .iter()
                .all(|(link, side)| link.is_none_or(|link| link.survives(*side)));
        let jobs = place.jobs.unwrap_or(1);
        let mut running: Vec<Child> = Vec::new();
        for _ in 0..jobs {
            match seat.start() {
                Ok(child) => running.push(child),
                Err(error) => {
                    // Not in anybody's hands yet.
                    for child in &mut running {
                        child.signal(process::SIGKILL);
                        let _ = child.wait();
                    }
                    return Err(("execute", error));
                }
            }
        }
        Ok((
            Work::Processes(Box::new(Processes {
                running,
                seat: replaceable.then_some(seat),
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
