//! The ng protocol of rtpengine: commands as datagrams, and what its answers say.

use std::net::IpAddr;

use crate::bencode::{Value, push_list, push_text};
use crate::command::SessionId;
use crate::report::{SessionReport, SideReport, StreamReport};

/// What an rtpengine is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NgKind {
    /// A description that offers: give the one to pass on.
    Offer,
    /// One that answers.
    Answer,
    /// The session is over.
    Delete,
}

/// One command about one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NgCommand {
    /// What to do.
    pub kind: NgKind,
    /// The session, as we know it.
    pub session: SessionId,
    /// The name of the session there.
    pub call_id: String,
    /// Tag of the side that offered.
    pub from_tag: String,
    /// Tag of the other side; empty while it has none.
    pub to_tag: String,
    /// The description; empty for [`NgKind::Delete`].
    pub sdp: Box<[u8]>,
    /// Where it came from: the address that its sender's packets may come from, too.
    pub received_from: IpAddr,
    /// Whether its own addresses mean nothing outside its network, so that this one counts.
    pub hidden: bool,
    /// Whether whoever gets the description has IPv6.
    pub to_v6: bool,
    /// Names of the networks of its sender and of whoever gets it, where the engine is to tell them apart.
    pub directions: Option<[String; 2]>,
}

/// Asks whether somebody is there.
pub fn ng_ping(cookie: &str) -> Vec<u8> {
    format!("{cookie} d7:command4:pinge").into_bytes()
}

impl NgCommand {
    /// The datagram; its answer begins with the same cookie.
    pub fn datagram(&self, cookie: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.sdp.len() + 512);
        out.extend_from_slice(cookie.as_bytes());
        out.extend_from_slice(b" d");
        let mut pair = |key: &str, value: &[u8]| {
            push_text(&mut out, key.as_bytes());
            push_text(&mut out, value);
        };
        pair("call-id", self.call_id.as_bytes());
        pair(
            "command",
            match self.kind {
                NgKind::Offer => b"offer",
                NgKind::Answer => b"answer",
                NgKind::Delete => b"delete",
            },
        );
        if self.kind == NgKind::Delete {
            // Of a tag that it knows it tells what that was like; without one all goes and nothing is told.
            if !self.from_tag.is_empty() {
                pair("from-tag", self.from_tag.as_bytes());
            }
            push_text(&mut out, b"delete-delay");
            out.extend_from_slice(b"i0e");
        } else {
            pair("from-tag", self.from_tag.as_bytes());
            if !self.to_tag.is_empty() {
                pair("to-tag", self.to_tag.as_bytes());
            }
            pair("sdp", &self.sdp);
            pair("ICE", b"remove");
            pair("address-family", if self.to_v6 { b"IP6" } else { b"IP4" });
            push_text(&mut out, b"received-from");
            let family: &[u8] = if self.received_from.is_ipv6() { b"IP6" } else { b"IP4" };
            push_list(&mut out, &[family, self.received_from.to_string().as_bytes()]);
            push_text(&mut out, b"replace");
            push_list(&mut out, &[b"session-connection"]);
            if self.hidden {
                push_text(&mut out, b"flags");
                push_list(&mut out, &[b"SIP-source-address"]);
            }
            if let Some([from, to]) = &self.directions {
                push_text(&mut out, b"direction");
                push_list(&mut out, &[from.as_bytes(), to.as_bytes()]);
            }
        }
        out.push(b'e');
        out
    }
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq)]
pub enum NgAnswer {
    /// Somebody is there.
    Pong,
    /// The description to pass on.
    Description(Box<[u8]>),
    /// A session is over; what it was like, each stream's packets by tag.
    Deleted(Vec<(String, Vec<SideReport>)>),
    /// It was not done, and why.
    Error(String),
}

/// Splits a datagram into its cookie and what it says; `None` for one that cannot be read.
pub fn ng_answer(datagram: &[u8]) -> Option<(&str, NgAnswer)> {
    let space = datagram.iter().take(64).position(|byte| *byte == b' ')?;
    let cookie = std::str::from_utf8(datagram.get(..space)?).ok()?;
    let value = Value::read(datagram.get(space + 1..)?)?;
    let answer = match value.get("result").and_then(Value::text)? {
        b"pong" => NgAnswer::Pong,
        b"ok" => match value.get("sdp").and_then(Value::text) {
            Some(sdp) => NgAnswer::Description(sdp.into()),
            None => NgAnswer::Deleted(tags(&value)),
        },
        b"error" => NgAnswer::Error(text_of(value.get("error-reason").and_then(Value::text).unwrap_or(b"no reason given"))),
        _ => return None,
    };
    Some((cookie, answer))
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What came from each tag: its streams in the order of the SDP.
fn tags(value: &Value<'_>) -> Vec<(String, Vec<SideReport>)> {
    let sources = value.get("SSRC");
    let streams = |tag: &Value<'_>| tag.get("medias").map(Value::list).unwrap_or_default().iter().map(|media| side(media, sources)).collect();
    value.get("tags").map(Value::pairs).unwrap_or_default().iter().map(|(tag, value)| (text_of(tag), streams(value))).collect()
}

fn side(media: &Value<'_>, sources: Option<&Value<'_>>) -> SideReport {
    let count = |value: Option<&Value<'_>>, key: &str| value.and_then(|value| value.get(key)).and_then(Value::number).and_then(|n| u64::try_from(n).ok());
    let stream = media.get("streams").map(Value::list).unwrap_or_default().first();
    let stats = stream.and_then(|stream| stream.get("stats"));
    let endpoint = stream.and_then(|stream| stream.get("endpoint"));
    let source = endpoint.and_then(|endpoint| {
        let address: IpAddr = std::str::from_utf8(endpoint.get("address")?.text()?).ok()?.parse().ok()?;
        Some((address, u16::try_from(endpoint.get("port")?.number()?).ok()?).into())
    });
    // Opinions stand with the sources, in tenths, and only where RTCP told of them.
    let own = count(stream, "SSRC").and_then(|number| sources?.get(&number.to_string()));
    let average = own.and_then(|own| own.get("average MOS"));
    SideReport {
        packets: count(stats, "packets").unwrap_or(0),
        octets: count(stats, "bytes").unwrap_or(0),
        lost: count(own, "packets lost").or_else(|| count(own, "cumulative loss")).unwrap_or(0),
        jitter_milliseconds: count(average, "jitter").unwrap_or(0) as f32,
        most_jitter_milliseconds: count(own.and_then(|own| own.get("highest MOS")), "jitter").unwrap_or(0) as f32,
        mos: count(average, "MOS").map(|tenths| tenths as f32 / 10.0),
        refused: 0,
        source,
    }
}

/// The report of `session` by what an engine told of the tags of caller and callee.
pub fn ng_report(session: SessionId, told: &[(String, Vec<SideReport>)], caller_tag: &str) -> SessionReport {
    let of = |is_caller: bool| told.iter().find(|(tag, _)| (tag == caller_tag) == is_caller).map(|(_, sides)| sides.as_slice()).unwrap_or_default();
    let (caller, callee) = (of(true), of(false));
    let count = caller.len().max(callee.len()).min(usize::from(u8::MAX));
    let at = |sides: &[SideReport], index: usize| sides.get(index).copied().unwrap_or_default();
    let streams = (0..count).map(|index| StreamReport { index: index as u8, sides: [at(caller, index), at(callee, index)] }).collect();
    SessionReport { session, streams }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_says_all_that_the_engine_needs() {
        let mut command = NgCommand {
            kind: NgKind::Offer,
            session: SessionId(1),
            call_id: "c".to_owned(),
            from_tag: "a".to_owned(),
            to_tag: String::new(),
            sdp: b"v=0\r\n"[..].into(),
            received_from: "192.0.2.1".parse().unwrap(),
            hidden: true,
            to_v6: true,
            directions: Some(["out".to_owned(), "in".to_owned()]),
        };
        let datagram = command.datagram("7");
        assert!(datagram.starts_with(b"7 d7:call-id1:c7:command5:offer"));
        let value = Value::read(&datagram[2..]).unwrap();
        assert_eq!(value.get("sdp").and_then(Value::text), Some(&b"v=0\r\n"[..]));
        assert_eq!(value.get("received-from").map(Value::list), Some(&[Value::Text(b"IP4"), Value::Text(b"192.0.2.1")][..]));
        assert_eq!(value.get("address-family").and_then(Value::text), Some(&b"IP6"[..]));
        assert_eq!(value.get("flags").map(Value::list), Some(&[Value::Text(b"SIP-source-address")][..]));
        assert_eq!((value.get("direction").map(|list| list.list().len()), value.get("to-tag")), (Some(2), None));
        (command.kind, command.to_tag) = (NgKind::Delete, "b".to_owned());
        let value = command.datagram("7");
        let value = Value::read(&value[2..]).unwrap();
        assert_eq!((value.get("to-tag"), value.get("sdp"), value.get("delete-delay").and_then(Value::number)), (None, None, Some(0)));
    }

    #[test]
    fn answers_are_read_and_what_is_none_is_not() {
        assert_eq!(ng_answer(b"3 d6:result4:ponge"), Some(("3", NgAnswer::Pong)));
        assert_eq!(ng_answer(b"3 d6:result2:ok3:sdp3:v=0e"), Some(("3", NgAnswer::Description(b"v=0"[..].into()))));
        assert_eq!(ng_answer(b"3 d12:error-reason4:full6:result5:errore"), Some(("3", NgAnswer::Error("full".to_owned()))));
        for bad in [&b""[..], b"3", b"3 d6:result4:whate", b"3 de", b"\xff d6:result4:ponge"] {
            assert_eq!(ng_answer(bad), None);
        }
    }

    #[test]
    fn the_end_tells_what_came_from_each_side() {
        let stream = |packets: u32, ssrc: u32| {
            format!("d8:endpointd7:address9:127.0.0.14:porti4000ee4:SSRCi{ssrc}e5:statsd5:bytesi{}e7:packetsi{packets}eee", packets * 172)
        };
        let tag = |packets, ssrc| format!("d6:mediasld7:streamsl{}eeee", stream(packets, ssrc));
        let text = format!("9 d4:SSRCd1:5d11:average MOSd3:MOSi43e6:jitteri2eeee6:result2:ok4:tagsd1:a{}1:b{}ee", tag(50, 5), tag(40, 6));
        let Some((_, NgAnswer::Deleted(told))) = ng_answer(text.as_bytes()) else { panic!("{text}") };
        let report = ng_report(SessionId(1), &told, "a");
        let [caller, callee] = report.streams[0].sides;
        assert_eq!((caller.packets, caller.octets, caller.mos, caller.jitter_milliseconds), (50, 8_600, Some(4.3), 2.0));
        assert_eq!((callee.packets, callee.mos, callee.source), (40, None, Some("127.0.0.1:4000".parse().unwrap())));
    }
}
