//! `cargo run --release --bin picture BENCH.json [SIZE] [OUT.svg]`: the picture of the README, from what
//! `ringway bench --json` wrote: a bar a mechanism, as long as its median round trip on a logarithmic axis,
//! with the machine's limit among them.

use std::error::Error;

use plotters::prelude::*;
use serde_json::Value;

const OURS: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
const LIMIT: RGBColor = RGBColor(0x2c, 0xa0, 0x2c);
const LIMITS: [&str; 3] = ["raw1", "raw2", "bare-futex"];
const OTHERS: RGBColor = RGBColor(0x9a, 0x9a, 0x9a);

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let file = args.next().ok_or("which file of `ringway bench --json`?")?;
    let size: u64 = args.next().map_or(Ok(64), |size| size.parse())?;
    let out = args.next().unwrap_or_else(|| {
        concat!(env!("CARGO_MANIFEST_DIR"), "/results/round-trips.svg").to_owned()
    });
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
    let results: Value = serde_json::from_str(&text).map_err(|error| format!("{file}: {error}"))?;
    let bars = bars(&results, size)?;
    draw(&out, size, &bars)?;
    println!("{out}: {} bars", bars.len());
    Ok(())
}

/// Name and median round trip in nanoseconds, the shortest first.
fn bars(results: &Value, size: u64) -> Result<Vec<(String, f64)>, Box<dyn Error>> {
    let rows = results["rows"].as_array().ok_or("no `rows` in the file")?;
    let mut bars = Vec::new();
    for row in rows.iter().filter(|row| row["mode"] == "rtt") {
        let name = row["mechanism"].as_str().unwrap_or_default();
        // The limits have one size, whatever it is.
        let is_limit = LIMITS.contains(&name);
        let (Some(p50), true) = (
            row["typical_ns"].as_f64().or(row["rtt_ns"]["p50"].as_f64()),
            is_limit || row["size"].as_u64() == Some(size),
        ) else {
            continue;
        };
        let wait = row["wait"].as_str().unwrap_or_default();
        // How near a cache line is, is what these two measure.
        let wait = match name {
            "raw1" | "raw2" => row["placement"].as_str().unwrap_or_default(),
            _ => wait,
        };
        let name = format!("{name} {wait}").trim_end().to_owned();
        bars.push((name, p50));
    }
    if bars.is_empty() {
        return Err(format!("no round trip of {size} bytes in the file").into());
    }
    bars.sort_by(|a, b| a.1.total_cmp(&b.1));
    bars.dedup_by(|a, b| a.0 == b.0);
    Ok(bars)
}

fn draw(out: &str, size: u64, bars: &[(String, f64)]) -> Result<(), Box<dyn Error>> {
    let height = 60 + 24 * bars.len() as u32;
    let root = SVGBackend::new(out, (900, height)).into_drawing_area();
    root.fill(&WHITE)?;
    let most = bars.last().map_or(1.0, |bar| bar.1) * 2.5;
    let count = bars.len() as i32;
    let mut chart = ChartBuilder::on(&root)
        .caption(
            format!("median round trip of {size} bytes between two processes, in nanoseconds"),
            ("sans-serif", 16),
        )
        .margin(10)
        .x_label_area_size(24)
        .y_label_area_size(170)
        .build_cartesian_2d((50.0..most).log_scale(), (0..count).into_segmented())?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_labels(bars.len())
        .y_label_formatter(&|at| match at {
            SegmentValue::CenterOf(i) => bars
                .get((count - 1 - i) as usize)
                .map_or_else(String::new, |bar| bar.0.clone()),
            _ => String::new(),
        })
        .label_style(("sans-serif", 13))
        .draw()?;
    for (i, (name, value)) in (0..count).rev().zip(bars) {
        let colour = match name.split(' ').next() {
            Some("spsc" | "mpmc" | "broadcast") => OURS,
            Some(name) if LIMITS.contains(&name) => LIMIT,
            _ => OTHERS,
        };
        let ends = [
            (50.0, SegmentValue::Exact(i)),
            (*value, SegmentValue::Exact(i + 1)),
        ];
        let mut bar = Rectangle::new(ends, colour.filled());
        bar.set_margin(3, 3, 0, 0);
        chart.draw_series([bar])?;
        let label = Text::new(
            format!("{value:.0}"),
            (*value * 1.05, SegmentValue::CenterOf(i)),
            ("sans-serif", 13).into_font().into_text_style(&root).pos(
                plotters::style::text_anchor::Pos::new(
                    plotters::style::text_anchor::HPos::Left,
                    plotters::style::text_anchor::VPos::Center,
                ),
            ),
        );
        chart.draw_series([label])?;
    }
    root.present()?;
    Ok(())
}
