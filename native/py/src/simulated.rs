//! One worker's edge without sockets and on a clock that only the caller moves, for tests of policies.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use edge::{Address, Answer, Edge, EdgeOptions, Hop, Listening, MediaPorts, PortPair, Routes, Snapshot};
use net::{Document, PolicyExchange, StartError};
use proto::{Moment, Now, Secret, milliseconds};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::engine::{ToldEvent, for_python};
use crate::errors::to_py;
use crate::policy::{PolicyLink, Question};
use crate::routes::RouteTables;

/// When the simulated clock starts: 1 January 2026.
const WALL: u64 = 1_767_225_600_000_000;

struct NoRoutes;

impl Routes for NoRoutes {
    fn source_for(&mut self, _destination: IpAddr) -> Option<IpAddr> {
        None
    }
}

/// Nobody listens to a simulated call.
struct NoMedia;

impl MediaPorts for NoMedia {
    fn workers(&self) -> u8 {
        0
    }

    fn accepts(&self, _worker: u8) -> bool {
        true
    }

    fn has(&self, _port: u16) -> bool {
        false
    }

    fn take(&mut self, _worker: u8, _address: IpAddr) -> Option<PortPair> {
        None
    }
}

struct Simulation {
    edge: Edge,
    snapshot: Arc<Snapshot>,
    now: Now,
    names: std::collections::HashMap<String, SocketAddr>,
    exchange: Option<PolicyExchange>,
    listening: Listening,
}

/// An edge to test policies with.
#[pyclass(frozen)]
pub(crate) struct SimulatedEdge(Mutex<Simulation>);

impl SimulatedEdge {
    fn simulation(&self) -> PyResult<MutexGuard<'_, Simulation>> {
        self.0.lock().map_err(|_| PyRuntimeError::new_err("the simulated edge panicked before"))
    }
}

#[pymethods]
impl SimulatedEdge {
    #[new]
    fn new(document: &[u8]) -> PyResult<Self> {
        let document = Document::read(document).map_err(|error| to_py(&StartError::Document(error)))?;
        let snapshot = Arc::new(Snapshot::build(document.routing).map_err(|error| to_py(&StartError::Settings(error)))?);
        let listening = Listening::default();
        let options = EdgeOptions {
            worker: 0,
            workers: 1,
            route_secret: Secret::new([1; 16]),
            process_secret: Secret::new([2; 16]),
            epoch: WALL,
            routes: Box::new(NoRoutes),
            listening: listening.clone(),
            media: Box::new(NoMedia),
            large_pages: |_| (),
        };
        let mut edge = Edge::all(&snapshot, vec![options], Moment(0)).remove(0);
        edge.set_policy_links(vec![1]);
        let now = Now { moment: Moment(0), wall: WALL };
        Ok(Self(Mutex::new(Simulation { edge, snapshot, now, names: std::collections::HashMap::new(), exchange: None, listening })))
    }

    /// Routes by these tables from now on.
    fn set_routes(&self, tables: &RouteTables) -> PyResult<()> {
        self.simulation()?.edge.set_routing(Arc::clone(&tables.0));
        Ok(())
    }

    /// Lets a name resolve to an address.
    fn resolve(&self, name: &str, address: &str) -> PyResult<()> {
        let address = address.parse().map_err(|_| PyValueError::new_err(format!("expected address:port, got: {address}")))?;
        self.simulation()?.names.insert(name.to_owned(), address);
        Ok(())
    }

    /// A message from `source` arrives at the listener of this name.
    fn receive(&self, message: &[u8], source: &str, listener: &str) -> PyResult<()> {
        let address: SocketAddr = source.parse().map_err(|_| PyValueError::new_err(format!("expected address:port, got: {source}")))?;
        let mut simulation = self.simulation()?;
        let found = simulation.snapshot.settings.listeners.iter().enumerate().find(|(_, l)| l.name == listener);
        let (index, transport) =
            found.map(|(index, l)| (index as u16, l.transport())).ok_or_else(|| PyValueError::new_err(format!("no listener {listener}")))?;
        let (hop, now) = (Hop { listener: index, transport, address, connection: None }, simulation.now);
        simulation.edge.handle_message(now, &hop, message, false);
        Ok(())
    }

    /// Lets time pass until a policy is asked something; returns what is left of it.
    fn advance(&self, by_milliseconds: u64) -> PyResult<u64> {
        let mut simulation = self.simulation()?;
        let end = simulation.now.moment + milliseconds(by_milliseconds);
        loop {
            let next = simulation.edge.poll_timeout().filter(|next| *next <= end);
            let target = next.map_or(end, |next| next.max(simulation.now.moment + 1_000).min(end));
            simulation.now.wall += target.since(simulation.now.moment);
            simulation.now.moment = target;
            let now = simulation.now;
            simulation.edge.handle_timeout(now);
            if target >= end || !simulation.edge.out.policy.is_empty() || !simulation.edge.out.questions.is_empty() {
                return Ok(end.since(target) / 1_000);
            }
        }
    }

    /// Takes what was sent: message and destination.
    fn sent<'py>(&self, py: Python<'py>) -> PyResult<Vec<(Bound<'py, PyBytes>, String)>> {
        let mut simulation = self.simulation()?;
        let questions = std::mem::take(&mut simulation.edge.out.questions);
        for question in questions {
            let found = simulation.names.get(&question.host).map(|address| Address { transport: syntax::Transport::Udp, address: *address });
            let now = simulation.now;
            simulation.edge.handle_answer(now, Answer { id: question.id, host: question.host, addresses: found.into_iter().collect() });
        }
        let out = &mut simulation.edge.out;
        let sent = out.sends().iter().map(|t| (PyBytes::new(py, out.bytes(t)), t.hop.address.to_string())).collect();
        out.clear_sends();
        Ok(sent)
    }

    /// Takes the questions for policies.
    fn questions(&self, py: Python<'_>) -> PyResult<Vec<Question>> {
        let questions = std::mem::take(&mut self.simulation()?.edge.out.policy);
        questions.into_iter().filter_map(|question| Question::read(py, question.bytes, u64::MAX)).collect()
    }

    /// Puts the questions for policies onto a link, as a worker does; returns how many.
    fn put_questions(&self, link: &PolicyLink) -> PyResult<usize> {
        let mut simulation = self.simulation()?;
        let questions = std::mem::take(&mut simulation.edge.out.policy);
        let count = questions.len();
        let mut exchange = match simulation.exchange.take() {
            Some(exchange) => exchange,
            None => PolicyExchange::new(&link.0).map_err(|error| PyRuntimeError::new_err(error.to_string()))?,
        };
        let refused = exchange.put(questions);
        simulation.exchange = Some(exchange);
        Ok(count - refused)
    }

    /// Takes the verdicts that came back on that link; returns how many.
    fn take_verdicts(&self) -> PyResult<usize> {
        let mut simulation = self.simulation()?;
        let verdicts = simulation.exchange.as_mut().map(PolicyExchange::take).unwrap_or_default();
        let now = simulation.now;
        verdicts.iter().for_each(|verdict| simulation.edge.handle_verdict(now, 1, verdict));
        Ok(verdicts.len())
    }

    /// Hands in a verdict.
    fn answer(&self, token: &[u8], verdict: &[u8]) -> PyResult<()> {
        let mut simulation = self.simulation()?;
        let now = simulation.now;
        simulation.edge.handle_verdict(now, 1, &[token, verdict].concat());
        Ok(())
    }

    /// The wall clock, microseconds since 1970.
    #[getter]
    fn wall(&self) -> PyResult<u64> {
        Ok(self.simulation()?.now.wall)
    }

    /// Builds events of these names from now on.
    fn listen(&self, names: Vec<String>) -> PyResult<()> {
        self.simulation()?.listening.set(&names);
        Ok(())
    }

    /// Takes the events that came.
    fn take_events(&self) -> PyResult<Vec<ToldEvent>> {
        Ok(std::mem::take(&mut self.simulation()?.edge.out.events).into_iter().map(for_python).collect())
    }

    /// Takes the records of calls that ended, as JSON.
    fn records(&self) -> PyResult<Vec<String>> {
        let records = std::mem::take(&mut self.simulation()?.edge.out.records);
        records.iter().map(|record| net::record_text(record).map_err(PyRuntimeError::new_err)).collect()
    }
}
