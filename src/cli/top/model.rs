//! What `top` knows: every ring, what it was at the last screen, and what has happened since.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use super::super::inventory::{self, Attendee, Kind, Openers, State, Thing};
use crate::observe::{Observer, Presence, Snapshot};

/// So many screens a sparkline goes back, at most.
const HISTORY: usize = 120;

/// What to sort by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Sort {
    Name,
    Rate,
    Fill,
    Stalls,
    Wait,
    Deaths,
}

/// One ring.
pub(super) struct Ring {
    pub(super) name: String,
    pub(super) kind: Kind,
    id: (u64, u64),
    observer: Observer,
    /// At the last screen.
    before: Snapshot,
    /// When that was, if it was a tick.
    ticked: Option<Instant>,
    pub(super) now: Snapshot,
    pub(super) state: State,
    /// Sums of what was seen between two screens, for averages; of what waits, only if it was told
    /// each time.
    looks: u64,
    used: u64,
    waiting: Option<u64>,
    /// Messages a second, newest last.
    pub(super) history: VecDeque<f64>,
    pub(super) rates: Rates,
    /// Those who take part, with what each did a second.
    pub(super) participants: Vec<(Attendee, Rates)>,
}

/// What happens in a second, and averages of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) messages: f64,
    pub(super) bytes: f64,
    pub(super) stalls: f64,
    pub(super) parks: f64,
    pub(super) wakes: f64,
    /// Share of the capacity in use, 0 to 1.
    pub(super) fill: f64,
    /// Nanoseconds that a message waits; `None` when too few pass to tell.
    pub(super) wait: Option<f64>,
    pub(super) deaths: u64,
}

/// Everything.
pub(super) struct Model {
    prefix: Option<String>,
    pub(super) sort: Sort,
    pub(super) rings: Vec<Ring>,
    pub(super) chosen: usize,
    pub(super) paused: bool,
}

impl Model {
    pub(super) fn new(prefix: Option<String>, sort: Sort) -> Model {
        Model {
            prefix,
            sort,
            rings: Vec::new(),
            chosen: 0,
            paused: false,
        }
    }

    /// Looks at all rings that are known.
    pub(super) fn look(&mut self) {
        for ring in &mut self.rings {
            ring.look();
        }
    }

    /// Finds out which rings there are, and what has happened since the last time.
    pub(super) fn tick(&mut self) {
        if self.paused {
            return;
        }
        let chosen = self.rings.get(self.chosen).map(|ring| ring.id);
        let mut known: HashMap<(u64, u64), Ring> =
            self.rings.drain(..).map(|ring| (ring.id, ring)).collect();
        for thing in inventory::find(&[], &Openers::find()) {
            let wanted = self
                .prefix
                .as_ref()
                .is_none_or(|prefix| thing.name.starts_with(prefix));
            if !thing.kind.is_ring() || !wanted {
                continue;
            }
            // The same ring keeps its name, though it be by another descriptor that it was found.
            let ring = known.remove(&thing.id).or_else(|| Ring::new(&thing));
            if let Some(mut ring) = ring {
                ring.look();
                ring.tick();
                self.rings.push(ring);
            }
        }
        self.sort();
        if let Some(chosen) = chosen {
            self.chosen = self
                .rings
                .iter()
                .position(|ring| ring.id == chosen)
                .unwrap_or(0);
        }
    }

    pub(super) fn sort_by(&mut self, sort: Sort) {
        self.sort = sort;
        self.sort();
        self.chosen = 0;
    }

    fn sort(&mut self) {
        let sort = self.sort;
        self.rings.sort_by(|one, other| {
            let key = |ring: &Ring| match sort {
                Sort::Name => 0.0,
                Sort::Rate => ring.rates.messages,
                Sort::Fill => ring.rates.fill,
                Sort::Stalls => ring.rates.stalls,
                Sort::Wait => ring.rates.wait.unwrap_or(0.0),
                Sort::Deaths => ring.rates.deaths as f64,
            };
            // The most first; those who are equal by name, so that rows do not dance.
            let by_key = key(other).total_cmp(&key(one));
            by_key.then_with(|| one.name.cmp(&other.name))
        });
    }

    pub(super) fn choose(&mut self, by: isize) {
        let last = self.rings.len().saturating_sub(1);
        self.chosen = self.chosen.saturating_add_signed(by).min(last);
    }
}

impl Ring {
    fn new(thing: &Thing) -> Option<Ring> {
        let observer = Observer::open_path(&thing.name, thing.path.as_ref()).ok()?;
        let now = observer.snapshot().ok()?;
        Some(Ring {
            name: thing.name.clone(),
            kind: thing.kind,
            id: thing.id,
            observer,
            before: now.clone(),
            ticked: None,
            state: inventory::state_of(&now),
            now,
            looks: 0,
            used: 0,
            waiting: Some(0),
            history: VecDeque::new(),
            rates: Rates::default(),
            participants: Vec::new(),
        })
    }

    fn look(&mut self) {
        if let Ok(now) = self.observer.snapshot() {
            self.used = self.used.saturating_add(now.used);
            let more = |sum: u64| Some(sum.saturating_add(now.waiting?));
            self.waiting = self.waiting.and_then(more);
            self.looks += 1;
            self.now = now;
        }
    }

    fn tick(&mut self) {
        // One just found has no rate yet: what passed in the microseconds since then says nothing.
        let since = self.ticked.replace(Instant::now());
        let seconds = since.map_or(f64::INFINITY, |since| since.elapsed().as_secs_f64());
        let per_second = |now: u64, before: u64| {
            let rate = now.saturating_sub(before) as f64 / seconds;
            if rate.is_finite() { rate } else { 0.0 }
        };
        let (now, before) = (&self.now, &self.before);
        let looks = self.looks.max(1) as f64;
        let mut rates = Rates {
            // What was taken, if that is counted: what was sent may still be waiting, or be lost.
            messages: per_second(
                now.received.unwrap_or(now.sent),
                before.received.unwrap_or(before.sent),
            ),
            bytes: per_second(
                now.received_bytes.unwrap_or(now.sent_bytes),
                before.received_bytes.unwrap_or(before.sent_bytes),
            ),
            fill: self.used as f64 / looks / now.capacity.max(1) as f64,
            ..Rates::default()
        };
        self.participants.clear();
        for who in &now.participants {
            let was = before
                .participants
                .iter()
                .find(|was| was.index == who.index);
            let was = was.map_or(who.counters, |was| was.counters);
            let each = Rates {
                messages: per_second(
                    who.counters.messages.unwrap_or(0),
                    was.messages.unwrap_or(0),
                ),
                stalls: per_second(who.counters.stalls, was.stalls),
                parks: per_second(who.counters.parks, was.parks),
                wakes: per_second(who.counters.wakes, was.wakes),
                deaths: who
                    .counters
                    .deaths
                    .saturating_add(u64::from(who.presence == Presence::Died)),
                ..Rates::default()
            };
            rates.stalls += each.stalls;
            rates.parks += each.parks;
            rates.wakes += each.wakes;
            rates.deaths = rates.deaths.saturating_add(each.deaths);
            self.participants.push((inventory::attendee(who), each));
        }
        if rates.messages >= 1.0 {
            let wait = |waiting| waiting as f64 / looks / rates.messages * 1e9;
            rates.wait = self.waiting.map(wait);
        }
        self.state = inventory::state_of(now);
        self.rates = rates;
        self.history.push_back(rates.messages);
        if self.history.len() > HISTORY {
            self.history.pop_front();
        }
        self.before = now.clone();
        (self.looks, self.used, self.waiting) = (0, 0, Some(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What passes between the finding of a ring and the first look at it, microseconds later, is no rate.
    #[test]
    fn a_ring_that_was_just_found_has_no_rate_yet() {
        let name = format!("top-found-{}", std::process::id());
        let ring = crate::spsc::create(&name, Default::default()).unwrap();
        let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
        let found = inventory::find(&[], &Openers::find());
        let thing = found.iter().find(|thing| thing.name == name).unwrap();
        let mut shown = Ring::new(thing).unwrap();
        let mut next = || {
            tx.send(b"one more").unwrap();
            drop(rx.recv().unwrap());
            shown.look();
            shown.tick();
            shown.rates.messages
        };
        assert_eq!(next(), 0.0);
        assert!(next() > 0.0);
    }
}
