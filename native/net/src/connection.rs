//! One TCP connection: bytes in, messages out, and a bounded queue of what waits to be written.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use mio::net::TcpStream;
use smallvec::SmallVec;
use syntax::{Frame, Framer, Limits};

/// Keep-alives that one read may bring; honest ones come once in half a minute.
const PINGS: u32 = 16;
/// Messages written by one call, at most.
const SLICES: usize = 64;

/// A connection and what is under way on it. Idle, it holds no buffer.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) listener: u16,
    pub(crate) remote: SocketAddr,
    pub(crate) accepted: bool,
    pub(crate) connecting: bool,
    /// Waits for its turn to be read.
    pub(crate) enqueued: bool,
    /// The far end has closed its side: after what is left to read comes the end.
    pub(crate) ends: bool,
    /// Something was queued since the last write.
    pub(crate) unwritten: bool,
    pub(crate) last_activity: Instant,
    /// When the far end last took something of what waits to be written.
    pub(crate) last_progress: Instant,
    /// When the first byte of an incomplete message came.
    pub(crate) partial_since: Option<Instant>,
    partial: Vec<u8>,
    framer: Framer,
    queue: VecDeque<Box<[u8]>>,
    queued: usize,
    written: usize,
}

/// What a read left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Nothing: the next byte will wake us.
    Empty,
    /// Perhaps something.
    Some,
    /// The buffer was filled, so surely something.
    Full,
}

/// Why a connection must be closed.
#[derive(Debug)]
pub(crate) enum Closing {
    /// The far end closed it, or the network did.
    Gone,
    /// What came cannot be framed as SIP.
    Unreadable(syntax::ParseError),
    /// It sends keep-alives and nothing else, as fast as it can.
    Flooding,
    /// It does not read what we send.
    Stuck,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, listener: u16, remote: SocketAddr, accepted: bool) -> Self {
        Self {
            stream,
            listener,
            remote,
            accepted,
            connecting: !accepted,
            enqueued: false,
            ends: false,
            unwritten: false,
            last_activity: Instant::now(),
            last_progress: Instant::now(),
            partial_since: None,
            partial: Vec::new(),
            framer: Framer::default(),
            queue: VecDeque::new(),
            queued: 0,
            written: 0,
        }
    }

    /// Reads once into `buffer` and hands each whole message to `deliver`.
    pub(crate) fn read(&mut self, buffer: &mut [u8], limits: &Limits, deliver: &mut dyn FnMut(&[u8])) -> Result<Reading, Closing> {
        let count = match self.stream.read(buffer) {
            Ok(0) => return Err(Closing::Gone),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Reading::Empty),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Reading::Some),
            Err(_) => return Err(Closing::Gone),
        };
        self.last_activity = Instant::now();
        if self.partial.is_empty() {
            // The common case: whole messages, framed where they were received.
            let used = self.frames(&buffer[..count], limits, deliver)?;
            self.partial.extend_from_slice(&buffer[used..count]);
        } else {
            let mut partial = std::mem::take(&mut self.partial);
            partial.extend_from_slice(&buffer[..count]);
            let used = self.frames(&partial, limits, deliver)?;
            partial.drain(..used);
            self.partial = partial;
        }
        if self.partial.is_empty() {
            self.partial = Vec::new();
            self.partial_since = None;
        } else if self.partial_since.is_none() {
            self.partial_since = Some(self.last_activity);
        }
        // Whoever gets less than he has room for has emptied the socket: the next byte will wake us.
        Ok(if count == buffer.len() {
            Reading::Full
        } else if self.ends {
            Reading::Some
        } else {
            Reading::Empty
        })
    }

    fn frames(&mut self, bytes: &[u8], limits: &Limits, deliver: &mut dyn FnMut(&[u8])) -> Result<usize, Closing> {
        let (mut at, mut pings) = (0, 0);
        loop {
            match self.framer.next(&bytes[at..], limits).map_err(Closing::Unreadable)? {
                Frame::Incomplete => return Ok(at),
                // RFC 5626 section 3.5.1. Who does not read what we send gets no more of it.
                Frame::Ping => {
                    pings += 1;
                    if pings > PINGS {
                        return Err(Closing::Flooding);
                    }
                    if !self.has_unsent() {
                        self.queue(b"\r\n", 2)?;
                    }
                    at += 4;
                }
                Frame::Pong => at += 2,
                Frame::Message(length) => {
                    deliver(&bytes[at..at + length]);
                    at += length;
                    self.partial_since = None;
                }
            }
        }
    }

    /// Queues `message` for the next [`Connection::flush`]; at most `limit` bytes may wait.
    pub(crate) fn queue(&mut self, message: &[u8], limit: usize) -> Result<(), Closing> {
        if self.queued + message.len() > limit && self.unwritten && !self.connecting {
            self.flush()?;
        }
        if self.queued + message.len() > limit {
            return Err(Closing::Stuck);
        }
        if self.queue.is_empty() {
            self.last_progress = Instant::now();
        }
        self.queued += message.len();
        self.queue.push_back(message.into());
        self.unwritten = true;
        Ok(())
    }

    /// The socket can be written to: sends what waits, many messages with one call.
    pub(crate) fn flush(&mut self) -> Result<(), Closing> {
        self.unwritten = false;
        if self.connecting {
            match self.stream.peer_addr() {
                Ok(_) => self.connecting = false,
                Err(error) if error.kind() == io::ErrorKind::NotConnected => {
                    return if matches!(self.stream.take_error(), Ok(None)) { Ok(()) } else { Err(Closing::Gone) };
                }
                Err(_) => return Err(Closing::Gone),
            }
            self.last_activity = Instant::now();
        }
        while !self.queue.is_empty() {
            let waiting = self.queue.iter().take(SLICES).enumerate();
            let slices: SmallVec<[IoSlice<'_>; 4]> =
                waiting.map(|(index, message)| IoSlice::new(if index == 0 { &message[self.written..] } else { message })).collect();
            let written = self.stream.write_vectored(&slices);
            drop(slices);
            match written {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(Closing::Gone),
            }
            self.last_activity = Instant::now();
            self.last_progress = self.last_activity;
            while let Some(message) = self.queue.front()
                && self.written >= message.len()
            {
                self.queued -= message.len();
                self.written -= message.len();
                self.queue.pop_front();
            }
        }
        self.queue = VecDeque::new();
        Ok(())
    }

    /// What was queued and never left.
    pub(crate) fn unsent(&mut self) -> VecDeque<Box<[u8]>> {
        std::mem::take(&mut self.queue)
    }

    /// Whether something waits to be written.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.queue.is_empty()
    }
}
