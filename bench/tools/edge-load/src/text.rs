//! Messages as the generator writes and reads them: just enough of SIP, without the product's own parser.

use std::io::Write;
use std::net::SocketAddr;

use md5::{Digest, Md5};

const SDP: &str = "v=0\r\no=load 53655765 2353687637 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 6000 RTP/AVP 0 8\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:8 PCMA/8000\r\n";

/// Who is talking to whom.
#[derive(Clone, Copy)]
pub(crate) struct Places {
    pub(crate) caller: SocketAddr,
    pub(crate) callee: SocketAddr,
    pub(crate) target: SocketAddr,
    pub(crate) run: u32,
    /// As Via names the transport.
    pub(crate) transport: &'static str,
    /// What a URI adds for it.
    pub(crate) parameter: &'static str,
    /// Digits of the number that a call is for; 0 names a service.
    pub(crate) digits: u32,
}

/// Whom a call is for: numbers of any value, each time the same for a call.
fn user(p: &Places, call: usize) -> String {
    if p.digits == 0 {
        return "service".to_owned();
    }
    let mut mixed = (call as u64 ^ u64::from(p.run) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (mixed ^ mixed >> 32) % 10_u64.pow(p.digits);
    format!("{number:0width$}", width = p.digits as usize)
}

// Writing to a Vec cannot fail, so the results below are dropped.

pub(crate) fn invite(out: &mut Vec<u8>, p: &Places, call: usize) {
    let &Places { caller, callee, run, transport, parameter, .. } = p;
    let user = user(p, call);
    let _ = write!(
        out,
        "INVITE sip:{user}@{callee}{parameter} SIP/2.0\r\nVia: SIP/2.0/{transport} {caller};branch=z9hG4bK-i{call}-{run}\r\nFrom: load <sip:load@{caller}>;tag=f{call}\r\nTo: service <sip:service@{callee}>\r\nCall-ID: {call}-{run}@{caller}\r\nCSeq: 1 INVITE\r\nContact: <sip:load@{caller}>\r\nMax-Forwards: 70\r\nSubject: Performance Test\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{SDP}",
        SDP.len()
    );
}

/// A REGISTER of a user; the second one of an exchange has credentials.
pub(crate) fn register(out: &mut Vec<u8>, p: &Places, who: &Registrant<'_>, call: usize, credentials: &str) {
    let &Places { caller, run, transport, .. } = p;
    let Registrant { domain, user, .. } = *who;
    let cseq = 1 + u32::from(!credentials.is_empty());
    let _ = write!(
        out,
        "REGISTER sip:{domain} SIP/2.0\r\nVia: SIP/2.0/{transport} {caller};branch=z9hG4bK-r{cseq}{call}-{run}\r\nFrom: <sip:u{user}@{domain}>;tag=f{call}\r\nTo: <sip:u{user}@{domain}>\r\nCall-ID: {call}-{run}@{caller}\r\nCSeq: {cseq} REGISTER\r\nContact: <sip:u{user}@{caller}>\r\n{credentials}Max-Forwards: 70\r\nExpires: 3600\r\nUser-Agent: load\r\nContent-Length: 0\r\n\r\n"
    );
}

/// Who registers.
pub(crate) struct Registrant<'a> {
    pub(crate) domain: &'a str,
    pub(crate) user: usize,
    pub(crate) password: Option<&'a str>,
}

/// The answer to a digest challenge by MD5; `None` where there is no password, or the challenge is none.
pub(crate) fn credentials(challenge: &[u8], who: &Registrant<'_>) -> Option<String> {
    let hex = |text: String| Md5::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let line = lines(challenge).find_map(|line| value_of(line, b"WWW-Authenticate"))?;
    let line = std::str::from_utf8(line).ok()?;
    let param = |name: &str| line.split(&format!("{name}=\"")).nth(1)?.split('"').next();
    let (realm, nonce) = (param("realm")?, param("nonce")?);
    let Registrant { domain, user, password } = *who;
    let ha1 = hex(format!("u{user}:{realm}:{}{user}", password?));
    let response = hex(format!("{ha1}:{nonce}:00000001:c:auth:{}", hex(format!("REGISTER:sip:{domain}"))));
    Some(format!(
        "Authorization: Digest username=\"u{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"sip:{domain}\", response=\"{response}\", cnonce=\"c\", nc=00000001, qop=auth, algorithm=MD5\r\n"
    ))
}

/// What an in-dialog request needs of the 2xx.
#[derive(Clone, Default)]
pub(crate) struct DialogText {
    pub(crate) to: Vec<u8>,
    pub(crate) routes: Vec<u8>,
}

impl DialogText {
    /// Takes To and, as the route set in the caller's order, Record-Route from a response.
    pub(crate) fn of(response: &[u8]) -> Self {
        let mut text = Self::default();
        let mut routes: Vec<&[u8]> = Vec::new();
        for line in lines(response) {
            if let Some(value) = value_of(line, b"Record-Route") {
                routes.push(value);
            } else if line.starts_with(b"To:") {
                text.to = line.to_vec();
            }
        }
        for route in routes.iter().rev() {
            text.routes.extend_from_slice(b"Route: ");
            text.routes.extend_from_slice(route);
            text.routes.extend_from_slice(b"\r\n");
        }
        text
    }
}

pub(crate) fn in_dialog(out: &mut Vec<u8>, p: &Places, call: usize, method: &str, cseq: u32, dialog: &DialogText) {
    let &Places { caller, callee, run, transport, parameter, .. } = p;
    let _ = write!(out, "{method} sip:service@{callee}{parameter} SIP/2.0\r\nVia: SIP/2.0/{transport} {caller};branch=z9hG4bK-{method}{call}-{run}\r\n");
    out.extend_from_slice(&dialog.routes);
    let _ = write!(out, "From: load <sip:load@{caller}>;tag=f{call}\r\n");
    out.extend_from_slice(&dialog.to);
    let _ = write!(
        out,
        "\r\nCall-ID: {call}-{run}@{caller}\r\nCSeq: {cseq} {method}\r\nContact: <sip:load@{caller}>\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    );
}

/// The ACK of a refusal: same branch as its INVITE.
pub(crate) fn ack_refusal(out: &mut Vec<u8>, p: &Places, call: usize, response: &[u8]) {
    let &Places { caller, callee, run, transport, parameter, .. } = p;
    let user = user(p, call);
    let to = lines(response).find(|line| line.starts_with(b"To:")).unwrap_or_default();
    let _ = write!(
        out,
        "ACK sip:{user}@{callee}{parameter} SIP/2.0\r\nVia: SIP/2.0/{transport} {caller};branch=z9hG4bK-i{call}-{run}\r\nFrom: load <sip:load@{caller}>;tag=f{call}\r\n"
    );
    out.extend_from_slice(to);
    let _ = write!(out, "\r\nCall-ID: {call}-{run}@{caller}\r\nCSeq: 1 ACK\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n");
}

/// The CANCEL of an INVITE (RFC 3261 section 9.1).
pub(crate) fn cancel(out: &mut Vec<u8>, p: &Places, call: usize) {
    let &Places { caller, callee, run, transport, parameter, .. } = p;
    let user = user(p, call);
    let _ = write!(
        out,
        "CANCEL sip:{user}@{callee}{parameter} SIP/2.0\r\nVia: SIP/2.0/{transport} {caller};branch=z9hG4bK-i{call}-{run}\r\nFrom: load <sip:load@{caller}>;tag=f{call}\r\nTo: service <sip:service@{callee}>\r\nCall-ID: {call}-{run}@{caller}\r\nCSeq: 1 CANCEL\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
    );
}

/// The number of the call that a request is of; `None` for one of another run.
pub(crate) fn call_of(request: &[u8], p: &Places) -> Option<usize> {
    let value = lines(request).find_map(|line| value_of(line, b"Call-ID"))?;
    let (number, rest) = std::str::from_utf8(value).ok()?.split_once('-')?;
    (rest.split('@').next()?.parse() == Ok(p.run)).then(|| number.parse().ok()).flatten()
}

/// The callee's answer to `request`.
pub(crate) fn answer(out: &mut Vec<u8>, p: &Places, request: &[u8], status: &str, with_sdp: bool) {
    let _ = write!(out, "SIP/2.0 {status}\r\n");
    for line in lines(request) {
        let kept = [&b"Via:"[..], b"Record-Route:", b"From:", b"Call-ID:", b"CSeq:"].iter().any(|name| line.starts_with(name));
        if kept {
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        } else if line.starts_with(b"To:") {
            out.extend_from_slice(line);
            if memchr::memmem::find(line, b";tag=").is_none() {
                out.extend_from_slice(b";tag=callee");
            }
            out.extend_from_slice(b"\r\n");
        }
    }
    let body = if with_sdp { SDP } else { "" };
    let _ = write!(
        out,
        "Contact: <sip:service@{}>\r\n{}Content-Length: {}\r\n\r\n{body}",
        p.callee,
        if with_sdp { "Content-Type: application/sdp\r\n" } else { "" },
        body.len()
    );
}

/// Status code, number of the call and method of a response; `None` for one of another run.
pub(crate) fn read_response<'a>(response: &'a [u8], p: &Places) -> Option<(u16, usize, &'a [u8])> {
    let code = std::str::from_utf8(response.get(8..11)?).ok()?.parse().ok()?;
    let (mut call, mut method) = (None, None);
    for line in lines(response) {
        if let Some(value) = value_of(line, b"Call-ID") {
            let text = std::str::from_utf8(value).ok()?;
            let (number, rest) = text.split_once('-')?;
            let run = rest.split('@').next()?;
            call = (run.parse() == Ok(p.run)).then(|| number.parse().ok()).flatten();
        } else if let Some(value) = value_of(line, b"CSeq") {
            method = value.rsplit(|b| *b == b' ').next();
        }
    }
    Some((code, call?, method?))
}

fn lines(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    message.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).take_while(|line| !line.is_empty())
}

fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(name)?.strip_prefix(b": ")
}
