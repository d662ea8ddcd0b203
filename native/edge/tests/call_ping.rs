//! Pings within calls on simulated time: numbers stay right both ways, and who is gone ends the call.

use edge::{CallPingSettings, Counts, PeerKind, RouteSettings};
use testkit::{Request, Rig, Sent, header, limit, peer, response, sdp, settings};

const PHONE: &str = "198.51.100.7:5060";
const CORE: &str = "192.0.2.200:5060";

fn pinging(reinvite: bool) -> RouteSettings {
    let mut settings =
        settings(vec![peer("core", PeerKind::Core, "192.0.2.200", &["sip:192.0.2.200"]), peer("phones", PeerKind::Subscribers, "198.51.100.0/24", &[])]);
    settings.call_ping = Some(CallPingSettings { reinvite, interval_seconds: 60, caller: true, callee: true });
    settings.key_limits = vec![limit("all", Counts::Calls, "", 1)];
    settings
}

fn to(sent: &[Sent], place: &str, start: &str) -> String {
    sent.iter().find(|sent| sent.to.to_string() == place && sent.text.starts_with(start)).map(|sent| sent.text.clone()).unwrap_or_default()
}

struct Call {
    rig: Rig,
    /// What the phone needs for requests within it.
    tag: String,
    route: String,
}

fn answered(settings: RouteSettings) -> Call {
    let mut rig = Rig::new(settings);
    let request = Request::new("INVITE", "sip:9@example.net").branch("z9hG4bKa").call_id("a").cseq(10);
    let request = to(&rig.receive(PHONE, &request.header("Content-Type: application/sdp").body(&sdp("198.51.100.7", 4_000)).text()), CORE, "INVITE");
    let said = response(&request, 200, "t").replace("Content-Length: 0\r\n\r\n", "").replace("<sip:bob@203.0.113.9>", "<sip:9@192.0.2.200>");
    let body = sdp("192.0.2.200", 6_000);
    let said = format!("{said}Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let ok = to(&rig.receive(CORE, &said), PHONE, "SIP/2.0 200");
    assert_eq!(header(&ok, "CSeq"), "10 INVITE");
    let tag = header(&request, "From").rsplit("tag=").next().unwrap_or_default().to_owned();
    let route = header(&ok, "Record-Route").to_owned();
    Call { rig, tag, route }
}

impl Call {
    fn request(&mut self, method: &str, cseq: u32, line: &str) -> String {
        let request = Request::new(method, "sip:9@192.0.2.200").branch(&format!("z9hG4bK{method}{cseq}")).call_id("a").cseq(cseq);
        let request = request.tags(&self.tag, "t").header(&format!("Route: {}", self.route));
        let request = if line.is_empty() { request } else { request.header(line) };
        let sent = self.rig.receive(PHONE, &request.text());
        to(&sent, CORE, method)
    }

    /// Lets time pass until the next pings, a minute at most; those to phone and core.
    fn pings(&mut self, method: &str) -> (String, String) {
        for _ in 0..60 {
            let sent = self.rig.advance(1_000);
            let found = (to(&sent, PHONE, method), to(&sent, CORE, method));
            if !found.0.is_empty() || !found.1.is_empty() {
                return found;
            }
        }
        Default::default()
    }

    fn answer(&mut self, ping: &str, from: &str, status_code: u16) -> Vec<Sent> {
        self.rig.receive(from, &response(ping, status_code, ""))
    }
}

#[test]
fn numbers_rise_for_each_side_and_fall_back_for_the_other() {
    let mut call = answered(pinging(false));
    let (caller, callee) = call.pings("OPTIONS");
    assert!(caller.starts_with("OPTIONS sip:alice@198.51.100.7 SIP/2.0") && callee.starts_with("OPTIONS sip:9@192.0.2.200 SIP/2.0"), "{caller}{callee}");
    assert_eq!((header(&caller, "CSeq"), header(&callee, "CSeq")), ("1 OPTIONS", "11 OPTIONS"));
    assert!(header(&callee, "From").ends_with(&format!("tag={}", call.tag)) && header(&caller, "To").ends_with(&format!("tag={}", call.tag)));
    assert!(call.answer(&caller, PHONE, 200).is_empty() && call.answer(&callee, CORE, 405).is_empty());
    // The phone numbers on as if nothing had been sent in its name, and hears its own numbers.
    let again = call.request("INVITE", 11, "");
    assert_eq!(header(&again, "CSeq"), "12 INVITE");
    let early = to(
        &call.rig.receive(CORE, &response(&again, 183, "t").replace("Content-Length", "RSeq: 7\r\nRequire: 100rel\r\nContent-Length")),
        PHONE,
        "SIP/2.0 183",
    );
    assert_eq!(header(&early, "CSeq"), "11 INVITE");
    let prack = call.request("PRACK", 12, "RAck: 7 11 INVITE");
    assert_eq!((header(&prack, "CSeq"), header(&prack, "RAck")), ("13 PRACK", "7 12 INVITE"));
    let done = to(&call.rig.receive(CORE, &response(&prack, 200, "t")), PHONE, "SIP/2.0 200");
    assert_eq!(header(&done, "CSeq"), "12 PRACK");
    let ok = response(&again, 200, "t").replace("<sip:bob@203.0.113.9>", "<sip:9@192.0.2.200>");
    assert_eq!(header(&to(&call.rig.receive(CORE, &ok), PHONE, "SIP/2.0 200"), "CSeq"), "11 INVITE");
    // One that comes again is numbered back as well, and an ACK goes by its INVITE though a ping came between.
    assert_eq!(header(&to(&call.rig.receive(CORE, &ok), PHONE, "SIP/2.0 200"), "CSeq"), "11 INVITE");
    let (caller, callee) = call.pings("OPTIONS");
    assert_eq!((header(&caller, "CSeq"), header(&callee, "CSeq")), ("2 OPTIONS", "14 OPTIONS"));
    assert_eq!(header(&call.request("ACK", 11, ""), "CSeq"), "12 ACK");
    call.answer(&caller, PHONE, 200);
    call.answer(&callee, CORE, 200);
    // The other side's requests are renumbered by its own pings: its first is 1 to itself.
    let request =
        Request::new("BYE", "sip:alice@198.51.100.7").branch("z9hG4bKbye").call_id("a").cseq(1).tags("t", &call.tag).header(&format!("Route: {}", call.route));
    let bye = to(&call.rig.receive(CORE, &request.text().replace("From: <sip:alice", "From: <sip:9").replace("To: <sip:bob", "To: <sip:alice")), PHONE, "BYE");
    assert_eq!(header(&bye, "CSeq"), "3 BYE");
    assert_eq!(header(&to(&call.rig.receive(PHONE, &response(&bye, 200, "")), CORE, "SIP/2.0 200"), "CSeq"), "1 BYE");
    call.rig.advance(100_000);
    assert_eq!((call.rig.edge.sizes(), call.rig.counters().call_pings_sent.get(), call.rig.counters().call_pings_failed.get()), ((0, 0), 4, 0));
}

#[test]
fn a_side_that_is_gone_or_knows_nothing_ends_the_call_both_ways() {
    for status_code in [Some(481), Some(408), None] {
        let mut call = answered(pinging(false));
        let (caller, callee) = call.pings("OPTIONS");
        let mut sent = call.answer(&callee, CORE, 200);
        sent.extend(match status_code {
            Some(code) => call.answer(&caller, PHONE, code),
            None => call.rig.advance(33_000),
        });
        let (to_phone, to_core) = (to(&sent, PHONE, "BYE"), to(&sent, CORE, "BYE"));
        assert_eq!((header(&to_phone, "CSeq"), header(&to_core, "CSeq")), ("2 BYE", "12 BYE"), "{status_code:?}");
        assert!(header(&to_core, "Reason").contains("Ping timed out"));
        assert_eq!(call.rig.counters().call_pings_failed.get(), 1);
        let record = call.rig.records.pop();
        assert_eq!(record.map(|record| (record.status_code, record.ended_by)), Some((200, "proxy")));
        // Its place is another's once one side knows.
        call.answer(&to_core, CORE, 200);
        let next = Request::new("INVITE", "sip:9@example.net").branch("z9hG4bKb").call_id("b").text();
        assert!(!to(&call.rig.receive(PHONE, &next), CORE, "INVITE").is_empty());
    }
}

#[test]
fn every_other_answer_means_that_it_lives_and_what_cannot_be_sent_may_pass() {
    let mut call = answered(pinging(false));
    for status_code in [200, 404, 405, 486, 500, 501, 603] {
        let (caller, callee) = call.pings("OPTIONS");
        call.answer(&caller, PHONE, status_code);
        call.answer(&callee, CORE, status_code);
    }
    assert_eq!(call.rig.edge.sizes().0, 1);
    // Nobody is asked again who has not answered yet.
    let (caller, _) = call.pings("OPTIONS");
    assert!(!caller.is_empty());
    call.answer(&caller, PHONE, 200);
    assert_eq!(call.rig.counters().call_pings_failed.get(), 0);
}

#[test]
fn a_ping_by_reinvite_offers_what_was_agreed_and_is_acknowledged() {
    let mut call = answered(pinging(true));
    let (caller, callee) = call.pings("INVITE");
    assert!(caller.ends_with(&sdp("192.0.2.200", 6_000)) && callee.ends_with(&sdp("198.51.100.7", 4_000)), "{caller}{callee}");
    assert_eq!((header(&caller, "Contact"), header(&callee, "Contact")), ("<sip:9@192.0.2.200>", "<sip:alice@198.51.100.7>"));
    assert_eq!((header(&caller, "CSeq"), header(&callee, "CSeq")), ("1 INVITE", "11 INVITE"));
    let ok = response(&caller, 200, "");
    let ack = to(&call.rig.receive(PHONE, &ok), PHONE, "ACK");
    assert!(ack.starts_with("ACK sip:alice@198.51.100.7 SIP/2.0"));
    assert_eq!(header(&ack, "CSeq"), "1 ACK");
    assert_ne!(header(&ack, "Via"), header(&caller, "Via"));
    assert_eq!(to(&call.rig.receive(PHONE, &ok), PHONE, "ACK"), ack, "again, since the first may be lost");
    // One that is busy with something else lives (RFC 3261 section 14.2), and so does its call.
    let ack = to(&call.answer(&callee, CORE, 491), CORE, "ACK");
    assert_eq!(header(&ack, "CSeq"), "11 ACK");
    assert_eq!(header(&call.request("INFO", 11, ""), "CSeq"), "12 INFO");
    assert_eq!((call.rig.edge.sizes().0, call.rig.counters().call_pings_failed.get()), (1, 0));
    let (caller, callee) = call.pings("INVITE");
    assert_eq!(header(&caller, "CSeq"), "2 INVITE");
    call.answer(&caller, PHONE, 481);
    let _ = callee;
    assert_eq!(call.rig.edge.sizes().0, 0);
    call.rig.advance(200_000);
    assert_eq!(call.rig.edge.sizes(), (0, 0));
}

#[test]
fn a_phone_that_moved_is_pinged_where_it_was_heard_from() {
    let mut call = answered(pinging(false));
    let moved = "198.51.100.7:6060";
    let info = Request::new("INFO", "sip:9@192.0.2.200").branch("z9hG4bKmoved").call_id("a").cseq(11).tags(&call.tag, "t");
    let sent = call.rig.receive(moved, &info.header(&format!("Route: {}", call.route)).text());
    assert!(!to(&sent, CORE, "INFO").is_empty(), "{sent:?}");
    for _ in 0..60 {
        let sent = call.rig.advance(1_000);
        assert!(to(&sent, PHONE, "OPTIONS").is_empty());
        let ping = to(&sent, moved, "OPTIONS");
        if !ping.is_empty() {
            assert!(call.answer(&ping, moved, 200).is_empty());
            return;
        }
    }
    unreachable!("nobody was pinged");
}

#[test]
fn what_is_not_known_is_not_offered_again() {
    // A session timer runs, which a re-INVITE without one would switch off.
    let mut timed = pinging(true);
    timed.session_timer = Some(edge::SessionTimerSettings { expires_seconds: 1_800, min_expires_seconds: 90 });
    let mut call = answered(timed);
    let update = call.request("UPDATE", 11, "Supported: timer");
    call.rig.receive(CORE, &response(&update, 200, "t").replace("Content-Length", "Session-Expires: 300;refresher=uac\r\nContent-Length"));
    let (caller, _) = call.pings("OPTIONS");
    assert!(!caller.is_empty());
    // An offer in the 2xx is answered in an ACK: what the caller has then is not known, so its far end gets no re-INVITE in its name.
    let mut call = answered(pinging(true));
    let again = call.request("INVITE", 11, "");
    let body = sdp("192.0.2.200", 6_002);
    let ok = response(&again, 200, "t").replace("Content-Length: 0\r\n\r\n", "").replace("<sip:bob@203.0.113.9>", "<sip:9@192.0.2.200>");
    call.rig.receive(CORE, &format!("{ok}Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    for _ in 0..60 {
        let sent = call.rig.advance(1_000);
        let (to_phone, to_core) = (to(&sent, PHONE, "INVITE"), to(&sent, CORE, "OPTIONS"));
        if !to_core.is_empty() {
            assert!(to_phone.ends_with(&body), "{to_phone}");
            return;
        }
    }
    unreachable!("nobody was pinged");
}

#[test]
fn a_notify_names_its_refer_as_the_phone_numbered_it() {
    let mut call = answered(pinging(false));
    let (caller, callee) = call.pings("OPTIONS");
    call.answer(&caller, PHONE, 200);
    call.answer(&callee, CORE, 200);
    let refer = call.request("REFER", 11, "Refer-To: <sip:x@example.net>");
    assert_eq!(header(&refer, "CSeq"), "12 REFER");
    call.answer(&refer, CORE, 202);
    let mut ids = [12, 10].map(|id| {
        let notify = Request::new("NOTIFY", "sip:alice@198.51.100.7").branch(&format!("z9hG4bKn{id}")).call_id("a").cseq(50 + id).tags("t", &call.tag);
        let notify = notify.header(&format!("Event: refer ;id={id}")).header(&format!("Route: {}", call.route)).via("SIP/2.0/UDP 192.0.2.200");
        let sent = call.rig.receive(CORE, &notify.text());
        header(&to(&sent, PHONE, "NOTIFY"), "Event").to_owned()
    });
    ids.sort();
    assert_eq!(ids, ["refer ;id=10", "refer ;id=11"]);
}

#[test]
fn a_challenged_bye_ends_nothing_until_it_comes_again() {
    let mut call = answered(pinging(false));
    let (caller, callee) = call.pings("OPTIONS");
    call.answer(&caller, PHONE, 200);
    call.answer(&callee, CORE, 200);
    let bye = call.request("BYE", 11, "");
    assert_eq!(header(&bye, "CSeq"), "12 BYE");
    call.answer(&bye, CORE, 401);
    assert_eq!(call.rig.edge.sizes().0, 1, "its place is taken as long as nobody has ended it");
    let bye = call.request("BYE", 12, "Proxy-Authorization: Digest username=\"a\", realm=\"x\", nonce=\"n\", uri=\"sip:x\", response=\"r\"");
    assert_eq!(header(&bye, "CSeq"), "13 BYE");
    call.answer(&bye, CORE, 200);
    assert_eq!(call.rig.edge.sizes().0, 0);
}

#[test]
fn no_ping_by_reinvite_crosses_an_invite_that_is_under_way() {
    let mut call = answered(pinging(true));
    // On hold, and not answered yet: the callee must not be offered what was before.
    let hold = call.request("INVITE", 11, "");
    call.answer(&hold, CORE, 180);
    let (caller, callee) = call.pings("OPTIONS");
    assert!(!caller.is_empty() && !callee.is_empty());
    call.answer(&caller, PHONE, 200);
    call.answer(&callee, CORE, 200);
    call.answer(&hold, CORE, 488);
    // A ping that rings is under way until its end, and its side is there.
    let (caller, callee) = call.pings("INVITE");
    call.answer(&caller, PHONE, 200);
    call.answer(&callee, CORE, 180);
    let sent = call.rig.receive(PHONE, &call_again(&call, 12));
    assert_eq!((sent.len(), sent[0].status_code()), (1, 491), "{sent:?}");
    assert!(to(&call.rig.advance(20_000), CORE, "INVITE").is_empty());
    assert_eq!(call.rig.edge.sizes().0, 1);
    call.answer(&callee, CORE, 200);
    let (_, callee) = call.pings("INVITE");
    assert!(!callee.is_empty());
}

fn call_again(call: &Call, cseq: u32) -> String {
    let request = Request::new("INVITE", "sip:9@192.0.2.200").branch(&format!("z9hG4bKre{cseq}")).call_id("a").cseq(cseq);
    request.tags(&call.tag, "t").header(&format!("Route: {}", call.route)).text()
}

#[test]
fn a_reinvite_waits_for_the_ping_that_is_under_way_in_its_name() {
    let mut call = answered(pinging(true));
    let (_, callee) = call.pings("INVITE");
    let sent = call.rig.receive(PHONE, &call_again(&call, 11));
    assert_eq!((sent.len(), sent[0].status_code()), (1, 491), "{sent:?}");
    call.answer(&callee, CORE, 200);
    let sent = call.rig.receive(PHONE, &call_again(&call, 12));
    assert_eq!(header(&to(&sent, CORE, "INVITE"), "CSeq"), "13 INVITE");
}
