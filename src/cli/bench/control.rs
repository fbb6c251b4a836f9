//! The page by which the two workers of a repetition keep in step, and the probe that says how far
//! apart their processors are.

use std::os::fd::BorrowedFd;

use super::link::Outcome;
use crate::os::{self, bare::Area, clock};
use crate::primitive::{AtomicU32, AtomicU64, CachePadded, Ordering, spin_loop};

/// What the two workers share besides the mechanism under test.
#[repr(C)]
struct Page {
    /// How many meetings each worker has come to.
    arrived: [CachePadded<AtomicU32>; 2],
    /// The process of each worker.
    pid: [AtomicU32; 2],
    /// The next phase: what to do, how many messages, and when to begin.
    kind: AtomicU32,
    count: AtomicU64,
    start: AtomicU64,
    /// Whether each worker is between the first and the last message of what is measured.
    measuring: [AtomicU32; 2],
    /// When the follower received the last message.
    finished: CachePadded<AtomicU64>,
    /// The lines that the probe bounces.
    ball: [CachePadded<AtomicU64>; 5],
}

/// How many bytes the page has.
pub(crate) const LEN: usize = 4096;
const _: () = assert!(size_of::<Page>() <= LEN);

/// Which of the two workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Role {
    /// Sends first, decides what is done next, and keeps the time.
    Leader,
    /// Answers, or receives.
    Follower,
}

impl Role {
    fn index(self) -> usize {
        match self {
            Role::Leader => 0,
            Role::Follower => 1,
        }
    }
}

/// What the workers do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing more.
    Stop,
    /// Get warm, and compare every byte.
    Warm,
    /// What counts.
    Measure,
}

/// One phase of a repetition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Phase {
    pub(crate) kind: Kind,
    /// How many messages (or round trips).
    pub(crate) count: u64,
    /// In the paced mode, when the first message is due.
    pub(crate) start: u64,
}

/// One worker's view of the page.
pub(crate) struct Control {
    area: Area,
    role: Role,
    /// Whether the other worker has another processor.
    apart: bool,
}

impl Control {
    /// Maps the page behind `fd`.
    pub(crate) fn map(fd: BorrowedFd<'_>, role: Role, apart: bool) -> Outcome<Control> {
        let control = Control {
            area: Area::map(fd, LEN)?,
            role,
            apart,
        };
        control.page().pid[role.index()].store(std::process::id(), Ordering::Relaxed);
        Ok(control)
    }

    /// Maps the page behind `fd` for the parent, which only looks.
    pub(crate) fn watch(fd: BorrowedFd<'_>) -> Outcome<Control> {
        Ok(Control {
            area: Area::map(fd, LEN)?,
            role: Role::Leader,
            apart: true,
        })
    }

    fn page(&self) -> &Page {
        // SAFETY: the area is page-aligned, zeroed at creation (a valid Page), larger than a Page,
        // and lives as long as `self`; it is only accessed through atomics.
        unsafe { &*self.area.base().cast::<Page>() }
    }

    /// The process of the other worker; known after the first meeting.
    pub(crate) fn peer(&self) -> u32 {
        self.page().pid[1 - self.role.index()].load(Ordering::Relaxed)
    }

    /// Waits until both workers are here. (A worker that waits in vain is ended by its alarm, or
    /// by the parent, which ends both when one fails.)
    pub(crate) fn meet(&self) {
        let page = self.page();
        // SYNC: what a worker did before a meeting is visible to the other after it.
        let mine = page.arrived[self.role.index()].fetch_add(1, Ordering::AcqRel) + 1;
        let other = &page.arrived[1 - self.role.index()];
        let mut spins = 0u32;
        // SYNC: what a worker did before a meeting is visible to the other after it.
        while (other.load(Ordering::Acquire).wrapping_sub(mine) as i32) < 0 {
            spins += 1;
            if self.apart && !spins.is_multiple_of(1024) {
                spin_loop();
            } else {
                os::yield_now();
            }
        }
    }

    /// The leader announces a phase; it begins when this returns.
    pub(crate) fn announce(&self, phase: Phase) {
        let page = self.page();
        // Relaxed, like the loads in `listen`: the meeting orders them.
        page.kind.store(phase.kind as u32, Ordering::Relaxed);
        page.count.store(phase.count, Ordering::Relaxed);
        page.start.store(phase.start, Ordering::Relaxed);
        self.meet();
    }

    /// The follower waits for the next phase.
    pub(crate) fn listen(&self) -> Phase {
        self.meet();
        let page = self.page();
        Phase {
            kind: match page.kind.load(Ordering::Relaxed) {
                0 => Kind::Stop,
                1 => Kind::Warm,
                _ => Kind::Measure,
            },
            count: page.count.load(Ordering::Relaxed),
            start: page.start.load(Ordering::Relaxed),
        }
    }

    /// Says whether this worker is between the first and the last message of what is measured.
    pub(crate) fn set_measuring(&self, measuring: bool) {
        // Relaxed: whoever looks has this worker stopped at a system call.
        self.page().measuring[self.role.index()].store(u32::from(measuring), Ordering::Relaxed);
    }

    /// What the worker of index `worker` said last, or false before that.
    pub(crate) fn is_measuring(&self, worker: usize) -> bool {
        self.page().measuring[worker].load(Ordering::Relaxed) != 0
    }

    /// The follower has received everything, now.
    pub(crate) fn finish(&self) {
        // Relaxed, like the load below: the meeting that follows orders them.
        self.page().finished.store(clock::now(), Ordering::Relaxed);
    }

    /// When the follower finished the phase before the last meeting.
    pub(crate) fn finished(&self) -> u64 {
        self.page().finished.load(Ordering::Relaxed)
    }

    /// The two words of a bare futex ping-pong: leader to follower, and back.
    pub(crate) fn futex_words(&self) -> [&AtomicU32; 2] {
        let page = self.page();
        // SAFETY: the first half of an AtomicU64 is aligned memory of an AtomicU32's size, in the
        // mapping, and while a futex ping-pong runs nobody uses the ball as 64 bits.
        [&page.ball[3], &page.ball[4]].map(|ball| unsafe { &*ball.as_ptr().cast::<AtomicU32>() })
    }

    /// Measures how long a value takes to the other processor and back: in one line, and in two.
    /// Nothing when both workers share a processor. Both workers call it.
    pub(crate) fn probe(&self) -> Option<Probe> {
        if !self.apart {
            return None;
        }
        let ball = &self.page().ball;
        self.meet();
        let raw1 = self.bounce(&ball[0], &ball[0]);
        self.meet();
        let raw2 = self.bounce(&ball[1], &ball[2]);
        self.meet();
        Some(Probe { raw1, raw2 })
    }

    /// Bounces a value `ROUNDS * BLOCK` times; nanoseconds of a round trip in the median block.
    fn bounce(&self, there: &AtomicU64, back: &AtomicU64) -> f64 {
        const ROUNDS: usize = 64;
        const BLOCK: u64 = 64;
        let one_line = core::ptr::eq(there, back);
        let first = back.load(Ordering::Relaxed);
        self.meet();
        // In one line, odd values go there and even ones come back; in two, each has its own count.
        let step = if one_line { 2 } else { 1 };
        let (ping, pong) = (
            |i: u64| first + step * i - (step - 1),
            |i: u64| first + step * i,
        );
        let mut blocks = Vec::with_capacity(ROUNDS);
        let mut i = 0;
        for _ in 0..ROUNDS {
            let begun = clock::now();
            for _ in 0..BLOCK {
                i += 1;
                match self.role {
                    // Release and acquire as a ring needs them, though no payload hangs on them:
                    // the limit must not be had with less than a message costs.
                    Role::Leader => {
                        there.store(ping(i), Ordering::Release);
                        while back.load(Ordering::Acquire) != pong(i) {}
                    }
                    Role::Follower => {
                        while there.load(Ordering::Acquire) != ping(i) {}
                        back.store(pong(i), Ordering::Release);
                    }
                }
            }
            blocks.push((clock::now() - begun) as f64 / BLOCK as f64);
        }
        super::statistics::median(&mut blocks)
    }
}

/// How long a value took to the other processor and back, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Probe {
    /// In one cache line.
    pub(crate) raw1: f64,
    /// In two cache lines, one for each direction.
    pub(crate) raw2: f64,
}
