//! In-dialog requests: they follow their dialog, or, where we hold none any more, the sealed token in their Route.

use proto::{Direction, Key, Now, RouteToken};
use smallvec::SmallVec;
use syntax::{Message, Method};

use crate::call::Call;
use crate::edge::Edge;
use crate::hop::Hop;
use crate::matching::Refusal;
use crate::route::RouteView;
use crate::settings::PeerKind;
use crate::transaction::Shape;

impl Edge {
    #[expect(clippy::too_many_arguments, reason = "one request with what was found out about it")]
    pub(crate) fn relay_in_dialog(
        &mut self,
        now: Now,
        arrival: &Hop,
        message: &Message<'_>,
        key: u128,
        route: &RouteView,
        token: RouteToken,
        direction: Direction,
    ) {
        // RFC 3261 section 12.2.2: a To tag that the call never had belongs to no dialog. A caller's token would
        // otherwise carry any request to any place under the cover of one call.
        if direction == Direction::FromCaller && !self.knows_dialog(message, token) {
            return self.refuse(now, arrival, message, None, &Refusal::new(481, "match"));
        }
        let Some(target) = Self::next_hop(message, route) else {
            return self.refuse(now, arrival, message, None, &Refusal::new(404, "target"));
        };
        let shape = self.dialog_shape(route, &token, direction);
        self.relay(now, arrival, message, key, shape, SmallVec::from_buf([target]), false);
        if let Some(entry) = self.index.get(key)
            && let Some(transaction) = self.transactions.get_mut(entry)
        {
            transaction.dialog = Some(direction);
            transaction.call = token.call;
        }
    }

    /// How requests of this direction leave: by the listener, and if possible the connection, that the dialog began with.
    pub(crate) fn dialog_shape(&self, route: &RouteView, token: &RouteToken, direction: Direction) -> Shape {
        let (from, to) = match direction {
            Direction::FromCaller => (0, 1),
            Direction::FromCallee => (1, 0),
        };
        let sender = self.snapshot.settings.peers.iter().position(|p| proto::stable_id(&p.name) == token.peers[from]);
        let believed = sender.is_some_and(|index| self.snapshot.settings.peers[index].kind != PeerKind::Subscribers);
        let flow = self.call_of(token).and_then(|call| match direction {
            Direction::FromCaller => call.callee,
            Direction::FromCallee => Some(call.arrival),
        });
        Shape {
            route: *route,
            from_peer: sender.map(|index| index as u16),
            policy: None,
            listener: self.snapshot.listener_by_id(token.listeners[to]),
            flow,
            // A phone's dialog leads to the peer that it began with and nowhere else: its Request-URI could name a gateway.
            required_peer: Some(token.peers[to]).filter(|id| *id != 0 && !believed),
            record_route: false,
            strip_identity: sender.is_none_or(|index| !self.snapshot.settings.peers[index].trust_identity),
            parallel: false,
        }
    }

    /// Under what a call is found by its Call-ID and caller's tag.
    pub(crate) fn dialog_key(&self, call_id: &[u8], caller_tag: &[u8]) -> u128 {
        proto::keyed_hash(&self.options.process_secret, &[call_id, caller_tag])
    }

    /// What the token of a live call would say, for a request whose sender did not keep our Record-Route, and who sends it.
    pub(crate) fn find_dialog(&self, message: &Message<'_>) -> Option<(RouteToken, Direction)> {
        let (from_tag, to_tag) = (message.text(message.head.from.tag), message.text(message.head.to.tag));
        if to_tag.is_empty() {
            return None;
        }
        for (caller_tag, callee_tag, direction) in [(from_tag, to_tag, Direction::FromCaller), (to_tag, from_tag, Direction::FromCallee)] {
            let Some(key) = self.dialogs.get(self.dialog_key(message.call_id(), caller_tag)) else { continue };
            let Some(call) = self.calls.get(key).filter(|call| call.texts.call_id() == message.call_id() && call.has_dialog(callee_tag)) else { continue };
            let callee = call.callee.map_or(call.arrival.listener, |hop| hop.listener);
            let token = RouteToken {
                node: self.node_id,
                worker: self.options.worker,
                call: key,
                listeners: [self.snapshot.listener_id(call.arrival.listener), self.snapshot.listener_id(callee)],
                peers: [self.peer_id(call.from_peer), self.peer_id(call.attempts.last().and_then(|attempt| attempt.peer))],
            };
            return Some((token, direction));
        }
        None
    }

    /// The live call that a verified token names.
    pub(crate) fn call_of(&self, token: &RouteToken) -> Option<&Call> {
        if token.node != self.node_id || token.worker != self.options.worker { None } else { self.calls.get(token.call) }
    }

    /// Whether the callee's tag of a caller's request is one of its call; true where the call is not held here.
    pub(crate) fn knows_dialog(&self, message: &Message<'_>, token: RouteToken) -> bool {
        let callee_tag = message.text(message.head.to.tag);
        // After a restart slot and generation may name another call: its Call-ID tells.
        self.call_of(&token)
            .filter(|call| call.texts.call_id() == message.call_id())
            .is_none_or(|call| call.has_dialog(callee_tag) || message.head.method == Method::Cancel)
    }

    /// The final response to an in-dialog request went by: a BYE ends its dialog, whatever the answer but a challenge.
    pub(crate) fn note_in_dialog_final(&mut self, now: Now, key: Key, response: &Message<'_>) {
        let Some(transaction) = self.transactions.get(key) else { return };
        let (Some(direction), call_key) = (transaction.dialog, transaction.call) else { return };
        let ended = transaction.method == Method::Bye && !matches!(response.head.status_code, 401 | 407);
        if !ended {
            return;
        }
        let tag = match direction {
            Direction::FromCaller => response.head.to.tag,
            Direction::FromCallee => response.head.from.tag,
        };
        self.end_dialog(now, call_key, response.call_id(), response.text(tag), direction);
    }

    /// Ends one dialog of a call, and the call with its last one.
    pub(crate) fn end_dialog(&mut self, now: Now, call_key: Key, call_id: &[u8], callee_tag: &[u8], direction: Direction) {
        let over = match self.calls.get_mut(call_key) {
            Some(call) if call.texts.call_id() == call_id => call.end_dialog(callee_tag),
            _ => false,
        };
        if over {
            let by = match direction {
                Direction::FromCaller => "caller",
                Direction::FromCallee => "callee",
            };
            self.end_call(now, call_key, 200, "answered", by);
        }
    }
}
