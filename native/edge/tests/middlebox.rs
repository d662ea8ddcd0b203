//! What middleboxes that rewrite SIP leave of it is noticed, and made good where our seal says what it was.
#![expect(clippy::unwrap_used, reason = "tests")]

use edge::{PeerKind, RouteSettings};
use testkit::{Request, Rig, header, headers, listener, peer, registrar, response, settings};

const PHONE: &str = "198.51.100.9:31000";
const CORE: &str = "192.0.2.200:5060";
const INSIDE: &str = "10.1.2.254:5099";

fn served() -> RouteSettings {
    let mut settings =
        settings(vec![peer("core", PeerKind::Core, "192.0.2.200", &["sip:192.0.2.200"]), peer("phones", PeerKind::Subscribers, "198.51.100.0/24", &[])]);
    settings.registrar = Some(registrar("example.net"));
    settings
}

const REGISTER: &str = "REGISTER sip:example.net SIP/2.0\r\nVia: SIP/2.0/UDP 10.1.2.3;branch=z9hG4bKr\r\nFrom: <sip:bob@example.net>;tag=1\r\n\
                        To: <sip:bob@example.net>\r\nCall-ID: r\r\nCSeq: 1 REGISTER\r\nContact: <sip:bob@10.1.2.3>\r\nContent-Length: 0\r\n\r\n";

/// The INVITE as bob's phone gets it.
fn called(rig: &mut Rig) -> String {
    assert_eq!(rig.receive(PHONE, REGISTER)[0].status_code(), 200);
    let sent = rig.receive(CORE, &Request::new("INVITE", "sip:bob@example.net").via("SIP/2.0/UDP 192.0.2.200").text());
    sent.iter().find(|sent| sent.text.starts_with("INVITE")).unwrap().text.clone()
}

#[test]
fn a_dialog_survives_a_box_that_writes_its_own_address_everywhere() {
    for twice in [false, true] {
        let mut configured = served();
        if twice {
            configured.listeners.push(listener("inside", "udp:192.0.2.1:5070"));
            configured.peers[0].matches[0].listener = "inside".to_owned();
        }
        let own: &[&str] = if twice { &["192.0.2.1:5060", "192.0.2.1:5070"] } else { &["192.0.2.1:5060"] };
        let mut rig = Rig::new(configured);
        assert_eq!(rig.receive(PHONE, REGISTER)[0].status_code(), 200);
        let invite = Request::new("INVITE", "sip:bob@example.net").via("SIP/2.0/UDP 192.0.2.200").text();
        let sent = rig.receive_at(u16::from(twice), syntax::Transport::Udp, CORE, invite.as_bytes());
        let invite = sent.iter().find(|sent| sent.text.starts_with("INVITE")).unwrap().text.clone();
        let boxed = own.iter().fold(invite, |text, own| text.replace(own, INSIDE));
        let sent = rig.receive(PHONE, &response(&boxed, 200, "bob"));
        let ok = sent.iter().find(|sent| sent.to.to_string() == CORE).unwrap().text.clone();
        let routes = headers(&ok, "Record-Route");
        assert_eq!(routes.len(), own.len());
        for (route, own) in routes.iter().zip(own) {
            assert!(route.contains(&format!("@{own};lr")), "{route}");
        }
        assert_eq!(rig.counters().messages_rewritten.get(), 2, "Via and Record-Route");
        // The phone hangs up by the Route that the box had it see.
        let route = headers(&boxed, "Record-Route").join(", ");
        let bye = Request::new("BYE", "sip:alice@192.0.2.200").via("SIP/2.0/UDP 10.1.2.3").tags("bob", "alice").cseq(9).header(&format!("Route: {route}"));
        let bye = bye.text().replace("To: <sip:bob@example.net>", "To: <sip:alice@example.net>");
        let sent = rig.receive(PHONE, &bye);
        assert_eq!((sent[0].to.to_string().as_str(), sent[0].first_line()), (CORE, "BYE sip:alice@192.0.2.200 SIP/2.0"), "{sent:?}");
        assert!(headers(&sent[0].text, "Route").is_empty());
        assert_eq!(rig.counters().messages_rewritten.get(), 3);
    }
}

#[test]
fn a_response_with_a_foreign_via_from_elsewhere_is_dropped() {
    let mut rig = Rig::new(served());
    let boxed = called(&mut rig).replace("192.0.2.1:5060", INSIDE);
    assert!(rig.receive("198.51.100.10:5060", &response(&boxed, 200, "bob")).is_empty());
    assert_eq!((rig.counters().stray_responses.get(), rig.counters().messages_rewritten.get()), (1, 0));
}

#[test]
fn a_foreign_route_is_none_of_ours_whatever_it_looks_like() {
    let mut rig = Rig::new(served());
    let invite = called(&mut rig);
    rig.receive(PHONE, &response(&invite, 200, "bob"));
    let route = header(&invite, "Record-Route").replace("192.0.2.1:5060", INSIDE);
    let at = route.find("sip:").unwrap() + 20;
    let mut forged = route.clone();
    forged.replace_range(at..=at, if &route[at..=at] == "0" { "1" } else { "0" });
    let bye = Request::new("BYE", "sip:alice@192.0.2.200").via("SIP/2.0/UDP 10.1.2.3").tags("bob", "alice").cseq(9).header(&format!("Route: {forged}"));
    rig.receive("198.51.100.77:5060", &bye.text());
    assert_eq!(rig.counters().messages_rewritten.get(), 0);
}

#[test]
fn a_body_that_outgrew_its_length_is_told_once_an_hour() {
    let mut rig = Rig::new(served());
    let longer = |cseq: u32| REGISTER.replace("CSeq: 1 ", &format!("CSeq: {cseq} ")).replace("Content-Length: 0", "Content-Length: 3") + "abcdef";
    for cseq in 1..4 {
        assert_eq!(rig.receive(PHONE, &longer(cseq))[0].status_code(), 200);
    }
    rig.receive(PHONE, &(REGISTER.replace("CSeq: 1 ", "CSeq: 9 ").replace("Content-Length: 0", "Content-Length: 3") + "abc\r\n\0"));
    assert_eq!(rig.counters().messages_rewritten.get(), 3);
}
