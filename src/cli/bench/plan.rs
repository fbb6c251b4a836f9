//! What can be measured, and what is: mechanisms, waits, modes, sizes, and the list of cases that
//! one round goes through.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::table::size;

/// A way for two processes to hand each other messages, or a limit of the hardware.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mechanism {
    /// Limit: two processes bounce one value in one cache line.
    Raw1,
    /// Limit: two processes bounce one value between two cache lines, one for each direction.
    Raw2,
    /// Limit: two processes put each other to sleep and wake each other by a bare futex.
    BareFutex,
    /// Limit: one process copies between two buffers of its own.
    Memcpy,
    /// Ringway's ring for one producer and one consumer.
    Spsc,
    /// Ringway's ring for many producers and many consumers.
    Mpmc,
    /// Ringway's ring whose subscribers each see every message, lossless, with one of them.
    Broadcast,
    /// Shared memory guarded by POSIX semaphores, the classic way.
    Semaphore,
    /// Shared memory guarded by eventfds.
    Eventfd,
    /// A pipe.
    Pipe,
    /// A named pipe.
    Fifo,
    /// A POSIX message queue.
    Mqueue,
    /// A System V message queue.
    Sysv,
    /// A real-time signal that carries eight bytes.
    Signal,
    /// A Unix stream socket.
    UnixStream,
    /// A Unix socket that keeps message boundaries.
    UnixSeqpacket,
    /// A Unix datagram socket.
    UnixDatagram,
    /// A TCP connection over the loopback device.
    Tcp,
}

impl Mechanism {
    /// The name used on the command line and in every output.
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether it is a limit to compare with and not a way to send messages.
    pub(crate) fn is_limit(self) -> bool {
        self <= Mechanism::Memcpy
    }

    /// Whether it is measured around every repetition of the others, and has none of its own.
    pub(crate) fn is_probed(self) -> bool {
        self <= Mechanism::Raw2
    }

    /// Whether it is one of the mechanisms that Ringway is compared with.
    pub(crate) fn is_classic(self) -> bool {
        self >= Mechanism::Semaphore
    }

    /// The ways to wait that it offers; a mechanism whose waiting is the kernel's has none.
    pub(crate) fn waits(self) -> &'static [Wait] {
        match self {
            Mechanism::Spsc | Mechanism::Mpmc => &[
                Wait::Spin,
                Wait::Adaptive,
                Wait::Futex,
                Wait::Semaphore,
                Wait::Eventfd,
            ],
            // An event descriptor wakes one, and there may be many.
            Mechanism::Broadcast => &[Wait::Spin, Wait::Adaptive, Wait::Futex, Wait::Semaphore],
            _ => &[],
        }
    }

    /// The modes that mean something for it.
    pub(crate) fn offers(self, mode: Mode) -> bool {
        match self {
            Mechanism::Raw1 | Mechanism::Raw2 | Mechanism::BareFutex => mode == Mode::Rtt,
            Mechanism::Memcpy => mode == Mode::Throughput,
            _ => true,
        }
    }

    /// The largest message on this machine, in bytes, and what sets that limit.
    pub(crate) fn max_message(self) -> (usize, &'static str) {
        let read = |path: &str, default: usize| {
            std::fs::read_to_string(path)
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(default)
        };
        match self {
            Mechanism::Raw1 | Mechanism::Raw2 | Mechanism::BareFutex => (8, "it carries one word"),
            Mechanism::Signal => (8, "a signal carries one pointer-sized value"),
            Mechanism::Mqueue => (
                read("/proc/sys/fs/mqueue/msgsize_max", 8192),
                "/proc/sys/fs/mqueue/msgsize_max",
            ),
            Mechanism::Sysv => (
                read("/proc/sys/kernel/msgmax", 8192),
                "/proc/sys/kernel/msgmax",
            ),
            Mechanism::UnixSeqpacket | Mechanism::UnixDatagram => (
                read("/proc/sys/net/core/wmem_max", 212_992),
                "/proc/sys/net/core/wmem_max",
            ),
            _ => (usize::MAX, ""),
        }
    }
}

/// How a side that has nothing to do waits.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Wait {
    /// Never sleeps.
    Spin,
    /// Spins for as long as it pays, then sleeps.
    Adaptive,
    /// Sleeps on a futex at once.
    Futex,
    /// Sleeps on a POSIX semaphore at once.
    Semaphore,
    /// Sleeps on an eventfd at once.
    Eventfd,
}

impl Wait {
    /// The name used on the command line and in every output.
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// What is measured about a mechanism.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Mode {
    /// A message there and one back, nothing else under way.
    Rtt,
    /// A message there, by the clock that both processes read, nothing else under way.
    Oneway,
    /// As many messages one way as will go, one at a time.
    Throughput,
    /// As many messages one way as will go, in batches of 32.
    Batch,
    /// Open load: messages one way at given rates, measured from when each was due (see --rate).
    Paced,
}

impl Mode {
    /// The name used on the command line and in every output.
    pub(crate) fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether it counts messages (and not nanoseconds).
    pub(crate) fn is_throughput(self) -> bool {
        matches!(self, Mode::Throughput | Mode::Batch)
    }
}

/// How many messages a batch has.
pub(crate) const BATCH: usize = 32;

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Case {
    /// The mode, first, so that cases sort as they are shown.
    pub(crate) mode: Mode,
    /// The length of a message, in bytes.
    pub(crate) size: usize,
    /// The mechanism.
    pub(crate) mechanism: Mechanism,
    /// How it waits, where that can be chosen.
    pub(crate) wait: Option<Wait>,
    /// Messages a second, in the paced mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<u64>,
}

impl Case {
    /// The mechanism and its wait, as people read it.
    pub(crate) fn label(&self) -> String {
        match self.wait {
            Some(wait) => format!("{} {}", self.mechanism.name(), wait.name()),
            None => self.mechanism.name(),
        }
    }

    /// Whether neither side ever asks the kernel to wait for it while the other keeps up: its
    /// limit is then the cache, and else the kernel's wake-up.
    pub(crate) fn stays_in_user_space(&self) -> bool {
        matches!(self.wait, Some(Wait::Spin | Wait::Adaptive))
    }

    /// The limit that a result of this case is compared with.
    pub(crate) fn limit(&self) -> Mechanism {
        match (self.mode.is_throughput(), self.stays_in_user_space()) {
            (true, _) => Mechanism::Memcpy,
            (false, true) => Mechanism::Raw2,
            (false, false) => Mechanism::BareFutex,
        }
    }
}

/// What the user asked for.
pub(crate) struct Choice<'a> {
    pub(crate) mechanisms: &'a [Mechanism],
    pub(crate) waits: &'a [Wait],
    /// Each mode with its sizes.
    pub(crate) modes: &'a [(Mode, Vec<usize>)],
    /// The rates of the paced mode, from the least to the greatest.
    pub(crate) rates: &'a [u64],
}

/// What cannot be measured, and why.
#[derive(PartialEq, Serialize)]
pub(crate) struct LeftOut {
    pub(crate) mechanism: Mechanism,
    pub(crate) size: usize,
    pub(crate) why: String,
}

impl LeftOut {
    /// In words.
    pub(crate) fn describe(&self) -> String {
        format!(
            "{} at {} ({})",
            self.mechanism.name(),
            size(self.size),
            self.why
        )
    }
}

/// The cases of one round, limits included, and what is left out. The rates of one mechanism follow
/// each other, least first.
pub(crate) fn cases(choice: &Choice<'_>) -> (Vec<Case>, Vec<LeftOut>) {
    let mut cases = Vec::new();
    let mut left_out = Vec::new();
    let sized = choice
        .modes
        .iter()
        .flat_map(|(mode, sizes)| sizes.iter().map(move |&size| (*mode, size)));
    for (mode, size) in sized {
        for &mechanism in choice.mechanisms {
            if !mechanism.offers(mode) {
                continue;
            }
            let size = match mechanism {
                Mechanism::BareFutex => 0,
                _ if mechanism.is_probed() => continue,
                _ => size,
            };
            if let Some(why) = refusal(mechanism, mode, size) {
                let one = LeftOut {
                    mechanism,
                    size,
                    why,
                };
                if !left_out.contains(&one) {
                    left_out.push(one);
                }
                continue;
            }
            for wait in choice.waits_of(mechanism) {
                for rate in choice.rates_of(mode) {
                    let case = Case {
                        mode,
                        size,
                        mechanism,
                        wait,
                        rate,
                    };
                    if !cases.contains(&case) {
                        cases.push(case);
                    }
                }
            }
        }
    }
    (cases, left_out)
}

/// Why `mechanism` cannot be measured so, if it cannot.
fn refusal(mechanism: Mechanism, mode: Mode, size: usize) -> Option<String> {
    let (max, why) = mechanism.max_message();
    if size > max {
        Some(format!("at most {max} bytes: {why}"))
    } else if mode == Mode::Oneway && size < 8 {
        Some("one-way needs 8 bytes for the time of sending".into())
    } else {
        None
    }
}

impl Choice<'_> {
    fn waits_of(&self, mechanism: Mechanism) -> Vec<Option<Wait>> {
        let chosen = |wait: &&Wait| self.waits.is_empty() || self.waits.contains(wait);
        match mechanism.waits() {
            [] => vec![None],
            waits => waits.iter().filter(chosen).copied().map(Some).collect(),
        }
    }

    fn rates_of(&self, mode: Mode) -> Vec<Option<u64>> {
        match mode {
            Mode::Paced => self.rates.iter().copied().map(Some).collect(),
            _ => vec![None],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_measured_once_and_rates_rise() {
        let (cases, left_out) = cases(&Choice {
            mechanisms: &[Mechanism::BareFutex, Mechanism::Pipe, Mechanism::Signal],
            waits: &[],
            modes: &[(Mode::Rtt, vec![8, 64]), (Mode::Paced, vec![64])],
            rates: &[1_000, 10_000],
        });
        let names: Vec<_> = cases
            .iter()
            .map(|case| (case.mechanism.name(), case.size, case.rate))
            .collect();
        assert_eq!(
            names,
            [
                ("bare-futex".to_owned(), 0, None),
                ("pipe".to_owned(), 8, None),
                ("signal".to_owned(), 8, None),
                ("pipe".to_owned(), 64, None),
                ("pipe".to_owned(), 64, Some(1_000)),
                ("pipe".to_owned(), 64, Some(10_000)),
            ]
        );
        assert_eq!(left_out.len(), 1, "signals carry 8 bytes");
    }

    #[test]
    fn every_ring_is_measured_under_every_wait_strategy() {
        for ring in [Mechanism::Spsc, Mechanism::Mpmc] {
            assert_eq!(ring.waits(), Wait::value_variants());
        }
        let waits = Wait::value_variants().iter();
        let but_one = waits.filter(|wait| **wait != Wait::Eventfd);
        assert!(but_one.eq(Mechanism::Broadcast.waits()));
    }
}
