//! An MPMC ring of values of one type; see [`crate::typed`] for what that means.
//!
//! ```
//! use ringway::mpmc;
//!
//! let ring = mpmc::typed::<[f32; 3]>().anonymous()?;
//! let (mut tx, mut rx) = (ring.producer()?, ring.consumer()?);
//! tx.send(&[1.0, 2.0, 3.0])?;
//! assert_eq!(rx.recv()?, [1.0, 2.0, 3.0]);
//!
//! tx.send_slice(&[[0.5; 3], [1.5; 3]])?; // one message of two values
//! assert_eq!(rx.recv_slice()?[1], [1.5; 3]); // read where they lie
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::borrow::Borrow;

use super::{Config, Message, Reservation, ring};
use crate::error::{Error, RecvError, SendError};
use crate::os::clock::Deadline;
use crate::schema::Schema;
use crate::typed::{self, AsBytes, Kind, Open, Receives, Value, copy_many, copy_one};

/// To what messages are aligned in the ring.
const ALIGN: usize = 16;

/// A ring of values of type `T`, to be created or attached.
///
/// ```
/// use ringway::mpmc::{self, Config};
/// # let name = format!("doc-mpmc-typed-{}", std::process::id());
/// let ring = mpmc::typed::<u64>().config(Config::default().slots(64)).create(&name)?;
/// assert!(mpmc::typed::<u32>().attach(&name).is_err());
/// # ring.untyped().unlink()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn typed<T: Value>() -> Builder<T> {
    Builder::new()
}

/// How a ring of values is created or attached: a [`typed::Builder`], from [`typed()`].
pub type Builder<T> = typed::Builder<super::Ring, T>;

/// A ring of values that this process has mapped: a [`typed::Ring`] around [`mpmc::Ring`](super::Ring).
pub type Ring<T> = typed::Ring<super::Ring, T>;

/// Sends values into an MPMC ring: a [`typed::Producer`] around [`mpmc::Producer`](super::Producer).
pub type Producer<T> = typed::Producer<super::Producer, T>;

/// Receives values from an MPMC ring: a [`typed::Consumer`] around
/// [`mpmc::Consumer`](super::Consumer).
pub type Consumer<T> = typed::Consumer<super::Consumer, T>;

impl Kind for super::Ring {
    type Config = Config;

    const OPEN: Open<super::Ring> = Open {
        create: ring::create,
        attach: ring::attach,
        create_or_attach: ring::create_or_attach,
        anonymous: super::Ring::anonymous,
        from_fd: super::Ring::from_fd,
    };

    fn carrying(config: Config, schema: &Schema) -> Result<Config, Error> {
        Ok(config.carrying(schema.clone()))
    }

    fn check(&self, schema: &Schema) -> Result<(), Error> {
        schema.check(self.name(), self.header())?;
        schema.must_fit(self.slot_size(), "slot size", self.slot_size() as u64)
    }
}

impl<T: Value> Ring<T> {
    /// A producer, attached as a participant of its own.
    ///
    /// # Errors
    /// As [`mpmc::Ring::producer`](super::Ring::producer).
    pub fn producer(&self) -> Result<Producer<T>, Error> {
        self.untyped().producer().map(Producer::new)
    }

    /// A consumer, attached as a participant of its own.
    ///
    /// # Errors
    /// As [`mpmc::Ring::consumer`](super::Ring::consumer).
    pub fn consumer(&self) -> Result<Consumer<T>, Error> {
        self.untyped().consumer().map(Consumer::new)
    }
}

typed::sends!(super::Producer, Reservation, aligned to ALIGN);

impl<T: Value> Producer<T> {
    /// Sends all values of a batch, each as a message of its own, waiting for room.
    ///
    /// # Errors
    /// As [`mpmc::Producer::send_batch`](super::Producer::send_batch).
    pub fn send_batch<I>(&mut self, values: I) -> Result<(), SendError>
    where
        I: IntoIterator<Item: Borrow<T>>,
    {
        self.untyped()
            .send_batch(values.into_iter().map(AsBytes::<_, T>::new))
    }

    /// As [`mpmc::Producer::close`](super::Producer::close): the ring is closed for everybody.
    ///
    /// # Errors
    /// As there.
    pub fn close(&mut self) -> Result<(), SendError> {
        self.untyped().close()
    }
}

impl Receives for super::Consumer {
    const ALIGN: usize = ALIGN;

    type Message<'a> = Message<'a>;

    #[inline(always)]
    fn take<T: Value>(&mut self, wait: Option<Deadline>) -> Result<T, RecvError> {
        // SAFETY: `read_next` gives the address and length of a message in the ring.
        read_next(self, wait, |from, len| unsafe { copy_one(from, len) })
    }

    fn take_many<T: Value>(
        &mut self,
        wait: Option<Deadline>,
        into: &mut Vec<T>,
    ) -> Result<(), RecvError> {
        // SAFETY: as in `take`.
        read_next(self, wait, |from, len| unsafe {
            copy_many(from, len, into)
        })
    }

    #[inline(always)]
    fn lent(&mut self, waits: bool) -> Result<Message<'_>, RecvError> {
        if waits { self.recv() } else { self.try_recv() }
    }

    fn offset(message: &Message<'_>) -> u64 {
        message.offset()
    }
}

/// Has `read` read the next message where it lies, and is done with it; waits for it until the deadline `wait`,
/// if there is one. What `read` says is wrong with it is an error.
#[inline(always)]
fn read_next<R>(
    consumer: &mut super::Consumer,
    wait: Option<Deadline>,
    read: impl FnOnce(*const u8, usize) -> Result<R, &'static str>,
) -> Result<R, RecvError> {
    let message = match wait {
        None => consumer.try_recv()?,
        Some(deadline) => consumer.recv_until(deadline)?,
    };
    read(message.as_ptr(), message.len()).map_err(|what| RecvError::Corrupt {
        what,
        offset: message.offset(),
    })
}

impl<T: Value> Consumer<T> {
    /// As [`mpmc::Consumer::close`](super::Consumer::close): the ring is closed for everybody.
    ///
    /// # Errors
    /// As there.
    pub fn close(&mut self) -> Result<(), RecvError> {
        self.untyped().close()
    }
}
