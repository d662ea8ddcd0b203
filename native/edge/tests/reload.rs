//! Another configuration while calls are under way.
use edge::{PeerKind, PeerSettings};
use testkit::{Request, Rig, headers, listener, peer, response, settings};

const CALLER: &str = "198.51.100.7:5060";
const CORE: &str = "203.0.113.9:5060";

fn core() -> PeerSettings {
    peer("core", PeerKind::Core, "203.0.113.0/24", &["sip:203.0.113.9"])
}

fn phones() -> PeerSettings {
    peer("phones", PeerKind::Subscribers, "198.51.100.0/24", &[])
}

fn invite(branch: &str) -> String {
    Request::new("INVITE", "sip:bob@example.net").branch(branch).text()
}

#[test]
fn calls_go_on_under_peers_that_moved_or_are_gone_and_new_ones_go_by_the_new_file() {
    let mut rig = Rig::new(settings(vec![core(), phones()]));
    let forwarded = rig.receive(CALLER, &invite("z9hG4bK-1"))[1].text.clone();
    let ringing = rig.receive(CALLER, &Request::new("INVITE", "sip:bob@example.net").branch("z9hG4bK-2").call_id("rings").text())[1].text.clone();
    let ok = rig.receive(CORE, &response(&forwarded, 200, "bob"))[0].text.clone();
    // Another order, the phones are gone, and a peer that was not there before.
    let other = peer("other", PeerKind::Core, "192.0.2.128/25", &["sip:192.0.2.200"]);
    rig.reload(settings(vec![other, core()])).unwrap();
    assert_eq!(rig.receive(CORE, &response(&ringing, 486, "bob")).last().unwrap().status_code(), 486);
    assert_eq!(rig.records[0].from_peer, "phones", "its record knows who called");
    let route = headers(&ok, "Record-Route").join(", ");
    let bye = Request::new("BYE", "sip:bob@203.0.113.9").tags("alice", "bob").cseq(2).branch("z9hG4bK-bye").header(&format!("Route: {route}"));
    let sent = rig.receive(CALLER, &bye.text());
    assert_eq!((sent[0].to.to_string().as_str(), &sent[0].first_line()[..3]), (CORE, "BYE"));
    assert_eq!(rig.receive(CALLER, &invite("z9hG4bK-3"))[0].status_code(), 403);
    // The phones come back, and go to the first core of the file.
    rig.reload(settings(vec![phones(), peer("other", PeerKind::Core, "192.0.2.128/25", &["sip:192.0.2.200"]), core()])).unwrap();
    assert_eq!(rig.receive(CALLER, &invite("z9hG4bK-4"))[1].to.to_string(), "192.0.2.200:5060");
}

#[test]
fn what_lives_as_long_as_the_process_does_not_change() {
    let mut rig = Rig::new(settings(vec![core(), phones()]));
    let mut renamed = settings(vec![core(), phones()]);
    renamed.node = "another".to_owned();
    assert!(rig.reload(renamed).is_err());
    assert_eq!(rig.receive(CALLER, &invite("z9hG4bK-1"))[1].to.to_string(), CORE, "nothing changed");
}

#[test]
fn a_listener_that_is_gone_refuses_what_is_new_and_comes_back_under_its_number() {
    let both = |first: &str, second: &str| {
        let mut settings = settings(vec![core(), phones()]);
        settings.listeners = vec![listener(first, "udp:192.0.2.1:5060"), listener(second, "udp:192.0.2.1:5070")];
        settings
    };
    let mut rig = Rig::new(both("main", "more"));
    let mut gone = both("main", "more");
    gone.listeners.remove(0);
    rig.reload(gone).unwrap();
    let refused = &rig.receive(CALLER, &invite("z9hG4bK-1"))[0];
    assert_eq!((refused.status_code(), rig.records[0].listener.as_str()), (503, "main"));
    rig.reload(both("renamed", "more")).unwrap();
    assert_eq!(rig.receive(CALLER, &invite("z9hG4bK-2"))[1].to.to_string(), CORE);
    for port in 0..500 {
        let mut other = both("main", "more");
        other.listeners[1] = listener("moving", &format!("udp:192.0.2.1:{}", 10_000 + port));
        if let Err(error) = rig.reload(other) {
            assert!(error.to_string().contains("too many listeners since the start"), "{error}");
            return;
        }
    }
    panic!("the table of listeners grows without end");
}

#[test]
fn a_thousand_reloads_do_not_grow_the_table_of_peers() {
    let mut rig = Rig::new(settings(vec![core(), phones()]));
    for round in 0..1_000 {
        let now = if round % 2 == 0 { vec![phones(), core()] } else { vec![core()] };
        rig.reload(settings(now)).unwrap();
    }
    assert_eq!(rig.receive(CALLER, &invite("z9hG4bK-1"))[0].status_code(), 403);
    assert_eq!(rig.peers(), 2);
}
