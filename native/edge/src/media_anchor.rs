//! Part of phase *rewrite*: media is led through here. Each description that passes says our address and ports to the side that
//! gets it, and tells the media worker of the side that sent it.

use std::net::{IpAddr, SocketAddr};

use media::{Command, Described, Side};
use proto::{Direction, Key};
use smallvec::SmallVec;
use syntax::{HeaderName, Message, Method, SessionDescription};

use crate::edge::Edge;
use crate::hop::Hop;
use crate::media_session::MediaSession;
use crate::media_settings::Engage;
use crate::media_text::{Changes, Said, changes, description, read_streams, session_part};
use crate::reach::Reach;
use crate::settings::PeerKind;
use crate::transaction::Shape;

/// Why a request cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MediaFault {
    /// Its description cannot be read.
    Unreadable,
    /// There are no ports for it.
    NoPorts,
}

/// What a description is in the exchange of offer and answer (RFC 3264, RFC 6337).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Offer,
    Answer,
    /// An answer that came before: an ACK never offers.
    Again,
}

/// The part of a message in the exchange of offer and answer.
struct Turn<'a> {
    /// Who sent it.
    side: Side,
    /// The callee's tag in its dialog; empty before there is one.
    tag: &'a [u8],
    role: Role,
    /// Whether an answer ends the exchange.
    last: bool,
    /// CSeq of the request as the other side saw it.
    number: u32,
    /// Whether the call was answered before.
    within: bool,
}

/// One attempt of a new call, and where it goes.
pub(crate) struct Leg<'a> {
    pub(crate) arrival: &'a Hop,
    pub(crate) message: &'a Message<'a>,
    pub(crate) from: Option<u16>,
    pub(crate) hop: &'a Hop,
    pub(crate) far: Option<u16>,
    pub(crate) way: Option<&'a Reach>,
}

pub(crate) fn side_of(direction: Direction) -> Side {
    match direction {
        Direction::FromCaller => Side::Caller,
        Direction::FromCallee => Side::Callee,
    }
}

/// Whether both are of one of the blocks that every network may have for itself (RFC 1918, RFC 6598), or both loopback.
fn same_block(a: IpAddr, b: IpAddr) -> bool {
    let block = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => match ip.octets() {
            [10, ..] => 1,
            [172, b, ..] if b & 0xf0 == 16 => 2,
            [192, 168, ..] => 3,
            [100, b, ..] if b & 0xc0 == 64 => 4,
            [127, ..] => 5,
            _ => 0,
        },
        IpAddr::V6(_) => 0,
    };
    block(a) != 0 && block(a) == block(b)
}

/// Whether a provisional response is sent reliably (RFC 3262).
pub(crate) fn is_reliable(message: &Message<'_>) -> bool {
    message.elements(HeaderName::Require).any(|option| message.text(option).eq_ignore_ascii_case(b"100rel"))
}

pub(crate) fn carries_media(method: Method) -> bool {
    matches!(method, Method::Invite | Method::Update | Method::Prack | Method::Ack)
}

impl Edge {
    /// Whether the media of an attempt is to be relayed: as a policy says, then as either peer does, then as it has to be.
    pub(crate) fn engages(&self, leg: &Leg<'_>, wished: Option<bool>) -> bool {
        let Leg { arrival, message, from, hop, far, way } = leg;
        let Some(settings) = self.snapshot.settings.media.as_ref() else { return false };
        if let Some(wished) = wished {
            return wished;
        }
        // What the file says of all is for those of whom it says nothing else.
        let of = |peer: Option<u16>| peer.and_then(|index| self.snapshot.settings.peers[usize::from(index)].media);
        let said = match (of(*from), of(*far)) {
            (None, None) => [settings.engage; 2],
            (Some(one), None) | (None, Some(one)) => [one; 2],
            (Some(one), Some(other)) => [one, other],
        };
        if said.contains(&Engage::Always) {
            return true;
        }
        if said.contains(&Engage::Never) {
            return false;
        }
        let [near, beyond] = [arrival.listener, hop.listener].map(|listener| self.snapshot.listener(listener));
        let crosses = near.network != beyond.network || near.media_address.is_ipv4() != beyond.media_address.is_ipv4();
        let is_phone = |peer: Option<u16>| peer.is_some_and(|index| self.snapshot.settings.peers[usize::from(index)].kind == PeerKind::Subscribers);
        let natted = is_phone(*from) && (self.snapshot.nat_tests.hold(arrival, message) || self.hides(message, arrival));
        crosses || natted || way.is_some_and(|way| way.hop.is_some())
    }

    /// Whether the description of a message names an address that its sender's network hides.
    pub(crate) fn hides(&self, message: &Message<'_>, arrival: &Hop) -> bool {
        let session = session_part(message).and_then(|part| SessionDescription::read(message.bytes, part));
        session.is_some_and(|session| {
            let lines = session.media.iter().filter_map(|media| session.connection_of(media));
            lines.filter_map(|connection| connection.address).any(|ip| self.is_hidden(ip, arrival))
        })
    }

    /// The listener whose address for media faces the sender of an offer, and where that has its media: a phone may signal over
    /// one family of addresses and describe the other one.
    pub(crate) fn facing(&self, arrival: &Hop, message: &Message<'_>) -> (u16, IpAddr) {
        let signalled = arrival.address.ip().to_canonical();
        let own = self.snapshot.listener(arrival.listener);
        let session = session_part(message).and_then(|part| SessionDescription::read(message.bytes, part));
        let said = session.and_then(|session| {
            let open = session.media.iter().filter(|media| media.port != 0);
            open.filter_map(|media| session.connection_of(media)).find_map(|connection| connection.address)
        });
        let Some(said) = said.filter(|ip| ip.is_ipv4() != own.media_address.is_ipv4()) else { return (arrival.listener, signalled) };
        let listeners = self.snapshot.settings.listeners.iter();
        let fits =
            |other: &crate::settings::ListenerSettings| !other.drained && other.network == own.network && other.media_address.is_ipv4() == said.is_ipv4();
        listeners.enumerate().find(|(_, other)| fits(other)).map_or((arrival.listener, signalled), |(index, _)| (index as u16, said))
    }

    /// Whether `ip` is one that several networks have, in another of them than where a phone was seen. Machines know where they
    /// are: the media of a core may well stand elsewhere in its network than its signalling.
    pub(crate) fn is_hidden(&self, ip: IpAddr, arrival: &Hop) -> bool {
        let source = arrival.address.ip().to_canonical();
        // Its address of the other family is not known.
        ip.is_ipv4() == source.is_ipv4()
            && ip != source
            && !ip.is_unspecified()
            && self.snapshot.nat_tests.is_private(ip)
            && !same_block(ip, source)
            && self.is_phone(arrival)
    }

    /// Whether a phone says that it is at ports of ours, which descriptions call `told`: what came there would circle. Or that it is on this
    /// machine, which it is not: what listens here for nobody else would hear from it. One that is seen at such an address shares it with us,
    /// behind a NAT for one, and its ports are its own.
    fn leads_to_us(&mut self, place: SocketAddr, told: [IpAddr; 2], arrival: &Hop) -> bool {
        let (ip, source) = (place.ip().to_canonical(), arrival.address.ip().to_canonical());
        if ip == source {
            return false;
        }
        let is_ours = self.is_own_address(ip);
        // Of an address that others know us by only ports of ours lead here: whoever is behind the same NAT has it as well.
        let is_told = || told.contains(&ip) || self.snapshot.settings.listeners.iter().any(|listener| listener.media_advertise == Some(ip));
        let circles = self.options.media.has(place.port()) && (is_ours || is_told());
        circles || (is_ours || ip.is_loopback()) && !source.is_loopback() && !self.is_own_address(source)
    }

    fn is_own_address(&mut self, ip: IpAddr) -> bool {
        let snapshot = std::sync::Arc::clone(&self.snapshot);
        snapshot.settings.listeners.iter().any(|listener| {
            let bound = [listener.address.ip().to_canonical(), listener.media_address];
            bound.contains(&ip) || bound.iter().any(IpAddr::is_unspecified) && self.options.routes.source_for(ip) == Some(ip)
        })
    }

    /// An attempt of a new call is about to be made: a session for it where its media is relayed, and what changes in it.
    #[inline(never)]
    pub(crate) fn anchor_attempt(&mut self, leg: &Leg<'_>, call: Key, number: usize) -> Result<Changes, MediaFault> {
        let Leg { arrival, message, hop, .. } = leg;
        let wished = self.calls.get(call).and_then(|call| call.wants_media);
        if !self.engages(leg, wished) {
            return Ok(Changes::new());
        }
        // An address of the same transport or of another one after that failed.
        self.close_attempt(call, number);
        if !self.is_external() && !(0..self.options.media.workers()).any(|worker| self.options.media.accepts(worker)) && self.options.media.workers() > 0 {
            self.counters.media_refused.add();
            return Err(MediaFault::NoPorts);
        }
        let (near, near_ip) = self.facing(arrival, message);
        let Some(place) = self.open_session(call, number, [near, hop.listener], [near_ip, hop.address.ip().to_canonical()]) else { return Ok(Changes::new()) };
        if session_part(message).is_none() && self.take_ports(call, place, std::iter::once(0)).is_err() {
            // The offer comes with the answer: then nobody could be told any more that there are none.
            self.counters.media_refused.add();
            self.close_attempt(call, number);
            return Err(MediaFault::NoPorts);
        }
        let turn = Turn { side: Side::Caller, tag: b"", role: Role::Offer, last: false, number: message.head.cseq, within: false };
        let done = self.anchor(call, place, arrival, message, &turn);
        if done.is_err() {
            self.close_attempt(call, number);
        }
        done
    }

    /// A request within a dialog goes on: what changes in it, where its call's media is relayed.
    pub(crate) fn anchor_within(&mut self, arrival: &Hop, message: &Message<'_>, shape: &Shape) -> Result<Changes, MediaFault> {
        let head = message.head;
        let Some(direction) = shape.dialog.filter(|_| !self.media.calls.is_empty() && carries_media(head.method)) else { return Ok(Changes::new()) };
        let tag = message.text(if direction == Direction::FromCaller { head.to.tag } else { head.from.tag });
        let Some(place) = self.session_of(shape.call, tag) else { return Ok(Changes::new()) };
        let side = side_of(direction);
        if let Some(session) = self.session_mut(shape.call, place).filter(|_| head.method == Method::Invite && head.body.is_empty()) {
            // Who asks for an offer has none of its own any more, whatever became of the last one.
            session.offers.give_up(side);
        }
        let session = self.session(shape.call, place);
        if session.is_some_and(|session| session.external.is_some()) {
            return Ok(Changes::new());
        }
        let answers = matches!(head.method, Method::Ack | Method::Prack) && session.is_some_and(|session| session.offers.is_open(side.other()));
        let role = match head.method {
            _ if answers => Role::Answer,
            Method::Ack => Role::Again,
            _ => Role::Offer,
        };
        let turn = Turn { side, tag, role, last: true, number: head.cseq.saturating_add(shape.renumber), within: true };
        self.anchor(shape.call, place, arrival, message, &turn)
    }

    /// A response passes: leads its media through here; true where that says how long the body is from now on.
    #[inline(never)]
    pub(crate) fn edit_media(&mut self, arrival: &Hop, entry: Key, attempt: usize, message: &Message<'_>) -> bool {
        let Some((call, dialog)) = self.transactions.get(entry).map(|transaction| (transaction.call, transaction.dialog)) else { return false };
        let changes = match self.media.ready.is_some() {
            true => self.ready_changes(message),
            false => self.anchor_response(arrival, message, call, attempt, dialog),
        };
        for (place, text) in &changes {
            self.edits.replace(*place, text);
        }
        !changes.is_empty()
    }

    fn anchor_response(&mut self, arrival: &Hop, message: &Message<'_>, call: Key, attempt: usize, dialog: Option<Direction>) -> Changes {
        let head = message.head;
        let none = self.calls.get(call).is_none_or(|call| call.media.is_empty());
        if none || !carries_media(head.method) || !(101..300).contains(&head.status_code) {
            return Changes::new();
        }
        let tag = message.text(if dialog == Some(Direction::FromCallee) { head.from.tag } else { head.to.tag });
        let place = match dialog {
            Some(_) => self.session_of(call, tag),
            None => {
                let place = self.calls.get(call).and_then(|call| call.media.iter().position(|session| session.attempt == attempt));
                self.note_tag(call, place, tag);
                place
            }
        };
        let Some(place) = place.filter(|place| self.session(call, *place).is_some_and(|session| session.external.is_none())) else { return Changes::new() };
        // Who answers is the other side than the one that asked.
        let side = dialog.map_or(Side::Callee, |direction| side_of(direction).other());
        let role = self.role_of_response(call, place, side, message);
        // A reliable provisional answer is as final as that of a 2xx (RFC 3262 section 5).
        let last = head.status_code >= 200 || is_reliable(message);
        let done = self.anchor(call, place, arrival, message, &Turn { side, tag, role, last, number: head.cseq, within: dialog.is_some() });
        if dialog.is_none() && head.method == Method::Invite && head.status_code >= 200 {
            self.settle_early_media(call, place, tag);
        }
        done.unwrap_or_else(|fault| {
            // It is too late to refuse: whoever gets it may still make something of it.
            self.counters.media_unreadable.add();
            log::debug!(target: "media", "a response passes as it is: {fault:?}");
            Changes::new()
        })
    }

    pub(crate) fn role_of_response(&mut self, call: Key, place: usize, side: Side, message: &Message<'_>) -> Role {
        let head = message.head;
        let Some(session) = self.session_mut(call, place) else { return Role::Answer };
        let offered = session.offers.is_open(side.other()) || session.offered == Some((side.other(), head.cseq));
        if head.method != Method::Invite || offered || session.answered == Some((side, head.cseq)) {
            if head.method == Method::Invite && head.status_code >= 200 {
                session.answered = Some((side, head.cseq));
                if head.body.is_empty() {
                    // The answer came before it, in a provisional response.
                    session.offers.close(side.other());
                }
            }
            if head.method == Method::Update && head.status_code >= 200 && head.body.is_empty() {
                // An answer was due in it.
                session.offers.forget(side.other(), head.cseq);
            }
            return Role::Answer;
        }
        Role::Offer
    }

    /// The callee with `tag` answered: what it and the caller said in their dialog holds, whatever came in others since.
    fn settle_early_media(&mut self, call: Key, place: usize, tag: &[u8]) {
        let Some(session) = self.session_mut(call, place) else { return };
        let (worker, commands) = (session.worker, session.early.settle(tag));
        if !commands.is_empty() {
            session.offers.clear();
        }
        self.out.media.extend(commands.into_iter().map(|command| (worker, command)));
    }

    /// The dialog of the callee with `tag` is over: of others that answered too the next one is heard.
    pub(crate) fn media_goes_on(&mut self, call: Key, tag: &[u8]) {
        let Some(place) = self.session_of(call, tag) else { return };
        let Some(session) = self.session_mut(call, place) else { return };
        let (worker, commands) = (session.worker, session.early.move_on(tag));
        self.out.media.extend(commands.into_iter().map(|command| (worker, command)));
    }

    /// A request was refused. What it offered within a dialog does not count (RFC 3261 section 14.1); of an attempt nothing is left.
    pub(crate) fn refused_media(&mut self, entry: Key, attempt: usize, response: &Message<'_>) {
        let Some(transaction) = self.transactions.get(entry).filter(|_| !self.media.calls.is_empty()) else { return };
        match transaction.dialog {
            None if response.head.method == Method::Invite => self.close_attempt(transaction.call, attempt),
            None => {}
            Some(direction) => self.forget_offer(transaction.call, direction, response, response.head.cseq),
        }
    }

    /// A request within a dialog got no answer, or could not be sent: what it offered is forgotten like one that is refused.
    pub(crate) fn unanswered_media(&mut self, entry: Key) {
        let Some(transaction) = self.transactions.get(entry).filter(|_| !self.media.calls.is_empty()) else { return };
        let Some(direction) = transaction.dialog else { return };
        let (call, renumber) = (transaction.call, transaction.shape.as_ref().map_or(0, |shape| shape.renumber));
        self.with_request(entry, |edge, request| edge.forget_offer(call, direction, request, request.head.cseq.saturating_add(renumber)));
    }

    fn forget_offer(&mut self, call: Key, direction: Direction, message: &Message<'_>, number: u32) {
        let head = message.head;
        let tag = message.text(if direction == Direction::FromCaller { head.to.tag } else { head.from.tag });
        let place = if carries_media(head.method) { self.session_of(call, tag) } else { None };
        let adopted = self.calls.get(call).is_some_and(|call| call.adopted);
        let Some(session) = place.and_then(|place| self.session_mut(call, place)) else { return };
        session.offers.forget(side_of(direction), number);
        if adopted && !session.offers.negotiated && session.offers.is_open_by(side_of(direction), number) {
            // Its first offer here came to nothing, and what was agreed on before is with nobody: the next one begins anew.
            let attempt = session.attempt;
            return self.close_attempt(call, attempt);
        }
        if let Some(place) = place {
            self.engine_offer_refused(call, place);
        }
    }

    /// An attempt cannot be made: its caller gets a reason unless another one does better. Always false.
    #[inline(never)]
    pub(crate) fn refuse_media(&mut self, entry: Key, fault: MediaFault) -> bool {
        self.decide_for(entry, |_| format!("rewrite: media cannot be relayed: {fault:?}"));
        if fault == MediaFault::Unreadable {
            self.counters.media_unreadable.add();
            self.note_failure(entry, 400, None);
        }
        false
    }

    pub(crate) fn note_tag(&mut self, call: Key, place: Option<usize>, tag: &[u8]) {
        let most = self.snapshot.settings.limits.dialogs;
        let Some(session) = place.and_then(|place| self.session_mut(call, place)) else { return };
        if !tag.is_empty() && session.tags.len() < most && !session.tags.iter().any(|own| **own == *tag) {
            session.tags.push(tag.into());
        }
    }

    pub(crate) fn session_of(&self, call: Key, callee_tag: &[u8]) -> Option<usize> {
        self.calls.get(call)?.media.iter().position(|session| session.tags.iter().any(|own| **own == *callee_tag))
    }

    pub(crate) fn session(&self, call: Key, place: usize) -> Option<&MediaSession> {
        self.calls.get(call)?.media.get(place)
    }

    pub(crate) fn session_mut(&mut self, call: Key, place: usize) -> Option<&mut MediaSession> {
        self.calls.get_mut(call)?.media.get_mut(place)
    }

    /// Leads the media of one description through here.
    fn anchor(&mut self, call: Key, place: usize, arrival: &Hop, message: &Message<'_>, turn: &Turn<'_>) -> Result<Changes, MediaFault> {
        let Turn { side, role, number, .. } = *turn;
        let Some((part, session)) = description(message)? else { return Ok(Changes::new()) };
        let source = arrival.address.ip().to_canonical();
        let mut streams = read_streams(message.bytes, &session, source, |ip| self.is_hidden(ip, arrival)).ok_or(MediaFault::Unreadable)?;
        let Some((told, worker)) = self.session(call, place).map(|session| (session.told, session.worker)) else { return Ok(Changes::new()) };
        if role == Role::Offer && !self.options.media.accepts(worker) {
            self.counters.media_refused.add();
            return Err(MediaFault::NoPorts);
        }
        self.strike_forged(message, &mut streams, told, arrival)?;
        let is_wanted = |index: usize| session.media.get(index).is_some_and(|media| media.port != 0);
        if self.take_ports(call, place, streams.iter().map(|stream| stream.index).filter(|index| is_wanted(*index))).is_err() {
            self.counters.media_refused.add();
            return Err(MediaFault::NoPorts);
        }
        let Some(held) = self.session(call, place) else { return Ok(Changes::new()) };
        let pair_of = |index: usize| held.streams.iter().find(|stream| usize::from(stream.index) == index);
        let other = side.other() as usize;
        let ports: Vec<_> = streams.iter().filter_map(|said| Some((said.index, pair_of(said.index)?.pairs[other]))).collect();
        let described: SmallVec<[Described; 1]> = streams
            .iter()
            .filter_map(|said| {
                let stream = pair_of(said.index)?;
                let (pairs, index) = (stream.pairs, stream.index);
                Some(Described { index, pairs, expected: said.expected, active: said.active, kind: said.kind, clock_rate: said.clock_rate })
            })
            .collect();
        // The ports of a stream that is refused or removed wait for the end of the call.
        let (id, address, rules) = (held.id, held.told[other], held.rules);
        let offered = (role == Role::Offer && message.is_request() && message.head.method == Method::Invite).then_some((side, number));
        self.exchange(call, place, Command::Describe { session: id, side, signalled: source, rules, streams: described }, turn);
        if let Some(session) = self.session_mut(call, place) {
            session.offered = offered.or(session.offered);
        }
        Ok(changes(message, part, &session, &ports, address))
    }

    /// Takes out of what a phone says the streams that it has where it may not; which those are. Only a request that can still be
    /// refused is.
    #[inline(never)]
    pub(crate) fn strike_forged(
        &mut self,
        message: &Message<'_>,
        streams: &mut [Said],
        told: [IpAddr; 2],
        arrival: &Hop,
    ) -> Result<SmallVec<[usize; 1]>, MediaFault> {
        let mut struck = SmallVec::new();
        if !self.is_phone(arrival) {
            return Ok(struck);
        }
        for said in streams {
            let Some(places) = said.expected.as_mut() else { continue };
            let mut is_forged = |place: SocketAddr| self.leads_to_us(place, told, arrival) || self.is_forged_place(place);
            if !said.names_control && is_forged(places[1]) {
                // Nobody said that its RTCP is there.
                places[1] = places[0];
            }
            if !places.iter().any(|place| is_forged(*place)) {
                continue;
            }
            if message.is_request() && message.head.method != Method::Ack {
                return Err(MediaFault::Unreadable);
            }
            // It is too late to refuse: nothing goes there.
            self.counters.media_unreadable.add();
            (said.expected, said.active) = (None, false);
            struck.push(said.index);
        }
        Ok(struck)
    }

    /// Hands a description to its media worker, in the order of offer and answer.
    fn exchange(&mut self, call: Key, place: usize, command: Command, turn: &Turn<'_>) {
        let Turn { side, tag, role, last, number, within } = *turn;
        if role == Role::Answer && within && !last {
            // An answer of a later exchange that may be followed by its refusal.
            return;
        }
        let most = self.snapshot.settings.limits.dialogs;
        let Some(session) = self.calls.get_mut(call).and_then(|call| call.media.get_mut(place)) else { return };
        if session.early.is_of_another(tag) {
            // Another that was forked behind us has answered before, and is heard.
            return session.early.note(tag, side, &command, most);
        }
        let mut ready: SmallVec<[Command; 2]> = SmallVec::new();
        match role {
            Role::Again => {}
            Role::Offer => ready.extend(session.offers.offered(side, number, command)),
            Role::Answer => {
                ready.extend(session.offers.answered(side, last));
                ready.push(command);
            }
        }
        for command in ready {
            if let Command::Describe { streams, side, .. } = &command {
                session.early.note(tag, *side, &command, most);
                for stream in session.streams.iter_mut().filter(|stream| streams.iter().any(|described| described.index == stream.index)) {
                    stream.described = true;
                }
            }
            self.out.media.push((session.worker, command));
        }
    }
}
