//! What becomes of a mapping whose file somebody else truncates.
//!
//! To touch a page that is not there any more is SIGBUS, and ends the process. Memory files can be sealed
//! against it; files with a name cannot. A process that asks for it ([`install`]) catches the signal: where
//! the page belongs to a mapping of ours, the whole mapping becomes fresh memory, all zero and shared with
//! nobody, and is marked as lost. An interrupted operation goes on there, harmlessly, and whoever waits
//! finds the mark.
//!
//! Every mapping is noted, asked or not, so that it does not matter which comes first.

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};

use super::check;

/// One mapping of this process. Entries are never freed, only used again: the handler may be reading them.
#[derive(Debug)]
struct Entry {
    /// Its address; 0 when the entry is free, 1 while it is being filled in.
    start: AtomicUsize,
    /// How often it was filled in: what was read between two looks at the same number belongs together.
    version: AtomicUsize,
    len: AtomicUsize,
    writable: AtomicBool,
    lost: AtomicBool,
    next: Option<&'static Entry>,
}

impl Entry {
    /// The mapping that is noted here; `None` when there is none, or another one while it was read.
    fn range(&self) -> Option<Range<usize>> {
        // Acquire, both: `Noted::new` bumps the version before it fills in the rest, and stores the start last.
        let version = self.version.load(Ordering::Acquire);
        let start = self.start.load(Ordering::Acquire);
        let len = self.len.load(Ordering::Relaxed);
        // Pairs with the release fence in `Noted::new`.
        fence(Ordering::Acquire);
        let same = self.version.load(Ordering::Relaxed) == version;
        (same && start > CLAIMED).then(|| start..start + len)
    }
}

const FREE: usize = 0;
const CLAIMED: usize = 1;

static ENTRIES: AtomicPtr<Entry> = AtomicPtr::new(ptr::null_mut());

fn entries() -> impl Iterator<Item = &'static Entry> {
    // Acquire: pairs with the release that put the entry there.
    let first = ENTRIES.load(Ordering::Acquire);
    // SAFETY: null, or an entry that was leaked and so lives for ever.
    std::iter::successors(unsafe { first.as_ref() }, |entry| entry.next)
}

/// The note of a mapping, for as long as it is mapped: to be dropped before the mapping is.
#[derive(Debug)]
pub(crate) struct Noted(&'static Entry);

impl Noted {
    /// Notes a mapping of `len` bytes at `start`.
    pub(crate) fn new(start: *mut u8, len: usize, writable: bool) -> Noted {
        let claim = |entry: &&Entry| {
            let swap = (Ordering::Acquire, Ordering::Relaxed);
            let result = entry.start.compare_exchange(FREE, CLAIMED, swap.0, swap.1);
            result.is_ok()
        };
        let entry = entries().find(claim).unwrap_or_else(another);
        entry.version.fetch_add(1, Ordering::Relaxed);
        // Pairs with the acquire fence in `Entry::range`: who reads the new length sees the new version.
        fence(Ordering::Release);
        entry.len.store(len, Ordering::Relaxed);
        entry.writable.store(writable, Ordering::Relaxed);
        entry.lost.store(false, Ordering::Relaxed);
        // Release: the handler that finds the address finds the rest.
        entry.start.store(start as usize, Ordering::Release);
        Noted(entry)
    }

    /// Whether it was lost: what is mapped there now is private memory that began as zeros.
    pub(crate) fn is_lost(&self) -> bool {
        // Relaxed: whoever lost it is this process, and set the mark before it went on.
        self.0.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        // Release: who uses the entry next comes after us.
        self.0.start.store(FREE, Ordering::Release);
    }
}

/// A new entry, claimed.
fn another() -> &'static Entry {
    let entry = Box::leak(Box::new(Entry {
        start: AtomicUsize::new(CLAIMED),
        version: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        writable: AtomicBool::new(false),
        lost: AtomicBool::new(false),
        next: None,
    }));
    let mut first = ENTRIES.load(Ordering::Relaxed);
    loop {
        // SAFETY: null, or an entry that was leaked and so lives for ever.
        entry.next = unsafe { first.as_ref() };
        // Release: `next` is seen by whoever finds the entry.
        let swap = (Ordering::Release, Ordering::Relaxed);
        match ENTRIES.compare_exchange(first, entry, swap.0, swap.1) {
            // SAFETY: leaked, and from here on only shared.
            Ok(_) => return unsafe { &*ptr::from_mut(entry) },
            Err(now) => first = now,
        }
    }
}

/// The handler that was there before ours.
struct Before(UnsafeCell<MaybeUninit<libc::sigaction>>);

// SAFETY: written once, under the lock of `install` and before our handler can run; only read then.
unsafe impl Sync for Before {}

static BEFORE: Before = Before(UnsafeCell::new(MaybeUninit::uninit()));

/// Has SIGBUS on a noted mapping caught from now on, in the whole process.
pub(crate) fn install() -> io::Result<()> {
    static INSTALLED: Mutex<bool> = Mutex::new(false);
    let mut installed = INSTALLED.lock().unwrap_or_else(|e| e.into_inner());
    if *installed {
        return Ok(());
    }
    // SAFETY: reads the present action of a valid signal into `BEFORE`, which nobody reads yet.
    check(unsafe {
        libc::sigaction(libc::SIGBUS, ptr::null(), BEFORE.0.get().cast()) as libc::c_long
    })?;
    // SAFETY: an all-zero sigaction is a valid one.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = on_bus as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: `on_bus` calls only what may be called in a handler, and has the signature that SA_SIGINFO
    // asks for.
    check(unsafe { libc::sigaction(libc::SIGBUS, &action, ptr::null_mut()) as libc::c_long })?;
    *installed = true;
    Ok(())
}

extern "C" fn on_bus(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives a valid siginfo, and one with an address for this code.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    if code != libc::BUS_ADRERR || !replace(address) {
        pass_on(signal, info, context);
    }
}

/// Replaces the noted mapping that `address` is in; false when there is none, or no memory.
fn replace(address: usize) -> bool {
    for entry in entries() {
        // The mapping that is being accessed stays, and so does its entry; no other that is mapped
        // meanwhile contains the address.
        let Some(range) = entry.range().filter(|range| range.contains(&address)) else {
            continue;
        };
        entry.lost.store(true, Ordering::Relaxed);
        let access = match entry.writable.load(Ordering::Relaxed) {
            true => libc::PROT_READ | libc::PROT_WRITE,
            false => libc::PROT_READ,
        };
        // SAFETY: __errno_location gives this thread's own errno, which the interrupted code may be about
        // to read.
        let errno = unsafe { libc::__errno_location() };
        // SAFETY: as above.
        let kept = unsafe { *errno };
        // SAFETY: `mmap` is a bare system call. It replaces exactly a mapping that is ours, in one step;
        // all that is accessed there is valid whatever it holds.
        let fresh = unsafe {
            libc::mmap(
                range.start as *mut libc::c_void,
                range.len(),
                access,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        // SAFETY: as above.
        unsafe { *errno = kept };
        return fresh != libc::MAP_FAILED;
    }
    false
}

/// What the process would have done with the signal without us.
fn pass_on(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: written before our handler was installed, and never again.
    let before = unsafe { (*BEFORE.0.get()).assume_init_ref() };
    match before.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            // What faulted faults again, or the signal that was sent is sent again, and is not caught.
            // SAFETY: restores the default action; both calls may be made in a handler.
            unsafe {
                libc::signal(signal, libc::SIG_DFL);
                if (*info).si_code <= 0 {
                    libc::raise(signal);
                }
            }
        }
        handler if before.sa_flags & libc::SA_SIGINFO != 0 => {
            type Handler = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            // SAFETY: installed with SA_SIGINFO, so it has this signature.
            let handler = unsafe { core::mem::transmute::<usize, Handler>(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: installed without SA_SIGINFO, so it has this signature.
            let handler =
                unsafe { core::mem::transmute::<usize, extern "C" fn(libc::c_int)>(handler) };
            handler(signal);
        }
    }
}
