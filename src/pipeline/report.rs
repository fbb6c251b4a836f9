//! What went wrong with a stage, and what a pipeline came to.

use std::fmt;

use crate::os::process::{self, End};

/// Why a stage failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reason {
    /// There is no program of that name.
    NotFound,
    /// There is such a file, but it may not be executed.
    NotExecutable,
    /// It could not be started, or what joins it to its neighbours could not be made.
    CannotStart(crate::Error),
    /// It ended with this status, which is not 0.
    Exited(i32),
    /// This signal killed it.
    Killed(i32),
    /// It wrote to a stage that had already ended.
    BrokenPipe,
    /// It could not go on handing out or collecting the work of its workers.
    Workers(crate::Error),
}

impl Reason {
    pub(super) fn of(end: End) -> Option<Reason> {
        match end {
            End::Exited(0) => None,
            // What a shell makes of a child that died of a broken pipe.
            End::Killed(process::SIGPIPE) | End::Exited(141) => Some(Reason::BrokenPipe),
            End::Exited(status) => Some(Reason::Exited(status)),
            End::Killed(signal) => Some(Reason::Killed(signal)),
        }
    }

    /// The exit status that a shell gives it.
    pub fn status(&self) -> u8 {
        match self {
            Reason::NotFound => 127,
            Reason::NotExecutable | Reason::CannotStart(_) => 126,
            Reason::Exited(status) => *status as u8,
            Reason::Killed(signal) => (128 + signal) as u8,
            Reason::BrokenPipe => (128 + process::SIGPIPE) as u8,
            Reason::Workers(_) => 1,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NotFound => f.write_str("no such program; check the name and PATH"),
            Reason::NotExecutable => f.write_str("not executable; check its mode with `ls -l`"),
            Reason::CannotStart(error) => write!(f, "cannot start: {error}"),
            Reason::Exited(status) => write!(f, "exit status {status}"),
            Reason::Killed(signal) => write!(f, "killed by {}", process::signal_name(*signal)),
            Reason::BrokenPipe => {
                f.write_str("broken pipe: the next stage ended before it had read everything")
            }
            Reason::Workers(error) => write!(f, "handing out its work failed: {error}"),
        }
    }
}

/// A stage that failed. Displayed as one line that names it.
#[derive(Debug)]
pub struct StageFailure {
    /// Which stage it is; the first is 1.
    pub stage: usize,
    /// Its command line.
    pub command: String,
    /// What happened.
    pub reason: Reason,
}

impl fmt::Display for StageFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "stage {} ({}): {}",
            self.stage, self.command, self.reason
        )
    }
}

impl std::error::Error for StageFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.reason {
            Reason::CannotStart(error) | Reason::Workers(error) => Some(error),
            _ => None,
        }
    }
}

/// What a pipeline came to.
#[derive(Debug, Default)]
pub struct Outcome {
    failures: Vec<StageFailure>,
}

impl Outcome {
    /// Adds a stage's failure; to be called in the order of time.
    pub(super) fn add(&mut self, failure: StageFailure) {
        self.failures.push(failure);
    }

    /// The failures, first things first.
    pub fn failures(&self) -> &[StageFailure] {
        &self.failures
    }

    /// The exit status that a shell with `pipefail` gives the pipeline: that of the last stage in
    /// it that failed, or 0.
    pub fn status(&self) -> u8 {
        let last = self.failures.iter().max_by_key(|failure| failure.stage);
        last.map_or(0, |failure| failure.reason.status())
    }

    /// The failure that the others most likely follow from: the first stage that was killed, or
    /// else the first that failed with something else than a broken pipe, which is only how a
    /// stage learns that a later one has ended.
    pub fn cause(&self) -> Option<&StageFailure> {
        let killed = |failure: &&StageFailure| matches!(failure.reason, Reason::Killed(_));
        let own = |failure: &&StageFailure| !matches!(failure.reason, Reason::BrokenPipe);
        let failures = &self.failures;
        failures
            .iter()
            .find(killed)
            .or_else(|| failures.iter().find(own))
            .or(failures.first())
    }
}

/// One line: the cause, and which stages failed with it.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(cause) = self.cause() else {
            return f.write_str("every stage ended well");
        };
        write!(f, "{cause}")?;
        let mut others: Vec<usize> = self
            .failures
            .iter()
            .map(|failure| failure.stage)
            .filter(|stage| *stage != cause.stage)
            .collect();
        others.sort_unstable();
        others.dedup();
        match &others[..] {
            [] => Ok(()),
            [one] => write!(f, " (stage {one} failed too)"),
            [first @ .., last] => {
                let first: Vec<String> = first.iter().map(usize::to_string).collect();
                write!(f, " (stages {} and {last} failed too)", first.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(ends: &[(usize, End)]) -> Outcome {
        let mut outcome = Outcome::default();
        for &(stage, end) in ends {
            if let Some(reason) = Reason::of(end) {
                outcome.add(StageFailure {
                    stage,
                    command: "c".into(),
                    reason,
                });
            }
        }
        outcome
    }

    #[test]
    fn the_status_is_that_of_the_last_stage_that_failed() {
        assert_eq!(
            outcome(&[(1, End::Exited(0)), (2, End::Exited(0))]).status(),
            0
        );
        assert_eq!(
            outcome(&[(2, End::Exited(3)), (1, End::Killed(9))]).status(),
            3
        );
        assert_eq!(
            outcome(&[(3, End::Exited(0)), (1, End::Killed(13))]).status(),
            141
        );
    }

    #[test]
    fn the_line_names_the_cause_and_not_its_consequence() {
        let outcome = outcome(&[
            (1, End::Killed(13)),
            (2, End::Killed(9)),
            (3, End::Exited(1)),
        ]);
        assert_eq!(
            outcome.to_string(),
            "stage 2 (c): killed by SIGKILL (stages 1 and 3 failed too)"
        );
    }
}
