//! Waiting for many things at once, with real processes on the other side.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ringway::channel::{self, Receiver, Sender};
use ringway::selector::{Readable, Ready, Selectable, Selector};
use ringway::spsc::{Config, Ring};
use ringway::wait::WaitStrategy;
use ringway::{Error, RecvError, mpmc, spsc};

mod common;
use common::{Random, Reaped, child, task, watchdog};

const SOON: Duration = Duration::from_millis(1);

fn unique(what: &str) -> String {
    format!("test-selector-{what}-{}", std::process::id())
}

fn numbers(ready: Ready) -> Vec<usize> {
    let mut numbers: Vec<_> = ready.into_iter().collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn what_is_ready_is_told_and_only_that() {
    let _dog = watchdog(30);
    let rings: Vec<_> = (0..3)
        .map(|_| Ring::anonymous(Config::default()).unwrap())
        .collect();
    let mut txs: Vec<_> = rings.iter().map(|ring| ring.producer().unwrap()).collect();
    let mut rxs: Vec<_> = rings.iter().map(|ring| ring.consumer().unwrap()).collect();
    let slots = mpmc::typed::<u64>().anonymous().unwrap();
    let (mut jobs, mut worker) = (slots.producer().unwrap(), slots.consumer().unwrap());
    let (mut here, there) = UnixStream::pair().unwrap();
    let mut selector = Selector::new();
    let mut wait = |rxs: &mut [spsc::Consumer], worker: &mut mpmc::typed::Consumer<u64>| {
        let mut readable = Readable(&there);
        let mut all: Vec<&mut dyn Selectable> = Vec::new();
        all.extend(rxs.iter_mut().map(|rx| rx as &mut dyn Selectable));
        all.push(worker);
        all.push(&mut readable);
        numbers(selector.wait_timeout(&mut all, SOON).unwrap())
    };
    assert!(wait(&mut rxs, &mut worker).is_empty());
    txs[1].send(b"one").unwrap();
    assert_eq!(wait(&mut rxs, &mut worker), [1]);
    jobs.send(&7).unwrap();
    here.write_all(b"x").unwrap();
    assert_eq!(wait(&mut rxs, &mut worker), [1, 3, 4]);
    assert_eq!(&*rxs[1].try_recv().unwrap(), b"one");
    assert_eq!(worker.try_recv().unwrap(), 7);
    assert_eq!(wait(&mut rxs, &mut worker), [4]);
    // Leaving is something to tell, too.
    txs.remove(0).close();
    assert_eq!(wait(&mut rxs, &mut worker), [0, 4]);
    assert!(matches!(rxs[0].try_recv(), Err(RecvError::Closed)));
    drop(jobs);
    let mut list: [&mut dyn Selectable; 1] = [&mut worker];
    assert_eq!(numbers(selector.wait(&mut list).unwrap()), [0]);
    assert!(matches!(worker.try_recv(), Err(RecvError::Closed)));
    assert!(selector.wait_timeout(&mut [], SOON).unwrap().is_empty());
}

#[test]
fn every_channel_of_descriptors_can_be_waited_for_and_the_others_say_that_they_cannot() {
    let _dog = watchdog(30);
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let name = unique("mq");
    let mut receivers: Vec<Box<dyn Receiver>> = Vec::new();
    let mut senders: Vec<Box<dyn Sender>> = Vec::new();
    let (tx, rx) = channel::pipe::pair().unwrap();
    senders.push(Box::new(tx));
    receivers.push(Box::new(rx));
    receivers.push(Box::new(
        channel::fifo::Receiver::open(&fifo, Default::default()).unwrap(),
    ));
    senders.push(Box::new(
        channel::fifo::Sender::open(&fifo, Default::default()).unwrap(),
    ));
    receivers.push(Box::new(
        channel::mqueue::Receiver::open(&name, Default::default()).unwrap(),
    ));
    senders.push(Box::new(
        channel::mqueue::Sender::open(&name, Default::default()).unwrap(),
    ));
    let socket = dir.path().join("socket");
    receivers.push(Box::new(
        channel::socket::Receiver::open(&socket, Default::default()).unwrap(),
    ));
    senders.push(Box::new(channel::socket::Sender::open(&socket).unwrap()));
    let (tx, rx) = channel::ring::pair(Config::default()).unwrap();
    senders.push(Box::new(tx));
    receivers.push(Box::new(rx));

    let mut selector = Selector::new();
    let mut message = Vec::new();
    for round in 0..3 {
        for (at, tx) in senders.iter_mut().enumerate() {
            tx.send(&[b'a' + at as u8; 8_000][..if round == 1 { 8_000 } else { 5 }])
                .unwrap();
            tx.send(b"second").unwrap();
        }
        let mut counts = vec![0; receivers.len()];
        while counts != vec![2; receivers.len()] {
            let mut all: Vec<_> = receivers
                .iter_mut()
                .map(|rx| rx as &mut dyn Selectable)
                .collect();
            for at in selector.wait(&mut all).unwrap() {
                match receivers[at].try_recv(&mut message) {
                    Ok(()) => {
                        let first = [b'a' + at as u8, b's'][counts[at]];
                        assert_eq!(message[0], first, "{at}");
                        counts[at] += 1;
                    }
                    Err(RecvError::Empty) => {}
                    Err(error) => panic!("{at}: {error}"),
                }
            }
        }
    }
    senders.clear();
    let mut open: Vec<_> = (0..receivers.len()).collect();
    while !open.is_empty() {
        let mut all: Vec<_> = receivers
            .iter_mut()
            .map(|rx| rx as &mut dyn Selectable)
            .collect();
        for at in selector.wait(&mut all).unwrap() {
            match receivers[at].try_recv(&mut message) {
                Err(RecvError::Closed) => open.retain(|other| *other != at),
                Err(RecvError::Empty) => {}
                other => panic!("{at}: {other:?}"),
            }
        }
    }

    let mut semaphore =
        channel::semaphore::Receiver::open(&unique("sem"), Default::default()).unwrap();
    let error = selector.wait(&mut [&mut semaphore]).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    let ring = Ring::anonymous(Config::default().wait(WaitStrategy::Semaphore)).unwrap();
    let mut rx = ring.consumer().unwrap();
    assert!(selector.wait(&mut [&mut rx]).is_err());
}

/// Sends `count` numbers into each of several rings, resting at random so that the other side sleeps.
fn feed(what: &str) {
    let mut parts = what.split(',');
    let (names, count) = (
        parts.next().unwrap(),
        parts.next().unwrap().parse::<u64>().unwrap(),
    );
    let mut rings: Vec<_> = names
        .split('+')
        .map(|name| spsc::attach(name).unwrap().producer().unwrap())
        .collect();
    let mut random = Random(count);
    for number in 0..count {
        for tx in &mut rings {
            tx.send(&number.to_le_bytes()).unwrap();
            if random.below(4) == 0 {
                std::thread::sleep(Duration::from_micros(random.below(300)));
            }
        }
    }
}

fn feeder(entry: &str, names: &[String], count: u64) -> Reaped {
    Reaped(
        child(entry, &format!("{},{count}", names.join("+")))
            .spawn()
            .unwrap(),
    )
}

/// Takes `count` numbers from each of the rings, in order, until all are closed.
fn take_all(
    selector: &mut Selector,
    rxs: &mut [spsc::Consumer],
    extra: Option<&UnixStream>,
) -> Vec<u64> {
    let mut next = vec![0; rxs.len()];
    let mut open: Vec<_> = (0..rxs.len()).collect();
    while !open.is_empty() {
        let mut readable = extra.map(Readable);
        let mut all: Vec<&mut dyn Selectable> = Vec::new();
        let still = rxs
            .iter_mut()
            .enumerate()
            .filter(|(at, _)| open.contains(at));
        all.extend(still.map(|(_, rx)| rx as &mut dyn Selectable));
        all.extend(
            readable
                .iter_mut()
                .map(|readable| readable as &mut dyn Selectable),
        );
        let ready = selector.wait(&mut all).unwrap();
        for at in ready
            .into_iter()
            .map(|number| open[number])
            .collect::<Vec<_>>()
        {
            match rxs[at].try_recv() {
                Ok(message) => {
                    assert_eq!(*message, u64::to_le_bytes(next[at]), "ring {at}");
                    next[at] += 1;
                }
                Err(RecvError::Closed) => open.retain(|other| *other != at),
                Err(RecvError::Empty) => {}
                Err(error) => panic!("ring {at}: {error}"),
            }
        }
    }
    next
}

/// `rings` rings fed by processes that rest; nothing may be lost and nobody may sleep for ever.
fn nothing_is_lost(entry: &str, rings: usize, feeders: usize, count: u64, mixed: bool) {
    if let Some(what) = task() {
        return feed(&what);
    }
    let names: Vec<_> = (0..rings)
        .map(|at| unique(&format!("{entry}-{at}")))
        .collect();
    let made: Vec<_> = names
        .iter()
        .map(|name| spsc::create(name, Config::default().capacity(256)).unwrap())
        .collect();
    let mut rxs: Vec<_> = made.iter().map(|ring| ring.consumer().unwrap()).collect();
    let (_quiet, there) = UnixStream::pair().unwrap();
    let children: Vec<_> = names
        .chunks(rings.div_ceil(feeders))
        .map(|names| feeder(entry, names, count))
        .collect();
    let mut selector = Selector::new();
    let taken = take_all(&mut selector, &mut rxs, mixed.then_some(&there));
    assert_eq!(taken, vec![count; rings]);
    for mut child in children {
        assert!(child.0.wait().unwrap().success());
    }
}

#[test]
fn no_wake_up_is_lost_on_the_words_themselves() {
    let _dog = watchdog(120);
    nothing_is_lost(
        "no_wake_up_is_lost_on_the_words_themselves",
        4,
        2,
        3000,
        false,
    );
}

#[test]
fn no_wake_up_is_lost_between_words_and_descriptors() {
    let _dog = watchdog(120);
    nothing_is_lost(
        "no_wake_up_is_lost_between_words_and_descriptors",
        4,
        2,
        3000,
        true,
    );
}

#[test]
fn more_rings_than_the_kernel_waits_for_at_once() {
    let _dog = watchdog(120);
    nothing_is_lost(
        "more_rings_than_the_kernel_waits_for_at_once",
        150,
        2,
        40,
        false,
    );
}

#[test]
fn the_death_of_a_producer_is_told() {
    let _dog = watchdog(60);
    if let Some(name) = task() {
        let mut tx = spsc::attach(&name).unwrap().producer().unwrap();
        tx.send(b"here").unwrap();
        loop {
            std::thread::park();
        }
    }
    let (names, mut selector) = ([unique("death-0"), unique("death-1")], Selector::new());
    let entry = "the_death_of_a_producer_is_told";
    let rings = names
        .each_ref()
        .map(|name| spsc::create(name, Config::default()).unwrap());
    let mut rxs = rings.each_ref().map(|ring| ring.consumer().unwrap());
    let start = |name: &String| Reaped(child(entry, name).spawn().unwrap());
    let mut reaped = names.each_ref().map(start);
    for rx in &mut rxs {
        assert_eq!(&*rx.recv().unwrap(), b"here");
    }
    let [first, second] = &mut rxs;
    assert!(
        selector
            .wait_timeout(&mut [first, second], SOON)
            .unwrap()
            .is_empty()
    );
    reaped[1].0.kill().unwrap();
    let began = Instant::now();
    assert_eq!(numbers(selector.wait(&mut [first, second]).unwrap()), [1]);
    println!("a death was told after {:?}", began.elapsed());
    assert!(matches!(second.try_recv(), Err(RecvError::PeerDied)));
}

#[test]
fn a_message_of_a_dead_worker_makes_another_one_ready() {
    let _dog = watchdog(60);
    if let Some(name) = task() {
        let mut rx = mpmc::attach(&name).unwrap().consumer().unwrap();
        let _held = rx.recv().unwrap();
        println!("taken");
        loop {
            std::thread::park();
        }
    }
    let name = unique("orphan");
    let ring = mpmc::create(&name, mpmc::Config::default()).unwrap();
    let mut tx = ring.producer().unwrap();
    tx.send(b"job").unwrap();
    let entry = "a_message_of_a_dead_worker_makes_another_one_ready";
    let mut worker = Reaped(child(entry, &name).spawn().unwrap());
    common::until(|| ring.is_empty());
    let mut rx = ring.consumer().unwrap();
    let mut selector = Selector::new();
    assert!(
        selector
            .wait_timeout(&mut [&mut rx], SOON)
            .unwrap()
            .is_empty()
    );
    worker.0.kill().unwrap();
    loop {
        selector.wait(&mut [&mut rx]).unwrap();
        match rx.try_recv() {
            Ok(message) => {
                assert!(message.redelivered());
                assert_eq!(&*message, b"job");
                break;
            }
            Err(RecvError::Empty) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(
        selector
            .wait_timeout(&mut [&mut rx], SOON)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_busy_source_starves_nobody() {
    let _dog = watchdog(30);
    let rings: Vec<_> = (0..3)
        .map(|_| Ring::anonymous(Config::default()).unwrap())
        .collect();
    let mut txs: Vec<_> = rings.iter().map(|ring| ring.producer().unwrap()).collect();
    let mut rxs: Vec<_> = rings.iter().map(|ring| ring.consumer().unwrap()).collect();
    let (mut here, there) = UnixStream::pair().unwrap();
    here.write_all(b"x").unwrap();
    let mut selector = Selector::new();
    let mut first = [0; 4];
    for _ in 0..400 {
        for tx in &mut txs {
            while tx.try_send(b"more").is_ok() {}
        }
        let mut readable = Readable(&there);
        let mut all: Vec<&mut dyn Selectable> = Vec::new();
        all.extend(rxs.iter_mut().map(|rx| rx as &mut dyn Selectable));
        all.push(&mut readable);
        let ready: Vec<_> = selector.wait(&mut all).unwrap().into_iter().collect();
        assert_eq!(ready.len(), 4);
        first[ready[0]] += 1;
        if ready[0] < 3 {
            rxs[ready[0]].try_recv().unwrap();
        }
    }
    assert_eq!(first, [100; 4]);
}
