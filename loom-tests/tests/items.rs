//! The ring of 8-byte items under loom: the very file that runs in shared memory.
#![allow(dead_code, unused_imports, missing_docs, unreachable_pub)]

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
