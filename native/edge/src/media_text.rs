//! A session description said otherwise: our address and ports in the place of a side's own, everything else byte for byte
//! (RFC 3264, RFC 8866).

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use media::{PortPair, StreamKind};
use smallvec::SmallVec;
use syntax::{Connection, HeaderName, MediaDescription, MediaDirection, Message, SessionDescription, Span, list_elements};

use crate::media_anchor::MediaFault;

/// Changes to a message: each place with what stands there from now on.
pub(crate) type Changes = Vec<(Span, Vec<u8>)>;

/// What one side says of one stream that is relayed.
pub(crate) struct Said {
    /// The media description's place.
    pub(crate) index: usize,
    pub(crate) kind: StreamKind,
    pub(crate) expected: Option<[SocketAddr; 2]>,
    /// Whether it says where its RTCP is, which else is beside its RTP.
    pub(crate) names_control: bool,
    pub(crate) active: bool,
    pub(crate) clock_rate: u32,
}

/// How deep parts may lie within parts.
const DEEPEST: u8 = 4;

/// The part of a message that is a session description: its body, or the first such part of a multipart one, which may lie within
/// another (RFC 2046, RFC 5621 section 3.1).
pub(crate) fn session_part(message: &Message<'_>) -> Option<Span> {
    let body = message.head.body;
    if body.is_empty() {
        return None;
    }
    // Hardly ever is it anything else.
    if is_session(message.first(HeaderName::ContentType)?.value.of(message.bytes)) { Some(body) } else { session_parts(message).first().copied() }
}

/// What a message describes: nothing where it says nothing of media. Of several descriptions nobody knows which one counts for
/// whoever gets them: of alternatives the last that it understands (RFC 2046 section 5.1.4).
pub(crate) fn description(message: &Message<'_>) -> Result<Option<(Span, SessionDescription)>, MediaFault> {
    if !message.head.body.is_empty() && is_of_several_kinds(message) {
        return Err(MediaFault::Unreadable);
    }
    match *session_parts(message) {
        [] => Ok(None),
        [part] => {
            let session = SessionDescription::read(message.bytes, part).filter(|session| reads_alike(message.bytes, session));
            session.map(|session| Some((part, session))).ok_or(MediaFault::Unreadable)
        }
        _ => Err(MediaFault::Unreadable),
    }
}

/// Whether nothing stands in a description that some overlook: a blank where a value begins, a sign in front of a port.
fn reads_alike(bytes: &[u8], session: &SessionDescription) -> bool {
    let connections = session.media.iter().map(|media| media.connection).chain([session.connection]).flatten();
    let lines = session.media.iter().all(|media| media.line.of(bytes).get(2).is_some_and(u8::is_ascii_graphic) && !media.port_span.of(bytes).starts_with(b"+"));
    lines && connections.into_iter().all(|connection| connection.value.of(bytes).first().is_some_and(u8::is_ascii_graphic))
}

/// Blanks may stand on both sides of the slash (RFC 3261 section 25.1).
fn is_type(kind: &[u8], wanted: &[u8], sub: Option<&[u8]>) -> bool {
    let Some(slash) = memchr::memchr(b'/', kind) else { return false };
    let (main, rest) = (kind.get(..slash).unwrap_or_default(), kind.get(slash + 1..).unwrap_or_default());
    let own = rest.split(|byte| *byte == b';').next().unwrap_or_default();
    main.trim_ascii().eq_ignore_ascii_case(wanted) && sub.is_none_or(|sub| own.trim_ascii().eq_ignore_ascii_case(sub))
}

fn is_session(kind: &[u8]) -> bool {
    is_type(kind, b"application", Some(b"sdp"))
}

/// Whether a message says in several ways what its body is, one of them that it is a description; or that it has parts, and none can be
/// told from the others.
#[inline(never)]
fn is_of_several_kinds(message: &Message<'_>) -> bool {
    let kinds = || message.all(HeaderName::ContentType).map(|slot| slot.value.of(message.bytes));
    let all: SmallVec<[&[u8]; 2]> = kinds().flat_map(|kind| list_elements(kind, Span::new(0, kind.len())).map(move |element| element.of(kind))).collect();
    let body = message.head.body.of(message.bytes);
    let has_parts = |kind: &[u8]| boundary(kind).is_some_and(|boundary| memchr::memmem::find(body, &[b"--", boundary].concat()).is_some());
    all.len() > 1 && all.iter().any(|kind| is_session(kind)) || all.iter().any(|kind| is_type(kind, b"multipart", None) && !has_parts(kind))
}

#[inline(never)]
fn session_parts(message: &Message<'_>) -> SmallVec<[Span; 2]> {
    let mut found = SmallVec::new();
    let body = message.head.body;
    if let Some(kind) = message.first(HeaderName::ContentType).filter(|_| !body.is_empty()) {
        within(message.bytes, body, kind.value.of(message.bytes), 0, &mut found);
    }
    found
}

fn within(bytes: &[u8], body: Span, kind: &[u8], depth: u8, found: &mut SmallVec<[Span; 2]>) {
    if is_session(kind) {
        return found.push(body);
    }
    if let Some(boundary) = boundary(kind).filter(|_| depth < DEEPEST && is_type(kind, b"multipart", None)) {
        parts_of(bytes, body, boundary, depth, found);
    }
}

/// What stands between the parts, by the parameters of a type (RFC 2046 section 5.1.1).
fn boundary(kind: &[u8]) -> Option<&[u8]> {
    let mut rest = kind.get(memchr::memchr(b';', kind)? + 1..)?;
    loop {
        let end = rest.iter().position(|byte| matches!(byte, b'=' | b';'))?;
        let (name, mut after) = (rest.get(..end)?.trim_ascii(), rest.get(end..)?);
        let mut value = &[][..];
        if let Some(text) = after.strip_prefix(b"=") {
            let text = text.trim_ascii_start();
            (value, after) = match text.strip_prefix(b"\"") {
                Some(quoted) => quoted.split_at_checked(memchr::memchr(b'"', quoted)?)?,
                None => text.split_at_checked(memchr::memchr(b';', text).unwrap_or(text.len()))?,
            };
        }
        if name.eq_ignore_ascii_case(b"boundary") {
            return value.split(|byte| byte.is_ascii_whitespace()).next().filter(|boundary| !boundary.is_empty());
        }
        rest = after.get(memchr::memchr(b';', after)? + 1..)?;
    }
}

fn parts_of(bytes: &[u8], body: Span, boundary: &[u8], depth: u8, found: &mut SmallVec<[Span; 2]>) {
    let delimiter = [b"--", boundary].concat();
    let text = body.of(bytes);
    let Some(mut at) = memchr::memmem::find(text, &delimiter) else { return };
    // One more than counts tells that there are several.
    while found.len() < 2 && at < text.len() {
        let start = at + delimiter.len();
        let rest = text.get(start..).unwrap_or_default();
        // The last one, or what follows it (RFC 2046 section 5.1.1).
        if rest.starts_with(b"--") {
            return;
        }
        let length = memchr::memmem::find(rest, &delimiter).unwrap_or(rest.len());
        at = start + length;
        let part = rest.get(..length).unwrap_or_default();
        let head = memchr::memmem::find(part, b"\r\n\r\n").map(|end| (end, end + 4)).or_else(|| memchr::memmem::find(part, b"\n\n").map(|end| (end, end + 2)));
        if let Some((end, content)) = head {
            // The line end in front of a delimiter belongs to that.
            let last = part.strip_suffix(b"\r\n").or_else(|| part.strip_suffix(b"\n")).map_or(part.len(), <[u8]>::len);
            let inside = Span::new(body.start() + start + content, body.start() + start + last.max(content));
            let head = part.get(..end).unwrap_or_default();
            // The compact form is none of MIME's, but some may read it.
            for kind in [&b"content-type"[..], b"c"].into_iter().filter_map(|name| field(head, name)).filter_map(|value| head.get(value)) {
                within(bytes, inside, kind, depth + 1, found);
            }
        }
    }
}

/// Where the value of a header field of a part stands in its head, folded lines among it.
fn field(head: &[u8], name: &[u8]) -> Option<Range<usize>> {
    let mut at = 0;
    while at < head.len() {
        let end = |from: usize| head.get(from..).and_then(|rest| memchr::memchr(b'\n', rest)).map_or(head.len(), |length| from + length + 1);
        let mut next = end(at);
        while head.get(next).is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
            next = end(next);
        }
        let line = head.get(at..next)?;
        if let Some(colon) = memchr::memchr(b':', line).filter(|colon| line.get(..*colon).is_some_and(|own| own.trim_ascii().eq_ignore_ascii_case(name))) {
            return Some(at + colon + 1..next);
        }
        at = next;
    }
    None
}

/// The number in the Content-Length of the part of a multipart body that is `part`, where it has one.
fn own_length(message: &Message<'_>, part: Span) -> Option<Span> {
    let from = message.head.body.start();
    let before = message.bytes.get(from..part.start())?;
    let head = memchr::memmem::rfind(before, b"\n--").map_or(0, |at| at + 1);
    let value = field(before.get(head..)?, b"content-length")?;
    let text = before.get(head + value.start..head + value.end)?;
    let blank = text.len() - text.trim_ascii_start().len();
    let start = from + head + value.start + blank;
    Some(Span::new(start, start + text.trim_ascii().len()))
}

/// The description as an engine gets it: with these streams refused (RFC 3264 section 6), and with `address` where a name stands (RFC 8866
/// section 5.7), which it does not look up.
pub(crate) fn for_engines(bytes: &[u8], part: Span, session: &SessionDescription, refused: &[usize], address: IpAddr) -> Vec<u8> {
    let connections = session.media.iter().filter_map(|media| media.connection).chain(session.connection);
    let named = connections.filter(|connection| connection.address.is_none()).map(|connection| (connection.value, connection_text(address).into_bytes()));
    let ports = refused.iter().filter_map(|index| session.media.get(*index)).map(|media| (media.port_span, b"0".to_vec()));
    let mut edits: Vec<_> = named.chain(ports).collect();
    edits.sort_by_key(|(place, _)| place.start());
    let (mut text, mut at) = (Vec::new(), part.start());
    for (place, said) in edits {
        text.extend_from_slice(Span::new(at, place.start()).of(bytes));
        text.extend_from_slice(&said);
        at = place.end();
    }
    text.extend_from_slice(Span::new(at, part.end()).of(bytes));
    text
}

/// Whether engines read a description: they want it to begin with its version, and no line to be empty.
pub(crate) fn is_for_engines(text: &[u8]) -> bool {
    let (version, whole) = (text.strip_prefix(b"v=0"), text.trim_ascii_end());
    let has_blank = memchr::memmem::find(whole, b"\n\r\n").or_else(|| memchr::memmem::find(whole, b"\n\n"));
    version.is_some_and(|rest| rest.first().is_some_and(u8::is_ascii_whitespace)) && has_blank.is_none()
}

/// How packets of a stream look; `None` for what does not go over UDP, which is not relayed.
pub(crate) fn kind_of(protocol: &[u8]) -> Option<StreamKind> {
    let has = |prefix: &[u8]| protocol.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    if has(b"RTP/") {
        Some(StreamKind::Rtp)
    } else if has(b"UDP/TLS/RTP/") {
        Some(StreamKind::RtpOverDtls)
    } else if has(b"udptl") || has(b"udp") && !has(b"UDP/BFCP") {
        Some(StreamKind::Datagrams)
    } else {
        None
    }
}

/// The streams of `session` that are relayed, as a side says that whose signalling comes from `signalled`. An address that a
/// NAT hides gives way to that one.
pub(crate) fn read_streams(bytes: &[u8], session: &SessionDescription, signalled: IpAddr, is_hidden: impl Fn(IpAddr) -> bool) -> Option<Vec<Said>> {
    let mut all = Vec::new();
    for (index, media) in session.media.iter().enumerate() {
        let Some(kind) = kind_of(media.protocol.of(bytes)) else { continue };
        // Keys are agreed on between the packets, whatever the profile is called (RFC 5763).
        let kind = if kind == StreamKind::Rtp && (media.dtls || session.dtls) { StreamKind::RtpOverDtls } else { kind };
        if media.port == 0 {
            // Refused or removed (RFC 3264 sections 6 and 8.2): nothing goes there any more, and nothing is awaited.
            all.push(Said { index, kind, expected: None, names_control: false, active: false, clock_rate: 8_000 });
            continue;
        }
        // Without any c= line nobody knows where to send (RFC 8866 section 5.7).
        let said = session.connection_of(media)?.address;
        let address = said.filter(|ip| !is_hidden(*ip)).unwrap_or(signalled);
        let control = match media.rtcp {
            Some(rtcp) => SocketAddr::new(rtcp.address.filter(|ip| !ip.is_unspecified() && !is_hidden(*ip)).unwrap_or(address), rtcp.port),
            None => SocketAddr::new(address, media.port.saturating_add(1)),
        };
        // The hold of RFC 2543.
        let held = said.is_some_and(|ip| ip.is_unspecified());
        all.push(Said {
            index,
            kind,
            expected: (!held).then(|| [SocketAddr::new(address, media.port), control]),
            names_control: media.rtcp.is_some(),
            active: !held && session.direction_of(media) == MediaDirection::SendRecv,
            clock_rate: media.clock_rate.unwrap_or(8_000),
        });
    }
    Some(all)
}

/// What must change so that the streams at the places of `ports` are ours, at `address`.
pub(crate) fn changes(message: &Message<'_>, body: Span, session: &SessionDescription, ports: &[(usize, PortPair)], address: IpAddr) -> Changes {
    let mut changes: Changes = Vec::new();
    let open = |index: usize| session.media.get(index).is_some_and(|media| media.port != 0);
    let relayed = |index: usize| ports.iter().filter(|(own, _)| open(*own)).find(|(own, _)| *own == index).map(|(_, pair)| *pair);
    let text = connection_text(address);
    if let Some(connection) = session.connection.filter(|_| !ports.is_empty()) {
        changes.push((connection.value, said_otherwise(connection, address)));
        for (_, media) in session.media.iter().enumerate().filter(|(index, media)| relayed(*index).is_none() && media.port != 0 && media.connection.is_none()) {
            // What is not relayed stays where it is.
            let start: &[u8] = if media.line.of(message.bytes).ends_with(b"\n") { b"c=" } else { b"\r\nc=" };
            let line = [start, connection.value.of(message.bytes), b"\r\n"].concat();
            changes.push((Span::new(media.line.end(), media.line.end()), line));
        }
    }
    for (index, media) in session.media.iter().enumerate() {
        let Some(pair) = relayed(index) else { continue };
        changes.push((media.port_span, pair.port.to_string().into_bytes()));
        if let Some(connection) = media.connection {
            changes.push((connection.value, said_otherwise(connection, address)));
        }
        if let Some(rtcp) = media.rtcp {
            let place = if rtcp.address.is_some() { [b" ", text.as_bytes()].concat() } else { Vec::new() };
            changes.push((rtcp.value, [(pair.port + 1).to_string().as_bytes(), &place].concat()));
        }
        drop_ice(media, &mut changes);
    }
    if session.media.iter().enumerate().all(|(index, media)| media.port == 0 || relayed(index).is_some()) {
        changes.extend(session.ice.iter().map(|line| (*line, Vec::new())));
    }
    if !changes.is_empty() {
        debug_assert!(changes.iter().all(|(place, _)| place.start() >= body.start() && place.end() <= body.end()));
        changes.extend(length_changed(message, body, &changes));
    }
    changes
}

/// Agents that would find each other by their candidates would leave us out (RFC 8839 section 4.2.5 calls that a mismatch).
fn drop_ice(media: &MediaDescription, changes: &mut Changes) {
    changes.extend(media.ice.iter().map(|line| (*line, Vec::new())));
}

pub(crate) fn connection_text(address: IpAddr) -> String {
    format!("IN {} {address}", if address.is_ipv4() { "IP4" } else { "IP6" })
}

/// A side on hold by the address of RFC 2543 stays so, in the family of the other side.
fn said_otherwise(connection: Connection, address: IpAddr) -> Vec<u8> {
    let held = connection.address.is_some_and(|ip| ip.is_unspecified());
    let shown = match (held, address) {
        (false, _) => address,
        (true, IpAddr::V4(_)) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        (true, IpAddr::V6(_)) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    connection_text(shown).into_bytes()
}

/// Says how long the body is once `changes` are made in it.
pub(crate) fn length_changed(message: &Message<'_>, part: Span, changes: &Changes) -> Changes {
    let before: usize = changes.iter().map(|(place, _)| place.len()).sum();
    let after: usize = changes.iter().map(|(_, text)| text.len()).sum();
    lengths(message, part, part.len() + after - before)
}

/// Says how long a part of the body is from now on that is the body, or lies in it.
pub(crate) fn lengths(message: &Message<'_>, part: Span, length: usize) -> Changes {
    let own = own_length(message, part).map(|place| (place, length.to_string().into_bytes()));
    let grown = own.iter().map(|(place, text)| (place.len(), text.len())).fold((part.len(), length), |sum, own| (sum.0 + own.0, sum.1 + own.1));
    content_length(message, message.body().len() + grown.1 - grown.0).into_iter().chain(own).collect()
}

/// Says how long the body is from now on. A message may say so more than once, as long as it says the same.
fn content_length(message: &Message<'_>, length: usize) -> Changes {
    let said: Changes = message.all(HeaderName::ContentLength).map(|slot| (slot.value, length.to_string().into_bytes())).collect();
    if !said.is_empty() {
        return said;
    }
    let end = usize::from(message.head.headers_end);
    vec![(Span::new(end, end), format!("Content-Length: {length}\r\n").into_bytes())]
}

#[cfg(test)]
mod tests {
    use syntax::{Edits, Head, Limits, parse};

    use super::*;

    fn message(kind: &str, body: &str) -> String {
        format!(
            "INVITE sip:b@x SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\n\
             Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// The body as it goes out, with `our` address and the ports 30000, 30002 and so on; its length as the head says.
    fn rewritten(kind: &str, body: &str, our: &str) -> Option<(String, usize)> {
        let text = message(kind, body);
        let mut head = Head::default();
        parse(text.as_bytes(), &Limits::STANDARD, &mut head).unwrap();
        let message = Message::new(text.as_bytes(), &head);
        let part = session_part(&message)?;
        let session = SessionDescription::read(text.as_bytes(), part)?;
        let streams = read_streams(text.as_bytes(), &session, "203.0.113.9".parse().unwrap(), |_| false)?;
        let ports: Vec<(usize, PortPair)> =
            streams.iter().enumerate().map(|(number, said)| (said.index, PortPair { slot: 0, port: 30_000 + 2 * number as u16 })).collect();
        let mut edits = Edits::default();
        for (place, text) in changes(&message, part, &session, &ports, our.parse().unwrap()) {
            edits.replace(place, &text);
        }
        let mut out = Vec::new();
        edits.apply(&message, &mut out);
        let out = String::from_utf8(out).unwrap();
        let (head, body) = out.split_once("\r\n\r\n")?;
        let length = head.split("Content-Length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
        Some((body.to_owned(), length))
    }

    #[test]
    fn only_addresses_and_ports_change_and_the_length_fits() {
        let body = "v=0\r\no=- 7 7 IN IP4 10.0.0.5\r\ns=x\r\nc=IN IP4 10.0.0.5\r\nt=0 0\r\nb=AS\r\nm=audio 4000 RTP/SAVP 0 101\r\na=crypto:1 AES inline:k\r\n\
                    a=rtcp:4001\r\na=x-own: keep  me\r\nm=video 4002/2 RTP/AVPF 96\r\nc=IN IP4 10.0.0.6\r\nm=audio 0 RTP/AVP 0";
        let (out, length) = rewritten("application/sdp", body, "192.0.2.1").unwrap();
        let expected = body
            .replace("c=IN IP4 10.0.0.5", "c=IN IP4 192.0.2.1")
            .replace("c=IN IP4 10.0.0.6", "c=IN IP4 192.0.2.1")
            .replace("audio 4000", "audio 30000")
            .replace("rtcp:4001", "rtcp:30001")
            .replace("video 4002/2", "video 30002");
        assert_eq!(out, expected);
        assert_eq!(length, out.len());
    }

    #[test]
    fn families_are_bridged_and_hold_stays_hold() {
        let body = "v=0\r\nc=IN IP4 0.0.0.0\r\nm=audio 4000 RTP/AVP 0\r\na=rtcp:4001 IN IP4 10.0.0.5\r\nm=image 4002 udptl t38\r\nc=IN IP4 10.0.0.5\r\n";
        let (out, length) = rewritten("application/sdp;charset=x", body, "2001:db8::1").unwrap();
        assert_eq!(
            out,
            "v=0\r\nc=IN IP6 ::\r\nm=audio 30000 RTP/AVP 0\r\na=rtcp:30001 IN IP6 2001:db8::1\r\nm=image 30002 udptl t38\r\nc=IN IP6 2001:db8::1\r\n"
        );
        assert_eq!(length, out.len());
    }

    #[test]
    fn what_goes_over_tcp_stays_where_it_is() {
        let body = "v=0\r\nc=IN IP4 10.0.0.5\r\nm=message 4000 TCP/MSRP *\r\ni=Chat\r\na=path:msrp://10.0.0.5\r\nm=audio 4002 RTP/AVP 0\r\n";
        let (out, _) = rewritten("application/sdp", body, "192.0.2.1").unwrap();
        let wanted =
            "v=0\r\nc=IN IP4 192.0.2.1\r\nm=message 4000 TCP/MSRP *\r\ni=Chat\r\nc=IN IP4 10.0.0.5\r\na=path:msrp://10.0.0.5\r\nm=audio 30000 RTP/AVP 0\r\n";
        assert_eq!(out, wanted);
        let only = "v=0\r\nc=IN IP4 10.0.0.5\r\nm=message 4000 TCP/MSRP *\r\n";
        assert_eq!(rewritten("application/sdp", only, "192.0.2.1").unwrap().0, only);
    }

    #[test]
    fn candidates_that_would_leave_us_out_are_taken_out() {
        let body = "v=0\r\nc=IN IP4 10.0.0.5\r\na=ice-lite\r\nm=audio 4000 RTP/AVP 0\r\na=ice-ufrag:x\r\na=ice-pwd:y\r\n\
                    a=candidate:1 1 UDP 1 10.0.0.5 4000 typ host\r\na=mid:0\r\n";
        let (out, length) = rewritten("application/sdp", body, "192.0.2.1").unwrap();
        assert_eq!(out, "v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 30000 RTP/AVP 0\r\na=mid:0\r\n");
        assert_eq!(length, out.len());
    }

    #[test]
    fn a_description_among_other_parts_is_found() {
        let sdp = "v=0\r\nc=IN IP4 10.0.0.5\r\nm=audio 4000 RTP/AVP 0\r\n";
        let body = format!("--b1\r\nContent-Type: text/plain\r\n\r\nv=0\r\n--b1\r\nContent-Type: application/SDP\r\n\r\n{sdp}\r\n--b1--\r\n");
        for kind in ["multipart/mixed;boundary=b1", "Multipart/Mixed; boundary=\"b1\"; x=y"] {
            let (out, length) = rewritten(kind, &body, "192.0.2.1").unwrap();
            assert_eq!(out, body.replace("10.0.0.5", "192.0.2.1").replace("4000", "30000"), "{kind}");
            assert_eq!(length, out.len());
        }
        // Blanks and quotes stand where the grammar lets them; the last delimiter may be missing.
        for kind in ["multipart / mixed; boundary = b1", "multipart/mixed;a=\"x;boundary=ZZ\";boundary= \"b1\" ;c"] {
            assert!(rewritten(kind, &body, "192.0.2.1").is_some_and(|(out, _)| out.contains("30000")), "{kind}");
        }
        let short = body.replace("Content-Type: application/SDP", "c: application/sdp");
        assert!(rewritten("multipart/mixed;boundary=b1", &short, "192.0.2.1").is_some_and(|(out, _)| out.contains("30000")));
        let open = body.replace("\r\n--b1--\r\n", "");
        assert!(rewritten("multipart/mixed;boundary=b1", &open, "192.0.2.1").is_some_and(|(out, _)| out.contains("30000")));
        assert!(rewritten("application / sdp", sdp, "192.0.2.1").is_some_and(|(out, _)| out.contains("30000")));
        // Within another part, and with lengths of their own: those of its own head alone are its.
        let part = format!("Content-ID: <a--b>\r\nContent-Type:\r\n application/sdp\r\nContent-Length:  {} \r\nX: y\r\n\r\n{sdp}", sdp.len());
        let nested = format!(
            "--b1\r\nContent-Length: 1\r\nContent-Type: text/plain\r\n\r\nx\r\n--b1\r\nContent-Type: multipart/alternative; boundary=in\r\n\r\n--in\r\n{part}\r\n--in--\r\n--b1--\r\n"
        );
        let (out, length) = rewritten("multipart/mixed;boundary=b1", &nested, "192.0.2.1").unwrap();
        let changed = sdp.replace("10.0.0.5", "192.0.2.1").replace("4000", "30000");
        let wanted = nested.replace(sdp, &changed).replace(&format!("Content-Length:  {}", sdp.len()), &format!("Content-Length:  {}", changed.len()));
        assert_eq!((out.as_str(), length), (wanted.as_str(), wanted.len()));
        for kind in ["multipart/mixed", "multipart/mixed;boundary=", "multipart/mixed;boundary=b2", "text/plain"] {
            assert_eq!(rewritten(kind, &body, "192.0.2.1"), None, "{kind}");
        }
    }

    #[test]
    fn what_a_body_is_is_said_once() {
        let sdp = "v=0\r\nc=IN IP4 10.0.0.5\r\nm=audio 4000 RTP/AVP 0\r\n";
        for (kind, readable) in [
            ("application/sdp", Some(true)),
            ("text/plain", Some(false)),
            ("text/plain, application/sdp", None),
            ("text/plain\r\nContent-Type: application/sdp", None),
            ("application/sdp\r\nc: text/plain", None),
            ("multipart/mixed", None),
            ("multipart/mixed;boundary=b2", None),
        ] {
            let text = message(kind, sdp);
            let mut head = Head::default();
            parse(text.as_bytes(), &Limits::STANDARD, &mut head).unwrap();
            let found = description(&Message::new(text.as_bytes(), &head));
            assert_eq!(found.ok().map(|found| found.is_some()), readable, "{kind}");
        }
    }

    #[test]
    fn engines_get_addresses_for_names_and_nothing_that_they_do_not_read() {
        let sdp = "v=0\r\nc=IN IP4 phone.example\r\nm=audio 4000 RTP/AVP 0\r\nm=video 4002 RTP/AVP 96\r\nc=IN IP4 10.0.0.5\r\n";
        let session = SessionDescription::read(sdp.as_bytes(), Span::new(0, sdp.len())).unwrap();
        let out = for_engines(sdp.as_bytes(), Span::new(0, sdp.len()), &session, &[1], "2001:db8::7".parse().unwrap());
        assert_eq!(String::from_utf8(out).unwrap(), sdp.replace("IN IP4 phone.example", "IN IP6 2001:db8::7").replace("video 4002", "video 0"));
        for (text, good) in [("v=0\r\ns=x\r\n\r\n", true), ("v=0\ns=x", true), ("\r\nv=0\r\n", false), ("v=1\r\n", false), ("v=0\r\n\r\ns=x", false)] {
            assert_eq!(is_for_engines(text.as_bytes()), good, "{text:?}");
        }
    }
}
