//! Pings within calls: OPTIONS, or a re-INVITE that offers what was agreed before, to each side in the name of the other. They tell phones
//! that are gone without a word. What we send takes a number of the side in whose name it is, so that side's later requests are
//! renumbered, and their responses back (RFC 3261 section 12.2.1.1 wants numbers to rise).

use proto::{DialogState, Direction, Key, Moment, Now, seconds};
use serde::Deserialize;
use smallvec::SmallVec;
use syntax::{HeaderName, Message, Method, Span};

use crate::cancel::derive;
use crate::edge::Edge;
use crate::hang_up::{first_contact, side};
use crate::origin::Origin;
use crate::route::RouteView;
use crate::target::TargetSet;
use crate::transaction::{Server, Shape};

/// How calls are pinged.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallPingSettings {
    /// Whether pings are re-INVITEs, where what was agreed is known.
    pub reinvite: bool,
    /// Seconds from a ping to the next.
    pub interval_seconds: u64,
    /// Whether callers are.
    pub caller: bool,
    /// Whether callees are.
    pub callee: bool,
}

/// Pings in a row that cannot be sent end a call.
const UNSENT: u8 = 3;
/// Bytes of a description that is kept.
const DESCRIPTION: usize = 4_096;

/// Numbers of one direction of a dialog.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Numbers {
    /// The last one that the far side saw.
    pub(crate) last: u32,
    /// By how much requests are renumbered at present.
    ahead: u32,
    /// The last INVITE as its sender numbered it, and by how much it was renumbered: its ACK and PRACKs go by that.
    invite: (u32, u32),
    /// The same of the last REFER, by whose number NOTIFYs name it (RFC 3515 section 2.4.6).
    refer: (u32, u32),
}

impl Numbers {
    /// Those of a side whose INVITE opened the call.
    pub(crate) fn opened(cseq: u32) -> Self {
        Self { last: cseq, ahead: 0, invite: (cseq, 0), refer: (0, 0) }
    }

    /// By how much a request that is numbered `cseq` is renumbered.
    fn shift(&self, method: Method, cseq: u32) -> u32 {
        if method == Method::Ack && self.invite.0 == cseq { self.invite.1 } else { self.ahead }
    }

    /// Its sender numbered a request `cseq`.
    pub(crate) fn note(&mut self, method: Method, cseq: u32) {
        self.last = self.last.max(cseq.saturating_add(self.ahead));
        if method == Method::Invite {
            self.invite = (cseq, self.ahead);
        }
        if method == Method::Refer {
            self.refer = (cseq, self.ahead);
        }
    }

    /// A request of ours in its name takes the next number.
    fn take(&mut self) {
        self.last = self.last.saturating_add(1);
        self.ahead = self.ahead.saturating_add(1);
    }
}

/// Where the number of CSeq stands.
fn number_of(message: &Message<'_>) -> Option<Span> {
    let value = message.first(HeaderName::CSeq)?.value;
    let digits = message.text(value).iter().take_while(|byte| byte.is_ascii_digit()).count();
    (digits > 0).then(|| Span::new(value.start(), value.start() + digits))
}

impl Edge {
    /// By how much a request within a dialog is renumbered.
    pub(crate) fn shift_of(&self, call: Key, direction: Direction, message: &Message<'_>) -> u32 {
        let ends = self.calls.get(call).and_then(|call| call.ends.as_deref());
        ends.map_or(0, |ends| ends.numbers[side(direction)].shift(message.head.method, message.head.cseq))
    }

    /// Renumbers a request that goes on.
    pub(crate) fn edit_numbers(&mut self, message: &Message<'_>, shape: &Shape) {
        if shape.renumber > 0
            && let Some(number) = number_of(message)
        {
            self.edits.replace(number, message.head.cseq.saturating_add(shape.renumber).to_string().as_bytes());
        }
        let Some(direction) = shape.dialog else { return };
        if message.head.method == Method::Notify {
            return self.edit_refer_number(message, shape.call, direction);
        }
        if message.head.method != Method::Prack {
            return;
        }
        let invite = self.calls.get(shape.call).and_then(|call| call.ends.as_deref()).map(|ends| ends.numbers[side(direction)].invite);
        let (Some((number, ahead @ 1..)), Some(slot)) = (invite, message.named(b"RAck").next()) else { return };
        let value = String::from_utf8_lossy(message.text(slot.value)).into_owned();
        let mut words = value.split_ascii_whitespace();
        if let (Some(sequence), Some(Ok(cseq)), Some(method)) = (words.next(), words.next().map(str::parse::<u32>), words.next())
            && cseq == number
        {
            self.edits.replace(slot.value, format!("{sequence} {} {method}", cseq.saturating_add(ahead)).as_bytes());
        }
    }

    /// Names a REFER in a NOTIFY about it as its sender numbered it.
    fn edit_refer_number(&mut self, message: &Message<'_>, call: Key, direction: Direction) {
        let refer = self.calls.get(call).and_then(|call| call.ends.as_deref()).map(|ends| ends.numbers[1 - side(direction)].refer);
        let (Some((number, ahead @ 1..)), Some(slot)) = (refer, [b"Event".as_slice(), b"o"].into_iter().find_map(|name| message.named(name).next())) else {
            return;
        };
        let value = message.text(slot.value);
        let Some(at) = value.windows(4).position(|part| part.eq_ignore_ascii_case(b";id=")).map(|at| at + 4) else { return };
        let digits = value[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if value[at..at + digits] == *number.saturating_add(ahead).to_string().as_bytes() {
            let start = slot.value.start() + at;
            self.edits.replace(Span::new(start, start + digits), number.to_string().as_bytes());
        }
    }

    /// Numbers a response as its request was.
    pub(crate) fn edit_number_back(&mut self, renumbered: u32, message: &Message<'_>) {
        if renumbered > 0
            && let Some(number) = number_of(message)
        {
            self.edits.replace(number, message.head.cseq.saturating_sub(renumbered).to_string().as_bytes());
        }
    }

    /// The first 2xx to an INVITE or UPDATE passes, as `scratch` says: what both sides have agreed on, and where they are, as the other one
    /// got it. `sent` is the request as it went out.
    pub(crate) fn note_descriptions(&mut self, call: Key, direction: Direction, sent: &[u8]) {
        if !self.snapshot.settings.call_ping.is_some_and(|settings| settings.reinvite) {
            return;
        }
        let told = |_: &mut Self, message: &Message<'_>| {
            let contact = message.first(HeaderName::Contact).map_or(&[][..], |slot| slot.value.of(message.bytes));
            (first_contact(contact).into_bytes().into_boxed_slice(), Box::<[u8]>::from(message.body()))
        };
        let answer = std::mem::take(&mut self.scratch);
        let (offered, answered) = (self.with_stored(sent, told), self.with_stored(&answer, told));
        self.scratch = answer;
        let (Some(offered), Some(answered)) = (offered, answered) else { return };
        let Some(ends) = self.calls.get_mut(call).and_then(|call| call.ends.as_deref_mut()) else { return };
        let (from, to) = (side(direction), 1 - side(direction));
        ends.asking[from] = false;
        let describes = |body: &[u8]| body.starts_with(b"v=") && body.len() <= DESCRIPTION;
        // An offer in the 2xx is answered where nobody looks: what the side that asked has then is not known.
        let delayed = offered.1.is_empty() && !answered.1.is_empty();
        for (side, (contact, body)) in [(from, offered), (to, answered)] {
            if !contact.is_empty() {
                ends.shown_contacts[side] = contact;
            }
            if !body.is_empty() {
                ends.descriptions[side] = if describes(&body) { body } else { Box::default() };
            }
        }
        if delayed {
            ends.descriptions[from] = Box::default();
        }
    }

    /// A ping by re-INVITE was answered: its ACK is ours to send, again whenever the answer comes again (RFC 3261 section 13.2.2.4).
    pub(crate) fn acknowledge_ping(&mut self, now: Now, entry: Key, attempt: usize, message: &Message<'_>) {
        let Some(branch) = self.transactions.get_mut(entry).and_then(|t| t.branches.get_mut(attempt)) else { return };
        let (sent, hop) = (std::mem::take(&mut branch.sent), branch.hop);
        let to = message.first(HeaderName::To).map_or(&[][..], |slot| slot.value.of(message.bytes));
        let mut ack = Vec::with_capacity(512);
        self.with_stored(&sent, |_, request| {
            let via = request.head.via.branch;
            derive(request, "ACK", to, None, &mut ack);
            // It is a transaction of its own.
            let old = request.text(via).to_vec();
            if let Some(at) = ack.windows(old.len()).position(|part| part == old) {
                ack.splice(at + old.len()..at + old.len(), *b"a");
            }
        });
        if !ack.is_empty() {
            self.out.send(hop, &ack);
        }
        if let Some(branch) = self.transactions.get_mut(entry).and_then(|t| t.branches.get_mut(attempt)) {
            branch.sent = sent;
        }
        self.answer_origin(now, entry, message.head.status_code, message.bytes);
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        transaction.request = None;
        transaction.shape = None;
        transaction.origin = Some(Box::new(Origin::Told));
        if let Server::NonInvite(server) = &mut transaction.server {
            server.handle_silence();
        }
        (transaction.trying_at, transaction.give_up_at) = (Moment::NEVER, Moment::NEVER);
    }

    /// Whether the request of `entry` is such a ping.
    pub(crate) fn pings_call(&self, entry: Key) -> bool {
        self.transactions.get(entry).is_some_and(|transaction| matches!(transaction.origin.as_deref(), Some(Origin::CallPing { .. })))
    }

    /// A provisional response to a ping: that side is there, whatever it says in the end.
    pub(crate) fn ping_heard(&mut self, entry: Key, message: &Message<'_>) {
        let origin = self.transactions.get(entry).and_then(|transaction| transaction.origin.as_deref());
        if let Some(Origin::CallPing { call, to_caller }) = origin
            && message.head.status_code > 100
            && let Some(ends) = self.calls.get_mut(*call).and_then(|call| call.ends.as_deref_mut())
        {
            // Until its end no other INVITE may follow (RFC 3261 section 14.1).
            ends.heard[usize::from(!*to_caller)] = true;
        }
    }

    /// When a call is pinged next, if calls are.
    pub(crate) fn next_ping(&mut self, now: Now) -> Moment {
        let Some(settings) = self.snapshot.settings.call_ping else { return Moment::NEVER };
        // Calls that began at once, such as after a break, are spread over the last quarter.
        let whole = seconds(settings.interval_seconds);
        now.moment + (whole - self.random() % (whole / 4).max(1))
    }

    /// Pings the sides of a call that do not owe an answer.
    pub(crate) fn ping_call(&mut self, now: Now, key: Key) {
        let next = self.next_ping(now);
        let settings = self.snapshot.settings.call_ping;
        let Some(call) = self.calls.get_mut(key) else { return };
        call.next_ping = next;
        let Some(settings) = settings else { return };
        let timed = call.session_until != Moment::NEVER;
        let Some(tag) = call.ends.as_deref().map(|ends| ends.callee_tag.clone()) else { return };
        // Of several that answered it may be another one that is left.
        let lives = call.dialogs.iter().any(|dialog| dialog.state == DialogState::Confirmed && dialog.callee_tag == tag);
        let Some(callee) = call.callee.filter(|_| lives) else { return };
        // To the caller in the callee's name, and the other way round.
        for (from, hop, wanted) in [(Direction::FromCallee, call.arrival, settings.caller), (Direction::FromCaller, callee, settings.callee)] {
            let Some(call) = self.calls.get_mut(key) else { return };
            let Some(ends) = call.ends.as_deref_mut() else { return };
            if !wanted || ends.pinged[1 - side(from)] {
                continue;
            }
            // Phones move; what is heard of one within its call says where it is.
            let hop = ends.moved[1 - side(from)].unwrap_or(hop);
            let number = ends.numbers[side(from)].last.saturating_add(1);
            let Some(call) = self.calls.get(key) else { return };
            let Some(ends) = call.ends.as_deref() else { return };
            let (description, contact) = (&ends.descriptions[side(from)], &ends.shown_contacts[side(from)]);
            // A re-INVITE without a session timer would switch one off that there is (RFC 4028 section 7.4), and none may be sent while
            // another is under way (RFC 3261 section 14.1).
            let asks = ends.asking.contains(&true);
            let made = if settings.reinvite && !timed && !asks && !description.is_empty() && !contact.is_empty() {
                let lines = format!("Contact: {}\r\nContent-Type: application/sdp\r\n", String::from_utf8_lossy(contact));
                self.within(call, ends, &tag, from, "INVITE", number, &lines, description).map(|request| (Method::Invite, request))
            } else {
                self.within(call, ends, &tag, from, "OPTIONS", number, "Accept: application/sdp\r\n", b"").map(|request| (Method::Options, request))
            };
            let Some((method, request)) = made else { continue };
            if let Some(ends) = self.calls.get_mut(key).and_then(|call| call.ends.as_deref_mut()) {
                ends.numbers[side(from)].take();
                ends.pinged[1 - side(from)] = true;
                ends.reinvited[1 - side(from)] = method == Method::Invite;
            }
            let Some(target) = self.calls.get(key).map(|call| self.way_to_side(call, from, hop)) else { return };
            let targets = TargetSet { targets: SmallVec::from_buf([target]), policy: None, plan: None, from: None, loop_hash: None };
            let origin = Origin::CallPing { call: key, to_caller: from == Direction::FromCallee };
            self.counters.call_pings_sent.add();
            let wait = 64 * self.snapshot.timers.t1;
            if !self.send_own(now, origin, &request, method, RouteView::default(), targets, Some(hop), wait) {
                self.call_pinged(now, key, from == Direction::FromCallee, 200, true);
            }
        }
    }

    /// Whether a ping by re-INVITE in the name of the side that sends `direction` waits for its answer: another INVITE must wait for that
    /// (RFC 3261 section 14.1), and its receiver would refuse it with 500.
    pub(crate) fn is_reinviting(&self, call: Option<Key>, direction: Direction) -> bool {
        let ends = call.and_then(|key| self.calls.get(key)).and_then(|call| call.ends.as_deref());
        ends.is_some_and(|ends| ends.reinvited[1 - side(direction)])
    }

    /// A ping was answered, or not (`heard`): a side that is not there any more, or knows nothing of the call, ends it. One that cannot
    /// be reached for a moment may be about to connect anew.
    pub(crate) fn call_pinged(&mut self, now: Now, key: Key, to_caller: bool, status_code: u16, heard: bool) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let Some(ends) = call.ends.as_deref_mut() else { return };
        let side = usize::from(!to_caller);
        (ends.pinged[side], ends.reinvited[side]) = (false, false);
        let sent = heard || status_code == 408;
        ends.unsent[side] = if sent { 0 } else { ends.unsent[side].saturating_add(1) };
        if std::mem::take(&mut ends.heard[side]) && status_code == 408 {
            return;
        }
        if !matches!(status_code, 408 | 481) && ends.unsent[side] < UNSENT {
            return;
        }
        self.counters.call_pings_failed.add();
        let call_id = call.texts.call_id().to_vec();
        let name = if to_caller { "caller" } else { "callee" };
        self.decide(&call_id, |_| format!("account: the {name} is gone, a ping came to {status_code}"));
        self.end_or_forget(now, key, "Ping timed out");
    }
}
