//! What is said of a caller's identity, to whom (RFC 3325).
#![expect(clippy::unwrap_used, reason = "tests")]

use edge::{PeerKind, RouteSettings};
use testkit::{Request, Rig, header, headers, peer, response, settings};

const CORE: &str = "192.0.2.200:5060";
const ASSERTED: &str = "P-Asserted-Identity: <sip:+4930@core.example>";

fn carriers(trusted: bool) -> RouteSettings {
    let mut carrier = peer("carrier", PeerKind::Gateway, "203.0.113.9", &[]);
    carrier.trust_identity = trusted;
    settings(vec![peer("core", PeerKind::Core, "192.0.2.200", &[]), carrier])
}

fn sent(rig: &mut Rig, lines: &[&str]) -> String {
    let request = lines.iter().fold(Request::new("INVITE", "sip:1@203.0.113.9").via("SIP/2.0/UDP 192.0.2.200"), |request, line| request.header(line));
    let sent = rig.receive(CORE, &request.text());
    sent.last().unwrap().text.clone()
}

#[test]
fn an_identity_goes_to_the_believed_and_to_others_unless_the_caller_minds() {
    for (trusted, privacy, told) in [
        (true, "Privacy: id", 1),
        (true, "Privacy: none", 1),
        (false, "Privacy: none", 1),
        (false, "Subject: Privacy", 1),
        (false, "Privacy: id", 0),
        (false, "privacy: header;ID;critical", 0),
        (false, "Privacy: id\t;critical", 0),
        (false, "Privacy: user;\tid", 0),
        (false, "Privacy: user;\r\n\tid", 0),
    ] {
        let mut rig = Rig::new(carriers(trusted));
        let text = sent(&mut rig, &[ASSERTED, "Remote-Party-ID: <sip:+4930@core.example>", "Diversion: <sip:+4931@core.example>", privacy]);
        let counts = ["P-Asserted-Identity", "Remote-Party-ID", "Diversion"].map(|name| headers(&text, name).len());
        assert_eq!(counts, [told, told, 1], "{trusted} {privacy}");
    }
}

#[test]
fn who_was_called_before_is_withheld_where_that_is_wished() {
    for (trusted, diversion, history, privacy, told) in [
        (false, "", "", "none", [1, 1]),
        (false, ";privacy=full", "", "none", [0, 1]),
        (false, ";privacy=\"uri\"", "", "none", [0, 1]),
        (false, ";privacy=off", "?Privacy=history", "none", [1, 0]),
        (false, "", "", "history", [1, 0]),
        (false, "", "", "header;critical", [1, 0]),
        (true, ";privacy=full", "?Privacy=history", "history", [1, 1]),
    ] {
        let lines = [
            format!("Diversion: <sip:1@core.example>;reason=unconditional, <sip:2@core.example>{diversion}"),
            format!("History-Info: <sip:1@core.example>;index=1, <sip:2@core.example{history}>;index=1.1"),
            format!("Privacy: {privacy}"),
        ];
        let text = sent(&mut Rig::new(carriers(trusted)), &lines.each_ref().map(String::as_str));
        let counts = ["Diversion", "History-Info"].map(|name| headers(&text, name).len());
        assert_eq!(counts, told, "{trusted} {lines:?}");
    }
}

#[test]
fn privacy_that_stands_in_remote_party_id_counts_too() {
    for (trusted, value, told) in [(false, "full", 0), (false, "uri;x=y", 0), (false, "Full", 0), (false, "off", 1), (false, "name", 1), (true, "full", 1)] {
        let party = format!("Remote-Party-ID: \"S\" <sip:+4930@core.example>;party=calling;screen=yes;privacy={value}");
        let text = sent(&mut Rig::new(carriers(trusted)), &[ASSERTED, &party]);
        let counts = ["P-Asserted-Identity", "Remote-Party-ID"].map(|name| headers(&text, name).len());
        assert_eq!(counts, [told, told], "{trusted} {value}");
    }
}

#[test]
fn what_is_for_the_trust_domain_alone_leaves_it_with_nobody() {
    const WITHIN: [&str; 6] =
        ["P-Preferred-Identity", "P-Charging-Vector", "P-Charging-Function-Addresses", "P-Served-User", "P-Profile-Key", "P-User-Database"];
    let lines: Vec<String> = WITHIN.iter().map(|name| format!("{name}: <sip:x@core.example>")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    for (trusted, told) in [(true, 1), (false, 0)] {
        let text = sent(&mut Rig::new(carriers(trusted)), &lines);
        assert_eq!(WITHIN.map(|name| headers(&text, name).len()), [told; 6], "{trusted}");
        assert!(text.contains("\r\nMax-Forwards: ") && text.ends_with("\r\n\r\n"), "{text}");
    }
}

#[test]
fn the_same_holds_for_who_answers() {
    for (trusted, told) in [(true, 1), (false, 0)] {
        let mut settings = carriers(true);
        let mut caller = peer("caller", PeerKind::Gateway, "198.51.100.7", &[]);
        caller.trust_identity = trusted;
        settings.peers.push(caller);
        settings.peers[0].to = vec!["sip:192.0.2.200".to_owned()];
        let mut rig = Rig::new(settings);
        let sent = rig.receive("198.51.100.7:5060", &Request::new("INVITE", "sip:1@192.0.2.1").text());
        let within = "Diversion: <sip:w@core.example>;privacy=full\r\nP-Charging-Vector: icid-value=1\r\nP-Served-User: <sip:x@core.example>\r\nP-Preferred-Identity: <sip:y@core.example>\r\nDiversion: <sip:z@core.example>";
        for (privacy, asserted) in [("Privacy: id\r\n", told), ("", 1)] {
            let ringing = response(&sent[1].text, 180, "b").replace("Content-Length", &format!("{ASSERTED}\r\n{within}\r\n{privacy}Content-Length"));
            let reply = rig.receive(CORE, &ringing);
            let counts = ["P-Asserted-Identity", "P-Charging-Vector", "P-Served-User", "P-Preferred-Identity", "Diversion"];
            assert_eq!(counts.map(|name| headers(&reply[0].text, name).len()), [asserted, told, told, told, 1 + told], "{trusted} {privacy}");
        }
    }
}

#[test]
fn who_is_not_believed_asserts_nothing_to_anybody() {
    let mut settings = carriers(true);
    settings.peers.push(peer("phones", PeerKind::Subscribers, "198.51.100.0/24", &[]));
    settings.peers[0].to = vec!["sip:192.0.2.200".to_owned()];
    let mut rig = Rig::new(settings);
    let request = Request::new("INVITE", "sip:1@192.0.2.1")
        .header(ASSERTED)
        .header("P-Charging-Vector: icid-value=1")
        .header("P-Charging-Function-Addresses: ccf=192.0.2.9")
        .header("P-Served-User: <sip:x@y>")
        .header("Diversion: <sip:x@y>");
    let text = rig.receive("198.51.100.7:5060", &request.text())[1].text.clone();
    let names = ["P-Asserted-Identity", "P-Charging-Vector", "P-Charging-Function-Addresses", "P-Served-User", "Diversion"];
    assert_eq!(names.map(|name| header(&text, name)), [""; 5]);
}
