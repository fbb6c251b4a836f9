//! How a pipeline is begun: its programs are found, its links made, its processes started.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};

use super::super::command::{self, Missing};
use super::super::fan::{Fan, Job, Program};
use super::super::links::{Link, Side};
use super::super::via::{self, Join, Shape};
use super::super::{
    Aware, Event, Outcome, Pipeline, Reason, Stage, StageFailure, Tool, aware, chunks, persistent,
};
use super::{PIPE, Processes, Running, Seat, Started, Work};
use crate::Error;
use crate::endpoint::Endpoint;
use crate::os::process::{self, Child};
use crate::stage::{self, ANY_ORDER, Format, Joint};

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
            return Err(Reason::CannotStart(Error::Config {
                what: "command",
                value: "\"\"".into(),
                why: "it is empty".into(),
                remedy: "write a program and its arguments, such as 'grep 7'".into(),
            }));
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
pub(in crate::pipeline) fn start(pipeline: Pipeline) -> Result<Running, Box<StageFailure>> {
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
        let several = |stage: &Stage| stage.jobs.is_some_and(|jobs| jobs > 1);
        let scrambled = !pipeline.keep_order && pipeline.stages[..place.number].iter().any(several)
            || !stage::keeps_order();
        let joints: Vec<String> = joint("in", before, Side::Receiving, place.lines.0)
            .into_iter()
            .chain(joint("out", behind, Side::Sending, place.lines.1))
            .chain(scrambled.then(|| ANY_ORDER.to_owned()))
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
}
