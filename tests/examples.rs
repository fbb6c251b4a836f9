//! The examples do what they say, as processes of their own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

mod common;

use common::{Reaped, watchdog};

/// An example, built beside the tests: `cargo test` builds all of them. (With `--test examples` it
/// does not, and then they are built here.)
fn example(name: &str) -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["build", "--quiet", "--example", name]);
    for (feature, on) in [
        ("cli", cfg!(feature = "cli")),
        ("tokio", cfg!(feature = "tokio")),
    ] {
        if on {
            cargo.args(["--features", feature]);
        }
    }
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    assert!(cargo.status().expect("cargo runs").success());
    let test = std::env::current_exe().expect("own path");
    let built = test.ancestors().nth(2).expect("target directory");
    built.join("examples").join(name)
}

fn stdout(out: &Output) -> String {
    assert!(out.status.success(), "{out:?}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn ring_file(name: &str) -> PathBuf {
    Path::new("/dev/shm").join(format!("ringway.{name}"))
}

#[test]
fn parent_and_child_pass_every_number() {
    let _dog = watchdog(120);
    let out = Command::new(example("parent_and_child")).output().unwrap();
    let sum = (1..=100_000u64).sum::<u64>();
    assert_eq!(stdout(&out), format!("the numbers add up to {sum}\n"));
}

#[test]
fn market_data_reaches_the_quick_the_slow_the_late_and_those_who_look_on() {
    let _dog = watchdog(120);
    let out = Command::new(example("market_data")).output().unwrap();
    let said = stdout(&out);
    let mut said: Vec<_> = said.lines().collect();
    said.sort_unstable();
    let expected = [
        "late: began with the last ten",
        "looking on: every price accounted for",
        "quick: every price accounted for",
        "slow: missed some",
    ];
    assert_eq!(said, expected);
}

#[test]
fn zero_copy_frames_arrive_whole_and_so_does_what_was_sent_shorter_than_reserved() {
    let _dog = watchdog(120);
    let out = Command::new(example("zero_copy")).output().unwrap();
    assert_eq!(stdout(&out), "100 frames, then \"end\"\n");
}

#[test]
fn serde_writes_into_the_ring_and_reads_from_it() {
    let _dog = watchdog(120);
    let out = Command::new(example("serde")).output().unwrap();
    let events = [
        r#"20 bytes: Login { user: "ada", groups: ["staff", "engines"] }"#,
        "14 bytes: Measured([0.5, 1.5, 2.5])",
        "1 bytes: Logout",
    ];
    assert_eq!(stdout(&out), events.join("\n") + "\n");
}

#[cfg(feature = "tokio")]
#[test]
fn a_task_waits_for_two_rings_and_a_timer() {
    let _dog = watchdog(120);
    let out = Command::new(example("async_tokio")).output().unwrap();
    assert_eq!(stdout(&out), "1000 orders, a volume of 1000\n");
}

#[test]
fn two_programs_meet_by_name_in_either_order_and_leave_nothing_behind() {
    let _dog = watchdog(120);
    let program = example("two_programs");
    for receiver_first in [true, false] {
        let name = format!("test-two-programs-{}-{receiver_first}", std::process::id());
        let start = |what: &str| {
            let mut command = Command::new(&program);
            command.args([what, &name]).stdout(Stdio::piped());
            command
        };
        let receiver = || Reaped(start("recv").spawn().unwrap());
        let early = receiver_first.then(receiver);
        let mut sender = Reaped(start("send").stdin(Stdio::piped()).spawn().unwrap());
        let mut input = sender.0.stdin.take().unwrap();
        input.write_all(b"buy 100\nsell 30\n").unwrap();
        if !receiver_first {
            // The sender has created the ring by the time its name is there.
            common::until(|| ring_file(&name).exists());
        }
        let mut receiver = early.unwrap_or_else(receiver);
        drop(input);
        assert!(sender.0.wait().unwrap().success());
        let mut text = String::new();
        let mut out = receiver.0.stdout.take().unwrap();
        std::io::Read::read_to_string(&mut out, &mut text).unwrap();
        assert!(receiver.0.wait().unwrap().success());
        assert_eq!(text, "buy 100\nsell 30\n");
        assert!(!ring_file(&name).exists());
    }
}

#[test]
fn a_receiver_outlives_a_sender_that_is_killed_and_goes_on_with_the_next() {
    let _dog = watchdog(120);
    let program = example("two_programs");
    let name = format!("test-two-programs-{}-killed", std::process::id());
    let mut receiver = Reaped(
        Command::new(&program)
            .args(["recv", &name])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut out = std::io::BufReader::new(receiver.0.stdout.take().unwrap());
    let mut complaints = std::io::BufReader::new(receiver.0.stderr.take().unwrap());
    let line = |from: &mut dyn std::io::BufRead| {
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        line
    };
    let send = || {
        Command::new(&program)
            .args(["send", &name])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut first = Reaped(send());
    let mut input = first.0.stdin.take().unwrap();
    input.write_all(b"from the first\n").unwrap();
    assert_eq!(line(&mut out), "from the first\n");
    first.0.kill().unwrap();
    first.0.wait().unwrap();
    assert_eq!(
        line(&mut complaints),
        "the sender died; waiting for another\n"
    );
    let mut second = Reaped(send());
    let mut input = second.0.stdin.take().unwrap();
    input.write_all(b"from the second\n").unwrap();
    drop(input);
    assert_eq!(line(&mut out), "from the second\n");
    assert!(second.0.wait().unwrap().success());
    assert!(receiver.0.wait().unwrap().success());
    assert!(!ring_file(&name).exists());
}

#[test]
fn what_a_killed_receiver_had_not_printed_comes_again_and_says_so() {
    let _dog = watchdog(120);
    let program = example("two_programs");
    let name = format!("test-two-programs-{}-again", std::process::id());
    let receiver = || {
        let mut command = Command::new(&program);
        let command = command.args(["recv", &name]).stdout(Stdio::piped());
        Reaped(command.spawn().unwrap())
    };
    let mut first = receiver();
    let mut sender = Command::new(&program);
    let sender = sender.args(["send", &name]).stdin(Stdio::piped());
    let mut sender = Reaped(sender.spawn().unwrap());
    let mut input = sender.0.stdin.take().unwrap();
    // More than its pipe takes, and by less than the ring does.
    const LINES: usize = 13_500;
    (1..=LINES).for_each(|number| writeln!(input, "{number}").unwrap());
    drop(input);
    assert!(sender.0.wait().unwrap().success());
    // It sleeps in `write` until somebody reads, with a message in hand.
    let shown = |file| std::fs::read_to_string(format!("/proc/{}/{file}", first.0.id())).unwrap();
    common::until(|| shown("stat").contains(") S ") && shown("syscall").starts_with("1 0x1 "));
    first.0.kill().unwrap();
    first.0.wait().unwrap();
    let mut printed = String::new();
    let mut out = first.0.stdout.take().unwrap();
    std::io::Read::read_to_string(&mut out, &mut printed).unwrap();
    let mut second = receiver();
    let mut rest = String::new();
    let mut out = second.0.stdout.take().unwrap();
    std::io::Read::read_to_string(&mut out, &mut rest).unwrap();
    let number = |line: &str| line.trim_end_matches(" (again)").parse::<usize>().unwrap();
    let printed = printed.lines().map(number).collect::<Vec<_>>();
    let again: Vec<_> = rest
        .lines()
        .filter(|line| line.ends_with(" (again)"))
        .collect();
    assert_eq!(again.len(), 1, "{again:?}");
    let rest = rest.lines().map(number).collect::<Vec<_>>();
    assert!((1..=printed.len()).eq(printed.iter().copied()));
    assert!((rest[0]..=LINES).eq(rest.iter().copied()));
    assert_eq!(rest[0], printed.len() + 1);
    assert_eq!(number(again[0]), rest[0]);
}

#[test]
fn a_pipeline_computes_its_sum_through_rings_and_through_the_pipes_of_a_shell() {
    let _dog = watchdog(120);
    let sum = (1..=100_000u64).map(|number| number * number).sum::<u64>();
    let line = format!("the sum of the first 100000 squares is {sum}\n");
    let example = example("pipeline");
    assert_eq!(stdout(&Command::new(&example).output().unwrap()), line);
    let script = "$E numbers | $E squares | $E sum";
    let shell = Command::new("sh")
        .args(["-c", script])
        .env("E", &example)
        .output();
    assert_eq!(stdout(&shell.unwrap()), line);
}

#[test]
fn camera_frames_arrive_untorn_or_are_dropped() {
    let _dog = watchdog(120);
    let out = stdout(&Command::new(example("camera_frames")).output().unwrap());
    let numbers: Vec<u64> = out
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect();
    let [seen, 640, 480, torn, dropped] = numbers[..] else {
        panic!("{out}");
    };
    assert!(seen > 0 && torn == 0 && seen + dropped <= 200, "{out}");
}

#[test]
fn shipped_log_lines_are_in_the_file_once_though_the_collector_is_killed() {
    let _dog = watchdog(120);
    let out = stdout(&Command::new(example("log_shipping")).output().unwrap());
    let expected = "20000 lines, 5 kills; each line once and in order: true\n";
    assert_eq!(out, expected);
}

#[test]
fn log_lines_of_shippers_that_are_restarted_and_killed_are_in_the_file_once() {
    let _dog = watchdog(120);
    let program = example("log_shipping");
    let name = format!("test-log-shipping-{}", std::process::id());
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("app.log");
    let start = |args: &[&str]| {
        let mut command = Command::new(&program);
        let child = command.args(args).stdin(Stdio::piped()).spawn().unwrap();
        Reaped(child)
    };
    let collector = || start(&["collect", &name, file.to_str().unwrap()]);
    let ship = |lines: &[u8]| {
        let mut shipper = start(&["ship", &name]);
        let mut input = shipper.0.stdin.take().unwrap();
        input.write_all(lines).unwrap();
        (shipper, input)
    };
    let texts = || {
        let lines = std::fs::read_to_string(&file).unwrap_or_default();
        let texts = lines.lines().map(|line| line.split(' ').nth(2).unwrap());
        texts.collect::<String>()
    };
    // One after the other, with a collector each.
    for lines in [&b"a\nb\nc\n"[..], b"d\ne\nf\ng\n"] {
        let mut collector = collector();
        let (mut shipper, input) = ship(lines);
        drop(input);
        assert!(shipper.0.wait().unwrap().success());
        assert!(collector.0.wait().unwrap().success());
    }
    assert_eq!(texts(), "abcdefg");
    // One that is killed, and another that goes on, with one collector.
    let mut collector = collector();
    let (mut shipper, _input) = ship(b"h\ni\n");
    common::until(|| texts() == "abcdefghi");
    shipper.0.kill().unwrap();
    shipper.0.wait().unwrap();
    let (mut shipper, input) = ship(b"j\n");
    drop(input);
    assert!(shipper.0.wait().unwrap().success());
    assert!(collector.0.wait().unwrap().success());
    assert_eq!(texts(), "abcdefghij");
    common::assert_no_file_left(&name);
}

/// What a new user sees who runs the README's second program twice.
#[test]
fn an_error_that_ends_main_is_printed_with_its_remedy() {
    let _dog = watchdog(120);
    let name = format!("test-two-programs-{}-taken", std::process::id());
    let ring = ringway::spsc::create(&name, Default::default()).unwrap();
    let _consumer = ring.consumer().unwrap();
    let mut second = Command::new(example("two_programs"));
    let out = second.args(["recv", &name]).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    let process = std::process::id();
    assert_eq!(out.status.code(), Some(1));
    assert!(
        said.contains(&format!("it already has a consumer (process {process});")),
        "{said}"
    );
    ring.unlink().unwrap();
}
