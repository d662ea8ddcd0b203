//! The routing part of the configuration as one immutable snapshot.
//!
//! Python checks the file and fills in every default; here unknown fields are refused and nothing is assumed.

use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;
use syntax::{Limits, Transport};

use crate::call_ping::CallPingSettings;
use crate::carrier_settings::{CarrierRouteSettings, GatewayHealthSettings, PoolSettings, QualitySettings, RouteTerms};
use crate::defence::Defence;
use crate::emergency::EmergencySettings;
use crate::flood::{FloodCounts, FloodSettings};
use crate::fraud::{FraudCounts, FraudSettings, FraudWatch};
use crate::limit_settings::{KeyLimitSettings, LimitTable, LimitView, SharedSettings};
use crate::media_settings::{Engage, MediaSettings};
use crate::nat::NatTests;
use crate::number_settings::{GatewayNumberSettings, NumberSetSettings, NumberUseSettings};
use crate::numbers::NumberPolicies;
use crate::session_timer::SessionTimerSettings;
use crate::subscriber_settings::{AuthenticationSettings, NatSettings, RegistrarSettings, Subscribers};
use crate::verdict::PolicyEvent;

/// Listeners since the start of the process, those that are gone among them.
const MOST_LISTENERS: usize = 500;
/// Names that listeners had and that are still known.
const MOST_FORMER: usize = 64;

/// Why a snapshot cannot be built: a fault of whoever sent it, since Python checks first.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// A value that does not mean anything.
    #[error("{path}: {problem}: {value}")]
    Value {
        /// Where it stands.
        path: String,
        /// What is wrong.
        problem: &'static str,
        /// The value.
        value: String,
    },
}

/// One listening socket.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerSettings {
    /// Its name in the file.
    pub name: String,
    /// `udp` or `tcp`.
    pub transport: String,
    /// The local address.
    pub address: SocketAddr,
    /// What Via and Record-Route say instead of the local address; a host without brackets.
    pub advertise_host: String,
    /// And its port.
    pub advertise_port: u16,
    /// The network that it faces; only a name.
    pub network: String,
    /// The local address of ports for media that faces this network.
    pub media_address: IpAddr,
    /// What descriptions say instead of it; absent where that is the same, or what the kernel's routes say.
    pub media_advertise: Option<IpAddr>,
    /// Workers that receive here; none means all.
    pub workers: Vec<u8>,
    /// A reload has taken it away: what is under way on it goes on for a while, nothing new begins.
    #[serde(skip)]
    pub drained: bool,
}

/// A transport, and whether addresses are IPv4.
pub type Way = (Transport, bool);

impl ListenerSettings {
    /// Its name as the file had it: one that drains gave that up.
    pub fn label(&self) -> &str {
        self.name.split('~').next().unwrap_or_default()
    }

    /// The transport.
    pub fn transport(&self) -> Transport {
        Transport::from_bytes(self.transport.as_bytes()).unwrap_or(Transport::Udp)
    }

    /// The transport and whether it is for IPv4 where it may be sent from: what tells which addresses it leads to.
    pub fn way(&self) -> Option<Way> {
        (!self.drained).then(|| (self.transport(), self.address.is_ipv4()))
    }
}

/// What kind of peer somebody is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerKind {
    /// The machines that we stand in front of.
    Core,
    /// A carrier's or company's gateway.
    Gateway,
    /// An element of the operator's own network.
    Trusted,
    /// Phones: their requests go to the core only.
    Subscribers,
}

/// One rule by which a peer is known.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatchSettings {
    /// Address of the network; absent where any address will do.
    pub network: Option<IpAddr>,
    /// Length of the network's prefix.
    pub prefix: u8,
    /// The source port, 0 for any.
    pub port: u16,
    /// The transport, empty for any.
    pub transport: String,
    /// The listener, empty for any.
    pub listener: String,
    /// What From's URI of a request must look like, a shell pattern; empty for anything.
    pub sender: String,
}

/// How several targets are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forking {
    /// One after the other, until one answers.
    Serial,
    /// All at once.
    Parallel,
}

/// What happens to a request of more than 1,300 bytes that would go over UDP (RFC 3261 section 18.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OversizeRequest {
    /// It goes over UDP in fragments.
    Fragment,
    /// It goes over TCP, and over UDP where that fails.
    Tcp,
}

/// One peer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerSettings {
    /// Its name in the file.
    pub name: String,
    /// What it is.
    pub kind: PeerKind,
    /// How it is known.
    pub matches: Vec<MatchSettings>,
    /// Core: where calls for the core go. Others: where calls of this peer go.
    pub to: Vec<String>,
    /// How `to` is tried.
    pub forking: Forking,
    /// Status codes that make the next target of `to` be tried.
    pub fail_over: Vec<u16>,
    /// Longest wait for any answer, per attempt, in milliseconds.
    pub first_answer_milliseconds: u64,
    /// Longest wait for the final answer after a provisional one, per attempt, in milliseconds.
    pub final_answer_milliseconds: u64,
    /// Over 1,300 bytes.
    pub oversize: OversizeRequest,
    /// Whether header fields of the trust domain are believed.
    pub trust_identity: bool,
    /// Whether its requests may bring Route header fields of their own.
    pub allow_routes: bool,
    /// Listener to send from, empty for the one that the kernel's routes suggest.
    pub listener: String,
    /// The route of carriers that its calls go by, empty for none.
    pub route: String,
    /// Gateways of these types that are provisioned belong to this peer; -1 for all.
    pub gateway_types: Vec<i32>,
    /// How calls are shared among `to`, where that is a pool of machines.
    pub pool: Option<PoolSettings>,
    /// What numbers become that it sends.
    pub numbers_in: Option<NumberUseSettings>,
    /// What numbers become that it gets.
    pub numbers_out: Option<NumberUseSettings>,
    /// Whether its requests must prove whose they are.
    pub authenticate: bool,
    /// Whether its calls have their media relayed, where that is not as for all.
    pub media: Option<Engage>,
    /// The fraud profile of its calls, 0 for none of its own.
    pub fraud_profile: u32,
}

/// Timers of RFC 3261.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimerSettings {
    /// T1.
    pub t1_milliseconds: u64,
    /// T2.
    pub t2_milliseconds: u64,
    /// T4.
    pub t4_milliseconds: u64,
    /// How long answered INVITE transactions linger.
    pub linger_milliseconds: u64,
    /// How long 100 Trying may wait for a real answer; 0 sends it at once.
    pub trying_after_milliseconds: u64,
    /// Longest time from INVITE to final answer over all attempts.
    pub setup_seconds: u64,
    /// Longest call.
    pub call_seconds: u64,
    /// How long a target that did not answer is passed over.
    pub dead_target_seconds: u64,
    /// Longest wait for a name to be resolved.
    pub resolve_milliseconds: u64,
    /// Timer C where no peer's `to` gives another.
    pub timer_c_seconds: u64,
}

/// Bounds.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSettings {
    /// Calls live at once, over all workers.
    pub calls: usize,
    /// Transactions at once, over all workers.
    pub transactions: usize,
    /// Targets whose silence or answers are remembered, per worker.
    pub targets: usize,
    /// Bytes of a message.
    pub message_bytes: usize,
    /// Header field lines.
    pub headers: usize,
    /// Bytes of a header field value.
    pub header_value_bytes: usize,
    /// Bytes of the Request-URI.
    pub uri_bytes: usize,
    /// Bytes of the body.
    pub body_bytes: usize,
    /// Branches of one request.
    pub branches: usize,
    /// Least and most seconds in Retry-After of a shed request.
    pub retry_after_seconds: (u32, u32),
    /// Log lines a second and worker about bad input.
    pub log_lines_per_second: u32,
    /// Records a second and worker of calls of strangers.
    pub stranger_records_per_second: u32,
    /// Requests a second and worker of strangers that are answered.
    pub stranger_answers_per_second: u32,
    /// Dialogs of one call.
    pub dialogs: usize,
    /// Via header field values of a message.
    pub vias: usize,
}

impl LimitSettings {
    /// The bounds of one message.
    pub fn message(&self) -> Limits {
        Limits {
            message_bytes: self.message_bytes,
            headers: self.headers,
            header_value_bytes: self.header_value_bytes,
            uri_bytes: self.uri_bytes,
            body_bytes: self.body_bytes,
            vias: self.vias,
            ..Limits::STANDARD
        }
    }
}

/// The routing part of the configuration, as it crosses.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteSettings {
    /// This node's name.
    pub node: String,
    /// Further names and addresses, with port, that mean this proxy.
    pub aliases: Vec<String>,
    /// Server and User-Agent header field of what we make ourselves; empty for none.
    pub server_header: String,
    /// The listeners.
    pub listeners: Vec<ListenerSettings>,
    /// The peers.
    pub peers: Vec<PeerSettings>,
    /// Rules for numbers.
    pub number_sets: Vec<NumberSetSettings>,
    /// What gateways have of them beyond their peers.
    pub gateway_numbers: Vec<GatewayNumberSettings>,
    /// Emergency calls.
    pub emergency: EmergencySettings,
    /// When a source floods; nobody does where it is absent.
    #[serde(deserialize_with = "stated")]
    pub flood: Option<FloodSettings>,
    /// How calls are watched for fraud; none is where it is absent.
    #[serde(deserialize_with = "stated")]
    pub fraud: Option<FraudSettings>,
    /// How often sessions must be refreshed; none has to be where it is absent.
    #[serde(deserialize_with = "stated")]
    pub session_timer: Option<SessionTimerSettings>,
    /// How the sides of calls are pinged; none is where it is absent.
    #[serde(deserialize_with = "stated")]
    pub call_ping: Option<CallPingSettings>,
    /// How requests wait for the places of limits that nodes share; none does where it is absent.
    #[serde(deserialize_with = "stated")]
    pub shared: Option<SharedSettings>,
    /// Limits by key.
    pub key_limits: Vec<KeyLimitSettings>,
    /// Timers.
    pub timers: TimerSettings,
    /// Bounds.
    pub limits: LimitSettings,
    /// Whether user parts, addresses and Call-IDs in logs are masked.
    pub mask_identities: bool,
    /// What policies want to decide or to be told.
    pub policies: Vec<PolicySettings>,
    /// What takes longer is told as an event; 0 tells nothing.
    pub slow_milliseconds: u64,
    /// What is kept and sent on of the messages themselves.
    pub trace: TraceSettings,
    /// Routes of carriers.
    pub routes: Vec<CarrierRouteSettings>,
    /// When gateways count as down.
    pub health: GatewayHealthSettings,
    /// How quality is measured.
    pub quality: QualitySettings,
    /// How users are reached who registered here; nobody registers here where it is absent.
    #[serde(deserialize_with = "stated")]
    pub registrar: Option<RegistrarSettings>,
    /// What is done for phones behind a NAT.
    pub nat: NatSettings,
    /// How subscribers are known.
    pub authentication: AuthenticationSettings,
    /// How media is relayed; none is where it is absent.
    #[serde(deserialize_with = "stated")]
    pub media: Option<MediaSettings>,
    /// Hosts and ports that listeners advertised before a reload: dialogs still name them.
    #[serde(skip)]
    pub former: Vec<(String, u16)>,
}

/// What may be absent must be said to be.
fn stated<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(from)
}

/// Messages kept to be looked at.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceSettings {
    /// Bytes of memory for the latest messages, per worker; 0 keeps none.
    pub memory_bytes: usize,
    /// A collector that takes HEP version 3 over UDP.
    pub collector: Option<SocketAddr>,
    /// What the collector knows this node by.
    pub capture_id: u32,
}

/// One hook of one policy module.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicySettings {
    /// `request`, `route`, `branch`, `response`, `in_dialog`, `failure` or `final`.
    pub hook: String,
    /// Methods that it is for; none means all that open something. For `route` the name by which rules know it.
    pub methods: Vec<String>,
    /// Peers that it is for, by name; none means all.
    pub peers: Vec<String>,
    /// Longest wait for its verdict.
    pub deadline_milliseconds: u64,
    /// What the sender gets where it gives none.
    pub status_code: u16,
}

/// A hook, looked up once.
#[derive(Clone, Debug)]
pub(crate) struct PolicyRule {
    event: PolicyEvent,
    methods: Vec<Box<[u8]>>,
    peers: Vec<u16>,
    pub(crate) terms: PolicyTerms,
}

/// How long a policy may take, and what its silence means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PolicyTerms {
    /// In microseconds.
    pub(crate) deadline: u64,
    pub(crate) status_code: u16,
}

impl PolicyRule {
    fn new(settings: &PolicySettings, peers: &[PeerSettings]) -> Result<Self, SettingsError> {
        let fault = |problem, value: &str| SettingsError::Value { path: "policy".to_owned(), problem, value: value.to_owned() };
        let event = match settings.hook.as_str() {
            "request" => PolicyEvent::Request,
            "final" => PolicyEvent::Final,
            "in_dialog" => PolicyEvent::InDialog,
            "failure" => PolicyEvent::Failure,
            "branch" => PolicyEvent::Branch,
            "route" => PolicyEvent::Rule,
            "response" => PolicyEvent::Response,
            other => return Err(fault("no such hook", other)),
        };
        let peer = |name: &String| peers.iter().position(|peer| peer.name == *name).map(|index| index as u16).ok_or_else(|| fault("no such peer", name));
        Ok(Self {
            event,
            methods: settings.methods.iter().map(|method| method.as_bytes().into()).collect(),
            peers: settings.peers.iter().map(peer).collect::<Result<_, _>>()?,
            terms: PolicyTerms { deadline: proto::milliseconds(settings.deadline_milliseconds), status_code: settings.status_code },
        })
    }

    pub(crate) fn fits(&self, event: PolicyEvent, method: &[u8], peer: u16) -> bool {
        self.event == event
            && (self.methods.is_empty() || self.methods.iter().any(|own| **own == *method))
            && (self.peers.is_empty() || self.peers.contains(&peer))
    }
}

/// The settings with everything looked up that can be looked up once.
pub struct Snapshot {
    /// The settings.
    pub settings: RouteSettings,
    pub(crate) peers: crate::peer::PeerTable,
    pub(crate) own: crate::route::OwnNames,
    pub(crate) timers: proto::SipTimers,
    pub(crate) message_limits: Limits,
    pub(crate) listener_ids: Vec<u16>,
    pub(crate) peer_ids: Vec<u32>,
    /// The listener that a peer wishes to be reached from.
    pub(crate) peer_listeners: Vec<Option<u16>>,
    /// Whether any peer wishes so: where none does, nobody needs to ask who is there.
    pub(crate) has_peer_listeners: bool,
    /// What Via says behind the transport and a space: host and port.
    sent_by: Vec<Vec<u8>>,
    pub(crate) policies: Vec<PolicyRule>,
    /// Events that some policy has a hook for, a bit each.
    asked: u16,
    pub(crate) routes: Vec<std::sync::Arc<RouteTerms>>,
    /// The machines of each peer that is a pool.
    pub(crate) pools: Vec<Option<crate::pool::Pool>>,
    /// The route of each peer's calls.
    pub(crate) peer_routes: Vec<Option<u16>>,
    /// The peer that gateways of a type belong to; -1 for all others.
    gateway_peers: Vec<(i32, u16)>,
    pub(crate) health: routing::HealthRules,
    pub(crate) quality: routing::QualityRules,
    pub(crate) numbers: NumberPolicies,
    pub(crate) nat_tests: NatTests,
    /// Whether Contacts of phones behind a NAT are marked, and there are phones.
    pub(crate) marks_contacts: bool,
    /// What is set of subscribers, where any register here.
    pub(crate) subscribers: Option<Subscribers>,
    /// What is counted of attacks, over all workers and reloads.
    pub(crate) defence: Defence,
    /// What is counted of floods.
    pub(crate) flood: Option<std::sync::Arc<FloodCounts>>,
    /// How calls are watched for fraud.
    pub(crate) fraud: Option<FraudWatch>,
    /// What was counted for that last: a bar must not end because somebody left the table out for a moment.
    fraud_counts: Option<std::sync::Arc<FraudCounts>>,
    /// Limits by key.
    pub(crate) limits: LimitTable,
}

impl Snapshot {
    /// Builds the snapshot that follows `before`: what both have keeps its number, so that requests under way may go on
    /// naming peers by number; a peer that is gone keeps its place, with no rule and no target. A listener is known by its
    /// transport and address; those whose sockets are `closed` cannot come back to their places.
    ///
    /// # Errors
    /// As [`Snapshot::build`]; and where the node is another one.
    pub fn build_after(before: &Self, mut settings: RouteSettings, closed: &[u16]) -> Result<Self, SettingsError> {
        if before.settings.node != settings.node {
            return Err(SettingsError::Value { path: "install.node".to_owned(), problem: "changes with a restart only", value: settings.node });
        }
        settings.former = former_names(&before.settings, &settings);
        settings.listeners = listeners_after(&before.settings.listeners, settings.listeners, closed);
        if settings.listeners.len() > MOST_LISTENERS {
            let count = settings.listeners.len().to_string();
            return Err(SettingsError::Value { path: "install.listener".to_owned(), problem: "too many listeners since the start", value: count });
        }
        let core = first_core(&settings);
        let mut peers = Vec::new();
        for old in &before.settings.peers {
            peers.push(match settings.peers.iter().position(|new| new.name == old.name) {
                Some(index) => settings.peers.remove(index),
                None => PeerSettings { matches: Vec::new(), to: Vec::new(), pool: None, route: String::new(), gateway_types: Vec::new(), ..old.clone() },
            });
        }
        peers.append(&mut settings.peers);
        if peers.len() > usize::from(u16::MAX) {
            return Err(SettingsError::Value { path: "peer".to_owned(), problem: "too many names since the start", value: peers.len().to_string() });
        }
        settings.peers = peers;
        Self::build_with_core(settings, core.as_deref(), Some(before))
    }

    /// Builds the snapshot.
    ///
    /// # Errors
    /// [`SettingsError`] for the first value that means nothing.
    pub fn build(settings: RouteSettings) -> Result<Self, SettingsError> {
        let core = first_core(&settings);
        Self::build_with_core(settings, core.as_deref(), None)
    }

    fn build_with_core(mut settings: RouteSettings, core: Option<&str>, before: Option<&Self>) -> Result<Self, SettingsError> {
        let t = &settings.timers;
        let timers = proto::SipTimers {
            t1: proto::milliseconds(t.t1_milliseconds),
            t2: proto::milliseconds(t.t2_milliseconds),
            t4: proto::milliseconds(t.t4_milliseconds),
            linger: proto::milliseconds(t.linger_milliseconds),
            c: proto::seconds(t.timer_c_seconds),
        };
        let own = crate::route::OwnNames::new(&settings)?;
        let peers = crate::peer::PeerTable::new(&settings, &own, core)?;
        let live = settings.listeners.iter().filter(|listener| !listener.drained).map(|listener| &listener.name);
        let mut ids = stable_ids("install.listener", 0xffff, live)?.into_iter();
        // 0 is nobody: no token names a listener that is gone.
        let listener_ids = settings.listeners.iter().map(|listener| if listener.drained { 0 } else { ids.next().unwrap_or(0) as u16 }).collect();
        let peer_ids = stable_ids("peer", u32::MAX, settings.peers.iter().map(|p| &p.name))?;
        let by_name = |name: &String| settings.listeners.iter().position(|l| l.name == *name).map(|index| index as u16);
        let peer_listeners: Vec<Option<u16>> = settings.peers.iter().map(|p| by_name(&p.listener)).collect();
        let sent_by = settings.listeners.iter().map(crate::route::host_port).collect();
        let policies = settings.policies.iter().map(|policy| PolicyRule::new(policy, &settings.peers)).collect::<Result<Vec<_>, _>>()?;
        let asked = policies.iter().fold(0, |asked, rule| asked | 1 << rule.event as u16);
        let routes: Vec<_> = settings.routes.iter().map(|route| std::sync::Arc::new(RouteTerms::new(route))).collect();
        let mut peer_routes = Vec::new();
        let mut gateway_peers = Vec::new();
        for (index, peer) in settings.peers.iter().enumerate() {
            let fault = |key, problem, value: String| SettingsError::Value { path: format!("peer.{}.{key}", peer.name), problem, value };
            let place = settings.routes.iter().position(|route| route.name == peer.route).map(|place| place as u16);
            if place.is_none() && !peer.route.is_empty() {
                return Err(fault("route", "no such route", peer.route.clone()));
            }
            peer_routes.push(place);
            for kind in &peer.gateway_types {
                if gateway_peers.iter().any(|(other, _)| other == kind) {
                    return Err(fault("gateway_types", "a type of another peer", kind.to_string()));
                }
                gateway_peers.push((*kind, index as u16));
            }
        }
        let quality = routing::QualityRules {
            span_seconds: settings.quality.span_seconds,
            samples: settings.quality.samples,
            best_first: settings.quality.best_first,
            drop: settings.quality.drop,
            probation_permille: settings.quality.probation_permille,
        };
        let health = routing::HealthRules {
            failures: settings.health.failures,
            of: settings.health.of,
            down_after: settings.health.down_after,
            up_after: settings.health.up_after,
            retry_seconds: settings.health.retry_seconds,
        };
        let known = |name: &str| before.and_then(|before| before.pools.iter().flatten().find(|pool| pool.peer == name));
        let pools = settings.peers.iter().enumerate().map(|(index, peer)| crate::pool::Pool::new(index as u16, peer, known(&peer.name))).collect();
        let numbers = NumberPolicies::new(&settings)?;
        let nat_tests =
            NatTests::new(&settings.nat.tests).map_err(|value| SettingsError::Value { path: "nat.tests".to_owned(), problem: "no such test", value })?;
        let subscribers = Subscribers::new(&mut settings)?;
        let attacks = &settings.authentication.attacks;
        let defence = before.map_or_else(|| Defence::new(attacks), |before| before.defence.resized(attacks));
        let named = |name: &String, there: bool| if there || name.is_empty() { Ok(()) } else { Err(name.clone()) };
        let emergency = &settings.emergency;
        named(&emergency.peer, settings.peers.iter().any(|peer| peer.name == emergency.peer))
            .and_then(|()| named(&emergency.route, settings.routes.iter().any(|route| route.name == emergency.route)))
            .map_err(|value| SettingsError::Value { path: "emergency".to_owned(), problem: "no such peer or route", value })?;
        let limits = LimitTable::new(&settings, before.map(|before| &before.limits))?;
        let flood = FloodCounts::after(before.and_then(|before| before.flood.as_ref()), settings.flood.as_ref());
        let fraud_counts = before.and_then(|before| before.fraud_counts.clone());
        let fraud = FraudWatch::after(fraud_counts.clone(), settings.fraud.as_ref());
        Ok(Self {
            fraud_counts: fraud.as_ref().map(|watch| std::sync::Arc::clone(&watch.counts)).or(fraud_counts),
            fraud,
            flood,
            limits,
            nat_tests,
            marks_contacts: settings.nat.repair_contact && settings.peers.iter().any(|peer| peer.kind == PeerKind::Subscribers),
            subscribers,
            defence,
            numbers,
            pools,
            routes,
            peer_routes,
            gateway_peers,
            health,
            quality,
            asked,
            policies,
            message_limits: settings.limits.message(),
            peers,
            own,
            timers,
            listener_ids,
            has_peer_listeners: peer_listeners.iter().any(Option::is_some),
            peer_ids,
            peer_listeners,
            sent_by,
            settings,
        })
    }

    /// The rule for a number that a peer sends in a Request-URI, with what that makes of it; `None` where it stays as it is.
    ///
    /// # Errors
    /// The answer where no rule is for it and that is to be refused.
    pub fn translate(&self, table: Option<&routing::Table>, peer: &str, number: &str, wall_seconds: i64) -> Result<Option<(String, String)>, (u16, String)> {
        let Some(peer) = self.settings.peers.iter().position(|own| own.name == peer).map(|place| place as u16) else { return Ok(None) };
        crate::numbers::translate(&self.numbers, peer, table, number, wall_seconds)
    }

    /// Sources that are not listened to, the latest first.
    pub fn bans(&self) -> Vec<guard::Ban> {
        self.defence.bans.list()
    }

    /// The keys of a limit, or of all, the fullest first, at `now` microseconds of the monotonic clock.
    pub fn limit_views(&self, name: Option<&str>, now: u64) -> Vec<LimitView> {
        self.limits.views(name, now)
    }

    /// Sets how many a key of a limit may have, or all keys where it is empty; takes that back where nothing is said. Returns the key
    /// as requests have it; nothing where there is no such limit.
    pub fn set_limit(&self, name: &str, key: &str, most: Option<u32>) -> Option<Box<str>> {
        self.limits.set(name, key, most)
    }

    /// Every limit: its name, its keys, and how many requests were refused by it and passed because it has no room.
    pub fn limit_counts(&self) -> Vec<(&str, u64, u64, u64)> {
        let count = |value: &std::sync::atomic::AtomicU64| value.load(std::sync::atomic::Ordering::Relaxed);
        self.limits
            .all
            .iter()
            .map(|limit| (limit.settings.name.as_str(), limit.state.table.len() as u64, count(&limit.state.refused), count(&limit.state.untracked)))
            .collect()
    }

    /// Ways that some listener sends by.
    pub fn ways(&self) -> Vec<Way> {
        self.settings.listeners.iter().filter_map(ListenerSettings::way).collect()
    }

    /// When gateways count as down.
    pub fn health(&self) -> routing::HealthRules {
        self.health
    }

    /// How quality is measured.
    pub fn quality(&self) -> routing::QualityRules {
        self.quality
    }

    /// Switches machines of pools off, each by its peer and its URI; those that are not there are left out.
    pub fn switch_off(&self, machines: &[(String, String)]) {
        for (peer, routing) in self.pools() {
            let Some(table) = routing.table("") else { continue };
            for (_, uri) in machines.iter().filter(|(name, _)| name == peer) {
                if let Some(machine) = table.gateway(uri).and_then(|index| table.gateways.get(index as usize)) {
                    machine.state.switch(false);
                }
            }
        }
    }

    /// Every pool: its peer, and its machines.
    pub fn pools(&self) -> impl Iterator<Item = (&str, &std::sync::Arc<crate::routing_table::Routing>)> {
        self.pools.iter().flatten().map(|pool| (pool.peer.as_str(), &pool.routing))
    }

    /// The peer that gateways of type `kind` belong to.
    pub(crate) fn gateway_peer(&self, kind: i32) -> Option<u16> {
        let of = |wanted: i32| self.gateway_peers.iter().find(|(own, _)| *own == wanted).map(|(_, peer)| *peer);
        of(kind).or_else(|| of(-1))
    }

    /// Whether gateways belong to any peer.
    pub(crate) fn knows_gateways(&self) -> bool {
        !self.gateway_peers.is_empty()
    }

    /// Whether some policy has a hook for `event`.
    pub(crate) fn asks(&self, event: PolicyEvent) -> bool {
        self.asked & 1 << event as u16 != 0
    }

    pub(crate) fn listener(&self, index: u16) -> &ListenerSettings {
        &self.settings.listeners[usize::from(index).min(self.settings.listeners.len() - 1)]
    }

    /// What Via and Record-Route say of a listener; the last one's where a reload has brought one that we do not know yet.
    pub(crate) fn sent_by(&self, index: u16) -> &[u8] {
        self.sent_by.get(usize::from(index)).or(self.sent_by.last()).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn listener_id(&self, index: u16) -> u16 {
        self.listener_ids.get(usize::from(index)).copied().unwrap_or_default()
    }

    pub(crate) fn peer_by_id(&self, id: u32) -> Option<u16> {
        self.peer_ids.iter().position(|have| *have == id).map(|index| index as u16)
    }

    pub(crate) fn listener_by_id(&self, id: u16) -> Option<u16> {
        self.listener_ids.iter().position(|have| *have == id && id != 0).map(|index| index as u16)
    }
}

/// What listeners advertised before, the latest last; so many at most.
fn former_names(before: &RouteSettings, next: &RouteSettings) -> Vec<(String, u16)> {
    let now = |name: &(String, u16)| next.listeners.iter().any(|l| (&l.advertise_host, l.advertise_port) == (&name.0, name.1));
    let advertised = before.listeners.iter().map(|l| (l.advertise_host.clone(), l.advertise_port));
    let mut names: Vec<(String, u16)> = Vec::new();
    for name in before.former.iter().cloned().chain(advertised).filter(|name| !now(name)) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.drain(..names.len().saturating_sub(MOST_FORMER));
    names
}

/// The listeners of `next` at the places that they had, new ones behind, and those that are gone in between as drained.
fn listeners_after(before: &[ListenerSettings], mut next: Vec<ListenerSettings>, closed: &[u16]) -> Vec<ListenerSettings> {
    let mut all = Vec::new();
    for (index, old) in before.iter().enumerate() {
        let same = |new: &ListenerSettings| new.transport == old.transport && new.address == old.address && !closed.contains(&(index as u16));
        all.push(match next.iter().position(same) {
            Some(place) => next.remove(place),
            // The number keeps its name from being that of another one.
            None if old.drained => old.clone(),
            None => ListenerSettings { name: format!("{}~{index}", old.name), drained: true, ..old.clone() },
        });
    }
    all.append(&mut next);
    all
}

/// The core that calls go to where nothing else is said: the first of the file that has targets.
fn first_core(settings: &RouteSettings) -> Option<String> {
    settings.peers.iter().find(|peer| peer.kind == PeerKind::Core && !peer.to.is_empty()).map(|peer| peer.name.clone())
}

/// The numbers by which tokens name things. Two names of one number would be one and the same after a restart, 0 means nobody.
fn stable_ids<'a>(table: &str, width: u32, names: impl Iterator<Item = &'a String>) -> Result<Vec<u32>, SettingsError> {
    let mut ids: Vec<u32> = Vec::new();
    for name in names {
        let id = proto::stable_id(name) & width;
        if id == 0 || ids.contains(&id) {
            return Err(SettingsError::Value { path: format!("{table}.{name}"), problem: "a name whose hash is taken, choose another", value: name.clone() });
        }
        ids.push(id);
    }
    Ok(ids)
}
