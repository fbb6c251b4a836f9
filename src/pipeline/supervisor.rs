//! The supervisor: starts the stages, joins them, watches them, and brings them to an end.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::command::{self, Missing};
use super::fan::{Fan, Job, Program, order};
use super::{Aware, Event, Outcome, Pipeline, Reason, Stage, StageFailure, Tool, aware, chunks};
use crate::Error;
use crate::os::process::{self, Child, End, Spawn};

/// The capacity asked for of a pipe between two stages, in bytes.
const PIPE: usize = 256 << 10;

/// What carries out a stage.
enum Work {
    Process(Child),
    Fan(Fan),
    Ended,
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
    outcome: Outcome,
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
    let Pipeline {
        stages,
        tool,
        input,
        output,
        restarts,
        keep_order,
        block,
    } = pipeline;
    let terminal = process::in_foreground();
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
        let one = find(stage, tool.as_ref(), index == 0, terminal);
        found.push(one.map_err(|reason| failure(index, reason))?);
    }

    let (events, happened) = channel();
    let mut running = Running {
        stages: Vec::new(),
        outcome: Outcome::default(),
        events: happened,
        paused: false,
    };
    let cannot = |stage: usize, op, error| {
        let error = Error::os(op, stages[stage].text.clone(), error);
        failure(stage, Reason::CannotStart(error))
    };
    let mut input = match input {
        Some(input) => input,
        None => io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| cannot(0, "dup", error))?,
    };
    let mut output = Some(match output {
        Some(output) => output,
        None => io::stdout()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| cannot(0, "dup", error))?,
    });
    let last = stages.len().saturating_sub(1);
    for (index, Found { program, aware: _ }) in found.into_iter().enumerate() {
        let (next_input, this_output) = if index == last {
            (None, output.take())
        } else {
            let (read, write) =
                process::pipe(PIPE).map_err(|error| cannot(index, "pipe2", error))?;
            (Some(read), Some(write))
        };
        let (Some(stdout), stdin) = (this_output, input) else {
            break;
        };
        let work = match stages[index].jobs {
            None => process::spawn(&Spawn {
                program: &program.file,
                name: &program.name,
                args: &program.args,
                env: &program.environment(&[]),
                stdin: stdin.as_fd(),
                stdout: stdout.as_fd(),
                inherit: &[],
                own_group: program.own_group,
                ignore_interrupt: program.ignore_interrupt,
            })
            .map(Work::Process),
            Some(workers) => {
                let events = Sender::clone(&events);
                let job = |orders| Job {
                    stage: index + 1,
                    program,
                    workers,
                    block,
                    restarts,
                    keep_order,
                    input: File::from(stdin),
                    output: File::from(stdout),
                    orders,
                    events,
                };
                Fan::start(job, chunks::run).map(Work::Fan)
            }
        };
        let work = work.map_err(|error| cannot(index, "execute", error))?;
        running.stages.push(Started {
            text: stages[index].text.clone(),
            work,
            excused: false,
        });
        input = match next_input {
            Some(input) => input,
            None => break,
        };
    }
    Ok(running)
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
            .map(|stage| match &stage.work {
                Work::Process(child) => vec![child.pid()],
                Work::Fan(_) | Work::Ended => Vec::new(),
            })
            .collect()
    }

    /// What one would like to know of a running pipeline: one line a stage.
    pub fn statistics(&self) -> String {
        let mut lines = Vec::new();
        for (index, stage) in self.stages.iter().enumerate() {
            let state = match &stage.work {
                Work::Process(child) => format!("process {}", child.pid()),
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
        let watched = self.stages.iter().map(|stage| match &stage.work {
            Work::Process(child) => Some(child.as_fd()),
            Work::Fan(fan) => Some(fan.as_fd()),
            Work::Ended => None,
        });
        let watched: Vec<_> = others.iter().copied().map(Some).chain(watched).collect();
        let mut ready = process::poll(&watched, timeout)
            .map_err(|error| Error::os("ppoll", "the stages", error))?;
        let ended = ready.split_off(others.len());
        for (index, _) in ended.iter().enumerate().filter(|(_, ended)| **ended) {
            self.look_at(index)?;
        }
        Ok(ready)
    }

    /// Takes note of a stage that may have ended.
    fn look_at(&mut self, index: usize) -> Result<(), Error> {
        let stage = &mut self.stages[index];
        let reason = match &mut stage.work {
            Work::Process(child) => {
                let end = child
                    .end()
                    .map_err(|error| Error::os("waitid", &stage.text, error))?;
                let Some(end) = end else { return Ok(()) };
                Reason::of(end)
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
            Work::Process(child) => child.signal(process::SIGTERM),
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
                Work::Process(child) => child.signal(signal),
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
        match &self.stages[index].work {
            Work::Ended => Err(format!("stage {} has ended", index + 1)),
            Work::Process(_) | Work::Fan(_) => Err(format!(
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
                Work::Process(child) => child.signal(signal),
                Work::Fan(fan) => fan.order(order),
                Work::Ended => {}
            }
        }
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
                Work::Process(child) => drop(child.wait()),
                Work::Fan(fan) => drop(fan.end()),
                Work::Ended => {}
            }
        }
    }
}
