//! What is provisioned for carrier routing, as all workers read it: tables of rules, where gateways are, and who sends from there.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use routing::Table;
use smallvec::SmallVec;
use syntax::{Span, Transport, Uri};

use crate::edge::Edge;
use crate::settings::ListenerSettings;
use crate::target::Target;

/// Rules with the gateways that they lead to.
pub(crate) struct Partition {
    pub(crate) name: String,
    pub(crate) table: Arc<Table>,
    /// Where each gateway is.
    pub(crate) hops: Vec<GatewayHop>,
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
}

/// The tables of all partitions.
#[derive(Default)]
pub struct Routing {
    pub(crate) partitions: Vec<Partition>,
    sources: HashMap<IpAddr, SmallVec<[Source; 1]>>,
}

impl Routing {
    /// Puts tables together by the names of their partitions; `resolved` tells addresses of gateways that have names.
    pub fn new(tables: Vec<(String, Arc<Table>)>, resolved: &[(String, IpAddr)]) -> Self {
        let mut routing = Self::default();
        for (name, table) in tables {
            let mut hops = Vec::with_capacity(table.gateways.len());
            for gateway in &table.gateways {
                let bytes = gateway.uri.as_bytes();
                // The table has only URIs that can be read.
                let Ok(uri) = Uri::parse(bytes, Span::new(0, bytes.len())) else { continue };
                let target = Target::of_uri(bytes, &uri);
                let (transport, port, addresses) = match &target {
                    Target::Address(address) => (address.transport, address.address.port(), vec![address.address.ip()]),
                    Target::Name(name) => {
                        let transport = name.transport.unwrap_or(Transport::Udp);
                        let there = resolved.iter().filter(|(host, _)| *host == name.host).map(|(_, ip)| *ip).collect();
                        (transport, name.port.unwrap_or(transport.default_port()), there)
                    }
                };
                for ip in addresses {
                    routing.sources.entry(ip.to_canonical()).or_default().push(Source { port, transport, kind: gateway.kind });
                }
                hops.push(GatewayHop { target, socket: gateway.socket.clone() });
            }
            routing.partitions.push(Partition { name, table, hops });
        }
        routing
    }

    /// The table of a partition.
    pub fn table(&self, partition: &str) -> Option<&Arc<Table>> {
        self.partitions.iter().find(|own| own.name == partition).map(|own| &own.table)
    }

    /// Names of the partitions.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.partitions.iter().map(|partition| partition.name.as_str())
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

    /// Hosts of gateways that are names, each once.
    pub fn hosts(&self) -> Vec<String> {
        let name = |hop: &GatewayHop| match &hop.target {
            Target::Name(name) => Some(name.host.clone()),
            Target::Address(_) => None,
        };
        let mut hosts: Vec<String> = self.partitions.iter().flat_map(|partition| partition.hops.iter().filter_map(name)).collect();
        hosts.sort();
        hosts.dedup();
        hosts
    }

    /// The type of the gateway that sends from `source`. Connections come from any port.
    fn kind_of(&self, transport: Transport, source: SocketAddr) -> Option<i32> {
        let there = self.sources.get(&source.ip().to_canonical())?;
        let same = |gateway: &&Source| gateway.transport == transport && (transport.is_reliable() || gateway.port == source.port());
        there.iter().find(same).map(|gateway| gateway.kind)
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
        let found = self.snapshot.peers.identify(listener, transport, source);
        if !self.snapshot.knows_gateways() || found.is_some_and(|(_, exact)| exact) {
            return found.map(|(peer, _)| peer);
        }
        let gateway = self.routing.kind_of(transport, source).and_then(|kind| self.snapshot.gateway_peer(kind));
        gateway.or(found.map(|(peer, _)| peer))
    }

    /// Whether `ip` is in a network of this peer, is named by its `to`, or is a gateway's that belongs to it.
    pub(crate) fn covers(&self, peer: u16, ip: IpAddr) -> bool {
        let of = |gateway: &Source| self.snapshot.gateway_peer(gateway.kind) == Some(peer);
        self.snapshot.peers.covers(peer, ip) || self.routing.sources.get(&ip.to_canonical()).is_some_and(|there| there.iter().any(of))
    }
}
