//! The two processes of a repetition: this program, executed anew with a hidden subcommand.

use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::control::{self, Control, Role};
use super::engine::Findings;
use super::link::Outcome;
use super::mechanism::{self, Prepared};
use super::plan::Case;
use crate::cli::Failure;
use crate::os::{bare, measure};

/// The hidden subcommand.
pub(crate) const SUBCOMMAND: &str = "bench-worker";

/// How much a repetition measures.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Effort {
    /// For how long about, unless a count is given.
    pub(crate) duration_ms: u64,
    /// How many messages, if that is given.
    pub(crate) count: Option<u64>,
}

/// What a worker is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) case: Case,
    pub(crate) role: Role,
    /// The leader's processor and the follower's.
    pub(crate) cpus: [usize; 2],
    pub(crate) effort: Effort,
    /// If the parent counts system calls: over how many messages.
    pub(crate) census: Option<u64>,
    /// The process that started it.
    pub(crate) parent: u32,
    /// The descriptor of the control page.
    pub(crate) control: RawFd,
    /// The descriptors of the mechanism.
    pub(crate) fds: Vec<RawFd>,
    /// The System V queues of the mechanism.
    pub(crate) queues: Vec<bare::SystemVQueue>,
}

impl Job {
    /// Whether the workers have a processor each.
    pub(crate) fn apart(&self) -> bool {
        self.cpus[0] != self.cpus[1]
    }

    /// After which time a worker that is still there has hung; a given number of messages takes what
    /// After which time a worker that is still there has hung, on a machine that is busy otherwise too;
    /// a given number of messages takes what it takes.
    fn limit(&self) -> Option<Duration> {
        let limit = Duration::from_millis(60_000 + 20 * self.effort.duration_ms);
        self.effort.count.is_none().then_some(limit)
    }
}

/// Arguments of the hidden subcommand.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The job, as JSON.
    job: String,
}

/// A worker's whole life: its findings go to standard output, its trouble to standard error.
pub(crate) fn main(args: &Args) -> Result<(), Failure> {
    let work = || -> Outcome<()> {
        let job: Job = serde_json::from_str(&args.job)?;
        measure::hold_endings(false);
        if !measure::die_with(job.parent) {
            return Err("the process that started this worker is gone".into());
        }
        if let Some(limit) = job.limit() {
            measure::end_after(limit);
        }
        if job.census.is_some() {
            measure::be_traced()?;
        }
        measure::pin(
            job.cpus[match job.role {
                Role::Leader => 0,
                Role::Follower => 1,
            }],
        )?;
        // SAFETY: the parent opened the descriptor for this worker, which takes it once.
        let fd = unsafe { OwnedFd::from_raw_fd(job.control) };
        let control = Control::map(fd.as_fd(), job.role, job.apart())?;
        let findings = mechanism::run(&job, &control)?;
        let mut out = std::io::stdout().lock();
        serde_json::to_writer(&mut out, &findings)?;
        Ok(out.flush()?)
    };
    work().map_err(Failure::new)
}

/// What the two workers of a repetition found.
#[derive(Debug)]
pub(crate) struct Repetition {
    pub(crate) leader: Findings,
    pub(crate) follower: Findings,
}

/// Runs one repetition of `case` in two new processes.
pub(crate) fn repeat(case: &Case, cpus: [usize; 2], effort: Effort) -> Outcome<Repetition> {
    let setup = Setup::new(case, cpus, effort, None)?;
    let workers = setup.start()?;
    collect(workers, case)
}

/// How many messages a count of system calls goes over.
const CENSUS: u64 = 500;

/// Counts the system calls of both workers over some messages of `case`: how many a message (or a
/// round trip) takes.
pub(crate) fn census(case: &Case, cpus: [usize; 2]) -> Outcome<f64> {
    let effort = Effort {
        duration_ms: 1000,
        count: None,
    };
    let setup = Setup::new(case, cpus, effort, Some(CENSUS))?;
    let watch = Control::watch(setup.page.as_fd())?;
    let workers = setup.start()?;
    let pids: Vec<u32> = workers.iter().map(Child::id).collect();
    let calls = measure::count_system_calls(&pids, |worker| watch.is_measuring(worker))?;
    Ok(calls as f64 / CENSUS as f64)
}

/// What the two workers of one repetition are given.
struct Setup {
    job: Job,
    page: OwnedFd,
    /// Kept until the workers have ended.
    _prepared: Prepared,
}

impl Setup {
    fn new(case: &Case, cpus: [usize; 2], effort: Effort, census: Option<u64>) -> Outcome<Setup> {
        let prepared = mechanism::prepare(case)?;
        let page = bare::Area::create(control::LEN)?;
        bare::inherit(page.as_fd())?;
        Ok(Setup {
            job: Job {
                case: *case,
                role: Role::Leader,
                cpus,
                effort,
                census,
                parent: std::process::id(),
                control: page.as_raw_fd(),
                fds: mechanism::hand_down(&prepared)?,
                queues: prepared.queue_ids(),
            },
            page,
            _prepared: prepared,
        })
    }

    fn start(&self) -> Outcome<Vec<Child>> {
        let mut workers = Vec::new();
        for role in [Role::Leader, Role::Follower] {
            match start(&Job {
                role,
                ..self.job.clone()
            }) {
                Ok(child) => workers.push(child),
                Err(error) => {
                    end(&mut workers);
                    return Err(error);
                }
            }
        }
        Ok(workers)
    }
}

fn start(job: &Job) -> Outcome<Child> {
    // By the link in /proc, so that a binary replaced meanwhile is still the same program.
    Ok(Command::new("/proc/self/exe")
        .arg(SUBCOMMAND)
        .arg(serde_json::to_string(job)?)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?)
}

fn end(workers: &mut [Child]) {
    for worker in workers {
        let _ = worker.kill(); // it may have ended by itself
        let _ = worker.wait();
    }
}

/// Reads what the workers say, and ends both as soon as one fails.
fn collect(mut workers: Vec<Child>, case: &Case) -> Outcome<Repetition> {
    let (said, hear) = mpsc::channel();
    let mut readers = Vec::new();
    for (index, worker) in workers.iter_mut().enumerate() {
        let (Some(mut out), Some(mut err)) = (worker.stdout.take(), worker.stderr.take()) else {
            continue;
        };
        let said = said.clone();
        readers.push(std::thread::spawn(move || {
            let (mut findings, mut trouble) = (String::new(), String::new());
            let read = out
                .read_to_string(&mut findings)
                .and_then(|_| err.read_to_string(&mut trouble));
            let _ = said.send((index, read.map(|_| (findings, trouble))));
        }));
    }
    drop(said);
    let mut texts = [const { String::new() }; 2];
    let mut failed: Option<String> = None;
    for (index, read) in hear {
        let (findings, trouble) = read?;
        let status = workers[index].wait()?;
        if status.success() {
            texts[index] = findings;
        } else if failed.is_none() {
            let trouble = trouble.trim().trim_start_matches("ringway: ").to_owned();
            failed = Some(if trouble.is_empty() {
                format!("a worker was ended by {status}")
            } else {
                trouble
            });
            end(&mut workers);
        }
    }
    for reader in readers {
        let _ = reader.join();
    }
    if let Some(trouble) = failed {
        return Err(format!(
            "{} ({}, {} B): {trouble}",
            case.label(),
            case.mode.name(),
            case.size
        )
        .into());
    }
    Ok(Repetition {
        leader: serde_json::from_str(&texts[0])?,
        follower: serde_json::from_str(&texts[1])?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::bench::plan::{Mechanism, Mode};

    #[test]
    fn a_given_number_of_messages_may_take_as_long_as_it_takes() {
        let limit = |duration_ms, count| {
            let job = Job {
                case: Case {
                    mode: Mode::Rtt,
                    size: 8,
                    mechanism: Mechanism::Pipe,
                    wait: None,
                    rate: None,
                },
                role: Role::Leader,
                cpus: [0, 0],
                effort: Effort { duration_ms, count },
                census: None,
                parent: 0,
                control: -1,
                fds: Vec::new(),
                queues: Vec::new(),
            };
            job.limit()
        };
        assert_eq!(limit(20, Some(3_000_000)), None);
        assert!(limit(3_600_000, None) > Some(Duration::from_secs(3600)));
    }
}
