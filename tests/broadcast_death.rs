//! The broadcast ring when its processes are killed or stopped at any moment.
//!
//! Longer: `RINGWAY_STORM_SECONDS=60`, `RINGWAY_STOP_SECONDS=5`, `RINGWAY_OVERRUN_SECONDS=600`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use ringway::RecvError;
use ringway::broadcast::{self, Config, Policy, Start, Subscriber};

mod common;
use common::{Random, Reaped, child, sleeps, task, until, watchdog};

fn name(what: &str) -> String {
    format!("test-bcast-{what}-{}", std::process::id())
}

fn seconds(variable: &str, default: f64) -> Duration {
    let told = std::env::var(variable).ok();
    Duration::from_secs_f64(told.and_then(|told| told.parse().ok()).unwrap_or(default))
}

/// A message that tells its number, and whether it is whole.
fn message(number: u64, buffer: &mut Vec<u8>) {
    let mut random = Random(number);
    let len = 8 + (random.next() % 300) as usize;
    buffer.clear();
    buffer.extend_from_slice(&number.to_le_bytes());
    while buffer.len() < len {
        buffer.extend_from_slice(&random.next().to_le_bytes());
    }
    buffer.truncate(len);
}

/// The number of a message, which is whole.
fn number(bytes: &[u8], buffer: &mut Vec<u8>) -> u64 {
    let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    message(number, buffer);
    assert_eq!(bytes, buffer, "message {number} is torn");
    number
}

/// Receives one message or learns of one gap, and checks both; returns how many it missed and whether
/// there was a message.
fn follow(rx: &mut Subscriber, expected: &mut u64, buffer: &mut Vec<u8>) -> Result<u64, RecvError> {
    match rx.recv_timeout(Duration::from_secs(20)) {
        Ok(message) => {
            assert_eq!(message.sequence(), *expected);
            assert_eq!(number(&message, buffer), *expected);
            *expected += 1;
            Ok(0)
        }
        Err(RecvError::Missed { count }) => {
            assert!(count > 0);
            *expected += count;
            Ok(count)
        }
        Err(error) => Err(error),
    }
}

/// What the other processes do.
#[test]
fn other_process() {
    let Some(task) = task() else { return };
    let _watchdog = watchdog(1000);
    let mut words = task.split(' ');
    let (what, name) = (words.next().unwrap(), words.next().unwrap());
    let ring = broadcast::attach(name).unwrap();
    let mut buffer = Vec::new();
    match what {
        "send" => {
            let mut tx = ring.producer().unwrap();
            loop {
                message(tx.sequence(), &mut buffer);
                tx.send(&buffer).unwrap();
            }
        }
        // Never takes anything: the producer has to wait for it.
        "sit" => {
            let _rx = ring.subscriber().unwrap();
            println!("\njoined");
            loop {
                std::thread::park();
            }
        }
        "follow" | "count" => {
            let mut rx = ring.subscriber_from(Start::Oldest).unwrap();
            rx.resume_at(words.next().map_or(Start::Oldest, |_| Start::Newest));
            println!("\njoined");
            let (mut expected, mut gaps, mut missed) = (rx.sequence(), 0u64, 0u64);
            let first = expected;
            loop {
                match follow(&mut rx, &mut expected, &mut buffer) {
                    Ok(0) => {}
                    Ok(count) => {
                        gaps += 1;
                        missed += count;
                    }
                    Err(RecvError::PeerDied) if what == "follow" => {}
                    Err(RecvError::Closed) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            println!("\ncounted {} {gaps} {missed}", expected - first);
        }
        what => panic!("{what}?"),
    }
}

/// Another process, and what it says.
struct Peer {
    process: Reaped,
    says: BufReader<std::process::ChildStdout>,
}

impl Peer {
    fn start(task: &str) -> Peer {
        let mut command = child("other_process", task);
        let mut process = Reaped(command.stdout(Stdio::piped()).spawn().unwrap());
        let says = BufReader::new(process.0.stdout.take().unwrap());
        Peer { process, says }
    }

    /// The rest of the line that begins with `word`.
    fn hear(&mut self, word: &str) -> String {
        let mut line = String::new();
        while self.says.read_line(&mut line).unwrap() > 0 {
            if let Some(rest) = line.trim_end().strip_prefix(word) {
                return rest.trim().to_owned();
            }
            line.clear();
        }
        panic!("it ended without {word:?}");
    }

    fn kill(&mut self) {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
    }

    fn signal(&self, signal: i32) {
        // SAFETY: kill takes two integers; the child is not reaped yet.
        unsafe { libc::kill(self.process.0.id() as i32, signal) };
    }
}

#[test]
fn storm_of_kills_loses_nothing_for_the_living() {
    let duration = seconds("RINGWAY_STORM_SECONDS", 2.0);
    let _watchdog = watchdog(60 + duration.as_secs());
    let name = name("storm");
    let config = Config::default().capacity(16 << 10).expected(1);
    let ring = broadcast::create(&name, config).unwrap();
    let mut rx = ring.subscriber_from(Start::Oldest).unwrap();
    let end = Instant::now() + duration;
    // The living one: it sees everything, whoever is killed.
    let living = std::thread::spawn(move || {
        let (mut expected, mut buffer) = (0, Vec::new());
        loop {
            match follow(&mut rx, &mut expected, &mut buffer) {
                Ok(missed) => assert_eq!(missed, 0),
                Err(RecvError::PeerDied) => std::thread::yield_now(),
                Err(RecvError::Closed) => return expected,
                Err(error) => panic!("{error} after {expected}"),
            }
        }
    });
    let mut random = Random(u64::from(std::process::id()));
    let send = format!("send {name}");
    let others = format!("follow {name}");
    let mut producer = Peer::start(&send);
    let mut subscribers: Vec<_> = (0..3).map(|_| Peer::start(&others)).collect();
    let mut kills = [0u64; 2];
    while Instant::now() < end {
        // After so many messages, or soon, wherever those that were just started may be.
        if random.next().is_multiple_of(2) {
            let enough = ring.sent() + random.next() % 2_000;
            until(|| ring.sent() >= enough || Instant::now() >= end);
        } else {
            (0..random.next() % 5_000).for_each(|_| std::thread::yield_now());
        }
        match random.next() % 4 {
            0 => {
                producer.kill();
                kills[0] += 1;
                producer = Peer::start(&send);
            }
            _ => {
                let at = (random.next() % 3) as usize;
                subscribers[at].kill();
                kills[1] += 1;
                subscribers[at] = Peer::start(&others);
            }
        }
    }
    producer.kill();
    subscribers.iter_mut().for_each(Peer::kill);
    let noted = ring.sent();
    let mut tx = ring.producer().unwrap();
    let sent = tx.sequence();
    // A producer that is killed between publishing a message and noting it leaves one that is not noted.
    assert!((noted..=noted + 1).contains(&sent), "{sent}, {noted} noted");
    assert_eq!(ring.sent(), sent, "noted by its successor");
    let mut buffer = Vec::new();
    message(sent, &mut buffer);
    tx.send(&buffer).unwrap();
    drop(tx);
    assert_eq!(living.join().unwrap(), sent + 1);
    let [producers, subscribers] = kills;
    println!(
        "{producers} producers and {subscribers} subscribers killed; {sent} messages, none lost, none torn"
    );
}

#[test]
fn the_producer_goes_on_when_the_subscriber_that_held_it_back_is_killed() {
    let _watchdog = watchdog(60);
    let rounds = std::env::var("RINGWAY_KILLS").map_or(5, |kills| kills.parse().unwrap());
    let name = name("held");
    let ring = broadcast::create(&name, Config::default().capacity(4096)).unwrap();
    let mut tx = ring.producer().unwrap();
    let mut waits = Vec::new();
    for _ in 0..rounds {
        let mut dead = Peer::start(&format!("sit {name}"));
        // Before it has said so it counts as living, but may be looking for its place yet, which makes room.
        dead.hear("joined");
        while tx.try_send(&[7; 100]).is_ok() {}
        let sender = common::this_thread();
        let killer = std::thread::spawn(move || {
            until(|| sleeps(sender));
            dead.process.0.kill().unwrap();
            let killed = Instant::now();
            dead.process.0.wait().unwrap();
            killed
        });
        tx.send(&[7; 100]).unwrap();
        let free = Instant::now();
        waits.push(free.saturating_duration_since(killer.join().unwrap()));
    }
    waits.sort();
    println!(
        "{rounds} kills: the producer went on after {:?} (median), {:?} (worst)",
        waits[waits.len() / 2],
        waits.last().unwrap()
    );
}

#[test]
fn a_subscriber_that_was_stopped_reports_exactly_how_many_it_missed() {
    let duration = seconds("RINGWAY_STOP_SECONDS", 0.3);
    let _watchdog = watchdog(60 + duration.as_secs());
    let name = name("stopped");
    let ring = broadcast::create(&name, Config::default().policy(Policy::Lossy)).unwrap();
    let mut tx = ring.producer().unwrap();
    let mut stopped = Peer::start(&format!("count {name}"));
    stopped.hear("joined");
    let mut buffer = Vec::new();
    let mut send = |count: u64| {
        for _ in 0..count {
            message(tx.sequence(), &mut buffer);
            tx.send(&buffer).unwrap();
        }
    };
    send(100);
    stopped.signal(libc::SIGSTOP);
    let end = Instant::now() + duration;
    while Instant::now() < end {
        send(1000);
    }
    stopped.signal(libc::SIGCONT);
    send(100);
    drop(tx);
    // It checked each gap against the number in the message after it.
    let said = stopped.hear("counted");
    let said: Vec<u64> = said.split(' ').map(|word| word.parse().unwrap()).collect();
    assert_eq!(said[0], ring.sent());
    assert!(said[1] >= 1 && said[2] > 1000, "{said:?}");
    println!(
        "stopped for {duration:?}: of {} messages {} missed in {} gaps, exactly",
        said[0], said[2], said[1]
    );
}

#[test]
fn subscribers_overrun_at_random_see_no_torn_message() {
    let duration = seconds("RINGWAY_OVERRUN_SECONDS", 2.0);
    let _watchdog = watchdog(60 + duration.as_secs());
    let name = name("overrun");
    let config = Config::default().capacity(4096).policy(Policy::Lossy);
    let ring = broadcast::create(&name, config).unwrap();
    let mut tx = ring.producer().unwrap();
    let mut peers = [
        Peer::start(&format!("count {name}")),
        Peer::start(&format!("count {name} newest")),
    ];
    peers.iter_mut().for_each(|peer| {
        peer.hear("joined");
    });
    let mut eye = broadcast::Ring::observe(&name)
        .unwrap()
        .observer(Start::Next)
        .unwrap();
    let observer = std::thread::spawn(move || {
        let (mut expected, mut missed, mut buffer) = (0, 0, Vec::new());
        loop {
            match follow(&mut eye, &mut expected, &mut buffer) {
                Ok(count) => missed += count,
                Err(RecvError::Closed) => return (expected, missed),
                Err(error) => panic!("{error}"),
            }
        }
    });
    let (mut random, mut buffer) = (Random(5), Vec::new());
    let end = Instant::now() + duration;
    while Instant::now() < end {
        for _ in 0..random.next() % 2000 {
            message(tx.sequence(), &mut buffer);
            tx.send(&buffer).unwrap();
        }
        if random.next() % 4 == 0 {
            (0..random.next() % 500).for_each(|_| std::thread::yield_now());
        }
    }
    drop(tx);
    let sent = ring.sent();
    let (followed, missed) = observer.join().unwrap();
    assert_eq!(followed, sent);
    println!("{sent} messages; the observer missed {missed}");
    for peer in &mut peers {
        let said = peer.hear("counted");
        let said: Vec<u64> = said.split(' ').map(|word| word.parse().unwrap()).collect();
        assert_eq!(said[0], sent);
        println!(
            "a subscriber missed {} in {} gaps; none torn",
            said[2], said[1]
        );
    }
}
