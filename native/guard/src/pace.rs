//! The pace of new calls: so many in any second, or in any other window. The last of them are remembered with their times, so that
//! there is no burst of twice as many where one second of the clock goes over into the next, as counters that start anew would allow.

use std::sync::atomic::{AtomicU64, Ordering};

use zerocopy::FromZeros;

const SECOND: u64 = 1_000_000;
/// Bits of a place that hold its time: microseconds for nine years.
const TIME_BITS: u32 = 48;
const TIME: u64 = (1 << TIME_BITS) - 1;

/// New calls in any window.
#[derive(Debug)]
pub struct Pace {
    /// Microseconds.
    window: u64,
    /// When each of the last ones was, in microseconds, and in which round over all places; 0 for one that was never taken.
    /// The oldest is where the next one goes.
    places: Box<[AtomicU64]>,
    next: AtomicU64,
}

/// What a place says.
enum Place {
    /// Whoever took it in this round has not gone on to the next yet.
    Taken,
    /// It is what it was a round ago, or never taken.
    Before(u64),
}

impl Pace {
    /// One for so many calls a second, 1 at least. It holds eight bytes for each, once there were as many.
    pub fn new(per_second: u16) -> Self {
        Self::over(per_second, SECOND)
    }

    /// One for so many calls, 1 at least, in any `window` of so many microseconds.
    pub fn over(most: u16, window: u64) -> Self {
        let count = usize::from(most.max(1));
        // Zeroed by the system: of a pace that is never reached only the pages that were used take memory. There may be one for each
        // of many keys.
        let places = <[AtomicU64]>::new_box_zeroed_with_elems(count);
        let places = places.unwrap_or_else(|_| (0..count).map(|_| AtomicU64::new(0)).collect());
        Self { window, places, next: AtomicU64::new(0) }
    }

    /// How many there were in the window that ends now.
    pub fn taken(&self, now: u64) -> usize {
        self.places.iter().filter(|place| !self.is_over(place.load(Ordering::Acquire), now)).count()
    }

    /// One for another pace that goes on from this one: what was taken a moment ago still counts.
    pub fn with(&self, per_second: u16) -> Self {
        let other = Self::over(per_second, self.window);
        let mut times: Vec<u64> = self.places.iter().map(|place| place.load(Ordering::Acquire)).filter(|word| *word != 0).map(|word| word & TIME).collect();
        times.sort_unstable();
        let newest = times.len().saturating_sub(other.places.len());
        times.drain(..newest);
        for (number, time) in times.iter().enumerate() {
            if let Some(place) = other.places.get(number) {
                place.store(other.word(number as u64, *time), Ordering::Release);
            }
        }
        other.next.store(times.len() as u64, Ordering::Release);
        other
    }

    /// How many calls a second, or a window, it is for.
    pub fn per_second(&self) -> usize {
        self.places.len()
    }

    /// The round of the call of this number, from 1.
    fn round(&self, number: u64) -> u64 {
        (1 + number / self.places.len() as u64) & (u64::MAX >> TIME_BITS)
    }

    fn word(&self, number: u64, now: u64) -> u64 {
        self.round(number) << TIME_BITS | now & TIME
    }

    fn place(&self, number: u64) -> Option<(&AtomicU64, Place)> {
        let place = self.places.get((number % self.places.len() as u64) as usize)?;
        let word = place.load(Ordering::Acquire);
        let taken = word != 0 && word >> TIME_BITS == self.round(number);
        Some((place, if taken { Place::Taken } else { Place::Before(word) }))
    }

    /// Workers read their clocks one after the other: what was just before counts as now.
    fn is_over(&self, word: u64, now: u64) -> bool {
        word == 0 || (now & TIME).saturating_sub(word & TIME) >= self.window
    }

    /// Whether one more could begin at `now`; nothing counts.
    pub fn has_room(&self, now: u64) -> bool {
        let next = self.next.load(Ordering::Acquire);
        match self.place(next) {
            Some((_, Place::Before(word))) => self.is_over(word, now),
            // The one behind is next in truth.
            Some((_, Place::Taken)) => self.place(next + 1).is_some_and(|(_, place)| matches!(place, Place::Before(word) if self.is_over(word, now))),
            None => false,
        }
    }

    /// Whether one more may begin at `now`, microseconds of the monotonic clock; it counts if so.
    pub fn take(&self, now: u64) -> bool {
        loop {
            let next = self.next.load(Ordering::Acquire);
            // Where it fails somebody else has gone on.
            let go_on = || self.next.compare_exchange(next, next + 1, Ordering::AcqRel, Ordering::Acquire).is_ok();
            let Some((place, there)) = self.place(next) else { return false };
            let word = match there {
                // Its owner may have been interrupted: nobody waits for that.
                Place::Taken => {
                    go_on();
                    continue;
                }
                Place::Before(word) => word,
            };
            if !self.is_over(word, now) {
                if self.next.load(Ordering::Acquire) == next {
                    return false;
                }
                continue;
            }
            // Whoever changes the place from what it was has it.
            if place.compare_exchange(word, self.word(next, now), Ordering::AcqRel, Ordering::Acquire).is_ok() {
                go_on();
                return true;
            }
        }
    }
}

impl Pace {
    /// Counts one whether there is room or not: the oldest is forgotten, which was to be over first.
    pub fn push(&self, now: u64) {
        let number = self.next.fetch_add(1, Ordering::AcqRel);
        if let Some(place) = self.places.get((number % self.places.len() as u64) as usize) {
            place.store(self.word(number, now), Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_second_ever_has_more_and_none_is_refused_that_fits(per_second in 1_u16..20, gaps in prop::collection::vec(0_u64..400_000, 1..300)) {
            let pace = Pace::new(per_second);
            let mut taken: Vec<u64> = Vec::new();
            let mut now = 5;
            for gap in gaps {
                now += gap;
                let within = taken.iter().filter(|time| now - **time < SECOND).count();
                let fits = within < usize::from(per_second);
                prop_assert_eq!((pace.has_room(now), pace.take(now)), (fits, fits));
                if fits {
                    taken.push(now);
                }
            }
        }

        #[test]
        fn another_pace_knows_what_was_taken(first in 1_u16..12, second in 1_u16..12, gaps in prop::collection::vec(0_u64..300_000, 1..40)) {
            let (pace, mut now, mut taken) = (Pace::new(first), 5, Vec::new());
            for gap in gaps {
                now += gap;
                if pace.take(now) {
                    taken.push(now);
                }
            }
            let other = pace.with(second);
            let within = taken.iter().filter(|time| now - **time < SECOND).count();
            let left = (0..30).filter(|_| other.take(now)).count();
            prop_assert_eq!(left, usize::from(second).saturating_sub(within));
        }
    }

    #[test]
    fn threads_at_once_take_every_place_once() {
        for _ in 0..500 {
            let pace = Pace::new(8);
            // Two each: nobody may be told that there is none while there is.
            let taken: usize = std::thread::scope(|scope| {
                let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| (0..2).filter(|_| pace.take(1)).count())).collect();
                workers.into_iter().map(|worker| worker.join().unwrap_or_default()).sum()
            });
            assert_eq!((taken, pace.take(1)), (8, false));
        }
    }
}
