//! Who an account may be, by which names its user is found, and whose word a rule takes, on simulated time.

use edge::{BanChange, CredentialAnswer, PeerKind, RouteSettings};
use testkit::{Request, Rig, Sent, answer, header, headers, peer, registrar, settings};

const PHONE: &str = "198.51.100.7:5060";
const CORE: &str = "192.0.2.200:5060";

fn served() -> RouteSettings {
    let mut settings =
        settings(vec![peer("core", PeerKind::Core, "192.0.2.200", &["sip:192.0.2.200"]), peer("phones", PeerKind::Subscribers, "198.51.100.0/24", &[])]);
    let mut registrar = registrar("example.net");
    registrar.aliases = vec![("Sales@Example.Net".to_owned(), "bob@example.net".to_owned())];
    registrar.rules.case_sensitive = false;
    settings.registrar = Some(registrar);
    settings.authentication.caller_numbers = "numbers".to_owned();
    settings.peers[1].authenticate = true;
    settings
}

fn found() -> CredentialAnswer {
    CredentialAnswer::Found("secret".to_owned(), Default::default(), vec![("numbers".to_owned(), "+4930111, 4930112".to_owned())])
}

/// What becomes of bob's call from `from` with these further lines, once he has proved who he is.
fn call(rig: &mut Rig, from: &str, lines: &[&str], branch: &str) -> Vec<Sent> {
    let invite = |line: &str, branch: &str| {
        let request = lines.iter().fold(Request::new("INVITE", "sip:carol@example.net").branch(branch).call_id(branch), |request, line| request.header(line));
        request.header(line).text().replace("<sip:alice@example.net>", from)
    };
    let challenge = rig.receive(PHONE, &invite("X: y", &format!("{branch}a")))[0].text.clone();
    let offered = headers(&challenge, "Proxy-Authenticate")[0].to_owned();
    let line = format!("Proxy-Authorization: {}", answer(&offered, "INVITE", "sip:carol@example.net", "bob", "secret", 1));
    let mut sent = rig.receive(PHONE, &invite(&line, &format!("{branch}b")));
    sent.append(&mut rig.credentials(&found()));
    sent
}

fn to_core(sent: &[Sent]) -> Option<String> {
    sent.iter().find(|sent| sent.to.to_string() == CORE).map(|sent| sent.text.clone())
}

#[test]
fn an_alias_leads_to_its_user_who_may_call_from_it_and_not_register_by_it() {
    let mut rig = Rig::new(served());
    rig.reload({
        let mut open = served();
        open.peers[1].authenticate = false;
        open
    })
    .unwrap();
    let register = "REGISTER sip:example.net SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.7:5060;branch=z9hG4bKr\r\nFrom: <sip:bob@example.net>;tag=1\r\n\
                    To: <sip:bob@example.net>\r\nCall-ID: r\r\nCSeq: 1 REGISTER\r\nContact: <sip:bob@198.51.100.7>\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(rig.receive(PHONE, register)[0].status_code(), 200);
    let of_alias = register.replace("To: <sip:bob@", "To: <sip:Sales@").replace("r\r\nCSeq", "r2\r\nCSeq");
    assert_eq!(rig.receive(PHONE, &of_alias)[0].first_line(), "SIP/2.0 404 An Alias");
    rig.reload(served()).unwrap();
    for (number, uri) in ["sip:sales@example.net", "sip:SALES@EXAMPLE.net", "sip:%73ales@example.net"].iter().enumerate() {
        let request = Request::new("INVITE", uri).via("SIP/2.0/UDP 192.0.2.200").branch(&format!("z9hG4bK{number}")).call_id(&format!("c{number}"));
        let sent = rig.receive(CORE, &request.text());
        assert!(sent.iter().any(|sent| sent.to.to_string() == PHONE && sent.first_line() == "INVITE sip:bob@198.51.100.7 SIP/2.0"), "{uri} {sent:?}");
    }
    let invite = to_core(&call(&mut rig, "<sip:sales@example.net>", &[], "z9hG4bKs")).unwrap();
    assert_eq!(header(&invite, "P-Asserted-Identity"), "<sip:bob@example.net>");
    let by_alias = register.replace("To: <sip:bob@", "To: <sip:sales@").replace("From: <sip:bob@", "From: <sip:sales@").replace("CSeq: 1", "CSeq: 2");
    let challenge = rig.receive(PHONE, &by_alias)[0].text.clone();
    let line = format!("Authorization: {}\r\nContact:", answer(headers(&challenge, "WWW-Authenticate")[0], "REGISTER", "sip:example.net", "bob", "secret", 1));
    let sent = rig.receive(PHONE, &by_alias.replace("CSeq: 2", "CSeq: 3").replace("Contact:", &line));
    assert_eq!(sent[0].status_code(), 403, "{sent:?}");
}

#[test]
fn a_caller_is_known_by_the_identity_that_it_prefers_among_its_own() {
    for (preferred, asserted) in [
        ("<sip:+4930111@example.net>", "<sip:+4930111@example.net>"),
        ("\"B\" <tel:+4930111>", "<tel:+4930111>"),
        ("sip:sales@example.net", "<sip:sales@example.net>"),
        ("<sip:boss@example.net>", "<sip:bob@example.net>"),
        ("<sip:+4930111@elsewhere.example>", "<sip:bob@example.net>"),
        ("<tel:+4930999>", "<sip:bob@example.net>"),
        ("<tel:+4930111;cpc=operator;verstat=TN-Validation-Passed>", "<tel:+4930111>"),
        ("<sip:bob@example.net:5099;cpc=priority?Priority=emergency>", "<sip:bob@example.net>"),
        ("<sip:boss@example.net>, <sip:4930112@example.net>", "<sip:4930112@example.net>"),
    ] {
        let mut rig = Rig::new(served());
        let invite = to_core(&call(&mut rig, "<sip:bob@example.net>", &[&format!("P-Preferred-Identity: {preferred}")], "z9hG4bKp")).unwrap();
        assert_eq!((headers(&invite, "P-Asserted-Identity"), headers(&invite, "P-Preferred-Identity").len()), (vec![asserted], 0), "{preferred}");
    }
}

#[test]
fn an_anonymous_caller_of_any_domain_is_vouched_for_by_its_own_name() {
    let mut settings = served();
    let registrar = settings.registrar.as_mut().unwrap();
    registrar.domains.insert(0, "first.example".to_owned());
    for (lines, from, asserted) in [
        (&["Privacy: id", "P-Preferred-Identity: <sip:bob@example.net>"][..], "<sip:anonymous@anonymous.invalid>", "<sip:bob@example.net>"),
        // Else it is of the domain that it calls.
        (&["Privacy: id"][..], "<sip:anonymous@anonymous.invalid>", "<sip:bob@example.net>"),
    ] {
        let mut rig = Rig::new(settings.clone());
        let invite = to_core(&call(&mut rig, from, lines, "z9hG4bKy")).unwrap();
        assert_eq!(headers(&invite, "P-Asserted-Identity"), [asserted]);
    }
}

#[test]
fn an_odd_name_is_vouched_for_with_escapes_and_an_odd_realm_is_the_same_when_it_comes_back() {
    let mut settings = served();
    settings.authentication.realm = r"ACME\Voice".to_owned();
    let mut rig = Rig::new(settings);
    let invite = |line: &str, branch: &str| {
        Request::new("INVITE", "sip:carol@example.net")
            .branch(branch)
            .call_id("odd")
            .header(line)
            .text()
            .replace("<sip:alice@example.net>", "<sip:x%3Ey%25@example.net>")
    };
    let challenge = rig.receive(PHONE, &invite("X: y", "z9hG4bKo1"))[0].text.clone();
    let offered = headers(&challenge, "Proxy-Authenticate")[0].to_owned();
    assert!(offered.contains(r#"realm="ACME\\Voice""#), "{offered}");
    let line = answer(&offered.replace(r"ACME\\Voice", r"ACME\Voice"), "INVITE", "sip:carol@example.net", "x>y%", "secret", 1);
    let mut sent = rig.receive(PHONE, &invite(&format!("Proxy-Authorization: {}", line.replace(r"ACME\Voice", r"ACME\\Voice")), "z9hG4bKo2"));
    sent.append(&mut rig.credentials(&found()));
    let request = to_core(&sent).unwrap();
    assert_eq!(headers(&request, "P-Asserted-Identity"), ["<sip:x%3Ey%25@example.net>"]);
    assert!(headers(&request, "Proxy-Authorization").is_empty());
}

#[test]
fn what_a_believed_account_asserts_must_be_its_own() {
    let mut believing = served();
    believing.peers[1].trust_identity = true;
    let mut rig = Rig::new(believing);
    let own = to_core(&call(&mut rig, "<sip:bob@example.net>", &["P-Asserted-Identity: \"Bob\" <sip:+4930111@example.net>"], "z9hG4bKa")).unwrap();
    assert_eq!(headers(&own, "P-Asserted-Identity"), ["<sip:+4930111@example.net>"]);
    for (number, forged) in ["<sip:boss@example.net>", "<sip:bob@example.net>, <tel:+4930999>", "<tel:>", "<mailto:x@y>"].iter().enumerate() {
        let sent = call(&mut rig, "<sip:bob@example.net>", &[&format!("P-Asserted-Identity: {forged}")], &format!("z9hG4bKf{number}"));
        assert!(to_core(&sent).is_none(), "{forged}");
        assert!(sent.iter().any(|sent| matches!(sent.status_code(), 400 | 403)), "{forged} {sent:?}");
    }
    // Who is not believed is not refused for what goes no further.
    let mut rig = Rig::new(served());
    let invite = to_core(&call(&mut rig, "<sip:bob@example.net>", &["P-Asserted-Identity: <sip:boss@example.net>"], "z9hG4bKn")).unwrap();
    assert_eq!(headers(&invite, "P-Asserted-Identity"), ["<sip:bob@example.net>"]);
}

#[test]
fn a_rule_with_a_pattern_takes_the_callers_that_it_names_only() {
    let mut by_name = peer("carrier", PeerKind::Gateway, "203.0.113.50", &[]);
    by_name.matches[0].sender = "sip:*@carrier.example".to_owned();
    let mut settings = settings(vec![peer("core", PeerKind::Core, "192.0.2.200", &["sip:192.0.2.200"]), by_name]);
    let mut strict = Rig::new(settings.clone());
    let request =
        |from: &str, branch: &str| Request::new("INVITE", "sip:1@example.net").branch(branch).call_id(branch).text().replace("<sip:alice@example.net>", from);
    let source = "203.0.113.50:5060";
    assert!(to_core(&strict.receive(source, &request("<sip:+491@carrier.example>", "z9hG4bK1"))).is_some());
    for from in ["<sip:+491@carrier.example.org>", "<sips:+491@carrier.example>", "<sip:alice@example.net>"] {
        let sent = strict.receive(source, &request(from, &format!("z9hG4bK{}", from.len())));
        assert_eq!((sent.len(), sent[0].status_code()), (1, 403), "{from}");
    }
    // Others from there may be another peer.
    settings.peers.push(peer("others", PeerKind::Trusted, "203.0.113.50", &[]));
    let mut both = Rig::new(settings);
    assert!(to_core(&both.receive(source, &request("<sip:alice@example.net>", "z9hG4bK7"))).is_some());
    let of_carrier = to_core(&both.receive(source, &request("<sip:+492@carrier.example>", "z9hG4bK8"))).unwrap();
    both.receive(CORE, &testkit::response(&of_carrier, 486, "x"));
    assert_eq!(both.records.last().unwrap().from_peer, "carrier");
}

#[test]
fn bans_outlive_a_reload_with_other_sizes() {
    let mut rig = Rig::new(served());
    let now = proto::Now { moment: proto::Moment(0), wall: 0 };
    assert_eq!(rig.edge.ban(now, "198.51.100.66".parse().unwrap(), 600, "test"), BanChange::New);
    for (keys, bans) in [(1_024, 4), (1_024, 4_096), (65_536, 4_096)] {
        let mut other = served();
        (other.authentication.attacks.keys, other.authentication.attacks.bans) = (keys, bans);
        rig.reload(other).unwrap();
        assert!(rig.receive("198.51.100.66:5060", &Request::new("OPTIONS", "sip:192.0.2.1").text()).is_empty(), "{keys} {bans}");
        assert!(!rig.receive("198.51.100.67:5060", &Request::new("OPTIONS", "sip:192.0.2.1").branch(&format!("z9hG4bK{keys}{bans}")).text()).is_empty());
    }
    assert!(rig.edge.unban(now, "198.51.100.66".parse().unwrap(), "test"));
    assert!(!rig.receive("198.51.100.66:5060", &Request::new("OPTIONS", "sip:192.0.2.1").text()).is_empty());
}

#[test]
fn rules_for_some_callers_hide_nobody_elses() {
    let mut carrier = peer("carrier", PeerKind::Gateway, "198.51.100.0/24", &[]);
    carrier.matches[0].sender = "sip:*@[2001:db8::1]".to_owned();
    let mut served = served();
    (served.peers[1].authenticate, served.registrar.as_mut().unwrap().contacts.resolve) = (false, false);
    served.peers.push(carrier);
    let mut rig = Rig::new(served);
    // Phones of the network register, are marked behind a NAT, and get what is for them within a dialog.
    let register = "REGISTER sip:example.net SIP/2.0\r\nVia: SIP/2.0/UDP 10.1.1.1;branch=z9hG4bKr\r\nFrom: <sip:bob@example.net>;tag=1\r\n\
                    To: <sip:bob@example.net>\r\nCall-ID: r\r\nCSeq: 1 REGISTER\r\nContact: <sip:bob@198.51.100.7>\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(rig.receive(PHONE, register)[0].status_code(), 200);
    let sent = rig.receive(CORE, &Request::new("INVITE", "sip:bob@example.net").via("SIP/2.0/UDP 192.0.2.200").text());
    let invite = sent.iter().find(|sent| sent.to.to_string() == PHONE).unwrap().text.clone();
    let ok = rig.receive(PHONE, &testkit::response(&invite, 200, "bob"));
    let ok = &ok.iter().find(|sent| sent.to.to_string() == CORE).unwrap().text;
    assert!(header(ok, "Contact").contains(";edge-flow="), "{ok}");
    let route = headers(ok, "Record-Route").join(", ");
    let bye = Request::new("BYE", "sip:bob@198.51.100.7").via("SIP/2.0/UDP 192.0.2.200").tags("alice", "bob").cseq(2).header(&format!("Route: {route}"));
    let sent = rig.receive(CORE, &bye.text());
    assert_eq!(sent[0].to.to_string(), PHONE, "{sent:?}");
}

#[test]
fn two_gateways_at_one_address_keep_their_dialogs() {
    let named = |name: &str| {
        let mut peer = peer(name, PeerKind::Gateway, "203.0.113.50", &[]);
        peer.matches[0].sender = format!("sip:*@{name}.example");
        peer
    };
    let settings = settings(vec![peer("core", PeerKind::Core, "192.0.2.200", &["sip:192.0.2.200"]), named("one"), named("two")]);
    let mut rig = Rig::new(settings.clone());
    let invite = Request::new("INVITE", "sip:1@example.net").via("SIP/2.0/UDP 203.0.113.50").text().replace("<sip:alice@example.net>", "<sip:1@two.example>");
    let forwarded = to_core(&rig.receive("203.0.113.50:5060", &invite)).unwrap();
    let ok = rig.receive(CORE, &testkit::response(&forwarded, 200, "bob")).iter().find(|sent| sent.status_code() == 200).unwrap().text.clone();
    let route = headers(&ok, "Record-Route").join(", ");
    // After a restart only the token tells which of them it is, and it sends from another port.
    let mut next = Rig::new(settings);
    let bye = Request::new("BYE", "sip:bob@192.0.2.200").via("SIP/2.0/UDP 203.0.113.50").tags("alice", "bob").cseq(2).header(&format!("Route: {route}"));
    let sent = next.receive("203.0.113.50:6060", &bye.text().replace("<sip:alice@example.net>", "<sip:1@two.example>"));
    assert_eq!(sent[0].to.to_string(), CORE, "{sent:?}");
}

#[test]
fn an_alias_in_another_domain_is_the_users_all_the_same() {
    let mut served = served();
    let registrar = served.registrar.as_mut().unwrap();
    registrar.domains.push("other.example".to_owned());
    registrar.aliases = vec![("info@other.example".to_owned(), "bob@example.net".to_owned())];
    let mut rig = Rig::new(served);
    let invite = to_core(&call(&mut rig, "<sip:info@other.example>", &[], "z9hG4bKo")).unwrap();
    assert_eq!(header(&invite, "P-Asserted-Identity"), "<sip:bob@example.net>");
}

#[test]
fn a_call_to_an_alias_finds_its_phone_again() {
    let mut served = served();
    served.peers[1].authenticate = false;
    let mut rig = Rig::new(served);
    let register = |cseq: u32| {
        format!(
            "REGISTER sip:example.net SIP/2.0\r\nVia: SIP/2.0/UDP 10.1.1.1;branch=z9hG4bKr{cseq}\r\nFrom: <sip:bob@example.net>;tag=1\r\n\
             To: <sip:bob@example.net>\r\nCall-ID: r\r\nCSeq: {cseq} REGISTER\r\nContact: <sip:bob@10.1.1.1>\r\nContent-Length: 0\r\n\r\n"
        )
    };
    rig.receive("198.51.100.7:31000", &register(1));
    let sent =
        rig.receive(CORE, &Request::new("INVITE", "sip:sales@example.net").via("SIP/2.0/UDP 192.0.2.200").text().replace("To: <sip:bob@", "To: <sip:sales@"));
    let invite = sent.iter().find(|sent| sent.text.starts_with("INVITE") && sent.to.to_string() != CORE).unwrap().text.clone();
    let ok = rig.receive("198.51.100.7:31000", &testkit::response(&invite, 200, "bob").replace("sip:bob@203.0.113.9", "sip:bob@10.1.1.1"));
    let ok = ok.iter().find(|sent| sent.to.to_string() == CORE).unwrap().text.clone();
    rig.advance(1_000);
    rig.receive("198.51.100.7:42000", &register(2));
    let (uri, route) = (header(&ok, "Contact").trim_matches(['<', '>']).to_owned(), headers(&ok, "Record-Route").join(", "));
    let bye = Request::new("BYE", &uri).via("SIP/2.0/UDP 192.0.2.200").tags("alice", "bob").cseq(2).header(&format!("Route: {route}")).text();
    let sent = rig.receive(CORE, &bye.replace("To: <sip:bob@", "To: <sip:sales@"));
    assert_eq!(sent[0].to.to_string(), "198.51.100.7:42000", "{sent:?}");
}

/// What comes at once of a call of bob with a password.
fn proves(rig: &mut Rig, user: &str, password: &str, branch: &str) -> Vec<Sent> {
    let invite = |line: &str, branch: &str| Request::new("INVITE", "sip:carol@example.net").branch(branch).call_id(branch).header(line).text();
    let own = |text: String| text.replace("<sip:alice@example.net>", &format!("<sip:{user}@example.net>"));
    let challenge = rig.receive(PHONE, &own(invite("X: y", &format!("{branch}a"))))[0].text.clone();
    let offered = headers(&challenge, "Proxy-Authenticate")[0].to_owned();
    let line = format!("Proxy-Authorization: {}", answer(&offered, "INVITE", "sip:carol@example.net", user, password, 1));
    rig.receive(PHONE, &own(invite(&line, &format!("{branch}b"))))
}

fn codes(sent: &[Sent]) -> Vec<u16> {
    sent.iter().filter(|sent| sent.to.to_string() == PHONE).map(Sent::status_code).collect()
}

#[test]
fn a_guess_at_somebody_who_was_here_takes_as_long_as_one_at_nobody() {
    let mut rig = Rig::new(served());
    assert!(codes(&proves(&mut rig, "bob", "secret", "z9hG4bK1")).is_empty());
    assert!(to_core(&rig.credentials(&found())).is_some());
    rig.advance(1_000);
    assert!(to_core(&proves(&mut rig, "bob", "secret", "z9hG4bK2")).is_some(), "who is right waits for nobody");
    for (user, said) in [("bob", found()), ("nobody", CredentialAnswer::Unknown), ("bob", found()), ("nobody", CredentialAnswer::Unknown)] {
        rig.advance(1_000);
        assert!(codes(&proves(&mut rig, user, "wrong", "z9hG4bK3")).is_empty(), "{user} waits");
        assert_eq!(codes(&rig.credentials(&said)), [407], "{user}");
    }
    // A password that was changed holds from then on.
    rig.advance(1_000);
    assert!(codes(&proves(&mut rig, "bob", "other", "z9hG4bK4")).is_empty());
    let changed = CredentialAnswer::Found("other".to_owned(), Default::default(), vec![("numbers".to_owned(), "+4930111".to_owned())]);
    assert!(to_core(&rig.credentials(&changed)).is_some());
}

#[test]
fn a_guess_counts_though_the_database_says_nothing() {
    let mut rig = Rig::new(served());
    proves(&mut rig, "bob", "secret", "z9hG4bK1");
    rig.credentials(&found());
    let failed = |rig: &Rig| rig.counters().authentication_failed.get();
    rig.advance(1_000);
    proves(&mut rig, "bob", "wrong", "z9hG4bK2");
    assert_eq!((codes(&rig.credentials(&CredentialAnswer::Unavailable)), failed(&rig)), (vec![407], 1));
    rig.advance(1_000);
    proves(&mut rig, "bob", "wrong", "z9hG4bK3");
    // One that hangs.
    let sent = rig.advance(10_000);
    assert!(codes(&sent).contains(&407) && !codes(&sent).contains(&500), "{sent:?}");
    assert_eq!(failed(&rig), 2);
    proves(&mut rig, "nobody", "wrong", "z9hG4bK4");
    assert_eq!(codes(&rig.credentials(&CredentialAnswer::Unavailable)), [500]);
}
