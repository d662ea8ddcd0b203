//! Rules and gateways on their way from a database into the engine.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard};

use edge::{Address, Capacity, Full, HealthRules, HostName, Routing, Snapshot};
use pyo3::exceptions::{PyKeyError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use routing::{Alphabet, Builder, Down, Gateway, GatewayState, LoadOptions, Present, QualityRules, SearchOptions, Whitelist, explain};
use serde_json::{Value, json};
use syntax::Transport;

/// A load under way: rows of each partition, given in blocks.
#[pyclass(frozen)]
pub(crate) struct RouteLoad {
    builders: Mutex<Vec<(String, Builder)>>,
    before: Option<Arc<Routing>>,
}

impl RouteLoad {
    fn builders(&self) -> PyResult<MutexGuard<'_, Vec<(String, Builder)>>> {
        self.builders.lock().map_err(|_| PyRuntimeError::new_err("the load panicked before"))
    }

    fn with<R>(&self, partition: &str, work: impl FnOnce(&mut Builder) -> R) -> PyResult<R> {
        let mut builders = self.builders()?;
        let found = builders.iter_mut().find(|(name, _)| name == partition);
        found.map(|(_, builder)| work(builder)).ok_or_else(|| PyKeyError::new_err(partition.to_owned()))
    }
}

/// A table's name, the row, the column, what is wrong.
type FaultParts = (&'static str, String, &'static str, String);
/// A name of gateways: host, port or 0, transport or nothing.
type Name = (String, u16, String);
/// Where gateways are that have names: the name, then address, port and transport.
type Resolved = Vec<(Name, Vec<(String, u16, String)>)>;

fn host_name((host, port, transport): Name) -> HostName {
    HostName { host, port: Some(port).filter(|port| *port != 0), transport: Transport::from_bytes(transport.as_bytes()) }
}

fn name_parts(name: &HostName) -> Name {
    (name.host.clone(), name.port.unwrap_or(0), name.transport.map_or("", Transport::as_str).to_owned())
}

fn addresses(resolved: Resolved) -> HashMap<HostName, Vec<Address>> {
    let address = |(ip, port, transport): (String, u16, String)| {
        Some(Address { transport: Transport::from_bytes(transport.as_bytes())?, address: SocketAddr::new(ip.parse().ok()?, port) })
    };
    resolved.into_iter().map(|(name, there)| (host_name(name), there.into_iter().filter_map(address).collect())).collect()
}

/// Looks names of gateways up (RFC 3263): where each is now, nothing for one that has no address.
#[pyfunction]
pub(crate) fn look_up(py: Python<'_>, settings: &[u8], names: Vec<Name>) -> PyResult<Resolved> {
    let settings = net::DnsSettings::read(settings).map_err(|error| PyValueError::new_err(error.to_string()))?;
    let found = py.detach(|| net::look_up(&settings, names.into_iter().map(host_name).collect()));
    let found = found.map_err(|error| PyOSError::new_err(error.to_string()))?;
    let place = |place: &Address| (place.address.ip().to_string(), place.address.port(), place.transport.as_str().to_owned());
    Ok(found.iter().map(|(name, there)| (name_parts(name), there.iter().map(place).collect())).collect())
}

#[pymethods]
impl RouteLoad {
    #[new]
    #[pyo3(signature = (partitions, extra_prefix_characters="", handlers=Vec::new(), before=None))]
    fn new(partitions: Vec<String>, extra_prefix_characters: &str, handlers: Vec<String>, before: Option<&RouteTables>) -> PyResult<Self> {
        let alphabet = Alphabet::new(extra_prefix_characters)
            .ok_or_else(|| PyValueError::new_err(format!("expected five printable characters at most, got: {extra_prefix_characters}")))?;
        let options = LoadOptions { alphabet, handlers };
        let builder = |name: String| {
            let known = before.and_then(|tables| tables.0.table(&name)).map(Arc::clone);
            (name, Builder::new(options.clone(), known))
        };
        let builders = Mutex::new(partitions.into_iter().map(builder).collect());
        Ok(Self { builders, before: before.map(|tables| Arc::clone(&tables.0)) })
    }

    /// Takes rows of one table.
    fn add(&self, py: Python<'_>, partition: &str, table: &str, block: &[u8]) -> PyResult<()> {
        let take = match table {
            "gateways" => Builder::gateways,
            "carriers" => Builder::carriers,
            "profiles" => Builder::profiles,
            "groups" => Builder::groups,
            "dialplan" => Builder::dialplan,
            "rules" => Builder::rules,
            other => return Err(PyValueError::new_err(format!("no such table: {other}"))),
        };
        py.detach(|| self.with(partition, |builder| take(builder, block)))
    }

    /// Takes rules as columns; false, with nothing taken, where these do not fit each other.
    fn add_columns(&self, py: Python<'_>, partition: &str, columns: [PyBackedBytes; 10]) -> PyResult<bool> {
        py.detach(|| self.with(partition, |builder| builder.rules_of_columns(columns.each_ref().map(AsRef::as_ref))))
    }

    /// The time recurrences that rules name.
    fn recurrences(&self, partition: &str) -> PyResult<Vec<String>> {
        self.with(partition, |builder| builder.recurrence_texts().to_vec())
    }

    /// What the next of them means, or what is wrong with it.
    #[pyo3(signature = (partition, spans, problem=None))]
    fn mean(&self, partition: &str, spans: Vec<(i64, i64)>, problem: Option<String>) -> PyResult<()> {
        self.with(partition, |builder| builder.mean(problem.map_or(Ok(spans), Err)))
    }

    /// Sorts everything into tables; returns them with the faults that were found, a thousand at most, and their number.
    fn finish(&self, py: Python<'_>) -> PyResult<(RouteTables, Vec<FaultParts>, usize)> {
        let builders = std::mem::take(&mut *self.builders()?);
        Ok(py.detach(|| {
            let (mut tables, mut faults, mut count) = (Vec::new(), Vec::new(), 0);
            for (name, builder) in builders {
                let loaded = builder.finish();
                faults.extend(loaded.faults.into_iter().map(|fault| (fault.table, fault.row, fault.column, fault.problem)));
                count += loaded.fault_count;
                tables.push((name, Arc::new(loaded.table)));
            }
            (RouteTables(Arc::new(Routing::new(tables, &HashMap::new(), self.before.as_deref()))), faults, count)
        }))
    }
}

/// Tables that are ready for the engine.
#[pyclass(frozen)]
pub(crate) struct RouteTables(pub(crate) Arc<Routing>);

impl RouteTables {
    #[expect(clippy::too_many_arguments, reason = "what Python hands over")]
    pub(crate) fn explain(
        &self,
        partition: &str,
        group: u32,
        number: &str,
        flags: (bool, bool, bool),
        whitelist: &[String],
        at: i64,
        now: u64,
        snapshot: &Snapshot,
    ) -> PyResult<String> {
        let table = self.0.table(partition).ok_or_else(|| PyKeyError::new_err(partition.to_owned()))?;
        let lost_plus = edge::loses_plus(table, number.as_bytes());
        let number = String::from_utf8_lossy(&edge::normal_number(table, number.as_bytes())).into_owned();
        let options = SearchOptions {
            fall_back: flags.0,
            whole_number: flags.1,
            by_weight: flags.2,
            whitelist: (!whitelist.is_empty()).then(|| Whitelist::new(table, whitelist)),
            key: 0,
        };
        let full = |pick| self.0.is_full(partition, pick).then_some(Full::Calls.reason());
        let open = snapshot.ways();
        let out_of_reach = |gateway| self.0.out_of_reach(partition, gateway as usize, &open);
        let (health, quality) = (&snapshot.health(), &snapshot.quality());
        let present = Present { now, health, quality, full: &full, out_of_reach: &out_of_reach };
        let mut told = explain(table, group, &number, &options, at, &present);
        let plans = self.0.table("").map(AsRef::as_ref);
        for step in told.rules.iter_mut().flat_map(|rule| &mut rule.destinations) {
            if let Some(gateway) = table.gateway(&step.gateway).and_then(|index| table.gateways.get(index as usize)) {
                step.request_uri = snapshot.renumbered(plans, gateway, &step.request_uri, lost_plus, at);
            }
        }
        serde_json::to_string(&told).map_err(|error| PyRuntimeError::new_err(error.to_string()))
    }

    pub(crate) fn gateways(&self, now: u64, snapshot: &Snapshot) -> Vec<String> {
        let (health, open) = (snapshot.health(), snapshot.ways());
        let mut found = Vec::new();
        for partition in self.0.names() {
            let Some(table) = self.0.table(partition) else { continue };
            for (index, gateway) in table.gateways.iter().enumerate() {
                let mut value = told(&gateway.state, self.0.gateway_capacity(partition, index));
                value["partition"] = json!(partition);
                value["kind"] = json!("gateway");
                value["type"] = json!(gateway.kind);
                tell_use(&mut value, gateway, now, &health, self.0.out_of_reach(partition, index, &open));
                found.push(value.to_string());
            }
            let usable = |index: u32| {
                let gateway = table.gateways.get(index as usize);
                gateway.is_some_and(|gateway| gateway.state.is_usable(now, gateway.is_probed(), &health))
                    && self.0.out_of_reach(partition, index as usize, &open).is_none()
            };
            for (index, carrier) in table.carriers.iter().enumerate() {
                let mut value = told(&carrier.state, self.0.carrier_capacity(partition, index));
                value["partition"] = json!(partition);
                value["kind"] = json!("carrier");
                value["usable"] = json!(!carrier.state.is_off() && carrier.gateways.iter().any(|(gateway, _)| usable(*gateway)));
                found.push(value.to_string());
            }
        }
        found
    }

    /// The quality of every pair of rule and gateway that has had calls, each as JSON.
    pub(crate) fn quality(&self, now: u64, rules: &QualityRules) -> Vec<String> {
        let mut found = Vec::new();
        for partition in self.0.names() {
            let Some(table) = self.0.table(partition) else { continue };
            for ((rule, gateway), pair) in table.quality.all() {
                let (figures, grade) = (pair.figures(now, rules), pair.grade());
                let value =
                    json!({"partition": partition, "rule": rule, "gateway": gateway, "grade": grade, "switched_off": pair.is_off(), "figures": figures});
                found.push(value.to_string());
            }
        }
        found
    }

    fn state(&self, partition: &str, kind: &str, id: &str) -> Option<Arc<GatewayState>> {
        let table = self.0.table(partition)?;
        match kind {
            "carrier" => table.carriers.get(table.carrier(id)? as usize).map(|carrier| Arc::clone(&carrier.state)),
            _ => table.gateways.get(table.gateway(id)? as usize).map(|gateway| Arc::clone(&gateway.state)),
        }
    }
}

/// What is known of the machines of pools, each as JSON.
pub(crate) fn machines(snapshot: &Snapshot, now: u64) -> Vec<String> {
    let (health, open) = (snapshot.health(), snapshot.ways());
    let mut found = Vec::new();
    for (peer, routing) in snapshot.pools() {
        for (index, gateway) in routing.table("").map_or(&[][..], |table| &table.gateways).iter().enumerate() {
            let mut value = told(&gateway.state, routing.gateway_capacity("", index));
            value["kind"] = json!("machine");
            value["partition"] = json!(peer);
            tell_use(&mut value, gateway, now, &health, routing.out_of_reach("", index, &open));
            found.push(value.to_string());
        }
    }
    found
}

fn tell_use(value: &mut Value, gateway: &Gateway, now: u64, health: &HealthRules, out_of_reach: Option<String>) {
    value["uri"] = json!(gateway.uri);
    value["usable"] = json!(out_of_reach.is_none() && gateway.state.is_usable(now, gateway.is_probed(), health));
    if let Some(why) = out_of_reach {
        value["down"] = json!(why);
    }
}

/// Switches a machine of a pool; false where there is none.
pub(crate) fn switch_machine(pools: &[(String, Arc<Routing>)], peer: &str, uri: &str, on: bool) -> bool {
    let table = pools.iter().find(|(name, _)| name == peer).and_then(|(_, routing)| routing.table(""));
    let found = table.and_then(|table| table.gateways.get(table.gateway(uri)? as usize));
    let switched = found.inspect(|gateway| {
        gateway.state.switch(on);
        if on {
            gateway.state.bring_up();
        }
    });
    switched.is_some()
}

fn told(state: &GatewayState, capacity: Option<&Capacity>) -> Value {
    let down = state.down();
    let caps = capacity.map(Capacity::caps).unwrap_or_default();
    let count = |count: &std::sync::atomic::AtomicU64| count.load(Relaxed);
    json!({
        "id": state.id,
        "switched_off": state.is_off(),
        "down": if down == Down::No { Value::Null } else { json!(down.reason()) },
        "live_calls": capacity.map_or(0, Capacity::live),
        "max_calls": caps.calls,
        "calls_per_second": caps.calls_per_second,
        "full": capacity.map_or(0, Capacity::refused),
        "attempts": count(&state.attempts),
        "answered": count(&state.answered),
        "silent": count(&state.silent),
        "rang_out": count(&state.rang_out),
        "unreachable": count(&state.unreachable),
        "refused": state.finals.iter().skip(3).take(4).map(count).collect::<Vec<_>>(),
        "post_dial_delay_milliseconds": count(&state.post_dial_delay[0]),
        "rang": count(&state.post_dial_delay[1]),
        "call_seconds": count(&state.call_seconds[0]),
        "calls_ended": count(&state.call_seconds[1]),
        "probes": count(&state.probes[0]),
        "probes_failed": count(&state.probes[1]),
    })
}

#[pymethods]
impl RouteTables {
    /// The group that `dr_groups` has for a caller, by user and, where one is given, domain.
    #[pyo3(signature = (partition, user, domain=None))]
    fn caller_group(&self, partition: &str, user: &str, domain: Option<&str>) -> Option<u32> {
        self.0.table(partition)?.group_of(user.as_bytes(), domain.map(str::as_bytes))
    }

    /// Names of the partitions with the number of their rules, gateways and carriers, and the bytes of rules and prefixes.
    fn sizes(&self) -> Vec<(String, usize, usize, usize, usize)> {
        let sizes = |name: &str| {
            let table = self.0.table(name)?;
            Some((name.to_owned(), table.rules(), table.gateways.len(), table.carriers.len(), table.bytes()))
        };
        self.0.names().filter_map(sizes).collect()
    }

    /// Names of gateways that have no address.
    fn names_to_resolve(&self) -> Vec<Name> {
        self.0.host_names().into_iter().map(name_parts).collect()
    }

    /// Gateways that name a listener to send from, with that.
    fn sockets(&self) -> Vec<(String, String)> {
        self.0.sockets().map(|(gateway, socket)| (gateway.to_owned(), socket.to_owned())).collect()
    }

    /// Gateways that calls cannot come to by these transports, each with whether it is for IPv4, and why.
    fn out_of_reach(&self, ways: Vec<(String, bool)>) -> Vec<(String, String)> {
        let open: Vec<_> = ways.iter().filter_map(|(transport, is_ipv4)| Some((Transport::from_bytes(transport.as_bytes())?, *is_ipv4))).collect();
        let mut found = Vec::new();
        for partition in self.0.names() {
            let gateways = self.0.table(partition).map_or(&[][..], |table| &table.gateways).iter().enumerate();
            found.extend(gateways.filter_map(|(index, gateway)| Some((gateway.id().to_owned(), self.0.out_of_reach(partition, index, &open)?))));
        }
        found
    }

    /// Whether a partition has a gateway of this name, or with `#` in front a carrier.
    fn has(&self, partition: &str, name: &str) -> bool {
        let (kind, id) = name.strip_prefix('#').map_or(("gateway", name), |carrier| ("carrier", carrier));
        self.state(partition, kind, id).is_some()
    }

    /// Switches a gateway or a carrier; `fresh` brings one up that is down. False where there is none of this name.
    fn switch(&self, partition: &str, kind: &str, name: &str, on: bool, fresh: bool) -> bool {
        let state = self.state(partition, kind, name);
        let switched = state.inspect(|state| {
            state.switch(on);
            if on && fresh {
                state.bring_up();
            }
        });
        switched.is_some()
    }

    /// Forgets what is kept of the quality of a pair, or switches it; false where it had no calls.
    #[pyo3(signature = (partition, rule, gateway, on=None))]
    fn quality_of(&self, partition: &str, rule: u32, gateway: &str, on: Option<bool>) -> bool {
        let pair = self.0.table(partition).and_then(|table| table.quality.known(rule, gateway));
        pair.inspect(|pair| on.map_or_else(|| pair.reset(), |on| pair.switch(on))).is_some()
    }

    /// The place of the rule for a number in a group, if there is one.
    fn find(&self, partition: &str, group: u32, number: &str, at: i64) -> Option<u32> {
        let table = self.0.table(partition)?;
        table.find(group, number.as_bytes(), at).and_then(|index| table.rule(index)).map(|rule| rule.id)
    }

    /// The same tables with other addresses of gateways that have names.
    fn with_addresses(&self, resolved: Resolved) -> Self {
        let tables = self.0.names().filter_map(|name| Some((name.to_owned(), Arc::clone(self.0.table(name)?)))).collect();
        Self(Arc::new(Routing::new(tables, &addresses(resolved), Some(&*self.0))))
    }
}
