//! What is done against guessing of passwords and users: counted by source and account together, by account, and by source. An
//! account is a user with its domain: the same name in another domain is somebody else.
//!
//! Wrong passwords and unknown users count alike, stale nonces do not. A source that a user came from before stays heard as
//! that user, so that nobody locks another one out.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use guard::{Ban, BanChange, BanList, LastSeen, WindowCounts};
use proto::{Now, keyed_hash};
use smallvec::SmallVec;
use syntax::Transport;

use crate::edge::Edge;
use crate::event::EventKind;
use crate::hop::Hop;
use crate::settings::PeerKind;
use crate::subscriber_settings::{AttackSettings, in_networks};

/// Characters of an account that other nodes are told.
const SHARED_ACCOUNT: usize = 128;

/// A failed authentication that other nodes should know of, or a success after some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Where it came from.
    pub source: IpAddr,
    /// As whom, with the domain.
    pub account: String,
    /// The pair begins anew.
    pub cleared: bool,
}

/// What all nodes together counted.
#[derive(Clone, Debug)]
pub struct SharedFailures {
    /// Where the last one came from.
    pub source: IpAddr,
    /// As whom, with the domain.
    pub account: String,
    /// Failures of both together.
    pub of_pair: u32,
    /// Of the user from anywhere.
    pub of_user: u32,
    /// Of the source as anybody.
    pub of_source: u32,
}

/// Counts of all workers.
#[derive(Debug)]
pub(crate) struct Defence {
    pub(crate) failures: Arc<WindowCounts>,
    /// Sources and accounts that came together, and sources that anybody came from.
    known: Arc<LastSeen>,
    /// Nonces of those behind us, and whom they went to: by themselves, since anybody may have as many as he likes.
    challenged: Arc<LastSeen>,
    pub(crate) bans: Arc<BanList>,
    keys: usize,
    most_bans: usize,
}

impl Defence {
    pub(crate) fn new(settings: &AttackSettings) -> Self {
        Self {
            failures: Arc::new(WindowCounts::new(settings.keys)),
            known: Arc::new(LastSeen::new(settings.keys)),
            challenged: Arc::new(LastSeen::new(settings.keys)),
            bans: Arc::new(BanList::new(settings.bans)),
            keys: settings.keys,
            most_bans: settings.bans,
        }
    }

    /// The same with the sizes that `settings` want. Bans are kept; counts of another size begin anew, since their keys are not.
    pub(crate) fn resized(&self, settings: &AttackSettings) -> Self {
        let fresh = if settings.keys == self.keys {
            Self {
                failures: Arc::clone(&self.failures),
                known: Arc::clone(&self.known),
                challenged: Arc::clone(&self.challenged),
                bans: Arc::clone(&self.bans),
                ..*self
            }
        } else {
            Self { bans: Arc::clone(&self.bans), ..Self::new(settings) }
        };
        let bans = if settings.bans == self.most_bans { fresh.bans } else { Arc::new(self.bans.resized(settings.bans)) };
        Self { bans, most_bans: settings.bans, ..fresh }
    }
}

const fn proto_of(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
        _ => "tls",
    }
}

/// Whether a source may try to be a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MayTry {
    Yes,
    /// It failed too often as this user.
    Pair,
    /// Somebody failed too often as this user, and the user never came from there.
    User,
}

impl Edge {
    pub(crate) fn key(&self, kind: &[u8], source: Option<IpAddr>, user: &[u8]) -> u64 {
        let mut octets = [0; 16];
        match source.map(|ip| ip.to_canonical()) {
            Some(IpAddr::V4(ip)) => octets[..4].copy_from_slice(&ip.octets()),
            Some(IpAddr::V6(ip)) => octets = ip.octets(),
            None => {}
        }
        keyed_hash(&self.options.process_secret, &[kind, &octets, user]) as u64
    }

    /// The same of the site that a source is at: of IPv6 anybody has as many addresses as he likes of his /64 (RFC 4291 section 2.5.4).
    fn site_key(&self, kind: &[u8], source: IpAddr, account: &[u8]) -> u64 {
        let site = match source.to_canonical() {
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
            v4 @ IpAddr::V4(_) => v4,
        };
        self.key(kind, Some(site), account)
    }

    /// Whether `source` is not listened to at all.
    pub(crate) fn is_banned(&self, now: Now, source: IpAddr) -> bool {
        let bans = &self.snapshot.defence.bans;
        !bans.is_empty() && bans.has(self.key(b"ban", Some(source), b""), Self::seconds_of(now))
    }

    /// Whether nothing that `source` sends is listened to but a call for help: whoever called for help goes on with that.
    pub fn shuts_out(&self, now: Now, source: IpAddr) -> bool {
        self.is_banned(now, source) && !self.called_for_help(now, source)
    }

    /// `source` asked for help.
    pub(crate) fn note_called_for_help(&self, now: Now, source: IpAddr) {
        self.snapshot.defence.known.note(self.key(b"help", Some(source), b""), Self::seconds_of(now));
    }

    /// Whether `source` asked for help within the time that a call may take.
    pub(crate) fn called_for_help(&self, now: Now, source: IpAddr) -> bool {
        let last = self.snapshot.defence.known.get(self.key(b"help", Some(source), b""));
        last.is_some_and(|last| u64::from(Self::seconds_of(now).saturating_sub(last)) < self.snapshot.settings.timers.call_seconds)
    }

    /// Whether failures of `source` count: not those that seem to come from a machine of ours or of a carrier, whose address anybody may forge.
    pub(crate) fn counts(&self, source: IpAddr) -> bool {
        let settings = &self.snapshot.settings;
        let machine = |index: u16| settings.peers[usize::from(index)].kind != PeerKind::Subscribers && self.snapshot.peers.covers(index, source.to_canonical());
        !in_networks(&settings.authentication.attacks.exempt, source)
            && !(0..settings.peers.len() as u16).any(machine)
            && !self.routing.has_gateway_at(source.to_canonical(), None)
    }

    /// A nonce of somebody behind us went to `source`: only its own guesses are held against it.
    pub(crate) fn note_challenged(&self, now: Now, source: IpAddr, nonce: &[u8]) {
        self.snapshot.defence.challenged.note(self.key(b"nonce", Some(source), nonce), Self::seconds_of(now));
    }

    /// Whether this nonce went to `source`.
    pub(crate) fn was_challenged(&self, source: IpAddr, nonce: &[u8]) -> bool {
        self.snapshot.defence.challenged.get(self.key(b"nonce", Some(source), nonce)).is_some()
    }

    /// Whether `source` has been `account`, or anybody where none is named, within the time that the file says.
    pub(crate) fn came_before(&self, now: Now, source: IpAddr, account: &[u8]) -> bool {
        let known = self.snapshot.settings.authentication.attacks.known_seconds;
        let last = self.snapshot.defence.known.get(self.site_key(b"known", source, account));
        last.is_some_and(|last| Self::seconds_of(now).saturating_sub(last) < known)
    }

    /// Whether `source` may try to be `account`.
    pub(crate) fn may_try(&self, now: Now, source: IpAddr, account: &[u8], for_help: bool) -> MayTry {
        let attacks = &self.snapshot.settings.authentication.attacks;
        let (seconds, window) = (Self::seconds_of(now), attacks.window_seconds);
        let failures = &self.snapshot.defence.failures;
        // A neighbour's failures must not keep anybody from calling for help; as many guesses more are none that matter.
        let helps = for_help && failures.get(self.site_key(b"help-pair", source, account), seconds, window) < attacks.pair_failures;
        let passes = |verdict: MayTry| if helps { MayTry::Yes } else { verdict };
        if !self.counts(source) {
            MayTry::Yes
        } else if failures.get(self.site_key(b"pair", source, account), seconds, window) >= attacks.pair_failures {
            passes(MayTry::Pair)
        } else if failures.get(self.site_key(b"source", source, b""), seconds, window) >= attacks.source_failures
            && (self.is_banned(now, source) || !self.came_before(now, source, b""))
        {
            // One that is banned and calls for help guesses no more than others do, nor does another address of its site.
            MayTry::Pair
        } else if failures.get(self.key(b"user", None, account), seconds, window) >= attacks.user_failures && !self.came_before(now, source, account) {
            passes(MayTry::User)
        } else {
            MayTry::Yes
        }
    }

    /// `source` failed to be `account`.
    pub(crate) fn note_failed(&mut self, now: Now, arrival: &Hop, account: &[u8], for_help: bool) {
        self.counters.authentication_failed.add();
        let source = arrival.address.ip();
        if for_help {
            let window = self.snapshot.settings.authentication.attacks.window_seconds;
            self.snapshot.defence.failures.add(self.site_key(b"help-pair", source, account), Self::seconds_of(now), window);
        }
        if !self.counts(source) {
            return;
        }
        self.score(now, arrival, |settings| settings.failed_points, "a failed authentication");
        let counts = self.failure_keys(source, account).map(|key| {
            let after = self.snapshot.defence.failures.add(key, Self::seconds_of(now), self.snapshot.settings.authentication.attacks.window_seconds);
            (after.saturating_sub(1), after)
        });
        self.share_failure(source, account, false);
        self.judge_failures(now, source, Some(arrival.transport), account, counts);
    }

    /// Under what failures of a pair, a user and a source are counted.
    fn failure_keys(&self, source: IpAddr, account: &[u8]) -> [u64; 3] {
        [self.site_key(b"pair", source, account), self.key(b"user", None, account), self.site_key(b"source", source, b"")]
    }

    /// Lets other nodes know, where attacks are shared.
    fn share_failure(&mut self, source: IpAddr, account: &[u8], cleared: bool) {
        if self.snapshot.settings.shared.is_some_and(|shared| shared.attacks) {
            let account = String::from_utf8_lossy(account).chars().take(SHARED_ACCOUNT).collect();
            self.out.failures.push(Failure { source: source.to_canonical(), account, cleared });
        }
    }

    /// What all nodes together counted of failures: what is more than is known here counts here too.
    pub fn raise_failures(&mut self, now: Now, told: &[SharedFailures]) {
        let (seconds, window) = (Self::seconds_of(now), self.snapshot.settings.authentication.attacks.window_seconds);
        for told in told {
            let keys = self.failure_keys(told.source, told.account.as_bytes());
            let failures = Arc::clone(&self.snapshot.defence.failures);
            let raised = |(key, total): (u64, u32)| {
                let before = failures.get(key, seconds, window);
                (before, if total > before { failures.add_many(key, total - before, seconds, window) } else { before })
            };
            let [pair, user, source] = keys;
            let counts = [(pair, told.of_pair), (user, told.of_user), (source, told.of_source)].map(raised);
            self.judge_failures(now, told.source, None, told.account.as_bytes(), counts);
        }
    }

    /// Another node listens to `source` no more: neither does this one, unless somebody known comes from there; whether that is new.
    /// Why that was nobody tells: it is taken to be for datagrams, whose address may be forged.
    pub fn ban_with_others(&mut self, now: Now, source: IpAddr, seconds: u32, reason: &str) -> bool {
        let bans = self.counts(source) && !self.came_before(now, source, b"");
        bans && self.ban_seen(now, source, seconds, reason, Some(Transport::Udp), false) == BanChange::New
    }

    /// Tells what crossed a threshold, and bans a source that did; `counts` are those of pair, user and source before and after.
    fn judge_failures(&mut self, now: Now, source: IpAddr, transport: Option<Transport>, account: &[u8], counts: [(u32, u32); 3]) {
        let attacks = self.snapshot.settings.authentication.attacks.clone();
        let window = attacks.window_seconds;
        let [of_pair, of_user, (_, of_source)] = counts;
        let mut scopes = SmallVec::<[_; 3]>::from_slice(&[("pair", of_pair, attacks.pair_failures), ("user", of_user, attacks.user_failures)]);
        // Phones of one office share an address: whoever has come in from there loses what fails, and nothing else. One that tries a
        // password with many users is told of all the same.
        let known = of_source >= attacks.source_failures && self.came_before(now, source, b"");
        scopes.extend(known.then_some(("source", counts[2], attacks.source_failures)));
        for (scope, (before, count), most) in scopes {
            if before < most && count >= most {
                self.counters.attacks_noticed.add();
                let (shown, place) = (self.shown_text(account), self.shown_text(source.to_string().as_bytes()));
                log::warn!(target: "authenticate", "attack: {count} failures in {window} s, {scope}, user {shown}, last from {place}");
                let at = account.iter().rposition(|byte| *byte == b'@').unwrap_or(account.len());
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let (user, domain) = (text(&account[..at]), text(account.get(at + 1..).unwrap_or_default()));
                self.tell(now, EventKind::AuthAttack, |_| {
                    vec![scope.into(), source.to_string().into(), user.into(), u64::from(count).into(), u64::from(window).into(), domain.into()]
                });
            }
        }
        if of_source >= attacks.source_failures && !known {
            self.ban_seen(now, source, attacks.ban_seconds, &format!("{of_source} failed authentications in {window} s"), transport, false);
        }
    }

    /// Failures of a source as anybody.
    pub(crate) fn failures_of(&self, source: IpAddr, seconds: u32, window: u32) -> u32 {
        self.snapshot.defence.failures.get(self.site_key(b"source", source, b""), seconds, window)
    }

    /// `source` is `account`.
    pub(crate) fn note_authenticated(&mut self, now: Now, arrival: &Hop, account: &[u8]) {
        self.counters.authenticated.add();
        let source = arrival.address.ip();
        self.note_known(now, source, account);
        let (key, failures) = (self.site_key(b"pair", source, account), &self.snapshot.defence.failures);
        let failed = failures.get(key, Self::seconds_of(now), self.snapshot.settings.authentication.attacks.window_seconds) > 0;
        failures.clear(key);
        if failed {
            self.share_failure(source, account, true);
        }
    }

    /// `account` came from `source` before.
    pub(crate) fn note_known(&self, now: Now, source: IpAddr, account: &[u8]) {
        let defence = &self.snapshot.defence;
        defence.known.note(self.site_key(b"known", source, account), Self::seconds_of(now));
        defence.known.note(self.site_key(b"known", source, b""), Self::seconds_of(now));
    }

    /// Listens to `source` no more for so many seconds, whatever ban there was.
    pub fn ban(&mut self, now: Now, source: IpAddr, seconds: u32, reason: &str) -> BanChange {
        self.ban_seen(now, source, seconds, reason, None, true)
    }

    /// The same for a source whose packets came by `transport`.
    pub(crate) fn ban_seen(&mut self, now: Now, source: IpAddr, seconds: u32, reason: &str, transport: Option<Transport>, replaces: bool) -> BanChange {
        let since = Self::seconds_of(now);
        let source = source.to_canonical();
        let ban = Ban { source, since, until: since.saturating_add(seconds), reason: reason.to_owned(), proto: transport.map_or("", proto_of) };
        let change = self.snapshot.defence.bans.add(self.key(b"ban", Some(source), b""), ban, replaces);
        if change == BanChange::New {
            self.counters.bans_added.add();
        }
        if matches!(change, BanChange::New | BanChange::Changed) {
            log::warn!(target: "guard", "banned {source} for {seconds} s: {reason}");
            let reason = reason.to_owned();
            self.tell(now, EventKind::BanAdded, |_| {
                vec![source.to_string().into(), u64::from(seconds).into(), reason.into(), transport.map_or("", proto_of).into()]
            });
        }
        change
    }

    /// Listens to `source` again; false where it was not banned.
    pub fn unban(&mut self, now: Now, source: IpAddr, reason: &str) -> bool {
        let source = source.to_canonical();
        let found = self.snapshot.defence.bans.remove(self.key(b"ban", Some(source), b""), source);
        if let Some(ban) = &found {
            // Whoever is let in again begins anew: the next failure is the first one.
            self.snapshot.defence.failures.clear(self.site_key(b"source", source, b""));
            self.tell_ban_over(now, ban, reason);
        }
        found.is_some()
    }

    fn tell_ban_over(&mut self, now: Now, ban: &Ban, reason: &str) {
        self.tell_unblocked(now, ban, reason);
        let source = ban.source;
        log::info!(target: "guard", "ban of {source} is over: {reason}");
        let reason = reason.to_owned();
        self.tell(now, EventKind::BanRemoved, |_| vec![source.to_string().into(), reason.into()]);
    }

    /// Ends the bans whose time is over.
    pub(crate) fn sweep_bans(&mut self, now: Now) {
        for ban in self.snapshot.defence.bans.sweep(Self::seconds_of(now)) {
            self.tell_ban_over(now, &ban, "its time is over");
        }
        self.counters.bans.set(self.snapshot.defence.bans.len() as u64);
    }
}
