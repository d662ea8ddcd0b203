//! Asks rtpengines (ng protocol over UDP): each question until it is answered, the next engine where one is silent, and those
//! that are silent now and then whether they are back. A thread of its own, so that nobody waits for them.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use edge::{
    EngineSettings, Event, EventKind, MediaAnswer, MediaNotice, MediaQuestion, NgAnswer, NgCommand, NgKind, QuestionId, RtpengineSettings, SessionReport,
    ng_answer, ng_ping, ng_report,
};
use proto::Key;
use ring_queue::Mailbox;

use crate::clock::wall;
use crate::events::EventQueue;
use crate::mail::{Mail, Post};
use crate::wait::{Bell, wait};

/// How often deadlines are looked at.
const STEP: Duration = Duration::from_millis(20);
const NOBODY: &str = "none answers";

enum Item {
    Ask(Box<MediaQuestion>),
    Configure(Vec<RtpengineSettings>, EngineSettings),
    Stop,
}

struct Inbox {
    mailbox: Mailbox<Item>,
    bell: Bell,
}

impl Inbox {
    fn post(&self, item: Item) -> Result<(), Item> {
        if self.mailbox.post(item)? {
            self.bell.ring();
        }
        Ok(())
    }
}

/// Names of engines, and whether they answer.
type Health = Arc<Mutex<Vec<(String, Arc<AtomicBool>)>>>;

/// The way to the thread that asks; it starts with the first configuration that names an engine.
pub(crate) struct Rtpengines {
    inbox: Arc<Inbox>,
    health: Health,
    thread: Mutex<Option<JoinHandle<()>>>,
    most: usize,
}

impl Rtpengines {
    /// At most `most` questions are under way, and as many wait; more are answered as by engines that are all down.
    pub(crate) fn new(most: usize) -> io::Result<Self> {
        Ok(Self { inbox: Arc::new(Inbox { mailbox: Mailbox::new(most), bell: Bell::new()? }), health: Arc::default(), thread: Mutex::default(), most })
    }

    /// Asks these engines from now on; answers go to `posts`.
    pub(crate) fn configure(&self, engines: &[RtpengineSettings], terms: &EngineSettings, posts: &[Arc<Post>], events: &Arc<EventQueue>) -> io::Result<()> {
        let Ok(mut thread) = self.thread.lock() else { return Err(io::ErrorKind::Other.into()) };
        if thread.is_none() {
            if engines.is_empty() {
                return Ok(());
            }
            let asker = Asker::new(Arc::clone(&self.inbox), Arc::clone(&self.health), posts.to_vec(), Arc::clone(events), terms.clone(), self.most)?;
            let body = move || {
                crate::limits::block_signals();
                asker.run();
            };
            *thread = Some(thread::Builder::new().name("rtpengine".to_owned()).spawn(body)?);
        }
        self.inbox.post(Item::Configure(engines.to_vec(), terms.clone())).map_err(|_| io::Error::other("too many questions wait"))
    }

    /// Puts a question; given back where too many wait.
    pub(crate) fn ask(&self, question: MediaQuestion) -> Result<(), Box<MediaQuestion>> {
        match self.inbox.post(Item::Ask(Box::new(question))) {
            Err(Item::Ask(question)) => Err(question),
            _ => Ok(()),
        }
    }

    /// Every engine, and whether it answers.
    pub(crate) fn health(&self) -> Vec<(String, bool)> {
        self.health.lock().map(|all| all.iter().map(|(name, up)| (name.clone(), up.load(Ordering::Relaxed))).collect()).unwrap_or_default()
    }

    pub(crate) fn stop(&self) {
        if let Some(thread) = self.thread.lock().ok().and_then(|mut thread| thread.take()) {
            for _ in 0..1_000 {
                if self.inbox.post(Item::Stop).is_ok() {
                    break;
                }
                thread::sleep(Duration::from_millis(1));
            }
            if thread.join().is_err() {
                log::error!(target: "stop", "the thread that asks rtpengines ended by a panic");
            }
        }
    }
}

struct Node {
    settings: RtpengineSettings,
    up: Arc<AtomicBool>,
    /// When it was last asked whether it is there, or answered anything.
    looked: Instant,
}

/// A question under way; without one it is a ping.
struct Pending {
    question: Option<Box<MediaQuestion>>,
    datagram: Vec<u8>,
    node: SocketAddr,
    /// Engines that did not take it.
    refused: Vec<SocketAddr>,
    /// Its session ended meanwhile: whoever takes it still is to forget it.
    ended: bool,
    tries: u32,
    deadline: Instant,
}

/// Whether another engine may do it than the one that has the session: an offer tells a new one all that it needs.
fn may_move(question: &MediaQuestion) -> bool {
    question.node.is_none() || question.command.kind == NgKind::Offer
}

/// A session that an engine may have though it is with another one, or over: its answer came too late, or never.
struct Abandoned {
    node: SocketAddr,
    delete: NgCommand,
}

struct Asker {
    inbox: Arc<Inbox>,
    health: Health,
    posts: Vec<Arc<Post>>,
    events: Arc<EventQueue>,
    terms: EngineSettings,
    nodes: Vec<Node>,
    sockets: [UdpSocket; 2],
    pending: HashMap<u64, Pending>,
    /// What engines are told once they answer anything again.
    abandoned: Vec<Abandoned>,
    cookie: u64,
    /// Answers whose worker had no room.
    waiting: Vec<(usize, Mail)>,
    most: usize,
}

impl Asker {
    fn new(inbox: Arc<Inbox>, health: Health, posts: Vec<Arc<Post>>, events: Arc<EventQueue>, terms: EngineSettings, most: usize) -> io::Result<Self> {
        let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        // Where there is no IPv6 no engine has it either.
        let v6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).or_else(|_| v4.try_clone())?;
        v4.set_nonblocking(true)?;
        v6.set_nonblocking(true)?;
        // An engine answers a cookie that it has seen as it did before, whoever sent it: several proxies must not have the same.
        let secret = proto::Secret::random().map_err(|error| io::Error::other(error.to_string()))?;
        let cookie = proto::keyed_hash(&secret, &[b"cookie"]) as u64;
        Ok(Self {
            inbox,
            health,
            posts,
            events,
            terms,
            nodes: Vec::new(),
            sockets: [v4, v6],
            pending: HashMap::new(),
            abandoned: Vec::new(),
            cookie,
            waiting: Vec::new(),
            most,
        })
    }

    fn run(mut self) {
        let mut buffer = vec![0; 65_536];
        let mut ready = Vec::new();
        loop {
            self.inbox.mailbox.open();
            if self.inbox.mailbox.is_empty() {
                let descriptors = [self.inbox.bell.descriptor(), self.sockets[0].as_raw_fd(), self.sockets[1].as_raw_fd()];
                let busy = !self.pending.is_empty() || !self.waiting.is_empty();
                wait(&descriptors, if busy { STEP } else { Duration::from_secs(1) }, &mut ready);
                if ready.first() == Some(&true) {
                    self.inbox.bell.answer();
                }
            }
            for index in 0..self.sockets.len() {
                while let Ok((length, source)) = self.sockets[index].recv_from(&mut buffer) {
                    self.receive(source, buffer.get(..length).unwrap_or_default());
                }
            }
            while let Some(item) = self.inbox.mailbox.take() {
                match item {
                    Item::Ask(question) => {
                        self.note_end(&question);
                        self.ask(question, Vec::new(), NOBODY);
                    }
                    Item::Configure(engines, terms) => self.configure(engines, terms),
                    Item::Stop => return,
                }
            }
            self.look();
            for (worker, mail) in std::mem::take(&mut self.waiting) {
                self.tell(worker, mail);
            }
        }
    }

    fn configure(&mut self, engines: Vec<RtpengineSettings>, terms: EngineSettings) {
        self.terms = terms;
        let before = std::mem::take(&mut self.nodes);
        let now = Instant::now();
        self.nodes = engines
            .into_iter()
            .map(|settings| {
                let known = before.iter().find(|node| node.settings.address == settings.address).map(|node| Arc::clone(&node.up));
                Node { up: known.unwrap_or_else(|| Arc::new(AtomicBool::new(true))), looked: now, settings }
            })
            .collect();
        if let Ok(mut health) = self.health.lock() {
            *health = self.nodes.iter().map(|node| (node.settings.name.clone(), Arc::clone(&node.up))).collect();
        }
        for address in self.nodes.iter().map(|node| node.settings.address).collect::<Vec<_>>() {
            self.ping(address);
        }
    }

    fn ping(&mut self, node: SocketAddr) {
        self.cookie = self.cookie.wrapping_add(1);
        let datagram = ng_ping(&self.cookie.to_string());
        self.put(self.cookie, Pending { question: None, datagram, node, refused: Vec::new(), ended: false, tries: 0, deadline: Instant::now() });
    }

    /// Puts a question to an engine that has not refused it; where there is none, `why` is told.
    fn ask(&mut self, question: Box<MediaQuestion>, refused: Vec<SocketAddr>, why: &str) {
        let chosen = match question.node.filter(|_| refused.is_empty()) {
            None if may_move(&question) => self.choose(&question, &refused),
            own => own,
        };
        let Some(node) = chosen.filter(|_| self.pending.len() + self.waiting.len() < self.most) else {
            // With no other to go to, a session that is somewhere stays there.
            let others = refused.into_iter().filter(|other| question.node != Some(*other));
            self.abandon(&question.command, others);
            return self.failed(*question, why);
        };
        if let Some(last) = refused.last().filter(|_| question.command.kind == NgKind::Offer) {
            log::debug!(target: "media", "rtpengine {last} gives way to {node}: {why}");
        }
        // It has it from now on.
        self.abandoned.retain(|gone| gone.node != node || gone.delete.session != question.command.session);
        self.cookie = self.cookie.wrapping_add(1);
        let datagram = question.command.datagram(&self.cookie.to_string());
        self.put(self.cookie, Pending { question: Some(question), datagram, node, refused, ended: false, tries: 0, deadline: Instant::now() });
    }

    /// What still offers something for a session that ends now is put to nobody else.
    fn note_end(&mut self, question: &MediaQuestion) {
        if question.command.kind == NgKind::Delete {
            let of_it = |pending: &&mut Pending| pending.question.as_ref().is_some_and(|other| other.command.session == question.command.session);
            self.pending.values_mut().filter(of_it).for_each(|pending| pending.ended = true);
        }
    }

    /// The engine for a new session: by weight among those that answer, the same for the same session; one without weight, and
    /// in the end one that is down, only where there is no other.
    fn choose(&self, question: &MediaQuestion, refused: &[SocketAddr]) -> Option<SocketAddr> {
        let open = |node: &&Node| !refused.contains(&node.settings.address);
        let up = |node: &&Node| node.up.load(Ordering::Relaxed);
        let weighty: Vec<&Node> = self.nodes.iter().filter(open).filter(up).filter(|node| node.settings.weight > 0).collect();
        let total: u64 = weighty.iter().map(|node| u64::from(node.settings.weight)).sum();
        if total > 0 {
            let mut place = question.command.session.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) % total;
            for node in weighty {
                match place.checked_sub(u64::from(node.settings.weight)) {
                    Some(rest) => place = rest,
                    None => return Some(node.settings.address),
                }
            }
        }
        self.nodes.iter().filter(open).find(up).or_else(|| self.nodes.iter().find(open)).map(|node| node.settings.address)
    }

    fn put(&mut self, cookie: u64, mut pending: Pending) {
        let socket = &self.sockets[usize::from(pending.node.is_ipv6())];
        if let Err(error) = socket.send_to(&pending.datagram, pending.node) {
            log::debug!(target: "media", "rtpengine {}: {error}", pending.node);
        }
        pending.tries += 1;
        pending.deadline = Instant::now() + Duration::from_millis(self.terms.timeout_milliseconds);
        self.pending.insert(cookie, pending);
    }

    fn receive(&mut self, source: SocketAddr, datagram: &[u8]) {
        let Some((cookie, answer)) = ng_answer(datagram) else { return };
        if self.nodes.iter().any(|node| node.settings.address == source) {
            // Late or not: it is there.
            self.delete_abandoned(source);
        }
        let Some(cookie) = cookie.parse::<u64>().ok().filter(|cookie| self.pending.get(cookie).is_some_and(|pending| pending.node == source)) else { return };
        let Some(pending) = self.pending.remove(&cookie) else { return };
        self.set_up(pending.node, true);
        let Some(question) = pending.question else { return };
        match answer {
            NgAnswer::Description(sdp) if question.command.kind != NgKind::Delete => {
                // What was agreed on before stays where it is: this offer may be refused yet.
                let kept = question.node.filter(|_| !pending.ended);
                let others = pending.refused.into_iter().filter(|node| kept != Some(*node));
                self.abandon(&question.command, others.chain(pending.ended.then_some(source)));
                let worker = usize::from(question.id.worker);
                let answer = MediaAnswer { id: question.id, session: question.command.session, result: Ok((pending.node, sdp)) };
                self.tell(worker, Mail::MediaAnswer(Box::new(answer)));
            }
            NgAnswer::Deleted(told) if question.command.kind == NgKind::Delete => {
                self.closed(&question, ng_report(question.command.session, &told, &question.command.from_tag));
            }
            // The one that has the session knows best: what was agreed on before goes on there.
            NgAnswer::Error(why) if may_move(&question) && question.node != Some(source) && !pending.ended => {
                // Another may have ports or calls to spare.
                log::debug!(target: "media", "rtpengine {} refuses: {why}", pending.node);
                self.go_on(question, pending.refused, pending.node, &why);
            }
            NgAnswer::Error(_) if question.command.kind == NgKind::Delete && !question.command.from_tag.is_empty() => {
                // It knows the call, if at all, by the other side's tag only.
                let mut question = question;
                question.command.from_tag.clear();
                self.ask(question, pending.refused, NOBODY);
            }
            NgAnswer::Error(why) => {
                self.abandon(&question.command, pending.refused.into_iter());
                self.failed(*question, &why);
            }
            NgAnswer::Pong | NgAnswer::Description(_) | NgAnswer::Deleted(_) => {
                // It may have a session of it though it says nothing of that.
                let is_new = question.node != Some(source);
                self.abandon(&question.command, pending.refused.into_iter().chain(is_new.then_some(source)));
                self.failed(*question, "an answer to something else");
            }
        }
    }

    /// Puts a question to the next engine, as `node` did not do it.
    fn go_on(&mut self, question: Box<MediaQuestion>, mut refused: Vec<SocketAddr>, node: SocketAddr, why: &str) {
        refused.push(node);
        self.ask(question, refused, why);
    }

    /// A session is not at these engines, or no more: what they may have of it nonetheless ends, there and then or once they answer again.
    fn abandon(&mut self, command: &NgCommand, nodes: impl Iterator<Item = SocketAddr>) {
        for node in nodes.filter(|_| command.kind == NgKind::Offer) {
            let is_told = self.abandoned.iter().any(|gone| gone.node == node && gone.delete.session == command.session);
            if !is_told && self.abandoned.len() < self.most {
                let delete = NgCommand { kind: NgKind::Delete, from_tag: String::new(), to_tag: String::new(), sdp: Box::default(), ..command.clone() };
                self.abandoned.push(Abandoned { node, delete });
            }
            if self.nodes.iter().any(|own| own.settings.address == node && own.up.load(Ordering::Relaxed)) {
                self.delete_abandoned(node);
            }
        }
    }

    fn delete_abandoned(&mut self, node: SocketAddr) {
        if !self.abandoned.iter().any(|gone| gone.node == node) {
            return;
        }
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.abandoned).into_iter().partition(|gone| gone.node == node);
        self.abandoned = kept;
        for Abandoned { delete, .. } in gone {
            let id = QuestionId { worker: 0, transaction: Key::NONE, number: 0, asker: edge::Asker::Media };
            self.ask(Box::new(MediaQuestion { id, node: Some(node), command: delete, report: false }), Vec::new(), NOBODY);
        }
    }

    /// Nobody does it.
    fn failed(&mut self, question: MediaQuestion, why: &str) {
        if question.command.kind == NgKind::Delete {
            let report = SessionReport { session: question.command.session, streams: Vec::new() };
            return self.closed(&question, report);
        }
        let answer = MediaAnswer { id: question.id, session: question.command.session, result: Err(why.to_owned()) };
        self.tell(usize::from(question.id.worker), Mail::MediaAnswer(Box::new(answer)));
    }

    fn closed(&mut self, question: &MediaQuestion, report: SessionReport) {
        if question.report {
            self.tell((report.session.0 >> 56) as usize, Mail::Media(MediaNotice::Closed(report)));
        }
    }

    fn tell(&mut self, worker: usize, mail: Mail) {
        let Some(post) = self.posts.get(worker) else { return };
        if let Err(back) = post.offer(mail) {
            self.waiting.push((worker, back));
        }
    }

    /// Sends again what was not answered in time, or puts it to the next engine; and looks whether engines are there.
    fn look(&mut self) {
        let now = Instant::now();
        let due: Vec<u64> = self.pending.iter().filter(|(_, pending)| pending.deadline <= now).map(|(cookie, _)| *cookie).collect();
        for cookie in due {
            let Some(pending) = self.pending.remove(&cookie) else { continue };
            // One that the file has no more still has its calls.
            let is_up = self.nodes.iter().find(|node| node.settings.address == pending.node).is_none_or(|node| node.up.load(Ordering::Relaxed));
            // One that is known to be down is not waited for as long.
            if pending.tries < self.terms.tries && (is_up || pending.question.is_none()) {
                self.put(cookie, pending);
                continue;
            }
            self.set_up(pending.node, false);
            let Some(question) = pending.question else { continue };
            let is_ours = self.nodes.iter().any(|node| node.settings.address == pending.node);
            if question.command.kind == NgKind::Delete && is_ours && self.abandoned.len() < self.most {
                // It may be lost, or come too late: asked again once it answers anything.
                self.abandoned.push(Abandoned { node: pending.node, delete: question.command.clone() });
            }
            if pending.ended {
                self.abandon(&question.command, pending.refused.into_iter().chain([pending.node]));
                self.failed(*question, "its call is over");
            } else if may_move(&question) {
                self.go_on(question, pending.refused, pending.node, NOBODY);
            } else {
                self.failed(*question, "it does not answer");
            }
        }
        let interval = Duration::from_secs(self.terms.ping_seconds.max(1));
        let silent: Vec<SocketAddr> = self.nodes.iter().filter(|node| now.duration_since(node.looked) >= interval).map(|node| node.settings.address).collect();
        for address in silent {
            if let Some(node) = self.nodes.iter_mut().find(|node| node.settings.address == address) {
                node.looked = now;
            }
            self.ping(address);
        }
    }

    fn set_up(&mut self, address: SocketAddr, up: bool) {
        let Some(node) = self.nodes.iter_mut().find(|node| node.settings.address == address) else { return };
        if up {
            node.looked = Instant::now();
        }
        if node.up.swap(up, Ordering::Relaxed) == up {
            return;
        }
        let (name, status) = (node.settings.name.clone(), if up { "active" } else { "inactive" });
        log::warn!(target: "media", "rtpengine {name} is {status}");
        if self.events.listening.to(EventKind::RtpengineStatus) {
            let ip: IpAddr = address.ip();
            let socket = format!("udp:{}", SocketAddr::new(ip, address.port()));
            self.events.push(Event { kind: EventKind::RtpengineStatus, wall: wall(), values: vec![socket.into(), status.into(), name.into()] });
        }
    }
}
