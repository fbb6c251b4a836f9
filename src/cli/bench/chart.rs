//! Line charts for the report, drawn by plotters as SVG that follows the page's colours.

use std::error::Error;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;

/// One line.
pub(crate) struct Series {
    pub(crate) label: String,
    /// Which colour of the palette.
    pub(crate) colour: usize,
    /// Whether it is one of ours, drawn thicker.
    pub(crate) strong: bool,
    pub(crate) points: Vec<(f64, f64)>,
}

/// What the axes say, and how.
pub(crate) struct Axes {
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    /// Where the x axis has marks, and what they say; x is drawn in equal steps of its logarithm
    /// when `log_x`.
    pub(crate) x_marks: Vec<(f64, String)>,
    pub(crate) log_x: bool,
    pub(crate) y_format: fn(f64) -> String,
}

/// Colours that can be told apart on white and on black, also by most who see fewer colours.
const PALETTE: [RGBColor; 16] = [
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0xCC, 0x79, 0xA7),
    RGBColor(0xE6, 0x9F, 0x00),
    RGBColor(0x56, 0xB4, 0xE9),
    RGBColor(0x8C, 0x6B, 0xB1),
    RGBColor(0x99, 0x7A, 0x3D),
    RGBColor(0x4D, 0xAF, 0x4A),
    RGBColor(0xE4, 0x5A, 0x6E),
    RGBColor(0x37, 0x8C, 0x9C),
    RGBColor(0xA6, 0x56, 0x28),
    RGBColor(0x77, 0x88, 0x99),
    RGBColor(0xB0, 0xA0, 0x30),
    RGBColor(0x60, 0x70, 0xD0),
    RGBColor(0xB0, 0x50, 0xB0),
];

/// Stands for the colour of the page's text until the SVG is done.
const INK: RGBColor = RGBColor(1, 2, 3);

/// The colour of the palette, as CSS has it.
pub(crate) fn css_colour(index: usize) -> String {
    let RGBColor(r, g, b) = PALETTE[index % PALETTE.len()];
    format!("#{r:02X}{g:02X}{b:02X}")
}

const WIDTH: u32 = 960;
const HEIGHT: u32 = 520;
/// Room for the labels at the ends of the lines.
const LABELS: u32 = 170;

/// Positions along the x axis, with marks of our own.
#[derive(Clone)]
struct XAxis {
    marks: Vec<(f64, String)>,
    low: f64,
    high: f64,
    log: bool,
}

impl XAxis {
    fn scale(&self, x: f64) -> f64 {
        if self.log { x.max(0.5).log2() } else { x }
    }
}

impl Ranged for XAxis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let (low, high) = (self.scale(self.low), self.scale(self.high));
        let share = (self.scale(*value) - low) / (high - low).max(1e-9);
        limit.0 + (share * f64::from(limit.1 - limit.0)) as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.marks.iter().map(|mark| mark.0).collect()
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for XAxis {
    fn format_ext(&self, value: &f64) -> String {
        self.marks
            .iter()
            .find(|mark| mark.0 == *value)
            .map_or(String::new(), |mark| mark.1.clone())
    }
}

/// Draws the lines; `None` when there is nothing to draw.
pub(crate) fn lines(axes: &Axes, series: &[Series]) -> Result<Option<String>, Box<dyn Error>> {
    let all = || series.iter().flat_map(|series| series.points.iter());
    let least = |f: fn(&(f64, f64)) -> f64| all().map(f).fold(f64::MAX, f64::min);
    let most = |f: fn(&(f64, f64)) -> f64| all().map(f).fold(f64::MIN, f64::max);
    if all().next().is_none() {
        return Ok(None);
    }
    let marks = axes.x_marks.iter().map(|mark| mark.0);
    let x = XAxis {
        low: marks.clone().fold(least(|p| p.0), f64::min),
        high: marks.fold(most(|p| p.0), f64::max),
        marks: axes.x_marks.clone(),
        log: axes.log_x,
    };
    // Whole decades, so that the marks read 1, 10, 100.
    let (low, high) = (
        10f64.powf(least(|p| p.1).log10().floor()),
        10f64.powf(most(|p| p.1).log10().ceil()),
    );
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        let small = ("sans-serif", 14).into_font().color(&INK);
        let mut chart = ChartBuilder::on(&root)
            .margin_top(12)
            .margin_right(LABELS)
            .x_label_area_size(44)
            .y_label_area_size(84)
            .build_cartesian_2d(x, (low..high.max(low * 10.0)).log_scale())?;
        chart
            .configure_mesh()
            .x_desc(axes.x)
            .y_desc(axes.y)
            .axis_style(INK.mix(0.6))
            .bold_line_style(INK.mix(0.16))
            .light_line_style(INK.mix(0.06))
            .label_style(small.clone())
            .axis_desc_style(small)
            .y_label_formatter(&|y| (axes.y_format)(*y))
            .draw()?;
        let mut ends = Vec::new();
        for one in series {
            let colour = PALETTE[one.colour % PALETTE.len()];
            let style = colour.stroke_width(if one.strong { 3 } else { 1 });
            chart.draw_series(LineSeries::new(one.points.iter().copied(), style))?;
            let radius = if one.strong { 3 } else { 2 };
            chart.draw_series(
                one.points
                    .iter()
                    .map(|&point| Circle::new(point, radius, colour.filled())),
            )?;
            if let Some(last) = one.points.last() {
                ends.push((chart.backend_coord(last), one, colour));
            }
        }
        // Labels stand at the ends of their lines, pushed apart where those lie close.
        ends.sort_by_key(|(at, ..)| at.1);
        let line = 14;
        let mut y = i32::MIN / 2;
        let mut places: Vec<i32> = ends
            .iter()
            .map(|((_, end), ..)| {
                y = (*end - line / 2).max(y + line);
                y
            })
            .collect();
        let mut floor = HEIGHT as i32 - line;
        for place in places.iter_mut().rev() {
            *place = (*place).min(floor);
            floor = *place - line;
        }
        for (((x, end), one, colour), y) in ends.into_iter().zip(places) {
            let label_x = (WIDTH - LABELS) as i32 + 14;
            root.draw(&PathElement::new(
                [(x + 4, end), (label_x - 3, y + line / 2)],
                colour.mix(0.5),
            ))?;
            root.draw(&Text::new(
                one.label.clone(),
                (label_x, y),
                ("sans-serif", 13).into_font().color(&colour),
            ))?;
        }
        root.present()?;
    }
    let ink = format!("#{:02X}{:02X}{:02X}", INK.0, INK.1, INK.2);
    Ok(Some(svg.replace(&ink, "currentColor").replacen(
        &format!("width=\"{WIDTH}\" height=\"{HEIGHT}\""),
        "role=\"img\"",
        1,
    )))
}
