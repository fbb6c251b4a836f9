//! Ringway beside the best of the other mechanisms, at each size.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::plan::Mode;
use super::rows::{Placement, Row};

/// The best of Ringway's rows and the best of the others, in one mode and at one size.
pub(crate) struct Standing<'a> {
    pub(crate) mode: Mode,
    pub(crate) size: usize,
    pub(crate) ours: &'a Row,
    pub(crate) other: &'a Row,
}

impl Standing<'_> {
    /// How many times faster ours is; below 1 it is not first.
    pub(crate) fn ratio(&self) -> f64 {
        let ratio = self.other.value() / self.ours.value();
        if self.mode.is_throughput() {
            1.0 / ratio
        } else {
            ratio
        }
    }

    /// Whether one of the two cannot be relied on.
    pub(crate) fn unsettled(&self) -> bool {
        self.ours.unsettled || self.other.unsettled
    }

    /// Where the processors were.
    pub(crate) fn placement(&self) -> Placement {
        self.ours.placement
    }
}

/// All standings that the rows allow, by mode and size, at the placement that most rows have: those of
/// another do not compare with them. (Open load has no one number to rank by.)
pub(crate) fn standings(rows: &[Row]) -> Vec<Standing<'_>> {
    let mut placements: BTreeMap<Placement, usize> = BTreeMap::new();
    for row in rows.iter().filter(|row| !row.mechanism.is_limit()) {
        *placements.entry(row.placement).or_default() += 1;
    }
    let most = placements
        .iter()
        .max_by_key(|&(&placement, &count)| (count, Reverse(placement)));
    let main = most.map(|(&placement, _)| placement);
    let groups: BTreeSet<(Mode, usize)> = rows
        .iter()
        .filter(|row| !row.mechanism.is_limit() && row.mode != Mode::Paced)
        .map(|row| (row.mode, row.size))
        .collect();
    let best = |mode: Mode, size: usize, classic: bool| {
        rows.iter()
            .filter(|row| (row.mode, row.size) == (mode, size) && !row.mechanism.is_limit())
            .filter(|row| row.mechanism.is_classic() == classic && Some(row.placement) == main)
            .min_by(|a, b| {
                let order = a.value().total_cmp(&b.value());
                if mode.is_throughput() {
                    order.reverse()
                } else {
                    order
                }
            })
    };
    groups
        .into_iter()
        .filter_map(|(mode, size)| {
            Some(Standing {
                mode,
                size,
                ours: best(mode, size, false)?,
                other: best(mode, size, true)?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Case, Mechanism};
    use super::super::statistics::Spread;
    use super::*;

    #[test]
    fn only_rows_of_the_main_placement_stand_beside_each_other_and_doubts_are_kept() {
        let row = |mechanism, size, placement, value| {
            let case = Case {
                mode: Mode::Rtt,
                size,
                mechanism,
                wait: None,
                rate: None,
            };
            let spread = Spread::of(vec![value; 3]).unwrap();
            Row::new(case, placement, Mechanism::BareFutex, &spread, [3, 3])
        };
        let mut rows = [
            row(Mechanism::Spsc, 8, Placement::Near, 300.0),
            row(Mechanism::Mpmc, 8, Placement::Far, 100.0),
            row(Mechanism::Pipe, 8, Placement::Near, 900.0),
            row(Mechanism::Tcp, 8, Placement::Moved, 10.0),
            row(Mechanism::Spsc, 64, Placement::Near, 300.0),
            row(Mechanism::Pipe, 64, Placement::Far, 900.0),
        ];
        rows[2].unsettled = true;
        let standings = standings(&rows);
        let one = &standings[0];
        assert_eq!(standings.len(), 1, "at 64 bytes there is none to compare");
        assert_eq!((one.ratio(), one.placement()), (3.0, Placement::Near));
        assert!(one.unsettled());
    }
}
