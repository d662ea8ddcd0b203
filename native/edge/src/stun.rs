//! STUN on the SIP ports (RFC 5626 section 8, RFC 8489): a phone asks where it is seen, which keeps its way open and tells it when
//! its NAT gave it another port. Nothing but that is answered, and only to peers.

use std::net::{IpAddr, SocketAddr};

use crate::edge::Edge;
use crate::hop::Hop;

const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const HEADER: usize = 20;
const BINDING_REQUEST: [u8; 2] = [0, 1];
const BINDING_SUCCESS: [u8; 2] = [1, 1];
const BINDING_ERROR: [u8; 2] = [1, 0x11];
const ERROR_CODE: [u8; 2] = [0, 9];
const UNKNOWN_ATTRIBUTES: [u8; 2] = [0, 10];
const XOR_MAPPED_ADDRESS: [u8; 2] = [0, 0x20];
/// Attributes from here on may be ignored (RFC 8489 section 14).
const OPTIONAL: u16 = 0x8000;

/// Whether a datagram is STUN and no SIP (RFC 7983 section 7).
pub(crate) fn is_stun(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|byte| *byte < 4) && bytes.get(4..8) == Some(&COOKIE)
}

/// The transaction id of a binding request that is whole, and the attributes in it that would have to be understood.
fn read(bytes: &[u8]) -> Option<(&[u8], Vec<u16>)> {
    let length = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
    if bytes.get(..2)? != BINDING_REQUEST || !length.is_multiple_of(4) || bytes.len() != HEADER + length {
        return None;
    }
    let mut unknown = Vec::new();
    let mut rest = bytes.get(HEADER..)?;
    while !rest.is_empty() {
        let (head, tail) = rest.split_first_chunk::<4>()?;
        let kind = u16::from_be_bytes([head[0], head[1]]);
        let value = usize::from(u16::from_be_bytes([head[2], head[3]])).next_multiple_of(4);
        if kind < OPTIONAL && unknown.len() < 8 {
            unknown.push(kind);
        }
        rest = tail.get(value..)?;
    }
    Some((bytes.get(4..HEADER)?, unknown))
}

fn mapped(source: SocketAddr, id: &[u8]) -> Vec<u8> {
    let port = source.port() ^ u16::from_be_bytes([COOKIE[0], COOKIE[1]]);
    let (family, octets) = match source.ip().to_canonical() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let mut value = vec![0, family];
    value.extend_from_slice(&port.to_be_bytes());
    // The key is cookie and transaction id, which `id` begins with.
    value.extend(octets.iter().zip(id).map(|(byte, key)| byte ^ key));
    value
}

fn attribute(kind: [u8; 2], value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&kind);
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// The answer to what `source` sent; none to anything but a binding request.
fn answer(bytes: &[u8], source: SocketAddr) -> Option<Vec<u8>> {
    let (id, unknown) = read(bytes)?;
    let mut attributes = Vec::with_capacity(24);
    if unknown.is_empty() {
        attribute(XOR_MAPPED_ADDRESS, &mapped(source, id), &mut attributes);
    } else {
        attribute(ERROR_CODE, b"\0\0\x04\x14Unknown Attribute", &mut attributes);
        attribute(UNKNOWN_ATTRIBUTES, &unknown.iter().flat_map(|kind| kind.to_be_bytes()).collect::<Vec<_>>(), &mut attributes);
    }
    let kind = if unknown.is_empty() { BINDING_SUCCESS } else { BINDING_ERROR };
    Some([&kind, &(attributes.len() as u16).to_be_bytes()[..], id, &attributes].concat())
}

impl Edge {
    /// Answers STUN from a peer.
    pub(crate) fn handle_stun(&mut self, arrival: &Hop, bytes: &[u8]) {
        let known = self.identify(arrival.listener, arrival.transport, arrival.address).is_some();
        match answer(bytes, arrival.address).filter(|_| known) {
            Some(answer) => {
                self.counters.stun_answered.add();
                self.out.send(*arrival, &answer);
            }
            None => self.counters.stun_refused.add(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(attributes: &[u8]) -> Vec<u8> {
        let id = *b"0123456789ab";
        [&BINDING_REQUEST, &(attributes.len() as u16).to_be_bytes()[..], &COOKIE, &id, attributes].concat()
    }

    #[test]
    fn the_address_is_that_of_rfc_5769() {
        // Sections 2.2 and 2.3: the addresses of its sample responses, with its transaction id.
        let id = b"\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae";
        assert_eq!(mapped("192.0.2.1:32853".parse().unwrap(), id), [0, 1, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
        let six = mapped("[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap(), id);
        assert_eq!(six[4..], [0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79, 0xbc, 0x25, 0xf4, 0xb5, 0xbe, 0xd2, 0xb9, 0xd9]);
    }

    #[test]
    fn a_binding_request_is_answered_and_nothing_else() {
        let source = "[::ffff:198.51.100.7]:31000".parse().unwrap();
        let reply = answer(&request(b""), source).unwrap();
        assert_eq!((&reply[..4], &reply[8..20], reply.len()), (&[1, 1, 0, 12][..], &b"0123456789ab"[..], 32));
        // One attribute that may be ignored, one that may not.
        assert_eq!(answer(&request(b"\x80\x22\0\x03abc\0"), source).unwrap()[..2], BINDING_SUCCESS);
        let error = answer(&request(b"\0\x06\0\x03bob\0"), source).unwrap();
        assert_eq!((&error[..2], &error[error.len() - 4..]), (&BINDING_ERROR[..], &[0, 6, 0, 0][..]));
        let whole = request(b"\x80\x22\0\x03abc\0");
        for length in 0..whole.len() {
            assert_eq!(answer(&whole[..length], source), None, "{length}");
        }
        for (at, byte) in [(0, 1), (1, 0x11), (3, 5), (HEADER + 3, 200)] {
            let mut broken = whole.clone();
            broken[at] = byte;
            assert_eq!(answer(&broken, source), None, "{at}");
        }
        assert!(is_stun(&whole) && !is_stun(b"INVITE sip:") && !is_stun(b"") && !is_stun(&[0; 20]));
    }
}
