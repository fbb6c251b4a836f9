//! Sleeping and waking, by the means that a ring's wait strategy names.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use crate::error::Error;
use crate::layout;
use crate::mapping::Mapping;
use crate::os;
use crate::os::clock::Deadline;
use crate::os::eventfd::EventFd;
use crate::os::semaphore::Semaphore;
use crate::wait::WaitStrategy;

/// The longest sleep without a look at whether the peer is dead, or was killed or stopped between
/// publishing and waking, in nanoseconds.
pub(crate) const SLICE: u64 = 80_000_000;
/// The longest sleep where the kernel makes no barriers, in nanoseconds: the peer may not see that this side sleeps.
pub(crate) const SLICE_UNSEEN: u64 = 1_000_000;

/// The two doors of a ring: what each side waits at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Where receivers wait for messages.
    Messages = 0,
    /// Where senders wait for room.
    Room = 1,
}

/// The event descriptors of a ring with strategy `EventFd`, by door.
pub(crate) type Events = Arc<[EventFd; 2]>;

/// Sleeps at one door and wakes those who sleep there.
#[derive(Clone)]
pub(crate) enum Sleeper {
    /// On the word itself.
    Futex,
    /// On a semaphore in the mapping.
    Semaphore(Semaphore),
    /// On an event descriptor.
    EventFd(Events, Door),
}

fn semaphore(mapping: &Mapping, door: Door) -> Semaphore {
    let at = layout::DOORS + door as u64 * 128;
    // SAFETY: the doors lie in the header's page, aligned to 128, inside the mapping, which the
    // handles that own sleepers keep.
    unsafe { Semaphore::at(mapping.at(at)) }
}

/// Makes the semaphores of a new ring.
pub(crate) fn init(mapping: &Mapping) -> Result<(), Error> {
    for door in [Door::Messages, Door::Room] {
        semaphore(mapping, door)
            .init(0)
            .map_err(|error| Error::os("sem_init", mapping.name(), error))?;
    }
    Ok(())
}

impl Sleeper {
    /// The sleeper for `door` of a ring.
    pub(crate) fn new(
        mapping: &Mapping,
        strategy: WaitStrategy,
        events: Option<&Events>,
        door: Door,
    ) -> Result<Sleeper, Error> {
        match strategy {
            WaitStrategy::Semaphore => Ok(Sleeper::Semaphore(semaphore(mapping, door))),
            WaitStrategy::EventFd => match events {
                Some(events) => Ok(Sleeper::EventFd(events.clone(), door)),
                None => Err(NO_EVENTS),
            },
            _ => Ok(Sleeper::Futex),
        }
    }

    /// Sleeps while the futex half of `word` is that of `expected`, until woken, until `deadline`,
    /// or for a slice of time.
    pub(crate) fn sleep(
        &self,
        word: &AtomicU64,
        expected: u64,
        deadline: Deadline,
    ) -> io::Result<()> {
        let deadline = deadline.at_most(SLICE);
        let result = match self {
            Sleeper::Futex => os::futex::wait(futex_half(word), expected as u32, deadline),
            // A wake-up kept from earlier makes this return at once, and the caller look again.
            Sleeper::Semaphore(semaphore) => semaphore.wait(deadline).map(drop),
            Sleeper::EventFd(events, door) => events[*door as usize].wait(deadline).map(drop),
        };
        match result {
            Err(error) if error.raw_os_error() == Some(os::TIMED_OUT) => Ok(()),
            Err(error) if error.raw_os_error() == Some(os::NO_MEMORY_THERE) => Err(
                io::Error::other("the ring's memory is not there any more: somebody truncated it"),
            ),
            result => result,
        }
    }

    /// The event descriptor on which it sleeps, if it does.
    pub(crate) fn event(&self) -> Option<&EventFd> {
        match self {
            Sleeper::EventFd(events, door) => Some(&events[*door as usize]),
            _ => None,
        }
    }

    /// Wakes one that sleeps on `word`.
    #[cold]
    pub(crate) fn wake(&self, word: &AtomicU64) {
        match self {
            Sleeper::Futex => {
                os::futex::wake(futex_half(word), 1);
            }
            Sleeper::Semaphore(semaphore) => semaphore.post(),
            Sleeper::EventFd(events, door) => events[*door as usize].notify(),
        }
    }
}

/// Wakes all that sleep on `word`, by one call.
#[cold]
pub(crate) fn wake_all(word: &AtomicU64) {
    os::futex::wake(futex_half(word), u32::MAX);
}

/// Why a ring with strategy `EventFd` cannot be used here.
pub(crate) const NO_EVENTS: Error = Error::Unsupported {
    mechanism: "a ring with wait strategy EventFd",
    what: "be attached by name or by its memory alone, since its event descriptors have no name",
    remedy: "pass the whole ring over a Unix socket (send_over, receive_over), let a child inherit it, or create it with another strategy",
};

/// The half of a word that holds its flags, as a futex. Only its address is used, by the kernel.
pub(crate) fn futex_half(word: &AtomicU64) -> &AtomicU32 {
    let half = if cfg!(target_endian = "little") { 0 } else { 1 };
    // SAFETY: inside the eight bytes of `word`, aligned to 4, valid as long as it is; the library
    // itself never reads or writes through this reference.
    unsafe { &*word.as_ptr().cast::<AtomicU32>().add(half) }
}
