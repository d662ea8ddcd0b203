//! Sources that are not listened to, for a time and with a reason.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::LastSeen;

/// One ban, as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// The source.
    pub source: IpAddr,
    /// Since when, in seconds of the monotonic clock.
    pub since: u32,
    /// Until when.
    pub until: u32,
    /// Why, in a word or two.
    pub reason: String,
    /// How its packets came, empty where nobody looked: over UDP the address may be forged.
    pub proto: &'static str,
}

/// The ban list. Workers ask it for each message without a lock; only whoever adds, removes or lists takes one.
#[derive(Debug)]
pub struct BanList {
    /// How many there are, so that an empty list costs one look.
    count: AtomicUsize,
    until: LastSeen,
    /// With the keyed hash of each source.
    ledger: Mutex<HashMap<IpAddr, (u64, Ban)>>,
    limit: usize,
}

/// What became of a ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BanChange {
    /// The source was not banned before.
    New,
    /// It is banned for another time now, or for another reason.
    Changed,
    /// It is banned for as long already.
    Kept,
    /// The list is full: nothing was done.
    Full,
}

/// A ban that would last no longer than this beyond the one that stands is none of its own: nodes that tell each other round their seconds,
/// and what goes on failing would be news with every failure.
fn slack(ban: &Ban) -> u32 {
    (ban.until.saturating_sub(ban.since) / 10).max(5)
}

impl BanList {
    /// A list of `limit` sources at most.
    pub fn new(limit: usize) -> Self {
        // Four places for each, so that hardly any is pushed out of a full bucket.
        Self { count: AtomicUsize::new(0), until: LastSeen::new(limit.max(1) * 4), ledger: Mutex::default(), limit }
    }

    /// A list of another size with the same bans; those that are too many for it stay until their time is over.
    pub fn resized(&self, limit: usize) -> Self {
        let ledger = self.ledger.lock().map(|ledger| ledger.clone()).unwrap_or_default();
        let list = Self::new(limit.max(ledger.len()));
        ledger.values().for_each(|(key, ban)| list.until.note(*key, ban.until));
        list.count.store(ledger.len(), Ordering::Relaxed);
        Self { ledger: Mutex::new(ledger), limit, ..list }
    }

    /// Whether nobody is banned.
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// How many there are, those whose time is over and were not yet swept among them.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Whether the source with this keyed hash is banned at `now`.
    pub fn has(&self, key: u64, now: u32) -> bool {
        self.until.get(key).is_some_and(|until| until > now)
    }

    /// Bans a source. One that is banned already is only banned for longer, unless the new ban `replaces` whatever there is.
    pub fn add(&self, key: u64, ban: Ban, replaces: bool) -> BanChange {
        let Ok(mut ledger) = self.ledger.lock() else { return BanChange::Full };
        let old = ledger.get(&ban.source).map(|(_, old)| old.until).filter(|until| *until > ban.since);
        let change = match old {
            None if ledger.len() >= self.limit => return BanChange::Full,
            None => BanChange::New,
            Some(until) if !replaces && ban.until <= until.saturating_add(slack(&ban)) => return BanChange::Kept,
            Some(_) => BanChange::Changed,
        };
        self.until.note(key, ban.until);
        ledger.insert(ban.source, (key, ban));
        self.count.store(ledger.len(), Ordering::Relaxed);
        change
    }

    /// Ends the ban of a source; what it was.
    pub fn remove(&self, key: u64, source: IpAddr) -> Option<Ban> {
        let mut ledger = self.ledger.lock().ok()?;
        self.until.forget(key);
        let ban = ledger.remove(&source).map(|(_, ban)| ban);
        self.count.store(ledger.len(), Ordering::Relaxed);
        ban
    }

    /// Takes out the bans that are over at `now`.
    pub fn sweep(&self, now: u32) -> Vec<Ban> {
        if self.is_empty() {
            return Vec::new();
        }
        let Ok(mut ledger) = self.ledger.lock() else { return Vec::new() };
        let over: Vec<Ban> = ledger.values().map(|(_, ban)| ban).filter(|ban| ban.until <= now).cloned().collect();
        over.iter().for_each(|ban| drop(ledger.remove(&ban.source)));
        self.count.store(ledger.len(), Ordering::Relaxed);
        over
    }

    /// All bans, the newest first.
    pub fn list(&self) -> Vec<Ban> {
        let mut all: Vec<Ban> = self.ledger.lock().map(|ledger| ledger.values().map(|(_, ban)| ban.clone()).collect()).unwrap_or_default();
        all.sort_by_key(|ban| (std::cmp::Reverse(ban.since), ban.source));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ban(last: u8, since: u32, until: u32) -> Ban {
        Ban { source: [192, 0, 2, last].into(), since, until, reason: "test".to_owned(), proto: "" }
    }

    #[test]
    fn another_size_keeps_every_ban() {
        let bans = BanList::new(3);
        (1..=3).for_each(|last| assert_eq!(bans.add(u64::from(last) << 32, ban(last, 10, 70), false), BanChange::New));
        let small = bans.resized(1);
        assert!((1..=3u8).all(|last| small.has(u64::from(last) << 32, 20)) && small.len() == 3 && small.list() == bans.list());
        assert_eq!(small.add(9 << 32, ban(9, 20, 90), true), BanChange::Full);
        assert_eq!(small.sweep(70).len(), 3);
        assert!(small.add(9 << 32, ban(9, 70, 90), false) == BanChange::New && small.remove(9 << 32, [192, 0, 2, 9].into()).is_some());
    }

    #[test]
    fn a_ban_holds_for_its_time() {
        let bans = BanList::new(2);
        assert!(bans.is_empty() && !bans.has(7 << 32, 10));
        assert_eq!(bans.add(7 << 32, ban(7, 10, 70), false), BanChange::New);
        assert_eq!(bans.add(7 << 32, ban(7, 12, 40), false), BanChange::Kept, "what others say makes it no shorter");
        assert_eq!(bans.add(7 << 32, ban(7, 12, 40), true), BanChange::Changed, "but an operator may");
        assert!(bans.has(7 << 32, 39) && !bans.has(7 << 32, 41));
        assert_eq!(bans.add(7 << 32, ban(7, 12, 45), false), BanChange::Kept);
        assert_eq!(bans.add(7 << 32, ban(7, 20, 80), false), BanChange::Changed);
        assert!(bans.has(7 << 32, 79) && !bans.has(7 << 32, 80) && !bans.has(8 << 32, 10));
        assert_eq!(bans.add(8 << 32, ban(8, 11, 71), false), BanChange::New);
        assert_eq!(bans.add(9 << 32, ban(9, 12, 72), false), BanChange::Full);
        assert_eq!(bans.list().iter().map(|ban| ban.since).collect::<Vec<_>>(), [20, 11]);
        assert_eq!(bans.sweep(75).len(), 1);
        assert_eq!(bans.remove(7 << 32, [192, 0, 2, 7].into()).unwrap().until, 80);
        assert!(bans.is_empty() && !bans.has(7 << 32, 21));
    }
}
