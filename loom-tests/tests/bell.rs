//! The bell under loom: no wake-up is lost, with any number of sleepers and notifiers; and without
//! either of its fences one is.
#![allow(dead_code, unused_imports, missing_docs, unreachable_pub, clippy::all)] // of mutants

#[path = "../src/primitive.rs"]
mod primitive;

#[path = "../../src/wait/bell.rs"]
mod bell;
/// The same source without its fences.
mod mutant {
    include!(concat!(env!("OUT_DIR"), "/bell_without_fences.rs"));
}

use loom::sync::atomic::{AtomicU64, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

/// The kernel's futex: compares under its lock, wakes under its lock.
struct Futex(Mutex<()>, Condvar);

macro_rules! models {
    ($bell:path, $name:ident) => {
        mod $name {
            use super::*;
            use $bell as Bell;

            pub(super) struct Shared {
                bell: Bell,
                futex: Futex,
                available: AtomicU64,
            }

            impl Shared {
                pub(super) fn new() -> Arc<Shared> {
                    Arc::new(Shared {
                        bell: Bell::new(),
                        futex: Futex(Mutex::new(()), Condvar::new()),
                        available: AtomicU64::new(0),
                    })
                }

                fn take(&self) -> bool {
                    let mut now = self.available.load(Ordering::Acquire);
                    while now > 0 {
                        match self.available.compare_exchange(
                            now,
                            now - 1,
                            Ordering::AcqRel,
                            Ordering::Relaxed,
                        ) {
                            Ok(_) => return true,
                            Err(other) => now = other,
                        }
                    }
                    false
                }

                fn ring(&self) {
                    if self.bell.ring() {
                        let _guard = self.futex.0.lock().unwrap();
                        self.futex.1.notify_one();
                    }
                }

                /// Makes one available, and tells.
                pub(super) fn give(&self) {
                    self.available.fetch_add(1, Ordering::Release);
                    self.ring();
                }

                /// Waits for one, as the handles do.
                pub(super) fn wait(&self) {
                    loop {
                        if self.take() {
                            return;
                        }
                        let expected = self.bell.announce();
                        if self.available.load(Ordering::Acquire) > 0 {
                            continue;
                        }
                        {
                            let guard = self.futex.0.lock().unwrap();
                            if self.bell.word().load(Ordering::Relaxed) == expected {
                                drop(self.futex.1.wait(guard).unwrap());
                            }
                        }
                        self.bell.announce();
                        if self.take() {
                            if self.available.load(Ordering::Acquire) > 0 {
                                self.ring();
                            }
                            return;
                        }
                    }
                }
            }

            pub(super) fn one_sleeper() {
                explore("one sleeper, one notifier", || {
                    let shared = Shared::new();
                    let other = shared.clone();
                    let giver = thread::spawn(move || other.give());
                    shared.wait();
                    giver.join().unwrap();
                });
            }

            pub(super) fn two_sleepers() {
                explore("two sleepers, one notifier of two", || {
                    let shared = Shared::new();
                    let sleepers = [(); 2].map(|()| {
                        let shared = shared.clone();
                        thread::spawn(move || shared.wait())
                    });
                    shared.give();
                    shared.give();
                    for sleeper in sleepers {
                        sleeper.join().unwrap();
                    }
                });
            }
        }
    };
}
models!(crate::bell::Bell, real);
models!(crate::mutant::Bell, unfenced);

fn explore(name: &str, f: impl Fn() + Sync + Send + 'static) {
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = count.clone();
    loom::model::Builder::new().check(move || {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        f();
    });
    let count = count.load(std::sync::atomic::Ordering::Relaxed);
    eprintln!("{name}: {count} executions");
    assert!(count > 1, "a model that ran once shows nothing");
}

#[test]
fn a_sleeper_is_always_woken() {
    real::one_sleeper();
}

#[test]
fn two_messages_wake_two_sleepers() {
    real::two_sleepers();
}

#[test]
fn without_the_fences_a_wake_up_is_lost() {
    if std::env::var_os("RINGWAY_MUTANT").is_some() {
        return unfenced::one_sleeper();
    }
    // In a process of its own: a deadlock found by loom ends the process.
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "without_the_fences_a_wake_up_is_lost",
            "--nocapture",
        ])
        .env("RINGWAY_MUTANT", "1")
        .output()
        .unwrap();
    assert!(
        !output.status.success(),
        "the model does not notice the missing fences"
    );
    let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(said.contains("deadlock"), "{said}");
}
