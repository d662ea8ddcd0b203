//! Flows, GRUUs and devices of push services (RFC 5626, 5627, 8599), on simulated time.
#![expect(clippy::unwrap_used, reason = "tests")]

use edge::{ConnectionId, Hop, LocationWrite, PeerKind, RegistrarMode, RouteSettings};
use syntax::Transport;
use testkit::{Request, Rig, Sent, header, headers, peer, registrar, response, settings};

const CORE: &str = "192.0.2.200:5060";
const FIRST: &str = "198.51.100.7:5060";
const SECOND: &str = "198.51.100.7:6060";
const INSTANCE: &str = "\"<urn:uuid:00000000-0000-1000-8000-AABBCCDDEEFF>\"";

fn served() -> RouteSettings {
    let mut settings =
        settings(vec![peer("core", PeerKind::Core, "192.0.2.200", &["sip:192.0.2.200"]), peer("phones", PeerKind::Subscribers, "198.51.100.0/24", &[])]);
    settings.registrar = Some(registrar("example.net"));
    settings
}

fn register(call_id: &str, cseq: u32, via: &str, lines: &[&str]) -> String {
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    format!(
        "REGISTER sip:example.net SIP/2.0\r\nVia: SIP/2.0/UDP {via};branch=z9hG4bK-{call_id}-{cseq}\r\nMax-Forwards: 70\r\n\
         From: <sip:bob@example.net>;tag=1\r\nTo: <sip:bob@example.net>\r\nCall-ID: {call_id}\r\nCSeq: {cseq} REGISTER\r\n{lines}Content-Length: 0\r\n\r\n"
    )
}

/// Registers a flow of bob's phone from `source`.
fn flow(rig: &mut Rig, source: &str, reg_id: u32) -> String {
    let contact = format!("Contact: <sip:bob@198.51.100.7;ob>;+sip.instance={INSTANCE};reg-id={reg_id}");
    let call_id = format!("flow-{reg_id}");
    one(rig.receive(source, &register(&call_id, 1, source, &[&contact, "Supported: path, outbound, gruu"])))
}

fn one(sent: Vec<Sent>) -> String {
    assert_eq!(sent.len(), 1, "{sent:?}");
    sent[0].text.clone()
}

fn invite(uri: &str) -> Request {
    Request::new("INVITE", uri).via("SIP/2.0/UDP 192.0.2.200")
}

fn places(sent: &[Sent], method: &str) -> Vec<String> {
    sent.iter().filter(|sent| sent.text.starts_with(method)).map(|sent| sent.to.to_string()).collect()
}

fn gruu<'a>(ok: &'a str, name: &str) -> &'a str {
    let start = ok.find(&format!("{name}=\"")).unwrap() + name.len() + 2;
    ok[start..].split('"').next().unwrap()
}

#[test]
fn flows_of_a_phone_are_told_apart_and_one_rings_at_a_time() {
    let mut rig = Rig::new(served());
    let ok = flow(&mut rig, FIRST, 1);
    assert_eq!(header(&ok, "Require"), "outbound");
    rig.advance(2_000);
    let ok = flow(&mut rig, SECOND, 2);
    let told: Vec<_> = headers(&ok, "Contact").iter().map(|contact| contact.split(";reg-id=").nth(1).unwrap()[..1].to_owned()).collect();
    assert_eq!(told, ["1", "2"]);
    // The latest flow is tried; the other only where that fails, and not at all where the phone speaks for itself.
    let sent = rig.receive(CORE, &invite("sip:bob@example.net").text());
    assert_eq!(places(&sent, "INVITE"), [SECOND]);
    let failed = sent.iter().find(|sent| sent.text.starts_with("INVITE")).unwrap().clone();
    let again = rig.receive(SECOND, &response(&failed.text, 430, "edge"));
    assert_eq!((places(&again, "INVITE"), rig.counters().flows_failed.get()), (vec![FIRST.to_owned()], 1));
    let first = again.iter().find(|sent| sent.text.starts_with("INVITE")).unwrap().clone();
    let sent = rig.receive(FIRST, &response(&first.text, 486, "bob"));
    assert!(sent.iter().any(|sent| sent.to.to_string() == CORE && sent.status_code() == 486), "{sent:?}");
    assert!(places(&sent, "INVITE").is_empty());
}

#[test]
fn a_flow_that_cannot_be_sent_to_or_is_silent_gives_way_to_the_next() {
    for silent in [false, true] {
        let mut rig = Rig::new(served());
        flow(&mut rig, FIRST, 1);
        rig.advance(2_000);
        flow(&mut rig, SECOND, 2);
        let sent = rig.receive(CORE, &invite("sip:bob@example.net").text());
        let first = sent.iter().find(|sent| sent.text.starts_with("INVITE")).unwrap().clone();
        let sent = if silent { rig.advance(33_000) } else { rig.undeliverable(&first) };
        assert_eq!(places(&sent, "INVITE").iter().filter(|place| *place == FIRST).count().min(1), 1, "{silent} {sent:?}");
        // Once both have failed the caller is told.
        let last = sent.iter().find(|sent| sent.to.to_string() == FIRST).unwrap().clone();
        let sent = rig.undeliverable(&last);
        assert!(sent.iter().any(|sent| sent.to.to_string() == CORE && sent.status_code() >= 400), "{sent:?}");
    }
}

#[test]
fn two_phones_ring_at_once_each_by_one_flow() {
    let mut rig = Rig::new(served());
    flow(&mut rig, FIRST, 1);
    flow(&mut rig, SECOND, 2);
    one(rig.receive("198.51.100.9:5060", &register("other", 1, "198.51.100.9", &["Contact: <sip:bob@198.51.100.9>"])));
    let sent = rig.receive(CORE, &invite("sip:bob@example.net").text());
    let mut to = places(&sent, "INVITE");
    to.sort();
    // Of two flows of one second the later one.
    assert_eq!(to, [SECOND, "198.51.100.9:5060"]);
}

#[test]
fn what_is_no_outbound_has_no_flows_and_what_is_half_of_it_is_refused() {
    let mut rig = Rig::new(served());
    let contact = format!("Contact: <sip:bob@198.51.100.7>;+sip.instance={INSTANCE};reg-id=1");
    // Who does not say that he knows it is a phone like any other.
    let ok = one(rig.receive(FIRST, &register("a", 1, FIRST, &[&contact])));
    assert!(headers(&ok, "Require").is_empty() && !header(&ok, "Contact").contains("reg-id"), "{ok}");
    let anonymous = one(rig.receive(FIRST, &register("b", 1, FIRST, &["Contact: <sip:bob@198.51.100.7>;reg-id=1", "Supported: outbound"])));
    assert!(headers(&anonymous, "Require").is_empty());
    let two = format!("{contact}, <sip:bob@198.51.100.7:9>");
    let cases = [
        (vec![two.as_str(), "Supported: outbound"], 400),
        (vec!["Contact: <sip:bob@198.51.100.7>;+sip.instance=\"<urn:x>\";reg-id=0", "Supported: outbound"], 400),
        (vec!["Contact: <sip:bob@198.51.100.7>;+sip.instance=\"<urn:x>\";reg-id=x", "Supported: outbound"], 400),
        (vec![contact.as_str(), "Supported: outbound", "Via: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKx"], 439),
        // Who requires it knows it.
        (vec![contact.as_str(), "Require: outbound", "Via: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKx"], 439),
    ];
    for (lines, expected) in cases {
        let reply = one(rig.receive(FIRST, &register("c", 1, FIRST, &lines)));
        assert!(reply.starts_with(&format!("SIP/2.0 {expected} ")), "{lines:?} {reply}");
    }
    assert_eq!(rig.rows("bob@example.net").len(), 1);
    // Behind an edge that knows Outbound it is one.
    let path = ["Path: <sip:192.0.2.200;lr>, <sip:edge.example.net;lr;ob>", "Via: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKx"];
    let ok = one(rig.receive(CORE, &register("d", 1, "192.0.2.200", &[&contact, "Supported: outbound", path[0], path[1]])));
    assert_eq!(header(&ok, "Require"), "outbound");
    let ok = one(rig.receive(FIRST, &register("e", 1, FIRST, &["Contact: <sip:bob@198.51.100.7>", "Require: outbound, gruu"])));
    assert!(ok.starts_with("SIP/2.0 200"));
}

#[test]
fn flows_outlive_a_restart() {
    let mut rig = Rig::new(served());
    flow(&mut rig, FIRST, 1);
    flow(&mut rig, SECOND, 2);
    let rows: Vec<_> = rig.writes(100).into_iter().filter_map(|write| if let LocationWrite::Put(row) = write { Some(*row) } else { None }).collect();
    assert_eq!(rows.iter().map(|row| row.reg_id).collect::<Vec<_>>(), [1, 2]);
    assert_ne!(rows[0].contact_id, rows[1].contact_id);
    let mut next = Rig::new(served());
    assert!(rows.iter().all(|row| next.restore(row)));
    let sent = next.receive(CORE, &invite("sip:bob@example.net").text());
    assert_eq!(places(&sent, "INVITE").len(), 1);
    assert!(next.writes(100).is_empty());
}

#[test]
fn an_instance_is_the_same_in_either_case() {
    let mut rig = Rig::new(served());
    for (number, instance) in [INSTANCE.to_owned(), INSTANCE.to_lowercase(), INSTANCE.to_uppercase()].into_iter().enumerate() {
        let contact = format!("Contact: <sip:bob@198.51.100.7:60{number}0;ob>;+sip.instance={instance};reg-id=1");
        let ok = one(rig.receive(FIRST, &register(&format!("i{number}"), 1, FIRST, &[&contact, "Supported: path, outbound"])));
        assert_eq!(testkit::headers(&ok, "Contact").len(), 1, "{ok}");
    }
}

#[test]
fn a_gruu_leads_to_its_device_only() {
    let mut rig = Rig::new(served());
    one(rig.receive("198.51.100.9:5060", &register("other", 1, "198.51.100.9", &["Contact: <sip:bob@198.51.100.9>"])));
    let contact = format!("Contact: <sip:bob@198.51.100.7>;+sip.instance={INSTANCE}");
    let ask = |rig: &mut Rig, call_id: &str, cseq| one(rig.receive(FIRST, &register(call_id, cseq, FIRST, &[&contact, "Supported: gruu"])));
    let ok = ask(&mut rig, "g", 1);
    let public = gruu(&ok, "pub-gruu").to_owned();
    let temporary = gruu(&ok, "temp-gruu").to_owned();
    assert_eq!(public, "sip:bob@example.net;gr=urn:uuid:00000000-0000-1000-8000-AABBCCDDEEFF");
    assert!(temporary.starts_with("sip:tgruu.") && temporary.ends_with("@example.net;gr") && !temporary.contains("bob"), "{temporary}");
    let later = gruu(&ask(&mut rig, "g", 2), "temp-gruu").to_owned();
    assert_ne!(later, temporary);
    for (number, uri) in [&public.to_lowercase(), &temporary, &later].into_iter().enumerate() {
        let sent = rig.receive(CORE, &invite(uri).call_id(&format!("c{number}")).branch(&format!("z9hG4bKc{number}")).text());
        let to = sent.iter().find(|sent| sent.text.starts_with("INVITE")).unwrap();
        assert_eq!((places(&sent, "INVITE"), to.first_line()), (vec![FIRST.to_owned()], "INVITE sip:bob@198.51.100.7 SIP/2.0"), "{uri}");
    }
    // Another registration of the device makes its older names void; nobody else's are known here.
    let fresh = gruu(&ask(&mut rig, "h", 1), "temp-gruu").to_owned();
    let strange = public.replace("AABB", "0000");
    for (number, (uri, found)) in [(&temporary, 0), (&later, 0), (&strange, 0), (&fresh, 1)].into_iter().enumerate() {
        let sent = rig.receive(CORE, &invite(uri).call_id(&format!("d{number}")).branch(&format!("z9hG4bKd{number}")).text());
        assert_eq!(places(&sent, "INVITE").len(), found, "{uri}");
        assert!(found == 1 || sent.iter().any(|sent| sent.status_code() == 480), "{uri}");
    }
    // Who does not ask is told none, and nobody registers at such a place.
    let plain = one(rig.receive(FIRST, &register("h", 2, FIRST, &[&contact])));
    assert!(!plain.contains("gruu"));
    let refused = one(rig.receive("198.51.100.9:5060", &register("o", 1, "198.51.100.9", &[&format!("Contact: <{public}>")])));
    assert!(refused.starts_with("SIP/2.0 403 "), "{refused}");
}

#[test]
fn a_request_within_a_dialog_finds_the_device_by_its_gruu() {
    let mut rig = Rig::new(served());
    let contact = format!("Contact: <sip:bob@10.1.2.3>;+sip.instance={INSTANCE}");
    let ok = one(rig.receive("198.51.100.9:31000", &register("g", 1, "10.1.2.3", &[&contact, "Supported: gruu"])));
    let public = gruu(&ok, "pub-gruu").to_owned();
    let sent = rig.receive(CORE, &invite("sip:bob@example.net").text());
    let call = sent.iter().find(|sent| sent.text.starts_with("INVITE")).unwrap().text.clone();
    let answer = response(&call, 200, "bob").replace("sip:bob@203.0.113.9", &public);
    let answer = one(rig.receive("198.51.100.9:31000", &answer));
    let marked = header(&answer, "Contact").trim_matches(['<', '>']).to_owned();
    assert!(marked.starts_with(&format!("{public};edge-flow=")), "{marked}");
    let route = headers(&answer, "Record-Route").join(", ");
    // The phone comes back from another port meanwhile.
    one(rig.receive("198.51.100.9:42000", &register("g", 2, "10.1.2.3", &[&contact, "Supported: gruu"])));
    for (method, cseq) in [("ACK", 1), ("INFO", 2), ("BYE", 3)] {
        let request = Request::new(method, &marked).via("SIP/2.0/UDP 192.0.2.200").tags("alice", "bob").cseq(cseq).branch(&format!("z9hG4bK-{method}"));
        let sent = rig.receive(CORE, &request.header(&format!("Route: {route}")).text());
        assert_eq!(places(&sent, method), ["198.51.100.9:42000"], "{sent:?}");
        assert_eq!(sent[0].first_line(), format!("{method} sip:bob@10.1.2.3 SIP/2.0"));
    }
}

#[test]
fn push_parameters_are_kept_and_name_the_device() {
    let mut rig = Rig::new(served());
    let uri = |host: &str| format!("sip:bob@{host};pn-provider=fcm;pn-param=app;pn-prid=dev%3A1");
    for (cseq, host) in [(1, "198.51.100.7"), (2, "198.51.100.8")] {
        let contact = format!("Contact: <{}>", uri(host));
        let ok = one(rig.receive(FIRST, &register(&format!("p{cseq}"), cseq, host, &[&contact])));
        assert_eq!(headers(&ok, "Contact").len(), 1, "{ok}");
        assert!(header(&ok, "Contact").starts_with(&format!("<{}>", uri(host))));
    }
    let sent = rig.receive(CORE, &invite("sip:bob@example.net").text());
    let call = sent.iter().find(|sent| sent.text.starts_with("INVITE")).unwrap();
    assert_eq!(call.first_line(), format!("INVITE {} SIP/2.0", uri("198.51.100.8")));
}

#[test]
fn a_contact_that_wants_its_flow_is_marked_in_the_open_too() {
    let mut rig = Rig::new(served());
    flow(&mut rig, FIRST, 1);
    let sent = rig.receive(CORE, &invite("sip:bob@example.net").text());
    let call = sent.iter().find(|sent| sent.text.starts_with("INVITE")).unwrap().text.clone();
    let answer = one(rig.receive(FIRST, &response(&call, 200, "bob").replace("sip:bob@203.0.113.9", "sip:bob@198.51.100.7;ob")));
    assert!(header(&answer, "Contact").starts_with("<sip:bob@198.51.100.7;ob;edge-flow="), "{answer}");
}

#[test]
fn a_core_behind_us_learns_of_flows_and_of_their_end() {
    let mut settings = served();
    settings.registrar.as_mut().unwrap().mode = RegistrarMode::Path;
    let mut rig = Rig::new(settings.clone());
    let connection = ConnectionId { worker: 0, slot: 3, generation: 9, only: false };
    let phone = Hop { listener: 0, transport: Transport::Tcp, address: "198.51.100.7:33000".parse().unwrap(), connection: Some(connection) };
    let contact = format!("Contact: <sip:bob@198.51.100.7;ob>;+sip.instance={INSTANCE};reg-id=2");
    let text = register("flow", 1, FIRST, &[&contact, "Supported: path, outbound"]).replace("/UDP", "/TCP");
    let sent = rig.receive_by(&phone, &text);
    let forwarded = sent[0].text.clone();
    let path = header(&forwarded, "Path").to_owned();
    assert!(path.ends_with(";lr;ob>"), "{path}");
    let granted = format!("{contact};expires=90\r\nPath: {path}\r\nRequire: outbound\r\n");
    one(rig.receive(CORE, &response(&forwarded, 200, "core").replace("Contact: <sip:bob@203.0.113.9>\r\n", &granted)));
    assert_eq!(rig.rows("bob@example.net")[0].reg_id, 2);
    let call = |id: &str| invite("sip:bob@198.51.100.7;ob").header(&format!("Route: {path}")).call_id(id).branch(&format!("z9hG4bK{id}")).text();
    let sent = rig.receive(CORE, &call("one"));
    let there = sent.iter().find(|sent| sent.text.starts_with("INVITE")).unwrap().clone();
    assert_eq!(there.to.to_string(), "198.51.100.7:33000");
    // The connection has gone: the core may try another flow.
    let sent = rig.undeliverable(&there);
    assert!(sent.iter().any(|sent| sent.to.to_string() == CORE && sent.status_code() == 430), "{sent:?}");
    // After a restart nobody has it any more; nobody is called back over it.
    let mut next = Rig::with_epoch(settings, 7);
    let sent = next.receive(CORE, &call("two"));
    assert!(sent.iter().any(|sent| sent.status_code() == 430) && places(&sent, "INVITE").is_empty(), "{sent:?}");
}

fn throttled(mode: RegistrarMode) -> RouteSettings {
    let mut settings = served();
    let registrar = settings.registrar.as_mut().unwrap();
    registrar.mode = mode;
    (registrar.rules.max_expires_seconds, registrar.upstream_expires_seconds) = (300, 3_600);
    settings
}

/// The core grants what it is asked for, in Contact or in Expires.
fn core_grants(register: &str) -> String {
    let lines = if header(register, "Contact").contains(";expires=") {
        format!("Contact: {}\r\n", header(register, "Contact"))
    } else {
        format!("Contact: {}\r\nExpires: {}\r\n", header(register, "Contact"), header(register, "Expires"))
    };
    response(register, 200, "core").replace("Contact: <sip:bob@203.0.113.9>\r\n", &lines)
}

#[test]
fn a_core_sees_one_refresh_in_many_and_each_change() {
    for (mode, own) in [(RegistrarMode::Path, "Expires: 60"), (RegistrarMode::Contact, "Supported: path")] {
        let mut rig = Rig::new(throttled(mode));
        let contact = if own == "Expires: 60" { "Contact: <sip:bob@198.51.100.7>" } else { "Contact: <sip:bob@198.51.100.7>;expires=60" };
        let forwarded = |sent: &[Sent]| places(sent, "REGISTER").len();
        let sent = rig.receive(FIRST, &register("t", 1, FIRST, &[contact, own]));
        let text = &sent[0].text;
        assert!(text.contains("xpires=3600") || header(text, "Expires") == "3600", "{text}");
        let ok = one(rig.receive(CORE, &core_grants(text)));
        assert!(header(&ok, "Contact").ends_with("<sip:bob@198.51.100.7>;expires=60"), "{ok}");
        for cseq in 2..20 {
            rig.advance(50_000);
            let ok = one(rig.receive(FIRST, &register("t", cseq, FIRST, &[contact, own])));
            assert!(ok.starts_with("SIP/2.0 200") && header(&ok, "Contact") == "<sip:bob@198.51.100.7>;expires=60", "{ok}");
        }
        assert_eq!((rig.counters().refreshes_answered.get(), rig.rows("bob@example.net").len()), (18, 1));
        // What somebody requires only the core can judge.
        let requires = rig.receive(FIRST, &register("t", 20, FIRST, &[contact, own, "Require: foo"]));
        assert_eq!((forwarded(&requires), header(&requires[0].text, "Require")), (1, "foo"));
        // Another source, another Call-ID, another preference, the end, a question: the core is to know.
        let elsewhere = rig.receive(SECOND, &register("t", 21, SECOND, &[contact, own]));
        let reborn = rig.receive(FIRST, &register("u", 1, FIRST, &[contact, own]));
        let less = rig.receive(FIRST, &register("t", 22, FIRST, &[&format!("{contact};q=0.5"), own]));
        let gone = rig.receive(FIRST, &register("t", 23, FIRST, &["Contact: <sip:bob@198.51.100.7>;expires=0"]));
        let asks = rig.receive(FIRST, &register("t", 24, FIRST, &[]));
        assert_eq!([elsewhere, reborn, less, gone.clone(), asks].map(|sent| forwarded(&sent)), [1; 5]);
        assert!(header(&gone[0].text, "Contact").ends_with(";expires=0"));
        // Before the core's time is over it is asked again.
        rig.advance(2_640_000);
        let sent = rig.receive(FIRST, &register("t", 25, FIRST, &[contact, own]));
        assert_eq!(forwarded(&sent), 1, "{sent:?}");
    }
}

#[test]
fn without_the_wish_each_refresh_goes_to_the_core() {
    let mut settings = throttled(RegistrarMode::Path);
    settings.registrar.as_mut().unwrap().upstream_expires_seconds = 0;
    let mut rig = Rig::new(settings);
    for cseq in 1..4 {
        let sent = rig.receive(FIRST, &register("t", cseq, FIRST, &["Contact: <sip:bob@198.51.100.7>", "Expires: 60"]));
        assert_eq!((places(&sent, "REGISTER").len(), header(&sent[0].text, "Expires")), (1, "60"));
        one(rig.receive(CORE, &core_grants(&sent[0].text)));
    }
}

/// Bob's phone answers, or pretends to, with this Contact: what the core has as remote target, and the Route.
fn answered_with(rig: &mut Rig, contact: &str) -> (String, String) {
    let sent = rig.receive(CORE, &invite("sip:bob@example.net").text());
    let call = sent.iter().find(|sent| sent.text.starts_with("INVITE")).unwrap().clone();
    let answer = response(&call.text, 200, "bob").replace("sip:bob@203.0.113.9", contact);
    let answer = one(rig.receive(&call.to.to_string(), &answer));
    (header(&answer, "Contact").trim_matches(['<', '>']).to_owned(), headers(&answer, "Record-Route").join(", "))
}

fn within(method: &str, uri: &str, route: &str) -> String {
    let request = Request::new(method, uri).via("SIP/2.0/UDP 192.0.2.200").tags("alice", "bob").cseq(9).branch(&format!("z9hG4bK-{method}-{}", uri.len()));
    request.header(&format!("Route: {route}")).text()
}

#[test]
fn a_dialog_leads_to_nobody_elses_device() {
    // The phone that answers names another user's device, or none in particular; or a request does so.
    for claimed in ["pub-gruu", "temp-gruu", ""] {
        let mut rig = Rig::new(served());
        let contact = format!("Contact: <sip:carol@198.51.100.7>;+sip.instance={INSTANCE}");
        let ok = one(rig.receive(FIRST, &register("v", 1, FIRST, &[&contact, "Supported: gruu"]).replace("bob@", "carol@")));
        let claimed = if claimed.is_empty() { "sip:carol@example.net;gr" } else { gruu(&ok, claimed) };
        one(rig.receive("198.51.100.9:31000", &register("m", 1, "10.1.2.3", &["Contact: <sip:bob@10.1.2.3>"])));
        let (marked, route) = answered_with(&mut rig, claimed);
        for uri in [marked.as_str(), claimed] {
            let sent = rig.receive(CORE, &within("MESSAGE", uri, &route));
            assert!(sent.iter().all(|sent| sent.to.to_string() != FIRST), "{uri} {sent:?}");
        }
    }
}

#[test]
fn a_temporary_gruu_leads_by_every_flow_of_its_device() {
    let mut rig = Rig::new(served());
    flow(&mut rig, FIRST, 1);
    rig.advance(2_000);
    let ok = flow(&mut rig, SECOND, 2);
    let temporary = ok.lines().rfind(|line| line.starts_with("Contact:")).map(|line| gruu(line, "temp-gruu").to_owned()).unwrap();
    let sent = rig.receive(CORE, &invite(&temporary).text());
    let first = sent.iter().find(|sent| sent.text.starts_with("INVITE")).unwrap().clone();
    assert_eq!(places(&rig.undeliverable(&first), "INVITE"), [FIRST]);
    let sent = rig.receive(CORE, &invite("sip:tgruu.nonsense@example.net;gr").call_id("n").branch("z9hG4bKn").text());
    assert!(places(&sent, "INVITE").is_empty() && sent.iter().any(|sent| sent.status_code() >= 400), "{sent:?}");
}

#[test]
fn nothing_rings_after_a_global_refusal_and_430_is_not_the_callers() {
    let mut rig = Rig::new(served());
    flow(&mut rig, FIRST, 1);
    rig.advance(2_000);
    flow(&mut rig, SECOND, 2);
    one(rig.receive("198.51.100.9:5060", &register("other", 1, "198.51.100.9", &["Contact: <sip:bob@198.51.100.9>"])));
    let sent = rig.receive(CORE, &invite("sip:bob@example.net").text());
    let other = sent.iter().find(|sent| sent.text.starts_with("INVITE") && sent.to.to_string() == "198.51.100.9:5060").unwrap().clone();
    rig.receive("198.51.100.9:5060", &response(&other.text, 603, "bob"));
    let later = rig.advance(120_000);
    assert!(later.iter().all(|sent| !(sent.text.starts_with("INVITE") && sent.to.to_string() == FIRST)), "{later:?}");
    // All flows gone: the caller is told that the phone is not there, or what another phone said.
    let sent = rig.receive(CORE, &invite("sip:bob@example.net").call_id("second").branch("z9hG4bK2").text());
    let flow_of = |sent: &[Sent], place: &str| sent.iter().find(|sent| sent.text.starts_with("INVITE") && sent.to.to_string() == place).unwrap().clone();
    let (newest, busy) = (flow_of(&sent, SECOND), flow_of(&sent, "198.51.100.9:5060"));
    let again = rig.receive(SECOND, &response(&newest.text, 430, "x"));
    rig.receive(FIRST, &response(&flow_of(&again, FIRST).text, 430, "x"));
    let sent = rig.receive("198.51.100.9:5060", &response(&busy.text, 486, "bob"));
    let told: Vec<u16> = sent.iter().filter(|sent| sent.to.to_string() == CORE).map(Sent::status_code).collect();
    assert_eq!(told, [486], "a dead flow is nobody's word");
}

#[test]
fn what_the_core_lists_no_more_is_refreshed_there() {
    let mut rig = Rig::new(throttled(RegistrarMode::Path));
    let contact = "Contact: <sip:bob@198.51.100.7>;expires=60";
    let sent = rig.receive(FIRST, &register("t", 1, FIRST, &[contact]));
    one(rig.receive(CORE, &core_grants(&sent[0].text)));
    assert_eq!(one(rig.receive(FIRST, &register("t", 2, FIRST, &[contact]))).lines().next(), Some("SIP/2.0 200 OK"));
    // Another phone of the user; the core keeps that one only.
    let sent = rig.receive("198.51.100.8:5060", &register("u", 1, "198.51.100.8", &["Contact: <sip:bob@198.51.100.8>;expires=60"]));
    one(rig.receive(CORE, &core_grants(&sent[0].text)));
    let sent = rig.receive(FIRST, &register("t", 3, FIRST, &[contact]));
    assert_eq!(places(&sent, "REGISTER").len(), 1, "{sent:?}");
}

#[test]
fn of_two_flows_with_one_uri_the_core_ends_the_one_that_is_named() {
    let mut rig = Rig::new(throttled(RegistrarMode::Path));
    let lines = |reg_id: u32, expires: u32| format!("Contact: <sip:bob@198.51.100.7;ob>;+sip.instance={INSTANCE};reg-id={reg_id};expires={expires}");
    let options = "Supported: path, outbound";
    let granted = |register: &str, kept: &[u32]| {
        let lines: String = kept.iter().map(|reg_id| format!("{}\r\n", lines(*reg_id, 3_600))).collect();
        response(register, 200, "core").replace("Contact: <sip:bob@203.0.113.9>\r\n", &format!("{lines}Require: outbound\r\n"))
    };
    for (reg_id, source, kept) in [(1, FIRST, &[1][..]), (2, SECOND, &[1, 2])] {
        let sent = rig.receive(source, &register(&format!("f{reg_id}"), 1, source, &[&lines(reg_id, 60), options]));
        let ok = one(rig.receive(CORE, &granted(&sent[0].text, kept)));
        assert!(headers(&ok, "Contact").iter().all(|contact| contact.ends_with(";expires=60")), "{ok}");
    }
    let refreshed = one(rig.receive(SECOND, &register("f2", 2, SECOND, &[&lines(2, 60), options])));
    assert_eq!(header(&refreshed, "Require"), "outbound");
    let sent = rig.receive(SECOND, &register("f2", 3, SECOND, &[&lines(2, 0), options]));
    one(rig.receive(CORE, &granted(&sent[0].text, &[1])));
    assert_eq!(rig.rows("bob@example.net").iter().map(|row| row.reg_id).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_flow_that_answers_no_keep_alive_goes_and_its_sister_stays() {
    let mut settings = served();
    let keep_alive = &mut settings.registrar.as_mut().unwrap().keep_alive;
    (keep_alive.method, keep_alive.natted_only, keep_alive.most_lost) = ("options".to_owned(), false, 2);
    let mut rig = Rig::new(settings);
    // Both have one Contact URI.
    flow(&mut rig, FIRST, 1);
    flow(&mut rig, SECOND, 2);
    for _ in 0..6 {
        for ping in rig.advance(30_000).into_iter().filter(|ping| ping.to.to_string() == SECOND) {
            rig.receive(SECOND, &response(&ping.text, 200, "x"));
        }
    }
    assert_eq!(rig.rows("bob@example.net").iter().map(|row| row.reg_id).collect::<Vec<_>>(), [2]);
    assert_eq!(rig.counters().bindings_dead.get(), 1);
}
