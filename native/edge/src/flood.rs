//! Phase *guard*: floods. Every packet is counted by its source on the worker that received it; what a source does wrong counts too.
//!
//! One exact rule: the N-th packet of an address within a unit that began with its first one is too many. N grows with the users who
//! are there, so that an office behind one address is no flood; and nobody is charged for a neighbour.

use std::net::IpAddr;
use std::sync::Arc;

use guard::{Ban, BanChange, LastSeen, WindowCounts};
use proto::{Key, Now};
use serde::Deserialize;
use syntax::Message;

use crate::edge::Edge;
use crate::event::EventKind;
use crate::glob::fits;
use crate::hop::Hop;
use crate::subscriber_settings::in_networks;

/// Users of a source are those of this and of the last span of so many seconds: a refresh falls into each.
const SPAN: u32 = 7_200;
/// For so long nobody looks again whether a source is exempt.
const EXEMPT_SECONDS: u32 = 5;

/// When a source floods.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FloodSettings {
    /// A unit begins with the first packet of a source.
    pub unit_seconds: u32,
    /// Packets in a unit that are too many.
    pub packets: u32,
    /// By how many more for each user at the source.
    pub packets_per_user: u32,
    /// Requests of one account in a unit that are too many.
    pub account_requests: u32,
    /// How long a source is not listened to.
    pub block_seconds: u32,
    /// The window in which points are counted.
    pub score_seconds: u32,
    /// Points in it that are too many.
    pub score: u32,
    /// Points of a message that does not parse.
    pub malformed_points: u32,
    /// Points of a request of nobody we know.
    pub stranger_points: u32,
    /// Points of a failed authentication.
    pub failed_points: u32,
    /// What User-Agents of scanners look like.
    pub scanners: Vec<String>,
    /// Networks that are never counted.
    pub exempt: Vec<(IpAddr, u8)>,
    /// Sources that are counted at once.
    pub sources: usize,
    /// Whether it is only told what would be done.
    pub dry_run: bool,
}

/// Counts of all workers.
#[derive(Debug)]
pub(crate) struct FloodCounts {
    packets: WindowCounts,
    points: WindowCounts,
    accounts: WindowCounts,
    users: WindowCounts,
    /// Users that were counted at their source, with the start of the span that it was in; and sources that are exempt.
    seen: LastSeen,
    sources: usize,
}

impl FloodCounts {
    pub(crate) fn after(before: Option<&Arc<Self>>, settings: Option<&FloodSettings>) -> Option<Arc<Self>> {
        let sources = settings?.sources;
        if let Some(before) = before.filter(|before| before.sources == sources) {
            return Some(Arc::clone(before));
        }
        let [packets, points, accounts, users] = [(); 4].map(|()| WindowCounts::new(sources));
        Some(Arc::new(Self { packets, points, accounts, users, seen: LastSeen::new(sources), sources }))
    }
}

/// What is known of a source, for an operator.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct SourceView {
    /// The source.
    pub source: String,
    /// Why it is not listened to, empty where it is.
    pub banned_for: String,
    /// For how many more seconds.
    pub left_seconds: u32,
    /// Whether nothing of it is counted: a peer's, a gateway's, or of an exempt network.
    pub exempt: bool,
    /// Whether a user came from there before.
    pub known: bool,
    /// Users there.
    pub users: u32,
    /// Packets in its unit.
    pub packets: u32,
    /// As many are too many.
    pub packet_limit: u32,
    /// Points in their window.
    pub points: u32,
    /// As many are too many.
    pub point_limit: u32,
    /// Failed authentications in their window.
    pub failures: u32,
}

impl Edge {
    fn flood(&self) -> Option<(&FloodSettings, &FloodCounts)> {
        Some((self.snapshot.settings.flood.as_ref()?, self.snapshot.flood.as_deref()?))
    }

    /// Counts a packet of `arrival`; true where it is one too many.
    pub(crate) fn floods(&mut self, now: Now, arrival: &Hop) -> bool {
        let Some((settings, counts)) = self.flood() else { return false };
        let (source, seconds) = (arrival.address.ip(), Self::seconds_of(now));
        let packets = counts.packets.add(self.key(b"flood", Some(source), b""), seconds, settings.unit_seconds);
        if packets < settings.packets || packets < self.packet_limit(now, source) || self.is_exempt(now, source) {
            return false;
        }
        self.too_many(now, arrival, packets)
    }

    /// Whether a source goes beyond its limit for the first time in its unit.
    fn crosses(&self, now: Now, source: IpAddr, unit_seconds: u32) -> bool {
        self.flood().is_some_and(|(_, counts)| counts.packets.add(self.key(b"crossed", Some(source), b""), Self::seconds_of(now), unit_seconds) == 1)
    }

    /// A source has sent too much; true where this packet is dropped.
    fn too_many(&mut self, now: Now, arrival: &Hop, packets: u32) -> bool {
        let Some(settings) = self.snapshot.settings.flood.clone() else { return false };
        let source = arrival.address.ip().to_canonical();
        let what = || format!("flood: {packets} packets in {} s", settings.unit_seconds);
        let users = self.came_before(now, source, b"");
        // Packets of those who prove who they are are taken back, so that their number may come by more than once.
        let first = (settings.dry_run || users) && self.crosses(now, source, settings.unit_seconds);
        if settings.dry_run {
            if first {
                self.counters.floods_dry.add();
                if self.may_log(now) {
                    let would = if users { "drop the rest" } else { "block" };
                    log::warn!(target: "guard", "would {would} of {source}: flood of {packets} packets in {} s", settings.unit_seconds);
                }
                self.tell_blocked(now, source, "dry-run", &what());
            }
            return false;
        }
        // A user's address can be forged by anybody: what is too much is dropped until the unit ends, and the user heard again.
        if users {
            if first && self.may_log(now) {
                log::warn!(target: "guard", "flood of {packets} packets from {source}, where users are: the rest is dropped for {} s", settings.unit_seconds);
            }
            if first {
                self.tell_blocked(now, source, "throttled", &what());
            }
            return true;
        }
        self.block(now, arrival, settings.block_seconds, &what());
        true
    }

    /// A source did something that scanners do; `points` say how bad that is.
    pub(crate) fn score(&mut self, now: Now, arrival: &Hop, points: impl Fn(&FloodSettings) -> u32, what: &str) {
        let Some((settings, counts)) = self.flood() else { return };
        let (source, seconds) = (arrival.address.ip().to_canonical(), Self::seconds_of(now));
        let (points, most, window, block, dry) = (points(settings), settings.score, settings.score_seconds, settings.block_seconds, settings.dry_run);
        if points == 0 {
            return;
        }
        let sum = counts.points.add_many(self.key(b"score", Some(source), b""), points, seconds, window);
        if sum < most || self.is_exempt(now, source) || self.came_before(now, source, b"") {
            return;
        }
        let what = &format!("behaviour: {sum} points in {window} s, last {what}");
        if dry {
            if sum < most + points {
                self.counters.floods_dry.add();
                log::warn!(target: "guard", "would block {source}: {what}");
                self.tell_blocked(now, source, "dry-run", what);
            }
            return;
        }
        self.block(now, arrival, block, what);
    }

    /// A scanner gives itself away by its User-Agent: as if it had all points at once.
    pub(crate) fn look_at_agent(&mut self, now: Now, arrival: &Hop, message: &Message<'_>) {
        let Some((settings, _)) = self.flood().filter(|(settings, _)| !settings.scanners.is_empty()) else { return };
        let Some(agent) = message.named(b"User-Agent").next().map(|slot| message.text(slot.value)) else { return };
        if let Some(pattern) = settings.scanners.iter().find(|pattern| fits(pattern.as_bytes(), agent)) {
            let what = format!("a scanner's User-Agent ({pattern})");
            self.counters.scanners_noticed.add();
            self.score(now, arrival, |settings| settings.score, &what);
        }
    }

    /// Counts a request of an account that has proved who it is: its source is not charged for it. False where it is one too many.
    pub(crate) fn account_may(&mut self, now: Now, arrival: &Hop) -> bool {
        let Some((settings, counts)) = self.flood() else { return true };
        let Some(account) = self.users.proved.as_deref() else { return true };
        let seconds = Self::seconds_of(now);
        let requests = counts.accounts.add(self.key(b"account", None, &account.name), seconds, settings.unit_seconds);
        if requests < settings.account_requests {
            counts.packets.take_back(self.key(b"flood", Some(arrival.address.ip()), b""), 1);
            return true;
        }
        let (unit, dry, name) = (settings.unit_seconds, settings.dry_run, self.shown_text(&account.name));
        if requests == settings.account_requests {
            log::warn!(target: "guard", "flood of account {name}: {requests} requests in {unit} s");
            let source = arrival.address.ip().to_canonical();
            self.tell_blocked(now, source, if dry { "dry-run" } else { "account" }, &format!("{requests} requests of {name}"));
        }
        self.counters.refused_account_floods.add_many(u64::from(!dry));
        dry
    }

    /// A user is at `source` now.
    pub(crate) fn note_user(&self, now: Now, source: IpAddr, aor: &[u8]) {
        let Some((_, counts)) = self.flood() else { return };
        let seconds = Self::seconds_of(now);
        let span = seconds / SPAN;
        let pair = self.key(b"user-at", Some(source), aor);
        // Spans begin with 1: 0 would be never.
        if counts.seen.get(pair) != Some(span + 1) {
            counts.seen.note(pair, span + 1);
            counts.users.add(self.key(b"users", Some(source), &span.to_le_bytes()), seconds, 2 * SPAN);
        }
    }

    /// Users who were at `source` in this span or the last.
    fn users_at(&self, now: Now, source: IpAddr) -> u32 {
        let Some((_, counts)) = self.flood() else { return 0 };
        let seconds = Self::seconds_of(now);
        let span = seconds / SPAN;
        let of = |span: u32| counts.users.get(self.key(b"users", Some(source), &span.to_le_bytes()), seconds, 2 * SPAN);
        of(span).max(span.checked_sub(1).map_or(0, of))
    }

    fn packet_limit(&self, now: Now, source: IpAddr) -> u32 {
        self.flood().map_or(u32::MAX, |(settings, _)| {
            // A count goes no further.
            (settings.packets + settings.packets_per_user.saturating_mul(self.users_at(now, source))).min(u32::from(u16::MAX))
        })
    }

    fn is_exempt(&self, now: Now, source: IpAddr) -> bool {
        let Some((settings, counts)) = self.flood() else { return true };
        let (key, seconds) = (self.key(b"exempt", Some(source), b""), Self::seconds_of(now));
        if counts.seen.get(key).is_some_and(|since| seconds.saturating_sub(since) < EXEMPT_SECONDS) {
            return true;
        }
        let exempt = in_networks(&settings.exempt, source) || !self.counts(source);
        if exempt {
            counts.seen.note(key, seconds);
        }
        exempt
    }

    fn block(&mut self, now: Now, arrival: &Hop, seconds: u32, reason: &str) {
        let source = arrival.address.ip().to_canonical();
        if self.ban_seen(now, source, seconds, reason, Some(arrival.transport), false) == BanChange::New {
            self.counters.floods_blocked.add();
            self.tell_blocked(now, source, "blocked", reason);
        }
    }

    /// A policy wants the sender of `entry` banned: not one of ours or of a carrier, whose address anybody may forge.
    pub(crate) fn ban_by_policy(&mut self, now: Now, entry: Key, seconds: u32, reason: &str) {
        let Some(arrival) = self.transactions.get(entry).map(|transaction| transaction.arrival) else { return };
        let source = arrival.address.ip();
        if self.counts(source) {
            let reason: String = reason.chars().filter(|character| !character.is_control()).take(200).collect();
            self.ban_seen(now, source, seconds, &format!("policy: {reason}"), Some(arrival.transport), false);
        } else {
            log::warn!(target: "guard", "a policy wants {} banned, which is exempt", source.to_canonical());
        }
    }

    fn tell_blocked(&mut self, now: Now, source: IpAddr, state: &'static str, reason: &str) {
        let reason = reason.to_owned();
        self.tell(now, EventKind::PikeBlocked, |_| vec![source.to_string().into(), state.into(), reason.into()]);
    }

    /// The ban of a source is over: told again where it was one for a flood.
    pub(crate) fn tell_unblocked(&mut self, now: Now, ban: &Ban, why: &str) {
        if ban.reason.starts_with("flood: ") || ban.reason.starts_with("behaviour: ") {
            let why = why.to_owned();
            self.tell(now, EventKind::PikeUnblocked, |_| vec![ban.source.to_string().into(), why.into()]);
        }
    }

    /// What is known of a source.
    pub fn source_view(&self, now: Now, source: IpAddr) -> SourceView {
        let source = source.to_canonical();
        let seconds = Self::seconds_of(now);
        let ban = self.snapshot.defence.bans.list().into_iter().find(|ban| ban.source == source && ban.until > seconds);
        let attacks = &self.snapshot.settings.authentication.attacks;
        let flood = self.flood();
        SourceView {
            source: source.to_string(),
            left_seconds: ban.as_ref().map_or(0, |ban| ban.until - seconds),
            banned_for: ban.map_or_else(String::new, |ban| ban.reason),
            exempt: flood.is_some_and(|(settings, _)| in_networks(&settings.exempt, source)) || !self.counts(source),
            known: self.came_before(now, source, b""),
            users: self.users_at(now, source),
            packets: flood.map_or(0, |(settings, counts)| counts.packets.get(self.key(b"flood", Some(source), b""), seconds, settings.unit_seconds)),
            packet_limit: flood.map_or(0, |_| self.packet_limit(now, source)),
            points: flood.map_or(0, |(settings, counts)| counts.points.get(self.key(b"score", Some(source), b""), seconds, settings.score_seconds)),
            point_limit: flood.map_or(0, |(settings, _)| settings.score),
            failures: self.failures_of(source, seconds, attacks.window_seconds),
        }
    }
}
