//! The waiting loop under loom, with time-outs and deaths, over the SPSC ring.
//!
//! `wait/` is taken as `build/orderings.rs` writes it, which leaves out its comments and its own tests (these
//! spin outside of a model); nothing is weakened.
#![allow(dead_code, unused, missing_docs, unreachable_pub, clippy::all)] // of what is generated

#[path = "../src/harness.rs"]
mod harness;
#[path = "../src/primitive.rs"]
mod primitive;

/// What the generated files ask: nothing is weakened here.
mod mutant {
    pub(crate) fn order(
        _: usize,
        ordering: crate::primitive::Ordering,
    ) -> crate::primitive::Ordering {
        ordering
    }

    pub(crate) fn keeps(_: usize) -> bool {
        true
    }
}

pub(crate) mod wait {
    include!(concat!(env!("OUT_DIR"), "/weakened/wait_mod.rs"));
}

#[path = "../../src/ring/record.rs"]
mod record;
/// What the algorithm uses of `ring`.
mod ring {
    pub(crate) use crate::record;
}
#[path = "../../src/ring/spsc.rs"]
mod algorithm;
#[path = "models/waiting.rs"]
mod models;

crate::models!(
    one_who_waits_is_woken,
    a_time_out_loses_nothing,
    one_who_waits_for_the_dead_is_told,
    one_who_waits_for_room_from_the_dead_is_told,
);
