//! The MPMC ring against Vyukov's queue, written plainly over the same kind of mapping: what surviving
//! `kill -9` costs. Real processes, interleaved in one run, a raw two-line round trip beside each.
//!
//! `cargo bench --bench mpmc_vs_vyukov [-- REPETITIONS [1x1|2x2|4x4|rtt|cost [QUEUE]]]`

use std::sync::atomic::{AtomicU64, Ordering::*};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use memmap2::{MmapOptions, MmapRaw};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use ringway::mpmc::{Config, Consumer, Producer, Ring, items};
use ringway::wait::WaitStrategy;

const SLOTS: u64 = 1024;
const MESSAGES: u64 = 4_000_000;
const ROUND_TRIPS: u64 = 100_000;
const BATCH: usize = 32;
const STOP: u64 = u64::MAX;

/// Memory that children share.
fn shared(len: usize) -> MmapRaw {
    let file = tempfile::tempfile_in("/dev/shm").expect("a file in /dev/shm");
    file.set_len(len as u64).expect("room in /dev/shm");
    MmapOptions::new().populate().map_raw(&file).expect("mmap")
}

fn word(map: &MmapRaw, offset: usize) -> &AtomicU64 {
    assert!(offset.is_multiple_of(8) && offset + 8 <= map.len());
    // SAFETY: inside the mapping and aligned; an atomic is valid whatever it holds.
    unsafe { &*map.as_mut_ptr().add(offset).cast() }
}

fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu % processors()).expect("a processor");
    let _ = sched_setaffinity(Pid::from_raw(0), &set);
}

/// How many there were before anything was pinned.
fn processors() -> usize {
    static COUNT: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *COUNT.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

fn child(f: impl FnOnce()) -> Pid {
    // SAFETY: this program has one thread whenever it forks, and the child leaves with _exit.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Child => {
            f();
            // SAFETY: ends the child without running what belongs to the parent.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => child,
    }
}

fn join(pid: Pid) {
    assert_eq!(
        waitpid(pid, None).expect("waitpid"),
        WaitStatus::Exited(pid, 0)
    );
}

/// One end of a queue of numbers.
trait End {
    fn push(&mut self, values: &[u64]) -> usize;
    fn pop(&mut self, take: impl FnMut(u64)) -> usize;
    /// Waits for a value, by its own means if it has some; each look in vain is followed by a pause.
    fn wait(&mut self) -> u64 {
        let mut value = None;
        while self.pop(|v| value = Some(v)) == 0 {
            std::hint::spin_loop();
        }
        value.expect("popped")
    }
}

trait Queue {
    type Producer: End;
    type Consumer: End;
    fn producer(&self) -> Self::Producer;
    fn consumer(&self) -> Self::Consumer;
}

struct Vyukov(std::rc::Rc<MmapRaw>);

impl Vyukov {
    fn new() -> Vyukov {
        let map = shared(4096 + SLOTS as usize * 64);
        (0..SLOTS).for_each(|i| word(&map, 4096 + i as usize * 64).store(i, Relaxed));
        Vyukov(map.into())
    }
}

impl Queue for Vyukov {
    type Producer = Vyukov;
    type Consumer = Vyukov;
    fn producer(&self) -> Vyukov {
        Vyukov(self.0.clone())
    }
    fn consumer(&self) -> Vyukov {
        Vyukov(self.0.clone())
    }
}

impl Vyukov {
    #[inline(always)]
    fn slot(&self, ticket: u64) -> (&AtomicU64, &AtomicU64) {
        let at = 4096 + (ticket & (SLOTS - 1)) as usize * 64;
        // SAFETY: inside the mapping, since the ticket is masked; aligned to 8.
        unsafe {
            let slot = self.0.as_mut_ptr().add(at).cast::<AtomicU64>();
            (&*slot, &*slot.add(1))
        }
    }

    #[inline(always)]
    fn try_push(&self, value: u64) -> bool {
        let cursor = word(&self.0, 0);
        let mut tail = cursor.load(Relaxed);
        loop {
            let (sequence, payload) = self.slot(tail);
            let difference = sequence.load(Acquire).wrapping_sub(tail) as i64;
            if difference == 0 {
                match cursor.compare_exchange_weak(tail, tail + 1, Relaxed, Relaxed) {
                    Ok(_) => {
                        payload.store(value, Relaxed);
                        sequence.store(tail + 1, Release);
                        return true;
                    }
                    Err(now) => tail = now,
                }
            } else if difference < 0 {
                return false;
            } else {
                tail = cursor.load(Relaxed);
            }
        }
    }

    #[inline(always)]
    fn try_pop(&self) -> Option<u64> {
        let cursor = word(&self.0, 256);
        let mut head = cursor.load(Relaxed);
        loop {
            let (sequence, payload) = self.slot(head);
            let difference = sequence.load(Acquire).wrapping_sub(head + 1) as i64;
            if difference == 0 {
                match cursor.compare_exchange_weak(head, head + 1, Relaxed, Relaxed) {
                    Ok(_) => {
                        let value = payload.load(Relaxed);
                        sequence.store(head + SLOTS, Release);
                        return Some(value);
                    }
                    Err(now) => head = now,
                }
            } else if difference < 0 {
                return None;
            } else {
                head = cursor.load(Relaxed);
            }
        }
    }
}

impl End for Vyukov {
    fn push(&mut self, values: &[u64]) -> usize {
        values
            .iter()
            .take_while(|value| self.try_push(**value))
            .count()
    }
    fn pop(&mut self, mut take: impl FnMut(u64)) -> usize {
        match self.try_pop() {
            Some(value) => {
                take(value);
                1
            }
            None => 0,
        }
    }
}

/// The ring, its messages one by one or in batches.
struct Ours<const BATCHES: bool>(Ring);

impl<const BATCHES: bool> Ours<BATCHES> {
    fn new(wait: WaitStrategy) -> Self {
        Ours(Ring::anonymous(Config::default().slots(SLOTS).wait(wait)).expect("a ring"))
    }
}

impl<const BATCHES: bool> Queue for Ours<BATCHES> {
    type Producer = OurProducer<BATCHES>;
    type Consumer = OurConsumer<BATCHES>;
    fn producer(&self) -> Self::Producer {
        OurProducer(self.0.producer().expect("a producer"))
    }
    fn consumer(&self) -> Self::Consumer {
        OurConsumer(self.0.consumer().expect("a consumer"))
    }
}

struct OurProducer<const BATCHES: bool>(Producer);
struct OurConsumer<const BATCHES: bool>(Consumer);

impl<const BATCHES: bool> End for OurProducer<BATCHES> {
    fn push(&mut self, values: &[u64]) -> usize {
        if BATCHES {
            self.0
                .send_batch(values.iter().map(|value| value.to_ne_bytes()))
                .expect("send_batch");
            return values.len();
        }
        values
            .iter()
            .take_while(|value| self.0.try_send(&value.to_ne_bytes()).is_ok())
            .count()
    }
    fn pop(&mut self, _: impl FnMut(u64)) -> usize {
        unreachable!("a producer")
    }
}

impl<const BATCHES: bool> End for OurConsumer<BATCHES> {
    fn push(&mut self, _: &[u64]) -> usize {
        unreachable!("a consumer")
    }
    fn pop(&mut self, mut take: impl FnMut(u64)) -> usize {
        let value = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("8 bytes"));
        if BATCHES {
            let mut count = 0;
            let mut batch = self.0.drain(BATCH).expect("drain");
            while let Some(message) = batch.next_message().expect("a message") {
                take(value(message));
                count += 1;
            }
            return count;
        }
        match self.0.try_recv() {
            Ok(message) => {
                take(value(&message));
                1
            }
            Err(_) => 0,
        }
    }
    fn wait(&mut self) -> u64 {
        let message = self.0.recv().expect("the other side is there");
        u64::from_ne_bytes(message[..].try_into().expect("8 bytes"))
    }
}

/// The ring of 8-byte items.
struct OurItems(items::Ring);

impl OurItems {
    fn new(wait: WaitStrategy) -> OurItems {
        let config = Config::default().slots(SLOTS).wait(wait);
        OurItems(items::Ring::anonymous(config).expect("a ring"))
    }
}

impl Queue for OurItems {
    type Producer = items::Producer;
    type Consumer = items::Consumer;
    fn producer(&self) -> items::Producer {
        self.0.producer().expect("a producer")
    }
    fn consumer(&self) -> items::Consumer {
        self.0.consumer().expect("a consumer")
    }
}

impl End for items::Producer {
    fn push(&mut self, values: &[u64]) -> usize {
        values
            .iter()
            .take_while(|value| self.try_send(**value).is_ok())
            .count()
    }
    fn pop(&mut self, _: impl FnMut(u64)) -> usize {
        unreachable!("a producer")
    }
}

impl End for items::Consumer {
    fn push(&mut self, _: &[u64]) -> usize {
        unreachable!("a consumer")
    }
    fn pop(&mut self, mut take: impl FnMut(u64)) -> usize {
        match self.try_recv() {
            Ok(value) => {
                take(value);
                1
            }
            Err(_) => 0,
        }
    }
}

/// crossbeam's queue, in threads: it cannot be shared by processes.
struct Crossbeam(std::sync::Arc<ArrayQueue<u64>>);

fn wait_a_little(count: &mut u32, crowded: bool) {
    std::hint::spin_loop();
    *count += 1;
    if crowded && count.is_multiple_of(64) {
        std::thread::yield_now();
    }
}

/// Million messages a second from `producers` to `consumers`.
fn throughput<Q: Queue>(queue: &Q, producers: usize, consumers: usize) -> f64 {
    let board = shared(4096);
    let crowded = producers + consumers > processors();
    let each = MESSAGES / producers as u64;
    let (ready, go, sum) = (word(&board, 0), word(&board, 64), word(&board, 128));
    let begin = || {
        ready.fetch_add(1, SeqCst);
        while go.load(Acquire) == 0 {
            std::thread::yield_now();
        }
    };
    let mut senders = Vec::new();
    for id in 0..producers {
        senders.push(child(|| {
            pin(id);
            let mut end = queue.producer();
            begin();
            let (mut sent, mut spins) = (0, 0);
            let mut batch = [0; BATCH];
            while sent < each {
                let count = (BATCH as u64).min(each - sent) as usize;
                (0..count).for_each(|i| batch[i] = sent + i as u64);
                let mut rest = &batch[..count];
                while !rest.is_empty() {
                    match end.push(rest) {
                        0 => wait_a_little(&mut spins, crowded),
                        pushed => rest = &rest[pushed..],
                    }
                }
                sent += count as u64;
            }
        }));
    }
    let mut receivers = Vec::new();
    for id in 0..consumers {
        receivers.push(child(|| {
            pin(id + 1);
            let mut end = queue.consumer();
            begin();
            let (mut total, mut spins, mut stops) = (0u64, 0, 0);
            while stops == 0 {
                let got = end.pop(|value| {
                    if value == STOP {
                        stops += 1
                    } else {
                        total += value
                    }
                });
                if got == 0 {
                    wait_a_little(&mut spins, crowded);
                }
            }
            // A batch may have held stops of others: hand them on.
            let mut giver = (stops > 1).then(|| queue.producer());
            for _ in 1..stops {
                while giver.as_mut().expect("made above").push(&[STOP]) == 0 {}
            }
            sum.fetch_add(total, SeqCst);
        }));
    }
    while ready.load(Acquire) != (producers + consumers) as u64 {
        std::thread::sleep(Duration::from_micros(100));
    }
    let started = Instant::now();
    go.store(1, Release);
    senders.into_iter().for_each(join);
    let mut end = queue.producer();
    for _ in 0..consumers {
        while end.push(&[STOP]) == 0 {
            std::thread::yield_now();
        }
    }
    receivers.into_iter().for_each(join);
    let elapsed = started.elapsed();
    assert_eq!(
        sum.load(Acquire),
        producers as u64 * (each * (each - 1) / 2),
        "lost or doubled"
    );
    MESSAGES as f64 / elapsed.as_nanos() as f64 * 1000.0
}

/// Nanoseconds for a message there and one back.
fn round_trip<Q: Queue>(there: &Q, back: &Q) -> f64 {
    let echo = child(|| {
        pin(1);
        let (mut rx, mut tx) = (there.consumer(), back.producer());
        for _ in 0..ROUND_TRIPS {
            let value = rx.wait();
            while tx.push(&[value]) == 0 {}
        }
    });
    pin(0);
    let (mut tx, mut rx) = (there.producer(), back.consumer());
    let mut started = Instant::now();
    for i in 0..ROUND_TRIPS {
        if i == ROUND_TRIPS / 10 {
            started = Instant::now();
        }
        while tx.push(&[i]) == 0 {}
        assert_eq!(rx.wait(), i);
    }
    let elapsed = started.elapsed();
    join(echo);
    unpin();
    elapsed.as_nanos() as f64 / (ROUND_TRIPS - ROUND_TRIPS / 10) as f64
}

/// Nanoseconds that a send and a receive take in one thread, all in its own cache: what the
/// instructions cost.
fn cost<Q: Queue>(queue: &Q, batch: usize) -> f64 {
    const N: usize = 40_000;
    pin(0);
    let (mut tx, mut rx) = (queue.producer(), queue.consumer());
    let values = [1; BATCH];
    let started = Instant::now();
    let mut total = 0;
    for _ in 0..N / batch {
        let mut left = tx.push(&values[..batch]);
        while left > 0 {
            left -= rx.pop(|value| total += value);
        }
    }
    let elapsed = started.elapsed();
    unpin();
    assert_eq!(total as usize, N / batch * batch);
    elapsed.as_nanos() as f64 / N as f64
}

fn unpin() {
    let mut set = CpuSet::new();
    (0..processors()).for_each(|cpu| set.set(cpu).expect("a processor"));
    let _ = sched_setaffinity(Pid::from_raw(0), &set);
}

/// The round trip of two bare cache lines: what the machine does just now.
fn raw2() -> f64 {
    const N: u64 = 20_000;
    let map = shared(4096);
    let (ping, pong) = (word(&map, 0), word(&map, 256));
    let echo = child(|| {
        pin(1);
        for i in 1..=N {
            while ping.load(Acquire) != i {}
            pong.store(i, Release);
        }
    });
    pin(0);
    let mut started = Instant::now();
    for i in 1..=N {
        if i == N / 10 {
            started = Instant::now();
        }
        ping.store(i, Release);
        while pong.load(Acquire) != i {}
    }
    let elapsed = started.elapsed();
    join(echo);
    unpin();
    elapsed.as_nanos() as f64 / (N - N / 10) as f64
}

/// As [`throughput`], in threads.
fn threads(queue: &Crossbeam, producers: usize, consumers: usize) -> f64 {
    let crowded = producers + consumers > processors();
    let each = MESSAGES / producers as u64;
    let barrier = std::sync::Barrier::new(producers + consumers + 1);
    let mut started = Instant::now();
    std::thread::scope(|scope| {
        let senders: Vec<_> = (0..producers)
            .map(|id| {
                let (queue, barrier) = (&queue.0, &barrier);
                scope.spawn(move || {
                    pin(id);
                    barrier.wait();
                    let mut spins = 0;
                    for value in 0..each {
                        while queue.push(value).is_err() {
                            wait_a_little(&mut spins, crowded);
                        }
                    }
                })
            })
            .collect();
        for id in 0..consumers {
            let (queue, barrier) = (&queue.0, &barrier);
            scope.spawn(move || {
                pin(id + 1);
                barrier.wait();
                let mut spins = 0;
                loop {
                    match queue.pop() {
                        Some(STOP) => return,
                        Some(_) => {}
                        None => wait_a_little(&mut spins, crowded),
                    }
                }
            });
        }
        barrier.wait();
        started = Instant::now();
        senders
            .into_iter()
            .for_each(|sender| sender.join().expect("a sender"));
        for _ in 0..consumers {
            while queue.0.push(STOP).is_err() {
                std::thread::yield_now();
            }
        }
    });
    MESSAGES as f64 / started.elapsed().as_nanos() as f64 * 1000.0
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    processors();
    // Flags are cargo's and criterion's; `--test` only proves that it runs.
    let (flags, arguments): (Vec<_>, Vec<_>) = std::env::args()
        .skip(1)
        .partition(|argument| argument.starts_with('-'));
    let number = arguments.first().and_then(|n| n.parse().ok());
    let (repetitions, only): (usize, _) = match number {
        _ if flags.iter().any(|flag| flag == "--test") => (1, Some("1x1".to_owned())),
        Some(number) => (number, arguments.get(1).cloned()),
        None => (5, None),
    };
    let queue = arguments.get(2).cloned();
    let is_wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    use WaitStrategy::{Adaptive, Spin};
    let names = [
        "vyukov",
        "ringway spin",
        "ringway adaptive",
        "ringway spin, batches of 32",
        "ringway adaptive, batches of 32",
        "ringway spin, items",
        "ringway adaptive, items",
        "crossbeam (threads)",
    ];
    println!(
        "{} processors, {repetitions} repetitions, 8-byte messages, {SLOTS} slots",
        processors()
    );
    if is_wanted("cost") {
        println!("\none thread: ns for a send and a receive, the least");
        let costs: [fn() -> f64; 7] = [
            || cost(&Vyukov::new(), 1),
            || cost(&Ours::<false>::new(Spin), 1),
            || cost(&Ours::<false>::new(Adaptive), 1),
            || cost(&Ours::<true>::new(Spin), BATCH),
            || cost(&Ours::<true>::new(Adaptive), BATCH),
            || cost(&OurItems::new(Spin), 1),
            || cost(&OurItems::new(Adaptive), 1),
        ];
        for (name, cost) in names.iter().zip(costs) {
            if queue.as_deref().is_none_or(|wanted| wanted == *name) {
                let least = (0..20 * repetitions)
                    .map(|_| cost())
                    .fold(f64::INFINITY, f64::min);
                println!("  {name:<32} {least:>7.2}");
            }
        }
    }
    for (producers, consumers) in [(1, 1), (2, 2), (4, 4)] {
        if !is_wanted(&format!("{producers}x{consumers}")) {
            continue;
        }
        let mut results = vec![Vec::new(); names.len()];
        let mut raw = Vec::new();
        for _ in 0..4 * repetitions {
            if raw.len() == repetitions {
                break;
            }
            let before = raw2();
            let (p, c) = (producers, consumers);
            let crossbeam = Crossbeam(ArrayQueue::new(SLOTS as usize).into());
            let round = [
                throughput(&Vyukov::new(), p, c),
                throughput(&Ours::<false>::new(Spin), p, c),
                throughput(&Ours::<false>::new(Adaptive), p, c),
                throughput(&Ours::<true>::new(Spin), p, c),
                throughput(&Ours::<true>::new(Adaptive), p, c),
                throughput(&OurItems::new(Spin), p, c),
                throughput(&OurItems::new(Adaptive), p, c),
                threads(&crossbeam, p, c),
            ];
            // A round in which the host moved the processors compares nothing.
            let after = raw2();
            if before.max(after) > 1.4 * before.min(after) {
                continue;
            }
            raw.push(before);
            results
                .iter_mut()
                .zip(round)
                .for_each(|(results, result)| results.push(result));
        }
        if raw.is_empty() {
            println!("\n{producers}x{consumers}: the host moved the processors in every round");
            continue;
        }
        println!(
            "\n{producers}x{consumers}: million/s, median [least, most], against vyukov ({} rounds, raw2 {:.0} ns)",
            raw.len(),
            median(&raw)
        );
        for (name, result) in names.iter().zip(&results) {
            let ratios: Vec<f64> = result.iter().zip(&results[0]).map(|(a, b)| a / b).collect();
            let least = result.iter().copied().fold(f64::INFINITY, f64::min);
            let most = result.iter().copied().fold(0.0, f64::max);
            println!(
                "  {name:<32} {:>7.1} [{least:.1}, {most:.1}]  x{:.2}",
                median(result),
                median(&ratios)
            );
        }
    }
    if !is_wanted("rtt") {
        return;
    }
    let mut results = vec![Vec::new(); 3];
    let mut raw = Vec::new();
    for _ in 0..repetitions {
        raw.push(raw2());
        let spin = Ours::<false>::new;
        let round = [
            round_trip(&Vyukov::new(), &Vyukov::new()),
            round_trip(&spin(Spin), &spin(Spin)),
            round_trip(&spin(Adaptive), &spin(Adaptive)),
        ];
        results
            .iter_mut()
            .zip(round)
            .for_each(|(results, result)| results.push(result));
    }
    println!(
        "\nround trip: ns, against vyukov, against raw2 ({:.0} ns)",
        median(&raw)
    );
    for (name, result) in names.iter().zip(&results) {
        let to = |base: &[f64]| {
            median(
                &result
                    .iter()
                    .zip(base)
                    .map(|(a, b)| a / b)
                    .collect::<Vec<_>>(),
            )
        };
        println!(
            "  {name:<32} {:>7.0}  x{:.2}  x{:.2}",
            median(result),
            to(&results[0]),
            to(&raw)
        );
    }
}
