//! Weakens every ordering and removes every fence of the algorithms, one at a time, and shows that a
//! model fails for it; what no model notices has to be in `exceptions.txt`, with an argument, and
//! nothing else may be there.
//!
//! ```text
//! cargo test -p loom-tests --test orderings                      # one in 16, others each minute
//! cargo test -p loom-tests --test orderings -- --all             # every one: the list, and the count
//! cargo test -p loom-tests --test orderings -- claim_write       # those whose name contains a word
//! cargo test -p loom-tests --test orderings -- --list            # what there is to weaken
//! ```
//!
//! The algorithm files are compiled once, with every site asking at run time whether it is the one
//! (`build/orderings.rs`); each mutant is a process of its own with the site in its environment.
#![allow(dead_code, unused, missing_docs, unreachable_pub, clippy::all)] // of what is generated

#[path = "../src/harness.rs"]
mod harness;
#[path = "../src/primitive.rs"]
mod primitive;
#[path = "../../src/ring/record.rs"]
mod record;
/// What the algorithms use of `ring`.
mod ring {
    pub(crate) use crate::record;
}
/// What the algorithms use of `wait`: the bell, weakened like the rest.
mod wait {
    pub(crate) use crate::bell::algorithm::Bell;
}

/// What the rewritten sites ask.
mod mutant {
    use super::primitive::Ordering;
    use std::sync::OnceLock;

    pub(crate) const VARIABLE: &str = "RINGWAY_WEAKEN";

    /// The site that is weakened in this process, and to what.
    fn weakened() -> Option<(usize, &'static str)> {
        static MUTANT: OnceLock<Option<(usize, String)>> = OnceLock::new();
        MUTANT
            .get_or_init(|| {
                let value = std::env::var(VARIABLE).ok()?;
                let (site, to) = value.split_once(':').expect("site:ordering");
                Some((site.parse().expect("a number"), to.to_owned()))
            })
            .as_ref()
            .map(|(site, to)| (*site, to.as_str()))
    }

    pub(crate) fn order(site: usize, ordering: Ordering) -> Ordering {
        match weakened() {
            Some((mutant, to)) if mutant == site => match to {
                "Relaxed" => Ordering::Relaxed,
                "Acquire" => Ordering::Acquire,
                "Release" => Ordering::Release,
                "AcqRel" => Ordering::AcqRel,
                other => panic!("{other} is no ordering"),
            },
            _ => ordering,
        }
    }

    pub(crate) fn keeps(site: usize) -> bool {
        weakened().is_none_or(|(mutant, _)| mutant != site)
    }
}

/// One ordering or fence in the algorithms.
struct Site {
    file: &'static str,
    function: &'static str,
    /// The how manieth of its function.
    nth: usize,
    line: usize,
    /// The ordering, or "fence".
    what: &'static str,
}

include!(concat!(env!("OUT_DIR"), "/sites.rs"));

/// The models of one algorithm, over the rewritten source.
macro_rules! algorithm {
    ($name:ident, $source:literal, $models:literal $(, $module:ident: $beside:literal)?) => {
        mod $name {
            pub(crate) mod algorithm {
                include!(concat!(env!("OUT_DIR"), "/weakened/", $source, ".rs"));
            }
            $(pub(crate) mod $module {
                include!(concat!(env!("OUT_DIR"), "/weakened/", $beside, ".rs"));
            })?
            pub(crate) mod models {
                include!(concat!("models/", $models, ".rs"));
            }
            include!(concat!(env!("OUT_DIR"), "/models_", $models, ".rs"));
        }
    };
}
algorithm!(spsc, "ring_spsc", "spsc");
algorithm!(mpmc, "ring_mpmc", "mpmc");
algorithm!(items, "ring_items", "items", mpmc: "ring_mpmc");
algorithm!(broadcast, "ring_broadcast_mod", "broadcast");
algorithm!(bell, "wait_bell", "bell");
algorithm!(seat, "ring_seat", "membership");

/// Which models are asked about which file, or about all the files of a folder.
const MODELS: &[(&str, &[(&str, fn())])] = &[
    ("ring/spsc", spsc::MODELS),
    ("ring/mpmc", mpmc::MODELS),
    ("ring/items", items::MODELS),
    ("ring/broadcast", broadcast::MODELS),
    ("wait/bell", bell::MODELS),
    ("ring/seat", seat::MODELS),
];

/// The key in [`MODELS`] of a file.
fn key(file: &str) -> &'static str {
    let mut keys = MODELS.iter().map(|(of, _)| *of);
    let holds = |of: &&str| file == *of || file.starts_with(&format!("{of}/"));
    keys.find(holds)
        .unwrap_or_else(|| panic!("no models for {file}: see MODELS"))
}

/// Executions of a model that are tried at first.
const FEW: u32 = 200;

/// Of so many mutants one is run unless all are asked for.
const SAMPLE: u64 = 16;

/// What no model notices, and why that is well.
const EXCEPTIONS: &str = include_str!("../exceptions.txt");

fn weaker(what: &str) -> &'static [&'static str] {
    match what {
        "SeqCst" => &["AcqRel"],
        "AcqRel" => &["Acquire", "Release"],
        "Acquire" | "Release" => &["Relaxed"],
        "fence" => &["nothing"],
        _ => &[],
    }
}

#[derive(Clone)]
struct Mutant {
    site: usize,
    to: &'static str,
}

impl Mutant {
    fn name(&self) -> String {
        let Site {
            file,
            function,
            nth,
            what,
            ..
        } = &SITES[self.site];
        format!("{file} {function} {nth} {what} -> {}", self.to)
    }

    /// The model that notices it: `first` is asked first.
    fn killer(&self, first: Option<&'static str>) -> Option<&'static str> {
        let file = key(SITES[self.site].file);
        let (_, models) = MODELS.iter().find(|(of, _)| *of == file).expect("a key");
        let mut names: Vec<&'static str> = models.iter().map(|(name, _)| *name).collect();
        names.sort_by_key(|name| Some(*name) != first);
        // Most are found soon: first a little of every model, then all of it.
        [Some(FEW), None].into_iter().find_map(|most| {
            let fails = |name: &&&str| !passes(Some(self), file, name, most);
            names.iter().find(fails).copied()
        })
    }
}

/// Whether a model passes, with the mutant or without, with so many executions at most.
fn passes(mutant: Option<&Mutant>, file: &str, model: &str, most: Option<u32>) -> bool {
    std::process::Command::new(std::env::current_exe().expect("own path"))
        .args(["--model", file, model])
        .envs(most.map(|most| ("LOOM_MAX_PERMUTATIONS", most.to_string())))
        .envs(mutant.map(|mutant| (mutant::VARIABLE, format!("{}:{}", mutant.site, mutant.to))))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .expect("own executable")
        .success()
}

/// A model that fails for the algorithm as it is would kill everything.
fn models_pass(mutants: &[Mutant]) {
    for (file, models) in MODELS {
        if mutants
            .iter()
            .any(|mutant| key(SITES[mutant.site].file) == *file)
        {
            for (name, _) in *models {
                assert!(
                    passes(None, file, name, Some(FEW)),
                    "{name} fails by itself"
                );
            }
        }
    }
}

/// The exceptions' names; each is followed by its argument, indented.
fn exceptions() -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::new();
    let mut argued = true;
    for line in EXCEPTIONS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        if line.starts_with(' ') {
            argued = true;
        } else {
            assert!(argued, "no argument for {}", names.last().unwrap());
            assert!(!names.contains(&line), "twice: {line}");
            names.push(line);
            argued = false;
        }
    }
    assert!(argued, "no argument for {}", names.last().unwrap());
    names
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, file, model] = &arguments[..]
        && flag == "--model"
    {
        let (_, models) = MODELS.iter().find(|(of, _)| of == file).expect("a file");
        return models
            .iter()
            .find(|(name, _)| name == model)
            .expect("a model")
            .1();
    }
    let mut mutants: Vec<Mutant> = (0..SITES.len())
        .flat_map(|site| {
            weaker(SITES[site].what)
                .iter()
                .map(move |to| Mutant { site, to })
        })
        .collect();
    let known = exceptions();
    for name in &known {
        let is_there = mutants.iter().any(|mutant| mutant.name() == *name);
        assert!(is_there, "exceptions.txt: there is no {name:?} (any more)");
    }
    let mut all = false;
    for word in arguments.iter().filter(|word| *word != "--nocapture") {
        match word.as_str() {
            "--list" => {
                return mutants
                    .iter()
                    .for_each(|mutant| println!("{}", mutant.name()));
            }
            "--all" => all = true,
            word => {
                all = true;
                mutants.retain(|mutant| mutant.name().contains(word));
            }
        }
    }
    let total = mutants.len();
    if !all {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let turn = now.as_secs() / 60 % SAMPLE;
        println!("one in {SAMPLE}, and no exceptions (these take every model); --all for all");
        mutants.retain(|mutant| !known.contains(&mutant.name().as_str()));
        let mut index = turn;
        mutants.retain(|_| {
            index += 1;
            index % SAMPLE == 0
        });
    }
    assert!(!mutants.is_empty(), "no such mutant: see --list");
    models_pass(&mutants);
    let failures = run(&mutants, &known, total);
    if failures > 0 {
        std::process::exit(1);
    }
}

/// Runs the mutants, on as many processors as there are; the number of surprises.
fn run(mutants: &[Mutant], known: &[&str], total: usize) -> usize {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let began = std::time::Instant::now();
    let next = AtomicUsize::new(0);
    let (killed, excepted, failures) = (
        AtomicUsize::new(0),
        AtomicUsize::new(0),
        AtomicUsize::new(0),
    );
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let mut last: Option<&'static str> = None;
                loop {
                    let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) else {
                        return;
                    };
                    let name = mutant.name();
                    let line = SITES[mutant.site].line;
                    let is_known = known.contains(&name.as_str());
                    match mutant.killer(last) {
                        Some(model) => {
                            killed.fetch_add(1, Ordering::Relaxed);
                            println!("killed    {name} (line {line}): {model}");
                            last = Some(model);
                            if is_known {
                                println!("          and is in exceptions.txt: take it out");
                                failures.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        None if is_known => {
                            excepted.fetch_add(1, Ordering::Relaxed);
                            println!("excepted  {name} (line {line})");
                        }
                        None => {
                            println!("SURVIVED  {name} (line {line})");
                            failures.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let failures = failures.load(Ordering::Relaxed);
    println!(
        "{} of {} mutants ({total} in all, {} sites): {} killed, {} argued exceptions, {failures} surprises, {:.0?}",
        mutants.len(),
        total,
        SITES.len(),
        killed.load(Ordering::Relaxed),
        excepted.load(Ordering::Relaxed),
        began.elapsed(),
    );
    failures
}
