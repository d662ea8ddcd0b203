//! Limits by key in phase *admit*: what a caller may have of calls and requests, before anybody is asked where they go.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use guard::{Algorithm, Meters, NotHeld, WatchedCall};
use proto::{Direction, Key, Moment, Now};
use smallvec::SmallVec;
use syntax::{Message, Span, Uri};

use crate::call::Call;
use crate::edge::Edge;
use crate::event::EventKind;
use crate::fraud::FraudDue;
use crate::gateway_uri::plain_user;
use crate::hop::Hop;
use crate::limit_settings::{Counts, HeldLimit, KeyField, KeyPart, Limit, LimitSlot, used};
use crate::limit_share::Waits;
use crate::matching::Refusal;
use crate::policy::VerdictError;
use crate::settings::Snapshot;
use crate::verdict::Verdict;

/// A key that was not refused anything for so long is below its limit again, in microseconds.
const QUIET: u64 = 10_000_000;
/// Keys at their limit that are watched for that, per worker.
const WATCHED: usize = 4_096;
/// Bytes of a key.
const LONGEST: usize = 256;
/// Seconds between two looks for rates that nobody uses.
const SWEEP_SECONDS: u64 = 10;

/// What one request asks of one limit.
pub(crate) struct Ask<'a> {
    pub(crate) limit: &'a Limit,
    pub(crate) key: String,
    pub(crate) most: u32,
    /// What an attribute or a policy said of that.
    pub(crate) own: Option<u32>,
}

/// Where a message says who calls whom.
#[derive(Clone, Copy)]
pub(crate) struct Parties {
    pub(crate) caller: Span,
    called: Span,
    /// It opens the call.
    opens: bool,
}

impl Parties {
    fn of_opening(message: &Message<'_>) -> Self {
        Self { caller: message.head.from.uri, called: message.head.request_uri.whole, opens: true }
    }

    /// Those of a request within a dialog, whose Request-URI is a Contact: whoever was called stands in To, as the caller wrote it.
    pub(crate) fn of_dialog(message: &Message<'_>, direction: Direction) -> Self {
        let (from, to) = (message.head.from.uri, message.head.to.uri);
        let (caller, called) = if direction == Direction::FromCaller { (from, to) } else { (to, from) };
        Self { caller, called, opens: false }
    }
}

/// Why a request does not go on.
pub(crate) enum Halt {
    Refused(Refusal),
    /// Other nodes may have a place for it: the store is asked.
    Waits(LimitSlot),
}

/// What limits that a policy names say.
pub(crate) enum Within {
    Yes,
    /// No, and that was answered.
    No,
    Waits(LimitSlot),
}

/// Limits that calls of one worker hold and hit.
pub(crate) struct LimitWatch {
    /// What the request at hand holds until its call does.
    pub(crate) held: SmallVec<[HeldLimit; 2]>,
    /// Keys that were told to be at their limit.
    over: Vec<LimitSlot>,
    /// What the request at hand is watched for until its call is.
    pub(crate) watched: Option<WatchedCall>,
    pub(crate) due: FraudDue,
    /// When figures of yesterday were last looked for, in seconds.
    pub(crate) fraud_swept: u64,
    /// Requests that wait for a place of other nodes.
    pub(crate) waits: Waits,
}

impl LimitWatch {
    pub(crate) fn new(now: Moment) -> Self {
        Self { held: SmallVec::new(), over: Vec::new(), watched: None, due: FraudDue::default(), fraud_swept: 0, waits: Waits::new(now) }
    }
}

impl Edge {
    /// Whether a request of `peer` that opens something is within every limit that counts it. What it holds of calls waits in
    /// `limits.held` for its call.
    pub(crate) fn within_limits(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, peer: u16) -> Result<(), Halt> {
        self.limits.held.clear();
        if self.snapshot.limits.all.is_empty() {
            return Ok(());
        }
        let snapshot = Arc::clone(&self.snapshot);
        self.limits.waits.begin(now, &snapshot);
        let mut asks: SmallVec<[Ask<'_>; 4]> = SmallVec::new();
        for limit in snapshot.limits.all.iter().filter(|limit| limit.fits(message.head.method, peer)) {
            let Some(key) = self.key_of(&limit.parts, arrival, message, peer, Parties::of_opening(message)) else { continue };
            let own = self.attributed(limit);
            asks.push(Ask { most: limit.most(&key, own), limit, key, own });
        }
        self.take_all(now, &snapshot, &asks)
    }

    /// Takes places in all limits, or in none; but for requests that count although they are refused.
    fn take_all(&mut self, now: Now, snapshot: &Snapshot, asks: &[Ask<'_>]) -> Result<(), Halt> {
        let mut charged = SmallVec::<[LimitSlot; 2]>::new();
        let taken = self.take_each(now, snapshot, asks, &mut charged);
        if let Err(Halt::Waits(_)) = taken {
            // Whoever waits for one limit pays for the others when it goes on, once.
            charged.iter().filter_map(|slot| slot.value().pipe.as_ref()).for_each(|pipe| pipe.take_back(now.moment.0));
        }
        taken
    }

    /// The same; `charged` gets what counts although the request may still be refused or wait, of limits that nodes share.
    fn take_each(&mut self, now: Now, snapshot: &Snapshot, asks: &[Ask<'_>], charged: &mut SmallVec<[LimitSlot; 2]>) -> Result<(), Halt> {
        let rates = |dear: bool| asks.iter().filter(move |ask| ask.limit.settings.counts == Counts::Rate && ask.limit.settings.counts_refused == dear);
        let paid = self.limits.waits.has_waited();
        for ask in rates(true).filter(|ask| !paid || ask.limit.settings.shared) {
            self.pass(now, snapshot, ask, true)?;
            charged.extend(ask.limit.state.table.get(&ask.key).filter(|_| ask.limit.settings.shared));
        }
        for ask in rates(false) {
            self.pass(now, snapshot, ask, false)?;
        }
        for ask in asks.iter().filter(|ask| ask.limit.settings.counts == Counts::Calls) {
            let held = if ask.limit.settings.shared { self.hold_shared(now, snapshot, ask) } else { self.hold(now, ask) };
            match held {
                Ok(held) => self.limits.held.extend(held),
                Err(halt) => {
                    self.limits.held.clear();
                    return Err(halt);
                }
            }
        }
        for ask in rates(false) {
            self.pass(now, snapshot, ask, true)?;
        }
        Ok(())
    }

    /// A place among the calls of a key of this node; none where there is no room to count it.
    fn hold(&mut self, now: Now, ask: &Ask<'_>) -> Result<Option<HeldLimit>, Halt> {
        match ask.limit.state.table.hold(&ask.key, ask.most, || ask.limit.value(ask.most)) {
            Ok(held) => {
                held.slot().value().note(ask.own);
                Ok(Some(held))
            }
            Err(NotHeld::Full(slot)) => Err(Halt::Refused(self.at_limit(now, ask.limit, &slot, ask.most))),
            Err(NotHeld::NoRoom) => {
                ask.limit.state.untracked.fetch_add(1, Ordering::Relaxed);
                Ok(None)
            }
        }
    }

    /// One request through a pipe; where it does not `count`, only whether it would pass.
    fn pass(&mut self, now: Now, snapshot: &Snapshot, ask: &Ask<'_>, count: bool) -> Result<(), Halt> {
        let (limit, at) = (ask.limit, now.moment.0);
        let Ok(holder) = limit.state.table.hold(&ask.key, u32::MAX, || limit.value(ask.most)) else {
            limit.state.untracked.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        };
        let slot = Arc::clone(holder.slot());
        slot.value().note(ask.own);
        let Some(pipe) = slot.value().pipe.as_ref() else { return Ok(()) };
        let passes = |most: u32| {
            if count { pipe.take(at, most, &snapshot.limits.meters, &limit.state.steering) } else { pipe.has_room(at, most, &snapshot.limits.meters) }
        };
        let found = if limit.settings.shared {
            let undo = || {
                if count {
                    pipe.take_back(at)
                }
            };
            self.within_share(now, snapshot, ask, &slot, |most| passes(most).then_some(()), undo)
        } else if passes(ask.most) {
            Ok(())
        } else {
            Err(Halt::Refused(self.at_limit(now, limit, &slot, ask.most)))
        };
        if matches!(found, Err(Halt::Refused(_))) && limit.settings.counts_refused && ask.most > 0 {
            pipe.charge(at, ask.most);
        }
        drop(holder);
        if found.is_err() {
            self.limits.held.clear();
        }
        found
    }

    /// A key has all that it may have: told once until it was quiet for a while.
    pub(crate) fn at_limit(&mut self, now: Now, limit: &Limit, slot: &LimitSlot, most: u32) -> Refusal {
        self.counters.refused_limits.add();
        limit.state.refused.fetch_add(1, Ordering::Relaxed);
        let value = slot.value();
        value.refused_at.store(now.moment.0, Ordering::Relaxed);
        // Who may have nothing at all is barred, which is no news.
        if most > 0 && self.limits.over.len() < WATCHED && !value.over.swap(true, Ordering::AcqRel) {
            self.limits.over.push(Arc::clone(slot));
            let shown = self.shown_text(slot.key().as_bytes());
            log::info!(target: "admit", "limit {} reached: {shown} has {most}", limit.settings.name);
            let (name, key) = (limit.settings.name.clone(), slot.key().to_owned());
            let counts = if limit.settings.counts == Counts::Calls { "calls" } else { "rate" };
            self.tell(now, EventKind::LimitReached, |_| vec![name.into(), key.into(), counts.into(), u64::from(most).into()]);
        }
        limit.refusal()
    }

    /// Whether the request of `entry` is within the limits that a policy names, for keys of its own.
    ///
    /// # Errors
    /// [`VerdictError::Limit`] for a limit that there is not.
    pub(crate) fn within_verdict_limits(&mut self, now: Now, entry: Key, verdict: &Verdict) -> Result<Within, VerdictError> {
        let snapshot = Arc::clone(&self.snapshot);
        self.limits.waits.begin(now, &snapshot);
        let mut asks = Vec::new();
        let held = |call: &Call, name: &str, key: &str| call.limits.iter().any(|held| &*held.slot().value().limit.name == name && held.slot().key() == key);
        let of_call = self.transactions.get(entry).and_then(|transaction| self.calls.get(transaction.call));
        for (name, key, most) in verdict.limits.iter().filter(|(name, key, _)| !of_call.is_some_and(|call| held(call, name, key))) {
            let limit = snapshot.limits.get(name).ok_or_else(|| VerdictError::Limit(name.clone()))?;
            let key = cut(Cow::Borrowed(key)).into_owned();
            asks.push(Ask { most: limit.most_by_policy(&key, *most), limit, key, own: *most });
        }
        let Some(transaction) = self.transactions.get(entry) else { return Ok(Within::No) };
        let (call, exempt) = (transaction.call, self.calls.get(transaction.call).is_some_and(|call| call.emergency));
        self.limits.held.clear();
        let refusal = if exempt { None } else { self.take_all(now, &snapshot, &asks).err() };
        let held = std::mem::take(&mut self.limits.held);
        let refusal = match refusal {
            Some(Halt::Refused(refusal)) => refusal,
            Some(Halt::Waits(slot)) => return Ok(Within::Waits(slot)),
            None => {
                if let Some(call) = self.calls.get_mut(call) {
                    call.limits.extend(held);
                }
                return Ok(Within::Yes);
            }
        };
        if let Some(transaction) = self.transactions.get_mut(entry) {
            transaction.waiting = None;
            transaction.targets.clear();
            transaction.addresses.clear();
            transaction.plan = None;
            if let Some(state) = transaction.policy.as_mut() {
                (state.report, state.running) = (false, false);
            }
        }
        self.decide_for(entry, |_| format!("admit: refused with {}", refusal.status_code));
        self.mark_refused(entry, "admit");
        self.finish_saying(now, entry, refusal.status_code, refusal.reason_phrase.as_deref(), &refusal.headers, b"");
        Ok(Within::No)
    }

    /// What an attribute of the account at hand says of a limit.
    fn attributed(&self, limit: &Limit) -> Option<u32> {
        let name = limit.settings.attribute.as_str();
        let account = self.users.proved.as_deref().filter(|_| !name.is_empty())?;
        let (_, value) = account.attributes.all().find(|(own, _)| *own == name)?;
        value.trim().parse().inspect_err(|_| self.counters.attributes_unreadable.add()).ok()
    }

    /// The key of a request; nothing where a field of it has no value.
    pub(crate) fn key_of(&self, parts: &[KeyPart], arrival: &Hop, message: &Message<'_>, peer: u16, parties: Parties) -> Option<String> {
        let mut key = String::with_capacity(48);
        for part in parts {
            match part {
                KeyPart::Text(text) => key.push_str(text),
                KeyPart::Field(field) => key.push_str(&self.field_of(field, arrival, message, peer, parties)?),
            }
        }
        Some(cut(Cow::Owned(key)).into_owned())
    }

    fn field_of<'a>(&'a self, field: &KeyField, arrival: &Hop, message: &'a Message<'_>, peer: u16, parties: Parties) -> Option<Cow<'a, str>> {
        let uri_of = |span: Span| Uri::parse(message.bytes, span).ok();
        let user = |uri: Uri| (!uri.user.is_empty()).then(|| Cow::Owned(plain_user(message.text(uri.user))));
        let host = |uri: &Uri| String::from_utf8_lossy(message.text(uri.host)).to_ascii_lowercase();
        let whole = |span: Span| {
            let uri = uri_of(span)?;
            let host = host(&uri);
            Some(Cow::Owned(user(uri).map_or_else(|| host.clone(), |user| format!("{user}@{host}"))))
        };
        let account = || self.users.proved.as_deref().filter(|_| parties.opens);
        let authenticates = || self.snapshot.settings.peers.get(usize::from(peer)).is_some_and(|peer| peer.authenticate);
        match field {
            // Within a dialog nobody proves who they are again.
            KeyField::Account if !parties.opens => authenticates().then(|| whole(parties.caller)).flatten(),
            KeyField::Account => Some(String::from_utf8_lossy(&account()?.name)),
            KeyField::Caller => whole(parties.caller),
            KeyField::CallerUser => user(uri_of(parties.caller)?),
            KeyField::Called => whole(parties.called),
            KeyField::CalledUser => user(uri_of(parties.called)?),
            KeyField::Domain => Some(Cow::Owned(host(&uri_of(parties.caller)?))),
            KeyField::Source => Some(Cow::Owned(arrival.address.ip().to_canonical().to_string())),
            KeyField::Peer => Some(Cow::Borrowed(self.peer_name(Some(peer)))),
            KeyField::Gateway => self.sender(arrival).map(|name| Cow::Owned(name.to_owned())),
            KeyField::Listener => Some(Cow::Borrowed(self.snapshot.listener(arrival.listener).label())),
            KeyField::Attribute(name) => account()?.attributes.all().find(|(own, _)| *own == &**name).map(|(_, value)| Cow::Borrowed(value)),
        }
    }

    /// Once a second: keys that are below their limit again, and rates that nobody uses.
    pub(crate) fn tidy_limits(&mut self, now: Now) {
        let at = now.moment.0;
        let mut over = std::mem::take(&mut self.limits.over);
        over.retain(|slot| {
            let value = slot.value();
            let still = at.saturating_sub(value.refused_at.load(Ordering::Relaxed)) < QUIET;
            if !still {
                value.over.store(false, Ordering::Release);
                let (name, key) = (value.limit.name.to_string(), slot.key().to_owned());
                self.tell(now, EventKind::LimitCleared, |_| vec![name.into(), key.into()]);
            }
            still
        });
        self.limits.over = over;
        if self.options.worker != 0 {
            return;
        }
        let snapshot = Arc::clone(&self.snapshot);
        for limit in snapshot.limits.all.iter().filter(|limit| limit.settings.shared && !snapshot.limits.store.holds(at)) {
            // Otherwise keys go with the next word of the store.
            let void = |slot: &LimitSlot| slot.value().share.as_ref().is_some_and(|share| share.is_void(at, used(slot, at)));
            limit.state.table.all().iter().filter(|slot| void(slot)).for_each(|slot| {
                limit.state.table.retire(slot);
            });
        }
        for limit in &snapshot.limits.all {
            if limit.algorithm == Algorithm::Feedback {
                limit.state.steering.steer(&snapshot.limits.meters, limit.most("", None));
            }
            if limit.settings.counts == Counts::Rate && !limit.settings.shared && (at / 1_000_000).is_multiple_of(SWEEP_SECONDS) {
                let idle = |slot: &LimitSlot| slot.value().pipe.as_ref().is_none_or(|pipe| pipe.is_idle(at));
                limit.state.table.all().iter().filter(|slot| idle(slot)).for_each(|slot| {
                    limit.state.table.retire(slot);
                });
            }
        }
    }

    /// Where the load of the process is to be told, if any limit goes by that.
    pub fn meters(&self) -> Option<Arc<Meters>> {
        let wanted = |limit: &Limit| matches!(limit.algorithm, Algorithm::Network | Algorithm::Feedback);
        self.snapshot.limits.all.iter().any(wanted).then(|| Arc::clone(&self.snapshot.limits.meters))
    }

    /// Ends the calls that hold `key` of a limit, or any key of it where that is empty; how many those were, and how many of them
    /// could not be told.
    pub fn end_limited(&mut self, now: Now, limit: &str, key: &str) -> (usize, usize) {
        let holds = |held: &HeldLimit| &*held.slot().value().limit.name == limit && (key.is_empty() || held.slot().key() == key);
        let keys: Vec<_> = self.calls.keys().into_iter().filter(|call| self.calls.get(*call).is_some_and(|call| call.limits.iter().any(holds))).collect();
        let untold = keys.iter().filter(|call| !self.end_one(now, **call, "Ended by the operator")).count();
        (keys.len(), untold)
    }
}

fn cut(key: Cow<'_, str>) -> Cow<'_, str> {
    if key.len() <= LONGEST {
        return key;
    }
    let end = (0..=LONGEST).rev().find(|at| key.is_char_boundary(*at)).unwrap_or(0);
    Cow::Owned(key.get(..end).unwrap_or_default().to_owned())
}
