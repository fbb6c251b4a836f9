//! The tool's onlookers on files that only look like rings: they say so or show what they find, and never
//! crash, hang or end by a signal.
#![cfg(feature = "cli")]

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringway::observe::Observer;

#[path = "fuzz/src/lib.rs"]
#[allow(dead_code, missing_docs, unreachable_pub)]
mod targets;

mod common;
use common::terminal::{in_terminal, until_closed};
use common::{Random, Reaped, watchdog};

/// A file among the rings.
struct Planted {
    name: String,
    path: PathBuf,
}

impl Planted {
    fn new(what: &str) -> Planted {
        let name = format!("test-hostile-{what}-{}", std::process::id());
        let path = format!("/dev/shm/ringway.{name}").into();
        Planted { name, path }
    }

    /// An image of a ring with a few words changed.
    fn plant(&self, images: &[Vec<u8>], round: usize, random: &mut Random) {
        let mut image = images[round % images.len()].clone();
        for _ in 0..random.below(40) {
            // In the header, and where participants and cursors are; or, every other time, only there.
            let from = if round.is_multiple_of(2) { 0 } else { 2048 };
            let at = (from + random.below(image.len() as u64 - from)) as usize & !7;
            let edges = [0, 1, u64::MAX, 1 << 63, 1 << 62, 1 << 54, random.next()];
            let word = edges[random.below(7) as usize];
            image[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        if round % 10 == 9 {
            image.truncate(random.below(image.len() as u64) as usize);
        }
        std::fs::write(&self.path, &image).unwrap();
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn tool() -> Command {
    let mut tool = Command::new(env!("CARGO_BIN_EXE_ringway"));
    tool.stdin(Stdio::null());
    tool
}

/// It ended by itself, and not by a panic. Whether it did what it was told.
fn has_ended_well(output: &Output, what: &str) -> bool {
    let said = String::from_utf8_lossy(&output.stderr);
    let status = output.status;
    // By our own signal, where it was so slow that it did not wait for one yet, or not any more.
    let told = status.signal() == Some(Signal::SIGINT as i32);
    assert!(
        matches!(status.code(), Some(0 | 1)) || told,
        "{what}: {status:?}\n{said}"
    );
    assert!(!said.contains("panicked"), "{what}: {said}");
    status.success()
}

#[test]
fn inspectors_survive_what_only_looks_like_a_ring() {
    let _watchdog = watchdog(120);
    let planted = Planted::new("inspect");
    let images = targets::seeds("attach");
    let mut random = Random(42);
    let (mut runs, mut refused) = (0, 0);
    for round in 0..40 {
        planted.plant(&images, round, &mut random);
        let name = planted.name.as_str();
        for arguments in [
            &["list"][..],
            &["list", "--json"],
            &["inspect", name],
            &["stats", name],
        ] {
            let output = tool().args(arguments).output().unwrap();
            let what = format!("{arguments:?}, round {round}");
            runs += 1;
            refused += u32::from(!has_ended_well(&output, &what));
        }
    }
    println!("{runs} runs, {refused} of them refused");
}

/// `top` for a few screens, and `tap` until it is told to end, if it does not before.
#[test]
fn followers_survive_what_only_looks_like_a_ring() {
    let _watchdog = watchdog(120);
    let planted = Planted::new("follow");
    let images = targets::seeds("attach");
    let mut random = Random(43);
    for round in 0..2 * images.len() {
        planted.plant(&images, round, &mut random);
        let mut arguments = vec!["top", "--every", "0.05", "--screens", "2"];
        arguments.push(&planted.name);
        let (mut top, mut terminal) = in_terminal(tool().args(&arguments), 24, 80);
        let shown = until_closed(&mut terminal);
        let (status, shown) = (top.0.wait().unwrap(), String::from_utf8_lossy(&shown));
        assert!(status.success(), "round {round}: {status:?}\n{shown}");
        assert!(!shown.contains("panicked"), "round {round}: {shown}");

        let mut tap = tool();
        tap.args(["tap", "--waiting", "-n", "100", &planted.name]);
        tap.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut tap = Reaped(tap.spawn().unwrap());
        let process = Pid::from_raw(tap.0.id() as i32);
        let (ended, has_ended) = mpsc::channel();
        let stderr = std::thread::scope(|scope| {
            scope.spawn(move || {
                let patience = Duration::from_millis(250);
                while has_ended.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
                    let _ = kill(process, Signal::SIGINT);
                }
            });
            let mut stderr = Vec::new();
            let mut said = tap.0.stderr.take().unwrap();
            said.read_to_end(&mut stderr).unwrap();
            ended.send(()).unwrap();
            stderr
        });
        let status = tap.0.wait().unwrap();
        let stdout = Vec::new();
        has_ended_well(
            &Output {
                status,
                stdout,
                stderr,
            },
            &format!("tap, round {round}"),
        );
    }
}

/// What an SPSC ring's sides say of themselves may be less than a message apart, and all counters may be at
/// their ends.
#[test]
fn positions_and_counters_that_nobody_honest_writes_are_shown() {
    let _watchdog = watchdog(60);
    let planted = Planted::new("forged");
    let image = targets::seeds("attach").swap_remove(0);
    for word in [1, 7, u64::MAX] {
        let mut forged = image.clone();
        // All that is not the header: participants and control words.
        for at in (2048..forged.len() - 4096).step_by(8) {
            forged[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        std::fs::write(&planted.path, &forged).unwrap();
        let snapshot = Observer::open(&planted.name).and_then(|ring| ring.snapshot());
        assert!(snapshot.unwrap().used <= 256);
    }
}
