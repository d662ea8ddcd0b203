//! Phases *identify* and *admit* in the life of a request that opens something.

use std::sync::Arc;

use proto::Now;
use smallvec::SmallVec;
use syntax::{HeaderName, Message, Method};

use crate::admit::Class;
use crate::edge::Edge;
use crate::hop::Hop;
use crate::limits::Halt;
use crate::matching::Refusal;
use crate::numbers::Way;
use crate::route::RouteView;
use crate::settings::{Forking, PeerKind};
use crate::subscriber_settings::RegistrarMode;
use crate::target::{NoTarget, TargetSet};
use crate::transaction::Shape;
use crate::verdict::PolicyEvent;

/// What a request is known by to its sender, where its numbers were changed.
pub(crate) struct Original {
    /// From, where that was.
    pub(crate) from: Option<Box<[u8]>>,
    /// Tells a loop.
    pub(crate) loop_hash: u64,
}

/// Max-Breadth where a request has none (RFC 5393 section 5.3.3.1).
pub(crate) const DEFAULT_BREADTH: u16 = 60;

impl Edge {
    /// A request that belongs to nothing we know: who sent it, may it, and where does it go?
    pub(crate) fn open(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, key: u128, route: &RouteView) {
        let from = message.text(message.head.from.uri);
        let Some(peer) = self.identify_sender(arrival.listener, arrival.transport, arrival.address, Some(from)) else {
            if self.snapshot.listener(arrival.listener).drained {
                return self.shed_of_drained(now, arrival, message);
            }
            self.counters.refused_strangers.add();
            if self.may_log(now) {
                let name = self.name_of_message(message);
                log::info!(target: "identify", call_id = name.call_id.as_str(), trace_id = name.trace_id.as_str(); "{} from stranger {} refused", message.head.method.as_str(), self.shown(arrival.address));
            }
            self.look_at_agent(now, arrival, message);
            self.score(now, arrival, |settings| settings.stranger_points, "a request of nobody known");
            // A flood of them from everywhere is to cost as little as can be; whoever asks again is answered later.
            if !self.refused.may_answer_stranger(self.snapshot.settings.limits.stranger_answers_per_second) {
                return self.counters.strangers_unanswered.add();
            }
            return self.refuse(now, arrival, message, None, &Refusal::new(403, "identify"));
        };
        self.counts_of(Some(peer)).requests.add();
        if self.is_ping(message, route) {
            if self.snapshot.settings.peers[usize::from(peer)].kind == PeerKind::Subscribers {
                self.look_at_agent(now, arrival, message);
            }
            if self.is_banned(now, arrival.address.ip()) {
                return;
            }
            return self.answer_ping(arrival, message);
        }
        let served = message.head.method == Method::Register && self.is_served(message);
        let keeps = served && self.registrar_mode() == RegistrarMode::Keep;
        // One that is kept here costs hardly more than its refusal; what it would wait for is refused while that is much.
        let emergency = self.is_emergency(message);
        let class = if keeps { Class::Last } else { Class::of(message, false, emergency) };
        if let Err(refusal) = self.admit(class, arrival.listener) {
            return self.refuse(now, arrival, message, Some(peer), &refusal);
        }
        let settings = &self.snapshot.settings.peers[usize::from(peer)];
        let (kind, authenticates) = (settings.kind, settings.authenticate);
        self.users.proved = None;
        let is_phone = kind == PeerKind::Subscribers;
        if authenticates && (keeps || message.head.method != Method::Register) && !self.authenticate(now, arrival, message, peer) {
            return self.look_at_agent(now, arrival, message);
        }
        if is_phone {
            if self.users.proved.is_none() {
                self.look_at_agent(now, arrival, message);
            } else if !self.account_may(now, arrival) && !emergency {
                let refusal = Refusal { headers: b"Retry-After: 5\r\n".to_vec(), ..Refusal::new(480, "guard") };
                return self.refuse(now, arrival, message, Some(peer), &refusal);
            }
        }
        // A gateway has no users; and a domain that is not ours is not one that its phones may try at the core unasked.
        let stray = message.head.method == Method::Register && (served && kind == PeerKind::Gateway || !served && authenticates);
        if stray {
            self.counters.registrations_refused.add();
            return self.refuse(now, arrival, message, Some(peer), &Refusal::new(if served { 403 } else { 404 }, "register"));
        }
        if let Some(refusal) = self.too_short(message).filter(|_| !emergency) {
            return self.refuse(now, arrival, message, Some(peer), &refusal);
        }
        if emergency {
            self.limits.held.clear();
            self.note_emergency(now, arrival, message, peer);
            self.open_admitted(now, arrival, message, key, route, peer);
            return self.forget_watched();
        }
        self.open_within(now, arrival, message, key, route, peer);
    }

    /// Somebody at a listener that is gone from the configuration, and who was known by it perhaps: its successor is elsewhere.
    fn shed_of_drained(&mut self, now: Now, arrival: &Hop, message: &Message<'_>) {
        self.counters.shed_draining.add();
        if !self.refused.may_answer_stranger(self.snapshot.settings.limits.stranger_answers_per_second) {
            return self.counters.strangers_unanswered.add();
        }
        let refusal = self.shed();
        self.refuse(now, arrival, message, None, &refusal);
    }

    /// A request of a known sender, as it came or after it waited for a place in a limit.
    pub(crate) fn open_within(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, key: u128, route: &RouteView, peer: u16) {
        match self.within_limits(now, arrival, message, peer) {
            Ok(()) => {}
            Err(Halt::Refused(refusal)) => return self.refuse(now, arrival, message, Some(peer), &refusal),
            Err(Halt::Waits(slot)) => return self.wait_for_share(now, arrival, message, peer, slot),
        }
        self.open_admitted(now, arrival, message, key, route, peer);
        // What it held has gone to its call, if there is one.
        self.limits.held.clear();
        self.forget_watched();
    }

    /// The same for one that is within every limit.
    fn open_admitted(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, key: u128, route: &RouteView, peer: u16) {
        let served = message.head.method == Method::Register && self.is_served(message);
        if served && self.registrar_mode() == RegistrarMode::Keep {
            return self.register(now, arrival, message, peer);
        }
        let is_phone = self.snapshot.settings.peers[usize::from(peer)].kind == PeerKind::Subscribers;
        if is_phone
            && message.head.method != Method::Register
            && let Err(refusal) = self.may_answer_core(now, arrival, message)
        {
            return self.refuse(now, arrival, message, Some(peer), &refusal);
        }
        if served && is_phone && !self.may_forward_register(now, arrival, message, peer) {
            return;
        }
        self.decide(message.call_id(), |edge| format!("identify: {} from peer {}", message.head.method.as_str(), edge.peer_name(Some(peer))));
        // A call for help goes by what was dialled.
        let by_number = matches!(message.head.method, Method::Invite | Method::Message) && !self.is_emergency(message);
        if by_number && let Some(numbers) = self.numbers_of(Way::In, Some(peer), || self.sender(arrival)).map(Arc::clone) {
            return self.open_renumbered(now, arrival, message, key, route, peer, &numbers);
        }
        self.aim(now, arrival, message, key, route, peer, None);
    }

    /// A request whose numbers were made those of this network; `original` is what its sender knows it by.
    #[expect(clippy::too_many_arguments, reason = "one request with what the phases before found out about it")]
    pub(crate) fn aim(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, key: u128, route: &RouteView, peer: u16, original: Option<Original>) {
        let (from, loop_hash) = original.map_or((None, None), |original| (original.from, Some(original.loop_hash)));
        if let Err(refusal) = self.within_fraud(now, message, peer) {
            return self.refuse(now, arrival, message, Some(peer), &Refusal { from, ..refusal });
        }
        let terms = self.policy_for(PolicyEvent::Request, message, peer);
        let mut found = match self.find_targets(now, message, route, peer) {
            Ok(found) => found,
            // A policy may know better.
            Err(NoTarget::NoRule(place)) if terms.is_some() => {
                let plan = self.plan(now, &self.snapshot.routes[usize::from(place)], message, None, b"");
                TargetSet { targets: SmallVec::new(), policy: None, plan, from: None, loop_hash: None }
            }
            Err(NoTarget::NotFound) if terms.is_some() => TargetSet { targets: SmallVec::new(), policy: None, plan: None, from: None, loop_hash: None },
            Err(why) => {
                self.counters.refused_no_target.add();
                let mut refusal = match why {
                    NoTarget::NoRule(place) => {
                        let (status_code, phrase) = &self.snapshot.routes[usize::from(place)].settings.not_found;
                        Refusal { reason_phrase: (!phrase.is_empty()).then(|| phrase.clone()), ..Refusal::new(*status_code, "target") }
                    }
                    NoTarget::ForeignRoute => Refusal::new(403, "target"),
                    NoTarget::NotFound => Refusal::new(404, "target"),
                };
                refusal.from = from;
                return self.refuse(now, arrival, message, Some(peer), &refusal);
            }
        };
        let breadth = breadth(message);
        if breadth == 0 {
            return self.refuse(now, arrival, message, Some(peer), &Refusal { from, ..Refusal::new(440, "target") });
        }
        (found.from, found.loop_hash) = (from, loop_hash);
        let (parallel, share) = self.spread(&found, breadth);
        let shape = Shape {
            route: *route,
            from_peer: Some(peer),
            policy: found.policy,
            listener: found.policy.and_then(|policy| self.snapshot.peer_listeners[usize::from(policy)]),
            flow: None,
            bound_to: None,
            record_route: message.head.method.opens_dialog(),
            strip_identity: !self.snapshot.settings.peers[usize::from(peer)].trust_identity,
            parallel,
            // Registered users may turn out to be several.
            breadth: share.or((breadth != DEFAULT_BREADTH).then_some(breadth)),
            dialog: None,
            call: proto::Key::NONE,
            renumber: 0,
            originated: false,
        };
        // One with a To tag too: whoever forges that must not escape the record.
        let is_call = message.head.method == Method::Invite;
        self.relay(now, arrival, message, key, shape, found, is_call, terms);
    }
}

impl Edge {
    /// Whether targets are tried at once, and what each branch gets of Max-Breadth then (RFC 5393 section 5.3).
    pub(crate) fn spread(&self, found: &TargetSet, breadth: u16) -> (bool, Option<u16>) {
        let several = found.policy.is_some_and(|policy| self.snapshot.settings.peers[usize::from(policy)].forking == Forking::Parallel);
        // Too little to share out: one after the other needs no more than one at a time.
        let parallel = several && usize::from(breadth) >= found.targets.len();
        (parallel, (parallel && found.targets.len() > 1).then(|| breadth / found.targets.len() as u16))
    }
}

/// Max-Breadth of a request, 60 where it has none or nothing that can be read (RFC 5393 section 5.3.3.1).
pub(crate) fn breadth(message: &Message<'_>) -> u16 {
    let value = message.first(HeaderName::MaxBreadth).map(|slot| slot.value.of(message.bytes));
    value.and_then(|text| std::str::from_utf8(text).ok()?.trim().parse().ok()).unwrap_or(DEFAULT_BREADTH)
}
