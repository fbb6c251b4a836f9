//! A process that is killed while it holds a buffer guarded by semaphores locks nobody out.

mod common;
#[path = "common/step.rs"]
mod step;

use std::os::unix::fs::FileExt;
use std::time::Duration;

use common::{Random, child, task, watchdog};
use ringway::channel::{Receiver, Sender, semaphore};
use step::{Stepped, here, traced};

const KILLS: u32 = 12;
/// What those say who are killed, and those who live.
const DEAD: [u8; 5000] = [7; 5000];
const LIVING: [u8; 5000] = [8; 5000];

fn config(named: bool) -> semaphore::Config {
    semaphore::Config::default().named_semaphores(named)
}

/// The word that names the holder, as `channel/semaphore/memory.rs` draws it.
fn is_held(file: &std::fs::File) -> bool {
    let mut word = [0; 4];
    file.read_exact_at(&mut word, 256).unwrap();
    u32::from_le_bytes(word) != 0
}

/// Each sender is stepped to where it holds the buffer, some instructions on, and killed there.
fn storm(named: bool) {
    let _dog = watchdog(120);
    let name = format!("semdeath-{}-{named}", std::process::id());
    let mut rx = semaphore::Receiver::open(&name, config(named)).unwrap();
    let mut tx = semaphore::Sender::open(&name, config(named)).unwrap();
    let file = std::fs::File::open(format!("/dev/shm/ringway.{name}.semaphore")).unwrap();
    let mut random = Random(std::process::id().into());
    let (mut holding, mut received) = (0, 0);
    let mut got = Vec::new();
    let long = Duration::from_secs(60);
    for _ in 0..KILLS {
        let mut sender = Stepped::start(&mut child("child_process", &format!("{named} {name}")));
        let mut inside = random.below(400);
        sender.run(|_| {
            let held = is_held(&file);
            inside = inside.saturating_sub(held.into());
            !held || inside > 0
        });
        holding += u32::from(is_held(&file));
        drop(sender);
        // Everybody goes on, with what was sent whole.
        tx.send_timeout(&LIVING, long).unwrap();
        loop {
            rx.recv_timeout(&mut got, long).unwrap();
            if got == LIVING {
                break;
            }
            assert_eq!(got, DEAD, "a torn message");
            received += 1;
        }
    }
    println!("{KILLS} senders killed, {holding} of them holding the buffer; {received} had sent");
    assert!(holding >= KILLS / 4);
    drop((tx, rx));
    for entry in std::fs::read_dir("/dev/shm").unwrap() {
        let file = entry.unwrap().file_name();
        assert!(!file.to_string_lossy().contains(&name), "{file:?} is left");
    }
}

#[test]
fn senders_killed_while_they_hold_the_buffer_lock_nobody_out() {
    storm(false);
}

#[test]
fn senders_killed_while_they_hold_named_semaphores_lock_nobody_out() {
    storm(true);
}

/// Sends once, stepped.
#[test]
fn child_process() {
    let Some(task) = task() else { return };
    let (named, name) = task.split_once(' ').unwrap();
    traced();
    let mut tx = semaphore::Sender::open(name, config(named == "true")).unwrap();
    here();
    tx.send(&DEAD).unwrap();
    here();
}
