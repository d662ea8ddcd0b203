//! One worker on a clock that only the test moves.

use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use edge::{
    Address, Answer, BanChange, CallRecord, Counters, CredentialAnswer, CredentialQuestion, Edge, EdgeOptions, Event, Hop, Listening, LocationRow,
    LocationWrite, MediaAnswer, MediaQuestion, PolicyQuestion, QualityRules, Question, RouteSettings, Routes, Routing, SettingsError, Snapshot,
};
use proto::{Moment, Now, Secret, milliseconds};
use syntax::Transport;

use crate::media_worker::MediaWorker;

/// One message that the edge sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Milliseconds since the test began.
    pub at: u64,
    /// Where to.
    pub to: SocketAddr,
    /// By which transport.
    pub transport: Transport,
    /// From which listener.
    pub listener: u16,
    /// The message.
    pub text: String,
}

impl Sent {
    /// The first line.
    pub fn first_line(&self) -> &str {
        self.text.lines().next().unwrap_or_default()
    }

    /// The status code of a response, 0 for a request.
    pub fn status_code(&self) -> u16 {
        self.first_line().strip_prefix("SIP/2.0 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok()).unwrap_or(0)
    }
}

struct NoRoutes;

impl Routes for NoRoutes {
    fn source_for(&mut self, _destination: IpAddr) -> Option<IpAddr> {
        None
    }
}

/// An edge, the time, and all that it did.
pub struct Rig {
    /// The edge.
    pub edge: Edge,
    /// Records of calls that ended.
    pub records: Vec<CallRecord>,
    /// Questions asked.
    pub questions: Vec<Question>,
    /// Questions for policies.
    pub policy: Vec<PolicyQuestion>,
    /// Users whose credentials were asked for.
    pub credentials: Vec<CredentialQuestion>,
    /// Keys of shared limits that requests found no place of.
    pub shares: Vec<edge::ShareQuestion>,
    failures: Vec<edge::Failure>,
    /// The media worker.
    pub media: MediaWorker,
    /// Questions for rtpengines.
    pub media_questions: Vec<MediaQuestion>,
    now: Now,
    snapshot: Arc<Snapshot>,
    routing: Arc<Routing>,
    listening: Listening,
}

const WALL: u64 = 1_795_420_062_000_000;

impl Rig {
    /// An edge with these settings; panics where they cannot be built, which is the test's fault.
    ///
    /// # Panics
    /// Where the settings are wrong.
    pub fn new(settings: RouteSettings) -> Self {
        Self::with_routes(settings, Box::new(NoRoutes))
    }

    /// The same with a routing table of the test's own.
    ///
    /// # Panics
    /// Where the settings are wrong.
    pub fn with_routes(settings: RouteSettings, routes: Box<dyn Routes>) -> Self {
        Self::started(settings, routes, WALL)
    }

    /// The same as another process: one that was started at `epoch`.
    ///
    /// # Panics
    /// Where the settings are wrong.
    pub fn with_epoch(settings: RouteSettings, epoch: u64) -> Self {
        Self::started(settings, Box::new(NoRoutes), epoch)
    }

    #[expect(clippy::panic, reason = "settings of a test are right or the test is wrong")]
    fn started(settings: RouteSettings, routes: Box<dyn Routes>, epoch: u64) -> Self {
        let snapshot = match Snapshot::build(settings) {
            Ok(snapshot) => Arc::new(snapshot),
            Err(error) => panic!("{error}"),
        };
        let listening = Listening::default();
        let media = MediaWorker::new(1_000);
        let options = EdgeOptions {
            worker: 0,
            workers: 1,
            route_secret: Secret::new([1; 16]),
            process_secret: Secret::new([2; 16]),
            epoch,
            routes,
            listening: listening.clone(),
            media: Box::new(media.clone()),
            large_pages: |_| (),
        };
        let edge = Edge::all(&snapshot, vec![options], Moment(0)).remove(0);
        Self {
            edge,
            records: Vec::new(),
            questions: Vec::new(),
            policy: Vec::new(),
            credentials: Vec::new(),
            shares: Vec::new(),
            failures: Vec::new(),
            media,
            media_questions: Vec::new(),
            now: Now { moment: Moment(0), wall: WALL },
            snapshot,
            routing: Arc::default(),
            listening,
        }
    }

    /// The counters.
    pub fn counters(&self) -> Arc<Counters> {
        self.edge.counters()
    }

    /// Milliseconds since the test began.
    pub fn milliseconds(&self) -> u64 {
        self.now.moment.0 / 1_000
    }

    /// Sets the wall clock to another time, as an administrator or NTP may; the monotonic clock goes on.
    pub fn set_wall(&mut self, microseconds: u64) {
        self.now.wall = microseconds;
    }

    /// Lets the edge receive a message over UDP at its first listener and returns what it sends.
    pub fn receive(&mut self, from: &str, message: &str) -> Vec<Sent> {
        self.receive_at(0, Transport::Udp, from, message.as_bytes())
    }

    /// The same at another listener, or with bytes that are no text.
    pub fn receive_at(&mut self, listener: u16, transport: Transport, from: &str, message: &[u8]) -> Vec<Sent> {
        let address = from.parse().unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 1)));
        let hop = Hop { listener, transport, address, connection: None };
        self.edge.handle_message(self.now, &hop, message, false);
        self.collect()
    }

    /// The same along a way that may be a connection.
    pub fn receive_by(&mut self, hop: &Hop, message: &str) -> Vec<Sent> {
        self.edge.handle_message(self.now, hop, message.as_bytes(), false);
        self.collect()
    }

    /// As [`Rig::receive`], with panics caught as a worker catches them.
    pub fn receive_guarded(&mut self, from: &str, message: &str) -> Vec<Sent> {
        let address = from.parse().unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 1)));
        let hop = Hop { listener: 0, transport: Transport::Udp, address, connection: None };
        let (edge, now) = (&mut self.edge, self.now);
        if catch_unwind(AssertUnwindSafe(|| edge.handle_message(now, &hop, message.as_bytes(), false))).is_err() {
            self.edge.handle_panic(now, &hop, message.as_bytes());
        }
        self.collect()
    }

    /// As [`Rig::advance`], with panics caught as a worker catches them; true where there was one.
    pub fn advance_guarded(&mut self, by: u64) -> bool {
        let panicked = catch_unwind(AssertUnwindSafe(|| self.advance(by))).is_err();
        if panicked {
            self.edge.handle_inner_panic(self.now);
            self.collect();
        }
        panicked
    }

    /// Routes by these tables from now on.
    pub fn set_routing(&mut self, routing: Routing) {
        self.routing = Arc::new(routing);
        self.edge.set_routing(Arc::clone(&self.routing));
    }

    /// Peers that are pools, with their machines.
    pub fn pools(&self) -> Vec<(String, Arc<Routing>)> {
        self.snapshot.pools().map(|(peer, routing)| (peer.to_owned(), Arc::clone(routing))).collect()
    }

    /// From now on somebody listens to these events.
    pub fn listen(&self, names: &[&str]) {
        self.listening.set(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    }

    /// Takes events that came.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.edge.out.events)
    }

    /// The tables that serve.
    pub fn routing(&self) -> Arc<Routing> {
        Arc::clone(&self.routing)
    }

    /// How quality is measured.
    pub fn quality(&self) -> QualityRules {
        self.snapshot.quality()
    }

    /// What a worker does once a second.
    pub fn tidy(&mut self) -> Vec<Sent> {
        self.edge.tidy(self.now);
        self.collect()
    }

    /// Goes by other settings from now on.
    ///
    /// # Errors
    /// Where they cannot follow those of now.
    pub fn reload(&mut self, settings: RouteSettings) -> Result<(), SettingsError> {
        self.snapshot = Arc::new(Snapshot::build_after(&self.snapshot, settings, &[])?);
        self.edge.set_snapshot(self.now, Arc::clone(&self.snapshot));
        Ok(())
    }

    /// How many peers the tables hold, those that are gone among them.
    pub fn peers(&self) -> usize {
        self.snapshot.settings.peers.len()
    }

    /// Empties the worker as after too many panics.
    pub fn restart(&mut self) {
        self.edge.restart(self.now);
        self.collect();
    }

    /// Lets the time pass and returns what the edge sends meanwhile.
    pub fn advance(&mut self, by: u64) -> Vec<Sent> {
        let end = self.now.moment + milliseconds(by);
        let mut sent = Vec::new();
        loop {
            let next = self.edge.poll_timeout().filter(|next| *next <= end);
            let target = next.map_or(end, |next| next.max(self.now.moment));
            self.now.wall += target.since(self.now.moment);
            self.now.moment = target;
            self.edge.handle_timeout(self.now);
            sent.append(&mut self.collect());
            if next.is_none() {
                return sent;
            }
            // A timer that is due and yet not done would hold the clock for ever.
            if self.edge.poll_timeout().is_some_and(|again| again <= self.now.moment) {
                self.now.moment = self.now.moment + 1_000;
                self.now.wall += 1_000;
            }
        }
    }

    /// Answers a question with UDP addresses.
    pub fn answer(&mut self, question: &Question, addresses: &[&str]) -> Vec<Sent> {
        let address = |text: &&str| text.parse().ok().map(|address| Address { transport: Transport::Udp, address });
        self.edge.handle_answer(self.now, Answer { id: question.id, host: question.host.clone(), addresses: addresses.iter().filter_map(address).collect() });
        self.collect()
    }

    /// Answers every question for credentials alike.
    pub fn credentials(&mut self, answer: &CredentialAnswer) -> Vec<Sent> {
        for question in std::mem::take(&mut self.credentials) {
            self.edge.handle_credentials(self.now, &question, answer);
        }
        self.collect()
    }

    /// What the edge would write to the database now.
    pub fn writes(&mut self, room: usize) -> Vec<LocationWrite> {
        self.edge.write_location(self.now, room);
        std::mem::take(&mut self.edge.out.location)
    }

    /// Takes a binding over from the database.
    pub fn restore(&mut self, row: &LocationRow) -> bool {
        self.edge.restore(self.now, row)
    }

    /// Rows of an address of record.
    pub fn rows(&self, aor: &str) -> Vec<LocationRow> {
        self.edge.location_rows(self.now, Some(aor.as_bytes()), 100)
    }

    /// Hands in a verdict: bytes behind the token of `question`.
    pub fn verdict(&mut self, question: &PolicyQuestion, decision: &[u8]) -> Vec<Sent> {
        let mut bytes = Vec::new();
        question.token.write(&mut bytes);
        bytes.extend_from_slice(decision);
        self.edge.handle_verdict(self.now, 1, &bytes);
        self.collect()
    }

    /// Hands in bytes as they may come from a policy process.
    pub fn from_policy(&mut self, bytes: &[u8]) -> Vec<Sent> {
        self.edge.handle_verdict(self.now, 1, bytes);
        self.collect()
    }

    /// The settings that it goes by.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot)
    }

    /// Ends the calls that hold a key of a limit.
    pub fn end_limited(&mut self, limit: &str, key: &str) -> (usize, usize) {
        let done = self.edge.end_limited(self.now, limit, key);
        self.collect();
        done
    }

    /// Failed authentications that other nodes should know of.
    pub fn take_failures(&mut self) -> Vec<edge::Failure> {
        std::mem::take(&mut self.failures)
    }

    /// What all nodes together counted of failures.
    pub fn raise_failures(&mut self, told: &[edge::SharedFailures]) {
        self.edge.raise_failures(self.now, told);
        self.collect();
    }

    /// Another node listens to a source no more.
    pub fn ban_with_others(&mut self, source: &str, seconds: u32) -> bool {
        let banned = source.parse().is_ok_and(|source| self.edge.ban_with_others(self.now, source, seconds, "test"));
        self.collect();
        banned
    }

    /// What to ask the store of shared limits for the keys that requests found no place of.
    pub fn share_asks(&mut self) -> Vec<edge::KeyAsk> {
        edge::share_asks(self.now.moment.0, std::mem::take(&mut self.shares))
    }

    /// The store says how many places of its keys this node has, while others have `spare` ones.
    pub fn give_shares(&mut self, shares: &[(&str, &str, u32, u32)]) -> Vec<Sent> {
        let told = shares.iter().map(|(limit, key, quota, spare)| edge::KeyShare { limit: (*limit).into(), key: (*key).into(), quota: *quota, spare: *spare });
        let (released, _, _) = self.snapshot.give_shares(self.now.moment.0, told.collect());
        self.edge.handle_shares(self.now, &released.into());
        self.collect()
    }

    /// The store does not answer for these keys.
    pub fn fail_shares(&mut self, keys: &[(&str, &str)]) -> Vec<Sent> {
        let keys: Vec<_> = keys.iter().map(|(limit, key)| ((*limit).to_owned(), (*key).to_owned())).collect();
        let released = self.snapshot.fail_shares(&keys);
        self.edge.handle_shares(self.now, &released.into());
        self.collect()
    }

    /// What time it is.
    pub fn now(&self) -> Now {
        self.now
    }

    /// What is known of a source.
    pub fn source(&self, source: &str) -> Option<edge::SourceView> {
        Some(self.edge.source_view(self.now, source.parse().ok()?))
    }

    /// Listens to a source no more.
    pub fn ban(&mut self, source: &str, seconds: u32) -> bool {
        source.parse().is_ok_and(|source| self.edge.ban(self.now, source, seconds, "test") == BanChange::New)
    }

    /// Refuses what a worker refuses that cannot keep up.
    pub fn shed(&mut self, shedding: edge::Shedding) {
        self.edge.set_shedding(shedding);
    }

    /// Begins to drain.
    pub fn drain(&mut self) {
        self.edge.drain();
    }

    /// Ends calls by command.
    pub fn hang_up(&mut self, call_id: &str) -> Vec<Sent> {
        self.edge.end_calls(self.now, call_id.as_bytes());
        self.collect()
    }

    /// Tells the edge that a question could not be put.
    pub fn refuse(&mut self, question: &PolicyQuestion) -> Vec<Sent> {
        self.edge.handle_policy_refusal(self.now, question.token);
        self.collect()
    }

    /// Tells the edge that a message of its own came back undelivered.
    pub fn undeliverable(&mut self, sent: &Sent) -> Vec<Sent> {
        self.edge.handle_undeliverable(self.now, sent.text.as_bytes());
        self.collect()
    }

    /// A datagram comes to one of our ports for media: the port that it leaves by and where it goes.
    pub fn packet(&self, port: u16, source: &str, bytes: &[u8]) -> Option<(u16, SocketAddr)> {
        self.media.packet(self.now.moment.0, port, source.parse().ok()?, bytes)
    }

    /// The media worker looks for sessions that fell silent.
    pub fn tick_media(&mut self) -> Vec<Sent> {
        let notices = self.media.tick(self.now.moment.0);
        notices.into_iter().for_each(|notice| self.edge.handle_media(self.now, notice));
        self.collect()
    }

    /// An rtpengine answers the oldest question with a description, or refuses.
    pub fn engine_says(&mut self, description: Option<&str>) -> Vec<Sent> {
        if self.media_questions.is_empty() {
            return Vec::new();
        }
        let node = self.media_questions[0].node.unwrap_or(SocketAddr::from(([192, 0, 2, 250], 2_223)));
        self.engine_at(node, description)
    }

    /// The same, as the engine at `node` gives it.
    pub fn engine_at(&mut self, node: SocketAddr, description: Option<&str>) -> Vec<Sent> {
        let question = self.media_questions.remove(0);
        let result = description.map(|text| (node, text.as_bytes().into())).ok_or_else(|| "full".to_owned());
        self.edge.handle_media_answer(self.now, MediaAnswer { id: question.id, session: question.command.session, result });
        self.collect()
    }

    /// An rtpengine tells what a session was like.
    pub fn engine_reports(&mut self, report: media::SessionReport) -> Vec<Sent> {
        self.edge.handle_media(self.now, media::Notice::Closed(report));
        self.collect()
    }

    fn collect(&mut self) -> Vec<Sent> {
        let at = self.milliseconds();
        if !self.edge.out.media.is_empty() {
            let commands = std::mem::take(&mut self.edge.out.media);
            let notices = self.media.work(self.now.moment.0, commands.into_iter().map(|(_, command)| command));
            notices.into_iter().for_each(|notice| self.edge.handle_media(self.now, notice));
        }
        let out = &mut self.edge.out;
        let sent = out
            .sends()
            .iter()
            .map(|t| Sent {
                at,
                to: t.hop.address,
                transport: t.hop.transport,
                listener: t.hop.listener,
                text: String::from_utf8_lossy(out.bytes(t)).into_owned(),
            })
            .collect();
        out.clear_sends();
        self.records.append(&mut out.records);
        self.questions.append(&mut out.questions);
        self.policy.append(&mut out.policy);
        self.credentials.append(&mut out.credentials);
        self.shares.append(&mut out.shares);
        self.failures.append(&mut out.failures);
        self.media_questions.append(&mut out.media_questions);
        sent
    }
}
