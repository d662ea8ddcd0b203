//! What a REGISTER does to the bindings of its address of record (RFC 3261 section 10.3, steps 6 to 8): all of it, or nothing.

use smallvec::SmallVec;
use syntax::{Span, Uri, same_uri, uri_param};

use crate::{Binding, Flow};

/// One Contact of a REGISTER.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contact<'a> {
    /// The URI.
    pub uri: &'a [u8],
    /// Its `expires` parameter.
    pub expires: Option<u32>,
    /// Its `q` parameter, in thousandths.
    pub q: Option<u16>,
    /// Its `+sip.instance` parameter.
    pub instance: &'a [u8],
    /// Which of the flows of its instance this is (RFC 5626 section 4.1); 0 for one that is not by Outbound.
    pub reg_id: u32,
    /// `pn-provider`, `pn-prid` and `pn-param` of its URI: the device that a push service wakes (RFC 8599 section 4.1).
    pub push: Option<[&'a [u8]; 3]>,
}

/// A REGISTER that may change bindings.
#[derive(Clone, Copy)]
pub struct Registration<'a> {
    /// The contacts; none asks what there is.
    pub contacts: &'a [Contact<'a>],
    /// `Contact: *` in their place.
    pub star: bool,
    /// The Expires header field.
    pub expires: Option<u32>,
    /// Call-ID.
    pub call_id: &'a [u8],
    /// The number of CSeq.
    pub cseq: u32,
    /// Path header field values.
    pub path: &'a [u8],
    /// User-Agent.
    pub user_agent: &'a [u8],
    /// Whence it came.
    pub flow: Flow,
    /// Whether its sender is behind a NAT.
    pub natted: bool,
}

/// What registrations are granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistrarRules {
    /// Granted where none is asked for, in seconds.
    pub default_expires: u32,
    /// Granted at least, in seconds.
    pub min_expires: u32,
    /// Granted at most, in seconds.
    pub max_expires: u32,
    /// Whether one that asks for less than the least gets the least; else it is refused.
    pub raise_short: bool,
    /// How many percent a grant may be shorter, so that phones that came at once do not come back at once.
    pub spread_percent: u32,
    /// Bindings of one address of record.
    pub max_contacts: usize,
    /// Whether the oldest binding makes room for one too many; else that is refused.
    pub replace_oldest: bool,
    /// Whether a new contact takes the place of one with the same Call-ID: a phone whose address changed.
    pub same_call_id_replaces: bool,
}

/// Why nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationError {
    /// `*` beside other contacts, or without `Expires: 0`.
    Star,
    /// A request with the same Call-ID and a higher CSeq came before.
    OutOfOrder,
    /// It would be less than the least that is granted.
    TooBrief,
    /// More bindings than one address of record may have.
    TooMany,
}

/// What became of a binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is new.
    Inserted,
    /// It goes on for longer.
    Refreshed,
    /// It is gone by its user agent's wish.
    Removed,
    /// Its time was over.
    Expired,
    /// It made room for another one.
    Replaced,
}

/// Whether a request with this Call-ID and CSeq may change `binding`: `None` where it is the one that made it.
fn may_change(binding: &Binding, request: &Registration<'_>) -> Result<bool, RegistrationError> {
    if binding.call_id() != request.call_id || request.cseq > binding.cseq {
        Ok(true)
    } else if request.cseq == binding.cseq {
        Ok(false)
    } else {
        Err(RegistrationError::OutOfOrder)
    }
}

/// The device that a Contact URI names for a push service.
pub fn push_of(uri: &[u8]) -> Option<[&[u8]; 3]> {
    memchr::memchr_iter(b';', uri).find(|at| uri.get(at + 1..at + 9).is_some_and(|name| name.eq_ignore_ascii_case(b"pn-prid=")))?;
    let parsed = Uri::parse(uri, Span::new(0, uri.len())).ok()?;
    let param = |name| uri_param(uri, parsed.params, name).unwrap_or_default();
    Some([param(b"pn-provider"), param(b"pn-prid"), param(b"pn-param")])
}

/// The binding that `contact` is about. A flow of Outbound is that of its instance and number, whatever its URI (RFC 5626
/// section 6); any other is that of its instance, or else of its device, or else of its URI.
fn find(bindings: &[Binding], contact: &Contact<'_>) -> Option<usize> {
    // Those of UUIDs are the same in either case (RFC 4122 section 3), and only those are in use.
    let same = |binding: &Binding| binding.instance().eq_ignore_ascii_case(contact.instance);
    let of_instance = |binding: &Binding| same(binding) && binding.reg_id == contact.reg_id;
    if contact.reg_id > 0 {
        // One that it had before it knew of flows gives way to the first of them.
        let plain = |binding: &Binding| binding.reg_id == 0 && same(binding);
        return bindings.iter().position(of_instance).or_else(|| bindings.iter().position(plain));
    }
    let of_instance = (!contact.instance.is_empty()).then(|| bindings.iter().position(of_instance)).flatten();
    let of_device = || contact.push.and_then(|push| bindings.iter().position(|binding| binding.reg_id == 0 && push_of(binding.contact()) == Some(push)));
    // Two phones behind two NATs may well have one URI: a flow is taken over by its instance only.
    of_instance.or_else(of_device).or_else(|| bindings.iter().position(|binding| binding.reg_id == 0 && same_uri(binding.contact(), contact.uri)))
}

/// Seconds granted, 0 for one that is to go. `random` shortens it by chance.
fn granted(contact: &Contact<'_>, request: &Registration<'_>, rules: &RegistrarRules, random: u64) -> Result<u32, RegistrationError> {
    let wanted = contact.expires.or(request.expires).unwrap_or(rules.default_expires);
    if wanted == 0 {
        return Ok(0);
    }
    if wanted < rules.min_expires && !rules.raise_short {
        return Err(RegistrationError::TooBrief);
    }
    let most = wanted.clamp(rules.min_expires, rules.max_expires);
    let spread = u64::from(most) * u64::from(rules.spread_percent.min(90)) / 100;
    let shorter = most - (random % (spread + 1)) as u32;
    Ok(shorter.max(rules.min_expires.min(most)).max(1))
}

/// Changes `bindings` as `request` wishes, at `now` seconds; `tell` hears of each change.
///
/// # Errors
/// [`RegistrationError`]: then nothing was changed but for bindings that had ended.
pub fn register(
    bindings: &mut SmallVec<[Binding; 1]>,
    request: &Registration<'_>,
    rules: &RegistrarRules,
    now: u32,
    random: u64,
    mut tell: impl FnMut(Change, &Binding),
) -> Result<(), RegistrationError> {
    bindings.retain(|binding| {
        let live = binding.expires > now;
        if !live {
            tell(Change::Expired, binding);
        }
        live
    });
    if request.star {
        return remove_all(bindings, request, &mut tell);
    }
    let fresh = foresee(bindings, request, rules, random)?;
    // Contacts of one request may stand for each other's bindings (one may equal several, RFC 3261 section 19.1.4), or make room.
    let after = if request.contacts.len() > 1 { outcome(bindings, request, rules, now, random)? } else { bindings.len() + fresh };
    let excess = after.saturating_sub(rules.max_contacts.max(1));
    // There may be too many already, of a time when more were allowed: what makes no more of them is no reason to refuse.
    let grows = after > bindings.len();
    if excess > 0 && (grows || rules.replace_oldest) {
        let named = |binding: &Binding| request.contacts.iter().any(|contact| find(std::slice::from_ref(binding), contact).is_some());
        if grows && (!rules.replace_oldest || bindings.iter().filter(|binding| !named(binding)).count() < excess) {
            return Err(RegistrationError::TooMany);
        }
        for _ in 0..excess {
            let oldest = (0..bindings.len()).filter(|index| !named(&bindings[*index])).min_by_key(|index| bindings[*index].modified);
            let Some(oldest) = oldest else { break };
            tell(Change::Replaced, &bindings[oldest]);
            bindings.remove(oldest);
        }
    }
    for contact in last_of_each(request.contacts) {
        apply(bindings, contact, request, granted(contact, request, rules, random)?, rules, now, &mut tell);
    }
    Ok(())
}

/// Contacts are taken one after the other: of one that stands there twice the last counts (RFC 3261 section 10.3 step 7).
fn last_of_each<'a, 'b>(contacts: &'a [Contact<'b>]) -> impl Iterator<Item = &'a Contact<'b>> {
    let same = |one: &Contact<'_>, other: &Contact<'_>| one.reg_id == other.reg_id && one.instance == other.instance && same_uri(one.uri, other.uri);
    contacts.iter().enumerate().filter(move |(index, contact)| !contacts[index + 1..].iter().any(|later| same(contact, later))).map(|(_, contact)| contact)
}

/// How many bindings there would be.
fn outcome(bindings: &[Binding], request: &Registration<'_>, rules: &RegistrarRules, now: u32, random: u64) -> Result<usize, RegistrationError> {
    let mut after: SmallVec<[Binding; 1]> = bindings.iter().cloned().collect();
    for contact in last_of_each(request.contacts) {
        apply(&mut after, contact, request, granted(contact, request, rules, random)?, rules, now, &mut |_, _| {});
    }
    Ok(after.len())
}

/// How many bindings would be new; an error where the request must not be carried out.
fn foresee(bindings: &[Binding], request: &Registration<'_>, rules: &RegistrarRules, random: u64) -> Result<usize, RegistrationError> {
    let mut fresh = 0;
    for (index, contact) in request.contacts.iter().enumerate() {
        let seconds = granted(contact, request, rules, random)?;
        match find(bindings, contact) {
            Some(found) => {
                may_change(&bindings[found], request)?;
            }
            None if seconds > 0 => {
                let repeated = request.contacts[..index].iter().any(|other| same_uri(other.uri, contact.uri) && other.reg_id == contact.reg_id);
                fresh += usize::from(!repeated);
            }
            None => {}
        }
    }
    let named = |binding: &Binding| request.contacts.iter().any(|contact| find(std::slice::from_ref(binding), contact).is_some());
    let moves = |binding: &&Binding| rules.same_call_id_replaces && binding.reg_id == 0 && binding.call_id() == request.call_id && !named(binding);
    Ok(fresh.saturating_sub(bindings.iter().filter(moves).count()))
}

fn remove_all(bindings: &mut SmallVec<[Binding; 1]>, request: &Registration<'_>, tell: &mut impl FnMut(Change, &Binding)) -> Result<(), RegistrationError> {
    if !request.contacts.is_empty() || request.expires != Some(0) {
        return Err(RegistrationError::Star);
    }
    for binding in bindings.iter() {
        may_change(binding, request)?;
    }
    // The same CSeq again is the same request (section 10.3 step 6): what it left is left.
    bindings.retain(|binding| {
        let stays = may_change(binding, request) != Ok(true);
        if !stays {
            tell(Change::Removed, binding);
        }
        stays
    });
    Ok(())
}

fn apply(
    bindings: &mut SmallVec<[Binding; 1]>,
    contact: &Contact<'_>,
    request: &Registration<'_>,
    seconds: u32,
    rules: &RegistrarRules,
    now: u32,
    tell: &mut impl FnMut(Change, &Binding),
) {
    let found = find(bindings, contact);
    if found.is_some_and(|index| may_change(&bindings[index], request) != Ok(true)) {
        return;
    }
    if seconds == 0 {
        if let Some(index) = found {
            tell(Change::Removed, &bindings[index]);
            bindings.remove(index);
        }
        return;
    }
    // A phone behind a NAT whose port changed would else have two bindings until the old one ends, one of them dead.
    let moved = || bindings.iter().position(|binding| binding.reg_id == 0 && binding.call_id() == request.call_id && binding.cseq < request.cseq);
    let found = found.or_else(|| (rules.same_call_id_replaces && contact.reg_id == 0).then(moved).flatten());
    let texts = [contact.uri, request.call_id, request.path, request.user_agent, contact.instance];
    // What a phone sends with each refresh is the same but for CSeq, so that most refreshes allocate nothing.
    let same = |binding: &Binding| [binding.contact(), binding.call_id(), binding.path(), binding.user_agent(), binding.instance()] == texts;
    let mut replaced = false;
    let index = match found {
        Some(index) => {
            if bindings[index].contact() != contact.uri || bindings[index].reg_id != contact.reg_id {
                tell(Change::Replaced, &bindings[index]);
                replaced = true;
            }
            if !same(&bindings[index]) {
                bindings[index] = Binding::new(texts, request.flow, 0);
            }
            index
        }
        None => {
            bindings.push(Binding::new(texts, request.flow, 0));
            bindings.len() - 1
        }
    };
    let binding = &mut bindings[index];
    binding.expires = now.saturating_add(seconds);
    binding.modified = now;
    binding.cseq = request.cseq;
    binding.reg_id = contact.reg_id;
    binding.q = contact.q.unwrap_or(1_000);
    binding.flow = request.flow;
    binding.natted = request.natted;
    binding.lost = 0;
    binding.stored = false;
    tell(if found.is_some() && !replaced { Change::Refreshed } else { Change::Inserted }, binding);
}

#[cfg(test)]
mod tests {
    use syntax::Transport;

    use super::*;

    const RULES: RegistrarRules = RegistrarRules {
        default_expires: 3_600,
        min_expires: 60,
        max_expires: 7_200,
        raise_short: true,
        spread_percent: 0,
        max_contacts: 2,
        replace_oldest: false,
        same_call_id_replaces: false,
    };

    fn contact(uri: &str) -> Contact<'_> {
        Contact { uri: uri.as_bytes(), ..Contact::default() }
    }

    fn request<'a>(contacts: &'a [Contact<'a>], call_id: &'a str, cseq: u32) -> Registration<'a> {
        Registration {
            contacts,
            star: false,
            expires: None,
            call_id: call_id.as_bytes(),
            cseq,
            path: b"",
            user_agent: b"phone",
            flow: Flow::new(0, Transport::Udp, "192.0.2.9:5060".parse().unwrap(), None),
            natted: false,
        }
    }

    #[derive(Default)]
    struct Bench {
        bindings: SmallVec<[Binding; 1]>,
        changes: Vec<Change>,
    }

    impl Bench {
        fn run(&mut self, request: &Registration<'_>, rules: &RegistrarRules, now: u32) -> Result<(), RegistrationError> {
            self.changes.clear();
            register(&mut self.bindings, request, rules, now, 7, |change, _| self.changes.push(change))
        }

        fn uris(&self) -> Vec<&str> {
            self.bindings.iter().map(|binding| std::str::from_utf8(binding.contact()).unwrap()).collect()
        }
    }

    #[test]
    fn a_binding_is_made_refreshed_and_removed() {
        let mut bench = Bench::default();
        let ask = |bench: &mut Bench, contact: Contact<'_>, cseq, now| bench.run(&request(&[contact], "c", cseq), &RULES, now);
        ask(&mut bench, contact("sip:a@h"), 1, 0).unwrap();
        assert_eq!((bench.changes.as_slice(), bench.bindings[0].expires), (&[Change::Inserted][..], 3_600));
        ask(&mut bench, Contact { expires: Some(120), q: Some(500), ..contact("sip:a@h") }, 2, 10).unwrap();
        assert_eq!((bench.changes.as_slice(), bench.bindings[0].expires, bench.bindings[0].q), (&[Change::Refreshed][..], 130, 500));
        ask(&mut bench, Contact { expires: Some(0), ..contact("sip:a@h") }, 3, 20).unwrap();
        assert_eq!((bench.changes.as_slice(), bench.bindings.len()), (&[Change::Removed][..], 0));
    }

    #[test]
    fn a_retransmission_changes_nothing_and_an_old_request_fails() {
        let mut bench = Bench::default();
        bench.run(&request(&[contact("sip:a@h")], "c", 5), &RULES, 0).unwrap();
        bench.run(&request(&[contact("sip:a@h")], "c", 5), &RULES, 100).unwrap();
        assert_eq!((bench.changes.len(), bench.bindings[0].expires), (0, 3_600));
        let two = [contact("sip:new@h"), contact("sip:a@h")];
        assert_eq!(bench.run(&request(&two, "c", 4), &RULES, 100), Err(RegistrationError::OutOfOrder));
        assert_eq!(bench.uris(), ["sip:a@h"]);
        // After a reboot a phone has another Call-ID and counts anew.
        bench.run(&request(&[contact("sip:a@h")], "d", 1), &RULES, 100).unwrap();
        assert_eq!(bench.bindings[0].expires, 3_700);
    }

    #[test]
    fn a_star_removes_all_or_nothing() {
        let mut bench = Bench::default();
        bench.run(&request(&[contact("sip:a@h"), contact("sip:b@h")], "c", 5), &RULES, 0).unwrap();
        let star = |cseq, expires| Registration { star: true, expires, ..request(&[], "c", cseq) };
        assert_eq!(bench.run(&star(6, None), &RULES, 0), Err(RegistrationError::Star));
        assert_eq!(bench.run(&star(6, Some(60)), &RULES, 0), Err(RegistrationError::Star));
        assert_eq!(bench.run(&star(4, Some(0)), &RULES, 0), Err(RegistrationError::OutOfOrder));
        // A repetition of the request that made them takes nothing.
        bench.run(&star(5, Some(0)), &RULES, 0).unwrap();
        assert_eq!((bench.bindings.len(), bench.changes.len()), (2, 0));
        bench.run(&star(6, Some(0)), &RULES, 0).unwrap();
        assert_eq!((bench.bindings.len(), bench.changes.as_slice()), (0, &[Change::Removed, Change::Removed][..]));
    }

    #[test]
    fn what_is_granted_stays_within_its_limits() {
        let ask = |seconds, rules: &RegistrarRules| granted(&Contact { expires: Some(seconds), ..contact("sip:a@h") }, &request(&[], "c", 1), rules, 12_345);
        assert_eq!((ask(10, &RULES), ask(60, &RULES), ask(u32::MAX, &RULES)), (Ok(60), Ok(60), Ok(7_200)));
        let strict = RegistrarRules { raise_short: false, ..RULES };
        assert_eq!((ask(59, &strict), ask(0, &strict)), (Err(RegistrationError::TooBrief), Ok(0)));
        let spread = RegistrarRules { spread_percent: 10, ..RULES };
        let shorter = ask(3_600, &spread).unwrap();
        assert!((3_240..3_600).contains(&shorter), "{shorter}");
        assert_eq!(ask(60, &spread), Ok(60));
    }

    #[test]
    fn too_many_contacts_are_refused_or_the_oldest_makes_room() {
        let mut bench = Bench::default();
        bench.run(&request(&[contact("sip:a@h")], "a", 1), &RULES, 0).unwrap();
        bench.run(&request(&[contact("sip:b@h")], "b", 1), &RULES, 1).unwrap();
        assert_eq!(bench.run(&request(&[contact("sip:c@h")], "c", 1), &RULES, 2), Err(RegistrationError::TooMany));
        assert_eq!(bench.uris(), ["sip:a@h", "sip:b@h"]);
        let replacing = RegistrarRules { replace_oldest: true, ..RULES };
        bench.run(&request(&[contact("sip:c@h")], "c", 1), &replacing, 2).unwrap();
        assert_eq!((bench.uris(), bench.changes.as_slice()), (vec!["sip:b@h", "sip:c@h"], &[Change::Replaced, Change::Inserted][..]));
        // One that ended takes no place.
        bench.run(&request(&[contact("sip:d@h")], "d", 1), &RULES, 3_601).unwrap();
        assert_eq!(bench.uris(), ["sip:c@h", "sip:d@h"]);
        let three = [contact("sip:x@h"), contact("sip:y@h"), contact("sip:z@h")];
        assert_eq!(bench.run(&request(&three, "e", 1), &replacing, 3_601), Err(RegistrationError::TooMany));
    }

    #[test]
    fn contacts_that_all_equal_one_binding_are_counted_each() {
        let mut bench = Bench::default();
        bench.run(&request(&[contact("sip:a@h;x=1")], "a", 1), &RULES, 0).unwrap();
        let equal = [contact("sip:a@h;n=1"), contact("sip:a@h;n=2"), contact("sip:a@h;n=3")];
        assert_eq!(bench.run(&request(&equal, "a", 2), &RULES, 1), Err(RegistrationError::TooMany));
        bench.run(&request(&equal[..2], "a", 3), &RULES, 1).unwrap();
        // One comes and one goes, in whatever order.
        let gone = Contact { expires: Some(0), ..contact("sip:a@h;n=1") };
        bench.run(&request(&[contact("sip:a@h;n=3"), gone], "a", 4), &RULES, 2).unwrap();
        assert_eq!(bench.uris(), ["sip:a@h;n=2", "sip:a@h;n=3"]);
    }

    #[test]
    fn of_too_many_bindings_each_can_be_refreshed_and_removed() {
        let mut bench = Bench::default();
        bench.run(&request(&[contact("sip:a@h"), contact("sip:b@h")], "a", 1), &RULES, 0).unwrap();
        let fewer = RegistrarRules { max_contacts: 1, ..RULES };
        bench.run(&request(&[contact("sip:a@h")], "a", 2), &fewer, 1).unwrap();
        bench.run(&request(&[Contact { expires: Some(0), ..contact("sip:none@h") }], "a", 3), &fewer, 1).unwrap();
        assert_eq!(bench.run(&request(&[contact("sip:c@h")], "a", 4), &fewer, 1), Err(RegistrationError::TooMany));
        bench.run(&request(&[Contact { expires: Some(0), ..contact("sip:b@h") }], "a", 5), &fewer, 1).unwrap();
        assert_eq!(bench.uris(), ["sip:a@h"]);
    }

    #[test]
    fn a_phone_that_moved_is_known_by_its_instance_or_its_call_id() {
        let mut bench = Bench::default();
        let of = |uri| Contact { instance: b"\"<urn:uuid:1>\"", ..contact(uri) };
        bench.run(&request(&[of("sip:a@10.0.0.1")], "a", 1), &RULES, 0).unwrap();
        bench.run(&request(&[of("sip:a@10.0.0.2")], "b", 1), &RULES, 0).unwrap();
        assert_eq!(bench.uris(), ["sip:a@10.0.0.2"]);
        let mut bench = Bench::default();
        let replacing = RegistrarRules { same_call_id_replaces: true, max_contacts: 1, ..RULES };
        bench.run(&request(&[contact("sip:a@10.0.0.1")], "a", 1), &replacing, 0).unwrap();
        bench.run(&request(&[contact("sip:a@10.0.0.2")], "a", 2), &replacing, 0).unwrap();
        assert_eq!((bench.uris(), bench.changes.as_slice()), (vec!["sip:a@10.0.0.2"], &[Change::Replaced, Change::Inserted][..]));
        // One Call-ID makes no room for more than it had.
        let many = [contact("sip:x@h"), contact("sip:y@h"), contact("sip:z@h")];
        assert_eq!(bench.run(&request(&many, "a", 3), &replacing, 0), Err(RegistrationError::TooMany));
    }

    #[test]
    fn flows_of_one_instance_are_told_apart_by_their_numbers() {
        let mut bench = Bench::default();
        let of = |uri, reg_id| Contact { instance: b"\"<urn:uuid:1>\"", reg_id, ..contact(uri) };
        let rules = RegistrarRules { same_call_id_replaces: true, ..RULES };
        bench.run(&request(&[of("sip:a@10.0.0.1", 1)], "a", 1), &rules, 0).unwrap();
        // The same URI by another flow is another binding; a flow made anew takes the place of its own.
        bench.run(&request(&[of("sip:a@10.0.0.1", 2)], "a", 2), &rules, 0).unwrap();
        assert_eq!(bench.uris(), ["sip:a@10.0.0.1"; 2]);
        bench.run(&request(&[of("sip:a@10.0.0.9", 1)], "b", 1), &rules, 0).unwrap();
        assert_eq!((bench.uris(), bench.bindings[0].reg_id), (vec!["sip:a@10.0.0.9", "sip:a@10.0.0.1"], 1));
        bench.run(&request(&[Contact { expires: Some(0), ..of("sip:a@10.0.0.1", 2) }], "a", 3), &rules, 0).unwrap();
        assert_eq!(bench.uris(), ["sip:a@10.0.0.9"]);
        // Another phone with the same URI, which knows no flows, takes none over.
        bench.run(&request(&[contact("sip:a@10.0.0.9")], "z", 1), &rules, 0).unwrap();
        assert_eq!((bench.bindings.len(), bench.bindings[0].reg_id), (2, 1));
    }

    #[test]
    fn a_phone_that_learns_of_flows_keeps_one_binding() {
        let mut bench = Bench::default();
        let of = |reg_id| Contact { instance: b"\"<urn:uuid:1>\"", reg_id, ..contact("sip:a@10.0.0.1") };
        let rules = RegistrarRules { max_contacts: 1, ..RULES };
        bench.run(&request(&[of(0)], "a", 1), &rules, 0).unwrap();
        bench.run(&request(&[of(1)], "b", 1), &rules, 0).unwrap();
        assert_eq!((bench.bindings.len(), bench.bindings[0].reg_id, bench.changes.as_slice()), (1, 1, &[Change::Replaced, Change::Inserted][..]));
    }

    #[test]
    fn a_device_of_a_push_service_has_one_binding_whatever_its_address() {
        let mut bench = Bench::default();
        let of = |uri: &'static str| Contact { push: push_of(uri.as_bytes()), ..contact(uri) };
        bench.run(&request(&[of("sip:a@10.0.0.1;pn-provider=fcm;pn-param=p;pn-prid=d1")], "a", 1), &RULES, 0).unwrap();
        bench.run(&request(&[of("sip:a@10.9.0.7;pn-provider=fcm;pn-prid=d1;pn-param=p")], "b", 1), &RULES, 0).unwrap();
        bench.run(&request(&[of("sip:a@10.9.0.7;pn-provider=fcm;pn-prid=d2;pn-param=p")], "c", 1), &RULES, 0).unwrap();
        let kept = ["sip:a@10.9.0.7;pn-provider=fcm;pn-prid=d1;pn-param=p", "sip:a@10.9.0.7;pn-provider=fcm;pn-prid=d2;pn-param=p"];
        assert_eq!(bench.uris(), kept);
    }

    #[test]
    fn one_contact_twice_is_one_binding_and_a_query_changes_nothing() {
        let mut bench = Bench::default();
        bench.run(&request(&[contact("sip:a@h"), contact("sip:a@h")], "a", 1), &RULES, 0).unwrap();
        bench.run(&request(&[], "a", 2), &RULES, 0).unwrap();
        assert_eq!((bench.uris(), bench.changes.len()), (vec!["sip:a@h"], 0));
    }
}
