//! Figures and tables as people read them, no wider than the terminal.

use std::io::{self, Write};

/// Columns of the terminal on standard output; of a file or a pipe, no limit.
pub(crate) fn width() -> usize {
    crate::os::facts::terminal_width().map_or(usize::MAX, usize::from)
}

/// A number with a unit of thousands, in at most five characters: `999`, `1.2k`, `45.6M`.
pub(crate) fn count(number: f64) -> String {
    scaled(number, 1000.0, &["", "k", "M", "G", "T", "P", "E"])
}

/// A number of bytes: `512 B`, `64 KiB`, `1.5 GiB`.
pub(crate) fn bytes(number: f64) -> String {
    scaled(
        number,
        1024.0,
        &[" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"],
    )
}

fn scaled(number: f64, step: f64, units: &[&str]) -> String {
    let mut number = number;
    let mut unit = 0;
    // What would be rounded up to a whole step is one of the next unit.
    while number >= step - 0.5 && unit + 1 < units.len() {
        number /= step;
        unit += 1;
    }
    let whole = unit == 0 && number.fract() == 0.0 || number >= 99.95 || number == number.trunc();
    if whole {
        format!("{number:.0}{}", units[unit])
    } else {
        format!("{number:.1}{}", units[unit])
    }
}

/// A share in per cent; what is not nothing is not shown as nothing.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    match part {
        0 => "0%".into(),
        _ if whole == 0 => String::new(),
        _ => format!("{}%", (part as f64 * 100.0 / whole as f64).round().max(1.0)),
    }
}

/// A time in seconds: `5s`, `12m`, `3h`, `2d`.
pub(crate) fn age(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A time in nanoseconds: `85ns`, `1.5µs`, `20ms`, `3s`.
pub(crate) fn nanos(nanos: f64) -> String {
    scaled(nanos, 1000.0, &["ns", "µs", "ms", "s"])
}

/// `1 message`, `2 messages`.
pub(crate) fn messages(number: u64) -> String {
    match number {
        1 => "1 message".into(),
        _ => format!("{number} messages"),
    }
}

/// Makes text fit for a terminal: whatever controls one is shown as `?`.
pub(crate) fn safe(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// Cuts text to at most `width` characters.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.into();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// A plain table, with lines of text between its rows.
pub(crate) struct Table {
    head: Vec<&'static str>,
    right: Vec<usize>,
    lines: Vec<Line>,
}

enum Line {
    Row(Vec<String>),
    Note(String),
}

impl Table {
    pub(crate) fn new(head: &[&'static str]) -> Table {
        Table {
            head: head.to_vec(),
            right: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// Sets these columns flush right.
    pub(crate) fn right(&mut self, columns: &[usize]) {
        self.right = columns.to_vec();
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.lines.push(Line::Row(cells));
    }

    /// A line of its own under the row before it.
    pub(crate) fn note(&mut self, line: String) {
        self.lines.push(Line::Note(line));
    }

    /// Prints it; lines longer than `width` are cut.
    pub(crate) fn print(&self, out: &mut impl Write, width: usize) -> io::Result<()> {
        let mut widths: Vec<usize> = self
            .head
            .iter()
            .map(|title| title.chars().count())
            .collect();
        for line in &self.lines {
            if let Line::Row(cells) = line {
                for (width, cell) in widths.iter_mut().zip(cells) {
                    *width = (*width).max(safe(cell).chars().count());
                }
            }
        }
        // The first column, a name, gives way where there is no room for all.
        let rest: usize = widths[1..].iter().map(|width| width + 2).sum();
        if let Some(room) = width.checked_sub(rest).filter(|_| width != usize::MAX) {
            widths[0] = widths[0].min(room.max(12));
        }
        let head = self
            .head
            .iter()
            .map(|title| title.to_uppercase())
            .collect::<Vec<_>>();
        writeln!(out, "{}", cut(&self.join(&head, &widths), width))?;
        for line in &self.lines {
            let line = match line {
                Line::Row(cells) => self.join(cells, &widths),
                Line::Note(line) => safe(line),
            };
            writeln!(out, "{}", cut(line.trim_end(), width))?;
        }
        Ok(())
    }

    fn join(&self, cells: &[String], widths: &[usize]) -> String {
        let mut line = String::new();
        for (column, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let cell = cut(&safe(cell), *width);
            if column > 0 {
                line.push_str("  ");
            }
            let padding = " ".repeat(width - cell.chars().count());
            if self.right.contains(&column) {
                line.push_str(&padding);
                line.push_str(&cell);
            } else {
                line.push_str(&cell);
                line.push_str(&padding);
            }
        }
        line.trim_end().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short_and_keep_their_size() {
        let counts = [0.0, 7.0, 999.0, 1000.0, 1234.0, 45_600_000.0, 999_960.0];
        let shown: Vec<String> = counts.iter().map(|n| count(*n)).collect();
        assert_eq!(shown, ["0", "7", "999", "1k", "1.2k", "45.6M", "1.0M"]);
        assert_eq!(bytes(512.0), "512 B");
        assert_eq!(bytes(65_536.0), "64 KiB");
        assert_eq!(bytes(1.5 * 1024.0 * 1024.0 * 1024.0), "1.5 GiB");
        assert_eq!(percent(0, 100), "0%");
        assert_eq!(percent(1, 100_000), "1%");
        assert_eq!(percent(50, 100), "50%");
        assert_eq!(
            [age(5), age(720), age(10_800), age(200_000)],
            ["5s", "12m", "3h", "2d"]
        );
        assert_eq!(nanos(1500.0), "1.5µs");
    }

    #[test]
    fn a_table_is_no_wider_than_it_may_be_and_passes_no_escapes() {
        let mut table = Table::new(&["name", "size"]);
        table.right(&[1]);
        table.row(vec![
            "a-very-long-name-that-does-not-fit-at-all".into(),
            "1 KiB".into(),
        ]);
        table.note("  \x1b[31mred".into());
        let mut out = Vec::new();
        table.print(&mut out, 30).unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(out.lines().all(|line| line.chars().count() <= 30), "{out}");
        assert!(!out.contains('\x1b'), "{out}");
        assert!(out.contains("1 KiB"), "{out}");
    }
}
