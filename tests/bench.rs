//! `ringway bench` as a user runs it: what it prints and writes, and that it leaves nothing behind.
#![cfg(feature = "cli")]

use std::io::Read;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn ringway() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ringway"))
}

/// Waits until `child` ends; ends it after two minutes.
fn in_time(mut child: Child) -> Output {
    let mut pipe = child.stdout.take().expect("standard output is a pipe");
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        pipe.read_to_end(&mut text).map(|_| text)
    });
    let until = Instant::now() + Duration::from_secs(120);
    while !reader.is_finished() {
        if Instant::now() > until {
            child.kill().unwrap();
            panic!("`ringway bench` took more than two minutes");
        }
        std::thread::yield_now();
    }
    Output {
        status: child.wait().unwrap(),
        stdout: reader.join().unwrap().unwrap(),
        stderr: Vec::new(),
    }
}

fn bench(args: &[&str]) -> Output {
    let mut command = ringway();
    // Quick: no more rounds than that, though one never settles a row.
    command.args(["bench", "--quick", "--rounds=1"]);
    if !args.iter().any(|arg| arg.starts_with("--count")) {
        command.arg("--duration=2");
    }
    let child = command
        .args(args)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    in_time(child)
}

fn json(args: &[&str]) -> serde_json::Value {
    let output = bench(&[args, &["--json", "-"]].concat());
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a run might leave: named memory, FIFOs, message queues.
fn remains(pid: u32) -> Vec<String> {
    let mut remains = Vec::new();
    let queue = std::ffi::CString::new(format!("/ringway-bench-{pid}")).unwrap();
    // SAFETY: the name is NUL-terminated, and nothing is made.
    let found = unsafe { libc::mq_open(queue.as_ptr(), libc::O_RDONLY) };
    if found >= 0 {
        // SAFETY: the descriptor was just opened, and nobody else has it.
        unsafe { libc::mq_close(found) };
        remains.push(format!("POSIX queue {queue:?}"));
    }
    for directory in [std::path::Path::new("/dev/shm"), &std::env::temp_dir()] {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.contains(&format!("bench-{pid}")) {
                remains.push(name);
            }
        }
    }
    // Columns: key, id, permissions, bytes, messages, last sender, last receiver, ...
    let queues = std::fs::read_to_string("/proc/sysvipc/msg").unwrap_or_default();
    for line in queues.lines().skip(1) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let dead = |pid: &str| pid != "0" && !std::path::Path::new("/proc").join(pid).exists();
        if fields[0] == "0" && dead(fields[5]) {
            remains.push(format!("System V queue {}", fields[1]));
        }
    }
    remains
}

#[test]
fn every_mechanism_gives_a_row_with_its_limit() {
    let results = json(&["--size", "8", "--mode", "rtt,throughput,batch"]);
    for field in ["cpu", "kernel", "pinning", "version", "date", "command"] {
        assert!(!results["header"][field].is_null(), "header.{field}");
    }
    let rows = results["rows"].as_array().unwrap();
    let found = |mechanism: &str, mode: &str| {
        rows.iter()
            .find(|row| row["mechanism"] == mechanism && row["mode"] == mode)
            .unwrap_or_else(|| panic!("{mechanism} {mode}"))
    };
    for mechanism in MECHANISMS {
        let row = found(mechanism, "rtt");
        let times = ["p50", "p90", "p99", "p999", "max"];
        let times = times.map(|time| row["rtt_ns"][time].as_f64().unwrap());
        assert!(times[0] > 0.0 && times.is_sorted(), "{mechanism} {times:?}");
        assert!(row["typical_ns"].as_f64().unwrap() > 0.0, "{mechanism}");
        let few = row["rounds"].as_u64().unwrap() < 2;
        assert!(!few || row["unsettled"] == true, "{mechanism}: {row}");
        assert!(row["limit"].is_string());
        for field in ["msgs_per_s", "bytes_per_s", "rounds", "min", "max"] {
            assert!(row[field].as_f64().unwrap() > 0.0, "{mechanism} {field}");
        }
        for mode in ["throughput", "batch"] {
            let row = found(mechanism, mode);
            assert!(row["msgs_per_s"].as_f64().unwrap() > 0.0);
            assert!(row["ratio_to_limit"].as_f64().unwrap() > 0.0);
        }
    }
    found("bare-futex", "rtt");
    found("memcpy", "throughput");
}

const MECHANISMS: [&str; 14] = [
    "spsc",
    "mpmc",
    "broadcast",
    "semaphore",
    "eventfd",
    "pipe",
    "fifo",
    "mqueue",
    "sysv",
    "signal",
    "unix-stream",
    "unix-seqpacket",
    "unix-datagram",
    "tcp",
];

#[test]
fn odd_sizes_arrive_whole() {
    let mechanisms = [
        "spsc",
        "mpmc",
        "broadcast",
        "pipe",
        "unix-stream",
        "unix-seqpacket",
        "semaphore",
        "eventfd",
    ];
    let results = json(&[
        "--size",
        "0,1,7,17,1000,70000",
        "--mode",
        "rtt,throughput,batch",
        "--mechanism",
        &mechanisms.join(","),
        "--wait",
        "adaptive",
        "--bare",
    ]);
    let rows = results["rows"].as_array().unwrap();
    for mechanism in mechanisms {
        let of = rows.iter().filter(|row| row["mechanism"] == mechanism);
        assert_eq!(of.count(), 18, "{mechanism}");
    }
}

#[test]
fn one_processor_is_enough() {
    let results = json(&[
        "--cpus",
        "0",
        "--mechanism",
        "pipe,mqueue,spsc,mpmc,broadcast",
        "--wait",
        "futex",
        "--size",
        "64",
        "--mode",
        "rtt,throughput",
    ]);
    let rows = results["rows"].as_array().unwrap();
    for mechanism in ["mqueue", "spsc", "mpmc", "broadcast"] {
        assert!(rows.iter().any(|row| row["mechanism"] == mechanism));
    }
    assert!(rows.iter().all(|row| row["placement"] == "same"));
}

#[test]
fn the_paced_mode_measures_from_when_a_message_was_due() {
    // 10,000 messages due within 10 µs: the last one is late by nearly all the time that they take,
    // however long that is. (Measured from when it was sent, it would be late by one message's.)
    let results = json(&[
        "--mechanism=pipe",
        "--bare",
        "--size=64",
        "--rate=1000000000",
        "--count=10000",
    ]);
    let rows = results["rows"].as_array().unwrap();
    let row = rows
        .iter()
        .find(|row| row["rate"] == 1_000_000_000)
        .unwrap();
    let one = 1e9 / row["msgs_per_s"].as_f64().unwrap(); // what a message really takes
    let latest = row["rtt_ns"]["max"].as_f64().unwrap();
    assert!(latest > 5_000.0 * one, "{latest} ns late, at {one} ns each");
}

#[test]
fn a_rate_that_a_mechanism_cannot_keep_is_the_last_that_is_tried() {
    let results = json(&[
        "--mechanism=pipe",
        "--bare",
        "--mode=paced",
        "--rate=2000000000,1000000000",
        "--count=2000",
    ]);
    let rows = results["rows"].as_array().unwrap();
    let rates: Vec<_> = rows.iter().filter_map(|row| row["rate"].as_u64()).collect();
    assert_eq!(rates, [1_000_000_000]);
}

#[test]
fn every_repetition_is_told_with_its_placement() {
    let results = json(&[
        "--mechanism=spsc",
        "--wait=adaptive",
        "--size=8",
        "--mode=rtt",
    ]);
    let rows = results["rows"].as_array().unwrap();
    let row = rows.iter().find(|row| row["mechanism"] == "spsc").unwrap();
    let repetitions = row["repetitions"].as_array().unwrap();
    assert_eq!(
        repetitions.len() as u64,
        row["rounds_made"].as_u64().unwrap()
    );
    let at = |placement: &serde_json::Value| {
        let those = repetitions
            .iter()
            .filter(|one| one["placement"] == *placement);
        those.count() as u64
    };
    assert_eq!(at(&row["placement"]), row["rounds"].as_u64().unwrap());
    for one in repetitions {
        assert!(one["value"].as_f64().unwrap() > 0.0);
        if row["placement"] != "same" {
            assert_eq!(one["raw1_ns"].as_array().unwrap().len(), 2);
        }
    }
}

#[test]
fn two_runs_are_compared_row_by_row() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let row = |p50: f64, size: u64| {
        serde_json::json!({
            "mechanism": "pipe", "mode": "rtt", "size": size, "wait": null, "placement": "near",
            "msgs_per_s": 1e9 / p50, "rtt_ns": {"p50": p50}, "iqr": 0.05, "unsettled": false,
        })
    };
    let write = |name: &str, rows: &[serde_json::Value]| {
        std::fs::write(path(name), serde_json::json!({ "rows": rows }).to_string()).unwrap();
    };
    write("a", &[row(100.0, 8), row(100.0, 64)]);
    write("b", &[row(110.0, 8)]);
    write("c", &[row(110.0, 8), row(120.0, 64)]);
    write("d", &[row(100.0, 1024)]);
    let compare = |before: &str, after: &str| {
        let (before, after) = (path(before), path(after));
        let args = ["bench", "--compare", before.as_str(), after.as_str()];
        let output = ringway().args(args).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), text, output.stderr)
    };
    let (code, text, _) = compare("a", "b");
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("+10.0 %") && text.contains("1 agree"),
        "{text}"
    );
    let (code, text, _) = compare("a", "c");
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("differs") && text.contains("1 differ"),
        "{text}"
    );
    // Newer results tell the compared time apart from the percentiles, and one repetition is too few.
    let (mut newer, mut alone) = (row(500.0, 8), row(110.0, 8));
    newer["typical_ns"] = 110.0.into();
    alone["rounds"] = 1.into();
    write("e", &[newer]);
    write("f", &[alone]);
    let (code, text, _) = compare("a", "e");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("+10.0 %"), "{text}");
    let (code, text, trouble) = compare("a", "f");
    assert_eq!(code, Some(1), "{text}");
    let trouble = String::from_utf8(trouble).unwrap();
    assert!(trouble.contains("nothing can be said"), "{trouble}");
    let (code, _, trouble) = compare("a", "d");
    assert_eq!(code, Some(1));
    assert!(
        String::from_utf8(trouble)
            .unwrap()
            .contains("no row in common")
    );
}

#[test]
fn one_way_times_are_given_where_a_message_has_room_for_a_time() {
    let results = json(&["--mechanism", "pipe", "--mode", "oneway", "--size", "4,64"]);
    let rows = results["rows"].as_array().unwrap();
    let one_way = |row: &serde_json::Value| row["mode"] == "oneway" && row["size"] == 64;
    assert!(rows.iter().any(one_way));
    assert_eq!(results["left_out"][0]["size"], 4);
}

#[test]
fn csv_and_html_stand_on_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let (csv, html) = (dir.path().join("r.csv"), dir.path().join("r.html"));
    let output = bench(&[
        "--mechanism",
        "pipe,sysv",
        "--size",
        "8,64",
        "--mode",
        "rtt,oneway,throughput,batch,paced",
        "--csv",
        csv.to_str().unwrap(),
        "--html",
        html.to_str().unwrap(),
    ]);
    assert!(output.status.success());
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("limit: bare-futex") && table.contains("pipe"));
    let one_way = table.find("One way, by the shared clock").unwrap();
    let half = table.find("limit: half of bare-futex").unwrap();
    assert!(half > one_way, "{table}");
    let csv = std::fs::read_to_string(csv).unwrap();
    let mut lines = csv.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let names = lines.next().unwrap();
    let column = |name| names.iter().position(|&one| one == name).unwrap();
    let rows: Vec<_> = lines.collect();
    assert!(rows.len() > 8);
    let (mode, rate, made) = (column("mode"), column("rate"), column("rounds_made"));
    for row in rows {
        assert_eq!(row.len(), names.len(), "{row:?}");
        assert_eq!(row[mode] == "paced", !row[rate].is_empty(), "{row:?}");
        assert!(row[made].parse::<u32>().unwrap() > 0, "{row:?}");
    }
    let html = std::fs::read_to_string(html).unwrap();
    assert!(html.contains("<svg") && html.ends_with("</html>\n"));
    let fetched = html.replace("http://www.w3.org/2000/svg", "");
    for outside in ["http:", "https:", "src=", "@import", "url("] {
        assert!(!fetched.contains(outside), "the report asks for {outside}");
    }
}

#[test]
fn an_interrupted_run_leaves_nothing_behind() {
    // Those that have a name for a moment, or that the kernel would keep.
    let cases = [
        "sysv",
        "fifo",
        "mqueue",
        "spsc",
        "mpmc",
        "broadcast",
        "semaphore",
    ];
    let signals = ["-INT", "-TERM", "-HUP"];
    for (mechanism, signal) in cases.into_iter().zip(signals.into_iter().cycle()) {
        interrupted(mechanism, signal);
    }
}

/// Runs a benchmark of `mechanism`, ends it by `signal`, and waits until nothing of it is left.
fn interrupted(mechanism: &str, signal: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (new, old) = (dir.path().join("new"), dir.path().join("old"));
    std::fs::write(&old, "of another run").unwrap();
    let mut child = ringway()
        .args([
            "bench",
            "--bare",
            "--duration=5000",
            "--mechanism",
            mechanism,
        ])
        .arg("--json")
        .arg(&new)
        .arg("--csv")
        .arg(&old)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id();
    let workers = || -> Vec<String> {
        let path = format!("/proc/{pid}/task/{pid}/children");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.split_ascii_whitespace().map(str::to_owned).collect()
    };
    let until = Instant::now() + Duration::from_secs(60);
    while workers().len() < 2 {
        assert!(Instant::now() < until, "the workers never came");
        std::thread::yield_now();
    }
    let workers = workers();
    let kill = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status();
    assert!(kill.unwrap().success());
    let status = child.wait().unwrap();
    assert!(status.code().is_some_and(|code| code > 128), "{status}");
    assert!(!new.exists(), "an output without results");
    assert_eq!(std::fs::read_to_string(&old).unwrap(), "of another run");
    for worker in workers {
        while running(&worker) {
            assert!(Instant::now() < until, "worker {worker} is still there");
            std::thread::yield_now();
        }
    }
    // Other tests' queues show for a moment between the end of their workers and their own.
    while !remains(pid).is_empty() {
        assert!(Instant::now() < until, "left behind: {:?}", remains(pid));
        std::thread::yield_now();
    }
}

/// Whether process `pid` exists and is no zombie.
fn running(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| {
            let (_, state) = stat.rsplit_once(") ")?;
            Some(!state.starts_with('Z'))
        })
        .unwrap_or(false)
}

#[test]
fn limits_are_shown_when_they_alone_are_asked_for_and_not_when_left_out() {
    let output = bench(&[
        "--mechanism=raw1,memcpy",
        "--size=8",
        "--mode=rtt,throughput",
    ]);
    assert!(output.status.success());
    let table = String::from_utf8(output.stdout).unwrap();
    for limit in ["limit: bare-futex", "limit: memcpy"] {
        assert!(table.contains(limit), "{table}");
    }
    let results = json(&[
        "--mechanism=spsc",
        "--wait=spin",
        "--mode=rtt",
        "--size=8",
        "--bare",
    ]);
    let rows = results["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "{rows:?}");
}

#[test]
fn what_measures_nothing_or_would_be_ignored_is_refused() {
    for (args, word) in [
        (&["--mechanism=mqueue", "--size=1MiB"][..], "msgsize_max"),
        (&["--mechanism=raw1", "--bare"], "raw1"),
        (&["--mode=oneway", "--size=4"], "one-way needs 8 bytes"),
        (&["--mechanism=pipe", "--rate=10", "--mode=rtt"], "--rate"),
        (&["--mechanism=pipe", "--wait=spin"], "spsc, mpmc"),
        (&["--json=-", "--csv=-"], "two outputs"),
        (&["--rounds=0"], "--rounds"),
        (&["--duration=0"], "--duration"),
        (&["--duration=18446744073709551615"], "--duration"),
        (&["--count=18446744073709551615"], "--count"),
    ] {
        let output = ringway().arg("bench").args(args).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
        assert!(text.contains(word), "{args:?}: {text}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn bad_arguments_are_named_with_their_remedy() {
    for (args, word) in [
        (&["--cpus", "4095"][..], "--cpus 4095"),
        (&["--size", "3 furlongs"], "64K or 1MiB"),
        (&["--count", "0"], "--count"),
        (
            &["--compare", "/no/such/file", "/nor/this"],
            "/no/such/file",
        ),
        (&["--rate", "0"], "--rate"),
        (&["--json", "/no/such/directory/x"], "/no/such/directory/x"),
    ] {
        let output = ringway().arg("bench").args(args).output().unwrap();
        assert!(!output.status.success());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(word), "{args:?}: {text}");
    }
}
