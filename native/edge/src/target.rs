//! Phase *target*: where a request goes.

use proto::Now;
use smallvec::SmallVec;
use syntax::{Message, Method, Transport, Uri};

use crate::edge::Edge;
use crate::gruu::Wanted;
use crate::peer::literal;
use crate::plan::Plan;
use crate::question::Address;
use crate::reach::Reach;
use crate::route::RouteView;
use crate::settings::PeerKind;

/// A host that must be resolved first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostName {
    /// The name.
    pub host: String,
    /// The port, where the URI has one.
    pub port: Option<u16>,
    /// The transport, where the URI has one.
    pub transport: Option<Transport>,
}

/// One place where a request may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Address(Address),
    Name(Box<HostName>),
    /// A user of ours, or a device: wherever that is registered.
    Record(Box<Wanted>),
    /// One way to such a user.
    Contact(Box<Reach>),
    /// A phone within a dialog, whose user may have registered anew from elsewhere: whom to look for, and the way it was.
    Phone(Box<(Wanted, Reach)>),
}

impl Target {
    /// The next hop that `uri` names.
    pub(crate) fn of_uri(bytes: &[u8], uri: &Uri) -> Self {
        if let Some(address) = literal(bytes, uri) {
            return Self::Address(address);
        }
        let host = if uri.maddr.is_empty() { uri.host } else { uri.maddr };
        let transport = uri.transport.or((uri.scheme == syntax::Scheme::Sips).then_some(Transport::Tls));
        Self::Name(Box::new(HostName { host: String::from_utf8_lossy(host.of(bytes)).into_owned(), port: uri.port, transport }))
    }
}

/// The targets of a request and the peer whose `to` gave them, if one did.
pub(crate) struct TargetSet {
    /// Last one first, since they are taken from the end.
    pub(crate) targets: SmallVec<[Target; 1]>,
    pub(crate) policy: Option<u16>,
    /// The way over gateways that gives targets one by one.
    pub(crate) plan: Option<Box<Plan>>,
    /// From as the caller has it, where its numbers were changed.
    pub(crate) from: Option<Box<[u8]>>,
    /// Tells a loop by the request as it came, where its numbers were changed.
    pub(crate) loop_hash: Option<u64>,
}

impl TargetSet {
    pub(crate) fn one(target: Target) -> Self {
        Self { targets: SmallVec::from_buf([target]), policy: None, plan: None, from: None, loop_hash: None }
    }
}

/// Why there is no target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoTarget {
    /// A Route of its own from a peer that may not bring one.
    ForeignRoute,
    /// Nothing in the configuration says where this goes.
    NotFound,
    /// No rule of this route fits.
    NoRule(u16),
}

impl Edge {
    /// Where an in-dialog request goes: its next Route, else the remote target (RFC 3261 section 16.6).
    pub(crate) fn next_hop(message: &Message<'_>, route: &RouteView) -> Option<Target> {
        let uri = route.next.or(route.swapped).unwrap_or(message.head.request_uri);
        (!uri.host.is_empty()).then(|| Target::of_uri(message.bytes, &uri))
    }

    /// Where emergency calls go, if the file says.
    fn emergency_targets(&self, now: Now, message: &Message<'_>) -> Option<TargetSet> {
        let settings = &self.snapshot.settings;
        let emergency = &settings.emergency;
        if let Some(peer) = settings.peers.iter().position(|peer| peer.name == emergency.peer) {
            return Some(self.targets_of(now, message, peer as u16));
        }
        let terms = self.snapshot.routes.iter().find(|route| route.settings.name == emergency.route)?;
        let plan = self.plan(now, terms, message, None, b"").filter(|plan| plan.has_rule())?;
        Some(TargetSet { targets: SmallVec::new(), policy: None, plan: Some(plan), from: None, loop_hash: None })
    }

    /// The targets that `to` of a peer names, or the way over its machines where that is a pool.
    fn targets_of(&self, now: Now, message: &Message<'_>, peer: u16) -> TargetSet {
        let plan = self.pool_plan(now, peer, message);
        let targets = if plan.is_some() { SmallVec::new() } else { self.snapshot.peers.targets(peer).iter().rev().cloned().collect() };
        TargetSet { targets, policy: Some(peer), plan, from: None, loop_hash: None }
    }

    /// Where a new request of `peer` goes.
    pub(crate) fn find_targets(&self, now: Now, message: &Message<'_>, route: &RouteView, peer: u16) -> Result<TargetSet, NoTarget> {
        let settings = &self.snapshot.settings.peers[usize::from(peer)];
        if settings.kind != PeerKind::Subscribers
            && route.next.is_none()
            && let Some(target) = self.forwarded_target(message, route.pops)
        {
            return Ok(TargetSet::one(target));
        }
        if let Some(next) = route.next {
            if !settings.allow_routes {
                return Err(NoTarget::ForeignRoute);
            }
            return Ok(TargetSet::one(Target::of_uri(message.bytes, &next)));
        }
        if self.is_emergency(message)
            && let Some(found) = self.emergency_targets(now, message)
        {
            return Ok(found);
        }
        // Registrations and their like are for the core, not for a number.
        let by_number = matches!(message.head.method, Method::Invite | Method::Message);
        if let Some(place) = self.snapshot.peer_routes[usize::from(peer)].filter(|_| by_number) {
            let terms = &self.snapshot.routes[usize::from(place)];
            let plan = self.plan(now, terms, message, None, b"").filter(|plan| plan.has_rule()).ok_or(NoTarget::NoRule(place))?;
            if !terms.settings.check_only {
                return Ok(TargetSet { targets: SmallVec::new(), policy: None, plan: Some(plan), from: None, loop_hash: None });
            }
        }
        let policy = match settings.kind {
            PeerKind::Core => match self.registered_target(message) {
                Some(target) => return Ok(TargetSet::one(target)),
                None => None,
            },
            PeerKind::Gateway | PeerKind::Trusted | PeerKind::Subscribers if !settings.to.is_empty() => Some(peer),
            PeerKind::Gateway | PeerKind::Trusted | PeerKind::Subscribers => self.snapshot.peers.core(),
        };
        if let Some(policy) = policy {
            return Ok(self.targets_of(now, message, policy));
        }
        // Without a core, users reach each other here.
        if let Some(target) = self.registered_target(message) {
            return Ok(TargetSet::one(target));
        }
        if self.is_own_gruu(message.bytes, &message.head.request_uri) {
            return Err(NoTarget::NotFound);
        }
        // A subscriber may only reach the core: to any other host we would be an open relay.
        if settings.kind == PeerKind::Subscribers || route.request_uri_is_own {
            return Err(NoTarget::NotFound);
        }
        Self::next_hop(message, route).map(TargetSet::one).ok_or(NoTarget::NotFound)
    }
}
