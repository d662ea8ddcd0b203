//! Calls by provisioned rules, on simulated time.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use edge::{CallerGroups, CarrierRouteSettings, PeerKind, PolicyEvent, PolicySettings, QuestionView, RouteSettings};
use routing::{Builder, LoadOptions};
use serde_json::json;
use testkit::{Request, Rig, Sent, gateways, header, packed, peer, response, route, settings};

const CORE: &str = "10.0.0.1:5060";
const A: &str = "203.0.113.1:5060";
const B: &str = "203.0.113.2:5070";

/// Calls of the core go by the rules; gateways are the peer `pstn`.
fn with(route: CarrierRouteSettings) -> RouteSettings {
    let mut core = peer("core", PeerKind::Core, "10.0.0.0/24", &["sip:10.0.0.1"]);
    core.route = route.name.clone();
    let mut pstn = peer("pstn", PeerKind::Gateway, "203.0.113.0/24", &["sip:10.0.0.1"]);
    pstn.matches.clear();
    pstn.gateway_types = vec![-1];
    let mut settings = settings(vec![core, pstn]);
    settings.routes = vec![route];
    settings
}

fn rig_with(route: CarrierRouteSettings) -> Rig {
    let mut rig = Rig::new(with(route));
    rig.set_routing(gateways(
        &[["a", "203.0.113.1", "0", "", "0"], ["b", "203.0.113.2:5070", "2", "00", "2"]],
        &[["one", "b"]],
        &[["49", "a,#one"], ["491", "a"], ["1", "b"]],
    ));
    rig
}

fn rig() -> Rig {
    rig_with(route("pstn"))
}

fn invite(uri: &str, number: u32) -> Request {
    Request::new("INVITE", uri).call_id(&format!("call-{number}")).branch(&format!("z9hG4bK-{number}"))
}

/// The requests among what was sent: destination and first line.
fn requests(sent: &[Sent]) -> Vec<(String, String)> {
    sent.iter().filter(|sent| sent.status_code() == 0).map(|sent| (sent.to.to_string(), sent.first_line().to_owned())).collect()
}

fn answer(request: &str, code: u16, tag: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    response(request, code, tag).replace("Content-Length", &format!("{lines}Content-Length"))
}

fn statuses(sent: &[Sent]) -> Vec<u16> {
    sent.iter().map(Sent::status_code).filter(|code| *code > 100).collect()
}

/// Calls and returns the INVITE as it went out.
fn call(rig: &mut Rig, uri: &str, number: u32) -> Sent {
    rig.receive(CORE, &invite(uri, number).text()).into_iter().find(|sent| sent.first_line().starts_with("INVITE")).unwrap()
}

/// Refuses an INVITE and returns what that leads to.
fn refuse(rig: &mut Rig, invite: &Sent, code: u16, lines: &[&str]) -> Vec<Sent> {
    rig.receive(&invite.to.to_string(), &answer(&invite.text, code, "b", lines))
}

#[test]
fn a_number_goes_to_the_gateway_of_its_longest_prefix_as_that_wants_it() {
    let mut rig = rig();
    let table = [
        ("sip:4930@10.0.0.9", A, "INVITE sip:4930@203.0.113.1 SIP/2.0"),
        ("sip:+49-(30)1@edge;user=phone;transport=tcp;maddr=10.9.9.9;lr", A, "INVITE sip:49301@203.0.113.1;user=phone SIP/2.0"),
        ("sip:7734;npdi;rn=+1-99:secret@edge", B, "INVITE sip:0034;npdi;rn=+1-99@203.0.113.2:5070 SIP/2.0"),
        ("tel:+49301;npdi;rn=1", B, "INVITE sip:00301;npdi;rn=1@203.0.113.2:5070;user=phone SIP/2.0"),
        ("sip:1234;npdi@edge", B, "INVITE sip:0034;npdi@203.0.113.2:5070 SIP/2.0"),
        ("tel:+1-234;phone-context=x", B, "INVITE sip:0034;phone-context=x@203.0.113.2:5070;user=phone SIP/2.0"),
        ("sip:%31%32@edge", B, "INVITE sip:00@203.0.113.2:5070 SIP/2.0"),
        // What could be taken for the end of the user part is escaped.
        ("tel:49;x=a@evil.example;y=%zz", A, "INVITE sip:49;x=a%40evil.example;y=%25zz@203.0.113.1;user=phone SIP/2.0"),
    ];
    for (number, (uri, to, line)) in table.into_iter().enumerate() {
        let sent = call(&mut rig, uri, number as u32);
        assert_eq!((sent.to.to_string().as_str(), sent.first_line()), (to, line));
    }
    let sent = rig.receive(CORE, &invite("sip:777@edge", 90).text());
    assert_eq!(statuses(&sent), [404]);
    assert_eq!(rig.records[0].refused_by, "target");
    assert_eq!(rig.counters().route_misses.get(), 1);
    let sent = rig.receive(CORE, &invite("sip:4x@edge", 91).text());
    assert_eq!(statuses(&sent), [404]);
    assert_eq!(rig.counters().route_unexpected_characters.get(), 1);
}

#[test]
fn the_record_names_gateways_and_the_number_that_each_got() {
    let mut rig = rig();
    let first = call(&mut rig, "sip:4930@edge", 1);
    let sent = refuse(&mut rig, &first, 503, &[]);
    let second = sent.iter().find(|sent| sent.first_line().starts_with("INVITE")).unwrap().clone();
    assert_eq!(second.first_line(), "INVITE sip:0030@203.0.113.2:5070 SIP/2.0");
    let sent = rig.receive(B, &answer(&second.text, 200, "b", &["Contact: <sip:x@203.0.113.2:5070>"]));
    assert_eq!(statuses(&sent), [200]);
    let routes = testkit::headers(&second.text, "Record-Route");
    let ack = Request::new("ACK", "sip:x@203.0.113.2:5070").call_id("call-1").tags("alice", "b").header(&format!("Route: {}", routes[0])).text();
    assert_eq!(requests(&rig.receive(CORE, &ack))[0].0, B);
    let bye = Request::new("BYE", "sip:alice@10.0.0.1").call_id("call-1").tags("b", "alice").cseq(1).header(&format!("Route: {}", routes[0])).text();
    let sent = rig.receive(B, &bye);
    assert_eq!(requests(&sent)[0].0, CORE);
    rig.receive(CORE, &answer(&sent[0].text, 200, "", &[]));
    let record = &rig.records[0];
    let attempts: Vec<_> =
        record.attempts.iter().map(|attempt| (attempt.gateway.as_str(), attempt.carrier.as_str(), attempt.rule, attempt.status_code)).collect();
    assert_eq!(attempts, [("a", "", Some(1), 503), ("b", "one", Some(1), 200)]);
    assert_eq!((record.to_peer.as_str(), record.sent_request_uri.as_str()), ("pstn", "sip:0030@203.0.113.2:5070"));
}

#[test]
fn what_is_retried_and_what_is_not() {
    let cause = |cause: u16| format!("Reason: SIP;cause=200, Q.850 ;text=\"x\" ;cause= {cause}");
    for code in [500, 502, 503, 504] {
        let (mut rig, code) = (rig(), code);
        let first = call(&mut rig, "sip:4930@edge", 1);
        let sent = refuse(&mut rig, &first, code, &[]);
        assert_eq!(requests(&sent).last().unwrap().0, B, "{code}");
    }
    for q850 in [34, 38, 41, 42, 44, 47] {
        let mut rig = rig();
        let first = call(&mut rig, "sip:4930@edge", 1);
        assert_eq!(requests(&refuse(&mut rig, &first, 480, &[&cause(q850)])).last().unwrap().0, B, "{q850}");
    }
    for (code, lines) in
        [(404, vec![]), (484, vec![]), (486, vec![]), (487, vec![]), (603, vec![]), (501, vec![]), (503, vec![cause(17)]), (500, vec![cause(1)])]
    {
        let mut rig = rig();
        let first = call(&mut rig, "sip:4930@edge", 1);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let sent = refuse(&mut rig, &first, code, &lines);
        assert_eq!(statuses(&sent), [if code == 503 { 500 } else { code }], "{code}");
        let told: Vec<String> = testkit::headers(&sent.last().unwrap().text, "Reason").into_iter().map(|value| format!("Reason: {value}")).collect();
        assert_eq!(told, lines, "{code}");
        assert_eq!(requests(&sent).len(), 1, "{code}: the ACK only");
    }
}

#[test]
fn the_rule_of_the_talk_goes_on_after_every_five_and_six() {
    let all: Vec<u16> = (500..700).collect();
    let mut rig = rig_with(CarrierRouteSettings { retry_status_codes: all, retry_ringing: true, stop_causes: Vec::new(), ..route("talk") });
    let first = call(&mut rig, "sip:4930@edge", 1);
    let sent = refuse(&mut rig, &first, 603, &[]);
    assert_eq!(requests(&sent).last().unwrap().0, B);
    let second = sent.last().unwrap().clone();
    assert_eq!(statuses(&rig.receive(B, &answer(&second.text, 200, "b", &["Contact: <sip:x@203.0.113.2>"]))), [200]);
    let first = call(&mut rig, "sip:4930@edge", 2);
    let sent = refuse(&mut rig, &first, 603, &[]);
    assert_eq!(statuses(&refuse(&mut rig, sent.last().unwrap(), 486, &[])), [486]);
}

#[test]
fn a_global_refusal_of_the_last_gateway_can_be_hidden_too() {
    let all: Vec<u16> = (500..700).collect();
    let mut rig = rig_with(CarrierRouteSettings { retry_status_codes: all, hide_failures: true, ..route("talk") });
    let only = call(&mut rig, "sip:1@edge", 1);
    let sent = refuse(&mut rig, &only, 603, &[]);
    assert_eq!(sent.last().unwrap().first_line(), "SIP/2.0 480 PSTN Not Available");
}

#[test]
fn silence_goes_on_after_the_first_answer_timer_and_ringing_ends_with_408() {
    let mut rig = rig();
    call(&mut rig, "sip:4930@edge", 1);
    let sent = rig.advance(2_001);
    assert_eq!(requests(&sent).last().unwrap(), &(B.to_owned(), "INVITE sip:0030@203.0.113.2:5070 SIP/2.0".to_owned()));
    let second = sent.last().unwrap().clone();
    assert_eq!(second.at, 2_000);
    rig.receive(B, &answer(&second.text, 180, "b", &[]));
    let sent = rig.advance(20_100);
    let cancel = sent.iter().find(|sent| sent.first_line().starts_with("CANCEL")).unwrap();
    assert_eq!(cancel.first_line(), "CANCEL sip:0030@203.0.113.2:5070 SIP/2.0");
    let sent = rig.receive(B, &answer(&second.text, 487, "b", &[]));
    assert_eq!(statuses(&sent), [408]);
}

#[test]
fn a_408_of_the_gateway_itself_is_retried_and_says_nothing_against_it() {
    let mut rig = rig();
    for number in 0..5 {
        let first = call(&mut rig, "sip:4930@edge", number);
        assert_eq!(first.to.to_string(), A, "{number}");
        let sent = refuse(&mut rig, &first, 408, &[]);
        assert_eq!(requests(&sent).last().unwrap().0, B);
        refuse(&mut rig, sent.last().unwrap(), 486, &[]);
    }
}

#[test]
fn messages_go_by_number_and_registrations_do_not() {
    let mut rig = rig();
    let request = |method: &str| Request::new(method, "sip:4930@edge").call_id(method).branch(&format!("z9hG4bK-{method}")).text();
    let sent = rig.receive(CORE, &request("MESSAGE"));
    assert_eq!(requests(&sent)[0].1, "MESSAGE sip:4930@203.0.113.1 SIP/2.0");
    assert_eq!(statuses(&rig.receive(A, &answer(&sent[0].text, 404, "a", &[]))), [404]);
    let sent = rig.receive(CORE, &request("REGISTER"));
    assert!(requests(&sent).iter().all(|(to, _)| to != A));
}

#[test]
fn a_gateway_that_rings_too_long_is_not_followed_by_another() {
    let mut rig = rig();
    let first = call(&mut rig, "sip:4930@edge", 1);
    rig.receive(A, &answer(&first.text, 180, "a", &[]));
    rig.advance(20_001);
    let sent = rig.receive(A, &answer(&first.text, 487, "a", &[]));
    assert_eq!((statuses(&sent), requests(&sent).len()), (vec![408], 1));
    let state = Arc::clone(&rig.routing().table("").unwrap().gateways[0].state);
    assert_eq!((state.rang_out.load(Relaxed), state.silent.load(Relaxed)), (1, 0));
}

#[test]
fn a_gateway_that_says_100_and_no_more_is_followed_when_its_time_is_over() {
    let mut rig = rig();
    let first = call(&mut rig, "sip:4930@edge", 1);
    rig.receive(A, &answer(&first.text, 100, "", &[]));
    rig.advance(19_000);
    rig.receive(A, &answer(&first.text, 100, "", &[]));
    let sent = rig.advance(1_001);
    let lines: Vec<_> = requests(&sent).into_iter().map(|(to, line)| (to, line.split(' ').next().unwrap().to_owned())).collect();
    assert_eq!(lines, [(A.to_owned(), "CANCEL".to_owned()), (B.to_owned(), "INVITE".to_owned())], "a second 100 gives it no more time");
    let second = sent.last().unwrap().clone();
    // The dead one comes back: its refusal is acknowledged, and the caller hears nothing of it.
    let acknowledged = rig.receive(A, &answer(&first.text, 487, "a", &[]));
    assert_eq!((requests(&acknowledged).len(), statuses(&acknowledged).len()), (1, 0));
    assert!(requests(&acknowledged)[0].1.starts_with("ACK"));
    assert_eq!(statuses(&rig.receive(B, &answer(&second.text, 200, "b", &[]))), [200]);
    let state = Arc::clone(&rig.routing().table("").unwrap().gateways[0].state);
    assert_eq!((state.attempts.load(Relaxed), state.silent.load(Relaxed)), (1, 1));
    rig.advance(70_000);
    assert_eq!(rig.edge.sizes(), (1, 0));
}

#[test]
fn the_last_gateway_that_says_100_and_no_more_ends_the_call_in_time_and_may_still_answer() {
    let mut rig = rig();
    let first = call(&mut rig, "sip:4930@edge", 1);
    let sent = refuse(&mut rig, &first, 503, &[]);
    let second = sent.last().unwrap().clone();
    rig.receive(B, &answer(&second.text, 183, "b", &[]));
    let rang = rig.advance(20_001);
    assert_eq!(statuses(&rang), [] as [u16; 0], "what rang may be answered while the CANCEL is under way");
    assert_eq!(statuses(&rig.receive(B, &answer(&second.text, 200, "b", &[]))), [200]);
    let mut rig = crate::rig();
    let first = call(&mut rig, "sip:4930@edge", 2);
    let sent = refuse(&mut rig, &first, 503, &[]);
    rig.receive(B, &answer(&sent.last().unwrap().text, 100, "", &[]));
    assert_eq!(statuses(&rig.advance(20_001)), [408], "nobody hears anything: why wait");
}

#[test]
fn a_gateway_that_rings_and_dies_is_followed_at_once_where_ringing_is_retried() {
    let mut rig = rig_with(CarrierRouteSettings { retry_ringing: true, ..route("pstn") });
    let first = call(&mut rig, "sip:4930@edge", 1);
    rig.receive(A, &answer(&first.text, 180, "a", &[]));
    let sent = rig.advance(20_001);
    assert_eq!(requests(&sent).last().unwrap().0, B);
    assert_eq!(statuses(&rig.receive(A, &answer(&first.text, 200, "a", &[]))), [200], "who answers has the call, however late");
}

#[test]
fn a_caller_who_gives_up_is_followed_by_no_gateway() {
    let mut rig = rig();
    let first = call(&mut rig, "sip:4930@edge", 1);
    rig.receive(A, &answer(&first.text, 180, "a", &[]));
    let cancel = Request::new("CANCEL", "sip:4930@edge").call_id("call-1").branch("z9hG4bK-1").text();
    rig.receive(CORE, &cancel);
    let sent = refuse(&mut rig, &first, 487, &[]);
    assert!(requests(&sent).iter().all(|(_, line)| line.starts_with("ACK")));
    assert_eq!(statuses(&sent), [487]);
    // What the caller gave up says nothing of the gateway.
    assert_eq!(call(&mut rig, "sip:4930@edge", 2).to.to_string(), A);
}

#[test]
fn the_best_answer_goes_to_the_caller_or_the_one_that_hides_it() {
    for hide in [false, true] {
        let mut rig = rig_with(CarrierRouteSettings { hide_failures: hide, ..route("pstn") });
        let first = call(&mut rig, "sip:4930@edge", 1);
        let sent = refuse(&mut rig, &first, 502, &[]);
        let sent = refuse(&mut rig, sent.last().unwrap(), 504, &[]);
        let answer = sent.iter().find(|sent| sent.status_code() > 100).unwrap();
        assert_eq!(answer.first_line(), if hide { "SIP/2.0 480 PSTN Not Available" } else { "SIP/2.0 502 Whatever" });
    }
}

#[test]
fn three_failures_or_one_refused_address_take_a_gateway_out_and_time_or_a_probe_brings_it_back() {
    let mut rig = rig();
    for number in 0..3 {
        assert_eq!(call(&mut rig, "sip:4930@edge", number).to.to_string(), A);
    }
    for sent in rig.advance(2_001).iter().filter(|sent| sent.to.to_string() == B) {
        refuse(&mut rig, sent, 486, &[]);
    }
    let next = call(&mut rig, "sip:4930@edge", 10);
    assert_eq!(next.to.to_string(), B);
    refuse(&mut rig, &next, 486, &[]);
    // It is not probed, so that it is tried again after its time.
    rig.advance(30_000);
    let again = call(&mut rig, "sip:4930@edge", 11);
    assert_eq!(again.to.to_string(), A);
    rig.receive(A, &answer(&again.text, 486, "a", &[]));
    let second = call(&mut rig, "sip:1@edge", 12);
    assert_eq!(second.to.to_string(), B);
    let sent = rig.undeliverable(&second);
    assert_eq!(sent.iter().find(|sent| sent.status_code() > 100).unwrap().first_line(), "SIP/2.0 500 Server Internal Error");
    let sent = rig.receive(CORE, &invite("sip:1@edge", 13).text());
    assert_eq!(sent.iter().find(|sent| sent.status_code() > 100).unwrap().first_line(), "SIP/2.0 480 PSTN Not Available");
    let probe = probes(&mut rig).pop().unwrap();
    assert_eq!(probe.first_line(), "OPTIONS sip:203.0.113.2:5070 SIP/2.0");
    assert!(header(&probe.text, "From").starts_with("<sip:probe@192.0.2.1:5060>;tag="));
    rig.receive(B, &answer(&probe.text, 404, "b", &[]));
    assert_eq!(call(&mut rig, "sip:1@edge", 14).to.to_string(), B);
    let silent = probes(&mut rig).pop().unwrap();
    assert_eq!(silent.to.to_string(), B);
    rig.advance(2_001);
    assert_eq!(statuses(&rig.receive(CORE, &invite("sip:1@edge", 15).text())), [480]);
}

/// The next probe, before its time is over.
fn next_probe(rig: &mut Rig) -> Sent {
    let probe = (0..10).find_map(|_| {
        rig.advance(1_000);
        rig.tidy().into_iter().find(|sent| sent.status_code() == 0)
    });
    probe.unwrap()
}

/// The probes of one interval.
fn probes(rig: &mut Rig) -> Vec<Sent> {
    let mut sent = Vec::new();
    for _ in 0..10 {
        rig.advance(1_000);
        sent.extend(rig.tidy());
    }
    sent.retain(|sent| sent.first_line().starts_with("OPTIONS"));
    sent
}

#[test]
fn probes_may_have_another_method() {
    let mut terms = with(route("pstn"));
    terms.health.probe_method = "INFO".to_owned();
    let mut rig = rig_with(route("pstn"));
    rig.reload(terms).unwrap();
    let probe = next_probe(&mut rig);
    assert_eq!((probe.first_line(), header(&probe.text, "CSeq")), ("INFO sip:203.0.113.2:5070 SIP/2.0", "1 INFO"));
    rig.receive(B, &answer(&probe.text, 503, "b", &[]));
    assert_eq!(statuses(&rig.receive(CORE, &invite("sip:1@edge", 1).text())), [480]);
    let probe = next_probe(&mut rig);
    rig.receive(B, &answer(&probe.text, 481, "b", &[]));
    assert_eq!(call(&mut rig, "sip:1@edge", 2).to.to_string(), B);
}

#[test]
fn a_large_call_that_falls_back_from_tcp_keeps_its_one_place() {
    let mut terms = with(route("pstn"));
    terms.listeners.push(testkit::listener("stream", "tcp:192.0.2.1:5060"));
    terms.peers[1].oversize = edge::OversizeRequest::Tcp;
    let mut rig = Rig::new(terms);
    let routing = with_caps((1, 0), (0, 0), (0, 0));
    let place = routing.gateway_capacity("", 0).unwrap().clone();
    rig.set_routing(routing);
    let sent = rig.receive(CORE, &invite("sip:1@edge", 1).body(&"x".repeat(1_400)).text());
    let first = sent.into_iter().find(|sent| sent.first_line().starts_with("INVITE")).unwrap();
    assert_eq!((first.transport, place.live()), (syntax::Transport::Tcp, 1));
    let again = rig.undeliverable(&first).into_iter().find(|sent| sent.first_line().starts_with("INVITE")).unwrap();
    assert_eq!((again.transport, place.live(), place.refused()), (syntax::Transport::Udp, 1, 0));
    assert_eq!(statuses(&refuse(&mut rig, &again, 486, &[])), [486]);
    assert_eq!(place.live(), 0);
}

#[test]
fn quality_of_a_rule_that_is_gone_is_forgotten_with_it() {
    let mut rig = by_quality();
    for number in 0..3 {
        let first = call(&mut rig, "sip:4930@edge", number);
        refuse(&mut rig, &first, 486, &[]);
    }
    let pairs = |rig: &Rig| rig.routing().table("").unwrap().quality.all().len();
    assert_eq!(pairs(&rig), 1);
    rig.routing().forget_gone();
    assert_eq!(pairs(&rig), 1);
    let quality = Arc::clone(&rig.routing().table("").unwrap().quality);
    let mut builder = Builder::new(LoadOptions::default(), rig.routing().table("").map(Arc::clone));
    builder.gateways(b"a\x1f0\x1f203.0.113.1\x1f0\x1f\x1f\x1f0\x1f0\x1f\x1f\x1f\x1e");
    builder.rules(b"8\x1f0\x1f49\x1f\x1f0\x1f\x1fa\x1f\x1f\x1f\x1e");
    let next = edge::Routing::new(vec![(String::new(), Arc::new(builder.finish().table))], &HashMap::new(), None);
    next.forget_gone();
    assert_eq!(quality.all().len(), 0);
}

#[test]
fn gateways_are_known_by_address_and_port_and_may_call_the_core_only() {
    let mut rig = rig();
    let did = |port: u16| invite("sip:100@192.0.2.1", u32::from(port)).via(&format!("SIP/2.0/UDP 203.0.113.2:{port}")).text();
    let sent = rig.receive(B, &did(5_070));
    assert_eq!(requests(&sent)[0].0, CORE);
    assert_eq!(statuses(&rig.receive("203.0.113.2:5060", &did(5_060))), [403]);
}

#[test]
fn a_check_lets_calls_pass_for_which_a_rule_is_there() {
    let mut terms = with(route("pstn"));
    terms.peers[1].route = "dids".to_owned();
    terms.routes.push(CarrierRouteSettings { check_only: true, whole_number: true, not_found: (604, "Unknown DID".to_owned()), ..route("dids") });
    let mut rig = Rig::new(terms);
    rig.set_routing(gateways(&[["a", "203.0.113.1", "0", "", "0"]], &[], &[["4930", ""], ["49", "a"]]));
    let sent = rig.receive(A, &invite("sip:4930@edge", 1).text());
    assert_eq!(requests(&sent), [(CORE.to_owned(), "INVITE sip:4930@edge SIP/2.0".to_owned())]);
    let sent = rig.receive(A, &invite("sip:49301@edge", 2).text());
    assert_eq!(sent[0].first_line(), "SIP/2.0 604 Unknown DID");
    // What its sender says of where a number is now opens no door.
    let sent = rig.receive(A, &invite("sip:1900;rn=4930@edge", 3).text());
    assert_eq!(sent[0].first_line(), "SIP/2.0 604 Unknown DID");
}

#[test]
fn a_caller_goes_by_the_rules_of_its_own_group() {
    let mut rig = rig();
    let mut builder = Builder::new(LoadOptions::default(), None);
    builder.gateways(b"a\x1f0\x1f203.0.113.1\x1f0\x1f\x1f\x1f0\x1f0\x1f\x1f\x1f\x1eb\x1f0\x1f203.0.113.2:5070\x1f0\x1f\x1f\x1f0\x1f0\x1f\x1f\x1f\x1e");
    builder.groups(b"alice\x1fexample.net\x1f3\x1ebob\x1fother.example\x1f3\x1e");
    builder.rules(b"1\x1f0\x1f49\x1f\x1f0\x1f\x1fa\x1f\x1f\x1f\x1e2\x1f3\x1f49\x1f\x1f0\x1f\x1fb\x1f\x1f\x1f\x1e");
    let loaded = builder.finish();
    assert_eq!(loaded.faults, []);
    rig.set_routing(edge::Routing::new(vec![(String::new(), Arc::new(loaded.table))], &HashMap::new(), None));
    let mut number = 0;
    let mut goes_to = |rig: &mut Rig, user: &str| {
        number += 1;
        let text = invite("sip:4930@edge", number).text().replace("From: <sip:alice@", &format!("From: <sip:{user}@"));
        rig.receive(CORE, &text).into_iter().find(|sent| sent.first_line().starts_with("INVITE")).unwrap().to.to_string()
    };
    assert_eq!(goes_to(&mut rig, "alice"), A);
    for (groups, alice, bob) in [(CallerGroups::User, B, B), (CallerGroups::UserAndDomain, B, A), (CallerGroups::Off, A, A)] {
        rig.reload(with(CarrierRouteSettings { caller_groups: groups, ..route("pstn") })).unwrap();
        assert_eq!([goes_to(&mut rig, "alice"), goes_to(&mut rig, "bob"), goes_to(&mut rig, "eve")], [alice, bob, A], "{groups:?}");
    }
}

#[test]
fn a_call_goes_on_by_the_table_that_it_began_with() {
    let mut rig = rig();
    let first = call(&mut rig, "sip:4930@edge", 1);
    rig.set_routing(gateways(&[["c", "203.0.113.3", "0", "", "0"]], &[], &[["49", "c"]]));
    assert_eq!(requests(&refuse(&mut rig, &first, 503, &[])).last().unwrap().0, B);
    assert_eq!(call(&mut rig, "sip:4930@edge", 2).to.to_string(), "203.0.113.3:5060");
    rig.set_routing(edge::Routing::default());
    assert_eq!(statuses(&rig.receive(CORE, &invite("sip:4930@edge", 3).text())), [404]);
}

#[test]
fn a_policy_tries_gateways_one_by_one_and_learns_when_none_is_left() {
    let mut terms = with(route("pstn"));
    terms.policies =
        vec![PolicySettings { hook: "request".to_owned(), methods: Vec::new(), peers: Vec::new(), deadline_milliseconds: 1_000, status_code: 500 }];
    let mut rig = Rig::new(terms);
    rig.edge.set_policy_links(vec![1]);
    rig.set_routing(gateways(&[["a", "203.0.113.1", "0", "", "0"], ["b", "203.0.113.2:5070", "0", "", "0"]], &[], &[["49", "a,b"]]));
    rig.receive(CORE, &invite("sip:hotline@edge", 1).text());
    let verdict = |rig: &mut Rig, value: &serde_json::Value| {
        let question = rig.policy.pop().unwrap();
        rig.verdict(&question, &packed(value))
    };
    let asked = |rig: &Rig| {
        let view = QuestionView::read(&rig.policy.last().unwrap().bytes).unwrap();
        (view.event, view.status_code, view.target.to_owned())
    };
    let sent = verdict(&mut rig, &json!({"kind": "route", "number": "4930", "report": true}));
    assert_eq!(requests(&sent), [(A.to_owned(), "INVITE sip:4930@203.0.113.1 SIP/2.0".to_owned())]);
    // What would stop a route of the file is for the policy to judge.
    refuse(&mut rig, &sent[0], 486, &[]);
    assert_eq!(asked(&rig), (PolicyEvent::Failed as u8, 486, "a".to_owned()));
    let sent = verdict(&mut rig, &json!({"kind": "next", "report": true}));
    assert_eq!(requests(&sent)[0].0, B);
    refuse(&mut rig, &sent[0], 503, &[]);
    assert_eq!(asked(&rig), (PolicyEvent::Failed as u8, 503, "b".to_owned()));
    verdict(&mut rig, &json!({"kind": "next", "report": true}));
    assert_eq!(asked(&rig).1, 0);
    let sent = verdict(&mut rig, &json!({"kind": "best", "status_code": 480}));
    assert_eq!(statuses(&sent), [486]);
}

#[test]
fn a_policy_that_names_no_rule_or_no_route_is_told() {
    let mut terms = with(route("pstn"));
    terms.policies =
        vec![PolicySettings { hook: "request".to_owned(), methods: Vec::new(), peers: Vec::new(), deadline_milliseconds: 1_000, status_code: 500 }];
    let mut rig = Rig::new(terms);
    rig.edge.set_policy_links(vec![1]);
    rig.set_routing(gateways(&[["a", "203.0.113.1", "0", "", "0"]], &[], &[["49", "a"]]));
    rig.receive(CORE, &invite("sip:1@edge", 1).text());
    let question = rig.policy.pop().unwrap();
    rig.verdict(&question, &packed(&json!({"kind": "route", "report": true})));
    let view = rig.policy.pop().unwrap();
    assert_eq!(QuestionView::read(&view.bytes).unwrap().status_code, 0);
    let sent = rig.verdict(&view, &packed(&json!({"kind": "best", "status_code": 480, "reason_phrase": "PSTN Not Available"})));
    assert_eq!(sent[0].first_line(), "SIP/2.0 480 PSTN Not Available");
    rig.receive(CORE, &invite("sip:49@edge", 2).text());
    let question = rig.policy.pop().unwrap();
    assert_eq!(statuses(&rig.verdict(&question, &packed(&json!({"kind": "route", "route": "nobody"})))), [500]);
    rig.receive(CORE, &invite("sip:x@edge", 3).text());
    let question = rig.policy.pop().unwrap();
    let sent = rig.verdict(&question, &packed(&json!({"kind": "continue", "edits": [{"action": "request_uri", "name": "", "value": "sip:4912@edge"}]})));
    assert_eq!(requests(&sent)[0].1, "INVITE sip:4912@203.0.113.1 SIP/2.0");
}

#[test]
fn a_redirect_server_tells_a_policy_where_and_is_no_attempt_of_the_call() {
    let mut terms = with(route("pstn"));
    terms.policies =
        vec![PolicySettings { hook: "request".to_owned(), methods: Vec::new(), peers: Vec::new(), deadline_milliseconds: 1_000, status_code: 500 }];
    let mut rig = rig_with(route("pstn"));
    rig.reload(terms).unwrap();
    rig.edge.set_policy_links(vec![1]);
    let ask = json!({"kind": "relay", "targets": ["sip:198.51.100.9"], "report": true});
    for (number, verdict, wanted) in [
        (1, json!({"kind": "continue", "anew": true, "routing_number": "1"}), "INVITE sip:0030@203.0.113.2:5070 SIP/2.0"),
        (2, json!({"kind": "continue", "anew": true}), "INVITE sip:4930@203.0.113.1 SIP/2.0"),
        (3, json!({"kind": "route", "anew": true, "report": true, "routing_number": "1"}), "INVITE sip:0030@203.0.113.2:5070 SIP/2.0"),
    ] {
        rig.receive(CORE, &invite("sip:4930@edge", number).text());
        let question = rig.policy.pop().unwrap();
        let dip = rig.verdict(&question, &packed(&ask)).into_iter().find(|sent| sent.first_line().starts_with("INVITE")).unwrap();
        assert_eq!(dip.to.to_string(), "198.51.100.9:5060");
        rig.receive("198.51.100.9:5060", &answer(&dip.text, 302, "r", &["Contact: <sip:4930;npdi;rn=+1555@lnp>"]));
        let question = rig.policy.pop().unwrap();
        let view = QuestionView::read(&question.bytes).unwrap();
        assert_eq!((view.event, view.status_code), (PolicyEvent::Failed as u8, 302));
        assert!(String::from_utf8_lossy(view.message).contains("rn=+1555"));
        let sent = rig.verdict(&question, &packed(&verdict)).into_iter().find(|sent| sent.first_line().starts_with("INVITE")).unwrap();
        assert_eq!(sent.first_line(), wanted);
        // Of a redirection and a refusal the former is the better answer, but not where it was none of the callee.
        let mut sent = refuse(&mut rig, &sent, 486, &[]);
        if number == 3 {
            let question = rig.policy.pop().unwrap();
            sent = rig.verdict(&question, &packed(&json!({"kind": "best"})));
        }
        assert_eq!(statuses(&sent), [486]);
    }
    rig.receive(CORE, &invite("sip:77@edge", 4).text());
    let question = rig.policy.pop().unwrap();
    let dip = rig.verdict(&question, &packed(&ask)).into_iter().find(|sent| sent.first_line().starts_with("INVITE")).unwrap();
    rig.undeliverable(&dip);
    let question = rig.policy.pop().unwrap();
    assert!(QuestionView::read(&question.bytes).unwrap().message.is_empty());
    assert_eq!(statuses(&rig.verdict(&question, &packed(&json!({"kind": "continue", "anew": true})))), [404]);
}

#[test]
fn a_service_that_is_asked_tells_the_caller_nothing_and_holds_nobody_up() {
    let mut terms = with(route("pstn"));
    terms.policies =
        vec![PolicySettings { hook: "request".to_owned(), methods: Vec::new(), peers: Vec::new(), deadline_milliseconds: 9_000, status_code: 500 }];
    let mut rig = rig_with(route("pstn"));
    rig.reload(terms).unwrap();
    rig.edge.set_policy_links(vec![1]);
    let ask = json!({"kind": "relay", "targets": ["sip:198.51.100.9"], "report": true, "service": true, "first_answer_milliseconds": 1_000, "final_answer_milliseconds": 1_000});
    let dip = |rig: &mut Rig, number| {
        rig.receive(CORE, &invite("sip:4930@edge", number).text());
        let question = rig.policy.pop().unwrap();
        rig.verdict(&question, &packed(&ask)).into_iter().find(|sent| sent.first_line().starts_with("INVITE")).unwrap()
    };
    // It rings, which nobody hears, and then it hangs: the time for its final answer is the whole of it.
    let sent = dip(&mut rig, 1);
    assert_eq!(statuses(&rig.receive("198.51.100.9:5060", &response(&sent.text, 180, "r"))), [] as [u16; 0]);
    let cancelled = rig.advance(1_001);
    assert!(cancelled.iter().any(|sent| sent.first_line().starts_with("CANCEL")));
    let question = rig.policy.pop().unwrap();
    assert_eq!(QuestionView::read(&question.bytes).unwrap().status_code, 408);
    let sent =
        rig.verdict(&question, &packed(&json!({"kind": "continue", "anew": true}))).into_iter().find(|sent| sent.first_line().starts_with("INVITE")).unwrap();
    assert_eq!(sent.to.to_string(), A);
    assert_eq!(statuses(&refuse(&mut rig, &sent, 486, &[])), [486]);
    // Where the policy fails after it has answered, what it said is no answer to the caller.
    let sent = dip(&mut rig, 2);
    rig.receive("198.51.100.9:5060", &answer(&sent.text, 302, "r", &["Contact: <sip:4930;npdi;rn=+1555@lnp>"]));
    let question = rig.policy.pop().unwrap();
    assert_eq!(statuses(&rig.verdict(&question, &packed(&json!({"kind": "error"})))), [500]);
}

#[test]
fn the_addresses_of_one_gateway_share_its_place() {
    let mut rig = rig();
    let mut builder = Builder::new(LoadOptions::default(), None);
    builder.gateways(b"a\x1f0\x1fgw.example.net\x1f0\x1f\x1f\x1f0\x1f0\x1f\x1f1\x1f1\x1e");
    builder.rules(b"7\x1f0\x1f49\x1f\x1f0\x1f\x1fa\x1f\x1f\x1f\x1e");
    let routing = edge::Routing::new(vec![(String::new(), Arc::new(builder.finish().table))], &HashMap::new(), None);
    let place = routing.gateway_capacity("", 0).unwrap().clone();
    rig.set_routing(routing);
    rig.receive(CORE, &invite("sip:4930@edge", 1).text());
    let question = rig.questions.pop().unwrap();
    let sent = rig.answer(&question, &["203.0.113.7:5060", "203.0.113.8:5060"]);
    let first = sent.into_iter().find(|sent| sent.first_line().starts_with("INVITE")).unwrap();
    assert_eq!((first.to.to_string(), place.live()), ("203.0.113.7:5060".to_owned(), 1));
    let second = rig.undeliverable(&first).into_iter().find(|sent| sent.first_line().starts_with("INVITE")).unwrap();
    assert_eq!((second.to.to_string(), place.live(), place.refused()), ("203.0.113.8:5060".to_owned(), 1, 0));
    assert_eq!(statuses(&refuse(&mut rig, &second, 486, &[])), [486]);
    assert_eq!(place.live(), 0);
}

#[test]
fn a_parameter_of_the_gateway_goes_before_the_same_of_the_caller() {
    let mut rig = rig();
    rig.set_routing(gateways(&[["a", "203.0.113.1;User=phone;x=own", "0", "", "0"]], &[], &[["49", "a"]]));
    let sent = call(&mut rig, "sip:4930@edge;user=ip;X=theirs;y=2", 1);
    assert_eq!(sent.first_line(), "INVITE sip:4930@203.0.113.1;User=phone;x=own;y=2 SIP/2.0");
    let sent = call(&mut rig, "tel:+4930", 2);
    assert_eq!(sent.first_line(), "INVITE sip:4930@203.0.113.1;User=phone;x=own SIP/2.0");
}

#[test]
fn what_the_caller_gave_up_ends_with_487_also_where_the_gateway_says_503() {
    let mut rig = rig();
    let sent = call(&mut rig, "sip:4930@edge", 1);
    rig.receive(A, &answer(&sent.text, 180, "a", &[]));
    let cancel = Request::new("CANCEL", "sip:4930@edge").call_id("call-1").branch("z9hG4bK-1");
    rig.receive(CORE, &cancel.text());
    assert_eq!(statuses(&refuse(&mut rig, &sent, 503, &[])), [487]);
}

#[test]
fn a_probe_asks_all_addresses_of_a_name_before_it_says_that_the_gateway_is_down() {
    let mut rig = rig();
    let mut builder = Builder::new(LoadOptions::default(), None);
    builder.gateways(b"a\x1f0\x1fgw.example.net\x1f0\x1f\x1f\x1f2\x1f0\x1f\x1f0\x1f0\x1e");
    builder.rules(b"7\x1f0\x1f49\x1f\x1f0\x1f\x1fa\x1f\x1f\x1f\x1e");
    rig.set_routing(edge::Routing::new(vec![(String::new(), Arc::new(builder.finish().table))], &HashMap::new(), None));
    let state = Arc::clone(&rig.routing().table("").unwrap().gateways[0].state);
    let health = rig.snapshot().health();
    let probe = |rig: &mut Rig| {
        let question = (0..10).find_map(|_| {
            rig.advance(1_000);
            rig.tidy();
            rig.questions.pop()
        });
        rig.answer(&question.unwrap(), &["203.0.113.7:5060", "203.0.113.8:5060", "203.0.113.9:5060"]).pop().unwrap()
    };
    let options = |sent: Vec<Sent>| sent.into_iter().filter(|sent| sent.first_line().starts_with("OPTIONS")).collect::<Vec<_>>();
    let first = probe(&mut rig);
    assert_eq!(first.to.to_string(), "203.0.113.7:5060");
    // Each has the whole wait of a probe: retransmissions go to the first, then the second is asked.
    let sent = options(rig.advance(2_001));
    assert_eq!(sent.iter().filter(|sent| sent.to == first.to).count(), 2);
    let second = sent.last().unwrap();
    assert_eq!(second.to.to_string(), "203.0.113.8:5060");
    rig.advance(1_500);
    rig.receive("203.0.113.8:5060", &answer(&second.text, 200, "b", &[]));
    assert!(state.is_usable(0, true, &health));
    // Calls know of the silent one, and do not wait there.
    rig.receive(CORE, &invite("sip:4930@edge", 1).text());
    let question = rig.questions.pop().unwrap();
    let call = rig.answer(&question, &["203.0.113.7:5060", "203.0.113.8:5060"]).into_iter().find(|sent| sent.first_line().starts_with("INVITE"));
    assert_eq!(call.unwrap().to.to_string(), "203.0.113.8:5060");
    // Where the next says nothing that is good either, the last is asked, and its silence is the gateway's.
    let first = probe(&mut rig);
    assert_eq!(first.to.to_string(), "203.0.113.7:5060", "the dead are asked too, or none would come back");
    let second = options(rig.undeliverable(&first)).pop().unwrap();
    assert_eq!(second.to.to_string(), "203.0.113.8:5060");
    let third = options(rig.undeliverable(&second)).pop().unwrap();
    assert_eq!(third.to.to_string(), "203.0.113.9:5060");
    rig.advance(1_900);
    assert!(state.is_usable(0, true, &health));
    rig.advance(200);
    assert!(!state.is_usable(0, true, &health));
    // Of more addresses than a request may have attempts the others are not asked.
    let question = (0..10).find_map(|_| {
        rig.advance(1_000);
        rig.tidy();
        rig.questions.pop()
    });
    let many: Vec<String> = (100..140).map(|number| format!("203.0.113.{number}:5060")).collect();
    let asked = options(rig.answer(&question.unwrap(), &many.iter().map(String::as_str).collect::<Vec<_>>()));
    let more = options(rig.advance(120_000));
    let first_of = |number: &&Sent| many.contains(&number.to.to_string());
    let places: std::collections::HashSet<_> = asked.iter().chain(&more).filter(first_of).map(|sent| sent.to).collect();
    assert_eq!((places.len(), rig.snapshot().settings.limits.branches), (20, 20));
    let unanswered = rig.counters().attempts_unanswered.get();
    rig.advance(60_000);
    assert_eq!(rig.counters().attempts_unanswered.get(), unanswered, "it is over");
}

/// Gateways a and b by carrier `one`, with what they may have of calls and of calls a second.
fn with_caps(a: (u32, u16), b: (u32, u16), carrier: (u32, u16)) -> edge::Routing {
    let mut builder = Builder::new(LoadOptions::default(), None);
    for (id, place, (calls, pace)) in [("a", "203.0.113.1", a), ("b", "203.0.113.2:5070", b)] {
        builder.gateways(format!("{id}\x1f0\x1f{place}\x1f0\x1f\x1f\x1f0\x1f0\x1f\x1f{calls}\x1f{pace}\x1e").as_bytes());
    }
    builder.carriers(format!("one\x1fa,b\x1f0\x1f\x1f0\x1f\x1f{}\x1f{}\x1e", carrier.0, carrier.1).as_bytes());
    builder.rules(b"7\x1f0\x1f49\x1f\x1f0\x1f\x1f#one\x1f\x1f\x1f\x1e8\x1f0\x1f1\x1f\x1f0\x1f\x1fa\x1f\x1f\x1f\x1e");
    let loaded = builder.finish();
    assert_eq!(loaded.faults, []);
    edge::Routing::new(vec![(String::new(), Arc::new(loaded.table))], &HashMap::new(), None)
}

#[test]
fn a_number_that_has_a_rule_is_never_unknown_however_far_the_search_fell_back() {
    for hide in [false, true] {
        let mut rig = rig_with(CarrierRouteSettings { fall_back: true, hide_failures: hide, ..route("pstn") });
        rig.set_routing(gateways(&[["a", "203.0.113.1", "0", "", "0"], ["off", "203.0.113.9", "0", "", "0"]], &[], &[["49", "a"], ["4", "off"], ["6", "off"]]));
        rig.routing().table("").unwrap().gateways[1].state.switch(false);
        assert_eq!(statuses(&rig.receive(CORE, &invite("sip:61@edge", 1).text())), [480]);
        let first = call(&mut rig, "sip:491@edge", 2);
        assert_eq!(statuses(&refuse(&mut rig, &first, 503, &[])), [if hide { 480 } else { 500 }]);
        assert_eq!(statuses(&rig.receive(CORE, &invite("sip:71@edge", 3).text())), [404]);
    }
}

#[test]
fn a_carrier_that_gives_its_first_usable_gateway_passes_a_full_one_over() {
    let mut rig = rig();
    let mut builder = Builder::new(LoadOptions::default(), None);
    for (id, place, calls) in [("x", "203.0.113.1", 1), ("y", "203.0.113.2:5070", 0)] {
        builder.gateways(format!("{id}\x1f0\x1f{place}\x1f0\x1f\x1f\x1f0\x1f0\x1f\x1f{calls}\x1f0\x1e").as_bytes());
    }
    builder.carriers(b"one\x1fx,y\x1f1\x1f\x1f0\x1f\x1f0\x1f0\x1e");
    builder.rules(b"7\x1f0\x1f49\x1f\x1f0\x1f\x1f#one\x1f\x1f\x1f\x1e");
    rig.set_routing(edge::Routing::new(vec![(String::new(), Arc::new(builder.finish().table))], &HashMap::new(), None));
    let first = call(&mut rig, "sip:4930@edge", 1);
    assert_eq!([first.to.to_string(), call(&mut rig, "sip:4930@edge", 2).to.to_string()], [A, B]);
    // Whoever was tried is the only one of it.
    assert_eq!(statuses(&refuse(&mut rig, &first, 503, &[])), [500]);
}

#[test]
fn a_carrier_that_is_switched_off_gets_calls_for_help_where_no_other_is_left() {
    let mut rig = rig();
    let mut builder = Builder::new(LoadOptions::default(), None);
    for (id, place) in [("x", "203.0.113.1"), ("y", "203.0.113.2:5070")] {
        builder.gateways(format!("{id}\x1f0\x1f{place}\x1f0\x1f\x1f\x1f0\x1f0\x1f\x1f0\x1f0\x1e").as_bytes());
    }
    for (id, gateway) in [("one", "x"), ("two", "y")] {
        builder.carriers(format!("{id}\x1f{gateway}\x1f0\x1f\x1f0\x1f\x1f0\x1f0\x1e").as_bytes());
    }
    builder.rules(b"7\x1f0\x1f112\x1f\x1f0\x1f\x1f#one,#two\x1f\x1f\x1f\x1e8\x1f0\x1f49\x1f\x1f0\x1f\x1f#one\x1f\x1f\x1f\x1e");
    let table = Arc::new(builder.finish().table);
    rig.set_routing(edge::Routing::new(vec![(String::new(), Arc::clone(&table))], &HashMap::new(), None));
    table.carriers[0].state.switch(false);
    let first = call(&mut rig, "sip:112@edge", 1);
    assert_eq!(first.to.to_string(), B);
    let sent = refuse(&mut rig, &first, 503, &[]);
    assert!(sent.iter().any(|sent| sent.to.to_string() == A && sent.first_line().starts_with("INVITE")), "{sent:?}");
    assert_eq!(statuses(&rig.receive(CORE, &invite("sip:4930@edge", 2).text())), [480]);
}

#[test]
fn what_a_gateway_and_a_carrier_may_have_of_calls_holds_to_the_end_of_each() {
    let mut rig = rig();
    rig.set_routing(with_caps((1, 0), (0, 0), (3, 0)));
    let first = call(&mut rig, "sip:4930@edge", 1);
    let second = call(&mut rig, "sip:4930@edge", 2);
    assert_eq!([first.to.to_string(), second.to.to_string()], [A, B]);
    // The answered one keeps its place until its BYE, the refused one gives it back.
    let ok = rig.receive(A, &response(&first.text, 200, "b")).pop().unwrap();
    let third = call(&mut rig, "sip:4930@edge", 3);
    let sent = rig.receive(CORE, &invite("sip:4930@edge", 4).text());
    assert_eq!((statuses(&sent), rig.counters().gateways_full.get()), (vec![480], 1 + 1 + 2));
    assert_eq!(rig.receive(CORE, &invite("sip:1@edge", 5).text()).pop().unwrap().status_code(), 480);
    refuse(&mut rig, &third, 486, &[]);
    assert_eq!(call(&mut rig, "sip:4930@edge", 6).to.to_string(), B);
    let route = header(&ok.text, "Record-Route").to_owned();
    let bye = Request::new("BYE", "sip:bob@203.0.113.1").call_id("call-1").tags("alice", "b").cseq(2).header(&format!("Route: {route}")).text();
    let sent = rig.receive(CORE, &bye);
    rig.receive(A, &response(&sent[0].text, 200, ""));
    assert_eq!(call(&mut rig, "sip:1@edge", 7).to.to_string(), A);
    // One that waited for an answer in vain gives its place to the next gateway's.
    rig.set_routing(with_caps((1, 0), (1, 0), (1, 0)));
    call(&mut rig, "sip:4930@edge", 8);
    let moved = rig.advance(2_001);
    let moved = moved.iter().filter(|sent| sent.to.to_string() == B && sent.first_line().starts_with("INVITE") && sent.text.contains("call-8"));
    assert_eq!(moved.count(), 1);
    assert_eq!(statuses(&rig.receive(CORE, &invite("sip:4930@edge", 9).text())), [480]);
}

#[test]
fn a_full_carrier_costs_its_gateways_nothing_of_their_pace() {
    let mut rig = rig();
    rig.set_routing(with_caps((0, 2), (0, 2), (0, 1)));
    assert_eq!(call(&mut rig, "sip:4930@edge", 1).to.to_string(), A);
    assert_eq!(statuses(&rig.receive(CORE, &invite("sip:4930@edge", 2).text())), [480]);
    assert_eq!(call(&mut rig, "sip:1@edge", 3).to.to_string(), A);
    assert_eq!(statuses(&rig.receive(CORE, &invite("sip:1@edge", 4).text())), [480]);
    rig.advance(1_000);
    assert_eq!(call(&mut rig, "sip:4930@edge", 5).to.to_string(), A);
}

/// Gateways a and b for one rule that is sorted by quality; ASR below a half is critical.
fn by_quality() -> Rig {
    let mut terms = with(route("pstn"));
    terms.quality.drop = true;
    let mut rig = Rig::new(terms);
    let mut builder = Builder::new(LoadOptions::default(), None);
    for (id, place) in [("a", "203.0.113.1"), ("b", "203.0.113.2:5070")] {
        builder.gateways(format!("{id}\x1f0\x1f{place}\x1f0\x1f\x1f\x1f0\x1f0\x1f\x1f\x1f\x1e").as_bytes());
    }
    builder.profiles(format!("1\x1f\x1f0.5{}\x1e", "\x1f".repeat(18)).as_bytes());
    builder.rules(b"7\x1f0\x1f49\x1f\x1f0\x1f\x1fa,b\x1fQ\x1f1\x1f\x1e");
    let loaded = builder.finish();
    assert_eq!(loaded.faults, []);
    rig.set_routing(edge::Routing::new(vec![(String::new(), Arc::new(loaded.table))], &HashMap::new(), None));
    rig
}

#[test]
fn a_gateway_that_does_badly_for_a_rule_is_left_out_of_it_and_told() {
    let mut rig = by_quality();
    rig.listen(&["E_QROUTING_BAD_DST", "E_QROUTING_GOOD_DST"]);
    for number in 0..10 {
        let first = call(&mut rig, "sip:4930@edge", number);
        assert_eq!(first.to.to_string(), A, "{number}");
        refuse(&mut rig, &first, 486, &[]);
    }
    let events = rig.take_events();
    assert_eq!(events.len(), 1);
    assert_eq!(format!("{:?}", events[0].values), r#"[Text("default"), Number(7), Text("a"), Text("critical")]"#);
    let mut others = 0;
    for number in 100..200 {
        let next = call(&mut rig, "sip:4930@edge", number);
        others += usize::from(next.to.to_string() == B);
        refuse(&mut rig, &next, 487, &[]);
    }
    // Five in a hundred go to the one on probation; 487 says nothing of either.
    assert!((85..100).contains(&others), "{others}");
}

#[test]
fn figures_are_those_of_the_calls() {
    let mut rig = by_quality();
    let first = call(&mut rig, "sip:4930@edge", 1);
    rig.advance(1_000);
    rig.receive(A, &answer(&first.text, 180, "a", &[]));
    rig.advance(1_000);
    let ok = rig.receive(A, &answer(&first.text, 200, "a", &[])).pop().unwrap();
    rig.advance(60_000);
    let bye =
        Request::new("BYE", "sip:bob@203.0.113.1").call_id("call-1").tags("alice", "a").cseq(2).header(&format!("Route: {}", header(&ok.text, "Record-Route")));
    let sent = rig.receive(CORE, &bye.text());
    rig.receive(A, &answer(&sent[0].text, 200, "", &[]));
    let pair = rig.routing().table("").unwrap().quality.known(7, "a").unwrap();
    let figures = pair.figures(rig.milliseconds() * 1_000, &rig.quality());
    assert_eq!((figures.asr, figures.ccr, figures.pdd, figures.ast, figures.acd, figures.samples), (1.0, 1.0, 1_000.0, 2_000.0, 60.0, [1; 5]));
}

#[test]
fn pairs_beyond_the_bound_are_counted_and_calls_go_on() {
    let mut terms = with(route("pstn"));
    terms.quality.pairs = 1;
    let mut rig = Rig::new(terms);
    rig.set_routing(gateways(&[["a", "203.0.113.1", "0", "", "0"], ["b", "203.0.113.2:5070", "0", "", "0"]], &[], &[["1", "a"], ["2", "b"]]));
    call(&mut rig, "sip:1@edge", 1);
    assert_eq!(call(&mut rig, "sip:2@edge", 2).to.to_string(), B);
    assert_eq!(rig.counters().quality_pairs_refused.get(), 1);
}
