//! One port of a stream.

use crate::command::{Side, StreamKind};
use crate::latch::Latch;
use crate::quality::Quality;

/// No row.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// What is known of one port.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The row that what comes in here leaves by.
    pub(crate) out: u32,
    /// Its session's place; [`NOWHERE`] where the port is free.
    pub(crate) session: u32,
    pub(crate) side: Side,
    pub(crate) kind: StreamKind,
    /// Whether it is the port for RTCP.
    pub(crate) control: bool,
    pub(crate) clock_rate: u32,
    pub(crate) latch: Latch,
    pub(crate) packets: u64,
    pub(crate) octets: u64,
    pub(crate) refused: u64,
    pub(crate) quality: Quality,
    /// The second at hand, and datagrams in it.
    pub(crate) second: u32,
    pub(crate) count: u32,
}

impl Row {
    /// Whether one more datagram is within `limit` of this second. Descriptions that lead to each other's ports would have a
    /// packet circle as fast as the machine can.
    pub(crate) fn paces(&mut self, now: u64, limit: u32) -> bool {
        let second = (now / 1_000_000) as u32;
        if second != self.second {
            (self.second, self.count) = (second, 0);
        }
        self.count += 1;
        self.count <= limit
    }

    pub(crate) fn free() -> Self {
        Self {
            out: NOWHERE,
            session: NOWHERE,
            side: Side::Caller,
            kind: StreamKind::Datagrams,
            control: false,
            clock_rate: 8_000,
            latch: Latch::new(),
            packets: 0,
            octets: 0,
            refused: 0,
            quality: Quality::default(),
            second: 0,
            count: 0,
        }
    }
}
