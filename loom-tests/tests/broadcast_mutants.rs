//! The models can fail: each bug seeded into the broadcast algorithm (see `build.rs`) is found by one.
#![allow(dead_code, unused, missing_docs, unreachable_pub, clippy::all)]

#[path = "../src/primitive.rs"]
mod primitive;

#[path = "../../src/wait/bell.rs"]
mod bell;
/// What the algorithm uses of `wait`.
mod wait {
    pub(crate) use crate::bell::Bell;
}

/// Runs the model in a process of its own, since a failing model may abort, and expects it to fail.
fn is_caught(name: &str, model: fn()) {
    if std::env::var_os("RINGWAY_MUTANT").is_some() {
        return model();
    }
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env("RINGWAY_MUTANT", "1")
        .output()
        .unwrap();
    assert!(
        !output.status.success(),
        "the model does not notice the bug"
    );
}

macro_rules! mutants {
    ($($name:ident: $model:ident),* $(,)?) => {
        $(
            mod $name {
                pub(crate) mod algorithm {
                    include!(concat!(env!("OUT_DIR"), "/broadcast_", stringify!($name), ".rs"));
                }
                pub(crate) mod models {
                    include!("models/broadcast.rs");
                }
            }

            #[test]
            fn $name() {
                is_caught(stringify!($name), self::$name::models::$model)
            }
        )*
    };
}

mutants!(
    header_swap_is_relaxed: commit_and_wrap_parking,
    header_store_is_relaxed: commit_and_wrap_spinning,
    look_is_relaxed: commit_and_wrap_parking,
    let_go_swap_is_relaxed: commit_and_wrap_parking,
    let_go_store_is_relaxed: commit_and_wrap_spinning,
    head_is_relaxed: room_that_was_let_go_is_found,
    producer_looks_at_seats_relaxed: commit_and_wrap_parking,
    producer_looks_at_heads_relaxed: room_that_was_let_go_is_found,
    overwrites_without_a_fence: an_overrun_reader_never_takes_what_was_torn,
    moves_the_mark_too_late: an_overrun_reader_never_takes_what_was_torn,
    reader_looks_without_a_fence: an_overrun_reader_never_takes_what_was_torn,
    reader_trusts_what_it_read: an_overrun_reader_never_takes_what_was_torn,
    mark_is_moved_without_a_fence: an_overrun_reader_counts_what_it_missed,
    mark_is_read_without_a_fence: an_overrun_reader_counts_what_it_missed,
    mark_is_not_read_twice: an_overrun_reader_counts_what_it_missed,
    turn_is_relaxed: an_overrun_reader_counts_what_it_missed,
    newcomer_sits_down_without_a_fence: a_newcomer_gets_everything_from_where_it_sat_down,
    newcomer_does_not_look_again: a_newcomer_gets_everything_from_where_it_sat_down,
    producer_moves_without_a_fence: a_newcomer_gets_everything_from_where_it_sat_down,
    producer_does_not_look_at_seats_again: a_newcomer_gets_everything_from_where_it_sat_down,
    subscriber_ignores_the_sleeper: a_sleeping_producer_is_woken,
    leaver_ignores_the_sleeper: a_producer_that_sleeps_for_one_who_leaves_is_woken,
    leaver_frees_relaxed: a_producer_that_sleeps_for_one_who_leaves_is_woken,
    let_go_is_stored_plainly: a_sleeping_producer_is_woken,
    producer_announces_without_looking_again: a_sleeping_producer_is_woken,
    producer_announces_relaxed: a_sleeping_producer_is_woken,
    producer_ignores_the_bell: two_sleepers_are_woken_by_one_message,
    subscriber_announces_without_looking_again: two_sleepers_are_woken_by_one_message,
    no_zero_behind_the_last: commit_and_wrap_parking,
    keeps_one_line_back: commit_and_wrap_parking,
    reservation_keeps_the_frontier: nothing_of_an_aborted_or_cut_message_is_seen,
    cut_message_restores_the_frontier: nothing_of_an_aborted_or_cut_message_is_seen,
    successor_takes_a_line_to_be_zero: a_producer_that_died_in_a_reservation_is_succeeded,
    successor_forgets_the_sequence: a_producer_that_died_sending_is_succeeded,
    padding_before_its_record: commit_and_wrap_parking,
    batch_publishes_at_its_first: a_batch_is_seen_whole,
    batch_overwrites_itself: a_batch_does_not_overwrite_itself,
);
