//! The bytes in memory: what every ring's file begins with, and where its parts lie.
//!
//! ```text
//! 0          Header: what this is, its geometry; constant from creation on
//! 512        a count of those who have joined, for those who wait for deaths
//! 1024       Doors: the semaphores of the two sides (strategy Semaphore)
//! 2048       participant records, 128 bytes each
//! control    the control words of the ring's kind, aligned to 128
//! data       the data area or the slots, aligned to a page
//! ```
//!
//! Everything is in the byte order of the machine, which the marker tells.

use crate::error::Error;

/// The least and the greatest capacity of a data area, in bytes: four lines, and 4 GiB.
pub(crate) const CAPACITY_MIN: u64 = 4 * crate::primitive::LINE;
const CAPACITY_MAX: u64 = 1 << 32;
/// First bytes of every ring.
pub(crate) const MAGIC: [u8; 8] = *b"RINGWAY\0";
/// Changes whenever the layout or a protocol does.
pub(crate) const VERSION: u32 = 2;
/// Reads differently on a machine of the other byte order.
pub(crate) const ENDIAN: u32 = 0x0102_0304;
/// Where the count of joiners lies.
pub(crate) const JOINS: u64 = 512;
/// Where the semaphores lie.
pub(crate) const DOORS: u64 = 1024;
/// Where the participant records lie.
pub(crate) const PARTICIPANTS: u64 = 2048;
/// Bytes of a participant record.
pub(crate) const PARTICIPANT: u64 = 128;
/// The data area begins at a multiple of this.
pub(crate) const PAGE: u64 = 4096;
/// Room for the name of a type, in bytes.
pub(crate) const TYPE_NAME: usize = 256;

/// In [`Header::flags`]: the memory is of huge pages. The lower 24 bits are the kind's own.
pub(crate) const HUGE: u32 = 1 << 31;
/// Bytes of a huge page.
const HUGE_PAGE: u64 = 2 << 20;

/// The byte of the file on which everyone who is attached holds a shared lock.
pub(crate) const PRESENCE: u64 = 1 << 40;
/// The byte of the file on which one who is attached and takes the name away holds a lock for a moment.
pub(crate) const UNLINKING: u64 = PRESENCE + 1;
/// The first byte of the file on which a joining participant holds a lock for a moment.
pub(crate) const JOINING: u64 = 1 << 41;
/// The first byte of the file on which living participants hold locks, 2^20 for each record.
pub(crate) const TOKENS: u64 = 1 << 42;

/// The kinds of ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    /// One producer, one consumer, byte messages.
    Spsc = 1,
    /// Many producers, many consumers, slots.
    Mpmc = 2,
    /// One producer, many subscribers, byte messages.
    Broadcast = 3,
}

impl Kind {
    /// The kind that a number stands for.
    pub(crate) fn from_code(code: u32) -> Option<Kind> {
        [Kind::Spsc, Kind::Mpmc, Kind::Broadcast]
            .into_iter()
            .find(|kind| *kind as u32 == code)
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Spsc => "spsc ring",
            Kind::Mpmc => "mpmc ring",
            Kind::Broadcast => "broadcast ring",
        }
    }
}

/// What a ring's file begins with. Constant from creation on, and read once, into private memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Header {
    /// [`MAGIC`].
    pub(crate) magic: [u8; 8],
    /// [`VERSION`].
    pub(crate) version: u32,
    /// [`ENDIAN`].
    pub(crate) endian: u32,
    /// [`Kind`].
    pub(crate) kind: u32,
    /// The wait strategy's code.
    pub(crate) strategy: u32,
    /// Bytes of the data area (spsc, broadcast) or number of slots (mpmc).
    pub(crate) capacity: u64,
    /// Bytes of a slot's payload (mpmc), or 0.
    pub(crate) slot: u64,
    /// Number of participant records.
    pub(crate) participants: u32,
    /// The kind's own switches.
    pub(crate) flags: u32,
    /// Bytes of the control words.
    pub(crate) control_len: u64,
    /// Bytes of the data area or of all slots.
    pub(crate) data_len: u64,
    /// When it was created, in nanoseconds since 1970.
    pub(crate) created: u64,
    /// The process that created it.
    pub(crate) creator: u32,
    /// Version that the user gave to the type, or 0.
    pub(crate) type_version: u32,
    /// Size of the type that the messages are, or 0.
    pub(crate) type_size: u64,
    /// Alignment of the type that the messages are, or 0.
    pub(crate) type_align: u64,
    /// Name of the type, filled up with zeros.
    pub(crate) type_name: [u8; TYPE_NAME],
}

/// Bytes of the header.
pub(crate) const HEADER: usize = size_of::<Header>();

const _: () = assert!(HEADER == 352);
const _: () = assert!(HEADER as u64 <= JOINS && JOINS < DOORS);
const _: () = assert!(core::mem::offset_of!(Header, capacity) == 24);
const _: () = assert!(core::mem::offset_of!(Header, type_name) == 96);

impl Header {
    /// That of a new ring, made by this process: without types, flags or participants.
    pub(crate) fn new(kind: Kind, strategy: u32, capacity: u64) -> Header {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Header {
            magic: MAGIC,
            version: VERSION,
            endian: ENDIAN,
            kind: kind as u32,
            strategy,
            capacity,
            slot: 0,
            participants: 0,
            flags: 0,
            control_len: 0,
            data_len: capacity,
            created: now.map_or(0, |now| now.as_nanos() as u64),
            creator: std::process::id(),
            type_version: 0,
            type_size: 0,
            type_align: 0,
            type_name: [0; TYPE_NAME],
        }
    }

    /// Where the control words lie.
    pub(crate) fn control(&self) -> u64 {
        PARTICIPANTS + u64::from(self.participants) * PARTICIPANT
    }

    /// Where the data area or the slots lie.
    pub(crate) fn data(&self) -> u64 {
        (self.control() + self.control_len).next_multiple_of(PAGE)
    }

    /// Bytes of the whole file.
    pub(crate) fn total(&self) -> u64 {
        let page = if self.flags & HUGE != 0 {
            HUGE_PAGE
        } else {
            PAGE
        };
        (self.data() + self.data_len).next_multiple_of(page)
    }

    /// The bytes that stand for it.
    pub(crate) fn to_bytes(self) -> [u8; HEADER] {
        // SAFETY: `Header` is repr(C) without padding (asserted by its size, the sum of its
        // fields), so all its bytes are initialised.
        unsafe { core::mem::transmute(self) }
    }

    /// The header that the bytes stand for, whatever they are.
    pub(crate) fn from_bytes(bytes: [u8; HEADER]) -> Header {
        // SAFETY: every field of `Header` is an integer or an array of them: any bytes are valid.
        unsafe { core::mem::transmute(bytes) }
    }
}

const _: () = assert!(HEADER == 8 + 4 * 4 + 8 * 2 + 4 * 2 + 8 * 3 + 4 * 2 + 8 * 2 + TYPE_NAME);

/// Refuses a capacity, in bytes, that a data area cannot have.
pub(crate) fn check_capacity(capacity: u64) -> Result<(), Error> {
    let (why, remedy) = if !(CAPACITY_MIN..=CAPACITY_MAX).contains(&capacity) {
        (
            "it is not between 256 bytes and 4 GiB".into(),
            "choose one in that range".into(),
        )
    } else if !capacity.is_power_of_two() {
        let next = capacity.next_power_of_two();
        ("it is not a power of two".into(), format!("use {next}"))
    } else {
        return Ok(());
    };
    Err(Error::Config {
        what: "capacity",
        value: capacity.to_string(),
        why,
        remedy,
    })
}
