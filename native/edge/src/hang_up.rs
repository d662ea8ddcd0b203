//! Ends a call by command: BYE to both sides of an answered one (RFC 3261 section 15.1), CANCEL and 480 for one that rings.

use std::sync::{Arc, Mutex};

use proto::{Direction, Key, Now};
use smallvec::SmallVec;
use syntax::{HeaderName, Message, Span, list_elements, push_unfolded};

use crate::call::Call;
use crate::call_ping::Numbers;
use crate::edge::Edge;
use crate::gruu::Wanted;
use crate::hop::Hop;
use crate::limit_settings::HeldLimit;
use crate::origin::Origin;
use crate::question::Address;
use crate::reach::Reach;
use crate::route::RouteView;
use crate::target::{Target, TargetSet};
use crate::transaction::{CancelReason, Transaction};

/// Bytes of a Contact or of a route set that are kept; a call with more cannot be ended by command.
const LONGEST: usize = 512;

/// What a request to each side of an answered call needs: caller first, callee second. Kept as it came, since hardly any
/// call is ended by command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ends {
    /// Contact header field values.
    pub(crate) contacts: [Box<[u8]>; 2],
    /// Record-Route header field values.
    routes: [Box<[u8]>; 2],
    /// CSeq numbers of each side.
    pub(crate) numbers: [Numbers; 2],
    /// Whether each side owes the answer to a ping, and how many in a row could not be sent to it.
    pub(crate) pinged: [bool; 2],
    /// Whether a provisional response to that ping has come: then that side is there, whatever it says in the end.
    pub(crate) heard: [bool; 2],
    /// Whether a side has asked with an INVITE or UPDATE that was not answered yet, as far as is known.
    pub(crate) asking: [bool; 2],
    /// Whether that ping is an INVITE.
    pub(crate) reinvited: [bool; 2],
    pub(crate) unsent: [u8; 2],
    /// The description that each side sent last, as the other one got it; kept only where pings offer it again.
    pub(crate) descriptions: [Box<[u8]>; 2],
    /// And the Contact of each side as the other one got it: a re-INVITE must not name another place.
    pub(crate) shown_contacts: [Box<[u8]>; 2],
    /// Where a side was heard from last within the call, if not where it began.
    pub(crate) moved: [Option<Hop>; 2],
    /// The callee's tag in the 2xx that Contact and routes are of.
    pub(crate) callee_tag: Box<[u8]>,
}

pub(crate) fn side(direction: Direction) -> usize {
    match direction {
        Direction::FromCaller => 0,
        Direction::FromCallee => 1,
    }
}

/// The values of a header field with commas between.
fn line(message: &Message<'_>, name: HeaderName) -> Vec<u8> {
    message.all(name).map(|slot| slot.value.of(message.bytes)).collect::<SmallVec<[&[u8]; 4]>>().join(b", ".as_slice())
}

/// The same; `None` where they are too long.
fn values(message: &Message<'_>, name: HeaderName) -> Option<Box<[u8]>> {
    Some(line(message, name)).filter(|line| line.len() <= LONGEST).map(Vec::into_boxed_slice)
}

fn elements(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    list_elements(line, Span::new(0, line.len())).map(|element| element.of(line))
}

/// The first Contact as it came.
pub(crate) fn first_contact(line: &[u8]) -> String {
    let mut unfolded = Vec::new();
    push_unfolded(elements(line).next().unwrap_or_default(), &mut unfolded);
    String::from_utf8_lossy(&unfolded).into_owned()
}

/// The URI of the first Contact.
fn contact_uri(line: &[u8]) -> Option<String> {
    let element = elements(line).next()?;
    let uri = crate::route::element_uri(element, Span::new(0, element.len()))?;
    Some(String::from_utf8_lossy(uri.whole.of(element)).into_owned())
}

impl Ends {
    /// What the INVITE tells of the caller's side.
    pub(crate) fn of_request(request: &Message<'_>) -> Option<Box<Self>> {
        Some(Box::new(Self {
            contacts: [values(request, HeaderName::Contact)?, Box::default()],
            routes: [values(request, HeaderName::RecordRoute)?, Box::default()],
            numbers: [Numbers::opened(request.head.cseq), Numbers::default()],
            pinged: [false; 2],
            heard: [false; 2],
            asking: [false; 2],
            reinvited: [false; 2],
            unsent: [0; 2],
            descriptions: Default::default(),
            shown_contacts: Default::default(),
            moved: [None; 2],
            callee_tag: Box::default(),
        }))
    }

    /// What a request within the dialog of a call tells that a process before began. Where the other side is, and how to get there, its
    /// Request-URI and Route say (RFC 3261 section 12.2.1.1); by which number that side goes nobody knows.
    pub(crate) fn of_adopted(request: &Message<'_>, direction: Direction, is_ours: impl Fn(&[u8]) -> bool) -> Option<Box<Self>> {
        let (own, other) = (side(direction), 1 - side(direction));
        let mut ends = Self::of_request(request)?;
        ends.contacts = Default::default();
        ends.contacts[own] = values(request, HeaderName::Contact)?;
        ends.contacts[other] = [b"<", request.text(request.head.request_uri.whole), b">"].concat().into();
        ends.routes = Default::default();
        // Both lists begin with the proxy that is nearest to us.
        ends.routes[own] = as_noted(elements(&line(request, HeaderName::RecordRoute)).collect(), own)?;
        ends.routes[other] = as_noted(elements(&line(request, HeaderName::Route)).skip_while(|element| is_ours(element)).collect(), other)?;
        ends.numbers = Default::default();
        ends.numbers[own] = Numbers::opened(request.head.cseq);
        ends.asking[own] = true;
        ends.callee_tag = request.text(if direction == Direction::FromCaller { request.head.to.tag } else { request.head.from.tag }).into();
        Some(ends)
    }

    /// Whether a request or response of the dialog of the callee with `tag` tells nothing of them, as another one answered.
    fn are_of_another(&self, tag: &[u8]) -> bool {
        !self.callee_tag.is_empty() && *self.callee_tag != *tag
    }

    /// The number of a last request in the name of a side: the next one, or one that none is above (RFC 3261 section 8.1.1.5).
    fn last_number(&self, direction: Direction, adopted: bool) -> u32 {
        match self.numbers[side(direction)].last {
            0 if adopted => i32::MAX.unsigned_abs(),
            last => last.saturating_add(1),
        }
    }
}

/// Proxies between us and a side, the nearest first, in the order in which that side's Record-Route lists them; `None` where they are
/// too long.
fn as_noted(mut routes: Vec<&[u8]>, side: usize) -> Option<Box<[u8]>> {
    if side == 1 {
        routes.reverse();
    }
    Some(routes.join(b", ".as_slice())).filter(|line| line.len() <= LONGEST).map(Vec::into_boxed_slice)
}

impl Edge {
    /// A 2xx passes: what it tells of the side that sent it.
    pub(crate) fn note_success(&mut self, call: Key, dialog: Option<Direction>, response: &Message<'_>) {
        let Some(call) = self.calls.get_mut(call) else { return };
        let Some(ends) = call.ends.as_mut() else { return };
        let tag = if dialog == Some(Direction::FromCallee) { response.head.from.tag } else { response.head.to.tag };
        if dialog.is_some() && ends.are_of_another(response.text(tag)) {
            return;
        }
        match (dialog, values(response, HeaderName::Contact)) {
            (Some(direction), Some(contact)) if !contact.is_empty() => ends.contacts[1 - side(direction)] = contact,
            (Some(_), _) => {}
            (None, contact) => match (contact, values(response, HeaderName::RecordRoute)) {
                (Some(contact), Some(routes)) => {
                    (ends.contacts[1], ends.routes[1]) = (contact, routes);
                    ends.callee_tag = response.text(response.head.to.tag).into();
                    // Another that rang may have asked for something before.
                    ends.moved[1] = None;
                }
                // Of one side nothing is known, so neither can be told.
                _ => call.ends = None,
            },
        }
    }

    /// A request within a dialog passes: its number, and where its sender is from now on (RFC 3261 section 12.2).
    pub(crate) fn note_within(&mut self, call: Key, direction: Direction, arrival: &Hop, message: &Message<'_>) {
        let Some(call) = self.calls.get_mut(call) else { return };
        let tag = message.text(if direction == Direction::FromCaller { message.head.to.tag } else { message.head.from.tag });
        let began = if direction == Direction::FromCaller { Some(call.arrival) } else { call.callee_of(tag) };
        let Some(ends) = call.ends.as_mut().filter(|ends| !ends.are_of_another(tag)) else { return };
        let side = side(direction);
        ends.moved[side] = began.is_none_or(|hop| hop != *arrival).then_some(*arrival);
        ends.numbers[side].note(message.head.method, message.head.cseq);
        ends.asking[side] |= matches!(message.head.method, syntax::Method::Invite | syntax::Method::Update);
        if matches!(message.head.method, syntax::Method::Invite | syntax::Method::Update)
            && let Some(contact) = values(message, HeaderName::Contact).filter(|contact| !contact.is_empty())
        {
            ends.contacts[side] = contact;
        }
    }

    /// Ends the calls of `call_id`; returns how many that were, and how many of them could not be told.
    pub fn end_calls(&mut self, now: Now, call_id: &[u8]) -> (usize, usize) {
        let named: Vec<Key> = self.calls.keys().into_iter().filter(|key| self.calls.get(*key).is_some_and(|call| call.texts.call_id() == call_id)).collect();
        let untold = named.iter().filter(|key| !self.end_one(now, **key, "Ended by the operator")).count();
        (named.len(), untold)
    }

    /// Ends a call, and says why; false where too little is known of it.
    pub(crate) fn end_one(&mut self, now: Now, key: Key, why: &str) -> bool {
        let is_answered = |edge: &Self| edge.calls.get(key).is_some_and(|call| call.answered.is_some());
        if !is_answered(self) {
            self.release_held(now, key);
        }
        let answered = is_answered(self);
        if !answered {
            self.end_ringing(now, key);
        } else if self.say_bye(now, key, why) {
            self.end_call(now, key, 200, "answered", "proxy");
        } else {
            return false;
        }
        true
    }

    /// Lets responses of a call go on that wait for a policy: whoever was answered already is told of the end by BYE.
    fn release_held(&mut self, now: Now, key: Key) {
        let holds = |transaction: &Transaction| transaction.call == key && !transaction.held.is_empty();
        let entries: Vec<Key> = self.transactions.keys().into_iter().filter(|entry| self.transactions.get(*entry).is_some_and(holds)).collect();
        for entry in entries {
            self.let_held_go(now, entry, 480);
        }
    }

    fn end_ringing(&mut self, now: Now, key: Key) {
        let mine = |transaction: &Transaction| transaction.call == key && transaction.dialog.is_none() && transaction.is_open();
        let entries: Vec<Key> = self.transactions.keys().into_iter().filter(|entry| self.transactions.get(*entry).is_some_and(mine)).collect();
        for entry in entries {
            self.in_hand = entry;
            self.stop_trying(now, entry, 480, &CancelReason::Timeout);
            self.rearm(entry);
        }
    }

    /// Sends BYE to both sides in the name of the other; false where we do not know enough of them.
    fn say_bye(&mut self, now: Now, key: Key, why: &str) -> bool {
        let Some(call) = self.calls.get(key) else { return false };
        let (Some(ends), Some(callee)) = (call.ends.as_deref(), call.callee) else { return false };
        let mut confirmed = call.dialogs.iter().filter(|dialog| dialog.state == proto::DialogState::Confirmed);
        let dialog = confirmed.find(|dialog| !ends.are_of_another(&dialog.callee_tag));
        let Some(tag) = dialog.map(|dialog| dialog.callee_tag.clone()) else { return false };
        let [Some(to_caller), Some(to_callee)] = [Direction::FromCallee, Direction::FromCaller].map(|from| self.bye(call, ends, &tag, from, why)) else {
            return false;
        };
        let requests = [to_caller, to_callee];
        let hops = [ends.moved[0].unwrap_or(call.arrival), ends.moved[1].unwrap_or(callee)];
        let ways = [Direction::FromCallee, Direction::FromCaller].map(|from| self.way_to_side(call, from, hops[1 - side(from)]));
        let places = self.calls.get_mut(key).map(|call| std::mem::take(&mut call.limits)).unwrap_or_default();
        let places = Arc::new(Mutex::new(places));
        for ((request, hop), way) in requests.into_iter().zip(hops).zip(ways) {
            self.send_bye(now, &request, hop, way, &places);
        }
        true
    }

    /// Where a request of ours goes to a side of a call: by `hop`, or where its phone has registered from since.
    pub(crate) fn way_to_side(&self, call: &Call, from: Direction, hop: Hop) -> Target {
        let to = 1 - side(from);
        let user = if to == 1 { call.texts.request_uri() } else { call.texts.uri_of_from() };
        let ends = call.ends.as_deref().filter(|ends| self.routes_beyond_us(&ends.routes[to], to).is_some_and(|routes| routes.is_empty()));
        match ends.and_then(|ends| contact_uri(&ends.contacts[to]).zip(self.served_user(user))) {
            Some((contact, aor)) => Target::Phone(Box::new((Wanted::any(self.account_of(&aor)), Reach::by(contact.as_bytes().into(), hop)))),
            None => Target::Address(Address { transport: hop.transport, address: hop.address }),
        }
    }

    fn send_bye(&mut self, now: Now, request: &[u8], hop: Hop, target: Target, places: &Arc<Mutex<SmallVec<[HeldLimit; 2]>>>) {
        let targets = TargetSet { targets: SmallVec::from_buf([target]), policy: None, plan: None, from: None, loop_hash: None };
        // Its Route stands as it is written: the first of it is where the hop leads.
        let wait = 64 * self.snapshot.timers.t1;
        if !self.send_own(now, Origin::Bye(Arc::clone(places)), request, syntax::Method::Bye, RouteView::default(), targets, Some(hop), wait) {
            log::warn!(target: "account", "a BYE finds no place among the transactions");
        }
    }

    /// The BYE that `direction`'s sender would send.
    fn bye(&self, call: &Call, ends: &Ends, callee_tag: &[u8], direction: Direction, why: &str) -> Option<Vec<u8>> {
        let number = ends.last_number(direction, call.adopted);
        self.within(call, ends, callee_tag, direction, "BYE", number, &format!("Reason: SIP;cause=200;text=\"{why}\"\r\n"), b"")
    }

    /// The request of `method` that `direction`'s sender would send; `None` where the other side's Contact or route set cannot be read.
    #[expect(clippy::too_many_arguments, reason = "one request with all that is written into it")]
    pub(crate) fn within(
        &self,
        call: &Call,
        ends: &Ends,
        callee_tag: &[u8],
        direction: Direction,
        method: &str,
        number: u32,
        lines: &str,
        body: &[u8],
    ) -> Option<Vec<u8>> {
        let (from, to) = (side(direction), 1 - side(direction));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let parties = [(call.texts.uri_of_from(), call.texts.caller_tag()), (call.texts.uri_of_to(), callee_tag)];
        let contact = contact_uri(&ends.contacts[to])?;
        let routes = self.routes_beyond_us(&ends.routes[to], to)?;
        let route = if routes.is_empty() { String::new() } else { format!("Route: {}\r\n", routes.join(", ")) };
        let request = format!(
            "{method} {contact} SIP/2.0\r\nVia: SIP/2.0/UDP origin.invalid;branch=z9hG4bK-origin\r\nMax-Forwards: 71\r\n{route}From: <{}>;tag={}\r\nTo: <{}>;tag={}\r\nCall-ID: {}\r\nCSeq: {number} {method}\r\n{lines}Content-Length: {}\r\n\r\n",
            text(parties[from].0),
            text(parties[from].1),
            text(parties[to].0),
            text(parties[to].1),
            text(call.texts.call_id()),
            body.len(),
        );
        Some([request.as_bytes(), body].concat())
    }

    /// The proxies between us and a side, the nearest first. An INVITE names those on the caller's side in this order; its
    /// 2xx names those on the callee's side the other way round, above our own (RFC 3261 section 12.1).
    fn routes_beyond_us(&self, line: &[u8], side: usize) -> Option<Vec<String>> {
        let mut found = Vec::new();
        for element in elements(line) {
            let uri = crate::route::element_uri(element, Span::new(0, element.len()))?;
            if self.snapshot.own.is_own(element, &uri) {
                break;
            }
            let mut unfolded = Vec::new();
            push_unfolded(element, &mut unfolded);
            found.push(String::from_utf8_lossy(&unfolded).into_owned());
        }
        if side == 1 {
            found.reverse();
        }
        Some(found)
    }
}
