//! Calls that began before this process did. Whoever relayed their media is gone, and their ports with it: from the next offer
//! on it is relayed here again, if that is how a new call between the two would go.

use proto::{DialogState, Direction, Key, Now};
use syntax::Method;

use crate::admit::Class;
use crate::call::Call;
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

    /// Takes up the call whose dialog only its token knows, for its media; the key of it where that is done. It gets no record:
    /// nobody knows any more when it began, and a second one might be paid twice.
    fn adopt(&mut self, now: Now, entry: Key, leg: &Leg<'_>) -> Option<Key> {
        let Leg { arrival, message, from, hop, far, .. } = leg;
        let transaction = self.transactions.get(entry).filter(|transaction| transaction.call == Key::NONE)?;
        let direction = transaction.dialog?;
        let may_offer = message.head.method == Method::Invite || message.head.method == Method::Update && !message.head.body.is_empty();
        if !may_offer || self.options.media.workers() == 0 || self.is_external() || !self.engages(leg, None) {
            return None;
        }
        let lease = self.leases.take(Class::of(message, true, false).share(self.snapshot.settings.limits.calls))?;
        let caller_side = direction == Direction::FromCaller;
        let (caller_tag, callee_tag) = {
            let (from, to) = (message.text(message.head.from.tag), message.text(message.head.to.tag));
            if caller_side { (from, to) } else { (to, from) }
        };
        let (caller, callee) = if caller_side { (*arrival, *hop) } else { (*hop, *arrival) };
        let dialog = self.dialog_key(message.call_id(), caller_tag);
        self.call_number += 1;
        let mut call = Call::adopted(message, direction, caller, if caller_side { *from } else { *far }, now, self.call_number, lease);
        call.note_dialog(callee_tag, DialogState::Confirmed, callee, 1);
        call.callee = Some(*callee);
        let key = self.calls.insert(call)?;
        self.dialogs.insert(dialog, key);
        self.arm_call(key);
        self.counters.calls_adopted.add();
        let (near, near_ip) = self.facing(arrival, message);
        let (mut listeners, mut places) = ([near, hop.listener], [near_ip, hop.address.ip().to_canonical()]);
        if !caller_side {
            listeners.reverse();
            places.reverse();
        }
        let place = self.open_session(key, 0, listeners, places);
        self.note_tag(key, place, callee_tag);
        if let Some(transaction) = self.transactions.get_mut(entry) {
            transaction.call = key;
            if let Some(shape) = transaction.shape.as_mut() {
                shape.call = key;
            }
        }
        self.decide(message.call_id(), |_| "rewrite: a call of a process before: its media is relayed from now on".to_owned());
        Some(key)
    }
}
