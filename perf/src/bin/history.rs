//! `cargo run --release --bin history [OUT.svg]`: how Ringway's own figures went, from all files in
//! `results/`, one line a machine, mode and size: round trips in times of two bounced cache lines,
//! throughput in million messages a second.

use std::collections::BTreeMap;
use std::error::Error;

use plotters::prelude::*;
use serde_json::Value;

const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/results");

/// One line: machine, placement, mode and size, and its points in time.
type Lines = BTreeMap<(String, String, String, u64), Vec<(f64, f64)>>;

fn main() -> Result<(), Box<dyn Error>> {
    let out = std::env::args().nth(1);
    let out = out.unwrap_or_else(|| format!("{RESULTS}/history.svg"));
    let lines = lines()?;
    if lines.is_empty() {
        return Err(format!("{RESULTS}: no row of ringway's is there yet").into());
    }
    let root = SVGBackend::new(&out, (960, 760)).into_drawing_area();
    root.fill(&WHITE)?;
    let halves = root.split_evenly((2, 1));
    let is_round_trip = |mode: &str| mode == "rtt";
    panel(
        &halves[0],
        "round trip, in times of two bounced cache lines",
        &lines,
        is_round_trip,
    )?;
    panel(&halves[1], "million messages a second", &lines, |mode| {
        mode != "rtt"
    })?;
    root.present()?;
    println!("{out}: {} lines", lines.len());
    Ok(())
}

fn lines() -> Result<Lines, Box<dyn Error>> {
    let mut lines = Lines::new();
    for entry in std::fs::read_dir(RESULTS)? {
        let path = entry?.path();
        if path
            .extension()
            .is_none_or(|extension| extension != "ndjson")
        {
            continue;
        }
        for line in std::fs::read_to_string(&path)?.lines() {
            let row: Value = serde_json::from_str(line)
                .map_err(|error| format!("{}: {error}", path.display()))?;
            let text = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
            if text("peer") != "ringway" {
                continue;
            }
            let (Some(date), Some(median), Some(raw2), Some(size)) = (
                row["date"].as_f64(),
                row["median"].as_f64(),
                row["raw2_ns"].as_f64(),
                row["size"].as_u64(),
            ) else {
                return Err(format!("{}: a row lacks a field: {line}", path.display()).into());
            };
            let mode = text("mode");
            let value = if mode == "rtt" { median / raw2 } else { median };
            let key = (text("machine"), text("placement"), mode, size);
            lines.entry(key).or_default().push((date / 86_400.0, value));
        }
    }
    for points in lines.values_mut() {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    Ok(lines)
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    title: &str,
    lines: &Lines,
    shown: impl Fn(&str) -> bool,
) -> Result<(), Box<dyn Error>> {
    let chosen: Vec<_> = lines
        .iter()
        .filter(|((.., mode, _), _)| shown(mode))
        .collect();
    let points = || chosen.iter().flat_map(|(_, points)| points.iter());
    if points().next().is_none() {
        return Ok(());
    }
    let least = points().map(|p| p.0).fold(f64::MAX, f64::min) - 0.05;
    let most = points().map(|p| p.0).fold(f64::MIN, f64::max) + 0.05;
    let top = points().map(|p| p.1).fold(0.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 16))
        .margin(10)
        .margin_right(250)
        .x_label_area_size(30)
        .y_label_area_size(60)
        .build_cartesian_2d(least..most, 0.0..top)?;
    chart
        .configure_mesh()
        .x_labels(6)
        .x_label_formatter(&|days| date(*days))
        .label_style(("sans-serif", 13))
        .draw()?;
    for (i, ((machine, placement, mode, size), points)) in chosen.into_iter().enumerate() {
        let colour = Palette99::pick(i).to_rgba();
        chart.draw_series(
            LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(3),
        )?;
        let processor = machine.split(',').next().unwrap_or_default();
        let label = format!("{mode} {size} B, {placement}, {processor}");
        let at = (area.dim_in_pixel().0 as i32 - 244, 40 + 18 * i as i32);
        area.draw(&Text::new(
            label,
            at,
            ("sans-serif", 13).into_font().color(&colour),
        ))?;
    }
    Ok(())
}

/// Day and hour of a number of days since 1970.
fn date(days: f64) -> String {
    let whole = days.floor();
    // Civil from days, in years that begin in March so that the leap day comes last.
    let day = whole as i64 + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = era * 400 + year + i64::from(month <= 2);
    let in_month = of_year - (153 * march + 2) / 5 + 1;
    let hour = ((days - whole) * 24.0) as i64;
    format!("{year}-{month:02}-{in_month:02} {hour:02} h")
}
