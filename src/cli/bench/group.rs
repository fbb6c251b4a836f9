//! Rows as they are shown: one table a mode, size and rate, best first, the limits among them.

use std::collections::BTreeSet;

use super::ONE_SIZE;
use super::plan::Mode;
use super::rows::Row;
use super::table::{count, size, title};

/// The rows of one table.
pub(crate) struct Group {
    pub(crate) mode: Mode,
    size: usize,
    rate: Option<u64>,
    pub(crate) rows: Vec<Row>,
}

impl Group {
    /// What stands above the table.
    pub(crate) fn heading(&self) -> String {
        let rate = self.rate.map_or(String::new(), |rate| {
            format!(", {} messages/s", count(rate as f64).trim())
        });
        format!("{}, {}{rate}", title(self.mode), size(self.size))
    }

    /// The least value and the most.
    pub(crate) fn range(&self) -> (f64, f64) {
        let values = self.rows.iter().map(Row::value);
        values.fold((f64::MAX, 0.0f64), |(l, m), v| (l.min(v), m.max(v)))
    }
}

/// All rows in their tables. A limit stands in every table of times, as what it comes to for one way
/// where the times are of one way, or in the table of its size.
pub(crate) fn groups(rows: &[Row]) -> Vec<Group> {
    let key = |row: &Row| (row.mode, row.size, row.rate);
    let measured = rows.iter().filter(|row| !row.mechanism.is_limit());
    let mut keys: BTreeSet<_> = measured.map(key).collect();
    if keys.is_empty() {
        // Limits alone: those that carry one word share a table.
        let of_limit = |row: &Row| match row.mode {
            Mode::Rtt => (Mode::Rtt, ONE_SIZE, None),
            _ => key(row),
        };
        keys = rows.iter().map(of_limit).collect();
    }
    let one = |(mode, size, rate): (Mode, usize, Option<u64>)| {
        let mut rows: Vec<Row> = rows
            .iter()
            .filter(|row| {
                if row.mechanism.is_limit() {
                    let throughput = mode.is_throughput();
                    row.mode.is_throughput() == throughput && (!throughput || row.size == size)
                } else {
                    key(row) == (mode, size, rate)
                }
            })
            .map(|row| match mode {
                Mode::Oneway | Mode::Paced if row.mechanism.is_limit() => row.halved(mode),
                _ => row.clone(),
            })
            .collect();
        rows.sort_by(|a, b| a.value().total_cmp(&b.value()));
        if mode.is_throughput() {
            rows.reverse();
        }
        Group {
            mode,
            size,
            rate,
            rows,
        }
    };
    keys.into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::super::plan::{Case, Mechanism};
    use super::super::rows::Placement;
    use super::super::statistics::Spread;
    use super::*;

    fn row(mechanism: Mechanism, mode: Mode, value: f64) -> Row {
        let case = Case {
            mode,
            size: 8,
            mechanism,
            wait: None,
            rate: None,
        };
        let spread = Spread::of(vec![value; 3]).unwrap();
        Row::new(case, Placement::Near, case.limit(), &spread, [3, 3])
    }

    #[test]
    fn a_one_way_time_stands_beside_half_of_a_round_trip() {
        let rows = [
            row(Mechanism::BareFutex, Mode::Rtt, 100.0),
            row(Mechanism::Pipe, Mode::Rtt, 120.0),
            row(Mechanism::Pipe, Mode::Oneway, 60.0),
        ];
        let groups = groups(&rows);
        let values = |group: &Group| -> Vec<(String, f64)> {
            let rows = group.rows.iter();
            rows.map(|row| (row.label(), row.value())).collect()
        };
        let (futex, pipe) = ("limit: bare-futex".to_owned(), "pipe".to_owned());
        assert_eq!(values(&groups[0]), [(futex, 100.0), (pipe.clone(), 120.0)]);
        let half = "limit: half of bare-futex".to_owned();
        assert_eq!(values(&groups[1]), [(half, 50.0), (pipe, 60.0)]);
    }

    #[test]
    fn limits_alone_are_shown_too() {
        let rows = [
            row(Mechanism::Raw1, Mode::Rtt, 60.0),
            row(Mechanism::BareFutex, Mode::Rtt, 9000.0),
            row(Mechanism::Memcpy, Mode::Throughput, 1e9),
        ];
        let sizes: Vec<_> = groups(&rows).iter().map(|one| one.rows.len()).collect();
        assert_eq!(sizes, [2, 1]);
    }
}
