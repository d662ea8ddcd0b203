//! SIP, SIPS and tel URIs (RFC 3261 section 19.1, RFC 3966); any other scheme is kept as text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::cursor::{Cursor, is_token, number};
use crate::via::host;
use crate::{Field, ParseError, Span};

/// A transport protocol as Via and the transport parameter name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each variant is the transport of its name")]
pub enum Transport {
    Udp,
    Tcp,
    Tls,
    Ws,
    Wss,
    Sctp,
}

impl Transport {
    /// The transport of this name, compared without case.
    pub fn from_bytes(name: &[u8]) -> Option<Self> {
        [Self::Udp, Self::Tcp, Self::Tls, Self::Ws, Self::Wss, Self::Sctp].into_iter().find(|t| name.eq_ignore_ascii_case(t.as_str().as_bytes()))
    }

    /// The name as Via writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
            Self::Ws => "WS",
            Self::Wss => "WSS",
            Self::Sctp => "SCTP",
        }
    }

    /// Whether the transport delivers by itself, so that nothing is retransmitted (RFC 3261 section 17).
    pub const fn is_reliable(self) -> bool {
        !matches!(self, Self::Udp)
    }

    /// The port where none is written (RFC 3261 section 19.1.2, RFC 7118 section 5.2).
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp | Self::Sctp => 5060,
            Self::Tls => 5061,
            Self::Ws => 80,
            Self::Wss => 443,
        }
    }
}

/// The scheme of a URI.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `sip:`
    Sip,
    /// `sips:`
    Sips,
    /// `tel:`
    Tel,
    /// `urn:service:`, as emergency calls have it (RFC 5031).
    Service,
    /// Any other.
    #[default]
    Other,
}

/// A URI, as spans into the message that holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uri {
    /// The scheme.
    pub scheme: Scheme,
    /// The whole URI.
    pub whole: Span,
    /// User part without password, or the number of a tel URI; empty where absent.
    pub user: Span,
    /// Host, an IPv6 address with its brackets; empty for tel and other schemes.
    pub host: Span,
    /// Port.
    pub port: Option<u16>,
    /// Everything from the first parameter's semicolon up to the headers.
    pub params: Span,
    /// Everything behind the question mark; empty where absent.
    pub headers: Span,
    /// The transport parameter, where we know its value.
    pub transport: Option<Transport>,
    /// The maddr parameter; empty where absent.
    pub maddr: Span,
    /// The lr parameter, which marks a loose router (RFC 3261 section 16.12).
    pub loose: bool,
}

const MALFORMED: fn(usize) -> ParseError = |at| ParseError::Malformed { field: Field::RequestUri, at: at as u16 };

impl Uri {
    /// Parses the URI in `span` of `bytes`.
    ///
    /// # Errors
    /// [`ParseError::Malformed`] with the offset of the first byte that breaks the grammar.
    pub fn parse(bytes: &[u8], span: Span) -> Result<Self, ParseError> {
        let mut cursor = Cursor::new(bytes, span.start(), span.end());
        let (s, e) = cursor.take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
        if s == e || !cursor.slice(s, e).first().is_some_and(u8::is_ascii_alphabetic) || !cursor.eat(b':') {
            return Err(MALFORMED(cursor.at()));
        }
        let name = cursor.slice(s, e);
        let mut uri = Self { whole: span, ..Self::default() };
        uri.scheme = if name.eq_ignore_ascii_case(b"sip") {
            Scheme::Sip
        } else if name.eq_ignore_ascii_case(b"sips") {
            Scheme::Sips
        } else if name.eq_ignore_ascii_case(b"tel") {
            Scheme::Tel
        } else if name.eq_ignore_ascii_case(b"urn") && cursor.rest().get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"service:")) {
            Scheme::Service
        } else {
            Scheme::Other
        };
        // No byte of any URI is a control, a space, a quote or an angle bracket (RFC 3986 section 2).
        if let Some(bad) = cursor.rest().iter().position(|b| *b <= b' ' || matches!(b, b'"' | b'<' | b'>' | 0x7f..)) {
            return Err(MALFORMED(cursor.at() + bad));
        }
        match uri.scheme {
            Scheme::Sip | Scheme::Sips => uri.parse_sip(&mut cursor)?,
            Scheme::Tel => {
                let (s, e) = cursor.take_while(|b| b != b';');
                if s == e {
                    return Err(MALFORMED(s));
                }
                uri.user = Span::new(s, e);
                uri.params = Span::new(e, cursor.end());
            }
            Scheme::Service | Scheme::Other => {
                if cursor.rest().is_empty() {
                    return Err(MALFORMED(cursor.at()));
                }
            }
        }
        Ok(uri)
    }

    fn parse_sip(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ParseError> {
        let start = cursor.at();
        if let Some(at) = memchr::memchr(b'@', cursor.rest()) {
            let info = cursor.slice(start, start + at);
            let user = memchr::memchr(b':', info).unwrap_or(at);
            if user == 0 || !escapes_are_whole(info) {
                return Err(MALFORMED(start));
            }
            self.user = Span::new(start, start + user);
            cursor.jump(start + at + 1);
        }
        self.host = host(cursor).ok_or_else(|| MALFORMED(cursor.at()))?;
        if cursor.eat(b':') {
            let (s, e) = cursor.take_while(|b| b.is_ascii_digit());
            self.port = Some(number(cursor.slice(s, e), 65_535).ok_or_else(|| MALFORMED(s))? as u16);
        }
        let params = cursor.at();
        while cursor.eat(b';') {
            self.take_param(cursor)?;
        }
        self.params = Span::new(params, cursor.at());
        if cursor.eat(b'?') {
            self.headers = Span::new(cursor.at(), cursor.end());
            cursor.jump(cursor.end());
        }
        if cursor.peek().is_some() { Err(MALFORMED(cursor.at())) } else { Ok(()) }
    }

    fn take_param(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ParseError> {
        let accept = |b: u8| is_token(b) || matches!(b, b'[' | b']' | b'/' | b':' | b'&' | b'+' | b'$' | b'(' | b')');
        let (s, e) = cursor.take_while(accept);
        if s == e {
            return Err(MALFORMED(s));
        }
        let name = cursor.slice(s, e);
        let mut value = Span::default();
        if cursor.eat(b'=') {
            let (s, e) = cursor.take_while(accept);
            if s == e {
                return Err(MALFORMED(s));
            }
            value = Span::new(s, e);
        }
        let text = cursor.slice(value.start(), value.end());
        if name.eq_ignore_ascii_case(b"lr") {
            self.loose = true;
        } else if name.eq_ignore_ascii_case(b"transport") {
            self.transport = Transport::from_bytes(text);
        } else if name.eq_ignore_ascii_case(b"maddr") {
            self.maddr = value;
        }
        Ok(())
    }
}

/// The value of URI parameter `name` among `params`; empty where it has none, `None` where it is absent. Escapes stay as they are.
pub fn uri_param<'a>(bytes: &'a [u8], params: Span, name: &[u8]) -> Option<&'a [u8]> {
    params.of(bytes).split(|byte| *byte == b';').skip(1).find_map(|param| {
        let mut parts = param.splitn(2, |byte| *byte == b'=');
        let (key, value) = (parts.next()?, parts.next().unwrap_or_default());
        key.eq_ignore_ascii_case(name).then_some(value)
    })
}

/// Whether every percent sign starts an escape of two hexadecimal digits.
fn escapes_are_whole(text: &[u8]) -> bool {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'%', rest) {
        if !rest.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) {
            return false;
        }
        rest = rest.get(at + 3..).unwrap_or_default();
    }
    true
}

/// The address that `host` writes, with or without brackets; `None` for a name.
pub fn parse_ip(host: &[u8]) -> Option<IpAddr> {
    let inner = host.strip_prefix(b"[").and_then(|h| h.strip_suffix(b"]"));
    if inner.is_none()
        && let Some(v4) = parse_ipv4(host)
    {
        return Some(IpAddr::V4(v4));
    }
    std::str::from_utf8(inner.unwrap_or(host)).ok()?.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

/// Whether `host` is neither a name, whose last label is no number (RFC 3261 section 25.1), nor an address as SIP writes it: others
/// take `127.1`, `0x7f.1` and `2130706433` for addresses.
pub fn is_odd_address(host: &[u8]) -> bool {
    let last = host.rsplit(|byte| *byte == b'.').find(|label| !label.is_empty()).unwrap_or_default();
    let number = match last {
        [b'0', b'x' | b'X', digits @ ..] => digits.iter().all(u8::is_ascii_hexdigit),
        digits => !digits.is_empty() && digits.iter().all(u8::is_ascii_digit),
    };
    number && parse_ip(host).is_none()
}

/// Four decimal numbers without leading zeros. Every message has some, so that this does without the standard library's parser,
/// which knows all kinds of addresses and takes five times as long.
fn parse_ipv4(text: &[u8]) -> Option<Ipv4Addr> {
    let mut bits = 0u32;
    let (mut part, mut digits, mut dots) = (0u32, 0, 0);
    for byte in text {
        match byte {
            b'0'..=b'9' if digits < 3 && !(digits > 0 && part == 0) => {
                part = part * 10 + u32::from(byte - b'0');
                digits += 1;
            }
            b'.' if digits > 0 && part <= 255 && dots < 3 => {
                bits = bits << 8 | part;
                (part, digits) = (0, 0);
                dots += 1;
            }
            _ => return None,
        }
    }
    (dots == 3 && digits > 0 && part <= 255).then(|| Ipv4Addr::from_bits(bits << 8 | part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_by_name_with_all_that_a_value_may_have() {
        let text = b"sip:a@b;gr=urn:uuid:1-2;OB;pn-prid=x%3By?h=1";
        let uri = Uri::parse(text, Span::new(0, text.len())).unwrap();
        let param = |name: &str| uri_param(text, uri.params, name.as_bytes());
        assert_eq!([param("gr"), param("ob"), param("pn-prid"), param("h"), param("g")], [Some(&b"urn:uuid:1-2"[..]), Some(b""), Some(b"x%3By"), None, None]);
    }

    fn parse(text: &[u8]) -> Result<Uri, ParseError> {
        Uri::parse(text, Span::new(0, text.len()))
    }

    #[test]
    fn a_user_part_may_hold_what_looks_like_parameters() {
        let text = b"sip:user;par=u%40example.net@example.com:5070;transport=TCP;lr";
        let uri = parse(text).unwrap();
        assert_eq!(uri.user.of(text), b"user;par=u%40example.net");
        assert_eq!((uri.host.of(text), uri.port, uri.transport, uri.loose), (&b"example.com"[..], Some(5070), Some(Transport::Tcp), true));
    }

    #[test]
    fn addresses_are_those_that_the_standard_library_reads() {
        for text in [
            "1.2.3.4",
            "255.255.255.255",
            "0.0.0.0",
            "256.1.1.1",
            "1.2.3",
            "1.2.3.4.5",
            "01.2.3.4",
            "1.2.3.04",
            "1..2.3",
            ".1.2.3",
            "1.2.3.",
            "",
            "1.2.3.4 ",
            "1000.1.1.1",
            "a.b.c.d",
            "::1",
            "10.0.0.00",
        ] {
            assert_eq!(parse_ip(text.as_bytes()), text.parse().ok(), "{text}");
        }
    }

    #[test]
    fn what_some_take_for_addresses_is_no_name() {
        for text in ["127.1", "2130706433", "0x7f.1", "0x7F000001", "0x", "127.0.0.1.", "010.0.0.1", "256.1.1.1", "a.1"] {
            assert!(is_odd_address(text.as_bytes()), "{text}");
        }
        for text in ["127.0.0.1", "[::1]", "a", "1.a", "3cx", "0xg", "x", "host-1", "1.example", ""] {
            assert!(!is_odd_address(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn ipv6_hosts_keep_their_brackets() {
        let text = b"sip:[2001:db8::10:5070]";
        let uri = parse(text).unwrap();
        assert_eq!((uri.host.of(text), uri.port), (&b"[2001:db8::10:5070]"[..], None));
        assert_eq!(parse_ip(uri.host.of(text)), Some("2001:db8::10:5070".parse().unwrap()));
    }

    #[test]
    fn broken_uris_are_refused() {
        for text in [
            &b"sip:"[..],
            b"sip:@h",
            b"sip:u@",
            b"sip:u@h:",
            b"sip:u@h:70000",
            b"sip:2001:db8::10",
            b"sip:u @h",
            b"sip:u@h;=x",
            b"sip:u%@h",
            b"urn:",
            b":x",
            b"tel:",
        ] {
            assert!(parse(text).is_err(), "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn an_unknown_scheme_is_kept_whole() {
        assert_eq!(parse(b"urn:service:sos").unwrap().scheme, Scheme::Service);
        assert_eq!(parse(b"urn:isbn:1").unwrap().scheme, Scheme::Other);
        assert_eq!(parse(b"nobodyKnowsThisScheme:x").unwrap().scheme, Scheme::Other);
    }
}
