//! Peers that are pools of machines, on simulated time.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;

use edge::{Balance, MachineSettings, PeerKind, PolicySettings, PoolSettings, RouteSettings};
use serde_json::json;
use testkit::{Request, Rig, Sent, header, packed, peer, response, settings};

const CALLER: &str = "198.51.100.7:5060";
const MACHINES: [&str; 3] = ["sip:10.0.0.1", "sip:10.0.0.2", "sip:10.0.0.3"];

fn with(balance: Balance, weights: &[u16], machines: &[&str]) -> RouteSettings {
    let mut core = peer("core", PeerKind::Core, "10.0.0.0/24", machines);
    let machine = |place: usize| MachineSettings { weight: weights.get(place).copied().unwrap_or(1), ..MachineSettings::default() };
    core.pool = Some(PoolSettings { balance, machines: (0..machines.len()).map(machine).collect(), machine_calls_per_second: 0 });
    settings(vec![core, peer("phones", PeerKind::Subscribers, "198.51.100.0/24", &[])])
}

fn each_has(terms: &mut RouteSettings, own: impl Fn(&mut MachineSettings)) {
    terms.peers[0].pool.as_mut().unwrap().machines.iter_mut().for_each(own);
}

fn invite(number: u32, from: &str) -> String {
    let request = Request::new("INVITE", "sip:bob@example.net").call_id(&format!("call-{number}")).branch(&format!("z9hG4bK-{number}")).text();
    request.replace("From: <sip:alice@example.net>", &format!("From: <sip:{from}@example.net>"))
}

fn outgoing(sent: Vec<Sent>) -> Option<Sent> {
    sent.into_iter().find(|sent| sent.first_line().starts_with("INVITE"))
}

/// The machine that a call goes to.
fn place(rig: &mut Rig, number: u32, from: &str) -> Sent {
    outgoing(rig.receive(CALLER, &invite(number, from))).unwrap()
}

fn refuse(rig: &mut Rig, invite: &Sent, code: u16) -> Vec<Sent> {
    rig.receive(&invite.to.to_string(), &response(&invite.text, code, "b"))
}

/// How many of so many calls, each refused as busy, go to each machine.
fn shares(rig: &mut Rig, calls: std::ops::Range<u32>, from: &dyn Fn(u32) -> String) -> HashMap<String, usize> {
    let mut shares = HashMap::new();
    for number in calls {
        let sent = place(rig, number, &from(number));
        refuse(rig, &sent, 486);
        *shares.entry(sent.to.ip().to_string()).or_default() += 1;
    }
    shares
}

#[test]
fn weights_are_shares_and_the_request_uri_stays_as_it_is() {
    let mut rig = Rig::new(with(Balance::Weight, &[1, 3, 0], &MACHINES));
    assert_eq!(place(&mut rig, 0, "alice").first_line(), "INVITE sip:bob@example.net SIP/2.0");
    let shares = shares(&mut rig, 1..2_001, &|_| "alice".to_owned());
    assert_eq!(shares.len(), 2);
    assert!((400..600).contains(&shares["10.0.0.1"]), "{shares:?}");
}

#[test]
fn each_account_has_its_machine_and_another_one_only_while_that_is_gone() {
    let mut rig = Rig::new(with(Balance::Account, &[], &MACHINES));
    let names: Vec<String> = (0..60).map(|number| format!("user{number}")).collect();
    let mut number = 0;
    let mut homes = |rig: &mut Rig| -> Vec<String> {
        let mut find = |name: &String| {
            number += 1;
            let sent = place(rig, number, name);
            refuse(rig, &sent, 486);
            sent.to.ip().to_string()
        };
        names.iter().map(&mut find).collect()
    };
    let before = homes(&mut rig);
    assert_eq!(homes(&mut rig), before);
    assert!(MACHINES.iter().all(|machine| before.iter().filter(|home| machine.ends_with(*home)).count() > 8), "{before:?}");
    let lost = place(&mut rig, 9_000, &names[0]);
    rig.undeliverable(&lost);
    let after = homes(&mut rig);
    for (was, is) in before.iter().zip(&after) {
        assert!(if *was == before[0] { is != was } else { is == was });
    }
    let mut rig = Rig::new(with(Balance::CallId, &[], &MACHINES));
    assert!(shares(&mut rig, 0..60, &|_| "alice".to_owned()).len() == 3);
    // Weights are shares of them, too, and one without any is for want of others.
    let mut rig = Rig::new(with(Balance::CallId, &[1, 3, 0], &MACHINES));
    let found = shares(&mut rig, 0..2_000, &|_| "alice".to_owned());
    assert_eq!(found.len(), 2);
    assert!((400..600).contains(&found["10.0.0.1"]), "{found:?}");
}

#[test]
fn the_machine_with_the_fewest_calls_is_next() {
    let mut rig = Rig::new(with(Balance::FewestCalls, &[2, 1], &MACHINES[..2]));
    let places: Vec<String> = (0..6).map(|number| place(&mut rig, number, "alice").to.ip().to_string()).collect();
    assert_eq!(places.iter().filter(|place| *place == "10.0.0.1").count(), 4);
}

#[test]
fn no_new_call_is_lost_while_a_machine_is_gone_and_it_comes_back() {
    let mut rig = Rig::new(with(Balance::Order, &[], &MACHINES));
    let first = place(&mut rig, 1, "alice");
    assert_eq!(first.to.to_string(), "10.0.0.1:5060");
    assert_eq!(outgoing(rig.undeliverable(&first)).unwrap().to.to_string(), "10.0.0.2:5060");
    let second = place(&mut rig, 2, "alice");
    assert_eq!(second.to.to_string(), "10.0.0.2:5060");
    assert_eq!(outgoing(refuse(&mut rig, &second, 503)).unwrap().to.to_string(), "10.0.0.3:5060");
    rig.advance(30_001);
    assert_eq!(place(&mut rig, 3, "alice").to.to_string(), "10.0.0.1:5060");
}

#[test]
fn a_machine_that_is_drained_keeps_its_calls_over_a_reload_and_gets_no_new_ones() {
    let mut rig = Rig::new(with(Balance::Order, &[], &MACHINES[..2]));
    let invite = place(&mut rig, 1, "alice");
    let ok = rig.receive("10.0.0.1:5060", &response(&invite.text, 200, "b")).pop().unwrap();
    rig.pools()[0].1.table("").unwrap().gateways[0].state.switch(false);
    rig.reload(with(Balance::Order, &[], &MACHINES)).unwrap();
    assert_eq!(rig.pools()[0].1.gateway_capacity("", 0).unwrap().live(), 1);
    assert_eq!(place(&mut rig, 2, "alice").to.to_string(), "10.0.0.2:5060");
    let route = header(&ok.text, "Record-Route").to_owned();
    let bye = Request::new("BYE", "sip:bob@10.0.0.1").call_id("call-1").tags("alice", "b").cseq(2).header(&format!("Route: {route}")).text();
    let sent = rig.receive(CALLER, &bye);
    assert_eq!(sent[0].to.to_string(), "10.0.0.1:5060");
    rig.receive("10.0.0.1:5060", &response(&sent[0].text, 200, ""));
    assert_eq!(rig.pools()[0].1.gateway_capacity("", 0).unwrap().live(), 0);
}

#[test]
fn a_machine_that_is_full_is_passed_over_and_nothing_but_calls_counts() {
    let mut terms = with(Balance::Order, &[], &MACHINES[..2]);
    each_has(&mut terms, |machine| machine.calls = 2);
    let mut rig = Rig::new(terms);
    let live = |rig: &Rig, index| rig.pools()[0].1.gateway_capacity("", index).unwrap().live();
    let first = place(&mut rig, 1, "alice");
    let places: Vec<String> = (2..5).map(|number| place(&mut rig, number, "alice").to.ip().to_string()).collect();
    assert_eq!(places, ["10.0.0.1", "10.0.0.2", "10.0.0.2"]);
    assert_eq!(rig.receive(CALLER, &invite(5, "alice")).pop().unwrap().status_code(), 500);
    assert_eq!(rig.counters().gateways_full.get(), 2 + 2);
    let register = Request::new("REGISTER", "sip:example.net").branch("z9hG4bK-r").call_id("r").text();
    assert_eq!(rig.receive(CALLER, &register).pop().unwrap().to.to_string(), "10.0.0.1:5060");
    assert_eq!((live(&rig, 0), live(&rig, 1)), (2, 2));
    // Over a reload the calls go on counting, by what the new configuration allows.
    let mut wider = with(Balance::Order, &[], &MACHINES[..2]);
    each_has(&mut wider, |machine| machine.calls = 3);
    rig.reload(wider).unwrap();
    assert_eq!(place(&mut rig, 6, "alice").to.ip().to_string(), "10.0.0.1");
    assert_eq!(place(&mut rig, 7, "alice").to.ip().to_string(), "10.0.0.2");
    refuse(&mut rig, &first, 486);
    assert_eq!((live(&rig, 0), place(&mut rig, 8, "alice").to.ip().to_string()), (2, "10.0.0.1".to_owned()));
}

#[test]
fn new_calls_of_a_machine_are_so_many_in_any_second() {
    let mut terms = with(Balance::Order, &[], &MACHINES[..1]);
    terms.peers[0].pool = terms.peers[0].pool.clone().map(|pool| PoolSettings { machine_calls_per_second: 2, ..pool });
    let mut rig = Rig::new(terms);
    rig.advance(900);
    let mut answers = Vec::new();
    for number in 0..6 {
        answers.push(outgoing(rig.receive(CALLER, &invite(number, "alice"))).is_some());
        rig.advance(250);
    }
    assert_eq!(answers, [true, true, false, false, true, true]);
}

#[test]
fn a_policy_sends_to_a_pool_and_nobody_usable_is_no_answer_of_anybody() {
    let mut terms = with(Balance::Order, &[], &MACHINES[..2]);
    terms.policies =
        vec![PolicySettings { hook: "request".to_owned(), methods: Vec::new(), peers: Vec::new(), deadline_milliseconds: 1_000, status_code: 500 }];
    let mut rig = Rig::new(terms);
    rig.edge.set_policy_links(vec![1]);
    rig.receive(CALLER, &invite(1, "alice"));
    let question = rig.policy.pop().unwrap();
    let first = outgoing(rig.verdict(&question, &packed(&json!({"kind": "relay", "peer": "core"})))).unwrap();
    assert_eq!(outgoing(refuse(&mut rig, &first, 503)).unwrap().to.to_string(), "10.0.0.2:5060");
    rig.pools()[0].1.table("").unwrap().gateways.iter().for_each(|machine| machine.state.switch(false));
    rig.receive(CALLER, &invite(2, "alice"));
    let question = rig.policy.pop().unwrap();
    let sent = rig.verdict(&question, &packed(&json!({"kind": "relay", "peer": "core"})));
    assert_eq!(sent[0].status_code(), 500);
}

#[test]
fn a_call_for_help_comes_to_machines_that_are_drained_where_no_other_is_left() {
    let mut rig = Rig::new(with(Balance::Order, &[], &MACHINES[..2]));
    let help = |id: &str| Request::new("INVITE", "urn:service:sos").call_id(id).branch(&format!("z9hG4bK-{id}")).text();
    let switch = |rig: &Rig, machine: usize| rig.pools()[0].1.table("").unwrap().gateways[machine].state.switch(false);
    switch(&rig, 0);
    let first = outgoing(rig.receive(CALLER, &help("a"))).unwrap();
    assert_eq!(first.to.to_string(), "10.0.0.2:5060");
    assert_eq!(outgoing(refuse(&mut rig, &first, 503)).unwrap().to.to_string(), "10.0.0.1:5060");
    switch(&rig, 1);
    assert_eq!(rig.receive(CALLER, &invite(1, "alice")).last().unwrap().status_code(), 500, "other calls find nobody");
    let first = outgoing(rig.receive(CALLER, &help("b"))).unwrap();
    let second = outgoing(refuse(&mut rig, &first, 503)).unwrap();
    assert_eq!((first.to.to_string().as_str(), second.to.to_string().as_str()), ("10.0.0.1:5060", "10.0.0.2:5060"));
    let end = refuse(&mut rig, &second, 503);
    assert!(outgoing(end.clone()).is_none() && end.iter().any(|sent| sent.status_code() == 500), "each is tried once");
}

#[test]
fn a_challenge_and_a_success_of_a_registration_pass_and_leave_no_call_behind() {
    let mut rig = Rig::new(with(Balance::Order, &[], &MACHINES[..2]));
    for (number, code) in [(1, 401), (2, 200)] {
        let register = Request::new("REGISTER", "sip:example.net").branch(&format!("z9hG4bK-r{number}")).call_id(&format!("r{number}")).text();
        let sent = rig.receive(CALLER, &register).pop().unwrap();
        assert_eq!(sent.to.to_string(), "10.0.0.1:5060");
        let answer = rig.receive("10.0.0.1:5060", &response(&sent.text, code, "b"));
        assert_eq!(answer[0].status_code(), code);
        assert_eq!(rig.pools()[0].1.gateway_capacity("", 0).unwrap().live(), 0);
    }
    let register = Request::new("REGISTER", "sip:example.net").branch("z9hG4bK-r3").call_id("r3").text();
    rig.receive(CALLER, &register);
    // Silence means the next machine, as it does without a pool.
    let sent = rig.advance(4_100);
    assert_eq!(sent.iter().rfind(|sent| sent.first_line().starts_with("REGISTER")).unwrap().to.to_string(), "10.0.0.2:5060");
}

#[test]
fn a_policy_that_edits_and_goes_on_stays_with_the_pool() {
    let mut terms = with(Balance::Order, &[], &MACHINES[..2]);
    terms.policies =
        vec![PolicySettings { hook: "request".to_owned(), methods: Vec::new(), peers: Vec::new(), deadline_milliseconds: 1_000, status_code: 500 }];
    let mut rig = Rig::new(terms);
    rig.edge.set_policy_links(vec![1]);
    rig.set_routing(testkit::gateways(&[["a", "203.0.113.1", "0", "", "0"]], &[], &[["", "a"]]));
    rig.receive(CALLER, &invite(1, "alice"));
    let question = rig.policy.pop().unwrap();
    let verdict = json!({"kind": "continue", "edits": [{"action": "set", "name": "X-Note", "value": "x"}]});
    let sent = outgoing(rig.verdict(&question, &packed(&verdict))).unwrap();
    assert_eq!((sent.to.to_string().as_str(), header(&sent.text, "X-Note")), ("10.0.0.1:5060", "x"));
}

#[test]
fn a_machine_that_begins_down_serves_once_it_is_brought_up_and_keeps_what_it_is_over_a_reload() {
    let mut terms = with(Balance::Order, &[], &MACHINES[..2]);
    terms.peers[0].pool.as_mut().unwrap().machines[0].begins_down = true;
    let mut rig = Rig::new(terms.clone());
    assert_eq!(place(&mut rig, 1, "alice").to.ip().to_string(), "10.0.0.2");
    let state = std::sync::Arc::clone(&rig.pools()[0].1.table("").unwrap().gateways[0].state);
    state.switch(false);
    state.switch(true);
    assert_eq!(place(&mut rig, 2, "alice").to.ip().to_string(), "10.0.0.1");
    rig.reload(terms).unwrap();
    assert_eq!(place(&mut rig, 3, "alice").to.ip().to_string(), "10.0.0.1");
}
