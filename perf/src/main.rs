//! `cargo run --release` in this directory: Ringway beside its peers from crates.io, in the same
//! interleaved rounds, each repetition between two probes of how far apart the processors are.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use stage::{Mode, Outcome};

mod peers;
mod stage;

const USAGE: &str = "\
usage: ringway-perf [--quick] [--rounds N] [--size 8,64,1024] [--mode rtt,throughput,batch]
                    [--peer NAME,NAME] [--ms MILLISECONDS] [--json FILE]
--json appends one line a row, for perf/results/.";

struct Settings {
    rounds: usize,
    millis: u64,
    sizes: Vec<usize>,
    modes: Vec<Mode>,
    peers: Vec<String>,
    json: Option<String>,
}

fn settings() -> Result<Settings, String> {
    let mut settings = Settings {
        rounds: 7,
        millis: 100,
        sizes: vec![8, 64, 1024],
        modes: vec![Mode::Rtt, Mode::Throughput, Mode::Batch],
        peers: Vec::new(),
        json: None,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--quick" {
            (settings.rounds, settings.millis) = (3, 20);
            continue;
        }
        if arg == "--help" || arg == "-h" {
            return Err(USAGE.into());
        }
        let value = args
            .next()
            .ok_or_else(|| format!("{arg}: a value is missing\n{USAGE}"))?;
        let list = || value.split(',').map(str::to_owned);
        match arg.as_str() {
            "--rounds" => settings.rounds = value.parse().map_err(|e| format!("--rounds: {e}"))?,
            "--size" => {
                settings.sizes = list()
                    .map(|size| match size.as_str() {
                        "8" => Ok(8),
                        "64" => Ok(64),
                        "1024" => Ok(1024),
                        _ => Err(format!("--size {size}: one of 8, 64, 1024")),
                    })
                    .collect::<Result<_, _>>()?;
            }
            "--mode" => {
                settings.modes = list()
                    .map(|mode| {
                        [Mode::Rtt, Mode::Throughput, Mode::Batch]
                            .into_iter()
                            .find(|one| one.name() == mode)
                            .ok_or_else(|| format!("--mode {mode}: rtt, throughput or batch"))
                    })
                    .collect::<Result<_, _>>()?;
            }
            "--ms" => settings.millis = value.parse().map_err(|e| format!("--ms: {e}"))?,
            "--peer" => settings.peers = list().collect(),
            "--json" => settings.json = Some(value),
            _ => return Err(format!("{arg}: no such option\n{USAGE}")),
        }
    }
    Ok(settings)
}

/// What was measured: mode, size, peer (by its place in the list).
type Key = (usize, usize, usize);
/// Each with its round.
type Results = BTreeMap<Key, Vec<(usize, Outcome)>>;

/// What Ringway is held to: against whom, in which mode, at which size, and how many times as fast it
/// must be at least.
const AIMS: [(&str, Mode, usize, f64); 5] = [
    ("iceoryx2", Mode::Rtt, 64, 5.0),
    ("iceoryx2", Mode::Throughput, 8, 10.0),
    ("iceoryx2", Mode::Throughput, 64, 10.0),
    ("rtrb", Mode::Rtt, 8, 1.0 / 1.25),
    ("rtrb", Mode::Rtt, 64, 1.0),
];

fn main() -> Result<(), String> {
    let settings = settings()?;
    let mut results = Results::new();
    let mut counts: BTreeMap<Key, u64> = BTreeMap::new();
    // One round more than counted: the first finds how many messages fill the time.
    for round in 0..=settings.rounds {
        for (m, &mode) in settings.modes.iter().enumerate() {
            for &size in &settings.sizes {
                for (p, peer) in peers::PEERS.iter().enumerate() {
                    if !settings.peers.is_empty() && !settings.peers.iter().any(|n| n == peer.name)
                    {
                        continue;
                    }
                    let key = (m, size, p);
                    let count = counts.get(&key).copied().unwrap_or(2048);
                    let Some(outcome) = (peer.run)(mode, count, size) else {
                        eprintln!("{} ({}, {size} B) failed", peer.name, mode.name());
                        continue;
                    };
                    if round == 0 {
                        let wanted = settings.millis as f64 * 1e6 / outcome.ns.max(1.0);
                        counts.insert(key, (wanted as u64).clamp(2048, 100_000_000));
                    } else {
                        results.entry(key).or_default().push((round, outcome));
                    }
                }
            }
        }
        eprintln!("round {round} of {}", settings.rounds);
    }
    report(&settings, &results)
}

fn quantile(values: &[f64], at: f64) -> f64 {
    values[((values.len() - 1) as f64 * at).round() as usize]
}

/// How many times as fast as a peer Ringway was: the median over the rounds in which both found the
/// processors equally far apart.
fn aims(settings: &Settings, results: &Results) -> String {
    let mut text = String::new();
    for (name, mode, size, wanted) in AIMS {
        let of = |name: &str| {
            let m = settings.modes.iter().position(|&one| one == mode)?;
            let p = peers::PEERS.iter().position(|peer| peer.name == name)?;
            results.get(&(m, size, p))
        };
        let (Some(ours), Some(theirs)) = (of("ringway"), of(name)) else {
            continue;
        };
        let same = |a: &&(usize, Outcome), b: &(usize, Outcome)| {
            a.0 == b.0 && a.1.placement() == b.1.placement() && a.1.placement() != "moved"
        };
        let mut ratios: Vec<f64> = theirs
            .iter()
            .filter_map(|their| {
                let our = ours.iter().find(|our| same(our, their))?;
                Some(their.1.ns / our.1.ns)
            })
            .collect();
        if ratios.is_empty() {
            continue;
        }
        ratios.sort_by(f64::total_cmp);
        let ratio = quantile(&ratios, 0.5);
        let _ = writeln!(
            text,
            "{:<12}{size:>4} B  {ratio:>6.2} times as fast as {name:<9} (aim: {wanted:.2}, {} rounds)  {}",
            mode.name(),
            ratios.len(),
            if ratio >= wanted { "met" } else { "MISSED" },
        );
    }
    text
}

fn report(settings: &Settings, results: &Results) -> Result<(), String> {
    let mut table = String::new();
    let mut lines = String::new();
    let mut group = None;
    for (&(m, size, p), all) in results {
        let (mode, peer) = (settings.modes[m], &peers::PEERS[p]);
        if group != Some((m, size)) {
            group = Some((m, size));
            let _ = writeln!(
                table,
                "\n{}, {size} B\n{:<22}{:<11}{:<7}{:>12}{:>22}{:>7}{:>9}{:>9}",
                mode.name(),
                "",
                "joins",
                "CPUs",
                if mode == Mode::Rtt { "ns" } else { "million/s" },
                "least..most",
                "of",
                "raw1 ns",
                "raw2 ns",
            );
        }
        let placement = ["near", "far", "moved"]
            .into_iter()
            .find(|&p| all.iter().any(|(_, one)| one.placement() == p))
            .unwrap_or("moved");
        let chosen: Vec<&Outcome> = all
            .iter()
            .map(|(_, one)| one)
            .filter(|one| one.placement() == placement)
            .collect();
        let value = |outcome: &Outcome| match mode {
            Mode::Rtt => outcome.ns,
            _ => 1e3 / outcome.ns,
        };
        let mut values: Vec<f64> = chosen.iter().map(|outcome| value(outcome)).collect();
        values.sort_by(f64::total_cmp);
        let raw = |which: usize| {
            let mut raw: Vec<f64> = chosen
                .iter()
                .flat_map(|outcome| [outcome.raw[which], outcome.raw[which + 2]])
                .collect();
            raw.sort_by(f64::total_cmp);
            quantile(&raw, 0.5)
        };
        let median = quantile(&values, 0.5);
        let iqr = (quantile(&values, 0.75) - quantile(&values, 0.25)) / median;
        let (least, most) = (values[0], values[values.len() - 1]);
        let _ = writeln!(
            table,
            "{:<22}{:<11}{placement:<7}{median:>12.1}{:>22}{:>4}/{}{:>9.0}{:>9.0}{}",
            peer.name,
            peer.joins,
            format!("{least:.1}..{most:.1}"),
            chosen.len(),
            all.len(),
            raw(0),
            raw(1),
            if iqr > 0.15 { "  unsettled" } else { "" },
        );
        let row = serde_json::json!({
            "date": date(), "machine": machine(), "peer": peer.name, "joins": peer.joins,
            "mode": mode.name(), "size": size, "placement": placement,
            "unit": if mode == Mode::Rtt { "ns" } else { "million/s" },
            "median": median, "min": least, "max": most, "iqr": iqr,
            "rounds": chosen.len(), "raw1_ns": raw(0), "raw2_ns": raw(1),
        });
        let _ = writeln!(lines, "{row}");
    }
    println!("{}{table}\n{}", machine(), aims(settings, results));
    if let Some(path) = &settings.json {
        std::fs::File::options()
            .create(true)
            .append(true)
            .open(path)
            .and_then(|mut file| file.write_all(lines.as_bytes()))
            .map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(())
}

/// The processor and the kernel.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, Linux {}", kernel.trim())
}

/// Seconds since 1970, which sort and plot without a calendar.
fn date() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
