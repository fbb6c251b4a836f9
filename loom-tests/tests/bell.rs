//! The bell under loom: no wake-up is lost, with any number of sleepers and notifiers; and without
//! either of its fences one is.
#![allow(dead_code, unused_imports, missing_docs, unreachable_pub, clippy::all)] // of mutants

#[path = "../src/primitive.rs"]
mod primitive;

#[path = "../../src/wait/bell.rs"]
mod algorithm;
#[path = "models/bell.rs"]
mod models;
/// The same source without its fences.
mod unfenced {
    pub(crate) mod algorithm {
        include!(concat!(env!("OUT_DIR"), "/bell_without_fences.rs"));
    }
    pub(crate) mod models {
        include!("models/bell.rs");
    }
}

#[test]
fn a_sleeper_is_always_woken() {
    models::a_sleeper_is_always_woken();
}

#[test]
fn a_sleeper_is_woken_after_an_exchange() {
    models::a_sleeper_is_woken_after_an_exchange();
}

#[test]
fn a_sleeper_that_demands_fences_is_woken() {
    models::a_sleeper_that_demands_fences_is_woken();
}

#[test]
fn two_messages_wake_two_sleepers() {
    models::two_messages_wake_two_sleepers();
}

#[test]
fn without_the_fences_a_wake_up_is_lost() {
    if std::env::var_os("RINGWAY_MUTANT").is_some() {
        return unfenced::models::a_sleeper_is_always_woken();
    }
    // In a process of its own: a deadlock found by loom ends the process.
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "without_the_fences_a_wake_up_is_lost",
            "--nocapture",
        ])
        .env("RINGWAY_MUTANT", "1")
        .output()
        .unwrap();
    assert!(
        !output.status.success(),
        "the model does not notice the missing fences"
    );
    let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(said.contains("deadlock"), "{said}");
}
