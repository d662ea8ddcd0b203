//! TCP: one connection to the proxy for the caller, those that the proxy makes for the callee.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

pub(crate) struct Streams {
    listener: Option<TcpListener>,
    connections: Vec<Connection>,
}

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    waiting: Vec<u8>,
}

impl Connection {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::new(), waiting: Vec::new() })
    }

    /// Writes what it can; false where the connection is gone.
    fn flush(&mut self) -> bool {
        while !self.waiting.is_empty() {
            match self.stream.write(&self.waiting) {
                Ok(0) => return false,
                Ok(length) => drop(self.waiting.drain(..length)),
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }

    /// Reads what is there; false where the connection is gone.
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 65_536];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(length) => self.received.extend_from_slice(&buffer[..length]),
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }

    fn take(&mut self, take: &mut dyn FnMut(&[u8])) -> usize {
        let (mut start, mut count) = (0, 0);
        while let Some(length) = message_length(&self.received[start..]) {
            take(&self.received[start..start + length]);
            (start, count) = (start + length, count + 1);
        }
        self.received.drain(..start);
        count
    }
}

impl Streams {
    pub(crate) fn listen(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener: Some(listener), connections: Vec::new() })
    }

    pub(crate) fn connect(target: SocketAddr) -> io::Result<Self> {
        Ok(Self { listener: None, connections: vec![Connection::new(TcpStream::connect(target)?)?] })
    }

    /// Sends on the latest connection: one caller and one proxy make no more than one that matters.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        if let Some(connection) = self.connections.last_mut() {
            connection.waiting.extend_from_slice(bytes);
        }
    }

    pub(crate) fn flush(&mut self) {
        self.connections.retain_mut(Connection::flush);
    }

    pub(crate) fn receive(&mut self, take: &mut dyn FnMut(&[u8])) -> usize {
        while let Some((stream, _)) = self.listener.as_ref().and_then(|listener| listener.accept().ok()) {
            self.connections.extend(Connection::new(stream).ok());
        }
        let mut count = 0;
        self.connections.retain_mut(|connection| {
            let alive = connection.fill();
            count += connection.take(take);
            alive
        });
        count
    }

    /// Every descriptor to wait for.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = i32> {
        self.connections.iter().map(|connection| connection.stream.as_raw_fd()).chain(self.listener.iter().map(AsRawFd::as_raw_fd))
    }
}

/// Bytes of the first message in `bytes`, if it is whole.
fn message_length(bytes: &[u8]) -> Option<usize> {
    let head = memchr::memmem::find(bytes, b"\r\n\r\n")? + 4;
    let at = memchr::memmem::find(&bytes[..head], b"\r\nContent-Length:")? + 17;
    let end = at + memchr::memchr(b'\r', &bytes[at..head])?;
    let length: usize = std::str::from_utf8(&bytes[at..end]).ok()?.trim().parse().ok()?;
    (bytes.len() >= head + length).then_some(head + length)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_message_ends_where_its_body_does() {
        let whole = b"SIP/2.0 200 OK\r\nContent-Length:  3\r\n\r\nabcSIP";
        assert_eq!(super::message_length(whole), Some(whole.len() - 3));
        assert_eq!(super::message_length(&whole[..whole.len() - 4]), None);
    }
}
