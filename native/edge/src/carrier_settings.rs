//! What the configuration says of carrier routing and pools, as it crosses.

use serde::Deserialize;

/// What a call is sent by within a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// The first that is usable.
    Order,
    /// At random, by weight.
    Weight,
    /// Each Call-ID has its machine.
    CallId,
    /// Each URI of From has its machine.
    Account,
    /// The one with the fewest calls for its weight.
    FewestCalls,
}

/// What is one machine's own in a pool.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineSettings {
    /// Its share of the calls.
    pub weight: u16,
    /// Concurrent calls; 0 for any number.
    pub calls: u32,
    /// 0: it is never probed, 1: while it is down, 2: always.
    pub probe_mode: u8,
    /// The listener to send from: its name, or `transport:address:port`; empty for any.
    pub socket: String,
    /// Opaque.
    pub attrs: String,
    /// Whether a new one is down until a probe or an operator brings it up.
    pub begins_down: bool,
}

/// A pool of machines, `[peer.NAME.pool]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolSettings {
    /// How calls are shared.
    pub balance: Balance,
    /// The machines, in the order of `to`.
    pub machines: Vec<MachineSettings>,
    /// New calls of each machine in any second; 0 for any number.
    pub machine_calls_per_second: u16,
}

/// How quality is measured and what comes of it, `[routing.quality]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QualitySettings {
    /// Seconds that figures look back.
    pub span_seconds: u64,
    /// Samples below which ASR, CCR, PDD, AST and ACD say nothing.
    pub samples: [u32; 5],
    /// Whether the best comes first.
    pub best_first: bool,
    /// Whether critical gateways are left out.
    pub drop: bool,
    /// Of a thousand calls, those that go to one that is left out.
    pub probation_permille: u32,
    /// Pairs of rule and gateway that are kept.
    pub pairs: usize,
}

/// By what a caller's group is looked up (`dr_groups`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallerGroups {
    /// By nothing: the route says it.
    Off,
    /// The user of From.
    User,
    /// User and host of From.
    UserAndDomain,
}

/// How calls go by provisioned rules, `[route.NAME]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CarrierRouteSettings {
    /// Its name.
    pub name: String,
    /// The partition of rules.
    pub partition: String,
    /// The group of rules.
    pub group: u32,
    /// Further rules are tried once one has no gateway left.
    pub fall_back: bool,
    /// A prefix must be the whole number.
    pub whole_number: bool,
    /// Gateways are sorted by weight, whatever rules say.
    pub by_weight: bool,
    /// Gateways and `#carriers` that it is bound to; none means all.
    pub whitelist: Vec<String>,
    /// Whether rules are looked up by the routing number of a Request-URI that has one.
    pub by_routing_number: bool,
    /// Whether the group is that of the caller, where it has one.
    pub caller_groups: CallerGroups,
    /// A rule must be there, and nothing else comes of it.
    pub check_only: bool,
    /// Longest wait for any answer, per attempt.
    pub first_answer_milliseconds: u64,
    /// Longest wait for the final answer after a provisional one, per attempt.
    pub final_answer_milliseconds: u64,
    /// Status codes after which the next gateway is tried.
    pub retry_status_codes: Vec<u16>,
    /// Q.850 causes after which it is.
    pub retry_causes: Vec<u16>,
    /// Q.850 causes after which none is.
    pub stop_causes: Vec<u16>,
    /// Whether it is after silence.
    pub retry_silence: bool,
    /// Whether it is after one that rang too long.
    pub retry_ringing: bool,
    /// The answer where no rule fits: status code, and a reason phrase or nothing.
    pub not_found: (u16, String),
    /// The answer where no gateway is usable.
    pub unavailable: (u16, String),
    /// It is the answer too where all that were tried have failed, in place of the best of theirs.
    pub hide_failures: bool,
}

/// When gateways count as down, `[routing.health]` and `[routing.probe]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayHealthSettings {
    /// So many failed attempts take a gateway down...
    pub failures: u32,
    /// ...of the last so many.
    pub of: u32,
    /// Status codes that count as failed attempts.
    pub failure_codes: Vec<u16>,
    /// When one that is not probed is tried again.
    pub retry_seconds: u64,
    /// Between two probes of a gateway.
    pub probe_interval_seconds: u64,
    /// Longest wait for the answer to a probe.
    pub probe_timeout_milliseconds: u64,
    /// Method of probes.
    pub probe_method: String,
    /// URI of From in probes; empty for one of the proxy's own.
    pub probe_from: String,
    /// Status codes of 300 and more that prove a gateway well; none means all that a machine gives which is at work.
    pub probe_accept: Vec<u16>,
    /// Failed probes in a row that take a gateway down.
    pub down_after: u32,
    /// Good ones that bring it back.
    pub up_after: u32,
}

/// A route with everything looked up that can be.
#[derive(Clone, Debug)]
pub(crate) struct RouteTerms {
    pub(crate) settings: CarrierRouteSettings,
    pub(crate) retry: routing::RetryRules,
    /// In microseconds.
    pub(crate) first_answer: u64,
    pub(crate) final_answer: u64,
    /// The peer that it leads to where it is a pool: its machines take the Request-URI as it is.
    pub(crate) pool: Option<(u16, Balance)>,
}

impl RouteTerms {
    pub(crate) fn new(settings: &CarrierRouteSettings) -> Self {
        let retry = routing::RetryRules {
            codes: settings.retry_status_codes.clone(),
            causes: settings.retry_causes.clone(),
            stop_causes: settings.stop_causes.clone(),
            silence: settings.retry_silence,
            ringing: settings.retry_ringing,
        };
        let (first_answer, final_answer) = (settings.first_answer_milliseconds, settings.final_answer_milliseconds);
        Self { retry, first_answer: proto::milliseconds(first_answer), final_answer: proto::milliseconds(final_answer), pool: None, settings: settings.clone() }
    }
}
