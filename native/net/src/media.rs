//! Media workers: threads of their own that relay RTP, with ports that SIP workers take without waiting (DESIGN rule 5).

mod epoll;
mod sockets;
mod worker;

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use edge::{MediaCommand, MediaPorts, PortPair};
use ring_queue::Mailbox;

use self::worker::MediaWorker;
use crate::clock::Clock;
use crate::install::MediaInstall;
use crate::mail::Post;
use crate::wait::Bell;

/// Ports that wait to be taken, of one SIP worker at one address.
type Ready = Arc<Mailbox<PortPair>>;

/// One item for a media worker.
pub(crate) enum MediaMail {
    /// Do this for the SIP worker of that number.
    Command(Box<MediaCommand>),
    /// Keep ports of this address ready, in one queue for each SIP worker; tell whether there are any.
    Serve(IpAddr, Vec<Ready>, mpsc::Sender<io::Result<()>>),
    /// End.
    Stop,
}

/// A media worker's mailbox and the way to wake it.
pub(crate) struct MediaPost {
    pub(crate) mailbox: Mailbox<MediaMail>,
    pub(crate) bell: Bell,
}

impl MediaPost {
    fn post(&self, mail: MediaMail) -> Result<(), MediaMail> {
        if self.mailbox.post(mail)? {
            self.bell.ring();
        }
        Ok(())
    }
}

/// What a media worker has done, for others to read.
#[derive(Default)]
pub(crate) struct MediaCounts {
    pub(crate) relayed: AtomicU64,
    pub(crate) octets: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) undirected: AtomicU64,
    pub(crate) moved: AtomicU64,
    pub(crate) silent: AtomicU64,
    pub(crate) unsent: AtomicU64,
    /// Pairs of ports that are free, and those that there are.
    pub(crate) free: AtomicU64,
    pub(crate) pairs: AtomicU64,
    pub(crate) sessions: AtomicU64,
}

/// The ports that one SIP worker may take.
#[derive(Clone, Default)]
pub(crate) struct MediaLink {
    workers: u8,
    /// By address, then by media worker.
    ready: Vec<(IpAddr, Vec<Ready>)>,
}

impl MediaPorts for MediaLink {
    fn workers(&self) -> u8 {
        self.workers
    }

    fn take(&mut self, worker: u8, address: IpAddr) -> Option<PortPair> {
        let (_, workers) = self.ready.iter().find(|(own, _)| *own == address)?;
        workers.get(usize::from(worker))?.take()
    }
}

/// How one SIP worker tells media workers what to do: in order, and nothing is lost where a mailbox is full for a while.
#[derive(Default)]
pub(crate) struct MediaSender {
    posts: Vec<Arc<MediaPost>>,
    waiting: VecDeque<(u8, MediaCommand)>,
}

impl MediaSender {
    /// Puts the commands, behind those that wait.
    pub(crate) fn send(&mut self, commands: &mut Vec<(u8, MediaCommand)>) {
        self.waiting.extend(commands.drain(..));
        while let Some((worker, command)) = self.waiting.pop_front() {
            let Some(post) = self.posts.get(usize::from(worker)) else { continue };
            if let Err(MediaMail::Command(command)) = post.post(MediaMail::Command(Box::new(command))) {
                self.waiting.push_front((worker, *command));
                return;
            }
        }
    }

    /// Whether commands wait for room.
    pub(crate) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }
}

/// What a SIP worker gets.
pub(crate) struct MediaEnds {
    pub(crate) ports: MediaLink,
    posts: Vec<Arc<MediaPost>>,
}

impl MediaEnds {
    pub(crate) fn attach(self, sender: &mut MediaSender) -> MediaLink {
        sender.posts = self.posts;
        self.ports
    }
}

/// All media workers.
pub(crate) struct MediaEngine {
    posts: Vec<Arc<MediaPost>>,
    threads: Vec<JoinHandle<()>>,
    pub(crate) counts: Vec<Arc<MediaCounts>>,
    links: Vec<MediaLink>,
    ready: usize,
}

impl MediaEngine {
    /// Starts the threads; they tell SIP workers by `posts`.
    pub(crate) fn start(install: &MediaInstall, posts: &[Arc<Post>], clock: Clock) -> io::Result<Self> {
        let mut engine = Self { posts: Vec::new(), threads: Vec::new(), counts: Vec::new(), links: Vec::new(), ready: install.ready };
        for index in 0..install.workers {
            let post = Arc::new(MediaPost { mailbox: Mailbox::new(install.mailbox), bell: Bell::new()? });
            let counts = Arc::new(MediaCounts::default());
            let mut worker = MediaWorker::new(index, install, Arc::clone(&post), posts.to_vec(), Arc::clone(&counts), clock)?;
            let body = move || {
                crate::limits::block_signals();
                worker.run();
            };
            engine.threads.push(thread::Builder::new().name(format!("media-{index}")).spawn(body)?);
            engine.posts.push(post);
            engine.counts.push(counts);
        }
        engine.links = vec![MediaLink { workers: install.workers, ready: Vec::new() }; posts.len()];
        Ok(engine)
    }

    /// The ends of every SIP worker, with ports of all these `addresses`.
    ///
    /// # Errors
    /// Where no port of an address can be bound; those of the others stay.
    pub(crate) fn ends(&mut self, addresses: &[IpAddr]) -> io::Result<Vec<MediaEnds>> {
        for address in addresses {
            if self.links.iter().all(|link| link.ready.iter().any(|(own, _)| own == address)) {
                continue;
            }
            let mut by_worker: Vec<Vec<Ready>> = Vec::new();
            for post in &self.posts {
                let queues: Vec<Ready> = self.links.iter().map(|_| Arc::new(Mailbox::new(self.ready))).collect();
                let (reply, answer) = mpsc::channel();
                let asked = post.post(MediaMail::Serve(*address, queues.clone(), reply));
                let answer = asked.ok().and_then(|()| answer.recv().ok()).unwrap_or_else(|| Err(io::Error::other("a media worker does not answer")));
                answer.map_err(|error| io::Error::new(error.kind(), format!("media ports of {address}: {error}")))?;
                by_worker.push(queues);
            }
            for (index, link) in self.links.iter_mut().enumerate() {
                link.ready.push((*address, by_worker.iter().map(|queues| Arc::clone(&queues[index])).collect()));
            }
        }
        Ok(self.links.iter().map(|link| MediaEnds { ports: link.clone(), posts: self.posts.clone() }).collect())
    }

    /// What all workers have counted together, under the names of metrics.
    pub(crate) fn counted(&self) -> [(&'static str, u64); 9] {
        let sum = |read: fn(&MediaCounts) -> &AtomicU64| self.counts.iter().map(|counts| read(counts).load(Ordering::Relaxed)).sum();
        [
            ("media_packets_relayed", sum(|c| &c.relayed)),
            ("media_octets_relayed", sum(|c| &c.octets)),
            ("media_packets_refused", sum(|c| &c.refused)),
            ("media_packets_undirected", sum(|c| &c.undirected)),
            ("media_packets_unsent", sum(|c| &c.unsent)),
            ("media_sources_moved", sum(|c| &c.moved)),
            ("media_sessions_silent", sum(|c| &c.silent)),
            ("media_port_pairs_free", sum(|c| &c.free)),
            ("media_port_pairs", sum(|c| &c.pairs)),
        ]
    }

    /// Ends the threads.
    pub(crate) fn stop(self) {
        for post in &self.posts {
            for _ in 0..1_000 {
                if post.post(MediaMail::Stop).is_ok() {
                    break;
                }
                thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        for thread in self.threads {
            if thread.join().is_err() {
                log::error!(target: "stop", "a media worker ended by a panic");
            }
        }
    }
}
