//! Which part of a route set is ours (RFC 3261 section 16.4), and what that says about the request.

use std::net::IpAddr;

use proto::{Direction, RouteToken, Secret, stable_id};
use syntax::{HeaderName, Message, Scheme, Span, Transport, Uri, parse_ip, parse_name_addr};

use crate::settings::{ListenerSettings, RouteSettings, SettingsError};

/// Hosts and ports that mean this proxy.
pub(crate) struct OwnNames {
    addresses: Vec<(IpAddr, u16)>,
    /// Names in lower case, and IPv4 addresses as text, which have one spelling only.
    names: Vec<(String, u16)>,
    /// This node, as tokens name it.
    node: u16,
}

impl OwnNames {
    pub(crate) fn new(settings: &RouteSettings) -> Result<Self, SettingsError> {
        let mut own = Self { addresses: Vec::new(), names: Vec::new(), node: stable_id(&settings.node) as u16 };
        for listener in &settings.listeners {
            own.add(&listener.address.ip().to_string(), listener.address.port());
            own.add(&listener.advertise_host, listener.advertise_port);
        }
        settings.former.iter().for_each(|(host, port)| own.add(host, *port));
        for (index, alias) in settings.aliases.iter().enumerate() {
            let text = format!("sip:{alias}");
            let uri = Uri::parse(text.as_bytes(), Span::new(0, text.len())).map_err(|_| SettingsError::Value {
                path: format!("aliases[{index}]"),
                problem: "not a host with an optional port",
                value: alias.clone(),
            })?;
            let host = String::from_utf8_lossy(uri.host.of(text.as_bytes())).into_owned();
            match uri.port {
                Some(port) => own.add(&host, port),
                // An alias without a port means the name at every port that we listen on.
                None => settings.listeners.iter().for_each(|l| {
                    own.add(&host, l.advertise_port);
                    own.add(&host, l.address.port());
                }),
            }
        }
        Ok(own)
    }

    fn add(&mut self, host: &str, port: u16) {
        match parse_ip(host.as_bytes()) {
            Some(ip @ IpAddr::V6(_)) => self.addresses.push((ip, port)),
            Some(IpAddr::V4(_)) | None => self.names.push((host.to_ascii_lowercase(), port)),
        }
    }

    /// Whether `host` with `port` means this proxy.
    pub(crate) fn has(&self, host: &[u8], port: u16) -> bool {
        // Only IPv6 addresses can be written in several ways, so only they are worth parsing.
        if host.first() == Some(&b'[') {
            return parse_ip(host).is_some_and(|ip| self.addresses.contains(&(ip, port)));
        }
        self.names.iter().any(|(name, own)| *own == port && host.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// Whether `uri` leads here.
    pub(crate) fn is_own(&self, bytes: &[u8], uri: &Uri) -> bool {
        let default = uri.transport.map_or(if uri.scheme == Scheme::Sips { 5061 } else { 5060 }, Transport::default_port);
        !uri.host.is_empty() && self.has(uri.host.of(bytes), uri.port.unwrap_or(default))
    }
}

/// Whether `host` and `port` mean the proxy of `snapshot`.
pub fn is_own_host(snapshot: &crate::Snapshot, host: &[u8], port: u16) -> bool {
    snapshot.own.has(host, port)
}

/// `host:port` of a listener as Via and URIs write it.
pub(crate) fn host_port(listener: &ListenerSettings) -> Vec<u8> {
    let host = listener.advertise_host.trim_start_matches('[').trim_end_matches(']');
    let text = if host.contains(':') { format!("[{host}]:{}", listener.advertise_port) } else { format!("{host}:{}", listener.advertise_port) };
    text.into_bytes()
}

/// What a request's route set says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RouteView {
    /// How many leading Route elements are ours.
    pub(crate) pops: u8,
    /// The verified token, and who sends.
    pub(crate) token: Option<(RouteToken, Direction)>,
    /// The first Route element that is not ours.
    pub(crate) next: Option<Uri>,
    /// The Request-URI was ours because a strict router sent this: the last Route element takes its place.
    pub(crate) swapped: Option<Uri>,
    /// Whether one of them is ours by its seal only: something on the way gave it another host.
    pub(crate) rewritten: bool,
    /// Whether the Request-URI, after that, leads here.
    pub(crate) request_uri_is_own: bool,
}

/// A Route header field that is not a list of URIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadRoute;

impl RouteView {
    /// Reads the route set of `message`.
    pub(crate) fn read(own: &OwnNames, secret: &Secret, message: &Message<'_>) -> Result<Self, BadRoute> {
        let bytes = message.bytes;
        let mut view = Self::default();
        let mut request_uri = message.head.request_uri;
        if message.first(HeaderName::Route).is_none() {
            view.request_uri_is_own = own.is_own(bytes, &request_uri);
            return Ok(view);
        }
        // RFC 3261 section 16.4: a strict router put our Record-Route value into the Request-URI.
        if !request_uri.user.is_empty() && own.is_own(bytes, &request_uri) {
            view.token = verify(secret, message, &request_uri);
            if view.token.is_some() {
                let last = message.elements(HeaderName::Route).last().ok_or(BadRoute)?;
                request_uri = element_uri(bytes, last).ok_or(BadRoute)?;
                view.swapped = Some(request_uri);
            }
        }
        let mut double = false;
        for element in message.elements(HeaderName::Route) {
            let uri = element_uri(bytes, element).ok_or(BadRoute)?;
            let mut ours = own.is_own(bytes, &uri);
            if !ours && verify(secret, message, &uri).is_some_and(|(token, _)| token.node == own.node) {
                (ours, view.rewritten) = (true, true);
            }
            if ours && (view.pops == 0 || (view.pops == 1 && double)) && !view.swapped.is_some_and(|s| s == uri) {
                if view.token.is_none() {
                    view.token = verify(secret, message, &uri);
                }
                double = view.pops == 0 && has_param(bytes, &uri, b"r2");
                view.pops += 1;
            } else if view.swapped != Some(uri) {
                view.next = Some(uri);
                break;
            }
        }
        view.request_uri_is_own = own.is_own(bytes, &request_uri);
        Ok(view)
    }
}

fn verify(secret: &Secret, message: &Message<'_>, uri: &Uri) -> Option<(RouteToken, Direction)> {
    let head = message.head;
    RouteToken::verify(message.text(uri.user), secret, message.call_id(), message.text(head.from.tag), message.text(head.to.tag))
}

/// The URI of one Route element.
pub(crate) fn element_uri(bytes: &[u8], element: Span) -> Option<Uri> {
    let parsed = parse_name_addr(bytes, element)?;
    Uri::parse(bytes, parsed.uri).ok().filter(|uri| !uri.host.is_empty())
}

pub(crate) fn has_param(bytes: &[u8], uri: &Uri, name: &[u8]) -> bool {
    uri.params.of(bytes).split(|b| *b == b';').any(|p| p.split(|b| *b == b'=').next().is_some_and(|n| n.eq_ignore_ascii_case(name)))
}
