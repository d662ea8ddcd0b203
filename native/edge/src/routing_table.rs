//! What is provisioned for carrier routing, as all workers read it: tables of rules, where gateways are, and who sends from there.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use guard::{CallLease, Capacity, Caps, Full};
use routing::{HealthRules, Pick, Table};
use smallvec::SmallVec;
use syntax::{Span, Transport, Uri};

use crate::edge::Edge;
use crate::hop::Hop;
use crate::question::Address;
use crate::settings::{ListenerSettings, Way};
use crate::target::{HostName, Target};

/// Rules with the gateways that they lead to.
pub(crate) struct Partition {
    pub(crate) name: Arc<str>,
    pub(crate) table: Arc<Table>,
    /// Where each gateway is.
    pub(crate) hops: Vec<GatewayHop>,
    /// What each gateway takes, and each carrier.
    gateways: Vec<Capacity>,
    carriers: Vec<Capacity>,
}

/// Where a gateway is.
pub(crate) struct GatewayHop {
    pub(crate) target: Target,
    /// `transport:address[:port]` or the name of the listener to send from; empty for any.
    socket: Box<str>,
}

/// A gateway that may send to us.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    port: u16,
    transport: Transport,
    kind: i32,
    /// Places of its partition and of itself there.
    gateway: (u32, u32),
}

/// The tables of all partitions.
#[derive(Default)]
pub struct Routing {
    pub(crate) partitions: Vec<Partition>,
    sources: HashMap<IpAddr, SmallVec<[Source; 1]>>,
}

impl Routing {
    /// Puts tables together by the names of their partitions; `resolved` tells where gateways are that have names (RFC 3263), and
    /// calls that `before` counts go on counting.
    pub fn new(tables: Vec<(String, Arc<Table>)>, resolved: &HashMap<HostName, Vec<Address>>, before: Option<&Self>) -> Self {
        let mut routing = Self::default();
        for (name, table) in tables {
            let mut hops = Vec::with_capacity(table.gateways.len());
            let place = routing.partitions.len() as u32;
            for (index, gateway) in table.gateways.iter().enumerate() {
                let bytes = gateway.uri.as_bytes();
                // The table has only URIs that can be read.
                let Ok(uri) = Uri::parse(bytes, Span::new(0, bytes.len())) else { continue };
                let target = Target::of_uri(bytes, &uri);
                let addresses = match &target {
                    Target::Address(address) => std::slice::from_ref(address),
                    Target::Name(name) => resolved.get(&**name).map_or(&[][..], Vec::as_slice),
                    // A gateway is no user of ours.
                    Target::Record(_) | Target::Contact(_) | Target::Phone(_) => &[],
                };
                for Address { transport, address } in addresses {
                    let source = Source { port: address.port(), transport: *transport, kind: gateway.kind, gateway: (place, index as u32) };
                    routing.sources.entry(address.ip().to_canonical()).or_default().push(source);
                }
                hops.push(GatewayHop { target, socket: gateway.socket.clone() });
            }
            let known = before.and_then(|before| before.partitions.iter().find(|own| *own.name == *name));
            let capacity = |before: Option<&Capacity>, (calls, calls_per_second)| Capacity::after(before, Caps { calls, calls_per_second });
            let gateways = table.gateways.iter().map(|gateway| {
                let before = known.and_then(|known| known.gateways.get(known.table.gateway(gateway.id())? as usize));
                capacity(before, (gateway.max_calls, gateway.calls_per_second))
            });
            let gateways = gateways.collect();
            let carriers = table.carriers.iter().map(|carrier| {
                let before = known.and_then(|known| known.carriers.get(known.table.carrier(&carrier.id)? as usize));
                capacity(before, (carrier.max_calls, carrier.calls_per_second))
            });
            let carriers = carriers.collect();
            routing.partitions.push(Partition { name: name.into(), table, hops, gateways, carriers });
        }
        routing
    }

    /// The table of a partition.
    pub fn table(&self, partition: &str) -> Option<&Arc<Table>> {
        self.partitions.iter().find(|own| *own.name == *partition).map(|own| &own.table)
    }

    /// What a gateway takes, by its number.
    pub fn gateway_capacity(&self, partition: &str, index: usize) -> Option<&Capacity> {
        self.partitions.iter().find(|own| *own.name == *partition)?.gateways.get(index)
    }

    /// What a carrier takes, by its number.
    pub fn carrier_capacity(&self, partition: &str, index: usize) -> Option<&Capacity> {
        self.partitions.iter().find(|own| *own.name == *partition)?.carriers.get(index)
    }

    /// Why a gateway takes no call now by a carrier, if it takes none for the number of those that it has.
    pub fn is_full(&self, partition: &str, pick: Pick) -> bool {
        let carrier = pick.carrier.and_then(|index| self.carrier_capacity(partition, index as usize));
        self.gateway_capacity(partition, pick.gateway as usize).is_some_and(Capacity::is_full) || carrier.is_some_and(Capacity::is_full)
    }

    /// Why no call comes to a gateway, whatever its health, where only these ways are open. Of one that has a name nothing is said.
    pub fn out_of_reach(&self, partition: &str, index: usize, open: &[Way]) -> Option<String> {
        let hop = self.partitions.iter().find(|own| *own.name == *partition)?.hops.get(index)?;
        let Target::Address(address) = &hop.target else { return None };
        let (transport, is_ipv4) = address.way();
        let family = if is_ipv4 { "IPv4" } else { "IPv6" };
        (!open.contains(&(transport, is_ipv4))).then(|| format!("no listener sends over {} to {family}", transport.as_str().to_ascii_lowercase()))
    }

    /// Names of the partitions.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.partitions.iter().map(|partition| &*partition.name)
    }

    /// Forgets the quality of rules and gateways that are gone.
    pub fn forget_gone(&self) {
        self.partitions.iter().for_each(|partition| partition.table.forget_gone());
    }

    /// Gateways that name a listener to send from, with that.
    pub fn sockets(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.partitions.iter().flat_map(|partition| &partition.table.gateways);
        all.filter(|gateway| !gateway.socket.is_empty()).map(|gateway| (gateway.id(), &*gateway.socket))
    }

    /// Names of gateways that have no address, each once.
    pub fn host_names(&self) -> HashSet<&HostName> {
        let hops = self.partitions.iter().flat_map(|partition| &partition.hops);
        let names = hops.filter_map(|hop| if let Target::Name(name) = &hop.target { Some(&**name) } else { None });
        names.collect()
    }

    /// Whether a gateway is at `ip`, and at `port` where that is named.
    pub(crate) fn has_gateway_at(&self, ip: IpAddr, port: Option<u16>) -> bool {
        self.sources.get(&ip).is_some_and(|there| there.iter().any(|source| port.is_none_or(|port| source.port == port)))
    }

    /// The gateway that sends from `source`. Connections come from any port.
    fn sender(&self, transport: Transport, source: SocketAddr) -> Option<&Source> {
        let there = self.sources.get(&source.ip().to_canonical())?;
        let same = |gateway: &&Source| gateway.transport == transport && (transport.is_reliable() || gateway.port == source.port());
        there.iter().find(same)
    }
}

/// A call's places at a gateway and at the carrier by which it was found.
#[derive(Debug, Default)]
pub(crate) struct Places {
    _gateway: Option<CallLease>,
    _carrier: Option<CallLease>,
}

impl Partition {
    /// Places for a call, if the gateway and its carrier take it.
    pub(crate) fn admit(&self, now: u64, pick: Pick) -> Result<Places, Full> {
        let carrier = pick.carrier.and_then(|index| self.carriers.get(index as usize));
        // Looked at first: a place at the gateway for a call that its carrier does not take would count in its pace.
        carrier.map_or(Ok(()), |carrier| carrier.look(now))?;
        let gateway = self.gateways.get(pick.gateway as usize).map(|gateway| gateway.admit(now)).transpose()?;
        let carrier = carrier.map(|carrier| carrier.admit(now)).transpose()?;
        Ok(Places { _gateway: gateway, _carrier: carrier })
    }

    /// Places for a call that was admitted before and goes to another address of the same gateway.
    pub(crate) fn places(&self, pick: Pick) -> Places {
        let carrier = pick.carrier.and_then(|index| self.carriers.get(index as usize));
        Places { _gateway: self.gateways.get(pick.gateway as usize).and_then(Capacity::lease), _carrier: carrier.and_then(Capacity::lease) }
    }

    /// Whether calls may go to a gateway; `now` in microseconds of the monotonic clock.
    pub(crate) fn is_usable(&self, gateway: u32, now: u64, health: &HealthRules) -> bool {
        self.table.gateways.get(gateway as usize).is_some_and(|gateway| gateway.state.is_usable(now, gateway.is_probed(), health))
    }

    /// Calls that a gateway has.
    pub(crate) fn live(&self, gateway: u32) -> u32 {
        self.gateways.get(gateway as usize).map_or(0, Capacity::live)
    }
}

impl GatewayHop {
    /// The listener to send from, where the gateway's row names one that there is.
    pub(crate) fn listener(&self, listeners: &[ListenerSettings]) -> Option<u16> {
        if self.socket.is_empty() {
            return None;
        }
        let (transport, place) = self.socket.split_once(':').unwrap_or(("", &self.socket));
        let address = place.parse::<SocketAddr>().ok().or_else(|| Some(SocketAddr::new(place.parse().ok()?, 5_060)));
        let same = |listener: &ListenerSettings| {
            !listener.drained && (*listener.name == *self.socket || listener.transport.eq_ignore_ascii_case(transport) && Some(listener.address) == address)
        };
        listeners.iter().position(same).map(|index| index as u16)
    }
}

impl Edge {
    /// Routes by other tables from now on; what is under way goes on by those that it began with.
    pub fn set_routing(&mut self, routing: Arc<Routing>) {
        self.routing = routing;
        self.pairs.clear();
    }

    /// The peer at an address: by a rule for just that address, as a gateway, or by a wider rule.
    pub(crate) fn identify(&self, listener: u16, transport: Transport, source: SocketAddr) -> Option<u16> {
        self.identify_sender(listener, transport, source, None)
    }

    /// The same for a request with this URI in From, which rules may ask for.
    pub(crate) fn identify_sender(&self, listener: u16, transport: Transport, source: SocketAddr, from: Option<&[u8]>) -> Option<u16> {
        let found = self.snapshot.peers.identify(listener, transport, source, from);
        if !self.snapshot.knows_gateways() || found.is_some_and(|(_, exact)| exact) {
            return found.map(|(peer, _)| peer);
        }
        let gateway = self.routing.sender(transport, source).and_then(|sender| self.snapshot.gateway_peer(sender.kind));
        gateway.or(found.map(|(peer, _)| peer))
    }

    /// The name of the gateway that a request came from, by its address; of several there the first.
    pub(crate) fn sender(&self, arrival: &Hop) -> Option<&str> {
        let (partition, index) = self.routing.sender(arrival.transport, arrival.address)?.gateway;
        self.routing.partitions.get(partition as usize)?.table.gateways.get(index as usize).map(routing::Gateway::id)
    }

    /// Whether `ip` is in a network of this peer, is named by its `to`, or is a gateway's that belongs to it.
    pub(crate) fn covers(&self, peer: u16, ip: IpAddr) -> bool {
        let of = |gateway: &Source| self.snapshot.gateway_peer(gateway.kind) == Some(peer);
        self.snapshot.peers.covers(peer, ip) || self.routing.sources.get(&ip.to_canonical()).is_some_and(|there| there.iter().any(of))
    }
}
