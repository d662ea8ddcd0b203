//! Media workers: threads of their own that relay RTP, with ports that SIP workers take without waiting (DESIGN rule 5).

mod epoll;
mod sockets;
mod worker;

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use edge::{MediaCommand, MediaPorts, PortPair};
use ring_queue::Mailbox;

use self::sockets::ReadyPair;
use self::worker::MediaWorker;
use crate::clock::Clock;
use crate::install::MediaInstall;
use crate::mail::Post;
use crate::wait::Bell;

/// Ports that wait to be taken, of one SIP worker at one address.
type Ready = Arc<Mailbox<ReadyPair>>;

/// One item for a media worker.
pub(crate) enum MediaMail {
    /// Do this for the SIP worker of that number.
    Command(Box<MediaCommand>),
    /// Keep ports of this address ready, in one queue for each SIP worker; tell whether there are any.
    Serve(IpAddr, Vec<Ready>, mpsc::Sender<io::Result<()>>),
    /// Keep none of this address ready any more.
    Withdraw(IpAddr),
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
    pub(crate) limited: AtomicU64,
    pub(crate) untold: AtomicU64,
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
    /// Media workers for which this SIP worker has as many commands waiting as it may.
    behind: Arc<[AtomicBool]>,
    /// All that there are.
    range: Range<u16>,
}

impl MediaPorts for MediaLink {
    fn workers(&self) -> u8 {
        self.workers
    }

    fn accepts(&self, worker: u8) -> bool {
        self.behind.get(usize::from(worker)).is_none_or(|behind| !behind.load(Ordering::Relaxed))
    }

    fn has(&self, port: u16) -> bool {
        self.range.contains(&port)
    }

    fn take(&mut self, worker: u8, address: IpAddr) -> Option<PortPair> {
        let (_, workers) = self.ready.iter().find(|(own, _)| *own == address)?;
        workers.get(usize::from(worker))?.take().map(ReadyPair::take)
    }
}

/// How one SIP worker tells media workers what to do: in order, and nothing is lost where a mailbox is full for a while. No new
/// media goes to a worker for which as many commands wait as its mailbox holds; answers, and the ends of calls, still do.
#[derive(Default)]
pub(crate) struct MediaSender {
    posts: Vec<Arc<MediaPost>>,
    waiting: Vec<VecDeque<MediaCommand>>,
    behind: Arc<[AtomicBool]>,
    most: usize,
}

impl MediaSender {
    /// Puts the commands, behind those that wait.
    pub(crate) fn send(&mut self, commands: &mut Vec<(u8, MediaCommand)>) {
        for (worker, command) in commands.drain(..) {
            if let Some(queue) = self.waiting.get_mut(usize::from(worker)) {
                queue.push_back(command);
            }
        }
        for ((queue, post), behind) in self.waiting.iter_mut().zip(&self.posts).zip(self.behind.iter()) {
            while let Some(command) = queue.pop_front() {
                if let Err(MediaMail::Command(command)) = post.post(MediaMail::Command(Box::new(command))) {
                    queue.push_front(*command);
                    break;
                }
            }
            behind.store(queue.len() >= self.most, Ordering::Relaxed);
        }
    }

    /// Whether commands wait for room.
    pub(crate) fn is_behind(&self) -> bool {
        self.waiting.iter().any(|queue| !queue.is_empty())
    }
}

/// What a SIP worker gets.
pub(crate) struct MediaEnds {
    pub(crate) ports: MediaLink,
    posts: Vec<Arc<MediaPost>>,
    most: usize,
}

impl MediaEnds {
    pub(crate) fn attach(self, sender: &mut MediaSender) -> MediaLink {
        sender.waiting.resize_with(self.posts.len(), VecDeque::new);
        (sender.posts, sender.behind, sender.most) = (self.posts, Arc::clone(&self.ports.behind), self.most);
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
    mailbox: usize,
}

impl MediaEngine {
    /// Starts the threads; they tell SIP workers by `posts`.
    pub(crate) fn start(install: &MediaInstall, posts: &[Arc<Post>], clock: Clock) -> io::Result<Self> {
        let mut engine = Self { posts: Vec::new(), threads: Vec::new(), counts: Vec::new(), links: Vec::new(), ready: install.ready, mailbox: install.mailbox };
        for index in 0..install.workers {
            let post = Arc::new(MediaPost { mailbox: Mailbox::new(install.mailbox), bell: Bell::new()? });
            let counts = Arc::new(MediaCounts::default());
            let mut worker = MediaWorker::new(index, install, Arc::clone(&post), posts.to_vec(), Arc::clone(&counts), clock)?;
            let body = move || {
                crate::limits::block_signals();
                crate::limits::take_short_turns();
                worker.run();
            };
            engine.threads.push(thread::Builder::new().name(format!("media-{index}")).spawn(body)?);
            engine.posts.push(post);
            engine.counts.push(counts);
        }
        let behind = || (0..install.workers).map(|_| AtomicBool::new(false)).collect();
        let range = install.first_port..install.last_port.saturating_add(1);
        engine.links = posts.iter().map(|_| MediaLink { workers: install.workers, ready: Vec::new(), behind: behind(), range: range.clone() }).collect();
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
                if let Err(error) = answer {
                    // What the workers before had bound is nobody's.
                    for post in self.posts.iter().take(by_worker.len()) {
                        if post.post(MediaMail::Withdraw(*address)).is_err() {
                            log::warn!(target: "media", "ports of {address} stay bound: a media worker has no room for mail");
                        }
                    }
                    return Err(io::Error::new(error.kind(), format!("media ports of {address}: {error}")));
                }
                by_worker.push(queues);
            }
            for (index, link) in self.links.iter_mut().enumerate() {
                link.ready.push((*address, by_worker.iter().map(|queues| Arc::clone(&queues[index])).collect()));
            }
        }
        Ok(self.links.iter().map(|link| MediaEnds { ports: link.clone(), posts: self.posts.clone(), most: self.mailbox }).collect())
    }

    /// What all workers have counted together, under the names of metrics.
    pub(crate) fn counted(&self) -> [(&'static str, u64); 11] {
        let sum = |read: fn(&MediaCounts) -> &AtomicU64| self.counts.iter().map(|counts| read(counts).load(Ordering::Relaxed)).sum();
        [
            ("media_packets_relayed", sum(|c| &c.relayed)),
            ("media_octets_relayed", sum(|c| &c.octets)),
            ("media_packets_refused", sum(|c| &c.refused)),
            ("media_packets_limited", sum(|c| &c.limited)),
            ("media_notices_dropped", sum(|c| &c.untold)),
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
