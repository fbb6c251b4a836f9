//! Results for other programs: JSON and CSV.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::machine::Machine;
use super::plan::LeftOut;
use super::rows::Row;
use crate::cli::Failure;
use crate::os::measure;

/// Everything a run found out.
#[derive(Serialize)]
pub(crate) struct Results<'a> {
    /// What was measured on.
    pub(crate) header: &'a Machine,
    /// What came out.
    pub(crate) rows: &'a [Row],
    /// What was not measured, and why.
    pub(crate) left_out: &'a [LeftOut],
}

/// Standard output, as an output's name.
fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

/// What went wrong with an output.
fn trouble(path: &Path, error: io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}

/// Makes sure before the measurement that a result can be written after it, and touches nothing: a run
/// that is ended leaves what was there.
pub(crate) fn check(path: &Path) -> Result<(), Failure> {
    let checked = match path.metadata() {
        _ if is_stdout(path) => Ok(()),
        Ok(there) if there.is_file() || there.is_dir() => {
            File::options().append(true).open(path).map(drop)
        }
        Ok(_) => Ok(()), // opening a pipe and leaving it tells its reader that this was all
        Err(_) => measure::can_create_in(match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        }),
    };
    checked.map_err(|error| trouble(path, error))
}

/// Writes `text` to `path`.
pub(crate) fn text(path: &Path, text: &str) -> Result<(), Failure> {
    if !is_stdout(path) {
        return std::fs::write(path, text).map_err(|error| trouble(path, error));
    }
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// Writes the results as one JSON document on one line, so that documents of many runs can be kept
/// in one file.
pub(crate) fn json(path: &Path, results: &Results<'_>) -> Result<(), Failure> {
    let mut line = serde_json::to_string(results).map_err(Failure::new)?;
    line.push('\n');
    text(path, &line)
}

/// Writes the rows as CSV with a line of names.
pub(crate) fn csv(path: &Path, rows: &[Row]) -> Result<(), Failure> {
    let mut lines = String::from(
        "mechanism,mode,size,wait,placement,msgs_per_s,bytes_per_s,p50_ns,p90_ns,p99_ns,p999_ns,\
         max_ns,limit,limit_value,ratio_to_limit,rounds,min,max,iqr,unsettled,cpu_ns_per_msg,\
         sleeps_per_msg,syscalls_per_msg,typical_ns,rate,rounds_made\n",
    );
    // No field holds a comma or a quote: they are numbers and names of ours.
    let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    for row in rows {
        let times = row.rtt_ns;
        let fields = [
            row.mechanism.name(),
            row.mode.name(),
            row.size.to_string(),
            row.wait.map_or(String::new(), |wait| wait.name()),
            row.placement.name().into(),
            row.msgs_per_s.to_string(),
            row.bytes_per_s.to_string(),
            number(times.map(|t| t.p50)),
            number(times.and_then(|t| t.p90)),
            number(times.and_then(|t| t.p99)),
            number(times.and_then(|t| t.p999)),
            number(times.map(|t| t.max)),
            row.limit.name(),
            number(row.limit_value),
            number(row.ratio_to_limit),
            row.rounds.to_string(),
            row.min.to_string(),
            row.max.to_string(),
            row.iqr.to_string(),
            row.unsettled.to_string(),
            number(row.cpu_ns_per_msg),
            number(row.sleeps_per_msg),
            number(row.syscalls_per_msg),
            number(row.typical_ns),
            row.rate.map_or(String::new(), |rate| rate.to_string()),
            row.rounds_made.to_string(),
        ];
        lines.push_str(&fields.join(","));
        lines.push('\n');
    }
    text(path, &lines)
}
