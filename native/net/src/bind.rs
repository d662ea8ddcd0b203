//! Listening sockets: all of them bound before anything else starts, inherited ones taken first.

use std::env;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use edge::ListenerSettings;
use socket2::{Domain, Protocol, Socket, Type};
use syntax::Transport;

use crate::install::InstallSettings;

/// A listener that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("listener.{name}: cannot bind {transport}:{address}: {error}")]
pub struct BindError {
    /// The listener's name.
    pub name: String,
    /// Its transport.
    pub transport: String,
    /// Its address.
    pub address: SocketAddr,
    /// What the kernel said.
    pub error: io::Error,
}

/// One worker's socket of one listener.
pub(crate) enum Bound {
    /// With whether it is this worker's alone: an inherited one is shared by all.
    Datagram(UdpSocket, bool),
    /// For sending only: others receive.
    Sender(UdpSocket),
    Stream(TcpListener),
    Nothing,
}

/// One set of sockets for each worker, in the order of the listeners.
pub(crate) fn bind_all(listeners: &[ListenerSettings], install: &InstallSettings, mut inherited: Vec<Socket>) -> Result<Vec<Vec<Bound>>, BindError> {
    let mut workers: Vec<Vec<Bound>> = (0..install.workers).map(|_| Vec::new()).collect();
    for (number, listener) in listeners.iter().enumerate() {
        let fail = |error| BindError { name: listener.name.clone(), transport: listener.transport.clone(), address: listener.address, error };
        let kind = if listener.transport() == Transport::Udp { Type::DGRAM } else { Type::STREAM };
        let found = inherited.iter().position(|s| s.r#type().ok() == Some(kind) && s.local_addr().ok().and_then(|a| a.as_socket()) == Some(listener.address));
        let given = found.map(|index| inherited.swap_remove(index));
        if given.is_none() {
            // With SO_REUSEPORT a second proxy on the same address would go unnoticed and share its packets.
            drop(socket(listener.address, kind, false, install).map_err(fail)?);
        }
        let serves = |index: usize| listener.workers.is_empty() || listener.workers.contains(&(index as u8));
        for (_, worker) in workers.iter_mut().enumerate().filter(|(index, _)| serves(*index)) {
            let socket = match &given {
                Some(socket) => prepared(socket.try_clone().map_err(fail)?, kind, install),
                None => socket(listener.address, kind, true, install),
            };
            let socket = socket.map_err(fail)?;
            worker.push(if kind == Type::DGRAM { Bound::Datagram(socket.into(), given.is_none()) } else { Bound::Stream(socket.into()) });
        }
        let shared = workers.iter().find_map(|bound| match bound.last() {
            Some(Bound::Datagram(socket, _)) if bound.len() > number => Some(socket),
            _ => None,
        });
        let shared = shared.map(UdpSocket::try_clone).transpose().map_err(fail)?;
        for worker in workers.iter_mut().filter(|bound| bound.len() == number) {
            worker.push(match &shared {
                Some(socket) => Bound::Sender(socket.try_clone().map_err(fail)?),
                None => Bound::Nothing,
            });
        }
    }
    Ok(workers)
}

fn socket(address: SocketAddr, kind: Type, shared: bool, install: &InstallSettings) -> io::Result<Socket> {
    let protocol = if kind == Type::DGRAM { Protocol::UDP } else { Protocol::TCP };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // For TCP this lets a restart bind while old connections are still in TIME_WAIT; for UDP it would share the port.
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    if kind == Type::STREAM && shared {
        socket.listen(1_024)?;
    }
    prepared(socket, kind, install)
}

fn prepared(socket: Socket, kind: Type, install: &InstallSettings) -> io::Result<Socket> {
    socket.set_nonblocking(true)?;
    if kind == Type::DGRAM {
        grow(&socket, install);
        let domain = socket.domain()?;
        crate::datagram::report_errors(&socket, domain == Domain::IPV6)?;
    }
    Ok(socket)
}

/// Asks for large buffers and says where the system gives less.
fn grow(socket: &Socket, install: &InstallSettings) {
    let wants = [("receive", install.receive_buffer_bytes), ("send", install.send_buffer_bytes)];
    for (name, wanted) in wants {
        let receive = name == "receive";
        if !crate::datagram::force_buffer(socket, receive, wanted) {
            let set = if receive { socket.set_recv_buffer_size(wanted) } else { socket.set_send_buffer_size(wanted) };
            if let Err(error) = set {
                log::warn!(target: "start", "cannot set the {name} buffer of a UDP socket: {error}");
            }
        }
        // The kernel doubles what is asked for, to account for its own overhead.
        let got = if receive { socket.recv_buffer_size() } else { socket.send_buffer_size() }.unwrap_or(0) / 2;
        if got < wanted {
            log::warn!(target: "start", "the {name} buffer of a UDP socket is {got} bytes, {wanted} were asked for: raise net.core.{}mem_max", if receive { "r" } else { "w" });
        }
    }
}

/// Takes over descriptors that another process passed down to this one.
///
/// # Errors
/// Where one of them is not open.
pub fn inherited(descriptors: Vec<RawFd>) -> io::Result<Vec<OwnedFd>> {
    let owned = descriptors.into_iter().map(|fd| {
        // SAFETY: fcntl with F_GETFD only looks whether the number names an open descriptor.
        if fd < 3 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("descriptor {fd} was not passed on")));
        }
        // SAFETY: it is open, and whoever names it to us gives it away.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    });
    owned.collect()
}

/// Sockets passed by the service manager (LISTEN_FDS, LISTEN_PID).
pub(crate) fn inherited_sockets() -> Vec<Socket> {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Vec::new();
    }
    let count = number("LISTEN_FDS").unwrap_or(0).min(1_024) as i32;
    // SAFETY: LISTEN_PID names this process, so descriptors from 3 on were opened for us and nobody else owns them.
    (3..3 + count).map(|fd| Socket::from(unsafe { OwnedFd::from_raw_fd(fd) })).collect()
}
