//! `ringway rm`: takes names away, though messages may be lost, but never from those who use them.

use std::io::Write;
use std::process::ExitCode;

use super::Failure;
use super::inventory::{self, Outcome, Thing};
use super::show;
use crate::Error;

/// Remove rings and other things by name, unless they are in use
///
/// What messages wait in them is lost. A thing that somebody is attached to is left alone; stop that
/// process first. `ringway clean` finds what is dead by itself.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ringway rm orders
  ringway rm mq:jobs fifo:/tmp/ringway.words.fifo")]
pub(crate) struct Args {
    /// Names, as `ringway list` shows them, or paths
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

pub(crate) fn main(args: Args) -> Result<ExitCode, Failure> {
    let mut status = ExitCode::SUCCESS;
    for name in &args.names {
        if let Err(failure) = remove(name) {
            status = failure.report();
        }
    }
    Ok(status)
}

fn remove(name: &str) -> Result<(), Failure> {
    let thing = inventory::named(name)?;
    let outcome = inventory::remove(&thing, true).map_err(|error| match error {
        // Whether it is used cannot be told, so that is for a person to say.
        Error::NotOurs { .. } | Error::Corrupt { .. } => Failure::new(format!(
            "{error}; if it is of no use to anybody: rm {}",
            show::safe(&thing.path)
        )),
        error => error.into(),
    });
    match outcome? {
        Outcome::Removed => {}
        Outcome::InUse | Outcome::Undelivered => return Err(Failure::new(in_use(&thing))),
    }
    let lost = thing.fill.and_then(|fill| fill.messages).unwrap_or(0);
    let mut out = std::io::stdout();
    match lost {
        0 => writeln!(out, "removed {}", show::safe(&thing.name))?,
        _ => {
            let lost = show::messages(lost);
            writeln!(out, "removed {}, and {lost} in it", show::safe(&thing.name))?;
        }
    }
    Ok(())
}

/// Who is in the way, and what to do about it.
fn in_use(thing: &Thing) -> String {
    let alive: Vec<String> = thing
        .participants
        .iter()
        .filter(|participant| !matches!(participant.state, "died" | "left"))
        .map(|who| match who.command.as_str() {
            "" => format!("{} {}", who.role, who.pid),
            command => format!("{} {} ({})", who.role, who.pid, show::cut(command, 40)),
        })
        .collect();
    let name = show::safe(&thing.name);
    if !thing.has_name() {
        return format!(
            "{name} has no name to remove: it goes with the processes that have it open"
        );
    }
    match alive.as_slice() {
        [] => format!("{name} is in use, by a process that takes no role; end it first"),
        alive => format!(
            "{name} is in use by {}; end it first",
            show::safe(&alive.join(", "))
        ),
    }
}
