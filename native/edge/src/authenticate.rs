//! Phase *authenticate*: digest for subscribers (RFC 3261 section 22, RFC 7616, RFC 8760).

use std::borrow::Cow;

use proto::{Algorithm, DigestInput, Nonce, NonceState, Now, Protection, Use, digest_response, ha1};
use syntax::{Credentials, CredentialsError, HeaderName, Message, Method, Span, Uri, parse_name_addr};

use crate::account_attributes::{ALSO, Account, Attributes};
use crate::admit::Shedding;
use crate::credential::{Known, Wanted};
use crate::defence::MayTry;
use crate::edge::Edge;
use crate::gateway_uri::unescaped;
use crate::hop::Hop;
use crate::matching::Refusal;
use crate::subscriber_settings::{RegistrarMode, canonical};

/// Whom a request is of, in the terms of the challenge that it answers.
struct Claim<'a> {
    credentials: Credentials,
    user: Cow<'a, [u8]>,
    /// The user's name as it stands in the credentials, perhaps with the domain.
    named: Cow<'a, [u8]>,
    domain: Vec<u8>,
    realm: Vec<u8>,
    peer: u16,
}

/// The outcome of a look at the credentials of a request.
enum Finding {
    /// It is who it says.
    Proved,
    /// It answers nothing that counts; whether a right answer to another nonce is expected.
    Challenge { stale: bool },
    /// It is refused.
    Refuse(Refusal),
    /// It waits for the database.
    Parked,
}

impl Edge {
    /// Whether `host` is a domain whose users are known here.
    pub(crate) fn serves(&self, host: &[u8]) -> bool {
        let domains = self.snapshot.settings.registrar.as_ref().map_or(&[][..], |registrar| &registrar.domains);
        domains.iter().any(|domain| domain.as_bytes().eq_ignore_ascii_case(host))
    }

    /// The address of record that `aor` is another name of, or itself.
    pub(crate) fn account_of<'a>(&'a self, aor: &'a [u8]) -> &'a [u8] {
        self.snapshot.subscribers.as_ref().and_then(|subscribers| subscribers.aliases.get(aor)).map_or(aor, |own| own)
    }

    /// What the failures of a user are counted by.
    pub(crate) fn account(&self, user: &[u8], domain: &[u8]) -> Vec<u8> {
        canonical(&[user, b"@", domain].concat(), self.snapshot.settings.registrar.as_ref())
    }

    /// Whether a REGISTER is for a domain whose users are known here.
    pub(crate) fn is_served(&self, message: &Message<'_>) -> bool {
        let host = || Uri::parse(message.bytes, message.head.to.uri).map(|uri| uri.host).unwrap_or_default();
        self.snapshot.subscribers.is_some() && self.serves(message.text(host()))
    }

    /// Whether requests of `from_peer` like this one answer challenges of ours, and not those of somebody behind us.
    pub(crate) fn challenges(&self, message: &Message<'_>, from_peer: Option<u16>) -> bool {
        let asked = || from_peer.is_some_and(|index| self.snapshot.settings.peers[usize::from(index)].authenticate);
        self.snapshot.subscribers.is_some() && asked() && (message.head.method != Method::Register || self.registrar_mode() == RegistrarMode::Keep)
    }

    /// Whether credentials are an answer to a challenge of ours: those go no further (RFC 3261 section 22.3).
    pub(crate) fn is_ours(&self, message: &Message<'_>, credentials: Span) -> bool {
        let fixed = &self.snapshot.settings.authentication.realm;
        let ours = |realm: &[u8]| if fixed.is_empty() { self.serves(realm) } else { realm == fixed.as_bytes() };
        Credentials::parse(message.bytes, credentials).is_ok_and(|credentials| ours(&credentials.named_realm(message)))
    }

    /// Whether a request of `peer` goes on: it is of whom it says. If not it has been answered, or waits.
    pub(crate) fn authenticate(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, peer: u16) -> bool {
        let (domain, realm) = self.realm_of(message);
        let finding = self.look_at_credentials(now, arrival, message, &domain, &realm, peer);
        let refusal = match finding {
            Finding::Proved => return true,
            Finding::Parked => return false,
            Finding::Refuse(refusal) => refusal,
            Finding::Challenge { stale } => self.challenge(now, arrival, message, &realm, stale),
        };
        self.refuse(now, arrival, message, Some(peer), &refusal);
        false
    }

    /// The domain that a request is of, and the realm of its challenge.
    fn realm_of(&self, message: &Message<'_>) -> (Vec<u8>, Vec<u8>) {
        let head = message.head;
        let claimed = if head.method == Method::Register { head.to.uri } else { head.from.uri };
        let uri = Uri::parse(message.bytes, claimed).unwrap_or_default();
        let host = uri.host;
        if head.method != Method::Register
            && let Some(aor) = self.address_of_record(message.bytes, &uri).filter(|_| self.serves(message.text(host)))
            && let own = self.account_of(&aor)
            && let Some(at) = own.iter().rposition(|byte| *byte == b'@').filter(|_| own != aor.as_slice())
        {
            // Who calls from another name proves to be its own.
            let domain = own.get(at + 1..).unwrap_or_default().to_vec();
            let fixed = self.snapshot.settings.authentication.realm.as_bytes();
            return (domain.clone(), if fixed.is_empty() { domain } else { fixed.to_vec() });
        }
        let domain = if self.serves(message.text(host)) { message.text(host).to_ascii_lowercase() } else { self.domain_of_nobody(message) };
        let fixed = self.snapshot.settings.authentication.realm.as_bytes();
        let realm = if fixed.is_empty() { domain.clone() } else { fixed.to_vec() };
        (domain, realm)
    }

    /// The domain of a request whose From names none of ours, as that of an anonymous caller does (RFC 3323 section 4.1.1.3): that of the
    /// identity which the caller prefers (RFC 3325 section 5), of its answer to a challenge, or the one that is called.
    fn domain_of_nobody(&self, message: &Message<'_>) -> Vec<u8> {
        let served = |domain: &[u8]| self.serves(domain).then(|| domain.to_ascii_lowercase());
        let of_uri = |span: Span| Uri::parse(message.bytes, span).ok().and_then(|uri| served(message.text(uri.host)));
        let answered = |slot: &syntax::Slot| {
            let credentials = Credentials::parse(message.bytes, slot.value).ok()?;
            let user = credentials.user(message);
            let own = user.iter().rposition(|byte| *byte == b'@').and_then(|at| served(user.get(at + 1..)?));
            own.or_else(|| served(&credentials.named_realm(message)))
        };
        let preferred = || identities(message, HeaderName::PPreferredIdentity).find_map(of_uri);
        let first = || Some(self.snapshot.settings.registrar.as_ref()?.domains.first()?.as_bytes().to_vec());
        let found = preferred().or_else(|| message.all(HeaderName::ProxyAuthorization).find_map(answered));
        found.or_else(|| of_uri(message.head.request_uri.whole)).or_else(first).unwrap_or_default()
    }

    fn look_at_credentials(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, domain: &[u8], realm: &[u8], peer: u16) -> Finding {
        let name = if message.head.method == Method::Register { HeaderName::Authorization } else { HeaderName::ProxyAuthorization };
        let (mut found, mut broken) = (None, false);
        for slot in message.all(name) {
            match Credentials::parse(message.bytes, slot.value) {
                Ok(credentials) if *credentials.named_realm(message) == *realm => found = found.or(Some(credentials)),
                // One of another realm is for somebody behind us, one of another scheme for nobody here.
                Ok(_) | Err(CredentialsError::Scheme) => {}
                Err(CredentialsError::Malformed | CredentialsError::Missing) => broken = true,
            }
        }
        // Those of another realm are not ours to judge, but what has no realm to be read may have been for us.
        if found.is_none() && broken {
            return self.malformed();
        }
        let Some(credentials) = found else { return Finding::Challenge { stale: false } };
        let whole = credentials.user(message);
        // What no database could hold is nobody's name.
        if std::str::from_utf8(&whole).map_or(true, |text| text.chars().any(char::is_control)) {
            return self.malformed();
        }
        // Some phones name themselves before they were asked.
        if credentials.nonce.is_empty() || credentials.response.is_empty() {
            return Finding::Challenge { stale: false };
        }
        // user@domain in the user name is a habit of some phones.
        let user = match whole.iter().rposition(|byte| *byte == b'@') {
            Some(at) if whole[at + 1..].eq_ignore_ascii_case(domain) => Cow::Owned(whole[..at].to_vec()),
            _ => whole.clone(),
        };
        self.weigh(now, arrival, message, &Claim { credentials, user, named: whole, domain: domain.to_vec(), realm: realm.to_vec(), peer })
    }

    /// Lets a request wait until the database has said what it knows of a user.
    fn wait_for_credentials(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, key: u128, wanted: &Wanted<'_>) -> Finding {
        if self.shedding == Shedding::Registrations {
            self.counters.shed_overload.add();
            return Finding::Refuse(self.shed());
        }
        let wait = self.snapshot.subscribers.as_ref().map_or(0, |subscribers| subscribers.deadline);
        if self.park(now, arrival, message, key, wait) {
            self.ask_credentials(wanted);
        }
        Finding::Parked
    }

    fn malformed(&self) -> Finding {
        Finding::Refuse(self.malformed_credentials())
    }

    /// Credentials cannot be read.
    pub(crate) fn malformed_credentials(&self) -> Refusal {
        self.counters.credentials_malformed.add();
        Refusal { reason_phrase: Some("Bad Request (credentials)".to_owned()), ..Refusal::new(400, "authenticate") }
    }

    fn weigh(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, claim: &Claim<'_>) -> Finding {
        let Some(subscribers) = &self.snapshot.subscribers else { return Finding::Challenge { stale: false } };
        let text = |span: Span| message.text(span);
        let credentials = &claim.credentials;
        let place = place_of(arrival);
        let state = Nonce::read(text(credentials.nonce), &self.options.process_secret, &place, self.options.worker, now.moment, subscribers.nonce_age);
        // Before any look-up: whoever has no nonce of ours costs the database nothing.
        let NonceState::Fresh(nonce) = state else {
            self.counters.nonces_stale.add();
            return Finding::Challenge { stale: true };
        };
        let Some((algorithm, session)) = Algorithm::from_bytes(text(credentials.algorithm)).filter(|(own, _)| subscribers.algorithms.contains(own)) else {
            return Finding::Challenge { stale: false };
        };
        let Some((protection, count)) = protection(message, credentials, self.snapshot.settings.authentication.protect_body) else { return self.malformed() };
        if !names_the_same(message, credentials.uri) {
            return self.malformed();
        }
        let account = self.account(&claim.user, &claim.domain);
        if self.may_try(now, arrival.address.ip(), &account, self.is_emergency(message)) != MayTry::Yes {
            self.counters.refused_attackers.add();
            return Finding::Refuse(Refusal::new(403, "authenticate"));
        }
        let wanted = Wanted { user: &claim.user, domain: &claim.domain, realm: &claim.realm, named: &claim.named };
        let key = self.credential_key(&wanted);
        let Some(known) = self.credentials(now, key, &wanted) else { return self.wait_for_credentials(now, arrival, message, key, &wanted) };
        let method = text(message.head.method_span);
        let input = DigestInput { method, uri: text(credentials.uri), nonce: text(credentials.nonce), protection, session, body: message.body() };
        let stored = match &known {
            Known::User(ha1s, _) => ha1s.get(algorithm).copied(),
            Known::Nobody => None,
        };
        // For nobody as much is computed as for somebody, so that the time tells nothing.
        let known_ha1 = stored.unwrap_or_else(|| ha1(algorithm, b"", b"", b""));
        let right = digest_response(algorithm, &known_ha1, &input).matches(text(credentials.response));
        if !right || stored.is_none() {
            if !self.users.credentials.is_tried(key, now.moment) {
                // Each guess waits for the database alike, or the time of its answer would tell who was here a moment ago. And a
                // password that was changed holds at once.
                return self.wait_for_credentials(now, arrival, message, key, &wanted);
            }
            self.note_failed(now, arrival, &account, self.is_emergency(message));
            return Finding::Challenge { stale: false };
        }
        let request = self.request_mark(message);
        if self.users.nonces.take(nonce, count, request) == Use::Spent {
            self.counters.nonces_stale.add();
            return Finding::Challenge { stale: true };
        }
        self.note_authenticated(now, arrival, &account);
        let attributes = if let Known::User(_, attributes) = known { attributes } else { Attributes::default() };
        if !self.is_of(message, claim, &attributes) {
            self.counters.identities_refused.add();
            return Finding::Refuse(Refusal { reason_phrase: Some("Identity Not Allowed".to_owned()), ..Refusal::new(403, "authenticate") });
        }
        let name = [&claim.user, &b"@"[..], &claim.domain].concat().into();
        let preferred = self.preferred(message, claim, &attributes);
        self.users.proved = Some(Box::new(Account { name, attributes, preferred }));
        Finding::Proved
    }

    /// Tells one request from another: a retransmission is the same, byte for byte.
    fn request_mark(&self, message: &Message<'_>) -> u32 {
        proto::keyed_hash(&self.options.process_secret, &[b"mark", message.bytes]) as u32
    }

    /// Whether the address that a request says it is of is that of the account (RFC 3261 section 22.1: whom to believe is ours to say).
    fn is_of(&self, message: &Message<'_>, claim: &Claim<'_>, attributes: &Attributes) -> bool {
        let head = message.head;
        // RFC 3323 section 4.1.1.3: who wants to be anonymous says so, and proves to us who it is all the same.
        let anonymous = |span: Span| {
            let host = Uri::parse(message.bytes, span).map(|uri| uri.host).unwrap_or_default();
            head.method != Method::Register && message.text(host).eq_ignore_ascii_case(b"anonymous.invalid")
        };
        let claimed = if head.method == Method::Register { head.to.uri } else { head.from.uri };
        if !(self.may_be(message, claimed, claim, attributes) || anonymous(head.from.uri)) {
            return false;
        }
        // Of peers that are not believed it goes no further (RFC 3325 section 5).
        let believed = self.snapshot.settings.peers.get(usize::from(claim.peer)).is_some_and(|peer| peer.trust_identity);
        let said = [HeaderName::PAssertedIdentity, HeaderName::RemotePartyId];
        !believed || said.into_iter().flat_map(|name| identities(message, name)).all(|span| self.may_be(message, span, claim, attributes))
    }

    /// Whether the account may go by the URI at `span`: its own name, another name of it, or one of its numbers.
    fn may_be(&self, message: &Message<'_>, span: Span, claim: &Claim<'_>, attributes: &Attributes) -> bool {
        let Ok(uri) = Uri::parse(message.bytes, span) else { return false };
        let numbers = self.snapshot.settings.authentication.caller_numbers.as_str();
        let registers = message.head.method == Method::Register;
        let user = unescaped(message.text(uri.user));
        let numbered = |user: &str| !numbers.is_empty() && !registers && attributes.has_number(numbers, user);
        if uri.scheme == syntax::Scheme::Tel {
            return std::str::from_utf8(&user).is_ok_and(numbered);
        }
        let sensitive = self.snapshot.settings.registrar.as_ref().is_some_and(|registrar| registrar.is_case_sensitive(&claim.domain));
        let same_user = if sensitive { *user == *claim.user } else { user.eq_ignore_ascii_case(&claim.user) };
        let also = |user: &str| attributes.has(ALSO, user) || !sensitive && attributes.has_in_any_case(ALSO, user);
        let allowed = |user: &str| also(user) || numbered(user);
        if (same_user || std::str::from_utf8(&user).is_ok_and(allowed)) && message.text(uri.host).eq_ignore_ascii_case(&claim.domain) {
            return true;
        }
        // A registration under another name would be looked for under the own one only.
        let own = self.account(&claim.user, &claim.domain);
        !registers && self.address_of_record(message.bytes, &uri).is_some_and(|aor| self.account_of(&aor) == own.as_slice())
    }

    /// The identity that a caller prefers of those that it has (RFC 3325 section 5).
    fn preferred(&self, message: &Message<'_>, claim: &Claim<'_>, attributes: &Attributes) -> Option<Box<[u8]>> {
        let believed = self.snapshot.settings.peers.get(usize::from(claim.peer)).is_some_and(|peer| peer.trust_identity);
        let asserted = believed.then(|| identities(message, HeaderName::PAssertedIdentity).next()).flatten();
        let mut wished = identities(message, HeaderName::PPreferredIdentity).filter(|span| self.may_be(message, *span, claim, attributes));
        let uri = Uri::parse(message.bytes, asserted.or_else(|| wished.next())?).ok()?;
        // Only what was looked at: parameters would be vouched for unseen.
        let user = message.text(uri.user).split(|byte| *byte == b';').next().unwrap_or_default();
        Some(match uri.scheme {
            syntax::Scheme::Tel => [b"tel:", user].concat().into(),
            syntax::Scheme::Sips => [b"sips:", user, b"@", message.text(uri.host)].concat().into(),
            _ => [b"sip:", user, b"@", message.text(uri.host)].concat().into(),
        })
    }

    /// A challenge for each algorithm, the strongest first.
    fn challenge(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, realm: &[u8], stale: bool) -> Refusal {
        self.counters.challenges.add();
        let snapshot = std::sync::Arc::clone(&self.snapshot);
        let algorithms = snapshot.subscribers.as_ref().map_or(&[][..], |subscribers| &subscribers.algorithms);
        let register = message.head.method == Method::Register;
        let mut headers = Vec::with_capacity(256);
        for algorithm in algorithms {
            self.users.nonce_number = self.users.nonce_number.wrapping_add(1);
            let nonce = Nonce { worker: self.options.worker, made: now.moment, number: self.users.nonce_number };
            headers.extend_from_slice(if register { b"WWW-Authenticate: Digest realm=\"" } else { b"Proxy-Authenticate: Digest realm=\"" });
            realm.iter().filter(|byte| !byte.is_ascii_control()).for_each(|byte| match byte {
                b'"' | b'\\' => headers.extend_from_slice(&[b'\\', *byte]),
                other => headers.push(*other),
            });
            headers.extend_from_slice(b"\", nonce=\"");
            nonce.write(&self.options.process_secret, &place_of(arrival), &mut headers);
            headers.extend_from_slice(b"\", algorithm=");
            headers.extend_from_slice(algorithm.as_str().as_bytes());
            headers.extend_from_slice(if snapshot.settings.authentication.protect_body { b", qop=\"auth,auth-int\"" } else { b", qop=\"auth\"" });
            headers.extend_from_slice(if stale { b", stale=true\r\n" } else { b"\r\n" });
        }
        Refusal { headers, ..Refusal::new(if register { 401 } else { 407 }, "authenticate") }
    }
}

/// The URIs of an identity header field (RFC 3325 section 9).
fn identities<'a>(message: &'a Message<'_>, name: HeaderName) -> impl Iterator<Item = Span> + 'a {
    message.elements(name).map(|element| parse_name_addr(message.bytes, element).map_or(element, |identity| identity.uri))
}

/// What quality of protection a client chose, and its count, 0 where it does not count; `None` where that is broken.
fn protection<'a>(message: &Message<'a>, credentials: &Credentials, protect_body: bool) -> Option<(Option<Protection<'a>>, u32)> {
    let qop = message.text(credentials.qop);
    if qop.is_empty() {
        return Some((None, 0));
    }
    let (nonce_count, cnonce) = (message.text(credentials.nonce_count), message.text(credentials.cnonce));
    let offered = qop.eq_ignore_ascii_case(b"auth") || protect_body && qop.eq_ignore_ascii_case(b"auth-int");
    // Eight digits by the grammar; phones that write fewer exist.
    let digits = (1..=8).contains(&nonce_count.len()) && nonce_count.iter().all(u8::is_ascii_hexdigit);
    if !offered || !digits || cnonce.is_empty() {
        return None;
    }
    let count = u32::from_str_radix(std::str::from_utf8(nonce_count).ok()?, 16).ok().filter(|count| *count > 0)?;
    Some((Some(Protection { nonce_count, cnonce, qop }), count))
}

/// Whether the URI that was hashed is about the user that the request is for (RFC 7616 section 3.4.6): else an answer for a
/// harmless number could be sent along with a dear one. Hosts and parameters are what elements between may change.
fn names_the_same(message: &Message<'_>, hashed: Span) -> bool {
    let user = |span: Span| Uri::parse(message.bytes, span).map(|uri| message.text(uri.user)).ok();
    user(hashed).is_some_and(|hashed| Some(hashed) == user(message.head.request_uri.whole))
}

/// Where a nonce may be answered from: else one could be had in one place and answered wrongly under the forged address of
/// another, which would be banned for it.
fn place_of(arrival: &Hop) -> [u8; 16] {
    match arrival.address.ip().to_canonical() {
        std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(ip) => ip.octets(),
    }
}
