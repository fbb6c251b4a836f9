//! The MPMC ring under loom: the very file that runs in shared memory.
#![allow(dead_code, unused_imports, missing_docs, unreachable_pub)]

#[path = "../src/harness.rs"]
mod harness;
#[path = "../src/primitive.rs"]
mod primitive;

#[path = "../../src/ring/mpmc.rs"]
mod algorithm;
#[path = "models/mpmc.rs"]
mod models;

crate::models!(
    two_producers_one_consumer,
    one_producer_two_consumers,
    batches,
    batches_over_slots_that_a_reader_holds,
    a_batch_over_a_slot_that_nobody_freed,
    a_living_loser_does_not_hide_a_dead_winner,
    an_intent_without_a_claim_poisons_nothing,
    two_joiners_do_not_forget_a_slot_between_them,
    repair_by_a_consumer_and_a_joiner,
    repair_by_two,
    the_living_are_not_robbed,
    one_of_two_adopters_gets_the_message,
    a_dead_adopters_message_is_adopted_once,
    a_record_taken_over_keeps_the_names_of_the_dead,
    dropped_messages_free_their_slot_once,
    a_batch_cut_short_by_death,
    closing_loses_nothing_that_was_sent,
    aborted_slots_are_stepped_over,
    what_the_dead_wrote_is_over_before_its_slot_is_used,
    what_was_given_up_is_over_before_its_slot_is_used,
    what_was_given_up_is_over_before_a_batch_uses_its_slot,
    an_intent_without_a_claim_gives_nothing_away,
    an_orphan_is_found_at_every_moment,
    two_joiners_do_not_forget_an_adopted_message,
    the_length_is_never_nothing_while_something_is_there,
);
