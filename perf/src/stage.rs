//! Where a peer is measured: two pinned threads, or two pinned processes, a page by which they keep
//! in step, and probes of how far apart their processors are.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crossbeam_utils::CachePadded;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A message there and one back.
    Rtt,
    /// One message at a time, one way.
    Throughput,
    /// Batches of 32, one way.
    Batch,
}

impl Mode {
    /// The name in every output.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Rtt => "rtt",
            Mode::Throughput => "throughput",
            Mode::Batch => "batch",
        }
    }
}

/// How many messages a batch has.
pub const BATCH: usize = 32;

/// The sending end of a peer; messages are `N` bytes.
pub trait Tx<const N: usize> {
    /// Sends one message, waiting for room the way the peer's authors recommend for speed.
    fn send(&mut self, message: &[u8; N]);
    /// Sends messages `first`, `first + 1` and so on, `count` of them, as one batch.
    fn send_batch(&mut self, first: u64, count: usize) {
        for number in first..first + count as u64 {
            self.send(&message(number));
        }
    }
}

/// The receiving end of a peer.
pub trait Rx<const N: usize> {
    /// Receives one message, waiting for it.
    fn recv(&mut self) -> [u8; N];
    /// Receives at least one and at most `max` messages.
    fn recv_batch(&mut self, _max: usize, see: &mut impl FnMut(&[u8; N])) -> usize {
        see(&self.recv());
        1
    }
}

/// Message `number`: the number, then a pattern.
#[inline(always)]
pub fn message<const N: usize>(number: u64) -> [u8; N] {
    let mut message = [0xA5; N];
    message[..8].copy_from_slice(&number.to_le_bytes());
    message
}

/// Panics unless `message` is the one of that number.
#[inline(always)]
pub fn check<const N: usize>(message: &[u8; N], number: u64) {
    let found = u64::from_le_bytes(*message.first_chunk().expect("messages have a number"));
    assert!(
        found == number && message[N - 1] == self::message::<N>(number)[N - 1],
        "message {found} came where {number} was due"
    );
}

/// What both sides share.
#[repr(C)]
pub struct Page {
    arrived: [CachePadded<AtomicU64>; 2],
    ball: [CachePadded<AtomicU64>; 3],
    raw: [AtomicU64; 4],
    result: AtomicU64,
}

/// Which side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends first and keeps the time.
    Leader,
    /// Answers, or receives.
    Follower,
}

/// One repetition's outcome.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Nanoseconds of a round trip (median of blocks) or of a message.
    pub ns: f64,
    /// One-line and two-line round trips, before and after.
    pub raw: [f64; 4],
}

impl Outcome {
    /// Near, far, or moved meanwhile, as `ringway bench` has it.
    pub fn placement(&self) -> &'static str {
        match (self.raw[0] > 150.0, self.raw[2] > 150.0) {
            (false, false) => "near",
            (true, true) => "far",
            _ => "moved",
        }
    }
}

/// One side's view of a repetition.
#[derive(Clone, Copy)]
pub struct Party {
    page: &'static Page,
    /// Which side this is.
    pub role: Role,
    mode: Mode,
    count: u64,
}

fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is writable.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn pin(cpu: usize) {
    // SAFETY: an all-zero set is valid; the call reads it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set);
    }
}

fn shared_page() -> &'static Page {
    // SAFETY: a fresh shared mapping, which children of `fork` share, zeroed, and never unmapped.
    unsafe {
        let page = libc::mmap(
            std::ptr::null_mut(),
            size_of::<Page>(),
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
            -1,
            0,
        );
        assert!(page != libc::MAP_FAILED, "no memory for a page");
        &*page.cast::<Page>()
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

impl Party {
    fn index(&self) -> usize {
        self.role as usize
    }

    /// Waits until both sides are here.
    fn meet(&self) {
        let mine = self.page.arrived[self.index()].fetch_add(1, Ordering::AcqRel) + 1;
        while self.page.arrived[1 - self.index()].load(Ordering::Acquire) < mine {
            std::hint::spin_loop();
        }
    }

    /// Probes into places `at` and `at + 1` of the page.
    fn probe(&self, at: usize) {
        for (which, (there, back)) in [(0, 0), (1, 2)].into_iter().enumerate() {
            let (there, back) = (&self.page.ball[there], &self.page.ball[back]);
            self.meet();
            there.store(0, Ordering::Relaxed);
            back.store(0, Ordering::Relaxed);
            self.meet();
            let step = if which == 0 { 2 } else { 1 };
            let mut blocks = [0.0; 64];
            let mut i = 0;
            for block in &mut blocks {
                let begun = now();
                for _ in 0..64 {
                    i += 1;
                    let (ping, pong) = (step * i - (step - 1), step * i);
                    match self.role {
                        Role::Leader => {
                            there.store(ping, Ordering::Release);
                            while back.load(Ordering::Acquire) != pong {}
                        }
                        Role::Follower => {
                            while there.load(Ordering::Acquire) != ping {}
                            back.store(pong, Ordering::Release);
                        }
                    }
                }
                *block = (now() - begun) as f64 / 64.0;
            }
            if self.role == Role::Leader {
                self.page.raw[at + which].store(median(&mut blocks).to_bits(), Ordering::Relaxed);
            }
        }
        self.meet();
    }

    /// Runs this side over its ends.
    pub fn play<const N: usize>(self, mut tx: impl Tx<N>, mut rx: impl Rx<N>) {
        pin(self.index());
        self.probe(0);
        let leads = self.role == Role::Leader;
        let warm = self.count / 8;
        let total = warm + self.count;
        let mut blocks = Vec::with_capacity((self.count / 64 + 1) as usize);
        let mut begun = 0;
        match self.mode {
            Mode::Rtt => {
                for number in 0..total {
                    if leads {
                        if number >= warm && (number - warm).is_multiple_of(64) {
                            let now = now();
                            if number > warm {
                                blocks.push((now - begun) as f64 / 64.0);
                            }
                            begun = now;
                        }
                        tx.send(&message(number));
                        check(&rx.recv(), number);
                    } else {
                        let message = rx.recv();
                        check(&message, number);
                        tx.send(&message);
                    }
                }
            }
            Mode::Throughput | Mode::Batch => {
                let batch = self.mode == Mode::Batch;
                for (first, end) in [(0, warm), (warm, total)] {
                    self.meet();
                    begun = now();
                    let mut number = first;
                    while number < end {
                        match (leads, batch) {
                            (true, false) => {
                                tx.send(&message(number));
                                number += 1;
                            }
                            (true, true) => {
                                let count = (end - number).min(BATCH as u64);
                                tx.send_batch(number, count as usize);
                                number += count;
                            }
                            (false, false) => {
                                check(&rx.recv(), number);
                                number += 1;
                            }
                            (false, true) => {
                                let max = (end - number).min(BATCH as u64) as usize;
                                rx.recv_batch(max, &mut |message| {
                                    check(message, number);
                                    number += 1;
                                });
                            }
                        }
                    }
                    self.meet();
                    if !blocks.is_empty() {
                        blocks.clear();
                    }
                    blocks.push((now() - begun) as f64 / self.count.max(1) as f64);
                }
            }
        }
        if leads {
            let ns = if blocks.is_empty() {
                (now() - begun) as f64 / self.count as f64
            } else {
                median(&mut blocks)
            };
            self.page.result.store(ns.to_bits(), Ordering::Relaxed);
        }
        self.probe(2);
        // Ends are dropped only after both sides have finished.
        self.meet();
        drop((tx, rx));
    }
}

fn outcome(page: &Page) -> Outcome {
    fence(Ordering::Acquire);
    let float = |word: &AtomicU64| f64::from_bits(word.load(Ordering::Relaxed));
    Outcome {
        ns: float(&page.result),
        raw: [0, 1, 2, 3].map(|i| float(&page.raw[i])),
    }
}

/// Ends of a process once it is old enough to have hung.
fn in_child(work: impl FnOnce()) -> libc::pid_t {
    // SAFETY: this program has one thread when it forks; the child leaves by _exit.
    unsafe {
        let pid = libc::fork();
        assert!(pid >= 0, "fork failed");
        if pid == 0 {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::alarm(30);
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_ok();
            libc::_exit(i32::from(!done));
        }
        pid
    }
}

/// A third process that a peer needs, ended when this is dropped.
#[cfg(feature = "aeron")]
pub struct Helper(libc::pid_t);

#[cfg(feature = "aeron")]
impl Helper {
    /// Starts it.
    pub fn start(work: impl FnOnce()) -> Helper {
        Helper(in_child(work))
    }
}

#[cfg(feature = "aeron")]
impl Drop for Helper {
    fn drop(&mut self) {
        // SAFETY: kill and waitpid of a child of this process that nobody else waits for.
        unsafe {
            libc::kill(self.0, libc::SIGKILL);
            libc::waitpid(self.0, std::ptr::null_mut(), 0);
        }
    }
}

/// Whether all children ended well; when one does not, the others are ended.
fn all_well(pids: &[libc::pid_t]) -> bool {
    let mut well = true;
    for _ in pids {
        let mut status = 0;
        // SAFETY: `status` is writable; of other children only a peer's helper exists, which outlives these.
        unsafe { libc::waitpid(-1, &mut status, 0) };
        if status != 0 && well {
            well = false;
            for &pid in pids {
                // SAFETY: kill takes integers; one already gone is a zombie or an error.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
        }
    }
    well
}

/// Runs a repetition of a peer that joins processes; `side` opens one side's ends and plays.
pub fn processes(mode: Mode, count: u64, side: impl Fn(Party)) -> Option<Outcome> {
    let page = shared_page();
    let pids = [Role::Leader, Role::Follower].map(|role| {
        in_child(|| {
            side(Party {
                page,
                role,
                mode,
                count,
            })
        })
    });
    let well = all_well(&pids);
    let outcome = outcome(page);
    // SAFETY: the children have ended, and no reference is used after this.
    unsafe { libc::munmap((page as *const Page).cast_mut().cast(), size_of::<Page>()) };
    well.then_some(outcome)
}

/// Runs a repetition of a peer whose two ends are made before the processes part.
pub fn forked<const N: usize, T, R>(
    mode: Mode,
    count: u64,
    pair: impl Fn() -> (T, R),
) -> Option<Outcome>
where
    T: Tx<N>,
    R: Rx<N>,
{
    let ((there, arriving), (back, returning)) = (pair(), pair());
    let leader = RefCell::new(Some((there, returning)));
    let follower = RefCell::new(Some((back, arriving)));
    processes(mode, count, |party| {
        let ends = match party.role {
            Role::Leader => &leader,
            Role::Follower => &follower,
        };
        if let Some((tx, rx)) = ends.take() {
            party.play(tx, rx);
        }
    })
}

/// Runs a repetition of a peer that joins threads, in a process of its own.
pub fn threads<const N: usize, T, R>(
    mode: Mode,
    count: u64,
    pair: impl Fn() -> (T, R),
) -> Option<Outcome>
where
    T: Tx<N> + Send,
    R: Rx<N> + Send,
{
    let page = shared_page();
    let pid = in_child(|| {
        let ((there, arriving), (back, returning)) = (pair(), pair());
        let party = |role| Party {
            page,
            role,
            mode,
            count,
        };
        std::thread::scope(|scope| {
            scope.spawn(|| party(Role::Follower).play(back, arriving));
            party(Role::Leader).play(there, returning);
        });
    });
    let well = all_well(&[pid]);
    let outcome = outcome(page);
    // SAFETY: the child has ended, and no reference is used after this.
    unsafe { libc::munmap((page as *const Page).cast_mut().cast(), size_of::<Page>()) };
    well.then_some(outcome)
}
