//! The trust domain (RFC 3325): what is said of a caller's identity goes to those who are believed, and to others only if the
//! caller does not mind; who has proved who it is is vouched for.

use proto::Key;
use syntax::{HeaderName, Message, Slot, Span, header_param, list_elements, parse_name_addr, push_user};

use crate::edge::Edge;
use crate::transaction::Shape;

/// Whether the sender wants its identity withheld from whoever is not trusted (RFC 3325 section 9.3, RFC 3323 section 4.2); switches that
/// say who calls by Remote-Party-ID say so there (draft-ietf-sip-privacy-04 section 4).
pub(crate) fn wants_privacy(message: &Message<'_>) -> bool {
    privacy_values(message).any(|value| value.eq_ignore_ascii_case(b"id")) || message.elements(HeaderName::RemotePartyId).any(|element| hides(message, element))
}

fn privacy_values<'a>(message: &'a Message<'_>) -> impl Iterator<Item = &'a [u8]> {
    message.named(b"Privacy").flat_map(|slot| message.text(slot.value).split(|byte| matches!(byte, b';' | b',') || byte.is_ascii_whitespace()))
}

/// Whether somebody is named whose `privacy` says that the URI is to be hidden.
fn hides(message: &Message<'_>, element: Span) -> bool {
    let Some(party) = parse_name_addr(message.bytes, element) else { return false };
    let privacy = header_param(message.bytes, party.params, b"privacy").unwrap_or_default();
    let mut values = privacy.split(|byte| matches!(byte, b'-' | b'"'));
    values.any(|value| [&b"full"[..], b"uri"].iter().any(|hidden| value.eq_ignore_ascii_case(hidden)))
}

/// Whether a line of Diversion or History-Info is not for whoever is not trusted: for the one its own parameter says so (RFC 5806 section 4),
/// for the other that of an entry, or Privacy (RFC 7044 section 10.1).
#[inline]
pub(crate) fn is_withheld_history(message: &Message<'_>, slot: &Slot) -> bool {
    matches!(slot.name, HeaderName::Diversion | HeaderName::HistoryInfo) && withholds(message, slot)
}

#[cold]
fn withholds(message: &Message<'_>, slot: &Slot) -> bool {
    let listed = |value: &[u8]| [&b"history"[..], b"header", b"session"].iter().any(|hidden| value.eq_ignore_ascii_case(hidden));
    match slot.name {
        HeaderName::Diversion => list_elements(message.bytes, slot.value).any(|element| hides(message, element)),
        HeaderName::HistoryInfo => {
            let own = message.text(slot.value).to_ascii_lowercase();
            memchr::memmem::find(&own, b"privacy=history").is_some() || privacy_values(message).any(listed)
        }
        _ => false,
    }
}

/// Appends the URI of `user@domain`, whose user may be of any characters.
fn push_account(name: &[u8], line: &mut Vec<u8>) {
    let at = name.iter().rposition(|byte| *byte == b'@').unwrap_or(name.len());
    let (user, domain) = name.split_at(at);
    line.extend_from_slice(b"sip:");
    push_user(user, line);
    line.extend_from_slice(domain);
}

impl Edge {
    fn believes(&self, peer: Option<u16>) -> bool {
        peer.and_then(|index| self.snapshot.settings.peers.get(usize::from(index))).is_some_and(|peer| peer.trust_identity)
    }

    /// Edits what a request to `far` says of its caller.
    pub(crate) fn edit_identity(&mut self, message: &Message<'_>, shape: &Shape, far: Option<u16>) {
        let head = message.head;
        let vouches = shape.from_peer.is_some_and(|index| self.snapshot.settings.peers[usize::from(index)].authenticate);
        let believed = self.believes(far);
        let withheld = !believed && !shape.strip_identity && head.slots().iter().any(|slot| slot.name.tells_identity()) && wants_privacy(message);
        if shape.strip_identity || withheld {
            for slot in head.slots().iter().filter(|slot| if withheld { slot.name.tells_identity() } else { slot.name.needs_trust() }) {
                self.edits.remove(slot.line);
            }
        }
        if !believed {
            let gone = |name: HeaderName| shape.strip_identity && name.needs_trust() || vouches && name == HeaderName::PPreferredIdentity;
            let hidden = |slot: &Slot| is_withheld_history(message, slot) && !shape.strip_identity;
            for slot in head.slots().iter().filter(|slot| slot.name.stays_within() && !gone(slot.name) || hidden(slot)) {
                self.edits.remove(slot.line);
            }
        }
        if vouches {
            for slot in message.all(HeaderName::PPreferredIdentity) {
                self.edits.remove(slot.line);
            }
            // What it said of itself was looked at, and is said by us; within a dialog nobody looked.
            for slot in message.all(HeaderName::PAssertedIdentity).filter(|_| !shape.strip_identity && !withheld) {
                self.edits.remove(slot.line);
            }
            for slot in message.all(HeaderName::RemotePartyId).filter(|_| shape.dialog.is_some() && !shape.strip_identity && !withheld) {
                self.edits.remove(slot.line);
            }
        }
    }

    /// A P-Asserted-Identity line for who proved who it is, where `far` believes us.
    pub(crate) fn asserted(&self, entry: Key, far: Option<u16>) -> Option<Vec<u8>> {
        let account = self.transactions.get(entry)?.account.as_deref()?;
        self.believes(far).then(|| {
            let mut line = b"P-Asserted-Identity: <".to_vec();
            match &account.preferred {
                Some(preferred) => line.extend_from_slice(preferred),
                None => push_account(&account.name, &mut line),
            }
            line.extend_from_slice(b">\r\n");
            line
        })
    }
}
