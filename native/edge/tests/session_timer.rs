//! Session timers (RFC 4028) on simulated time: asked for, refused, refreshed, expired.

use edge::{PeerKind, RouteSettings, SessionTimerSettings};
use testkit::{Request, Rig, Sent, header, headers, peer, response, settings};

const PHONE: &str = "198.51.100.7:5060";
const CORE: &str = "192.0.2.200:5060";

fn timed() -> RouteSettings {
    let mut settings =
        settings(vec![peer("core", PeerKind::Core, "192.0.2.200", &["sip:192.0.2.200"]), peer("phones", PeerKind::Subscribers, "198.51.100.0/24", &[])]);
    settings.session_timer = Some(SessionTimerSettings { expires_seconds: 1_800, min_expires_seconds: 120 });
    settings
}

fn invite(lines: &[&str]) -> Request {
    let request = Request::new("INVITE", "sip:9@example.net").branch("z9hG4bKa").call_id("a").header("Contact: <sip:alice@198.51.100.7>");
    lines.iter().fold(request, |request, line| request.header(line))
}

fn to(sent: &[Sent], place: &str) -> String {
    sent.iter().find(|sent| sent.to.to_string() == place && sent.status_code() != 100).map(|sent| sent.text.clone()).unwrap_or_default()
}

/// A call that is set up with these lines in request and answer: the request at the core, and the answer at the phone.
fn call(rig: &mut Rig, lines: &[&str], answer: &str) -> (String, String) {
    let request = to(&rig.receive(PHONE, &invite(lines).text()), CORE);
    let said = response(&request, 200, "t").replace("Content-Length", &format!("Contact: <sip:9@192.0.2.200>\r\n{answer}Content-Length"));
    let answered = to(&rig.receive(CORE, &said), PHONE);
    (request, answered)
}

#[test]
fn what_nobody_asks_for_we_do_and_what_is_asked_for_is_bounded() {
    for (lines, wanted) in [
        (&[][..], "1800"),
        (&["Session-Expires: 600;refresher=uas"][..], "600;refresher=uas"),
        (&["x: 7200"], "1800"),
        (&["Session-Expires: 7200", "Min-SE: 3600"], "3600"),
        (&["Session-Expires: 90"], "120"),
        (&["Session-Expires: abc;refresher=uac"], "1800"),
        (&["x: 99999999999"], "1800"),
    ] {
        let mut rig = Rig::new(timed());
        let (request, _) = call(&mut rig, lines, "");
        let found = [headers(&request, "Session-Expires"), headers(&request, "x")].concat();
        assert_eq!(found, [wanted], "{lines:?}");
        assert!(headers(&request, "Min-SE").len() == 1, "{request}");
    }
    let mut plain = timed();
    plain.session_timer = None;
    let (request, _) = call(&mut Rig::new(plain), &[], "");
    assert!(headers(&request, "Session-Expires").is_empty());
}

#[test]
fn the_least_that_somebody_bears_is_raised_only_for_whoever_knows_no_timers() {
    for (min_expires_seconds, lines, least) in [
        (300, &["Supported: timer", "Session-Expires: 600"][..], &[][..]),
        (300, &["Supported: timer", "Session-Expires: 600", "Min-SE: 90"], &["90"]),
        (300, &["Session-Expires: 600", "Min-SE: 90"], &["300"]),
        (90, &["Session-Expires: 60", "Min-SE: 30"], &["90"]),
        (90, &["Session-Expires: 600"], &[]),
    ] {
        let mut settings = timed();
        settings.session_timer = Some(SessionTimerSettings { expires_seconds: 1_800, min_expires_seconds });
        let (request, _) = call(&mut Rig::new(settings), lines, "");
        assert_eq!(headers(&request, "Min-SE"), least, "{lines:?}");
    }
}

#[test]
fn too_short_an_interval_is_refused_to_whoever_knows_what_that_means() {
    let mut rig = Rig::new(timed());
    let sent = rig.receive(PHONE, &invite(&["Supported: timer", "Session-Expires: 90"]).text());
    assert_eq!((sent[0].status_code(), header(&sent[0].text, "Min-SE")), (422, "120"));
    assert_eq!(rig.counters().sessions_too_short.get(), 1);
}

#[test]
fn one_side_that_knows_timers_is_enough() {
    let (_, answered) = call(&mut Rig::new(timed()), &["Supported: timer"], "");
    assert_eq!((headers(&answered, "Session-Expires"), headers(&answered, "Require")), (vec!["1800;refresher=uac"], vec!["timer"]));
    // The far end has answered for itself, or nobody knows timers.
    let (_, answered) = call(&mut Rig::new(timed()), &["Supported: timer"], "Session-Expires: 300;refresher=uas\r\nRequire: timer\r\n");
    assert_eq!(headers(&answered, "Session-Expires"), ["300;refresher=uas"]);
    let (_, answered) = call(&mut Rig::new(timed()), &[], "");
    assert!(headers(&answered, "Session-Expires").is_empty());
}

#[test]
fn a_call_lives_as_long_as_it_is_refreshed_and_ends_both_ways_when_it_is_not() {
    let mut rig = Rig::new(timed());
    let answer = "Session-Expires: 300;refresher=uac\r\n";
    let (request, answered) = call(&mut rig, &["Supported: timer"], answer);
    rig.advance(200_000);
    // An UPDATE refreshes it.
    let route = header(&answered, "Record-Route").to_owned();
    let tags = (header(&request, "From").rsplit("tag=").next().unwrap_or_default().to_owned(), "t");
    let update = Request::new("UPDATE", "sip:9@192.0.2.200").branch("z9hG4bKu").call_id("a").cseq(2).tags(&tags.0, tags.1).header(&format!("Route: {route}"));
    let update = update.header("Supported: timer").header("Session-Expires: 300;refresher=uac").text();
    let passed = to(&rig.receive(PHONE, &update), CORE);
    assert!(passed.starts_with("UPDATE"), "{passed}");
    rig.receive(CORE, &response(&passed, 200, "t").replace("Content-Length", &format!("{answer}Content-Length")));
    rig.advance(299_000);
    assert_eq!(rig.counters().sessions_expired.get(), 0);
    let sent = rig.advance(1_200);
    assert_eq!(sent.iter().filter(|sent| sent.first_line().starts_with("BYE")).count(), 2, "{sent:?}");
    assert_eq!((rig.counters().sessions_expired.get(), rig.records.last().map(|record| record.ended_by)), (1, Some("proxy")));
}

#[test]
fn a_call_that_rings_has_no_session_that_expires() {
    let mut rig = Rig::new(timed());
    let request = to(&rig.receive(PHONE, &invite(&["Supported: timer"]).text()), CORE);
    let ringing = to(&rig.receive(CORE, &response(&request, 183, "t")), PHONE);
    let mut update = Request::new("UPDATE", "sip:9@192.0.2.200").tags("alice", "t").cseq(2).branch("z9hG4bKu").call_id("a").header("Supported: timer");
    for route in headers(&ringing, "Record-Route").iter().rev() {
        update = update.header(&format!("Route: {route}"));
    }
    let update = to(&rig.receive(PHONE, &update.header("Session-Expires: 120").text()), CORE);
    rig.receive(CORE, &response(&update, 200, "t").replace("Content-Length", "Session-Expires: 120;refresher=uac\r\nContent-Length"));
    rig.advance(100_000);
    rig.receive(CORE, &response(&request, 180, "t"));
    rig.advance(50_000);
    assert_eq!((rig.edge.sizes().0, rig.records.len(), rig.counters().sessions_expired.get()), (1, 0, 0));
    rig.receive(CORE, &response(&request, 200, "t").replace("Content-Length", "Contact: <sip:9@192.0.2.200>\r\nContent-Length"));
    assert_eq!(rig.counters().calls_answered.get(), 1);
}

#[test]
fn a_2xx_that_comes_again_says_the_same_and_keeps_the_timer() {
    let mut rig = Rig::new(timed());
    let request = to(&rig.receive(PHONE, &invite(&["Supported: timer"]).text()), CORE);
    let said = response(&request, 200, "t").replace("Content-Length", "Contact: <sip:9@192.0.2.200>\r\nContent-Length");
    let first = to(&rig.receive(CORE, &said), PHONE);
    assert_eq!(to(&rig.receive(CORE, &said), PHONE), first);
    assert!(first.contains("Session-Expires: 1800;refresher=uac"));
    rig.advance(1_801_000);
    assert_eq!((rig.counters().sessions_expired.get(), rig.records.len()), (1, 1));
}

#[test]
fn a_call_as_long_as_any_may_be_is_ended_with_a_bye_both_ways() {
    let mut settings = timed();
    settings.session_timer = None;
    let mut rig = Rig::new(settings);
    call(&mut rig, &[], "");
    let sent = rig.advance(3_600_000);
    assert_eq!(sent.iter().filter(|sent| sent.first_line().starts_with("BYE")).map(|sent| sent.to.to_string()).collect::<Vec<_>>(), [PHONE, CORE]);
    assert_eq!((rig.counters().calls_too_long.get(), rig.records.len()), (1, 1));
}
