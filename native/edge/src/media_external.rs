//! Media that an rtpengine relays in our place. Its answers take time, so whatever carries a description waits for them: a
//! request in its transaction, as for a name (DESIGN rule 3), a response beside it, with those that came after it.

use std::net::SocketAddr;

use media::{NgCommand, NgKind, Side};
use proto::{Direction, Key, Moment, Now, milliseconds};
use syntax::{Message, Method};

use crate::edge::Edge;
use crate::hop::Hop;
use crate::media_anchor::{Leg, MediaFault, Role, carries_media, is_reliable, side_of};
use crate::media_session::MediaSession;
use crate::media_text::{Changes, description, for_engines, is_for_engines, lengths, read_streams, session_part};
use crate::question::{Address, Asker, QuestionId};
use crate::transaction::{Shape, WaitKind, Waiting};

/// Responses of one request that wait at once, or are remembered; more are dropped like datagrams that are lost, or asked about anew.
const MOST: usize = 16;

/// A question for an rtpengine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaQuestion {
    /// Who asks; nobody waits for the answer to [`NgKind::Delete`].
    pub id: QuestionId,
    /// The engine that has the session; nothing for a new one, which any may take.
    pub node: Option<SocketAddr>,
    /// What it is to do.
    pub command: NgCommand,
    /// Whether the end of the session is to be told as a [`media::Notice::Closed`].
    pub report: bool,
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaAnswer {
    /// Which.
    pub id: QuestionId,
    /// The session.
    pub session: media::SessionId,
    /// The engine that has it, and the description to pass on; or why there is none.
    pub result: Result<(SocketAddr, Box<[u8]>), String>,
}

/// What a request waits with, until there is a description to send.
#[derive(Debug)]
struct PendingMedia {
    /// The attempt that it is for.
    number: usize,
    address: Address,
    /// The description as it came, where it is an answer: that goes on without an engine, too.
    original: Option<Box<[u8]>>,
    bytes: Box<[u8]>,
    shape: Box<Shape>,
    /// There from the answer on; kept for an attempt over UDP, should that over TCP fail.
    description: Option<Box<[u8]>>,
}

/// A response that waits.
#[derive(Debug)]
struct HeldMedia {
    number: u8,
    attempt: usize,
    arrival: Hop,
    bytes: Box<[u8]>,
    deadline: Moment,
}

/// A response that went on, as it came, and its description.
#[derive(Debug)]
struct GoneMedia {
    bytes: Box<[u8]>,
    description: Box<[u8]>,
}

/// What of one transaction waits for descriptions.
#[derive(Debug, Default)]
pub(crate) struct MediaWait {
    /// The request, until there is one, and that which it goes out with.
    pending: Option<PendingMedia>,
    /// Responses.
    held: Vec<HeldMedia>,
    /// Every 2xx that went on, [`MOST`] at most: said again it goes the same way, whatever was agreed on since.
    gone: Vec<GoneMedia>,
}

impl MediaWait {
    /// When the first of the responses has waited for too long.
    pub(crate) fn deadline(&self) -> Moment {
        self.held.iter().map(|held| held.deadline).fold(Moment::NEVER, Moment::min)
    }
}

/// What an engine is asked of one description.
struct Asked<'a> {
    call: Key,
    place: usize,
    side: Side,
    kind: NgKind,
    arrival: &'a Hop,
    tags: [&'a [u8]; 2],
    /// CSeq of the request as the other side saw it.
    number: u32,
}

impl Edge {
    pub(crate) fn is_external(&self) -> bool {
        self.snapshot.settings.media.as_ref().is_some_and(|media| !media.rtpengines.is_empty())
    }

    /// How long an engine may take, with all its tries and those of the next one.
    fn engine_patience(&self) -> u64 {
        let terms = self.snapshot.settings.media.as_ref().map(|media| &media.engine);
        let count = self.snapshot.settings.media.as_ref().map_or(1, |media| media.rtpengines.len().clamp(1, 4)) as u64;
        // A call may still be at an engine though the file has none any more.
        terms.map_or(milliseconds(3_000), |terms| milliseconds(terms.timeout_milliseconds * u64::from(terms.tries) * count + 100))
    }

    /// Whether an attempt must wait for an engine; then it is made once that has answered.
    #[inline(never)]
    pub(crate) fn ask_about_media(&mut self, now: Now, entry: Key, message: &Message<'_>, address: Address, shape: &Shape) -> Result<bool, MediaFault> {
        if !carries_media(message.head.method) {
            return Ok(false);
        }
        let Some(transaction) = self.transactions.get_mut(entry) else { return Ok(false) };
        if let Some(wait) = transaction.media.as_mut() {
            let number = transaction.branches.len();
            if wait.pending.as_ref().is_some_and(|pending| pending.description.is_some() && pending.number == number && pending.address == address) {
                return Ok(false);
            }
            wait.pending = None;
        }
        let (call, branch, arrival) = (transaction.call, transaction.branches.len(), transaction.arrival);
        let (from_tag, to_tag) = (message.text(message.head.from.tag), message.text(message.head.to.tag));
        let found = match shape.dialog {
            Some(direction) => {
                let adopted = self.with_leg(entry, message, address, shape, |edge, leg| edge.adopt(now, entry, leg));
                let number = message.head.cseq.saturating_add(shape.renumber);
                self.asked_within(adopted.unwrap_or(shape.call), direction, message, &arrival, number)
            }
            None => {
                let place = self.with_leg(entry, message, address, shape, |edge, leg| edge.open_external(leg, call, branch));
                place.map(|place| Asked {
                    call,
                    place,
                    side: Side::Caller,
                    kind: NgKind::Offer,
                    arrival: &arrival,
                    tags: [from_tag, to_tag],
                    number: message.head.cseq,
                })
            }
        };
        let Some(asked) = found else { return Ok(false) };
        let said = match self.for_engine(&arrival, message) {
            Ok(said) => said,
            // Nobody answers an ACK, and without one the call ends.
            Err(fault) if message.head.method == Method::Ack => {
                self.note_unreadable_ack(fault);
                return Ok(false);
            }
            Err(fault) => {
                if shape.dialog.is_none() {
                    self.close_attempt(call, branch);
                }
                return Err(fault);
            }
        };
        let Some(said) = said else { return Ok(false) };
        let deadline = now.moment + self.engine_patience();
        let Some(transaction) = self.transactions.get_mut(entry) else { return Ok(false) };
        transaction.questions = transaction.questions.wrapping_add(1);
        let number = transaction.questions;
        transaction.waiting = Some(Waiting { number, deadline, kind: WaitKind::Media });
        let original = (asked.kind == NgKind::Answer).then(|| said.clone());
        let pending = PendingMedia { number: branch, address, original, bytes: message.bytes.into(), shape: Box::new(*shape), description: None };
        transaction.media.get_or_insert_default().pending = Some(pending);
        self.put_media_question(entry, number, &asked, message, said);
        Ok(true)
    }

    pub(crate) fn note_unreadable_ack(&mut self, fault: MediaFault) {
        self.counters.media_unreadable.add();
        log::debug!(target: "media", "an ACK passes as it is: {fault:?}");
    }

    /// The description as an engine gets it: without what a phone has where it may not. Nothing where there is none.
    #[inline(never)]
    fn for_engine(&mut self, arrival: &Hop, message: &Message<'_>) -> Result<Option<Box<[u8]>>, MediaFault> {
        let Some((part, session)) = description(message)? else { return Ok(None) };
        let source = arrival.address.ip().to_canonical();
        let mut streams = read_streams(message.bytes, &session, source, |ip| self.is_hidden(ip, arrival)).ok_or(MediaFault::Unreadable)?;
        if streams.is_empty() {
            // An engine wants something to relay.
            return Ok(None);
        }
        if !is_for_engines(part.of(message.bytes)) {
            return Err(MediaFault::Unreadable);
        }
        if streams.len() > self.snapshot.settings.media.as_ref().map_or(usize::MAX, |media| media.streams) {
            self.counters.media_refused.add();
            return Err(MediaFault::NoPorts);
        }
        let told = self.snapshot.listener(arrival.listener).media_address;
        let struck = self.strike_forged(message, &mut streams, [told; 2], arrival)?;
        Ok(Some(for_engines(message.bytes, part, &session, &struck, source).into()))
    }

    /// Does something with both ends of an attempt, as far as new sessions are opened at engines.
    fn with_leg<T>(
        &mut self,
        entry: Key,
        message: &Message<'_>,
        address: Address,
        shape: &Shape,
        work: impl FnOnce(&mut Self, &Leg<'_>) -> Option<T>,
    ) -> Option<T> {
        if !self.is_external() {
            return None;
        }
        // Taken out for as long as the edge is needed whole.
        let transaction = self.transactions.get_mut(entry)?;
        let (way, arrival) = (transaction.way.take(), transaction.arrival);
        let done = self.hop_of(way.as_deref(), address, shape).and_then(|hop| {
            let far = self.far_peer(&hop, shape.policy);
            work(self, &Leg { arrival: &arrival, message, from: shape.from_peer, hop: &hop, far, way: way.as_deref() })
        });
        if let Some(transaction) = self.transactions.get_mut(entry) {
            transaction.way = way;
        }
        done
    }

    fn open_external(&mut self, leg: &Leg<'_>, call: Key, number: usize) -> Option<usize> {
        self.close_attempt(call, number);
        let wished = self.calls.get(call).and_then(|call| call.wants_media);
        if !self.engages(leg, wished) {
            return None;
        }
        let (near, near_ip) = self.facing(leg.arrival, leg.message);
        self.open_session(call, number, [near, leg.hop.listener], [near_ip, leg.hop.address.ip().to_canonical()])
    }

    fn asked_within<'a>(&self, call: Key, direction: Direction, message: &'a Message<'a>, arrival: &'a Hop, number: u32) -> Option<Asked<'a>> {
        let head = message.head;
        let tags = [message.text(head.from.tag), message.text(head.to.tag)];
        let place = self.session_of(call, tags[usize::from(direction == Direction::FromCaller)])?;
        let side = side_of(direction);
        let session = self.session(call, place).filter(|session| session.external.is_some())?;
        let answers = matches!(head.method, Method::Ack | Method::Prack) && session.offers.is_open(side.other());
        // Of an answer the tag of who offered comes first.
        let (kind, tags) = if answers { (NgKind::Answer, [tags[1], tags[0]]) } else { (NgKind::Offer, tags) };
        Some(Asked { call, place, side, kind, arrival, tags, number })
    }

    fn put_media_question(&mut self, entry: Key, number: u8, asked: &Asked<'_>, message: &Message<'_>, said: Box<[u8]>) {
        let directions = self.snapshot.settings.media.as_ref().is_some_and(|media| media.engine.directions);
        let Some(session) = self.calls.get_mut(asked.call).and_then(|call| call.media.get_mut(asked.place)) else { return };
        let [from, to] = [asked.side, asked.side.other()].map(|side| session.listeners[side as usize]);
        let mut agreed = false;
        match asked.kind {
            NgKind::Offer => {
                session.offers.open(asked.side, asked.number);
                if message.is_request() && message.head.method == Method::Invite {
                    session.offered = Some((asked.side, asked.number));
                }
            }
            NgKind::Answer => {
                let last = message.is_request() || message.head.status_code >= 200 || is_reliable(message);
                session.offers.answered(asked.side, last);
                agreed = last;
            }
            NgKind::Delete => {}
        }
        let left = session.external.as_mut().filter(|_| agreed).and_then(|external| external.agreed());
        let left = left.and_then(|left| Some((left, delete_command(session)?)));
        let Some(external) = session.external.as_mut() else { return };
        external.asked = true;
        let tag = asked.tags[usize::from(asked.kind == NgKind::Answer)];
        if asked.side == Side::Callee && session.early.is_open() && session.tags.iter().any(|own| **own == *tag) {
            external.note_early(tag, &said);
        }
        let (id, call_id, node) = (session.id, external.call_id.clone(), external.node);
        let hidden = self.hides(message, asked.arrival);
        let networks = [from, to].map(|listener| self.snapshot.listener(listener).network.clone());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let command = NgCommand {
            kind: asked.kind.clone(),
            session: id,
            call_id,
            from_tag: text(asked.tags[0]),
            to_tag: text(asked.tags[1]),
            sdp: said,
            received_from: asked.arrival.address.ip().to_canonical(),
            hidden,
            to_v6: self.snapshot.listener(to).address.is_ipv6(),
            directions: directions.then_some(networks),
        };
        let id = QuestionId { worker: self.options.worker, transaction: entry, number, asker: Asker::Media };
        self.counters.media_questions.add();
        self.out.media_questions.push(MediaQuestion { id, node, command, report: false });
        if let Some((left, ending)) = left {
            self.delete_at(left, ending, false);
        }
    }

    /// The description that an attempt goes out with, where an engine has given one; nothing changes where none was asked.
    pub(crate) fn external_changes(&mut self, entry: Key, message: &Message<'_>) -> Option<Changes> {
        let transaction = self.transactions.get(entry)?;
        let pending = transaction.media.as_ref()?.pending.as_ref().filter(|pending| pending.number == transaction.branches.len())?;
        Some(replaced(message, pending.description.as_ref()?))
    }

    /// Holds a response until an engine has answered; true where it is held, or behind one that is.
    pub(crate) fn hold_for_media(&mut self, now: Now, arrival: &Hop, entry: Key, attempt: usize, message: &Message<'_>) -> bool {
        if self.media.external == 0 || self.media.ready.is_some() {
            return false;
        }
        let Some(transaction) = self.transactions.get(entry) else { return false };
        let (call, dialog) = (transaction.call, transaction.dialog);
        let gone = transaction.media.as_ref().and_then(|wait| wait.gone.iter().find(|gone| *gone.bytes == *message.bytes));
        if let Some(description) = gone.map(|gone| gone.description.clone()) {
            self.media.ready = Some(Some(description));
            self.take_response(now, arrival, entry, attempt, message);
            self.media.ready = None;
            return true;
        }
        let behind = transaction.media.as_ref().is_some_and(|wait| wait.held.iter().any(|held| held.attempt == attempt));
        let asked = match self.asked_by_response(call, attempt, dialog, arrival, message) {
            Some(asked) if !behind => match self.for_engine(arrival, message) {
                Ok(said) if dialog.is_none() && message.head.status_code >= 200 => {
                    let tag = message.text(message.head.to.tag);
                    let again = self.session_mut(asked.call, asked.place).and_then(|session| session.external.as_mut()?.settle(tag));
                    Some(asked).zip(said.or(again))
                }
                Ok(said) => Some(asked).zip(said),
                Err(fault) => {
                    // It is too late to refuse: whoever gets it may still make something of it.
                    self.counters.media_unreadable.add();
                    log::debug!(target: "media", "a response passes as it is: {fault:?}");
                    None
                }
            },
            _ => None,
        };
        if !behind && asked.is_none() {
            return false;
        }
        let deadline = now.moment + self.engine_patience();
        let Some(transaction) = self.transactions.get_mut(entry) else { return false };
        // A final response may never come again.
        if message.head.status_code < 200 && transaction.media.as_ref().is_some_and(|wait| wait.held.len() >= MOST) {
            return true;
        }
        let mut number = 0;
        if !behind && asked.is_some() {
            transaction.questions = transaction.questions.wrapping_add(1).max(1);
            number = transaction.questions;
        }
        let held = HeldMedia { number, attempt, arrival: *arrival, bytes: message.bytes.into(), deadline };
        transaction.media.get_or_insert_default().held.push(held);
        // While it is held, silence must not be taken for what it is not.
        self.note_provisional(now, entry, attempt, message.head.status_code);
        if let Some((asked, said)) = asked.filter(|_| number != 0) {
            self.put_media_question(entry, number, &asked, message, said);
        }
        true
    }

    fn asked_by_response<'a>(&mut self, call: Key, attempt: usize, dialog: Option<Direction>, arrival: &'a Hop, message: &'a Message<'a>) -> Option<Asked<'a>> {
        let head = message.head;
        if !carries_media(head.method) || !(101..300).contains(&head.status_code) {
            return None;
        }
        let tags = [message.text(head.from.tag), message.text(head.to.tag)];
        let place = match dialog {
            Some(direction) => self.session_of(call, tags[usize::from(direction == Direction::FromCaller)]),
            None => {
                let place = self.calls.get(call)?.media.iter().position(|session| session.attempt == attempt);
                self.note_tag(call, place, tags[1]);
                place
            }
        }?;
        let session = self.session_mut(call, place).filter(|session| session.external.is_some())?;
        if dialog.is_none() && head.method == Method::Invite && head.status_code >= 200 {
            if session.early.is_of_another(tags[1]) {
                // An engine would lead the caller's media to whoever answered last, and away from the one that was heard first.
                return None;
            }
            session.early.settle(tags[1]);
        }
        let side = dialog.map_or(Side::Callee, |direction| side_of(direction).other());
        let answers = self.role_of_response(call, place, side, message) == Role::Answer;
        let (kind, tags) = if answers { (NgKind::Answer, tags) } else { (NgKind::Offer, [tags[1], tags[0]]) };
        Some(Asked { call, place, side, kind, arrival, tags, number: head.cseq })
    }

    /// What changes in a response whose description an engine has given.
    pub(crate) fn ready_changes(&mut self, message: &Message<'_>) -> Changes {
        self.media.ready.take().flatten().map(|description| replaced(message, &description)).unwrap_or_default()
    }

    /// Takes what an engine says.
    pub fn handle_media_answer(&mut self, now: Now, answer: MediaAnswer) {
        let entry = answer.id.transaction;
        let node = answer.result.as_ref().ok().map(|(node, _)| *node);
        let call = self.media.calls.get(&answer.session).copied().and_then(|call| self.calls.get_mut(call));
        if let Some(session) = call.and_then(|call| call.media.iter_mut().find(|session| session.id == answer.session && session.external.is_some())) {
            let negotiated = session.offers.negotiated;
            let stale = session.external.as_mut().zip(node).and_then(|(external, node)| external.taken_by(node, negotiated));
            if let Some((stale, ending)) = stale.and_then(|stale| Some((stale, delete_command(session)?))) {
                self.delete_at(stale, ending, false);
            }
        } else if let Some(command) = self.media.unanswered.remove(&answer.session)
            && let Some(node) = node
        {
            // It ended while it was asked about: nobody else will end it there.
            self.delete_at(node, *command, false);
        }
        let Some(transaction) = self.transactions.get_mut(entry) else { return self.counters.late_answers.add() };
        self.in_hand = entry;
        if transaction.waiting.is_some_and(|waiting| waiting.kind == WaitKind::Media && waiting.number == answer.id.number) {
            self.go_on_with_media(now, entry, answer.result);
        } else if transaction.media.as_ref().is_some_and(|wait| wait.held.iter().any(|held| held.number == answer.id.number)) {
            self.release_media(now, entry, answer.id.number, answer.result.ok().map(|(_, description)| description));
        } else {
            return self.counters.late_answers.add();
        }
        self.rearm(entry);
    }

    fn go_on_with_media(&mut self, now: Now, entry: Key, result: Result<(SocketAddr, Box<[u8]>), String>) {
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        transaction.waiting = None;
        let Some(mut pending) = transaction.media.as_mut().and_then(|wait| wait.pending.take()) else { return };
        let started = match result {
            Ok((_, description)) => {
                let (address, shape, bytes) = (pending.address, *pending.shape, std::mem::take(&mut pending.bytes));
                pending.description = Some(description);
                transaction.media.get_or_insert_default().pending = Some(pending);
                self.with_stored(&bytes, |edge, message| edge.start_branch(now, entry, message, address, &shape)).unwrap_or(false)
            }
            Err(why) if pending.original.is_some() => {
                // Whoever offered waits for it, and an ACK that is lost ends the call.
                self.counters.media_questions_failed.add();
                log::debug!(target: "media", "an answer goes on as it came: {why}");
                let (address, shape, bytes) = (pending.address, *pending.shape, std::mem::take(&mut pending.bytes));
                pending.description = pending.original.take();
                transaction.media.get_or_insert_default().pending = Some(pending);
                self.with_stored(&bytes, |edge, message| edge.start_branch(now, entry, message, address, &shape)).unwrap_or(false)
            }
            Err(why) => {
                self.media_failed(now, entry, &why);
                false
            }
        };
        if !started {
            self.with_request(entry, |edge, message| edge.advance(now, entry, message));
        }
        self.conclude(now, entry);
    }

    fn media_failed(&mut self, now: Now, entry: Key, why: &str) {
        self.counters.media_questions_failed.add();
        if self.may_log(now) {
            let name = self.name_of_entry(entry);
            log::warn!(target: "media", call_id = name.call_id.as_str(), trace_id = name.trace_id.as_str(); "no rtpengine takes a call: {why}");
        }
        self.decide_for(entry, |_| format!("rewrite: no rtpengine takes its media: {why}"));
        self.note_failure(entry, 503, None);
    }

    /// Lets a response go on with its description, or as it came, and those behind it.
    fn release_media(&mut self, now: Now, entry: Key, number: u8, description: Option<Box<[u8]>>) {
        let Some(wait) = self.transactions.get_mut(entry).and_then(|transaction| transaction.media.as_mut()) else { return };
        let Some(attempt) = wait.held.iter().find(|held| held.number == number).map(|held| held.attempt) else { return };
        let (mine, others): (Vec<_>, Vec<_>) = std::mem::take(&mut wait.held).into_iter().partition(|held| held.attempt == attempt);
        wait.held = others;
        if description.is_none() {
            self.counters.media_questions_failed.add();
        }
        let mut description = Some(description);
        for held in mine {
            let given = if held.number == number { description.take() } else { None };
            if let (Some(Some(description)), true) = (&given, held.bytes.starts_with(b"SIP/2.0 2"))
                && let Some(wait) = self.transactions.get_mut(entry).and_then(|transaction| transaction.media.as_mut())
                && wait.gone.len() < MOST
            {
                wait.gone.push(GoneMedia { bytes: held.bytes.clone(), description: description.clone() });
            }
            self.media.ready = given;
            self.with_stored(&held.bytes, |edge, message| edge.take_response(now, &held.arrival, entry, held.attempt, message));
            self.media.ready = None;
        }
    }

    /// Responses that waited for too long go on as they came.
    pub(crate) fn release_late_media(&mut self, now: Now, entry: Key) {
        while let Some(wait) = self.transactions.get(entry).and_then(|transaction| transaction.media.as_ref())
            && let Some(number) = wait.held.iter().find(|held| held.number != 0 && now.moment >= held.deadline).map(|held| held.number)
        {
            self.release_media(now, entry, number, None);
        }
    }

    /// An engine did not answer in time.
    pub(crate) fn media_due(&mut self, now: Now, entry: Key) {
        self.go_on_with_media(now, entry, Err("none answered in time".to_owned()));
    }

    /// Ends a session at its engine; true where its `report` will come.
    pub(crate) fn delete_external(&mut self, session: &MediaSession, report: bool) -> bool {
        let Some(command) = delete_command(session) else { return false };
        let Some(external) = session.external.as_deref().filter(|external| external.asked) else { return false };
        if let Some(left) = external.left {
            self.delete_at(left, command.clone(), false);
        }
        match external.node {
            Some(node) => {
                self.delete_at(node, command, report);
                report
            }
            None => {
                // It was asked and has not answered yet.
                self.media.unanswered.insert(session.id, Box::new(command));
                false
            }
        }
    }

    /// An offer came to nothing: what was agreed on before goes on at the engine that has it.
    pub(crate) fn engine_offer_refused(&mut self, call: Key, place: usize) {
        let Some(session) = self.session_mut(call, place) else { return };
        if [Side::Caller, Side::Callee].into_iter().any(|side| session.offers.is_open(side)) {
            return;
        }
        let node = session.external.as_mut().and_then(|external| external.refused());
        if let Some((node, ending)) = node.and_then(|node| Some((node, delete_command(session)?))) {
            self.delete_at(node, ending, false);
        }
    }

    /// A request goes out another way, under the next number: its session and its description go along.
    pub(crate) fn renumber_media(&mut self, entry: Key, attempt: usize) {
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        let (call, next) = (transaction.call, transaction.branches.len());
        if let Some(pending) = transaction.media.as_mut().and_then(|wait| wait.pending.as_mut()).filter(|pending| pending.number == attempt) {
            pending.number = next;
        }
        let opens = transaction.dialog.is_none();
        let session = self.calls.get_mut(call).and_then(|call| call.media.iter_mut().find(|session| session.attempt == attempt));
        if let Some(session) = session.filter(|_| opens) {
            session.attempt = next;
        }
    }

    fn delete_at(&mut self, node: SocketAddr, command: NgCommand, report: bool) {
        let id = QuestionId { worker: self.options.worker, transaction: Key::NONE, number: 0, asker: Asker::Media };
        self.out.media_questions.push(MediaQuestion { id, node: Some(node), command, report });
    }
}

/// What ends a session at an engine.
fn delete_command(session: &MediaSession) -> Option<NgCommand> {
    let external = session.external.as_deref()?;
    Some(NgCommand {
        kind: NgKind::Delete,
        session: session.id,
        call_id: external.call_id.clone(),
        from_tag: external.caller_tag.clone(),
        to_tag: String::new(),
        sdp: Box::default(),
        received_from: session.far[0],
        hidden: false,
        to_v6: false,
        directions: None,
    })
}

/// The message with another description.
fn replaced(message: &Message<'_>, description: &[u8]) -> Changes {
    let Some(part) = session_part(message) else { return Changes::new() };
    std::iter::once((part, description.to_vec())).chain(lengths(message, part, description.len())).collect()
}
