//! Nonces that keep no state until they were used with success (RFC 7616 section 3.3).
//!
//! A nonce says when and by which worker it was made, under a MAC of the process. Only whoever answered one rightly gets an
//! entry in [`NonceWindows`], so that a flood of requests without credentials costs no memory.

use crate::secret::mac;
use crate::token::{read_hex, same, write_hex};
use crate::{Moment, Secret};

const VERSION: u8 = 2;
const FIELDS: usize = 14;
const BYTES: usize = FIELDS + 8;
/// Entries of one bucket.
const WAYS: usize = 4;
/// Counts behind the highest that may still come: requests overtake each other.
const BEHIND: u32 = 64;

/// A nonce of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce {
    /// The worker that made it, and keeps its count.
    pub worker: u8,
    /// When.
    pub made: Moment,
    /// Tells those of one moment apart.
    pub number: u32,
}

/// Whether a nonce may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonceState {
    /// It may.
    Fresh(Nonce),
    /// It is too old, of another worker or process, or not of our making: its sender should answer another one.
    Stale,
}

impl Nonce {
    fn fields(self) -> [u8; FIELDS] {
        let mut fields = [0; FIELDS];
        fields[0] = VERSION;
        fields[1] = self.worker;
        fields[2..10].copy_from_slice(&self.made.0.to_be_bytes());
        fields[10..].copy_from_slice(&self.number.to_be_bytes());
        fields
    }

    fn seal(secret: &Secret, place: &[u8], fields: &[u8]) -> [u8; 8] {
        ((mac(secret, &[b"nonce", place, fields]) >> 64) as u64).to_be_bytes()
    }

    /// Appends the sealed nonce as text; only from `place` it may be answered.
    pub fn write(self, secret: &Secret, place: &[u8], out: &mut Vec<u8>) {
        let fields = self.fields();
        write_hex(&fields, out);
        write_hex(&Self::seal(secret, place, &fields), out);
    }

    /// Reads a nonce back; one of `worker` and for `place` that is not older than `age` microseconds is fresh.
    pub fn read(text: &[u8], secret: &Secret, place: &[u8], worker: u8, now: Moment, age: u64) -> NonceState {
        let Some(bytes) = read_hex::<BYTES>(text) else { return NonceState::Stale };
        let (fields, seal) = bytes.split_at(FIELDS);
        if fields[0] != VERSION || !same(&Self::seal(secret, place, fields), seal) {
            return NonceState::Stale;
        }
        let mut made = [0; 8];
        made.copy_from_slice(&fields[2..10]);
        let nonce =
            Self { worker: fields[1], made: Moment(u64::from_be_bytes(made)), number: u32::from_be_bytes([fields[10], fields[11], fields[12], fields[13]]) };
        if nonce.worker != worker || now.since(nonce.made) > age { NonceState::Stale } else { NonceState::Fresh(nonce) }
    }
}

/// How one use of a nonce stands to those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It is new.
    New,
    /// The last request came again: the very same bytes of Call-ID, CSeq and branch.
    Again,
    /// It was used already, or what is known of it is gone.
    Spent,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    made: u64,
    number: u32,
    highest: u32,
    /// Counts below the highest that came, the next lower one at bit 0.
    seen: u64,
    last: u32,
}

#[derive(Clone, Copy, Default)]
struct Bucket {
    entries: [Entry; WAYS],
    /// Nonces made before had to make room: what is not found of them is spent.
    floor: u64,
}

/// Counts of nonces that were answered rightly; of a fixed size, so that nothing makes it grow.
pub struct NonceWindows {
    buckets: Vec<Bucket>,
}

impl NonceWindows {
    /// Room for `entries` nonces in use at once, at least; it is taken when the first one is.
    pub const fn new() -> Self {
        Self { buckets: Vec::new() }
    }

    /// Makes room for `entries` nonces; what was known is forgotten where that changes, and then every nonce made up to `now` is spent.
    pub fn resize(&mut self, entries: usize, now: Moment) {
        let buckets = entries.div_ceil(WAYS).next_power_of_two();
        if self.buckets.len() != buckets {
            let floor = if self.buckets.is_empty() { 0 } else { now.0 + 1 };
            self.buckets = vec![Bucket { floor, ..Bucket::default() }; buckets];
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.buckets.len() * size_of::<Bucket>()
    }

    /// Notes that `nonce` was used with `count` (0 where the client does not count: then once only) by the request that `request` tells.
    pub fn take(&mut self, nonce: Nonce, count: u32, request: u32) -> Use {
        if self.buckets.is_empty() {
            return Use::Spent;
        }
        let place = (nonce.made.0 ^ u64::from(nonce.number).rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let index = place as usize & (self.buckets.len() - 1);
        let bucket = &mut self.buckets[index];
        let known = bucket.entries.iter_mut().find(|entry| entry.made == nonce.made.0 && entry.number == nonce.number && entry.highest > 0);
        // One that is not counted is used up by its first use.
        let count = if count == 0 { u32::MAX } else { count };
        if let Some(entry) = known {
            return entry.take(count, request);
        }
        if nonce.made.0 < bucket.floor {
            return Use::Spent;
        }
        let fresh = Entry { made: nonce.made.0, number: nonce.number, highest: count, seen: 0, last: request };
        // The oldest makes room.
        if let Some(oldest) = bucket.entries.iter_mut().min_by_key(|entry| (entry.highest > 0, entry.made)) {
            if oldest.highest > 0 {
                if oldest.made > nonce.made.0 {
                    return Use::Spent;
                }
                bucket.floor = bucket.floor.max(oldest.made + 1);
            }
            *oldest = fresh;
        }
        Use::New
    }
}

impl Default for NonceWindows {
    fn default() -> Self {
        Self::new()
    }
}

impl Entry {
    fn take(&mut self, count: u32, request: u32) -> Use {
        if request == self.last {
            return Use::Again;
        }
        if count > self.highest {
            let ahead = count - self.highest;
            self.seen = if ahead > BEHIND { 0 } else { self.seen.checked_shl(ahead).unwrap_or(0) | 1 << (ahead - 1) };
            self.highest = count;
        } else {
            let behind = self.highest - count;
            if behind == 0 || behind > BEHIND || self.seen & 1 << (behind - 1) != 0 {
                return Use::Spent;
            }
            self.seen |= 1 << (behind - 1);
        }
        self.last = request;
        Use::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seconds;

    const SECRET: Secret = Secret::new([9; 16]);

    fn nonce(made: u64, number: u32) -> Nonce {
        Nonce { worker: 1, made: Moment(made), number }
    }

    fn windows(entries: usize) -> NonceWindows {
        let mut windows = NonceWindows::new();
        windows.resize(entries, Moment(0));
        windows
    }

    #[test]
    fn a_nonce_is_fresh_for_its_time_and_on_its_worker_only() {
        let mut text = Vec::new();
        nonce(seconds(100), 7).write(&SECRET, b"here", &mut text);
        let read = |text: &[u8], worker, at| Nonce::read(text, &SECRET, b"here", worker, Moment(seconds(at)), seconds(30));
        assert_eq!(read(&text, 1, 130), NonceState::Fresh(nonce(seconds(100), 7)));
        assert_eq!(read(&text.to_ascii_uppercase(), 1, 130), NonceState::Fresh(nonce(seconds(100), 7)));
        assert_eq!((read(&text, 1, 131), read(&text, 2, 100), read(b"x", 1, 100)), (NonceState::Stale, NonceState::Stale, NonceState::Stale));
        assert_eq!(Nonce::read(&text, &SECRET, b"elsewhere", 1, Moment(seconds(110)), seconds(30)), NonceState::Stale);
        for at in 0..text.len() {
            let mut forged = text.clone();
            forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(read(&forged, 1, 110), NonceState::Stale, "digit {at}");
        }
    }

    #[test]
    fn a_count_serves_once_in_any_near_order() {
        let mut windows = windows(16);
        let uses: Vec<Use> = [1, 3, 2, 2, 3, 200, 136, 135, 137, 137]
            .into_iter()
            .enumerate()
            .map(|(request, count)| windows.take(nonce(5, 5), count, request as u32 + 1))
            .collect();
        assert_eq!(uses, [Use::New, Use::New, Use::New, Use::Spent, Use::Spent, Use::New, Use::New, Use::Spent, Use::New, Use::Spent]);
    }

    #[test]
    fn the_last_count_of_a_full_window_is_remembered() {
        let mut windows = windows(16);
        let uses = [1, 65, 1, 66, 2].map(|count| windows.take(nonce(5, 5), count, count * 10 + u32::from(count == 1)));
        assert_eq!(uses[..3], [Use::New, Use::New, Use::Spent]);
        assert_eq!(uses[3..], [Use::New, Use::New]);
    }

    #[test]
    fn a_retransmission_is_told_from_a_second_use() {
        let mut windows = windows(16);
        assert_eq!(windows.take(nonce(5, 5), 1, 77), Use::New);
        assert_eq!(windows.take(nonce(5, 5), 1, 77), Use::Again);
        assert_eq!(windows.take(nonce(5, 5), 1, 78), Use::Spent);
    }

    #[test]
    fn one_without_a_count_serves_once() {
        let mut windows = windows(16);
        assert_eq!((windows.take(nonce(5, 5), 0, 1), windows.take(nonce(5, 5), 0, 2)), (Use::New, Use::Spent));
        assert_eq!(windows.take(nonce(5, 5), 1, 3), Use::Spent);
    }

    #[test]
    fn what_made_room_cannot_be_used_again() {
        let mut windows = windows(4);
        for number in 0..100 {
            assert_eq!(windows.take(nonce(1_000 + u64::from(number), number), 1, number + 1), Use::New);
        }
        let again = |number: u32| windows.take(nonce(1_000 + u64::from(number), number), 1, 500);
        assert!((0..100).map(again).all(|used| used == Use::Spent));
    }
}
