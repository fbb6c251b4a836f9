//! How long to spin before sleeping.
//!
//! A wake-up across processors costs tens of microseconds here whatever it is made with, a look at a
//! line that has not changed a nanosecond. So it pays to look for about as long as one wake-up
//! costs, if what one waits for comes within that time; and it is a waste if it does not. The
//! adaptive spinner keeps a score of how often it did.

use super::WaitStrategy;
use crate::primitive::spin_loop;

/// Looks that are always made, a microsecond or two. Each is followed by a pause, as all looks are: without
/// one the processor is several looks ahead of itself when the line changes, and has to start anew.
const QUICK: u32 = 64;
/// Looks beyond those, at the highest score: about the cost of one wake-up.
const MORE: u32 = 1200;
/// Looks beyond those that even a score of zero is given, so that it can rise again.
const MORE_LEAST: u32 = 32;
const SCORE_MAX: u32 = 64;
/// Looks between two pulses of a spinner that never sleeps.
const PULSE: u32 = 4096;
/// With one processor the peer cannot run while we look.
const QUICK_ALONE: u32 = 2;
/// Times that a lone processor is offered to the peer before sleeping.
const YIELDS_ALONE: u32 = 2;
/// Looks that one in a crowd makes before it sleeps. Before each others may run; if none wants to, all of them take
/// about as long as one wake-up.
const LOOKS_CROWDED: u32 = 32;
/// Waits after which one in a crowd asks whether it still is.
const WAITS_CROWDED: u32 = 256;

/// What to do next while waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Look again.
    Look,
    /// See whether to give up, then look again.
    Pulse,
    /// Announce, and sleep.
    Sleep,
}

/// Decides between looking again and sleeping. Belongs to one side of one ring.
#[derive(Clone, Debug)]
pub(crate) struct Spinner {
    strategy: WaitStrategy,
    /// Looks so far in this wait.
    looks: u32,
    /// How often spinning has paid lately, 0 to [`SCORE_MAX`].
    score: u32,
    /// Whether there is only one processor to run on.
    alone: bool,
    /// Whether others who wait for the same need the processors that there are, and how often it has waited since.
    crowded: bool,
    waits: u32,
    /// Sleeps so far.
    sleeps: u32,
    /// Lets another thread run, and says whether that took so long that it is time to see whether to give up; handed
    /// in, since it is a system call.
    yield_now: fn() -> bool,
}

impl Spinner {
    /// A spinner for `strategy`. `alone` says whether both sides have just one processor.
    pub(crate) fn new(strategy: WaitStrategy, yield_now: fn() -> bool, alone: bool) -> Spinner {
        Spinner {
            strategy,
            looks: 0,
            score: SCORE_MAX / 2,
            alone,
            crowded: false,
            waits: 0,
            sleeps: 0,
            yield_now,
        }
    }

    /// A wait begins.
    #[inline]
    pub(crate) fn begin(&mut self) {
        self.looks = 0;
    }

    /// Whether another look follows soon if this one finds nothing. A look that disturbs the peer is
    /// worth its price about as rarely as a wake-up.
    #[inline]
    pub(crate) fn is_spinning(&self) -> bool {
        !self.alone && self.looks & 511 != QUICK & 511
    }

    /// Whether it pays to look for a while before a wait is begun at all.
    #[inline]
    pub(crate) fn expects_answers(&self) -> bool {
        !self.alone
            && !self.crowded
            && matches!(self.strategy, WaitStrategy::Spin | WaitStrategy::Adaptive)
    }

    /// Whether others who wait for the same need the processor, so that looking without letting them run is waste.
    #[inline]
    pub(crate) fn is_crowded(&self) -> bool {
        self.crowded
    }

    /// What was waited for is there.
    #[inline]
    pub(crate) fn succeeded(&mut self) {
        if self.looks > QUICK && self.strategy == WaitStrategy::Adaptive {
            self.score += (SCORE_MAX - self.score).div_ceil(4);
        }
    }

    /// After a pulse: what is known now of the processors.
    #[cold]
    pub(crate) fn pulsed(&mut self, alone: bool, crowded: bool) {
        (self.alone, self.crowded) = (alone, crowded);
    }

    /// Whether, after this sleep, it wants to know of the processors anew: often at first, seldom later,
    /// since asking costs a system call.
    #[cold]
    pub(crate) fn asks(&mut self) -> bool {
        self.sleeps = self.sleeps.wrapping_add(1);
        self.sleeps.is_power_of_two() || self.sleeps.is_multiple_of(64)
    }

    /// After sleeping: spin a little for the next thing, but less than before.
    #[cold]
    pub(crate) fn slept(&mut self, found: Option<(bool, bool)>) {
        (self.alone, self.crowded) = found.unwrap_or((self.alone, self.crowded));
        self.score -= self.score.div_ceil(4);
        // In a crowd one look is enough: who was woken for something finds it at once.
        self.looks = if self.crowded { LOOKS_CROWDED } else { 0 };
    }

    /// Nothing there yet: what next?
    #[inline]
    pub(crate) fn next(&mut self) -> Step {
        self.looks += 1;
        match self.strategy {
            WaitStrategy::Adaptive if self.crowded && !self.alone => self.next_crowded(),
            WaitStrategy::Adaptive if !self.alone => {
                if self.looks <= QUICK + MORE_LEAST + MORE * self.score / SCORE_MAX {
                    spin_loop();
                    return Step::Look;
                }
                Step::Sleep
            }
            WaitStrategy::Adaptive => self.next_alone(),
            WaitStrategy::Spin => self.next_spin(),
            _ => Step::Sleep,
        }
    }

    #[cold]
    fn next_alone(&mut self) -> Step {
        if self.looks <= QUICK_ALONE {
            Step::Look
        } else if self.looks <= QUICK_ALONE + YIELDS_ALONE {
            (self.yield_now)();
            Step::Look
        } else {
            Step::Sleep
        }
    }

    #[cold]
    fn next_crowded(&mut self) -> Step {
        if self.looks > LOOKS_CROWDED {
            return Step::Sleep;
        }
        if self.looks == 1 {
            self.waits += 1;
            if self.waits == WAITS_CROWDED {
                self.waits = 0;
                return Step::Pulse;
            }
        }
        if (self.yield_now)() {
            return Step::Pulse;
        }
        Step::Look
    }

    #[inline]
    fn next_spin(&mut self) -> Step {
        if self.alone && self.looks <= QUICK_ALONE {
            return Step::Look;
        }
        if !self.alone && self.looks < PULSE {
            spin_loop();
            return Step::Look;
        }
        // Alone, or nothing for some 100 µs: somebody else may need the processor to bring it.
        (self.yield_now)();
        self.looks = if self.alone { QUICK_ALONE } else { QUICK };
        Step::Pulse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    std::thread_local! {
        static YIELDS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
    }

    /// The steps of a wait in vain.
    fn wait(spinner: &mut Spinner) -> Vec<Step> {
        YIELDS.set(0);
        spinner.begin();
        let steps = std::iter::from_fn(|| Some(spinner.next()).filter(|step| *step != Step::Sleep));
        steps.take(10_000).collect()
    }

    #[test]
    fn one_in_a_crowd_lets_others_run_before_each_look_and_asks_now_and_then_whether_it_still_is() {
        let yields = || {
            YIELDS.set(YIELDS.get() + 1);
            YIELDS.get() == 40 // took long
        };
        let mut spinner = Spinner::new(WaitStrategy::Adaptive, yields, false);
        assert!(wait(&mut spinner).len() > 100 && YIELDS.get() == 0);
        spinner.slept(Some((false, true)));
        assert!(!spinner.expects_answers());
        for _ in 1..WAITS_CROWDED {
            assert_eq!(wait(&mut spinner), [Step::Look; LOOKS_CROWDED as usize]);
            assert_eq!(YIELDS.get(), LOOKS_CROWDED);
        }
        assert_eq!(wait(&mut spinner)[0], Step::Pulse);
        // And when the others ran for long.
        YIELDS.set(36);
        spinner.begin();
        let steps: Vec<_> = (0..5).map(|_| spinner.next()).collect();
        assert_eq!(steps[3..], [Step::Pulse, Step::Look]);
        // Woken in vain, it sleeps again at once.
        spinner.slept(None);
        assert_eq!(spinner.next(), Step::Sleep);
        spinner.pulsed(false, false);
        assert!(spinner.expects_answers());
        wait(&mut spinner);
        assert_eq!(YIELDS.get(), 0);
    }
}
