//! What crosses to a policy and what comes back, as bytes. Version 1; both ends are of one build.

use std::net::IpAddr;

use proto::Key;
use serde::Deserialize;

/// Bytes in front of the texts of a [`PolicyQuestion`].
const HEAD: usize = 64;
/// Bytes of a token.
pub const TOKEN: usize = 12;

/// What a policy is asked or told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PolicyEvent {
    /// A request that opens something: where should it go?
    Request = 1,
    /// Every attempt that the policy asked for has failed: what next?
    Failed = 2,
    /// It is over, with this status code: nothing can be decided any more.
    Ended = 3,
    /// A call is over; its record follows.
    Final = 4,
    /// A request within a dialog: may it go on?
    InDialog = 5,
    /// Every attempt has failed, and the caller is about to be told so: is there another way?
    Failure = 6,
    /// One attempt is about to be made: how, and at all?
    Branch = 7,
    /// A response is about to be passed on; it follows.
    Response = 8,
    /// A request that a policy sent was answered, or not; the response follows.
    Answer = 9,
    /// A rule that names a handler was chosen for a request: may it be used, and how?
    Rule = 10,
}

impl PolicyEvent {
    /// What it is asked about, for the log.
    pub(crate) fn subject(self) -> &'static str {
        match self {
            Self::Branch => "an attempt",
            Self::Failed | Self::Failure => "what comes after failed attempts",
            Self::Response | Self::Answer => "a response",
            Self::Rule => "a rule",
            Self::Request | Self::InDialog | Self::Ended | Self::Final => "the request",
        }
    }

    /// Whether somebody waits for a verdict.
    pub fn decides(event: u8) -> bool {
        [Self::Request, Self::Failed, Self::InDialog, Self::Failure, Self::Branch, Self::Response, Self::Rule].into_iter().any(|known| known as u8 == event)
    }

    /// Whether it is asked about a part of a request, and stands for itself: a handler of the whole request may run beside it.
    pub fn stands_alone(event: u8) -> bool {
        [Self::Branch, Self::Response, Self::Rule].into_iter().any(|known| known as u8 == event)
    }

    /// By what name the end of a question about a part says which part that was.
    pub(crate) fn part(self) -> Option<&'static str> {
        match self {
            Self::Branch => Some("branch"),
            Self::Rule => Some("route"),
            Self::Response => Some("response"),
            _ => None,
        }
    }

    /// The part that a name is of.
    pub fn of_part(name: &str) -> Option<Self> {
        [Self::Branch, Self::Rule, Self::Response].into_iter().find(|event| event.part() == Some(name))
    }

    /// Whether a request comes with it, so that a handler of its own begins.
    pub fn brings_request(event: u8) -> bool {
        [Self::Request, Self::InDialog, Self::Failure, Self::Branch, Self::Rule].into_iter().any(|known| known as u8 == event)
    }
}

/// One message to a policy process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyQuestion {
    /// The link to the process.
    pub link: u32,
    /// The question's encoding.
    pub bytes: Vec<u8>,
    /// The token to answer with where the question cannot be delivered.
    pub token: PolicyToken,
}

/// Names a question; a verdict that comes late fits none any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyToken {
    /// The worker that asked.
    pub worker: u8,
    /// Which question of its transaction.
    pub number: u8,
    /// What the key names.
    pub names: Named,
    /// The transaction, or what else `names` says.
    pub transaction: Key,
}

/// What the key of a token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Named {
    /// The transaction that a question was about.
    Transaction = 0,
    /// No question of ours: the policy sends a request of its own, and the key is its name for that.
    Origin = 1,
    /// A call that was answered, whose handler goes on.
    Call = 2,
}

impl PolicyToken {
    /// Writes the token in front of `out`'s end.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.worker, self.number, self.names as u8, 0]);
        out.extend_from_slice(&self.transaction.slot.to_le_bytes());
        out.extend_from_slice(&self.transaction.generation.to_le_bytes());
    }

    /// Reads a token and returns what follows it.
    pub fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (token, rest) = bytes.split_first_chunk::<TOKEN>()?;
        let [worker, number, names, _, s0, s1, s2, s3, g0, g1, g2, g3] = *token;
        let transaction = Key { slot: u32::from_le_bytes([s0, s1, s2, s3]), generation: u32::from_le_bytes([g0, g1, g2, g3]) };
        let names = [Named::Transaction, Named::Origin, Named::Call].into_iter().find(|known| *known as u8 == names)?;
        Some((Self { worker, number, names, transaction }, rest))
    }
}

/// What a question says, in the order of its encoding.
#[derive(Clone, Copy, Debug)]
pub struct QuestionView<'a> {
    /// What is asked.
    pub event: u8,
    /// The status code of what failed or ended, 0 for a request.
    pub status_code: u16,
    /// The token.
    pub token: &'a [u8],
    /// How long an answer may take, in microseconds.
    pub deadline: u32,
    /// Where the request came from.
    pub source: (IpAddr, u16),
    /// The W3C trace id.
    pub trace: [u8; 16],
    /// The transport's name.
    pub transport: &'a str,
    /// The listener's name.
    pub listener: &'a str,
    /// The peer's name.
    pub peer: &'a str,
    /// Where an attempt goes, or a response came from.
    pub target: &'a str,
    /// The account that the request proved to be of, with its attributes, parted by 0x1f.
    pub account: &'a str,
    /// The variables of its call as a JSON object; empty where there are none.
    pub variables: &'a str,
    /// The request, the response of what failed, or the record of a call as JSON.
    pub message: &'a [u8],
}

impl<'a> QuestionView<'a> {
    /// Says nothing.
    pub const NOTHING: Self = Self {
        event: 0,
        status_code: 0,
        token: &[],
        deadline: 0,
        source: (IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0),
        trace: [0; 16],
        transport: "",
        listener: "",
        peer: "",
        target: "",
        account: "",
        variables: "",
        message: &[],
    };

    /// Appends the encoding.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[self.event, 0]);
        out.extend_from_slice(&self.status_code.to_le_bytes());
        out.extend_from_slice(self.token);
        out.extend_from_slice(&self.deadline.to_le_bytes());
        let ip = match self.source.0 {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        out.extend_from_slice(&ip.octets());
        out.extend_from_slice(&self.source.1.to_le_bytes());
        out.extend_from_slice(&self.trace);
        for text in [self.transport, self.listener, self.peer, self.target] {
            out.push(text.len().min(255) as u8);
        }
        let account = self.account.as_bytes();
        let account = account.get(..usize::from(u16::MAX)).unwrap_or(account);
        out.extend_from_slice(&(account.len() as u16).to_le_bytes());
        // Half of an object is none.
        let variables = Some(self.variables.as_bytes()).filter(|text| text.len() <= usize::from(u16::MAX)).unwrap_or_default();
        out.extend_from_slice(&(variables.len() as u16).to_le_bytes());
        out.resize(start + HEAD, 0);
        for text in [self.transport, self.listener, self.peer, self.target] {
            out.extend_from_slice(&text.as_bytes()[..text.len().min(255)]);
        }
        out.extend_from_slice(account);
        out.extend_from_slice(variables);
        out.extend_from_slice(self.message);
    }

    /// Reads an encoding; `None` for anything else.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let (head, rest) = bytes.split_at_checked(HEAD)?;
        let array = |at: usize| head.get(at..at + 16).and_then(|part| <[u8; 16]>::try_from(part).ok());
        let half = |at: usize| Some(u16::from_le_bytes([*head.get(at)?, *head.get(at + 1)?]));
        let lengths = head.get(54..58)?;
        let (transport, rest) = rest.split_at_checked(usize::from(*lengths.first()?))?;
        let (listener, rest) = rest.split_at_checked(usize::from(*lengths.get(1)?))?;
        let (peer, rest) = rest.split_at_checked(usize::from(*lengths.get(2)?))?;
        let (target, rest) = rest.split_at_checked(usize::from(*lengths.get(3)?))?;
        let (account, rest) = rest.split_at_checked(usize::from(half(58)?))?;
        let (variables, message) = rest.split_at_checked(usize::from(half(60)?))?;
        let text = |bytes: &'a [u8]| std::str::from_utf8(bytes).ok();
        Some(Self {
            event: *head.first()?,
            status_code: half(2)?,
            token: head.get(4..16)?,
            deadline: u32::from_le_bytes(head.get(16..20)?.try_into().ok()?),
            source: (IpAddr::from(array(20)?).to_canonical(), half(36)?),
            trace: array(38)?,
            transport: text(transport)?,
            listener: text(listener)?,
            peer: text(peer)?,
            target: text(target)?,
            account: text(account)?,
            variables: text(variables)?,
            message,
        })
    }
}

/// What a policy decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum VerdictKind {
    /// Go on as the configuration says.
    #[default]
    Continue,
    /// Try these targets.
    Relay,
    /// Try the gateways of the rules for a number, one after the other; each failure is reported.
    Route,
    /// Try the next one of them.
    Next,
    /// Answer so.
    Reply,
    /// Answer with the best response so far, or so where there was none.
    Best,
    /// The policy failed: answer as the configuration says.
    Error,
    /// Do not pass this provisional response on.
    Drop,
    /// Send `request` for the policy itself.
    Originate,
    /// The attempts under way are to end: their handler has something else in mind, and says so once they have.
    GiveUp,
}

/// A change to the request as it goes out.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct HeaderEdit {
    /// `set`, `add` or `remove`; `request_uri`, or `from` for display name and URI of From.
    pub(crate) action: EditAction,
    pub(crate) name: String,
    pub(crate) value: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EditAction {
    Set,
    Add,
    Remove,
    RequestUri,
    From,
}

/// One verdict, with everything that it may say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Verdict {
    pub(crate) kind: VerdictKind,
    pub(crate) targets: Vec<String>,
    /// The peer whose `to` is meant, where there are no targets.
    pub(crate) peer: String,
    pub(crate) parallel: bool,
    /// The route whose terms hold.
    pub(crate) route: String,
    /// The number to look up; empty for that of the Request-URI.
    pub(crate) number: String,
    /// The number that rules are looked up by, where that is not the one that the gateway gets.
    pub(crate) routing_number: String,
    /// The group of rules, where it is another than the route's.
    pub(crate) group: Option<u32>,
    /// Whether further rules are tried, where that is to differ from the route.
    pub(crate) fall_back: Option<bool>,
    /// Whether the prefix must be the whole number, likewise.
    pub(crate) whole_number: Option<bool>,
    /// Gateways and `#carriers` that it is bound to, where there are any.
    pub(crate) whitelist: Vec<String>,
    /// The policy waits for what comes of the attempts.
    pub(crate) report: bool,
    pub(crate) first_answer_milliseconds: Option<u64>,
    pub(crate) final_answer_milliseconds: Option<u64>,
    pub(crate) edits: Vec<HeaderEdit>,
    pub(crate) status_code: u16,
    pub(crate) reason_phrase: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    pub(crate) notes: Vec<(String, String)>,
    /// Variables that changed, with their values as JSON, and those that are gone.
    pub(crate) variables: Vec<(String, Option<String>)>,
    /// A request to send, whole but for its Via.
    pub(crate) request: String,
    /// What is tried is a service that knows something, and nobody who could be called: its responses go to nobody.
    pub(crate) service: bool,
    /// What was tried so far is forgotten: it asked a service, and tried nobody.
    pub(crate) anew: bool,
    /// How long its answer may take.
    pub(crate) deadline_milliseconds: u64,
    /// Limits that the policy asks for: name, key, and as many as that may have where it is not as the file says.
    pub(crate) limits: Vec<(String, String, Option<u32>)>,
    /// For how many seconds the sender is not listened to any more, and why.
    pub(crate) ban: Option<(u32, String)>,
    /// Whether the media of what follows is relayed, where the policy says.
    pub(crate) media: Option<bool>,
}

impl Verdict {
    /// The verdict as a trace tells it.
    pub(crate) fn in_words(&self) -> String {
        let edits: Vec<&str> = self
            .edits
            .iter()
            .map(|edit| {
                if edit.action == EditAction::From {
                    "From"
                } else if edit.name.is_empty() {
                    "Request-URI"
                } else {
                    edit.name.as_str()
                }
            })
            .collect();
        let edits = if edits.is_empty() { String::new() } else { format!(", edits {}", edits.join(" ")) };
        match self.kind {
            VerdictKind::Continue => format!("go on{edits}"),
            VerdictKind::Relay if !self.peer.is_empty() => format!("relay to peer {}{edits}", self.peer),
            VerdictKind::Relay => format!("relay to {}{edits}", self.targets.join(if self.parallel { " and " } else { ", then " })),
            VerdictKind::Route => format!("route {}{edits}", self.number),
            VerdictKind::Next => "the next gateway".to_owned(),
            VerdictKind::Reply => format!("reply {}", self.status_code),
            VerdictKind::Best => "the best response so far".to_owned(),
            VerdictKind::Error => "failed".to_owned(),
            VerdictKind::Drop => "drop the response".to_owned(),
            VerdictKind::Originate => "send a request".to_owned(),
            VerdictKind::GiveUp => "no more of these attempts".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_as_it_was_written_and_nothing_short_is() {
        let token = PolicyToken { worker: 3, number: 9, names: Named::Transaction, transaction: Key { slot: 70_000, generation: 5 } };
        let mut written = Vec::new();
        token.write(&mut written);
        assert_eq!(PolicyToken::read(&written), Some((token, &[][..])));
        for ip in ["192.0.2.1", "2001:db8::1"] {
            let view = QuestionView {
                event: PolicyEvent::Request as u8,
                status_code: 486,
                token: &written,
                deadline: 1_000_000,
                source: (ip.parse().unwrap(), 5_060),
                trace: [7; 16],
                transport: "UDP",
                listener: "public",
                peer: "phones",
                target: "udp:203.0.113.1:5060",
                account: "alice@edge.example\u{1f}limit=5",
                variables: "{\"a\":1}",
                message: b"INVITE",
            };
            let mut bytes = Vec::new();
            view.write(&mut bytes);
            let read = QuestionView::read(&bytes).unwrap();
            assert_eq!(format!("{read:?}"), format!("{view:?}"));
            assert!((0..bytes.len() - 6).all(|length| QuestionView::read(&bytes[..length]).is_none()));
        }
    }
}
