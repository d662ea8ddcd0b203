//! The engine as Python sees it.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use edge::BanChange;
use log::LevelFilter;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;

use crate::errors::to_py;
use crate::fraud::{StatsRow, ToldRow};
use crate::policy::PolicyLink;
use crate::routes::{RouteTables, machines, switch_machine};
use crate::shares::{Asked, Given, asked, given};
use crate::trace::TraceEntry;
use crate::users::{BindingRow, Told, Wanted, told, wanted, write};

/// The rule for a number with what that makes of it, and the answer where it is to be refused.
type Translated = (Option<(String, String)>, Option<(u16, String)>);

/// A running proxy.
#[pyclass(frozen)]
pub(crate) struct Engine(net::Engine);

impl Engine {
    fn snapshot(&self) -> PyResult<Arc<edge::Snapshot>> {
        self.0.snapshot().ok_or_else(|| PyOSError::new_err("the configuration cannot be read"))
    }
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (document, links=Vec::new(), tables=None, machines_off=Vec::new(), bindings=Vec::new()))]
    fn new(
        py: Python<'_>,
        document: &[u8],
        links: Vec<PyRef<'_, PolicyLink>>,
        tables: Option<&RouteTables>,
        machines_off: Vec<(String, String)>,
        bindings: Vec<PyRef<'_, BindingRow>>,
    ) -> PyResult<Self> {
        let links: Vec<&net::PolicyLink> = links.iter().map(|link| &link.0).collect();
        let bindings = bindings.iter().map(|row| BindingRow::clone(row).into()).collect();
        let routes = net::Routes { tables: tables.map(|tables| Arc::clone(&tables.0)), machines_off, bindings };
        py.detach(|| net::Engine::start(document, &links, &routes)).map(Self).map_err(|error| to_py(&error))
    }

    #[pyo3(signature = (document, links=Vec::new(), drain=Vec::new(), tables=None, machines_off=Vec::new()))]
    fn reload(
        &self,
        py: Python<'_>,
        document: &[u8],
        links: Vec<PyRef<'_, PolicyLink>>,
        drain: Vec<u32>,
        tables: Option<&RouteTables>,
        machines_off: Vec<(String, String)>,
    ) -> PyResult<Vec<u16>> {
        let links: Vec<&net::PolicyLink> = links.iter().map(|link| &link.0).collect();
        let routes = net::Routes { tables: tables.map(|tables| Arc::clone(&tables.0)), machines_off, bindings: Vec::new() };
        py.detach(|| self.0.reload(document, &links, &drain, &routes)).map_err(|error| to_py(&error))
    }

    fn set_routes(&self, py: Python<'_>, tables: &RouteTables) {
        py.detach(|| self.0.set_routing(&tables.0));
    }

    #[expect(clippy::too_many_arguments, reason = "what Python hands over")]
    fn explain(
        &self,
        py: Python<'_>,
        tables: &RouteTables,
        partition: &str,
        group: u32,
        number: &str,
        flags: (bool, bool, bool),
        whitelist: Vec<String>,
        at: i64,
    ) -> PyResult<String> {
        let (now, snapshot) = (self.0.moment(), self.snapshot()?);
        py.detach(|| tables.explain(partition, group, number, flags, &whitelist, at, now, &snapshot))
    }

    /// The rule for a number that a peer sends, with what that makes of it; where there is none the answer of a set that refuses.
    fn translate(&self, tables: &RouteTables, peer: &str, number: &str, at: i64) -> Translated {
        let Some(snapshot) = self.0.snapshot() else { return (None, None) };
        match snapshot.translate(tables.0.table("").map(AsRef::as_ref), peer, number, at) {
            Ok(found) => (found, None),
            Err(refused) => (None, Some(refused)),
        }
    }

    fn gateways(&self, py: Python<'_>, tables: &RouteTables) -> PyResult<Vec<String>> {
        let (now, snapshot) = (self.0.moment(), self.snapshot()?);
        Ok(py.detach(|| tables.gateways(now, &snapshot)))
    }

    fn quality(&self, py: Python<'_>, tables: &RouteTables) -> PyResult<Vec<String>> {
        let (now, snapshot) = (self.0.moment(), self.snapshot()?);
        Ok(py.detach(|| tables.quality(now, &snapshot.quality())))
    }

    fn machines(&self, py: Python<'_>) -> PyResult<Vec<String>> {
        let (now, snapshot) = (self.0.moment(), self.snapshot()?);
        Ok(py.detach(|| machines(&snapshot, now)))
    }

    fn switch_machine(&self, peer: &str, uri: &str, on: bool) -> bool {
        switch_machine(&self.0.pools(), peer, uri, on)
    }

    #[expect(clippy::needless_pass_by_value, reason = "what Python hands over")]
    fn close_listeners(&self, py: Python<'_>, numbers: Vec<u16>) {
        py.detach(|| self.0.close_listeners(&numbers));
    }

    #[pyo3(signature = (call_id=None, limit=100))]
    fn calls(&self, py: Python<'_>, call_id: Option<&str>, limit: usize) -> Vec<String> {
        py.detach(|| self.0.calls(call_id.map(str::as_bytes), limit))
    }

    #[pyo3(signature = (needle=&b""[..], places=Vec::new(), limit=10_000))]
    fn trace(&self, py: Python<'_>, needle: &[u8], places: Vec<u64>, limit: usize) -> (Vec<TraceEntry>, Vec<u64>, u64) {
        py.detach(|| {
            let (entries, places, lost) = self.0.trace(needle, &places, limit);
            let named = |entry: net::TraceEntry| {
                let listener = self.0.listener_name(entry.listener);
                TraceEntry::new(entry, listener)
            };
            (entries.into_iter().map(named).collect(), places, lost)
        })
    }

    fn listen(&self, names: Vec<String>) {
        self.0.listen(&names);
    }

    fn event_descriptor(&self) -> i32 {
        self.0.event_descriptor()
    }

    fn take_events(&self, limit: usize) -> Vec<ToldEvent> {
        self.0.take_events(limit).into_iter().map(for_python).collect()
    }

    fn trace_places(&self) -> Vec<u64> {
        self.0.trace_places()
    }

    fn end_calls(&self, py: Python<'_>, call_id: &str) -> (usize, usize) {
        py.detach(|| self.0.end_calls(call_id.as_bytes()))
    }

    fn end_limited(&self, py: Python<'_>, limit: &str, key: &str) -> (usize, usize) {
        py.detach(|| self.0.end_limited(limit, key))
    }

    #[pyo3(signature = (name=None, limit=1000))]
    fn limits(&self, py: Python<'_>, name: Option<&str>, limit: usize) -> Vec<String> {
        py.detach(|| self.0.limits(name, limit))
    }

    #[pyo3(signature = (name, key, most=None))]
    fn set_limit(&self, name: &str, key: &str, most: Option<u32>) -> Option<String> {
        self.0.snapshot()?.set_limit(name, key, most).map(Into::into)
    }

    fn moment(&self) -> u64 {
        self.0.moment()
    }

    fn share_descriptor(&self) -> i32 {
        self.0.share_descriptor()
    }

    fn share_questions(&self, limit: usize) -> Vec<Asked> {
        self.0.share_questions(limit).into_iter().map(asked).collect()
    }

    fn share_walk(&self, py: Python<'_>) -> Vec<Asked> {
        py.detach(|| self.0.share_walk()).into_iter().map(asked).collect()
    }

    #[expect(clippy::needless_pass_by_value, reason = "what Python hands over")]
    fn share_ask(&self, keys: Vec<(String, String)>) -> Vec<Asked> {
        self.0.share_ask(&keys).into_iter().map(asked).collect()
    }

    #[expect(clippy::needless_pass_by_value, reason = "what Python hands over")]
    fn share_report(&self, keys: Vec<(String, String, u64)>) -> Vec<Asked> {
        self.0.share_report(&keys).into_iter().map(asked).collect()
    }

    fn share_all(&self, py: Python<'_>) -> Vec<Asked> {
        py.detach(|| self.0.share_all()).into_iter().map(asked).collect()
    }

    fn give_shares(&self, py: Python<'_>, shares: Vec<Given>) -> (Vec<Asked>, Vec<(String, String)>) {
        let (again, unknown) = py.detach(|| self.0.give_shares(shares.into_iter().map(given).collect()));
        (again.into_iter().map(asked).collect(), unknown)
    }

    #[expect(clippy::needless_pass_by_value, reason = "what Python hands over")]
    fn fail_shares(&self, py: Python<'_>, keys: Vec<(String, String)>) {
        py.detach(|| self.0.fail_shares(&keys));
    }

    fn prolong_shares(&self, until: u64, settled: u64) {
        self.0.prolong_shares(until, settled);
    }

    fn hush_shares(&self, until: u64) {
        self.0.hush_shares(until);
    }

    fn lapse_shares(&self) {
        self.0.lapse_shares();
    }

    fn shares_unknown(&self, keys: Vec<(String, String)>) -> Vec<(String, String)> {
        self.0.shares_unknown(keys)
    }

    fn shares_hold(&self) -> bool {
        self.0.shares_hold()
    }

    fn user_descriptor(&self) -> i32 {
        self.0.user_descriptor()
    }

    fn credential_questions(&self, limit: usize) -> Vec<Wanted> {
        self.0.credential_questions(limit).into_iter().map(wanted).collect()
    }

    fn give_credentials(&self, py: Python<'_>, answers: Vec<Told>) {
        py.detach(|| {
            for (question, answer) in answers.into_iter().map(told) {
                self.0.give_credentials(question, answer);
            }
        });
    }

    fn location_descriptor(&self) -> i32 {
        self.0.location_descriptor()
    }

    fn location_writes(&self, limit: usize) -> Vec<(u64, Option<BindingRow>)> {
        self.0.location_writes(limit).into_iter().map(write).collect()
    }

    #[pyo3(signature = (aor=None, limit=100))]
    fn location(&self, py: Python<'_>, aor: Option<&str>, limit: usize) -> Vec<BindingRow> {
        py.detach(|| self.0.location(aor.map(str::as_bytes), limit)).into_iter().map(Into::into).collect()
    }

    #[pyo3(signature = (aor, contact=None))]
    fn remove_bindings(&self, py: Python<'_>, aor: &str, contact: Option<&str>) -> usize {
        py.detach(|| self.0.remove_bindings(aor.as_bytes(), contact.map(str::as_bytes)))
    }

    fn ban(&self, py: Python<'_>, source: IpAddr, seconds: u32, reason: &str) -> &'static str {
        match py.detach(|| self.0.ban(source, seconds, reason)) {
            Some(BanChange::New) => "new",
            Some(BanChange::Changed | BanChange::Kept) => "changed",
            Some(BanChange::Full) => "full",
            None => "unanswered",
        }
    }

    fn ban_with_others(&self, py: Python<'_>, source: IpAddr, seconds: u32, reason: &str) -> bool {
        py.detach(|| self.0.ban_with_others(source, seconds, reason))
    }

    /// Source, user, and whether the pair begins anew.
    fn take_failures(&self, limit: usize) -> Vec<(String, String, bool)> {
        self.0.take_failures(limit).into_iter().map(|failure| (failure.source.to_string(), failure.account, failure.cleared)).collect()
    }

    fn raise_failures(&self, py: Python<'_>, told: Vec<(IpAddr, String, u32, u32, u32)>) {
        let told = told.into_iter().map(|(source, account, of_pair, of_user, of_source)| edge::SharedFailures { source, account, of_pair, of_user, of_source });
        py.detach(|| self.0.raise_failures(told.collect()));
    }

    fn unban(&self, py: Python<'_>, source: IpAddr, reason: &str) -> bool {
        py.detach(|| self.0.unban(source, reason))
    }

    /// Sources with the seconds since their ban began, those that are left, why, and how their packets came.
    fn bans(&self) -> Vec<(String, u32, u32, String, &'static str)> {
        let (bans, now) = self.0.bans();
        bans.into_iter().map(|ban| (ban.source.to_string(), now.saturating_sub(ban.since), ban.until.saturating_sub(now), ban.reason, ban.proto)).collect()
    }

    /// What is known of a source, as JSON; nothing where no worker answers.
    fn source(&self, py: Python<'_>, source: IpAddr) -> Option<String> {
        py.detach(|| self.0.source(source))
    }

    #[pyo3(signature = (user=None, limit=100))]
    fn fraud_stats(&self, py: Python<'_>, user: Option<&str>, limit: usize) -> Vec<StatsRow> {
        let Some(snapshot) = self.0.snapshot() else { return Vec::new() };
        let found = py.detach(|| snapshot.fraud_stats(user, self.0.moment(), limit));
        let row = |s: edge::FraudStats| (s.user, s.profile, s.prefix, s.rule, s.calls_per_minute, s.total_calls, s.concurrent_calls, s.sequential_calls);
        found.into_iter().map(row).collect()
    }

    /// Accounts that may not call, and for how many more seconds.
    fn barred(&self) -> Vec<(String, u64)> {
        self.0.snapshot().map_or_else(Vec::new, |snapshot| snapshot.barred(self.0.now().wall / 1_000_000))
    }

    fn unbar(&self, user: &str) -> bool {
        self.0.snapshot().is_some_and(|snapshot| snapshot.unbar(user))
    }

    fn fraud_told(&self, py: Python<'_>, most: usize) -> Vec<ToldRow> {
        let Some(snapshot) = self.0.snapshot() else { return Vec::new() };
        let told = py.detach(|| snapshot.fraud_told(self.0.moment(), most));
        told.into_iter().map(|t| (t.key, t.rule, t.period, t.total, t.minute, t.concurrent, t.sequential, t.last, t.told)).collect()
    }

    fn hear_fraud(&self, py: Python<'_>, told: Vec<ToldRow>, barred: Vec<String>) {
        let Some(snapshot) = self.0.snapshot() else { return };
        let rows = told.into_iter().map(|(key, rule, period, total, minute, concurrent, sequential, last, told)| edge::FraudTold {
            key,
            rule,
            period,
            total,
            minute,
            concurrent,
            sequential,
            last,
            told,
        });
        py.detach(|| snapshot.hear_fraud(rows.collect(), barred));
    }

    fn fraud_kept(&self, py: Python<'_>) -> Vec<u8> {
        let Some(snapshot) = self.0.snapshot() else { return Vec::new() };
        py.detach(|| snapshot.fraud_kept(self.0.now()))
    }

    fn restore_fraud(&self, kept: &[u8], ago: u64) -> bool {
        self.0.snapshot().is_some_and(|snapshot| snapshot.restore_fraud(kept, self.0.now(), ago))
    }

    fn labelled(&self) -> Vec<net::LabelledCount> {
        self.0.labelled()
    }

    fn add_policy_link(&self, link: &PolicyLink) -> PyResult<()> {
        self.0.add_policy_link(&link.0).map_err(|error| PyOSError::new_err(error.to_string()))
    }

    fn drain_policy_link(&self, py: Python<'_>, link_id: u32) {
        py.detach(|| self.0.drain_policy_link(link_id));
    }

    fn remove_policy_link(&self, py: Python<'_>, link_id: u32) {
        py.detach(|| self.0.remove_policy_link(link_id));
    }

    fn drain(&self, py: Python<'_>) {
        py.detach(|| self.0.drain());
    }

    fn is_drained(&self) -> bool {
        self.0.is_drained()
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.0.stop());
    }

    fn counters(&self) -> BTreeMap<&'static str, u64> {
        self.0.counters().into_iter().collect()
    }

    /// What the counters of workers count.
    #[staticmethod]
    fn counter_help() -> BTreeMap<&'static str, &'static str> {
        edge::Counters::help().into_iter().collect()
    }
}

/// A parameter of an event.
#[derive(IntoPyObject)]
pub(crate) enum EventValue {
    Number(i64),
    Text(String),
}

/// An event as Python takes it: its name, when, and the values of its parameters.
pub(crate) type ToldEvent = (&'static str, u64, Vec<EventValue>);

/// An event for Python.
pub(crate) fn for_python(event: edge::Event) -> ToldEvent {
    let convert = |value| match value {
        edge::EventValue::Number(number) => EventValue::Number(number),
        edge::EventValue::Text(text) => EventValue::Text(text),
    };
    (event.kind.shape().0, event.wall, event.values.into_iter().map(convert).collect())
}

/// Every event of the native side with its parameters.
#[pyfunction]
pub(crate) fn event_shapes() -> Vec<(&'static str, Vec<&'static str>)> {
    edge::EventKind::ALL.into_iter().map(|kind| (kind.shape().0, kind.shape().1.to_vec())).collect()
}

/// Becomes another user for good.
#[pyfunction]
pub(crate) fn become_user(user: u32, group: u32, bind_low: bool) -> PyResult<()> {
    Ok(net::become_user(user, group, bind_low)?)
}

/// Gives every capability up.
#[pyfunction]
pub(crate) fn give_up_capabilities() -> PyResult<()> {
    Ok(net::give_up_capabilities()?)
}

/// Lets the calling thread run soon once it has work.
#[pyfunction]
pub(crate) fn take_short_turns() {
    net::take_short_turns();
}

/// Whether the process may bind low ports.
#[pyfunction]
pub(crate) fn may_bind_low() -> bool {
    net::may_bind_low()
}

/// Reads a document and checks all that needs no socket.
#[pyfunction]
pub(crate) fn check_document(document: &[u8]) -> PyResult<()> {
    net::Engine::check(document).map_err(|error| to_py(&error))
}

/// What is wrong with a regular expression for numbers.
#[pyfunction]
pub(crate) fn pattern_fault(pattern: &str) -> Option<String> {
    routing::pattern(pattern, false).err()
}

/// The first group that a template speaks of and a regular expression for numbers does not have.
#[pyfunction]
pub(crate) fn unknown_group(pattern: &str, template: &str) -> Option<usize> {
    routing::unknown_group(&routing::pattern(pattern, false).ok()?, template.as_bytes())
}

/// Takes over the logging of native threads; the descriptor that is readable while lines wait.
#[pyfunction]
pub(crate) fn install_logger() -> PyResult<i32> {
    Ok(net::install_logger()?)
}

/// Sets the least important level that is logged.
#[pyfunction]
pub(crate) fn set_log_level(level: &str) -> PyResult<()> {
    let level = match level {
        "error" => LevelFilter::Error,
        "warning" => LevelFilter::Warn,
        "info" => LevelFilter::Info,
        "debug" => LevelFilter::Debug,
        _ => return Err(PyValueError::new_err(format!("expected error, warning, info or debug, got: {level}"))),
    };
    net::set_log_level(level);
    Ok(())
}

/// Wall clock in microseconds, level, target, message, and what it says by name.
type Line = (u64, &'static str, String, String, HashMap<String, String>);

/// Takes the log lines that wait, and how many were lost.
#[pyfunction]
pub(crate) fn drain_log() -> (Vec<Line>, u64) {
    let (lines, dropped) = net::drain_log();
    let level = |level: log::Level| match level {
        log::Level::Error => "error",
        log::Level::Warn => "warning",
        log::Level::Info => "info",
        log::Level::Debug | log::Level::Trace => "debug",
    };
    (lines.into_iter().map(|line| (line.wall, level(line.level), line.target, line.message, line.values.into_iter().collect())).collect(), dropped)
}
