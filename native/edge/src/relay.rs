//! Phase *relay*: attempts in series or at once, until one answers or none is left (RFC 3261 sections 16.6 to 16.8).

use std::sync::Arc;

use proto::{BranchToken, InviteClient, InviteServer, Key, Moment, NonInviteClient, NonInviteServer, Now, milliseconds, seconds};
use routing::Outcome;
use syntax::{HeaderName, LocalReply, Message, Method, Span, Transport};

use crate::admit::Class;
use crate::call::{Attempt, Call, LedBy};
use crate::edge::Edge;
use crate::hang_up::Ends;
use crate::hop::Hop;
use crate::matching::Refusal;
use crate::media_anchor::Leg;
use crate::origin::Origin;
use crate::question::{Address, Answer, Asker, Question, QuestionId};
use crate::reach::Reach;
use crate::reason::reason_lines;
use crate::receive::reply_hop;
use crate::settings::OversizeRequest;
use crate::settings::PolicyTerms;
use crate::target::{Target, TargetSet};
use crate::transaction::{Best, Branch, Client, Server, Shape, Transaction, WaitKind, Waiting};
use crate::verdict::PolicyEvent;

/// A larger request may not go over UDP where TCP is offered (RFC 3261 section 18.1.1).
const LARGEST_DATAGRAM: usize = 1_300;

/// Where one way to a registered user leads.
enum NextWay {
    /// Here.
    Address(Address),
    /// To what is the next target now: a name, or what comes behind.
    Elsewhere,
    /// Nowhere, until what rings has ended.
    Later,
}

impl Edge {
    /// Begins the transaction of a request that may go to `targets`.
    #[expect(clippy::too_many_arguments, reason = "one request with what the phases before found out about it")]
    pub(crate) fn relay(
        &mut self,
        now: Now,
        arrival: &Hop,
        message: &Message<'_>,
        key: u128,
        shape: Shape,
        found: TargetSet,
        is_call: bool,
        policy: Option<PolicyTerms>,
    ) {
        let timers = &self.snapshot.settings.timers;
        let invite = message.head.method == Method::Invite;
        let reliable = arrival.transport.is_reliable();
        let server = match message.head.method {
            Method::Invite => Server::Invite(InviteServer::new(reliable)),
            Method::Ack => Server::Ack,
            _ => Server::NonInvite(NonInviteServer::new(reliable)),
        };
        let trying_after = timers.trying_after_milliseconds;
        let setup = if invite { seconds(timers.setup_seconds) } else { 64 * self.snapshot.timers.t1 };
        let mut transaction = Transaction::new(key, message.head.method, server, *arrival, message.bytes, shape, found.targets, now.moment + setup);
        transaction.plan = found.plan;
        transaction.renumbered = shape.renumber;
        transaction.from.clone_from(&found.from);
        transaction.loop_hash = found.loop_hash;
        if shape.dialog.is_none() {
            transaction.account = self.users.proved.take();
        }
        transaction.reply_to = reply_hop(arrival, message);
        if invite && trying_after > 0 {
            transaction.trying_at = now.moment + milliseconds(trying_after);
        }
        let class = Class::of(message, shape.dialog.is_some(), is_call && self.is_emergency(message));
        let lease = is_call.then(|| self.leases.take(class.share(self.snapshot.settings.limits.calls)));
        let full = lease.as_ref().is_some_and(Option::is_none) || self.transactions.len() >= class.share(self.transactions.limit());
        let Some(entry) = (if full { None } else { self.transactions.insert(transaction) }) else {
            self.counters.shed_table_full.add();
            let refusal = Refusal { from: found.from, ..self.shed() };
            if message.head.method != Method::Ack {
                self.refuse(now, arrival, message, shape.from_peer, &refusal);
            }
            return;
        };
        self.in_hand = entry;
        self.index.insert(key, entry);
        if let Some(lease) = lease {
            self.begin_call(now, entry, message, arrival, &shape, lease);
        }
        if invite && trying_after == 0 {
            self.send_trying(entry, message);
        }
        match policy {
            Some(terms) => {
                let event = if shape.dialog.is_some() { PolicyEvent::InDialog } else { PolicyEvent::Request };
                self.ask_policy(now, entry, message, event, &terms);
            }
            None => {
                self.advance(now, entry, message);
                self.conclude(now, entry);
            }
        }
        self.rearm(entry);
    }

    fn begin_call(&mut self, now: Now, entry: Key, message: &Message<'_>, arrival: &Hop, shape: &Shape, lease: Option<crate::call::Lease>) {
        self.call_number += 1;
        let mut call = Call::new(message, arrival, shape.from_peer, now, self.call_number, lease);
        call.ends = Ends::of_request(message);
        call.limits = std::mem::take(&mut self.limits.held);
        call.emergency = self.is_emergency(message);
        call.watched = self.limits.watched.take().map(Box::new);
        if let Some(account) = self.transactions.get(entry).and_then(|transaction| transaction.account.as_deref()) {
            call.note(&account.notes());
        }
        let dialog = self.dialog_key(message.call_id(), message.text(message.head.from.tag));
        let Some(call) = self.calls.insert(call) else { return };
        self.dialogs.insert(dialog, call);
        self.counters.calls_started.add();
        self.calls.arm(call, now.moment + seconds(self.snapshot.settings.timers.call_seconds));
        if let Some(transaction) = self.transactions.get_mut(entry) {
            transaction.call = call;
        }
        self.tell_state(now, call, b"", 0, 1);
    }

    /// Sends 100, which stops the caller's retransmissions.
    pub(crate) fn send_trying(&mut self, entry: Key, message: &Message<'_>) {
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        transaction.trying_at = Moment::NEVER;
        let from = transaction.from.take();
        let local = LocalReply {
            status_code: 100,
            reason_phrase: None,
            to_tag: b"",
            from: from.as_deref(),
            source: transaction.arrival.address,
            headers: b"",
            body: b"",
        };
        let sent = self.out.send_with(transaction.reply_to, |out| local.write(message, out));
        transaction.response = Some(sent.into());
        transaction.from = from;
    }

    /// Starts the next attempt, or all of them where they go at once.
    pub(crate) fn advance(&mut self, now: Now, entry: Key, message: &Message<'_>) {
        loop {
            let Some(transaction) = self.transactions.get_mut(entry) else { return };
            if transaction.caller_cancelled || transaction.waiting.is_some() || transaction.branches.len() >= self.snapshot.settings.limits.branches {
                return;
            }
            let Some(shape) = transaction.shape.as_deref().copied() else { return };
            if !shape.parallel && transaction.branches.iter().any(|b| b.client.is_open()) {
                return;
            }
            let address = match transaction.addresses.pop() {
                Some(address) => address,
                None => match transaction.targets.pop() {
                    Some(Target::Address(address)) => address,
                    Some(Target::Name(name)) => {
                        return self.ask(now, entry, &name.host, name.port, name.transport);
                    }
                    Some(Target::Record(wanted)) => {
                        if self.reach(now, entry, *wanted) {
                            return;
                        }
                        continue;
                    }
                    Some(Target::Phone(phone)) => {
                        let (wanted, way) = *phone;
                        if self.find_again(now, entry, wanted, way) {
                            return;
                        }
                        continue;
                    }
                    Some(Target::Contact(way)) => match self.take_way(entry, way) {
                        NextWay::Address(address) => address,
                        NextWay::Elsewhere => continue,
                        NextWay::Later => return,
                    },
                    None if transaction.plan.is_some() => {
                        if self.next_gateway(now, entry, message) {
                            continue;
                        }
                        return;
                    }
                    None => return,
                },
            };
            let Some(transaction) = self.transactions.get(entry) else { return };
            // A gateway has brought a peer and a listener of its own.
            let shape = if transaction.plan.is_some() { transaction.shape.as_deref().copied().unwrap_or(shape) } else { shape };
            let spares = transaction.way.as_ref().is_some_and(|way| !way.spare.is_empty());
            let alternatives = spares || !transaction.addresses.is_empty() || !transaction.targets.is_empty();
            // Probes ask the dead too: that is how they come back.
            if alternatives && self.dead.get(&address).is_some_and(|(until, _)| *until > now.moment) && !transaction.is_probe() {
                self.skip_flow(entry);
                continue;
            }
            if self.ask_about_branch(now, entry, message, address) || self.start_branch(now, entry, message, address, &shape) {
                return;
            }
        }
    }

    /// Makes one attempt; false where the next one should follow at once.
    pub(crate) fn start_branch(&mut self, now: Now, entry: Key, message: &Message<'_>, address: Address, shape: &Shape) -> bool {
        if self.media.external > 0 || self.is_external() {
            if self.is_out_of_reach(now, entry, address) {
                return false;
            }
            match self.ask_about_media(now, entry, message, address, shape) {
                Ok(true) => return true,
                Ok(false) => {}
                Err(fault) => {
                    self.note_failure(entry, 503, None);
                    return self.refuse_media(entry, fault);
                }
            }
        }
        if !self.attempt(now, entry, message, address, shape, false) {
            if self.is_out_of_reach(now, entry, address) {
                return false;
            }
            self.counters.attempts_undeliverable.add();
            let why = if shape.bound_to.is_some() { "no listener leads there, or its dialog may not go there" } else { "no listener leads there" };
            self.decide_for(entry, |_| format!("target: not sent to {}: {why}", address.address));
            let code = self.flow_status(entry, 503);
            self.note_failure(entry, code, None);
            self.skip_flow(entry);
            if let Some(plan) = self.transactions.get_mut(entry).and_then(|transaction| transaction.plan.as_mut()) {
                plan.outcome = Some(Outcome::Unreachable);
            }
            return false;
        }
        if shape.parallel
            && let Some(transaction) = self.transactions.get_mut(entry)
        {
            // The addresses of one name are alternatives; only targets are tried at once.
            transaction.addresses.clear();
        }
        !shape.parallel
    }

    fn ask(&mut self, now: Now, entry: Key, host: &str, port: Option<u16>, transport: Option<Transport>) {
        let deadline = now.moment + milliseconds(self.snapshot.settings.timers.resolve_milliseconds);
        let offered = self.offered_transports();
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        transaction.questions = transaction.questions.wrapping_add(1);
        transaction.waiting = Some(Waiting { number: transaction.questions, deadline, kind: WaitKind::Resolve });
        let id = QuestionId { worker: self.options.worker, transaction: entry, number: transaction.questions, asker: Asker::Transaction };
        self.counters.questions.add();
        self.out.questions.push(Question { id, host: host.to_owned(), port, transport, offered });
    }

    /// Takes the answer to a question.
    pub fn handle_answer(&mut self, now: Now, answer: Answer) {
        if answer.id.asker == Asker::Contact {
            let addresses = answer.addresses.iter().map(|address| address.address).collect();
            return self.name_resolved(now, &answer.host, addresses);
        }
        let entry = answer.id.transaction;
        let fits = |t: &mut Transaction| t.waiting.is_some_and(|w| w.kind == WaitKind::Resolve && w.number == answer.id.number);
        let Some(transaction) = self.transactions.get_mut(entry).filter(|_| answer.id.worker == self.options.worker) else {
            return self.counters.late_answers.add();
        };
        if !fits(transaction) {
            return self.counters.late_answers.add();
        }
        self.in_hand = entry;
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        let patience = milliseconds(self.snapshot.settings.timers.resolve_milliseconds);
        let took = transaction.waiting.take().map_or(0, |waiting| patience.saturating_sub(waiting.deadline.since(now.moment)));
        transaction.addresses = answer.addresses;
        transaction.addresses.reverse();
        let count = transaction.addresses.len();
        if count == 0 {
            self.note_failure(entry, 503, None);
            self.has_no_address(now, entry);
        }
        self.decide_for(entry, |_| format!("resolve: {count} addresses"));
        self.tell_slow(now, "dns query", took, |_| answer.host.clone());
        self.with_request(entry, |edge, message| edge.advance(now, entry, message));
        self.conclude(now, entry);
        self.rearm(entry);
    }

    /// The way to `address`: listener, connection, and TCP instead of UDP for a large request where the peer wishes so.
    pub(crate) fn hop_to(&mut self, address: Address, shape: &Shape) -> Option<Hop> {
        let mut listener = self.listener_for(address, shape.listener)?;
        if shape.listener.is_none()
            && self.snapshot.has_peer_listeners
            && let Some(peer) = self.identify(listener, address.transport, address.address)
            && let Some(wish) = self.snapshot.peer_listeners[usize::from(peer)]
        {
            listener = self.listener_for(address, Some(wish))?;
        }
        if shape.bound_to.is_some_and(|id| !self.may_reach(id, listener, &address, shape)) {
            return None;
        }
        // A connection of the dialog's own far end is used again even where its address cannot be dialled.
        let flow = shape.flow.filter(|f| f.transport == address.transport && address.transport.is_reliable() && f.address.ip() == address.address.ip());
        Some(Hop { listener, transport: address.transport, address: address.address, connection: flow.and_then(|f| f.connection) })
    }

    /// Sends the request to `address`; false where there is no way there.
    pub(crate) fn attempt(&mut self, now: Now, entry: Key, message: &Message<'_>, address: Address, shape: &Shape, over_udp: bool) -> bool {
        if self.snapshot.subscribers.is_none() {
            return self.attempt_by(now, entry, message, address, shape, over_udp, None);
        }
        // Taken out for as long as the edge is needed whole.
        let mut way = self.transactions.get_mut(entry).and_then(|transaction| transaction.way.take());
        let sent = self.attempt_by(now, entry, message, address, shape, over_udp, way.as_deref());
        if let Some(transaction) = self.transactions.get_mut(entry) {
            if sent
                && let Some(way) = &mut way
                && let Some(branch) = transaction.branches.last_mut()
            {
                branch.spare = std::mem::take(&mut way.spare);
            }
            transaction.way = way;
        }
        sent
    }

    #[expect(clippy::too_many_arguments, reason = "one attempt with all that decides how it is made")]
    fn attempt_by(&mut self, now: Now, entry: Key, message: &Message<'_>, address: Address, shape: &Shape, over_udp: bool, way: Option<&Reach>) -> bool {
        let Some(mut hop) = self.hop_of(way, address, shape) else { return false };
        let Some(transaction) = self.transactions.get(entry) else { return false };
        let (number, call, arrival, method) = (transaction.branches.len(), transaction.call, transaction.arrival, transaction.method);
        let (decided, planned) = (transaction.policy.is_some(), transaction.plan.is_some());
        let wished = transaction.policy.as_ref().and_then(|policy| policy.first_answer).or(transaction.plan.as_ref().map(|plan| plan.terms.first_answer));
        let loop_hash = transaction.loop_hash.or(transaction.policy.as_ref().and_then(|policy| policy.loop_hash));
        let further = transaction.plan.as_ref().is_some_and(|plan| plan.has_more());
        let spares = way.is_some_and(|way| !way.spare.is_empty());
        let alternatives = spares || !transaction.targets.is_empty() || !transaction.addresses.is_empty() || further;
        let cookie = self.random() as u32;
        let branch = BranchToken {
            node: self.node_id,
            worker: self.options.worker,
            attempt: number as u8,
            transaction: entry,
            cookie,
            loop_hash: loop_hash.unwrap_or_else(|| self.loop_hash(message)),
        };
        let call = (call != Key::NONE && shape.dialog.is_none()).then_some(call);
        let mut peer = self.far_peer(&hop, shape.policy);
        // Taken out for as long as the edge is needed whole.
        let uri = if planned { self.take_request_uri(entry) } else { None };
        let ping = self.pings_call(entry);
        let mut numbers = if ping { Default::default() } else { self.numbers_out(now, entry, message, shape, &hop, peer, uri.as_deref()) };
        if let Some(asserted) = self.asserted(entry, peer) {
            let end = usize::from(message.head.headers_end);
            numbers.edits.push((Span::new(end, end), asserted));
        }
        if ping {
            // It says what was said before, as it was said.
        } else if self.snapshot.settings.media.is_some() || !self.media.calls.is_empty() {
            let found = match call {
                _ if let Some(changes) = self.external_changes(entry, message) => Ok(changes),
                Some(_) if self.is_external() => Ok(Vec::new()),
                Some(call) => self.anchor_attempt(&Leg { arrival: &arrival, message, from: shape.from_peer, hop: &hop, far: peer, way }, call, number),
                None => self.anchor_dialog(now, entry, &Leg { arrival: &arrival, message, from: shape.from_peer, hop: &hop, far: peer, way }, shape),
            };
            match found {
                Ok(changes) if changes.is_empty() => numbers.edits.extend(self.repair_description(&arrival, message)),
                Ok(changes) => numbers.edits.extend(changes),
                Err(fault) if method == Method::Ack => self.note_unreadable_ack(fault),
                Err(fault) => {
                    self.give_request_uri(entry, uri);
                    return self.refuse_media(entry, fault);
                }
            }
        } else {
            numbers.edits.extend(self.repair_description(&arrival, message));
        }
        let mut sent_uri = numbers.request_uri.as_deref().or(uri.as_deref()).or(way.map(|way| &*way.uri));
        if let Some(way) = way.filter(|way| !way.path.is_empty()) {
            let (first, route) = way.heading(sent_uri.unwrap_or(&way.uri));
            sent_uri = Some(first);
            let end = usize::from(message.head.headers_end);
            numbers.edits.push((Span::new(end, end), route));
        }
        self.build_request(now, &arrival, message, shape, &hop, &branch, call, peer, sent_uri, &numbers.edits);
        let mut fall_back_to_udp = false;
        if hop.transport == Transport::Udp && !over_udp && self.scratch.len() > LARGEST_DATAGRAM && self.wants_tcp(&hop, shape) {
            let over_tcp = Address { transport: Transport::Tcp, address: address.address };
            if let Some(tcp) = self.hop_to(over_tcp, shape) {
                hop = tcp;
                peer = self.far_peer(&hop, shape.policy);
                fall_back_to_udp = true;
                self.build_request(now, &arrival, message, shape, &hop, &branch, call, peer, sent_uri, &numbers.edits);
            }
        }
        if numbers.from
            && let Some(transaction) = self.transactions.get_mut(entry)
        {
            let from = message.first(HeaderName::From).map(|slot| slot.value.of(message.bytes).into());
            transaction.from = transaction.from.take().or(from);
        }
        let planned_uri = sent_uri.is_some();
        let sent_uri = sent_uri.unwrap_or_else(|| message.text(message.head.request_uri.whole));
        if (decided || planned_uri)
            && let Some(call) = call.and_then(|key| self.calls.get_mut(key))
            && call.texts.request_uri() != sent_uri
        {
            call.sent_request_uri = Some(sent_uri.into());
        }
        if planned {
            self.give_request_uri(entry, uri);
        }
        self.out.send(hop, &self.scratch);
        if method == Method::Ack {
            return true;
        }
        let reliable = hop.transport.is_reliable();
        let timers = self.snapshot.timers;
        // A user agent with another flow is not waited for as long as one without: four seconds, by the T1 of RFC 3261.
        let patience = if spares { 8 * timers.t1 } else { self.first_answer(shape.policy) };
        let first_answer = wished.unwrap_or(patience);
        let client = if method == Method::Invite {
            Client::Invite(InviteClient::new(now.moment, reliable, first_answer, &timers))
        } else {
            // Its first answer may be the final one, so haste pays only where somebody else could be asked.
            let answer = if alternatives { first_answer } else { 64 * timers.t1 };
            Client::NonInvite(NonInviteClient::new(now.moment, reliable, answer, &timers))
        };
        if shape.policy.is_some() && self.heard.len() < self.snapshot.settings.limits.targets {
            self.heard.entry(hop.address).or_insert(Moment(0));
        }
        self.counts_of(peer).attempts.add();
        let branch = Branch {
            client,
            cookie,
            hop,
            peer,
            sent: self.scratch.as_slice().into(),
            cancel_wanted: None,
            cancelling: None,
            fall_back_to_udp,
            cancelled: false,
            timed_out: false,
            gateway: if planned { self.gateway_call(now, entry) } else { None },
            spare: Vec::new(),
        };
        let Some(transaction) = self.transactions.get_mut(entry) else { return false };
        transaction.branches.push(branch);
        self.decide(message.call_id(), |edge| {
            let gateway = edge.transactions.get(entry).and_then(|transaction| transaction.plan.as_ref()).map_or("", |plan| plan.gateway_name());
            let peer = if gateway.is_empty() { edge.peer_name(peer) } else { gateway };
            format!("relay: attempt {} to {}:{} ({peer})", number + 1, hop.transport.as_str().to_ascii_lowercase(), edge.shown(hop.address))
        });
        self.note_attempt(now, entry, &hop, peer);
        true
    }

    /// How a registered user is reached by `way`, or what stands at `address`.
    pub(crate) fn hop_of(&mut self, way: Option<&Reach>, address: Address, shape: &Shape) -> Option<Hop> {
        let Some(way) = way else { return self.hop_to(address, shape) };
        match way.hop {
            // Nobody is called back over a connection that he opened, and that is gone (RFC 5626 section 5.3).
            Some(hop) if way.flow_only && hop.transport.is_reliable() && hop.connection.is_none() => None,
            Some(hop) if !self.snapshot.listener(hop.listener).drained => Some(hop),
            // The listener that a phone registered at has gone since.
            Some(_) => self.hop_to(address, shape),
            // A name may lead elsewhere by now than it did when it was registered.
            None if way.path.is_empty() && self.is_no_phone(way.listener, address) => None,
            None => self.hop_to(address, &Shape { listener: Some(way.listener), ..*shape }),
        }
    }

    /// Makes `way` the one at hand. One that is less preferred than what rings waits.
    fn take_way(&mut self, entry: Key, way: Box<Reach>) -> NextWay {
        let Some(transaction) = self.transactions.get_mut(entry) else { return NextWay::Later };
        let ringing = transaction.branches.iter().any(|branch| branch.client.is_open());
        if ringing && transaction.way.as_ref().is_some_and(|current| current.q != way.q) {
            transaction.targets.push(Target::Contact(way));
            return NextWay::Later;
        }
        let target = match way.hop {
            Some(hop) => Some(Target::Address(Address { transport: hop.transport, address: hop.address })),
            None => way.target(),
        };
        transaction.way = Some(way);
        match target {
            Some(Target::Address(address)) => NextWay::Address(address),
            Some(name) => {
                transaction.targets.push(name);
                NextWay::Elsewhere
            }
            None => NextWay::Elsewhere,
        }
    }

    /// Longest wait for any answer at targets of `policy`.
    pub(crate) fn first_answer(&self, policy: Option<u16>) -> u64 {
        policy.map_or(64 * self.snapshot.timers.t1, |policy| milliseconds(self.snapshot.settings.peers[usize::from(policy)].first_answer_milliseconds))
    }

    fn wants_tcp(&self, hop: &Hop, shape: &Shape) -> bool {
        let peer = shape.policy.or_else(|| self.identify(hop.listener, hop.transport, hop.address));
        peer.is_some_and(|peer| self.snapshot.settings.peers[usize::from(peer)].oversize == OversizeRequest::Tcp)
    }

    /// The Request-URI that a plan wants, and its memory given back.
    fn take_request_uri(&mut self, entry: Key) -> Option<Vec<u8>> {
        let plan = self.transactions.get_mut(entry)?.plan.as_mut()?;
        (plan.current.is_some() && plan.terms.pool.is_none()).then(|| std::mem::take(&mut plan.request_uri))
    }

    fn give_request_uri(&mut self, entry: Key, uri: Option<Vec<u8>>) {
        if let (Some(uri), Some(plan)) = (uri, self.transactions.get_mut(entry).and_then(|transaction| transaction.plan.as_mut())) {
            plan.request_uri = uri;
        }
    }

    pub(crate) fn note_attempt(&mut self, now: Now, entry: Key, hop: &Hop, peer: Option<u16>) {
        let Some(transaction) = self.transactions.get(entry).filter(|t| t.dialog.is_none()) else { return };
        let place = transaction.branches.last().and_then(|branch| branch.gateway.as_deref());
        let led_by = place.map(|place| {
            let carrier = place.carrier.as_ref().map(Arc::clone);
            let partition = transaction.plan.as_ref().map_or_else(|| "".into(), |plan| Arc::clone(plan.partition_name()));
            LedBy { partition, gateway: Arc::clone(place.gateway()), carrier, rule: place.rule }
        });
        let Some(call) = self.calls.get_mut(transaction.call) else { return };
        let to = Address { transport: hop.transport, address: hop.address };
        call.attempts.push(Attempt {
            to,
            peer,
            sent: now.moment,
            first_answer: Moment::NEVER,
            ringing: Moment::NEVER,
            final_answer: Moment::NEVER,
            status_code: 0,
            led_by,
        });
    }

    /// Remembers a refusal if it is better than those before.
    pub(crate) fn note_failure(&mut self, entry: Key, status_code: u16, response: Option<Box<[u8]>>) {
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        transaction.last_failure = status_code;
        if let Some(state) = transaction.policy.as_mut().filter(|state| state.report) {
            state.last_response.clone_from(&response);
        }
        if transaction.policy.as_ref().is_some_and(|state| state.service) {
            return;
        }
        // A flow that is dead is nobody's word, like silence: a phone that has come back by another one says more.
        let weight = |code: u16, is_own: bool| if code == 430 || is_own && code == 480 { 408 } else { code };
        let best = transaction.best.as_ref().map(|best| weight(best.status_code, best.response.is_none()));
        if proto::is_better(weight(status_code, response.is_none()), best, transaction.caller_cancelled) {
            transaction.best = Some(Best { status_code, response });
        }
    }

    /// Whether a failed attempt may be followed by another.
    pub(crate) fn may_fail_over(&self, entry: Key, status_code: u16) -> bool {
        let Some(transaction) = self.transactions.get(entry) else { return false };
        if let Some(goes_on) = self.plan_goes_on(entry) {
            return goes_on;
        }
        if transaction.way.is_some() {
            // Whatever one phone of a user says, the next may do better; a 6xx speaks for all of them (RFC 3261 section 21.6).
            return status_code < 600 && !transaction.caller_cancelled && !(transaction.targets.is_empty() && transaction.addresses.is_empty());
        }
        if transaction.caller_cancelled || status_code >= 600 || (transaction.targets.is_empty() && transaction.addresses.is_empty()) {
            return false;
        }
        // RFC 3263 section 4.3: 503, a dead transport and silence mean the next address; a peer's `fail_over` adds to that.
        let policy = transaction.shape.as_ref().and_then(|shape| shape.policy);
        status_code == 503 || policy.is_some_and(|policy| self.snapshot.settings.peers[usize::from(policy)].fail_over.contains(&status_code))
    }

    /// An attempt ended without success: the next one, or the caller's answer.
    pub(crate) fn after_failure(&mut self, now: Now, entry: Key, status_code: u16) {
        if self.may_fail_over(entry, status_code) {
            self.counters.fail_overs.add();
            self.with_request(entry, |edge, message| edge.advance(now, entry, message));
        } else if (status_code != 503 || self.transactions.get(entry).is_some_and(|transaction| transaction.plan.is_some()))
            && let Some(transaction) = self.transactions.get_mut(entry)
            && transaction.shape.as_ref().is_some_and(|shape| !shape.parallel)
        {
            transaction.targets.clear();
            transaction.addresses.clear();
            self.stop_plan(entry);
        }
        self.conclude(now, entry);
        self.rearm(entry);
    }

    /// Sends the caller the best refusal once nothing is under way any more (section 16.7 step 6).
    pub(crate) fn conclude(&mut self, now: Now, entry: Key) {
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        if !transaction.is_open() || transaction.is_trying() || self.report_to_policy(now, entry) || self.ask_about_failure(now, entry) {
            return;
        }
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        // One that was challenged comes again.
        let challenged = transaction.best.as_ref().is_some_and(|best| matches!(best.status_code, 401 | 407));
        if transaction.method == Method::Bye && transaction.dialog.is_some() && !challenged {
            self.end_dialog_of_bye(now, entry);
        }
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        let asks = transaction.plan.as_ref().is_some_and(|plan| plan.asks);
        let found = transaction.plan.as_ref().is_some_and(|plan| plan.has_rule());
        let unavailable = transaction.plan.as_ref().filter(|plan| plan.exhausted && !transaction.caller_cancelled).map(|plan| Arc::clone(&plan.terms));
        if let Some(terms) = unavailable.filter(|terms| transaction.best.is_none() || terms.settings.hide_failures && !asks) {
            let (code, phrase) = if found { &terms.settings.unavailable } else { &terms.settings.not_found };
            self.decide_for(entry, |_| format!("relay: no gateway is left, {code} goes to the caller"));
            let phrase = (!phrase.is_empty()).then_some(phrase.as_str());
            return self.finish_saying(now, entry, *code, phrase, b"", b"");
        }
        let best = transaction.best.take();
        let mut unavailable_because = None;
        let (code, response) = match best {
            // What the caller gave up must end with 487, whatever made the branches end (section 9.2).
            Some(Best { response: None, .. } | Best { status_code: 503, .. }) | None if transaction.caller_cancelled => (487, None),
            // RFC 3261 section 16.7: a 503 of one target would tell the caller that we are out of service.
            Some(best) if best.status_code == 503 && transaction.origin.is_none() => {
                unavailable_because = best.response;
                (500, None)
            }
            Some(best) => (best.status_code, best.response),
            None => (408, None),
        };
        if transaction.branches.len() > 1 || response.is_none() {
            self.decide_for(entry, |_| {
                format!("relay: every attempt has ended, {} goes to the caller", if code == 408 { "408 or silence".to_owned() } else { code.to_string() })
            });
        }
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        let ping = matches!(transaction.origin.as_deref(), Some(Origin::CallPing { .. }));
        match &mut transaction.server {
            // RFC 4320 section 4.2: a late 408 to anything but INVITE only makes it worse.
            Server::NonInvite(server) if (code == 408 || ping) && response.is_none() => {
                server.handle_silence();
                transaction.request = None;
                transaction.edited = None;
                transaction.give_up_at = Moment::NEVER;
                self.end_policy(entry, 408);
                self.answer_origin(now, entry, code, b"");
            }
            Server::Ack => {
                let mut ended = NonInviteServer::new(true);
                ended.handle_silence();
                transaction.server = Server::NonInvite(ended);
                transaction.give_up_at = Moment::NEVER;
            }
            Server::Invite(_) | Server::NonInvite(_) => match response {
                Some(response) => {
                    let merged = self.merge_challenges(entry, code, response);
                    self.finish(now, entry, code, &merged, "callee");
                }
                None => {
                    // Why the target could not, in the words of the telephone network, and when it may, holds for the caller all the same (RFC 3326).
                    let reasons = unavailable_because.and_then(|response| self.with_stored(&response, |_, response| reason_lines(response)));
                    self.finish_saying(now, entry, code, None, &reasons.unwrap_or_default(), b"");
                }
            },
        }
    }

    /// Ends the request with a response of our own, with a reason phrase (`None`: the customary one), header field lines and a body.
    pub(crate) fn finish_saying(&mut self, now: Now, entry: Key, status_code: u16, reason_phrase: Option<&str>, headers: &[u8], body: &[u8]) {
        if let Some(response) = self.own_response(entry, status_code, reason_phrase, headers, body) {
            self.finish(now, entry, status_code, &response, "proxy");
        }
    }

    /// A response of our own; `None` where the request is not there any more.
    pub(crate) fn own_response(&mut self, entry: Key, status_code: u16, reason_phrase: Option<&str>, headers: &[u8], body: &[u8]) -> Option<Vec<u8>> {
        let transaction = self.transactions.get(entry)?;
        let (source, from) = (transaction.arrival.address, transaction.from.clone());
        self.with_request(entry, |edge, message| {
            let mut response = Vec::with_capacity(512);
            let to_tag = edge.local_tag(message);
            let mut lines = headers.to_vec();
            edge.push_server_header(&mut lines);
            LocalReply { status_code, reason_phrase, to_tag: &to_tag, from: from.as_deref(), source, headers: &lines, body }.write(message, &mut response);
            response
        })
    }

    /// Sends a final response of 300 or more, or any final one to another method, and lets the server transaction linger.
    pub(crate) fn finish(&mut self, now: Now, entry: Key, status_code: u16, response: &[u8], by: &'static str) {
        let timers = self.snapshot.timers;
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        let first = match &mut transaction.server {
            Server::Invite(server) => server.handle_final(now.moment, status_code, &timers),
            Server::NonInvite(server) => server.handle_final(now.moment, &timers),
            Server::Ack => false,
        };
        if !first {
            return;
        }
        if transaction.origin.is_some() {
            self.answer_origin(now, entry, status_code, response);
        } else {
            self.out.send(transaction.reply_to, response);
        }
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        let invite = matches!(transaction.server, Server::Invite(_));
        // Kept for retransmissions: timers G and J. A reliable transport needs none, and a 2xx is the endpoint's.
        let keep = !(transaction.reply_to.transport.is_reliable() || invite && status_code < 300);
        transaction.response = keep.then(|| response.into());
        transaction.request = None;
        transaction.edited = None;
        self.end_policy(entry, status_code);
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        transaction.policy = None;
        transaction.plan = None;
        transaction.shape = None;
        transaction.challenges = Vec::new();
        (transaction.trying_at, transaction.give_up_at) = (Moment::NEVER, Moment::NEVER);
        if invite && status_code >= 300 && transaction.dialog.is_none() {
            let call = transaction.call;
            let cancelled = transaction.caller_cancelled;
            self.end_call(now, call, status_code, if cancelled { "cancelled" } else { "failed" }, if cancelled { "caller" } else { by });
        }
    }
}
