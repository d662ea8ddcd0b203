//! Questions that park a call until somebody answers (DESIGN rule 3). Name resolution is the first kind.

use std::net::SocketAddr;

use proto::Key;
use syntax::Transport;

use crate::settings::Way;

/// Names a question; an answer that comes after the call went on fits none any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuestionId {
    /// The worker that asked.
    pub worker: u8,
    /// The transaction that waits.
    pub transaction: Key,
    /// Which question of that transaction.
    pub number: u8,
    /// What waits.
    pub asker: Asker,
}

/// What waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A transaction, for its next hop.
    Transaction,
    /// A registration, for where the name in its Contact leads.
    Contact,
    /// A transaction, for a description from an rtpengine.
    Media,
}

/// Where requests for a host go (RFC 3263).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who asks.
    pub id: QuestionId,
    /// The name.
    pub host: String,
    /// The port, where the URI has one: then neither NAPTR nor SRV are asked for (section 4.2).
    pub port: Option<u16>,
    /// The transport, where the URI has one.
    pub transport: Option<Transport>,
    /// The transports that a listener offers, for the choice that NAPTR and SRV leave.
    pub offered: Vec<Transport>,
}

/// One place to send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The transport.
    pub transport: Transport,
    /// The address.
    pub address: SocketAddr,
}

impl Address {
    /// Its transport and whether it is an IPv4 address: what a listener has to have.
    pub(crate) fn way(&self) -> Way {
        (self.transport, self.address.ip().to_canonical().is_ipv4())
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.transport.as_str().to_ascii_lowercase(), self.address)
    }
}

/// The answer: addresses in the order to try them, none where there are none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Which question.
    pub id: QuestionId,
    /// The name asked for.
    pub host: String,
    /// The addresses.
    pub addresses: Vec<Address>,
}
