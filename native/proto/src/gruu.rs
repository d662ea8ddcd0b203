//! Names of a device that say nothing of its user (RFC 5627 section 3.1.2): temporary GRUUs. Nothing is kept of them. One says, sealed
//! and unreadable, whose it is and by which registration it came; another registration of the device makes it void.

use aes_siv::aead::KeyInit;
use aes_siv::siv::Aes128Siv;
use data_encoding::BASE32_DNSSEC;
use sha2::{Digest, Sha256};

use crate::{Secret, keyed_hash};

/// How the user part begins.
const MARK: &[u8] = b"tgruu.";
const VERSION: u8 = 1;
const SALT: usize = 4;
const DEVICE: usize = 8;

/// What a temporary GRUU says to us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemporaryGruu {
    /// The address of record.
    pub aor: Vec<u8>,
    /// The device, by [`TemporaryGruu::device`].
    pub device: u64,
}

impl TemporaryGruu {
    /// What stands for a device with this instance, as registered by the REGISTERs of this Call-ID.
    pub fn device(secret: &Secret, instance: &[u8], call_id: &[u8]) -> u64 {
        keyed_hash(secret, &[b"gruu device", instance, call_id]) as u64
    }

    /// AES-SIV wants twice the key that we have.
    fn cipher(secret: &Secret) -> Aes128Siv {
        let key = Sha256::new().chain_update(b"gruu").chain_update(secret.bytes()).finalize();
        Aes128Siv::new(&key)
    }

    /// Appends the user part; `salt` makes it another one each time, so that two of them tell nobody that they are of one user.
    pub fn write(&self, secret: &Secret, salt: u32, out: &mut Vec<u8>) {
        let mut plain = Vec::with_capacity(1 + SALT + DEVICE + self.aor.len());
        plain.push(VERSION);
        plain.extend_from_slice(&salt.to_be_bytes());
        plain.extend_from_slice(&self.device.to_be_bytes());
        plain.extend_from_slice(&self.aor);
        // It fails for texts of many gigabytes only.
        let Ok(sealed) = Self::cipher(secret).encrypt([&b""[..]; 0], &plain) else { return };
        out.extend_from_slice(MARK);
        // Elements between us may change the case of a user part.
        out.extend_from_slice(BASE32_DNSSEC.encode(&sealed).as_bytes());
    }

    /// Reads a user part back; `None` for one that is none of ours.
    pub fn read(user: &[u8], secret: &Secret) -> Option<Self> {
        let (mark, text) = user.split_at_checked(MARK.len())?;
        if !mark.eq_ignore_ascii_case(MARK) {
            return None;
        }
        let sealed = BASE32_DNSSEC.decode(text).ok()?;
        let plain = Self::cipher(secret).decrypt([&b""[..]; 0], &sealed).ok()?;
        let (version, rest) = plain.split_first()?;
        let (device, aor) = rest.get(SALT..)?.split_first_chunk::<DEVICE>()?;
        (*version == VERSION).then(|| Self { aor: aor.to_vec(), device: u64::from_be_bytes(*device) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: Secret = Secret::new([9; 16]);

    fn text(salt: u32) -> Vec<u8> {
        let gruu = TemporaryGruu { aor: b"alice@voice.example".to_vec(), device: TemporaryGruu::device(&SECRET, b"<urn:uuid:1>", b"call") };
        let mut out = Vec::new();
        gruu.write(&SECRET, salt, &mut out);
        out
    }

    #[test]
    fn it_comes_back_in_any_case_and_says_nothing_to_others() {
        let one = text(1);
        let read = TemporaryGruu::read(&one.to_ascii_uppercase(), &SECRET).unwrap();
        assert_eq!((read.aor.as_slice(), read.device), (&b"alice@voice.example"[..], TemporaryGruu::device(&SECRET, b"<urn:uuid:1>", b"call")));
        assert!(memchr::memmem::find(&one, b"alice").is_none() && one.len() < 100, "{}", one.len());
        // Nothing but their beginning tells two of one user from those of two users.
        let same = one.iter().zip(&text(2)).filter(|(a, b)| a == b).count();
        assert!(same < 24, "{same}");
        assert_eq!(TemporaryGruu::read(&one, &Secret::new([8; 16])), None);
    }

    #[test]
    fn no_changed_letter_is_taken() {
        let good = text(1);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] = if bad[at] == b'a' { b'b' } else { b'a' };
            assert_eq!(TemporaryGruu::read(&bad, &SECRET), None, "{at}");
        }
        for text in [&b""[..], b"tgruu.", b"tgruu.a", b"alice"] {
            assert_eq!(TemporaryGruu::read(text, &SECRET), None);
        }
    }
}
