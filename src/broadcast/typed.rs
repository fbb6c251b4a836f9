//! A broadcast ring of values of one type; see [`crate::typed`] for what that means.
//!
//! ```
//! use ringway::broadcast;
//!
//! let ring = broadcast::typed::<[f32; 3]>().anonymous()?;
//! let (mut tx, mut rx) = (ring.producer()?, ring.subscriber()?);
//! tx.send(&[1.0, 2.0, 3.0])?;
//! assert_eq!(rx.recv()?, [1.0, 2.0, 3.0]);
//!
//! tx.send_slice(&[[0.5; 3], [1.5; 3]])?; // one message of two values
//! assert_eq!(rx.recv_slice()?[1], [1.5; 3]); // read where they lie
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::borrow::Borrow;

use super::{BatchError, Config, Message, Reservation, Start, ring};
use crate::error::{Error, RecvError};
use crate::os::clock::Deadline;
use crate::ring::broadcast::Corrupt;
use crate::schema::Schema;
use crate::typed::{self, AsBytes, Kind, Open, Receives, Unchecked, Value, check_many, fill_many};

/// To what messages are aligned in the ring.
const ALIGN: usize = 8;

/// A ring of values of type `T`, to be created or attached.
///
/// ```
/// use ringway::broadcast::{self, Config};
/// # let name = format!("doc-broadcast-typed-{}", std::process::id());
/// let ring = broadcast::typed::<u64>().config(Config::default().capacity(4096)).create(&name)?;
/// assert!(broadcast::typed::<u32>().attach(&name).is_err());
/// # ring.untyped().unlink()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn typed<T: Value>() -> Builder<T> {
    Builder::new()
}

/// How a ring of values is created or attached: a [`typed::Builder`], from [`typed()`].
pub type Builder<T> = typed::Builder<super::Ring, T>;

/// A ring of values that this process has mapped: a [`typed::Ring`] around [`broadcast::Ring`](super::Ring).
pub type Ring<T> = typed::Ring<super::Ring, T>;

/// Sends values into a broadcast ring: a [`typed::Producer`] around [`broadcast::Producer`](super::Producer).
pub type Producer<T> = typed::Producer<super::Producer, T>;

/// Receives values from a broadcast ring: a [`typed::Consumer`] around
/// [`broadcast::Subscriber`](super::Subscriber).
pub type Subscriber<T> = typed::Consumer<super::Subscriber, T>;

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
    /// As [`broadcast::Ring::observe`](super::Ring::observe).
    ///
    /// # Errors
    /// As [`Builder::attach`].
    pub fn observe(&self, name: &str) -> Result<Ring<T>, Error> {
        self.checked(super::Ring::observe(name)?)
    }
}

impl<T: Value> Ring<T> {
    /// Takes the role of the producer.
    ///
    /// # Errors
    /// As [`broadcast::Ring::producer`](super::Ring::producer).
    pub fn producer(&self) -> Result<Producer<T>, Error> {
        self.untyped().producer().map(Producer::new)
    }

    /// A subscriber that gets the next values to be sent.
    ///
    /// # Errors
    /// As [`broadcast::Ring::subscriber`](super::Ring::subscriber).
    pub fn subscriber(&self) -> Result<Subscriber<T>, Error> {
        self.subscriber_from(Start::Next)
    }

    /// A subscriber that starts where it is told to.
    ///
    /// # Errors
    /// As [`broadcast::Ring::subscriber_from`](super::Ring::subscriber_from).
    pub fn subscriber_from(&self, start: Start) -> Result<Subscriber<T>, Error> {
        self.untyped().subscriber_from(start).map(Subscriber::new)
    }

    /// One that looks on.
    ///
    /// # Errors
    /// As [`broadcast::Ring::observer`](super::Ring::observer).
    pub fn observer(&self, start: Start) -> Result<Subscriber<T>, Error> {
        self.untyped().observer(start).map(Subscriber::new)
    }
}

typed::sends!(super::Producer, Reservation, aligned to ALIGN);

impl<T: Value> Producer<T> {
    /// Sends all values of a batch, each as a message of its own, waiting for room; returns how many.
    ///
    /// # Errors
    /// As [`broadcast::Producer::send_batch`](super::Producer::send_batch).
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

impl Receives for super::Subscriber {
    const ALIGN: usize = ALIGN;

    type Message<'a> = Message<'a>;

    #[inline(always)]
    fn take<T: Value>(&mut self, wait: Option<Deadline>) -> Result<T, RecvError> {
        let mut value = Unchecked::new();
        let (_, (filled, position)) = self.read_next(wait, |data, record| {
            let len = record.len as usize;
            // SAFETY: a message lies in the data area; there is room for whole words.
            let copy = |to| unsafe { data.copy_out_shared(record.payload, to, len) };
            (value.fill(len, copy), record.payload)
        })?;
        // SAFETY: filled, from a message that was not overwritten meanwhile.
        let checked = filled.and_then(|()| unsafe { value.check() });
        checked.map_err(|what| self.corrupt(Corrupt { what, position }))
    }

    fn take_many<T: Value>(
        &mut self,
        wait: Option<Deadline>,
        into: &mut Vec<T>,
    ) -> Result<(), RecvError> {
        let (_, (filled, len, position)) = self.read_next(wait, |data, record| {
            let len = record.len as usize;
            // SAFETY: a message lies in the data area; there is room for whole words.
            let copy = |to| unsafe { data.copy_out_shared(record.payload, to, len) };
            (fill_many(into, len, copy), len, record.payload)
        })?;
        // SAFETY: filled, from a message that was not overwritten meanwhile.
        let checked = filled.and_then(|()| unsafe { check_many(into, len) });
        checked.map_err(|what| self.corrupt(Corrupt { what, position }))
    }

    #[inline(always)]
    fn lent(&mut self, waits: bool) -> Result<Message<'_>, RecvError> {
        if waits { self.recv() } else { self.try_recv() }
    }

    fn offset(message: &Message<'_>) -> u64 {
        message.offset()
    }
}

impl<T: Value> Subscriber<T> {
    /// Leaves, as dropping does.
    pub fn close(self) {}
}
