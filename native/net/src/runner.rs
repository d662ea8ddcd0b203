//! One thread: the loop over the workers that it runs at present.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use edge::Shedding;
use mio::Events;
use proto::Now;

use crate::clock::Clock;
use crate::clock::thread_time;
use crate::coalesce::Coalesce;
use crate::datagram::SendBatch;
use crate::install::InstallSettings;
use crate::overload::Overload;
use crate::roster::{Advice, Roster};
use crate::wait::wait;
use crate::worker::Worker;

/// How often a thread looks how busy it is, in microseconds.
const LOOK: u64 = 20_000;
/// For so many looks in a row it must have been busy before it gives workers away: one may only have been held up.
const BUSY_LOOKS: u32 = 3;
/// For so many looks in a row it must have been quiet before its workers join another thread: 2 seconds.
const QUIET_LOOKS: u32 = 100;

pub(crate) struct Runner {
    place: usize,
    clock: Clock,
    roster: Arc<Roster>,
    workers: Vec<Worker>,
    coalesce: Coalesce,
    overload: Overload,
    send: SendBatch,
    rounds: u32,
    looked: u64,
    spent: u64,
    /// Looks in a row that gave the same advice.
    agreed: u32,
    advice: Advice,
    descriptors: Vec<RawFd>,
    ready: Vec<bool>,
    /// How policy processes wake this thread.
    bells: Vec<RawFd>,
    /// Rounds made, for the watchdog.
    beat: Arc<AtomicU64>,
    /// The longest time between two looks at the sockets in this second, in microseconds.
    lag: u64,
    lag_since: u64,
}

impl Runner {
    pub(crate) fn new(place: usize, clock: Clock, roster: Arc<Roster>, install: &InstallSettings, beat: Arc<AtomicU64>) -> Self {
        Self {
            place,
            clock,
            roster,
            workers: Vec::new(),
            coalesce: Coalesce::new(install.coalesce_microseconds, install.coalesce_messages),
            overload: Overload::new(install.overload_milliseconds),
            send: SendBatch::new(install.batch),
            rounds: 0,
            looked: 0,
            spent: 0,
            agreed: 0,
            advice: Advice::Stay,
            descriptors: Vec::new(),
            ready: Vec::new(),
            bells: Vec::new(),
            beat,
            lag: 0,
            lag_since: 0,
        }
    }

    /// Runs until every worker was told to stop.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(1_024);
        self.meet();
        while self.round(&mut events) {
            let before = self.workers.len();
            self.workers.retain_mut(|worker| !worker.has_ended());
            if self.workers.len() < before {
                self.roster.left(self.place, before - self.workers.len());
                if !self.meet() {
                    return;
                }
            }
            self.look();
        }
    }

    /// Takes newcomers in; false where nothing can come any more.
    fn meet(&mut self) -> bool {
        let Some(came) = self.roster.take(self.place, !self.workers.is_empty()) else { return false };
        self.workers.extend(came);
        self.descriptors = vec![self.roster.descriptor(self.place)];
        self.descriptors.extend(self.workers.iter().map(Worker::descriptor));
        self.gather_bells();
        true
    }

    fn round(&mut self, events: &mut Events) -> bool {
        self.beat.fetch_add(1, Ordering::Relaxed);
        let backlog = self.workers.iter().any(Worker::has_backlog);
        let shedding = self.overload.round(self.workers.iter().any(Worker::is_behind), thread_time);
        let now = self.clock.now();
        for worker in &mut self.workers {
            worker.set_shedding(now, shedding);
        }
        let paused = !backlog && self.pause(now.moment.0);
        // After a pause the sockets are looked at in any case; asking the kernel which of them are ready is
        // needed for connections only, and now and then for everything else.
        let skip = paused && !self.rounds.is_multiple_of(8) && !self.workers.iter().any(Worker::has_connections);
        self.rounds = self.rounds.wrapping_add(1);
        if !skip && !self.look_at_sockets(backlog || paused, events) {
            return false;
        }
        let now = self.clock.now();
        let looked = now.moment.0;
        // First all that comes in, then all that follows from it: what one worker hands to another here is done at once.
        let came: usize = self.workers.iter_mut().map(|worker| worker.receive(now)).sum();
        let now = self.clock.now();
        let mail: usize = self.workers.iter_mut().map(|worker| worker.work(now)).sum();
        self.flush(self.clock.now());
        self.note_lag(looked);
        // What the workers of one thread hand to each other came from the network in this very round.
        let messages = if self.workers.len() > 1 { came } else { came + mail };
        let dropped: usize = self.workers.iter_mut().map(Worker::take_turned_away).sum();
        if messages > 0 {
            self.coalesce.received(now.moment.0, messages.saturating_sub(dropped), dropped);
        }
        true
    }

    /// A message that came right after we `looked` at the sockets has waited until now.
    fn note_lag(&mut self, looked: u64) {
        let now = self.clock.now().moment.0;
        self.lag = self.lag.max(now.saturating_sub(looked));
        if now.saturating_sub(self.lag_since) >= 1_000_000 {
            self.workers.iter().for_each(|worker| worker.set_lag(self.lag));
            (self.lag, self.lag_since) = (0, now);
        }
    }

    /// Sends what the workers have to send, with one system call for all of them where it leaves by one listener.
    fn flush(&mut self, now: Now) {
        // Reporting a failure may make an edge send again, to somewhere else.
        for _ in 0..4 {
            self.workers.iter_mut().for_each(Worker::command_media);
            self.workers.iter_mut().for_each(|worker| worker.ask_policies(now));
            let mut failed = self.send_datagrams();
            for worker in &mut self.workers {
                worker.flush_streams(now, &mut failed);
            }
            let Some(first) = self.workers.first_mut().filter(|_| !failed.is_empty()) else { break };
            for bytes in failed {
                first.handle_undeliverable(now, &bytes);
            }
        }
        self.workers.iter_mut().for_each(|worker| worker.hand_out(now));
    }

    fn send_datagrams(&mut self) -> Vec<Box<[u8]>> {
        let mut failed: Vec<Box<[u8]>> = Vec::new();
        let Some((first, _)) = self.workers.split_first() else { return failed };
        // In the moment of a reload not all of them have the same listeners.
        let listeners = self.workers.iter().map(Worker::listeners).max().unwrap_or(0);
        for listener in 0..listeners {
            let Some(socket) = self.workers.iter().find_map(|worker| worker.socket(listener)) else { continue };
            let mut datagrams = self.workers.iter().flat_map(|worker| worker.datagrams_for(listener));
            self.send.send(socket, &mut datagrams, &mut |bytes, error| {
                first.count_send_error();
                // A full buffer is a lost datagram like any other; SIP's own timers send it again.
                if error.kind() != io::ErrorKind::WouldBlock {
                    failed.push(bytes.into());
                }
            });
        }
        if self.send.took_error() {
            self.workers.iter_mut().take(1).for_each(Worker::expect_errors);
        }
        failed
    }

    /// Asks which sockets are ready, waiting for one unless `at_once`; false where this thread has come to its end.
    fn look_at_sockets(&mut self, at_once: bool, events: &mut Events) -> bool {
        // Every mailbox is opened before any is looked at: whoever posts from now on wakes us.
        let mailed = !at_once && self.workers.iter().map(Worker::mail_came).fold(false, |any, came| any | came);
        let timeout = if at_once || mailed { Duration::ZERO } else { self.timeout() };
        if timeout.is_zero()
            && !self.rounds.is_multiple_of(8)
            && let [worker] = self.workers.as_mut_slice()
        {
            // Nothing is waited for and there is nobody to choose between: newcomers and bells can wait a few rounds.
            worker.poll(events);
            return true;
        }
        self.gather_bells();
        self.descriptors.truncate(1 + self.workers.len());
        self.descriptors.extend_from_slice(&self.bells);
        wait(&self.descriptors, timeout, &mut self.ready);
        if self.ready.iter().skip(1 + self.workers.len()).any(|ready| *ready) {
            self.workers.iter_mut().for_each(Worker::answer_policies);
        }
        for (worker, ready) in self.workers.iter_mut().zip(self.ready.iter().skip(1)) {
            if *ready {
                worker.poll(events);
            }
        }
        if self.ready.first() == Some(&true) {
            self.roster.answer(self.place);
            return self.meet();
        }
        true
    }

    /// Finds the descriptors by which policy processes wake this thread.
    fn gather_bells(&mut self) {
        self.bells.clear();
        self.bells.extend(self.workers.iter().flat_map(Worker::policy_descriptors));
    }

    /// Under load sleeps a little and marks every UDP socket to be looked at; false where there is no load.
    fn pause(&mut self, now: u64) -> bool {
        let Some(pause) = self.coalesce.pause(now) else { return false };
        if self.workers.iter().any(|worker| worker.expects_verdicts(now)) {
            // A call that waits for its policy should not wait for our pause too.
            let came = self.workers.iter().map(Worker::open_verdicts).fold(false, |any, came| any | came);
            if !came {
                self.gather_bells();
                wait(&self.bells, pause, &mut self.ready);
                if self.ready.contains(&true) {
                    self.workers.iter_mut().for_each(Worker::answer_policies);
                }
            }
        } else {
            std::thread::sleep(pause);
        }
        self.workers.iter_mut().for_each(Worker::expect_datagrams);
        true
    }

    fn timeout(&self) -> Duration {
        let now = self.clock.now().moment;
        // Rounded up: the kernel is asked in milliseconds, and waking early would only make us wait again.
        let until = self.workers.iter().map(|worker| worker.timeout(now)).min().unwrap_or(1_000_000);
        Duration::from_millis(until.div_ceil(1_000))
    }

    /// Now and then: is there too much to do here, or too little?
    fn look(&mut self) {
        let now = self.clock.now().moment.0;
        let since = now.saturating_sub(self.looked);
        if since < LOOK {
            return;
        }
        let spent = thread_time();
        let busy = (spent.saturating_sub(self.spent) * 1_000 / since) as u32;
        (self.looked, self.spent) = (now, spent);
        if self.workers.is_empty() {
            return;
        }
        let behind = self.overload.shedding() != Shedding::Nothing;
        let advice = self.roster.advise(self.place, busy, behind);
        self.agreed = if advice == self.advice { self.agreed + 1 } else { 1 };
        self.advice = advice;
        let (to, count) = match advice {
            Advice::GiveHalf(to) if behind || self.agreed >= BUSY_LOOKS => (to, self.workers.len() / 2),
            Advice::Join(to) if self.agreed >= QUIET_LOOKS => (to, self.workers.len()),
            Advice::Stay | Advice::GiveHalf(_) | Advice::Join(_) => return,
        };
        self.advice = Advice::Stay;
        let given = self.workers.split_off(self.workers.len() - count);
        log::debug!(target: "worker", "thread {} gives {count} workers to thread {to}", self.place);
        let kept = self.roster.give(to, given);
        self.roster.left(self.place, count - kept.len());
        self.workers.extend(kept);
        self.meet();
    }
}
