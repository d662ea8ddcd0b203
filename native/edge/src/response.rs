//! Responses: matched to their branch, passed on at once where they may be, collected where not (RFC 3261 section 16.7).

use proto::{BranchToken, DialogState, FinalOutcome, Key, Now, milliseconds};
use routing::Outcome;
use syntax::{HeaderName, Message, Method, Transport, push_unfolded};

use crate::cancel::derive;
use crate::edge::Edge;
use crate::hop::Hop;
use crate::identity::{is_withheld_history, wants_privacy};
use crate::reason::q850_cause;
use crate::transaction::{CancelReason, Client, Server};

impl Edge {
    pub(crate) fn handle_response(&mut self, now: Now, arrival: &Hop, message: &Message<'_>) {
        let Some((entry, attempt)) = self.find_branch(now, arrival, message) else {
            if self.ping_answered(message) {
                return;
            }
            return self.counters.stray_responses.add();
        };
        self.in_hand = entry;
        let Some(transaction) = self.transactions.get(entry) else { return };
        if let Some(heard) = self.heard.get_mut(&arrival.address) {
            *heard = now.moment;
        }
        if message.head.method == Method::Cancel {
            self.cancel_answered(now, entry, attempt, message.head.status_code);
            return self.rearm(entry);
        }
        if message.head.method != transaction.method {
            return self.counters.stray_responses.add();
        }
        if !self.ask_about_response(now, arrival, entry, attempt, message) {
            self.take_response(now, arrival, entry, attempt, message);
        }
        self.rearm(entry);
    }

    /// A response of the right method, as it came or as a policy wants it.
    pub(crate) fn take_response(&mut self, now: Now, arrival: &Hop, entry: Key, attempt: usize, message: &Message<'_>) {
        if self.media.external > 0 && self.hold_for_media(now, arrival, entry, attempt, message) {
            return;
        }
        let Some(transaction) = self.transactions.get(entry) else { return };
        let code = message.head.status_code;
        let peer = transaction.branches.get(attempt).and_then(|branch| branch.peer);
        if let Some(counter) = self.counts_of(peer).classes.get(usize::from(code / 100)) {
            counter.add();
        }
        let method = transaction.method;
        if code >= 200 {
            self.learn(now, entry, message);
        }
        match (method, code) {
            (_, 100..=199) => self.provisional(now, arrival, entry, attempt, message),
            (Method::Invite, 200..=299) => self.success(now, arrival, entry, attempt, message),
            (Method::Invite, _) => self.refusal(now, arrival, entry, attempt, message),
            _ => self.non_invite_final(now, arrival, entry, attempt, message),
        }
    }

    /// The branch that our own topmost Via names; the cookie keeps others from guessing one.
    fn find_branch(&mut self, now: Now, arrival: &Hop, message: &Message<'_>) -> Option<(Key, usize)> {
        let via = &message.head.via;
        let token = BranchToken::read(message.text(via.branch))?;
        let port = via.port.unwrap_or_else(|| via.transport.map_or(5060, Transport::default_port));
        if token.node != self.node_id || token.worker != self.options.worker {
            return None;
        }
        let branch = self.transactions.get(token.transaction)?.branches.get(usize::from(token.attempt))?;
        if branch.cookie != token.cookie {
            return None;
        }
        if !self.snapshot.own.has(message.text(via.host), port) {
            // RFC 3261 section 18.1.2 has such a response dropped, as one that strayed; this one comes from where the request went.
            if branch.hop.address.ip() != arrival.address.ip() {
                return None;
            }
            self.notice_middlebox(now, arrival, message, "our Via has another host");
        }
        Some((token.transaction, usize::from(token.attempt)))
    }

    /// Writes the response as the caller gets it to [`Edge::scratch`]: without our Via, and without what only a trusted
    /// peer may say of identities (RFC 3325 section 5). False where no other Via is left and it has nowhere to go, unless
    /// the request was our own.
    fn strip_via(&mut self, now: Now, arrival: &Hop, entry: Key, attempt: usize, message: &Message<'_>) -> bool {
        let Some(slot) = message.first(HeaderName::Via) else { return false };
        let Some(transaction) = self.transactions.get(entry) else { return false };
        let (own, reply_to, renumbered) = (transaction.origin.is_some(), transaction.arrival, transaction.renumbered);
        let from_peer = transaction.shape.as_ref().and_then(|shape| shape.from_peer);
        if !own && message.head.via.rest.is_empty() && message.all(HeaderName::Via).nth(1).is_none() {
            return false;
        }
        self.edits.clear();
        self.edits.remove_first_element(slot, message.head.via.rest);
        if let Some(from) = &transaction.from
            && let Some(slot) = message.first(HeaderName::From)
        {
            // What the far end was told of the caller is not what the caller said (RFC 3261 section 8.2.6.2).
            self.edits.replace(slot.value, from);
        }
        let slots = message.head.slots().iter();
        if slots.clone().any(|slot| slot.name.needs_trust() || slot.name.stays_within()) {
            let (believed, near) = (self.is_trusted(arrival), self.is_trusted(&reply_to));
            let withheld = !near && wants_privacy(message);
            let goes = |name: HeaderName| !believed && name.needs_trust() || !near && name.stays_within() || withheld && name.tells_identity();
            slots.filter(|slot| goes(slot.name) || !near && is_withheld_history(message, slot)).for_each(|slot| self.edits.remove(slot.line));
        }
        self.edit_number_back(renumbered, message);
        if !own {
            self.edit_session_answer(entry, message);
            self.note_session(now, entry, message);
            self.mark_contact(now, arrival, message);
            if self.snapshot.subscribers.is_some() && message.first(HeaderName::RecordRoute).is_some() {
                self.repair_record_route(now, arrival, message);
            }
            self.unmark_register(now, message, from_peer);
        }
        if self.media.calls.is_empty() || !self.edit_media(arrival, entry, attempt, message) {
            let repairs = if own { Default::default() } else { self.repair_description(arrival, message) };
            if repairs.is_empty() {
                self.add_content_length(message);
            }
            for (place, text) in &repairs {
                self.edits.replace(*place, text);
            }
        }
        self.scratch.clear();
        self.edits.apply(message, &mut self.scratch);
        // Last: what the far side said of media is of a request that was relayed without.
        if (200..300).contains(&message.head.status_code) && self.transactions.get(entry).is_some_and(|transaction| transaction.dialog.is_some()) {
            self.see_again(now, entry, arrival);
        }
        true
    }

    fn is_trusted(&self, arrival: &Hop) -> bool {
        let peer = self.identify(arrival.listener, arrival.transport, arrival.address);
        peer.is_some_and(|index| self.snapshot.settings.peers[usize::from(index)].trust_identity)
    }

    /// Notes the dialog of a response; false where its call has too many, so that the response must go no further.
    fn admit_dialog(&mut self, now: Now, arrival: &Hop, entry: Key, message: &Message<'_>, state: DialogState) -> bool {
        let most = self.snapshot.settings.limits.dialogs;
        let Some(transaction) = self.transactions.get(entry).filter(|t| t.dialog.is_none()) else { return true };
        let key = transaction.call;
        let Some(call) = self.calls.get_mut(key) else { return true };
        let first = call.dialogs.is_empty() && call.answered.is_none();
        let admitted = message.head.to.tag.is_empty() || call.note_dialog(message.text(message.head.to.tag), state, arrival, most);
        if first && state == DialogState::Early && !message.head.to.tag.is_empty() {
            self.tell_state(now, key, message.text(message.head.to.tag), 1, 2);
        }
        if !admitted {
            self.counters.dialogs_refused.add();
        }
        admitted
    }

    /// The far end is at work: what was sent is not sent again, and the time to the final answer runs.
    pub(crate) fn note_provisional(&mut self, now: Now, entry: Key, attempt: usize, code: u16) {
        let timers = self.snapshot.timers;
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        let policy = transaction.shape.as_ref().and_then(|shape| shape.policy);
        let wished = transaction.policy.as_ref().and_then(|policy| policy.final_answer).or(transaction.plan.as_ref().map(|plan| plan.terms.final_answer));
        let final_answer =
            wished.unwrap_or_else(|| policy.map_or(timers.c, |p| milliseconds(self.snapshot.settings.peers[usize::from(p)].final_answer_milliseconds)));
        let Some(branch) = transaction.branches.get_mut(attempt).filter(|branch| branch.client.is_open()) else { return };
        match &mut branch.client {
            // A branch under CANCEL keeps the deadline that the CANCEL set.
            Client::Invite(_) if branch.cancelled => {}
            Client::Invite(client) => client.handle_provisional(now.moment, code, final_answer),
            Client::NonInvite(client) => client.handle_provisional(now.moment, &timers),
        }
    }

    fn provisional(&mut self, now: Now, arrival: &Hop, entry: Key, attempt: usize, message: &Message<'_>) {
        let code = message.head.status_code;
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        let Some(branch) = transaction.branches.get_mut(attempt) else { return };
        if branch.client.is_abandoned() {
            // Others are tried by now, or the caller was told: it must not go on ringing (section 9.1).
            if !branch.cancelled {
                let reason = branch.cancel_wanted.take().unwrap_or_else(|| Box::new(CancelReason::Timeout));
                self.send_cancel(now, entry, attempt, &reason);
            }
            return;
        }
        if !branch.client.is_open() {
            return;
        }
        let wanted = branch.cancel_wanted.take();
        self.note_provisional(now, entry, attempt, code);
        self.ping_heard(entry, message);
        self.note_answer(now, entry, attempt, code);
        if let Some(reason) = wanted {
            self.send_cancel(now, entry, attempt, &reason);
        }
        let service = self.transactions.get(entry).and_then(|transaction| transaction.policy.as_ref()).is_some_and(|state| state.service);
        if code == 100
            || service
            || !self.strip_via(now, arrival, entry, attempt, message)
            || !self.admit_dialog(now, arrival, entry, message, DialogState::Early)
        {
            return;
        }
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        let may = match &mut transaction.server {
            Server::Invite(server) => server.is_proceeding(),
            Server::NonInvite(server) => server.handle_provisional(),
            Server::Ack => false,
        };
        if !may || transaction.origin.is_some() {
            return;
        }
        transaction.trying_at = proto::Moment::NEVER;
        self.out.send(transaction.reply_to, &self.scratch);
        if !transaction.reply_to.transport.is_reliable() {
            transaction.response = Some(self.scratch.as_slice().into());
        }
    }

    fn success(&mut self, now: Now, arrival: &Hop, entry: Key, attempt: usize, message: &Message<'_>) {
        let timers = self.snapshot.timers;
        let code = message.head.status_code;
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        let Some(branch) = transaction.branches.get_mut(attempt) else { return };
        let Client::Invite(client) = &mut branch.client else { return };
        let outcome = client.handle_final(now.moment, code, &timers);
        // The answer of one that was given up is as good as any, as long as the caller has none.
        let first = match outcome {
            FinalOutcome::First => true,
            FinalOutcome::Late => matches!(&transaction.server, Server::Invite(server) if server.is_proceeding()),
            FinalOutcome::AnotherSuccess => false,
            FinalOutcome::Repeated | FinalOutcome::Ignore => return,
        };
        if transaction.origin.is_some() {
            return self.acknowledge_ping(now, entry, attempt, message);
        }
        if outcome == FinalOutcome::Late {
            self.counters.attempts_answered_late.add();
        }
        if !self.strip_via(now, arrival, entry, attempt, message) {
            return;
        }
        let before = self.transactions.get(entry).and_then(|transaction| self.calls.get(transaction.call));
        let rang = before.is_some_and(|call| !call.dialogs.is_empty());
        if !self.admit_dialog(now, arrival, entry, message, DialogState::Confirmed) {
            return;
        }
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        let (call, direction, within) = (transaction.call, transaction.dialog.unwrap_or(proto::Direction::FromCaller), transaction.dialog.is_some());
        let sent = transaction.branches.get_mut(attempt).map(|branch| std::mem::take(&mut branch.sent)).unwrap_or_default();
        // Of several branches that answer the first is what the caller talks to, until it ends that itself.
        let is_answer = within || self.calls.get(call).is_none_or(|call| call.answered.is_none());
        if first && is_answer {
            self.note_descriptions(call, direction, &sent);
        }
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        if let Some(branch) = transaction.branches.get_mut(attempt) {
            branch.cancel_wanted = None;
            if let Some(place) = branch.gateway.take() {
                let call = transaction.call;
                self.note_gateway(now, &place, None);
                // The place is the call's until that ends.
                if let Some(call) = self.calls.get_mut(call).filter(|_| is_answer) {
                    call.gateway = Some(place);
                }
            }
        }
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        if let Server::Invite(server) = &mut transaction.server {
            // Section 16.7 step 5: a 2xx is always passed on, even after another final response.
            server.handle_final(now.moment, code, &timers);
        }
        self.out.send(transaction.reply_to, &self.scratch);
        self.end_policy(entry, code);
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        transaction.policy = None;
        transaction.request = None;
        transaction.edited = None;
        transaction.response = None;
        transaction.shape = None;
        transaction.targets = Default::default();
        transaction.addresses = Vec::new();
        transaction.plan = None;
        transaction.waiting = None;
        transaction.best = None;
        (transaction.trying_at, transaction.give_up_at) = (proto::Moment::NEVER, proto::Moment::NEVER);
        let call_key = transaction.call;
        if first {
            if !self.media.calls.is_empty() && !within && is_answer {
                self.close_other_attempts(call_key, attempt);
            }
            self.note_answer(now, entry, attempt, code);
            self.cancel_branches(now, entry, Some(attempt), &CancelReason::Elsewhere);
            if is_answer {
                let dialog = self.transactions.get(entry).and_then(|t| t.dialog);
                self.note_success(call_key, dialog, message);
            }
        }
        let in_dialog = self.transactions.get(entry).is_none_or(|t| t.dialog.is_some());
        let next_ping = if in_dialog { proto::Moment::NEVER } else { self.next_ping(now) };
        if !in_dialog
            && let Some(call) = self.calls.get_mut(call_key)
            && call.answered.is_none()
        {
            call.answered = Some(now);
            call.callee = Some(*arrival);
            call.next_ping = next_ping;
            let old = if rang { 2 } else { 1 };
            self.arm_call(call_key);
            self.watch_duration(now, call_key);
            self.counters.calls_answered.add();
            self.tell_state(now, call_key, message.text(message.head.to.tag), old, 4);
        }
    }

    fn refusal(&mut self, now: Now, arrival: &Hop, entry: Key, attempt: usize, message: &Message<'_>) {
        let timers = self.snapshot.timers;
        let mut code = message.head.status_code;
        let Some(branch) = self.transactions.get_mut(entry).and_then(|t| t.branches.get_mut(attempt)) else { return };
        let Client::Invite(client) = &mut branch.client else { return };
        let outcome = client.handle_final(now.moment, code, &timers);
        match outcome {
            FinalOutcome::First | FinalOutcome::Late => {}
            FinalOutcome::Repeated => return self.out.send(branch.hop, &branch.sent),
            FinalOutcome::AnotherSuccess | FinalOutcome::Ignore => return,
        }
        let own = branch.timed_out && code == 487;
        if own {
            code = 408;
        }
        let sent = std::mem::take(&mut branch.sent);
        branch.cancel_wanted = None;
        let hop = branch.hop;
        let mut ack = Vec::with_capacity(512);
        let to = message.first(HeaderName::To).map_or(&[][..], |slot| slot.value.of(message.bytes));
        self.with_stored(&sent, |_, request| derive(request, "ACK", to, None, &mut ack));
        if ack.is_empty() {
            return;
        }
        self.out.send(hop, &ack);
        if !hop.transport.is_reliable()
            && let Some(branch) = self.transactions.get_mut(entry).and_then(|t| t.branches.get_mut(attempt))
        {
            branch.sent = ack.into_boxed_slice();
        }
        if outcome == FinalOutcome::Late {
            // That it did not answer has been taken for its refusal already.
            return self.close_silent_attempt(entry, attempt);
        }
        let rang = self.rang(entry, attempt);
        self.note_answer(now, entry, attempt, code);
        let refused = Outcome::Refused(code, q850_cause(message));
        let outcome = match code {
            408 if rang => Outcome::RangOut,
            408 => Outcome::Silence,
            _ => refused,
        };
        // A 408 of its own, for somebody who is not there, says nothing against a gateway.
        self.end_attempt(now, entry, attempt, outcome, Some(if own { outcome } else { refused }));
        self.refused_media(entry, attempt, message);
        if !own {
            self.note_in_dialog_final(now, entry, message);
        }
        if code == 430 && self.is_own_flow(entry) {
            code = 480;
            if !self.try_next_flow(entry, attempt) {
                self.note_failure(entry, code, None);
            }
        } else {
            self.collect(now, arrival, entry, attempt, code, message);
        }
        if code >= 600 && self.plan_goes_on(entry) != Some(true) {
            // Section 16.7 step 5: a global refusal ends the search.
            self.stop_plan(entry);
            if let Some(transaction) = self.transactions.get_mut(entry) {
                transaction.targets.clear();
                transaction.addresses.clear();
                // Nor is an attempt made that waits for its name or its policy.
                transaction.waiting = None;
                if let Some(state) = transaction.policy.as_mut() {
                    state.pending = None;
                }
            }
            self.cancel_branches(now, entry, Some(attempt), &CancelReason::Refused(code));
        }
        self.after_failure(now, entry, code);
    }

    fn non_invite_final(&mut self, now: Now, arrival: &Hop, entry: Key, attempt: usize, message: &Message<'_>) {
        let timers = self.snapshot.timers;
        let code = message.head.status_code;
        let Some(branch) = self.transactions.get_mut(entry).and_then(|t| t.branches.get_mut(attempt)) else { return };
        let Client::NonInvite(client) = &mut branch.client else { return };
        if !client.handle_final(now.moment, &timers) {
            return;
        }
        let sent = std::mem::take(&mut branch.sent);
        self.note_in_dialog_final(now, entry, message);
        if code >= 300 {
            let outcome = Outcome::Refused(code, q850_cause(message));
            self.end_attempt(now, entry, attempt, outcome, Some(outcome));
            self.refused_media(entry, attempt, message);
            if code == 430 && self.is_own_flow(entry) {
                if !self.try_next_flow(entry, attempt) {
                    self.note_failure(entry, 480, None);
                }
                return self.after_failure(now, entry, 480);
            }
            self.collect(now, arrival, entry, attempt, code, message);
            return self.after_failure(now, entry, code);
        }
        let place = self.transactions.get_mut(entry).and_then(|t| t.branches.get_mut(attempt)).and_then(|branch| branch.gateway.take());
        if let Some(place) = place {
            self.note_gateway(now, &place, None);
        }
        if self.strip_via(now, arrival, entry, attempt, message) {
            if let Some((call, Some(direction), Method::Update)) = self.transactions.get(entry).map(|t| (t.call, t.dialog, t.method)) {
                self.note_descriptions(call, direction, &sent);
            }
            let response = std::mem::take(&mut self.scratch);
            self.finish(now, entry, code, &response, "callee");
            self.scratch = response;
        }
    }

    /// Keeps a refusal for the choice of the best one, and the lines of a challenge.
    fn collect(&mut self, now: Now, arrival: &Hop, entry: Key, attempt: usize, status_code: u16, message: &Message<'_>) {
        if matches!(status_code, 401 | 407)
            && let Some(transaction) = self.transactions.get_mut(entry)
        {
            for slot in message.head.slots().iter().filter(|slot| is_challenge(slot.name)) {
                transaction.challenges.extend_from_slice(slot.name_span.of(message.bytes));
                transaction.challenges.extend_from_slice(b": ");
                push_unfolded(slot.value.of(message.bytes), &mut transaction.challenges);
                transaction.challenges.extend_from_slice(b"\r\n");
            }
        }
        let response = if status_code == message.head.status_code && self.strip_via(now, arrival, entry, attempt, message) {
            Some(self.scratch.as_slice().into())
        } else {
            None
        };
        self.note_failure(entry, status_code, response);
    }

    /// Section 16.7 step 7: a 401 or 407 carries the challenges of all branches.
    pub(crate) fn merge_challenges(&mut self, entry: Key, status_code: u16, response: Box<[u8]>) -> Box<[u8]> {
        let Some(transaction) = self.transactions.get_mut(entry) else { return response };
        if !matches!(status_code, 401 | 407) || transaction.branches.len() < 2 {
            return response;
        }
        let challenges = std::mem::take(&mut transaction.challenges);
        let mut merged = Vec::with_capacity(response.len() + challenges.len());
        self.with_stored(&response, |edge, message| {
            edge.edits.clear();
            for slot in message.head.slots().iter().filter(|slot| is_challenge(slot.name)) {
                edge.edits.remove(slot.line);
            }
            edge.edits.insert_with(usize::from(message.head.headers_end), |out| out.extend_from_slice(&challenges));
            edge.edits.apply(message, &mut merged);
        });
        if merged.is_empty() { response } else { merged.into_boxed_slice() }
    }

    fn cancel_answered(&mut self, now: Now, entry: Key, attempt: usize, status_code: u16) {
        let timers = self.snapshot.timers;
        let Some(branch) = self.transactions.get_mut(entry).and_then(|t| t.branches.get_mut(attempt)) else { return };
        if let Some(cancelling) = &mut branch.cancelling {
            if status_code < 200 {
                cancelling.client.handle_provisional(now.moment, &timers);
            } else {
                // Nothing distinguishes a repeated answer to CANCEL from none, so there is nothing to wait for.
                branch.cancelling = None;
            }
        }
    }
}

fn is_challenge(name: HeaderName) -> bool {
    matches!(name, HeaderName::WwwAuthenticate | HeaderName::ProxyAuthenticate)
}
