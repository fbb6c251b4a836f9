//! The models can fail: each bug seeded into the MPMC algorithm (see `build.rs`) is found by one.
#![allow(dead_code, unused, missing_docs, unreachable_pub, clippy::all)] // of mutants

#[path = "../src/harness.rs"]
mod harness;
#[path = "../src/primitive.rs"]
mod primitive;

crate::mutants!("mpmc", "mpmc";
    loser_keeps_its_intent: a_living_loser_does_not_hide_a_dead_winner,
    poisons_what_nobody_claimed: an_intent_without_a_claim_poisons_nothing,
    joiner_clears_without_settling: two_joiners_do_not_forget_a_slot_between_them,
    adopts_without_an_arbiter: one_of_two_adopters_gets_the_message,
    adoption_without_rounds: a_dead_adopters_message_is_adopted_once,
    joiner_forgets_what_it_adopted: a_dead_adopters_message_is_adopted_once,
    joiner_forgets_messages_of_the_dead: a_record_taken_over_keeps_the_names_of_the_dead,
    robs_the_living: the_living_are_not_robbed,
    closed_is_not_part_of_the_tail: closing_loses_nothing_that_was_sent,
    commit_is_relaxed: two_producers_one_consumer,
    release_is_relaxed: two_producers_one_consumer,
    claim_does_not_publish_the_intent: an_intent_without_a_claim_poisons_nothing,
    head_moves_after_the_slot_is_freed: aborted_slots_are_stepped_over,
    batches_forget_the_readers: batches_over_slots_that_a_reader_holds,
    batches_ask_relaxed: batches_over_slots_that_a_reader_holds,
    nobody_frees_what_was_stepped_over: a_batch_over_a_slot_that_nobody_freed,
);
