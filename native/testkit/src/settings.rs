//! Settings for tests: one UDP listener on 192.0.2.1 unless said otherwise.

use edge::{
    AttackSettings, AuthenticationSettings, CallerGroups, CarrierRouteSettings, ContactSettings, Counts, DomainRules, EmergencySettings, Engage,
    EngineSettings, FloodSettings, Forking, FraudActions, FraudRuleSettings, FraudSettings, GatewayHealthSettings, KeepAliveSettings, KeyLimitSettings,
    LearningSettings, LimitSettings, ListenerSettings, MatchSettings, MediaSettings, NatSettings, OversizeRequest, PeerKind, PeerSettings, QualitySettings,
    RegistrarMode, RegistrarSettings, RouteSettings, TimerSettings, TraceSettings,
};

/// A listener named `name` at `address` (`udp:192.0.2.1:5060`).
pub fn listener(name: &str, address: &str) -> ListenerSettings {
    let (transport, place) = address.split_once(':').unwrap_or(("udp", address));
    let address: std::net::SocketAddr = place.parse().unwrap_or_else(|_| ([192, 0, 2, 1], 5060).into());
    ListenerSettings {
        name: name.to_owned(),
        transport: transport.to_owned(),
        advertise_host: address.ip().to_string(),
        advertise_port: address.port(),
        media_address: address.ip(),
        media_advertise: None,
        address,
        network: String::new(),
        workers: Vec::new(),
        drained: false,
    }
}

/// A peer that is known by its network and sends to `to`.
pub fn peer(name: &str, kind: PeerKind, network: &str, to: &[&str]) -> PeerSettings {
    let (ip, prefix) = network.split_once('/').unwrap_or((network, "32"));
    PeerSettings {
        name: name.to_owned(),
        kind,
        matches: vec![MatchSettings {
            network: ip.parse().ok(),
            prefix: prefix.parse().unwrap_or(32),
            port: 0,
            transport: String::new(),
            listener: String::new(),
            sender: String::new(),
        }],
        to: to.iter().map(|uri| (*uri).to_owned()).collect(),
        forking: Forking::Serial,
        fail_over: vec![500, 502, 503, 504],
        first_answer_milliseconds: 4_000,
        final_answer_milliseconds: 185_000,
        oversize: OversizeRequest::Fragment,
        trust_identity: kind != PeerKind::Subscribers,
        allow_routes: matches!(kind, PeerKind::Core | PeerKind::Trusted),
        listener: String::new(),
        route: String::new(),
        gateway_types: Vec::new(),
        pool: None,
        numbers_in: None,
        numbers_out: None,
        authenticate: false,
        media: None,
        fraud_profile: 0,
    }
}

/// A limit of all peers with the defaults of its kind.
pub fn limit(name: &str, counts: Counts, key: &str, most: u32) -> KeyLimitSettings {
    KeyLimitSettings {
        name: name.to_owned(),
        counts,
        key: key.to_owned(),
        most,
        attribute: String::new(),
        overrides: Vec::new(),
        peers: Vec::new(),
        methods: Vec::new(),
        by_policy: false,
        algorithm: "tail_drop".to_owned(),
        window_milliseconds: 1_000,
        counts_refused: false,
        keys: 1_000,
        status_code: 486,
        reason_phrase: String::new(),
        retry_after_seconds: 0,
        shared: false,
        fails_open: false,
    }
}

/// One profile, 1, of a rule for numbers that begin with 900: three and four calls in all, a minute and two of one.
pub fn fraud() -> FraudSettings {
    FraudSettings {
        rules: vec![FraudRuleSettings {
            id: 7,
            profile: 1,
            prefix: "900".to_owned(),
            minutes: (0, 1_439),
            days: 127,
            thresholds: [[0, 0], [3, 4], [0, 0], [0, 0], [60, 120]],
        }],
        offsets: Vec::new(),
        attribute: "fraud_profile".to_owned(),
        profile: 1,
        keys: 1_000,
        each_call: false,
        counts_refused: false,
        calls_per_second: [0, 0],
        warning: FraudActions::default(),
        critical: FraudActions::default(),
        bar_seconds: 600,
        status_code: 403,
        reason_phrase: String::new(),
        shadow: false,
    }
}

/// Floods with small numbers: twenty packets in two seconds.
pub fn flood() -> FloodSettings {
    FloodSettings {
        unit_seconds: 2,
        packets: 20,
        packets_per_user: 10,
        account_requests: 30,
        block_seconds: 60,
        score_seconds: 60,
        score: 10,
        malformed_points: 2,
        stranger_points: 2,
        failed_points: 1,
        scanners: vec!["friendly-scanner*".to_owned()],
        exempt: Vec::new(),
        sources: 1_000,
        dry_run: false,
    }
}

/// Media of those calls is relayed, with the defaults.
pub fn media(engage: Engage) -> MediaSettings {
    MediaSettings {
        engage,
        learning: LearningSettings::Known,
        relearn_after_milliseconds: 2_000,
        timeout_seconds: 60,
        hold_timeout_seconds: 3_600,
        end_calls: true,
        streams: 8,
        packets_per_second: 1_000,
        rtpengines: Vec::new(),
        engine: EngineSettings { timeout_milliseconds: 500, tries: 3, ping_seconds: 30, directions: false },
    }
}

/// A route over group 0 that retries what is retried by default.
pub fn route(name: &str) -> CarrierRouteSettings {
    CarrierRouteSettings {
        name: name.to_owned(),
        partition: String::new(),
        group: 0,
        fall_back: false,
        whole_number: false,
        by_weight: false,
        whitelist: Vec::new(),
        by_routing_number: true,
        caller_groups: CallerGroups::Off,
        check_only: false,
        first_answer_milliseconds: 2_000,
        final_answer_milliseconds: 20_000,
        retry_status_codes: vec![500, 502, 503, 504],
        retry_causes: vec![34, 38, 41, 42, 44, 47],
        stop_causes: vec![1, 16, 17, 18, 19, 20, 21, 28],
        retry_silence: true,
        retry_ringing: false,
        not_found: (404, String::new()),
        unavailable: (480, "PSTN Not Available".to_owned()),
        hide_failures: false,
    }
}

/// A registrar for `domain` that grants what is asked for.
pub fn registrar(domain: &str) -> RegistrarSettings {
    let network = |text: &str, prefix| (text.parse().unwrap_or(std::net::Ipv4Addr::UNSPECIFIED.into()), prefix);
    RegistrarSettings {
        domains: vec![domain.to_owned()],
        mode: RegistrarMode::Keep,
        aliases: Vec::new(),
        upstream_expires_seconds: 0,
        rules: DomainRules {
            default_expires_seconds: 3_600,
            min_expires_seconds: 60,
            max_expires_seconds: 7_200,
            raise_short: false,
            spread_percent: 0,
            max_contacts: 4,
            replace_oldest: false,
            same_call_id_replaces: false,
            case_sensitive: true,
        },
        rules_of: Default::default(),
        forking: Forking::Parallel,
        records: 10_000,
        persist: true,
        write_seconds: 1,
        write_queue: 100,
        contacts: ContactSettings {
            forbidden: vec![network("203.0.113.0", 24)],
            private: vec![network("10.0.0.0", 8), network("192.168.0.0", 16)],
            resolve: true,
            status_code: 476,
            reason_phrase: "Contact Unacceptable".to_owned(),
            most: 5,
        },
        keep_alive: KeepAliveSettings { method: "off".to_owned(), interval_seconds: 30, natted_only: true, most_lost: 3, dead_codes: vec![404] },
    }
}

fn authentication() -> AuthenticationSettings {
    AuthenticationSettings {
        caller_numbers: "caller_numbers".to_owned(),
        realm: String::new(),
        algorithms: vec!["MD5".to_owned(), "SHA-256".to_owned()],
        protect_body: false,
        nonce_seconds: 300,
        nonces: 1_024,
        credentials: 1_000,
        fresh_seconds: 60,
        stale_seconds: 86_400,
        deadline_milliseconds: 2_000,
        waiting: 100,
        attacks: AttackSettings {
            window_seconds: 60,
            pair_failures: 20,
            user_failures: 60,
            source_failures: 100,
            ban_seconds: 300,
            known_seconds: 86_400,
            keys: 10_000,
            bans: 100,
            exempt: Vec::new(),
        },
    }
}

/// Standard settings with these peers.
pub fn settings(peers: Vec<PeerSettings>) -> RouteSettings {
    RouteSettings {
        node: "test".to_owned(),
        aliases: Vec::new(),
        server_header: String::new(),
        listeners: vec![listener("main", "udp:192.0.2.1:5060")],
        peers,
        emergency: EmergencySettings { numbers: vec!["112".to_owned()], ..Default::default() },
        session_timer: None,
        call_ping: None,
        flood: None,
        fraud: None,
        shared: None,
        key_limits: Vec::new(),
        number_sets: Vec::new(),
        gateway_numbers: Vec::new(),
        timers: TimerSettings {
            t1_milliseconds: 500,
            t2_milliseconds: 4_000,
            t4_milliseconds: 5_000,
            linger_milliseconds: 32_000,
            trying_after_milliseconds: 0,
            setup_seconds: 300,
            call_seconds: 3_600,
            dead_target_seconds: 30,
            resolve_milliseconds: 3_000,
            timer_c_seconds: 185,
        },
        limits: LimitSettings {
            calls: 10_000,
            targets: 4_096,
            transactions: 10_000,
            message_bytes: 64_000,
            headers: 120,
            header_value_bytes: 8_192,
            uri_bytes: 1_024,
            body_bytes: 65_535,
            branches: 20,
            retry_after_seconds: (5, 30),
            log_lines_per_second: 10,
            stranger_records_per_second: 5,
            stranger_answers_per_second: 10_000,
            dialogs: 8,
            vias: 70,
        },
        mask_identities: false,
        policies: Vec::new(),
        slow_milliseconds: 0,
        former: Vec::new(),
        routes: Vec::new(),
        health: GatewayHealthSettings {
            failures: 3,
            of: 10,
            failure_codes: vec![503],
            retry_seconds: 30,
            probe_interval_seconds: 10,
            probe_timeout_milliseconds: 2_000,
            probe_method: "OPTIONS".to_owned(),
            probe_from: String::new(),
            probe_accept: Vec::new(),
            down_after: 1,
            up_after: 1,
        },
        quality: QualitySettings { span_seconds: 1_800, samples: [10, 10, 5, 5, 5], best_first: true, drop: false, probation_permille: 50, pairs: 1_000 },
        registrar: None,
        nat: NatSettings {
            tests: ["diff-ip-src-via", "diff-port-src-via", "diff-ip-src-contact"].map(str::to_owned).into(),
            repair_contact: true,
            repair_description: false,
        },
        authentication: authentication(),
        media: None,
        trace: TraceSettings { memory_bytes: 0, collector: None, capture_id: 0 },
    }
}
