//! Pools of machines of one kind: a peer's `to` with a choice among them and with health, as gateways have it.

use std::collections::HashMap;
use std::sync::Arc;

use routing::{Machine, ProbeMode, Sort, Table};

use crate::carrier_settings::{Balance, CallerGroups, CarrierRouteSettings, MachineSettings, RouteTerms};
use crate::routing_table::Routing;
use crate::settings::PeerSettings;

/// One pool.
pub(crate) struct Pool {
    /// The peer's name.
    pub(crate) peer: String,
    pub(crate) routing: Arc<Routing>,
    pub(crate) terms: Arc<RouteTerms>,
}

impl Pool {
    /// The pool of a peer that has one; what `before` knows of its machines goes on.
    pub(crate) fn new(index: u16, peer: &PeerSettings, before: Option<&Self>) -> Option<Self> {
        let pool = peer.pool.as_ref().filter(|_| !peer.to.is_empty())?;
        // One that nothing is said of is like any other.
        let others = MachineSettings { weight: 1, ..MachineSettings::default() };
        let machines = peer.to.iter().zip(pool.machines.iter().chain(std::iter::repeat(&others))).map(|(uri, own)| Machine {
            uri: uri.clone(),
            weight: own.weight,
            max_calls: own.calls,
            probe: match own.probe_mode {
                0 => ProbeMode::Never,
                1 => ProbeMode::WhileDown,
                _ => ProbeMode::Always,
            },
            socket: own.socket.clone(),
            attrs: own.attrs.clone(),
            begins_down: own.begins_down,
        });
        let sort = match pool.balance {
            Balance::Order => Sort::Order,
            Balance::Weight => Sort::Weight,
            Balance::CallId | Balance::Account => Sort::Hash,
            Balance::FewestCalls => Sort::Calls,
        };
        let known = before.and_then(|before| before.routing.table(""));
        let table = Table::pool(machines.collect(), sort, pool.machine_calls_per_second, known.map(AsRef::as_ref));
        let settings = CarrierRouteSettings {
            name: peer.name.clone(),
            partition: String::new(),
            group: 0,
            fall_back: false,
            whole_number: false,
            by_weight: false,
            whitelist: Vec::new(),
            by_routing_number: false,
            caller_groups: CallerGroups::Off,
            check_only: false,
            first_answer_milliseconds: peer.first_answer_milliseconds,
            final_answer_milliseconds: peer.final_answer_milliseconds,
            retry_status_codes: peer.fail_over.clone(),
            retry_causes: Vec::new(),
            stop_causes: Vec::new(),
            retry_silence: true,
            retry_ringing: false,
            not_found: (404, String::new()),
            unavailable: (500, String::new()),
            hide_failures: false,
        };
        let terms = RouteTerms { pool: Some((index, pool.balance)), ..RouteTerms::new(&settings) };
        Some(Self {
            peer: peer.name.clone(),
            routing: Arc::new(Routing::new(vec![(String::new(), Arc::new(table))], &HashMap::new(), before.map(|before| &*before.routing))),
            terms: Arc::new(terms),
        })
    }
}
