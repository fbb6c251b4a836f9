//! Results for other programs: JSON and CSV.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;

use super::machine::Machine;
use super::plan::LeftOut;
use super::rows::Row;
use crate::cli::Failure;

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

/// Where an output goes: `-` is standard output.
fn open(path: &Path) -> Result<Box<dyn Write>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdout().lock()));
    }
    match File::create(path) {
        Ok(file) => Ok(Box::new(io::BufWriter::new(file))),
        Err(error) => Err(Failure::new(format!("{}: {error}", path.display()))),
    }
}

/// Makes sure before the measurement that a result can be written after it.
pub(crate) fn check(paths: &[Option<&Path>]) -> Result<(), Failure> {
    for path in paths.iter().flatten() {
        if *path != Path::new("-") {
            File::options()
                .append(true)
                .create(true)
                .open(path)
                .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?;
        }
    }
    Ok(())
}

/// Writes `text` to `path`.
pub(crate) fn text(path: &Path, text: &str) -> Result<(), Failure> {
    let mut out = open(path)?;
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
         sleeps_per_msg,syscalls_per_msg\n",
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
        ];
        lines.push_str(&fields.join(","));
        lines.push('\n');
    }
    text(path, &lines)
}
