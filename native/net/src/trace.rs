//! The latest messages and decisions of one worker, in a ring of bytes: the oldest make room for the newest.
//!
//! A lock guards the ring, held for the copy of one batch by its worker and of some kilobytes by who looks at it.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use edge::Hop;
use syntax::Transport;

/// Bytes in front of an entry's own.
const HEAD: usize = 4 + 8 + 1 + 1 + 2 + 16 + 2 + 2;
/// Bytes that a look copies under the lock: some microseconds, for which a worker may have to wait.
const LOOK: usize = 32 << 10;

/// What an entry tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TraceKind {
    /// A message that came.
    Received = 0,
    /// A message that left.
    Sent = 1,
    /// What was decided: Call-ID, a zero byte, and a text.
    Decision = 2,
}

/// One entry, as it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEntry {
    /// The worker.
    pub worker: u8,
    /// What it tells.
    pub kind: TraceKind,
    /// Wall clock, microseconds since 1970.
    pub wall: u64,
    /// The transport of a message.
    pub transport: Transport,
    /// The listener of a message.
    pub listener: u16,
    /// The far end of a message.
    pub remote: SocketAddr,
    /// The message, or the decision.
    pub bytes: Vec<u8>,
}

struct Ring {
    bytes: Vec<u8>,
    capacity: usize,
    /// Where the oldest entry begins and the next one will, counted from the first byte ever.
    oldest: u64,
    next: u64,
}

/// One worker's ring.
pub(crate) struct TraceRing {
    worker: u8,
    ring: Mutex<Ring>,
}

/// Entries from a place in a ring on.
pub(crate) struct Look {
    pub(crate) entries: Vec<TraceEntry>,
    /// Where to go on.
    pub(crate) next: u64,
    /// Bytes that were overwritten before they could be looked at.
    pub(crate) lost: u64,
    /// Nothing is left.
    pub(crate) end: bool,
}

impl TraceRing {
    pub(crate) fn new(worker: u8, capacity: usize) -> Self {
        Self { worker, ring: Mutex::new(Ring { bytes: Vec::new(), capacity, oldest: 0, next: 0 }) }
    }

    /// Keeps `capacity` bytes from now on; what was kept is forgotten where that changes.
    pub(crate) fn resize(&self, capacity: usize) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.capacity != capacity {
            (ring.bytes, ring.capacity) = (Vec::new(), capacity);
            ring.oldest = ring.next;
        }
    }

    /// Keeps messages: those of `hops` with their bytes. Line ends that keep a way open (RFC 5626 section 3.5.1) are left out: those of a
    /// million phones would leave no room for anything else.
    pub(crate) fn write<'a>(&self, kind: TraceKind, wall: u64, messages: impl Iterator<Item = (&'a Hop, &'a [u8])>) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        for (hop, bytes) in messages.filter(|(_, bytes)| bytes.len() > b"\r\n\r\n".len()) {
            ring.push(kind, wall, Some(hop), &[bytes]);
        }
    }

    /// Keeps decisions: Call-ID and text.
    pub(crate) fn write_decisions<'a>(&self, wall: u64, decisions: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        for (call_id, text) in decisions {
            ring.push(TraceKind::Decision, wall, None, &[call_id, &[0], text]);
        }
    }

    /// Looks at what came since `place`, at a part of it at once; only entries that contain `needle` are copied out.
    pub(crate) fn look(&self, place: u64, needle: &[u8]) -> Look {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        // A place that is not one of this ring's is as good as none.
        let place = if place > ring.next { ring.oldest } else { place };
        let start = place.max(ring.oldest);
        let mut at = start;
        let mut part = Vec::new();
        while at < ring.next && part.len() < LOOK {
            let length = ring.length_at(at);
            ring.copy(at, length, &mut part);
            at += length as u64;
        }
        let end = at >= ring.next;
        drop(ring);
        let mut entries = Vec::new();
        let mut rest = part.as_slice();
        while let Some((entry, after)) = decode(self.worker, rest) {
            rest = after;
            if needle.is_empty() || memchr::memmem::find(&entry.bytes, needle).is_some() {
                entries.push(entry);
            }
        }
        Look { entries, next: at, lost: start - place, end }
    }

    /// Where the next entry will begin.
    pub(crate) fn place(&self) -> u64 {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).next
    }

    /// Bytes in use.
    pub(crate) fn len(&self) -> u64 {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.next - ring.oldest
    }
}

impl Ring {
    fn push(&mut self, kind: TraceKind, wall: u64, hop: Option<&Hop>, parts: &[&[u8]]) {
        let length = HEAD + parts.iter().map(|part| part.len()).sum::<usize>();
        // One that takes a quarter of all would tell of little else.
        if length > self.capacity / 4 {
            return;
        }
        if self.bytes.is_empty() {
            self.bytes = vec![0; self.capacity];
        }
        while self.next + length as u64 - self.oldest > self.capacity as u64 {
            self.oldest += self.length_at(self.oldest) as u64;
        }
        let mut head = [0; HEAD];
        let (transport, listener, remote) = hop.map_or((0, 0, None), |hop| (number(hop.transport), hop.listener, Some(hop.address)));
        head[..4].copy_from_slice(&(length as u32).to_le_bytes());
        head[4..12].copy_from_slice(&wall.to_le_bytes());
        (head[12], head[13]) = (kind as u8, transport);
        head[14..16].copy_from_slice(&listener.to_le_bytes());
        if let Some(remote) = remote {
            let ip = match remote.ip() {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            head[16..32].copy_from_slice(&ip.octets());
            head[32..34].copy_from_slice(&remote.port().to_le_bytes());
        }
        let mut at = self.next;
        for part in std::iter::once(&head[..]).chain(parts.iter().copied()) {
            self.put(at, part);
            at += part.len() as u64;
        }
        self.next = at;
    }

    fn put(&mut self, at: u64, part: &[u8]) {
        let start = (at % self.capacity as u64) as usize;
        let first = part.len().min(self.capacity - start);
        self.bytes[start..start + first].copy_from_slice(&part[..first]);
        self.bytes[..part.len() - first].copy_from_slice(&part[first..]);
    }

    fn copy(&self, at: u64, length: usize, out: &mut Vec<u8>) {
        let start = (at % self.capacity as u64) as usize;
        let first = length.min(self.capacity - start);
        out.extend_from_slice(&self.bytes[start..start + first]);
        out.extend_from_slice(&self.bytes[..length - first]);
    }

    fn length_at(&self, at: u64) -> usize {
        let byte = |offset: u64| self.bytes[((at + offset) % self.capacity as u64) as usize];
        u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)]) as usize
    }
}

const TRANSPORTS: [Transport; 6] = [Transport::Udp, Transport::Tcp, Transport::Tls, Transport::Ws, Transport::Wss, Transport::Sctp];

fn number(transport: Transport) -> u8 {
    TRANSPORTS.iter().position(|have| *have == transport).unwrap_or(0) as u8
}

fn decode(worker: u8, bytes: &[u8]) -> Option<(TraceEntry, &[u8])> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let (entry, rest) = bytes.split_at_checked(length)?;
    let (head, payload) = entry.split_at_checked(HEAD)?;
    let ip: [u8; 16] = head.get(16..32)?.try_into().ok()?;
    let half = |at: usize| Some(u16::from_le_bytes([*head.get(at)?, *head.get(at + 1)?]));
    let found = TraceEntry {
        worker,
        kind: [TraceKind::Received, TraceKind::Sent, TraceKind::Decision].into_iter().find(|kind| *kind as u8 == head[12])?,
        wall: u64::from_le_bytes(head.get(4..12)?.try_into().ok()?),
        transport: *TRANSPORTS.get(usize::from(head[13]))?,
        listener: half(14)?,
        remote: SocketAddr::new(IpAddr::from(ip).to_canonical(), half(32)?),
        bytes: payload.to_vec(),
    };
    Some((found, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(port: u16) -> Hop {
        Hop { listener: 3, transport: Transport::Tcp, address: SocketAddr::new([192, 0, 2, 1].into(), port), connection: None }
    }

    #[test]
    fn the_newest_entries_are_kept_whole_and_found_by_what_they_contain() {
        let ring = TraceRing::new(7, 4_096);
        for number in 0..500_u16 {
            let text = format!("INVITE {number} {}", "x".repeat(usize::from(number % 300)));
            ring.write(TraceKind::Sent, u64::from(number), std::iter::once((&hop(number), text.as_bytes())));
        }
        ring.write_decisions(500, std::iter::once((&b"call"[..], &b"refused"[..])));
        let all = ring.look(0, b"");
        assert!(all.end && all.lost > 0 && all.next == ring.place() && ring.len() <= 4_096);
        let walls: Vec<u64> = all.entries.iter().map(|entry| entry.wall).collect();
        assert!(walls.len() > 8 && walls.windows(2).all(|pair| pair[0] + 1 == pair[1]) && walls.last() == Some(&500));
        let [.., message, decision] = all.entries.as_slice() else { panic!("too few") };
        assert_eq!((message.remote, message.listener, message.transport, message.worker), (hop(499).address, 3, Transport::Tcp, 7));
        assert!(message.bytes.starts_with(b"INVITE 499 x"));
        assert_eq!((decision.kind, decision.bytes.as_slice()), (TraceKind::Decision, &b"call\0refused"[..]));
        assert_eq!(ring.look(0, b"INVITE 499").entries, std::slice::from_ref(message));
        assert!(ring.look(all.next, b"").entries.is_empty());
    }

    #[test]
    fn keep_alives_push_no_message_out() {
        let ring = TraceRing::new(0, 4_096);
        ring.write(TraceKind::Received, 0, std::iter::once((&hop(1), &b"OPTIONS"[..])));
        for _ in 0..1_000 {
            ring.write(TraceKind::Sent, 1, [(&hop(1), &b"\r\n\r\n"[..]), (&hop(1), &b"\r\n"[..])].into_iter());
        }
        let kept: Vec<_> = ring.look(0, b"").entries.into_iter().map(|entry| entry.bytes).collect();
        assert_eq!(kept, [b"OPTIONS"]);
    }

    #[test]
    fn one_that_is_too_large_or_a_ring_without_room_keeps_nothing() {
        let ring = TraceRing::new(0, 1_000);
        ring.write(TraceKind::Received, 0, std::iter::once((&hop(1), &[b'x'; 300][..])));
        assert_eq!(ring.len(), 0);
        ring.write(TraceKind::Received, 0, std::iter::once((&hop(1), &[b'x'; 30][..])));
        assert!(ring.len() > 0);
        ring.resize(0);
        ring.write(TraceKind::Received, 0, std::iter::once((&hop(1), &[b'x'; 30][..])));
        assert_eq!((ring.len(), ring.look(0, b"").entries.len()), (0, 0));
    }
}
