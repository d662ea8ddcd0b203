//! The pace of new calls: so many in any second. The last of them are remembered with their times, so that there is no burst of
//! twice as many where one second of the clock goes over into the next, as counters that start anew would allow.

use std::sync::atomic::{AtomicU64, Ordering};

const SECOND: u64 = 1_000_000;
/// Stands for a time that has never been.
const NEVER: u64 = u64::MAX;

/// How often a refusal is looked at again.
const LOOKS: usize = 8;

/// New calls in any second.
#[derive(Debug)]
pub struct Pace {
    /// When each of the last ones was, in microseconds; the oldest is where the next one goes.
    times: Box<[AtomicU64]>,
    next: AtomicU64,
}

impl Pace {
    /// One for so many calls a second, 1 at least. It holds eight bytes for each.
    pub fn new(per_second: u16) -> Self {
        Self { times: (0..per_second.max(1)).map(|_| AtomicU64::new(NEVER)).collect(), next: AtomicU64::new(0) }
    }

    /// How many calls a second it is for.
    pub fn per_second(&self) -> usize {
        self.times.len()
    }

    /// Whether one more could begin at `now`; nothing counts.
    pub fn has_room(&self, now: u64) -> bool {
        let place = (self.next.load(Ordering::Acquire) % self.times.len() as u64) as usize;
        let oldest = self.times.get(place).map_or(NEVER, |time| time.load(Ordering::Acquire));
        oldest == NEVER || now.saturating_sub(oldest) >= SECOND
    }

    /// Whether one more may begin at `now`, microseconds of the monotonic clock; it counts if so.
    pub fn take(&self, now: u64) -> bool {
        let mut next = self.next.load(Ordering::Acquire);
        loop {
            let place = (next % self.times.len() as u64) as usize;
            let Some(time) = self.times.get(place) else { return false };
            let oldest = time.load(Ordering::Acquire);
            // Workers read their clocks one after the other: what was just before counts as now.
            if oldest != NEVER && now.saturating_sub(oldest) < SECOND {
                // Another worker may have taken this place just now and be about to go to the next.
                let moved = (0..LOOKS).find_map(|_| {
                    std::hint::spin_loop();
                    Some(self.next.load(Ordering::Acquire)).filter(|there| *there != next)
                });
                match moved {
                    Some(there) => next = there,
                    None => return false,
                }
                continue;
            }
            // Whoever takes the time from what it was has the place; for others it is a younger one by now.
            match time.compare_exchange(oldest, now, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    self.next.fetch_add(1, Ordering::AcqRel);
                    return true;
                }
                Err(_) => next = self.next.load(Ordering::Acquire),
            }
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
    }

    #[test]
    fn threads_at_once_take_no_place_twice() {
        for _ in 0..200 {
            let pace = Pace::new(8);
            let taken: usize = std::thread::scope(|scope| {
                let workers: Vec<_> = (0..4).map(|_| scope.spawn(|| (0..50).filter(|_| pace.take(1)).count())).collect();
                workers.into_iter().map(|worker| worker.join().unwrap_or_default()).sum()
            });
            assert_eq!(taken, 8);
        }
    }
}
