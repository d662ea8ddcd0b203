//! Phase *rewrite*: the request as it goes out (RFC 3261 section 16.6).

use std::io::Write;

use proto::{BranchToken, Key, Now, RouteToken, keyed_hash};
use syntax::{HeaderName, Message, Rport, Span, Via, list_elements, push_decimal, push_unfolded};

use crate::edge::Edge;
use crate::hop::Hop;
use crate::settings::PeerKind;
use crate::transaction::Shape;

/// Max-Forwards of a request that has none (RFC 3261 section 16.6 step 3).
const MAX_FORWARDS: u8 = 70;

impl Edge {
    /// Builds what goes to `hop` in [`Edge::scratch`]. With a call, or for another dialog, we stay on the path by Record-Route.
    /// `far` is the peer there; `uri` takes the place of the Request-URI, and `numbers` come at other places.
    #[expect(clippy::too_many_arguments, reason = "one request with all that is written into it")]
    pub(crate) fn build_request(
        &mut self,
        now: Now,
        arrival: &Hop,
        message: &Message<'_>,
        shape: &Shape,
        hop: &Hop,
        branch: &BranchToken,
        call: Option<Key>,
        far: Option<u16>,
        uri: Option<&[u8]>,
        numbers: &[(Span, Vec<u8>)],
    ) {
        self.edits.clear();
        if let Some(uri) = uri {
            // The first edit of a place is the one that holds.
            self.edits.replace(message.head.request_uri.whole, uri);
        }
        for (place, text) in numbers {
            self.edits.replace(*place, text);
        }
        let head = message.head;
        let top = usize::from(head.headers_start);
        let snapshot = &self.snapshot;
        let record_route = shape.record_route.then(|| RouteToken {
            node: self.node_id,
            worker: self.options.worker,
            call: call.unwrap_or(Key::NONE),
            listeners: [snapshot.listener_id(arrival.listener), snapshot.listener_id(hop.listener)],
            peers: [self.peer_id(shape.from_peer), self.peer_id(far)],
        });
        let secret = &self.options.route_secret;
        self.edits.insert_with(top, |out| {
            out.extend_from_slice(b"Via: SIP/2.0/");
            out.extend_from_slice(hop.transport.as_str().as_bytes());
            out.push(b' ');
            out.extend_from_slice(snapshot.sent_by(hop.listener));
            out.extend_from_slice(b";branch=");
            branch.write(out);
            out.extend_from_slice(b"\r\n");
            let Some(token) = record_route else { return };
            let crosses = arrival.listener != hop.listener;
            // RFC 5658: the side that the request leaves by stands on top, the side it came by below.
            for listener in [hop.listener, arrival.listener].into_iter().take(1 + usize::from(crosses)) {
                out.extend_from_slice(b"Record-Route: <sip:");
                token.write(secret, message.call_id(), message.text(head.from.tag), out);
                out.push(b'@');
                out.extend_from_slice(snapshot.sent_by(listener));
                if snapshot.listener(listener).transport != "udp" {
                    out.extend_from_slice(b";transport=");
                    out.extend_from_slice(snapshot.listener(listener).transport.as_bytes());
                }
                out.extend_from_slice(if crosses { b";lr;r2=on>\r\n" } else { b";lr>\r\n" });
            }
        });
        match message.first(HeaderName::Via).filter(|_| shape.originated) {
            Some(via) => self.edits.remove(via.line),
            None => self.edit_top_via(arrival, message),
        }
        match head.max_forwards {
            Some(hops) => {
                if let Some(slot) = message.first(HeaderName::MaxForwards) {
                    self.edits.replace_with(slot.value, |out| push_decimal(u64::from(hops.saturating_sub(1)), out));
                }
            }
            None => self.edits.insert_with(top, |out| drop(write!(out, "Max-Forwards: {MAX_FORWARDS}\r\n"))),
        }
        if shape.route.pops > 0 || shape.route.swapped.is_some() || shape.route.next.is_some_and(|uri| !uri.loose) {
            self.edit_routes(message, shape);
        }
        let of_phone = shape.from_peer.is_some_and(|index| self.snapshot.settings.peers[usize::from(index)].kind == PeerKind::Subscribers);
        if of_phone && !shape.originated {
            self.mark_contact(now, arrival, message);
        }
        self.mark_register(now, arrival, message, shape.from_peer, hop);
        self.edit_identity(message, shape, far);
        if self.challenges(message, shape.from_peer) {
            for slot in [HeaderName::ProxyAuthorization, HeaderName::Authorization].into_iter().flat_map(|name| message.all(name)) {
                if self.is_ours(message, slot.value) {
                    self.edits.remove(slot.line);
                }
            }
        }
        if let Some(breadth) = shape.breadth {
            match message.first(HeaderName::MaxBreadth) {
                Some(slot) => self.edits.replace_with(slot.value, |out| drop(write!(out, "{breadth}"))),
                None => self.edits.insert_with(top, |out| drop(write!(out, "Max-Breadth: {breadth}\r\n"))),
            }
        }
        self.edit_numbers(message, shape);
        if !shape.originated {
            self.edit_session_timer(message);
        }
        if hop.transport.is_reliable() && !numbers.iter().any(|(_, text)| text.starts_with(b"Content-Length")) {
            self.add_content_length(message);
        }
        self.scratch.clear();
        self.edits.apply(message, &mut self.scratch);
    }

    /// Says how long the body is where the sender left that to the end of its datagram: on a stream the body would be
    /// read as the next message, with whatever somebody put into it (RFC 3261 section 20.14).
    pub(crate) fn add_content_length(&mut self, message: &Message<'_>) {
        if message.first(HeaderName::ContentLength).is_none() {
            let length = message.body().len();
            self.edits.insert_with(usize::from(message.head.headers_end), |out| drop(write!(out, "Content-Length: {length}\r\n")));
        }
    }

    /// RFC 3261 section 18.2.1, RFC 3581 section 4.
    fn edit_top_via(&mut self, arrival: &Hop, message: &Message<'_>) {
        let via = &message.head.via;
        let ip = arrival.address.ip().to_canonical();
        let asked = match via.rport {
            Rport::Asked(at) => {
                self.edits.insert_with(usize::from(at), |out| drop(write!(out, "={}", arrival.address.port())));
                true
            }
            Rport::Absent | Rport::Port(_) => false,
        };
        let differs = asked || syntax::parse_ip(message.text(via.host)) != Some(ip);
        if !via.received.is_empty() {
            // A sender may not say where it was received from.
            self.edits.replace_with(via.received, |out| drop(write!(out, "{ip}")));
        } else if differs {
            self.edits.insert_with(via.element.end(), |out| drop(write!(out, ";received={ip}")));
        }
    }

    /// Removes our own Route elements and serves strict routers on either side (section 16.4, 16.6 step 6).
    fn edit_routes(&mut self, message: &Message<'_>, shape: &Shape) {
        let route = &shape.route;
        let strict = route.next.filter(|uri| !uri.loose);
        let last = route.swapped.map(|uri| uri.whole);
        let mut remaining = usize::from(route.pops) + usize::from(strict.is_some());
        for slot in message.all(HeaderName::Route) {
            let elements: Vec<Span> = list_elements(message.bytes, slot.value).collect();
            let taken = remaining.min(elements.len());
            remaining -= taken;
            let is_last = |element: &Span| last.is_some_and(|l| element.start() <= l.start() && l.end() <= element.end());
            let kept: Vec<Span> = elements.into_iter().skip(taken).filter(|element| !is_last(element)).collect();
            if kept.is_empty() {
                self.edits.remove(slot.line);
                continue;
            }
            self.edits.replace_with(slot.value, |out| {
                for (index, element) in kept.iter().enumerate() {
                    out.extend_from_slice(if index == 0 { b"" } else { b", " });
                    push_unfolded(element.of(message.bytes), out);
                }
            });
        }
        let request_uri = message.head.request_uri.whole;
        let current = last.unwrap_or(request_uri);
        if let Some(next) = strict {
            self.edits.replace(request_uri, next.whole.of(message.bytes));
            self.edits.insert_with(usize::from(message.head.headers_end), |out| {
                out.extend_from_slice(b"Route: <");
                out.extend_from_slice(current.of(message.bytes));
                out.extend_from_slice(b">\r\n");
            });
        } else if let Some(last) = last {
            self.edits.replace(request_uri, last.of(message.bytes));
        }
    }

    pub(crate) fn peer_id(&self, peer: Option<u16>) -> u32 {
        peer.and_then(|index| self.snapshot.peer_ids.get(usize::from(index)).copied()).unwrap_or(0)
    }

    /// The peer at `hop`. A rule for everyone on a listener says less than the peer whose `to` led there.
    pub(crate) fn far_peer(&self, hop: &Hop, policy: Option<u16>) -> Option<u16> {
        let there = self.identify(hop.listener, hop.transport, hop.address);
        let machine = there.filter(|index| self.snapshot.settings.peers[usize::from(*index)].kind != PeerKind::Subscribers);
        machine.or(policy).or(there)
    }

    /// What tells a loop from a spiral: every field that decides where a request goes (RFC 5393 section 4.2).
    pub(crate) fn loop_hash(&self, message: &Message<'_>) -> u64 {
        let head = message.head;
        let route = message.first(HeaderName::Route).map_or(&[][..], |slot| slot.value.of(message.bytes));
        BranchToken::loop_hash(keyed_hash(
            &self.options.process_secret,
            &[
                message.text(head.request_uri.whole),
                message.text(head.from.tag),
                message.text(head.to.tag),
                message.call_id(),
                &head.cseq.to_le_bytes(),
                message.text(head.method_span),
                route,
            ],
        ))
    }

    /// Whether this very request passed here before. Only a Via with our own name can tell, and few requests have one.
    pub(crate) fn loops(&self, message: &Message<'_>) -> bool {
        let mut own_hash = None;
        // Values in one line count as lines do: a sender could make us compare thousands.
        let values = message.elements(HeaderName::Via).take(self.snapshot.message_limits.vias);
        values.filter_map(|value| Via::parse(message.bytes, value)).any(|via| {
            let port = via.port.unwrap_or_else(|| via.transport.map_or(5060, syntax::Transport::default_port));
            self.snapshot.own.has(message.text(via.host), port)
                && BranchToken::read(message.text(via.branch))
                    .is_some_and(|branch| branch.node == self.node_id && branch.loop_hash == *own_hash.get_or_insert_with(|| self.loop_hash(message)))
        })
    }
}
