//! Addresses of one device (RFC 5627): handed out with a registration, and looked up like any address of record.

use std::io::Write;

use proto::{Binding, Direction, Record, TemporaryGruu};
use syntax::{Message, Scheme, Span, Uri, uri_param};

use crate::edge::Edge;
use crate::gateway_uri::unescaped;
use crate::subscriber_settings::RegistrarMode;
use crate::transaction::Shape;

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
        // What is no GRUU of ours, or no more, is nobody's address (RFC 5627 section 5.4).
        let gruu = TemporaryGruu::read(uri.user.of(bytes), &self.options.route_secret)?;
        Some(Wanted { aor: gruu.aor.into(), device: Device::Temporary(gruu.device) })
    }

    /// The live bindings of the device which is wanted.
    pub(crate) fn wanted_of<'a>(&self, record: &'a Record, device: &Device, seconds: u32) -> impl Iterator<Item = &'a Binding> + use<'a> {
        let secret = &self.options.route_secret;
        let instance: Option<Vec<u8>> = match device {
            Device::Any => None,
            Device::Instance(wanted) => Some(wanted.to_vec()),
            // One flow's name is that of the device: it is reached by the others as well.
            Device::Temporary(wanted) => {
                let named = record.live(seconds).find(|binding| TemporaryGruu::device(secret, binding.instance(), binding.call_id()) == *wanted);
                Some(named.map_or(Vec::new(), |binding| bare(binding.instance()).to_vec()))
            }
        };
        // Those of UUIDs are the same in either case (RFC 4122 section 3), and only those are in use.
        let same = move |binding: &&Binding| {
            instance.as_ref().is_none_or(|wanted| !binding.instance().is_empty() && bare(binding.instance()).eq_ignore_ascii_case(wanted))
        };
        record.live(seconds).filter(same)
    }

    /// The device that a request within a dialog is for, where its far end gave a GRUU of ours as its Contact. It must be of the
    /// user that the dialog is with: whoever answers could name another's.
    pub(crate) fn dialog_device(&self, message: &Message<'_>, shape: &Shape, said: &[u8]) -> Option<Wanted> {
        let uri = Uri::parse(said, Span::new(0, said.len())).ok().filter(|uri| self.is_own_gruu(said, uri))?;
        let wanted = self.wanted(said, &uri)?;
        let call = self.calls.get(shape.call).filter(|call| call.texts.call_id() == message.call_id())?;
        let user = match shape.dialog? {
            Direction::FromCaller => call.texts.request_uri(),
            Direction::FromCallee => call.texts.uri_of_from(),
        };
        let uri = Uri::parse(user, Span::new(0, user.len())).ok().filter(|uri| self.serves(uri.host.of(user)))?;
        (self.wanted(user, &uri)?.aor == wanted.aor).then_some(wanted)
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
        self.registrar_mode() == RegistrarMode::Keep && is_gruu(bytes, uri) && self.serves(uri.host.of(bytes))
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
