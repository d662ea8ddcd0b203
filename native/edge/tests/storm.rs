//! Random operations in random order: nothing panics, nothing is left over, every call has exactly one record, and no
//! caller ever gets two different final responses of 300 or more.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;

use edge::{
    Balance, Capacity, Counts, Engage, Forking, FraudRuleSettings, FraudSettings, MachineSettings, NgKind, PeerKind, PolicySettings, PoolSettings,
    RtpengineSettings, SessionId, SessionReport, SessionTimerSettings, Shedding,
};
use proptest::prelude::*;
use testkit::{
    Request, Rig, Sent, final_to_tag, fraud, gateways, header, headers, limit, media, origination, peer, registrar, response, route, sdp, settings, verdict,
    with_body,
};

const HOOKS: [&str; 6] = ["request", "branch", "response", "in_dialog", "failure", "final"];
const CALLER: &str = "198.51.100.7:5060";

#[derive(Clone, Debug)]
enum Operation {
    Invite(u8),
    Retransmit(u8),
    Cancel(u8),
    /// Answer the n-th request that went out, whatever became of it.
    Answer(usize, u16),
    Ack(u8),
    Bye(u8, bool),
    Wait(u64),
    Undeliverable(usize),
    Shed(bool),
    Garbage(Vec<u8>),
    /// The n-th question is decided, by kind and status code.
    Verdict(usize, u8, u16),
    /// The n-th question finds no room.
    RefuseQuestion(usize),
    Originate(u32),
    HangUp(u8),
    /// An rtpengine answers the oldest question, or refuses.
    Engine(bool),
    /// A second passes, with probes.
    Tidy,
}

fn operation() -> impl Strategy<Value = Operation> {
    let code = prop_oneof![
        Just(100u16),
        Just(180),
        Just(183),
        Just(200),
        Just(200),
        Just(302),
        Just(401),
        Just(404),
        Just(486),
        Just(487),
        Just(500),
        Just(503),
        Just(603)
    ];
    prop_oneof![
        3 => (0u8..6).prop_map(Operation::Invite),
        1 => (0u8..6).prop_map(Operation::Retransmit),
        1 => (0u8..6).prop_map(Operation::Cancel),
        8 => (0usize..40, code).prop_map(|(n, code)| Operation::Answer(n, code)),
        2 => (0u8..6).prop_map(Operation::Ack),
        2 => (0u8..6, any::<bool>()).prop_map(|(n, by)| Operation::Bye(n, by)),
        2 => prop_oneof![1u64..600, 1u64..40_000].prop_map(Operation::Wait),
        1 => (0usize..40).prop_map(Operation::Undeliverable),
        1 => any::<bool>().prop_map(Operation::Shed),
        1 => proptest::collection::vec(any::<u8>(), 0..80).prop_map(Operation::Garbage),
        8 => (0usize..40, any::<u8>(), prop_oneof![Just(180u16), Just(200), Just(302), Just(486), Just(503)]).prop_map(|(n, kind, code)| Operation::Verdict(n, kind, code)),
        1 => (0usize..40).prop_map(Operation::RefuseQuestion),
        1 => (0u32..9).prop_map(Operation::Originate),
        1 => (0u8..6).prop_map(Operation::HangUp),
        6 => any::<bool>().prop_map(Operation::Engine),
        1 => Just(Operation::Tidy),
    ]
}

struct World {
    rig: Rig,
    /// What is known of the gateways.
    places: Vec<Capacity>,
    out: Vec<Sent>,
    finals: HashMap<String, Vec<u16>>,
    oks: HashMap<u8, String>,
    begun: std::collections::HashSet<u8>,
    /// Sessions that an rtpengine has.
    there: std::collections::HashSet<SessionId>,
}

impl World {
    fn new(forking: Forking, hooks: &[&str], way: u8) -> Self {
        let mut core = peer("core", PeerKind::Core, "203.0.113.0/24", &["sip:203.0.113.9", "sip:203.0.113.10", "sip:203.0.113.11"]);
        core.forking = forking;
        let mut phones = peer("phones", PeerKind::Trusted, "198.51.100.0/24", &[]);
        if way == 1 || way == 5 {
            phones.route = "pstn".to_owned();
            core.gateway_types = vec![-1];
        } else if way == 2 {
            let machine = MachineSettings { weight: 1, calls: 2, probe_mode: 2, ..MachineSettings::default() };
            core.pool = Some(PoolSettings { balance: Balance::FewestCalls, machines: vec![machine; 3], machine_calls_per_second: 3 });
        }
        let users = way == 3;
        let relays = way >= 4;
        let external = way == 6;
        if users {
            // Without a core, users are reached where they registered.
            core = peer("users", PeerKind::Subscribers, "203.0.113.0/24", &[]);
        }
        let mut routing = settings(vec![core, phones]);
        if users {
            let mut registrar = registrar("example.net");
            registrar.contacts.forbidden.clear();
            registrar.forking = forking;
            routing.registrar = Some(registrar);
        }
        routing.media = relays.then(|| media(Engage::Always));
        if let Some(media) = routing.media.as_mut().filter(|_| external) {
            media.rtpengines = vec![RtpengineSettings { name: "one".to_owned(), address: "192.0.2.250:2223".parse().unwrap(), weight: 1 }];
        }
        routing.routes = vec![route("pstn")];
        routing.timers.call_seconds = 600;
        routing.session_timer = Some(SessionTimerSettings { expires_seconds: 300, min_expires_seconds: 90 });
        routing.key_limits = vec![limit("callers", Counts::Calls, "{caller}", 50)];
        routing.fraud = Some(FraudSettings { rules: vec![FraudRuleSettings { prefix: String::new(), ..fraud().rules[0].clone() }], ..fraud() });
        let policy =
            |hook: &&str| PolicySettings { hook: (*hook).to_owned(), methods: Vec::new(), peers: Vec::new(), deadline_milliseconds: 1_000, status_code: 500 };
        routing.policies = hooks.iter().map(policy).collect();
        let mut rig = Rig::new(routing);
        rig.edge.set_policy_links(vec![1]);
        for (host, q) in [(9, "0.9"), (10, "0.9"), (11, "0.2")].into_iter().filter(|_| users) {
            let place = format!("203.0.113.{host}:5060");
            let text = format!(
                "REGISTER sip:example.net SIP/2.0\r\nVia: SIP/2.0/UDP {place};branch=z9hG4bK{host}\r\nFrom: <sip:bob@example.net>;tag=1\r\n\
                 To: <sip:bob@example.net>\r\nCall-ID: {host}\r\nCSeq: 1 REGISTER\r\nContact: <sip:bob@{place}>;q={q};expires=600\r\nContent-Length: 0\r\n\r\n"
            );
            assert_eq!(rig.receive(&place, &text)[0].status_code(), 200);
        }
        let there = gateways(
            &[["a", "203.0.113.9", "0", "", "2"], ["b", "203.0.113.10", "1", "9", "0"], ["c", "pstn.example.net", "0", "", "1"]],
            &[["one", "b,c"]],
            &[["", "a,#one"], ["4930", "c,a"]],
        );
        let places = (0..).map_while(|index| there.gateway_capacity("", index).cloned()).collect();
        rig.set_routing(there);
        Self { places, rig, out: Vec::new(), finals: HashMap::new(), oks: HashMap::new(), begun: Default::default(), there: Default::default() }
    }

    fn invite(n: u8) -> Request {
        let request = Request::new("INVITE", "sip:bob@example.net").call_id(&format!("call-{n}")).branch(&format!("z9hG4bK-{n}"));
        // Every third leaves the offer to the callee, and one has nothing that could be read.
        match n {
            0 | 3 => request,
            4 => request.header("Content-Type: application/sdp").body("v=0\r\nm=audio\r\n"),
            _ => request.header("Content-Type: application/sdp").body(&sdp("198.51.100.7", 4_000 + u16::from(n) * 2)),
        }
    }

    fn take(&mut self, sent: Vec<Sent>) {
        for message in sent {
            let code = message.status_code();
            if code == 0 && message.to.to_string() != CALLER {
                self.out.push(message);
            } else if code >= 200 && header(&message.text, "CSeq") == "1 INVITE" {
                let call_id = header(&message.text, "Call-ID").to_owned();
                if code < 300 {
                    let n = call_id.rsplit('-').next().and_then(|n| n.parse().ok()).unwrap();
                    self.oks.insert(n, message.text.clone());
                }
                self.finals.entry(call_id).or_default().push(code);
            }
        }
    }

    fn in_dialog(&self, n: u8, method: &str, by_callee: bool) -> Option<(String, &'static str)> {
        let ok = self.oks.get(&n)?;
        let route = headers(ok, "Record-Route").join(", ");
        let callee = final_to_tag(ok).to_owned();
        let (from, to) = if by_callee { (callee.as_str(), "alice") } else { ("alice", callee.as_str()) };
        let request = Request::new(method, "sip:x@203.0.113.9")
            .call_id(&format!("call-{n}"))
            .tags(from, to)
            .cseq(2)
            .branch(&format!("z9hG4bK-{method}-{n}-{by_callee}"))
            .header(&format!("Route: {route}"));
        Some((request.text(), if by_callee { "203.0.113.9:5060" } else { CALLER }))
    }

    fn engine(&mut self, takes: bool) -> Vec<Sent> {
        let Some(question) = self.rig.media_questions.first() else { return Vec::new() };
        let session = question.command.session;
        if question.command.kind == NgKind::Delete {
            self.there.remove(&session);
            let report = question.report;
            self.rig.media_questions.remove(0);
            return if report { self.rig.engine_reports(SessionReport { session, streams: Vec::new() }) } else { Vec::new() };
        }
        if takes {
            self.there.insert(session);
        }
        self.rig.engine_says(takes.then_some(sdp("192.0.2.250", 40_000).as_str()))
    }

    fn run(&mut self, operation: &Operation) {
        let sent = match operation {
            Operation::Invite(n) => {
                self.begun.insert(*n);
                self.rig.receive(CALLER, &Self::invite(*n).text())
            }
            Operation::Retransmit(n) if self.begun.contains(n) => self.rig.receive(CALLER, &Self::invite(*n).text()),
            Operation::Cancel(n) => {
                let cancel = Self::invite(*n).text().replace("INVITE sip", "CANCEL sip").replace("1 INVITE", "1 CANCEL");
                self.rig.receive(CALLER, &cancel)
            }
            Operation::Answer(n, code) => match self.out.get(*n % self.out.len().max(1)).cloned() {
                Some(request) => {
                    let text = response(&request.text, *code, &format!("tag-{}", request.to.port()));
                    let describes = matches!(code, 183 | 200) && request.first_line().starts_with("INVITE");
                    let text = if describes { with_body(&text, &sdp("203.0.113.9", 5_000)) } else { text };
                    self.rig.receive(&request.to.to_string(), &text)
                }
                None => Vec::new(),
            },
            Operation::Ack(n) => self.in_dialog(*n, "ACK", false).map_or_else(Vec::new, |(text, from)| self.rig.receive(from, &text)),
            Operation::Bye(n, by) => self.in_dialog(*n, "BYE", *by).map_or_else(Vec::new, |(text, from)| self.rig.receive(from, &text)),
            Operation::Wait(time) => self.rig.advance(*time),
            Operation::Undeliverable(n) => match self.out.get(*n % self.out.len().max(1)).cloned() {
                Some(request) => self.rig.undeliverable(&request),
                None => Vec::new(),
            },
            Operation::Shed(on) => {
                self.rig.edge.set_shedding(if *on { Shedding::Calls } else { Shedding::Nothing });
                Vec::new()
            }
            Operation::Garbage(bytes) => self.rig.receive_at(0, syntax::Transport::Udp, CALLER, bytes),
            Operation::Retransmit(_) => Vec::new(),
            Operation::Verdict(n, kind, code) => match self.rig.policy.get(*n % self.rig.policy.len().max(1)).cloned() {
                Some(question) => self.rig.verdict(&question, &verdict(*kind, *code, "some text")),
                None => Vec::new(),
            },
            Operation::RefuseQuestion(n) => match self.rig.policy.get(*n % self.rig.policy.len().max(1)).cloned() {
                Some(question) => self.rig.refuse(&question),
                None => Vec::new(),
            },
            Operation::Originate(n) => self.rig.from_policy(&origination(*n, "OPTIONS", "sip:203.0.113.30")),
            Operation::Engine(takes) => self.engine(*takes),
            Operation::Tidy => [self.rig.advance(1_000), self.rig.tidy(), self.rig.tick_media()].concat(),
            Operation::HangUp(n) => self.rig.hang_up(&format!("call-{n}")),
        };
        self.take(sent);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn nothing_is_left_over_and_every_call_is_recorded_once(operations in proptest::collection::vec(operation(), 1..80), parallel in any::<bool>(), way in 0u8..7, hooks in 0usize..7) {
        let mut world = World::new(if parallel { Forking::Parallel } else { Forking::Serial }, &HOOKS[..hooks], way);
        for operation in &operations {
            world.run(operation);
        }
        world.rig.edge.set_shedding(Shedding::Nothing);
        let rest = world.rig.advance(2_000_000);
        world.take(rest);
        prop_assert_eq!(world.rig.edge.sizes(), (0, 0));
        prop_assert_eq!((world.rig.media.taken(), world.rig.media.sessions()), (0, 0));
        // What it took in it is told to forget, also where its answer came too late.
        while !world.rig.media_questions.is_empty() {
            world.engine(true);
        }
        prop_assert!(world.there.is_empty(), "{:?}", world.there);
        world.rig.advance(10_000);
        world.rig.tidy();
        world.rig.advance(100_000);
        let machines = world.rig.pools().into_iter().flat_map(|(_, pool)| (0..).map_while(move |index| pool.gateway_capacity("", index).cloned()));
        prop_assert!(world.places.iter().cloned().chain(machines).all(|place| place.live() == 0));
        prop_assert!(world.rig.snapshot().limit_views(None, 0).is_empty());
        prop_assert!(world.rig.snapshot().fraud_stats(None, 0, 100).iter().all(|stats| stats.concurrent_calls == 0));
        prop_assert!(world.rig.edge.poll_timeout().is_none());
        let counters = world.rig.counters();
        // Refused before there was a call; what a policy refuses is one.
        let refused = world.rig.records.iter().filter(|record| ["match", "identify", "admit"].contains(&record.refused_by)).count() as u64;
        prop_assert_eq!(world.rig.records.len() as u64 - refused, counters.calls_started.get());
        let mut ids: Vec<_> = world.rig.records.iter().map(|record| record.id.clone()).collect();
        ids.sort();
        ids.dedup();
        prop_assert_eq!(ids.len(), world.rig.records.len());
    }

    #[test]
    fn one_call_under_loss_duplication_and_reordering_gets_one_final_answer(operations in proptest::collection::vec(operation(), 1..60), way in 0u8..7, hooks in 0usize..7) {
        let mut world = World::new(Forking::Serial, &HOOKS[..hooks], way);
        world.run(&Operation::Invite(0));
        // Retransmissions only: a new INVITE after the first has ended would be another call.
        let operations = operations.iter().filter(|o| !matches!(o, Operation::Invite(_) | Operation::Retransmit(_) | Operation::Shed(_)));
        for operation in operations {
            world.run(operation);
        }
        let rest = world.rig.advance(2_000_000);
        world.take(rest);
        let mut refusals: Vec<u16> = world.finals.values().flatten().copied().filter(|code| *code >= 300).collect();
        refusals.dedup();
        let success = world.finals.values().flatten().any(|code| *code < 300);
        prop_assert!(refusals.len() + usize::from(success) >= 1, "the caller was never answered");
        prop_assert!(refusals.len() <= 1, "{:?}", world.finals);
    }
}
