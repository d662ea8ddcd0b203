//! Escapes of URIs (RFC 3261 section 19.1.2).

/// The bytes of a text, with what its escapes stand for in their place; an escape that is none stands for itself.
pub fn unescaped(text: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (first, behind) = rest.split_first()?;
        let escape = (*first == b'%').then(|| behind.split_at_checked(2)).flatten();
        let escape = escape.filter(|(digits, _)| digits.iter().all(u8::is_ascii_hexdigit));
        let escape = escape.and_then(|(digits, behind)| Some((u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?, behind)));
        let (byte, behind) = escape.unwrap_or((*first, behind));
        rest = behind;
        Some(byte)
    })
}

/// Appends `text` as a user part may have it (RFC 3261 section 25.1).
pub fn push_user(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,/".contains(byte) {
            out.push(*byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_escaped_means_what_it_was() {
        for text in [&b"4930"[..], b"+49-(30)", b"a b#c%41;x?y@z", b"\xff\0"] {
            let mut escaped = Vec::new();
            push_user(text, &mut escaped);
            assert!(escaped.iter().all(|byte| byte.is_ascii_graphic() && !b"#;?@".contains(byte)), "{escaped:?}");
            assert_eq!(unescaped(&escaped).collect::<Vec<_>>(), text);
        }
    }
}
