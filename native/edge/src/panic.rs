//! A panic ends one input: its transaction goes, the rest stays.

use proto::{Key, Now, TimedSlab, TransactionIndex};

use crate::edge::Edge;
use crate::hop::Hop;
use crate::transaction::{CancelReason, Transaction};

impl Edge {
    /// A message made us panic: its transaction ends, with 500 where that can be said.
    pub fn handle_panic(&mut self, now: Now, arrival: &Hop, bytes: &[u8]) {
        let shown = crate::receive::without_secrets(bytes);
        if self.may_log(now) {
            log::error!(target: "receive", "panic at a message from {}: {shown}", self.shown(arrival.address));
        }
        self.drop_in_hand(now);
        self.with_arrival(bytes, |edge, message, _| {
            if message.is_request() && syntax::is_answerable(message.head) {
                edge.reply(arrival, message, 500, None, b"");
            }
        });
    }

    /// A timer, an answer or a failed delivery made us panic.
    pub fn handle_inner_panic(&mut self, now: Now) {
        if self.may_log(now) {
            log::error!(target: "timeout", "panic at a timer, an answer or a failed delivery");
        }
        self.drop_in_hand(now);
    }

    /// Ends what was being worked on: its timer is off the wheel and part of it may be missing.
    fn drop_in_hand(&mut self, now: Now) {
        let key = std::mem::replace(&mut self.in_hand, Key::NONE);
        self.end_policy(key, 500);
        let Some(transaction) = self.transactions.remove(key) else { return };
        self.index.remove(transaction.key, key);
        if transaction.dialog.is_none() {
            self.end_call(now, transaction.call, 500, "failed", "proxy");
        }
    }

    /// Starts afresh with empty tables; calls are recorded as ended by the proxy, dialogs go on by their tokens.
    pub fn restart(&mut self, now: Now) {
        for key in self.transactions.keys() {
            self.end_policy(key, 500);
        }
        self.end_all_calls(now);
        let limit = self.transactions.limit();
        self.transactions = TimedSlab::new(limit, now.moment);
        self.calls = TimedSlab::new(self.snapshot.settings.limits.calls, now.moment);
        self.index = TransactionIndex::default();
        self.dialogs = TransactionIndex::default();
    }

    /// The process is about to end: whoever still waits for an answer gets one, and what rings is cancelled. Nothing is sent again.
    pub fn refuse_unanswered(&mut self, now: Now) {
        for entry in self.transactions.keys() {
            let waits = |transaction: &Transaction| transaction.is_open() && transaction.dialog.is_none() && transaction.origin.is_none();
            if !self.transactions.get(entry).is_some_and(waits) {
                continue;
            }
            self.in_hand = entry;
            self.cancel_branches(now, entry, None, &CancelReason::Timeout);
            let headers = self.retry_after();
            self.finish_saying(now, entry, 503, None, &headers, b"");
        }
        self.in_hand = Key::NONE;
    }

    /// The process ends: each call that is still live gets its record.
    pub fn end_all_calls(&mut self, now: Now) {
        for key in self.calls.keys() {
            self.end_call(now, key, 500, "failed", "proxy");
        }
    }
}
