//! Where a registered user is reached: a look at the bindings of an address of record, here or on the worker that holds them
//! (RFC 3261 section 16.5: by preference, those of the same one at once).

use proto::{Binding, Key, Now, milliseconds};
use syntax::{Message, Method, Span, Uri, list_elements, parse_name_addr, same_uri};

use crate::edge::Edge;
use crate::gruu::{Device, Wanted};
use crate::hop::Hop;
use crate::identify::DEFAULT_BREADTH;
use crate::outbound::gather;
use crate::question::{Address, QuestionId};
use crate::settings::Forking;
use crate::target::Target;
use crate::transaction::{WaitKind, Waiting};

/// One way to a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// The Contact, which becomes the Request-URI.
    pub(crate) uri: Box<[u8]>,
    /// Route header field values (RFC 3327 section 5.3); empty for none.
    pub(crate) path: Box<[u8]>,
    /// The way back that the phone came by; nothing where its Contact, or its Path, says where it is.
    pub(crate) hop: Option<Hop>,
    /// The listener that it registered at.
    pub(crate) listener: u16,
    /// Its preference in thousandths.
    pub(crate) q: u16,
    /// When the phone was last heard there, in seconds since 1970.
    pub(crate) made: u32,
    /// The instance whose flow this is (RFC 5626); empty where there is only one way to it.
    pub(crate) instance: Box<[u8]>,
    /// Its other flows.
    pub(crate) spare: Vec<Self>,
    /// Whether the phone is reached by this flow or not at all, and whoever asks knows what to do then (RFC 5626 section 5.3).
    pub(crate) flow_only: bool,
}

/// The way to a phone of a dialog, while it is asked whether there is a newer one.
#[derive(Debug)]
pub(crate) struct KnownWay {
    pub(crate) way: Reach,
    /// Whether it is asked for one device, which may be reached by another Contact now.
    by_device: bool,
}

/// A question for the worker that holds an address of record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReachQuestion {
    /// Who asks.
    pub id: QuestionId,
    /// Whom it is for.
    pub home: u8,
    /// Whom it is about.
    pub wanted: Wanted,
}

impl Reach {
    fn of(binding: &Binding, now: Now) -> Self {
        let flow = &binding.flow;
        let reached_by_flow = binding.path().is_empty() && (binding.natted || binding.reg_id > 0 || flow.connection.is_some()) && flow.address().port() != 0;
        Self {
            uri: binding.contact().into(),
            path: binding.path().into(),
            hop: reached_by_flow.then(|| Hop::of_flow(flow)),
            listener: flow.listener,
            q: binding.q,
            made: ((now.wall / 1_000_000) as u32).saturating_sub(Edge::seconds_of(now).saturating_sub(binding.modified)),
            instance: if binding.reg_id > 0 { binding.instance().into() } else { Box::default() },
            spare: Vec::new(),
            flow_only: false,
        }
    }

    /// A phone that is wherever its Contact is registered.
    pub(crate) fn somewhere(uri: Box<[u8]>) -> Self {
        Self { uri, path: Box::default(), hop: None, listener: 0, q: 0, made: 0, instance: Box::default(), spare: Vec::new(), flow_only: false }
    }

    /// The same by the address that its Contact names, where it has no other way.
    fn fixed(self) -> Self {
        let hop = match self.target() {
            Some(Target::Address(Address { transport, address })) if self.path.is_empty() => {
                Some(Hop { listener: self.listener, transport, address, connection: None })
            }
            _ => None,
        };
        Self { hop: self.hop.or(hop), ..self }
    }

    /// The Request-URI of a request for `uri` that takes this Path, and its Route line. Where the first element knows no loose
    /// routing, its URI changes places with that of the request (RFC 3261 section 16.6 step 6).
    pub(crate) fn heading<'a>(&'a self, uri: &'a [u8]) -> (&'a [u8], Vec<u8>) {
        let mut elements = list_elements(&self.path, Span::new(0, self.path.len()));
        let first = elements.next().and_then(|element| parse_name_addr(&self.path, element)).map(|address| address.uri);
        match first.and_then(|span| Uri::parse(&self.path, span).ok()) {
            Some(strict) if !strict.loose => {
                let rest = elements.next().map_or(&[][..], |second| self.path.get(second.start()..).unwrap_or_default());
                let comma: &[u8] = if rest.is_empty() { b"" } else { b", " };
                (strict.whole.of(&self.path), [b"Route: ", rest, comma, b"<", uri, b">\r\n"].concat())
            }
            _ => (uri, [b"Route: ", &*self.path, b"\r\n"].concat()),
        }
    }

    /// The next hop where no flow says it: that of the first Path value, or of the Contact.
    pub(crate) fn target(&self) -> Option<Target> {
        let first = list_elements(&self.path, Span::new(0, self.path.len())).next();
        let (bytes, span) = match first {
            Some(element) => (&self.path, parse_name_addr(&self.path, element)?.uri),
            None => (&self.uri, Span::new(0, self.uri.len())),
        };
        let uri = Uri::parse(bytes, span).ok()?;
        (!uri.host.is_empty()).then(|| Target::of_uri(bytes, &uri))
    }
}

/// Whether there is a way: one that a connection made is gone with it, and after a restart all are, until the phone comes back.
fn may_be_reached(binding: &Binding) -> bool {
    let flow = &binding.flow;
    !(flow.transport.is_reliable() && flow.connection.is_none() && (binding.natted || binding.reg_id > 0) && binding.path().is_empty())
}

impl Edge {
    /// The address of record that a URI names, where it is one of ours.
    pub(crate) fn served_user(&self, uri: &[u8]) -> Option<Vec<u8>> {
        let parsed = Uri::parse(uri, Span::new(0, uri.len())).ok().filter(|parsed| self.serves(parsed.host.of(uri)))?;
        self.address_of_record(uri, &parsed)
    }

    /// Where a new request goes whose Request-URI is that of a user of ours.
    pub(crate) fn registered_target(&self, message: &Message<'_>) -> Option<Target> {
        let uri = &message.head.request_uri;
        if message.head.method == Method::Register || uri.user.is_empty() || !self.serves(message.text(uri.host)) {
            return None;
        }
        self.wanted(message.bytes, uri).map(|wanted| Target::Record(Box::new(wanted)))
    }

    /// The ways to a user or one of its devices, the preferred ones first, and among those the latest.
    pub fn look_up(&self, now: Now, wanted: &Wanted) -> Vec<Reach> {
        let seconds = Self::seconds_of(now);
        let Some(record) = self.users.location.get(&wanted.aor) else { return Vec::new() };
        let mut bindings: Vec<&Binding> = self.wanted_of(record, &wanted.device, seconds).filter(|binding| may_be_reached(binding)).collect();
        // Of those of one second the one that came last.
        bindings.reverse();
        bindings.sort_by_key(|binding| std::cmp::Reverse((binding.q, binding.modified)));
        bindings.into_iter().map(|binding| Reach::of(binding, now)).collect()
    }

    /// Puts the ways to a user among the targets of `entry`; true where the worker that knows them must be waited for.
    pub(crate) fn reach(&mut self, now: Now, entry: Key, wanted: Wanted) -> bool {
        self.counters.location_lookups.add();
        let home = self.home(&wanted.aor);
        if home == self.options.worker {
            let found = self.look_up(now, &wanted);
            self.take_ways(entry, found);
            return false;
        }
        let deadline = now.moment + milliseconds(self.snapshot.settings.timers.resolve_milliseconds);
        let Some(transaction) = self.transactions.get_mut(entry) else { return true };
        transaction.questions = transaction.questions.wrapping_add(1);
        transaction.waiting = Some(Waiting { number: transaction.questions, deadline, kind: WaitKind::Reach });
        let id = QuestionId { worker: self.options.worker, transaction: entry, number: transaction.questions, asker: crate::question::Asker::Transaction };
        self.out.reaches.push(ReachQuestion { id, home, wanted });
        true
    }

    /// Puts the way to a phone of a dialog among the targets of `entry`: the newest that its user registered with the same
    /// Contact, else the one known; true where the worker that knows must be waited for.
    pub(crate) fn find_again(&mut self, now: Now, entry: Key, wanted: Wanted, way: Reach) -> bool {
        let by_device = wanted.device != Device::Any;
        if self.home(&wanted.aor) == self.options.worker {
            let found = self.look_up(now, &wanted);
            self.take_newest(entry, found, way, by_device);
            return false;
        }
        let waits = self.reach(now, entry, wanted);
        if let Some(transaction) = self.transactions.get_mut(entry) {
            transaction.known_way = Some(Box::new(KnownWay { way, by_device }));
        }
        waits
    }

    fn take_newest(&mut self, entry: Key, found: Vec<Reach>, way: Reach, by_device: bool) {
        // Two phones of one user may have the same address inside; the mark says which, unless its phone was heard again elsewhere.
        let newer = |other: &Reach| (by_device || other.uri == way.uri && other.made >= way.made) && other.hop.is_some();
        let is_still_there = |other: &Reach| other.uri == way.uri && other.hop == way.hop;
        let newest = if way.hop.is_some() && !by_device && found.iter().any(is_still_there) {
            way
        } else if way.hop.is_none() {
            // Of this one only the Contact is known: where that is registered, that is where it leads.
            found.into_iter().filter(|other| same_uri(&other.uri, &way.uri)).max_by_key(|other| other.made).map_or(way, Reach::fixed)
        } else {
            found.into_iter().filter(newer).max_by_key(|other| other.made).unwrap_or(way)
        };
        if let Some(transaction) = self.transactions.get_mut(entry) {
            transaction.targets.push(Target::Contact(Box::new(newest)));
        }
    }

    /// Takes what the worker that holds an address of record says.
    pub fn handle_reached(&mut self, now: Now, id: QuestionId, found: Vec<Reach>) {
        let entry = id.transaction;
        let fits = self.transactions.get(entry).and_then(|transaction| transaction.waiting).is_some_and(|w| w.kind == WaitKind::Reach && w.number == id.number);
        if !fits {
            return self.counters.late_answers.add();
        }
        self.in_hand = entry;
        if let Some(transaction) = self.transactions.get_mut(entry) {
            transaction.waiting = None;
        }
        let known = self.transactions.get_mut(entry).and_then(|transaction| transaction.known_way.take());
        match known {
            Some(known) => self.take_newest(entry, found, known.way, known.by_device),
            None => self.take_ways(entry, found),
        }
        self.with_request(entry, |edge, message| edge.advance(now, entry, message));
        self.conclude(now, entry);
        self.rearm(entry);
    }

    fn take_ways(&mut self, entry: Key, found: Vec<Reach>) {
        let found = gather(found);
        let count = found.len();
        if count == 0 {
            self.counters.location_misses.add();
            self.note_failure(entry, 480, None);
        }
        self.decide_for(entry, |_| format!("target: {count} bindings"));
        let most = self.snapshot.settings.limits.branches;
        let parallel = self.snapshot.settings.registrar.as_ref().is_some_and(|registrar| registrar.forking == Forking::Parallel);
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        if let Some(shape) = transaction.shape.as_mut() {
            // Too little to share out: one after the other needs no more than one at a time (RFC 5393 section 5.3).
            let breadth = shape.breadth.unwrap_or(DEFAULT_BREADTH);
            shape.parallel = parallel && count > 1 && usize::from(breadth) >= count;
            shape.breadth = if shape.parallel { Some((breadth / count as u16).max(1)) } else { shape.breadth };
        }
        let ways = found.into_iter().take(most).map(|way| Target::Contact(Box::new(way)));
        transaction.targets.extend(ways.rev());
    }
}
