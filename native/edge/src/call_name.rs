//! What a log line calls a call: its Call-ID as a log may show it, and its W3C trace id, which stands in records and decisions too.

use proto::Key;
use syntax::Message;

use crate::account::hex;
use crate::edge::Edge;

/// Names a call in the log; empty texts where none is known, or none is to be named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CallName {
    pub(crate) call_id: String,
    pub(crate) trace_id: String,
}

impl Edge {
    /// The name of a call by its Call-ID and its caller's tag.
    pub(crate) fn call_name(&self, call_id: &[u8], caller_tag: &[u8]) -> CallName {
        let masked = self.snapshot.settings.mask_identities;
        let shown = if masked { String::new() } else { self.shown_text(call_id) };
        CallName { call_id: shown, trace_id: hex(&self.trace_id(call_id, caller_tag)) }
    }

    /// The name of a call that is under way.
    pub(crate) fn name_of_call(&self, key: Key) -> CallName {
        self.calls.get(key).map_or_else(CallName::default, |call| self.call_name(call.texts.call_id(), call.texts.caller_tag()))
    }

    /// The name of the call that a request opens.
    pub(crate) fn name_of_message(&self, message: &Message<'_>) -> CallName {
        self.call_name(message.call_id(), message.text(message.head.from.tag))
    }

    /// The name of what a transaction belongs to.
    pub(crate) fn name_of_entry(&mut self, entry: Key) -> CallName {
        if let Some(call) = self.transactions.get(entry).map(|transaction| transaction.call).filter(|call| self.calls.get(*call).is_some()) {
            return self.name_of_call(call);
        }
        self.with_request(entry, |edge, message| edge.name_of_message(message)).unwrap_or_default()
    }
}
