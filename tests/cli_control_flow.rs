//! A pipeline through which messages flow is commanded in every way, over a FIFO and over a message
//! queue: nothing is lost, nothing doubled, and nothing left.
#![cfg(feature = "cli")]

mod common;

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use common::{Random, until, watchdog};
use ringway::channel::{Patience, mqueue};
use ringway::control::{Client, Command as Told, Over};

const RINGWAY: &str = env!("CARGO_BIN_EXE_ringway");
const MESSAGES: &str = "1000000";

/// A directory without permission for a FIFO, or without existence: the queue is what remains.
fn directory(over: Over) -> &'static str {
    match over {
        Over::Fifo => "/tmp",
        Over::Queue => "/nonexistent/directory",
    }
}

fn run(over: Over, name: &str, count: &str) -> Child {
    Command::new(RINGWAY)
        .env("RINGWAY_DIR", directory(over))
        .args(["run", "--name", name])
        .arg(format!("ringway gen --count {count}"))
        .args(["cat", "ringway sink --json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn ctl(over: Over, name: &str, command: &[&str]) -> Output {
    Command::new(RINGWAY)
        .env("RINGWAY_DIR", directory(over))
        .args(["ctl", name])
        .args(command)
        .output()
        .unwrap()
}

fn told(over: Over, name: &str, command: &[&str]) -> bool {
    ctl(over, name, command).status.success()
}

/// What the sink found: messages received, after checking that none was lost or doubled.
fn whole(child: Child) -> u64 {
    let output = child.wait_with_output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for wrong in ["lost", "doubled", "damaged"] {
        assert_eq!(report[wrong], 0, "{report}");
    }
    report["messages"].as_u64().unwrap()
}

fn assert_nothing_left(name: &str) {
    for entry in std::fs::read_dir("/tmp").unwrap() {
        let file = entry.unwrap().file_name();
        assert!(!file.to_string_lossy().contains(name), "{file:?} is left");
    }
    for queue in std::iter::once(format!("/ringway.{name}.ctl"))
        .chain((0..64).map(|n| format!("/ringway.{name}.ctl.{n}")))
    {
        assert!(mqueue::Receiver::attach(&queue).is_err(), "{queue} is left");
    }
}

fn a_million_messages(over: Over) {
    let _dog = watchdog(100);
    let name = format!("flow-{}-{over:?}", std::process::id()).to_lowercase();
    let child = run(over, &name, MESSAGES);
    until(|| told(over, &name, &["ping"]));
    for _ in 0..5 {
        // The last of them may find that the pipeline has run to its end.
        let _ = ctl(over, &name, &["pause"]);
        let _ = ctl(over, &name, &["stats"]);
        let _ = ctl(over, &name, &["resume"]);
    }
    assert_eq!(whole(child), MESSAGES.parse::<u64>().unwrap());
    assert_nothing_left(&name);
}

#[test]
fn a_million_messages_survive_pausing_and_resuming_over_a_fifo() {
    a_million_messages(Over::Fifo);
}

#[test]
fn a_million_messages_survive_pausing_and_resuming_over_a_queue() {
    a_million_messages(Over::Queue);
}

#[test]
fn a_drained_pipeline_has_delivered_all_it_took() {
    let _dog = watchdog(100);
    for over in [Over::Fifo, Over::Queue] {
        let name = format!("drain-{}-{over:?}", std::process::id()).to_lowercase();
        let child = run(over, &name, "1000000000");
        until(|| told(over, &name, &["ping"]));
        assert!(told(over, &name, &["pause"]));
        assert!(told(over, &name, &["resume"]));
        assert!(told(over, &name, &["drain"]));
        let taken = whole(child);
        assert!(taken > 0 && taken < 1_000_000_000);
        assert_nothing_left(&name);
    }
}

#[test]
fn a_stopped_pipeline_ends_also_while_it_is_paused() {
    let _dog = watchdog(100);
    for over in [Over::Fifo, Over::Queue] {
        let name = format!("stop-{}-{over:?}", std::process::id()).to_lowercase();
        let mut child = run(over, &name, "1000000000");
        until(|| told(over, &name, &["ping"]));
        assert!(told(over, &name, &["pause"]));
        assert!(told(over, &name, &["stop"]));
        child.wait().unwrap();
        assert_nothing_left(&name);
    }
}

/// Valid, broken and half commands, by several clients at once, some of which are killed.
#[test]
fn ten_thousand_random_inputs_leave_the_pipeline_running_and_whole() {
    let _dog = watchdog(200);
    let name = format!("storm-{}", std::process::id());
    let child = run(Over::Fifo, &name, "1000000000");
    until(|| told(Over::Fifo, &name, &["ping"]));
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let name = &name;
            scope.spawn(move || inputs(name, Random(seed + thread), 2500));
        }
    });
    assert!(told(Over::Fifo, &name, &["ping"]));
    assert!(told(Over::Fifo, &name, &["resume"]));
    assert!(told(Over::Fifo, &name, &["drain"]));
    assert!(whole(child) > 0);
    assert_nothing_left(&name);
}

fn inputs(name: &str, mut random: Random, count: u32) {
    let path = format!("/tmp/ringway.{name}.ctl");
    let mut raw = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    let valid = [
        "ping",
        "stats",
        "pause",
        "resume",
        "set quiet true",
        "restart nothing",
    ];
    for input in 0..count {
        let bytes = match random.below(6) {
            0 => format!("{}\n", valid[random.below(6) as usize]).into_bytes(),
            1 => valid[random.below(6) as usize].as_bytes()[..3].to_vec(),
            2 => (0..random.below(200))
                .map(|_| random.next() as u8)
                .collect(),
            3 => format!("@{} {} ping\n", random.below(70), random.below(99)).into_bytes(),
            4 => format!("\n{}\n", "x".repeat(random.below(4000) as usize)).into_bytes(),
            _ => b"set\n\nrestart\npause now please\n@@@ \n".to_vec(),
        };
        // Random bytes must not happen to end it: that would be no failure.
        if !["stop", "drain"]
            .iter()
            .any(|end| bytes.windows(end.len()).any(|w| w == end.as_bytes()))
        {
            raw.write_all(&bytes).unwrap();
        }
        if input % 100 == 0 {
            let mut client = Client::connect(name).unwrap();
            let patience = Patience::Within(Duration::from_secs(20));
            assert_eq!(client.request(&Told::Ping, patience).unwrap(), "pong");
        }
        if input % 500 == 0 {
            let mut killed = Command::new(RINGWAY)
                .args(["ctl", name, "stats"])
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            killed.kill().unwrap();
            killed.wait().unwrap();
        }
    }
}
