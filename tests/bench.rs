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
    let child = ringway()
        .arg("bench")
        .args(["--rounds", "1", "--duration", "2"])
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

/// What a run might leave: named memory, FIFOs, System V queues whose users are dead.
fn remains(pid: u32) -> Vec<String> {
    let mut remains = Vec::new();
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
        for time in ["p50", "p90", "p99", "p999", "max"] {
            let value = row["rtt_ns"][time].as_f64().unwrap();
            assert!(value > 0.0, "{mechanism} {time} {value}");
        }
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

const MECHANISMS: [&str; 13] = [
    "spsc",
    "mpmc",
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
        "pipe,mqueue,spsc,mpmc",
        "--wait",
        "futex",
        "--size",
        "64",
    ]);
    let rows = results["rows"].as_array().unwrap();
    for mechanism in ["mqueue", "spsc", "mpmc"] {
        assert!(rows.iter().any(|row| row["mechanism"] == mechanism));
    }
    assert!(rows.iter().all(|row| row["placement"] == "same"));
}

#[test]
fn the_paced_mode_measures_from_when_a_message_was_due() {
    // Far more than a pipe can carry: the last messages are late by much of the run's length. (On a
    // machine so busy that a run has only a few messages, another run shows it.)
    let shown = (0..20).any(|_| {
        let results = json(&[
            "--mechanism",
            "pipe",
            "--size",
            "64",
            "--rate",
            "1000000000",
        ]);
        let rows = results["rows"].as_array().unwrap();
        let late = rows.iter().find(|row| row["rate"] == 1_000_000_000);
        let late = late.expect("a row of the rate");
        let one = 1e9 / late["msgs_per_s"].as_f64().unwrap(); // what a message really takes
        late["rtt_ns"]["max"].as_f64().unwrap() > 10.0 * one
    });
    assert!(shown);
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
        "--csv",
        csv.to_str().unwrap(),
        "--html",
        html.to_str().unwrap(),
    ]);
    assert!(output.status.success());
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("limit: bare-futex") && table.contains("pipe"));
    let csv = std::fs::read_to_string(csv).unwrap();
    let columns = csv.lines().next().unwrap().split(',').count();
    assert!(csv.lines().count() > 8);
    for line in csv.lines() {
        assert_eq!(line.split(',').count(), columns, "{line}");
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
    for signal in ["-INT", "-TERM"] {
        let mut child = ringway()
            .args(["bench", "--mechanism", "sysv,spsc", "--duration", "5000"])
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
        assert!(status.code().is_some_and(|code| code >= 128), "{status}");
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
fn bad_arguments_are_named_with_their_remedy() {
    for (args, word) in [
        (&["--cpus", "4095"][..], "--cpus 4095"),
        (&["--size", "3 furlongs"], "KiB"),
        (&["--mode", "paced"], "--rate"),
        (&["--rate", "0"], "--rate"),
        (&["--json", "/no/such/directory/x"], "/no/such/directory/x"),
    ] {
        let output = ringway().arg("bench").args(args).output().unwrap();
        assert!(!output.status.success());
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(word), "{args:?}: {text}");
    }
}
