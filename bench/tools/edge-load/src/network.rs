//! How one side of the load sends and receives.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::datagram::Datagrams;
use crate::stream::Streams;

enum Kind {
    Datagram(Datagrams),
    Stream(Streams),
}

pub(crate) struct Network {
    kind: Kind,
    spare: Vec<Vec<u8>>,
}

impl Network {
    pub(crate) fn datagrams(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { kind: Kind::Datagram(Datagrams::bind(address)?), spare: Vec::new() })
    }

    pub(crate) fn listen(address: SocketAddr) -> io::Result<Self> {
        Ok(Self { kind: Kind::Stream(Streams::listen(address)?), spare: Vec::new() })
    }

    pub(crate) fn connect(target: SocketAddr) -> io::Result<Self> {
        Ok(Self { kind: Kind::Stream(Streams::connect(target)?), spare: Vec::new() })
    }

    /// An empty buffer for [`Network::send`].
    pub(crate) fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    pub(crate) fn send(&mut self, mut bytes: Vec<u8>, to: SocketAddr) {
        match &mut self.kind {
            Kind::Datagram(datagrams) => datagrams.send(bytes, to),
            Kind::Stream(streams) => {
                streams.send(&bytes);
                bytes.clear();
                self.spare.push(bytes);
            }
        }
    }

    /// As [`Network::send`], from one of the addresses of this machine where the socket has none of its own.
    pub(crate) fn send_from(&mut self, bytes: Vec<u8>, from: SocketAddr, to: SocketAddr) {
        match (&mut self.kind, from.ip()) {
            (Kind::Datagram(datagrams), IpAddr::V4(from)) if from != Ipv4Addr::LOCALHOST => datagrams.send_from(bytes, from, to),
            _ => self.send(bytes, to),
        }
    }

    pub(crate) fn flush(&mut self) {
        match &mut self.kind {
            Kind::Datagram(datagrams) => datagrams.flush(&mut self.spare),
            Kind::Stream(streams) => streams.flush(),
        }
    }

    /// Hands what waits to `take`; returns how many messages that were.
    pub(crate) fn receive(&mut self, take: &mut dyn FnMut(&[u8])) -> usize {
        match &mut self.kind {
            Kind::Datagram(datagrams) => datagrams.receive(take),
            Kind::Stream(streams) => streams.receive(take),
        }
    }

    fn descriptors(&self) -> Vec<i32> {
        match &self.kind {
            Kind::Datagram(datagrams) => vec![datagrams.descriptor()],
            Kind::Stream(streams) => streams.descriptors().collect(),
        }
    }
}

/// Waits until one of both has something, at most `microseconds`.
pub(crate) fn wait(networks: [&Network; 2], microseconds: u64) {
    let descriptors = networks.into_iter().flat_map(Network::descriptors);
    let mut polls: Vec<libc::pollfd> = descriptors.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    let time = libc::timespec { tv_sec: (microseconds / 1_000_000) as i64, tv_nsec: (microseconds % 1_000_000 * 1_000) as i64 };
    // SAFETY: the array and the time are live and of the stated size; no signal mask is given.
    unsafe { libc::ppoll(polls.as_mut_ptr(), polls.len() as u64, &time, std::ptr::null()) };
}
