//! From repetitions to rows: one row a case, from the repetitions of one placement.

use std::collections::BTreeMap;

use super::KEPT_UP;
use super::machine::Machine;
use super::plan::{Case, Mechanism, Mode};
use super::rows::{ENOUGH, FAR_NS, Percentiles, Placement, Row, SETTLED, Sample, is_settled};
use super::statistics::Spread;
use super::worker::Repetition;

/// All repetitions of a run.
pub(crate) struct Record {
    /// How many rounds were asked for.
    rounds: usize,
    repetitions: BTreeMap<Case, Vec<Repetition>>,
    syscalls: BTreeMap<Case, f64>,
}

impl Record {
    /// Nothing yet, of a run of so many rounds.
    pub(crate) fn new(rounds: usize) -> Record {
        Record {
            rounds,
            repetitions: BTreeMap::new(),
            syscalls: BTreeMap::new(),
        }
    }

    /// Adds a repetition.
    pub(crate) fn add(&mut self, case: Case, repetition: Repetition) {
        self.repetitions.entry(case).or_default().push(repetition);
    }

    /// Notes how many system calls a message of `case` takes.
    pub(crate) fn add_census(&mut self, case: Case, per_message: f64) {
        self.syscalls.insert(case, per_message);
    }

    /// The placement that the rows stand on where they can: the one that most repetitions had. Rows
    /// of different placements do not compare.
    fn main_placement(&self) -> Placement {
        // Of the rounds that went through all: those that are unsettled have no more votes for it.
        let all = || {
            self.repetitions
                .values()
                .flat_map(|all| all.iter().take(self.rounds))
        };
        let count = |p| all().filter(|r| r.placement() == p).count();
        if count(Placement::Same) > 0 {
            Placement::Same
        } else if count(Placement::Far) > count(Placement::Near) {
            Placement::Far
        } else {
            Placement::Near
        }
    }

    /// The placement whose repetitions a case is judged by: the main one if it was ever met.
    fn placement(main: Placement, repetitions: &[Repetition]) -> Placement {
        [main, Placement::Near, Placement::Far]
            .into_iter()
            .find(|&p| repetitions.iter().any(|r| r.placement() == p))
            .unwrap_or(Placement::Moved)
    }

    /// Those of `cases`, after the rounds that were asked for, whose rows cannot be relied on yet: too few repetitions at
    /// the main placement, or too far spread. Not those of open load that mostly fell behind, or were not tried because a
    /// lower rate did, at whatever placement: beyond what a mechanism can carry nothing settles.
    pub(crate) fn unsettled(&self, cases: &[Case]) -> Vec<Case> {
        let main = self.main_placement();
        let is_unsettled = |case: &&Case| {
            let all = self.repetitions.get(case).map_or(&[][..], Vec::as_slice);
            let at_main = || all.iter().filter(|one| one.placement() == main);
            let kept_up = at_main().filter(|one| one.keeps_up(case.rate)).count();
            let fell_behind = at_main().count() - kept_up + self.rounds.saturating_sub(all.len());
            fell_behind <= kept_up
                && Spread::of(at_main().filter_map(|one| one.value(case.mode)).collect())
                    .is_none_or(|spread| !is_settled(&spread, self.rounds))
        };
        cases.iter().filter(is_unsettled).copied().collect()
    }

    /// What the run itself found doubtful, with the remedy.
    pub(crate) fn doubts(&self, rows: &[Row], machine: &Machine) -> Vec<String> {
        let mut doubts = Vec::new();
        let main = self.main_placement();
        let all = || self.repetitions.values().flatten();
        let elsewhere = all().filter(|one| one.placement() != main).count();
        if elsewhere > 0 {
            doubts.push(format!(
                "{elsewhere} of {} repetitions found the CPUs not {} each other, or moved \
                 meanwhile; rows stand on the others where there are any, and say which",
                all().count(),
                main.name(),
            ));
        }
        if main == Placement::Far {
            doubts.push(format!(
                "the two CPUs were far apart (a cache line took over {FAR_NS} ns there and back); {}",
                machine.far_remedy()
            ));
        }
        let doubtful = rows.iter().filter(|row| row.unsettled).count();
        if doubtful > 0 {
            doubts.push(format!(
                "{doubtful} of {} rows are unsettled (an interquartile range of over {:.0} % of the median, or a median so uncertain \
                 that two runs could be as far apart, fewer than {ENOUGH} repetitions at one placement, or none): do not rely on \
                 those; end other programs, or give more --rounds and a longer --duration",
                rows.len(),
                SETTLED * 100.0
            ));
        }
        doubts
    }

    /// The rows: limits first.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let main = self.main_placement();
        let mut rows: Vec<Row> = [Mechanism::Raw1, Mechanism::Raw2]
            .into_iter()
            .flat_map(|limit| self.probes(limit))
            .collect();
        rows.extend(
            self.repetitions
                .iter()
                .filter_map(|(case, repetitions)| self.row(case, repetitions, main)),
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
                    ..Row::new(
                        limit_case(limit),
                        placement,
                        limit,
                        &spread,
                        [self.rounds, rounds],
                    )
                })
            })
            .collect()
    }

    fn row(&self, case: &Case, all: &[Repetition], main: Placement) -> Option<Row> {
        let placement = Record::placement(main, all);
        let chosen: Vec<&Repetition> = all
            .iter()
            .filter(|one| one.placement() == placement)
            .collect();
        let spread = Spread::of(
            chosen
                .iter()
                .filter_map(|one| one.value(case.mode))
                .collect(),
        )?;
        let limit = if case.mechanism.is_limit() {
            case.mechanism
        } else if placement == Placement::Same && case.limit() == Mechanism::Raw2 {
            Mechanism::BareFutex // no line travels, but the processor changes hands
        } else {
            case.limit()
        };
        let mut row = Row::new(*case, placement, limit, &spread, [self.rounds, all.len()]);
        if !case.mode.is_throughput() {
            let mut pool: BTreeMap<u64, u64> = BTreeMap::new();
            for one in &chosen {
                for &(value, count) in one.leader.each_ns.iter().chain(&one.follower.each_ns) {
                    *pool.entry(value).or_default() += count;
                }
            }
            let at = |share| percentile(&pool, share);
            row.rtt_ns = Some(Percentiles {
                p50: at(0.5),
                p90: Some(at(0.9)),
                p99: Some(at(0.99)),
                p999: Some(at(0.999)),
                max: at(1.0),
            });
            row.curve = CURVE.iter().map(|&share| (share, at(share))).collect();
        }
        if case.mode == Mode::Paced {
            row.msgs_per_s = Spread::of(
                chosen
                    .iter()
                    .filter_map(|one| one.leader.per_second)
                    .collect(),
            )?
            .median;
            row.bytes_per_s = row.msgs_per_s * case.size as f64;
        }
        let messages: u64 = chosen.iter().map(|one| one.leader.messages).sum();
        let both = |get: fn(&super::engine::Findings) -> u64| {
            chosen
                .iter()
                .map(|one| get(&one.leader) + get(&one.follower))
                .sum::<u64>() as f64
                / messages.max(1) as f64
        };
        if case.mode != Mode::Paced {
            // There the sender watches the clock between messages.
            row.cpu_ns_per_msg = Some(both(|found| found.cpu_ns));
        }
        row.sleeps_per_msg = Some(both(|found| found.sleeps));
        row.syscalls_per_msg = self.syscalls.get(case).copied();
        row.repetitions = all.iter().filter_map(|one| one.sample(case.mode)).collect();
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

impl Repetition {
    /// Whether the messages came through at the rate at which they were sent, if there was one.
    pub(super) fn keeps_up(&self, rate: Option<u64>) -> bool {
        let both = rate.zip(self.leader.per_second);
        both.is_none_or(|(rate, came)| came >= KEPT_UP * rate as f64)
    }

    fn placement(&self) -> Placement {
        Placement::of(self.leader.before, self.leader.after)
    }

    /// Nanoseconds, or messages a second.
    fn value(&self, mode: Mode) -> Option<f64> {
        if mode.is_throughput() {
            self.leader.per_second
        } else {
            self.typical_ns()
        }
    }

    fn sample(&self, mode: Mode) -> Option<Sample> {
        let probes = self.leader.before.zip(self.leader.after);
        Some(Sample {
            value: self.value(mode)?,
            placement: self.placement(),
            raw1_ns: probes.map(|(before, after)| [before.raw1, after.raw1]),
            raw2_ns: probes.map(|(before, after)| [before.raw2, after.raw2]),
        })
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
    use super::super::control::Probe;
    use super::super::engine::Findings;
    use super::*;

    #[test]
    fn more_rounds_are_for_what_is_unsettled_and_was_carried() {
        let at = |rate| Case {
            mode: Mode::Paced,
            mechanism: Mechanism::Pipe,
            rate: Some(rate),
            ..limit_case(Mechanism::Raw1)
        };
        let cases = [1_000, 2_000, 3_000, 4_000, 5_000].map(at);
        let [steady, shaky, moving, beyond, untried] = cases;
        let never_near = limit_case(Mechanism::Pipe);
        let repetition = |typical: f64, per_second: f64, raw1: f64| Repetition {
            leader: Findings {
                typical_ns: Some(typical),
                per_second: Some(per_second),
                before: Some(Probe { raw1, raw2: 0.0 }),
                after: Some(Probe { raw1, raw2: 0.0 }),
                ..Findings::default()
            },
            follower: Findings::default(),
        };
        let (near, far) = (FAR_NS / 2.0, FAR_NS * 2.0);
        let mut record = Record::new(6);
        for round in 0..6 {
            record.add(steady, repetition(100.0, 1_000.0, near));
            let (is_off, typical) = (round == 0, 100.0 + 20.0 * f64::from(round));
            // Once it fell behind, or only far apart, where its row does not stand.
            let came = if is_off { 100.0 } else { 2_000.0 };
            record.add(shaky, repetition(typical, came, near));
            let (came, raw1) = if round < 2 {
                (3_000.0, near)
            } else {
                (300.0, far)
            };
            record.add(moving, repetition(100.0, came, raw1));
            let came = if round < 2 { 4_000.0 } else { 400.0 };
            record.add(beyond, repetition(typical, came, near));
            record.add(never_near, repetition(100.0, 1.0, far));
            if is_off {
                record.add(untried, repetition(typical, 5_000.0, near));
            }
        }
        assert_eq!(record.unsettled(&cases), [shaky, moving]);
        let never_tried = Case {
            rate: Some(6_000),
            ..steady
        };
        assert_eq!(record.unsettled(&[never_tried, never_near]), [never_near]);
    }

    #[test]
    fn percentiles_are_of_the_same_operations_and_the_typical_time_is_of_the_repetitions() {
        let repetition = |ns: u64, count: u64| Repetition {
            leader: Findings {
                typical_ns: Some(ns as f64),
                each_ns: vec![(ns, count)],
                messages: count,
                ..Findings::default()
            },
            follower: Findings::default(),
        };
        let case = Case {
            mechanism: Mechanism::Pipe,
            ..limit_case(Mechanism::Raw1)
        };
        let mut record = Record::new(3);
        // Most operations were fast, most repetitions slow.
        for (ns, count) in [(100, 1_000), (500, 10), (510, 10)] {
            record.add(case, repetition(ns, count));
        }
        let row = &record.rows()[0];
        let times = row.rtt_ns.unwrap();
        assert_eq!(row.typical_ns, Some(500.0));
        assert_eq!((times.p50, times.p90), (100.0, Some(100.0)));
        let rising = [Some(times.p50), times.p90, times.p99, times.p999];
        assert!(rising.is_sorted() && times.p999 <= Some(times.max));
    }

    #[test]
    fn percentiles_count_whole_operations() {
        let pool = BTreeMap::from([(10, 90), (20, 9), (1000, 1)]);
        assert_eq!(percentile(&pool, 0.5), 10.0);
        assert_eq!(percentile(&pool, 0.9), 10.0);
        assert_eq!(percentile(&pool, 0.99), 20.0);
        assert_eq!(percentile(&pool, 1.0), 1000.0);
        assert_eq!(percentile(&BTreeMap::new(), 0.5), 0.0);
    }
}
