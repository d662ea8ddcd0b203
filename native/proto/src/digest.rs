//! Digest computations (RFC 3261 section 22, RFC 7616, RFC 8760).

use md5::Md5;
use sha2::digest::{Digest, Output};
use sha2::{Sha256, Sha512_256};

/// Hash functions, the strongest first: the order in which they are offered (RFC 8760 section 2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the algorithm of its name")]
pub enum Algorithm {
    Sha512Trunc256,
    Sha256,
    Md5,
}

impl Algorithm {
    /// All of them, the strongest first.
    pub const ALL: [Self; 3] = [Self::Sha512Trunc256, Self::Sha256, Self::Md5];

    /// The name as header fields write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha512Trunc256 => "SHA-512-256",
            Self::Sha256 => "SHA-256",
            Self::Md5 => "MD5",
        }
    }

    /// The algorithm of this name, compared without case, and whether it is the `-sess` variant; none means MD5.
    pub fn from_bytes(name: &[u8]) -> Option<(Self, bool)> {
        if name.is_empty() {
            return Some((Self::Md5, false));
        }
        let (base, session) = match name.len().checked_sub(5).map(|at| name.split_at(at)) {
            Some((base, end)) if end.eq_ignore_ascii_case(b"-sess") => (base, true),
            _ => (name, false),
        };
        Self::ALL.into_iter().find(|algorithm| base.eq_ignore_ascii_case(algorithm.as_str().as_bytes())).map(|algorithm| (algorithm, session))
    }
}

/// What a response is computed of.
#[derive(Clone, Copy)]
pub struct DigestInput<'a> {
    /// The request's method.
    pub method: &'a [u8],
    /// The `uri` parameter.
    pub uri: &'a [u8],
    /// The nonce.
    pub nonce: &'a [u8],
    /// Nonce count, client's nonce and quality of protection; `None` for a client of RFC 2069.
    pub protection: Option<Protection<'a>>,
    /// Whether HA1 is that of a session.
    pub session: bool,
    /// The body, which `auth-int` protects.
    pub body: &'a [u8],
}

/// The part of a computation that quality of protection adds.
#[derive(Clone, Copy)]
pub struct Protection<'a> {
    /// The nonce count as written.
    pub nonce_count: &'a [u8],
    /// The client's nonce.
    pub cnonce: &'a [u8],
    /// `auth` or `auth-int`, as written.
    pub qop: &'a [u8],
}

/// The most hexadecimal digits of any hash here.
const DIGEST_TEXT: usize = 64;

/// A hash as hexadecimal text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DigestText {
    bytes: [u8; DIGEST_TEXT],
    len: u8,
}

impl std::fmt::Debug for DigestText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // HA1 is as good as a password.
        f.write_str("DigestText(..)")
    }
}

impl DigestText {
    fn new(hash: &[u8]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = Self { bytes: [0; DIGEST_TEXT], len: (hash.len() * 2) as u8 };
        for (pair, byte) in text.bytes.chunks_exact_mut(2).zip(hash) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
        text
    }

    /// The HA1 that a database holds, in either case of its digits; `None` where it is none of `algorithm`.
    pub fn read(algorithm: Algorithm, text: &[u8]) -> Option<Self> {
        let wanted = if algorithm == Algorithm::Md5 { 32 } else { 64 };
        if text.len() != wanted || !text.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut read = Self { bytes: [0; DIGEST_TEXT], len: wanted as u8 };
        read.bytes[..wanted].copy_from_slice(text);
        read.bytes.make_ascii_lowercase();
        Some(read)
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// Whether `other`, in either case of its digits, is the same; in time that does not tell where it differs.
    pub fn matches(&self, other: &[u8]) -> bool {
        let text = self.as_bytes();
        text.len() == other.len() && text.iter().zip(other).fold(0, |differences, (x, y)| differences | (x ^ y.to_ascii_lowercase())) == 0
    }
}

fn hash<D: Digest>(parts: &[&[u8]]) -> DigestText {
    let mut hasher = D::new();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            hasher.update(b":");
        }
        hasher.update(part);
    }
    let output: Output<D> = hasher.finalize();
    DigestText::new(&output)
}

fn joined(algorithm: Algorithm, parts: &[&[u8]]) -> DigestText {
    match algorithm {
        Algorithm::Md5 => hash::<Md5>(parts),
        Algorithm::Sha256 => hash::<Sha256>(parts),
        Algorithm::Sha512Trunc256 => hash::<Sha512_256>(parts),
    }
}

/// HA1 of a clear password.
pub fn ha1(algorithm: Algorithm, username: &[u8], realm: &[u8], password: &[u8]) -> DigestText {
    joined(algorithm, &[username, realm, password])
}

/// The response that a client with `ha1` gives (RFC 7616 section 3.4.1).
pub fn digest_response(algorithm: Algorithm, ha1: &DigestText, input: &DigestInput<'_>) -> DigestText {
    let cnonce = input.protection.map_or(&[][..], |protection| protection.cnonce);
    let ha1 = if input.session { joined(algorithm, &[ha1.as_bytes(), input.nonce, cnonce]) } else { *ha1 };
    let whole = input.protection.is_some_and(|protection| protection.qop.eq_ignore_ascii_case(b"auth-int"));
    let ha2 = if whole {
        joined(algorithm, &[input.method, input.uri, joined(algorithm, &[input.body]).as_bytes()])
    } else {
        joined(algorithm, &[input.method, input.uri])
    };
    match input.protection {
        Some(Protection { nonce_count, cnonce, qop }) => joined(algorithm, &[ha1.as_bytes(), input.nonce, nonce_count, cnonce, qop, ha2.as_bytes()]),
        None => joined(algorithm, &[ha1.as_bytes(), input.nonce, ha2.as_bytes()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(digest: &DigestText) -> &str {
        std::str::from_utf8(digest.as_bytes()).unwrap()
    }

    #[test]
    fn the_example_of_rfc_7616_comes_out() {
        // Section 3.9.1.
        let input = |qop| DigestInput {
            method: b"GET",
            uri: b"/dir/index.html",
            nonce: b"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
            protection: Some(Protection { nonce_count: b"00000001", cnonce: b"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ", qop }),
            session: false,
            body: b"",
        };
        let answer = |algorithm| {
            let ha1 = ha1(algorithm, b"Mufasa", b"http-auth@example.org", b"Circle of Life");
            text(&digest_response(algorithm, &ha1, &input(b"auth"))).to_owned()
        };
        assert_eq!(answer(Algorithm::Md5), "8ca523f5e9506fed4657c9700eebdbec");
        assert_eq!(answer(Algorithm::Sha256), "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1");
    }

    #[test]
    fn algorithms_are_known_by_name() {
        assert_eq!(Algorithm::from_bytes(b""), Some((Algorithm::Md5, false)));
        assert_eq!(Algorithm::from_bytes(b"md5-SESS"), Some((Algorithm::Md5, true)));
        assert_eq!(Algorithm::from_bytes(b"sha-512-256"), Some((Algorithm::Sha512Trunc256, false)));
        assert_eq!(Algorithm::from_bytes(b"-sess"), None);
        assert_eq!(Algorithm::from_bytes(b"SHA-1"), None);
    }

    #[test]
    fn a_stored_ha1_is_read_in_either_case_and_only_in_its_length() {
        let stored = DigestText::read(Algorithm::Md5, b"939E7578ED9E3C518A452ACEE763BCE9").unwrap();
        assert!(ha1(Algorithm::Md5, b"Mufasa", b"testrealm@host.com", b"Circle Of Life").matches(stored.as_bytes()));
        assert_eq!(DigestText::read(Algorithm::Sha256, b"939E7578ED9E3C518A452ACEE763BCE9"), None);
        assert_eq!(DigestText::read(Algorithm::Md5, b"939E7578ED9E3C518A452ACEE763BCEx"), None);
        assert!(!stored.matches(b"939e7578ed9e3c518a452acee763bce8"));
        assert!(!stored.matches(b""));
        assert_eq!(format!("{stored:?}"), "DigestText(..)");
    }
}
