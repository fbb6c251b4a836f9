//! The example of a pipeline, and what its executable tells of itself.

use std::path::PathBuf;
use std::process::Command;

mod common;

use common::watchdog;

/// Cargo builds the examples along with the tests, next to them.
fn example() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples/pipeline")
}

#[test]
fn the_example_computes_its_sum_through_rings_and_through_pipes() {
    let _dog = watchdog(60);
    let sum = (1..=100_000u64).map(|number| number * number).sum::<u64>();
    let line = format!("the sum of the first 100000 squares is {sum}\n");
    let out = Command::new(example()).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    assert_eq!(String::from_utf8_lossy(&out.stdout), line);
    let script = "$E numbers | $E squares | $E sum";
    let out = Command::new("sh")
        .args(["-c", script])
        .env("E", example())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), line);
}
