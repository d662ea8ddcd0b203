//! What whoever handles the signalling asks of a relay.

use std::net::{IpAddr, SocketAddr};

use smallvec::SmallVec;

use crate::latch::Learning;

/// Names a session: unique for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(pub u64);

/// One of the two sides of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who sent the INVITE.
    Caller = 0,
    /// Who got it.
    Callee = 1,
}

impl Side {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Caller, Self::Callee];

    /// The side across.
    pub const fn other(self) -> Self {
        match self {
            Self::Caller => Self::Callee,
            Self::Callee => Self::Caller,
        }
    }
}

/// Two ports next to each other, for RTP and RTCP (RFC 3550 section 11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortPair {
    /// By what whoever holds the sockets knows them.
    pub slot: u32,
    /// The even one.
    pub port: u16,
}

/// What a stream's packets look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// RTP and RTCP, encrypted or not: the head of each packet can be read.
    Rtp,
    /// RTP whose keys are agreed on between its packets (RFC 5764).
    RtpOverDtls,
    /// Anything, T.38 over UDPTL for one.
    Datagrams,
}

/// What one side says of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The media description's place in the SDP, from 0.
    pub index: u8,
    /// The ports that face the caller and the callee.
    pub pairs: [PortPair; 2],
    /// Where this side wants RTP and RTCP; nothing while it wants none.
    pub expected: Option<[SocketAddr; 2]>,
    /// Whether this side sends and receives at all: neither is said to be on hold.
    pub active: bool,
    /// The kind of packets.
    pub kind: StreamKind,
    /// Ticks a second of the RTP timestamp.
    pub clock_rate: u32,
}

/// How a session's packets are taken, and when it counts as dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whose packets are believed before anybody was heard.
    pub learning: Learning,
    /// Silence, in microseconds, after which a source may move.
    pub relearn_after: u64,
    /// Silence, in microseconds, after which a session is told of; 0 never.
    pub timeout: u64,
    /// The same while it is on hold.
    pub hold_timeout: u64,
    /// Datagrams that one port passes on in a second.
    pub packets_per_second: u32,
}

/// One command. Those of one session come in order.
#[derive(Clone, Debug)]
pub enum Command {
    /// Opens a session or changes it: what one side says of its streams.
    Describe {
        /// Which.
        session: SessionId,
        /// Whose description it is.
        side: Side,
        /// Where its signalling came from.
        signalled: IpAddr,
        /// How it is treated.
        rules: Rules,
        /// The streams.
        streams: SmallVec<[Described; 1]>,
    },
    /// Ends a session: its ports are free, its report is told where `report` is set.
    Close {
        /// Which.
        session: SessionId,
        /// Whether anybody wants to know what it was like.
        report: bool,
    },
    /// Ports that were taken and never described.
    Return(PortPair),
}
