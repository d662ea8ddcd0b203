//! Limits that several nodes share: this node uses the places that a store granted it, and asks nobody for them. Only a request that
//! finds none in hand waits, for a bounded time, while the store is asked for more.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use guard::ShareAsk;
use proto::{Key, Moment, Now, TimedSlab, milliseconds, transaction_key};
use smallvec::SmallVec;
use syntax::Message;

use crate::account_attributes::Account;
use crate::edge::Edge;
use crate::hop::Hop;
use crate::limit_settings::{HeldLimit, LimitSlot, used};
use crate::limits::{Ask, Halt};
use crate::settings::Snapshot;
use crate::verdict::Verdict;

/// A key whose share does not do.
#[derive(Debug)]
pub struct ShareQuestion(LimitSlot);

/// What the store is asked of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyAsk {
    /// The limit.
    pub limit: String,
    /// The key.
    pub key: String,
    /// And what is asked.
    pub ask: ShareAsk,
}

/// What the store said of one key.
#[derive(Clone, Debug)]
pub struct KeyShare {
    /// The limit.
    pub limit: String,
    /// The key.
    pub key: String,
    /// Places of this node.
    pub quota: u32,
    /// Places of others that they do not use.
    pub spare: u32,
}

/// Keys whose requests go on.
pub type Released = Arc<[usize]>;

/// Who waits: a request whose sender is known, or one that a policy has decided.
enum Waiter {
    Request { arrival: Hop, bytes: Box<[u8]>, transaction: u128, peer: u16, proved: Option<Box<Account>> },
    Verdict { entry: Key, verdict: Box<Verdict> },
}

struct Wait {
    waiter: Waiter,
    slot: LimitSlot,
    since: Moment,
    until: Moment,
}

/// Requests of one worker that wait for a share.
pub(crate) struct Waits {
    waits: TimedSlab<Wait>,
    by_key: HashMap<usize, SmallVec<[Key; 1]>>,
    transactions: HashSet<u128>,
    /// Until when the request at hand may wait.
    until: Moment,
    /// When it began to.
    since: Moment,
    /// The request at hand has waited before.
    resumed: bool,
}

impl Waits {
    pub(crate) fn new(now: Moment) -> Self {
        Self { waits: TimedSlab::new(0, now), by_key: HashMap::new(), transactions: HashSet::new(), until: Moment::NEVER, since: Moment::NEVER, resumed: false }
    }

    /// Whether this request waits already.
    pub(crate) fn has(&self, transaction: u128) -> bool {
        self.transactions.contains(&transaction)
    }

    pub(crate) fn poll_timeout(&self) -> Option<Moment> {
        self.waits.poll_timeout()
    }

    /// Whether the request at hand has waited: what it costs without regard to others it has paid.
    pub(crate) fn has_waited(&self) -> bool {
        self.resumed
    }

    /// A request begins to look for places.
    pub(crate) fn begin(&mut self, now: Now, snapshot: &Snapshot) {
        if !self.resumed {
            self.since = now.moment;
            self.until = now.moment + milliseconds(snapshot.settings.shared.map_or(0, |shared| shared.wait_milliseconds));
        }
    }
}

/// A key by which its requests are found.
fn place_of(slot: &LimitSlot) -> usize {
    Arc::as_ptr(slot) as usize
}

impl Edge {
    /// A place among the calls of a key of all nodes; none where there is no room to count it.
    pub(crate) fn hold_shared(&mut self, now: Now, snapshot: &Snapshot, ask: &Ask<'_>) -> Result<Option<HeldLimit>, Halt> {
        let table = &ask.limit.state.table;
        let Some(slot) = table.open(&ask.key, || ask.limit.value(ask.most)) else {
            ask.limit.state.untracked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            return if ask.limit.settings.fails_open { Ok(None) } else { Err(Halt::Refused(ask.limit.refusal())) };
        };
        let hold = |most: u32| table.hold(&ask.key, most, || ask.limit.value(ask.most)).ok();
        self.within_share(now, snapshot, ask, &slot, hold, || {}).map(Some)
    }

    /// Tries for a place with what this node may have of a key; `attempt` gets that number, and `undo` takes back what dropping its
    /// result does not.
    pub(crate) fn within_share<T>(
        &mut self,
        now: Now,
        snapshot: &Snapshot,
        ask: &Ask<'_>,
        slot: &LimitSlot,
        attempt: impl Fn(u32) -> Option<T>,
        undo: impl Fn(),
    ) -> Result<T, Halt> {
        let (at, store) = (now.moment.0, &snapshot.limits.store);
        let Some(share) = slot.value().share.as_ref().filter(|_| ask.most > 0) else {
            return attempt(ask.most).ok_or_else(|| Halt::Refused(self.at_limit(now, ask.limit, slot, ask.most)));
        };
        share.touch(at, ask.most);
        if store.holds(at) {
            if let Some(done) = attempt(share.granted().min(ask.most)) {
                let in_use = used(slot, at);
                // What was given back meanwhile is not ours any more.
                if in_use > share.granted() {
                    undo();
                } else {
                    if share.runs_short(in_use) && !share.is_empty(at) {
                        self.out.shares.push(ShareQuestion(Arc::clone(slot)));
                    }
                    return Ok(done);
                }
            }
            share.miss(at);
            if share.is_empty(at) || share.granted() >= ask.most {
                return Err(Halt::Refused(self.at_limit(now, ask.limit, slot, ask.most)));
            }
        }
        if !store.is_silent(at) && now.moment < self.limits.waits.until {
            return Err(Halt::Waits(Arc::clone(slot)));
        }
        if store.holds(at) && !store.is_silent(at) && share.is_answered(self.limits.waits.since.0) {
            // The store is there, and so are other nodes: what they do not give up is not to be had.
            return Err(Halt::Refused(self.at_limit(now, ask.limit, slot, ask.most)));
        }
        self.counters.limits_unshared.add();
        if ask.limit.settings.fails_open {
            return attempt(ask.most).ok_or_else(|| Halt::Refused(self.at_limit(now, ask.limit, slot, ask.most)));
        }
        self.counters.refused_unshared.add();
        Err(Halt::Refused(ask.limit.refusal()))
    }

    /// Lets a request of `peer` wait until the store was asked.
    pub(crate) fn wait_for_share(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, peer: u16, slot: LimitSlot) {
        let transaction = transaction_key(&self.options.process_secret, message, message.head.method);
        let proved = self.users.proved.take();
        let waiter = Waiter::Request { arrival: *arrival, bytes: message.bytes.into(), transaction, peer, proved };
        if self.wait(now, waiter, slot) {
            self.limits.waits.transactions.insert(transaction);
        }
    }

    /// Lets a verdict wait, and its request with it.
    pub(crate) fn verdict_waits(&mut self, now: Now, entry: Key, mut verdict: Verdict, slot: LimitSlot) {
        verdict.ban = None;
        let until = self.limits.waits.until;
        if let Some(waiting) = self.transactions.get_mut(entry).and_then(|transaction| transaction.waiting.as_mut()) {
            // It goes on before that, one way or the other.
            waiting.deadline = until + milliseconds(1_000);
        }
        self.wait(now, Waiter::Verdict { entry, verdict: Box::new(verdict) }, slot);
    }

    fn wait(&mut self, now: Now, waiter: Waiter, slot: LimitSlot) -> bool {
        let waits = &mut self.limits.waits;
        waits.waits.set_limit(self.snapshot.settings.shared.map_or(0, |shared| shared.waiting));
        let (until, place) = (waits.until, place_of(&slot));
        if waits.waits.len() >= waits.waits.limit() {
            // Decided as if the store were gone.
            self.counters.limits_waiting_full.add();
            let since = waits.since;
            self.resume(now, Wait { waiter, slot, since, until: now.moment });
            return false;
        }
        let Some(key) = waits.waits.insert(Wait { waiter, slot: Arc::clone(&slot), since: waits.since, until }) else { return false };
        waits.waits.arm(key, until);
        waits.by_key.entry(place).or_default().push(key);
        self.counters.limits_waited.add();
        if let Some(share) = slot.value().share.as_ref() {
            share.wait(true);
        }
        self.out.shares.push(ShareQuestion(slot));
        true
    }

    fn resume(&mut self, now: Now, wait: Wait) {
        let waits = &mut self.limits.waits;
        (waits.resumed, waits.since, waits.until) = (true, wait.since, wait.until);
        match wait.waiter {
            Waiter::Request { arrival, bytes, transaction, peer, proved } => {
                self.limits.waits.transactions.remove(&transaction);
                self.in_hand = Key::NONE;
                self.with_stored(&bytes, |edge, message| {
                    edge.users.proved = proved;
                    match edge.validate(message) {
                        Ok(route) => edge.open_within(now, &arrival, message, transaction, &route, peer),
                        Err(refusal) => edge.refuse(now, &arrival, message, Some(peer), &refusal),
                    }
                });
            }
            Waiter::Verdict { entry, verdict } => self.take_up_verdict(now, entry, *verdict),
        }
        self.limits.waits.resumed = false;
    }

    /// The store answered, or does not, for these keys: whoever waits for them is decided.
    pub fn handle_shares(&mut self, now: Now, released: &Released) {
        for place in released.iter() {
            for key in self.limits.waits.by_key.remove(place).unwrap_or_default() {
                if let Some(wait) = self.limits.waits.waits.remove(key) {
                    if let Some(share) = wait.slot.value().share.as_ref() {
                        share.wait(false);
                    }
                    self.resume(now, wait);
                }
            }
        }
    }

    /// Decides what waited too long.
    pub(crate) fn waits_due(&mut self, now: Now) {
        while let Some(key) = self.limits.waits.waits.expire(now.moment) {
            let waits = &mut self.limits.waits;
            let Some(wait) = waits.waits.remove(key) else { continue };
            let place = place_of(&wait.slot);
            if let Some(keys) = waits.by_key.get_mut(&place) {
                keys.retain(|other| *other != key);
                if keys.is_empty() {
                    waits.by_key.remove(&place);
                }
            }
            self.counters.limits_waited_too_long.add();
            if let Some(share) = wait.slot.value().share.as_ref() {
                share.wait(false);
            }
            self.resume(now, wait);
        }
    }
}

/// What is asked of a slot, if nothing is under way.
fn ask_of(slot: &LimitSlot, now: u64, others_want: bool) -> Option<KeyAsk> {
    let ask = slot.value().share.as_ref()?.ask(now, others_want, || used(slot, now))?;
    Some(KeyAsk { limit: slot.value().limit.name.to_string(), key: slot.key().to_owned(), ask })
}

/// What to ask the store for these.
pub fn share_asks(now: u64, questions: Vec<ShareQuestion>) -> Vec<KeyAsk> {
    questions.into_iter().filter_map(|question| ask_of(&question.0, now, false)).collect()
}

impl Snapshot {
    fn share_slots(&self) -> impl Iterator<Item = (&crate::limit_settings::Limit, LimitSlot)> {
        self.limits.all.iter().filter(|limit| limit.settings.shared).flat_map(|limit| limit.state.table.all().into_iter().map(move |slot| (limit, slot)))
    }

    fn share_slot(&self, limit: &str, key: &str) -> Option<LimitSlot> {
        self.limits.get(limit).filter(|limit| limit.settings.shared)?.state.table.get(key)
    }

    /// The store of shared limits answered: what it granted holds until `until`, microseconds of the monotonic clock. It grants
    /// nothing more until `settled`.
    pub fn prolong_shares(&self, until: u64, settled: u64) {
        self.limits.store.prolong(until);
        self.limits.store.hush(settled);
    }

    /// It does not answer: nobody waits for it until then.
    pub fn hush_shares(&self, until: u64) {
        self.limits.store.hush(until);
    }

    /// What another store granted, or by another lease, is void.
    pub fn lapse_shares(&self) {
        self.limits.store.lapse();
    }

    /// Those of the keys that no limit knows.
    pub fn shares_unknown(&self, keys: Vec<(String, String)>) -> Vec<(String, String)> {
        keys.into_iter().filter(|(limit, key)| self.share_slot(limit, key).is_none()).collect()
    }

    /// Whether what the store granted holds at `now`.
    pub fn shares_hold(&self, now: u64) -> bool {
        self.limits.store.holds(now)
    }

    /// To be called about once a second: keys that the store should hear of though nobody asked. Those that nobody uses are forgotten.
    pub fn share_walk(&self, now: u64) -> Vec<KeyAsk> {
        let mut found = Vec::new();
        for (limit, slot) in self.share_slots() {
            let (Some(share), in_use) = (slot.value().share.as_ref(), used(&slot, now)) else { continue };
            if share.is_over(now, in_use) {
                limit.state.table.retire(&slot);
            } else if share.has_too_much(now, in_use) {
                found.extend(ask_of(&slot, now, false));
            }
        }
        found
    }

    /// What to ask for those of the keys named that somebody here still looks for places of.
    pub fn share_ask(&self, now: u64, keys: &[(String, String)]) -> Vec<KeyAsk> {
        let wanted = |slot: &LimitSlot| slot.value().share.as_ref().is_some_and(|share| share.is_wanted(now));
        keys.iter().filter_map(|(limit, key)| self.share_slot(limit, key)).filter(wanted).filter_map(|slot| ask_of(&slot, now, false)).collect()
    }

    /// What to tell of keys that others look for places of, each for so many microseconds.
    pub fn share_report(&self, now: u64, keys: &[(String, String, u64)]) -> Vec<KeyAsk> {
        let told = |(limit, key, age): &(String, String, u64)| {
            let slot = self.share_slot(limit, key)?;
            let concerns = slot.value().share.as_ref()?.concerns_others(now, now.saturating_sub(*age), used(&slot, now));
            if concerns { ask_of(&slot, now, true) } else { None }
        };
        keys.iter().filter_map(told).collect()
    }

    /// Everything that this node has, to be told to a store that knows nothing of it; what it does not use is void where that was
    /// granted too long ago.
    pub fn share_all(&self, now: u64, lapsed: bool) -> Vec<KeyAsk> {
        let mut found = Vec::new();
        for (_, slot) in self.share_slots() {
            let Some(share) = slot.value().share.as_ref() else { continue };
            share.restate(lapsed, || used(&slot, now));
            // All of them: of what was under way when the store fell silent nobody knows whether it was done.
            found.extend(ask_of(&slot, now, false));
        }
        found
    }

    /// Takes what the store said: keys whose requests go on, what is to be asked again, and keys that are known no more, whose places
    /// are to go back.
    pub fn give_shares(&self, now: u64, shares: Vec<KeyShare>) -> (Vec<usize>, Vec<KeyAsk>, Vec<(String, String)>) {
        let (mut released, mut again, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        for told in shares {
            let slot = self.share_slot(&told.limit, &told.key);
            match slot.as_ref().and_then(|slot| slot.value().share.as_ref().map(|share| (slot, share))) {
                Some((slot, share)) => {
                    let news = share.give(now, told.quota, told.spare, used(slot, now));
                    released.extend(news.releases.then(|| place_of(slot)));
                    if news.asks_again {
                        again.extend(ask_of(slot, now, false));
                    }
                }
                None if told.quota > 0 => unknown.push((told.limit, told.key)),
                None => {}
            }
        }
        (released, again, unknown)
    }

    /// The store did not answer for these: their requests go on by what is configured for that.
    pub fn fail_shares(&self, keys: &[(String, String)]) -> Vec<usize> {
        let fail = |slot: LimitSlot| {
            slot.value().share.as_ref().map(guard::Share::fail)?;
            Some(place_of(&slot))
        };
        keys.iter().filter_map(|(limit, key)| self.share_slot(limit, key)).filter_map(fail).collect()
    }
}
