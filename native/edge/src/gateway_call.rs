//! A call's place at a gateway, and what its attempts say of that: health, and quality for the rule.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use proto::{Key, Moment, Now};
use routing::{Down, Final, GatewayState, Grade, Outcome, Pair, Profile, Trial};
use syntax::Method;

use crate::edge::Edge;
use crate::event::EventKind;
use crate::routing_table::Places;

/// A call's place at the gateway that it goes to, and at its carrier.
#[derive(Debug)]
pub(crate) struct GatewayCall {
    gateway: Arc<GatewayState>,
    pub(crate) carrier: Option<Arc<GatewayState>>,
    /// Held for as long as the call lasts.
    pub(crate) places: Option<Places>,
    partition: usize,
    /// The peer whose machine it is, where that is a pool.
    pool: Option<u16>,
    /// `ruleid` of the rule that led there.
    pub(crate) rule: u32,
    sent: Moment,
    /// Whether probes tell of the gateway.
    probed: bool,
    /// How the gateway does for that rule.
    pair: Option<Arc<Pair>>,
    profile: Option<Arc<Profile>>,
}

impl GatewayCall {
    pub(crate) fn gateway(&self) -> &Arc<GatewayState> {
        &self.gateway
    }

    /// Counts something at the gateway and at its carrier.
    pub(crate) fn count(&self, add: impl Fn(&GatewayState)) {
        add(&self.gateway);
        if let Some(carrier) = &self.carrier {
            add(carrier);
        }
    }
}

impl Edge {
    /// Takes a place at the gateway of the attempt at hand.
    pub(crate) fn gateway_call(&mut self, now: Now, entry: Key) -> Option<Box<GatewayCall>> {
        let pair = self.pair_of(entry);
        let transaction = self.transactions.get_mut(entry)?;
        let is_call = transaction.method == Method::Invite;
        let plan = transaction.plan.as_mut()?;
        let pick = plan.current?;
        // Another address of a gateway, or another transport, comes after a place that was given back.
        let places = is_call.then(|| plan.places.take().unwrap_or_else(|| plan.routing.partitions[plan.partition].places(pick)));
        let gateway = plan.table().gateways.get(pick.gateway as usize)?;
        // Of all calls that find its time come, one is the trial.
        gateway.state.begin_trial(now.moment.0);
        let carrier = pick.carrier.and_then(|index| plan.table().carriers.get(index as usize));
        let call = GatewayCall {
            gateway: Arc::clone(&gateway.state),
            carrier: carrier.map(|carrier| Arc::clone(&carrier.state)),
            places,
            partition: plan.partition,
            pool: plan.terms.pool.map(|(peer, _)| peer),
            rule: plan.rule_id(),
            sent: now.moment,
            probed: gateway.is_probed(),
            profile: pair.as_ref().and_then(|_| plan.table().profile(plan.rule()?).map(Arc::clone)),
            pair,
        };
        call.count(|state| {
            state.attempts.fetch_add(1, Relaxed);
        });
        Some(Box::new(call))
    }

    /// An attempt at a gateway ended with `outcome`, or with a 2xx: what that says of its health.
    pub(crate) fn note_gateway(&mut self, now: Now, call: &GatewayCall, outcome: Option<Outcome>) {
        let rules = self.snapshot.health;
        let state = Arc::clone(call.gateway());
        let trial = Trial { sent: call.sent.0, probed: call.probed };
        if let Some(pair) = &call.pair {
            let ended = match outcome {
                None => Final::Answered,
                Some(Outcome::Refused(code, _)) => Final::of_code(code),
                Some(Outcome::RangOut) => Final::Complete,
                Some(Outcome::Silence | Outcome::Unreachable | Outcome::OutOfReach) => Final::Failed,
            };
            pair.note_final(now.moment.0, &self.snapshot.quality, ended, now.moment.since(call.sent) / 1_000);
            self.judge(now, call);
        }
        let changed = match outcome {
            None => {
                call.count(|state| {
                    state.answered.fetch_add(1, Relaxed);
                });
                state.note_attempt(now.moment.0, trial, false, &rules)
            }
            Some(Outcome::RangOut) => {
                call.count(|state| {
                    state.rang_out.fetch_add(1, Relaxed);
                });
                state.note_attempt(now.moment.0, trial, false, &rules)
            }
            Some(Outcome::Silence) => {
                call.count(|state| {
                    state.silent.fetch_add(1, Relaxed);
                });
                state.note_attempt(now.moment.0, trial, true, &rules)
            }
            Some(Outcome::Unreachable) => {
                call.count(|state| {
                    state.unreachable.fetch_add(1, Relaxed);
                });
                state.take_down(now.moment.0, Down::Refused)
            }
            // A name that a server does not know for a moment is no reason to do without the gateway at once.
            Some(Outcome::OutOfReach) => {
                call.count(|state| {
                    state.unreachable.fetch_add(1, Relaxed);
                });
                state.note_attempt(now.moment.0, trial, true, &rules)
            }
            Some(Outcome::Refused(code, _)) => {
                call.count(|state| {
                    state.finals[usize::from(code / 100).min(6)].fetch_add(1, Relaxed);
                });
                state.note_attempt(now.moment.0, trial, self.snapshot.settings.health.failure_codes.contains(&code), &rules)
            }
        };
        if changed {
            self.tell_gateway(now, call.partition, call.pool, &state);
        }
    }

    /// The pair of the rule and the gateway of a plan, as this worker knows it.
    fn pair_of(&mut self, entry: Key) -> Option<Arc<Pair>> {
        let most = self.snapshot.settings.quality.pairs;
        let plan = self.transactions.get(entry)?.plan.as_ref().filter(|plan| plan.terms.pool.is_none())?;
        let (pick, rule) = (plan.current?, plan.rule()?.id);
        let key = (plan.partition, rule, pick.gateway);
        let current = Arc::ptr_eq(&plan.routing, &self.routing);
        if current && let Some(Some(pair)) = self.pairs.get(&key) {
            return Some(Arc::clone(pair));
        }
        let gateway = plan.table().gateways.get(pick.gateway as usize)?;
        let found = plan.table().quality.pair(rule, gateway.id(), most);
        match &found {
            Some(pair) if current => drop(self.pairs.insert(key, Some(Arc::clone(pair)))),
            Some(_) => {}
            None => self.counters.quality_pairs_refused.add(),
        }
        found
    }

    /// An attempt at a gateway rang for the first time.
    pub(crate) fn note_gateway_ringing(&self, now: Now, entry: Key, attempt: usize) {
        let branch = self.transactions.get(entry).and_then(|transaction| transaction.branches.get(attempt));
        if let Some((call, pair)) = branch.and_then(|branch| branch.gateway.as_deref()).and_then(|call| Some((call, call.pair.as_ref()?))) {
            pair.note_ringing(now.moment.0, &self.snapshot.quality, now.moment.since(call.sent) / 1_000);
        }
    }

    /// A call that was answered by way of a gateway is over.
    pub(crate) fn note_gateway_end(&mut self, now: Now, call: &GatewayCall, seconds: u64) {
        if let Some(pair) = &call.pair {
            pair.note_end(now.moment.0, &self.snapshot.quality, seconds);
            self.judge(now, call);
        }
    }

    /// Tells where a gateway crosses a threshold of its rule's profile, either way.
    fn judge(&mut self, now: Now, call: &GatewayCall) {
        let (Some(pair), Some(profile)) = (&call.pair, &call.profile) else { return };
        let Some((before, after)) = pair.judge(now.moment.0, &self.snapshot.quality, profile) else { return };
        let (id, rule) = (call.gateway().id.to_string(), call.rule);
        log::warn!(target: "routing", "gateway {id} for rule {rule}: quality {} after {}", grade_name(after), grade_name(before));
        let kind = if after > before { EventKind::QroutingBad } else { EventKind::QroutingGood };
        let partition = call.partition;
        self.tell(now, kind, |edge| {
            let there = edge.routing.partitions.get(partition).map_or("", |there| if there.name.is_empty() { "default" } else { &there.name });
            vec![there.into(), u64::from(rule).into(), id.into(), grade_name(after).into()]
        });
    }

    /// Tells that a gateway went down or came back.
    pub(crate) fn tell_gateway(&mut self, now: Now, partition: usize, pool: Option<u16>, state: &GatewayState) {
        let down = state.down();
        let id = state.id.to_string();
        if down == Down::No {
            log::warn!(target: "routing", "gateway {id} is back");
        } else {
            log::warn!(target: "routing", "gateway {id} is out of the rotation: {}", down.reason());
            self.counters.gateways_taken_down.add();
        }
        if pool.is_some() {
            let status = if down == Down::No { "active" } else { "inactive" };
            return self.tell(now, EventKind::DispatcherStatus, |edge| vec!["default".into(), edge.peer_name(pool).into(), id.into(), status.into()]);
        }
        self.tell(now, EventKind::DroutingStatus, |edge| {
            let there = edge.routing.partitions.get(partition);
            let gateway = there.and_then(|there| there.table.gateways.get(there.table.gateway(&id)? as usize));
            let name = there.map_or("", |there| if there.name.is_empty() { "default" } else { &there.name });
            let address = gateway.map_or("", |gateway| &gateway.uri);
            vec![name.into(), id.into(), address.into(), if down == Down::No { "active" } else { "inactive" }.into(), down.reason().into()]
        });
    }
}

fn grade_name(grade: Grade) -> &'static str {
    match grade {
        Grade::Good => "good",
        Grade::Warning => "warning",
        Grade::Critical => "critical",
    }
}
