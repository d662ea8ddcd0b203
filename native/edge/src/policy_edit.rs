//! What a policy may change in a request, and how. What routing, dialogs and framing rest on is not among it.

use syntax::{Edits, HeaderName, Message, Span, Uri, parse_name_addr, same_name};

use crate::policy::VerdictError;
use crate::verdict::{EditAction, HeaderEdit};

/// Makes the request as the edits want it. With `strip_identity`, what only a trusted peer may say of identities is taken
/// out first, so that what the policy says of them stays.
pub(crate) fn edited(edits: &mut Edits, message: &Message<'_>, wanted: &[HeaderEdit], strip_identity: bool) -> Result<Vec<u8>, VerdictError> {
    edits.clear();
    let mut removed: Vec<usize> = Vec::new();
    if strip_identity {
        removed.extend(message.head.slots().iter().enumerate().filter(|(_, slot)| slot.name.needs_trust()).map(|(index, _)| index));
    }
    let mut added: Vec<(&String, &String)> = Vec::new();
    let mut request_uri = None;
    let mut from = None;
    for edit in wanted {
        if edit.value.bytes().any(|b| (b < b' ' && b != b'\t') || b == 0x7f) {
            let place = match edit.action {
                EditAction::RequestUri => "the Request-URI",
                EditAction::From => "From",
                _ => &edit.name,
            };
            return Err(VerdictError::Text(place.to_owned()));
        }
        if edit.action == EditAction::RequestUri {
            let bytes = edit.value.as_bytes();
            Uri::parse(bytes, Span::new(0, bytes.len())).map_err(|_| VerdictError::Target(edit.value.clone()))?;
            request_uri = Some(bytes);
            continue;
        }
        if edit.action == EditAction::From {
            let bytes = edit.value.as_bytes();
            // Its parameters, the tag above all, stay those of the request (RFC 3261 section 12).
            let parsed = parse_name_addr(bytes, Span::new(0, bytes.len())).filter(|parsed| parsed.params.is_empty() && bytes.ends_with(b">"));
            if !message.is_request() || parsed.is_none_or(|parsed| Uri::parse(bytes, parsed.uri).is_err()) {
                return Err(VerdictError::Text(format!("From: {}", edit.value)));
            }
            from = Some(bytes);
            continue;
        }
        if !may_change(&edit.name) {
            return Err(VerdictError::Header(edit.name.clone()));
        }
        if edit.action != EditAction::Add {
            let known = HeaderName::from_bytes(edit.name.as_bytes());
            let same = |slot: &syntax::Slot| {
                if known == HeaderName::Other { same_name(message.text(slot.name_span), edit.name.as_bytes()) } else { slot.name == known }
            };
            removed.extend(message.head.slots().iter().enumerate().filter(|(_, slot)| same(slot)).map(|(index, _)| index));
            // What an earlier edit added is of the field too, whichever module made it.
            added.retain(|(name, _)| !same_name(name.as_bytes(), edit.name.as_bytes()));
        }
        if edit.action != EditAction::Remove {
            added.push((&edit.name, &edit.value));
        }
    }
    removed.sort_unstable();
    removed.dedup();
    if let Some(uri) = request_uri {
        edits.replace(message.head.request_uri.whole, uri);
    }
    if let (Some(from), Some(slot)) = (from, message.first(HeaderName::From)) {
        edits.replace_with(slot.value, |out| {
            out.extend_from_slice(from);
            out.extend_from_slice(message.text(message.head.from.params));
        });
    }
    for index in removed {
        if let Some(slot) = message.head.slots().get(index) {
            edits.remove(slot.line);
        }
    }
    edits.insert_with(usize::from(message.head.headers_end), |out| {
        for (name, value) in &added {
            for part in [name.as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
    });
    let lines: usize = added.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    let mut out = Vec::with_capacity(message.bytes.len() + lines + 64);
    edits.apply(message, &mut out);
    Ok(out)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 128 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&b))
}

/// Whether a policy may set, add or remove this header field of a request.
fn may_change(name: &str) -> bool {
    use HeaderName::{CSeq, CallId, Contact, ContentLength, From, MaxBreadth, MaxForwards, RecordRoute, Route, To, Via};
    let known = HeaderName::from_bytes(name.as_bytes());
    is_name(name) && !matches!(known, Via | From | To | CallId | CSeq | MaxForwards | MaxBreadth | Route | RecordRoute | Contact | ContentLength)
}

/// Whether a policy may set this header field of a reply; Contact says where a redirection leads.
pub(crate) fn may_set_in_reply(name: &str) -> bool {
    may_change(name) || HeaderName::from_bytes(name.as_bytes()) == HeaderName::Contact
}

#[cfg(test)]
mod tests {
    use super::*;
    use syntax::{Head, Limits, parse};

    const REQUEST: &str = "INVITE sip:bob@example.net SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:a@a>;tag=1\r\nTo: <sip:b@b>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\nX-Two: a\r\nDiversion: <sip:x@y>\r\nx-two: b\r\n\r\n";

    fn edit(action: EditAction, name: &str, value: &str) -> HeaderEdit {
        HeaderEdit { action, name: name.to_owned(), value: value.to_owned() }
    }

    fn made(wanted: &[HeaderEdit], strip: bool) -> Result<String, VerdictError> {
        let mut head = Head::default();
        parse(REQUEST.as_bytes(), &Limits::STANDARD, &mut head).unwrap();
        edited(&mut Edits::default(), &Message::new(REQUEST.as_bytes(), &head), wanted, strip).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn a_set_replaces_every_line_and_a_trusted_field_of_the_policy_stays() {
        let wanted =
            [edit(EditAction::Set, "X-Two", "new"), edit(EditAction::Add, "Diversion", "<sip:ours@edge>"), edit(EditAction::RequestUri, "", "sip:+49@core")];
        let text = made(&wanted, true).unwrap();
        assert!(text.starts_with("INVITE sip:+49@core SIP/2.0\r\n"));
        assert!(text.ends_with("CSeq: 1 INVITE\r\nX-Two: new\r\nDiversion: <sip:ours@edge>\r\n\r\n"), "{text}");
        assert!(made(&[edit(EditAction::Remove, "x-two", "")], false).unwrap().ends_with("CSeq: 1 INVITE\r\nDiversion: <sip:x@y>\r\n\r\n"));
    }

    #[test]
    fn a_later_edit_of_a_field_holds_whatever_an_earlier_one_did() {
        use EditAction::{Add, Remove, Set};
        for (wanted, lines) in [
            (vec![edit(Set, "X-A", "1"), edit(Set, "x-a", "2")], "x-a: 2\r\n"),
            (vec![edit(Set, "X-A", "1"), edit(Remove, "X-a", "")], ""),
            (vec![edit(Add, "X-A", "1"), edit(Add, "X-A", "2"), edit(Remove, "X-A", "")], ""),
            (vec![edit(Add, "X-A", "1"), edit(Set, "X-A", "2"), edit(Add, "X-A", "3")], "X-A: 2\r\nX-A: 3\r\n"),
            (vec![edit(Remove, "X-A", ""), edit(Set, "X-A", "1")], "X-A: 1\r\n"),
            (vec![edit(Set, "x", "90"), edit(Set, "Session-Expires", "80")], "Session-Expires: 80\r\n"),
        ] {
            let text = made(&wanted, false).unwrap();
            assert!(text.ends_with(&format!("x-two: b\r\n{lines}\r\n")), "{wanted:?} {text}");
        }
    }

    #[test]
    fn a_field_is_known_by_its_compact_name_too() {
        let text = REQUEST.replace("X-Two: a", "r: <sip:x@y>").replace("x-two: b", "x: 1800");
        let mut head = Head::default();
        parse(text.as_bytes(), &Limits::STANDARD, &mut head).unwrap();
        let wanted = [edit(EditAction::Remove, "Refer-To", ""), edit(EditAction::Set, "Session-Expires", "90")];
        let made = edited(&mut Edits::default(), &Message::new(text.as_bytes(), &head), &wanted, false).unwrap();
        let made = String::from_utf8(made).unwrap();
        assert!(made.ends_with("CSeq: 1 INVITE\r\nDiversion: <sip:x@y>\r\nSession-Expires: 90\r\n\r\n"), "{made}");
    }

    #[test]
    fn from_gets_another_name_and_uri_and_keeps_its_tag() {
        let text = made(&[edit(EditAction::From, "", "\"Alice \\\"A\\\"\" <sip:+49@ours>")], false).unwrap();
        assert!(text.contains("\r\nFrom: \"Alice \\\"A\\\"\" <sip:+49@ours>;tag=1\r\n"), "{text}");
        for value in ["<sip:a@b>;tag=2", "sip:a@b", "\"a <sip:a@b>", "", "<nothing>", "<sip:a@b>, <sip:c@d>"] {
            assert_eq!(made(&[edit(EditAction::From, "", value)], false), Err(VerdictError::Text(format!("From: {value}"))), "{value}");
        }
    }

    #[test]
    fn nothing_that_could_smuggle_a_line_or_break_a_dialog_is_carried_out() {
        for value in ["a\r\nVia: b", "a\nb", "a\0"] {
            assert_eq!(made(&[edit(EditAction::Set, "X", value)], false), Err(VerdictError::Text("X".to_owned())));
        }
        for (name, value) in [("X Y", "a"), ("X:", "a"), ("", "a"), ("v", "a"), ("Call-ID", "a"), ("l", "0"), ("m", "<sip:x>")] {
            assert_eq!(made(&[edit(EditAction::Set, name, value)], false), Err(VerdictError::Header(name.to_owned())));
        }
        assert!(made(&[edit(EditAction::RequestUri, "", "sip:a b")], false).is_err());
        assert!(may_set_in_reply("Contact") && !may_set_in_reply("To"));
    }
}
