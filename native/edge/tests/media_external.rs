//! Calls whose media an rtpengine relays: whatever carries a description waits for it, and nothing waits for ever.
#![expect(clippy::unwrap_used, reason = "tests")]

use edge::{Engage, NgKind, PeerKind, RouteSettings, RtpengineSettings};
use media::{SessionReport, SideReport, StreamReport};
use testkit::{Request, Rig, Sent, final_to_tag, headers, listener, media, peer, response, sdp, settings, with_body};

const CALLER: &str = "198.51.100.7:5060";
const CALLEE: &str = "203.0.113.9:5060";
const TO_CALLEE: &str = "v=0\r\nc=IN IP4 192.0.2.250\r\nm=audio 40000 RTP/AVP 0\r\na=by:engine\r\n";
const TO_CALLER: &str = "v=0\r\nc=IN IP4 192.0.2.250\r\nm=audio 40002 RTP/AVP 0\r\n";

fn standard() -> RouteSettings {
    let mut settings = settings(vec![
        peer("phones", PeerKind::Subscribers, "198.51.100.0/24", &[]),
        peer("core", PeerKind::Core, "203.0.113.0/24", &["sip:203.0.113.9", "sip:203.0.113.10"]),
    ]);
    let mut external = media(Engage::Always);
    external.rtpengines = vec![RtpengineSettings { name: "one".to_owned(), address: "192.0.2.250:2223".parse().unwrap(), weight: 1 }];
    settings.media = Some(external);
    settings
}

fn rig() -> Rig {
    Rig::new(standard())
}

fn invite() -> String {
    Request::new("INVITE", "sip:bob@203.0.113.9").header("Content-Type: application/sdp").body(&sdp("198.51.100.7", 4_000)).text()
}

fn body(sent: &Sent) -> &str {
    let (head, body) = sent.text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{}", sent.text);
    body
}

fn to<'a>(sent: &'a [Sent], place: &str) -> Vec<&'a Sent> {
    sent.iter().filter(|sent| sent.to.to_string() == place).collect()
}

/// An INVITE that an engine has taken, as the callee gets it.
fn offered(rig: &mut Rig) -> Sent {
    assert!(to(&rig.receive(CALLER, &invite()), CALLEE).is_empty(), "nothing goes out before the engine has answered");
    let asked = &rig.media_questions[0];
    assert_eq!((&asked.command.kind, asked.node, asked.command.from_tag.as_str()), (&NgKind::Offer, None, "alice"));
    assert_eq!(&*asked.command.sdp, sdp("198.51.100.7", 4_000).as_bytes());
    assert_eq!(asked.command.received_from.to_string(), "198.51.100.7");
    let sent = rig.engine_says(Some(TO_CALLEE));
    let invite = to(&sent, CALLEE)[0].clone();
    assert_eq!(body(&invite), TO_CALLEE);
    invite
}

/// The callee answers, and the engine has said where to.
fn answered(rig: &mut Rig, invite: &Sent) -> Sent {
    let sent = rig.receive(CALLEE, &with_body(&response(&invite.text, 200, "bob"), &sdp("203.0.113.9", 5_000)));
    assert!(to(&sent, CALLER).is_empty());
    let asked = &rig.media_questions[0];
    assert_eq!((&asked.command.kind, asked.command.from_tag.as_str(), asked.command.to_tag.as_str()), (&NgKind::Answer, "alice", "bob"));
    assert_eq!(asked.node, Some("192.0.2.250:2223".parse().unwrap()), "the one that has the call");
    let sent = rig.engine_says(Some(TO_CALLER));
    let ok = to(&sent, CALLER)[0].clone();
    assert_eq!((ok.status_code(), body(&ok)), (200, TO_CALLER));
    ok
}

fn within(method: &str, ok: &Sent, cseq: u32) -> Request {
    let request = Request::new(method, "sip:bob@203.0.113.9").tags("alice", final_to_tag(&ok.text)).cseq(cseq).branch(&format!("z9hG4bK-{method}{cseq}"));
    headers(&ok.text, "Record-Route").iter().rev().fold(request, |request, route| request.header(&format!("Route: {route}")))
}

fn hang_up(rig: &mut Rig, ok: &Sent) {
    let sent = rig.receive(CALLER, &within("BYE", ok, 9).text());
    let bye = to(&sent, CALLEE)[0].text.clone();
    rig.receive(CALLEE, &response(&bye, 200, "bob"));
}

#[test]
fn offers_and_answers_wait_for_the_engine_and_its_report_ends_in_the_record() {
    let mut rig = rig();
    let invite = offered(&mut rig);
    let ok = answered(&mut rig, &invite);
    hang_up(&mut rig, &ok);
    assert!(rig.records.is_empty(), "it waits for what the media was like");
    let asked = rig.media_questions.remove(0);
    assert_eq!((&asked.command.kind, asked.report, rig.media_questions.len()), (&NgKind::Delete, true, 0));
    let side = SideReport { packets: 50, ..SideReport::default() };
    rig.engine_reports(SessionReport { session: asked.command.session, streams: vec![StreamReport { index: 0, sides: [side, side] }] });
    assert_eq!((rig.records.len(), rig.records[0].media[0].callee.packets), (1, 50));
    assert_eq!(rig.media.taken(), 0, "none of our own ports");
}

#[test]
fn responses_keep_their_order_while_one_waits() {
    let mut rig = rig();
    let invite = offered(&mut rig);
    let early = with_body(&response(&invite.text, 183, "bob"), &sdp("203.0.113.9", 5_000));
    assert!(to(&rig.receive(CALLEE, &early), CALLER).is_empty());
    assert!(to(&rig.receive(CALLEE, &response(&invite.text, 180, "bob")), CALLER).is_empty(), "behind it");
    let ok = with_body(&response(&invite.text, 200, "bob"), &sdp("203.0.113.9", 5_000));
    assert!(to(&rig.receive(CALLEE, &ok), CALLER).is_empty());
    assert_eq!(rig.media_questions.len(), 1, "one after the other");
    let sent = rig.engine_says(Some(TO_CALLER));
    let codes: Vec<u16> = to(&sent, CALLER).iter().map(|sent| sent.status_code()).collect();
    assert_eq!(codes, [183, 180]);
    let sent = rig.engine_says(Some(TO_CALLER));
    assert_eq!(to(&sent, CALLER).iter().map(|sent| sent.status_code()).collect::<Vec<_>>(), [200]);
}

#[test]
fn of_two_that_answer_behind_us_the_engine_hears_the_first() {
    let mut rig = rig();
    let invite = offered(&mut rig);
    let other = with_body(&response(&invite.text, 200, "carol"), &sdp("203.0.113.10", 6_000));
    rig.receive(CALLEE, &with_body(&response(&invite.text, 200, "bob"), &sdp("203.0.113.9", 5_000)));
    assert!(to(&rig.receive(CALLEE, &other), CALLER).is_empty(), "behind the first");
    let sent = rig.engine_says(Some(TO_CALLER));
    let oks = to(&sent, CALLER);
    assert_eq!(oks.iter().map(|ok| final_to_tag(&ok.text)).collect::<Vec<_>>(), ["bob", "carol"]);
    assert_eq!((body(oks[0]), body(oks[1]).contains("m=audio 6000 ")), (TO_CALLER, true));
    let (first, second) = (oks[0].clone(), oks[1].clone());
    assert!(rig.media_questions.is_empty());
    // Said again, each goes the same way.
    rig.receive(CALLEE, &other);
    assert!(rig.media_questions.is_empty());
    hang_up(&mut rig, &second);
    assert!(rig.media_questions.is_empty());
    let sent = rig.receive(CALLER, &within("BYE", &first, 10).text());
    let bye = to(&sent, CALLEE)[0].text.clone();
    rig.receive(CALLEE, &response(&bye, 200, "bob"));
    assert_eq!(rig.media_questions.remove(0).command.kind, NgKind::Delete);
}

#[test]
fn of_two_that_ring_behind_us_the_engine_hears_again_the_one_that_answers() {
    for (answers, body_again) in [("bob", Some(sdp("203.0.113.9", 5_000))), ("carol", None)] {
        let mut rig = rig();
        let invite = offered(&mut rig);
        for (tag, address, port) in [("bob", "203.0.113.9", 5_000), ("carol", "203.0.113.10", 6_000)] {
            let ringing = response(&invite.text, 183, tag).replace("Content-Length:", "Require: 100rel\r\nRSeq: 1\r\nContent-Length:");
            rig.receive(CALLEE, &with_body(&ringing, &sdp(address, port)));
            rig.engine_says(Some(TO_CALLER));
        }
        // The answer stood in the 183: the 200 has none.
        let sent = rig.receive(CALLEE, &response(&invite.text, 200, answers));
        let Some(again) = body_again else {
            assert_eq!((to(&sent, CALLER).len(), rig.media_questions.len()), (1, 0), "it was heard last");
            continue;
        };
        assert!(to(&sent, CALLER).is_empty(), "until the engine has heard it");
        let asked = &rig.media_questions[0].command;
        assert_eq!((&asked.kind, asked.from_tag.as_str(), asked.to_tag.as_str()), (&NgKind::Answer, "alice", "bob"));
        assert_eq!(&*asked.sdp, again.as_bytes());
        let sent = rig.engine_says(Some(TO_CALLER));
        assert_eq!((to(&sent, CALLER)[0].status_code(), body(to(&sent, CALLER)[0])), (200, ""));
    }
}

#[test]
fn a_200_that_is_said_again_asks_for_nothing() {
    let mut rig = rig();
    let invite = offered(&mut rig);
    let ok = answered(&mut rig, &invite);
    rig.receive(CALLER, &within("ACK", &ok, 1).text());
    let again = within("INVITE", &ok, 2).header("Content-Type: application/sdp").body(&sdp("198.51.100.7", 4_444)).text();
    rig.receive(CALLER, &again);
    rig.engine_says(Some(TO_CALLEE));
    // A late one of the first INVITE: the engine would lead its media back.
    let sent = rig.receive(CALLEE, &with_body(&response(&invite.text, 200, "bob"), &sdp("203.0.113.9", 5_000)));
    assert_eq!(rig.media_questions.len(), 0);
    assert_eq!(body(to(&sent, CALLER)[0]), TO_CALLER);
}

#[test]
fn a_phone_that_signals_over_ipv6_and_describes_ipv4_is_answered_in_that() {
    for (own, answers_in_v6) in [("198.51.100.7", false), ("2001:db8:7::9", true)] {
        let mut settings = standard();
        settings.listeners.push(listener("six", "udp:[2001:db8::1]:5060"));
        settings.peers[0] = peer("phones", PeerKind::Subscribers, "2001:db8:7::/48", &[]);
        let mut rig = Rig::new(settings);
        let family = if answers_in_v6 { "IP6" } else { "IP4" };
        let offer = sdp(own, 4_000).replace("IN IP4", &format!("IN {family}"));
        let text = Request::new("INVITE", "sip:bob@203.0.113.9").header("Content-Type: application/sdp").body(&offer).text();
        let text = text.replace("SIP/2.0/UDP 198.51.100.7", "SIP/2.0/UDP [2001:db8:7::9]");
        rig.receive_at(1, syntax::Transport::Udp, "[2001:db8:7::9]:5060", text.as_bytes());
        assert!(!rig.media_questions[0].command.to_v6, "the callee's");
        let sent = rig.engine_says(Some(TO_CALLEE));
        let invite = to(&sent, CALLEE)[0].clone();
        rig.receive(CALLEE, &with_body(&response(&invite.text, 200, "bob"), &sdp("203.0.113.9", 5_000)));
        assert_eq!(rig.media_questions[0].command.to_v6, answers_in_v6);
    }
}

#[test]
fn what_a_phone_may_not_say_no_engine_hears() {
    let sdp_of = |address: &str, port| sdp(address, port);
    for (body, what) in [
        (sdp_of("192.0.2.1", 5_060), "a listener"),
        (sdp_of("203.0.113.9", 5_060), "the core"),
        (sdp_of("239.1.1.1", 4_000), "many"),
        (sdp_of("192.0.2.250", 2_223), "the engine"),
        ("nonsense".to_owned(), "nothing"),
        (sdp_of("198.51.100.7", 4_000).replace("\r\n", "\r"), "what some read otherwise"),
    ] {
        let mut rig = rig();
        let text = Request::new("INVITE", "sip:bob@203.0.113.9").header("Content-Type: application/sdp").body(&body).text();
        let sent = rig.receive(CALLER, &text);
        assert_eq!(sent.last().unwrap().status_code(), 400, "{what}");
        // Once for each target of the core.
        assert_eq!((rig.media_questions.len(), rig.counters().media_unreadable.get()), (0, 2), "{what}");
        // Nor within a call.
        let mut rig = standard_call();
        let again = within("INVITE", &rig.1, 2).header("Content-Type: application/sdp").body(&body).text();
        assert_eq!(rig.0.receive(CALLER, &again).last().unwrap().status_code(), 400, "{what}");
        assert_eq!(rig.0.media_questions.len(), 0, "{what}");
    }
    // In an answer it is too late to refuse: the engine hears of a stream that is refused.
    let mut rig = rig();
    let sent = rig.receive(CALLER, &Request::new("INVITE", "sip:bob@203.0.113.9").text());
    let invite = to(&sent, CALLEE)[0].text.clone();
    rig.receive(CALLEE, &with_body(&response(&invite, 200, "bob"), &sdp("203.0.113.9", 5_000)));
    let sent = rig.engine_says(Some(TO_CALLER));
    let ok = to(&sent, CALLER)[0].clone();
    let body = sdp_of("203.0.113.9", 5_060);
    rig.receive(CALLER, &within("ACK", &ok, 1).header("Content-Type: application/sdp").body(&body).text());
    assert_eq!(*rig.media_questions[0].command.sdp, *body.replace("m=audio 5060 ", "m=audio 0 ").as_bytes());
    assert_eq!(rig.counters().media_unreadable.get(), 1);
}

#[test]
fn engines_are_asked_about_what_they_can_relay_and_no_more() {
    // Nothing to relay: it passes (RFC 3264 section 5).
    let empty = "v=0\r\no=- 1 1 IN IP4 198.51.100.7\r\ns=-\r\nt=0 0\r\n";
    let mut one = rig();
    let sent = one.receive(CALLER, &Request::new("INVITE", "sip:bob@203.0.113.9").header("Content-Type: application/sdp").body(empty).text());
    assert_eq!((to(&sent, CALLEE).len(), one.media_questions.len()), (1, 0));
    assert_eq!(body(to(&sent, CALLEE)[0]), empty);
    // More streams than may be, as without an engine.
    let mut one = rig();
    let many = format!("{}{}", sdp("198.51.100.7", 4_000), "m=audio 4002 RTP/AVP 0\r\n".repeat(16));
    let sent = one.receive(CALLER, &Request::new("INVITE", "sip:bob@203.0.113.9").header("Content-Type: application/sdp").body(&many).text());
    assert_eq!((sent.last().unwrap().status_code(), one.media_questions.len()), (500, 0));
}

#[test]
fn an_ack_that_nobody_can_read_still_arrives_and_no_engine_hears_of_it() {
    let mut rig = rig();
    let sent = rig.receive(CALLER, &Request::new("INVITE", "sip:bob@203.0.113.9").text());
    let invite = to(&sent, CALLEE)[0].text.clone();
    rig.receive(CALLEE, &with_body(&response(&invite, 200, "bob"), &sdp("203.0.113.9", 5_000)));
    let sent = rig.engine_says(Some(TO_CALLER));
    let ok = to(&sent, CALLER)[0].clone();
    let part = |address: &str, port| format!("--x\r\nContent-Type: application/sdp\r\n\r\n{}\r\n", sdp(address, port));
    let twice = format!("{}{}--x--\r\n", part("192.0.2.1", 5_060), part("198.51.100.7", 4_000));
    let sent = rig.receive(CALLER, &within("ACK", &ok, 1).header("Content-Type: multipart/alternative;boundary=x").body(&twice).text());
    assert_eq!((to(&sent, CALLEE).len(), rig.media_questions.len(), rig.counters().media_unreadable.get()), (1, 0, 1));
    assert_eq!(body(to(&sent, CALLEE)[0]), twice);
}

/// An answered call, and its 200.
fn standard_call() -> (Rig, Sent) {
    let mut rig = rig();
    let invite = offered(&mut rig);
    let ok = answered(&mut rig, &invite);
    (rig, ok)
}

#[test]
fn an_offer_of_the_callee_is_answered_by_an_ack_that_waits() {
    let mut rig = rig();
    let sent = rig.receive(CALLER, &Request::new("INVITE", "sip:bob@203.0.113.9").text());
    let invite = to(&sent, CALLEE)[0].text.clone();
    rig.receive(CALLEE, &with_body(&response(&invite, 200, "bob"), &sdp("203.0.113.9", 5_000)));
    assert_eq!((&rig.media_questions[0].command.kind, rig.media_questions[0].command.from_tag.as_str()), (&NgKind::Offer, "bob"));
    let sent = rig.engine_says(Some(TO_CALLER));
    let ok = to(&sent, CALLER)[0].clone();
    assert_eq!(body(&ok), TO_CALLER);
    let ack = within("ACK", &ok, 1).header("Content-Type: application/sdp").body(&sdp("198.51.100.7", 4_000)).text();
    assert!(to(&rig.receive(CALLER, &ack), CALLEE).is_empty());
    let asked = &rig.media_questions[0].command;
    assert_eq!((&asked.kind, asked.from_tag.as_str(), asked.to_tag.as_str()), (&NgKind::Answer, "bob", "alice"));
    let sent = rig.engine_says(Some(TO_CALLEE));
    let ack = to(&sent, CALLEE)[0];
    assert!(ack.first_line().starts_with("ACK"));
    assert_eq!(body(ack), TO_CALLEE);
}

#[test]
fn a_second_offer_goes_the_same_way() {
    let mut rig = rig();
    let invite = offered(&mut rig);
    let ok = answered(&mut rig, &invite);
    rig.receive(CALLER, &within("ACK", &ok, 1).text());
    let again = within("INVITE", &ok, 2).header("Content-Type: application/sdp").body(&sdp("198.51.100.7", 4_444)).text();
    assert!(to(&rig.receive(CALLER, &again), CALLEE).is_empty());
    let asked = &rig.media_questions[0].command;
    assert_eq!((&asked.kind, asked.from_tag.as_str(), asked.to_tag.as_str()), (&NgKind::Offer, "alice", "bob"));
    let sent = rig.engine_says(Some(TO_CALLEE));
    let offer = to(&sent, CALLEE)[0].clone();
    assert_eq!(body(&offer), TO_CALLEE);
    rig.receive(CALLEE, &with_body(&response(&offer.text, 200, "bob"), &sdp("203.0.113.9", 5_000)));
    let sent = rig.engine_says(Some(TO_CALLER));
    assert_eq!(body(to(&sent, CALLER)[0]), TO_CALLER);
}

#[test]
fn a_call_stays_at_its_engine_until_an_offer_at_another_one_is_answered() {
    let [first, other] = ["192.0.2.250:2223", "192.0.2.251:2223"].map(|place| place.parse().unwrap());
    for (code, stays, gone) in [(200, other, first), (488, first, other), (408, first, other)] {
        let (mut rig, ok) = standard_call();
        rig.receive(CALLER, &within("ACK", &ok, 1).text());
        let again = within("INVITE", &ok, 2).header("Content-Type: application/sdp").body(&sdp("198.51.100.7", 4_444)).text();
        rig.receive(CALLER, &again);
        let sent = rig.engine_at(other, Some(TO_CALLEE));
        assert!(rig.media_questions.is_empty(), "it may be refused yet");
        let offer = to(&sent, CALLEE)[0].text.clone();
        match code {
            200 => {
                rig.receive(CALLEE, &with_body(&response(&offer, 200, "bob"), &sdp("203.0.113.9", 5_000)));
                let asked = rig.media_questions.remove(0);
                assert_eq!((&asked.command.kind, asked.node), (&NgKind::Answer, Some(other)));
            }
            // Nobody answers.
            408 => drop(rig.advance(400_000)),
            _ => drop(rig.receive(CALLEE, &response(&offer, code, "bob"))),
        }
        let ended = rig.media_questions.remove(0);
        assert_eq!((&ended.command.kind, ended.node, rig.media_questions.len()), (&NgKind::Delete, Some(gone), 0), "{code}");
        let info = within("INVITE", &ok, 3).header("Content-Type: application/sdp").body(&sdp("198.51.100.7", 4_446)).text();
        if code != 200 {
            rig.receive(CALLER, &info);
            assert_eq!(rig.media_questions[0].node, Some(stays));
        }
    }
}

#[test]
fn what_an_offer_left_behind_ends_with_its_call() {
    let (mut rig, ok) = standard_call();
    rig.receive(CALLER, &within("ACK", &ok, 1).text());
    let again = within("INVITE", &ok, 2).header("Content-Type: application/sdp").body(&sdp("198.51.100.7", 4_444)).text();
    rig.receive(CALLER, &again);
    let other = "192.0.2.251:2223".parse().unwrap();
    rig.engine_at(other, Some(TO_CALLEE));
    hang_up(&mut rig, &ok);
    let ended: Vec<_> = rig.media_questions.iter().map(|asked| (asked.command.kind.clone(), asked.node, asked.report)).collect();
    assert_eq!(ended, [(NgKind::Delete, Some("192.0.2.250:2223".parse().unwrap()), false), (NgKind::Delete, Some(other), true)]);
}

#[test]
fn where_no_engine_answers_the_call_is_refused_in_time_and_nothing_is_left() {
    for refused in [true, false] {
        let mut rig = rig();
        rig.receive(CALLER, &invite());
        // Each target is tried, and none of them is to blame.
        let sent = if refused { [rig.engine_says(None), rig.engine_says(None)].concat() } else { rig.advance(7_000) };
        assert!(sent.iter().all(|sent| sent.to.to_string() == CALLER), "{sent:?}");
        assert_eq!(to(&sent, CALLER).last().unwrap().status_code(), 500);
        assert_eq!(rig.records.len(), 1);
        rig.advance(100_000);
        assert_eq!(rig.edge.sizes(), (0, 0));
        if !refused {
            // One that answers too late is told that nobody needs it any more.
            rig.engine_says(Some(TO_CALLEE));
            assert!(rig.media_questions.iter().any(|question| question.command.kind == NgKind::Delete));
        }
    }
}

#[test]
fn an_answer_that_no_engine_takes_goes_on_as_it_came() {
    let mut rig = rig();
    let invite = offered(&mut rig);
    let ok = with_body(&response(&invite.text, 200, "bob"), &sdp("203.0.113.9", 5_000));
    rig.receive(CALLEE, &ok);
    let sent = rig.advance(4_000);
    let ok = to(&sent, CALLER)[0];
    assert_eq!((ok.status_code(), body(ok)), (200, sdp("203.0.113.9", 5_000).as_str()));
    assert_eq!(rig.counters().media_questions_failed.get(), 1);
}

#[test]
fn a_caller_who_gives_up_while_the_engine_is_asked_leaves_nothing_there() {
    let mut rig = rig();
    rig.receive(CALLER, &invite());
    let cancel = invite().replace("INVITE sip", "CANCEL sip").replace("1 INVITE", "1 CANCEL");
    let sent = rig.receive(CALLER, &cancel);
    assert!(to(&sent, CALLER).iter().any(|sent| sent.status_code() == 487), "{sent:?}");
    rig.engine_says(Some(TO_CALLEE));
    assert_eq!(rig.media_questions.iter().map(|question| question.command.kind.clone()).collect::<Vec<_>>(), [NgKind::Delete]);
    rig.advance(100_000);
    assert_eq!((rig.edge.sizes(), rig.records.len()), ((0, 0), 1));
}

#[test]
fn an_attempt_that_fails_is_deleted_and_the_next_one_has_a_session_of_its_own() {
    let mut rig = rig();
    let invite = offered(&mut rig);
    rig.receive(CALLEE, &response(&invite.text, 503, "x"));
    let [deleted, asked] = [0, 1].map(|index| &rig.media_questions[index]);
    assert_eq!((&deleted.command.kind, &asked.command.kind), (&NgKind::Delete, &NgKind::Offer));
    assert_ne!(deleted.command.call_id, asked.command.call_id);
}

#[test]
fn after_a_restart_an_offer_within_a_call_leads_its_media_through_an_engine_again() {
    for from_caller in [true, false] {
        let mut before = rig();
        let invite = offered(&mut before);
        let ok = answered(&mut before, &invite);
        // Its successor knows nothing of the call.
        let mut rig = rig();
        let (near, far, again) = if from_caller {
            (CALLER, CALLEE, within("INVITE", &ok, 2))
        } else {
            let routes = headers(&invite.text, "Record-Route");
            let back = Request::new("INVITE", "sip:alice@198.51.100.7").tags("bob", "alice").cseq(7).branch("z9hG4bK-back");
            (CALLEE, CALLER, routes.iter().fold(back, |request, route| request.header(&format!("Route: {route}"))))
        };
        let offer = again.header("Content-Type: application/sdp").body(&sdp("203.0.113.77", 5_002)).text();
        assert!(to(&rig.receive(near, &offer), far).is_empty(), "from caller: {from_caller}");
        let tags = if from_caller { ["alice", "bob"] } else { ["bob", "alice"] };
        let asked = &rig.media_questions[0].command;
        assert_eq!((&asked.kind, [asked.from_tag.as_str(), asked.to_tag.as_str()]), (&NgKind::Offer, tags));
        let sent = rig.engine_says(Some(TO_CALLEE));
        let offer = to(&sent, far)[0].clone();
        assert_eq!(body(&offer), TO_CALLEE);
        assert!(to(&rig.receive(far, &with_body(&response(&offer.text, 200, "any"), &sdp("198.51.100.7", 4_004))), near).is_empty());
        assert_eq!((&rig.media_questions[0].command.kind, rig.media_questions[0].node.is_some()), (&NgKind::Answer, true));
        let sent = rig.engine_says(Some(TO_CALLER));
        assert_eq!(body(to(&sent, near)[0]), TO_CALLER);
        assert_eq!((rig.counters().calls_adopted.get(), rig.edge.sizes().0), (1, 1));
        hang_up(&mut rig, &ok);
        let asked = rig.media_questions.remove(0);
        assert_eq!((&asked.command.kind, asked.node.is_some(), rig.media_questions.len()), (&NgKind::Delete, true, 0));
        assert_eq!((rig.edge.sizes().0, rig.records.len()), (0, 0), "and no record of half a call");
    }
}

#[test]
fn after_a_restart_a_late_offer_leads_media_through_an_engine_too() {
    let mut before = rig();
    let invite = offered(&mut before);
    let ok = answered(&mut before, &invite);
    let mut rig = rig();
    let sent = rig.receive(CALLER, &within("INVITE", &ok, 2).text());
    let asked = to(&sent, CALLEE)[0].clone();
    assert!(to(&rig.receive(CALLEE, &with_body(&response(&asked.text, 200, "bob"), &sdp("203.0.113.9", 5_002))), CALLER).is_empty());
    assert_eq!((&rig.media_questions[0].command.kind, rig.media_questions[0].command.from_tag.as_str()), (&NgKind::Offer, "bob"));
    let sent = rig.engine_says(Some(TO_CALLER));
    assert_eq!(body(to(&sent, CALLER)[0]), TO_CALLER);
    let ack = within("ACK", &ok, 2).header("Content-Type: application/sdp").body(&sdp("198.51.100.7", 4_002)).text();
    assert!(to(&rig.receive(CALLER, &ack), CALLEE).is_empty());
    assert_eq!((&rig.media_questions[0].command.kind, rig.media_questions[0].command.from_tag.as_str()), (&NgKind::Answer, "bob"));
    let sent = rig.engine_says(Some(TO_CALLEE));
    assert_eq!(body(to(&sent, CALLEE)[0]), TO_CALLEE);
}
