//! Calls that began before this process did. Whoever relayed their media is gone, and their ports with it: from the next offer
//! on it is relayed here again, if that is how a new call between the two would go.

use proto::{Direction, Key, Now};
use syntax::Method;

use crate::adopt::Seen;
use crate::edge::Edge;
use crate::media_anchor::{Leg, MediaFault};
use crate::media_text::Changes;
use crate::transaction::Shape;

impl Edge {
    /// A request within a dialog is about to go on: what changes in it, where the media of its call is relayed or is to be.
    #[inline(never)]
    pub(crate) fn anchor_dialog(&mut self, now: Now, entry: Key, leg: &Leg<'_>, shape: &Shape) -> Result<Changes, MediaFault> {
        let call = self.adopt(now, entry, leg).unwrap_or(shape.call);
        self.anchor_within(leg.arrival, leg.message, &Shape { call, ..*shape })
    }

    /// Takes up the call whose dialog only its token knows, for its media; the key of it where that is done.
    pub(crate) fn adopt(&mut self, now: Now, entry: Key, leg: &Leg<'_>) -> Option<Key> {
        let Leg { arrival, message, from, hop, far, .. } = leg;
        // One that was seen again before may have been taken up for its places in limits only.
        let may = |call: Key| call == Key::NONE || self.calls.get(call).is_some_and(|call| call.adopted && call.media.is_empty());
        let transaction = self.transactions.get(entry).filter(|transaction| may(transaction.call))?;
        let direction = transaction.dialog?;
        let may_offer = message.head.method == Method::Invite || message.head.method == Method::Update && !message.head.body.is_empty();
        let relays = self.options.media.workers() > 0 || self.is_external();
        if !may_offer || !relays || !self.engages(leg, None) {
            return None;
        }
        let caller_side = direction == Direction::FromCaller;
        let from_peer = if caller_side { *from } else { *far };
        let call = transaction.call;
        let seen = Seen { message, direction, near: arrival, far: hop, from_peer };
        let key = if call == Key::NONE { self.adopt_call(now, entry, &seen)? } else { call };
        if self.calls.get(key).is_some_and(|call| !call.media.is_empty()) {
            // The media that is relayed is that of another dialog of its fork.
            return None;
        }
        let callee_tag = message.text(if caller_side { message.head.to.tag } else { message.head.from.tag });
        let (near, near_ip) = self.facing(arrival, message);
        let (mut listeners, mut places) = ([near, hop.listener], [near_ip, hop.address.ip().to_canonical()]);
        if !caller_side {
            listeners.reverse();
            places.reverse();
        }
        let place = self.open_session(key, 0, listeners, places);
        self.note_tag(key, place, callee_tag);
        self.decide(message.call_id(), |_| "rewrite: a call of a process before: its media is relayed from now on".to_owned());
        Some(key)
    }
}
