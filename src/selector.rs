//! Waiting for many rings, channels and descriptors at once.
//!
//! ```
//! use ringway::selector::Selector;
//! use ringway::{channel, spsc};
//!
//! # let ring = spsc::Ring::anonymous(Default::default())?;
//! # let (mut tx, mut orders) = (ring.producer()?, ring.consumer()?);
//! # let (_alive, mut commands) = channel::pipe::pair()?;
//! # tx.send(b"buy 100")?;
//! use channel::Receiver;
//! let mut selector = Selector::new();
//! let mut command = Vec::new();
//! # let mut done = false;
//! # while !done {
//! for ready in selector.wait(&mut [&mut orders, &mut commands])? {
//!     match ready {
//!         0 => println!("{:?}", orders.try_recv()?),
//!         _ => commands.try_recv(&mut command)?,
//!     }
//!     # done = true;
//! }
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The list is lent for the time of one wait, as to `poll`: between waits the handles are yours, and
//! receiving from one needs nobody's leave. What is ready is worth a call that does not block: it gives
//! a message or the reason why there are none any more, but may give `Empty` now and then (part of a
//! long message has come, say).
//!
//! # How it sleeps
//!
//! | waited for | by |
//! | --- | --- |
//! | rings with futexes (`Adaptive`, `Futex`), up to 128 | `futex_waitv` on the words themselves |
//! | rings with event descriptors, pipes, FIFOs, sockets, message queues, other descriptors | `poll` |
//! | both, or more rings | `poll`; a helper thread of this process sleeps on the words and wakes it |
//! | rings that spin | not at all: it looks, and yields, as they do |
//!
//! On kernels before 5.16, which have no `futex_waitv`, several rings with futexes are looked at every
//! millisecond; give them event descriptors there. Rings with semaphores, and the channels made of
//! semaphores and of signals, cannot be waited for together with others: that is an error.
//!
//! It looks before it sleeps, as long as that has paid lately; and every 80 ms, as every sleeper here,
//! whether peers are dead.
//!
//! # Fairness
//!
//! Each wait reports all that is ready, rings and descriptors alike, beginning with another one each
//! time. Who takes one message of each and waits again serves all alike.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use crate::awaited::{Awaited, Budget};
use crate::bridge::{self, Registration, Wait};
use crate::channel;
use crate::error::Error;
use crate::os;
use crate::os::clock::{self, Deadline};
use crate::os::eventfd::EventFd;
use crate::os::futex::{self, Waited};
use crate::os::poll;
use crate::participant;
use crate::primitive::{Ordering, spin_loop};
use crate::sleeper::{SLICE, futex_half};
use crate::typed;
use crate::wait::WaitStrategy;

/// How often several futexes are looked at where the kernel cannot wait for them, in nanoseconds.
const GLANCE: u64 = 1_000_000;

/// Waits for many things at once; see the [module](self). Keeps what is worth keeping from one wait to
/// the next; there is no harm in having several.
#[derive(Debug)]
pub struct Selector {
    /// With whom to begin.
    turn: usize,
    /// When it was last asked after the peers.
    pulsed: u64,
    budget: Budget,
    helper: Option<Helper>,
}

/// What can be waited for: receiving ends of rings and channels, and [`Readable`] descriptors.
pub trait Selectable: sealed::Sealed {}

impl<T: sealed::Sealed + ?Sized> Selectable for T {}

pub(crate) mod sealed {
    use super::Awaited;
    use std::os::fd::RawFd;

    /// By what it is waited for.
    #[allow(missing_debug_implementations)]
    pub enum Source<'a> {
        /// There is something now.
        Ready,
        /// A ring.
        Ring(Side<'a>),
        /// One of these becomes readable.
        Descriptors(Vec<RawFd>),
        /// It cannot be waited for together with others: what it is.
        Alone(&'static str),
    }

    /// One side of a ring.
    #[allow(missing_debug_implementations)]
    pub struct Side<'a>(pub(crate) &'a mut (dyn Awaited + 'static));

    /// See [`Selectable`](super::Selectable).
    pub trait Sealed {
        /// By what it is waited for.
        fn source(&mut self) -> Source<'_>;

        /// Whether, although no descriptor says so, there is nothing to wait for any more. Asked now
        /// and then.
        fn has_ended(&mut self) -> bool {
            false
        }
    }
}

use sealed::{Sealed, Side, Source};

impl<T: channel::Receiver + ?Sized> Sealed for T {
    fn source(&mut self) -> Source<'_> {
        self.awaited()
    }

    fn has_ended(&mut self) -> bool {
        self.has_ended()
    }
}

macro_rules! ring_ends {
    ($($end:ty;)*) => {$(
        impl Sealed for $end {
            fn source(&mut self) -> Source<'_> {
                Source::Ring(Side(self.awaited()))
            }
        }
    )*};
}

ring_ends! {
    crate::spsc::Consumer;
    crate::mpmc::Consumer;
    crate::broadcast::Subscriber;
}

impl<C: typed::Receives + Awaited + 'static, T: typed::Value> Sealed for typed::Consumer<C, T> {
    fn source(&mut self) -> Source<'_> {
        Source::Ring(Side(self.untyped()))
    }
}

/// A descriptor to be waited for until it is readable (or hung up, or in error): a socket, a timer,
/// standard input.
///
/// ```
/// use ringway::selector::{Readable, Selector};
/// use std::io::Write;
/// let (mut here, there) = std::os::unix::net::UnixStream::pair()?;
/// here.write_all(b"x")?;
/// let ready = Selector::new().wait(&mut [&mut Readable(&there)])?;
/// assert!(ready.contains(0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Readable<'a, F: AsFd>(pub &'a F);

impl<F: AsFd> Sealed for Readable<'_, F> {
    fn source(&mut self) -> Source<'_> {
        Source::Descriptors(vec![self.0.as_fd().as_raw_fd()])
    }
}

/// Which of the things waited for are ready, by their numbers in the list; see [`Selector::wait`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready(Vec<usize>);

impl Ready {
    /// Whether nothing is: the time has passed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the one of that number is.
    pub fn contains(&self, number: usize) -> bool {
        self.0.contains(&number)
    }
}

impl IntoIterator for Ready {
    type Item = usize;
    type IntoIter = std::vec::IntoIter<usize>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Default for Selector {
    fn default() -> Selector {
        Selector::new()
    }
}

impl Selector {
    /// A selector.
    pub fn new() -> Selector {
        Selector {
            turn: 0,
            pulsed: 0,
            budget: Budget::new(),
            helper: None,
        }
    }

    /// Waits until at least one of `sources` is ready, and says which are.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for what cannot be waited for together with others; [`Error::NoRoom`]
    /// when there are no descriptors or threads left for waiting by.
    pub fn wait(&mut self, sources: &mut [&mut dyn Selectable]) -> Result<Ready, Error> {
        self.wait_until(sources, Deadline::NEVER)
    }

    /// As [`Selector::wait`], no longer than `timeout`: nothing is ready then. With a `timeout` of zero
    /// it only looks.
    ///
    /// # Errors
    /// As [`Selector::wait`].
    pub fn wait_timeout(
        &mut self,
        sources: &mut [&mut dyn Selectable],
        timeout: Duration,
    ) -> Result<Ready, Error> {
        self.wait_until(sources, Deadline::after(timeout))
    }

    fn wait_until(
        &mut self,
        sources: &mut [&mut dyn Selectable],
        deadline: Deadline,
    ) -> Result<Ready, Error> {
        loop {
            let ended = self.pulse(sources);
            if !ended.is_empty() {
                return self.all_ready(sources, &ended);
            }
            let looks = (self.budget.looks() / sources.len().max(1) as u32).max(1);
            for _ in 0..looks {
                if sources.iter_mut().any(|source| is_ready(*source)) {
                    self.budget.paid();
                    return self.all_ready(sources, &[]);
                }
                spin_loop();
            }
            self.budget.failed();
            if self.sleep(sources, deadline)? || deadline.passed() {
                return self.all_ready(sources, &[]);
            }
        }
    }

    /// Once in a slice of time, however busy some are: asks after the peers of all. Returns those that
    /// have ended and do not say so themselves.
    fn pulse(&mut self, sources: &mut [&mut dyn Selectable]) -> Vec<usize> {
        let now = clock::now();
        if now.saturating_sub(self.pulsed) < SLICE {
            return Vec::new();
        }
        self.pulsed = now;
        let mut ended = Vec::new();
        for (number, source) in sources.iter_mut().enumerate() {
            if source.has_ended() {
                ended.push(number);
            }
            if let Source::Ring(Side(ring)) = source.source() {
                ring.pulse();
            }
        }
        ended
    }

    /// All that is ready now, beginning with whose turn it is.
    fn all_ready(
        &mut self,
        sources: &mut [&mut dyn Selectable],
        ended: &[usize],
    ) -> Result<Ready, Error> {
        let count = sources.len();
        let mut polls = Vec::new();
        let mut owners = Vec::new();
        let mut ready = vec![false; count];
        ended.iter().for_each(|number| ready[*number] = true);
        for (number, source) in sources.iter_mut().enumerate() {
            match source.source() {
                Source::Ready => ready[number] = true,
                Source::Ring(Side(ring)) => ready[number] = ring.is_ready(),
                Source::Descriptors(fds) => {
                    owners.extend(fds.iter().map(|_| number));
                    polls.extend(fds.into_iter().map(poll::readable));
                }
                Source::Alone(_) => {}
            }
        }
        if !polls.is_empty() {
            poll::several(&mut polls, Deadline::after(Duration::ZERO))
                .map_err(|error| Error::os("poll", "selector", error))?;
            for (poll, owner) in polls.iter().zip(owners) {
                ready[owner] |= poll.revents != 0;
            }
        }
        self.turn = self.turn.wrapping_add(1);
        let turn = self.turn % count.max(1);
        let all = (turn..count).chain(0..turn);
        Ok(Ready(all.filter(|number| ready[*number]).collect()))
    }

    /// Announces for all, and sleeps until something happens, for a slice of time at most. True when
    /// something is ready for certain.
    fn sleep(
        &mut self,
        sources: &mut [&mut dyn Selectable],
        deadline: Deadline,
    ) -> Result<bool, Error> {
        let fail = |op| move |error| Error::os(op, "selector", error);
        let slice = deadline.at_most(SLICE);
        let mut rings: Vec<(&mut dyn Awaited, u64)> = Vec::new();
        let mut polls = Vec::new();
        let mut spins = false;
        for source in sources.iter_mut() {
            match source.source() {
                Source::Ready => return Ok(true),
                Source::Alone(mechanism) => return Err(alone(mechanism)),
                Source::Descriptors(fds) => polls.extend(fds.into_iter().map(poll::readable)),
                Source::Ring(Side(ring)) => {
                    if ring.is_ready() {
                        return Ok(true);
                    }
                    match ring.strategy() {
                        WaitStrategy::Spin => spins = true,
                        WaitStrategy::Semaphore => {
                            return Err(alone("a ring with wait strategy Semaphore"));
                        }
                        _ => {}
                    }
                    if let Some(event) = ring.sleeper().event() {
                        // What was signalled before it is looked at is looked at now.
                        event.clear();
                    }
                    match ring.announce() {
                        Some(expected) => rings.push((ring, expected)),
                        None => return Ok(true),
                    }
                }
            }
        }
        let descriptors = polls.len();
        polls.extend(rings.iter().filter_map(|(ring, _)| {
            let event = ring.sleeper().event()?;
            Some(poll::readable(event.as_fd().as_raw_fd()))
        }));
        let on_words: Vec<_> = rings
            .iter()
            .filter(|(ring, _)| ring.sleeper().event().is_none())
            .map(|(ring, expected)| (&**ring, *expected))
            .collect();
        if spins {
            os::yield_now();
            let now = Deadline::after(Duration::ZERO);
            poll::several(&mut polls, now).map_err(fail("poll"))?;
        } else if on_words.is_empty() {
            poll::several(&mut polls, slice).map_err(fail("poll"))?;
        } else if polls.is_empty()
            && (on_words.len() == 1 || futex::can_wait_for_many())
            && on_words.len() <= futex::MANY
        {
            sleep_on(&on_words, slice).map_err(fail("futex"))?;
        } else if futex::can_wait_for_many() {
            let helper = match &mut self.helper {
                Some(helper) => helper,
                none => none.insert(Helper::new().map_err(fail("eventfd"))?),
            };
            helper.event.0.clear();
            helper.register(&on_words).map_err(fail("thread"))?;
            polls.push(poll::readable(helper.event.0.as_fd().as_raw_fd()));
            poll::several(&mut polls, slice).map_err(fail("poll"))?;
        } else {
            poll::several(&mut polls, slice.at_most(GLANCE)).map_err(fail("poll"))?;
        }
        for (ring, _) in &mut rings {
            ring.woken();
        }
        Ok(polls[..descriptors].iter().any(|poll| poll.revents != 0))
    }
}

fn is_ready(source: &mut dyn Selectable) -> bool {
    match source.source() {
        Source::Ready => true,
        Source::Ring(Side(ring)) => ring.is_ready(),
        _ => false,
    }
}

fn alone(mechanism: &'static str) -> Error {
    Error::Unsupported {
        mechanism,
        what: "be waited for together with others",
        remedy: "use a ring with another wait strategy, a pipe, a FIFO, a socket or a message queue, or give it a thread of its own",
    }
}

/// Sleeps on the words themselves.
fn sleep_on(rings: &[(&dyn Awaited, u64)], slice: Deadline) -> std::io::Result<()> {
    let waited: Vec<_> = rings
        .iter()
        .map(|(ring, expected)| Waited {
            word: futex_half(ring.word()),
            expected: *expected as u32,
        })
        .collect();
    let result = match &waited[..] {
        [one] => futex::wait(one.word, one.expected, slice),
        many => futex::wait_any(many, slice).map(drop),
    };
    match result {
        Err(error) if error.raw_os_error() == Some(os::TIMED_OUT) => Ok(()),
        result => result,
    }
}

/// What wakes a `poll` when a word changes.
#[derive(Debug)]
struct Helper {
    event: Arc<Signal>,
    waker: Waker,
    /// Waits under way, by the address of their word: most rings are idle from one wait to the next.
    registrations: HashMap<usize, Registration>,
}

#[derive(Debug)]
struct Signal(EventFd);

impl Wake for Signal {
    fn wake(self: Arc<Signal>) {
        self.0.notify();
    }
}

impl Helper {
    fn new() -> std::io::Result<Helper> {
        let event = Arc::new(Signal(EventFd::new()?));
        Ok(Helper {
            waker: Waker::from(event.clone()),
            event,
            registrations: HashMap::new(),
        })
    }

    fn register(&mut self, rings: &[(&dyn Awaited, u64)]) -> std::io::Result<()> {
        let mut before = std::mem::take(&mut self.registrations);
        for (ring, expected) in rings {
            let joins = participant::joins(ring.mapping());
            let wait = Wait {
                word: (ring.word(), *expected),
                // Deaths are looked for in slices of time: newcomers do not matter.
                joins: (joins, joins.load(Ordering::Relaxed)),
                slices: false,
                keep: ring.mapping().keep(),
            };
            let address = ring.word().as_ptr() as usize;
            let registration = match before.remove(&address) {
                Some(old) if !old.has_fired() && old.is_for(&wait) => old,
                _ => bridge::register(&wait, &self.waker)?,
            };
            self.registrations.insert(address, registration);
        }
        Ok(())
    }
}

/// The descriptors of a channel, for [`Source::Descriptors`].
pub(crate) fn descriptors(fds: impl IntoIterator<Item = RawFd>) -> Source<'static> {
    Source::Descriptors(fds.into_iter().collect())
}
