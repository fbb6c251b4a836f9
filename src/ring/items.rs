//! Many producers, many consumers, items of 8 bytes: the sequence and the item are one 16-byte word, so
//! that one compare-exchange claims and publishes at once. There is nothing to repair: a participant
//! has sent its item or has not, and a consumer that dies after taking one has it.
//!
//! | word of slot t | means | moves on to |
//! | --- | --- | --- |
//! | (t, any) | free for ticket t | (t + 1, item), by a producer |
//! | (t + 1, item) | item of ticket t is ready | (t + capacity, 0), by a consumer |
//! | with CLOSED | the slot of the next ticket when the ring was closed: nothing is sent any more | the same, with CLOSED |
//!
//! The cursors are hints: where to begin looking. They may be behind, even go back, when somebody was
//! stopped before it wrote one. What is found at a slot says where to go on, and tickets are filled
//! and taken without gaps.

use super::mpmc::Blocked;
use crate::primitive::{AtomicU64, Ordering, Pairs, leave_the_line};

const CLOSED: u64 = 1 << 63;
/// Slots looked at in one call before it gives up with a "try again": only a hostile peer's words can
/// lead so far about.
const ATTEMPTS: u32 = 1 << 20;

/// A view of one ring of items.
#[derive(Clone, Copy)]
pub(crate) struct Items<'a> {
    /// Where producers begin to look.
    pub(crate) tail: &'a AtomicU64,
    /// Where consumers begin to look.
    pub(crate) head: &'a AtomicU64,
    pub(crate) pairs: Pairs<'a>,
}

/// How far `word` is ahead of `value`, as tickets.
#[inline(always)]
fn lead(word: u64, value: u64) -> i64 {
    ((word & !CLOSED).wrapping_sub(value) << 1) as i64 >> 1
}

impl Items<'_> {
    /// As [`Items::push`], if one attempt does. By value: the view's parts stay in registers.
    #[inline(always)]
    pub(crate) fn push_at_once(self, item: u64) -> bool {
        let ticket = self.tail.load(Ordering::Relaxed);
        if self.pairs.sequence(ticket) != ticket {
            return false;
        }
        // Free, and not closed: 0 was left there.
        let new = (ticket.wrapping_add(1), item);
        let done = self.pairs.compare_exchange(ticket, (ticket, 0), new);
        if done {
            self.hint(self.tail, ticket);
        } else {
            leave_the_line();
        }
        done
    }

    /// As [`Items::pop`], if one attempt does. By value: see [`Items::push_at_once`].
    #[inline(always)]
    pub(crate) fn pop_at_once(self) -> Option<u64> {
        let ticket = self.head.load(Ordering::Relaxed);
        let ready = ticket.wrapping_add(1);
        if self.pairs.sequence(ticket) != ready {
            return None;
        }
        let item = self.pairs.item(ticket);
        let free = ticket.wrapping_add(self.pairs.capacity());
        if self
            .pairs
            .compare_exchange(ticket, (ready, item), (free, 0))
        {
            self.hint(self.head, ticket);
            return Some(item);
        }
        leave_the_line();
        None
    }

    /// Sends `item`.
    #[inline(never)]
    pub(crate) fn push(&self, item: u64) -> Result<(), Blocked> {
        let mut ticket = self.tail.load(Ordering::Relaxed);
        for _ in 0..ATTEMPTS {
            let word = self.pairs.sequence(ticket);
            if word == ticket {
                let old = self.pairs.item(ticket);
                let new = (ticket.wrapping_add(1), item);
                if self.pairs.compare_exchange(ticket, (word, old), new) {
                    self.hint(self.tail, ticket);
                    return Ok(());
                }
                leave_the_line();
            } else {
                match self.next_to_write(ticket, word) {
                    Ok(next) => ticket = next,
                    Err(blocked) => {
                        self.catch_up(self.tail, ticket);
                        return Err(blocked);
                    }
                }
            }
        }
        Err(Blocked::NotNow)
    }

    #[inline]
    fn next_to_write(&self, ticket: u64, word: u64) -> Result<u64, Blocked> {
        let ahead = lead(word, ticket);
        if word & CLOSED != 0 && ahead <= 0 {
            return Err(Blocked::Closed);
        }
        if ahead < 0 {
            return Err(Blocked::NotNow);
        }
        Ok(self.onward(ticket, word))
    }

    /// The ticket to look at after one whose slot holds `word`, which is ahead. A slot's word is at most
    /// one lap ahead of the first ticket that can be open.
    #[inline]
    fn onward(&self, ticket: u64, word: u64) -> u64 {
        let at_least = (word & !CLOSED).wrapping_sub(self.pairs.capacity());
        let next = ticket.wrapping_add(1);
        if lead(at_least, next) > 0 {
            at_least
        } else {
            next
        }
    }

    /// Takes an item.
    #[inline(never)]
    pub(crate) fn pop(&self) -> Result<u64, Blocked> {
        let mut ticket = self.head.load(Ordering::Relaxed);
        for _ in 0..ATTEMPTS {
            let word = self.pairs.sequence(ticket);
            if word & !CLOSED == ticket.wrapping_add(1) {
                let item = self.pairs.item(ticket);
                let free = ticket.wrapping_add(self.pairs.capacity()) | word & CLOSED;
                if self.pairs.compare_exchange(ticket, (word, item), (free, 0)) {
                    self.hint(self.head, ticket);
                    return Ok(item);
                }
                leave_the_line();
            } else {
                let ahead = lead(word, ticket.wrapping_add(1));
                if ahead < 0 {
                    self.catch_up(self.head, ticket);
                    let closed = word == ticket | CLOSED;
                    return Err(if closed {
                        Blocked::Closed
                    } else {
                        Blocked::NotNow
                    });
                }
                ticket = self.onward(ticket, word);
            }
        }
        Err(Blocked::NotNow)
    }

    /// Moves a hint on. It may lose a race and go back: then somebody looks a little longer.
    #[inline(always)]
    fn hint(&self, hint: &AtomicU64, ticket: u64) {
        if lead(hint.load(Ordering::Relaxed), ticket) <= 0 {
            hint.store(ticket.wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// A hint that was found to be behind is corrected, or whoever waits would look again for ever.
    #[inline]
    fn catch_up(&self, hint: &AtomicU64, ticket: u64) {
        if lead(hint.load(Ordering::Relaxed), ticket) < 0 {
            hint.store(ticket, Ordering::Relaxed);
        }
    }

    /// Nothing is sent any more; what was sent before is delivered.
    pub(crate) fn close(&self) {
        let mut ticket = self.tail.load(Ordering::Relaxed);
        for _ in 0..ATTEMPTS {
            let word = self.pairs.sequence(ticket);
            match self.next_to_write(ticket, word) {
                Err(Blocked::Closed) => return,
                Ok(next) if word != ticket => ticket = next,
                _ => {
                    let item = self.pairs.item(ticket);
                    if self
                        .pairs
                        .compare_exchange(ticket, (word, item), (word | CLOSED, item))
                    {
                        return;
                    }
                }
            }
        }
    }

    /// Whether no slot has an item. For one who has the ring to itself; the cursors, which are hints, do not tell.
    pub(crate) fn holds_nothing(&self) -> bool {
        let mask = self.pairs.capacity() - 1;
        (0..=mask).all(|index| self.pairs.sequence(index) & !CLOSED & mask == index)
    }

    /// Whether a producer should look again before it sleeps.
    pub(crate) fn may_push(&self) -> bool {
        let ticket = self.tail.load(Ordering::Relaxed);
        let word = self.pairs.sequence(ticket);
        lead(word, ticket) >= 0 || word & CLOSED != 0
    }

    /// Whether a consumer should look again before it sleeps.
    pub(crate) fn may_pop(&self) -> bool {
        let ticket = self.head.load(Ordering::Relaxed);
        let word = self.pairs.sequence(ticket);
        lead(word, ticket.wrapping_add(1)) >= 0 || word & CLOSED != 0
    }
}
