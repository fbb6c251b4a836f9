//! `ringway list`: what of ours is on this machine.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use super::Failure;
use super::inventory::{self, Attendee, Openers, State, Thing};
use super::show;

/// List rings, queues, FIFOs, sockets, semaphores and pipelines: who uses them, and how full they are
///
/// They are looked for in /dev/shm, in $RINGWAY_DIR or /tmp, among the message queues, and in the
/// directories given; rings without a name by the processes that have them open.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ringway list
  ringway list --json | jq '.[] | select(.state == \"dead\") | .name'
  ringway list /run/myservice")]
pub(crate) struct Args {
    /// More directories to look into, for FIFOs and for rings in plain files
    #[arg(value_name = "DIR")]
    directories: Vec<PathBuf>,

    /// Show everybody who takes part, however many
    #[arg(long, short)]
    all: bool,

    /// Print JSON, with the counters of everybody
    #[arg(long)]
    json: bool,
}

/// So many of those who take part in one thing are shown.
const SHOWN: usize = 4;

pub(crate) fn main(args: Args) -> Result<ExitCode, Failure> {
    let things = inventory::find(&args.directories, &Openers::find());
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &things).map_err(std::io::Error::from)?;
        writeln!(out)?;
        return Ok(ExitCode::SUCCESS);
    }
    if things.is_empty() {
        writeln!(out, "nothing of ours is here")?;
        return Ok(ExitCode::SUCCESS);
    }
    let width = show::width();
    let mut table = show::Table::new(&["name", "kind", "state", "fill", "size", "age", "owner"]);
    table.right(&[3, 4, 5]);
    for thing in &things {
        table.row(row(thing));
        if let Some(why) = &thing.why {
            table.note(format!("  {why}"));
        }
        participants(thing, args.all)
            .into_iter()
            .for_each(|line| table.note(line));
    }
    table.print(&mut out, width)?;
    let dead = inventory::names(&things, State::Dead).len();
    if dead > 0 {
        let names = if dead == 1 { "name" } else { "names" };
        writeln!(out, "{dead} dead {names}: see `ringway clean`")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A line for each who takes part; unless `all` are wanted, of many some, and of those who are gone how
/// many they were.
fn participants(thing: &Thing, all: bool) -> Vec<String> {
    let line = |who: &Attendee| {
        let age = who.age.map(show::age).unwrap_or_default();
        let (role, pid, state) = (who.role, who.pid, who.state);
        format!("  {role:<10} {pid:>7} {state:<9} {age:>4}  {}", who.command)
    };
    let (gone, here): (Vec<&Attendee>, Vec<&Attendee>) = thing
        .participants
        .iter()
        .partition(|who| matches!(who.state, "died" | "left"));
    let few = |count: usize| all || count <= SHOWN;
    let shown = if few(here.len()) { here.len() } else { SHOWN };
    let mut lines: Vec<String> = here[..shown].iter().map(|who| line(who)).collect();
    if shown < here.len() {
        lines.push(format!("  and {} more (--all)", here.len() - shown));
    }
    if few(gone.len()) {
        lines.extend(gone.iter().map(|who| line(who)));
        return lines;
    }
    let mut kinds: Vec<(&str, &str)> = gone.iter().map(|who| (who.role, who.state)).collect();
    kinds.sort_unstable();
    for kinds in kinds.chunk_by(|one, other| one == other) {
        let (role, state) = kinds[0];
        let many = format!("x{}", kinds.len());
        lines.push(format!("  {role:<10} {many:>7} {state}"));
    }
    lines
}

fn row(thing: &Thing) -> Vec<String> {
    let fill = thing.fill.map_or_else(String::new, |fill| {
        let percent = show::percent(fill.used, fill.capacity);
        match fill.messages {
            Some(0) | None => percent,
            Some(messages) => format!("{percent} {}", show::count(messages as f64)),
        }
    });
    vec![
        thing.name.clone(),
        thing.kind.word().into(),
        thing.state.word().into(),
        fill,
        show::bytes(thing.bytes as f64),
        show::age(thing.age),
        thing.owner.clone(),
    ]
}
