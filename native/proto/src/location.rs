//! Where users are reached: addresses of record with their bindings (RFC 3261 section 10).
//!
//! Records lie in chunks of a fixed size and are found by linear hashing, which grows and shrinks by one place at a time: no
//! growth halts a worker, and memory follows the number of records.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use smallvec::SmallVec;
use syntax::Transport;

use crate::texts::Texts;
use crate::{Secret, keyed_hash};

/// Heads of chains in a piece.
const CHUNK: usize = 1_024;
/// Records in a piece: of several large pages, and only what is used of it takes any memory.
const RECORDS: usize = 65_536;
const NIL: u32 = u32::MAX;

/// A connection that a binding came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowConnection {
    /// The worker that owns it.
    pub worker: u8,
    /// Its place there.
    pub slot: u32,
    /// Tells successive connections of one place apart.
    pub generation: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ip {
    V4([u8; 4]),
    V6([u8; 16]),
}

/// The way back to a user agent: whence its REGISTER came (RFC 5626 section 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The listener it came to.
    pub listener: u16,
    /// The transport.
    pub transport: Transport,
    ip: Ip,
    port: u16,
    /// The connection, where there is one.
    pub connection: Option<FlowConnection>,
}

impl Flow {
    /// The flow from `address`.
    pub fn new(listener: u16, transport: Transport, address: SocketAddr, connection: Option<FlowConnection>) -> Self {
        let ip = match address.ip().to_canonical() {
            IpAddr::V4(ip) => Ip::V4(ip.octets()),
            IpAddr::V6(ip) => Ip::V6(ip.octets()),
        };
        Self { listener, transport, ip, port: address.port(), connection }
    }

    /// The remote address.
    pub fn address(&self) -> SocketAddr {
        match self.ip {
            Ip::V4(ip) => (ip, self.port).into(),
            Ip::V6(ip) => (ip, self.port).into(),
        }
    }
}

/// One binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    texts: Texts,
    /// When it ends, seconds of the monotonic clock.
    pub expires: u32,
    /// When it was last refreshed, in the same seconds.
    pub modified: u32,
    /// CSeq of the REGISTER that made it.
    pub cseq: u32,
    /// The number of its flow among those of its instance (RFC 5626 section 4.1); 0 for one that is not by Outbound.
    pub reg_id: u32,
    /// Until when a core keeps it, in the same seconds; 0 where none does.
    pub upstream: u32,
    /// Its preference, in thousandths.
    pub q: u16,
    /// Keep-alives in a row that were not answered.
    pub lost: u8,
    /// Whether its user agent is behind a NAT, so that only the flow reaches it.
    pub natted: bool,
    /// Whether the database has it as it is.
    pub stored: bool,
    /// The way back.
    pub flow: Flow,
}

impl Binding {
    /// A binding that ends at `expires`; texts are Contact URI, Call-ID, Path, User-Agent and instance.
    pub fn new(texts: [&[u8]; 5], flow: Flow, expires: u32) -> Self {
        Self { texts: Texts::new(texts), expires, modified: 0, cseq: 0, reg_id: 0, upstream: 0, q: 1_000, lost: 0, natted: false, stored: false, flow }
    }

    /// The Contact URI.
    pub fn contact(&self) -> &[u8] {
        self.texts.part(0)
    }
    /// Call-ID of the REGISTER that made it.
    pub fn call_id(&self) -> &[u8] {
        self.texts.part(1)
    }
    /// Path header field values, joined by commas (RFC 3327).
    pub fn path(&self) -> &[u8] {
        self.texts.part(2)
    }
    /// User-Agent.
    pub fn user_agent(&self) -> &[u8] {
        self.texts.part(3)
    }
    /// The `+sip.instance` parameter (RFC 5626 section 4.1).
    pub fn instance(&self) -> &[u8] {
        self.texts.part(4)
    }

    fn bytes(&self) -> usize {
        self.texts.len()
    }
}

/// An address of record with its bindings.
#[derive(Debug)]
pub struct Record {
    aor: Box<[u8]>,
    hash: u64,
    next: u32,
    /// Whether it waits to be written.
    pub waits: bool,
    /// At least one while it is in the table.
    pub bindings: SmallVec<[Binding; 1]>,
}

impl Record {
    /// User and host in their canonical form, with an `@` between.
    pub fn aor(&self) -> &[u8] {
        &self.aor
    }

    /// Bindings that have not ended at `now`, in seconds.
    pub fn live(&self, now: u32) -> impl Iterator<Item = &Binding> {
        self.bindings.iter().filter(move |binding| binding.expires > now)
    }
}

/// Where a record was before a change, and where it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// Before; nowhere for one that is new.
    pub before: Option<usize>,
    /// Now; nowhere for one that is gone.
    pub now: Option<usize>,
}

/// Wishes for large pages at addresses of one's own.
pub type LargePages = fn(Range<usize>);

/// The table; at most `limit` records.
pub struct Location {
    large_pages: LargePages,
    secret: Secret,
    chunks: Vec<Vec<Option<Record>>>,
    free: Vec<u32>,
    heads: Vec<Box<[u32; CHUNK]>>,
    buckets: usize,
    len: usize,
    bindings: usize,
    text_bytes: usize,
    limit: usize,
}

impl Location {
    /// An empty table, whose places nobody can aim at without `secret`. `large_pages` is asked for pieces that are full, as whoever walks
    /// over all of them finds each page cold: wished for before that, a large page would be there as a whole for its first record.
    pub fn new(secret: Secret, limit: usize, large_pages: LargePages) -> Self {
        Self {
            large_pages,
            secret,
            chunks: Vec::new(),
            free: Vec::new(),
            heads: vec![Box::new([NIL; CHUNK])],
            buckets: 1,
            len: 0,
            bindings: 0,
            text_bytes: 0,
            limit: limit.min(NIL as usize - 1),
        }
    }

    /// Lets the table hold `limit` records from now on; those beyond it stay until they end.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.min(NIL as usize - 1);
    }

    /// How many records there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bindings there are, those that have ended and were not yet swept among them.
    pub const fn bindings(&self) -> usize {
        self.bindings
    }

    /// How many records there may be.
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// Bytes held, without what the allocator adds.
    pub fn bytes(&self) -> usize {
        let places = self.places() * size_of::<Option<Record>>();
        places + self.heads.len() * size_of::<[u32; CHUNK]>() + self.free.capacity() * 4 + self.text_bytes
    }

    /// Places of records, free ones among them: what a walk by [`Location::at`] has before it.
    pub fn places(&self) -> usize {
        self.chunks.iter().map(Vec::len).sum()
    }

    /// Whether any binding at these places has ended at `now`, in seconds.
    pub fn any_ended(&self, places: Range<usize>, now: u32) -> bool {
        places.into_iter().any(|place| self.at(place).is_some_and(|record| record.bindings.iter().any(|binding| binding.expires <= now)))
    }

    /// The record at a place.
    pub fn at(&self, place: usize) -> Option<&Record> {
        self.chunks.get(place / RECORDS)?.get(place % RECORDS)?.as_ref()
    }

    /// The same, to change what does not count its bindings.
    pub fn at_mut(&mut self, place: usize) -> Option<&mut Record> {
        self.chunks.get_mut(place / RECORDS)?.get_mut(place % RECORDS)?.as_mut()
    }

    fn hash(&self, aor: &[u8]) -> u64 {
        keyed_hash(&self.secret, &[b"aor", aor]) as u64
    }

    const fn bucket(&self, hash: u64) -> usize {
        let width = self.buckets.next_power_of_two();
        let bucket = hash as usize & (width - 1);
        if bucket < self.buckets { bucket } else { bucket - width / 2 }
    }

    fn head(&mut self, bucket: usize) -> &mut u32 {
        &mut self.heads[bucket / CHUNK][bucket % CHUNK]
    }

    fn record_mut(&mut self, place: u32) -> Option<&mut Record> {
        self.at_mut(place as usize)
    }

    fn find(&self, hash: u64, aor: &[u8]) -> Option<u32> {
        let bucket = self.bucket(hash);
        let mut place = self.heads[bucket / CHUNK][bucket % CHUNK];
        while let Some(record) = self.at(place as usize) {
            if record.hash == hash && *record.aor == *aor {
                return Some(place);
            }
            place = record.next;
        }
        None
    }

    /// The place of `aor`.
    pub fn place_of(&self, aor: &[u8]) -> Option<usize> {
        self.find(self.hash(aor), aor).map(|place| place as usize)
    }

    /// The record of `aor`.
    pub fn get(&self, aor: &[u8]) -> Option<&Record> {
        self.at(self.place_of(aor)?)
    }

    /// Changes the bindings of `aor`, which may have none before and none afterwards; `None`, and nothing is changed, where the table is full.
    /// Returns what `work` did and where the record was and is, if it is there.
    pub fn change<R>(&mut self, aor: &[u8], work: impl FnOnce(&mut SmallVec<[Binding; 1]>) -> R) -> Option<(R, Places)> {
        let hash = self.hash(aor);
        let found = self.find(hash, aor);
        let mut fresh = SmallVec::new();
        let bindings = match found {
            Some(place) => &mut self.chunks[place as usize / RECORDS][place as usize % RECORDS].as_mut()?.bindings,
            None if self.len >= self.limit => return None,
            None => &mut fresh,
        };
        let (count, bytes) = (bindings.len(), bindings.iter().map(Binding::bytes).sum::<usize>());
        let done = work(bindings);
        let (now, bytes_now, is_empty) = (bindings.len(), bindings.iter().map(Binding::bytes).sum::<usize>(), bindings.is_empty());
        self.bindings = self.bindings - count + now;
        self.text_bytes = self.text_bytes - bytes + bytes_now;
        let place = match found {
            Some(place) if is_empty => {
                self.remove(place);
                None
            }
            Some(place) => Some(place as usize),
            None if is_empty => None,
            None => Some(self.insert(hash, aor, fresh) as usize),
        };
        Some((done, Places { before: found.map(|place| place as usize), now: place }))
    }

    fn insert(&mut self, hash: u64, aor: &[u8], bindings: SmallVec<[Binding; 1]>) -> u32 {
        if self.len >= self.buckets {
            self.split();
        }
        let bucket = self.bucket(hash);
        let next = *self.head(bucket);
        let record = Record { aor: aor.into(), hash, next, waits: false, bindings };
        self.text_bytes += aor.len();
        self.len += 1;
        let place = match self.free.pop() {
            Some(place) => {
                self.chunks[place as usize / RECORDS][place as usize % RECORDS] = Some(record);
                place
            }
            None => {
                if self.chunks.last().is_none_or(|chunk| chunk.len() == RECORDS) {
                    self.chunks.push(Vec::with_capacity(RECORDS));
                }
                let last = self.chunks.len() - 1;
                let chunk = &mut self.chunks[last];
                chunk.push(Some(record));
                if chunk.len() == RECORDS {
                    let addresses = chunk.as_ptr_range();
                    (self.large_pages)(addresses.start as usize..addresses.end as usize);
                }
                (last * RECORDS + chunk.len() - 1) as u32
            }
        };
        *self.head(bucket) = place;
        place
    }

    fn remove(&mut self, place: u32) {
        let Some(record) = self.chunks[place as usize / RECORDS][place as usize % RECORDS].take() else { return };
        self.unlink(place, self.bucket(record.hash), record.next);
        self.len -= 1;
        self.text_bytes -= record.aor.len();
        self.free.push(place);
        if self.len == 0 {
            self.chunks = Vec::new();
            self.free = Vec::new();
        }
        // Two for each that goes, since there are up to twice as many.
        for _ in 0..2 {
            if self.buckets > 1 && self.len * 2 < self.buckets {
                self.merge();
            }
        }
    }

    /// Takes `place`, whose successor is `next`, out of the chain of `bucket`.
    fn unlink(&mut self, place: u32, bucket: usize, next: u32) {
        let mut at = *self.head(bucket);
        if at == place {
            *self.head(bucket) = next;
            return;
        }
        while let Some(record) = self.record_mut(at) {
            if record.next == place {
                record.next = next;
                return;
            }
            at = record.next;
        }
    }

    /// Adds one bucket and moves to it what belongs there.
    fn split(&mut self) {
        let fresh = self.buckets;
        let source = fresh - (fresh + 1).next_power_of_two() / 2;
        self.buckets += 1;
        if fresh.is_multiple_of(CHUNK) {
            self.heads.push(Box::new([NIL; CHUNK]));
        }
        let mut at = std::mem::replace(self.head(source), NIL);
        while let Some(record) = self.at(at as usize) {
            let (next, bucket) = (record.next, self.bucket(record.hash));
            self.push_front(bucket, at);
            at = next;
        }
    }

    /// Takes the last bucket away and moves what it had.
    fn merge(&mut self) {
        let last = self.buckets - 1;
        let mut at = std::mem::replace(self.head(last), NIL);
        self.buckets = last;
        if last.is_multiple_of(CHUNK) {
            self.heads.pop();
        }
        while let Some(record) = self.at(at as usize) {
            let (next, bucket) = (record.next, self.bucket(record.hash));
            self.push_front(bucket, at);
            at = next;
        }
    }

    fn push_front(&mut self, bucket: usize, place: u32) {
        let next = std::mem::replace(self.head(bucket), place);
        if let Some(record) = self.record_mut(place) {
            record.next = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn flow() -> Flow {
        Flow::new(0, Transport::Udp, "192.0.2.7:5060".parse().unwrap(), None)
    }

    fn binding(contact: &str, expires: u32) -> Binding {
        Binding::new([contact.as_bytes(), b"call", b"", b"agent", b""], flow(), expires)
    }

    fn table(limit: usize) -> Location {
        Location::new(Secret::new([3; 16]), limit, |_| ())
    }

    #[test]
    fn texts_and_flow_come_back_as_they_were() {
        let mapped = Flow::new(3, Transport::Tcp, "[::ffff:198.51.100.7]:4000".parse().unwrap(), None);
        assert_eq!(mapped.address(), "198.51.100.7:4000".parse().unwrap());
        let six = Flow::new(3, Transport::Tcp, "[2001:db8::1]:4000".parse().unwrap(), None);
        assert_eq!(six.address(), "[2001:db8::1]:4000".parse().unwrap());
        let binding = Binding::new([b"sip:a@b", b"call", b"<sip:p;lr>", b"agent", b"<urn:x>"], six, 9);
        let texts = (binding.contact(), binding.call_id(), binding.path(), binding.user_agent(), binding.instance());
        assert_eq!(texts, (&b"sip:a@b"[..], &b"call"[..], &b"<sip:p;lr>"[..], &b"agent"[..], &b"<urn:x>"[..]));
    }

    #[test]
    fn a_binding_is_small() {
        assert!(size_of::<Option<Record>>() <= 152, "{}", size_of::<Option<Record>>());
    }

    #[test]
    fn a_full_table_takes_no_new_record_and_changes_old_ones() {
        let mut table = table(1);
        assert!(table.change(b"a@x", |bindings| bindings.push(binding("sip:1", 5))).is_some());
        assert!(table.change(b"b@x", |bindings| bindings.push(binding("sip:1", 5))).is_none());
        assert!(table.change(b"a@x", |bindings| bindings.push(binding("sip:2", 5))).is_some());
        assert_eq!((table.len(), table.bindings()), (1, 2));
        assert_eq!(table.get(b"a@x").unwrap().live(4).count(), 2);
        assert_eq!(table.get(b"a@x").unwrap().live(5).count(), 0);
    }

    #[test]
    fn memory_goes_back_when_records_go() {
        let mut table = table(usize::MAX);
        let empty = table.bytes();
        for number in 0..20_000 {
            table.change(format!("{number}@x").as_bytes(), |bindings| bindings.push(binding("sip:1", 5)));
        }
        assert_eq!(table.places(), 20_000);
        for number in 0..20_000 {
            table.change(format!("{number}@x").as_bytes(), SmallVec::clear);
        }
        assert_eq!((table.len(), table.bindings(), table.places()), (0, 0, 0));
        assert!(table.bytes() <= empty + 4_096 * 2, "{} and {empty}", table.bytes());
    }

    #[test]
    fn large_pages_are_wished_for_once_for_each_piece_that_is_full() {
        use std::sync::atomic::{AtomicUsize, Ordering};

        static WISHED: [AtomicUsize; 2] = [AtomicUsize::new(0), AtomicUsize::new(0)];
        let mut table = Location::new(Secret::new([3; 16]), usize::MAX, |addresses| {
            WISHED[0].fetch_add(1, Ordering::Relaxed);
            WISHED[1].fetch_add(addresses.len(), Ordering::Relaxed);
        });
        let wished = || (WISHED[0].load(Ordering::Relaxed), WISHED[1].load(Ordering::Relaxed));
        let mut add = |numbers: Range<usize>| {
            for number in numbers {
                table.change(format!("{number}@x").as_bytes(), |bindings| bindings.push(binding("sip:1", 5)));
            }
        };
        add(0..RECORDS - 1);
        assert_eq!(wished(), (0, 0));
        add(RECORDS - 1..RECORDS + 10);
        assert_eq!(wished(), (1, RECORDS * size_of::<Option<Record>>()));
    }

    proptest! {
        #[test]
        fn the_table_holds_what_a_map_would(steps in proptest::collection::vec((0u32..300, 0u8..4), 0..2_000)) {
            let mut table = table(usize::MAX);
            let mut map: HashMap<u32, usize> = HashMap::new();
            for (user, count) in steps {
                let aor = format!("{user}@x");
                let (_, places) = table.change(aor.as_bytes(), |bindings| {
                    bindings.clear();
                    bindings.extend((0..count).map(|number| binding(&format!("sip:{number}"), 5)));
                }).unwrap();
                prop_assert_eq!(places.now.is_some(), count > 0);
                prop_assert_eq!(places.before.is_some(), map.contains_key(&user));
                if count == 0 { map.remove(&user); } else { map.insert(user, usize::from(count)); }
                prop_assert_eq!(table.len(), map.len());
            }
            prop_assert_eq!(table.bindings(), map.values().sum::<usize>());
            for user in 0..300u32 {
                let found = table.get(format!("{user}@x").as_bytes()).map(|record| record.bindings.len());
                prop_assert_eq!(found, map.get(&user).copied());
            }
            let walked = (0..table.places()).filter(|place| table.at(*place).is_some()).count();
            prop_assert_eq!(walked, map.len());
        }
    }
}
