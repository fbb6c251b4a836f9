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
use std::fmt;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use zerocopy::{FromBytes, IntoBytes};

use super::{Config, Message, Reservation, ring};
use crate::error::{Error, RecvError, SendError};
use crate::schema::Schema;
use crate::typed::{
    AsBytes, Ref, Slice, Slot, Value, copy_many, copy_one, must_be_aligned, must_have_bytes,
};

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

    /// The settings of the ring, should it be created. Its slots are made large enough for one value;
    /// a larger [`Config::slot_size`] has room for slices.
    pub fn config(mut self, config: Config) -> Builder<T> {
        self.config = config;
        self
    }

    fn config_typed(&self) -> Config {
        let size = size_of::<T>() as u64;
        self.config.clone().carrying(self.schema.clone(), size)
    }

    fn checked(&self, ring: super::Ring) -> Result<Ring<T>, Error> {
        self.schema.check(ring.name(), ring.header())?;
        self.schema
            .must_fit(ring.slot_size(), "slot size", ring.slot_size() as u64)?;
        let value = PhantomData;
        Ok(Ring { ring, value })
    }

    /// As [`mpmc::create`](super::create).
    ///
    /// # Errors
    /// As there.
    pub fn create(&self, name: &str) -> Result<Ring<T>, Error> {
        self.checked(ring::create(name, self.config_typed())?)
    }

    /// As [`mpmc::attach`](super::attach).
    ///
    /// # Errors
    /// As there, and [`Error::TypeMismatch`].
    pub fn attach(&self, name: &str) -> Result<Ring<T>, Error> {
        self.checked(ring::attach(name)?)
    }

    /// As [`mpmc::create_or_attach`](super::create_or_attach).
    ///
    /// # Errors
    /// As [`Builder::create`] and [`Builder::attach`].
    pub fn create_or_attach(&self, name: &str) -> Result<Ring<T>, Error> {
        self.checked(ring::create_or_attach(name, self.config_typed())?)
    }

    /// As [`mpmc::Ring::anonymous`](super::Ring::anonymous).
    ///
    /// # Errors
    /// As [`Builder::create`].
    pub fn anonymous(&self) -> Result<Ring<T>, Error> {
        self.checked(super::Ring::anonymous(self.config_typed())?)
    }

    /// As [`mpmc::Ring::from_fd`](super::Ring::from_fd).
    ///
    /// # Errors
    /// As [`Builder::attach`].
    pub fn from_fd(&self, fd: OwnedFd) -> Result<Ring<T>, Error> {
        self.checked(super::Ring::from_fd(fd)?)
    }
}

/// A ring of values that this process has mapped.
pub struct Ring<T> {
    ring: super::Ring,
    value: PhantomData<fn() -> T>,
}

impl<T: Value> Ring<T> {
    /// A producer, attached as a participant of its own.
    ///
    /// # Errors
    /// As [`mpmc::Ring::producer`](super::Ring::producer).
    pub fn producer(&self) -> Result<Producer<T>, Error> {
        let (inner, value) = (self.ring.producer()?, PhantomData);
        Ok(Producer { inner, value })
    }

    /// A consumer, attached as a participant of its own.
    ///
    /// # Errors
    /// As [`mpmc::Ring::consumer`](super::Ring::consumer).
    pub fn consumer(&self) -> Result<Consumer<T>, Error> {
        let (inner, value) = (self.ring.consumer()?, PhantomData);
        Ok(Consumer { inner, value })
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

/// Sends values into an MPMC ring. As [`mpmc::Producer`](super::Producer), whose calls these are.
pub struct Producer<T> {
    inner: super::Producer,
    value: PhantomData<fn() -> T>,
}

impl<T: Value> Producer<T> {
    /// Sends a value if there is room now.
    ///
    /// # Errors
    /// As [`mpmc::Producer::try_send`](super::Producer::try_send).
    #[inline]
    pub fn try_send(&mut self, value: &T) -> Result<(), SendError> {
        self.inner.try_send(value.as_bytes())
    }

    /// Sends a value, waiting for room.
    ///
    /// # Errors
    /// As [`mpmc::Producer::send`](super::Producer::send).
    #[inline]
    pub fn send(&mut self, value: &T) -> Result<(), SendError> {
        self.inner.send(value.as_bytes())
    }

    /// Sends a value, waiting for room no longer than `timeout`.
    ///
    /// # Errors
    /// As [`mpmc::Producer::send_timeout`](super::Producer::send_timeout).
    pub fn send_timeout(&mut self, value: &T, timeout: Duration) -> Result<(), SendError> {
        self.inner.send_timeout(value.as_bytes(), timeout)
    }

    /// Sends several values as one message, to be received by [`Consumer::recv_slice`] or
    /// [`Consumer::recv_vec`]. Waits for room.
    ///
    /// # Errors
    /// As [`Producer::send`].
    #[inline]
    pub fn send_slice(&mut self, values: &[T]) -> Result<(), SendError> {
        self.inner.send(values.as_bytes())
    }

    /// Sends all values of a batch, each as a message of its own, waiting for room.
    ///
    /// # Errors
    /// As [`mpmc::Producer::send_batch`](super::Producer::send_batch).
    pub fn send_batch<I>(&mut self, values: I) -> Result<(), SendError>
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

    /// As [`mpmc::Producer::close`](super::Producer::close): the ring is closed for everybody.
    ///
    /// # Errors
    /// As there.
    pub fn close(&mut self) -> Result<(), SendError> {
        self.inner.close()
    }
}

impl<T: FromBytes + Value> Producer<T> {
    /// Room for a value, to be written in place: no copy. Waits for it.
    ///
    /// # Errors
    /// As [`mpmc::Producer::reserve`](super::Producer::reserve).
    ///
    /// ```
    /// # let ring = ringway::mpmc::typed::<[u64; 4]>().anonymous()?;
    /// # let (mut tx, mut rx) = (ring.producer()?, ring.consumer()?);
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
    /// # use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
    /// # #[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
    /// #[repr(C, align(32))]
    /// struct Wide([u8; 32]);
    /// # let ring = ringway::mpmc::typed::<Wide>().anonymous().unwrap();
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

/// Receives values from an MPMC ring. As [`mpmc::Consumer`](super::Consumer), whose calls these are.
/// What arrives and is no value is [`RecvError::Corrupt`], and is taken out.
pub struct Consumer<T> {
    inner: super::Consumer,
    value: PhantomData<fn() -> T>,
}

/// The value that a message is; the message is done with.
#[inline(always)]
fn take<T: Value>(message: Message<'_>) -> Result<T, RecvError> {
    // SAFETY: a message is readable for its length.
    let value = unsafe { copy_one(message.as_ptr(), message.len()) };
    let offset = message.offset();
    value.map_err(|what| RecvError::Corrupt { what, offset })
}

impl<T: Value> Consumer<T> {
    /// A copy of the next value, if one is there now.
    ///
    /// # Errors
    /// As [`mpmc::Consumer::try_recv`](super::Consumer::try_recv).
    #[inline]
    pub fn try_recv(&mut self) -> Result<T, RecvError> {
        self.inner.try_recv().and_then(take)
    }

    /// A copy of the next value; waits for it.
    ///
    /// # Errors
    /// As [`mpmc::Consumer::recv`](super::Consumer::recv).
    #[inline]
    pub fn recv(&mut self) -> Result<T, RecvError> {
        self.inner.recv().and_then(take)
    }

    /// A copy of the next value; waits for it no longer than `timeout`.
    ///
    /// # Errors
    /// As [`mpmc::Consumer::recv_timeout`](super::Consumer::recv_timeout).
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvError> {
        self.inner.recv_timeout(timeout).and_then(take)
    }

    /// Copies all values of the next message to `into`, in place of what is there; waits for it.
    ///
    /// # Errors
    /// As [`Consumer::recv`].
    pub fn recv_vec(&mut self, into: &mut Vec<T>) -> Result<(), RecvError> {
        let message = self.inner.recv()?;
        // SAFETY: as in `take`.
        let copied = unsafe { copy_many(message.as_ptr(), message.len(), into) };
        let offset = message.offset();
        copied.map_err(|what| RecvError::Corrupt { what, offset })
    }

    pub(crate) fn awaited(&mut self) -> &mut (dyn crate::awaited::Awaited + 'static) {
        &mut self.inner
    }

    /// The consumer of bytes that this is.
    pub fn untyped(&mut self) -> &mut super::Consumer {
        &mut self.inner
    }

    /// As [`mpmc::Consumer::close`](super::Consumer::close): the ring is closed for everybody.
    ///
    /// # Errors
    /// As there.
    pub fn close(&mut self) -> Result<(), RecvError> {
        self.inner.close()
    }
}

impl<T: FromBytes + Value> Consumer<T> {
    /// The next value, borrowed in place: no copy. Waits for it.
    ///
    /// # Errors
    /// As [`Consumer::recv`].
    #[inline]
    pub fn recv_ref(&mut self) -> Result<Ref<Message<'_>, T>, RecvError> {
        const { must_be_aligned::<T>(ALIGN) };
        let message = self.inner.recv()?;
        let offset = message.offset();
        Ref::new(message, offset)
    }

    /// As [`Consumer::recv_ref`], if a value is there now.
    ///
    /// # Errors
    /// As [`Consumer::try_recv`].
    #[inline]
    pub fn try_recv_ref(&mut self) -> Result<Ref<Message<'_>, T>, RecvError> {
        const { must_be_aligned::<T>(ALIGN) };
        let message = self.inner.try_recv()?;
        let offset = message.offset();
        Ref::new(message, offset)
    }

    /// All values of the next message, borrowed in place: no copy. Waits for it.
    ///
    /// # Errors
    /// As [`Consumer::recv`].
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

impl<T> Clone for Producer<T> {
    fn clone(&self) -> Producer<T> {
        Producer {
            inner: self.inner.clone(),
            value: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl<T> Clone for Consumer<T> {
    fn clone(&self) -> Consumer<T> {
        Consumer {
            inner: self.inner.clone(),
            value: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
