//! Every system call that the library makes, made to fail: each with every errno that its manual page
//! documents for it, one at a time.
//!
//! Another process runs a whole life of a ring or channel, over and over, under ptrace. In each run one call
//! is not made and fails instead. The run must then succeed all the same or end in an error that says what
//! it speaks of; never panic, hang, crash or leak a descriptor. And after each of them an undisturbed run of
//! the same process, under the same names, must succeed, and leave nothing behind.
//!
//! By default up to two calls of each kind fail in one way, of some lives; with `RINGWAY_DEEP=1` every call
//! in every way, of all.
//! `RINGWAY_FAULTS=1 cargo test --test faults -- --nocapture` shows every case.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as StdError;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use nix::errno::Errno;
use ringway::channel::Patience;
use ringway::control::{Client, Over, Server};
use ringway::{Endpoint, RecvError, SendError, broadcast, mpmc, spsc};

mod common;
#[path = "common/step.rs"]
mod step;
use common::{child, deep, task, watchdog};
use step::{Stepped, here};

type Outcome = Result<(), Box<dyn StdError>>;

const SOON: Duration = Duration::from_millis(1);

/// What the calls of the library can fail with, by their manual pages.
fn errnos(call: i64, arguments: [u64; 6]) -> &'static [Errno] {
    use Errno::*;
    match call {
        libc::SYS_openat | libc::SYS_open => {
            &[EACCES, EINTR, EMFILE, ENFILE, ENOENT, ENOMEM, ENOSPC, EROFS]
        }
        libc::SYS_memfd_create => &[EMFILE, ENFILE, ENOMEM, EINVAL, EPERM],
        libc::SYS_eventfd2 => &[EMFILE, ENFILE, ENODEV, ENOMEM],
        libc::SYS_pidfd_open => &[EINVAL, EMFILE, ENFILE, ENODEV, ENOMEM, ESRCH, ENOSYS],
        libc::SYS_pipe2 => &[EMFILE, ENFILE],
        libc::SYS_fcntl => match arguments[1] as i32 {
            libc::F_OFD_GETLK | libc::F_OFD_SETLK => &[EACCES, EAGAIN, EINTR, EINVAL, ENOLCK],
            _ => &[EBUSY, EINVAL, EMFILE, EPERM],
        },
        libc::SYS_flock => &[EINTR, ENOLCK, EAGAIN],
        libc::SYS_ftruncate => &[EINTR, EFBIG, EINVAL, EIO, EPERM],
        libc::SYS_fallocate => &[EINTR, EFBIG, EIO, ENODEV, ENOSPC, EOPNOTSUPP, EPERM],
        libc::SYS_linkat => &[EACCES, EEXIST, EIO, EMLINK, ENOENT, ENOSPC, EPERM, EROFS],
        libc::SYS_unlink | libc::SYS_unlinkat => &[EACCES, EBUSY, EIO, ENOENT, EPERM, EROFS],
        libc::SYS_mknod | libc::SYS_mknodat => &[EACCES, EDQUOT, EEXIST, ENOSPC, EROFS],
        libc::SYS_fchmod | libc::SYS_chmod | libc::SYS_fchmodat => &[EIO, EPERM, EROFS],
        libc::SYS_fstat | libc::SYS_newfstatat | libc::SYS_statx => &[EACCES, ENOENT, ENOMEM],
        libc::SYS_readlink | libc::SYS_readlinkat => &[EACCES, EIO, ENOENT, ENOMEM],
        // Memory that the allocator or a new thread asks for is no concern of the library's.
        libc::SYS_mmap if arguments[4] as i32 >= 0 || arguments[1] == 4096 => {
            &[EACCES, EAGAIN, EMFILE, ENFILE, ENODEV, ENOMEM, EPERM]
        }
        libc::SYS_madvise => &[EAGAIN, EINVAL, ENOMEM],
        libc::SYS_read | libc::SYS_pread64 => &[EAGAIN, EINTR, EIO],
        libc::SYS_write | libc::SYS_writev => &[EAGAIN, EINTR, EIO, ENOSPC, EPIPE],
        // (The standard library takes EIO from closing a directory for a bug, and panics.)
        libc::SYS_close => &[EINTR],
        libc::SYS_futex => &[EAGAIN, EINTR, ETIMEDOUT],
        libc::SYS_poll | libc::SYS_ppoll => &[EINTR, EINVAL, ENOMEM],
        libc::SYS_socket | libc::SYS_socketpair => &[EACCES, EMFILE, ENFILE, ENOBUFS, ENOMEM],
        libc::SYS_bind => &[EACCES, EADDRINUSE, ENOMEM, EROFS],
        libc::SYS_connect => &[EACCES, EAGAIN, ECONNREFUSED, EINTR, ENOENT],
        libc::SYS_listen => &[EADDRINUSE],
        libc::SYS_accept | libc::SYS_accept4 => {
            &[EAGAIN, ECONNABORTED, EINTR, EMFILE, ENFILE, ENOMEM]
        }
        libc::SYS_sendmsg | libc::SYS_sendto => {
            &[EAGAIN, ECONNRESET, EINTR, ENOBUFS, ENOMEM, EPIPE]
        }
        libc::SYS_recvmsg | libc::SYS_recvfrom => &[EAGAIN, ECONNREFUSED, EINTR, ENOMEM],
        libc::SYS_getsockopt | libc::SYS_setsockopt => &[ENOBUFS, ENOMEM],
        libc::SYS_shutdown => &[ENOTCONN],
        libc::SYS_membarrier => &[EINVAL, ENOSYS, EPERM],
        libc::SYS_mq_open => &[EACCES, EMFILE, ENFILE, ENOMEM, ENOSPC, EINVAL],
        libc::SYS_mq_unlink => &[EACCES, ENOENT],
        libc::SYS_mq_timedsend | libc::SYS_mq_timedreceive => &[EAGAIN, EINTR, ETIMEDOUT],
        libc::SYS_mq_getsetattr => &[EBADF],
        libc::SYS_rt_tgsigqueueinfo => &[EAGAIN, EPERM, ESRCH],
        libc::SYS_rt_sigtimedwait => &[EAGAIN, EINTR],
        libc::SYS_sched_getaffinity => &[EINVAL],
        libc::SYS_getdents64 => &[ENOENT],
        libc::SYS_clone | libc::SYS_clone3 => &[EAGAIN, ENOMEM],
        _ => &[],
    }
}

/// The lives, by name; `name` is for what has one.
fn live(what: &str, name: &str) -> Outcome {
    let words: Vec<&str> = what.split(' ').collect();
    match words[..] {
        ["spsc", wait] => {
            let config = spsc::Config::default().capacity(4096).wait(wait.parse()?);
            let made = spsc::create(name, config)?;
            let found = spsc::attach(name)?;
            let mut rx = found.consumer()?;
            let mut tx = made.producer()?;
            expect_timeout(rx.recv_timeout(SOON).map(drop))?;
            tx.send_timeout(b"one", SOON)?;
            let mut room = tx.try_reserve(3)?;
            room.copy_from_slice(b"two");
            room.commit();
            fill(|| tx.send_timeout(&[7; 900], SOON))?;
            for expected in [b"one", b"two"] {
                assert_eq!(&*rx.recv_timeout(SOON)?, expected);
            }
            std::hint::black_box((spsc::Ring::observe(name)?.stats(), tx.has_peer()));
            drop(tx);
            drain(|buffer| rx.recv_into_timeout(buffer, SOON))
        }
        ["passed", wait] => {
            let ring = spsc::Ring::anonymous(spsc::Config::default().wait(wait.parse()?))?;
            let (ours, theirs) = UnixStream::pair()?;
            ring.send_over(&ours)?;
            let passed = spsc::Ring::receive_over(&theirs)?;
            let (mut tx, mut rx) = (ring.producer()?, passed.consumer()?);
            expect_timeout(rx.recv_timeout(SOON).map(drop))?;
            tx.send_timeout(b"one", SOON)?;
            assert_eq!(&*rx.recv_timeout(SOON)?, b"one");
            drop(rx);
            Ok(())
        }
        ["mpmc", wait] => {
            let config = mpmc::Config::default()
                .slots(4)
                .participants(4)
                .wait(wait.parse()?);
            let made = mpmc::create(name, config)?;
            let found = mpmc::attach(name)?;
            let (mut rx, mut tx) = (found.consumer()?, made.producer()?);
            expect_timeout(rx.recv_timeout(SOON).map(drop))?;
            let mut clone = tx.clone();
            clone.send_timeout(b"one", SOON)?;
            drop(clone);
            fill(|| tx.send_timeout(b"two", SOON))?;
            assert_eq!(&*rx.recv_timeout(SOON)?, b"one");
            tx.close()?;
            drop(tx);
            drain(|buffer| {
                buffer.clear();
                buffer.extend_from_slice(&rx.recv_timeout(SOON)?);
                Ok(())
            })
        }
        ["items"] => {
            let made = mpmc::items::create(name, mpmc::Config::default().participants(2))?;
            let (mut tx, mut rx) = (made.producer()?, made.consumer()?);
            expect_timeout(rx.recv_timeout(SOON).map(drop))?;
            tx.send_timeout(7, SOON)?;
            assert_eq!(rx.recv_timeout(SOON)?, 7);
            Ok(())
        }
        ["broadcast", wait] => {
            let config = broadcast::Config::default()
                .capacity(4096)
                .wait(wait.parse()?);
            let made = broadcast::create(name, config)?;
            let found = broadcast::attach(name)?;
            let mut rx = found.subscriber()?;
            let mut tx = made.producer()?;
            expect_timeout(rx.recv_timeout(SOON).map(drop))?;
            tx.send_timeout(b"one", SOON)?;
            let mut room = tx.try_reserve(3)?;
            room.copy_from_slice(b"two");
            room.commit();
            fill(|| tx.send_timeout(&[7; 900], SOON))?;
            for expected in [b"one", b"two"] {
                assert_eq!(&*rx.recv_timeout(SOON)?, expected);
            }
            let onlooker = broadcast::Ring::observe(name)?;
            let mut eye = onlooker.observer(broadcast::Start::Oldest)?;
            assert_eq!(&*eye.try_recv()?, b"one");
            std::hint::black_box((made.living_subscribers()?, tx.sequence()));
            drop(tx);
            drain(|buffer| rx.recv_into_timeout(buffer, SOON).map(drop))
        }
        ["endpoint", endpoint] => {
            let endpoint: Endpoint = endpoint.replace("{}", name).parse()?;
            let mut rx = endpoint.receiver()?;
            let mut tx = endpoint.sender()?;
            let (mut buffer, soon) = (Vec::new(), Patience::Within(SOON));
            // Where messages outlive those who sent them, a run that failed may have left some.
            while rx.recv_with(&mut buffer, Patience::Now).is_ok() {}
            expect_timeout(rx.recv_with(&mut buffer, soon))?;
            tx.send_with(b"one", soon)?;
            // Others bring it: a thread of the channel's own, where it has one.
            rx.recv_with(&mut buffer, Patience::Within(Duration::from_secs(10)))?;
            assert_eq!(buffer, b"one");
            tx.send_with(b"two", soon)?;
            tx.close();
            drain(|buffer| rx.recv_with(buffer, Patience::Within(Duration::from_secs(10))))
        }
        ["control", over] => {
            let over = if over == "fifo" {
                Over::Fifo
            } else {
                Over::Queue
            };
            let mut server = Server::bind_over(name, over)?;
            let client = Client::connect(name)?;
            assert!(server.next().is_none());
            drop(client);
            Ok(())
        }
        _ => panic!("{what}"),
    }
}

/// There is nothing to be had, for a while; whoever says so early was asked to.
fn expect_timeout(result: Result<(), RecvError>) -> Outcome {
    match result {
        Err(RecvError::TimedOut | RecvError::Empty) => Ok(()),
        Ok(()) => panic!("a message that nobody sent"),
        Err(error) => Err(error.into()),
    }
}

/// Sends until there is no room.
fn fill(mut send: impl FnMut() -> Result<(), SendError>) -> Outcome {
    for _ in 0..100 {
        match send() {
            Ok(()) => {}
            Err(SendError::TimedOut | SendError::Full) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    panic!("room for everything");
}

/// Receives until the sender is gone.
fn drain(mut receive: impl FnMut(&mut Vec<u8>) -> Result<(), RecvError>) -> Outcome {
    let mut buffer = Vec::new();
    for _ in 0..100 {
        match receive(&mut buffer) {
            Ok(()) => assert!(buffer == b"two" || buffer == [7; 900], "{buffer:?}"),
            Err(RecvError::Closed) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    panic!("messages without end");
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// The process whose calls fail. Its standard input is a pipe to the test, into which it writes how each
/// run went.
#[test]
fn other_process() {
    let Some(what) = task() else { return };
    let mut report = std::fs::File::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let name = format!(
        "test-faults-{}-{}",
        what.replace(|c: char| !c.is_alphanumeric(), "-"),
        std::process::id()
    );
    // What is opened once and for all is open before descriptors are counted.
    live(&what, &name).unwrap();
    let before = descriptors();
    step::traced();
    loop {
        here();
        let result = catch_unwind(AssertUnwindSafe(|| live(&what, &name)));
        here();
        let first = match result {
            Ok(Ok(())) => "ok".to_owned(),
            Ok(Err(error)) => format!("error {error}"),
            Err(panic) => format!("PANIC {:?}", panic.downcast_ref::<String>()),
        };
        let open = descriptors() as isize - before as isize;
        // What a failed call to remove something left is taken over or replaced.
        let again = match live(&what, &name) {
            Ok(()) => "ok".to_owned(),
            Err(error) => error.to_string(),
        };
        let left: Vec<_> = ["/dev/shm", "/tmp"]
            .into_iter()
            .flat_map(|directory| std::fs::read_dir(directory).unwrap())
            .map(|entry| entry.unwrap().file_name().into_string().unwrap_or_default())
            .filter(|file| file.contains(&name))
            .collect();
        let line = format!("{first}\t{again}\t{open}\t{left:?}").replace('\n', " ");
        writeln!(report, "{line}").unwrap();
    }
}

/// That a step of the clock on the wall ends no wait early, and makes none longer.
fn waits_by_no_wall_clock(what: &str, call: i64, [_, operation, _, timeout, fifth, _]: [u64; 6]) {
    let by_wall_clock = match call {
        libc::SYS_futex => timeout != 0 && operation as i32 & libc::FUTEX_CLOCK_REALTIME != 0,
        // Both take a time on the wall, or none.
        libc::SYS_mq_timedsend | libc::SYS_mq_timedreceive => fifth != 0,
        libc::SYS_clock_nanosleep => operation as i32 & libc::TIMER_ABSTIME != 0,
        _ => false,
    };
    assert!(
        !by_wall_clock,
        "{what}: call {call}, operation {operation:#x}"
    );
}

/// One life after another, each call failing in each way.
fn sweep(what: &str) {
    if task().is_some() {
        return;
    }
    let _watchdog = watchdog(if deep() { 3600 } else { 300 });
    let show = std::env::var_os("RINGWAY_FAULTS").is_some();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = child("other_process", what);
    command.stdin(OwnedFd::from(writer));
    if !show {
        command.stderr(std::process::Stdio::null());
    }
    let mut process = Stepped::start(&mut command);
    drop(command);
    let mut lines = BufReader::new(reader).lines();
    let mut run = |fail: &mut dyn FnMut(i64, [u64; 6]) -> Option<i32>| {
        process.calls(fail);
        process.go_on();
        let line = lines.next().expect("a report").unwrap();
        let parts: Vec<String> = line.split('\t').map(str::to_owned).collect();
        <[String; 4]>::try_from(parts).unwrap()
    };
    // Which calls there are.
    let mut calls = Vec::new();
    let undisturbed = run(&mut |call, arguments| {
        calls.push((call, arguments));
        None
    });
    assert_eq!(undisturbed, ["ok", "ok", "0", "[]"], "{what}");
    calls
        .iter()
        .for_each(|&(call, arguments)| waits_by_no_wall_clock(what, call, arguments));
    let (mut faults, mut absorbed) = (0, 0);
    let mut seen: BTreeMap<i64, usize> = BTreeMap::new();
    // One channel looks through the whole of /proc, and each of its runs takes seconds: a few of each kind of
    // call, from the beginning and from the end, are enough.
    let few = if calls.len() > 500 { 3 } else { 100 };
    let mut said: BTreeMap<String, u32> = BTreeMap::new();
    for (nth, &(call, arguments)) in calls.iter().enumerate() {
        let all = errnos(call, arguments);
        let same = seen.entry(call).or_default();
        *same += 1;
        let ordinal = *same;
        let after = calls[nth..].iter().filter(|(other, _)| *other == call);
        let is_chosen = *same <= few || after.count() <= few;
        let some = all.iter().skip(nth % all.len().max(1));
        let chosen: Vec<_> = match deep() {
            true if is_chosen => all.iter().collect(),
            true => Vec::new(),
            false => some.take(usize::from(*same <= 2)).collect(),
        };
        for &errno in chosen {
            let mut at = 0;
            // A run is not always the same to the call: a look through /proc is longer when there are more
            // processes. So it is counted among those of its kind.
            let [first, again, open, left] = run(&mut |now, _| {
                at += usize::from(now == call);
                (now == call && at == ordinal).then_some(errno as i32)
            });
            let case = format!(
                "{what}: call {nth} ({call}) fails with {errno}: {first}; again {again}; {open} descriptors; left {left}"
            );
            if show {
                println!("{case}");
            }
            faults += 1;
            // A signal is no failure.
            assert!(errno != Errno::EINTR || first == "ok", "{case}");
            assert!(!first.starts_with("PANIC"), "{case}");
            if first == "ok" {
                absorbed += 1;
            } else {
                let text = first.strip_prefix("error ").unwrap();
                assert!(text.len() > 10 && text.contains([' ', ':']), "{case}");
                *said.entry(text.to_owned()).or_default() += 1;
            }
            assert_eq!(again, "ok", "{case}");
            assert_eq!(left, "[]", "{case}");
            assert_eq!(open, "0", "{case}");
        }
    }
    // A call of which no failure is documented here fails in no run: that is said.
    let spared: BTreeSet<i64> = calls
        .iter()
        .filter(|(call, arguments)| errnos(*call, *arguments).is_empty())
        .map(|(call, _)| *call)
        .collect();
    println!(
        "{what}: {} system calls, {faults} faults: {absorbed} made no difference, {} different errors; never failed: {spared:?}",
        calls.len(),
        said.len()
    );
    if show {
        said.iter()
            .for_each(|(text, count)| println!("    {count:3} {text}"));
    }
    assert!(
        faults > 10 && absorbed < faults,
        "{what}: {faults}, {absorbed}"
    );
}

/// The first of them, or all.
fn sweep_all(lives: &[&str]) {
    let count = if deep() { lives.len() } else { 1 };
    lives[..count].iter().for_each(|what| sweep(what));
}

#[test]
fn spsc_rings_survive_every_fault() {
    sweep_all(&["spsc adaptive", "spsc spin", "spsc futex", "spsc semaphore"]);
}

#[test]
fn passed_rings_survive_every_fault() {
    sweep_all(&["passed eventfd", "passed futex"]);
}

#[test]
fn mpmc_rings_survive_every_fault() {
    sweep_all(&["mpmc adaptive", "mpmc semaphore", "items"]);
}

#[test]
fn broadcast_rings_survive_every_fault() {
    sweep_all(&["broadcast adaptive", "broadcast semaphore"]);
}

#[test]
fn fifos_and_sockets_survive_every_fault() {
    sweep("endpoint fifo:/tmp/{}");
    sweep("endpoint unix:/tmp/{}");
}

#[test]
fn queues_and_semaphores_survive_every_fault() {
    sweep("endpoint mq:{}");
    sweep_all(&["endpoint sem:{}", "endpoint sem:{}?named=1"]);
}

#[test]
fn other_channels_survive_every_fault() {
    sweep_all(&["endpoint ring:{}", "endpoint signal:{}"]);
}

#[test]
fn control_survives_every_fault() {
    sweep_all(&["control fifo", "control queue"]);
}
