//! The producing side.

use super::{
    CHECKPOINTS, CLOSED, COMMITTED, Control, Corrupt, FLAGS, GONE, Manner, Notify, PAD, Place,
    RECENT, Refused, Seat, Spot, WORD, check_record, fit, header, line_end, max_message, record,
};
use crate::primitive::{Data, LINE, Ordering, fence, full_fence, light_fence};

/// Places where records begin, oldest first. Private memory.
#[derive(Default)]
struct Checkpoints {
    spots: [Spot; 2 * CHECKPOINTS as usize],
    first: usize,
    len: usize,
}

impl Checkpoints {
    fn push(&mut self, spot: Spot) {
        if self.len < self.spots.len() {
            self.spots[(self.first + self.len) % self.spots.len()] = spot;
            self.len += 1;
        }
    }

    fn front(&self) -> Option<Spot> {
        (self.len > 0).then(|| self.spots[self.first])
    }

    fn pop(&mut self) {
        self.first = (self.first + 1) % self.spots.len();
        self.len -= 1;
    }
}

/// The producing side. All fields but the views are private memory, which nothing a peer writes can
/// move.
pub(crate) struct Tx<'a> {
    control: &'a Control,
    seats: &'a [Seat],
    data: Data<'a>,
    manner: Manner,
    /// Where the next record goes, those of an open batch included.
    position: u64,
    /// Messages so far, those of an open batch included.
    sequence: u64,
    /// Records may end up to here without a look at anything: there is room, and no mark is due.
    limit: u64,
    /// Words above the next header and below this are known to be zero.
    zeroed: u64,
    /// The first header of the open batch, withheld until the batch is published.
    first: Option<(u64, u64)>,
    /// The mark `oldest`, and how often it was moved.
    oldest: Spot,
    oldest_turn: u64,
    /// The position of the mark `recent`, and how often it was moved.
    recent: u64,
    recent_turn: u64,
    checkpoints: Checkpoints,
    /// Where the last checkpoint was noted.
    noted: u64,
}

/// What a producer that finds no room waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// That the subscriber in this seat lets go of more: until its [`Seat::room_word`] is not 1 any more.
    Seat(usize),
    /// That subscribers come; the value of `joined`.
    Subscribers(u64),
}

impl<'a> Tx<'a> {
    /// Takes the place of the producer: of none, or of one that left or died. The caller has proof
    /// that no other producer lives.
    pub(crate) fn resume(
        control: &'a Control,
        seats: &'a [Seat],
        data: Data<'a>,
        manner: Manner,
    ) -> Result<Tx<'a>, Corrupt> {
        let (oldest_turn, oldest) = control.oldest.read()?;
        let (recent_turn, _) = control.producer.recent.read()?;
        let mut tx = Tx {
            control,
            seats,
            data,
            manner,
            position: oldest.position,
            sequence: oldest.sequence,
            limit: 0,
            zeroed: 0,
            first: None,
            oldest,
            oldest_turn,
            recent: oldest.position,
            recent_turn,
            checkpoints: Checkpoints::default(),
            noted: oldest.position,
        };
        let capacity = data.capacity();
        loop {
            // Relaxed: these are our own predecessor's headers. Proof of its death orders all that
            // it wrote before this.
            let word = data.word(tx.position).load(Ordering::Relaxed);
            if word & COMMITTED == 0 {
                break;
            }
            if word & FLAGS == COMMITTED | CLOSED {
                // The one before left; we reopen. Relaxed: it carries no payload.
                data.word(tx.position).store(0, Ordering::Relaxed);
                break;
            }
            let (need, is_message) = check_record(word, tx.position, capacity)?;
            tx.note();
            tx.sequence = tx.sequence.wrapping_add(u64::from(is_message));
            tx.position += need;
            if tx.position > oldest.position + capacity - 2 * LINE {
                return Err(Corrupt {
                    what: "records without an end",
                    position: tx.position,
                });
            }
        }
        tx.note();
        tx.tell_progress();
        tx.mark_recent();
        // What the one before wrote and did not publish stays there: like any old payload, it is never
        // behind a header that was published, since nothing but the next header is taken to be zero.
        tx.zeroed = tx.position + WORD;
        Ok(tx)
    }

    /// The view of the data area.
    #[inline(always)]
    pub(crate) fn data(&self) -> Data<'a> {
        self.data
    }

    /// Messages so far, those of an open batch included.
    #[inline(always)]
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    #[inline(always)]
    fn spot(&self) -> Spot {
        Spot {
            position: self.position,
            sequence: self.sequence,
        }
    }

    /// Publishes one message, no longer than [`max_message`], if it fits without padding into the room
    /// known of; otherwise nothing happens. No batch is open. The fast path, kept short.
    #[inline(always)]
    pub(crate) fn send_at_once(&mut self, message: &[u8], flags: u64) -> Option<Notify> {
        let (at, len) = (self.position, message.len() as u64);
        let end = at + record(len);
        let fits = (at & (self.data.capacity() - 1)) + record(len) <= self.data.capacity();
        if !fits || end > self.limit {
            return None;
        }
        // SAFETY: free room (`limit`), whole and without wrapping (`fits`).
        unsafe { self.data.copy_in_shared(at + WORD, message) };
        self.append(end);
        Some(self.publish_from(at, header(len, flags)))
    }

    /// Publishes one message, no longer than [`max_message`]. No batch is open.
    pub(crate) fn try_send(&mut self, message: &[u8], flags: u64) -> Result<Notify, Refused> {
        let place = self.find(message.len() as u64)?;
        // SAFETY: `find` gave free room, whole and without wrapping.
        unsafe { self.data.copy_in_shared(place.payload(), message) };
        Ok(self.publish_at(place, message.len() as u64, flags))
    }

    /// Finds room for a message of `len` bytes, no more than [`max_message`], that is written in
    /// place. Nothing need be done to give it up. No batch is open.
    pub(crate) fn reserve(&mut self, len: u64) -> Result<Place, Refused> {
        let place = self.find(len)?;
        // From here on the room may be dirtied: nothing past the next header is known to be zero.
        self.zeroed = self.position + WORD;
        Ok(place)
    }

    /// Publishes the first `len` bytes of what was written in a reserved place.
    pub(crate) fn commit(&mut self, place: Place, len: u64, flags: u64) -> Notify {
        debug_assert!(len <= place.len && place.header >= self.position);
        if len == place.len {
            // All that was dirtied is now payload: the old frontier holds again.
            self.zeroed = place.zeroed;
        }
        self.publish_at(place, len, flags)
    }

    /// Writes a message, no longer than [`max_message`], behind those of the open batch, or opens
    /// one; subscribers see none of them before [`Tx::publish`].
    pub(crate) fn stage(&mut self, message: &[u8]) -> Result<(), Refused> {
        let len = message.len() as u64;
        let place = self.find(len)?;
        // SAFETY: `find` gave free room, whole and without wrapping.
        unsafe { self.data.copy_in_shared(place.payload(), message) };
        let (at, word) = self.first_header(place, header(len, 0));
        if self.first.is_none() {
            self.first = Some((at, word));
        } else {
            // Relaxed: made visible by the release of the batch's first header.
            self.data.word(at).store(word, Ordering::Relaxed);
        }
        self.append(place.header + record(len));
        Ok(())
    }

    /// Bytes in the open batch, headers and padding included.
    #[inline(always)]
    pub(crate) fn staged(&self) -> u64 {
        self.first.map_or(0, |(at, _)| self.position - at)
    }

    /// Publishes the open batch, if any: its first header is written last.
    #[inline(always)]
    pub(crate) fn publish(&mut self) -> Notify {
        match self.first.take() {
            Some((at, word)) => {
                let notify = self.publish_from(at, word);
                // It was not moved while the batch was open.
                if self.position - self.recent >= self.recent_step() {
                    self.mark_recent();
                }
                notify
            }
            None => Notify::Nobody,
        }
    }

    /// Marks the ring closed. Messages before the mark are still received. No batch is open.
    pub(crate) fn close(&mut self) -> Notify {
        self.publish_header(self.position, header(0, CLOSED))
    }

    /// True when a message of `len` bytes has room now.
    pub(crate) fn has_room(&mut self, len: u64) -> Result<bool, Corrupt> {
        match self.find(len) {
            Ok(_) => Ok(true),
            Err(Refused::Full) => Ok(false),
            Err(Refused::Corrupt(corrupt)) => Err(corrupt),
        }
    }

    /// True when a message of `len` bytes has room by what subscribers publish lazily. For spinning: it
    /// does not drag their own lines over.
    pub(crate) fn has_room_lazily(&mut self, len: u64) -> Result<bool, Corrupt> {
        let wanted = self.wanted(self.fit(len).1);
        // Relaxed: `has_room` looks again.
        let held = |seat: &Seat| seat.head.load(Ordering::Relaxed) < wanted;
        if self.manner.gated && self.seated().iter().any(held) {
            return Ok(false);
        }
        self.has_room(len)
    }

    /// Marks that the producer is going to sleep until a message of `len` bytes may have room. Returns
    /// what to sleep on, or `None` when it has to look again first. `barrier` is a full fence at least,
    /// and one for the processors of subscribers that do not fence.
    pub(crate) fn announce(&mut self, len: u64, barrier: impl FnOnce()) -> Option<Awaited> {
        // Relaxed: whoever came before this is seen by `is_deserted`, which looks at it once more.
        let joined = self.control.joined.load(Ordering::Relaxed);
        if self.manner.gated && joined < self.manner.expected {
            return Some(Awaited::Subscribers(joined));
        }
        if self.is_deserted() {
            return Some(Awaited::Subscribers(joined));
        }
        let wanted = self.wanted(self.fit(len).1);
        let mut seats = self.seated().iter().enumerate();
        let (index, seat) = seats.find(|(_, seat)| seat.exact() < wanted)?;
        // Relaxed: the barrier orders it.
        seat.own.waiting.store(1, Ordering::Relaxed);
        // SYNC: room and sleepers. Between the mark and the look at the position.
        barrier();
        if seat.exact() < wanted {
            return Some(Awaited::Seat(index));
        }
        // Relaxed: it spares the subscriber a wake-up, and nothing hangs on it.
        seat.own.waiting.store(0, Ordering::Relaxed);
        None
    }

    /// Whether the subscriber in seat `index` holds a message of `len` bytes back.
    pub(crate) fn is_held_by(&self, index: usize, len: u64) -> bool {
        let wanted = self.wanted(self.fit(len).1);
        self.manner.gated && self.seats[index].position(wanted) < wanted
    }

    /// The seats that were ever used.
    pub(crate) fn seated(&self) -> &'a [Seat] {
        // Relaxed: who came is seen, its seat among them, by `joined` or by the fences of `refresh` and of
        // the newcomer.
        let count = self.control.seats.load(Ordering::Relaxed) as usize;
        &self.seats[..count.min(self.seats.len())]
    }

    /// Where the header of a record with `len` bytes of payload goes, and where the record ends.
    #[inline(always)]
    fn fit(&self, len: u64) -> (u64, u64) {
        fit(self.position, len, self.data.capacity())
    }

    /// Nothing below this may be needed any more when a record ends at `end`.
    #[inline(always)]
    fn wanted(&self, end: u64) -> u64 {
        (end + 2 * LINE).saturating_sub(self.data.capacity())
    }

    #[inline(always)]
    fn find(&mut self, len: u64) -> Result<Place, Refused> {
        debug_assert!(len <= max_message(self.data.capacity()));
        let (at, end) = self.fit(len);
        if end > self.limit {
            self.refresh(end)?;
        }
        Ok(Place {
            header: at,
            len,
            zeroed: self.zeroed,
        })
    }

    /// How far the slowest subscriber has let go: all of it, if that is `wanted` or more.
    fn slowest(&self, wanted: u64) -> u64 {
        if !self.manner.gated {
            return GONE;
        }
        // SYNC: who came is seen in its seat. Acquire: or the mark would pass one who was waited for.
        if self.control.joined.load(Ordering::Acquire) < self.manner.expected {
            return 0;
        }
        let positions = self.seated().iter().map(|seat| seat.position(wanted));
        match positions.min().unwrap_or(GONE) {
            // Those who were expected have come and gone: what is there is kept for others.
            GONE if self.manner.expected > 0 => 0,
            slowest => slowest,
        }
    }

    /// Whether subscribers were expected, have come, and none is left.
    pub(crate) fn is_deserted(&self) -> bool {
        // SYNC: who came is seen in its seat. Acquire: or the producer would sleep until another one comes.
        let joined = self.control.joined.load(Ordering::Acquire);
        let gone = |seat: &Seat| seat.position(GONE) == GONE;
        let expected = if self.manner.gated {
            self.manner.expected
        } else {
            0
        };
        expected > 0 && joined >= expected && self.seated().iter().all(gone)
    }

    /// Notes a checkpoint, if one is due.
    fn note(&mut self) {
        if self.position - self.noted >= self.data.capacity() / CHECKPOINTS {
            self.checkpoints.push(self.spot());
            self.noted = self.position;
        }
    }

    /// How far the mark `recent` may lag, in bytes.
    fn recent_step(&self) -> u64 {
        RECENT.min(self.data.capacity() / CHECKPOINTS)
    }

    /// Moves the mark `recent` to the tail. No batch is open.
    #[cold]
    fn mark_recent(&mut self) {
        self.recent = self.position;
        // Wrapping: what the one before left may be anything.
        self.recent_turn = self.recent_turn.wrapping_add(1);
        let published = &self.control.producer;
        published.recent.publish(self.recent_turn, self.spot());
    }

    /// Makes room up to `end`, and learns of all that there is.
    #[cold]
    #[inline(never)]
    fn refresh(&mut self, end: u64) -> Result<(), Refused> {
        self.note();
        // In an open batch `position` is ahead of what is published.
        let is_settled = self.first.is_none();
        if is_settled && self.position - self.recent >= self.recent_step() {
            self.mark_recent();
        }
        let wanted = self.wanted(end);
        // What is staged is not to be overwritten before it was ever published.
        let tail = self.position - self.staged();
        if wanted > tail {
            return Err(Refused::Full);
        }
        if wanted > self.oldest.position {
            let free = self.slowest(wanted).min(tail);
            if free < wanted {
                return Err(Refused::Full);
            }
            self.oldest = self.first_from(wanted, free).map_err(Refused::Corrupt)?;
            // Wrapping: what the one before left may be anything.
            self.oldest_turn = self.oldest_turn.wrapping_add(1);
            self.control.oldest.publish(self.oldest_turn, self.oldest);
            if self.manner.gated {
                // SEQCST: SYNC: seated before looking, moved before asking.
                full_fence();
            }
            // SYNC: the mark before what is overwritten. Release: who reads anything written from here
            // on, and then looks at the mark, sees it.
            fence(Ordering::Release);
        }
        let free = self.slowest(wanted);
        if free < wanted {
            return Err(Refused::Full);
        }
        let capacity = self.data.capacity();
        let room = free.min(self.oldest.position) + capacity - 2 * LINE;
        self.limit = room.min(self.noted + capacity / CHECKPOINTS);
        if is_settled {
            self.limit = self.limit.min(self.recent + self.recent_step());
        }
        Ok(())
    }

    /// The first record that may become the oldest: from `wanted` on, not beyond `free`, and rather by
    /// an eighth of the capacity on than by one record.
    fn first_from(&mut self, wanted: u64, free: u64) -> Result<Spot, Corrupt> {
        let mut spot = self.oldest;
        while let Some(next) = self.checkpoints.front() {
            if next.position >= wanted {
                if next.position <= free {
                    return Ok(next);
                }
                break;
            }
            spot = next;
            self.checkpoints.pop();
        }
        // Subscribers are close ahead: steps over its own headers.
        let capacity = self.data.capacity();
        let most = free.min(spot.position + capacity / CHECKPOINTS);
        while spot.position < wanted.max(most) {
            // Relaxed: our own headers.
            let word = self.data.word(spot.position).load(Ordering::Relaxed);
            let (need, is_message) = check_record(word, spot.position, capacity)?;
            if spot.position >= wanted && spot.position + need > most {
                break;
            }
            spot.position += need;
            spot.sequence = spot.sequence.wrapping_add(u64::from(is_message));
        }
        if spot.position > self.position {
            return Err(Corrupt {
                what: "records without an end",
                position: spot.position,
            });
        }
        Ok(spot)
    }

    /// The header to be published first for a record at `place`: its own, or that of the padding
    /// before it, behind which its own is then written at once.
    #[inline(always)]
    fn first_header(&mut self, place: Place, word: u64) -> (u64, u64) {
        if place.header == self.position {
            return (place.header, word);
        }
        // Relaxed: made visible by the release of the padding before it, or of the batch's first.
        self.data.word(place.header).store(word, Ordering::Relaxed);
        let padding = place.header - self.position - WORD;
        (self.position, header(padding, PAD))
    }

    /// A record up to `end` was written behind the others.
    #[inline(always)]
    fn append(&mut self, end: u64) {
        self.position = end;
        self.sequence = self.sequence.wrapping_add(1);
    }

    #[inline(always)]
    fn publish_at(&mut self, place: Place, len: u64, flags: u64) -> Notify {
        let (at, word) = self.first_header(place, header(len, flags));
        self.append(place.header + record(len));
        self.publish_from(at, word)
    }

    /// Publishes everything from the header at `at`, which becomes `word`, to `position`.
    #[inline(always)]
    fn publish_from(&mut self, at: u64, word: u64) -> Notify {
        if self.position >= self.zeroed {
            let end = line_end(self.position);
            // Free room, by the two lines kept back in `limit`; not published yet.
            self.data.zero_shared(self.position, end);
            self.zeroed = end;
        }
        let notify = self.publish_header(at, word);
        // From here on off the critical path: subscribers are on their way already.
        if self.zeroed < self.position + LINE {
            // Free room, by the two lines kept back in `limit`. It lies above the header after the
            // last record, so nobody looks at it before the next release.
            self.data.zero_shared(self.zeroed, self.zeroed + LINE);
            self.zeroed += LINE;
        }
        self.tell_progress();
        notify
    }

    /// How far it is, for observers and for those who join.
    #[inline(always)]
    fn tell_progress(&self) {
        let progress = &self.control.producer.progress;
        // Relaxed: nothing is read on the strength of them. Who joins and sees one message fewer gets it.
        progress.position.store(self.position, Ordering::Relaxed);
        progress.messages.store(self.sequence, Ordering::Relaxed);
    }

    #[inline(always)]
    fn publish_header(&mut self, at: u64, word: u64) -> Notify {
        // SYNC: payload visible to subscribers. Release: everything written to the record, to the
        // later records of a batch, and the zero after them happens before anyone sees this word.
        let asleep = if !self.manner.parks {
            self.data.word(at).store(word, Ordering::Release);
            false
        } else if self.manner.fences {
            self.data.word(at).swap(word, Ordering::Release);
            // The exchange is most of the fence that the bell needs.
            self.control.bell.ring_after_exchange()
        } else {
            self.data.word(at).store(word, Ordering::Release);
            // Those who go to sleep there make up for it.
            self.control.bell.ring_with(light_fence)
        };
        if asleep { Notify::Peer } else { Notify::Nobody }
    }
}
