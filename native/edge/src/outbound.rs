//! User agents that hold several flows to us (RFC 5626): what makes a binding one of them, and how a call goes on by another
//! flow of the same user agent where one has failed.

use proto::{Key, Moment};
use syntax::{HeaderName, Message, Span, Uri, list_elements, parse_name_addr, uri_param};

use crate::edge::Edge;
use crate::matching::Refusal;
use crate::reach::Reach;
use crate::register::{Contacts, bad};
use crate::target::Target;
use crate::transaction::{Branch, Transaction};

/// The largest `reg-id` (RFC 5626 section 4.1 with section 11).
const LARGEST: u32 = i32::MAX as u32;

/// Whether the sender of `message` understands `option` (RFC 3261 section 20.37).
pub(crate) fn supports(message: &Message<'_>, option: &[u8]) -> bool {
    let names = |slot: &syntax::Slot| list_elements(message.bytes, slot.value).any(|element| message.text(element).eq_ignore_ascii_case(option));
    message.all(HeaderName::Supported).any(names)
}

/// The number of a flow that `text` writes.
pub(crate) fn reg_id(text: &[u8]) -> Option<u32> {
    crate::register::delta_seconds(text).filter(|number| (1..=LARGEST).contains(number))
}

/// Whether `uri` has the parameter of an element, or a user agent, that knows Outbound.
pub(crate) fn has_ob(bytes: &[u8], uri: &Uri) -> bool {
    uri_param(bytes, uri.params, b"ob").is_some()
}

/// Whether a REGISTER is one of Outbound; if not its contacts have no flows (RFC 5626 section 6). `path` is what its way adds.
pub(crate) fn judge(message: &Message<'_>, contacts: &mut Contacts<'_>, path: &[u8]) -> Result<bool, Refusal> {
    // Who requires it knows it (RFC 3261 section 20.32).
    let requires = message.elements(HeaderName::Require).any(|option| message.text(option).eq_ignore_ascii_case(b"outbound"));
    let knows = requires || supports(message, b"outbound");
    for contact in &mut contacts.list {
        if !knows || contact.instance.is_empty() {
            contact.reg_id = 0;
        }
    }
    if contacts.list.iter().all(|contact| contact.reg_id == 0) {
        return Ok(false);
    }
    if contacts.list.iter().filter(|contact| contact.expires != Some(0)).count() > 1 {
        return Err(bad("reg-id beside other Contacts"));
    }
    let direct = message.head.via.rest.is_empty() && message.all(HeaderName::Via).nth(1).is_none();
    // Each element puts its Path in front: the last one is of that which the user agent has its flow to.
    let nearest = list_elements(path, Span::new(0, path.len())).last();
    let known = nearest.and_then(|element| parse_name_addr(path, element)).and_then(|element| Uri::parse(path, element.uri).ok());
    if !direct && !known.is_some_and(|uri| has_ob(path, &uri)) {
        return Err(Refusal::new(439, "register"));
    }
    Ok(true)
}

/// Puts the flows of one user agent together: the first is tried, the others only where it fails (RFC 5626 section 7).
pub(crate) fn gather(found: Vec<Reach>) -> Vec<Reach> {
    let mut ways: Vec<Reach> = Vec::with_capacity(found.len());
    for way in found {
        let same = |other: &&mut Reach| !way.instance.is_empty() && other.instance.eq_ignore_ascii_case(&way.instance);
        match ways.iter_mut().find(same) {
            Some(first) => first.spare.push(way),
            None => ways.push(way),
        }
    }
    ways
}

impl Reach {
    /// The next flow to the same user agent.
    pub(crate) fn after(mut spare: Vec<Self>) -> Option<Self> {
        if spare.is_empty() {
            return None;
        }
        let next = spare.remove(0);
        Some(Self { spare, ..next })
    }
}

impl Edge {
    /// Has another flow tried to the user agent that an attempt was for; false where there is none.
    pub(crate) fn try_next_flow(&mut self, entry: Key, attempt: usize) -> bool {
        // Once everything was given up nothing new begins: that has no time to give up at any more.
        let open = |transaction: &&mut Transaction| !transaction.caller_cancelled && transaction.give_up_at != Moment::NEVER;
        let Some(transaction) = self.transactions.get_mut(entry).filter(open) else { return false };
        let wanted = |branch: &&mut Branch| !branch.cancelled && !branch.timed_out && branch.cancel_wanted.is_none();
        let Some(branch) = transaction.branches.get_mut(attempt).filter(wanted) else { return false };
        let Some(next) = Reach::after(std::mem::take(&mut branch.spare)) else { return false };
        transaction.targets.push(Target::Contact(Box::new(next)));
        self.counters.flows_failed.add();
        self.decide_for(entry, |_| "relay: the flow has failed, the next one is tried".to_owned());
        true
    }

    /// Whether a failed flow is that of a user agent which registered here: whoever called has no use for 430 (RFC 5626 section 11).
    pub(crate) fn is_own_flow(&self, entry: Key) -> bool {
        let way = self.transactions.get(entry).and_then(|transaction| transaction.way.as_ref());
        way.is_some_and(|way| !way.flow_only)
    }

    /// The same where no attempt could be made along the way at hand.
    pub(crate) fn skip_flow(&mut self, entry: Key) {
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        let spare = transaction.way.as_mut().map(|way| std::mem::take(&mut way.spare)).unwrap_or_default();
        if let Some(next) = Reach::after(spare) {
            transaction.targets.push(Target::Contact(Box::new(next)));
            self.counters.flows_failed.add();
        }
    }

    /// What is said of an attempt that found its flow gone: to a core 430, so that it tries another one (RFC 5626 section 5.3), of a
    /// user of ours that it is not there.
    pub(crate) fn flow_status(&self, entry: Key, otherwise: u16) -> u16 {
        match self.transactions.get(entry).and_then(|transaction| transaction.way.as_ref()) {
            Some(way) if way.flow_only => 430,
            Some(way) if way.hop.is_some() => 480,
            _ => otherwise,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::reg_id;

    #[test]
    fn a_flow_has_a_number_from_one_on() {
        assert_eq!([&b"1"[..], b"2147483647"].map(reg_id), [Some(1), Some(2_147_483_647)]);
        assert_eq!([&b""[..], b"0", b"-1", b"2147483648", b"99999999999", b"x"].map(reg_id), [None; 6]);
    }
}
