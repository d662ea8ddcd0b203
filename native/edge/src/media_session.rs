//! Media sessions of calls: one for each attempt whose media is relayed here, with ports that face either side.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use media::{Command, NgCommand, PortPair, Rules, SessionId, Side};
use proto::{Key, Moment};
use smallvec::SmallVec;

use crate::edge::Edge;
use crate::media_offers::Offers;
use crate::record::CallRecord;

/// Where ports for media come from: prepared by media workers, taken without waiting.
pub trait MediaPorts: Send {
    /// How many media workers there are; 0 where media is not relayed.
    fn workers(&self) -> u8;

    /// Whether `worker` keeps up with what it is told: else nothing new is given to it.
    fn accepts(&self, worker: u8) -> bool;

    /// Whether `port` is one of those that media workers have.
    fn has(&self, port: u16) -> bool;

    /// A pair of ports of `worker` at the local `address`; `None` where none is ready.
    fn take(&mut self, worker: u8, address: IpAddr) -> Option<PortPair>;
}

/// One stream's ports, facing the caller and the callee.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MediaStream {
    pub(crate) index: u8,
    pub(crate) pairs: [PortPair; 2],
    /// Whether its media worker knows of it.
    pub(crate) described: bool,
}

/// The media of one attempt.
#[derive(Debug)]
pub(crate) struct MediaSession {
    pub(crate) id: SessionId,
    /// The media worker that has it.
    pub(crate) worker: u8,
    /// The attempt that it belongs to.
    pub(crate) attempt: usize,
    /// Tags of the callees that answered it: a proxy behind us may have forked.
    pub(crate) tags: SmallVec<[Box<[u8]>; 1]>,
    /// The listeners that face caller and callee.
    pub(crate) listeners: [u16; 2],
    /// Where the signalling of either side goes.
    pub(crate) far: [IpAddr; 2],
    /// Where its ports are bound that face each side, and what descriptions say of that: for its whole life.
    pub(crate) bound: [IpAddr; 2],
    pub(crate) told: [IpAddr; 2],
    /// Who answered last, and the number of that request: it may be repeated. Each side numbers its requests by itself (RFC 3261 section
    /// 12.2.1.1).
    pub(crate) answered: Option<(Side, u32)>,
    /// Who offered something by an INVITE last, and its number: whatever describes media in a response to that is an answer, in each of
    /// the dialogs that it made (RFC 6337 section 2.1).
    pub(crate) offered: Option<(Side, u32)>,
    /// What was said until the first 2xx, as the dialog that is answered may not be the one that spoke last.
    pub(crate) early: EarlyMedia,
    pub(crate) streams: SmallVec<[MediaStream; 1]>,
    /// The exchange of offer and answer.
    pub(crate) offers: Offers,
    /// How it is treated, and how many streams it may have, for its whole life.
    pub(crate) rules: Rules,
    pub(crate) most: usize,
    /// Where an rtpengine relays it.
    pub(crate) external: Option<Box<ExternalSession>>,
}

/// The last description of either side.
type SaidBySide = [Option<Box<Command>>; 2];

/// What a media worker was told while callees ring, each in a dialog of its own.
#[derive(Debug, Default)]
pub(crate) struct EarlyMedia {
    /// The offer of the INVITE.
    opening: Option<Box<Command>>,
    /// By the callee's tag: what either side said last.
    dialogs: SmallVec<[(Box<[u8]>, SaidBySide); 1]>,
    /// The dialog that was told last, by its place.
    last: usize,
    /// The callee's tag in the dialog that was answered first, as long as that lives; what others say meanwhile is kept for later.
    answered: Option<Box<[u8]>>,
}

impl EarlyMedia {
    /// Notes a command about `side` in the dialog of the callee with `tag`, of which there are `most` at most.
    pub(crate) fn note(&mut self, tag: &[u8], side: Side, command: &Command, most: usize) {
        if self.answered.as_deref() == Some(tag) {
            return;
        }
        if tag.is_empty() {
            self.opening = Some(Box::new(command.clone()));
            return;
        }
        let place = self.dialogs.iter().position(|dialog| *dialog.0 == *tag).unwrap_or(self.dialogs.len());
        if place == self.dialogs.len() {
            if place == most {
                return;
            }
            self.dialogs.push((tag.into(), [None, None]));
        }
        self.dialogs[place].1[side as usize] = Some(Box::new(command.clone()));
        self.last = place;
    }

    /// Whether nobody has answered yet.
    pub(crate) fn is_open(&self) -> bool {
        self.answered.is_none()
    }

    /// Whether another dialog than that of the callee with `tag` was answered first, and is not over.
    pub(crate) fn is_of_another(&self, tag: &[u8]) -> bool {
        self.answered.as_deref().is_some_and(|answered| answered != tag)
    }

    /// The callee with `tag` answered first: what is to be told anew, since another dialog spoke last.
    pub(crate) fn settle(&mut self, tag: &[u8]) -> SmallVec<[Command; 2]> {
        if self.answered.is_some() {
            return SmallVec::new();
        }
        self.answered = Some(tag.into());
        let (opening, mut dialogs) = (self.opening.take(), std::mem::take(&mut self.dialogs));
        let several = dialogs.len() > 1;
        let Some(place) = dialogs.iter().position(|dialog| *dialog.0 == *tag).filter(|_| several) else { return SmallVec::new() };
        let moved = dialogs.iter().enumerate().any(|(other, dialog)| other != place && dialog.1[Side::Caller as usize].is_some());
        let [caller, callee] = std::mem::take(&mut dialogs[place].1);
        let caller = caller.or(opening).filter(|_| moved);
        let callee = callee.filter(|_| self.last != place);
        caller.into_iter().chain(callee).map(|command| *command).collect()
    }

    /// The dialog of the callee with `tag` is over: what was said in the next one that was answered, if it was that of this one that held.
    pub(crate) fn move_on(&mut self, tag: &[u8]) -> SmallVec<[Command; 2]> {
        if self.answered.as_deref() != Some(tag) {
            self.dialogs.retain(|dialog| *dialog.0 != *tag);
            return SmallVec::new();
        }
        if self.dialogs.is_empty() {
            return SmallVec::new();
        }
        let (next, said) = self.dialogs.remove(0);
        self.answered = Some(next);
        said.into_iter().flatten().map(|command| *command).collect()
    }
}

/// What the callee with a tag says before anybody has answered.
#[derive(Debug)]
struct EarlySaid {
    tag: Box<[u8]>,
    said: Box<[u8]>,
}

/// By what an rtpengine knows a session.
#[derive(Debug)]
pub(crate) struct ExternalSession {
    pub(crate) call_id: String,
    pub(crate) caller_tag: String,
    /// The engine that has it; nothing before that has answered.
    pub(crate) node: Option<SocketAddr>,
    /// The engine that has what was agreed on, while a later offer is at another one and may be refused yet.
    pub(crate) left: Option<SocketAddr>,
    /// Whether any was asked.
    pub(crate) asked: bool,
    /// While callees ring: what each said last, in the order that the engine heard of them.
    early: Vec<EarlySaid>,
}

impl ExternalSession {
    pub(crate) fn new(call_id: String, caller_tag: String) -> Self {
        Self { call_id, caller_tag, node: None, left: None, asked: false, early: Vec::new() }
    }

    /// An engine has taken a description; which one has nothing more to do with the session, if there was another. `negotiated` tells
    /// whether anything was agreed on there.
    pub(crate) fn taken_by(&mut self, node: SocketAddr, negotiated: bool) -> Option<SocketAddr> {
        let before = self.node.replace(node).filter(|before| *before != node)?;
        if self.left == Some(node) {
            self.left = None;
        } else if self.left.is_none() && negotiated {
            self.left = Some(before);
            return None;
        }
        Some(before)
    }

    /// What was offered last is agreed on: the engine that has nothing more to do with the session.
    pub(crate) fn agreed(&mut self) -> Option<SocketAddr> {
        self.left.take()
    }

    /// Nothing came of what was offered: the same.
    pub(crate) fn refused(&mut self) -> Option<SocketAddr> {
        let left = self.left.take()?;
        self.node.replace(left)
    }

    /// Notes what the callee with `tag` says while others may answer.
    pub(crate) fn note_early(&mut self, tag: &[u8], said: &[u8]) {
        self.early.retain(|early| *early.tag != *tag);
        self.early.push(EarlySaid { tag: tag.into(), said: said.into() });
    }

    /// The callee with `tag` answers first: what it said, where the engine heard another after it.
    pub(crate) fn settle(&mut self, tag: &[u8]) -> Option<Box<[u8]>> {
        let early = std::mem::take(&mut self.early);
        let last = early.last().is_some_and(|early| *early.tag == *tag);
        early.into_iter().find(|early| *early.tag == *tag && !last).map(|early| early.said)
    }
}

/// A record that waits for what its media was like.
pub(crate) struct WaitingRecord {
    pub(crate) record: CallRecord,
    pub(crate) from_peer: Option<u16>,
    pub(crate) source: SocketAddr,
    /// Sessions that have not told yet, with the attempts that they belong to.
    pub(crate) sessions: SmallVec<[(SessionId, usize); 1]>,
    pub(crate) deadline: Moment,
}

/// What an edge holds of media.
#[derive(Default)]
pub(crate) struct MediaState {
    /// The call of each session.
    pub(crate) calls: HashMap<SessionId, Key>,
    next: u64,
    /// Records by the number of their calls.
    pub(crate) waiting: HashMap<u64, WaitingRecord>,
    /// The record that each closed session belongs to.
    pub(crate) records: HashMap<SessionId, u64>,
    /// Sessions that rtpengines relay.
    pub(crate) external: usize,
    /// Sessions that ended before an engine had answered: what it is to be told once it does.
    pub(crate) unanswered: HashMap<SessionId, Box<NgCommand>>,
    /// The description that the response at hand goes on with; nothing inside where it goes on as it came.
    pub(crate) ready: Option<Option<Box<[u8]>>>,
}

impl Edge {
    /// Opens a session for an attempt of `call`, without any stream yet; its place among those of the call.
    pub(crate) fn open_session(&mut self, call: Key, attempt: usize, listeners: [u16; 2], far: [IpAddr; 2]) -> Option<usize> {
        let settings = self.snapshot.settings.media.as_ref()?;
        let (rules, most, external) = (settings.rules(), settings.streams, !settings.rtpengines.is_empty());
        let workers = u64::from(self.options.media.workers());
        if workers == 0 && !external {
            return None;
        }
        self.media.next += 1;
        let id = SessionId(u64::from(self.options.worker) << 56 | self.media.next);
        let first = self.media.next;
        let turn = (0..workers).map(|step| ((first + step) % workers) as u8).find(|worker| self.options.media.accepts(*worker));
        let worker = turn.unwrap_or((first % workers.max(1)) as u8);
        let bound = listeners.map(|listener| self.snapshot.listener(listener).media_address);
        let told = [0, 1].map(|side| self.media_address(listeners[side], far[side]));
        let epoch = self.options.epoch;
        let held = self.calls.get_mut(call)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let external = external.then(|| {
            // Its own for each attempt, node and process: a Call-ID may come by twice, and a late command must hit nobody else.
            let (call_id, caller_tag) = (format!("{}-{epoch:x}-{:x}", text(held.texts.call_id()), id.0), text(held.texts.caller_tag()));
            Box::new(ExternalSession::new(call_id, caller_tag))
        });
        self.media.external += usize::from(external.is_some());
        let session = MediaSession {
            id,
            worker,
            attempt,
            tags: SmallVec::new(),
            listeners,
            far,
            bound,
            told,
            answered: None,
            offered: None,
            early: EarlyMedia::default(),
            streams: SmallVec::new(),
            offers: Offers::default(),
            rules,
            most,
            external,
        };
        held.media.push(session);
        let place = held.media.len() - 1;
        self.media.calls.insert(id, call);
        self.counters.media_sessions_opened.add();
        Some(place)
    }

    /// Makes sure that a session has ports for its streams at these places.
    pub(crate) fn take_ports(&mut self, call: Key, place: usize, indexes: impl Iterator<Item = usize>) -> Result<(), NoPorts> {
        for index in indexes {
            let Some(session) = self.calls.get(call).and_then(|call| call.media.get(place)) else { return Err(NoPorts) };
            if session.streams.iter().any(|stream| usize::from(stream.index) == index) {
                continue;
            }
            let (worker, addresses) = (session.worker, session.bound);
            let (Ok(number), true) = (u8::try_from(index), session.streams.len() < session.most) else { return Err(NoPorts) };
            let Some(first) = self.options.media.take(worker, addresses[0]) else { return Err(NoPorts) };
            let Some(second) = self.options.media.take(worker, addresses[1]) else {
                self.out.media.push((worker, Command::Return(first)));
                return Err(NoPorts);
            };
            if let Some(session) = self.calls.get_mut(call).and_then(|call| call.media.get_mut(place)) {
                session.streams.push(MediaStream { index: number, pairs: [first, second], described: false });
            }
        }
        Ok(())
    }

    /// The address that we tell the far end of `listener` to send its media to.
    fn media_address(&mut self, listener: u16, far: IpAddr) -> IpAddr {
        let settings = self.snapshot.listener(listener);
        let (advertised, address) = (settings.media_advertise, settings.media_address);
        match advertised {
            Some(advertised) => advertised,
            None if !address.is_unspecified() => address,
            None => self.options.routes.source_for(far).unwrap_or(address),
        }
    }

    /// Closes the session of an attempt that nobody answered.
    pub(crate) fn close_attempt(&mut self, call: Key, attempt: usize) {
        let Some(held) = self.calls.get_mut(call) else { return };
        let Some(place) = held.media.iter().position(|session| session.attempt == attempt) else { return };
        let session = held.media.swap_remove(place);
        self.close_session(session, false);
    }

    /// One attempt was answered: nobody will hear the others.
    pub(crate) fn close_other_attempts(&mut self, call: Key, answered: usize) {
        while let Some(place) = self.calls.get(call).and_then(|call| call.media.iter().position(|session| session.attempt != answered)) {
            let Some(session) = self.calls.get_mut(call).map(|call| call.media.swap_remove(place)) else { return };
            self.close_session(session, false);
        }
    }

    /// The same for one that fell silent or whose time is up.
    pub(crate) fn close_silent_attempt(&mut self, entry: Key, attempt: usize) {
        let opens = |transaction: &&crate::transaction::Transaction| transaction.dialog.is_none() && transaction.method == syntax::Method::Invite;
        if let Some(call) = self.transactions.get(entry).filter(opens).map(|transaction| transaction.call) {
            self.close_attempt(call, attempt);
        }
    }

    /// Closes a session; true where its `report` is wanted and will come.
    pub(crate) fn close_session(&mut self, session: MediaSession, report: bool) -> bool {
        self.media.calls.remove(&session.id);
        self.counters.media_sessions_closed.add();
        if session.external.is_some() {
            self.media.external -= 1;
            return self.delete_external(&session, report);
        }
        // Of ports that were never described nobody knows but us.
        for pair in session.streams.iter().filter(|stream| !stream.described).flat_map(|stream| stream.pairs) {
            self.out.media.push((session.worker, Command::Return(pair)));
        }
        let known = session.streams.iter().any(|stream| stream.described);
        if known {
            self.out.media.push((session.worker, Command::Close { session: session.id, report }));
        }
        known && report
    }
}

/// No ports are ready, or too many streams are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoPorts;
