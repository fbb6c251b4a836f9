//! A process that is killed while it holds a buffer guarded by semaphores locks nobody out.

mod common;

use std::os::unix::fs::FileExt;
use std::process::Stdio;

use common::{Random, Reaped, child, task, until, watchdog};
use ringway::RecvError;
use ringway::channel::{Receiver, Sender, semaphore};

/// Large, so that most of a sender's time is spent copying while it holds the buffer.
const MESSAGE: usize = 8_000_000;

fn config(named: bool) -> semaphore::Config {
    semaphore::Config::default()
        .capacity(3 << 23)
        .named_semaphores(named)
}

/// The word that names the holder, as `channel/semaphore/memory.rs` draws it.
fn is_held(file: &std::fs::File) -> bool {
    let mut word = [0; 4];
    file.read_exact_at(&mut word, 256).unwrap();
    u32::from_le_bytes(word) != 0
}

fn storm(named: bool) {
    let _dog = watchdog(120);
    let name = format!("semdeath-{}-{named}", std::process::id());
    let mut rx = semaphore::Receiver::open(&name, config(named)).unwrap();
    let file = std::fs::File::open(format!("/dev/shm/ringway.{name}.semaphore")).unwrap();
    let mut random = Random(std::process::id().into());
    let (mut kills, mut holding, mut received) = (0, 0, 0);
    let mut got = Vec::new();
    // As many as it takes to have hit some while they held it.
    while holding < 3 {
        kills += 1;
        let mut sender = Reaped(
            child("child_process", &format!("{named} {name}"))
                .stdout(Stdio::null())
                .spawn()
                .unwrap(),
        );
        // Another sender comes when the former one's death is known: the first message is its.
        until(|| rx.recv(&mut got).is_ok());
        for _ in 0..random.below(4) {
            rx.recv(&mut got).unwrap();
        }
        // Room for one more: stopped when it is seen to fill it.
        rx.recv(&mut got).unwrap();
        let _ = (0..10_000).find(|_| is_held(&file));
        // SAFETY: the child is stopped, looked at, and killed; it is not reaped yet.
        unsafe { libc::kill(sender.0.id() as i32, libc::SIGSTOP) };
        until(|| is_stopped(sender.0.id()));
        holding += u32::from(is_held(&file));
        sender.0.kill().unwrap();
        sender.0.wait().unwrap();
        // Everybody goes on, with what was sent whole.
        loop {
            match rx.recv(&mut got) {
                Ok(()) => {
                    received += 1;
                    assert_eq!(got.len(), MESSAGE);
                    assert!(
                        got.iter().step_by(997).all(|byte| *byte == got[0]),
                        "a torn message"
                    );
                }
                Err(RecvError::PeerDied) => break,
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    println!(
        "{kills} senders killed, {holding} of them holding the buffer; {received} left to take"
    );
    drop(rx);
    for entry in std::fs::read_dir("/dev/shm").unwrap() {
        let file = entry.unwrap().file_name();
        assert!(!file.to_string_lossy().contains(&name), "{file:?} is left");
    }
}

fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.starts_with('T')
}

#[test]
fn senders_killed_while_they_hold_the_buffer_lock_nobody_out() {
    storm(false);
}

#[test]
fn senders_killed_while_they_hold_named_semaphores_lock_nobody_out() {
    storm(true);
}

/// Sends without end.
#[test]
fn child_process() {
    let Some(task) = task() else { return };
    let (named, name) = task.split_once(' ').unwrap();
    let mut tx = semaphore::Sender::open(name, config(named == "true")).unwrap();
    for byte in (0..=255).cycle() {
        tx.send(&vec![byte; MESSAGE]).unwrap();
    }
}
