//! Parsing allocates nothing: the memory of one process does not depend on what the network sends to the parser.

use std::alloc::System;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use syntax::{Head, HeaderName, Limits, Message, parse, parse_name_addr, sdp_lines};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const INVITE: &[u8] = b"INVITE sip:bob@example.net SIP/2.0\r\n\
Via: SIP/2.0/UDP proxy.example.com;branch=z9hG4bK1, SIP/2.0/TCP 192.0.2.4;branch=z9hG4bK2;rport\r\n\
Route: <sip:one.example.com;lr>,\r\n <sip:two.example.com;lr>\r\n\
Max-Forwards: 70\r\nFrom: \"Alice \\\" \" <sip:alice@example.com>;tag=1\r\nTo: <sip:bob@example.net>\r\nCall-ID: a@b\r\nCSeq: 1 INVITE\r\n\
Contact: <sip:alice@192.0.2.4>\r\nX-Unknown: kept\r\nContent-Type: application/sdp\r\nContent-Length: 26\r\n\r\nv=0\r\nm=audio 6000 RTP/AVP 0";

#[test]
fn parsing_does_not_allocate() {
    let mut head = Box::new(Head::default());
    // The harness has a thread of its own, which allocates at times: what the parser allocates, it allocates every time.
    let least = (0..10).map(|_| allocations(&mut head)).min();
    assert_eq!(least, Some(0));
}

fn allocations(head: &mut Head) -> usize {
    let region = Region::new(ALLOCATOR);
    for cut in 0..=INVITE.len() {
        let bytes = INVITE.get(..cut).unwrap_or_default();
        if parse(bytes, &Limits::STANDARD, head).is_ok() {
            let message = Message::new(bytes, head);
            assert_eq!(message.elements(HeaderName::Route).filter_map(|span| parse_name_addr(bytes, span)).count(), 2);
            assert!(sdp_lines(bytes, head.body).count() <= 2);
        }
    }
    assert!(parse(INVITE, &Limits::STANDARD, head).is_ok());
    region.change().allocations
}
