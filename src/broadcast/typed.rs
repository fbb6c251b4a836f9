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
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use zerocopy::{FromBytes, IntoBytes};

use super::{BatchError, Config, Message, Reservation, Start, ring};
use crate::error::{Error, RecvError, SendError};
use crate::os::clock::Deadline;
use crate::ring::broadcast::Corrupt;
use crate::schema::Schema;
use crate::typed::{
    AsBytes, Ref, Slice, Slot, Unchecked, Value, check_many, fill_many, must_be_aligned,
    must_have_bytes,
};

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
    const { must_have_bytes::<T>() };
    Builder {
        schema: Schema::of::<T>(),
        config: Config::default(),
        value: PhantomData,
    }
}

/// How a ring of values is created or attached; see [`typed`].
#[must_use]
pub struct Builder<T> {
    schema: Schema,
    config: Config,
    value: PhantomData<fn() -> T>,
}

impl<T: Value> Builder<T> {
    /// Which version of the type this program speaks; 0 unless told. Checked on attaching.
    pub fn version(mut self, version: u32) -> Builder<T> {
        self.schema = self.schema.versioned(version);
        self
    }

    /// What the type is called in the ring, instead of what it is called in this program. The first 256
    /// bytes count.
    pub fn name(mut self, name: &str) -> Builder<T> {
        self.schema = self.schema.named(name);
        self
    }

    /// The settings of the ring, should it be created.
    pub fn config(mut self, config: Config) -> Builder<T> {
        self.config = config;
        self
    }

    fn config_typed(&self) -> Result<Config, Error> {
        let config = self.config.clone().carrying(self.schema.clone());
        self.schema
            .must_fit(config.max_message(), "capacity", config.bytes())?;
        Ok(config)
    }

    fn checked(&self, ring: super::Ring) -> Result<Ring<T>, Error> {
        self.schema.check(ring.name(), ring.header())?;
        self.schema
            .must_fit(ring.max_message(), "capacity", ring.capacity())?;
        let value = PhantomData;
        Ok(Ring { ring, value })
    }

    /// As [`broadcast::create`](super::create).
    ///
    /// # Errors
    /// As there; [`Error::Config`] also where not even one value would fit.
    pub fn create(&self, name: &str) -> Result<Ring<T>, Error> {
        self.checked(ring::create(name, self.config_typed()?)?)
    }

    /// As [`broadcast::attach`](super::attach).
    ///
    /// # Errors
    /// As there, and [`Error::TypeMismatch`].
    pub fn attach(&self, name: &str) -> Result<Ring<T>, Error> {
        self.checked(ring::attach(name)?)
    }

    /// As [`broadcast::create_or_attach`](super::create_or_attach).
    ///
    /// # Errors
    /// As [`Builder::create`] and [`Builder::attach`].
    pub fn create_or_attach(&self, name: &str) -> Result<Ring<T>, Error> {
        self.checked(ring::create_or_attach(name, self.config_typed()?)?)
    }

    /// As [`broadcast::Ring::anonymous`](super::Ring::anonymous).
    ///
    /// # Errors
    /// As [`Builder::create`].
    pub fn anonymous(&self) -> Result<Ring<T>, Error> {
        self.checked(super::Ring::anonymous(self.config_typed()?)?)
    }

    /// As [`broadcast::Ring::from_fd`](super::Ring::from_fd).
    ///
    /// # Errors
    /// As [`Builder::attach`].
    pub fn from_fd(&self, fd: OwnedFd) -> Result<Ring<T>, Error> {
        self.checked(super::Ring::from_fd(fd)?)
    }

    /// As [`broadcast::Ring::observe`](super::Ring::observe).
    ///
    /// # Errors
    /// As [`Builder::attach`].
    pub fn observe(&self, name: &str) -> Result<Ring<T>, Error> {
        self.checked(super::Ring::observe(name)?)
    }
}

/// A ring of values that this process has mapped.
pub struct Ring<T> {
    ring: super::Ring,
    value: PhantomData<fn() -> T>,
}

impl<T: Value> Ring<T> {
    /// Takes the role of the producer.
    ///
    /// # Errors
    /// As [`broadcast::Ring::producer`](super::Ring::producer).
    pub fn producer(&self) -> Result<Producer<T>, Error> {
        let (inner, value) = (self.ring.producer()?, PhantomData);
        Ok(Producer { inner, value })
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
        let (inner, value) = (self.ring.subscriber_from(start)?, PhantomData);
        Ok(Subscriber { inner, value })
    }

    /// One that looks on.
    ///
    /// # Errors
    /// As [`broadcast::Ring::observer`](super::Ring::observer).
    pub fn observer(&self, start: Start) -> Result<Subscriber<T>, Error> {
        let (inner, value) = (self.ring.observer(start)?, PhantomData);
        Ok(Subscriber { inner, value })
    }

    /// The ring itself, for all that has nothing to do with the type.
    pub fn untyped(&self) -> &super::Ring {
        &self.ring
    }
}

impl<T> AsFd for Ring<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// Sends values into a broadcast ring. As [`broadcast::Producer`](super::Producer), whose calls these are.
pub struct Producer<T> {
    inner: super::Producer,
    value: PhantomData<fn() -> T>,
}

impl<T: Value> Producer<T> {
    /// Sends a value if there is room now.
    ///
    /// # Errors
    /// As [`broadcast::Producer::try_send`](super::Producer::try_send).
    #[inline]
    pub fn try_send(&mut self, value: &T) -> Result<(), SendError> {
        self.inner.try_send(value.as_bytes())
    }

    /// Sends a value, waiting for room.
    ///
    /// # Errors
    /// As [`broadcast::Producer::send`](super::Producer::send).
    #[inline]
    pub fn send(&mut self, value: &T) -> Result<(), SendError> {
        self.inner.send(value.as_bytes())
    }

    /// Sends a value, waiting for room no longer than `timeout`.
    ///
    /// # Errors
    /// As [`broadcast::Producer::send_timeout`](super::Producer::send_timeout).
    pub fn send_timeout(&mut self, value: &T, timeout: Duration) -> Result<(), SendError> {
        self.inner.send_timeout(value.as_bytes(), timeout)
    }

    /// Sends several values as one message, to be received by [`Subscriber::recv_slice`] or
    /// [`Subscriber::recv_vec`]. Waits for room.
    ///
    /// # Errors
    /// As [`Producer::send`].
    #[inline]
    pub fn send_slice(&mut self, values: &[T]) -> Result<(), SendError> {
        self.inner.send(values.as_bytes())
    }

    /// Sends all values of a batch, each as a message of its own, waiting for room; returns how many.
    ///
    /// # Errors
    /// As [`broadcast::Producer::send_batch`](super::Producer::send_batch).
    pub fn send_batch<I>(&mut self, values: I) -> Result<usize, BatchError>
    where
        I: IntoIterator<Item: Borrow<T>>,
    {
        self.inner
            .send_batch(values.into_iter().map(AsBytes::<_, T>::new))
    }

    /// The most values that one message can have.
    pub fn max_slice(&self) -> usize {
        self.inner.max_message() / size_of::<T>()
    }

    /// The producer of bytes that this is. What is sent by it is checked where it is received.
    pub fn untyped(&mut self) -> &mut super::Producer {
        &mut self.inner
    }

    /// Leaves, as dropping does.
    pub fn close(self) {}
}

impl<T: FromBytes + Value> Producer<T> {
    /// Room for a value, to be written in place: no copy. Waits for it.
    ///
    /// # Errors
    /// As [`broadcast::Producer::reserve`](super::Producer::reserve).
    ///
    /// ```
    /// # let ring = ringway::broadcast::typed::<[u64; 4]>().anonymous()?;
    /// # let (mut tx, mut rx) = (ring.producer()?, ring.subscriber()?);
    /// let mut slot = tx.reserve()?;
    /// slot.fill(7);
    /// slot.commit();
    /// assert_eq!(*rx.recv_ref()?, [7; 4]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A type that needs a greater alignment than messages have does not compile:
    ///
    /// ```compile_fail
    /// # let ring = ringway::broadcast::typed::<u128>().anonymous().unwrap();
    /// ring.producer().unwrap().reserve();
    /// ```
    pub fn reserve(&mut self) -> Result<Slot<Reservation<'_>, T>, SendError> {
        const { must_be_aligned::<T>(ALIGN) };
        self.inner.reserve(size_of::<T>()).map(Slot::new)
    }
}

impl<T: FromBytes + Value> Slot<Reservation<'_>, T> {
    /// Sends the value.
    pub fn commit(self) {
        self.reservation.commit();
    }
}

/// Receives values from a broadcast ring. As [`broadcast::Subscriber`](super::Subscriber), whose calls
/// these are. What arrives and is no value is [`RecvError::Corrupt`], and is taken out.
pub struct Subscriber<T> {
    inner: super::Subscriber,
    value: PhantomData<fn() -> T>,
}

impl<T: Value> Subscriber<T> {
    #[inline(always)]
    fn take(&mut self, wait: Option<Deadline>) -> Result<T, RecvError> {
        let mut value = Unchecked::new();
        let (_, (filled, position)) = self.inner.read_next(wait, |data, record| {
            let len = record.len as usize;
            // SAFETY: a message lies in the data area; there is room for whole words.
            let copy = |to| unsafe { data.copy_out_shared(record.payload, to, len) };
            (value.fill(len, copy), record.payload)
        })?;
        // SAFETY: filled, from a message that was not overwritten meanwhile.
        let checked = filled.and_then(|()| unsafe { value.check() });
        checked.map_err(|what| self.inner.corrupt(Corrupt { what, position }))
    }

    /// A copy of the next value, if one is there now.
    ///
    /// # Errors
    /// As [`broadcast::Subscriber::try_recv`](super::Subscriber::try_recv).
    #[inline]
    pub fn try_recv(&mut self) -> Result<T, RecvError> {
        self.take(None)
    }

    /// A copy of the next value; waits for it.
    ///
    /// # Errors
    /// As [`broadcast::Subscriber::recv`](super::Subscriber::recv).
    #[inline]
    pub fn recv(&mut self) -> Result<T, RecvError> {
        self.take(Some(Deadline::NEVER))
    }

    /// A copy of the next value; waits for it no longer than `timeout`.
    ///
    /// # Errors
    /// As [`broadcast::Subscriber::recv_timeout`](super::Subscriber::recv_timeout).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvError> {
        self.take(Some(Deadline::after(timeout)))
    }

    /// Copies all values of the next message to `into`, in place of what is there; waits for it.
    ///
    /// # Errors
    /// As [`Subscriber::recv`].
    pub fn recv_vec(&mut self, into: &mut Vec<T>) -> Result<(), RecvError> {
        let wait = Some(Deadline::NEVER);
        let (_, (filled, len, position)) = self.inner.read_next(wait, |data, record| {
            let len = record.len as usize;
            // SAFETY: a message lies in the data area; there is room for whole words.
            let copy = |to| unsafe { data.copy_out_shared(record.payload, to, len) };
            (fill_many(into, len, copy), len, record.payload)
        })?;
        // SAFETY: filled, from a message that was not overwritten meanwhile.
        let checked = filled.and_then(|()| unsafe { check_many(into, len) });
        checked.map_err(|what| self.inner.corrupt(Corrupt { what, position }))
    }

    pub(crate) fn awaited(&mut self) -> &mut (dyn crate::awaited::Awaited + 'static) {
        &mut self.inner
    }

    /// The subscriber of bytes that this is.
    pub fn untyped(&mut self) -> &mut super::Subscriber {
        &mut self.inner
    }

    /// Leaves, as dropping does.
    pub fn close(self) {}
}

impl<T: FromBytes + Value> Subscriber<T> {
    /// The next value, borrowed: of a lossless ring in place, of a lossy one from the subscriber's own
    /// buffer. Waits for it.
    ///
    /// # Errors
    /// As [`Subscriber::recv`].
    ///
    /// ```
    /// # let ring = ringway::broadcast::typed::<[u64; 4]>().anonymous()?;
    /// # let (mut tx, mut rx) = (ring.producer()?, ring.subscriber()?);
    /// tx.send(&[7; 4])?;
    /// let value = rx.recv_ref()?;
    /// assert_eq!((value[3], value.message().sequence()), (7, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn recv_ref(&mut self) -> Result<Ref<Message<'_>, T>, RecvError> {
        const { must_be_aligned::<T>(ALIGN) };
        let message = self.inner.recv()?;
        let offset = message.offset();
        Ref::new(message, offset)
    }

    /// As [`Subscriber::recv_ref`], if a value is there now.
    ///
    /// # Errors
    /// As [`Subscriber::try_recv`].
    #[inline]
    pub fn try_recv_ref(&mut self) -> Result<Ref<Message<'_>, T>, RecvError> {
        const { must_be_aligned::<T>(ALIGN) };
        let message = self.inner.try_recv()?;
        let offset = message.offset();
        Ref::new(message, offset)
    }

    /// All values of the next message, borrowed as by [`Subscriber::recv_ref`]. Waits for it.
    ///
    /// # Errors
    /// As [`Subscriber::recv`].
    #[inline]
    pub fn recv_slice(&mut self) -> Result<Slice<Message<'_>, T>, RecvError> {
        const { must_be_aligned::<T>(ALIGN) };
        let message = self.inner.recv()?;
        let offset = message.offset();
        Slice::new(message, offset)
    }
}

// Not derived: that would ask the same of `T`.

impl<T> Clone for Builder<T> {
    fn clone(&self) -> Builder<T> {
        Builder {
            schema: self.schema.clone(),
            config: self.config.clone(),
            value: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Builder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("schema", &self.schema)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl<T> Clone for Ring<T> {
    fn clone(&self) -> Ring<T> {
        Ring {
            ring: self.ring.clone(),
            value: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Ring<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ring.fmt(f)
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl<T> fmt::Debug for Subscriber<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
