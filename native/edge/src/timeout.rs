//! Time passes, or the transport fails.

use proto::{BranchToken, ClientAction, Key, Moment, Now, ServerAction, seconds};
use routing::Outcome;
use syntax::Transport;

use crate::edge::Edge;
use crate::question::Address;
use crate::route::RouteView;
use crate::target::Target;
use crate::transaction::{CancelReason, Client, Server, Shape, WaitKind};

impl Edge {
    /// Does all that is due.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some(entry) = self.transactions.expire(now.moment) {
            self.in_hand = entry;
            self.transaction_due(now, entry);
            self.rearm(entry);
        }
        if self.snapshot.subscribers.is_some() {
            self.parked_due(now);
            self.walk(now);
        }
        self.waits_due(now);
        while let Some(call) = self.calls.expire(now.moment) {
            self.call_due(now, call);
        }
    }

    fn transaction_due(&mut self, now: Now, entry: Key) {
        self.server_due(now, entry);
        let branches = self.transactions.get(entry).map_or(0, |t| t.branches.len());
        for attempt in 0..branches {
            self.branch_due(now, entry, attempt);
            self.cancel_due(now, entry, attempt);
        }
    }

    fn server_due(&mut self, now: Now, entry: Key) {
        let timers = self.snapshot.timers;
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        let action = match &mut transaction.server {
            Server::Invite(server) => server.handle_timeout(now.moment, &timers),
            Server::NonInvite(server) => server.handle_timeout(now.moment),
            Server::Ack => ServerAction::Wait,
        };
        match action {
            ServerAction::Retransmit => {
                self.counters.retransmissions_sent.add();
                if let Some(response) = transaction.response.as_deref() {
                    self.out.send(transaction.reply_to, response);
                }
            }
            ServerAction::Terminated => transaction.response = None,
            ServerAction::Wait => {}
        }
        let (trying_at, give_up_at) = (transaction.trying_at, transaction.give_up_at);
        let (held, waits_for_media) = (!transaction.held.is_empty(), transaction.media.is_some());
        let due = transaction.waiting.filter(|w| now.moment >= w.deadline).map(|w| w.kind);
        if due == Some(WaitKind::Policy) {
            self.policy_due(now, entry);
        } else if due == Some(WaitKind::Media) {
            self.media_due(now, entry);
        } else if due.is_some() {
            transaction.waiting = None;
            if let Some(way) = transaction.known_way.take() {
                transaction.targets.push(Target::Contact(Box::new(way.way)));
            } else {
                self.note_failure(entry, 503, None);
            }
            self.with_request(entry, |edge, message| edge.advance(now, entry, message));
            self.conclude(now, entry);
        }
        if held {
            self.release_late(now, entry);
        }
        if waits_for_media {
            self.release_late_media(now, entry);
        }
        if now.moment >= trying_at {
            if let Some(transaction) = self.transactions.get_mut(entry) {
                transaction.trying_at = Moment::NEVER;
            }
            self.with_request(entry, |edge, message| edge.send_trying(entry, message));
        }
        if now.moment >= give_up_at && !self.probe_next_address(now, entry) {
            // The whole request took too long.
            self.stop_trying(now, entry, 408, &CancelReason::Timeout);
        }
    }

    /// No more attempts: whatever rings is cancelled, and the caller is told `status_code` unless somebody said something better.
    pub(crate) fn stop_trying(&mut self, now: Now, entry: Key, status_code: u16, reason: &CancelReason) {
        self.end_part(entry, status_code);
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        transaction.give_up_at = Moment::NEVER;
        transaction.waiting = None;
        if let Some(policy) = transaction.policy.as_mut() {
            policy.ask_no_more();
        }
        transaction.targets.clear();
        transaction.addresses.clear();
        if let Some(plan) = transaction.plan.as_mut() {
            plan.goes_on = false;
        }
        let own = transaction.origin.is_some();
        for branch in &mut transaction.branches {
            branch.timed_out = true;
            // That we give up says nothing of a gateway.
            branch.gateway = None;
            if own {
                // Whoever waits for a request of ours wants to know now.
                branch.client.handle_transport_error();
            }
        }
        self.note_failure(entry, status_code, None);
        self.cancel_branches(now, entry, None, reason);
        self.conclude(now, entry);
    }

    fn branch_due(&mut self, now: Now, entry: Key, attempt: usize) {
        let timers = self.snapshot.timers;
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        let caller_cancelled = transaction.caller_cancelled;
        let Some(branch) = transaction.branches.get_mut(attempt) else { return };
        let was_abandoned = branch.client.is_abandoned();
        let action = match &mut branch.client {
            Client::Invite(client) => client.handle_timeout(now.moment, &timers),
            Client::NonInvite(client) => client.handle_timeout(now.moment, &timers),
        };
        match action {
            ClientAction::Wait => {}
            ClientAction::Retransmit => {
                self.counters.retransmissions_sent.add();
                self.out.send(branch.hop, &branch.sent);
            }
            ClientAction::Terminated => {
                branch.sent = Box::default();
                if was_abandoned {
                    self.close_silent_attempt(entry, attempt);
                }
            }
            ClientAction::NoAnswer => {
                // What was sent is kept for a CANCEL and an ACK: who has the INVITE may ring later, and answer.
                let service = transaction.policy.as_ref().is_some_and(|state| state.service);
                if !branch.client.is_abandoned() || service || transaction.origin.is_some() {
                    branch.client.handle_transport_error();
                    branch.sent = Box::default();
                }
                let peer = branch.peer;
                let target = Address { transport: branch.hop.transport, address: branch.hop.address };
                let policy = transaction.shape.as_ref().and_then(|shape| shape.policy);
                // A gateway has a health of its own, which is more than that of its address.
                let has_health = transaction.addresses.is_empty() && (branch.gateway.is_some() || transaction.is_probe());
                self.counters.attempts_unanswered.add();
                self.counts_of(peer).unanswered.add();
                // One request that nobody answers says little about a machine that answers others.
                let silence = self.first_answer(policy);
                if !has_health && self.heard.get(&target.address).is_none_or(|at| now.moment.since(*at) >= silence) {
                    self.mark_dead(now, target, peer);
                }
                self.attempt_failed(now, entry, attempt, 408, Outcome::Silence);
            }
            ClientAction::NoFinalAnswer if !branch.cancelled && !caller_cancelled => {
                branch.timed_out = true;
                self.send_cancel(now, entry, attempt, &CancelReason::Timeout);
                self.no_final_answer(now, entry, attempt);
            }
            ClientAction::NoFinalAnswer => {
                // Not even the CANCEL was answered.
                branch.client.handle_transport_error();
                branch.sent = Box::default();
                branch.cancelling = None;
                if let Some(transaction) = self.transactions.get_mut(entry) {
                    transaction.targets.clear();
                    transaction.addresses.clear();
                }
                let outcome = if self.rang(entry, attempt) { Outcome::RangOut } else { Outcome::Silence };
                self.attempt_failed(now, entry, attempt, 408, outcome);
            }
        }
    }

    /// The time for the final answer of an attempt is over, and it was cancelled. One that rang may be answered while the CANCEL
    /// is under way, so the caller waits for its end (RFC 3261 section 16.8); one that did not, or that others follow, holds
    /// nobody up: it may have died.
    fn no_final_answer(&mut self, now: Now, entry: Key, attempt: usize) {
        let rang = self.rang(entry, attempt);
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        let service = transaction.policy.as_ref().is_some_and(|state| state.service);
        let follows = transaction.plan.as_ref().is_some_and(|plan| plan.terms.retry.retries(Outcome::RangOut));
        let waits = transaction.dialog.is_some() || transaction.origin.is_some() || rang && !follows;
        let Some(branch) = transaction.branches.get_mut(attempt) else { return };
        match &mut branch.client {
            Client::Invite(client) if !service && !waits => client.abandon(),
            client if service => client.handle_transport_error(),
            Client::Invite(_) | Client::NonInvite(_) => return,
        }
        self.attempt_failed(now, entry, attempt, 408, if rang && !service { Outcome::RangOut } else { Outcome::Silence });
    }

    fn cancel_due(&mut self, now: Now, entry: Key, attempt: usize) {
        let timers = self.snapshot.timers;
        let Some(branch) = self.transactions.get_mut(entry).and_then(|t| t.branches.get_mut(attempt)) else { return };
        let Some(cancelling) = &mut branch.cancelling else { return };
        match cancelling.client.handle_timeout(now.moment, &timers) {
            ClientAction::Wait => {}
            ClientAction::Retransmit => {
                self.counters.retransmissions_sent.add();
                self.out.send(branch.hop, &cancelling.sent);
            }
            ClientAction::NoAnswer | ClientAction::NoFinalAnswer | ClientAction::Terminated => branch.cancelling = None,
        }
    }

    pub(crate) fn attempt_failed(&mut self, now: Now, entry: Key, attempt: usize, status_code: u16, outcome: Outcome) {
        // As long as its name has other addresses, nothing is said against the gateway.
        let last = self.transactions.get(entry).is_some_and(|transaction| transaction.addresses.is_empty());
        self.end_attempt(now, entry, attempt, outcome, last.then_some(outcome));
        let abandoned = self.transactions.get(entry).and_then(|t| t.branches.get(attempt)).is_some_and(|branch| branch.client.is_abandoned());
        if !abandoned {
            self.close_silent_attempt(entry, attempt);
        }
        self.unanswered_media(entry);
        self.note_answer(now, entry, attempt, status_code);
        let silent = matches!(outcome, Outcome::Silence | Outcome::Unreachable);
        if !(silent && self.try_next_flow(entry, attempt)) {
            let status_code = if outcome == Outcome::Unreachable { self.flow_status(entry, status_code) } else { status_code };
            self.note_failure(entry, status_code, None);
        }
        // Silence and a dead transport always mean the next address, whatever `fail_over` says (RFC 3263 section 4.3).
        let more = self.transactions.get(entry).is_some_and(|t| !t.caller_cancelled && (!t.targets.is_empty() || !t.addresses.is_empty()));
        let planned = self.plan_goes_on(entry);
        if planned == Some(false) && !more {
            self.stop_plan(entry);
        }
        if more || planned == Some(true) {
            self.counters.fail_overs.add();
            self.with_request(entry, |edge, message| edge.advance(now, entry, message));
        }
        self.conclude(now, entry);
        self.rearm(entry);
    }

    pub(crate) fn mark_dead(&mut self, now: Now, target: Address, peer: Option<u16>) {
        let for_seconds = self.snapshot.settings.timers.dead_target_seconds;
        // The table is bounded by what it protects from: an attacker who names many dead addresses gains nothing.
        if for_seconds == 0 || self.dead.len() >= self.snapshot.settings.limits.targets {
            return;
        }
        self.counters.targets_marked_dead.add();
        if !self.dead.contains_key(&target) {
            self.tell_target(now, target, peer, "inactive");
        }
        self.dead.insert(target, (now.moment + seconds(for_seconds), peer));
    }

    /// Tries again over UDP what went over TCP for its size only, as a policy edited it for that attempt.
    fn fall_back(&mut self, now: Now, entry: Key, attempt: usize, udp: Address, mut shape: Shape) {
        if !self.media.calls.is_empty() {
            self.renumber_media(entry, attempt);
        }
        let policy = self.transactions.get_mut(entry).and_then(|transaction| transaction.policy.as_mut());
        match policy.and_then(|state| state.branch_edits.take_if(|(number, _)| *number == attempt)) {
            Some((_, bytes)) => {
                shape.strip_identity = false;
                self.with_stored(&bytes, |edge, message| {
                    if let Ok(route) = RouteView::read(&edge.snapshot.own, &edge.options.route_secret, message) {
                        shape.route = route;
                        edge.attempt(now, entry, message, udp, &shape, true);
                    }
                });
            }
            None => {
                self.with_request(entry, |edge, message| edge.attempt(now, entry, message, udp, &shape, true));
            }
        }
    }

    /// The worker whose attempt `request` was, if it was ours.
    pub fn attempt_owner(&self, request: &[u8]) -> Option<u8> {
        self.sent_branch(request).map(|token| token.worker).filter(|worker| *worker < self.options.workers)
    }

    /// The branch of a request that we sent. An ICMP error quotes little more than its beginning, so that no parser would
    /// take it; but there we wrote our Via ourselves.
    fn sent_branch(&self, bytes: &[u8]) -> Option<BranchToken> {
        let mut lines = bytes.splitn(3, |b| *b == b'\n');
        let (start, via) = (lines.next()?, lines.next()?);
        if [&b"SIP/"[..], b"ACK ", b"CANCEL "].iter().any(|other| start.starts_with(other)) || !via.starts_with(b"Via: ") {
            return None;
        }
        let at = via.windows(8).position(|window| window == b";branch=")? + 8;
        let branch = via.get(at..at + proto::BRANCH_TEXT)?;
        BranchToken::read(branch).filter(|token| token.node == self.node_id)
    }

    /// A message of ours could not be delivered: an ICMP error came back, or its connection failed.
    pub fn handle_undeliverable(&mut self, now: Now, bytes: &[u8]) {
        let Some(token) = self.sent_branch(bytes).filter(|token| token.worker == self.options.worker) else { return };
        let (entry, attempt) = (token.transaction, usize::from(token.attempt));
        self.in_hand = entry;
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        let shape = transaction.shape.as_deref().copied();
        let (is_last, is_probe) = (transaction.addresses.is_empty(), transaction.is_probe());
        let Some(branch) = transaction.branches.get_mut(attempt).filter(|branch| branch.cookie == token.cookie) else { return };
        let unanswered = match &branch.client {
            Client::Invite(client) => client.is_open() && !client.is_proceeding(),
            Client::NonInvite(client) => client.is_open(),
        };
        if !unanswered {
            return;
        }
        self.counters.attempts_undeliverable.add();
        let has_health = is_last && (branch.gateway.is_some() || is_probe);
        branch.client.handle_transport_error();
        branch.sent = Box::default();
        let target = Address { transport: branch.hop.transport, address: branch.hop.address };
        let peer = branch.peer;
        if branch.fall_back_to_udp
            && let Some(shape) = shape
        {
            let udp = Address { transport: Transport::Udp, address: target.address };
            branch.gateway = None;
            self.note_answer(now, entry, attempt, 503);
            self.fall_back(now, entry, attempt, udp, shape);
            self.conclude(now, entry);
            return self.rearm(entry);
        }
        if !has_health {
            self.mark_dead(now, target, peer);
        }
        self.attempt_failed(now, entry, attempt, 503, Outcome::Unreachable);
    }
}
