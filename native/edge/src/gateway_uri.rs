//! The number that rules look at, and the Request-URI that a gateway gets.

use routing::{SEPARATORS, Table};
use syntax::{Message, Scheme, Uri, push_user};

/// Parameters of a Request-URI that say how to reach its host, which is another one now.
const PARAMETERS_OF_HOST: [&[u8]; 5] = [b"transport", b"maddr", b"lr", b"ttl", b"method"];
/// The number of a Request-URI as rules know it.
pub(crate) fn dialled(table: &Table, message: &Message<'_>, uri: &Uri) -> Vec<u8> {
    let text = message.text(uri.user);
    normal(table, text.split(|byte| *byte == b';').next().unwrap_or_default())
}

/// Whether a number has a plus sign that rules cannot have, so that they know it without.
pub fn loses_plus(table: &Table, text: &[u8]) -> bool {
    (text.starts_with(b"+") || text.starts_with(b"%2B") || text.starts_with(b"%2b")) && !table.alphabet().has(b'+')
}

/// The routing number of a Request-URI, as rules know it: parameter `rn` (RFC 4694 section 4) of the user part or of a `tel:` URI.
pub(crate) fn routing_number(table: &Table, message: &Message<'_>, uri: &Uri) -> Option<Vec<u8>> {
    let parameters = if uri.scheme == Scheme::Tel { message.text(uri.params) } else { message.text(uri.user) };
    let value = |parameter: &[u8]| {
        let (name, value) = parameter.split_at_checked(3)?;
        name.eq_ignore_ascii_case(b"rn=").then(|| normal(table, value))
    };
    parameters.split(|byte| *byte == b';').skip(1).find_map(value).filter(|number| !number.is_empty())
}

/// A user part without escapes.
pub(crate) fn unescaped(text: &[u8]) -> Vec<u8> {
    syntax::unescaped(text).collect()
}

/// A user part as keys have it: without escapes and parameters, and of a number only what is dialled.
pub(crate) fn plain_user(text: &[u8]) -> String {
    let plain = unescaped(text.split(|byte| *byte == b';').next().unwrap_or_default());
    let number = plain.first().is_some_and(|byte| *byte == b'+' || byte.is_ascii_digit());
    let parts = |byte: &u8| number && SEPARATORS.contains(byte);
    let kept: Vec<u8> = plain.into_iter().filter(|byte| !parts(byte)).collect();
    String::from_utf8_lossy(&kept).into_owned()
}

/// A number without escapes, and without what rules cannot have: a leading plus sign, and what only parts digits.
pub fn normal(table: &Table, text: &[u8]) -> Vec<u8> {
    let alphabet = table.alphabet();
    let mut number = unescaped(text);
    if number.first() == Some(&b'+') && !alphabet.has(b'+') {
        number.remove(0);
    }
    let parts = |byte: &u8| SEPARATORS.contains(byte) && !alphabet.has(*byte);
    if number.iter().all(|byte| alphabet.has(*byte) || parts(byte)) {
        number.retain(|byte| !parts(byte));
    }
    number
}

/// Appends parameters that stand in a user part (RFC 3966 section 3, RFC 3261 section 19.1.6): what could be taken for the end
/// of that is escaped.
pub(crate) fn push_parameters(text: &[u8], out: &mut Vec<u8>) {
    for (place, byte) in text.iter().enumerate() {
        let escape = *byte == b'%' && text.get(place + 1..place + 3).is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit));
        if escape || byte.is_ascii_alphanumeric() || b"-_.!~*'()&=+$,/;".contains(byte) {
            out.push(*byte);
        } else {
            out.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
}

/// The Request-URI for a gateway: its number and host, and of what came what does not speak of another host.
pub(crate) fn write_uri(gateway: &routing::Gateway, number: &[u8], message: &Message<'_>, uri: &Uri, out: &mut Vec<u8>) {
    out.clear();
    let (scheme, place) = gateway.uri.split_once(':').unwrap_or(("sip", &gateway.uri));
    out.extend_from_slice(scheme.as_bytes());
    out.push(b':');
    let number = gateway.number(number);
    if !number.is_empty() {
        push_user(&number, out);
        let user = message.text(uri.user);
        if let Some(at) = user.iter().position(|byte| *byte == b';') {
            push_parameters(&user[at..], out);
        }
        if uri.scheme == Scheme::Tel {
            push_parameters(message.text(uri.params), out);
        }
        out.push(b'@');
    }
    out.extend_from_slice(place.as_bytes());
    // Each parameter may be there once (RFC 3261 section 19.1.1): the gateway's own wins.
    let own = |name: &[u8]| place.split(';').skip(1).any(|own| own.split('=').next().unwrap_or_default().as_bytes().eq_ignore_ascii_case(name));
    if uri.scheme == Scheme::Tel {
        if !own(b"user") {
            out.extend_from_slice(b";user=phone");
        }
        return;
    }
    for parameter in message.text(uri.params).split(|byte| *byte == b';').filter(|parameter| !parameter.is_empty()) {
        let name = parameter.split(|byte| *byte == b'=').next().unwrap_or_default();
        let clean = parameter.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.!~*'()[]/:&+$%=".contains(byte));
        if clean && !own(name) && !PARAMETERS_OF_HOST.iter().any(|other| name.eq_ignore_ascii_case(other)) {
            out.push(b';');
            out.extend_from_slice(parameter);
        }
    }
}
