//! The SPSC ring at its limits: no room, no permission, no descriptors, and nothing to do.
//!
//! With `RINGWAY_DEEP=1` the byte-for-byte test passes 1 GiB instead of 64 MiB for each setting, and
//! the idle test watches for 10 s and prints the processor time used.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Pid, Uid};
use ringway::spsc::{self, Config, Ring};
use ringway::wait::WaitStrategy;
use ringway::{Error, RecvError};

mod common;
use common::{Random, Reaped, child, task, until, watchdog};

fn small() -> Config {
    Config::default().capacity(4096)
}

fn name(what: &str) -> String {
    format!("test-limits-{what}-{}", std::process::id())
}

fn path(name: &str) -> std::path::PathBuf {
    format!("/dev/shm/ringway.{name}").into()
}

fn deep() -> bool {
    std::env::var_os("RINGWAY_DEEP").is_some()
}

/// Other processes run this: they do one task, on the ring that comes over their standard input
/// where they need one.
#[test]
fn other_process() {
    let Some(task) = task() else { return };
    let words: Vec<&str> = task.split(' ').collect();
    match words[..] {
        ["full", name] => full(name),
        ["stranger", name] => stranger(name),
        ["descriptors", name] => descriptors(name),
        ["send", cpus, bytes] => {
            pin(cpus.parse().unwrap());
            let mut tx = inherited().producer().unwrap();
            let noise = noise();
            for message in messages(&noise, tx.max_message(), bytes.parse().unwrap()) {
                tx.send(message).unwrap();
            }
        }
        ["receive", cpus, bytes] => {
            pin(cpus.parse().unwrap());
            let ring = inherited();
            let mut rx = ring.consumer().unwrap();
            let noise = noise();
            for (i, expected) in
                messages(&noise, ring.max_message(), bytes.parse().unwrap()).enumerate()
            {
                assert!(*rx.recv().unwrap() == *expected, "message {i}");
            }
            assert!(matches!(rx.recv(), Err(RecvError::Closed)));
        }
        // Both wait until their peer, the test, ends.
        ["park-empty"] => drop(inherited().consumer().unwrap().recv()),
        ["park-full"] => {
            let mut tx = inherited().producer().unwrap();
            while tx.send(&[0; 56]).is_ok() {}
        }
        _ => panic!("{task}"),
    }
}

/// The ring that the parent sends over the socket that is our standard input.
fn inherited() -> Ring {
    let socket: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    Ring::receive_over(&UnixStream::from(socket)).unwrap()
}

/// Another process that does `task` on `ring`.
fn run(task: &str, ring: &Ring) -> Reaped {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ring.send_over(&ours).unwrap();
    let mut command = child("other_process", task);
    command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
    Reaped(command.spawn().unwrap())
}

/// Keeps this thread on the first `count` of the processors it may use.
fn pin(count: usize) {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let mut set = CpuSet::new();
    (0..CpuSet::count())
        .filter(|&cpu| allowed.is_set(cpu).unwrap())
        .take(count)
        .for_each(|cpu| set.set(cpu).unwrap());
    sched_setaffinity(Pid::from_raw(0), &set).unwrap();
}

fn noise() -> Vec<u8> {
    let mut random = Random(42);
    (0..1 << 17)
        .flat_map(|_| random.next().to_le_bytes())
        .collect()
}

/// Messages of random lengths up to `max`, each from a random place of `noise`, `bytes` in all.
fn messages(noise: &[u8], max: usize, bytes: u64) -> impl Iterator<Item = &[u8]> {
    let (mut random, mut left) = (Random(7), bytes);
    std::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let len = random.below(max as u64 + 1).min(left) as usize;
        left -= len as u64;
        let at = random.below((noise.len() - len) as u64) as usize;
        Some(&noise[at..at + len])
    })
}

#[test]
fn random_messages_arrive_byte_for_byte_on_one_processor_and_on_two() {
    let bytes: u64 = if deep() { 1 << 30 } else { 64 << 20 };
    for cpus in [1, 2] {
        for wait in WaitStrategy::ALL {
            let _watchdog = watchdog(if deep() { 1800 } else { 300 });
            let start = Instant::now();
            let ring = Ring::anonymous(small().wait(wait)).unwrap();
            let mut tx = run(&format!("send {cpus} {bytes}"), &ring);
            let mut rx = run(&format!("receive {cpus} {bytes}"), &ring);
            assert!(tx.0.wait().unwrap().success(), "{wait}, {cpus} processors");
            assert!(rx.0.wait().unwrap().success(), "{wait}, {cpus} processors");
            let stats = ring.stats();
            assert_eq!((stats.sent, stats.used), (stats.received, 0));
            println!(
                "{bytes} bytes in {} messages, {wait}, {cpus} processor(s): {:.2?}",
                stats.sent,
                start.elapsed()
            );
        }
    }
}

/// How often the threads of a process gave their processor up, and the nanoseconds they ran.
fn activity(pid: u32) -> (u64, u64) {
    let (mut switches, mut nanos) = (0, 0);
    for thread in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let thread = thread.unwrap().path();
        let status = std::fs::read_to_string(thread.join("status")).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        switches += line.unwrap().trim().parse::<u64>().unwrap();
        let run = std::fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
        let run = run.split(' ').next().and_then(|run| run.parse().ok());
        nanos += run.unwrap_or(0u64);
    }
    (switches, nanos)
}

/// Whether every thread of a process sleeps.
fn sleeps(pid: u32) -> bool {
    std::fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .all(|thread| {
            std::fs::read_to_string(thread.unwrap().path().join("stat"))
                .unwrap()
                .rsplit(')')
                .next()
                .unwrap()
                .starts_with(" S")
        })
}

#[test]
fn a_parked_side_looks_after_its_peer_a_few_times_a_second_and_else_sleeps() {
    let _watchdog = watchdog(300);
    // The bound is on a rate, so what is counted is divided by the time it really took.
    let period = Duration::from_secs(if deep() { 10 } else { 2 });
    for task in ["park-empty", "park-full"] {
        for wait in WaitStrategy::ALL
            .into_iter()
            .filter(|wait| *wait != WaitStrategy::Spin)
        {
            let ring = Ring::anonymous(small().wait(wait)).unwrap();
            let parked = run(task, &ring);
            let pid = parked.0.id();
            // Both roles are taken, so each has a living peer to look after.
            let (_tx, _rx);
            if task == "park-empty" {
                _tx = ring.producer().unwrap();
                until(|| _tx.has_peer() && sleeps(pid));
            } else {
                _rx = ring.consumer().unwrap();
                until(|| _rx.has_peer() && ring.stats().used > 3500 && sleeps(pid));
            }
            let ((switches, nanos), start) = (activity(pid), Instant::now());
            std::thread::sleep(period); // what happens meanwhile is what is counted
            let (after, took) = (activity(pid), start.elapsed());
            let switches = after.0 - switches;
            println!(
                "{task}, {wait}: {switches} wake-ups and {:.3} ms of processor time in {took:.2?}",
                (after.1 - nanos) as f64 / 1e6
            );
            let bound = (took.as_secs_f64() * 25.0) as u64;
            assert!(switches <= bound, "{task} {wait}: {switches} in {took:?}");
            // Processor time, not time on the clock; and only where it is not of a cold start.
            let nanos = after.1 - nanos;
            assert!(!deep() || nanos < 10_000_000, "{task} {wait}: {nanos} ns");
        }
    }
}

#[test]
fn huge_pages_are_had_where_the_system_has_some_and_else_refused_with_the_reason() {
    let _watchdog = watchdog(60);
    // A ring and its header take two.
    let pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";
    let free = std::fs::read_to_string(pool).map_or(0, |free| free.trim().parse().unwrap());
    let ring = Ring::anonymous(Config::default().capacity(1 << 20).huge_pages(true)).unwrap();
    match ring.huge_pages_refused() {
        Some(refused) => {
            assert!(free < 2, "{free} are free: {refused}");
            assert!(refused.raw_os_error().is_some(), "{refused}");
        }
        None => assert!(free > 0),
    }
    let other = Ring::from_fd(ring.as_fd().try_clone_to_owned().unwrap()).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), other.consumer().unwrap());
    tx.send(b"through pages of any size").unwrap();
    assert_eq!(&*rx.recv().unwrap(), b"through pages of any size");
}

#[test]
fn a_full_file_system_refuses_a_ring_before_it_is_made_and_holds_a_smaller_one() {
    let _watchdog = watchdog(60);
    let probe = Command::new("unshare").args(["--mount", "true"]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        println!("skipped: no mount namespace to be had (it takes root and `unshare`)");
        return;
    }
    let inner = child("other_process", &format!("full {}", name("full")));
    let script = "mount -t tmpfs -o size=1m tmpfs /dev/shm && exec \"$@\"";
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .arg("sh")
        .arg(inner.get_program())
        .args(inner.get_args())
        .env("RINGWAY_TEST_CHILD", format!("full {}", name("full")))
        .status()
        .unwrap();
    assert!(status.success());
}

/// Runs with a `/dev/shm` of its own of 1 MiB.
fn full(name: &str) {
    let large = Config::default().capacity(16 << 20);
    for error in [
        spsc::create(name, large.clone()).unwrap_err(),
        spsc::create_or_attach(name, large).unwrap_err(),
    ] {
        assert!(matches!(error, Error::NoRoom { .. }), "{error}");
        let error = error.to_string();
        for word in [name, "16781312", "/dev/shm", "smaller capacity", "remount"] {
            assert!(error.contains(word), "{word}: {error}");
        }
    }
    assert_eq!(std::fs::read_dir("/dev/shm").unwrap().count(), 0);
    // Nothing of the failed ones holds room: nearly all of it can be had, and a second time.
    for _ in 0..2 {
        let ring = spsc::create(name, Config::default().capacity(512 << 10)).unwrap();
        let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
        tx.send(&vec![7; ring.max_message()]).unwrap();
        assert_eq!(rx.recv().unwrap().len(), ring.max_message());
    }
    assert_eq!(std::fs::read_dir("/dev/shm").unwrap().count(), 0);
}

#[test]
fn another_user_is_refused_unless_the_mode_admits_him() {
    let _watchdog = watchdog(60);
    let (closed, open) = (name("closed"), name("open"));
    let ring = spsc::create(&closed, small()).unwrap();
    assert_eq!(
        std::fs::metadata(path(&closed)).unwrap().mode() & 0o7777,
        0o600
    );
    let admitting = spsc::create(&open, small().mode(0o666)).unwrap();
    assert_eq!(
        std::fs::metadata(path(&open)).unwrap().mode() & 0o7777,
        0o666
    );
    if !common::root_for("to be another user") {
        return;
    }
    let task = format!("stranger {}", name(""));
    let status = child("other_process", &task).status().unwrap();
    assert!(status.success());
    let mut rx = admitting.consumer().unwrap();
    assert_eq!(&*rx.recv().unwrap(), b"from a stranger");
    assert!(path(&closed).exists());
    drop(ring);
}

/// Runs as nobody.
fn stranger(name: &str) {
    let (group, user) = (Gid::from_raw(65534), Uid::from_raw(65534));
    nix::unistd::setgroups(&[]).unwrap();
    nix::unistd::setgid(group).unwrap();
    nix::unistd::setuid(user).unwrap();
    let base = name.strip_prefix("test-limits--").unwrap();
    let (closed, open) = (
        format!("test-limits-closed-{base}"),
        format!("test-limits-open-{base}"),
    );
    for refused in [
        spsc::attach(&closed),
        Ring::observe(&closed),
        spsc::create(&closed, small()),
        spsc::create_or_attach(&closed, small()),
    ] {
        let error = refused.unwrap_err();
        assert!(matches!(error, Error::PermissionDenied { .. }), "{error}");
        assert!(error.to_string().contains(&closed), "{error}");
        assert!(error.to_string().contains("mode"), "{error}");
    }
    let mut tx = spsc::attach(&open).unwrap().producer().unwrap();
    tx.send(b"from a stranger").unwrap();
}

#[test]
fn a_truncated_named_ring_is_refused_and_can_be_removed() {
    let name = name("truncated");
    let ring = spsc::create(&name, small()).unwrap();
    let image = std::fs::read(path(&name)).unwrap();
    ring.unlink().unwrap();
    for len in [0, 1, 95, 4095, 4096, image.len() - 4096, image.len() - 1] {
        std::fs::write(path(&name), &image[..len]).unwrap();
        for refused in [
            spsc::attach(&name),
            Ring::observe(&name),
            spsc::create(&name, small()),
            spsc::create_or_attach(&name, small()),
        ] {
            let error = refused.unwrap_err();
            assert!(matches!(error, Error::NotOurs { .. }), "{len}: {error}");
            let error = error.to_string();
            assert!(
                error.contains(&name) && error.contains(&len.to_string()),
                "{error}"
            );
        }
    }
    std::fs::remove_file(path(&name)).unwrap();
}

#[test]
fn without_descriptors_nothing_is_left_half_open() {
    let _watchdog = watchdog(60);
    let task = format!("descriptors {}", name("descriptors"));
    let status = child("other_process", &task).status().unwrap();
    assert!(status.success());
}

/// Tries everything that opens something with every number of descriptors that does not suffice.
fn descriptors(name: &str) {
    let hard = getrlimit(Resource::RLIMIT_NOFILE).unwrap().1;
    let limit = |limit| setrlimit(Resource::RLIMIT_NOFILE, limit, hard).unwrap();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let sweep = |what: &str, attempt: &dyn Fn() -> Result<(), Error>| {
        let soft = getrlimit(Resource::RLIMIT_NOFILE).unwrap().0;
        let before = open();
        let mut refused = 0;
        for few in 0.. {
            limit(few);
            let result = attempt();
            limit(soft);
            assert_eq!(open(), before, "{what} with {few} descriptors");
            match result {
                Ok(()) => break,
                Err(error) => {
                    assert!(
                        matches!(error, Error::NoRoom { .. }),
                        "{what} with {few} descriptors: {error:?}"
                    );
                    assert!(error.to_string().contains("ulimit -n"), "{error}");
                    refused += 1;
                }
            }
        }
        assert!(refused > 3, "{what}: {refused}");
    };
    sweep("create", &|| spsc::create(name, small()).map(drop));
    assert!(!path(name).exists());
    sweep("anonymous", &|| Ring::anonymous(small()).map(drop));
    sweep("anonymous, EventFd", &|| {
        Ring::anonymous(small().wait(WaitStrategy::EventFd)).map(drop)
    });
    let ring = spsc::create(name, small()).unwrap();
    let _stays = ring.producer().unwrap(); // keeps the name
    sweep("attach", &|| spsc::attach(name).map(drop));
    sweep("observe", &|| Ring::observe(name).map(drop));
    sweep("consumer", &|| ring.consumer().map(drop));
    sweep("create, replacing", &|| match spsc::create(name, small()) {
        Err(Error::AlreadyExists { .. }) => Ok(()),
        other => other.map(drop),
    });
    for wait in [WaitStrategy::Futex, WaitStrategy::EventFd] {
        let ring = Ring::anonymous(small().wait(wait)).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        sweep("receive_over", &|| {
            ring.send_over(&ours)?;
            Ring::receive_over(&theirs).map(drop)
        });
    }
}
