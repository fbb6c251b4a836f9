//! Rings in asynchronous programs, on [tokio](https://docs.rs/tokio) (feature `tokio`).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use ringway::spsc::{self, Config};
//!
//! # let name = format!("doc-async-{}", std::process::id());
//! let ring = spsc::create_or_attach(&name, Config::default())?;
//! let mut orders = ring.consumer()?.into_async()?;
//! # let mut tx = ring.producer()?;
//! # tx.send(b"buy 100")?; // as blocking as ever, in this process or another
//! let order = orders.recv().await?;
//! assert_eq!(order, b"buy 100");
//! # Ok(())
//! # }
//! ```
//!
//! `into_async` makes a [`Consumer`] or a [`Producer`] of any handle of a ring: [`spsc`],
//! [`mpmc`], [`broadcast`], and the [typed] ones. The other side need not know: it may be
//! asynchronous or not, and in any process.
//!
//! # Cancelling
//!
//! Every call is cancel safe: a future of `recv`, `recv_into`, `readable`, `send` or `writable` that is
//! dropped before it was ready has taken nothing, and has sent nothing. So all of them can stand in
//! `select!`.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # use ringway::spsc::Ring;
//! # let (one, other) = (Ring::anonymous(Default::default())?, Ring::anonymous(Default::default())?);
//! # let (mut tx, _other_tx) = (one.producer()?, other.producer()?);
//! # tx.send(b"hello")?;
//! let mut orders = one.consumer()?.into_async()?;
//! let mut cancels = other.consumer()?.into_async()?;
//! tokio::select! {
//!     order = orders.recv() => println!("order {:?}", order?),
//!     cancel = cancels.recv() => println!("cancel {:?}", cancel?),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # What waiting costs
//!
//! A call looks for a while before it gives the thread back, as long as that has paid lately: two sides
//! that keep up never leave user space. After that
//!
//! * of a ring with [`WaitStrategy::EventFd`](crate::wait::WaitStrategy::EventFd), the event descriptor
//!   is among those that the runtime waits for: the cheapest way for many rings, for rings without a name;
//! * of a ring with futexes (the default), a thread of this process sleeps on its word, together with
//!   those of other rings (63 a thread), and wakes the task. A wake-up takes one thread more.
//!
//! The death of a peer wakes the task through a process descriptor. Nothing polls: idle handles use no
//! processor time, however many. (Only where a peer is in another pid namespace is it looked at every
//! 80 ms.) Rings with strategy `Spin` or `Semaphore` cannot wake an executor, and `into_async` says so.
//!
//! A handle takes an epoll descriptor, and one for each process on the other side.

mod waiter;

use std::borrow::Borrow;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::awaited::Awaited;
use crate::error::{Error, RecvError, SendError};
use crate::typed::{self, Value};
use crate::{broadcast, mpmc, spsc};
use waiter::Waiter;

/// Attempts in one poll before others have their turn.
const ATTEMPTS: u32 = 64;

mod sealed {
    use super::{Awaited, RecvError, SendError};

    /// See [`Receives`](super::Receives).
    pub trait Receives {
        /// What is received.
        type Item;
        #[doc(hidden)]
        fn take(&mut self) -> Result<Self::Item, RecvError>;
        #[doc(hidden)]
        fn side(&mut self) -> Side<'_>;
    }

    /// See [`Sends`](super::Sends).
    pub trait Sends {
        /// What is sent.
        type Item: ?Sized;
        /// It, as it is kept until there is room.
        type Owned: std::borrow::Borrow<Self::Item> + Unpin;
        #[doc(hidden)]
        fn put(&mut self, item: &Self::Item) -> Result<(), SendError>;
        /// Waits are for room of this length from now on.
        #[doc(hidden)]
        fn want(&mut self, item: &Self::Item);
        #[doc(hidden)]
        fn side(&mut self) -> Side<'_>;
    }

    /// One side of a ring.
    #[allow(missing_debug_implementations)]
    pub struct Side<'a>(pub(crate) &'a mut (dyn Awaited + 'static));
}

use sealed::Side;

/// A handle that receives.
pub trait Receives: sealed::Receives + Unpin {}

impl<C: sealed::Receives + Unpin> Receives for C {}

/// A handle that sends.
pub trait Sends: sealed::Sends + Unpin {}

impl<P: sealed::Sends + Unpin> Sends for P {}

impl sealed::Receives for spsc::Consumer {
    type Item = Vec<u8>;
    fn take(&mut self) -> Result<Vec<u8>, RecvError> {
        self.try_recv().map(|message| message.to_vec())
    }
    fn side(&mut self) -> Side<'_> {
        Side(self)
    }
}

impl sealed::Receives for mpmc::Consumer {
    type Item = Vec<u8>;
    fn take(&mut self) -> Result<Vec<u8>, RecvError> {
        self.try_recv().map(|message| message.to_vec())
    }
    fn side(&mut self) -> Side<'_> {
        Side(self)
    }
}

impl sealed::Receives for broadcast::Subscriber {
    type Item = Vec<u8>;
    fn take(&mut self) -> Result<Vec<u8>, RecvError> {
        let mut message = Vec::new();
        self.try_recv_into(&mut message).map(|_| message)
    }
    fn side(&mut self) -> Side<'_> {
        Side(self)
    }
}

impl<C: typed::Receives + Awaited + 'static, T: Value> sealed::Receives for typed::Consumer<C, T> {
    type Item = T;
    fn take(&mut self) -> Result<T, RecvError> {
        self.try_recv()
    }
    fn side(&mut self) -> Side<'_> {
        Side(self.untyped())
    }
}

impl<P: typed::Sends + Awaited + 'static> sealed::Sends for P {
    type Item = [u8];
    type Owned = Vec<u8>;
    fn put(&mut self, message: &[u8]) -> Result<(), SendError> {
        self.try_send(message)
    }
    fn want(&mut self, message: &[u8]) {
        Awaited::want(self, message.len());
    }
    fn side(&mut self) -> Side<'_> {
        Side(self)
    }
}

impl<P, T> sealed::Sends for typed::Producer<P, T>
where
    P: typed::Sends + Awaited + 'static,
    T: Value + Unpin,
{
    type Item = T;
    type Owned = T;
    fn put(&mut self, value: &T) -> Result<(), SendError> {
        self.try_send(value)
    }
    fn want(&mut self, _: &T) {
        self.untyped().want(size_of::<T>());
    }
    fn side(&mut self) -> Side<'_> {
        Side(self.untyped())
    }
}

macro_rules! into_async {
    ($($handle:ty => $made:ident $(, $param:ident: $bound:path)?;)*) => {$(
        impl$(<$param: $bound + Unpin>)? $handle {
            /// Makes an asynchronous handle of this one: see [`async_io`](crate::async_io).
            ///
            /// # Errors
            /// [`Error::Unsupported`] outside a tokio runtime, and for wait strategies that cannot
            /// wake an executor; [`Error::NoRoom`] when there are no descriptors left. The role is
            /// given up then, as by dropping the handle.
            ///
            /// # Panics
            /// In a runtime without its I/O driver (`enable_io`).
            pub fn into_async(self) -> Result<$made<$handle>, Error> {
                $made::new(self)
            }
        }
    )*};
}

into_async! {
    broadcast::Subscriber => Consumer;
    broadcast::Producer => Producer;
    broadcast::typed::Subscriber<T> => Consumer, T: typed::Value;
    broadcast::typed::Producer<T> => Producer, T: typed::Value;
    spsc::Consumer => Consumer;
    mpmc::Consumer => Consumer;
    spsc::typed::Consumer<T> => Consumer, T: typed::Value;
    mpmc::typed::Consumer<T> => Consumer, T: typed::Value;
    spsc::Producer => Producer;
    mpmc::Producer => Producer;
    spsc::typed::Producer<T> => Producer, T: typed::Value;
    mpmc::typed::Producer<T> => Producer, T: typed::Value;
}

/// Whether the handle is attached at all (a clone for which there was no record is not).
fn attached(side: &mut dyn Awaited) -> Result<Waiter, Error> {
    if !side.is_attached() {
        return Err(Error::TooManyParticipants {
            name: "a clone".into(),
            max: 0,
        });
    }
    Waiter::new(side)
}

/// The receiving end of a ring, in an asynchronous program. A [`Stream`](futures_core::Stream) of what is
/// received, which ends when the sender has left and everything was taken; an error is an item.
pub struct Consumer<C: Receives> {
    inner: C,
    waiter: Waiter,
}

impl<C: Receives> Consumer<C> {
    fn new(mut inner: C) -> Result<Consumer<C>, Error> {
        let waiter = attached(inner.side().0)?;
        Ok(Consumer { inner, waiter })
    }

    /// Calls `attempt` until it has an answer.
    fn poll_with<R>(
        &mut self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(&mut C) -> Result<R, RecvError>,
    ) -> Poll<Result<R, RecvError>> {
        let turn = ready!(tokio::task::coop::poll_proceed(cx));
        for _ in 0..ATTEMPTS {
            match attempt(&mut self.inner) {
                Err(RecvError::Empty) => {}
                result => {
                    turn.made_progress();
                    self.waiter.finish(self.inner.side().0);
                    return Poll::Ready(result);
                }
            }
            let waited = ready!(self.waiter.poll(self.inner.side().0, cx));
            waited.map_err(|source| RecvError::Os { op: "wait", source })?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Polls for the next one: [`Consumer::recv`] for those who write futures by hand.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<C::Item, RecvError>> {
        self.poll_with(cx, C::take)
    }

    /// Receives the next one: a copy of the message, or a value. Cancel safe.
    ///
    /// # Errors
    /// As the handle's own `recv`: [`RecvError::Closed`], [`RecvError::PeerDied`] and others.
    pub async fn recv(&mut self) -> Result<C::Item, RecvError> {
        let wait = Waiting(self);
        poll_fn(|cx| wait.0.poll_recv(cx)).await
    }

    /// Waits until the handle has something to say: then a call on [`Consumer::get_mut`] that does not
    /// block gives a message, in place and without a copy, or an error. (Of an mpmc ring somebody else
    /// may have taken the message meanwhile.) Cancel safe.
    ///
    /// # Errors
    /// [`RecvError::Os`] when there is no way to wait.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let ring = ringway::spsc::Ring::anonymous(Default::default())?;
    /// # let (mut tx, mut rx) = (ring.producer()?, ring.consumer()?.into_async()?);
    /// # tx.send(b"in place")?;
    /// rx.readable().await?;
    /// let message = rx.get_mut().try_recv()?;
    /// assert_eq!(&*message, b"in place");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn readable(&mut self) -> Result<(), RecvError> {
        let wait = Waiting(self);
        poll_fn(|cx| {
            wait.0.poll_with(cx, |inner| {
                if inner.side().0.is_ready() {
                    Ok(())
                } else {
                    Err(RecvError::Empty)
                }
            })
        })
        .await
    }

    /// The handle itself, for calls that do not block.
    pub fn get_mut(&mut self) -> &mut C {
        &mut self.inner
    }

    /// The handle again, for calls that block.
    pub fn into_inner(self) -> C {
        self.inner
    }
}

/// A future under way; dropped, its wait is over.
struct Waiting<'a, C: Receives>(&'a mut Consumer<C>);

impl<C: Receives> Drop for Waiting<'_, C> {
    fn drop(&mut self) {
        self.0.waiter.finish(self.0.inner.side().0);
    }
}

impl Consumer<spsc::Consumer> {
    /// Copies the next message to `buffer`, in place of what is there. Cancel safe.
    ///
    /// # Errors
    /// As [`Consumer::recv`].
    pub async fn recv_into(&mut self, buffer: &mut Vec<u8>) -> Result<(), RecvError> {
        let wait = Waiting(self);
        poll_fn(|cx| wait.0.poll_with(cx, |inner| inner.try_recv_into(buffer))).await
    }
}

impl Consumer<mpmc::Consumer> {
    /// Copies the next message to `buffer`, in place of what is there; says whether it was redelivered.
    /// Cancel safe.
    ///
    /// # Errors
    /// As [`Consumer::recv`].
    pub async fn recv_into(&mut self, buffer: &mut Vec<u8>) -> Result<bool, RecvError> {
        let wait = Waiting(self);
        poll_fn(|cx| {
            wait.0.poll_with(cx, |inner| {
                let message = inner.try_recv()?;
                buffer.clear();
                buffer.extend_from_slice(&message);
                Ok(message.redelivered())
            })
        })
        .await
    }
}

impl Consumer<broadcast::Subscriber> {
    /// Copies the next message to `buffer`, in place of what is there; says how many were sent before it.
    /// Cancel safe.
    ///
    /// # Errors
    /// As [`Consumer::recv`], [`RecvError::Missed`] among them: the next call receives.
    pub async fn recv_into(&mut self, buffer: &mut Vec<u8>) -> Result<u64, RecvError> {
        let wait = Waiting(self);
        poll_fn(|cx| wait.0.poll_with(cx, |inner| inner.try_recv_into(buffer))).await
    }
}

impl<C: Receives> futures_core::Stream for Consumer<C> {
    type Item = Result<C::Item, RecvError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_recv(cx).map(|result| match result {
            Err(RecvError::Closed) => None,
            result => Some(result),
        })
    }
}

impl<C: Receives> fmt::Debug for Consumer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").finish_non_exhaustive()
    }
}

/// The sending end of a ring, in an asynchronous program. A [`Sink`](futures_sink::Sink), too, which keeps
/// one item until there is room for it, and is closed by dropping the handle inside.
pub struct Producer<P: Sends> {
    inner: Option<P>,
    /// What the sink was given and could not send yet.
    kept: Option<P::Owned>,
    waiter: Waiter,
}

impl<P: Sends> Producer<P> {
    fn new(mut inner: P) -> Result<Producer<P>, Error> {
        let waiter = attached(inner.side().0)?;
        Ok(Producer {
            inner: Some(inner),
            kept: None,
            waiter,
        })
    }

    fn poll_put(&mut self, cx: &mut Context<'_>, item: &P::Item) -> Poll<Result<(), SendError>> {
        let turn = ready!(tokio::task::coop::poll_proceed(cx));
        let Some(inner) = &mut self.inner else {
            return Poll::Ready(Err(SendError::Closed));
        };
        inner.want(item);
        for _ in 0..ATTEMPTS {
            match inner.put(item) {
                Err(SendError::Full) => {}
                result => {
                    turn.made_progress();
                    self.waiter.finish(inner.side().0);
                    return Poll::Ready(result);
                }
            }
            let waited = ready!(self.waiter.poll(inner.side().0, cx));
            waited.map_err(|source| SendError::Os { op: "wait", source })?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Sends what the sink has kept.
    fn poll_kept(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let Some(kept) = self.kept.take() else {
            return Poll::Ready(Ok(()));
        };
        let result = self.poll_put(cx, kept.borrow());
        if result.is_pending() {
            self.kept = Some(kept);
        }
        result
    }

    /// Polls to send `item`, after what the sink has kept: [`Producer::send`] for those who write
    /// futures by hand.
    pub fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        item: &P::Item,
    ) -> Poll<Result<(), SendError>> {
        ready!(self.poll_kept(cx))?;
        self.poll_put(cx, item)
    }

    /// Sends a message, or a value, waiting for room. Cancel safe: sent when this is ready, and else not.
    ///
    /// # Errors
    /// As the handle's own `send`.
    pub async fn send(&mut self, item: &P::Item) -> Result<(), SendError> {
        let wait = WaitingToSend(self);
        poll_fn(|cx| wait.0.poll_send(cx, item)).await
    }

    /// The handle itself, for calls that do not block. `None` after the sink was closed.
    pub fn get_mut(&mut self) -> Option<&mut P> {
        self.inner.as_mut()
    }

    /// The handle again, for calls that block. What the sink has kept is lost: flush it before.
    pub fn into_inner(self) -> Option<P> {
        self.inner
    }
}

/// A future under way; dropped, its wait is over.
struct WaitingToSend<'a, P: Sends>(&'a mut Producer<P>);

impl<P: Sends> Drop for WaitingToSend<'_, P> {
    fn drop(&mut self) {
        if let Some(inner) = &mut self.0.inner {
            self.0.waiter.finish(inner.side().0);
        }
    }
}

impl<P: Sends> futures_sink::Sink<P::Owned> for Producer<P>
where
    P::Owned: Unpin,
{
    type Error = SendError;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        self.get_mut().poll_kept(cx)
    }

    fn start_send(self: Pin<&mut Self>, item: P::Owned) -> Result<(), SendError> {
        let this = self.get_mut();
        let inner = this.inner.as_mut().ok_or(SendError::Closed)?;
        match inner.put(item.borrow()) {
            Err(SendError::Full) => {
                this.kept = Some(item);
                Ok(())
            }
            result => result,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        // What is sent is published at once.
        self.get_mut().poll_kept(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        let this = self.get_mut();
        ready!(this.poll_kept(cx))?;
        this.inner = None;
        Poll::Ready(Ok(()))
    }
}

impl<P: Sends> fmt::Debug for Producer<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").finish_non_exhaustive()
    }
}
