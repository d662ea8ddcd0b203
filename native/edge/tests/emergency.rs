//! Emergency calls pass in every phase that refuses others.

use edge::{Counts, PeerKind, RouteSettings, Shedding};
use testkit::{Request, Rig, Sent, limit, peer, response, settings};

const PHONE: &str = "198.51.100.7:5060";

fn settings_with_help() -> RouteSettings {
    let mut settings = settings(vec![
        peer("core", PeerKind::Core, "192.0.2.200", &["sip:192.0.2.200"]),
        peer("psap", PeerKind::Gateway, "192.0.2.112", &["sip:192.0.2.112"]),
        peer("phones", PeerKind::Subscribers, "198.51.100.0/24", &[]),
    ]);
    settings.emergency.peer = "psap".to_owned();
    settings
}

fn invite(uri: &str, id: &str) -> String {
    Request::new("INVITE", uri).branch(&format!("z9hG4bK{id}")).call_id(id).text()
}

fn helped(sent: &[Sent]) -> bool {
    sent.iter().any(|sent| sent.to.to_string() == "192.0.2.112:5060" && sent.first_line().starts_with("INVITE"))
}

/// A call of `user` with the answer to its challenge, where it is challenged; `known` is what the database says.
fn call_as(rig: &mut Rig, user: &str, secret: &str, uri: &str, id: &str, known: &edge::CredentialAnswer) -> Vec<Sent> {
    let from = |text: String| text.replace("<sip:alice@", &format!("<sip:{user}@"));
    let challenge = rig.receive(PHONE, &from(invite(uri, &format!("{id}a"))));
    let Some(challenge) = challenge.first().map(|sent| sent.text.clone()) else { return Vec::new() };
    let line = testkit::answer(testkit::header(&challenge, "Proxy-Authenticate"), "INVITE", uri, user, secret, 1);
    let with = Request::new("INVITE", uri).branch(&format!("z9hG4bK{id}b")).call_id(&format!("{id}b")).header(&format!("Proxy-Authorization: {line}"));
    let mut sent = rig.receive(PHONE, &from(with.text()));
    sent.append(&mut rig.credentials(known));
    sent
}

/// The status code of the first message, 0 where there is none.
fn status(sent: &[Sent]) -> u16 {
    sent.first().map_or(0, Sent::status_code)
}

#[test]
fn they_have_a_way_and_an_event_of_their_own() {
    let mut rig = Rig::new(settings_with_help());
    rig.listen(&["E_EMERGENCY_CALL"]);
    assert!(helped(&rig.receive(PHONE, &invite("urn:service:sos.ambulance", "a"))));
    assert!(helped(&rig.receive(PHONE, &invite("sip:112@example.net", "b"))));
    assert!(!helped(&rig.receive(PHONE, &invite("sip:1123@example.net", "c"))));
    assert_eq!((rig.take_events().len(), rig.counters().emergency_calls.get()), (2, 2));
}

#[test]
fn a_ban_for_a_rate_stops_everything_but_the_call_for_help() {
    let mut rig = Rig::new(settings_with_help());
    assert!(rig.ban("198.51.100.7", 600));
    assert!(rig.receive(PHONE, &invite("sip:1@example.net", "a")).is_empty());
    let sent = rig.receive(PHONE, &invite("sip:112@example.net", "b"));
    assert!(helped(&sent));
    let forwarded = sent.iter().find(|sent| sent.to.to_string() == "192.0.2.112:5060").unwrap().text.clone();
    // Another call of the same phone still finds no ear, nor does garbage.
    assert!(rig.receive(PHONE, &invite("sip:1@example.net", "c")).is_empty());
    assert!(rig.receive(PHONE, "INVITE sip:112@example.net SIP/2.0\r\n\r\n").is_empty());
    let answer = rig.receive("192.0.2.112:5060", &response(&forwarded, 200, "t"));
    assert_eq!((answer[0].to.to_string().as_str(), answer[0].status_code()), (PHONE, 200));
    let bye = Request::new("BYE", "sip:192.0.2.112").branch("z9hG4bKbye").call_id("b").cseq(2).tags("from", "t").text();
    let bye = bye.replace("tag=from", &format!("tag={}", testkit::header(&forwarded, "From").split("tag=").nth(1).unwrap()));
    assert!(rig.receive(PHONE, &bye).iter().any(|sent| sent.first_line().starts_with("BYE")), "its end is heard too");
}

#[test]
fn number_rules_and_short_sessions_leave_them_alone_and_a_banned_source_cannot_flood_by_them() {
    let mut settings = settings_with_help();
    settings.session_timer = Some(edge::SessionTimerSettings { expires_seconds: 1_800, min_expires_seconds: 120 });
    settings.number_sets = vec![edge::NumberSetSettings { name: "none".to_owned(), rules: Vec::new(), dialplan: None, refuse: Some((484, String::new())) }];
    settings.peers[2].numbers_in =
        Some(edge::NumberUseSettings { set: "none".to_owned(), fields: vec![edge::NumberField::RequestUri], scheme: edge::NumberScheme::Keep });
    let mut rig = Rig::new(settings);
    assert_eq!(rig.receive(PHONE, &invite("sip:1@example.net", "a"))[0].status_code(), 484);
    let short = |uri: &str, id: &str| Request::new("INVITE", uri).branch(id).call_id(id).header("Supported: timer").header("Session-Expires: 90").text();
    assert!(helped(&rig.receive(PHONE, &short("sip:112@example.net", "z9hG4bKb"))));
    rig.ban("198.51.100.7", 600);
    let heard = (0..500).filter(|number| helped(&rig.receive(PHONE, &invite("sip:112@example.net", &format!("f{number}"))))).count();
    assert!((1..=100).contains(&heard), "{heard}");
}

#[test]
fn shedding_and_draining_let_them_in() {
    let mut rig = Rig::new(settings_with_help());
    rig.shed(Shedding::Registrations);
    assert_eq!(rig.receive(PHONE, &invite("sip:1@example.net", "a"))[0].status_code(), 503);
    assert!(helped(&rig.receive(PHONE, &invite("sip:112@example.net", "b"))));
    rig.drain();
    assert_eq!(rig.receive(PHONE, &invite("sip:1@example.net", "c"))[0].status_code(), 503);
    assert!(helped(&rig.receive(PHONE, &invite("urn:service:sos", "d"))));
}

#[test]
fn they_pass_the_last_place_of_every_table() {
    let mut settings = settings_with_help();
    settings.limits.calls = 8;
    let mut rig = Rig::new(settings);
    (0..7).for_each(|number| drop(rig.receive(PHONE, &invite("sip:1@example.net", &format!("n{number}")))));
    assert_eq!(rig.receive(PHONE, &invite("sip:1@example.net", "full"))[0].status_code(), 503);
    assert!(helped(&rig.receive(PHONE, &invite("sip:112@example.net", "b"))));
}

#[test]
fn no_limit_counts_them() {
    let mut settings = settings_with_help();
    settings.key_limits = vec![limit("all", Counts::Calls, "", 0)];
    let mut rig = Rig::new(settings);
    assert_eq!(rig.receive(PHONE, &invite("sip:1@example.net", "a"))[0].status_code(), 486);
    assert!(helped(&rig.receive(PHONE, &invite("sip:112@example.net", "b"))));
}

#[test]
fn a_neighbour_who_fails_keeps_nobody_from_calling_for_help() {
    let mut settings = settings_with_help();
    settings.registrar = Some(testkit::registrar("example.net"));
    settings.peers[2].authenticate = true;
    settings.authentication.attacks.pair_failures = 2;
    let mut rig = Rig::new(settings);
    let found = edge::CredentialAnswer::Found("secret".to_owned(), Default::default(), Vec::new());
    let call = |rig: &mut Rig, secret: &str, uri: &str, id: &str| call_as(rig, "alice", secret, uri, id, &found);
    for id in ["f1", "f2"] {
        assert_eq!(status(&call(&mut rig, "wrong", "sip:1@example.net", id)), 407);
    }
    assert_eq!(status(&call(&mut rig, "secret", "sip:1@example.net", "other")), 403);
    assert!(helped(&call(&mut rig, "secret", "sip:112@example.net", "help")));
    // By calls for help it guesses as often once more, and not oftener.
    for id in ["g1", "g2"] {
        assert_eq!(status(&call(&mut rig, "wrong", "urn:service:sos", id)), 407);
    }
    assert_eq!(status(&call(&mut rig, "wrong", "urn:service:sos", "g3")), 403);
}

#[test]
fn nor_does_one_who_fails_at_a_core_that_keeps_the_registrar() {
    let mut settings = settings_with_help();
    settings.registrar = Some(testkit::registrar("example.net"));
    settings.registrar.as_mut().expect("just set").mode = edge::RegistrarMode::Path;
    settings.peers[2].to = vec!["sip:192.0.2.200".to_owned()];
    settings.authentication.attacks.pair_failures = 2;
    let mut rig = Rig::new(settings);
    let with = |uri: &str, id: &str| {
        let line = "Proxy-Authorization: Digest username=\"alice\", realm=\"example.net\", nonce=\"n1\", uri=\"sip:1\", response=\"0\"";
        Request::new("INVITE", uri).branch(&format!("z9hG4bK{id}")).call_id(id).header(line).text()
    };
    let refused = |rig: &mut Rig, text: &str| {
        let sent = rig.receive(PHONE, text).into_iter().find(|sent| sent.to.to_string() == "192.0.2.200:5060").expect("a call at the core");
        let challenge = "Proxy-Authenticate: Digest realm=\"example.net\", nonce=\"n1\"\r\nContent-Length";
        rig.receive("192.0.2.200:5060", &response(&sent.text, 407, "core").replace("Content-Length", challenge))
    };
    refused(&mut rig, &invite("sip:1@example.net", "a"));
    for id in ["b", "c"] {
        refused(&mut rig, &with("sip:1@example.net", id));
    }
    assert_eq!(status(&rig.receive(PHONE, &with("sip:1@example.net", "d"))), 403);
    assert!(helped(&rig.receive(PHONE, &with("sip:112@example.net", "e"))));
}

#[test]
fn a_banned_source_guesses_no_passwords_by_calls_for_help() {
    let mut settings = settings_with_help();
    settings.registrar = Some(testkit::registrar("example.net"));
    settings.peers[2].authenticate = true;
    settings.authentication.attacks.source_failures = 3;
    let mut rig = Rig::new(settings);
    let guess = |rig: &mut Rig, user: &str, id: &str, uri: &str| status(&call_as(rig, user, "guess", uri, id, &edge::CredentialAnswer::Unknown));
    for (number, wanted) in [(1, 407), (2, 407), (3, 407)] {
        assert_eq!(guess(&mut rig, &format!("u{number}"), &format!("g{number}"), "sip:1@example.net"), wanted);
    }
    assert_eq!(guess(&mut rig, "u4", "g4", "sip:1@example.net"), 0, "banned");
    assert_eq!(guess(&mut rig, "u5", "g5", "sip:112@example.net"), 403, "heard, and not weighed");
    assert_eq!(rig.counters().authentication_failed.get(), 3);
}
