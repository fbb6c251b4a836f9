//! The screen of `top`: a line on all, a table of rings, the participants of the one that is chosen.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState};

use super::super::inventory::State;
use super::super::show;
use super::model::{Model, Rates, Ring, Sort};

const DIM: Style = Style::new().fg(Color::DarkGray);
const GOOD: Style = Style::new().fg(Color::Green);
const DOUBTFUL: Style = Style::new().fg(Color::Yellow);
const BAD: Style = Style::new().fg(Color::Red);

pub(super) fn draw(frame: &mut Frame<'_>, model: &mut Model) {
    let participants = model
        .rings
        .get(model.chosen)
        .map_or(0, |ring| ring.participants.len());
    let below = (participants as u16 + 2).clamp(3, frame.area().height / 3);
    let [head, table, chosen, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(below),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(summary(model)), head);
    rings(frame, table, model);
    if let Some(ring) = model.rings.get(model.chosen) {
        frame.render_widget(Paragraph::new(details(ring, chosen)), chosen);
    }
    let line = "sort [n]ame [r]ate [f]ill [s]talls [w]ait [d]eaths  ↑↓ choose  [p]ause  [q]uit";
    frame.render_widget(Paragraph::new(Span::styled(line, DIM)), keys);
}

fn summary(model: &Model) -> Line<'static> {
    let (mut messages, mut bytes, mut deaths) = (0.0, 0.0, 0u64);
    for ring in &model.rings {
        messages += ring.rates.messages;
        bytes += ring.rates.bytes;
        deaths = deaths.saturating_add(ring.rates.deaths);
    }
    let rings = match model.rings.len() {
        1 => "1 ring".to_owned(),
        count => format!("{count} rings"),
    };
    let mut spans = vec![
        Span::styled("ringway top", Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!(
            "   {rings}   {} messages/s   {}/s",
            show::count(messages.round()),
            show::bytes(bytes.round())
        )),
    ];
    if deaths > 0 {
        spans.push(Span::styled(format!("   {deaths} died"), BAD));
    }
    if model.paused {
        spans.push(Span::styled("   paused", DOUBTFUL));
    }
    Line::from(spans)
}

/// How full a ring is, as a bar of five and a number.
fn bar(fill: f64) -> String {
    const STEPS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let fill = fill.clamp(0.0, 1.0);
    let eighths = (fill * 40.0).round() as usize;
    let bar: String = (0..5)
        .map(|cell| match eighths.saturating_sub(cell * 8) {
            0 => '·',
            part @ 1..=7 => STEPS[part],
            _ => '█',
        })
        .collect();
    format!("{bar} {:>3.0}%", fill * 100.0)
}

/// What has passed of late, the highest rate as a full block.
fn sparkline(ring: &Ring, width: usize) -> String {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = ring.history.iter().copied().fold(0.0, f64::max);
    let from = ring.history.len().saturating_sub(width);
    let step = |rate: &f64| match *rate {
        rate if rate <= 0.0 || most <= 0.0 => ' ',
        rate => STEPS[((rate / most * 8.0).ceil() as usize).clamp(1, 8) - 1],
    };
    ring.history.iter().skip(from).map(step).collect()
}

/// A rate; a dash for nothing, so that what happens stands out.
fn rate(rate: f64) -> String {
    if rate < 0.05 {
        "-".into()
    } else if rate < 10.0 {
        format!("{rate:.1}")
    } else {
        show::count(rate.round())
    }
}

/// A time of waiting; when nothing was ever seen to wait it is too short to tell.
fn waiting(wait: Option<f64>) -> String {
    match wait {
        None => "-".into(),
        Some(wait) if wait < 1.0 => "~0".into(),
        Some(wait) => show::nanos(wait.round()),
    }
}

/// The end of a path says more than its beginning.
fn name_in(name: &str, width: usize) -> String {
    let name = show::safe(name);
    let length = name.chars().count();
    if name.starts_with('/') && length > width {
        let end: String = name.chars().skip(length + 1 - width).collect();
        return format!("…{end}");
    }
    show::cut(&name, width)
}

fn right(text: String, style: Style) -> Cell<'static> {
    Cell::from(Line::from(Span::styled(text, style)).right_aligned())
}

fn rings(frame: &mut Frame<'_>, area: Rect, model: &mut Model) {
    if model.rings.is_empty() {
        let text = "no rings yet; try: ringway run 'ringway gen' 'ringway sink'";
        frame.render_widget(Paragraph::new(Span::styled(text, DIM)), area);
        return;
    }
    // How often somebody slept is below, too: where there is little room it is left out here.
    let narrow = area.width < 100;
    let parks_width = if narrow { 0 } else { 6 };
    // kind, messages, bytes, fill, wait, stalls, parks, deaths and the gaps; the rest is for the name
    // and the trend.
    let fixed: u16 = 5 + 6 + 9 + 10 + 6 + 8 + parks_width + 5 + 9;
    let room = area.width.saturating_sub(fixed);
    let longest = model
        .rings
        .iter()
        .map(|ring| ring.name.chars().count())
        .max();
    let name = (longest.unwrap_or(0) as u16).clamp(8, (room * 2 / 3).clamp(10, 40));
    let trend = room.saturating_sub(name);
    let marked = |title: &str, sort: Sort| {
        if model.sort == sort {
            format!("{title}▾")
        } else {
            title.to_owned()
        }
    };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let head = Row::new(vec![
        Cell::from(marked("NAME", Sort::Name)),
        Cell::from("KIND"),
        right(marked("MSG/S", Sort::Rate), bold),
        right("BYTES/S".into(), bold),
        Cell::from(marked("FILL", Sort::Fill)),
        right(marked("WAIT", Sort::Wait), bold),
        right(marked("STALL/S", Sort::Stalls), bold),
        right("PARK/S".into(), bold),
        right(marked("DIED", Sort::Deaths), bold),
        Cell::from("TREND"),
    ])
    .style(bold);
    let rows = model.rings.iter().map(|ring| {
        let Rates {
            messages,
            bytes,
            stalls,
            parks,
            fill,
            wait,
            deaths,
            ..
        } = ring.rates;
        let plain = Style::new();
        let of_name = match ring.state {
            State::Live => plain,
            State::Undelivered => DOUBTFUL,
            State::Dead | State::Unknown => DIM,
        };
        let of_fill = match fill {
            fill if fill > 0.9 => BAD,
            fill if fill > 0.5 => DOUBTFUL,
            _ => GOOD,
        };
        Row::new(vec![
            Cell::from(Span::styled(name_in(&ring.name, name.into()), of_name)),
            Cell::from(show::cut(ring.kind.word(), 5)),
            right(rate(messages), plain),
            right(
                if bytes < 1.0 {
                    "-".into()
                } else {
                    show::bytes(bytes.round())
                },
                plain,
            ),
            Cell::from(Span::styled(bar(fill), of_fill)),
            right(waiting(wait), plain),
            right(rate(stalls), plain),
            right(rate(parks), plain),
            right(deaths.to_string(), if deaths > 0 { BAD } else { DIM }),
            Cell::from(Span::styled(sparkline(ring, trend.into()), GOOD)),
        ])
    });
    let widths = [name, 5, 6, 9, 10, 6, 8, parks_width, 5, trend].map(Constraint::Length);
    let table = Table::new(rows, widths)
        .header(head)
        .column_spacing(1)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(Some(model.chosen));
    frame.render_stateful_widget(table, area, &mut state);
}

/// Those who take part in the chosen ring.
fn details(ring: &Ring, area: Rect) -> Vec<Line<'static>> {
    let now = &ring.now;
    let closed = if now.closed { ", closed" } else { "" };
    let name = show::cut(&show::safe(&ring.name), 40);
    let title = format!(
        "{name}: {}{closed}, {} waiting, {} sent in all",
        ring.state.word(),
        show::messages(now.waiting),
        show::count(now.sent as f64)
    );
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let head = "  ROLE           PID STATE      MSG/S STALL/S  PARK/S  WAKE/S  COMMAND";
    let mut lines = vec![Line::styled(title, bold), Line::styled(head, DIM)];
    for (who, rates) in &ring.participants {
        let line = format!(
            "  {:<10} {:>7} {:<9} {:>6} {:>7} {:>7} {:>7}  {}",
            who.role,
            who.pid,
            who.state,
            rate(rates.messages),
            rate(rates.stalls),
            rate(rates.parks),
            rate(rates.wakes),
            show::safe(&who.command),
        );
        let style = match who.state {
            "died" => BAD,
            "left" => DIM,
            "stopped" => DOUBTFUL,
            _ => Style::new(),
        };
        lines.push(Line::styled(show::cut(&line, area.width.into()), style));
    }
    let room = usize::from(area.height);
    if lines.len() > room {
        let more = lines.len() - room + 1;
        lines.truncate(room.saturating_sub(1));
        lines.push(Line::styled(format!("  and {more} more"), DIM));
    }
    lines
}
