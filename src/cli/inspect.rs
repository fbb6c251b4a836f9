//! `ringway inspect`: everything there is to know of one ring.

use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;

use super::Failure;
use super::inventory::{self, Kind, Thing};
use super::records::{self, Slot};
use super::show;
use crate::layout::Header;
use crate::observe::{Observer, Snapshot};

/// Show one ring: header, counters, who takes part, and the messages around the cursors
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ringway inspect orders
  ringway inspect --json orders | jq .counters
  ringway inspect /proc/4711/fd/5        # a ring without a name, from `ringway list`")]
pub(crate) struct Args {
    /// A ring, as `ringway list` shows it, or a path
    name: String,

    /// How many messages or slots to show
    #[arg(long, short = 'n', default_value_t = 8, value_name = "NUMBER")]
    messages: usize,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is printed.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    thing: Thing,
    header: Head,
    counters: Totals,
    /// What lies at the cursors, oldest first.
    messages: Vec<Slot>,
}

#[derive(Serialize)]
struct Head {
    version: u32,
    wait: String,
    capacity: u64,
    #[serde(skip_serializing_if = "is_zero")]
    slot_size: u64,
    flags: u32,
    records: u32,
    /// Nanoseconds since 1970.
    created: u64,
    creator: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    type_name: String,
    #[serde(skip_serializing_if = "is_zero")]
    type_size: u64,
    #[serde(skip_serializing_if = "is_zero")]
    type_align: u64,
    #[serde(skip_serializing_if = "is_zero")]
    type_version: u64,
    /// Where the control words and the data lie in the file.
    control_at: u64,
    data_at: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Head {
    fn of(observer: &Observer, header: &Header) -> Head {
        let name = header.type_name.split(|byte| *byte == 0).next();
        Head {
            version: header.version,
            wait: observer.wait_strategy().to_string(),
            capacity: header.capacity,
            slot_size: header.slot,
            flags: header.flags,
            records: header.participants,
            created: header.created,
            creator: header.creator,
            type_name: String::from_utf8_lossy(name.unwrap_or_default()).into(),
            type_size: header.type_size,
            type_align: header.type_align,
            type_version: header.type_version.into(),
            control_at: header.control(),
            data_at: header.data(),
        }
    }
}

#[derive(Serialize)]
struct Totals {
    sent: u64,
    /// What cannot be told is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    received: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<u64>,
    used: u64,
    capacity: u64,
    sent_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_bytes: Option<u64>,
    closed: bool,
}

impl From<&Snapshot> for Totals {
    fn from(snapshot: &Snapshot) -> Totals {
        Totals {
            sent: snapshot.sent,
            received: snapshot.received,
            waiting: snapshot.waiting,
            used: snapshot.used,
            capacity: snapshot.capacity,
            sent_bytes: snapshot.sent_bytes,
            received_bytes: snapshot.received_bytes,
            closed: snapshot.closed,
        }
    }
}

/// The ring that the tool calls `name`.
pub(super) fn ring(name: &str) -> Result<(Thing, Observer), Failure> {
    let thing = inventory::named(name)?;
    if !thing.kind.is_ring() && thing.kind != Kind::Ring {
        return Err(Failure::new(format!(
            "{name} is no ring; `ringway list` shows all there is to know of it"
        )));
    }
    let observer = Observer::open_path(&thing.name, thing.path.as_ref())?;
    Ok((thing, observer))
}

pub(crate) fn main(args: Args) -> Result<ExitCode, Failure> {
    let (thing, observer) = ring(&args.name)?;
    let snapshot = observer.snapshot()?;
    let report = Report {
        header: Head::of(&observer, observer.header()),
        counters: (&snapshot).into(),
        messages: records::around(&observer, args.messages)?,
        thing,
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        print(&mut out, &observer, &report)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(out: &mut impl Write, observer: &Observer, report: &Report) -> std::io::Result<()> {
    let (thing, head, totals) = (&report.thing, &report.header, &report.counters);
    let width = show::width();
    let mut line = |label: &str, text: String| {
        let line = format!("{label:<13}{}", show::safe(&text));
        writeln!(out, "{}", show::cut(line.trim_end(), width))
    };
    let closed = if totals.closed { ", closed" } else { "" };
    let state = format!("{}, {}{closed}", observer.kind(), thing.state.word());
    line("name", format!("{} ({state})", thing.name))?;
    line(
        "file",
        format!(
            "{}, {}, of {}",
            thing.path,
            show::bytes(thing.bytes as f64),
            thing.owner
        ),
    )?;
    let age = show::age(thing.age);
    line(
        "made",
        format!(
            "{age} ago by process {}, layout version {}",
            head.creator, head.version
        ),
    )?;
    let unit = if head.slot_size > 0 {
        format!("{} slots of {} bytes", head.capacity, head.slot_size)
    } else {
        format!("{} of messages", show::bytes(head.capacity as f64))
    };
    line("capacity", format!("{unit}, wait strategy {}", head.wait))?;
    if !head.type_name.is_empty() {
        let (size, align) = (head.type_size, head.type_align);
        let version = head.type_version;
        line(
            "type",
            format!(
                "{} version {version}, {size} bytes aligned to {align}",
                head.type_name
            ),
        )?;
    }
    let percent = show::percent(totals.used, totals.capacity);
    let used = if head.slot_size > 0 {
        format!("{} slots", totals.used)
    } else {
        show::bytes(totals.used as f64)
    };
    let waiting = totals.waiting.map_or_else(String::new, |waiting| {
        format!("{} waiting, ", show::messages(waiting))
    });
    line("fill", format!("{percent}: {waiting}{used}"))?;
    let traffic = |messages: u64, bytes: u64| {
        format!(
            "{}, {}",
            show::messages(messages),
            show::bytes(bytes as f64)
        )
    };
    line("sent", traffic(totals.sent, totals.sent_bytes))?;
    if let (Some(received), Some(bytes)) = (totals.received, totals.received_bytes) {
        line("received", traffic(received, bytes))?;
    }
    participants(out, thing, width)?;
    if !report.messages.is_empty() {
        writeln!(out)?;
        for slot in &report.messages {
            writeln!(out, "{}", show::cut(&slot.line(width), width))?;
        }
    }
    Ok(())
}

fn participants(out: &mut impl Write, thing: &Thing, width: usize) -> std::io::Result<()> {
    writeln!(out)?;
    if thing.participants.is_empty() {
        return writeln!(out, "nobody has taken part yet");
    }
    let head = [
        "role", "pid", "state", "age", "messages", "stalls", "parks", "wakes", "repairs", "again",
        "deaths", "command",
    ];
    let mut table = show::Table::new(&head);
    table.right(&[1, 3, 4, 5, 6, 7, 8, 9, 10]);
    for who in &thing.participants {
        let Some(counters) = who.counters else {
            continue;
        };
        let count = |number: u64| show::count(number as f64);
        table.row(vec![
            who.role.into(),
            who.pid.to_string(),
            who.state.into(),
            who.age.map(show::age).unwrap_or_default(),
            counters.messages.map_or("-".into(), count),
            count(counters.stalls),
            count(counters.parks),
            count(counters.wakes),
            count(counters.repairs),
            count(counters.redelivered),
            count(counters.deaths),
            who.command.clone(),
        ]);
    }
    table.print(out, width)
}
