//! Sends what workers trace to a collector (HEP version 3, as Homer takes it): messages as SIP, decisions as log lines.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use edge::{TraceSettings, hide_secrets};

use crate::trace::{TraceEntry, TraceKind, TraceRing};

/// How often the rings are looked at.
const ROUND: Duration = Duration::from_millis(20);
/// The payload's kind: SIP, or a line of a log.
const SIP: u8 = 1;
const LOG: u8 = 100;

/// What became of the entries.
#[derive(Default)]
pub(crate) struct HepCounts {
    pub(crate) sent: AtomicU64,
    /// Not sent, by the network's refusal.
    pub(crate) failed: AtomicU64,
    /// Bytes that workers overwrote before they could be sent.
    pub(crate) lost_bytes: AtomicU64,
}

/// A thread that exports until it is dropped.
pub(crate) struct HepExporter {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl HepExporter {
    /// Starts it where a collector is named. `addresses` are those of the listeners.
    pub(crate) fn start(settings: &TraceSettings, rings: Vec<Arc<TraceRing>>, addresses: Vec<SocketAddr>, counts: Arc<HepCounts>) -> io::Result<Option<Self>> {
        let Some(collector) = settings.collector else { return Ok(None) };
        let any: SocketAddr = if collector.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.connect(collector)?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, capture_id) = (Arc::clone(&stop), settings.capture_id);
        let thread = thread::Builder::new().name("hep".to_owned()).spawn(move || {
            crate::limits::block_signals();
            crate::limits::yield_to_others();
            let mut places: Vec<u64> = rings.iter().map(|ring| ring.place()).collect();
            let mut out = Vec::new();
            loop {
                // After the word to stop comes one last look.
                let stopping = stopped.load(Ordering::Acquire);
                for (ring, place) in rings.iter().zip(&mut places) {
                    export(ring, place, &socket, &addresses, capture_id, &counts, &mut out);
                }
                if stopping {
                    return;
                }
                thread::park_timeout(ROUND);
            }
        })?;
        Ok(Some(Self { stop, thread: Some(thread) }))
    }
}

impl Drop for HepExporter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                log::error!(target: "hep", "the exporter of traces panicked");
            }
        }
    }
}

/// Sends what came since `place`.
fn export(ring: &TraceRing, place: &mut u64, socket: &UdpSocket, addresses: &[SocketAddr], capture_id: u32, counts: &HepCounts, out: &mut Vec<u8>) {
    loop {
        let look = ring.look(*place, b"");
        *place = look.next;
        counts.lost_bytes.fetch_add(look.lost, Ordering::Relaxed);
        for mut entry in look.entries {
            let local = addresses.get(usize::from(entry.listener)).copied();
            hide_secrets(&mut entry.bytes);
            out.clear();
            write(out, &entry, local, capture_id);
            // A collector that is not there refuses by ICMP: it gets the next one all the same.
            let count = if socket.send(out).is_ok() { &counts.sent } else { &counts.failed };
            count.fetch_add(1, Ordering::Relaxed);
        }
        if look.end {
            return;
        }
    }
}

fn write(out: &mut Vec<u8>, entry: &TraceEntry, local: Option<SocketAddr>, capture_id: u32) {
    let remote = entry.remote;
    let unknown: SocketAddr = if remote.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let local = local.filter(|local| local.is_ipv4() == remote.is_ipv4()).unwrap_or(unknown);
    let (source, destination) = if entry.kind == TraceKind::Received { (remote, local) } else { (local, remote) };
    out.extend_from_slice(b"HEP3\0\0");
    chunk(out, 1, &[if source.is_ipv4() { 2 } else { 10 }]);
    chunk(out, 2, &[if entry.transport.is_reliable() { 6 } else { 17 }]);
    for (kind_4, kind_6, address) in [(3, 5, source), (4, 6, destination)] {
        match address.ip() {
            IpAddr::V4(ip) => chunk(out, kind_4, &ip.octets()),
            IpAddr::V6(ip) => chunk(out, kind_6, &ip.octets()),
        }
    }
    chunk(out, 7, &source.port().to_be_bytes());
    chunk(out, 8, &destination.port().to_be_bytes());
    chunk(out, 9, &((entry.wall / 1_000_000) as u32).to_be_bytes());
    chunk(out, 10, &((entry.wall % 1_000_000) as u32).to_be_bytes());
    chunk(out, 12, &capture_id.to_be_bytes());
    if entry.kind == TraceKind::Decision {
        let middle = entry.bytes.iter().position(|byte| *byte == 0).unwrap_or(0);
        chunk(out, 11, &[LOG]);
        chunk(out, 17, &entry.bytes[..middle]);
        chunk(out, 15, entry.bytes.get(middle + 1..).unwrap_or_default());
    } else {
        chunk(out, 11, &[SIP]);
        chunk(out, 15, &entry.bytes);
    }
    let length = out.len().min(usize::from(u16::MAX)) as u16;
    out[4..6].copy_from_slice(&length.to_be_bytes());
}

/// A chunk of the generic vendor; what does not fit into its length is cut.
fn chunk(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let value = &value[..value.len().min(64_000)];
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(value.len() as u16 + 6).to_be_bytes());
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use syntax::Transport;

    #[test]
    fn a_message_becomes_the_chunks_that_a_collector_reads() {
        let entry = TraceEntry {
            worker: 0,
            kind: TraceKind::Received,
            wall: 1_700_000_000_000_042,
            transport: Transport::Udp,
            listener: 0,
            remote: ([192, 0, 2, 7], 5_080).into(),
            bytes: b"OPTIONS".to_vec(),
        };
        let mut out = Vec::new();
        write(&mut out, &entry, Some(([192, 0, 2, 1], 5_060).into()), 9);
        assert_eq!((&out[..4], usize::from(u16::from_be_bytes([out[4], out[5]]))), (&b"HEP3"[..], out.len()));
        let mut chunks = std::collections::HashMap::new();
        let mut rest = &out[6..];
        while let [0, 0, kind_high, kind_low, high, low, ..] = *rest {
            let length = usize::from(u16::from_be_bytes([high, low]));
            chunks.insert(u16::from_be_bytes([kind_high, kind_low]), &rest[6..length]);
            rest = &rest[length..];
        }
        assert!(rest.is_empty());
        let expected: [(u16, &[u8]); 11] = [
            (1, &[2]),
            (2, &[17]),
            (3, &[192, 0, 2, 7]),
            (4, &[192, 0, 2, 1]),
            (7, &5_080_u16.to_be_bytes()),
            (8, &5_060_u16.to_be_bytes()),
            (9, &1_700_000_000_u32.to_be_bytes()),
            (10, &42_u32.to_be_bytes()),
            (11, &[SIP]),
            (12, &9_u32.to_be_bytes()),
            (15, b"OPTIONS"),
        ];
        assert_eq!(chunks, expected.into_iter().collect());
    }
}
