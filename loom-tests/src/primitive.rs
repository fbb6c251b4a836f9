//! The names of `src/primitive.rs`, with loom's types behind them.
//!
//! loom 0.7.3 leaves executions out: when a thread loads an atomic and then stores to it, the race of
//! that store with another thread's earlier load is not explored (its issues #166 and #392). So each
//! load and compare-exchange here is preceded by a relaxed store to a companion atomic, which makes
//! loads of one word depend on each other. Nobody ever reads it: a read-modify-write would have fences
//! synchronise through it.
//!
//! Nor does loom switch threads at a fence: what comes before it and the fence would be one step, and
//! nobody would ever see the first without the second. So a full fence, too, is preceded by such a store,
//! to one word that all of them share: they are steps, and each order of them is explored.

pub use loom::hint::spin_loop;
pub use loom::sync::atomic::{Ordering, fence};

loom::lazy_static! {
    static ref FENCES: loom::sync::atomic::AtomicUsize = loom::sync::atomic::AtomicUsize::new(0);
}

/// To be called first in each execution, by its first thread: whoever makes a thing of all threads
/// would else be ordered before those who use it next.
pub fn begin() {
    let _: &loom::sync::atomic::AtomicUsize = &FENCES;
}

pub fn fence_after_exchange() {
    full_fence();
}

pub fn full_fence() {
    step();
    FENCES.store(0, Ordering::Relaxed);
    fence(Ordering::SeqCst);
}

/// Under loom a fence here stands for the part of another one's barrier that happens here.
pub fn light_fence() {
    full_fence();
}

/// Time does not pass here.
pub fn leave_the_line() {}

thread_local! {
    /// The thread that is to die, and the accesses that it has left. loom's threads share this one.
    static FUSE: std::cell::Cell<Option<(loom::thread::ThreadId, u32)>> =
        const { std::cell::Cell::new(None) };
}

/// What a dying thread unwinds with.
struct Death;

/// Called before each access to shared memory, and before each full fence.
fn step() {
    let Some((thread, left)) = FUSE.get() else {
        return;
    };
    if thread != loom::thread::current().id() {
        return;
    }
    match left.checked_sub(1) {
        Some(left) => FUSE.set(Some((thread, left))),
        None => {
            FUSE.set(None);
            std::panic::resume_unwind(Box::new(Death));
        }
    }
}

/// Runs `f` until the calling thread has accessed shared memory `steps` times, and there ends it, as a
/// kill would. `None` if it ended so.
pub fn die_after<R>(steps: u32, f: impl FnOnce() -> R) -> Option<R> {
    FUSE.set(Some((loom::thread::current().id(), steps)));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
    FUSE.set(None);
    match result {
        Ok(value) => Some(value),
        Err(death) if death.is::<Death>() => None,
        Err(failure) => std::panic::resume_unwind(failure),
    }
}

macro_rules! atomic {
    ($name:ident, $value:ty) => {
        pub struct $name {
            word: std::cell::UnsafeCell<loom::sync::atomic::$name>,
            companion: loom::sync::atomic::AtomicUsize,
        }

        impl $name {
            pub fn new(value: $value) -> Self {
                Self {
                    word: std::cell::UnsafeCell::new(loom::sync::atomic::$name::new(value)),
                    companion: loom::sync::atomic::AtomicUsize::new(0),
                }
            }
            fn word(&self) -> &loom::sync::atomic::$name {
                step();
                // SAFETY: exclusive references exist in `write_plainly` alone, which calls nothing.
                unsafe { &*self.word.get() }
            }
            /// A write that is not atomic: loom fails unless it is ordered with every access. The nudge
            /// moves loom's clock on: it would take what follows a release for a part of it.
            #[track_caller]
            pub fn write_plainly(&self, value: $value) {
                step();
                self.nudge();
                // SAFETY: loom's threads take turns, and not in here.
                unsafe { &mut *self.word.get() }.with_mut(|word| *word = value);
            }
            /// A read that is not atomic: loom fails unless it is ordered with every write.
            #[track_caller]
            pub fn read_plainly(&self) -> $value {
                self.nudge();
                // SAFETY: loom checks what is asked for: that no write is concurrent.
                unsafe { self.word().unsync_load() }
            }
            fn nudge(&self) {
                self.companion.store(0, Ordering::Relaxed);
            }
            #[track_caller]
            pub fn load(&self, order: Ordering) -> $value {
                self.nudge();
                self.word().load(order)
            }
            #[track_caller]
            pub fn store(&self, value: $value, order: Ordering) {
                self.word().store(value, order)
            }
            #[track_caller]
            pub fn swap(&self, value: $value, order: Ordering) -> $value {
                self.word().swap(value, order)
            }
            #[track_caller]
            pub fn fetch_add(&self, value: $value, order: Ordering) -> $value {
                self.word().fetch_add(value, order)
            }
            #[track_caller]
            pub fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
                self.word().fetch_sub(value, order)
            }
            #[track_caller]
            pub fn fetch_or(&self, value: $value, order: Ordering) -> $value {
                self.word().fetch_or(value, order)
            }
            #[track_caller]
            pub fn fetch_and(&self, value: $value, order: Ordering) -> $value {
                self.word().fetch_and(value, order)
            }
            #[track_caller]
            pub fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.nudge();
                self.word().compare_exchange(current, new, success, failure)
            }
        }
    };
}
atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);

/// Padding means nothing to loom.
pub struct CachePadded<T>(T);

impl<T> CachePadded<T> {
    pub fn new(value: T) -> Self {
        CachePadded(value)
    }
}

impl<T> std::ops::Deref for CachePadded<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// Bytes of a line: two words, so that small areas have several.
pub const LINE: u64 = 16;

/// The data area of an SPSC ring, word by word. A word is a header at one time and payload at another:
/// headers are accessed atomically, payload plainly, and loom fails when the two are not ordered.
#[derive(Clone, Copy)]
pub struct Data<'a>(pub &'a [AtomicU64]);

impl<'a> Data<'a> {
    pub fn capacity(&self) -> u64 {
        self.0.len() as u64 * 8
    }
    pub fn word(&self, position: u64) -> &'a AtomicU64 {
        &self.0[((position & (self.capacity() - 1)) / 8) as usize]
    }
    /// # Safety
    /// None: loom checks.
    #[track_caller]
    pub unsafe fn zero(&self, from: u64, to: u64) {
        assert!(from <= to && to - from <= self.capacity());
        for position in (from..to).step_by(8) {
            self.word(position).write_plainly(0);
        }
    }
    /// # Safety
    /// None: loom checks.
    #[track_caller]
    pub unsafe fn zero_rest_of_line(&self, position: u64) {
        // SAFETY: none needed.
        unsafe { self.zero(position, (position | (LINE - 1)) + 1) };
    }
    /// # Safety
    /// None: loom checks.
    #[track_caller]
    pub unsafe fn zero_line(&self, position: u64) {
        assert!(position.is_multiple_of(LINE));
        // SAFETY: none needed.
        unsafe { self.zero(position, position + LINE) };
    }
    /// # Safety
    /// None: loom checks.
    #[track_caller]
    pub unsafe fn copy_in(&self, position: u64, bytes: &[u8]) {
        assert!((position & (self.capacity() - 1)) + bytes.len() as u64 <= self.capacity());
        for (index, word) in bytes.chunks(8).enumerate() {
            let word = u64::from_le_bytes(word.try_into().expect("whole words"));
            self.word(position + 8 * index as u64).write_plainly(word);
        }
    }
    /// # Safety
    /// None: loom checks.
    #[track_caller]
    pub unsafe fn copy_out(&self, position: u64, bytes: &mut [u8]) {
        assert!((position & (self.capacity() - 1)) + bytes.len() as u64 <= self.capacity());
        for (index, word) in bytes.chunks_mut(8).enumerate() {
            let value = self.word(position + 8 * index as u64).read_plainly();
            word.copy_from_slice(&value.to_le_bytes());
        }
    }
}

/// What readers may be reading while it is overwritten is accessed atomically, relaxed.
impl Data<'_> {
    /// # Safety
    /// None: loom checks.
    #[track_caller]
    pub unsafe fn copy_in_shared(&self, position: u64, bytes: &[u8]) {
        assert!((position & (self.capacity() - 1)) + bytes.len() as u64 <= self.capacity());
        for (index, word) in bytes.chunks(8).enumerate() {
            let word = u64::from_le_bytes(word.try_into().expect("whole words"));
            self.word(position + 8 * index as u64)
                .store(word, Ordering::Relaxed);
        }
    }
    /// # Safety
    /// `to` is writable for `len` bytes.
    #[track_caller]
    pub unsafe fn copy_out_shared(&self, position: u64, to: *mut u8, len: usize) {
        assert!((position & (self.capacity() - 1)) + len as u64 <= self.capacity());
        for index in 0..len / 8 {
            let word = self
                .word(position + 8 * index as u64)
                .load(Ordering::Relaxed);
            // SAFETY: inside of what the caller gave.
            unsafe { to.cast::<u64>().add(index).write_unaligned(word) };
        }
    }
    #[track_caller]
    pub fn zero_shared(&self, from: u64, to: u64) {
        assert!(from <= to && to - from <= self.capacity());
        for position in (from..to).step_by(8) {
            self.word(position).store(0, Ordering::Relaxed);
        }
    }
}

/// A slot of an MPMC ring: its payload is one number in a cell, so that races on it are found.
pub struct Slot {
    sequence: AtomicU64,
    payload: loom::cell::UnsafeCell<u64>,
}

impl Slot {
    /// The slot of index `index`, free for its first lap.
    pub fn new(index: u64) -> Slot {
        Slot {
            sequence: AtomicU64::new(index),
            payload: loom::cell::UnsafeCell::new(0),
        }
    }
}

/// The slots of an MPMC ring.
#[derive(Clone, Copy)]
pub struct Slots<'a>(pub &'a [Slot]);

impl<'a> Slots<'a> {
    pub fn capacity(&self) -> u64 {
        self.0.len() as u64
    }
    fn slot(&self, ticket: u64) -> &'a Slot {
        &self.0[(ticket % self.capacity()) as usize]
    }
    pub fn sequence(&self, ticket: u64) -> &'a AtomicU64 {
        &self.slot(ticket).sequence
    }
    #[track_caller]
    pub fn write(&self, ticket: u64, value: u64) {
        // SAFETY: loom checks that nobody else accesses the cell meanwhile.
        self.slot(ticket)
            .payload
            .with_mut(|payload| unsafe { *payload = value });
    }
    #[track_caller]
    pub fn read(&self, ticket: u64) -> u64 {
        // SAFETY: loom checks that nobody writes to the cell meanwhile.
        self.slot(ticket)
            .payload
            .with(|payload| unsafe { *payload })
    }
}

/// A slot of 16 bytes: for loom, a pair behind a lock.
pub struct Pair(loom::sync::Mutex<(u64, u64)>);

impl Pair {
    /// The slot of index `index`, free for its first lap.
    pub fn new(index: u64) -> Pair {
        Pair(loom::sync::Mutex::new((index, 0)))
    }
}

/// Slots that are changed as a whole.
#[derive(Clone, Copy)]
pub struct Pairs<'a>(pub &'a [Pair]);

impl Pairs<'_> {
    pub fn capacity(&self) -> u64 {
        self.0.len() as u64
    }
    fn with<R>(&self, ticket: u64, f: impl FnOnce(&mut (u64, u64)) -> R) -> R {
        f(&mut self.0[(ticket % self.capacity()) as usize]
            .0
            .lock()
            .unwrap())
    }
    pub fn sequence(&self, ticket: u64) -> u64 {
        self.with(ticket, |pair| pair.0)
    }
    pub fn item(&self, ticket: u64) -> u64 {
        self.with(ticket, |pair| pair.1)
    }
    pub fn compare_exchange(&self, ticket: u64, old: (u64, u64), new: (u64, u64)) -> bool {
        self.with(ticket, |pair| {
            let same = *pair == old;
            if same {
                *pair = new;
            }
            same
        })
    }
}
