//! A row: what is known about a case, from its repetitions at one placement.

use serde::Serialize;

use super::control::Probe;
use super::plan::{Case, Mechanism, Mode, Wait};
use super::statistics::Spread;

/// A one-line round trip longer than this, in nanoseconds, is one between processors that share no
/// cache near them.
pub(crate) const FAR_NS: f64 = 150.0;

/// An interquartile range beyond this share of the median, or a median that may be off by so much that two runs could be
/// further apart than this, is marked as unsettled.
pub(crate) const SETTLED: f64 = 0.15;

/// So many repetitions at one placement make a row, if so many were asked for.
pub(crate) const ENOUGH: usize = 5;

/// Whether repetitions at one placement can be relied on (the interquartile range decides where they are many: of up to
/// nineteen, it lies within what the median may be), where so many `rounds` were asked for. One
/// alone never can: nothing tells how far it would spread.
pub(crate) fn is_settled(spread: &Spread, rounds: usize) -> bool {
    spread.count >= rounds.clamp(2, ENOUGH)
        && spread.relative_iqr() <= SETTLED
        && spread.relative_doubt() <= SETTLED
}

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
    pub(super) fn of(before: Option<Probe>, after: Option<Probe>) -> Placement {
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

/// One repetition of a row's case, at whatever placement.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Sample {
    /// Nanoseconds, or messages a second.
    pub(crate) value: f64,
    pub(crate) placement: Placement,
    /// The round trip in one cache line, before and after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) raw1_ns: Option<[f64; 2]>,
    /// The round trip in two cache lines, before and after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) raw2_ns: Option<[f64; 2]>,
}

/// Percentiles in nanoseconds, all of the same operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Percentiles {
    pub(crate) p50: f64,
    /// Unknown where only blocks of operations were timed.
    pub(crate) p90: Option<f64>,
    pub(crate) p99: Option<f64>,
    pub(crate) p999: Option<f64>,
    pub(crate) max: f64,
}

impl Percentiles {
    /// From the median to the longest.
    pub(crate) fn all(&self) -> [Option<f64>; 5] {
        [
            Some(self.p50),
            self.p90,
            self.p99,
            self.p999,
            Some(self.max),
        ]
    }
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
    /// The time that the row is known by: the median of the repetitions, each by the median of its
    /// operations, or of blocks of them where they are short against the clock; none for throughput.
    pub(crate) typical_ns: Option<f64>,
    /// Round-trip times (one-way times in modes oneway and paced) of all repetitions together, each
    /// operation timed on its own; none for throughput.
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
    /// Whether that is too much for the row to be relied on, the median in doubt by as much, or the
    /// repetitions are too few.
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
    /// Every repetition, also those at another placement, which the row does not stand on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) repetitions: Vec<Sample>,
}

impl Row {
    /// What the repetitions at one placement, which spread so, come to; of so many rounds asked for
    /// and made.
    pub(super) fn new(
        case: Case,
        placement: Placement,
        limit: Mechanism,
        spread: &Spread,
        [rounds, rounds_made]: [usize; 2],
    ) -> Row {
        let throughput = case.mode.is_throughput();
        let msgs_per_s = if throughput {
            spread.median
        } else {
            1e9 / spread.median
        };
        Row {
            mechanism: case.mechanism,
            mode: case.mode,
            size: case.size,
            wait: case.wait,
            placement,
            msgs_per_s,
            bytes_per_s: msgs_per_s * case.size as f64,
            typical_ns: (!throughput).then_some(spread.median),
            rtt_ns: None,
            limit,
            limit_value: None,
            ratio_to_limit: None,
            rounds: spread.count,
            rounds_made,
            min: spread.min,
            max: spread.max,
            iqr: spread.relative_iqr(),
            unsettled: !is_settled(spread, rounds) || placement == Placement::Moved,
            cpu_ns_per_msg: None,
            sleeps_per_msg: None,
            syscalls_per_msg: None,
            curve: Vec::new(),
            rate: case.rate,
            repetitions: Vec::new(),
        }
    }

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
        self.typical_ns.unwrap_or(self.msgs_per_s)
    }

    /// What stands before it in a table.
    pub(crate) fn label(&self) -> String {
        let label = self.case().label();
        match self.mode {
            _ if !self.mechanism.is_limit() => label,
            Mode::Oneway | Mode::Paced => format!("limit: half of {label}"),
            _ => format!("limit: {label}"),
        }
    }

    /// Of a limit that is a round trip, what it comes to for one way.
    pub(crate) fn halved(&self, mode: Mode) -> Row {
        let half = |value: Option<f64>| value.map(|value| value / 2.0);
        Row {
            mode,
            msgs_per_s: self.msgs_per_s * 2.0,
            bytes_per_s: self.bytes_per_s * 2.0,
            typical_ns: half(self.typical_ns),
            rtt_ns: self.rtt_ns.map(|times| Percentiles {
                p50: times.p50 / 2.0,
                p90: half(times.p90),
                p99: half(times.p99),
                p999: half(times.p999),
                max: times.max / 2.0,
            }),
            min: self.min / 2.0,
            max: self.max / 2.0,
            cpu_ns_per_msg: half(self.cpu_ns_per_msg),
            sleeps_per_msg: half(self.sleeps_per_msg),
            syscalls_per_msg: half(self.syscalls_per_msg),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_stands_on_too_few_repetitions_is_unsettled() {
        let of = |values: &[f64]| Spread::of(values.to_vec()).unwrap();
        for rounds in [1, 2, 3, 5] {
            assert!(!is_settled(&of(&[100.0]), rounds), "one of {rounds}");
            assert_eq!(is_settled(&of(&[100.0, 101.0]), rounds), rounds < 3);
            assert_eq!(is_settled(&of(&[100.0, 101.0, 102.0]), rounds), rounds < 4);
            assert!(!is_settled(&of(&[100.0, 150.0, 200.0]), rounds));
        }
    }

    #[test]
    fn a_row_whose_median_may_lie_elsewhere_is_unsettled_however_narrow_its_middle_half() {
        let mut values = vec![100.0, 101.0, 102.0, 103.0, 130.0];
        let settled = |values: &[f64]| is_settled(&Spread::of(values.to_vec()).unwrap(), 5);
        assert!(!settled(&values), "the next five may be like the last");
        values.extend([99.0, 100.0, 104.0, 131.0]);
        assert!(!settled(&values), "two of nine are such");
        values.extend([100.0, 101.0, 102.0]);
        assert!(settled(&values), "two of twelve leave no doubt");
        let mut apart = vec![100.0, 100.0, 107.0, 107.0, 107.0];
        assert!(settled(&apart), "1.07 twice is under 15 %");
        apart.extend([112.0, 112.0, 112.0]);
        assert!(settled(&apart), "the ends are no further");
        apart[0] = 99.0;
        assert!(!settled(&apart), "1.081 twice is over 15 %");
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
