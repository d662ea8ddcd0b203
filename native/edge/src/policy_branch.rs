//! Hooks by opt-in: a policy is asked about each attempt before it is made, and once when all have failed.

use proto::{Key, Moment, Now};
use syntax::Message;

use crate::edge::Edge;
use crate::policy::VerdictError;
use crate::policy_edit::edited;
use crate::question::Address;
use crate::route::RouteView;
use crate::verdict::{EditAction, PolicyEvent, Verdict, VerdictKind};

impl Edge {
    /// Parks an attempt until a policy has looked at it; false where none wants to.
    pub(crate) fn ask_about_branch(&mut self, now: Now, entry: Key, message: &Message<'_>, address: Address) -> bool {
        if !self.snapshot.asks(PolicyEvent::Branch) {
            return false;
        }
        let Some(transaction) = self.transactions.get(entry).filter(|t| t.dialog.is_none() && t.origin.is_none()) else { return false };
        let Some(peer) = transaction.shape.as_ref().and_then(|shape| shape.from_peer) else { return false };
        let Some(terms) = self.policy_for(PolicyEvent::Branch, message, peer) else { return false };
        let there = self.begin_policy(now, entry, message, PolicyEvent::Branch, &terms);
        self.counters.policy_questions.add();
        if let Some(state) = self.transactions.get_mut(entry).and_then(|t| t.policy.as_mut()) {
            state.pending = Some((address, terms.status_code));
        }
        if !there {
            self.counters.policy_unavailable.add();
            if self.transactions.get(entry).and_then(|t| self.calls.get(t.call)).is_some_and(|call| call.emergency) {
                // Help is called for, whatever became of a policy.
                return false;
            }
            // The request is in our hands here, so the answer to the caller is left to whoever puts it back.
            self.branch_failed(entry);
            return true;
        }
        let trace = self.trace_id(message.call_id(), message.text(message.head.from.tag));
        let count = self.transactions.get(entry).map_or(0, |t| t.branches.len());
        self.put_question(now, entry, PolicyEvent::Branch, count as u16 + 1, trace, Some(message.bytes), terms.deadline);
        true
    }

    /// Makes the attempt that a policy was asked about as if it had nothing to say; false where that cannot be.
    pub(crate) fn make_branch(&mut self, now: Now, entry: Key) -> bool {
        let Some(transaction) = self.transactions.get_mut(entry) else { return false };
        let Some(shape) = transaction.shape.as_deref().copied() else { return false };
        let Some((address, _)) = transaction.policy.as_mut().and_then(|state| state.pending.take()) else { return false };
        self.decide_for(entry, |_| "policy: no usable verdict on an attempt, it is made for a call for help".to_owned());
        if self.with_request(entry, |edge, message| edge.start_branch(now, entry, message, address, &shape)) != Some(true) {
            self.with_request(entry, |edge, message| edge.advance(now, entry, message));
        }
        true
    }

    /// Makes the attempt that a policy has looked at, with its edits, or passes it over.
    pub(crate) fn decide_branch(&mut self, now: Now, entry: Key, verdict: &Verdict) -> Result<(), VerdictError> {
        let Some(transaction) = self.transactions.get_mut(entry) else { return Ok(()) };
        let strip = transaction.shape.as_ref().is_some_and(|shape| shape.strip_identity);
        let Some(mut shape) = transaction.shape.as_deref().copied() else { return Ok(()) };
        // Kept until the verdict is known to be one: without any a call for help is made all the same.
        let pending = transaction.policy.as_ref().and_then(|state| state.pending.as_ref()).map(|(address, _)| *address);
        let number = transaction.branches.len();
        let made = match verdict.kind {
            VerdictKind::Continue if verdict.edits.is_empty() => None,
            VerdictKind::Continue => {
                self.remember_from(entry, verdict);
                let made = self.with_request(entry, |edge, message| edited(&mut edge.edits, message, &verdict.edits, strip)).transpose()?;
                Some(made.ok_or(VerdictError::TooLarge)?)
            }
            VerdictKind::Reply if (300..700).contains(&verdict.status_code) => None,
            VerdictKind::Reply => return Err(VerdictError::StatusCode(verdict.status_code)),
            VerdictKind::Error => {
                self.counters.policy_errors.add();
                self.policy_failed(now, entry);
                return Ok(());
            }
            VerdictKind::Relay
            | VerdictKind::Route
            | VerdictKind::Next
            | VerdictKind::Best
            | VerdictKind::Drop
            | VerdictKind::Originate
            | VerdictKind::GiveUp => {
                return Err(VerdictError::Hook);
            }
        };
        self.keep(entry, verdict)?;
        if let Some(transaction) = self.transactions.get_mut(entry) {
            transaction.waiting = None;
            if let Some(state) = transaction.policy.as_mut() {
                state.pending = None;
            }
            // A Request-URI of the policy's own stands in place of that of the gateway.
            let own = verdict.edits.iter().rfind(|edit| edit.action == EditAction::RequestUri);
            if let (Some(edit), Some(plan)) = (own, transaction.plan.as_mut()) {
                edit.value.as_bytes().clone_into(&mut plan.request_uri);
            }
        }
        let started = match (verdict.kind, pending, made) {
            (VerdictKind::Continue, Some(address), Some(bytes)) => {
                shape.strip_identity = false;
                let tried = self.with_stored(&bytes, |edge, message| {
                    // Offsets into the request as it came mean nothing in this one.
                    shape.route = RouteView::read(&edge.snapshot.own, &edge.options.route_secret, message).map_err(|_| VerdictError::TooLarge)?;
                    Ok(edge.start_branch(now, entry, message, address, &shape))
                });
                // Kept for an attempt over UDP, should that over TCP fail.
                if let Some(state) = self.transactions.get_mut(entry).and_then(|t| t.policy.as_mut()) {
                    state.branch_edits = Some((number, bytes.into_boxed_slice()));
                }
                tried.unwrap_or(Err(VerdictError::TooLarge))?
            }
            (VerdictKind::Continue, Some(address), None) => {
                self.with_request(entry, |edge, message| edge.start_branch(now, entry, message, address, &shape)).unwrap_or(false)
            }
            _ => {
                self.note_failure(entry, verdict.status_code, None);
                false
            }
        };
        if !started {
            self.with_request(entry, |edge, message| edge.advance(now, entry, message));
        }
        self.conclude(now, entry);
        Ok(())
    }

    /// Every attempt has failed: true where a policy is asked whether there is another way. That is done once.
    pub(crate) fn ask_about_failure(&mut self, now: Now, entry: Key) -> bool {
        if !self.snapshot.asks(PolicyEvent::Failure) {
            return false;
        }
        let Some(transaction) = self.transactions.get(entry) else { return false };
        // Past `setup_seconds` there is no time for another way.
        let may = transaction.dialog.is_none() && transaction.origin.is_none() && !transaction.caller_cancelled && transaction.give_up_at != Moment::NEVER;
        let asked = transaction.policy.as_ref().is_some_and(|state| state.failure_asked);
        let status_code = transaction.best.as_ref().map_or(408, |best| best.status_code);
        let peer = transaction.shape.as_ref().and_then(|shape| shape.from_peer);
        let Some(peer) = peer.filter(|_| may && !asked && transaction.best.is_some()) else { return false };
        let found = self.with_request(entry, |edge, message| {
            let terms = edge.policy_for(PolicyEvent::Failure, message, peer)?;
            let there = edge.begin_policy(now, entry, message, PolicyEvent::Failure, &terms);
            Some((there, terms.deadline, edge.trace_id(message.call_id(), message.text(message.head.from.tag))))
        });
        let Some(Some((there, deadline, trace))) = found else { return false };
        if let Some(state) = self.transactions.get_mut(entry).and_then(|t| t.policy.as_mut()) {
            state.failure_asked = true;
        }
        self.counters.policy_questions.add();
        if !there {
            self.counters.policy_unavailable.add();
            return false;
        }
        self.put_question(now, entry, PolicyEvent::Failure, status_code, trace, None, deadline);
        true
    }
}
