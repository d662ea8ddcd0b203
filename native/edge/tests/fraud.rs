//! Fraud on simulated time: who is watched, what is told once, and what is done about it.

use edge::{CredentialAnswer, Event, EventValue, FraudActions, FraudRuleSettings, FraudSettings, PeerKind, RouteSettings};
use testkit::{Request, Rig, Sent, answer, fraud, header, headers, peer, registrar, response, settings};

const PHONE: &str = "198.51.100.7:5060";
const CORE: &str = "192.0.2.200:5060";
const EVENTS: [&str; 4] = ["E_FRD_WARNING", "E_FRD_CRITICAL", "E_FRD_BARRED", "E_FRD_UNBARRED"];

fn watched(change: impl Fn(&mut FraudSettings)) -> RouteSettings {
    let mut settings =
        settings(vec![peer("core", PeerKind::Core, "192.0.2.200", &["sip:192.0.2.200"]), peer("phones", PeerKind::Subscribers, "198.51.100.0/24", &[])]);
    let mut fraud = fraud();
    change(&mut fraud);
    settings.fraud = Some(fraud);
    settings
}

fn invite(number: &str, id: &str) -> Request {
    Request::new("INVITE", &format!("sip:{number}@example.net")).branch(&format!("z9hG4bK{id}")).call_id(id)
}

fn call(rig: &mut Rig, number: &str, id: &str) -> Vec<Sent> {
    rig.receive(PHONE, &invite(number, id).text())
}

fn forwarded(sent: &[Sent]) -> Option<String> {
    sent.iter().find(|sent| sent.to.to_string() == CORE && sent.first_line().starts_with("INVITE")).map(|sent| sent.text.clone())
}

fn told(events: &[Event]) -> Vec<(&'static str, EventValue)> {
    events.iter().map(|event| (event.kind.shape().0, event.values[0].clone())).collect()
}

#[test]
fn a_crossing_is_told_once_with_what_operators_know_it_by() {
    let mut rig = Rig::new(watched(|_| {}));
    rig.listen(&EVENTS);
    for number in 0..6 {
        assert!(forwarded(&call(&mut rig, &format!("+9001{number}"), &format!("c{number}"))).is_some(), "only told");
    }
    assert!(forwarded(&call(&mut rig, "4930", "other")).is_some());
    let events = rig.take_events();
    assert_eq!(told(&events), [("E_FRD_WARNING", EventValue::from("total-calls")), ("E_FRD_CRITICAL", EventValue::from("total-calls"))]);
    let numbers = |numbers: [u64; 2]| numbers.map(EventValue::from);
    let texts = ["alice@example.net", "+90012"].map(EventValue::from);
    assert_eq!(events[0].values[1..], [numbers([3, 3]), texts, numbers([7, 1])].concat());
    assert_eq!((rig.counters().fraud_warnings.get(), rig.counters().fraud_criticals.get()), (1, 1));
    // A new day.
    rig.advance(86_400_000);
    for number in 0..4 {
        call(&mut rig, "9009", &format!("d{number}"));
    }
    assert_eq!(rig.take_events().len(), 2);
}

#[test]
fn refusals_hold_as_long_as_the_figure_and_do_not_count() {
    let mut rig = Rig::new(watched(|fraud| {
        fraud.critical.refuse = true;
        fraud.reason_phrase = "Call Barred".to_owned();
    }));
    rig.listen(&EVENTS);
    for number in 0..3 {
        assert!(forwarded(&call(&mut rig, "9001", &format!("a{number}"))).is_some());
    }
    for number in 0..5 {
        let refused = call(&mut rig, "9002", &format!("r{number}"));
        assert_eq!(refused[0].status_code(), 403, "{number}");
        assert!(refused[0].first_line().ends_with("Call Barred"));
    }
    assert_eq!(rig.records.last().map(|record| record.refused_by), Some("admit"));
    assert_eq!(rig.snapshot().fraud_stats(None, 0, 1)[0].total_calls, 3);
    assert_eq!(told(&rig.take_events()).len(), 2);
    assert!(forwarded(&call(&mut rig, "4930", "elsewhere")).is_some(), "other prefixes are free");
    rig.reload(watched(|fraud| fraud.critical.refuse = true)).unwrap();
    assert_eq!(call(&mut rig, "9001", "after")[0].status_code(), 403, "a reload forgets nothing");
}

#[test]
fn what_somebody_else_refuses_counts_only_where_that_is_wished() {
    for (counts_refused, wanted) in [(false, 0), (true, 1)] {
        let mut settings = watched(|fraud| fraud.counts_refused = counts_refused);
        settings.peers[0].to.clear();
        let mut rig = Rig::new(settings);
        assert_eq!(call(&mut rig, "9001", "a")[0].status_code(), 404);
        assert_eq!(rig.snapshot().fraud_stats(None, 0, 1)[0].total_calls, wanted);
    }
}

#[test]
fn a_call_that_lasts_too_long_is_told_while_it_lasts_and_ended() {
    let mut rig = Rig::new(watched(|fraud| fraud.critical = FraudActions { refuse: false, end: true, bar: false }));
    rig.listen(&EVENTS);
    let invite = Request::new("INVITE", "sip:9001@example.net").branch("z9hG4bKl").call_id("long").header("Contact: <sip:alice@198.51.100.7>").text();
    let sent = forwarded(&rig.receive(PHONE, &invite)).unwrap();
    rig.advance(3_000);
    rig.receive(CORE, &response(&sent, 200, "t").replace("Content-Length", "Contact: <sip:9001@192.0.2.200>\r\nContent-Length"));
    let tick = |rig: &mut Rig, by: u64| {
        let mut sent = rig.advance(by);
        sent.append(&mut rig.tidy());
        sent
    };
    tick(&mut rig, 59_000);
    assert!(rig.take_events().is_empty());
    tick(&mut rig, 1_000);
    let events = rig.take_events();
    assert_eq!((told(&events), events[0].values[1].clone()), (vec![("E_FRD_WARNING", EventValue::from("call-duration"))], EventValue::from(60_u64)));
    let sent = tick(&mut rig, 60_000);
    assert_eq!(told(&rig.take_events()), [("E_FRD_CRITICAL", EventValue::from("call-duration"))]);
    assert_eq!(sent.iter().filter(|sent| sent.first_line().starts_with("BYE")).count(), 2, "{sent:?}");
    assert!(sent.iter().any(|sent| header(&sent.text, "Reason").contains("Fraud")));
    // One that was never answered has no duration.
    call(&mut rig, "9002", "silent");
    tick(&mut rig, 400_000);
    assert!(rig.take_events().is_empty());
}

#[test]
fn an_account_is_barred_for_a_while_and_by_a_restart_too() {
    let barring = || watched(|fraud| fraud.critical.bar = true);
    let mut rig = Rig::new(barring());
    rig.listen(&EVENTS);
    (0..4).for_each(|number| drop(call(&mut rig, "9001", &format!("a{number}"))));
    assert_eq!(told(&rig.take_events()).last(), Some(&("E_FRD_BARRED", EventValue::from("alice@example.net"))));
    assert_eq!(call(&mut rig, "4930", "b")[0].status_code(), 403, "whomever it calls");
    assert!(forwarded(&call(&mut rig, "112", "help")).is_some(), "but for help");
    assert!(forwarded(&rig.receive(PHONE, &invite("4930", "bob").text().replace("<sip:alice@", "<sip:bob@"))).is_some());
    let kept = rig.snapshot().fraud_kept(rig.now());
    let mut next = Rig::new(barring());
    assert!(next.snapshot().restore_fraud(&kept, next.now(), 100) && !next.snapshot().restore_fraud(b"x", next.now(), 0));
    assert_eq!(next.snapshot().barred(next.now().wall / 1_000_000), [("alice@example.net".to_owned(), 500)]);
    assert_eq!(call(&mut next, "4930", "c")[0].status_code(), 403);
    assert!(next.snapshot().unbar("alice@example.net") && !next.snapshot().unbar("alice@example.net"));
    assert!(forwarded(&call(&mut next, "4930", "d")).is_some());
    assert_eq!(next.snapshot().fraud_stats(Some("alice@example.net"), next.now().moment.0, 9)[0].total_calls, 3);
    rig.advance(600_000);
    rig.tidy();
    assert!(forwarded(&call(&mut rig, "4930", "e")).is_some());
    // One whose time was over while nobody looked leaves nobody free who goes on beyond the threshold.
    let mut later = Rig::new(barring());
    assert!(later.snapshot().restore_fraud(&kept, later.now(), 700));
    assert_eq!(later.snapshot().barred(later.now().wall / 1_000_000), []);
    later.listen(&EVENTS);
    call(&mut later, "9001", "f");
    assert_eq!(told(&later.take_events()).last(), Some(&("E_FRD_BARRED", EventValue::from("alice@example.net"))));
}

#[test]
fn a_reload_that_leaves_fraud_out_for_a_moment_lets_nobody_go() {
    let mut rig = Rig::new(watched(|fraud| fraud.critical.bar = true));
    (0..8).for_each(|number| drop(call(&mut rig, "9001", &format!("a{number}"))));
    let mut without = watched(|_| {});
    without.fraud = None;
    rig.reload(without).unwrap();
    assert!(forwarded(&call(&mut rig, "9001", "free")).is_some(), "nobody is watched");
    rig.reload(watched(|fraud| fraud.critical.bar = true)).unwrap();
    assert!(forwarded(&call(&mut rig, "4930", "barred")).is_none());
    assert!(rig.snapshot().unbar("alice@example.net"));
}

#[test]
fn what_each_call_tells_bars_nobody_whom_an_operator_let_call() {
    let mut rig = Rig::new(watched(|fraud| (fraud.each_call, fraud.critical.bar) = (true, true)));
    rig.listen(&EVENTS);
    (0..8).for_each(|number| drop(call(&mut rig, "9001", &format!("a{number}"))));
    assert!(rig.snapshot().unbar("alice@example.net"));
    rig.take_events();
    assert!(forwarded(&call(&mut rig, "9001", "let")).is_some());
    let told: Vec<_> = rig.take_events().iter().map(|event| event.kind.shape().0).collect();
    assert!(told.contains(&"E_FRD_CRITICAL") && !told.contains(&"E_FRD_BARRED"), "{told:?}");
}

#[test]
fn a_bar_that_was_ended_is_over_and_a_warning_that_refuses_goes_on_refusing() {
    let mut rig = Rig::new(watched(|fraud| fraud.critical.bar = true));
    (0..4).for_each(|number| drop(call(&mut rig, "9001", &format!("a{number}"))));
    assert!(rig.snapshot().unbar("alice@example.net"));
    assert!(forwarded(&call(&mut rig, "9001", "b")).is_some(), "an operator has said so");
    // Another size of the table forgets neither figures nor bars.
    let mut rig = Rig::new(watched(|fraud| fraud.warning.refuse = true));
    (0..2).for_each(|number| drop(call(&mut rig, "9001", &format!("c{number}"))));
    rig.reload(watched(|fraud| {
        fraud.warning.refuse = true;
        fraud.keys = 10;
    }))
    .unwrap();
    for number in 0..4 {
        assert_eq!(call(&mut rig, "9001", &format!("d{number}"))[0].status_code(), 403);
    }
}

#[test]
fn whoever_goes_on_after_a_bar_is_told_and_barred_again_at_once() {
    let mut rig = Rig::new(watched(|fraud| fraud.critical.bar = true));
    rig.listen(&EVENTS);
    (0..4).for_each(|number| drop(call(&mut rig, "9001", &format!("a{number}"))));
    for round in 0..3 {
        rig.advance(599_000);
        rig.tidy();
        assert_eq!(call(&mut rig, "9001", &format!("b{round}"))[0].status_code(), 403);
        rig.take_events();
        rig.advance(1_000);
        rig.tidy();
        assert_eq!(told(&rig.take_events()), [("E_FRD_UNBARRED", EventValue::from("alice@example.net"))], "in the second in which it ends");
        assert_eq!(call(&mut rig, "9001", &format!("c{round}"))[0].status_code(), 403);
        let again = [("E_FRD_CRITICAL", EventValue::from("total-calls")), ("E_FRD_BARRED", EventValue::from("alice@example.net"))];
        assert_eq!(told(&rig.take_events()), again);
    }
    assert_eq!(rig.snapshot().fraud_stats(None, 0, 1)[0].total_calls, 3, "none of the refused ones counts");
    // The same where another node barred it, unless an operator has ended that.
    let mut rig = Rig::new(watched(|fraud| fraud.critical.bar = true));
    rig.listen(&EVENTS);
    (0..4).for_each(|number| drop(call(&mut rig, "9001", &format!("d{number}"))));
    assert!(rig.snapshot().unbar("alice@example.net"));
    let barred_there = |rig: &Rig| rig.snapshot().hear_fraud(Vec::new(), vec!["alice@example.net".to_owned()]);
    let over_there = |rig: &Rig| rig.snapshot().hear_fraud(Vec::new(), Vec::new());
    barred_there(&rig);
    rig.snapshot().unbar("alice@example.net");
    over_there(&rig);
    assert!(forwarded(&call(&mut rig, "9001", "e")).is_some(), "an operator has said so");
    barred_there(&rig);
    over_there(&rig);
    assert_eq!(call(&mut rig, "9001", "f")[0].status_code(), 403);
}

#[test]
fn refused_calls_of_other_numbers_make_no_news_of_a_row_and_a_plus_makes_no_other_number() {
    let mut rig = Rig::new(watched(|fraud| {
        fraud.rules[0].thresholds = [[0, 4], [0, 0], [0, 0], [3, 0], [0, 0]];
        fraud.critical.refuse = true;
    }));
    rig.listen(&EVENTS);
    for (place, number) in ["900223", "+900223", "900-223;x=y"].into_iter().enumerate() {
        assert!(forwarded(&call(&mut rig, number, &format!("a{place}"))).is_some());
    }
    assert_eq!(told(&rig.take_events()), [("E_FRD_WARNING", EventValue::from("sequential-calls"))]);
    for round in 0..4 {
        assert_eq!(call(&mut rig, "900999", &format!("b{round}"))[0].status_code(), 403);
        assert_eq!(call(&mut rig, "900223", &format!("c{round}"))[0].status_code(), 403);
    }
    assert_eq!(told(&rig.take_events()), [("E_FRD_CRITICAL", EventValue::from("calls-per-minute"))]);
}

#[test]
fn a_shadow_tells_all_and_does_nothing() {
    let mut rig = Rig::new(watched(|fraud| {
        fraud.shadow = true;
        fraud.critical = FraudActions { refuse: true, end: true, bar: true };
        fraud.calls_per_second = [2, 0];
    }));
    rig.listen(&EVENTS);
    for number in 0..5 {
        assert!(forwarded(&call(&mut rig, "9001", &format!("a{number}"))).is_some());
    }
    let events = told(&rig.take_events());
    assert_eq!(events.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["E_FRD_WARNING", "E_FRD_WARNING", "E_FRD_CRITICAL"]);
    assert_eq!(events[0].1, EventValue::from("calls-per-second"));
}

#[test]
fn the_profile_is_the_accounts_then_the_peers_then_the_default() {
    let mut settings = watched(|fraud| {
        fraud.profile = 0;
        let rule = fraud.rules[0].clone();
        fraud.rules.extend([2, 3].map(|profile| FraudRuleSettings { id: profile, profile, prefix: String::new(), ..rule.clone() }));
    });
    let mut rig = Rig::new(settings.clone());
    call(&mut rig, "9001", "a");
    assert!(rig.snapshot().fraud_stats(None, 0, 9).is_empty(), "nobody has a profile");
    settings.peers[1].fraud_profile = 2;
    rig.reload(settings.clone()).unwrap();
    call(&mut rig, "9001", "b");
    assert_eq!(rig.snapshot().fraud_stats(None, 0, 9)[0].profile, 2);
    settings.registrar = Some(registrar("example.net"));
    settings.peers[1].authenticate = true;
    rig.reload(settings).unwrap();
    let challenge = call(&mut rig, "9001", "c")[0].text.clone();
    let line = answer(headers(&challenge, "Proxy-Authenticate")[0], "INVITE", "sip:9001@example.net", "alice", "secret", 1);
    let mut sent = rig.receive(PHONE, &invite("9001", "d").header(&format!("Proxy-Authorization: {line}")).text());
    let attributes = vec![("fraud_profile".to_owned(), "3".to_owned())];
    sent.append(&mut rig.credentials(&CredentialAnswer::Found("secret".to_owned(), Default::default(), attributes)));
    assert!(forwarded(&sent).is_some(), "{sent:?}");
    assert!(rig.snapshot().fraud_stats(Some("alice@example.net"), 0, 9).iter().any(|stats| stats.profile == 3));
}
