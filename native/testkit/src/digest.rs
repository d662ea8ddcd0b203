//! Answers to challenges, as a phone makes them.

use proto::{Algorithm, DigestInput, Protection, digest_response, ha1};

/// The parameter `name` of a challenge; empty where it has none.
pub fn challenge_param<'a>(challenge: &'a str, name: &str) -> &'a str {
    let mark = format!("{name}=\"");
    challenge.split(&mark).nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default()
}

/// Credentials that answer `challenge` with a password, with this count of its nonce.
pub fn answer(challenge: &str, method: &str, uri: &str, user: &str, password: &str, count: u32) -> String {
    let (realm, nonce) = (challenge_param(challenge, "realm"), challenge_param(challenge, "nonce"));
    let algorithm = if challenge.contains("algorithm=SHA-256") { Algorithm::Sha256 } else { Algorithm::Md5 };
    let nonce_count = format!("{count:08x}");
    let input = DigestInput {
        method: method.as_bytes(),
        uri: uri.as_bytes(),
        nonce: nonce.as_bytes(),
        protection: Some(Protection { nonce_count: nonce_count.as_bytes(), cnonce: b"cn", qop: b"auth" }),
        session: false,
        body: b"",
    };
    let response = digest_response(algorithm, &ha1(algorithm, user.as_bytes(), realm.as_bytes(), password.as_bytes()), &input);
    let response = String::from_utf8_lossy(response.as_bytes()).into_owned();
    format!(
        "Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", response=\"{response}\", algorithm={}, cnonce=\"cn\", qop=auth, nc={nonce_count}",
        algorithm.as_str()
    )
}
