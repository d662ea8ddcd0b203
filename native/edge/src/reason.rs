//! Why a call was refused, in the words of the telephone network.

use syntax::{HeaderName, Message, list_elements};

/// The Reason header fields of a response, and after what time it wants to be asked again.
pub(crate) fn reason_lines(response: &Message<'_>) -> Vec<u8> {
    response.all(HeaderName::Reason).chain(response.all(HeaderName::RetryAfter)).flat_map(|slot| slot.line.of(response.bytes)).copied().collect()
}

/// The Q.850 cause that a response's Reason header field names (RFC 3326 section 2).
pub(crate) fn q850_cause(message: &Message<'_>) -> Option<u16> {
    for slot in message.all(HeaderName::Reason) {
        for element in list_elements(message.bytes, slot.value) {
            let text = element.of(message.bytes);
            let mut parts = text.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            if !parts.next().is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"Q.850")) {
                continue;
            }
            let cause = parts.find_map(|part| {
                let (name, value) = part.split_at_checked(part.iter().position(|byte| *byte == b'=')?)?;
                if name.trim_ascii().eq_ignore_ascii_case(b"cause") { std::str::from_utf8(&value[1..]).ok()?.trim().parse().ok() } else { None }
            });
            if cause.is_some() {
                return cause;
            }
        }
    }
    None
}
