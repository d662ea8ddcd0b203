//! When each of many keys was last seen: which sources have authenticated whom. Of a fixed size: the key that was seen
//! longest ago makes room.

use std::sync::atomic::{AtomicU64, Ordering};

const WAYS: usize = 8;

/// Times by key, in seconds of the monotonic clock. Keys are outputs of a keyed hash.
#[derive(Debug)]
pub struct LastSeen {
    places: Box<[AtomicU64]>,
}

impl LastSeen {
    /// A table for about `keys` keys; it holds eight bytes for each.
    pub fn new(keys: usize) -> Self {
        Self { places: (0..keys.max(WAYS).next_power_of_two()).map(|_| AtomicU64::new(0)).collect() }
    }

    fn bucket(&self, key: u64) -> (&[AtomicU64], u64) {
        let start = (key as usize & (self.places.len() - 1)) & !(WAYS - 1);
        (self.places.get(start..start + WAYS).unwrap_or_default(), key >> 32)
    }

    /// Notes that `key` was seen at `now`, or until then.
    pub fn note(&self, key: u64, now: u32) {
        let (bucket, tag) = self.bucket(key);
        let word = |place: &AtomicU64| place.load(Ordering::Acquire);
        // 0 means never.
        let value = tag << 32 | u64::from(now.max(1));
        loop {
            let own = bucket.iter().map(word).position(|word| word >> 32 == tag && word & 0xffff_ffff > 0);
            let Some(index) = own.or_else(|| (0..bucket.len()).min_by_key(|index| word(&bucket[*index]) & 0xffff_ffff)) else { return };
            let before = word(&bucket[index]);
            if bucket[index].compare_exchange(before, value, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return;
            }
        }
    }

    /// When `key` was last seen.
    pub fn get(&self, key: u64) -> Option<u32> {
        let (bucket, tag) = self.bucket(key);
        bucket.iter().map(|place| place.load(Ordering::Acquire)).filter(|word| word >> 32 == tag && *word as u32 > 0).map(|word| word as u32).max()
    }

    /// Forgets `key`.
    pub fn forget(&self, key: u64) {
        let (bucket, tag) = self.bucket(key);
        for place in bucket {
            let word = place.load(Ordering::Acquire);
            if word >> 32 == tag {
                // Whoever sees it at this moment sees it after.
                let _ = place.compare_exchange(word, 0, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_time_counts_and_the_oldest_makes_room() {
        let seen = LastSeen::new(8);
        let key = |number: u64| number << 32;
        assert_eq!(seen.get(key(1)), None);
        seen.note(key(1), 5);
        seen.note(key(1), 9);
        assert_eq!(seen.get(key(1)), Some(9));
        (2..10).for_each(|number| seen.note(key(number), 10));
        assert_eq!((seen.get(key(1)), seen.get(key(2)), seen.get(key(9))), (None, Some(10), Some(10)));
        seen.forget(key(2));
        assert_eq!(seen.get(key(2)), None);
    }
}
