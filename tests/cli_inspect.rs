//! `ringway list`, `inspect`, `rm` and `clean` on real rings of real processes.
#![cfg(feature = "cli")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use ringway::channel::{self, Receiver as _, Sender as _};
use ringway::{mpmc, spsc};

mod common;

use common::{Reaped, child, task, until, watchdog};

fn ringway(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringway"))
        .args(args)
        .output()
        .expect("the tool runs")
}

fn stdout(out: &Output) -> String {
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout.clone()).unwrap()
}

fn stderr(out: &Output) -> String {
    assert_eq!(out.status.code(), Some(1), "{out:?}");
    String::from_utf8(out.stderr.clone()).unwrap()
}

fn name(what: &str) -> String {
    format!("test-inspect-{what}-{}", std::process::id())
}

fn file(name: &str) -> PathBuf {
    Path::new("/dev/shm").join(format!("ringway.{name}"))
}

/// The member `field` of a JSON object in `text`, up to the end of its line.
fn field<'a>(text: &'a str, field: &str) -> &'a str {
    let key = format!("\"{field}\": ");
    let at = text
        .find(&key)
        .unwrap_or_else(|| panic!("no {field} in {text}"));
    text[at + key.len()..]
        .lines()
        .next()
        .unwrap()
        .trim_end_matches(',')
}

/// A process that holds a ring's producer until it is killed; told to by the variable.
fn hold_a_ring() {
    let Some(name) = task() else { return };
    let ring = spsc::create_or_attach(&name, spsc::Config::default()).unwrap();
    let mut tx = ring.producer().unwrap();
    tx.send(b"the first").unwrap();
    tx.send(&[0, 1, 2, 0xff]).unwrap();
    println!("ready");
    std::thread::park();
}

#[test]
fn what_a_killed_process_left_is_listed_inspected_kept_and_removed() {
    let _dog = watchdog(120);
    if task().is_some() {
        return hold_a_ring();
    }
    let name = name("killed");
    let this = "what_a_killed_process_left_is_listed_inspected_kept_and_removed";
    let mut holder = child(this, &name).stdout(Stdio::null()).spawn().unwrap();
    until(|| {
        let seen = ringway::observe::Observer::open(&name).and_then(|ring| ring.snapshot());
        seen.is_ok_and(|seen| seen.sent == 2)
    });
    let pid = holder.id().to_string();

    let list = stdout(&ringway(&["list"]));
    let row = list.lines().skip_while(|line| !line.starts_with(&name));
    let row: Vec<&str> = row.take(2).collect();
    assert!(row[0].contains("spsc") && row[0].contains("live"), "{list}");
    assert!(
        row[1].contains("producer") && row[1].contains(&pid),
        "{list}"
    );
    assert!(row[1].contains(this), "the command is shown: {list}");

    let inspect = stdout(&ringway(&["inspect", &name]));
    assert!(inspect.contains("2 messages waiting"), "{inspect}");
    assert!(inspect.contains("\"the first\""), "{inspect}");
    assert!(inspect.contains("000102ff"), "{inspect}");
    let json = stdout(&ringway(&["inspect", "--json", &name]));
    assert_eq!(field(&json, "sent"), "2");
    assert_eq!(field(&json, "state"), "\"live\"");

    // In use: nobody takes it away.
    let refused = stderr(&ringway(&["rm", &name]));
    assert!(
        refused.contains("in use") && refused.contains(&pid),
        "{refused}"
    );
    let clean = stdout(&ringway(&["clean", "--yes", "--undelivered", &name]));
    assert_eq!(clean, "nothing to clean\n");
    assert!(file(&name).exists());

    holder.kill().unwrap();
    holder.wait().unwrap();
    let list = stdout(&ringway(&["list"]));
    let row: Vec<&str> = list
        .lines()
        .skip_while(|line| !line.starts_with(&name))
        .take(2)
        .collect();
    assert!(row[0].contains("undelivered"), "{list}");
    assert!(row[1].contains("died"), "{list}");

    // Messages wait in it: it is kept, unless told otherwise; and a dry run does nothing.
    let clean = stdout(&ringway(&["clean", "--yes", &name]));
    assert!(
        clean.contains("kept") && clean.contains("2 messages"),
        "{clean}"
    );
    let clean = stdout(&ringway(&["clean", "--undelivered", &name]));
    assert!(
        clean.contains("would remove") && clean.contains("--yes"),
        "{clean}"
    );
    assert!(file(&name).exists());
    let clean = stdout(&ringway(&["clean", "--undelivered", "--yes", &name]));
    assert!(clean.starts_with("removed"), "{clean}");
    assert!(!file(&name).exists());
    let missing = stderr(&ringway(&["inspect", &name]));
    assert!(missing.contains("ringway list"), "{missing}");
}

#[test]
fn counters_and_participants_of_a_ring_are_seen_by_name_by_path_and_without_a_name() {
    let _dog = watchdog(120);
    let name = name("mpmc");
    let config = || mpmc::Config::default().slots(8).participants(4);
    let named = mpmc::create(&name, config()).unwrap();
    let nameless = mpmc::Ring::anonymous(config()).unwrap();
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&nameless));
    let nameless_path = format!("/proc/{}/fd/{descriptor}", std::process::id());
    for (ring, name) in [
        (&named, name.clone()),
        (&named, file(&name).display().to_string()),
        (&nameless, nameless_path.clone()),
    ] {
        let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
        tx.send(b"taken").unwrap();
        rx.recv().unwrap();
        tx.send(b"waiting").unwrap();
        let json = stdout(&ringway(&["inspect", "--json", &name]));
        assert_eq!(field(&json, "kind"), "\"mpmc\"");
        assert_eq!(field(&json, "waiting"), "1");
        assert!(json.contains("\\\"waiting\\\""), "{json}");
        assert!(json.contains("\"role\": \"consumer\""), "{json}");
        rx.recv().unwrap();
    }
    let list = stdout(&ringway(&["list"]));
    assert!(list.contains(&nameless_path), "{list}");
    let refused = stderr(&ringway(&["rm", &nameless_path]));
    assert!(refused.contains("no name to remove"), "{refused}");
    // Dead, it is not what could be cleaned.
    let kept = std::os::fd::AsFd::as_fd(&nameless)
        .try_clone_to_owned()
        .unwrap();
    let path = format!(
        "/proc/{}/fd/{}",
        std::process::id(),
        std::os::fd::AsRawFd::as_raw_fd(&kept)
    );
    drop(nameless);
    let inspect = stdout(&ringway(&["inspect", "--json", &path]));
    assert_eq!(field(&inspect, "state"), "\"dead\"");
    for args in [&["clean", &path][..], &["clean", "--yes", &path]] {
        assert_eq!(stdout(&ringway(args)), "nothing to clean\n");
    }
    // Whoever only looks on does not keep it among what there is.
    let onlooker = std::fs::File::open(&path).unwrap();
    let onlooker = std::os::fd::AsRawFd::as_raw_fd(&onlooker);
    drop(kept);
    let list = stdout(&ringway(&["list"]));
    let path = format!("/proc/{}/fd/{onlooker}", std::process::id());
    assert!(!list.contains(&path), "{list}");
}

#[test]
fn a_dead_queue_fifo_socket_and_semaphore_buffer_are_found_and_cleaned_and_live_ones_are_not() {
    let _dog = watchdog(120);
    if let Some(name) = task() {
        let queue = channel::mqueue::Sender::open(&format!("ringway.{name}"), Default::default());
        let buffer = channel::semaphore::Sender::open(&name, Default::default());
        let path = std::env::temp_dir().join(format!("ringway.{name}.fifo"));
        let fifo = channel::fifo::Receiver::open(path, Default::default());
        let path = std::env::temp_dir().join(format!("ringway.{name}.sock"));
        let socket = channel::socket::Receiver::open(path, Default::default());
        let all = (
            queue.unwrap(),
            buffer.unwrap(),
            fifo.unwrap(),
            socket.unwrap(),
        );
        // The last of them: whoever sees it sees all.
        let ring = mpmc::create(&name, mpmc::Config::default().slots(2)).unwrap();
        std::thread::park();
        drop((all, ring));
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let name = name("classic");
    let this =
        "a_dead_queue_fifo_socket_and_semaphore_buffer_are_found_and_cleaned_and_live_ones_are_not";
    let mut command = child(this, &name);
    command
        .env("TMPDIR", directory.path())
        .stdout(Stdio::null());
    let mut holder = Reaped(command.spawn().unwrap());
    until(|| file(&name).exists());

    let ours = |args: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_ringway"))
            .args(args)
            .env("RINGWAY_DIR", directory.path())
            .output()
            .unwrap();
        stdout(&out)
    };
    let state = |kind: &str| {
        let list = ours(&["list"]);
        let row = list
            .lines()
            .find(|line| line.contains(&name) && line.split_whitespace().nth(1) == Some(kind));
        row.and_then(|row| row.split_whitespace().nth(2))
            .map(str::to_owned)
    };
    let kinds = ["queue", "sem", "fifo", "socket", "mpmc"];
    let pattern = format!("*{name}*");
    for kind in kinds {
        assert_eq!(
            state(kind).as_deref(),
            Some("live"),
            "{kind}: {}",
            ours(&["list"])
        );
    }
    assert_eq!(ours(&["clean", "--yes", &pattern]), "nothing to clean\n");
    holder.0.kill().unwrap();
    holder.0.wait().unwrap();
    for kind in kinds {
        assert_eq!(
            state(kind).as_deref(),
            Some("dead"),
            "{kind}: {}",
            ours(&["list"])
        );
    }
    let clean = ours(&["clean", "--yes", &pattern]);
    assert_eq!(
        clean
            .lines()
            .filter(|line| line.starts_with("removed"))
            .count(),
        5,
        "{clean}"
    );
    for kind in kinds {
        assert_eq!(state(kind), None, "{kind}");
    }
    // And the names can be used again.
    let mut queue =
        channel::mqueue::Sender::open(&format!("ringway.{name}"), Default::default()).unwrap();
    queue.close();
}

#[test]
fn files_that_no_honest_program_wrote_are_shown_and_harm_nobody() {
    let _dog = watchdog(120);
    let name = name("hostile");
    let ring = spsc::create(&name, spsc::Config::default().capacity(4096)).unwrap();
    let mut tx = ring.producer().unwrap();
    tx.send(b"whole").unwrap();
    let good = std::fs::read(file(&name)).unwrap();
    let bad = format!("{name}-bad");
    let mut random = common::Random(7);
    for round in 0..60 {
        let mut bytes = good.clone();
        for _ in 0..1 + random.below(200) {
            // The header stays, most of the time: behind it any word may be anything.
            let from = if round % 4 == 0 { 0 } else { 2048 };
            let at = from + random.below((bytes.len() - from) as u64) as usize;
            bytes[at] = random.next() as u8;
        }
        if round % 7 == 0 {
            bytes.truncate(random.below(bytes.len() as u64) as usize);
        }
        std::fs::write(file(&bad), &bytes).unwrap();
        for args in [&["inspect", &bad][..], &["inspect", "--json", &bad]] {
            let out = ringway(args);
            assert!(matches!(out.status.code(), Some(0 | 1)), "{round}: {out:?}");
        }
    }
    std::fs::write(file(&bad), b"no ring at all").unwrap();
    let list = stdout(&ringway(&["list"]));
    assert!(list.contains("unknown"), "{list}");
    let refused = stderr(&ringway(&["rm", &bad]));
    assert!(refused.contains("only 14 bytes"), "{refused}");
    let remedy = format!("rm {}", file(&bad).display());
    assert!(refused.contains(&remedy), "{refused}");
    let doctor = stdout(&ringway(&["doctor", "--json"]));
    assert!(doctor.contains("that cannot be told"), "{doctor}");
    std::fs::remove_file(file(&bad)).unwrap();
    ring.unlink().unwrap();
}

#[test]
fn what_a_killed_run_has_left_between_its_stages_is_cleaned_and_what_a_living_one_has_is_not() {
    let _dog = watchdog(120);
    let mut gone = std::process::Command::new("true").spawn().unwrap();
    let gone_pid = gone.id();
    gone.wait().unwrap();
    let names = [gone_pid, std::process::id()].map(|pid| format!("run-{pid}.1"));
    for name in &names {
        let mut queue = channel::mqueue::Sender::open(name, Default::default()).unwrap();
        queue.send(b"for the next stage").unwrap();
    }
    let [left, living] = &names;
    let clean = |name: &str| stdout(&ringway(&["clean", "--yes", &format!("mq:{name}")]));
    let said = clean(left);
    assert!(said.starts_with(&format!("removed mq:{left} ")), "{said}");
    assert!(channel::mqueue::Receiver::attach(left).is_err());
    let said = clean(living);
    assert!(said.starts_with(&format!("kept mq:{living} ")), "{said}");
    let mut queue = channel::mqueue::Receiver::attach(living).unwrap();
    queue.recv(&mut Vec::new()).unwrap();
}
