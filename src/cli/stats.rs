//! `ringway stats`: the counters of rings, for people and for Prometheus.

use std::fmt::Write as _;
use std::io::Write;
use std::process::ExitCode;

use super::Failure;
use super::inspect;
use super::inventory::{self, Count, Openers, Thing};
use super::show;
use crate::observe::{Observer, Snapshot};

/// Print the counters of rings, once
///
/// Counters only grow, as long as the ring is there, and go on when a dead participant is succeeded.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ringway stats
  ringway stats orders
  ringway stats --prometheus > /var/lib/node_exporter/ringway.prom")]
pub(crate) struct Args {
    /// Rings, as `ringway list` shows them; all if there is none
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Print the text format that Prometheus reads
    #[arg(long)]
    prometheus: bool,
}

/// A ring that was looked at.
struct Looked {
    thing: Thing,
    snapshot: Snapshot,
    observer: Observer,
}

fn look(thing: Thing) -> Option<Looked> {
    // One that has just gone, or that this user may not read, is left out.
    let observer = Observer::open_path(&thing.name, thing.path.as_ref()).ok()?;
    let snapshot = observer.snapshot().ok()?;
    Some(Looked {
        thing,
        snapshot,
        observer,
    })
}

pub(crate) fn main(args: Args) -> Result<ExitCode, Failure> {
    let things: Vec<Thing> = if args.names.is_empty() {
        let all = inventory::find(&[], &Openers::find());
        all.into_iter()
            .filter(|thing| thing.kind.is_ring())
            .collect()
    } else {
        let named = args.names.iter().map(|name| Ok(inspect::ring(name)?.0));
        named.collect::<Result<_, Failure>>()?
    };
    let rings: Vec<Looked> = things.into_iter().filter_map(look).collect();
    let mut out = std::io::stdout().lock();
    if args.prometheus {
        out.write_all(exposition(&rings).as_bytes())?;
    } else {
        table(&rings).print(&mut out, show::width())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn table(rings: &[Looked]) -> show::Table {
    let head = [
        "ring", "role", "messages", "bytes", "stalls", "parks", "wakes", "repairs", "again",
        "deaths",
    ];
    let mut table = show::Table::new(&head);
    table.right(&[2, 3, 4, 5, 6, 7, 8, 9]);
    for Looked {
        thing, snapshot, ..
    } in rings
    {
        for role in roles(snapshot) {
            let total = sum(snapshot, role);
            let count = |number: u64| show::count(number as f64);
            table.row(vec![
                thing.name.clone(),
                role.into(),
                total.messages.map_or("-".into(), count),
                total
                    .bytes
                    .map_or("-".into(), |bytes| show::bytes(bytes as f64)),
                count(total.stalls),
                count(total.parks),
                count(total.wakes),
                count(total.repairs),
                count(total.redelivered),
                count(total.deaths),
            ]);
        }
    }
    table
}

/// The roles that anybody ever had.
fn roles(snapshot: &Snapshot) -> Vec<&'static str> {
    let mut roles: Vec<_> = snapshot.participants.iter().map(|who| who.role).collect();
    roles.sort_unstable_by_key(|role| (*role != "producer", *role));
    roles.dedup();
    roles
}

/// The counters of all in a role, added up; a dead one that nobody succeeded is a death. What one of
/// them does not count is not known of all.
fn sum(snapshot: &Snapshot, role: &str) -> Count {
    let mut total = Count::from(crate::observe::Counters {
        messages: Some(0),
        bytes: Some(0),
        ..Default::default()
    });
    let plus = |total: Option<u64>, more: Option<u64>| Some(total?.wrapping_add(more?));
    for who in snapshot.participants.iter().filter(|who| who.role == role) {
        let counters = &who.counters;
        total.messages = plus(total.messages, counters.messages);
        total.bytes = plus(total.bytes, counters.bytes);
        for (total, more) in [
            (&mut total.stalls, counters.stalls),
            (&mut total.parks, counters.parks),
            (&mut total.wakes, counters.wakes),
            (&mut total.repairs, counters.repairs),
            (&mut total.redelivered, counters.redelivered),
            (&mut total.deaths, counters.deaths),
        ] {
            *total = total.wrapping_add(more);
        }
        total.deaths += u64::from(who.presence == crate::observe::Presence::Died);
    }
    total
}

/// The value of a label, as the format wants it.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// One metric: its name, what it is, and whether it only grows.
struct Metric {
    name: &'static str,
    help: &'static str,
    kind: &'static str,
}

const fn counter(name: &'static str, help: &'static str) -> Metric {
    let kind = "counter";
    Metric { name, help, kind }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    let kind = "gauge";
    Metric { name, help, kind }
}

/// What is not known is left out.
type OfRing = (Metric, fn(&Looked) -> Option<f64>);
type OfRole = (Metric, fn(&Count) -> Option<u64>);

/// What each ring has one of.
const OF_RINGS: [OfRing; 7] = [
    (
        gauge(
            "ringway_waiting_messages",
            "Messages sent and not taken yet.",
        ),
        |ring| ring.snapshot.waiting.map(|waiting| waiting as f64),
    ),
    (
        gauge(
            "ringway_fill_ratio",
            "Share of the capacity in use, 0 to 1.",
        ),
        |ring| Some(ring.snapshot.used as f64 / ring.snapshot.capacity.max(1) as f64),
    ),
    (
        gauge(
            "ringway_capacity",
            "Capacity: bytes (spsc, broadcast) or slots (mpmc).",
        ),
        |ring| Some(ring.snapshot.capacity as f64),
    ),
    (
        gauge("ringway_memory_bytes", "Memory of the ring, all told."),
        |ring| Some(ring.observer.memory() as f64),
    ),
    (
        gauge("ringway_attached", "Whether anybody is attached."),
        |ring| Some(ring.snapshot.attached.into()),
    ),
    (gauge("ringway_closed", "Whether it was closed."), |ring| {
        Some(ring.snapshot.closed.into())
    }),
    (
        gauge(
            "ringway_created_timestamp_seconds",
            "When it was created, in seconds since 1970.",
        ),
        |ring| Some(ring.observer.header().created as f64 / 1e9),
    ),
];

/// What each role of each ring has one of.
const OF_ROLES: [OfRole; 8] = [
    (
        counter(
            "ringway_messages_total",
            "Messages sent (producer) or taken.",
        ),
        |c| c.messages,
    ),
    (
        counter(
            "ringway_bytes_total",
            "Bytes of them; in byte rings with headers and padding.",
        ),
        |c| c.bytes,
    ),
    (
        counter(
            "ringway_stalls_total",
            "Times that the ring was found full (producer) or empty.",
        ),
        |c| Some(c.stalls),
    ),
    (
        counter("ringway_parks_total", "Times that somebody slept."),
        |c| Some(c.parks),
    ),
    (
        counter("ringway_wakes_total", "Times that somebody woke a peer."),
        |c| Some(c.wakes),
    ),
    (
        counter(
            "ringway_repairs_total",
            "Claims of the dead that were undone.",
        ),
        |c| Some(c.repairs),
    ),
    (
        counter(
            "ringway_redelivered_total",
            "Messages that a dead consumer may have seen, too.",
        ),
        |c| Some(c.redelivered),
    ),
    (
        counter(
            "ringway_deaths_total",
            "Participants that died without leaving.",
        ),
        |c| Some(c.deaths),
    ),
];

/// The text exposition format, version 0.0.4.
fn exposition(rings: &[Looked]) -> String {
    let mut text = String::new();
    let mut metric = |metric: &Metric, values: Vec<(String, f64)>| {
        let Metric { name, help, kind } = metric;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(text, "{name}{{{labels}}} {value}");
        }
    };
    let labels = |ring: &Looked| {
        let (name, kind) = (escaped(&ring.thing.name), ring.thing.kind.word());
        format!("ring=\"{name}\",kind=\"{kind}\"")
    };
    for (about, value) in &OF_RINGS {
        let values = rings
            .iter()
            .filter_map(|ring| Some((labels(ring), value(ring)?)));
        metric(about, values.collect());
    }
    let alive = gauge("ringway_participants", "Participants that live.");
    let each_role = |value: &dyn Fn(&Looked, &str) -> Option<f64>| {
        let of_ring = |ring| {
            let of_role = move |role| {
                let labels = format!("{},role=\"{role}\"", labels(ring));
                Some((labels, value(ring, role)?))
            };
            roles(&ring.snapshot).into_iter().filter_map(of_role)
        };
        rings.iter().flat_map(of_ring).collect::<Vec<_>>()
    };
    let count = |ring: &Looked, role: &str| {
        let all = ring.snapshot.participants.iter();
        let alive = all.filter(|who| who.role == role && who.is_alive()).count();
        Some(alive as f64)
    };
    metric(&alive, each_role(&count));
    for (about, value) in &OF_ROLES {
        metric(
            about,
            each_role(&|ring, role| value(&sum(&ring.snapshot, role)).map(|value| value as f64)),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn labels_are_escaped_as_the_format_wants_it() {
        assert_eq!(escaped("a\\b\"c\nd"), "a\\\\b\\\"c\\nd");
    }
}
