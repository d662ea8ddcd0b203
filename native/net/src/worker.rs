//! One worker: its sockets, its edge, and what one round of a loop does with them. Which thread that is may change.

mod guarded;
mod input;
mod letters;
mod output;
mod port;
mod unread;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use edge::{Counters, Edge};
use mio::{Events, Poll, Token};
use proto::{Moment, Now};

use self::port::Port;
use crate::bind::Bound;
use crate::clock::thread_time;
use crate::datagram::ReceiveBatch;
use crate::install::InstallSettings;
use crate::limits::trim_memory;
use crate::media::{MediaEnds, MediaSender};
use crate::policies::{Policies, WorkerLink};
use crate::shut_out::ShutOut;
use crate::sieve::Sieve;
use crate::status::{Shared, Status};
use crate::stream::{FIRST_TOKEN, Streams};

pub(crate) const MAILBOX: Token = Token(FIRST_TOKEN - 1);
/// Mail taken in one round.
const MAILS: usize = 512;
/// Up to how many transactions are looked through eight times a second for the end of a drain, instead of once.
const FEW_TRANSACTIONS: usize = 1_000;
/// How long a worker that ends waits for what media workers tell of its last calls, in microseconds.
const STOP_PATIENCE: u64 = 500_000;
/// Panics in ten seconds after which a worker starts afresh.
const PANICS: usize = 3;

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
    shut_out: ShutOut,
    policies: Policies,
    /// The way to media workers.
    media: MediaSender,
    /// When it stops waiting for what they tell of calls that end with it; 0 while it goes on.
    ends_at: u64,
    panics: Vec<u64>,
    tidied: u64,
    swept: u64,
    /// What was told last of bytes that wait, and of processor time with its moment.
    waiting_bytes: u64,
    turned_away: usize,
    measured: (u64, u64),
    /// A connection filled the whole buffer in the last round.
    full_reads: bool,
    stopping: bool,
    /// Messages are kept to be looked at.
    tracing: bool,
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
        let tracing = edge.keeps_traces();
        let mut ports = Vec::new();
        let mut sieve = Sieve::new(install.drop_unread);
        if let Some(Bound::Datagram(socket, _)) = bound.iter().find(|socket| matches!(socket, Bound::Datagram(_, true))) {
            sieve.try_out(socket);
        }
        for (number, socket) in bound.into_iter().enumerate() {
            ports.push(Port::open(poll.registry(), number, socket)?);
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
            shut_out: ShutOut::new(install.drop_unread),
            policies: Policies::default(),
            media: MediaSender::default(),
            ends_at: 0,
            panics: Vec::new(),
            tidied: 0,
            swept: 0,
            waiting_bytes: 0,
            turned_away: 0,
            measured: (0, 0),
            full_reads: false,
            stopping: false,
            tracing,
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
        self.stopping && !self.edge.waits_for_media()
    }

    /// Takes ports for media from `ends` and sends commands there from now on.
    pub(crate) fn attach_media(&mut self, ends: MediaEnds) {
        let ports = ends.attach(&mut self.media);
        self.edge.set_media_ports(Box::new(ports));
    }

    /// Tells media workers what to do. To be done before anybody is told of their ports.
    pub(crate) fn command_media(&mut self) {
        if !self.edge.out.media.is_empty() || self.media.is_behind() {
            self.media.send(&mut self.edge.out.media);
        }
        if !self.edge.out.media_questions.is_empty() {
            let mut questions = std::mem::take(&mut self.edge.out.media_questions).into_iter();
            while let Some(question) = questions.next() {
                if let Err(question) = self.shared.rtpengines.ask(question) {
                    // No room: the next round tries again, in order, and whoever waits has a deadline.
                    self.edge.out.media_questions.push(*question);
                    self.edge.out.media_questions.extend(questions);
                    break;
                }
            }
        }
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

    /// Tells the longest time between two looks at the sockets.
    pub(crate) fn set_lag(&self, microseconds: u64) {
        self.status.lag.store(microseconds, Ordering::Relaxed);
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
        if self.stopping || self.media.is_behind() {
            return 5_000;
        }
        let until = self.edge.poll_timeout().map_or(u64::MAX, |at| at.since(now));
        let watched = self.has_connections() || self.edge.is_draining() || self.filters();
        until.min(if watched { 125_000 } else { 1_000_000 })
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

    /// How many datagrams were dropped unread since this was asked.
    pub(crate) fn take_turned_away(&mut self) -> usize {
        std::mem::take(&mut self.turned_away)
    }

    /// Takes what came in from the network; returns how many messages that were.
    pub(crate) fn receive(&mut self, now: Now) -> usize {
        // A call that has waited for its policy goes before those that have not begun.
        self.verdicts(now);
        self.datagrams(now) + self.connections(now)
    }

    /// Does what other workers asked for and what is due, then sends; returns how many messages others had for it.
    pub(crate) fn work(&mut self, now: Now) -> usize {
        let count = self.mail(now);
        self.verdicts(now);
        self.guarded(now, |edge| edge.handle_timeout(now));
        if self.stopping {
            self.guarded(now, |edge| edge.end_all_calls(now));
            self.guarded(now, |edge| {
                edge.drain();
                edge.write_location(now, usize::MAX);
            });
            self.command_media();
            if self.ends_at == 0 {
                self.ends_at = now.moment.0 + STOP_PATIENCE;
            } else if now.moment.0 >= self.ends_at {
                self.edge.release_records(now, true);
            }
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
        policies.take(&mut buffer, &mut |link, bytes| self.guarded(now, |edge| edge.handle_verdict(now, link, bytes)));
        buffer.resize(65_536, 0);
        (self.buffer, self.policies) = (buffer, policies);
        self.edge.set_policy_links(self.policies.taking());
    }

    /// Puts the questions there are. Where a process slept and has this processor too, it decides before we go on, so that its
    /// verdict leaves with what this round sends; where it has one of its own, that costs one system call.
    pub(crate) fn ask_policies(&mut self, now: Now) {
        if self.put_questions(now) {
            std::thread::yield_now();
            let now = self.shared.clock.now();
            self.verdicts(now);
            self.put_questions(now);
        }
    }

    /// Puts questions; a refusal may make the edge ask again, of another. True where a process was woken that had nothing to do.
    fn put_questions(&mut self, now: Now) -> bool {
        let mut woke = false;
        for _ in 0..4 {
            if self.edge.out.policy.is_empty() {
                break;
            }
            let mut questions = std::mem::take(&mut self.edge.out.policy);
            let mut refused = Vec::new();
            let policies = &mut self.policies;
            match catch_unwind(AssertUnwindSafe(|| policies.put(now.moment.0, &mut questions, &mut |token| refused.push(token)))) {
                Ok(found) => woke |= found,
                Err(_) => self.panicked(now),
            }
            for token in refused {
                self.guarded(now, |edge| edge.handle_policy_refusal(now, token));
            }
        }
        woke
    }

    /// The kernel told of an ICMP error while something was sent: what it was about waits to be taken.
    pub(crate) fn expect_errors(&mut self) {
        for port in &mut self.ports {
            if let Port::Datagram { more, errors, .. } = port {
                (*more, *errors) = (true, true);
            }
        }
    }

    /// Tells limits that go by the load of the process what it is.
    fn measure(&mut self, now: Now) {
        let Some(meters) = self.edge.meters() else { return };
        let waiting = self.ports.iter().map(Port::waiting_bytes).sum::<u64>();
        // All workers add up: each adds by how much its share has changed.
        meters.waiting_bytes.fetch_add(waiting.wrapping_sub(self.waiting_bytes), Ordering::Relaxed);
        self.waiting_bytes = waiting;
        if self.index == 0 {
            let (spent, at) = (thread_time(), now.moment.0);
            let (before, since) = std::mem::replace(&mut self.measured, (spent, at));
            let load = spent.saturating_sub(before) * 1_000 / at.saturating_sub(since).max(1);
            meters.load.store(load.min(1_000), Ordering::Relaxed);
        }
    }

    fn housekeeping(&mut self, now: Now) {
        let eighth = now.moment.0 / 125_000;
        if eighth != self.swept {
            self.swept = eighth;
            self.streams.sweep();
            self.measure(now);
            if self.edge.sizes().1 <= FEW_TRANSACTIONS {
                self.status.drained.store(self.edge.is_drained(), Ordering::Release);
            }
        }
        let second = now.moment.0 / 1_000_000;
        if second == self.tidied {
            return;
        }
        self.tidied = second;
        self.edge.tidy(now);
        let room = self.shared.users.room(self.shared.posts.len());
        self.guarded(now, |edge| edge.write_location(now, room));
        self.status.policy_bytes.store(self.policies.waiting(), Ordering::Relaxed);
        self.status.connections.store(self.streams.len() as u64, Ordering::Relaxed);
        self.status.connections_refused.store(self.streams.refused, Ordering::Relaxed);
        self.count_drops();
        self.status.drained.store(self.edge.is_drained(), Ordering::Release);
        if second.is_multiple_of(10) && self.edge.sizes().1 == 0 && self.index == 0 {
            trim_memory();
        }
    }
}
