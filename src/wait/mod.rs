//! Waiting: how long to spin, and when to sleep.
//!
//! `block_on` is the one loop in which every blocking call waits. It never loses a wake-up as long
//! as its four parts keep their word: `attempt` finds what is there; `announce` leaves a mark that
//! whoever changes the word will see, *or* finds that it has changed; `sleep` returns at once if the
//! word is no longer what was announced; and whoever changes the word and sees the mark wakes. The
//! operating system is handed in through `sleep`, so that the same loop runs under loom.

mod backoff;
mod bell;
mod spinner;
mod strategy;

pub(crate) use backoff::{Backoff, Distance};
pub(crate) use bell::Bell;
pub(crate) use spinner::Spinner;
pub use strategy::WaitStrategy;

/// One side that waits for something.
pub(crate) trait Blocking {
    /// What it waits for.
    type Output;
    /// Why it gives up.
    type Error;

    /// Looks once whether it is there. `spinning` says that it will be asked again at once, so a
    /// look that disturbs the peer can be left out.
    fn attempt(&mut self, spinning: bool) -> Result<Option<Self::Output>, Self::Error>;

    /// Leaves the mark that it is going to sleep; returns the value of the word to sleep on, or
    /// `None` when it has to look again first.
    fn announce(&mut self) -> Result<Option<u64>, Self::Error>;

    /// Sleeps while the word is `expected`. May return early. Gives up when the time is over or the
    /// peer is gone.
    fn sleep(&mut self, expected: u64) -> Result<(), Self::Error>;

    /// Called now and then: gives up when the time is over or the peer is gone. What it finds, or `announce` or
    /// `sleep` just found, stays found: an attempt need not come in between.
    fn pulse(&mut self) -> Result<(), Self::Error>;

    /// Whether both sides have just one processor, so that the peer cannot run while this one looks.
    /// Asked after a pulse, and after some sleeps.
    fn is_alone(&self) -> bool;

    /// Whether others who wait for the same need the processors that this side may run on. Asked when `is_alone`
    /// is.
    fn is_crowded(&self) -> bool {
        false
    }
}

/// Times that it may be told to look again, or be woken, until it asks whether to give up.
const ROUNDS: u32 = 64;

/// Waits until `side` has what it waits for.
///
/// # Errors
/// Whatever `side` gives up with.
#[inline]
pub(crate) fn block_on<S: Blocking>(
    side: &mut S,
    spinner: &mut Spinner,
) -> Result<S::Output, S::Error> {
    spinner.begin();
    let mut rounds = 0u32;
    loop {
        if let Some(output) = side.attempt(spinner.is_spinning())? {
            spinner.succeeded();
            return Ok(output);
        }
        match spinner.next() {
            spinner::Step::Look => {}
            spinner::Step::Pulse => {
                side.pulse()?;
                spinner.pulsed(side.is_alone(), side.is_crowded());
            }
            spinner::Step::Sleep => {
                // The last look before the mark may have been a lazy one; `announce` looks exactly.
                if let Some(expected) = side.announce()? {
                    side.sleep(expected)?;
                }
                // Announcing and sleeping may say each time that there is something, and the attempt
                // that there is not, where a hostile peer writes: time-outs hold all the same.
                rounds = rounds.wrapping_add(1);
                if rounds.is_multiple_of(ROUNDS) {
                    side.pulse()?;
                }
                let asks = spinner.asks();
                spinner.slept(asks.then(|| (side.is_alone(), side.is_crowded())));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Is told that there is something whenever it is about to sleep, and finds nothing.
    struct Teased;

    impl Blocking for Teased {
        type Output = ();
        type Error = &'static str;

        fn attempt(&mut self, _: bool) -> Result<Option<()>, &'static str> {
            Ok(None)
        }

        fn announce(&mut self) -> Result<Option<u64>, &'static str> {
            Ok(None)
        }

        fn sleep(&mut self, _: u64) -> Result<(), &'static str> {
            unreachable!("nothing was announced")
        }

        fn pulse(&mut self) -> Result<(), &'static str> {
            Err("time is over")
        }

        fn is_alone(&self) -> bool {
            false
        }
    }

    #[test]
    fn one_who_is_teased_with_what_is_not_there_still_keeps_its_time() {
        for strategy in WaitStrategy::ALL {
            let mut spinner = Spinner::new(strategy, || false, false);
            assert_eq!(block_on(&mut Teased, &mut spinner), Err("time is over"));
        }
    }
}
