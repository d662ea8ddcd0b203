//! Rules that name a handler (`dr_rules.routeid`): it is asked once the rule is chosen, before its first gateway is tried.

use proto::{Key, Now};
use syntax::Message;

use crate::edge::Edge;
use crate::policy::VerdictError;
use crate::policy_edit::edited;
use crate::route::RouteView;
use crate::verdict::{EditAction, PolicyEvent, Verdict, VerdictKind};

impl Edge {
    /// Parks a request whose plan has come to a rule with a handler; false where it has none, or was asked already.
    pub(crate) fn ask_about_rule(&mut self, now: Now, entry: Key, message: &Message<'_>) -> bool {
        let Some(transaction) = self.transactions.get_mut(entry) else { return false };
        let Some(plan) = transaction.plan.as_mut() else { return false };
        let Some(handler) = plan.handler_to_ask() else { return false };
        let Some(peer) = transaction.shape.as_ref().and_then(|shape| shape.from_peer) else { return false };
        // A reload may have taken it away since the rules were read: that is a failure as any other.
        let terms = self.policy_rule(PolicyEvent::Rule, handler.as_bytes(), peer);
        let there = terms.is_some_and(|terms| self.begin_policy(now, entry, message, PolicyEvent::Rule, &terms));
        self.counters.policy_questions.add();
        let Some(terms) = terms.filter(|_| there) else {
            self.counters.policy_unavailable.add();
            if self.transactions.get(entry).and_then(|t| self.calls.get(t.call)).is_some_and(|call| call.emergency) {
                // Help is called for, whatever became of a policy: the rule is used.
                return false;
            }
            self.note_failure(entry, terms.map_or(500, |terms| terms.status_code), None);
            self.stop_plan(entry);
            return true;
        };
        let trace = self.trace_id(message.call_id(), message.text(message.head.from.tag));
        self.put_question(now, entry, PolicyEvent::Rule, 0, trace, Some(message.bytes), terms.deadline);
        true
    }

    /// Goes on with the gateway that waits for its rule's handler, or ends the request.
    pub(crate) fn decide_rule(&mut self, now: Now, entry: Key, verdict: &Verdict) -> Result<(), VerdictError> {
        self.keep(entry, verdict)?;
        let Some(transaction) = self.transactions.get_mut(entry) else { return Ok(()) };
        match verdict.kind {
            VerdictKind::Continue => {
                if !verdict.edits.is_empty() {
                    let strip = transaction.shape.as_ref().is_some_and(|shape| shape.strip_identity);
                    self.remember_from(entry, verdict);
                    // On top of what handlers of the whole request did.
                    let made = self.with_request(entry, |edge, message| edited(&mut edge.edits, message, &verdict.edits, strip)).transpose()?;
                    let made = made.ok_or(VerdictError::TooLarge)?;
                    let read = self.with_stored(&made, |edge, message| {
                        let route = RouteView::read(&edge.snapshot.own, &edge.options.route_secret, message);
                        route.map(|route| (route, message.text(message.head.request_uri.user).to_vec()))
                    });
                    let Some(Ok((route, user))) = read else { return Err(VerdictError::TooLarge) };
                    let is_renumbered = verdict.edits.iter().any(|edit| edit.action == EditAction::RequestUri);
                    if let Some(transaction) = self.transactions.get_mut(entry) {
                        transaction.edited = Some(made.into_boxed_slice());
                        if let Some(state) = transaction.policy.as_mut() {
                            state.rule_edits.extend_from_slice(&verdict.edits);
                        }
                        if let Some(plan) = transaction.plan.as_mut().filter(|_| is_renumbered) {
                            plan.take_number(&user);
                        }
                        if let Some(shape) = transaction.shape.as_mut() {
                            (shape.route, shape.strip_identity) = (route, false);
                        }
                    }
                }
                if let Some(transaction) = self.transactions.get_mut(entry) {
                    transaction.waiting = None;
                }
                self.with_request(entry, |edge, message| edge.advance(now, entry, message));
                self.conclude(now, entry);
                Ok(())
            }
            VerdictKind::Reply => {
                let method = transaction.method;
                self.check_reply(method, verdict)?;
                self.end_with(now, entry, verdict)?;
                Ok(())
            }
            VerdictKind::Error => {
                self.counters.policy_errors.add();
                self.policy_failed(now, entry);
                Ok(())
            }
            VerdictKind::Relay
            | VerdictKind::Route
            | VerdictKind::Next
            | VerdictKind::Best
            | VerdictKind::Drop
            | VerdictKind::Originate
            | VerdictKind::GiveUp => Err(VerdictError::Hook),
        }
    }
}
