//! The bell under loom: no wake-up is lost, with any number of sleepers and notifiers; and without
//! either of its fences one is.
#![allow(dead_code, unused_imports, missing_docs, unreachable_pub, clippy::all)] // of mutants

#[path = "../src/harness.rs"]
mod harness;
#[path = "../src/primitive.rs"]
mod primitive;

#[path = "../../src/wait/bell.rs"]
mod algorithm;
#[path = "models/bell.rs"]
mod models;

crate::models!(
    a_sleeper_is_always_woken,
    a_sleeper_is_woken_after_an_exchange,
    a_sleeper_that_demands_fences_is_woken,
    two_messages_wake_two_sleepers,
);

crate::mutants!("bell", "bell"; without_fences: a_sleeper_is_always_woken);
