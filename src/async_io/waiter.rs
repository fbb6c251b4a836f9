//! How a handle waits when an executor does the sleeping.
//!
//! ```text
//! is it ready? ---------- yes: done
//!    | no; look a while, as long as that has paid lately (first poll of a wait only)
//! newcomers? whom to watch is looked up anew
//! what has become of the peers? something to tell: done
//! announce -------------- look again: from the top
//!    | the word as it is announced
//! event descriptor: it is in the epoll set        futex: the bridge sleeps on the word
//! deaths: process descriptors in the same epoll set
//!    |
//! Pending
//! ```
//!
//! The executor waits for the epoll set, which is one descriptor a handle. Nothing is looked at while
//! nothing happens; only where the death of a peer cannot be learnt of (it is in another pid namespace)
//! does the bridge look every 80 ms.
//!
//! No wake-up is lost: the descriptors keep their signal until it is taken here, and it is taken
//! *before* the next announcement and look; the bridge compares the words when it goes to sleep.

use std::io;
use std::os::fd::AsFd;
use std::task::{Context, Poll};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::awaited::{Awaited, Budget};
use crate::bridge::{self, Registration, Wait};
use crate::error::Error;
use crate::os::epoll::Epoll;
use crate::os::eventfd::EventFd;
use crate::os::futex;
use crate::os::life::Pidfd;
use crate::participant::{self, Witness};
use crate::primitive::{Ordering, spin_loop};
use crate::wait::WaitStrategy;

/// The number of the event descriptor in the epoll set; those of process descriptors are smaller.
const EVENT: u64 = u64::MAX;

/// What the waiting of one handle needs.
pub(super) struct Waiter {
    set: AsyncFd<Epoll>,
    /// The others, as they were when last looked up.
    watched: Vec<Watched>,
    /// The count of joiners then.
    joins: Option<u64>,
    registration: Option<Registration>,
    budget: Budget,
    /// A wait is going on, and it was announced.
    announced: bool,
}

struct Watched {
    index: u32,
    state: u64,
    /// Its death has to be looked for.
    unseen: bool,
    /// In the set until it says that the process is dead.
    process: Option<Pidfd>,
}

impl Waiter {
    pub(super) fn new(side: &dyn Awaited) -> Result<Waiter, Error> {
        let unsupported = |mechanism, remedy| Error::Unsupported {
            mechanism,
            what: "wake an executor",
            remedy,
        };
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Error::Unsupported {
                mechanism: "a thread outside a tokio runtime",
                what: "make asynchronous handles",
                remedy: "call into_async in a task, or under Runtime::enter",
            });
        }
        match side.strategy() {
            WaitStrategy::Spin => {
                return Err(unsupported(
                    "a ring with wait strategy Spin",
                    "create it with another strategy: nobody looks for sleepers in this one",
                ));
            }
            WaitStrategy::Semaphore => {
                return Err(unsupported(
                    "a ring with wait strategy Semaphore",
                    "create it with another strategy",
                ));
            }
            WaitStrategy::EventFd => {}
            _ if futex::can_wait_for_many() => {}
            _ => {
                return Err(unsupported(
                    "a ring with futexes, on a kernel before 5.16,",
                    "create it with wait strategy EventFd",
                ));
            }
        }
        let name = side.mapping().name();
        let set = Epoll::new().map_err(|error| Error::os("epoll_create1", name, error))?;
        if let Some(event) = side.sleeper().event() {
            set.add(event.as_fd(), EVENT)
                .map_err(|error| Error::os("epoll_ctl", name, error))?;
        }
        // SAFETY: `Epoll` owns its descriptor and gives the same one until it is dropped.
        let set = unsafe { AsyncFd::register_with_interest(set, Interest::READABLE) }
            .map_err(|error| Error::os("epoll_ctl", name, error.into_parts().1))?;
        Ok(Waiter {
            set,
            watched: Vec::new(),
            joins: None,
            registration: None,
            budget: Budget::new(),
            announced: false,
        })
    }

    /// Ready when a call on `side` that does not block has something to say.
    pub(super) fn poll(
        &mut self,
        side: &mut dyn Awaited,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if self.announced {
            side.woken();
        } else if self.look(side) {
            return Poll::Ready(Ok(()));
        }
        loop {
            self.watch(side)?;
            side.pulse();
            if side.is_ready() {
                return Poll::Ready(Ok(()));
            }
            self.announced = true;
            let Some(expected) = side.announce() else {
                return Poll::Ready(Ok(()));
            };
            let asleep = self.register(side, expected, cx)?;
            if let Poll::Ready(mut guard) = self.set.poll_read_ready(cx)? {
                while guard.get_inner().readable(|number| {
                    if number == EVENT {
                        side.sleeper().event().map(EventFd::clear);
                    } else {
                        // It is dead, and would say so for ever.
                        let dead = |watched: &&mut Watched| u64::from(watched.index) == number;
                        self.watched
                            .iter_mut()
                            .find(dead)
                            .map(|it| it.process.take());
                    }
                })? {}
                guard.clear_ready();
            } else if asleep {
                return Poll::Pending;
            }
            side.woken();
        }
    }

    /// Sees to it that the deaths of all others are noticed.
    fn watch(&mut self, side: &dyn Awaited) -> io::Result<()> {
        let mapping = side.mapping();
        // Acquire: who is counted is found LIVE.
        let joins = participant::joins(mapping).load(Ordering::Acquire);
        if self.joins == Some(joins) {
            return Ok(());
        }
        self.watched
            .retain(|watched| participant::state(mapping, watched.index) == watched.state);
        let known = |index, state| {
            let is = |watched: &Watched| (watched.index, watched.state) == (index, state);
            self.watched.iter().any(is)
        };
        let newcomers: Vec<_> = participant::others(mapping, side.index(), known).collect();
        for other in newcomers {
            let (process, unseen) = match other.process {
                Witness::Process(pidfd) => {
                    let number = other.index.into();
                    self.set.get_ref().add(pidfd.as_fd(), number)?;
                    (Some(pidfd), false)
                }
                Witness::None => (None, true),
                // It dies with us, or is dead: the next look at the peers tells.
                Witness::Own | Witness::Gone => (None, false),
            };
            self.watched.push(Watched {
                index: other.index,
                state: other.state,
                unseen,
                process,
            });
        }
        self.joins = Some(joins);
        Ok(())
    }

    /// Has the bridge sleep, where it takes one. False when something happened already.
    fn register(
        &mut self,
        side: &dyn Awaited,
        expected: u64,
        cx: &Context<'_>,
    ) -> io::Result<bool> {
        let slices = side.may_miss() || self.watched.iter().any(|watched| watched.unseen);
        if side.sleeper().event().is_some() && !slices {
            self.registration = None;
            return Ok(true);
        }
        let mapping = side.mapping();
        let wait = Wait {
            word: (side.word(), expected),
            joins: (participant::joins(mapping), self.joins.unwrap_or(0)),
            slices,
            keep: mapping.keep(),
        };
        let registration = match self.registration.take() {
            Some(old) if !old.has_fired() && old.is_for(&wait) => {
                old.set_waker(cx.waker());
                old
            }
            _ => bridge::register(&wait, cx.waker())?,
        };
        let asleep = !registration.has_fired();
        self.registration = Some(registration);
        Ok(asleep)
    }

    /// The end of a wait, however it came to it.
    pub(super) fn finish(&mut self, side: &mut dyn Awaited) {
        if std::mem::take(&mut self.announced) && side.pass_on() {
            // Wake-ups from now on are for others.
            self.registration = None;
        }
    }

    fn look(&mut self, side: &mut dyn Awaited) -> bool {
        for _ in 0..self.budget.looks() {
            if side.is_ready() {
                self.budget.paid();
                return true;
            }
            spin_loop();
        }
        self.budget.failed();
        false
    }
}
