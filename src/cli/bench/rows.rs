//! From repetitions to rows: one row a case, from the repetitions of one placement.

use std::collections::BTreeMap;

use serde::Serialize;

use super::control::Probe;
use super::plan::{Case, Mechanism, Mode, Wait};
use super::statistics::Spread;
use super::worker::Repetition;

/// A one-line round trip longer than this, in nanoseconds, is one between processors that share no
/// cache near them.
const FAR_NS: f64 = 150.0;

/// An interquartile range beyond this share of the median is marked as unsettled.
const SETTLED: f64 = 0.15;

/// Where the processors of a repetition were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Placement {
    /// They shared a near cache, before and after.
    Near,
    /// They were far apart, before and after.
    Far,
    /// They were moved meanwhile.
    Moved,
    /// They were one.
    Same,
}

impl Placement {
    fn of(before: Option<Probe>, after: Option<Probe>) -> Placement {
        match (before, after) {
            (Some(before), Some(after)) => match (before.raw1 > FAR_NS, after.raw1 > FAR_NS) {
                (false, false) => Placement::Near,
                (true, true) => Placement::Far,
                _ => Placement::Moved,
            },
            _ => Placement::Same,
        }
    }

    /// As shown.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Placement::Near => "near",
            Placement::Far => "far",
            Placement::Moved => "moved",
            Placement::Same => "same",
        }
    }
}

/// Percentiles in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    /// Unknown where only blocks of operations were timed.
    pub(crate) p90: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) p999: Option<f64>,
    pub(crate) max: f64,
}

/// One result.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) mechanism: Mechanism,
    pub(crate) mode: Mode,
    pub(crate) size: usize,
    pub(crate) wait: Option<Wait>,
    pub(crate) placement: Placement,
    /// Messages a second; of a latency, the round trips (or messages) that fit into a second.
    pub(crate) msgs_per_s: f64,
    pub(crate) bytes_per_s: f64,
    /// Round-trip times (one-way times in modes oneway and paced); none for throughput. Where an
    /// operation is short against the clock, p50 is that of the median block of many.
    pub(crate) rtt_ns: Option<Percentiles>,
    /// The limit this is compared with.
    pub(crate) limit: Mechanism,
    /// What the limit came to in the same rounds: nanoseconds, or messages a second.
    pub(crate) limit_value: Option<f64>,
    /// How many times the limit's time this takes (1 is the limit; more is slower), or for
    /// throughput how many times fewer messages.
    pub(crate) ratio_to_limit: Option<f64>,
    /// How many repetitions the row stands on, of how many made at any placement.
    pub(crate) rounds: usize,
    pub(crate) rounds_made: usize,
    /// The least and the most of the repetitions: nanoseconds, or messages a second.
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// The width of the middle half as a share of the median.
    pub(crate) iqr: f64,
    /// Whether that is too much for the row to be relied on.
    pub(crate) unsettled: bool,
    /// Of both processes together, for a message (or a round trip).
    pub(crate) cpu_ns_per_msg: Option<f64>,
    pub(crate) sleeps_per_msg: Option<f64>,
    /// System calls of both processes together, for a message (or a round trip), from a count of
    /// its own.
    pub(crate) syscalls_per_msg: Option<f64>,
    /// The curve of the pooled repetitions: percentile, nanoseconds.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) curve: Vec<(f64, f64)>,
    /// The rate asked for, in the paced mode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<u64>,
}

impl Row {
    /// The row's case.
    pub(crate) fn case(&self) -> Case {
        Case {
            mode: self.mode,
            size: self.size,
            mechanism: self.mechanism,
            wait: self.wait,
            rate: self.rate,
        }
    }

    /// The value that rows are compared by: nanoseconds, or messages a second.
    pub(crate) fn value(&self) -> f64 {
        match (self.mode.is_throughput(), self.rtt_ns) {
            (false, Some(times)) => times.p50,
            _ => self.msgs_per_s,
        }
    }
}

/// All repetitions of a run.
#[derive(Default)]
pub(crate) struct Record {
    repetitions: BTreeMap<Case, Vec<Repetition>>,
    syscalls: BTreeMap<Case, f64>,
}

impl Record {
    /// Adds a repetition.
    pub(crate) fn add(&mut self, case: Case, repetition: Repetition) {
        self.repetitions.entry(case).or_default().push(repetition);
    }

    /// Notes how many system calls a message of `case` takes.
    pub(crate) fn add_census(&mut self, case: Case, per_message: f64) {
        self.syscalls.insert(case, per_message);
    }

    /// The placement whose repetitions `case` is judged by: near if any was, else the commonest.
    fn placement(repetitions: &[Repetition]) -> Placement {
        let count = |p| repetitions.iter().filter(|r| r.placement() == p).count();
        [Placement::Near, Placement::Same]
            .into_iter()
            .find(|&p| count(p) > 0)
            .unwrap_or(if count(Placement::Far) > 0 {
                Placement::Far
            } else {
                Placement::Moved
            })
    }

    /// The rows: limits first.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = [Mechanism::Raw1, Mechanism::Raw2]
            .into_iter()
            .flat_map(|limit| self.probes(limit))
            .collect();
        rows.extend(
            self.repetitions
                .iter()
                .filter_map(|(case, repetitions)| self.row(case, repetitions)),
        );
        let values: Vec<(Mechanism, usize, Placement, f64)> = rows
            .iter()
            .filter(|row| row.mechanism.is_limit())
            .map(|row| (row.mechanism, row.size, row.placement, row.value()))
            .collect();
        for row in &mut rows {
            let of_size = row.limit == Mechanism::Memcpy;
            let same = |(limit, size, placement, _): &&(Mechanism, usize, Placement, f64)| {
                *limit == row.limit
                    && (!of_size || *size == row.size)
                    && (of_size || *placement == row.placement)
            };
            // A wake-up costs the same wherever the processors are: if the limit was not met at
            // this placement, any will do for it.
            let found = values.iter().find(same).or_else(|| {
                values
                    .iter()
                    .find(|limit| limit.0 == Mechanism::BareFutex && limit.0 == row.limit)
            });
            if let Some(&(.., limit)) = found {
                // Round trips have the limit of a round trip, one-way times half of it.
                let limit = match row.mode {
                    Mode::Oneway | Mode::Paced => limit / 2.0,
                    _ => limit,
                };
                row.limit_value = Some(limit);
                row.ratio_to_limit = Some(if row.mode.is_throughput() {
                    limit / row.value()
                } else {
                    row.value() / limit
                });
            }
        }
        rows
    }

    /// The rows of a raw limit, one a placement, from the probes around every repetition.
    fn probes(&self, limit: Mechanism) -> Vec<Row> {
        let mut times: BTreeMap<Placement, Vec<f64>> = BTreeMap::new();
        for repetition in self.repetitions.values().flatten() {
            let placement = repetition.placement();
            for probe in [repetition.leader.before, repetition.leader.after] {
                if let (Some(probe), false) = (probe, placement == Placement::Moved) {
                    times
                        .entry(placement)
                        .or_default()
                        .push(if limit == Mechanism::Raw1 {
                            probe.raw1
                        } else {
                            probe.raw2
                        });
                }
            }
        }
        times
            .into_iter()
            .filter_map(|(placement, times)| {
                let spread = Spread::of(times)?;
                let rounds = spread.count;
                Some(Row {
                    rtt_ns: Some(Percentiles {
                        p50: spread.median,
                        max: spread.max,
                        ..Percentiles::default()
                    }),
                    msgs_per_s: 1e9 / spread.median,
                    bytes_per_s: 8e9 / spread.median,
                    ..Row::new(limit_case(limit), placement, limit, &spread, rounds)
                })
            })
            .collect()
    }

    fn row(&self, case: &Case, all: &[Repetition]) -> Option<Row> {
        let placement = Record::placement(all);
        let chosen: Vec<&Repetition> = all
            .iter()
            .filter(|one| one.placement() == placement)
            .collect();
        let throughput = case.mode.is_throughput();
        let spread = Spread::of(
            chosen
                .iter()
                .filter_map(|one| {
                    if throughput {
                        one.leader.per_second
                    } else {
                        one.typical_ns()
                    }
                })
                .collect(),
        )?;
        let limit = if case.mechanism.is_limit() {
            case.mechanism
        } else if placement == Placement::Same && case.limit() == Mechanism::Raw2 {
            Mechanism::BareFutex // no line travels, but the processor changes hands
        } else {
            case.limit()
        };
        let mut row = Row::new(*case, placement, limit, &spread, all.len());
        let mut pool: BTreeMap<u64, u64> = BTreeMap::new();
        for one in &chosen {
            for &(value, count) in one.leader.each_ns.iter().chain(&one.follower.each_ns) {
                *pool.entry(value).or_default() += count;
            }
        }
        if throughput {
            row.msgs_per_s = spread.median;
        } else {
            let at = |share| percentile(&pool, share);
            row.rtt_ns = Some(Percentiles {
                p50: spread.median,
                p90: Some(at(0.9)),
                p99: Some(at(0.99)),
                p999: Some(at(0.999)),
                max: at(1.0),
            });
            row.curve = CURVE.iter().map(|&share| (share, at(share))).collect();
            row.msgs_per_s = 1e9 / spread.median;
        }
        if case.mode == Mode::Paced {
            row.msgs_per_s = Spread::of(
                chosen
                    .iter()
                    .filter_map(|one| one.leader.per_second)
                    .collect(),
            )?
            .median;
        }
        row.bytes_per_s = row.msgs_per_s * case.size as f64;
        let messages: u64 = chosen.iter().map(|one| one.leader.messages).sum();
        let both = |get: fn(&super::engine::Findings) -> u64| {
            chosen
                .iter()
                .map(|one| get(&one.leader) + get(&one.follower))
                .sum::<u64>() as f64
                / messages.max(1) as f64
        };
        row.cpu_ns_per_msg = Some(both(|found| found.cpu_ns));
        row.sleeps_per_msg = Some(both(|found| found.sleeps));
        row.syscalls_per_msg = self.syscalls.get(case).copied();
        Some(row)
    }
}

/// Where a percentile curve is drawn.
const CURVE: [f64; 12] = [
    0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999, 1.0,
];

/// The value at `share` of a pool of values and their counts; 0 of nothing.
fn percentile(pool: &BTreeMap<u64, u64>, share: f64) -> f64 {
    let total: u64 = pool.values().sum();
    let wanted = ((share * total as f64).ceil() as u64).max(1);
    let mut seen = 0;
    for (&value, &count) in pool {
        seen += count;
        if seen >= wanted {
            return value as f64;
        }
    }
    0.0
}

fn limit_case(mechanism: Mechanism) -> Case {
    Case {
        mode: Mode::Rtt,
        size: 8,
        mechanism,
        wait: None,
        rate: None,
    }
}

impl Row {
    fn new(
        case: Case,
        placement: Placement,
        limit: Mechanism,
        spread: &Spread,
        rounds_made: usize,
    ) -> Row {
        Row {
            mechanism: case.mechanism,
            mode: case.mode,
            size: case.size,
            wait: case.wait,
            placement,
            msgs_per_s: 0.0,
            bytes_per_s: 0.0,
            rtt_ns: None,
            limit,
            limit_value: None,
            ratio_to_limit: None,
            rounds: spread.count,
            rounds_made,
            min: spread.min,
            max: spread.max,
            iqr: spread.relative_iqr(),
            unsettled: spread.relative_iqr() > SETTLED || placement == Placement::Moved,
            cpu_ns_per_msg: None,
            sleeps_per_msg: None,
            syscalls_per_msg: None,
            curve: Vec::new(),
            rate: case.rate,
        }
    }
}

impl Repetition {
    fn placement(&self) -> Placement {
        Placement::of(self.leader.before, self.leader.after)
    }

    fn typical_ns(&self) -> Option<f64> {
        if let Some(typical) = self.leader.typical_ns.or(self.follower.typical_ns) {
            return Some(typical);
        }
        let pool = self.follower.each_ns.iter().copied().collect();
        Some(percentile(&pool, 0.5)).filter(|&p50| p50 > 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_count_whole_operations() {
        let pool = BTreeMap::from([(10, 90), (20, 9), (1000, 1)]);
        assert_eq!(percentile(&pool, 0.5), 10.0);
        assert_eq!(percentile(&pool, 0.9), 10.0);
        assert_eq!(percentile(&pool, 0.99), 20.0);
        assert_eq!(percentile(&pool, 1.0), 1000.0);
        assert_eq!(percentile(&BTreeMap::new(), 0.5), 0.0);
    }

    #[test]
    fn a_repetition_is_near_only_if_it_was_so_before_and_after() {
        let at = |raw1| Some(Probe { raw1, raw2: 0.0 });
        assert_eq!(Placement::of(at(60.0), at(70.0)), Placement::Near);
        assert_eq!(Placement::of(at(60.0), at(320.0)), Placement::Moved);
        assert_eq!(Placement::of(at(340.0), at(320.0)), Placement::Far);
        assert_eq!(Placement::of(None, None), Placement::Same);
    }
}
