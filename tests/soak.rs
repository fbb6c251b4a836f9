//! Everything at once, for as long as one likes: rings of both kinds, of random sizes and wait strategies,
//! between processes that are killed, stopped, continued, replaced and joined by others at random.
//!
//! ```text
//! cargo test --test soak -- --nocapture                                  # a few seconds
//! RINGWAY_SOAK_SECONDS=14400 cargo test --test soak -- --nocapture       # four hours
//! RINGWAY_SEED=123 RINGWAY_SOAK_ROUND=17 cargo test --test soak -- --nocapture   # round 17 of that seed
//! ```
//!
//! The seed, which is printed, decides everything but the timing: what each round is made of, and who is
//! killed or stopped in which order.

#![allow(clippy::forget_non_drop)] // leaking is what is tested

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memmap2::{MmapOptions, MmapRaw};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ringway::wait::WaitStrategy;
use ringway::{Error, RecvError, SendError, mpmc, spsc};

mod common;
use common::{Random, Reaped, child, task, watchdog};

/// The most producers of one round, one after the other or at once.
const INCARNATIONS: usize = 4000;
/// The most messages of one of them.
const EACH: usize = 4096;
/// Words of the evidence, followed by `sent` of each incarnation, and the marks of its messages.
const WORDS: usize = 8;
const STOP_PRODUCERS: usize = 0;
const STOP_CONSUMERS: usize = 1;
const DELIVERED: usize = 2;
const REDELIVERED: usize = 3;

/// What the processes of a round tell each other beside the ring.
struct Evidence(MmapRaw);

impl Evidence {
    fn path(name: &str) -> std::path::PathBuf {
        std::env::temp_dir().join(format!("ringway-soak-{name}"))
    }

    fn open(name: &str) -> Evidence {
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(Evidence::path(name))
            .unwrap();
        file.set_len((8 * (WORDS + INCARNATIONS) + INCARNATIONS * EACH) as u64)
            .unwrap();
        Evidence(MmapOptions::new().map_raw(&file).unwrap())
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < WORDS + INCARNATIONS);
        // SAFETY: inside the mapping, aligned to 8; an atomic is valid whatever it holds.
        unsafe { &*self.0.as_mut_ptr().cast::<AtomicU64>().add(index) }
    }

    /// How many messages incarnation `id` was told it had sent.
    fn sent(&self, id: u64) -> &AtomicU64 {
        self.word(WORDS + id as usize)
    }

    /// How often its message `number` came: as new in the lower half of the byte, marked in the upper.
    fn mark(&self, id: u64, number: u64) -> &AtomicU8 {
        assert!(
            (id as usize) < INCARNATIONS && (number as usize) < EACH,
            "no such message was sent"
        );
        let at = 8 * (WORDS + INCARNATIONS) + id as usize * EACH + number as usize;
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

/// Message `number` of incarnation `id`, of 16 to `max` bytes.
fn message(id: u64, number: u64, max: usize) -> Vec<u8> {
    let mut random = Random(id << 32 | number);
    let len = 16 + random.below(max as u64 - 15) as usize;
    let mut bytes: Vec<u8> = id
        .to_le_bytes()
        .into_iter()
        .chain(number.to_le_bytes())
        .collect();
    bytes.resize_with(len, || random.next() as u8);
    bytes
}

/// Notes a message that was received, before it is given back; it must be whole.
fn note(evidence: &Evidence, bytes: &[u8], redelivered: bool, max: usize) {
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let (id, number) = (word(0), word(8));
    assert_eq!(bytes, message(id, number, max), "torn");
    evidence
        .mark(id, number)
        .fetch_add(if redelivered { 16 } else { 1 }, Ordering::Relaxed);
    evidence.word(DELIVERED).fetch_add(1, Ordering::Relaxed);
    evidence
        .word(REDELIVERED)
        .fetch_add(u64::from(redelivered), Ordering::Relaxed);
}

/// Does it again while the role is another's, who is just being killed.
fn patiently<T>(mut attach: impl FnMut() -> Result<T, Error>) -> T {
    loop {
        match attach() {
            Err(Error::RoleTaken { .. } | Error::TooManyParticipants { .. }) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            result => return result.unwrap(),
        }
    }
}

/// Sends, also over a time in which nobody is there to receive.
fn persist(evidence: &Evidence, mut send: impl FnMut() -> Result<(), SendError>) -> bool {
    loop {
        match send() {
            Ok(()) => return true,
            Err(SendError::PeerDied | SendError::Closed | SendError::TimedOut) => {
                if evidence.word(STOP_PRODUCERS).load(Ordering::Relaxed) != 0 {
                    return false;
                }
                std::thread::sleep(Duration::from_micros(200));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

/// What a round's processes do; empty in the test itself.
#[test]
fn soaked_process() {
    let Some(task) = task() else { return };
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).unwrap();
    let words: Vec<&str> = task.split(' ').collect();
    let (name, evidence) = (words[1], Evidence::open(words[1]));
    let id: u64 = words[2].parse().unwrap();
    let mut random = Random(id);
    let patience = Duration::from_millis(200);
    let going = || evidence.word(STOP_PRODUCERS).load(Ordering::Relaxed) == 0;
    macro_rules! produce {
        ($tx:ident, $max:expr) => {
            for number in (0..EACH as u64).take_while(|_| going()) {
                let bytes = message(id, number, $max);
                let sent = match random.below(16) {
                    0 | 1 => persist(&evidence, || {
                        let mut slot = $tx.try_reserve($max).map_err(|error| match error {
                            SendError::Full => SendError::TimedOut,
                            error => error,
                        })?;
                        slot[..bytes.len()].copy_from_slice(&bytes);
                        slot.commit_len(bytes.len());
                        Ok(())
                    }),
                    2 => {
                        drop($tx.try_reserve($max));
                        persist(&evidence, || $tx.send_timeout(&bytes, patience))
                    }
                    3 => {
                        if let Ok(slot) = $tx.try_reserve($max) {
                            std::mem::forget(slot);
                        }
                        persist(&evidence, || $tx.send_timeout(&bytes, patience))
                    }
                    _ => persist(&evidence, || $tx.send_timeout(&bytes, patience)),
                };
                if !sent {
                    return;
                }
                evidence.sent(id).store(number + 1, Ordering::Release);
            }
        };
    }
    macro_rules! consume {
        ($rx:ident, $max:expr, $most:expr) => {{
            let mut left: u64 = $most;
            while left > 0 {
                match $rx.recv_timeout(Duration::from_millis(50)) {
                    Ok(message) => {
                        note(&evidence, &message, message.redelivered(), $max);
                        left -= 1;
                    }
                    Err(RecvError::TimedOut | RecvError::Closed | RecvError::PeerDied) => {
                        if evidence.word(STOP_CONSUMERS).load(Ordering::Relaxed) != 0 {
                            return;
                        }
                        std::thread::sleep(Duration::from_micros(200));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }};
    }
    match words[0] {
        "spsc-produce" => {
            let ring = spsc::attach(name).unwrap();
            let max = ring.max_message().min(500);
            let mut tx = patiently(|| ring.producer());
            produce!(tx, max);
        }
        "mpmc-produce" => {
            let ring = mpmc::attach(name).unwrap();
            let mut tx = patiently(|| ring.producer());
            produce!(tx, ring.slot_size());
        }
        "spsc-consume" => {
            let ring = spsc::attach(name).unwrap();
            let max = ring.max_message().min(500);
            let mut rx = patiently(|| ring.consumer());
            consume!(rx, max, u64::MAX);
        }
        "mpmc-consume" => {
            let ring = mpmc::attach(name).unwrap();
            let mut rx = patiently(|| ring.consumer());
            consume!(rx, ring.slot_size(), u64::MAX);
        }
        // Comes, takes a few, and leaves.
        "mpmc-visit" => {
            let ring = mpmc::attach(name).unwrap();
            let mut rx = patiently(|| ring.consumer());
            consume!(rx, ring.slot_size(), 20);
        }
        other => panic!("no task {other}"),
    }
}

#[derive(Default)]
struct Counts {
    rounds: u64,
    kills: u64,
    stops: u64,
    attaches: u64,
    sent: u64,
    delivered: u64,
    redelivered: u64,
}

fn signal(member: &Reaped, signal: Signal) {
    kill(Pid::from_raw(member.0.id() as i32), signal).unwrap();
}

/// One round, all of whose choices follow from its seed.
fn round(seed: u64, counts: &mut Counts) {
    let mut random = Random(seed);
    let name = &format!("test-soak-{}", std::process::id());
    let _cleanup = Cleanup(name.clone());
    let _ = std::fs::remove_file(Evidence::path(name));
    let evidence = Evidence::open(name);
    let strategies = [
        WaitStrategy::Spin,
        WaitStrategy::Adaptive,
        WaitStrategy::Futex,
        WaitStrategy::Semaphore,
    ];
    let wait = strategies[random.below(4) as usize];
    let is_mpmc = random.below(2) == 0;
    let touch = random.below(2) == 0;
    let (producers, consumers) = if is_mpmc {
        (1 + random.below(3), 1 + random.below(3))
    } else {
        (1, 1)
    };
    let capacity = if is_mpmc {
        2u64 << random.below(7)
    } else {
        512u64 << random.below(8)
    };
    let slot = 16 + random.below(200);
    let what = format!(
        "{} of {capacity} ({wait}), {producers} producers, {consumers} consumers",
        if is_mpmc { "mpmc" } else { "spsc" }
    );
    let (held_spsc, held_mpmc) = if is_mpmc {
        let config = mpmc::Config::default()
            .slots(capacity)
            .slot_size(slot)
            .participants(16)
            .wait(wait);
        (None, Some(mpmc::create(name, config).unwrap()))
    } else {
        let config = spsc::Config::default()
            .capacity(capacity)
            .touch(touch)
            .wait(wait);
        (Some(spsc::create(name, config).unwrap()), None)
    };
    let kind = if is_mpmc { "mpmc" } else { "spsc" };
    let mut incarnations = 0;
    let mut start = |role: &str| {
        let id = if role == "produce" { incarnations } else { 0 };
        incarnations += u64::from(role == "produce");
        let mut command = child("soaked_process", &format!("{kind}-{role} {name} {id}"));
        Reaped(command.stdout(std::process::Stdio::null()).spawn().unwrap())
    };
    let role_of = |i: usize| {
        if (i as u64) < producers {
            "produce"
        } else {
            "consume"
        }
    };
    let count = (producers + consumers) as usize;
    let mut crew: Vec<Reaped> = (0..count).map(|i| start(role_of(i))).collect();
    let mut visitors: Vec<Reaped> = Vec::new();
    let mut stopped = vec![false; count];
    let events = 20 + random.below(60);
    let (mut progress, mut since) = (0, Instant::now());
    for _ in 0..events {
        std::thread::sleep(Duration::from_micros(500 + random.below(12_000)));
        for (i, member) in crew.iter_mut().enumerate() {
            if let Some(status) = member.0.try_wait().unwrap() {
                assert!(
                    status.success(),
                    "{what}: a {} failed: {status}",
                    role_of(i)
                );
                *member = start(role_of(i));
            }
        }
        let i = random.below(count as u64) as usize;
        match random.below(10) {
            0..4 => {
                // A killed one's place is taken by another at once.
                let _ = crew[i].0.kill();
                crew[i].0.wait().unwrap();
                crew[i] = start(role_of(i));
                stopped[i] = false;
                counts.kills += 1;
            }
            4..6 => {
                signal(&crew[i], Signal::SIGSTOP);
                stopped[i] = true;
                counts.stops += 1;
            }
            6 if is_mpmc && visitors.len() < 4 => {
                visitors.push(start("visit"));
                counts.attaches += 1;
            }
            _ => {
                for (member, stopped) in crew.iter().zip(&mut stopped) {
                    if std::mem::take(stopped) {
                        signal(member, Signal::SIGCONT);
                    }
                }
            }
        }
        let delivered = evidence.word(DELIVERED).load(Ordering::Relaxed);
        if delivered != progress || stopped.contains(&true) {
            (progress, since) = (delivered, Instant::now());
        }
        assert!(
            since.elapsed() < Duration::from_secs(30),
            "{what}: nothing moves"
        );
    }
    // Everybody goes on; producers end, then consumers; what is left is taken here.
    for member in &crew {
        signal(member, Signal::SIGCONT);
    }
    evidence.word(STOP_PRODUCERS).store(1, Ordering::Relaxed);
    let rest = crew.split_off(producers as usize);
    let finish = |mut member: Reaped| {
        let status = member.0.wait().unwrap();
        assert!(status.success(), "{what}: {status}");
    };
    crew.into_iter().for_each(finish);
    evidence.word(STOP_CONSUMERS).store(1, Ordering::Relaxed);
    rest.into_iter().chain(visitors).for_each(finish);
    macro_rules! drain {
        ($ring:expr, $max:expr) => {{
            let mut rx = patiently(|| $ring.consumer());
            loop {
                match rx.recv_timeout(Duration::from_secs(60)) {
                    Ok(message) => note(&evidence, &message, message.redelivered(), $max),
                    // Nobody sends any more, and nothing is left.
                    Err(RecvError::Closed | RecvError::PeerDied) => break,
                    Err(error) => panic!("{what}: {error}"),
                }
            }
        }};
    }
    if let Some(ring) = &held_spsc {
        drain!(ring, ring.max_message().min(500));
    }
    if let Some(ring) = &held_mpmc {
        drain!(ring, ring.slot_size());
    }
    for id in 0..incarnations {
        let sent = evidence.sent(id).load(Ordering::Acquire);
        counts.sent += sent;
        for number in 0..EACH as u64 {
            let mark = evidence.mark(id, number).load(Ordering::Relaxed);
            // One more than it noted may have been sent before it was killed.
            assert!(
                number >= sent || mark != 0,
                "{what}: message {number} of {id} is lost ({sent} were sent)"
            );
            assert!(
                number <= sent || mark == 0,
                "{what}: message {number} of {id} was not sent yet ({sent} were)"
            );
            assert!(
                mark & 15 <= 1,
                "{what}: message {number} of {id} came twice, unmarked"
            );
        }
    }
    counts.rounds += 1;
    counts.delivered += evidence.word(DELIVERED).load(Ordering::Relaxed);
    counts.redelivered += evidence.word(REDELIVERED).load(Ordering::Relaxed);
    if let Some(ring) = &held_spsc {
        ring.unlink().unwrap();
    }
    if let Some(ring) = &held_mpmc {
        ring.unlink().unwrap();
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|value| value.parse().expect(variable))
}

#[test]
fn nothing_is_lost_torn_or_doubled_however_long_it_goes_on() {
    let seconds = number("RINGWAY_SOAK_SECONDS").unwrap_or(4);
    let _watchdog = watchdog(seconds + 300);
    let seed = number("RINGWAY_SEED").unwrap_or_else(|| {
        u64::from(std::process::id()) << 32
            | u64::from(
                std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .unwrap()
                    .subsec_nanos(),
            )
    });
    println!("soak: RINGWAY_SEED={seed}");
    let mut counts = Counts::default();
    let only = number("RINGWAY_SOAK_ROUND");
    let (began, mut said) = (Instant::now(), Instant::now());
    let mut index = only.unwrap_or(0);
    let say = |counts: &Counts| {
        println!(
            "soak: {} rounds in {:.0?}: {} kills, {} stops, {} visitors, {} messages sent, {} delivered, {} of them again",
            counts.rounds,
            began.elapsed(),
            counts.kills,
            counts.stops,
            counts.attaches,
            counts.sent,
            counts.delivered,
            counts.redelivered
        );
    };
    while counts.rounds == 0 || (only.is_none() && began.elapsed() < Duration::from_secs(seconds)) {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            round(seed.wrapping_add(index), &mut counts)
        }));
        if let Err(failure) = result {
            println!("soak: again with RINGWAY_SEED={seed} RINGWAY_SOAK_ROUND={index}");
            std::panic::resume_unwind(failure);
        }
        index += 1;
        if said.elapsed() > Duration::from_secs(60) {
            said = Instant::now();
            say(&counts);
        }
    }
    say(&counts);
}
