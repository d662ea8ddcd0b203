//! Keys that the network must not guess, and the hash that uses them.

use std::hash::Hasher;

use siphasher::sip128::{Hasher128, SipHasher13, SipHasher24};

/// A 128-bit key. Its bytes are shown to nobody: `Debug` prints none of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret([u8; 16]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// The key with these bytes.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its bytes, for a cipher of this crate.
    pub(crate) const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// A fresh key from the operating system.
    ///
    /// # Errors
    /// Where the operating system has no randomness to give.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(bytes))
    }
}

/// A keyed hash of `parts` for tables and branches (SipHash-1-3, 128 bits): quick, and not to be steered by senders.
pub fn keyed_hash(secret: &Secret, parts: &[&[u8]]) -> u128 {
    let mut hasher = SipHasher13::new_with_key(&secret.0);
    feed(&mut hasher, parts);
    hasher.finish128().as_u128()
}

/// A MAC over `parts` (SipHash-2-4, 128 bits): what may be believed because nobody else can make it.
pub(crate) fn mac(secret: &Secret, parts: &[&[u8]]) -> u128 {
    let mut hasher = SipHasher24::new_with_key(&secret.0);
    feed(&mut hasher, parts);
    hasher.finish128().as_u128()
}

/// Each part is closed by its length, so that none runs into the next.
fn feed(hasher: &mut impl Hasher, parts: &[&[u8]]) {
    for part in parts {
        hasher.write(part);
        hasher.write(&(part.len() as u32).to_le_bytes());
    }
}

/// A number for `text` that is the same in every process: what outlives a restart names things by it, or by its lower half.
pub fn stable_id(text: &str) -> u32 {
    keyed_hash(&Secret([0; 16]), &[text.as_bytes()]) as u32
}
