//! Register poisoning: a Contact that names a gateway, the core or the proxy itself would have calls for its user arrive there
//! as if they were ours (RFC 3261 section 10.3; 476 is what other proxies answer).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use proto::{Contact, Key, Now, milliseconds};
use syntax::{Message, Span, Transport, Uri, is_odd_address, parse_ip};

use crate::edge::Edge;
use crate::event::EventKind;
use crate::hop::Hop;
use crate::matching::Refusal;
use crate::question::{Address, Asker, Question, QuestionId};
use crate::settings::PeerKind;
use crate::subscriber_settings::in_networks;
use crate::target::Target;

/// What is to be done about a contact.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ContactVerdict {
    /// It may be registered.
    Good,
    /// It may not, and why.
    Bad(&'static str),
    /// Its name must be looked up.
    Resolve(Vec<u8>),
}

impl Edge {
    /// Whether all contacts of a REGISTER may be registered; false where it waits for where a name leads.
    pub(crate) fn check_contacts(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, contacts: &[Contact<'_>]) -> Result<bool, Refusal> {
        let snapshot = std::sync::Arc::clone(&self.snapshot);
        let Some(registrar) = &snapshot.settings.registrar else { return Ok(true) };
        let natted = snapshot.nat_tests.hold(arrival, message);
        let whole = message.named(b"Expires").next().and_then(|slot| crate::register::delta_seconds(message.text(slot.value)));
        for contact in contacts.iter().filter(|contact| contact.expires.or(whole) != Some(0)) {
            let Ok(uri) = Uri::parse(contact.uri, Span::new(0, contact.uri.len())) else { return Err(Refusal::new(400, "register")) };
            match self.check_contact(now, arrival, natted, contact.uri, &uri) {
                ContactVerdict::Good => {}
                ContactVerdict::Bad(why) => {
                    self.tell_poisoning(now, arrival, message, contact.uri, why);
                    let phrase = Some(registrar.contacts.reason_phrase.clone());
                    return Err(Refusal { reason_phrase: phrase, ..Refusal::new(registrar.contacts.status_code, "register") });
                }
                ContactVerdict::Resolve(name) => {
                    let key = self.name_key(&name);
                    if self.park(now, arrival, message, key, milliseconds(snapshot.settings.timers.resolve_milliseconds)) {
                        self.ask_contact_name(&name);
                    }
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Looks at one URI that somebody wants to be reached at.
    fn check_contact(&mut self, now: Now, arrival: &Hop, natted: bool, bytes: &[u8], uri: &Uri) -> ContactVerdict {
        if self.is_own_gruu(bytes, uri) {
            return ContactVerdict::Bad("is a GRUU of a domain that is served here");
        }
        let resolve = self.snapshot.settings.registrar.as_ref().is_some_and(|registrar| registrar.contacts.resolve);
        if uri.port == Some(0) {
            return ContactVerdict::Bad("has port 0");
        }
        let port = uri.port.unwrap_or_else(|| uri.transport.map_or(5060, Transport::default_port));
        for span in [uri.host, uri.maddr] {
            let host = span.of(bytes);
            if host.is_empty() {
                continue;
            }
            if self.snapshot.own.has(host, port) {
                return ContactVerdict::Bad("names this proxy");
            }
            if let Some(ip) = parse_ip(host) {
                if let Some(why) = self.bad_address(arrival, natted, ip, port) {
                    return ContactVerdict::Bad(why);
                }
                continue;
            }
            if is_odd_address(host) {
                return ContactVerdict::Bad("has a host that some take for an address");
            }
            if !resolve {
                continue;
            }
            let name = host.to_ascii_lowercase();
            let known = self.users.names.get(name.as_slice()).filter(|(_, until)| *until > now.moment);
            let Some(addresses) = known.map(|(addresses, _)| addresses.clone()) else { return ContactVerdict::Resolve(name) };
            for place in addresses {
                // A port in the URI leaves SRV out (RFC 3263 section 4.2).
                let ports = [port, if uri.port.is_some() { port } else { place.port() }];
                if let Some(why) = ports.into_iter().find_map(|port| self.bad_address(arrival, natted, place.ip(), port)) {
                    return ContactVerdict::Bad(why);
                }
            }
        }
        ContactVerdict::Good
    }

    /// What speaks against a contact at this address; one behind a NAT is reached by its flow, whatever its address.
    fn bad_address(&mut self, arrival: &Hop, natted: bool, ip: IpAddr, port: u16) -> Option<&'static str> {
        let snapshot = std::sync::Arc::clone(&self.snapshot);
        let contacts = &snapshot.settings.registrar.as_ref()?.contacts;
        let (ip, source) = (ip.to_canonical(), arrival.address.ip().to_canonical());
        if self.is_own_place(ip, port) {
            return Some("is an address of this proxy");
        }
        // Beside a phone on its own machine something else of ours may run: then the port tells them apart.
        let port = (ip == source).then_some(port);
        if self.is_machine(arrival, ip, port) {
            return Some("is an address of a core, a gateway or a trusted element");
        }
        if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) || in_networks(&contacts.forbidden, ip) {
            return Some("lies in a forbidden network");
        }
        (in_networks(&contacts.private, ip) && ip != source && !natted).then_some("is a private address and not its sender's")
    }

    /// Whether a listener of ours is there, as it is bound or as it is told to others.
    fn is_own_place(&mut self, ip: IpAddr, port: u16) -> bool {
        let snapshot = std::sync::Arc::clone(&self.snapshot);
        let told = |host: &str| host.trim_matches(['[', ']']).parse().is_ok_and(|own: IpAddr| own.to_canonical() == ip);
        snapshot.settings.listeners.iter().any(|listener| {
            let bound = listener.address.ip();
            let mut there = || bound.to_canonical() == ip || bound.is_unspecified() && self.options.routes.source_for(ip) == Some(ip);
            listener.advertise_port == port && told(&listener.advertise_host) || listener.address.port() == port && there()
        })
    }

    /// Whether a phone describes its media where machines signal, or for many: packets from our address that are no SIP would have a
    /// machine shut us out. Elsewhere in a network of machines its media may well be, such as at a TURN server.
    pub(crate) fn is_forged_place(&mut self, place: SocketAddr) -> bool {
        let (ip, port) = (place.ip().to_canonical(), place.port());
        let engine = self.snapshot.settings.media.as_ref().is_some_and(|media| media.rtpengines.iter().any(|engine| engine.address == place));
        engine || ip.is_multicast() || self.is_own_place(ip, port) || self.signals_at(ip, port) || matches!(port, 5_060 | 5_061) && self.covered(ip)
    }

    /// Whether a machine of ours or of a carrier, or the proxy itself, is at `address`: no phone is.
    pub(crate) fn is_no_phone(&self, listener: u16, address: Address) -> bool {
        let peer = self.identify(listener, address.transport, address.address);
        let machine = peer.is_some_and(|index| self.snapshot.settings.peers[usize::from(index)].kind != PeerKind::Subscribers);
        machine || self.snapshot.settings.listeners.iter().any(|own| own.address == address.address)
    }

    /// Whether a core, a gateway or a trusted element is there, at `port` where that is named.
    fn is_machine(&self, arrival: &Hop, ip: IpAddr, port: Option<u16>) -> bool {
        let Some(at) = port else { return self.covered(ip) || self.routing.has_gateway_at(ip, None) };
        let sender = self.snapshot.peers.identify(arrival.listener, arrival.transport, SocketAddr::new(ip, at), None);
        sender.is_some_and(|(index, _)| self.is_of_machine(index)) || self.signals_at(ip, at)
    }

    fn is_of_machine(&self, peer: u16) -> bool {
        self.snapshot.settings.peers.get(usize::from(peer)).is_some_and(|peer| peer.kind != PeerKind::Subscribers)
    }

    fn machines(&self) -> impl Iterator<Item = u16> {
        (0..self.snapshot.settings.peers.len() as u16).filter(|index| self.is_of_machine(*index))
    }

    /// Whether `ip` is one that a machine may send from.
    fn covered(&self, ip: IpAddr) -> bool {
        self.machines().any(|index| self.snapshot.peers.covers(index, ip))
    }

    /// Whether requests are led there, to a machine or a gateway.
    fn signals_at(&self, ip: IpAddr, port: u16) -> bool {
        let place = SocketAddr::new(ip, port);
        let is_target = |index: u16| self.snapshot.peers.targets(index).iter().any(|target| matches!(target, Target::Address(own) if own.address == place));
        self.machines().any(is_target) || self.routing.has_gateway_at(ip, Some(port))
    }

    /// Asks where the name of a contact leads.
    fn ask_contact_name(&mut self, host: &[u8]) {
        self.counters.questions.add();
        let id = QuestionId { worker: self.options.worker, transaction: Key::NONE, number: 0, asker: Asker::Contact };
        let host = String::from_utf8_lossy(host).into_owned();
        // Whatever the transport: the address is all that counts.
        self.out.questions.push(Question { id, host, port: None, transport: None, offered: self.offered_transports() });
    }

    /// Somebody tried to be reached where nobody may be.
    fn tell_poisoning(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, contact: &[u8], why: &'static str) {
        self.counters.contacts_refused.add();
        self.tell_refused(now, arrival.address.ip(), message.text(message.head.to.uri), contact, why);
    }

    /// Somebody wanted more Contacts than one may have.
    pub(crate) fn tell_too_many(&mut self, now: Now, source: IpAddr, aor: &[u8], contact: &[u8]) {
        self.counters.contacts_too_many.add();
        self.tell_refused(now, source, aor, contact, "is one too many");
    }

    fn tell_refused(&mut self, now: Now, source: IpAddr, aor: &[u8], contact: &[u8], why: &'static str) {
        if self.may_log(now) {
            let (shown, place) = (self.shown_text(contact), self.shown_text(source.to_canonical().to_string().as_bytes()));
            log::warn!(target: "register", "contact {shown} of {} from {place} refused: it {why}", self.shown_text(aor));
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let values = [source.to_canonical().to_string(), text(aor), text(contact), why.to_owned()];
        self.tell(now, EventKind::RegisterPoisoning, |_| values.map(Into::into).into());
    }
}
