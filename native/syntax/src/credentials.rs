//! What Authorization and Proxy-Authorization say (RFC 3261 section 25.1, RFC 7616 section 3.4).

use std::borrow::Cow;

use crate::cursor::{Cursor, is_lws, is_token};
use crate::{Message, Span};

/// Digest credentials; a parameter that is absent is empty. Quoted values come without their quotes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Whose they are, as written: with its escapes.
    pub username: Span,
    /// The realm.
    pub realm: Span,
    /// The nonce.
    pub nonce: Span,
    /// The URI that was hashed.
    pub uri: Span,
    /// The response.
    pub response: Span,
    /// The algorithm.
    pub algorithm: Span,
    /// The client's nonce.
    pub cnonce: Span,
    /// The nonce count.
    pub nonce_count: Span,
    /// The quality of protection.
    pub qop: Span,
}

/// What is wrong with credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialsError {
    /// Another scheme than Digest.
    Scheme,
    /// The grammar is broken, or a parameter stands twice.
    Malformed,
    /// A parameter that must be there is not.
    Missing,
}

impl Credentials {
    /// Reads the value of one header field.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn parse(bytes: &[u8], value: Span) -> Result<Self, CredentialsError> {
        let found = Self::read(bytes, value)?;
        let needed = [found.username, found.nonce, found.uri, found.response];
        // One that is there and empty has a place.
        if found.username.is_empty() || needed.contains(&Span::default()) { Err(CredentialsError::Missing) } else { Ok(found) }
    }

    /// The nonce of a Digest challenge (RFC 7616 section 3.3), without escapes.
    pub fn challenge_nonce<'a>(message: &Message<'a>, value: Span) -> Option<Cow<'a, [u8]>> {
        Self::read(message.bytes, value).ok().map(|challenge| unescaped(message.text(challenge.nonce)))
    }

    fn read(bytes: &[u8], value: Span) -> Result<Self, CredentialsError> {
        let mut cursor = Cursor::new(bytes, value.start(), value.end());
        let (start, end) = cursor.token().ok_or(CredentialsError::Malformed)?;
        if !cursor.slice(start, end).eq_ignore_ascii_case(b"digest") {
            return Err(CredentialsError::Scheme);
        }
        if !cursor.peek().is_some_and(is_lws) {
            return Err(CredentialsError::Malformed);
        }
        cursor.lws();
        let mut found = Self::default();
        loop {
            let (start, end) = cursor.token().ok_or(CredentialsError::Malformed)?;
            if !cursor.eat_separator(b'=') {
                return Err(CredentialsError::Malformed);
            }
            let value = if cursor.peek() == Some(b'"') {
                let (start, end) = cursor.quoted().ok_or(CredentialsError::Malformed)?;
                Span::new(start + 1, end - 1)
            } else {
                // Some phones leave the quotes out where the grammar wants them.
                let (start, end) = cursor.take_while(|b| is_token(b) || matches!(b, b':' | b'@' | b'/' | b'[' | b']' | b'='));
                if start == end {
                    return Err(CredentialsError::Malformed);
                }
                Span::new(start, end)
            };
            found.take(cursor.slice(start, end), value)?;
            if !cursor.eat_separator(b',') {
                break;
            }
        }
        cursor.lws();
        if cursor.peek().is_some() { Err(CredentialsError::Malformed) } else { Ok(found) }
    }

    fn take(&mut self, name: &[u8], value: Span) -> Result<(), CredentialsError> {
        let fields: [(&[u8], &mut Span); 9] = [
            (b"username", &mut self.username),
            (b"realm", &mut self.realm),
            (b"nonce", &mut self.nonce),
            (b"uri", &mut self.uri),
            (b"response", &mut self.response),
            (b"algorithm", &mut self.algorithm),
            (b"cnonce", &mut self.cnonce),
            (b"nc", &mut self.nonce_count),
            (b"qop", &mut self.qop),
        ];
        if let Some((_, place)) = fields.into_iter().find(|(known, _)| name.eq_ignore_ascii_case(known)) {
            if *place != Span::default() {
                return Err(CredentialsError::Malformed);
            }
            *place = value;
        }
        Ok(())
    }

    /// Whose they are, without escapes.
    pub fn user<'a>(&self, message: &Message<'a>) -> Cow<'a, [u8]> {
        unescaped(message.text(self.username))
    }

    /// Of which realm they are, without escapes.
    pub fn named_realm<'a>(&self, message: &Message<'a>) -> Cow<'a, [u8]> {
        unescaped(message.text(self.realm))
    }

    /// The nonce that they answer, without escapes.
    pub fn answered_nonce<'a>(&self, message: &Message<'a>) -> Cow<'a, [u8]> {
        unescaped(message.text(self.nonce))
    }
}

/// The text between the quotes of a quoted string, without its escapes (RFC 3261 section 25.1).
fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'\\', text).is_none() {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter().copied();
    while let Some(byte) = bytes.next() {
        out.extend(if byte == b'\\' { bytes.next() } else { Some(byte) });
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Result<Credentials, CredentialsError> {
        Credentials::parse(text, Span::new(0, text.len()))
    }

    #[test]
    fn every_parameter_is_found_in_any_order_and_case() {
        let text = br#"DIGEST  Realm="atlanta.com" ,uri="sip:atlanta.com",username="al\"ice",nonce="84a4", nc=00000001, cnonce="0a4f", qop=auth, opaque="", response="7587", algorithm=SHA-256, userhash=false"#;
        let found = parse(text).unwrap();
        let texts = [found.realm, found.uri, found.username, found.nonce, found.nonce_count, found.cnonce, found.qop, found.response, found.algorithm];
        let expected: [&[u8]; 9] = [b"atlanta.com", b"sip:atlanta.com", br#"al\"ice"#, b"84a4", b"00000001", b"0a4f", b"auth", b"7587", b"SHA-256"];
        assert_eq!(texts.map(|span| span.of(text)), expected);
        assert_eq!(&*unescaped(found.username.of(text)), br#"al"ice"#);
    }

    #[test]
    fn what_is_broken_is_refused() {
        for (text, why) in [
            (&b"Basic dXNlcjpwYXNz"[..], CredentialsError::Scheme),
            (b"", CredentialsError::Malformed),
            (b"Digest", CredentialsError::Malformed),
            (b"Digest ", CredentialsError::Malformed),
            (b"Digest username", CredentialsError::Malformed),
            (b"Digest username=\"a", CredentialsError::Malformed),
            (b"Digest username=\"a\\\"", CredentialsError::Malformed),
            (b"Digest username=\"a\", username=\"b\"", CredentialsError::Malformed),
            (b"Digest username=\"a\",, nonce=\"n\"", CredentialsError::Malformed),
            (b"Digest username=\"a\", nonce=\"n\", uri=\"u\", response=\"r\" x", CredentialsError::Malformed),
            (b"Digest username=\"a\", nonce=\"n\", uri=\"u\"", CredentialsError::Missing),
            (b"Digest username=\"\", nonce=\"n\", uri=\"u\", response=\"r\"", CredentialsError::Missing),
        ] {
            assert_eq!(parse(text), Err(why), "{}", String::from_utf8_lossy(text));
        }
    }
}
