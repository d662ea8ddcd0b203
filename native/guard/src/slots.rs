//! A count over a window that slides in steps: 400 bytes for any number.

use std::sync::atomic::{AtomicU64, Ordering};

/// Steps of a window.
const STEPS: u64 = 50;
const COUNT_BITS: u32 = 24;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

/// Counts of the last steps, each with the number of its step. The step under way counts whole, and so does the one that the
/// window ends in: never too few are counted, and at most those of one step too many.
#[derive(Debug)]
pub(crate) struct Slots {
    step: u64,
    places: [AtomicU64; STEPS as usize + 1],
}

impl Slots {
    /// A count over so many microseconds.
    pub(crate) fn over(window: u64) -> Self {
        Self { step: (window / STEPS).max(1), places: [const { AtomicU64::new(0) }; STEPS as usize + 1] }
    }

    fn number(&self, now: u64) -> u64 {
        now / self.step + 1
    }

    fn change(&self, now: u64, by: impl Fn(u64) -> u64) {
        let number = self.number(now);
        let Some(place) = self.places.get((number % (STEPS + 1)) as usize) else { return };
        let next = |word: u64| {
            let count = if word >> COUNT_BITS == number { word & COUNT } else { 0 };
            Some(number << COUNT_BITS | by(count).min(COUNT))
        };
        // The closure never declines.
        let _ = place.fetch_update(Ordering::SeqCst, Ordering::SeqCst, next);
    }

    /// Counts one.
    pub(crate) fn add(&self, now: u64) {
        self.change(now, |count| count + 1);
    }

    /// How many there were in the window that ends at `now`.
    pub(crate) fn sum(&self, now: u64) -> u64 {
        let number = self.number(now);
        let counts = |word: u64| {
            let age = number.saturating_sub(word >> COUNT_BITS);
            if word >> COUNT_BITS != 0 && age <= STEPS { word & COUNT } else { 0 }
        };
        self.places.iter().map(|place| counts(place.load(Ordering::SeqCst))).sum()
    }

    /// Takes one back that was counted at `now`.
    pub(crate) fn take_back(&self, now: u64) {
        self.change(now, |count| count.saturating_sub(1));
    }

    /// Counts one if there are fewer than `most` then. Of several at once all may be refused where only one was too many, but
    /// there are never more.
    pub(crate) fn take(&self, now: u64, most: u64) -> bool {
        self.add(now);
        let fits = self.sum(now) <= most;
        if !fits {
            self.take_back(now);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_window_has_more_and_what_fits_with_a_step_to_spare_passes(most in 1_u64..30, gaps in prop::collection::vec(0_u64..300_000, 1..300)) {
            let slots = Slots::over(1_000_000);
            let mut taken: Vec<u64> = Vec::new();
            let mut now = 5;
            for gap in gaps {
                now += gap;
                let within = |window: u64| taken.iter().filter(|time| now - **time < window).count() as u64;
                let (surely, maybe) = (within(1_040_000) < most, within(1_000_000) < most);
                let took = slots.take(now, most);
                prop_assert!(took || !surely);
                prop_assert!(!took || maybe);
                if took {
                    taken.push(now);
                }
            }
        }
    }

    #[test]
    fn threads_at_once_never_get_more() {
        for _ in 0..200 {
            let slots = Slots::over(1_000_000);
            let taken: usize = std::thread::scope(|scope| {
                let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| (0..20).filter(|_| slots.take(1, 10)).count())).collect();
                workers.into_iter().map(|worker| worker.join().unwrap_or_default()).sum()
            });
            assert!(taken <= 10 && slots.sum(1) as usize == taken, "{taken}");
            assert_eq!((0..20).filter(|_| slots.take(2, 10)).count(), 10 - taken);
        }
    }
}
