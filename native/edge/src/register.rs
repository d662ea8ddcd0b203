//! REGISTER for a domain whose users are kept here (RFC 3261 section 10.3). It is answered at once and makes no transaction: that
//! it came again is known by Call-ID and CSeq of the binding.

use std::io::Write;

use proto::{Binding, Change, Contact, Flow, FlowConnection, Now, RegistrarRules, Registration, RegistrationError, push_of, register};
use smallvec::SmallVec;
use syntax::{HeaderName, Message, Scheme, Span, Transport, Uri, header_param, list_elements, parse_name_addr, push_unfolded, same_uri};

use crate::edge::Edge;
use crate::gateway_uri::unescaped;
use crate::hop::{ConnectionId, Hop};
use crate::matching::Refusal;
use crate::outbound::{judge, reg_id, supports};
use crate::route::element_uri;
use crate::subscriber_settings::RegistrarMode;

/// Bytes of User-Agent that are kept.
const USER_AGENT: usize = 64;
/// Bytes of an address of record, of an instance, and of all Path values together (OpenSIPS's columns hold as many).
const AOR: usize = 255;
const INSTANCE: usize = 255;
/// Bytes of a Contact: tokens of push services stand in it (RFC 8599 section 4), which are some hundred long.
const CONTACT: usize = 1_024;
const PART: usize = 64;
const PATH: usize = 255;
const CALL_ID: usize = 255;

pub(crate) fn bad(what: &str) -> Refusal {
    Refusal { reason_phrase: Some(format!("Bad Request ({what})")), ..Refusal::new(400, "register") }
}

impl Hop {
    /// The same as a flow, as a binding keeps it.
    pub(crate) fn flow(&self) -> Flow {
        let connection = self.connection.map(|id| FlowConnection { worker: id.worker, slot: id.slot, generation: id.generation });
        Flow::new(self.listener, self.transport, self.address, connection)
    }

    /// Back along a flow.
    pub(crate) fn of_flow(flow: &Flow) -> Self {
        let connection = flow.connection.map(|id| ConnectionId { worker: id.worker, slot: id.slot, generation: id.generation, only: true });
        Self { listener: flow.listener, transport: flow.transport, address: flow.address(), connection }
    }
}

/// What is read of the Contact header fields of a REGISTER.
pub(crate) struct Contacts<'a> {
    pub(crate) list: SmallVec<[Contact<'a>; 2]>,
    pub(crate) star: bool,
}

/// The seconds that `text` writes; more than fit mean as many as fit (RFC 3261 section 20.19: malformed ones mean 3600).
pub(crate) fn delta_seconds(text: &[u8]) -> Option<u32> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(u32::MAX))
}

/// A preference in thousandths (RFC 3261 section 25.1: qvalue).
fn preference(text: &[u8]) -> Option<u16> {
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[][..]),
    };
    let digits = fraction.len() <= 3 && fraction.iter().all(u8::is_ascii_digit);
    let thousandths = fraction.iter().chain(b"000").take(3).fold(0, |sum, digit| sum * 10 + u16::from(digit.wrapping_sub(b'0') % 10));
    match whole {
        b"0" if digits => Some(thousandths),
        b"1" if digits && thousandths == 0 => Some(1_000),
        _ => None,
    }
}

/// Whether a user can have bindings: a blank or `@` in the name would make another one of it in commands, tables and events.
pub(crate) fn is_plain(user: &[u8]) -> bool {
    !user.is_empty() && user.iter().all(|byte| *byte > b' ' && *byte != b'@' && *byte != 0x7f)
}

impl Edge {
    /// The name under which bindings of `uri` are kept: user without escapes, host in lower case.
    pub(crate) fn address_of_record(&self, bytes: &[u8], uri: &Uri) -> Option<Vec<u8>> {
        let mut aor = unescaped(uri.user.of(bytes));
        let sensitive = self.snapshot.settings.registrar.as_ref().is_some_and(|registrar| registrar.is_case_sensitive(uri.host.of(bytes)));
        if !sensitive {
            aor.make_ascii_lowercase();
        }
        // OpenSIPS's columns hold as many bytes of each.
        let plain = aor.len() <= PART && uri.host.len() <= PART && is_plain(&aor);
        aor.push(b'@');
        aor.extend(uri.host.of(bytes).iter().map(u8::to_ascii_lowercase));
        (plain && aor.len() <= AOR).then_some(aor)
    }

    /// Answers a REGISTER of a domain that is served here.
    pub(crate) fn register(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, peer: u16) {
        match self.try_register(now, arrival, message, peer) {
            Ok(Some(lines)) => {
                self.counters.registrations.add();
                self.decide(message.call_id(), |_| "register: accepted".to_owned());
                self.reply(arrival, message, 200, None, &lines);
            }
            Ok(None) => {}
            Err(refusal) => {
                self.counters.registrations_refused.add();
                self.refuse(now, arrival, message, Some(peer), &refusal);
            }
        }
    }

    /// Whether some listener has the transport of a URI, and the family of the address where it names one.
    fn has_listener_for(&self, bytes: &[u8], whole: Span) -> bool {
        let Ok(uri) = Uri::parse(bytes, whole) else { return true };
        let place = crate::peer::literal(bytes, &uri);
        // A name may lead to any transport, an address without one is of UDP (RFC 3263 section 4.1).
        let transport = if uri.scheme == Scheme::Sips { Some(Transport::Tls) } else { place.map(|place| place.transport).or(uri.transport) };
        self.snapshot.settings.listeners.iter().filter(|listener| !listener.drained).any(|listener| {
            let same_family = place.is_none_or(|place| place.address.is_ipv6() == listener.address.is_ipv6());
            same_family && transport.is_none_or(|transport| transport == listener.transport())
        })
    }

    /// The header field lines of a 200; nothing where the request waits.
    fn try_register(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, peer: u16) -> Result<Option<Vec<u8>>, Refusal> {
        let snapshot = std::sync::Arc::clone(&self.snapshot);
        let Some(registrar) = &snapshot.settings.registrar else { return Err(Refusal::new(500, "register")) };
        let to = Uri::parse(message.bytes, message.head.to.uri).map_err(|_| bad("To"))?;
        let odd = || Refusal { reason_phrase: Some("A User Without Blanks And @ Expected".to_owned()), ..Refusal::new(404, "register") };
        let aor = self.address_of_record(message.bytes, &to).ok_or_else(odd)?;
        if self.account_of(&aor) != aor {
            // Calls for it go where its user registered: who registers by it would never ring.
            return Err(Refusal { reason_phrase: Some("An Alias".to_owned()), ..Refusal::new(404, "register") });
        }
        let trusted = snapshot.settings.peers[usize::from(peer)].allow_routes;
        unsupported(message)?;
        if message.call_id().len() > CALL_ID {
            return Err(bad("Call-ID too long"));
        }
        let mut contacts = self.contacts_of(now, arrival, message, registrar.contacts.most)?;
        if contacts.list.iter().any(|contact| contact.expires != Some(0) && self.leads_to_itself(message.text(to.whole), contact.uri)) {
            return Err(Refusal { reason_phrase: Some("Contact Is The Address Of Record".to_owned()), ..Refusal::new(403, "register") });
        }
        let natted = snapshot.nat_tests.hold(arrival, message);
        if !self.check_contacts(now, arrival, message, &contacts.list)? {
            return Ok(None);
        }
        // By its flow any phone is reached; one without could never be called.
        let by_flow = natted || arrival.transport.is_reliable() || message.named(b"Path").next().is_some();
        let whole = message.named(b"Expires").next().and_then(|slot| delta_seconds(message.text(slot.value)));
        let stays = |contact: &&Contact<'_>| contact.expires.or(whole) != Some(0) && contact.reg_id == 0;
        if !by_flow && contacts.list.iter().filter(stays).any(|contact| !self.has_listener_for(contact.uri, Span::new(0, contact.uri.len()))) {
            return Err(Refusal { reason_phrase: Some("No Listener Has The Transport Of The Contact".to_owned()), ..Refusal::new(400, "register") });
        }
        let mut path = Vec::new();
        for element in message.named(b"Path").flat_map(|slot| list_elements(message.bytes, slot.value)) {
            // A stranger's Path would send calls wherever he likes (RFC 3327 section 6).
            if !trusted {
                return Err(Refusal::new(403, "register"));
            }
            if !is_path(message.bytes, element) {
                return Err(bad("Path"));
            }
            let first = if path.is_empty() { element_uri(message.bytes, element) } else { None };
            if first.is_some_and(|uri| !self.has_listener_for(message.bytes, uri.whole)) {
                return Err(Refusal { reason_phrase: Some("No Listener Has The Transport Of The Path".to_owned()), ..Refusal::new(400, "register") });
            }
            path.extend_from_slice(if path.is_empty() { b"" } else { b", " });
            push_unfolded(message.text(element), &mut path);
        }
        if path.len() > PATH {
            return Err(bad("Path too long"));
        }
        let outbound = judge(message, &mut contacts, &path)?;
        let request = registration(message, &contacts.list, contacts.star, &path, arrival.flow(), natted);
        let rules = registrar.rules_for(&aor);
        let place = self.bind(now, &aor, &request, &rules)?;
        let mut lines = self.bindings_told(now, place, &aor, message);
        // RFC 3327 section 5.3: the user agent sees what is on its way, if it understands that.
        if !path.is_empty() && supports(message, b"path") {
            lines.extend_from_slice(b"Supported: path\r\nPath: ");
            lines.extend_from_slice(&path);
            lines.extend_from_slice(b"\r\n");
        }
        if outbound {
            // RFC 5626 section 6: so it knows that its flows are told apart.
            lines.extend_from_slice(b"Require: outbound\r\n");
        }
        Ok(Some(lines))
    }

    /// Whether a Contact is the address of record that it is to stand for, or a GRUU of ours, so that calls would come round to us
    /// (RFC 5627 section 5.1).
    fn leads_to_itself(&self, aor: &[u8], contact: &[u8]) -> bool {
        let gruu = || Uri::parse(contact, Span::new(0, contact.len())).is_ok_and(|uri| self.is_own_gruu(contact, &uri));
        same_uri(aor, contact) || gruu()
    }

    /// Changes the bindings of `aor`, and tells and writes what became of them.
    /// Returns the place of the record, if it has one then.
    pub(crate) fn bind(&mut self, now: Now, aor: &[u8], request: &Registration<'_>, rules: &RegistrarRules) -> Result<Option<usize>, Refusal> {
        if request.contacts.is_empty() && !request.star {
            return Ok(self.users.location.place_of(aor));
        }
        let seconds = Self::seconds_of(now);
        let random = if rules.spread_percent > 0 { self.random() } else { 0 };
        let mut changes = SmallVec::<[(Change, proto::Binding); 1]>::new();
        let wants = self.wants_changes();
        let mut fresh = 0u64;
        let outcome = self.users.location.change(aor, |bindings| {
            register(bindings, request, rules, seconds, random, |change, binding| {
                fresh += u64::from(change == Change::Inserted);
                // Refreshes are many, and mostly nobody wants to hear of them.
                if wants || !matches!(change, Change::Inserted | Change::Refreshed) {
                    changes.push((change, binding.clone()));
                }
            })
        });
        let Some((outcome, places)) = outcome else {
            self.counters.location_full.add();
            return Err(self.try_later("register"));
        };
        self.counters.bindings_added.add_many(fresh);
        self.note_changes(now, aor, places, &changes);
        if outcome.is_ok() {
            self.note_user(now, request.flow.address().ip(), aor);
        }
        outcome.map(|()| places.now).map_err(|error| {
            if error == RegistrationError::TooMany {
                let contact = request.contacts.last().map_or(&[][..], |contact| contact.uri);
                self.tell_too_many(now, request.flow.address().ip(), &[b"sip:", aor].concat(), contact);
            }
            registration_refusal(error, rules)
        })
    }

    /// The Contacts of a REGISTER, of which a message may have `most`.
    pub(crate) fn contacts_of<'a>(&mut self, now: Now, arrival: &Hop, message: &Message<'a>, most: usize) -> Result<Contacts<'a>, Refusal> {
        read_contacts(message, most).inspect_err(|_| {
            if let Some(element) = message.elements(HeaderName::Contact).nth(most) {
                self.tell_too_many(now, arrival.address.ip(), message.text(message.head.to.uri), message.text(element));
            }
        })
    }

    /// All bindings of the record at `place`, as a 200 tells them (RFC 3261 section 10.3 step 8).
    pub(crate) fn bindings_told(&mut self, now: Now, place: Option<usize>, aor: &[u8], message: &Message<'_>) -> Vec<u8> {
        let seconds = Self::seconds_of(now);
        let mut lines = Vec::with_capacity(256);
        // A core that keeps its users makes its own.
        let with_gruus = self.registrar_mode() == RegistrarMode::Keep && supports(message, b"gruu");
        let count = place.and_then(|place| self.users.location.at(place)).map_or(0, |record| record.bindings.len());
        for index in 0..count {
            let binding = place.and_then(|place| self.users.location.at(place)).and_then(|record| record.bindings.get(index));
            let Some(binding) = binding.filter(|binding| binding.expires > seconds) else { continue };
            let gruu = (with_gruus && !binding.instance().is_empty()).then(|| (binding.instance().to_vec(), binding.call_id().to_vec()));
            push_binding(binding, seconds, &mut lines);
            if let Some((instance, call_id)) = gruu {
                self.push_gruus(message, aor, &instance, &call_id, &mut lines);
            }
            lines.extend_from_slice(b"\r\n");
        }
        lines
    }
}

fn registration_refusal(error: RegistrationError, rules: &RegistrarRules) -> Refusal {
    match error {
        RegistrationError::Star => bad("Contact"),
        RegistrationError::OutOfOrder => bad("CSeq"),
        RegistrationError::TooBrief => Refusal { headers: format!("Min-Expires: {}\r\n", rules.min_expires).into_bytes(), ..Refusal::new(423, "register") },
        RegistrationError::TooMany => Refusal { reason_phrase: Some("Too Many Contacts".to_owned()), ..Refusal::new(403, "register") },
    }
}

/// Whether calls can be led along an element of Path: a name-addr (RFC 3327 section 4) of a SIP URI.
pub(crate) fn is_path(bytes: &[u8], element: Span) -> bool {
    let address = parse_name_addr(bytes, element).filter(|_| memchr::memchr(b'<', element.of(bytes)).is_some());
    let uri = address.and_then(|address| Uri::parse(bytes, address.uri).ok());
    uri.is_some_and(|uri| matches!(uri.scheme, Scheme::Sip | Scheme::Sips) && !uri.host.is_empty())
}

/// One binding as a Contact line, without its end.
fn push_binding(binding: &Binding, seconds: u32, lines: &mut Vec<u8>) {
    lines.extend_from_slice(b"Contact: <");
    lines.extend_from_slice(binding.contact());
    // Writing to a Vec cannot fail.
    let _ = write!(lines, ">;expires={}", binding.expires - seconds);
    if binding.q < 1_000 {
        let _ = write!(lines, ";q=0.{:03}", binding.q);
    }
    if !binding.instance().is_empty() {
        lines.extend_from_slice(b";+sip.instance=");
        lines.extend_from_slice(binding.instance());
    }
    if binding.reg_id > 0 {
        let _ = write!(lines, ";reg-id={}", binding.reg_id);
    }
}

/// What a REGISTER wants of its address of record.
pub(crate) fn registration<'a>(message: &Message<'a>, contacts: &'a [Contact<'a>], star: bool, path: &'a [u8], flow: Flow, natted: bool) -> Registration<'a> {
    let agent = message.named(b"User-Agent").next().map_or(&[][..], |slot| message.text(slot.value));
    // Not within a character, which no database takes.
    let cut = (0..=USER_AGENT).rev().find(|at| agent.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80)).unwrap_or(0);
    Registration {
        contacts,
        star,
        expires: message.named(b"Expires").next().map(|slot| delta_seconds(message.text(slot.value)).unwrap_or(3_600)),
        call_id: message.call_id(),
        cseq: message.head.cseq,
        path,
        user_agent: agent.get(..cut).unwrap_or(agent),
        flow,
        natted,
    }
}

/// Refuses extensions that a registrar would have to know and does not (RFC 3261 section 8.2.2.3).
fn unsupported(message: &Message<'_>) -> Result<(), Refusal> {
    let mut headers = Vec::new();
    for option in message.elements(HeaderName::Require) {
        if ![&b"path"[..], b"outbound", b"gruu"].iter().any(|known| message.text(option).eq_ignore_ascii_case(known)) {
            headers.extend_from_slice(b"Unsupported: ");
            headers.extend(message.text(option).iter().filter(|byte| byte.is_ascii_graphic()));
            headers.extend_from_slice(b"\r\n");
        }
    }
    if headers.is_empty() { Ok(()) } else { Err(Refusal { headers, ..Refusal::new(420, "register") }) }
}

pub(crate) fn read_contacts<'a>(message: &Message<'a>, most: usize) -> Result<Contacts<'a>, Refusal> {
    let mut contacts = Contacts { list: SmallVec::new(), star: false };
    for element in message.elements(HeaderName::Contact) {
        if message.text(element) == b"*" {
            contacts.star = true;
            continue;
        }
        let contact = parse_name_addr(message.bytes, element).ok_or_else(|| bad("Contact"))?;
        let uri = Uri::parse(message.bytes, contact.uri).map_err(|_| bad("Contact"))?;
        if !matches!(uri.scheme, Scheme::Sip | Scheme::Sips) || !uri.headers.is_empty() {
            return Err(bad("Contact: a SIP URI without header fields is needed"));
        }
        if contact.uri.len() > CONTACT {
            return Err(bad("Contact too long"));
        }
        let param = |name| header_param(message.bytes, contact.params, name);
        let instance = param(b"+sip.instance").unwrap_or_default();
        if instance.len() > INSTANCE {
            return Err(bad("+sip.instance too long"));
        }
        contacts.list.push(Contact {
            uri: message.text(contact.uri),
            expires: param(b"expires").map(|text| delta_seconds(text).unwrap_or(3_600)),
            q: match param(b"q") {
                Some(text) => Some(preference(text).ok_or_else(|| bad("q"))?),
                None => None,
            },
            instance,
            reg_id: match param(b"reg-id") {
                Some(text) => reg_id(text).ok_or_else(|| bad("reg-id"))?,
                None => 0,
            },
            push: push_of(message.text(contact.uri)),
        });
        if contacts.list.len() > most {
            return Err(bad("too many Contacts"));
        }
    }
    Ok(contacts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_preferences_are_read_as_the_grammar_has_them() {
        assert_eq!([&b"0"[..], b"3600", b"4294967296", b"99999999999999999999"].map(delta_seconds), [Some(0), Some(3_600), Some(u32::MAX), Some(u32::MAX)]);
        assert_eq!([&b""[..], b"-1", b"1h", b" 1"].map(delta_seconds), [None; 4]);
        assert_eq!([&b"0"[..], b"1", b"0.5", b"0.25", b"1.000", b"0."].map(preference), [Some(0), Some(1_000), Some(500), Some(250), Some(1_000), Some(0)]);
        assert_eq!([&b"1.1"[..], b"0.1234", b"2", b"", b".5", b"0.x"].map(preference), [None; 6]);
    }
}
