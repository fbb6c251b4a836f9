//! Futexes for those who cannot sleep on one: an executor, or somebody who waits for descriptors, too.
//!
//! A few threads of this process sleep on the words of all rings that are waited for so, as many words
//! a thread as `futex_waitv` takes, and call the waker of whose word was woken. There is no thread
//! before the first such wait, none for each ring, and a second after the last wait none again.
//!
//! ```text
//! register: into a worker's list; its control word is counted up and woken
//! worker:   reads the control word, then the list; sleeps on control word and all words
//!           a word was woken or is not what was expected: its waker is called, once
//!           the control word: reads the list anew
//! ```
//!
//! Counting up the control word and sleeping on it is the protocol of any futex: what is registered is
//! in the list before the count, so the worker has it or does not fall asleep.
//!
//! A wake-up that reaches the worker for a wait that was given up meanwhile was meant for one sleeper
//! among several (`wait::Bell` wakes one): the worker wakes the next one in its place.
//!
//! A forked child has the list of the workers but none of their threads, which may have held a lock at that very
//! moment: it begins with a list of its own, and never looks at the other.

use std::any::Any;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use crate::os::clock::Deadline;
use crate::os::fork::Mark;
use crate::os::futex::{self, Waited};
use crate::primitive::AtomicU64;
use crate::sleeper::{SLICE, futex_half};

/// Waits of one worker: two words each, and the control word.
const MOST: usize = (futex::MANY - 1) / 2;
/// How long a worker without a wait stays for the next one.
const LINGER: Duration = Duration::from_secs(1);

const WAITING: u8 = 0;
const FIRED: u8 = 1;
const GIVEN_UP: u8 = 2;

/// What to wait for.
pub(crate) struct Wait<'a> {
    /// The word, and what it is expected to be.
    pub(crate) word: (&'a AtomicU64, u64),
    /// Another one, of the same memory.
    pub(crate) joins: (&'a AtomicU64, u64),
    /// Whether to call the waker after a slice of time in any case.
    pub(crate) slices: bool,
    /// Keeps the words mapped.
    pub(crate) keep: Arc<dyn Any + Send + Sync>,
}

struct Entry {
    /// | state | meaning | who may move it on |
    /// | --- | --- | --- |
    /// | WAITING | the worker sleeps for it, or is about to | the worker to FIRED, the waiter to GIVEN_UP |
    /// | FIRED | the waker was called | nobody |
    /// | GIVEN_UP | nobody waits any more | nobody |
    state: AtomicU8,
    /// Address of a word and the half of it that is expected.
    words: [(*const AtomicU32, u32); 2],
    slices: bool,
    waker: Mutex<Waker>,
    _keep: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the addresses are of atomics that `_keep` keeps mapped, which any thread may use.
unsafe impl Send for Entry {}
// SAFETY: as above.
unsafe impl Sync for Entry {}

impl Entry {
    fn waited(&self) -> [Waited<'_>; 2] {
        self.words.map(|(word, expected)| Waited {
            // SAFETY: mapped, and an atomic, as long as the entry is there.
            word: unsafe { &*word },
            expected,
        })
    }

    fn is_waiting(&self) -> bool {
        self.state.load(Ordering::Acquire) == WAITING
    }

    fn has_changed(&self) -> bool {
        // Relaxed: who is woken looks with an ordering of its own.
        self.waited()
            .iter()
            .any(|waited| waited.word.load(Ordering::Relaxed) != waited.expected)
    }

    fn fire(&self) {
        let fired =
            self.state
                .compare_exchange(WAITING, FIRED, Ordering::AcqRel, Ordering::Relaxed);
        if fired.is_ok() {
            let waker = lock(&self.waker).clone();
            waker.wake();
        }
    }
}

/// A wait under way; dropped, it is given up.
pub(crate) struct Registration {
    entry: Arc<Entry>,
    worker: Arc<Worker>,
}

impl Registration {
    /// Whether the waker was called, and so will not be again.
    pub(crate) fn has_fired(&self) -> bool {
        self.entry.state.load(Ordering::Acquire) == FIRED
    }

    /// Whether it still waits for the same.
    pub(crate) fn is_for(&self, wait: &Wait<'_>) -> bool {
        self.entry.words == words(wait) && self.entry.slices == wait.slices
    }

    /// Has another waker called.
    #[cfg(feature = "tokio")]
    pub(crate) fn set_waker(&self, waker: &Waker) {
        lock(&self.entry.waker).clone_from(waker);
    }
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registration")
            .field("fired", &self.has_fired())
            .finish_non_exhaustive()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let state = &self.entry.state;
        let given_up =
            state.compare_exchange(WAITING, GIVEN_UP, Ordering::AcqRel, Ordering::Relaxed);
        if given_up.is_ok() {
            // It lets go of the memory then.
            self.worker.tell();
        }
    }
}

fn words(wait: &Wait<'_>) -> [(*const AtomicU32, u32); 2] {
    [wait.word, wait.joins].map(|(word, expected)| {
        let half: *const AtomicU32 = futex_half(word);
        (half, expected as u32)
    })
}

/// A lock whose holders do not panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Worker {
    control: AtomicU32,
    list: Mutex<List>,
}

struct List {
    entries: Vec<Arc<Entry>>,
    /// Nothing is registered any more: its thread has ended.
    ended: bool,
}

/// The workers of one process.
struct Workers {
    mark: Mark,
    all: Mutex<Vec<Arc<Worker>>>,
}

impl Workers {
    /// Those of this process. Never freed: a child leaves its parent's as it is.
    fn here() -> &'static Workers {
        static HERE: AtomicPtr<Workers> = AtomicPtr::new(std::ptr::null_mut());
        let mark = Mark::here();
        // SYNC: the list is made. Acquire: what the pointer leads to was written before it.
        let mut here = HERE.load(Ordering::Acquire);
        loop {
            // SAFETY: null, or made below and never freed; nobody has it exclusively.
            if let Some(workers) = unsafe { here.as_ref() }
                && workers.mark.is_here()
            {
                return workers;
            }
            let all = Mutex::default();
            let made = Box::into_raw(Box::new(Workers { mark, all }));
            // SYNC: the list is made. Release: it was written before. Acquire, failing: as the load.
            match HERE.compare_exchange(here, made, Ordering::Release, Ordering::Acquire) {
                Ok(_) => here = made,
                Err(other) => {
                    // SAFETY: from `into_raw` just now, and shown to nobody.
                    drop(unsafe { Box::from_raw(made) });
                    here = other;
                }
            }
        }
    }
}

/// Has `waker` called once when one of the words is woken or is not what is expected; also for no
/// reason.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn register(wait: &Wait<'_>, waker: &Waker) -> std::io::Result<Registration> {
    let entry = Arc::new(Entry {
        state: AtomicU8::new(WAITING),
        words: words(wait),
        slices: wait.slices,
        waker: Mutex::new(waker.clone()),
        _keep: wait.keep.clone(),
    });
    let mut workers = lock(&Workers::here().all);
    workers.retain(|worker| !lock(&worker.list).ended);
    for worker in workers.iter() {
        if worker.accept(&entry) {
            let worker = worker.clone();
            return Ok(Registration { entry, worker });
        }
    }
    let worker = Arc::new(Worker {
        control: AtomicU32::new(0),
        list: Mutex::new(List {
            entries: vec![entry.clone()],
            ended: false,
        }),
    });
    let its = worker.clone();
    std::thread::Builder::new()
        .name("ringway-bridge".into())
        .stack_size(64 << 10)
        .spawn(move || its.run())?;
    workers.push(worker.clone());
    Ok(Registration { entry, worker })
}

impl Worker {
    fn accept(&self, entry: &Arc<Entry>) -> bool {
        let mut list = lock(&self.list);
        if list.ended {
            return false;
        }
        // The thread itself goes by a list of its own.
        list.entries.retain(|entry| entry.is_waiting());
        if list.entries.len() >= MOST {
            return false;
        }
        list.entries.push(entry.clone());
        drop(list);
        self.tell();
        true
    }

    /// Has the thread read the list anew.
    fn tell(&self) {
        // Release: whoever sees the count finds the list as it is now.
        self.control.fetch_add(1, Ordering::Release);
        futex::wake(&self.control, 1);
    }

    fn run(&self) {
        // Those on whose words the thread slept last; some may have been given up meanwhile.
        let mut held: Vec<Arc<Entry>> = Vec::new();
        let mut idle = false;
        loop {
            let seen = self.control.load(Ordering::Acquire);
            held.clear();
            {
                let mut list = lock(&self.list);
                list.entries.retain(|entry| entry.is_waiting());
                if list.entries.is_empty() && idle {
                    list.ended = true;
                    return;
                }
                held.extend_from_slice(&list.entries);
            }
            idle = false;
            let control = Waited {
                word: &self.control,
                expected: seen,
            };
            let mut waited = vec![control];
            waited.extend(held.iter().flat_map(|entry| entry.waited()));
            let deadline = if held.is_empty() {
                Deadline::after(LINGER)
            } else if held.iter().any(|entry| entry.slices) {
                Deadline::NEVER.at_most(SLICE)
            } else {
                Deadline::NEVER
            };
            match futex::wait_any(&waited, deadline) {
                Ok(Some(0)) => {}
                Ok(Some(index)) => {
                    let entry = &held[(index - 1) / 2];
                    if entry.is_waiting() {
                        entry.fire();
                    } else {
                        // It was given up: this wake-up is another sleeper's.
                        futex::wake(waited[index].word, 1);
                    }
                }
                Ok(None) => {}
                Err(error) if error.raw_os_error() == Some(crate::os::TIMED_OUT) => {
                    idle = held.is_empty();
                    held.iter()
                        .filter(|entry| entry.slices)
                        .for_each(|entry| entry.fire());
                }
                // Memory that is not there any more, for example: those who wait find out.
                Err(_) => held.iter().for_each(|entry| entry.fire()),
            }
            // Several may have been woken, of whom the kernel names one.
            for entry in held.iter().filter(|entry| entry.has_changed()) {
                entry.fire();
                if entry.state.load(Ordering::Acquire) == GIVEN_UP {
                    futex::wake(entry.waited()[0].word, 1);
                }
            }
        }
    }
}
