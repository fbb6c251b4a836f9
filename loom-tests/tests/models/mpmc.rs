// The models of the MPMC ring, for the algorithm in `super::algorithm`: the real one, or a mutant.
//
// Capacity 2, so that they wrap; up to 3 threads; preemptions bounded by `LOOM_MAX_PREEMPTIONS`.
// A dead participant is a thread that stopped in the middle and then set its death flag, as the
// kernel drops a token of life after the last instruction.

use super::algorithm::*;
use crate::harness::explore;
use crate::primitive::{Slot, Slots};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

struct Ring {
    cursors: Cursors,
    intents: Vec<Intents>,
    slots: Vec<Slot>,
    dead: Vec<AtomicBool>,
    on_death: OnDeath,
}

impl Ring {
    fn new(participants: usize, on_death: OnDeath) -> Arc<Ring> {
        let ring = Arc::new(Ring {
            cursors: Cursors::new(),
            intents: (0..participants).map(|_| Intents::new()).collect(),
            slots: (0..2).map(Slot::new).collect(),
            dead: (0..participants).map(|_| AtomicBool::new(false)).collect(),
            on_death,
        });
        (0..participants).for_each(|index| ring.queue().admit(index));
        ring
    }

    fn queue(&self) -> Queue<'_> {
        Queue {
            cursors: &self.cursors,
            intents: &self.intents,
            slots: Slots(&self.slots),
            on_death: self.on_death,
        }
    }

    fn is_dead(&self, index: usize) -> bool {
        self.dead[index].load(Ordering::Acquire)
    }

    fn dies(&self, index: usize) {
        self.dead[index].store(true, Ordering::Release);
    }

    fn lives(&self, index: usize) {
        self.dead[index].store(false, Ordering::Release);
    }

    fn send(&self, me: usize, value: u64) -> bool {
        let (queue, intents) = (self.queue(), &self.intents[me]);
        let at_once = queue.claim_write_at_once(intents).ok_or(());
        match at_once.or_else(|()| queue.claim_write(intents)) {
            Ok(ticket) => {
                self.queue().slots.write(ticket, value);
                self.queue().commit(ticket);
                true
            }
            Err(Blocked::Corrupt(ticket)) => panic!("slot {ticket} is corrupt"),
            Err(_) => false,
        }
    }

    fn take(&self, me: usize) -> Option<u64> {
        let (queue, intents) = (self.queue(), &self.intents[me]);
        let at_once = queue.claim_read_at_once(intents).ok_or(());
        match at_once.or_else(|()| queue.claim_read(intents)) {
            Ok(ticket) => Some(ticket),
            Err(Blocked::Corrupt(ticket)) => panic!("slot {ticket} is corrupt"),
            Err(_) => None,
        }
    }

    /// Sends a batch of up to `most`; how many it was.
    fn send_run(&self, me: usize, most: u64) -> u64 {
        let queue = self.queue();
        let run = queue
            .claim_write_run(&self.intents[me], &mut 0, most)
            .unwrap_or(Run::NONE);
        run.tickets(2)
            .for_each(|ticket| queue.slots.write(ticket, 10 + ticket));
        run.tickets(2).for_each(|ticket| queue.commit(ticket));
        run.count
    }

    fn finish(&self, ticket: u64) -> u64 {
        let value = self.queue().slots.read(ticket);
        // The handles touch a message before they release it.
        self.queue().slots.write(ticket, value);
        self.queue().release(ticket);
        value
    }

    fn recv(&self, me: usize) -> Option<u64> {
        self.take(me).map(|ticket| self.finish(ticket))
    }

    /// What a consumer that found nothing does: repairs, adopts, looks again.
    fn recv_or_repair(&self, me: usize) -> Option<u64> {
        self.recv(me)
            .or_else(|| {
                let ticket = self.queue().adopt(me, |i| self.is_dead(i));
                ticket.map(|ticket| self.finish(ticket))
            })
            .or_else(|| {
                self.queue().unblock_reader(|i| self.is_dead(i));
                self.recv(me)
            })
    }

    fn send_or_repair(&self, me: usize, value: u64) -> bool {
        self.send(me, value) || {
            self.queue().unblock_writer(|i| self.is_dead(i));
            self.send(me, value)
        }
    }

    /// Everything that is left, taken by `me`, and then: is every slot usable?
    fn drain(&self, me: usize) -> Vec<u64> {
        let mut left = Vec::new();
        for _ in 0..4 {
            while let Some(value) = self.recv_or_repair(me) {
                left.push(value);
            }
        }
        for value in 90..92 {
            assert!(
                self.send_or_repair(me, value),
                "a slot cannot be used any more"
            );
        }
        assert!(!self.send(me, 99), "more slots than there are");
        assert_eq!(self.recv_or_repair(me), Some(90));
        assert_eq!(self.recv_or_repair(me), Some(91));
        left
    }
}

fn sorted(values: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let mut values: Vec<u64> = values.into_iter().collect();
    values.sort_unstable();
    values
}

/// 2 producers (one sends twice), 1 consumer, and what is left: nothing lost, doubled or torn, and
/// each producer's messages in its order.
pub(crate) fn two_producers_one_consumer() {
    explore("2 producers, 1 consumer, wrapping", || {
        let ring = Ring::new(3, OnDeath::Redeliver);
        let (r1, r2) = (ring.clone(), ring.clone());
        let a = thread::spawn(move || {
            [11, 12]
                .into_iter()
                .filter(|v| r1.send(0, *v))
                .collect::<Vec<_>>()
        });
        let b = thread::spawn(move || {
            [21].into_iter()
                .filter(|v| r2.send(1, *v))
                .collect::<Vec<_>>()
        });
        let mut got: Vec<u64> = (0..2).filter_map(|_| ring.recv(2)).collect();
        let sent = sorted(a.join().unwrap().into_iter().chain(b.join().unwrap()));
        got.extend(ring.drain(2));
        if let (Some(first), Some(second)) = (
            got.iter().position(|v| *v == 11),
            got.iter().position(|v| *v == 12),
        ) {
            assert!(first < second, "one producer's messages out of order");
        }
        assert_eq!(sorted(got), sent);
    });
}

/// 1 producer, 2 consumers, wrapping.
pub(crate) fn one_producer_two_consumers() {
    explore("1 producer, 2 consumers, wrapping", || {
        let ring = Ring::new(3, OnDeath::Redeliver);
        let (r1, r2) = (ring.clone(), ring.clone());
        assert!(ring.send(0, 1));
        let a = thread::spawn(move || r1.recv(1));
        let b = thread::spawn(move || r2.recv(2));
        let sent = sorted(
            [1].into_iter()
                .chain([2, 3].into_iter().filter(|v| ring.send(0, *v))),
        );
        let mut got: Vec<u64> = [a.join().unwrap(), b.join().unwrap()]
            .into_iter()
            .flatten()
            .collect();
        got.extend(ring.drain(2));
        assert_eq!(sorted(got), sent);
    });
}

/// Runs: a batch of 2 against single sends, taken as a batch.
pub(crate) fn batches() {
    explore("batches of 2 among single messages", || {
        let ring = Ring::new(3, OnDeath::Redeliver);
        let (r1, r2) = (ring.clone(), ring.clone());
        let a = thread::spawn(move || {
            let (queue, mut free) = (r1.queue(), 0);
            let run = match queue.claim_write_run(&r1.intents[0], &mut free, 2) {
                Ok(run) => run,
                Err(Blocked::Corrupt(ticket)) => panic!("slot {ticket} is corrupt"),
                Err(_) => Run::NONE,
            };
            for ticket in run.tickets(2) {
                queue.slots.write(ticket, 10 + ticket);
                queue.commit(ticket);
            }
            run.count
        });
        let b = thread::spawn(move || u64::from(r2.send(1, 20)));
        let queue = ring.queue();
        let mut got = 0;
        if let Ok(run) = queue.claim_read_run(&ring.intents[2], 2) {
            for ticket in run.tickets(2) {
                ring.finish(ticket);
                got += 1;
            }
        }
        let sent = a.join().unwrap() + b.join().unwrap();
        assert_eq!(got + ring.drain(2).len() as u64, sent);
    });
}

/// A batch whose producer asks the records, and not the slots, which slots are free, while a reader gives them
/// back: loom finds it if a payload is written that is still being read.
pub(crate) fn batches_over_slots_that_a_reader_holds() {
    explore("a batch over slots that a reader holds", || {
        let ring = Ring::new(3, OnDeath::Redeliver);
        assert!(ring.send(0, 1) && ring.send(0, 2));
        let r1 = ring.clone();
        let reader = thread::spawn(move || [r1.recv(1), r1.recv(1)].into_iter().flatten());
        let sent = ring.send_run(0, 2);
        let got = sorted(reader.join().unwrap().chain(ring.drain(2)));
        assert_eq!(got.len() as u64, 2 + sent);
    });
}

/// Somebody was stopped or died between stepping over a slot and freeing it, and a batch was claimed over it,
/// by one who lives or by one who died. (That the late compare-exchange which would have freed it fails once
/// the batch is committed is not left to loom, which lets a store come before a compare-exchange that read
/// what was there before the store.)
pub(crate) fn a_batch_over_a_slot_that_nobody_freed() {
    for lives in [true, false] {
        explore("a batch over a slot that nobody freed", move || {
            let ring = Ring::new(3, OnDeath::Redeliver);
            let ticket = ring.queue().claim_write(&ring.intents[0]).unwrap();
            ring.queue().abort(ticket);
            ring.cursors.as_hints().1.store(1, Ordering::Release);
            let r1 = ring.clone();
            let other = thread::spawn(move || r1.recv_or_repair(1));
            let sent = if lives {
                ring.send_run(0, 2)
            } else {
                let queue = ring.queue();
                let run = queue.claim_write_run(&ring.intents[0], &mut 0, 2).unwrap();
                assert_eq!((run.first, run.count), (1, 2));
                ring.dies(0);
                0
            };
            let got = other.join().unwrap().into_iter().count();
            assert_eq!(got + ring.drain(2).len(), sent as usize);
        });
    }
}

/// Trap 1. One slot is left; two producers race for it, and the winner may be one that dies. The
/// living loser must not stand in the way of the repair.
pub(crate) fn a_living_loser_does_not_hide_a_dead_winner() {
    explore("a living loser and a dead winner", || {
        let ring = Ring::new(3, OnDeath::Redeliver);
        assert!(ring.send(1, 1));
        let r1 = ring.clone();
        let dying = thread::spawn(move || {
            if let Ok(ticket) = r1.queue().claim_write(&r1.intents[0]) {
                r1.queue().slots.write(ticket, 99); // half a message
            }
            r1.dies(0);
        });
        let mut sent = vec![1];
        if ring.send(1, 2) {
            sent.push(2);
        }
        dying.join().unwrap();
        assert_eq!(ring.drain(2), sent);
    });
}

/// Trap 2. A producer died after it wrote its intent and before it claimed; another claims that very
/// ticket while a consumer repairs.
pub(crate) fn an_intent_without_a_claim_poisons_nothing() {
    explore("an intent without a claim", || {
        let ring = Ring::new(3, OnDeath::Redeliver);
        ring.intents[0]
            .write
            .store(Run { first: 0, count: 1 }.word(), Ordering::Release);
        ring.dies(0);
        let r1 = ring.clone();
        let producer = thread::spawn(move || r1.send(1, 7));
        let got = ring.recv_or_repair(2);
        assert!(producer.join().unwrap());
        let got: Vec<u64> = got.into_iter().chain(ring.drain(2)).collect();
        assert_eq!(got, [7], "a message that was sent is delivered once");
    });
}

/// Trap 3. A dead winner and a dead loser name the same ticket; both records are taken over at once,
/// and their new owners use them.
pub(crate) fn two_joiners_do_not_forget_a_slot_between_them() {
    explore("two joiners", || {
        let ring = Ring::new(3, OnDeath::Redeliver);
        let ticket = ring.queue().claim_write(&ring.intents[0]).unwrap();
        ring.intents[1].write.store(
            Run {
                first: ticket,
                count: 1,
            }
            .word(),
            Ordering::Release,
        );
        ring.dies(0);
        ring.dies(1);
        let r1 = ring.clone();
        let join = |ring: &Ring, me: usize| {
            let settled = ring.queue().settle(me, |i| ring.is_dead(i));
            assert!(settled, "nobody alive stands in the way");
            ring.lives(me);
            ring.send(me, 10 + me as u64)
        };
        let other = thread::spawn(move || join(&r1, 1));
        let one = join(&ring, 0);
        let other = other.join().unwrap();
        let sent: Vec<u64> = [(one, 10), (other, 11)]
            .into_iter()
            .filter(|s| s.0)
            .map(|s| s.1)
            .collect();
        assert!(!sent.is_empty());
        assert_eq!(sorted(ring.drain(2)), sent);
    });
}

/// A dead producer's claim is repaired by a consumer while its record is taken over, and used.
pub(crate) fn repair_by_a_consumer_and_a_joiner() {
    explore("repair by a consumer and a joiner", || {
        let ring = Ring::new(3, OnDeath::Redeliver);
        let _ = ring.queue().claim_write(&ring.intents[0]).unwrap();
        ring.dies(0);
        assert!(ring.send(1, 5));
        let r1 = ring.clone();
        let joiner = thread::spawn(move || {
            assert!(r1.queue().settle(0, |i| r1.is_dead(i)));
            r1.lives(0);
            r1.send_or_repair(0, 6)
        });
        let mut got = Vec::from_iter(ring.recv_or_repair(2));
        let sent = if joiner.join().unwrap() {
            vec![5, 6]
        } else {
            vec![5]
        };
        got.extend(ring.drain(2));
        assert_eq!(sorted(got), sent);
    });
}

/// A dead producer's claim is repaired by two consumers at once.
pub(crate) fn repair_by_two() {
    explore("repair by two consumers", || {
        let ring = Ring::new(4, OnDeath::Redeliver);
        let _ = ring.queue().claim_write(&ring.intents[0]).unwrap();
        ring.dies(0);
        assert!(ring.send(1, 5));
        let r1 = ring.clone();
        let other = thread::spawn(move || {
            r1.queue().unblock_reader(|i| r1.is_dead(i));
            r1.recv(2)
        });
        ring.queue().unblock_reader(|i| ring.is_dead(i));
        let mut got = Vec::from_iter(ring.recv(3));
        got.extend(other.join().unwrap());
        got.extend(ring.drain(3));
        assert_eq!(got, [5]);
    });
}

/// A producer that is alive between claim and commit is never robbed, however many repair.
pub(crate) fn the_living_are_not_robbed() {
    explore("the living are not robbed", || {
        let ring = Ring::new(3, OnDeath::Redeliver);
        ring.dies(2); // someone else is dead, and names nothing
        let r1 = ring.clone();
        let producer = thread::spawn(move || r1.send(0, 1));
        let got = ring.recv_or_repair(1);
        assert!(producer.join().unwrap());
        let got: Vec<u64> = got.into_iter().chain(ring.drain(1)).collect();
        assert_eq!(got, [1]);
    });
}

/// Trap 4. A reader died with a message; two consumers adopt it while a producer wants the slot.
pub(crate) fn one_of_two_adopters_gets_the_message() {
    explore("two adopters", || {
        let ring = Ring::new(4, OnDeath::Redeliver);
        assert!(ring.send(1, 1));
        assert!(ring.send(1, 2));
        assert_eq!(ring.take(0), Some(0));
        ring.dies(0);
        let (r1, r2) = (ring.clone(), ring.clone());
        let adopt = |ring: &Ring, me: usize| {
            let ticket = ring.queue().adopt(me, |i| ring.is_dead(i));
            ticket.map(|ticket| ring.finish(ticket))
        };
        let a = thread::spawn(move || adopt(&r1, 2));
        let b = thread::spawn(move || r2.send(1, 3));
        let mut got = Vec::from_iter(adopt(&ring, 3));
        got.extend(a.join().unwrap());
        let sent = if b.join().unwrap() {
            vec![1, 2, 3]
        } else {
            vec![1, 2]
        };
        got.extend(ring.drain(3));
        assert_eq!(sorted(got), sent);
    });
}

/// An adopter died, too: another consumer adopts from it while its record is taken over by one that
/// then adopts itself.
pub(crate) fn a_dead_adopters_message_is_adopted_once() {
    explore("a dead adopter and a joiner", || {
        let ring = Ring::new(3, OnDeath::Redeliver);
        assert!(ring.send(2, 1));
        assert_eq!(ring.take(0), Some(0));
        ring.dies(0);
        assert_eq!(ring.queue().adopt(1, |i| ring.is_dead(i)), Some(0));
        ring.dies(1);
        let r1 = ring.clone();
        let joiner = thread::spawn(move || {
            assert!(r1.queue().settle(1, |i| r1.is_dead(i)));
            r1.lives(1);
            r1.queue()
                .adopt(1, |i| r1.is_dead(i))
                .map(|ticket| r1.finish(ticket))
        });
        let mine = ring
            .queue()
            .adopt(2, |i| ring.is_dead(i))
            .map(|ticket| ring.finish(ticket));
        let got: Vec<u64> = mine
            .into_iter()
            .chain(joiner.join().unwrap())
            .chain(ring.drain(2))
            .collect();
        assert_eq!(got, [1]);
    });
}

/// A reader died with two messages, and its record is taken over by somebody who dies at once, too,
/// with a third: all are delivered.
pub(crate) fn a_record_taken_over_keeps_the_names_of_the_dead() {
    explore("a record's legacy", || {
        let ring = Ring::new(3, OnDeath::Redeliver);
        assert!(ring.send(2, 1));
        assert!(ring.send(2, 2));
        assert_eq!(ring.take(0), Some(0));
        ring.dies(0);
        let r1 = ring.clone();
        let joiner = thread::spawn(move || {
            assert!(r1.queue().settle(0, |i| r1.is_dead(i)));
            r1.lives(0);
            let _ = r1.take(0);
            r1.dies(0);
        });
        let got = ring.recv_or_repair(1);
        joiner.join().unwrap();
        let got = got.into_iter().chain(ring.drain(2));
        assert_eq!(sorted(got), [1, 2]);
    });
}

/// Policy drop: two producers free a dead reader's slot, and use it.
pub(crate) fn dropped_messages_free_their_slot_once() {
    explore("policy drop", || {
        let ring = Ring::new(4, OnDeath::Drop);
        assert!(ring.send(1, 1));
        assert!(ring.send(1, 2));
        assert_eq!(ring.take(0), Some(0));
        ring.dies(0);
        let r1 = ring.clone();
        let other = thread::spawn(move || r1.send_or_repair(1, 3));
        let one = ring.send_or_repair(2, 4);
        let other = other.join().unwrap();
        assert!(one ^ other, "there was one slot");
        assert_eq!(ring.drain(3), [2, if one { 4 } else { 3 }]);
    });
}

/// Trap 5. A producer died in the middle of a batch: what it committed is delivered, the rest is not.
pub(crate) fn a_batch_cut_short_by_death() {
    explore("a batch cut short", || {
        let ring = Ring::new(3, OnDeath::Redeliver);
        let r1 = ring.clone();
        let dying = thread::spawn(move || {
            let run = r1
                .queue()
                .claim_write_run(&r1.intents[0], &mut 0, 2)
                .unwrap();
            r1.queue().slots.write(run.first, 1);
            r1.queue().commit(run.first);
            r1.dies(0);
            run.count
        });
        let got = ring.recv_or_repair(1);
        let _ = dying.join().unwrap();
        let got: Vec<u64> = got.into_iter().chain(ring.drain(2)).collect();
        assert_eq!(got, [1]);
    });
}

/// Trap 6. A consumer that saw the ring closed and drained has seen every message that was sent.
pub(crate) fn closing_loses_nothing_that_was_sent() {
    explore("closing", || {
        let ring = Ring::new(3, OnDeath::Redeliver);
        let (r1, r2) = (ring.clone(), ring.clone());
        let producer = thread::spawn(move || r1.send(0, 1));
        let closer = thread::spawn(move || r2.queue().close());
        let mut got = Vec::new();
        let mut finished = false;
        for _ in 0..3 {
            got.extend(ring.recv(2));
            if ring.queue().is_drained() {
                finished = true;
                break;
            }
        }
        closer.join().unwrap();
        let sent = producer.join().unwrap();
        if !finished {
            got.extend(ring.recv(2));
            assert!(ring.queue().is_drained());
        }
        assert_eq!(got.len(), usize::from(sent), "sent and never delivered");
        assert!(!ring.send(0, 2), "sent after closing");
    });
}

/// An aborted reservation is stepped over, by two at once, and its slot is used again.
pub(crate) fn aborted_slots_are_stepped_over() {
    explore("abort", || {
        let ring = Ring::new(3, OnDeath::Redeliver);
        let ticket = ring.queue().claim_write(&ring.intents[0]).unwrap();
        ring.queue().slots.write(ticket, 99);
        ring.queue().abort(ticket);
        assert!(ring.send(0, 1));
        let r1 = ring.clone();
        let (r2, other) = (ring.clone(), thread::spawn(move || r1.recv(1)));
        let producer = thread::spawn(move || r2.send(0, 2));
        let mut got = Vec::from_iter(ring.recv(2));
        got.extend(other.join().unwrap());
        let sent = if producer.join().unwrap() {
            vec![1, 2]
        } else {
            vec![1]
        };
        got.extend(ring.drain(2));
        assert_eq!(sorted(got), sent);
    });
}

/// A dead producer's half message is over before its slot is used again, by one who did not see it die:
/// it is poisoned by one, stepped over and filled by another.
pub(crate) fn what_the_dead_wrote_is_over_before_its_slot_is_used() {
    for by_producer in [false, true] {
        explore("half a message of the dead", move || {
            let ring = Ring::new(4, OnDeath::Redeliver);
            let ticket = ring.queue().claim_write(&ring.intents[0]).unwrap();
            assert!(ring.send(2, 1));
            let (r1, r2) = (ring.clone(), ring.clone());
            let dying = thread::spawn(move || {
                r1.queue().slots.write(ticket, 99);
                r1.dies(0);
            });
            let repairer = thread::spawn(move || r2.queue().unblock_reader(|i| r2.is_dead(i)));
            let mut sent = vec![1];
            let mut got = Vec::new();
            if by_producer {
                sent.extend(ring.send_or_repair(2, 2).then_some(2));
            } else {
                got.extend(ring.recv(3));
                sent.extend(ring.send(2, 2).then_some(2));
            }
            dying.join().unwrap();
            repairer.join().unwrap();
            got.extend(ring.drain(3));
            assert_eq!(got, sent);
        });
    }
}

/// What was written to a slot that is given up is over before it is stepped over, and filled again: by a
/// consumer, or by a producer that needs the slot.
pub(crate) fn what_was_given_up_is_over_before_its_slot_is_used() {
    for by_producer in [false, true] {
        explore("half a message given up", move || {
            let ring = Ring::new(3, OnDeath::Redeliver);
            let ticket = ring.queue().claim_write(&ring.intents[0]).unwrap();
            let r1 = ring.clone();
            let other = thread::spawn(move || {
                r1.queue().slots.write(ticket, 99);
                r1.queue().abort(ticket);
            });
            assert!(ring.send(1, 1));
            let mut sent = vec![1];
            let mut got = Vec::new();
            if by_producer {
                sent.extend(ring.send_or_repair(1, 2).then_some(2));
            } else {
                got.extend(ring.recv(2));
                sent.extend(ring.send(1, 2).then_some(2));
            }
            other.join().unwrap();
            got.extend(ring.drain(2));
            assert_eq!(got, sent);
        });
    }
}

/// The same before a batch, which goes by the head and looks at no slot: whoever steps over, a consumer or a
/// producer, passes on what it has learnt. (The batch is committed when the others are done: see
/// [`a_batch_over_a_slot_that_nobody_freed`].)
pub(crate) fn what_was_given_up_is_over_before_a_batch_uses_its_slot() {
    for by_producer in [false, true] {
        explore("half a message given up, and a batch", move || {
            let ring = Ring::new(4, OnDeath::Redeliver);
            let queue = ring.queue();
            let ticket = queue.claim_write(&ring.intents[0]).unwrap();
            assert!(ring.send(1, 1));
            let (r1, r2) = (ring.clone(), ring.clone());
            let giver = thread::spawn(move || {
                r1.queue().slots.write(ticket, 99);
                r1.queue().abort(ticket);
            });
            let stepper = thread::spawn(move || {
                if by_producer {
                    r2.queue().unblock_writer(|i| r2.is_dead(i));
                    return None;
                }
                r2.recv(2)
            });
            let run = queue
                .claim_write_run(&ring.intents[1], &mut 0, 2)
                .unwrap_or(Run::NONE);
            run.tickets(2)
                .for_each(|ticket| queue.slots.write(ticket, ticket));
            giver.join().unwrap();
            let mut got = Vec::from_iter(stepper.join().unwrap());
            run.tickets(2).for_each(|ticket| queue.commit(ticket));
            got.extend(ring.drain(3));
            let sent: Vec<u64> = (1..2 + run.count).collect();
            assert_eq!(got, sent);
        });
    }
}

/// A consumer died after it wrote its intent and before it took the message; another takes it while a
/// third looks for messages of the dead.
pub(crate) fn an_intent_without_a_claim_gives_nothing_away() {
    explore("an intent to take, without a claim", || {
        let ring = Ring::new(4, OnDeath::Redeliver);
        assert!(ring.send(3, 7));
        ring.intents[0]
            .read
            .store(Run { first: 0, count: 1 }.word(), Ordering::Release);
        ring.dies(0);
        let r1 = ring.clone();
        let consumer = thread::spawn(move || r1.recv(1));
        let adopted = ring.queue().adopt(2, |i| ring.is_dead(i));
        let mut got: Vec<u64> = adopted
            .map(|ticket| ring.finish(ticket))
            .into_iter()
            .collect();
        got.extend(consumer.join().unwrap());
        got.extend(ring.drain(2));
        assert_eq!(got, [7]);
    });
}

/// The message of a dead reader is found at every moment, also while its record is taken over, and used.
pub(crate) fn an_orphan_is_found_at_every_moment() {
    explore("an orphan while its record is taken over", || {
        let ring = Ring::new(3, OnDeath::Redeliver);
        assert!(ring.send(1, 1));
        assert_eq!(ring.take(0), Some(0));
        ring.dies(0);
        let r1 = ring.clone();
        let joiner = thread::spawn(move || {
            let settled = r1.queue().settle(0, |i| r1.is_dead(i));
            if settled {
                r1.lives(0);
                let _ = r1.send(0, 2);
            }
            settled
        });
        let found = ring.queue().adopt(2, |i| ring.is_dead(i));
        assert_eq!(found, Some(0), "a message of the dead was overlooked");
        assert_eq!(ring.finish(0), 1);
        let sent = if joiner.join().unwrap() {
            vec![2]
        } else {
            vec![]
        };
        assert_eq!(ring.drain(2), sent);
    });
}

/// A reader died, and its adopter: both records are taken over at once, and the message is not forgotten
/// between them.
pub(crate) fn two_joiners_do_not_forget_an_adopted_message() {
    explore("a reader's and its adopter's joiners", || {
        let ring = Ring::new(3, OnDeath::Redeliver);
        assert!(ring.send(2, 1));
        assert_eq!(ring.take(0), Some(0));
        ring.dies(0);
        assert_eq!(ring.queue().adopt(1, |i| ring.is_dead(i)), Some(0));
        ring.dies(1);
        let r1 = ring.clone();
        let other = thread::spawn(move || {
            let settled = r1.queue().settle(0, |i| r1.is_dead(i));
            if settled {
                r1.lives(0);
            }
        });
        if ring.queue().settle(1, |i| ring.is_dead(i)) {
            ring.lives(1);
        }
        other.join().unwrap();
        assert_eq!(ring.drain(2), [1]);
    });
}

/// A ring in which there is always something never says that it is empty.
pub(crate) fn the_length_is_never_nothing_while_something_is_there() {
    explore("length", || {
        let ring = Ring::new(2, OnDeath::Redeliver);
        assert!(ring.send(0, 1) && ring.send(0, 2));
        let r1 = ring.clone();
        let other = thread::spawn(move || {
            for value in 3..6 {
                assert_eq!(r1.recv(1), Some(value - 2));
                assert!(r1.send(0, value));
            }
        });
        assert!(ring.queue().len() > 0, "it says that nothing is there");
        other.join().unwrap();
    });
}
