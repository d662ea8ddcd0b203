//! One worker: its sockets, its edge, and what one round of a loop does with them. Which thread that is may change.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use edge::{Counters, Edge, Hop, Shedding, Transmit};
use mio::event::Event;
use mio::net::{TcpListener, UdpSocket};
use mio::{Events, Interest, Poll, Token};
use proto::{Moment, Now};
use syntax::Transport;

use crate::bind::Bound;
use crate::connection::Reading;
use crate::datagram::{ReceiveBatch, failed_datagram};
use crate::install::InstallSettings;
use crate::limits::trim_memory;
use crate::mail::{Mail, Post};
use crate::policies::{Policies, WorkerLink};
use crate::records::RecordQueue;
use crate::resolve::Resolver;
use crate::sieve::Sieve;
use crate::stream::{FIRST_TOKEN, Streams};

pub(crate) const MAILBOX: Token = Token(FIRST_TOKEN - 1);
/// Mail taken in one round.
const MAILS: usize = 512;
/// Panics in ten seconds after which a worker starts afresh.
const PANICS: usize = 3;

enum Port {
    /// There may be `more` to read, or `errors` that ICMP reported.
    Datagram {
        socket: UdpSocket,
        more: bool,
        errors: bool,
        /// It is this worker's alone, so that a filter on it concerns no other.
        own: bool,
    },
    /// Another worker receives here; what we have to say leaves by its socket.
    Sender(UdpSocket),
    Stream(TcpListener),
    /// A listener for connections that other workers accept.
    Nothing,
}

/// What a worker tells others while it runs.
#[derive(Default)]
pub(crate) struct Status {
    pub(crate) drained: AtomicBool,
    pub(crate) connections: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) send_errors: AtomicU64,
    /// Bytes that wait for policy processes.
    pub(crate) policy_bytes: AtomicU64,
    pub(crate) handed_over: AtomicU64,
    pub(crate) mailbox_full: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) restarts: AtomicU64,
    /// Share of the new INVITEs that the kernel drops unread, at present.
    pub(crate) unread_percent: AtomicU64,
}

/// Everything that a worker shares with others.
pub(crate) struct Shared {
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
    counters: Arc<Counters>,
    edge: Edge,
    receive: ReceiveBatch,
    buffer: Vec<u8>,
    sieve: Sieve,
    policies: Policies,
    panics: Vec<u64>,
    tidied: u64,
    swept: u64,
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
        let mut sieve = Sieve::new(install.drop_unread);
        if let Some(Bound::Datagram(socket, _)) = bound.iter().find(|socket| matches!(socket, Bound::Datagram(_, true))) {
            sieve.try_out(socket);
        }
        for (number, socket) in bound.into_iter().enumerate() {
            ports.push(match socket {
                Bound::Datagram(socket, own) => {
                    let mut socket = UdpSocket::from_std(socket);
                    poll.registry().register(&mut socket, Token(number), Interest::READABLE)?;
                    Port::Datagram { socket, more: false, errors: false, own }
                }
                Bound::Sender(socket) => Port::Sender(UdpSocket::from_std(socket)),
                Bound::Nothing => Port::Nothing,
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
            counters: edge.counters(),
            edge,
            receive: ReceiveBatch::new(install.batch),
            buffer: vec![0; 65_536],
            sieve,
            policies: Policies::default(),
            panics: Vec::new(),
            tidied: 0,
            swept: 0,
            full_reads: false,
            stopping: false,
        })
    }

    /// The descriptor that is readable while one of the worker's sockets or its mailbox has something.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.poll.as_raw_fd()
    }

    /// Whether there is something to do without waiting.
    pub(crate) fn has_backlog(&self) -> bool {
        let unsent = !self.edge.out.sends().is_empty() || !self.edge.out.policy.is_empty();
        unsent || self.has_datagrams() || self.has_mail() || self.policies.came() || !self.readable.is_empty()
    }

    /// Whether there is surely more to do than one round does. A connection that trickles keeps us awake, but only one
    /// that fills whole buffers has work waiting.
    pub(crate) fn is_behind(&self) -> bool {
        self.has_datagrams() || self.has_mail() || self.full_reads
    }

    fn has_datagrams(&self) -> bool {
        self.ports.iter().any(|port| matches!(port, Port::Datagram { more: true, .. }))
    }

    fn has_mail(&self) -> bool {
        self.shared.posts[self.index].is_behind()
    }

    pub(crate) fn has_connections(&self) -> bool {
        self.streams.len() > 0
    }

    /// Whether it was told to stop and has put everything away.
    pub(crate) fn has_ended(&self) -> bool {
        self.stopping
    }

    /// Before a wait: whoever posts from now on wakes us. While we are awake anyway nobody needs to. True where something
    /// came in between.
    pub(crate) fn mail_came(&self) -> bool {
        self.shared.posts[self.index].open();
        let verdicts = self.policies.open();
        self.has_mail() || verdicts
    }

    /// Whether a verdict is expected any moment, so that a pause should end with it.
    pub(crate) fn expects_verdicts(&self, now: u64) -> bool {
        self.policies.expects(now)
    }

    /// Descriptors that are readable once a policy process rang.
    pub(crate) fn policy_descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.policies.descriptors()
    }

    /// Policy processes rang.
    pub(crate) fn answer_policies(&mut self) {
        self.policies.answer_bells();
    }

    /// From now on verdicts ring; true where one came in between.
    pub(crate) fn open_verdicts(&self) -> bool {
        self.policies.open()
    }

    /// Asks that policy process from now on.
    pub(crate) fn add_policy_link(&mut self, link: WorkerLink) {
        self.policies.add(link);
        self.edge.set_policy_links(self.policies.taking());
    }

    /// What is refused from now on, and how much of it the kernel need not even hand us.
    pub(crate) fn set_shedding(&mut self, now: Now, shedding: Shedding) {
        self.edge.set_shedding(shedding);
        let Some(share) =
            self.sieve.adjust(now.moment.0, self.counters.calls_started.get(), self.counters.shed_overload.get(), shedding >= Shedding::Registrations)
        else {
            return;
        };
        self.status.unread_percent.store(((1.0 - share) * 100.0) as u64, Ordering::Relaxed);
        for port in &self.ports {
            if let Port::Datagram { socket, own: true, .. } = port {
                self.sieve.apply(socket, share);
            }
        }
    }

    /// The sockets are to be looked at without asking which are ready.
    pub(crate) fn expect_datagrams(&mut self) {
        for port in &mut self.ports {
            if let Port::Datagram { more, .. } = port {
                *more = true;
            }
        }
    }

    /// Microseconds until something is due.
    pub(crate) fn timeout(&self, now: Moment) -> u64 {
        let until = self.edge.poll_timeout().map_or(u64::MAX, |at| at.since(now));
        until.min(if self.has_connections() { 125_000 } else { 1_000_000 })
    }

    /// Notes which sockets are ready.
    pub(crate) fn poll(&mut self, events: &mut Events) {
        if let Err(error) = self.poll.poll(events, Some(Duration::ZERO))
            && error.kind() != io::ErrorKind::Interrupted
        {
            log::error!(target: "worker", "worker {} cannot look at its sockets: {error}", self.index);
        }
        for event in &*events {
            self.event(event);
        }
    }

    /// Takes what came in from the network; returns how many messages that were.
    pub(crate) fn receive(&mut self, now: Now) -> usize {
        self.datagrams(now) + self.connections(now)
    }

    /// Does what other workers asked for and what is due, then sends; returns how many messages others had for it.
    pub(crate) fn work(&mut self, now: Now) -> usize {
        let count = self.mail(now);
        self.verdicts(now);
        self.guarded(now, |edge| edge.handle_timeout(now));
        if self.stopping {
            self.guarded(now, |edge| edge.end_all_calls(now));
        }
        self.housekeeping(now);
        count
    }

    fn verdicts(&mut self, now: Now) {
        if !self.policies.came() {
            return;
        }
        let mut policies = std::mem::take(&mut self.policies);
        let mut buffer = std::mem::take(&mut self.buffer);
        policies.take(&mut buffer, &mut |bytes| self.guarded(now, |edge| edge.handle_verdict(now, bytes)));
        buffer.resize(65_536, 0);
        (self.buffer, self.policies) = (buffer, policies);
        self.edge.set_policy_links(self.policies.taking());
    }

    /// Puts the questions of this round; a refusal may make the edge ask again, of another.
    pub(crate) fn ask_policies(&mut self, now: Now) {
        for _ in 0..4 {
            if self.edge.out.policy.is_empty() {
                return;
            }
            let mut questions = std::mem::take(&mut self.edge.out.policy);
            let mut refused = Vec::new();
            let policies = &mut self.policies;
            if catch_unwind(AssertUnwindSafe(|| policies.put(now.moment.0, &mut questions, &mut |token| refused.push(token)))).is_err() {
                self.panicked(now);
            }
            for token in refused {
                self.guarded(now, |edge| edge.handle_policy_refusal(now, token));
            }
        }
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
                let ends = event.is_read_closed() || event.is_error();
                if (event.is_readable() || ends) && self.streams.enqueue(slot, ends) {
                    self.readable.push_back(slot);
                }
            }
            Token(number) => match &mut self.ports[number] {
                Port::Datagram { more, errors, .. } => {
                    *more = true;
                    *errors |= event.is_error();
                }
                Port::Sender(_) | Port::Nothing => {}
                Port::Stream(socket) => self.streams.accept(self.poll.registry(), number as u16, socket),
            },
        }
    }

    /// Takes one batch from each UDP socket that has something.
    fn datagrams(&mut self, now: Now) -> usize {
        let mut received = 0;
        for number in 0..self.ports.len() {
            let Port::Datagram { socket, more: more @ true, errors, .. } = &mut self.ports[number] else { continue };
            match self.receive.receive(socket) {
                Ok(count) => {
                    // A batch that was not filled emptied the socket: the next datagram will wake us.
                    *more = count == self.receive.size();
                    received += count;
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
                    if std::mem::take(errors) || *more {
                        self.undelivered(now, number);
                    }
                }
            }
        }
        received
    }

    /// Takes back what ICMP reported as not delivered.
    fn undelivered(&mut self, now: Now, number: usize) {
        for _ in 0..64 {
            let Port::Datagram { socket, .. } = &self.ports[number] else { return };
            let Some(bytes) = failed_datagram(socket, &mut self.buffer).map(Box::<[u8]>::from) else { return };
            // The kernel tells it to any of the sockets that share the port.
            self.handle_undeliverable(now, &bytes);
        }
    }

    fn connections(&mut self, now: Now) -> usize {
        self.full_reads = false;
        let mut received = 0;
        // Each connection gets one read a round, so that none starves the others.
        for _ in 0..self.readable.len() {
            let Some(slot) = self.readable.pop_front() else { break };
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
            received += messages.len();
            for (hop, message) in messages {
                self.deliver(now, &hop, &message, false);
            }
        }
        received
    }

    fn mail(&mut self, now: Now) -> usize {
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
                Mail::Link(link) => self.add_policy_link(*link),
                Mail::DrainLink(id) => {
                    self.policies.drain(id);
                    self.edge.set_policy_links(self.policies.taking());
                }
                Mail::Unlink(id) => {
                    self.policies.remove(id);
                    self.edge.set_policy_links(self.policies.taking());
                }
                Mail::Reload(reload) => {
                    self.streams.set_limits(reload.snapshot.settings.limits.message());
                    self.edge.set_snapshot(reload.snapshot);
                    reload.drain.into_iter().for_each(|id| self.policies.drain(id));
                    reload.links.into_iter().for_each(|link| self.policies.add(link));
                    self.edge.set_policy_links(self.policies.taking());
                }
                Mail::Calls(call_id, limit, reply) => {
                    // Whoever asked may have given up.
                    drop(reply.send(self.edge.live_calls(call_id.as_deref(), limit)));
                }
                Mail::Drain => self.edge.drain(),
                Mail::Stop => self.stopping = true,
            }
        }
        count
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

    /// Datagrams to send by `listener`.
    pub(crate) fn datagrams_for(&self, listener: usize) -> impl Iterator<Item = (SocketAddr, &[u8])> {
        let out = &self.edge.out;
        let mine = move |t: &&Transmit| usize::from(t.hop.listener) == listener && !t.hop.transport.is_reliable();
        out.sends().iter().filter(mine).map(|t| (t.hop.address, out.bytes(t)))
    }

    /// The socket by which datagrams leave `listener`, whichever worker they are of.
    pub(crate) fn socket(&self, listener: usize) -> Option<&UdpSocket> {
        match self.ports.get(listener) {
            Some(Port::Datagram { socket, .. } | Port::Sender(socket)) => Some(socket),
            Some(Port::Stream(_) | Port::Nothing) | None => None,
        }
    }

    /// How many listeners there are.
    pub(crate) fn listeners(&self) -> usize {
        self.ports.len()
    }

    /// The kernel told of an ICMP error while something was sent: what it was about waits to be taken.
    pub(crate) fn expect_errors(&mut self) {
        for port in &mut self.ports {
            if let Port::Datagram { more, errors, .. } = port {
                (*more, *errors) = (true, true);
            }
        }
    }

    /// Sends what goes by connections; the datagrams went before. What could not be sent is added to `failed`.
    pub(crate) fn flush_streams(&mut self, failed: &mut Vec<Box<[u8]>>) {
        if self.edge.out.sends().iter().any(|t| t.hop.transport.is_reliable()) {
            let out = std::mem::take(&mut self.edge.out);
            for transmit in out.sends().iter().filter(|t| t.hop.transport.is_reliable()) {
                self.send_stream(&transmit.hop, out.bytes(transmit));
            }
            self.edge.out = out;
        }
        self.edge.out.clear_sends();
        self.streams.flush_queued();
        failed.append(&mut self.streams.undelivered);
    }

    /// Asks what the edge wants to know, and passes its records on.
    pub(crate) fn hand_out(&mut self) {
        for question in std::mem::take(&mut self.edge.out.questions) {
            self.shared.resolver.ask(question);
        }
        match &self.shared.records {
            Some(records) => self.edge.out.records.drain(..).for_each(|record| records.push(record)),
            None => self.edge.out.records.clear(),
        }
    }

    /// A datagram that the kernel would not send.
    pub(crate) fn count_send_error(&self) {
        self.status.send_errors.fetch_add(1, Ordering::Relaxed);
    }

    /// A message came back undelivered: its attempt failed, or the worker whose attempt it was is told.
    pub(crate) fn handle_undeliverable(&mut self, now: Now, bytes: &[u8]) {
        match self.edge.attempt_owner(bytes) {
            Some(owner) if usize::from(owner) != self.index => {
                if !self.shared.posts[usize::from(owner)].post(Mail::Undeliverable(bytes.into())) {
                    self.status.mailbox_full.fetch_add(1, Ordering::Relaxed);
                }
            }
            _ => self.guarded(now, |edge| edge.handle_undeliverable(now, bytes)),
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
        self.status.policy_bytes.store(self.policies.waiting(), Ordering::Relaxed);
        self.status.connections.store(self.streams.len() as u64, Ordering::Relaxed);
        self.status.connections_refused.store(self.streams.refused, Ordering::Relaxed);
        self.status.drained.store(self.edge.is_drained(), Ordering::Release);
        if second.is_multiple_of(10) && self.edge.sizes().1 == 0 && self.index == 0 {
            trim_memory();
        }
    }
}
