//! Gateways that no listener leads to, or whose names have no address, on simulated time.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use edge::{PeerKind, RouteSettings};
use routing::{Down, GatewayState};
use testkit::{Request, Rig, Sent, gateways, peer, response, route, settings};

const CORE: &str = "10.0.0.1:5060";
const OVER_TCP: [&str; 5] = ["a", "203.0.113.1;transport=tcp", "0", "", "0"];
const BY_NAME: [&str; 5] = ["a", "gw.example.net", "0", "", "0"];
const REACHED: [&str; 5] = ["b", "203.0.113.2", "0", "", "0"];

/// Calls of the core go by the rules; there is a UDP listener, and no other.
fn rig_of(rows: &[[&str; 5]], list: &str) -> Rig {
    let mut core = peer("core", PeerKind::Core, "10.0.0.0/24", &["sip:10.0.0.1"]);
    core.route = "pstn".to_owned();
    let mut settings: RouteSettings = settings(vec![core]);
    settings.routes = vec![route("pstn")];
    let mut rig = Rig::new(settings);
    rig.set_routing(gateways(rows, &[], &[["49", list]]));
    rig
}

fn state(rig: &Rig) -> Arc<GatewayState> {
    Arc::clone(&rig.routing().table("").unwrap().gateways[0].state)
}

fn call(rig: &mut Rig, number: u32) -> Vec<Sent> {
    rig.receive(CORE, &Request::new("INVITE", "sip:4930@edge").call_id(&format!("call-{number}")).branch(&format!("z9hG4bK-{number}")).text())
}

fn final_code(sent: &[Sent]) -> u16 {
    sent.iter().map(Sent::status_code).find(|code| *code > 100).unwrap()
}

#[test]
fn it_counts_as_an_attempt_and_the_next_gateway_has_the_call() {
    let mut rig = rig_of(&[OVER_TCP, REACHED], "a,b");
    let sent = call(&mut rig, 1);
    let invite = sent.iter().find(|sent| sent.first_line().starts_with("INVITE")).unwrap();
    assert_eq!(invite.to.to_string(), "203.0.113.2:5060");
    let refused = rig.receive("203.0.113.2:5060", &response(&invite.text, 486, "b"));
    assert_eq!(final_code(&refused), 486);
    let attempts: Vec<_> = rig.records[0].attempts.iter().map(|attempt| (attempt.gateway.as_str(), attempt.target.as_str(), attempt.status_code)).collect();
    assert_eq!(attempts, [("a", "tcp:203.0.113.1:5060", 503), ("b", "udp:203.0.113.2:5060", 486)]);
    let state = state(&rig);
    assert_eq!((state.attempts.load(Relaxed), state.unreachable.load(Relaxed), state.down()), (1, 1, Down::No));
    assert_eq!(rig.counters().attempts_undeliverable.get(), 1);
    rig.advance(70_000);
    assert_eq!(rig.edge.sizes(), (0, 0));
}

#[test]
fn three_such_attempts_take_it_down_and_its_route_says_what_the_caller_gets() {
    let mut rig = rig_of(&[["a", "[2001:db8::1]", "0", "", "0"]], "a");
    rig.listen(&["E_DROUTING_STATUS"]);
    let codes: Vec<u16> = (0..4).map(|number| final_code(&call(&mut rig, number))).collect();
    assert_eq!(codes, [500, 500, 500, 480]);
    assert_eq!((state(&rig).down(), rig.take_events().len()), (Down::Calls, 1));
    let attempts: Vec<_> = rig.records.iter().map(|record| (record.status_code, record.attempts.len())).collect();
    assert_eq!(attempts, [(500, 1), (500, 1), (500, 1), (480, 0)]);
}

#[test]
fn a_name_without_an_address_counts_the_same() {
    let mut rig = rig_of(&[BY_NAME, REACHED], "a,b");
    for number in 0..3 {
        call(&mut rig, number);
        let question = rig.questions.pop().unwrap();
        let sent = rig.answer(&question, &[]);
        assert!(sent.iter().any(|sent| sent.first_line().starts_with("INVITE") && sent.to.to_string() == "203.0.113.2:5060"));
    }
    let state = state(&rig);
    assert_eq!((state.attempts.load(Relaxed), state.unreachable.load(Relaxed), state.down()), (3, 3, Down::Calls));
    call(&mut rig, 4);
    assert!(rig.questions.is_empty(), "it has no call while it is down");
}

#[test]
fn an_address_that_is_reached_stands_for_the_name() {
    let mut rig = rig_of(&[BY_NAME, REACHED], "a,b");
    call(&mut rig, 1);
    let question = rig.questions.pop().unwrap();
    let sent = rig.answer(&question, &["[2001:db8::1]:5060", "203.0.113.7:5060"]);
    let invite = sent.iter().find(|sent| sent.first_line().starts_with("INVITE")).unwrap();
    assert_eq!(invite.to.to_string(), "203.0.113.7:5060");
    let state = state(&rig);
    assert_eq!((state.unreachable.load(Relaxed), state.down()), (0, Down::No));
}
