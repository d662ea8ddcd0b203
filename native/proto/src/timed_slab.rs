//! A table of entries that have one deadline each.
//!
//! Entries live in chunks that are given back once empty, so that memory follows the load. Free slots of the
//! lowest chunk go first, which empties the high ones. Deadlines hang in a wheel of four levels with 64 places
//! and 4 ms resolution, as lists through the entries: arming and disarming cost O(1) and no memory.

use std::collections::BTreeSet;

use crate::Moment;

const CHUNK: u32 = 256;
const NIL: u32 = u32::MAX;
const UNARMED: u16 = u16::MAX;
const LEVELS: usize = 4;
const TICK: u64 = 4_000;

/// Names one entry for as long as it lives: a later entry in the same slot has another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Place in the table.
    pub slot: u32,
    /// Tells successive entries of one slot apart; never 0.
    pub generation: u32,
}

impl Key {
    /// Names no entry.
    pub const NONE: Self = Self { slot: u32::MAX, generation: 0 };
}

struct Entry<T> {
    generation: u32,
    next: u32,
    previous: u32,
    bucket: u16,
    deadline: Moment,
    value: Option<T>,
}

struct Chunk<T> {
    entries: Vec<Entry<T>>,
    free: u32,
    used: u32,
}

impl<T> Chunk<T> {
    fn new(index: u32) -> Self {
        let base = index * CHUNK;
        let entry = |i: u32| Entry {
            generation: 0,
            next: if i + 1 < CHUNK { base + i + 1 } else { NIL },
            previous: NIL,
            bucket: UNARMED,
            deadline: Moment::NEVER,
            value: None,
        };
        Self { entries: (0..CHUNK).map(entry).collect(), free: base, used: 0 }
    }
}

/// The table; at most `limit` entries at once.
pub struct TimedSlab<T> {
    chunks: Vec<Option<Chunk<T>>>,
    open: BTreeSet<u32>,
    len: usize,
    limit: usize,
    generation: u32,
    tick: u64,
    heads: [[u32; 64]; LEVELS],
    occupied: [u64; LEVELS],
}

impl<T> TimedSlab<T> {
    /// An empty table whose wheel starts at `now`.
    pub fn new(limit: usize, now: Moment) -> Self {
        Self {
            chunks: Vec::new(),
            open: BTreeSet::new(),
            len: 0,
            limit: limit.min(NIL as usize - 1),
            generation: 0,
            tick: now.0 / TICK,
            heads: [[NIL; 64]; LEVELS],
            occupied: [0; LEVELS],
        }
    }

    /// How many entries there are.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the entries' places, without what they point to.
    pub fn bytes(&self) -> usize {
        self.chunks.iter().flatten().count() * size_of::<Entry<T>>() * CHUNK as usize
    }

    /// How many entries there may be.
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// Lets the table hold `limit` entries from now on; those beyond it stay until they end.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.min(NIL as usize - 1);
    }

    /// Adds an entry without a deadline; `None` where the table is full, and then `value` is dropped.
    pub fn insert(&mut self, value: T) -> Option<Key> {
        if self.len >= self.limit {
            return None;
        }
        let index = match self.open.first() {
            Some(index) => *index,
            None => {
                let index = self.chunks.len() as u32;
                self.chunks.push(None);
                self.open.insert(index);
                index
            }
        };
        let chunk = self.chunks[index as usize].get_or_insert_with(|| Chunk::new(index));
        let slot = chunk.free;
        let entry = &mut chunk.entries[(slot % CHUNK) as usize];
        chunk.free = entry.next;
        chunk.used += 1;
        self.generation = self.generation.wrapping_add(1).max(1);
        *entry = Entry { generation: self.generation, next: NIL, previous: NIL, bucket: UNARMED, deadline: Moment::NEVER, value: Some(value) };
        if chunk.free == NIL {
            self.open.remove(&index);
        }
        self.len += 1;
        Some(Key { slot, generation: self.generation })
    }

    /// The entry named by `key`, if it still lives.
    pub fn get(&self, key: Key) -> Option<&T> {
        let chunk = self.chunks.get((key.slot / CHUNK) as usize)?.as_ref()?;
        let entry = chunk.entries.get((key.slot % CHUNK) as usize)?;
        if entry.generation == key.generation { entry.value.as_ref() } else { None }
    }

    /// The entry named by `key`, if it still lives.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let entry = self.entry_mut(key.slot)?;
        if entry.generation == key.generation { entry.value.as_mut() } else { None }
    }

    /// Takes the entry named by `key` out.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        if self.entry_mut(key.slot)?.generation != key.generation {
            return None;
        }
        self.disarm(key.slot);
        let index = key.slot / CHUNK;
        let chunk = self.chunks.get_mut(index as usize)?.as_mut()?;
        let entry = chunk.entries.get_mut((key.slot % CHUNK) as usize)?;
        let value = entry.value.take();
        entry.generation = 0;
        entry.next = chunk.free;
        chunk.free = key.slot;
        chunk.used -= 1;
        let empty = chunk.used == 0;
        self.len -= 1;
        self.open.insert(index);
        // The lowest chunk stays, so that a table that is nearly empty does not allocate at each entry.
        if empty && index > 0 {
            self.chunks[index as usize] = None;
            while self.chunks.len() > 1 && self.chunks.last().is_some_and(Option::is_none) {
                self.chunks.pop();
                self.open.remove(&(self.chunks.len() as u32));
            }
        }
        value
    }

    /// Sets the deadline of `key`; [`Moment::NEVER`] unsets it.
    pub fn arm(&mut self, key: Key, deadline: Moment) {
        match self.entry_mut(key.slot) {
            Some(entry) if entry.generation == key.generation => {
                if entry.deadline == deadline {
                    return;
                }
                entry.deadline = deadline;
            }
            _ => return,
        }
        self.disarm(key.slot);
        if deadline != Moment::NEVER {
            self.link(key.slot, deadline);
        }
    }

    /// Takes one entry whose deadline has come out of the wheel; call until `None`.
    pub fn expire(&mut self, now: Moment) -> Option<Key> {
        let target = now.0 / TICK;
        loop {
            let slot = self.heads[0][(self.tick & 63) as usize];
            if slot != NIL {
                self.disarm(slot);
                let entry = self.entry_mut(slot)?;
                entry.deadline = Moment::NEVER;
                return Some(Key { slot, generation: entry.generation });
            }
            if self.tick >= target {
                return None;
            }
            self.advance(target);
        }
    }

    /// When [`TimedSlab::expire`] should be called next; may be earlier than the next deadline, never later.
    pub fn poll_timeout(&self) -> Option<Moment> {
        // A higher level may hold what comes first: it moves down only when its turn comes.
        let place = |level: usize| {
            let shift = 6 * level as u32;
            let here = ((self.tick >> shift) & 63) as u32;
            let ahead = u64::from(self.occupied[level].rotate_right(here).trailing_zeros());
            (((self.tick >> shift) + ahead) << shift).max(self.tick)
        };
        (0..LEVELS).filter(|level| self.occupied[*level] != 0).map(place).min().map(|tick| Moment(tick * TICK))
    }

    /// Every live key, in no order that means anything.
    pub fn keys(&self) -> Vec<Key> {
        let entries = self.chunks.iter().enumerate().filter_map(|(i, c)| c.as_ref().map(|c| (i, c)));
        let live = |(i, c): (usize, &Chunk<T>)| -> Vec<Key> {
            let key = |(n, e): (usize, &Entry<T>)| Key { slot: i as u32 * CHUNK + n as u32, generation: e.generation };
            c.entries.iter().enumerate().filter(|(_, e)| e.value.is_some()).map(key).collect()
        };
        entries.flat_map(live).collect()
    }

    fn entry_mut(&mut self, slot: u32) -> Option<&mut Entry<T>> {
        self.chunks.get_mut((slot / CHUNK) as usize)?.as_mut()?.entries.get_mut((slot % CHUNK) as usize)
    }

    fn advance(&mut self, target: u64) {
        // Without entries on the lowest level nothing can happen before its next turn.
        self.tick = if self.occupied[0] == 0 { ((self.tick | 63) + 1).min(target) } else { self.tick + 1 };
        for level in 1..LEVELS {
            let shift = 6 * level as u32;
            if self.tick & ((1 << shift) - 1) != 0 {
                return;
            }
            let place = ((self.tick >> shift) & 63) as usize;
            let mut slot = self.heads[level][place];
            while slot != NIL {
                let Some(entry) = self.entry_mut(slot) else { break };
                let (next, deadline) = (entry.next, entry.deadline);
                self.disarm(slot);
                self.link(slot, deadline);
                slot = next;
            }
        }
    }

    fn link(&mut self, slot: u32, deadline: Moment) {
        let tick = deadline.0.div_ceil(TICK).max(self.tick);
        let distance = tick - self.tick;
        // A level holds what is less than 63 turns away, so that its current place is empty but for the lowest level.
        let level = (0..LEVELS - 1).find(|level| (tick >> (6 * level)) - (self.tick >> (6 * level)) < 64).unwrap_or(LEVELS - 1);
        let shift = 6 * level as u32;
        let tick = if level == LEVELS - 1 { self.tick + distance.min(63 << shift) } else { tick };
        let place = ((tick >> shift) & 63) as usize;
        let head = self.heads[level][place];
        self.heads[level][place] = slot;
        self.occupied[level] |= 1 << place;
        if let Some(entry) = self.entry_mut(slot) {
            entry.bucket = (level * 64 + place) as u16;
            entry.previous = NIL;
            entry.next = head;
        }
        if head != NIL
            && let Some(entry) = self.entry_mut(head)
        {
            entry.previous = slot;
        }
    }

    fn disarm(&mut self, slot: u32) {
        let Some(entry) = self.entry_mut(slot) else { return };
        if entry.bucket == UNARMED {
            return;
        }
        let (level, place) = (usize::from(entry.bucket) / 64, usize::from(entry.bucket) % 64);
        let (next, previous) = (entry.next, entry.previous);
        entry.bucket = UNARMED;
        (entry.next, entry.previous) = (NIL, NIL);
        if previous == NIL {
            self.heads[level][place] = next;
            if next == NIL {
                self.occupied[level] &= !(1 << place);
            }
        } else if let Some(entry) = self.entry_mut(previous) {
            entry.next = next;
        }
        if next != NIL
            && let Some(entry) = self.entry_mut(next)
        {
            entry.previous = previous;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{milliseconds, seconds};
    use proptest::prelude::*;

    #[test]
    fn memory_is_given_back_and_keys_die_with_their_entry() {
        let mut slab = TimedSlab::new(10_000, Moment(0));
        let keys: Vec<_> = (0..5_000).map(|i| slab.insert(i).unwrap()).collect();
        for key in &keys {
            assert!(slab.remove(*key).is_some());
        }
        assert_eq!((slab.len(), slab.chunks.len()), (0, 1));
        let again = slab.insert(7).unwrap();
        assert!(slab.get(keys[0]).is_none() && slab.get(again) == Some(&7));
    }

    #[test]
    fn a_full_table_refuses() {
        let mut slab = TimedSlab::new(1, Moment(0));
        assert!(slab.insert(1).is_some() && slab.insert(2).is_none());
    }

    proptest! {
        #[test]
        fn every_deadline_fires_once_not_early_and_within_two_ticks(delays in proptest::collection::vec(0u64..100_000_000, 1..60)) {
            let mut slab = TimedSlab::new(1_000, Moment(123_456));
            let start = Moment(123_456);
            for delay in &delays {
                let key = slab.insert(start + *delay).unwrap();
                slab.arm(key, start + milliseconds(77));
                slab.arm(key, start + *delay);
            }
            let mut now = start;
            let mut fired = 0;
            while now.since(start) < seconds(120) {
                now = slab.poll_timeout().map_or(now + seconds(1), |next| next.max(now + 1));
                let mut due = Vec::new();
                while let Some(key) = slab.expire(now) { due.push(key); }
                for key in due {
                    let deadline = slab.remove(key).unwrap();
                    prop_assert!(deadline <= now, "early");
                    prop_assert!(now.since(deadline) <= 2 * TICK, "late by {}", now.since(deadline));
                    fired += 1;
                }
            }
            prop_assert_eq!(fired, delays.len());
            prop_assert!(slab.poll_timeout().is_none());
        }
    }
}
