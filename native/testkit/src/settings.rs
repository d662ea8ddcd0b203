//! Settings for tests: one UDP listener on 192.0.2.1 unless said otherwise.

use edge::{
    CallerGroups, CarrierRouteSettings, Forking, GatewayHealthSettings, LimitSettings, ListenerSettings, MatchSettings, OversizeRequest, PeerKind,
    PeerSettings, QualitySettings, RouteSettings, TimerSettings, TraceSettings,
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

/// Standard settings with these peers.
pub fn settings(peers: Vec<PeerSettings>) -> RouteSettings {
    RouteSettings {
        node: "test".to_owned(),
        aliases: Vec::new(),
        server_header: String::new(),
        listeners: vec![listener("main", "udp:192.0.2.1:5060")],
        peers,
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
        trace: TraceSettings { memory_bytes: 0, collector: None, capture_id: 0 },
    }
}
