//! `ringway clean`: takes away what the dead have left.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use super::Failure;
use super::inventory::{self, Openers, Outcome, State};
use super::show;

/// Remove what is provably dead: names that nobody uses any more and that nothing waits in
///
/// What a `ringway run` that was killed has left between its stages is dead too, whatever waits in it.
/// Without --yes it only says what it would do. Dead is what the kernel says is dead: no process,
/// running or stopped, holds the lock that everybody attached holds. It may run at any time, beside
/// anything: who attaches meanwhile finds a ring whole or not at all.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ringway clean
  ringway clean --yes
  ringway clean --yes --undelivered 'test-*'")]
pub(crate) struct Args {
    /// Only what is called so, as `ringway list` shows it; a * stands for anything
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Do it
    #[arg(long, short)]
    yes: bool,

    /// Also what messages wait in: they are lost
    #[arg(long)]
    undelivered: bool,

    /// Print nothing about what is kept
    #[arg(long, short)]
    quiet: bool,
}

pub(crate) fn main(args: Args) -> Result<ExitCode, Failure> {
    let mut out = std::io::stdout().lock();
    let mut status = ExitCode::SUCCESS;
    let (mut removed, mut bytes, mut kept) = (0, 0, 0);
    for thing in inventory::find(&[], &Openers::find()) {
        let is_meant = |pattern: &String| matches(pattern, &thing.name);
        let meant = args.names.is_empty() || args.names.iter().any(is_meant);
        if !meant || !thing.has_name() {
            continue;
        }
        let name = format!("{} ({})", show::safe(&thing.name), thing.kind.word());
        let undelivered = args.undelivered || is_left_by_run(&thing.name);
        match thing.state {
            State::Live | State::Unknown => continue,
            State::Undelivered if !undelivered => {
                kept += 1;
                if !args.quiet {
                    let messages = thing.fill.and_then(|fill| fill.messages);
                    let what = messages.map_or("messages".into(), show::messages);
                    writeln!(out, "kept {name}: {what} in it")?;
                }
                continue;
            }
            State::Undelivered | State::Dead => {}
        }
        if args.yes {
            match inventory::remove(&thing, undelivered) {
                Ok(Outcome::Removed) => writeln!(out, "removed {name}")?,
                // Somebody came, or sent something, since we looked.
                Ok(Outcome::InUse | Outcome::Undelivered) => continue,
                Err(error) => {
                    status = Failure::from(error).report();
                    continue;
                }
            }
        } else {
            writeln!(
                out,
                "would remove {name}, {}",
                show::bytes(thing.bytes as f64)
            )?;
        }
        removed += 1;
        bytes += thing.bytes;
    }
    if removed == 0 {
        writeln!(out, "nothing to clean")?;
    } else if !args.yes {
        let size = show::bytes(bytes as f64);
        writeln!(
            out,
            "{removed} in all, {size}; nothing was done: add --yes to remove them"
        )?;
    }
    if kept > 0 && !args.quiet {
        writeln!(
            out,
            "what is kept waits for a consumer; --undelivered removes that, too"
        )?;
    }
    Ok(status)
}

/// Whether nobody can come for it any more: `ringway run --via` joins its own stages by `mq:run-PID.1` and
/// the like, and that process is gone.
fn is_left_by_run(name: &str) -> bool {
    let name = name.rsplit(':').next().unwrap_or(name);
    let parts = name
        .strip_prefix("run-")
        .and_then(|rest| rest.split_once('.'));
    parts.is_some_and(|(pid, link)| {
        let is_gone = |pid: u32| !Path::new(&format!("/proc/{pid}")).exists();
        pid.parse().is_ok_and(is_gone) && link.parse::<u32>().is_ok()
    })
}

/// Whether `name` is what `pattern` says, a `*` in which stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            (0..=name.len())
                .filter(|at| name.is_char_boundary(*at))
                .any(|at| matches(rest, &name[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_anything() {
        assert!(matches("orders", "orders") && !matches("orders", "orders2"));
        assert!(matches("test-*", "test-") && matches("test-*", "test-ä-1"));
        assert!(matches("*-7-*", "race-7-x") && !matches("*-7-*", "race-77-x"));
        assert!(matches("**", "x"));
    }
}
