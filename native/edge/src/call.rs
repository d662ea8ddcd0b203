//! A call: one initial INVITE, its response context and all dialogs it forked. It holds one lease until it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use guard::WatchedCall;
use proto::{Dialog, DialogState, Direction, Moment, Now};
use routing::GatewayState;
use smallvec::SmallVec;
use syntax::{Message, Transport};

use crate::gateway_call::GatewayCall;
use crate::hang_up::Ends;
use crate::hop::Hop;
use crate::limit_settings::HeldLimit;
use crate::media_session::MediaSession;
use crate::question::Address;
use crate::variables::Variables;

/// The number of live calls over all workers; it is the number of leases, so it cannot drift.
#[derive(Default)]
pub(crate) struct Leases(AtomicUsize);

/// One place among the calls; given back when dropped.
#[derive(Debug)]
pub(crate) struct Lease(Arc<Leases>);

impl std::fmt::Debug for Leases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Leases({})", self.live())
    }
}

impl Leases {
    pub(crate) fn live(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// A place, unless `limit` are taken: one compare-and-add, so that the limit is exact.
    pub(crate) fn take(self: &Arc<Self>, limit: usize) -> Option<Lease> {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |live| (live < limit).then_some(live + 1)).ok()?;
        Some(Lease(Arc::clone(self)))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One attempt, as the record will tell it.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) to: Address,
    pub(crate) peer: Option<u16>,
    pub(crate) sent: Moment,
    pub(crate) first_answer: Moment,
    pub(crate) ringing: Moment,
    pub(crate) final_answer: Moment,
    pub(crate) status_code: u16,
    /// What rules led it there, if any did.
    pub(crate) led_by: Option<LedBy>,
}

/// The gateway of an attempt, and how it was found.
#[derive(Clone, Debug)]
pub(crate) struct LedBy {
    pub(crate) partition: Arc<str>,
    pub(crate) gateway: Arc<GatewayState>,
    pub(crate) carrier: Option<Arc<GatewayState>>,
    pub(crate) rule: u32,
}

/// Texts of a call.
#[derive(Clone, Debug)]
pub(crate) struct Texts(proto::Texts);

impl Texts {
    fn part(&self, index: usize) -> &[u8] {
        self.0.part(index)
    }

    pub(crate) fn call_id(&self) -> &[u8] {
        self.part(0)
    }
    pub(crate) fn caller_tag(&self) -> &[u8] {
        self.part(1)
    }
    pub(crate) fn uri_of_from(&self) -> &[u8] {
        self.part(2)
    }
    pub(crate) fn uri_of_to(&self) -> &[u8] {
        self.part(3)
    }
    pub(crate) fn request_uri(&self) -> &[u8] {
        self.part(4)
    }
}

/// One call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) lease: Option<Lease>,
    pub(crate) number: u64,
    pub(crate) texts: Texts,
    pub(crate) dialogs: SmallVec<[Dialog; 1]>,
    pub(crate) attempts: SmallVec<[Attempt; 1]>,
    pub(crate) arrival: Hop,
    /// The connection or address that the callee answered from.
    pub(crate) callee: Option<Hop>,
    /// Where the callee of each of `dialogs` answered from, or before that rang.
    hops: SmallVec<[Hop; 1]>,
    pub(crate) from_peer: Option<u16>,
    pub(crate) started: Now,
    pub(crate) answered: Option<Now>,
    /// The Request-URI of the last attempt, where that is not the one received.
    pub(crate) sent_request_uri: Option<Box<[u8]>>,
    /// What a BYE to both sides needs; nothing where that is not known.
    pub(crate) ends: Option<Box<Ends>>,
    /// What policies noted, for the record.
    pub(crate) notes: Vec<(String, String)>,
    /// What their handlers keep for each other, and for the record.
    pub(crate) variables: Option<Box<Variables>>,
    /// The phase that refused it, empty where none did.
    pub(crate) refused_by: &'static str,
    /// Its place at the gateway that answered.
    pub(crate) gateway: Option<Box<GatewayCall>>,
    /// Its media that is relayed here, by attempt.
    pub(crate) media: Vec<MediaSession>,
    /// Whether a policy wants its media relayed.
    pub(crate) wants_media: Option<bool>,
    /// When its session expires unless it is refreshed.
    pub(crate) session_until: Moment,
    /// When its sides are pinged next.
    pub(crate) next_ping: Moment,
    /// By how many seconds its caller is to refresh it, where it knows how.
    pub(crate) session_interval: Option<u32>,
    /// What it is watched for.
    pub(crate) watched: Option<Box<WatchedCall>>,
    /// Whether it asks for help.
    pub(crate) emergency: bool,
    /// Its places in limits.
    pub(crate) limits: SmallVec<[HeldLimit; 2]>,
    /// Whether a process before began it, which nobody can tell the whole of.
    pub(crate) adopted: bool,
}

/// Notes of one call, at most; and bytes of each.
const NOTES: usize = 32;
const NOTE_BYTES: usize = 256;

impl Call {
    pub(crate) fn new(message: &Message<'_>, arrival: &Hop, from_peer: Option<u16>, now: Now, number: u64, lease: Option<Lease>) -> Self {
        let head = message.head;
        let texts = Texts(proto::Texts::new([
            message.call_id(),
            message.text(head.from.tag),
            message.text(head.from.uri),
            message.text(head.to.uri),
            message.text(head.request_uri.whole),
        ]));
        Self {
            lease,
            number,
            texts,
            dialogs: SmallVec::new(),
            attempts: SmallVec::new(),
            arrival: *arrival,
            callee: None,
            hops: SmallVec::new(),
            from_peer,
            started: now,
            answered: None,
            sent_request_uri: None,
            ends: None,
            notes: Vec::new(),
            variables: None,
            refused_by: "",
            gateway: None,
            media: Vec::new(),
            wants_media: None,
            session_until: Moment::NEVER,
            next_ping: Moment::NEVER,
            session_interval: None,
            watched: None,
            emergency: false,
            limits: SmallVec::new(),
            adopted: false,
        }
    }

    /// One that a process before began, as a request within its dialog tells of it.
    pub(crate) fn adopted(message: &Message<'_>, direction: Direction, caller: &Hop, from_peer: Option<u16>, now: Now, number: u64, lease: Lease) -> Self {
        let (mut caller_tag, mut from, mut to) = (message.head.from.tag, message.head.from.uri, message.head.to.uri);
        if direction == Direction::FromCallee {
            caller_tag = message.head.to.tag;
            std::mem::swap(&mut from, &mut to);
        }
        let texts = Texts(proto::Texts::new([message.call_id(), message.text(caller_tag), message.text(from), message.text(to), message.text(to)]));
        let new = Self::new(message, caller, from_peer, now, number, Some(lease));
        Self { texts, answered: Some(now), adopted: true, ..new }
    }

    /// Adds notes of a policy; a later one of the same name replaces an earlier one.
    pub(crate) fn note(&mut self, notes: &[(String, String)]) {
        let cut = |text: &String| text.chars().take(NOTE_BYTES).collect::<String>();
        for (name, value) in notes {
            let room = self.notes.len() < NOTES;
            match self.notes.iter_mut().find(|(have, _)| have == name) {
                Some(have) => have.1 = cut(value),
                None if room => self.notes.push((cut(name), cut(value))),
                None => {}
            }
        }
    }

    /// Notes a dialog by its callee's tag; a state never goes back. False where there are `most` already.
    pub(crate) fn note_dialog(&mut self, callee_tag: &[u8], state: DialogState, arrival: &Hop, most: usize) -> bool {
        let full = self.dialogs.len() >= most;
        match self.dialogs.iter_mut().zip(&mut self.hops).find(|(dialog, _)| *dialog.callee_tag == *callee_tag) {
            Some((dialog, hop)) if dialog.state == DialogState::Early && state != DialogState::Early => {
                dialog.state = state;
                *hop = *arrival;
            }
            Some(_) => {}
            None if full => return false,
            None => {
                self.hops.push(*arrival);
                self.dialogs.push(Dialog { callee_tag: callee_tag.into(), state });
            }
        }
        true
    }

    /// Where the callee of a dialog is: where it answered from, or before that where it rang. Several may answer one INVITE (RFC 3261
    /// section 13.2.2.4).
    pub(crate) fn callee_of(&self, callee_tag: &[u8]) -> Option<Hop> {
        let mut known = self.dialogs.iter().zip(&self.hops);
        known.find(|(dialog, _)| *dialog.callee_tag == *callee_tag).map(|(_, hop)| *hop).or(self.callee)
    }

    /// Whether a dialog with this callee's tag is known and not over.
    pub(crate) fn has_dialog(&self, callee_tag: &[u8]) -> bool {
        self.dialogs.iter().any(|d| *d.callee_tag == *callee_tag && d.state != DialogState::Terminated)
    }

    /// Ends a dialog; true where it was the last confirmed one.
    pub(crate) fn end_dialog(&mut self, callee_tag: &[u8]) -> bool {
        if let Some(dialog) = self.dialogs.iter_mut().find(|d| *d.callee_tag == *callee_tag) {
            dialog.state = DialogState::Terminated;
        }
        self.answered.is_some() && !self.dialogs.iter().any(|d| d.state == DialogState::Confirmed)
    }

    /// Writes the call in the versioned form that another process can read.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![CALL_ENCODING_VERSION];
        let mut put = |bytes: &[u8]| {
            out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
            out.extend_from_slice(bytes);
        };
        for index in 0..5 {
            put(self.texts.part(index));
        }
        put(&self.started.wall.to_be_bytes());
        put(&self.answered.map_or(0, |now| now.wall).to_be_bytes());
        put(self.arrival.address.to_string().as_bytes());
        put(self.arrival.transport.as_str().as_bytes());
        for dialog in &self.dialogs {
            put(&[dialog.state as u8]);
            put(&dialog.callee_tag);
        }
        out
    }
}

/// A live call as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct CallView {
    /// Call-ID.
    pub call_id: String,
    /// URI of From.
    pub from_uri: String,
    /// Request-URI as received.
    pub request_uri: String,
    /// The peer that called.
    pub from_peer: String,
    /// The peer of the last attempt.
    pub to_peer: String,
    /// Transport and address that the INVITE came from.
    pub source: String,
    /// `calling`, `early` or `confirmed`.
    pub state: &'static str,
    /// When the INVITE came, microseconds since 1970.
    pub started_at: u64,
    /// When it was answered, 0 while it is not.
    pub answered_at: u64,
    /// Attempts so far.
    pub attempts: usize,
    /// Dialogs so far.
    pub dialogs: usize,
    /// The W3C trace id.
    pub trace_id: String,
    /// Limits that count it, each as `limit=key`.
    pub limits: Vec<String>,
}

const CALL_ENCODING_VERSION: u8 = 1;

/// A call as its encoding tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallSummary {
    /// Call-ID.
    pub call_id: Vec<u8>,
    /// Caller's tag.
    pub caller_tag: Vec<u8>,
    /// URI of From.
    pub from_uri: Vec<u8>,
    /// URI of To.
    pub to_uri: Vec<u8>,
    /// Request-URI as received.
    pub request_uri: Vec<u8>,
    /// When the INVITE came, microseconds since 1970.
    pub started_wall: u64,
    /// When it was answered, 0 while it is not.
    pub answered_wall: u64,
    /// Where the INVITE came from.
    pub source: SocketAddr,
    /// And by which transport.
    pub transport: Transport,
    /// State (0 early, 1 confirmed, 2 terminated) and callee's tag of each dialog.
    pub dialogs: Vec<(u8, Vec<u8>)>,
}

/// Reads what a process of this or an earlier version wrote; `None` for anything else.
pub fn decode_call(bytes: &[u8]) -> Option<CallSummary> {
    let (version, mut rest) = bytes.split_first()?;
    if *version != CALL_ENCODING_VERSION {
        return None;
    }
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (length, tail) = rest.split_first_chunk::<2>()?;
        let (part, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        parts.push(part);
        rest = tail;
    }
    let number = |part: &[u8]| <[u8; 8]>::try_from(part).ok().map(u64::from_be_bytes);
    let [call_id, caller_tag, from_uri, to_uri, request_uri, started, answered, source, transport, dialogs @ ..] = parts.as_slice() else { return None };
    let dialog = |pair: &[&[u8]]| match pair {
        [[state], tag] => Some((*state, tag.to_vec())),
        _ => None,
    };
    Some(CallSummary {
        call_id: call_id.to_vec(),
        caller_tag: caller_tag.to_vec(),
        from_uri: from_uri.to_vec(),
        to_uri: to_uri.to_vec(),
        request_uri: request_uri.to_vec(),
        started_wall: number(started)?,
        answered_wall: number(answered)?,
        source: std::str::from_utf8(source).ok()?.parse().ok()?,
        transport: Transport::from_bytes(transport)?,
        dialogs: dialogs.chunks(2).map(dialog).collect::<Option<_>>()?,
    })
}
