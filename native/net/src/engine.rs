//! The whole of it: starts the threads in order, tells their state, and ends them.

mod shares;
mod users;

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use edge::{CallView, Counters, DECISION_BOUNDS, Edge, EdgeOptions, Event, LocationRow, PeerCounters, Routing, SettingsError, Snapshot};
use mio::{Poll, Waker};
use proto::Secret;
use syntax::Method;

use crate::bind::{BindError, bind_all, inherited_sockets};
use crate::clock::{Clock, wall};
use crate::events::EventQueue;
use crate::hep::{HepCounts, HepExporter};
use crate::install::{Document, MediaInstall};
use crate::limits;
use crate::mail::{Mail, Post, Reload};
use crate::media::{MediaEnds, MediaEngine, MediaLink};
use crate::policies::PolicyLink;
use crate::records::RecordWriter;
use crate::resolve::Resolver;
use crate::roster::Roster;
use crate::routes::KernelRoutes;
use crate::rtpengine::Rtpengines;
use crate::runner::Runner;
use crate::shares::ShareQueue;
use crate::status::{Shared, Status};
use crate::stream::{Sources, Streams};
use crate::trace::{TraceEntry, TraceRing};
use crate::users::UserQueue;
use crate::watchdog::Watchdog;
use crate::worker::{MAILBOX, Worker};

/// Why the engine cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The document is not what this version reads: a fault between the two halves of the product.
    #[error("the configuration document cannot be read: {0}")]
    Document(#[from] rmp_serde::decode::Error),
    /// A value of the configuration means nothing.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// An address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The state directory, the record file or a thread cannot be had.
    #[error("{what}: {error}")]
    System {
        /// What was wanted.
        what: String,
        /// What the system said.
        error: io::Error,
    },
}

/// How long a name may take: a little less than its call waits, so that the last good answer still comes in time.
fn patience(snapshot: &Snapshot) -> Duration {
    Duration::from_millis(snapshot.settings.timers.resolve_milliseconds * 4 / 5)
}

/// Posts what must not be left out. A worker empties its mailbox all the time; one that has ended needs nothing any more.
fn insist(post: &Post, mut mail: Mail) {
    for _ in 0..5_000 {
        match post.offer(mail) {
            Ok(()) => return,
            Err(back) => mail = back,
        }
        thread::sleep(Duration::from_millis(1));
    }
    log::error!(target: "worker", "a worker has not looked at its mail for five seconds");
}

fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
    let what = what.into();
    move |error| StartError::System { what, error }
}

/// Reads one count of a peer.
type ReadPeer = fn(&PeerCounters) -> u64;

/// A metric's name, its labels, and its value.
pub type LabelledCount = (&'static str, Vec<(&'static str, String)>, u64);

/// What is provisioned or switched beside the file.
#[derive(Default)]
pub struct Routes {
    /// Rules and gateways; those that serve go on where there are none.
    pub tables: Option<Arc<Routing>>,
    /// Machines of pools that are switched off: peer and URI.
    pub machines_off: Vec<(String, String)>,
    /// Bindings that the database has of the time before the start.
    pub bindings: Vec<LocationRow>,
}

/// A running proxy.
pub struct Engine {
    shared: Arc<Shared>,
    roster: Arc<Roster>,
    counters: Vec<Arc<Counters>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    records: Mutex<RecordWriter>,
    snapshot: Mutex<Arc<Snapshot>>,
    exporter: Mutex<Option<HepExporter>>,
    exported: Arc<HepCounts>,
    watchdog: Mutex<Option<Watchdog>>,
    clock: Clock,
    /// Listeners whose sockets are closed.
    closed: Mutex<Vec<u16>>,
    /// Media workers, once media is relayed.
    media: Mutex<Option<MediaEngine>>,
}

impl Engine {
    /// Reads the document and checks everything that can be checked without opening a socket.
    ///
    /// # Errors
    /// [`StartError::Document`] and [`StartError::Settings`].
    pub fn check(document: &[u8]) -> Result<(), StartError> {
        let document = Document::read(document)?;
        Snapshot::build(document.routing)?;
        Ok(())
    }

    /// Binds every address, then starts the threads; the policy processes behind `links` are asked, and `routes` serve, from
    /// the first request on.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start(document: &[u8], links: &[&PolicyLink], routes: &Routes) -> Result<Self, StartError> {
        let document = Document::read(document)?;
        let install = document.install;
        let snapshot = Arc::new(Snapshot::build(document.routing)?);
        snapshot.switch_off(&routes.machines_off);
        let bound = bind_all(&snapshot.settings.listeners, &install, inherited_sockets())?;
        let workers = usize::from(install.workers);
        let media_ports = u64::from(install.media.last_port.saturating_sub(install.media.first_port) + 1) * snapshot.settings.listeners.len() as u64;
        let media_ports = if snapshot.settings.media.is_some() { media_ports } else { 0 };
        limits::raise_open_files((install.stream.connections * workers) as u64 + media_ports + 256);
        let route_secret =
            crate::secrets::route_secret(&install.state_directory).map_err(system(format!("state_directory {}", install.state_directory.display())))?;
        let process_secret =
            Secret::random().map_err(|error| StartError::System { what: "random numbers".to_owned(), error: io::Error::other(error.to_string()) })?;
        let records = RecordWriter::start(&install.records).map_err(system(format!("call records {}", install.records.path.display())))?;
        let clock = Clock::start();
        let mut polls = Vec::new();
        let mut posts = Vec::new();
        for _ in 0..workers {
            let poll = Poll::new().map_err(system("epoll"))?;
            let waker = Waker::new(poll.registry(), MAILBOX).map_err(system("eventfd"))?;
            posts.push(Post::new(install.mailbox, waker));
            polls.push(poll);
        }
        let shared = Arc::new(Shared {
            clock,
            statuses: (0..workers).map(|_| Arc::new(Status::default())).collect(),
            records: records.is_active().then(|| Arc::clone(&records.queue)),
            resolver: Resolver::start(&install.dns, patience(&snapshot), posts.clone()).map_err(system("name resolution"))?,
            events: Arc::new(EventQueue::new(install.events).map_err(system("a pipe"))?),
            rtpengines: Rtpengines::new(install.mailbox).map_err(system("a pipe"))?,
            users: UserQueue::new().map_err(system("a pipe"))?,
            shares: ShareQueue::new().map_err(system("a pipe"))?,
            traces: (0..install.workers).map(|worker| Arc::new(TraceRing::new(worker, snapshot.settings.trace.memory_bytes))).collect(),
            posts,
        });
        let epoch = wall();
        let options = (0..install.workers).map(|worker| EdgeOptions {
            worker,
            workers: install.workers,
            route_secret,
            process_secret,
            epoch,
            routes: Box::new(KernelRoutes::default()),
            listening: shared.events.listening.clone(),
            media: Box::new(MediaLink::default()),
            large_pages: crate::limits::wish_for_large_pages,
        });
        let mut edges = Edge::all(&snapshot, options.collect(), clock.now().moment);
        if let Some(tables) = &routes.tables {
            edges.iter_mut().for_each(|edge| edge.set_routing(Arc::clone(tables)));
        }
        let now = clock.now();
        // The one whose it is takes it.
        let lost = routes.bindings.iter().filter(|row| !edges.iter_mut().any(|edge| edge.restore(now, row))).count();
        if lost > 0 {
            log::warn!(target: "register", "{lost} bindings of the database are not taken over: no listener has their transport, or their Contact or Path cannot be read");
        }
        let counters = edges.iter().map(Edge::counters).collect();
        let sources = Sources::default();
        let roster = Arc::new(Roster::new(workers, install.gather_percent).map_err(system("a pipe"))?);
        let engine = Self {
            shared: Arc::clone(&shared),
            roster,
            counters,
            threads: Mutex::default(),
            records: Mutex::new(records),
            snapshot: Mutex::new(Arc::clone(&snapshot)),
            exporter: Mutex::default(),
            exported: Arc::default(),
            watchdog: Mutex::default(),
            clock,
            closed: Mutex::default(),
            media: Mutex::default(),
        };
        let mut media = engine.media_ends(&snapshot, &install.media)?.into_iter();
        let exporter = engine.exporter_for(&snapshot)?;
        engine.export(&snapshot, exporter);
        for (index, ((edge, poll), sockets)) in edges.into_iter().zip(polls).zip(bound).enumerate() {
            let streams =
                Streams::new(index as u8, install.stream.clone(), snapshot.settings.limits.message(), Arc::clone(&sources), shared.events.listening.clone());
            let mut worker = Worker::new(index, Arc::clone(&shared), poll, sockets, streams, edge, &install).map_err(system("sockets"))?;
            for link in links {
                worker.add_policy_link(link.worker_end(index).map_err(system("a policy link"))?);
            }
            if let Some(ends) = media.next() {
                worker.attach_media(ends);
            }
            engine.roster.give(engine.roster.first_place(index), vec![worker]);
        }
        let mut beats = Vec::new();
        for index in 0..workers {
            let beat = Arc::new(AtomicU64::new(0));
            beats.push(Arc::clone(&beat));
            let runner = Runner::new(index, clock, Arc::clone(&engine.roster), &install, beat);
            let processor = (!install.pin_processors.is_empty()).then(|| install.pin_processors[index % install.pin_processors.len()]);
            let body = move || {
                limits::block_signals();
                limits::exact_timers();
                limits::take_short_turns();
                if let Some(processor) = processor
                    && let Err(error) = limits::pin(processor)
                {
                    log::warn!(target: "start", "cannot pin worker {index} to processor {processor}: {error}");
                }
                runner.run();
            };
            let thread = thread::Builder::new().name(format!("worker-{index}")).spawn(body).map_err(system("worker thread"))?;
            if let Ok(mut threads) = engine.threads.lock() {
                threads.push(thread);
            }
        }
        if let Ok(mut watchdog) = engine.watchdog.lock() {
            *watchdog = Watchdog::start(beats).map_err(system("the watchdog"))?;
        }
        Ok(engine)
    }

    /// Goes by another configuration: built beside the live one, then swapped on each worker at once with its policy
    /// processes. Those behind `drain` are asked nothing more. Returns the numbers of listeners that are gone: they drain, and
    /// are to be closed some time later by [`Engine::close_listeners`].
    ///
    /// # Errors
    /// As [`Engine::check`], and where something changed that lives as long as the process; then nothing was changed.
    pub fn reload(&self, document: &[u8], links: &[&PolicyLink], drain: &[u32], routes: &Routes) -> Result<Vec<u16>, StartError> {
        let document = Document::read(document)?;
        let mut current = self.snapshot.lock().map_err(|_| StartError::System { what: "the configuration".to_owned(), error: io::ErrorKind::Other.into() })?;
        let mut closed = self.closed.lock().map_err(|_| StartError::System { what: "the listeners".to_owned(), error: io::ErrorKind::Other.into() })?;
        let next = Arc::new(Snapshot::build_after(&current, document.routing, &closed)?);
        next.switch_off(&routes.machines_off);
        // What cannot be bound is told before anything changes.
        let mut bound = bind_all(next.settings.listeners.get(current.settings.listeners.len()..).unwrap_or_default(), &document.install, Vec::new())?;
        let fresh = |index: &usize| next.settings.listeners[*index].drained && current.settings.listeners.get(*index).is_some_and(|old| !old.drained);
        let draining: Vec<u16> = (0..current.settings.listeners.len()).filter(fresh).map(|index| index as u16).collect();
        let ends = (0..self.shared.posts.len()).map(|worker| links.iter().map(|link| link.worker_end(worker)).collect::<io::Result<Vec<_>>>());
        let ends = ends.collect::<io::Result<Vec<_>>>().map_err(system("a policy link"))?;
        let exporter = self.exporter_for(&next)?;
        let mut media = self.media_ends(&next, &document.install.media)?.into_iter();
        // From here on nothing fails.
        // A TCP listener of which only connections are left cannot come back either.
        closed.extend(draining.iter().filter(|index| next.settings.listeners[usize::from(**index)].transport().is_reliable()));
        for ((post, links), bound) in self.shared.posts.iter().zip(ends).zip(bound.drain(..)) {
            let (snapshot, drain, routes) = (Arc::clone(&next), drain.to_vec(), routes.tables.clone());
            insist(post, Mail::Reload(Box::new(Reload { snapshot, links, drain, bound, routes, media: media.next() })));
        }
        self.export(&next, exporter);
        *current = next;
        Ok(draining)
    }

    /// Routes by other tables from now on, on each worker from one request to the next.
    pub fn set_routing(&self, routing: &Arc<Routing>) {
        for post in &self.shared.posts {
            insist(post, Mail::Routing(Arc::clone(routing)));
        }
        routing.forget_gone();
    }

    /// Microseconds of the monotonic clock that workers go by.
    pub fn moment(&self) -> u64 {
        self.clock.now().moment.0
    }

    /// Every peer that is a pool, and its machines.
    pub fn pools(&self) -> Vec<(String, Arc<edge::Routing>)> {
        let snapshot = self.snapshot.lock();
        snapshot.map(|snapshot| snapshot.pools().map(|(peer, routing)| (peer.to_owned(), Arc::clone(routing))).collect()).unwrap_or_default()
    }

    /// The configuration that holds at present.
    pub fn snapshot(&self) -> Option<Arc<edge::Snapshot>> {
        self.snapshot.lock().ok().map(|snapshot| Arc::clone(&snapshot))
    }

    /// What time it is.
    pub fn now(&self) -> proto::Now {
        self.clock.now()
    }

    /// Closes listeners that have drained, unless a reload brought them back meanwhile.
    pub fn close_listeners(&self, numbers: &[u16]) {
        let (Ok(current), Ok(mut closed)) = (self.snapshot.lock(), self.closed.lock()) else { return };
        let gone = |number: &&u16| current.settings.listeners.get(usize::from(**number)).is_some_and(|listener| listener.drained);
        let gone: Vec<u16> = numbers.iter().filter(gone).copied().collect();
        closed.extend(&gone);
        for post in &self.shared.posts {
            insist(post, Mail::CloseListeners(gone.clone()));
        }
    }

    /// The way to media workers for each worker, where `snapshot` has media relayed; they are started where none run yet.
    fn media_ends(&self, snapshot: &Snapshot, install: &MediaInstall) -> Result<Vec<MediaEnds>, StartError> {
        let Some(settings) = snapshot.settings.media.as_ref() else { return Ok(Vec::new()) };
        // Last of all, since where anything fails nothing may have changed.
        let configure = || {
            let engines = self.shared.rtpengines.configure(&settings.rtpengines, &settings.engine, &self.shared.posts, &self.shared.events);
            engines.map_err(system("media.rtpengine"))
        };
        if !settings.rtpengines.is_empty() {
            return configure().map(|()| Vec::new());
        }
        let mut media = self.media.lock().map_err(|_| StartError::System { what: "media".to_owned(), error: io::ErrorKind::Other.into() })?;
        let mut addresses: Vec<_> = snapshot.settings.listeners.iter().filter(|listener| !listener.drained).map(|listener| listener.media_address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let running = match media.take() {
            Some(running) => running,
            None => MediaEngine::start(install, &self.shared.posts, self.clock).map_err(system("media workers"))?,
        };
        let ends = media.insert(running).ends(&addresses).map_err(system("media"))?;
        configure().map(|()| ends)
    }

    /// Starts what sends traces to the collector of `snapshot`, if it names one.
    fn exporter_for(&self, snapshot: &Snapshot) -> Result<Option<HepExporter>, StartError> {
        let addresses = snapshot.settings.listeners.iter().map(|listener| listener.address).collect();
        let exporter = HepExporter::start(&snapshot.settings.trace, self.shared.traces.clone(), addresses, Arc::clone(&self.exported));
        exporter.map_err(system("trace.collector"))
    }

    /// Keeps traces as `snapshot` says, and sends them by `exporter`; the last one ends.
    fn export(&self, snapshot: &Snapshot, exporter: Option<HepExporter>) {
        self.shared.traces.iter().for_each(|ring| ring.resize(snapshot.settings.trace.memory_bytes));
        if let Ok(mut current) = self.exporter.lock() {
            *current = exporter;
        }
    }

    /// Entries of all workers' traces that contain `needle`, in order of time, `limit` at most; from the `places` of the last
    /// look on, else from the oldest. Returns where to go on and how many bytes were lost in between.
    pub fn trace(&self, needle: &[u8], places: &[u64], limit: usize) -> (Vec<TraceEntry>, Vec<u64>, u64) {
        let (mut found, mut next, mut lost) = (Vec::new(), Vec::new(), 0);
        for (index, ring) in self.shared.traces.iter().enumerate() {
            let mut place = places.get(index).copied().unwrap_or(0);
            // What is written meanwhile is left for the next look.
            let last = ring.place();
            loop {
                let look = ring.look(place, needle);
                if !places.is_empty() {
                    lost += look.lost;
                }
                place = look.next;
                found.extend(look.entries);
                if look.end || place >= last {
                    break;
                }
            }
            next.push(place);
        }
        found.sort_by_key(|entry| entry.wall);
        let many = found.len().saturating_sub(limit);
        found.drain(..many);
        (found, next, lost)
    }

    /// The name of a listener by its number.
    pub fn listener_name(&self, index: u16) -> String {
        let Ok(snapshot) = self.snapshot.lock() else { return String::new() };
        snapshot.settings.listeners.get(usize::from(index)).map_or_else(String::new, |listener| listener.label().to_owned())
    }

    /// From now on somebody listens to events of these names; those of other producers are left out.
    pub fn listen(&self, names: &[String]) {
        self.shared.events.listening.set(names);
    }

    /// Readable while events wait of which nobody has taken any.
    pub fn event_descriptor(&self) -> RawFd {
        self.shared.events.descriptor()
    }

    /// Takes events that came, the oldest first, `limit` at most.
    pub fn take_events(&self, limit: usize) -> Vec<Event> {
        self.shared.events.take(limit)
    }

    /// Where every worker's trace will go on.
    pub fn trace_places(&self) -> Vec<u64> {
        self.shared.traces.iter().map(|ring| ring.place()).collect()
    }

    /// Live calls, as JSON: those with `call_id`, or all, `limit` at most; workers that do not answer in a second are left out.
    pub fn calls(&self, call_id: Option<&[u8]>, limit: usize) -> Vec<String> {
        let mut found: Vec<CallView> = self.gather(|reply| Mail::Calls(call_id.map(Into::into), limit, reply)).into_iter().flatten().collect();
        found.sort_by_key(|call| call.started_at);
        found.truncate(limit);
        found.iter().filter_map(|call| serde_json::to_string(call).ok()).collect()
    }

    /// Ends the calls of `call_id`: how many those were, and how many of them could not be told.
    pub fn end_calls(&self, call_id: &[u8]) -> (usize, usize) {
        self.gather(|reply| Mail::EndCalls(call_id.into(), reply)).into_iter().fold((0, 0), |sum, (ended, untold)| (sum.0 + ended, sum.1 + untold))
    }

    /// Ends the calls that hold a key of a limit, or any of its keys where that is empty, as [`Engine::end_calls`] does.
    pub fn end_limited(&self, limit: &str, key: &str) -> (usize, usize) {
        self.gather(|reply| Mail::EndLimited(limit.into(), key.into(), reply)).into_iter().fold((0, 0), |sum, (ended, untold)| (sum.0 + ended, sum.1 + untold))
    }

    /// The keys of a limit, or of all, as JSON, the fullest first.
    pub fn limits(&self, name: Option<&str>, limit: usize) -> Vec<String> {
        let Some(snapshot) = self.snapshot() else { return Vec::new() };
        let views = snapshot.limit_views(name, self.clock.now().moment.0);
        views.iter().take(limit).filter_map(|view| serde_json::to_string(view).ok()).collect()
    }

    /// What every worker answers within a second.
    fn gather<T>(&self, mail: impl Fn(mpsc::Sender<T>) -> Mail) -> Vec<T> {
        let (reply, answers) = mpsc::channel();
        let asked = self.shared.posts.iter().filter(|post| post.post(mail(reply.clone()))).count();
        let deadline = Instant::now() + Duration::from_secs(1);
        (0..asked).map_while(|_| answers.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()).collect()
    }

    /// Counts with labels: requests by method, responses by class, decisions of policies by their bound in microseconds, what
    /// is counted for each peer and each worker, and how full tables and queues are.
    pub fn labelled(&self) -> Vec<LabelledCount> {
        let mut found: Vec<LabelledCount> = Vec::new();
        let sum = |read: &dyn Fn(&Counters) -> u64| self.counters.iter().map(|counters| read(counters)).sum();
        for (index, method) in Method::ALL.into_iter().enumerate() {
            found.push(("requests_by_method", vec![("method", method.as_str().to_owned())], sum(&|c| c.methods[index].get())));
        }
        for class in 1..7 {
            found.push(("responses_by_class", vec![("class", format!("{class}xx"))], sum(&|c| c.classes[class].get())));
        }
        let mut below = 0;
        for (index, bound) in DECISION_BOUNDS.iter().map(u64::to_string).chain(["+Inf".to_owned()]).enumerate() {
            below += sum(&|c| c.decisions[index].get());
            found.push(("policy_decisions", vec![("le", bound)], below));
        }
        found.push(("policy_decision_microseconds", Vec::new(), sum(&|c| c.decision_microseconds.get())));
        self.count_peers(&mut found);
        self.count_limits(&mut found);
        self.count_tables(&mut found);
        found
    }

    fn count_limits(&self, found: &mut Vec<LabelledCount>) {
        let Some(snapshot) = self.snapshot() else { return };
        for (name, keys, refused, untracked) in snapshot.limit_counts() {
            let label = || vec![("limit", name.to_owned())];
            found.push(("limit_keys", label(), keys));
            found.push(("limit_refused", label(), refused));
            found.push(("limit_untracked", label(), untracked));
        }
    }

    fn count_peers(&self, found: &mut Vec<LabelledCount>) {
        let names: Vec<String> = self.snapshot.lock().map(|s| s.settings.peers.iter().map(|peer| peer.name.clone()).collect()).unwrap_or_default();
        let workers: Vec<_> = self.counters.iter().map(|counters| counters.peers.all()).collect();
        let places = workers.iter().map(|peers| peers.len()).max().unwrap_or(0);
        let name = |place: usize| if place + 1 == places { "(others)".to_owned() } else { names.get(place).cloned().unwrap_or_default() };
        let sum = |place: usize, read: &dyn Fn(&PeerCounters) -> u64| workers.iter().filter_map(|peers| peers.get(place)).map(|peer| read(peer)).sum();
        let reads: [(&'static str, ReadPeer); 4] = [
            ("peer_requests", |peer| peer.requests.get()),
            ("peer_refused", |peer| peer.refused.get()),
            ("peer_attempts", |peer| peer.attempts.get()),
            ("peer_attempts_unanswered", |peer| peer.unanswered.get()),
        ];
        for (metric, read) in reads {
            (0..places).for_each(|place| found.push((metric, vec![("peer", name(place))], sum(place, &read))));
        }
        for place in 0..places {
            for class in 1..7 {
                let labels = vec![("peer", name(place)), ("class", format!("{class}xx"))];
                found.push(("peer_responses", labels, sum(place, &|peer| peer.classes[class].get())));
            }
        }
    }

    fn count_tables(&self, found: &mut Vec<LabelledCount>) {
        for (index, (status, post)) in self.shared.statuses.iter().zip(&self.shared.posts).enumerate() {
            let worker = vec![("worker", index.to_string())];
            found.push(("worker_lag_microseconds", worker.clone(), status.lag.load(Ordering::Relaxed)));
            found.push(("worker_mailbox_messages", worker, post.len() as u64));
        }
        let sum = |read: &dyn Fn(&Counters) -> u64| self.counters.iter().map(|counters| read(counters)).sum();
        let limits = self.snapshot.lock().map(|snapshot| snapshot.settings.limits.clone());
        let (calls, transactions) = limits.map(|limits| (limits.calls, limits.transactions)).unwrap_or_default();
        let records = self.snapshot.lock().ok().and_then(|snapshot| snapshot.settings.registrar.as_ref().map(|registrar| registrar.records as u64));
        let mut tables: Vec<(&str, u64, u64, u64)> = vec![
            ("calls", sum(&|c| c.calls.get()), calls as u64, sum(&|c| c.calls_bytes.get())),
            ("transactions", sum(&|c| c.transactions.get()), transactions as u64, sum(&|c| c.transactions_bytes.get())),
        ];
        if let Some(limit) = records {
            tables.push(("location", sum(&|c| c.location_records.get()), limit, sum(&|c| c.location_bytes.get())));
        }
        for (table, entries, limit, bytes) in tables {
            for (metric, value) in [("table_entries", entries), ("table_limit", limit), ("table_bytes", bytes)] {
                found.push((metric, vec![("table", table.to_owned())], value));
            }
        }
        let records = self.records.lock().map(|records| records.queue.len()).unwrap_or(0);
        let (questions, writes) = self.shared.users.depths();
        for (name, up) in self.shared.rtpengines.health() {
            found.push(("rtpengine_up", vec![("engine", name)], u64::from(up)));
        }
        let (events, shares) = (self.shared.events.len(), self.shared.shares.len());
        for (queue, depth) in [("records", records), ("events", events), ("credentials", questions), ("location", writes), ("shares", shares)] {
            found.push(("queue_depth", vec![("queue", queue.to_owned())], depth as u64));
        }
    }

    /// Asks the policy process behind `link` from now on, beside those asked already.
    ///
    /// # Errors
    /// Where the link was made for fewer workers, or the system has no descriptor left.
    pub fn add_policy_link(&self, link: &PolicyLink) -> io::Result<()> {
        let ends: Vec<_> = (0..self.shared.posts.len()).map(|worker| link.worker_end(worker)).collect::<io::Result<_>>()?;
        for (post, end) in self.shared.posts.iter().zip(ends) {
            insist(post, Mail::Link(Box::new(end)));
        }
        Ok(())
    }

    /// Asks the policy process behind link `id` nothing more; its verdicts are still taken.
    pub fn drain_policy_link(&self, id: u32) {
        self.tell(|| Mail::DrainLink(id));
    }

    /// Forgets link `id`.
    pub fn remove_policy_link(&self, id: u32) {
        self.tell(|| Mail::Unlink(id));
    }

    /// Refuses new requests from now on.
    pub fn drain(&self) {
        self.tell(|| Mail::Drain);
    }

    /// Whether a drain has come to its end on every worker; told at most a second late.
    pub fn is_drained(&self) -> bool {
        self.shared.statuses.iter().all(|status| status.drained.load(Ordering::Acquire))
    }

    /// Ends all threads and writes the records that wait. A second call does nothing.
    pub fn stop(&self) {
        if let Ok(mut watchdog) = self.watchdog.lock() {
            drop(watchdog.take());
        }
        self.roster.stop();
        self.tell(|| Mail::Stop);
        let threads = self.threads.lock().map(|mut threads| std::mem::take(&mut *threads)).unwrap_or_default();
        for thread in threads {
            if thread.join().is_err() {
                log::error!(target: "stop", "a worker ended by a panic");
            }
        }
        self.shared.rtpengines.stop();
        if let Some(media) = self.media.lock().ok().and_then(|mut media| media.take()) {
            media.stop();
        }
        if let Ok(mut records) = self.records.lock() {
            records.stop();
        }
    }

    fn tell(&self, mail: impl Fn() -> Mail) {
        for post in &self.shared.posts {
            for _ in 0..1_000 {
                if post.post(mail()) {
                    break;
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// Every counter, summed over the workers.
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let mut sums: Vec<(&'static str, u64)> = Vec::new();
        for counters in &self.counters {
            for (index, (name, value)) in counters.snapshot().into_iter().enumerate() {
                match sums.get_mut(index) {
                    Some(sum) => sum.1 += value,
                    None => sums.push((name, value)),
                }
            }
        }
        let total = |read: fn(&Status) -> u64| self.shared.statuses.iter().map(|status| read(status)).sum();
        sums.push(("connections", total(|s| s.connections.load(Ordering::Relaxed))));
        sums.push(("connections_refused", total(|s| s.connections_refused.load(Ordering::Relaxed))));
        sums.push(("send_errors", total(|s| s.send_errors.load(Ordering::Relaxed))));
        sums.push(("socket_drops", total(|s| s.socket_drops.load(Ordering::Relaxed))));
        sums.push(("handed_over", total(|s| s.handed_over.load(Ordering::Relaxed))));
        sums.push(("mailbox_full", total(|s| s.mailbox_full.load(Ordering::Relaxed))));
        sums.push(("policy_queue_bytes", total(|s| s.policy_bytes.load(Ordering::Relaxed))));
        sums.push(("panics", total(|s| s.panics.load(Ordering::Relaxed))));
        sums.push(("worker_restarts", total(|s| s.restarts.load(Ordering::Relaxed))));
        // The worst of all, not their sum.
        let unread = self.shared.statuses.iter().map(|status| status.unread_percent.load(Ordering::Relaxed)).max().unwrap_or(0);
        sums.push(("invites_unread_percent", unread));
        sums.push(("events_lost", self.shared.events.dropped.load(Ordering::Relaxed)));
        sums.push(("trace_bytes", self.shared.traces.iter().map(|ring| ring.len()).sum()));
        sums.push(("hep_sent", self.exported.sent.load(Ordering::Relaxed)));
        sums.push(("hep_failed", self.exported.failed.load(Ordering::Relaxed)));
        sums.push(("hep_lost_bytes", self.exported.lost_bytes.load(Ordering::Relaxed)));
        let media = self.media.lock().ok().and_then(|media| media.as_ref().map(MediaEngine::counted));
        sums.extend(media.into_iter().flatten());
        if let Ok(records) = self.records.lock() {
            sums.push(("records_written", records.queue.written.load(Ordering::Relaxed)));
            sums.push(("records_dropped", records.queue.dropped.load(Ordering::Relaxed)));
        }
        sums
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
    }
}
