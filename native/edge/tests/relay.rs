//! A call through the edge on simulated time: what is sent, when, and what is recorded.
#![expect(clippy::unwrap_used, reason = "tests")]

use edge::{Forking, PeerKind, RouteSettings, Shedding};
use testkit::{Request, Rig, Sent, header, headers, listener, peer, response, settings};

const CALLER: &str = "198.51.100.7:5060";
const CORE: &str = "203.0.113.9:5060";
const CORE_2: &str = "203.0.113.10:5060";

fn one_core() -> RouteSettings {
    settings(vec![peer("core", PeerKind::Core, "203.0.113.0/24", &["sip:203.0.113.9"]), peer("phones", PeerKind::Trusted, "198.51.100.0/24", &[])])
}

fn two_cores(forking: Forking) -> RouteSettings {
    let mut core = peer("core", PeerKind::Core, "203.0.113.0/24", &["sip:203.0.113.9", "sip:203.0.113.10"]);
    core.forking = forking;
    settings(vec![core, peer("phones", PeerKind::Trusted, "198.51.100.0/24", &[])])
}

fn invite() -> Request {
    Request::new("INVITE", "sip:bob@example.net")
}

fn lines(sent: &[Sent]) -> Vec<String> {
    sent.iter().map(|s| format!("{} {}", s.to, s.first_line())).collect()
}

/// The ACK or other request of the caller within the dialog that `ok` confirmed.
fn in_dialog(method: &str, ok: &str, cseq: u32) -> Request {
    let route = headers(ok, "Record-Route").join(", ");
    Request::new(method, "sip:bob@203.0.113.9").tags("alice", "bob").cseq(cseq).branch(&format!("z9hG4bK-{method}-{cseq}")).header(&format!("Route: {route}"))
}

fn answered(rig: &mut Rig) -> String {
    let sent = rig.receive(CALLER, &invite().text());
    let forwarded = &sent.last().unwrap().text;
    rig.receive(CORE, &response(forwarded, 180, "bob"));
    let ok = rig.receive(CORE, &response(forwarded, 200, "bob"));
    ok[0].text.clone()
}

#[test]
fn a_call_is_relayed_from_invite_to_bye_and_recorded_once() {
    let mut rig = Rig::new(one_core());
    let sent = rig.receive(CALLER, &invite().text());
    assert_eq!(lines(&sent), [format!("{CALLER} SIP/2.0 100 Trying"), format!("{CORE} INVITE sip:bob@example.net SIP/2.0")]);
    let forwarded = sent[1].text.clone();
    assert_eq!(headers(&forwarded, "Via").len(), 2);
    assert_eq!(header(&forwarded, "Max-Forwards"), "69");
    assert!(header(&forwarded, "Record-Route").ends_with("@192.0.2.1:5060;lr>"));
    let ringing = rig.receive(CORE, &response(&forwarded, 180, "bob"));
    assert_eq!((ringing.len(), ringing[0].status_code(), headers(&ringing[0].text, "Via").len()), (1, 180, 1));
    rig.advance(2_000);
    let ok = rig.receive(CORE, &response(&forwarded, 200, "bob"));
    assert_eq!(ok[0].status_code(), 200);
    let ack = rig.receive(CALLER, &in_dialog("ACK", &ok[0].text, 1).text());
    assert_eq!((lines(&ack), headers(&ack[0].text, "Route").len()), (vec![format!("{CORE} ACK sip:bob@203.0.113.9 SIP/2.0")], 0));
    rig.advance(60_000);
    let bye = rig.receive(CALLER, &in_dialog("BYE", &ok[0].text, 2).text());
    let done = rig.receive(CORE, &response(&bye[0].text, 200, "bob"));
    assert_eq!(done[0].status_code(), 200);
    assert_eq!(rig.records.len(), 1);
    let record = &rig.records[0];
    assert_eq!((record.outcome, record.ended_by, record.setup_milliseconds, record.duration_milliseconds), ("answered", "caller", 2_000, 60_000));
    assert_eq!((record.attempts.len(), record.attempts[0].status_code, record.callee_tag.as_str()), (1, 200, "bob"));
    rig.advance(40_000);
    assert_eq!(rig.edge.sizes(), (0, 0));
}

#[test]
fn a_wall_clock_that_jumps_changes_no_duration_and_no_timer() {
    const HOUR: u64 = 3_600_000_000;
    for (up, then) in [(true, false), (false, true), (true, true), (false, false)] {
        let mut rig = Rig::new(one_core());
        let jump = |rig: &mut Rig, up: bool| {
            let wall = rig.now().wall;
            rig.set_wall(if up { wall + 30 * HOUR } else { wall - 30 * HOUR });
        };
        let sent = rig.receive(CALLER, &invite().text());
        rig.advance(1_000);
        jump(&mut rig, up);
        let ok = rig.receive(CORE, &response(&sent[1].text, 200, "bob"));
        rig.advance(30_000);
        jump(&mut rig, then);
        let bye = rig.receive(CALLER, &in_dialog("BYE", &ok[0].text, 2).text());
        rig.receive(CORE, &response(&bye[0].text, 200, "bob"));
        let record = &rig.records[0];
        assert_eq!((record.setup_milliseconds, record.duration_milliseconds, record.outcome), (1_000, 30_000, "answered"));
        // Silence is given up when its time is over, whatever the clock on the wall shows meanwhile.
        let mut silent = |jumps: bool| {
            rig.receive(CALLER, &invite().branch(&format!("z9hG4bK{jumps}")).call_id(&format!("silent{jumps}")).text());
            if jumps {
                jump(&mut rig, up);
            }
            let told = (1..60).map(|second| (second, rig.advance(1_000))).filter(|(_, sent)| !sent.is_empty());
            told.map(|(second, sent)| (second, lines(&sent))).collect::<Vec<_>>()
        };
        let (without, with) = (silent(false), silent(true));
        assert!(without.iter().any(|(_, sent)| sent.iter().any(|line| line.contains("408"))), "{without:?}");
        assert_eq!(with, without);
        rig.advance(40_000);
        assert_eq!(rig.edge.sizes(), (0, 0));
    }
}

#[test]
fn an_in_dialog_request_without_our_route_follows_its_dialog() {
    let mut rig = Rig::new(one_core());
    answered(&mut rig);
    let bye = Request::new("BYE", "sip:bob@203.0.113.9").tags("alice", "bob").cseq(2);
    assert_eq!(rig.receive(CALLER, &bye.text()).len(), 1);
}

#[test]
fn a_request_that_names_us_instead_of_the_other_side_does_not_come_back_to_us() {
    let mut rig = Rig::new(one_core());
    answered(&mut rig);
    // As SIPp's own `uac` does: neither our Record-Route nor the callee's Contact was kept.
    let own = |method: &str, from: &str, to: &str| Request::new(method, "sip:bob@192.0.2.1:5060").tags(from, to).cseq(1);
    assert_eq!(lines(&rig.receive(CALLER, &own("ACK", "alice", "bob").text())), [format!("{CORE} ACK sip:bob@192.0.2.1:5060 SIP/2.0")]);
    let sent = rig.receive(CORE, &own("INFO", "bob", "alice").cseq(7).text());
    assert_eq!(lines(&sent), [format!("{CALLER} INFO sip:bob@192.0.2.1:5060 SIP/2.0")]);
    let bye = rig.receive(CALLER, &own("BYE", "alice", "bob").cseq(2).text());
    assert_eq!(lines(&bye), [format!("{CORE} BYE sip:bob@192.0.2.1:5060 SIP/2.0")]);
}

#[test]
fn where_the_other_side_is_not_known_any_more_such_a_request_is_refused() {
    let mut rig = Rig::new(one_core());
    let ok = answered(&mut rig);
    let mut restarted = Rig::new(one_core());
    let own = |method: &str| in_dialog(method, &ok, 2).text().replacen("sip:bob@203.0.113.9 ", "sip:bob@192.0.2.1 ", 1);
    assert_eq!(restarted.receive(CALLER, &own("BYE"))[0].status_code(), 404);
    assert!(restarted.receive(CALLER, &own("ACK")).is_empty());
    assert_eq!(restarted.counters().stray_acks.get(), 1);
}

#[test]
fn the_callee_may_hang_up() {
    let mut rig = Rig::new(one_core());
    let ok = answered(&mut rig);
    let bye = in_dialog("BYE", &ok, 7)
        .tags("bob", "alice")
        .via("SIP/2.0/UDP 203.0.113.9:5060")
        .text()
        .replace("sip:bob@203.0.113.9 SIP", "sip:alice@198.51.100.7 SIP");
    let sent = rig.receive(CORE, &bye);
    assert_eq!(lines(&sent), [format!("{CALLER} BYE sip:alice@198.51.100.7 SIP/2.0")]);
    rig.receive(CALLER, &response(&sent[0].text, 200, "alice"));
    assert_eq!(rig.records[0].ended_by, "callee");
}

#[test]
fn a_retransmitted_request_is_answered_and_not_relayed_again() {
    let mut rig = Rig::new(one_core());
    rig.receive(CALLER, &invite().text());
    let again = rig.receive(CALLER, &invite().text());
    assert_eq!(lines(&again), [format!("{CALLER} SIP/2.0 100 Trying")]);
}

#[test]
fn an_unanswered_target_is_retried_given_up_and_followed_by_the_next() {
    let mut rig = Rig::new(two_cores(Forking::Serial));
    let first = rig.receive(CALLER, &invite().text());
    assert_eq!(first[1].to.to_string(), CORE);
    let sent = rig.advance(4_100);
    let times: Vec<_> = sent.iter().map(|s| (s.at, s.to.to_string())).collect();
    assert_eq!(times.len(), 4);
    assert!(times[..3].iter().all(|(_, to)| to == CORE) && times[3].1 == CORE_2, "{times:?}");
    let ok = rig.receive(CORE_2, &response(&sent[3].text, 200, "bob"));
    assert_eq!(ok[0].status_code(), 200);
    // The dead target is passed over by the next call.
    let next = rig.receive(CALLER, &invite().branch("z9hG4bK-next").call_id("call-2").text());
    assert_eq!(next[1].to.to_string(), CORE_2);
}

#[test]
fn an_icmp_error_fails_over_at_once() {
    let mut rig = Rig::new(two_cores(Forking::Serial));
    let sent = rig.receive(CALLER, &invite().text());
    let next = rig.undeliverable(&sent[1]);
    assert_eq!(next[0].to.to_string(), CORE_2);
}

#[test]
fn a_503_fails_over_and_the_last_one_reaches_the_caller_as_500() {
    let mut rig = Rig::new(two_cores(Forking::Serial));
    let sent = rig.receive(CALLER, &invite().text());
    let next = rig.receive(CORE, &response(&sent[1].text, 503, "x").replace("Content-Length", "Retry-After: 7\r\nContent-Length"));
    assert_eq!(lines(&next), [format!("{CORE} ACK sip:bob@example.net SIP/2.0"), format!("{CORE_2} INVITE sip:bob@example.net SIP/2.0")]);
    let last = rig.receive(CORE_2, &response(&next[1].text, 503, "y"));
    assert_eq!((last.last().unwrap().status_code(), header(&last.last().unwrap().text, "Retry-After")), (500, "7"));
    assert_eq!((rig.records[0].outcome, rig.records[0].attempts.len()), ("failed", 2));
}

#[test]
fn a_busy_callee_ends_the_search() {
    let mut rig = Rig::new(two_cores(Forking::Serial));
    let sent = rig.receive(CALLER, &invite().text());
    let busy = rig.receive(CORE, &response(&sent[1].text, 486, "x"));
    assert_eq!(busy.iter().map(Sent::status_code).collect::<Vec<_>>(), [0, 486]);
    // Timer G until the caller's ACK.
    assert_eq!(rig.advance(600).len(), 1);
    let ack = Request::new("ACK", "sip:bob@example.net").tags("alice", "x").branch("z9hG4bK-INVITE-1");
    assert!(rig.receive(CALLER, &ack.text()).is_empty());
    assert!(rig.advance(10_000).is_empty());
}

#[test]
fn parallel_branches_ring_together_and_the_losers_are_cancelled() {
    let mut rig = Rig::new(two_cores(Forking::Parallel));
    let sent = rig.receive(CALLER, &invite().text());
    assert_eq!(sent.len(), 3);
    rig.receive(CORE, &response(&sent[1].text, 180, "a"));
    rig.receive(CORE_2, &response(&sent[2].text, 180, "b"));
    let won = rig.receive(CORE, &response(&sent[1].text, 200, "a"));
    assert_eq!(lines(&won), [format!("{CALLER} SIP/2.0 200 Whatever"), format!("{CORE_2} CANCEL sip:bob@example.net SIP/2.0")]);
    assert!(header(&won[1].text, "Reason").contains("cause=200"));
    rig.receive(CORE_2, &response(&won[1].text, 200, "b"));
    let lost = rig.receive(CORE_2, &response(&sent[2].text, 487, "b"));
    assert_eq!(lines(&lost), [format!("{CORE_2} ACK sip:bob@example.net SIP/2.0")]);
}

#[test]
fn a_6xx_cancels_the_other_branches() {
    let mut rig = Rig::new(two_cores(Forking::Parallel));
    let sent = rig.receive(CALLER, &invite().text());
    rig.receive(CORE_2, &response(&sent[2].text, 180, "b"));
    let refused = rig.receive(CORE, &response(&sent[1].text, 603, "a"));
    let cancel = refused.iter().find(|s| s.first_line().starts_with("CANCEL")).unwrap();
    assert_eq!(header(&cancel.text, "Reason"), "SIP;cause=603", "nobody took the call elsewhere");
    let last = rig.receive(CORE_2, &response(&sent[2].text, 487, "b"));
    assert_eq!(last.last().unwrap().status_code(), 603);
}

#[test]
fn challenges_of_all_branches_reach_the_caller() {
    let mut rig = Rig::new(two_cores(Forking::Parallel));
    let sent = rig.receive(CALLER, &invite().text());
    let challenge = |request: &str, code: u16, realm: &str| {
        response(request, code, "t").replace("Contact:", &format!("WWW-Authenticate: Digest realm=\"{realm}\"\r\nContact:"))
    };
    rig.receive(CORE, &challenge(&sent[1].text, 401, "one"));
    let last = rig.receive(CORE_2, &challenge(&sent[2].text, 401, "two"));
    let values = headers(&last.last().unwrap().text, "WWW-Authenticate");
    assert_eq!(values, ["Digest realm=\"one\"", "Digest realm=\"two\""]);
}

#[test]
fn a_cancel_waits_for_the_first_provisional_response() {
    let mut rig = Rig::new(one_core());
    let sent = rig.receive(CALLER, &invite().text());
    let cancel = Request::new("CANCEL", "sip:bob@example.net").branch("z9hG4bK-INVITE-1").header("Reason: SIP;cause=200;text=\"elsewhere\"");
    assert_eq!(lines(&rig.receive(CALLER, &cancel.text())), [format!("{CALLER} SIP/2.0 200 OK")]);
    let cancelled = rig.receive(CORE, &response(&sent[1].text, 100, ""));
    assert_eq!(lines(&cancelled), [format!("{CORE} CANCEL sip:bob@example.net SIP/2.0")]);
    assert_eq!(header(&cancelled[0].text, "Via"), header(&sent[1].text, "Via"));
    assert_eq!(header(&cancelled[0].text, "Reason"), "SIP;cause=200;text=\"elsewhere\"");
    let done = rig.receive(CORE, &response(&sent[1].text, 487, "bob"));
    assert_eq!(done.last().unwrap().status_code(), 487);
    assert_eq!((rig.records[0].outcome, rig.records[0].ended_by), ("cancelled", "caller"));
}

#[test]
fn a_200_that_crosses_a_cancel_is_relayed() {
    let mut rig = Rig::new(one_core());
    let sent = rig.receive(CALLER, &invite().text());
    rig.receive(CORE, &response(&sent[1].text, 180, "bob"));
    let cancel = Request::new("CANCEL", "sip:bob@example.net").branch("z9hG4bK-INVITE-1");
    assert_eq!(rig.receive(CALLER, &cancel.text()).len(), 2);
    let ok = rig.receive(CORE, &response(&sent[1].text, 200, "bob"));
    assert_eq!(ok[0].status_code(), 200);
    assert!(rig.records.is_empty());
    assert_eq!(rig.edge.sizes().0, 1);
}

#[test]
fn silence_ends_in_408_and_timer_c_in_a_cancel() {
    let mut rig = Rig::new(one_core());
    rig.receive(CALLER, &invite().text());
    assert_eq!(rig.advance(4_100).last().unwrap().status_code(), 408);

    let mut rig = Rig::new(one_core());
    let sent = rig.receive(CALLER, &invite().text());
    rig.receive(CORE, &response(&sent[1].text, 180, "bob"));
    let late = rig.advance(185_100);
    assert_eq!(lines(&late)[0], format!("{CORE} CANCEL sip:bob@example.net SIP/2.0"));
    let done = rig.receive(CORE, &response(&sent[1].text, 487, "bob"));
    assert_eq!(done.last().unwrap().status_code(), 408);
}

#[test]
fn a_late_non_invite_gets_no_408() {
    let mut rig = Rig::new(one_core());
    rig.receive(CALLER, &Request::new("MESSAGE", "sip:bob@example.net").text());
    assert!(rig.advance(70_000).iter().all(|s| s.status_code() == 0));
    assert_eq!(rig.edge.sizes(), (0, 0));
}

#[test]
fn a_name_parks_the_call_until_it_is_resolved() {
    let mut rig = Rig::new(settings(vec![
        peer("core", PeerKind::Core, "203.0.113.0/24", &["sip:core.example"]),
        peer("phones", PeerKind::Trusted, "198.51.100.0/24", &[]),
    ]));
    assert_eq!(rig.receive(CALLER, &invite().text()).len(), 1);
    let question = rig.questions.remove(0);
    assert_eq!(question.host, "core.example");
    let sent = rig.answer(&question, &[CORE, CORE_2]);
    assert_eq!(sent[0].to.to_string(), CORE);
    assert!(rig.answer(&question, &[CORE]).is_empty());
    assert_eq!(rig.counters().late_answers.get(), 1);
}

#[test]
fn a_name_that_nobody_resolves_fails_the_call_in_time() {
    let mut rig = Rig::new(settings(vec![
        peer("core", PeerKind::Core, "203.0.113.0/24", &["sip:core.example"]),
        peer("phones", PeerKind::Trusted, "198.51.100.0/24", &[]),
    ]));
    rig.receive(CALLER, &invite().text());
    let sent = rig.advance(3_100);
    assert_eq!(sent[0].status_code(), 500);
}

#[test]
fn a_stranger_gets_403_and_nothing_is_sent_on() {
    let mut rig = Rig::new(one_core());
    let sent = rig.receive("192.0.2.99:5060", &invite().text());
    assert_eq!(lines(&sent), ["192.0.2.99:5060 SIP/2.0 403 Forbidden"]);
    assert_eq!((rig.records[0].outcome, rig.records[0].refused_by), ("refused", "identify"));
    assert_eq!(rig.edge.sizes(), (0, 0));
}

#[test]
fn a_forged_to_tag_with_a_preloaded_route_is_refused_and_nothing_is_sent_on() {
    let mut rig = Rig::new(one_core());
    let ok = answered(&mut rig);
    let token = header(&ok, "Record-Route").to_owned();
    let forged = token.replace(&token[10..14], "0000");
    for route in ["<sip:192.0.2.1:5060;lr>, <sip:203.0.113.9;lr>", &forged, &token] {
        let request = invite().tags("mallory", "forged").call_id("other").branch("z9hG4bK-m").header(&format!("Route: {route}"));
        let sent = rig.receive("192.0.2.99:5060", &request.text());
        assert_eq!(lines(&sent), ["192.0.2.99:5060 SIP/2.0 403 Forbidden"], "{route}");
    }
}

#[test]
fn a_token_carries_no_request_outside_its_dialog() {
    let mut rig = Rig::new(one_core());
    let ok = answered(&mut rig);
    let request = in_dialog("INVITE", &ok, 5).tags("alice", "made-up").text();
    assert_eq!(lines(&rig.receive(CALLER, &request)), [format!("{CALLER} SIP/2.0 481 Call/Transaction Does Not Exist")]);
}

#[test]
fn a_phone_cannot_aim_its_dialog_at_another_host() {
    let mut routing = one_core();
    routing.peers[1].kind = PeerKind::Subscribers;
    let mut rig = Rig::new(routing);
    let ok = answered(&mut rig);
    let request = in_dialog("INVITE", &ok, 5).text().replace("INVITE sip:bob@203.0.113.9 ", "INVITE sip:premium@192.0.2.200 ");
    let sent = rig.receive(CALLER, &request);
    assert!(sent.iter().all(|s| s.to.to_string() == CALLER), "{:?}", lines(&sent));
}

#[test]
fn after_a_restart_a_dialog_goes_on_by_its_token() {
    let mut rig = Rig::new(one_core());
    let ok = answered(&mut rig);
    let mut restarted = Rig::new(one_core());
    let sent = restarted.receive(CALLER, &in_dialog("BYE", &ok, 2).text());
    assert_eq!(lines(&sent), [format!("{CORE} BYE sip:bob@203.0.113.9 SIP/2.0")]);
}

#[test]
fn a_call_that_crosses_listeners_gets_two_record_routes() {
    let mut routing = one_core();
    routing.listeners.push(listener("inside", "tcp:192.0.2.1:5060"));
    routing.peers[0].to = vec!["sip:203.0.113.9;transport=tcp".to_owned()];
    let mut rig = Rig::new(routing);
    let sent = rig.receive(CALLER, &invite().text());
    let routes = headers(&sent[1].text, "Record-Route");
    assert_eq!(routes.len(), 2);
    assert!(routes[0].ends_with(";transport=tcp;lr;r2=on>") && routes[1].ends_with("5060;lr;r2=on>"));
    let ok = rig.receive_at(1, syntax::Transport::Tcp, CORE, response(&sent[1].text, 200, "bob").as_bytes());
    let route: Vec<_> = headers(&ok[0].text, "Record-Route").into_iter().rev().collect();
    let bye = Request::new("BYE", "sip:bob@203.0.113.9;transport=tcp")
        .tags("alice", "bob")
        .cseq(2)
        .header(&format!("Route: {}", route[0]))
        .header(&format!("Route: {}", route[1]));
    let sent = rig.receive(CALLER, &bye.text());
    assert_eq!((sent[0].listener, headers(&sent[0].text, "Route").len()), (1, 0));
}

#[test]
fn loops_end_and_spirals_do_not() {
    let mut rig = Rig::new(one_core());
    let sent = rig.receive(CALLER, &invite().text());
    let looped = sent[1].text.clone();
    assert_eq!(rig.receive(CORE, &looped)[0].status_code(), 482);
    let spiral = looped.replace("INVITE sip:bob@example.net", "INVITE sip:carol@192.0.2.77");
    assert_eq!(rig.receive(CORE, &spiral)[1].to.to_string(), "192.0.2.77:5060");
}

#[test]
fn max_forwards_and_proxy_require_are_checked() {
    let mut rig = Rig::new(one_core());
    assert_eq!(rig.receive(CALLER, &invite().header("Max-Forwards: 0").text())[0].status_code(), 483);
    let refused = rig.receive(CALLER, &invite().header("Proxy-Require: nothingSupportsThis").text());
    assert_eq!((refused[0].status_code(), header(&refused[0].text, "Unsupported")), (420, "nothingSupportsThis"));
    assert_eq!(rig.receive(CALLER, &Request::new("OPTIONS", "sip:192.0.2.1").text())[0].status_code(), 200);
}

#[test]
fn strict_routers_are_served_on_both_sides() {
    let mut rig = Rig::new(one_core());
    let ok = answered(&mut rig);
    let token = header(&ok, "Record-Route").trim_matches(['<', '>']).to_owned();
    let from_strict = Request::new("BYE", &token).tags("alice", "bob").cseq(2).header("Route: <sip:bob@203.0.113.9>");
    let sent = rig.receive(CALLER, &from_strict.text());
    assert_eq!((sent[0].first_line(), headers(&sent[0].text, "Route").len()), ("BYE sip:bob@203.0.113.9 SIP/2.0", 0));
    let to_strict = in_dialog("INFO", &ok, 3).text().replace("Route: ", "Route: <sip:192.0.2.50>, ").replacen("<sip:192.0.2.50>, ", "", 1);
    let to_strict = to_strict.replace(";lr>", ";lr>, <sip:203.0.113.50>");
    let sent = rig.receive(CALLER, &to_strict);
    assert_eq!(lines(&sent), ["203.0.113.50:5060 INFO sip:203.0.113.50 SIP/2.0"]);
    assert_eq!(header(&sent[0].text, "Route"), "<sip:bob@203.0.113.9>");
}

#[test]
fn header_fields_of_the_trust_domain_are_taken_from_phones_only() {
    let mut routing = one_core();
    let request = invite().header("P-Asserted-Identity: <sip:root@example.net>").header("P-Preferred-Identity: <sip:a@example.net>");
    let kept = Rig::new(routing.clone()).receive(CALLER, &request.text());
    assert!(kept[1].text.contains("P-Asserted-Identity"));
    routing.peers[1].kind = PeerKind::Subscribers;
    routing.peers[1].trust_identity = false;
    let removed = Rig::new(routing).receive(CALLER, &request.text());
    assert!(!removed[1].text.contains("P-Asserted-Identity") && removed[1].text.contains("P-Preferred-Identity"));
}

#[test]
fn overload_and_drain_refuse_new_calls_with_a_jittered_retry_after() {
    let mut rig = Rig::new(one_core());
    let ok = answered(&mut rig);
    rig.edge.set_shedding(Shedding::Calls);
    let values: std::collections::HashSet<_> = (0..40)
        .map(|n| {
            let sent = rig.receive(CALLER, &invite().call_id(&format!("c{n}")).branch(&format!("z9hG4bK-c{n}")).text());
            assert_eq!(sent[0].status_code(), 503);
            header(&sent[0].text, "Retry-After").to_owned()
        })
        .collect();
    assert!(values.len() > 5);
    assert_eq!(rig.receive(CALLER, &in_dialog("INFO", &ok, 2).text())[0].to.to_string(), CORE);
    rig.edge.set_shedding(Shedding::Nothing);
    rig.edge.drain();
    assert_eq!(rig.receive(CALLER, &invite().call_id("d").branch("z9hG4bK-d").text())[0].status_code(), 503);
}

#[test]
fn a_full_table_refuses_what_opens_something() {
    let mut routing = one_core();
    routing.limits.calls = 1;
    let mut rig = Rig::new(routing);
    rig.receive(CALLER, &invite().text());
    let refused = rig.receive(CALLER, &invite().call_id("second").branch("z9hG4bK-second").text());
    assert_eq!(refused[0].status_code(), 503);
    assert_eq!(rig.counters().shed_table_full.get(), 1);
}

#[test]
fn a_call_is_encoded_in_less_than_600_bytes() {
    let mut rig = Rig::new(one_core());
    answered(&mut rig);
    let encoded = rig.edge.encoded_calls().remove(0);
    assert!(encoded.len() <= 600, "{}", encoded.len());
    let call = edge::decode_call(&encoded).unwrap();
    assert_eq!((call.call_id.as_slice(), call.caller_tag.as_slice(), call.dialogs), (&b"call-1@198.51.100.7"[..], &b"alice"[..], vec![(1, b"bob".to_vec())]));
    assert!(edge::decode_call(&encoded[..encoded.len() - 1]).is_none() && edge::decode_call(&[9]).is_none());
}

#[test]
fn a_large_request_goes_over_tcp_where_the_peer_wishes_so_and_falls_back() {
    let mut routing = one_core();
    routing.listeners.push(listener("stream", "tcp:192.0.2.1:5060"));
    routing.peers[0].oversize = edge::OversizeRequest::Tcp;
    let mut rig = Rig::new(routing);
    let sent = rig.receive(CALLER, &invite().body(&"x".repeat(1_400)).text());
    assert_eq!(sent[1].transport, syntax::Transport::Tcp);
    let again = rig.undeliverable(&sent[1]);
    assert_eq!((again[0].transport, again[0].to.to_string()), (syntax::Transport::Udp, CORE.to_owned()));
}

#[test]
fn a_broken_request_of_a_stranger_is_not_answered() {
    let mut rig = Rig::new(one_core());
    let broken = invite().text().replace("CSeq: 1 INVITE", "CSeq: x INVITE");
    assert!(rig.receive("192.0.2.99:5060", &broken).is_empty());
    assert_eq!(rig.receive(CALLER, &broken)[0].status_code(), 400);
    assert_eq!(rig.counters().malformed.get(), 2);
}

#[test]
fn responses_that_match_nothing_go_nowhere() {
    let mut rig = Rig::new(one_core());
    let sent = rig.receive(CALLER, &invite().text());
    let ok = response(&sent[1].text, 200, "bob");
    let at = ok.find("z9hG4bK").unwrap() + 7 + 30;
    let mut guessed = ok.clone();
    guessed.replace_range(at..at + 2, if &ok[at..at + 2] == "00" { "11" } else { "00" });
    assert!(rig.receive(CORE, &guessed).is_empty());
    assert_eq!(rig.counters().stray_responses.get(), 1);
}

#[test]
fn every_2xx_of_a_forking_target_reaches_the_caller() {
    let mut rig = Rig::new(one_core());
    let sent = rig.receive(CALLER, &invite().text());
    for tag in ["a", "b", "a"] {
        assert_eq!(rig.receive(CORE, &response(&sent[1].text, 200, tag))[0].status_code(), 200);
    }
    assert!(rig.receive(CORE, &response(&sent[1].text, 486, "c")).is_empty());
}

#[test]
fn an_ack_that_matches_nothing_is_dropped() {
    let mut rig = Rig::new(one_core());
    assert!(rig.receive(CALLER, &Request::new("ACK", "sip:bob@203.0.113.9").tags("alice", "bob").text()).is_empty());
    assert_eq!(rig.counters().stray_acks.get(), 1);
}

#[test]
fn an_rfc_2543_peer_is_matched_without_a_branch() {
    let mut rig = Rig::new(one_core());
    let old = invite().text().replace(";branch=z9hG4bK-INVITE-1", "");
    assert_eq!(rig.receive(CALLER, &old).len(), 2);
    assert_eq!(lines(&rig.receive(CALLER, &old)), [format!("{CALLER} SIP/2.0 100 Trying")]);
    let cancel = old.replace("INVITE sip", "CANCEL sip").replace("1 INVITE", "1 CANCEL");
    assert_eq!(rig.receive(CALLER, &cancel)[0].first_line(), "SIP/2.0 200 OK");
}

/// Routes that make the edge panic for one address, as a bug of ours would.
struct Trap;

impl edge::Routes for Trap {
    fn source_for(&mut self, destination: std::net::IpAddr) -> Option<std::net::IpAddr> {
        assert_ne!(destination, std::net::IpAddr::from([203, 0, 113, 66]), "trap");
        None
    }
}

#[test]
fn a_panic_ends_one_request_and_leaves_the_rest() {
    let mut settings = one_core();
    settings.listeners.push(listener("second", "udp:192.0.2.2:5060"));
    let mut rig = Rig::with_routes(settings, Box::new(Trap));
    let ok = answered(&mut rig);
    let bad = Request::new("INVITE", "sip:bob@203.0.113.66").via("SIP/2.0/UDP 203.0.113.9:5060").call_id("bad").text();
    let sent = rig.receive_guarded(CORE, &bad);
    assert_eq!(lines(&sent).last().unwrap(), &format!("{CORE} SIP/2.0 500 Server Internal Error"));
    assert_eq!(rig.edge.sizes().0, 1, "the other call is still there");
    let bye = rig.receive(CALLER, &in_dialog("BYE", &ok, 2).text());
    assert_eq!(rig.receive(CORE, &response(&bye[0].text, 200, "bob"))[0].status_code(), 200);
    rig.advance(60_000);
    assert_eq!(rig.edge.sizes(), (0, 0));
}

#[test]
fn a_worker_that_starts_afresh_records_its_calls_and_follows_dialogs_by_their_tokens() {
    let mut rig = Rig::new(one_core());
    let ok = answered(&mut rig);
    rig.restart();
    assert_eq!((rig.records.len(), rig.records[0].ended_by, rig.edge.sizes()), (1, "proxy", (0, 0)));
    let bye = rig.receive(CALLER, &in_dialog("BYE", &ok, 2).text());
    assert_eq!(bye[0].first_line(), "BYE sip:bob@203.0.113.9 SIP/2.0");
}

fn phones_core_and_gateway() -> RouteSettings {
    settings(vec![
        peer("core", PeerKind::Core, "203.0.113.0/24", &["sip:203.0.113.9"]),
        peer("phones", PeerKind::Subscribers, "198.51.100.0/24", &[]),
        peer("gateway", PeerKind::Gateway, "192.0.2.128/25", &[]),
    ])
}

#[test]
fn a_token_serves_nobody_but_the_two_sides_of_its_dialog() {
    let gateway = "sip:+900@192.0.2.200";
    let nothing_sent_to_the_gateway = |sent: &[Sent]| assert!(sent.iter().all(|s| !s.to.ip().to_string().starts_with("192.0.2.2")), "{sent:?}");
    // A phone calls, and then sends as if it were the callee: its own tag in To.
    let mut rig = Rig::new(phones_core_and_gateway());
    let ok = answered(&mut rig);
    let route = format!("Route: {}", header(&ok, "Record-Route"));
    for to_tag in ["alice", ""] {
        let forged = Request::new("INVITE", gateway).tags("eve", to_tag).branch(&format!("z9hG4bK-eve{to_tag}")).header(&route);
        nothing_sent_to_the_gateway(&rig.receive(CALLER, &forged.text()));
        nothing_sent_to_the_gateway(&rig.receive("192.0.2.77:5060", &forged.branch("z9hG4bK-other").text()));
    }
    // The same without any Route: the call itself is held.
    nothing_sent_to_the_gateway(&rig.receive(CALLER, &Request::new("INVITE", gateway).tags("bob", "alice").branch("z9hG4bK-c").text()));
    // A call without a tag seals nothing that a later request without one could use.
    let untagged = invite().tags("", "").call_id("untagged").branch("z9hG4bK-u").text().replace(";tag=\r\n", "\r\n");
    let sent = rig.receive(CALLER, &untagged);
    let route = format!("Route: {}", header(&sent.last().unwrap().text, "Record-Route"));
    let later = Request::new("INVITE", gateway).call_id("untagged").tags("x", "").branch("z9hG4bK-d").header(&route);
    nothing_sent_to_the_gateway(&rig.receive(CALLER, &later.text()));
}

#[test]
fn a_called_phone_cannot_send_as_the_core_that_called_it() {
    let mut rig = Rig::new(phones_core_and_gateway());
    let call = Request::new("INVITE", "sip:alice@198.51.100.7").via("SIP/2.0/UDP 203.0.113.9:5060").tags("core", "");
    let forwarded = rig.receive(CORE, &call.text()).last().unwrap().text.clone();
    let ok = rig.receive(CALLER, &response(&forwarded, 200, "phone"));
    let route = format!("Route: {}", header(&ok[0].text, "Record-Route"));
    let as_phone = |method: &str, from: &str, to: &str, cseq| Request::new(method, "sip:+900@192.0.2.200").tags(from, to).cseq(cseq).header(&route);
    // During the call and after it, with and without a To tag.
    for (to, cseq) in [("phone", 5), ("", 6)] {
        let sent = rig.receive(CALLER, &as_phone("INVITE", "core", to, cseq).branch(&format!("z9hG4bK-f{cseq}")).text());
        assert!(sent.iter().all(|s| s.to.to_string() == CALLER || s.to.to_string() == CORE), "{sent:?}");
    }
    let bye = rig.receive(CALLER, &as_phone("BYE", "phone", "core", 7).text().replace("+900@192.0.2.200", "core@203.0.113.9"));
    rig.receive(CORE, &response(&bye[0].text, 200, "core"));
    let sent = rig.receive(CALLER, &as_phone("INVITE", "core", "phone", 8).branch("z9hG4bK-f8").text());
    assert!(sent.iter().all(|s| s.to.to_string() == CALLER || s.to.to_string() == CORE), "{sent:?}");
    // Its own side may be used, but only towards the core.
    let sent = rig.receive(CALLER, &as_phone("INVITE", "phone", "core", 9).branch("z9hG4bK-f9").text());
    assert_eq!(sent.last().unwrap().status_code(), 500);
}

#[test]
fn a_body_without_a_length_is_told_its_length_on_a_stream() {
    let mut settings = settings(vec![
        peer("core", PeerKind::Core, "203.0.113.0/24", &["sip:203.0.113.9;transport=tcp"]),
        peer("phones", PeerKind::Trusted, "198.51.100.0/24", &[]),
    ]);
    settings.listeners.push(listener("tcp", "tcp:192.0.2.1:5060"));
    let mut rig = Rig::new(settings);
    let smuggled = "INVITE sip:+900@gateway SIP/2.0\r\n\r\n";
    let request = invite().text().replace("Content-Length: 0\r\n", "") + smuggled;
    let sent = rig.receive(CALLER, &request);
    assert_eq!(header(&sent.last().unwrap().text, "Content-Length"), smuggled.len().to_string());
}

#[test]
fn a_bye_that_nobody_answers_ends_the_call() {
    for silence in [true, false] {
        let mut rig = Rig::new(one_core());
        let ok = answered(&mut rig);
        let bye = rig.receive(CALLER, &in_dialog("BYE", &ok, 2).text());
        if silence {
            rig.advance(40_000);
        } else {
            rig.undeliverable(&bye[0]);
        }
        assert_eq!((rig.records.len(), rig.records[0].ended_by, rig.edge.sizes().0), (1, "caller", 0), "silence {silence}");
    }
}

#[test]
fn an_icmp_error_that_quotes_little_of_a_request_is_enough() {
    let mut rig = Rig::new(two_cores(Forking::Serial));
    let sent = rig.receive(CALLER, &invite().body(&"x".repeat(1_000)).text());
    let mut quoted = sent[1].clone();
    quoted.text.truncate(200);
    assert_eq!(lines(&rig.undeliverable(&quoted)), [format!("{CORE_2} INVITE sip:bob@example.net SIP/2.0")]);
    quoted.text.truncate(60);
    assert!(rig.undeliverable(&quoted).is_empty());
}

#[test]
fn a_slow_answer_to_a_registration_is_waited_for() {
    let register = Request::new("REGISTER", "sip:example.net").text();
    // Nobody else to ask: timer F.
    let mut rig = Rig::new(one_core());
    let sent = rig.receive(CALLER, &register);
    rig.advance(20_000);
    assert_eq!(rig.receive(CORE, &response(&sent[0].text, 200, "r"))[0].status_code(), 200);
    // Somebody else could be asked, but the first says that it is at work.
    let mut rig = Rig::new(two_cores(Forking::Serial));
    let sent = rig.receive(CALLER, &register);
    rig.receive(CORE, &response(&sent[0].text, 100, ""));
    rig.advance(20_000);
    assert_eq!(rig.receive(CORE, &response(&sent[0].text, 200, "r"))[0].status_code(), 200);
}

#[test]
fn a_request_that_a_core_drops_does_not_make_it_dead_while_it_answers_others() {
    let mut rig = Rig::new(two_cores(Forking::Serial));
    rig.receive(CALLER, &Request::new("MESSAGE", "sip:bob@example.net").text());
    rig.advance(3_000);
    let sent = rig.receive(CALLER, &invite().text());
    rig.receive(CORE, &response(&sent[1].text, 486, "bob"));
    rig.advance(1_500);
    let again = rig.receive(CALLER, &invite().call_id("again").branch("z9hG4bK-again").text());
    assert_eq!(again[1].to.to_string(), CORE);
}

#[test]
fn a_callee_that_invents_dialogs_is_stopped() {
    let mut rig = Rig::new(one_core());
    let sent = rig.receive(CALLER, &invite().text());
    let relayed = (0..50).filter(|n| !rig.receive(CORE, &response(&sent[1].text, 183, &format!("t{n}"))).is_empty()).count();
    assert_eq!((relayed, rig.counters().dialogs_refused.get()), (8, 42));
}

#[test]
fn a_refused_invite_is_recorded_once_and_a_flood_of_strangers_is_not() {
    let mut rig = Rig::new(one_core());
    for n in 0..40 {
        for _ in 0..3 {
            let stranger = invite().branch(&format!("z9hG4bK-s{n}")).call_id(&format!("s{n}"));
            assert_eq!(rig.receive("192.0.2.66:5060", &stranger.text())[0].status_code(), 403);
        }
    }
    assert_eq!((rig.records.len(), rig.counters().stranger_records_suppressed.get()), (5, 35));
    let hopeless = invite().header("Max-Forwards: 0").text();
    for _ in 0..3 {
        rig.receive(CALLER, &hopeless);
    }
    assert_eq!((rig.records.len(), rig.records[5].status_code, rig.records[5].from_peer.as_str()), (6, 483, "phones"));
}

#[test]
fn a_request_as_long_as_it_may_be_can_still_be_cancelled() {
    let mut rig = Rig::new(one_core());
    let mut long = invite();
    for n in 0..112 {
        long = long.header(&format!("X-{n}: x"));
    }
    let sent = rig.receive(CALLER, &long.text());
    rig.receive(CORE, &response(&sent[1].text, 180, "bob"));
    let cancel = Request::new("CANCEL", "sip:bob@example.net").branch("z9hG4bK-INVITE-1");
    let sent = rig.receive(CALLER, &cancel.text());
    assert!(sent.iter().any(|s| s.to.to_string() == CORE && s.first_line() == "CANCEL sip:bob@example.net SIP/2.0"), "{sent:?}");
}

#[test]
fn nobody_else_can_cancel_a_call() {
    let mut rig = Rig::new(one_core());
    let sent = rig.receive(CALLER, &invite().text());
    rig.receive(CORE, &response(&sent[1].text, 180, "bob"));
    let cancel = Request::new("CANCEL", "sip:bob@example.net").branch("z9hG4bK-INVITE-1").text();
    assert_eq!(lines(&rig.receive("192.0.2.66:5060", &cancel)), ["192.0.2.66:5060 SIP/2.0 403 Forbidden"]);
    assert_eq!(rig.receive(CORE, &response(&sent[1].text, 200, "bob"))[0].status_code(), 200);
}

#[test]
fn what_a_phone_says_of_its_identity_is_taken_from_its_responses_too() {
    let mut rig = Rig::new(phones_core_and_gateway());
    let call = Request::new("INVITE", "sip:alice@198.51.100.7").via("SIP/2.0/UDP 203.0.113.9:5060").tags("core", "");
    let forwarded = rig.receive(CORE, &call.text()).last().unwrap().text.clone();
    let claim = "P-Asserted-Identity: <sip:+110@example.net>\r\nContact:";
    let ok = rig.receive(CALLER, &response(&forwarded, 200, "phone").replace("Contact:", claim));
    assert_eq!((ok[0].status_code(), headers(&ok[0].text, "P-Asserted-Identity").len(), headers(&ok[0].text, "Contact").len()), (200, 0, 1));
    let sent = rig.receive(CALLER, &invite().call_id("other").branch("z9hG4bK-o").text());
    let ok = rig.receive(CORE, &response(&sent[1].text, 200, "bob").replace("Contact:", claim));
    assert_eq!(headers(&ok[0].text, "P-Asserted-Identity").len(), 1);
}

#[test]
fn a_cancelled_branch_ends_in_time_however_often_it_rings() {
    let mut rig = Rig::new(one_core());
    let sent = rig.receive(CALLER, &invite().text());
    rig.receive(CORE, &response(&sent[1].text, 180, "bob"));
    let cancel = rig.receive(CALLER, &Request::new("CANCEL", "sip:bob@example.net").branch("z9hG4bK-INVITE-1").text());
    let cancel = cancel.iter().find(|s| s.first_line().starts_with("CANCEL")).unwrap();
    rig.receive(CORE, &response(&cancel.text, 200, "bob"));
    let mut answers = Vec::new();
    for _ in 0..40 {
        answers.extend(rig.receive(CORE, &response(&sent[1].text, 180, "bob")));
        answers.extend(rig.advance(1_000));
    }
    assert!(answers.iter().any(|s| s.status_code() == 487));
    assert!(!answers.iter().any(|s| s.first_line().starts_with("CANCEL")));
}

#[test]
fn a_folded_challenge_and_a_folded_route_leave_unfolded() {
    let mut rig = Rig::new(two_cores(Forking::Parallel));
    let sent = rig.receive(CALLER, &invite().text());
    let challenge = |text: &str| response(text, 401, "x").replace("Contact:", "WWW-Authenticate : Digest realm=\"a\",\r\n nonce=\"b\"\r\nContact:");
    rig.receive(CORE, &challenge(&sent[1].text));
    let merged = rig.receive(CORE_2, &challenge(&sent[2].text));
    let last = &merged.last().unwrap().text;
    assert_eq!(headers(last, "WWW-Authenticate"), ["Digest realm=\"a\", nonce=\"b\""; 2]);
    let routed = Request::new("MESSAGE", "sip:bob@example.net").header("Route: <sip:192.0.2.1;lr>,\r\n <sip:203.0.113.9;lr>,\r\n <sip:203.0.113.10;lr>");
    let sent = rig.receive(CALLER, &routed.text());
    assert_eq!(headers(&sent[0].text, "Route"), ["<sip:203.0.113.9;lr>, <sip:203.0.113.10;lr>"]);
}

#[test]
fn a_panic_at_a_timer_ends_its_call_and_leaves_the_rest() {
    let mut settings = two_cores(Forking::Serial);
    settings.peers[0].to[1] = "sip:203.0.113.66".to_owned();
    settings.listeners.push(listener("second", "udp:192.0.2.2:5060"));
    let mut rig = Rig::with_routes(settings, Box::new(Trap));
    rig.receive(CALLER, &invite().text());
    assert!(rig.advance_guarded(5_000));
    assert_eq!((rig.edge.sizes(), rig.records.len(), rig.records[0].status_code), ((0, 0), 1, 500));
    assert!(!rig.advance_guarded(60_000));
}

#[test]
fn what_matters_most_is_shed_last() {
    let mut rig = Rig::new(one_core());
    let ok = answered(&mut rig);
    let register = Request::new("REGISTER", "sip:example.net");
    let emergency = Request::new("INVITE", "urn:service:sos.fire").call_id("sos").branch("z9hG4bK-sos");
    rig.edge.set_shedding(Shedding::Calls);
    assert_eq!(rig.receive(CALLER, &invite().call_id("new").branch("z9hG4bK-new").text())[0].status_code(), 503);
    assert_eq!(rig.receive(CALLER, &register.text())[0].first_line(), "REGISTER sip:example.net SIP/2.0");
    rig.edge.set_shedding(Shedding::Registrations);
    assert_eq!(rig.receive(CALLER, &register.branch("z9hG4bK-r2").text())[0].status_code(), 503);
    assert_eq!(rig.receive(CALLER, &emergency.text())[0].status_code(), 100);
    assert_eq!(rig.receive(CALLER, &in_dialog("BYE", &ok, 2).text())[0].first_line(), "BYE sip:bob@203.0.113.9 SIP/2.0");
}

#[test]
fn breadth_is_shared_out_among_branches() {
    let mut rig = Rig::new(two_cores(Forking::Parallel));
    let sent = rig.receive(CALLER, &invite().text());
    assert_eq!(sent[1..].iter().map(|s| header(&s.text, "Max-Breadth")).collect::<Vec<_>>(), ["30", "30"]);
    let narrow = rig.receive(CALLER, &invite().call_id("n").branch("z9hG4bK-n").header("Max-Breadth: 1").text());
    assert_eq!((narrow.len(), header(&narrow[1].text, "Max-Breadth")), (2, "1"));
    let none = rig.receive(CALLER, &invite().call_id("z").branch("z9hG4bK-z").header("Max-Breadth: 0").text());
    assert_eq!(none[0].status_code(), 440);
}

#[test]
fn names_that_tokens_could_not_tell_apart_are_refused() {
    let mut settings = one_core();
    let id = |name: &str| proto::stable_id(name) as u16;
    let twin = (0..1_000_000).map(|n| format!("l{n}")).find(|name| id(name) == id("main")).unwrap();
    settings.listeners.push(listener(&twin, "udp:192.0.2.2:5060"));
    assert!(edge::Snapshot::build(settings).is_err());
}
