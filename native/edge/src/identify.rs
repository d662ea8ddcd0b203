//! Phases *identify* and *admit* in the life of a request that opens something.

use proto::Now;
use syntax::{Message, Method};

use crate::edge::Edge;
use crate::hop::Hop;
use crate::matching::Refusal;
use crate::route::RouteView;
use crate::settings::Forking;
use crate::target::NoTarget;
use crate::transaction::Shape;

impl Edge {
    /// A request that belongs to nothing we know: who sent it, may it, and where does it go?
    pub(crate) fn open(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, key: u128, route: &RouteView) {
        let Some(peer) = self.snapshot.peers.identify(arrival.listener, arrival.transport, arrival.address) else {
            self.counters.refused_strangers.add();
            if self.may_log(now) {
                log::info!(target: "identify", "{} from stranger {} refused, call {}", message.head.method.as_str(), self.shown(arrival.address), self.shown_text(message.call_id()));
            }
            return self.refuse(now, arrival, message, None, &Refusal::new(403, "identify"));
        };
        if self.is_ping(message, route) {
            return self.answer_ping(arrival, message);
        }
        if let Err(refusal) = self.admit() {
            return self.refuse(now, arrival, message, Some(peer), &refusal);
        }
        let found = match self.find_targets(message, route, peer) {
            Ok(found) => found,
            Err(why) => {
                self.counters.refused_no_target.add();
                let refusal = match why {
                    NoTarget::ForeignRoute => Refusal::new(403, "target"),
                    NoTarget::NotFound => Refusal::new(404, "target"),
                };
                return self.refuse(now, arrival, message, Some(peer), &refusal);
            }
        };
        let settings = &self.snapshot.settings.peers[usize::from(peer)];
        let listener = found.policy.map(|policy| &self.snapshot.settings.peers[usize::from(policy)].listener).filter(|name| !name.is_empty());
        let shape = Shape {
            route: *route,
            from_peer: Some(peer),
            policy: found.policy,
            listener: listener.and_then(|name| self.snapshot.settings.listeners.iter().position(|l| l.name == *name)).map(|index| index as u16),
            flow: None,
            required_peer: None,
            record_route: message.head.method.opens_dialog() && message.head.to.tag.is_empty(),
            strip_identity: !settings.trust_identity,
            parallel: found.policy.is_some_and(|policy| self.snapshot.settings.peers[usize::from(policy)].forking == Forking::Parallel),
        };
        let is_call = message.head.method == Method::Invite && message.head.to.tag.is_empty();
        self.relay(now, arrival, message, key, shape, found.targets, is_call);
    }
}
