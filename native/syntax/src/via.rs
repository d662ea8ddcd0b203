//! The topmost Via header field value (RFC 3261 section 20.42, RFC 3581).

use crate::cursor::{Cursor, is_lws, number};
use crate::{Span, Transport};

/// The `rport` parameter of RFC 3581.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rport {
    /// Not there.
    #[default]
    Absent,
    /// There without a value: the sender asks to be answered where it sent from. The offset is that behind the name.
    Asked(u16),
    /// There with a value.
    Port(u16),
}

/// One via-parm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Via {
    /// The whole element without surrounding white space.
    pub element: Span,
    /// Where the next element of the same header line starts; empty where this is the last.
    pub rest: Span,
    /// The transport; `None` for one that we do not know.
    pub transport: Option<Transport>,
    /// Host of sent-by, an IPv6 address with its brackets.
    pub host: Span,
    /// Port of sent-by.
    pub port: Option<u16>,
    /// The branch parameter; empty where absent.
    pub branch: Span,
    /// The received parameter; empty where absent.
    pub received: Span,
    /// The maddr parameter; empty where absent.
    pub maddr: Span,
    /// The rport parameter.
    pub rport: Rport,
}

impl Via {
    /// Parses the first via-parm in `span` of `bytes`, or `None` where it breaks the grammar.
    pub fn parse(bytes: &[u8], span: Span) -> Option<Self> {
        let (via, whole) = Self::parse_leniently(bytes, span);
        whole.then_some(via)
    }

    /// The same, with what could be read of a broken one: enough to answer its sender.
    pub(crate) fn parse_leniently(bytes: &[u8], span: Span) -> (Self, bool) {
        let mut via = Self::default();
        let whole = via.read(bytes, span).is_some();
        if !whole {
            via.element = span;
        }
        (via, whole)
    }

    fn read(&mut self, bytes: &[u8], span: Span) -> Option<()> {
        let mut cursor = Cursor::new(bytes, span.start(), span.end());
        cursor.lws();
        let start = cursor.at();
        let (s, e) = cursor.token()?;
        let protocol = cursor.slice(s, e);
        if !cursor.eat_separator(b'/') {
            return None;
        }
        let (s, e) = cursor.token()?;
        let known = protocol.eq_ignore_ascii_case(b"SIP") && cursor.slice(s, e) == b"2.0";
        if !cursor.eat_separator(b'/') {
            return None;
        }
        let (s, e) = cursor.token()?;
        self.transport = Transport::from_bytes(cursor.slice(s, e));
        if !cursor.peek().is_some_and(is_lws) {
            return None;
        }
        cursor.lws();
        self.host = host(&mut cursor)?;
        if cursor.eat_separator(b':') {
            let (s, e) = cursor.take_while(|b| b.is_ascii_digit());
            self.port = Some(number(cursor.slice(s, e), 65_535)? as u16);
        }
        let mut end = cursor.at();
        while cursor.eat_separator(b';') {
            let (name, value) = cursor.param()?;
            end = cursor.at();
            self.take_param(&cursor, name, value)?;
        }
        self.element = Span::new(start, end);
        if cursor.eat_separator(b',') {
            cursor.peek()?;
            self.rest = Span::new(cursor.at(), span.end());
            return known.then_some(());
        }
        cursor.lws();
        (known && cursor.peek().is_none()).then_some(())
    }

    fn take_param(&mut self, cursor: &Cursor<'_>, name: (usize, usize), value: Option<(usize, usize)>) -> Option<()> {
        let span = value.map_or_else(Span::default, |(s, e)| Span::new(s, e));
        let key = cursor.slice(name.0, name.1);
        if key.eq_ignore_ascii_case(b"branch") {
            self.branch = span;
        } else if key.eq_ignore_ascii_case(b"received") {
            self.received = span;
        } else if key.eq_ignore_ascii_case(b"maddr") {
            self.maddr = span;
        } else if key.eq_ignore_ascii_case(b"rport") {
            self.rport = match value {
                None => Rport::Asked(u16::try_from(name.1).ok()?),
                Some((s, e)) => Rport::Port(number(cursor.slice(s, e), 65_535)? as u16),
            };
        }
        Some(())
    }

    /// Whether the branch carries the magic cookie and something behind it, so that it is unique (RFC 3261 section 17.2.3).
    pub fn has_unique_branch(&self, bytes: &[u8]) -> bool {
        let branch = self.branch.of(bytes);
        branch.len() > crate::MAGIC_COOKIE.len() && branch.get(..7).is_some_and(|p| p.eq_ignore_ascii_case(crate::MAGIC_COOKIE))
    }
}

/// Takes a host: a name, an IPv4 address, or an IPv6 reference in brackets.
pub(crate) fn host(cursor: &mut Cursor<'_>) -> Option<Span> {
    let start = cursor.at();
    if cursor.eat(b'[') {
        let (s, e) = cursor.take_while(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'));
        return (e > s && cursor.eat(b']')).then(|| Span::new(start, cursor.at()));
    }
    let (s, e) = cursor.take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    (e > s).then(|| Span::new(s, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Option<Via> {
        Via::parse(text, Span::new(0, text.len()))
    }

    #[test]
    fn white_space_may_stand_around_every_separator() {
        let text = b"SIP  / 2.0\r\n / UDP  [2001:db8::9] : 4000 ; ttl=16 ;\r\n branch = z9hG4bK1 , SIP/2.0/TCP b";
        let via = parse(text).unwrap();
        assert_eq!((via.host.of(text), via.port, via.branch.of(text)), (&b"[2001:db8::9]"[..], Some(4000), &b"z9hG4bK1"[..]));
        assert_eq!(via.rest.of(text), b"SIP/2.0/TCP b");
    }

    #[test]
    fn empty_parameters_and_elements_are_refused() {
        for text in [&b"SIP/2.0/UDP 192.0.2.15;;,;,,"[..], b"SIP/2.0/UDP", b"SIP/2.0/\x16UD~PTo :::]", b"SIP/2.0/UDP h:99999", b"SIP/2.0/UDP h;branch="] {
            assert_eq!(parse(text), None, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_received_address_of_ipv6_needs_no_brackets() {
        let text = b"SIP/2.0/UDP [2001:db8::9:1];received=2001:db8::9:255;rport;branch=z9hG4bKas3";
        let via = parse(text).unwrap();
        assert_eq!(via.received.of(text), b"2001:db8::9:255");
        assert!(matches!(via.rport, Rport::Asked(at) if text[..at as usize].ends_with(b"rport")));
    }
}
