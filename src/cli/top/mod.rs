//! `ringway top`: all rings, live.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::Failure;
use crate::os::process::{SIGHUP, SIGINT, SIGTERM, Signals};

mod draw;
mod model;

use model::{Model, Sort};

/// Watch all rings live: rates, fill, stalls, waiting times, deaths
///
/// Keys: n r f s w d sort by name, rate, fill, stalls, waiting time, deaths; arrows choose a ring, whose
/// participants are shown below; p pauses; q or Ctrl-C quits. The waiting time is how many messages
/// wait on average, divided by how many pass (Little's law): nothing is timed for it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ringway top
  ringway top --sort stalls --every 2")]
pub(crate) struct Args {
    /// Only rings whose name begins so
    #[arg(value_name = "PREFIX")]
    prefix: Option<String>,

    /// Seconds between two screens
    #[arg(long, short, default_value_t = 1.0, value_name = "SECONDS")]
    every: f64,

    /// What to sort by
    #[arg(long, short, value_enum, default_value_t = Sort::Rate)]
    sort: Sort,

    /// End after so many screens
    #[arg(long, value_name = "NUMBER", hide = true)]
    screens: Option<u64>,
}

/// How often the rings are looked at between two screens, for the average fill.
const LOOK: Duration = Duration::from_millis(50);

/// Puts the terminal back as it was, however this ends. (A panic does it, too: ratatui's hook.)
struct Screen(ratatui::DefaultTerminal);

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

pub(crate) fn main(args: Args) -> Result<ExitCode, Failure> {
    if !std::io::stdout().is_terminal() {
        return Err(Failure::new(
            "top needs a terminal; for scripts there are `ringway stats` and `ringway list --json`",
        ));
    }
    let every = Duration::try_from_secs_f64(args.every)
        .ok()
        .filter(|every| *every >= LOOK)
        .ok_or_else(|| Failure::new(format!("--every {}: at least 0.05 seconds", args.every)))?;
    // Taken from the descriptor, so that the terminal is put back before this process ends.
    let signals = Signals::take(&[SIGINT, SIGTERM, SIGHUP])?;
    let mut screen = Screen(ratatui::try_init()?);
    let mut model = Model::new(args.prefix, args.sort);
    let mut left = args.screens.unwrap_or(u64::MAX);
    // A signal is taken once, and this loop and the one in it end by it.
    let mut ended = false;
    let mut is_told = || {
        ended |= signals.next().is_some();
        ended
    };
    while left > 0 && !is_told() {
        let next = Instant::now() + every;
        model.tick();
        screen.0.draw(|frame| draw::draw(frame, &mut model))?;
        left -= 1;
        while !is_told() {
            let now = Instant::now();
            let Some(rest) = next
                .checked_duration_since(now)
                .filter(|rest| !rest.is_zero())
            else {
                break;
            };
            if event::poll(rest.min(LOOK))? {
                match event::read()? {
                    Event::Key(key) if key.kind != KeyEventKind::Release => {
                        if !press(&mut model, key) {
                            return Ok(ExitCode::SUCCESS);
                        }
                        screen.0.draw(|frame| draw::draw(frame, &mut model))?;
                    }
                    Event::Resize(..) => {
                        screen.0.draw(|frame| draw::draw(frame, &mut model))?;
                    }
                    _ => {}
                }
            }
            model.look();
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What a key does; false when it is to end.
fn press(model: &mut Model, key: KeyEvent) -> bool {
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
        KeyCode::Char('q') | KeyCode::Esc => return false,
        KeyCode::Char('n') => model.sort_by(Sort::Name),
        KeyCode::Char('r') => model.sort_by(Sort::Rate),
        KeyCode::Char('f') => model.sort_by(Sort::Fill),
        KeyCode::Char('s') => model.sort_by(Sort::Stalls),
        KeyCode::Char('w') => model.sort_by(Sort::Wait),
        KeyCode::Char('d') => model.sort_by(Sort::Deaths),
        KeyCode::Char('p' | ' ') => model.paused = !model.paused,
        KeyCode::Down | KeyCode::Char('j') => model.choose(1),
        KeyCode::Up | KeyCode::Char('k') => model.choose(-1),
        KeyCode::PageDown => model.choose(10),
        KeyCode::PageUp => model.choose(-10),
        KeyCode::Home => model.choose(isize::MIN),
        KeyCode::End => model.choose(isize::MAX),
        _ => {}
    }
    true
}
