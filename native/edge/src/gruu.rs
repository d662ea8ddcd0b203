//! Addresses of one device (RFC 5627): handed out with a registration, and looked up like any address of record.

use std::io::Write;

use proto::{Binding, TemporaryGruu};
use syntax::{Message, Scheme, Uri, parse_name_addr, uri_param};

use crate::edge::Edge;
use crate::gateway_uri::unescaped;

/// Which device of a user a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// Any.
    Any,
    /// That of this instance.
    Instance(Box<[u8]>),
    /// That which a temporary GRUU names.
    Temporary(u64),
}

/// Whom a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The address of record.
    pub(crate) aor: Box<[u8]>,
    /// Which of its devices.
    pub(crate) device: Device,
}

impl Wanted {
    /// Any device of `aor`.
    pub fn any(aor: &[u8]) -> Self {
        Self { aor: aor.into(), device: Device::Any }
    }
}

/// An instance without what a Contact puts around it.
fn bare(instance: &[u8]) -> &[u8] {
    let text = instance.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(instance);
    text.strip_prefix(b"<").and_then(|text| text.strip_suffix(b">")).unwrap_or(text)
}

/// Whether `uri` has the parameter of a GRUU.
pub(crate) fn is_gruu(bytes: &[u8], uri: &Uri) -> bool {
    uri_param(bytes, uri.params, b"gr").is_some()
}

impl Edge {
    /// Whom `uri`, of a domain that is served here, is for.
    pub(crate) fn wanted(&self, bytes: &[u8], uri: &Uri) -> Option<Wanted> {
        let Some(value) = uri_param(bytes, uri.params, b"gr") else {
            return self.address_of_record(bytes, uri).map(|aor| Wanted::any(self.account_of(&aor)));
        };
        if !value.is_empty() {
            let device = Device::Instance(unescaped(value).into());
            return self.address_of_record(bytes, uri).map(|aor| Wanted { aor: aor.into(), device });
        }
        match TemporaryGruu::read(uri.user.of(bytes), &self.options.route_secret) {
            Some(gruu) => Some(Wanted { aor: gruu.aor.into(), device: Device::Temporary(gruu.device) }),
            None => self.address_of_record(bytes, uri).map(|aor| Wanted::any(&aor)),
        }
    }

    /// Whether a binding is that of the device which is wanted.
    pub(crate) fn is_wanted(&self, binding: &Binding, device: &Device) -> bool {
        match device {
            Device::Any => true,
            // Those of UUIDs are the same in either case (RFC 4122 section 3), and only those are in use.
            Device::Instance(wanted) => !binding.instance().is_empty() && bare(binding.instance()).eq_ignore_ascii_case(wanted),
            Device::Temporary(wanted) => TemporaryGruu::device(&self.options.route_secret, binding.instance(), binding.call_id()) == *wanted,
        }
    }

    /// Whether a request within a dialog is for a GRUU of ours, which its far end gave as its Contact.
    pub(crate) fn dialog_gruu(&self, message: &Message<'_>, uri: &Uri) -> Option<Wanted> {
        (is_gruu(message.bytes, uri) && self.serves(message.text(uri.host))).then(|| self.wanted(message.bytes, uri)).flatten()
    }

    /// Appends what a 200 says of the GRUUs of a binding (RFC 5627 section 5.2).
    pub(crate) fn push_gruus(&mut self, message: &Message<'_>, aor: &[u8], instance: &[u8], call_id: &[u8], lines: &mut Vec<u8>) {
        let Ok(to) = Uri::parse(message.bytes, message.head.to.uri) else { return };
        let scheme: &[u8] = if to.scheme == Scheme::Sips { b"sips:" } else { b"sip:" };
        let host = message.text(to.host);
        lines.extend_from_slice(b";pub-gruu=\"");
        lines.extend_from_slice(scheme);
        lines.extend_from_slice(message.text(to.user));
        lines.push(b'@');
        lines.extend_from_slice(host);
        lines.extend_from_slice(b";gr=");
        for byte in bare(instance) {
            match byte {
                byte if byte.is_ascii_alphanumeric() || b"-_.!~*'()[]/:&+$".contains(byte) => lines.push(*byte),
                // Writing to a Vec cannot fail.
                byte => drop(write!(lines, "%{byte:02X}")),
            }
        }
        lines.extend_from_slice(b"\";temp-gruu=\"");
        lines.extend_from_slice(scheme);
        let secret = self.options.route_secret;
        let gruu = TemporaryGruu { aor: aor.to_vec(), device: TemporaryGruu::device(&secret, instance, call_id) };
        gruu.write(&secret, self.random() as u32, lines);
        lines.push(b'@');
        lines.extend_from_slice(host);
        lines.extend_from_slice(b";gr\"");
    }

    /// Whether a Contact is a GRUU of ours: whoever registered at such a place would be looked for there, round and round
    /// (RFC 5627 section 5.1).
    pub(crate) fn is_own_gruu(&self, bytes: &[u8], uri: &Uri) -> bool {
        is_gruu(bytes, uri) && self.serves(uri.host.of(bytes))
    }

    /// Whether all Contacts of a message are GRUUs of ours, which need no mark to be found.
    pub(crate) fn has_gruu(&self, message: &Message<'_>) -> bool {
        message.elements(syntax::HeaderName::Contact).all(|element| {
            let contact = parse_name_addr(message.bytes, element).and_then(|contact| Uri::parse(message.bytes, contact.uri).ok());
            contact.is_some_and(|uri| self.is_own_gruu(message.bytes, &uri))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::bare;

    #[test]
    fn an_instance_is_bare_without_quotes_and_brackets() {
        for text in ["\"<urn:uuid:1>\"", "<urn:uuid:1>", "urn:uuid:1", "\"urn:uuid:1\""] {
            assert_eq!(bare(text.as_bytes()), b"urn:uuid:1", "{text}");
        }
        assert_eq!(bare(b"\"<x\""), b"<x");
    }
}
