//! That a mechanism which answers fast and wrong is found out, while measuring too.

use std::os::fd::AsFd;
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::cli::bench::control;
use crate::cli::bench::plan::{Case, Mechanism};
use crate::cli::bench::worker::Effort;
use crate::os::bare::Area;

/// What a mechanism does to a message, which it is given with the one before.
type Damage = fn(&mut Vec<u8>, &[u8]);

/// How many messages each of the two phases has.
const COUNT: u64 = 8;
/// The message that is damaged: one of those that are measured.
const DAMAGED: u64 = COUNT + COUNT / 2;

/// One end of a mechanism that damages one message.
struct Wrong {
    output: mpsc::Sender<Vec<u8>>,
    input: mpsc::Receiver<Vec<u8>>,
    damage: Damage,
    sent: u64,
    before: Vec<u8>,
}

impl Link for Wrong {
    fn send(&mut self, message: &[u8]) -> Outcome<()> {
        self.sent += 1;
        let mut sent = message.to_vec();
        if self.sent == DAMAGED {
            (self.damage)(&mut sent, &self.before);
        }
        self.before = message.to_vec();
        Ok(self.output.send(sent)?)
    }

    fn recv(&mut self, into: &mut [u8]) -> Outcome<usize> {
        let message = self.input.recv_timeout(Duration::from_secs(60))?;
        into[..message.len()].copy_from_slice(&message);
        Ok(message.len())
    }
}

/// Runs both sides over a mechanism with these damages, there and back; whether both are content.
fn passes(mode: Mode, size: usize, damages: [Damage; 2]) -> bool {
    let page = Area::create(control::LEN).unwrap();
    let (there, arriving) = mpsc::channel();
    let (back, returning) = mpsc::channel();
    let side = |role, output, input, damage| {
        let job = Job {
            case: Case {
                mode,
                size,
                mechanism: Mechanism::Pipe,
                wait: None,
                rate: None,
            },
            role,
            cpus: [0, 0],
            effort: Effort {
                duration_ms: 1,
                count: None,
            },
            census: Some(COUNT),
            parent: std::process::id(),
            control: -1,
            fds: Vec::new(),
            queues: Vec::new(),
        };
        let page = &page;
        let link = Wrong {
            output,
            input,
            damage,
            sent: 0,
            before: Vec::new(),
        };
        move || {
            let control = Control::map(page.as_fd(), role, job.apart()).unwrap();
            run(&job, &control, link).is_ok()
        }
    };
    let follower = side(Role::Follower, back, arriving, damages[1]);
    let leader = side(Role::Leader, there, returning, damages[0]);
    std::thread::scope(|scope| {
        let follower = scope.spawn(follower);
        leader() & follower.join().unwrap()
    })
}

#[test]
fn a_fast_wrong_answer_is_an_error() {
    let none: Damage = |_, _| {};
    let damages: [(&str, Damage); 4] = [
        ("one bit", |message, _| message[0] ^= 1),
        ("the last bit", |message, _| {
            *message.last_mut().unwrap() ^= 0x80
        }),
        ("cut short", |message, _| message.truncate(7)),
        ("the one before again", |message, before| {
            message.copy_from_slice(before)
        }),
    ];
    for mode in [Mode::Rtt, Mode::Oneway] {
        for size in [8, 64] {
            assert!(passes(mode, size, [none, none]), "{mode:?} {size}");
            for (what, damage) in damages {
                for both in [[damage, none], [none, damage]] {
                    assert!(!passes(mode, size, both), "{mode:?} {size}: {what}");
                }
            }
        }
    }
}
