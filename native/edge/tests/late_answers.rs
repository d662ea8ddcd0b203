//! Far ends that answer after their attempt was given up, on simulated time.
#![expect(clippy::unwrap_used, reason = "tests")]

use edge::PeerKind;
use testkit::{Request, Rig, Sent, header, peer, response, settings};

const CALLER: &str = "198.51.100.7:5060";
const FIRST: &str = "10.0.0.1:5060";
const SECOND: &str = "10.0.0.2:5060";

fn rig(to: &[&str]) -> Rig {
    let mut core = peer("core", PeerKind::Core, "10.0.0.0/24", to);
    core.first_answer_milliseconds = 1_000;
    Rig::new(settings(vec![core, peer("phones", PeerKind::Subscribers, "198.51.100.0/24", &[])]))
}

fn named<'a>(sent: &'a [Sent], to: &str, begins: &str) -> Option<&'a Sent> {
    sent.iter().find(|sent| sent.to.to_string() == to && sent.first_line().starts_with(begins))
}

/// A call whose first machine was silent for so long that the second was tried.
fn failed_over() -> (Rig, Sent, Sent) {
    let mut rig = rig(&["sip:10.0.0.1", "sip:10.0.0.2"]);
    let first = named(&rig.receive(CALLER, &Request::new("INVITE", "sip:bob@example.net").text()), FIRST, "INVITE").unwrap().clone();
    let second = named(&rig.advance(1_000), SECOND, "INVITE").unwrap().clone();
    (rig, first, second)
}

#[test]
fn one_that_rings_after_it_was_given_up_is_cancelled_and_its_refusal_acknowledged() {
    let (mut rig, first, second) = failed_over();
    let sent = rig.receive(FIRST, &response(&first.text, 180, "late"));
    let cancel = named(&sent, FIRST, "CANCEL").unwrap();
    assert_eq!((header(&cancel.text, "Via"), sent.len()), (header(&first.text, "Via"), 1), "and the caller hears nothing of it");
    assert!(rig.receive(FIRST, &response(&first.text, 180, "late")).is_empty(), "once");
    rig.receive(FIRST, &response(&cancel.text, 200, "late"));
    for _ in 0..2 {
        let sent = rig.receive(FIRST, &response(&first.text, 487, "late"));
        assert!(sent.len() == 1 && named(&sent, FIRST, "ACK").is_some());
    }
    assert!(named(&rig.receive(SECOND, &response(&second.text, 200, "b")), CALLER, "SIP/2.0 200").is_some());
    rig.advance(70_000);
    assert_eq!(rig.edge.sizes(), (1, 0), "nothing stays but the call");
}

#[test]
fn one_that_answers_after_it_was_given_up_has_the_call() {
    let (mut rig, first, second) = failed_over();
    rig.receive(SECOND, &response(&second.text, 180, "b"));
    let sent = rig.receive(FIRST, &response(&first.text, 200, "late"));
    assert!(named(&sent, CALLER, "SIP/2.0 200").is_some() && named(&sent, SECOND, "CANCEL").is_some());
    assert!(named(&rig.receive(FIRST, &response(&first.text, 200, "late")), CALLER, "SIP/2.0 200").is_some(), "and again until it is acknowledged");
    let sent = rig.receive(SECOND, &response(&second.text, 487, "b"));
    assert!(sent.len() == 1 && named(&sent, SECOND, "ACK").is_some());
    assert_eq!((rig.counters().attempts_answered_late.get(), rig.counters().calls_answered.get()), (1, 1));
}

#[test]
fn an_answer_after_another_is_passed_on_and_ends_nothing() {
    let (mut rig, first, second) = failed_over();
    assert!(named(&rig.receive(SECOND, &response(&second.text, 200, "b")), CALLER, "SIP/2.0 200").is_some());
    let sent = rig.receive(FIRST, &response(&first.text, 200, "late"));
    assert!(sent.len() == 1 && named(&sent, CALLER, "SIP/2.0 200").is_some(), "section 16.7 step 5");
    assert_eq!(rig.counters().calls_answered.get(), 1);
}

#[test]
fn a_caller_that_gave_up_during_the_silence_leaves_nobody_ringing() {
    let mut rig = rig(&["sip:10.0.0.1"]);
    let request = Request::new("INVITE", "sip:bob@example.net").text();
    let first = named(&rig.receive(CALLER, &request), FIRST, "INVITE").unwrap().clone();
    let mut sent = rig.receive(CALLER, &Request::new("CANCEL", "sip:bob@example.net").branch("z9hG4bK-INVITE-1").text());
    sent.extend(rig.advance(1_000));
    assert!(named(&sent, CALLER, "SIP/2.0 487").is_some(), "{:?}", sent.iter().map(|s| (s.to.to_string(), s.first_line().to_owned())).collect::<Vec<_>>());
    assert!(named(&rig.receive(FIRST, &response(&first.text, 180, "late")), FIRST, "CANCEL").is_some());
}
