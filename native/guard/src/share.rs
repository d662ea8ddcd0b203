//! A node's share of what a key may have on all nodes together: places that a store granted it, so that a call which finds one free
//! waits for nobody. The shares of all nodes are never more than the key may have.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// How long a key that the store had no place for is believed to have none, in microseconds.
const EMPTY: u64 = 500_000;
/// How long a request that found no place counts as demand for more...
const DEMAND: u64 = 1_000_000;
/// ...and for how long nothing is given away after it: places that are free now are about to be taken.
const KEEPING: u64 = 200_000;
/// How long nobody asks for a key until its share goes back whole.
const IDLE: u64 = 2_000_000;
/// Places that a busy key has in hand, at least, where the store has enough.
const SPARE: u32 = 4;

/// What is known of the store, all keys together. Times are microseconds of the monotonic clock.
#[derive(Debug, Default)]
pub struct ShareStore {
    holds_until: AtomicU64,
    silent_until: AtomicU64,
}

impl ShareStore {
    /// Whether what it granted still holds.
    pub fn holds(&self, now: u64) -> bool {
        now < self.holds_until.load(Ordering::Acquire)
    }

    /// Whether it is of no use to ask it.
    pub fn is_silent(&self, now: u64) -> bool {
        now < self.silent_until.load(Ordering::Acquire)
    }

    /// What it granted holds until then; it did answer.
    pub fn prolong(&self, until: u64) {
        self.holds_until.fetch_max(until, Ordering::AcqRel);
        self.silent_until.store(0, Ordering::Release);
    }

    /// It does not answer: nobody waits for it until then.
    pub fn hush(&self, until: u64) {
        self.silent_until.store(until, Ordering::Release);
    }

    /// What it granted is void.
    pub fn lapse(&self) {
        self.holds_until.store(0, Ordering::Release);
    }
}

/// What a store is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareAsk {
    /// Places that this node has and does not give back.
    pub keep: u32,
    /// As many as it has use for now.
    pub need: u32,
    /// As many as are in use, or will be at once.
    pub used: u32,
    /// And more, where they are not short.
    pub extra: u32,
    /// As many as the key may have on all nodes.
    pub most: u32,
}

/// What an answer of the store means for who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareNews {
    /// They go on: there is a place, or none is to be had.
    pub releases: bool,
    /// More are wanted by now than were asked for.
    pub asks_again: bool,
}

/// One key's share.
#[derive(Debug, Default)]
pub struct Share {
    granted: AtomicU32,
    most: AtomicU32,
    waiting: AtomicU32,
    /// The need that the store was told last.
    asked: AtomicU32,
    in_flight: AtomicBool,
    empty_until: AtomicU64,
    missed_at: AtomicU64,
    /// When the store was asked last, and when it answered last.
    told_at: AtomicU64,
    answered_at: AtomicU64,
    used_at: AtomicU64,
}

impl Share {
    /// Places that this node may use.
    pub fn granted(&self) -> u32 {
        self.granted.load(Ordering::SeqCst)
    }

    /// A request asks at `now`, of a key that may have `most` on all nodes.
    pub fn touch(&self, now: u64, most: u32) {
        self.used_at.store(now, Ordering::Relaxed);
        self.most.store(most, Ordering::Relaxed);
    }

    /// A request found no place.
    pub fn miss(&self, now: u64) {
        self.missed_at.store(now.max(1), Ordering::Relaxed);
    }

    /// Whether the store had no place either a moment ago.
    pub fn is_empty(&self, now: u64) -> bool {
        now < self.empty_until.load(Ordering::Acquire)
    }

    /// A request begins or ends to wait for a place.
    pub fn wait(&self, begins: bool) {
        if begins {
            self.waiting.fetch_add(1, Ordering::AcqRel);
        } else {
            let less = |waiting: u32| Some(waiting.saturating_sub(1));
            let _ = self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        }
    }

    /// Whether places run short before somebody has to wait for one.
    pub fn runs_short(&self, used: u32) -> bool {
        let granted = self.granted();
        granted < self.most.load(Ordering::Relaxed) && used.saturating_add(granted / 8) >= granted && !self.in_flight.load(Ordering::Relaxed)
    }

    /// Whether a request found no place in so many microseconds.
    fn missed_within(&self, now: u64, time: u64) -> bool {
        let missed = self.missed_at.load(Ordering::Relaxed);
        missed != 0 && now.saturating_sub(missed) < time
    }

    fn need(&self, now: u64, used: u32) -> (u32, u32) {
        let wanted = self.waiting.load(Ordering::Acquire).max(u32::from(self.missed_within(now, DEMAND)));
        (used.saturating_add(wanted), (used / 4).max(SPARE))
    }

    /// Whether nothing is kept of it any more.
    pub fn is_over(&self, now: u64, used: u32) -> bool {
        used == 0 && self.granted() == 0 && self.waiting.load(Ordering::Acquire) == 0 && now.saturating_sub(self.used_at.load(Ordering::Relaxed)) > IDLE
    }

    /// Whether the store should hear of it although nobody waits: too much is in hand, or nobody used it for a while.
    pub fn has_too_much(&self, now: u64, used: u32) -> bool {
        let (need, extra) = self.need(now, used);
        let idle = used == 0 && now.saturating_sub(self.used_at.load(Ordering::Relaxed)) > IDLE;
        let granted = self.granted();
        granted > 0 && (idle || granted > need.saturating_add(extra.saturating_mul(2)))
    }

    /// What to ask the store for; nothing while an answer is under way. `others_want` says that other nodes look for places of this
    /// key. What is given back is out of use before the store knows, whatever other threads do: a request that has
    /// taken a place looks at `granted` again, and `used` is read after that was lowered, so that one of both sees the other.
    pub fn ask(&self, now: u64, others_want: bool, used: impl Fn() -> u32) -> Option<ShareAsk> {
        self.in_flight.compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire).ok()?;
        let in_use = used();
        let (need, mut extra) = self.need(now, in_use);
        let idle = in_use == 0 && now.saturating_sub(self.used_at.load(Ordering::Relaxed)) > IDLE;
        if idle || others_want && !self.missed_within(now, KEEPING) {
            extra = 0;
        }
        let before = self.granted();
        // Who looks for places itself gives none away.
        let mut keep = if self.missed_within(now, KEEPING) { before } else { before.min(need.saturating_add(extra)) };
        if keep < before {
            self.granted.store(keep, Ordering::SeqCst);
            let left = used();
            if left > keep {
                keep = left.min(before);
                self.granted.store(keep, Ordering::SeqCst);
            }
        }
        self.asked.store(need, Ordering::Relaxed);
        let in_use = in_use.saturating_add(self.waiting.load(Ordering::Acquire));
        self.told_at.store(now, Ordering::Relaxed);
        Some(ShareAsk { keep, need, used: in_use, extra, most: self.most.load(Ordering::Relaxed) })
    }

    /// The store answered with `quota` places for this node, while others have `spare` ones that they do not use.
    pub fn give(&self, now: u64, quota: u32, spare: u32, used: u32) -> ShareNews {
        self.granted.store(quota, Ordering::SeqCst);
        self.answered_at.store(now.max(1), Ordering::Release);
        let covered = quota >= self.need(now, used).0;
        if covered {
            self.missed_at.store(0, Ordering::Relaxed);
        }
        let denied = quota < self.asked.load(Ordering::Relaxed);
        let empty = denied && spare == 0;
        self.empty_until.store(if empty { now + EMPTY } else { 0 }, Ordering::Release);
        self.in_flight.store(false, Ordering::Release);
        ShareNews { releases: covered || empty || quota > used, asks_again: !covered && !denied }
    }

    /// The store did not answer.
    pub fn fail(&self) {
        self.in_flight.store(false, Ordering::Release);
    }

    /// The store is to hear of everything: what is in use is ours, whoever let that in; and what was granted too, unless it is void.
    pub fn restate(&self, lapsed: bool, used: impl Fn() -> u32) {
        if lapsed {
            self.granted.store(0, Ordering::SeqCst);
        }
        self.granted.fetch_max(used(), Ordering::SeqCst);
        self.in_flight.store(false, Ordering::Release);
    }

    /// Whether it can be forgotten while the store says nothing: nobody has or wants anything of it, and what was granted is void.
    pub fn is_void(&self, now: u64, used: u32) -> bool {
        used == 0 && self.waiting.load(Ordering::Acquire) == 0 && now.saturating_sub(self.used_at.load(Ordering::Relaxed)) > IDLE
    }

    /// Whether others, who look for places since `since`, should hear of it: nothing was told since then, or some are free to go.
    pub fn concerns_others(&self, now: u64, since: u64, used: u32) -> bool {
        self.granted() > 0 && (self.told_at.load(Ordering::Relaxed) <= since || self.granted() > used && !self.missed_within(now, KEEPING))
    }

    /// Whether the store has answered since then.
    pub fn is_answered(&self, since: u64) -> bool {
        let answered = self.answered_at.load(Ordering::Acquire);
        answered != 0 && answered >= since
    }

    /// Whether somebody still looks for places of it.
    pub fn is_wanted(&self, now: u64) -> bool {
        self.waiting.load(Ordering::Acquire) > 0 || self.missed_within(now, DEMAND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_store_holds_as_long_as_it_said() {
        let store = ShareStore::default();
        assert!(!store.holds(1) && !store.is_silent(1));
        store.prolong(10);
        store.prolong(8);
        assert!(store.holds(9) && !store.holds(10));
        store.hush(20);
        assert!(store.is_silent(19) && !store.is_silent(20));
        store.prolong(30);
        assert!(!store.is_silent(19));
        store.lapse();
        assert!(!store.holds(1));
    }

    #[test]
    fn what_is_asked_for_follows_use_and_demand() {
        let share = Share::default();
        share.touch(SECOND, 20);
        share.wait(true);
        assert_eq!(share.ask(SECOND, false, || 0), Some(ShareAsk { keep: 0, need: 1, used: 1, extra: 4, most: 20 }));
        assert_eq!(share.ask(SECOND, false, || 0), None, "one question at a time");
        assert!(share.give(SECOND, 5, 0, 0).releases && share.granted() == 5);
        share.wait(false);
        assert!(!share.runs_short(4) && share.runs_short(5));
        // Others want places, and nobody does here: all but what is used goes.
        assert_eq!(share.ask(SECOND, true, || 2), Some(ShareAsk { keep: 2, need: 2, used: 2, extra: 0, most: 20 }));
        assert_eq!(share.granted(), 2, "out of use before the store knows");
        share.give(SECOND, 2, 0, 2);
        share.miss(SECOND);
        assert_eq!(
            share.ask(SECOND + 10, true, || 2),
            Some(ShareAsk { keep: 2, need: 3, used: 2, extra: 4, most: 20 }),
            "who looks for places keeps those it has"
        );
        assert!(share.give(SECOND, 2, 0, 2).releases && share.is_empty(SECOND + 1) && !share.is_empty(2 * SECOND));
        assert!(share.is_wanted(SECOND) && !share.is_wanted(3 * SECOND));
        // Others have some that they do not use: it is worth while to wait for those.
        share.wait(true);
        share.ask(SECOND, false, || 2);
        assert_eq!(share.give(SECOND, 2, 3, 2), ShareNews { releases: false, asks_again: false });
        assert!(!share.is_empty(SECOND + 1));
        // Somebody came while the store was asked: that it had no more was not said of this.
        share.ask(SECOND, false, || 2);
        share.wait(true);
        share.wait(true);
        assert_eq!(share.give(SECOND, 3, 0, 3), ShareNews { releases: false, asks_again: true });
        share.wait(false);
        share.wait(false);
        share.wait(false);
        assert!(share.has_too_much(9 * SECOND, 0), "nobody used it for a while");
        assert_eq!(share.ask(9 * SECOND, false, || 0), Some(ShareAsk { keep: 0, need: 0, used: 0, extra: 0, most: 20 }));
        share.give(9 * SECOND, 0, 0, 0);
        assert!(share.is_over(9 * SECOND, 0) && !share.has_too_much(9 * SECOND, 0));
    }

    #[test]
    fn what_is_used_while_it_is_given_back_is_kept() {
        let share = Share::default();
        share.touch(SECOND, 10);
        share.give(SECOND, 10, 0, 1);
        // Two places were taken between the first look and the second.
        let looks = AtomicU32::new(1);
        let asked = share.ask(SECOND, true, || looks.fetch_add(2, Ordering::Relaxed));
        assert_eq!((asked.map(|ask| ask.keep), share.granted()), (Some(3), 3));
        share.fail();
        share.restate(true, || 2);
        assert_eq!(share.granted(), 2);
        share.restate(false, || 5);
        assert_eq!(share.granted(), 5, "what was let in without the store counts too");
    }
}
