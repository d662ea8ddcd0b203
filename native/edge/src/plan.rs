//! Calls by provisioned rules: which gateway next, the Request-URI that it gets, and what its answers say about it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use proto::{Key, Moment, Now};
use routing::{Down, Final, GatewayLease, GatewayState, Grade, Outcome, Pair, Pick, Profile, Rule, Search, SearchOptions, Table, Whitelist};
use syntax::{HeaderName, Message, Scheme, Uri, list_elements};

use crate::chooser::Chooser;
use crate::edge::Edge;
use crate::event::EventKind;
use crate::policy::VerdictError;
use crate::routing_table::Routing;
use crate::settings::{Balance, RouteTerms};
use crate::transaction::Transaction;
use crate::verdict::{PolicyEvent, Verdict, VerdictKind};

/// Characters that only part a number's digits for readers (RFC 3966 section 5.1.1).
const SEPARATORS: &[u8] = b"-.() ";
/// Parameters of a Request-URI that say how to reach its host, which is another one now.
const PARAMETERS_OF_HOST: [&[u8]; 5] = [b"transport", b"maddr", b"lr", b"ttl", b"method"];

/// One request's way over its gateways.
pub(crate) struct Plan {
    routing: Arc<Routing>,
    partition: usize,
    pub(crate) terms: Arc<RouteTerms>,
    search: Search,
    number: Vec<u8>,
    pub(crate) current: Option<Pick>,
    /// The Request-URI of the attempt at hand.
    pub(crate) request_uri: Vec<u8>,
    /// How the last attempt ended.
    pub(crate) outcome: Option<Outcome>,
    /// Another gateway may be tried without asking anybody.
    pub(crate) goes_on: bool,
    /// A policy says when: it is asked after each failure.
    pub(crate) asks: bool,
    /// No gateway was left when one was wanted.
    pub(crate) exhausted: bool,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plan({})", String::from_utf8_lossy(&self.number))
    }
}

/// A call's place at the gateway that it goes to, and at its carrier.
#[derive(Debug)]
pub(crate) struct GatewayCall {
    pub(crate) gateway: GatewayLease,
    pub(crate) carrier: Option<GatewayLease>,
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
        self.gateway.state()
    }

    /// Counts something at the gateway and at its carrier.
    pub(crate) fn count(&self, add: impl Fn(&GatewayState)) {
        add(self.gateway.state());
        if let Some(carrier) = &self.carrier {
            add(carrier.state());
        }
    }
}

impl Plan {
    fn table(&self) -> &Table {
        &self.routing.partitions[self.partition].table
    }

    /// Whether a rule was found.
    pub(crate) fn has_rule(&self) -> bool {
        self.search.rule().is_some()
    }

    fn rule(&self) -> Option<&Rule> {
        self.table().rule(self.search.rule()?)
    }

    fn rule_id(&self) -> u32 {
        self.rule().map_or(0, |rule| rule.id)
    }

    /// Whether no further gateway will come of it.
    pub(crate) fn is_spent(&self) -> bool {
        !self.goes_on || self.search.is_spent()
    }

    /// Whether rules name further gateways, whoever may ask for them.
    pub(crate) fn has_more(&self) -> bool {
        !self.search.is_spent()
    }

    /// The name of the gateway at hand.
    pub(crate) fn gateway_name(&self) -> &str {
        self.current.and_then(|pick| self.table().gateways.get(pick.gateway as usize)).map_or("", |gateway| gateway.id())
    }
}

/// The number of a Request-URI as rules know it.
pub(crate) fn dialled(table: &Table, message: &Message<'_>, uri: &Uri) -> Vec<u8> {
    let text = message.text(uri.user);
    normal(table, text.split(|byte| *byte == b';').next().unwrap_or_default())
}

/// A number without escapes, and without what rules cannot have: a leading plus sign, and what only parts digits.
pub fn normal(table: &Table, text: &[u8]) -> Vec<u8> {
    let alphabet = table.alphabet();
    let mut number = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        let escaped = if *byte == b'%' { behind.get(..2).and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()) } else { None };
        if let Some(plain) = escaped {
            number.push(plain);
            rest = &behind[2..];
        } else {
            number.push(*byte);
        }
    }
    if number.first() == Some(&b'+') && !alphabet.has(b'+') {
        number.remove(0);
    }
    let parts = |byte: &u8| SEPARATORS.contains(byte) && !alphabet.has(*byte);
    if number.iter().all(|byte| alphabet.has(*byte) || parts(byte)) {
        number.retain(|byte| !parts(byte));
    }
    number
}

/// The Q.850 cause that a response's Reason header field names (RFC 3326 section 2).
pub(crate) fn q850_cause(message: &Message<'_>) -> Option<u16> {
    for slot in message.all(HeaderName::Reason) {
        for element in list_elements(message.bytes, slot.value) {
            let text = element.of(message.bytes);
            let mut parts = text.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            if !parts.next().is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"Q.850")) {
                continue;
            }
            let cause = parts.find_map(|part| {
                let (name, value) = part.split_at_checked(part.iter().position(|byte| *byte == b'=')?)?;
                if name.trim_ascii().eq_ignore_ascii_case(b"cause") { std::str::from_utf8(&value[1..]).ok()?.trim().parse().ok() } else { None }
            });
            if cause.is_some() {
                return cause;
            }
        }
    }
    None
}

/// Appends `text` as a user part may have it (RFC 3261 section 25.1).
fn push_user(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,/".contains(byte) {
            out.push(*byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
}

/// Appends parameters that stand in a user part (RFC 3966 section 3, RFC 3261 section 19.1.6): what could be taken for the end
/// of that is escaped.
fn push_parameters(text: &[u8], out: &mut Vec<u8>) {
    for (place, byte) in text.iter().enumerate() {
        let escape = *byte == b'%' && text.get(place + 1..place + 3).is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit));
        if escape || byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,/;".contains(byte) {
            out.push(*byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
}

/// The Request-URI for a gateway: its number and host, and of what came what does not speak of another host.
fn write_uri(gateway: &routing::Gateway, number: &[u8], message: &Message<'_>, uri: &Uri, out: &mut Vec<u8>) {
    out.clear();
    let (scheme, place) = gateway.uri.split_once(':').unwrap_or(("sip", &gateway.uri));
    out.extend_from_slice(scheme.as_bytes());
    out.push(b':');
    let number = gateway.number(number);
    if !number.is_empty() {
        push_user(&number, out);
        let user = message.text(uri.user);
        if let Some(at) = user.iter().position(|byte| *byte == b';') {
            push_parameters(&user[at..], out);
        }
        if uri.scheme == Scheme::Tel {
            push_parameters(message.text(uri.params), out);
        }
        out.push(b'@');
    }
    out.extend_from_slice(place.as_bytes());
    if uri.scheme == Scheme::Tel {
        out.extend_from_slice(b";user=phone");
        return;
    }
    for parameter in message.text(uri.params).split(|byte| *byte == b';').filter(|parameter| !parameter.is_empty()) {
        let name = parameter.split(|byte| *byte == b'=').next().unwrap_or_default();
        let clean = parameter.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.!~*'()[]/:&+$%=".contains(byte));
        if clean && !PARAMETERS_OF_HOST.iter().any(|own| name.eq_ignore_ascii_case(own)) {
            out.push(b';');
            out.extend_from_slice(parameter);
        }
    }
}

impl Edge {
    /// The way of a request over the rules of a route, where its partition is there; `number` in place of that of the Request-URI.
    pub(crate) fn plan(&self, now: Now, terms: &Arc<RouteTerms>, message: &Message<'_>, number: Option<&[u8]>) -> Option<Box<Plan>> {
        self.plan_over(now, &self.routing, terms, message, number)
    }

    /// The way of a request over the machines of a peer that is a pool.
    pub(crate) fn pool_plan(&self, now: Now, peer: u16, message: &Message<'_>) -> Option<Box<Plan>> {
        let pool = self.snapshot.pools.get(usize::from(peer))?.as_ref()?;
        self.plan_over(now, &pool.routing, &pool.terms, message, Some(b""))
    }

    fn plan_over(&self, now: Now, routing: &Arc<Routing>, terms: &Arc<RouteTerms>, message: &Message<'_>, number: Option<&[u8]>) -> Option<Box<Plan>> {
        let routing = Arc::clone(routing);
        let partition = routing.partitions.iter().position(|partition| partition.name == terms.settings.partition)?;
        let table = &routing.partitions[partition].table;
        let number = number.map_or_else(|| dialled(table, message, &message.head.request_uri), |number| normal(table, number));
        let settings = &terms.settings;
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
        let search = Search::new(table, settings.group, &number, options, (now.wall / 1_000_000) as i64);
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
            number,
            current: None,
            request_uri: Vec::new(),
            outcome: None,
            goes_on: true,
            asks: false,
            exhausted: false,
            routing,
        }))
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
                self.replace_plan(now, entry, &Arc::new(terms), number, true)?;
            }
            VerdictKind::Continue if !verdict.edits.is_empty() => {
                // The policy may have given it another number.
                // Once something was tried, going on means what is left of that.
                let asked_first = |transaction: &Transaction| {
                    transaction.branches.is_empty() && transaction.policy.as_ref().is_some_and(|state| state.event == PolicyEvent::Request)
                };
                let terms = self.transactions.get(entry).filter(|transaction| asked_first(transaction)).and_then(|transaction| transaction.plan.as_ref());
                // A pool does not look at the number.
                if let Some(terms) = terms.map(|plan| Arc::clone(&plan.terms)).filter(|terms| terms.pool.is_none()) {
                    self.replace_plan(now, entry, &terms, None, false)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn replace_plan(&mut self, now: Now, entry: Key, terms: &Arc<RouteTerms>, number: Option<&[u8]>, asks: bool) -> Result<(), VerdictError> {
        let plan = self.with_request(entry, |edge, message| edge.plan(now, terms, message, number)).flatten();
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
        let found = plan.goes_on && self.pick(now, &mut plan);
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

    fn pick(&mut self, now: Now, plan: &mut Plan) -> bool {
        let first = plan.current.is_none() && plan.outcome.is_none();
        let seed = self.random();
        let Plan { routing, partition, search, .. } = plan;
        let table = &routing.partitions[*partition].table;
        let snapshot = Arc::clone(&self.snapshot);
        let pairs = Arc::ptr_eq(routing, &self.routing).then_some(&mut self.pairs);
        let mut chooser = Chooser { table, health: &snapshot.health, quality: &snapshot.quality, pairs, partition: *partition, now: now.moment.0, state: seed };
        if first {
            search.begin(table, &mut chooser);
        }
        plan.current = search.pick(table, &mut chooser);
        plan.current.is_some()
    }

    /// Takes a place at the gateway of the attempt at hand.
    pub(crate) fn gateway_call(&mut self, now: Now, entry: Key) -> Option<Box<GatewayCall>> {
        let pair = self.pair_of(entry);
        let plan = self.transactions.get(entry)?.plan.as_ref()?;
        let pick = plan.current?;
        let gateway = plan.table().gateways.get(pick.gateway as usize)?;
        // Of all calls that find its time come, one is the trial.
        gateway.state.begin_trial(now.moment.0);
        let carrier = pick.carrier.and_then(|index| plan.table().carriers.get(index as usize));
        let call = GatewayCall {
            gateway: gateway.state.lease(),
            carrier: carrier.map(|carrier| carrier.state.lease()),
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
        let trial = routing::Trial { sent: call.sent.0, probed: call.probed };
        if let Some(pair) = &call.pair {
            let ended = match outcome {
                None => Final::Answered,
                Some(Outcome::Refused(code, _)) => Final::of_code(code),
                Some(Outcome::RangOut) => Final::Complete,
                Some(Outcome::Silence | Outcome::Unreachable) => Final::Failed,
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
            Some(Outcome::RangOut) => state.note_attempt(now.moment.0, trial, false, &rules),
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
        let call = transaction.branches.get_mut(attempt).and_then(|branch| branch.gateway.take());
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

fn grade_name(grade: Grade) -> &'static str {
    match grade {
        Grade::Good => "good",
        Grade::Warning => "warning",
        Grade::Critical => "critical",
    }
}
