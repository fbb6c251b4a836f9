//! The handles of typed rings, of whatever kind: around those of bytes, whose calls they make.
//!
//! What a kind has to have is in the traits. They are sealed: public, as are those types of the library's own
//! that they speak of, but in modules that are not.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use zerocopy::{FromBytes, IntoBytes};

use super::{Ref, Slice, Slot, Value, must_be_aligned, must_have_bytes};
use crate::error::{Error, RecvError, SendError};
use crate::os::clock::Deadline;
use crate::schema::Schema;

/// A ring of bytes, as [`Builder`] makes it.
pub trait Kind: Sized {
    type Config: Clone + Default + fmt::Debug;

    const OPEN: Open<Self>;

    /// The settings of a ring of such values; refuses those with which none would fit.
    fn carrying(config: Self::Config, schema: &Schema) -> Result<Self::Config, Error>;

    /// Refuses a ring that carries something else, or in which no value fits.
    fn check(&self, schema: &Schema) -> Result<(), Error>;
}

/// How a ring of bytes is had: by its own functions of these names.
pub struct Open<R: Kind> {
    pub(crate) create: fn(&str, R::Config) -> Result<R, Error>,
    pub(crate) attach: fn(&str) -> Result<R, Error>,
    pub(crate) create_or_attach: fn(&str, R::Config) -> Result<R, Error>,
    pub(crate) anonymous: fn(R::Config) -> Result<R, Error>,
    pub(crate) from_fd: fn(OwnedFd) -> Result<R, Error>,
}

/// A producer of bytes. Its calls are the producer's own of these names: see [`sends`].
pub trait Sends {
    /// To what messages are aligned in the ring.
    const ALIGN: usize;

    type Reservation<'a>: DerefMut<Target = [u8]>
    where
        Self: 'a;

    fn try_send(&mut self, message: &[u8]) -> Result<(), SendError>;
    fn send(&mut self, message: &[u8]) -> Result<(), SendError>;
    fn send_timeout(&mut self, message: &[u8], timeout: Duration) -> Result<(), SendError>;
    fn reserve(&mut self, len: usize) -> Result<Self::Reservation<'_>, SendError>;
    fn max_message(&self) -> usize;
}

/// Implements [`Sends`] by what a producer and its reservations can do themselves.
macro_rules! sends {
    ($producer:ty, $reservation:ident, aligned to $align:expr) => {
        impl $crate::typed::Sends for $producer {
            const ALIGN: usize = $align;

            type Reservation<'a> = $reservation<'a>;

            #[inline(always)]
            fn try_send(&mut self, message: &[u8]) -> Result<(), $crate::SendError> {
                self.try_send(message)
            }

            #[inline(always)]
            fn send(&mut self, message: &[u8]) -> Result<(), $crate::SendError> {
                self.send(message)
            }

            #[inline(always)]
            fn send_timeout(
                &mut self,
                message: &[u8],
                timeout: std::time::Duration,
            ) -> Result<(), $crate::SendError> {
                self.send_timeout(message, timeout)
            }

            #[inline(always)]
            fn reserve(&mut self, len: usize) -> Result<$reservation<'_>, $crate::SendError> {
                self.reserve(len)
            }

            fn max_message(&self) -> usize {
                self.max_message()
            }
        }

        impl<T: zerocopy::FromBytes + $crate::typed::Value>
            $crate::typed::Slot<$reservation<'_>, T>
        {
            /// Sends the value.
            pub fn commit(self) {
                self.reservation.commit();
            }
        }
    };
}
pub(crate) use sends;

/// A consumer of bytes, as [`Consumer`] receives from it.
pub trait Receives {
    /// To what messages are aligned in the ring.
    const ALIGN: usize;

    type Message<'a>: Deref<Target = [u8]>
    where
        Self: 'a;

    /// A copy of the next value. Waits for it until the deadline `wait`, if there is one.
    fn take<T: Value>(&mut self, wait: Option<Deadline>) -> Result<T, RecvError>;

    /// Copies the values of the next message to `into`, in place of what is there. Waits as
    /// [`Receives::take`] does.
    fn take_many<T: Value>(
        &mut self,
        wait: Option<Deadline>,
        into: &mut Vec<T>,
    ) -> Result<(), RecvError>;

    /// The next message, borrowed, if it is there now, or when it comes.
    fn lent(&mut self, waits: bool) -> Result<Self::Message<'_>, RecvError>;

    /// Where a message lies in the file.
    fn offset(message: &Self::Message<'_>) -> u64;
}

/// How a ring of values is created or attached. `R` is the ring of bytes:
/// [`spsc::typed`](mod@crate::spsc::typed), [`mpmc::typed`](mod@crate::mpmc::typed) and
/// [`broadcast::typed`](mod@crate::broadcast::typed) have an alias each for this and all that comes of it.
#[must_use]
pub struct Builder<R: Kind, T> {
    schema: Schema,
    config: R::Config,
    value: PhantomData<fn() -> T>,
}

impl<R: Kind, T: Value> Builder<R, T> {
    pub(crate) fn new() -> Builder<R, T> {
        const { must_have_bytes::<T>() };
        Builder {
            schema: Schema::of::<T>(),
            config: R::Config::default(),
            value: PhantomData,
        }
    }

    /// Which version of the type this program speaks; 0 unless told. Checked on attaching.
    pub fn version(mut self, version: u32) -> Builder<R, T> {
        self.schema = self.schema.versioned(version);
        self
    }

    /// What the type is called in the ring, instead of what it is called in this program. The first 256
    /// bytes count.
    pub fn name(mut self, name: &str) -> Builder<R, T> {
        self.schema = self.schema.named(name);
        self
    }

    /// The settings of the ring, should it be created. The slots of an mpmc ring are made large enough for one
    /// value; a larger [`slot_size`](crate::mpmc::Config::slot_size) has room for slices.
    pub fn config(mut self, config: R::Config) -> Builder<R, T> {
        self.config = config;
        self
    }

    fn config_typed(&self) -> Result<R::Config, Error> {
        R::carrying(self.config.clone(), &self.schema)
    }

    /// A ring just attached, if it carries what is expected.
    pub(crate) fn checked(&self, ring: R) -> Result<Ring<R, T>, Error> {
        ring.check(&self.schema)?;
        let value = PhantomData;
        Ok(Ring { ring, value })
    }

    /// As [`spsc::create`](crate::spsc::create), [`mpmc::create`](crate::mpmc::create) or
    /// [`broadcast::create`](crate::broadcast::create).
    ///
    /// # Errors
    /// As there; [`Error::Config`] also where not even one value would fit.
    pub fn create(&self, name: &str) -> Result<Ring<R, T>, Error> {
        self.checked((R::OPEN.create)(name, self.config_typed()?)?)
    }

    /// As [`spsc::attach`](crate::spsc::attach), [`mpmc::attach`](crate::mpmc::attach) or
    /// [`broadcast::attach`](crate::broadcast::attach).
    ///
    /// # Errors
    /// As there, and [`Error::TypeMismatch`].
    pub fn attach(&self, name: &str) -> Result<Ring<R, T>, Error> {
        self.checked((R::OPEN.attach)(name)?)
    }

    /// As [`spsc::create_or_attach`](crate::spsc::create_or_attach),
    /// [`mpmc::create_or_attach`](crate::mpmc::create_or_attach) or
    /// [`broadcast::create_or_attach`](crate::broadcast::create_or_attach).
    ///
    /// # Errors
    /// As [`Builder::create`] and [`Builder::attach`].
    pub fn create_or_attach(&self, name: &str) -> Result<Ring<R, T>, Error> {
        self.checked((R::OPEN.create_or_attach)(name, self.config_typed()?)?)
    }

    /// As [`spsc::Ring::anonymous`](crate::spsc::Ring::anonymous),
    /// [`mpmc::Ring::anonymous`](crate::mpmc::Ring::anonymous) or
    /// [`broadcast::Ring::anonymous`](crate::broadcast::Ring::anonymous).
    ///
    /// # Errors
    /// As [`Builder::create`].
    pub fn anonymous(&self) -> Result<Ring<R, T>, Error> {
        self.checked((R::OPEN.anonymous)(self.config_typed()?)?)
    }

    /// As [`spsc::Ring::from_fd`](crate::spsc::Ring::from_fd),
    /// [`mpmc::Ring::from_fd`](crate::mpmc::Ring::from_fd) or
    /// [`broadcast::Ring::from_fd`](crate::broadcast::Ring::from_fd).
    ///
    /// # Errors
    /// As [`Builder::attach`].
    pub fn from_fd(&self, fd: OwnedFd) -> Result<Ring<R, T>, Error> {
        self.checked((R::OPEN.from_fd)(fd)?)
    }
}

/// A ring of values that this process has mapped.
pub struct Ring<R, T> {
    ring: R,
    value: PhantomData<fn() -> T>,
}

impl<R, T: Value> Ring<R, T> {
    /// The ring itself, for all that has nothing to do with the type.
    pub fn untyped(&self) -> &R {
        &self.ring
    }
}

impl<R: AsFd, T> AsFd for Ring<R, T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// Sends values into a ring. As `P`, the producer of bytes, whose calls these are:
/// [`spsc::Producer`](crate::spsc::Producer), [`mpmc::Producer`](crate::mpmc::Producer) or
/// [`broadcast::Producer`](crate::broadcast::Producer).
pub struct Producer<P, T> {
    inner: P,
    value: PhantomData<fn() -> T>,
}

impl<P: Sends, T: Value> Producer<P, T> {
    pub(crate) fn new(inner: P) -> Producer<P, T> {
        let value = PhantomData;
        Producer { inner, value }
    }

    /// Sends a value if there is room now.
    ///
    /// # Errors
    /// Those of the `try_send` of `P`.
    #[inline]
    pub fn try_send(&mut self, value: &T) -> Result<(), SendError> {
        self.inner.try_send(value.as_bytes())
    }

    /// Sends a value, waiting for room.
    ///
    /// # Errors
    /// Those of the `send` of `P`.
    #[inline]
    pub fn send(&mut self, value: &T) -> Result<(), SendError> {
        self.inner.send(value.as_bytes())
    }

    /// Sends a value, waiting for room no longer than `timeout`.
    ///
    /// # Errors
    /// Those of the `send_timeout` of `P`.
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

    /// The most values that one message can have.
    pub fn max_slice(&self) -> usize {
        self.inner.max_message() / size_of::<T>()
    }

    /// The producer of bytes that this is. What is sent by it is checked where it is received.
    pub fn untyped(&mut self) -> &mut P {
        &mut self.inner
    }
}

impl<P: Sends, T: FromBytes + Value> Producer<P, T> {
    /// Room for a value, to be written in place: no copy. Waits for it.
    ///
    /// # Errors
    /// Those of the `reserve` of `P`.
    ///
    /// ```
    /// # let ring = ringway::spsc::typed::<[u64; 4]>().anonymous()?;
    /// # let (mut tx, mut rx) = (ring.producer()?, ring.consumer()?);
    /// let mut slot = tx.reserve()?;
    /// slot.fill(7);
    /// slot.commit();
    /// assert_eq!(*rx.recv_ref()?, [7; 4]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A type that needs a greater alignment than messages have does not compile: more than 8 in an spsc ring,
    ///
    /// ```compile_fail
    /// # let ring = ringway::spsc::typed::<u128>().anonymous().unwrap();
    /// ring.producer().unwrap().reserve();
    /// ```
    ///
    /// or in a broadcast ring,
    ///
    /// ```compile_fail
    /// # let ring = ringway::broadcast::typed::<u128>().anonymous().unwrap();
    /// ring.producer().unwrap().reserve();
    /// ```
    ///
    /// and more than 16 in an mpmc ring:
    ///
    /// ```compile_fail
    /// # use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
    /// # #[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
    /// #[repr(C, align(32))]
    /// struct Wide([u8; 32]);
    /// # let ring = ringway::mpmc::typed::<Wide>().anonymous().unwrap();
    /// ring.producer().unwrap().reserve();
    /// ```
    pub fn reserve(&mut self) -> Result<Slot<P::Reservation<'_>, T>, SendError> {
        const { must_be_aligned::<T>(P::ALIGN) };
        self.inner.reserve(size_of::<T>()).map(Slot::new)
    }
}

/// Receives values from a ring. As `C`, the consumer of bytes, whose calls these are:
/// [`spsc::Consumer`](crate::spsc::Consumer), [`mpmc::Consumer`](crate::mpmc::Consumer) or
/// [`broadcast::Subscriber`](crate::broadcast::Subscriber). What arrives and is no value is
/// [`RecvError::Corrupt`], and is taken out.
pub struct Consumer<C, T> {
    inner: C,
    value: PhantomData<fn() -> T>,
}

impl<C: Receives, T: Value> Consumer<C, T> {
    pub(crate) fn new(inner: C) -> Consumer<C, T> {
        let value = PhantomData;
        Consumer { inner, value }
    }

    /// A copy of the next value, if one is there now.
    ///
    /// # Errors
    /// Those of the `try_recv` of `C`.
    #[inline]
    pub fn try_recv(&mut self) -> Result<T, RecvError> {
        self.inner.take(None)
    }

    /// A copy of the next value; waits for it.
    ///
    /// # Errors
    /// Those of the `recv` of `C`.
    #[inline]
    pub fn recv(&mut self) -> Result<T, RecvError> {
        self.inner.take(Some(Deadline::NEVER))
    }

    /// A copy of the next value; waits for it no longer than `timeout`.
    ///
    /// # Errors
    /// Those of the `recv_timeout` of `C`.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvError> {
        self.inner.take(Some(Deadline::after(timeout)))
    }

    /// Copies all values of the next message to `into`, in place of what is there; waits for it.
    ///
    /// # Errors
    /// As [`Consumer::recv`].
    pub fn recv_vec(&mut self, into: &mut Vec<T>) -> Result<(), RecvError> {
        self.inner.take_many(Some(Deadline::NEVER), into)
    }

    /// The consumer of bytes that this is.
    pub fn untyped(&mut self) -> &mut C {
        &mut self.inner
    }
}

impl<C: Receives, T: FromBytes + Value> Consumer<C, T> {
    #[inline(always)]
    fn lent(&mut self, waits: bool) -> Result<C::Message<'_>, RecvError> {
        const { must_be_aligned::<T>(C::ALIGN) };
        self.inner.lent(waits)
    }

    /// The next value, borrowed: in place, without a copy, but of a lossy broadcast ring from the subscriber's
    /// own buffer. Waits for it.
    ///
    /// # Errors
    /// As [`Consumer::recv`].
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
    pub fn recv_ref(&mut self) -> Result<Ref<C::Message<'_>, T>, RecvError> {
        self.lent(true)
            .and_then(|message| Ref::new(message, C::offset))
    }

    /// As [`Consumer::recv_ref`], if a value is there now.
    ///
    /// # Errors
    /// As [`Consumer::try_recv`].
    #[inline]
    pub fn try_recv_ref(&mut self) -> Result<Ref<C::Message<'_>, T>, RecvError> {
        self.lent(false)
            .and_then(|message| Ref::new(message, C::offset))
    }

    /// All values of the next message, borrowed as by [`Consumer::recv_ref`]. Waits for it.
    ///
    /// # Errors
    /// As [`Consumer::recv`].
    #[inline]
    pub fn recv_slice(&mut self) -> Result<Slice<C::Message<'_>, T>, RecvError> {
        self.lent(true)
            .and_then(|message| Slice::new(message, C::offset))
    }
}

// Not derived: that would ask the same of `T`.

impl<R: Kind, T> Clone for Builder<R, T> {
    fn clone(&self) -> Builder<R, T> {
        Builder {
            schema: self.schema.clone(),
            config: self.config.clone(),
            value: PhantomData,
        }
    }
}

impl<R: Kind, T> fmt::Debug for Builder<R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("schema", &self.schema)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl<R: Clone, T> Clone for Ring<R, T> {
    fn clone(&self) -> Ring<R, T> {
        Ring {
            ring: self.ring.clone(),
            value: PhantomData,
        }
    }
}

impl<P: Clone, T> Clone for Producer<P, T> {
    fn clone(&self) -> Producer<P, T> {
        Producer {
            inner: self.inner.clone(),
            value: PhantomData,
        }
    }
}

impl<C: Clone, T> Clone for Consumer<C, T> {
    fn clone(&self) -> Consumer<C, T> {
        Consumer {
            inner: self.inner.clone(),
            value: PhantomData,
        }
    }
}

impl<R: fmt::Debug, T> fmt::Debug for Ring<R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ring.fmt(f)
    }
}

impl<P: fmt::Debug, T> fmt::Debug for Producer<P, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl<C: fmt::Debug, T> fmt::Debug for Consumer<C, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
