//! A handler whose own time for its attempts is over, or that decides while they are under way: they end, and it is told so.

use proto::{Key, Now};
use routing::Outcome;

use crate::edge::Edge;
use crate::transaction::{CancelReason, Client, WaitKind};
use crate::verdict::{PolicyEvent, Verdict, VerdictKind};

impl Edge {
    /// Whether `decision` gives up attempts that its handler waits for; one that crossed their end is too late.
    pub(crate) fn gives_up(&self, entry: Key, decision: &[u8]) -> bool {
        let Some(transaction) = self.transactions.get(entry) else { return false };
        let Some(state) = transaction.policy.as_ref().filter(|state| state.running && state.report) else { return false };
        // A question about one of the attempts may be under way; one about their end may not.
        let decides = transaction.waiting.is_some_and(|waiting| waiting.kind == WaitKind::Policy) && !PolicyEvent::stands_alone(state.event as u8);
        !decides && rmp_serde::from_slice::<Verdict>(decision).is_ok_and(|verdict| verdict.kind == VerdictKind::GiveUp)
    }

    /// Ends the attempts of a handler that waits for them, as if nobody had answered them in time. One that answers all the same
    /// before anything else did has its call (RFC 3261 section 16.7 step 5).
    pub(crate) fn give_up_attempts(&mut self, now: Now, entry: Key) {
        self.in_hand = entry;
        self.decide_for(entry, |_| "policy: the attempts under way are given up".to_owned());
        self.end_part(entry, 408);
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        transaction.waiting = None;
        transaction.targets.clear();
        transaction.addresses.clear();
        if let Some(state) = transaction.policy.as_mut() {
            state.pending = None;
        }
        self.stop_plan(entry);
        self.cancel_branches(now, entry, None, &CancelReason::Timeout);
        let count = self.transactions.get(entry).map_or(0, |transaction| transaction.branches.len());
        for attempt in 0..count {
            let Some(branch) = self.transactions.get_mut(entry).and_then(|transaction| transaction.branches.get_mut(attempt)) else { break };
            if !branch.client.is_open() {
                continue;
            }
            match &mut branch.client {
                Client::Invite(client) => client.give_up(),
                Client::NonInvite(_) => branch.client.handle_transport_error(),
            }
            // That its caller waits no longer says nothing against a gateway.
            self.end_attempt(now, entry, attempt, Outcome::RangOut, None);
            self.note_answer(now, entry, attempt, 408);
        }
        self.note_failure(entry, 408, None);
        self.conclude(now, entry);
        self.rearm(entry);
    }
}
