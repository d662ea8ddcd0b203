//! What a relay tells of its sessions.

use std::net::SocketAddr;

use crate::command::{SessionId, Side};

/// What came from one side of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SideReport {
    /// Packets taken, RTCP left out.
    pub packets: u64,
    /// Their bytes, heads included.
    pub octets: u64,
    /// Packets that never came, by their numbers.
    pub lost: u64,
    /// Packets of others, which went nowhere.
    pub refused: u64,
    /// Jitter at the end, in milliseconds.
    pub jitter_milliseconds: f32,
    /// The most jitter that there was.
    pub most_jitter_milliseconds: f32,
    /// A mean opinion score, where there was enough to judge by.
    pub mos: Option<f32>,
    /// Where the packets came from.
    pub source: Option<SocketAddr>,
}

/// One stream.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamReport {
    /// The media description's place in the SDP, from 0.
    pub index: u8,
    /// What came from the caller and from the callee.
    pub sides: [SideReport; 2],
}

/// One session at its end.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionReport {
    /// Which.
    pub session: SessionId,
    /// Its streams.
    pub streams: Vec<StreamReport>,
}

/// What happens to a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// Nothing came from either side for as long as its rules allow.
    Silent(SessionId),
    /// Somebody else sends to one of its ports.
    Intruder(SessionId, Side, SocketAddr),
    /// It is closed, as was asked for.
    Closed(SessionReport),
}
