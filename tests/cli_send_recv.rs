//! `ringway send` and `recv`: what becomes of the messages and the names when one of them fails, is told to
//! stop, or is killed.
#![cfg(feature = "cli")]

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use common::terminal::{in_terminal, until_closed};
use common::{Reaped, assert_no_file_left, is_root, until, watchdog};
use ringway::spsc::Ring;

const RINGWAY: &str = env!("CARGO_BIN_EXE_ringway");
/// So many numbers, a line each, are sent: more than a pipe and the buffer before it take.
const LINES: usize = 60_000;

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

fn name(test: &str) -> String {
    format!("sr-{}-{test}", std::process::id())
}

fn ringway(args: &[&str]) -> Command {
    let mut command = Command::new(RINGWAY);
    command.args(args).stdin(Stdio::null());
    command
}

/// Rings that take all the lines, with nobody there to receive.
fn rings(test: &str) -> [String; 2] {
    let name = name(test);
    [
        format!("ring:{name}?capacity=4MiB"),
        format!("mpmc:{name}-m?slots=65536&slot=16"),
    ]
}

fn send_lines(endpoint: &str) {
    let script = format!("seq {LINES} | $R send '{endpoint}'");
    let status = Command::new("sh")
        .args(["-c", &script])
        .env("R", RINGWAY)
        .status();
    assert!(status.unwrap().success(), "{endpoint}");
}

/// The numbers in what a `recv` wrote, but for a line that was cut off.
fn numbers(written: &[u8]) -> Vec<usize> {
    let whole = written
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |at| at + 1);
    let lines = text(&written[..whole]).lines();
    lines.map(|line| line.parse().unwrap()).collect()
}

/// What is still there, to its end.
fn receive(endpoint: &str) -> Vec<usize> {
    let out = ringway(&["recv", endpoint]).output().unwrap();
    assert!(out.status.success(), "{endpoint}: {out:?}");
    numbers(&out.stdout)
}

fn assert_every_line_in(mut numbers: Vec<usize>, what: &str) {
    numbers.sort_unstable();
    numbers.dedup();
    let all = (1..=LINES).eq(numbers.iter().copied());
    assert!(all, "{what}: {} of {LINES}", numbers.len());
}

#[test]
fn what_recv_could_not_write_the_next_one_gets() {
    let _dog = watchdog(120);
    for endpoint in rings("full") {
        send_lines(&endpoint);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let failed = ringway(&["recv", &endpoint]).stdout(full).output().unwrap();
        assert_eq!(failed.status.code(), Some(1), "{endpoint}: {failed:?}");
        let expected = "ringway: standard output: write: No space left";
        assert!(text(&failed.stderr).starts_with(expected), "{failed:?}");
        assert_every_line_in(receive(&endpoint), &endpoint);
    }
}

#[test]
fn what_a_recv_had_not_written_when_it_was_ended_the_next_one_gets() {
    let _dog = watchdog(120);
    for end in [SIGKILL, SIGTERM] {
        for endpoint in rings("ended") {
            send_lines(&endpoint);
            let mut victim = ringway(&["recv", &endpoint]);
            let mut victim = started(victim.stdout(Stdio::piped()));
            let mut pipe = BufReader::new(victim.0.stdout.take().unwrap());
            // It has written something, and cannot have written all: nobody reads.
            assert!(!pipe.fill_buf().unwrap().is_empty());
            signal(&victim, end);
            let expected = (end == SIGTERM).then_some(143);
            assert_eq!(victim.0.wait().unwrap().code(), expected);
            let mut written = Vec::new();
            pipe.read_to_end(&mut written).unwrap();
            let before = numbers(&written);
            assert!(before.len() < LINES);
            let all = [before, receive(&endpoint)].concat();
            assert_every_line_in(all, &endpoint);
        }
    }
}

#[test]
fn recv_takes_as_many_as_it_was_told_and_leaves_the_others() {
    let _dog = watchdog(120);
    for endpoint in rings("count") {
        send_lines(&endpoint);
        let mut all = Vec::new();
        for count in ["1", "10", "20000"] {
            let out = ringway(&["recv", "--count", count, &endpoint])
                .output()
                .unwrap();
            let got = numbers(&out.stdout);
            assert_eq!(got.len().to_string(), count, "{endpoint}");
            all.extend(got);
        }
        all.extend(receive(&endpoint));
        assert_eq!(all.len(), LINES, "{endpoint}");
        assert_every_line_in(all, &endpoint);
    }
}

/// Whether a process has a handler for that signal.
fn catches(pid: u32, signal: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))
        .map(|mask| u64::from_str_radix(mask.trim(), 16).unwrap());
    caught.is_some_and(|mask| mask & 1 << (signal - 1) != 0)
}

/// Started, and everything open: from here on it can be told to stop.
fn started(command: &mut Command) -> Reaped {
    let child = Reaped(command.spawn().unwrap());
    until(|| catches(child.0.id(), SIGTERM));
    child
}

/// Whether a process has written anything, to a pipe for instance.
fn has_written(pid: u32) -> bool {
    let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let written = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    written.unwrap() != "0"
}

fn signal(child: &Reaped, signal: u32) {
    let status = Command::new("kill")
        .args([format!("-{signal}"), child.0.id().to_string()])
        .status();
    assert!(status.unwrap().success());
}

const SIGINT: u32 = 2;
const SIGKILL: u32 = 9;
const SIGTERM: u32 = 15;

#[test]
fn told_to_stop_while_they_wait_send_and_recv_leave_nothing() {
    let _dog = watchdog(120);
    let name = name("stop");
    for endpoint in [
        format!("ring:{name}"),
        format!("mpmc:{name}"),
        format!("bcast:{name}"),
        format!("fifo:/tmp/{name}"),
        format!("unix:/tmp/{name}"),
        format!("mq:{name}"),
        format!("sem:{name}"),
        format!("signal:{name}"),
        format!("auto:{name}"),
    ] {
        for asked in [SIGINT, SIGTERM] {
            for what in ["recv", "send"] {
                let needs_receiver = ["unix:", "signal:"];
                if what == "send" && needs_receiver.iter().any(|it| endpoint.starts_with(it)) {
                    continue;
                }
                let mut command = ringway(&[what, &endpoint]);
                let mut child = started(command.stdin(Stdio::piped()));
                // Whoever runs the tests may ignore the other one. (Nobody is killed: who comes next would find it dead.)
                let catches = catches(child.0.id(), asked);
                let asked = if catches { asked } else { SIGTERM };
                signal(&child, asked);
                let status = child.0.wait().unwrap();
                let expected = Some(128 + asked as i32);
                assert_eq!(status.code(), expected, "{what} {endpoint}");
                assert_no_file_left(&name);
                let queue = ringway::channel::mqueue::Receiver::attach(&name);
                assert!(queue.is_err(), "{what} {endpoint}");
            }
        }
    }
}

#[test]
fn a_send_that_waits_for_room_can_be_told_to_stop_and_what_it_sent_is_kept() {
    let _dog = watchdog(120);
    let name = name("room");
    let endpoint = format!("ring:{name}?capacity=4KiB");
    let mut lines = Command::new("seq");
    let mut lines = Reaped(
        lines
            .arg(LINES.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut command = ringway(&["send", &endpoint]);
    let mut child = started(command.stdin(lines.0.stdout.take().unwrap()));
    let used = || Ring::observe(&name).map_or(0, |ring| ring.stats().used);
    until(|| used() > 3500);
    signal(&child, SIGTERM);
    assert_eq!(child.0.wait().unwrap().code(), Some(143));
    let got = receive(&endpoint);
    assert!(got.len() < LINES && (1..=got.len()).eq(got), "{endpoint}");
}

#[test]
fn a_source_that_is_told_to_stop_says_which_message_was_the_last() {
    let _dog = watchdog(120);
    for rate in [&[][..], &["--rate", "1000"]] {
        let mut source = ringway(&["gen"]);
        let mut source = started(source.args(rate).stdout(Stdio::piped()));
        let mut sink = ringway(&["sink", "--json"]);
        let output = source.0.stdout.take().unwrap();
        let sink = sink.stdin(output).stdout(Stdio::piped()).spawn().unwrap();
        until(|| has_written(source.0.id()));
        signal(&source, SIGTERM);
        let out = sink.wait_with_output().unwrap();
        assert!(out.status.success(), "{rate:?}: {out:?}");
        let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        assert_eq!(report["announced"], report["messages"], "{report}");
        assert_eq!(source.0.wait().unwrap().code(), Some(143));
    }
}

#[test]
fn errors_of_messages_name_the_endpoint_and_the_line() {
    let _dog = watchdog(120);
    let endpoint = format!("ring:{}", name("errors"));
    let mut command = ringway(&["send", &endpoint]);
    let mut sender = started(command.stdin(Stdio::piped()).stderr(Stdio::piped()));
    let mut input = sender.0.stdin.take().unwrap();
    let long = "a".repeat(100_000);
    input.write_all(format!("x\n{long}\n").as_bytes()).unwrap();
    drop(input);
    let mut said = String::new();
    let mut from = sender.0.stderr.take().unwrap();
    from.read_to_string(&mut said).unwrap();
    let expected = format!("ringway: {endpoint}: line 2: message of 100000 bytes");
    assert!(said.starts_with(&expected), "{said}");

    let mut command = ringway(&["send", &endpoint]);
    let sender = started(command.stdin(Stdio::piped()));
    drop(sender); // killed
    let out = ringway(&["recv", &endpoint]).output().unwrap();
    assert_eq!(text(&out.stdout), "x\n");
    let expected = format!("ringway: {endpoint}: peer died: ");
    assert!(text(&out.stderr).starts_with(&expected), "{out:?}");
}

#[test]
fn what_is_refused_comes_with_a_remedy_that_helps() {
    let _dog = watchdog(120);
    let name = name("remedy");
    let directory = format!("ring:/tmp/{name}/");
    for (args, remedy) in [
        (&["recv", "ring:/no/such/dir/x"][..], "mkdir -p"),
        (&["recv", "mq:a/b"], "leave the slash out"),
        (
            &["run", "--via", "mq:a/b", "ringway gen", "ringway sink"],
            "leave the slash out",
        ),
        (&["send", &directory], "that of a directory"),
        (&["run", ""], "write a program and its arguments"),
        (
            &["gen", "--count", "1", "--size", "20G"],
            "from 1 to 256 MiB",
        ),
        (
            &["run", "--block", "99999999G", "seq 5", "-j2", "cat"],
            "from 1 to 256 MiB",
        ),
        (&["bench", "--size", "1G"], "from 0 to 16 MiB"),
        (&["recv", "ring:x?capacity=1T"], "64K or 1MiB"),
    ] {
        let out = ringway(args).output().unwrap();
        assert!(!out.status.success(), "{args:?}");
        assert!(text(&out.stderr).contains(remedy), "{args:?}: {out:?}");
    }
    let sizes = ["64k", "64K", "64KB", "64KiB", "65536"];
    for size in sizes {
        let endpoint: ringway::Endpoint = format!("ring:x?capacity={size}").parse().unwrap();
        assert_eq!(endpoint.to_string(), "ring:x?capacity=64KiB", "{size}");
    }
}

#[test]
fn a_mode_that_keeps_its_creator_out_is_refused_as_that() {
    use std::os::unix::{fs::PermissionsExt, process::CommandExt};
    let _dog = watchdog(120);
    // A copy: another user may not get at the program where it was built. Not made by this process: a child that
    // another test starts just then would have it open for writing, and it could not be executed.
    let directory = tempfile::tempdir().unwrap();
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), everybody).unwrap();
    let copy = directory.path().join("ringway");
    let copied = Command::new("cp").arg(RINGWAY).arg(&copy).status();
    assert!(copied.unwrap().success());
    let mut command = Command::new(copy);
    command.args(["send", &format!("ring:{}?mode=0", name("mode"))]);
    if is_root() {
        command.uid(65534).gid(65534);
    }
    let out = command.stdin(Stdio::null()).output().unwrap();
    assert!(text(&out.stderr).contains("mode 0000: "), "{out:?}");
}

#[test]
fn in_a_terminal_nothing_is_drawn_over_what_comes() {
    let _dog = watchdog(120);
    let endpoint = format!("ring:{}", name("terminal"));
    let mut command = ringway(&["send", "--as", "raw", &endpoint]);
    let mut sender = Reaped(command.stdin(Stdio::piped()).spawn().unwrap());
    let mut input = sender.0.stdin.take().unwrap();
    input.write_all(b"abc").unwrap();
    drop(input);
    assert!(sender.0.wait().unwrap().success());
    let mut command = ringway(&["recv", "--as", "raw", &endpoint]);
    assert_eq!(shown(&mut command, ""), "abc");

    let shown = shown(&mut ringway(&["send", &endpoint]), "a line\n\u{4}");
    assert!(shown.contains("1 messages"), "{shown:?}");
    assert!(shown.ends_with('\n'), "{shown:?}");
    let out = ringway(&["recv", &endpoint]).output().unwrap();
    assert_eq!(text(&out.stdout), "a line\n");
}

/// What a terminal shows of a program in which something is typed.
fn shown(command: &mut Command, typed: &str) -> String {
    let (mut child, mut terminal) = in_terminal(command, 24, 80);
    terminal.write_all(typed.as_bytes()).unwrap();
    // Of the terminal's ends only the program's are left open.
    command.stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let shown = until_closed(&mut terminal);
    assert!(child.0.wait().unwrap().success());
    String::from_utf8(shown).unwrap()
}
