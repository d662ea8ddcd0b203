//! All TCP connections of one worker.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use edge::{ConnectionId, EventKind, Hop, Listening};
use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};
use syntax::{Limits, ParseError, Transport};

use crate::connection::{Closing, Connection, Reading};
use crate::install::StreamSettings;

/// Tokens below this are listeners and the mailbox.
pub(crate) const FIRST_TOKEN: usize = 4_096;
/// The table is looked through in so many parts, one each eighth of a second.
const SWEEPS: usize = 8;

/// Connections by source over all workers; touched only when one opens or closes.
pub(crate) type Sources = Arc<Mutex<HashMap<IpAddr, u32>>>;

struct Slot {
    generation: u32,
    connection: Option<Box<Connection>>,
}

/// The connections of one worker.
pub(crate) struct Streams {
    worker: u8,
    settings: StreamSettings,
    limits: Limits,
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_remote: HashMap<(u16, SocketAddr), u32>,
    sources: Sources,
    /// Messages that were queued on connections that failed.
    pub(crate) undelivered: Vec<Box<[u8]>>,
    /// Connections that are gone, with the address that they were accepted or made at, while somebody listens to that.
    pub(crate) gone: Vec<(SocketAddr, SocketAddr)>,
    listening: Listening,
    /// Who sent last what cannot be framed, and why not.
    pub(crate) unreadable: Option<(Hop, ParseError)>,
    /// Connections with something queued since the last write.
    queued: Vec<usize>,
    swept: usize,
    pub(crate) refused: u64,
}

impl Streams {
    pub(crate) fn new(worker: u8, settings: StreamSettings, limits: Limits, sources: Sources, listening: Listening) -> Self {
        Self {
            worker,
            settings,
            limits,
            slots: Vec::new(),
            free: Vec::new(),
            by_remote: HashMap::new(),
            sources,
            undelivered: Vec::new(),
            gone: Vec::new(),
            listening,
            unreadable: None,
            queued: Vec::new(),
            swept: 0,
            refused: 0,
        }
    }

    /// Bounds messages so from now on.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// How many connections stand.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Accepts what waits at `listener`.
    pub(crate) fn accept(&mut self, registry: &Registry, listener: u16, socket: &TcpListener) {
        loop {
            match socket.accept() {
                Ok((stream, remote)) => {
                    if !self.admit(remote.ip()) {
                        self.refused += 1;
                        continue;
                    }
                    if let Err(error) = self.add(registry, Connection::new(stream, listener, remote, true)) {
                        self.release(remote.ip());
                        log::warn!(target: "tcp", "cannot take a connection: {error}");
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Out of files, most likely: the rest waits in the kernel's queue until the next connection wakes us.
                    return log::warn!(target: "tcp", "cannot accept: {error}");
                }
            }
        }
    }

    fn admit(&self, source: IpAddr) -> bool {
        if self.len() >= self.settings.connections {
            return false;
        }
        let Ok(mut sources) = self.sources.lock() else { return false };
        let count = sources.entry(source).or_insert(0);
        if *count >= self.settings.connections_per_source {
            return false;
        }
        *count += 1;
        true
    }

    fn release(&self, source: IpAddr) {
        let Ok(mut sources) = self.sources.lock() else { return };
        if let Some(count) = sources.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                sources.remove(&source);
            }
        }
    }

    fn add(&mut self, registry: &Registry, mut connection: Connection) -> io::Result<u32> {
        if let Err(error) = connection.stream.set_nodelay(true) {
            log::debug!(target: "tcp", "cannot set TCP_NODELAY: {error}");
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { generation: 0, connection: None });
            (self.slots.len() - 1) as u32
        });
        if let Err(error) = registry.register(&mut connection.stream, Token(FIRST_TOKEN + slot as usize), Interest::READABLE | Interest::WRITABLE) {
            self.free.push(slot);
            return Err(error);
        }
        self.by_remote.insert((connection.listener, connection.remote), slot);
        let place = &mut self.slots[slot as usize];
        place.generation = place.generation.wrapping_add(1);
        place.connection = Some(Box::new(connection));
        Ok(slot)
    }

    /// Notes that a connection waits to be read, and whether it `ends` after that; false where it waits already, or is gone.
    pub(crate) fn enqueue(&mut self, slot: usize, ends: bool) -> bool {
        let Some(connection) = self.slots.get_mut(slot).and_then(|s| s.connection.as_mut()) else { return false };
        connection.ends |= ends;
        !std::mem::replace(&mut connection.enqueued, true)
    }

    /// Reads a connection that has something; messages go to `deliver`.
    pub(crate) fn read(&mut self, slot: usize, buffer: &mut [u8], deliver: &mut dyn FnMut(&Hop, &[u8])) -> Reading {
        let id = self.id(slot);
        let limits = self.limits;
        let Some(connection) = self.slots.get_mut(slot).and_then(|s| s.connection.as_mut()) else { return Reading::Empty };
        let hop = Hop { listener: connection.listener, transport: Transport::Tcp, address: connection.remote, connection: id };
        let unwritten = connection.unwritten;
        match connection.read(buffer, &limits, &mut |message| deliver(&hop, message)) {
            Ok(reading) => {
                connection.enqueued = reading != Reading::Empty;
                // A keep-alive was answered.
                if connection.unwritten && !unwritten {
                    self.queued.push(slot);
                }
                reading
            }
            Err(closing) => {
                if let Closing::Unreadable(error) = closing {
                    self.unreadable = Some((hop, error));
                }
                self.close(slot, &closing);
                Reading::Empty
            }
        }
    }

    /// A connection can be written to.
    pub(crate) fn flush(&mut self, slot: usize) {
        let Some(connection) = self.slots.get_mut(slot).and_then(|s| s.connection.as_mut()) else { return };
        if !(connection.connecting || connection.has_unsent()) {
            return;
        }
        if let Err(closing) = connection.flush() {
            self.close(slot, &closing);
        }
    }

    fn id(&self, slot: usize) -> Option<ConnectionId> {
        self.slots.get(slot).map(|place| ConnectionId { worker: self.worker, slot: slot as u32, generation: place.generation, only: false })
    }

    /// Sends `message` to `hop`: on its connection, on another to the same place, or on a new one from `local`.
    pub(crate) fn send(&mut self, registry: &Registry, hop: &Hop, local: IpAddr, message: &[u8]) {
        let named = hop.connection.filter(|id| id.worker == self.worker).and_then(|id| {
            let place = self.slots.get(id.slot as usize)?;
            (place.generation == id.generation && place.connection.is_some()).then_some(id.slot)
        });
        if named.is_none() && hop.connection.is_some_and(|id| id.only) {
            return self.undelivered.push(message.into());
        }
        let slot = named.or_else(|| self.by_remote.get(&(hop.listener, hop.address)).copied());
        let slot = match slot.map_or_else(|| self.connect(registry, hop, local), Ok) {
            Ok(slot) => slot as usize,
            Err(error) => {
                log::debug!(target: "tcp", "cannot connect: {error}");
                return self.undelivered.push(message.into());
            }
        };
        let limit = self.settings.write_queue_bytes;
        let Some(connection) = self.slots[slot].connection.as_mut() else { return };
        let unwritten = connection.unwritten;
        if let Err(closing) = connection.queue(message, limit) {
            self.close(slot, &closing);
            self.undelivered.push(message.into());
        } else if !unwritten {
            self.queued.push(slot);
        }
    }

    /// Writes what was queued since the last time; what does not fit waits until the socket can take more.
    pub(crate) fn flush_queued(&mut self) {
        for slot in std::mem::take(&mut self.queued) {
            let connection = self.slots.get_mut(slot).and_then(|s| s.connection.as_mut());
            if connection.is_some_and(|connection| connection.unwritten && !connection.connecting) {
                self.flush(slot);
            }
        }
    }

    fn connect(&mut self, registry: &Registry, hop: &Hop, local: IpAddr) -> io::Result<u32> {
        if self.len() >= self.settings.connections {
            return Err(io::Error::other("the table of connections is full"));
        }
        let socket = Socket::new(Domain::for_address(hop.address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        // The listener's address, so that the far end sees the same peer in both directions; the port is the kernel's choice.
        socket.bind(&SocketAddr::new(local, 0).into())?;
        match socket.connect(&hop.address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let stream = TcpStream::from_std(socket.into());
        self.add(registry, Connection::new(stream, hop.listener, hop.address, false))
    }

    fn close(&mut self, slot: usize, closing: &Closing) {
        let Some(mut connection) = self.slots.get_mut(slot).and_then(|place| place.connection.take()) else { return };
        match closing {
            Closing::Gone => {}
            Closing::Unreadable(error) => log::debug!(target: "tcp", "closing a connection: {error}"),
            Closing::Flooding => log::info!(target: "tcp", "closing a connection that floods us with keep-alives"),
            Closing::Stuck => log::info!(target: "tcp", "closing a connection whose far end does not read"),
        }
        if self.listening.to(EventKind::CoreTcpDisconnect)
            && let Ok(local) = connection.stream.local_addr()
        {
            self.gone.push((connection.remote, local));
        }
        self.undelivered.extend(connection.unsent());
        if connection.accepted {
            self.release(connection.remote.ip());
        }
        if self.by_remote.get(&(connection.listener, connection.remote)) == Some(&(slot as u32)) {
            self.by_remote.remove(&(connection.listener, connection.remote));
        }
        self.free.push(slot as u32);
        // Closing the descriptor takes it out of the poll set.
    }

    /// Closes connections that are idle, slow to send a message, or slow to connect; looks at one part of them.
    pub(crate) fn sweep(&mut self) {
        self.swept = (self.swept + 1) % SWEEPS;
        let now = Instant::now();
        let idle = Duration::from_secs(self.settings.idle_seconds);
        let whole = Duration::from_secs(self.settings.message_seconds);
        let connect = Duration::from_millis(self.settings.connect_milliseconds);
        for slot in (self.swept..self.slots.len()).step_by(SWEEPS) {
            let Some(connection) = &self.slots[slot].connection else { continue };
            let since = now.duration_since(connection.last_activity);
            let slow = connection.partial_since.is_some_and(|start| now.duration_since(start) > whole);
            let stuck = connection.has_unsent() && now.duration_since(connection.last_progress) > whole;
            if slow || stuck || since > idle || (connection.connecting && since > connect) {
                self.close(slot, &Closing::Gone);
            }
        }
    }
}
