//! The one way in which every mechanism is measured: warm up until the speed is known, then run as
//! many messages as fill the time, between two probes of how far apart the processors are.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::control::{Control, Kind, Phase, Probe, Role};
use super::link::{Link, Outcome};
use super::message::{Checker, blank, first_word, stamp};
use super::plan::{BATCH, Mode};
use super::statistics::median;
use super::worker::Job;
use crate::os::{self, clock, measure};

/// What one worker found out in one repetition.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Findings {
    /// The probes before and after; none when the workers share a processor.
    pub(crate) before: Option<Probe>,
    /// See `before`.
    pub(crate) after: Option<Probe>,
    /// Nanoseconds of an operation in the median block of many: free of the clock's own cost and
    /// of its grain. Round trips and one-way times only.
    pub(crate) typical_ns: Option<f64>,
    /// Each operation timed on its own: nanoseconds, and how many took them.
    pub(crate) each_ns: Vec<(u64, u64)>,
    /// Messages a second.
    pub(crate) per_second: Option<f64>,
    /// How many messages (or round trips) were measured.
    pub(crate) messages: u64,
    /// Processor time while measuring, in nanoseconds.
    pub(crate) cpu_ns: u64,
    /// How often this worker went to sleep while measuring.
    pub(crate) sleeps: u64,
    /// How often it lost the processor to somebody else while measuring.
    pub(crate) preemptions: u64,
}

/// How long a block of round trips that are timed together should take, in nanoseconds: long
/// against the clock's cost (about 25) and its grain (10 on some machines).
const BLOCK_NS: f64 = 5_000.0;

/// Runs this worker's side of a repetition over `link`.
pub(crate) fn run<L: Link>(job: &Job, control: &Control, link: L) -> Outcome<Findings> {
    let size = job.case.size;
    let mut side = Side {
        mode: job.case.mode,
        link,
        message: blank(size),
        batch: vec![blank(size); BATCH],
        room: vec![0; size],
        checker: Checker::new(size),
        next: 0,
        arrived: None,
        interval: job.case.rate.map_or(0.0, |rate| 1e9 / rate as f64),
        shares_cpu: !job.apart(),
        each: Histogram::new_with_bounds(1, 60_000_000_000, 3)?,
        blocks: Vec::new(),
    };
    let mut findings = Findings::default();
    control.meet();
    if job.census.is_none() {
        findings.before = control.probe();
    }
    match job.role {
        Role::Leader => side.lead(job, control, &mut findings)?,
        Role::Follower => side.follow(control, &mut findings)?,
    }
    if job.census.is_none() {
        findings.after = control.probe();
    }
    findings.each_ns = side
        .each
        .iter_recorded()
        .map(|v| (v.value_iterated_to(), v.count_at_value()))
        .collect();
    if !side.blocks.is_empty() {
        findings.typical_ns = Some(median(&mut side.blocks));
    }
    Ok(findings)
}

/// One end of the link, with all it needs so that nothing is allocated while measuring.
struct Side<L> {
    mode: Mode,
    link: L,
    message: Vec<u8>,
    batch: Vec<Vec<u8>>,
    room: Vec<u8>,
    checker: Checker,
    /// The number of the next message; in the one-way mode the least that it may be.
    next: u64,
    /// Length and number of what is in `room` and was not compared yet.
    arrived: Option<(usize, u64)>,
    /// Nanoseconds between two messages in the paced mode.
    interval: f64,
    shares_cpu: bool,
    each: Histogram<u64>,
    blocks: Vec<f64>,
}

/// How the leader times round trips.
#[derive(Clone, Copy)]
enum Timing {
    None,
    Blocks(u64),
    Each { clock_ns: u64 },
}

impl<L: Link> Side<L> {
    fn lead(&mut self, job: &Job, control: &Control, findings: &mut Findings) -> Outcome<()> {
        if let Some(count) = job.census {
            return self.census(count, control);
        }
        let wanted = job.effort.duration_ms as f64 * 1e6;
        // Warm up with more and more messages, until their number says how fast it goes.
        let mut count = 1u64;
        let mut per_message;
        loop {
            let begun = clock::now();
            self.phase(control, Kind::Warm, count, Timing::None)?;
            let took = (clock::now() - begun) as f64;
            per_message = took / count as f64;
            if took >= wanted / 4.0 {
                break;
            }
            let more = (wanted / 3.0 / per_message) as u64;
            count = more.clamp(count + 1, count * 8);
        }
        let full = job
            .effort
            .count
            .unwrap_or((wanted / per_message) as u64)
            .max(1);
        let used = measure::usage();
        match self.mode {
            Mode::Rtt => {
                let block = ((BLOCK_NS / per_message) as u64).clamp(1, 256);
                if block > 1 {
                    // Half the time for blocks, which are exact, half for each, which has tails.
                    let count = (full / 2).next_multiple_of(block);
                    self.phase(control, Kind::Measure, count, Timing::Blocks(block))?;
                    findings.messages += count;
                }
                let count = if block > 1 { (full / 2).max(1) } else { full };
                let clock_ns = clock_cost();
                self.phase(control, Kind::Measure, count, Timing::Each { clock_ns })?;
                findings.messages += count;
                if block == 1 {
                    self.blocks.push(self.each.value_at_quantile(0.5) as f64);
                }
            }
            Mode::Oneway => {
                self.phase(control, Kind::Measure, full, Timing::None)?;
                findings.messages = full;
            }
            Mode::Throughput | Mode::Batch => {
                let took = self.phase(control, Kind::Measure, full, Timing::None)?;
                findings.per_second = Some(full as f64 * 1e9 / took as f64);
                findings.messages = full;
            }
            Mode::Paced => {
                // No more than twice the time's worth of what it can do: a mechanism that cannot
                // keep the rate shows that soon enough.
                let count = match job.effort.count {
                    Some(count) => count,
                    None => ((wanted / self.interval) as u64).min(2 * full).max(1),
                };
                let took = self.phase(control, Kind::Measure, count, Timing::None)?;
                findings.per_second = Some(count as f64 * 1e9 / took as f64);
                findings.messages = count;
            }
        }
        findings.charge(used);
        control.announce(Phase {
            kind: Kind::Stop,
            count: 0,
            start: 0,
        });
        Ok(())
    }

    /// Sends a given number of messages for somebody who counts what they take, without timing.
    fn census(&mut self, count: u64, control: &Control) -> Outcome<()> {
        self.phase(control, Kind::Warm, count, Timing::None)?;
        self.phase(control, Kind::Measure, count, Timing::None)?;
        control.announce(Phase {
            kind: Kind::Stop,
            count: 0,
            start: 0,
        });
        Ok(())
    }

    /// The leader's part of a phase; nanoseconds from its start to the follower's last message.
    fn phase(&mut self, control: &Control, kind: Kind, count: u64, timing: Timing) -> Outcome<u64> {
        let start = clock::now() + 20_000; // both have passed the meeting by then
        control.announce(Phase { kind, count, start });
        let begun = clock::now();
        let whole = kind == Kind::Warm;
        control.set_measuring(!whole);
        if self.mode == Mode::Rtt {
            stamp(&mut self.message, self.next);
        }
        match self.mode {
            Mode::Rtt => match timing {
                Timing::None => (0..count).try_for_each(|_| self.round_trip(whole))?,
                Timing::Blocks(block) => {
                    for _ in 0..count / block {
                        let begun = clock::now();
                        (0..block).try_for_each(|_| self.round_trip(whole))?;
                        self.blocks
                            .push((clock::now() - begun) as f64 / block as f64);
                    }
                }
                Timing::Each { clock_ns } => {
                    let mut last = clock::now();
                    for _ in 0..count {
                        self.round_trip(whole)?;
                        let now = clock::now();
                        self.each
                            .saturating_record((now - last).saturating_sub(clock_ns).max(1));
                        last = now;
                    }
                }
            },
            Mode::Oneway => {
                for _ in 0..count {
                    // The time is the number too: no two are the same, however coarse the clock.
                    let sent = clock::now().max(self.next);
                    stamp(&mut self.message, sent);
                    self.link.send(&self.message)?;
                    self.next = sent + 1;
                    let len = self.link.recv(&mut self.room)?;
                    self.checker.check(&self.room[..len], sent, whole)?;
                }
            }
            Mode::Throughput => {
                for number in self.next..self.next + count {
                    stamp(&mut self.message, number);
                    self.link.send(&self.message)?;
                }
                self.next += count;
            }
            Mode::Batch => {
                let end = self.next + count;
                while self.next < end {
                    let len = (end - self.next).min(BATCH as u64);
                    for (message, number) in self.batch.iter_mut().zip(self.next..self.next + len) {
                        stamp(message, number);
                    }
                    self.link.send_batch(&self.batch[..len as usize])?;
                    self.next += len;
                }
            }
            Mode::Paced => {
                for i in 0..count {
                    // Due when it is due, whether or not the one before got away in time.
                    let due = start + (i as f64 * self.interval) as u64;
                    while kind == Kind::Measure && clock::now() < due {
                        if self.shares_cpu {
                            os::yield_now();
                        }
                    }
                    stamp(&mut self.message, self.next);
                    self.link.send(&self.message)?;
                    self.next += 1;
                }
            }
        }
        self.compare(whole)?;
        control.set_measuring(false);
        control.meet();
        Ok(match self.mode {
            Mode::Rtt | Mode::Oneway => clock::now() - begun,
            _ => control.finished().saturating_sub(begun).max(1),
        })
    }

    fn follow(&mut self, control: &Control, findings: &mut Findings) -> Outcome<()> {
        let mut used = None;
        loop {
            let phase = control.listen();
            let whole = match phase.kind {
                Kind::Stop => break,
                Kind::Warm => true,
                Kind::Measure => false,
            };
            control.set_measuring(!whole);
            if !whole && used.is_none() {
                used = Some(measure::usage());
            }
            match self.mode {
                Mode::Rtt => (0..phase.count).try_for_each(|_| self.answer(whole))?,
                Mode::Oneway => {
                    for _ in 0..phase.count {
                        let len = self.link.recv(&mut self.room)?;
                        let now = clock::now();
                        // What cannot be seen here (a wrong time), the leader sees in the answer.
                        let sent = first_word(&self.room[..len]);
                        self.checker.check(&self.room[..len], sent, whole)?;
                        if sent < self.next {
                            return Err("a message arrived twice, or after a later one".into());
                        }
                        self.next = sent.saturating_add(1);
                        if !whole {
                            self.each.saturating_record(now.saturating_sub(sent).max(1));
                        }
                        self.link.send(&self.room)?;
                    }
                }
                Mode::Throughput => {
                    for number in self.next..self.next + phase.count {
                        let len = self.link.recv(&mut self.room)?;
                        self.checker.check(&self.room[..len], number, whole)?;
                    }
                    self.next += phase.count;
                }
                Mode::Batch => {
                    let end = self.next + phase.count;
                    let Side {
                        link,
                        room,
                        checker,
                        next,
                        ..
                    } = self;
                    while *next < end {
                        let max = (end - *next).min(BATCH as u64) as usize;
                        link.recv_batch(max, room, &mut |message| {
                            checker.check(message, *next, whole)?;
                            *next += 1;
                            Ok(())
                        })?;
                    }
                }
                Mode::Paced => {
                    for i in 0..phase.count {
                        let len = self.link.recv(&mut self.room)?;
                        let now = clock::now();
                        self.checker.check(&self.room[..len], self.next, whole)?;
                        self.next += 1;
                        if !whole {
                            let due = phase.start + (i as f64 * self.interval) as u64;
                            self.each.saturating_record(now.saturating_sub(due).max(1));
                        }
                    }
                }
            }
            control.finish();
            control.set_measuring(false);
            control.meet();
        }
        if self.mode == Mode::Oneway {
            self.blocks.push(self.each.value_at_quantile(0.5) as f64);
        }
        findings.charge(used.unwrap_or_default());
        Ok(())
    }

    /// A message there and one back. What has come is compared, and what goes next is made, while
    /// the message is under way: neither is part of a round trip.
    #[inline(always)]
    fn round_trip(&mut self, whole: bool) -> Outcome<()> {
        self.link.send(&self.message)?;
        self.compare(whole)?;
        stamp(&mut self.message, self.next + 1);
        let len = self.link.recv(&mut self.room)?;
        self.arrived = Some((len, self.next));
        self.next += 1;
        Ok(())
    }

    /// The other side of a round trip: what came goes back, and is compared after that.
    #[inline(always)]
    fn answer(&mut self, whole: bool) -> Outcome<()> {
        let len = self.link.recv(&mut self.room)?;
        self.link.send(&self.room[..len])?;
        self.arrived = Some((len, self.next));
        self.next += 1;
        self.compare(whole)
    }

    /// Compares what arrived last, if that was not done yet.
    #[inline(always)]
    fn compare(&mut self, whole: bool) -> Outcome<()> {
        match self.arrived.take() {
            Some((len, number)) => self.checker.check(&self.room[..len], number, whole),
            None => Ok(()),
        }
    }
}

impl Findings {
    /// Books what was used since `before`.
    pub(crate) fn charge(&mut self, before: measure::Usage) {
        let now = measure::usage();
        self.cpu_ns = now.cpu_ns - before.cpu_ns;
        self.sleeps = now.sleeps - before.sleeps;
        self.preemptions = now.preemptions - before.preemptions;
    }
}

/// What one look at the clock costs, in nanoseconds.
fn clock_cost() -> u64 {
    let mut blocks: Vec<f64> = (0..64)
        .map(|_| {
            let begun = clock::now();
            for _ in 0..63 {
                core::hint::black_box(clock::now());
            }
            (clock::now() - begun) as f64 / 64.0
        })
        .collect();
    median(&mut blocks) as u64
}

#[cfg(test)]
mod tests;
