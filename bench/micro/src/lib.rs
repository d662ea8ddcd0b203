//! The units of work that are measured alone: by criterion in time, by callgrind in instructions.
#![forbid(unsafe_code)]

use edge::PeerKind;
use syntax::{Head, HeaderName, Limits, Message, parse, parse_name_addr};
use testkit::{Request, Rig, headers, peer, response, settings};

const CALLER: &str = "198.51.100.7:5060";
const CORE: &str = "203.0.113.9:5060";

/// An INVITE of 800 bytes with SDP, as a phone behind one proxy sends it.
pub const INVITE: &str = "INVITE sip:+4930123456@edge.example.net;user=phone SIP/2.0\r\n\
Via: SIP/2.0/UDP 192.0.2.33:5060;rport;branch=z9hG4bKnashds8-1a2b3c\r\n\
Max-Forwards: 70\r\n\
Route: <sip:edge.example.net:5060;lr>\r\n\
From: \"Alice Liddell\" <sip:alice@example.net>;tag=1928301774\r\n\
To: <sip:+4930123456@edge.example.net;user=phone>\r\n\
Call-ID: a84b4c76e66710-7f2e@192.0.2.33\r\n\
CSeq: 314159 INVITE\r\n\
Contact: <sip:alice@192.0.2.33:5060>\r\n\
Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE\r\n\
User-Agent: Phone 4.2.1\r\n\
Organization: Example Networks AG\r\n\
Supported: replaces, timer\r\n\
Content-Type: application/sdp\r\n\
Content-Length: 209\r\n\
\r\n\
v=0\r\n\
o=alice 2890844526 2890844526 IN IP4 192.0.2.33\r\n\
s=-\r\n\
c=IN IP4 192.0.2.33\r\n\
t=0 0\r\n\
m=audio 49172 RTP/AVP 0 8 101\r\n\
a=rtpmap:0 PCMU/8000\r\n\
a=rtpmap:8 PCMA/8000\r\n\
a=rtpmap:101 telephone-event/8000\r\n\
a=sendrecv\r\n";

/// Parses to everything that routing needs, the first Route and Contact among it; returns something that depends on all.
pub fn parse_invite(bytes: &[u8], head: &mut Head) -> usize {
    if parse(bytes, &Limits::STANDARD, head).is_err() {
        return 0;
    }
    let message = Message::new(bytes, head);
    let element = |name| message.elements(name).next().and_then(|span| parse_name_addr(bytes, span)).map_or(0, |address| address.uri.len());
    element(HeaderName::Route) + element(HeaderName::Contact) + message.call_id().len() + message.body().len()
}

/// An edge with one core.
pub fn rig() -> Rig {
    let core = peer("core", PeerKind::Core, "203.0.113.0/24", &["sip:203.0.113.9"]);
    Rig::new(settings(vec![core, peer("phones", PeerKind::Trusted, "198.51.100.0/24", &[])]))
}

/// One call through the edge, INVITE to BYE, with its share of timers; returns how many messages it sent.
pub fn relay_call(rig: &mut Rig, number: u32) -> usize {
    let call_id = format!("call-{number}");
    let request = |method: &str, cseq, to_tag| {
        Request::new(method, "sip:bob@203.0.113.9").call_id(&call_id).tags("alice", to_tag).branch(&format!("z9hG4bK-{number}-{cseq}-{method}")).cseq(cseq)
    };
    let sent = rig.receive(CALLER, &request("INVITE", 1, "").header("Content-Type: application/sdp").body("v=0\r\n").text());
    let Some(forwarded) = sent.last().map(|s| s.text.clone()) else { return 0 };
    let ringing = rig.receive(CORE, &response(&forwarded, 180, "bob"));
    let answered = rig.receive(CORE, &response(&forwarded, 200, "bob"));
    let Some(route) = answered.first().map(|ok| headers(&ok.text, "Record-Route").join(", ")) else { return 0 };
    let ack = rig.receive(CALLER, &request("ACK", 1, "bob").header(&format!("Route: {route}")).text());
    let bye = rig.receive(CALLER, &request("BYE", 2, "bob").header(&format!("Route: {route}")).text());
    let ended = bye.last().map_or_else(Vec::new, |bye| rig.receive(CORE, &response(&bye.text, 200, "bob")));
    rig.records.clear();
    let timers = rig.advance(20);
    sent.len() + ringing.len() + answered.len() + ack.len() + bye.len() + ended.len() + timers.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_units_do_what_they_claim() {
        assert_eq!(INVITE.len(), 800);
        assert!(parse_invite(INVITE.as_bytes(), &mut Head::default()) > 205);
        let mut rig = rig();
        assert_eq!([relay_call(&mut rig, 1), relay_call(&mut rig, 2)], [7, 7]);
    }
}
