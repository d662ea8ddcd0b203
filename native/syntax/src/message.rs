//! The parsed view of one message.

use crate::cursor::is_lws;
use crate::{HeaderName, MAX_HEADERS, Method, NameAddr, ParseError, Span, Uri, Via};

/// Whether a message is a request or a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MessageKind {
    /// Starts with a method.
    #[default]
    Request,
    /// Starts with the SIP version.
    Response,
}

/// One header field line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slot {
    /// The header field, where we know it.
    pub name: HeaderName,
    /// Whether the line needs repair on output: folded, white space before the colon, or a bare line feed.
    pub irregular: bool,
    /// The name as written.
    pub name_span: Span,
    /// The value without surrounding white space.
    pub value: Span,
    /// The line with its terminator.
    pub line: Span,
}

/// Offsets of everything that routing needs; reused from message to message, so that parsing allocates nothing.
pub struct Head {
    /// Request or response.
    pub kind: MessageKind,
    /// The request's method; for a response that of CSeq.
    pub method: Method,
    /// The method as written.
    pub method_span: Span,
    /// The status code of a response, 0 for a request.
    pub status_code: u16,
    /// The reason phrase of a response.
    pub reason_phrase: Span,
    /// The Request-URI.
    pub request_uri: Uri,
    /// The topmost Via header field value.
    pub via: Via,
    /// From.
    pub from: NameAddr,
    /// To.
    pub to: NameAddr,
    /// Call-ID.
    pub call_id: Span,
    /// The number of CSeq.
    pub cseq: u32,
    /// The method of CSeq as written.
    pub cseq_method: Span,
    /// Max-Forwards, where present.
    pub max_forwards: Option<u8>,
    /// Content-Length, where present.
    pub content_length: Option<u32>,
    /// The body.
    pub body: Span,
    /// Where the first header field line starts.
    pub headers_start: u16,
    /// Where the header fields end: the offset of the empty line.
    pub headers_end: u16,
    /// Whether any slot is irregular, or the empty line is not CRLF.
    pub irregular: bool,
    pub(crate) start_line_bare_lf: bool,
    pub(crate) fault: Option<ParseError>,
    pub(crate) vias: u8,
    pub(crate) count: u8,
    pub(crate) first: [u8; HeaderName::COUNT],
    pub(crate) slots: [Slot; MAX_HEADERS],
}

pub(crate) const ABSENT: u8 = u8::MAX;

impl Default for Head {
    fn default() -> Self {
        Self {
            kind: MessageKind::Request,
            method: Method::Other,
            method_span: Span::default(),
            status_code: 0,
            reason_phrase: Span::default(),
            request_uri: Uri::default(),
            via: Via::default(),
            from: NameAddr::default(),
            to: NameAddr::default(),
            call_id: Span::default(),
            cseq: 0,
            cseq_method: Span::default(),
            max_forwards: None,
            content_length: None,
            body: Span::default(),
            headers_start: 0,
            headers_end: 0,
            irregular: false,
            start_line_bare_lf: false,
            fault: None,
            vias: 0,
            count: 0,
            first: [ABSENT; HeaderName::COUNT],
            slots: [Slot::default(); MAX_HEADERS],
        }
    }
}

impl Head {
    /// Forgets the last message without touching the table of lines, which is only read up to its count.
    pub(crate) fn reset(&mut self) {
        self.kind = MessageKind::Request;
        self.method = Method::Other;
        self.method_span = Span::default();
        self.status_code = 0;
        self.reason_phrase = Span::default();
        self.request_uri = Uri::default();
        self.via = Via::default();
        self.from = NameAddr::default();
        self.to = NameAddr::default();
        self.call_id = Span::default();
        self.cseq = 0;
        self.cseq_method = Span::default();
        self.max_forwards = None;
        self.content_length = None;
        self.body = Span::default();
        self.headers_start = 0;
        self.headers_end = 0;
        self.irregular = false;
        self.start_line_bare_lf = false;
        self.fault = None;
        self.vias = 0;
        self.count = 0;
        self.first = [ABSENT; HeaderName::COUNT];
    }

    /// All header field lines in order.
    pub fn slots(&self) -> &[Slot] {
        self.slots.get(..usize::from(self.count)).unwrap_or_default()
    }
}

/// A message: its bytes and the offsets into them.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    /// The bytes as received, up to the end of the body.
    pub bytes: &'a [u8],
    /// The offsets.
    pub head: &'a Head,
}

impl<'a> Message<'a> {
    /// Joins bytes with the offsets that [`crate::parse`] made of them.
    pub const fn new(bytes: &'a [u8], head: &'a Head) -> Self {
        Self { bytes, head }
    }

    /// Whether this is a request.
    pub fn is_request(&self) -> bool {
        self.head.kind == MessageKind::Request
    }

    /// The bytes of a span.
    pub fn text(&self, span: Span) -> &'a [u8] {
        span.of(self.bytes)
    }

    /// The Call-ID.
    pub fn call_id(&self) -> &'a [u8] {
        self.text(self.head.call_id)
    }

    /// The first line of header field `name`.
    pub fn first(&self, name: HeaderName) -> Option<&'a Slot> {
        let index = *self.head.first.get(name as usize)?;
        if index == ABSENT { None } else { self.head.slots().get(usize::from(index)) }
    }

    /// Every line of header field `name`, in order.
    pub fn all(&self, name: HeaderName) -> impl Iterator<Item = &'a Slot> + use<'a> {
        let start = self.head.first.get(name as usize).copied().unwrap_or(ABSENT);
        self.head.slots().get(usize::from(start)..).unwrap_or_default().iter().filter(move |slot| slot.name == name)
    }

    /// Every line of a header field that routing does not know, by its name without case, in its long or its compact form.
    pub fn named(&self, name: &'static [u8]) -> impl Iterator<Item = &'a Slot> + use<'a> {
        let bytes = self.bytes;
        self.head.slots().iter().filter(move |slot| slot.name == HeaderName::Other && crate::same_name(slot.name_span.of(bytes), name))
    }

    /// Every comma-separated element of header field `name`, across its lines (RFC 3261 section 7.3.1).
    pub fn elements(&self, name: HeaderName) -> impl Iterator<Item = Span> + use<'a> {
        let bytes = self.bytes;
        self.all(name).flat_map(move |slot| list_elements(bytes, slot.value))
    }

    /// The body.
    pub fn body(&self) -> &'a [u8] {
        self.text(self.head.body)
    }
}

/// Splits a value at its commas, outside of quotes and angle brackets; elements come without surrounding white space.
pub fn list_elements(bytes: &[u8], value: Span) -> impl Iterator<Item = Span> + use<'_> {
    let mut at = value.start();
    let end = value.end().min(bytes.len());
    std::iter::from_fn(move || {
        while at < end && bytes.get(at).is_some_and(|b| is_lws(*b)) {
            at += 1;
        }
        if at >= end {
            return None;
        }
        let start = at;
        let (mut quoted, mut bracketed, mut escaped) = (false, false, false);
        // One walk along a slice: every list of every message comes by here.
        let comma = bytes.get(start..end)?.iter().position(|byte| {
            if escaped {
                escaped = false;
                return false;
            }
            match byte {
                b'\\' => escaped = quoted,
                b'"' => quoted = !quoted,
                b'<' if !quoted => bracketed = true,
                b'>' if !quoted => bracketed = false,
                b',' => return !quoted && !bracketed,
                _ => {}
            }
            false
        });
        let mut stop = comma.map_or(end, |comma| start + comma);
        at = stop + 1;
        while stop > start && bytes.get(stop - 1).is_some_and(|b| is_lws(*b)) {
            stop -= 1;
        }
        Some(Span::new(start, stop))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_inside_quotes_and_brackets_do_not_split() {
        let text = br#""a, \", b" <sip:x,y@h> , <sip:z@h>,sip:w@h"#;
        let found: Vec<_> = list_elements(text, Span::new(0, text.len())).map(|s| s.of(text)).collect();
        assert_eq!(found, [&br#""a, \", b" <sip:x,y@h>"#[..], b"<sip:z@h>", b"sip:w@h"]);
    }
}
