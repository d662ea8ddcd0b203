//! One media worker: reads a datagram, asks the relay where it goes, sends it.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use edge::{MediaCommand, MediaNotice, MediaRelay, PortPool};

use super::epoll::Epoll;
use super::sockets::Sockets;
use super::{MediaCounts, MediaMail, MediaPost};
use crate::clock::{Clock, wall};
use crate::install::MediaInstall;
use crate::mail::{Mail, Post};

/// Sockets that are told of at once.
const EVENTS: usize = 256;
/// How often silence is looked for, in microseconds.
const TICK: u64 = 2_000_000;
/// Mail taken in one round.
const MAILS: usize = 512;
/// The number of the bell among those of the sockets.
const BELL: u64 = u64::MAX;

pub(super) struct MediaWorker {
    index: u8,
    post: Arc<MediaPost>,
    posts: Vec<Arc<Post>>,
    counts: Arc<MediaCounts>,
    clock: Clock,
    epoll: Epoll,
    sockets: Sockets,
    relay: MediaRelay,
    /// Notices whose SIP worker has no room.
    waiting: VecDeque<MediaNotice>,
    most_waiting: usize,
    untold: u64,
    buffer: Vec<u8>,
    range: (u16, u16),
    workers: u8,
    ticked: u64,
    unsent: u64,
}

impl MediaWorker {
    pub(super) fn new(
        index: u8,
        install: &MediaInstall,
        post: Arc<MediaPost>,
        posts: Vec<Arc<Post>>,
        counts: Arc<MediaCounts>,
        clock: Clock,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EVENTS)?;
        epoll.add(post.bell.descriptor(), BELL)?;
        Ok(Self {
            index,
            post,
            posts,
            counts,
            clock,
            epoll,
            sockets: Sockets::new(install.dscp, install.ready),
            relay: MediaRelay::default(),
            waiting: VecDeque::new(),
            most_waiting: install.mailbox,
            untold: 0,
            buffer: vec![0; 65_536],
            range: (install.first_port, install.last_port),
            workers: install.workers,
            ticked: 0,
            unsent: 0,
        })
    }

    /// Runs until it is told to stop.
    pub(super) fn run(&mut self) {
        loop {
            // Whoever posts from now on rings.
            self.post.mailbox.open();
            let timeout = if !self.post.mailbox.is_empty() {
                0
            } else if self.waiting.is_empty() {
                1_000
            } else {
                5
            };
            let count = self.epoll.wait(timeout);
            let now = self.clock.now().moment.0;
            let done = catch_unwind(AssertUnwindSafe(|| {
                // First the mail: commands are posted before the far ends are told, so that what they send comes later.
                let goes_on = self.mail(now);
                for index in 0..count {
                    match self.epoll.number(index) {
                        BELL => self.post.bell.answer(),
                        row => self.datagram(now, row as u32),
                    }
                }
                goes_on
            }));
            match done {
                Ok(true) => {}
                Ok(false) => return,
                // The datagram or command is lost; sessions and ports stay as they are.
                Err(_) => log::error!(target: "media", "media worker {} panicked over one input", self.index),
            }
            if now.saturating_sub(self.ticked) >= TICK {
                self.ticked = now;
                self.relay.tick(now);
                self.publish();
            }
            self.tell();
        }
    }

    fn datagram(&mut self, now: u64, row: u32) {
        let Some(Ok((length, source))) = self.sockets.socket(row).map(|socket| socket.recv_from(&mut self.buffer)) else { return };
        let bytes = self.buffer.get(..length).unwrap_or_default();
        let Some(way) = self.relay.packet(now, row, source, bytes) else { return };
        // A full buffer, or a host that is gone, costs this packet: the next one comes in 20 ms.
        if let Some(Err(error)) = self.sockets.socket(way.row).map(|socket| socket.send_to(bytes, way.to)) {
            self.unsent += 1;
            log::trace!(target: "media", "a packet is not sent: {error}");
        }
    }

    /// Does what others ask; false where that is to stop.
    fn mail(&mut self, now: u64) -> bool {
        let mut taken = false;
        for _ in 0..MAILS {
            match self.post.mailbox.take() {
                None => break,
                Some(MediaMail::Command(command)) => {
                    taken = true;
                    self.command(now, *command);
                }
                Some(MediaMail::Serve(address, ready, reply)) => {
                    let served = self.serve(address, ready);
                    self.publish();
                    // Whoever asked waits for it.
                    drop(reply.send(served));
                }
                Some(MediaMail::Withdraw(address)) => {
                    self.sockets.withdraw(address);
                    self.publish();
                }
                Some(MediaMail::Stop) => return false,
            }
        }
        if taken {
            for pair in self.relay.freed.drain(..) {
                self.sockets.close(pair);
            }
            self.sockets.fill();
        }
        true
    }

    fn serve(&mut self, address: IpAddr, ready: Vec<super::Ready>) -> io::Result<()> {
        let (first, last) = self.range;
        // Another order at each start, which nobody outside can know.
        let seed = proto::keyed_hash(&proto::Secret::random().map_err(|error| io::Error::other(error.to_string()))?, &[&wall().to_le_bytes()]) as u64;
        self.sockets.serve(address, PortPool::new(first, last, u16::from(self.index), u16::from(self.workers), seed), ready)
    }

    fn command(&mut self, now: u64, command: MediaCommand) {
        if let MediaCommand::Describe { streams, .. } = &command {
            for pair in streams.iter().flat_map(|stream| stream.pairs) {
                self.listen(pair.slot);
            }
        }
        self.relay.command(now, command);
    }

    /// Listens to a pair that is used for the first time.
    fn listen(&mut self, slot: u32) {
        let Some(pair) = self.sockets.pair_mut(slot).filter(|pair| !pair.listens) else { return };
        pair.listens = true;
        for (control, socket) in pair.sockets.iter().enumerate() {
            if let Err(error) = self.epoll.add(socket.as_raw_fd(), u64::from(slot * 2) + control as u64) {
                log::error!(target: "media", "cannot listen to a port for media: {error}");
            }
        }
    }

    fn tell(&mut self) {
        for notice in self.relay.notices.drain(..) {
            // A call whose silence is never told would never end; what else is lost is missing in a record, or in a log.
            if self.waiting.len() < self.most_waiting || matches!(notice, MediaNotice::Silent(_)) {
                self.waiting.push_back(notice);
            } else {
                self.untold += 1;
            }
        }
        while let Some(notice) = self.waiting.pop_front() {
            let id = match &notice {
                MediaNotice::Silent(id) | MediaNotice::Intruder(id, ..) => *id,
                MediaNotice::Closed(report) => report.session,
            };
            let Some(post) = self.posts.get((id.0 >> 56) as usize) else { continue };
            if let Err(Mail::Media(notice)) = post.offer(Mail::Media(notice)) {
                self.waiting.push_front(notice);
                return;
            }
        }
    }

    fn publish(&self) {
        let (relay, counts) = (&self.relay.counts, &self.counts);
        let (free, pairs) = self.sockets.counts();
        for (counter, value) in [
            (&counts.relayed, relay.relayed),
            (&counts.octets, relay.octets),
            (&counts.refused, relay.refused),
            (&counts.limited, relay.limited),
            (&counts.untold, self.untold),
            (&counts.undirected, relay.undirected),
            (&counts.moved, relay.moved),
            (&counts.silent, relay.silent),
            (&counts.unsent, self.unsent),
            (&counts.free, free),
            (&counts.pairs, pairs),
            (&counts.sessions, self.relay.len() as u64),
        ] {
            counter.store(value, Ordering::Relaxed);
        }
    }
}
