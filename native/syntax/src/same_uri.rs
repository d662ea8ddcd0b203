//! Whether two SIP URIs are the same (RFC 3261 section 19.1.4): `sip:a@H;x=1;transport=UDP` is `SIP:%61@h;TRANSPORT=udp`.

use crate::{Span, Uri, parse_ip, unescaped};

/// Whether two texts are one SIP or SIPS URI. What cannot be read is the same as nothing but itself, byte for byte.
pub fn same_uri(one: &[u8], other: &[u8]) -> bool {
    if one == other {
        return true;
    }
    let read = |text: &[u8]| Uri::parse(text, Span::new(0, text.len())).ok().filter(|uri| !uri.host.is_empty());
    let (Some(a), Some(b)) = (read(one), read(other)) else { return false };
    // Userinfo is compared with its case, password and all.
    let person = |text: &'_ [u8], uri: &Uri| -> Vec<u8> {
        let front = text.get(..uri.host.start()).unwrap_or_default();
        unescaped(front.splitn(2, |byte| *byte == b':').nth(1).unwrap_or_default()).collect()
    };
    a.scheme == b.scheme
        && a.port == b.port
        && same_host(a.host.of(one), b.host.of(other))
        && person(one, &a) == person(other, &b)
        && a.headers.of(one) == b.headers.of(other)
        && params_agree(a.params.of(one), b.params.of(other))
        && params_agree(b.params.of(other), a.params.of(one))
}

fn same_host(one: &[u8], other: &[u8]) -> bool {
    match (parse_ip(one), parse_ip(other)) {
        (Some(one), Some(other)) => one == other,
        _ => one.eq_ignore_ascii_case(other),
    }
}

/// Whether each parameter of `one` is that of `other`, where that has it; some must be in both.
fn params_agree(one: &[u8], other: &[u8]) -> bool {
    let pairs = |text: &'_ [u8]| -> Vec<(Vec<u8>, Vec<u8>)> {
        let lower = |part: &[u8]| unescaped(part).map(|byte| byte.to_ascii_lowercase()).collect::<Vec<u8>>();
        let parts = text.split(|byte| *byte == b';').filter(|part| !part.is_empty());
        parts
            .map(|part| part.split_at(part.iter().position(|byte| *byte == b'=').unwrap_or(part.len())))
            .map(|(name, value)| (lower(name), lower(value)))
            .collect()
    };
    let there = pairs(other);
    pairs(one).into_iter().all(|(name, value)| match there.iter().find(|(known, _)| *known == name) {
        Some((_, known)) => *known == value,
        None => !matches!(name.as_slice(), b"user" | b"ttl" | b"method" | b"maddr" | b"transport"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_compared_as_the_rfc_has_it() {
        // The examples of RFC 3261 section 19.1.4 and what phones send.
        let same = [
            ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5"),
            ("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;security=on"),
            ("sip:biloxi.com;transport=tcp;method=REGISTER", "sip:biloxi.com;method=REGISTER;transport=tcp"),
            ("SIP:a@[::1]:5070;x=1", "sip:a@[0:0:0:0:0:0:0:1]:5070;X=1"),
        ];
        let other = [
            ("SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060"),
            ("sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp"),
            ("sip:bob@biloxi.com", "sips:bob@biloxi.com"),
            ("sip:carol@chicago.com;security=off", "sip:carol@chicago.com;security=on"),
            ("sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting"),
            ("sip:a:b@h", "sip:a@h"),
            ("sip:a@192.0.2.1", "sip:a@192.0.2.10"),
            ("tel:+1", "tel:+2"),
        ];
        for (one, two) in same {
            assert!(same_uri(one.as_bytes(), two.as_bytes()) && same_uri(two.as_bytes(), one.as_bytes()), "{one} {two}");
        }
        for (one, two) in other {
            assert!(!same_uri(one.as_bytes(), two.as_bytes()) && !same_uri(two.as_bytes(), one.as_bytes()), "{one} {two}");
        }
        assert!(unescaped(b"%4x%+1%6").eq(*b"%4x%+1%6") && unescaped(b"a%62").eq(*b"ab"));
    }
}
