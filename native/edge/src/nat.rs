//! Whether a sender is behind a NAT: what its message says of its address, against where it came from (RFC 6314).

use std::net::IpAddr;

use syntax::{HeaderName, Message, Rport, Span, Transport, Uri, parse_ip, parse_name_addr};

use crate::hop::Hop;

/// Tests, each under the name that operators know it by, with the number that it has in `nat_uac_test`.
const NAMES: [(&str, u8); 8] = [
    ("private-contact", 1),
    ("diff-ip-src-via", 2),
    ("private-via", 4),
    ("private-sdp", 8),
    ("diff-port-src-via", 16),
    ("diff-ip-src-contact", 32),
    ("diff-port-src-contact", 64),
    ("carrier-grade-nat", 128),
];

/// Some of the tests; a sender for whom any holds is behind a NAT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct NatTests(u8);

impl NatTests {
    /// Those of these names; the first one that there is none of as an error.
    pub(crate) fn new(names: &[String]) -> Result<Self, String> {
        let one = |name: &String| NAMES.iter().find(|(known, _)| known == name).map(|(_, bit)| *bit).ok_or_else(|| name.clone());
        names.iter().try_fold(0, |tests, name| Ok(tests | one(name)?)).map(Self)
    }

    const fn has(self, test: u8) -> bool {
        self.0 & test != 0
    }

    /// Whether the sender of `message` is behind a NAT.
    pub(crate) fn hold(self, arrival: &Hop, message: &Message<'_>) -> bool {
        let source = arrival.address;
        let via = &message.head.via;
        let via_ip = parse_ip(message.text(via.host));
        let differs = |ip: Option<IpAddr>| ip.is_none_or(|ip| ip.to_canonical() != source.ip().to_canonical());
        let said = if via.maddr.is_empty() { via_ip } else { parse_ip(message.text(via.maddr)) };
        if self.has(2) && (differs(said) || !via.received.is_empty()) {
            return true;
        }
        if self.has(16) && !arrival.transport.is_reliable() {
            // RFC 3581: what a client wrote as its own port is that of sent-by, whatever rport says.
            let port = via.port.unwrap_or(5060);
            if port != source.port() && !matches!(via.rport, Rport::Port(own) if own == source.port()) {
                return true;
            }
        }
        if self.has(4) && via_ip.is_some_and(|ip| self.is_private(ip)) {
            return true;
        }
        if self.has(8) && self.has_private_sdp(message) {
            return true;
        }
        self.contact_holds(arrival, message)
    }

    /// The same by the tests of Contact only.
    #[inline]
    fn contact_holds(self, arrival: &Hop, message: &Message<'_>) -> bool {
        self.has(1 | 32 | 64) && message.elements(HeaderName::Contact).any(|element| self.contact_tells(message.bytes, element, arrival))
    }

    /// Whether the sender of a response is behind a NAT. Its Via is another's, so that what tests of Via look for is looked for in its
    /// Contact, which a phone writes alike.
    #[inline(never)]
    pub(crate) fn response_holds(self, arrival: &Hop, message: &Message<'_>) -> bool {
        let ip = if self.has(2) { 32 } else { 0 };
        let private = if self.has(4) { 1 } else { 0 };
        let port = if self.has(16) && !arrival.transport.is_reliable() { 64 } else { 0 };
        Self(self.0 | ip | private | port).contact_holds(arrival, message)
    }

    fn contact_tells(self, bytes: &[u8], element: Span, arrival: &Hop) -> bool {
        let Some(uri) = parse_name_addr(bytes, element).and_then(|contact| Uri::parse(bytes, contact.uri).ok()) else { return false };
        if uri.host.is_empty() {
            return false;
        }
        let ip = parse_ip(uri.host.of(bytes));
        let same = ip.is_some_and(|ip| ip.to_canonical() == arrival.address.ip().to_canonical());
        let port = uri.port.unwrap_or_else(|| uri.transport.map_or(5060, Transport::default_port));
        (self.has(1) && ip.is_some_and(|ip| self.is_private(ip))) || (self.has(32) && !same) || (self.has(64) && port != arrival.address.port())
    }

    /// Whether an address is one that several networks have: RFC 1918, RFC 6598, loopback, and with `carrier-grade-nat` RFC 6333.
    pub(crate) fn is_private(self, ip: IpAddr) -> bool {
        let IpAddr::V4(ip) = ip.to_canonical() else { return false };
        let [a, b, c, d] = ip.octets();
        ip.is_private() || ip.is_loopback() || a == 100 && b & 0xc0 == 64 || self.has(128) && (a, b, c) == (192, 0, 0) && d < 8
    }

    /// Each c= line counts: a media description may have one of its own (RFC 8866 section 5.7).
    fn has_private_sdp(self, message: &Message<'_>) -> bool {
        let lines = syntax::sdp_lines(message.bytes, message.head.body).filter(|line| line.kind == b'c');
        let hosts = lines.filter_map(|line| line.value.of(message.bytes).strip_prefix(b"IN IP4 ")?.trim_ascii().split(|b| *b == b'/').next());
        hosts.filter_map(parse_ip).any(|ip| self.is_private(ip))
    }
}

#[cfg(test)]
mod tests {
    use syntax::{Head, Limits, parse};

    use super::*;

    const SDP: &str = "v=0\r\nc=IN IP4 10.0.0.9\r\n";
    const OWN_LINE: &str = "v=0\r\nc=IN IP4 198.51.100.7\r\nm=audio 4000 RTP/AVP 0\r\nc=IN IP4 10.0.0.9\r\n";

    fn holds(tests: &[&str], source: &str, via: &str, contact: &str, body: &str) -> bool {
        let tests = NatTests::new(&tests.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        let text = format!(
            "INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP {via};branch=z9hG4bK1\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\nCall-ID: 1\r\n\
             CSeq: 1 INVITE\r\nContact: {contact}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut head = Head::default();
        parse(text.as_bytes(), &Limits::STANDARD, &mut head).unwrap();
        let hop = Hop { listener: 0, transport: Transport::Udp, address: source.parse().unwrap(), connection: None };
        tests.hold(&hop, &Message::new(text.as_bytes(), &head))
    }

    #[test]
    fn each_test_holds_for_what_its_name_says() {
        let public = "198.51.100.7:5062";
        // Test, Via, Contact, body for which it holds; and those for which it does not.
        for (test, yes, no) in [
            ("private-contact", (public, "<sip:a@192.168.1.2>", ""), (public, "<sip:a@198.51.100.7>", "")),
            ("private-contact", (public, "<sip:a@100.64.0.1>", ""), (public, "<sip:a@192.0.0.1>", "")),
            ("diff-ip-src-via", ("10.0.0.1:5062", "<sip:a@198.51.100.7>", ""), (public, "<sip:a@10.0.0.1>", "")),
            ("diff-ip-src-via", ("phone.example:5062", "<sip:a@h>", ""), (public, "<sip:a@h>", "")),
            ("diff-ip-src-via", ("198.51.100.7:5062;received=10.0.0.1", "<sip:a@h>", ""), (public, "<sip:a@h>", "")),
            ("diff-ip-src-via", ("198.51.100.7:5062;maddr=10.0.0.1", "<sip:a@h>", ""), ("10.0.0.1:5062;maddr=198.51.100.7", "<sip:a@h>", "")),
            ("private-via", ("10.0.0.1:5062", "<sip:a@h>", ""), (public, "<sip:a@10.0.0.1>", "")),
            ("private-sdp", (public, "<sip:a@h>", SDP), (public, "<sip:a@10.0.0.1>", "v=0\r\nc=IN IP4 0.0.0.0\r\n")),
            ("private-sdp", (public, "<sip:a@h>", SDP), (public, "<sip:a@h>", "v=0\r\nc=IN IP6 fd00::1\r\n")),
            ("private-sdp", (public, "<sip:a@h>", OWN_LINE), (public, "<sip:a@h>", &OWN_LINE.replace("10.0.0.9", "198.51.100.9"))),
            ("diff-port-src-via", ("198.51.100.7", "<sip:a@h>", ""), (public, "<sip:a@h>", "")),
            ("diff-ip-src-contact", (public, "<sip:a@203.0.113.1>", ""), (public, "<sip:a@198.51.100.7:9>", "")),
            ("diff-ip-src-contact", (public, "<sip:a@name.example>", ""), (public, "<sip:a@198.51.100.7>", "")),
            ("diff-port-src-contact", (public, "<sip:a@198.51.100.7>", ""), (public, "<sip:a@198.51.100.7:5062>", "")),
        ] {
            assert!(holds(&[test], public, yes.0, yes.1, yes.2), "{test} {yes:?}");
            assert!(!holds(&[test], public, no.0, no.1, no.2), "{test} {no:?}");
        }
    }

    #[test]
    fn the_modifier_adds_addresses_and_is_no_test_of_its_own() {
        let public = "198.51.100.7:5062";
        assert!(holds(&["private-contact", "carrier-grade-nat"], public, public, "<sip:a@192.0.0.1>", ""));
        assert!(!holds(&["private-contact", "carrier-grade-nat"], public, public, "<sip:a@192.0.0.8>", ""));
        assert!(!holds(&["carrier-grade-nat"], public, public, "<sip:a@10.0.0.1>", ""));
        assert_eq!(NatTests::new(&["private".to_owned()]), Err("private".to_owned()));
    }
}
