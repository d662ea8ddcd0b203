//! Which transaction a request belongs to.

use syntax::{HeaderName, Message, Method};

use crate::{Secret, keyed_hash};

/// The key under which `request` finds its server transaction as if its method were `method` (RFC 3261 section 17.2.3):
/// an ACK is looked up as INVITE, a CANCEL as INVITE where its target is sought and as CANCEL where itself is.
pub fn transaction_key(secret: &Secret, request: &Message<'_>, method: Method) -> u128 {
    let head = request.head;
    let via = &head.via;
    let port = via.port.unwrap_or(5060).to_be_bytes();
    let other = if method == Method::Other { request.text(head.method_span) } else { &[] };
    if via.has_unique_branch(request.bytes) {
        let host = request.text(via.host);
        // Host names compare without case (RFC 3261 section 18.1.1), and most are written in one case.
        let lowered;
        let host = if host.iter().any(u8::is_ascii_uppercase) {
            lowered = host.to_ascii_lowercase();
            &lowered[..]
        } else {
            host
        };
        return keyed_hash(secret, &[request.text(via.branch), host, &port, &[method as u8], other]);
    }
    // Without the cookie the branch is not unique, so an RFC 2543 peer is matched on what it repeats. The To tag of
    // an ACK is that of our response, so it cannot take part.
    let via = request.first(HeaderName::Via).map_or(&[][..], |slot| slot.value.of(request.bytes));
    let uri = request.text(head.request_uri.whole);
    let to_tag = if matches!(method, Method::Invite) { &[][..] } else { request.text(head.to.tag) };
    keyed_hash(secret, &[uri, request.text(head.from.tag), to_tag, request.call_id(), &head.cseq.to_be_bytes(), via, &[method as u8], other, b"2543"])
}
