//! What is set of media.

use std::net::SocketAddr;

use media::{Learning, Rules};
use serde::Deserialize;

/// Whether calls have their media relayed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engage {
    /// Where a side is behind a NAT, or the sides are in different networks or of different address families.
    Auto,
    /// In any case.
    Always,
    /// In no case.
    Never,
}

/// Whose packets are believed before anybody was heard, as the file names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LearningSettings {
    /// Only the address and port of the SDP.
    Never,
    /// Any port of the SDP's address, or of the one that the signalling came from.
    Known,
    /// Anybody's.
    Any,
}

/// How media is relayed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MediaSettings {
    /// Which calls, where neither of their peers says.
    pub engage: Engage,
    /// Whose packets are believed.
    pub learning: LearningSettings,
    /// Silence after which a source may move.
    pub relearn_after_milliseconds: u64,
    /// Silence of both sides after which a session counts as dead; 0 never.
    pub timeout_seconds: u64,
    /// The same while a call is on hold.
    pub hold_timeout_seconds: u64,
    /// Whether that ends the call.
    pub end_calls: bool,
    /// Streams of one call.
    pub streams: usize,
    /// Datagrams that one port passes on in a second.
    pub packets_per_second: u32,
    /// Who relays in our place; nobody where there are none.
    pub rtpengines: Vec<RtpengineSettings>,
    /// How those are asked.
    pub engine: EngineSettings,
}

/// One rtpengine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RtpengineSettings {
    /// Its name in the file.
    pub name: String,
    /// Where it takes commands of the ng protocol over UDP.
    pub address: SocketAddr,
    /// Its share of the calls; 0 takes some only where no other can.
    pub weight: u32,
}

/// How rtpengines are asked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineSettings {
    /// Longest wait for an answer, for each try.
    pub timeout_milliseconds: u64,
    /// How often one is asked before it counts as down.
    pub tries: u32,
    /// How often one that is down is looked at, and one that is not.
    pub ping_seconds: u64,
    /// Whether they are told the networks of both listeners as directions.
    pub directions: bool,
}

impl MediaSettings {
    pub(crate) fn rules(&self) -> Rules {
        Rules {
            learning: match self.learning {
                LearningSettings::Never => Learning::Never,
                LearningSettings::Known => Learning::Known,
                LearningSettings::Any => Learning::Any,
            },
            relearn_after: self.relearn_after_milliseconds * 1_000,
            timeout: self.timeout_seconds * 1_000_000,
            hold_timeout: self.hold_timeout_seconds * 1_000_000,
            packets_per_second: self.packets_per_second,
        }
    }
}
