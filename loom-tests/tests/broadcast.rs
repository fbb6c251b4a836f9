//! The broadcast ring under loom: the very files that run in shared memory.
#![allow(dead_code, unused_imports, missing_docs, unreachable_pub)]

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

#[path = "../../src/ring/broadcast/mod.rs"]
mod algorithm;
#[path = "models/broadcast.rs"]
mod models;

crate::models!(
    commit_and_wrap_parking,
    commit_and_wrap_spinning,
    commit_and_wrap_lightly,
    who_joins_during_a_batch_sees_it_whole,
    who_joins_while_the_mark_is_moved_twice_reads_it_whole,
    a_batch_is_seen_whole,
    a_batch_does_not_overwrite_itself,
    nothing_of_an_aborted_or_cut_message_is_seen,
    an_overrun_reader_never_takes_what_was_torn,
    an_overrun_reader_counts_what_it_missed,
    a_newcomer_gets_everything_from_where_it_sat_down,
    a_newcomer_is_seen_before_anything_it_reads_is_overwritten,
    nothing_is_overwritten_before_those_who_were_expected_have_come,
    what_a_leaver_read_is_not_overwritten_before_it_leaves,
    room_that_was_let_go_is_found,
    a_long_message_is_read_before_it_is_overwritten,
    touched_lines_are_the_subscribers,
    a_newcomer_lends_out_nothing_that_is_touched,
    what_a_leaver_lent_out_is_not_touched_before_it_leaves,
    a_sleeping_producer_is_woken,
    a_producer_that_sleeps_for_one_who_leaves_is_woken,
    a_producer_that_sleeps_until_somebody_comes_is_woken,
    two_sleepers_are_woken_by_one_message,
    closing_is_seen_after_the_last_message,
    a_producer_that_died_sending_is_succeeded,
    a_successor_overwrites_nothing_that_is_being_read,
    a_producer_that_died_wrapping_is_succeeded,
    a_producer_that_died_in_a_batch_is_succeeded,
    a_producer_that_died_in_a_reservation_is_succeeded,
    a_producer_that_died_closing_is_succeeded,
);
