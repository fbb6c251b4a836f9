//! `ringway stats`, `tap`, `top`, `doctor`, `completions`, `man` and `--help`.
#![cfg(feature = "cli")]

use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringway::{broadcast, mpmc, spsc};

mod common;

use common::terminal::{in_terminal, next_piece};
use common::{Reaped, until, watchdog};

fn tool() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ringway"))
}

fn ringway(args: &[&str]) -> Output {
    tool().args(args).output().expect("the tool runs")
}

fn stdout(out: &Output) -> String {
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout.clone()).unwrap()
}

fn name(what: &str) -> String {
    format!("test-watch-{what}-{}", std::process::id())
}

#[test]
fn what_prometheus_reads_is_well_formed_and_right() {
    let _dog = watchdog(120);
    let name = name("prom");
    let ring = mpmc::create(&name, mpmc::Config::default().slots(8)).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    for _ in 0..3 {
        tx.send(b"12345").unwrap();
    }
    rx.recv().unwrap();
    let text = stdout(&ringway(&["stats", "--prometheus", &name]));
    let mut described = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (metric, help) = rest.split_once(' ').expect("a metric and its help");
            assert!(!help.is_empty());
            assert!(!described.contains(&metric.to_owned()), "{metric} twice");
            described.push(metric.to_owned());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (metric, kind) = rest.split_once(' ').expect("a metric and its type");
            assert_eq!(described.last().map(String::as_str), Some(metric));
            assert!(kind == "counter" || kind == "gauge");
            assert_eq!(kind == "counter", metric.ends_with("_total"), "{metric}");
        } else {
            let (metric, rest) = line.split_once('{').expect("labels");
            assert_eq!(described.last().map(String::as_str), Some(metric));
            let (labels, value) = rest.rsplit_once("} ").expect("a value");
            assert!(labels.contains(&format!("ring=\"{name}\"")), "{line}");
            value.parse::<f64>().unwrap_or_else(|_| panic!("{line}"));
        }
    }
    let value = |metric: &str, role: &str| {
        let line = text.lines().find(|line| {
            line.starts_with(metric)
                && (role.is_empty() || line.contains(&format!("role=\"{role}\"")))
        });
        line.and_then(|line| line.rsplit_once(' '))
            .map(|(_, value)| value.to_owned())
    };
    assert_eq!(
        value("ringway_messages_total", "producer").as_deref(),
        Some("3")
    );
    assert_eq!(
        value("ringway_bytes_total", "producer").as_deref(),
        Some("15")
    );
    assert_eq!(
        value("ringway_messages_total", "consumer").as_deref(),
        Some("1")
    );
    assert_eq!(value("ringway_waiting_messages", "").as_deref(), Some("2"));
    assert_eq!(value("ringway_fill_ratio", "").as_deref(), Some("0.25"));
    assert_eq!(
        value("ringway_participants", "producer").as_deref(),
        Some("1")
    );
    let table = stdout(&ringway(&["stats", &name]));
    assert!(
        table.contains("producer") && table.contains("15 B"),
        "{table}"
    );
    ring.unlink().unwrap();
}

#[test]
fn a_tap_sees_what_passes_and_takes_nothing() {
    let _dog = watchdog(120);
    let spsc_name = name("tap-spsc");
    let mpmc_name = name("tap-mpmc");
    let spsc = spsc::create(&spsc_name, spsc::Config::default().capacity(4096)).unwrap();
    let mpmc = mpmc::create(&mpmc_name, mpmc::Config::default().slots(16)).unwrap();
    let (mut tx, mut rx) = (spsc.producer().unwrap(), spsc.consumer().unwrap());
    let (mut many_tx, mut many_rx) = (mpmc.producer().unwrap(), mpmc.consumer().unwrap());
    for number in 0..10 {
        let message = format!("message {number}");
        tx.send(message.as_bytes()).unwrap();
        many_tx.send(message.as_bytes()).unwrap();
    }
    let expected: String = (0..10)
        .map(|number| format!("message {number}\n"))
        .collect();
    for name in [&spsc_name, &mpmc_name] {
        let out = ringway(&["tap", "--waiting", "-n", "10", "--as", "lines", name]);
        assert_eq!(stdout(&out), expected, "{name}");
        let shown = stdout(&ringway(&["tap", "--waiting", "-n", "1", name]));
        assert!(shown.contains("9 B  \"message 0\""), "{shown}");
    }
    for number in 0..10 {
        let message = format!("message {number}");
        assert_eq!(&*rx.recv().unwrap(), message.as_bytes());
        assert_eq!(&*many_rx.recv().unwrap(), message.as_bytes());
    }
}

/// Each message is one number over and over, so that one that was torn shows.
#[test]
fn a_tap_of_a_busy_ring_shows_nothing_torn_and_says_what_it_missed() {
    let _dog = watchdog(180);
    let name = name("tap-busy");
    let ring = spsc::create(&name, spsc::Config::default().capacity(1 << 16)).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    let mut tap = tool()
        .args(["tap", "--as", "records", &name])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = tap.stderr.take().unwrap();
    let seen = Arc::new(AtomicU64::new(0));
    let reader = {
        let mut out = tap.stdout.take().unwrap();
        let seen = seen.clone();
        std::thread::spawn(move || {
            let (mut last, mut length) = (None, [0; 4]);
            while out.read_exact(&mut length).is_ok() {
                let mut message = vec![0; u32::from_le_bytes(length) as usize];
                out.read_exact(&mut message).unwrap();
                let number = u64::from_le_bytes(message[..8].try_into().unwrap());
                let whole = message
                    .chunks_exact(8)
                    .all(|word| word == number.to_le_bytes());
                assert!(whole, "message {number} is torn");
                assert!(
                    last.is_none_or(|last| last < number),
                    "{number} after {last:?}"
                );
                last = Some(number);
                seen.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let tap = Reaped(tap);
    // It is there when it has seen something; from then on both sides run at full speed.
    let mut sent = 0u64;
    let mut pass = |count: u64| {
        for _ in 0..count {
            let words = 1 + sent % 40;
            let message: Vec<u8> = (0..words).flat_map(|_| sent.to_le_bytes()).collect();
            tx.send(&message).unwrap();
            rx.recv().unwrap();
            sent += 1;
        }
    };
    let is_open = |pid: u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .flatten();
        let mut links = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        links.any(|link| link.ends_with(format!("ringway.{name}")))
    };
    until(|| is_open(tap.0.id()));
    for round in 0.. {
        if round >= 50 && seen.load(Ordering::Relaxed) > 0 {
            break;
        }
        pass(2000);
        std::thread::yield_now();
    }
    drop((tx, rx, ring));
    reader.join().unwrap();
    let seen = seen.load(Ordering::Relaxed);
    let mut said = String::new();
    stderr.read_to_string(&mut said).unwrap();
    assert!(said.contains(&format!("saw {seen} message")), "{said}");
    assert!(said.contains("missed"), "{said}");
    assert!(seen > 0 && seen <= sent, "{seen} of {sent}");
}

#[test]
fn a_tap_of_a_quiet_ring_ends_when_nobody_reads_what_it_shows() {
    let _dog = watchdog(120);
    let name = name("tap-quiet");
    let spsc = spsc::create(&name, spsc::Config::default()).unwrap();
    let mut tx = spsc.producer().unwrap();
    tx.send(b"one").unwrap();
    let all = format!("{name}-all");
    let broadcast = broadcast::create(&all, broadcast::Config::default()).unwrap();
    let mut to_all = broadcast.producer().unwrap();
    to_all.send(b"one").unwrap();
    for name in [&name, &all] {
        let mut tap = tool();
        tap.args(["tap", "--waiting", name]).stdout(Stdio::piped());
        let mut tap = Reaped(tap.spawn().unwrap());
        let mut out = tap.0.stdout.take().unwrap();
        out.read_exact(&mut [0; 10]).unwrap();
        drop(out);
        assert!(tap.0.wait().unwrap().success());
    }
    broadcast.unlink().unwrap();
    spsc.unlink().unwrap();
}

/// What the terminal was sent until the tool ended.
fn screen(mut terminal: std::fs::File, seen: impl Fn(&str) -> bool, then: impl FnOnce()) -> String {
    let mut text = Vec::new();
    let mut then = Some(then);
    while let Some(piece) = next_piece(&mut terminal) {
        text.extend_from_slice(&piece);
        if seen(&String::from_utf8_lossy(&text))
            && let Some(then) = then.take()
        {
            then();
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn top_shows_rings_and_puts_the_terminal_back_however_it_ends() {
    let _dog = watchdog(180);
    let name = name("top");
    let ring = spsc::create(&name, spsc::Config::default()).unwrap();
    let (mut tx, rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    tx.send(b"waits").unwrap();
    // The cursor is shown, and the other screen left.
    const PUT_BACK: [&str; 2] = ["\x1b[?25h", "\x1b[?1049l"];
    for (rows, columns) in [(24, 80), (45, 160)] {
        for end in ["q", "\x03", "SIGTERM", "SIGHUP"] {
            let args = ["top", "--every", "0.2", "--sort", "name", &name];
            let (mut top, terminal) = in_terminal(tool().args(args), rows, columns);
            let pid = nix::unistd::Pid::from_raw(top.0.id() as i32);
            let mut keys = terminal.try_clone().unwrap();
            let shown = screen(
                terminal,
                |text| text.contains("consumer"),
                || match end.parse::<nix::sys::signal::Signal>() {
                    Ok(signal) => nix::sys::signal::kill(pid, signal).unwrap(),
                    Err(_) => std::io::Write::write_all(&mut keys, end.as_bytes()).unwrap(),
                },
            );
            assert!(top.0.wait().unwrap().success(), "{end:?}");
            assert!(shown.contains("test-watch-top"), "{shown}");
            assert!(
                PUT_BACK.iter().all(|code| shown.contains(code)),
                "{end:?}: the terminal is not put back: {shown:?}"
            );
        }
    }
    drop((tx, rx));
    ring.unlink().unwrap();
    let out = ringway(&["top"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("needs a terminal"));
}

#[test]
fn top_ends_when_its_terminal_goes_away() {
    let _dog = watchdog(180);
    for _ in 0..20 {
        let args = ["top", "--every", "0.05", "no-ring-is-called-so"];
        let (mut top, mut terminal) = in_terminal(tool().args(args), 24, 80);
        terminal.read_exact(&mut [0; 64]).unwrap();
        drop(terminal);
        // By itself: neither a signal nor a panic ended it.
        let status = top.0.wait().unwrap();
        assert!(matches!(status.code(), Some(0 | 1)), "{status}");
    }
}

#[test]
fn top_lets_go_of_a_ring_without_a_name_when_nobody_else_has_it() {
    let _dog = watchdog(180);
    let ring = spsc::Ring::anonymous(spsc::Config::default()).unwrap();
    let _roles = (ring.producer().unwrap(), ring.consumer().unwrap());
    let prefix = format!("/proc/{}/", std::process::id());
    let (mut top, terminal) = in_terminal(tool().args(["top", "--every", "0.05", &prefix]), 24, 80);
    let mut keys = terminal.try_clone().unwrap();
    let pid = top.0.id();
    let looks = move || {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let mut links = files
            .flatten()
            .filter_map(|file| std::fs::read_link(file.path()).ok());
        links.any(|link| link.to_string_lossy().starts_with("/memfd:ringway"))
    };
    let shown = screen(
        terminal,
        |text| text.contains("consumer"),
        || {
            assert!(looks());
            drop((_roles, ring));
            std::thread::spawn(move || {
                until(|| !looks());
                std::io::Write::write_all(&mut keys, b"q").unwrap();
            });
        },
    );
    assert!(top.0.wait().unwrap().success());
    assert!(shown.contains("no rings yet"), "{shown}");
}

#[test]
fn the_doctor_finds_what_this_machine_has_and_what_is_forbidden() {
    let _dog = watchdog(120);
    let json = stdout(&ringway(&["doctor", "--json"]));
    for about in [
        "kernel",
        "system calls",
        "/dev/shm",
        "message queues",
        "processors",
        "auto:",
    ] {
        assert!(
            json.contains(&format!("\"about\": \"{about}\"")),
            "no {about} in {json}"
        );
    }
    // Hints and worse come with what to do.
    let all = json.matches("\"verdict\"").count();
    assert!(all >= 10, "{json}");
    // Too few descriptors are noticed.
    let out = Command::new("sh")
        .args(["-c", "ulimit -n 64; exec \"$0\" doctor"])
        .arg(env!("CARGO_BIN_EXE_ringway"))
        .output()
        .unwrap();
    let text = stdout(&out);
    assert!(
        text.contains("hint descriptors") && text.contains("-> ulimit -n"),
        "{text}"
    );
}

#[test]
fn completions_and_manual_pages_come_from_the_one_definition() {
    let _dog = watchdog(120);
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&ringway(&["completions", shell]));
        assert!(
            script.contains("inspect") && script.contains("prometheus"),
            "{shell}"
        );
    }
    let script = stdout(&ringway(&["completions", "bash"]));
    let mut bash = Command::new("bash")
        .arg("-n")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut bash.stdin.take().unwrap(), script.as_bytes()).unwrap();
    assert!(bash.wait().unwrap().success());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("man1");
    stdout(&ringway(&["man", path.to_str().unwrap()]));
    let page = std::fs::read_to_string(path.join("ringway-inspect.1")).unwrap();
    assert!(page.starts_with(".ie") || page.contains(".TH"), "{page}");
    assert!(path.join("ringway.1").exists());
}

#[test]
fn help_fits_a_screen_names_every_command_and_each_command_shows_examples() {
    let _dog = watchdog(120);
    let fits = |args: &[&str]| {
        let out = tool().args(args).env("COLUMNS", "80").output().unwrap();
        let help = stdout(&out);
        // The last line of the screen is the prompt's.
        let (lines, columns) = (
            help.lines().count(),
            help.lines().map(|line| line.chars().count()),
        );
        assert!(lines <= 23, "{args:?}: {lines} lines:\n{help}");
        assert!(columns.max() <= Some(80), "{args:?}:\n{help}");
        help
    };
    let help = fits(&["--help"]);
    let script = stdout(&ringway(&["completions", "fish"]));
    let commands: Vec<&str> = script
        .lines()
        .filter(|line| line.contains("needs_command"))
        .filter_map(|line| line.split_once("-a \"")?.1.split('"').next())
        .collect();
    assert!(commands.len() > 15 && commands.contains(&"tee"), "{script}");
    for command in commands {
        let is_there = help.split_whitespace().any(|word| word == command);
        assert!(is_there, "no {command} in\n{help}");
        for flag in ["-h", "--help"] {
            let of_command = fits(&[command, flag]);
            assert!(of_command.contains("Example"), "{command} shows no example");
        }
        let all = stdout(&ringway(&[command, "--help-all"]));
        assert!(all.contains("Example"), "{command}");
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = stdout(&ringway(&["completions", shell]));
        let hidden = script.contains("adapter") || script.contains("bench-worker");
        assert!(!hidden, "{shell} offers what is not for users");
    }
}

#[test]
fn a_broadcast_ring_is_seen_too() {
    let _dog = watchdog(120);
    let name = name("broadcast");
    let ring = broadcast::create(&name, broadcast::Config::default()).unwrap();
    let mut subscriber = ring.subscriber().unwrap();
    let mut producer = ring.producer().unwrap();
    producer.send(b"to all").unwrap();
    let look = || {
        let observer = ringway::observe::Observer::open(&name);
        observer.unwrap().snapshot().unwrap()
    };
    let seen = look();
    assert_eq!((seen.sent, seen.waiting), (1, Some(1)));
    assert!(seen.used > 0, "one subscriber is behind: {seen:?}");
    assert_eq!(seen.participants.len(), 2);
    assert_eq!(&*subscriber.recv().unwrap(), b"to all");
    assert_eq!(look().waiting, Some(0));
    let list = stdout(&ringway(&["list"]));
    assert!(
        list.lines()
            .any(|line| line.starts_with(&name) && line.contains("broadcast")),
        "{list}"
    );
    // By its name, and as an endpoint.
    for called in [
        name.clone(),
        format!("bcast:{name}"),
        format!("bcast:{name}?lossy=0"),
    ] {
        let args = ["tap", "--waiting", "-n", "1", "--as", "lines", &called];
        assert_eq!(stdout(&ringway(&args)), "to all\n", "{called}");
        let inspect = stdout(&ringway(&["inspect", &called]));
        assert!(inspect.contains(&name), "{inspect}");
    }
}

/// Every figure of a broadcast ring is right, or is not shown.
#[test]
fn what_waits_in_a_broadcast_ring_is_counted_and_what_nobody_counts_is_not_shown() {
    let _dog = watchdog(120);
    let name = name("counted");
    let config = || broadcast::Config::default().capacity(1 << 16);
    let ring = broadcast::create(&name, config()).unwrap();
    let mut subscriber = ring.subscriber().unwrap();
    let mut producer = ring.producer().unwrap();
    let snapshot = || {
        let observer = ringway::observe::Observer::open(&name);
        observer.unwrap().snapshot().unwrap()
    };
    // Round the end of the area more than once, and always some behind.
    let (mut sent, mut taken) = (0, 0);
    for round in 0..3000u64 {
        producer.send(&vec![0; (round * 7 % 300) as usize]).unwrap();
        sent += 1;
        if sent - taken > 100 {
            subscriber.recv().unwrap();
            taken += 1;
        }
        if round % 50 == 0 {
            let seen = snapshot();
            assert_eq!((seen.sent, seen.waiting), (sent, Some(sent - taken)));
        }
    }
    let seen = snapshot();
    assert_eq!((seen.received, seen.received_bytes), (None, None));
    let inspect = stdout(&ringway(&["inspect", &name]));
    assert!(inspect.contains("100 messages waiting"), "{inspect}");
    assert_eq!(inspect.matches("still there").count(), 8, "{inspect}");
    assert!(!inspect.contains("received"), "{inspect}");
    let text = stdout(&ringway(&["stats", "--prometheus", &name]));
    let of_subscriber = |metric: &str| {
        text.lines()
            .any(|line| line.starts_with(metric) && line.contains("role=\"subscriber\""))
    };
    assert!(!of_subscriber("ringway_messages_total"), "{text}");
    assert!(of_subscriber("ringway_stalls_total"), "{text}");
    drop((producer, subscriber, ring));
    // Nobody says what was taken from a lossy ring.
    let lossy = config().policy(broadcast::Policy::Lossy);
    let ring = broadcast::create(&name, lossy).unwrap();
    let mut producer = ring.producer().unwrap();
    producer.send(b"to whom it may concern").unwrap();
    assert_eq!(snapshot().waiting, None);
    let text = stdout(&ringway(&["stats", "--prometheus", &name]));
    assert!(!text.contains("ringway_waiting_messages{"), "{text}");
    assert!(!snapshot().closed);
    drop(producer);
    assert!(snapshot().closed);
}
