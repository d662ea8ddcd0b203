//! Fraud in phase *admit*: what an account does is watched against its profile, and acted upon as the file says.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use guard::{Alarm, Figure, Fraud, FraudRow, FraudRule, FraudRules, FraudStats, FraudTerms, FraudTold, Level, WatchedCall};
use papaya::HashMap as SharedMap;
use proto::{Key, Moment, Now, Secret, keyed_hash, seconds};
use serde::Deserialize;
use syntax::{Message, Method, Uri};

use crate::edge::Edge;
use crate::event::EventKind;
use crate::gateway_uri::plain_user;
use crate::matching::Refusal;
use crate::settings::Snapshot;

/// Seconds between two looks for figures of other days, and for bars that are over.
const SWEEP_SECONDS: u64 = 60;
/// Durations that may wait for calls that have ended, besides two for each that lives.
const MOST_DUE: usize = 1_024;

/// What is done about a threshold that was crossed, besides telling it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FraudActions {
    /// Calls are refused as long as a figure is beyond it.
    pub refuse: bool,
    /// A call that lasts too long is ended.
    pub end: bool,
    /// The account may not call for a while.
    pub bar: bool,
}

/// One rule of a profile.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FraudRuleSettings {
    /// Its number.
    pub id: u32,
    /// The profile that it belongs to.
    pub profile: u32,
    /// What numbers begin with.
    pub prefix: String,
    /// First and last minute of the day.
    pub minutes: (u16, u16),
    /// Bit 0 is Monday.
    pub days: u8,
    /// Warning and critical: calls per minute, total, concurrent, sequential calls, seconds of a call.
    pub thresholds: [[u32; 2]; 5],
}

/// How calls are watched.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FraudSettings {
    /// All rules.
    pub rules: Vec<FraudRuleSettings>,
    /// From which second since 1970 on the zone differs from UTC by how many seconds.
    pub offsets: Vec<(i64, i32)>,
    /// The attribute of an account that names its profile, empty for none.
    pub attribute: String,
    /// The profile of whoever has none, 0 for none.
    pub profile: u32,
    /// Users and prefixes at once.
    pub keys: usize,
    /// Whether each call beyond a threshold is told.
    pub each_call: bool,
    /// Whether refused calls count.
    pub counts_refused: bool,
    /// Calls within a second that are a warning, and critical.
    pub calls_per_second: [u32; 2],
    /// What is done about warnings.
    pub warning: FraudActions,
    /// What is done about critical ones.
    pub critical: FraudActions,
    /// How long an account is barred.
    pub bar_seconds: u32,
    /// The answer to what is refused.
    pub status_code: u16,
    /// And its text, empty for the customary one.
    pub reason_phrase: String,
    /// Whether it is only told.
    pub shadow: bool,
}

impl FraudSettings {
    fn actions(&self, level: Level) -> FraudActions {
        match level {
            _ if self.shadow => FraudActions::default(),
            Level::Warning => self.warning,
            Level::Critical => self.critical,
        }
    }

    /// Those that bar. Once a bar is over by its time, whoever goes on as before is told and barred again; where an operator ended it,
    /// only once the figure has fallen below.
    fn barring_levels(&self) -> Vec<Level> {
        [Level::Warning, Level::Critical].into_iter().filter(|level| self.actions(*level).bar).collect()
    }

    /// Reads the fraud part of a document.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        rmp_serde::from_slice(bytes).map_err(|error| error.to_string())
    }

    /// The rules, looked up once.
    pub fn rules(&self) -> FraudRules {
        let rule = |own: &FraudRuleSettings| {
            let mut thresholds = [[0; 2]; Figure::ALL.len()];
            thresholds.iter_mut().zip(own.thresholds).for_each(|(place, pair)| *place = pair);
            let prefix = own.prefix.strip_prefix('+').unwrap_or(&own.prefix).into();
            FraudRule { id: own.id, profile: own.profile, prefix, minutes: own.minutes, days: own.days, thresholds }
        };
        FraudRules::new(self.rules.iter().map(rule).collect(), self.offsets.clone())
    }

    /// How they are counted.
    pub const fn terms(&self) -> FraudTerms {
        FraudTerms { each_call: self.each_call, calls_per_second: self.calls_per_second }
    }
}

/// What is counted over all workers and reloads.
#[derive(Debug)]
pub(crate) struct FraudCounts {
    pub(crate) fraud: Fraud,
    /// Accounts that may not call, until which second since 1970.
    pub(crate) barred: SharedMap<Box<str>, u64>,
    /// Accounts that other nodes have barred, as they said last.
    barred_elsewhere: RwLock<HashSet<Box<str>>>,
}

impl FraudCounts {
    fn is_barred(&self, user: &str) -> bool {
        self.barred.pin().contains_key(user) || self.barred_elsewhere.read().unwrap_or_else(PoisonError::into_inner).contains(user)
    }
}

/// Fraud as a snapshot has it.
pub(crate) struct FraudWatch {
    pub(crate) rules: FraudRules,
    terms: FraudTerms,
    pub(crate) counts: Arc<FraudCounts>,
}

impl FraudWatch {
    /// Goes on with what was counted before, if anything was, also before a time in which nobody was watched.
    pub(crate) fn after(known: Option<Arc<FraudCounts>>, settings: Option<&FraudSettings>) -> Option<Self> {
        let settings = settings?;
        let fresh = || Arc::new(FraudCounts { fraud: Fraud::new(settings.keys), barred: SharedMap::new(), barred_elsewhere: RwLock::default() });
        known.iter().for_each(|counts| counts.fraud.set_most(settings.keys));
        Some(Self { rules: settings.rules(), terms: settings.terms(), counts: known.unwrap_or_else(fresh) })
    }
}

/// When, slot and generation of the call, which threshold, and what that is.
type DueCall = (Moment, u32, u32, Level, u32);

/// Calls of one worker that are watched for their duration: when, which, and what is crossed then.
#[derive(Default)]
pub(crate) struct FraudDue(BinaryHeap<Reverse<DueCall>>);

/// Under what name a call is watched: the account that it proved to be of, or else who it says that calls, and the number that was
/// dialled. Nothing where one of them cannot be read.
pub fn watched_parties(account: Option<&str>, from_uri: &[u8], request_uri: &[u8]) -> Option<(String, String)> {
    let whole = |bytes: &[u8]| Uri::parse(bytes, syntax::Span::new(0, bytes.len())).ok();
    let called = whole(request_uri)?;
    let number = plain_user(called.user.of(request_uri));
    let user = match account {
        Some(account) => account.to_owned(),
        None => {
            let from = whole(from_uri)?;
            format!("{}@{}", plain_user(from.user.of(from_uri)), String::from_utf8_lossy(from.host.of(from_uri)).to_ascii_lowercase())
        }
    };
    // What parts keys is in no name.
    Some((user.replace(char::is_control, ""), number))
}

/// What a refused request is answered with, and what its call would have been.
pub(crate) struct CalledNumber {
    pub(crate) user: String,
    pub(crate) number: String,
    profile: u32,
}

impl Edge {
    /// The profile of the account or peer that calls, who that is, and whom it calls.
    fn watched_by(&self, settings: &FraudSettings, message: &Message<'_>, peer: u16) -> Option<CalledNumber> {
        let account = self.users.proved.as_deref();
        let named = account.and_then(|account| account.attributes.all().find(|(name, _)| *name == settings.attribute)).map(|(_, value)| value);
        let own = named.and_then(|value| value.trim().parse().inspect_err(|_| self.counters.attributes_unreadable.add()).ok());
        let of_peer = Some(self.snapshot.settings.peers[usize::from(peer)].fraud_profile).filter(|profile| *profile > 0);
        let profile = own.or(of_peer).unwrap_or(settings.profile);
        if profile == 0 {
            return None;
        }
        let name = account.map(|account| String::from_utf8_lossy(&account.name));
        let (user, number) = watched_parties(name.as_deref(), message.text(message.head.from.uri), message.text(message.head.request_uri.whole))?;
        Some(CalledNumber { user, number, profile })
    }

    /// Whether a call of `peer` may go on. What is watched of it waits in `limits.watched` for its call.
    pub(crate) fn within_fraud(&mut self, now: Now, message: &Message<'_>, peer: u16) -> Result<(), Refusal> {
        let snapshot = Arc::clone(&self.snapshot);
        let (Some(settings), Some(watch)) = (&snapshot.settings.fraud, &snapshot.fraud) else { return Ok(()) };
        if message.head.method != Method::Invite || self.is_emergency(message) {
            return Ok(());
        }
        let Some(call) = self.watched_by(settings, message, peer) else { return Ok(()) };
        let wall = now.wall / 1_000_000;
        if !settings.shadow && watch.counts.is_barred(&call.user) {
            self.counters.fraud_barred_calls.add();
            return Err(self.fraud_refusal(settings));
        }
        let (rules, hashed) = (&watch.rules, number_hash(&call.number));
        let found = watch.counts.fraud.begin(rules, watch.terms, now.moment.0, wall as i64, &call.user, call.profile, &call.number, hashed);
        let Some(finding) = found else { return Ok(()) };
        if finding.call.is_none() {
            self.counters.fraud_untracked.add();
        }
        let rule = finding.call.as_ref().map_or(0, |watched| watched.rule.id);
        for alarm in &finding.alarms {
            self.tell_fraud(now, &call, rule, alarm);
            // Whom an operator let call again, calls until he crosses a threshold anew, however often it is told.
            if alarm.news {
                self.act(now, settings, &call.user, alarm);
            }
        }
        let beyond = |level: Level| finding.level.is_some_and(|worst| worst >= level) && settings.actions(level).refuse;
        let barred = !settings.shadow && watch.counts.is_barred(&call.user);
        if barred || [Level::Warning, Level::Critical].into_iter().any(beyond) {
            if let Some(watched) = finding.call.filter(|_| !settings.counts_refused) {
                watched.take_back();
            }
            self.counters.fraud_refused.add();
            return Err(self.fraud_refusal(settings));
        }
        self.limits.watched = finding.call;
        Ok(())
    }

    fn fraud_refusal(&self, settings: &FraudSettings) -> Refusal {
        let reason_phrase = (!settings.reason_phrase.is_empty()).then(|| settings.reason_phrase.clone());
        Refusal { reason_phrase, ..Refusal::new(settings.status_code, "admit") }
    }

    fn tell_fraud(&mut self, now: Now, call: &CalledNumber, rule: u32, alarm: &Alarm) {
        let (kind, counter) = match alarm.level {
            Level::Warning => (EventKind::FraudWarning, &self.counters.fraud_warnings),
            Level::Critical => (EventKind::FraudCritical, &self.counters.fraud_criticals),
        };
        counter.add();
        if self.may_log(now) {
            let (user, number) = (self.shown_text(call.user.as_bytes()), self.shown_text(call.number.as_bytes()));
            log::warn!(target: "fraud", "{} of {user}: {} reached {} with {}, called {number}, rule {rule}", if alarm.level == Level::Critical { "critical" } else { "warning" }, alarm.figure.name(), alarm.threshold, alarm.value);
        }
        let (user, number) = (call.user.clone(), call.number.clone());
        let (profile, alarm) = (call.profile, *alarm);
        self.tell(now, kind, |_| {
            let figures = [alarm.value, alarm.threshold].map(|number| u64::from(number).into());
            let ids = [rule, profile].map(|number| u64::from(number).into());
            [alarm.figure.name().into()].into_iter().chain(figures).chain([user.into(), number.into()]).chain(ids).collect()
        });
    }

    /// Bars an account where its profile says so.
    fn act(&mut self, now: Now, settings: &FraudSettings, user: &str, alarm: &Alarm) {
        if settings.actions(alarm.level).bar {
            self.bar(now, user, settings.bar_seconds, alarm.figure.name());
        }
    }

    fn bar(&mut self, now: Now, user: &str, seconds: u32, reason: &'static str) {
        let Some(watch) = &self.snapshot.fraud else { return };
        let until = now.wall / 1_000_000 + u64::from(seconds);
        // Whoever need not prove who he is can make users up: no more are barred than are watched.
        let most = self.snapshot.settings.fraud.as_ref().map_or(0, |settings| settings.keys);
        if watch.counts.barred.pin().len() >= most {
            return self.counters.fraud_untracked.add();
        }
        let before = watch.counts.barred.pin().insert(user.into(), until).copied();
        if before.is_none_or(|before| before <= now.wall / 1_000_000) {
            self.counters.fraud_bars.add();
            log::warn!(target: "fraud", "barred {} for {seconds} s: {reason}", self.shown_text(user.as_bytes()));
            let user = user.to_owned();
            self.tell(now, EventKind::FraudBarred, |_| vec![user.into(), u64::from(seconds).into(), reason.into()]);
        }
    }

    /// A call that is watched was answered: when its duration is to be looked at.
    pub(crate) fn watch_duration(&mut self, now: Now, key: Key) {
        let Some(watched) = self.calls.get(key).and_then(|call| call.watched.as_deref()) else { return };
        let durations: Vec<_> = watched.durations().collect();
        // Calls mostly end before: what waits for those that have is taken out once it is much.
        if self.limits.due.0.len() > 2 * self.calls.len() + MOST_DUE {
            let calls = &self.calls;
            self.limits.due.0.retain(|Reverse((_, slot, generation, ..))| calls.get(Key { slot: *slot, generation: *generation }).is_some());
        }
        for (level, after) in durations {
            self.limits.due.0.push(Reverse((now.moment + seconds(u64::from(after)), key.slot, key.generation, level, after)));
        }
    }

    /// Once a second: calls that last too long, figures of yesterday, bars that are over.
    pub(crate) fn tidy_fraud(&mut self, now: Now) {
        while let Some(Reverse((at, slot, generation, level, threshold))) = self.limits.due.0.peek().copied() {
            if at > now.moment {
                break;
            }
            self.limits.due.0.pop();
            self.duration_reached(now, Key { slot, generation }, level, threshold);
        }
        if self.options.worker != 0 {
            return;
        }
        let snapshot = Arc::clone(&self.snapshot);
        let (Some(settings), Some(watch)) = (&snapshot.settings.fraud, &snapshot.fraud) else { return };
        let wall = now.wall / 1_000_000;
        let second = now.moment.0 / 1_000_000;
        if second >= self.limits.fraud_swept + SWEEP_SECONDS {
            self.limits.fraud_swept = second;
            watch.counts.fraud.sweep(&watch.rules, now.moment.0, wall as i64);
        }
        let over: HashSet<Box<str>> = watch.counts.barred.pin().iter().filter(|(_, until)| **until <= wall).map(|(user, _)| user.clone()).collect();
        watch.counts.fraud.tell_again(&over, &settings.barring_levels());
        for user in over {
            watch.counts.barred.pin().remove(&user);
            let user = user.into_string();
            self.tell(now, EventKind::FraudUnbarred, |_| vec![user.into(), "its time is over".into()]);
        }
    }

    fn duration_reached(&mut self, now: Now, key: Key, level: Level, threshold: u32) {
        let snapshot = Arc::clone(&self.snapshot);
        let Some(settings) = &snapshot.settings.fraud else { return };
        let Some(call) = self.calls.get(key) else { return };
        let (Some(watched), Some(answered)) = (call.watched.as_deref(), call.answered) else { return };
        let value = (now.moment.since(answered.moment) / 1_000_000) as u32;
        let uri = call.texts.request_uri();
        let user = Uri::parse(uri, syntax::Span::new(0, uri.len())).map(|uri| uri.user).unwrap_or_default();
        let number = plain_user(user.of(uri));
        let called = CalledNumber { user: watched.user().to_owned(), number, profile: watched.rule.profile };
        let rule = watched.rule.id;
        let alarm = Alarm { figure: Figure::CallDuration, level, value, threshold, news: true };
        self.tell_fraud(now, &called, rule, &alarm);
        self.act(now, settings, &called.user, &alarm);
        let name = self.name_of_call(key);
        if settings.actions(level).end && !self.end_one(now, key, "Fraud") {
            log::warn!(target: "fraud", call_id = name.call_id.as_str(), trace_id = name.trace_id.as_str(); "a call of {} cannot be ended: too little is known of it", self.shown_text(called.user.as_bytes()));
        }
    }

    /// What the request at hand was watched for goes, since it came to no call.
    pub(crate) fn forget_watched(&mut self) {
        if let Some(watched) = self.limits.watched.take() {
            self.take_back(watched);
        }
    }

    /// A call was refused: it does not count unless that is wished.
    pub(crate) fn take_back(&self, watched: WatchedCall) {
        if self.snapshot.settings.fraud.as_ref().is_some_and(|settings| !settings.counts_refused) {
            watched.take_back();
        }
    }
}

/// By what a number is known again, after a restart too.
pub fn number_hash(number: &str) -> u64 {
    let number = number.strip_prefix('+').unwrap_or(number);
    keyed_hash(&Secret::new([0; 16]), &[b"dialled", number.as_bytes()]) as u64
}

/// What survives a restart.
#[derive(Debug, Default, serde::Serialize, Deserialize)]
struct FraudKept {
    rows: Vec<FraudRow>,
    /// Accounts with the seconds that they are still barred for.
    barred: Vec<(String, u64)>,
}

impl Snapshot {
    /// What is known of a user, or of the busiest ones, at `now` microseconds of the monotonic clock.
    pub fn fraud_stats(&self, user: Option<&str>, now: u64, most: usize) -> Vec<FraudStats> {
        self.fraud.as_ref().map_or_else(Vec::new, |watch| watch.counts.fraud.stats(user, now, most))
    }

    /// Accounts that may not call, with the seconds that are left at `wall` seconds since 1970.
    pub fn barred(&self, wall: u64) -> Vec<(String, u64)> {
        let Some(watch) = &self.fraud else { return Vec::new() };
        let map = watch.counts.barred.pin();
        let left = map.iter().filter_map(|(user, until)| Some((user.to_string(), until.checked_sub(wall).filter(|left| *left > 0)?)));
        let mut found: Vec<_> = left.collect();
        found.sort_unstable();
        found
    }

    /// What other nodes are to hear of fraud figures, at `now` microseconds of the monotonic clock; so many rows at most.
    pub fn fraud_told(&self, now: u64, most: usize) -> Vec<FraudTold> {
        self.fraud.as_ref().map_or_else(Vec::new, |watch| watch.counts.fraud.told(now, most))
    }

    /// Takes over what all other nodes say of figures and of accounts that they barred, instead of what they said before.
    pub fn hear_fraud(&self, told: Vec<FraudTold>, barred: Vec<String>) {
        let (Some(watch), Some(settings)) = (&self.fraud, &self.settings.fraud) else { return };
        watch.counts.fraud.hear(told);
        let barred: HashSet<Box<str>> = barred.into_iter().map(String::into_boxed_str).collect();
        let before = std::mem::replace(&mut *watch.counts.barred_elsewhere.write().unwrap_or_else(PoisonError::into_inner), barred);
        let elsewhere = watch.counts.barred_elsewhere.read().unwrap_or_else(PoisonError::into_inner);
        let over = before.difference(&elsewhere).cloned().collect();
        watch.counts.fraud.tell_again(&over, &settings.barring_levels());
    }

    /// Lets an account call again; false where it was not barred.
    pub fn unbar(&self, user: &str) -> bool {
        let Some(watch) = &self.fraud else { return false };
        // Its bar does not end by its time: it may go on as before.
        watch.counts.barred_elsewhere.write().unwrap_or_else(PoisonError::into_inner).remove(user);
        watch.counts.barred.pin().remove(user).is_some()
    }

    /// What a restart needs of fraud figures, for [`Snapshot::restore_fraud`] of a process of this or a later version.
    pub fn fraud_kept(&self, now: Now) -> Vec<u8> {
        let Some(watch) = &self.fraud else { return Vec::new() };
        let kept = FraudKept { rows: watch.counts.fraud.rows(now.moment.0), barred: self.barred(now.wall / 1_000_000) };
        rmp_serde::to_vec_named(&kept).unwrap_or_default()
    }

    /// Takes over what was kept `ago` seconds before; false where it cannot be read.
    pub fn restore_fraud(&self, bytes: &[u8], now: Now, ago: u64) -> bool {
        let (Some(watch), Ok(kept)) = (&self.fraud, rmp_serde::from_slice::<FraudKept>(bytes)) else { return false };
        watch.counts.fraud.restore(&kept.rows, now.moment.0, ago);
        let mut over = HashSet::new();
        for (user, left) in kept.barred {
            match left.checked_sub(ago).filter(|left| *left > 0) {
                Some(left) => {
                    watch.counts.barred.pin().insert(user.into(), now.wall / 1_000_000 + left);
                }
                // Its time was over while nobody looked: whoever goes on is barred again, as after any bar.
                None => {
                    over.insert(user.into_boxed_str());
                }
            }
        }
        let levels = self.settings.fraud.as_ref().map(FraudSettings::barring_levels).unwrap_or_default();
        watch.counts.fraud.tell_again(&over, &levels);
        true
    }
}
