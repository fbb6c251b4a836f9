//! `ringway run --tee`: a stage whose output goes to several.
#![cfg(feature = "cli")]

use std::process::{Command, Output};

mod common;

use common::watchdog;

fn run(args: &[&str]) -> Output {
    let ringway = env!("CARGO_BIN_EXE_ringway");
    Command::new(ringway)
        .arg("run")
        .args(args)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_branch_and_the_next_stage_get_everything() {
    let _dog = watchdog(60);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("copy");
    let copy = format!("cat > {}", file.display());
    let out = run(&["seq 200000", "--tee", &copy, "--tee", "wc -l", "tail -1"]);
    assert!(out.status.success(), "{out:?}");
    assert_eq!(text(&out.stdout), "200000\n");
    assert_eq!(text(&out.stderr).trim(), "200000");
    let expected: String = (1..=200_000).map(|i| format!("{i}\n")).collect();
    assert_eq!(std::fs::read_to_string(file).unwrap(), expected);
}

#[test]
fn messages_reach_all_who_speak_them() {
    let _dog = watchdog(60);
    let generate = "ringway gen --count 20000 --size 100";
    let out = run(&[
        generate,
        "--tee",
        "ringway sink --json",
        "ringway sink --json",
    ]);
    assert!(out.status.success(), "{out:?}");
    for said in [&out.stdout, &out.stderr] {
        let report: serde_json::Value = serde_json::from_slice(said).unwrap();
        assert_eq!(report["messages"], 20_000);
    }
}

#[test]
fn one_that_has_had_enough_is_left_out() {
    let _dog = watchdog(60);
    let out = run(&["seq 300000", "--tee", "head -1", "tail -1"]);
    assert_eq!(text(&out.stdout), "300000\n");
    assert_eq!(text(&out.stderr), "1\n");
    assert!(out.status.success(), "{out:?}");
    let out = run(&["seq 300000", "--tee", "tail -1", "head -1"]);
    assert_eq!(text(&out.stdout), "1\n");
    assert!(text(&out.stderr).starts_with("300000\n"), "{out:?}");
}

#[test]
fn the_failure_of_a_branch_is_that_of_the_pipeline() {
    let _dog = watchdog(60);
    let out = run(&[
        "seq 10",
        "--tee",
        "sh -c 'cat >/dev/null; exit 7'",
        "tail -1",
    ]);
    assert_eq!(text(&out.stdout), "10\n");
    assert_eq!(out.status.code(), Some(7), "{out:?}");
    let out = run(&["seq 10", "--tee", "no-such-program-at-all", "tail -1"]);
    assert_eq!(out.status.code(), Some(127), "{out:?}");
}

#[test]
fn a_tee_that_stands_nowhere_is_refused_with_where_to_put_it() {
    let _dog = watchdog(60);
    for args in [&["seq 1", "--tee", "wc -l"][..], &["--tee", "wc -l", "cat"]] {
        let out = run(args);
        assert_eq!(out.status.code(), Some(2));
        assert!(text(&out.stderr).contains("between two stages"), "{out:?}");
    }
}
