//! Numbers at the border, on simulated time: those of a peer made ours, ours made a gateway's, and answers as the caller knows them.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;
use std::sync::Arc;

use edge::{
    GatewayNumberSettings, NumberField, NumberRuleSettings, NumberScheme, NumberSetSettings, NumberUseSettings, PeerKind, PolicySettings, RouteSettings,
    Routing,
};
use routing::{Builder, LoadOptions};
use serde_json::json;
use testkit::{Request, Rig, Sent, header, packed, peer, response, route, settings};

const CORE: &str = "10.0.0.1:5060";
const GATEWAY: &str = "203.0.113.1:5060";
const ALL: [NumberField; 4] = [NumberField::RequestUri, NumberField::From, NumberField::PAssertedIdentity, NumberField::Diversion];

fn prefix(prefix: &str, strip: u8, add: &str) -> NumberRuleSettings {
    NumberRuleSettings { prefix: Some(prefix.to_owned()), pattern: None, strip, add: add.to_owned(), replace: None }
}

fn set(name: &str, rules: Vec<NumberRuleSettings>) -> NumberSetSettings {
    NumberSetSettings { name: name.to_owned(), rules, dialplan: None, refuse: None }
}

fn used(set: &str, scheme: NumberScheme) -> Option<NumberUseSettings> {
    Some(NumberUseSettings { set: set.to_owned(), fields: ALL.to_vec(), scheme })
}

/// The core dials as in Germany and gets national numbers; gateways get E.164.
fn terms() -> RouteSettings {
    let mut core = peer("core", PeerKind::Core, "10.0.0.0/24", &["sip:10.0.0.1"]);
    core.route = "pstn".to_owned();
    core.numbers_in = used("german", NumberScheme::Keep);
    core.numbers_out = used("national", NumberScheme::Keep);
    let mut pstn = peer("pstn", PeerKind::Gateway, "203.0.113.0/24", &["sip:10.0.0.1"]);
    pstn.gateway_types = vec![-1];
    let mut terms = settings(vec![core, pstn]);
    terms.routes = vec![route("pstn")];
    terms.number_sets = vec![
        set("german", vec![prefix("+", 0, ""), prefix("00", 2, "+"), prefix("0", 1, "+49")]),
        set("national", vec![prefix("+49", 3, "0"), prefix("+", 1, "00")]),
        NumberSetSettings {
            rules: vec![NumberRuleSettings {
                prefix: None,
                pattern: Some("^\\+1([0-9]{3})([0-9]+)$".to_owned()),
                strip: 0,
                add: String::new(),
                replace: Some("011-\\1-\\2".to_owned()),
            }],
            ..set("american", Vec::new())
        },
    ];
    terms
}

fn rig_with(terms: RouteSettings) -> Rig {
    let mut rig = Rig::new(terms);
    let mut builder = Builder::new(LoadOptions::default(), None);
    builder.gateways(b"a\x1f0\x1f203.0.113.1\x1f0\x1f\x1f\x1f0\x1f0\x1f\x1f\x1f\x1eb\x1f0\x1f203.0.113.2\x1f0\x1f\x1f\x1f0\x1f0\x1f\x1f\x1f\x1e");
    builder.dialplan(b"1\x1f7\x1f1\x1f1\x1f^9(.*)$\x1f0\x1f\x1f+888\\1\x1f\x1f0\x1e");
    builder.rules(b"1\x1f0\x1f\x1f\x1f0\x1f\x1fa,b\x1f\x1f\x1f\x1e");
    let loaded = builder.finish();
    assert_eq!(loaded.faults, []);
    rig.set_routing(Routing::new(vec![(String::new(), Arc::new(loaded.table))], &HashMap::new(), None));
    rig
}

fn invite(uri: &str) -> Request {
    Request::new("INVITE", uri).header("P-Asserted-Identity: <sip:030111@core>, <tel:0049-40-222>")
}

fn with_from(uri: &str, from: &str) -> String {
    invite(uri).text().replace("From: <sip:alice@example.net>", &format!("From: {from}"))
}

fn call(rig: &mut Rig, from: &str, text: &str) -> Sent {
    rig.receive(from, text).into_iter().find(|sent| sent.first_line().starts_with("INVITE")).unwrap()
}

#[test]
fn numbers_become_ours_in_all_places_and_answers_have_the_callers_own() {
    let mut rig = rig_with(terms());
    let sent = call(&mut rig, CORE, &with_from("sip:030-123;x=y:pw@edge;user=phone", "\"Al\" <sip:040999@core;user=phone>"));
    assert_eq!(sent.first_line(), "INVITE sip:4930123;x=y@203.0.113.1;user=phone SIP/2.0");
    assert_eq!(header(&sent.text, "From"), "\"Al\" <sip:+4940999@core;user=phone>;tag=alice");
    assert_eq!(header(&sent.text, "P-Asserted-Identity"), "<sip:+4930111@core>, <tel:+4940222>");
    for code in [180, 486] {
        let sent = rig.receive(GATEWAY, &response(&sent.text, code, "b"));
        let answer = sent.iter().find(|sent| sent.status_code() == code).unwrap();
        assert_eq!(header(&answer.text, "From"), "\"Al\" <sip:040999@core;user=phone>;tag=alice");
    }
    assert_eq!(rig.counters().numbers_changed.get(), 1);
    // The ACK for a refusal goes hop by hop with what that hop was told.
    let again = rig.receive(GATEWAY, &response(&sent.text, 486, "b"));
    assert!(again[0].first_line().starts_with("ACK") && header(&again[0].text, "From").contains("+4940999"));
}

#[test]
fn a_local_answer_and_a_100_name_the_caller_as_it_named_itself() {
    let mut rig = rig_with(terms());
    rig.set_routing(Routing::new(vec![(String::new(), Arc::new(Builder::new(LoadOptions::default(), None).finish().table))], &HashMap::new(), None));
    let sent = rig.receive(CORE, &with_from("sip:030123@edge", "sip:040999@core"));
    assert_eq!(sent.last().unwrap().status_code(), 404);
    assert!(sent.iter().all(|sent| header(&sent.text, "From").starts_with("sip:040999@core;tag=")));
    let mut rig = rig_with(terms());
    let sent = rig.receive(CORE, &with_from("sip:030123@edge", "sip:040999@core"));
    assert_eq!(sent.iter().filter(|sent| sent.status_code() == 100).map(|sent| header(&sent.text, "From")).collect::<Vec<_>>(), ["sip:040999@core;tag=alice"]);
    // A bare URI gets brackets where it is changed.
    assert!(sent.iter().any(|sent| sent.status_code() == 0 && header(&sent.text, "From") == "<sip:+4940999@core>;tag=alice"));
}

#[test]
fn what_goes_to_a_peer_has_its_form_and_a_gateways_own_comes_first() {
    let mut terms = terms();
    terms.peers[1].numbers_out = used("national", NumberScheme::Keep);
    terms.gateway_numbers = vec![GatewayNumberSettings { name: "b".to_owned(), numbers_in: None, numbers_out: used("american", NumberScheme::Tel) }];
    let mut rig = rig_with(terms);
    let first = call(&mut rig, CORE, &with_from("sip:0012125551@edge", "<sip:+4940999@core>"));
    assert_eq!(first.first_line(), "INVITE sip:0012125551@203.0.113.1 SIP/2.0");
    assert_eq!(header(&first.text, "From"), "<sip:040999@core>;tag=alice");
    let second = rig.receive(GATEWAY, &response(&first.text, 503, "b")).into_iter().find(|sent| sent.first_line().starts_with("INVITE")).unwrap();
    // Each attempt starts from the request as it came in; a tel: URI needs a global number.
    assert_eq!((second.to.ip().to_string(), header(&second.text, "From")), ("203.0.113.2".to_owned(), "<tel:+4940999>;tag=alice"));
    let answer = rig.receive("203.0.113.2:5060", &response(&second.text, 486, "b")).into_iter().find(|sent| sent.status_code() == 486).unwrap();
    assert_eq!(header(&answer.text, "From"), "<sip:+4940999@core>;tag=alice");
    // Inbound: the core gets national numbers, by pattern for what the gateway sends.
    let inbound = call(
        &mut rig,
        GATEWAY,
        &invite("sip:+4930123@edge").call_id("in").branch("z9hG4bK-in").text().replace("From: <sip:alice@example.net>", "From: <tel:+12125551>"),
    );
    assert_eq!(
        (inbound.first_line(), header(&inbound.text, "From")),
        ("INVITE sip:030123@edge SIP/2.0", "<sip:0012125551@192.0.2.1:5060;user=phone>;tag=alice")
    );
}

#[test]
fn a_number_without_a_rule_stays_or_is_refused_and_dial_plans_come_behind_the_file() {
    let mut terms = terms();
    terms.number_sets[0].dialplan = Some(7);
    let mut rig = rig_with(terms.clone());
    let uri = |rig: &mut Rig, user: &str, number: u32| {
        let text = with_from(&format!("sip:{user}@edge"), "<sip:0@x>")
            .replace("z9hG4bK", &format!("z9hG4bK{number}"))
            .replace("Call-ID: ", &format!("Call-ID: {number}"));
        let sent = rig.receive(CORE, &text).pop().unwrap();
        sent.first_line().to_owned()
    };
    assert_eq!(uri(&mut rig, "912", 1), "INVITE sip:88812@203.0.113.1 SIP/2.0");
    assert_eq!(uri(&mut rig, "1x2", 2), "INVITE sip:1x2@203.0.113.1 SIP/2.0");
    terms.number_sets[0].refuse = Some((484, "Dial Again".to_owned()));
    rig.reload(terms).unwrap();
    assert_eq!(uri(&mut rig, "1x2", 3), "SIP/2.0 484 Dial Again");
    assert_eq!(uri(&mut rig, "912", 4), "INVITE sip:88812@203.0.113.1 SIP/2.0");
    assert_eq!(rig.counters().numbers_refused.get(), 1);
    assert_eq!(rig.records.last().map(|record| record.refused_by), Some("numbers"));
}

#[test]
fn a_policy_gives_from_another_name_and_the_caller_never_hears_of_it() {
    let mut terms = terms();
    terms.policies =
        vec![PolicySettings { hook: "request".to_owned(), methods: Vec::new(), peers: Vec::new(), deadline_milliseconds: 1_000, status_code: 500 }];
    let mut rig = rig_with(terms);
    rig.edge.set_policy_links(vec![1]);
    rig.receive(CORE, &with_from("sip:030123@edge", "\"x\" <sip:040999@core>"));
    let question = rig.policy.pop().unwrap();
    // It sees numbers as they are within.
    assert!(String::from_utf8_lossy(&question.bytes).contains("sip:+4930123@edge"));
    let edits = json!([{"action": "from", "name": "", "value": "\"Doe, J\" <sip:+4940999@core>"}]);
    let sent = rig.verdict(&question, &packed(&json!({"kind": "continue", "edits": edits, "routing_number": "5"})));
    let sent = sent.into_iter().find(|sent| sent.first_line().starts_with("INVITE")).unwrap();
    assert_eq!((sent.first_line(), header(&sent.text, "From")), ("INVITE sip:4930123@203.0.113.1 SIP/2.0", "\"Doe, J\" <sip:+4940999@core>;tag=alice"));
    let answer = rig.receive(GATEWAY, &response(&sent.text, 603, "b")).into_iter().find(|sent| sent.status_code() == 603).unwrap();
    assert_eq!(header(&answer.text, "From"), "\"x\" <sip:040999@core>;tag=alice");
}

#[test]
fn a_request_that_comes_back_as_it_came_is_a_loop_though_numbers_were_changed_twice() {
    let mut terms = terms();
    terms.number_sets[0].rules.remove(0);
    terms.peers[1].numbers_out = used("national", NumberScheme::Keep);
    terms.peers[1].numbers_in = used("german", NumberScheme::Keep);
    terms.peers[1].allow_routes = true;
    terms.peers[1].route = "pstn".to_owned();
    let mut rig = rig_with(terms);
    let sent = call(&mut rig, CORE, &with_from("sip:0012125551@edge", "<sip:040999@core>").replace("@edge", "@203.0.113.1"));
    // It has our caller's form again: the far end sends it back as we were asked for it.
    assert_eq!(sent.first_line(), "INVITE sip:0012125551@203.0.113.1 SIP/2.0");
    let answer = rig.receive(GATEWAY, &sent.text).pop().unwrap();
    assert_eq!(answer.status_code(), 482, "{}", answer.text);
}

#[test]
fn a_tel_uri_that_could_not_say_a_number_becomes_a_sip_uri() {
    let mut rig = rig_with(terms());
    for (number, (from, wanted)) in [
        // A local number needs its context (RFC 3966 section 5.1.5): where it has one, it stays.
        ("<tel:+4930123>", "<sip:030123@192.0.2.1:5060;user=phone>;tag=alice"),
        ("<tel:+4930123;isub=1>", "<sip:030123;isub=1@192.0.2.1:5060;user=phone>;tag=alice"),
        ("<tel:+12125551;phone-context=+49>", "<tel:0012125551;phone-context=+49>;tag=alice"),
        // What no rule changes is left as it is.
        ("<tel:7>", "<tel:7>;tag=alice"),
    ]
    .into_iter()
    .enumerate()
    {
        let text = invite("sip:+4930123@edge").call_id(&number.to_string()).branch(&format!("z9hG4bK-{number}")).text();
        let sent = call(&mut rig, GATEWAY, &text.replace("From: <sip:alice@example.net>", &format!("From: {from}")));
        assert_eq!(header(&sent.text, "From"), wanted, "{from}");
    }
    let mut settings = terms();
    settings.peers[1].numbers_out = used("american", NumberScheme::Tel);
    let mut rig = rig_with(settings);
    let sent = call(&mut rig, CORE, &with_from("sip:030123@edge", "<tel:+12125551>"));
    assert_eq!(header(&sent.text, "From"), "<sip:011-212-5551@192.0.2.1:5060;user=phone>;tag=alice");
}

#[test]
fn a_gateway_translates_the_number_of_the_world_that_rules_know_without_its_plus() {
    for (set_name, scheme, strip, wanted) in [
        ("national", NumberScheme::Keep, "", "INVITE sip:030123@203.0.113.1 SIP/2.0"),
        ("german", NumberScheme::Keep, "", "INVITE sip:+4930123@203.0.113.1 SIP/2.0"),
        ("american", NumberScheme::Keep, "", "INVITE sip:4930123@203.0.113.1 SIP/2.0"),
        ("american", NumberScheme::Tel, "", "INVITE tel:+4930123 SIP/2.0"),
        // What a gateway strips and puts in front is no number of the world any more.
        ("national", NumberScheme::Keep, "2", "INVITE sip:30123@203.0.113.1 SIP/2.0"),
    ] {
        let mut settings = terms();
        settings.gateway_numbers = vec![GatewayNumberSettings { name: "a".to_owned(), numbers_in: None, numbers_out: used(set_name, scheme) }];
        let mut rig = rig_with(settings);
        let mut builder = Builder::new(LoadOptions::default(), None);
        builder.gateways(format!("a\x1f0\x1f203.0.113.1\x1f{strip}\x1f\x1f\x1f0\x1f0\x1f\x1f\x1f\x1e").as_bytes());
        builder.rules(b"1\x1f0\x1f49\x1f\x1f0\x1f\x1fa\x1f\x1f\x1f\x1e");
        rig.set_routing(Routing::new(vec![(String::new(), Arc::new(builder.finish().table))], &HashMap::new(), None));
        assert_eq!(call(&mut rig, CORE, &with_from("sip:030123@edge", "<sip:0@x>")).first_line(), wanted, "{set_name} {scheme:?} {strip}");
    }
}

#[test]
fn a_uri_without_a_number_gets_none() {
    for (uri, numbers_in) in [("sip:00@edge", true), ("sip:+@edge", true), ("sip:+@edge", false)] {
        let mut settings = terms();
        settings.gateway_numbers = vec![GatewayNumberSettings { name: "a".to_owned(), numbers_in: None, numbers_out: used("national", NumberScheme::Keep) }];
        if !numbers_in {
            settings.peers[0].numbers_in = None;
        }
        let mut rig = rig_with(settings);
        assert_eq!(call(&mut rig, CORE, &with_from(uri, "<sip:0@x>")).first_line(), "INVITE sip:203.0.113.1 SIP/2.0", "{uri}");
    }
}

#[test]
fn a_rule_that_would_leave_nothing_of_a_number_is_not_for_it() {
    let mut settings = terms();
    settings.number_sets[0].rules = vec![prefix("0", 4, "")];
    settings.number_sets[0].refuse = Some((484, String::new()));
    let mut rig = rig_with(settings.clone());
    for (number, (user, wanted)) in
        [("0123", "SIP/2.0 484 Address Incomplete"), ("012", "SIP/2.0 484 Address Incomplete"), ("01234", "INVITE sip:4@203.0.113.1 SIP/2.0")]
            .into_iter()
            .enumerate()
    {
        let text = invite(&format!("sip:{user}@edge")).call_id(&number.to_string()).branch(&format!("z9hG4bK-{number}")).text();
        assert_eq!(rig.receive(CORE, &text).pop().unwrap().first_line(), wanted, "{user}");
    }
    settings.number_sets[2].rules[0].replace = Some("\\1\\3".to_owned());
    assert!(rig.reload(settings).unwrap_err().to_string().contains("numbers.american.rules.0: not a rule: \\1\\3, whose pattern has no group 3"));
}

#[test]
fn identities_are_of_this_network_a_number_of_the_world_has_no_place_and_long_lists_are_left() {
    let mut terms = terms();
    terms.peers[1].numbers_out = used("out", NumberScheme::Sip);
    terms.number_sets.push(set("out", vec![prefix("", 0, "")]));
    let mut rig = rig_with(terms);
    let many: String = (1..13).map(|number| format!("Diversion: <tel:0{number}>\r\n")).collect();
    let text = with_from("sip:030123@edge", "<tel:040999;phone-context=+49;ext=7>").replace("Content-Length", &format!("{many}Content-Length"));
    let sent = call(&mut rig, CORE, &text);
    assert_eq!(header(&sent.text, "From"), "<sip:+4940999;ext=7@192.0.2.1:5060;user=phone>;tag=alice");
    assert_eq!(sent.text.matches("Diversion: <sip:+49").count(), 8);
    assert_eq!(sent.text.matches("Diversion: <tel:0").count(), 4);
}

#[test]
fn sets_that_nobody_has_are_refused() {
    let mut terms = terms();
    terms.peers[0].numbers_in = used("nobody", NumberScheme::Keep);
    assert!(edge::Snapshot::build(terms.clone()).is_err());
    terms.peers[0].numbers_in = None;
    terms.number_sets[2].rules[0].pattern = Some("(".to_owned());
    assert!(edge::Snapshot::build(terms).is_err());
}
