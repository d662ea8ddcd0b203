//! Contacts of phones behind a NAT: marked on the way out with where the phone really is, and found by the mark on the way back.
//! The Contact itself stays as it is, so that the phone gets back what it said, whatever is between (RFC 6314 section 4.2 does
//! without; RFC 3261 section 12.1.2 has user agents keep what they do not know of a URI).

use proto::{Direction, FlowToken, Now};
use syntax::{HeaderName, Message, Method, SessionDescription, Span, Uri, parse_name_addr};

use crate::edge::Edge;
use crate::gruu::{Wanted, is_gruu};
use crate::hop::Hop;
use crate::media_text::{Changes, connection_text, length_changed, session_part};
use crate::outbound::has_ob;
use crate::reach::Reach;
use crate::settings::PeerKind;
use crate::target::Target;
use crate::transaction::Shape;

/// The URI parameter that marks.
const PARAM: &[u8] = b";edge-flow=";

impl Reach {
    /// The way along `hop`, with this Request-URI.
    pub(crate) fn by(uri: Box<[u8]>, hop: Hop) -> Self {
        Self { hop: Some(hop), listener: hop.listener, q: 1_000, ..Self::somewhere(uri) }
    }
}

/// Whether the sender wants what belongs to its dialog by the flow that it has (RFC 5626 section 4.3).
fn contacts_by_flow(message: &Message<'_>) -> bool {
    message.elements(HeaderName::Contact).any(|element| {
        let contact = parse_name_addr(message.bytes, element).and_then(|contact| Uri::parse(message.bytes, contact.uri).ok());
        contact.is_some_and(|uri| has_ob(message.bytes, &uri) || is_gruu(message.bytes, &uri))
    })
}

impl Edge {
    /// Where `arrival` came from, to be sealed.
    pub(crate) fn flow_token(&self, now: Now, arrival: &Hop) -> FlowToken {
        let connection = arrival.flow().connection.map(|connection| (self.options.epoch as u32, connection));
        FlowToken {
            listener: self.snapshot.listener_id(arrival.listener),
            transport: arrival.transport,
            address: arrival.address,
            made: (now.wall / 1_000_000) as u32,
            connection,
        }
    }

    /// The way that a token leads; over its connection where that is one of this process.
    pub(crate) fn hop_of_token(&self, token: &FlowToken) -> Option<Hop> {
        let listener = self.snapshot.listener_by_id(token.listener)?;
        let connection = token.connection.filter(|(epoch, _)| *epoch == self.options.epoch as u32).map(|(_, connection)| connection);
        Some(Hop::of_flow(&proto::Flow::new(listener, token.transport, token.address, connection)))
    }

    pub(crate) fn is_phone(&self, arrival: &Hop) -> bool {
        let peer = self.identify(arrival.listener, arrival.transport, arrival.address);
        peer.is_some_and(|index| self.snapshot.settings.peers[usize::from(index)].kind == PeerKind::Subscribers)
    }

    /// Marks the Contact of a request or response that came from a phone behind a NAT.
    pub(crate) fn mark_contact(&mut self, now: Now, arrival: &Hop, message: &Message<'_>) {
        if !self.snapshot.marks_contacts || message.head.method == Method::Register || message.first(HeaderName::Contact).is_none() {
            return;
        }
        // The Contacts of a redirection are those of others.
        if message.head.status_code >= 300 {
            return;
        }
        if !self.is_phone(arrival) {
            return;
        }
        let tests = self.snapshot.nat_tests;
        let holds = || if message.is_request() { tests.hold(arrival, message) } else { tests.response_holds(arrival, message) };
        // A GRUU is found by its user's bindings as long as the call is known here, and by the mark after that.
        if !(contacts_by_flow(message) || holds()) {
            return;
        }
        let token = self.flow_token(now, arrival);
        let elements: Vec<Span> = message.elements(HeaderName::Contact).collect();
        for element in elements {
            let Some(contact) = parse_name_addr(message.bytes, element) else { continue };
            let Ok(uri) = Uri::parse(message.bytes, contact.uri) else { continue };
            if uri.host.is_empty() {
                continue;
            }
            self.counters.contacts_marked.add();
            // Behind the other parameters of the URI, in front of its header fields.
            let at = uri.params.end();
            let bracketed = message.bytes.get(contact.uri.end()) == Some(&b'>');
            if !bracketed {
                self.edits.insert_with(contact.uri.start(), |out| out.push(b'<'));
            }
            let secret = &self.options.route_secret;
            self.edits.insert_with(at, |out| {
                out.extend_from_slice(PARAM);
                token.write(secret, message.call_id(), out);
            });
            if !bracketed {
                self.edits.insert_with(contact.uri.end(), |out| out.push(b'>'));
            }
        }
    }

    /// What must change so that a description which hides its sender says the address that it is seen at. That is enough behind
    /// NATs that keep ports only; where media is relayed nobody needs it.
    pub(crate) fn repair_description(&self, arrival: &Hop, message: &Message<'_>) -> Changes {
        let mut changes = Changes::new();
        if !self.snapshot.settings.nat.repair_description || message.head.body.is_empty() {
            return changes;
        }
        let Some(part) = session_part(message) else { return changes };
        let Some(session) = SessionDescription::read(message.bytes, part) else { return changes };
        let source = arrival.address.ip().to_canonical();
        let connections = session.connection.into_iter().chain(session.media.iter().filter_map(|media| media.connection));
        for connection in connections.filter(|connection| connection.address.is_some_and(|ip| self.is_hidden(ip, arrival))) {
            changes.push((connection.value, connection_text(source).into_bytes()));
        }
        for rtcp in session.media.iter().filter_map(|media| media.rtcp).filter(|rtcp| rtcp.address.is_some_and(|ip| self.is_hidden(ip, arrival))) {
            changes.push((rtcp.value, format!("{} {}", rtcp.port, connection_text(source)).into_bytes()));
        }
        if !changes.is_empty() {
            self.counters.descriptions_repaired.add();
            changes.extend(length_changed(message, part, &changes));
        }
        changes
    }

    /// The user of ours who was called; whoever called may have named another in To, such as a number that leads there.
    fn called_user(&self, message: &Message<'_>, shape: &Shape) -> Option<Vec<u8>> {
        let call = self.calls.get(shape.call).filter(|call| call.texts.call_id() == message.call_id() && shape.dialog == Some(Direction::FromCaller))?;
        self.served_user(call.texts.request_uri())
    }

    /// The phone that a marked Request-URI leads to; its Request-URI is what the phone said.
    pub(crate) fn marked_target(&self, message: &Message<'_>, shape: &Shape) -> Option<Target> {
        if shape.route.next.is_some() {
            return None;
        }
        let uri = shape.route.swapped.unwrap_or(message.head.request_uri);
        let text = message.text(uri.whole);
        let start = memchr::memmem::find(text, PARAM)?;
        let value = text.get(start + PARAM.len()..)?;
        let end = value.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(value.len());
        let token = FlowToken::read(value.get(..end)?, &self.options.route_secret, message.call_id())?;
        let hop = self.hop_of_token(&token)?;
        let said = [text.get(..start)?, value.get(end..)?].concat();
        let way = Reach { made: token.made, ..Reach::by(said.into(), hop) };
        // The user of a phone is in To: in the meantime it may have come back from elsewhere.
        if let Some(wanted) = self.dialog_device(message, shape, &way.uri) {
            return Some(Target::Phone(Box::new((wanted, way))));
        }
        let to = Uri::parse(message.bytes, message.head.to.uri).ok().filter(|to| self.serves(message.text(to.host)));
        let to = to.and_then(|to| self.address_of_record(message.bytes, &to));
        Some(match self.called_user(message, shape).or(to) {
            Some(aor) => Target::Phone(Box::new((Wanted::any(self.account_of(&aor)), way))),
            None => Target::Contact(Box::new(way)),
        })
    }
}
