//! The models can fail: each bug seeded into the SPSC algorithm (see `build.rs`) is found by one.
#![allow(dead_code, unused, missing_docs, unreachable_pub, clippy::all)]

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

crate::mutants!("spsc", "spsc";
    header_store_is_relaxed: commit_and_wrap_spinning,
    header_store_to_a_rare_sleeper_is_relaxed: a_sleeping_consumer_is_woken,
    header_swap_is_relaxed: commit_and_wrap_parking,
    acknowledges_without_a_fence: a_sleeping_producer_is_woken,
    publishes_without_a_fence: a_sleeping_consumer_is_woken,
    consumer_sleeps_without_a_barrier: a_sleeping_consumer_is_woken,
    rare_sleeper_does_not_look_again: a_sleeping_consumer_is_woken,
    trusts_a_mark_that_it_did_not_make: one_who_sleeps_in_the_place_of_the_dead_is_woken,
    makes_no_barrier_for_a_new_mark: a_sleeping_consumer_is_woken,
    successor_leaves_the_mark: a_consumer_asleep_beside_the_dead_is_woken,
    successor_does_not_fence: a_consumer_asleep_beside_the_dead_is_woken,
    producer_ignores_the_rare_sleeper: a_sleeping_consumer_is_woken,
    rare_sleeper_sleeps_on_the_header: a_sleeping_consumer_is_woken,
    acknowledged_store_is_relaxed: room_that_was_given_back_is_found,
    producer_sleeps_without_a_barrier: a_sleeping_producer_is_woken,
    head_is_relaxed: room_that_was_given_back_is_found,
    take_is_relaxed: commit_and_wrap_parking,
    take_at_once_is_relaxed: commit_and_wrap_parking,
    reads_after_giving_back: a_long_message_is_read_before_it_is_overwritten,
    padding_before_its_record: commit_and_wrap_parking,
    looks_for_room_relaxed: commit_and_wrap_parking,
    looks_lazily_relaxed: room_that_was_given_back_is_found,
    announces_for_room_relaxed: a_sleeping_producer_is_woken,
    no_zero_behind_the_last: commit_and_wrap_parking,
    zeroes_the_next_header_after_publishing: a_sleeping_consumer_is_woken,
    keeps_one_line_back: commit_and_wrap_parking,
    zeroes_a_line_too_far_ahead: touched_lines_are_the_consumers,
    reservation_keeps_the_frontier: nothing_of_an_aborted_or_cut_message_is_seen,
    cut_message_restores_the_frontier: nothing_of_an_aborted_or_cut_message_is_seen,
    producer_ignores_the_sleeper: a_sleeping_consumer_is_woken,
    consumer_ignores_the_sleeper: a_sleeping_producer_is_woken,
    consumer_announces_without_looking_again: a_sleeping_consumer_is_woken,
    producer_announces_without_looking_again: a_sleeping_producer_is_woken,
    touches_below_the_acknowledged: touched_lines_are_the_consumers,
    touches_after_acknowledging: touched_lines_are_the_consumers,
    successor_zeroes_nothing: a_producer_that_died_in_a_reservation_is_succeeded,
    successor_zeroes_the_next_header: a_producer_that_died_sending_is_succeeded,
    successor_looks_for_room_relaxed: a_producer_that_died_wrapping_is_succeeded,
    successor_marks_nothing: a_consumer_that_died_is_succeeded,
    batch_publishes_at_its_first: a_batch_is_seen_whole,
    closing_ignores_the_sleeper: closing_is_seen_after_the_last_message,
);
