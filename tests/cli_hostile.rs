//! The tool's inspectors on files that only look like rings: they say so or show what they find, and never
//! crash, hang or end by a signal.
#![cfg(feature = "cli")]

use std::path::PathBuf;
use std::process::{Command, Stdio};

#[path = "fuzz/src/lib.rs"]
#[allow(dead_code, missing_docs, unreachable_pub)]
mod targets;

mod common;
use common::{Random, watchdog};

struct Planted(PathBuf);

impl Drop for Planted {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn inspectors_survive_what_only_looks_like_a_ring() {
    let _watchdog = watchdog(120);
    let name = format!("test-hostile-{}", std::process::id());
    let planted = Planted(format!("/dev/shm/ringway.{name}").into());
    let images = targets::seeds("attach");
    let mut random = Random(42);
    let (mut runs, mut refused) = (0, 0);
    for round in 0..40 {
        let mut image = images[round % images.len()].clone();
        for _ in 0..random.below(40) {
            // In the header, and where participants and cursors are; or, every other time, only there.
            let from = if round % 2 == 0 { 0 } else { 2048 };
            let at = (from + random.below(image.len() as u64 - from)) as usize & !7;
            let edges = [0, 1, u64::MAX, 1 << 63, 1 << 62, 1 << 54, random.next()];
            let word = edges[random.below(7) as usize];
            image[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        if round % 10 == 9 {
            image.truncate(random.below(image.len() as u64) as usize);
        }
        std::fs::write(&planted.0, &image).unwrap();
        for arguments in [&["list"][..], &["list", "--json"], &["inspect", &name]] {
            let output = Command::new(env!("CARGO_BIN_EXE_ringway"))
                .args(arguments)
                .stdin(Stdio::null())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                matches!(output.status.code(), Some(0 | 1)),
                "{arguments:?}, round {round}: {:?}\n{said}",
                output.status
            );
            assert!(!said.contains("panicked"), "{arguments:?}: {said}");
            runs += 1;
            refused += u32::from(!output.status.success());
        }
    }
    println!("{runs} runs, {refused} of them refused");
}
