//! What a hostile peer can write or send that is worth a test of its own: each of these once crashed, hung
//! or misled an honest process, or would if the defence were not there. `tests/hostile.rs` writes at random.

use std::fs::File;
use std::io::{BufRead, BufReader, IoSlice, Write as _};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use ringway::channel::{self, Patience, Receiver as _, Sender as _};
use ringway::mpmc::OnDeath;
use ringway::wait::WaitStrategy;
use ringway::{Error, RecvError, SendError, broadcast, mpmc, spsc};

mod common;
use common::{Reaped, child, task, watchdog};

const SOON: Duration = Duration::from_millis(30);

/// The memory of a ring as a peer has it.
struct Memory {
    map: MmapRaw,
    file: File,
}

impl Memory {
    fn of(ring: &impl AsFd) -> Memory {
        let file = File::from(ring.as_fd().try_clone_to_owned().unwrap());
        let map = MmapOptions::new().map_raw(&file).unwrap();
        Memory { map, file }
    }

    fn word(&self, offset: u64) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.map.len() as u64);
        // SAFETY: inside the mapping and aligned; an atomic is valid whatever it holds.
        unsafe { &*self.map.as_mut_ptr().add(offset as usize).cast() }
    }

    fn set(&self, offset: u64, value: u64) {
        self.word(offset).store(value, Ordering::SeqCst);
    }

    /// Where the control words are, and the slots.
    fn places(&self) -> (u64, u64) {
        let get = |offset| self.word(offset).load(Ordering::Relaxed);
        let control = 2048 + (get(40) & 0xffff_ffff) * 128;
        (control, (control + get(48)).next_multiple_of(4096))
    }
}

const TAIL: u64 = 0;
const HEAD: u64 = 128;
const ALARM: u64 = 256;
const USED: u64 = 384;
/// Where the intents begin in the control words of an MPMC ring.
const INTENTS: u64 = 896;
const SLOT: u64 = 64;

fn small() -> mpmc::Config {
    mpmc::Config::default().slots(8).participants(4)
}

#[test]
fn a_message_adopted_by_a_participant_that_cannot_exist_is_nobodys() {
    let _watchdog = watchdog(60);
    let ring = mpmc::Ring::anonymous(small()).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    tx.send(b"forged").unwrap();
    let memory = Memory::of(&ring);
    let (control, slots) = memory.places();
    memory.set(control + USED, 4);
    memory.set(control + HEAD, 1);
    memory.set(control + INTENTS + 3 * 128 + 8, 1); // the last record names ticket 0
    memory.set(slots, 1 << 62 | 200 << 54); // ... which participant 200 has adopted
    memory.word(control + ALARM).fetch_add(1, Ordering::SeqCst);
    let message = rx.recv_timeout(SOON).unwrap();
    assert_eq!((&*message, message.redelivered()), (&b"forged"[..], true));
}

#[test]
fn cursors_at_every_boundary_are_refused_or_wrap_and_never_overflow() {
    let _watchdog = watchdog(120);
    let edges: Vec<u64> = [0, 1 << 31, 1 << 32, 1 << 53, 1 << 54, 1 << 62, 1 << 63]
        .into_iter()
        .flat_map(|edge: u64| (0..6).map(move |i| edge.wrapping_add(i).wrapping_sub(4)))
        .collect();
    let mut calls = 0;
    for policy in [OnDeath::Redeliver, OnDeath::Drop] {
        for &cursor in &edges {
            for shift in [0, 1, 8] {
                let ring = mpmc::Ring::anonymous(small().on_death(policy)).unwrap();
                let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
                let memory = Memory::of(&ring);
                let (control, slots) = memory.places();
                memory.set(control + HEAD, cursor);
                memory.set(control + TAIL, cursor.wrapping_add(shift));
                for i in 0..8u64 {
                    let ticket = cursor.wrapping_add(i);
                    // Free for writers, or ready for readers, as an honest slot would be there.
                    let word = ticket.wrapping_add(u64::from(i < 4));
                    memory.set(slots + (ticket & 7) * SLOT, word);
                }
                for record in 0..4 {
                    let at = control + INTENTS + record * 128;
                    memory.set(at, cursor << 10 | 1023);
                    memory.set(at + 8, cursor << 10 | 7);
                    memory.set(at + 16, u64::MAX);
                }
                for _ in 0..3 {
                    let _ = rx.try_recv().map(drop);
                    let _ = rx.drain(5).map(
                        |mut drain| {
                            while let Ok(Some(_)) = drain.next_message() {}
                        },
                    );
                    let _ = rx.drain(8).map(drop);
                    std::mem::forget(rx.try_recv());
                    let _ = tx.try_send(b"x");
                    let _ = tx.try_reserve(3).map(drop);
                    std::mem::forget(tx.try_reserve(3));
                    calls += 7;
                }
                let _ = rx.recv_timeout(Duration::from_millis(1)).map(drop);
                let _ = tx.send_timeout(b"x", Duration::from_millis(1));
                let _ = (ring.producer().map(drop), ring.consumer().map(drop));
                let _ = tx.close();
            }
        }
    }
    println!("{calls} calls at {} cursors", edges.len());
}

#[test]
fn a_slot_of_this_lap_that_is_neither_ready_nor_free_is_corrupt_and_ends_no_patience() {
    let _watchdog = watchdog(60);
    let ring = mpmc::Ring::anonymous(small()).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    let memory = Memory::of(&ring);
    let (_, slots) = memory.places();
    for flags in [1 << 63, 1 << 62, 1 << 60, 1 << 55] {
        memory.set(slots, 1 | flags); // ticket 0, ready, and more
        if flags != 1 << 63 {
            let error = rx.recv_timeout(SOON).unwrap_err();
            assert!(
                matches!(error, RecvError::Corrupt { .. }),
                "{flags:x}: {error:?}"
            );
        }
        memory.set(slots, flags); // ticket 0, free, and more
        let error = tx.send_timeout(b"x", SOON).unwrap_err();
        assert!(
            matches!(error, SendError::Corrupt { .. }),
            "{flags:x}: {error:?}"
        );
    }
}

#[test]
fn names_forged_for_everybody_cost_no_more_than_a_moment() {
    let _watchdog = watchdog(60);
    let config = mpmc::Config::default().slots(1024);
    let ring = mpmc::Ring::anonymous(config).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    let memory = Memory::of(&ring);
    let (control, slots) = memory.places();
    memory.set(control + USED, 255);
    memory.set(control + HEAD, 1024);
    memory.set(control + TAIL, 1024);
    for ticket in 0..1024 {
        memory.set(slots + ticket * SLOT, ticket + 1);
    }
    for record in 0..255 {
        for word in [8, 16] {
            memory.set(control + INTENTS + record * 128 + word, 1023);
        }
        if record > 2 {
            memory.set(2048 + record * 128, 5); // attached, generation 1
        }
    }
    // Every look at a message asks about 253 dead ones before it comes to one who lives.
    let token = (1 << 42) + (254 << 20) + 1;
    let lock = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: token,
        l_len: 1,
        l_pid: 0,
    };
    let path = format!("/proc/self/fd/{}", memory.file.as_raw_fd());
    let locks = File::options().read(true).write(true).open(path).unwrap();
    // SAFETY: F_OFD_SETLK reads `lock`.
    assert_eq!(0, unsafe {
        libc::fcntl(locks.as_raw_fd(), libc::F_OFD_SETLK, &lock)
    });
    memory.word(control + ALARM).fetch_add(1, Ordering::SeqCst);
    let error = rx.recv_timeout(SOON).unwrap_err();
    assert!(
        matches!(error, RecvError::TimedOut | RecvError::PeerDied),
        "{error:?}"
    );
    let error = tx.send_timeout(b"x", SOON).unwrap_err();
    assert!(
        matches!(error, SendError::TimedOut | SendError::PeerDied),
        "{error:?}"
    );
}

#[test]
fn a_header_with_any_word_at_a_boundary_is_refused_or_true() {
    let _watchdog = watchdog(120);
    let mut refused = 0;
    let rings: [&dyn AsFd; 4] = [
        &spsc::Ring::anonymous(spsc::Config::default().capacity(256)).unwrap(),
        &mpmc::Ring::anonymous(small()).unwrap(),
        &mpmc::items::Ring::anonymous(small()).unwrap(),
        &broadcast::Ring::anonymous(Default::default()).unwrap(),
    ];
    for ring in rings {
        let file = File::from(ring.as_fd().try_clone_to_owned().unwrap());
        let memory = Memory {
            map: MmapOptions::new().map_raw(&file).unwrap(),
            file,
        };
        for at in (0..104).step_by(8) {
            let kept = memory.word(at).load(Ordering::Relaxed);
            let bits = (0..64).map(|bit| kept ^ 1 << bit);
            let ends = (0..32).map(|i| 0u64.wrapping_sub(i));
            let halves = [0, u64::MAX >> 32, u64::MAX << 32, kept << 32, kept >> 32];
            for value in bits.chain(ends).chain(halves) {
                memory.set(at, value);
                let fd = || memory.file.try_clone().unwrap().into();
                let refusals = [
                    spsc::Ring::from_fd(fd()).is_err(),
                    mpmc::Ring::from_fd(fd()).is_err(),
                    mpmc::items::Ring::from_fd(fd()).is_err(),
                    broadcast::Ring::from_fd(fd()).is_err(),
                ];
                refused += refusals.iter().filter(|refused| **refused).count();
            }
            memory.set(at, kept);
        }
    }
    println!("{refused} refused");
}

#[test]
fn an_overwritten_semaphore_is_an_error_and_not_the_end_of_the_process() {
    let _watchdog = watchdog(60);
    let config = spsc::Config::default().wait(WaitStrategy::Semaphore);
    for value in [u64::MAX, 1, 0x8000_0000, 0x7fff_ffff] {
        let ring = spsc::Ring::anonymous(config.clone()).unwrap();
        let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
        let memory = Memory::of(&ring);
        for door in [1024, 1152] {
            (0..4).for_each(|i| memory.set(door + 8 * i, value));
        }
        let error = rx.recv_timeout(SOON).unwrap_err();
        assert!(error.to_string().contains("overwrote"), "{error}");
        // Publishing to one who sleeps wakes; it does without.
        tx.send(b"x").unwrap();
        while tx.try_send(&[0; 64]).is_ok() {}
        let error = tx.send_timeout(&[0; 64], SOON).unwrap_err();
        assert!(error.to_string().contains("overwrote"), "{error}");
        rx.drain(usize::MAX).for_each(drop);
        tx.send(b"x").unwrap();
    }
}

#[test]
fn a_buffer_of_semaphores_with_forged_words_is_corrupt_or_refused() {
    let _watchdog = watchdog(120);
    type Forge = fn(&Memory);
    let forges: [(&str, Forge); 5] = [
        ("positions at the end", |memory| {
            memory.set(264, u64::MAX - 2);
            memory.set(272, u64::MAX - 2);
        }),
        ("head beyond tail", |memory| memory.set(264, 1)),
        ("more than fits", |memory| memory.set(272, 1 << 40)),
        ("length", |memory| {
            memory.set(272, 100);
            memory.set(4096, u64::MAX);
        }),
        ("two thousand million tickets", |memory| {
            memory.set(64, 0x7fff_fff0)
        }),
    ];
    for (what, forge) in forges {
        let (mut tx, mut rx) = channel::semaphore::pair(Default::default()).unwrap();
        let memory = Memory::of(&tx.as_fd().unwrap());
        forge(&memory);
        let mut buffer = Vec::new();
        let received = rx.recv_with(&mut buffer, Patience::Within(SOON));
        let sent = tx.send_with(b"x", Patience::Within(SOON));
        match what {
            "two thousand million tickets" => assert!(sent.is_ok(), "{sent:?}"),
            "length" => assert!(matches!(received, Err(RecvError::Corrupt { .. }))),
            _ => {
                assert!(matches!(received, Err(RecvError::Corrupt { .. })), "{what}");
                assert!(matches!(sent, Err(SendError::Corrupt { .. })), "{what}");
            }
        }
    }
    // A file that says, truly, that it has room for nothing.
    for len in [1, 3, 15] {
        let (tx, _rx) = channel::semaphore::pair(Default::default()).unwrap();
        let mut image = vec![0; 4096 + len];
        let memory = Memory::of(&tx.as_fd().unwrap());
        memory.set(16, len as u64);
        for (i, word) in image[..4096].chunks_mut(8).enumerate() {
            let value = memory.word(8 * i as u64).load(Ordering::Relaxed);
            word.copy_from_slice(&value.to_ne_bytes());
        }
        let fd = memfd_create("forged", MFdFlags::MFD_CLOEXEC).unwrap();
        File::from(fd.try_clone().unwrap())
            .write_all(&image)
            .unwrap();
        let error = channel::semaphore::Sender::from_fd(fd).unwrap_err();
        assert!(matches!(error, Error::NotOurs { .. }), "{error}");
    }
}

#[test]
fn a_buffer_of_semaphores_that_goes_and_never_is_gone_is_not_waited_for_for_ever() {
    let _watchdog = watchdog(60);
    let name = format!("forged-{}", std::process::id());
    let mut rx = channel::semaphore::Receiver::open(&name, Default::default()).unwrap();
    let memory = Memory::of(&rx.as_fd().unwrap());
    let state = memory.word(24).load(Ordering::SeqCst);
    memory.set(24, state & !0xffff_ffff | 2); // GOING, and its receiver stays
    let error = channel::semaphore::Sender::attach(&name).unwrap_err();
    assert!(error.to_string().contains(&name), "{error}");
    memory.set(24, state);
    rx.close();
    let _ = std::fs::remove_file(format!("/dev/shm/ringway.{name}.semaphore"));
}

/// Sends `fds` as a ring is sent.
fn pass(fds: &[&dyn AsFd]) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd().as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let byte = [IoSlice::new(b"R")];
    sendmsg::<UnixAddr>(ours.as_raw_fd(), &byte, &rights, MsgFlags::empty(), None).unwrap();
    theirs
}

#[test]
fn descriptors_that_are_not_what_they_pass_for_are_refused() {
    let _watchdog = watchdog(60);
    // In a process of its own, where nobody else opens any.
    let status = child("other_process", "descriptors -").status().unwrap();
    assert!(status.success());
}

fn descriptors() {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let config = spsc::Config::default().wait(WaitStrategy::EventFd);
    let ring = spsc::Ring::anonymous(config).unwrap();
    // To write to a pipe without a reader kills; to read from an empty one waits for ever.
    let (reader, writer) = std::io::pipe().unwrap();
    let error = spsc::Ring::receive_over(&pass(&[&ring, &reader, &writer])).unwrap_err();
    assert!(error.to_string().contains("no event descriptor"), "{error}");
    // Memory that its sender can still cut short.
    let unsealed = memfd_create("forged", MFdFlags::MFD_ALLOW_SEALING).unwrap();
    let image = Memory::of(&spsc::Ring::anonymous(Default::default()).unwrap());
    let mut bytes = vec![0; image.map.len()];
    // SAFETY: the whole of the mapping, which nobody writes to now.
    unsafe {
        image
            .map
            .as_ptr()
            .copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len())
    };
    File::from(unsealed.try_clone().unwrap())
        .write_all(&bytes)
        .unwrap();
    let error = spsc::Ring::receive_over(&pass(&[&unsealed])).unwrap_err();
    assert!(error.to_string().contains("not sealed"), "{error}");
    assert!(spsc::Ring::receive_over(&pass(&[])).is_err());
    // A file with a name is as good as its owner.
    let path = std::env::temp_dir().join(format!("ringway-forged-{}", std::process::id()));
    std::fs::write(&path, &bytes).unwrap();
    let named = File::options().read(true).write(true).open(&path).unwrap();
    assert!(spsc::Ring::receive_over(&pass(&[&named])).is_ok());
    if common::root_for("to give a file away") {
        std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        let error = spsc::Ring::receive_over(&pass(&[&named])).unwrap_err();
        assert!(error.to_string().contains("not sealed"), "{error}");
    }
    std::fs::remove_file(path).unwrap();
    drop((ring, reader, writer, unsealed, image, named));
    assert_eq!(open(), before);
}

/// What other processes do: something with the ring of a name, whose memory is then taken away.
#[test]
fn other_process() {
    let Some(task) = task() else { return };
    let words: Vec<&str> = task.split(' ').collect();
    let name = words[1];
    let _watchdog = watchdog(60);
    match words[0] {
        "holes" => return holes(name),
        "descriptors" => return descriptors(),
        _ => {}
    }
    if words[2] == "guarded" {
        ringway::survive_truncation().unwrap();
    }
    let ready = || {
        println!("ready");
        std::io::stdout().flush().unwrap();
    };
    let mut buffer = Vec::new();
    let patience = Duration::from_secs(20);
    let error: String = match words[0] {
        "spsc-recv" => {
            let mut rx = spsc::attach(name).unwrap().consumer().unwrap();
            ready();
            rx.recv_into_timeout(&mut buffer, patience)
                .unwrap_err()
                .to_string()
        }
        "spsc-poll" => {
            let mut rx = spsc::attach(name).unwrap().consumer().unwrap();
            ready();
            loop {
                match rx.try_recv_into(&mut buffer) {
                    Err(RecvError::Empty) => {}
                    other => break other.unwrap_err().to_string(),
                }
            }
        }
        "spsc-send" => {
            let mut tx = spsc::attach(name).unwrap().producer().unwrap();
            ready();
            loop {
                if let Err(error) = tx.send_timeout(&[7; 500], patience) {
                    break error.to_string();
                }
            }
        }
        "mpmc-recv" => {
            let mut rx = mpmc::attach(name).unwrap().consumer().unwrap();
            ready();
            rx.recv_timeout(patience).map(drop).unwrap_err().to_string()
        }
        "mpmc-send" => {
            let mut tx = mpmc::attach(name).unwrap().producer().unwrap();
            ready();
            loop {
                if let Err(error) = tx.send_timeout(&[7; 40], patience) {
                    break error.to_string();
                }
            }
        }
        "broadcast-recv" => {
            let mut rx = broadcast::attach(name).unwrap().subscriber().unwrap();
            ready();
            rx.recv_timeout(patience).map(drop).unwrap_err().to_string()
        }
        "broadcast-send" => {
            let mut tx = broadcast::attach(name).unwrap().producer().unwrap();
            ready();
            loop {
                if let Err(error) = tx.send_timeout(&[7; 40], patience) {
                    break error.to_string();
                }
            }
        }
        "items-recv" => {
            let mut rx = mpmc::items::attach(name).unwrap().consumer().unwrap();
            ready();
            rx.recv_timeout(patience).unwrap_err().to_string()
        }
        "sem-recv" => {
            let mut rx = channel::semaphore::Receiver::attach(name).unwrap();
            ready();
            rx.recv_with(&mut buffer, Patience::Within(patience))
                .unwrap_err()
                .to_string()
        }
        _ => panic!("{task}"),
    };
    println!("told {error}");
}

#[test]
fn truncation_is_survived_by_those_who_asked_to_and_ends_the_others_as_documented() {
    let _watchdog = watchdog(120);
    // Its own rings go the same way, when it drops them.
    ringway::survive_truncation().unwrap();
    let what = [
        "spsc-recv",
        "spsc-poll",
        "spsc-send",
        "mpmc-recv",
        "mpmc-send",
        "broadcast-recv",
        "broadcast-send",
        "items-recv",
        "sem-recv",
    ];
    for (what, guard) in what
        .into_iter()
        .flat_map(|what| [(what, "guarded"), (what, "bare")])
        .filter(|(what, guard)| *guard == "guarded" || !what.starts_with("mpmc"))
    {
        let name = format!("forged-{what}-{guard}-{}", std::process::id());
        let kept: Box<dyn std::any::Any> = match what.split('-').next().unwrap() {
            "spsc" => Box::new(spsc::create(&name, Default::default()).unwrap()),
            "mpmc" => Box::new(mpmc::create(&name, small()).unwrap()),
            "broadcast" => Box::new(broadcast::create(&name, Default::default()).unwrap()),
            "items" => Box::new(mpmc::items::create(&name, small()).unwrap()),
            _ => Box::new(channel::semaphore::Sender::open(&name, Default::default()).unwrap()),
        };
        let path = match what {
            "sem-recv" => format!("/dev/shm/ringway.{name}.semaphore"),
            _ => format!("/dev/shm/ringway.{name}"),
        };
        let mut command = child("other_process", &format!("{what} {name} {guard}"));
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = Reaped(command.spawn().unwrap());
        let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
        let mut find = |word: &str| {
            lines
                .by_ref()
                .map(Result::unwrap)
                .find(|l| l.contains(word))
        };
        find("ready").expect("ready");
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(0)
            .unwrap();
        let told = find("told");
        let status = process.0.wait().unwrap();
        if guard == "guarded" {
            let told = told.unwrap_or_else(|| panic!("{what}: {status}"));
            assert!(told.contains("truncated"), "{what}: {told}");
            assert!(status.success(), "{what}: {status}");
        } else {
            // A futex on such a page is an error; any access is a signal.
            assert_eq!(
                told.is_none(),
                status.signal() == Some(libc::SIGBUS),
                "{what}: {status}"
            );
        }
        drop(kept);
        let _ = std::fs::remove_file(path);
    }
}

#[test]
fn a_signal_that_is_not_ours_does_what_it_did_before() {
    if task().is_some() {
        return;
    }
    let _watchdog = watchdog(60);
    let status = |what: &str| {
        let mut command = child("stranger", what);
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
    };
    assert_eq!(status("sent").signal(), Some(libc::SIGBUS));
    assert_eq!(status("faulted").signal(), Some(libc::SIGBUS));
    assert_eq!(status("caught").code(), Some(42));
}

extern "C" fn leave(_: libc::c_int) {
    // SAFETY: may be called in a handler.
    unsafe { libc::_exit(42) };
}

/// SIGBUS that no ring is to blame for.
#[test]
fn stranger() {
    let Some(task) = task() else { return };
    if task == "caught" {
        let handler = leave as extern "C" fn(libc::c_int);
        // SAFETY: `leave` may be called in a handler.
        unsafe { libc::signal(libc::SIGBUS, handler as *const () as usize) };
    }
    ringway::survive_truncation().unwrap();
    if task == "sent" {
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGBUS).unwrap();
    }
    let file = File::from(memfd_create("other", MFdFlags::empty()).unwrap());
    file.set_len(4096).unwrap();
    let map = MmapOptions::new().map_raw(&file).unwrap();
    file.set_len(0).unwrap();
    // SAFETY: a read of mapped memory, of which the system says that it is gone.
    unsafe { map.as_ptr().read_volatile() };
}

#[test]
fn holes_are_filled_when_attaching_or_it_is_an_error_that_there_is_no_memory_for_them() {
    if task().is_some() {
        return;
    }
    let _watchdog = watchdog(60);
    let probe = Command::new("unshare").args(["--mount", "true"]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        println!("skipped: no mount namespace to be had (it takes root and `unshare`)");
        return;
    }
    let inner = child("other_process", "holes of-others");
    let script = "mount -t tmpfs -o size=1m tmpfs /dev/shm && exec \"$@\"";
    let status = Command::new("unshare")
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            script,
            "sh",
        ])
        .arg(inner.get_program())
        .args(inner.get_args())
        .env("RINGWAY_TEST_CHILD", "holes of-others")
        .status()
        .unwrap();
    assert!(status.success());
}

/// Runs with a `/dev/shm` of its own of 1 MiB.
fn holes(name: &str) {
    let config = spsc::Config::default().capacity(512 << 10);
    let kept = spsc::create(name, config).unwrap();
    let file = File::from(kept.as_fd().try_clone_to_owned().unwrap());
    let flags = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: fallocate takes integers.
    let punched = unsafe { libc::fallocate(file.as_raw_fd(), flags, 4096, 512 << 10) };
    assert_eq!(punched, 0);
    let filler = "/dev/shm/filler";
    let mut other = File::create(filler).unwrap();
    while other.write_all(&[1; 4096]).is_ok() {}
    let error = spsc::attach(name).unwrap_err();
    assert!(matches!(error, Error::NoRoom { .. }), "{error}");
    assert!(error.to_string().contains(name), "{error}");
    // One who is attached already, and asked to survive, is told.
    ringway::survive_truncation().unwrap();
    let mut tx = kept.producer().unwrap();
    let error = loop {
        if let Err(error) = tx.send_timeout(&[7; 1000], SOON) {
            break error;
        }
    };
    assert!(matches!(error, SendError::Corrupt { .. }), "{error:?}");
    drop(tx);
    drop(other);
    std::fs::remove_file(filler).unwrap();
    let ring = spsc::attach(name).unwrap();
    let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
    tx.send(b"room again").unwrap();
    assert_eq!(&*rx.recv().unwrap(), b"room again");
}
