//! `ringway bench --compare`: whether two runs agree, row by row.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::Value;

use super::KEPT_UP;
use super::plan::Mechanism;
use super::rows::{SETTLED, is_settled};
use super::statistics::Spread;
use super::table::{count, size, time};
use crate::cli::Failure;

/// One row of a file, as far as it is compared.
#[derive(Clone, Debug, PartialEq)]
struct Kept {
    placement: String,
    value: f64,
    /// The width of the middle half as a share of the median.
    iqr: f64,
    unsettled: bool,
    /// False of open load beyond what the mechanism carries.
    carried: bool,
}

/// What a row is about: mode, size, mechanism, wait, rate; and the placement of a limit that was probed, which has a
/// row for each.
type Key = (String, u64, String, String, u64, Option<String>);

/// What came of a row that both files have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// No further apart than a settled row may spread.
    Agrees,
    /// Further apart.
    Differs,
    /// The CPUs were at another distance: such rows do not compare.
    Elsewhere,
    /// One of the two was not settled.
    Unsettled,
}

/// Compares the last results in `before` with the last in `after`.
pub(crate) fn main(before: &Path, after: &Path) -> Result<ExitCode, Failure> {
    let (first, second) = (rows(before)?, rows(after)?);
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "",
        "",
        "",
        "placement",
        "before",
        "after",
        "change",
        "middle halves",
        "",
    ]);
    let mut verdicts = Vec::new();
    let mut within_iqr = 0;
    let mut last = None;
    for (key, was) in &first {
        let Some(is) = second.get(key).filter(|is| was.carried || is.carried) else {
            continue;
        };
        let verdict = judge(was, is);
        let change = is.value / was.value - 1.0;
        if verdict == Verdict::Agrees {
            within_iqr += usize::from(apart(was, is) <= was.iqr.max(is.iqr));
        }
        verdicts.push(verdict);
        let (mode, bytes, mechanism, wait, rate, _) = key;
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let show = if is_throughput(mode) { count } else { time };
        let group = Some((mode, bytes, rate));
        let is_new = std::mem::replace(&mut last, group) != group;
        table.add_row([
            Cell::new(match rate {
                _ if !is_new => String::new(),
                0 => mode.clone(),
                rate => format!("{mode} {}/s", count(*rate as f64)),
            }),
            right(if is_new {
                size(*bytes as usize)
            } else {
                String::new()
            }),
            Cell::new(format!("{mechanism} {wait}")),
            Cell::new(if was.placement == is.placement {
                was.placement.clone()
            } else {
                format!("{}, {}", was.placement, is.placement)
            }),
            right(show(was.value)),
            right(show(is.value)),
            right(format!("{:+.1} %", change * 100.0)),
            right(format!("{:.1}, {:.1} %", was.iqr * 100.0, is.iqr * 100.0)),
            Cell::new(match verdict {
                Verdict::Agrees => "",
                Verdict::Differs => "differs",
                Verdict::Elsewhere => "another placement",
                Verdict::Unsettled => "unsettled",
            }),
        ]);
    }
    if verdicts.is_empty() {
        return Err(Failure::new(format!(
            "{} and {}: they have no row in common; measure the same mechanisms, sizes and modes",
            before.display(),
            after.display()
        )));
    }
    let of = |wanted| {
        verdicts
            .iter()
            .filter(|&&verdict| verdict == wanted)
            .count()
    };
    let (agree, differ) = (of(Verdict::Agrees), of(Verdict::Differs));
    println!(
        "{table}\n\nOf {} rows in both, {} were settled at one placement in both: {agree} agree within \
         {:.0} % ({within_iqr} within the wider of their interquartile ranges), {differ} differ. {} were unsettled, {} at another placement.",
        verdicts.len(),
        agree + differ,
        SETTLED * 100.0,
        of(Verdict::Unsettled),
        of(Verdict::Elsewhere),
    );
    if agree + differ == 0 {
        return Err(Failure::new(
            "nothing can be said: no row was settled at one placement in both; measure again, with \
             more --rounds or on a quieter machine",
        ));
    }
    Ok(if differ == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn judge(was: &Kept, is: &Kept) -> Verdict {
    if was.placement != is.placement {
        Verdict::Elsewhere
    } else if was.unsettled || is.unsettled {
        Verdict::Unsettled
    } else if apart(was, is) <= SETTLED {
        Verdict::Agrees
    } else {
        Verdict::Differs
    }
}

/// How far apart two values are, as a share of the lesser: the same whichever came first.
fn apart(one: &Kept, other: &Kept) -> f64 {
    (one.value / other.value).max(other.value / one.value) - 1.0
}

fn is_throughput(mode: &str) -> bool {
    matches!(mode, "throughput" | "batch")
}

/// The rows of the last document in `path`.
fn rows(path: &Path) -> Result<BTreeMap<Key, Kept>, Failure> {
    let wrong = |what: String| Failure::new(format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let line = text.lines().rfind(|line| !line.trim().is_empty());
    let document: Value = line
        .and_then(|line| serde_json::from_str(line).ok())
        .ok_or_else(|| wrong("no results of `ringway bench --json`".into()))?;
    rows_of(&document).map_err(|what| wrong(what.into()))
}

fn rows_of(document: &Value) -> Result<BTreeMap<Key, Kept>, &'static str> {
    let rows = document["rows"].as_array().ok_or("it has no rows")?;
    let kept = |row| kept(row).ok_or("a row lacks a field that this version needs");
    rows.iter().map(kept).collect()
}

fn kept(row: &Value) -> Option<(Key, Kept)> {
    let text = |field: &str| row[field].as_str().map(str::to_owned);
    let mode = text("mode")?;
    let value = if is_throughput(&mode) {
        row["msgs_per_s"].as_f64()?
    } else {
        // In older versions p50 was what is compared.
        let times = [&row["typical_ns"], &row["rtt_ns"]["p50"]];
        times.into_iter().find_map(Value::as_f64)?
    };
    let placement = text("placement")?;
    let repetitions = row["repetitions"].as_array().into_iter().flatten();
    let values: Vec<f64> = repetitions
        .filter(|one| one["placement"] == *placement)
        .filter_map(|one| one["value"].as_f64())
        .collect();
    let mechanism = text("mechanism")?;
    let is_probed =
        serde_json::from_value(row["mechanism"].clone()).is_ok_and(Mechanism::is_probed);
    let key = (
        mode,
        row["size"].as_u64()?,
        mechanism,
        text("wait").unwrap_or_default(),
        row["rate"].as_u64().unwrap_or(0),
        is_probed.then(|| placement.clone()),
    );
    Some((
        key,
        Kept {
            placement,
            value,
            // Null where nothing came through.
            iqr: row.get("iqr")?.as_f64().unwrap_or(f64::NAN),
            carried: row["rate"]
                .as_f64()
                .zip(row["msgs_per_s"].as_f64())
                .is_none_or(|(rate, came)| came >= KEPT_UP * rate),
            // Older versions took a row of one repetition for settled, and one whose median is in
            // doubt; the oldest did not tell of each.
            unsettled: row["unsettled"].as_bool()?
                || row["rounds"] == 1
                || Spread::of(values).is_some_and(|spread| !is_settled(&spread, spread.count)),
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settled_rows_of_one_placement_are_judged() {
        let row = |value, placement: &str, unsettled| Kept {
            placement: placement.into(),
            value,
            iqr: 0.02,
            unsettled,
            carried: true,
        };
        let near = row(100.0, "near", false);
        assert_eq!(judge(&near, &row(114.0, "near", false)), Verdict::Agrees);
        assert_eq!(judge(&near, &row(88.0, "near", false)), Verdict::Agrees);
        for other in [86.0, 120.0].map(|value| row(value, "near", false)) {
            assert_eq!(judge(&near, &other), Verdict::Differs);
            assert_eq!(
                judge(&other, &near),
                Verdict::Differs,
                "whichever came first"
            );
        }
        assert_eq!(judge(&near, &row(100.0, "far", false)), Verdict::Elsewhere);
        assert_eq!(judge(&near, &row(100.0, "near", true)), Verdict::Unsettled);
    }

    #[test]
    fn rows_are_judged_again_and_limits_kept_apart_by_placement() {
        let row = |mechanism: &str, placement: &str, rate: Option<u64>, values: &[f64]| {
            let repetitions: Vec<Value> = values
                .iter()
                .map(|value| serde_json::json!({ "value": value, "placement": placement }))
                .collect();
            serde_json::json!({
                "mechanism": mechanism, "mode": if rate.is_some() { "paced" } else { "rtt" }, "size": 8,
                "wait": null, "placement": placement, "msgs_per_s": 1_000.0, "typical_ns": 100.0, "rate": rate,
                "iqr": 0.01, "unsettled": false, "rounds": values.len(), "repetitions": repetitions,
            })
        };
        let steady = [100.0, 100.0, 100.0, 101.0, 101.0];
        let document = serde_json::json!({ "rows": [
            row("raw1", "near", None, &steady),
            row("raw1", "far", None, &steady),
            row("spsc", "near", None, &steady),
            row("pipe", "near", None, &[100.0, 100.0, 100.0, 101.0, 120.0]),
            row("fifo", "near", None, &[100.0]),
            row("signal", "near", Some(1_250), &steady),
            row("signal", "near", Some(1_251), &steady),
        ]});
        let rows = rows_of(&document).unwrap();
        let mut found: Vec<_> = rows
            .iter()
            .map(|((_, _, name, _, rate, at), kept)| {
                (&**name, at.as_deref(), *rate, !kept.unsettled, kept.carried)
            })
            .collect();
        found.sort();
        let expected = [
            ("fifo", None, 0, false, true), // of one repetition
            ("pipe", None, 0, false, true), // one of five is far off
            ("raw1", Some("far"), 0, true, true),
            ("raw1", Some("near"), 0, true, true),
            ("signal", None, 1_250, true, true),
            ("signal", None, 1_251, true, false), // less than four fifths came through
            ("spsc", None, 0, true, true),
        ];
        assert_eq!(found, expected);
        let lacking = serde_json::json!({ "rows": [{ "mode": "rtt", "mechanism": "pipe" }] });
        assert!(rows_of(&lacking).unwrap_err().contains("lacks a field"));
    }
}
