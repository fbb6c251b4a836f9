//! How a broadcast ring is created.

use crate::error::Error;
use crate::layout::{CAPACITY_MIN, Header, Kind, check_capacity};
use crate::ring::broadcast::{Control, Seat, max_message};
use crate::schema::Schema;
use crate::wait::WaitStrategy;

use super::ring::Door;

/// Flag in the header: the producer does not wait.
const LOSSY: u32 = 1;
/// In the header's flags, from this bit on: the subscribers that are expected.
const EXPECTED: u32 = 8;
const SUBSCRIBERS_MAX: u64 = 4095;

/// What happens when a subscriber is slower than the producer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The producer waits: nobody who is alive misses anything. A dead subscriber is waited for no
    /// longer than 100 ms.
    #[default]
    Lossless,
    /// The producer never waits: a subscriber that falls a lap behind is told exactly how many messages
    /// it missed ([`RecvError::Missed`](crate::RecvError::Missed)).
    Lossy,
}

/// The settings of a new ring. They are recorded in it; who attaches takes them from there.
///
/// ```
/// use ringway::broadcast::{Config, Policy};
/// let config = Config::default().capacity(1 << 20).policy(Policy::Lossy).subscribers(100);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Config {
    capacity: u64,
    policy: Policy,
    subscribers: u64,
    expected: u64,
    wait: WaitStrategy,
    mode: u32,
    schema: Option<Schema>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            capacity: 64 << 10,
            policy: Policy::default(),
            subscribers: 64,
            expected: 0,
            wait: WaitStrategy::default(),
            mode: 0o600,
            schema: None,
        }
    }
}

impl Config {
    /// Bytes of the data area: a power of two from 256 to 4 GiB, 64 KiB unless told. A message takes
    /// its length, rounded up to 8 bytes, and 8 bytes more; the longest is a little under half of this.
    /// Of what was sent at least three eighths of the capacity stay readable for those who come late,
    /// seven eighths if messages are short.
    pub fn capacity(mut self, bytes: u64) -> Config {
        self.capacity = bytes;
        self
    }

    /// What happens when a subscriber is slow. [`Policy::Lossless`] unless told.
    pub fn policy(mut self, policy: Policy) -> Config {
        self.policy = policy;
        self
    }

    /// How many subscribers can be attached at once: 1 to 4095, 64 unless told. Those who only look on
    /// ([`Ring::observe`](super::Ring::observe)) are not counted.
    pub fn subscribers(mut self, most: u64) -> Config {
        self.subscribers = most;
        self
    }

    /// Nothing is overwritten before this many subscribers have come: when the ring is full, the
    /// producer waits for them. So none of them misses the beginning, if it starts at the oldest message.
    /// Nor is anything once all of them have gone: the producer is told so then, with
    /// [`SendError::Closed`](crate::SendError::Closed) or [`SendError::PeerDied`](crate::SendError::PeerDied).
    /// 0 unless told: without subscribers a producer never waits. Of no effect on a lossy ring.
    pub fn expected(mut self, subscribers: u64) -> Config {
        self.expected = subscribers;
        self
    }

    /// How both sides wait. All strategies but `EventFd`: one event descriptor cannot wake many.
    pub fn wait(mut self, strategy: WaitStrategy) -> Config {
        self.wait = strategy;
        self
    }

    /// Permission bits of a named ring. 0o600 unless told: only the same user. With 0o644 others may
    /// observe, and cannot harm.
    pub fn mode(mut self, mode: u32) -> Config {
        self.mode = mode;
        self
    }

    /// The longest message of a ring made so, in bytes. 0 for a capacity that cannot be used.
    pub fn max_message(&self) -> usize {
        if self.capacity < CAPACITY_MIN {
            0
        } else {
            max_message(self.capacity) as usize
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.capacity
    }

    /// The same for a ring of values.
    pub(super) fn carrying(self, schema: Schema) -> Config {
        let schema = Some(schema);
        Config { schema, ..self }
    }

    pub(super) fn file_mode(&self) -> u32 {
        self.mode
    }

    /// The header of a ring made so.
    pub(super) fn header(&self) -> Result<Header, Error> {
        check_capacity(self.capacity)?;
        let refuse = |what, value: u64, why: &str, remedy: &str| Error::Config {
            what,
            value: value.to_string(),
            why: why.into(),
            remedy: remedy.into(),
        };
        if !(1..=SUBSCRIBERS_MAX).contains(&self.subscribers) {
            return Err(refuse(
                "subscribers",
                self.subscribers,
                "a ring has room for 1 to 4095 of them",
                "choose a number in that range; those who only observe are not counted",
            ));
        }
        if self.expected > self.subscribers {
            return Err(refuse(
                "expected subscribers",
                self.expected,
                "there is no room for so many",
                "raise `subscribers` too",
            ));
        }
        if self.wait == WaitStrategy::EventFd {
            return Err(NO_EVENTS);
        }
        let lossy = if self.policy == Policy::Lossy {
            LOSSY
        } else {
            0
        };
        let mut header = Header {
            participants: 1 + self.subscribers as u32,
            flags: lossy | (self.expected as u32) << EXPECTED,
            control_len: control_len(self.subscribers),
            ..Header::new(Kind::Broadcast, self.wait.code(), self.capacity)
        };
        if let Some(schema) = &self.schema {
            schema.record(&mut header);
        }
        Ok(header)
    }
}

const NO_EVENTS: Error = Error::Unsupported {
    mechanism: "a broadcast ring",
    what: "wake its subscribers by an event descriptor, which wakes just one",
    remedy: "create it with another wait strategy",
};

fn control_len(subscribers: u64) -> u64 {
    size_of::<Control>() as u64 + subscribers * (size_of::<Seat>() + size_of::<Door>()) as u64
}

/// What is fixed about a ring, checked once against what its header says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub(super) capacity: u64,
    pub(super) max: usize,
    pub(super) policy: Policy,
    pub(super) subscribers: u32,
    pub(super) expected: u64,
    pub(super) wait: WaitStrategy,
}

impl Geometry {
    /// The geometry that a header describes, if it is one that [`Config::header`] could have made.
    pub(super) fn of(name: &str, header: &Header) -> Result<Geometry, Error> {
        let corrupt = |what, offset: usize| Error::Corrupt {
            name: name.into(),
            what,
            offset: offset as u64,
        };
        let at = core::mem::offset_of!(Header, capacity);
        check_capacity(header.capacity).map_err(|_| corrupt("capacity", at))?;
        let subscribers = u64::from(header.participants).wrapping_sub(1);
        let fits = header.data_len == header.capacity
            && (1..=SUBSCRIBERS_MAX).contains(&subscribers)
            && header.control_len == control_len(subscribers);
        if !fits {
            return Err(corrupt("geometry", at));
        }
        let at = core::mem::offset_of!(Header, strategy);
        let wait = WaitStrategy::from_code(header.strategy)
            .filter(|wait| *wait != WaitStrategy::EventFd)
            .ok_or_else(|| corrupt("wait strategy", at))?;
        Ok(Geometry {
            capacity: header.capacity,
            max: max_message(header.capacity) as usize,
            policy: if header.flags & LOSSY != 0 {
                Policy::Lossy
            } else {
                Policy::Lossless
            },
            subscribers: subscribers as u32,
            expected: u64::from(header.flags >> EXPECTED) & SUBSCRIBERS_MAX,
            wait,
        })
    }
}

/// Refuses a header that [`Config::header`] could not have made.
pub(crate) fn check_header(name: &str, header: &Header) -> Result<(), Error> {
    Geometry::of(name, header).map(drop)
}

/// Where seat number `index` lies in the file.
pub(crate) fn seat_at(header: &Header, index: u32) -> u64 {
    header.control() + (size_of::<Control>() + index as usize * size_of::<Seat>()) as u64
}

/// Whether nobody holds the producer back.
pub(crate) fn is_lossy(header: &Header) -> bool {
    header.flags & LOSSY != 0
}

/// Whether subscribers that are expected have not come yet, and what was sent waits for them.
pub(crate) fn awaits(header: &Header, control: &Control) -> bool {
    let expected = u64::from(header.flags >> EXPECTED) & SUBSCRIBERS_MAX;
    !is_lossy(header)
        && control.joined.load(crate::primitive::Ordering::Relaxed) < expected
        && control.sent() > 0
}
