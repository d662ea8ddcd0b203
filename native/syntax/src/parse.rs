//! The parse: one pass over the lines, offsets out, nothing copied.

use crate::cursor::{Cursor, is_lws, is_token, number};
use crate::message::ABSENT;
use crate::{Field, Head, HeaderName, Limits, MAX_HEADERS, MessageKind, Method, ParseError, Scheme, Slot, Span, Uri, Via, parse_name_addr};

/// Highest CSeq number (RFC 3261 section 8.1.1.5).
const MAX_CSEQ: u64 = (1 << 31) - 1;

/// Parses `bytes` into `head`.
///
/// `head` is filled as far as possible even where an error is returned, so that a broken request can be answered.
/// Bytes behind the body that Content-Length names are left out (RFC 3261 section 18.3).
///
/// # Errors
/// The first fault found, in the order of the message.
pub fn parse(bytes: &[u8], limits: &Limits, head: &mut Head) -> Result<(), ParseError> {
    head.reset();
    if bytes.len() > limits.message_bytes.min(usize::from(u16::MAX)) {
        return Err(ParseError::TooLarge { field: Field::StartLine });
    }
    let start = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n')).ok_or(ParseError::NotSip)?;
    let line = Line::at(bytes, start).ok_or(ParseError::NotSip)?;
    start_line(bytes, &line, limits, head)?;
    head.headers_start = line.next as u16;
    head.start_line_bare_lf = line.bare_lf;
    head.irregular = line.bare_lf;
    let crlf_lines = scan(bytes, line.next, limits, head) + usize::from(!line.bare_lf);
    let section = bytes.get(start..usize::from(head.headers_end)).unwrap_or_default();
    // A carriage return that ends no line, or a NUL, may end the line for the next hop: that would smuggle a header field.
    if memchr::memchr_iter(b'\r', section).count() != crlf_lines {
        head.fail(ParseError::Malformed { field: Field::HeaderValue, at: head.headers_start });
    }
    // RFC 3261 section 25.1: only as a quoted pair may a NUL stand in a value.
    if let Some(at) = memchr::memchr_iter(0, section).find(|at| *at == 0 || section.get(at - 1) != Some(&b'\\')) {
        head.fail(ParseError::Malformed { field: Field::HeaderValue, at: (start + at) as u16 });
    }
    body(bytes, limits, head);
    mandatory(bytes, head);
    head.fault.map_or(Ok(()), Err)
}

/// One line and where the next one starts.
struct Line {
    start: usize,
    end: usize,
    next: usize,
    bare_lf: bool,
}

impl Line {
    fn at(bytes: &[u8], start: usize) -> Option<Self> {
        let feed = start + memchr::memchr(b'\n', bytes.get(start..)?)?;
        let bare_lf = feed == start || bytes.get(feed - 1) != Some(&b'\r');
        Some(Self { start, end: if bare_lf { feed } else { feed - 1 }, next: feed + 1, bare_lf })
    }
}

impl Head {
    fn fail(&mut self, error: ParseError) {
        self.fault.get_or_insert(error);
    }
}

fn start_line(bytes: &[u8], line: &Line, limits: &Limits, head: &mut Head) -> Result<(), ParseError> {
    let text = Span::new(line.start, line.end).of(bytes);
    if text.get(..4).is_some_and(|p| p.eq_ignore_ascii_case(b"SIP/")) {
        return status_line(text, line.start, head);
    }
    let malformed = ParseError::Malformed { field: Field::StartLine, at: line.start as u16 };
    let method_end = memchr::memchr(b' ', text).ok_or(ParseError::NotSip)?;
    let uri_end = memchr::memrchr(b' ', text).ok_or(ParseError::NotSip)?;
    let method = text.get(..method_end).unwrap_or_default();
    if method.is_empty() || !method.iter().all(|b| is_token(*b)) {
        return Err(ParseError::NotSip);
    }
    head.method = Method::from_bytes(method);
    head.method_span = Span::new(line.start, line.start + method_end);
    let version = text.get(uri_end + 1..).unwrap_or_default();
    if !version.get(..4).is_some_and(|p| p.eq_ignore_ascii_case(b"SIP/")) {
        // White space behind the version or inside the Request-URI: still meant as SIP, so it may be answered.
        return if memchr::memmem::find(text, b"SIP/2.0").is_some() {
            head.fail(malformed);
            Ok(())
        } else {
            Err(ParseError::NotSip)
        };
    }
    if !version.eq_ignore_ascii_case(b"SIP/2.0") {
        head.fail(ParseError::Version);
    }
    let uri = Span::new(line.start + method_end + 1, line.start + uri_end);
    if uri.len() > limits.uri_bytes {
        head.fail(ParseError::TooLarge { field: Field::RequestUri });
        return Ok(());
    }
    match Uri::parse(bytes, uri) {
        // RFC 3261 section 19.1.1: a Request-URI has no headers.
        Ok(parsed) if !parsed.headers.is_empty() => head.fail(ParseError::Malformed { field: Field::RequestUri, at: uri.start() as u16 }),
        Ok(parsed) => {
            head.request_uri = parsed;
            if parsed.scheme == Scheme::Other {
                head.fail(ParseError::UnknownScheme);
            }
        }
        Err(error) => head.fail(error),
    }
    Ok(())
}

fn status_line(text: &[u8], start: usize, head: &mut Head) -> Result<(), ParseError> {
    head.kind = MessageKind::Response;
    let malformed = ParseError::Malformed { field: Field::StartLine, at: start as u16 };
    if !text.get(..8).is_some_and(|v| v.eq_ignore_ascii_case(b"SIP/2.0 ")) {
        return Err(ParseError::Version);
    }
    let code = text.get(8..11).and_then(|digits| number(digits, 699)).ok_or(malformed)?;
    // RFC 3261 section 25.1 wants a space even before an empty reason phrase; its absence harms nobody.
    if code < 100 || !matches!(text.get(11), None | Some(b' ')) {
        return Err(malformed);
    }
    head.status_code = code as u16;
    head.reason_phrase = Span::new(start + 12.min(text.len()), start + text.len());
    Ok(())
}

/// Walks the header field lines and returns how many lines ended in CRLF, folds counted.
fn scan(bytes: &[u8], mut at: usize, limits: &Limits, head: &mut Head) -> usize {
    let mut crlf_lines = 0;
    loop {
        if at == bytes.len() {
            // A datagram that ends behind a whole line lacks only the empty one, which is added on output.
            head.headers_end = at as u16;
            head.body = Span::new(at, at);
            head.irregular = true;
            return crlf_lines;
        }
        let Some(mut line) = Line::at(bytes, at) else {
            head.fail(ParseError::Malformed { field: Field::HeaderName, at: at.min(bytes.len()) as u16 });
            head.headers_end = at.min(bytes.len()) as u16;
            head.body = Span::new(at, at);
            return crlf_lines;
        };
        if line.end == line.start {
            head.headers_end = line.start as u16;
            head.irregular |= line.bare_lf;
            head.body = Span::new(line.next, bytes.len());
            return crlf_lines;
        }
        crlf_lines += usize::from(!line.bare_lf);
        let mut irregular = line.bare_lf;
        // RFC 3261 section 7.3.1: a line that starts with white space continues the one before.
        while matches!(bytes.get(line.next), Some(b' ' | b'\t')) {
            let Some(more) = Line::at(bytes, line.next) else { break };
            crlf_lines += usize::from(!more.bare_lf);
            irregular = true;
            line = Line { start: line.start, end: more.end, next: more.next, bare_lf: more.bare_lf };
        }
        at = line.next;
        header_line(bytes, &line, irregular, limits, head);
    }
}

fn header_line(bytes: &[u8], line: &Line, irregular: bool, limits: &Limits, head: &mut Head) {
    let mut cursor = Cursor::new(bytes, line.start, line.end);
    let Some((start, end)) = cursor.token() else {
        return head.fail(ParseError::Malformed { field: Field::HeaderName, at: line.start as u16 });
    };
    cursor.take_while(|b| matches!(b, b' ' | b'\t'));
    let spaced = cursor.at() != end;
    if !cursor.eat(b':') {
        return head.fail(ParseError::Malformed { field: Field::HeaderName, at: cursor.at() as u16 });
    }
    cursor.lws();
    let value_start = cursor.at();
    let mut value_end = line.end;
    while value_end > value_start && bytes.get(value_end - 1).is_some_and(|b| is_lws(*b)) {
        value_end -= 1;
    }
    if end - start > limits.header_name_bytes {
        return head.fail(ParseError::TooLarge { field: Field::HeaderName });
    }
    if value_end - value_start > limits.header_value_bytes {
        return head.fail(ParseError::TooLarge { field: Field::HeaderValue });
    }
    let index = head.count;
    if usize::from(index) >= limits.headers.min(MAX_HEADERS) {
        return head.fail(ParseError::TooLarge { field: Field::HeaderName });
    }
    let slot = Slot {
        name: HeaderName::from_bytes(cursor.slice(start, end)),
        irregular: irregular || spaced,
        name_span: Span::new(start, end),
        value: Span::new(value_start, value_end),
        line: Span::new(line.start, line.next),
    };
    head.irregular |= slot.irregular;
    if let Some(entry) = head.slots.get_mut(usize::from(index)) {
        *entry = slot;
    }
    head.count += 1;
    let mut repeated = false;
    if let Some(first) = head.first.get_mut(slot.name as usize) {
        repeated = *first != ABSENT;
        if !repeated {
            *first = index;
        }
    }
    value(bytes, &slot, repeated, limits, head);
}

/// Reads the value of a header field that routing needs.
fn value(bytes: &[u8], slot: &Slot, repeated: bool, limits: &Limits, head: &mut Head) {
    let text = slot.value.of(bytes);
    let field = match slot.name {
        HeaderName::Via => Field::Via,
        HeaderName::From => Field::From,
        HeaderName::To => Field::To,
        HeaderName::CallId => Field::CallId,
        HeaderName::CSeq => Field::CSeq,
        HeaderName::MaxForwards => Field::MaxForwards,
        HeaderName::ContentLength => Field::ContentLength,
        _ => return,
    };
    let malformed = ParseError::Malformed { field, at: slot.value.start() as u16 };
    if repeated && field == Field::Via {
        head.vias += 1;
        if usize::from(head.vias) >= limits.vias {
            head.fail(ParseError::TooLarge { field });
        }
        return;
    }
    if repeated && field != Field::ContentLength {
        return head.fail(ParseError::Repeated { field });
    }
    match field {
        Field::Via => {
            let (via, whole) = Via::parse_leniently(bytes, slot.value);
            head.via = via;
            if !whole {
                head.fail(malformed);
            }
        }
        Field::From => match parse_name_addr(bytes, slot.value) {
            Some(element) => head.from = element,
            None => head.fail(malformed),
        },
        Field::To => match parse_name_addr(bytes, slot.value) {
            Some(element) => head.to = element,
            None => head.fail(malformed),
        },
        Field::CallId => {
            if text.is_empty() || text.iter().any(|b| *b <= b' ' || *b == 0x7f) || text.len() > limits.header_value_bytes {
                return head.fail(malformed);
            }
            head.call_id = slot.value;
        }
        Field::CSeq => {
            let mut cursor = Cursor::new(bytes, slot.value.start(), slot.value.end());
            let (s, e) = cursor.take_while(|b| b.is_ascii_digit());
            let parsed = number(cursor.slice(s, e), MAX_CSEQ);
            let spaced = cursor.peek().is_some_and(is_lws);
            cursor.lws();
            match (parsed, cursor.token()) {
                (Some(cseq), Some((s, e))) if spaced && cursor.peek().is_none() => {
                    head.cseq = cseq as u32;
                    head.cseq_method = Span::new(s, e);
                }
                _ => head.fail(malformed),
            }
        }
        Field::MaxForwards => match number(text, 255) {
            Some(hops) => head.max_forwards = Some(hops as u8),
            None => head.fail(malformed),
        },
        _ => match number(text, u64::from(u32::MAX)) {
            None => head.fail(malformed),
            Some(length) if repeated && head.content_length != Some(length as u32) => head.fail(ParseError::Repeated { field }),
            Some(length) => head.content_length = Some(length as u32),
        },
    }
}

fn body(bytes: &[u8], limits: &Limits, head: &mut Head) {
    if let Some(length) = head.content_length {
        let length = length as usize;
        if length > bytes.len() - head.body.start().min(bytes.len()) {
            return head.fail(ParseError::Truncated);
        }
        head.body = Span::new(head.body.start(), head.body.start() + length);
    }
    if head.body.len() > limits.body_bytes {
        head.fail(ParseError::TooLarge { field: Field::Body });
    }
}

fn mandatory(bytes: &[u8], head: &mut Head) {
    for (name, field) in [
        (HeaderName::Via, Field::Via),
        (HeaderName::From, Field::From),
        (HeaderName::To, Field::To),
        (HeaderName::CallId, Field::CallId),
        (HeaderName::CSeq, Field::CSeq),
    ] {
        if head.first.get(name as usize) == Some(&ABSENT) {
            head.fail(ParseError::Missing { field });
        }
    }
    let method = head.cseq_method.of(bytes);
    match head.kind {
        MessageKind::Request => {
            if !method.is_empty() && method != head.method_span.of(bytes) {
                head.fail(ParseError::CSeqMismatch);
            }
        }
        MessageKind::Response => head.method = Method::from_bytes(method),
    }
}
