//! Values instead of bytes: rings that carry plain old data of one type.
//!
//! A typed ring records in its header what it carries: name, size and alignment of the type, and a
//! version that you give it. Whoever attaches says what it expects, and is refused, with both sides
//! named, where they differ. There is no serialising: a value's bytes are written into the ring, and
//! read where they lie. That is sound for types of which `zerocopy` has proved it:
//!
//! ```
//! use ringway::spsc;
//! use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
//!
//! #[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, KnownLayout, Immutable)]
//! #[repr(C)]
//! struct Order {
//!     id: u64,
//!     price: f64,
//!     quantity: u64,
//! }
//!
//! # let name = format!("doc-typed-{}", std::process::id());
//! let order = Order { id: 1, price: 9.5, quantity: 100 };
//! let mut orders = spsc::typed::<Order>().create(&name)?.producer()?;    // in one process
//! let mut matching = spsc::typed::<Order>().attach(&name)?.consumer()?;  // in another
//! orders.send(&order)?;
//! assert_eq!(matching.recv()?, order);
//!
//! // Another program, built when orders had another shape:
//! let error = spsc::typed::<[u64; 2]>().attach(&name).unwrap_err();
//! assert!(error.to_string().contains("Order (version 0, 24 bytes, aligned to 8)"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The derives come from `zerocopy` itself: `cargo add zerocopy@0.8 --features derive`.
//!
//! # Whose layout
//!
//! Two programs agree on a type by what it is called, without its module's path, so that each may have
//! a definition of its own; by its size and alignment; and by the version. A change that leaves all of
//! these as they were (two fields of one type swapped, say) has to be told by the version:
//! [`Builder::version`].
//!
//! # Which types
//!
//! | derived | what can be done |
//! | --- | --- |
//! | `TryFromBytes`, `IntoBytes`, `KnownLayout`, `Immutable` | sending and receiving copies: also `bool`, `char` and enumerations, whose bytes are checked when they arrive |
//! | `FromBytes` besides | in place, too: [`Ref`], [`Slice`], [`Slot`]. Any bytes are a value, so a peer that writes into the memory cannot make an invalid one |
//!
//! In place a type may be aligned to at most 8 bytes in an spsc or broadcast ring and 16 in an mpmc ring:
//! more does not compile. Copies are not bound by that.
//!
//! # Raw handles
//!
//! Attaching without a type to a ring that has one is permitted: tools that look on, count or forward
//! need it, and bytes are what is in there. What such a peer sends is checked as it arrives: what is
//! no value of the type is [`RecvError::Corrupt`], is taken out, and the next call goes on behind it.

mod handles;

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, TryFromBytes};

use crate::error::RecvError;
use crate::primitive::{copy_bytes, light_fence};

pub use handles::{Builder, Consumer, Producer, Ring};
pub(crate) use handles::{Kind, Open, Receives, Sends, sends};

/// What can be sent by value: whatever has derived these four. Nothing is to be implemented.
pub trait Value: TryFromBytes + IntoBytes + KnownLayout + Immutable {}

impl<T: TryFromBytes + IntoBytes + KnownLayout + Immutable> Value for T {}

/// To be asked for each type: values without bytes cannot be told apart or counted.
const fn must_have_bytes<T>() {
    assert!(size_of::<T>() > 0, "a type without bytes cannot be sent");
}

/// To be asked for each type that is lent out in place, where messages are aligned to `align`.
const fn must_be_aligned<T>(align: usize) {
    assert!(
        align_of::<T>() <= align,
        "this type needs a greater alignment than messages have in the ring: receive and send copies of it"
    );
}

const LENGTH: &str = "length of a value";
const INVALID: &str = "value of a type that not all bytes are one of";

/// A value to be, in private memory. With room for whole words: that is how those copy who read what may be
/// being overwritten.
#[repr(C)]
pub(crate) struct Unchecked<T> {
    value: MaybeUninit<T>,
    slack: MaybeUninit<u64>,
}

impl<T: Value> Unchecked<T> {
    #[inline(always)]
    pub(crate) fn new() -> Unchecked<T> {
        Unchecked {
            value: MaybeUninit::uninit(),
            slack: MaybeUninit::uninit(),
        }
    }

    /// Has `copy` write the bytes of a message of `len` bytes to where it is told, that many or as many
    /// rounded up to whole words, if they are as many as a value has.
    #[inline(always)]
    pub(crate) fn fill(
        &mut self,
        len: usize,
        copy: impl FnOnce(*mut u8),
    ) -> Result<(), &'static str> {
        if len != size_of::<T>() {
            return Err(LENGTH);
        }
        copy((&raw mut *self).cast());
        Ok(())
    }

    /// The value, if the bytes are one.
    ///
    /// # Safety
    /// It was filled.
    #[inline(always)]
    pub(crate) unsafe fn check(self) -> Result<T, &'static str> {
        let at = self.value.as_ptr().cast::<u8>();
        // SAFETY: all its bytes were written (caller).
        let bytes = unsafe { core::slice::from_raw_parts(at, size_of::<T>()) };
        if T::try_ref_from_bytes(bytes).is_err() {
            return Err(INVALID);
        }
        // SAFETY: its bytes are those of a valid value, as was checked just now; types that own something
        // do not implement `IntoBytes` and `TryFromBytes`.
        Ok(unsafe { self.value.assume_init() })
    }
}

/// Between a copy and the look at it: to the compiler, what was copied may have changed since. Or it might copy
/// it again, behind the look, to where the value goes.
#[inline(always)]
fn stay_copied() {
    light_fence();
}

/// Copies out the value that a message is.
///
/// # Safety
/// `from` is readable for `len` bytes. (They may be changing; the copy is what is looked at.)
#[inline(always)]
pub(crate) unsafe fn copy_one<T: Value>(from: *const u8, len: usize) -> Result<T, &'static str> {
    let mut value = Unchecked::new();
    // SAFETY: readable (caller), as many bytes as the value has, and private memory.
    value.fill(len, |to| unsafe { copy_bytes(from, to, len) })?;
    stay_copied();
    // SAFETY: filled just now.
    unsafe { value.check() }
}

/// Has `copy` write the bytes of a message of `len` bytes to where it is told, that many or as many rounded up
/// to whole words; it is room that `into` has. The values that it has are dropped.
#[inline]
pub(crate) fn fill_many<T: Value>(
    into: &mut Vec<T>,
    len: usize,
    copy: impl FnOnce(*mut u8),
) -> Result<(), &'static str> {
    into.clear();
    if !len.is_multiple_of(size_of::<T>()) {
        return Err(LENGTH);
    }
    into.reserve(len.next_multiple_of(8).div_ceil(size_of::<T>()));
    copy(into.as_mut_ptr().cast());
    Ok(())
}

/// The values that `len` bytes are, which were filled in.
///
/// # Safety
/// [`fill_many`] was called with this, and said Ok.
#[inline]
pub(crate) unsafe fn check_many<T: Value>(
    into: &mut Vec<T>,
    len: usize,
) -> Result<(), &'static str> {
    // SAFETY: all these bytes were written (caller).
    let bytes = unsafe { core::slice::from_raw_parts(into.as_ptr().cast::<u8>(), len) };
    if <[T]>::try_ref_from_bytes(bytes).is_err() {
        return Err(INVALID);
    }
    // SAFETY: as many valid values are there, as was checked just now.
    unsafe { into.set_len(len / size_of::<T>()) };
    Ok(())
}

/// Copies out the values that a message is, in place of what is in `into`.
///
/// # Safety
/// As [`copy_one`].
#[inline]
pub(crate) unsafe fn copy_many<T: Value>(
    from: *const u8,
    len: usize,
    into: &mut Vec<T>,
) -> Result<(), &'static str> {
    // SAFETY: readable (caller); there is room for so many bytes, which is private memory.
    fill_many(into, len, |to| unsafe { copy_bytes(from, to, len) })?;
    stay_copied();
    // SAFETY: filled just now.
    unsafe { check_many(into, len) }
}

/// A value as the bytes of a message.
pub(crate) struct AsBytes<B, T>(B, PhantomData<T>);

impl<B: Borrow<T>, T: Value> AsBytes<B, T> {
    pub(crate) fn new(value: B) -> AsBytes<B, T> {
        AsBytes(value, PhantomData)
    }
}

impl<B: Borrow<T>, T: Value> AsRef<[u8]> for AsBytes<B, T> {
    fn as_ref(&self) -> &[u8] {
        self.0.borrow().as_bytes()
    }
}

/// A value in the ring, borrowed: no copy. `M` is the message that it is, which is acknowledged when
/// this is dropped.
///
/// Its bytes are in memory that the sender can write: they are a valid value at any time, but a
/// sender that breaks the protocol can change it meanwhile.
pub struct Ref<M, T> {
    message: M,
    value: PhantomData<T>,
}

impl<M: Deref<Target = [u8]>, T: FromBytes + Value> Ref<M, T> {
    /// `offset` tells where a message lies in the file.
    fn new(message: M, offset: impl FnOnce(&M) -> u64) -> Result<Ref<M, T>, RecvError> {
        if message.len() != size_of::<T>() || !message.as_ptr().cast::<T>().is_aligned() {
            let (what, offset) = (LENGTH, offset(&message));
            return Err(RecvError::Corrupt { what, offset });
        }
        let value = PhantomData;
        Ok(Ref { message, value })
    }
}

impl<M, T> Ref<M, T> {
    /// The message that the value is: says whether it was redelivered, for example.
    pub fn message(&self) -> &M {
        &self.message
    }
}

impl<M: Deref<Target = [u8]>, T: FromBytes + Value> Deref for Ref<M, T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: as long and as aligned as a value (checked in `new`; the bytes of a message do not
        // move or shrink), initialised, and any bytes are a value (`FromBytes`). It has no interior
        // mutability (`Immutable`). That no peer writes it meanwhile is the trust that zero-copy takes.
        unsafe { &*self.message.as_ptr().cast::<T>() }
    }
}

impl<M: Deref<Target = [u8]>, T: FromBytes + Value + fmt::Debug> fmt::Debug for Ref<M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A slice of values in the ring, borrowed: no copy. As [`Ref`], for messages of any number of values.
pub struct Slice<M, T> {
    message: M,
    values: PhantomData<T>,
}

impl<M: Deref<Target = [u8]>, T: FromBytes + Value> Slice<M, T> {
    /// `offset` tells where a message lies in the file.
    fn new(message: M, offset: impl FnOnce(&M) -> u64) -> Result<Slice<M, T>, RecvError> {
        let whole = message.len().is_multiple_of(size_of::<T>());
        if !whole || !message.as_ptr().cast::<T>().is_aligned() {
            let (what, offset) = (LENGTH, offset(&message));
            return Err(RecvError::Corrupt { what, offset });
        }
        let values = PhantomData;
        Ok(Slice { message, values })
    }
}

impl<M, T> Slice<M, T> {
    /// The message that the values are.
    pub fn message(&self) -> &M {
        &self.message
    }
}

impl<M: Deref<Target = [u8]>, T: FromBytes + Value> Deref for Slice<M, T> {
    type Target = [T];
    #[inline(always)]
    fn deref(&self) -> &[T] {
        let bytes = &*self.message;
        // SAFETY: as in `Ref::deref`, for so many values.
        unsafe {
            core::slice::from_raw_parts(bytes.as_ptr().cast::<T>(), bytes.len() / size_of::<T>())
        }
    }
}

impl<M: Deref<Target = [u8]>, T: FromBytes + Value + fmt::Debug> fmt::Debug for Slice<M, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Room for a value, written in place: no copy. What is in it at first is unspecified, but a value.
/// Sent by its `commit`; given up when dropped.
pub struct Slot<R, T> {
    pub(crate) reservation: R,
    value: PhantomData<T>,
}

impl<R: DerefMut<Target = [u8]>, T: FromBytes + Value> Slot<R, T> {
    /// A slot of exactly the size of a value, aligned for it.
    fn new(reservation: R) -> Slot<R, T> {
        assert!(reservation.len() == size_of::<T>());
        assert!(reservation.as_ptr().cast::<T>().is_aligned());
        let value = PhantomData;
        Slot { reservation, value }
    }
}

impl<R: DerefMut<Target = [u8]>, T: FromBytes + Value> Deref for Slot<R, T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: as long and as aligned as a value (checked in `new`), initialised shared memory, and
        // any bytes are a value. It is reserved: nobody who keeps the protocol writes there.
        unsafe { &*self.reservation.as_ptr().cast::<T>() }
    }
}

impl<R: DerefMut<Target = [u8]>, T: FromBytes + Value> DerefMut for Slot<R, T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, borrowed exclusively; what is written is bytes again (`IntoBytes`).
        unsafe { &mut *self.reservation.as_mut_ptr().cast::<T>() }
    }
}

impl<R: DerefMut<Target = [u8]>, T: FromBytes + Value + fmt::Debug> fmt::Debug for Slot<R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
