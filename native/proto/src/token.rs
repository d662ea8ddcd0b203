//! What we write into Via and Record-Route to find our way back without a lookup (DESIGN rule 2).
//!
//! Both are hexadecimal, since elements between may change case. A branch is guarded by a random cookie kept with the
//! transaction; a route is sealed by a MAC whose key survives a restart, so that it can be believed without any state.

use crate::secret::mac;
use crate::{FlowConnection, Key, Secret};

const VERSION: u8 = 1;
const BRANCH_BYTES: usize = 23;
/// Length of a branch as text, magic cookie included.
pub const BRANCH_TEXT: usize = 7 + 2 * BRANCH_BYTES;
const ROUTE_FIELDS: usize = 24;
const ROUTE_BYTES: usize = ROUTE_FIELDS + 8;

/// The branch parameter of a request that we sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BranchToken {
    /// The node that sent it.
    pub node: u16,
    /// The worker that owns the transaction.
    pub worker: u8,
    /// Which attempt of the transaction it was.
    pub attempt: u8,
    /// The transaction.
    pub transaction: Key,
    /// What only an element that saw the request can know.
    pub cookie: u32,
    /// Hash over the fields that tell a loop from a spiral (RFC 5393 section 4.2).
    pub loop_hash: u64,
}

impl BranchToken {
    /// Appends the branch as text.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut bytes = [0; BRANCH_BYTES];
        bytes[0] = VERSION;
        bytes[1..3].copy_from_slice(&self.node.to_be_bytes());
        bytes[3] = self.worker;
        bytes[4] = self.attempt;
        bytes[5..9].copy_from_slice(&self.transaction.slot.to_be_bytes());
        bytes[9..13].copy_from_slice(&self.transaction.generation.to_be_bytes());
        bytes[13..17].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[17..].copy_from_slice(&self.loop_hash.to_be_bytes()[2..]);
        out.extend_from_slice(syntax::MAGIC_COOKIE);
        write_hex(&bytes, out);
    }

    /// Reads a branch back; `None` for one that is not of our making.
    pub fn read(text: &[u8]) -> Option<Self> {
        let hex = text.get(7..)?;
        if !text[..7].eq_ignore_ascii_case(syntax::MAGIC_COOKIE) {
            return None;
        }
        let bytes: [u8; BRANCH_BYTES] = read_hex(hex)?;
        if bytes[0] != VERSION {
            return None;
        }
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let mut loop_hash = [0; 8];
        loop_hash[2..].copy_from_slice(&bytes[17..]);
        Some(Self {
            node: u16::from_be_bytes([bytes[1], bytes[2]]),
            worker: bytes[3],
            attempt: bytes[4],
            transaction: Key { slot: word(5), generation: word(9) },
            cookie: word(13),
            loop_hash: u64::from_be_bytes(loop_hash),
        })
    }

    /// `hash` cut to the width that a branch carries.
    pub const fn loop_hash(hash: u128) -> u64 {
        (hash as u64) >> 16
    }
}

/// Who sent an in-dialog request, seen from the request that opened the dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The caller sent it.
    FromCaller,
    /// The callee sent it.
    FromCallee,
}

/// The user part of our Record-Route URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteToken {
    /// The node that wrote it.
    pub node: u16,
    /// The worker that owns the call.
    pub worker: u8,
    /// The call; [`Key::NONE`] for a dialog that is no call.
    pub call: Key,
    /// Listeners towards caller and callee, by the lower half of [`crate::stable_id`].
    pub listeners: [u16; 2],
    /// Peers of caller and callee, by [`crate::stable_id`].
    pub peers: [u32; 2],
}

impl RouteToken {
    fn fields(&self) -> [u8; ROUTE_FIELDS] {
        let mut bytes = [0; ROUTE_FIELDS];
        bytes[0] = VERSION;
        bytes[1..3].copy_from_slice(&self.node.to_be_bytes());
        bytes[3] = self.worker;
        bytes[4..8].copy_from_slice(&self.call.slot.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.call.generation.to_be_bytes());
        for (place, id) in bytes[12..16].chunks_exact_mut(2).zip(self.listeners) {
            place.copy_from_slice(&id.to_be_bytes());
        }
        for (place, id) in bytes[16..].chunks_exact_mut(4).zip(self.peers) {
            place.copy_from_slice(&id.to_be_bytes());
        }
        bytes
    }

    fn seal(secret: &Secret, fields: &[u8], call_id: &[u8], caller_tag: &[u8]) -> [u8; 8] {
        ((mac(secret, &[fields, call_id, caller_tag]) >> 64) as u64).to_be_bytes()
    }

    /// Appends the sealed token as text.
    pub fn write(&self, secret: &Secret, call_id: &[u8], caller_tag: &[u8], out: &mut Vec<u8>) {
        let fields = self.fields();
        write_hex(&fields, out);
        write_hex(&Self::seal(secret, &fields, call_id, caller_tag), out);
    }

    /// Which worker a token names, before its seal is checked: good for handing a datagram over, for nothing else.
    pub fn unverified_worker(text: &[u8]) -> Option<u8> {
        read_hex::<ROUTE_BYTES>(text).filter(|bytes| bytes[0] == VERSION).map(|bytes| bytes[3])
    }

    /// Reads a token back and says who is sending; `None` where the seal fits neither tag. An empty tag fits nothing: a
    /// request outside any dialog has one.
    pub fn verify(text: &[u8], secret: &Secret, call_id: &[u8], from_tag: &[u8], to_tag: &[u8]) -> Option<(Self, Direction)> {
        let bytes: [u8; ROUTE_BYTES] = read_hex(text)?;
        let (fields, seal) = bytes.split_at(ROUTE_FIELDS);
        let direction = if !from_tag.is_empty() && same(&Self::seal(secret, fields, call_id, from_tag), seal) {
            Direction::FromCaller
        } else if !to_tag.is_empty() && same(&Self::seal(secret, fields, call_id, to_tag), seal) {
            Direction::FromCallee
        } else {
            return None;
        };
        if bytes[0] != VERSION {
            return None;
        }
        let half = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| (u32::from(half(at)) << 16) | u32::from(half(at + 2));
        let token = Self {
            node: half(1),
            worker: bytes[3],
            call: Key { slot: word(4), generation: word(8) },
            listeners: [half(12), half(14)],
            peers: [word(16), word(20)],
        };
        Some((token, direction))
    }
}

const FLOW_FIELDS: usize = 26;
/// Where the address stands among them.
const FLOW_ADDRESS: usize = 10;
/// What a connection adds.
const CONNECTION_FIELDS: usize = 13;
const SEAL: usize = 8;

/// Where a phone really is, sealed: what marks its Contact for one call, or is the user part of our Path. Without the seal
/// somebody could have requests sent to places of his choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowToken {
    /// The listener that the phone sent to, by the lower half of [`crate::stable_id`].
    pub listener: u16,
    /// The transport.
    pub transport: syntax::Transport,
    /// Whence it sent.
    pub address: std::net::SocketAddr,
    /// When, in seconds since 1970.
    pub made: u32,
    /// The connection it came by, with the lower half of the process's start: in another process it is another one.
    pub connection: Option<(u32, FlowConnection)>,
}

impl FlowToken {
    const TRANSPORTS: [syntax::Transport; 5] =
        [syntax::Transport::Udp, syntax::Transport::Tcp, syntax::Transport::Tls, syntax::Transport::Ws, syntax::Transport::Wss];

    fn seal(secret: &Secret, fields: &[u8], context: &[u8]) -> [u8; SEAL] {
        ((mac(secret, &[b"flow", fields, context]) >> 64) as u64).to_be_bytes()
    }

    /// Appends the token as text, sealed for `context`.
    pub fn write(&self, secret: &Secret, context: &[u8], out: &mut Vec<u8>) {
        let mut fields = [0; FLOW_FIELDS + CONNECTION_FIELDS];
        fields[0] = VERSION;
        fields[1] = Self::TRANSPORTS.iter().position(|own| *own == self.transport).unwrap_or(0) as u8;
        fields[2..4].copy_from_slice(&self.listener.to_be_bytes());
        fields[4..6].copy_from_slice(&self.address.port().to_be_bytes());
        let ip = match self.address.ip() {
            std::net::IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            std::net::IpAddr::V6(ip) => ip,
        };
        fields[6..FLOW_ADDRESS].copy_from_slice(&self.made.to_be_bytes());
        fields[FLOW_ADDRESS..FLOW_FIELDS].copy_from_slice(&ip.octets());
        let mut length = FLOW_FIELDS;
        if let Some((epoch, connection)) = self.connection {
            let (start, rest) = fields[FLOW_FIELDS..].split_at_mut(4);
            start.copy_from_slice(&epoch.to_be_bytes());
            rest[0] = connection.worker;
            rest[1..5].copy_from_slice(&connection.slot.to_be_bytes());
            rest[5..].copy_from_slice(&connection.generation.to_be_bytes());
            length += CONNECTION_FIELDS;
        }
        write_hex(&fields[..length], out);
        write_hex(&Self::seal(secret, &fields[..length], context), out);
    }

    /// Reads a token back; `None` for one that is not of our making, or sealed for something else.
    pub fn read(text: &[u8], secret: &Secret, context: &[u8]) -> Option<Self> {
        let short = read_hex::<{ FLOW_FIELDS + SEAL }>(text);
        let long = || read_hex::<{ FLOW_FIELDS + CONNECTION_FIELDS + SEAL }>(text);
        match short {
            Some(bytes) => Self::open(&bytes, secret, context),
            None => Self::open(&long()?, secret, context),
        }
    }

    fn open(bytes: &[u8], secret: &Secret, context: &[u8]) -> Option<Self> {
        let (fields, seal) = bytes.split_at(bytes.len() - SEAL);
        if fields[0] != VERSION || !same(&Self::seal(secret, fields, context), seal) {
            return None;
        }
        let mut octets = [0; 16];
        octets.copy_from_slice(&fields[FLOW_ADDRESS..FLOW_FIELDS]);
        let ip = std::net::Ipv6Addr::from(octets).to_canonical();
        let word = |at: usize| u32::from_be_bytes([fields[at], fields[at + 1], fields[at + 2], fields[at + 3]]);
        let connection = (fields.len() > FLOW_FIELDS).then(|| {
            let connection = FlowConnection { worker: fields[FLOW_FIELDS + 4], slot: word(FLOW_FIELDS + 5), generation: word(FLOW_FIELDS + 9) };
            (word(FLOW_FIELDS), connection)
        });
        Some(Self {
            listener: u16::from_be_bytes([fields[2], fields[3]]),
            transport: *Self::TRANSPORTS.get(usize::from(fields[1]))?,
            address: (ip, u16::from_be_bytes([fields[4], fields[5]])).into(),
            made: word(6),
            connection,
        })
    }
}

/// Compares in time that does not depend on where the first difference lies.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differences, (x, y)| differences | (x ^ y)) == 0
}

pub(crate) fn write_hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

pub(crate) fn read_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| (byte as char).to_digit(16).map(|d| d as u8);
    let mut bytes = [0; N];
    for (place, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *place = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: Secret = Secret::new([7; 16]);

    fn token() -> RouteToken {
        RouteToken { node: 3, worker: 1, call: Key { slot: 70_000, generation: 9 }, listeners: [1, 2], peers: [3, 4] }
    }

    #[test]
    fn a_route_token_tells_who_is_sending() {
        let mut text = Vec::new();
        token().write(&SECRET, b"call", b"alice", &mut text);
        assert_eq!(RouteToken::verify(&text, &SECRET, b"call", b"alice", b"bob"), Some((token(), Direction::FromCaller)));
        assert_eq!(RouteToken::verify(&text.to_ascii_uppercase(), &SECRET, b"call", b"bob", b"alice"), Some((token(), Direction::FromCallee)));
    }

    #[test]
    fn no_changed_bit_and_no_other_call_verifies() {
        let mut text = Vec::new();
        token().write(&SECRET, b"call", b"alice", &mut text);
        for at in 0..text.len() {
            let mut forged = text.clone();
            forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(RouteToken::verify(&forged, &SECRET, b"call", b"alice", b"bob"), None, "digit {at}");
        }
        assert_eq!(RouteToken::verify(&text, &SECRET, b"other", b"alice", b"bob"), None);
        assert_eq!(RouteToken::verify(&text, &SECRET, b"call", b"eve", b"bob"), None);
        assert_eq!(RouteToken::verify(&text, &Secret::new([8; 16]), b"call", b"alice", b"bob"), None);
        let mut untagged = Vec::new();
        token().write(&SECRET, b"call", b"", &mut untagged);
        assert_eq!(RouteToken::verify(&untagged, &SECRET, b"call", b"alice", b""), None);
        assert_eq!(RouteToken::verify(b"\xff\x00", &SECRET, b"call", b"alice", b"bob"), None);
    }

    #[test]
    fn a_flow_token_comes_back_for_its_call_only() {
        for (transport, address) in [(syntax::Transport::Udp, "198.51.100.7:31000"), (syntax::Transport::Tcp, "[2001:db8::1]:5060")] {
            let connection = transport.is_reliable().then_some((77, FlowConnection { worker: 3, slot: 70_000, generation: 9 }));
            let token = FlowToken { listener: 700, transport, address: address.parse().unwrap(), made: 1_795_420_062, connection };
            let mut text = Vec::new();
            token.write(&SECRET, b"call", &mut text);
            assert_eq!(FlowToken::read(&text.to_ascii_uppercase(), &SECRET, b"call"), Some(token));
            assert_eq!(FlowToken::read(&text, &SECRET, b"other"), None);
            for at in 0..text.len() {
                let mut forged = text.clone();
                forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
                assert_eq!(FlowToken::read(&forged, &SECRET, b"call"), None, "digit {at}");
            }
        }
    }

    #[test]
    fn a_branch_survives_the_way_out_and_back() {
        let branch = BranchToken {
            node: 3,
            worker: 2,
            attempt: 1,
            transaction: Key { slot: 5, generation: 6 },
            cookie: 0xdead_beef,
            loop_hash: BranchToken::loop_hash(u128::MAX),
        };
        let mut text = Vec::new();
        branch.write(&mut text);
        assert_eq!(text.len(), BRANCH_TEXT);
        assert_eq!(BranchToken::read(&text), Some(branch));
        assert_eq!(BranchToken::read(b"z9hG4bKnashds8"), None);
    }
}
