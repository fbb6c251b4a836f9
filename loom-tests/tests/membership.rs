//! Who sits in a participant's record, under loom: attaching, detaching, dying, and taking a dead one's place;
//! and the same with a bug seeded in each.
#![allow(dead_code, unused, missing_docs, unreachable_pub, clippy::all)] // of mutants

#[path = "../src/harness.rs"]
mod harness;
#[path = "../src/primitive.rs"]
mod primitive;

#[path = "../../src/ring/seat.rs"]
mod algorithm;
#[path = "models/membership.rs"]
mod models;

crate::models!(
    one_at_a_time_sits_there,
    the_living_are_not_taken_for_dead,
    of_one_who_left_all_is_seen,
    a_joiner_that_died_is_succeeded,
);

crate::mutants!("seat", "membership";
    takes_the_word_it_saw_first: the_living_are_not_taken_for_dead,
    sits_down_with_the_same_token: one_at_a_time_sits_there,
    forgets_to_take_the_word_back: of_one_who_left_all_is_seen,
);
