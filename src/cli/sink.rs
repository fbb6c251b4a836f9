//! `ringway sink`: the end of a pipeline of messages: counts, checks, and reports.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use hdrhistogram::Histogram;

use super::Failure;
use super::probe::{self, Seen};
use crate::RecvError;
use crate::stage::{self, Message};

/// Count and check the messages that come, and report throughput and latency
///
/// Messages of `ringway gen` are checked: whether each came, up to the one that says that it is the last,
/// whether only once, unchanged, and in order (behind several workers, there is none). Exit status 1 says
/// that they were not, or that nothing came at all. Others are only counted.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ringway run 'ringway gen --count 10000000 --size 64' 'ringway map' 'ringway sink'
  ringway run 'ringway gen --rate 100000 --count 500000' 'ringway sink --json'")]
pub(crate) struct Args {
    /// Print one line of JSON instead
    #[arg(long)]
    json: bool,

    /// Do not draw the distribution of the latencies
    #[arg(long)]
    no_histogram: bool,
}

/// What came.
struct Tally {
    messages: u64,
    bytes: u64,
    redelivered: u64,
    /// No messages of `ringway gen`, or not as they were made.
    strange: u64,
    /// Those that came for the first time, and behind a later one.
    late: u64,
    /// Whether there is an order to be kept.
    ordered: bool,
    seen: Seen,
    /// How many there are to be, told by the last message.
    announced: Option<u64>,
    latency: Histogram<u64>,
    first: u64,
    end: u64,
}

pub(crate) fn main(args: Args) -> Result<ExitCode, Failure> {
    let mut input = stage::input()?;
    let mut tally = Tally {
        messages: 0,
        bytes: 0,
        redelivered: 0,
        strange: 0,
        late: 0,
        ordered: stage::keeps_order(),
        seen: Seen::default(),
        announced: None,
        latency: Histogram::new_with_bounds(1, 3_600_000_000_000, 3).map_err(Failure::new)?,
        first: 0,
        end: 0,
    };
    let ended = loop {
        match input.recv() {
            Ok(message) => tally.add(&message),
            Err(error) => break error,
        }
    };
    tally.end = probe::now();
    let mut text = String::new();
    if args.json {
        tally.json(&mut text);
    } else {
        tally.report(&mut text, !args.no_histogram);
    }
    std::io::stdout().write_all(text.as_bytes())?;
    match ended {
        RecvError::Closed if tally.is_well() => Ok(ExitCode::SUCCESS),
        RecvError::Closed => Ok(ExitCode::FAILURE),
        error => Err(Failure::of("input", error)),
    }
}

impl Tally {
    #[inline]
    fn add(&mut self, message: &Message<'_>) {
        if self.messages == 0 {
            self.first = probe::now();
        }
        self.messages += 1;
        self.bytes += message.len() as u64;
        self.redelivered += u64::from(message.redelivered());
        let Some(told) = probe::read(message) else {
            self.strange += 1;
            return;
        };
        let late = self.seen.add(told.sequence);
        self.late += u64::from(late && !message.redelivered());
        if told.last {
            self.announced = Some(told.sequence + 1);
        }
        if told.time != 0 {
            let latency = probe::now().saturating_sub(told.time);
            self.latency.saturating_record(latency.max(1));
        }
    }

    /// Whether these are messages of `ringway gen`, as far as they are not damaged. A stranger's short
    /// message looks like one in 16 million times.
    fn ours(&self) -> bool {
        self.strange / 1024 < self.messages - self.strange
    }

    fn damaged(&self) -> u64 {
        if self.ours() { self.strange } else { 0 }
    }

    /// How many numbers are missing: up to the last if that came, otherwise up to the greatest.
    fn lost(&self) -> u64 {
        if !self.ours() {
            return 0;
        }
        let (different, end) = self.seen.total();
        self.announced.unwrap_or(0).max(end) - different
    }

    fn is_well(&self) -> bool {
        if !self.ours() {
            return self.messages > 0;
        }
        self.announced.is_some()
            && self.lost() == 0
            && self.strange == 0
            && self.seen.doubled <= self.redelivered
            && (self.late == 0 || !self.ordered)
    }

    fn seconds(&self) -> f64 {
        (self.end - self.first).max(1) as f64 / 1e9
    }

    fn report(&self, text: &mut String, histogram: bool) {
        let _ = self.write(text, histogram);
    }

    fn write(&self, text: &mut String, histogram: bool) -> std::fmt::Result {
        writeln!(
            text,
            "received   {} messages, {} in {:.3} s: {} messages/s, {}/s",
            grouped(self.messages),
            amount(self.bytes as f64, "B"),
            if self.messages == 0 {
                0.0
            } else {
                self.seconds()
            },
            amount(self.messages as f64 / self.seconds(), ""),
            amount(self.bytes as f64 / self.seconds(), "B"),
        )?;
        if self.ours() {
            let end = match self.announced {
                Some(count) => format!("all {} announced", grouped(count)),
                None => "cut off: the last one did not come".to_owned(),
            };
            let order = if self.ordered {
                ""
            } else {
                " as workers do it"
            };
            writeln!(
                text,
                "checked    {} lost, {} doubled, {} damaged, {} out of order{order}, {} redelivered ({end})",
                grouped(self.lost()),
                grouped(self.seen.doubled),
                grouped(self.damaged()),
                grouped(self.late),
                grouped(self.redelivered),
            )?;
        } else if self.messages > 0 {
            writeln!(
                text,
                "not checked: these are no messages of `ringway gen` of 8 bytes or more"
            )?;
        }
        if self.latency.is_empty() {
            return Ok(());
        }
        write!(text, "latency   ")?;
        for (name, quantile) in [
            ("50 %", 0.5),
            ("90 %", 0.9),
            ("99 %", 0.99),
            ("99.9 %", 0.999),
        ] {
            write!(
                text,
                " {name} {},",
                time(self.latency.value_at_quantile(quantile))
            )?;
        }
        writeln!(
            text,
            " least {}, greatest {} ({} sampled)",
            time(self.latency.min()),
            time(self.latency.max()),
            grouped(self.latency.len()),
        )?;
        if histogram {
            self.draw(text)?;
        }
        Ok(())
    }

    /// Bars for each doubling of the latency.
    fn draw(&self, text: &mut String) -> std::fmt::Result {
        let mut bars: Vec<(u64, u64)> = Vec::new();
        for value in self.latency.iter_recorded() {
            let from = 1 << value.value_iterated_to().max(1).ilog2();
            match bars.last_mut() {
                Some((last, count)) if *last == from => *count += value.count_at_value(),
                _ => bars.push((from, value.count_at_value())),
            }
        }
        let most = bars.iter().map(|(_, count)| *count).max().unwrap_or(1);
        for (from, count) in bars {
            let len = (count * 50).div_ceil(most) as usize;
            let share = 100.0 * count as f64 / self.latency.len() as f64;
            writeln!(
                text,
                "  {:>8} to {:<8} {:<50} {share:5.1} %",
                time(from),
                time(2 * from),
                "#".repeat(len),
            )?;
        }
        Ok(())
    }

    fn json(&self, text: &mut String) {
        let nanos = |quantile| self.latency.value_at_quantile(quantile);
        let report = serde_json::json!({
            "messages": self.messages,
            "bytes": self.bytes,
            "seconds": if self.messages == 0 { 0.0 } else { self.seconds() },
            "checked": self.ours(),
            "announced": self.announced,
            "lost": self.lost(),
            "doubled": self.seen.doubled,
            "damaged": self.damaged(),
            "out_of_order": self.late,
            "redelivered": self.redelivered,
            "latency_ns": {
                "samples": self.latency.len(),
                "min": self.latency.min(),
                "p50": nanos(0.5),
                "p90": nanos(0.9),
                "p99": nanos(0.99),
                "p999": nanos(0.999),
                "max": self.latency.max(),
            },
        });
        let _ = writeln!(text, "{report}");
    }
}

/// With a comma between each three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// With three digits and a prefix: 19.2 M.
fn amount(number: f64, unit: &str) -> String {
    let (scaled, prefix) = match number {
        1e9.. => (number / 1e9, " G"),
        1e6.. => (number / 1e6, " M"),
        1e3.. => (number / 1e3, " k"),
        _ => (number, if unit.is_empty() { "" } else { " " }),
    };
    let decimals = match scaled {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    format!("{scaled:.decimals$}{prefix}{unit}")
}

/// Nanoseconds, as people read them.
fn time(nanos: u64) -> String {
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => format!("{:.3} us", nanos as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.3} ms", nanos as f64 / 1e6),
        _ => format!("{:.3} s", nanos as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(123_456), "123,456");
        assert_eq!(amount(19_234_000.0, ""), "19.2 M");
        assert_eq!(amount(640e6, "B"), "640 MB");
        assert_eq!(amount(12.0, "B"), "12.0 B");
        assert_eq!(time(999), "999 ns");
        assert_eq!(time(1_500), "1.500 us");
    }
}
