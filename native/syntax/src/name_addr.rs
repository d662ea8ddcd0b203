//! From, To, Contact, Route: a URI with an optional display name and parameters (RFC 3261 section 20.10).

use crate::Span;
use crate::cursor::{Cursor, is_lws, is_token};

/// One name-addr or addr-spec with its header parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameAddr {
    /// The URI without angle brackets.
    pub uri: Span,
    /// The header parameters from their first semicolon on.
    pub params: Span,
    /// The tag parameter; empty where absent.
    pub tag: Span,
}

/// Parses the one element in `span` of `bytes`; `None` where it breaks the grammar.
pub fn parse_name_addr(bytes: &[u8], span: Span) -> Option<NameAddr> {
    let mut cursor = Cursor::new(bytes, span.start(), span.end());
    cursor.lws();
    let mut element = NameAddr::default();
    let start = cursor.at();
    if cursor.peek() == Some(b'"') {
        cursor.quoted()?;
        cursor.lws();
        if cursor.peek() != Some(b'<') {
            return None;
        }
    } else {
        // Unquoted UTF-8 is no token, yet phones send it and nothing can be smuggled in it.
        cursor.take_while(|b| is_token(b) || is_lws(b) || b >= 0x80);
    }
    if cursor.eat(b'<') {
        let (s, e) = cursor.take_while(|b| b > b' ' && b != b'>' && b != b'<' && b != b'"');
        if s == e || !cursor.eat(b'>') {
            return None;
        }
        element.uri = Span::new(s, e);
    } else {
        // RFC 3261 section 20: without angle brackets, parameters belong to the header field.
        cursor.jump(start);
        let (s, e) = cursor.take_while(|b| b > b' ' && !matches!(b, b';' | b'?' | b',' | b'<' | b'>' | b'"'));
        element.uri = Span::new(s, e);
    }
    // A scheme must lead, whatever it is.
    let scheme = memchr::memchr(b':', element.uri.of(bytes))?;
    if scheme == 0 || scheme + 1 == element.uri.len() {
        return None;
    }
    let params = cursor.at();
    while cursor.eat_separator(b';') {
        let (name, value) = cursor.param()?;
        if cursor.slice(name.0, name.1).eq_ignore_ascii_case(b"tag") {
            let (s, e) = value?;
            element.tag = Span::new(s, e);
        }
    }
    element.params = Span::new(params, cursor.at());
    cursor.lws();
    cursor.peek().is_none().then_some(element)
}

/// The value of header parameter `name` among `params`; empty where it has none, `None` where it is absent.
pub fn header_param<'a>(bytes: &'a [u8], params: Span, name: &[u8]) -> Option<&'a [u8]> {
    header_param_span(bytes, params, name).map(|value| value.of(bytes))
}

/// The same as where it stands.
pub fn header_param_span(bytes: &[u8], params: Span, name: &[u8]) -> Option<Span> {
    let mut cursor = Cursor::new(bytes, params.start(), params.end());
    while cursor.eat_separator(b';') {
        let (key, value) = cursor.param()?;
        if cursor.slice(key.0, key.1).eq_ignore_ascii_case(name) {
            return Some(value.map_or(Span::default(), |(s, e)| Span::new(s, e)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Option<NameAddr> {
        parse_name_addr(text, Span::new(0, text.len()))
    }

    #[test]
    fn display_names_are_tokens_or_quoted() {
        let text = br#""J Rosenberg \\\"" <sip:jdrosen@example.com;lr> ; tag = 98asjd8"#;
        let element = parse(text).unwrap();
        assert_eq!((element.uri.of(text), element.tag.of(text)), (&b"sip:jdrosen@example.com;lr"[..], &b"98asjd8"[..]));
        assert!(parse(b"I have spaces <sip:a@b>").is_some());
        assert!(parse(b"sip:a@b;tag=1").is_some());
    }

    #[test]
    fn what_breaks_the_grammar_is_refused() {
        for text in [
            &br#""Mr. J. User <sip:j.user@example.com>"#[..],
            b"Bell, Alexander <sip:a@b>",
            b"<sip:a@b",
            b"< sip:a@b>",
            b"sip:a@b;tag=",
            b"<>",
            b"sip:",
            b"\"x\" sip:a@b",
        ] {
            assert_eq!(parse(text), None, "{}", String::from_utf8_lossy(text));
        }
    }
}
