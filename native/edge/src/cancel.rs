//! CANCEL (RFC 3261 sections 9 and 16.10, Reason: RFC 3326).

use std::io::Write;

use proto::{Key, NonInviteClient, Now, seconds, transaction_key};
use syntax::{HeaderName, Message, Method, Span};

use crate::edge::Edge;
use crate::hop::Hop;
use crate::transaction::{CancelReason, Cancelling, Client, Server, Transaction};

impl Edge {
    pub(crate) fn handle_cancel(&mut self, now: Now, arrival: &Hop, message: &Message<'_>) {
        let key = transaction_key(&self.options.process_secret, message, Method::Invite);
        // A branch can be guessed or seen; only who sent the INVITE may take it back.
        let fits = |t: &Transaction| matches!(t.server, Server::Invite(_)) && t.arrival.address.ip() == arrival.address.ip();
        let found = self.index.get(key).filter(|entry| self.transactions.get(*entry).is_some_and(fits));
        let Some(entry) = found else {
            // Answering strangers would make us a reflector, so they get the refusal of any other request.
            let known = self.identify(arrival.listener, arrival.transport, arrival.address).is_some();
            return self.reply(arrival, message, if known { 481 } else { 403 }, None, b"");
        };
        self.reply(arrival, message, 200, None, b"");
        self.in_hand = entry;
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        if !transaction.is_open() || transaction.caller_cancelled {
            return;
        }
        transaction.caller_cancelled = true;
        self.end_part(entry, 487);
        self.let_held_go(now, entry, 487);
        // Who was answered already has the call, and ends it.
        let Some(transaction) = self.transactions.get_mut(entry).filter(|transaction| transaction.is_open()) else { return self.rearm(entry) };
        transaction.targets.clear();
        transaction.addresses.clear();
        transaction.waiting = None;
        let reason = message.first(HeaderName::Reason).map(|slot| slot.value.of(message.bytes).into());
        self.cancel_branches(now, entry, None, &CancelReason::Caller(reason));
        self.conclude(now, entry);
        self.rearm(entry);
    }

    /// Cancels every open branch but `except`.
    pub(crate) fn cancel_branches(&mut self, now: Now, entry: Key, except: Option<usize>, reason: &CancelReason) {
        let count = self.transactions.get(entry).map_or(0, |t| t.branches.len());
        for attempt in (0..count).filter(|attempt| Some(*attempt) != except) {
            let Some(branch) = self.transactions.get_mut(entry).and_then(|t| t.branches.get_mut(attempt)) else { return };
            if !branch.client.is_open() || branch.cancelled {
                continue;
            }
            // Section 9.1: not before a provisional response; then as soon as one comes.
            match &branch.client {
                Client::Invite(client) if client.is_proceeding() => self.send_cancel(now, entry, attempt, reason),
                Client::Invite(_) => branch.cancel_wanted = Some(Box::new(reason.clone())),
                Client::NonInvite(_) => {}
            }
        }
    }

    /// Sends the CANCEL of one branch.
    pub(crate) fn send_cancel(&mut self, now: Now, entry: Key, attempt: usize, reason: &CancelReason) {
        let timers = self.snapshot.timers;
        let Some(branch) = self.transactions.get_mut(entry).and_then(|t| t.branches.get_mut(attempt)) else { return };
        let sent = std::mem::take(&mut branch.sent);
        let hop = branch.hop;
        let mut cancel = Vec::with_capacity(512);
        self.with_stored(&sent, |_, request| derive(request, "CANCEL", request.head.to_value(request), Some(reason), &mut cancel));
        let Some(branch) = self.transactions.get_mut(entry).and_then(|t| t.branches.get_mut(attempt)) else { return };
        branch.sent = sent;
        branch.cancel_wanted = None;
        branch.cancelled = true;
        if !cancel.is_empty() {
            self.out.send(hop, &cancel);
        }
        if let Client::Invite(client) = &mut branch.client {
            client.handle_cancel_sent(now.moment, &timers);
        }
        let client = NonInviteClient::new(now.moment, hop.transport.is_reliable(), seconds(32), &timers);
        branch.cancelling = Some(Box::new(Cancelling { client, sent: cancel.into_boxed_slice() }));
    }
}

trait ToValue {
    fn to_value<'a>(&self, request: &Message<'a>) -> &'a [u8];
}

impl ToValue for syntax::Head {
    fn to_value<'a>(&self, request: &Message<'a>) -> &'a [u8] {
        request.first(HeaderName::To).map_or(&[], |slot| slot.value.of(request.bytes))
    }
}

/// Appends a request of `method` that belongs to `sent`, an INVITE as we sent it: CANCEL (section 9.1) or the ACK of a
/// refusal (section 17.1.1.3). Both have the same topmost Via, Request-URI, Call-ID, From, CSeq number and Route.
pub(crate) fn derive(sent: &Message<'_>, method: &str, to: &[u8], reason: Option<&CancelReason>, out: &mut Vec<u8>) {
    let head = sent.head;
    let mut line = |label: &str, value: &[u8]| {
        out.extend_from_slice(label.as_bytes());
        out.extend(value.iter().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { *b }));
    };
    line(method, b" ");
    line("", sent.text(head.request_uri.whole));
    line(" SIP/2.0\r\nVia: ", sent.text(head.via.element));
    for slot in sent.all(HeaderName::Route) {
        line("\r\nRoute: ", slot.value.of(sent.bytes));
    }
    let from = sent.first(HeaderName::From).map_or(Span::default(), |slot| slot.value);
    line("\r\nMax-Forwards: 70\r\nFrom: ", sent.text(from));
    line("\r\nTo: ", to);
    line("\r\nCall-ID: ", sent.call_id());
    // Writing to a Vec cannot fail.
    let _ = write!(out, "\r\nCSeq: {} {method}\r\n", head.cseq);
    match reason {
        None => {}
        Some(CancelReason::Caller(Some(own))) => {
            out.extend_from_slice(b"Reason: ");
            out.extend(own.iter().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { *b }));
            out.extend_from_slice(b"\r\n");
        }
        Some(CancelReason::Caller(None)) => out.extend_from_slice(b"Reason: SIP;cause=487;text=\"Request Terminated\"\r\n"),
        Some(CancelReason::Elsewhere) => out.extend_from_slice(b"Reason: SIP;cause=200;text=\"Call completed elsewhere\"\r\n"),
        Some(CancelReason::Refused(code)) => {
            // RFC 3326 section 3.3.1: a phone that takes a call for answered shows none that was missed.
            let _ = write!(out, "Reason: SIP;cause={code}\r\n");
        }
        Some(CancelReason::Timeout) => out.extend_from_slice(b"Reason: SIP;cause=408;text=\"Request Timeout\"\r\n"),
    }
    out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
}
