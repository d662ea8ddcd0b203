//! Entries of a trace as Python sees them.

use edge::hide_secrets;
use net::TraceKind;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use syntax::{Head, Limits, Message, parse};

/// A message that came or left, or a decision.
#[pyclass(frozen)]
pub(crate) struct TraceEntry {
    entry: net::TraceEntry,
    listener: String,
    fields: Fields,
}

#[derive(Default)]
struct Fields {
    call_id: String,
    users: Vec<String>,
    cseq: String,
    branch: String,
    text: String,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Fields {
    fn of_decision(bytes: &[u8]) -> Self {
        let middle = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        Self { call_id: text(&bytes[..middle]), text: text(bytes.get(middle + 1..).unwrap_or_default()), ..Self::default() }
    }

    fn of_message(bytes: &[u8]) -> Self {
        let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii_end();
        let mut head = Head::default();
        let start = text(line);
        if parse(bytes, &Limits::OWN, &mut head).is_err() {
            return Self { text: start, ..Self::default() };
        }
        let message = Message::new(bytes, &head);
        let mut users: Vec<String> = [head.from.uri, head.to.uri, head.request_uri.whole]
            .into_iter()
            .filter_map(|span| syntax::Uri::parse(bytes, span).ok())
            .map(|uri| text(uri.user.of(bytes)))
            .filter(|user| !user.is_empty())
            .collect();
        users.dedup();
        Self {
            call_id: text(message.call_id()),
            users,
            cseq: format!(
                "{} {}",
                head.cseq,
                text(message.first(syntax::HeaderName::CSeq).map_or(&[][..], |slot| slot.value.of(bytes)).rsplit(|b| *b == b' ').next().unwrap_or_default())
            ),
            branch: text(message.text(head.via.branch)),
            text: start,
        }
    }
}

impl TraceEntry {
    pub(crate) fn new(mut entry: net::TraceEntry, listener: String) -> Self {
        let fields = if entry.kind == TraceKind::Decision { Fields::of_decision(&entry.bytes) } else { Fields::of_message(&entry.bytes) };
        hide_secrets(&mut entry.bytes);
        Self { entry, listener, fields }
    }
}

#[pymethods]
impl TraceEntry {
    #[getter]
    fn worker(&self) -> u8 {
        self.entry.worker
    }

    #[getter]
    fn kind(&self) -> &'static str {
        match self.entry.kind {
            TraceKind::Received => "received",
            TraceKind::Sent => "sent",
            TraceKind::Decision => "decision",
        }
    }

    #[getter]
    fn microseconds(&self) -> u64 {
        self.entry.wall
    }

    #[getter]
    fn transport(&self) -> String {
        self.entry.transport.as_str().to_ascii_lowercase()
    }

    #[getter]
    fn listener(&self) -> &str {
        &self.listener
    }

    #[getter]
    fn remote(&self) -> (String, u16) {
        (self.entry.remote.ip().to_string(), self.entry.remote.port())
    }

    #[getter]
    fn call_id(&self) -> &str {
        &self.fields.call_id
    }

    #[getter]
    fn users(&self) -> Vec<String> {
        self.fields.users.clone()
    }

    #[getter]
    fn cseq(&self) -> &str {
        &self.fields.cseq
    }

    #[getter]
    fn branch(&self) -> &str {
        &self.fields.branch
    }

    #[getter]
    fn text(&self) -> &str {
        &self.fields.text
    }

    #[getter]
    fn message<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, if self.entry.kind == TraceKind::Decision { b"" } else { &self.entry.bytes })
    }
}
