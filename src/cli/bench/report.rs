//! The report: one HTML file that needs nothing else.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use clap::ValueEnum;
use plotters::style::RGBColor;

use super::ONE_SIZE;
use super::chart::{Axes, Bars, Column, INK, Look, Series, bars, lines};
use super::group::groups;
use super::output::{self, Results};
use super::plan::{Mechanism, Mode, Wait};
use super::rows::{Percentiles, Row};
use super::standing::standings;
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
fn render(results: &Results<'_>) -> Outcome<String> {
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
    beside(&mut page, results.rows);
    for Chart { heading, text, svg } in charts(results.rows)? {
        let _ = write!(
            page,
            "<section><h2>{heading}</h2><p>{text}</p><div class=\"chart\">{svg}</div></section>"
        );
    }
    rankings(&mut page, results.rows);
    if !results.left_out.is_empty() {
        page.push_str("<section><h2>Not measured</h2><ul>");
        for one in results.left_out {
            let _ = write!(page, "<li>{}</li>", escape(&one.describe()));
        }
        page.push_str("</ul></section>");
    }
    page.push_str("</main></body></html>\n");
    Ok(page)
}

/// What a line stands for, over sizes or rates.
type Key = (Mechanism, Option<Wait>);

fn key(row: &Row) -> Key {
    (row.mechanism, row.wait)
}

/// Colours that can be told apart on white and on black, also by most who see fewer colours: ours
/// are red to yellow, the others blue, green and brown.
const OURS: [RGBColor; 5] = [
    RGBColor(0xD5, 0x3E, 0x1F),
    RGBColor(0xF0, 0x80, 0x00),
    RGBColor(0xD6, 0x4F, 0x8F),
    RGBColor(0xC0, 0x90, 0x00),
    RGBColor(0xA0, 0x50, 0x30),
];
const OTHERS: [RGBColor; 11] = [
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0x56, 0xA0, 0xE9),
    RGBColor(0x8C, 0x6B, 0xC1),
    RGBColor(0x99, 0x8A, 0x5D),
    RGBColor(0x4D, 0xAF, 0x4A),
    RGBColor(0x37, 0x8C, 0x9C),
    RGBColor(0x77, 0x88, 0x99),
    RGBColor(0x60, 0x70, 0xD0),
    RGBColor(0x7F, 0x9F, 0x3F),
    RGBColor(0x2F, 0x6F, 0x6F),
];

/// How a mechanism is drawn: ours by the wait, mpmc and limits dashed, broadcast dotted.
fn look((mechanism, wait): Key) -> Look {
    let waits = Wait::value_variants();
    let by_wait = waits.iter().position(|&one| Some(one) == wait);
    let mechanisms = Mechanism::value_variants();
    let others = mechanisms.iter().filter(|one| one.is_classic());
    let by_name = others.copied().position(|one| one == mechanism);
    Look {
        colour: match (by_wait, by_name) {
            (Some(at), _) => OURS[at % OURS.len()],
            (_, Some(at)) => OTHERS[at % OTHERS.len()],
            _ => INK,
        },
        strong: by_wait.is_some(),
        dash: match mechanism {
            Mechanism::Broadcast => Some((2, 3)),
            Mechanism::Mpmc => Some((6, 4)),
            limit => limit.is_limit().then_some((6, 4)),
        },
    }
}

/// Whether a line of it is drawn: rings that sleep on something else than a futex are in the tables
/// only, where they do not hide the others.
fn is_drawn((_, wait): Key) -> bool {
    !matches!(wait, Some(Wait::Semaphore | Wait::Eventfd))
}

/// One line a mechanism and wait of the rows that `choose` takes, from the points `at` makes.
fn series(
    rows: &[Row],
    choose: impl Fn(&Row) -> bool,
    at: impl Fn(&Row) -> Vec<(f64, f64)>,
) -> Vec<Series> {
    let keys: BTreeSet<Key> = rows.iter().map(key).filter(|&key| is_drawn(key)).collect();
    keys.into_iter()
        .filter_map(|of| {
            let chosen: Vec<&Row> = rows
                .iter()
                .filter(|row| key(row) == of && choose(row))
                .collect();
            let first = chosen.first()?;
            Some(Series {
                label: first.case().label(),
                look: look(of),
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

/// A heading, what it says, and what is drawn.
struct Chart {
    heading: String,
    text: &'static str,
    svg: String,
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn charts(rows: &[Row]) -> Outcome<Vec<Chart>> {
    let mut charts = Vec::new();
    for mode in [Mode::Rtt, Mode::Oneway, Mode::Throughput, Mode::Batch] {
        charts.push(by_size(rows, mode)?);
    }
    charts.push(by_percentile(rows)?);
    charts.push(open_load(rows, "median", |times| Some(times.p50))?);
    charts.push(open_load(rows, "99th percentile", |times| times.p99)?);
    for mode in [Mode::Rtt, Mode::Throughput] {
        charts.push(costs(rows, mode)?);
    }
    charts.retain(|chart| !chart.svg.is_empty());
    Ok(charts)
}

fn by_size(rows: &[Row], mode: Mode) -> Outcome<Chart> {
    let throughput = mode.is_throughput();
    let sizes: BTreeSet<usize> = rows
        .iter()
        .filter(|row| !row.mechanism.is_limit())
        .map(|row| row.size)
        .collect();
    let axes = Axes {
        x: "message size",
        y: if throughput {
            "messages a second"
        } else {
            "typical time"
        },
        x_marks: sizes
            .iter()
            .map(|&bytes| (bytes as f64, size(bytes)))
            .collect(),
        log_x: true,
        y_format: if throughput { count_mark } else { time_mark },
    };
    let lines_of = series(
        rows,
        |row| row.mode == mode,
        |row| vec![(row.size as f64, row.value())],
    );
    let heading = format!("{} by size", title(mode));
    Ok(Chart {
        svg: lines(&heading, &axes, &lines_of)?,
        heading,
        text: if throughput {
            "More is better. Both axes are logarithmic; 0 B stands at the left edge. Dashed grey: the \
             limits."
        } else {
            "Less is better. Both axes are logarithmic; 0 B stands at the left edge. Each time is the \
             median of the repetitions."
        },
    })
}

/// The size whose rows are shown where only one can be: 8 B, or the smallest there is.
fn shown_size(rows: &[Row], mode: Mode) -> usize {
    let sizes = || {
        rows.iter()
            .filter(|row| row.mode == mode && !row.mechanism.is_limit())
            .map(|row| row.size)
    };
    let usual = sizes().find(|&size| size == ONE_SIZE);
    usual.or_else(|| sizes().min()).unwrap_or(0)
}

fn by_percentile(rows: &[Row]) -> Outcome<Chart> {
    let bytes = shown_size(rows, Mode::Rtt);
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
        y_format: time_mark,
    };
    let lines_of = series(
        rows,
        |row| row.mode == Mode::Rtt && (row.size == bytes || row.mechanism.is_limit()),
        |row| {
            let points = row.curve.iter();
            points
                .filter(|point| (0.5..1.0).contains(&point.0) && point.1 > 0.0)
                .map(|&(share, ns)| (nines(share), ns))
                .collect()
        },
    );
    let heading = format!("Round trips of {}, by percentile", size(bytes));
    Ok(Chart {
        svg: lines(&heading, &axes, &lines_of)?,
        heading,
        text: "Less is better. Each round trip timed on its own; all repetitions together.",
    })
}

fn open_load(
    rows: &[Row],
    which: &str,
    get: impl Fn(Percentiles) -> Option<f64>,
) -> Outcome<Chart> {
    let bytes = shown_size(rows, Mode::Paced);
    let rates: BTreeSet<u64> = rows.iter().filter_map(|row| row.rate).collect();
    let axes = Axes {
        x: "messages a second that came through",
        y: "time from when a message was due",
        // Decades: marks closer than that would run into each other.
        x_marks: rates
            .iter()
            .filter(|rate| rate.to_string().trim_end_matches('0') == "1")
            .map(|&rate| (rate as f64, count_mark(rate as f64)))
            .collect(),
        log_x: true,
        y_format: time_mark,
    };
    let lines_of = series(
        rows,
        |row| row.mode == Mode::Paced && row.size == bytes,
        |row| {
            let point = row.rtt_ns.and_then(&get).map(|ns| (row.msgs_per_s, ns));
            point.into_iter().collect()
        },
    );
    let heading = format!("Latency under open load, {}, {which}", size(bytes));
    Ok(Chart {
        svg: lines(&heading, &axes, &lines_of)?,
        heading,
        text: "Messages come due at a fixed rate, whether or not the one before got away, and are late \
               from then on: a line that turns up has reached what its mechanism can do.",
    })
}

/// What a message costs both processes together.
fn costs(rows: &[Row], mode: Mode) -> Outcome<Chart> {
    let bytes = shown_size(rows, mode);
    let columns = [
        Column {
            title: "CPU time",
            format: time,
            log: true,
        },
        Column {
            title: "system calls",
            format: few,
            log: false,
        },
        Column {
            title: "wake-ups",
            format: few,
            log: false,
        },
    ];
    let mut chosen: Vec<&Row> = rows
        .iter()
        .filter(|row| (row.mode, row.size) == (mode, bytes) && !row.mechanism.is_limit())
        .collect();
    let cpu = |row: &Row| row.cpu_ns_per_msg.unwrap_or(f64::MAX);
    chosen.sort_by(|a, b| cpu(a).total_cmp(&cpu(b)));
    let things: Vec<Bars> = chosen
        .into_iter()
        .map(|row| Bars {
            label: row.case().label(),
            look: look(key(row)),
            values: vec![row.cpu_ns_per_msg, row.syscalls_per_msg, row.sleeps_per_msg],
        })
        .collect();
    let what = if mode.is_throughput() {
        "message"
    } else {
        "round trip"
    };
    let heading = format!(
        "What a {what} of {} costs both processes together",
        size(bytes)
    );
    Ok(Chart {
        svg: bars(&heading, &columns, &things)?,
        heading,
        text: "Less is better. CPU time is drawn by its logarithm: who spins uses all of it, who sleeps \
               pays for system calls and wake-ups instead. System calls are counted in a run of their \
               own under ptrace; wake-ups are the processes' voluntary context switches.",
    })
}

/// A small number.
fn few(value: f64) -> String {
    if value > 0.0 && value < 0.005 {
        return "<0.01".into();
    }
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What stands at a mark of an axis of times.
fn time_mark(ns: f64) -> String {
    round(&time(ns))
}

/// What stands at a mark of an axis of numbers.
fn count_mark(value: f64) -> String {
    round(&count(value)).trim_end().to_owned()
}

/// A number and its unit without zeros behind the point.
fn round(text: &str) -> String {
    match text.split_once(' ') {
        Some((number, unit)) if number.contains('.') => {
            let number = number.trim_end_matches('0').trim_end_matches('.');
            format!("{number} {unit}")
        }
        _ => text.to_owned(),
    }
}

/// Who is first, at each size.
fn beside(page: &mut String, rows: &[Row]) {
    let standings = standings(rows);
    let Some(first) = standings.first() else {
        return;
    };
    let _ = write!(
        page,
        "<section><h2>Ringway and the best of the others, CPUs {}</h2><div class=\"table\">\
         <table class=\"beside\"><thead><tr><th></th><th>size</th><th>Ringway</th><th></th>\
         <th>best other</th><th></th><th>times better</th></tr></thead><tbody>",
        first.placement().name()
    );
    for one in standings {
        let show = if one.mode.is_throughput() {
            count
        } else {
            time
        };
        let _ = write!(
            page,
            "<tr class=\"{}\"><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td>\
             <td>{}</td><td>{}<small> times better</small>{}</td></tr>",
            if one.ratio() > 1.0 { "ours" } else { "" },
            title(one.mode),
            size(one.size),
            one.ours.case().label(),
            show(one.ours.value()),
            one.other.case().label(),
            show(one.other.value()),
            ratio(Some(one.ratio())),
            if one.unsettled() { UNSETTLED } else { "" },
        );
    }
    page.push_str("</tbody></table></div></section>");
}

/// What stands beside what cannot be relied on.
const UNSETTLED: &str = " <em>unsettled</em>";

/// The rows as tables, best first, one a mode and size.
fn rankings(page: &mut String, rows: &[Row]) {
    for group in groups(rows) {
        let _ = write!(
            page,
            "<section><h2>{}</h2><div class=\"table\"><table><thead><tr><th></th><th></th>{}\
             <th>rounds</th><th>times its limit</th><th>CPU time</th><th>wake-ups</th>\
             <th>system calls</th><th>CPUs were</th></tr></thead><tbody>",
            group.heading(),
            if group.mode.is_throughput() {
                "<th>messages/s</th><th>bytes/s</th><th>least to most</th>"
            } else {
                "<th>typical</th><th>least to most</th><th>p50</th><th>p90</th><th>p99</th>\
                 <th>p99.9</th><th>max</th>"
            }
        );
        for row in &group.rows {
            ranked(page, row, group.range());
        }
        page.push_str("</tbody></table></div></section>");
    }
    if rows.iter().any(|row| row.typical_ns.is_some()) {
        page.push_str(
            "<p>Typical is the median of the repetitions, which least and most are of too; p50 to max \
             are of every operation of all repetitions, timed on its own.</p>",
        );
    }
}

fn ranked(page: &mut String, row: &Row, (least, most): (f64, f64)) {
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
    let RGBColor(r, g, b) = look(key(row)).colour;
    let colour = match class {
        "limit" => "currentColor".to_owned(),
        _ => format!("#{r:02X}{g:02X}{b:02X}"),
    };
    let _ = write!(
        page,
        "<tr class=\"{class}\"><th scope=\"row\">{}</th>\
         <td class=\"bar\"><i style=\"width:{share:.0}%;background:{colour}\"></i></td>",
        row.label()
    );
    let mut cell = |text: String| {
        let _ = write!(page, "<td>{text}</td>");
    };
    let throughput = row.mode.is_throughput();
    let show = if throughput { count } else { time };
    cell(show(row.value()));
    if throughput {
        cell(format!("{}B", count(row.bytes_per_s)));
    }
    let mark = if row.unsettled { UNSETTLED } else { "" };
    cell(format!("{} to {}{mark}", show(row.min), show(row.max)));
    if let Some(times) = row.rtt_ns {
        for value in times.all() {
            cell(value.map_or_else(String::new, time));
        }
    }
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
