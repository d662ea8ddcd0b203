//! Limits by key as the file has them, looked up once: how many calls at once, how many requests in a window.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use guard::{Algorithm, Holder, Keyed, Meters, Pipe, Share, ShareStore, Slot, Steering};
use papaya::HashMap as SharedMap;
use serde::Deserialize;
use syntax::Method;

use crate::gateway_uri::plain_user;
use crate::matching::Refusal;
use crate::settings::{RouteSettings, SettingsError};

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counts {
    /// Calls at once.
    Calls,
    /// Requests in a window.
    Rate,
}

/// One limit.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyLimitSettings {
    /// Its name in the file.
    pub name: String,
    /// What it counts.
    pub counts: Counts,
    /// What each key is made of: text, and fields of the request in braces.
    pub key: String,
    /// As many as each key may have; for `network` bytes, for `feedback` percent.
    pub most: u32,
    /// The attribute of an account that says it instead, empty for none.
    pub attribute: String,
    /// Keys that may have another number.
    pub overrides: Vec<(String, u32)>,
    /// Peers whose requests count; none means all.
    pub peers: Vec<String>,
    /// Methods that count; none means INVITE.
    pub methods: Vec<String>,
    /// Whether only policies ask for it.
    pub by_policy: bool,
    /// `tail_drop`, `sliding_window`, `red`, `network` or `feedback`.
    pub algorithm: String,
    /// The window of a rate.
    pub window_milliseconds: u64,
    /// Whether a refused request costs as much as one that passed.
    pub counts_refused: bool,
    /// Keys at once; what has no room is not limited.
    pub keys: usize,
    /// The answer to what is too much.
    pub status_code: u16,
    /// And its text, empty for the customary one.
    pub reason_phrase: String,
    /// Retry-After, 0 for none.
    pub retry_after_seconds: u32,
    /// Whether all nodes together may have `most`.
    pub shared: bool,
    /// Whether this node counts for itself, up to `most`, while the store is gone; otherwise nothing new passes.
    pub fails_open: bool,
}

/// The store that nodes share limits by.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedSettings {
    /// How long a request waits for a place at most, where this node has none in hand.
    pub wait_milliseconds: u64,
    /// Requests that wait at once.
    pub waiting: usize,
    /// Whether failed authentications of all nodes count together.
    pub attacks: bool,
}

/// A field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyField {
    Account,
    Caller,
    CallerUser,
    Called,
    CalledUser,
    Domain,
    Source,
    Peer,
    Gateway,
    Listener,
    Attribute(Box<str>),
}

/// A part of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyPart {
    Text(Box<str>),
    Field(KeyField),
}

impl KeyPart {
    fn parse(template: &str) -> Option<Vec<Self>> {
        let (mut parts, mut rest) = (Vec::new(), template);
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, after) = behind.split_once('}')?;
            if !before.is_empty() {
                parts.push(Self::Text(before.into()));
            }
            parts.push(Self::Field(match name {
                "account" => KeyField::Account,
                "caller" => KeyField::Caller,
                "caller_user" => KeyField::CallerUser,
                "called" => KeyField::Called,
                "called_user" => KeyField::CalledUser,
                "domain" => KeyField::Domain,
                "source" => KeyField::Source,
                "peer" => KeyField::Peer,
                "gateway" => KeyField::Gateway,
                "listener" => KeyField::Listener,
                other => KeyField::Attribute(other.strip_prefix("attribute.")?.into()),
            }));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Self::Text(rest.into()));
        }
        (!rest.contains('}')).then_some(parts)
    }
}

/// What is kept of one key.
#[derive(Debug)]
pub(crate) struct LimitValue {
    pub(crate) limit: Arc<LimitState>,
    pub(crate) pipe: Option<Pipe>,
    /// What this node may use of it, where nodes share it.
    pub(crate) share: Option<Share>,
    /// Whether somebody was told that it is at its limit.
    pub(crate) over: AtomicBool,
    /// When it was last refused, in microseconds of the monotonic clock.
    pub(crate) refused_at: AtomicU64,
    /// As many as the last request said that it may have, by an attribute or a policy; more than any number where it said nothing.
    own: AtomicU64,
}

impl LimitValue {
    /// Notes what a request brought of its own.
    pub(crate) fn note(&self, own: Option<u32>) {
        self.own.store(own.map_or(u64::MAX, u64::from), Ordering::Relaxed);
    }

    fn own(&self) -> Option<u32> {
        u32::try_from(self.own.load(Ordering::Relaxed)).ok()
    }
}

/// A place among the calls of a key.
pub(crate) type HeldLimit = Holder<LimitValue>;
pub(crate) type LimitSlot = Arc<Slot<LimitValue>>;

/// What a key has at `now`: calls, or requests in the window.
pub(crate) fn used(slot: &LimitSlot, now: u64) -> u32 {
    slot.value().pipe.as_ref().map_or_else(|| slot.holders(), |pipe| u32::try_from(pipe.passed(now)).unwrap_or(u32::MAX))
}

/// What a limit counted; it outlives reloads.
#[derive(Debug)]
pub(crate) struct LimitState {
    pub(crate) name: Box<str>,
    pub(crate) table: Arc<Keyed<LimitValue>>,
    /// What operators set, by key; an empty one stands for all that have none.
    pub(crate) set: SharedMap<Box<str>, u32>,
    pub(crate) refused: AtomicU64,
    pub(crate) untracked: AtomicU64,
    pub(crate) steering: Steering,
}

/// One limit with everything looked up.
#[derive(Debug)]
pub(crate) struct Limit {
    pub(crate) settings: KeyLimitSettings,
    pub(crate) algorithm: Algorithm,
    pub(crate) parts: Vec<KeyPart>,
    peers: Vec<u16>,
    methods: Vec<Box<[u8]>>,
    overrides: HashMap<Box<str>, u32>,
    pub(crate) state: Arc<LimitState>,
}

impl Limit {
    /// Whether a request of `peer` counts.
    pub(crate) fn fits(&self, method: Method, peer: u16) -> bool {
        !self.settings.by_policy && (self.peers.is_empty() || self.peers.contains(&peer)) && self.methods.iter().any(|own| **own == *method.as_str().as_bytes())
    }

    /// As many as `key` may have, where an attribute of its account says `attributed`.
    pub(crate) fn most(&self, key: &str, attributed: Option<u32>) -> u32 {
        self.set_by_operator(key).or_else(|| self.overrides.get(key).copied()).or(attributed).unwrap_or(self.settings.most)
    }

    /// The same where a policy says `wished`, which goes before what the database says.
    pub(crate) fn most_by_policy(&self, key: &str, wished: Option<u32>) -> u32 {
        self.set_by_operator(key).or(wished).unwrap_or_else(|| self.most(key, None))
    }

    /// A key as requests have it, of one as somebody wrote it: `+49 30 1234` or `Alice@EXAMPLE.net` would fit no request.
    fn as_requests_have_it(&self, key: &str) -> Box<str> {
        let text = |part: Option<&KeyPart>| match part {
            Some(KeyPart::Text(text)) => text.to_string(),
            Some(KeyPart::Field(_)) | None => String::new(),
        };
        // Of several fields nobody can tell where one ends.
        let mut fields = self.parts.iter().enumerate().filter(|(_, part)| matches!(part, KeyPart::Field(_)));
        let (Some((place, KeyPart::Field(field))), None) = (fields.next(), fields.next()) else { return key.into() };
        let (before, behind) = (text(place.checked_sub(1).and_then(|place| self.parts.get(place))), text(self.parts.get(place + 1)));
        let value = key.strip_prefix(before.as_str()).and_then(|rest| rest.strip_suffix(behind.as_str()));
        match value.filter(|_| !self.settings.by_policy) {
            Some(value) => format!("{before}{}{behind}", Self::field_as_requests_have_it(field, value)).into(),
            None => key.into(),
        }
    }

    fn field_as_requests_have_it(field: &KeyField, key: &str) -> Box<str> {
        let user = |text: &str| plain_user(text.as_bytes());
        match field {
            KeyField::Account => key.rsplit_once('@').map_or_else(|| key.into(), |(user, host)| format!("{user}@{}", host.to_ascii_lowercase()).into()),
            KeyField::Caller | KeyField::Called => match key.rsplit_once('@') {
                Some((name, host)) => format!("{}@{}", user(name), host.to_ascii_lowercase()).into(),
                None => key.to_ascii_lowercase().into(),
            },
            KeyField::CallerUser | KeyField::CalledUser => user(key).into(),
            KeyField::Domain => key.to_ascii_lowercase().into(),
            KeyField::Source => key.parse::<IpAddr>().map_or_else(|_| key.into(), |ip| ip.to_canonical().to_string().into()),
            KeyField::Peer | KeyField::Gateway | KeyField::Listener | KeyField::Attribute(_) => key.into(),
        }
    }

    /// As many as an operator said that `key` may have, which goes before all others.
    pub(crate) fn set_by_operator(&self, key: &str) -> Option<u32> {
        let set = self.state.set.pin();
        set.get(key).or_else(|| set.get("")).copied()
    }

    pub(crate) fn window(&self) -> u64 {
        self.settings.window_milliseconds * 1_000
    }

    /// The answer to what is too much.
    pub(crate) fn refusal(&self) -> Refusal {
        let settings = &self.settings;
        let mut refusal = Refusal::new(settings.status_code, "admit");
        if settings.retry_after_seconds > 0 {
            refusal.headers = format!("Retry-After: {}\r\n", settings.retry_after_seconds).into_bytes();
        }
        refusal.reason_phrase = (!settings.reason_phrase.is_empty()).then(|| settings.reason_phrase.clone());
        refusal
    }

    /// The value of a key that is new.
    pub(crate) fn value(&self, most: u32) -> LimitValue {
        let pipe = (self.settings.counts == Counts::Rate).then(|| Pipe::new(self.algorithm, most, self.window()));
        let share = self.settings.shared.then(Share::default);
        LimitValue { limit: Arc::clone(&self.state), pipe, share, over: AtomicBool::new(false), refused_at: AtomicU64::new(0), own: AtomicU64::new(u64::MAX) }
    }
}

/// All limits.
#[derive(Debug, Default)]
pub(crate) struct LimitTable {
    pub(crate) all: Vec<Limit>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) store: Arc<ShareStore>,
    /// Limits of calls that served before, so that one which comes back knows of calls that it counted.
    past: Vec<PastLimit>,
}

/// A limit of calls of an earlier configuration; its state lasts as long as a call holds a place of it.
#[derive(Clone, Debug)]
struct PastLimit {
    name: String,
    shared: bool,
    state: Weak<LimitState>,
}

impl PastLimit {
    fn is(&self, settings: &KeyLimitSettings) -> bool {
        settings.counts == Counts::Calls && (&self.name, self.shared) == (&settings.name, settings.shared)
    }
}

/// One key of a limit, as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LimitView {
    /// The limit.
    pub limit: String,
    /// `calls` or `rate`.
    pub counts: &'static str,
    /// The key.
    pub key: String,
    /// Calls now, or requests in the window.
    pub used: u64,
    /// As many as it may have, by what the last request brought where that counts.
    pub most: u32,
    /// Places that this node has in hand, where nodes share the limit.
    pub share: Option<u32>,
    /// Whether something was refused lately.
    pub at_limit: bool,
}

impl LimitTable {
    /// The limits that follow `before`, whose counts go on where what they count is the same.
    pub(crate) fn new(settings: &RouteSettings, before: Option<&Self>) -> Result<Self, SettingsError> {
        let mut all: Vec<Limit> = Vec::new();
        let past = before.map(Self::past).unwrap_or_default();
        for own in &settings.key_limits {
            let fault = |key: &str, problem, value: &str| SettingsError::Value { path: format!("limit.{}.{key}", own.name), problem, value: value.to_owned() };
            let algorithm = match own.algorithm.as_str() {
                "tail_drop" => Algorithm::TailDrop,
                "sliding_window" => Algorithm::SlidingWindow,
                "red" => Algorithm::Red,
                "network" => Algorithm::Network,
                "feedback" => Algorithm::Feedback,
                other => return Err(fault("algorithm", "no such algorithm", other)),
            };
            let parts = KeyPart::parse(&own.key).ok_or_else(|| fault("key", "a field that there is not", &own.key))?;
            let place = |name: &String| settings.peers.iter().position(|peer| peer.name == *name).map(|index| index as u16);
            let peers = own.peers.iter().map(|name| place(name).ok_or_else(|| fault("peers", "no such peer", name))).collect::<Result<_, _>>()?;
            let methods: Vec<&str> = if own.methods.is_empty() { vec!["INVITE"] } else { own.methods.iter().map(String::as_str).collect() };
            let same = |limit: &&Limit| {
                limit.settings.name == own.name
                    && (limit.settings.counts, limit.settings.shared) == (own.counts, own.shared)
                    && (own.counts == Counts::Calls || (limit.algorithm, limit.settings.window_milliseconds) == (algorithm, own.window_milliseconds))
            };
            let served = before.and_then(|before| before.all.iter().find(same)).map(|limit| Arc::clone(&limit.state));
            let known = served.or_else(|| past.iter().find(|past| past.is(own)).and_then(|past| past.state.upgrade()));
            known.iter().for_each(|state| state.table.set_most(own.keys));
            let fresh = || {
                // A rate is remembered for its window, and a share until the store has it back, whoever asks.
                let table = Arc::new(if own.counts == Counts::Calls && !own.shared { Keyed::new(own.keys) } else { Keyed::keeping(own.keys) });
                let (set, refused, untracked) = (SharedMap::new(), AtomicU64::new(0), AtomicU64::new(0));
                Arc::new(LimitState { name: own.name.as_str().into(), table, set, refused, untracked, steering: Steering::default() })
            };
            all.push(Limit {
                algorithm,
                parts,
                peers,
                methods: methods.into_iter().map(|method| method.as_bytes().into()).collect(),
                overrides: HashMap::new(),
                state: known.unwrap_or_else(fresh),
                settings: own.clone(),
            });
            if let Some(limit) = all.last_mut() {
                limit.overrides = own.overrides.iter().map(|(key, most)| (limit.as_requests_have_it(key), *most)).collect();
            }
        }
        let (meters, store) = before.map(|before| (Arc::clone(&before.meters), Arc::clone(&before.store))).unwrap_or_default();
        Ok(Self { all, meters, store, past })
    }

    /// Limits that calls may hold places of: those that serve, and those that a reload took away.
    fn past(before: &Self) -> Vec<PastLimit> {
        let calls = before.all.iter().filter(|limit| limit.settings.counts == Counts::Calls);
        let served = calls.map(|limit| PastLimit { name: limit.settings.name.clone(), shared: limit.settings.shared, state: Arc::downgrade(&limit.state) });
        let older = before.past.iter().filter(|past| past.state.strong_count() > 0 && !before.all.iter().any(|limit| past.is(&limit.settings)));
        served.chain(older.cloned()).collect()
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Limit> {
        self.all.iter().find(|limit| limit.settings.name == name)
    }

    /// Sets how many `key` may have, or all keys where it is empty, until that is taken back; the key as requests have it, and nothing
    /// where there is no such limit.
    pub(crate) fn set(&self, name: &str, key: &str, most: Option<u32>) -> Option<Box<str>> {
        let limit = self.get(name)?;
        let set = limit.state.set.pin();
        let key = limit.as_requests_have_it(key);
        match most {
            Some(most) => set.insert(key.clone(), most).copied(),
            None => set.remove(&key).copied(),
        };
        Some(key)
    }

    /// The keys of `name`, or of every limit, the fullest first.
    pub(crate) fn views(&self, name: Option<&str>, now: u64) -> Vec<LimitView> {
        let mut found = Vec::new();
        for limit in self.all.iter().filter(|limit| name.is_none_or(|name| limit.settings.name == name)) {
            for slot in limit.state.table.all() {
                let value = slot.value();
                if value.share.is_some() && slot.holders() == 0 && limit.settings.counts == Counts::Calls {
                    continue;
                }
                found.push(LimitView {
                    limit: limit.settings.name.clone(),
                    counts: if limit.settings.counts == Counts::Calls { "calls" } else { "rate" },
                    key: slot.key().to_owned(),
                    used: u64::from(used(&slot, now)),
                    most: if limit.settings.by_policy { limit.most_by_policy(slot.key(), value.own()) } else { limit.most(slot.key(), value.own()) },
                    share: value.share.as_ref().map(Share::granted),
                    at_limit: value.over.load(Ordering::Relaxed),
                });
            }
        }
        found.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| (&a.limit, &a.key).cmp(&(&b.limit, &b.key))));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_of_text_and_fields() {
        let text = |text: &str| KeyPart::Text(text.into());
        assert_eq!(KeyPart::parse(""), Some(Vec::new()));
        assert_eq!(
            KeyPart::parse("a-{account}:{attribute.plan}b"),
            Some(vec![text("a-"), KeyPart::Field(KeyField::Account), text(":"), KeyPart::Field(KeyField::Attribute("plan".into())), text("b")])
        );
        for bad in ["{nobody}", "{account", "account}", "{attribute}"] {
            assert_eq!(KeyPart::parse(bad), None, "{bad}");
        }
    }
}
