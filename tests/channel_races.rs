//! Those who come to a channel while others come and leave: whoever comes has the channel whose name is there.
//!
//! Another process opens or closes one end and is stopped at each of its system calls in turn. There this
//! process opens an end, too. Whatever the two did to each other: the end that was opened is the one that
//! others find by its name, and in the end no name is left.

mod common;
#[path = "common/step.rs"]
mod step;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use common::{assert_no_file_left, child, task, until, watchdog};
use ringway::channel::{Receiver, Sender};
use ringway::{Endpoint, Error, RecvError, SendError};
use step::{Stepped, here, traced};

fn parse(text: &str) -> Endpoint {
    text.parse().unwrap()
}

fn name(test: &str) -> String {
    format!("rwr-{}-{test}", std::process::id())
}

enum End {
    Tx(Box<dyn Sender>),
    Rx(Box<dyn Receiver>),
}

impl End {
    fn open(endpoint: &Endpoint, side: &str) -> Result<End, Error> {
        match side {
            "send" => endpoint.sender().map(End::Tx),
            _ => endpoint.receiver().map(End::Rx),
        }
    }
}

/// A message goes from one of the two to the other.
fn joined(one: End, other: End) {
    let soon = Duration::from_secs(10);
    let (End::Tx(mut tx), End::Rx(mut rx)) = (match one {
        End::Tx(_) => (one, other),
        End::Rx(_) => (other, one),
    }) else {
        panic!("two of a kind");
    };
    match tx.send_timeout(b"x", soon) {
        // It met the former receiver before that had left, and was told.
        Err(SendError::Closed) if tx.capabilities().mechanism == "unix" => return,
        sent => sent.unwrap(),
    }
    let mut got = Vec::new();
    rx.recv_timeout(&mut got, soon).unwrap();
    assert_eq!(got, b"x");
}

/// Opens an end in another thread, and comes back when that is done or waits for somebody.
fn open_beside(endpoint: &Endpoint, side: &'static str) -> JoinHandle<Result<End, Error>> {
    let (says, started) = mpsc::channel();
    let endpoint = endpoint.clone();
    let thread = std::thread::spawn(move || {
        // SAFETY: gettid takes nothing.
        says.send(unsafe { libc::gettid() }).unwrap();
        End::open(&endpoint, side)
    });
    let status = format!("/proc/self/task/{}/status", started.recv().unwrap());
    let sleeps = || {
        let status = std::fs::read_to_string(&status).unwrap_or_default();
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("voluntary_ctxt_switches:\t"));
        line.map_or(0, |count| count.parse::<u64>().unwrap())
    };
    let first = sleeps();
    while !thread.is_finished() && sleeps() < first + 4 {
        std::thread::yield_now();
    }
    thread
}

/// Has another process do `what` ("open" or "close") to its end, and opens one here at each of its system
/// calls. How many there were.
fn race(endpoint: &Endpoint, what: &str, theirs: &str, ours: &'static str) -> usize {
    let (mut told, tell) = UnixStream::pair().unwrap();
    let mut command = child("child_process", &format!("{what} {theirs} {endpoint}"));
    let mut other = Stepped::start(command.stdin(OwnedFd::from(tell)));
    let mut outcome = [0];
    for at in 0.. {
        let (mut call, mut opening) = (0, None);
        other.calls(|_, _| {
            if call == at {
                opening = Some(open_beside(endpoint, ours));
            }
            call += 1;
            None
        });
        told.read_exact(&mut outcome).unwrap();
        let Some(opening) = opening else {
            if what == "open" {
                other.go_on(); // to the closing of what it has opened
            }
            return at;
        };
        let opened = opening.join().unwrap();
        let taken = |error: &Error| matches!(error, Error::RoleTaken { .. });
        match (opened, outcome[0]) {
            (Ok(_), b'o') if theirs == "recv" && ours == "recv" && !is_for_many(endpoint) => {
                panic!("{endpoint}: call {at}: two receivers");
            }
            // The one that is there by its name is the one that was opened.
            (Ok(end), _) => {
                let rest = if ours == "send" { "recv" } else { "send" };
                let found = if what == "open" && theirs == rest && !is_for_many(endpoint) {
                    None // theirs is there already; what it is sent, it keeps
                } else {
                    Some(End::open(endpoint, rest).unwrap())
                };
                if what == "close" {
                    joined(end, found.unwrap());
                }
            }
            (Err(error), b'o') if taken(&error) => {}
            (Err(error), b'c') if taken(&error) => {}
            (Err(error), outcome) => panic!("{endpoint}: call {at}: {error}, {outcome}"),
        }
        other.go_on();
    }
    unreachable!("it makes no end of calls")
}

fn is_for_many(endpoint: &Endpoint) -> bool {
    !["fifo", "unix"].contains(&endpoint.mechanism().name())
}

/// No name of that test is left.
fn assert_nothing_left(name: &str) {
    assert_no_file_left(name);
    assert!(ringway::channel::mqueue::Receiver::attach(name).is_err());
}

const MECHANISMS: [&str; 7] = [
    "fifo:/tmp/{}",
    "unix:/tmp/{}",
    "mq:{}",
    "sem:{}",
    "sem:{}?named=1",
    "ring:{}",
    "mpmc:{}",
];

#[test]
fn who_comes_while_another_leaves_has_the_channel_whose_name_is_there() {
    let _dog = watchdog(120);
    for mechanism in MECHANISMS {
        for (theirs, ours) in [
            ("send", "send"),
            ("send", "recv"),
            ("recv", "send"),
            ("recv", "recv"),
        ] {
            let name = name("leave");
            let endpoint = parse(&mechanism.replace("{}", &name));
            let calls = race(&endpoint, "close", theirs, ours);
            println!("{endpoint}: {theirs} closes in {calls} calls, {ours} comes");
            assert!(calls > 3);
            assert_nothing_left(&name);
        }
    }
}

#[test]
fn of_two_receivers_that_come_at_once_where_there_is_room_for_one_the_other_is_refused() {
    let _dog = watchdog(120);
    for mechanism in &MECHANISMS[..2] {
        let name = name("come");
        let endpoint = parse(&mechanism.replace("{}", &name));
        let calls = race(&endpoint, "open", "recv", "recv");
        println!("{endpoint}: opened in {calls} calls");
        assert!(calls > 3);
        assert_nothing_left(&name);
    }
}

#[test]
fn the_mode_is_what_was_asked_for_whichever_side_makes_the_fifo() {
    for side in ["send", "recv"] {
        for mode in [0o600, 0o660, 0o666, 0o644] {
            let path = format!("/tmp/{}", name("mode"));
            let end = End::open(&parse(&format!("fifo:{path}?mode=0{mode:o}")), side).unwrap();
            let made = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(made & 0o666, mode, "{side}");
            drop(end);
            assert!(!std::path::Path::new(&path).exists());
        }
    }
}

#[test]
fn a_name_whose_remover_was_killed_at_it_is_made_anew() {
    let _dog = watchdog(60);
    for mechanism in MECHANISMS {
        for (theirs, ours) in [("send", "recv"), ("recv", "send"), ("recv", "recv")] {
            if mechanism.starts_with("unix") && theirs == "send" {
                continue; // the path is its receiver's
            }
            let name = name("killed");
            let endpoint = parse(&mechanism.replace("{}", &name));
            let mut command = child("child_process", &format!("close {theirs} {endpoint}"));
            let (_told, tell) = UnixStream::pair().unwrap();
            let mut other = Stepped::start(command.stdin(OwnedFd::from(tell)));
            let mut removes = false;
            while !removes {
                removes = other.next_call_is([libc::SYS_unlink, libc::SYS_mq_unlink]);
            }
            drop(other);
            let one = End::open(&endpoint, ours).unwrap();
            let rest = if ours == "send" { "recv" } else { "send" };
            joined(one, End::open(&endpoint, rest).unwrap());
            assert_nothing_left(&name);
        }
    }
}

/// One end has left, and its successor comes while the other process looks for it, at each of its system calls
/// in turn: nobody has died.
#[test]
fn who_hands_over_to_a_successor_is_never_taken_for_dead() {
    let _dog = watchdog(120);
    for mechanism in ["fifo:/tmp/{}", "mq:{}", "sem:{}"] {
        for (theirs, ours) in [("recv", "send"), ("send", "recv")] {
            let name = name("hand");
            let endpoint = parse(&mechanism.replace("{}", &name));
            let (mut told, tell) = UnixStream::pair().unwrap();
            let first = End::open(&endpoint, ours).unwrap();
            let mut command = child("child_process", &format!("look {theirs} {endpoint}"));
            let mut other = Stepped::start(command.stdin(OwnedFd::from(tell)));
            let mut calls = 0;
            let mut peer = Some(first);
            // A look makes fewer calls than that; a queue fills up meanwhile.
            for at in 0..24 {
                drop(peer.take());
                let (mut call, mut opening) = (0, None);
                other.calls(|_, _| {
                    if call == at {
                        opening = Some(open_beside(&endpoint, ours));
                    }
                    call += 1;
                    None
                });
                let mut outcome = [0];
                told.read_exact(&mut outcome).unwrap();
                assert_ne!(outcome[0], b'd', "{endpoint}: call {at}: taken for dead");
                other.go_on();
                calls = call.max(calls);
                peer = Some(match opening {
                    Some(opening) => opening.join().unwrap().unwrap(),
                    None => End::open(&endpoint, ours).unwrap(),
                });
            }
            println!("{endpoint}: {theirs} looks in {calls} calls, {ours} comes");
            assert!((4..24).contains(&calls));
            drop((peer, other));
            end_of(&endpoint, theirs);
            assert_nothing_left(&name);
        }
    }
}

/// A message of which a part was on its way when its receiver left is void for the successor.
#[test]
fn what_a_fifos_receiver_left_half_of_is_no_part_of_its_successors_first_message() {
    let _dog = watchdog(60);
    let path = format!("/tmp/{}", name("half"));
    let endpoint = parse(&format!("fifo:{path}"));
    let rx = endpoint.receiver().unwrap();
    let mut tx = endpoint.sender().unwrap();
    let long = vec![1; 1 << 20];
    assert!(matches!(tx.try_send(&long), Err(SendError::Full)));
    drop(rx);
    // A child that another test is just starting has a copy of its end for a moment.
    until(|| !matches!(tx.try_send(&long), Err(SendError::Full)));
    assert!(matches!(tx.try_send(&long), Err(SendError::Closed)));
    let mut rx = endpoint.receiver().unwrap();
    let sending = std::thread::spawn(move || {
        tx.send(b"whole").unwrap();
        tx
    });
    let mut got = Vec::new();
    rx.recv(&mut got).unwrap();
    assert_eq!(got, b"whole");
    drop(sending.join().unwrap());
    drop(rx);
    assert_nothing_left(&name("half"));
}

/// What a killed process left is gone when another has come and left.
fn end_of(endpoint: &Endpoint, side: &str) {
    let rest = if side == "send" { "recv" } else { "send" };
    let ends = [side, rest].map(|side| End::open(endpoint, side).unwrap());
    let ([End::Rx(mut rx), End::Tx(_)] | [End::Tx(_), End::Rx(mut rx)]) = ends else {
        panic!("two of a kind");
    };
    while rx.try_recv(&mut Vec::new()).is_ok() {}
}

/// The other process of the tests above.
#[test]
fn child_process() {
    let Some(task) = task() else { return };
    let _dog = watchdog(110);
    let words: Vec<&str> = task.split(' ').collect();
    let [what, side, endpoint] = words[..] else {
        panic!("{task}");
    };
    let endpoint = parse(endpoint);
    traced();
    // SAFETY: standard input is the socket that this process was given, and used by nobody else.
    let mut tell = unsafe { <UnixStream as std::os::fd::FromRawFd>::from_raw_fd(0) };
    if what == "look" {
        look(End::open(&endpoint, side).unwrap(), &mut tell);
    }
    loop {
        let opening = || match End::open(&endpoint, side) {
            Ok(end) => Some(end),
            Err(Error::RoleTaken { .. }) => None,
            Err(error) => panic!("{error}"),
        };
        if what == "close" {
            let end = opening();
            here();
            drop(end);
            tell.write_all(b"c").unwrap();
            here();
        } else {
            here();
            let end = opening();
            tell.write_all(if end.is_some() { b"o" } else { b"c" })
                .unwrap();
            here();
        }
    }
}

/// Sends or receives what there is, and tells whether the other side seemed to have died.
fn look(mut end: End, tell: &mut UnixStream) -> ! {
    loop {
        here();
        let died = match &mut end {
            End::Tx(tx) => matches!(tx.try_send(b"x"), Err(SendError::PeerDied)),
            End::Rx(rx) => matches!(rx.try_recv(&mut Vec::new()), Err(RecvError::PeerDied)),
        };
        tell.write_all(if died { b"d" } else { b"l" }).unwrap();
        here();
    }
}
