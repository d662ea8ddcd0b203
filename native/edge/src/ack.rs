//! ACK: hop by hop for a refusal, end to end and without a transaction for a 2xx (RFC 3261 section 13.2.2.4, 17.1.1.3).

use proto::{AckOutcome, Key, Now, transaction_key};
use syntax::{Message, Method};

use crate::edge::Edge;
use crate::hop::Hop;
use crate::route::RouteView;
use crate::target::{Target, TargetSet};
use crate::transaction::Server;

impl Edge {
    pub(crate) fn handle_ack(&mut self, now: Now, arrival: &Hop, message: &Message<'_>) {
        let timers = self.snapshot.timers;
        let key = transaction_key(&self.options.process_secret, message, Method::Invite);
        if let Some(entry) = self.index.get(key)
            && let Some(transaction) = self.transactions.get_mut(entry)
            && let Server::Invite(server) = &mut transaction.server
            && server.handle_ack(now.moment, &timers) == AckOutcome::Absorb
        {
            if !server.answers_retransmission() {
                transaction.response = None;
            }
            return self.rearm(entry);
        }
        let Ok(route) = RouteView::read(&self.snapshot.own, &self.options.route_secret, message) else {
            return self.counters.stray_acks.add();
        };
        let found = self.in_dialog(arrival, message, &route).filter(|found| !found.unknown && message.head.max_forwards != Some(0));
        let Some(found) = found else { return self.counters.stray_acks.add() };
        let shape = self.dialog_shape(message, &route, &found);
        match self.next_hop_within(message, &shape) {
            // What carries an answer for an rtpengine waits for it.
            Some(Target::Address(address)) if self.media.external == 0 || message.head.body.is_empty() => {
                // A stateless hop's branch must be the same for the same ACK; nothing ever answers it.
                let branch = self.stateless_branch(message);
                let Some(hop) = self.hop_to(address, &shape) else { return self.counters.attempts_undeliverable.add() };
                let mut changes = self.anchor_within(arrival, message, &shape).unwrap_or_else(|fault| {
                    self.note_unreadable_ack(fault);
                    Default::default()
                });
                if changes.is_empty() {
                    changes = self.repair_description(arrival, message);
                }
                self.build_request(now, arrival, message, &shape, &hop, &branch, None, None, None, &changes);
                self.out.send(hop, &self.scratch);
            }
            Some(target) => self.relay(now, arrival, message, ack_key(key), shape, TargetSet::one(target), false, None),
            None => self.counters.stray_acks.add(),
        }
    }

    fn stateless_branch(&self, message: &Message<'_>) -> proto::BranchToken {
        let hash =
            proto::keyed_hash(&self.options.process_secret, &[message.text(message.head.via.branch), message.call_id(), &message.head.cseq.to_le_bytes()]);
        proto::BranchToken {
            node: self.node_id,
            worker: self.options.worker,
            attempt: 0,
            transaction: Key::NONE,
            cookie: hash as u32,
            loop_hash: self.loop_hash(message),
        }
    }
}

/// An ACK that waits for a name must not be taken for its INVITE.
fn ack_key(invite: u128) -> u128 {
    invite ^ 1
}
