//! How an SPSC ring is created.

use crate::error::Error;
use crate::layout::{CAPACITY_MIN, Header, Kind, check_capacity};
use crate::ring::spsc::{Control, max_message};
use crate::schema::Schema;
use crate::wait::WaitStrategy;

/// Flag in the header: the consumer touches the lines that it gives back.
pub(super) const TOUCH: u32 = 1;

/// The settings of a new ring. They are recorded in it; who attaches takes them from there.
///
/// ```
/// use ringway::{spsc::Config, wait::WaitStrategy};
/// let config = Config::default().capacity(1 << 20).wait(WaitStrategy::Futex);
/// assert_eq!(config.max_message(), (1 << 19) - 72);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Config {
    capacity: u64,
    wait: WaitStrategy,
    mode: u32,
    huge_pages: bool,
    touch: bool,
    schema: Option<Schema>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            capacity: 64 << 10,
            wait: WaitStrategy::default(),
            mode: 0o600,
            huge_pages: false,
            touch: true,
            schema: None,
        }
    }
}

impl Config {
    /// Bytes of the data area: a power of two from 256 to 4 GiB, 64 KiB unless told. A message takes
    /// its length, rounded up to 8 bytes, and 8 bytes more. Small rings stay in the nearer caches; the
    /// longest message is a little under half of this.
    pub fn capacity(mut self, bytes: u64) -> Config {
        self.capacity = bytes;
        self
    }

    /// How both sides wait.
    pub fn wait(mut self, strategy: WaitStrategy) -> Config {
        self.wait = strategy;
        self
    }

    /// Permission bits of a named ring. 0o600 unless told: only the same user.
    pub fn mode(mut self, mode: u32) -> Config {
        self.mode = mode;
        self
    }

    /// Asks for huge pages, which an anonymous ring can have if the system has a pool of them. Where
    /// there are none it gets ordinary ones, and [`Ring::huge_pages_refused`](super::Ring::huge_pages_refused)
    /// says why.
    pub fn huge_pages(mut self, ask: bool) -> Config {
        self.huge_pages = ask;
        self
    }

    /// Whether a consumer that is behind stores a word, unchanged, in each cache line before it gives
    /// it back, so that the line need not be shared first when the producer writes it again. True
    /// unless told: messages of 1 KiB pass more than twice as fast with it on the processors measured
    /// (ARCHITECTURE.md says which).
    pub fn touch(mut self, touch: bool) -> Config {
        self.touch = touch;
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

    pub(super) fn asks_huge_pages(&self) -> bool {
        self.huge_pages
    }

    /// The header of a ring made so.
    pub(super) fn header(&self) -> Result<Header, Error> {
        check_capacity(self.capacity)?;
        let mut header = Header {
            participants: 2,
            flags: if self.touch { TOUCH } else { 0 },
            control_len: size_of::<Control>() as u64,
            ..Header::new(Kind::Spsc, self.wait.code(), self.capacity)
        };
        if let Some(schema) = &self.schema {
            schema.record(&mut header);
        }
        Ok(header)
    }
}

/// What is fixed about a ring, checked once against what its header says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub(super) capacity: u64,
    pub(super) max: usize,
    pub(super) wait: WaitStrategy,
    pub(super) touch: bool,
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
        let fits = header.data_len == header.capacity
            && header.control_len == size_of::<Control>() as u64
            && header.participants == 2;
        if !fits {
            return Err(corrupt("geometry", at));
        }
        let at = core::mem::offset_of!(Header, strategy);
        let wait =
            WaitStrategy::from_code(header.strategy).ok_or_else(|| corrupt("wait strategy", at))?;
        Ok(Geometry {
            capacity: header.capacity,
            max: max_message(header.capacity) as usize,
            wait,
            touch: header.flags & TOUCH != 0,
        })
    }
}

/// Refuses a header that [`Config::header`] could not have made.
pub(crate) fn check_header(name: &str, header: &Header) -> Result<(), Error> {
    Geometry::of(name, header).map(drop)
}
