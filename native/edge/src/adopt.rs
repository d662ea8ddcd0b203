//! Calls that began before this process did: their dialogs are known by their tokens alone. One that is seen again is taken up, so that
//! it has its places in limits, and its media is relayed.

use std::sync::Arc;

use proto::{DialogState, Direction, Key, Now};
use syntax::{Message, Method, Span};

use crate::admit::Class;
use crate::call::Call;
use crate::edge::Edge;
use crate::hang_up::Ends;
use crate::hop::Hop;
use crate::limit_settings::{Counts, HeldLimit};
use crate::limits::Parties;
use crate::route::element_uri;

/// Dialogs of one call of a process before that are known at once.
const DIALOGS: usize = 8;

/// A call of a process before, as a request within its dialog tells of it.
pub(crate) struct Seen<'a> {
    pub(crate) message: &'a Message<'a>,
    pub(crate) direction: Direction,
    /// Where the request came from, and where it goes.
    pub(crate) near: &'a Hop,
    pub(crate) far: &'a Hop,
    /// The caller's peer.
    pub(crate) from_peer: Option<u16>,
}

impl Edge {
    /// Takes up a call of a process before, for the transaction of the request at hand. It gets no record: nobody knows any more when
    /// it began, and a second one might be paid twice.
    pub(crate) fn adopt_call(&mut self, now: Now, entry: Key, seen: &Seen<'_>) -> Option<Key> {
        let Seen { message, direction, near, far, from_peer } = *seen;
        if let Some(key) = self.adopted_by_caller(message, direction) {
            // Another request of it was under way, or this is another dialog of the same fork.
            let (callee_tag, callee) = match direction {
                Direction::FromCaller => (message.head.to.tag, far),
                Direction::FromCallee => (message.head.from.tag, near),
            };
            self.calls.get_mut(key)?.note_dialog(message.text(callee_tag), DialogState::Confirmed, callee, DIALOGS);
            self.belong(entry, key);
            return Some(key);
        }
        let lease = self.leases.take(Class::of(message, true, false).share(self.snapshot.settings.limits.calls))?;
        let (from, to) = (message.text(message.head.from.tag), message.text(message.head.to.tag));
        let (caller_tag, callee_tag, caller, callee) = match direction {
            Direction::FromCaller => (from, to, near, far),
            Direction::FromCallee => (to, from, far, near),
        };
        let dialog = self.dialog_key(message.call_id(), caller_tag);
        self.call_number += 1;
        let mut call = Call::adopted(message, direction, caller, from_peer, now, self.call_number, lease);
        call.note_dialog(callee_tag, DialogState::Confirmed, callee, 1);
        call.callee = Some(*callee);
        let is_ours = |element: &[u8]| element_uri(element, Span::new(0, element.len())).is_some_and(|uri| self.snapshot.own.is_own(element, &uri));
        call.ends = Ends::of_adopted(message, direction, is_ours);
        let key = self.calls.insert(call)?;
        self.dialogs.insert(dialog, key);
        self.arm_call(key);
        self.counters.calls_adopted.add();
        self.belong(entry, key);
        Some(key)
    }

    fn belong(&mut self, entry: Key, call: Key) {
        if let Some(transaction) = self.transactions.get_mut(entry) {
            transaction.call = call;
            if let Some(shape) = transaction.shape.as_mut() {
                shape.call = call;
            }
        }
    }

    /// The call that was adopted of the same caller's INVITE, whichever of its dialogs a message is of.
    fn adopted_by_caller(&self, message: &Message<'_>, direction: Direction) -> Option<Key> {
        let caller_tag = message.text(if direction == Direction::FromCaller { message.head.from.tag } else { message.head.to.tag });
        let key = self.dialogs.get(self.dialog_key(message.call_id(), caller_tag))?;
        self.calls.get(key).filter(|call| call.adopted && call.texts.call_id() == message.call_id()).map(|_| key)
    }

    /// A request within a dialog was accepted by the other side, so both believe in the call: one that a process before began takes
    /// its places in the limits of this one, however full those are.
    #[inline(never)]
    pub(crate) fn see_again(&mut self, now: Now, entry: Key, far: &Hop) {
        let counts_calls = self.snapshot.limits.all.iter().any(|limit| limit.settings.counts == Counts::Calls && !limit.settings.by_policy);
        let Some(transaction) = self.transactions.get(entry).filter(|_| counts_calls) else { return };
        let (Some(direction), call, near, method) = (transaction.dialog, transaction.call, transaction.arrival, transaction.method) else { return };
        let known = call != Key::NONE && !self.calls.get(call).is_some_and(|call| call.adopted);
        if known || !matches!(method, Method::Invite | Method::Update) {
            return;
        }
        let far = *far;
        self.with_request(entry, |edge, message| {
            let caller = if direction == Direction::FromCaller { near } else { far };
            let parties = Parties::of_dialog(message, direction);
            let from = message.text(parties.caller);
            let Some(peer) = edge.identify_sender(caller.listener, caller.transport, caller.address, Some(from)) else { return };
            let adopted = edge.adopted_by_caller(message, direction);
            let holds = adopted.and_then(|key| edge.calls.get(key)).is_some_and(|call| !call.limits.is_empty());
            let held = if holds { Vec::new() } else { edge.hold_again(now, &caller, message, peer, parties) };
            if held.is_empty() && adopted.is_none() {
                return;
            }
            let seen = Seen { message, direction, near: &near, far: &far, from_peer: Some(peer) };
            let key = if call == Key::NONE { edge.adopt_call(now, entry, &seen) } else { Some(call) };
            if let Some(call) = key.and_then(|key| edge.calls.get_mut(key)).filter(|_| !held.is_empty()) {
                call.limits.extend(held);
                edge.decide(message.call_id(), |_| "admit: a call of a process before, it takes its places in limits".to_owned());
            }
        });
    }

    /// Places of a call that began before: there is no refusing it any more. What its account is only its caller's URI tells.
    fn hold_again(&mut self, now: Now, caller: &Hop, message: &Message<'_>, peer: u16, parties: Parties) -> Vec<HeldLimit> {
        let snapshot = Arc::clone(&self.snapshot);
        let counting = snapshot.limits.all.iter().filter(|limit| limit.settings.counts == Counts::Calls && limit.fits(Method::Invite, peer));
        counting
            .filter_map(|limit| {
                let key = self.key_of(&limit.parts, caller, message, peer, parties)?;
                let most = limit.most(&key, None);
                let held = limit.state.table.hold(&key, u32::MAX, || limit.value(most)).ok()?;
                if let Some(share) = &held.slot().value().share {
                    share.touch(now.moment.0, most);
                }
                Some(held)
            })
            .collect()
    }
}
