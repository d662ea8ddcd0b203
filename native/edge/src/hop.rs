//! Where a message came from or goes to.

use std::net::SocketAddr;

use syntax::Transport;

/// One connection, on the worker that owns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// The worker.
    pub worker: u8,
    /// Its place in that worker's table.
    pub slot: u32,
    /// Tells successive connections of one place apart.
    pub generation: u32,
    /// Whether nothing else will do once it has gone: no other connection, and no new one (RFC 5626 section 5.3).
    pub only: bool,
}

/// A listener and a remote address: the source of what arrived, or the destination of what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Index of the listener.
    pub listener: u16,
    /// The transport.
    pub transport: Transport,
    /// The remote address; for a connection that is gone, where a new one may be opened.
    pub address: SocketAddr,
    /// The connection to use, if it still stands.
    pub connection: Option<ConnectionId>,
}
