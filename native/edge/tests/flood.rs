//! Floods on simulated time: by one exact rule, by behaviour, and never at the cost of a neighbour.

use edge::{CredentialAnswer, EventValue, PeerKind, RouteSettings};
use syntax::Transport;
use testkit::{Request, Rig, answer, flood, headers, peer, registrar, settings};

const CORE: &str = "192.0.2.200:5060";

fn guarded() -> RouteSettings {
    let mut settings =
        settings(vec![peer("core", PeerKind::Core, "192.0.2.200", &["sip:192.0.2.200"]), peer("phones", PeerKind::Subscribers, "198.51.100.0/24", &[])]);
    settings.flood = Some(flood());
    settings
}

fn options(id: usize) -> String {
    Request::new("OPTIONS", "sip:core.example.net").branch(&format!("z9hG4bK{id}")).call_id(&id.to_string()).text()
}

fn register(user: &str, id: &str, cseq: u32) -> String {
    format!(
        "REGISTER sip:example.net SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.7:5060;branch=z9hG4bK{id}\r\nFrom: <sip:{user}@example.net>;tag=1\r\n\
         To: <sip:{user}@example.net>\r\nCall-ID: {user}\r\nCSeq: {cseq} REGISTER\r\nContact: <sip:{user}@198.51.100.7>\r\nContent-Length: 0\r\n\r\n"
    )
}

#[test]
fn the_nth_packet_of_a_source_in_its_unit_is_too_many_and_its_neighbour_is_not_charged() {
    let mut rig = Rig::new(guarded());
    rig.listen(&["E_PIKE_BLOCKED", "E_PIKE_UNBLOCKED", "E_BAN_ADDED"]);
    for number in 0..19 {
        assert!(!rig.receive("198.51.100.7:5060", &options(number)).is_empty(), "{number}");
    }
    assert!(rig.receive("198.51.100.7:5060", &options(19)).is_empty());
    assert!(rig.receive("198.51.100.7:999", &options(20)).is_empty(), "whatever its port");
    assert!(!rig.receive("198.51.100.8:5060", &options(21)).is_empty());
    let told = rig.take_events();
    assert_eq!(told.iter().map(|event| event.kind.shape().0).collect::<Vec<_>>(), ["E_BAN_ADDED", "E_PIKE_BLOCKED"]);
    assert_eq!(told[1].values, ["198.51.100.7", "blocked", "flood: 20 packets in 2 s"].map(EventValue::from));
    let view = rig.source("198.51.100.7").unwrap();
    assert_eq!((view.banned_for.as_str(), view.left_seconds, view.packet_limit), ("flood: 20 packets in 2 s", 60, 20));
    rig.advance(61_000);
    rig.tidy();
    assert_eq!(rig.take_events().last().map(|event| event.kind.shape().0), Some("E_PIKE_UNBLOCKED"));
    assert!(!rig.receive("198.51.100.7:5060", &options(22)).is_empty());
    // Slower than that for ever is no flood.
    for number in 30..200 {
        rig.advance(120);
        assert!(!rig.receive("198.51.100.7:5060", &options(number)).is_empty(), "{number}");
    }
}

#[test]
fn garbage_and_ipv6_count_and_cores_do_not() {
    let mut settings = guarded();
    settings.peers[1] = peer("phones", PeerKind::Subscribers, "2001:db8::/32", &[]);
    let mut rig = Rig::new(settings);
    for number in 0..25 {
        rig.receive_at(0, Transport::Udp, "[2001:db8::7]:5060", [&b"\r\n\r\n"[..], b"\0\0\0\0", b""][number % 3]);
        rig.receive(CORE, "garbage");
    }
    assert_eq!((rig.counters().floods_blocked.get(), rig.source("2001:db8::7").unwrap().banned_for.is_empty()), (1, false));
    for number in 0..50 {
        rig.receive(CORE, &options(number));
    }
    assert_eq!(rig.counters().requests.get(), 50);
    assert!(rig.source("2001:db8::7").unwrap().banned_for.starts_with("flood: 20 packets"), "keep-alives count, and are no fault");
    assert_eq!((rig.counters().malformed.get(), rig.counters().keep_alives_received.get()), (25, 19));
    assert!(rig.source("192.0.2.200").unwrap().exempt);
    assert!(!rig.receive("[2001:db8::8]:5060", &options(99)).is_empty());
}

#[test]
fn what_scanners_do_leads_to_a_ban_long_before_their_rate_does() {
    let mut rig = Rig::new(guarded());
    for number in 0..5 {
        assert_eq!(rig.receive("203.0.113.5:5060", &options(number)).len(), 1);
        rig.advance(3_000);
    }
    assert!(rig.receive("203.0.113.5:5060", &options(9)).is_empty());
    assert!(rig.source("203.0.113.5").unwrap().banned_for.starts_with("behaviour: 10 points in 60 s, last a request of nobody known"));
    // One look at the name of a scanner.
    let scan = Request::new("OPTIONS", "sip:100@198.51.100.1").branch("z9hG4bKs").header("User-Agent: friendly-scanner").text();
    rig.receive("198.51.100.66:5060", &scan);
    assert!(rig.receive("198.51.100.66:5060", &options(10)).is_empty());
    assert_eq!((rig.counters().scanners_noticed.get(), rig.counters().floods_blocked.get()), (1, 2));
    for _ in 0..5 {
        rig.receive("198.51.100.67:5060", "INVITE sip:x SIP/2.0\r\nX\r\n\r\n");
    }
    assert!(rig.source("198.51.100.67").unwrap().banned_for.contains("a malformed message"));
}

#[test]
fn strangers_are_answered_at_a_bounded_pace() {
    let mut settings = guarded();
    settings.limits.stranger_answers_per_second = 3;
    let mut rig = Rig::new(settings);
    let answered = (0..10).filter(|number| !rig.receive(&format!("203.0.113.{}:5060", 10 + number), &options(*number)).is_empty()).count();
    assert_eq!((answered, rig.counters().strangers_unanswered.get()), (3, 7));
    rig.tidy();
    assert_eq!(rig.receive("203.0.113.9:5060", &options(99)).len(), 1, "the next second");
    assert!(!rig.receive("198.51.100.7:5060", &options(98)).is_empty(), "and those that are known always");
}

#[test]
fn an_office_behind_one_address_is_no_flood() {
    let mut settings = guarded();
    settings.registrar = Some(registrar("example.net"));
    settings.peers[1].authenticate = false;
    let mut rig = Rig::new(settings);
    // Three hundred phones that come one after the other, and then all at once.
    for user in 0..300 {
        assert_eq!(rig.receive("198.51.100.7:5060", &register(&format!("u{user}"), &format!("a{user}"), 1))[0].status_code(), 200);
    }
    rig.advance(60_000);
    for user in 0..300 {
        let sent = rig.receive("198.51.100.7:5060", &register(&format!("u{user}"), &format!("b{user}"), 2));
        assert_eq!(sent.first().map(testkit::Sent::status_code), Some(200), "{user}");
    }
    let view = rig.source("198.51.100.7").unwrap();
    assert_eq!((view.users, view.packet_limit, view.banned_for.as_str()), (300, 3_020, ""));
    // The same user again and again is one user.
    (0..15).for_each(|cseq| drop(rig.receive("198.51.100.8:5060", &register("single", &format!("s{cseq}"), cseq + 1))));
    assert_eq!(rig.source("198.51.100.8").unwrap().users, 1);
}

#[test]
fn where_users_are_only_what_is_too_much_is_dropped() {
    let mut settings = guarded();
    settings.registrar = Some(registrar("example.net"));
    settings.peers[1].authenticate = true;
    let mut rig = Rig::new(settings);
    rig.listen(&["E_PIKE_BLOCKED"]);
    let challenge = rig.receive("198.51.100.7:5060", &register("bob", "r1", 1))[0].text.clone();
    let line = format!("Authorization: {}\r\nContact:", answer(headers(&challenge, "WWW-Authenticate")[0], "REGISTER", "sip:example.net", "bob", "secret", 1));
    let mut sent = rig.receive("198.51.100.7:5060", &register("bob", "r2", 2).replace("Contact:", &line));
    sent.append(&mut rig.credentials(&CredentialAnswer::Found("secret".to_owned(), Default::default(), Vec::new())));
    assert_eq!(sent.last().unwrap().status_code(), 200, "{sent:?}");
    for number in 0..60 {
        rig.receive("198.51.100.7:5060", &options(number));
    }
    assert!(rig.receive("198.51.100.7:5060", &options(61)).is_empty());
    assert_eq!(rig.take_events()[0].values[1], EventValue::from("throttled"));
    assert!(rig.source("198.51.100.7").unwrap().banned_for.is_empty());
    // Anybody could forge that flood: who calls for help from there is heard, and nobody else.
    let call = |uri: &str, id: &str| Request::new("INVITE", uri).branch(&format!("z9hG4bK{id}")).call_id(id).text();
    assert_eq!(rig.receive("198.51.100.7:5060", &call("urn:service:sos", "help"))[0].status_code(), 407);
    assert!(rig.receive("198.51.100.7:5060", &call("sip:1@example.net", "other")).is_empty());
    rig.advance(2_000);
    assert!(!rig.receive("198.51.100.7:5060", &options(62)).is_empty());
}

#[test]
fn a_scanner_is_known_where_everybody_is_challenged() {
    let mut settings = guarded();
    settings.registrar = Some(registrar("example.net"));
    settings.peers[1].authenticate = true;
    let mut rig = Rig::new(settings);
    let scan = register("100", "s", 1).replace("Contact:", "User-Agent: friendly-scanner\r\nContact:");
    assert_eq!(rig.receive("198.51.100.66:5060", &scan)[0].status_code(), 401);
    assert!(rig.receive("198.51.100.66:5060", &scan).is_empty());
}

#[test]
fn a_scanner_that_only_asks_whether_anybody_is_there_is_known_too() {
    let mut rig = Rig::new(guarded());
    let asks = |id: &str, agent: &str| Request::new("OPTIONS", "sip:192.0.2.1").branch(id).call_id(id).header(&format!("User-Agent: {agent}")).text();
    let scan = asks("z9hG4bKs", "friendly-scanner");
    assert_eq!(rig.receive("198.51.100.7:5060", &asks("z9hG4bKp", "phone"))[0].status_code(), 200);
    assert!(rig.receive("198.51.100.66:5060", &scan).is_empty());
    assert!(rig.receive("198.51.100.66:5060", &options(2)).is_empty(), "it is banned");
    assert_eq!(rig.receive(CORE, &scan)[0].status_code(), 200, "a machine of ours may be called what it likes");
}

#[test]
fn a_dry_run_tells_a_crossing_once_though_users_take_packets_back() {
    let mut settings = guarded();
    let limits = settings.flood.as_mut().unwrap();
    (limits.dry_run, limits.packets_per_user, limits.unit_seconds) = (true, 0, 60);
    settings.registrar = Some(registrar("example.net"));
    settings.peers[1].authenticate = true;
    let mut rig = Rig::new(settings);
    rig.listen(&["E_PIKE_BLOCKED"]);
    let challenge = rig.receive("198.51.100.7:5060", &register("bob", "r0", 1))[0].text.clone();
    let own = |count: u32| {
        let line = answer(headers(&challenge, "WWW-Authenticate")[0], "REGISTER", "sip:example.net", "bob", "secret", count);
        register("bob", &format!("r{count}"), 1 + count).replace("Contact:", &format!("Authorization: {line}\r\nContact:"))
    };
    rig.receive("198.51.100.7:5060", &own(1));
    rig.credentials(&CredentialAnswer::Found("secret".to_owned(), Default::default(), Vec::new()));
    for number in 0..18 {
        rig.receive("198.51.100.7:5060", &options(number));
    }
    for count in 2..12 {
        assert_eq!(rig.receive("198.51.100.7:5060", &own(count))[0].status_code(), 200);
    }
    assert_eq!((rig.take_events().len(), rig.counters().floods_dry.get()), (1, 1));
}

#[test]
fn a_dry_run_tells_and_does_nothing() {
    let mut settings = guarded();
    settings.flood.as_mut().unwrap().dry_run = true;
    let mut rig = Rig::new(settings);
    rig.listen(&["E_PIKE_BLOCKED"]);
    for number in 0..100 {
        assert!(!rig.receive("198.51.100.7:5060", &options(number)).is_empty());
    }
    let told = rig.take_events();
    assert_eq!((told.len(), told[0].values[1].clone(), rig.counters().floods_dry.get()), (1, EventValue::from("dry-run"), 1));
    assert_eq!((rig.counters().bans_added.get(), rig.counters().dropped_flood.get()), (0, 0));
    // In the words of a real ban, which filters are tried out with.
    assert_eq!(told[0].values[2], EventValue::from("flood: 20 packets in 2 s"));
}
