//! A pipeline through which messages flow is commanded in every way, over a FIFO and over a message
//! queue: nothing is lost, nothing doubled, and nothing left.
#![cfg(feature = "cli")]

mod common;

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::{Random, Reaped, until, watchdog};
use ringway::channel::{Patience, mqueue};
use ringway::control::{Client, Command as Told, Over};

const RINGWAY: &str = env!("CARGO_BIN_EXE_ringway");
const MESSAGES: u64 = 1_000_000;

/// A directory without permission for a FIFO, or without existence: the queue is what remains.
fn directory(over: Over) -> &'static str {
    match over {
        Over::Fifo => "/tmp",
        Over::Queue => "/nonexistent/directory",
    }
}

/// Killed with all its stages if the test fails.
fn run(over: Over, name: &str, count: &str) -> Reaped {
    let child = Command::new(RINGWAY)
        .env("RINGWAY_DIR", directory(over))
        .args(["run", "--name", name])
        .arg(format!("ringway gen --count {count}"))
        .args(["cat", "ringway sink --json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    Reaped(child.unwrap())
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
fn whole(mut child: Reaped) -> u64 {
    let stdout = child.0.stdout.take().unwrap();
    let report: serde_json::Value = serde_json::from_reader(stdout).unwrap();
    child.0.wait().unwrap();
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

/// The processes of the pipeline's stages, in order, from its statistics.
fn processes(over: Over, name: &str) -> Vec<u32> {
    let stats = ctl(over, name, &["stats"]);
    let stats = String::from_utf8(stats.stdout).unwrap();
    let pid = |line: &str| line.rsplit_once("process ")?.1.trim().parse().ok();
    stats.lines().filter_map(pid).collect()
}

/// How many bytes a process has read so far.
fn has_read(process: u32) -> u64 {
    let io = std::fs::read_to_string(format!("/proc/{process}/io")).unwrap();
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.unwrap().parse().unwrap()
}

fn is_stopped(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.starts_with('T')
}

/// Paused and resumed again and again until a million messages have passed, then drained.
fn a_million_messages(over: Over) {
    let _dog = watchdog(200);
    let name = format!("flow-{}-{over:?}", std::process::id()).to_lowercase();
    let child = run(over, &name, "1000000000");
    until(|| told(over, &name, &["ping"]));
    let stages = processes(over, &name);
    assert_eq!(stages.len(), 3);
    // A record is 68 bytes, and `cat` in the middle passes on every one of them.
    let all = has_read(stages[1]) + 68 * MESSAGES;
    let mut pauses = 0;
    while has_read(stages[1]) < all {
        assert!(told(over, &name, &["pause"]));
        // The signal to stop is sent; each process does when it next comes by.
        until(|| stages.iter().all(|stage| is_stopped(*stage)));
        let before = has_read(stages[1]);
        assert!(told(over, &name, &["stats"]));
        assert_eq!(has_read(stages[1]), before, "messages pass in a pause");
        assert!(told(over, &name, &["resume"]));
        pauses += 1;
    }
    assert!(told(over, &name, &["drain"]));
    let passed = whole(child);
    println!("{over:?}: {passed} messages, {pauses} pauses, none lost or doubled");
    assert!(pauses > 0 && passed >= MESSAGES, "{passed}");
    assert_nothing_left(&name);
}

#[test]
fn a_million_messages_survive_pausing_resuming_and_draining_over_a_fifo() {
    a_million_messages(Over::Fifo);
}

#[test]
fn a_million_messages_survive_pausing_resuming_and_draining_over_a_queue() {
    a_million_messages(Over::Queue);
}

/// What a stopped pipeline has let through by then is a beginning of what was sent: no line is missing in
/// it, none is there twice.
#[test]
fn a_stopped_pipeline_has_delivered_a_beginning_and_ends_also_while_it_is_paused() {
    let _dog = watchdog(100);
    for (over, paused) in [
        (Over::Fifo, false),
        (Over::Fifo, true),
        (Over::Queue, false),
        (Over::Queue, true),
    ] {
        let name = format!("stop-{}-{over:?}", std::process::id()).to_lowercase();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("arrived");
        let mut child = Reaped(
            Command::new(RINGWAY)
                .env("RINGWAY_DIR", directory(over))
                .args(["run", "--name", &name, "seq 1 100000000", "cat"])
                .stdout(std::fs::File::create(&file).unwrap())
                .spawn()
                .unwrap(),
        );
        let arrived = || std::fs::metadata(&file).unwrap().len();
        // A million lines are 6.9 MB.
        until(|| arrived() > 7_000_000);
        if paused {
            assert!(told(over, &name, &["pause"]));
        }
        assert!(told(over, &name, &["stop"]));
        assert!(child.0.wait().unwrap().success());
        let text = std::fs::read_to_string(&file).unwrap();
        let (whole, _cut) = text.rsplit_once('\n').unwrap();
        let mut expected = 1_u64;
        for line in whole.lines() {
            assert_eq!(line.parse(), Ok(expected));
            expected += 1;
        }
        assert!(expected > 1_000_000);
        assert_nothing_left(&name);
    }
}

/// Commands without end keep nobody from being heard, and the pipeline goes on.
#[test]
fn a_flood_of_commands_keeps_neither_the_pipeline_nor_a_stop_waiting() {
    let _dog = watchdog(100);
    for over in [Over::Fifo, Over::Queue] {
        let name = format!("flood-{}-{over:?}", std::process::id()).to_lowercase();
        let child = run(over, &name, "1000000000");
        until(|| told(over, &name, &["ping"]));
        let stages = processes(over, &name);
        let done = AtomicBool::new(false);
        let flooded = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let mut raw = Raw::open(over, &name);
                let (done, flooded) = (&done, &flooded);
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) && raw.put(b"stats\n") {
                        flooded.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            until(|| flooded.load(Ordering::Relaxed) > 20_000);
            let answer = ctl(over, &name, &["ping"]);
            assert!(answer.status.success(), "{over:?}: {answer:?}");
            let before = has_read(stages[1]);
            until(|| has_read(stages[1]) > before);
            // The end of a stage is seen as well: the others come to theirs.
            assert!(told(over, &name, &["drain"]));
            assert!(whole(child) > 0);
            done.store(true, Ordering::Relaxed);
        });
        println!("{over:?}: {flooded:?} commands");
        assert_nothing_left(&name);
    }
}

/// Valid, broken and half commands, by several clients at once, some of which are killed.
fn ten_thousand_random_inputs(over: Over) {
    let _dog = watchdog(200);
    let name = format!("storm-{}-{over:?}", std::process::id()).to_lowercase();
    let child = run(over, &name, "1000000000");
    until(|| told(over, &name, &["ping"]));
    let seed = u64::from(std::process::id());
    let counts: [AtomicU64; KINDS.len()] = Default::default();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (name, counts) = (&name, &counts);
            scope.spawn(move || inputs(over, name, Random(seed + thread), 2500, counts));
        }
    });
    assert!(told(over, &name, &["ping"]));
    assert!(told(over, &name, &["resume"]));
    let stage = processes(over, &name)[1];
    let before = has_read(stage);
    until(|| has_read(stage) > before);
    assert!(told(over, &name, &["drain"]));
    let passed = whole(child);
    let counts: Vec<_> = std::iter::zip(KINDS, &counts)
        .map(|(kind, count)| format!("{kind} {}", count.load(Ordering::Relaxed)))
        .collect();
    println!(
        "{over:?}, seed {seed}: {}; {passed} messages",
        counts.join(", ")
    );
    assert!(passed > 0);
    assert_nothing_left(&name);
}

#[test]
fn ten_thousand_random_inputs_over_a_fifo_leave_the_pipeline_running_and_whole() {
    ten_thousand_random_inputs(Over::Fifo);
}

#[test]
fn ten_thousand_random_inputs_over_a_queue_leave_the_pipeline_running_and_whole() {
    ten_thousand_random_inputs(Over::Queue);
}

/// What is put in, beside clients that wait for answers, and clients that are killed.
const KINDS: [&str; 8] = [
    "valid", "half", "random", "answered", "long", "broken", "asked", "killed",
];

/// A client that writes whatever it likes.
enum Raw {
    Fifo(std::fs::File),
    Queue(mqueue::Sender),
}

impl Raw {
    fn open(over: Over, name: &str) -> Raw {
        match over {
            Over::Fifo => {
                let path = format!("/tmp/ringway.{name}.ctl");
                Raw::Fifo(std::fs::OpenOptions::new().write(true).open(path).unwrap())
            }
            Over::Queue => {
                let queue = format!("/ringway.{name}.ctl");
                Raw::Queue(mqueue::Sender::attach(&queue).unwrap())
            }
        }
    }

    /// False once there is nobody to read it.
    fn put(&mut self, bytes: &[u8]) -> bool {
        match self {
            Raw::Fifo(file) => file.write_all(bytes).is_ok(),
            // The server holds a lock where a channel's receiver does not; a time-out serves as well.
            Raw::Queue(queue) => queue.send_priority(bytes, 0, PATIENCE).is_ok(),
        }
    }
}

const PATIENCE: Patience = Patience::Within(Duration::from_secs(5));

fn inputs(over: Over, name: &str, mut random: Random, count: u32, counts: &[AtomicU64; 8]) {
    let mut raw = Raw::open(over, name);
    let valid = [
        "ping",
        "stats",
        "pause",
        "resume",
        "set quiet true",
        "restart nothing",
    ];
    let note = |kind: usize| {
        counts[kind].fetch_add(1, Ordering::Relaxed);
    };
    for input in 0..count {
        let kind = random.below(6) as usize;
        let bytes = match kind {
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
            assert!(raw.put(&bytes), "nobody reads");
            note(kind);
        }
        if input % 100 == 0 {
            // Whichever it listens on is found.
            let mut client = Client::connect(name).unwrap();
            let patience = Patience::Within(Duration::from_secs(20));
            assert_eq!(client.request(&Told::Ping, patience).unwrap(), "pong");
            note(6);
        }
        if input % 500 == 0 {
            let mut killed = Command::new(RINGWAY)
                .env("RINGWAY_DIR", directory(over))
                .args(["ctl", name, "stats"])
                .stdout(Stdio::null())
                .spawn()
                .unwrap();
            killed.kill().unwrap();
            killed.wait().unwrap();
            note(7);
        }
    }
}
