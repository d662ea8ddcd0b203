//! Refreshes that a core need not see: it keeps a binding for long, the phone registers as often as it likes, and what changes
//! nothing is answered here until the core's time runs out.

use proto::{Contact, Now, RegistrarRules};
use syntax::{HeaderName, Message, Span, Uri, header_param_span, parse_name_addr};

use crate::edge::Edge;
use crate::forward_register::granted_contact;
use crate::hop::Hop;
use crate::register::{Contacts, delta_seconds, registration};
use crate::subscriber_settings::RegistrarMode;

/// What `text` asks for where it asks for anything.
fn lasting(text: &[u8]) -> bool {
    delta_seconds(text).is_none_or(|seconds| seconds > 0)
}

/// Seconds that a phone is granted out of those of its core.
pub(crate) fn phone_grant(wanted: Option<u32>, of_core: u32, rules: &RegistrarRules) -> u32 {
    wanted.unwrap_or(rules.default_expires).clamp(rules.min_expires, rules.max_expires).min(of_core)
}

impl Edge {
    /// For how long bindings are asked of the core; nothing where each refresh goes there.
    pub(crate) fn upstream_expires(&self) -> Option<u32> {
        let registrar = self.snapshot.settings.registrar.as_ref()?;
        (registrar.mode != RegistrarMode::Keep && registrar.upstream_expires_seconds > 0).then_some(registrar.upstream_expires_seconds)
    }

    /// Whether a REGISTER only refreshes what the core keeps for long enough, and by the very same flow: then it is carried out
    /// here. It proves nothing, and gains its sender nothing but what was granted already.
    pub(crate) fn answer_refresh(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, contacts: &Contacts<'_>) -> bool {
        // What somebody requires only the core can say whether it has (RFC 3261 section 10.3).
        if self.upstream_expires().is_none() || contacts.star || contacts.list.is_empty() || message.first(HeaderName::Require).is_some() {
            return false;
        }
        let to = Uri::parse(message.bytes, message.head.to.uri).ok();
        let Some(aor) = to.and_then(|to| self.address_of_record(message.bytes, &to)) else { return false };
        let Some(rules) = self.snapshot.settings.registrar.as_ref().map(|registrar| registrar.rules_for(&aor)) else { return false };
        let request = registration(message, &contacts.list, false, b"", arrival.flow(), self.snapshot.nat_tests.hold(arrival, message));
        let seconds = Self::seconds_of(now);
        let Some(record) = self.users.location.get(&aor) else { return false };
        let kept = |contact: &Contact<'_>| {
            let wanted = contact.expires.or(request.expires);
            let until = seconds.saturating_add(phone_grant(wanted, u32::MAX, &rules));
            wanted != Some(0)
                && record.live(seconds).any(|binding| {
                    let same = binding.contact() == contact.uri && binding.call_id() == request.call_id && binding.flow == request.flow;
                    let instance = binding.instance() == contact.instance && (binding.reg_id == 0 || binding.reg_id == contact.reg_id);
                    let preference = binding.q == contact.q.unwrap_or(1_000);
                    same && instance && preference && request.cseq >= binding.cseq && binding.upstream >= until
                })
        };
        if !contacts.list.iter().all(kept) {
            return false;
        }
        // The flow's number is as the core has it.
        let mut list = contacts.list.clone();
        for contact in &mut list {
            let same = |binding: &&proto::Binding| binding.contact() == contact.uri && binding.instance() == contact.instance && binding.flow == request.flow;
            let binding = record.live(seconds).find(same);
            contact.reg_id = binding.map_or(0, |binding| binding.reg_id);
        }
        // What cannot be carried out here goes to the core, which says why.
        let Ok(place) = self.bind(now, &aor, &proto::Registration { contacts: &list, ..request }, &rules) else { return false };
        self.counters.refreshes_answered.add();
        let mut lines = self.bindings_told(now, place, &aor, message);
        if list.iter().any(|contact| contact.reg_id > 0) {
            lines.extend_from_slice(b"Require: outbound\r\n");
        }
        self.decide(message.call_id(), |_| "register: refreshed without the core".to_owned());
        self.reply(arrival, message, 200, None, &lines);
        true
    }

    /// Asks the core for a long time in the place of what the phone asks for; who unregisters does so there too.
    pub(crate) fn ask_for_long(&mut self, message: &Message<'_>) {
        let Some(seconds) = self.upstream_expires() else { return };
        let text = seconds.to_string();
        let whole = message.named(b"Expires").next().map(|slot| slot.value);
        if let Some(value) = whole.filter(|value| lasting(message.text(*value))) {
            self.edits.replace(value, text.as_bytes());
        }
        let elements: Vec<Span> = message.elements(HeaderName::Contact).collect();
        for contact in elements.into_iter().filter_map(|element| parse_name_addr(message.bytes, element)) {
            match header_param_span(message.bytes, contact.params, b"expires") {
                Some(value) if !value.is_empty() && lasting(message.text(value)) => self.edits.replace(value, text.as_bytes()),
                Some(_) => {}
                None if whole.is_none() => self.edits.insert_with(contact.params.end(), |out| {
                    out.extend_from_slice(b";expires=");
                    out.extend_from_slice(text.as_bytes());
                }),
                None => {}
            }
        }
    }

    /// Tells the phone for how long it may stay away, in the place of how long its core keeps it.
    pub(crate) fn tell_phone_grants(&mut self, now: Now, message: &Message<'_>) {
        let Some(asked) = self.upstream_expires() else { return };
        if message.head.status_code == 423 && self.may_log(now) {
            // The phone asks for longer then, and we for no more than before.
            let least = message.named(b"Min-Expires").next().map_or(Default::default(), |slot| String::from_utf8_lossy(message.text(slot.value)));
            log::warn!(target: "register", "the core wants registrations of {least} s at least, and registrar.upstream_expires_seconds is {asked}: nobody can register there");
        }
        if !(200..300).contains(&message.head.status_code) {
            return;
        }
        let seconds = Self::seconds_of(now);
        let to = Uri::parse(message.bytes, message.head.to.uri).ok();
        let Some(aor) = to.and_then(|to| self.address_of_record(message.bytes, &to)) else { return };
        let elements: Vec<Span> = message.elements(HeaderName::Contact).collect();
        let most = self.snapshot.settings.registrar.as_ref().map_or(u32::MAX, |registrar| registrar.rules_for(&aor).max_expires);
        for element in elements {
            let Some(granted) = granted_contact(message, element) else { continue };
            let Some(contact) = parse_name_addr(message.bytes, element) else { continue };
            let record = self.users.location.get(&aor);
            let kept = record.and_then(|record| record.live(seconds).find(|binding| granted.is_of(binding.contact(), binding.instance(), binding.reg_id)));
            // What is not kept here is another phone's, or one that we know otherwise: it must not stay away for long either.
            let left = kept.map_or(granted.seconds.min(most), |binding| binding.expires - seconds);
            let text = left.to_string();
            match header_param_span(message.bytes, contact.params, b"expires").filter(|value| !value.is_empty()) {
                Some(value) => self.edits.replace(value, text.as_bytes()),
                None => self.edits.insert_with(contact.params.end(), |out| {
                    out.extend_from_slice(b";expires=");
                    out.extend_from_slice(text.as_bytes());
                }),
            }
        }
    }
}
