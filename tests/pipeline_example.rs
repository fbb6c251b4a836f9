//! The example of a pipeline, and what its executable tells of itself.

use std::path::PathBuf;
use std::process::Command;

mod common;

use common::watchdog;

/// The example, built with what these tests were built with. (A plain `cargo test` has built it
/// already, and this finds nothing to do; `cargo test --test pipeline_example` has not.)
fn example() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["build", "--quiet", "--example", "pipeline"]);
    if cfg!(feature = "cli") {
        cargo.args(["--features", "cli"]);
    }
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    assert!(cargo.status().unwrap().success());
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("examples/pipeline")
}

#[test]
fn the_example_computes_its_sum_through_rings_and_through_pipes() {
    let _dog = watchdog(60);
    let sum = (1..=100_000u64).map(|number| number * number).sum::<u64>();
    let line = format!("the sum of the first 100000 squares is {sum}\n");
    let example = example();
    let out = Command::new(&example).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    assert_eq!(String::from_utf8_lossy(&out.stdout), line);
    let script = "$E numbers | $E squares | $E sum";
    let out = Command::new("sh")
        .args(["-c", script])
        .env("E", &example)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), line);
}
