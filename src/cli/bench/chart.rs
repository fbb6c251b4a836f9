//! Charts for the report, drawn by plotters as SVG that follows the page's colours. Each is drawn
//! twice, for a wide page and for a narrow one; the page's style sheet shows one of the two.

use std::error::Error;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// How a line or a bar is drawn.
#[derive(Clone, Copy)]
pub(crate) struct Look {
    pub(crate) colour: RGBColor,
    /// Whether it is one of ours, drawn thicker.
    pub(crate) strong: bool,
    /// Lengths of its strokes and of the gaps between, in pixels, if it is no whole line.
    pub(crate) dash: Option<(u32, u32)>,
}

/// Stands for the colour of the page's text until the SVG is done.
pub(crate) const INK: RGBColor = RGBColor(1, 2, 3);

/// One line.
pub(crate) struct Series {
    pub(crate) label: String,
    pub(crate) look: Look,
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

/// Some quantities of one thing, as bars in a row.
pub(crate) struct Bars {
    pub(crate) label: String,
    pub(crate) look: Look,
    /// One a column; none where it is not known.
    pub(crate) values: Vec<Option<f64>>,
}

/// A column of bars.
pub(crate) struct Column {
    pub(crate) title: &'static str,
    pub(crate) format: fn(f64) -> String,
    /// Whether lengths grow with the logarithm.
    pub(crate) log: bool,
}

/// The measures of a page.
#[derive(Clone, Copy)]
struct Frame {
    class: &'static str,
    width: u32,
    font: u32,
    /// Whether the names of lines stand below and not at their ends.
    below: bool,
}

/// In the units of the page: a narrow one is shown at three quarters of this width.
const FRAMES: [Frame; 2] = [
    Frame {
        class: "wide",
        width: 960,
        font: 14,
        below: false,
    },
    Frame {
        class: "narrow",
        width: 480,
        font: 18,
        below: true,
    },
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Outcome<T> = Result<T, Box<dyn Error>>;

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
        if self.log { x.max(1.0).log2() } else { x }
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

/// Draws the lines; empty when there is nothing to draw.
pub(crate) fn lines(title: &str, axes: &Axes, series: &[Series]) -> Outcome<String> {
    if series.iter().all(|series| series.points.is_empty()) {
        return Ok(String::new());
    }
    drawn(
        title,
        |frame| {
            let names = series.len().div_ceil(2) as u32 * line(frame);
            if frame.below { 440 + names } else { 520 }
        },
        |frame, root| lines_in(frame, root, axes, series),
    )
}

/// Draws the bars, one row a thing; empty when there is nothing to draw.
pub(crate) fn bars(title: &str, columns: &[Column], rows: &[Bars]) -> Outcome<String> {
    if rows.is_empty() {
        return Ok(String::new());
    }
    drawn(
        title,
        |frame| (rows.len() as u32 + 2) * line(frame),
        |frame, root| bars_in(frame, root, columns, rows),
    )
}

/// The height of a line of text.
fn line(frame: Frame) -> u32 {
    frame.font * 4 / 3
}

/// Has `draw` draw on a page of either width.
fn drawn(
    title: &str,
    height: impl Fn(Frame) -> u32,
    draw: impl Fn(Frame, &Area<'_>) -> Outcome<()>,
) -> Outcome<String> {
    let mut all = String::new();
    for frame in FRAMES {
        let (width, height) = (frame.width, height(frame));
        let mut svg = String::new();
        let root = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        draw(frame, &root)?;
        root.present()?;
        drop(root);
        let RGBColor(r, g, b) = INK;
        let head = format!("width=\"{width}\" height=\"{height}\"");
        let named = format!(
            "class=\"{}\" role=\"img\" aria-label=\"{title}\"",
            frame.class
        );
        all.push_str(
            &svg.replace(&format!("#{r:02X}{g:02X}{b:02X}"), "currentColor")
                .replacen(&head, &named, 1),
        );
    }
    Ok(all)
}

fn lines_in(frame: Frame, root: &Area<'_>, axes: &Axes, series: &[Series]) -> Outcome<()> {
    let all = || series.iter().flat_map(|series| series.points.iter());
    let least = |f: fn(&(f64, f64)) -> f64| all().map(f).fold(f64::MAX, f64::min);
    let most = |f: fn(&(f64, f64)) -> f64| all().map(f).fold(f64::MIN, f64::max);
    let marks = axes.x_marks.iter().map(|mark| mark.0);
    let x = XAxis {
        low: marks.clone().fold(least(|p| p.0), f64::min),
        high: marks.fold(most(|p| p.0), f64::max),
        marks: axes.x_marks.clone(),
        log: axes.log_x,
    };
    // Whole decades, so that the marks read 1, 10, 100.
    let (low, high) = (
        10f64.powf(least(|p| p.1).max(1e-3).log10().floor()),
        10f64.powf(most(|p| p.1).max(1e-3).log10().ceil()),
    );
    let (width, height) = root.dim_in_pixel();
    let names = series.len().div_ceil(2) as u32 * line(frame);
    let (right, bottom) = if frame.below {
        (32, names + 8)
    } else {
        (176, 0)
    };
    let text = ("sans-serif", frame.font).into_font().color(&INK);
    let mut chart = ChartBuilder::on(root)
        .margin_top(12)
        .margin_right(right)
        .margin_bottom(bottom)
        .x_label_area_size(3 * frame.font + 4)
        .y_label_area_size(6 * frame.font)
        .build_cartesian_2d(x, (low..high.max(low * 10.0)).log_scale())?;
    chart
        .configure_mesh()
        .x_desc(axes.x)
        .y_desc(axes.y)
        .axis_style(INK.mix(0.6))
        .bold_line_style(INK.mix(0.16))
        .light_line_style(INK.mix(0.05))
        .label_style(text.clone())
        .axis_desc_style(text)
        .y_label_formatter(&|y| (axes.y_format)(*y))
        .draw()?;
    let mut ends = Vec::new();
    for one in series {
        let Look {
            colour,
            strong,
            dash,
        } = one.look;
        let style = colour.stroke_width(if strong { 3 } else { 1 });
        let points = one.points.iter().copied();
        if let Some((stroke, gap)) = dash {
            chart.draw_series(DashedLineSeries::new(points, stroke, gap, style))?;
        } else {
            chart.draw_series(LineSeries::new(points, style))?;
        }
        let radius = if strong { 3 } else { 2 };
        let dots = one.points.iter();
        chart.draw_series(dots.map(|&point| Circle::new(point, radius, colour.filled())))?;
        if let Some(last) = one.points.last() {
            ends.push((chart.backend_coord(last), one));
        }
    }
    // Names stand in the order in which the lines end.
    ends.sort_by_key(|(at, _)| at.1);
    let step = line(frame) as i32;
    if frame.below {
        let rows = ends.len().div_ceil(2);
        for (i, (_, one)) in ends.into_iter().enumerate() {
            let at = (
                12 + (i / rows) as i32 * (width / 2) as i32,
                (height - names) as i32 + (i % rows) as i32 * step + step / 2,
            );
            sample(root, one.look, at, 30)?;
            name(root, frame, one, (at.0 + 38, at.1))?;
        }
        return Ok(());
    }
    // At the ends of their lines, pushed apart where those lie close.
    let step = step.min(height as i32 / (ends.len() as i32 + 1));
    let mut y = i32::MIN / 2;
    let mut places: Vec<i32> = ends
        .iter()
        .map(|((_, end), _)| {
            y = (*end).max(y + step);
            y
        })
        .collect();
    let mut floor = height as i32 - step;
    for place in places.iter_mut().rev() {
        *place = (*place).min(floor);
        floor = *place - step;
    }
    for (((x, end), one), y) in ends.into_iter().zip(places) {
        let left = (width - right) as i32 + 14;
        let lead = [(x + 4, end), (left - 3, y)];
        root.draw(&PathElement::new(lead, one.look.colour.mix(0.5)))?;
        name(root, frame, one, (left, y))?;
    }
    Ok(())
}

/// A piece of a line, for a legend.
fn sample(root: &Area<'_>, look: Look, (x, y): (i32, i32), length: i32) -> Outcome<()> {
    let style = look.colour.stroke_width(if look.strong { 3 } else { 1 });
    let pieces: &[(i32, i32)] = match look.dash {
        None => &[(0, 30)],
        Some((stroke, _)) if stroke > 4 => &[(0, 11), (19, 30)],
        Some(_) => &[(0, 4), (9, 13), (18, 22), (27, 30)],
    };
    for &(from, to) in pieces {
        let scaled = |at: i32| x + at * length / 30;
        root.draw(&PathElement::new(
            [(scaled(from), y), (scaled(to), y)],
            style,
        ))?;
    }
    Ok(())
}

/// A line's name, in its colour.
fn name(root: &Area<'_>, frame: Frame, one: &Series, at: (i32, i32)) -> Outcome<()> {
    let font = ("sans-serif", frame.font - 1).into_font();
    let font = if one.look.strong {
        font.style(FontStyle::Bold)
    } else {
        font
    };
    let style = font
        .color(&one.look.colour)
        .pos(Pos::new(HPos::Left, VPos::Center));
    Ok(root.draw(&Text::new(one.label.clone(), at, style))?)
}

fn bars_in(frame: Frame, root: &Area<'_>, columns: &[Column], rows: &[Bars]) -> Outcome<()> {
    let (width, _) = root.dim_in_pixel();
    let step = line(frame) as i32;
    let names = 8 * frame.font as i32;
    let each = (width as i32 - names) / columns.len().max(1) as i32;
    let value_room = if frame.below { 3 } else { 5 } * frame.font as i32;
    let style = |colour: RGBColor, bold: bool, horizontal: HPos| {
        let font = ("sans-serif", frame.font - 1).into_font();
        let font = if bold {
            font.style(FontStyle::Bold)
        } else {
            font
        };
        font.color(&colour).pos(Pos::new(horizontal, VPos::Center))
    };
    for (i, row) in rows.iter().enumerate() {
        let y = (i as i32 + 1) * step + step;
        let at = (names - 8, y);
        let text = style(INK, row.look.strong, HPos::Right);
        root.draw(&Text::new(row.label.clone(), at, text))?;
    }
    for (i, column) in columns.iter().enumerate() {
        let left = names + i as i32 * each;
        let title = style(INK, false, HPos::Left);
        root.draw(&Text::new(column.title, (left, step / 2 + 2), title))?;
        let known = || rows.iter().filter_map(|row| row.values[i]);
        let most = known().fold(0.0, f64::max);
        let least = known().filter(|&value| value > 0.0).fold(most, f64::min);
        let room = f64::from(each - value_room - 8);
        for (k, row) in rows.iter().enumerate() {
            let Some(value) = row.values[i] else { continue };
            let share = match column.log {
                _ if value <= 0.0 || most <= 0.0 => 0.0,
                true if most > least => 0.03 + 0.97 * (value / least).ln() / (most / least).ln(),
                true => 1.0,
                false => value / most,
            };
            let length = (share * room) as i32;
            let y = (k as i32 + 1) * step + step;
            let half = step / 3;
            let corners = [(left, y - half), (left + length.max(1), y + half)];
            root.draw(&Rectangle::new(corners, row.look.colour.filled()))?;
            let text = style(INK, false, HPos::Left);
            let at = (left + length + 5, y);
            root.draw(&Text::new((column.format)(value), at, text))?;
        }
    }
    Ok(())
}
