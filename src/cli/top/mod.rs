//! `ringway top`: all rings, live.

use std::io::IsTerminal;
use std::mem::ManuallyDrop;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::Failure;
use crate::os::process::{SIGHUP, SIGINT, SIGTERM, SIGWINCH, Signals, poll};

mod draw;
mod keys;
mod model;

use keys::{Key, Keyboard};
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
    let signals = Signals::take(&[SIGINT, SIGTERM, SIGHUP, SIGWINCH])?;
    let keyboard = Keyboard::open()?;
    let model = Model::new(args.prefix, args.sort);
    let mut screen = Screen::take()?;
    let screens = args.screens.unwrap_or(u64::MAX);
    match watch(&mut screen.0, model, keyboard, &signals, every, screens)? {
        Ended::Told => screen
            .end()
            .map_err(|error| Failure::of("the terminal could not be put back", error))?,
        // Nobody misses what cannot be put back.
        Ended::HungUp => drop(screen),
    }
    Ok(ExitCode::SUCCESS)
}

/// Puts the terminal back as it was, however this ends. The terminal's own drop complains, and panics where nobody
/// is left to complain to.
struct Screen(ManuallyDrop<ratatui::DefaultTerminal>);

impl Screen {
    fn take() -> std::io::Result<Screen> {
        let terminal = ratatui::try_init().inspect_err(|_| {
            // It may have failed half-way.
            let _ = ratatui::try_restore();
        })?;
        Ok(Screen(ManuallyDrop::new(terminal)))
    }

    fn put_back(&mut self) -> std::io::Result<()> {
        let shown = self.0.show_cursor();
        ratatui::try_restore().and(shown)
    }

    fn end(self) -> std::io::Result<()> {
        ManuallyDrop::new(self).put_back()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.put_back();
    }
}

/// Why it ends.
enum Ended {
    /// A key or a signal said so, or all screens were shown.
    Told,
    /// Its terminal is gone, or so a signal says.
    HungUp,
}

/// Until somebody ends it, or its terminal is gone.
fn watch(
    terminal: &mut ratatui::DefaultTerminal,
    mut model: Model,
    mut keyboard: Keyboard,
    signals: &Signals,
    every: Duration,
    screens: u64,
) -> Result<Ended, Failure> {
    for _ in 0..screens {
        let next = Instant::now() + every;
        model.tick();
        terminal.draw(|frame| draw::draw(frame, &mut model))?;
        loop {
            let rest = next.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                break;
            }
            let awaited = [Some(signals.as_fd()), Some(keyboard.as_fd())];
            let ready = poll(&awaited, Some(rest.min(LOOK)))?;
            let mut changed = false;
            while let Some(signal) = signals.next() {
                match signal {
                    SIGWINCH => changed = true,
                    SIGHUP => return Ok(Ended::HungUp),
                    _ => return Ok(Ended::Told),
                }
            }
            if ready[1] {
                // Without a terminal there is nobody to show anything to.
                let Some(keys) = keyboard.read() else {
                    return Ok(Ended::HungUp);
                };
                if !keys.into_iter().all(|key| press(&mut model, key)) {
                    return Ok(Ended::Told);
                }
                changed = true;
            }
            if changed {
                terminal.draw(|frame| draw::draw(frame, &mut model))?;
            }
            model.look();
        }
    }
    Ok(Ended::Told)
}

/// What a key does; false when it is to end.
fn press(model: &mut Model, key: Key) -> bool {
    const CONTROL_C: u8 = 3;
    match key {
        Key::Byte(CONTROL_C | b'q') | Key::Escape => return false,
        Key::Byte(b'n') => model.sort_by(Sort::Name),
        Key::Byte(b'r') => model.sort_by(Sort::Rate),
        Key::Byte(b'f') => model.sort_by(Sort::Fill),
        Key::Byte(b's') => model.sort_by(Sort::Stalls),
        Key::Byte(b'w') => model.sort_by(Sort::Wait),
        Key::Byte(b'd') => model.sort_by(Sort::Deaths),
        Key::Byte(b'p' | b' ') => model.paused = !model.paused,
        Key::Down | Key::Byte(b'j') => model.choose(1),
        Key::Up | Key::Byte(b'k') => model.choose(-1),
        Key::PageDown => model.choose(10),
        Key::PageUp => model.choose(-10),
        Key::Home => model.choose(isize::MIN),
        Key::End => model.choose(isize::MAX),
        Key::Byte(_) => {}
    }
    true
}
