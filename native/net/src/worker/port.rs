//! The sockets of a worker's listeners: opened at start and by a reload, closed when a listener has drained.

use std::io;
use std::os::fd::AsRawFd;

use edge::Snapshot;
use mio::net::{TcpListener, UdpSocket};
use mio::{Interest, Registry, Token};

use super::Worker;
use crate::bind::Bound;
use crate::limits;

/// One listener as a worker has it.
pub(super) enum Port {
    /// There may be `more` to read, or `errors` that ICMP reported.
    Datagram {
        socket: UdpSocket,
        more: bool,
        errors: bool,
        /// It is this worker's alone, so that a filter on it concerns no other.
        own: bool,
        /// How many datagrams the kernel had dropped when that was told last.
        drops: u32,
    },
    /// Another worker receives here; what we have to say leaves by its socket.
    Sender(UdpSocket),
    Stream(TcpListener),
    /// A listener for connections that other workers accept.
    Nothing,
}

impl Port {
    /// Bytes of the receive buffer that are in use.
    pub(super) fn waiting_bytes(&self) -> u64 {
        match self {
            Self::Datagram { socket, .. } => limits::receive_memory(socket.as_raw_fd()).0,
            _ => 0,
        }
    }

    /// How many datagrams the kernel dropped since this was asked.
    pub(super) fn take_drops(&mut self) -> u32 {
        let Self::Datagram { socket, drops, .. } = self else { return 0 };
        let now = limits::receive_memory(socket.as_raw_fd()).1;
        now.wrapping_sub(std::mem::replace(drops, now))
    }

    /// Watches a socket that was bound, as number `number` of the worker's.
    pub(super) fn open(registry: &Registry, number: usize, socket: Bound) -> io::Result<Self> {
        Ok(match socket {
            Bound::Datagram(socket, own) => {
                let mut socket = UdpSocket::from_std(socket);
                registry.register(&mut socket, Token(number), Interest::READABLE)?;
                let drops = limits::receive_memory(socket.as_raw_fd()).1;
                Self::Datagram { socket, more: false, errors: false, own, drops }
            }
            Bound::Sender(socket) => Self::Sender(UdpSocket::from_std(socket)),
            Bound::Nothing => Self::Nothing,
            Bound::Stream(socket) => {
                let mut socket = TcpListener::from_std(socket);
                registry.register(&mut socket, Token(number), Interest::READABLE)?;
                Self::Stream(socket)
            }
        })
    }
}

impl Worker {
    /// Takes in the sockets of new listeners, behind those that there are.
    pub(super) fn open_ports(&mut self, bound: Vec<Bound>) {
        for socket in bound {
            let number = self.ports.len();
            let port = Port::open(self.poll.registry(), number, socket).unwrap_or_else(|error| {
                log::error!(target: "worker", "worker {} cannot watch listener {number}: {error}", self.index);
                Port::Nothing
            });
            self.ports.push(port);
        }
    }

    /// Listeners that drain take no more connections; those that stand stay.
    pub(super) fn stop_accepting(&mut self, snapshot: &Snapshot) {
        for (port, listener) in self.ports.iter_mut().zip(&snapshot.settings.listeners) {
            if listener.drained && matches!(port, Port::Stream(_)) {
                *port = Port::Nothing;
            }
        }
    }

    /// Closes a listener that has drained.
    pub(super) fn close_port(&mut self, number: u16) {
        if let Some(port) = self.ports.get_mut(usize::from(number)) {
            *port = Port::Nothing;
        }
    }
}
