//! Both ends of the crossing, as Python holds them.

use std::os::fd::RawFd;
use std::sync::{Mutex, MutexGuard};

use edge::{PolicyEvent, QuestionView, TOKEN};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::request::Request;

/// The server's end: made before the policy process is started.
#[pyclass(frozen)]
pub(crate) struct PolicyLink(pub(crate) net::PolicyLink);

#[pymethods]
impl PolicyLink {
    #[new]
    fn new(workers: usize, queue_bytes: usize) -> PyResult<Self> {
        net::PolicyLink::new(workers, queue_bytes).map(Self).map_err(|error| PyOSError::new_err(error.to_string()))
    }

    #[getter]
    fn id(&self) -> u32 {
        self.0.id()
    }

    #[getter]
    fn beats(&self) -> u64 {
        self.0.beats()
    }

    /// Questions taken, microseconds that they waited, microseconds of handling.
    #[getter]
    fn work(&self) -> (u64, u64, u64) {
        let work = self.0.work();
        (work.taken, work.waited, work.handled)
    }

    #[getter]
    fn is_damaged(&self) -> bool {
        self.0.is_damaged()
    }

    fn descriptors(&self) -> Vec<RawFd> {
        self.0.descriptors()
    }
}

/// What a worker asks or tells.
#[pyclass(frozen)]
pub(crate) struct Question {
    event: u8,
    status_code: u16,
    token: [u8; TOKEN],
    deadline: u32,
    /// When it was put; `u64::MAX` where there is no queue to wait in.
    put: u64,
    request: Option<Py<Request>>,
    /// The record of a call, a response, or what comes back for a request of the policy's own.
    message: Vec<u8>,
    target: String,
    variables: String,
}

impl Question {
    /// Reads a frame that was put at a moment; `None` for bytes that are none.
    pub(crate) fn read(py: Python<'_>, frame: Vec<u8>, put: u64) -> Option<PyResult<Self>> {
        let view = QuestionView::read(&frame)?;
        let (event, status_code, deadline, token) = (view.event, view.status_code, view.deadline, view.token.try_into().ok()?);
        let (target, variables) = (view.target.to_owned(), view.variables.to_owned());
        let brings_request = PolicyEvent::brings_request(event);
        let message = if brings_request { Vec::new() } else { view.message.to_vec() };
        // A response is read like a request: its fields are those of the request that it answers.
        let readable = brings_request || event == PolicyEvent::Response as u8;
        let request = if readable { Some(Py::new(py, Request::of(frame))) } else { None };
        Some(request.transpose().map(|request| Self { event, status_code, token, deadline, put, request, message, target, variables }))
    }
}

#[pymethods]
impl Question {
    #[getter]
    fn event<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        // Interned: each is compared with literals for every question.
        let name = match self.event {
            event if event == PolicyEvent::Request as u8 => "request",
            event if event == PolicyEvent::Failed as u8 => "failed",
            event if event == PolicyEvent::Ended as u8 => "ended",
            event if event == PolicyEvent::InDialog as u8 => "in_dialog",
            event if event == PolicyEvent::Failure as u8 => "failure",
            event if event == PolicyEvent::Branch as u8 => "branch",
            event if event == PolicyEvent::Rule as u8 => "route",
            event if event == PolicyEvent::Response as u8 => "response",
            event if event == PolicyEvent::Answer as u8 => "answer",
            _ => "final",
        };
        PyString::intern(py, name)
    }

    #[getter]
    fn status_code(&self) -> u16 {
        self.status_code
    }

    #[getter]
    fn token<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.token)
    }

    /// What all questions about one request have in common.
    #[getter]
    fn key<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        // All but the number of the question; what is asked about an attempt or a response stands for itself.
        let mut key = self.token;
        let ended = Some(self.event).filter(|event| *event == PolicyEvent::Ended as u8).and_then(|_| PolicyEvent::of_part(&self.target));
        if let Some(part) = ended {
            key[3] = part as u8;
        } else if PolicyEvent::stands_alone(self.event) {
            key[3] = self.event;
        } else {
            key[1] = 0;
        }
        PyBytes::new(py, &key)
    }

    #[getter]
    fn deadline_seconds(&self) -> f64 {
        f64::from(self.deadline) / 1e6
    }

    #[getter]
    fn is_late(&self) -> bool {
        net::monotonic().saturating_sub(self.put) > u64::from(self.deadline) / 4 * 3
    }

    #[getter]
    fn request(&self, py: Python<'_>) -> Option<Py<Request>> {
        self.request.as_ref().map(|request| request.clone_ref(py))
    }

    #[getter]
    fn message<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.message)
    }

    #[getter]
    fn target(&self) -> &str {
        &self.target
    }

    #[getter]
    fn variables(&self) -> &str {
        &self.variables
    }
}

/// The policy process's end.
#[pyclass(frozen)]
pub(crate) struct PolicyPort(Mutex<net::PolicyPort>);

impl PolicyPort {
    fn port(&self) -> PyResult<MutexGuard<'_, net::PolicyPort>> {
        self.0.lock().map_err(|_| PyRuntimeError::new_err("the port panicked before"))
    }
}

#[pymethods]
impl PolicyPort {
    #[new]
    fn new(descriptors: Vec<RawFd>) -> PyResult<Self> {
        let owned = net::inherited(descriptors).map_err(|error| PyOSError::new_err(error.to_string()))?;
        net::PolicyPort::open(owned).map(|port| Self(Mutex::new(port))).map_err(|error| PyOSError::new_err(error.to_string()))
    }

    fn fileno(&self) -> PyResult<RawFd> {
        Ok(self.port()?.descriptor())
    }

    fn beat(&self) -> PyResult<()> {
        self.port()?.beat();
        Ok(())
    }

    fn answer_bell(&self) -> PyResult<()> {
        self.port()?.answer_bell();
        Ok(())
    }

    fn take(&self, py: Python<'_>, limit: usize) -> PyResult<Vec<Question>> {
        let taken = self.port()?.take(limit).map_err(|error| PyOSError::new_err(error.to_string()))?;
        taken.into_iter().filter_map(|(frame, put)| Question::read(py, frame, put)).collect()
    }

    fn rest(&self) -> PyResult<bool> {
        Ok(self.port()?.rest())
    }

    fn answer(&self, token: &[u8], verdict: &[u8]) -> PyResult<bool> {
        Ok(self.port()?.answer(token, verdict))
    }

    fn flush(&self) -> PyResult<()> {
        self.port()?.flush();
        Ok(())
    }
}
