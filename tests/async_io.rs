//! Asynchronous handles: with real processes on the other side, dropped at random, idle, bereft.
#![cfg(feature = "tokio")]

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::pin::pin;
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures_util::{FutureExt, SinkExt, StreamExt};
use ringway::broadcast;
use ringway::mpmc;
use ringway::spsc::{self, Config, Ring};
use ringway::wait::WaitStrategy;
use ringway::{Error, RecvError, SendError};
use tokio::runtime::{Builder, Runtime};

mod common;
use common::{Random, Reaped, child, task, watchdog};

fn unique(what: &str) -> String {
    format!("test-async-{what}-{}", std::process::id())
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// Lets others go first, so many times: for them long enough to fall asleep, or not. On a busy machine each time
/// takes as long as others like: then fewer do.
fn dawdle(turns: u64) {
    let end = Instant::now() + Duration::from_millis(1);
    let turns = (0..turns).take_while(|_| Instant::now() < end);
    turns.for_each(|_| std::thread::yield_now());
}

/// How two processes come to share a ring: by a name, or over a socket.
fn share(wait: WaitStrategy, name: &str, config: Config) -> Ring {
    let config = config.wait(wait);
    if wait == WaitStrategy::EventFd {
        Ring::anonymous(config).unwrap()
    } else {
        spsc::create(name, config).unwrap()
    }
}

/// The rings that the parent shares with this child: `named:a+b`, or `socket:path`, which gives them.
fn shared_with_me(what: &str, count: usize) -> Vec<Ring> {
    match what.split_once(':').unwrap() {
        ("named", names) => names
            .split('+')
            .map(|name| spsc::attach(name).unwrap())
            .collect(),
        (_, path) => {
            let socket = UnixStream::connect(path).unwrap();
            (0..count)
                .map(|_| Ring::receive_over(&socket).unwrap())
                .collect()
        }
    }
}

/// A child that is given `rings`.
fn child_with(entry: &str, wait: WaitStrategy, names: &[String], rings: &[Ring]) -> Reaped {
    if wait != WaitStrategy::EventFd {
        let what = format!("named:{}", names.join("+"));
        let mut child = child(entry, &what);
        return Reaped(child.stdin(Stdio::piped()).spawn().unwrap());
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let what = format!("socket:{}", path.display());
    let mut child = child(entry, &what);
    let child = Reaped(child.stdin(Stdio::piped()).spawn().unwrap());
    let (socket, _) = listener.accept().unwrap();
    rings
        .iter()
        .for_each(|ring| ring.send_over(&socket).unwrap());
    child
}

const WAYS: [WaitStrategy; 3] = [
    WaitStrategy::Adaptive,
    WaitStrategy::Futex,
    WaitStrategy::EventFd,
];

const TRIPS: u64 = 3000;

#[test]
fn two_processes_play_ping_pong() {
    let _dog = watchdog(120);
    let entry = "two_processes_play_ping_pong";
    if let Some(what) = task() {
        let rings = shared_with_me(&what, 2);
        return runtime().block_on(async {
            let mut ping = rings[0].consumer().unwrap().into_async().unwrap();
            let mut pong = rings[1].producer().unwrap().into_async().unwrap();
            while let Some(message) = ping.next().await {
                pong.send(&message.unwrap()).await.unwrap();
            }
        });
    }
    for wait in WAYS {
        let names = [
            unique(&format!("ping-{wait}")),
            unique(&format!("pong-{wait}")),
        ];
        let rings = names
            .each_ref()
            .map(|name| share(wait, name, Config::default()));
        let mut child = child_with(entry, wait, &names, &rings);
        runtime().block_on(async {
            let mut ping = rings[0].producer().unwrap().into_async().unwrap();
            let mut pong = rings[1].consumer().unwrap().into_async().unwrap();
            let mut random = Random(7);
            let mut buffer = Vec::new();
            for number in 0..TRIPS {
                if random.below(50) == 0 {
                    for _ in 0..random.below(2000) {
                        tokio::task::yield_now().await; // long enough for the other to fall asleep, or not
                    }
                }
                ping.send(&number.to_le_bytes()).await.unwrap();
                pong.recv_into(&mut buffer).await.unwrap();
                assert_eq!(buffer, number.to_le_bytes());
            }
        });
        assert!(child.0.wait().unwrap().success(), "{wait}");
        rings.iter().for_each(|ring| ring.unlink().unwrap());
    }
}

#[test]
fn a_blocking_producer_in_another_process_wakes_a_select_over_many_rings() {
    let _dog = watchdog(120);
    let entry = "a_blocking_producer_in_another_process_wakes_a_select_over_many_rings";
    const EACH: u64 = 500;
    if let Some(what) = task() {
        let rings = shared_with_me(&what, 3);
        let mut txs: Vec<_> = rings.iter().map(|ring| ring.producer().unwrap()).collect();
        let mut random = Random(1);
        for number in 0..EACH {
            for tx in &mut txs {
                tx.send(&number.to_le_bytes()).unwrap();
                if random.below(4) == 0 {
                    dawdle(random.below(300));
                }
            }
        }
        return;
    }
    for wait in WAYS {
        let names: Vec<_> = (0..3)
            .map(|at| unique(&format!("select-{wait}-{at}")))
            .collect();
        let rings: Vec<_> = names
            .iter()
            .map(|name| share(wait, name, Config::default().capacity(256)))
            .collect();
        let mut child = child_with(entry, wait, &names, &rings);
        runtime().block_on(async {
            let open = |at: usize| rings[at].consumer().unwrap().into_async().unwrap();
            let (mut a, mut b, mut c) = (open(0), open(1), open(2));
            let mut next = [0; 3];
            let mut closed = [false; 3];
            while closed != [true; 3] {
                let (at, result) = tokio::select! {
                    result = a.recv(), if !closed[0] => (0, result),
                    result = b.recv(), if !closed[1] => (1, result),
                    result = c.recv(), if !closed[2] => (2, result),
                };
                match result {
                    Ok(message) => {
                        assert_eq!(message, u64::to_le_bytes(next[at]));
                        next[at] += 1;
                    }
                    Err(RecvError::Closed) => closed[at] = true,
                    Err(error) => panic!("{wait} {at}: {error}"),
                }
            }
            assert_eq!(next, [EACH; 3], "{wait}");
        });
        assert!(child.0.wait().unwrap().success());
        rings.iter().for_each(|ring| ring.unlink().unwrap());
    }
}

/// Futures dropped in the test below, on each side and with each strategy; 100,000 with `RINGWAY_DEEP=1`.
fn to_drop() -> u64 {
    match std::env::var_os("RINGWAY_DEEP") {
        Some(_) => 100_000,
        None => 8_000,
    }
}

#[test]
fn futures_dropped_at_random_lose_nothing() {
    let _dog = watchdog(600);
    let entry = "futures_dropped_at_random_lose_nothing";
    let to_drop = to_drop();
    if let Some(what) = task() {
        // Sends numbers, dropping futures, until enough were dropped; then says how many it sent.
        let ring = shared_with_me(&what, 1).remove(0);
        return runtime().block_on(async {
            let mut tx = ring.producer().unwrap().into_async().unwrap();
            let mut random = Random(3);
            let (mut number, mut dropped) = (0u64, 0);
            while dropped < to_drop {
                let message = number.to_le_bytes();
                match tx.send(&message).now_or_never() {
                    Some(sent) => {
                        sent.unwrap();
                        number += 1;
                    }
                    None => dropped += 1,
                }
                if random.below(8) == 0 {
                    tokio::task::yield_now().await;
                }
            }
            tx.send(b"the end").await.unwrap();
            tx.send(&number.to_le_bytes()).await.unwrap();
        });
    }
    for wait in [WaitStrategy::Adaptive, WaitStrategy::EventFd] {
        let name = unique(&format!("dropped-{wait}"));
        let ring = share(wait, &name, Config::default().capacity(256));
        let mut child = child_with(entry, wait, &[name], std::slice::from_ref(&ring));
        let (received, dropped) = runtime().block_on(async {
            let mut rx = ring.consumer().unwrap().into_async().unwrap();
            let mut random = Random(4);
            let (mut next, mut dropped, mut ended) = (0u64, 0u64, false);
            loop {
                // Polled once, or until it is woken a few times, or to the end.
                let message = match random.below(4) {
                    0 => Some(rx.recv().await),
                    1 => {
                        let mut future = pin!(rx.recv());
                        let mut message = (&mut future).now_or_never();
                        for _ in 0..random.below(3) {
                            if message.is_none() {
                                tokio::task::yield_now().await;
                                message = (&mut future).now_or_never();
                            }
                        }
                        message
                    }
                    _ => rx.recv().now_or_never(),
                };
                let Some(message) = message else {
                    dropped += 1;
                    continue;
                };
                match message {
                    Ok(message) if message == b"the end" => ended = true,
                    Ok(message) if ended => {
                        assert_eq!(message, next.to_le_bytes());
                        break;
                    }
                    Ok(message) => {
                        assert_eq!(message, next.to_le_bytes(), "{wait}");
                        next += 1;
                    }
                    Err(error) => panic!("{wait}: {error}"),
                }
            }
            // What is left to drop, of an empty ring.
            while dropped < to_drop {
                match rx.recv().now_or_never() {
                    None | Some(Err(RecvError::Closed)) => dropped += 1,
                    other => panic!("{wait}: {other:?}"),
                }
            }
            (next, dropped)
        });
        println!(
            "{wait}: {received} messages, {dropped} futures dropped receiving, {to_drop} sending"
        );
        assert!(child.0.wait().unwrap().success());
        ring.unlink().unwrap();
    }
}

#[test]
fn what_woke_a_dropped_future_of_one_consumer_wakes_another() {
    let _dog = watchdog(240);
    for wait in [WaitStrategy::Adaptive, WaitStrategy::EventFd] {
        const COUNT: u64 = 20_000;
        let config = mpmc::Config::default().slots(16).slot_size(8).wait(wait);
        let ring = mpmc::typed::<u64>().config(config).anonymous().unwrap();
        let mut tx = ring.producer().unwrap();
        let sender = std::thread::spawn(move || {
            let mut random = Random(5);
            for number in 0..COUNT {
                tx.send(&number).unwrap();
                if random.below(20) == 0 {
                    dawdle(random.below(100));
                }
            }
        });
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let tasks: Vec<_> = (0..4)
            .map(|seed| {
                let _guard = runtime.enter();
                let mut rx = ring.consumer().unwrap().into_async().unwrap();
                runtime.spawn(async move {
                    let mut random = Random(seed);
                    let mut taken = Vec::new();
                    loop {
                        // Two of them drop what they wait for, the others wait for good.
                        let next = if seed < 2 && random.below(2) == 0 {
                            let next = rx.recv().now_or_never();
                            tokio::task::yield_now().await;
                            next
                        } else if seed < 2 {
                            let soon = Duration::from_micros(random.below(200));
                            tokio::time::timeout(soon, rx.recv()).await.ok()
                        } else {
                            Some(rx.recv().await)
                        };
                        match next {
                            None => {}
                            Some(Ok(number)) => taken.push(number),
                            Some(Err(RecvError::Closed)) => return taken,
                            Some(Err(error)) => panic!("{error}"),
                        }
                    }
                })
            })
            .collect();
        sender.join().unwrap();
        let mut all = HashSet::new();
        for task in tasks {
            for number in runtime.block_on(task).unwrap() {
                assert!(all.insert(number), "{wait}: {number} came twice");
            }
        }
        assert_eq!(all.len() as u64, COUNT, "{wait}");
    }
}

#[test]
fn the_death_of_a_peer_wakes_the_future() {
    let _dog = watchdog(120);
    let entry = "the_death_of_a_peer_wakes_the_future";
    if let Some(what) = task() {
        let rings = shared_with_me(&what, 2);
        let mut tx = rings[0].producer().unwrap();
        let _rx = rings[1].consumer().unwrap();
        tx.send(b"here").unwrap();
        loop {
            std::thread::park();
        }
    }
    for wait in WAYS {
        let names = [
            unique(&format!("death-{wait}-0")),
            unique(&format!("death-{wait}-1")),
        ];
        let config = || Config::default().capacity(256);
        let rings = names.each_ref().map(|name| share(wait, name, config()));
        runtime().block_on(async {
            let mut rx = rings[0].consumer().unwrap().into_async().unwrap();
            let mut tx = rings[1].producer().unwrap().into_async().unwrap();
            // It waits before anybody comes: whom to watch is learnt meanwhile.
            let waiting = async { rx.recv().await.unwrap() };
            let names = names.clone();
            let start = tokio::task::spawn_blocking({
                let rings = rings.clone();
                move || child_with(entry, wait, &names, &rings)
            });
            let (hello, child) = tokio::join!(waiting, start);
            assert_eq!(hello, b"here");
            let mut child = child.unwrap();
            while tx.get_mut().unwrap().try_send(b"fills it").is_ok() {}
            let (received, sent, ()) = tokio::join!(rx.recv(), tx.send(b"one more"), async {
                for _ in 0..10 {
                    tokio::task::yield_now().await; // both sleep
                }
                child.0.kill().unwrap();
            });
            assert!(matches!(received, Err(RecvError::PeerDied)), "{wait}");
            assert!(matches!(sent, Err(SendError::PeerDied)), "{wait}");
            // And it stays so, until somebody comes.
            assert!(matches!(rx.recv().await, Err(RecvError::PeerDied)));
            let mut successor = rings[0].producer().unwrap();
            successor.send(b"hello again").unwrap();
            assert_eq!(rx.recv().await.unwrap(), b"hello again");
        });
        // What is in them would keep their names.
        rings.iter().for_each(|ring| ring.unlink().unwrap());
    }
}

#[test]
fn a_message_of_a_worker_that_was_killed_goes_to_one_that_is_asleep() {
    let _dog = watchdog(60);
    if let Some(name) = task() {
        let mut rx = mpmc::attach(&name).unwrap().consumer().unwrap();
        let _held = rx.recv().unwrap();
        loop {
            std::thread::park();
        }
    }
    let name = unique("orphan");
    let ring = mpmc::create(&name, mpmc::Config::default()).unwrap();
    let mut tx = ring.producer().unwrap();
    tx.send(b"job").unwrap();
    let entry = "a_message_of_a_worker_that_was_killed_goes_to_one_that_is_asleep";
    let mut worker = Reaped(child(entry, &name).spawn().unwrap());
    common::until(|| ring.is_empty());
    runtime().block_on(async {
        let mut rx = ring.consumer().unwrap().into_async().unwrap();
        let mut job = Vec::new();
        let (redelivered, ()) = tokio::join!(rx.recv_into(&mut job), async {
            tokio::task::yield_now().await;
            worker.0.kill().unwrap();
        });
        assert!(redelivered.unwrap());
        assert_eq!(job, b"job");
    });
}

/// Voluntary switches of each thread of this process but the caller's, by its name.
fn switches() -> Vec<(String, u64)> {
    let me = std::fs::read_link("/proc/thread-self").unwrap();
    let mut all = Vec::new();
    for thread in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = thread.unwrap().path();
        if path.file_name() == me.file_name() {
            continue;
        }
        let Ok(status) = std::fs::read_to_string(path.join("status")) else {
            continue;
        };
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line[name.len()..].trim().to_owned()
        };
        let count = field("voluntary_ctxt_switches:").parse().unwrap();
        all.push((field("Name:"), count));
    }
    all
}

/// Two rings between this thread and the other process, which sleeps for each message: while messages go
/// to and fro there, time passes for the idle ones.
struct Clock {
    tx: spsc::Producer,
    rx: spsc::Consumer,
}

impl Clock {
    fn names(wait: WaitStrategy, parent: u32) -> [String; 2] {
        ["there", "back"].map(|way| format!("test-async-clock-{wait}-{way}-{parent}"))
    }

    fn create(wait: WaitStrategy) -> Clock {
        let config = Config::default().capacity(256).wait(WaitStrategy::Futex);
        let [there, back] = Clock::names(wait, std::process::id())
            .map(|name| spsc::create(&name, config.clone()).unwrap());
        Clock {
            tx: there.producer().unwrap(),
            rx: back.consumer().unwrap(),
        }
    }

    /// In the child.
    fn attach(wait: WaitStrategy) -> Clock {
        let [there, back] = Clock::names(wait, std::os::unix::process::parent_id())
            .map(|name| spsc::attach(&name).unwrap());
        there.unlink().unwrap();
        back.unlink().unwrap();
        Clock {
            tx: back.producer().unwrap(),
            rx: there.consumer().unwrap(),
        }
    }

    fn trips(&mut self, count: u32) {
        for _ in 0..count {
            self.tx.send(b"tick").unwrap();
            assert_eq!(&*self.rx.recv().unwrap(), b"tick");
        }
    }
}

/// `count` rings, each waited for by a task and with a living producer in another process, do nothing
/// at all while nothing happens.
fn idle(entry: &str, wait: WaitStrategy, count: usize) {
    let limit = nix::sys::resource::Resource::RLIMIT_NOFILE;
    let (_, most) = nix::sys::resource::getrlimit(limit).unwrap();
    nix::sys::resource::setrlimit(limit, most, most).unwrap();
    if let Some(what) = task() {
        let rings = shared_with_me(&what, count);
        let mut txs: Vec<_> = rings.iter().map(|ring| ring.producer().unwrap()).collect();
        txs.iter_mut().for_each(|tx| tx.send(b"here").unwrap());
        let mut clock = Clock::attach(wait);
        while let Ok(message) = clock.rx.recv() {
            clock.tx.send(&message).unwrap();
        }
        txs.iter_mut().for_each(|tx| tx.send(b"woken").unwrap());
        return;
    }
    let names: Vec<_> = (0..count)
        .map(|at| unique(&format!("idle-{wait}-{at}")))
        .collect();
    let config = Config::default().capacity(256);
    let rings: Vec<_> = names
        .iter()
        .map(|name| share(wait, name, config.clone()))
        .collect();
    let mut clock = Clock::create(wait);
    // A process of its own, so that other tests do not count.
    let mut child = child_with(entry, wait, &names, &rings);
    let attached = rings.clone();
    let (here, told) = std::sync::mpsc::channel();
    let runtime = std::thread::spawn(move || {
        runtime().block_on(async {
            let tasks: Vec<_> = rings
                .iter()
                .map(|ring| {
                    let mut rx = ring.consumer().unwrap().into_async().unwrap();
                    let here = here.clone();
                    tokio::spawn(async move {
                        assert_eq!(rx.recv().await.unwrap(), b"here");
                        here.send(()).unwrap();
                        assert_eq!(rx.recv().await.unwrap(), b"woken");
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
    });
    for _ in 0..count {
        while told.recv_timeout(Duration::from_millis(100)).is_err() {
            let ended = child.0.try_wait().unwrap();
            assert!(ended.is_none(), "the other process has ended: {ended:?}");
        }
    }
    // Of two processes that leave together neither may be the last.
    attached.iter().for_each(|ring| ring.unlink().unwrap());
    drop(attached);
    // All are asleep when nothing moves any more while this thread and the other process do.
    let mut before = switches();
    loop {
        clock.trips(5_000);
        let now = switches();
        if std::mem::replace(&mut before, now.clone()) == now {
            break;
        }
    }
    let began = std::time::Instant::now();
    clock.trips(20_000);
    let after = switches();
    println!(
        "{count} idle rings ({wait}) during 20,000 round trips of another ({:?}): {} other threads, switches {}",
        began.elapsed(),
        after.len(),
        if after == before { "none" } else { "some" },
    );
    assert_eq!(after, before);
    drop(clock);
    assert!(child.0.wait().unwrap().success());
    runtime.join().unwrap();
}

/// Runs `idle` in a process with no other test in it.
fn idle_alone(entry: &str, wait: WaitStrategy, count: usize) {
    if let Some(what) = task() {
        // No watchdog here: its thread does look up now and then.
        nix::unistd::alarm::set(100);
        if what == "alone" {
            // SAFETY: this process has but one test, and no other thread looks at variables.
            unsafe { std::env::remove_var("RINGWAY_TEST_CHILD") };
        }
        return idle(entry, wait, count);
    }
    let _dog = watchdog(180);
    let out = child(entry, "alone").output().unwrap();
    print!("{}", String::from_utf8_lossy(&out.stdout));
    assert!(out.status.success(), "{out:?}");
}

#[test]
fn a_thousand_idle_rings_with_futexes_use_no_processor() {
    let entry = "a_thousand_idle_rings_with_futexes_use_no_processor";
    idle_alone(entry, WaitStrategy::Adaptive, 1000);
}

#[test]
fn a_thousand_idle_rings_with_event_descriptors_use_no_processor() {
    let entry = "a_thousand_idle_rings_with_event_descriptors_use_no_processor";
    idle_alone(entry, WaitStrategy::EventFd, 1000);
}

/// A child of a plain fork has its parent's memory, and none of its threads.
#[test]
fn a_forked_child_of_one_that_waits_is_woken_itself() {
    let entry = "a_forked_child_of_one_that_waits_is_woken_itself";
    let _watchdog = watchdog(100);
    if task().is_none() {
        let status = child(entry, "alone").status().unwrap();
        assert!(status.success(), "{status}");
        return;
    }
    let [idle, there] = [(); 2].map(|()| Ring::anonymous(Config::default()).unwrap());
    let executor = runtime();
    let mut waits = executor.block_on(async { idle.consumer().unwrap().into_async().unwrap() });
    let mut buffer = Vec::new();
    let mut waiting = Box::pin(waits.recv_into(&mut buffer));
    executor.block_on(async { assert!(waiting.as_mut().now_or_never().is_none()) });
    let (mut asleep, mut tell) = std::io::pipe().unwrap();
    // SAFETY: the child uses what its own runtime and handles need, and leaves with _exit.
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Child => {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).unwrap();
            let got = runtime().block_on(async {
                let mut rx = there.consumer().unwrap().into_async().unwrap();
                let mut got = Vec::new();
                let mut next = Box::pin(rx.recv_into(&mut got));
                assert!(next.as_mut().now_or_never().is_none());
                tell.write_all(b"!").unwrap();
                next.as_mut().await.unwrap();
                drop(next);
                got
            });
            // SAFETY: ends the process.
            unsafe { nix::libc::_exit(if got == b"for the child" { 0 } else { 1 }) }
        }
        nix::unistd::ForkResult::Parent { child } => {
            drop(tell);
            asleep.read_exact(&mut [0]).unwrap();
            there.producer().unwrap().send(b"for the child").unwrap();
            let status = nix::sys::wait::waitpid(child, None).unwrap();
            assert_eq!(status, nix::sys::wait::WaitStatus::Exited(child, 0));
        }
    }
}

#[test]
fn a_stream_ends_where_its_sender_leaves_and_a_sink_waits_for_room() {
    let _dog = watchdog(60);
    runtime().block_on(async {
        let ring = spsc::typed::<u64>()
            .config(Config::default().capacity(256))
            .anonymous()
            .unwrap();
        let mut tx = ring.producer().unwrap().into_async().unwrap();
        let rx = ring.consumer().unwrap().into_async().unwrap();
        let sending = async move {
            for number in 0..1000 {
                tx.feed(number).await.unwrap();
            }
            tx.close().await.unwrap();
            assert!(matches!(tx.feed(0).await, Err(SendError::Closed)));
        };
        let receiving = rx.map(Result::unwrap).collect::<Vec<_>>();
        let ((), all) = tokio::join!(sending, receiving);
        assert_eq!(all, (0..1000).collect::<Vec<_>>());

        let ring = mpmc::Ring::anonymous(mpmc::Config::default().slots(2)).unwrap();
        let mut tx = ring.producer().unwrap().into_async().unwrap();
        let mut rx = ring.consumer().unwrap().into_async().unwrap();
        let sending = async {
            for number in 0..1000u32 {
                SinkExt::send(&mut tx, number.to_le_bytes().to_vec())
                    .await
                    .unwrap();
            }
        };
        let receiving = async {
            for number in 0..1000u32 {
                assert_eq!(rx.recv().await.unwrap(), number.to_le_bytes());
            }
        };
        tokio::join!(sending, receiving);
    });
}

#[test]
fn what_cannot_wake_an_executor_says_so() {
    let ring = |wait| Ring::anonymous(Config::default().wait(wait)).unwrap();
    let refused = |wait| {
        let error = ring(wait).consumer().unwrap().into_async().unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        error.to_string()
    };
    assert!(refused(WaitStrategy::Adaptive).contains("runtime"));
    runtime().block_on(async {
        assert!(refused(WaitStrategy::Spin).contains("Spin"));
        assert!(refused(WaitStrategy::Semaphore).contains("Semaphore"));
        assert!(
            ring(WaitStrategy::Futex)
                .consumer()
                .unwrap()
                .into_async()
                .is_ok()
        );
    });
}

#[test]
fn a_task_that_always_has_messages_lets_others_run() {
    let _dog = watchdog(60);
    runtime().block_on(async {
        let ring = spsc::typed::<u64>().anonymous().unwrap();
        let mut tx = ring.producer().unwrap();
        let mut rx = ring.consumer().unwrap().into_async().unwrap();
        let stop = std::rc::Rc::new(std::cell::Cell::new(false));
        let busy = async {
            let mut count = 0;
            while !stop.get() {
                tx.send(&count).unwrap();
                assert_eq!(rx.recv().await.unwrap(), count); // never has to wait
                count += 1;
            }
        };
        let other = async { stop.set(true) };
        tokio::join!(busy, other);
    });
}

#[test]
fn broadcast_ends_wait_in_an_executor() {
    let _watchdog = watchdog(60);
    let config = broadcast::Config::default().capacity(1024);
    let ring = broadcast::Ring::anonymous(config).unwrap();
    runtime().block_on(async {
        let mut tx = ring.producer().unwrap().into_async().unwrap();
        let mut receivers: Vec<_> = (0..2)
            .map(|_| ring.subscriber().unwrap().into_async().unwrap())
            .collect();
        let mut other = ring.subscriber().unwrap();
        let blocking = std::thread::spawn(move || other.iter().map(Result::unwrap).count());
        let sending = async {
            for number in 0..3000u64 {
                tx.send(&number.to_ne_bytes()).await.unwrap();
            }
            drop(tx);
        };
        let receiving = receivers.iter_mut().map(|rx| async {
            for number in 0..3000u64 {
                assert_eq!(rx.recv().await.unwrap(), number.to_ne_bytes());
            }
            assert!(matches!(rx.recv().await, Err(RecvError::Closed)));
        });
        tokio::join!(sending, futures_util::future::join_all(receiving));
        assert_eq!(blocking.join().unwrap(), 3000);
    });
}

/// What [`child`] runs: a subscriber that never lets go.
#[test]
fn sits_in_a_broadcast_ring() {
    let Some(name) = task() else { return };
    let _rx = broadcast::attach(&name).unwrap().subscriber().unwrap();
    println!("\nsits");
    loop {
        std::thread::park();
    }
}

#[test]
fn an_awaited_send_goes_on_when_the_subscriber_that_held_it_back_is_killed() {
    let _watchdog = watchdog(60);
    let name = unique("bcast");
    let config = broadcast::Config::default().capacity(1024);
    let ring = broadcast::create(&name, config).unwrap();
    let mut command = child("sits_in_a_broadcast_ring", &name);
    let mut dead = Reaped(command.stdout(Stdio::piped()).spawn().unwrap());
    // Before it has said so it counts as living, but may be looking for its place yet, which makes room.
    let mut lines = BufReader::new(dead.0.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "sits"));
    runtime().block_on(async {
        let mut tx = ring.producer().unwrap().into_async().unwrap();
        while tx.get_mut().unwrap().try_send(&[7; 100]).is_ok() {}
        let mut send = pin!(tx.send(&[8; 100]));
        assert!(send.as_mut().now_or_never().is_none());
        dead.0.kill().unwrap();
        send.await.unwrap();
    });
}
