//! `ringway run --via`, `send` and `recv` with every mechanism.
#![cfg(feature = "cli")]

mod common;
#[path = "common/restrict.rs"]
mod restrict;

use std::process::{Command, Output, Stdio};

use common::{assert_no_file_left, until, watchdog};

const RINGWAY: &str = env!("CARGO_BIN_EXE_ringway");

/// All of them; `{}` stands for a name or a path.
const MECHANISMS: [&str; 9] = [
    "ring:{}",
    "mpmc:{}",
    "pipe:",
    "fifo:/tmp/{}",
    "unix:/tmp/{}",
    "mq:{}",
    "sem:{}",
    "signal:{}",
    "auto:{}",
];

fn name(test: &str) -> String {
    format!("via-{}-{test}", std::process::id())
}

fn run(via: &[&str], stages: &[&str]) -> Output {
    let via = via.iter().flat_map(|via| ["--via", via]);
    Command::new(RINGWAY)
        .arg("run")
        .args(via)
        .args(stages)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    str::from_utf8(bytes).unwrap()
}

fn report(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

fn assert_whole(output: &Output, messages: u64, what: &str) {
    let report = report(output);
    assert_eq!(report["messages"], messages, "{what}: {output:?}");
    for wrong in ["lost", "doubled", "damaged"] {
        assert_eq!(report[wrong], 0, "{what}: {report}");
    }
    assert!(output.status.success(), "{what}: {output:?}");
}

/// Nothing of that name is left: no file, no shared memory, no semaphore, no queue.
fn assert_nothing_left(name: &str) {
    assert_no_file_left(name);
    for queue in [name.to_owned(), format!("{name}.1"), format!("{name}.2")] {
        let there = ringway::channel::mqueue::Receiver::attach(&queue);
        assert!(there.is_err(), "queue {queue} is left");
    }
}

#[test]
fn stages_that_speak_messages_are_joined_by_every_mechanism() {
    let _dog = watchdog(120);
    let name = name("stages");
    for mechanism in MECHANISMS {
        let via = mechanism.replace("{}", &name);
        let out = run(
            &[&via],
            &[
                "ringway gen --count 3000 --size 100",
                "ringway map",
                "ringway sink --json",
            ],
        );
        assert_whole(&out, 3000, &via);
        assert_eq!(text(&out.stderr), "", "{via}");
        assert_nothing_left(&name);
    }
}

#[test]
fn plain_programs_are_joined_by_every_mechanism() {
    let _dog = watchdog(120);
    let name = name("plain");
    for mechanism in MECHANISMS {
        let via = mechanism.replace("{}", &name);
        let out = run(&[&via], &["seq 1 30000", "grep 7", "wc -l"]);
        assert_eq!(text(&out.stdout), "10317\n", "{via}: {out:?}");
        assert!(out.status.success(), "{via}: {out:?}");
        // One that has had enough ends the others, as under a shell.
        let out = run(&[&via], &["yes", "head -n 2"]);
        assert_eq!(text(&out.stdout), "y\ny\n", "{via}");
        assert_eq!(out.status.code(), Some(141), "{via}: {out:?}");
        // A plain program between two that speak messages.
        let stages = ["ringway gen --count 500", "cat", "ringway sink --json"];
        assert_whole(&run(&[&via], &stages), 500, &via);
        assert_nothing_left(&name);
    }
}

#[test]
fn a_stage_that_fails_or_takes_nothing_ends_the_others_whatever_joins_them() {
    let _dog = watchdog(120);
    let name = name("ends");
    for mechanism in MECHANISMS {
        let via = mechanism.replace("{}", &name);
        // The receiver stops early, the sender goes on for ever.
        let stages = ["ringway gen", "ringway map --count 10", "ringway sink"];
        let out = run(&[&via], &stages);
        assert!(
            text(&out.stdout).starts_with("received   10 messages"),
            "{via}: {out:?}"
        );
        // Neither side ever opens its end.
        let out = run(&[&via], &["ring:true", "ring:true"]);
        assert!(out.status.success(), "{via}: {out:?}");
        // Only the other side does.
        let out = run(&[&via], &["ring:true", "ringway sink --json"]);
        assert_eq!(report(&out)["messages"], 0, "{via}");
        let out = run(&[&via], &["ringway gen", "ring:true"]);
        assert!(!out.stderr.is_empty() || out.status.success(), "{out:?}");
        // Killed in the middle of it.
        let out = run(
            &[&via],
            &["ringway gen", "ring:sh -c 'sleep 0.2; kill -9 $$'"],
        );
        assert_eq!(out.status.code(), Some(137), "{via}: {out:?}");
        assert_nothing_left(&name);
    }
}

#[test]
fn several_workers_share_a_mechanism_that_has_room_for_them() {
    let _dog = watchdog(120);
    let name = name("several");
    let workers = |via: &[&str]| {
        run(
            via,
            &[
                "ringway gen --count 3000",
                "-j3",
                "ringway map",
                "ringway sink --json",
            ],
        )
    };
    for mechanism in ["mpmc:{}", "mq:{}", "sem:{}", "auto:{}"] {
        let via = mechanism.replace("{}", &name);
        assert_whole(&workers(&[&via]), 3000, &via);
        assert_nothing_left(&name);
    }
    for (mechanism, said) in [
        ("ring:{}", "ring cannot join several processes"),
        (
            "pipe:",
            "pipe cannot hand out messages to several processes",
        ),
        ("fifo:/tmp/{}", "fifo cannot hand out messages"),
        ("unix:/tmp/{}", "unix cannot hand out messages"),
        ("signal:{}", "signal cannot hand out messages"),
    ] {
        let via = mechanism.replace("{}", &name);
        let out = workers(&[&via]);
        assert_eq!(out.status.code(), Some(126), "{via}: {out:?}");
        let line = text(&out.stderr);
        assert!(line.contains(said), "{line}");
        assert!(line.contains("use mpmc:, mq: or sem:"), "{line}");
        assert_nothing_left(&name);
    }
    // To several by one mechanism, from several by another, as the list allows.
    for mechanism in ["pipe:", "fifo:/tmp/{}", "unix:/tmp/{}", "signal:{}"] {
        let first = mechanism.replace("{}", &name);
        let out = workers(&[&first, &format!("mq:{name}")]);
        assert_whole(&out, 3000, &first);
        let line = text(&out.stderr);
        assert!(line.contains("refused: "), "{line}");
        assert!(line.ends_with(&format!("mq:{name}.1: taken\n")), "{line}");
        assert_nothing_left(&name);
    }
}

#[test]
fn what_cannot_be_used_is_refused_in_one_line_and_nothing_is_started() {
    let _dog = watchdog(60);
    let gen_sink = ["ringway gen --count 10", "ringway sink"];
    for (via, said) in [
        ("fifo:/nowhere/at/all", "/nowhere/at/all"),
        ("mq:x?depth=100000", "msg_max"),
        ("pipe:?fd=3", "leave pid and fd out"),
        ("signal:x?pid=1", "leave pid and fd out"),
    ] {
        let out = run(&[via], &gen_sink);
        assert_eq!(out.status.code(), Some(126), "{out:?}");
        assert_eq!(text(&out.stderr).lines().count(), 1, "{out:?}");
        assert!(text(&out.stderr).contains(said), "{out:?}");
        assert_eq!(text(&out.stdout), "");
    }
    for via in ["teleport", "tcp:x", "mq:x?colour=3"] {
        assert_eq!(run(&[via], &gen_sink).status.code(), Some(2));
    }
}

#[test]
fn a_channel_that_others_use_is_refused_and_robbed_of_nothing() {
    let _dog = watchdog(60);
    for mechanism in [
        "mq:{}",
        "sem:{}",
        "fifo:/tmp/{}",
        "unix:/tmp/{}",
        "signal:{}",
    ] {
        let name = name("others");
        let via = mechanism.replace("{}", &name);
        let link = format!("{via}.1");
        let endpoint: ringway::Endpoint = link.parse().unwrap();
        let keeps = mechanism.starts_with("mq") || mechanism.starts_with("sem");
        // Where messages wait for their receiver, a sender alone is a user, too.
        let mut rx = (!keeps).then(|| endpoint.receiver().unwrap());
        let mut tx = endpoint.sender().unwrap();
        for message in [b"one", b"two"] {
            tx.send(message).unwrap();
        }
        let out = run(&[&via], &["ringway gen --count 10", "ringway sink"]);
        assert_eq!(out.status.code(), Some(126), "{out:?}");
        let said = text(&out.stderr);
        assert!(
            said.contains(&link) && said.contains("choose another name"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
        tx.send(b"three").unwrap();
        let rx = rx.get_or_insert_with(|| endpoint.receiver().unwrap());
        let mut message = Vec::new();
        for expected in [&b"one"[..], b"two", b"three"] {
            rx.recv(&mut message).unwrap();
            assert_eq!(message, expected, "{via}");
        }
    }
    assert_nothing_left(&name("others"));
}

#[test]
fn a_killed_stage_is_replaced_behind_a_ring_with_a_name_and_nowhere_else() {
    let _dog = watchdog(60);
    for (mechanism, replaced) in [
        ("ring:{}", true),
        ("mpmc:{}", true),
        ("fifo:/tmp/{}", false),
    ] {
        let name = name("restart");
        let via = mechanism.replace("{}", &name);
        let pipeline = Command::new(RINGWAY)
            .args(["run", "--via", &via, "--name", &name])
            .args(["ringway gen", "ringway map", "ringway sink --json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let ctl = |command: &[&str]| {
            let mut ctl = Command::new(RINGWAY);
            ctl.args(["ctl", &name]).args(command).output().unwrap()
        };
        until(|| ctl(&["ping"]).status.success());
        let stats = ctl(&["stats"]);
        let expected = format!("; hands on by {via}.2");
        assert!(text(&stats.stdout).contains(&expected), "{stats:?}");
        let out = ctl(&["restart", "2"]);
        assert_eq!(out.status.success(), replaced, "{via}: {out:?}");
        assert!(ctl(&["drain"]).status.success());
        let out = pipeline.wait_with_output().unwrap();
        let report = report(&out);
        assert_eq!(
            (&report["lost"], &report["damaged"]),
            (&0.into(), &0.into())
        );
        let again = "takes its place";
        assert_eq!(text(&out.stderr).contains(again), replaced, "{out:?}");
        assert_nothing_left(&name);
    }
}

#[test]
fn a_pipeline_that_is_refused_memory_finds_another_way_and_says_which() {
    use std::os::unix::process::CommandExt;
    let _dog = watchdog(60);
    let stages = [
        "ringway gen --count 2000",
        "-j2",
        "ringway map",
        "ringway sink --json",
    ];
    let restricted = |restrict: fn() -> std::io::Result<()>, via: &[&str]| {
        let mut command = Command::new(RINGWAY);
        command
            .arg("run")
            .args(via)
            .args(stages)
            .stdin(Stdio::null());
        // SAFETY: what is run between fork and exec are system calls only.
        unsafe { command.pre_exec(restrict) };
        command.output().unwrap()
    };
    let out = restricted(restrict::deny_memfd_create, &[]);
    assert_whole(&out, 2000, "memfd_create denied");
    let said = text(&out.stderr);
    println!("{said}");
    assert!(said.contains("memfd_create"), "{said}");
    assert!(
        said.contains(".1: taken\n") && said.contains(".2: taken\n"),
        "{said}"
    );
    if !restrict::can_mount() {
        return;
    }
    for (how, restrict) in restrict::NO_SHARED_MEMORY {
        let name = name(&how.replace(' ', "-"));
        let out = restricted(restrict, &["--via", &format!("auto:{name}")]);
        assert_whole(&out, 2000, how);
        let said = text(&out.stderr);
        println!("{how}: {said}");
        assert!(said.contains(&format!("mq:{name}.1: taken\n")), "{said}");
        assert_nothing_left(&name);
    }
}

/// What a descriptor of this process is called by others.
fn path_of(fd: &impl std::os::fd::AsRawFd) -> (u32, i32) {
    (std::process::id(), fd.as_raw_fd())
}

#[test]
fn lines_are_sent_and_received_by_every_mechanism() {
    let _dog = watchdog(120);
    let name = name("lines");
    let lines: String = (1..=2000).map(|n| format!("line {n}\n")).collect();
    for mechanism in MECHANISMS {
        // The two ends of a pipe between strangers are reached through a process that has it.
        let (read, write) = std::io::pipe().unwrap();
        let endpoint = |fd| match mechanism {
            "pipe:" => {
                let (pid, fd) = fd;
                format!("pipe:?pid={pid}&fd={fd}")
            }
            other => other.replace("{}", &name),
        };
        let mut sender = Command::new(RINGWAY)
            .args(["send", &endpoint(path_of(&write))])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let receiver = Command::new(RINGWAY)
            .args(["recv", "--count", "2000", &endpoint(path_of(&read))])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = sender.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, lines.as_bytes()).unwrap();
        let out = receiver.wait_with_output().unwrap();
        assert!(out.status.success(), "{mechanism}");
        assert!(text(&out.stdout) == lines, "{mechanism}");
        drop(stdin);
        assert!(sender.wait().unwrap().success(), "{mechanism}");
        drop((read, write));
        assert_nothing_left(&name);
    }
}

#[test]
fn a_pipe_of_the_shells_carries_messages() {
    let _dog = watchdog(60);
    // The sending end is standard output, the receiving end standard input.
    let script = "seq 1 3000 | $R send pipe: | $R recv pipe: | md5sum; seq 1 3000 | md5sum";
    let out = Command::new("sh")
        .args(["-c", script])
        .env("R", RINGWAY)
        .output()
        .unwrap();
    let sums: Vec<&str> = text(&out.stdout).lines().collect();
    assert_eq!(sums.len(), 2, "{out:?}");
    assert_eq!(sums[0], sums[1], "{out:?}");
}
