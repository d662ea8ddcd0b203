//! Finds a server transaction by its key.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::Key;

const SHARDS: usize = 64;

/// The keys are outputs of a keyed hash already; hashing them again would buy nothing.
#[derive(Default)]
struct TakeLow(u64);

impl Hasher for TakeLow {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 ^= u64::from_le_bytes(word);
        }
    }
    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }
}

type Shard = HashMap<u128, Key, BuildHasherDefault<TakeLow>>;

/// A map from transaction key to entry. It grows in 64 parts, so that no growth halts a worker for longer than a
/// 64th of the table takes (one table of 260,000 entries would stop it for some 5 ms).
pub struct TransactionIndex {
    shards: Vec<Shard>,
}

impl Default for TransactionIndex {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect() }
    }
}

impl TransactionIndex {
    fn shard(key: u128) -> usize {
        (key >> 96) as usize % SHARDS
    }

    /// The entry of `key`.
    pub fn get(&self, key: u128) -> Option<Key> {
        self.shards[Self::shard(key)].get(&key).copied()
    }

    /// Remembers `entry` under `key`.
    pub fn insert(&mut self, key: u128, entry: Key) {
        self.shards[Self::shard(key)].insert(key, entry);
    }

    /// Forgets `key` where it still names `entry`.
    pub fn remove(&mut self, key: u128, entry: Key) {
        let shard = &mut self.shards[Self::shard(key)];
        if shard.get(&key) == Some(&entry) {
            shard.remove(&key);
        }
    }

    /// Gives back what a past load needed; cheap enough to call every second.
    pub fn shrink(&mut self) {
        for shard in &mut self.shards {
            if shard.capacity() > 256 && shard.capacity() / 8 > shard.len() {
                shard.shrink_to(shard.len() * 2);
            }
        }
    }
}
