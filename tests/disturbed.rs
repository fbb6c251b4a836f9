//! Disturbances from outside that are no failures: signals without end, forks and execs by somebody else's
//! code, threads that vanish, limits on memory. The rest of the system's faults is in `tests/faults.rs`.

use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use ringway::channel;
use ringway::mpmc;
use ringway::spsc::{self, Config, Ring};
use ringway::wait::WaitStrategy;
use ringway::{Endpoint, Error, RecvError, SendError};

mod common;
use common::{Reaped, child, task, until, watchdog};

fn name(what: &str) -> String {
    format!("test-disturbed-{what}-{}", std::process::id())
}

/// What other processes do.
#[test]
fn other_process() {
    let Some(task) = task() else { return };
    let _watchdog = watchdog(100);
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).unwrap();
    let words: Vec<&str> = task.split(' ').collect();
    match words[..] {
        ["storm", wait] => storm(wait.parse().unwrap()),
        ["memory", name] => memory(name),
        ["exec"] => exec(),
        ["vanish", name] => vanish(name),
        ["fork"] => fork(),
        _ => panic!("{task}"),
    }
}

static SIGNALS: AtomicU64 = AtomicU64::new(0);

extern "C" fn count(_: libc::c_int) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// A signal every `micros` microseconds, to a handler without SA_RESTART, in whichever thread.
fn signals(micros: i64) {
    // SAFETY: an all-zero sigaction is a valid one; `count` only uses an atomic.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count as extern "C" fn(libc::c_int) as *const () as usize;
        libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut());
        let interval = libc::timeval {
            tv_sec: 0,
            tv_usec: micros,
        };
        let timer = libc::itimerval {
            it_interval: interval,
            it_value: interval,
        };
        libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut());
    }
}

fn storm(wait: WaitStrategy) {
    signals(100);
    for round in 0..10u64 {
        let config = Config::default().capacity(4096).wait(wait);
        let ring = Ring::anonymous(config).unwrap();
        let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
        let (begun, patience) = (Instant::now(), Duration::from_millis(20));
        let error = rx.recv_timeout(patience).unwrap_err();
        // Not early: a signal is no time-out, and no message.
        assert!(matches!(error, RecvError::TimedOut), "{error:?}");
        assert!(begun.elapsed() >= patience);
        while tx.try_send(&[0; 500]).is_ok() {}
        let begun = Instant::now();
        let error = tx.send_timeout(&[0; 500], patience).unwrap_err();
        assert!(matches!(error, SendError::TimedOut), "{error:?}");
        assert!(begun.elapsed() >= patience);
        rx.drain(usize::MAX).for_each(drop);
        let sending = std::thread::spawn(move || {
            for i in 0..500u64 {
                tx.send(&(round * 1000 + i).to_le_bytes().repeat(40))
                    .unwrap();
            }
        });
        for i in 0..500u64 {
            let expected = (round * 1000 + i).to_le_bytes().repeat(40);
            assert!(*rx.recv().unwrap() == *expected, "{i}");
        }
        sending.join().unwrap();
        assert!(matches!(rx.recv(), Err(RecvError::Closed)));
        let ring = mpmc::Ring::anonymous(mpmc::Config::default().slots(4).wait(wait)).unwrap();
        let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
        let error = rx.recv_timeout(patience).map(drop).unwrap_err();
        assert!(matches!(error, RecvError::TimedOut), "{error:?}");
        while tx.try_send(b"x").is_ok() {}
        let error = tx.send_timeout(b"x", patience).unwrap_err();
        assert!(matches!(error, SendError::TimedOut), "{error:?}");
    }
    println!("signals {}", SIGNALS.load(Ordering::Relaxed));
}

#[test]
fn signals_without_end_neither_lose_a_message_nor_end_a_wait_early() {
    let _watchdog = watchdog(100);
    let storms: Vec<_> = [
        WaitStrategy::Adaptive,
        WaitStrategy::Semaphore,
        WaitStrategy::EventFd,
    ]
    .into_iter()
    .map(|wait| {
        let mut command = child("other_process", &format!("storm {wait}"));
        (wait, command.stdout(Stdio::piped()).spawn().unwrap())
    })
    .collect();
    for (wait, storm) in storms {
        let output = storm.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{wait}: {said}");
        let signals = said.lines().find_map(|line| line.split_once("signals "));
        let signals: u64 = signals.unwrap().1.parse().unwrap();
        println!("{wait}: {signals} signals");
        assert!(signals > 100, "{wait}: {signals}");
    }
}

/// Makes rings with less and less memory that the process may map.
fn memory(name: &str) {
    // The allocator has what it needs: memory of its own is not what is short here.
    drop((0..64).map(|_| vec![1u8; 60_000]).collect::<Vec<_>>());
    let mapped = || {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
    };
    let limit = |limit: u64| setrlimit(Resource::RLIMIT_AS, limit, libc::RLIM_INFINITY).unwrap();
    drop(spsc::create(name, Config::default()).unwrap());
    let (mut refused, mut made) = (0, 0);
    for more in (0..40).map(|i| i * 8192) {
        let base = mapped();
        limit(base + more);
        let result = spsc::create(name, Config::default());
        let result = result.and_then(|ring| ring.producer().map(drop));
        let queue = mpmc::Ring::anonymous(mpmc::Config::default());
        limit(libc::RLIM_INFINITY);
        for error in [result.err(), queue.err()].into_iter().flatten() {
            assert!(matches!(error, Error::NoRoom { .. }), "{error:?}");
            refused += 1;
        }
        made += 1;
    }
    println!("{refused} refused of {}", 2 * made);
    assert!(refused > 10 && refused < 2 * made, "{refused} of {made}");
}

#[test]
fn without_memory_a_ring_is_refused_and_nothing_is_left() {
    let _watchdog = watchdog(60);
    let name = name("memory");
    let status = child("other_process", &format!("memory {name}")).status();
    assert!(status.unwrap().success());
    assert!(!std::path::Path::new(&format!("/dev/shm/ringway.{name}")).exists());
}

/// Opens one of everything, and shows what a program that is then executed has of it.
fn exec() {
    let inherited = || {
        let script = "for fd in /proc/$$/fd/*; do readlink $fd; done";
        let list = Command::new("sh").args(["-c", script]).output().unwrap();
        let list = String::from_utf8(list.stdout).unwrap();
        list.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let before = inherited();
    let name = name("exec");
    let config = Config::default().wait(WaitStrategy::EventFd);
    let anonymous = Ring::anonymous(config).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    anonymous.send_over(&ours).unwrap();
    let passed = Ring::receive_over(&theirs).unwrap();
    let named = spsc::create(&name, Config::default()).unwrap();
    let _roles = (anonymous.producer(), passed.consumer(), named.producer());
    let jobs = mpmc::create(&name.replace("exec", "jobs"), Default::default()).unwrap();
    let _more = (jobs.producer(), jobs.consumer());
    let fifo = format!("/tmp/{name}");
    let ends: Vec<Box<dyn channel::Receiver>> = [
        "fifo:/tmp/{}",
        "unix:/tmp/{}.socket",
        "mq:{}",
        "sem:{}",
        "signal:{}",
    ]
    .iter()
    .map(|endpoint| {
        let endpoint: Endpoint = endpoint.replace("{}", &name).parse().unwrap();
        endpoint.receiver().unwrap()
    })
    .collect();
    let _pipe = channel::pipe::pair().unwrap();
    let _sockets = channel::socket::pair().unwrap();
    let _memory = channel::semaphore::pair(Default::default()).unwrap();
    let _server = ringway::control::Server::bind(&name).unwrap();
    assert!(std::fs::metadata(fifo).is_ok());
    let own = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let after = inherited();
    println!("{own} descriptors, of which a program executed has those: {after:?}");
    assert!(own > 30, "{own}");
    assert_eq!(after.len(), before.len(), "{before:?}");
    let ours = |link: &String| {
        let ours = ["ringway", "memfd", "event", "socket", name.as_str()];
        ours.iter().any(|what| link.contains(what))
    };
    assert!(!after.iter().any(ours), "{after:?}");
    drop(ends);
}

#[test]
fn a_program_that_is_executed_inherits_none_of_the_librarys_descriptors() {
    let _watchdog = watchdog(60);
    assert!(child("other_process", "exec").status().unwrap().success());
}

extern "C" fn end_this_thread(_: libc::c_int) {
    // SAFETY: ends the calling thread at once, destructors and all else left undone.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

/// A thread that waits for a message vanishes, as no thread should; the process lives on.
fn vanish(name: &str) {
    let handler = end_this_thread as extern "C" fn(libc::c_int);
    // SAFETY: the handler makes one system call.
    unsafe { libc::signal(libc::SIGUSR1, handler as *const () as usize) };
    let ring = spsc::attach(name).unwrap();
    let waiting = ring.clone();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut rx = waiting.consumer().unwrap();
        // SAFETY: gettid takes nothing.
        tell.send(unsafe { libc::syscall(libc::SYS_gettid) })
            .unwrap();
        let _ = rx.recv();
    });
    let thread = told.recv().unwrap();
    let task = format!("/proc/self/task/{thread}");
    // Until it sleeps in a system call.
    until(|| {
        std::fs::read_to_string(format!("{task}/stat")).is_ok_and(|stat| stat.contains(") S "))
    });
    // SAFETY: tgkill takes integers.
    unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), thread, libc::SIGUSR1) };
    until(|| !std::path::Path::new(&task).exists());
    // Its role was given up by nobody, and is held for as long as this process lives.
    assert!(matches!(ring.consumer(), Err(Error::RoleTaken { .. })));
    println!("vanished");
    std::thread::sleep(Duration::from_secs(60)); // killed before
}

#[test]
fn a_thread_that_vanishes_while_it_waits_holds_its_role_until_its_process_ends() {
    let _watchdog = watchdog(60);
    let name = name("vanish");
    let ring = spsc::create(&name, Config::default().capacity(4096)).unwrap();
    let mut tx = ring.producer().unwrap();
    let mut command = child("other_process", &format!("vanish {name}"));
    let mut process = Reaped(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut out = std::io::BufReader::new(process.0.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("vanished") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut out, &mut line).unwrap() > 0);
    }
    // Time-outs hold; nobody is robbed.
    let error = loop {
        if let Err(error) = tx.send_timeout(&[1; 1000], Duration::from_millis(20)) {
            break error;
        }
    };
    assert!(matches!(error, SendError::TimedOut), "{error:?}");
    process.0.kill().unwrap();
    process.0.wait().unwrap();
    let error = tx.send(&[1; 1000]).unwrap_err();
    assert!(matches!(error, SendError::PeerDied), "{error:?}");
    let mut rx = ring.consumer().unwrap();
    assert_eq!(&*rx.recv().unwrap(), &[1; 1000]);
    rx.drain(usize::MAX).for_each(drop);
}

/// Forks, by bare system calls and in the middle of everything, while two threads pass messages.
fn fork() {
    let ring = Ring::anonymous(Config::default().capacity(4096)).unwrap();
    // Leaked, so that a child finds them wherever its parent's threads were.
    let tx: &'static mut spsc::Producer = Box::leak(Box::new(ring.producer().unwrap()));
    let rx: &'static mut spsc::Consumer = Box::leak(Box::new(ring.consumer().unwrap()));
    let (producer, consumer) = (
        std::ptr::from_mut(tx) as usize,
        std::ptr::from_mut(rx) as usize,
    );
    static STOP: AtomicBool = AtomicBool::new(false);
    let sending = std::thread::spawn(move || {
        let mut sent = 0u64;
        while !STOP.load(Ordering::Relaxed) {
            tx.send(&sent.to_le_bytes()).unwrap();
            sent += 1;
        }
        tx.send(b"end").unwrap();
        sent
    });
    let receiving = std::thread::spawn(move || {
        let mut received = 0u64;
        loop {
            let message = rx.recv().unwrap();
            if &*message == b"end" {
                return received;
            }
            assert_eq!(*message, received.to_le_bytes());
            received += 1;
        }
    });
    let forks = 150;
    for _ in 0..forks {
        // SAFETY: a child that calls nothing but what is tried, and _exit.
        let pid = unsafe { libc::syscall(libc::SYS_fork) };
        if pid == 0 {
            // SAFETY: in this process nobody else uses them: its only thread is this one. They are in
            // whatever state they were in, which is the point.
            let (tx, rx) = unsafe {
                (
                    &mut *(producer as *mut spsc::Producer),
                    &mut *(consumer as *mut spsc::Consumer),
                )
            };
            let refused = matches!(tx.try_send(b"child"), Err(SendError::Forked))
                && matches!(tx.send(b"child"), Err(SendError::Forked))
                && matches!(tx.try_reserve(8), Err(SendError::Forked))
                && matches!(rx.try_recv(), Err(RecvError::Forked))
                && matches!(rx.recv(), Err(RecvError::Forked))
                && rx.drain(9).count() == 0;
            // SAFETY: ends the child, of which nothing is to be undone.
            unsafe { libc::_exit(i32::from(!refused)) };
        }
        let mut status = 0;
        // SAFETY: `status` is writable.
        unsafe { libc::waitpid(pid as i32, &mut status, 0) };
        assert_eq!(status, 0);
    }
    STOP.store(true, Ordering::Relaxed);
    let (sent, received) = (sending.join().unwrap(), receiving.join().unwrap());
    println!("{forks} forks among {sent} messages");
    assert_eq!(sent, received);
}

#[test]
fn forks_in_the_middle_of_everything_disturb_no_message_and_make_no_second_owner() {
    let _watchdog = watchdog(100);
    assert!(child("other_process", "fork").status().unwrap().success());
}
