//! The MPMC ring between real processes that are killed and stopped at any moment.
//!
//! The storm runs for 10 s; `RINGWAY_STORM_SECONDS=60 cargo test --test mpmc_death storm -- --nocapture`
//! runs it longer, `RINGWAY_SEED=n` repeats a choice of victims.

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memmap2::{MmapOptions, MmapRaw};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use ringway::mpmc::{self, Config, OnDeath, Ring};
use ringway::wait::WaitStrategy;
use ringway::{RecvError, SendError};

mod common;
use common::{Random, Reaped, child, task, until, watchdog};

const CHILD: &str = "child_process";

/// What the processes of a test tell each other beside the ring.
struct Evidence(MmapRaw);

/// Words at the beginning of the evidence, then `sent` by incarnation, then marks.
const WORDS: usize = 64;
const INCARNATIONS: usize = 40_000;
/// The most messages of one incarnation of a producer.
const EACH: usize = 8192;

impl Evidence {
    fn path(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("ringway-evidence-{name}"))
    }

    fn create(name: &str) -> Evidence {
        let file = File::create_new(Evidence::path(name)).unwrap();
        file.set_len((8 * (WORDS + INCARNATIONS) + INCARNATIONS * EACH) as u64)
            .unwrap();
        drop(file);
        Evidence::open(name)
    }

    fn open(name: &str) -> Evidence {
        let file = File::options()
            .read(true)
            .write(true)
            .open(Evidence::path(name))
            .unwrap();
        Evidence(MmapOptions::new().map_raw(&file).unwrap())
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < WORDS + INCARNATIONS);
        // SAFETY: inside the mapping, aligned to 8; an atomic is valid whatever it holds.
        unsafe { &*self.0.as_mut_ptr().cast::<AtomicU64>().add(index) }
    }

    /// How many messages incarnation `id` was told it had sent.
    fn sent(&self, id: usize) -> &AtomicU64 {
        self.word(WORDS + id)
    }

    /// How often message `number` of incarnation `id` was delivered: in the lower half of the byte the
    /// first time, in the upper half again.
    fn mark(&self, id: usize, number: usize) -> &AtomicU8 {
        assert!(id < INCARNATIONS && number < EACH);
        let at = 8 * (WORDS + INCARNATIONS) + id * EACH + number;
        // SAFETY: inside the mapping; an atomic byte is valid whatever it holds.
        unsafe { &*self.0.as_mut_ptr().cast::<AtomicU8>().add(at) }
    }
}

struct Cleanup(String);

impl Drop for Cleanup {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(Evidence::path(&self.0));
        let _ = std::fs::remove_file(format!("/dev/shm/ringway.{}", self.0));
    }
}

/// Words of the evidence.
const STOP_PRODUCERS: usize = 0;
const STOP_CONSUMERS: usize = 1;
const DELIVERED: usize = 2;
const REDELIVERED: usize = 3;
const READY: usize = 4;
/// The process that a raw fork made, and whether it could act as its parent (1: no; 2: yes).
const FORKED: usize = 5;
const ACTED: usize = 6;

fn message(id: u64, number: u64) -> [u8; 40] {
    let words = [id, number, !id, !number, id.rotate_left(17) ^ number];
    let mut bytes = [0; 40];
    bytes
        .chunks_mut(8)
        .zip(words)
        .for_each(|(to, word)| to.copy_from_slice(&word.to_le_bytes()));
    bytes
}

/// What a test's children do; empty in the test itself.
#[test]
fn child_process() {
    let Some(task) = task() else { return };
    // A child must not outlive a test that was itself killed.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).unwrap();
    let words: Vec<&str> = task.split(' ').collect();
    let evidence = Evidence::open(words[1]);
    let ring = match words[0] {
        "produce-items" | "consume-items" => Ring::anonymous(Config::default()).unwrap(),
        _ => mpmc::attach(words[1]).unwrap(),
    };
    match words[0] {
        "produce" => produce(&ring, &evidence, words[2].parse().unwrap()),
        "consume" => consume(&ring, &evidence),
        "produce-items" => {
            let mut tx = mpmc::items::attach(words[1]).unwrap().producer().unwrap();
            let id: u64 = words[2].parse().unwrap();
            for number in 0..EACH as u64 {
                persist(|| tx.send(id << 32 | number));
                evidence
                    .sent(id as usize)
                    .store(number + 1, Ordering::Release);
            }
            sleep_for_ever();
        }
        "consume-items" => {
            let mut rx = mpmc::items::attach(words[1]).unwrap().consumer().unwrap();
            while let Ok(item) = rx.recv_timeout(Duration::from_secs(3600)) {
                let mark = evidence.mark((item >> 32) as usize, (item & 0xffff_ffff) as usize);
                mark.fetch_add(1, Ordering::Relaxed);
                evidence.word(DELIVERED).fetch_add(1, Ordering::Relaxed);
            }
        }
        "reserve" => {
            let mut tx = ring.producer().unwrap();
            let _slot = tx.reserve(8).unwrap();
            evidence.word(READY).fetch_add(1, Ordering::SeqCst);
            sleep_for_ever();
        }
        "raw-fork" => {
            let mut tx = ring.producer().unwrap();
            std::mem::forget(tx.reserve(8).unwrap());
            // SAFETY: a plain fork, without what the C library does besides; the child uses one handle,
            // atomics and system calls, and is killed.
            let pid = unsafe {
                libc::syscall(libc::SYS_clone, libc::SIGCHLD as libc::c_long, 0, 0, 0, 0)
            };
            if pid == 0 {
                // Should the test not get so far as to kill it.
                // SAFETY: takes a number.
                unsafe { libc::alarm(60) };
                let refused = matches!(tx.try_send(b"x"), Err(SendError::Forked));
                evidence
                    .word(ACTED)
                    .store(if refused { 1 } else { 2 }, Ordering::SeqCst);
            } else {
                evidence.word(FORKED).store(pid as u64, Ordering::SeqCst);
            }
            evidence.word(READY).fetch_add(1, Ordering::SeqCst);
            sleep_for_ever();
        }
        "stop" => {
            // Stops itself inside a claim, and finishes it when it is continued.
            let mut tx = ring.producer().unwrap();
            let mut slot = tx.reserve(8).unwrap();
            nix::sys::signal::raise(Signal::SIGSTOP).unwrap();
            slot.copy_from_slice(b"stopped!");
            slot.commit();
        }
        "hold" => {
            let mut rx = ring.consumer().unwrap();
            let _message = rx.recv().unwrap();
            evidence.word(READY).fetch_add(1, Ordering::SeqCst);
            sleep_for_ever();
        }
        "attach" => {
            let _tx = (words[2] == "producer").then(|| ring.producer().unwrap());
            let _rx = (words[2] == "consumer").then(|| ring.consumer().unwrap());
            evidence.word(READY).fetch_add(1, Ordering::SeqCst);
            sleep_for_ever();
        }
        other => panic!("no task {other}"),
    }
}

fn sleep_for_ever() {
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Sends, also over a moment in which every consumer has just been killed.
fn persist(mut send: impl FnMut() -> Result<(), SendError>) {
    loop {
        match send() {
            Err(SendError::PeerDied) => {}
            result => return result.unwrap(),
        }
    }
}

fn produce(ring: &Ring, evidence: &Evidence, id: u64) {
    let mut tx = ring.producer().unwrap();
    for number in 0..EACH as u64 {
        if evidence.word(STOP_PRODUCERS).load(Ordering::Relaxed) != 0 {
            return;
        }
        let bytes = message(id, number);
        // By all the ways there are.
        match number % 8 {
            0 => persist(|| {
                let mut slot = tx.reserve(40)?;
                slot.copy_from_slice(&bytes);
                slot.commit();
                Ok(())
            }),
            1 if number % 64 == 1 => {
                persist(|| tx.reserve(8).map(drop));
                persist(|| tx.send(&bytes));
            }
            2 => persist(|| tx.send_batch([bytes])),
            _ => persist(|| tx.send(&bytes)),
        }
        evidence
            .sent(id as usize)
            .store(number + 1, Ordering::Release);
    }
}

fn consume(ring: &Ring, evidence: &Evidence) {
    let mut rx = ring.consumer().unwrap();
    let mut last = HashMap::new();
    loop {
        match rx.recv_timeout(Duration::from_millis(100)) {
            Ok(message) => note(evidence, &message, message.redelivered(), &mut last),
            Err(RecvError::TimedOut | RecvError::Closed | RecvError::PeerDied) => {
                if evidence.word(STOP_CONSUMERS).load(Ordering::Relaxed) != 0 {
                    return;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// Notes a delivered message; it must be whole, and in its producer's order.
fn note(evidence: &Evidence, bytes: &[u8], redelivered: bool, last: &mut HashMap<u64, u64>) {
    let word = |i: usize| u64::from_le_bytes(bytes[8 * i..8 * i + 8].try_into().unwrap());
    let (id, number) = (word(0), word(1));
    assert_eq!(bytes, message(id, number), "torn");
    if redelivered {
        evidence
            .mark(id as usize, number as usize)
            .fetch_add(16, Ordering::Relaxed);
        evidence.word(REDELIVERED).fetch_add(1, Ordering::Relaxed);
    } else {
        let before = last.insert(id, number);
        assert!(
            before.is_none_or(|before| before < number),
            "{number} after {before:?}"
        );
        evidence
            .mark(id as usize, number as usize)
            .fetch_add(1, Ordering::Relaxed);
    }
    evidence.word(DELIVERED).fetch_add(1, Ordering::Relaxed);
}

fn spawn(task: &str) -> Reaped {
    let mut command = child(CHILD, task);
    command.stdout(std::process::Stdio::null());
    Reaped(command.spawn().unwrap())
}

fn signal(child: &Reaped, signal: Signal) {
    kill(Pid::from_raw(child.0.id() as i32), signal).unwrap();
}

/// Kills it, and waits until the kernel says so.
fn slay(mut child: Reaped) {
    child.0.kill().unwrap();
    child.0.wait().unwrap();
}

fn storm(name: &str, wait: WaitStrategy, on_death: OnDeath, seconds: u64) {
    let name = &format!("{name}-{}", std::process::id());
    let _cleanup = Cleanup(name.clone());
    let evidence = Evidence::create(name);
    let config = Config::default()
        .slots(64)
        .slot_size(40)
        .wait(wait)
        .on_death(on_death);
    let ring = mpmc::create(name, config).unwrap();
    let seed = std::env::var("RINGWAY_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) ^ 0x5eed);
    let mut random = Random(seed);
    let mut incarnations = 0;
    let mut start = |producer: bool| {
        if producer {
            incarnations += 1;
            spawn(&format!("produce {name} {}", incarnations - 1))
        } else {
            spawn(&format!("consume {name}"))
        }
    };
    let mut crew: Vec<Reaped> = (0..8).map(|i| start(i < 4)).collect();
    let (mut kills, mut finished) = ([0u64; 2], 0u64);
    let started = Instant::now();
    let (mut progress, mut at, mut worst) = (0, Instant::now(), Duration::ZERO);
    while started.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_micros(1000 + random.below(4000)));
        for (i, member) in crew.iter_mut().enumerate() {
            let Some(status) = member.0.try_wait().unwrap() else {
                continue;
            };
            assert!(
                status.success(),
                "a participant failed: {status} (seed {seed})"
            );
            finished += 1;
            *member = start(i < 4);
        }
        let i = random.below(8) as usize;
        let victim = std::mem::replace(&mut crew[i], start(i < 4));
        slay(victim);
        kills[i / 4] += 1;
        let now = evidence.word(DELIVERED).load(Ordering::Relaxed);
        if now != progress {
            (progress, worst, at) = (now, worst.max(at.elapsed()), Instant::now());
        }
        assert!(
            at.elapsed() < Duration::from_secs(10),
            "hangs at {ring:?} (seed {seed})"
        );
    }
    // Producers end, consumers drain, and what is left is taken here.
    evidence.word(STOP_PRODUCERS).store(1, Ordering::Relaxed);
    let consumers = crew.split_off(4);
    for mut producer in crew {
        assert!(producer.0.wait().unwrap().success());
    }
    evidence.word(STOP_CONSUMERS).store(1, Ordering::Relaxed);
    for mut consumer in consumers {
        assert!(consumer.0.wait().unwrap().success());
    }
    let mut rx = ring.consumer().unwrap();
    let mut last = HashMap::new();
    while let Ok(message) = rx.recv_timeout(Duration::from_millis(300)) {
        note(&evidence, &message, message.redelivered(), &mut last);
    }
    let (mut lost, mut doubled, mut sent, mut again) = (0, 0, 0, 0);
    for id in 0..incarnations {
        let ok = evidence.sent(id).load(Ordering::Acquire) as usize;
        sent += ok;
        for number in 0..EACH {
            let mark = evidence.mark(id, number).load(Ordering::Relaxed);
            if mark & 15 > 1 {
                doubled += 1;
            }
            again += usize::from(mark >> 4);
            if number < ok && mark == 0 {
                lost += 1;
            }
        }
    }
    println!(
        "storm {wait} {on_death:?}: {} kills ({} producers, {} consumers) in {:.1} s, {finished} finished; {sent} sent, {} delivered, {again} redelivered, {lost} lost, {doubled} doubled unmarked; longest time without a delivery {worst:?} (all 8 share 2 processors); seed {seed}",
        kills[0] + kills[1],
        kills[0],
        kills[1],
        started.elapsed().as_secs_f64(),
        evidence.word(DELIVERED).load(Ordering::Relaxed),
    );
    assert_eq!(doubled, 0, "delivered twice and not marked");
    match on_death {
        OnDeath::Redeliver => assert_eq!(lost, 0, "sent, and never delivered"),
        // One per killed consumer at most.
        OnDeath::Drop => assert!(again == 0 && lost as u64 <= kills[1]),
    }
    // Every slot is usable.
    let mut tx = ring.producer().unwrap();
    for i in 0..ring.capacity() {
        tx.try_send(&i.to_le_bytes()).unwrap();
    }
    assert!(matches!(tx.try_send(b"more"), Err(SendError::Full)));
    for i in 0..ring.capacity() {
        assert_eq!(&rx.try_recv().unwrap()[..], i.to_le_bytes());
    }
    assert!(kills[0] + kills[1] > 20, "too few kills to show anything");
}

fn storm_seconds() -> u64 {
    std::env::var("RINGWAY_STORM_SECONDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(10)
}

#[test]
fn storm_of_kills_loses_doubles_and_tears_nothing() {
    let seconds = storm_seconds();
    let _watchdog = watchdog(seconds + 90);
    storm("storm", WaitStrategy::Adaptive, OnDeath::Redeliver, seconds);
}

#[test]
fn storm_with_policy_drop_loses_at_most_what_the_killed_held() {
    let _watchdog = watchdog(90);
    storm(
        "storm-drop",
        WaitStrategy::Futex,
        OnDeath::Drop,
        storm_seconds().min(3),
    );
}

fn small(name: &str, config: Config) -> (String, Cleanup, Evidence, Ring) {
    let name = format!("{name}-{}", std::process::id());
    let evidence = Evidence::create(&name);
    let ring = mpmc::create(&name, config.slots(4).slot_size(16)).unwrap();
    (name.clone(), Cleanup(name), evidence, ring)
}

fn wait_ready(evidence: &Evidence, count: u64) {
    until(|| evidence.word(READY).load(Ordering::SeqCst) == count);
}

#[test]
fn producer_killed_between_claim_and_commit_loses_only_its_own_message() {
    let _watchdog = watchdog(60);
    let (name, _cleanup, evidence, ring) = small("claim", Config::default());
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    tx.send(b"before").unwrap();
    let victim = spawn(&format!("reserve {name}"));
    wait_ready(&evidence, 1);
    tx.send(b"after").unwrap();
    assert_eq!(&rx.recv().unwrap()[..], b"before");
    // Alive, it is waited for.
    let short = Duration::from_millis(150);
    assert!(matches!(rx.recv_timeout(short), Err(RecvError::TimedOut)));
    slay(victim);
    assert_eq!(&rx.recv().unwrap()[..], b"after");
    for i in 0..20u64 {
        tx.send(&i.to_le_bytes()).unwrap();
        assert_eq!(&rx.recv().unwrap()[..], i.to_le_bytes());
    }
}

#[test]
fn message_of_a_killed_consumer_is_redelivered_and_says_so() {
    let _watchdog = watchdog(60);
    let (name, _cleanup, evidence, ring) = small("hold", Config::default());
    let mut tx = ring.producer().unwrap();
    tx.send(b"held").unwrap();
    tx.send(b"next").unwrap();
    let victim = spawn(&format!("hold {name}"));
    wait_ready(&evidence, 1);
    slay(victim);
    // Killed while holding it twice over: the second is an adopter.
    let victim = spawn(&format!("hold {name}"));
    wait_ready(&evidence, 2);
    slay(victim);
    let mut rx = ring.consumer().unwrap();
    let mut got: Vec<(Vec<u8>, bool)> = (0..2)
        .map(|_| {
            let message = rx.recv().unwrap();
            (message.to_vec(), message.redelivered())
        })
        .collect();
    got.sort();
    assert_eq!(got[0], (b"held".to_vec(), true));
    assert_eq!(got[1].0, b"next");
    for i in 0..20u64 {
        tx.send(&i.to_le_bytes()).unwrap();
        assert_eq!(&rx.recv().unwrap()[..], i.to_le_bytes());
    }
}

#[test]
fn a_full_ring_behind_a_dead_consumers_message_goes_on_when_another_consumer_takes_it() {
    let _watchdog = watchdog(60);
    for (on_death, expected) in [(OnDeath::Redeliver, 6), (OnDeath::Drop, 5)] {
        let (name, _cleanup, evidence, ring) =
            small("behind", Config::default().on_death(on_death));
        let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
        tx.send(b"held").unwrap();
        let victim = spawn(&format!("hold {name}"));
        wait_ready(&evidence, 1);
        for _ in 0..3 {
            tx.send(b"more").unwrap();
        }
        assert!(matches!(tx.try_send(b"full"), Err(SendError::Full)));
        slay(victim);
        let received = std::thread::scope(|scope| {
            let receiver = scope.spawn(move || {
                let mut count = 0;
                while rx.recv().is_ok() {
                    count += 1;
                }
                count
            });
            tx.send(b"room").unwrap();
            tx.send(b"room").unwrap();
            drop(tx);
            receiver.join().unwrap()
        });
        assert_eq!(received, expected, "{on_death:?}");
    }
}

#[test]
fn a_participant_stopped_inside_a_claim_is_waited_for_and_never_robbed() {
    let _watchdog = watchdog(60);
    let (name, _cleanup, _evidence, ring) = small("stop", Config::default());
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    let mut stopped = spawn(&format!("stop {name}"));
    let pid = Pid::from_raw(stopped.0.id() as i32);
    let status = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).unwrap();
    assert!(matches!(status, WaitStatus::Stopped(_, Signal::SIGSTOP)));
    // The others go on up to the capacity, then wait; nobody repairs what is not dead.
    for i in 0..3u64 {
        tx.send(&i.to_le_bytes()).unwrap();
    }
    let short = Duration::from_millis(200);
    assert!(matches!(
        tx.send_timeout(b"full", short),
        Err(SendError::TimedOut)
    ));
    assert!(matches!(rx.recv_timeout(short), Err(RecvError::TimedOut)));
    signal(&stopped, Signal::SIGCONT);
    assert_eq!(&rx.recv().unwrap()[..], b"stopped!");
    for i in 0..3u64 {
        assert_eq!(&rx.recv().unwrap()[..], i.to_le_bytes());
    }
    assert!(stopped.0.wait().unwrap().success());
}

#[test]
fn a_sleeping_consumer_learns_within_100_ms_that_all_producers_are_dead() {
    let _watchdog = watchdog(60);
    for wait in WaitStrategy::ALL
        .into_iter()
        .filter(|wait| *wait != WaitStrategy::EventFd)
    {
        let (name, _cleanup, evidence, ring) = small("producers", Config::default().wait(wait));
        let mut rx = ring.consumer().unwrap();
        let victims = [(); 2].map(|()| spawn(&format!("attach {name} producer")));
        wait_ready(&evidence, 2);
        std::thread::scope(|scope| {
            let sleeper = scope.spawn(move || {
                let error = rx.recv().unwrap_err();
                assert!(matches!(error, RecvError::PeerDied), "{error}");
                Instant::now()
            });
            let mut died = Instant::now();
            for victim in victims {
                slay(victim);
                died = Instant::now();
            }
            let noticed = sleeper.join().unwrap().saturating_duration_since(died);
            println!("{wait}: noticed after {noticed:?}");
        });
    }
}

#[test]
fn a_sleeping_producer_learns_that_all_consumers_are_dead() {
    let _watchdog = watchdog(60);
    let (name, _cleanup, evidence, ring) = small("consumers", Config::default());
    let mut tx = ring.producer().unwrap();
    let victim = spawn(&format!("attach {name} consumer"));
    wait_ready(&evidence, 1);
    for _ in 0..4 {
        tx.send(b"fill").unwrap();
    }
    std::thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            assert!(matches!(tx.send(b"more"), Err(SendError::PeerDied)));
        });
        slay(victim);
        sleeper.join().unwrap();
    });
    // However little time there is to find out.
    let error = tx.send_timeout(b"more", Duration::ZERO).unwrap_err();
    assert!(matches!(error, SendError::PeerDied), "{error}");
    // A successor takes its place, and the ring goes on.
    let mut rx = ring.consumer().unwrap();
    for _ in 0..4 {
        assert_eq!(&rx.recv().unwrap()[..], b"fill");
    }
    tx.send(b"more").unwrap();
    assert_eq!(&rx.recv().unwrap()[..], b"more");
}

#[test]
fn a_ring_all_of_whose_participants_were_killed_is_taken_up_where_they_left_it() {
    let _watchdog = watchdog(60);
    let (name, _cleanup, evidence, ring) = small("all", Config::default().participants(3));
    ring.producer().unwrap().send(b"held").unwrap();
    // Every record is a dead one's, one of them with a message.
    let mut victims = vec![spawn(&format!("hold {name}"))];
    wait_ready(&evidence, 1);
    victims.push(spawn(&format!("reserve {name}")));
    wait_ready(&evidence, 2);
    victims.push(spawn(&format!("attach {name} consumer")));
    wait_ready(&evidence, 3);
    assert!(ring.producer().is_err(), "all three records are in use");
    victims.into_iter().for_each(slay);
    let mut rx = ring.consumer().unwrap();
    let message = rx.recv().unwrap();
    assert_eq!((&message[..], message.redelivered()), (&b"held"[..], true));
    drop(message);
    let mut tx = ring.producer().unwrap();
    for i in 0..20u64 {
        tx.send(&i.to_le_bytes()).unwrap();
        assert_eq!(&rx.recv().unwrap()[..], i.to_le_bytes());
    }
}

#[test]
fn a_message_whose_consumer_was_killed_keeps_the_name_for_another_consumer() {
    let _watchdog = watchdog(60);
    let (name, _cleanup, evidence, ring) = small("orphan", Config::default());
    let mut tx = ring.producer().unwrap();
    tx.send(b"held").unwrap();
    let victim = spawn(&format!("hold {name}"));
    wait_ready(&evidence, 1);
    slay(victim);
    drop((tx, ring));
    let ring = mpmc::attach(&name).unwrap();
    let mut rx = ring.consumer().unwrap();
    let message = rx.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!((&message[..], message.redelivered()), (&b"held"[..], true));
    drop(message);
    drop((rx, ring));
    assert!(mpmc::attach(&name).is_err(), "nothing was left in it");
}

#[test]
fn a_forked_child_cannot_act_as_its_parent() {
    let _watchdog = watchdog(60);
    let ring = Ring::anonymous(Config::default().slots(4)).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    // SAFETY: the child only uses the handle and leaves with _exit.
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Child => {
            let refused = matches!(tx.try_send(b"x"), Err(SendError::Forked))
                && matches!(rx.try_recv(), Err(RecvError::Forked));
            // SAFETY: ends the child without running anything of the parent's.
            unsafe { libc::_exit(if refused { 0 } else { 1 }) }
        }
        nix::unistd::ForkResult::Parent { child } => {
            assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
        }
    }
    tx.send(b"still here").unwrap();
    assert_eq!(&rx.recv().unwrap()[..], b"still here");
}

#[test]
fn what_a_forked_child_drops_is_still_its_parents() {
    let _watchdog = watchdog(60);
    let in_a_child = |what: &mut dyn FnMut() -> bool| {
        // SAFETY: the child only uses and drops what it was given, and leaves with _exit.
        match unsafe { nix::unistd::fork() }.unwrap() {
            nix::unistd::ForkResult::Child => {
                let is_well = what();
                // SAFETY: ends the child without running anything of the parent's.
                unsafe { libc::_exit(if is_well { 0 } else { 1 }) }
            }
            nix::unistd::ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
            }
        }
    };
    let ring = Ring::anonymous(Config::default().slots(2)).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    let is_full = |sent: Result<(), SendError>| matches!(sent, Err(SendError::Full));
    tx.send(b"one").unwrap();
    tx.send(b"two").unwrap();

    let mut message = Some(rx.recv().unwrap());
    in_a_child(&mut || message.take().is_some());
    assert!(is_full(tx.try_send(b"over it")), "its slot was released");
    assert_eq!(message.as_deref(), Some(&b"one"[..]));
    drop(message);

    tx.send(b"three").unwrap();
    let mut batch = Some(rx.drain(2).unwrap());
    in_a_child(&mut || {
        let next = |batch: &mut mpmc::Drain<'_>| batch.next_message().is_ok();
        let all = batch
            .as_mut()
            .is_some_and(|batch| (0..3).all(|_| next(batch)));
        all && batch.take().is_some()
    });
    assert!(is_full(tx.try_send(b"over it")), "its slots were released");
    drop(batch);

    let mut reservation = Some(tx.reserve(4).unwrap());
    in_a_child(&mut || reservation.take().is_some());
    in_a_child(&mut || {
        let reservation = reservation.take();
        reservation.map(mpmc::Reservation::commit).is_some()
    });
    assert!(matches!(rx.try_recv(), Err(RecvError::Empty)));
    let mut reservation = reservation.unwrap();
    reservation.copy_from_slice(b"four");
    reservation.commit();
    assert_eq!(&rx.recv().unwrap()[..], b"four");
}

#[test]
fn a_dead_parent_is_dead_though_a_raw_fork_of_it_lives_and_holds_its_lock() {
    let _watchdog = watchdog(60);
    let (name, _cleanup, evidence, ring) = small("fork", Config::default());
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    let victim = spawn(&format!("raw-fork {name}"));
    wait_ready(&evidence, 2);
    let forked = Pid::from_raw(evidence.word(FORKED).load(Ordering::SeqCst) as i32);
    assert_eq!(
        evidence.word(ACTED).load(Ordering::SeqCst),
        1,
        "the child acted as its parent"
    );
    tx.send(b"after").unwrap();
    let short = Duration::from_millis(150);
    assert!(matches!(rx.recv_timeout(short), Err(RecvError::TimedOut)));
    slay(victim);
    // The lock is held still, by the copy; the process descriptor knows better.
    let received = rx.recv_timeout(Duration::from_secs(20)).map(|m| m.to_vec());
    let lives = kill(forked, None);
    let _ = kill(forked, Signal::SIGKILL);
    assert_eq!(received.unwrap(), b"after");
    assert!(lives.is_ok(), "the child was to outlive its parent");
}

/// CPU time of this thread, in nanoseconds.
fn cpu() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// What a stretch of this thread's work took, in nanoseconds, and what the system did in it.
#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "printed")]
struct Pause {
    kill: u64,
    cpu: u64,
    wall: u64,
    page_faults: i64,
    switches: i64,
}

impl Pause {
    fn of(kill: u64, work: impl FnOnce()) -> Pause {
        let usage = || {
            let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
            (
                usage.minor_page_faults() + usage.major_page_faults(),
                usage.voluntary_context_switches() + usage.involuntary_context_switches(),
            )
        };
        let (faults, switches) = usage();
        let (started, before) = (Instant::now(), cpu());
        work();
        let (cpu, wall) = (cpu() - before, started.elapsed().as_nanos() as u64);
        Pause {
            kill,
            cpu,
            wall,
            page_faults: usage().0 - faults,
            switches: usage().1 - switches,
        }
    }
}

/// Prints the worst pause of a survivor; `RINGWAY_KILLS=1000` for as many kills, in a release build. Beside it,
/// what the machine adds: stretches of about as much work that makes no system call and touches no memory.
#[test]
fn a_death_costs_a_survivor_one_repair() {
    let _watchdog = watchdog(120);
    let kills: usize = std::env::var("RINGWAY_KILLS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(60);
    let (name, _cleanup, evidence, ring) =
        small("repair", Config::default().wait(WaitStrategy::Futex));
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    let _bystanders: Vec<_> = (0..100).map(|_| ring.producer().unwrap()).collect();
    let (mut repairs, mut usual, mut idle) = (Vec::new(), Vec::new(), Vec::new());
    for kill in 0..kills as u64 {
        // A producer that dies with a claim, or a consumer that dies with a message.
        let holds = kill % 2 == 1;
        if holds {
            tx.send(b"held").unwrap();
        }
        let victim = spawn(&format!(
            "{} {name}",
            if holds { "hold" } else { "reserve" }
        ));
        wait_ready(&evidence, kill + 1);
        slay(victim);
        if !holds {
            tx.send(b"after").unwrap();
        }
        repairs.push(Pause::of(kill, || drop(rx.recv().unwrap())));
        while rx.recv_timeout(Duration::ZERO).is_ok() {}
        tx.send(b"x").unwrap();
        usual.push(Pause::of(kill, || drop(rx.recv().unwrap())));
        idle.push(Pause::of(kill, || {
            let mixed = (0..8_000).fold(kill, |sum, i| std::hint::black_box(sum ^ i));
            std::hint::black_box(mixed);
        }));
    }
    println!("{kills} kills, 103 participants");
    for (what, pauses) in [
        ("receiving over a repair", &mut repairs),
        ("receiving without one", &mut usual),
        ("counting, no system call", &mut idle),
    ] {
        pauses.sort_unstable_by_key(|pause| pause.wall);
        let worst_wall = pauses[kills - 1].wall;
        pauses.sort_unstable_by_key(|pause| pause.cpu);
        println!(
            "{what}: CPU time, median {} ns, 99th of 100 {} ns, worst {} ns; wall time, worst {worst_wall} ns",
            pauses[kills / 2].cpu,
            pauses[kills * 99 / 100].cpu,
            pauses[kills - 1].cpu,
        );
        for pause in pauses.iter().rev().take(3) {
            println!("    {pause:?}");
        }
    }
}

#[test]
fn storm_over_items_doubles_nothing_and_loses_at_most_one_item_a_killed_consumer() {
    let _watchdog = watchdog(90);
    let name = &format!("storm-items-{}", std::process::id());
    let _cleanup = Cleanup(name.clone());
    let evidence = Evidence::create(name);
    let ring = mpmc::items::create(name, Config::default().slots(64)).unwrap();
    let mut random = Random(u64::from(std::process::id()));
    let (mut incarnations, mut killed_consumers, mut kills) = (0, 0, 0);
    let mut start = |producer: bool| {
        incarnations += usize::from(producer);
        match producer {
            true => spawn(&format!("produce-items {name} {}", incarnations - 1)),
            false => spawn(&format!("consume-items {name}")),
        }
    };
    let mut crew: Vec<Reaped> = (0..4).map(|i| start(i < 2)).collect();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(storm_seconds().min(3)) {
        std::thread::sleep(Duration::from_micros(2000 + random.below(6000)));
        let i = random.below(4) as usize;
        slay(std::mem::replace(&mut crew[i], start(i < 2)));
        kills += 1;
        killed_consumers += usize::from(i >= 2);
    }
    killed_consumers += 2;
    crew.into_iter().for_each(slay);
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    while let Ok(item) = rx.recv_timeout(Duration::from_millis(50)) {
        evidence
            .mark((item >> 32) as usize, (item & 0xffff_ffff) as usize)
            .fetch_add(1, Ordering::Relaxed);
    }
    let (mut sent, mut lost) = (0, 0);
    for id in 0..incarnations {
        let ok = evidence.sent(id).load(Ordering::Acquire) as usize;
        sent += ok;
        for number in 0..EACH {
            let mark = evidence.mark(id, number).load(Ordering::Relaxed);
            assert!(mark <= 1, "delivered twice");
            lost += usize::from(number < ok && mark == 0);
        }
    }
    println!(
        "storm over items: {kills} kills, {sent} sent, {lost} lost with {killed_consumers} killed consumers"
    );
    assert!(lost <= killed_consumers && sent > 0);
    for i in 0..ring.capacity() {
        tx.try_send(i).unwrap();
    }
    assert!(matches!(tx.try_send(0), Err(SendError::Full)));
}
