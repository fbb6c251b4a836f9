//! The SPSC ring under loom: the very file that runs in shared memory.
#![allow(dead_code, unused_imports, missing_docs, unreachable_pub)]

#[path = "../src/harness.rs"]
mod harness;
#[path = "../src/primitive.rs"]
mod primitive;
#[path = "../../src/ring/record.rs"]
mod record;
/// What the algorithm uses of `ring`.
mod ring {
    pub(crate) use crate::record;
}

#[path = "../../src/ring/spsc.rs"]
mod algorithm;
#[path = "models/spsc.rs"]
mod models;

crate::models!(
    commit_and_wrap_parking,
    commit_and_wrap_spinning,
    a_batch_is_seen_whole,
    nothing_of_an_aborted_or_cut_message_is_seen,
    room_that_was_given_back_is_found,
    a_long_message_is_read_before_it_is_overwritten,
    a_sleeping_consumer_is_woken,
    one_who_sleeps_in_the_place_of_the_dead_is_woken,
    a_consumer_asleep_beside_the_dead_is_woken,
    a_sleeping_producer_is_woken,
    both_sides_sleep,
    closing_is_seen_after_the_last_message,
    a_closed_ring_is_reopened,
    touched_lines_are_the_consumers,
    a_producer_that_died_sending_is_succeeded,
    a_producer_that_died_wrapping_is_succeeded,
    a_producer_that_died_in_a_batch_is_succeeded,
    a_producer_that_died_in_a_reservation_is_succeeded,
    a_producer_that_died_closing_is_succeeded,
    a_consumer_that_died_is_succeeded,
);
