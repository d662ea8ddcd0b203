//! Limits by key on simulated time: exact through failures, cancels, lost BYEs and reloads.

use edge::{Counts, EventValue, KeyLimitSettings, PeerKind, RouteSettings};
use testkit::{Request, Rig, Sent, header, headers, peer, response, settings};

const PHONE: &str = "198.51.100.7:5060";
const CORE: &str = "192.0.2.200:5060";

fn limit(name: &str, counts: Counts, key: &str, most: u32) -> KeyLimitSettings {
    KeyLimitSettings {
        peers: vec!["phones".to_owned()],
        reason_phrase: "Too Many Calls".to_owned(),
        retry_after_seconds: 30,
        ..testkit::limit(name, counts, key, most)
    }
}

fn limited(limits: Vec<KeyLimitSettings>) -> RouteSettings {
    let mut settings =
        settings(vec![peer("core", PeerKind::Core, "192.0.2.200", &["sip:192.0.2.200"]), peer("phones", PeerKind::Subscribers, "198.51.100.0/24", &[])]);
    settings.key_limits = limits;
    settings
}

fn invite(id: &str) -> Request {
    Request::new("INVITE", "sip:+49301@example.net").branch(&format!("z9hG4bK{id}")).call_id(id)
}

fn call(rig: &mut Rig, id: &str) -> Vec<Sent> {
    rig.receive(PHONE, &invite(id).text())
}

fn passed(sent: &[Sent]) -> bool {
    sent.iter().any(|sent| sent.to.to_string() == CORE && sent.first_line().starts_with("INVITE"))
}

fn forwarded(sent: &[Sent]) -> String {
    sent.iter().find(|sent| sent.to.to_string() == CORE).map(|sent| sent.text.clone()).unwrap_or_default()
}

#[test]
fn a_key_never_has_more_calls_and_gets_each_place_back() {
    let mut rig = Rig::new(limited(vec![limit("accounts", Counts::Calls, "{caller}", 2)]));
    rig.listen(&["E_LIMIT_REACHED", "E_LIMIT_CLEARED"]);
    let failing = forwarded(&call(&mut rig, "a"));
    let answered = forwarded(&call(&mut rig, "b"));
    let refused = call(&mut rig, "c");
    assert_eq!((refused.len(), refused[0].status_code()), (1, 486), "{refused:?}");
    assert!(refused[0].first_line().ends_with("Too Many Calls") && header(&refused[0].text, "Retry-After") == "30");
    assert_eq!(rig.records.last().map(|record| (record.refused_by, record.status_code)), Some(("admit", 486)));
    call(&mut rig, "d");
    let told = rig.take_events();
    assert_eq!(told.len(), 1, "once for a crossing: {told:?}");
    assert_eq!(told[0].values[..2], [EventValue::from("accounts"), EventValue::from("alice@example.net")]);
    // Another key is another matter.
    assert!(passed(&rig.receive(PHONE, &invite("e").text().replace("<sip:alice@", "<sip:bob@"))));
    // One fails, one is cancelled, one is answered and its BYE is lost.
    rig.receive(CORE, &response(&failing, 603, "f"));
    let ringing = call(&mut rig, "f");
    assert!(passed(&ringing));
    rig.receive(CORE, &response(&forwarded(&ringing), 180, "r"));
    rig.receive(PHONE, &invite("f").text().replace("INVITE", "CANCEL"));
    rig.receive(CORE, &response(&forwarded(&ringing), 487, "r"));
    assert!(passed(&call(&mut rig, "g")));
    assert!(!passed(&call(&mut rig, "h")));
    rig.receive(CORE, &response(&answered, 200, "s"));
    rig.receive(CORE, &response(&answered, 200, "s"));
    // Nobody answers our BYE either.
    rig.advance(3_601_000 + 33_000);
    rig.tidy();
    assert!(passed(&call(&mut rig, "i")) && passed(&call(&mut rig, "j")) && !passed(&call(&mut rig, "k")));
    assert!(rig.take_events().iter().any(|event| event.kind.shape().0 == "E_LIMIT_CLEARED"));
}

#[test]
fn what_is_refused_by_one_limit_takes_nothing_from_another() {
    let mut slow = limit("pace", Counts::Rate, "{source}", 5);
    slow.status_code = 480;
    let mut rig = Rig::new(limited(vec![slow, limit("all", Counts::Calls, "", 2)]));
    assert!(passed(&call(&mut rig, "a")) && passed(&call(&mut rig, "b")));
    for id in ["c", "d", "e", "f", "g", "h"] {
        assert_eq!(call(&mut rig, id)[0].status_code(), 486);
    }
    let mut settings = limited(vec![limit("pace", Counts::Rate, "{source}", 5), limit("all", Counts::Calls, "", 100)]);
    settings.key_limits[0].status_code = 480;
    rig.reload(settings).unwrap();
    // Two passed in this second, whatever was refused.
    let codes: Vec<bool> = ["i", "j", "k", "l", "m"].map(|id| passed(&call(&mut rig, id))).into();
    assert_eq!(codes, [true, true, true, false, false]);
    rig.advance(1_001);
    assert!(passed(&call(&mut rig, "n")));
}

#[test]
fn red_thins_out_evenly_what_is_offered() {
    let mut red = limit("pace", Counts::Rate, "{source}", 10);
    red.algorithm = "red".to_owned();
    let mut rig = Rig::new(limited(vec![red]));
    let mut through: Vec<bool> = Vec::new();
    for number in 0..200 {
        through.push(passed(&call(&mut rig, &format!("r{number}"))));
        rig.advance(20);
    }
    // Fifty a second, of which ten may pass: after the first second one in five, and never many in a row.
    for second in through[50..].chunks(50) {
        assert!((8..=11).contains(&second.iter().filter(|passes| **passes).count()), "{second:?}");
        assert!(second.chunks(10).all(|part| (1..=3).contains(&part.iter().filter(|passes| **passes).count())), "{second:?}");
    }
}

#[test]
fn refused_requests_cost_as_much_where_that_is_wished() {
    let mut dear = limit("pace", Counts::Rate, "{caller_user}", 2);
    dear.counts_refused = true;
    let mut rig = Rig::new(limited(vec![dear]));
    assert!(passed(&call(&mut rig, "a")) && passed(&call(&mut rig, "b")));
    for number in 0..8 {
        rig.advance(400);
        assert!(!passed(&call(&mut rig, &format!("r{number}"))), "who goes on trying stays out");
    }
    rig.advance(1_001);
    assert!(passed(&call(&mut rig, "c")));
}

#[test]
fn a_user_written_another_way_is_the_same_key_and_more_room_forgets_nothing() {
    let inbound = |keys: usize| {
        let mut one = limit("inbound", Counts::Calls, "to-{called_user}", 1);
        one.keys = keys;
        limited(vec![one])
    };
    let mut rig = Rig::new(inbound(1_000));
    let to = |rig: &mut Rig, user: &str, id: &str| passed(&rig.receive(PHONE, &invite(id).text().replace("sip:+49301@", &format!("sip:{user}@"))));
    assert!(to(&mut rig, "bob", "a"));
    assert!(!to(&mut rig, "%62ob", "b") && !to(&mut rig, "bob;x=1", "c") && !to(&mut rig, "bo%62", "d"));
    assert!(to(&mut rig, "+49-30(1)", "e") && !to(&mut rig, "+49301", "f"));
    rig.reload(inbound(10)).unwrap();
    assert!(!to(&mut rig, "bob", "g"));
}

#[test]
fn a_limit_lives_through_a_reload_and_operators_change_it() {
    let mut rig = Rig::new(limited(vec![limit("all", Counts::Calls, "", 1)]));
    assert!(passed(&call(&mut rig, "a")));
    rig.reload(limited(vec![limit("all", Counts::Calls, "", 2)])).unwrap();
    assert!(passed(&call(&mut rig, "b")) && !passed(&call(&mut rig, "c")));
    let snapshot = rig.snapshot();
    assert!(snapshot.set_limit("all", "", Some(3)).is_some() && snapshot.set_limit("none", "", Some(3)).is_none());
    assert!(passed(&call(&mut rig, "d")) && !passed(&call(&mut rig, "e")));
    let views = snapshot.limit_views(None, 0);
    assert_eq!((views.len(), views[0].used, views[0].most, views[0].at_limit), (1, 3, 3, true));
    rig.reload(limited(vec![limit("all", Counts::Calls, "", 2)])).unwrap();
    assert!(!passed(&call(&mut rig, "f")));
    assert!(rig.snapshot().set_limit("all", "", None).is_some());
    assert_eq!(rig.snapshot().limit_views(Some("all"), 0)[0].most, 2);
    assert_eq!(rig.end_limited("all", ""), (3, 0));
    rig.advance(33_000);
    assert_eq!(rig.snapshot().limit_views(None, 0).len(), 0);
    assert!(rig.snapshot().set_limit("all", "", Some(0)).is_some());
    assert!(!passed(&call(&mut rig, "g")), "0 bars");
}

#[test]
fn bad_limits_are_refused_with_their_key() {
    for (change, wanted) in [
        ((|limit| limit.key = "{nobody}".to_owned()) as fn(&mut KeyLimitSettings), "limit.x.key"),
        (|limit| limit.algorithm = "leaky".to_owned(), "limit.x.algorithm"),
        (|limit| limit.peers = vec!["nobody".to_owned()], "limit.x.peers"),
    ] {
        let mut bad = limit("x", Counts::Rate, "", 1);
        change(&mut bad);
        let error = Rig::new(limited(Vec::new())).reload(limited(vec![bad])).unwrap_err();
        assert!(error.to_string().starts_with(wanted), "{error}");
    }
}

/// A request within the call `id`, by the routes that `message` recorded for that side.
fn within(method: &str, id: &str, from_core: bool, message: &str, cseq: u32) -> Request {
    let (uri, tags) = if from_core { ("sip:alice@198.51.100.7", ("bob", "alice")) } else { ("sip:bob@192.0.2.200", ("alice", "bob")) };
    let branch = format!("z9hG4bK{id}-{method}-{cseq}");
    let mut request = Request::new(method, uri).tags(tags.0, tags.1).call_id(id).cseq(cseq).branch(&branch);
    let mut routes = headers(message, "Record-Route");
    if !from_core {
        routes.reverse();
    }
    for route in routes {
        request = request.header(&format!("Route: {route}"));
    }
    if from_core { request.via("SIP/2.0/UDP 192.0.2.200:5060") } else { request }
}

#[test]
fn after_a_restart_calls_that_are_seen_again_take_their_places() {
    for (method, from_core) in [("INVITE", false), ("UPDATE", false), ("INVITE", true), ("UPDATE", true)] {
        let settings = || limited(vec![limit("callers", Counts::Calls, "{caller}", 1), limit("lines", Counts::Calls, "{peer}", 5)]);
        let mut before = Rig::new(settings());
        let invited = forwarded(&call(&mut before, "a"));
        let ok = before.receive(CORE, &response(&invited, 200, "bob"))[0].text.clone();
        let mut rig = Rig::new(settings());
        let views = |rig: &Rig| rig.snapshot().limit_views(None, 0).iter().map(|view| (view.key.clone(), view.used)).collect::<Vec<_>>();
        let (near, far, message) = if from_core { (CORE, PHONE, &invited) } else { (PHONE, CORE, &ok) };
        let again = |rig: &mut Rig, code: u16, cseq: u32| {
            let mut text = within(method, "a", from_core, message, cseq).text();
            if from_core {
                text = text.replace("From: <sip:alice@", "From: <sip:callee@").replace("To: <sip:bob@", "To: <sip:alice@");
            }
            let sent = rig.receive(near, &text);
            let went = sent.iter().find(|sent| sent.to.to_string() == far).unwrap_or_else(|| panic!("{method} {from_core}: {sent:?}")).text.clone();
            rig.receive(far, &response(&went, code, "any"))
        };
        again(&mut rig, 481, 7);
        assert_eq!(views(&rig), [], "whoever is refused within a dialog has none");
        again(&mut rig, 200, 8);
        again(&mut rig, 200, 9);
        assert_eq!(views(&rig), [("alice@example.net".to_owned(), 1), ("phones".to_owned(), 1)], "{method} from core: {from_core}");
        assert_eq!((rig.counters().calls_adopted.get(), rig.edge.sizes().0), (1, 1));
        assert_eq!(call(&mut rig, "b")[0].status_code(), 486);
        let sent = rig.receive(PHONE, &within("BYE", "a", false, &ok, 10).text());
        let bye = sent.iter().find(|sent| sent.to.to_string() == CORE).unwrap().text.clone();
        rig.receive(CORE, &response(&bye, 200, "bob"));
        assert_eq!((views(&rig), rig.records.iter().filter(|record| record.call_id == "a").count()), (vec![], 0));
        assert!(passed(&call(&mut rig, "c")));
    }
}

#[test]
fn a_call_that_is_seen_again_twice_at_once_has_one_place_and_keeps_it() {
    let settings = || limited(vec![limit("callers", Counts::Calls, "{caller}", 2)]);
    let mut before = Rig::new(settings());
    let invited = forwarded(&call(&mut before, "a"));
    let ok = before.receive(CORE, &response(&invited, 200, "bob"))[0].text.clone();
    let mut rig = Rig::new(settings());
    let used = |rig: &Rig| rig.snapshot().limit_views(None, 0).first().map_or(0, |view| view.used);
    let went = |sent: &[Sent]| sent.iter().find(|sent| sent.to.to_string() == CORE).unwrap().text.clone();
    let update = went(&rig.receive(PHONE, &within("UPDATE", "a", false, &ok, 7).text()));
    let invite = went(&rig.receive(PHONE, &within("INVITE", "a", false, &ok, 8).text()));
    rig.receive(CORE, &response(&update, 200, "bob"));
    rig.receive(CORE, &response(&invite, 200, "bob"));
    assert_eq!((used(&rig), rig.edge.sizes().0, rig.counters().calls_adopted.get()), (1, 1, 1));
    // Another usage of the dialog is over, and no call.
    let info = went(&rig.receive(PHONE, &within("INFO", "a", false, &ok, 9).text()));
    rig.receive(CORE, &response(&info, 481, "bob"));
    assert_eq!(used(&rig), 1);
    // The far side knows of no call any more.
    let again = went(&rig.receive(PHONE, &within("UPDATE", "a", false, &ok, 10).text()));
    rig.receive(CORE, &response(&again, 481, "bob"));
    assert_eq!((used(&rig), rig.edge.sizes().0), (0, 0));
    // Nor is one begun again by a request that was under way meanwhile, and ends.
    let last = went(&rig.receive(PHONE, &within("INVITE", "a", false, &ok, 11).text()));
    rig.receive(CORE, &response(&last, 200, "bob"));
    let bye = went(&rig.receive(PHONE, &within("BYE", "a", false, &ok, 12).text()));
    rig.receive(CORE, &response(&bye, 200, "bob"));
    assert_eq!((used(&rig), rig.edge.sizes().0, rig.records.len()), (0, 0, 0));
}

#[test]
fn a_limit_that_comes_back_knows_of_the_calls_that_it_counted() {
    let with = || limited(vec![limit("callers", Counts::Calls, "{caller}", 1)]);
    let mut rig = Rig::new(with());
    let first = forwarded(&call(&mut rig, "a"));
    for _ in 0..2 {
        rig.reload(limited(vec![limit("others", Counts::Calls, "{peer}", 9)])).unwrap();
    }
    assert!(passed(&call(&mut rig, "meanwhile")), "nothing counts it now");
    rig.reload(with()).unwrap();
    assert_eq!(call(&mut rig, "b")[0].status_code(), 486);
    rig.receive(CORE, &response(&first, 603, "bob"));
    assert!(passed(&call(&mut rig, "c")));
}

#[test]
fn numbers_of_keys_hold_however_somebody_writes_the_key() {
    for (key, written, sender) in [
        ("{caller}", "Alice@EXAMPLE.net", "Alice@example.net"),
        ("{caller}", "+49 30-1234@Example.NET", "+49301234@example.net"),
        ("{caller_user}", "+49 (30) 1234", "+49301234@example.net"),
        ("by-{caller_user}!", "by-+49.30.1234!", "+49301234@example.net"),
        ("{domain}", "EXAMPLE.net", "alice@example.net"),
        ("{source}", "::ffff:198.51.100.7", "alice@example.net"),
    ] {
        let mut rig = Rig::new(limited(vec![limit("one", Counts::Calls, key, 5)]));
        assert!(rig.snapshot().set_limit("one", written, Some(0)).is_some());
        let request = invite("a").text().replace("<sip:alice@example.net>", &format!("<sip:{sender}>"));
        assert_eq!(rig.receive(PHONE, &request)[0].status_code(), 486, "{key} {written}");
        rig.snapshot().set_limit("one", written, None);
        assert!(passed(&rig.receive(PHONE, &request.replace("z9hG4bKa", "z9hG4bKb").replace("Call-ID: a", "Call-ID: b"))), "{key} {written}");
        // And so do those of the file.
        let mut own = limit("one", Counts::Calls, key, 5);
        own.overrides = vec![(written.to_owned(), 0)];
        let mut rig = Rig::new(limited(vec![own]));
        assert_eq!(rig.receive(PHONE, &request)[0].status_code(), 486, "{key} {written}");
    }
    assert_eq!(Rig::new(limited(vec![])).snapshot().set_limit("one", "x", Some(1)), None);
}
