//! How an MPMC ring is created.

use crate::error::Error;
use crate::layout::{Header, Kind};
use crate::primitive::{Pairs, Slots};
use crate::ring::mpmc::{Intents, MAX_PARTICIPANTS, OnDeath as Policy};
use crate::schema::Schema;
use crate::wait::WaitStrategy;

use super::participant::Control;

/// What becomes of a message whose consumer died before it was done with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnDeath {
    /// Another consumer gets it, marked as redelivered: at least once.
    #[default]
    Redeliver,
    /// It is lost: at most once.
    Drop,
}

impl OnDeath {
    pub(super) fn policy(self) -> Policy {
        match self {
            OnDeath::Redeliver => Policy::Redeliver,
            OnDeath::Drop => Policy::Drop,
        }
    }
}

/// Bytes in which a slot's length, and so its stride, is a multiple: no two slots share a line.
const LINE: u64 = 64;
/// Bytes of a slot of a ring of pairs.
const PAIR: u64 = 64;
/// Flag in the header: policy drop.
const DROP: u32 = 1;
/// Flag in the header: the messages are items of 8 bytes.
const ITEMS: u32 = 2;
/// Flag in the header: the slots are pairs of 16 bytes, changed as a whole.
const PAIRED: u32 = 4;
const MAX_SLOTS: u64 = 1 << 32;
const MAX_SLOT_SIZE: u64 = 1 << 30;

/// The settings of a new ring. They are recorded in it; who attaches takes them from there.
///
/// ```
/// use ringway::mpmc::{Config, OnDeath};
/// let config = Config::default().slots(256).slot_size(1024).on_death(OnDeath::Drop);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Config {
    slots: u64,
    slot_size: u64,
    participants: usize,
    wait: WaitStrategy,
    on_death: OnDeath,
    items: bool,
    portable: bool,
    mode: u32,
    schema: Option<Schema>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            slots: 1024,
            slot_size: 48,
            participants: MAX_PARTICIPANTS,
            wait: WaitStrategy::default(),
            on_death: OnDeath::default(),
            items: false,
            portable: false,
            mode: 0o600,
            schema: None,
        }
    }
}

impl Config {
    /// How many messages fit: from 2 up, rounded up to a power of two. 1024 unless told.
    pub fn slots(mut self, slots: u64) -> Config {
        self.slots = slots;
        self
    }

    /// The longest message, in bytes: from 8 up. 48 unless told, which fits a slot into one cache line.
    /// Memory is used in steps of 64 bytes, 16 of which are the slot's own.
    pub fn slot_size(mut self, bytes: u64) -> Config {
        self.slot_size = bytes;
        self
    }

    /// How many producers and consumers, clones included, can be attached at once: up to 255, which
    /// it is unless told.
    pub fn participants(mut self, most: usize) -> Config {
        self.participants = most;
        self
    }

    /// How both sides wait.
    pub fn wait(mut self, strategy: WaitStrategy) -> Config {
        self.wait = strategy;
        self
    }

    /// What becomes of a message whose consumer dies.
    pub fn on_death(mut self, policy: OnDeath) -> Config {
        self.on_death = policy;
        self
    }

    /// Permission bits of a named ring. 0o600 unless told: only the same user.
    pub fn mode(mut self, mode: u32) -> Config {
        self.mode = mode;
        self
    }

    /// A ring of items in the form for processors that cannot change 16 bytes at once, for tests.
    #[doc(hidden)]
    pub fn portable_items(mut self) -> Config {
        self.portable = true;
        self
    }

    /// The same for a ring of items.
    pub(super) fn items(self) -> Config {
        Config {
            slot_size: 8,
            on_death: OnDeath::Drop,
            items: true,
            ..self
        }
    }

    /// The same for a ring of values, with slots large enough for one.
    pub(super) fn carrying(self, schema: Schema) -> Config {
        Config {
            slot_size: self.slot_size.max(schema.size()),
            schema: Some(schema),
            ..self
        }
    }

    pub(super) fn file_mode(&self) -> u32 {
        self.mode
    }

    /// The header of a ring made so.
    pub(super) fn header(&self) -> Result<Header, Error> {
        let refuse = |what, value: u64, why: &str, remedy: &str| Error::Config {
            what,
            value: value.to_string(),
            why: why.into(),
            remedy: remedy.into(),
        };
        if !(2..=MAX_SLOTS).contains(&self.slots) {
            let why = "a ring has 2 to 2^32 slots";
            return Err(refuse(
                "slots",
                self.slots,
                why,
                "choose a number in that range",
            ));
        }
        if !(8..=MAX_SLOT_SIZE).contains(&self.slot_size) {
            let why = "a slot holds 8 bytes to 1 GiB";
            let remedy = "choose a size in that range, or send longer messages in parts";
            return Err(refuse("slot size", self.slot_size, why, remedy));
        }
        if !(2..=MAX_PARTICIPANTS).contains(&self.participants) {
            let why = "a ring has 2 to 255 participants";
            let remedy = "choose a number in that range, or use several rings";
            return Err(refuse(
                "participants",
                self.participants as u64,
                why,
                remedy,
            ));
        }
        let capacity = self.slots.next_power_of_two();
        let mut flags = if self.on_death == OnDeath::Drop {
            DROP
        } else {
            0
        };
        if self.items {
            flags |= if Pairs::are_possible() && !self.portable {
                ITEMS | PAIRED
            } else {
                ITEMS
            };
        }
        let stride = stride(self.slot_size, flags);
        let data_len = capacity.checked_mul(stride).filter(|len| *len <= 1 << 40);
        let Some(data_len) = data_len else {
            let why = "slots of that size take more than 1 TiB";
            return Err(refuse(
                "slots",
                self.slots,
                why,
                "use fewer or smaller ones",
            ));
        };
        let mut header = Header {
            slot: self.slot_size,
            participants: self.participants as u32,
            flags,
            control_len: control_len(self.participants as u64),
            data_len,
            ..Header::new(Kind::Mpmc, self.wait.code(), capacity)
        };
        if let Some(schema) = &self.schema {
            schema.record(&mut header);
        }
        Ok(header)
    }
}

/// Refuses a header that [`Config::header`] could not have made.
pub(crate) fn check_header(name: &str, header: &Header) -> Result<(), Error> {
    Geometry::of(name, header).map(drop)
}

fn stride(slot_size: u64, flags: u32) -> u64 {
    if flags & PAIRED != 0 {
        return PAIR;
    }
    (Slots::PAYLOAD + slot_size).next_multiple_of(LINE)
}

fn control_len(participants: u64) -> u64 {
    size_of::<Control>() as u64 + participants * size_of::<Intents>() as u64
}

/// The geometry of a ring, checked against its header once, and private from then on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Geometry {
    pub(super) capacity: u64,
    pub(super) slot_size: u64,
    pub(super) stride: u64,
    pub(super) participants: u32,
    pub(super) wait: WaitStrategy,
    pub(super) on_death: OnDeath,
    /// The messages are items of 8 bytes.
    pub(super) items: bool,
    /// The slots are pairs.
    pub(super) paired: bool,
}

impl Geometry {
    /// What a header says, if an honest creator can have written it.
    pub(super) fn of(name: &str, header: &Header) -> Result<Geometry, Error> {
        let corrupt = |what, offset| Error::Corrupt {
            name: name.into(),
            what,
            offset,
        };
        let Header {
            capacity,
            slot,
            participants,
            flags,
            ..
        } = *header;
        if !(2..=MAX_SLOTS).contains(&capacity) || !capacity.is_power_of_two() {
            return Err(corrupt("number of slots", 24));
        }
        if !(8..=MAX_SLOT_SIZE).contains(&slot) {
            return Err(corrupt("slot size", 32));
        }
        let stride = stride(slot, flags);
        if !(2..=MAX_PARTICIPANTS as u32).contains(&participants) {
            return Err(corrupt("number of participants", 40));
        }
        if header.control_len != control_len(participants.into())
            || Some(header.data_len) != capacity.checked_mul(stride)
        {
            return Err(corrupt("geometry", 48));
        }
        if flags & PAIRED != 0 && (flags & ITEMS == 0 || slot != 8) {
            return Err(corrupt("flags", 44));
        }
        let wait = WaitStrategy::from_code(header.strategy).ok_or(corrupt("wait strategy", 20))?;
        let on_death = if header.flags & DROP != 0 {
            OnDeath::Drop
        } else {
            OnDeath::Redeliver
        };
        Ok(Geometry {
            capacity,
            slot_size: slot,
            stride,
            items: flags & ITEMS != 0,
            paired: flags & PAIRED != 0,
            participants,
            wait,
            on_death,
        })
    }
}
