//! One worker: its sockets, its edge, one loop.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use edge::{Edge, Hop};
use mio::event::Event;
use mio::net::{TcpListener, UdpSocket};
use mio::{Events, Interest, Poll, Token};
use proto::Now;
use syntax::Transport;

use crate::bind::Bound;
use crate::clock::Clock;
use crate::coalesce::Coalesce;
use crate::connection::Reading;
use crate::datagram::{ReceiveBatch, SendBatch, failed_datagram};
use crate::install::InstallSettings;
use crate::limits::{thread_time, trim_memory};
use crate::mail::{Mail, Post};
use crate::overload::Overload;
use crate::records::RecordQueue;
use crate::resolve::Resolver;
use crate::stream::{FIRST_TOKEN, Streams};

pub(crate) const MAILBOX: Token = Token(FIRST_TOKEN - 1);
/// Mail taken in one round.
const MAILS: usize = 512;
/// Panics in ten seconds after which a worker starts afresh.
const PANICS: usize = 3;

enum Port {
    Datagram { socket: UdpSocket, more: bool },
    Stream(TcpListener),
}

/// What a worker tells others while it runs.
#[derive(Default)]
pub(crate) struct Status {
    pub(crate) drained: AtomicBool,
    pub(crate) connections: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) send_errors: AtomicU64,
    pub(crate) handed_over: AtomicU64,
    pub(crate) mailbox_full: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) restarts: AtomicU64,
}

/// Everything that a worker shares with others.
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) posts: Vec<Arc<Post>>,
    pub(crate) statuses: Vec<Arc<Status>>,
    pub(crate) records: Option<Arc<RecordQueue>>,
    pub(crate) resolver: Resolver,
    pub(crate) addresses: Vec<SocketAddr>,
}

pub(crate) struct Worker {
    index: usize,
    shared: Arc<Shared>,
    status: Arc<Status>,
    poll: Poll,
    ports: Vec<Port>,
    streams: Streams,
    readable: VecDeque<usize>,
    edge: Edge,
    receive: ReceiveBatch,
    send: SendBatch,
    buffer: Vec<u8>,
    overload: Overload,
    coalesce: Coalesce,
    panics: Vec<u64>,
    tidied: u64,
    swept: u64,
    rounds: u32,
    /// A connection filled the whole buffer in the last round.
    full_reads: bool,
    stopping: bool,
}

impl Worker {
    pub(crate) fn new(
        index: usize,
        shared: Arc<Shared>,
        poll: Poll,
        bound: Vec<Bound>,
        streams: Streams,
        edge: Edge,
        install: &InstallSettings,
    ) -> io::Result<Self> {
        let mut ports = Vec::new();
        for (number, socket) in bound.into_iter().enumerate() {
            ports.push(match socket {
                Bound::Datagram(socket) => {
                    let mut socket = UdpSocket::from_std(socket);
                    poll.registry().register(&mut socket, Token(number), Interest::READABLE)?;
                    Port::Datagram { socket, more: false }
                }
                Bound::Stream(socket) => {
                    let mut socket = TcpListener::from_std(socket);
                    poll.registry().register(&mut socket, Token(number), Interest::READABLE)?;
                    Port::Stream(socket)
                }
            });
        }
        Ok(Self {
            index,
            status: Arc::clone(&shared.statuses[index]),
            shared,
            poll,
            ports,
            streams,
            readable: VecDeque::new(),
            edge,
            receive: ReceiveBatch::new(install.batch),
            send: SendBatch::new(install.batch),
            buffer: vec![0; 65_536],
            overload: Overload::new(install.overload_milliseconds),
            coalesce: Coalesce::new(install.coalesce_microseconds, install.coalesce_messages),
            panics: Vec::new(),
            tidied: 0,
            swept: 0,
            rounds: 0,
            full_reads: false,
            stopping: false,
        })
    }

    /// Runs until told to stop.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(1_024);
        while !self.stopping {
            let datagrams = self.ports.iter().any(|port| matches!(port, Port::Datagram { more: true, .. }));
            let behind = self.shared.posts[self.index].is_behind();
            let backlog = datagrams || behind || !self.readable.is_empty();
            // A connection that trickles keeps us awake, but only one that fills whole buffers has work waiting.
            let waiting = datagrams || behind || self.full_reads;
            self.edge.set_shedding(self.overload.round(waiting, thread_time));
            let paused = !backlog && self.pause(self.shared.clock.now());
            // After a pause the sockets are looked at in any case; asking the kernel which of them are ready is
            // needed for connections only, and now and then for everything else.
            let skip = paused && self.streams.len() == 0 && !self.rounds.is_multiple_of(8);
            self.rounds = self.rounds.wrapping_add(1);
            if skip {
                events.clear();
            } else {
                let timeout = if backlog || paused || self.mail_came() { Duration::ZERO } else { self.timeout() };
                if let Err(error) = self.poll.poll(&mut events, Some(timeout))
                    && error.kind() != io::ErrorKind::Interrupted
                {
                    log::error!(target: "worker", "worker {} cannot wait for its sockets: {error}", self.index);
                    return;
                }
            }
            let now = self.shared.clock.now();
            for event in &events {
                self.event(event);
            }
            self.mail(now);
            self.datagrams(now);
            self.connections(now);
            self.guarded(now, |edge| edge.handle_timeout(now));
            self.flush(now);
            self.housekeeping(now);
        }
        let now = self.shared.clock.now();
        self.guarded(now, |edge| edge.end_all_calls(now));
        self.flush(now);
    }

    /// Before a wait: whoever posts from now on wakes us. While we are awake anyway nobody needs to. True where something
    /// came in between.
    fn mail_came(&self) -> bool {
        self.shared.posts[self.index].open();
        self.shared.posts[self.index].is_behind()
    }

    /// Under load sleeps a little and marks every UDP socket to be looked at; false where there is no load.
    fn pause(&mut self, now: Now) -> bool {
        let Some(pause) = self.coalesce.pause(now.moment.0) else { return false };
        std::thread::sleep(pause);
        for port in &mut self.ports {
            if let Port::Datagram { more, .. } = port {
                *more = true;
            }
        }
        true
    }

    fn timeout(&self) -> Duration {
        let now = self.shared.clock.now().moment;
        let until = self.edge.poll_timeout().map_or(u64::MAX, |at| at.since(now));
        let most = if self.streams.len() > 0 { 125_000 } else { 1_000_000 };
        // Rounded up: mio counts milliseconds, and waking early would only make us wait again.
        Duration::from_millis(until.min(most).div_ceil(1_000))
    }

    fn event(&mut self, event: &Event) {
        match event.token() {
            // Looked at in every round.
            MAILBOX => {}
            Token(token) if token >= FIRST_TOKEN => {
                if event.is_writable() {
                    self.streams.flush(token - FIRST_TOKEN);
                }
                let slot = token - FIRST_TOKEN;
                if (event.is_readable() || event.is_read_closed() || event.is_error()) && self.streams.enqueue(slot) {
                    self.readable.push_back(slot);
                }
            }
            Token(number) => match &mut self.ports[number] {
                Port::Datagram { more, .. } => *more = true,
                Port::Stream(socket) => self.streams.accept(self.poll.registry(), number as u16, socket),
            },
        }
    }

    /// Takes one batch from each UDP socket that has something.
    fn datagrams(&mut self, now: Now) {
        for number in 0..self.ports.len() {
            let Port::Datagram { socket, more: more @ true } = &mut self.ports[number] else { continue };
            match self.receive.receive(socket) {
                Ok(count) => {
                    // A batch that was not filled emptied the socket: the next datagram will wake us.
                    *more = count == self.receive.size();
                    self.coalesce.received(now.moment.0, count);
                    let receive = std::mem::replace(&mut self.receive, ReceiveBatch::new(0));
                    for index in 0..count {
                        let Some((source, bytes)) = receive.datagram(index) else { continue };
                        // Keep-alives of two or four bytes and the like (RFC 5626 section 4.4.1).
                        if bytes.len() > 4 {
                            let hop = Hop { listener: number as u16, transport: Transport::Udp, address: source, connection: None };
                            self.deliver(now, &hop, bytes, false);
                        }
                    }
                    self.receive = receive;
                }
                Err(error) => {
                    *more = error.kind() != io::ErrorKind::WouldBlock;
                    self.undelivered(now, number);
                }
            }
        }
    }

    /// Takes back what ICMP reported as not delivered.
    fn undelivered(&mut self, now: Now, number: usize) {
        for _ in 0..64 {
            let Port::Datagram { socket, .. } = &self.ports[number] else { return };
            let Some(bytes) = failed_datagram(socket, &mut self.buffer).map(Box::<[u8]>::from) else { return };
            // The kernel tells it to any of the sockets that share the port.
            if self.is_mine(&bytes) {
                self.guarded(now, |edge| edge.handle_undeliverable(now, &bytes));
            }
        }
    }

    fn connections(&mut self, now: Now) {
        self.full_reads = false;
        // Each connection gets one read a round, so that none starves the others.
        for _ in 0..self.readable.len() {
            let Some(slot) = self.readable.pop_front() else { return };
            let mut buffer = std::mem::take(&mut self.buffer);
            let mut messages: Vec<(Hop, Box<[u8]>)> = Vec::new();
            match self.streams.read(slot, &mut buffer, &mut |hop, message| messages.push((*hop, message.into()))) {
                Reading::Empty => {}
                Reading::Some => self.readable.push_back(slot),
                Reading::Full => {
                    self.full_reads = true;
                    self.readable.push_back(slot);
                }
            }
            self.buffer = buffer;
            for (hop, message) in messages {
                self.deliver(now, &hop, &message, false);
            }
        }
    }

    fn mail(&mut self, now: Now) {
        // The rest waits for the next round: others must not keep us from our own sockets.
        let mut count = 0;
        while count < MAILS
            && let Some(mail) = self.shared.posts[self.index].take()
        {
            count += 1;
            match mail {
                Mail::Message(hop, bytes) => self.deliver(now, &hop, &bytes, true),
                Mail::Send(hop, bytes) => self.send_stream(&hop, &bytes),
                Mail::Undeliverable(bytes) => self.guarded(now, |edge| edge.handle_undeliverable(now, &bytes)),
                Mail::Answer(answer) => self.guarded(now, |edge| edge.handle_answer(now, answer)),
                Mail::Drain => self.edge.drain(),
                Mail::Stop => self.stopping = true,
            }
        }
        if count > 0 {
            self.coalesce.received(now.moment.0, count);
        }
    }

    fn deliver(&mut self, now: Now, hop: &Hop, bytes: &[u8], handed_over: bool) {
        let edge = &mut self.edge;
        match catch_unwind(AssertUnwindSafe(|| edge.handle_message(now, hop, bytes, handed_over))) {
            Ok(None) => {}
            Ok(Some(owner)) => {
                self.status.handed_over.fetch_add(1, Ordering::Relaxed);
                if !self.shared.posts[usize::from(owner)].post(Mail::Message(*hop, bytes.into())) {
                    self.status.mailbox_full.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(_) => {
                self.panicked(now);
                let edge = &mut self.edge;
                if catch_unwind(AssertUnwindSafe(|| edge.handle_panic(now, hop, bytes))).is_err() {
                    log::error!(target: "worker", "a message that made us panic cannot be answered either");
                }
            }
        }
    }

    /// Runs one input; a panic ends that input, not the worker.
    fn guarded(&mut self, now: Now, work: impl FnOnce(&mut Edge)) {
        let edge = &mut self.edge;
        if catch_unwind(AssertUnwindSafe(|| work(edge))).is_err() {
            self.panicked(now);
            let edge = &mut self.edge;
            if catch_unwind(AssertUnwindSafe(|| edge.handle_inner_panic(now))).is_err() {
                log::error!(target: "worker", "what a panic left cannot be put away either");
            }
        }
    }

    fn panicked(&mut self, now: Now) {
        self.status.panics.fetch_add(1, Ordering::Relaxed);
        let second = now.moment.0 / 1_000_000;
        self.panics.retain(|at| second - at < 10);
        self.panics.push(second);
        if self.panics.len() >= PANICS {
            self.panics.clear();
            self.status.restarts.fetch_add(1, Ordering::Relaxed);
            log::error!(target: "worker", "worker {} panicked {PANICS} times in ten seconds and starts afresh", self.index);
            self.edge.restart(now);
        }
    }

    fn flush(&mut self, now: Now) {
        // Reporting a failure may make the edge send again, to somewhere else.
        for _ in 0..4 {
            let failed = self.flush_once();
            if failed.is_empty() {
                break;
            }
            for bytes in failed {
                self.guarded(now, |edge| edge.handle_undeliverable(now, &bytes));
            }
        }
        for question in std::mem::take(&mut self.edge.out.questions) {
            self.shared.resolver.ask(question);
        }
        match &self.shared.records {
            Some(records) => self.edge.out.records.drain(..).for_each(|record| records.push(record)),
            None => self.edge.out.records.clear(),
        }
    }

    fn flush_once(&mut self) -> Vec<Box<[u8]>> {
        let out = std::mem::take(&mut self.edge.out);
        let mut failed: Vec<Box<[u8]>> = Vec::new();
        let status = &self.status;
        for (number, port) in self.ports.iter().enumerate() {
            let Port::Datagram { socket, .. } = port else { continue };
            let mut mine = out.sends().iter().filter(|t| usize::from(t.hop.listener) == number).map(|t| (t.hop.address, out.bytes(t)));
            self.send.send(socket, &mut mine, &mut |bytes, error| {
                status.send_errors.fetch_add(1, Ordering::Relaxed);
                // A full buffer is a lost datagram like any other; SIP's own timers send it again.
                if error.kind() != io::ErrorKind::WouldBlock {
                    failed.push(bytes.into());
                }
            });
        }
        for transmit in out.sends().iter().filter(|t| t.hop.transport.is_reliable()) {
            self.send_stream(&transmit.hop, out.bytes(transmit));
        }
        // Other effects stay for the caller.
        let questions = std::mem::take(&mut self.edge.out.questions);
        let records = std::mem::take(&mut self.edge.out.records);
        self.edge.out = out;
        self.edge.out.clear_sends();
        self.edge.out.questions.extend(questions);
        self.edge.out.records.extend(records);
        for bytes in self.streams.undelivered.drain(..) {
            failed.push(bytes);
        }
        failed.retain(|bytes| self.is_mine(bytes));
        failed
    }

    /// Whether a message that came back is this worker's own; if not, its owner is told.
    fn is_mine(&self, bytes: &[u8]) -> bool {
        match self.edge.attempt_owner(bytes) {
            Some(owner) if usize::from(owner) != self.index => {
                if !self.shared.posts[usize::from(owner)].post(Mail::Undeliverable(bytes.into())) {
                    self.status.mailbox_full.fetch_add(1, Ordering::Relaxed);
                }
                false
            }
            _ => true,
        }
    }

    fn send_stream(&mut self, hop: &Hop, bytes: &[u8]) {
        let owner = hop.connection.map_or(self.index, |id| usize::from(id.worker));
        if owner != self.index && owner < self.shared.posts.len() {
            if !self.shared.posts[owner].post(Mail::Send(*hop, bytes.into())) {
                self.status.mailbox_full.fetch_add(1, Ordering::Relaxed);
            }
            return;
        }
        let local = self.shared.addresses[usize::from(hop.listener)].ip();
        self.streams.send(self.poll.registry(), hop, local, bytes);
    }

    fn housekeeping(&mut self, now: Now) {
        let eighth = now.moment.0 / 125_000;
        if eighth != self.swept {
            self.swept = eighth;
            self.streams.sweep();
        }
        let second = now.moment.0 / 1_000_000;
        if second == self.tidied {
            return;
        }
        self.tidied = second;
        self.edge.tidy(now);
        self.status.connections.store(self.streams.len() as u64, Ordering::Relaxed);
        self.status.connections_refused.store(self.streams.refused, Ordering::Relaxed);
        self.status.drained.store(self.edge.is_drained(), Ordering::Release);
        if second.is_multiple_of(10) && self.edge.sizes().1 == 0 && self.index == 0 {
            trim_memory();
        }
    }
}
