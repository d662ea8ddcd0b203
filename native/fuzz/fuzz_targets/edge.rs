//! Any sequence of messages, answers and time against one worker: whatever was sent, all of it is over in the end.
#![no_main]

use edge::{Engage, PeerKind, PeerSettings, PolicySettings, RegistrarMode};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use syntax::{Transport, parse};
use testkit::{Request, Rig, Sent, gateways, media, origination, peer, registrar, response, route, sdp, settings, verdict, with_body};

const CALLER: &str = "198.51.100.7:5060";
const CORE: &str = "203.0.113.9:5060";

#[derive(Arbitrary, Debug)]
enum Step<'a> {
    /// A request that is right but for the parts given.
    Request { method: u8, call: u8, to_tag: u8, cseq: u8, header: &'a str },
    /// A response to something that the edge sent.
    Response { which: u8, code: u16, tag: u8 },
    /// What the edge sent comes back damaged.
    Echo { which: u8, at: u16, byte: u8, from_core: bool },
    /// Bytes from a peer.
    Bytes { bytes: &'a [u8], stream: bool },
    /// ICMP error.
    Undeliverable { which: u8 },
    /// A policy decides the n-th question.
    Verdict { which: u8, kind: u8, code: u16, text: &'a str },
    /// A policy process writes nonsense.
    FromPolicy { bytes: &'a [u8] },
    /// A question finds no room.
    Refuse { which: u8 },
    /// A policy sends a request of its own.
    Originate { number: u8, uri: &'a str },
    /// An operator ends calls.
    HangUp { call: u8 },
    /// Time.
    Wait { milliseconds: u16 },
}

const METHODS: [&str; 8] = ["INVITE", "ACK", "CANCEL", "BYE", "OPTIONS", "REGISTER", "UPDATE", "X!'"];
const TAGS: [&str; 3] = ["", "bob", "carol"];

fn pick<T>(list: &[T], which: u8) -> Option<&T> {
    list.get(usize::from(which) % list.len().max(1))
}

fuzz_target!(|input: (u8, Vec<Step<'_>>)| {
    let (hooks, steps) = input;
    let peers = vec![
        peer("core", PeerKind::Core, "203.0.113.0/24", &["sip:203.0.113.9", "sip:203.0.113.10", "sip:core.example.net"]),
        PeerSettings { route: "pstn".to_owned(), ..peer("phones", PeerKind::Trusted, "198.51.100.0/24", &[]) },
    ];
    let mut routing = settings(peers);
    if hooks & 64 != 0 {
        // Calls of phones go by rules.
        routing.routes = vec![route("pstn")];
        routing.peers[0].gateway_types = vec![-1];
    } else {
        routing.peers[1].route.clear();
    }
    if hooks & 32 != 0 {
        routing.media = Some(media(Engage::Always));
    }
    if hooks & 128 != 0 {
        // Users register here, and the core's calls to them go where they are.
        let mut registrar = registrar("example.net");
        registrar.rules.max_expires_seconds = 3_600;
        registrar.mode = [RegistrarMode::Keep, RegistrarMode::Path, RegistrarMode::Contact][usize::from(hooks) % 3];
        registrar.keep_alive.method = "options".to_owned();
        routing.registrar = Some(registrar);
        routing.peers[1].kind = PeerKind::Subscribers;
        routing.peers[1].authenticate = hooks & 1 != 0;
        routing.peers[1].route.clear();
    }
    let hook = |(index, hook): (usize, &&str)| {
        let policy = PolicySettings { hook: (*hook).to_owned(), methods: Vec::new(), peers: Vec::new(), deadline_milliseconds: 1_000, status_code: 500 };
        (hooks & 1 << index != 0).then_some(policy)
    };
    routing.policies = ["request", "branch", "response", "in_dialog", "failure", "final"].iter().enumerate().filter_map(hook).collect();
    let mut rig = Rig::new(routing);
    rig.edge.set_policy_links(vec![1]);
    rig.set_routing(gateways(
        &[["a", "203.0.113.9", "0", "", "2"], ["b", "203.0.113.10", "1", "9", "0"], ["c", "core.example.net", "0", "", "1"]],
        &[["one", "b,c"]],
        &[["", "a,#one"], ["49", "c,a"]],
    ));
    let mut sent: Vec<Sent> = Vec::new();
    for step in steps.iter().take(64) {
        let new = match step {
            Step::Request { method, call, to_tag, cseq, header } => {
                let method = METHODS[usize::from(*method) % METHODS.len()];
                let request = Request::new(method, "sip:bob@example.net")
                    .call_id(&format!("call-{}", call % 4))
                    .tags("alice", TAGS[usize::from(*to_tag) % 3])
                    .branch(&format!("z9hG4bK-{call}-{cseq}"))
                    .cseq(u32::from(*cseq % 4));
                let request = match cseq / 64 {
                    1 => request.header("Content-Type: application/sdp").body(&format!("{}{header}", sdp("10.0.0.5", 4_000))),
                    2 => request
                        .header("Content-Type: multipart/mixed;boundary=b")
                        .body(&format!("--b\r\nContent-Type: application/sdp\r\n\r\n{header}\r\n--b--\r\n")),
                    3 => request.header("Content-Type: application/sdp").body(header),
                    _ => request.header(header),
                };
                rig.receive(CALLER, &request.text())
            }
            Step::Response { which, code, tag } => {
                let requests: Vec<&Sent> = sent.iter().filter(|s| s.status_code() == 0).collect();
                let Some(request) = pick(&requests, *which) else { continue };
                let text = response(&request.text, 100 + code % 600, TAGS[usize::from(*tag) % 3]);
                let text = if tag & 128 == 0 { text } else { with_body(&text, &sdp("203.0.113.9", 5_000 + code % 8)) };
                rig.receive(CORE, &text)
            }
            Step::Echo { which, at, byte, from_core } => {
                let Some(message) = pick(&sent, *which) else { continue };
                let mut bytes = message.text.clone().into_bytes();
                let at = usize::from(*at) % bytes.len().max(1);
                if let Some(target) = bytes.get_mut(at) {
                    *target = *byte;
                }
                rig.receive_at(0, Transport::Udp, if *from_core { CORE } else { CALLER }, &bytes)
            }
            Step::Bytes { bytes, stream } => rig.receive_at(0, if *stream { Transport::Tcp } else { Transport::Udp }, CALLER, bytes),
            Step::Undeliverable { which } => {
                let Some(message) = pick(&sent, *which).cloned() else { continue };
                rig.undeliverable(&message)
            }
            Step::Verdict { which, kind, code, text } => {
                let Some(question) = pick(&rig.policy, *which).cloned() else { continue };
                rig.verdict(&question, &verdict(*kind, *code, text))
            }
            Step::FromPolicy { bytes } => rig.from_policy(bytes),
            Step::Refuse { which } => {
                let Some(question) = pick(&rig.policy, *which).cloned() else { continue };
                rig.refuse(&question)
            }
            Step::Originate { number, uri } => rig.from_policy(&origination(u32::from(*number), "MESSAGE", uri)),
            Step::HangUp { call } => rig.hang_up(&format!("call-{}", call % 4)),
            Step::Wait { milliseconds } => rig.advance(u64::from(*milliseconds)),
        };
        // A response carries what others wrote into the Via fields below; a request of ours must be whole.
        for message in new.iter().filter(|message| message.status_code() == 0) {
            let mut head = syntax::Head::default();
            parse(message.text.as_bytes(), &syntax::Limits::STANDARD, &mut head)
                .unwrap_or_else(|error| panic!("what we send must parse: {error}\n{}", message.text));
        }
        sent.extend(new);
        sent.truncate(256);
    }
    rig.advance(8_000_000);
    assert_eq!(rig.edge.sizes(), (0, 0), "something is left for ever");
    assert_eq!((rig.media.taken(), rig.media.sessions()), (0, 0), "ports are left for ever");
    assert!(rig.edge.poll_timeout().is_none());
});
