//! Registrations and calls to registered users, on simulated time.
#![expect(clippy::unwrap_used, reason = "tests")]

use edge::{CredentialAnswer, DomainRules, LocationWrite, PeerKind, RegistrarMode, RouteSettings, Shedding};
use testkit::{Request, Rig, Sent, answer, challenge_param as param, header, headers, listener, peer, registrar, response, settings};

const PHONE: &str = "198.51.100.7:5060";
const CORE: &str = "192.0.2.200:5060";

fn served() -> RouteSettings {
    let mut settings =
        settings(vec![peer("core", PeerKind::Core, "192.0.2.200", &["sip:192.0.2.200"]), peer("phones", PeerKind::Subscribers, "198.51.100.0/24", &[])]);
    settings.registrar = Some(registrar("example.net"));
    settings
}

fn authenticating() -> RouteSettings {
    let mut settings = served();
    settings.peers[1].authenticate = true;
    settings
}

/// A REGISTER of bob; `from` is the address in Via and, where nothing else is said, in Contact.
struct Register<'a> {
    cseq: u32,
    call_id: &'a str,
    via: &'a str,
    user: &'a str,
    lines: Vec<String>,
}

impl<'a> Register<'a> {
    fn new(cseq: u32) -> Self {
        Self { cseq, call_id: "reg-1", via: PHONE, user: "bob", lines: vec!["Contact: <sip:bob@198.51.100.7>".to_owned()] }
    }

    fn lines(mut self, lines: &[&str]) -> Self {
        self.lines = lines.iter().map(|line| (*line).to_owned()).collect();
        self
    }

    fn text(&self) -> String {
        let Self { cseq, call_id, via, user, lines } = self;
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        format!(
            "REGISTER sip:example.net SIP/2.0\r\nVia: SIP/2.0/UDP {via};branch=z9hG4bK-{call_id}-{cseq}\r\nMax-Forwards: 70\r\n\
             From: <sip:{user}@example.net>;tag=1\r\nTo: <sip:{user}@example.net>\r\nCall-ID: {call_id}\r\nCSeq: {cseq} REGISTER\r\n\
             {lines}User-Agent: test phone\r\nContent-Length: 0\r\n\r\n"
        )
    }
}

fn one(sent: Vec<Sent>) -> String {
    assert_eq!(sent.len(), 1, "{sent:?}");
    sent[0].text.clone()
}

fn code(sent: Vec<Sent>) -> u16 {
    assert_eq!(sent.len(), 1, "{sent:?}");
    sent[0].status_code()
}

fn found(password: &str) -> CredentialAnswer {
    CredentialAnswer::Found(password.to_owned(), Default::default(), Vec::new())
}

fn challenges(text: &str) -> Vec<&str> {
    headers(text, "WWW-Authenticate")
}

#[test]
fn a_registration_is_kept_told_and_over_in_time() {
    let mut rig = Rig::new(served());
    let ok = one(rig.receive(PHONE, &Register::new(1).lines(&["Contact: <sip:bob@198.51.100.7>;q=0.5", "Expires: 100"]).text()));
    assert!(ok.starts_with("SIP/2.0 200"), "{ok}");
    assert_eq!(header(&ok, "Contact"), "<sip:bob@198.51.100.7>;expires=100;q=0.500");
    rig.advance(40_000);
    let list = one(rig.receive(PHONE, &Register::new(2).lines(&[]).text()));
    assert_eq!(header(&list, "Contact"), "<sip:bob@198.51.100.7>;expires=60;q=0.500");
    rig.advance(66_000);
    let list = one(rig.receive(PHONE, &Register::new(3).lines(&[]).text()));
    assert_eq!(headers(&list, "Contact").len(), 0);
    rig.tidy();
    let counters = rig.counters();
    assert_eq!((counters.registrations.get(), counters.bindings_added.get(), counters.bindings_expired.get()), (3, 1, 1));
    assert_eq!((counters.location_records.get(), counters.location_bindings.get(), rig.edge.sizes()), (0, 0, (0, 0)));
}

#[test]
fn what_is_broken_is_refused_and_changes_nothing() {
    let mut rig = Rig::new(served());
    one(rig.receive(PHONE, &Register::new(10).text()));
    let mut strange = Register::new(11);
    strange.user = "b%40b";
    let cases: Vec<(Register<'_>, u16)> = vec![
        (Register::new(11).lines(&["Contact: *"]), 400),
        (Register::new(11).lines(&["Contact: *", "Expires: 60"]), 400),
        (Register::new(11).lines(&["Contact: *, <sip:a@198.51.100.7>", "Expires: 0"]), 400),
        (Register::new(11).lines(&["Contact: <sip:bob@198.51.100.7>;q=2"]), 400),
        (Register::new(11).lines(&["Contact: <tel:+491234>"]), 400),
        (Register::new(11).lines(&["Contact: <sip:bob@198.51.100.7?X=y>"]), 400),
        (Register::new(9), 400),
        (Register::new(11).lines(&["Contact: <sip:bob@198.51.100.7>;expires=5"]), 423),
        (Register::new(11).lines(&["Require: recipient-list, path, 100rel"]), 420),
        (Register::new(11).lines(&["Path: <sip:203.0.113.1;lr>"]), 403),
        (Register::new(11).lines(&["Contact: <sip:bob@EXAMPLE.net>"]), 403),
        (Register::new(11).lines(&["Contact: <sip:b%6fb@example.net>, <sip:bob@198.51.100.7>"]), 403),
        (strange, 404),
    ];
    for (request, expected) in cases {
        let reply = one(rig.receive(PHONE, &request.text()));
        assert!(reply.starts_with(&format!("SIP/2.0 {expected} ")), "{} {reply}", request.text());
        assert!(expected != 423 || header(&reply, "Min-Expires") == "60");
        assert!(expected != 420 || headers(&reply, "Unsupported") == ["recipient-list", "100rel"]);
    }
    let six: Vec<String> = (0..6).map(|number| format!("Contact: <sip:bob@198.51.100.7:600{number}>")).collect();
    let six: Vec<&str> = six.iter().map(String::as_str).collect();
    assert_eq!(code(rig.receive(PHONE, &Register::new(11).lines(&six).text())), 400);
    assert_eq!(code(rig.receive(PHONE, &Register::new(11).lines(&six[..4]).text())), 403);
    let rows = rig.rows("bob@example.net");
    assert_eq!((rows.len(), rows[0].cseq), (1, 10));
}

#[test]
fn nobody_registers_what_would_let_calls_in_elsewhere() {
    let mut rig = Rig::new(served());
    rig.listen(&["E_REGISTER_POISONING"]);
    for (contact, why) in [
        ("sip:bob@192.0.2.200", "core"),
        ("sip:bob@192.0.2.200:9", "core"),
        ("sip:bob@192.0.2.1", "proxy"),
        ("sip:bob@[::ffff:192.0.2.1]:5060", "proxy"),
        ("sip:bob@198.51.100.7;maddr=192.0.2.200", "core"),
        ("sip:bob@203.0.113.5", "forbidden"),
        ("sip:bob@224.0.0.1", "forbidden"),
        ("sip:bob@255.255.255.255", "forbidden"),
        ("sip:bob@198.51.100.7:0", "has port 0"),
        ("sip:bob@3221226184", "some take for an address"),
        ("sip:bob@192.0.712", "some take for an address"),
        ("sip:bob@192.0.2.0xC8.", "some take for an address"),
        ("sip:bob@0300.0.2.200", "some take for an address"),
    ] {
        let reply = one(rig.receive(PHONE, &Register::new(1).lines(&[&format!("Contact: <{contact}>")]).text()));
        assert!(reply.starts_with("SIP/2.0 476 Contact Unacceptable"), "{contact} {reply}");
        let events = rig.take_events();
        let edge::EventValue::Text(reason) = &events[0].values[3] else { unreachable!() };
        assert!(reason.contains(why), "{contact}: {reason}");
        assert_eq!(events[0].values[0], edge::EventValue::Text("198.51.100.7".to_owned()), "as in other events, without a port");
    }
    assert_eq!((rig.rows("bob@example.net").len(), rig.counters().contacts_refused.get()), (0, 13));
    // One that is to go may have been anything.
    assert_eq!(code(rig.receive(PHONE, &Register::new(2).lines(&["Contact: <sip:bob@192.0.2.200>;expires=0"]).text())), 200);
}

#[test]
fn a_contact_that_nobody_could_call_is_refused() {
    let mut settings = served();
    settings.listeners.push(listener("six", "tcp:[2001:db8::1]:5060"));
    let mut rig = Rig::new(settings);
    for (cseq, contact, expected) in [
        (1, "<sips:bob@198.51.100.7>", 400),
        (2, "<sip:bob@198.51.100.7;transport=tls>", 400),
        (3, "<sip:bob@198.51.100.7;transport=ws>", 400),
        // Of the other family only.
        (3, "<sip:bob@198.51.100.7;transport=tcp>", 400),
        (4, "<sip:bob@198.51.100.7;transport=tls>;expires=0", 200),
        (5, "<sip:bob@198.51.100.7;transport=UDP>", 200),
    ] {
        assert_eq!(code(rig.receive(PHONE, &Register::new(cseq).lines(&[&format!("Contact: {contact}")]).text())), expected, "{contact}");
    }
    assert_eq!((rig.rows("bob@example.net").len(), rig.counters().registrations_refused.get()), (1, 4));
}

#[test]
fn a_contact_that_stands_twice_is_as_it_was_said_last() {
    let mut rig = Rig::new(served());
    one(rig.receive(PHONE, &Register::new(1).lines(&["Contact: <sip:bob@198.51.100.7>;q=0.1, <sip:bob@198.51.100.7>;q=0.2"]).text()));
    let rows = rig.rows("bob@example.net");
    assert_eq!((rows.len(), rows[0].q), (1, 200));
    one(rig.receive(PHONE, &Register::new(2).lines(&["Contact: <sip:bob@198.51.100.7>", "Contact: <sip:bob@198.51.100.7>;expires=0"]).text()));
    assert!(rig.rows("bob@example.net").is_empty());
}

#[test]
fn a_name_that_leads_to_a_listener_by_srv_is_refused() {
    let mut settings = served();
    settings.listeners[0] = listener("public", "udp:192.0.2.1:24500");
    for (contact, place, expected) in [
        ("<sip:bob@own.example.org>", "192.0.2.1:24500", 476),
        ("<sip:bob@own.example.org>", "198.51.100.9:24500", 200),
        // A port leaves SRV out.
        ("<sip:bob@own.example.org:24500>", "192.0.2.1:5060", 476),
    ] {
        let mut rig = Rig::new(settings.clone());
        rig.receive(PHONE, &Register::new(1).lines(&[&format!("Contact: {contact}")]).text());
        let question = rig.questions.remove(0);
        assert_eq!(code(rig.answer(&question, &[place])), expected, "{contact} {place}");
    }
}

#[test]
fn a_contact_that_is_a_name_waits_for_where_that_leads() {
    let mut rig = Rig::new(served());
    let text = Register::new(1).lines(&["Contact: <sip:bob@Phone.example.org>"]).text();
    assert!(rig.receive(PHONE, &text).is_empty());
    assert!(rig.receive(PHONE, &text).is_empty(), "a retransmission waits too, and asks for nothing");
    assert_eq!((rig.questions.len(), rig.questions[0].host.as_str()), (1, "phone.example.org"));
    let question = rig.questions.remove(0);
    assert_eq!(code(rig.answer(&question, &["192.0.2.200:5060"])), 476);
    let other = Register::new(2).lines(&["Contact: <sip:bob@other.example.org>"]).text();
    rig.receive(PHONE, &other);
    let question = rig.questions.remove(0);
    assert_eq!(code(rig.answer(&question, &["198.51.100.99:5060"])), 200);
    // What is known is not asked again, and what nobody answers is not waited for longer than a name may take.
    assert_eq!(code(rig.receive(PHONE, &Register::new(3).lines(&["Contact: <sip:bob@other.example.org>"]).text())), 200);
    rig.receive(PHONE, &Register::new(4).lines(&["Contact: <sip:bob@silent.example.org>"]).text());
    let late = rig.advance(3_100);
    assert_eq!((late[0].status_code(), headers(&late[0].text, "Retry-After").len()), (500, 1));
}

#[test]
fn a_phone_behind_a_nat_is_reached_where_it_sent_from() {
    let mut rig = Rig::new(served());
    let mut natted = Register::new(1).lines(&["Contact: <sip:bob@10.1.2.3:5070>"]);
    natted.via = "10.1.2.3:5070";
    assert_eq!(code(rig.receive("198.51.100.9:31000", &natted.text())), 200);
    let sent = rig.receive(CORE, &Request::new("INVITE", "sip:bob@example.net").via("SIP/2.0/UDP 192.0.2.200").text());
    assert_eq!(sent[1].to.to_string(), "198.51.100.9:31000");
    assert!(sent[1].text.starts_with("INVITE sip:bob@10.1.2.3:5070 SIP/2.0"), "{}", sent[1].text);
    assert_eq!(rig.rows("bob@example.net")[0].received, "sip:198.51.100.9:31000");
}

#[test]
fn phones_of_one_preference_ring_at_once_and_others_after_them() {
    let mut rig = Rig::new(served());
    for (number, q) in [(1, "0.9"), (2, "0.9"), (3, "0.1")] {
        let contact = format!("Contact: <sip:bob@198.51.100.7:600{number}>;q={q}");
        one(rig.receive(PHONE, &Register::new(number).lines(&[&contact]).text()));
    }
    let sent = rig.receive(CORE, &Request::new("INVITE", "sip:bob@example.net").via("SIP/2.0/UDP 192.0.2.200").text());
    let mut places: Vec<String> = sent[1..].iter().map(|sent| sent.to.to_string()).collect();
    places.sort();
    assert_eq!(places, ["198.51.100.7:6001", "198.51.100.7:6002"]);
    let invites: Vec<String> = sent[1..].iter().map(|sent| sent.text.clone()).collect();
    let from = |sent: &Sent| sent.to.to_string();
    let first = rig.receive(&from(&sent[1]), &response(&invites[0], 486, "a"));
    assert!(!first.iter().any(|sent| sent.text.starts_with("INVITE")), "the other one still rings");
    let second = rig.receive(&from(&sent[2]), &response(&invites[1], 480, "b"));
    let third = second.iter().find(|sent| sent.text.starts_with("INVITE")).unwrap();
    assert_eq!(third.to.to_string(), "198.51.100.7:6003");
    let last = rig.receive("198.51.100.7:6003", &response(&third.text, 404, "c"));
    let reply = last.iter().find(|sent| sent.to.to_string() == CORE).unwrap();
    assert!(matches!(reply.status_code(), 404 | 480 | 486), "{}", reply.text);
}

#[test]
fn nobody_there_is_480_and_a_busy_phone_of_one_is_the_answer() {
    let mut rig = Rig::new(served());
    let invite = Request::new("INVITE", "sip:bob@example.net").via("SIP/2.0/UDP 192.0.2.200");
    assert_eq!(rig.receive(CORE, &invite.text()).last().unwrap().status_code(), 480);
    one(rig.receive(PHONE, &Register::new(1).text()));
    let sent = rig.receive(CORE, &invite.call_id("2").branch("z9hG4bK2").text());
    let reply = rig.receive(PHONE, &response(&sent[1].text, 486, "a"));
    assert_eq!(reply.iter().find(|sent| sent.to.to_string() == CORE).unwrap().status_code(), 486);
}

#[test]
fn a_path_of_a_trusted_element_is_kept_told_and_followed() {
    let mut settings = served();
    settings.peers.push(peer("edge", PeerKind::Trusted, "192.0.2.150", &[]));
    let mut rig = Rig::new(settings);
    let lines = ["Contact: <sip:bob@10.0.0.9>", "Path: <sip:tok@192.0.2.150;lr>", "Supported: path"];
    let mut register = Register::new(1).lines(&lines);
    register.via = "192.0.2.150";
    let ok = one(rig.receive("192.0.2.150:5060", &register.text()));
    assert_eq!((header(&ok, "Path"), ok.starts_with("SIP/2.0 200")), ("<sip:tok@192.0.2.150;lr>", true), "{ok}");
    let sent = rig.receive(CORE, &Request::new("INVITE", "sip:bob@example.net").via("SIP/2.0/UDP 192.0.2.200").text());
    assert_eq!(sent[1].to.to_string(), "192.0.2.150:5060");
    assert!(sent[1].text.starts_with("INVITE sip:bob@10.0.0.9 SIP/2.0"));
    assert_eq!(header(&sent[1].text, "Route"), "<sip:tok@192.0.2.150;lr>");
}

#[test]
fn a_path_that_knows_no_loose_routing_changes_places_with_the_contact() {
    let mut settings = served();
    settings.peers.push(peer("edge", PeerKind::Trusted, "192.0.2.150", &[]));
    for (path, route) in [
        ("<sip:tok@192.0.2.150>", "<sip:bob@10.0.0.9>"),
        ("\"first\" <sip:tok@192.0.2.150>, <sip:192.0.2.151;lr>,<sip:a@192.0.2.152>", "<sip:192.0.2.151;lr>, <sip:a@192.0.2.152>, <sip:bob@10.0.0.9>"),
    ] {
        let mut rig = Rig::new(settings.clone());
        let path = format!("Path: {path}");
        let mut register = Register::new(1).lines(&["Contact: <sip:bob@10.0.0.9>", &path, "Supported: path"]);
        register.via = "192.0.2.150";
        assert_eq!(code(rig.receive("192.0.2.150:5060", &register.text())), 200);
        let sent = rig.receive(CORE, &Request::new("INVITE", "sip:bob@example.net").via("SIP/2.0/UDP 192.0.2.200").text());
        assert_eq!((sent[1].to.to_string().as_str(), sent[1].first_line()), ("192.0.2.150:5060", "INVITE sip:tok@192.0.2.150 SIP/2.0"));
        assert_eq!(headers(&sent[1].text, "Route"), [route]);
    }
}

#[test]
fn a_domain_may_have_rules_of_its_own() {
    let mut settings = served();
    let registrar = settings.registrar.as_mut().unwrap();
    registrar.domains.push("other.example".to_owned());
    let own = DomainRules {
        default_expires_seconds: 600,
        min_expires_seconds: 300,
        max_expires_seconds: 900,
        raise_short: false,
        spread_percent: 0,
        max_contacts: 1,
        replace_oldest: true,
        same_call_id_replaces: false,
        case_sensitive: false,
    };
    registrar.rules_of.insert("other.example".to_owned(), own);
    let mut rig = Rig::new(settings);
    let there = |register: Register<'_>| register.text().replace("example.net", "Other.Example");
    for (expires, here, other) in [("", "3600", "600"), (";expires=800", "800", "800"), (";expires=5000", "5000", "900")] {
        let contact = format!("Contact: <sip:bob@198.51.100.7>{expires}");
        let cseq = 10 + rig.counters().registrations.get() as u32;
        let told = one(rig.receive(PHONE, &Register::new(cseq).lines(&[&contact]).text()));
        assert!(header(&told, "Contact").ends_with(&format!("expires={here}")), "{told}");
        let told = one(rig.receive(PHONE, &there(Register { call_id: "there", ..Register::new(cseq) }.lines(&[&contact]))));
        assert!(header(&told, "Contact").ends_with(&format!("expires={other}")), "{told}");
    }
    let brief = |cseq| Register::new(cseq).lines(&["Contact: <sip:bob@198.51.100.7>;expires=100"]);
    let refused = one(rig.receive(PHONE, &there(Register { call_id: "there", ..brief(30) })));
    assert_eq!((refused.starts_with("SIP/2.0 423"), header(&refused, "Min-Expires")), (true, "300"), "{refused}");
    assert_eq!(code(rig.receive(PHONE, &brief(30).text())), 200);
    // One Contact each there, whatever the case; two here.
    let second = |cseq| Register::new(cseq).lines(&["Contact: <sip:bob@198.51.100.7:5070>"]);
    one(rig.receive(PHONE, &there(Register { call_id: "there2", user: "BOB", ..second(1) })));
    one(rig.receive(PHONE, &Register { call_id: "here2", ..second(1) }.text()));
    assert_eq!(["bob@other.example", "bob@example.net"].map(|aor| rig.rows(aor).len()), [1, 2]);
    one(rig.receive(PHONE, &Register { call_id: "here3", user: "BOB", ..second(1) }.text()));
    assert_eq!(rig.rows("BOB@example.net").len(), 1);
}

#[test]
fn a_path_that_leads_nowhere_changes_nothing() {
    let mut settings = served();
    settings.peers.push(peer("edge", PeerKind::Trusted, "192.0.2.150", &[]));
    let mut rig = Rig::new(settings);
    let register = |cseq: u32, path: &str| {
        let path = format!("Path: {path}");
        let mut register = Register::new(cseq).lines(&["Contact: <sip:bob@10.0.0.9>", &path, "Supported: path"]);
        register.via = "192.0.2.150";
        register.text()
    };
    assert_eq!(code(rig.receive("192.0.2.150:5060", &register(1, "\"P\" <sip:tok@192.0.2.150;lr>, <sips:[2001:db8::1]:5070;lr;ob>"))), 200);
    let before = rig.rows("bob@example.net");
    let odd =
        ["garbage", "<>", "<http://x/>", "<sip:a@>", "<sip:127.0.0.1:99999;lr>", "\"unclosed <sip:x;lr>", "<sip:x;lr", "sip:127.0.0.1:9;lr", "<tel:+4930>"];
    for (number, path) in odd.into_iter().enumerate() {
        let sent = rig.receive("192.0.2.150:5060", &register(2 + number as u32, path));
        assert_eq!(sent[0].first_line(), "SIP/2.0 400 Bad Request (Path)", "{path}");
    }
    for (number, path) in ["<sips:x;lr>", "<sip:[2001:db8::1];lr>", "<sip:192.0.2.150;lr;transport=tcp>"].into_iter().enumerate() {
        let sent = rig.receive("192.0.2.150:5060", &register(20 + number as u32, path));
        assert_eq!(sent[0].first_line(), "SIP/2.0 400 No Listener Has The Transport Of The Path", "{path}");
    }
    assert_eq!((rig.rows("bob@example.net")[0].path.clone(), rig.counters().registrations_refused.get()), (before[0].path.clone(), 12));
}

#[test]
fn who_knows_the_password_registers_with_either_algorithm() {
    for algorithm in [0, 1] {
        let mut rig = Rig::new(authenticating());
        let challenge = one(rig.receive(PHONE, &Register::new(1).text()));
        assert!(challenge.starts_with("SIP/2.0 401"));
        let offered = challenges(&challenge);
        assert_eq!(offered.len(), 2);
        assert!(offered[0].contains("SHA-256") && offered[1].contains("MD5") && !offered[0].contains("stale"), "{offered:?}");
        let line = format!("Authorization: {}", answer(offered[algorithm], "REGISTER", "sip:example.net", "bob", "secret", 1));
        let request = Register::new(2).lines(&["Contact: <sip:bob@198.51.100.7>", &line]).text();
        assert!(rig.receive(PHONE, &request).is_empty(), "it waits for the database");
        assert_eq!((rig.credentials.len(), rig.credentials[0].user.as_str(), rig.credentials[0].domain.as_str()), (1, "bob", "example.net"));
        assert_eq!(code(rig.credentials(&found("secret"))), 200);
        // A retransmission is answered, the same answer in another request is not.
        assert_eq!(code(rig.receive(PHONE, &request)), 200);
        let replay = one(rig.receive(PHONE, &Register::new(3).lines(&["Contact: <sip:bob@198.51.100.7>", &line]).text()));
        assert!(challenges(&replay)[0].contains("stale=true"), "{replay}");
        let next = format!("Authorization: {}", answer(offered[algorithm], "REGISTER", "sip:example.net", "bob", "secret", 2));
        assert_eq!(code(rig.receive(PHONE, &Register::new(4).lines(&["Contact: <sip:bob@198.51.100.7>", &next]).text())), 200);
        assert!(rig.credentials.is_empty(), "a refresh asks nobody");
    }
}

#[test]
fn a_name_with_its_domain_is_hashed_as_it_is_sent() {
    let mut rig = Rig::new(authenticating());
    let offered = challenges(&one(rig.receive(PHONE, &Register::new(1).text())))[0].to_owned();
    let line = |user: &str, count| format!("Authorization: {}", answer(&offered, "REGISTER", "sip:example.net", user, "secret", count));
    assert!(rig.receive(PHONE, &Register::new(2).lines(&[&line("bob@Example.net", 1)]).text()).is_empty());
    assert_eq!((rig.credentials[0].user.as_str(), rig.credentials[0].named.as_str()), ("bob", "bob@Example.net"));
    assert_eq!(code(rig.credentials(&found("secret"))), 200);
    assert!(rig.receive(PHONE, &Register::new(3).lines(&[&line("bob", 2)]).text()).is_empty(), "another hash");
    assert_eq!(code(rig.credentials(&found("secret"))), 200);
    assert_eq!(rig.counters().authentication_failed.get(), 0);
}

#[test]
fn a_contact_written_another_way_is_the_same_binding() {
    let mut rig = Rig::new(served());
    one(rig.receive(PHONE, &Register::new(1).lines(&["Contact: <sip:bob@198.51.100.7;transport=UDP;x=1>"]).text()));
    let ok = one(rig.receive(PHONE, &Register::new(2).lines(&["Contact: <sip:%62ob@198.51.100.7;X=1;transport=udp>"]).text()));
    assert_eq!(headers(&ok, "Contact").len(), 1);
    let ok = one(rig.receive(PHONE, &Register::new(3).lines(&["Contact: <SIP:bob@198.51.100.7;x=1;Transport=udp>;expires=0"]).text()));
    assert_eq!(headers(&ok, "Contact").len(), 0);
}

#[test]
fn a_wrong_password_and_an_unknown_user_look_alike() {
    let mut answers = Vec::new();
    for known in [found("other"), CredentialAnswer::Unknown] {
        let mut rig = Rig::new(authenticating());
        let challenge = one(rig.receive(PHONE, &Register::new(1).text()));
        let line = format!("Authorization: {}", answer(challenges(&challenge)[0], "REGISTER", "sip:example.net", "bob", "secret", 1));
        rig.receive(PHONE, &Register::new(2).lines(&[&line]).text());
        let reply = one(rig.credentials(&known));
        let nonce = param(challenges(&reply)[0], "nonce").to_owned();
        let other = param(challenges(&reply)[1], "nonce").to_owned();
        answers.push(reply.replace(&nonce, "N").replace(&other, "N"));
        assert_eq!(rig.counters().authentication_failed.get(), 1);
    }
    assert_eq!(answers[0], answers[1]);
    assert!(answers[0].starts_with("SIP/2.0 401"));
}

#[test]
fn a_nonce_ages_and_serves_in_its_place_only_and_that_is_no_attack() {
    let mut rig = Rig::new(authenticating());
    let challenge = one(rig.receive(PHONE, &Register::new(1).text()));
    let line = format!("Authorization: {}", answer(challenges(&challenge)[0], "REGISTER", "sip:example.net", "bob", "wrong", 1));
    for from in ["198.51.100.8:5060", "198.51.100.7:9"] {
        let reply = one_or_parked(rig.receive(from, &Register::new(2).lines(&[&line]).text()));
        assert_eq!(reply.is_some_and(|reply| challenges(&reply)[0].contains("stale=true")), from.starts_with("198.51.100.8"));
    }
    rig.credentials(&found("secret"));
    rig.advance(301_000);
    let reply = one(rig.receive(PHONE, &Register::new(3).lines(&[&line]).text()));
    assert!(challenges(&reply)[0].contains("stale=true"));
    assert_eq!((rig.counters().authentication_failed.get(), rig.counters().nonces_stale.get()), (1, 2));
}

fn one_or_parked(sent: Vec<Sent>) -> Option<String> {
    sent.first().map(|sent| sent.text.clone())
}

#[test]
fn a_database_that_is_gone_costs_a_known_user_nothing_and_others_a_500() {
    let mut rig = Rig::new(authenticating());
    let challenge = one(rig.receive(PHONE, &Register::new(1).text()));
    let line = |count| format!("Authorization: {}", answer(challenges(&challenge)[0], "REGISTER", "sip:example.net", "bob", "secret", count));
    rig.receive(PHONE, &Register::new(2).lines(&[&line(1)]).text());
    let reply = one(rig.credentials(&CredentialAnswer::Unavailable));
    assert!(reply.starts_with("SIP/2.0 500") && !header(&reply, "Retry-After").is_empty(), "{reply}");
    rig.receive(PHONE, &Register::new(3).lines(&[&line(2)]).text());
    assert_eq!(code(rig.credentials(&found("secret"))), 200);
    // What will not be fresh for long is asked for ahead, and used meanwhile.
    rig.advance(40_000);
    assert_eq!(code(rig.receive(PHONE, &Register::new(4).lines(&[&line(3)]).text())), 200);
    assert!(rig.credentials(&found("secret")).is_empty());
    // What is old is asked for first, and serves where there is no answer; from then on without waiting for one.
    rig.advance(100_000);
    assert!(rig.receive(PHONE, &Register::new(5).lines(&[&line(4)]).text()).is_empty());
    assert_eq!(code(rig.credentials(&CredentialAnswer::Unavailable)), 200);
    assert_eq!(code(rig.receive(PHONE, &Register::new(6).lines(&[&line(5)]).text())), 200);
    assert!(rig.credentials(&found("secret")).is_empty());
    // Whoever is gone is heard no more.
    rig.advance(100_000);
    assert!(rig.receive(PHONE, &Register::new(7).lines(&[&line(6)]).text()).is_empty());
    assert_eq!(code(rig.credentials(&CredentialAnswer::Unknown)), 401);
    // One that is answered by nobody does not wait for ever.
    let mut unknown = Register::new(8).lines(&[&format!("Authorization: {}", answer(challenges(&challenge)[0], "REGISTER", "sip:example.net", "eve", "x", 9))]);
    unknown.user = "eve";
    rig.receive(PHONE, &unknown.text());
    assert_eq!(rig.advance(2_100)[0].status_code(), 500);
}

#[test]
fn an_account_speaks_for_itself_only_and_its_credentials_go_no_further() {
    let mut rig = Rig::new(authenticating());
    let invite = |from: &str, line: &str, branch: &str| {
        Request::new("INVITE", "sip:carol@example.net").branch(branch).header(line).text().replace("<sip:alice@example.net>", from)
    };
    let challenge = one(rig.receive(PHONE, &invite("<sip:bob@example.net>", "X: y", "z9hG4bK1")));
    assert!(challenge.starts_with("SIP/2.0 407"), "{challenge}");
    let offered = headers(&challenge, "Proxy-Authenticate")[0].to_owned();
    let line = |count, uri| format!("Proxy-Authorization: {}", answer(&offered, "INVITE", uri, "bob", "secret", count));
    let number = "sip:carol@example.net";
    let preferred = format!("{}\r\nP-Preferred-Identity: <sip:boss@example.net>", line(1, number));
    rig.receive(PHONE, &invite("<sip:bob@example.net>", &preferred, "z9hG4bK2"));
    let sent = rig.credentials(&found("secret"));
    assert_eq!((sent.len(), sent[1].to.to_string().as_str()), (2, CORE));
    assert!(headers(&sent[1].text, "Proxy-Authorization").is_empty());
    assert_eq!(header(&sent[1].text, "P-Asserted-Identity"), "<sip:bob@example.net>", "who proved who it is is vouched for");
    assert!(headers(&sent[1].text, "P-Preferred-Identity").is_empty());
    let other = one(rig.receive(PHONE, &invite("<sip:alice@example.net>", &line(2, number), "z9hG4bK3")));
    assert!(other.starts_with("SIP/2.0 403 Identity Not Allowed"), "{other}");
    let dearer = one(rig.receive(PHONE, &invite("<sip:bob@example.net>", &line(3, "sip:free@example.net"), "z9hG4bK4")));
    assert!(dearer.starts_with("SIP/2.0 400"), "{dearer}");
    assert_eq!(rig.counters().identities_refused.get(), 1);
}

#[test]
fn credentials_that_are_none_are_told_and_others_are_left_alone() {
    let mut rig = Rig::new(authenticating());
    for (line, expected) in [
        ("Authorization: Digest username=\"bob\"", 400),
        ("Authorization: Digest", 400),
        ("Authorization: Basic Ym9iOng=", 401),
        ("Authorization: Digest username=\"bob\", realm=\"elsewhere\", nonce=\"n\", uri=\"sip:x\", response=\"r\"", 401),
        ("Authorization: Digest username=\"bob\", realm=\"example.net\", nonce=\"n\", uri=\"sip:x\", response=\"r\"", 401),
    ] {
        assert_eq!(code(rig.receive(PHONE, &Register::new(1).lines(&[line]).text())), expected, "{line}");
    }
    assert_eq!(rig.counters().credentials_malformed.get(), 2);
    let challenge = one(rig.receive(PHONE, &Register::new(2).text()));
    let own = format!("Authorization: {}", answer(challenges(&challenge)[0], "REGISTER", "sip:example.net", "bob", "secret", 1));
    let lines = ["Authorization: Digest username=\"bob\", realm=\"elsewhere\"", own.as_str(), "Contact: <sip:bob@198.51.100.7>"];
    let before = rig.counters().requests.get();
    assert!(rig.receive(PHONE, &Register::new(3).lines(&lines).text()).is_empty(), "it waits for the database");
    assert_eq!(code(rig.credentials(&found("secret"))), 200);
    assert_eq!(rig.counters().requests.get(), before + 1, "counted once");
}

/// Tries passwords as `user` from `from`; the status codes.
fn guess(rig: &mut Rig, from: &str, user: &str, times: u32) -> Vec<u16> {
    let mut codes = Vec::new();
    for number in 0..times {
        let call_id = format!("guess-{from}-{user}-{number}");
        let mut first = Register { call_id: &call_id, user, ..Register::new(1) };
        let sent = rig.receive(from, &first.text());
        let Some(challenge) = sent.first().map(|sent| sent.text.clone()) else {
            codes.push(0);
            continue;
        };
        let line = format!("Authorization: {}", answer(challenges(&challenge)[0], "REGISTER", "sip:example.net", user, "guess", 1));
        first = Register { call_id: &call_id, user, ..Register::new(2) }.lines(&[&line]);
        let mut sent = rig.receive(from, &first.text());
        sent.extend(rig.credentials(&found("secret")));
        codes.push(sent.first().map_or(0, Sent::status_code));
    }
    codes
}

/// Registers bob properly from `from`.
fn come_in(rig: &mut Rig, from: &str, call_id: &str) -> u16 {
    let first = Register { call_id, ..Register::new(1) };
    let challenge = one(rig.receive(from, &first.text()));
    let line = format!("Authorization: {}", answer(challenges(&challenge)[0], "REGISTER", "sip:example.net", "bob", "secret", 1));
    let second = Register { call_id, ..Register::new(2) }.lines(&["Contact: <sip:bob@198.51.100.7>", &line]);
    let mut sent = rig.receive(from, &second.text());
    sent.extend(rig.credentials(&found("secret")));
    code(sent)
}

#[test]
fn guessing_ends_for_the_guesser_and_for_nobody_else() {
    let mut rig = Rig::new(authenticating());
    rig.listen(&["E_AUTH_ATTACK", "E_BAN_ADDED", "E_BAN_REMOVED"]);
    assert_eq!(come_in(&mut rig, PHONE, "good"), 200);
    let codes = guess(&mut rig, "198.51.100.66:5060", "bob", 22);
    assert_eq!((codes[19], codes[20], codes[21]), (401, 403, 403));
    let events: Vec<_> = rig.take_events().into_iter().map(|event| (event.kind.shape().0, event.values[0].clone())).collect();
    assert_eq!(events, [("E_AUTH_ATTACK", "pair".into())]);
    // Others guess from elsewhere: the user is refused there, and heard where he came from before.
    for host in [67, 68] {
        guess(&mut rig, &format!("198.51.100.{host}:5060"), "bob", 20);
    }
    assert_eq!(guess(&mut rig, "198.51.100.69:5060", "bob", 1), [403]);
    assert_eq!(come_in(&mut rig, PHONE, "still-good"), 200);
    assert_eq!(rig.take_events().iter().filter(|event| event.values[0] == "user".into()).count(), 1);
    // After the window all is forgotten.
    rig.advance(61_000);
    assert_eq!(guess(&mut rig, "198.51.100.66:5060", "bob", 1), [401]);
}

#[test]
fn who_tries_many_users_from_a_known_place_is_told_of() {
    let mut settings = authenticating();
    settings.authentication.attacks.source_failures = 5;
    let mut rig = Rig::new(settings);
    rig.listen(&["E_AUTH_ATTACK", "E_BAN_ADDED"]);
    assert_eq!(come_in(&mut rig, PHONE, "good"), 200);
    for number in 0..7 {
        assert_eq!(guess(&mut rig, PHONE, &format!("u{number}"), 1), [401]);
    }
    let events: Vec<_> = rig.take_events().into_iter().map(|event| (event.kind.shape().0, event.values[0].clone(), event.values[3].clone())).collect();
    assert_eq!(events, [("E_AUTH_ATTACK", "source".into(), 5u64.into())], "others of that office are heard as before");
    assert_eq!(come_in(&mut rig, PHONE, "still-good"), 200);
}

#[test]
fn an_account_of_another_domain_opens_nothing() {
    let mut settings = authenticating();
    settings.registrar.as_mut().unwrap().domains.push("example.org".to_owned());
    settings.authentication.attacks.pair_failures = 5;
    let mut rig = Rig::new(settings);
    let mut codes = Vec::new();
    for round in 0..3 {
        codes.extend(guess(&mut rig, PHONE, "bob", 2));
        // Its own account has the same name elsewhere.
        let at_home = |text: String| text.replace("example.net", "example.org");
        let call_id = format!("own{round}");
        let mut own = Register::new(1);
        own.call_id = &call_id;
        let challenge = one(rig.receive(PHONE, &at_home(own.text())));
        let line = testkit::answer(challenges(&challenge)[0], "REGISTER", "sip:example.org", "bob", "secret", 1);
        own.lines.push(format!("Authorization: {line}"));
        own.cseq = 2;
        let mut sent = rig.receive(PHONE, &at_home(own.text()));
        sent.append(&mut rig.credentials(&found("secret")));
        assert_eq!(code(sent), 200);
    }
    assert_eq!(codes, [401, 401, 401, 401, 401, 403]);
}

#[test]
fn who_tries_many_users_is_banned_for_a_time_unless_somebody_came_in_from_there() {
    let mut rig = Rig::new(authenticating());
    rig.listen(&["E_BAN_ADDED", "E_BAN_REMOVED"]);
    let spray = |rig: &mut Rig, from: &str| (0..120).map(|number| guess(rig, from, &format!("user{number}"), 1)[0]).collect::<Vec<_>>();
    let codes = spray(&mut rig, "198.51.100.66:5060");
    assert_eq!((codes[98], codes[100], codes[119]), (401, 0, 0));
    assert_eq!(rig.take_events().len(), 1);
    assert!(rig.counters().dropped_banned.get() > 0);
    rig.tidy();
    assert_eq!(rig.counters().bans.get(), 1);
    rig.advance(301_000);
    rig.tidy();
    assert_eq!((rig.take_events().len(), rig.counters().bans.get()), (1, 0));
    assert_eq!(guess(&mut rig, "198.51.100.66:5060", "bob", 1), [401]);
    // An office: somebody there has the right password.
    assert_eq!(come_in(&mut rig, PHONE, "good"), 200);
    let codes = spray(&mut rig, PHONE);
    assert!(codes.iter().all(|code| *code == 401), "{codes:?}");
    assert_eq!(come_in(&mut rig, PHONE, "still-good"), 200);
}

#[test]
fn what_changed_is_written_once_and_taken_over_by_the_next_process() {
    let mut rig = Rig::new(served());
    one(rig.receive(PHONE, &Register::new(1).lines(&["Contact: <sip:bob@198.51.100.7>, <sip:bob@198.51.100.7:5070>;expires=90"]).text()));
    one(rig.receive(PHONE, &Register::new(2).lines(&["Contact: <sip:bob@198.51.100.7>"]).text()));
    let writes = rig.writes(100);
    let rows: Vec<_> = writes.iter().filter_map(|write| if let LocationWrite::Put(row) = write { Some((**row).clone()) } else { None }).collect();
    assert_eq!((writes.len(), rows.len()), (2, 2));
    assert_eq!((rows[0].user.as_str(), rows[0].domain.as_str(), rows[0].user_agent.as_str()), ("bob", "example.net", "test phone"));
    assert_eq!((rows[0].cseq, rows[0].socket.as_str()), (2, "udp:192.0.2.1:5060"));
    assert!(rig.writes(100).is_empty());
    one(rig.receive(PHONE, &Register::new(3).lines(&["Contact: <sip:bob@198.51.100.7:5070>;expires=0"]).text()));
    assert_eq!(rig.writes(100), [LocationWrite::Delete(rows[1].contact_id)]);
    let mut next = Rig::new(served());
    assert!(next.restore(&rows[0]) && !next.restore(&rows[0]));
    assert_eq!(next.rows("bob@example.net"), [rows[0].clone()]);
    assert!(next.writes(100).is_empty());
    let sent = next.receive(CORE, &Request::new("INVITE", "sip:bob@example.net").via("SIP/2.0/UDP 192.0.2.200").text());
    assert_eq!(sent[1].to.to_string(), "198.51.100.7:5060");
    let mut over = rows[0].clone();
    over.expires = 1;
    over.contact = "sip:bob@198.51.100.8".to_owned();
    assert!(!next.restore(&over));
}

#[test]
fn ways_are_kept_open_and_who_does_not_answer_goes() {
    let mut settings = served();
    settings.registrar.as_mut().unwrap().keep_alive.method = "options".to_owned();
    let mut rig = Rig::new(settings);
    let natted = |cseq| {
        let mut register = Register::new(cseq).lines(&["Contact: <sip:bob@10.1.2.3:5070>"]);
        register.via = "10.1.2.3:5070";
        register.text()
    };
    one(rig.receive("198.51.100.9:31000", &natted(1)));
    let pings = rig.advance(31_000);
    assert_eq!((pings.len(), pings[0].to.to_string().as_str()), (1, "198.51.100.9:31000"));
    assert!(pings[0].text.starts_with("OPTIONS sip:bob@10.1.2.3:5070 SIP/2.0"), "{}", pings[0].text);
    assert!(header(&pings[0].text, "Call-ID").starts_with("keep-alive-"));
    rig.receive("198.51.100.9:31000", &response(&pings[0].text, 200, "x"));
    assert_eq!((rig.counters().keep_alives_answered.get(), rig.counters().stray_responses.get()), (1, 0));
    let forged = response(&pings[0].text, 200, "x").replace("z9hG4bK01", "z9hG4bK02");
    rig.receive("198.51.100.9:31000", &forged);
    assert_eq!(rig.counters().stray_responses.get(), 1);
    // Three in a row without an answer that counts: 404 does not here.
    for _ in 0..3 {
        let ping = rig.advance(30_000);
        assert_eq!(ping.len(), 1);
        rig.receive("198.51.100.9:31000", &response(&ping[0].text, 404, "x"));
    }
    assert!(rig.advance(30_000).is_empty());
    assert_eq!((rig.rows("bob@example.net").len(), rig.counters().bindings_dead.get()), (0, 1));
}

#[test]
fn a_dead_binding_goes_without_a_ping_and_the_others_are_asked() {
    let mut settings = served();
    let keep_alive = &mut settings.registrar.as_mut().unwrap().keep_alive;
    (keep_alive.method, keep_alive.most_lost) = ("options".to_owned(), 1);
    let mut rig = Rig::new(settings);
    for (number, source) in ["198.51.100.9:31000", "198.51.100.9:32000", "198.51.100.9:33000"].into_iter().enumerate() {
        let contact = format!("Contact: <sip:bob@10.1.2.3:{}>", 5_070 + number);
        let mut register = Register::new(1).lines(&[&contact]);
        let call_id = format!("Call-ID: of-{number}\r\n");
        register.via = "10.1.2.3:5070";
        let text = register.text();
        let own = header(&text, "Call-ID");
        one(rig.receive(source, &text.replace(&format!("Call-ID: {own}\r\n"), &call_id)));
    }
    for round in 1..4u64 {
        // The first falls silent at once.
        let pings = rig.advance(if round == 1 { 31_000 } else { 30_000 });
        assert_eq!(pings.len(), if round == 1 { 3 } else { 2 }, "round {round}");
        for ping in pings.iter().filter(|ping| ping.to.port() != 31_000) {
            rig.receive(&ping.to.to_string(), &response(&ping.text, 200, "x"));
        }
    }
    assert_eq!((rig.rows("bob@example.net").len(), rig.counters().bindings_dead.get(), rig.counters().keep_alives_sent.get()), (2, 1, 7));
}

#[test]
fn events_tell_of_records_and_bindings() {
    let mut rig = Rig::new(served());
    rig.listen(&["E_UL_AOR_INSERT", "E_UL_AOR_DELETE", "E_UL_CONTACT_INSERT", "E_UL_CONTACT_UPDATE", "E_UL_CONTACT_DELETE"]);
    one(rig.receive(PHONE, &Register::new(1).text()));
    one(rig.receive(PHONE, &Register::new(2).text()));
    one(rig.receive(PHONE, &Register::new(3).lines(&["Contact: *", "Expires: 0"]).text()));
    let events = rig.take_events();
    let names: Vec<&str> = events.iter().map(|event| event.kind.shape().0).collect();
    assert_eq!(names, ["E_UL_CONTACT_INSERT", "E_UL_AOR_INSERT", "E_UL_CONTACT_UPDATE", "E_UL_CONTACT_DELETE", "E_UL_AOR_DELETE"]);
    for event in &events {
        assert_eq!(event.values.len(), event.kind.shape().1.len(), "{event:?}");
    }
    assert_eq!(events[0].values[1..3], ["bob@example.net".into(), "sip:bob@198.51.100.7".into()]);
}

/// Dialog of a phone behind a NAT at 198.51.100.9:31000, called by the core; the INVITE as the phone got it and its 200 as the core got it.
fn called_behind_nat(rig: &mut Rig) -> (String, String) {
    let mut natted = Register::new(1).lines(&["Contact: <sip:bob@10.1.2.3:5070>"]);
    natted.via = "10.1.2.3:5070";
    one(rig.receive("198.51.100.9:31000", &natted.text()));
    let sent = rig.receive(CORE, &Request::new("INVITE", "sip:bob@example.net").via("SIP/2.0/UDP 192.0.2.200").text());
    let invite = sent[1].text.clone();
    let ok = response(&invite, 200, "bob").replace("<sip:bob@203.0.113.9>", "\"B\" <sip:bob@10.1.2.3:5070;ob?X=y>;q=1");
    let sent = rig.receive("198.51.100.9:31000", &ok);
    (invite, sent.iter().find(|sent| sent.to.to_string() == CORE).unwrap().text.clone())
}

/// A request of the core within that dialog, as a user agent makes it.
fn of_core(method: &str, ok: &str, uri: &str, cseq: u32) -> String {
    let route = headers(ok, "Record-Route").join(", ");
    let request = Request::new(method, uri).via("SIP/2.0/UDP 192.0.2.200").tags("alice", "bob").cseq(cseq).branch(&format!("z9hG4bK-{method}"));
    request.header(&format!("Route: {route}")).text()
}

#[test]
fn a_contact_behind_a_nat_finds_back_to_its_phone_and_says_what_the_phone_said() {
    let mut rig = Rig::new(served());
    let (_, ok) = called_behind_nat(&mut rig);
    let contact = header(&ok, "Contact").to_owned();
    assert!(contact.starts_with("\"B\" <sip:bob@10.1.2.3:5070;ob;edge-flow=") && contact.ends_with("?X=y>;q=1"), "{contact}");
    let uri = contact.split(['<', '>']).nth(1).unwrap().split('?').next().unwrap().to_owned();
    for (method, cseq) in [("ACK", 1), ("INFO", 2)] {
        let sent = rig.receive(CORE, &of_core(method, &ok, &uri, cseq));
        assert_eq!((sent.len(), sent[0].to.to_string().as_str()), (1, "198.51.100.9:31000"), "{method}");
        assert_eq!(sent[0].first_line(), format!("{method} sip:bob@10.1.2.3:5070;ob SIP/2.0"));
    }
    // The next process knows nothing of the call, and finds the phone by the mark.
    let mut next = Rig::new(served());
    let sent = next.receive(CORE, &of_core("BYE", &ok, &uri, 3));
    assert_eq!((sent[0].to.to_string().as_str(), sent[0].first_line()), ("198.51.100.9:31000", "BYE sip:bob@10.1.2.3:5070;ob SIP/2.0"));
}

#[test]
fn a_mark_that_is_forged_or_of_another_call_leads_nowhere() {
    let mut rig = Rig::new(served());
    let (_, ok) = called_behind_nat(&mut rig);
    let uri = header(&ok, "Contact").split(['<', '>']).nth(1).unwrap().split('?').next().unwrap().to_owned();
    let at = uri.find("edge-flow=").unwrap() + 20;
    let mut forged = uri.clone();
    forged.replace_range(at..=at, if &uri[at..=at] == "0" { "1" } else { "0" });
    let sent = rig.receive(CORE, &of_core("INFO", &ok, &forged, 2));
    assert!(sent.iter().all(|sent| sent.to.to_string() != "198.51.100.9:31000"), "{sent:?}");
    let other = Request::new("INVITE", &uri).via("SIP/2.0/UDP 192.0.2.200").call_id("other").branch("z9hG4bKo").text();
    assert!(rig.receive(CORE, &other).iter().all(|sent| sent.to.to_string() != "198.51.100.9:31000"));
}

#[test]
fn a_phone_in_the_open_keeps_its_contact() {
    let mut rig = Rig::new(served());
    one(rig.receive(PHONE, &Register::new(1).text()));
    let sent = rig.receive(CORE, &Request::new("INVITE", "sip:bob@example.net").via("SIP/2.0/UDP 192.0.2.200").text());
    let ok = response(&sent[1].text, 200, "bob").replace("sip:bob@203.0.113.9", "sip:bob@198.51.100.7");
    let sent = rig.receive(PHONE, &ok);
    assert_eq!(header(&sent[0].text, "Contact"), "<sip:bob@198.51.100.7>");
    assert_eq!(rig.counters().contacts_marked.get(), 0);
}

fn forwarding(mode: RegistrarMode) -> RouteSettings {
    let mut settings = served();
    settings.registrar.as_mut().unwrap().mode = mode;
    settings
}

/// The answer of a core that grants what is asked for, with other bindings of the user beside.
fn granted(register: &str, expires: u32) -> String {
    let contact = header(register, "Contact");
    let path = headers(register, "Path").iter().map(|path| format!("Path: {path}\r\n")).collect::<String>();
    let lines = format!("Contact: {contact};expires={expires}\r\nContact: <sip:bob@203.0.113.77>;expires=9\r\n{path}");
    response(register, 200, "core").replace("Contact: <sip:bob@203.0.113.9>\r\n", &lines)
}

#[test]
fn a_core_that_keeps_its_users_gets_a_way_back_to_the_phone() {
    for mode in [RegistrarMode::Path, RegistrarMode::Contact] {
        let mut rig = Rig::new(forwarding(mode));
        let mut natted = Register::new(1).lines(&["Contact: \"B\" <sip:bob@10.1.2.3:5070;x=y>;q=0.5", "Expires: 100"]);
        natted.via = "10.1.2.3:5070";
        let sent = rig.receive("198.51.100.9:31000", &natted.text());
        assert_eq!((sent.len(), sent[0].to.to_string().as_str()), (1, CORE));
        let register = sent[0].text.clone();
        assert_eq!(headers(&register, "Path").len(), usize::from(mode == RegistrarMode::Path));
        assert_eq!(headers(&register, "Supported").len(), usize::from(mode == RegistrarMode::Path));
        let ok = one(rig.receive(CORE, &granted(&register, 90)));
        assert!(headers(&ok, "Path").is_empty());
        assert!(headers(&ok, "Contact")[0].contains("<sip:bob@10.1.2.3:5070;x=y>"), "{ok}");
        assert!(headers(&ok, "Contact")[0].ends_with(";q=0.5;expires=90"), "{ok}");
        let rows = rig.rows("bob@example.net");
        assert_eq!((rows.len(), rows[0].contact.as_str(), rows[0].natted), (1, "sip:bob@10.1.2.3:5070;x=y", true));
        // A call of the core by what it was told.
        let contact = header(&register, "Contact").split(['<', '>']).nth(1).unwrap();
        let mut call = Request::new("INVITE", contact).via("SIP/2.0/UDP 192.0.2.200");
        if mode == RegistrarMode::Path {
            call = call.header(&format!("Route: {}", header(&register, "Path")));
        }
        let sent = rig.receive(CORE, &call.text());
        assert_eq!((sent[1].to.to_string().as_str(), sent[1].first_line()), ("198.51.100.9:31000", "INVITE sip:bob@10.1.2.3:5070;x=y SIP/2.0"));
        // Nobody else may use the way; a phone goes to the core only.
        let sent = rig.receive(PHONE, &call.call_id("stolen").branch("z9hG4bKs").via("SIP/2.0/UDP 198.51.100.7:5060").text());
        assert!(sent.iter().all(|sent| sent.to.to_string() != "198.51.100.9:31000"), "{sent:?}");
        // And it is over when the core says so.
        let mut gone = Register::new(2).lines(&["Contact: <sip:bob@10.1.2.3:5070;x=y>;expires=0"]);
        gone.via = "10.1.2.3:5070";
        let sent = rig.receive("198.51.100.9:31000", &gone.text());
        rig.receive(CORE, &response(&sent[0].text, 200, "core").replace("Contact: <sip:bob@203.0.113.9>\r\n", ""));
        assert!(rig.rows("bob@example.net").is_empty());
    }
}

#[test]
fn who_fails_at_the_core_too_often_is_refused_here() {
    let mut rig = Rig::new(forwarding(RegistrarMode::Path));
    let mut codes = Vec::new();
    for number in 0..22 {
        let call_id = format!("try-{number}");
        let lines =
            ["Contact: <sip:bob@198.51.100.7>", "Authorization: Digest username=\"bob\", realm=\"example.net\", nonce=\"m\", uri=\"sip:x\", response=\"r\""];
        let mut try_it = Register::new(1).lines(&lines);
        try_it.call_id = &call_id;
        let sent = rig.receive(PHONE, &try_it.text());
        if sent[0].to.to_string() != CORE {
            codes.push(sent[0].status_code());
            continue;
        }
        assert_eq!(headers(&sent[0].text, "Authorization").len(), 1, "the core must see it");
        let refused = rig.receive(
            CORE,
            &response(&sent[0].text, 401, "core")
                .replace("Contact: <sip:bob@203.0.113.9>\r\n", "WWW-Authenticate: Digest realm=\"example.net\", nonce=\"m\"\r\n"),
        );
        codes.push(refused[0].status_code());
    }
    // The first answers a nonce that never went to it: somebody else's, for all we know.
    assert_eq!((codes[0], codes[20], codes[21]), (401, 401, 403));
    assert_eq!(rig.counters().authentication_failed.get(), 20);
    // A stale nonce is no failure, and one without credentials none either.
    let mut other = Register::new(1).lines(&[
        "Contact: <sip:carol@198.51.100.7>",
        "Authorization: Digest username=\"carol\", realm=\"example.net\", nonce=\"m\", uri=\"sip:x\", response=\"r\"",
    ]);
    (other.user, other.call_id) = ("carol", "stale");
    let sent = rig.receive(PHONE, &other.text());
    rig.receive(
        CORE,
        &response(&sent[0].text, 401, "core")
            .replace("Contact: <sip:bob@203.0.113.9>\r\n", "WWW-Authenticate: Digest realm=\"example.net\", nonce=\"m\", stale=TRUE\r\n"),
    );
    assert_eq!(rig.counters().authentication_failed.get(), 20);
}

/// REGISTERs with an answer of that kind that the core finds wrong: what comes of them.
fn guess_at_core(rig: &mut Rig, from: &str, user: &str, credentials: &str, times: u32) -> Vec<u16> {
    let challenge = "WWW-Authenticate: Digest realm=\"example.net\", nonce=\"N0NCE\"\r\n";
    (0..times)
        .map(|number| {
            let call_id = format!("{user}-{}-{number}", rig.now().moment.0);
            rig.advance(1);
            let mut register = Register::new(1).lines(&["Contact: <sip:x@198.51.100.66>", &format!("Authorization: Digest {credentials}")]);
            (register.user, register.call_id) = (user, &call_id);
            let sent = rig.receive(from, &register.text());
            if sent[0].to.to_string() != CORE {
                return sent[0].status_code();
            }
            code(rig.receive(CORE, &response(&sent[0].text, 401, "core").replace("Contact: <sip:bob@203.0.113.9>\r\n", challenge)))
        })
        .collect()
}

#[test]
fn guesses_at_a_core_count_however_they_are_written_and_for_whom_they_name() {
    let forms = [
        r#"username="bob", realm="example.net", nonce = "N0NCE", uri="sip:x", response="r""#,
        "username=\"bob\", realm=\"example.net\", nonce=\r\n \"N0NCE\", uri=\"sip:x\", response=\"r\"",
        r#"username="bob", realm="example.net", cnonce="nonce=x", nonce="N0NCE", uri="sip:x", response="r""#,
        r#"username="bob", realm="example.net", opaque="nonce=x,", nonce="N0N\CE", uri="sip:x", response="r""#,
        r#"username="BOB@example.net", realm="example.net", nonce="N0NCE", uri="sip:x", response="r""#,
    ];
    for form in forms {
        let mut rig = Rig::new(forwarding(RegistrarMode::Path));
        let codes = guess_at_core(&mut rig, "198.51.100.66:5060", "bob", form, 22);
        assert_eq!((codes[0], codes[20], codes[21]), (401, 401, 403), "{form}");
    }
    // Whose password is guessed is not who the REGISTER is for.
    let mut rig = Rig::new(forwarding(RegistrarMode::Path));
    let codes: Vec<u16> = (0..22).map(|number| guess_at_core(&mut rig, "198.51.100.66:5060", &format!("other{number}"), forms[0], 1)[0]).collect();
    assert_eq!((codes[0], codes[20], codes[21]), (401, 401, 403));
    // What we cannot read, the core could.
    let mut rig = Rig::new(forwarding(RegistrarMode::Path));
    let broken = r#"username="bob", realm="example.net", nonce="N0NCE", nonce="N0NCE", uri="sip:x", response="r""#;
    assert_eq!(guess_at_core(&mut rig, "198.51.100.66:5060", "bob", broken, 1), [400]);
    assert_eq!(rig.counters().credentials_malformed.get(), 1);
}

#[test]
fn nobody_makes_a_known_source_unknown_by_asking_for_challenges() {
    let mut settings = forwarding(RegistrarMode::Path);
    settings.authentication.attacks.keys = 1_024;
    settings.authentication.attacks.user_failures = 10;
    let mut rig = Rig::new(settings);
    let own = r#"username="bob", realm="example.net", nonce="N0NCE", uri="sip:x", response="r""#;
    assert_eq!(guess_at_core(&mut rig, PHONE, "bob", own, 1), [401]);
    let mut good = Register::new(1).lines(&["Contact: <sip:bob@198.51.100.7>", &format!("Authorization: Digest {own}")]);
    good.call_id = "good";
    let sent = rig.receive(PHONE, &good.text());
    rig.receive(CORE, &granted(&sent[0].text, 90));
    for host in [66, 67] {
        guess_at_core(&mut rig, &format!("198.51.100.{host}:5060"), "bob", own, 8);
    }
    for number in 0..5_000 {
        let challenge = format!("WWW-Authenticate: Digest realm=\"example.net\", nonce=\"n{number}\"\r\n");
        let (call_id, from) = (format!("ask-{number}"), format!("198.51.100.{}:5060", 100 + number % 100));
        let mut ask = Register::new(1).lines(&["Contact: <sip:x@198.51.100.66>"]);
        (ask.user, ask.call_id) = ("nobody", &call_id);
        let sent = rig.receive(&from, &ask.text());
        rig.receive(CORE, &response(&sent[0].text, 401, "core").replace("Contact: <sip:bob@203.0.113.9>\r\n", &challenge));
    }
    good.cseq = 2;
    let sent = rig.receive(PHONE, &good.text());
    assert!(sent.iter().any(|sent| sent.to.to_string() == CORE), "{sent:?}");
}

#[test]
fn a_core_may_write_the_contact_that_it_grants_another_way() {
    let mut rig = Rig::new(forwarding(RegistrarMode::Path));
    let register = |cseq: u32| Register::new(cseq).lines(&["Contact: <sip:b%6Fb@198.51.100.7;transport=UDP>", "Expires: 100"]);
    for cseq in 1..=2 {
        let sent = rig.receive(PHONE, &register(cseq).text());
        let line = "Contact: <SIP:bob@198.51.100.7;transport=udp>;expires=90\r\n";
        rig.receive(CORE, &response(&sent[0].text, 200, "core").replace("Contact: <sip:bob@203.0.113.9>\r\n", line));
        assert_eq!(rig.rows("bob@example.net").len(), 1);
    }
}

#[test]
fn a_core_gets_the_same_way_back_as_long_as_phone_and_flow_are_the_same() {
    for mode in [RegistrarMode::Path, RegistrarMode::Contact] {
        let mut rig = Rig::new(forwarding(mode));
        let mut way = |cseq: u32, from: &str| {
            rig.advance(1_700);
            let sent = rig.receive(from, &Register::new(cseq).text());
            let text = &sent.iter().find(|sent| sent.to.to_string() == CORE).unwrap().text;
            let way = (header(text, "Contact").split(';').take(3).collect::<Vec<_>>().join(";"), headers(text, "Path").concat());
            rig.receive(CORE, &granted(text, 90));
            way
        };
        // What it compares with what it has (RFC 3261 section 10.3).
        let first = way(1, PHONE);
        assert_eq!([way(2, PHONE), way(3, PHONE)], [first.clone(), first.clone()]);
        assert_ne!(way(4, "198.51.100.7:31000"), first, "another flow");
    }
}

#[test]
fn a_core_without_paths_is_told_of_the_way_that_a_phone_has_left() {
    let mut rig = Rig::new(forwarding(RegistrarMode::Contact));
    let mut contacts = |cseq: u32, from: &str, call_id: &str, line: &str| -> Vec<(String, String)> {
        let mut register = Register::new(cseq).lines(&[line, "Expires: 100"]);
        register.call_id = call_id;
        let sent = rig.receive(from, &register.text());
        let text = &sent.iter().find(|sent| sent.to.to_string() == CORE).unwrap().text;
        let all = header(text, "Contact").split(", ").map(|one| one.split_once('>').unwrap());
        let ways: Vec<_> = all.map(|(way, params)| (way.to_owned(), params.to_owned())).collect();
        let lines = ways.iter().filter(|(_, params)| !params.contains("expires=0")).map(|(way, params)| format!("Contact: {way}>{params};expires=90\r\n"));
        rig.receive(CORE, &response(text, 200, "core").replace("Contact: <sip:bob@203.0.113.9>\r\n", &lines.collect::<String>()));
        ways
    };
    let own = "Contact: <sip:bob@10.0.0.2>;q=0.5";
    let first = contacts(1, PHONE, "a", own);
    assert_eq!(first.len(), 1);
    // Its NAT has given it another port; the core would have two Contacts of it, or refuse the second.
    let moved = contacts(2, "198.51.100.7:31000", "a", own);
    assert_eq!((moved.len(), moved[0].1.as_str(), &moved[1]), (2, ";q=0.5", &(first[0].0.clone(), ";expires=0".to_owned())));
    assert_ne!(moved[0].0, first[0].0);
    assert_eq!(contacts(3, "198.51.100.7:31000", "a", own), moved[..1]);
    // Another phone with the same private address takes nobody's place.
    assert_eq!(contacts(1, "198.51.100.8:5060", "b", own).len(), 1);
    // One that has begun anew is known by its instance, and takes its old way away as it goes.
    let named = "Contact: <sip:bob@10.0.0.3>;+sip.instance=\"<urn:uuid:0>\"";
    let first = contacts(1, PHONE, "c", named);
    let gone = contacts(1, "198.51.100.7:32000", "d", &format!("{named};expires=0"));
    assert_eq!((gone.len(), &gone[1]), (2, &(first[0].0.clone(), ";expires=0".to_owned())));
    // Where the core is asked for long, it is asked for the new way only.
    let mut settings = forwarding(RegistrarMode::Contact);
    settings.registrar.as_mut().unwrap().upstream_expires_seconds = 14_400;
    let mut rig = Rig::new(settings);
    let sent = rig.receive(PHONE, &Register::new(1).text());
    rig.receive(CORE, &granted(&sent[0].text, 90));
    let sent = rig.receive("198.51.100.7:31000", &Register::new(2).text());
    let params: Vec<_> = header(&sent[0].text, "Contact").split(", ").map(|one| one.split_once('>').unwrap().1).collect();
    assert_eq!(params, [";expires=14400", ";expires=0"]);
}

#[test]
fn a_poisoned_contact_does_not_reach_the_core() {
    let mut rig = Rig::new(forwarding(RegistrarMode::Contact));
    let reply = one(rig.receive(PHONE, &Register::new(1).lines(&["Contact: <sip:bob@192.0.2.200>"]).text()));
    assert!(reply.starts_with("SIP/2.0 476"), "{reply}");
}

#[test]
fn a_phones_path_does_not_reach_the_core_either() {
    for mode in [RegistrarMode::Contact, RegistrarMode::Path] {
        let mut rig = Rig::new(forwarding(mode));
        let lines = ["Contact: <sip:bob@198.51.100.7>", "Path: <sip:203.0.113.1;lr>"];
        let sent = rig.receive(PHONE, &Register::new(1).lines(&lines).text());
        assert!(sent.len() == 1 && sent[0].status_code() == 403, "{sent:?}");
        let mut settings = forwarding(mode);
        settings.peers.iter_mut().for_each(|peer| peer.allow_routes = true);
        let sent = Rig::new(settings).receive(PHONE, &Register::new(1).lines(&lines).text());
        assert!(sent.iter().any(|sent| sent.to.to_string() == CORE), "an element that is believed may say how it is reached");
    }
}

fn among_phones() -> RouteSettings {
    let mut settings = served();
    settings.peers.remove(0);
    settings
}

/// A call of a phone at .8 to bob at .7, neither behind a NAT; the INVITE as bob got it.
fn called_in_the_open(rig: &mut Rig) -> String {
    one(rig.receive(PHONE, &Register::new(1).text()));
    let request = Request::new("INVITE", "sip:bob@example.net").via("SIP/2.0/UDP 198.51.100.8").text();
    let sent = rig.receive("198.51.100.8:5060", &request);
    sent.iter().find(|sent| sent.to.to_string() == PHONE).unwrap().text.clone()
}

/// A request within that call.
fn within(method: &str, told: &str, sender: &str, uri: &str, cseq: u32) -> String {
    let mut routes = headers(told, "Record-Route");
    let (from, to) = if sender == "198.51.100.8" { ("alice", "bob") } else { ("bob", "alice") };
    if from == "bob" {
        routes.reverse();
    }
    let request = Request::new(method, uri).via(&format!("SIP/2.0/UDP {sender}")).tags(from, to).cseq(cseq).branch(&format!("z9hG4bK-{method}-{cseq}"));
    let text = request.header(&format!("Route: {}", routes.join(", "))).text();
    let swapped = |text: &str| text.replace("From: <sip:alice@", "From: <sip:bob@").replace("To: <sip:bob@", "To: <sip:alice@");
    if from == "bob" { swapped(&text) } else { text }
}

#[test]
fn a_phone_that_rings_is_reached_within_its_early_dialog() {
    let mut rig = Rig::new(among_phones());
    let invite = called_in_the_open(&mut rig);
    let sent = rig.receive(PHONE, &response(&invite, 183, "bob").replace("sip:bob@203.0.113.9", "sip:bob@198.51.100.7"));
    let ringing = sent.iter().find(|sent| sent.status_code() == 183).unwrap().text.clone();
    for (method, cseq) in [("PRACK", 2), ("UPDATE", 3)] {
        let sent = rig.receive("198.51.100.8:5060", &within(method, &ringing, "198.51.100.8", "sip:bob@198.51.100.7", cseq));
        assert_eq!((sent.len(), sent[0].to.to_string().as_str()), (1, PHONE), "{method}: {sent:?}");
    }
    let sent = rig.receive("198.51.100.8:5060", &within("INFO", &ringing, "198.51.100.8", "sip:bob@203.0.113.77", 4));
    assert!(sent.len() == 1 && sent[0].status_code() == 500, "nobody else is");
}

#[test]
fn a_call_between_phones_goes_on_after_a_restart_by_their_bindings() {
    let mut rig = Rig::new(among_phones());
    let mut caller = Register { user: "alice", call_id: "reg-2", via: "198.51.100.8:5060", ..Register::new(1) }.lines(&["Contact: <sip:alice@198.51.100.8>"]);
    one(rig.receive("198.51.100.8:5060", &caller.text()));
    let invite = called_in_the_open(&mut rig);
    let sent = rig.receive(PHONE, &response(&invite, 200, "bob").replace("sip:bob@203.0.113.9", "sip:bob@198.51.100.7"));
    let ok = sent[0].text.clone();
    let mut next = Rig::new(among_phones());
    let lost = within("INFO", &ok, "198.51.100.8", "sip:bob@198.51.100.7", 2);
    assert_eq!(next.receive("198.51.100.8:5060", &lost).pop().unwrap().status_code(), 500, "nobody is registered");
    caller.cseq = 2;
    one(next.receive("198.51.100.8:5060", &caller.text()));
    one(next.receive(PHONE, &Register::new(2).text()));
    let to_bob = within("INFO", &ok, "198.51.100.8", "sip:bob@198.51.100.7", 3);
    assert_eq!(next.receive("198.51.100.8:5060", &to_bob)[0].to.to_string(), PHONE);
    let to_alice = within("BYE", &ok, "198.51.100.7", "sip:alice@198.51.100.8", 1);
    assert_eq!(next.receive(PHONE, &to_alice)[0].to.to_string(), "198.51.100.8:5060");
    let elsewhere = within("INFO", &ok, "198.51.100.8", "sip:bob@203.0.113.77", 4);
    assert_eq!(next.receive("198.51.100.8:5060", &elsewhere).pop().unwrap().status_code(), 500, "no binding leads there");
}

#[test]
fn a_phone_that_moves_within_a_call_is_reached_where_it_went() {
    let mut rig = Rig::new(among_phones());
    let invite = called_in_the_open(&mut rig);
    let sent = rig.receive(PHONE, &response(&invite, 200, "bob").replace("sip:bob@203.0.113.9", "sip:bob@198.51.100.7"));
    let ok = sent[0].text.clone();
    let info = within("INFO", &ok, "198.51.100.8", "sip:bob@198.51.100.70", 2);
    assert_eq!(rig.receive("198.51.100.8:5060", &info).pop().unwrap().status_code(), 500, "it is not there");
    let moved = within("INFO", &ok, "198.51.100.70", "sip:alice@198.51.100.8", 1);
    assert_eq!(rig.receive("198.51.100.70:5060", &moved)[0].to.to_string(), "198.51.100.8:5060");
    for (uri, cseq) in [("sip:bob@198.51.100.70", 3), ("sip:bob@198.51.100.7", 4)] {
        let sent = rig.receive("198.51.100.8:5060", &within("INFO", &ok, "198.51.100.8", uri, cseq));
        assert_eq!(sent[0].to.ip().to_string(), uri[8..], "where it went, and where its Contact may still be");
    }
}

#[test]
fn under_overload_a_registration_goes_on_where_nothing_must_be_fetched_for_it() {
    let mut rig = Rig::new(authenticating());
    assert_eq!(come_in(&mut rig, PHONE, "before"), 200);
    rig.edge.set_shedding(Shedding::Registrations);
    assert_eq!(come_in(&mut rig, PHONE, "meanwhile"), 200);
    let mut unknown = Register { call_id: "other", user: "carol", ..Register::new(1) };
    let challenge = one(rig.receive(PHONE, &unknown.text()));
    let line = format!("Authorization: {}", answer(challenges(&challenge)[0], "REGISTER", "sip:example.net", "carol", "x", 1));
    unknown = Register { call_id: "other", user: "carol", ..Register::new(2) }.lines(&[&line]);
    let reply = one(rig.receive(PHONE, &unknown.text()));
    assert!(reply.starts_with("SIP/2.0 503") && !header(&reply, "Retry-After").is_empty(), "{reply}");
    assert!(rig.credentials.is_empty());
}

#[test]
fn a_dialog_follows_its_phone_to_where_that_registered_anew() {
    let mut rig = Rig::new(served());
    let (_, ok) = called_behind_nat(&mut rig);
    let uri = header(&ok, "Contact").split(['<', '>']).nth(1).unwrap().split('?').next().unwrap().to_owned();
    let to_bob = |method: &str, cseq| of_core(method, &ok, &uri, cseq);
    // What the phone gave in its REGISTER is what the mark was put on, but for a parameter: then the way known is taken.
    let sent = rig.receive(CORE, &to_bob("INFO", 2));
    assert_eq!(sent[0].to.to_string(), "198.51.100.9:31000");
    rig.advance(2_000);
    let mut moved = Register::new(2).lines(&["Contact: <sip:bob@10.1.2.3:5070;ob>"]);
    moved.via = "10.1.2.3:5070";
    one(rig.receive("198.51.100.9:32222", &moved.text()));
    let sent = rig.receive(CORE, &to_bob("BYE", 3));
    assert_eq!(sent[0].to.to_string(), "198.51.100.9:32222");
}

#[test]
fn a_phone_that_came_back_is_found_whatever_number_was_called_and_by_our_own_requests() {
    let contact = ["Contact: <sip:bob@10.1.2.3:5070>"];
    let register = |rig: &mut Rig, cseq, from: &str| {
        let mut natted = Register::new(cseq).lines(&contact);
        natted.via = "10.1.2.3:5070";
        one(rig.receive(from, &natted.text()));
    };
    let number = |text: String| {
        text.lines().map(|line| format!("{}\r\n", if line.starts_with("To:") { line.replace("bob@", "4930123@") } else { line.to_owned() })).collect::<String>()
    };
    let answered = || {
        let mut rig = Rig::new(served());
        register(&mut rig, 1, "198.51.100.9:31000");
        let sent = rig.receive(CORE, &number(Request::new("INVITE", "sip:bob@example.net").via("SIP/2.0/UDP 192.0.2.200").text()));
        let ok = response(&sent[1].text, 200, "bob").replace("<sip:bob@203.0.113.9>", "<sip:bob@10.1.2.3:5070>");
        let sent = rig.receive("198.51.100.9:31000", &ok);
        let ok = sent.iter().find(|sent| sent.to.to_string() == CORE).unwrap().text.clone();
        rig.advance(2_000);
        (rig, ok)
    };
    for (from, place) in [("198.51.100.9:31000", "198.51.100.9:31000"), ("198.51.100.9:32222", "198.51.100.9:32222")] {
        let (mut rig, ok) = answered();
        register(&mut rig, 2, from);
        let uri = header(&ok, "Contact").split(['<', '>']).nth(1).unwrap().to_owned();
        let sent = rig.receive(CORE, &number(of_core("BYE", &ok, &uri, 2)));
        assert_eq!(sent[0].to.to_string(), place);
        // By command, too.
        let (mut rig, ok) = answered();
        register(&mut rig, 2, from);
        let sent = rig.hang_up(header(&ok, "Call-ID"));
        let places: Vec<String> = sent.iter().filter(|sent| sent.first_line().starts_with("BYE")).map(|sent| sent.to.to_string()).collect();
        assert!(places.contains(&place.to_owned()) && places.len() == 2, "{places:?}");
    }
}

#[test]
fn a_peer_is_told_by_stun_where_it_is_seen_and_a_stranger_is_not() {
    let mut rig = Rig::new(served());
    let request = b"\0\x01\0\0\x21\x12\xa4\x420123456789ab";
    assert_eq!(rig.receive_at(0, syntax::Transport::Udp, PHONE, request).len(), 1);
    assert!(rig.receive_at(0, syntax::Transport::Udp, "203.0.113.99:9", request).is_empty());
    assert_eq!((rig.counters().stun_answered.get(), rig.counters().stun_refused.get(), rig.counters().malformed.get()), (1, 1, 0));
}

#[test]
fn the_last_request_is_not_taken_again_with_other_content() {
    let mut rig = Rig::new(authenticating());
    let challenge = one(rig.receive(PHONE, &Register::new(1).text()));
    let line = format!("Authorization: {}", answer(challenges(&challenge)[0], "REGISTER", "sip:example.net", "bob", "secret", 1));
    let request = Register::new(2).lines(&["Contact: <sip:bob@198.51.100.7>", &line]).text();
    rig.receive(PHONE, &request);
    assert_eq!(code(rig.credentials(&found("secret"))), 200);
    let replay = request.replace("<sip:bob@198.51.100.7>", "<sip:bob@198.51.100.7>, <sip:eve@198.51.100.7:6666>");
    let reply = one(rig.receive(PHONE, &replay));
    assert!(reply.starts_with("SIP/2.0 401") && challenges(&reply)[0].contains("stale=true"), "{reply}");
    assert_eq!(rig.rows("bob@example.net").len(), 1);
}

#[test]
fn what_no_database_could_hold_is_nobodys_name_and_who_was_not_asked_yet_is_asked() {
    let mut rig = Rig::new(authenticating());
    let challenge = one(rig.receive(PHONE, &Register::new(1).text()));
    let good = answer(challenges(&challenge)[0], "REGISTER", "sip:example.net", "bob", "secret", 1);
    for user in ["b\u{1}ob", "b\u{7f}"] {
        let line = format!("Authorization: {}", good.replace("username=\"bob\"", &format!("username=\"{user}\"")));
        assert_eq!(code(rig.receive(PHONE, &Register::new(2).lines(&[&line]).text())), 400);
    }
    let early = "Authorization: Digest username=\"bob\", realm=\"example.net\", nonce=\"\", uri=\"sip:example.net\", response=\"\"";
    assert_eq!(code(rig.receive(PHONE, &Register::new(2).lines(&[early]).text())), 401);
    assert!(rig.credentials.is_empty());
}

#[test]
fn gateways_register_nobody_and_a_domain_that_is_not_ours_is_not_tried_at_the_core() {
    let mut settings = authenticating();
    settings.peers.push(peer("gateway", PeerKind::Gateway, "192.0.2.40", &[]));
    let mut rig = Rig::new(settings);
    let mut register = Register::new(1).lines(&["Contact: <sip:bob@192.0.2.40>"]);
    register.via = "192.0.2.40";
    assert_eq!(code(rig.receive("192.0.2.40:5060", &register.text())), 403);
    let foreign = Register::new(1).text().replace("To: <sip:bob@example.net>", "To: <sip:bob@example.net.>");
    assert_eq!(code(rig.receive(PHONE, &foreign)), 404);
}

#[test]
fn a_machine_is_not_banned_for_what_seems_to_come_from_it() {
    let mut settings = authenticating();
    // A rule for phones on the core's own address, at other ports.
    settings.peers[0].matches[0].port = 5060;
    settings.peers[1].matches[0].network = Some("192.0.2.0".parse().unwrap());
    let mut rig = Rig::new(settings);
    for number in 0..120 {
        guess(&mut rig, "192.0.2.200:7777", &format!("user{number}"), 1);
    }
    rig.tidy();
    assert_eq!((rig.counters().authentication_failed.get(), rig.counters().bans.get()), (120, 0));
}

#[test]
fn writing_begins_and_ends_with_the_configuration() {
    let mut rig = Rig::new(served());
    one(rig.receive(PHONE, &Register::new(1).text()));
    let mut off = served();
    off.registrar.as_mut().unwrap().persist = false;
    rig.reload(off.clone()).unwrap();
    assert!(rig.writes(100).is_empty());
    rig.reload(served()).unwrap();
    assert_eq!(rig.writes(100).len(), 1, "what was not written then is written now");
    one(rig.receive(PHONE, &Register::new(2).text()));
    assert_eq!(rig.writes(100).len(), 1);
    let mut without = off.clone();
    without.registrar = None;
    without.peers[1].authenticate = false;
    // A file without a registrar may be a slip: its bindings stay until they end.
    rig.reload(without.clone()).unwrap();
    rig.advance(10_000);
    assert!(rig.writes(100).is_empty());
    rig.reload(served()).unwrap();
    assert_eq!(rig.rows("bob@example.net").len(), 1);
    assert!(rig.receive(CORE, &Request::new("INVITE", "sip:bob@example.net").via("SIP/2.0/UDP 192.0.2.200").text()).len() > 1);
    rig.reload(without).unwrap();
    rig.advance(3_700_000);
    rig.reload(served()).unwrap();
    assert!(rig.rows("bob@example.net").is_empty());
}

#[test]
fn what_was_written_and_leaves_while_nothing_is_written_is_to_be_removed() {
    let mut rig = Rig::new(served());
    one(rig.receive(PHONE, &Register::new(1).text()));
    let written = rig.writes(100);
    let [LocationWrite::Put(row)] = written.as_slice() else { panic!("{written:?}") };
    let mut off = served();
    off.registrar.as_mut().unwrap().persist = false;
    rig.reload(off).unwrap();
    one(rig.receive(PHONE, &Register::new(2).lines(&["Contact: <sip:bob@198.51.100.7>;expires=0"]).text()));
    assert!(rig.writes(100).is_empty());
    rig.reload(served()).unwrap();
    assert_eq!(rig.writes(100), [LocationWrite::Delete(row.contact_id)]);
}

#[test]
fn the_answer_of_a_phone_behind_a_nat_is_marked_by_the_tests_that_its_requests_are() {
    for (test, contact, marked) in [
        ("diff-port-src-via", "<sip:bob@198.51.100.9:40000>", true),
        ("diff-port-src-via", "<sip:bob@198.51.100.9:31000>", false),
        ("diff-ip-src-via", "<sip:bob@10.0.0.2:31000>", true),
        ("private-via", "<sip:bob@10.0.0.2:31000>", true),
        ("private-via", "<sip:bob@198.51.100.7:31000>", false),
    ] {
        let mut settings = served();
        settings.nat.tests = vec![test.to_owned()];
        let mut rig = Rig::new(settings);
        let mut register = Register::new(1).lines(&["Contact: <sip:bob@198.51.100.9:31000>"]);
        register.via = "198.51.100.9:31000";
        one(rig.receive("198.51.100.9:31000", &register.text()));
        let sent = rig.receive(CORE, &Request::new("INVITE", "sip:bob@example.net").via("SIP/2.0/UDP 192.0.2.200").text());
        let ok = response(&sent[1].text, 200, "bob").replace("<sip:bob@203.0.113.9>", contact);
        let sent = rig.receive("198.51.100.9:31000", &ok);
        let told = header(&sent.iter().find(|sent| sent.to.to_string() == CORE).unwrap().text, "Contact").to_owned();
        assert_eq!(told.contains(";edge-flow="), marked, "{test} {told}");
    }
}

#[test]
fn a_phone_behind_a_nat_that_does_not_ask_for_it_is_answered_where_it_sent_from() {
    let mut rig = Rig::new(served());
    for (via, to) in [("192.168.1.2:5060", "198.51.100.9:31000"), ("100.64.3.4", "198.51.100.9:31000"), ("203.0.113.5:5099", "198.51.100.9:5099")] {
        let mut register = Register::new(1).text();
        register = register.replace(PHONE, via).replace(";rport", "");
        assert_eq!(rig.receive("198.51.100.9:31000", &register)[0].to.to_string(), to, "{via}");
    }
}

#[test]
fn a_name_that_leads_to_the_core_by_the_time_of_the_call_leads_nowhere() {
    let mut settings = served();
    settings.nat.tests = vec!["private-contact".to_owned()];
    let mut rig = Rig::new(settings);
    rig.receive(PHONE, &Register::new(1).lines(&["Contact: <sip:bob@changing.example.org>"]).text());
    let question = rig.questions.remove(0);
    assert_eq!(code(rig.answer(&question, &["198.51.100.9:5060"])), 200);
    rig.receive(CORE, &Request::new("INVITE", "sip:bob@example.net").via("SIP/2.0/UDP 192.0.2.200").text());
    let question = rig.questions.remove(0);
    let sent = rig.answer(&question, &["192.0.2.200:5060"]);
    assert!(sent.iter().all(|sent| !sent.text.starts_with("INVITE")), "{sent:?}");
}

#[test]
fn a_fork_keeps_to_max_breadth() {
    let mut rig = Rig::new(served());
    for number in 1..=3 {
        one(rig.receive(PHONE, &Register::new(number).lines(&[&format!("Contact: <sip:bob@198.51.100.7:600{number}>")]).text()));
    }
    let call = Request::new("INVITE", "sip:bob@example.net").via("SIP/2.0/UDP 192.0.2.200");
    let sent = rig.receive(CORE, &call.clone().header("Max-Breadth: 2").text());
    assert_eq!(sent[1..].len(), 1, "too little to share out: one after the other");
    let sent = rig.receive(CORE, &call.call_id("2").branch("z9hG4bK2").header("Max-Breadth: 7").text());
    let shares: Vec<&str> = sent[1..].iter().map(|sent| header(&sent.text, "Max-Breadth")).collect();
    assert_eq!(shares, ["2", "2", "2"]);
}

#[test]
fn two_phones_that_answer_one_call_have_a_dialog_each() {
    let places = ["198.51.100.8:5060", "198.51.100.9:5060"];
    let caller = PHONE;
    let mut settings = served();
    // Without a core phones call each other.
    settings.peers.remove(0);
    let mut rig = Rig::new(settings);
    for (number, place) in places.iter().enumerate() {
        let contact = format!("Contact: <sip:bob@{place}>");
        let mut register = Register::new(1).lines(&[&contact]);
        (register.call_id, register.via) = (["one", "two"][number], place);
        one(rig.receive(place, &register.text()));
    }
    let call = Request::new("INVITE", "sip:bob@example.net").via(&format!("SIP/2.0/UDP {caller}")).text();
    let sent = rig.receive(caller, &call);
    let rung: Vec<_> = places.map(|place| sent.iter().find(|sent| sent.to.to_string() == place).unwrap().clone()).into();
    let mut oks = Vec::new();
    for ((invite, place), tag) in rung.iter().zip(places).zip(["first", "second"]) {
        let ok = response(&invite.text, 200, tag).replace("Content-Length", &format!("Contact: <sip:bob@{place}>\r\nContent-Length"));
        let sent = rig.receive(place, &ok);
        oks.push(sent.iter().find(|sent| sent.to.to_string() == caller).unwrap().text.clone());
    }
    let within = |method: &str, ok: &str, tag: &str, place: &str, cseq: u32| {
        let request = Request::new(method, &format!("sip:bob@{place}")).via(&format!("SIP/2.0/UDP {caller}")).tags("alice", tag).cseq(cseq);
        let request = request.branch(&format!("z9hG4bK-{method}-{tag}"));
        headers(ok, "Record-Route").iter().fold(request, |request, route| request.header(&format!("Route: {route}"))).text()
    };
    // Each is told that its answer came (RFC 3261 section 13.2.2.4).
    for ((ok, tag), place) in oks.iter().zip(["first", "second"]).zip(places) {
        let sent = rig.receive(caller, &within("ACK", ok, tag, place, 1));
        assert_eq!(sent.iter().map(|sent| sent.to.to_string()).collect::<Vec<_>>(), [place], "{tag}");
    }
    let sent = rig.receive(caller, &within("INFO", &oks[1], "second", places[1], 2));
    assert_eq!(sent[0].to.to_string(), places[1]);
    rig.receive(places[1], &response(&sent[0].text, 200, "second"));
    // The one that is too much hangs up by itself: that says nothing of where the other one is.
    let routes: Vec<_> = headers(&rung[1].text, "Record-Route");
    let bye = Request::new("BYE", "sip:alice@198.51.100.7").via(&format!("SIP/2.0/UDP {}", places[1])).tags("second", "alice").branch("z9hG4bK-bye");
    let bye = routes.iter().fold(bye, |request, route| request.header(&format!("Route: {route}"))).text();
    let sent = rig.receive(places[1], &bye);
    assert_eq!(sent[0].to.to_string(), caller);
    rig.receive(caller, &response(&sent[0].text, 200, "alice"));
    assert!(rig.records.is_empty(), "the other dialog lives");
    let sent = rig.hang_up("call-1@198.51.100.7");
    let byes: Vec<_> = sent.iter().filter(|sent| sent.text.starts_with("BYE")).collect();
    assert_eq!(byes.iter().map(|sent| sent.to.to_string()).collect::<Vec<_>>(), [caller, places[0]]);
    assert!(byes[1].text.contains(";tag=first"));
}

#[test]
fn a_dialog_stays_with_the_phone_that_was_heard_last() {
    let mut rig = Rig::new(served());
    let mut before = Register::new(1).lines(&["Contact: <sip:bob@10.1.2.3:5070;ob>"]);
    before.via = "10.1.2.3:5070";
    one(rig.receive("198.51.100.9:30000", &before.text()));
    rig.advance(2_000);
    // The call came from another port than the registration: its mark is newer.
    let (_, ok) = called_behind_nat(&mut rig);
    let uri = header(&ok, "Contact").split(['<', '>']).nth(1).unwrap().split('?').next().unwrap().to_owned();
    let sent = rig.receive(CORE, &of_core("BYE", &ok, &uri, 2));
    assert_eq!(sent[0].to.to_string(), "198.51.100.9:31000");
}

#[test]
fn who_calls_anonymously_proves_who_it_is_and_is_vouched_for_to_the_core() {
    let mut rig = Rig::new(authenticating());
    let invite = |line: &str, branch: &str| {
        let text = Request::new("INVITE", "sip:carol@example.net").branch(branch).header(line).header("Privacy: id").text();
        text.replace("<sip:alice@example.net>", "\"Anonymous\" <sip:anonymous@anonymous.invalid>")
    };
    let challenge = one(rig.receive(PHONE, &invite("X: y", "z9hG4bK1")));
    let offered = headers(&challenge, "Proxy-Authenticate")[0].to_owned();
    let line = format!("Proxy-Authorization: {}", answer(&offered, "INVITE", "sip:carol@example.net", "bob", "secret", 1));
    rig.receive(PHONE, &invite(&line, "z9hG4bK2"));
    let sent = rig.credentials(&found("secret"));
    let invite = &sent[1].text;
    assert!(header(invite, "From").starts_with("\"Anonymous\" <sip:anonymous@anonymous.invalid>"), "{invite}");
    assert_eq!((header(invite, "P-Asserted-Identity"), header(invite, "Privacy")), ("<sip:bob@example.net>", "id"));
    rig.receive(CORE, &response(invite, 486, "busy"));
    assert_eq!(rig.records.len(), 1, "a challenge is no call");
    assert_eq!(rig.records[0].notes, vec![("account".to_owned(), "bob@example.net".to_owned())]);
}

#[test]
fn the_queue_of_unwritten_bindings_is_bounded_by_the_bindings() {
    let mut rig = Rig::new(served());
    for number in 0..3_000 {
        let expires = if number % 2 == 0 { 600 } else { 0 };
        one(rig.receive(PHONE, &Register::new(number + 1).lines(&["Contact: <sip:bob@198.51.100.7>", &format!("Expires: {expires}")]).text()));
    }
    rig.tidy();
    assert!(rig.counters().location_unwritten.get() < 1_200, "{}", rig.counters().location_unwritten.get());
}

#[test]
fn a_phone_of_ipv6_registers_and_is_called() {
    let mut settings = served();
    settings.listeners.push(listener("six", "udp:[2001:db8::1]:5060"));
    settings.peers.push(peer("six", PeerKind::Subscribers, "2001:db8::/32", &[]));
    let mut rig = Rig::new(settings);
    let phone = "[2001:db8::7]:5060";
    let mut register = Register::new(1).lines(&["Contact: <sip:bob@[2001:DB8:0::7]:5060>"]);
    register.via = phone;
    let sent = rig.receive_at(1, syntax::Transport::Udp, phone, register.text().as_bytes());
    assert_eq!(sent[0].status_code(), 200);
    assert!(!rig.rows("bob@example.net")[0].natted, "the same address, written in another way");
    let own = Register { via: phone, ..Register::new(2).lines(&["Contact: <sip:bob@[2001:db8::1]>"]) };
    assert_eq!(rig.receive_at(1, syntax::Transport::Udp, phone, own.text().as_bytes())[0].status_code(), 476);
    let sent = rig.receive(CORE, &Request::new("INVITE", "sip:bob@example.net").via("SIP/2.0/UDP 192.0.2.200").text());
    assert_eq!((sent[1].to.to_string().as_str(), sent[1].listener), (phone, 1));
}

#[test]
fn all_addresses_of_a_site_guess_as_one() {
    let mut settings = authenticating();
    settings.listeners.push(listener("six", "udp:[2001:db8::1]:5060"));
    settings.peers.push(peer("six", PeerKind::Subscribers, "2001:db8::/32", &[]));
    settings.peers.last_mut().unwrap().authenticate = true;
    let mut rig = Rig::new(settings);
    let mut guess = |number: u32, from: &str| {
        let (call_id, user) = (format!("six-{number}"), format!("user{number}"));
        let mut register = Register { call_id: &call_id, user: &user, ..Register::new(1) };
        let challenge = one(rig.receive_at(1, syntax::Transport::Udp, from, register.text().as_bytes()));
        let line = format!("Authorization: {}", answer(challenges(&challenge)[0], "REGISTER", "sip:example.net", &user, "guess", 1));
        register = Register { call_id: &call_id, user: &user, ..Register::new(2) }.lines(&[&line]);
        let mut sent = rig.receive_at(1, syntax::Transport::Udp, from, register.text().as_bytes());
        sent.extend(rig.credentials(&found("secret")));
        sent[0].status_code()
    };
    let codes: Vec<u16> = (0..102).map(|number| guess(number, &format!("[2001:db8:0:1::{number:x}]:5060"))).collect();
    assert_eq!((codes[0], codes[99], codes[100], codes[101]), (401, 401, 403, 403));
    assert_eq!(guess(200, "[2001:db8:0:2::1]:5060"), 401, "another site");
}

#[test]
fn guesses_at_other_nodes_count_here_and_bans_of_others_spare_who_is_known() {
    let mut settings = authenticating();
    settings.shared = Some(edge::SharedSettings { wait_milliseconds: 0, waiting: 0, attacks: true });
    let mut rig = Rig::new(settings);
    rig.listen(&["E_AUTH_ATTACK", "E_BAN_ADDED"]);
    guess(&mut rig, "198.51.100.66:5060", "bob", 3);
    let told = rig.take_failures();
    let failures: Vec<_> = told.iter().map(|failure| (failure.source.to_string(), failure.account.as_str(), failure.cleared)).collect();
    assert!(failures.len() == 3 && failures.iter().all(|failure| (failure.0.as_str(), failure.2) == ("198.51.100.66", false)), "{failures:?}");
    let account = told[0].account.clone();
    let source = told[0].source;
    // Others counted what is missing: the pair is over its limit, once.
    let shared = edge::SharedFailures { source, account: account.clone(), of_pair: 25, of_user: 25, of_source: 25 };
    rig.raise_failures(std::slice::from_ref(&shared));
    rig.raise_failures(&[shared]);
    assert_eq!(rig.take_events().iter().map(|event| event.values[0].clone()).collect::<Vec<_>>(), ["pair".into()]);
    assert_eq!(guess(&mut rig, "198.51.100.66:5060", "bob", 1), [403]);
    // As many as ban a source; a node that heard of fewer than it knows forgets nothing.
    rig.raise_failures(&[edge::SharedFailures { source, account, of_pair: 1, of_user: 1, of_source: 200 }]);
    assert_eq!(rig.take_events().iter().filter(|event| event.kind.shape().0 == "E_BAN_ADDED").count(), 1);
    // A success after failures lets others begin anew for the pair.
    guess(&mut rig, PHONE, "bob", 1);
    rig.take_failures();
    assert_eq!(come_in(&mut rig, PHONE, "good"), 200);
    assert!(rig.take_failures().iter().any(|failure| failure.cleared));
    let (known, stranger) = (PHONE.split(':').next().unwrap_or_default(), "198.51.100.77");
    assert!(!rig.ban_with_others(known, 60) && rig.ban_with_others(stranger, 60));
    // Its address may have been forged there: the kernel must leave a way for calls for help.
    assert_eq!(rig.take_events().last().map(|event| event.values[3].clone()), Some("udp".into()));
}

#[test]
fn one_contact_too_many_is_counted_and_told_wherever_it_is_found() {
    let mut settings = served();
    settings.registrar.as_mut().unwrap().rules.max_contacts = 2;
    let mut rig = Rig::new(settings);
    rig.listen(&["E_REGISTER_POISONING"]);
    let of =
        |count: usize| format!("Contact: {}", (0..count).map(|number| format!("<sip:bob@198.51.100.7:{}>", 6_000 + number)).collect::<Vec<_>>().join(", "));
    assert_eq!(code(rig.receive(PHONE, &Register::new(1).lines(&[&of(3)]).text())), 403);
    assert_eq!(code(rig.receive(PHONE, &Register::new(2).lines(&[&of(40)]).text())), 400);
    assert_eq!(rig.counters().contacts_too_many.get(), 2);
    let told = rig.take_events();
    assert!(told.len() == 2 && told.iter().all(|event| event.values[3] == "is one too many".into()), "{told:?}");
}

#[test]
fn an_operator_finds_a_user_by_any_spelling_and_a_user_agent_is_cut_between_characters() {
    let mut settings = served();
    settings.registrar.as_mut().unwrap().aliases = [("desk@example.net".to_owned(), "bob@example.net".to_owned())].into();
    let mut rig = Rig::new(settings);
    let agent = format!("User-Agent: {}", "\u{fc}".repeat(40));
    one(rig.receive(PHONE, &Register::new(1).lines(&["Contact: <sip:bob@198.51.100.9>", &agent]).text().replace("User-Agent: test phone\r\n", "")));
    let odd = "Contact: <sip:bob@198.51.100.7;PN-provider=a;PN-prid=b;PN-param=c>";
    one(rig.receive(PHONE, &Register::new(2).lines(&[odd]).text()));
    one(rig.receive(PHONE, &Register::new(3).lines(&[&odd.replace("198.51.100.7", "198.51.100.7:5070")]).text()));
    for name in ["bob@Example.NET", "sip:bob@example.net", "desk@example.net"] {
        let rows = rig.rows(name);
        assert_eq!(rows.len(), 2, "{name}: the device of a push service is one");
        assert!(rows.iter().any(|row| row.user_agent == "\u{fc}".repeat(32)), "{rows:?}");
    }
}

#[test]
fn a_contact_has_room_for_the_token_of_a_push_service() {
    let mut rig = Rig::new(served());
    let contact = |bytes: usize| format!("<sip:bob@198.51.100.7;pn-provider=fcm;pn-prid={}>", "t".repeat(bytes));
    let ok = one(rig.receive(PHONE, &Register::new(1).lines(&[&format!("Contact: {};expires=600", contact(700))]).text()));
    assert_eq!(header(&ok, "Contact"), format!("{};expires=600", contact(700)));
    let sent = rig.receive(CORE, &Request::new("INVITE", "sip:bob@example.net").branch("z9hG4bKcall").text());
    let invite = sent.iter().find(|sent| sent.to.to_string() == PHONE).unwrap();
    assert!(invite.first_line().contains(&"t".repeat(700)), "{}", invite.text);
    assert_eq!(code(rig.receive(PHONE, &Register::new(2).lines(&[&format!("Contact: {}", contact(1_000))]).text())), 400);
}
