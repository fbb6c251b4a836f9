//! The ring of 8-byte items under loom: the very file that runs in shared memory; and the same with a bug seeded in
//! each.
#![allow(dead_code, unused, missing_docs, unreachable_pub, clippy::all)] // of mutants

#[path = "../src/harness.rs"]
mod harness;
#[path = "../src/primitive.rs"]
mod primitive;

#[path = "../../src/ring/items.rs"]
mod algorithm;
#[path = "models/items.rs"]
mod models;
#[path = "../../src/ring/mpmc.rs"]
mod mpmc;

crate::models!(
    nothing_is_lost_or_doubled_with_two_producers,
    two_consumers_take_different_items,
    closing_loses_nothing_that_was_sent,
);

crate::mutants!("items", "items";
    closing_loses_an_item: closing_loses_nothing_that_was_sent,
    taking_reopens: closing_loses_nothing_that_was_sent,
    sends_without_the_item_that_it_saw: nothing_is_lost_or_doubled_with_two_producers,
);
