//! REGISTER for a core that keeps its users itself: it goes there with a Path, or with a Contact, that leads back to the phone over
//! us; what the core grants is learnt from its answer, and who fails there too often is refused here.

use proto::{Binding, Contact, Flow, FlowToken, Key, Now, RegistrarRules, Registration};
use smallvec::SmallVec;
use syntax::{Credentials, CredentialsError, HeaderName, Message, Method, NameAddr, Span, Uri, header_param, parse_name_addr, same_uri};

use crate::defence::MayTry;
use crate::edge::Edge;
use crate::gateway_uri::unescaped;
use crate::hop::Hop;
use crate::matching::Refusal;
use crate::outbound::{has_ob, judge, reg_id, supports};
use crate::reach::Reach;
use crate::register::{delta_seconds, read_contacts, registration};
use crate::settings::PeerKind;
use crate::subscriber_settings::RegistrarMode;
use crate::target::Target;
use crate::throttle::phone_grant;

/// What tokens of Paths and Contacts are sealed for.
const CONTEXT: &[u8] = b"register";
const FLOW: &[u8] = b";edge-flow=";
const CONTACT: &[u8] = b";edge-contact=";

impl Edge {
    /// How registrations of served domains are dealt with.
    pub(crate) fn registrar_mode(&self) -> RegistrarMode {
        self.snapshot.settings.registrar.as_ref().map_or(RegistrarMode::Keep, |registrar| registrar.mode)
    }

    /// Whether a REGISTER for the core may go on; if not it has been answered, or waits.
    pub(crate) fn may_forward_register(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, peer: u16) -> bool {
        let believed = self.snapshot.settings.peers[usize::from(peer)].allow_routes;
        let refusal = if !believed && message.named(b"Path").next().is_some() {
            // The core would send calls along it, and we would pass them on wherever it leads (RFC 3327 section 6).
            Refusal::new(403, "register")
        } else if let Err(refusal) = self.may_answer_core(now, arrival, message) {
            refusal
        } else {
            let most = self.snapshot.settings.registrar.as_ref().map_or(0, |registrar| registrar.contacts.most);
            let contacts = self.contacts_of(now, arrival, message, most);
            match contacts.and_then(|contacts| Ok((self.check_contacts(now, arrival, message, &contacts.list)?, contacts))) {
                Ok((goes_on, contacts)) => return goes_on && !self.answer_refresh(now, arrival, message, &contacts),
                Err(refusal) => refusal,
            }
        };
        self.counters.registrations_refused.add();
        self.refuse(now, arrival, message, Some(peer), &refusal);
        false
    }

    /// Whether a request may go on to a core that challenges: guesses by other requests than REGISTER are guesses too.
    pub(crate) fn may_answer_core(&self, now: Now, arrival: &Hop, message: &Message<'_>) -> Result<(), Refusal> {
        if self.registrar_mode() == RegistrarMode::Keep {
            return Ok(());
        }
        let answers = self.answers(message)?;
        let for_help = self.is_emergency(message);
        let may = |account: &[u8]| self.may_try(now, arrival.address.ip(), account, for_help) == MayTry::Yes;
        // Who guessed too often need not ask for a challenge either.
        let asks = answers.is_empty() && message.head.method == Method::Register;
        if answers.iter().all(|answer| may(&answer.account)) && (!asks || may(&self.claimed_account(message))) {
            return Ok(());
        }
        self.counters.refused_attackers.add();
        Err(Refusal::new(403, "authenticate"))
    }

    /// The account that a request says it is of.
    fn claimed_account(&self, message: &Message<'_>) -> Vec<u8> {
        let claimed = if message.head.method == Method::Register { message.head.to.uri } else { message.head.from.uri };
        let uri = Uri::parse(message.bytes, claimed).unwrap_or_default();
        let host = message.text(uri.host);
        // Else each host that somebody makes up would be an account of its own.
        let first = || self.snapshot.settings.registrar.as_ref().and_then(|registrar| registrar.domains.first());
        let domain = if self.serves(host) { host } else { first().map_or(host, |domain| domain.as_bytes()) };
        self.account(&unescaped(message.text(uri.user)), domain)
    }

    /// The answers to challenges that a request for a core has: each is a guess, at whom its own user name says. What cannot be read goes
    /// to no core, which might read it otherwise.
    fn answers(&self, message: &Message<'_>) -> Result<SmallVec<[Answer; 1]>, Refusal> {
        let claimed = self.claimed_account(message);
        let domain = claimed.iter().rposition(|byte| *byte == b'@').map_or(&[][..], |at| &claimed[at + 1..]);
        let mut answers = SmallVec::new();
        for slot in [HeaderName::Authorization, HeaderName::ProxyAuthorization].into_iter().flat_map(|name| message.all(name)) {
            match Credentials::parse(message.bytes, slot.value) {
                Ok(credentials) => {
                    let named = credentials.user(message);
                    let user = match named.iter().rposition(|byte| *byte == b'@') {
                        Some(at) if named[at + 1..].eq_ignore_ascii_case(domain) => &named[..at],
                        _ => &named,
                    };
                    answers.push(Answer { account: self.account(user, domain), nonce: credentials.answered_nonce(message).into_owned() });
                }
                Err(CredentialsError::Scheme) => {}
                Err(CredentialsError::Malformed | CredentialsError::Missing) => return Err(self.malformed_credentials()),
            }
        }
        Ok(answers)
    }

    /// Whether `message` is a registration that goes on to a core from a phone.
    fn is_forwarded(&self, message: &Message<'_>, from_peer: Option<u16>) -> bool {
        let of_phone = || from_peer.is_some_and(|index| self.snapshot.settings.peers[usize::from(index)].kind == PeerKind::Subscribers);
        message.head.method == Method::Register && self.registrar_mode() != RegistrarMode::Keep && of_phone() && self.is_served(message)
    }

    /// Adds what leads back to the phone, as the request goes out by `hop`.
    pub(crate) fn mark_register(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, from_peer: Option<u16>, hop: &Hop) {
        if !self.is_forwarded(message, from_peer) {
            return;
        }
        self.ask_for_long(message);
        let flow = arrival.flow();
        let token = self.lasting_token(now, &flow);
        let snapshot = std::sync::Arc::clone(&self.snapshot);
        let place = |out: &mut Vec<u8>| {
            out.extend_from_slice(snapshot.sent_by(hop.listener));
            if snapshot.listener(hop.listener).transport != "udp" {
                out.extend_from_slice(b";transport=");
                out.extend_from_slice(snapshot.listener(hop.listener).transport.as_bytes());
            }
        };
        let secret = self.options.route_secret;
        if self.registrar_mode() == RegistrarMode::Path {
            let (supported, direct) = (supports(message, b"path"), message.head.via.rest.is_empty() && message.all(HeaderName::Via).nth(1).is_none());
            // RFC 5626 section 5.1: only what comes from the user agent itself comes by its flow.
            let outbound = direct && supports(message, b"outbound");
            self.edits.insert_with(usize::from(message.head.headers_start), |out| {
                out.extend_from_slice(b"Path: <sip:");
                token.write(&secret, CONTEXT, out);
                out.push(b'@');
                place(out);
                out.extend_from_slice(if outbound { b";lr;ob>\r\n" } else { b";lr>\r\n" });
                out.extend_from_slice(if supported { b"" } else { b"Supported: path\r\n" });
            });
            return;
        }
        let elements: Vec<Span> = message.elements(HeaderName::Contact).collect();
        for element in elements {
            let Some(contact) = parse_name_addr(message.bytes, element) else { continue };
            let Ok(uri) = Uri::parse(message.bytes, contact.uri) else { continue };
            let by = |out: &mut Vec<u8>, token: &FlowToken| {
                out.extend_from_slice(b"<sip:");
                out.extend_from_slice(message.text(uri.user));
                out.extend_from_slice(if uri.user.is_empty() { b"" } else { b"@" });
                place(out);
                out.extend_from_slice(FLOW);
                token.write(&secret, CONTEXT, out);
                out.extend_from_slice(CONTACT);
                message.text(contact.uri).iter().for_each(|byte| out.extend_from_slice(format!("{byte:02x}").as_bytes()));
                out.push(b'>');
            };
            let left: SmallVec<[_; 1]> = self.flows_left(message, &contact, &flow).iter().map(|flow| self.lasting_token(now, flow)).collect();
            self.edits.replace_with(Span::new(element.start(), contact.params.start().max(contact.uri.end())), |out| by(out, &token));
            if !left.is_empty() {
                self.edits.insert_with(element.end(), |out| {
                    for token in &left {
                        out.extend_from_slice(b", ");
                        by(out, token);
                        out.extend_from_slice(b";expires=0");
                    }
                });
            }
        }
    }

    /// The token of a flow without the moment: as long as phone and flow are the same, so must be what the core compares (RFC 3261
    /// section 10.3).
    fn lasting_token(&self, now: Now, flow: &Flow) -> FlowToken {
        FlowToken { made: 0, ..self.flow_token(now, &Hop::of_flow(flow)) }
    }

    /// The flows that a phone had for `contact` and has no more: of each the core has a Contact of ours, which for it is another one. Who
    /// says the same Contact is the same phone only with its Call-ID (RFC 3261 section 10.2.4) or instance: many a phone has the same
    /// private address.
    fn flows_left(&self, message: &Message<'_>, contact: &NameAddr, flow: &Flow) -> SmallVec<[Flow; 1]> {
        let Ok(to) = Uri::parse(message.bytes, message.head.to.uri) else { return SmallVec::new() };
        let record = self.address_of_record(message.bytes, &to).and_then(|aor| self.users.location.get(&aor));
        let instance = header_param(message.bytes, contact.params, b"+sip.instance").filter(|instance| !instance.is_empty());
        let same = |binding: &&Binding| binding.call_id() == message.call_id() || instance.is_some_and(|instance| binding.instance() == instance);
        let bindings = record.map_or(&[][..], |record| record.bindings.as_slice());
        let of_contact = bindings.iter().filter(|binding| binding.contact() == message.text(contact.uri) && binding.reg_id == 0);
        of_contact.filter(same).map(|binding| binding.flow).filter(|left| left != flow).collect()
    }

    /// Takes what led back to the phone out of the answer to its registration.
    pub(crate) fn unmark_register(&mut self, now: Now, message: &Message<'_>, from_peer: Option<u16>) {
        if !self.is_forwarded(message, from_peer) {
            return;
        }
        self.tell_phone_grants(now, message);
        for slot in message.named(b"Path") {
            self.edits.remove(slot.line);
        }
        let elements: Vec<Span> = message.elements(HeaderName::Contact).collect();
        for element in elements {
            let Some(contact) = parse_name_addr(message.bytes, element) else { continue };
            if let Some(said) = said_contact(message.text(contact.uri)) {
                self.edits.replace(contact.uri, &said);
            }
        }
    }

    /// The phone that a request of the core is for, by our Path or by the Contact that we gave.
    pub(crate) fn forwarded_target(&self, message: &Message<'_>, pops: u8) -> Option<Target> {
        if self.registrar_mode() == RegistrarMode::Keep {
            return None;
        }
        let request_uri = message.text(message.head.request_uri.whole);
        let secret = &self.options.route_secret;
        if pops > 0 {
            let first = message.elements(HeaderName::Route).next()?;
            let uri = crate::route::element_uri(message.bytes, first)?;
            let token = FlowToken::read(message.text(uri.user), secret, CONTEXT)?;
            let way = Reach { flow_only: has_ob(message.bytes, &uri), ..Reach::by(request_uri.into(), self.hop_of_token(&token)?) };
            return Some(Target::Contact(Box::new(way)));
        }
        let value = after(request_uri, FLOW)?;
        let end = value.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(value.len());
        let token = FlowToken::read(value.get(..end)?, secret, CONTEXT)?;
        Some(Target::Contact(Box::new(Reach::by(said_contact(request_uri)?.into(), self.hop_of_token(&token)?))))
    }

    /// What the core's final answer to a request of a phone says: of the phone's whereabouts, and of whether it is who it says.
    pub(crate) fn learn(&mut self, now: Now, entry: Key, answer: &Message<'_>) {
        if self.registrar_mode() == RegistrarMode::Keep {
            return;
        }
        let Some(transaction) = self.transactions.get(entry) else { return };
        let (arrival, code) = (transaction.arrival, answer.head.status_code);
        let from_peer = transaction.shape.as_ref().and_then(|shape| shape.from_peer);
        if !from_peer.is_some_and(|index| self.snapshot.settings.peers[usize::from(index)].kind == PeerKind::Subscribers) {
            return;
        }
        self.with_request(entry, |edge, request| {
            let source = arrival.address.ip();
            let mut answers = edge.answers(request).unwrap_or_default();
            answers.retain(|own| edge.was_challenged(source, &own.nonce));
            let forwarded = edge.is_forwarded(request, from_peer);
            match code {
                401 | 403 | 407 if !is_stale(answer) => {
                    answers.iter().for_each(|own| edge.note_failed(now, &arrival, &own.account, edge.is_emergency(request)));
                }
                // Only here is it sure that the core looked at what was sent along.
                200..=299 if forwarded => {
                    answers.iter().for_each(|own| edge.note_authenticated(now, &arrival, &own.account));
                    if !answers.is_empty() {
                        edge.note_known(now, source, &edge.claimed_account(request));
                    }
                }
                _ => {}
            }
            for slot in [HeaderName::WwwAuthenticate, HeaderName::ProxyAuthenticate].into_iter().flat_map(|name| answer.all(name)) {
                if let Some(nonce) = Credentials::challenge_nonce(answer, slot.value) {
                    edge.note_challenged(now, source, &nonce);
                }
            }
            if (200..300).contains(&code) && forwarded {
                edge.learn_bindings(now, &arrival, request, answer);
            }
        });
    }

    /// Keeps the bindings that a core granted, for as long as it said.
    fn learn_bindings(&mut self, now: Now, arrival: &Hop, request: &Message<'_>, answer: &Message<'_>) {
        let Ok(to) = Uri::parse(request.bytes, request.head.to.uri) else { return };
        let Some(aor) = self.address_of_record(request.bytes, &to) else { return };
        let most = self.snapshot.settings.registrar.as_ref().map_or(0, |registrar| registrar.contacts.most);
        let Ok(mut asked) = read_contacts(request, most) else { return };
        // Whether the core has it as a flow it says itself (RFC 5626 section 6).
        let by_flow = answer.elements(HeaderName::Require).any(|option| answer.text(option).eq_ignore_ascii_case(b"outbound"));
        if !by_flow || judge(request, &mut asked, b"").is_err() {
            asked.list.iter_mut().for_each(|contact| contact.reg_id = 0);
        }
        let granted: Vec<Granted<'_>> = answer.elements(HeaderName::Contact).filter_map(|element| granted_contact(answer, element)).collect();
        let throttled = self.upstream_expires().and(self.snapshot.settings.registrar.as_ref()).map(|registrar| registrar.rules_for(&aor));
        let whole = request.named(b"Expires").next().and_then(|slot| delta_seconds(request.text(slot.value)));
        let mut contacts: SmallVec<[Contact<'_>; 2]> = asked.list.clone();
        for contact in &mut contacts {
            // One that the core does not list is none.
            let told = granted.iter().find(|granted| granted.is_of(contact.uri, contact.instance, contact.reg_id));
            let seconds = if contact.expires.or(whole) == Some(0) { 0 } else { told.map_or(0, |granted| granted.seconds) };
            contact.expires = Some(match &throttled {
                Some(rules) if seconds > 0 => phone_grant(contact.expires.or(whole), seconds, rules),
                _ => seconds,
            });
        }
        let natted = self.snapshot.nat_tests.hold(arrival, request);
        let expires = asked.star.then_some(0);
        let registration = Registration { expires, ..registration(request, &contacts, asked.star, b"", arrival.flow(), natted) };
        // The core has granted it already.
        let rules = RegistrarRules {
            default_expires: 3_600,
            min_expires: 1,
            max_expires: u32::MAX / 2,
            raise_short: true,
            spread_percent: 0,
            max_contacts: usize::from(u8::MAX),
            replace_oldest: true,
            same_call_id_replaces: false,
        };
        match self.bind(now, &aor, &registration, &rules) {
            Ok(place) => {
                self.counters.registrations.add();
                if let Some(record) = place.filter(|_| throttled.is_some()).and_then(|place| self.users.location.at_mut(place)) {
                    let now = Self::seconds_of(now);
                    // What leads to the user by another way of the core's can be told to a phone by the core only.
                    let whole = answer.named(b"Service-Route").next().is_none();
                    for binding in &mut record.bindings {
                        let told = granted.iter().find(|granted| granted.is_of(binding.contact(), binding.instance(), binding.reg_id));
                        // One that the core lists no more is refreshed there, and learns it.
                        binding.upstream = told.filter(|_| whole).map_or(0, |granted| now.saturating_add(granted.seconds));
                    }
                }
            }
            // An answer that comes late, or one too many for us: the core's word holds, only we do not keep it.
            Err(_) => self.counters.registrations_unlearnt.add(),
        }
    }
}

fn after<'a>(text: &'a [u8], mark: &[u8]) -> Option<&'a [u8]> {
    memchr::memmem::find(text, mark).and_then(|at| text.get(at + mark.len()..))
}

/// The Contact that a phone gave, out of that which we made of it.
fn said_contact(uri: &[u8]) -> Option<Vec<u8>> {
    let value = after(uri, CONTACT)?;
    let end = value.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(value.len());
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let pairs = value.get(..end)?.chunks_exact(2);
    let said: Option<Vec<u8>> = pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect();
    // Whatever a core makes of it must stay one URI.
    said.filter(|said| Uri::parse(said, Span::new(0, said.len())).is_ok())
}

/// One answer to a challenge of a core.
struct Answer {
    account: Vec<u8>,
    nonce: Vec<u8>,
}

/// A Contact of a 200 as the phone knows it.
pub(crate) struct Granted<'a> {
    uri: Vec<u8>,
    instance: &'a [u8],
    reg_id: u32,
    /// For how long it was granted.
    pub(crate) seconds: u32,
}

impl Granted<'_> {
    /// Whether it is that of a binding; flows of one instance may have one URI.
    pub(crate) fn is_of(&self, uri: &[u8], instance: &[u8], reg_id: u32) -> bool {
        same_uri(&self.uri, uri) && (reg_id == 0 || self.reg_id == reg_id && self.instance == instance)
    }
}

/// Reads one, and for how long it was granted.
pub(crate) fn granted_contact<'a>(answer: &Message<'a>, element: Span) -> Option<Granted<'a>> {
    let contact = parse_name_addr(answer.bytes, element)?;
    let uri = answer.text(contact.uri);
    let param = header_param(answer.bytes, contact.params, b"expires").and_then(delta_seconds);
    let whole = || answer.named(b"Expires").next().and_then(|slot| delta_seconds(answer.text(slot.value)));
    let of_flow = |name| header_param(answer.bytes, contact.params, name);
    Some(Granted {
        uri: said_contact(uri).unwrap_or_else(|| uri.to_vec()),
        instance: of_flow(b"+sip.instance").unwrap_or_default(),
        reg_id: of_flow(b"reg-id").and_then(reg_id).unwrap_or(0),
        seconds: param.or_else(whole).unwrap_or(3_600),
    })
}

/// Whether a challenge only wants another nonce answered.
fn is_stale(answer: &Message<'_>) -> bool {
    let lines = answer.all(HeaderName::WwwAuthenticate).chain(answer.all(HeaderName::ProxyAuthenticate));
    lines.into_iter().any(|slot| {
        let text = answer.text(slot.value).to_ascii_lowercase();
        memchr::memmem::find(&text, b"stale=true").or(memchr::memmem::find(&text, b"stale=\"true\"")).is_some()
    })
}
