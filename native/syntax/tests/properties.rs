//! Properties of parse, edit and print that hold for any message.
#![expect(clippy::unwrap_used, reason = "tests")]

use proptest::prelude::*;
use syntax::{Edits, Head, HeaderName, Limits, Message, ParseError, Span, parse};

/// A message of legal but odd shape: folds, compact names, spaces before colons, unknown fields.
fn message() -> impl Strategy<Value = String> {
    let field = prop_oneof![
        Just("Subject: plain".to_owned()),
        Just("X-Folded: one\r\n two\r\n\tthree".to_owned()),
        Just("X-Spaced \t: value".to_owned()),
        Just("m: <sip:a@b>, \"x, y\" <sip:c@d>;q=0.3".to_owned()),
        Just("Route: <sip:one@example.com;lr>,\r\n <sip:two@example.com;lr>".to_owned()),
        "[A-Za-z][A-Za-z-]{0,12}: [ -~]{0,40}"
            .prop_filter("no known name", |line| HeaderName::from_bytes(line.split(':').next().unwrap().as_bytes()) == HeaderName::Other),
    ];
    (proptest::collection::vec(field, 0..8), "[ -~\r\n]{0,60}", any::<bool>()).prop_map(|(fields, body, bare)| {
        let fields: String = fields.iter().map(|line| format!("{line}\r\n")).collect();
        let text = format!(
            "INVITE sip:bob@example.com SIP/2.0\r\nv: SIP/2.0/UDP h;branch=z9hG4bK1, SIP/2.0/TCP i\r\n{fields}f: <sip:a@b>;tag=1\r\nt: sip:b@c\r\ni: x\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\nl: {}\r\n\r\n",
            body.len()
        );
        (if bare { text.replace("\r\n", "\n") } else { text }) + &body
    })
}

/// Name and unfolded value of every line.
fn fields(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut head = Head::default();
    parse(bytes, &Limits::STANDARD, &mut head).unwrap();
    let unfolded = |value: &[u8]| {
        let text = String::from_utf8_lossy(value).into_owned();
        let parts: Vec<_> = text.split(['\r', '\n']).map(|part| part.trim_matches([' ', '\t'])).filter(|part| !part.is_empty()).map(str::to_owned).collect();
        if parts.len() > 1 { parts.join(" ").into_bytes() } else { text.into_bytes() }
    };
    head.slots().iter().map(|slot| (slot.name_span.of(bytes).to_vec(), unfolded(slot.value.of(bytes)))).collect()
}

proptest! {
    #[test]
    fn printing_what_was_parsed_changes_nothing(text in message()) {
        let mut head = Head::default();
        parse(text.as_bytes(), &Limits::STANDARD, &mut head).unwrap();
        let mut printed = Vec::new();
        Edits::default().apply(&Message::new(text.as_bytes(), &head), &mut printed);
        prop_assert_eq!(fields(&printed), fields(text.as_bytes()));
        if !head.irregular {
            prop_assert_eq!(&printed, text.as_bytes());
        }
        prop_assert!(printed.ends_with(head.body.of(text.as_bytes())));
    }

    #[test]
    fn an_edit_moves_no_other_header_field(text in message(), which in any::<prop::sample::Index>()) {
        let bytes = text.as_bytes();
        let mut head = Head::default();
        parse(bytes, &Limits::STANDARD, &mut head).unwrap();
        let index = which.index(head.slots().len());
        let removed = head.slots()[index];
        let mut edits = Edits::default();
        edits.remove(removed.line);
        edits.insert_with(usize::from(head.headers_start), |out| out.extend_from_slice(b"X-New: 1\r\n"));
        let mut printed = Vec::new();
        edits.apply(&Message::new(bytes, &head), &mut printed);
        let mut expected = fields(bytes);
        expected.remove(index);
        expected.insert(0, (b"X-New".to_vec(), b"1".to_vec()));
        let mut again = Head::default();
        let result = parse(&printed, &Limits::STANDARD, &mut again);
        prop_assert!(matches!(result, Ok(()) | Err(ParseError::Missing { .. })), "{:?}", result);
        let found: Vec<_> = again.slots().iter().map(|s| s.name_span.of(&printed).to_vec()).collect();
        prop_assert_eq!(found, expected.into_iter().map(|(name, _)| name).collect::<Vec<_>>());
    }

    #[test]
    fn any_bytes_are_parsed_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let mut head = Head::default();
        let _ = parse(&bytes, &Limits::STANDARD, &mut head);
    }

    #[test]
    fn a_damaged_message_is_parsed_without_a_panic(text in message(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let mut head = Head::default();
        if parse(&bytes, &Limits::STANDARD, &mut head).is_ok() {
            let mut printed = Vec::new();
            Edits::default().apply(&Message::new(&bytes, &head), &mut printed);
            let mut again = Head::default();
            prop_assert_eq!(parse(&printed, &Limits::STANDARD, &mut again), Ok(()));
        }
    }
}

#[test]
fn limits_hold_at_one_below_at_and_one_above() {
    let base = |extra: &str| {
        format!(
            "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n{extra}\r\n"
        )
    };
    let check = |limits: Limits, text: &str| parse(text.as_bytes(), &limits, &mut Head::default());
    for over in [0usize, 1, 2] {
        let headers = Limits { headers: 9, ..Limits::STANDARD };
        assert_eq!(check(headers, &base(&"X: y\r\n".repeat(3 + over))).is_ok(), over < 2, "headers {over}");
        let value = Limits { header_value_bytes: 99, ..Limits::STANDARD };
        assert_eq!(check(value, &base(&format!("X: {}\r\n", "y".repeat(98 + over)))).is_ok(), over < 2, "value {over}");
        let name = Limits { header_name_bytes: 20, ..Limits::STANDARD };
        assert_eq!(check(name, &base(&format!("{}: y\r\n", "X".repeat(19 + over)))).is_ok(), over < 2, "name {over}");
        let body = Limits { body_bytes: 10, ..Limits::STANDARD };
        assert_eq!(check(body, &(base("") + &"z".repeat(9 + over))).is_ok(), over < 2, "body {over}");
        let uri = Limits { uri_bytes: 20, ..Limits::STANDARD };
        let text = base("").replace("OPTIONS sip:a@b", &format!("OPTIONS sip:{}@b", "u".repeat(13 + over)));
        assert_eq!(check(uri, &text).is_ok(), over < 2, "uri {over}");
        let vias = Limits { vias: 4, ..Limits::STANDARD };
        assert_eq!(check(vias, &base(&"Via: SIP/2.0/UDP i\r\n".repeat(2 + over))).is_ok(), over < 2, "vias {over}");
    }
}

#[test]
fn bytes_that_could_end_a_line_elsewhere_are_refused() {
    for bad in ["X: a\rInjected: b", "X: a\0b", "To\u{1}: x", "X y: z", ": z"] {
        let text = format!(
            "OPTIONS sip:a@b SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 OPTIONS\r\n{bad}\r\n\r\n"
        );
        assert!(matches!(parse(text.as_bytes(), &Limits::STANDARD, &mut Head::default()), Err(ParseError::Malformed { .. })), "{bad:?}");
    }
    assert_eq!(Span::new(5, 3).len(), 0);
}
