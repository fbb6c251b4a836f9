//! What producers and consumers have in common: a record, and knowing who is dead.

use std::cell::{Cell, OnceCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::error::{Error, RecvError, SendError};
use crate::mapping;
use crate::os;
use crate::os::clock::Deadline;
use crate::os::fork::Mark;
use crate::os::life::LockFile;
use crate::participant::{self, Life, Membership, Record, Watch};
use crate::primitive::{CachePadded, LINE, Slots, full_fence, light_fence};
use crate::ring::mpmc::{Cursors, Intents, Queue};
use crate::sleeper::{Door, Sleeper};
use crate::wait::{Bell, Spinner, WaitStrategy};

use super::ring::Shared;

/// What a participant does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Role {
    Producer = 1,
    Consumer = 2,
}

impl Role {
    pub(super) fn peer(self) -> Role {
        match self {
            Role::Producer => Role::Consumer,
            Role::Consumer => Role::Producer,
        }
    }

    /// Where it waits.
    fn door(self) -> Door {
        match self {
            Role::Producer => Door::Room,
            Role::Consumer => Door::Messages,
        }
    }
}

/// Lengths of messages that are touched when they are released: shorter ones are in the line of the slot's sequence, which
/// is written anyway; longer ones have left the nearer caches by then.
const TOUCH: std::ops::Range<usize> = LINE as usize - Slots::PAYLOAD as usize + 1..1 << 20;

/// How the last of a role went, when none of its records is left to tell.
const NEVER: u32 = 0;
const LEFT: u32 = 1;
const DIED: u32 = 2;

/// The words of a ring that all participants share.
#[repr(C)]
pub(crate) struct Control {
    pub(crate) cursors: Cursors,
    /// Where consumers wait for messages.
    messages: CachePadded<Bell>,
    /// Where producers wait for room.
    room: CachePadded<Bell>,
    /// By role: NEVER, LEFT or DIED.
    history: CachePadded<[AtomicU32; 2]>,
}

impl Control {
    pub(crate) fn new() -> Control {
        Control {
            cursors: Cursors::new(),
            messages: CachePadded::new(Bell::new()),
            room: CachePadded::new(Bell::new()),
            history: CachePadded::new([AtomicU32::new(NEVER), AtomicU32::new(NEVER)]),
        }
    }

    pub(super) fn bell(&self, door: Door) -> &Bell {
        match door {
            Door::Messages => &self.messages,
            Door::Room => &self.room,
        }
    }

    fn history(&self, role: Role) -> &AtomicU32 {
        &self.history[role as usize - 1]
    }
}

/// The error of one who receives from a ring whose memory somebody took away.
pub(super) const LOST_RECEIVING: RecvError = RecvError::Corrupt {
    what: mapping::LOST,
    offset: 0,
};
/// The error of one who sends to it.
pub(super) const LOST_SENDING: SendError = SendError::Corrupt {
    what: mapping::LOST,
    offset: 0,
};

/// Why there is nothing more to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// All peers left.
    Left,
    /// A peer died and was not replaced.
    Died,
}

/// How a participant finds out whether somebody sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notifying {
    /// Nobody ever sleeps.
    Nobody,
    /// By a look: sleepers have every running thread pass a fence before they sleep.
    Lightly,
    /// By a fence and a look.
    Fenced,
}

impl Notifying {
    fn new(strategy: WaitStrategy, control: &Control) -> Notifying {
        if !strategy.parks() {
            return Notifying::Nobody;
        }
        // Where every wait is a sleep, a fence costs less than a system call before each.
        if strategy != WaitStrategy::Adaptive {
            return Notifying::Fenced;
        }
        if os::membarrier::register() {
            return Notifying::Lightly;
        }
        // Who cannot be reached by others' fences cannot make them pass one either.
        Notifying::demand_fences(control);
        Notifying::Fenced
    }

    /// Some sleeper cannot have others pass a fence: they have to do so by themselves.
    fn demand_fences(control: &Control) {
        control.messages.demand_fences();
        control.room.demand_fences();
    }
}

/// One attached participant: a producer's or a consumer's inner part.
pub(super) struct Participant {
    /// Views of the memory that `shared`, declared after it, keeps mapped.
    queue: Queue<'static>,
    intents: &'static Intents,
    control: &'static Control,
    /// Where its peers sleep.
    peers: &'static Bell,
    record: &'static Record,
    /// Gone before `shared`, so that the last one to leave finds nobody present but itself.
    membership: Membership,
    pub(super) shared: Arc<Shared>,
    role: Role,
    mark: Mark,
    /// On the other participants, made when one is first looked at.
    watches: Box<[OnceCell<Watch>]>,
    /// A peer that was alive when last looked for one.
    alive: Cell<u32>,
    /// Where this one sleeps, and where it wakes.
    sleeps: Sleeper,
    wakes: Sleeper,
    notifying: Notifying,
    /// The longest message; a private copy at hand.
    pub(super) slot_size: usize,
    pub(super) spinner: Spinner,
}

impl Participant {
    /// Takes a free record, or a dead one's.
    pub(super) fn join(shared: &Arc<Shared>, role: Role) -> Result<Participant, Error> {
        let strategy = shared.geometry.wait;
        let sleeper = |role: Role| {
            Sleeper::new(
                &shared.mapping,
                strategy,
                shared.events.as_ref(),
                role.door(),
            )
        };
        let (sleeps, wakes) = (sleeper(role)?, sleeper(role.peer())?);
        let membership = take_record(shared, role)?;
        for event in [sleeps.event(), wakes.event()].into_iter().flatten() {
            // Those who are asleep learn whose death they have to learn of.
            event.notify();
        }
        shared
            .control()
            .history(role)
            .store(LEFT, Ordering::Relaxed);
        let notifying = Notifying::new(strategy, shared.control());
        let alone = participant::are_alone(&shared.mapping, &membership);
        let queue = shared.queue();
        // SAFETY: the views point into the mapping, which `shared` keeps for longer than the
        // participant lives; they are not handed out for longer than a borrow of it.
        let queue = unsafe { core::mem::transmute::<Queue<'_>, Queue<'static>>(queue) };
        // SAFETY: as above.
        let control =
            unsafe { core::mem::transmute::<&Control, &'static Control>(shared.control()) };
        let record = participant::record(&shared.mapping, membership.index());
        // SAFETY: as above.
        let record = unsafe { core::mem::transmute::<&Record, &'static Record>(record) };
        Ok(Participant {
            queue,
            record,
            intents: &queue.intents[membership.index() as usize],
            control,
            peers: control.bell(role.peer().door()),
            shared: shared.clone(),
            membership,
            role,
            mark: Mark::here(),
            watches: (0..shared.geometry.participants)
                .map(|_| OnceCell::new())
                .collect(),
            alive: Cell::new(0),
            sleeps,
            wakes,
            notifying,
            slot_size: shared.geometry.slot_size as usize,
            spinner: Spinner::new(strategy, os::yield_for_long, alone),
        })
    }

    #[inline(always)]
    pub(super) fn queue(&self) -> &Queue<'_> {
        &self.queue
    }

    #[inline(always)]
    pub(super) fn intents(&self) -> &Intents {
        self.intents
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    pub(super) fn index(&self) -> usize {
        self.membership.index() as usize
    }

    /// Whether nobody attached can run while another does.
    pub(super) fn is_alone(&self) -> bool {
        participant::are_alone(&self.shared.mapping, &self.membership)
    }

    /// Whether this is the process that attached, and not a forked child of it.
    #[inline(always)]
    pub(super) fn is_here(&self) -> bool {
        self.mark.is_here()
    }

    /// Whether participant `index` is dead, or on its way in: what the algorithm asks.
    pub(super) fn is_dead(&self, index: usize) -> bool {
        index != self.index() && self.life(index) != Life::Alive
    }

    fn life(&self, index: usize) -> Life {
        let watch = self.watches[index].get_or_init(|| Watch::new(index as u32));
        watch.life(&self.shared.mapping, self.membership.lock_file())
    }

    /// Whether no peer is alive any more, and how they went; `None` while there is one, or none has
    /// come yet.
    #[cold]
    pub(super) fn peers_gone(&self) -> Option<Gone> {
        let role = self.role.peer();
        let mapping = &self.shared.mapping;
        let is_peer = |index: u32| {
            participant::record(mapping, index)
                .role
                .load(Ordering::Relaxed)
                == role as u32
        };
        let joins = participant::joins(mapping);
        // ACQUIRE: who joined before is found. SYNC: joined before it was counted
        let joined = joins.load(Ordering::Acquire);
        let before = self.alive.get();
        if is_peer(before) && self.life(before as usize) == Life::Alive {
            return None;
        }
        let mut died = false;
        for index in (0..self.shared.geometry.participants).filter(|index| is_peer(*index)) {
            match self.life(index as usize) {
                Life::Alive => {
                    self.alive.set(index);
                    return None;
                }
                Life::Joining => return None,
                Life::Dead => died = true,
                Life::Left | Life::Never => {}
            }
        }
        // One that left may have waited for another to come first, to a record that was passed by before that.
        // RELAXED: the records of those who left were acquired before, and with them what those had waited for.
        if joins.load(Ordering::Relaxed) != joined {
            return None;
        }
        match self.control.history(role).load(Ordering::Relaxed) {
            _ if died => Some(Gone::Died),
            DIED => Some(Gone::Died),
            LEFT => Some(Gone::Left),
            _ => None,
        }
    }

    /// After something that a peer may be waiting for.
    #[inline(always)]
    pub(super) fn notify(&self) {
        let rings = match self.notifying {
            Notifying::Nobody => false,
            Notifying::Lightly => self.peers.ring_with(light_fence),
            Notifying::Fenced => self.peers.ring(),
        };
        if rings {
            self.wake_peer();
        }
    }

    /// As [`Participant::notify`], where that something was a compare-exchange that nothing but
    /// relaxed stores came after.
    #[inline(always)]
    pub(super) fn notify_after_exchange(&self) {
        if self.notifying != Notifying::Nobody && self.peers.ring_after_exchange() {
            self.wake_peer();
        }
    }

    #[cold]
    #[inline(never)]
    fn wake_peer(&self) {
        self.count(|record| &record.wakes);
        self.wakes.wake(self.peers.word());
    }

    /// Wakes another one that waits as this one did: there is more, or nothing to wait for.
    #[cold]
    pub(super) fn pass_on(&self) {
        let bell = self.control.bell(self.role.door());
        if self.notifying != Notifying::Nobody && bell.ring() {
            self.sleeps.wake(bell.word());
        }
    }

    /// Where it sleeps.
    pub(super) fn sleeper(&self) -> &Sleeper {
        &self.sleeps
    }

    /// The word on which it sleeps.
    pub(super) fn bell_word(&self) -> &AtomicU64 {
        self.control.bell(self.role.door()).word()
    }

    /// After a sleep that somebody else slept for it.
    pub(super) fn woken(&self) {
        // Others may sleep still, and whoever woke this one cleared the mark.
        self.announce();
    }

    /// Whether a notifier may have missed that it sleeps: see `fence_others`.
    pub(super) fn may_be_missed(&self) -> bool {
        self.shared.geometry.wait == WaitStrategy::Adaptive && !os::membarrier::register()
    }

    /// Announces that it is going to sleep.
    pub(super) fn announce(&self) -> u64 {
        let bell = self.control.bell(self.role.door());
        if self.shared.geometry.wait == WaitStrategy::Adaptive {
            bell.announce_with(|| self.fence_others())
        } else {
            bell.announce()
        }
    }

    /// Sleeps until woken, at most a slice of time.
    pub(super) fn sleep(&self, expected: u64, deadline: Deadline) -> std::io::Result<()> {
        self.count(|record| &record.parks);
        let bell = self.control.bell(self.role.door());
        let result = self.sleeps.sleep(bell.word(), expected, deadline);
        // Others may sleep still, and whoever woke this one cleared the mark.
        self.announce();
        result
    }

    /// The sleeper's fence, which stands in for those that notifiers leave out.
    #[cold]
    fn fence_others(&self) {
        // A peer's notifier may be light though this one's is not. (One that looked before it could see the
        // demand may miss this sleeper: once, for a slice of time.)
        if !os::membarrier::all() {
            Notifying::demand_fences(self.control);
        }
        full_fence();
    }

    /// Counts one more stall.
    pub(super) fn stalled(&self) {
        self.count(|record| &record.stalls);
    }

    /// Counts claims of dead participants that were undone.
    pub(super) fn repaired(&self) {
        self.count(|record| &record.repairs);
    }

    /// Counts a message of a dead consumer that this one got.
    pub(super) fn adopted(&self) {
        self.count(|record| &record.redelivered);
    }

    /// Releases message `ticket`, of `len` bytes. A long one is touched first: its lines go to the next producer without
    /// being shared before.
    #[inline(always)]
    pub(super) fn release(&self, ticket: u64, len: usize) {
        if len >= TOUCH.start {
            self.touch(ticket, len);
        }
        self.queue.release(ticket);
    }

    /// Touches message `ticket`, of `len` bytes, which this one has taken and not released.
    #[cold]
    #[inline(never)]
    pub(super) fn touch(&self, ticket: u64, len: usize) {
        if TOUCH.contains(&len) {
            // SAFETY: no more than a slot holds; who keeps the protocol leaves the slot alone until it is released.
            unsafe { self.queue.slots.touch(ticket, len.min(self.slot_size)) };
        }
    }

    /// Counts a message of `len` bytes, sent or taken.
    #[inline(always)]
    pub(super) fn passed(&self, len: usize) {
        self.passed_several(1, len as u64);
    }

    /// Counts `messages`, sent or taken, with `bytes` in all: two words of a line that is this one's alone.
    #[inline(always)]
    pub(super) fn passed_several(&self, messages: u64, bytes: u64) {
        let record = self.record;
        Record::add(&record.messages, messages);
        Record::add(&record.bytes, bytes);
    }

    fn count(&self, counter: fn(&Record) -> &AtomicU64) {
        Record::add(counter(self.record), 1);
    }

    /// No more claims succeed, for anybody; everyone waiting is told.
    pub(super) fn close(&self) {
        self.queue.close();
        self.notify();
        self.pass_on();
    }

    /// Whether somebody took the memory away, and this process goes on without.
    #[cold]
    pub(super) fn is_lost(&self) -> bool {
        self.shared.mapping.is_lost()
    }

    /// The error for a slot that holds nonsense.
    pub(super) fn offset_of(&self, ticket: u64) -> u64 {
        let geometry = &self.shared.geometry;
        self.shared.mapping.header().data() + (ticket & (geometry.capacity - 1)) * geometry.stride
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        // A forked child's copy leaves its parent's record alone.
        if !self.is_here() {
            return;
        }
        self.shared
            .control()
            .history(self.role)
            .store(LEFT, Ordering::Relaxed);
        self.membership.leave(&self.shared.mapping);
        // Peers may be waiting for what will not come now; one of them is told, and tells the next.
        self.notify();
    }
}

/// Takes a record: that of a dead one in the same role if there is one, so that a successor replaces
/// it; else a free one; else any dead one's whose claims can be settled.
fn take_record(shared: &Arc<Shared>, role: Role) -> Result<Membership, Error> {
    let mapping = &shared.mapping;
    let lock = mapping.lock_file()?;
    let count = shared.geometry.participants;
    let joins = participant::joins(mapping);
    for _ in 0..TAKING {
        // ACQUIRE: who joined before is found. SYNC: joined before it was counted
        let joined = joins.load(Ordering::Acquire);
        let lives: Vec<Life> = (0..count)
            .map(|index| Watch::new(index).life(mapping, &lock))
            .collect();
        // Unless somebody came meanwhile, in the place of whom another may have left one that was passed by before.
        // RELAXED: the records were acquired before.
        let all_taken = lives.iter().all(|life| *life == Life::Alive);
        if all_taken && joins.load(Ordering::Relaxed) == joined {
            break;
        }
        if let Some(membership) = take_one_of(shared, role, &lives)? {
            return Ok(membership);
        }
        // What was free was taken by others meanwhile: in the place of one that died, say, though another had left.
        os::yield_now();
    }
    Err(Error::TooManyParticipants {
        name: mapping.name().into(),
        max: count as usize,
    })
}

/// How often one who comes looks for a record that nobody has.
const TAKING: u32 = 64;

/// Takes one of the records that `lives` shows without an owner.
fn take_one_of(
    shared: &Arc<Shared>,
    role: Role,
    lives: &[Life],
) -> Result<Option<Membership>, Error> {
    let mapping = &shared.mapping;
    let count = shared.geometry.participants;
    let role_of = |index: u32| {
        participant::record(mapping, index)
            .role
            .load(Ordering::Relaxed)
    };
    let preference = |index: &u32| match lives[*index as usize] {
        Life::Dead if role_of(*index) == role as u32 => 0,
        Life::Never | Life::Left => 1,
        Life::Dead => 2,
        Life::Alive | Life::Joining => 3,
    };
    let watches: Vec<Watch> = (0..count).map(Watch::new).collect();
    let mut candidates: Vec<u32> = (0..count).filter(|index| preference(index) < 3).collect();
    candidates.sort_by_key(preference);
    for index in candidates {
        let before = lives[index as usize];
        let previous = role_of(index);
        let settle = |lock: &LockFile| {
            shared.queue().settle(index as usize, |other| {
                other == index as usize || watches[other].life(mapping, lock) != Life::Alive
            })
        };
        if let Some(membership) = Membership::join_settled(mapping, index, role as u32, settle)? {
            if before == Life::Dead && previous != role as u32 {
                let died = if role == Role::Producer {
                    Role::Consumer
                } else {
                    Role::Producer
                };
                shared
                    .control()
                    .history(died)
                    .store(DIED, Ordering::Relaxed);
            }
            return Ok(Some(membership));
        }
    }
    Ok(None)
}
