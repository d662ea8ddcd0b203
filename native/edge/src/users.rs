//! What a worker holds of users: where they are, what their passwords are known by, and requests that wait for such things.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use proto::{Key, Location, Moment, NonceWindows, Now, TimedSlab, seconds, transaction_key};
use smallvec::SmallVec;
use syntax::Message;

use crate::account_attributes::Account;
use crate::credential::CredentialCache;
use crate::edge::{Edge, EdgeOptions};
use crate::hop::Hop;
use crate::location_write::Removal;
use crate::matching::Refusal;
use crate::settings::RouteSettings;
use crate::walk::Walk;

/// How long the addresses of a Contact's name are remembered: a phone that registers again is not looked up again at once.
const NAMES_KEPT: u64 = seconds(60);
/// Names remembered at once.
const NAMES: usize = 10_000;

/// A request that waits for something; it is taken up again from its beginning.
pub(crate) struct Parked {
    pub(crate) arrival: Hop,
    pub(crate) bytes: Box<[u8]>,
    transaction: u128,
    waits_for: u128,
}

/// The state of one worker that is about users.
pub(crate) struct Users {
    pub(crate) location: Location,
    pub(crate) nonces: NonceWindows,
    pub(crate) nonce_number: u32,
    pub(crate) credentials: CredentialCache,
    /// Algorithms and realm that credentials are kept for.
    terms: (Vec<String>, String),
    pub(crate) parked: TimedSlab<Parked>,
    /// Who waits for what.
    waiting: HashMap<u128, SmallVec<[Key; 1]>>,
    /// The account that the request at hand is of.
    pub(crate) proved: Option<Box<Account>>,
    /// Where names lead that Contacts have, with ports of SRV.
    pub(crate) names: HashMap<Box<[u8]>, (Vec<SocketAddr>, Moment)>,
    /// Records that wait to be written, by their place.
    pub(crate) unwritten: VecDeque<u32>,
    /// Bindings that wait to be deleted from the database.
    pub(crate) removals: VecDeque<Removal>,
    /// How far the walks over all records have come: for what has ended, and for what is to be kept open.
    pub(crate) expiry: Walk,
    pub(crate) pings: Walk,
    /// When they went on last.
    pub(crate) walked_at: Moment,
}

impl Users {
    pub(crate) fn new(settings: &RouteSettings, options: &EdgeOptions, now: Moment) -> Self {
        let mut users = Self {
            location: Location::new(options.process_secret, 0, options.large_pages),
            nonces: NonceWindows::new(),
            nonce_number: 0,
            credentials: CredentialCache::default(),
            terms: Default::default(),
            parked: TimedSlab::new(0, now),
            waiting: HashMap::new(),
            proved: None,
            names: HashMap::new(),
            unwritten: VecDeque::new(),
            removals: VecDeque::new(),
            expiry: Walk::new(now),
            pings: Walk::new(now),
            walked_at: now,
        };
        users.set_limits(settings, usize::from(options.workers), now);
        users
    }

    /// Goes by the bounds of other settings from now on.
    pub(crate) fn set_limits(&mut self, settings: &RouteSettings, workers: usize, now: Moment) {
        let Some(registrar) = &settings.registrar else {
            // Nobody registers here any more; what waits has lost its sense. Bindings stay until they end: the file before may come back.
            if !self.parked.is_empty() {
                self.parked = TimedSlab::new(0, now);
                self.waiting.clear();
            }
            self.names.clear();
            return;
        };
        // A record lies where the hash of its name says, so that one worker may have a few more than another.
        let share = registrar.records.div_ceil(workers.max(1));
        self.location.set_limit(if workers > 1 { share + share / 8 } else { share });
        self.nonces.resize(settings.authentication.nonces, now);
        let terms = (settings.authentication.algorithms.clone(), settings.authentication.realm.clone());
        if self.terms != terms {
            // What is kept was computed for others.
            self.credentials.clear();
            self.terms = terms;
        }
        self.parked.set_limit(settings.authentication.waiting);
    }
}

impl Edge {
    /// Seconds of the monotonic clock, in which bindings end.
    pub(crate) const fn seconds_of(now: Now) -> u32 {
        (now.moment.0 / 1_000_000) as u32
    }

    /// Lets a request wait for what `waits_for` names, `wait` microseconds at most; true where that must be asked for. One that came again waits once.
    pub(crate) fn park(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, waits_for: u128, wait: u64) -> bool {
        let transaction = transaction_key(&self.options.process_secret, message, message.head.method);
        let users = &mut self.users;
        let known = users.waiting.get(&waits_for);
        let asked = known.is_some();
        if known.is_some_and(|keys| keys.iter().any(|key| users.parked.get(*key).is_some_and(|parked| parked.transaction == transaction))) {
            self.counters.retransmissions_received.add();
            return false;
        }
        let parked = Parked { arrival: *arrival, bytes: message.bytes.into(), transaction, waits_for };
        let Some(key) = users.parked.insert(parked) else {
            self.counters.waiting_full.add();
            let refusal = self.try_later("authenticate");
            self.refuse(now, arrival, message, None, &refusal);
            return false;
        };
        users.parked.arm(key, now.moment + wait);
        users.waiting.entry(waits_for).or_default().push(key);
        !asked
    }

    /// A refusal for what cannot be told now: not 503, which would tell the sender to send nothing at all.
    pub(crate) fn try_later(&mut self, phase: &'static str) -> Refusal {
        Refusal { headers: self.retry_after(), ..Refusal::new(500, phase) }
    }

    /// Takes up what waited for `waits_for`, or refuses it where that is not to be had.
    pub(crate) fn unpark(&mut self, now: Now, waits_for: u128, found: bool) {
        for key in self.users.waiting.remove(&waits_for).unwrap_or_default() {
            let Some(parked) = self.users.parked.remove(key) else { continue };
            if found { self.take_up(now, &parked) } else { self.refuse_parked(now, &parked) }
        }
    }

    fn take_up(&mut self, now: Now, parked: &Parked) {
        // It was counted when it came.
        self.with_arrival(&parked.bytes, |edge, message, parsed| {
            edge.in_hand = Key::NONE;
            if parsed.is_ok() {
                edge.handle_request(now, &parked.arrival, message);
            }
        });
    }

    fn refuse_parked(&mut self, now: Now, parked: &Parked) {
        let refusal = self.try_later("authenticate");
        self.with_stored(&parked.bytes, |edge, message| edge.refuse(now, &parked.arrival, message, None, &refusal));
    }

    /// Refuses what waited too long, unless something was known before by which it can be judged: a guess counts in any case.
    pub(crate) fn parked_due(&mut self, now: Now) {
        while let Some(key) = self.users.parked.expire(now.moment) {
            let Some(parked) = self.users.parked.remove(key) else { continue };
            self.counters.waited_too_long.add();
            if let Some(keys) = self.users.waiting.get_mut(&parked.waits_for) {
                keys.retain(|other| *other != key);
                if keys.is_empty() {
                    self.users.waiting.remove(&parked.waits_for);
                }
            }
            if self.not_to_be_had(now, parked.waits_for) { self.take_up(now, &parked) } else { self.refuse_parked(now, &parked) }
        }
    }

    /// Remembers the addresses of a Contact's name, and takes up what waited for them.
    pub(crate) fn name_resolved(&mut self, now: Now, host: &str, addresses: Vec<SocketAddr>) {
        let host = host.to_ascii_lowercase().into_bytes();
        if self.users.names.len() >= NAMES {
            self.users.names.retain(|_, (_, until)| *until > now.moment);
            if self.users.names.len() >= NAMES {
                self.users.names.clear();
            }
        }
        let waits_for = self.name_key(&host);
        self.users.names.insert(host.into_boxed_slice(), (addresses, now.moment + NAMES_KEPT));
        self.unpark(now, waits_for, true);
    }

    /// Under what requests wait for a name.
    pub(crate) fn name_key(&self, host: &[u8]) -> u128 {
        proto::keyed_hash(&self.options.process_secret, &[b"name", host])
    }
}
