//! The wait strategies a ring can be created with.

use std::fmt;
use std::str::FromStr;

/// How the two sides of a ring wait for each other. Chosen at creation and recorded in the ring, so
/// that both ends agree.
///
/// | strategy | waits by | wakes with | choose it when |
/// | --- | --- | --- | --- |
/// | `Spin` | looking again, with pauses; yields after a while | nothing | each side has a processor of its own and latency is all |
/// | `Adaptive` | spinning as long as that has paid lately, then a futex | a futex, only if the peer sleeps | always, unless you know better |
/// | `Futex` | a futex at once | a futex, only if the peer sleeps | processors are shared and messages are rare |
/// | `Semaphore` | a POSIX semaphore | a POSIX semaphore, only if the peer sleeps | futexes are forbidden to the program |
/// | `EventFd` | `poll` on an event descriptor | the descriptor, only if the peer sleeps | the ring is one of many things an event loop waits for |
///
/// With `Semaphore` and `EventFd` a peer that means harm has the means: it can overwrite a semaphore at the
/// moment of a call, for which the C library ends the process, and turn a descriptor that both have into one
/// that blocks. Choose another strategy where peers are not trusted.
///
/// Sleeping is never without end: a sleeper looks every 80 ms whether its peer is dead.
///
/// ```
/// use ringway::wait::WaitStrategy;
/// assert_eq!("adaptive".parse(), Ok(WaitStrategy::Adaptive));
/// assert_eq!(WaitStrategy::EventFd.to_string(), "eventfd");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WaitStrategy {
    /// Never sleeps.
    Spin,
    /// Spins while that pays, then sleeps on a futex.
    #[default]
    Adaptive,
    /// Sleeps on a futex.
    Futex,
    /// Sleeps on a POSIX semaphore.
    Semaphore,
    /// Sleeps on an event descriptor.
    EventFd,
}

impl WaitStrategy {
    /// All of them.
    pub const ALL: [WaitStrategy; 5] = [
        WaitStrategy::Spin,
        WaitStrategy::Adaptive,
        WaitStrategy::Futex,
        WaitStrategy::Semaphore,
        WaitStrategy::EventFd,
    ];

    /// Whether a side may sleep, and the other has to look for sleepers.
    pub(crate) fn parks(self) -> bool {
        self != WaitStrategy::Spin
    }

    /// The number that stands for it in a ring's header.
    pub(crate) fn code(self) -> u32 {
        match self {
            WaitStrategy::Spin => 1,
            WaitStrategy::Adaptive => 2,
            WaitStrategy::Futex => 3,
            WaitStrategy::Semaphore => 4,
            WaitStrategy::EventFd => 5,
        }
    }

    /// The strategy a number stands for.
    pub(crate) fn from_code(code: u32) -> Option<WaitStrategy> {
        WaitStrategy::ALL
            .into_iter()
            .find(|strategy| strategy.code() == code)
    }

    fn name(self) -> &'static str {
        match self {
            WaitStrategy::Spin => "spin",
            WaitStrategy::Adaptive => "adaptive",
            WaitStrategy::Futex => "futex",
            WaitStrategy::Semaphore => "semaphore",
            WaitStrategy::EventFd => "eventfd",
        }
    }
}

impl fmt::Display for WaitStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for WaitStrategy {
    type Err = UnknownStrategy;

    fn from_str(name: &str) -> Result<WaitStrategy, UnknownStrategy> {
        WaitStrategy::ALL
            .into_iter()
            .find(|strategy| strategy.name() == name)
            .ok_or_else(|| UnknownStrategy(name.to_owned()))
    }
}

/// A name that is no wait strategy's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no wait strategy; there are spin, adaptive, futex, semaphore and eventfd")]
pub struct UnknownStrategy(String);
