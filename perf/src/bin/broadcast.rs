//! One to many: what a message costs a producer whose subscribers keep up, lag or sleep, beside shaq's
//! broadcast and iceoryx2's publish-subscribe, in the same interleaved rounds.
//!
//! `broadcast [ROUNDS [NAME]]`: only the systems whose names begin with NAME; without the feature `peers`
//! there are only our own.
//!
//! The producer is pinned to the first processor, all subscribers, each a process, to the second.
//! Nanoseconds a message of 64 bytes:
//!
//! * `all`: everyone receives everything; until the last one has. Nobody loses anything.
//! * `lossy`: what sending takes beside subscribers that are stopped (`lagging`) or sleep where the
//!   mechanism lets them (`parked`; they wake, and fall behind).
//! * `one way`: half of a round trip through two rings of the kind, both sides spinning.

#[cfg(feature = "peers")]
use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

const SIZE: usize = 64;
#[cfg(feature = "peers")]
const SLOTS: usize = 1024;
#[cfg(feature = "peers")]
const MOST: usize = 9;

/// What producer and subscribers share.
#[repr(C)]
struct Page {
    joined: AtomicU64,
    go: AtomicU64,
    done: AtomicU64,
}

/// A subscriber: takes one message if there is one; says how many it has taken or missed by it.
type Take = Box<dyn FnMut() -> u64>;
/// A producer.
type Send = Box<dyn FnMut(&[u8; SIZE])>;

/// A system: its name, the producer's end, and what makes a subscriber's end in its own process.
struct System {
    name: &'static str,
    lossy: bool,
    make: fn(usize) -> (Send, Box<dyn Fn() -> Take>),
}

fn ringway(config: ringway::broadcast::Config) -> (Send, Box<dyn Fn() -> Take>) {
    use ringway::RecvError;
    use ringway::broadcast::Ring;
    let ring = Ring::anonymous(config.capacity(64 << 10)).expect("a ring");
    let mut tx = ring.producer().expect("no other producer");
    let make = move || -> Take {
        let mut rx = ring.subscriber().expect("a seat");
        let mut buffer = Vec::with_capacity(SIZE);
        Box::new(move || match rx.recv_into(&mut buffer) {
            Ok(_) => 1,
            Err(RecvError::Missed { count }) => count,
            Err(error) => panic!("{error}"),
        })
    };
    let send = move |message: &[u8; SIZE]| tx.send(message).expect("subscribers are there");
    (Box::new(send), Box::new(make))
}

fn ringway_lossless(_: usize) -> (Send, Box<dyn Fn() -> Take>) {
    ringway(ringway::broadcast::Config::default())
}

fn ringway_lossy(_: usize) -> (Send, Box<dyn Fn() -> Take>) {
    let config = ringway::broadcast::Config::default();
    ringway(config.policy(ringway::broadcast::Policy::Lossy))
}

/// The yardstick: the ring with one consumer, with the same wait strategy.
fn spsc(_: usize) -> (Send, Box<dyn Fn() -> Take>) {
    let ring = ringway::spsc::Ring::anonymous(Default::default()).expect("a ring");
    let mut tx = ring.producer().expect("no other producer");
    let make = move || -> Take {
        let mut rx = ring.consumer().expect("no other consumer");
        let mut buffer = Vec::with_capacity(SIZE);
        Box::new(move || {
            rx.recv_into(&mut buffer).expect("the producer is there");
            1
        })
    };
    let send = move |message: &[u8; SIZE]| tx.send(message).expect("the consumer is there");
    (Box::new(send), Box::new(make))
}

#[cfg(feature = "peers")]
/// Polls with pauses, and gives the processor away now and then, for there are more subscribers.
fn poll<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let mut looks = 0u32;
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        looks += 1;
        if looks.is_multiple_of(400) {
            std::thread::yield_now();
        } else {
            spin_loop();
        }
    }
}

#[cfg(feature = "peers")]
fn shaq(subscribers: usize) -> (Send, Box<dyn Fn() -> Take>) {
    use shaq::broadcast::{Broadcast, BroadcastConfig, ProducerId};
    let file = tempfile::tempfile_in("/dev/shm").expect("a file in /dev/shm");
    let config = BroadcastConfig {
        capacity: SLOTS,
        producer_slots: 1,
        consumer_slots: subscribers.max(1),
    };
    // SAFETY: the file is new and nobody else's; the message type has no invalid bytes.
    let queue =
        unsafe { Broadcast::<[u8; SIZE]>::create(&file, config) }.expect("a queue of shaq's");
    let mut tx = queue.producer(ProducerId::new(1)).expect("a lane");
    let make = move || -> Take {
        let mut rx = queue.consumer().expect("a place");
        Box::new(move || {
            std::hint::black_box(poll(|| rx.try_read()));
            1
        })
    };
    let send = move |message: &[u8; SIZE]| poll(|| tx.try_write(*message).ok());
    (Box::new(send), Box::new(make))
}

#[cfg(feature = "peers")]
fn iceoryx2(lossy: bool) -> (Send, Box<dyn Fn() -> Take>) {
    use iceoryx2::prelude::*;
    set_log_level(LogLevel::Error);
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("ringway-perf/{}/{number}", std::process::id());
    let service = move || {
        let node = NodeBuilder::new().create::<ipc::Service>().expect("a node");
        let service = node
            .service_builder(&name.as_str().try_into().expect("a service name"))
            .publish_subscribe::<[u8; SIZE]>()
            .enable_safe_overflow(lossy)
            .subscriber_max_buffer_size(SLOTS)
            .max_subscribers(MOST)
            .open_or_create()
            .expect("a service");
        (node, service)
    };
    let (node, ours) = service();
    let publisher = ours
        .publisher_builder()
        .backpressure_strategy(if lossy {
            BackpressureStrategy::DiscardData
        } else {
            BackpressureStrategy::RetryUntilDelivered
        })
        .create()
        .expect("a publisher");
    let make = move || -> Take {
        let (node, service) = service();
        let subscriber = service.subscriber_builder().create().expect("a subscriber");
        let mut next = 0;
        Box::new(move || {
            let _ = (&node, &service);
            let sample = poll(|| subscriber.receive().expect("a publisher"));
            // Overflow is not told: only the number in the message tells.
            let number = u64::from_le_bytes(*sample.first_chunk().expect("a number"));
            let seen = number + 1 - next;
            next = number + 1;
            seen
        })
    };
    let send = move |message: &[u8; SIZE]| {
        let _ = (&node, &ours);
        let sample = publisher.loan_uninit().expect("a free sample");
        sample.write_payload(*message).send().expect("sent");
    };
    (Box::new(send), Box::new(make))
}

const SYSTEMS: &[System] = &[
    System {
        name: "ringway spsc",
        lossy: false,
        make: spsc,
    },
    System {
        name: "ringway lossless",
        lossy: false,
        make: ringway_lossless,
    },
    #[cfg(feature = "peers")]
    System {
        name: "shaq",
        lossy: false,
        make: shaq,
    },
    #[cfg(feature = "peers")]
    System {
        name: "iceoryx2",
        lossy: false,
        make: |_| iceoryx2(false),
    },
    System {
        name: "ringway lossy",
        lossy: true,
        make: ringway_lossy,
    },
    #[cfg(feature = "peers")]
    System {
        name: "iceoryx2 overflow",
        lossy: true,
        make: |_| iceoryx2(true),
    },
];

fn pin(processor: usize) {
    // SAFETY: an all-zero set is valid and empty; its size is given.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set);
    }
}

fn message(number: u64) -> [u8; SIZE] {
    let mut message = [0xA5; SIZE];
    message[..8].copy_from_slice(&number.to_le_bytes());
    message
}

fn page() -> &'static Page {
    // SAFETY: a new shared page, zero, never unmapped; zero is a valid `Page`.
    unsafe {
        let at = libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert_ne!(at, libc::MAP_FAILED);
        &*at.cast::<Page>()
    }
}

fn wait_until(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::yield_now();
    }
}

/// Nanoseconds a message. `stopped`: the subscribers are stopped once they have joined.
fn run(system: &System, subscribers: usize, stopped: bool, count: u64) -> f64 {
    let page = page();
    let (mut send, make) = (system.make)(subscribers);
    let children: Vec<i32> = (0..subscribers)
        .map(|_| {
            // SAFETY: this process has one thread.
            let child = unsafe { libc::fork() };
            if child == 0 {
                // SAFETY: takes integers; it dies with us.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                pin(1);
                let mut take = make();
                page.joined.fetch_add(1, Ordering::AcqRel);
                let mut taken = 0;
                while taken < count {
                    taken += take();
                }
                page.done.fetch_add(1, Ordering::AcqRel);
                loop {
                    std::thread::park();
                }
            }
            child
        })
        .collect();
    pin(0);
    wait_until(|| page.joined.load(Ordering::Acquire) == subscribers as u64);
    // Those who sleep have gone to sleep.
    std::thread::sleep(std::time::Duration::from_millis(5));
    if stopped {
        for child in &children {
            // SAFETY: takes integers.
            unsafe { libc::kill(*child, libc::SIGSTOP) };
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let begun = Instant::now();
    for number in 0..count {
        send(&message(number));
    }
    if !system.lossy {
        wait_until(|| page.done.load(Ordering::Acquire) == subscribers as u64);
    }
    let ns = begun.elapsed().as_nanos() as f64 / count as f64;
    for child in children {
        // SAFETY: takes integers, and waits for our own child.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
    }
    ns
}

/// A ring for one direction of a round trip, both sides spinning. Its ends are made in their processes.
enum Way {
    Spsc(ringway::spsc::Ring),
    Broadcast(ringway::broadcast::Ring),
}

impl Way {
    fn new(name: &str) -> Way {
        use ringway::broadcast::Policy;
        let wait = ringway::wait::WaitStrategy::Spin;
        let config = ringway::broadcast::Config::default().wait(wait);
        match name {
            "ringway spsc" => {
                let config = ringway::spsc::Config::default().wait(wait);
                Way::Spsc(ringway::spsc::Ring::anonymous(config).expect("a ring"))
            }
            "ringway lossy" => {
                let config = config.policy(Policy::Lossy);
                Way::Broadcast(ringway::broadcast::Ring::anonymous(config).expect("a ring"))
            }
            _ => Way::Broadcast(ringway::broadcast::Ring::anonymous(config).expect("a ring")),
        }
    }

    fn send(&self) -> Send {
        match self {
            Way::Spsc(ring) => {
                let mut tx = ring.producer().expect("no other producer");
                Box::new(move |message| tx.send(message).expect("it is there"))
            }
            Way::Broadcast(ring) => {
                let mut tx = ring.producer().expect("no other producer");
                Box::new(move |message| tx.send(message).expect("it is there"))
            }
        }
    }

    fn take(&self) -> Take {
        let mut buffer = Vec::with_capacity(SIZE);
        match self {
            Way::Spsc(ring) => {
                let mut rx = ring.consumer().expect("no other consumer");
                Box::new(move || rx.recv_into(&mut buffer).map(|_| 1).expect("it is there"))
            }
            Way::Broadcast(ring) => {
                let mut rx = ring.subscriber().expect("a seat");
                Box::new(move || rx.recv_into(&mut buffer).map(|_| 1).expect("it is there"))
            }
        }
    }
}

/// Nanoseconds one way.
fn one_way(system: &System, count: u64) -> f64 {
    let page = page();
    let (there, back) = (Way::new(system.name), Way::new(system.name));
    // SAFETY: this process has one thread.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: takes integers; it dies with us.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        pin(1);
        let (mut take, mut send) = (there.take(), back.send());
        page.joined.fetch_add(1, Ordering::AcqRel);
        loop {
            take();
            send(&message(0));
        }
    }
    pin(0);
    let (mut take, mut send) = (back.take(), there.send());
    wait_until(|| page.joined.load(Ordering::Acquire) == 1);
    let begun = Instant::now();
    for number in 0..count {
        send(&message(number));
        take();
    }
    let ns = begun.elapsed().as_nanos() as f64 / count as f64 / 2.0;
    // SAFETY: takes integers, and waits for our own child.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    ns
}

fn run_case(case: &Case) -> f64 {
    if case.what == "one way" {
        one_way(case.system, case.count)
    } else {
        run(
            case.system,
            case.subscribers,
            case.what == "lagging",
            case.count,
        )
    }
}

struct Case {
    system: &'static System,
    subscribers: usize,
    what: &'static str,
    count: u64,
    figures: Vec<f64>,
}

fn cases(name: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    for system in SYSTEMS
        .iter()
        .filter(|system| system.name.starts_with(name))
    {
        let slow = system.name.starts_with("iceoryx2");
        let count = if slow { 50_000 } else { 400_000 };
        let mut add = |subscribers, what, count| {
            let figures = Vec::new();
            cases.push(Case {
                system,
                subscribers,
                what,
                count,
                figures,
            });
        };
        if system.lossy {
            add(0, "alone", count);
            for what in ["lagging", "parked"] {
                add(1, what, count);
                add(8, what, count);
            }
        } else {
            add(1, "all", count);
            if system.name != "ringway spsc" {
                add(8, "all", count / 4);
            }
        }
        if system.name.starts_with("ringway") {
            add(1, "one way", count / 8);
        }
    }
    cases
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = match arguments.next().map(|rounds| rounds.parse()) {
        Some(Ok(rounds)) if rounds > 0 => rounds,
        None => 7,
        _ => {
            eprintln!("usage: broadcast [ROUNDS [NAME]]");
            std::process::exit(2);
        }
    };
    let mut cases = cases(&arguments.next().unwrap_or_default());
    for _ in 0..rounds {
        for case in &mut cases {
            let figure = run_case(case);
            case.figures.push(figure);
        }
    }
    println!(
        "ns a message of {SIZE} bytes, {rounds} interleaved rounds: median, lower quartile, least"
    );
    for case in &mut cases {
        case.figures.sort_by(f64::total_cmp);
        println!(
            "{:<18} {} {:<8} {:>9.1} {:>9.1} {:>9.1}",
            case.system.name,
            case.subscribers,
            case.what,
            case.figures[rounds / 2],
            case.figures[rounds / 4],
            case.figures[0],
        );
    }
}
