//! Counts of many keys, each in a fixed window from its first hit on: so many failures in a minute.
//!
//! One word holds a key's tag, the start of its window and its count, so that a single compare-and-swap is exact however many
//! workers count. The table never grows: where a bucket is full, the key with the fewest hits makes room.

use std::sync::atomic::{AtomicU64, Ordering};

const WAYS: usize = 8;
const COUNT_BITS: u32 = 16;
const TIME_BITS: u32 = 24;
const MOST: u64 = (1 << COUNT_BITS) - 1;
const TIME: u64 = (1 << TIME_BITS) - 1;

/// Counts by key. Keys are outputs of a keyed hash: nobody can aim at another's place.
#[derive(Debug)]
pub struct WindowCounts {
    places: Box<[AtomicU64]>,
}

/// A word taken apart.
#[derive(Clone, Copy)]
struct Word {
    tag: u64,
    start: u64,
    count: u64,
}

impl Word {
    const fn of(word: u64) -> Self {
        Self { tag: word >> (COUNT_BITS + TIME_BITS), start: word >> COUNT_BITS & TIME, count: word & MOST }
    }

    const fn pack(self) -> u64 {
        self.tag << (COUNT_BITS + TIME_BITS) | self.start << COUNT_BITS | self.count
    }

    /// Hits in a window of `seconds` that is not over at `now`. The clock's 24 bits go round in 194 days.
    fn hits(self, now: u32, seconds: u32) -> u64 {
        if (u64::from(now).wrapping_sub(self.start) & TIME) < u64::from(seconds) { self.count } else { 0 }
    }
}

impl WindowCounts {
    /// A table for about `keys` keys; it holds eight bytes for each.
    pub fn new(keys: usize) -> Self {
        let places = keys.max(WAYS).next_power_of_two();
        Self { places: (0..places).map(|_| AtomicU64::new(0)).collect() }
    }

    fn bucket(&self, key: u64) -> (&[AtomicU64], u64) {
        let start = (key as usize & (self.places.len() - 1)) & !(WAYS - 1);
        // A tag of 0 would be that of an empty place with no hits, which is never asked for its tag.
        (self.places.get(start..start + WAYS).unwrap_or_default(), key >> (COUNT_BITS + TIME_BITS))
    }

    /// Counts one hit of `key` at `now` seconds and returns how many there are in its window of `seconds`, 65,535 at most.
    pub fn add(&self, key: u64, now: u32, seconds: u32) -> u32 {
        self.add_many(key, 1, now, seconds)
    }

    /// The same for several hits at once.
    pub fn add_many(&self, key: u64, more: u32, now: u32, seconds: u32) -> u32 {
        let (bucket, tag) = self.bucket(key);
        loop {
            let mut words = [0; WAYS];
            words.iter_mut().zip(bucket).for_each(|(word, place)| *word = place.load(Ordering::Acquire));
            let own = words.iter().position(|word| Word::of(*word).tag == tag && Word::of(*word).count > 0);
            let Some(index) = own.or_else(|| (0..words.len()).min_by_key(|index| Word::of(words[*index]).hits(now, seconds))) else { return 0 };
            let hits = if own.is_some() { Word::of(words[index]).hits(now, seconds) } else { 0 };
            let start = if hits == 0 { u64::from(now) & TIME } else { Word::of(words[index]).start };
            let next = Word { tag, start, count: (hits + u64::from(more)).min(MOST) };
            if bucket[index].compare_exchange(words[index], next.pack(), Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return next.count as u32;
            }
        }
    }

    /// Hits of `key` in its window of `seconds` at `now`.
    pub fn get(&self, key: u64, now: u32, seconds: u32) -> u32 {
        let (bucket, tag) = self.bucket(key);
        let words = bucket.iter().map(|place| Word::of(place.load(Ordering::Acquire)));
        words.filter(|word| word.tag == tag).map(|word| word.hits(now, seconds) as u32).max().unwrap_or(0)
    }

    /// Takes back so many hits of `key`, all but one of them at most: its window goes on.
    pub fn take_back(&self, key: u64, hits: u32) {
        let (bucket, tag) = self.bucket(key);
        for place in bucket {
            let less = |word: u64| {
                let known = Word::of(word);
                (known.tag == tag && known.count > 1).then(|| Word { count: known.count.saturating_sub(u64::from(hits)).max(1), ..known }.pack())
            };
            // One that is another key's stays as it is.
            let _ = place.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        }
    }

    /// Forgets the hits of `key`.
    pub fn clear(&self, key: u64) {
        let (bucket, tag) = self.bucket(key);
        for place in bucket {
            let word = place.load(Ordering::Acquire);
            // Whoever counts at this moment counts after.
            if Word::of(word).tag == tag && word & MOST > 0 {
                let _ = place.compare_exchange(word, 0, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const KEY: u64 = 0xdead_beef_0123_4567;

    #[test]
    fn a_window_is_fixed_from_its_first_hit() {
        let counts = WindowCounts::new(64);
        assert_eq!([100, 130, 159].map(|now| counts.add(KEY, now, 60)), [1, 2, 3]);
        assert_eq!((counts.get(KEY, 159, 60), counts.get(KEY, 160, 60)), (3, 0));
        assert_eq!(counts.add(KEY, 160, 60), 1);
        assert_eq!(counts.add_many(KEY, 9, 161, 60), 10);
        counts.take_back(KEY, 4);
        assert_eq!(counts.get(KEY, 161, 60), 6);
        counts.take_back(KEY, 40);
        assert_eq!((counts.get(KEY, 219, 60), counts.get(KEY, 220, 60)), (1, 0));
        counts.clear(KEY);
        assert_eq!((counts.get(KEY, 160, 60), counts.add(KEY, 161, 60)), (0, 1));
    }

    #[test]
    fn who_has_many_hits_is_not_pushed_out_by_a_flood_of_others() {
        let counts = WindowCounts::new(8);
        for _ in 0..20 {
            counts.add(KEY, 1, 60);
        }
        for other in 1..10_000u64 {
            counts.add(other << 40, 2, 60);
        }
        assert_eq!(counts.get(KEY, 3, 60), 20);
    }

    #[test]
    fn many_threads_at_once_lose_no_hit() {
        let counts = WindowCounts::new(1_024);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..5_000).map(|_| counts.add(KEY, 5, 60)).max());
            }
        });
        assert_eq!(counts.get(KEY, 5, 60), 20_000);
    }
}
