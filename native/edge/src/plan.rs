//! A request's way over gateways: which one is next, and whether one follows.

use std::collections::VecDeque;
use std::sync::Arc;

use proto::{Key, Now};
use routing::{Outcome, Pick, QualityRules, Rule, Search, SearchOptions, Table, Whitelist};
use syntax::{Message, Method, Uri};

use crate::carrier_settings::{Balance, CallerGroups, CarrierRouteSettings, RouteTerms};
use crate::chooser::Chooser;
use crate::edge::Edge;
use crate::gateway_uri::{dialled, loses_plus, normal, routing_number, unescaped, write_uri};
use crate::policy::VerdictError;
use crate::routing_table::{Places, Routing};
use crate::transaction::Transaction;
use crate::verdict::{PolicyEvent, Verdict, VerdictKind};

/// One request's way over its gateways.
pub(crate) struct Plan {
    pub(crate) routing: Arc<Routing>,
    pub(crate) partition: usize,
    pub(crate) terms: Arc<RouteTerms>,
    search: Search,
    /// Gateways that a call for help passed over as down or switched off: it tries them where no other is left.
    passed_over: VecDeque<Pick>,
    number: Vec<u8>,
    /// The number had a plus sign, which those of the table cannot have.
    plus: bool,
    pub(crate) current: Option<Pick>,
    /// The call's places there, until its attempt takes them.
    pub(crate) places: Option<Places>,
    /// The Request-URI of the attempt at hand.
    pub(crate) request_uri: Vec<u8>,
    /// How the last attempt ended.
    pub(crate) outcome: Option<Outcome>,
    /// Another gateway may be tried without asking anybody.
    pub(crate) goes_on: bool,
    /// A policy says when: it is asked after each failure.
    pub(crate) asks: bool,
    /// The rule whose handler was asked last, by its place.
    asked: Option<u32>,
    /// The gateway at hand waits for the handler of its rule.
    held: bool,
    /// Destinations of the first rule are sorted.
    begun: bool,
    /// No gateway was left when one was wanted.
    pub(crate) exhausted: bool,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plan({})", String::from_utf8_lossy(&self.number))
    }
}

impl Plan {
    pub(crate) fn table(&self) -> &Table {
        &self.routing.partitions[self.partition].table
    }

    /// Whether a rule was found; it may be used up since.
    pub(crate) fn has_rule(&self) -> bool {
        self.search.has_found()
    }

    pub(crate) fn rule(&self) -> Option<&Rule> {
        self.table().rule(self.search.rule()?)
    }

    pub(crate) fn rule_id(&self) -> u32 {
        self.rule().map_or(0, |rule| rule.id)
    }

    /// Whether no further gateway will come of it.
    pub(crate) fn is_spent(&self) -> bool {
        !self.goes_on || !self.has_more()
    }

    /// Whether rules name further gateways, whoever may ask for them.
    pub(crate) fn has_more(&self) -> bool {
        !self.search.is_spent() || !self.passed_over.is_empty()
    }

    /// Whether the rule at hand has a handler that was not asked yet.
    fn comes_to_handler(&self) -> bool {
        self.search.rule() != self.asked && self.rule().is_some_and(|rule| !self.table().handler(rule).is_empty())
    }

    /// The handler of the rule at hand; it is asked once.
    pub(crate) fn handler_to_ask(&mut self) -> Option<String> {
        let handler = self.table().handler(self.rule()?).to_owned();
        self.asked = self.search.rule();
        Some(handler)
    }

    /// Gateways get the number of this user part from now on; the rules stay those that were found.
    pub(crate) fn take_number(&mut self, user: &[u8]) {
        let number = user.split(|byte| *byte == b';').next().unwrap_or_default();
        (self.number, self.plus) = (normal(self.table(), number), loses_plus(self.table(), number));
    }

    /// The name of the partition, empty for the tables without one.
    pub(crate) fn partition_name(&self) -> &Arc<str> {
        &self.routing.partitions[self.partition].name
    }

    /// Handler, number and attributes of the rule at hand, as they cross.
    pub(crate) fn rule_in_words(&self) -> String {
        let Some(rule) = self.rule() else { return String::new() };
        format!("{}\x1f{}\x1f{}", self.table().handler(rule), rule.id, self.table().attrs(rule))
    }

    /// The gateway at hand with its attributes and those of the carrier that it was found by, as they cross.
    pub(crate) fn gateway_in_words(&self) -> String {
        let Some(pick) = self.current else { return String::new() };
        let Some(gateway) = self.table().gateways.get(pick.gateway as usize) else { return String::new() };
        let carrier = pick.carrier.and_then(|carrier| self.table().carriers.get(carrier as usize)).map_or("", |carrier| &carrier.attrs);
        format!("{}\x1f{}\x1f{carrier}", gateway.id(), gateway.attrs)
    }

    /// Whether the number of the Request-URI for the gateway at hand lacks nothing but its plus sign.
    pub(crate) fn lost_plus(&self) -> bool {
        let gateway = self.current.and_then(|pick| self.table().gateways.get(pick.gateway as usize));
        self.plus && gateway.is_some_and(|gateway| gateway.strip == 0 && gateway.prefix.is_empty())
    }

    /// The name of the gateway at hand.
    pub(crate) fn gateway_name(&self) -> &str {
        self.current.and_then(|pick| self.table().gateways.get(pick.gateway as usize)).map_or("", |gateway| gateway.id())
    }
}

impl Edge {
    /// The way of a request over the rules of a route, where its partition is there; `number` in place of that of the Request-URI,
    /// and `key` in place of the one that rules are looked up by.
    pub(crate) fn plan(&self, now: Now, terms: &Arc<RouteTerms>, message: &Message<'_>, number: Option<&[u8]>, key: &[u8]) -> Option<Box<Plan>> {
        self.plan_over(now, &self.routing, terms, message, number, key)
    }

    /// The way of a request over the machines of a peer that is a pool.
    pub(crate) fn pool_plan(&self, now: Now, peer: u16, message: &Message<'_>) -> Option<Box<Plan>> {
        let pool = self.snapshot.pools.get(usize::from(peer))?.as_ref()?;
        self.plan_over(now, &pool.routing, &pool.terms, message, Some(b""), b"")
    }

    fn plan_over(
        &self,
        now: Now,
        routing: &Arc<Routing>,
        terms: &Arc<RouteTerms>,
        message: &Message<'_>,
        number: Option<&[u8]>,
        key: &[u8],
    ) -> Option<Box<Plan>> {
        let routing = Arc::clone(routing);
        let partition = routing.partitions.iter().position(|partition| *partition.name == *terms.settings.partition)?;
        let table = &routing.partitions[partition].table;
        let settings = &terms.settings;
        // A ported number is known by its routing number (RFC 4694 section 5), and called by its own.
        let ported = if number.is_none() && key.is_empty() && settings.by_routing_number && !settings.check_only {
            routing_number(table, message, &message.head.request_uri)
        } else {
            None
        };
        let plus = loses_plus(table, number.unwrap_or_else(|| message.text(message.head.request_uri.user)));
        let number = number.map_or_else(|| dialled(table, message, &message.head.request_uri), |number| normal(table, number));
        let looked_up = ported.or_else(|| (!key.is_empty()).then(|| normal(table, key)));
        let options = SearchOptions {
            fall_back: settings.fall_back,
            whole_number: settings.whole_number,
            by_weight: settings.by_weight,
            whitelist: (!settings.whitelist.is_empty()).then(|| Whitelist::new(table, &settings.whitelist)),
            key: match terms.pool {
                Some((_, Balance::CallId)) => self.hash_of(message.call_id()),
                Some((_, Balance::Account)) => self.hash_of(message.text(message.head.from.uri)),
                _ => 0,
            },
        };
        let group = self.group_of(table, settings, message);
        let search = Search::new(table, group, looked_up.as_deref().unwrap_or(&number), options, (now.wall / 1_000_000) as i64);
        if terms.pool.is_none() {
            self.counters.route_searches.add();
        }
        if search.rule().is_none() {
            self.counters.route_misses.add();
        }
        if search.unexpected.is_some() {
            self.counters.route_unexpected_characters.add();
        }
        Some(Box::new(Plan {
            terms: Arc::clone(terms),
            partition,
            search,
            passed_over: VecDeque::new(),
            number,
            plus,
            current: None,
            places: None,
            request_uri: Vec::new(),
            outcome: None,
            goes_on: true,
            asks: false,
            asked: None,
            held: false,
            begun: false,
            exhausted: false,
            routing,
        }))
    }

    /// The group whose rules hold: that of the caller where it has one, if that is wished.
    fn group_of(&self, table: &Table, settings: &CarrierRouteSettings, message: &Message<'_>) -> u32 {
        if settings.caller_groups == CallerGroups::Off {
            return settings.group;
        }
        let Ok(from) = Uri::parse(message.bytes, message.head.from.uri) else { return settings.group };
        let domain = (settings.caller_groups == CallerGroups::UserAndDomain).then(|| message.text(from.host));
        table.group_of(&unescaped(message.text(from.user)), domain).unwrap_or(settings.group)
    }

    /// The same for the same text on every worker and after a restart.
    fn hash_of(&self, text: &[u8]) -> u64 {
        proto::keyed_hash(&self.options.route_secret, &[b"pool", text]) as u64
    }

    /// Makes or goes on with the plan that a verdict asks for.
    pub(crate) fn plan_anew(&mut self, now: Now, entry: Key, verdict: &Verdict) -> Result<(), VerdictError> {
        match verdict.kind {
            VerdictKind::Relay | VerdictKind::Reply => {
                self.drop_plan(entry);
                if !verdict.peer.is_empty()
                    && let Some(peer) = self.snapshot.settings.peers.iter().position(|peer| peer.name == verdict.peer)
                {
                    let plan = self.with_request(entry, |edge, message| edge.pool_plan(now, peer as u16, message)).flatten();
                    if let Some(transaction) = self.transactions.get_mut(entry) {
                        transaction.plan = plan;
                    }
                }
            }
            VerdictKind::Next => {
                let plan = self.transactions.get_mut(entry).and_then(|transaction| transaction.plan.as_mut());
                plan.ok_or(VerdictError::NoTarget)?.goes_on = true;
            }
            VerdictKind::Route => {
                let found = self.snapshot.routes.iter().find(|route| verdict.route.is_empty() || route.settings.name == verdict.route);
                let mut terms = RouteTerms::clone(found.ok_or_else(|| VerdictError::Route(verdict.route.clone()))?);
                let settings = &mut terms.settings;
                settings.group = verdict.group.unwrap_or(settings.group);
                settings.fall_back = verdict.fall_back.unwrap_or(settings.fall_back);
                settings.whole_number = verdict.whole_number.unwrap_or(settings.whole_number);
                if !verdict.whitelist.is_empty() {
                    settings.whitelist.clone_from(&verdict.whitelist);
                }
                let number = (!verdict.number.is_empty()).then_some(verdict.number.as_bytes());
                self.replace_plan(now, entry, &Arc::new(terms), number, verdict.routing_number.as_bytes(), true)?;
            }
            VerdictKind::Continue if !verdict.edits.is_empty() || !verdict.routing_number.is_empty() => {
                // The policy may have given it another number.
                // Once something was tried, going on means what is left of that.
                let asked_first = |transaction: &Transaction| {
                    transaction.branches.is_empty() && transaction.policy.as_ref().is_some_and(|state| state.event == PolicyEvent::Request)
                };
                let terms = self.transactions.get(entry).filter(|transaction| asked_first(transaction)).and_then(|transaction| transaction.plan.as_ref());
                // A pool does not look at the number.
                if let Some(terms) = terms.map(|plan| Arc::clone(&plan.terms)).filter(|terms| terms.pool.is_none()) {
                    self.replace_plan(now, entry, &terms, None, verdict.routing_number.as_bytes(), false)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn replace_plan(
        &mut self,
        now: Now,
        entry: Key,
        terms: &Arc<RouteTerms>,
        number: Option<&[u8]>,
        key: &[u8],
        asks: bool,
    ) -> Result<(), VerdictError> {
        let plan = self.with_request(entry, |edge, message| edge.plan(now, terms, message, number, key)).flatten();
        let mut plan = plan.ok_or_else(|| VerdictError::Route(terms.settings.name.clone()))?;
        plan.asks = asks;
        if let Some(transaction) = self.transactions.get_mut(entry) {
            transaction.targets.clear();
            transaction.addresses.clear();
            if let Some(shape) = transaction.shape.as_mut() {
                shape.parallel = false;
            }
            transaction.plan = Some(plan);
        }
        Ok(())
    }

    fn drop_plan(&mut self, entry: Key) {
        if let Some(transaction) = self.transactions.get_mut(entry) {
            transaction.plan = None;
        }
    }

    /// Makes the next gateway of a request's plan its target; false where there is none.
    pub(crate) fn next_gateway(&mut self, now: Now, entry: Key, message: &Message<'_>) -> bool {
        let Some(mut plan) = self.transactions.get_mut(entry).and_then(|transaction| transaction.plan.take()) else { return false };
        let found = plan.goes_on && (std::mem::take(&mut plan.held) || self.pick(now, &mut plan, message));
        if found && plan.comes_to_handler() {
            plan.held = true;
            if let Some(transaction) = self.transactions.get_mut(entry) {
                transaction.plan = Some(plan);
            }
            return self.ask_about_rule(now, entry, message);
        }
        if found {
            let pick = plan.current;
            let Plan { routing, partition, number, request_uri, terms, .. } = &mut *plan;
            let partition = &routing.partitions[*partition];
            let index = pick.map_or(0, |pick| pick.gateway) as usize;
            let (gateway, hop) = (&partition.table.gateways[index], &partition.hops[index]);
            let listener = hop.listener(&self.snapshot.settings.listeners);
            let peer = match terms.pool {
                Some((peer, _)) => Some(peer),
                None => {
                    write_uri(gateway, number, message, &message.head.request_uri, request_uri);
                    self.snapshot.gateway_peer(gateway.kind)
                }
            };
            let target = hop.target.clone();
            if let Some(transaction) = self.transactions.get_mut(entry) {
                transaction.targets.push(target);
                if let Some(shape) = transaction.shape.as_mut() {
                    shape.policy = peer;
                    shape.listener = listener.or_else(|| peer.and_then(|peer| self.snapshot.peer_listeners[usize::from(peer)]));
                }
            }
        } else if plan.goes_on {
            plan.exhausted = true;
        }
        if plan.asks {
            plan.goes_on = false;
        }
        if let Some(transaction) = self.transactions.get_mut(entry) {
            transaction.plan = Some(plan);
        }
        found
    }

    /// Takes the next gateway that is usable and, for a call, has a place left. Whoever calls for help takes a bad line, a full one,
    /// and at the last one that is down.
    fn pick(&mut self, now: Now, plan: &mut Plan, message: &Message<'_>) -> bool {
        let first = !std::mem::replace(&mut plan.begun, true);
        let (seed, emergency) = (self.random(), self.is_emergency(message));
        let snapshot = Arc::clone(&self.snapshot);
        let Plan { routing, partition, search, passed_over, .. } = plan;
        let there = &routing.partitions[*partition];
        let pairs = Arc::ptr_eq(routing, &self.routing).then_some(&mut self.pairs);
        let quality = QualityRules { drop: snapshot.quality.drop && !emergency, ..snapshot.quality };
        let mut chooser =
            Chooser { there, health: &snapshot.health, quality: &quality, pairs, partition: *partition, now: now.moment.0, for_help: emergency, state: seed };
        if first {
            search.begin(&there.table, &mut chooser);
        }
        let mut full = Vec::new();
        let mut places = None;
        let found = search.pick_that(&there.table, &mut chooser, |pick| {
            let carrier_is_off = || pick.carrier.and_then(|carrier| there.table.carriers.get(carrier as usize)).is_some_and(|carrier| carrier.state.is_off());
            if emergency && (carrier_is_off() || !there.is_usable(pick.gateway, now.moment.0, &snapshot.health)) {
                passed_over.push_back(pick);
                return false;
            }
            if message.head.method != Method::Invite {
                return true;
            }
            let admitted = if emergency { Ok(there.places(pick)) } else { there.admit(now.moment.0, pick) };
            match admitted {
                Ok(found) => places = Some(found),
                Err(why) => full.push((pick.gateway, why)),
            }
            places.is_some()
        });
        plan.current = found.or_else(|| passed_over.pop_front().inspect(|pick| places = Some(there.places(*pick))));
        plan.places = places;
        for (gateway, why) in full {
            self.counters.gateways_full.add();
            let name = plan.table().gateways.get(gateway as usize).map_or("", |gateway| gateway.id());
            self.decide(message.call_id(), |_| format!("relay: gateway {name} has {}", why.reason()));
        }
        plan.current.is_some()
    }

    /// Whether the next gateway is tried after an attempt that ended as its plan has it.
    pub(crate) fn plan_goes_on(&self, entry: Key) -> Option<bool> {
        let transaction = self.transactions.get(entry)?;
        let plan = transaction.plan.as_ref()?;
        let retries = plan.outcome.is_some_and(|outcome| plan.terms.retry.retries(outcome));
        Some(retries && !transaction.caller_cancelled && !(plan.is_spent() && transaction.targets.is_empty() && transaction.addresses.is_empty()))
    }

    /// Notes how the last attempt of a plan ended, and what that says of its gateway.
    pub(crate) fn end_attempt(&mut self, now: Now, entry: Key, attempt: usize, outcome: Outcome, of_gateway: Option<Outcome>) {
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        let caller_cancelled = transaction.caller_cancelled;
        if let Some(plan) = transaction.plan.as_mut() {
            plan.outcome = Some(outcome);
            if !plan.asks && !plan.terms.retry.retries(outcome) {
                // What ends the search says more than what was passed over before, whatever the rank of its code.
                transaction.best = None;
            }
        }
        let mut call = transaction.branches.get_mut(attempt).and_then(|branch| branch.gateway.take());
        if let (Some(call), Some(plan)) = (call.as_mut(), transaction.plan.as_mut())
            && !transaction.addresses.is_empty()
        {
            // Another address of the same gateway has its place.
            plan.places = call.places.take();
        }
        // What the caller gave up says nothing of the gateway.
        if let (Some(call), Some(_)) = (call.filter(|_| !caller_cancelled), of_gateway) {
            self.note_gateway(now, &call, of_gateway);
        }
    }

    /// The gateway at hand is followed by no other: because what it said ends the search, or because none is left.
    pub(crate) fn stop_plan(&mut self, entry: Key) {
        if let Some(plan) = self.transactions.get_mut(entry).and_then(|transaction| transaction.plan.as_mut()) {
            plan.exhausted |= plan.goes_on && plan.outcome.is_some_and(|outcome| plan.terms.retry.retries(outcome));
            plan.goes_on = false;
        }
    }
}
