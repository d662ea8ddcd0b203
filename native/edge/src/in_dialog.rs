//! In-dialog requests: they follow their dialog, or, where we hold none any more, the sealed token in their Route.

use std::net::IpAddr;

use proto::{Direction, Key, Now, RouteToken};
use syntax::{Message, Method, Uri};

use crate::call::Call;
use crate::edge::Edge;
use crate::gruu::Wanted;
use crate::hang_up::side;
use crate::hop::Hop;
use crate::matching::Refusal;
use crate::question::Address;
use crate::reach::Reach;
use crate::route::RouteView;
use crate::settings::PeerKind;
use crate::target::{Target, TargetSet};
use crate::transaction::Shape;
use crate::verdict::PolicyEvent;

/// An in-dialog request with what proves it to be one.
#[derive(Clone, Copy)]
pub(crate) struct InDialog {
    pub(crate) token: RouteToken,
    pub(crate) direction: Direction,
    /// The sender is one of ours (core or trusted), and sends from where that peer is: it may send anywhere.
    pub(crate) believed: bool,
    /// The call that we hold for it, if we do.
    pub(crate) call: Option<Key>,
    /// The dialog is of a call that we hold, and that call never had such a callee, or has no more.
    pub(crate) unknown: bool,
}

/// Indices of sender and receiver in a token's pairs.
const fn sides(direction: Direction) -> (usize, usize) {
    match direction {
        Direction::FromCaller => (0, 1),
        Direction::FromCallee => (1, 0),
    }
}

impl Edge {
    /// Whether `message` belongs to a dialog: it has both tags, the seal of our Route fits it or we hold its call, and its
    /// sender is where that side of the dialog must be. Whoever saw a token could otherwise use it as the other side.
    pub(crate) fn in_dialog(&self, arrival: &Hop, message: &Message<'_>, route: &RouteView) -> Option<InDialog> {
        let head = message.head;
        if head.from.tag.is_empty() || head.to.tag.is_empty() {
            return None;
        }
        let (token, direction) = route.token.or_else(|| self.find_dialog(message))?;
        let live = self.live_call(&token, direction, message);
        let call = live.map(|(_, call)| call);
        let sender = self.snapshot.peer_by_id(token.peers[sides(direction).0]);
        let callee_tag = message.text(if direction == Direction::FromCaller { head.to.tag } else { head.from.tag });
        let side = call.and_then(|call| match direction {
            Direction::FromCaller => Some(call.arrival),
            Direction::FromCallee => call.callee_of(callee_tag),
        });
        let same_place = side
            .is_some_and(|hop| hop.address.ip() == arrival.address.ip() && (arrival.transport.is_reliable() || hop.address.port() == arrival.address.port()));
        let kind = sender.map(|index| self.snapshot.settings.peers[usize::from(index)].kind);
        let may_be = |peer| self.snapshot.peers.may_be(peer, arrival.listener, arrival.transport, arrival.address);
        let identified = || self.identify(arrival.listener, arrival.transport, arrival.address);
        let there = same_place || identified() == sender || sender.is_some_and(may_be);
        // Phones move; machines do not.
        if matches!(kind, Some(PeerKind::Core | PeerKind::Trusted | PeerKind::Gateway)) && !there {
            return None;
        }
        Some(InDialog {
            token,
            direction,
            call: live.map(|(key, _)| key),
            believed: matches!(kind, Some(PeerKind::Core | PeerKind::Trusted)) && there,
            unknown: call.is_some_and(|call| !call.has_dialog(callee_tag)),
        })
    }

    pub(crate) fn relay_in_dialog(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, key: u128, route: &RouteView, found: &InDialog) {
        // RFC 3261 section 12.2.2: a tag that the call never had belongs to no dialog.
        if found.unknown {
            return self.refuse(now, arrival, message, None, &Refusal::new(481, "match"));
        }
        if let Some(refusal) = self.too_short(message) {
            return self.refuse(now, arrival, message, None, &refusal);
        }
        if message.head.method == Method::Invite && self.is_reinviting(found.call, found.direction) {
            return self.refuse(now, arrival, message, None, &Refusal::new(491, "match"));
        }
        let shape = self.dialog_shape(message, route, found);
        let Some(target) = self.next_hop_within(message, &shape) else {
            return self.refuse(now, arrival, message, None, &Refusal::new(404, "target"));
        };
        self.note_within(shape.call, found.direction, arrival, message);
        let terms = shape.from_peer.and_then(|peer| self.policy_for(PolicyEvent::InDialog, message, peer));
        self.relay(now, arrival, message, key, shape, TargetSet::one(target), false, terms);
    }

    /// Where a request within a dialog goes. One whose Request-URI names us comes from somebody who did not take the other
    /// side's Contact for it (RFC 3261 section 12.2.1.1): sent on by that URI it would come back here, up to seventy times.
    /// It goes where that side was heard from, or nowhere.
    pub(crate) fn next_hop_within(&self, message: &Message<'_>, shape: &Shape) -> Option<Target> {
        if let Some(target) = self.marked_target(message, shape) {
            return Some(target);
        }
        if let Some(target) = self.registered_phone(message, shape) {
            return Some(target);
        }
        if shape.route.next.is_none() && shape.route.request_uri_is_own {
            return shape.flow.map(|flow| Target::Address(Address { transport: flow.transport, address: flow.address }));
        }
        Self::next_hop(message, &shape.route)
    }

    /// The phone of a dialog between phones that began before we did: nobody knows any more where it answered from, but its user
    /// may have it among the bindings, by the Contact that it gave the other side.
    fn registered_phone(&self, message: &Message<'_>, shape: &Shape) -> Option<Target> {
        let phone = |peer: Option<u16>| peer.is_some_and(|index| self.snapshot.settings.peers[usize::from(index)].kind == PeerKind::Subscribers);
        let bound = shape.bound_to.and_then(|id| self.snapshot.peer_by_id(id));
        if shape.call != Key::NONE || shape.route.next.is_some() || !phone(bound) || !phone(shape.from_peer) {
            return None;
        }
        let to = Uri::parse(message.bytes, message.head.to.uri).ok().filter(|to| self.serves(message.text(to.host)))?;
        let aor = self.address_of_record(message.bytes, &to)?;
        let uri = shape.route.swapped.unwrap_or(message.head.request_uri);
        let way = Reach::somewhere(message.text(uri.whole).into());
        Some(Target::Phone(Box::new((Wanted::any(self.account_of(&aor)), way))))
    }

    /// How requests of this direction leave: by the listener, and if possible the connection, that the dialog began with.
    pub(crate) fn dialog_shape(&self, message: &Message<'_>, route: &RouteView, found: &InDialog) -> Shape {
        let token = &found.token;
        let (from, to) = sides(found.direction);
        let sender = self.snapshot.peer_by_id(token.peers[from]);
        let flow = found.call.and_then(|key| self.calls.get(key)).and_then(|call| match found.direction {
            Direction::FromCaller => call.callee_of(message.text(message.head.to.tag)),
            Direction::FromCallee => Some(call.arrival),
        });
        Shape {
            route: *route,
            from_peer: sender,
            policy: None,
            listener: self.snapshot.listener_by_id(token.listeners[to]),
            flow,
            // A phone's dialog leads to the peer that it began with and nowhere else: its Request-URI could name a gateway.
            bound_to: (!found.believed).then_some(token.peers[to]),
            record_route: false,
            strip_identity: sender.is_none_or(|index| !self.snapshot.settings.peers[usize::from(index)].trust_identity),
            parallel: false,
            breadth: None,
            dialog: Some(found.direction),
            call: found.call.unwrap_or(Key::NONE),
            renumber: found.call.map_or(0, |key| self.shift_of(key, found.direction, message)),
            originated: false,
        }
    }

    /// Whether a request that is bound to peer `id` may go to `address`.
    pub(crate) fn may_reach(&self, id: u32, listener: u16, address: &Address, shape: &Shape) -> bool {
        let kind = |index: u16| self.snapshot.settings.peers[usize::from(index)].kind;
        let bound = self.snapshot.peer_by_id(id);
        let there = self.identify(listener, address.transport, address.address);
        let is_phone = |index: Option<u16>| index.is_none_or(|index| kind(index) == PeerKind::Subscribers);
        if !is_phone(there) {
            return there == bound;
        }
        let ip = address.address.ip().to_canonical();
        let phone_of_another = !is_phone(shape.from_peer) && there.is_some() && there == bound;
        phone_of_another
            || shape.dialog.is_some_and(|direction| self.has_moved_to(shape.call, direction, ip))
            || shape.flow.is_some_and(|flow| flow.address.ip().to_canonical() == ip)
            || bound.is_some_and(|index| self.covers(index, ip) && !(is_phone(bound) && there == bound))
    }

    /// Whether the side that a request goes to sends from `ip` by now: phones move within a call, and their Contact with them
    /// (RFC 3261 section 12.2).
    fn has_moved_to(&self, call: Key, direction: Direction, ip: IpAddr) -> bool {
        let ends = self.calls.get(call).and_then(|call| call.ends.as_ref());
        ends.and_then(|ends| ends.moved[1 - side(direction)]).is_some_and(|hop| hop.address.ip().to_canonical() == ip)
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
            let callee = call.callee_of(callee_tag).map_or(call.arrival.listener, |hop| hop.listener);
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

    /// The same for a message, with its key: after a restart slot and generation may name another call, which its Call-ID tells.
    #[inline]
    fn live_call(&self, token: &RouteToken, direction: Direction, message: &Message<'_>) -> Option<(Key, &Call)> {
        match self.call_of(token).filter(|call| call.texts.call_id() == message.call_id()) {
            Some(call) if !call.adopted => Some((token.call, call)),
            _ => self.adopted_call(direction, message),
        }
    }

    /// The call that was adopted for the dialog of a message, under any key. Of its other dialogs nothing is known.
    #[cold]
    fn adopted_call(&self, direction: Direction, message: &Message<'_>) -> Option<(Key, &Call)> {
        let (from, to) = (message.text(message.head.from.tag), message.text(message.head.to.tag));
        let (caller_tag, callee_tag) = if direction == Direction::FromCaller { (from, to) } else { (to, from) };
        let key = self.dialogs.get(self.dialog_key(message.call_id(), caller_tag))?;
        let call = self.calls.get(key)?;
        (call.adopted && call.texts.call_id() == message.call_id() && call.has_dialog(callee_tag)).then_some((key, call))
    }

    /// A BYE that nobody answered, or that could not be sent, ends its dialog all the same.
    pub(crate) fn end_dialog_of_bye(&mut self, now: Now, key: Key) {
        let Some(transaction) = self.transactions.get(key).filter(|t| t.method == Method::Bye) else { return };
        let (Some(direction), call) = (transaction.dialog, transaction.call) else { return };
        self.with_request(key, |edge, request| {
            let tag = if direction == Direction::FromCaller { request.head.to.tag } else { request.head.from.tag };
            edge.end_dialog(now, call, request.call_id(), request.text(tag), direction);
        });
    }

    /// The final response to an in-dialog request went by: a BYE ends its dialog, whatever the answer but a challenge.
    pub(crate) fn note_in_dialog_final(&mut self, now: Now, key: Key, response: &Message<'_>) {
        let Some(transaction) = self.transactions.get(key) else { return };
        let (Some(direction), call_key) = (transaction.dialog, transaction.call) else { return };
        let bye = transaction.method == Method::Bye && !matches!(response.head.status_code, 401 | 407);
        // Of a call of a process before only the far side knows whether there still is one. Other methods may mean another usage
        // of the dialog (RFC 5057 section 5.1).
        let asks = matches!(transaction.method, Method::Invite | Method::Update);
        if asks && let Some(ends) = self.calls.get_mut(call_key).and_then(|call| call.ends.as_deref_mut()) {
            ends.asking[side(direction)] = false;
        }
        let unknown = asks && response.head.status_code == 481 && self.calls.get(call_key).is_some_and(|call| call.adopted);
        let ended = bye || unknown;
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
            _ => return,
        };
        if !over {
            self.media_goes_on(call_key, callee_tag);
        }
        if over {
            let by = match direction {
                Direction::FromCaller => "caller",
                Direction::FromCallee => "callee",
            };
            self.end_call(now, call_key, 200, "answered", by);
        }
    }
}
