//! Media descriptions of a session description (RFC 8866 section 5.14): where each stream wants its packets, and where in the
//! text that is said, so that it can be said otherwise and nothing else changes.

use std::net::IpAddr;

use crate::{Span, parse_ip, sdp_lines};

/// Media descriptions that are read; a text with more is not.
const MOST: usize = 32;

/// A `c=` line (RFC 8866 section 5.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// What follows `c=`.
    pub value: Span,
    /// The address; nothing where it is a name.
    pub address: Option<IpAddr>,
}

/// An `a=rtcp:` line (RFC 3605).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtcpPlace {
    /// What follows `a=rtcp:`.
    pub value: Span,
    /// The port.
    pub port: u16,
    /// The address, where it is another one.
    pub address: Option<IpAddr>,
}

/// Who sends (RFC 8866 section 6.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the attribute of its name")]
pub enum MediaDirection {
    #[default]
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

/// One media description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaDescription {
    /// Its `m=` line with its end, and the `i=` line that follows: what comes in front of its `c=` line (RFC 8866 section 5).
    pub line: Span,
    /// The port, with the number of ports where there is one.
    pub port_span: Span,
    /// The port; 0 where the stream is refused or removed (RFC 3264 section 6).
    pub port: u16,
    /// The transport protocol: `RTP/AVP`, `udptl`.
    pub protocol: Span,
    /// Its own `c=` line.
    pub connection: Option<Connection>,
    /// Its `a=rtcp:` line.
    pub rtcp: Option<RtcpPlace>,
    /// Who sends; nothing where only the session part says.
    pub direction: Option<MediaDirection>,
    /// Ticks a second of its first format, as `a=rtpmap:` says.
    pub clock_rate: Option<u32>,
    /// Lines by which ICE agents find each other (RFC 8839).
    pub ice: Vec<Span>,
    /// Whether DTLS agrees on its keys (RFC 8122, RFC 8842).
    pub dtls: bool,
}

/// A whole session description.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionDescription {
    /// The `c=` line of the session part.
    pub connection: Option<Connection>,
    /// Who sends where a media description does not say.
    pub direction: Option<MediaDirection>,
    /// Lines of ICE in the session part.
    pub ice: Vec<Span>,
    /// Whether the session part says that DTLS agrees on keys.
    pub dtls: bool,
    /// The media descriptions in order.
    pub media: Vec<MediaDescription>,
}

impl SessionDescription {
    /// Reads the text at `body` of `bytes`; `None` where it is none, or a line that matters cannot be read.
    pub fn read(bytes: &[u8], body: Span) -> Option<Self> {
        let mut session = Self::default();
        let mut format: &[u8] = b"";
        if !is_plain(body.of(bytes)) {
            return None;
        }
        let mut lines = sdp_lines(bytes, body);
        // RFC 8866 section 5: it begins with its version.
        lines.next().filter(|line| line.kind == b'v' && line.value.of(bytes).trim_ascii().iter().all(u8::is_ascii_digit))?;
        for line in lines {
            let value = line.value.of(bytes);
            match (line.kind, session.media.last_mut()) {
                (b'm', _) => {
                    if session.media.len() >= MOST {
                        return None;
                    }
                    let (media, first) = media_line(bytes, line.value, line.line)?;
                    format = first;
                    session.media.push(media);
                }
                (b'i', Some(media)) if media.line.end() == line.line.start() => media.line = Span::new(media.line.start(), line.line.end()),
                (b'c', last) => {
                    let connection = Some(connection(bytes, line.value)?);
                    let place = last.map_or(&mut session.connection, |media| &mut media.connection);
                    // Several lines are for layers of multicast: the first one counts.
                    *place = place.or(connection);
                }
                (b'a', last) => {
                    let (name, rest) = match memchr::memchr(b':', value) {
                        Some(at) => value.split_at_checked(at)?,
                        None => (value, &b""[..]),
                    };
                    if is_ice(name) {
                        last.map_or(&mut session.ice, |media| &mut media.ice).push(line.line);
                        continue;
                    }
                    if let Some(direction) = direction(name) {
                        *last.map_or(&mut session.direction, |media| &mut media.direction) = Some(direction);
                        continue;
                    }
                    if matches!(name, b"fingerprint" | b"setup") {
                        *last.map_or(&mut session.dtls, |media| &mut media.dtls) = true;
                        continue;
                    }
                    let Some(media) = last else { continue };
                    let rest = rest.get(1..).unwrap_or_default();
                    if name == b"rtcp" {
                        media.rtcp = rtcp(Span::new(line.value.start() + 5, line.value.end()), rest);
                    } else if name == b"rtpmap" && media.clock_rate.is_none() {
                        media.clock_rate = clock_rate(rest, format);
                    }
                }
                _ => {}
            }
        }
        Some(session)
    }

    /// Where a media description wants its packets.
    pub fn connection_of(&self, media: &MediaDescription) -> Option<Connection> {
        media.connection.or(self.connection)
    }

    /// Who sends in a media description.
    pub fn direction_of(&self, media: &MediaDescription) -> MediaDirection {
        media.direction.or(self.direction).unwrap_or_default()
    }
}

/// Whether everybody reads the same lines in a text: some take a CR alone for the end of one, or overlook blanks around the letter.
fn is_plain(text: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').all(|line| {
        let end = line.iter().rposition(|byte| *byte != b'\r').map_or(0, |last| last + 1);
        let line = line.get(..end).unwrap_or_default();
        let blank = line.trim_ascii_start();
        let disguised = || matches!(blank, [b'm' | b'c', rest @ ..] if rest.trim_ascii_start().starts_with(b"=")) && !matches!(line, [b'm' | b'c', b'=', ..]);
        memchr::memchr(b'\r', line).is_none() && !disguised()
    })
}

fn media_line(bytes: &[u8], value: Span, line: Span) -> Option<(MediaDescription, &[u8])> {
    let mut words = words(bytes, value).skip(1);
    let port_span = words.next()?;
    let digits = port_span.of(bytes).split(|byte| *byte == b'/').next()?;
    let port = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let protocol = words.next()?;
    let format = words.next().map_or(&b""[..], |word| word.of(bytes));
    let media = MediaDescription {
        line,
        port_span,
        port,
        protocol,
        connection: None,
        rtcp: None,
        direction: None,
        clock_rate: static_rate(format),
        ice: Vec::new(),
        dtls: false,
    };
    Some((media, format))
}

fn words(bytes: &[u8], value: Span) -> impl Iterator<Item = Span> {
    let text = value.of(bytes);
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + text.get(at..)?.iter().position(|byte| *byte != b' ')?;
        let length = text.get(start..)?.iter().position(|byte| *byte == b' ').unwrap_or(text.len() - start);
        at = start + length;
        Some(Span::new(value.start() + start, value.start() + at))
    })
}

fn connection(bytes: &[u8], value: Span) -> Option<Connection> {
    let mut words = words(bytes, value).map(|word| word.of(bytes));
    let (network, family, host) = (words.next()?, words.next()?, words.next()?);
    let known = network.eq_ignore_ascii_case(b"IN") && (family.eq_ignore_ascii_case(b"IP4") || family.eq_ignore_ascii_case(b"IP6"));
    // What follows a slash is for multicast.
    let host = host.split(|byte| *byte == b'/').next()?;
    known.then(|| Connection { value, address: parse_ip(host) })
}

fn rtcp(value: Span, text: &[u8]) -> Option<RtcpPlace> {
    let mut words = text.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
    let port = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
    Some(RtcpPlace { value, port, address: words.nth(2).and_then(parse_ip) })
}

fn is_ice(name: &[u8]) -> bool {
    name.starts_with(b"ice-") || [&b"candidate"[..], b"remote-candidates", b"end-of-candidates"].contains(&name)
}

fn direction(name: &[u8]) -> Option<MediaDirection> {
    Some(match name {
        b"sendrecv" => MediaDirection::SendRecv,
        b"sendonly" => MediaDirection::SendOnly,
        b"recvonly" => MediaDirection::RecvOnly,
        b"inactive" => MediaDirection::Inactive,
        _ => return None,
    })
}

/// The rate of `a=rtpmap:FORMAT NAME/RATE`, where that is for `format`.
fn clock_rate(text: &[u8], format: &[u8]) -> Option<u32> {
    let rest = text.strip_prefix(format)?.strip_prefix(b" ")?;
    let rate = rest.split(|byte| *byte == b'/').nth(1)?;
    std::str::from_utf8(rate).ok()?.trim().parse().ok().filter(|rate| (1..=1_000_000).contains(rate))
}

/// Payload types that need no `a=rtpmap:` and do not run at 8,000 (RFC 3551 section 6).
fn static_rate(format: &[u8]) -> Option<u32> {
    Some(match format {
        b"6" => 16_000,
        b"10" | b"11" => 44_100,
        b"14" | b"25" | b"26" | b"28" | b"31" | b"32" | b"33" | b"34" => 90_000,
        b"16" => 11_025,
        b"17" => 22_050,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<SessionDescription> {
        SessionDescription::read(text.as_bytes(), Span::new(0, text.len()))
    }

    #[test]
    fn each_stream_tells_where_it_wants_its_packets() {
        let text = "v=0\r\no=- 1 1 IN IP4 10.0.0.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\na=sendonly\r\n\
                    m=audio 4000/2 RTP/AVP 96 0\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:96 opus/48000/2\r\na=rtcp:5001 IN IP4 192.0.2.9\r\n\
                    m=video 0 RTP/AVP 31\r\nm=image 4002 udptl t38\nc=IN IP6 2001:db8::1\na=inactive\na=candidate:1 1 UDP 1 10.0.0.1 4002 typ host";
        let session = read(text).unwrap();
        let [audio, video, fax] = session.media.as_slice() else { panic!("{session:?}") };
        assert_eq!((audio.port, audio.port_span.of(text.as_bytes()), audio.clock_rate), (4_000, &b"4000/2"[..], Some(48_000)));
        assert_eq!(session.connection_of(audio).and_then(|c| c.address), Some("192.0.2.1".parse().unwrap()));
        let rtcp = audio.rtcp.unwrap();
        assert_eq!((rtcp.port, rtcp.address, rtcp.value.of(text.as_bytes())), (5_001, Some("192.0.2.9".parse().unwrap()), &b"5001 IN IP4 192.0.2.9"[..]));
        assert_eq!((video.port, video.clock_rate, session.direction_of(video)), (0, Some(90_000), MediaDirection::SendOnly));
        assert_eq!(session.connection_of(fax).and_then(|c| c.address), Some("2001:db8::1".parse().unwrap()));
        assert_eq!((session.direction_of(fax), fax.ice.len(), fax.protocol.of(text.as_bytes())), (MediaDirection::Inactive, 1, &b"udptl"[..]));
    }

    #[test]
    fn what_matters_must_be_readable_and_the_rest_need_not() {
        for good in ["v=0", "v=0\r\nb=\r\nb=AS\r\nm=audio 1 RTP/AVP", "v=0\nc=IN IP4 host.example\nm=audio 1 RTP/AVP 0\na=rtcp:x", "v=0\r\nzzz\r\na=\r\na=:"] {
            assert!(read(good).is_some(), "{good}");
        }
        for bad in
            ["", "m=audio 1 RTP/AVP 0", "v=0\r\nm=audio", "v=0\r\nm=audio x RTP/AVP 0", "v=0\r\nm=audio 70000 RTP/AVP 0", "v=0\r\nc=IN IP4", "v=0\r\nc=ATM x y"]
        {
            assert_eq!(read(bad), None, "{bad}");
        }
        let one = "v=0\r\nc=IN IP4 192.0.2.1\r\nm=audio 1 RTP/AVP 0\r\n";
        assert!(read(&one.replace('\n', "\r\n")).is_some(), "some write two CRs");
        for (from, to) in [("\r\n", "\r"), ("1\r\nm", "1\rm"), ("m=", "m = "), ("m=", " m="), ("c=", "c ="), ("v=0", "v=x")] {
            assert_eq!(read(&one.replace(from, to)), None, "{from} {to}");
        }
        assert_eq!(read(&format!("v=0\r\n{}", "m=audio 1 RTP/AVP 0\r\n".repeat(MOST + 1))), None);
    }
}
