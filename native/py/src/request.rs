//! A request as a policy sees it: the bytes as they came, looked at only where somebody asks.

use std::sync::OnceLock;

use edge::{QuestionView, TOKEN};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use syntax::{Head, HeaderName, Limits, Message, Span, parse, push_unfolded};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A URI.
#[pyclass(frozen, eq, hash, from_py_object)]
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Uri {
    whole: String,
    scheme: String,
    user: String,
    host: String,
    port: Option<u16>,
    parameters: Vec<(String, String)>,
}

impl Uri {
    fn of(bytes: &[u8], uri: &syntax::Uri) -> Self {
        let whole = text(uri.whole.of(bytes));
        let pair = |part: &str| match part.split_once('=') {
            Some((name, value)) => (name.to_ascii_lowercase(), value.to_owned()),
            None => (part.to_ascii_lowercase(), String::new()),
        };
        Self {
            scheme: whole.split(':').next().unwrap_or_default().to_ascii_lowercase(),
            user: text(uri.user.of(bytes)),
            host: text(uri.host.of(bytes)),
            port: uri.port,
            parameters: text(uri.params.of(bytes)).split(';').filter(|part| !part.is_empty()).map(pair).collect(),
            whole,
        }
    }
}

#[pymethods]
impl Uri {
    #[new]
    fn new(text: &str) -> PyResult<Self> {
        let bytes = text.as_bytes();
        syntax::Uri::parse(bytes, Span::new(0, bytes.len())).map(|uri| Self::of(bytes, &uri)).map_err(|_| PyValueError::new_err(format!("not a URI: {text}")))
    }

    #[getter]
    fn scheme(&self) -> &str {
        &self.scheme
    }

    #[getter]
    fn user(&self) -> &str {
        &self.user
    }

    #[getter]
    fn host(&self) -> &str {
        &self.host
    }

    #[getter]
    fn port(&self) -> Option<u16> {
        self.port
    }

    /// The value of a parameter, empty for one without; `None` where there is no such parameter.
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(have, _)| have.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn __str__(&self) -> &str {
        &self.whole
    }

    fn __repr__(&self) -> String {
        format!("Uri({:?})", self.whole)
    }
}

/// The long form of a header field's name in lower case (RFC 3261 section 7.3.3).
#[pyfunction]
pub(crate) fn long_name(name: &str) -> String {
    String::from_utf8_lossy(syntax::long_name(name.as_bytes())).to_ascii_lowercase()
}

/// One request: the frame that crossed, read where somebody asks.
#[pyclass(frozen)]
pub(crate) struct Request {
    frame: Vec<u8>,
    head: OnceLock<Box<Head>>,
}

impl Request {
    /// The request of a question's frame.
    pub(crate) fn of(frame: Vec<u8>) -> Self {
        Self { frame, head: OnceLock::new() }
    }

    fn view(&self) -> QuestionView<'_> {
        QuestionView::read(&self.frame).unwrap_or(QuestionView::NOTHING)
    }

    fn bytes(&self) -> &[u8] {
        self.view().message
    }

    /// The engine parsed these bytes before; whatever its limits let pass is readable here.
    fn message(&self) -> Message<'_> {
        let bytes = self.bytes();
        let head = self.head.get_or_init(|| {
            let mut head = Box::<Head>::default();
            if parse(bytes, &Limits::OWN, &mut head).is_err() {
                log::debug!(target: "policy", "a request is read as far as it goes");
            }
            head
        });
        Message::new(bytes, head)
    }

    fn value<'py>(&self, py: Python<'py>, value: Span) -> Bound<'py, PyString> {
        let mut line = Vec::new();
        push_unfolded(value.of(self.bytes()), &mut line);
        PyString::new(py, &String::from_utf8_lossy(&line))
    }
}

#[pymethods]
impl Request {
    #[new]
    #[pyo3(signature = (message, *, peer="", listener="", transport="udp", source=("192.0.2.1".to_owned(), 5060)))]
    fn new(message: &[u8], peer: &str, listener: &str, transport: &str, source: (String, u16)) -> PyResult<Self> {
        let mut head = Box::<Head>::default();
        parse(message, &Limits::STANDARD, &mut head).map_err(|error| PyValueError::new_err(format!("not a SIP message: {error}")))?;
        if head.kind != syntax::MessageKind::Request {
            return Err(PyValueError::new_err("not a request"));
        }
        let ip = source.0.parse().map_err(|_| PyValueError::new_err(format!("expected an IP address, got: {}", source.0)))?;
        let token = [0; TOKEN];
        let view = QuestionView { token: &token, source: (ip, source.1), transport, listener, peer, message, ..QuestionView::NOTHING };
        let mut frame = Vec::new();
        view.write(&mut frame);
        Ok(Self { frame, head: OnceLock::from(head) })
    }

    #[getter]
    fn method<'py>(&self, py: Python<'py>) -> Bound<'py, PyString> {
        // The engine refuses a request that does not begin with its method and a space.
        let name = self.bytes().split(|byte| *byte == b' ').next().unwrap_or_default();
        if name.starts_with(b"SIP/") {
            // A response: the method is that of its CSeq.
            let value = self.message().first(HeaderName::CSeq).map_or(&[][..], |slot| slot.value.of(self.bytes()));
            return PyString::new(py, &String::from_utf8_lossy(value.rsplit(|byte| *byte == b' ').next().unwrap_or_default()));
        }
        match syntax::Method::from_bytes(name) {
            syntax::Method::Other => PyString::new(py, &String::from_utf8_lossy(name)),
            known => PyString::intern(py, known.as_str()),
        }
    }

    #[getter]
    fn request_uri(&self) -> Uri {
        Uri::of(self.bytes(), &self.message().head.request_uri)
    }

    #[getter(from_uri)]
    fn uri_of_from(&self) -> PyResult<Uri> {
        Uri::new(&text(self.message().head.from.uri.of(self.bytes())))
    }

    #[getter]
    fn to_uri(&self) -> PyResult<Uri> {
        Uri::new(&text(self.message().head.to.uri.of(self.bytes())))
    }

    #[getter(from_tag)]
    fn tag_of_from(&self) -> String {
        text(self.message().head.from.tag.of(self.bytes()))
    }

    #[getter]
    fn call_id(&self) -> String {
        text(self.message().call_id())
    }

    #[getter]
    fn cseq(&self) -> u32 {
        self.message().head.cseq
    }

    #[getter]
    fn max_forwards(&self) -> Option<u8> {
        self.message().head.max_forwards
    }

    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.message().body())
    }

    /// The gateway that sent it, by its address; empty for none.
    #[getter]
    fn gateway(&self) -> String {
        let view = self.view();
        if view.event == edge::PolicyEvent::Request as u8 { view.target.to_owned() } else { String::new() }
    }

    /// The account that it proved to be of, `user@domain`; empty where it did not have to.
    #[getter]
    fn account(&self) -> &str {
        self.view().account.split('\u{1f}').next().unwrap_or_default()
    }

    /// What the database says of that account, by name; a name may stand more than once.
    #[getter]
    fn account_attributes(&self) -> Vec<(&str, &str)> {
        self.view().account.split('\u{1f}').skip(1).filter_map(|pair| pair.split_once('=')).collect()
    }

    #[getter]
    fn peer(&self) -> &str {
        self.view().peer
    }

    #[getter]
    fn listener(&self) -> &str {
        self.view().listener
    }

    #[getter]
    fn transport(&self) -> String {
        self.view().transport.to_ascii_lowercase()
    }

    #[getter]
    fn source(&self) -> (String, u16) {
        let (ip, port) = self.view().source;
        (ip.to_string(), port)
    }

    #[getter]
    fn trace_id(&self) -> String {
        self.view().trace.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The first value of a header field, unfolded; `None` where there is none.
    fn header<'py>(&self, py: Python<'py>, name: &str) -> Option<Bound<'py, PyString>> {
        self.slots(name).next().map(|value| self.value(py, value))
    }

    /// Every value of a header field, line by line.
    fn headers<'py>(&self, py: Python<'py>, name: &str) -> Vec<Bound<'py, PyString>> {
        self.slots(name).map(|value| self.value(py, value)).collect()
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.bytes())
    }

    fn __repr__(&self) -> String {
        format!("<Request {}>", text(self.bytes().split(|byte| *byte == b'\r').next().unwrap_or_default()))
    }
}

impl Request {
    fn slots<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Span> + 'a {
        let known = HeaderName::from_bytes(name.as_bytes());
        let message = self.message();
        let same = move |slot: &&syntax::Slot| {
            if known == HeaderName::Other { syntax::same_name(message.text(slot.name_span), name.as_bytes()) } else { slot.name == known }
        };
        message.head.slots().iter().filter(same).map(|slot| slot.value)
    }
}
