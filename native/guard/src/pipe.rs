//! Rate limits by key: what passes a pipe in any window of time, by one of several algorithms.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::pace::Pace;
use crate::slots::Slots;

/// How a pipe decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// What is beyond the limit of any window is refused; each that passed is remembered.
    TailDrop,
    /// The same in steps of a fiftieth of the window: of one size whatever the limit.
    SlidingWindow,
    /// Once more are offered than may pass, they are thinned out evenly instead of cut off until the window has gone on.
    Red,
    /// All is refused while more bytes than the limit wait in the receive buffers of the sockets.
    Network,
    /// The share that is refused is steered so that workers use the limit in percent of their processors.
    Feedback,
}

/// What is known of the load of the whole process, for the pipes that go by that.
#[derive(Debug, Default)]
pub struct Meters {
    /// Bytes that wait in the receive buffers of sockets.
    pub waiting_bytes: AtomicU64,
    /// How much of their processors workers use, in thousandths.
    pub load: AtomicU64,
}

/// How much one limit refuses by feedback.
#[derive(Debug, Default)]
pub struct Steering {
    /// In thousandths.
    refused: AtomicU64,
}

impl Steering {
    /// Steers towards `wanted` percent: what is refused follows the error, so that it comes to rest where there is none.
    /// To be called about once a second.
    pub fn steer(&self, meters: &Meters, wanted: u32) {
        let (load, refused) = (meters.load.load(Ordering::Relaxed) as i64, self.refused.load(Ordering::Relaxed) as i64);
        let error = load - i64::from(wanted) * 10;
        self.refused.store((refused + error / 2).clamp(0, 1_000) as u64, Ordering::Relaxed);
    }
}

/// One pipe.
#[derive(Debug)]
pub struct Pipe {
    algorithm: Algorithm,
    window: u64,
    pace: Option<ArcSwap<Pace>>,
    /// What passed; for [`Algorithm::Red`] what was offered.
    slots: Option<Slots>,
    /// Numbers those that are thinned out.
    number: AtomicU64,
    /// Held by whoever takes a place of a pace for more.
    turn: Mutex<()>,
    /// When one was last asked for, and when one was last refused, in microseconds of the monotonic clock; 0 for never.
    asked_at: AtomicU64,
    pub(crate) refused_at: AtomicU64,
}

impl Pipe {
    /// An empty one. Windows are in microseconds.
    pub fn new(algorithm: Algorithm, most: u32, window: u64) -> Self {
        let pace = || ArcSwap::from_pointee(Pace::over(most.clamp(1, u32::from(u16::MAX)) as u16, window));
        Self {
            algorithm,
            window,
            pace: matches!(algorithm, Algorithm::TailDrop | Algorithm::Red).then(pace),
            slots: matches!(algorithm, Algorithm::SlidingWindow | Algorithm::Red).then(|| Slots::over(window)),
            number: AtomicU64::new(0),
            turn: Mutex::default(),
            asked_at: AtomicU64::new(0),
            refused_at: AtomicU64::new(0),
        }
    }

    /// Whether nothing that passed is within its window any more.
    pub fn is_idle(&self, now: u64) -> bool {
        now.saturating_sub(self.asked_at.load(Ordering::Relaxed)) > 2 * self.window
    }

    /// How many passed in the window that ends at `now`.
    pub fn passed(&self, now: u64) -> u64 {
        match (&self.pace, &self.slots) {
            (Some(pace), _) => pace.load().taken(now) as u64,
            (None, Some(slots)) => slots.sum(now),
            (None, None) => 0,
        }
    }

    /// Of a thousand every one in `share` is in.
    fn is_in_share(&self, share: u64) -> bool {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        (number + 1) * share / 1_000 > number * share / 1_000
    }

    /// The pace for `most`, or for more: where calls of one key may be of several limits, or an operator has changed it, the largest one
    /// goes on, since a smaller one would forget what it has no place for.
    fn pace_for(&self, most: u32) -> Option<Arc<Pace>> {
        let pace = self.pace.as_ref()?;
        let known = pace.load_full();
        let wanted = most.clamp(1, u32::from(u16::MAX)) as u16;
        if known.per_second() >= usize::from(wanted) {
            return Some(known);
        }
        let next = Arc::new(known.with(wanted));
        pace.store(Arc::clone(&next));
        Some(next)
    }

    /// Whether one may pass at the pace of `most`; it counts if so.
    fn take_paced(&self, now: u64, most: u32) -> bool {
        let Some(pace) = self.pace_for(most) else { return false };
        if pace.per_second() <= most as usize {
            return pace.take(now);
        }
        // One after the other, or two would both find the last place.
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        pace.taken(now) < most as usize && pace.take(now)
    }

    /// Whether one more would pass; nothing counts.
    pub fn has_room(&self, now: u64, most: u32, meters: &Meters) -> bool {
        match self.algorithm {
            _ if most == 0 => false,
            Algorithm::TailDrop => {
                self.pace_for(most).is_some_and(|pace| if pace.per_second() <= most as usize { pace.has_room(now) } else { pace.taken(now) < most as usize })
            }
            Algorithm::SlidingWindow => self.passed(now) < u64::from(most),
            Algorithm::Network => meters.waiting_bytes.load(Ordering::Relaxed) <= u64::from(most),
            // They go by all that is offered: what is refused unseen would make the offer look as small as what passes.
            Algorithm::Red | Algorithm::Feedback => true,
        }
    }

    /// Whether one may pass at `now`, microseconds of the monotonic clock; it counts if so.
    pub fn take(&self, now: u64, most: u32, meters: &Meters, steering: &Steering) -> bool {
        self.asked_at.store(now, Ordering::Relaxed);
        let passes = match self.algorithm {
            _ if most == 0 => false,
            Algorithm::TailDrop => self.take_paced(now, most),
            Algorithm::SlidingWindow => self.slots.as_ref().is_some_and(|slots| slots.take(now, u64::from(most))),
            Algorithm::Red => {
                let offered = self.slots.as_ref().map_or(0, |slots| {
                    slots.add(now);
                    slots.sum(now)
                });
                let share = u64::from(most) * 1_000 / offered.max(u64::from(most)).max(1);
                (share >= 1_000 || self.is_in_share(share)) && self.take_paced(now, most)
            }
            Algorithm::Network => meters.waiting_bytes.load(Ordering::Relaxed) <= u64::from(most),
            Algorithm::Feedback => {
                let refused = steering.refused.load(Ordering::Relaxed).min(1_000);
                refused == 0 || self.is_in_share(1_000 - refused)
            }
        };
        if !passes {
            self.refused_at.store(now, Ordering::Relaxed);
        }
        passes
    }

    /// Takes back one that passed at `now`, where that can be told: of a sliding window.
    pub fn take_back(&self, now: u64) {
        if let Some(slots) = self.slots.as_ref().filter(|_| self.algorithm == Algorithm::SlidingWindow) {
            slots.take_back(now);
        }
    }

    /// Counts one that was refused elsewhere, where refusals cost what a call does.
    pub fn charge(&self, now: u64, most: u32) {
        if let Some(slots) = self.slots.as_ref().filter(|_| self.algorithm == Algorithm::SlidingWindow) {
            slots.add(now);
        } else if let Some(pace) = self.pace_for(most) {
            pace.push(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn passed(pipe: &Pipe, most: u32, times: impl Iterator<Item = u64>) -> Vec<u64> {
        times.filter(|now| pipe.take(*now, most, &Meters::default(), &Steering::default())).collect()
    }

    #[test]
    fn no_window_has_more_than_the_limit_whatever_its_edge() {
        for algorithm in [Algorithm::TailDrop, Algorithm::SlidingWindow, Algorithm::Red] {
            let pipe = Pipe::new(algorithm, 10, SECOND);
            // A burst at the end of one second of the clock, and one at the start of the next.
            let got = passed(&pipe, 10, (0..20).map(|n| 900_000 + n * 1_000).chain((0..20).map(|n| 1_050_000 + n * 1_000)));
            assert_eq!(got.len(), if algorithm == Algorithm::Red { got.len() } else { 10 }, "{algorithm:?}");
            assert!(got.len() <= 10 && !got.is_empty());
            assert!(pipe.passed(SECOND) <= 10 && pipe.passed(10 * SECOND) == 0);
            assert!(pipe.is_idle(10 * SECOND) && !pipe.is_idle(SECOND + 70_000));
        }
    }

    #[test]
    fn what_is_too_much_is_thinned_out_evenly_by_red() {
        let pipe = Pipe::new(Algorithm::Red, 10, SECOND);
        let got = passed(&pipe, 10, (0..200).map(|n| n * 20_000));
        let late: Vec<u64> = got.into_iter().filter(|time| *time >= 2 * SECOND).collect();
        assert!((15..=20).contains(&late.len()), "{}", late.len());
        assert!(late.windows(2).all(|pair| pair[1] - pair[0] <= 300_000), "{late:?}");
    }

    #[test]
    fn load_and_queues_refuse_and_let_in_again() {
        let (meters, network, feedback) = (Meters::default(), Pipe::new(Algorithm::Network, 1_000, SECOND), Pipe::new(Algorithm::Feedback, 50, SECOND));
        let (steering, other) = (Steering::default(), Steering::default());
        assert!(network.take(1, 1_000, &meters, &steering));
        meters.waiting_bytes.store(1_001, Ordering::Relaxed);
        assert!(!network.take(2, 1_000, &meters, &steering) && !network.has_room(2, 1_000, &meters));
        assert!((0..100).all(|now| feedback.take(now, 50, &meters, &steering)));
        // The load follows what is let in: 90 percent with everything.
        for _ in 0..50 {
            meters.load.store(900 * (1_000 - steering.refused.load(Ordering::Relaxed)) / 1_000, Ordering::Relaxed);
            steering.steer(&meters, 50);
            other.steer(&meters, 99);
        }
        let load = meters.load.load(Ordering::Relaxed);
        assert!((480..=520).contains(&load), "{load}");
        let let_in = (0..1_000).filter(|now| feedback.take(*now, 50, &meters, &steering)).count();
        assert!((530..=580).contains(&let_in), "{let_in}");
        assert!((0..100).all(|now| feedback.take(now, 99, &meters, &other)), "each limit steers by its own");
        (0..20).for_each(|_| {
            meters.load.store(100, Ordering::Relaxed);
            steering.steer(&meters, 50);
        });
        assert_eq!(steering.refused.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_key_whose_limit_varies_never_has_more_than_the_largest() {
        for algorithm in [Algorithm::TailDrop, Algorithm::SlidingWindow] {
            let pipe = Pipe::new(algorithm, 10, SECOND);
            let got: Vec<u64> = (0..60).filter(|now| pipe.take(*now, if now % 3 == 0 { 1 } else { 10 }, &Meters::default(), &Steering::default())).collect();
            assert_eq!((got.len(), pipe.passed(60)), (10, 10), "{algorithm:?}");
            assert!(!pipe.has_room(61, 1, &Meters::default()) && !pipe.has_room(61, 10, &Meters::default()) && pipe.has_room(61, 11, &Meters::default()));
        }
    }

    #[test]
    fn a_limit_changes_and_zero_bars() {
        let pipe = Pipe::new(Algorithm::TailDrop, 2, SECOND);
        assert_eq!(passed(&pipe, 2, 0..5).len(), 2);
        assert_eq!(passed(&pipe, 4, 5..10).len(), 2);
        assert_eq!(passed(&pipe, 0, 10..15).len(), 0);
        let charged = Pipe::new(Algorithm::TailDrop, 2, SECOND);
        charged.charge(1, 2);
        assert_eq!(passed(&charged, 2, 2..6).len(), 1);
    }
}
