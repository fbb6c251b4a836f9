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
    let below = (participants as u16 + 2).min(frame.area().height / 3);
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

/// A column of the table of rings.
struct Column {
    title: &'static str,
    width: u16,
    left: bool,
    sort: Option<Sort>,
    /// It is left out on a terminal with fewer columns than this.
    from: u16,
}

const fn column(title: &'static str, width: u16, sort: Option<Sort>, from: u16) -> Column {
    Column {
        title,
        width,
        left: matches!(title.as_bytes(), b"NAME" | b"KIND" | b"FILL" | b"TREND"),
        sort,
        from,
    }
}

/// The shortest name that is worth a line, and the width of the column if there is no more room.
const NAME: u16 = 8;

/// In the order they are shown. Each leaves when there is no room for it, whole: half of a figure is
/// another figure. (How often somebody slept is below, too.)
const COLUMNS: [Column; 10] = [
    column("NAME", NAME, Some(Sort::Name), 30),
    column("KIND", 5, None, 50),
    column("MSG/S", 6, Some(Sort::Rate), 30),
    column("BYTES/S", 9, None, 60),
    column("FILL", 10, Some(Sort::Fill), 36),
    column("WAIT", 6, Some(Sort::Wait), 44),
    column("STALL/S", 8, Some(Sort::Stalls), 70),
    column("PARK/S", 6, None, 100),
    column("DIED", 5, Some(Sort::Deaths), 30),
    column("TREND", 0, None, 76),
];

/// The columns that fit, and what they take beside the name, with the gaps.
fn columns(width: u16) -> (Vec<&'static Column>, u16) {
    let fit: Vec<&Column> = COLUMNS
        .iter()
        .filter(|column| width >= column.from)
        .collect();
    let taken = fit.iter().map(|column| column.width + 1).sum::<u16>();
    (fit, taken.saturating_sub(NAME + 1))
}

fn rings(frame: &mut Frame<'_>, area: Rect, model: &mut Model) {
    if model.rings.is_empty() {
        let text = "no rings yet; try: ringway run 'ringway gen' 'ringway sink'";
        frame.render_widget(Paragraph::new(Span::styled(text, DIM)), area);
        return;
    }
    let (columns, taken) = columns(area.width);
    if columns.is_empty() {
        frame.render_widget(Paragraph::new(Span::styled("too narrow", DIM)), area);
        return;
    }
    let room = area.width.saturating_sub(taken);
    let longest = model
        .rings
        .iter()
        .map(|ring| ring.name.chars().count())
        .max();
    let longest = longest.unwrap_or(0).min(40) as u16;
    let name = longest.clamp(NAME, (room * 2 / 3).clamp(NAME, 40));
    // What is left over, but for the gap.
    let trend = room.saturating_sub(name + 1);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let title = |column: &Column| {
        let marked = if column.sort == Some(model.sort) {
            "▾"
        } else {
            ""
        };
        let text = format!("{}{marked}", column.title);
        if column.left {
            Cell::from(text)
        } else {
            right(text, bold)
        }
    };
    let head = Row::new(columns.iter().map(|column| title(column))).style(bold);
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
        let cell = |column: &&Column| match column.title {
            "NAME" => Cell::from(Span::styled(name_in(&ring.name, name.into()), of_name)),
            "KIND" => Cell::from(show::cut(ring.kind.word(), 5)),
            "MSG/S" => right(rate(messages), plain),
            "BYTES/S" if bytes < 1.0 => right("-".into(), plain),
            "BYTES/S" => right(show::bytes(bytes.round()), plain),
            "FILL" => Cell::from(Span::styled(bar(fill), of_fill)),
            "WAIT" => right(waiting(wait), plain),
            "STALL/S" => right(rate(stalls), plain),
            "PARK/S" => right(rate(parks), plain),
            "DIED" => right(deaths.to_string(), if deaths > 0 { BAD } else { DIM }),
            _ => Cell::from(Span::styled(sparkline(ring, trend.into()), GOOD)),
        };
        Row::new(columns.iter().map(cell))
    });
    let widths = columns.iter().map(|column| match column.title {
        "NAME" => Constraint::Length(name),
        "TREND" => Constraint::Length(trend),
        _ => Constraint::Length(column.width),
    });
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
    let waiting = now.waiting.map_or_else(String::new, |waiting| {
        format!(", {} waiting", show::messages(waiting))
    });
    let title = format!(
        "{name}: {}{closed}{waiting}, {} sent in all",
        ring.state.word(),
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

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn shown(model: &mut Model, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn a_screen_of_any_size_is_drawn_and_shows_figures_whole_or_not_at_all() {
        let name = format!("top-draw-{}", std::process::id());
        let ring = crate::spsc::create(&name, Default::default()).unwrap();
        let (_tx, _rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
        let mut model = Model::new(Some(name), Sort::Rate);
        model.tick();
        assert_eq!(model.rings.len(), 1);
        for height in 1..=12 {
            for width in [1, 5, 29, 30, 40, 79, 80, 200] {
                shown(&mut model, width, height);
            }
        }
        model.rings[0].rates = Rates {
            messages: 123_400_000.0,
            bytes: 139.4 * 1024.0,
            stalls: 1234.0,
            parks: 1234.0,
            fill: 1.0,
            wait: Some(1500.0),
            deaths: 1234,
            ..Rates::default()
        };
        for width in 30..=120 {
            let text = shown(&mut model, width, 24);
            let row = text.lines().nth(2).unwrap();
            let head = text.lines().nth(1).unwrap();
            for (title, figure) in [
                ("MSG/S▾", "123M"),
                ("BYTES/S", "139 KiB"),
                ("FILL", "█████ 100%"),
                ("WAIT", "1.5µs"),
                ("STALL/S", "1.2k"),
                ("DIED", "1234"),
            ] {
                assert_eq!(
                    head.contains(title),
                    row.contains(figure),
                    "{width}:\n{text}"
                );
            }
            assert!(
                row.contains("123M") && row.contains("1234"),
                "{width}:\n{text}"
            );
        }
        assert!(shown(&mut model, 29, 24).contains("too narrow"));
    }
}
