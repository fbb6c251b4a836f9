//! The table in the terminal.

use std::fmt::Write;

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::group::{Group, groups};
use super::plan::Mode;
use super::rows::Row;
use super::standing::{Standing, standings};

/// A number of nanoseconds, as people read it.
pub(crate) fn time(ns: f64) -> String {
    match ns {
        _ if !ns.is_finite() || ns <= 0.0 => "-".into(),
        ..1_000.0 => format!("{ns:.0} ns"),
        ..1_000_000.0 => format!("{:.*} µs", digits(ns / 1e3), ns / 1e3),
        ..1_000_000_000.0 => format!("{:.*} ms", digits(ns / 1e6), ns / 1e6),
        _ => format!("{:.1} s", ns / 1e9),
    }
}

/// A number with a unit of thousands, as people read it.
pub(crate) fn count(value: f64) -> String {
    for (scale, letter) in [(1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if value >= scale {
            return format!("{:.*} {letter}", digits(value / scale), value / scale);
        }
    }
    format!("{value:.0} ")
}

/// A size in bytes, in powers of two where it is a multiple of one.
pub(crate) fn size(bytes: usize) -> String {
    match bytes {
        _ if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} B"),
    }
}

/// A ratio, as people read it.
pub(crate) fn ratio(value: Option<f64>) -> String {
    match value {
        None => "-".into(),
        Some(value) if value < 10.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.0}"),
    }
}

fn digits(value: f64) -> usize {
    match value {
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    }
}

/// A bar whose length grows with the logarithm of `value` between `least` and `most`.
fn bar(value: f64, least: f64, most: f64) -> String {
    const EIGHTHS: [char; 8] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];
    const WIDTH: f64 = 16.0;
    let share = if most > least {
        (value / least).ln() / (most / least).ln()
    } else {
        1.0
    };
    let eighths = ((0.5 + share * (WIDTH - 0.5)) * 8.0).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(EIGHTHS[eighths % 8 - 1]);
    }
    bar
}

/// The rows as tables, one a mode and size, best first.
pub(crate) fn render(rows: &[Row]) -> String {
    let mut text = String::new();
    for group in groups(rows) {
        let _ = writeln!(text, "\n{}\n{}", group.heading(), one(&group));
    }
    if rows.iter().any(|row| row.typical_ns.is_some()) {
        text.push_str(
            "\ntypical: the median of the repetitions, which least..most are of too; p50 to max: every \
             operation of all\nrepetitions, timed on its own.\n",
        );
    }
    let standings = standings(rows);
    if !standings.is_empty() {
        let _ = writeln!(
            text,
            "\nRingway and the best of the others, CPUs {}\n{}",
            standings[0].placement().name(),
            beside(&standings)
        );
    }
    text
}

/// Who is first, mode by mode and size by size.
fn beside(standings: &[Standing<'_>]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["", "", "", "", "", "", "times better", ""]);
    for one in standings {
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let show = if one.mode.is_throughput() {
            count
        } else {
            time
        };
        table.add_row([
            Cell::new(one.mode.name()),
            right(size(one.size)),
            Cell::new(one.ours.case().label()),
            right(show(one.ours.value())),
            Cell::new(one.other.case().label()),
            right(show(one.other.value())),
            right(ratio(Some(one.ratio()))),
            Cell::new(if one.unsettled() { "unsettled" } else { "" }),
        ]);
    }
    table
}

/// What a mode is called where there is room for it.
pub(crate) fn title(mode: Mode) -> &'static str {
    match mode {
        Mode::Rtt => "Round trip",
        Mode::Oneway => "One way, by the shared clock",
        Mode::Throughput => "Throughput, one message at a time",
        Mode::Batch => "Throughput, in batches of 32",
        Mode::Paced => "One way at the given rate, from when each message was due",
    }
}

fn one(group: &Group) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let throughput = group.mode.is_throughput();
    let mut head = vec!["", "placement"];
    if throughput {
        head.extend(["messages/s", "bytes/s"]);
    } else {
        head.push("typical");
    }
    head.push("least..most");
    if !throughput {
        head.extend(["p50", "p90", "p99", "p99.9", "max"]);
    }
    head.extend([
        "times its limit",
        "CPU/message",
        "wake-ups",
        "system calls",
        "",
    ]);
    table.set_header(head);
    let (least, most) = group.range();
    for row in &group.rows {
        let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let mut cells = vec![Cell::new(row.label()), Cell::new(row.placement.name())];
        let show = if throughput { count } else { time };
        cells.push(right(show(row.value())));
        if throughput {
            cells.push(right(format!("{}B", count(row.bytes_per_s))));
        }
        let mark = if row.unsettled { " unsettled" } else { "" };
        let spread = format!("{}..{}{mark}", show(row.min).trim(), show(row.max).trim());
        cells.push(right(spread));
        if let Some(times) = row.rtt_ns {
            for value in times.all() {
                cells.push(right(value.map_or_else(String::new, time)));
            }
        }
        cells.push(right(match row.ratio_to_limit {
            _ if row.mechanism == row.limit => String::new(),
            ratio_to_limit => format!("{} {}", ratio(ratio_to_limit), row.limit.name()),
        }));
        cells.push(right(row.cpu_ns_per_msg.map_or_else(String::new, time)));
        for value in [row.sleeps_per_msg, row.syscalls_per_msg] {
            cells.push(right(
                value.map_or_else(String::new, |value| format!("{value:.2}")),
            ));
        }
        cells.push(Cell::new(bar(row.value(), least, most)));
        table.add_row(cells);
    }
    table
}
