//! `ringway gen`, `map` and `sink`, in pipelines of the shell's and of our own.
#![cfg(feature = "cli")]

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

mod common;

use common::{until, watchdog};
use ringway::spsc::Ring;

const RINGWAY: &str = env!("CARGO_BIN_EXE_ringway");

/// Runs a script in which `$R` is the program.
fn shell(script: &str) -> Output {
    Command::new("sh")
        .args(["-c", script])
        .env("R", RINGWAY)
        .output()
        .unwrap()
}

fn run(args: &[&str]) -> Output {
    Command::new(RINGWAY)
        .arg("run")
        .args(args)
        .output()
        .unwrap()
}

fn report(output: &Output) -> serde_json::Value {
    let error = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}: {error}"))
}

#[test]
fn every_message_is_accounted_for_through_the_shells_pipes() {
    let _dog = watchdog(60);
    for size in [8, 23, 24, 64, 1000, 100_000] {
        let out = shell(&format!(
            "$R gen --count 3000 --size {size} | $R map | $R sink --json"
        ));
        assert!(out.status.success(), "{out:?}");
        let report = report(&out);
        assert_eq!(report["messages"], 3000);
        assert_eq!(report["announced"], 3000);
        assert_eq!(report["bytes"], 3000 * size);
        assert_eq!(report["checked"], true);
        assert_eq!(
            (&report["lost"], &report["doubled"], &report["damaged"]),
            (&0.into(), &0.into(), &0.into())
        );
        assert_eq!(
            report["latency_ns"]["samples"].as_u64().unwrap() > 0,
            size >= 24
        );
    }
}

#[test]
fn every_message_is_accounted_for_in_a_pipeline() {
    let _dog = watchdog(60);
    for middle in [
        &["ringway map"][..],
        &[],
        &["cat"],
        &["ringway map", "cat", "ringway map"],
    ] {
        let stages: Vec<&str> = ["ringway gen --count 20000"]
            .iter()
            .chain(middle)
            .chain(&["ringway sink --json"])
            .copied()
            .collect();
        let out = run(&stages);
        assert!(out.status.success(), "{stages:?}: {out:?}");
        let report = report(&out);
        assert_eq!(report["messages"], 20000, "{stages:?}");
        assert_eq!(report["lost"], 0, "{stages:?}");
        assert_eq!(report["damaged"], 0, "{stages:?}");
    }
}

#[test]
fn what_is_lost_doubled_or_damaged_is_found() {
    let _dog = watchdog(60);
    // Records of 68 bytes: length and message.
    let make = "$R gen --count 100 --size 64";
    let cases = [
        ("dd bs=68 skip=1 status=none", 1, 0, 0),
        ("{ cat; $R gen --count 1 --size 64; }", 0, 1, 0),
        (
            "{ head -c 700; printf x; head -c 1 >/dev/null; cat; }",
            0,
            0,
            1,
        ),
    ];
    for (harm, lost, doubled, damaged) in cases {
        let out = shell(
            &format!("{make} > $T; {{ {harm}; }} < $T | $R sink --json")
                .replace("$T", &temporary()),
        );
        let found = report(&out);
        assert_eq!(found["doubled"], doubled, "{harm}");
        assert_eq!(found["damaged"], damaged, "{harm}");
        // A damaged message cannot say which one it was, and so is lost too.
        assert_eq!(found["lost"], lost + damaged, "{harm}");
        assert_eq!(
            out.status.success(),
            lost + doubled + damaged == 0,
            "{harm}"
        );
    }
    std::fs::remove_file(temporary()).unwrap();
}

/// The records of `ringway gen --count 100`.
fn made() -> Vec<Vec<u8>> {
    let stream = shell("$R gen --count 100 --size 64").stdout;
    stream.chunks(68).map(<[u8]>::to_vec).collect()
}

/// What `ringway sink` says of these records, and whether it is content.
fn checked(records: &[Vec<u8>]) -> (serde_json::Value, bool) {
    let mut command = Command::new(RINGWAY);
    command.args(["sink", "--json"]);
    let mut sink = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = sink.stdin.take().unwrap();
    input.write_all(&records.concat()).unwrap();
    drop(input);
    let out = sink.wait_with_output().unwrap();
    (report(&out), out.status.success())
}

#[test]
fn a_stream_that_is_cut_off_altered_at_its_start_or_out_of_order_is_not_well() {
    let _dog = watchdog(60);
    let whole = made();
    assert!(checked(&whole).1);
    // Without its end, a stream is not known to be whole, however little is missing.
    for left in [99, 95, 0] {
        let (report, well) = checked(&whole[..left]);
        assert!(!well, "{report}");
        assert_eq!(report["announced"], serde_json::Value::Null);
    }
    let mut altered = whole.clone();
    altered[0][4] ^= 1;
    let (report, well) = checked(&altered);
    assert!(!well, "{report}");
    assert_eq!(
        (&report["checked"], &report["damaged"]),
        (&true.into(), &1.into())
    );
    let mut swapped = whole.clone();
    swapped.swap(3, 7);
    let (report, well) = checked(&swapped);
    assert!(!well, "{report}");
    assert_eq!(
        (&report["lost"], &report["out_of_order"]),
        (&0.into(), &4.into())
    );
}

fn temporary() -> String {
    let name = format!("ringway-test-{}", std::process::id());
    std::env::temp_dir().join(name).display().to_string()
}

#[test]
fn lines_of_a_file_are_messages() {
    let _dog = watchdog(60);
    let out = shell("seq 1 1000 | $R gen --from - | $R map --count 500 | $R sink");
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(
        text.starts_with("received   500 messages, 1.39 kB in "),
        "{text}"
    );
    assert!(text.contains("not checked"), "{text}");
    let missing = shell("$R gen --from /nonexistent");
    assert_eq!(missing.status.code(), Some(1));
    let line = String::from_utf8(missing.stderr).unwrap();
    assert!(line.starts_with("ringway: /nonexistent: "), "{line}");
}

#[test]
fn a_rate_is_kept_and_latencies_are_told() {
    let _dog = watchdog(60);
    let start = Instant::now();
    let out = shell("$R gen --count 2000 --rate 10000 | $R sink --json");
    // Message 1,999 is due 199.9 ms after the first.
    assert!(start.elapsed() > Duration::from_millis(199));
    let report = report(&out);
    assert_eq!(report["latency_ns"]["samples"], 2000);
}

#[test]
fn a_source_whose_reader_has_gone_ends_quietly() {
    let _dog = watchdog(60);
    let out = run(&["ringway gen", "head -c 100", "wc -c"]);
    assert_eq!(String::from_utf8_lossy(&out.stdout), "100\n");
    assert_eq!(out.status.code(), Some(141));
    assert_eq!(
        String::from_utf8_lossy(&out.stderr),
        "ringway: stage 1 (ringway gen): broken pipe: the next stage ended before it had read everything\n"
    );
}

/// The processes of a stage, as `ringway ctl NAME stats` has them.
fn processes(name: &str, stage: usize) -> Vec<String> {
    let out = Command::new(RINGWAY)
        .args(["ctl", name, "stats"])
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with(&format!("stage {stage} ")));
    line.and_then(|line| line.split_once("): process "))
        .map(|(_, pids)| {
            let pids = pids.split(", ").map(str::to_owned);
            pids.filter(|pid| pid.parse::<u32>().is_ok()).collect()
        })
        .unwrap_or_default()
}

/// Whether a process has received something from a ring that it has open.
fn has_received(pid: &str) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    descriptors.flatten().map(|entry| entry.path()).any(|path| {
        let is_ring = |link: PathBuf| link.to_string_lossy().starts_with("/memfd:ringway");
        let ring = || {
            let file = File::options().read(true).write(true).open(&path).ok()?;
            Ring::from_fd(file.into()).ok()
        };
        std::fs::read_link(&path).is_ok_and(is_ring)
            && ring().is_some_and(|ring| ring.stats().received > 0)
    })
}

#[test]
fn neighbours_that_speak_messages_are_joined_by_a_ring() {
    let _dog = watchdog(60);
    let name = format!("test-ring-{}", std::process::id());
    let child = Command::new(RINGWAY)
        .args([
            "run",
            "--name",
            &name,
            "ringway gen",
            "ringway map",
            "ringway sink --json",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // A sink that is told to stop before anything has come fails.
    until(|| processes(&name, 3).iter().any(|sink| has_received(sink)));
    signal(child.id(), "TERM");
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(143));
    let report = report(&out);
    assert_eq!(report["lost"], 0);
    assert_eq!(report["announced"], report["messages"]);
}

#[test]
fn several_workers_take_each_message_once() {
    let _dog = watchdog(60);
    let out = run(&[
        "ringway gen --count 50000",
        "-j3",
        "ringway map",
        "-j2",
        "ringway map",
        "ringway sink --json",
    ]);
    assert!(out.status.success(), "{out:?}");
    let report = report(&out);
    assert_eq!(report["messages"], 50000);
    assert_eq!(
        (&report["lost"], &report["doubled"]),
        (&0.into(), &0.into())
    );
}

#[test]
fn rings_are_made_for_messages_as_long_as_told() {
    let _dog = watchdog(60);
    let source = "ringway gen --count 200 --size 100000";
    let stages = [
        "--longest-message",
        "100K",
        source,
        "-j2",
        "ringway map",
        "ringway sink --json",
    ];
    let out = run(&stages);
    assert!(out.status.success(), "{out:?}");
    assert_eq!(report(&out)["bytes"], 20_000_000);
    let out = run(&stages[2..]);
    let line = String::from_utf8_lossy(&out.stderr);
    assert!(line.contains("larger than the maximum of"), "{line}");
    assert!(!out.status.success());
}

#[test]
fn workers_between_plain_programs_find_a_message_in_each_line() {
    let _dog = watchdog(60);
    let stages = [
        "seq 1 50000",
        "-j3",
        "--block",
        "16K",
        "-k",
        "ringway map",
        "md5sum",
    ];
    assert_eq!(run(&stages).stdout, shell("seq 1 50000 | md5sum").stdout);
    let out = run(&["seq 1 50000", "-j3", "cat", "ringway sink --json"]);
    assert_eq!(report(&out)["messages"], 50000);
}

#[test]
fn a_killed_workers_messages_go_to_its_successor() {
    kill_five_times(2);
}

#[test]
fn a_killed_stages_messages_go_to_its_successor() {
    kill_five_times(1);
}

fn kill_five_times(workers: usize) {
    let _dog = watchdog(60);
    let name = format!("test-kill-{workers}-{}", std::process::id());
    let jobs = format!("-j{workers}");
    let jobs = if workers > 1 { &jobs } else { "--keep-order" };
    let child = Command::new(RINGWAY)
        .args([
            "run",
            "--name",
            &name,
            "--restart=100",
            "ringway gen",
            jobs,
            "ringway map",
            "ringway sink --json",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut victims = Vec::new();
    while victims.len() < 5 {
        until(|| processes(&name, 2).len() == workers);
        let victim = processes(&name, 2)
            .into_iter()
            .find(|pid| !victims.contains(pid))
            .unwrap();
        signal(victim.parse().unwrap(), "KILL");
        until(|| !processes(&name, 2).contains(&victim));
        victims.push(victim);
    }
    // One more is replaced on demand.
    let restarted = Command::new(RINGWAY)
        .args(["ctl", &name, "restart", "2"])
        .output()
        .unwrap();
    assert!(restarted.status.success(), "{restarted:?}");
    until(|| processes(&name, 2).len() == workers);
    signal(child.id(), "TERM");
    let out = child.wait_with_output().unwrap();
    let report = report(&out);
    assert_eq!(
        (&report["lost"], &report["damaged"]),
        (&0.into(), &0.into()),
        "{report}"
    );
    // A worker may have been killed between passing a message on and letting go of it.
    assert!(report["doubled"].as_u64().unwrap() <= 7, "{report}");
    let line = String::from_utf8(out.stderr).unwrap();
    assert!(line.matches("takes its place").count() >= 5, "{line}");
}

#[test]
fn a_killed_stage_is_named_and_the_others_end() {
    let _dog = watchdog(60);
    let name = format!("test-dead-{}", std::process::id());
    let child = Command::new(RINGWAY)
        .args([
            "run",
            "--name",
            &name,
            "ringway gen",
            "ringway map",
            "ringway sink --json",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until(|| processes(&name, 2).len() == 1);
    signal(processes(&name, 2)[0].parse().unwrap(), "KILL");
    let out = child.wait_with_output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&out.stderr),
        "ringway: stage 2 (ringway map): killed by SIGKILL (stages 1 and 3 failed too)\n"
    );
    // As with `pipefail`, the last failure is told: the sink misses the end.
    assert_eq!(out.status.code(), Some(1));
    assert_eq!(report(&out)["lost"], 0);
}

fn signal(pid: u32, name: &str) {
    Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status()
        .unwrap();
}
