//! Writes the mutants: the algorithm's own source with one bug seeded in each. The models must fail on
//! them (`tests/mpmc_mutants.rs`); a mutant whose text is not found any more fails the build.

use std::path::Path;

/// File, name of the mutant, what is there, what the bug puts in its place.
const MUTANTS: &[(&str, &str, &str, &str)] = &[
    (
        "ring/mpmc",
        "loser_keeps_its_intent",
        "// A loser must not be taken for the claimant: before it returns, it names nothing.\n            self.clear(&me.write);",
        "",
    ),
    (
        "ring/mpmc",
        "poisons_what_nobody_claimed",
        "if !self.has_claimed(ticket)\n            || ",
        "if ",
    ),
    (
        "ring/mpmc",
        "joiner_clears_without_settling",
        "            self.poison(ticket, &is_dead);\n            if self.has_claimed(ticket)\n                && self.slots.sequence(ticket).load(Ordering::Acquire) == ticket\n            {\n                return false;\n            }\n",
        "            let _ = ticket;\n",
    ),
    (
        "ring/mpmc",
        "adopts_without_an_arbiter",
        "self.try_own(ticket, word, adopted(me as u64, round, ticket)).then_some(ticket)",
        "self.try_own(ticket, word, adopted(me as u64, round, ticket)); Some(ticket)",
    ),
    ("ring/mpmc", "adoption_without_rounds", "round + 1", "round"),
    (
        "ring/mpmc",
        "joiner_forgets_what_it_adopted",
        "        self.disown(me);\n",
        "",
    ),
    (
        "ring/mpmc",
        "joiner_forgets_messages_of_the_dead",
        "intents.legacy.store(read.word(), Ordering::Release);",
        "",
    ),
    (
        "ring/mpmc",
        "robs_the_living",
        "                if !is_dead(index) {\n                    return Some(false);\n                }\n",
        "                let _ = (index, is_dead);\n",
    ),
    (
        "ring/mpmc",
        "closed_is_not_part_of_the_tail",
        "self.cursors.tail.compare_exchange(tail, tail.wrapping_add(count), Ordering::Release, Ordering::Relaxed)",
        "self.cursors.tail.compare_exchange(tail, tail.wrapping_add(count), Ordering::Release, Ordering::Relaxed).or_else(|now| if now & !CLOSED == tail { self.cursors.tail.compare_exchange(now, now + count, Ordering::Release, Ordering::Relaxed) } else { Err(now) })",
    ),
    (
        "ring/mpmc",
        "commit_is_relaxed",
        "self.slots.sequence(ticket).store(ready(ticket), Ordering::Release);",
        "self.slots.sequence(ticket).store(ready(ticket), Ordering::Relaxed);",
    ),
    (
        "ring/mpmc",
        "release_is_relaxed",
        "self.slots.sequence(ticket).store(self.next_lap(ticket), Ordering::Release);",
        "self.slots.sequence(ticket).store(self.next_lap(ticket), Ordering::Relaxed);",
    ),
    (
        "ring/mpmc",
        "claim_does_not_publish_the_intent",
        "tail.compare_exchange(tail, tail.wrapping_add(count), Ordering::Release, Ordering::Relaxed)",
        "tail.compare_exchange(tail, tail.wrapping_add(count), Ordering::Relaxed, Ordering::Relaxed)",
    ),
    (
        "ring/mpmc",
        "head_moves_after_the_slot_is_freed",
        "let _ = self.cursors.head.compare_exchange(ticket, ticket.wrapping_add(1), Ordering::Release, Ordering::Relaxed);\n        if self.has_taken(ticket)",
        "if true",
    ),
    ("wait/bell", "without_fences", "full_fence();", ""),
    // Not mutants: two files under the module names by which one uses the other.
    ("ring/mpmc", "unchanged", "", ""),
    ("ring/items", "unchanged", "", ""),
];

/// Source without its line breaks inside expressions, so that formatting does not matter.
fn squeeze(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace("( ", "(")
        .replace(", )", ")")
        .replace(" .", ".")
}

fn main() {
    let out = std::env::var("OUT_DIR").unwrap();
    println!("cargo::rerun-if-changed=build.rs");
    for (file, name, from, to) in MUTANTS {
        let path = format!("../src/{file}.rs");
        println!("cargo::rerun-if-changed={path}");
        let source = std::fs::read_to_string(&path).unwrap();
        // Comments go first: they end at a line break, and there will be none.
        let strip = |text: &str| {
            let lines = text
                .lines()
                .map(|line| line.split("//").next().unwrap_or(""));
            squeeze(&lines.collect::<Vec<_>>().join("\n"))
        };
        let (source, from, to) = (strip(&source), strip(from), strip(to));
        assert!(
            source.contains(&from),
            "mutant {name}: not found in {path}: {from}"
        );
        let file = file.rsplit('/').next().unwrap();
        std::fs::write(
            Path::new(&out).join(format!("{file}_{name}.rs")),
            source.replace(&from, &to),
        )
        .unwrap();
    }
}
