//! Shell patterns, as address lists have them: `*` is any text, `?` any one byte, and a letter is itself in either case, since hosts
//! are (RFC 3261 section 19.1.4).

/// Whether `text` is what `pattern` describes; it takes at most their lengths multiplied.
pub(crate) fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut within) = (0, 0);
    // Where to go on if the text behind the last `*` turns out otherwise.
    let mut again: Option<(usize, usize)> = None;
    while within < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                again = Some((at + 1, within));
                at += 1;
            }
            Some(byte) if *byte == b'?' || byte.eq_ignore_ascii_case(&text[within]) => (at, within) = (at + 1, within + 1),
            _ => match &mut again {
                Some((behind, taken)) => {
                    *taken += 1;
                    (at, within) = (*behind, *taken);
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn stars_and_question_marks_stand_for_what_a_shell_takes_them_for() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("sip:*@carrier.example", "sip:+4930@carrier.example", true),
            ("sip:*@carrier.example", "sip:+4930@carrier.example.org", false),
            ("sip:*@carrier.example", "sips:a@carrier.example", false),
            ("sip:+49*", "sip:+49", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("sip:*@Carrier.example", "SIP:1@carrier.Example", true),
            ("*ab*ab", "xababab", true),
            ("*ab*ab*c", "xabab", false),
            ("a*b", "a*bb", true),
        ] {
            assert_eq!(fits(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
