//! Who sent it: peers by address, port, transport and listener, the most specific rule first.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use syntax::{Span, Transport, Uri, parse_ip};

use crate::glob;
use crate::question::Address;
use crate::route::OwnNames;
use crate::settings::{ListenerSettings, PeerSettings, RouteSettings, SettingsError};
use crate::target::Target;

struct Rule {
    peer: u16,
    port: u16,
    transport: Option<Transport>,
    listener: Option<u16>,
    sender: Box<[u8]>,
}

impl Rule {
    fn fits(&self, listener: u16, transport: Transport, port: u16) -> bool {
        (self.port == 0 || self.port == port) && self.transport.is_none_or(|t| t == transport) && self.listener.is_none_or(|l| l == listener)
    }

    /// Whether it is for the sender of a request that has this URI in From.
    fn takes(&self, from: &[u8]) -> bool {
        self.sender.is_empty() || glob::fits(&self.sender, from)
    }

    fn weight(&self) -> u8 {
        u8::from(!self.sender.is_empty()) * 8 + u8::from(self.port != 0) * 4 + u8::from(self.listener.is_some()) * 2 + u8::from(self.transport.is_some())
    }
}

/// The peers, ready to be looked up: one hash probe for each prefix length in use.
pub(crate) struct PeerTable {
    networks: HashMap<(IpAddr, u8), Vec<Rule>>,
    lengths: [Vec<u8>; 2],
    anywhere: Vec<Rule>,
    /// Whether any rule is for some callers only.
    by_sender: bool,
    targets: Vec<Vec<Target>>,
    core: Option<u16>,
    /// For each listener the one whose rules it goes by.
    listeners: Vec<u16>,
}

impl PeerTable {
    pub(crate) fn new(settings: &RouteSettings, own: &OwnNames, core: Option<&str>) -> Result<Self, SettingsError> {
        let mut table = Self {
            networks: HashMap::new(),
            lengths: [Vec::new(), Vec::new()],
            anywhere: Vec::new(),
            by_sender: false,
            targets: Vec::new(),
            core: None,
            listeners: known_as(&settings.listeners),
        };
        for (index, peer) in settings.peers.iter().enumerate() {
            let index = index as u16;
            table.add_matches(settings, peer, index)?;
            table.targets.push(peer.to.iter().map(|uri| target(peer, uri, own)).collect::<Result<_, _>>()?);
            if core == Some(peer.name.as_str()) {
                table.core = Some(index);
            }
        }
        for lengths in &mut table.lengths {
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            lengths.dedup();
        }
        for rules in table.networks.values_mut().chain(std::iter::once(&mut table.anywhere)) {
            rules.sort_by_key(|rule| std::cmp::Reverse(rule.weight()));
        }
        Ok(table)
    }

    fn add_matches(&mut self, settings: &RouteSettings, peer: &PeerSettings, index: u16) -> Result<(), SettingsError> {
        for rule in &peer.matches {
            let fault = |problem, value: &str| SettingsError::Value { path: format!("peer.{}.match", peer.name), problem, value: value.to_owned() };
            let transport = match rule.transport.as_str() {
                "" => None,
                name => Some(Transport::from_bytes(name.as_bytes()).ok_or_else(|| fault("no such transport", name))?),
            };
            let listener = match rule.listener.as_str() {
                "" => None,
                name => Some(settings.listeners.iter().position(|l| l.name == name).ok_or_else(|| fault("no such listener", name))? as u16),
            };
            self.by_sender |= !rule.sender.is_empty();
            let entry = Rule { peer: index, port: rule.port, transport, listener, sender: rule.sender.as_bytes().into() };
            match rule.network {
                None => self.anywhere.push(entry),
                Some(network) => {
                    let length = rule.prefix.min(if network.is_ipv4() { 32 } else { 128 });
                    self.lengths[usize::from(network.is_ipv6())].push(length);
                    self.networks.entry((masked(network, length), length)).or_default().push(entry);
                }
            }
        }
        Ok(())
    }

    /// The peer that sends from `source` to `listener`, in the name of `from` where a request is at hand, and whether a rule names
    /// just that address.
    /// Without a request a rule for some callers counts only where no rule for all is there.
    pub(crate) fn identify(&self, listener: u16, transport: Transport, source: SocketAddr, from: Option<&[u8]>) -> Option<(u16, bool)> {
        match from {
            Some(from) => self.find(listener, transport, source, |rule| rule.takes(from)),
            None => self.find(listener, transport, source, |rule| rule.sender.is_empty()).or_else(|| {
                // Few files have such rules.
                if self.by_sender { self.find(listener, transport, source, |_| true) } else { None }
            }),
        }
    }

    /// Whether a rule of `peer` for some callers covers this place: which of the peers there a dialog is of its token tells.
    pub(crate) fn may_be(&self, peer: u16, listener: u16, transport: Transport, source: SocketAddr) -> bool {
        self.by_sender && self.find(listener, transport, source, |rule| rule.peer == peer && !rule.sender.is_empty()).is_some()
    }

    fn find(&self, listener: u16, transport: Transport, source: SocketAddr, admits: impl Fn(&Rule) -> bool) -> Option<(u16, bool)> {
        let ip = source.ip().to_canonical();
        let listener = self.listeners.get(usize::from(listener)).copied().unwrap_or(listener);
        for length in &self.lengths[usize::from(ip.is_ipv6())] {
            let Some(rules) = self.networks.get(&(masked(ip, *length), *length)) else { continue };
            if let Some(rule) = rules.iter().find(|rule| rule.fits(listener, transport, source.port()) && admits(rule)) {
                return Some((rule.peer, *length == if ip.is_ipv4() { 32 } else { 128 }));
            }
        }
        self.anywhere.iter().find(|rule| rule.fits(listener, transport, source.port()) && admits(rule)).map(|rule| (rule.peer, false))
    }

    /// Whether `ip` is in a network of this peer, whatever the port, or is named by its `to`.
    pub(crate) fn covers(&self, peer: u16, ip: IpAddr) -> bool {
        // A network some callers of which are a machine's has phones in it, too; an address has none.
        let whole = if ip.is_ipv4() { 32 } else { 128 };
        let in_network = self.lengths[usize::from(ip.is_ipv6())].iter().any(|length| {
            self.networks
                .get(&(masked(ip, *length), *length))
                .is_some_and(|rules| rules.iter().any(|rule| rule.peer == peer && (rule.sender.is_empty() || *length == whole)))
        });
        in_network || self.targets(peer).iter().any(|target| matches!(target, Target::Address(address) if address.address.ip() == ip))
    }

    /// The core that calls go to where nothing else is said.
    pub(crate) fn core(&self) -> Option<u16> {
        self.core
    }

    /// The targets of a peer's `to`.
    pub(crate) fn targets(&self, peer: u16) -> &[Target] {
        self.targets.get(usize::from(peer)).map_or(&[], Vec::as_slice)
    }
}

/// For each listener the one whose rules it goes by: a listener that moved drains under those of its successor.
fn known_as(listeners: &[ListenerSettings]) -> Vec<u16> {
    let successor = |label: &str| listeners.iter().position(|other| !other.drained && other.name == label).map(|index| index as u16);
    let known = |(index, listener): (usize, &ListenerSettings)| {
        let own = index as u16;
        if listener.drained { successor(listener.label()).unwrap_or(own) } else { own }
    };
    listeners.iter().enumerate().map(known).collect()
}

fn target(peer: &PeerSettings, uri: &str, own: &OwnNames) -> Result<Target, SettingsError> {
    let fault = |problem| SettingsError::Value { path: format!("peer.{}.to", peer.name), problem, value: uri.to_owned() };
    let bytes = uri.as_bytes();
    let parsed = Uri::parse(bytes, Span::new(0, bytes.len())).map_err(|_| fault("not a SIP URI"))?;
    if parsed.host.is_empty() {
        return Err(fault("a URI with a host is needed"));
    }
    if own.is_own(bytes, &parsed) {
        return Err(fault("names this proxy itself"));
    }
    Ok(Target::of_uri(bytes, &parsed))
}

/// The network of `length` bits that `ip` lies in.
pub(crate) fn masked(ip: IpAddr, length: u8) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0)).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0)).into()),
    }
}

/// The address that a URI with an IP literal names.
pub(crate) fn literal(bytes: &[u8], uri: &Uri) -> Option<Address> {
    let host = if uri.maddr.is_empty() { uri.host } else { uri.maddr };
    let ip = parse_ip(host.of(bytes))?;
    let transport = uri.transport.unwrap_or(if uri.scheme == syntax::Scheme::Sips { Transport::Tls } else { Transport::Udp });
    Some(Address { transport, address: SocketAddr::new(ip, uri.port.unwrap_or_else(|| transport.default_port())) })
}
