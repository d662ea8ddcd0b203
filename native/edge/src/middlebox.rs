//! Middleboxes that rewrite SIP on its way (application level gateways of home routers): what only we can have written comes back
//! otherwise. It is said in the log, once an hour for each source, and made good where our own seal proves what it was.

use std::collections::HashMap;
use std::net::IpAddr;

use proto::{Moment, Now, RouteToken, seconds};
use syntax::{HeaderName, Message, Span, Transport};

use crate::edge::Edge;
use crate::hop::Hop;
use crate::route::{element_uri, host_port};

/// A source is told of again after so long.
const QUIET: u64 = seconds(3_600);
/// Sources remembered at once; when there are more all are forgotten, and told of again.
const SOURCES: usize = 1_024;

/// Sources that were told of, and when.
pub(crate) type ToldSources = HashMap<IpAddr, Moment>;

impl Edge {
    /// Says that something between `arrival` and us changed `what`.
    pub(crate) fn notice_middlebox(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, what: &str) {
        self.counters.messages_rewritten.add();
        let source = arrival.address.ip();
        if self.told_sources.get(&source).is_some_and(|at| now.moment.since(*at) < QUIET) || !self.may_log(now) {
            return;
        }
        if self.told_sources.len() >= SOURCES {
            self.told_sources.clear();
        }
        self.told_sources.insert(source, now.moment);
        let (place, name) = (self.shown(arrival.address), self.name_of_message(message));
        log::warn!(target: "middlebox", call_id = name.call_id.as_str(), trace_id = name.trace_id.as_str(); "a middlebox near {place} rewrites SIP: {what}; its SIP ALG is better switched off");
    }

    /// Bytes `behind` a message of a phone, in the same datagram: the body was changed by somebody who did not count again.
    pub(crate) fn look_behind(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, behind: &[u8]) {
        let filling = behind.iter().all(|byte| byte.is_ascii_whitespace() || *byte == 0);
        if !filling && arrival.transport == Transport::Udp && message.head.content_length.is_some_and(|length| length > 0) && self.is_phone(arrival) {
            self.notice_middlebox(now, arrival, message, "Content-Length is less than the body");
        }
    }

    /// Gives our Record-Route elements in a response their hosts back: the caller would send to what stands there now.
    pub(crate) fn repair_record_route(&mut self, now: Now, arrival: &Hop, message: &Message<'_>) {
        let elements: Vec<Span> = message.elements(HeaderName::RecordRoute).collect();
        let untouched = |element: &Span| element_uri(message.bytes, *element).is_some_and(|uri| self.snapshot.own.is_own(message.bytes, &uri));
        if elements.iter().all(untouched) {
            return;
        }
        let mut changed = false;
        let head = message.head;
        let own = |element: &Span| {
            let uri = element_uri(message.bytes, *element)?;
            let seal = RouteToken::verify(message.text(uri.user), &self.options.route_secret, message.call_id(), message.text(head.from.tag), b"");
            seal.filter(|(token, _)| token.node == self.node_id).map(|(token, _)| (uri, token))
        };
        let ours: Vec<_> = elements.iter().filter_map(own).collect();
        for (index, (uri, token)) in ours.iter().enumerate() {
            if self.snapshot.own.is_own(message.bytes, uri) {
                continue;
            }
            // A call that passes twice has a token for each time; of one the side of the callee stands on top.
            let side = usize::from(ours.iter().take(index).all(|(_, other)| other != token));
            let Some(listener) = self.snapshot.listener_by_id(token.listeners[side]) else { continue };
            let host = host_port(self.snapshot.listener(listener));
            let end = uri.params.start().max(uri.host.end());
            self.edits.replace(Span::new(uri.host.start(), end), &host);
            changed = true;
        }
        if changed {
            self.notice_middlebox(now, arrival, message, "our Record-Route has another host");
        }
    }
}
