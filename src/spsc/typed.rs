//! An SPSC ring of values of one type; see [`crate::typed`] for what that means.
//!
//! ```
//! use ringway::spsc;
//!
//! let ring = spsc::typed::<[f32; 3]>().anonymous()?;
//! let (mut tx, mut rx) = (ring.producer()?, ring.consumer()?);
//! tx.send(&[1.0, 2.0, 3.0])?;
//! assert_eq!(rx.recv()?, [1.0, 2.0, 3.0]);
//!
//! tx.send_slice(&[[0.5; 3], [1.5; 3]])?; // one message of two values
//! assert_eq!(rx.recv_slice()?[1], [1.5; 3]); // read where they lie
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::borrow::Borrow;
use std::os::unix::net::UnixStream;

use super::{BatchError, Config, Message, Reservation, ring};
use crate::error::{Error, RecvError};
use crate::os::clock::Deadline;
use crate::schema::Schema;
use crate::typed::{self, AsBytes, Kind, Open, Receives, Value, copy_many, copy_one};

/// To what messages are aligned in the ring.
const ALIGN: usize = 8;

/// A ring of values of type `T`, to be created or attached.
///
/// ```
/// use ringway::spsc::{self, Config};
/// # let name = format!("doc-spsc-typed-{}", std::process::id());
/// let ring = spsc::typed::<u64>().config(Config::default().capacity(4096)).create(&name)?;
/// assert!(spsc::typed::<u32>().attach(&name).is_err());
/// # ring.untyped().unlink()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn typed<T: Value>() -> Builder<T> {
    Builder::new()
}

/// How a ring of values is created or attached: a [`typed::Builder`], from [`typed()`].
pub type Builder<T> = typed::Builder<super::Ring, T>;

/// A ring of values that this process has mapped: a [`typed::Ring`] around [`spsc::Ring`](super::Ring).
pub type Ring<T> = typed::Ring<super::Ring, T>;

/// Sends values into an SPSC ring: a [`typed::Producer`] around [`spsc::Producer`](super::Producer).
pub type Producer<T> = typed::Producer<super::Producer, T>;

/// Receives values from an SPSC ring: a [`typed::Consumer`] around
/// [`spsc::Consumer`](super::Consumer).
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
        let config = config.carrying(schema.clone());
        schema.must_fit(config.max_message(), "capacity", config.bytes())?;
        Ok(config)
    }

    fn check(&self, schema: &Schema) -> Result<(), Error> {
        schema.check(self.name(), self.header())?;
        schema.must_fit(self.max_message(), "capacity", self.capacity())
    }
}

impl<T: Value> Builder<T> {
    /// As [`spsc::Ring::receive_over`](super::Ring::receive_over).
    ///
    /// # Errors
    /// As there, and [`Error::TypeMismatch`].
    pub fn receive_over(&self, socket: &UnixStream) -> Result<Ring<T>, Error> {
        self.checked(super::Ring::receive_over(socket)?)
    }
}

impl<T: Value> Ring<T> {
    /// Takes the role of the producer.
    ///
    /// # Errors
    /// As [`spsc::Ring::producer`](super::Ring::producer).
    pub fn producer(&self) -> Result<Producer<T>, Error> {
        self.untyped().producer().map(Producer::new)
    }

    /// Takes the role of the consumer.
    ///
    /// # Errors
    /// As [`spsc::Ring::consumer`](super::Ring::consumer).
    pub fn consumer(&self) -> Result<Consumer<T>, Error> {
        self.untyped().consumer().map(Consumer::new)
    }
}

typed::sends!(super::Producer, Reservation, aligned to ALIGN);

impl<T: Value> Producer<T> {
    /// Sends all values of a batch, each as a message of its own, waiting for room; returns how many.
    ///
    /// # Errors
    /// As [`spsc::Producer::send_batch`](super::Producer::send_batch).
    pub fn send_batch<I>(&mut self, values: I) -> Result<usize, BatchError>
    where
        I: IntoIterator<Item: Borrow<T>>,
    {
        self.untyped()
            .send_batch(values.into_iter().map(AsBytes::<_, T>::new))
    }

    /// Leaves, as dropping does.
    pub fn close(self) {}
}

impl Receives for super::Consumer {
    const ALIGN: usize = ALIGN;

    type Message<'a> = Message<'a>;

    #[inline(always)]
    fn take<T: Value>(&mut self, wait: Option<Deadline>) -> Result<T, RecvError> {
        // SAFETY: `read_next` gives the address and length of a message in the ring.
        self.read_next(wait, |from, len| unsafe { copy_one(from, len) })
    }

    fn take_many<T: Value>(
        &mut self,
        wait: Option<Deadline>,
        into: &mut Vec<T>,
    ) -> Result<(), RecvError> {
        // SAFETY: as in `take`.
        self.read_next(wait, |from, len| unsafe { copy_many(from, len, into) })
    }

    #[inline(always)]
    fn lent(&mut self, waits: bool) -> Result<Message<'_>, RecvError> {
        if waits { self.recv() } else { self.try_recv() }
    }

    fn offset(message: &Message<'_>) -> u64 {
        message.offset()
    }
}

impl<T: Value> Consumer<T> {
    /// Leaves, as dropping does.
    pub fn close(self) {}
}
