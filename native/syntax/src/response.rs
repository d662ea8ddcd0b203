//! Responses that we make ourselves (RFC 3261 section 8.2.6).

use std::io::Write;
use std::net::SocketAddr;

use crate::cursor::is_lws;
use crate::{Head, HeaderName, Message, MessageKind, Method, Rport, Span, reason_phrase};

/// Whether the request in `head`, however broken, says where its sender wants to be answered, and is not an ACK.
/// What it lacks of From, To, Call-ID and CSeq the response lacks too (RFC 4475 section 3.3.1).
pub fn is_answerable(head: &Head) -> bool {
    head.kind == MessageKind::Request && head.method != Method::Ack && !head.via.host.is_empty()
}

/// What a response made here says.
#[derive(Clone, Copy)]
pub struct LocalReply<'a> {
    /// The status code.
    pub status_code: u16,
    /// Another reason phrase than the customary one.
    pub reason_phrase: Option<&'a str>,
    /// The tag to add to To where the request has none; empty for 100.
    pub to_tag: &'a [u8],
    /// Another value of From than the request has it by now: that with which it came.
    pub from: Option<&'a [u8]>,
    /// Where the request came from, for `received` and `rport`.
    pub source: SocketAddr,
    /// Complete header field lines to add.
    pub headers: &'a [u8],
    /// The body; its Content-Type is among the header fields.
    pub body: &'a [u8],
}

impl LocalReply<'_> {
    /// Appends the response to `request` to `out`.
    pub fn write(&self, request: &Message<'_>, out: &mut Vec<u8>) {
        let phrase = self.reason_phrase.unwrap_or(reason_phrase(self.status_code));
        out.extend_from_slice(b"SIP/2.0 ");
        push_decimal(u64::from(self.status_code), out);
        out.push(b' ');
        out.extend_from_slice(phrase.as_bytes());
        out.extend_from_slice(b"\r\n");
        let mut top = true;
        for slot in request.all(HeaderName::Via) {
            out.extend_from_slice(b"Via: ");
            if std::mem::take(&mut top) {
                self.write_top_via(request, slot.value, out);
            } else {
                push_unfolded(slot.value.of(request.bytes), out);
            }
            out.extend_from_slice(b"\r\n");
        }
        for (name, label) in [(HeaderName::From, "From: "), (HeaderName::To, "To: "), (HeaderName::CallId, "Call-ID: "), (HeaderName::CSeq, "CSeq: ")] {
            let Some(slot) = request.first(name) else { continue };
            out.extend_from_slice(label.as_bytes());
            let changed = self.from.filter(|_| name == HeaderName::From);
            push_unfolded(changed.unwrap_or_else(|| slot.value.of(request.bytes)), out);
            if name == HeaderName::To && request.head.to.tag.is_empty() && !self.to_tag.is_empty() {
                out.extend_from_slice(b";tag=");
                out.extend_from_slice(self.to_tag);
            }
            out.extend_from_slice(b"\r\n");
        }
        if self.status_code == 100
            && let Some(slot) = request.first(HeaderName::Timestamp)
        {
            out.extend_from_slice(b"Timestamp: ");
            push_unfolded(slot.value.of(request.bytes), out);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(self.headers);
        out.extend_from_slice(b"Content-Length: ");
        push_decimal(self.body.len() as u64, out);
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(self.body);
    }

    /// RFC 3261 section 18.2.1 and RFC 3581 section 4: tell the sender how it was seen.
    fn write_top_via(&self, request: &Message<'_>, value: Span, out: &mut Vec<u8>) {
        let via = &request.head.via;
        let end = via.element.end();
        let ip = self.source.ip().to_canonical();
        let asked = match via.rport {
            Rport::Asked(at) => Some(Span::new(usize::from(at), usize::from(at))),
            Rport::Absent | Rport::Port(_) => None,
        };
        // A sender may not say where it was received from.
        let said = (!via.received.is_empty()).then_some(via.received);
        let mut changes = [asked.map(|at| (at, true)), said.map(|at| (at, false))];
        changes.sort_unstable_by_key(|change| change.map(|(at, _)| at.start()));
        let mut copied = value.start();
        for (at, is_port) in changes.into_iter().flatten() {
            push_unfolded(Span::new(copied, at.start()).of(request.bytes), out);
            copied = at.end();
            if is_port {
                out.push(b'=');
                push_decimal(u64::from(self.source.port()), out);
            } else {
                // Writing to a Vec cannot fail.
                let _ = write!(out, "{ip}");
            }
        }
        push_unfolded(Span::new(copied, end).of(request.bytes), out);
        if said.is_none() && (asked.is_some() || crate::parse_ip(via.host.of(request.bytes)) != Some(ip)) {
            let _ = write!(out, ";received={ip}");
        }
        push_unfolded(Span::new(end, value.end()).of(request.bytes), out);
    }
}

/// Appends `number` as decimal digits: what the standard library's formatting does at five times the cost, and every message has some.
pub fn push_decimal(number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        if let Some(place) = digits.get_mut(at) {
            *place = b'0' + (rest % 10) as u8;
        }
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

/// Appends `value` with every fold as one space.
pub fn push_unfolded(value: &[u8], out: &mut Vec<u8>) {
    let mut rest = value;
    while let Some(at) = memchr::memchr2(b'\r', b'\n', rest) {
        out.extend_from_slice(rest.get(..at).unwrap_or_default());
        rest = rest.get(at..).unwrap_or_default();
        rest = rest.get(rest.iter().take_while(|b| is_lws(**b)).count()..).unwrap_or_default();
        out.push(b' ');
    }
    // A NUL ends a line for some readers; a broken request that holds one is still answered.
    out.extend(rest.iter().copied().filter(|b| *b != 0));
}

#[cfg(test)]
mod tests {
    use super::{LocalReply, push_decimal};
    use crate::{Head, Limits, Message, parse};

    #[test]
    fn the_topmost_via_says_where_it_was_seen_to_come_from_and_nothing_else() {
        for (via, wanted) in [
            ("SIP/2.0/UDP 198.51.100.7;branch=z9hG4bK1", "SIP/2.0/UDP 198.51.100.7;branch=z9hG4bK1"),
            ("SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1", "SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1;received=198.51.100.7"),
            ("SIP/2.0/UDP 10.0.0.1;rport;branch=z9hG4bK1", "SIP/2.0/UDP 10.0.0.1;rport=5066;branch=z9hG4bK1;received=198.51.100.7"),
            ("SIP/2.0/UDP a;received=203.0.113.9;rport;branch=z9hG4bK1", "SIP/2.0/UDP a;received=198.51.100.7;rport=5066;branch=z9hG4bK1"),
            ("SIP/2.0/UDP a;rport;received=203.0.113.9, SIP/2.0/UDP b", "SIP/2.0/UDP a;rport=5066;received=198.51.100.7, SIP/2.0/UDP b"),
        ] {
            let text = format!("OPTIONS sip:x SIP/2.0\r\nVia: {via}\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>\r\nCall-ID: c\r\nCSeq: 1 OPTIONS\r\n\r\n");
            let mut head = Head::default();
            parse(text.as_bytes(), &Limits::STANDARD, &mut head).unwrap();
            let source = "198.51.100.7:5066".parse().unwrap();
            let mut out = Vec::new();
            LocalReply { status_code: 606, reason_phrase: None, to_tag: b"t", from: None, source, headers: b"", body: b"" }
                .write(&Message::new(text.as_bytes(), &head), &mut out);
            let answer = String::from_utf8(out).unwrap();
            assert!(answer.starts_with(&format!("SIP/2.0 606 Not Acceptable\r\nVia: {wanted}\r\n")), "{answer}");
        }
    }

    #[test]
    fn digits_are_those_of_the_standard_library() {
        for number in [0, 9, 10, 200, 65_535, u64::MAX] {
            let mut out = b"x".to_vec();
            push_decimal(number, &mut out);
            assert_eq!(out, format!("x{number}").into_bytes());
        }
    }
}
