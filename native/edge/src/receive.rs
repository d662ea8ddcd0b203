//! Phase *receive*: parse, count, and answer what does not parse where that is safe.

use std::net::SocketAddr;

use proto::Now;
use syntax::{Field, LocalReply, Message, ParseError, Rport, is_answerable};

use crate::edge::Edge;
use crate::hop::Hop;
use crate::nat::NatTests;
use crate::stun::is_stun;

impl Edge {
    /// Takes one message that came from `arrival`. Returns the worker that it belongs to where that is another one;
    /// what was `handed_over` is taken in any case.
    pub fn handle_message(&mut self, now: Now, arrival: &Hop, bytes: &[u8], handed_over: bool) -> Option<u8> {
        let mut banned = self.is_banned(now, arrival.address.ip());
        if banned && self.turns_away(now, arrival, bytes) {
            return None;
        }
        // By whom a packet came is known where it was received first.
        if !banned && !handed_over && self.snapshot.flood.is_some() && self.floods(now, arrival) {
            // Anybody can forge datagrams of an office until it is one too many: that must not silence its calls for help.
            if !(self.may_be_emergency(now, arrival, bytes) && self.may_call_for_help(now, arrival)) {
                self.counters.dropped_flood.add();
                return None;
            }
            banned = true;
        }
        if is_keep_alive(bytes) {
            self.counters.keep_alives_received.add();
            return None;
        }
        if is_stun(bytes) {
            if !banned {
                self.handle_stun(arrival, bytes);
            }
            return None;
        }
        self.with_arrival(bytes, |edge, message, parsed| {
            if let Err(error) = parsed {
                if banned {
                    edge.counters.dropped_banned.add();
                    return None;
                }
                edge.refuse_malformed(now, arrival, message, error);
                return None;
            }
            if !handed_over && edge.options.workers > 1 {
                let owner = edge.owner(message);
                if owner != edge.options.worker {
                    return Some(owner);
                }
            }
            if banned && !edge.is_of_emergency(message) {
                edge.counters.dropped_banned.add();
                return None;
            }
            if let Some(behind) = bytes.get(message.bytes.len()..).filter(|behind| !behind.is_empty()) {
                edge.look_behind(now, arrival, message, behind);
            }
            edge.in_hand = proto::Key::NONE;
            if message.is_request() {
                edge.counters.requests.add();
                if let Some(counter) = edge.counters.methods.get(message.head.method as usize) {
                    counter.add();
                }
                edge.handle_request(now, arrival, message);
            } else {
                edge.counters.responses.add();
                if let Some(counter) = edge.counters.classes.get(usize::from(message.head.status_code / 100)) {
                    counter.add();
                }
                edge.handle_response(now, arrival, message);
            }
            None
        })
    }

    /// Whether a message is dropped unread since its source is banned: to be asked before anything else is done about it, a trace of
    /// it among that.
    pub fn turns_away(&mut self, now: Now, arrival: &Hop, bytes: &[u8]) -> bool {
        let drops = self.is_banned(now, arrival.address.ip()) && !(self.may_be_emergency(now, arrival, bytes) && self.may_call_for_help(now, arrival));
        if drops {
            self.counters.dropped_banned.add();
        }
        drops
    }

    /// Takes a datagram that is too short to be anything: it counts towards a flood, and is nothing else.
    pub fn handle_keep_alive(&mut self, now: Now, arrival: &Hop) {
        if self.is_banned(now, arrival.address.ip()) {
            self.counters.dropped_banned.add();
        } else if self.snapshot.flood.is_none() || !self.floods(now, arrival) {
            self.counters.keep_alives_received.add();
        }
    }

    /// Takes what came by a connection and has no end that we could know: it counts as a packet that nobody can read.
    pub fn handle_unreadable(&mut self, now: Now, arrival: &Hop, error: ParseError) {
        if self.is_banned(now, arrival.address.ip()) {
            self.counters.dropped_banned.add();
        } else if self.snapshot.flood.is_some() && self.floods(now, arrival) {
            self.counters.dropped_flood.add();
        } else {
            self.note_malformed(now, arrival, error);
        }
    }

    fn note_malformed(&mut self, now: Now, arrival: &Hop, error: ParseError) {
        self.counters.malformed.add();
        match error {
            ParseError::NotSip => self.counters.malformed_not_sip.add(),
            ParseError::Missing { .. } => self.counters.malformed_missing.add(),
            ParseError::TooLarge { .. } => self.counters.malformed_too_large.add(),
            _ => {}
        }
        if self.may_log(now) {
            log::warn!(target: "receive", "malformed message from {} over {}: {error}", self.shown(arrival.address), arrival.transport.as_str());
        }
        self.score(now, arrival, |settings| settings.malformed_points, "a malformed message");
    }

    fn refuse_malformed(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, error: ParseError) {
        self.note_malformed(now, arrival, error);
        // A stranger's broken request deserves no answer: what he sends could be forged to hit somebody else.
        let known = self.identify(arrival.listener, arrival.transport, arrival.address).is_some();
        if known && is_answerable(message.head) {
            self.reply(arrival, message, error.status_code(), Some(reason(error)), b"");
        }
    }

    /// Answers `request` from here, without keeping state.
    pub(crate) fn reply(&mut self, arrival: &Hop, request: &Message<'_>, status_code: u16, reason_phrase: Option<&str>, headers: &[u8]) {
        self.reply_as(arrival, request, status_code, reason_phrase, headers, None);
    }

    /// The same for a request that came with another From.
    pub(crate) fn reply_as(
        &mut self,
        arrival: &Hop,
        request: &Message<'_>,
        status_code: u16,
        reason_phrase: Option<&str>,
        headers: &[u8],
        from: Option<&[u8]>,
    ) {
        let to_tag = if status_code == 100 { Vec::new() } else { self.local_tag(request) };
        let mut lines = headers.to_vec();
        self.push_server_header(&mut lines);
        let local = LocalReply { status_code, reason_phrase, to_tag: &to_tag, from, source: arrival.address, headers: &lines, body: b"" };
        self.out.send_with(reply_hop(arrival, request), |out| local.write(request, out));
    }

    pub(crate) fn push_server_header(&self, lines: &mut Vec<u8>) {
        let server = &self.snapshot.settings.server_header;
        if !server.is_empty() {
            lines.extend_from_slice(b"Server: ");
            lines.extend_from_slice(server.as_bytes());
            lines.extend_from_slice(b"\r\n");
        }
    }

    /// The To tag of our own responses: the same for a retransmission, without remembering it (RFC 3261 section 8.2.7).
    pub(crate) fn local_tag(&self, request: &Message<'_>) -> Vec<u8> {
        let hash = proto::keyed_hash(
            &self.options.process_secret,
            &[b"tag", request.call_id(), request.text(request.head.from.tag), request.text(request.head.via.branch)],
        );
        format!("{:016x}", hash as u64).into_bytes()
    }

    /// Whether another line about bad input may be logged in this second.
    pub(crate) fn may_log(&mut self, now: Now) -> bool {
        let second = now.moment.0 / 1_000_000;
        if second != self.log_second {
            (self.log_second, self.log_lines) = (second, 0);
        }
        self.log_lines += 1;
        let may = self.log_lines <= self.snapshot.settings.limits.log_lines_per_second;
        if !may {
            self.counters.log_lines_suppressed.add();
        }
        may
    }

    /// An address as logs may show it.
    pub(crate) fn shown(&self, address: SocketAddr) -> String {
        if self.snapshot.settings.mask_identities { "(masked)".to_owned() } else { address.to_string() }
    }

    /// Text from the network as logs may show it: escaped, cut, or masked.
    pub(crate) fn shown_text(&self, text: &[u8]) -> String {
        if self.snapshot.settings.mask_identities {
            "(masked)".to_owned()
        } else {
            text.get(..text.len().min(128)).unwrap_or_default().escape_ascii().to_string()
        }
    }
}

/// Line ends or zeros that only keep a way through a NAT open (RFC 5626 section 4.4.1, and what phones have sent before it).
fn is_keep_alive(bytes: &[u8]) -> bool {
    bytes.len() <= 8 && bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n' | b' ' | 0))
}

/// Where responses to a request go (RFC 3261 section 18.2.2, RFC 3581 section 4). A maddr is not followed: it would let
/// a sender aim our responses at anybody.
pub(crate) fn reply_hop(arrival: &Hop, request: &Message<'_>) -> Hop {
    let via = &request.head.via;
    if !arrival.transport.is_reliable() && !matches!(via.rport, Rport::Absent) {
        return *arrival;
    }
    let mut hop = *arrival;
    let port = via.port.unwrap_or_else(|| arrival.transport.default_port());
    if arrival.transport.is_reliable() || port != hop.address.port() && !is_behind_nat(arrival, request) {
        hop.address.set_port(port);
    }
    hop
}

/// Whether a sender that asks for nothing says an address of its own network, and a NAT sent for it: the port beside that address is as
/// far away, and whoever answers there answers nobody.
fn is_behind_nat(arrival: &Hop, request: &Message<'_>) -> bool {
    let said = syntax::parse_ip(request.text(request.head.via.host)).map(|ip| ip.to_canonical());
    let source = arrival.address.ip().to_canonical();
    said.is_some_and(|ip| ip != source && NatTests::default().is_private(ip))
}

fn reason(error: ParseError) -> &'static str {
    match error {
        ParseError::Version => "Version Not Supported",
        ParseError::UnknownScheme => "Unsupported URI Scheme",
        ParseError::Malformed { field, .. } => match field {
            Field::StartLine => "Bad Request (start line)",
            Field::RequestUri => "Bad Request (Request-URI)",
            Field::Via => "Bad Request (Via)",
            Field::From => "Bad Request (From)",
            Field::To => "Bad Request (To)",
            Field::CallId => "Bad Request (Call-ID)",
            Field::CSeq => "Bad Request (CSeq)",
            Field::MaxForwards => "Bad Request (Max-Forwards)",
            Field::ContentLength => "Bad Request (Content-Length)",
            Field::Route => "Bad Request (Route)",
            Field::Contact => "Bad Request (Contact)",
            Field::Body => "Bad Request (body)",
            Field::HeaderName | Field::HeaderValue => "Bad Request (header field)",
        },
        ParseError::Missing { .. } => "Bad Request (missing header field)",
        ParseError::Repeated { .. } => "Bad Request (repeated header field)",
        ParseError::TooLarge { field: Field::RequestUri } => "Request-URI Too Long",
        ParseError::TooLarge { field: Field::Body } => "Request Entity Too Large",
        ParseError::TooLarge { .. } => "Message Too Large",
        ParseError::Truncated => "Bad Request (body shorter than Content-Length)",
        ParseError::CSeqMismatch => "Bad Request (CSeq method)",
        _ => "Bad Request",
    }
}

/// A message as a log may hold it: headers only, without credentials and keys.
pub(crate) fn without_secrets(bytes: &[u8]) -> String {
    let headers = bytes.split(|b| *b == b'\n').take_while(|line| !line.trim_ascii().is_empty());
    let mut hidden = false;
    let mut secret = |line: &[u8]| {
        // A folded line belongs to the field above it.
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return hidden;
        }
        let name = line.split(|b| *b == b':').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
        hidden = matches!(name.as_slice(), b"authorization" | b"proxy-authorization" | b"authentication-info" | b"proxy-authenticate" | b"www-authenticate");
        hidden
    };
    let shown: Vec<u8> = headers.filter(|line| !secret(line)).take(40).flat_map(|line| [line, b"\n"].concat()).take(2_048).collect();
    shown.escape_ascii().to_string()
}
