//! Who sits in a participant's record, under loom: attaching, detaching, dying, and taking a dead one's place;
//! and the same with a bug seeded in each.
#![allow(dead_code, unused, missing_docs, unreachable_pub, clippy::all)] // of mutants

#[path = "../src/primitive.rs"]
mod primitive;

#[path = "../../src/ring/seat.rs"]
mod algorithm;
#[path = "models/membership.rs"]
mod models;

macro_rules! models {
    ($($name:ident),* $(,)?) => { $(#[test] fn $name() { models::$name() })* };
}

models!(
    one_at_a_time_sits_there,
    the_living_are_not_taken_for_dead,
    of_one_who_left_all_is_seen,
    a_joiner_that_died_is_succeeded,
);

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
                    include!(concat!(env!("OUT_DIR"), "/seat_", stringify!($name), ".rs"));
                }
                pub(crate) mod models {
                    include!("models/membership.rs");
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
    takes_the_word_it_saw_first: the_living_are_not_taken_for_dead,
    sits_down_with_the_same_token: one_at_a_time_sits_there,
    forgets_to_take_the_word_back: of_one_who_left_all_is_seen,
);
