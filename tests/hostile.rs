//! A process that writes what it likes into a ring's memory, while honest ones use the ring.
//!
//! Honest processes may be told `Corrupt`, may lose messages and may get bytes that nobody sent. They never
//! crash, never hang (every call here has a time-out or does not block, and a watchdog), and never touch
//! memory outside the ring, which lies between pages that cannot be accessed.
//!
//! Every scenario prints its seed; `RINGWAY_SEED=0x...` runs the same writes again, in the same order (what
//! the honest ones are doing meanwhile is up to the scheduler). `RINGWAY_HOSTILE_SECONDS=60` attacks for that
//! long in each scenario instead of a third of a second.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use memmap2::{MmapOptions, MmapRaw};
use nix::sys::signal::Signal;
use ringway::wait::WaitStrategy;
use ringway::{Error, RecvError, SendError, broadcast, mpmc, spsc};

mod common;
use common::{Random, Reaped, child, task, watchdog};

/// How long one honest call may wait.
const PATIENCE: Duration = Duration::from_millis(20);

/// What every other process of these tests does; nothing in the test itself.
#[test]
fn other_process() {
    let Some(task) = task() else { return };
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).unwrap();
    let words: Vec<&str> = task.split(' ').collect();
    let (seed, millis) = (words[2].parse().unwrap(), words[3].parse().unwrap());
    let _watchdog = watchdog(60 + millis / 1000);
    let mut play = Play {
        random: Random(seed),
        until: Instant::now() + Duration::from_millis(millis),
        tally: Tally::default(),
    };
    match (words[0], words[1]) {
        ("attack", _) => attack(&mut play, &words[4..]),
        ("send", "spsc") => play.send_spsc(),
        ("receive", "spsc") => play.receive_spsc(),
        ("send", "mpmc") => play.send_mpmc(),
        ("receive", "mpmc") => play.receive_mpmc(),
        ("send", "broadcast") => play.send_broadcast(),
        ("receive", "broadcast") => play.receive_broadcast(),
        ("send", "items") => play.send_items(),
        ("receive", "items") => play.receive_items(),
        _ => panic!("{task}"),
    }
    println!("tally {}", play.tally.0);
}

/// What is counted, by name.
#[derive(Default)]
struct Tally(String, std::collections::BTreeMap<&'static str, u64>);

impl Tally {
    fn count(&mut self, what: &'static str, by: u64) {
        *self.1.entry(what).or_default() += by;
        self.0.clear();
        for (what, count) in &self.1 {
            write!(self.0, "{what}={count} ").unwrap();
        }
    }
}

/// The ring's memory, which is our standard input.
fn memory() -> OwnedFd {
    std::io::stdin().as_fd().try_clone_to_owned().unwrap()
}

struct Play {
    random: Random,
    until: Instant,
    tally: Tally,
}

impl Play {
    fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }

    /// Attaches anew, until it can, or time is up.
    fn attach<R, H>(
        &mut self,
        open: impl Fn(OwnedFd) -> Result<R, Error>,
        take: impl Fn(&R) -> Result<H, Error>,
    ) -> Option<(R, H)> {
        while self.goes_on() {
            let fence = Fence::above();
            let result = open(memory()).and_then(|ring| take(&ring).map(|handle| (ring, handle)));
            match result {
                Ok(both) => {
                    fence.below(&mut self.tally);
                    self.tally.count("attached", 1);
                    return Some(both);
                }
                Err(
                    Error::Corrupt { .. }
                    | Error::NotOurs { .. }
                    | Error::Version { .. }
                    | Error::RoleTaken { .. }
                    | Error::TooManyParticipants { .. }
                    | Error::Mismatch { .. }
                    // Its header says that it wakes by event descriptors.
                    | Error::Unsupported { .. },
                ) => self.tally.count("refused", 1),
                // The attacker holds a lock of everybody's.
                Err(Error::Os { op: "presence", .. }) => self.tally.count("refused", 1),
                Err(error) => panic!("{error:?}"),
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        None
    }

    /// Its header said when it was attached to that it waits on semaphores, and there are none. Any other call that
    /// failed is not the attacker's doing.
    fn slept_badly(&mut self, op: &str, source: std::io::Error) -> bool {
        assert_eq!(
            (op, source.kind()),
            ("sleep", std::io::ErrorKind::InvalidData),
            "{source}"
        );
        self.tally.count("corrupt", 1);
        false
    }

    fn sent(&mut self, result: Result<(), SendError>) -> bool {
        match result {
            Ok(()) => self.tally.count("sent", 1),
            Err(SendError::Full | SendError::TimedOut) => self.tally.count("full", 1),
            Err(SendError::Closed | SendError::PeerDied) => self.tally.count("alone", 1),
            Err(SendError::Corrupt { .. }) => {
                self.tally.count("corrupt", 1);
                return false;
            }
            Err(SendError::Os { op, source }) => return self.slept_badly(op, source),
            Err(error) => panic!("{error:?}"),
        }
        true
    }

    /// Takes a result that has the sum of the bytes, so that each of them was read.
    fn received(&mut self, result: Result<u64, RecvError>) -> bool {
        match result {
            Ok(sum) => {
                std::hint::black_box(sum);
                self.tally.count("received", 1);
            }
            Err(RecvError::Empty | RecvError::TimedOut) => self.tally.count("empty", 1),
            Err(RecvError::Missed { .. }) => self.tally.count("missed", 1),
            Err(RecvError::Closed | RecvError::PeerDied) => self.tally.count("alone", 1),
            Err(RecvError::Corrupt { .. }) => {
                self.tally.count("corrupt", 1);
                return false;
            }
            Err(RecvError::Os { op, source }) => return self.slept_badly(op, source),
            Err(error) => panic!("{error:?}"),
        }
        true
    }

    fn send_spsc(&mut self) {
        while let Some((ring, mut tx)) = self.attach(spsc::Ring::from_fd, spsc::Ring::producer) {
            let bytes = vec![0x5a; tx.max_message()];
            for _ in 0..1 + self.random.below(20_000) {
                if !self.goes_on() {
                    return;
                }
                let most = [8, 64, 300, bytes.len() as u64][self.random.below(4) as usize];
                let message =
                    &bytes[..self.random.below(most.min(bytes.len() as u64) + 1) as usize];
                let reserved = |tx: &mut spsc::Producer, cut: bool| {
                    let mut room = tx.try_reserve(message.len())?;
                    room.copy_from_slice(message);
                    room.commit_len(message.len() / if cut { 2 } else { 1 });
                    Ok(())
                };
                let result = match self.random.below(40) {
                    0 => tx.send_timeout(message, PATIENCE),
                    1..4 => reserved(&mut tx, false),
                    4 => reserved(&mut tx, true),
                    5 => tx.try_reserve(message.len()).map(drop),
                    _ => tx.try_send(message),
                };
                if !self.sent(result) {
                    break;
                }
            }
            std::hint::black_box(ring.stats());
        }
    }

    fn receive_spsc(&mut self) {
        let mut buffer = Vec::new();
        while let Some((ring, mut rx)) = self.attach(spsc::Ring::from_fd, spsc::Ring::consumer) {
            for _ in 0..1 + self.random.below(20_000) {
                if !self.goes_on() {
                    return;
                }
                let result = match self.random.below(40) {
                    0 => rx.recv_timeout(PATIENCE).map(|message| sum(&message)),
                    1 => rx
                        .recv_into_timeout(&mut buffer, PATIENCE)
                        .map(|()| sum(&buffer)),
                    2 => Ok(rx
                        .drain(1 + self.random.below(100) as usize)
                        .map(|m| sum(&m))
                        .sum()),
                    3 => {
                        std::mem::forget(rx.try_recv());
                        continue;
                    }
                    4 => {
                        let mut total = 0;
                        let most = match self.random.below(4) {
                            0 => usize::MAX,
                            _ => 1 + self.random.below(100) as usize,
                        };
                        rx.drain_with(most, |message| total += sum(&message));
                        Ok(total)
                    }
                    5..10 => rx.try_recv_into(&mut buffer).map(|()| sum(&buffer)),
                    _ => rx.try_recv().map(|message| sum(&message)),
                };
                assert!(buffer.len() <= ring.capacity() as usize);
                if !self.received(result) {
                    break;
                }
            }
        }
    }

    fn send_mpmc(&mut self) {
        while let Some((ring, mut tx)) = self.attach(mpmc::Ring::from_fd, mpmc::Ring::producer) {
            let bytes = vec![0x5a; tx.max_message()];
            for _ in 0..1 + self.random.below(20_000) {
                if !self.goes_on() {
                    return;
                }
                let message = &bytes[..self.random.below(bytes.len() as u64 + 1) as usize];
                let result = match self.random.below(40) {
                    0 => tx.send_timeout(message, PATIENCE),
                    1..4 => tx.try_reserve(message.len()).map(|mut room| {
                        room.copy_from_slice(message);
                        room.commit();
                    }),
                    4 => tx.try_reserve(message.len()).map(drop),
                    5 => tx.try_reserve(message.len()).map(std::mem::forget),
                    _ => tx.try_send(message),
                };
                if !self.sent(result) {
                    break;
                }
            }
            std::hint::black_box(ring.len());
        }
    }

    fn receive_mpmc(&mut self) {
        while let Some((_ring, mut rx)) = self.attach(mpmc::Ring::from_fd, mpmc::Ring::consumer) {
            for _ in 0..1 + self.random.below(20_000) {
                if !self.goes_on() {
                    return;
                }
                let result = match self.random.below(40) {
                    0 => rx.recv_timeout(PATIENCE).map(|message| sum(&message)),
                    1..4 => drain(&mut rx, 1 + self.random.below(100) as usize),
                    4 => {
                        std::mem::forget(rx.try_recv());
                        continue;
                    }
                    _ => rx.try_recv().map(|message| sum(&message)),
                };
                if !self.received(result) {
                    break;
                }
            }
        }
    }

    fn send_broadcast(&mut self) {
        let attach = broadcast::Ring::from_fd;
        while let Some((ring, mut tx)) = self.attach(attach, broadcast::Ring::producer) {
            let bytes = vec![0x5a; tx.max_message()];
            for _ in 0..1 + self.random.below(20_000) {
                if !self.goes_on() {
                    return;
                }
                let most = [8, 64, 300, bytes.len() as u64][self.random.below(4) as usize];
                let message =
                    &bytes[..self.random.below(most.min(bytes.len() as u64) + 1) as usize];
                let result = match self.random.below(40) {
                    0 => tx.send_timeout(message, PATIENCE),
                    1..4 => tx.try_reserve(message.len()).map(|mut room| {
                        room.copy_from_slice(message);
                        room.commit_len(message.len() / 2);
                    }),
                    4 => tx.try_reserve(message.len()).map(drop),
                    _ => tx.try_send(message),
                };
                if !self.sent(result) {
                    break;
                }
            }
            std::hint::black_box((ring.sent(), ring.living_subscribers().ok()));
        }
    }

    fn receive_broadcast(&mut self) {
        use broadcast::Start;
        let mut buffer = Vec::new();
        loop {
            let start = [Start::Oldest, Start::Newest, Start::Next, Start::Last(9)];
            let start = start[self.random.below(4) as usize];
            let take = |ring: &broadcast::Ring| ring.subscriber_from(start);
            let Some((ring, mut rx)) = self.attach(broadcast::Ring::from_fd, take) else {
                return;
            };
            for _ in 0..1 + self.random.below(20_000) {
                if !self.goes_on() {
                    return;
                }
                let result = match self.random.below(40) {
                    0 => rx.recv_timeout(PATIENCE).map(|message| sum(&message)),
                    1 => rx
                        .recv_into_timeout(&mut buffer, PATIENCE)
                        .map(|_| sum(&buffer)),
                    2 => {
                        std::mem::forget(rx.try_recv());
                        continue;
                    }
                    3..20 => rx.try_recv_into(&mut buffer).map(|_| sum(&buffer)),
                    _ => rx.try_recv().map(|message| sum(&message)),
                };
                assert!(buffer.len() <= ring.capacity() as usize);
                if !self.received(result) {
                    break;
                }
            }
        }
    }

    fn send_items(&mut self) {
        let attach = mpmc::items::Ring::from_fd;
        while let Some((_ring, mut tx)) = self.attach(attach, mpmc::items::Ring::producer) {
            for item in 0..1 + self.random.below(20_000) {
                if !self.goes_on() {
                    return;
                }
                let result = match self.random.below(40) {
                    0 => tx.send_timeout(item, PATIENCE),
                    _ => tx.try_send(item),
                };
                if !self.sent(result) {
                    break;
                }
            }
        }
    }

    fn receive_items(&mut self) {
        let attach = mpmc::items::Ring::from_fd;
        while let Some((_ring, mut rx)) = self.attach(attach, mpmc::items::Ring::consumer) {
            for _ in 0..1 + self.random.below(20_000) {
                if !self.goes_on() {
                    return;
                }
                let result = match self.random.below(40) {
                    0 => rx.recv_timeout(PATIENCE),
                    _ => rx.try_recv(),
                };
                if !self.received(result) {
                    break;
                }
            }
        }
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte)).sum()
}

fn drain(rx: &mut mpmc::Consumer, max: usize) -> Result<u64, RecvError> {
    let mut drain = rx.drain(max)?;
    let mut total = 0;
    while let Some(message) = drain.next_message()? {
        total += sum(message);
    }
    Ok(total)
}

/// Memory that cannot be accessed: what the system maps next lies below it, and more goes below that.
struct Fence(MmapRaw);

const FENCE: usize = 1 << 20;

impl Fence {
    fn above() -> Fence {
        let map = MmapRaw::from(MmapOptions::new().len(FENCE).map_anon().unwrap());
        // SAFETY: the whole of a mapping that nothing refers to.
        unsafe { libc::mprotect(map.as_mut_ptr().cast(), FENCE, libc::PROT_NONE) };
        Fence(map)
    }

    /// Puts a fence below every mapping of a ring, and stays for as long as the process lives.
    fn below(self, tally: &mut Tally) {
        std::mem::forget(self.0);
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        for line in maps.lines().filter(|line| line.contains("memfd:ringway")) {
            let start = line.split('-').next().unwrap();
            let start = usize::from_str_radix(start, 16).unwrap();
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
            // SAFETY: replaces nothing (NOREPLACE); where something is already, it fails.
            let below = unsafe {
                let at = start.wrapping_sub(FENCE) as *mut libc::c_void;
                libc::mmap(at, FENCE, libc::PROT_NONE, flags, -1, 0)
            };
            if below != libc::MAP_FAILED {
                tally.count("fences", 1);
            }
        }
    }
}

/// Writes what it likes. `geometry`: capacity, where the data area begins, bytes of the whole, and whether
/// the semaphores are left alone.
fn attack(play: &mut Play, geometry: &[&str]) {
    let geometry: Vec<u64> = geometry.iter().map(|word| word.parse().unwrap()).collect();
    let [capacity, data, total, spares_doors] = geometry[..] else {
        panic!("{geometry:?}")
    };
    let spares_doors = spares_doors != 0;
    let file = File::from(memory());
    let map = MmapOptions::new().map_raw(&file).unwrap();
    assert_eq!(map.len() as u64, total);
    // A description of our own, whose locks are not those of the honest ones.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let locks = File::options().read(true).write(true).open(path).unwrap();
    let mut attacker = Attacker {
        clean: Vec::new(),
        later: Vec::new(),
        map,
        file,
        locks,
        capacity,
        data,
        total,
        writes: 0,
        spares_doors,
    };
    attacker.clean = attacker.image();
    attacker.later = attacker.clean.clone();
    while play.goes_on() {
        attacker.round(&mut play.random);
        if play.random.below(4) == 0 {
            // Time in which the honest ones get somewhere.
            std::thread::sleep(Duration::from_micros(play.random.below(2000)));
        }
    }
    play.tally.count("writes", attacker.writes);
}

struct Attacker {
    map: MmapRaw,
    file: File,
    locks: File,
    /// What was there at first.
    clean: Vec<u8>,
    /// What was there at some later time, spoilt or not.
    later: Vec<u8>,
    capacity: u64,
    data: u64,
    total: u64,
    writes: u64,
    /// POSIX semaphores are not written to: what the C library makes of that is told in the documentation.
    spares_doors: bool,
}

impl Attacker {
    fn image(&self) -> Vec<u8> {
        let mut image = vec![0; self.total as usize];
        // SAFETY: inside the mapping; others write meanwhile, and any mixture will do.
        unsafe {
            self.map
                .as_ptr()
                .copy_to_nonoverlapping(image.as_mut_ptr(), image.len());
        }
        image
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.writes += 1;
        if self.spares_doors && offset < 2048 && offset + bytes.len() as u64 > 1024 {
            return;
        }
        let len = bytes.len().min((self.total - offset) as usize);
        // SAFETY: inside the mapping.
        unsafe {
            bytes
                .as_ptr()
                .copy_to_nonoverlapping(self.map.as_mut_ptr().add(offset as usize), len);
        }
    }

    fn read(&self, offset: u64) -> u64 {
        let mut word = [0; 8];
        let len = 8.min((self.total - offset) as usize);
        // SAFETY: inside the mapping.
        unsafe {
            self.map
                .as_ptr()
                .add(offset as usize)
                .copy_to_nonoverlapping(word.as_mut_ptr(), len);
        }
        u64::from_le_bytes(word)
    }

    /// Where a cursor points: a header or a slot that is just going to be looked at.
    fn pointed(&self, random: &mut Random) -> u64 {
        let control = 2048;
        let at = control + random.below((self.data - control) / 64) * 64;
        let cursor = self.read(at).wrapping_add(8 * random.below(3));
        let unit = [1, 64][random.below(2) as usize];
        self.data + (cursor & !7).wrapping_mul(unit) % (self.total - self.data)
    }

    /// A place: anywhere, or where it hurts.
    fn offset(&self, random: &mut Random) -> u64 {
        let control = 2048;
        if random.below(4) == 0 {
            return self.pointed(random);
        }
        let (from, to) = match random.below(8) {
            0 => (0, self.total),
            1 => (0, 1024),                    // the header
            2 => (1024, 2048),                 // the semaphores
            3 => (control, control + 4 * 128), // the first participants
            4 => (control, self.data),         // participants, cursors, intents
            5 => (self.data, self.data + 512), // the first slots or headers
            6 => (self.data, self.total),      // all of them
            _ => {
                // A word that is in use.
                let at = control + random.below(self.data - control) / 8 * 8;
                return (0..64)
                    .map(|i| at + 8 * i)
                    .find(|at| at + 8 <= self.total && self.read(*at) != 0)
                    .unwrap_or(at);
            }
        };
        let offset = from + random.below((to - from).min(self.total - from));
        match random.below(8) {
            0 => offset,
            1 => offset & !3,
            2 => offset & !63,
            _ => offset & !7,
        }
    }

    /// A value: any, one at a boundary, or one that is nearly right.
    fn value(&self, offset: u64, random: &mut Random) -> u64 {
        const EDGES: [u64; 24] = [
            0,
            1,
            2,
            3,
            4,
            5,
            7,
            8,
            9,
            63,
            64,
            255,
            4096,
            u32::MAX as u64 - 1,
            u32::MAX as u64,
            1 << 32,
            i32::MAX as u64,
            1 << 31,
            i64::MAX as u64,
            1 << 63,
            1 << 62,
            (1 << 54) - 1,
            u64::MAX - 1,
            u64::MAX,
        ];
        let now = self.read(offset);
        match random.below(15) {
            0 => random.next(),
            1 | 2 => EDGES[random.below(24) as usize],
            3 => now.wrapping_add(1),
            4 => now.wrapping_sub(1),
            5 => now ^ 1 << random.below(64),
            6 => now.wrapping_add(self.capacity),
            7 => now.wrapping_sub(self.capacity),
            8 => self
                .capacity
                .wrapping_mul(random.below(5))
                .wrapping_add(random.below(3))
                .wrapping_sub(1),
            // A header: of a message with a length about the area's, or any, or what is left of it.
            9 => (self.capacity + 8).wrapping_sub(random.below(24)) << 32 | 1,
            12 => random.below(2 * self.capacity) << 32 | 1,
            13 => {
                let rest = self.capacity.wrapping_sub(offset.saturating_sub(self.data));
                rest << 32 | 1 | (4 * random.below(2))
            }
            14 => self.capacity << 32 | random.below(64),
            // POISON, ADOPTED, an owner and a round on a ticket.
            10 => now | random.next() << 40,
            _ => now.rotate_left(32),
        }
    }

    fn round(&mut self, random: &mut Random) {
        match random.below(32) {
            // Between two values, quickly: what is read twice is not the same.
            0..3 => {
                let at = self.offset(random) & !7;
                let (one, other) = (self.read(at), self.value(at, random));
                for i in 0..random.below(3000) {
                    self.write(at, &if i % 2 == 0 { other } else { one }.to_le_bytes());
                }
            }
            // What was true once; mostly what lets honest ones in again.
            3..8 => {
                let later = random.below(8) == 0;
                let image = if later { &self.later } else { &self.clean }.clone();
                let whole = !self.spares_doors;
                self.write(0, if whole { &image } else { &image[..1024] });
                self.write(2048, &image[2048..]);
            }
            8 => {
                let at = self.offset(random);
                let part = self.later[at as usize..].to_vec();
                self.write(at, &part[..part.len().min(random.below(4096) as usize)]);
            }
            9 if random.below(20) == 0 => self.later = self.image(),
            // One place's contents at another.
            10 => {
                let (from, to) = (self.offset(random), self.offset(random));
                let piece: Vec<u8> = (0..16)
                    .flat_map(|i| self.read((from + 8 * i).min(self.total - 8)).to_le_bytes())
                    .collect();
                self.write(to, &piece);
            }
            // A whole stretch of one byte.
            11 if random.below(10) == 0 => {
                let at = self.offset(random);
                let byte = [0, 0xff, 0x80, 1][random.below(4) as usize];
                let bytes = vec![byte; random.below(8192) as usize];
                self.write(at, &bytes);
            }
            // Headers and slots that are just going to be looked at, again and again.
            16..20 => {
                for _ in 0..random.below(1000) {
                    let at = self.pointed(random);
                    let value = self.value(at, random);
                    self.write(at, &value.to_le_bytes());
                }
            }
            // A hole, which reads as zeros.
            12 => {
                let flags = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                let (at, len) = (self.offset(random), 1 + random.below(16384));
                if self.spares_doors && at < 2048 {
                    return;
                }
                // SAFETY: fallocate takes integers.
                unsafe {
                    libc::fallocate(self.file.as_raw_fd(), flags, at as i64, len as i64);
                }
                self.writes += 1;
            }
            // The memory is sealed.
            13 => {
                for len in [0, self.data, self.total - 4096, 2 * self.total] {
                    assert!(self.file.set_len(len).is_err(), "{len}");
                }
            }
            // The locks of others: tokens of life, of joining, of presence.
            14 => {
                let byte = match random.below(4) {
                    0 => 1 << 40,
                    1 => (1 << 41) + random.below(8),
                    _ => (1 << 42) + (random.below(8) << 20) + random.below(64),
                };
                let kind = [libc::F_WRLCK, libc::F_RDLCK, libc::F_UNLCK][random.below(3) as usize];
                self.lock(byte, kind);
                if random.below(2) == 0 {
                    self.lock(byte, libc::F_UNLCK);
                }
            }
            // Wakes.
            15 => {
                for _ in 0..10 {
                    let at = self.offset(random) & !3;
                    // SAFETY: FUTEX_WAKE uses an address in the mapping as a key.
                    unsafe {
                        let at = self.map.as_mut_ptr().add(at as usize);
                        libc::syscall(libc::SYS_futex, at, libc::FUTEX_WAKE, 1);
                    }
                }
            }
            _ => {
                for _ in 0..random.below(100) {
                    let at = self.offset(random);
                    let value = self.value(at, random).to_le_bytes();
                    self.write(at, &value[..[8, 8, 8, 4, 2, 1][random.below(6) as usize]]);
                }
            }
        }
    }

    fn lock(&self, byte: u64, kind: i32) {
        let lock = libc::flock {
            l_type: kind as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: byte as i64,
            l_len: 1,
            l_pid: 0,
        };
        // SAFETY: F_OFD_SETLK reads `lock`.
        unsafe { libc::fcntl(self.locks.as_raw_fd(), libc::F_OFD_SETLK, &lock) };
    }
}

/// Runs honest processes and an attacker on the memory of one ring. Whether any honest one ever attached.
fn scenario(kind: &str, what: &str, sides: usize, fd: &dyn AsFd) -> bool {
    let millis = std::env::var("RINGWAY_HOSTILE_SECONDS")
        .map_or(300, |seconds| 1000 * seconds.parse::<u64>().unwrap());
    let _watchdog = watchdog(120 + millis / 1000);
    let seed = std::env::var("RINGWAY_SEED").map_or_else(
        |_| Random(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64).next(),
        |seed| u64::from_str_radix(seed.trim_start_matches("0x"), 16).unwrap(),
    );
    let file = File::from(fd.as_fd().try_clone_to_owned().unwrap());
    let header = MmapOptions::new().map_raw_read_only(&file).unwrap();
    let at = |offset: usize| {
        // SAFETY: in the first page, aligned; the creator has written it.
        unsafe { header.as_ptr().add(offset).cast::<u64>().read() }
    };
    let (capacity, participants, control) = (at(24), at(40) & 0xffff_ffff, at(48));
    let data = (2048 + participants * 128 + control).next_multiple_of(4096);
    let spares_doors = u8::from(what.contains("semaphore"));
    let geometry = format!("{capacity} {data} {} {spares_doors}", header.len());
    let run = |role: &str, seed: u64, more: &str| {
        let task = format!("{role} {kind} {seed} {millis} {more}");
        let mut command = child("other_process", &task);
        command
            .stdin(fd.as_fd().try_clone_to_owned().unwrap())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        (role.to_owned(), Reaped(command.spawn().unwrap()))
    };
    let mut processes = vec![run("attack", seed, &geometry)];
    for i in 0..sides as u64 {
        processes.push(run("send", seed.wrapping_add(1 + i), ""));
        processes.push(run("receive", seed.wrapping_add(101 + i), ""));
    }
    let mut report = format!("{kind} {what} seed {seed:#x}:");
    for (role, mut process) in processes {
        let (mut out, mut err) = (String::new(), String::new());
        process
            .0
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut out)
            .unwrap();
        process
            .0
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut err)
            .unwrap();
        let status = process.0.wait().unwrap();
        assert!(status.success(), "{report} {role}: {status}\n{out}\n{err}");
        let tally = out.lines().find_map(|line| line.split_once("tally "));
        write!(report, " [{role} {}]", tally.expect("a tally").1.trim()).unwrap();
    }
    println!("{report}");
    assert!(report.contains("writes="), "{report}");
    // In a bad hour nobody gets in before the header is spoilt.
    report.contains("attached=")
}

#[test]
fn spsc_rings_survive_a_hostile_peer() {
    let mut attached = false;
    for wait in WaitStrategy::ALL {
        if wait == WaitStrategy::EventFd {
            continue; // Its descriptors come over a socket; what is done with the memory is the same.
        }
        let config = spsc::Config::default().capacity(16 << 10).wait(wait);
        let ring = spsc::Ring::anonymous(config).unwrap();
        attached |= scenario("spsc", &wait.to_string(), 1, &ring);
    }
    assert!(attached);
}

#[test]
fn mpmc_rings_survive_a_hostile_peer() {
    let mut attached = false;
    for (wait, policy) in [
        (WaitStrategy::Adaptive, mpmc::OnDeath::Redeliver),
        (WaitStrategy::Spin, mpmc::OnDeath::Drop),
        (WaitStrategy::Futex, mpmc::OnDeath::Redeliver),
        (WaitStrategy::Semaphore, mpmc::OnDeath::Drop),
    ] {
        let config = mpmc::Config::default()
            .slots(64)
            .participants(8)
            .wait(wait)
            .on_death(policy);
        let ring = mpmc::Ring::anonymous(config).unwrap();
        attached |= scenario("mpmc", &format!("{wait}, {policy:?}"), 2, &ring);
    }
    assert!(attached);
}

#[test]
fn rings_of_items_survive_a_hostile_peer() {
    let mut attached = false;
    for wait in [WaitStrategy::Adaptive, WaitStrategy::Futex] {
        let config = mpmc::Config::default().slots(64).participants(8).wait(wait);
        let ring = mpmc::items::Ring::anonymous(config).unwrap();
        attached |= scenario("items", &wait.to_string(), 1, &ring);
    }
    assert!(attached);
}

#[test]
fn broadcast_rings_survive_a_hostile_peer() {
    let mut attached = false;
    for (wait, policy) in [
        (WaitStrategy::Adaptive, broadcast::Policy::Lossless),
        (WaitStrategy::Futex, broadcast::Policy::Lossy),
    ] {
        let config = broadcast::Config::default()
            .capacity(16 << 10)
            .subscribers(4)
            .policy(policy)
            .wait(wait);
        let ring = broadcast::Ring::anonymous(config).unwrap();
        attached |= scenario("broadcast", &format!("{wait}, {policy:?}"), 2, &ring);
    }
    assert!(attached);
}
