//! What is fuzzed, as functions of bytes. `main.rs` has libFuzzer call them; `tests/images.rs` calls them with
//! seeded random bytes, as part of the ordinary tests.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::time::Duration;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use ringway::channel::{self, Patience, Receiver as _};
use ringway::control::{Command, Server};
use ringway::observe::Observer;
use ringway::wait::WaitStrategy;
use ringway::{Endpoint, RecvError, broadcast, mpmc, spsc};

/// A target, by name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: &[Target] = &[
    ("attach", attach),
    ("receive", receive),
    ("control", control),
    ("endpoint", endpoint),
    ("frames", frames),
];

/// Inputs to begin with, for a target.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "attach" => images().into_iter().map(|image| image.to_vec()).collect(),
        // A few calls of each kind, and some words written between them.
        "receive" => (0..KINDS)
            .map(|kind| {
                let mut seed = vec![kind];
                for i in 0..24u8 {
                    seed.extend([i % 12, 8 * i, 0, i]);
                }
                seed
            })
            .collect(),
        "control" => [
            "stop",
            "@3 17 ping",
            "@0 1 set key value",
            "\n@1 2 stats\n\nlog on\n",
        ]
        .map(|line| line.as_bytes().to_vec())
        .to_vec(),
        "endpoint" => [
            "ring:orders?capacity=1MiB",
            "mpmc:jobs?slots=1024&slot=256",
            "fifo:/run/x",
            "mq:x?depth=2",
            "auto:a,pipe:,signal:",
        ]
        .map(|line| line.as_bytes().to_vec())
        .to_vec(),
        _ => vec![
            vec![0, 5, 0, 0, 0, b'h', b'e', b'l', b'l', b'o'],
            [&[1, 255, 255, 255, 255][..], &[7; 300]].concat(),
            vec![2; 64],
        ],
    }
}

/// A sealed memory file that holds `image`.
pub fn memory(image: &[u8]) -> OwnedFd {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let fd = memfd_create("fuzzed", flags).expect("memfd_create");
    let file = File::from(fd.try_clone().expect("dup"));
    file.write_all_at(image, 0).expect("write");
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    fcntl(fd.as_fd(), FcntlArg::F_ADD_SEALS(seals)).expect("seal");
    fd
}

fn config() -> (spsc::Config, mpmc::Config, broadcast::Config) {
    (
        spsc::Config::default().capacity(256),
        mpmc::Config::default().slots(4).participants(3),
        broadcast::Config::default().capacity(256).subscribers(3),
    )
}

/// One small ring of each kind, with a message in it, as bytes.
fn images() -> Vec<Vec<u8>> {
    let (spsc, mpmc, broadcast) = config();
    let mut images = Vec::new();
    let mut take = |fd: &dyn AsFd| {
        let file = File::from(fd.as_fd().try_clone_to_owned().expect("dup"));
        let mut image = vec![0; file.metadata().expect("stat").len() as usize];
        file.read_exact_at(&mut image, 0).expect("read");
        images.push(image);
    };
    for wait in WaitStrategy::ALL {
        let ring = spsc::Ring::anonymous(spsc.clone().wait(wait)).expect("a ring");
        ring.producer()
            .expect("a producer")
            .send(b"seed")
            .expect("room");
        take(&ring);
    }
    for policy in [mpmc::OnDeath::Redeliver, mpmc::OnDeath::Drop] {
        let ring = mpmc::Ring::anonymous(mpmc.clone().on_death(policy)).expect("a ring");
        ring.producer()
            .expect("a producer")
            .send(b"seed")
            .expect("room");
        take(&ring);
    }
    take(&mpmc::items::Ring::anonymous(mpmc).expect("a ring"));
    for policy in [broadcast::Policy::Lossless, broadcast::Policy::Lossy] {
        let ring = broadcast::Ring::anonymous(broadcast.clone().policy(policy)).expect("a ring");
        ring.producer()
            .expect("a producer")
            .send(b"seed")
            .expect("room");
        take(&ring);
    }
    images
}

/// Any file at all, taken for a ring of each kind, in every role.
pub fn attach(data: &[u8]) {
    let mut image = data.to_vec();
    // Nearly all lengths are refused at once: whole pages are more interesting.
    if image.len().is_multiple_of(2) {
        image.resize(image.len().next_multiple_of(4096).min(1 << 16), 0);
    }
    let fd = memory(&image);
    if let Ok(observer) = observe(&fd) {
        let _ = observer
            .snapshot()
            .map(|snapshot| snapshot.participants.len());
    }
    let fd = || fd.try_clone().expect("dup");
    let mut buffer = Vec::new();
    if let Ok(ring) = spsc::Ring::from_fd(fd()) {
        let _ = (ring.stats(), ring.capacity());
        let (tx, rx) = (ring.producer(), ring.consumer());
        if let Ok(mut rx) = rx {
            for _ in 0..8 {
                let _ = rx.try_recv().map(|message| sum(&message));
                let _ = rx.try_recv_into(&mut buffer);
            }
        }
        if let Ok(mut tx) = tx {
            let _ = (0..8).map(|_| tx.try_send(b"fuzz")).count();
        }
    }
    if let Ok(ring) = mpmc::Ring::from_fd(fd()) {
        let _ = (
            ring.len(),
            ring.producer().map(|mut tx| tx.try_send(b"fuzz")),
        );
        if let Ok(mut rx) = ring.consumer() {
            let _ = (0..8)
                .map(|_| rx.try_recv().map(|message| sum(&message)))
                .count();
        }
    }
    if let Ok(ring) = mpmc::items::Ring::from_fd(fd()) {
        let _ = ring.producer().map(|mut tx| tx.try_send(7));
        let _ = ring.consumer().map(|mut rx| rx.try_recv());
    }
    if let Ok(ring) = broadcast::Ring::from_fd(fd()) {
        let _ = ring.producer().map(|mut tx| tx.try_send(b"fuzz"));
        if let Ok(mut rx) = ring.subscriber_from(broadcast::Start::Oldest) {
            let _ = (0..8).map(|_| rx.try_recv_into(&mut buffer)).count();
        }
    }
    let _ = channel::semaphore::Receiver::from_fd(fd()).map(|mut rx| rx.try_recv(&mut buffer));
}

/// One who only looks on.
fn observe(fd: &dyn AsFd) -> Result<Observer, ringway::Error> {
    let number = fd.as_fd().as_raw_fd();
    Observer::open(&format!("/proc/self/fd/{number}"))
}

fn sum(bytes: &[u8]) -> u64 {
    std::hint::black_box(bytes.iter().map(|byte| u64::from(*byte)).sum())
}

const KINDS: u8 = 5;

/// A ring in use, whose memory changes between one call and the next: the first byte says which kind, then
/// four bytes at a time say what is called (or, mostly, written where).
pub fn receive(data: &[u8]) {
    let Some((&kind, script)) = data.split_first() else {
        return;
    };
    let (spsc, mpmc, broadcast) = config();
    let wait = [WaitStrategy::Adaptive, WaitStrategy::Spin][usize::from(kind / KINDS % 2)];
    match kind % KINDS {
        0 => {
            let ring = spsc::Ring::anonymous(spsc.wait(wait)).expect("a ring");
            let (mut tx, mut rx) = (ring.producer().expect("tx"), ring.consumer().expect("rx"));
            let mut buffer = Vec::new();
            play(&ring, script, |call, len| match call {
                0 => drop(tx.try_send(&[7; 300][..len])),
                1 => drop(tx.try_reserve(len).map(|room| room.commit_len(len / 2))),
                2 => drop(tx.try_reserve(len).map(drop)),
                3 => drop(rx.try_recv().map(|message| sum(&message))),
                4 => drop(rx.try_recv_into(&mut buffer)),
                5 => rx
                    .drain(len % 8)
                    .for_each(|message| assert!(sum(&message) < u64::MAX)),
                6 => std::mem::forget(rx.try_recv()),
                7 => drop(rx.recv_timeout(Duration::from_micros(1)).map(|m| sum(&m))),
                8 => drop(tx.send_timeout(&[7; 300][..len], Duration::from_micros(1))),
                9 if tx.try_send(&[1; 8]).is_ok() => drop(ring.producer().map(drop)),
                _ => drop(ring.stats()),
            });
            drop((tx, rx));
            drop((ring.producer(), ring.consumer()));
        }
        1 | 2 => {
            let policy =
                [mpmc::OnDeath::Redeliver, mpmc::OnDeath::Drop][usize::from(kind % KINDS - 1)];
            let ring = mpmc::Ring::anonymous(mpmc.wait(wait).on_death(policy)).expect("a ring");
            let (mut tx, mut rx) = (ring.producer().expect("tx"), ring.consumer().expect("rx"));
            play(&ring, script, |call, len| match call {
                0 => drop(tx.try_send(&[7; 300][..len])),
                1 => drop(tx.try_reserve(len % 48).map(|room| room.commit())),
                2 => std::mem::forget(tx.try_reserve(len % 48)),
                3 => drop(rx.try_recv().map(|message| sum(&message))),
                4 => drop(rx.drain(len % 8).map(|mut drain| {
                    while let Ok(Some(message)) = drain.next_message() {
                        sum(message);
                    }
                })),
                5 => drop(rx.drain(len % 8).map(drop)),
                6 => std::mem::forget(rx.try_recv()),
                7 => drop(rx.recv_timeout(Duration::from_micros(1)).map(|m| sum(&m))),
                8 => drop(tx.send_timeout(b"x", Duration::from_micros(1))),
                9 => drop(ring.producer().map(drop)),
                _ => drop(ring.len()),
            });
        }
        3 => {
            let ring = mpmc::items::Ring::anonymous(mpmc.wait(wait)).expect("a ring");
            let (mut tx, mut rx) = (ring.producer().expect("tx"), ring.consumer().expect("rx"));
            play(&ring, script, |call, len| match call % 4 {
                0 => drop(tx.try_send(len as u64)),
                1 => drop(rx.try_recv()),
                2 => drop(rx.recv_timeout(Duration::from_micros(1))),
                _ => drop(tx.send_timeout(7, Duration::from_micros(1))),
            });
        }
        _ => {
            let policy = [broadcast::Policy::Lossless, broadcast::Policy::Lossy][script.len() % 2];
            let ring =
                broadcast::Ring::anonymous(broadcast.wait(wait).policy(policy)).expect("a ring");
            let mut tx = ring.producer().expect("tx");
            let mut rx = ring.subscriber_from(broadcast::Start::Oldest).expect("rx");
            let mut buffer = Vec::new();
            play(&ring, script, |call, len| match call {
                0 | 1 => drop(tx.try_send(&[7; 300][..len])),
                2 => drop(tx.try_reserve(len).map(|room| room.commit_len(len / 2))),
                3 | 4 => drop(rx.try_recv_into(&mut buffer)),
                5 => drop(rx.try_recv().map(|message| sum(&message))),
                6 => std::mem::forget(rx.try_recv()),
                7 => drop(rx.recv_into_timeout(&mut buffer, Duration::from_micros(1))),
                8 => drop(tx.send_timeout(&[7; 300][..len], Duration::from_micros(1))),
                9 => drop(
                    ring.subscriber_from(broadcast::Start::Last(len as u64))
                        .map(drop),
                ),
                _ => drop((ring.sent(), ring.living_subscribers())),
            });
        }
    }
}

/// Does what `script` says: calls, and writes to the ring's memory.
fn play(ring: &dyn AsFd, script: &[u8], mut call: impl FnMut(u8, usize)) {
    const EDGES: [u64; 16] = [
        0,
        1,
        2,
        3,
        8,
        1 << 31,
        1 << 32,
        1 << 53,
        1 << 54,
        1 << 61,
        1 << 62,
        1 << 63,
        u64::MAX,
        u64::MAX - 1,
        u64::MAX - 7,
        u64::MAX << 32,
    ];
    let file = File::from(ring.as_fd().try_clone_to_owned().expect("dup"));
    let total = file.metadata().expect("stat").len();
    let observer = observe(ring).expect("a ring");
    for step in script.chunks_exact(4).take(500) {
        let (what, low, high, value) = (step[0], step[1], step[2], step[3]);
        if what == 11 {
            let _ = observer
                .snapshot()
                .map(|snapshot| snapshot.participants.len());
            continue;
        }
        if what < 11 {
            call(what, usize::from(low) % 121);
            continue;
        }
        let offset = 8 * u64::from(u16::from_le_bytes([low, high])) % total;
        let mut word = [0; 8];
        file.read_exact_at(&mut word, offset).expect("read");
        let now = u64::from_le_bytes(word);
        let new = match what % 6 {
            0 => EDGES[usize::from(value % 16)],
            1 => now.wrapping_add(i64::from(value as i8) as u64),
            2 => now ^ 1 << (value % 64),
            3 => u64::from(value) << 32 | 1,
            4 => now.wrapping_add(u64::from(value) << 56),
            _ => u64::from_le_bytes([value; 8]),
        };
        file.write_all_at(&new.to_le_bytes(), offset)
            .expect("write");
    }
}

/// Lines for a server, as any client may write them, and one command by itself.
pub fn control(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(command) = text.parse::<Command>()
    {
        let again: Command = command
            .to_string()
            .parse()
            .expect("what was written is read");
        assert_eq!(again.to_string(), command.to_string());
    }
    // One a call, so that it takes its FIFO with it.
    let name = format!("fuzz-{}", std::process::id());
    let mut server = Server::bind(&name).expect("a server");
    let mut fifo = File::options()
        .write(true)
        .open(server.address())
        .expect("its FIFO");
    for part in data.chunks(4096) {
        let _ = fifo.write_all(part);
        while let Some(request) = server.next() {
            request.reply(Ok("fuzz"));
        }
    }
}

/// One line of text, for a channel.
pub fn endpoint(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(endpoint) = text.parse::<Endpoint>() {
        let written = endpoint.to_string();
        let again: Endpoint = written.parse().expect("what was written is read");
        assert_eq!(again.to_string(), written);
    }
    let _ = text.parse::<WaitStrategy>();
}

/// A stream of bytes, taken for messages: of a pipe, a socket, or the input of a stage.
pub fn frames(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else {
        return;
    };
    let bytes = &bytes[..bytes.len().min(60_000)];
    let mut buffer = Vec::new();
    if kind % 3 == 2 {
        let file = File::from(memory(bytes));
        static INPUT: Mutex<()> = Mutex::new(());
        let _one = INPUT.lock();
        // SAFETY: standard input is of no other use here.
        unsafe { libc::dup2(file.as_raw_fd(), 0) };
        if let Ok(mut input) = ringway::stage::input() {
            while input.recv().is_ok() {}
        }
        return;
    }
    let receive = |rx: &mut dyn channel::Receiver, buffer: &mut Vec<u8>| {
        for _ in 0..bytes.len() + 2 {
            match rx.recv_with(buffer, Patience::Now) {
                Ok(()) => drop(sum(buffer)),
                Err(RecvError::Corrupt { .. }) => {}
                Err(_) => break,
            }
        }
    };
    if kind % 3 == 0 {
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        writer.write_all(bytes).expect("room");
        drop(writer);
        if let Ok(mut rx) = channel::pipe::Receiver::from_fd(reader.into()) {
            receive(&mut rx, &mut buffer);
        }
    } else {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
        (&ours).write_all(bytes).expect("room");
        drop(ours);
        receive(
            &mut channel::socket::Receiver::from_fd(theirs.into()),
            &mut buffer,
        );
    }
}
