//! A running pipeline commanded from outside, and messages moved by `ringway send` and `recv`.
#![cfg(feature = "cli")]

use std::process::{Command, Output, Stdio};

mod common;

use common::{until, watchdog};

const RINGWAY: &str = env!("CARGO_BIN_EXE_ringway");

fn ctl(name: &str, command: &[&str]) -> Output {
    Command::new(RINGWAY)
        .args(["ctl", name])
        .args(command)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8(text).unwrap()
}

#[test]
fn messages_survive_pausing_resuming_and_draining() {
    let _dog = watchdog(60);
    let name = format!("test-drain-{}", std::process::id());
    let child = Command::new(RINGWAY)
        .args([
            "run",
            "--name",
            &name,
            "ringway gen",
            "cat",
            "ringway map",
            "ringway sink --json",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until(|| said(&ctl(&name, &["ping"])) == "pong\n");
    for _ in 0..5 {
        assert_eq!(said(&ctl(&name, &["pause"])), "pause: done\n");
        assert!(said(&ctl(&name, &["stats"])).contains("stage 2 (cat): process "));
        assert_eq!(said(&ctl(&name, &["resume"])), "resume: done\n");
    }
    assert!(said(&ctl(&name, &["restart", "2"])).contains("would be lost"));
    assert!(said(&ctl(&name, &["restart", "nothing"])).contains("no such stage"));
    assert!(said(&ctl(&name, &["set", "speed", "11"])).contains("no such setting"));
    assert_eq!(said(&ctl(&name, &["drain"])), "drain: done\n");
    let out = child.wait_with_output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(report["messages"].as_u64().unwrap() > 0);
    assert_eq!(
        (&report["lost"], &report["doubled"], &report["damaged"]),
        (&0.into(), &0.into(), &0.into())
    );
}

#[test]
fn a_command_to_stop_kills_what_does_not_heed_it() {
    let _dog = watchdog(60);
    let name = format!("test-stop-{}", std::process::id());
    let mut child = Command::new(RINGWAY)
        .args([
            "run",
            "--name",
            &name,
            "trap '' TERM; while :; do sleep 1; done",
            "cat",
        ])
        .spawn()
        .unwrap();
    until(|| said(&ctl(&name, &["ping"])) == "pong\n");
    assert_eq!(
        said(&ctl(&name, &["set", "grace", "0.1"])),
        "set grace 0.1: done\n"
    );
    assert_eq!(said(&ctl(&name, &["stop"])), "stop: done\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn lines_records_and_bytes_are_moved_through_an_endpoint() {
    let _dog = watchdog(60);
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    for (format, make) in [
        ("lines", "seq 1 20000"),
        ("records", "$R gen --count 5000 --size 100"),
        ("raw", "head -c 3000000 /dev/urandom"),
    ] {
        let script = format!("{make} > {}", source.display());
        assert!(
            Command::new("sh")
                .args(["-c", &script])
                .env("R", RINGWAY)
                .status()
                .unwrap()
                .success()
        );
        let endpoint = format!("unix:{}", dir.path().join("socket").display());
        let arrived = dir.path().join("arrived");
        let mut receiver = Command::new(RINGWAY)
            .args(["recv", "--as", format, &endpoint])
            .stdout(std::fs::File::create(&arrived).unwrap())
            .spawn()
            .unwrap();
        let sender = Command::new(RINGWAY)
            .args(["send", "--verbose", "--as", format, &endpoint])
            .stdin(std::fs::File::open(&source).unwrap())
            .output()
            .unwrap();
        assert_eq!(said(&sender), format!("ringway: sending to {endpoint}\n"));
        assert!(receiver.wait().unwrap().success());
        let arrived = std::fs::read(&arrived).unwrap();
        let sent = std::fs::read(&source).unwrap();
        assert_eq!(arrived.len(), sent.len(), "{format}");
        assert!(arrived == sent, "{format}");
    }
}
