//! Writes the mutants: the algorithm's own source with one bug seeded in each. The models must fail on
//! them (`tests/mpmc_mutants.rs`, `tests/spsc_mutants.rs`); a mutant whose text is not found any more fails the build.

#[path = "build/orderings.rs"]
mod orderings;

use std::path::Path;

/// File, name of the mutant, what is there, what the bug puts in its place.
const MUTANTS: &[(&str, &str, &str, &str)] = &[
    (
        "ring/mpmc",
        "loser_keeps_its_intent",
        "    clear(intent);\n",
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
        "            self.poison(ticket, &is_dead);\n            if self.has_claimed(ticket)\n                && self.slots.sequence(ticket).load(Ordering::Relaxed) == ticket\n            {\n                return false;\n            }\n",
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
        "intents.legacy.store(read.word(), Ordering::Relaxed);",
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
    (
        "ring/mpmc",
        "batches_forget_the_readers",
        "oldest = oldest.min(held.unwrap_or(head));",
        "let _ = held; oldest = oldest.min(head);",
    ),
    (
        "ring/mpmc",
        "batches_ask_relaxed",
        "let run = Run::from_word(word.load(Ordering::Acquire)); let held = run",
        "let run = Run::from_word(word.load(Ordering::Relaxed)); let held = run",
    ),
    (
        "ring/mpmc",
        "nobody_frees_what_was_stepped_over",
        "if self.slots.sequence(ticket).load(Ordering::Relaxed) == poisoned(before) { self.step_over(before); }",
        "",
    ),
    (
        "ring/spsc",
        "header_store_is_relaxed",
        "header.store(word, Ordering::Release); false",
        "header.store(word, Ordering::Relaxed); false",
    ),
    (
        "ring/spsc",
        "header_store_to_a_rare_sleeper_is_relaxed",
        "header.store(word, Ordering::Release); self.has_sleeper()",
        "header.store(word, Ordering::Relaxed); self.has_sleeper()",
    ),
    (
        "ring/spsc",
        "header_swap_is_relaxed",
        "header.swap(word, Ordering::Release)",
        "header.swap(word, Ordering::Relaxed)",
    ),
    (
        "ring/spsc",
        "acknowledges_without_a_fence",
        "self.manner.fence(); self.control.consumer",
        "self.control.consumer",
    ),
    (
        "ring/spsc",
        "publishes_without_a_fence",
        "self.manner.fence(); self.control.producer",
        "self.control.producer",
    ),
    (
        "ring/spsc",
        "consumer_sleeps_without_a_barrier",
        "self.barred = barrier();",
        "let _ = barrier; self.barred = true;",
    ),
    (
        "ring/spsc",
        "rare_sleeper_does_not_look_again",
        "if !self.has_next() { return Ok(Some(mark)); }",
        "if true { return Ok(Some(mark)); }",
    ),
    (
        "ring/spsc",
        "trusts_a_mark_that_it_did_not_make",
        "if mark & ASLEEP == 0 || !self.barred {",
        "if mark & ASLEEP == 0 {",
    ),
    (
        "ring/spsc",
        "makes_no_barrier_for_a_new_mark",
        "if mark & ASLEEP == 0 || !self.barred {",
        "if mark & ASLEEP == 0 && self.barred { mark = asleep.fetch_or(ASLEEP, Ordering::Relaxed) | ASLEEP; } else if !self.barred {",
    ),
    (
        "ring/spsc",
        "successor_leaves_the_mark",
        "full_fence(); asleep.fetch_and(!ASLEEP, Ordering::Relaxed);",
        "full_fence();",
    ),
    (
        "ring/spsc",
        "successor_does_not_fence",
        "full_fence(); asleep.fetch_and(!ASLEEP, Ordering::Relaxed);",
        "asleep.fetch_and(!ASLEEP, Ordering::Relaxed);",
    ),
    (
        "ring/spsc",
        "producer_ignores_the_rare_sleeper",
        "self.has_sleeper() }",
        "self.has_sleeper() && false }",
    ),
    (
        "ring/spsc",
        "rare_sleeper_sleeps_on_the_header",
        "if manner.rarely { &control.producer.asleep } else { data.word(at) }",
        "{ let _ = (control, manner); data.word(at) }",
    ),
    (
        "ring/spsc",
        "acknowledged_store_is_relaxed",
        "control.consumer.position.store(to, Ordering::Release)",
        "control.consumer.position.store(to, Ordering::Relaxed)",
    ),
    (
        "ring/spsc",
        "producer_sleeps_without_a_barrier",
        "barrier(); let seen",
        "let _ = barrier; let seen",
    ),
    (
        "ring/spsc",
        "head_is_relaxed",
        "self.control.head.store(to, Ordering::Release)",
        "self.control.head.store(to, Ordering::Relaxed)",
    ),
    (
        "ring/spsc",
        "take_is_relaxed",
        "let word = self.data.word(self.position).load(Ordering::Acquire);",
        "let word = self.data.word(self.position).load(Ordering::Relaxed);",
    ),
    (
        "ring/spsc",
        "take_at_once_is_relaxed",
        "let word = self.data.word(at).load(Ordering::Acquire);",
        "let word = self.data.word(at).load(Ordering::Relaxed);",
    ),
    (
        "ring/spsc",
        "reads_after_giving_back",
        "if !read(data, at + WORD, len) { return None; } self.position = end; add(&control.consumer.messages, 1); Some(self.give_back(at, end))",
        "self.position = end; add(&control.consumer.messages, 1); let notify = self.give_back(at, end); read(data, at + WORD, len); Some(notify)",
    ),
    (
        "ring/spsc",
        "padding_before_its_record",
        "self.data.word(place.header).store(word, Ordering::Relaxed);\n        (\n            self.position,\n            header(place.header - self.position - WORD, PAD),\n        )",
        "self.data.word(self.position).store(header(place.header - self.position - WORD, PAD), Ordering::Release);\n        (place.header, word)",
    ),
    (
        "ring/spsc",
        "looks_for_room_relaxed",
        "let seen = word.load(Ordering::Acquire) & !(WORD - 1);",
        "let seen = word.load(Ordering::Relaxed) & !(WORD - 1);",
    ),
    (
        "ring/spsc",
        "looks_lazily_relaxed",
        "self.control.head.load(Ordering::Acquire)",
        "self.control.head.load(Ordering::Relaxed)",
    ),
    (
        "ring/spsc",
        "announces_for_room_relaxed",
        "let seen = consumer.position.load(Ordering::Acquire);",
        "let seen = consumer.position.load(Ordering::Relaxed);",
    ),
    (
        "ring/spsc",
        "no_zero_behind_the_last",
        "unsafe { data.zero_rest_of_line(end) };",
        "",
    ),
    (
        "ring/spsc",
        "zeroes_the_next_header_after_publishing",
        "unsafe { data.zero_line(zeroed) };",
        "unsafe { data.zero(end, zeroed + LINE) };",
    ),
    (
        "ring/spsc",
        "keeps_one_line_back",
        "acknowledged + self.data.capacity() - 2 * LINE);",
        "acknowledged + self.data.capacity() - LINE);",
    ),
    (
        "ring/spsc",
        "zeroes_a_line_too_far_ahead",
        "if zeroed < end + LINE + u64::from(messages == 1) {",
        "if zeroed < end + 2 * LINE {",
    ),
    (
        "ring/spsc",
        "reservation_keeps_the_frontier",
        "self.zeroed = self.position + WORD;",
        "",
    ),
    (
        "ring/spsc",
        "cut_message_restores_the_frontier",
        "if len == place.len {",
        "if true {",
    ),
    (
        "ring/spsc",
        "producer_ignores_the_sleeper",
        "header.swap(word, Ordering::Release) & WAITING != 0",
        "{ header.swap(word, Ordering::Release); false }",
    ),
    (
        "ring/spsc",
        "consumer_ignores_the_sleeper",
        "if self.manner.parks && self.has_sleeper() {",
        "if self.manner.parks && self.has_sleeper() && false {",
    ),
    (
        "ring/spsc",
        "consumer_announces_without_looking_again",
        "match word.compare_exchange(0, WAITING, Ordering::Relaxed, Ordering::Relaxed) {",
        "word.store(WAITING, Ordering::Relaxed); match Ok(0u64) {",
    ),
    (
        "ring/spsc",
        "producer_announces_without_looking_again",
        "self.raise_limit(seen & !(WORD - 1))?; if self.fit(len).1 > self.limit {",
        "let _ = seen; if self.fit(len).1 > self.limit {",
    ),
    (
        "ring/spsc",
        "touches_below_the_acknowledged",
        "touch_lines(self.data, from, to);",
        "touch_lines(self.data, from - LINE, to);",
    ),
    (
        "ring/spsc",
        "touches_after_acknowledging",
        "if to - self.published >= data.capacity() / 8 {",
        "if (from ^ to) >= LINE && self.manner.touch && to - self.rested.0 > TOUCH_AFTER { self.touch(from, to); } if to - self.published >= data.capacity() / 8 {",
    ),
    (
        "ring/spsc",
        "successor_zeroes_nothing",
        "unsafe { data.zero(position + WORD, acknowledged + capacity) };",
        "",
    ),
    (
        "ring/spsc",
        "successor_zeroes_the_next_header",
        "unsafe { data.zero(position + WORD, acknowledged + capacity) };",
        "data.word(position).store(0, Ordering::Relaxed); unsafe { data.zero(position + WORD, acknowledged + capacity) };",
    ),
    (
        "ring/spsc",
        "successor_looks_for_room_relaxed",
        "let acknowledged = control.consumer.position.load(Ordering::Acquire) & !(WORD - 1);",
        "let acknowledged = control.consumer.position.load(Ordering::Relaxed) & !(WORD - 1);",
    ),
    (
        "ring/spsc",
        "successor_marks_nothing",
        "redelivered: control.consumer.taken.load(Ordering::Relaxed),",
        "redelivered: 0,",
    ),
    (
        "ring/spsc",
        "batch_publishes_at_its_first",
        "self.first = Some((at, word));",
        "self.first = Some((at, word)); self.data.word(at).store(word, Ordering::Release);",
    ),
    (
        "ring/spsc",
        "closing_ignores_the_sleeper",
        "self.publish_header(self.position, header(0, CLOSED))",
        "{ let _ = self.publish_header(self.position, header(0, CLOSED)); Notify::Nobody }",
    ),
    (
        "ring/broadcast",
        "moves_the_mark_too_late",
        "self.control.oldest.publish(self.oldest_turn, self.oldest);",
        "let late = (self.oldest_turn - 1, self.control.oldest.read().map_err(Refused::Corrupt)?.1); self.control.oldest.publish(late.0 + 1, late.1);",
    ),
    (
        "ring/broadcast",
        "reader_trusts_what_it_read",
        "if self.seat.is_some() { return Ok(true); }",
        "if true { return Ok(true); }",
    ),
    (
        "ring/broadcast",
        "mark_is_not_read_twice",
        "(self.turn.load(Ordering::Relaxed) == turn).then_some((turn, spot))",
        "Some((turn, spot))",
    ),
    (
        "ring/broadcast",
        "producer_does_not_look_at_seats_again",
        "let free = self.slowest(wanted); if free < wanted {",
        "let free = self.slowest(0).max(self.oldest.position); if false {",
    ),
    (
        "ring/broadcast",
        "subscriber_ignores_the_sleeper",
        "seat.notify(self.fences)",
        "{ let _ = seat.notify(self.fences); Notify::Nobody }",
    ),
    (
        "ring/broadcast",
        "leaver_ignores_the_sleeper",
        "self.notify(true)",
        "{ let _ = self.notify(true); Notify::Nobody }",
    ),
    (
        "ring/broadcast",
        "producer_announces_without_looking_again",
        "barrier(); if seat.exact() < wanted {",
        "barrier(); if true {",
    ),
    (
        "ring/broadcast",
        "producer_ignores_the_bell",
        "self.control.bell.ring_after_exchange()",
        "{ self.control.bell.ring_after_exchange(); false }",
    ),
    (
        "ring/broadcast",
        "publishes_lightly_without_a_fence",
        "self.control.bell.ring_with(light_fence)",
        "self.control.bell.ring_with(|| ())",
    ),
    (
        "ring/broadcast",
        "recent_is_moved_in_an_open_batch",
        "let is_settled = self.first.is_none();",
        "let is_settled = true;",
    ),
    (
        "ring/broadcast",
        "subscriber_announces_without_looking_again",
        "let word = self.control.bell.announce_with(barrier); Ok(self.has_nothing()?.then_some(word))",
        "Ok(Some(self.control.bell.announce_with(barrier)))",
    ),
    (
        "ring/broadcast",
        "no_zero_behind_the_last",
        "self.data.zero_shared(self.position, end); self.zeroed = end;",
        "self.zeroed = end;",
    ),
    (
        "ring/broadcast",
        "keeps_one_line_back",
        "(end + 2 * LINE).saturating_sub(self.data.capacity())",
        "end.saturating_sub(self.data.capacity())",
    ),
    (
        "ring/broadcast",
        "reservation_keeps_the_frontier",
        "self.zeroed = self.position + WORD; Ok(place)",
        "Ok(place)",
    ),
    (
        "ring/broadcast",
        "cut_message_restores_the_frontier",
        "if len == place.len {",
        "if true {",
    ),
    (
        "ring/broadcast",
        "successor_takes_a_line_to_be_zero",
        "tx.zeroed = tx.position + WORD;",
        "tx.zeroed = line_end(tx.position) + LINE;",
    ),
    (
        "ring/broadcast",
        "successor_forgets_the_sequence",
        "tx.sequence = tx.sequence.wrapping_add(u64::from(is_message));",
        "",
    ),
    (
        "ring/broadcast",
        "padding_before_its_record",
        "self.data.word(place.header).store(word, Ordering::Relaxed); let padding = place.header - self.position - WORD; (self.position, header(padding, PAD))",
        "self.data.word(self.position).store(header(place.header - self.position - WORD, PAD), Ordering::Release); (place.header, word)",
    ),
    (
        "ring/broadcast",
        "batch_publishes_at_its_first",
        "self.first = Some((at, word));",
        "self.first = Some((at, word)); self.data.word(at).store(word, Ordering::Release);",
    ),
    (
        "ring/broadcast",
        "touches_after_letting_go",
        "if (from ^ to) >= LINE && self.alone != 0 { self.touch(from, to); } seat.own.exact.store(to, Ordering::Release);",
        "seat.own.exact.store(to, Ordering::Release); if (from ^ to) >= LINE && self.alone != 0 { self.touch(from, to); }",
    ),
    (
        "ring/broadcast",
        "touches_without_asking_who_came",
        "if self.control.joined.load(Ordering::Relaxed) != self.alone {",
        "if false {",
    ),
    (
        "ring/broadcast",
        "newcomer_lends_out_at_once",
        "true => Lends::CopiesYet,",
        "true => Lends::InPlace,",
    ),
    (
        "ring/broadcast",
        "newcomer_makes_no_barrier",
        "let lends = match barrier() {",
        "let lends = match true {",
    ),
    (
        "ring/broadcast",
        "touches_beside_others",
        "if others.all(|(index, seat)| index == own || seat.exact() == GONE) {",
        "if true {",
    ),
    (
        "ring/items",
        "closing_loses_an_item",
        "(word | CLOSED, item)",
        "(word | CLOSED, 0)",
    ),
    (
        "ring/items",
        "taking_reopens",
        "let free = ticket.wrapping_add(self.pairs.capacity()) | word & CLOSED;",
        "let free = ticket.wrapping_add(self.pairs.capacity());",
    ),
    (
        "ring/items",
        "sends_without_the_item_that_it_saw",
        "let new = (ticket.wrapping_add(1), item); if self.pairs.compare_exchange(ticket, (word, old), new) {",
        "let new = (ticket.wrapping_add(1), item); if self.pairs.sequence(ticket) == word { self.pairs.compare_exchange(ticket, (self.pairs.sequence(ticket), self.pairs.item(ticket)), new);",
    ),
    (
        "wait/bell",
        "without_fences",
        "barrier();",
        "let _ = barrier;",
    ),
    (
        "ring/seat",
        "takes_the_word_it_saw_first",
        "match state.load(Ordering::Acquire) { now if now == word => Seen::Dead(word),",
        "match word { now if now == word => Seen::Dead(word),",
    ),
    (
        "ring/seat",
        "sits_down_with_the_same_token",
        "if !take(generation)? {",
        "if false {",
    ),
    (
        "ring/seat",
        "forgets_to_take_the_word_back",
        "state.store(old, Ordering::Release); return Ok(Sat::Unsettled);",
        "return Ok(Sat::Unsettled);",
    ),
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

/// The source of a module: of its file, or of all the files in its folder as one.
fn read(path: &str) -> String {
    let read = |path: String| {
        println!("cargo::rerun-if-changed={path}");
        std::fs::read_to_string(&path).unwrap()
    };
    if !Path::new(path).is_dir() {
        return read(format!("{path}.rs"));
    }
    let lines = read(format!("{path}/mod.rs"));
    let lines = lines.lines().map(|line| {
        match line
            .strip_prefix("mod ")
            .and_then(|rest| rest.strip_suffix(';'))
        {
            Some(child) => format!("mod {child} {{\n{}\n}}", read(format!("{path}/{child}.rs"))),
            None => line.to_owned(),
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn main() {
    let out = std::env::var("OUT_DIR").unwrap();
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=build/orderings.rs");
    orderings::generate(Path::new(&out));
    for (file, name, from, to) in MUTANTS {
        let path = format!("../src/{file}");
        let source = read(&path);
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
