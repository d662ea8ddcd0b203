//! Gateways that no listener leads to, and such whose names have no address: attempts that fail before anything is sent.

use proto::{InviteClient, Key, NonInviteClient, Now};
use routing::Outcome;
use syntax::Method;

use crate::edge::Edge;
use crate::hop::Hop;
use crate::question::Address;
use crate::transaction::{Branch, Client};

impl Edge {
    /// Whether a gateway is at hand and to be passed over because no listener leads to `to`; that counts as an attempt.
    pub(crate) fn is_out_of_reach(&mut self, now: Now, entry: Key, to: Address) -> bool {
        let plan = self.transactions.get(entry).and_then(|transaction| transaction.plan.as_ref());
        let reached = || self.snapshot.settings.listeners.iter().any(|listener| listener.way() == Some(to.way()));
        if plan.is_none_or(|plan| plan.current.is_none()) || reached() {
            return false;
        }
        let cookie = self.random() as u32;
        let timers = self.snapshot.timers;
        let Some(transaction) = self.transactions.get(entry) else { return false };
        let (number, arrival, is_call) = (transaction.branches.len(), transaction.arrival, transaction.method == Method::Invite);
        let peer = transaction.shape.as_ref().and_then(|shape| shape.policy);
        let hop = Hop { listener: arrival.listener, transport: to.transport, address: to.address, connection: None };
        // Records and reports know attempts by the number of their branch.
        let mut client = if is_call {
            Client::Invite(InviteClient::new(now.moment, true, timers.t1, &timers))
        } else {
            Client::NonInvite(NonInviteClient::new(now.moment, true, timers.t1, &timers))
        };
        client.handle_transport_error();
        let gateway = self.gateway_call(now, entry);
        let Some(transaction) = self.transactions.get_mut(entry) else { return false };
        transaction.branches.push(Branch {
            client,
            cookie,
            hop,
            peer,
            sent: Box::default(),
            cancel_wanted: None,
            cancelling: None,
            fall_back_to_udp: false,
            cancelled: false,
            timed_out: false,
            gateway,
            spare: Vec::new(),
        });
        self.counters.attempts_undeliverable.add();
        self.counts_of(peer).attempts.add();
        self.note_attempt(now, entry, &hop, peer);
        self.note_answer(now, entry, number, 503);
        self.decide_for(entry, |edge| {
            let gateway = edge.transactions.get(entry).and_then(|transaction| transaction.plan.as_ref()).map_or("", |plan| plan.gateway_name());
            format!("relay: attempt {} fails, no listener sends to {to} ({gateway})", number + 1)
        });
        let last = self.transactions.get(entry).is_some_and(|transaction| transaction.addresses.is_empty());
        self.end_attempt(now, entry, number, Outcome::OutOfReach, last.then_some(Outcome::OutOfReach));
        self.note_failure(entry, 503, None);
        true
    }

    /// The name of the gateway at hand has no address now.
    pub(crate) fn has_no_address(&mut self, now: Now, entry: Key) {
        if let Some(call) = self.gateway_call(now, entry) {
            self.note_gateway(now, &call, Some(Outcome::OutOfReach));
        }
        if let Some(plan) = self.transactions.get_mut(entry).and_then(|transaction| transaction.plan.as_mut()) {
            plan.outcome = Some(Outcome::OutOfReach);
        }
    }
}
