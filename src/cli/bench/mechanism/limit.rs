//! What the machine itself allows: a bare futex ping-pong, and copying.

use super::super::control::{Control, Kind, Phase, Role};
use super::super::engine::Findings;
use super::super::link::{Link, Outcome};
use super::super::message::blank;
use super::super::worker::Job;
use super::directions;
use crate::os::clock::{self, Deadline};
use crate::os::{futex, measure};
use crate::primitive::{AtomicU32, Ordering};

/// Two words, there and back; a message is one more in the word, and a wake.
pub(super) struct BareFutex<'a> {
    output: &'a AtomicU32,
    input: &'a AtomicU32,
    sent: u32,
    received: u32,
}

impl<'a> BareFutex<'a> {
    pub(super) fn new(role: Role, control: &'a Control) -> BareFutex<'a> {
        let (out, back) = directions(role);
        let words = control.futex_words();
        BareFutex {
            output: words[out],
            input: words[back],
            sent: 0,
            received: 0,
        }
    }
}

impl Link for BareFutex<'_> {
    fn send(&mut self, _: &[u8]) -> Outcome<()> {
        self.sent = self.sent.wrapping_add(1);
        // SYNC: the word of a bare futex. Release, as a message would need it.
        self.output.store(self.sent, Ordering::Release);
        futex::wake(self.output, 1);
        Ok(())
    }

    fn recv(&mut self, _: &mut [u8]) -> Outcome<usize> {
        let before = self.received;
        // SYNC: the word of a bare futex. Acquire, as a message would need it.
        while self.input.load(Ordering::Acquire) == before {
            futex::wait(self.input, before, Deadline::NEVER)?;
        }
        self.received = before.wrapping_add(1);
        Ok(0)
    }
}

/// Copies messages in one process, from a buffer to another; the follower only keeps step.
pub(super) fn copy(job: &Job, control: &Control) -> Outcome<Findings> {
    let mut findings = Findings::default();
    control.meet();
    findings.before = control.probe();
    if job.role == Role::Leader {
        let from = blank(job.case.size);
        let mut to = blank(job.case.size);
        let mut pass = |count: u64| {
            let begun = clock::now();
            for _ in 0..count {
                core::hint::black_box(&mut to).copy_from_slice(core::hint::black_box(&from));
            }
            (clock::now() - begun).max(1)
        };
        let wanted = job.effort.duration_ms * 1_000_000;
        let mut count = 1;
        while pass(count) < wanted / 8 {
            count *= 2;
        }
        let used = measure::usage();
        let count = count * 4;
        let took = pass(count);
        findings.per_second = Some(count as f64 * 1e9 / took as f64);
        findings.messages = count;
        findings.charge(used);
        control.announce(Phase {
            kind: Kind::Stop,
            count: 0,
            start: 0,
        });
    } else {
        control.listen();
    }
    findings.after = control.probe();
    Ok(findings)
}
