//! Pipelines: processes joined by channels, started as a shell would and supervised.
//!
//! ```
//! use ringway::pipeline::{Pipeline, Stage};
//!
//! let running = Pipeline::new(["true", "cat", "wc -l >/dev/null"].map(Stage::parse)).start()?;
//! let outcome = running.wait()?;
//! assert_eq!(outcome.status(), 0, "{outcome}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Two neighbours that both speak messages (they call [`stage`](crate::stage)) are joined by a
//! ring in shared memory, any others by a pipe, directly: the supervisor is not in the way of the
//! data. A stage that runs several [`jobs`](Stage::jobs) of a plain program gets its input in
//! chunks of whole lines.

mod aware;
mod chunks;
mod command;
mod fan;
mod links;
mod persistent;
mod report;
mod supervisor;
mod via;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::Endpoint;

pub use aware::Aware;
pub use report::{Outcome, Reason, StageFailure};
pub use supervisor::Running;
#[cfg(feature = "cli")]
pub(crate) use via::parse as parse_via;

/// The environment variable that tells a stage what it is joined to its neighbours by.
pub(crate) const STAGE_VARIABLE: &str = "RINGWAY_STAGE";

/// One stage: a program, and how it is to be run.
#[derive(Clone, Debug)]
pub struct Stage {
    /// As the user wrote it.
    text: String,
    /// The words of a simple command, or `None` for one that needs a shell.
    words: Option<Vec<OsString>>,
    /// Told by the user; otherwise the executable is asked.
    aware: Option<Aware>,
    jobs: Option<usize>,
}

impl Stage {
    /// A stage from a command line as one would type it. A simple command is executed directly;
    /// anything that only a shell understands (a pipe, a redirection, a variable, ...) by
    /// `sh -c`.
    ///
    /// Before the command may stand `ring:`, for a program that speaks messages on both sides
    /// though its executable does not say so (a script, say), or `plain:` for the contrary.
    pub fn parse(line: &str) -> Stage {
        let (aware, command) = if let Some(command) = line.strip_prefix("ring:") {
            (Some(Aware::BOTH), command)
        } else if let Some(command) = line.strip_prefix("plain:") {
            (Some(Aware::NO), command)
        } else {
            (None, line)
        };
        Stage {
            text: command.trim().to_owned(),
            words: command::words(command),
            aware,
            jobs: None,
        }
    }

    /// A stage from a program and its arguments, with no shell whatever they contain.
    pub fn command(
        program: impl Into<OsString>,
        args: impl IntoIterator<Item = OsString>,
    ) -> Stage {
        let words: Vec<OsString> = std::iter::once(program.into()).chain(args).collect();
        let text: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        Stage {
            text: text.join(" "),
            words: Some(words),
            aware: None,
            jobs: None,
        }
    }

    /// Runs `jobs` copies of the program at once (at least 1). One that speaks messages takes them
    /// one by one; any other gets chunks of whole lines, one run of the program a chunk.
    pub fn jobs(mut self, jobs: usize) -> Stage {
        self.jobs = Some(jobs.max(1));
        self
    }
}

/// Something that happened in a running pipeline and was set right.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A run of a plain program was killed; its chunk is done again.
    ChunkRedone {
        /// Which stage; the first is 1.
        stage: usize,
        /// Which chunk of its input; the first is 0.
        chunk: u64,
        /// The signal that killed it.
        signal: i32,
    },
    /// Of the mechanisms given, not the first one joins a stage to the next.
    FellBack {
        /// The stage before it; the first is 1.
        stage: usize,
        /// Those before it, and why each was refused.
        refused: Vec<String>,
        /// The endpoint that was taken.
        taken: String,
    },
    /// A process of a stage that speaks messages died and was started anew.
    Restarted {
        /// Which stage; the first is 1.
        stage: usize,
        /// The process that died.
        died: u32,
        /// The one that takes its place.
        successor: u32,
    },
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Event::ChunkRedone {
                stage,
                chunk,
                signal,
            } => {
                let signal = crate::os::process::signal_name(*signal);
                write!(
                    f,
                    "stage {stage}: a worker was killed by {signal}; its chunk {chunk} is done again"
                )
            }
            Event::FellBack {
                stage,
                refused,
                taken,
            } => {
                for refusal in refused {
                    write!(f, "stage {stage}: {refusal}; ")?;
                }
                write!(f, "{taken}: taken")
            }
            Event::Restarted {
                stage,
                died,
                successor,
            } => {
                write!(
                    f,
                    "stage {stage}: process {died} died; process {successor} takes its place"
                )
            }
        }
    }
}

/// A program that is found under `name` without a look at `PATH`, and tells by its arguments which
/// of its sides are messages.
#[derive(Clone, Debug)]
struct Tool {
    name: OsString,
    file: PathBuf,
    aware: fn(&[OsString]) -> Aware,
}

/// A pipeline to be started.
#[derive(Debug)]
pub struct Pipeline {
    stages: Vec<Stage>,
    tool: Option<Tool>,
    input: Option<OwnedFd>,
    output: Option<OwnedFd>,
    restarts: u32,
    keep_order: bool,
    persistent: bool,
    block: usize,
    longest: usize,
    via: Vec<Endpoint>,
}

impl Pipeline {
    /// A pipeline of these stages, from the first to the last.
    pub fn new(stages: impl IntoIterator<Item = Stage>) -> Pipeline {
        Pipeline {
            stages: stages.into_iter().collect(),
            tool: None,
            input: None,
            output: None,
            restarts: 0,
            keep_order: false,
            persistent: false,
            block: 1 << 20,
            longest: 4096,
            via: Vec::new(),
        }
    }

    /// What the first stage reads, instead of the standard input of this process.
    pub fn input(mut self, input: OwnedFd) -> Pipeline {
        self.input = Some(input);
        self
    }

    /// What the last stage writes to, instead of the standard output of this process.
    pub fn output(mut self, output: OwnedFd) -> Pipeline {
        self.output = Some(output);
        self
    }

    /// How often a stage's dead process is replaced, and a chunk whose run was killed done again.
    /// 0, the default, is never. A plain program outside of [`Stage::jobs`] is never replaced: what
    /// it had read is lost.
    pub fn restarts(mut self, restarts: u32) -> Pipeline {
        self.restarts = restarts;
        self
    }

    /// Whether the output of several jobs comes in the order of their input. Only chunks of lines can be put
    /// in order: with several workers that speak messages the pipeline does not start.
    pub fn keep_order(mut self, keep: bool) -> Pipeline {
        self.keep_order = keep;
        self
    }

    /// Whether the workers of a plain program run until the input ends, instead of once a chunk. The
    /// order is then not kept, and what a worker that dies had read is lost and fails the stage.
    pub fn persistent(mut self, persistent: bool) -> Pipeline {
        self.persistent = persistent;
        self
    }

    /// The size of a chunk in bytes, 1 MiB unless told; a longer line makes a longer chunk.
    pub fn block(mut self, bytes: usize) -> Pipeline {
        self.block = bytes.max(1);
        self
    }

    /// The longest message that a ring between stages is made for, in bytes; 4 KiB unless told.
    pub fn longest_message(mut self, bytes: usize) -> Pipeline {
        self.longest = bytes.max(8);
        self
    }

    /// Has the stages joined by that mechanism, instead of rings and pipes; given several times, by the
    /// first that can be had. The link behind stage N has the endpoint's name with `.N` behind it.
    /// `auto:NAME` stands for the fastest one that can be had.
    ///
    /// Plain programs have bytes, not messages, and can be joined by pipes (`pipe:`) and FIFOs only;
    /// `ringway run`, which has adapters, joins them by any. Of the mechanisms only rings
    /// keep what a killed process had not finished: behind others none is replaced.
    ///
    /// ```
    /// use ringway::pipeline::{Pipeline, Stage};
    ///
    /// let name = format!("/tmp/doc-via-{}", std::process::id());
    /// let running = Pipeline::new(["seq 1 3", "wc -l >/dev/null"].map(Stage::parse))
    ///     .via(format!("fifo:{name}").parse()?)
    ///     .start()?;
    /// assert_eq!(running.wait()?.status(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn via(mut self, endpoint: Endpoint) -> Pipeline {
        self.via.push(endpoint);
        self
    }

    /// Has `name` stand for the program `file`, of which `aware` tells by its arguments which sides
    /// are messages.
    #[cfg(feature = "cli")]
    pub(crate) fn tool(
        mut self,
        name: &str,
        file: PathBuf,
        aware: fn(&[OsString]) -> Aware,
    ) -> Pipeline {
        self.tool = Some(Tool {
            name: name.into(),
            file,
            aware,
        });
        self
    }

    /// Starts every stage.
    ///
    /// The kernel kills the stages when the calling thread ends, and so on any death of this
    /// process.
    ///
    /// # Errors
    /// The first stage whose program is missing, or that cannot be started; then nothing runs.
    pub fn start(self) -> Result<Running, Box<StageFailure>> {
        supervisor::start(self)
    }
}
