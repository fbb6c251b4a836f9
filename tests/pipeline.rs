//! `ringway run` with plain programs: the same as a shell, and then some.
#![cfg(feature = "cli")]

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

mod common;

use common::{until, watchdog};

const RINGWAY: &str = env!("CARGO_BIN_EXE_ringway");

fn run(args: &[&str]) -> Command {
    let mut command = Command::new(RINGWAY);
    command.arg("run").args(args).stdin(Stdio::null());
    command
}

fn output(args: &[&str]) -> Output {
    run(args).output().unwrap()
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

fn shell(script: &str) -> Output {
    let mut shell = Command::new("bash");
    shell
        .args(["-o", "pipefail", "-c", script])
        .stdin(Stdio::null());
    shell.output().unwrap()
}

fn is_alive(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(')').unwrap().1.starts_with(" Z"))
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-s", name, &pid])
            .status()
            .unwrap()
            .success()
    );
}

/// A file that the stages write their process ids to, and its lines.
fn pids(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn output_and_status_are_those_of_the_shell() {
    let _dog = watchdog(60);
    let cases: &[&[&str]] = &[
        &["seq 1 200000", "grep 7", "wc -l"],
        &["seq 1 10"],
        &["printf 'a\\nb\\n'", "sed 's/a/x y/'", "tr x '|'"],
        &["echo \"$((6 * 7))\"", "cat"],
        &["seq 1 3", "grep 7", "wc -l"],
        &["seq 1 3", "grep 7", "sh -c 'cat; exit 3'", "cat"],
        &["yes", "head -n 3"],
        &["yes", "head -n 3", "sh -c 'cat; exit 5'"],
        &["echo x", "sh -c 'kill -9 $$'", "cat"],
        &["echo $HOME", "cat"],
        &["seq 3; seq 4", "cat | cat", "sort -n"],
        &["dd if=/dev/zero bs=1M count=20 status=none", "md5sum"],
        &["true", "false"],
        &["false", "true"],
        &["cat", "wc -c"],
    ];
    for stages in cases {
        let ours = output(stages);
        let theirs = shell(&format!("{{ {}\n}}", stages.join("\n} | { ")));
        assert_eq!(stdout(&ours), stdout(&theirs), "{stages:?}");
        let line = stderr(&ours);
        assert_eq!(
            ours.status.code(),
            theirs.status.code(),
            "{stages:?}: {line}"
        );
    }
}

#[test]
fn standard_input_goes_to_the_first_stage() {
    let _dog = watchdog(60);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("input");
    std::fs::write(&path, "b\na\n").unwrap();
    let out = run(&["sort", "tr a-z A-Z"])
        .stdin(std::fs::File::open(&path).unwrap())
        .output()
        .unwrap();
    assert_eq!(stdout(&out), "A\nB\n");
}

#[test]
fn a_missing_program_is_named_and_nothing_is_started() {
    let _dog = watchdog(60);
    let dir = tempfile::tempdir().unwrap();
    let touched = dir.path().join("touched");
    let out = output(&[
        &format!("touch {}", touched.display()),
        "no-such-program -x",
        "cat",
    ]);
    assert_eq!(out.status.code(), Some(127));
    assert_eq!(
        stderr(&out),
        "ringway: stage 2 (no-such-program -x): no such program; check the name and PATH\n"
    );
    assert!(!touched.exists());
    assert_eq!(output(&["cat", "/etc/passwd"]).status.code(), Some(126));
}

#[test]
fn a_failed_stage_gives_one_line_that_names_it() {
    let _dog = watchdog(60);
    let line = |stages: &[&str]| stderr(&output(stages)).to_owned();
    assert_eq!(
        line(&["yes", "sh -c 'head -1 >&2; kill -KILL $$'", "cat"]),
        "y\nringway: stage 2 (sh -c 'head -1 >&2; kill -KILL $$'): killed by SIGKILL (stage 1 failed too)\n"
    );
    assert_eq!(
        line(&["yes", "true", "cat"]),
        "ringway: stage 1 (yes): broken pipe: the next stage ended before it had read everything\n"
    );
    assert_eq!(
        line(&["true", "sh -c 'exit 7'"]),
        "ringway: stage 2 (sh -c 'exit 7'): exit status 7\n"
    );
    assert_eq!(line(&["seq 10", "cat"]), "");
    assert_eq!(stderr(&output(&["-q", "true", "false"])), "");
}

#[test]
fn ringway_within_a_stage_is_this_very_program() {
    let _dog = watchdog(60);
    let dir = tempfile::tempdir().unwrap();
    for stage in ["ringway --version", "true; ringway --version"] {
        let out = run(&[stage, "cat"])
            .env("PATH", "/usr/bin:/bin")
            .current_dir(dir.path())
            .output();
        let version = format!("ringway {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(stdout(&out.unwrap()), version, "{stage}");
    }
}

#[test]
fn a_signal_drains_what_is_under_way() {
    let _dog = watchdog(60);
    for (name, status) in [("TERM", 143), ("INT", 130)] {
        let dir = tempfile::tempdir().unwrap();
        let begun = dir.path().join("begun");
        // The count of what came is right, though the source never ends by itself.
        let counter = format!(
            "sh -c 'read first; echo > {}; cat | wc -l'",
            begun.display()
        );
        let child = run(&["yes", "cat", &counter])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        until(|| begun.exists());
        signal(&child, name);
        let out = child.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(status));
        assert!(
            stdout(&out).trim().parse::<u64>().is_ok(),
            "{}",
            stdout(&out)
        );
        assert_eq!(
            stderr(&out),
            format!("ringway: SIG{name}: draining; once more stops at once\n")
        );
    }
}

#[test]
fn a_second_signal_stops_stages_that_heed_nothing_and_leaves_no_orphan() {
    let _dog = watchdog(60);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    // Deaf to signals, and with a child that has left the process group.
    let deaf = format!(
        "trap '' TERM INT; setsid sleep 1000 & echo $! >> {0}; echo $$ >> {0}; while :; do sleep 1; done",
        file.display()
    );
    let mut child = run(&[&deaf, &deaf]).stderr(Stdio::piped()).spawn().unwrap();
    until(|| pids(&file).len() == 4);
    signal(&child, "TERM");
    let mut said = [0; 20];
    child
        .stderr
        .as_mut()
        .unwrap()
        .read_exact(&mut said)
        .unwrap();
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(!pids(&file).iter().any(|pid| is_alive(pid)));
}

#[test]
fn stages_do_not_outlive_a_supervisor_that_is_killed() {
    let _dog = watchdog(60);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pids");
    let stage = format!("sh -c 'echo $$ >> {}; exec sleep 1000'", file.display());
    let mut child = run(&[&stage, &stage]).spawn().unwrap();
    until(|| pids(&file).len() == 2);
    signal(&child, "KILL");
    child.wait().unwrap();
    until(|| !pids(&file).iter().any(|pid| is_alive(pid)));
}

#[test]
fn a_hangup_says_that_there_is_nothing_to_reload() {
    let _dog = watchdog(60);
    let mut child = run(&["cat", "cat"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Only once the signals are taken are there stages.
    until(|| {
        std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id()))
            .is_ok_and(|children| children.split_whitespace().count() == 2)
    });
    signal(&child, "HUP");
    signal(&child, "USR1");
    let mut said = vec![0; 46];
    child
        .stderr
        .as_mut()
        .unwrap()
        .read_exact(&mut said)
        .unwrap();
    drop(child.stdin.take());
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    said.extend(&out.stderr);
    let said = String::from_utf8(said).unwrap();
    assert!(
        said.starts_with("ringway: SIGHUP: there is nothing to reload\n"),
        "{said}"
    );
    assert!(said.contains("stage 2 (cat): process "), "{said}");
}

#[test]
fn workers_give_the_same_lines_as_one_program() {
    let _dog = watchdog(60);
    for stages in [
        ["seq 1 200000", "grep 7", "sort -n"],
        ["seq 1 200000", "cat", "sort -n"],
        ["seq 1 3", "grep 7", "wc -l"],
        ["true", "wc -l", "cat"],
        ["printf 'a\\nno end'", "cat", "sort"],
    ] {
        let theirs = shell(&format!("{{ {}\n}}", stages.join("\n} | { ")));
        for block in ["1", "7", "64K", "1M"]
            .into_iter()
            .skip(if stages[0] == "seq 1 200000" { 2 } else { 0 })
        {
            let [first, second, third] = stages;
            let ours = output(&[first, "-j4", "--block", block, second, third]);
            assert_eq!(stdout(&ours), stdout(&theirs), "{stages:?} {block}");
            assert_eq!(
                ours.status.code(),
                theirs.status.code(),
                "{stages:?} {block}"
            );
        }
    }
}

#[test]
fn the_order_is_kept_when_asked_for() {
    let _dog = watchdog(60);
    // Early chunks take longest.
    let slow = "sleep 0.0$((9 - RINGWAY_CHUNK % 10)); cat";
    let out = output(&[
        "seq 1 100000",
        "-j3",
        "--keep-order",
        "--block",
        "64K",
        slow,
        "cat",
    ]);
    assert_eq!(stdout(&out), stdout(&shell("seq 1 100000")));
}

#[test]
fn the_order_of_messages_is_not_promised_to_be_kept() {
    let _dog = watchdog(60);
    let source = "ringway gen --count 100";
    let out = output(&[source, "-j2", "--keep-order", "ringway map", "ringway sink"]);
    assert_eq!(out.status.code(), Some(126));
    let said = stderr(&out);
    assert!(
        said.contains("stage 2 (ringway map)") && said.contains("plain:COMMAND"),
        "{said}"
    );
    // One worker keeps it without being asked to.
    let out = output(&[source, "-j1", "--keep-order", "ringway map", "ringway sink"]);
    assert!(out.status.success(), "{}", stderr(&out));
}

#[test]
fn a_killed_workers_chunk_is_done_again_and_nothing_is_lost_or_doubled() {
    let _dog = watchdog(60);
    // Killed half-way, with half of its output written.
    let dies = "if [ $RINGWAY_CHUNK = 2 ] && [ $RINGWAY_TRY -lt 2 ]; then head -n 1000; kill -KILL $$; fi; grep 7";
    let out = output(&[
        "seq 1 200000",
        "-j4",
        "--restart",
        "--block",
        "64K",
        dies,
        "sort -n",
    ]);
    assert!(out.status.success());
    assert_eq!(stdout(&out), stdout(&shell("seq 1 200000 | grep 7")));
    assert_eq!(
        stderr(&out),
        "ringway: stage 2: a worker was killed by SIGKILL; its chunk 2 is done again\n".repeat(2)
    );
}

#[test]
fn without_restart_a_killed_worker_fails_its_stage() {
    let _dog = watchdog(60);
    let dies = "if [ $RINGWAY_CHUNK = 2 ]; then kill -KILL $$; fi; cat";
    for (restart, status) in [(None, 137), (Some("--restart=2"), 137)] {
        let mut args = vec!["seq 1 200000", "-j2", "--block", "64K", dies];
        args.extend(restart);
        let out = output(&args);
        assert_eq!(out.status.code(), Some(status));
        let last = stderr(&out).lines().last().unwrap().to_owned();
        assert!(
            last.contains("stage 2 (if") && last.contains("killed by SIGKILL"),
            "{last}"
        );
    }
}

#[test]
fn persistent_workers_give_the_same_lines_and_fail_when_one_is_killed() {
    let _dog = watchdog(60);
    let theirs = shell("seq 1 300000 | grep 7");
    let stages = ["seq 1 300000", "-j3", "--persistent", "grep 7", "sort -n"];
    let ours = output(&stages);
    assert!(ours.status.success(), "{}", stderr(&ours));
    assert!(ours.stdout == theirs.stdout);
    let early = output(&["yes", "-j2", "--persistent", "head -n 1", "sort"]);
    assert_eq!(stdout(&early), "y\ny\n");
    let dies = "read line; kill -KILL $$";
    let killed = output(&["seq 1 300000", "-j2", "--persistent", dies, "cat"]);
    assert_eq!(killed.status.code(), Some(137));
    let refused = output(&["--persistent", "--restart", "-j2", "cat"]);
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn workers_drain_when_told_to() {
    let _dog = watchdog(60);
    let dir = tempfile::tempdir().unwrap();
    let begun = dir.path().join("begun");
    let worker = format!("echo > {}; cat", begun.display());
    let mut child = run(&["-j2", "--block", "4K", &worker, "uniq"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        use std::io::Write;
        while input.write_all(&b"y\n".repeat(4096)).is_ok() {}
    });
    until(|| begun.exists());
    signal(&child, "TERM");
    let out = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!(out.status.code(), Some(143));
    assert_eq!(stdout(&out).lines().next(), Some("y"));
}
