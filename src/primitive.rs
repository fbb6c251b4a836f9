//! The primitives that the algorithms are written against.
//!
//! `ring/` and `wait`'s protocol use nothing but this module, so that the very same source is
//! compiled here against the processor's atomics and a shared mapping, and in `loom-tests` against
//! loom's, where every access is a scheduling point and every payload byte is checked for races.

pub(crate) use core::hint::spin_loop;
pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
pub(crate) use crossbeam_utils::CachePadded;

/// A full fence, like `fence(SeqCst)`. On x86-64 by a locked instruction on the stack, which takes less
/// than half the time of the `mfence` that the compiler would choose.
#[inline(always)]
pub(crate) fn full_fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: changes nothing: a locked "or" of the word on top of the stack with zero. Not `nomem`, so
    // the compiler moves no access across it either.
    unsafe {
        core::arch::asm!("lock or dword ptr [rsp], 0", options(nostack))
    }
    #[cfg(not(target_arch = "x86_64"))]
    core::sync::atomic::fence(Ordering::SeqCst);
}

/// A fence for the compiler alone. The processor's part is done by another one's barrier over all
/// processors (`membarrier`): whoever is between the accesses on the two sides of this fence when that
/// happens is fenced there.
#[inline(always)]
pub(crate) fn light_fence() {
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
}

/// A full fence right after a successful compare-exchange: on x86-64 that was one already, and only the
/// compiler needs telling.
#[inline(always)]
pub(crate) fn fence_after_exchange() {
    #[cfg(target_arch = "x86_64")]
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(not(target_arch = "x86_64"))]
    core::sync::atomic::fence(Ordering::SeqCst);
}

/// Lets whoever won a race for a line go on with it for a while (some 0.4 µs here). Two that take a line from
/// each other with every message spend their time waiting for it.
#[cold]
#[inline(never)]
pub(crate) fn leave_the_line() {
    for _ in 0..16 {
        spin_loop();
    }
}

/// Bytes of a cache line, the unit in which memory moves between processors. Smaller under loom.
pub(crate) const LINE: u64 = 64;

/// A view of the data area of a ring: `capacity` bytes, a power of two, addressed by positions
/// that only grow (position modulo capacity is the offset).
///
/// Header words are accessed atomically; payload bytes between them with plain copies, which the
/// headers order. The view never touches a byte outside the area, whatever position it is given.
#[derive(Clone, Copy)]
pub(crate) struct Data<'a> {
    base: *mut u8,
    mask: u64,
    area: core::marker::PhantomData<&'a [AtomicU64]>,
}

// SAFETY: `Data` is a shared view, like `&[AtomicU64]`; the plain copies it offers are unsafe
// functions whose callers answer for exclusion.
unsafe impl Send for Data<'_> {}
// SAFETY: as above.
unsafe impl Sync for Data<'_> {}

impl<'a> Data<'a> {
    /// # Safety
    /// `base` points to `capacity` bytes, aligned to a cache line, readable and writable (readable
    /// is enough if only `word(..).load` and `copy_out` are used) for `'a`, and accessed by others
    /// only as the protocol of the ring allows. `capacity` is a power of two of at least 8.
    pub(crate) unsafe fn new(base: *mut u8, capacity: u64) -> Data<'a> {
        debug_assert!(capacity.is_power_of_two() && capacity >= 8);
        Data {
            base,
            mask: capacity - 1,
            area: core::marker::PhantomData,
        }
    }

    /// The bytes of the area.
    #[inline(always)]
    pub(crate) fn capacity(&self) -> u64 {
        self.mask + 1
    }

    /// The word at `position`, rounded down to a multiple of 8.
    #[inline(always)]
    pub(crate) fn word(&self, position: u64) -> &'a AtomicU64 {
        let offset = (position & self.mask & !7) as usize;
        // SAFETY: the offset is masked to the area and to 8-byte alignment of an aligned base, and
        // `new`'s caller promised the area for 'a.
        unsafe { &*self.base.add(offset).cast::<AtomicU64>() }
    }

    /// The address of the byte at `position`.
    #[inline(always)]
    pub(crate) fn pointer(&self, position: u64) -> *mut u8 {
        // SAFETY: the offset is masked to the area.
        unsafe { self.base.add((position & self.mask) as usize) }
    }

    /// Zeroes the words from `from` to `to`, which may wrap.
    ///
    /// # Safety
    /// `from <= to <= from + capacity`, both multiples of 8; no other participant that keeps the
    /// protocol accesses those bytes now.
    #[inline(always)]
    pub(crate) unsafe fn zero(&self, from: u64, to: u64) {
        debug_assert!(to - from <= self.capacity());
        let offset = from & self.mask;
        let len = to - from;
        let before_end = len.min(self.capacity() - offset);
        // SAFETY: both parts lie in the area; exclusion is the caller's.
        unsafe {
            self.pointer(from).write_bytes(0, before_end as usize);
            self.base.write_bytes(0, (len - before_end) as usize);
        }
    }

    /// Zeroes the words from `position` to the end of its line: by stores, since for a line at most a call takes longer.
    ///
    /// # Safety
    /// `position` is a multiple of 8; no other participant that keeps the protocol accesses those bytes now.
    #[inline(always)]
    pub(crate) unsafe fn zero_rest_of_line(&self, position: u64) {
        self.zero_shared(position, (position | (LINE - 1)) + 1);
    }

    /// Zeroes the line at `position`, a multiple of [`LINE`].
    ///
    /// # Safety
    /// No other participant that keeps the protocol accesses those bytes now.
    #[inline(always)]
    pub(crate) unsafe fn zero_line(&self, position: u64) {
        debug_assert!(position.is_multiple_of(LINE));
        // SAFETY: a line is aligned to its size, which divides the capacity, so it does not wrap.
        unsafe { self.pointer(position).write_bytes(0, LINE as usize) };
    }

    /// Copies `bytes` to `position`.
    ///
    /// # Safety
    /// The bytes lie in the area without wrapping, no other participant that keeps the protocol
    /// accesses them now, and `position` is a multiple of 8.
    #[inline(always)]
    pub(crate) unsafe fn copy_in(&self, position: u64, bytes: &[u8]) {
        debug_assert!((position & self.mask) + bytes.len() as u64 <= self.capacity());
        let to = self.pointer(position);
        // SAFETY: in the area (caller), at a multiple of 8, and `bytes` is private memory, so they do not overlap.
        unsafe { place_bytes(bytes, to) }
    }

    /// Copies from `position` into `bytes`. What is read is data that a hostile peer may be
    /// changing at this very moment: the copy may be torn, and is not looked at here.
    ///
    /// # Safety
    /// The bytes lie in the area without wrapping.
    #[inline(always)]
    pub(crate) unsafe fn copy_out(&self, position: u64, bytes: &mut [u8]) {
        // SAFETY: in the area (caller), and `bytes` is private memory, so they do not overlap.
        unsafe { self.copy_out_raw(position, bytes.as_mut_ptr(), bytes.len()) }
    }

    /// As [`Data::copy_out`], to memory that need not be initialised.
    ///
    /// # Safety
    /// The bytes lie in the area without wrapping, and `to` is writable for `len` bytes.
    #[inline(always)]
    pub(crate) unsafe fn copy_out_raw(&self, position: u64, to: *mut u8, len: usize) {
        debug_assert!((position & self.mask) + len as u64 <= self.capacity());
        // SAFETY: in the area, and to the caller's private memory, so they do not overlap.
        unsafe { copy_bytes(self.pointer(position), to, len) }
    }
}

impl Data<'_> {
    /// The words from `position` on that hold `len` bytes.
    ///
    /// # Safety
    /// They lie in the area without wrapping, and `position` is a multiple of 8.
    #[inline(always)]
    unsafe fn words(&self, position: u64, len: usize) -> &[AtomicU64] {
        debug_assert!(position.is_multiple_of(8));
        debug_assert!((position & self.mask) + len as u64 <= self.capacity());
        // SAFETY: in the area, whose capacity is a multiple of 8, by the caller's word; aligned.
        unsafe { core::slice::from_raw_parts(self.pointer(position).cast(), len.div_ceil(8)) }
    }

    /// As [`Data::copy_in`], by relaxed stores of whole words: others may be reading there meanwhile,
    /// with [`Data::copy_out_shared`], if they find out later that it was not for them. What pads the
    /// last word is zeroed.
    ///
    /// # Safety
    /// The bytes lie in the area without wrapping, and `position` is a multiple of 8.
    #[inline(always)]
    pub(crate) unsafe fn copy_in_shared(&self, position: u64, bytes: &[u8]) {
        // SAFETY: the caller's word.
        let words = unsafe { self.words(position, bytes.len()) };
        let (whole, rest) = bytes.as_chunks::<8>();
        let (pairs, odd) = whole.as_chunks::<2>();
        let (two, _) = words.as_chunks::<2>();
        let store = |(words, bytes): (&[AtomicU64; 2], &[[u8; 8]; 2])| store_two(words, bytes);
        if bytes.len() == 64
            && let (Some(two), Some(pairs)) = (two.first_chunk::<4>(), pairs.first_chunk::<4>())
        {
            two.iter().zip(pairs).for_each(store); // unrolled
            return;
        }
        // What is behind the pairs first, for those that are written backwards.
        if !rest.is_empty() {
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            words[whole.len()].store(u64::from_ne_bytes(last), Ordering::Relaxed);
        }
        if let [bytes] = odd {
            words[whole.len() - 1].store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
        let two = &two[..pairs.len()];
        if bytes.len() <= BACKWARDS {
            two.iter().zip(pairs).rev().for_each(store);
        } else {
            two.iter().zip(pairs).for_each(store);
        }
    }

    /// Copies `len` bytes from `position` to `to`, which need not be initialised, by relaxed loads of
    /// whole words: they may be being overwritten, with [`Data::copy_in_shared`].
    ///
    /// # Safety
    /// The bytes lie in the area without wrapping, `position` is a multiple of 8, and `to` is writable
    /// for `len` bytes rounded up to 8.
    #[inline(always)]
    pub(crate) unsafe fn copy_out_shared(&self, position: u64, to: *mut u8, len: usize) {
        // SAFETY: the caller's word.
        let words = unsafe { self.words(position, len) };
        let (two, odd) = words.as_chunks::<2>();
        let load = |two: &[[AtomicU64; 2]]| {
            for (words, at) in two.iter().zip((0..).step_by(16)) {
                // SAFETY: inside of what the caller gave room for.
                unsafe { load_two(words, to.add(at)) };
            }
        };
        match <&[_; 4]>::try_from(two) {
            Ok(two) => load(two), // unrolled
            Err(_) => load(two),
        }
        if let [word] = odd {
            let word = word.load(Ordering::Relaxed);
            // SAFETY: as above.
            unsafe { to.add(two.len() * 16).cast::<u64>().write_unaligned(word) };
        }
    }

    /// Zeroes the words from `from` to `to`, which may wrap, by relaxed stores.
    #[inline(always)]
    pub(crate) fn zero_shared(&self, from: u64, to: u64) {
        debug_assert!(from <= to && to - from <= self.capacity());
        let mut position = from;
        if position & 8 != 0 && position < to {
            self.word(position).store(0, Ordering::Relaxed);
            position += 8;
        }
        while to - position >= 16 {
            // SAFETY: inside the area: a multiple of 16 below a capacity that is one.
            let two = unsafe { &*self.pointer(position).cast::<[AtomicU64; 2]>() };
            zero_two(two);
            position += 16;
        }
        if position < to {
            self.word(position).store(0, Ordering::Relaxed);
        }
    }
}

/// Stores two words that lie side by side, in no order: two relaxed stores, by one instruction where there is
/// one. What a producer waits for is the line that its oldest store goes to; how far it is ahead meanwhile is
/// how many stores the processor keeps in mind. Loaded by halves: bytes that were just put together by stores
/// of a word each are passed on to such loads, and not to longer ones.
#[inline(always)]
fn store_two(words: &[AtomicU64; 2], bytes: &[[u8; 8]; 2]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads 16 bytes of `bytes`, and writes the two words, which are atomics. To the compiler this is
    // some atomic access of them; of the processor no more is asked than a whole byte at a time.
    unsafe {
        core::arch::asm!(
            "movq {both}, qword ptr [{from}]",
            "movhps {both}, qword ptr [{from} + 8]",
            "movups xmmword ptr [{to}], {both}",
            both = out(xmm_reg) _,
            from = in(reg) bytes,
            to = in(reg) words,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    for (word, bytes) in words.iter().zip(bytes) {
        word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
    }
}

/// As [`store_two`], of zeros.
#[inline(always)]
fn zero_two(words: &[AtomicU64; 2]) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: writes the two words, which are atomics, as in `store_two`.
    unsafe {
        core::arch::asm!(
            "xorps {zero}, {zero}",
            "movups xmmword ptr [{to}], {zero}",
            zero = out(xmm_reg) _,
            to = in(reg) words,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    for word in words {
        word.store(0, Ordering::Relaxed);
    }
}

/// Loads two words that lie side by side, in no order, and writes them to `to`: two relaxed loads.
///
/// # Safety
/// `to` is private memory, writable for 16 bytes.
#[inline(always)]
unsafe fn load_two(words: &[AtomicU64; 2], to: *mut u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads the two words, which are atomics, as in `store_two`; writes where the caller allows it.
    unsafe {
        core::arch::asm!(
            "movups {both}, xmmword ptr [{from}]",
            "movups xmmword ptr [{to}], {both}",
            both = out(xmm_reg) _,
            from = in(reg) words,
            to = in(reg) to,
            options(nostack, preserves_flags)
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    for (word, at) in words.iter().zip([0, 8]) {
        let word = word.load(Ordering::Relaxed);
        // SAFETY: inside of what the caller gave room for.
        unsafe { to.add(at).cast::<u64>().write_unaligned(word) };
    }
}

/// [`Data::copy_in_shared`] writes messages up to this length, in bytes, from the end to the beginning, where the reader is
/// looking (see `place_bytes`). Longer ones gain less than they lose: lines are fetched ahead upwards.
const BACKWARDS: usize = 256;

/// Copies of these lengths are made in pieces. The C library copies as much in one string instruction (`rep movsb`),
/// which on AMD processors takes five times as long where the two ends lie unluckily to each other, as a message of that
/// length in a ring and a buffer of pages of its own do. (Shorter ones gain more by it than they lose; longer ones it does
/// not copy so.)
const LONG: core::ops::Range<usize> = (64 << 10) + 1..1 << 20;
/// A piece, short enough for the C library to copy it in vectors.
const PIECE: usize = 2 << 10;

/// Copies a message to `to`, where others will read it. One of 64 bytes from its end to its beginning: with its header it lies
/// in two lines of a ring, and at the first of them the reader is looking, who would take it away before the other was written.
/// Loaded by words and stored by two, as in [`store_two`]: whoever filled the message did so in words, most likely, and a
/// wider load would wait until they have left the store buffer.
///
/// # Safety
/// As `core::ptr::copy_nonoverlapping`, and `to` is a multiple of 8.
#[inline(always)]
unsafe fn place_bytes(bytes: &[u8], to: *mut u8) {
    let Ok(line) = <&[u8; 64]>::try_from(bytes) else {
        // SAFETY: the caller's word.
        return unsafe { copy_bytes(bytes.as_ptr(), to, bytes.len()) };
    };
    // SAFETY: 64 bytes that are the caller's to write, aligned.
    let words = unsafe { &*to.cast::<[[AtomicU64; 2]; 4]>() };
    let (pairs, _) = line.as_chunks::<8>().0.as_chunks::<2>();
    for (words, bytes) in words.iter().zip(pairs).rev() {
        store_two(words, bytes);
    }
}

/// `memcpy` with the small sizes inline: a call costs more than moving a line or two.
///
/// # Safety
/// As `core::ptr::copy_nonoverlapping`.
#[inline(always)]
pub(crate) unsafe fn copy_bytes(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: every access below is inside `len` bytes of both, which the caller answers for.
    unsafe {
        if len == 8 {
            to.cast::<u64>()
                .write_unaligned(from.cast::<u64>().read_unaligned());
        } else if len == 64 {
            core::ptr::copy_nonoverlapping(from, to, 64);
        } else if LONG.contains(&len) {
            copy_in_pieces(from, to, len);
        } else {
            core::ptr::copy_nonoverlapping(from, to, len);
        }
    }
}

/// # Safety
/// As `core::ptr::copy_nonoverlapping`.
#[cold]
#[inline(never)] // its loop would cost short messages registers
unsafe fn copy_in_pieces(from: *const u8, to: *mut u8, len: usize) {
    for at in (0..len).step_by(PIECE) {
        // SAFETY: inside `len` bytes of both, which the caller answers for.
        unsafe { core::ptr::copy_nonoverlapping(from.add(at), to.add(at), PIECE.min(len - at)) };
    }
}

/// A view of the slots of an MPMC ring: `capacity` of them, a power of two, found by tickets that only
/// grow (ticket modulo capacity is the index).
///
/// ```text
/// 0         8        12                16
/// sequence  length   user's word       payload, up to the stride
/// ```
///
/// The view never leads outside the slots, whatever ticket it is given.
#[derive(Clone, Copy)]
pub(crate) struct Slots<'a> {
    base: *mut u8,
    mask: u64,
    stride: u64,
    slots: core::marker::PhantomData<&'a [AtomicU64]>,
}

// SAFETY: `Slots` is a shared view, like `&[AtomicU64]`; the payload is only given as a pointer.
unsafe impl Send for Slots<'_> {}
// SAFETY: as above.
unsafe impl Sync for Slots<'_> {}

impl<'a> Slots<'a> {
    /// Where the payload begins in a slot.
    pub(crate) const PAYLOAD: u64 = 16;

    /// # Safety
    /// `base` points to `capacity * stride` bytes, aligned to a cache line, readable and writable for
    /// `'a`, and accessed by others only as the protocol of the ring allows. `capacity` is a power of
    /// two; `stride` is a multiple of 16 and more than [`Slots::PAYLOAD`].
    pub(crate) unsafe fn new(base: *mut u8, capacity: u64, stride: u64) -> Slots<'a> {
        debug_assert!(capacity.is_power_of_two() && stride.is_multiple_of(16));
        Slots {
            base,
            mask: capacity - 1,
            stride,
            slots: core::marker::PhantomData,
        }
    }

    /// The number of slots.
    #[inline(always)]
    pub(crate) fn capacity(&self) -> u64 {
        self.mask + 1
    }

    #[inline(always)]
    fn slot(&self, ticket: u64) -> *mut u8 {
        // SAFETY: the index is masked, so this is in the area that `new`'s caller promised.
        unsafe { self.base.add(((ticket & self.mask) * self.stride) as usize) }
    }

    /// The sequence word of the slot of `ticket`.
    #[inline(always)]
    pub(crate) fn sequence(&self, ticket: u64) -> &'a AtomicU64 {
        // SAFETY: the first 8 bytes of a slot, aligned since base and stride are.
        unsafe { &*self.slot(ticket).cast::<AtomicU64>() }
    }

    /// The length of the message in the slot of `ticket`, in bytes; whatever the last one wrote.
    #[inline(always)]
    pub(crate) fn length(&self, ticket: u64) -> &'a AtomicU32 {
        // SAFETY: bytes 8 to 12 of a slot, aligned since base and stride are.
        unsafe { &*self.slot(ticket).add(8).cast::<AtomicU32>() }
    }

    /// The first byte of the payload of the slot of `ticket`; there are `stride - 16`.
    #[inline(always)]
    pub(crate) fn payload(&self, ticket: u64) -> *mut u8 {
        // SAFETY: a slot is longer than its header.
        unsafe { self.slot(ticket).add(Self::PAYLOAD as usize) }
    }

    /// Copies `bytes` into the payload of the slot of `ticket`.
    ///
    /// # Safety
    /// `bytes` is no longer than the payload, and nobody else who keeps the protocol accesses the
    /// payload now: the slot is the caller's.
    #[inline(always)]
    pub(crate) unsafe fn copy_in(&self, ticket: u64, bytes: &[u8]) {
        // SAFETY: fits (caller), at a multiple of 16; `bytes` is not in this slot, which is the caller's to write.
        unsafe { place_bytes(bytes, self.payload(ticket)) }
    }

    /// Stores a word of each line but the first in the slot of `ticket`, as far as a message of `len` bytes goes,
    /// unchanged: the lines are this processor's own then. (The first is, when the slot is released.)
    ///
    /// # Safety
    /// `len` is no more than the payload, and nobody else who keeps the protocol accesses the payload now: the slot is the
    /// caller's.
    pub(crate) unsafe fn touch(&self, ticket: u64, len: usize) {
        let slot = self.slot(ticket);
        for at in (LINE as usize..Self::PAYLOAD as usize + len).step_by(LINE as usize) {
            // SAFETY: the first word of a line of the slot, which is aligned to 16 and no shorter than this (caller);
            // an atomic is valid whatever it holds.
            let word = unsafe { &*slot.add(at).cast::<AtomicU64>() };
            // Relaxed: what is written is what is there.
            word.store(word.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

/// A view of slots of 16 bytes that are changed as a whole: a sequence and an item each.
#[derive(Clone, Copy)]
pub(crate) struct Pairs<'a>(Slots<'a>);

impl<'a> Pairs<'a> {
    /// The slots of `slots`, 16 bytes each.
    pub(crate) fn new(slots: Slots<'a>) -> Pairs<'a> {
        debug_assert!(slots.stride.is_multiple_of(16));
        Pairs(slots)
    }

    /// Whether this processor can change 16 bytes at once.
    pub(crate) fn are_possible() -> bool {
        #[cfg(target_arch = "x86_64")]
        return std::arch::is_x86_feature_detected!("cmpxchg16b");
        #[cfg(not(target_arch = "x86_64"))]
        false
    }

    /// The number of slots.
    #[inline(always)]
    pub(crate) fn capacity(&self) -> u64 {
        self.0.capacity()
    }

    /// The sequence in the slot of `ticket`. Acquires what was written before it was put there.
    #[inline(always)]
    pub(crate) fn sequence(&self, ticket: u64) -> u64 {
        self.0.sequence(ticket).load(Ordering::Acquire)
    }

    /// The item in the slot of `ticket`: worth something only if a compare-exchange confirms it.
    #[inline(always)]
    pub(crate) fn item(&self, ticket: u64) -> u64 {
        // SAFETY: the second 8 bytes of a slot of 16, aligned.
        unsafe { (*self.0.slot(ticket).add(8).cast::<AtomicU64>()).load(Ordering::Relaxed) }
    }

    /// Changes the slot of `ticket` from `old` to `new`, both a sequence and an item; whether it was
    /// `old`. A full fence if it was.
    #[inline(always)]
    pub(crate) fn compare_exchange(&self, ticket: u64, old: (u64, u64), new: (u64, u64)) -> bool {
        let slot = self.0.slot(ticket);
        #[cfg(target_arch = "x86_64")]
        {
            let done: u8;
            // SAFETY: `slot` is 16 bytes aligned to 16 that all processes access by locked
            // instructions and atomic loads only; rings of pairs are only made and opened where
            // `are_possible`. The instruction wants rbx, which the compiler does not lend: it is
            // swapped in and put back; the other registers are named, lest one of them be rbx.
            unsafe {
                core::arch::asm!(
                    "xchg rsi, rbx",
                    "lock cmpxchg16b [rdi]",
                    "sete r8b",
                    "mov rbx, rsi",
                    in("rdi") slot,
                    inout("rsi") new.0 => _,
                    out("r8b") done,
                    in("rcx") new.1,
                    inout("rax") old.0 => _,
                    inout("rdx") old.1 => _,
                    options(nostack),
                );
            }
            done != 0
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = (slot, old, new);
            unreachable!("rings of pairs are only made where they are possible")
        }
    }
}
