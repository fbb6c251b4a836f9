//! Ringway beside the best of the other mechanisms, at each size.

use std::collections::BTreeSet;

use super::plan::Mode;
use super::rows::Row;

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
}

/// All standings that the rows allow, by mode and size. (Open load has no one number to rank by.)
pub(crate) fn standings(rows: &[Row]) -> Vec<Standing<'_>> {
    let groups: BTreeSet<(Mode, usize)> = rows
        .iter()
        .filter(|row| !row.mechanism.is_limit() && row.mode != Mode::Paced)
        .map(|row| (row.mode, row.size))
        .collect();
    let best = |mode: Mode, size: usize, classic: bool| {
        rows.iter()
            .filter(|row| (row.mode, row.size) == (mode, size) && !row.mechanism.is_limit())
            .filter(|row| row.mechanism.is_classic() == classic)
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
