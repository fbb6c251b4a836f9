//! Taking names away: only of what nobody uses, in a way that races with nobody who comes.
//!
//! Each mechanism has its own way to tell whoever comes that its name is just going; that way is taken
//! here, too. So one who attaches meanwhile finds the thing whole or not at all, and then makes it
//! anew.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use super::{Kind, Thing};
use crate::Error;
use crate::channel::{attendance, semaphore, socket};
use crate::control::{self, Over};
use crate::mapping::{self, Removal};
use crate::observe::Observer;
use crate::os::{self, inode};

/// What became of a thing that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its name is gone.
    Removed,
    /// Somebody uses it.
    InUse,
    /// Messages wait in it for somebody to come.
    Undelivered,
}

/// Takes the name of `thing` away if nobody uses it, and (unless `undelivered` says that it may) no
/// messages are lost with it.
pub(crate) fn remove(thing: &Thing, undelivered: bool) -> Result<Outcome, Error> {
    let path = Path::new(&thing.path);
    let fail = |op| move |error| Error::os(op, &thing.name, error);
    match thing.kind {
        _ if !thing.has_name() => Ok(Outcome::InUse),
        Kind::Spsc | Kind::Mpmc | Kind::Broadcast | Kind::Ring => ring(thing, path, undelivered),
        Kind::Semaphores => {
            let name = thing.name.strip_prefix("sem:").unwrap_or(&thing.name);
            let kept =
                semaphore::remove_if_abandoned(path, name, undelivered).map_err(fail("remove"))?;
            Ok(match kept {
                semaphore::Abandoned::Removed => Outcome::Removed,
                semaphore::Abandoned::InUse => Outcome::InUse,
                semaphore::Abandoned::Undelivered => Outcome::Undelivered,
            })
        }
        Kind::Semaphore => {
            fs::remove_file(path).map_err(fail("unlink"))?;
            Ok(Outcome::Removed)
        }
        Kind::Queue => queue(thing, undelivered),
        Kind::Fifo => fifo(thing, path),
        Kind::Pipeline | Kind::Inbox => post(thing, path),
        Kind::Socket => {
            socket::bury(path);
            Ok(gone_or_used(path))
        }
        Kind::Meeting => {
            let file = os::shm::open(path, true).map_err(fail("open"))?;
            let _guard = inode::guard(file.as_fd());
            let used = inode::is_locked(file.as_fd(), 0, 2).map_err(fail("fcntl"))?;
            if !used && inode::is_at(file.as_fd(), path) {
                fs::remove_file(path).map_err(fail("unlink"))?;
            }
            Ok(gone_or_used(path))
        }
    }
}

fn gone_or_used(path: &Path) -> Outcome {
    if fs::symlink_metadata(path).is_ok() {
        Outcome::InUse
    } else {
        Outcome::Removed
    }
}

fn ring(thing: &Thing, path: &Path, undelivered: bool) -> Result<Outcome, Error> {
    let keep = || {
        !undelivered
            && Observer::open_path(&thing.name, path)
                .and_then(|observer| observer.is_drained())
                .map_or(true, |drained| !drained)
    };
    Ok(
        match mapping::remove_if_abandoned(&thing.name, path, keep)? {
            Removal::Removed => Outcome::Removed,
            Removal::InUse => Outcome::InUse,
            Removal::Kept => Outcome::Undelivered,
        },
    )
}

/// Whether nobody sits on either side; then those who come meanwhile are told that it is going.
fn queue(thing: &Thing, undelivered: bool) -> Result<Outcome, Error> {
    let fail = |op| move |error| Error::os(op, &thing.name, error);
    let queue = os::mqueue::open(&thing.path).map_err(fail("mq_open"))?;
    let waiting = os::mqueue::geometry(queue.as_fd())
        .map_err(fail("mq_getattr"))?
        .waiting;
    let mut outcome = if waiting > 0 && !undelivered {
        Outcome::Undelivered
    } else {
        Outcome::InUse
    };
    let empty =
        || undelivered || os::mqueue::geometry(queue.as_fd()).is_ok_and(|queue| queue.waiting == 0);
    let unlink =
        || os::mqueue::is_at(queue.as_fd(), &thing.path) && os::mqueue::unlink(&thing.path).is_ok();
    if attendance::remove_if_unattended(queue.as_fd(), empty, unlink) {
        outcome = Outcome::Removed;
    }
    Ok(outcome)
}

fn fifo(thing: &Thing, path: &Path) -> Result<Outcome, Error> {
    let fail = |op| move |error| Error::os(op, &thing.name, error);
    let fd = os::pipe::open(path, false, false).map_err(fail("open"))?;
    let unlink = || inode::is_at(fd.as_fd(), path) && fs::remove_file(path).is_ok();
    let removed = attendance::remove_if_unattended(fd.as_fd(), || true, unlink);
    Ok(if removed {
        Outcome::Removed
    } else {
        Outcome::InUse
    })
}

/// An inbox of commands or answers.
fn post(thing: &Thing, path: &Path) -> Result<Outcome, Error> {
    let is_queue = !path.is_absolute() || path.parent() == Some(Path::new("/"));
    let over = if is_queue { Over::Queue } else { Over::Fifo };
    match control::remove_if_abandoned(over, &thing.path) {
        Ok(true) => Ok(Outcome::Removed),
        Ok(false) => Ok(Outcome::InUse),
        Err((op, error)) => Err(Error::os(op, &thing.name, error)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use super::super::{State, Thing, named};
    use super::*;
    use crate::spsc::{self, Config};

    const CHILD: &str = "RINGWAY_CLEAN_CHILD";
    const TEST: &str = "cli::inventory::removal::tests::clean_never_removes_a_live_ring";

    /// What the children do until they are killed: attach, look whether the name is theirs as long as
    /// they are attached, and leave.
    fn attach_and_look(name: &str) -> ! {
        let path = crate::observe::path_of(name).unwrap();
        for round in 0u64.. {
            let ring = match spsc::create_or_attach(name, Config::default().capacity(256)) {
                Ok(ring) => ring,
                Err(error) => {
                    eprintln!("{error}");
                    std::process::exit(43);
                }
            };
            let role = (round % 3 == 0).then(|| ring.producer());
            for _ in 0..round % 200 {
                if !os::inode::is_at(ring.as_fd(), &path) {
                    std::process::exit(42);
                }
            }
            if let Some(Ok(mut producer)) = role {
                let _ = producer.try_send(b"something that would be lost");
            }
        }
        unreachable!()
    }

    /// What is cleaned is what the last one to leave would not have kept, whatever the cursors say. A copy of a ring
    /// is one whose participants were all killed just then.
    #[test]
    fn clean_keeps_what_a_successor_would_get_though_the_cursors_tell_of_nothing() {
        use crate::mpmc::{self, items};
        use std::os::unix::fs::FileExt;

        let name = |what| format!("clean-{what}-{}", std::process::id());
        let path = |name: &str| crate::observe::path_of(name).unwrap();
        let killed = |name: &str| {
            let copy = format!("{name}-killed");
            fs::copy(path(name), path(&copy)).unwrap();
            copy
        };
        /// Zeroes the word of the control words that `word` chooses.
        fn unwritten<C>(name: &str, control: &C, word: &crate::primitive::AtomicU64) {
            let within = std::ptr::from_ref(word).addr() - std::ptr::from_ref(control).addr();
            let observer = Observer::open(name).unwrap();
            let file = fs::OpenOptions::new()
                .write(true)
                .open(crate::observe::path_of(name).unwrap());
            let at = observer.header().control() + within as u64;
            file.unwrap().write_all_at(&[0; 8], at).unwrap();
        }
        let mut all = Vec::new();

        // A message that its consumer had taken and not released.
        let held = name("held");
        let ring = mpmc::create(&held, mpmc::Config::default().slots(4)).unwrap();
        let (mut tx, mut rx) = (ring.producer().unwrap(), ring.consumer().unwrap());
        tx.send(b"held").unwrap();
        let message = rx.try_recv().unwrap();
        all.push((killed(&held), Kind::Mpmc));
        drop(message);
        drop((tx, rx, ring));

        // Items whose sender had not moved the hint on.
        let hinted = name("hint");
        let ring = items::create(&hinted, mpmc::Config::default().slots(4)).unwrap();
        let mut tx = ring.producer().unwrap();
        tx.try_send(7).unwrap();
        let copy = killed(&hinted);
        let control = mpmc::Control::new();
        unwritten(&copy, &control, control.cursors.as_hints().0);
        all.push((copy, Kind::Mpmc));
        assert_eq!(ring.consumer().unwrap().try_recv().unwrap(), 7);
        drop((tx, ring));

        // A message whose producer had not noted its progress.
        let noted = name("noted");
        let ring = spsc::create(&noted, Config::default().capacity(256)).unwrap();
        let mut tx = ring.producer().unwrap();
        tx.send(b"sent").unwrap();
        let copy = killed(&noted);
        let control = crate::ring::spsc::Control::new();
        unwritten(&copy, &control, &control.producer.progress.position);
        all.push((copy, Kind::Spsc));
        ring.consumer().unwrap().recv().unwrap();
        drop((tx, ring));

        for (name, kind) in all {
            let thing = named(&name).unwrap();
            assert_eq!((thing.kind, thing.state), (kind, State::Undelivered));
            assert_eq!(
                thing.fill.unwrap().used,
                0,
                "{name}: the cursors tell of it"
            );
            let outcome = remove(&thing, false).unwrap();
            assert_eq!(outcome, Outcome::Undelivered, "{name}");
            assert!(path(&name).exists());
            assert_eq!(remove(&thing, true).unwrap(), Outcome::Removed, "{name}");
        }
        for name in [held, hinted, noted] {
            assert!(!path(&name).exists(), "{name} is left");
        }
    }

    /// The race below, at the one instant that matters: between the look and the removal.
    #[test]
    fn who_attaches_at_the_last_instant_keeps_the_name_or_has_no_ring() {
        let name = format!("clean-instant-{}", std::process::id());
        // What nobody has taken keeps the name when its owners leave.
        let ring = spsc::create(&name, Config::default().capacity(256)).unwrap();
        let mut producer = ring.producer().unwrap();
        producer.try_send(b"undelivered").unwrap();
        drop((producer, ring));
        let path = crate::observe::path_of(&name).unwrap();
        let mut attached = None;
        let removal = mapping::remove_if_abandoned(&name, &path, || {
            attached = Some(spsc::attach(&name));
            false
        });
        assert_eq!(removal.unwrap(), Removal::Removed);
        let attached = attached.expect("it was asked whether to keep the ring");
        assert!(
            // Or it waits for the one who removes it, and gives up.
            matches!(
                attached,
                Err(Error::NotFound { .. } | Error::Os { op: "presence", .. })
            ),
            "attached to a ring that lost its name: {attached:?}"
        );
        assert!(!path.exists());
    }

    /// The cleaner removes what it can, as fast as it can, while processes attach, leave and are
    /// killed. `RINGWAY_CLEAN_SECONDS` says for how long.
    #[test]
    fn clean_never_removes_a_live_ring() {
        if let Ok(name) = std::env::var(CHILD) {
            attach_and_look(&name);
        }
        let seconds = std::env::var("RINGWAY_CLEAN_SECONDS").map_or(2, |s| s.parse().unwrap());
        let name = format!("clean-race-{}", std::process::id());
        let spawn = || {
            Command::new(std::env::current_exe().unwrap())
                .args([TEST, "--exact", "--nocapture"])
                .env(CHILD, &name)
                .stdout(Stdio::null())
                .spawn()
                .unwrap()
        };
        let thing = Thing {
            kind: Kind::Spsc,
            path: format!("/dev/shm/ringway.{name}"),
            name: name.clone(),
            owner: String::new(),
            bytes: 0,
            fill: None,
            state: State::Dead,
            why: None,
            age: 0,
            participants: Vec::new(),
            id: (0, 0),
        };
        let (mut removed, mut in_use, mut undelivered, mut kills) = (0u64, 0u64, 0u64, 0u64);
        let mut random = 1u64;
        let end = Instant::now() + Duration::from_secs(seconds);
        let over = end + Duration::from_secs(120);
        let mut children: Vec<_> = (0..2).map(|_| spawn()).collect();
        let mut next_kill = Instant::now() + Duration::from_millis(50);
        // For so long, and until each has happened: how soon depends on who else is running.
        while Instant::now() < end || kills <= 5 || removed == 0 || in_use == 0 {
            assert!(
                Instant::now() < over,
                "{kills} kills, {removed} removed, {in_use} in use"
            );
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            match remove(&thing, random >> 62 == 0) {
                Ok(Outcome::Removed) => removed += 1,
                Ok(Outcome::InUse) => in_use += 1,
                Ok(Outcome::Undelivered) => undelivered += 1,
                Err(error) => panic!("{error}"),
            }
            for child in &mut children {
                assert_eq!(child.try_wait().unwrap(), None, "a child lost its ring");
            }
            if Instant::now() > next_kill {
                let index = (random >> 40) as usize % children.len();
                children[index].kill().unwrap();
                children[index].wait().unwrap();
                children[index] = spawn();
                kills += 1;
                next_kill = Instant::now() + Duration::from_millis(10 + (random >> 33) % 40);
            }
        }
        for mut child in children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        println!("{kills} kills, {removed} removed, {in_use} in use, {undelivered} undelivered");
        // Whatever the last ones left is dead now.
        if let Ok(left) = named(&name) {
            assert_ne!(left.state, State::Live);
            assert_eq!(remove(&left, true).unwrap(), Outcome::Removed);
        }
        assert!(named(&name).is_err());
    }
}
