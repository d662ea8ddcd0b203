//! Emergency calls (RFC 5031, RFC 6881): no ban for a rate, limit, fraud rule, drop for quality or drain stands in their way, and they
//! are shed last.

use proto::Now;
use serde::Deserialize;
use syntax::{Message, Method, unescaped};

use crate::edge::Edge;
use crate::event::EventKind;
use crate::hop::Hop;

/// Messages that a banned source may send for its call for help, in so many seconds.
const PACE: u32 = 100;
const PACE_SECONDS: u32 = 10;

/// Which calls those are, and where they go.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmergencySettings {
    /// Numbers besides `urn:service:sos`, as they are dialled.
    pub numbers: Vec<String>,
    /// The peer whose `to` they go to, empty for none of their own.
    pub peer: String,
    /// The route that they go by, empty for none of their own.
    pub route: String,
}

impl EmergencySettings {
    /// Whether a Request-URI asks for help: `urn:service:sos` and its sub-services, or a number dialled as SIP or tel URI.
    pub(crate) fn names(&self, uri: &[u8]) -> bool {
        let behind = |prefix: &[u8]| uri.get(..prefix.len()).filter(|start| start.eq_ignore_ascii_case(prefix)).and_then(|_| uri.get(prefix.len()..));
        if let Some(service) = behind(b"urn:service:sos") {
            return matches!(service.first(), None | Some(b'.'));
        }
        let Some(dialled) = [&b"sip:"[..], b"sips:", b"tel:"].into_iter().find_map(behind) else { return false };
        let user = dialled.split(|byte| matches!(byte, b'@' | b';' | b':' | b'?')).next().unwrap_or_default();
        self.numbers.iter().any(|number| dialled_digits(number.as_bytes()).eq(dialled_digits(user)))
    }

    /// The bytes that the user of a SIP URI which asks for help may begin with: those of numbers, of escapes and of visual separators.
    pub(crate) fn beginnings(&self) -> Vec<u8> {
        let firsts = self.numbers.iter().filter_map(|number| dialled_digits(number.as_bytes()).next());
        let mut found: Vec<u8> = if self.numbers.is_empty() { Vec::new() } else { firsts.chain(*b"%-.()").collect() };
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Whether these are the first bytes of an INVITE that asks for help.
    pub(crate) fn begins(&self, bytes: &[u8]) -> bool {
        let uri = bytes.strip_prefix(b"INVITE ").and_then(|rest| rest.get(..rest.len().min(256))).and_then(|rest| rest.split(|byte| *byte == b' ').next());
        uri.is_some_and(|uri| self.names(uri))
    }
}

/// What was dialled: escapes stand for what they escape (RFC 3261 section 19.1.4), and what only parts digits stands for nothing
/// (RFC 3966 section 5.1.1).
fn dialled_digits(user: &[u8]) -> impl Iterator<Item = u8> {
    unescaped(user).filter(|byte| !b"-.()".contains(byte))
}

impl Edge {
    /// Whether a request asks for help.
    pub(crate) fn is_emergency(&self, message: &Message<'_>) -> bool {
        message.head.method == Method::Invite && self.snapshot.settings.emergency.names(message.text(message.head.request_uri.whole))
    }

    /// The bytes that the user of a SIP URI which asks for help may begin with.
    pub fn emergency_beginnings(&self) -> Vec<u8> {
        self.snapshot.settings.emergency.beginnings()
    }

    /// Whether what comes from a source that is not listened to may have to do with an emergency call: a look at some bytes, since a
    /// flood is to cost next to nothing.
    pub(crate) fn may_be_emergency(&self, now: Now, arrival: &Hop, bytes: &[u8]) -> bool {
        self.snapshot.settings.emergency.begins(bytes) || self.called_for_help(now, arrival.address.ip())
    }

    /// Whether a banned source has not sent more than a call for help takes: it is heard at a bounded pace.
    pub(crate) fn may_call_for_help(&self, now: Now, arrival: &Hop) -> bool {
        let key = self.key(b"help-pace", Some(arrival.address.ip()), b"");
        self.snapshot.defence.failures.add(key, Self::seconds_of(now), PACE_SECONDS) <= PACE
    }

    /// Whether a message has to do with an emergency call: it begins one, or belongs to one.
    pub(crate) fn is_of_emergency(&self, message: &Message<'_>) -> bool {
        let of_call =
            |tag: &[u8]| self.dialogs.get(self.dialog_key(message.call_id(), tag)).and_then(|key| self.calls.get(key)).is_some_and(|call| call.emergency);
        message.is_request() && self.is_emergency(message) || of_call(message.text(message.head.from.tag)) || of_call(message.text(message.head.to.tag))
    }

    /// An emergency call begins.
    pub(crate) fn note_emergency(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, peer: u16) {
        self.counters.emergency_calls.add();
        self.note_called_for_help(now, arrival.address.ip());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let texts = [text(message.call_id()), text(message.text(message.head.from.uri)), text(message.text(message.head.request_uri.whole))];
        let name = self.name_of_message(message);
        log::warn!(target: "emergency", call_id = name.call_id.as_str(), trace_id = name.trace_id.as_str(); "call for help from {} of peer {}", self.shown(arrival.address), self.peer_name(Some(peer)));
        self.tell(now, EventKind::EmergencyCall, |edge| {
            let place = [arrival.address.ip().to_canonical().to_string(), edge.peer_name(Some(peer)).to_owned()];
            texts.into_iter().chain(place).map(Into::into).collect()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asks_for_help_is_known_by_its_first_bytes() {
        let settings = EmergencySettings { numbers: vec!["112".to_owned(), "911".to_owned()], ..Default::default() };
        for uri in [
            "urn:service:sos",
            "URN:service:SOS.fire",
            "sip:112@example.net;user=phone",
            "sips:911",
            "tel:112;phone-context=+49",
            "sip:112:x@h",
            "sip:%3112@h",
            "sip:1%312@h",
            "tel:1-1-2",
            "sip:(112)@h",
            "sip:9.1-1@h",
        ] {
            assert!(settings.names(uri.as_bytes()) && settings.begins(format!("INVITE {uri} SIP/2.0\r\n").as_bytes()), "{uri}");
            assert!(uri.strip_prefix("sip:").is_none_or(|user| settings.beginnings().contains(&user.as_bytes()[0])), "{uri}");
        }
        for uri in [
            "urn:service:sosx",
            "urn:service:counseling",
            "sip:1122@h",
            "sip:x@112",
            "tel:+112",
            "sip:",
            "112",
            "sip:%311@h",
            "sip:11%@h",
            "sip:%31122@h",
            "sip:%2D1122@h",
        ] {
            assert!(!settings.names(uri.as_bytes()), "{uri}");
        }
        assert!(!settings.begins(b"REGISTER sip:112@h SIP/2.0\r\n") && !settings.begins(b"INVITE") && !settings.begins(b""));
    }
}
