//! Bindings on their way to the database and back from it: written behind, so that nothing waits for a database.

use proto::{Binding, Change, Flow, Now, Places, Secret, keyed_hash};
use smallvec::SmallVec;
use syntax::{Transport, list_elements};

use crate::edge::Edge;
use crate::event::EventKind;
use crate::register::{is_path, is_plain};
use crate::subscriber_settings::canonical;

/// A binding as a row of the table `location`.
#[derive(Clone, Debug, PartialEq)]
pub struct LocationRow {
    /// The row's number: a hash of address of record and Contact, the same in every process.
    pub contact_id: u64,
    /// User part of the address of record.
    pub user: String,
    /// Its domain.
    pub domain: String,
    /// The Contact URI.
    pub contact: String,
    /// Whence the REGISTER came, as a URI; empty where that says no more than the Contact.
    pub received: String,
    /// Path.
    pub path: String,
    /// When it ends, seconds since 1970.
    pub expires: u64,
    /// Its preference in thousandths.
    pub q: u16,
    /// Call-ID.
    pub call_id: String,
    /// CSeq.
    pub cseq: u32,
    /// When it was last refreshed, seconds since 1970.
    pub modified: u64,
    /// Whether its user agent is behind a NAT.
    pub natted: bool,
    /// User-Agent.
    pub user_agent: String,
    /// `transport:address:port` of the listener.
    pub socket: String,
    /// `+sip.instance`.
    pub instance: String,
    /// The number of its flow (RFC 5626); 0 for one that is not by Outbound.
    pub reg_id: u32,
}

/// A change that the database is to be told.
#[derive(Clone, Debug, PartialEq)]
pub enum LocationWrite {
    /// The row is as this.
    Put(Box<LocationRow>),
    /// The row of this number is gone.
    Delete(u64),
}

/// A binding that is gone.
pub(crate) type Removal = u64;

/// The number of the row for a binding; flows of one instance, which may have one URI, have one each.
pub fn contact_id(aor: &[u8], contact: &[u8], instance: &[u8], reg_id: u32) -> u64 {
    let none = Secret::new([0; 16]);
    let hash = match reg_id {
        0 => keyed_hash(&none, &[b"contact", aor, contact]),
        _ => keyed_hash(&none, &[b"flow", aor, instance, &reg_id.to_le_bytes()]),
    };
    // OpenSIPS's column is a signed number in some databases.
    hash as u64 >> 1
}

/// The same for a binding of `aor`.
pub(crate) fn row_number(aor: &[u8], binding: &Binding) -> u64 {
    contact_id(aor, binding.contact(), binding.instance(), binding.reg_id)
}

/// As a database can hold it.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A flow's far end as a URI, as other registrars write it.
fn received(flow: &Flow) -> String {
    match flow.transport {
        Transport::Udp => format!("sip:{}", flow.address()),
        other => format!("sip:{};transport={}", flow.address(), other.as_str().to_ascii_lowercase()),
    }
}

impl Edge {
    /// Whether somebody wants to hear of every refresh.
    pub(crate) fn wants_changes(&self) -> bool {
        [EventKind::ContactInsert, EventKind::ContactUpdate].into_iter().any(|kind| self.options.listening.to(kind))
    }

    /// Notes for the database and tells what became of bindings of `aor`.
    pub(crate) fn note_changes(&mut self, now: Now, aor: &[u8], places: Places, changes: &SmallVec<[(Change, Binding); 1]>) {
        let persist = self.snapshot.settings.registrar.as_ref().is_some_and(|registrar| registrar.persist);
        if persist
            && let Some(place) = places.now
            && let Some(record) = self.users.location.at_mut(place)
            && !std::mem::replace(&mut record.waits, true)
        {
            self.users.unwritten.push_back(place as u32);
            self.compact_unwritten();
        }
        for (change, binding) in changes {
            let kind = match change {
                Change::Inserted => EventKind::ContactInsert,
                Change::Refreshed => EventKind::ContactUpdate,
                Change::Removed | Change::Expired | Change::Replaced => {
                    let counter = if *change == Change::Expired { &self.counters.bindings_expired } else { &self.counters.bindings_removed };
                    counter.add();
                    // What was written before that was switched off must not be there again once it is on.
                    if persist || binding.stored {
                        self.note_removal(row_number(aor, binding));
                    }
                    EventKind::ContactDelete
                }
            };
            self.tell_binding(now, kind, aor, binding);
        }
        match (places.before.is_some(), places.now.is_some()) {
            (false, true) => self.tell_aor(now, EventKind::AorInsert, aor),
            (true, false) => self.tell_aor(now, EventKind::AorDelete, aor),
            _ => {}
        }
    }

    /// Keeps the queue within what there is: while nobody writes, places whose records come and go would stand in it many times.
    fn compact_unwritten(&mut self) {
        let places = self.users.location.places();
        if self.users.unwritten.len() <= 2 * places + 1_024 {
            return;
        }
        self.users.unwritten.clear();
        let location = &self.users.location;
        self.users.unwritten.extend((0..places).filter(|place| location.at(*place).is_some_and(|record| record.waits)).map(|place| place as u32));
    }

    fn note_removal(&mut self, id: u64) {
        let most = self.snapshot.settings.registrar.as_ref().map_or(0, |registrar| registrar.write_queue);
        if self.users.removals.len() >= most {
            // Its row ends by its own time.
            return self.counters.location_removals_dropped.add();
        }
        self.users.removals.push_back(id);
    }

    fn tell_aor(&mut self, now: Now, kind: EventKind, aor: &[u8]) {
        self.tell(now, kind, |_| vec!["location".into(), text(aor).into()]);
    }

    fn tell_binding(&mut self, now: Now, kind: EventKind, aor: &[u8], binding: &Binding) {
        if !self.options.listening.to(kind) {
            return;
        }
        let row = self.row(now, aor, binding);
        self.tell(now, kind, |_| {
            let texts = [&row.contact, &row.received, &row.path].map(|text| text.as_str().into());
            let mut values = vec!["location".into(), text(aor).into()];
            values.extend(texts);
            values.extend([
                u64::from(row.q / 100).into(),
                row.user_agent.as_str().into(),
                row.socket.as_str().into(),
                if row.natted { "NAT".into() } else { "".into() },
                row.expires.into(),
                row.call_id.as_str().into(),
                u64::from(row.cseq).into(),
            ]);
            values
        });
    }

    /// A binding as a row.
    fn row(&self, now: Now, aor: &[u8], binding: &Binding) -> LocationRow {
        let (wall, seconds) = (now.wall / 1_000_000, u64::from(Self::seconds_of(now)));
        let (user, domain) = aor.split_at(aor.iter().position(|byte| *byte == b'@').unwrap_or(aor.len()));
        let listener = self.snapshot.listener(binding.flow.listener);
        LocationRow {
            contact_id: row_number(aor, binding),
            user: text(user),
            domain: text(domain.get(1..).unwrap_or_default()),
            contact: text(binding.contact()),
            received: if binding.natted || binding.reg_id > 0 || binding.flow.transport.is_reliable() { received(&binding.flow) } else { String::new() },
            path: text(binding.path()),
            expires: (wall + u64::from(binding.expires)).saturating_sub(seconds),
            q: binding.q,
            call_id: text(binding.call_id()),
            cseq: binding.cseq,
            modified: (wall + u64::from(binding.modified)).saturating_sub(seconds),
            natted: binding.natted,
            user_agent: text(binding.user_agent()),
            socket: format!("{}:{}", listener.transport, listener.address),
            instance: text(binding.instance()),
            reg_id: binding.reg_id,
        }
    }

    /// Hands out what the database does not have yet, `room` rows at most.
    pub fn write_location(&mut self, now: Now, room: usize) {
        let Some(every) = self.snapshot.settings.registrar.as_ref().filter(|registrar| registrar.persist).map(|registrar| registrar.write_seconds) else {
            return;
        };
        if !Self::seconds_of(now).is_multiple_of(every.max(1)) && !self.draining {
            return;
        }
        let mut room = room;
        while room > 0
            && let Some(id) = self.users.removals.pop_front()
        {
            self.out.location.push(LocationWrite::Delete(id));
            room -= 1;
        }
        while room > 0
            && let Some(place) = self.users.unwritten.pop_front()
        {
            let Some(record) = self.users.location.at_mut(place as usize).filter(|record| record.waits) else { continue };
            record.waits = false;
            let fresh: SmallVec<[Binding; 1]> = record.bindings.iter().filter(|binding| !binding.stored).cloned().collect();
            record.bindings.iter_mut().for_each(|binding| binding.stored = true);
            let aor = record.aor().to_vec();
            for binding in &fresh {
                let row = self.row(now, &aor, binding);
                self.out.location.push(LocationWrite::Put(Box::new(row)));
            }
            room = room.saturating_sub(fresh.len());
        }
    }

    /// Rows that wait to be written.
    pub fn unwritten(&self) -> usize {
        self.users.unwritten.len() + self.users.removals.len()
    }

    /// Which worker holds the bindings of an address of record.
    pub(crate) fn home(&self, aor: &[u8]) -> u8 {
        (keyed_hash(&self.options.process_secret, &[b"home", aor]) as u64 % u64::from(self.options.workers.max(1))) as u8
    }

    /// Takes a binding over that the database has; false where it has ended, is broken, or belongs to another worker.
    pub fn restore(&mut self, now: Now, row: &LocationRow) -> bool {
        let Some(registrar) = &self.snapshot.settings.registrar else { return false };
        // Where domains do not count OpenSIPS leaves them out.
        let domain = if row.domain.is_empty() { registrar.domains.first().cloned().unwrap_or_default() } else { row.domain.to_ascii_lowercase() };
        let user = if registrar.is_case_sensitive(domain.as_bytes()) { row.user.clone() } else { row.user.to_ascii_lowercase() };
        if !is_plain(user.as_bytes()) {
            return false;
        }
        let aor = format!("{user}@{domain}").into_bytes();
        let wall = now.wall / 1_000_000;
        let contact = row.contact.as_bytes();
        let uri = syntax::Uri::parse(contact, syntax::Span::new(0, contact.len()));
        let Ok(uri) = uri.as_ref() else { return false };
        let path = row.path.as_bytes();
        if !list_elements(path, syntax::Span::new(0, path.len())).all(|element| is_path(path, element)) {
            return false;
        }
        if self.home(&aor) != self.options.worker || row.expires <= wall {
            return false;
        }
        let source = row.received.as_bytes();
        let flow = syntax::Uri::parse(source, syntax::Span::new(0, source.len())).ok().and_then(|uri| crate::peer::literal(source, &uri));
        let Some(address) = flow.or_else(|| crate::peer::literal(contact, uri)).or_else(|| unknown_place(uri)) else { return false };
        let listeners = &self.snapshot.settings.listeners;
        let named = listeners.iter().position(|listener| !listener.drained && format!("{}:{}", listener.transport, listener.address) == row.socket);
        let fitting = || listeners.iter().position(|listener| !listener.drained && listener.transport() == address.transport);
        let Some(listener) = named.or_else(fitting) else { return false };
        let seconds = Self::seconds_of(now);
        let expires = u64::from(seconds) + (row.expires - wall).min(u64::from(u32::MAX / 2));
        let texts = [contact, row.call_id.as_bytes(), row.path.as_bytes(), row.user_agent.as_bytes(), row.instance.as_bytes()];
        let mut binding = Binding::new(texts, Flow::new(listener as u16, address.transport, address.address, None), expires as u32);
        binding.q = row.q.min(1_000);
        binding.cseq = row.cseq;
        binding.natted = row.natted;
        binding.modified = seconds.saturating_sub(wall.saturating_sub(row.modified).min(u64::from(seconds)) as u32);
        binding.reg_id = if row.instance.is_empty() { 0 } else { row.reg_id };
        binding.stored = row.contact_id == row_number(&aor, &binding);
        let changed = self.users.location.change(&aor, |bindings| {
            let known = bindings.iter().position(|other| row_number(&aor, other) == row_number(&aor, &binding));
            match known {
                // What came by the network meanwhile is newer.
                Some(_) => false,
                None => {
                    bindings.push(binding);
                    true
                }
            }
        });
        let taken = matches!(changed, Some((true, _)));
        if taken {
            // Whoever guesses at this user after a restart does not lock it out.
            self.note_known(now, address.address.ip(), &aor);
            self.note_user(now, address.address.ip(), &aor);
        }
        taken
    }

    /// The address of record that an operator names, perhaps as a URI, with an alias, or in another case.
    fn aor_of_operator(&self, text: &[u8]) -> Vec<u8> {
        let scheme = [&b"sip:"[..], b"sips:"].into_iter().find(|scheme| text.get(..scheme.len()).is_some_and(|own| own.eq_ignore_ascii_case(scheme)));
        let name = text.get(scheme.map_or(0, <[u8]>::len)..).unwrap_or_default();
        self.account_of(&canonical(name, self.snapshot.settings.registrar.as_ref())).to_vec()
    }

    /// Rows of `aor`, or of the first `limit` addresses of record.
    pub fn location_rows(&self, now: Now, aor: Option<&[u8]>, limit: usize) -> Vec<LocationRow> {
        let seconds = Self::seconds_of(now);
        let rows = |record: &proto::Record| record.live(seconds).map(|binding| self.row(now, record.aor(), binding)).collect::<Vec<_>>();
        match aor.map(|aor| self.aor_of_operator(aor)) {
            Some(aor) => self.users.location.get(&aor).map(rows).unwrap_or_default(),
            None => (0..self.users.location.places()).filter_map(|place| self.users.location.at(place)).take(limit).flat_map(rows).collect(),
        }
    }

    /// Removes the bindings of `aor`, or only that of a Contact; how many those were.
    pub fn remove_bindings(&mut self, now: Now, aor: &[u8], contact: Option<&[u8]>) -> usize {
        let aor = self.aor_of_operator(aor);
        self.remove_those(now, &aor, |binding| contact.is_none_or(|contact| binding.contact() == contact))
    }

    /// The same for those that `goes` is true of.
    pub(crate) fn remove_those(&mut self, now: Now, aor: &[u8], goes: impl Fn(&Binding) -> bool) -> usize {
        if self.users.location.get(aor).is_none() {
            return 0;
        }
        let mut gone = SmallVec::new();
        let changed = self.users.location.change(aor, |bindings| {
            bindings.retain(|binding| {
                let stays = !goes(binding);
                if !stays {
                    gone.push((Change::Removed, binding.clone()));
                }
                stays
            });
        });
        if let Some((_, places)) = changed {
            self.note_changes(now, aor, places, &gone);
        }
        gone.len()
    }

    /// Removes what has ended of the record at `place`.
    pub(crate) fn expire_at(&mut self, now: Now, place: usize) {
        let seconds = Self::seconds_of(now);
        let Some(record) = self.users.location.at(place).filter(|record| record.bindings.iter().any(|binding| binding.expires <= seconds)) else { return };
        let aor = record.aor().to_vec();
        let mut gone = SmallVec::new();
        let changed = self.users.location.change(&aor, |bindings| {
            bindings.retain(|binding| {
                let live = binding.expires > seconds;
                if !live {
                    gone.push((Change::Expired, binding.clone()));
                }
                live
            });
        });
        if let Some((_, places)) = changed {
            self.note_changes(now, &aor, places, &gone);
        }
    }

    /// The settings of the registrar for those outside.
    pub fn keeps_location(&self) -> bool {
        self.snapshot.settings.registrar.is_some()
    }

    /// Another configuration holds: bindings are to be written that were not before, or no more.
    pub(crate) fn persist_anew(&mut self, before: bool) {
        let now = self.snapshot.settings.registrar.as_ref().is_some_and(|registrar| registrar.persist);
        if before == now {
            return;
        }
        self.users.unwritten.clear();
        for place in 0..self.users.location.places() {
            let Some(record) = self.users.location.at_mut(place) else { continue };
            record.waits = now && record.bindings.iter().any(|binding| !binding.stored);
            if record.waits {
                self.users.unwritten.push_back(place as u32);
            }
        }
    }
}

/// A Contact that has a name: it is looked up when a call comes.
fn unknown_place(uri: &syntax::Uri) -> Option<crate::question::Address> {
    let transport = uri.transport.unwrap_or(Transport::Udp);
    (!uri.host.is_empty()).then(|| crate::question::Address { transport, address: (std::net::Ipv4Addr::UNSPECIFIED, 0).into() })
}
