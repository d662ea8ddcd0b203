//! The state of one worker.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proto::{Key, LargePages, Moment, Now, Secret, TimedSlab, TransactionIndex, keyed_hash, seconds, stable_id};
use syntax::{Edits, Head, Limits, Message, Transport, parse};

use crate::admit::Shedding;
use crate::call::{Call, CallView, Leases};
use crate::chooser::Pairs;
use crate::counters::Counters;
use crate::event::{EventKind, Listening};
use crate::limits::LimitWatch;
use crate::media_session::{MediaPorts, MediaState};
use crate::outbox::Outbox;
use crate::peer_counters::PeerCounters;
use crate::question::Address;
use crate::recent::Recent;
use crate::routing_table::Routing;
use crate::settings::Snapshot;
use crate::transaction::Transaction;
use crate::users::Users;

/// What the kernel's routing table would choose; the worker asks it, a test answers as it likes.
pub trait Routes: Send {
    /// The local address from which `destination` is reached.
    fn source_for(&mut self, destination: IpAddr) -> Option<IpAddr>;
}

/// What one worker of several has in common with the others, and what not.
pub struct EdgeOptions {
    /// This worker.
    pub worker: u8,
    /// How many there are.
    pub workers: u8,
    /// Seals Record-Route; survives a restart.
    pub route_secret: Secret,
    /// Keys transaction and ownership hashes; the same for all workers of a process.
    pub process_secret: Secret,
    /// Start of the process, microseconds since 1970: tells its records from those of earlier ones.
    pub epoch: u64,
    /// The kernel's routes.
    pub routes: Box<dyn Routes>,
    /// What somebody listens to.
    pub listening: Listening,
    /// Ports for media.
    pub media: Box<dyn MediaPorts>,
    /// Wishes for large pages where all of a table is walked over.
    pub large_pages: LargePages,
}

/// One worker: its transactions, calls and timers. Inputs are `handle_*`, outputs gather in [`Edge::out`].
pub struct Edge {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) options: EdgeOptions,
    pub(crate) node_id: u16,
    pub(crate) transactions: TimedSlab<Transaction>,
    pub(crate) index: TransactionIndex,
    pub(crate) calls: TimedSlab<Call>,
    /// Calls by Call-ID and caller's tag, for in-dialog requests that bring no token.
    pub(crate) dialogs: TransactionIndex,
    pub(crate) leases: Arc<Leases>,
    /// Targets that are passed over: until when, and of which peer they are.
    pub(crate) dead: HashMap<Address, (Moment, Option<u16>)>,
    /// When targets of a peer's `to` were last heard: who drops one request may well serve others.
    pub(crate) heard: HashMap<SocketAddr, Moment>,
    pub(crate) refused: Recent,
    /// Rules and gateways of carriers.
    pub(crate) routing: Arc<Routing>,
    pub(crate) pairs: Pairs,
    /// Where users are, and what their passwords are known by.
    pub(crate) users: Users,
    /// What is held of limits by key.
    pub(crate) limits: LimitWatch,
    /// Sessions of media, and records that wait for what they were like.
    pub(crate) media: MediaState,
    /// What a panic would leave half done.
    pub(crate) in_hand: Key,
    /// What to do in answer to the inputs of a batch.
    pub out: Outbox,
    pub(crate) counters: Arc<Counters>,
    peer_counters: Arc<Vec<Arc<PeerCounters>>>,
    pub(crate) edits: Edits,
    pub(crate) scratch: Vec<u8>,
    pub(crate) shedding: Shedding,
    pub(crate) policy_links: Vec<u32>,
    pub(crate) draining: bool,
    pub(crate) call_number: u64,
    pub(crate) told_sources: crate::middlebox::ToldSources,
    pub(crate) log_second: u64,
    pub(crate) log_lines: u32,
    /// Tables that were nearly full at the last look: calls, transactions, location.
    full: [bool; 3],
    head: Option<Box<Head>>,
    stored_head: Option<Box<Head>>,
    random: u64,
}

impl Edge {
    /// The edges of all workers of one process; they share nothing but the count of calls.
    pub fn all(snapshot: &Arc<Snapshot>, options: Vec<EdgeOptions>, now: Moment) -> Vec<Self> {
        let leases = Arc::new(Leases::default());
        options.into_iter().map(|options| Self::new(Arc::clone(snapshot), options, Arc::clone(&leases), now)).collect()
    }

    fn new(snapshot: Arc<Snapshot>, options: EdgeOptions, leases: Arc<Leases>, now: Moment) -> Self {
        let share = |total: usize| total.div_ceil(usize::from(options.workers).max(1));
        let limits = &snapshot.settings.limits;
        let counters: Arc<Counters> = Arc::default();
        let peer_counters = counters.peers.grow(snapshot.settings.peers.len());
        let users = Users::new(&snapshot.settings, &options, now);
        Self {
            users,
            limits: LimitWatch::new(now),
            media: MediaState::default(),
            node_id: stable_id(&snapshot.settings.node) as u16,
            transactions: TimedSlab::new(share(limits.transactions), now),
            index: TransactionIndex::default(),
            calls: TimedSlab::new(limits.calls, now),
            dialogs: TransactionIndex::default(),
            leases,
            dead: HashMap::new(),
            heard: HashMap::new(),
            refused: Recent::default(),
            routing: Arc::default(),
            pairs: Pairs::new(),
            in_hand: Key::NONE,
            out: Outbox::default(),
            counters,
            peer_counters,
            edits: Edits::default(),
            scratch: Vec::with_capacity(4096),
            shedding: Shedding::Nothing,
            policy_links: Vec::new(),
            draining: false,
            call_number: 0,
            told_sources: Default::default(),
            log_second: 0,
            log_lines: 0,
            full: [false; 3],
            head: None,
            stored_head: None,
            random: options.epoch ^ u64::from(options.worker),
            snapshot,
            options,
        }
    }

    /// Goes by another configuration from now on; what is under way keeps its targets.
    pub fn set_snapshot(&mut self, now: Now, snapshot: Arc<Snapshot>) {
        self.users.set_limits(&snapshot.settings, usize::from(self.options.workers), now.moment);
        let limits = &snapshot.settings.limits;
        self.transactions.set_limit(limits.transactions.div_ceil(usize::from(self.options.workers).max(1)));
        self.calls.set_limit(limits.calls);
        self.peer_counters = self.counters.peers.grow(snapshot.settings.peers.len());
        let persisted = self.snapshot.settings.registrar.as_ref().is_some_and(|registrar| registrar.persist);
        self.snapshot = snapshot;
        self.persist_anew(persisted);
    }

    /// The counts of a peer, or of all that have none of their own.
    pub(crate) fn counts_of(&self, peer: Option<u16>) -> &PeerCounters {
        let last = self.peer_counters.len() - 1;
        &self.peer_counters[peer.map_or(last, |index| usize::from(index).min(last))]
    }

    /// The counters, for others to read.
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Takes ports for media from there from now on.
    pub fn set_media_ports(&mut self, ports: Box<dyn MediaPorts>) {
        self.options.media = ports;
    }

    /// What is refused because the worker cannot keep up.
    pub fn set_shedding(&mut self, shedding: Shedding) {
        self.shedding = shedding;
    }

    /// Refuses new requests from now on; what is under way goes on.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Whether new requests are refused.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Whether a drain has come to its end: no request without its final response, and no call. Walks all
    /// transactions, which a worker under load must not do.
    pub fn is_drained(&self) -> bool {
        self.draining && self.calls.is_empty() && !self.transactions.keys().into_iter().any(|key| self.transactions.get(key).is_some_and(Transaction::is_open))
    }

    /// When [`Edge::handle_timeout`] should be called next.
    pub fn poll_timeout(&self) -> Option<Moment> {
        let own = match (self.transactions.poll_timeout(), self.calls.poll_timeout()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let own = [own, self.limits.waits.poll_timeout()].into_iter().flatten().min();
        if self.snapshot.subscribers.is_none() {
            return own;
        }
        let walk = Some(self.walk_due()).filter(|due| *due != Moment::NEVER);
        [own, self.users.parked.poll_timeout(), walk].into_iter().flatten().min()
    }

    /// Gives back memory that a past load needed; to be called about once a second.
    pub fn tidy(&mut self, now: Now) {
        self.index.shrink();
        self.dialogs.shrink();
        self.revive(now);
        // Another worker may have made pairs meanwhile that had none.
        self.pairs.retain(|_, pair| pair.is_some());
        self.look_at_tables(now);
        self.tidy_limits(now);
        self.tidy_fraud(now);
        if self.options.worker == 0 && !self.draining {
            self.probe_gateways(now);
        }
        if self.options.worker == 0 {
            self.sweep_bans(now);
        }
        self.counters.location_records.set(self.users.location.len() as u64);
        self.counters.location_bindings.set(self.users.location.bindings() as u64);
        self.counters.location_bytes.set(self.users.location.bytes() as u64);
        self.counters.credentials_kept.set(self.users.credentials.len() as u64);
        self.counters.location_unwritten.set(self.unwritten() as u64);
        self.heard.retain(|_, at| now.moment.since(*at) < seconds(600));
        self.refused.begin_second();
        self.release_records(now, false);
        self.counters.media_sessions.set(self.media.calls.len() as u64);
        self.counters.calls.set(self.calls.len() as u64);
        self.counters.calls_bytes.set(self.calls.bytes() as u64);
        self.counters.transactions_bytes.set(self.transactions.bytes() as u64);
        self.counters.transactions.set(self.transactions.len() as u64);
    }

    /// Targets that were passed over long enough may be tried again.
    fn revive(&mut self, now: Now) {
        let mut over = Vec::new();
        self.dead.retain(|target, (until, peer)| {
            let dead = *until > now.moment;
            if !dead {
                over.push((*target, *peer));
            }
            dead
        });
        for (target, peer) in over {
            self.tell_target(now, target, peer, "active");
        }
    }

    /// Tells once when a table gets fuller than nine tenths.
    fn look_at_tables(&mut self, now: Now) {
        // Calls are counted over all workers, so one of them tells.
        let calls = if self.options.worker == 0 { self.leases.live() } else { 0 };
        let users = &self.users.location;
        let sizes = [
            (calls, self.snapshot.settings.limits.calls, "calls"),
            (self.transactions.len(), self.transactions.limit(), "transactions"),
            (users.len(), users.limit(), "location"),
        ];
        for (place, (used, size, table)) in sizes.into_iter().enumerate() {
            let usage = used * 100 / size.max(1);
            if usage >= 90 && !self.full[place] {
                let numbers = [usage, 90, used, size].map(|number| (number as u64).into());
                self.tell(now, EventKind::CoreShmThreshold, |_| numbers.into_iter().chain([table.into()]).collect());
            }
            self.full[place] = usage >= 90;
        }
    }

    /// Tells what became of a target.
    pub(crate) fn tell_target(&mut self, now: Now, target: Address, peer: Option<u16>, status: &'static str) {
        self.tell(now, EventKind::DispatcherStatus, |edge| vec!["default".into(), edge.peer_name(peer).into(), target.to_string().into(), status.into()]);
    }

    /// Calls held by this worker in their versioned form, for hand-over and tests.
    pub fn encoded_calls(&self) -> Vec<Vec<u8>> {
        self.calls.keys().into_iter().filter_map(|key| self.calls.get(key).map(Call::encode)).collect()
    }

    /// Up to `limit` live calls, those with `call_id` where one is given, for an operator to see.
    pub fn live_calls(&self, call_id: Option<&[u8]>, limit: usize) -> Vec<CallView> {
        let fits = |call: &&Call| call_id.is_none_or(|wanted| call.texts.call_id() == wanted);
        self.calls.keys().into_iter().filter_map(|key| self.calls.get(key)).filter(fits).take(limit).map(|call| self.view(call)).collect()
    }

    /// Live calls and transactions held.
    pub fn sizes(&self) -> (usize, usize) {
        (self.calls.len(), self.transactions.len())
    }

    /// Whether somebody may look at messages and decisions later.
    pub fn keeps_traces(&self) -> bool {
        self.snapshot.settings.trace.memory_bytes > 0
    }

    /// Notes what was decided about the call of `call_id`, where traces are kept.
    pub(crate) fn decide(&mut self, call_id: &[u8], text: impl FnOnce(&Self) -> String) {
        if self.snapshot.settings.trace.memory_bytes > 0 {
            let text = text(self);
            self.out.decisions.add(call_id, &text);
        }
    }

    /// The same for the request of `entry`.
    pub(crate) fn decide_for(&mut self, entry: Key, text: impl FnOnce(&Self) -> String) {
        if self.snapshot.settings.trace.memory_bytes == 0 {
            return;
        }
        let text = text(self);
        let call = self.transactions.get(entry).map_or(Key::NONE, |transaction| transaction.call);
        if let Some(call) = self.calls.get(call) {
            self.out.decisions.add(call.texts.call_id(), &text);
        } else {
            // Requests without a call are few: their bytes tell.
            let id = self.with_request(entry, |_, message| message.call_id().to_vec()).unwrap_or_default();
            self.out.decisions.add(&id, &text);
        }
    }

    /// How a peer is named in texts.
    pub(crate) fn peer_name(&self, peer: Option<u16>) -> &str {
        peer.and_then(|index| self.snapshot.settings.peers.get(usize::from(index))).map_or("nobody known", |peer| peer.name.as_str())
    }

    /// An unguessable number.
    pub(crate) fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(1);
        keyed_hash(&self.options.process_secret, &[&self.random.to_le_bytes(), b"random"]) as u64
    }

    /// Parses `bytes` into the table kept for arrivals and runs `work`.
    pub(crate) fn with_arrival<R>(&mut self, bytes: &[u8], work: impl FnOnce(&mut Self, &Message<'_>, Result<(), syntax::ParseError>) -> R) -> R {
        let mut head = self.head.take().unwrap_or_default();
        let limits = self.snapshot.message_limits;
        let result = parse(bytes, &limits, &mut head);
        let done = work(self, &Message::new(bytes.get(..head.body.end().max(usize::from(head.headers_end))).unwrap_or(bytes), &head), result);
        self.head = Some(head);
        done
    }

    /// Parses bytes that are known to parse, a request kept or one that we built, and runs `work`.
    pub(crate) fn with_stored<R>(&mut self, bytes: &[u8], work: impl FnOnce(&mut Self, &Message<'_>) -> R) -> Option<R> {
        let mut head = self.stored_head.take().unwrap_or_default();
        let parsed = parse(bytes, &Limits::OWN, &mut head);
        let done = match parsed {
            Ok(()) | Err(syntax::ParseError::UnknownScheme) => Some(work(self, &Message::new(bytes, &head))),
            Err(_) => None,
        };
        self.stored_head = Some(head);
        done
    }

    /// Takes the stored request of `key` out, as a policy edited it, parses it, runs `work`, and puts it back.
    pub(crate) fn with_request<R>(&mut self, key: Key, work: impl FnOnce(&mut Self, &Message<'_>) -> R) -> Option<R> {
        let transaction = self.transactions.get_mut(key)?;
        let edited = transaction.edited.take();
        let request = transaction.request.take()?;
        let done = self.with_stored(edited.as_deref().unwrap_or(&request), work);
        if let Some(transaction) = self.transactions.get_mut(key)
            && transaction.is_open()
        {
            transaction.request = Some(request);
            transaction.edited = edited;
        }
        done
    }

    /// Sets the timer of `key` to its earliest deadline, or forgets it where nothing can come any more.
    pub(crate) fn rearm(&mut self, key: Key) {
        let Some(transaction) = self.transactions.get(key) else { return };
        if transaction.is_over() {
            let hash = transaction.key;
            self.index.remove(hash, key);
            self.transactions.remove(key);
            return;
        }
        let deadline = transaction.poll_timeout();
        self.transactions.arm(key, deadline);
    }

    /// The listener to send from: the one wished for, else one of the right transport and family, by the kernel's route where several are.
    pub(crate) fn listener_for(&mut self, to: Address, wish: Option<u16>) -> Option<u16> {
        let listeners = &self.snapshot.settings.listeners;
        let wanted = Some(to.way());
        let fits = |index: u16| listeners.get(usize::from(index)).is_some_and(|listener| listener.way() == wanted);
        if let Some(index) = wish.filter(|index| fits(*index)) {
            return Some(index);
        }
        let mut candidates = (0..listeners.len() as u16).filter(|index| fits(*index));
        let first = candidates.next()?;
        if candidates.next().is_none() {
            return Some(first);
        }
        let source = self.options.routes.source_for(to.address.ip());
        let by_route = (0..listeners.len() as u16).find(|index| fits(*index) && Some(listeners[usize::from(*index)].address.ip()) == source);
        Some(by_route.unwrap_or(first))
    }

    /// The local address of a listener.
    pub fn listener_address(&self, index: u16) -> SocketAddr {
        self.snapshot.listener(index).address
    }

    /// Transports that some listener offers.
    pub(crate) fn offered_transports(&self) -> Vec<Transport> {
        let mut offered: Vec<_> = self.snapshot.settings.listeners.iter().filter(|l| !l.drained).map(crate::settings::ListenerSettings::transport).collect();
        offered.dedup();
        offered
    }
}
