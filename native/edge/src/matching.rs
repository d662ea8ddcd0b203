//! Phase *match*: a retransmission goes to its transaction, an in-dialog request to its dialog; the rest is new.

use proto::{Now, transaction_key};
use syntax::{HeaderName, Message, Method, Scheme};

use crate::edge::Edge;
use crate::hop::Hop;
use crate::route::RouteView;
use crate::transaction::Server;

/// Why a request is refused before it has a transaction.
pub(crate) struct Refusal {
    pub(crate) status_code: u16,
    /// Another text than the customary one.
    pub(crate) reason_phrase: Option<String>,
    pub(crate) phase: &'static str,
    pub(crate) headers: Vec<u8>,
    /// From as the sender has it, where its numbers were changed.
    pub(crate) from: Option<Box<[u8]>>,
}

impl Refusal {
    pub(crate) fn new(status_code: u16, phase: &'static str) -> Self {
        Self { status_code, reason_phrase: None, phase, headers: Vec::new(), from: None }
    }
}

impl Edge {
    pub(crate) fn handle_request(&mut self, now: Now, arrival: &Hop, message: &Message<'_>) {
        match message.head.method {
            Method::Ack => return self.handle_ack(now, arrival, message),
            Method::Cancel => return self.handle_cancel(now, arrival, message),
            _ => {}
        }
        let key = transaction_key(&self.options.process_secret, message, message.head.method);
        if let Some(entry) = self.index.get(key) {
            return self.handle_retransmission(entry);
        }
        if self.limits.waits.has(key) {
            return self.counters.retransmissions_received.add();
        }
        let route = match self.validate(message) {
            Ok(route) => route,
            Err(refusal) => {
                self.counters.refused_invalid.add();
                return self.refuse(now, arrival, message, None, &refusal);
            }
        };
        if route.rewritten {
            self.notice_middlebox(now, arrival, message, "our Route has another host");
        }
        match self.in_dialog(arrival, message, &route) {
            Some(found) => self.relay_in_dialog(now, arrival, message, key, &route, &found),
            None => self.open(now, arrival, message, key, &route),
        }
    }

    fn handle_retransmission(&mut self, entry: proto::Key) {
        self.counters.retransmissions_received.add();
        let Some(transaction) = self.transactions.get(entry) else { return };
        let answers = match &transaction.server {
            Server::Invite(server) => server.answers_retransmission(),
            Server::NonInvite(_) => true,
            Server::Ack => false,
        };
        if let Some(response) = transaction.response.as_deref().filter(|_| answers) {
            self.out.send(transaction.reply_to, response);
        }
    }

    /// RFC 3261 section 16.3, in its order: Max-Forwards, loops, Proxy-Require; and the route set (16.4).
    pub(crate) fn validate(&mut self, message: &Message<'_>) -> Result<RouteView, Refusal> {
        let route = RouteView::read(&self.snapshot.own, &self.options.route_secret, message).map_err(|_| Refusal::new(400, "match"))?;
        // Nothing that is sent by UDP or TCP is secure (section 26.2.2), and what comes by them would not be.
        if message.head.request_uri.scheme == Scheme::Sips && message.head.to.tag.is_empty() && !self.is_emergency(message) {
            return Err(Refusal::new(416, "match"));
        }
        if message.head.max_forwards == Some(0) && !self.is_ping(message, &route) {
            return Err(Refusal::new(483, "match"));
        }
        if self.loops(message) {
            return Err(Refusal::new(482, "match"));
        }
        if message.first(HeaderName::ProxyRequire).is_some() {
            let mut refusal = Refusal::new(420, "match");
            for slot in message.all(HeaderName::ProxyRequire) {
                refusal.headers.extend_from_slice(b"Unsupported: ");
                refusal.headers.extend(slot.value.of(message.bytes).iter().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { *b }));
                refusal.headers.extend_from_slice(b"\r\n");
            }
            return Err(refusal);
        }
        Ok(route)
    }

    /// Refuses a request without keeping state; an INVITE leaves its record.
    pub(crate) fn refuse(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, peer: Option<u16>, refusal: &Refusal) {
        self.decide(message.call_id(), |_| format!("{}: refused with {}", refusal.phase, refusal.status_code));
        if let Some(peer) = peer {
            self.counts_of(Some(peer)).refused.add();
        }
        self.reply_as(arrival, message, refusal.status_code, refusal.reason_phrase.as_deref(), &refusal.headers, refusal.from.as_deref());
        if message.head.method != Method::Invite || !message.head.to.tag.is_empty() {
            return;
        }
        // A challenge is half of an attempt: the call comes with the answer to it.
        if refusal.phase == "authenticate" && refusal.status_code == 407 {
            return;
        }
        // No transaction remembers a refusal, so that a flood costs no memory; but a repeated INVITE is no new call.
        if !self.refused.is_new(transaction_key(&self.options.process_secret, message, Method::Invite), now) {
            return;
        }
        let peer = peer.or_else(|| self.identify(arrival.listener, arrival.transport, arrival.address));
        if peer.is_none() && !self.refused.may_record_stranger(self.snapshot.settings.limits.stranger_records_per_second) {
            return self.counters.stranger_records_suppressed.add();
        }
        self.record_refused(now, arrival, message, peer, refusal.status_code, refusal.phase);
    }
}
