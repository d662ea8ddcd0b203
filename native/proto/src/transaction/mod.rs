//! The four transactions of RFC 3261 section 17 with the Accepted states of RFC 6026.

mod invite_client;
mod invite_server;
mod key;
mod non_invite_client;
mod non_invite_server;

pub use invite_client::{FinalOutcome, InviteClient};
pub use invite_server::{AckOutcome, InviteServer};
pub use key::transaction_key;
pub use non_invite_client::NonInviteClient;
pub use non_invite_server::NonInviteServer;

use crate::{milliseconds, seconds};

/// Timer values in microseconds (RFC 3261 section 17.1.1.1 and table 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SipTimers {
    /// Estimate of the round trip.
    pub t1: u64,
    /// Longest interval between retransmissions of a non-INVITE request or a final response.
    pub t2: u64,
    /// Longest time that a message stays in the network.
    pub t4: u64,
    /// Timer C: from the last provisional response to the final one. More than 180 s unless somebody knows better.
    pub c: u64,
    /// How long an answered INVITE absorbs what comes late over an unreliable transport (timers D, H, L and M).
    pub linger: u64,
}

impl SipTimers {
    /// The values of the RFC.
    pub const STANDARD: Self = Self { t1: milliseconds(500), t2: seconds(4), t4: seconds(5), c: seconds(185), linger: seconds(32) };
}

/// What a client transaction wants when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAction {
    /// Nothing.
    Wait,
    /// Send the request again (timers A, E).
    Retransmit,
    /// The far end never answered (timers B, F).
    NoAnswer,
    /// It answered, but not finally (timer C).
    NoFinalAnswer,
    /// Nothing more can come: forget it.
    Terminated,
}

/// What a server transaction wants when its time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerAction {
    /// Nothing.
    Wait,
    /// Send the final response again (timer G).
    Retransmit,
    /// Nothing more can come: forget it.
    Terminated,
}
