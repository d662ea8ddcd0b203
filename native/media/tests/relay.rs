//! A relay as whoever has its sockets sees it.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;

use media::{Command, Described, Learning, Notice, PortPair, Relay, Rules, SessionId, Side, StreamKind, Way};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000;
const RULES: Rules =
    Rules { learning: Learning::Known, relearn_after: 2 * SECOND, timeout: 60 * SECOND, hold_timeout: 3_600 * SECOND, packets_per_second: 1_000 };
const ID: SessionId = SessionId(7);

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn pairs(number: u32) -> [PortPair; 2] {
    [number * 2, number * 2 + 1].map(|slot| PortPair { slot, port: 30_000 + slot as u16 * 2 })
}

fn describe(relay: &mut Relay, now: u64, id: SessionId, side: Side, place: Option<&str>, active: bool, kind: StreamKind) {
    let signalled = place.map_or_else(|| "192.0.2.1".parse().unwrap(), |place| at(place).ip());
    let expected = place.map(|place| [at(place), SocketAddr::new(at(place).ip(), at(place).port() + 1)]);
    let stream = Described { index: 0, pairs: pairs(id.0 as u32), expected, active, kind, clock_rate: 8_000 };
    relay.command(now, Command::Describe { session: id, side, signalled, rules: RULES, streams: [stream].into_iter().collect() });
}

fn established() -> Relay {
    let mut relay = Relay::default();
    describe(&mut relay, 0, ID, Side::Caller, Some("192.0.2.1:4000"), true, StreamKind::Rtp);
    describe(&mut relay, 0, ID, Side::Callee, Some("198.51.100.2:5000"), true, StreamKind::Rtp);
    relay
}

fn rtp(sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&(u32::from(sequence) * 160).to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 9]);
    packet.resize(172, 0xd5);
    packet
}

/// Rows of the session: facing the caller and facing the callee.
const CALLER: u32 = 28;
const CALLEE: u32 = 30;

#[test]
fn packets_go_both_ways_by_the_ports_that_face_each_side() {
    let mut relay = established();
    assert_eq!(relay.packet(1, CALLER, at("192.0.2.1:4000"), &rtp(1)), Some(Way { row: CALLEE, to: at("198.51.100.2:5000") }));
    assert_eq!(relay.packet(1, CALLEE, at("198.51.100.2:5000"), &rtp(1)), Some(Way { row: CALLER, to: at("192.0.2.1:4000") }));
    assert_eq!(relay.packet(1, CALLER + 1, at("192.0.2.1:4001"), &[0x80, 200, 0, 1, 0, 0, 0, 9]), Some(Way { row: CALLEE + 1, to: at("198.51.100.2:5001") }));
    assert_eq!((relay.counts.relayed, relay.counts.refused), (3, 0));
}

#[test]
fn what_a_third_party_sends_uses_up_nothing_of_a_ports_pace() {
    let mut relay = established();
    assert!(relay.packet(1, CALLER, at("192.0.2.1:4000"), &rtp(1)).is_some());
    for number in 0..20_000u64 {
        assert_eq!(relay.packet(1 + number * 50, CALLER, at("203.0.113.66:4000"), &rtp(9)), None);
    }
    assert!(relay.packet(SECOND, CALLER, at("192.0.2.1:4000"), &rtp(2)).is_some());
    assert_eq!((relay.counts.limited, relay.counts.refused), (0, 20_000));
}

#[test]
fn a_third_party_is_neither_heard_nor_told_anything_and_that_is_noticed() {
    let mut relay = established();
    for number in 0..20 {
        assert_eq!(relay.packet(number, CALLER, at("203.0.113.66:1234"), &rtp(1)), None);
    }
    assert_eq!(relay.packet(21, CALLEE, at("198.51.100.2:5000"), &rtp(1)), Some(Way { row: CALLER, to: at("192.0.2.1:4000") }), "not to the third");
    assert_eq!(relay.notices, [Notice::Intruder(ID, Side::Caller, at("203.0.113.66:1234"))], "once");
    assert_eq!(relay.counts.refused, 20);
}

#[test]
fn what_comes_before_the_answer_goes_to_where_the_offer_said() {
    let mut relay = Relay::default();
    describe(&mut relay, 0, ID, Side::Caller, Some("192.0.2.1:4000"), true, StreamKind::Rtp);
    assert_eq!(relay.packet(1, CALLEE, at("198.51.100.2:5000"), &rtp(1)), None, "nobody is known there yet");
    describe(&mut relay, 2, ID, Side::Callee, Some("198.51.100.2:5000"), true, StreamKind::Rtp);
    assert_eq!(relay.packet(3, CALLEE, at("198.51.100.2:5000"), &rtp(2)), Some(Way { row: CALLER, to: at("192.0.2.1:4000") }));
}

#[test]
fn a_side_on_hold_gets_nothing_and_its_silence_is_no_fault() {
    let mut relay = established();
    describe(&mut relay, SECOND, ID, Side::Callee, None, false, StreamKind::Rtp);
    assert_eq!(relay.packet(2 * SECOND, CALLER, at("192.0.2.1:4000"), &rtp(1)), None);
    assert_eq!(relay.counts.undirected, 1);
    relay.tick(3_000 * SECOND);
    assert_eq!(relay.notices, []);
    relay.tick(3_700 * SECOND);
    assert_eq!(relay.notices, [Notice::Silent(ID)]);
}

#[test]
fn silence_is_told_now_and_then_and_media_or_signalling_puts_it_off() {
    let mut relay = established();
    relay.packet(50 * SECOND, CALLER, at("192.0.2.1:4000"), &rtp(1));
    relay.tick(100 * SECOND);
    assert_eq!(relay.notices, []);
    relay.tick(110 * SECOND);
    relay.tick(112 * SECOND);
    assert_eq!(relay.notices, [Notice::Silent(ID)]);
    describe(&mut relay, 150 * SECOND, ID, Side::Caller, Some("192.0.2.1:4000"), true, StreamKind::Rtp);
    relay.tick(171 * SECOND);
    assert_eq!((relay.notices.len(), relay.counts.silent), (1, 1));
    relay.tick(211 * SECOND);
    assert_eq!(relay.notices.len(), 2);
}

#[test]
fn a_call_that_rings_is_not_silent() {
    let mut relay = Relay::default();
    describe(&mut relay, 0, ID, Side::Caller, Some("192.0.2.1:4000"), true, StreamKind::Rtp);
    relay.tick(170 * SECOND);
    assert_eq!(relay.notices, []);
}

#[test]
fn a_packet_that_would_circle_is_slowed_down() {
    let mut relay = Relay::default();
    // Each side says that it is at our port that faces the other.
    describe(&mut relay, 0, ID, Side::Caller, Some("192.0.2.1:30002"), true, StreamKind::Rtp);
    describe(&mut relay, 0, ID, Side::Callee, Some("192.0.2.1:30000"), true, StreamKind::Rtp);
    let passed = (0..5_000).filter(|number| relay.packet(SECOND + number, CALLER, at("192.0.2.1:30002"), &rtp(1)).is_some()).count();
    assert_eq!((passed, relay.counts.limited), (1_000, 4_000));
    assert!(relay.packet(2 * SECOND, CALLER, at("192.0.2.1:30002"), &rtp(1)).is_some(), "the next second begins anew");
}

#[test]
fn the_end_of_a_session_tells_what_it_was_like_and_frees_its_ports() {
    let mut relay = established();
    for number in 0..100u16 {
        relay.packet(u64::from(number) * 20_000, CALLER, at("192.0.2.1:4000"), &rtp(number));
        if number % 10 != 0 {
            relay.packet(u64::from(number) * 20_000, CALLEE, at("198.51.100.2:5000"), &rtp(number));
        }
    }
    relay.command(3 * SECOND, Command::Close { session: ID, report: true });
    let [Notice::Closed(report)] = relay.notices.as_slice() else { panic!("{:?}", relay.notices) };
    let [caller, callee] = report.streams[0].sides;
    assert_eq!((caller.packets, caller.lost, callee.packets, callee.lost), (100, 0, 90, 9), "the first of the callee's was never due");
    assert!(caller.mos > callee.mos && caller.source == Some(at("192.0.2.1:4000")));
    assert_eq!(relay.freed, pairs(7));
    assert_eq!(relay.packet(4 * SECOND, CALLER, at("192.0.2.1:4000"), &rtp(1)), None);
    relay.command(5 * SECOND, Command::Close { session: ID, report: true });
    assert_eq!(relay.freed.len(), 2, "no port is free twice");
}

#[test]
fn jitter_goes_by_the_clock_that_the_answer_names_whichever_came_first_in_the_offer() {
    for [offered, answered] in [[48_000, 8_000], [8_000, 48_000]] {
        let mut relay = Relay::default();
        for (side, place, clock_rate) in [(Side::Caller, "192.0.2.1:4000", offered), (Side::Callee, "198.51.100.2:5000", answered)] {
            let expected = Some([at(place), SocketAddr::new(at(place).ip(), at(place).port() + 1)]);
            let stream = Described { index: 0, pairs: pairs(7), expected, active: true, kind: StreamKind::Rtp, clock_rate };
            relay.command(0, Command::Describe { session: ID, side, signalled: at(place).ip(), rules: RULES, streams: [stream].into_iter().collect() });
        }
        // A packet each 20 ms by the agreed clock, both ways.
        for number in 0..200_u16 {
            let mut packet = rtp(number);
            packet[4..8].copy_from_slice(&(u32::from(number) * (answered / 50)).to_be_bytes());
            relay.packet(u64::from(number) * 20_000, CALLER, at("192.0.2.1:4000"), &packet);
            relay.packet(u64::from(number) * 20_000, CALLEE, at("198.51.100.2:5000"), &packet);
        }
        relay.command(4 * SECOND, Command::Close { session: ID, report: true });
        let [Notice::Closed(report)] = relay.notices.as_slice() else { panic!("{:?}", relay.notices) };
        assert!(report.streams[0].sides.iter().all(|side| side.most_jitter_milliseconds < 0.1), "{report:?}");
    }
}

#[test]
fn fax_goes_through_as_it_is() {
    let mut relay = Relay::default();
    describe(&mut relay, 0, ID, Side::Caller, Some("192.0.2.1:4000"), true, StreamKind::Datagrams);
    describe(&mut relay, 0, ID, Side::Callee, Some("198.51.100.2:5000"), true, StreamKind::Datagrams);
    assert!(relay.packet(1, CALLER, at("192.0.2.1:4000"), &[0, 1, 6]).is_some());
}

proptest! {
    /// Whatever is done in whatever order: only the two sides are heard, each is sent to where it is, and no port is lost.
    #[test]
    fn nobody_but_the_two_sides_is_heard_and_no_port_leaks(steps in proptest::collection::vec((0u8..7, 0u64..4, 0u32..8, any::<u16>()), 1..200)) {
        let mut relay = Relay::default();
        let mut open = std::collections::BTreeSet::new();
        let mut now = 0;
        for (what, id, row, number) in steps {
            now += u64::from(number) * 1_000;
            let place = |side: Side| format!("10.{}.0.{}:{}", side as u8, id + 1, 4_000 + number % 2 * 2);
            match what {
                0 | 1 => {
                    let side = Side::BOTH[usize::from(what)];
                    open.insert(id);
                    describe(&mut relay, now, SessionId(id), side, Some(&place(side)), true, StreamKind::Rtp);
                }
                2 => {
                    open.remove(&id);
                    relay.command(now, Command::Close { session: SessionId(id), report: number % 2 == 0 });
                }
                3 => relay.tick(now),
                _ => {
                    let row = id as u32 * 8 + row;
                    let stranger = what == 4;
                    let side = (row / 2) % 2;
                    let source = if stranger { format!("203.0.113.{}:4000", number % 250) } else { format!("10.{side}.0.{}:{}", id + 1, number.max(1)) };
                    if let Some(way) = relay.packet(now, row, at(&source), &rtp(number)) {
                        prop_assert!(!stranger && open.contains(&id));
                        prop_assert_eq!(way.row, row ^ 2);
                        let expected: std::net::IpAddr = format!("10.{}.0.{}", 1 - side, id + 1).parse().unwrap();
                        prop_assert_eq!(way.to.ip(), expected);
                    }
                }
            }
        }
        prop_assert_eq!(relay.len(), open.len());
        relay.freed.clear();
        for id in &open {
            relay.command(now, Command::Close { session: SessionId(*id), report: false });
        }
        let mut freed: Vec<u32> = relay.freed.iter().map(|pair| pair.slot).collect();
        freed.sort_unstable();
        let mut expected: Vec<u32> = open.iter().flat_map(|id| pairs(*id as u32)).map(|pair| pair.slot).collect();
        expected.sort_unstable();
        prop_assert_eq!(freed, expected);
        prop_assert!(relay.is_empty());
    }
}
