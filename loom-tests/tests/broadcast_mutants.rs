//! The models can fail: each bug seeded into the broadcast algorithm (see `build.rs`) is found by one.
#![allow(dead_code, unused, missing_docs, unreachable_pub, clippy::all)]

#[path = "../src/harness.rs"]
mod harness;
#[path = "../src/primitive.rs"]
mod primitive;

#[path = "../../src/wait/bell.rs"]
mod bell;
#[path = "../../src/ring/record.rs"]
mod record;
/// What the algorithm uses of `ring`.
mod ring {
    pub(crate) use crate::record;
}
/// What the algorithm uses of `wait`.
mod wait {
    pub(crate) use crate::bell::Bell;
}

crate::mutants!("broadcast", "broadcast";
    moves_the_mark_too_late: an_overrun_reader_never_takes_what_was_torn,
    reader_trusts_what_it_read: an_overrun_reader_never_takes_what_was_torn,
    mark_is_not_read_twice: an_overrun_reader_counts_what_it_missed,
    producer_does_not_look_at_seats_again: a_newcomer_is_seen_before_anything_it_reads_is_overwritten,
    subscriber_ignores_the_sleeper: a_sleeping_producer_is_woken,
    leaver_ignores_the_sleeper: a_producer_that_sleeps_for_one_who_leaves_is_woken,
    producer_announces_without_looking_again: a_sleeping_producer_is_woken,
    producer_ignores_the_bell: two_sleepers_are_woken_by_one_message,
    publishes_lightly_without_a_fence: two_sleepers_are_woken_by_one_message,
    recent_is_moved_in_an_open_batch: who_joins_during_a_batch_sees_it_whole,
    subscriber_announces_without_looking_again: two_sleepers_are_woken_by_one_message,
    no_zero_behind_the_last: commit_and_wrap_parking,
    keeps_one_line_back: commit_and_wrap_parking,
    reservation_keeps_the_frontier: nothing_of_an_aborted_or_cut_message_is_seen,
    cut_message_restores_the_frontier: nothing_of_an_aborted_or_cut_message_is_seen,
    successor_takes_a_line_to_be_zero: a_producer_that_died_in_a_reservation_is_succeeded,
    successor_forgets_the_sequence: a_producer_that_died_sending_is_succeeded,
    padding_before_its_record: commit_and_wrap_parking,
    batch_publishes_at_its_first: a_batch_is_seen_whole,
    touches_after_letting_go: touched_lines_are_the_subscribers,
    touches_without_asking_who_came: a_newcomer_lends_out_nothing_that_is_touched,
    newcomer_lends_out_at_once: a_newcomer_lends_out_nothing_that_is_touched,
    newcomer_makes_no_barrier: a_newcomer_lends_out_nothing_that_is_touched,
    touches_beside_others: what_a_leaver_lent_out_is_not_touched_before_it_leaves,
);
