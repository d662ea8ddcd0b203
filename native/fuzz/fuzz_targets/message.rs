//! Any datagram: parsed, edited, answered, printed, and parsed again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use syntax::{Edits, Head, HeaderName, Limits, LocalReply, Message, is_answerable, parse, parse_name_addr, sdp_lines};

fuzz_target!(|bytes: &[u8]| {
    let mut head = Head::default();
    if parse(bytes, &Limits::STANDARD, &mut head).is_err() {
        return;
    }
    let message = Message::new(bytes, &head);
    for slot in head.slots() {
        let _ = parse_name_addr(bytes, slot.value);
    }
    for name in [HeaderName::Via, HeaderName::Route, HeaderName::Contact] {
        assert!(message.elements(name).count() <= bytes.len());
    }

    let mut edits = Edits::default();
    if let Some(slot) = message.first(HeaderName::Via) {
        edits.insert_with(slot.line.start(), |out| out.extend_from_slice(b"Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKfuzz\r\n"));
    }
    for line in sdp_lines(bytes, head.body) {
        // Of the same length, since nobody here mends Content-Length.
        line.replace(&mut edits, &vec![b'x'; line.value.len()]);
    }
    let mut out = Vec::new();
    edits.apply(&message, &mut out);
    assert_same_fields(&message, &out);

    if message.is_request() && is_answerable(&head) {
        let reply =
            LocalReply { status_code: 404, reason_phrase: None, to_tag: b"fuzz", from: None, source: ([192, 0, 2, 9], 5060).into(), headers: b"", body: b"" };
        let mut text = Vec::new();
        reply.write(&message, &mut text);
        let mut again = Head::default();
        parse(&text, &Limits::STANDARD, &mut again).expect("our own response must parse");
        assert_eq!(again.status_code, 404);
        assert_eq!(Message::new(&text, &again).call_id(), message.call_id());
    }
});

/// What we print must parse again, to the same head but for the Via on top.
fn assert_same_fields(message: &Message<'_>, out: &[u8]) {
    let mut head = Head::default();
    // One more line or longer SDP may cross a limit; nothing else may be wrong with what we print.
    if let Err(error) = parse(out, &Limits { headers: syntax::MAX_HEADERS, vias: Limits::STANDARD.vias + 1, ..Limits::STANDARD }, &mut head) {
        assert!(matches!(error, syntax::ParseError::TooLarge { .. }), "printed message does not parse: {error}");
        return;
    }
    let printed = Message::new(out, &head);
    assert_eq!(printed.call_id(), message.call_id());
    assert_eq!(printed.head.cseq, message.head.cseq);
    assert_eq!(printed.text(head.from.tag), message.text(message.head.from.tag));
    assert_eq!(printed.all(HeaderName::Via).count(), message.all(HeaderName::Via).count() + 1);
}
