//! One suite for every mechanism: what the traits promise, between real processes.
//!
//! It prints a table, mechanisms down and properties across. A cell is `ok`, or `refused` where the
//! mechanism says in its capabilities that it cannot do the thing, and then the refusal was checked.
//!
//! `RINGWAY_CONFORMANCE=mq` checks only the rows whose name contains that;
//! `RINGWAY_CONFORMANCE_SIZES=70000` has every single length up to that sent (600 unless told; beyond,
//! those around everything where it might change, and the longest ones), which takes minutes.

mod common;

use std::io::{BufRead, BufReader, IoSlice, IoSliceMut, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{ChildStdout, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use common::{Random, Reaped, child, task, watchdog};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use ringway::broadcast::Start;
use ringway::channel::{self, Receiver, Sender};
use ringway::{Endpoint, RecvError, SendError};

/// How a mechanism is set up for a parent and a child.
#[derive(Clone, Copy)]
enum Setup {
    /// By an endpoint that both open; `{}` is replaced by a fresh name.
    Named(&'static str),
    /// A pipe, its other end inherited as standard input.
    PipeInherited,
    /// A pipe, its other end opened through `/proc`.
    PipeThroughProc,
    /// A buffer without a name, inherited as standard input.
    Semaphore,
    /// A connected pair of sockets, one inherited as standard input.
    SocketPair,
}

const MECHANISMS: [(&str, Setup); 15] = [
    ("ring", Setup::Named("ring:{}")),
    ("mpmc", Setup::Named("mpmc:{}?slots=64&slot=256")),
    ("bcast", Setup::Named("bcast:{}")),
    ("pipe, inherited", Setup::PipeInherited),
    ("pipe, by /proc", Setup::PipeThroughProc),
    ("fifo", Setup::Named("fifo:/tmp/{}")),
    ("unix pair", Setup::SocketPair),
    ("unix", Setup::Named("unix:/tmp/{}")),
    ("mq", Setup::Named("mq:{}")),
    ("mq, small", Setup::Named("mq:{}?depth=2&message=64")),
    ("sem, inherited", Setup::Semaphore),
    ("sem", Setup::Named("sem:{}")),
    ("sem, named", Setup::Named("sem:{}?capacity=4KiB&named=1")),
    ("signal", Setup::Named("signal:{}")),
    ("auto", Setup::Named("auto:{}")),
];

type Cell = &'static str;
const OK: Cell = "ok";
const REFUSED: Cell = "refused";

type Property = (&'static str, fn(Setup) -> Cell);

const PROPERTIES: &[Property] = &[
    ("related", related),
    ("unrelated", unrelated),
    ("sizes", sizes),
    ("order", order),
    ("boundaries", boundaries),
    ("slow reader", slow_reader),
    ("time-outs", timeouts),
    ("EINTR", storm),
    ("tx closes", sender_closes),
    ("rx closes", receiver_closes),
    ("tx killed", sender_killed),
    ("rx killed", receiver_killed),
    ("tx dies mid", sender_killed_in_the_middle),
    ("many tx", many_senders),
    ("prio", priorities),
    ("succ", successor),
    ("duplex", duplex),
    ("1 CPU", one_processor),
    ("2 CPUs", two_processors),
    ("descriptors", descriptors_come_back),
    ("exec", nothing_for_other_programs),
    ("fork", a_forked_child_disturbs_nobody),
    ("names", names_survive_nobody),
];

#[test]
fn every_mechanism_conforms() {
    let _dog = watchdog(if dense() > DENSE { 3000 } else { 400 });
    let mut table = String::new();
    let mut failures = Vec::new();
    table.push_str(&format!("{:<16}", ""));
    for (property, _) in PROPERTIES {
        table.push_str(&format!(" {property:>11}"));
    }
    // One row at a time, to look into a failure.
    let only = std::env::var("RINGWAY_CONFORMANCE").unwrap_or_default();
    let rows = MECHANISMS.iter().filter(|(name, _)| name.contains(&only));
    assert!(
        rows.clone().count() > 0,
        "RINGWAY_CONFORMANCE={only}: no such row; there are {:?}",
        MECHANISMS.map(|(name, _)| name)
    );
    for (mechanism, setup) in rows {
        table.push_str(&format!("\n{mechanism:<16}"));
        for (property, check) in PROPERTIES {
            // So that a hang, too, says where it is.
            eprint!("{mechanism}: {property}");
            let began = Instant::now();
            let cell = catch_unwind(AssertUnwindSafe(|| check(*setup)));
            let cell = cell.unwrap_or_else(|_| {
                failures.push(format!("{mechanism}: {property}"));
                "FAILED"
            });
            eprintln!(": {cell}, {} ms", began.elapsed().as_millis());
            table.push_str(&format!(" {cell:>11}"));
            let left = what_is_left();
            if !left.is_empty() {
                failures.push(format!("{mechanism}: {property}: left behind: {left:?}"));
            }
        }
    }
    println!("{table}");
    assert!(failures.is_empty(), "{failures:#?}");
}

static NAMES: AtomicU32 = AtomicU32::new(0);

fn prefix() -> String {
    format!("rwt-{}-", std::process::id())
}

fn fresh(template: &str) -> String {
    let number = NAMES.fetch_add(1, Ordering::Relaxed);
    template.replace("{}", &format!("{}{number}", prefix()))
}

/// The other process, and what it says.
struct Peer {
    process: Reaped,
    says: BufReader<ChildStdout>,
}

impl Peer {
    fn start(endpoint: &str, side: &str, script: &str, stdin: Stdio) -> Peer {
        let mut command = child("child_process", &format!("{side} {script} {endpoint}"));
        command.stdin(stdin);
        Peer::of(command)
    }

    fn of(mut command: std::process::Command) -> Peer {
        let mut process = Reaped(command.stdout(Stdio::piped()).spawn().unwrap());
        let says = BufReader::new(process.0.stdout.take().unwrap());
        Peer { process, says }
    }

    /// A process of which this one is no ancestor: its parent has ended, and it has a session of its own.
    /// What is passed it gets over a Unix socket.
    fn unrelated(endpoint: &str, side: &str, script: &str, passed: Option<OwnedFd>) -> Peer {
        let program = child("child_process", &format!("{side} {script} {endpoint}"));
        let mut command = std::process::Command::new("setsid");
        command.args(["sh", "-c", "\"$@\" </dev/null & exit 0", "sh"]);
        command.arg(program.get_program()).args(program.get_args());
        command.envs(program.get_envs().map(|(key, value)| (key, value.unwrap())));
        let meet = fresh("/tmp/{}.pass");
        let listener = std::os::unix::net::UnixListener::bind(&meet).unwrap();
        if passed.is_some() {
            command.env("RINGWAY_TEST_PASSED", &meet);
        }
        let mut peer = Peer::of(command);
        peer.process.0.wait().unwrap();
        if let Some(fd) = passed {
            pass(&listener.accept().unwrap().0, &fd);
        }
        std::fs::remove_file(meet).unwrap();
        peer
    }

    /// Waits until it has said its last word.
    fn falls_silent(mut self) {
        let mut rest = String::new();
        self.says.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("test result: ok"), "{rest}");
    }

    /// Waits until it says `word`.
    fn hear(&mut self, word: &str) {
        let mut line = String::new();
        while self.says.read_line(&mut line).unwrap() > 0 {
            if line.trim_end().ends_with(word) {
                return;
            }
            line.clear();
        }
        panic!(
            "the child ended without saying {word}: {:?}",
            self.process.0.wait()
        );
    }

    fn kill(&mut self) {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
    }

    fn succeed(mut self) {
        let mut rest = String::new();
        self.says.read_to_string(&mut rest).unwrap();
        let status = self.process.0.wait().unwrap();
        assert!(status.success(), "{rest}");
    }
}

/// Passes a descriptor to whoever is at the other end of `socket`.
fn pass(socket: &std::os::unix::net::UnixStream, fd: &OwnedFd) {
    let rights = [ControlMessage::ScmRights(&[fd.as_raw_fd()])];
    let byte = [IoSlice::new(b"x")];
    sendmsg::<()>(socket.as_raw_fd(), &byte, &rights, MsgFlags::empty(), None).unwrap();
}

/// Takes the descriptor that is passed at `path`, as standard input.
fn take_passed(path: &str) {
    let socket = std::os::unix::net::UnixStream::connect(path).unwrap();
    let mut byte = [0];
    let mut bytes = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let flags = MsgFlags::empty();
    let got = recvmsg::<()>(socket.as_raw_fd(), &mut bytes, Some(&mut space), flags).unwrap();
    let Some(ControlMessageOwned::ScmRights(fds)) = got.cmsgs().unwrap().next() else {
        panic!("nothing was passed");
    };
    // SAFETY: dup2 takes two integers.
    assert_eq!(unsafe { libc::dup2(fds[0], 0) }, 0);
    // SAFETY: as above; the descriptor was received for this.
    unsafe { libc::close(fds[0]) };
}

/// A child that sends, and the receiving end here.
fn child_sends(setup: Setup, script: &str) -> (Box<dyn Receiver>, Peer) {
    match setup {
        Setup::Named(template) => {
            let endpoint = fresh(template);
            let rx = endpoint.parse::<Endpoint>().unwrap().receiver().unwrap();
            let mut peer = Peer::start(&endpoint, "send", script, Stdio::null());
            peer.hear("READY");
            (rx, peer)
        }
        Setup::PipeInherited => {
            let (tx, rx) = channel::pipe::pair().unwrap();
            let mut peer = Peer::start("pipe:?fd=0", "send", script, tx.into());
            peer.hear("READY");
            (Box::new(rx), peer)
        }
        Setup::PipeThroughProc => {
            let (tx, rx) = channel::pipe::pair().unwrap();
            let fd = OwnedFd::from(tx);
            let endpoint = format!("pipe:?pid={}&fd={}", std::process::id(), fd.as_raw_fd());
            let mut peer = Peer::start(&endpoint, "send", script, Stdio::null());
            peer.hear("READY");
            (Box::new(rx), peer)
        }
        Setup::Semaphore => {
            let (tx, rx) = channel::semaphore::pair(Default::default()).unwrap();
            let memory = tx.as_fd().unwrap().try_clone_to_owned().unwrap();
            let mut peer = Peer::start("sem on stdin", "send", script, memory.into());
            peer.hear("READY");
            drop(tx);
            (Box::new(rx), peer)
        }
        Setup::SocketPair => {
            let (tx, rx) = channel::socket::pair().unwrap();
            let mut peer = Peer::start("socket on stdin", "send", script, tx.into());
            peer.hear("READY");
            (Box::new(rx), peer)
        }
    }
}

/// A child that receives, and the sending end here.
fn child_receives(setup: Setup, script: &str) -> (Box<dyn Sender>, Peer) {
    match setup {
        Setup::Named(template) => {
            let endpoint = fresh(template);
            let tx = endpoint.parse::<Endpoint>().unwrap().sender().unwrap();
            let mut peer = Peer::start(&endpoint, "recv", script, Stdio::null());
            peer.hear("READY");
            (tx, peer)
        }
        Setup::PipeInherited => {
            let (tx, rx) = channel::pipe::pair().unwrap();
            let mut peer = Peer::start("pipe:?fd=0", "recv", script, rx.into());
            peer.hear("READY");
            (Box::new(tx), peer)
        }
        Setup::PipeThroughProc => {
            let (tx, rx) = channel::pipe::pair().unwrap();
            let fd = OwnedFd::from(rx);
            let endpoint = format!("pipe:?pid={}&fd={}", std::process::id(), fd.as_raw_fd());
            let mut peer = Peer::start(&endpoint, "recv", script, Stdio::null());
            peer.hear("READY");
            (Box::new(tx), peer)
        }
        Setup::Semaphore => {
            let (tx, rx) = channel::semaphore::pair(Default::default()).unwrap();
            let memory = tx.as_fd().unwrap().try_clone_to_owned().unwrap();
            let mut peer = Peer::start("sem on stdin", "recv", script, memory.into());
            peer.hear("READY");
            drop(rx);
            (Box::new(tx), peer)
        }
        Setup::SocketPair => {
            let (tx, rx) = channel::socket::pair().unwrap();
            let mut peer = Peer::start("socket on stdin", "recv", script, rx.into());
            peer.hear("READY");
            (Box::new(tx), peer)
        }
    }
}

/// The bytes of message `index` of a run. Long ones repeat themselves, at a distance that no piece has.
fn message(index: u64, len: usize) -> Vec<u8> {
    const PERIOD: usize = 7919;
    let mut random = Random(index);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len.min(PERIOD) {
        bytes.extend(random.next().to_le_bytes());
    }
    bytes.truncate(len.min(PERIOD));
    while bytes.len() < len {
        bytes.extend_from_within(..PERIOD.min(len - bytes.len()));
    }
    bytes
}

/// Every length up to this one is tried.
const DENSE: usize = 600;

fn dense() -> usize {
    let told = std::env::var("RINGWAY_CONFORMANCE_SIZES").ok();
    told.map_or(DENSE, |sizes| sizes.parse().unwrap())
}

/// The sizes that are tried: all of the small ones, those around everything where it might change, and
/// the largest.
fn tried(max: usize) -> Vec<usize> {
    let mut sizes: std::collections::BTreeSet<usize> = (0..=dense()).collect();
    for at in [1 << 10, 2 << 10, 4 << 10, 8 << 10, 32 << 10, 64 << 10] {
        sizes.extend(at - 10..=at + 1);
    }
    sizes.extend([100_000, 1 << 20, (1 << 20) + 1]);
    sizes.retain(|&size| size < max);
    sizes.extend([max - 1, max]);
    sizes.into_iter().collect()
}

/// The other end is a child, which opens it by name or has inherited it.
fn related(setup: Setup) -> Cell {
    let (mut rx, peer) = child_sends(setup, "three and leave");
    receive_three(&mut *rx);
    peer.succeed();
    let (mut tx, peer) = child_receives(setup, "three and leave");
    send_three(&mut *tx);
    peer.succeed();
    OK
}

/// The other end is a process of another family: it opens it by name, or is passed a descriptor.
fn unrelated(setup: Setup) -> Cell {
    let stdin = |setup| match setup {
        Setup::Semaphore => "sem on stdin",
        Setup::SocketPair => "socket on stdin",
        _ => "pipe:?fd=0",
    };
    // It sends.
    let endpoint = match setup {
        Setup::Named(template) => fresh(template),
        other => stdin(other).to_owned(),
    };
    let (mut rx, peer): (Box<dyn Receiver>, Peer) = match setup {
        Setup::Named(_) => {
            let rx = endpoint.parse::<Endpoint>().unwrap().receiver().unwrap();
            (rx, Peer::unrelated(&endpoint, "send", "run", None))
        }
        Setup::PipeThroughProc => {
            let (tx, rx) = channel::pipe::pair().unwrap();
            let fd = OwnedFd::from(tx);
            let path = format!("pipe:?pid={}&fd={}", std::process::id(), fd.as_raw_fd());
            let mut peer = Peer::unrelated(&path, "send", "run", None);
            peer.hear("READY");
            (Box::new(rx), peer)
        }
        Setup::PipeInherited => {
            let (tx, rx) = channel::pipe::pair().unwrap();
            let mut peer = Peer::unrelated(&endpoint, "send", "run", Some(tx.into()));
            peer.hear("READY");
            (Box::new(rx), peer)
        }
        Setup::SocketPair => {
            let (tx, rx) = channel::socket::pair().unwrap();
            let peer = Peer::unrelated(&endpoint, "send", "run", Some(tx.into()));
            (Box::new(rx), peer)
        }
        Setup::Semaphore => {
            let (tx, rx) = channel::semaphore::pair(Default::default()).unwrap();
            let memory = tx.as_fd().unwrap().try_clone_to_owned().unwrap();
            let mut peer = Peer::unrelated(&endpoint, "send", "run", Some(memory));
            peer.hear("READY");
            (Box::new(rx), peer)
        }
    };
    let reach = rx.capabilities().unrelated;
    assert!(reach.is_some(), "it works, and the capabilities deny it");
    receive_run(&mut *rx, |_| {});
    peer.falls_silent();
    drop(rx);
    // It receives.
    if let Setup::Named(template) = setup {
        let endpoint = fresh(template);
        let mut tx = endpoint.parse::<Endpoint>().unwrap().sender().unwrap();
        let peer = Peer::unrelated(&endpoint, "recv", "run", None);
        send_run(&mut *tx);
        drop(tx);
        peer.falls_silent();
    }
    OK
}

/// Short messages and empty ones, one after another without a pause: each comes for itself.
fn boundaries(setup: Setup) -> Cell {
    let (mut rx, peer) = child_sends(setup, "short ones");
    let mut got = Vec::new();
    for index in 0..SHORT {
        rx.recv(&mut got).unwrap();
        assert_eq!(got, short(index), "message {index}");
    }
    assert_end(&mut *rx, |end| matches!(end, RecvError::Closed));
    peer.succeed();
    OK
}

const SHORT: u64 = 1000;

fn short(index: u64) -> Vec<u8> {
    message(index, [0, 1, 0, 0, 3, 8, 0, 2][index as usize % 8])
}

fn sizes(setup: Setup) -> Cell {
    // Both ways: the child as the sender, then as the receiver.
    let (mut rx, peer) = child_sends(setup, "sizes");
    receive_sizes(&mut *rx);
    peer.succeed();
    let (mut tx, peer) = child_receives(setup, "sizes");
    send_sizes(&mut *tx);
    drop(tx);
    peer.succeed();
    OK
}

/// What `auto` can carry is known when it is agreed on.
fn agreed_max(tx: &mut dyn Sender) -> usize {
    tx.send(b"first").unwrap();
    tx.capabilities().max_message
}

fn send_sizes(tx: &mut dyn Sender) {
    let max = agreed_max(tx);
    for (index, size) in tried(max).into_iter().enumerate() {
        tx.send(&message(index as u64, size)).unwrap();
    }
    match tx.send(&message(0, max + 1)) {
        Err(SendError::MessageTooLarge { len, max: said }) => {
            assert_eq!((len, said), (max + 1, max));
        }
        other => panic!("one byte beyond the maximum: {other:?}"),
    }
    tx.send(b"last").unwrap();
}

fn receive_sizes(rx: &mut dyn Receiver) {
    let mut got = vec![1; 99];
    rx.recv(&mut got).unwrap();
    assert_eq!(got, b"first");
    let max = rx.capabilities().max_message;
    for (index, size) in tried(max).into_iter().enumerate() {
        rx.recv(&mut got).unwrap();
        assert_eq!(got.len(), size);
        assert!(
            got == message(index as u64, size),
            "bytes of message {index}"
        );
    }
    rx.recv(&mut got).unwrap();
    assert_eq!(got, b"last");
}

const RUN: u64 = 3000;

fn run_size(index: u64, max: usize) -> usize {
    (Random(index ^ 0xabcd).next() % 600.min(max as u64)) as usize
}

fn send_run(tx: &mut dyn Sender) {
    for index in 0..RUN {
        let max = tx.capabilities().max_message;
        tx.send(&message(index, run_size(index, max.min(64))))
            .unwrap();
    }
}

fn receive_run(rx: &mut dyn Receiver, each: impl Fn(u64)) {
    let mut got = Vec::new();
    for index in 0..RUN {
        rx.recv(&mut got).unwrap();
        assert!(
            got == message(index, run_size(index, 64)),
            "message {index}"
        );
        each(index);
    }
    assert_end(rx, |end| matches!(end, RecvError::Closed));
}

fn order(setup: Setup) -> Cell {
    let (mut rx, peer) = child_sends(setup, "run");
    receive_run(&mut *rx, |_| {});
    peer.succeed();
    let (mut tx, peer) = child_receives(setup, "run");
    send_run(&mut *tx);
    drop(tx);
    peer.succeed();
    OK
}

fn slow_reader(setup: Setup) -> Cell {
    let (mut rx, peer) = child_sends(setup, "run");
    receive_run(&mut *rx, |index| {
        if index % 100 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    peer.succeed();
    OK
}

/// Makes the call until it no longer fails in a way that passes.
fn outlast<E: std::fmt::Debug>(
    passes: impl Fn(&E) -> bool,
    mut call: impl FnMut() -> Result<(), E>,
) {
    common::until(|| match call() {
        Err(error) if passes(&error) => false,
        result => {
            result.unwrap();
            true
        }
    });
}

fn timeouts(setup: Setup) -> Cell {
    let short = Duration::from_millis(20);
    let mut got = Vec::new();
    // An idle sender.
    let (mut rx, mut peer) = child_sends(setup, "idle");
    let idle = rx.try_recv(&mut got);
    assert!(matches!(idle, Err(RecvError::Empty)), "{idle:?}");
    let began = Instant::now();
    let idle = rx.recv_timeout(&mut got, short);
    assert!(matches!(idle, Err(RecvError::TimedOut)), "{idle:?}");
    assert!(began.elapsed() >= short, "too early");
    peer.kill();
    drop(rx);
    // An idle receiver: full some time, and nothing of what was accepted is lost.
    let (mut tx, mut peer) = child_receives(setup, "later");
    let size = tx.capabilities().max_message.min(1000);
    let before = tx.capabilities().mechanism;
    // Also over a time in which `auto` has not agreed yet.
    let not_yet = |error: &SendError| matches!(error, SendError::Full);
    outlast(not_yet, || tx.try_send(&message(0, size)));
    if tx.capabilities().mechanism != before {
        peer.hear("FIRST"); // it was `auto`, and the receiver agreed by receiving
    }
    let mut accepted = 1;
    let full = loop {
        match tx.try_send(&message(accepted, size)) {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, SendError::Full), "{full:?}");
    let began = Instant::now();
    let full = tx.send_timeout(&message(accepted, size), short);
    assert!(matches!(full, Err(SendError::TimedOut)), "{full:?}");
    assert!(began.elapsed() >= short, "too early");
    // What was refused is not received: another message follows the last accepted one.
    // SAFETY: kill takes two integers; the child is not reaped yet.
    unsafe { libc::kill(peer.process.0.id() as i32, libc::SIGUSR1) };
    tx.send(format!("accepted {accepted} of {size}").as_bytes())
        .unwrap();
    tx.close();
    peer.hear("COUNTED");
    peer.succeed();
    OK
}

fn storm(setup: Setup) -> Cell {
    let (mut rx, peer) = child_sends(setup, "storm");
    receive_run(&mut *rx, |_| {});
    peer.succeed();
    let (mut tx, peer) = child_receives(setup, "storm");
    send_run(&mut *tx);
    drop(tx);
    peer.succeed();
    OK
}

/// After every message the end comes, and comes again.
fn assert_end(rx: &mut dyn Receiver, expected: impl Fn(&RecvError) -> bool) {
    let mut got = Vec::new();
    for _ in 0..2 {
        let end = rx.recv(&mut got).unwrap_err();
        assert!(expected(&end), "{end:?}");
    }
    let end = rx.try_recv(&mut got).unwrap_err();
    assert!(expected(&end), "{end:?}");
}

fn receive_three(rx: &mut dyn Receiver) {
    let mut got = Vec::new();
    for index in 0..3 {
        rx.recv(&mut got).unwrap();
        assert_eq!(got, message(index, 20));
    }
}

fn send_three(tx: &mut dyn Sender) {
    for index in 0..3 {
        tx.send(&message(index, 20)).unwrap();
    }
}

fn sender_closes(setup: Setup) -> Cell {
    let (mut rx, mut peer) = child_sends(setup, "three and close");
    receive_three(&mut *rx);
    peer.hear("CLOSED");
    assert_end(&mut *rx, |end| matches!(end, RecvError::Closed));
    rx.close();
    assert_end(&mut *rx, |end| matches!(end, RecvError::Closed));
    peer.kill();
    OK
}

fn receiver_closes(setup: Setup) -> Cell {
    let (mut tx, mut peer) = child_receives(setup, "three and close");
    send_three(&mut *tx);
    peer.hear("CLOSED");
    if let channel::Notice::Within(time) = tx.capabilities().notices {
        // So that it is noticed while there is room for more.
        let began = Instant::now();
        common::until(|| began.elapsed() > time);
    }
    let end = send_to_the_end(&mut *tx);
    assert!(matches!(end, SendError::Closed), "{end:?}");
    let end = tx.send(b"again").unwrap_err();
    assert!(matches!(end, SendError::Closed), "{end:?}");
    tx.close();
    let end = tx.send(b"again").unwrap_err();
    assert!(matches!(end, SendError::Closed), "{end:?}");
    peer.kill();
    OK
}

/// Sends until it no longer works.
fn send_to_the_end(tx: &mut dyn Sender) -> SendError {
    loop {
        if let Err(error) = tx.send(b"more") {
            return error;
        }
    }
}

fn sender_killed(setup: Setup) -> Cell {
    let (mut rx, mut peer) = child_sends(setup, "three and stay");
    receive_three(&mut *rx);
    // Blocked while it dies.
    let blocked = common::this_thread();
    let killer = std::thread::spawn(move || {
        common::until(|| common::sleeps(blocked));
        peer.kill();
    });
    assert_end(&mut *rx, |end| matches!(end, RecvError::PeerDied));
    killer.join().unwrap();
    OK
}

fn receiver_killed(setup: Setup) -> Cell {
    let (mut tx, mut peer) = child_receives(setup, "three and stay");
    send_three(&mut *tx);
    peer.hear("STAYING");
    // Full, or about to be, while it dies.
    let blocked = common::this_thread();
    let killer = std::thread::spawn(move || {
        common::until(|| common::sleeps(blocked));
        peer.kill();
    });
    let end = send_to_the_end(&mut *tx);
    killer.join().unwrap();
    assert!(matches!(end, SendError::PeerDied), "{end:?}");
    let end = tx.send(b"again").unwrap_err();
    assert!(matches!(end, SendError::PeerDied), "{end:?}");
    OK
}

/// Killed while it sends: what arrives is whole, and a prefix of what it sent.
fn sender_killed_in_the_middle(setup: Setup) -> Cell {
    for round in 0..5 {
        let (mut rx, mut peer) = child_sends(setup, "endless");
        let mut got = Vec::new();
        let mut index = 0;
        let killed_at = 3 + round * 7;
        let end = loop {
            match rx.recv(&mut got) {
                Ok(()) => {
                    let size = endless_size(index, rx.capabilities().max_message);
                    assert!(got == message(index, size), "message {index}");
                    index += 1;
                }
                Err(end) => break end,
            }
            if index == killed_at {
                peer.kill();
            }
        };
        assert!(matches!(end, RecvError::PeerDied), "{end:?}");
        assert!(index >= killed_at);
    }
    OK
}

fn endless_size(index: u64, max: usize) -> usize {
    (Random(index).next() % (max as u64).min(40_000)) as usize
}

fn many_senders(setup: Setup) -> Cell {
    let Setup::Named(template) = setup else {
        // One descriptor, inherited by one child: their sharing is tested with the pipe by /proc
        // and by path.
        return many_inherited(setup);
    };
    let endpoint = fresh(template);
    let mut rx = endpoint.parse::<Endpoint>().unwrap().receiver().unwrap();
    if !rx.capabilities().many_senders {
        let mut first = Peer::start(&endpoint, "send", "three and stay", Stdio::null());
        receive_three(&mut *rx);
        for _ in 0..2 {
            let mut other = Peer::start(&endpoint, "send", "three and stay", Stdio::null());
            other.hear("ROLE TAKEN");
        }
        first.kill();
        drop(rx); // after it, so that somebody is left to remove the name
        return REFUSED;
    }
    let peers: Vec<Peer> = (0..3)
        .map(|who| Peer::start(&endpoint, "send", &format!("mark {who}"), Stdio::null()))
        .collect();
    receive_marked(&mut *rx, 3);
    for peer in peers {
        peer.succeed();
    }
    OK
}

fn many_inherited(setup: Setup) -> Cell {
    if matches!(setup, Setup::SocketPair) {
        let (tx, _rx) = channel::socket::pair().unwrap();
        assert!(!tx.capabilities().many_senders);
        return REFUSED; // there is one connection, and one end of it
    }
    let (fd, mut rx, endpoint): (OwnedFd, Box<dyn Receiver>, _) = match setup {
        Setup::Semaphore => {
            let (tx, rx) = channel::semaphore::pair(Default::default()).unwrap();
            let fd = tx.as_fd().unwrap().try_clone_to_owned().unwrap();
            (fd, Box::new(rx), "sem on stdin")
        }
        _ => {
            let (tx, rx) = channel::pipe::pair().unwrap();
            (tx.into(), Box::new(rx), "pipe:?fd=0")
        }
    };
    let peers: Vec<Peer> = (0..3)
        .map(|who| {
            let stdin = fd.try_clone().unwrap().into();
            Peer::start(endpoint, "send", &format!("mark {who}"), stdin)
        })
        .collect();
    drop(fd);
    receive_marked(&mut *rx, 3);
    for peer in peers {
        peer.succeed();
    }
    OK
}

const MARKS: u64 = 200;

fn mark_size(index: u64, max: usize) -> usize {
    // Some are longer than one piece, so that pieces of several senders mix.
    let size = if index.is_multiple_of(10) { 9000 } else { 40 };
    size.min(max - 32)
}

fn send_marks(tx: &mut dyn Sender, who: u64) {
    for index in 0..MARKS {
        let size = mark_size(index, tx.capabilities().max_message);
        let mut text = format!("{who} {index} {size} ").into_bytes();
        text.extend(message(who << 32 | index, size));
        tx.send(&text).unwrap();
    }
}

fn check_mark(got: &[u8], counts: &mut [u64; 3]) {
    let mut words = got.splitn(4, |&byte| byte == b' ');
    let mut number = || -> u64 {
        let word = std::str::from_utf8(words.next().unwrap()).unwrap();
        word.parse().unwrap()
    };
    let (who, index, size) = (number(), number(), number());
    assert_eq!(counts[who as usize], index, "order of sender {who}");
    counts[who as usize] += 1;
    assert!(words.next().unwrap() == message(who << 32 | index, size as usize));
}

fn receive_marked(rx: &mut dyn Receiver, senders: usize) {
    let mut counts = [0u64; 3];
    let mut got = Vec::new();
    // Those who had come by then may all have left, and another come yet.
    let for_now = |error: &RecvError| matches!(error, RecvError::Closed);
    while counts.iter().sum::<u64>() < MARKS * senders as u64 {
        outlast(for_now, || rx.recv(&mut got));
        check_mark(&got, &mut counts);
    }
}

fn priorities(setup: Setup) -> Cell {
    let (tx, mut peer) = child_receives(setup, "idle");
    let priorities = tx.capabilities().priorities;
    peer.kill();
    drop(tx);
    if priorities == 1 {
        return REFUSED; // there is no way even to ask for one
    }
    let name = fresh("{}");
    let mut tx = channel::mqueue::Sender::open(&name, Default::default()).unwrap();
    let mut rx = channel::mqueue::Receiver::attach(&name).unwrap();
    for priority in [3, 1, 2, priorities - 1, 1] {
        tx.send_priority(&priority.to_le_bytes(), priority, channel::Patience::Now)
            .unwrap();
    }
    let mut got = Vec::new();
    for expected in [priorities - 1, 3, 2, 1, 1] {
        let priority = rx.recv_priority(&mut got, channel::Patience::Now).unwrap();
        assert_eq!(
            (priority, got.as_slice()),
            (expected, &expected.to_le_bytes()[..])
        );
    }
    let beyond = tx.send_priority(b"", priorities, channel::Patience::Now);
    assert!(matches!(beyond, Err(SendError::Os { .. })), "{beyond:?}");
    OK
}

/// After a death, a new process takes the dead one's place.
fn successor(setup: Setup) -> Cell {
    let Setup::Named(template) = setup else {
        return REFUSED; // the end went with the one who had inherited it
    };
    let endpoint = fresh(template);
    let mut rx = endpoint.parse::<Endpoint>().unwrap().receiver().unwrap();
    for _ in 0..2 {
        let mut peer = Peer::start(&endpoint, "send", "three and stay", Stdio::null());
        let mut got = Vec::new();
        for index in 0..3 {
            // A receiver that is told of the former one's death asks again.
            let former = |error: &RecvError| matches!(error, RecvError::PeerDied);
            outlast(former, || rx.recv(&mut got));
            assert_eq!(got, message(index, 20));
        }
        peer.kill();
    }
    assert_end(&mut *rx, |end| matches!(end, RecvError::PeerDied));
    drop(rx);
    // And a receiver's place.
    let endpoint = fresh(template);
    let mut tx = endpoint.parse::<Endpoint>().unwrap().sender().unwrap();
    for round in 0..2 {
        let mut peer = Peer::start(&endpoint, "recv", "three and stay", Stdio::null());
        for index in 0..3 {
            // So does a sender, until it has found its way to the new one.
            let former = |error: &SendError| round > 0 && matches!(error, SendError::PeerDied);
            outlast(former, || tx.send(&message(index, 20)));
        }
        peer.hear("STAYING");
        peer.kill();
        let end = send_to_the_end(&mut *tx);
        assert!(matches!(end, SendError::PeerDied), "{end:?}");
        if tx.capabilities().keeps_messages {
            // What was sent before the death was noticed is still there for the successor.
            let rx = endpoint.parse::<Endpoint>().unwrap().receiver().unwrap();
            let successor = std::thread::spawn(move || {
                let mut rx = rx;
                let mut got = Vec::new();
                while got != b"to the successor" {
                    rx.recv(&mut got).unwrap();
                }
                assert_end(&mut *rx, |end| matches!(end, RecvError::Closed));
            });
            let former = |error: &SendError| matches!(error, SendError::PeerDied);
            outlast(former, || tx.send(b"to the successor"));
            drop(tx);
            successor.join().unwrap();
            return OK;
        }
    }
    OK
}

fn duplex(setup: Setup) -> Cell {
    let (mut tx, mut there) = child_receives(setup, "echo to the other");
    // The way back is a second channel of the same kind, within this process and a thread: what a
    // duplex is made of is two one-way channels, each shown above between processes.
    tx.send(b"ping").unwrap();
    there.hear("ECHO ping");
    there.kill();
    let Setup::Named(template) = setup else {
        let (one, other) = match setup {
            Setup::SocketPair => {
                return duplex_of(
                    channel::socket::pair().unwrap(),
                    channel::socket::pair().unwrap(),
                );
            }
            _ => (
                channel::pipe::pair().unwrap(),
                channel::pipe::pair().unwrap(),
            ),
        };
        return duplex_of(one, other);
    };
    let pair = || {
        let endpoint: Endpoint = fresh(template).parse().unwrap();
        let rx = endpoint.receiver().unwrap();
        (endpoint.sender().unwrap(), rx)
    };
    duplex_of(pair(), pair())
}

fn duplex_of<S: Sender + 'static, R: Receiver + 'static>(one: (S, R), other: (S, R)) -> Cell {
    let (mut here, mut there) = channel::Duplex::pair(one, other);
    let echo = std::thread::spawn(move || {
        let mut got = Vec::new();
        while there.rx.recv(&mut got).is_ok() {
            there.tx.send(&got).unwrap();
        }
        there.close();
    });
    let mut got = Vec::new();
    for index in 0..100 {
        here.tx.send(&message(index, 50)).unwrap();
        here.rx.recv(&mut got).unwrap();
        assert_eq!(got, message(index, 50));
    }
    here.tx.close();
    assert_end(&mut here.rx, |end| matches!(end, RecvError::Closed));
    echo.join().unwrap();
    OK
}

fn one_processor(setup: Setup) -> Cell {
    let (mut rx, peer) = child_sends(setup, "run on one processor");
    // A thread's choice is its own, and this one ends here.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            stay_on_one_processor();
            receive_run(&mut *rx, |_| {});
        });
    });
    peer.succeed();
    OK
}

fn stay_on_one_processor() {
    stay_on(0);
}

fn stay_on(processor: usize) {
    let mut set = nix::sched::CpuSet::new();
    set.set(processor).unwrap();
    nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).unwrap();
}

fn two_processors(setup: Setup) -> Cell {
    if std::thread::available_parallelism().unwrap().get() < 2 {
        return "one CPU"; // there is nothing to be seen
    }
    let (mut rx, peer) = child_sends(setup, "run on another processor");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            stay_on(0);
            receive_run(&mut *rx, |_| {});
        });
    });
    peer.succeed();
    OK
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// How many descriptors a program that is started sees.
fn inherited_by_a_program() -> usize {
    let seen = std::process::Command::new("ls")
        .arg("/proc/self/fd")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&seen.stdout).lines().count()
}

/// No descriptor is left when both ends are closed, by whichever end first, or by death.
fn descriptors_come_back(setup: Setup) -> Cell {
    let before = descriptors();
    let (mut rx, peer) = child_sends(setup, "three and leave");
    receive_three(&mut *rx);
    peer.succeed();
    drop(rx);
    assert_eq!(descriptors(), before);
    let (mut tx, mut peer) = child_receives(setup, "three and stay");
    send_three(&mut *tx);
    peer.hear("STAYING");
    peer.kill();
    drop((tx, peer));
    assert_eq!(descriptors(), before);
    OK
}

/// No descriptor is inherited by a program that is started meanwhile.
fn nothing_for_other_programs(setup: Setup) -> Cell {
    let inherited = inherited_by_a_program();
    let (mut rx, peer) = child_sends(setup, "three and leave");
    receive_three(&mut *rx);
    assert_eq!(inherited_by_a_program(), inherited);
    peer.succeed();
    drop(rx);
    let (mut tx, peer) = child_receives(setup, "three and leave");
    send_three(&mut *tx);
    assert_eq!(inherited_by_a_program(), inherited);
    peer.succeed();
    OK
}

/// A child that was forked with an end in its hands and drops it, or ends, is no reason for anybody to
/// believe that somebody has left or died.
fn a_forked_child_disturbs_nobody(setup: Setup) -> Cell {
    let (mut rx, peer) = child_sends(setup, "run");
    let mut slot = Some(rx);
    fork_and_drop(&mut slot, true);
    rx = slot.take().unwrap();
    let mut got = Vec::new();
    rx.recv(&mut got).unwrap();
    slot = Some(rx);
    fork_and_drop(&mut slot, false);
    rx = slot.take().unwrap();
    for index in 1..RUN {
        rx.recv(&mut got).unwrap();
        assert!(
            got == message(index, run_size(index, 64)),
            "message {index}"
        );
    }
    assert_end(&mut *rx, |end| matches!(end, RecvError::Closed));
    peer.succeed();
    drop(rx);
    let (mut tx, peer) = child_receives(setup, "run");
    for index in 0..RUN {
        tx.send(&message(index, run_size(index, 64))).unwrap();
        if index % 1000 == 500 {
            let mut slot = Some(tx);
            fork_and_drop(&mut slot, index == 500);
            tx = slot.take().unwrap();
        }
    }
    drop(tx);
    peer.succeed();
    OK
}

fn fork_and_drop<T>(end: &mut Option<T>, properly: bool) {
    // SAFETY: the child drops what it was given, which is made for that, and leaves.
    let forked = unsafe { libc::fork() };
    if forked == 0 {
        if properly {
            drop(end.take());
        }
        // SAFETY: ends the process without running anything of the parent's.
        unsafe { libc::_exit(0) };
    }
    assert!(forked > 0);
    let mut status = 0;
    // SAFETY: `status` is writable.
    assert_eq!(unsafe { libc::waitpid(forked, &mut status, 0) }, forked);
    assert_eq!(status, 0);
}

/// Both ends are killed. A new pair under the same name finds nothing but, where messages are kept, those
/// that were not taken; and when it leaves, the name is gone.
fn names_survive_nobody(setup: Setup) -> Cell {
    let Setup::Named(template) = setup else {
        // Nothing has a name, which `what_is_left` sees.
        return related(setup);
    };
    let endpoint = fresh(template);
    let mut receiver = Peer::start(&endpoint, "recv", "three and stay", Stdio::null());
    receiver.hear("READY");
    let mut sender = Peer::start(&endpoint, "send", "three and stay", Stdio::null());
    receiver.hear("STAYING");
    sender.kill();
    receiver.kill();
    let parsed: Endpoint = endpoint.parse().unwrap();
    let mut rx = parsed.receiver().unwrap();
    let peer = Peer::start(&endpoint, "send", "three and leave", Stdio::null());
    // Until the new one is there it may be told of the dead one.
    let mut got = Vec::new();
    common::until(|| !matches!(rx.recv(&mut got), Err(RecvError::PeerDied)));
    assert_eq!(got, message(0, 20));
    for index in 1..3 {
        rx.recv(&mut got).unwrap();
        assert_eq!(got, message(index, 20));
    }
    peer.succeed();
    assert_end(&mut *rx, |end| matches!(end, RecvError::Closed));
    drop(rx);
    OK
}

/// The files, sockets and queues with a name of ours; they are removed.
fn what_is_left() -> Vec<String> {
    let prefix = prefix();
    let mut left = Vec::new();
    // A queue or a buffer in which messages wait for a receiver stays: here, those sent to one that
    // was killed. Who takes the last of them and leaves removes it.
    static SWEPT: AtomicU32 = AtomicU32::new(0);
    let names = NAMES.load(Ordering::Relaxed);
    for number in SWEPT.swap(names, Ordering::Relaxed)..names {
        let name = format!("{prefix}{number}");
        let ring = |name: &str| {
            let rx = channel::ring::Receiver::try_from(&ringway::spsc::attach(name).ok()?);
            Some(Box::new(rx.ok()?) as Box<dyn Receiver>)
        };
        let jobs = |name: &str| {
            let rx = channel::ring::Receiver::try_from(&ringway::mpmc::attach(name).ok()?);
            Some(Box::new(rx.ok()?) as Box<dyn Receiver>)
        };
        let prices = |name: &str| {
            let rx = ringway::broadcast::attach(name)
                .ok()?
                .subscriber_from(Start::Oldest);
            let rx = channel::ring::Receiver::from(rx.ok()?);
            Some(Box::new(rx) as Box<dyn Receiver>)
        };
        let kept: [Option<Box<dyn Receiver>>; 7] = [
            ring(&name),
            ring(&format!("{name}.auto")),
            jobs(&name),
            prices(&name),
            channel::mqueue::Receiver::attach(&name)
                .ok()
                .map(|rx| Box::new(rx) as _),
            channel::semaphore::Receiver::attach(&name)
                .ok()
                .map(|rx| Box::new(rx) as _),
            channel::semaphore::Receiver::attach(&format!("{name}.auto"))
                .ok()
                .map(|rx| Box::new(rx) as _),
        ];
        for mut rx in kept.into_iter().flatten() {
            let mut got = Vec::new();
            // Of two who leave a ring at once neither may be the last; the next one replaces it.
            let is_ring = ["ring", "mpmc", "bcast"].contains(&rx.capabilities().mechanism);
            if rx.try_recv(&mut got).is_err() && !is_ring {
                left.push(name.clone());
            }
            while rx.try_recv(&mut got).is_ok() {}
        }
    }
    for directory in ["/tmp", "/dev/shm"] {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().contains(&prefix) {
                std::fs::remove_file(&path).unwrap();
                left.push(path.display().to_string());
            }
        }
    }
    left
}

/// The other process of all the tests above.
#[test]
fn child_process() {
    let Some(task) = task() else { return };
    if let Ok(path) = std::env::var("RINGWAY_TEST_PASSED") {
        take_passed(&path);
    }
    let (side, rest) = task.split_once(' ').unwrap();
    let (script, endpoint) = rest.rsplit_once(' ').unwrap();
    let semaphore = rest.strip_suffix(" sem on stdin");
    let (script, endpoint) = match rest.strip_suffix(" socket on stdin").or(semaphore) {
        Some(script) => (script, None),
        None => (script, Some(endpoint.parse::<Endpoint>().unwrap())),
    };
    let inherited = || {
        std::os::fd::AsFd::as_fd(&std::io::stdin())
            .try_clone_to_owned()
            .unwrap()
    };
    let _dog = watchdog(100);
    if script == "later" {
        note_usr1();
    }
    if side == "send" {
        let opened = match endpoint {
            Some(endpoint) => endpoint.sender(),
            None if semaphore.is_some() => channel::semaphore::Sender::from_fd(inherited())
                .map(|tx| Box::new(tx) as Box<dyn Sender>),
            None => Ok(Box::new(channel::socket::Sender::from_fd(inherited())) as Box<dyn Sender>),
        };
        if let Err(ringway::Error::RoleTaken { .. }) = opened {
            return println!("\nROLE TAKEN");
        }
        let tx = opened.unwrap();
        close_stdin();
        println!("\nREADY");
        send_script(script, tx);
    } else {
        let rx = match endpoint {
            Some(endpoint) => endpoint.receiver().unwrap(),
            None if semaphore.is_some() => {
                Box::new(channel::semaphore::Receiver::from_fd(inherited()).unwrap())
            }
            None => Box::new(channel::socket::Receiver::from_fd(inherited())),
        };
        close_stdin();
        println!("\nREADY");
        receive_script(script, rx);
    }
}

/// The channel's end has its own descriptor by now.
fn close_stdin() {
    let null = std::fs::File::open("/dev/null").unwrap();
    // SAFETY: two open descriptors.
    unsafe { libc::dup2(null.as_raw_fd(), 0) };
}

fn stay() -> ! {
    loop {
        std::thread::park();
    }
}

fn send_script(script: &str, mut tx: Box<dyn Sender>) {
    match script {
        "sizes" => send_sizes(&mut *tx),
        "run" => send_run(&mut *tx),
        "short ones" => (0..SHORT).for_each(|index| tx.send(&short(index)).unwrap()),
        "run on another processor" => {
            stay_on(1);
            send_run(&mut *tx);
        }
        "storm" => {
            start_storm();
            send_run(&mut *tx);
        }
        "run on one processor" => {
            stay_on_one_processor();
            send_run(&mut *tx);
        }
        "idle" => stay(),
        "three and close" => {
            send_three(&mut *tx);
            tx.close();
            println!("\nCLOSED");
            stay();
        }
        "three and stay" => {
            send_three(&mut *tx);
            stay();
        }
        "three and leave" => send_three(&mut *tx),
        "endless" => {
            for index in 0.. {
                let max = if index == 0 {
                    0
                } else {
                    tx.capabilities().max_message
                };
                let size = if index == 0 {
                    endless_first(&mut *tx)
                } else {
                    endless_size(index, max)
                };
                tx.send(&message(index, size)).unwrap();
            }
        }
        mark => send_marks(
            &mut *tx,
            mark.strip_prefix("mark ").unwrap().parse().unwrap(),
        ),
    }
}

/// The size of the first message, which must be the same before and after `auto` has agreed.
fn endless_first(tx: &mut dyn Sender) -> usize {
    // Agreeing needs a send; a message that is too large is refused, and agrees first.
    common::until(|| match tx.try_send(&vec![0; 17 << 20]) {
        Err(SendError::MessageTooLarge { .. }) => true,
        Err(SendError::Full) => false,
        other => panic!("{other:?}"),
    });
    endless_size(0, tx.capabilities().max_message)
}

fn receive_script(script: &str, mut rx: Box<dyn Receiver>) {
    match script {
        "sizes" => receive_sizes(&mut *rx),
        "run" => receive_run(&mut *rx, |_| {}),
        "storm" => {
            start_storm();
            receive_run(&mut *rx, |_| {});
        }
        "idle" => stay(),
        "later" => {
            // `auto` agrees at the first receive.
            let mut got = Vec::new();
            if rx.capabilities().mechanism == "auto" {
                rx.recv(&mut got).unwrap();
                println!("\nFIRST");
            }
            wait_for_usr1();
            let mut index = u64::from(!got.is_empty());
            loop {
                rx.recv(&mut got).unwrap();
                if got.starts_with(b"accepted ") {
                    break;
                }
                assert!(got == message(index, got.len()), "message {index}");
                index += 1;
            }
            let text = String::from_utf8(got.clone()).unwrap();
            assert!(
                text.starts_with(&format!("accepted {index} ")),
                "{text} but {index}"
            );
            assert_end(&mut *rx, |end| matches!(end, RecvError::Closed));
            println!("\nCOUNTED");
        }
        "three and close" => {
            receive_three(&mut *rx);
            rx.close();
            println!("\nCLOSED");
            stay();
        }
        "three and stay" => {
            receive_three(&mut *rx);
            println!("\nSTAYING");
            stay();
        }
        "three and leave" => receive_three(&mut *rx),
        "echo to the other" => {
            let mut got = Vec::new();
            rx.recv(&mut got).unwrap();
            println!("\nECHO {}", String::from_utf8_lossy(&got));
            stay();
        }
        other => panic!("{other}"),
    }
}

extern "C" fn nothing(_: i32) {}

/// Interrupts whatever this process does, a thousand times a second.
fn start_storm() {
    // SAFETY: a handler that does nothing, installed without SA_RESTART, and a timer.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut());
        let every = libc::timeval {
            tv_sec: 0,
            tv_usec: 1000,
        };
        let timer = libc::itimerval {
            it_interval: every,
            it_value: every,
        };
        libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut());
    }
}

fn note_usr1() {
    // SAFETY: as in `start_storm`.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count_usr1 as extern "C" fn(i32) as usize;
        libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut());
    }
}

static USR1: AtomicU32 = AtomicU32::new(0);

extern "C" fn count_usr1(_: i32) {
    USR1.store(1, Ordering::Release);
}

fn wait_for_usr1() {
    common::until(|| USR1.load(Ordering::Acquire) == 1);
}
