//! Requests that a policy decides, on simulated time.
#![expect(clippy::unwrap_used, reason = "tests")]

use edge::{PeerKind, PolicyEvent, PolicyQuestion, PolicySettings, QuestionView, RouteSettings};
use serde_json::{Value, json};
use testkit::{Request, Rig, Sent, header, headers, peer, response, settings};

const CALLER: &str = "198.51.100.7:5060";
const CORE: &str = "203.0.113.9:5060";
const OTHER: &str = "203.0.113.10:5060";

fn hook(hook: &str, methods: &[&str], peers: &[&str]) -> PolicySettings {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    PolicySettings { hook: hook.to_owned(), methods: owned(methods), peers: owned(peers), deadline_milliseconds: 1_000, status_code: 500 }
}

fn with(policies: Vec<PolicySettings>) -> RouteSettings {
    let mut settings =
        settings(vec![peer("core", PeerKind::Core, "203.0.113.0/24", &["sip:203.0.113.9"]), peer("phones", PeerKind::Subscribers, "198.51.100.0/24", &[])]);
    settings.policies = policies;
    settings
}

fn rig() -> Rig {
    let mut rig = Rig::new(with(vec![hook("request", &["INVITE"], &["phones"])]));
    rig.edge.set_policy_links(vec![1]);
    rig
}

fn invite() -> Request {
    Request::new("INVITE", "sip:bob@example.net")
}

/// The decision as a policy process encodes it.
fn packed(value: &Value) -> Vec<u8> {
    rmp_serde::to_vec(value).unwrap()
}

fn last(rig: &mut Rig) -> PolicyQuestion {
    rig.policy.pop().unwrap()
}

fn event(question: &PolicyQuestion) -> (u8, u16) {
    let view = QuestionView::read(&question.bytes).unwrap();
    (view.event, view.status_code)
}

/// An INVITE that waits for its policy; what was sent so far is its 100.
fn asked(rig: &mut Rig) -> PolicyQuestion {
    let sent = rig.receive(CALLER, &invite().text());
    assert_eq!(sent.iter().map(Sent::status_code).collect::<Vec<_>>(), [100]);
    last(rig)
}

#[test]
fn a_request_is_parked_with_its_question_and_goes_on_with_the_verdict() {
    let mut rig = rig();
    let question = asked(&mut rig);
    let view = QuestionView::read(&question.bytes).unwrap();
    assert_eq!((view.event, view.peer, view.listener, view.transport), (PolicyEvent::Request as u8, "phones", "main", "UDP"));
    assert_eq!((view.source.0.to_string(), view.deadline, view.message), ("198.51.100.7".to_owned(), 1_000_000, invite().text().as_bytes()));
    assert_eq!(rig.receive(CALLER, &invite().text()).len(), 1, "a retransmission gets the 100 again");
    assert!(rig.policy.is_empty(), "and asks nothing");
    let sent = rig.verdict(&question, &packed(&json!({"kind": "continue", "notes": [["lnp", "failed"], ["lnp", "done"]]})));
    assert_eq!((sent.len(), sent[0].to.to_string()), (1, CORE.to_owned()));
    assert!(rig.verdict(&question, &packed(&json!({}))).is_empty(), "a second verdict comes too late");
    assert_eq!(rig.counters().late_answers.get(), 1);
    rig.receive(CORE, &response(&sent[0].text, 486, "bob"));
    assert_eq!(rig.records[0].notes, [("lnp".to_owned(), "done".to_owned())]);
    assert_eq!(rig.records[0].trace_id.len(), 32);
}

#[test]
fn who_has_no_policy_is_not_asked_about() {
    let mut rig = rig();
    rig.receive(CORE, &invite().text());
    rig.receive(CALLER, &Request::new("MESSAGE", "sip:bob@example.net").text());
    assert!(rig.policy.is_empty());
    let sent = rig.receive(CALLER, &invite().branch("z9hG4bK-tagged").tags("alice", "forged").text());
    assert_eq!(sent.last().unwrap().status_code(), 100, "a forged To tag does not escape the policy");
    assert_eq!(rig.policy.len(), 1);
}

#[test]
fn a_relay_goes_where_the_policy_says_with_its_edits() {
    let mut rig = rig();
    let question = asked(&mut rig);
    let edits = json!([{"action": "set", "name": "X-Class", "value": "gold"}, {"action": "request_uri", "name": "", "value": "sip:+4930@example.net"}, {"action": "add", "name": "P-Asserted-Identity", "value": "<sip:ours@edge>"}]);
    let sent = rig.verdict(&question, &packed(&json!({"kind": "relay", "targets": ["sip:203.0.113.10"], "edits": edits})));
    assert_eq!((sent[0].to.to_string(), sent[0].first_line()), (OTHER.to_owned(), "INVITE sip:+4930@example.net SIP/2.0"));
    assert_eq!((header(&sent[0].text, "X-Class"), header(&sent[0].text, "P-Asserted-Identity")), ("gold", "<sip:ours@edge>"));
    let busy = rig.receive(OTHER, &response(&sent[0].text, 486, "bob"));
    assert_eq!(busy.last().unwrap().status_code(), 486);
    assert_eq!((rig.records[0].request_uri.as_str(), rig.records[0].sent_request_uri.as_str()), ("sip:bob@example.net", "sip:+4930@example.net"));
}

#[test]
fn a_reply_ends_it_with_the_header_fields_that_the_policy_wants() {
    let mut rig = rig();
    let question = asked(&mut rig);
    let sent = rig.verdict(&question, &packed(&json!({"kind": "reply", "status_code": 302, "reason_phrase": "There", "headers": [["Contact", "<sip:x@y>"]]})));
    assert_eq!((sent[0].first_line(), header(&sent[0].text, "Contact")), ("SIP/2.0 302 There", "<sip:x@y>"));
    assert_eq!((rig.records[0].outcome, rig.records[0].refused_by, rig.records[0].status_code), ("refused", "policy", 302));
    assert_eq!(rig.receive(CALLER, &invite().text())[0].status_code(), 302, "a retransmission gets it again");
}

#[test]
fn another_request_may_be_answered_with_a_body() {
    let mut rig = Rig::new(with(vec![hook("request", &["MESSAGE"], &[])]));
    rig.edge.set_policy_links(vec![1]);
    rig.receive(CALLER, &Request::new("MESSAGE", "sip:bob@example.net").text());
    let question = last(&mut rig);
    let sent = rig.verdict(&question, &packed(&json!({"kind": "reply", "status_code": 200, "headers": [["Content-Type", "text/plain"]], "body": "hi"})));
    assert!(sent[0].text.ends_with("Content-Length: 2\r\n\r\nhi"), "{}", sent[0].text);
}

#[test]
fn a_body_that_no_datagram_carries_is_no_answer() {
    for (bytes, code) in [(65_000, 200), (65_500, 500), (100_000, 500)] {
        let mut rig = Rig::new(with(vec![hook("request", &["MESSAGE"], &[])]));
        rig.edge.set_policy_links(vec![1]);
        rig.receive(CALLER, &Request::new("MESSAGE", "sip:bob@example.net").text());
        let question = last(&mut rig);
        let sent = rig.verdict(&question, &packed(&json!({"kind": "reply", "status_code": 200, "body": "x".repeat(bytes)})));
        assert_eq!(sent.iter().map(Sent::status_code).collect::<Vec<_>>(), [code], "{bytes}");
    }
}

#[test]
fn a_response_goes_on_as_it_came_where_its_policy_wants_what_cannot_be() {
    let set = |bytes: usize| json!({"kind": "continue", "edits": [{"action": "set", "name": "X-A", "value": "x".repeat(bytes)}]});
    for (verdict, wanted, errors) in
        [(set(3), 3, 0), (set(70_000), 0, 1), (json!({"kind": "drop"}), 0, 0), (json!({"kind": "reply", "status_code": 486}), 0, 1)]
    {
        let mut rig = Rig::new(with(vec![hook("response", &["INVITE"], &["phones"])]));
        rig.edge.set_policy_links(vec![1]);
        let sent = rig.receive(CALLER, &invite().text());
        assert!(rig.receive(CORE, &response(&sent.last().unwrap().text, 200, "bob")).is_empty());
        let question = last(&mut rig);
        let sent = rig.verdict(&question, &packed(&verdict));
        assert_eq!(sent.iter().map(Sent::status_code).collect::<Vec<_>>(), [200]);
        assert_eq!(headers(&sent[0].text, "X-A").first().map_or(0, |value| value.len()), wanted);
        assert_eq!(rig.counters().policy_errors.get(), errors);
    }
}

#[test]
fn whatever_goes_wrong_ends_in_the_verdict_of_the_file() {
    let wrong = [
        packed(&json!({"kind": "error"})),
        packed(&json!({"kind": "nonsense"})),
        packed(&json!({"unknown": 1})),
        packed(&json!({"kind": "relay"})),
        packed(&json!({"kind": "relay", "targets": ["tel:1"]})),
        packed(&json!({"kind": "relay", "targets": ["sip:192.0.2.1"]})),
        packed(&json!({"kind": "relay", "peer": "nobody"})),
        packed(&json!({"kind": "reply", "status_code": 200})),
        packed(&json!({"kind": "reply", "status_code": 700})),
        packed(&json!({"kind": "reply", "status_code": 486, "headers": [["X", "a\r\nVia: b"]]})),
        packed(&json!({"kind": "reply", "status_code": 486, "headers": [["X", "x".repeat(66_000)]]})),
        packed(&json!({"kind": "best", "status_code": 486, "headers": [["X", "x".repeat(66_000)]]})),
        packed(&json!({"kind": "continue", "edits": [{"action": "set", "name": "Via", "value": "x"}]})),
        b"\xc1".to_vec(),
        Vec::new(),
    ];
    for decision in wrong {
        let mut rig = rig();
        let question = asked(&mut rig);
        let sent = rig.verdict(&question, &decision);
        assert_eq!((sent.len(), sent[0].status_code()), (1, 500), "{decision:?}");
        assert!(!headers(&sent[0].text, "Retry-After").is_empty());
        assert_eq!((rig.counters().policy_errors.get(), rig.records.len()), (1, 1));
    }
}

#[test]
fn silence_ends_at_the_deadline_and_nobody_to_ask_at_once() {
    let mut rig = rig();
    let question = asked(&mut rig);
    assert!(rig.advance(990).is_empty());
    let sent = rig.advance(30);
    assert_eq!((sent[0].status_code(), rig.counters().policy_deadlines.get()), (500, 1));
    assert_eq!(event(&last(&mut rig)).0, PolicyEvent::Ended as u8, "what still runs there is told");
    assert!(rig.verdict(&question, &packed(&json!({}))).is_empty());
    rig.edge.set_policy_links(Vec::new());
    let sent = rig.receive(CALLER, &invite().branch("z9hG4bK-2").text());
    assert_eq!(sent.last().unwrap().status_code(), 500);
    rig.edge.set_policy_links(vec![1]);
    rig.receive(CALLER, &invite().branch("z9hG4bK-3").text());
    let question = last(&mut rig);
    assert_eq!(rig.refuse(&question)[0].status_code(), 500, "no room in the queue");
    assert_eq!(rig.counters().policy_unavailable.get(), 2);
}

#[test]
fn attempts_in_series_come_back_to_the_policy_until_one_answers() {
    let mut rig = rig();
    let question = asked(&mut rig);
    let first = rig.verdict(&question, &packed(&json!({"kind": "relay", "targets": ["sip:203.0.113.9"], "report": true})));
    let ack = rig.receive(CORE, &response(&first[0].text, 486, "bob"));
    assert!(ack.len() == 1 && ack[0].first_line().starts_with("ACK"), "the caller hears nothing yet");
    let question = last(&mut rig);
    assert_eq!(event(&question), (PolicyEvent::Failed as u8, 486));
    let second = rig.verdict(&question, &packed(&json!({"kind": "relay", "targets": ["sip:203.0.113.10"], "report": true})));
    assert_eq!(second[0].to.to_string(), OTHER);
    let ok = rig.receive(OTHER, &response(&second[0].text, 200, "bob"));
    assert_eq!(ok[0].status_code(), 200);
    assert_eq!(event(&last(&mut rig)), (PolicyEvent::Ended as u8, 200));
    rig.advance(60_000);
    assert!(rig.policy.is_empty());
}

#[test]
fn a_policy_that_gives_up_gets_the_best_response_sent() {
    for (decision, expected) in
        [(json!({"kind": "best"}), 486), (json!({"kind": "best", "status_code": 480}), 486), (json!({"kind": "reply", "status_code": 480}), 480)]
    {
        let mut rig = rig();
        let question = asked(&mut rig);
        let first = rig.verdict(&question, &packed(&json!({"kind": "relay", "targets": ["sip:203.0.113.9"], "report": true})));
        rig.receive(CORE, &response(&first[0].text, 486, "bob"));
        let question = last(&mut rig);
        let sent = rig.verdict(&question, &packed(&decision));
        assert_eq!((sent[0].status_code(), rig.records.len()), (expected, 1));
        assert!(rig.policy.is_empty());
    }
}

#[test]
fn a_policy_that_falls_silent_between_attempts_leaves_the_last_answer() {
    let mut rig = rig();
    let question = asked(&mut rig);
    let first = rig.verdict(&question, &packed(&json!({"kind": "relay", "targets": ["sip:203.0.113.9"], "report": true})));
    rig.receive(CORE, &response(&first[0].text, 486, "bob"));
    assert_eq!(rig.advance(1_020)[0].status_code(), 486);
}

#[test]
fn a_caller_who_gives_up_ends_the_question_and_is_answered() {
    let mut rig = rig();
    let question = asked(&mut rig);
    let sent = rig.receive(CALLER, &Request::new("CANCEL", "sip:bob@example.net").branch("z9hG4bK-INVITE-1").text());
    assert_eq!(sent.iter().map(Sent::status_code).collect::<Vec<_>>(), [200, 487]);
    assert_eq!(event(&last(&mut rig)), (PolicyEvent::Ended as u8, 487));
    assert!(rig.verdict(&question, &packed(&json!({}))).is_empty());
    // And while an attempt of the policy's rings: no further attempt follows.
    let mut rig = self::rig();
    let question = asked(&mut rig);
    let first = rig.verdict(&question, &packed(&json!({"kind": "relay", "targets": ["sip:203.0.113.9"], "report": true})));
    rig.receive(CORE, &response(&first[0].text, 180, "bob"));
    rig.receive(CALLER, &Request::new("CANCEL", "sip:bob@example.net").branch("z9hG4bK-INVITE-1").text());
    let sent = rig.receive(CORE, &response(&first[0].text, 487, "bob"));
    assert_eq!(sent.last().unwrap().status_code(), 487);
    assert_eq!(event(&last(&mut rig)), (PolicyEvent::Ended as u8, 487));
}

#[test]
fn the_end_of_a_call_is_told_to_whom_asked_for_it() {
    let mut rig = Rig::new(with(vec![hook("final", &[], &["phones"])]));
    rig.edge.set_policy_links(vec![1]);
    let sent = rig.receive(CALLER, &invite().text());
    rig.receive(CORE, &response(&sent[1].text, 486, "bob"));
    let question = last(&mut rig);
    let view = QuestionView::read(&question.bytes).unwrap();
    let record: Value = serde_json::from_slice(view.message).unwrap();
    assert_eq!((view.event, record["status_code"].as_u64(), record["from_peer"].as_str()), (PolicyEvent::Final as u8, Some(486), Some("phones")));
}

#[test]
fn the_time_for_the_whole_request_ends_it_whatever_its_policy_would_try_next() {
    let mut settings = with(vec![hook("request", &["INVITE"], &["phones"])]);
    settings.timers.setup_seconds = 10;
    let mut rig = Rig::new(settings);
    rig.edge.set_policy_links(vec![1]);
    let question = asked(&mut rig);
    let first = rig.verdict(&question, &packed(&json!({"kind": "relay", "targets": ["sip:203.0.113.9"], "report": true})));
    rig.receive(CORE, &response(&first[0].text, 180, "bob"));
    let sent = rig.advance(10_020);
    assert!(sent.iter().any(|s| s.first_line().starts_with("CANCEL")));
    let ended = rig.receive(CORE, &response(&first[0].text, 487, "bob"));
    assert_eq!(ended.last().unwrap().status_code(), 408);
    assert_eq!(event(&last(&mut rig)), (PolicyEvent::Ended as u8, 408));
}

#[test]
fn whoever_decides_nothing_after_failures_leaves_the_best_of_them() {
    let mut rig = rig();
    let question = asked(&mut rig);
    let first = rig.verdict(&question, &packed(&json!({"kind": "relay", "targets": ["sip:203.0.113.9"], "report": true})));
    rig.receive(CORE, &response(&first[0].text, 603, "bob"));
    let question = last(&mut rig);
    assert_eq!(rig.verdict(&question, &packed(&json!({"kind": "continue"})))[0].status_code(), 603);
}

#[test]
fn what_we_made_up_for_a_dead_target_is_no_answer_of_anybody() {
    let mut rig = rig();
    let question = asked(&mut rig);
    let first = rig.verdict(&question, &packed(&json!({"kind": "relay", "targets": ["sip:203.0.113.9"], "report": true})));
    rig.undeliverable(&first[0]);
    let question = last(&mut rig);
    assert_eq!(event(&question), (PolicyEvent::Failed as u8, 503));
    assert_eq!(rig.verdict(&question, &packed(&json!({"kind": "best", "status_code": 480})))[0].status_code(), 480);
}

#[test]
fn a_request_that_its_edits_make_too_large_is_refused_and_not_lost() {
    let mut rig = rig();
    rig.receive(CALLER, &invite().body(&"x".repeat(60_000)).text());
    let question = last(&mut rig);
    let edits: Vec<Value> = (0..10).map(|number| json!({"action": "add", "name": format!("X-{number}"), "value": "y".repeat(1_000)})).collect();
    let sent = rig.verdict(&question, &packed(&json!({"kind": "continue", "edits": edits})));
    assert_eq!((sent[0].status_code(), rig.records.len()), (500, 1));
    rig.advance(60_000);
    assert_eq!(rig.edge.sizes(), (0, 0));
}

#[test]
fn a_rewritten_request_that_comes_back_is_a_spiral_and_no_loop() {
    let mut rig = rig();
    let question = asked(&mut rig);
    let edits = json!([{"action": "request_uri", "name": "", "value": "sip:+4930@example.net"}]);
    let sent = rig.verdict(&question, &packed(&json!({"kind": "relay", "targets": ["sip:203.0.113.9"], "edits": edits})));
    let back = sent[0].text.replacen("Via:", "Via: SIP/2.0/UDP 203.0.113.9;branch=z9hG4bK-core\r\nVia:", 1);
    let answer = rig.receive(CORE, &back);
    assert!(answer.iter().all(|s| s.status_code() != 482), "{:?}", answer[0].first_line());
}

#[test]
fn the_target_of_a_policy_leaves_by_its_own_listener_and_shares_the_breadth() {
    let mut settings = with(vec![hook("request", &["INVITE"], &["phones"])]);
    settings.listeners.push(testkit::listener("inside", "udp:192.0.2.1:5070"));
    settings.peers[0].listener = "inside".to_owned();
    settings.peers.push(peer("carrier", PeerKind::Gateway, "192.0.2.128/25", &["sip:192.0.2.200", "sip:192.0.2.201"]));
    let mut rig = Rig::new(settings);
    rig.edge.set_policy_links(vec![1]);
    let question = asked(&mut rig);
    let sent = rig.verdict(&question, &packed(&json!({"kind": "relay", "peer": "carrier", "parallel": true})));
    assert_eq!(sent.iter().map(|s| (s.listener, header(&s.text, "Max-Breadth"))).collect::<Vec<_>>(), [(0, "30"), (0, "30")]);
    rig.receive(CALLER, &invite().branch("z9hG4bK-narrow").call_id("narrow").header("Max-Breadth: 1").text());
    let question = last(&mut rig);
    assert_eq!(rig.verdict(&question, &packed(&json!({"kind": "relay", "peer": "carrier", "parallel": true}))).len(), 1);
}

#[test]
fn silence_after_another_request_is_told_to_its_policy_too() {
    let mut rig = Rig::new(with(vec![hook("request", &["MESSAGE"], &[])]));
    rig.edge.set_policy_links(vec![1]);
    rig.receive(CALLER, &Request::new("MESSAGE", "sip:bob@example.net").text());
    let question = last(&mut rig);
    rig.verdict(&question, &packed(&json!({"kind": "relay", "targets": ["sip:203.0.113.9"], "report": true})));
    rig.advance(40_000);
    assert_eq!(event(&last(&mut rig)).0, PolicyEvent::Ended as u8);
}

#[test]
fn a_branch_that_nobody_can_be_asked_about_is_answered_for_every_method() {
    for method in ["INVITE", "MESSAGE"] {
        let mut rig = Rig::new(with(vec![hook("branch", &[], &[])]));
        let sent = rig.receive(CALLER, &Request::new(method, "sip:bob@example.net").text());
        assert_eq!(sent.last().unwrap().status_code(), 500, "{method}");
        // Also where a name has to be resolved first, so that the request is in other hands when the question fails.
        let mut settings = with(vec![hook("branch", &[], &[])]);
        settings.peers[0].to = vec!["sip:core.example.net".to_owned()];
        let mut rig = Rig::new(settings);
        rig.receive(CALLER, &Request::new(method, "sip:bob@example.net").text());
        let question = rig.questions.pop().unwrap();
        let sent = rig.answer(&question, &["203.0.113.9:5060"]);
        assert_eq!(sent.iter().map(Sent::status_code).collect::<Vec<_>>(), [500], "{method}");
    }
}

#[test]
fn a_call_whose_answer_waits_for_its_policy_is_ended_on_both_sides() {
    let mut rig = Rig::new(with(vec![hook("response", &["INVITE"], &["phones"])]));
    rig.edge.set_policy_links(vec![1]);
    let sent = rig.receive(CALLER, &invite().text());
    let ok = response(&sent.last().unwrap().text, 200, "bob").replace("Content-Length", "Contact: <sip:bob@203.0.113.9>\r\nContent-Length");
    assert!(rig.receive(CORE, &ok).is_empty(), "it is held");
    let ended = rig.hang_up(header(&ok, "Call-ID"));
    let lines: Vec<_> = ended.iter().map(|sent| (sent.to.to_string(), sent.first_line().split(' ').take(2).collect::<Vec<_>>().join(" "))).collect();
    let to = |place: &str, start: &str| lines.iter().filter(|(to, line)| to == place && line.starts_with(start)).count();
    assert_eq!((to(CALLER, "SIP/2.0 200"), to(CALLER, "BYE"), to(CORE, "BYE"), to(CORE, "CANCEL")), (1, 1, 1, 0), "{lines:?}");
    assert_eq!((rig.records.len(), rig.records[0].outcome), (1, "answered"));
}

#[test]
fn a_fault_of_a_policy_on_a_response_is_counted_once_and_lets_it_go_on() {
    let mut rig = Rig::new(with(vec![hook("response", &["INVITE"], &["phones"])]));
    rig.edge.set_policy_links(vec![1]);
    let sent = rig.receive(CALLER, &invite().text());
    rig.receive(CORE, &response(&sent.last().unwrap().text, 486, "bob"));
    let question = last(&mut rig);
    let sent = rig.verdict(&question, &packed(&json!({"kind": "error"})));
    assert_eq!(sent.last().unwrap().status_code(), 486);
    assert_eq!(rig.counters().policy_errors.get(), 1);
}
