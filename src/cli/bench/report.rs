//! The report: one HTML file that needs nothing else.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use super::chart::{Axes, Series, css_colour, lines};
use super::output::{self, Results};
use super::plan::{Case, Mechanism, Mode};
use super::rows::Row;
use super::table::{count, ratio, size, time, title};
use crate::cli::Failure;

const STYLE: &str = include_str!("report.css");

/// Writes the report to `path`.
pub(crate) fn write(path: &Path, results: &Results<'_>) -> Result<(), Failure> {
    output::text(path, &render(results).map_err(Failure::new)?)
}

/// What HTML would read as markup, as text.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The page.
fn render(results: &Results<'_>) -> Result<String, Box<dyn std::error::Error>> {
    let machine = results.header;
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>Ways to hand messages between processes, measured</title>\
         <style>{STYLE}</style></head><body><main>\
         <h1>Ways to hand messages between processes, measured</h1>\
         <p class=\"machine\">{} · {} CPUs online{} · kernel {} · pinned to CPUs {} and {} · \
         ringway {} · {}</p>",
        escape(&machine.cpu),
        machine.cpus_online,
        if machine.virtual_machine {
            ", a virtual machine"
        } else {
            ""
        },
        escape(&machine.kernel),
        machine.pinning[0],
        machine.pinning[1],
        machine.version,
        machine.date,
    );
    let _ = write!(
        page,
        "<p>Made by <code>{}</code>. Every repetition runs in two new processes, between two probes \
         of how long a cache line takes from one processor to the other; the cases are gone through \
         round by round. What is received is copied out, and checked.</p>",
        escape(&machine.command)
    );
    for warning in &machine.warnings {
        let _ = write!(page, "<p class=\"warning\">{}</p>", escape(warning));
    }
    for (heading, text, chart) in charts(results.rows)? {
        let _ = write!(
            page,
            "<section><h2>{heading}</h2><p>{text}</p><div class=\"chart\">{chart}</div></section>"
        );
    }
    rankings(&mut page, results.rows);
    if !results.left_out.is_empty() {
        page.push_str("<section><h2>Not measured</h2><ul>");
        for one in results.left_out {
            let _ = write!(
                page,
                "<li>{} at {}: {}</li>",
                one.mechanism.name(),
                size(one.size),
                escape(&one.why)
            );
        }
        page.push_str("</ul></section>");
    }
    page.push_str("</main></body></html>\n");
    Ok(page)
}

/// What a line stands for, over sizes or rates.
type Key = (Mechanism, Option<super::plan::Wait>);

fn key(row: &Row) -> Key {
    (row.mechanism, row.wait)
}

/// One line a mechanism and wait of the rows that `choose` takes, from the points `at` makes.
fn series(
    rows: &[Row],
    keys: &[Key],
    choose: impl Fn(&Row) -> bool,
    at: impl Fn(&Row) -> Vec<(f64, f64)>,
) -> Vec<Series> {
    keys.iter()
        .enumerate()
        .filter_map(|(colour, &of)| {
            let chosen: Vec<&Row> = rows
                .iter()
                .filter(|row| key(row) == of && choose(row))
                .collect();
            let first = chosen.first()?;
            Some(Series {
                label: first.case().label(),
                colour,
                strong: !of.0.is_classic() && !of.0.is_limit(),
                points: chosen.into_iter().flat_map(&at).collect(),
            })
        })
        .filter(|series| {
            series
                .points
                .iter()
                .any(|point| point.0 != series.points[0].0)
        })
        .collect()
}

type Chart = (String, String, String);

fn charts(rows: &[Row]) -> Result<Vec<Chart>, Box<dyn std::error::Error>> {
    let keys: Vec<Key> = rows
        .iter()
        .map(key)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let sizes: BTreeSet<usize> = rows
        .iter()
        .filter(|row| !row.mechanism.is_limit())
        .map(|row| row.size)
        .collect();
    let size_marks = || {
        sizes
            .iter()
            .map(|&bytes| (bytes as f64, size(bytes)))
            .collect::<Vec<_>>()
    };
    let mut charts = Vec::new();
    for mode in [Mode::Rtt, Mode::Oneway, Mode::Throughput, Mode::Batch] {
        let axes = Axes {
            x: "message size",
            y: if mode.is_throughput() {
                "messages a second"
            } else {
                "median time"
            },
            x_marks: size_marks(),
            log_x: true,
            y_format: if mode.is_throughput() { count } else { time },
        };
        let lines_of = series(
            rows,
            &keys,
            |row| row.mode == mode,
            |row| vec![(row.size as f64, row.value())],
        );
        if let Some(chart) = lines(&axes, &lines_of)? {
            let text = if mode.is_throughput() {
                "More is better. Both axes are logarithmic."
            } else {
                "Less is better. Both axes are logarithmic."
            };
            charts.push((format!("{} by size", title(mode)), text.into(), chart));
        }
    }
    let smallest = |mode| {
        rows.iter()
            .filter(|row| row.mode == mode && !row.mechanism.is_limit())
            .map(|row| row.size)
            .min()
    };
    if let Some(bytes) = smallest(Mode::Rtt) {
        let nines = |share: f64| -(1.0 - share).log10();
        let axes = Axes {
            x: "share of round trips that took no longer",
            y: "time",
            x_marks: [
                (0.5, "50 %"),
                (0.9, "90 %"),
                (0.99, "99 %"),
                (0.999, "99.9 %"),
                (0.9999, "99.99 %"),
            ]
            .map(|(share, text)| (nines(share), text.to_owned()))
            .to_vec(),
            log_x: false,
            y_format: time,
        };
        let lines_of = series(
            rows,
            &keys,
            |row| row.mode == Mode::Rtt && (row.size == bytes || row.mechanism.is_limit()),
            |row| {
                row.curve
                    .iter()
                    .filter(|point| (0.5..1.0).contains(&point.0) && point.1 > 0.0)
                    .map(|&(share, ns)| (nines(share), ns))
                    .collect()
            },
        );
        if let Some(chart) = lines(&axes, &lines_of)? {
            charts.push((
                format!("Round trips of {}, by percentile", size(bytes)),
                "Less is better. Each round trip timed on its own; all repetitions together."
                    .into(),
                chart,
            ));
        }
    }
    if let Some(bytes) = smallest(Mode::Paced) {
        let paced = |row: &Row| row.mode == Mode::Paced && row.size == bytes;
        let rates: BTreeSet<u64> = rows.iter().filter_map(|row| row.rate).collect();
        for (which, get) in [
            (
                "median",
                (|t| Some(t.p50)) as fn(super::rows::Percentiles) -> Option<f64>,
            ),
            ("99th percentile", |t| t.p99),
        ] {
            let axes = Axes {
                x: "messages a second that came through",
                y: "time from when a message was due",
                x_marks: rates
                    .iter()
                    .map(|&rate| (rate as f64, count(rate as f64)))
                    .collect(),
                log_x: true,
                y_format: time,
            };
            let lines_of = series(rows, &keys, paced, |row| {
                row.rtt_ns
                    .and_then(get)
                    .map(|ns| (row.msgs_per_s, ns))
                    .into_iter()
                    .collect()
            });
            if let Some(chart) = lines(&axes, &lines_of)? {
                charts.push((
                    format!("Latency under open load, {}, {which}", size(bytes)),
                    "Messages come due at a fixed rate, whether or not the one before got away; a \
                     line that turns up (or back) has reached what its mechanism can do."
                        .into(),
                    chart,
                ));
            }
        }
    }
    Ok(charts)
}

/// The rows as tables, best first, one a mode and size.
fn rankings(page: &mut String, rows: &[Row]) {
    let groups: BTreeSet<(Mode, usize, Option<u64>)> = rows
        .iter()
        .filter(|row| !row.mechanism.is_limit())
        .map(|row| (row.mode, row.size, row.rate))
        .collect();
    for (mode, bytes, rate) in groups {
        let mut group: Vec<&Row> = rows
            .iter()
            .filter(|row| {
                (row.mode, row.size, row.rate) == (mode, bytes, rate)
                    || row.mechanism.is_limit()
                        && !mode.is_throughput()
                        && !row.mode.is_throughput()
            })
            .collect();
        group.sort_by(|a, b| a.value().total_cmp(&b.value()));
        if mode.is_throughput() {
            group.reverse();
        }
        let rate = rate.map_or(String::new(), |rate| {
            format!(", {} messages/s", count(rate as f64).trim())
        });
        let _ = write!(
            page,
            "<section><h2>{}, {}{rate}</h2><div class=\"table\"><table><thead><tr><th></th><th></th>",
            title(mode),
            size(bytes)
        );
        page.push_str(if mode.is_throughput() {
            "<th>messages/s</th><th>bytes/s</th>"
        } else {
            "<th>median</th><th>p90</th><th>p99</th><th>p99.9</th><th>max</th>"
        });
        page.push_str(
            "<th>least to most</th><th>rounds</th><th>times its limit</th><th>CPU time</th>\
             <th>sleeps</th><th>system calls</th><th>CPUs were</th></tr></thead><tbody>",
        );
        let values = group.iter().map(|row| row.value());
        let (least, most) = values.fold((f64::MAX, 0.0f64), |(l, m), v| (l.min(v), m.max(v)));
        for row in group {
            ranked(page, row, mode, least, most);
        }
        page.push_str("</tbody></table></div></section>");
    }
}

fn ranked(page: &mut String, row: &Row, mode: Mode, least: f64, most: f64) {
    let case: Case = row.case();
    let class = if row.mechanism.is_limit() {
        "limit"
    } else if row.mechanism.is_classic() {
        ""
    } else {
        "ours"
    };
    let share = if most > least {
        4.0 + 96.0 * (row.value() / least).ln() / (most / least).ln()
    } else {
        100.0
    };
    let colour = css_colour(match class {
        "ours" => 0,
        "limit" => 12,
        _ => 1,
    });
    let _ = write!(
        page,
        "<tr class=\"{class}\"><th scope=\"row\">{}{}</th>\
         <td class=\"bar\"><i style=\"width:{share:.0}%;background:{colour}\"></i></td>",
        if row.mechanism.is_limit() {
            "limit: "
        } else {
            ""
        },
        case.label()
    );
    let mut cell = |text: String| {
        let _ = write!(page, "<td>{text}</td>");
    };
    if mode.is_throughput() {
        cell(count(row.msgs_per_s));
        cell(format!("{}B", count(row.bytes_per_s)));
    } else {
        let times = row.rtt_ns.unwrap_or_default();
        for value in [
            Some(times.p50),
            times.p90,
            times.p99,
            times.p999,
            Some(times.max),
        ] {
            cell(value.map_or_else(String::new, time));
        }
    }
    let show = if mode.is_throughput() { count } else { time };
    let mark = if row.unsettled {
        " <em>unsettled</em>"
    } else {
        ""
    };
    cell(format!("{} to {}{mark}", show(row.min), show(row.max)));
    cell(row.rounds.to_string());
    cell(match row.ratio_to_limit {
        _ if row.mechanism == row.limit => String::new(),
        value => format!("{} <small>{}</small>", ratio(value), row.limit.name()),
    });
    cell(row.cpu_ns_per_msg.map_or_else(String::new, time));
    for value in [row.sleeps_per_msg, row.syscalls_per_msg] {
        cell(value.map_or_else(String::new, |value| format!("{value:.2}")));
    }
    cell(row.placement.name().into());
    page.push_str("</tr>");
}
