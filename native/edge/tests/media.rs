//! Calls whose media is relayed: what each side is told, what the media worker is told, and that nothing is left behind.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;

use edge::{Engage, PeerKind, RouteSettings};
use testkit::{Request, Rig, Sent, final_to_tag, header, headers, listener, media, peer, response, sdp, settings, with_body};

const CALLER: &str = "198.51.100.7:5060";
const CALLEE: &str = "203.0.113.9:5060";

/// Address and port of the first stream, and whether the head says how long the body is.
fn place(message: &str) -> (String, u16) {
    let (head, body) = message.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{message}");
    let address = body.split("c=IN IP").nth(1).unwrap()[2..].lines().next().unwrap().to_owned();
    let port = body.split("m=audio ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    (address, port)
}

fn standard(engage: Engage) -> RouteSettings {
    let mut settings =
        settings(vec![peer("phones", PeerKind::Subscribers, "198.51.100.0/24", &[]), peer("core", PeerKind::Core, "203.0.113.0/24", &["sip:203.0.113.9"])]);
    settings.media = Some(media(engage));
    settings
}

fn rtp(number: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend_from_slice(&number.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0, 9]);
    packet.resize(172, 0x55);
    packet
}

fn invite(body: &str) -> String {
    let request = Request::new("INVITE", "sip:bob@203.0.113.9");
    if body.is_empty() { request.text() } else { request.header("Content-Type: application/sdp").body(body).text() }
}

fn sent_to<'a>(sent: &'a [Sent], to: &str) -> &'a Sent {
    sent.iter().rfind(|sent| sent.to.to_string() == to).unwrap()
}

/// A call that is answered: the rig, the INVITE as sent, the 200 as sent, and what the caller's ACK would be.
fn call(rig: &mut Rig) -> (Sent, Sent) {
    let sent = rig.receive(CALLER, &invite(&sdp("198.51.100.7", 4_000)));
    let invite = sent_to(&sent, CALLEE).clone();
    let sent = rig.receive(CALLEE, &with_body(&response(&invite.text, 200, "bob"), &sdp("203.0.113.9", 5_000)));
    (invite, sent_to(&sent, CALLER).clone())
}

fn within(method: &str, ok: &Sent, cseq: u32, branch: &str) -> Request {
    let mut request = Request::new(method, "sip:bob@203.0.113.9").tags("alice", final_to_tag(&ok.text)).cseq(cseq).branch(branch);
    for route in headers(&ok.text, "Record-Route").iter().rev() {
        request = request.header(&format!("Route: {route}"));
    }
    request
}

fn from_callee(method: &str, invite: &Sent, cseq: u32, branch: &str) -> Request {
    let mut request = Request::new(method, "sip:alice@198.51.100.7").via("SIP/2.0/UDP 203.0.113.9:5060").tags("bob", "alice").cseq(cseq).branch(branch);
    for route in headers(&invite.text, "Record-Route") {
        request = request.header(&format!("Route: {route}"));
    }
    request
}

fn hang_up(rig: &mut Rig, ok: &Sent, cseq: u32) {
    let sent = rig.receive(CALLER, &within("BYE", ok, cseq, "z9hG4bK-bye").text());
    let bye = sent_to(&sent, CALLEE).text.clone();
    rig.receive(CALLEE, &response(&bye, 200, "bob"));
}

#[test]
fn each_side_sends_to_us_and_we_to_the_other() {
    let mut rig = Rig::new(standard(Engage::Always));
    let (invite, ok) = call(&mut rig);
    let (facing_callee, facing_caller) = (place(&invite.text), place(&ok.text));
    assert_eq!((facing_callee.0.as_str(), facing_caller.0.as_str()), ("192.0.2.1", "192.0.2.1"));
    assert_eq!(rig.packet(facing_caller.1, "198.51.100.7:4000", &rtp(1)), Some((facing_callee.1, "203.0.113.9:5000".parse().unwrap())));
    assert_eq!(rig.packet(facing_callee.1, "203.0.113.9:5000", &rtp(1)), Some((facing_caller.1, "198.51.100.7:4000".parse().unwrap())));
    assert_eq!(rig.packet(facing_caller.1, "192.0.2.200:4000", &rtp(1)), None, "a third party");
    hang_up(&mut rig, &ok, 2);
    let record = &rig.records[0];
    assert_eq!((record.media.len(), record.media[0].caller.packets, record.media[0].callee.packets, record.media[0].caller.refused), (1, 1, 1, 1));
    assert_eq!(record.media[0].caller.source, "198.51.100.7:4000");
    assert_eq!((rig.media.taken(), rig.media.sessions()), (0, 0));
}

#[test]
fn a_rule_engages_it_and_either_peer_may_say_otherwise() {
    let engaged = |caller: Option<Engage>, callee: Option<Engage>, engage| {
        let mut settings = standard(engage);
        (settings.peers[0].media, settings.peers[1].media) = (caller, callee);
        let mut rig = Rig::new(settings);
        let sent = rig.receive(CALLER, &invite(&sdp("198.51.100.7", 4_000)));
        place(&sent_to(&sent, CALLEE).text).0 == "192.0.2.1"
    };
    use Engage::{Always, Auto, Never};
    for (caller, callee, engage, expected) in [
        (None, None, Always, true),
        (None, None, Never, false),
        (None, None, Auto, false),
        (Some(Always), None, Never, true),
        (None, Some(Always), Never, true),
        (Some(Never), None, Always, false),
        (Some(Auto), None, Always, false),
        (None, Some(Always), Always, true),
        (Some(Never), Some(Always), Never, true),
        (Some(Never), Some(Never), Always, false),
        (Some(Never), None, Auto, false),
    ] {
        assert_eq!(engaged(caller, callee, engage), expected, "{caller:?} {callee:?} {engage:?}");
    }
}

#[test]
fn what_needs_it_is_found_without_being_told() {
    // An address inside, seen from outside.
    let mut rig = Rig::new(standard(Engage::Auto));
    let sent = rig.receive(CALLER, &invite(&sdp("10.0.0.5", 4_000)));
    let invite_sent = sent_to(&sent, CALLEE).clone();
    assert_eq!(place(&invite_sent.text).0, "192.0.2.1");
    let sent = rig.receive(CALLEE, &with_body(&response(&invite_sent.text, 200, "bob"), &sdp("203.0.113.9", 5_000)));
    let ok = sent_to(&sent, CALLER).clone();
    let (facing_caller, facing_callee) = (place(&ok.text).1, place(&invite_sent.text).1);
    // Until the phone is heard its media goes to where its signalling came from.
    assert_eq!(rig.packet(facing_callee, "203.0.113.9:5000", &rtp(1)), Some((facing_caller, "198.51.100.7:4000".parse().unwrap())));
    assert!(rig.packet(facing_caller, "198.51.100.7:61000", &rtp(1)).is_some());
    assert_eq!(rig.packet(facing_callee, "203.0.113.9:5000", &rtp(2)), Some((facing_caller, "198.51.100.7:61000".parse().unwrap())));

    // Two networks, or two families.
    for (address, network, core) in [("udp:192.0.2.2:5060", "inside", "203.0.113.9"), ("udp:[2001:db8::1]:5060", "", "2001:db8::9")] {
        let mut settings = standard(Engage::Auto);
        settings.listeners.push(edge::ListenerSettings { network: network.to_owned(), ..listener("second", address) });
        let uri = if core.contains(':') { format!("sip:[{core}]") } else { format!("sip:{core}") };
        settings.peers[1] = peer("core", PeerKind::Core, core, &[&uri]);
        settings.peers[1].listener = "second".to_owned();
        let mut rig = Rig::new(settings);
        let sent = rig.receive(CALLER, &invite(&sdp("198.51.100.7", 4_000)));
        let request = sent.iter().find(|sent| sent.first_line().starts_with("INVITE")).unwrap();
        let inside = if core.contains(':') { "2001:db8::1" } else { "192.0.2.2" };
        assert_eq!(place(&request.text).0, inside);
        assert_eq!(rig.media.addresses(), ["192.0.2.1", inside].map(|ip| ip.parse::<std::net::IpAddr>().unwrap()), "the ports face their networks");
    }
}

#[test]
fn what_is_advertised_is_what_descriptions_say() {
    let mut settings = standard(Engage::Always);
    settings.listeners[0].media_advertise = Some("198.18.0.1".parse().unwrap());
    let mut rig = Rig::new(settings);
    let (invite, ok) = call(&mut rig);
    assert_eq!((place(&invite.text).0.as_str(), place(&ok.text).0.as_str()), ("198.18.0.1", "198.18.0.1"));
}

#[test]
fn an_offer_in_the_200_is_answered_by_the_ack() {
    let mut rig = Rig::new(standard(Engage::Always));
    let sent = rig.receive(CALLER, &invite(""));
    let request = sent_to(&sent, CALLEE).text.clone();
    let sent = rig.receive(CALLEE, &with_body(&response(&request, 200, "bob"), &sdp("203.0.113.9", 5_000)));
    let ok = sent_to(&sent, CALLER).clone();
    let ack = within("ACK", &ok, 1, "z9hG4bK-ack").header("Content-Type: application/sdp").body(&sdp("198.51.100.7", 4_000)).text();
    let sent = rig.receive(CALLER, &ack);
    let (facing_caller, facing_callee) = (place(&ok.text).1, place(&sent_to(&sent, CALLEE).text).1);
    assert_eq!(rig.packet(facing_caller, "198.51.100.7:4000", &rtp(1)), Some((facing_callee, "203.0.113.9:5000".parse().unwrap())));
    hang_up(&mut rig, &ok, 2);
    assert_eq!(rig.media.taken(), 0);
}

#[test]
fn sides_number_their_requests_each_by_itself_and_zero_is_a_number() {
    let mut rig = Rig::new(standard(Engage::Always));
    let (invite, ok) = call(&mut rig);
    let (facing_callee, facing_caller) = (place(&invite.text).1, place(&ok.text).1);
    // The callee asks for an offer with the number that the caller's INVITE had.
    let sent = rig.receive(CALLEE, &from_callee("INVITE", &invite, 1, "z9hG4bK-re").text());
    let asked = sent_to(&sent, CALLER).text.clone();
    rig.receive(CALLER, &with_body(&response(&asked, 200, ""), &sdp("198.51.100.7", 4_002)));
    let ack = offered(from_callee("ACK", &invite, 1, "z9hG4bK-ack"), "203.0.113.9", 5_002);
    rig.receive(CALLEE, &ack);
    assert_eq!(rig.packet(facing_caller, "198.51.100.7:4002", &rtp(1)), Some((facing_callee, "203.0.113.9:5002".parse().unwrap())));
    // A repeated ACK offers nothing, so that the next offer counts.
    rig.receive(CALLEE, &ack);
    let sent = rig.receive(CALLER, &offered(within("INVITE", &ok, 2, "z9hG4bK-re2"), "198.51.100.7", 4_004));
    let asked = sent_to(&sent, CALLEE).text.clone();
    rig.receive(CALLEE, &with_body(&response(&asked, 200, ""), &sdp("203.0.113.9", 5_002)));
    assert_eq!(rig.packet(facing_callee, "203.0.113.9:5002", &rtp(1)), Some((facing_caller, "198.51.100.7:4004".parse().unwrap())));
    // A call that begins with zero, and has its offer in the 200.
    let mut rig = Rig::new(standard(Engage::Always));
    let sent = rig.receive(CALLER, &Request::new("INVITE", "sip:bob@203.0.113.9").cseq(0).text());
    let request = sent_to(&sent, CALLEE).text.clone();
    let sent = rig.receive(CALLEE, &with_body(&response(&request, 200, "bob"), &sdp("203.0.113.9", 5_000)));
    let ok = sent_to(&sent, CALLER).clone();
    let sent = rig.receive(CALLER, &offered(within("ACK", &ok, 0, "z9hG4bK-ack"), "198.51.100.7", 4_000));
    let (facing_caller, facing_callee) = (place(&ok.text).1, place(&sent_to(&sent, CALLEE).text).1);
    assert_eq!(rig.packet(facing_caller, "198.51.100.7:4000", &rtp(1)), Some((facing_callee, "203.0.113.9:5000".parse().unwrap())));
}

#[test]
fn what_is_text_does_not_leave_by_a_media_port() {
    let mut rig = Rig::new(standard(Engage::Always));
    let (invite, ok) = call(&mut rig);
    let (facing_callee, facing_caller) = (place(&invite.text).1, place(&ok.text).1);
    assert!(rig.packet(facing_callee, "203.0.113.9:5000", &rtp(1)).is_some());
    assert_eq!(rig.packet(facing_callee, "203.0.113.9:5000", b"INVITE sip:x@192.0.2.1 SIP/2.0\r\n\r\n"), None);
    assert!(rig.packet(facing_callee, "203.0.113.9:5000", &rtp(2)).is_some());
    assert_eq!(rig.packet(facing_caller, "198.51.100.7:4000", b"OPTIONS sip:x SIP/2.0\r\n\r\n"), None);
}

#[test]
fn branches_that_ring_at_once_have_ports_of_their_own() {
    let mut settings = standard(Engage::Always);
    settings.peers[1] =
        edge::PeerSettings { forking: edge::Forking::Parallel, ..peer("core", PeerKind::Core, "203.0.113.0/24", &["sip:203.0.113.9", "sip:203.0.113.10"]) };
    let mut rig = Rig::new(settings);
    let sent = rig.receive(CALLER, &invite(&sdp("198.51.100.7", 4_000)));
    let requests: Vec<Sent> = ["203.0.113.9:5060", "203.0.113.10:5060"].map(|to| sent_to(&sent, to).clone()).into();
    assert_ne!(place(&requests[0].text).1, place(&requests[1].text).1);
    // Early media of both: the caller is told different ports for different dialogs, and each is heard at its own.
    let early: Vec<Sent> = [("203.0.113.9:5060", "one", 0), ("203.0.113.10:5060", "two", 1)]
        .map(|(from, tag, index): (&str, &str, usize)| {
            let body = sdp(from.split(':').next().unwrap(), 5_000);
            let sent = rig.receive(from, &with_body(&response(&requests[index].text, 183, tag), &body));
            sent_to(&sent, CALLER).clone()
        })
        .into();
    assert_ne!(place(&early[0].text).1, place(&early[1].text).1);
    for (index, source) in ["203.0.113.9:5000", "203.0.113.10:5000"].into_iter().enumerate() {
        let out = rig.packet(place(&requests[index].text).1, source, &rtp(1));
        assert_eq!(out, Some((place(&early[index].text).1, "198.51.100.7:4000".parse().unwrap())), "{source}");
    }
    assert_eq!(rig.media.taken(), 4);
    // One answers, the other is cancelled: its ports are free as soon as it has said so.
    let sent = rig.receive("203.0.113.10:5060", &with_body(&response(&requests[1].text, 200, "two"), &sdp("203.0.113.10", 5_000)));
    let ok = sent_to(&sent, CALLER).clone();
    rig.receive("203.0.113.9:5060", &response(&requests[0].text, 487, "one"));
    assert_eq!(rig.media.taken(), 2);
    let bye = within("BYE", &ok, 2, "z9hG4bK-bye").text().replace("203.0.113.9", "203.0.113.10");
    let sent = rig.receive(CALLER, &bye);
    let bye = sent_to(&sent, "203.0.113.10:5060").text.clone();
    rig.receive("203.0.113.10:5060", &response(&bye, 200, "two"));
    assert_eq!((rig.media.taken(), rig.records[0].media.len(), rig.records[0].media[0].attempt), (0, 1, 1));
}

#[test]
fn a_failed_attempt_gives_its_ports_back_before_the_next() {
    let mut settings = standard(Engage::Always);
    settings.peers[1].to = vec!["sip:203.0.113.9".to_owned(), "sip:203.0.113.10".to_owned()];
    let mut rig = Rig::new(settings);
    let sent = rig.receive(CALLER, &invite(&sdp("198.51.100.7", 4_000)));
    let first = sent_to(&sent, CALLEE).text.clone();
    let sent = rig.receive(CALLEE, &response(&first, 503, "x"));
    assert!(sent_to(&sent, "203.0.113.10:5060").first_line().starts_with("INVITE"));
    assert_eq!(rig.media.taken(), 2);
    // The other is silent for ever.
    rig.advance(200_000);
    assert_eq!((rig.media.taken(), rig.records.len(), rig.records[0].media.len()), (0, 1, 0));
}

#[test]
fn hold_a_new_place_and_a_refused_one() {
    let mut rig = Rig::new(standard(Engage::Always));
    let (request, ok) = call(&mut rig);
    let (facing_callee, facing_caller) = (place(&request.text).1, place(&ok.text).1);
    rig.packet(facing_caller, "198.51.100.7:4000", &rtp(1));
    // The caller would move, and the callee will not have it: all stays as it was.
    let offer = |cseq: u32, address: &str, port| {
        within("INVITE", &ok, cseq, &format!("z9hG4bK-re{cseq}")).header("Content-Type: application/sdp").body(&sdp(address, port)).text()
    };
    let sent = rig.receive(CALLER, &offer(2, "198.51.100.7", 4_444));
    let again = sent_to(&sent, CALLEE).text.clone();
    assert_eq!(place(&again).1, facing_callee, "the same port for the same stream");
    assert_eq!(rig.packet(facing_callee, "203.0.113.9:5000", &rtp(1)).unwrap().1.port(), 4_000, "not before the answer");
    rig.receive(CALLEE, &response(&again, 488, "bob"));
    assert_eq!(rig.packet(facing_callee, "203.0.113.9:5000", &rtp(2)).unwrap().1.port(), 4_000, "it was refused");
    // Now it agrees.
    let sent = rig.receive(CALLER, &offer(3, "198.51.100.7", 4_444));
    let again = sent_to(&sent, CALLEE).text.clone();
    rig.receive(CALLEE, &with_body(&response(&again, 200, "bob"), &sdp("203.0.113.9", 5_000)));
    assert_eq!(rig.packet(facing_callee, "203.0.113.9:5000", &rtp(3)).unwrap().1.port(), 4_444);
    // The callee holds by the old way; the caller sends on, and the other side hears nothing.
    let hold = from_callee("INVITE", &request, 1, "z9hG4bK-hold").header("Content-Type: application/sdp").body(&sdp("0.0.0.0", 5_000)).text();
    let sent = rig.receive(CALLEE, &hold);
    let held = sent_to(&sent, CALLER).text.clone();
    assert_eq!(place(&held), ("0.0.0.0".to_owned(), facing_caller), "hold stays hold");
    rig.receive(CALLER, &with_body(&response(&held, 200, ""), &sdp("198.51.100.7", 4_444)));
    assert_eq!(rig.packet(facing_caller, "198.51.100.7:4444", &rtp(4)), None);
    // And resumes by UPDATE.
    let resume = from_callee("UPDATE", &request, 2, "z9hG4bK-resume").header("Content-Type: application/sdp").body(&sdp("203.0.113.9", 5_000)).text();
    let sent = rig.receive(CALLEE, &resume);
    let update = sent_to(&sent, CALLER).text.clone();
    rig.receive(CALLER, &with_body(&response(&update, 200, ""), &sdp("198.51.100.7", 4_444)));
    assert_eq!(rig.packet(facing_caller, "198.51.100.7:4444", &rtp(5)).unwrap().1.port(), 5_000);
    hang_up(&mut rig, &ok, 9);
    assert_eq!(rig.media.taken(), 0);
}

#[test]
fn prack_carries_an_answer_and_later_an_offer() {
    let mut rig = Rig::new(standard(Engage::Always));
    let sent = rig.receive(CALLER, &invite(""));
    let request = sent_to(&sent, CALLEE).clone();
    let early = with_body(&response(&request.text, 183, "bob"), &sdp("203.0.113.9", 5_000)).replace("Contact:", "Require: 100rel\r\nRSeq: 1\r\nContact:");
    let sent = rig.receive(CALLEE, &early);
    let progress = sent_to(&sent, CALLER).clone();
    let prack =
        within("PRACK", &progress, 2, "z9hG4bK-prack").header("RAck: 1 1 INVITE").header("Content-Type: application/sdp").body(&sdp("198.51.100.7", 4_000));
    let sent = rig.receive(CALLER, &prack.text());
    let prack = sent_to(&sent, CALLEE).text.clone();
    let (facing_caller, facing_callee) = (place(&progress.text).1, place(&prack).1);
    assert_eq!(rig.packet(facing_caller, "198.51.100.7:4000", &rtp(1)), Some((facing_callee, "203.0.113.9:5000".parse().unwrap())));
    rig.receive(CALLEE, &response(&prack, 200, "bob"));
    // An UPDATE while it still rings.
    let update = within("UPDATE", &progress, 3, "z9hG4bK-upd").header("Content-Type: application/sdp").body(&sdp("198.51.100.7", 4_002)).text();
    let sent = rig.receive(CALLER, &update);
    let update = sent_to(&sent, CALLEE).text.clone();
    rig.receive(CALLEE, &with_body(&response(&update, 200, "bob"), &sdp("203.0.113.9", 5_002)));
    assert_eq!(rig.packet(facing_caller, "198.51.100.7:4002", &rtp(2)), Some((facing_callee, "203.0.113.9:5002".parse().unwrap())));
}

/// A call that a proxy behind us forks: two callees answer the offer by reliable provisional responses (RFC 3262). The rig, the INVITE as
/// sent, and what the caller gets of either.
fn forked_behind_us() -> (Rig, String, [Sent; 2]) {
    let mut rig = Rig::new(standard(Engage::Always));
    let sent = rig.receive(CALLER, &invite(&sdp("198.51.100.7", 4_000)));
    let request = sent_to(&sent, CALLEE).text.clone();
    let early = [("one", "203.0.113.9"), ("two", "203.0.113.22")].map(|(tag, address)| {
        let text = with_body(&response(&request, 183, tag), &sdp(address, 5_000)).replace("Contact:", "Require: 100rel\r\nRSeq: 1\r\nContact:");
        sent_to(&rig.receive(CALLEE, &text), CALLER).clone()
    });
    (rig, request, early)
}

/// Where a packet of the caller goes, and whether one of either callee comes to the caller.
fn heard(rig: &mut Rig, early: &Sent, request: &str, caller: &str) -> (Option<SocketAddr>, [bool; 2]) {
    let (facing_caller, facing_callee) = (place(&early.text).1, place(request).1);
    let to = rig.packet(facing_caller, caller, &rtp(1)).map(|(_, to)| to);
    // In turns: who was heard before may be until the other one is.
    let round = |rig: &mut Rig| {
        ["203.0.113.9:5000", "203.0.113.22:5000"].map(|source| rig.packet(facing_callee, source, &rtp(2)).is_some_and(|(_, to)| to == caller.parse().unwrap()))
    };
    round(rig);
    let from = round(rig);
    (to, from)
}

#[test]
fn of_several_early_dialogs_the_one_that_is_answered_is_heard() {
    let (mut rig, request, early) = forked_behind_us();
    rig.receive(CALLEE, &response(&request, 200, "two"));
    assert_eq!(heard(&mut rig, &early[1], &request, "198.51.100.7:4000"), (Some("203.0.113.22:5000".parse().unwrap()), [false, true]));
    // The one that spoke first may be the one.
    let (mut rig, request, early) = forked_behind_us();
    rig.receive(CALLEE, &response(&request, 200, "one"));
    assert_eq!(heard(&mut rig, &early[0], &request, "198.51.100.7:4000"), (Some("203.0.113.9:5000".parse().unwrap()), [true, false]));
}

#[test]
fn an_update_in_one_early_dialog_moves_the_media_of_no_other() {
    let (mut rig, request, early) = forked_behind_us();
    let update = within("UPDATE", &early[1], 2, "z9hG4bK-upd").header("Content-Type: application/sdp").body(&sdp("198.51.100.7", 4_002)).text();
    let update = sent_to(&rig.receive(CALLER, &update), CALLEE).text.clone();
    rig.receive(CALLEE, &with_body(&response(&update, 200, "two"), &sdp("203.0.113.22", 5_002)));
    rig.receive(CALLEE, &response(&request, 200, "one"));
    assert_eq!(heard(&mut rig, &early[0], &request, "198.51.100.7:4000"), (Some("203.0.113.9:5000".parse().unwrap()), [true, false]));
}

#[test]
fn several_streams_and_one_that_is_refused() {
    let mut rig = Rig::new(standard(Engage::Always));
    let offer = format!("{}m=video 4002 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\nm=image 4004 udptl t38\r\n", sdp("198.51.100.7", 4_000));
    let sent = rig.receive(CALLER, &invite(&offer));
    let request = sent_to(&sent, CALLEE).clone();
    assert_eq!(rig.media.taken(), 6);
    let ports: Vec<u16> = request.text.lines().filter(|line| line.starts_with("m=")).map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect();
    let answer = format!("{}m=video 0 RTP/AVP 96\r\nm=image 5004 udptl t38\r\n", sdp("203.0.113.9", 5_000));
    let sent = rig.receive(CALLEE, &with_body(&response(&request.text, 200, "bob"), &answer));
    let ok = sent_to(&sent, CALLER).clone();
    assert!(ok.text.contains("m=video 0 RTP/AVP 96\r\n"));
    let fax: u16 = ok.text.split("m=image ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert_eq!(rig.packet(fax, "198.51.100.7:4004", &[0, 1, 6]), Some((ports[2], "203.0.113.9:5004".parse().unwrap())));
    hang_up(&mut rig, &ok, 2);
    assert_eq!((rig.media.taken(), rig.records[0].media.len()), (0, 3));
}

#[test]
fn without_ports_or_with_a_description_that_nobody_can_read_the_call_is_refused() {
    for (pairs, body, expected) in
        [(1, sdp("198.51.100.7", 4_000), 500), (9, "nonsense\r\n".to_owned(), 400), (9, "v=0\r\nm=audio 4000 RTP/AVP 0\r\n".to_owned(), 400)]
    {
        let mut rig = Rig::new(standard(Engage::Always));
        rig.media.limit(pairs);
        let sent = rig.receive(CALLER, &invite(&body));
        assert_eq!(sent.last().unwrap().status_code(), expected, "{body} {sent:?}");
        assert!(sent.iter().all(|sent| sent.to.to_string() == CALLER));
        assert_eq!((rig.media.taken(), rig.media.sessions(), rig.records.len()), (0, 0, 1));
    }
    // Too many streams.
    let mut rig = Rig::new(standard(Engage::Always));
    let sent = rig.receive(CALLER, &invite(&(sdp("198.51.100.7", 4_000) + &"m=audio 4010 RTP/AVP 0\r\n".repeat(8))));
    assert_eq!((sent.last().unwrap().status_code(), rig.media.taken()), (500, 0));
}

#[test]
fn silence_ends_the_call_with_bye_to_both() {
    let mut rig = Rig::new(standard(Engage::Always));
    rig.listen(&["E_MEDIA_TIMEOUT"]);
    let (_, ok) = call(&mut rig);
    rig.advance(61_000);
    let sent = rig.tick_media();
    let byes: Vec<String> = sent.iter().filter(|sent| sent.first_line().starts_with("BYE")).map(|sent| sent.to.to_string()).collect();
    assert_eq!(byes, [CALLER, CALLEE]);
    assert!(header(&sent[0].text, "Reason").contains("Media timeout"), "{}", sent[0].text);
    assert_eq!(rig.take_events().len(), 1);
    assert_eq!((rig.records[0].ended_by, rig.records[0].outcome, rig.media.taken()), ("proxy", "answered", 0));
    assert!(!final_to_tag(&ok.text).is_empty());
}

#[test]
fn a_record_waits_for_its_media_and_not_for_ever() {
    let mut settings = standard(Engage::Always);
    settings.limits.calls = 10;
    let mut rig = Rig::new(settings);
    let (_, ok) = call(&mut rig);
    rig.media.hang(true);
    hang_up(&mut rig, &ok, 2);
    assert_eq!(rig.records.len(), 0);
    rig.advance(1_000);
    rig.tidy();
    assert_eq!(rig.records.len(), 0);
    rig.advance(1_500);
    rig.tidy();
    assert_eq!((rig.records.len(), rig.records[0].media.len()), (1, 0));
}

#[test]
fn calls_given_up_at_every_step_leave_nothing_behind() {
    let mut rig = Rig::new(standard(Engage::Always));
    for round in 0..500 {
        let id = format!("call-{round}");
        let request = Request::new("INVITE", "sip:bob@203.0.113.9").call_id(&id).branch(&format!("z9hG4bK-{round}"));
        let text = request.clone().header("Content-Type: application/sdp").body(&sdp("198.51.100.7", 4_000)).text();
        let sent = rig.receive(CALLER, &text);
        let invite = sent_to(&sent, CALLEE).text.clone();
        let step = round % 5;
        if step >= 1 {
            rig.receive(CALLEE, &response(&invite, 180, "bob"));
        }
        if step >= 2 {
            rig.receive(CALLEE, &with_body(&response(&invite, 183, "bob"), &sdp("203.0.113.9", 5_000)));
        }
        match step {
            // Nobody ever answers, nor does the caller give up.
            0 => {}
            1 | 2 => {
                rig.receive(CALLER, &text.replace("INVITE sip", "CANCEL sip").replace("1 INVITE", "1 CANCEL"));
                if round % 2 == 0 {
                    rig.receive(CALLEE, &response(&invite, 487, "bob"));
                }
            }
            3 => drop(rig.receive(CALLEE, &response(&invite, 486, "bob"))),
            // Answered, and then nothing but silence.
            _ => drop(rig.receive(CALLEE, &with_body(&response(&invite, 200, "bob"), &sdp("203.0.113.9", 5_000)))),
        }
    }
    assert!(rig.media.taken() > 0);
    rig.advance(400_000);
    rig.tick_media();
    rig.advance(400_000);
    rig.tidy();
    assert_eq!((rig.media.taken(), rig.media.sessions(), rig.edge.sizes(), rig.records.len()), (0, 0, (0, 0), 500));
}

#[test]
fn a_worker_that_starts_afresh_closes_what_it_had() {
    let mut rig = Rig::new(standard(Engage::Always));
    call(&mut rig);
    rig.restart();
    assert_eq!((rig.media.taken(), rig.media.sessions()), (0, 0));
}

#[test]
fn the_media_of_a_core_may_stand_elsewhere_in_its_network_and_a_phone_behind_a_nat_may_not_choose() {
    let mut settings = standard(Engage::Always);
    settings.peers[1] = peer("core", PeerKind::Core, "10.0.0.0/24", &["sip:10.0.0.11"]);
    let mut rig = Rig::new(settings);
    let sent = rig.receive(CALLER, &invite(&sdp("192.168.7.7", 4_000)).replace("203.0.113.9", "10.0.0.11"));
    let request = sent_to(&sent, "10.0.0.11:5060").clone();
    let sent = rig.receive("10.0.0.11:5060", &with_body(&response(&request.text, 200, "bob"), &sdp("10.0.0.20", 5_000)));
    let ok = sent_to(&sent, CALLER).clone();
    let (facing_core, facing_caller) = (place(&request.text).1, place(&ok.text).1);
    assert_eq!(rig.packet(facing_caller, "198.51.100.7:61000", &rtp(1)), Some((facing_core, "10.0.0.20:5000".parse().unwrap())));
    assert_eq!(rig.packet(facing_core, "10.0.0.20:5000", &rtp(1)), Some((facing_caller, "198.51.100.7:61000".parse().unwrap())));
}

#[test]
fn a_call_may_ring_longer_than_it_may_be_silent() {
    let mut rig = Rig::new(standard(Engage::Always));
    let sent = rig.receive(CALLER, &invite(&sdp("198.51.100.7", 4_000)));
    let request = sent_to(&sent, CALLEE).clone();
    rig.receive(CALLEE, &with_body(&response(&request.text, 183, "bob"), &sdp("203.0.113.9", 5_000)));
    rig.advance(100_000);
    let sent = rig.tick_media();
    assert!(sent.is_empty(), "{sent:?}");
    let sent = rig.receive(CALLEE, &response(&request.text, 200, "bob"));
    assert_eq!(sent_to(&sent, CALLER).status_code(), 200);
}

#[test]
fn a_stream_that_was_refused_does_not_keep_a_held_call_from_being_held() {
    let mut rig = Rig::new(standard(Engage::Always));
    let offer = format!("{}m=video 4002 RTP/AVP 96\r\n", sdp("198.51.100.7", 4_000));
    let sent = rig.receive(CALLER, &invite(&offer));
    let request = sent_to(&sent, CALLEE).clone();
    let answer = |text: &str| format!("{}m=video 0 RTP/AVP 96\r\n", text.replace("sendrecv", "recvonly"));
    let sent = rig.receive(CALLEE, &with_body(&response(&request.text, 200, "bob"), &answer(&sdp("203.0.113.9", 5_000))));
    assert_eq!(sent_to(&sent, CALLER).status_code(), 200);
    rig.advance(70_000);
    assert!(rig.tick_media().is_empty(), "it is on hold");
    rig.advance(3_600_000);
    assert!(rig.tick_media().is_empty(), "the longest call has ended it before");
    assert_eq!(rig.media.taken(), 0);
}

#[test]
fn every_content_length_says_the_same() {
    let mut rig = Rig::new(standard(Engage::Always));
    let text = invite(&format!("{}a=candidate:1 1 UDP 1 10.0.0.1 4000 typ host\r\n", sdp("198.51.100.7", 4_000)));
    let line = format!("Content-Length: {}\r\n", header(&text, "Content-Length"));
    let sent = rig.receive(CALLER, &text.replace(&line, &format!("{line}l: {}\r\n", header(&text, "Content-Length"))));
    let (head, body) = sent_to(&sent, CALLEE).text.split_once("\r\n\r\n").unwrap();
    let lengths: Vec<&str> = head.lines().filter_map(|line| line.strip_prefix("Content-Length: ").or(line.strip_prefix("l: "))).collect();
    assert_eq!(lengths, [body.len().to_string(), body.len().to_string()]);
}

#[test]
fn a_phone_that_says_it_is_at_our_ports_is_refused() {
    let mut rig = Rig::new(standard(Engage::Always));
    let (_, ok) = call(&mut rig);
    let circle = within("INVITE", &ok, 2, "z9hG4bK-circle").header("Content-Type: application/sdp").body(&sdp("192.0.2.1", 30_002)).text();
    let sent = rig.receive(CALLER, &circle);
    assert_eq!(sent.last().unwrap().status_code(), 400);
    assert!(sent.iter().all(|sent| sent.to.to_string() == CALLER));
}

#[test]
fn a_phone_elsewhere_is_not_at_what_only_this_machine_is_to_reach() {
    for address in ["192.0.2.1", "::1"] {
        let mut rig = Rig::new(standard(Engage::Always));
        let family = if address.contains(':') { "IP6" } else { "IP4" };
        let body = sdp("198.51.100.7", 2_223).replace("c=IN IP4 198.51.100.7", &format!("c=IN {family} {address}"));
        let sent = rig.receive(CALLER, &invite(&body));
        assert_eq!(sent.last().unwrap().status_code(), 400, "{address}");
        assert_eq!((sent.iter().any(|sent| sent.to.to_string() == CALLEE), rig.media.taken()), (false, 0));
        // One on this machine may be anywhere there. (An address that NATs hide counts as where the phone was seen.)
        let mut settings = standard(Engage::Always);
        settings.peers.push(peer("here", PeerKind::Subscribers, "127.0.0.0/8", &[]));
        let mut rig = Rig::new(settings);
        let sent = rig.receive("127.0.0.1:5062", &invite(&body).replace("SIP/2.0/UDP 198.51.100.7", "SIP/2.0/UDP 127.0.0.1"));
        assert!(sent.iter().any(|sent| sent.to.to_string() == CALLEE), "{address} {sent:?}");
    }
}

#[test]
fn of_two_branches_that_answer_the_first_is_heard() {
    let mut settings = standard(Engage::Always);
    settings.peers[1] =
        edge::PeerSettings { forking: edge::Forking::Parallel, ..peer("core", PeerKind::Core, "203.0.113.0/24", &["sip:203.0.113.9", "sip:203.0.113.10"]) };
    let mut rig = Rig::new(settings);
    let sent = rig.receive(CALLER, &invite(&sdp("198.51.100.7", 4_000)));
    let requests = ["203.0.113.9:5060", "203.0.113.10:5060"].map(|to| sent_to(&sent, to).text.clone());
    let sent = rig.receive("203.0.113.9:5060", &with_body(&response(&requests[0], 200, "one"), &sdp("203.0.113.9", 5_000)));
    let first = place(&sent_to(&sent, CALLER).text).1;
    let sent = rig.receive("203.0.113.10:5060", &with_body(&response(&requests[1], 200, "two"), &sdp("203.0.113.10", 5_000)));
    let second = sent_to(&sent, CALLER).clone();
    let heard = |rig: &mut Rig| rig.packet(first, "198.51.100.7:4000", &rtp(1)).map(|(_, to)| to.to_string());
    assert_eq!(heard(&mut rig).as_deref(), Some("203.0.113.9:5000"));
    // The caller ends the other one.
    let sent = rig.receive(CALLER, &within("BYE", &second, 2, "z9hG4bK-other").text().replace("203.0.113.9", "203.0.113.10"));
    rig.receive("203.0.113.10:5060", &response(&sent_to(&sent, "203.0.113.10:5060").text, 200, "two"));
    assert_eq!(heard(&mut rig).as_deref(), Some("203.0.113.9:5000"));
    assert_eq!(rig.media.taken(), 2);
}

#[test]
fn a_phone_elsewhere_may_have_the_numbers_of_our_ports() {
    let mut settings = standard(Engage::Always);
    // Bound everywhere, as behind a NAT of our own.
    settings.listeners[0].media_address = "0.0.0.0".parse().unwrap();
    settings.listeners[0].media_advertise = Some("198.18.0.9".parse().unwrap());
    let mut rig = Rig::new(settings);
    let (_, ok) = call(&mut rig);
    let again = within("INVITE", &ok, 2, "z9hG4bK-again").header("Content-Type: application/sdp").body(&sdp("198.51.100.7", 30_002)).text();
    let sent = rig.receive(CALLER, &again);
    assert!(sent_to(&sent, CALLEE).first_line().starts_with("INVITE"));
    let circle = within("INVITE", &ok, 3, "z9hG4bK-circle").header("Content-Type: application/sdp").body(&sdp("198.18.0.9", 30_002)).text();
    assert_eq!(rig.receive(CALLER, &circle).last().unwrap().status_code(), 400);
    // Nor is what the NAT has beside them ours.
    let beside = within("INVITE", &ok, 4, "z9hG4bK-beside").header("Content-Type: application/sdp").body(&sdp("198.18.0.9", 4_000)).text();
    assert!(sent_to(&rig.receive(CALLER, &beside), CALLEE).first_line().starts_with("INVITE"));
}

#[test]
fn a_call_keeps_its_addresses_over_a_reload() {
    let mut rig = Rig::new(standard(Engage::Always));
    let (request, ok) = call(&mut rig);
    let mut settings = standard(Engage::Never);
    settings.listeners[0].media_advertise = Some("198.18.0.9".parse().unwrap());
    rig.reload(settings).unwrap();
    let again = within("INVITE", &ok, 2, "z9hG4bK-again").header("Content-Type: application/sdp").body(&sdp("198.51.100.7", 4_000)).text();
    let sent = rig.receive(CALLER, &again);
    assert_eq!(place(&sent_to(&sent, CALLEE).text), place(&request.text));
    let mut settings = standard(Engage::Never);
    settings.media = None;
    rig.reload(settings).unwrap();
    let offer = sent_to(&sent, CALLEE).text.clone();
    let sent = rig.receive(CALLEE, &with_body(&response(&offer, 200, "bob"), &sdp("203.0.113.9", 5_000)));
    assert_eq!(place(&sent_to(&sent, CALLER).text), place(&ok.text), "also where the file has no media any more");
}

#[test]
fn an_offer_that_crosses_another_forgets_nothing() {
    let mut rig = Rig::new(standard(Engage::Always));
    let (request, ok) = call(&mut rig);
    let facing_callee = place(&request.text).1;
    let offer = within("INVITE", &ok, 2, "z9hG4bK-re").header("Content-Type: application/sdp").body(&sdp("198.51.100.7", 4_444)).text();
    let sent = rig.receive(CALLER, &offer);
    let pending = sent_to(&sent, CALLEE).text.clone();
    let other = from_callee("UPDATE", &request, 1, "z9hG4bK-glare").header("Content-Type: application/sdp").body(&sdp("203.0.113.9", 5_555)).text();
    let sent = rig.receive(CALLEE, &other);
    let crossed = sent_to(&sent, CALLER).text.clone();
    rig.receive(CALLER, &response(&crossed, 491, ""));
    rig.receive(CALLEE, &with_body(&response(&pending, 200, "bob"), &sdp("203.0.113.9", 5_000)));
    assert_eq!(rig.packet(facing_callee, "203.0.113.9:5000", &rtp(1)).unwrap().1.port(), 4_444);
}

/// A call whose sides have offered new places at once: the rig, the INVITE, the 200, and both offers as they went on.
fn crossed() -> (Rig, Sent, Sent, [String; 2]) {
    let mut rig = Rig::new(standard(Engage::Always));
    let (request, ok) = call(&mut rig);
    let sent = rig.receive(CALLER, &offered(within("INVITE", &ok, 2, "z9hG4bK-re"), "198.51.100.7", 4_444));
    let of_caller = sent_to(&sent, CALLEE).text.clone();
    let sent = rig.receive(CALLEE, &offered(from_callee("INVITE", &request, 1, "z9hG4bK-glare"), "203.0.113.9", 5_555));
    let of_callee = sent_to(&sent, CALLER).text.clone();
    (rig, request, ok, [of_caller, of_callee])
}

#[test]
fn of_two_offers_that_cross_the_one_that_is_accepted_counts() {
    let (mut rig, request, ok, [of_caller, of_callee]) = crossed();
    let (facing_callee, facing_caller) = (place(&request.text).1, place(&ok.text).1);
    rig.receive(CALLEE, &response(&of_caller, 491, "bob"));
    rig.receive(CALLER, &with_body(&response(&of_callee, 200, ""), &sdp("198.51.100.7", 4_000)));
    assert_eq!(rig.packet(facing_caller, "198.51.100.7:4000", &rtp(1)).unwrap().1.port(), 5_555);
    assert_eq!(rig.packet(facing_callee, "203.0.113.9:5555", &rtp(1)).unwrap().1.port(), 4_000);
}

#[test]
fn an_offer_that_nobody_answers_is_forgotten() {
    let (mut rig, request, ok, [_, of_callee]) = crossed();
    let (facing_callee, facing_caller) = (place(&request.text).1, place(&ok.text).1);
    rig.receive(CALLER, &response(&of_callee, 491, ""));
    // The callee never says anything to that of the caller.
    rig.advance(40_000);
    // It asks for an offer then, which is none of the caller's.
    let sent = rig.receive(CALLER, &within("INVITE", &ok, 3, "z9hG4bK-late").text());
    let asked = sent_to(&sent, CALLEE).text.clone();
    rig.receive(CALLEE, &with_body(&response(&asked, 200, "bob"), &sdp("203.0.113.9", 5_666)));
    rig.receive(CALLER, &offered(within("ACK", &ok, 3, "z9hG4bK-ack"), "198.51.100.7", 4_000));
    assert_eq!(rig.packet(facing_caller, "198.51.100.7:4000", &rtp(1)).unwrap().1.port(), 5_666);
    assert_eq!(rig.packet(facing_callee, "203.0.113.9:5666", &rtp(1)).unwrap().1.port(), 4_000, "that offer went with its silence");
}

#[test]
fn an_update_without_an_offer_takes_none_along() {
    let mut rig = Rig::new(standard(Engage::Always));
    let (request, ok) = call(&mut rig);
    let facing_callee = place(&request.text).1;
    let sent = rig.receive(CALLER, &offered(within("INVITE", &ok, 2, "z9hG4bK-re"), "198.51.100.7", 4_444));
    let again = sent_to(&sent, CALLEE).text.clone();
    for (cseq, code) in [(3, 200), (4, 491)] {
        let sent = rig.receive(CALLER, &within("UPDATE", &ok, cseq, &format!("z9hG4bK-refresh{cseq}")).text());
        let refresh = sent_to(&sent, CALLEE).text.clone();
        rig.receive(CALLEE, &response(&refresh, code, "bob"));
    }
    rig.receive(CALLEE, &with_body(&response(&again, 200, "bob"), &sdp("203.0.113.9", 5_000)));
    assert_eq!(rig.packet(facing_callee, "203.0.113.9:5000", &rtp(1)).unwrap().1.port(), 4_444);
}

#[test]
fn a_phone_says_no_place_of_signalling_for_its_media() {
    let mut settings = standard(Engage::Always);
    settings.peers.push(peer("elsewhere", PeerKind::Gateway, "192.0.2.77", &["sip:192.0.2.77:5080"]));
    let mut rig = Rig::new(settings);
    let (_, ok) = call(&mut rig);
    for (number, (address, port)) in [("192.0.2.1", 5_060), ("203.0.113.9", 5_060), ("192.0.2.77", 5_080), ("224.0.0.9", 4_000)].into_iter().enumerate() {
        let cseq = 2 + number as u32;
        let again = offered(within("INVITE", &ok, cseq, &format!("z9hG4bK-forged{cseq}")), address, port);
        let sent = rig.receive(CALLER, &again);
        assert_eq!(sent.last().unwrap().status_code(), 400, "{address}:{port}");
        let control = within("INVITE", &ok, cseq + 10, &format!("z9hG4bK-control{cseq}")).header("Content-Type: application/sdp");
        let sent = rig.receive(CALLER, &control.body(&format!("{}a=rtcp:{port} IN IP4 {address}\r\n", sdp("198.51.100.7", 4_000))).text());
        assert_eq!(sent.last().unwrap().status_code(), 400, "a=rtcp {address}:{port}");
    }
    // Elsewhere in their network there may be a TURN server.
    let sent = rig.receive(CALLER, &offered(within("INVITE", &ok, 30, "z9hG4bK-turn"), "203.0.113.50", 49_152));
    assert!(sent_to(&sent, CALLEE).first_line().starts_with("INVITE"));
    // In an answer it is too late to refuse; nothing goes there.
    let offer = Request::new("INVITE", "sip:alice@198.51.100.7").via("SIP/2.0/UDP 203.0.113.9:5060").call_id("back").branch("z9hG4bK-back");
    let sent = rig.receive(CALLEE, &offered(offer, "203.0.113.9", 5_000));
    let request = sent_to(&sent, CALLER).text.clone();
    let sent = rig.receive(CALLER, &with_body(&response(&request, 200, "alice"), &sdp("203.0.113.9", 5_060)));
    let told = place(&sent_to(&sent, CALLEE).text);
    assert_eq!(told.0, "192.0.2.1");
    assert_eq!(rig.packet(told.1, "203.0.113.9:5000", &rtp(1)), None);
    assert!(rig.counters().media_unreadable.get() > 0);
}

#[test]
fn an_ack_that_answers_says_no_place_of_signalling_either() {
    let mut rig = Rig::new(standard(Engage::Always));
    let sent = rig.receive(CALLER, &invite(""));
    let request = sent_to(&sent, CALLEE).text.clone();
    let sent = rig.receive(CALLEE, &with_body(&response(&request, 200, "bob"), &sdp("203.0.113.9", 5_000)));
    let ok = sent_to(&sent, CALLER).clone();
    let sent = rig.receive(CALLER, &offered(within("ACK", &ok, 1, "z9hG4bK-ack"), "192.0.2.1", 5_060));
    let told = place(&sent_to(&sent, CALLEE).text);
    assert_eq!(told.0, "192.0.2.1");
    assert_ne!(told.1, 5_060);
    assert_eq!(rig.packet(told.1, "203.0.113.9:5000", &rtp(1)), None);
    assert_eq!(rig.counters().media_unreadable.get(), 1);
}

#[test]
fn a_description_in_which_some_overlook_something_is_refused() {
    for (from, to) in [("m=audio", "m= audio"), ("c=IN", "c= IN"), ("c=IN", "c=\tIN"), ("audio 4000", "audio +4000")] {
        let mut rig = Rig::new(standard(Engage::Always));
        let sent = rig.receive(CALLER, &invite(&sdp("198.51.100.7", 4_000).replace(from, to)));
        assert_eq!(sent.last().unwrap().status_code(), 400, "{to}");
    }
}

#[test]
fn of_several_descriptions_nobody_knows_which_counts() {
    let part = |port: u16| format!("--x\r\nContent-Type: application/sdp\r\n\r\n{}\r\n", sdp("198.51.100.7", port));
    for (body, refused) in [(format!("{}--x--\r\n", part(4_000)), false), (format!("{}{}--x--\r\n", part(4_000), part(5_060)), true)] {
        let mut rig = Rig::new(standard(Engage::Always));
        let request = Request::new("INVITE", "sip:bob@203.0.113.9").header("Content-Type: multipart/alternative;boundary=x").body(&body);
        let sent = rig.receive(CALLER, &request.text());
        assert_eq!(sent.last().unwrap().to.to_string() == CALLER && sent.last().unwrap().status_code() == 400, refused, "{sent:?}");
        assert_eq!((rig.counters().media_unreadable.get(), rig.media.taken() == 0), (u64::from(refused), refused));
    }
}

#[test]
fn rtcp_beside_the_port_of_a_machine_is_no_forgery() {
    let mut settings = standard(Engage::Always);
    settings.peers.push(peer("beside", PeerKind::Core, "198.51.100.7:4001", &["sip:198.51.100.7:4001"]));
    let mut rig = Rig::new(settings);
    let sent = rig.receive(CALLER, &invite(&sdp("198.51.100.7", 4_000)));
    assert!(sent_to(&sent, CALLEE).first_line().starts_with("INVITE"));
}

#[test]
fn of_two_that_answer_behind_us_the_first_is_heard_until_its_end() {
    let mut rig = Rig::new(standard(Engage::Always));
    let sent = rig.receive(CALLER, &invite(&sdp("198.51.100.7", 4_000)));
    let request = sent_to(&sent, CALLEE).clone();
    let mut answers = Vec::new();
    for (tag, address) in [("one", "203.0.113.50"), ("two", "203.0.113.51")] {
        let sent = rig.receive(CALLEE, &with_body(&response(&request.text, 200, tag), &sdp(address, 5_000)));
        answers.push(sent_to(&sent, CALLER).clone());
        assert_eq!(place(&answers[answers.len() - 1].text).0, "192.0.2.1");
    }
    let facing_caller = place(&answers[0].text).1;
    assert_eq!(rig.packet(facing_caller, "198.51.100.7:4000", &rtp(1)).unwrap().1, "203.0.113.50:5000".parse().unwrap());
    // The second one is ended, and changes nothing; where it is the first, the second is heard.
    hang_up(&mut rig, &answers[0], 2);
    assert_eq!(rig.packet(facing_caller, "198.51.100.7:4000", &rtp(2)).unwrap().1, "203.0.113.51:5000".parse().unwrap());
    let sent = rig.receive(CALLER, &within("BYE", &answers[1], 2, "z9hG4bK-bye2").text());
    rig.receive(CALLEE, &response(&sent_to(&sent, CALLEE).text, 200, "two"));
    assert_eq!((rig.media.taken(), rig.media.sessions()), (0, 0));
}

#[test]
fn a_later_offer_that_is_refused_after_an_unreliable_answer_changes_nothing() {
    let mut rig = Rig::new(standard(Engage::Always));
    let (request, ok) = call(&mut rig);
    let (facing_callee, facing_caller) = (place(&request.text).1, place(&ok.text).1);
    let sent = rig.receive(CALLER, &offered(within("INVITE", &ok, 2, "z9hG4bK-re"), "198.51.100.7", 4_444));
    let again = sent_to(&sent, CALLEE).text.clone();
    let sent = rig.receive(CALLEE, &with_body(&response(&again, 183, "bob"), &sdp("203.0.113.50", 5_555)));
    assert_eq!(place(&sent_to(&sent, CALLER).text), ("192.0.2.1".to_owned(), facing_caller));
    rig.receive(CALLEE, &response(&again, 488, "bob"));
    assert_eq!(rig.packet(facing_caller, "198.51.100.7:4000", &rtp(1)).unwrap().1, "203.0.113.9:5000".parse().unwrap());
    assert_eq!(rig.packet(facing_callee, "203.0.113.9:5000", &rtp(1)).unwrap().1.port(), 4_000);
}

#[test]
fn without_ports_a_call_whose_offer_comes_with_the_answer_is_refused_too() {
    let mut rig = Rig::new(standard(Engage::Always));
    rig.media.limit(1);
    let sent = rig.receive(CALLER, &invite(""));
    assert_eq!((sent.last().unwrap().status_code(), rig.media.taken(), rig.counters().media_refused.get()), (500, 0, 1));
}

#[test]
fn an_unspecified_address_for_rtcp_is_that_of_the_stream() {
    let mut rig = Rig::new(standard(Engage::Always));
    let sent = rig.receive(CALLER, &invite(&format!("{}a=rtcp:4001 IN IP4 0.0.0.0\r\n", sdp("198.51.100.7", 4_000))));
    let request = sent_to(&sent, CALLEE).clone();
    rig.receive(CALLEE, &with_body(&response(&request.text, 200, "bob"), &sdp("203.0.113.9", 5_000)));
    let report = [0x80, 201, 0, 1, 0, 0, 0, 9];
    assert_eq!(rig.packet(place(&request.text).1 + 1, "203.0.113.9:5001", &report).unwrap().1, "198.51.100.7:4001".parse().unwrap());
}

#[test]
fn a_media_worker_that_falls_behind_gets_nothing_new_and_keeps_what_it_has() {
    let mut rig = Rig::new(standard(Engage::Always));
    let (_, ok) = call(&mut rig);
    rig.media.fall_behind(true);
    let other = Request::new("INVITE", "sip:bob@203.0.113.9").call_id("other").branch("z9hG4bK-other").header("Content-Type: application/sdp");
    let sent = rig.receive(CALLER, &other.body(&sdp("198.51.100.7", 4_002)).text());
    assert!(sent.iter().any(|sent| sent.status_code() == 500) && sent.iter().all(|sent| sent.to.to_string() == CALLER), "{sent:?}");
    let again = within("INVITE", &ok, 2, "z9hG4bK-again").header("Content-Type: application/sdp").body(&sdp("198.51.100.7", 4_004));
    let sent = rig.receive(CALLER, &again.text());
    assert!(sent.iter().any(|sent| sent.status_code() == 500), "{sent:?}");
    assert_eq!(rig.counters().media_refused.get(), 2);
    let facing_caller = place(&ok.text).1;
    assert!(rig.packet(facing_caller, "198.51.100.7:4000", &rtp(1)).is_some());
    rig.media.fall_behind(false);
    hang_up(&mut rig, &ok, 3);
    rig.advance(40_000);
    assert_eq!((rig.media.taken(), rig.media.sessions()), (0, 0));
}

#[test]
fn a_phone_that_signals_over_ipv6_and_describes_ipv4_is_heard() {
    // An inner address too: that of the other family says nothing of where it is.
    for own in ["198.51.100.7", "192.168.1.5"] {
        let mut settings = standard(Engage::Always);
        settings.listeners.push(listener("six", "udp:[2001:db8::1]:5060"));
        settings.peers[0] = peer("phones", PeerKind::Subscribers, "2001:db8:7::/48", &[]);
        let mut rig = Rig::new(settings);
        let source = "[2001:db8:7::9]:5060";
        let text = invite(&sdp(own, 4_000)).replace("SIP/2.0/UDP 198.51.100.7", "SIP/2.0/UDP [2001:db8:7::9]");
        let sent = rig.receive_at(1, syntax::Transport::Udp, source, text.as_bytes());
        let invite = sent_to(&sent, CALLEE).clone();
        assert_eq!(rig.media.addresses(), ["192.0.2.1", "192.0.2.1"].map(|ip| ip.parse::<std::net::IpAddr>().unwrap()));
        let sent = rig.receive(CALLEE, &with_body(&response(&invite.text, 200, "bob"), &sdp("203.0.113.9", 5_000)));
        let ok = sent_to(&sent, source).clone();
        let (address, facing_caller) = place(&ok.text);
        assert_eq!(address, "192.0.2.1");
        let facing_callee = place(&invite.text).1;
        assert_eq!(rig.packet(facing_caller, &format!("{own}:4000"), &rtp(1)), Some((facing_callee, "203.0.113.9:5000".parse().unwrap())));
        assert_eq!(rig.packet(facing_callee, "203.0.113.9:5000", &rtp(1)), Some((facing_caller, format!("{own}:4000").parse().unwrap())));
    }
}

#[test]
fn a_description_may_be_repaired_where_nothing_is_relayed() {
    let hidden = "v=0\r\no=- 1 1 IN IP4 10.0.0.5\r\ns=-\r\nc=IN IP4 10.0.0.5\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\na=rtcp:4009 IN IP4 10.0.0.5\r\n";
    let seen = hidden.replace("c=IN IP4 10.0.0.5", "c=IN IP4 198.51.100.7").replace("4009 IN IP4 10.0.0.5", "4009 IN IP4 198.51.100.7");
    let body = |sent: &Sent| {
        let (head, body) = sent.text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", sent.text);
        body.to_owned()
    };
    for (engage, wish) in [(None, true), (Some(Engage::Never), true), (None, false), (Some(Engage::Auto), true)] {
        let mut settings = standard(Engage::Never);
        settings.media = engage.map(media);
        settings.nat.repair_description = wish;
        let mut rig = Rig::new(settings);
        let sent = rig.receive(CALLER, &invite(hidden));
        let forwarded = body(sent_to(&sent, CALLEE));
        match (engage, wish) {
            (Some(Engage::Auto), _) => assert!(forwarded.contains("c=IN IP4 192.0.2.1")),
            (_, true) => assert_eq!(forwarded, seen),
            (_, false) => assert_eq!(forwarded, hidden),
        }
        assert_eq!(rig.counters().descriptions_repaired.get(), u64::from(wish && engage != Some(Engage::Auto)));
    }
    // The same in an answer of a phone, and not in one of a machine, which knows where it is.
    let mut settings = standard(Engage::Never);
    settings.media = None;
    settings.nat.repair_description = true;
    let mut rig = Rig::new(settings);
    let call = Request::new("INVITE", "sip:alice@198.51.100.7").via("SIP/2.0/UDP 203.0.113.9:5060").header("Content-Type: application/sdp").body(hidden);
    let sent = rig.receive(CALLEE, &call.text());
    assert_eq!(body(sent_to(&sent, CALLER)), hidden);
    let sent = rig.receive(CALLER, &with_body(&response(&sent_to(&sent, CALLER).text, 200, "alice"), hidden));
    assert_eq!(body(sent_to(&sent, CALLEE)), seen);
}

/// A call that a process before began, whose successor knows nothing of it: the rig of that, and what the two sides got.
fn restarted(engage: Engage) -> (Rig, Sent, Sent) {
    let (invite, ok) = call(&mut Rig::new(standard(engage)));
    (Rig::new(standard(engage)), invite, ok)
}

fn offered(request: Request, address: &str, port: u16) -> String {
    request.header("Content-Type: application/sdp").body(&sdp(address, port)).text()
}

#[test]
fn after_a_restart_an_offer_within_a_call_leads_its_media_here_again() {
    for from_caller in [true, false] {
        let (mut rig, invite, ok) = restarted(Engage::Always);
        let (near, far, own, other) = if from_caller {
            (CALLER, CALLEE, ("198.51.100.7", 4_002), ("203.0.113.9", 5_002))
        } else {
            (CALLEE, CALLER, ("203.0.113.9", 5_002), ("198.51.100.7", 4_002))
        };
        let again = if from_caller { within("INVITE", &ok, 2, "z9hG4bK-again") } else { from_callee("INVITE", &invite, 7, "z9hG4bK-again") };
        let sent = rig.receive(near, &offered(again, own.0, own.1));
        let offer = sent_to(&sent, far).clone();
        let sent = rig.receive(far, &with_body(&response(&offer.text, 200, "any"), &sdp(other.0, other.1)));
        let (facing_far, facing_near) = (place(&offer.text), place(&sent_to(&sent, near).text));
        assert_eq!([&facing_far.0, &facing_near.0], ["192.0.2.1"; 2], "from caller: {from_caller}");
        let source = format!("{}:{}", own.0, own.1);
        assert_eq!(rig.packet(facing_near.1, &source, &rtp(1)), Some((facing_far.1, format!("{}:{}", other.0, other.1).parse().unwrap())));
        // A second offer, of the other side, is of the same call.
        let again = if from_caller { from_callee("INVITE", &invite, 8, "z9hG4bK-third") } else { within("INVITE", &ok, 3, "z9hG4bK-third") };
        let sent = rig.receive(far, &offered(again, other.0, other.1));
        assert_eq!(place(&sent_to(&sent, near).text), facing_near);
        assert_eq!((rig.counters().calls_adopted.get(), rig.edge.sizes().0, rig.media.sessions()), (1, 1, 1));
        let bye = within("BYE", &ok, 4, "z9hG4bK-bye");
        let sent = rig.receive(CALLER, &bye.text());
        rig.receive(CALLEE, &response(&sent_to(&sent, CALLEE).text, 200, "bob"));
        assert_eq!((rig.media.taken(), rig.media.sessions(), rig.records.len()), (0, 0, 0), "and no record of half a call");
    }
}

#[test]
fn after_a_restart_an_offer_that_is_refused_holds_no_ports_and_the_next_one_leads_media_here() {
    let (mut rig, _, ok) = restarted(Engage::Always);
    for (cseq, answered) in [(2, true), (3, false)] {
        let sent = rig.receive(CALLER, &offered(within("INVITE", &ok, cseq, &format!("z9hG4bK-{cseq}")), "198.51.100.7", 4_002));
        let offer = sent_to(&sent, CALLEE).text.clone();
        assert_eq!((place(&offer).0.as_str(), rig.media.sessions()), ("192.0.2.1", 1));
        if answered {
            rig.receive(CALLEE, &response(&offer, 488, "bob"));
        } else {
            rig.advance(40_000);
        }
        assert_eq!((rig.media.taken(), rig.media.sessions(), rig.counters().calls_adopted.get()), (0, 0, 1), "{cseq}");
    }
    let sent = rig.receive(CALLER, &offered(within("INVITE", &ok, 4, "z9hG4bK-4"), "198.51.100.7", 4_002));
    let offer = sent_to(&sent, CALLEE).text.clone();
    let sent = rig.receive(CALLEE, &with_body(&response(&offer, 200, "bob"), &sdp("203.0.113.9", 5_002)));
    let (facing_callee, facing_caller) = (place(&offer).1, place(&sent_to(&sent, CALLER).text).1);
    assert_eq!(rig.packet(facing_caller, "198.51.100.7:4002", &rtp(1)), Some((facing_callee, "203.0.113.9:5002".parse().unwrap())));
}

#[test]
fn after_a_restart_a_late_offer_leads_media_here_too() {
    let (mut rig, _, ok) = restarted(Engage::Always);
    let sent = rig.receive(CALLER, &within("INVITE", &ok, 2, "z9hG4bK-again").text());
    let asked = sent_to(&sent, CALLEE).clone();
    let sent = rig.receive(CALLEE, &with_body(&response(&asked.text, 200, "bob"), &sdp("203.0.113.9", 5_002)));
    let facing_caller = place(&sent_to(&sent, CALLER).text);
    let sent = rig.receive(CALLER, &offered(within("ACK", &ok, 2, "z9hG4bK-ack"), "198.51.100.7", 4_002));
    let facing_callee = place(&sent_to(&sent, CALLEE).text);
    assert_eq!([&facing_caller.0, &facing_callee.0], ["192.0.2.1"; 2]);
    assert_eq!(rig.packet(facing_callee.1, "203.0.113.9:5002", &rtp(1)), Some((facing_caller.1, "198.51.100.7:4002".parse().unwrap())));
}

#[test]
fn after_a_restart_a_call_that_falls_silent_is_ended_with_bye_to_both() {
    for from_caller in [true, false] {
        let (mut rig, invite, ok) = restarted(Engage::Always);
        rig.listen(&["E_MEDIA_TIMEOUT"]);
        let (near, far, own, other) = if from_caller {
            (CALLER, CALLEE, ("198.51.100.7", 4_002), ("203.0.113.9", 5_002))
        } else {
            (CALLEE, CALLER, ("203.0.113.9", 5_002), ("198.51.100.7", 4_002))
        };
        let again = if from_caller { within("INVITE", &ok, 2, "z9hG4bK-again") } else { from_callee("INVITE", &invite, 7, "z9hG4bK-again") };
        // A proxy is on the way to the callee.
        let proxy = "<sip:203.0.113.10;lr>";
        let text = offered(again.header(&format!("{}: {proxy}", if from_caller { "Route" } else { "Record-Route" })), own.0, own.1);
        let sent = rig.receive(near, &text.replace(header(&text, "Contact"), &format!("<sip:near@{}>", own.0)));
        let offer = sent.iter().rfind(|sent| sent.first_line().starts_with("INVITE")).unwrap().clone();
        let beyond = offer.to.to_string();
        assert_eq!(beyond, if from_caller { "203.0.113.10:5060" } else { far });
        let answer = with_body(&response(&offer.text, 200, "any"), &sdp(other.0, other.1));
        rig.receive(&beyond, &answer.replace(header(&answer, "Contact"), &format!("<sip:far@{}>", other.0)));
        rig.advance(61_000);
        let sent = rig.tick_media();
        let byes: Vec<&Sent> = sent.iter().filter(|sent| sent.first_line().starts_with("BYE")).collect();
        assert_eq!(byes.len(), 2, "{sent:?}");
        for (place, contact, to_callee, last) in
            [(near, "sip:near", !from_caller, None), (&*beyond, "sip:far", from_caller, Some(if from_caller { 2 } else { 7 }))]
        {
            let bye = byes.iter().find(|bye| bye.to.to_string() == place).unwrap();
            assert!(bye.first_line().contains(contact), "{}", bye.text);
            assert_eq!(bye.text.contains(&format!("Route: {proxy}")), to_callee, "{}", bye.text);
            // Of the side that has said nothing since nobody knows the number.
            let number: u32 = header(&bye.text, "CSeq").split(' ').next().unwrap().parse().unwrap();
            assert_eq!(number, last.map_or(2_147_483_647, |last| last + 1));
        }
        let events = rig.take_events();
        assert_eq!((events.len(), events[0].values.last()), (1, Some(&1u64.into())));
        assert_eq!((rig.media.taken(), rig.media.sessions(), rig.edge.sizes().0, rig.records.len()), (0, 0, 0, 0));
    }
}

#[test]
fn after_a_restart_what_needs_no_relay_goes_on_without() {
    let (mut rig, _, ok) = restarted(Engage::Auto);
    let sent = rig.receive(CALLER, &offered(within("INVITE", &ok, 2, "z9hG4bK-again"), "198.51.100.7", 4_002));
    assert_eq!(place(&sent_to(&sent, CALLEE).text), ("198.51.100.7".to_owned(), 4_002));
    let sent = rig.receive(CALLER, &within("INFO", &ok, 3, "z9hG4bK-info").text());
    assert!(sent_to(&sent, CALLEE).first_line().starts_with("INFO"));
    assert_eq!((rig.counters().calls_adopted.get(), rig.edge.sizes().0), (0, 0));
}

#[test]
fn a_call_that_was_taken_up_is_known_by_its_dialog_alone() {
    let (mut rig, _, ok) = restarted(Engage::Always);
    rig.receive(CALLER, &offered(within("INVITE", &ok, 2, "z9hG4bK-again"), "198.51.100.7", 4_002));
    // Another branch of the same fork, which a process before knew, goes on by its token.
    let mut other = Request::new("BYE", "sip:bob@203.0.113.9").tags("alice", "fork").cseq(3).branch("z9hG4bK-fork");
    for route in headers(&ok.text, "Record-Route").iter().rev() {
        other = other.header(&format!("Route: {route}"));
    }
    let sent = rig.receive(CALLER, &other.text());
    assert!(sent_to(&sent, CALLEE).first_line().starts_with("BYE"));
    assert_eq!((rig.edge.sizes().0, rig.media.sessions()), (1, 1));
    rig.advance(24 * 3_600_000);
    assert_eq!((rig.edge.sizes().0, rig.media.sessions()), (0, 0), "one that nobody ends has its end");
}
