//! Limits by key on simulated time: exact through failures, cancels, lost BYEs and reloads.

use edge::{Counts, EventValue, KeyLimitSettings, PeerKind, RouteSettings};
use testkit::{Request, Rig, Sent, header, peer, response, settings};

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
    assert!(snapshot.set_limit("all", "", Some(3)) && !snapshot.set_limit("none", "", Some(3)));
    assert!(passed(&call(&mut rig, "d")) && !passed(&call(&mut rig, "e")));
    let views = snapshot.limit_views(None, 0);
    assert_eq!((views.len(), views[0].used, views[0].most, views[0].at_limit), (1, 3, 3, true));
    rig.reload(limited(vec![limit("all", Counts::Calls, "", 2)])).unwrap();
    assert!(!passed(&call(&mut rig, "f")));
    assert!(rig.snapshot().set_limit("all", "", None));
    assert_eq!(rig.snapshot().limit_views(Some("all"), 0)[0].most, 2);
    assert_eq!(rig.end_limited("all", ""), (3, 0));
    rig.advance(33_000);
    assert_eq!(rig.snapshot().limit_views(None, 0).len(), 0);
    assert!(rig.snapshot().set_limit("all", "", Some(0)));
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
