//! The walk over all bindings: what has ended goes, and the way to phones behind a NAT is kept open. A few places at a time, spread
//! over the whole interval, so that neither phones nor we see a burst.

use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use proto::{Binding, BranchToken, Key, Moment, Now, keyed_hash, milliseconds, seconds};
use syntax::{HeaderName, Message};

use crate::Snapshot;
use crate::edge::Edge;
use crate::hop::Hop;
use crate::location_write::row_number;
use crate::subscriber_settings::KeepAlive;

/// All bindings are looked at for their end so often, or where there are many as often as a pace of so many a second allows: each look
/// misses the cache twice, and what is late is the event alone, since nobody is led to a binding that has ended.
const EXPIRY_ROUND: u64 = seconds(4);
const LONGEST_EXPIRY_ROUND: u64 = seconds(30);
const EXPIRY_PACE: u64 = 50_000;
/// Between two steps.
const STEP: u64 = milliseconds(10);
/// Places in one step, so that none takes long; what is left over comes with the next one.
const MOST: usize = 2_048;
/// Places that are looked at for their end at once.
const RUN: usize = 32;
/// The attempt in a branch that tells an OPTIONS of ours from a request under way.
const PING: u8 = u8::MAX;

/// How far a walk has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    place: usize,
    /// When its next place is due.
    due: Moment,
}

impl Walk {
    pub(crate) const fn new(now: Moment) -> Self {
        Self { place: 0, due: now }
    }

    /// The places that are due at `now` in rounds of `round` microseconds over `places`.
    fn step(&mut self, now: Moment, places: usize, round: u64) -> Option<(usize, usize)> {
        if places == 0 {
            self.due = now;
            return None;
        }
        let each = (round / places as u64).max(1);
        let count = (now.since(self.due) / each) as usize;
        let count = count.min(MOST).min(places);
        if count == 0 {
            return None;
        }
        self.due = self.due + each * count as u64;
        // After a pause the walk goes on from where it is, without making up for rounds that were missed.
        if now.since(self.due) > round {
            self.due = now;
        }
        let start = self.place % places;
        self.place = (start + count) % places;
        Some((start, count))
    }
}

/// The `count` places from `start` on, of `places` that begin again behind the last one, in runs that fit a processor's nearest cache.
fn runs(start: usize, count: usize, places: usize) -> impl Iterator<Item = Range<usize>> {
    let first = start..(start + count).min(places);
    let rest = 0..count - first.len();
    [first, rest].into_iter().flat_map(|all| all.clone().step_by(RUN).map(move |from| from..(from + RUN).min(all.end)))
}

/// How often all of so many places are looked at, in microseconds.
fn expiry_round(places: usize) -> u64 {
    (seconds(1) * places as u64 / EXPIRY_PACE).clamp(EXPIRY_ROUND, LONGEST_EXPIRY_ROUND)
}

/// Whether a walk that keeps ways open once in `interval` microseconds looks for ends by the way: where there are so many places that
/// they are not looked at every few seconds anyhow, and it comes round often enough.
fn looks_for_ends(interval: u64, places: usize) -> bool {
    interval <= LONGEST_EXPIRY_ROUND && expiry_round(places) > EXPIRY_ROUND
}

impl Edge {
    /// When the next step of a walk is due.
    pub(crate) fn walk_due(&self) -> Moment {
        if self.users.location.is_empty() { Moment::NEVER } else { self.users.walked_at + STEP }
    }

    /// Goes on with both walks.
    pub(crate) fn walk(&mut self, now: Now) {
        if now.moment < self.walk_due() || self.users.location.is_empty() {
            return;
        }
        self.users.walked_at = now.moment;
        let places = self.users.location.places();
        let keep_alive = self.keep_alive();
        let together = keep_alive.is_some_and(|(_, interval)| looks_for_ends(interval, places));
        if !together && let Some((start, count)) = self.users.expiry.step(now.moment, places, expiry_round(places)) {
            for run in runs(start, count, places) {
                self.expire_in(now, run);
            }
        }
        let Some((keep_alive, interval)) = keep_alive else { return };
        let Some((start, count)) = self.users.pings.step(now.moment, places, interval) else { return };
        let snapshot = Arc::clone(&self.snapshot);
        for run in runs(start, count, places) {
            if together {
                self.expire_in(now, run.clone());
            }
            run.for_each(|place| self.ping_at(now, place, keep_alive, &snapshot));
        }
    }

    /// Ends what has ended at `places`. Hardly ever has any, and a look at all of them at once waits for their memory once.
    fn expire_in(&mut self, now: Now, places: Range<usize>) {
        if self.users.location.any_ended(places.clone(), Self::seconds_of(now)) {
            places.into_iter().for_each(|place| self.expire_at(now, place));
        }
    }

    fn keep_alive(&self) -> Option<(KeepAlive, u64)> {
        let interval = self.snapshot.settings.registrar.as_ref()?.keep_alive.interval_seconds;
        let keep_alive = self.snapshot.subscribers.as_ref()?.keep_alive;
        (keep_alive != KeepAlive::Off).then(|| (keep_alive, seconds(u64::from(interval.max(1)))))
    }

    /// Keeps the ways to the bindings of the record at `place` open.
    fn ping_at(&mut self, now: Now, place: usize, keep_alive: KeepAlive, snapshot: &Snapshot) {
        let Some(settings) = snapshot.settings.registrar.as_ref().map(|registrar| &registrar.keep_alive) else { return };
        let seconds = Self::seconds_of(now);
        // A connection is kept by whoever opened it (RFC 5626 section 4.4.1); one that is gone must not be opened again for this.
        let is_kept = |binding: &Binding| binding.expires > seconds && (binding.natted || !settings.natted_only) && !binding.flow.transport.is_reliable();
        let lost = settings.most_lost;
        let is_dead = |binding: &Binding| keep_alive == KeepAlive::Options && lost > 0 && binding.lost >= lost && is_kept(binding);
        let Some(record) = self.users.location.at_mut(place) else { return };
        if record.bindings.iter().any(is_dead) {
            // Before the others are asked, whose answers find them by their places.
            let aor = record.aor().to_vec();
            let gone = self.remove_those(now, &aor, is_dead);
            self.counters.bindings_dead.add_many(gone as u64);
        }
        let Some(record) = self.users.location.at_mut(place) else { return };
        for index in 0..record.bindings.len() {
            let binding = &mut record.bindings[index];
            if !is_kept(binding) {
                continue;
            }
            let hop = Hop::of_flow(&binding.flow);
            if hop.address.port() == 0 {
                continue;
            }
            self.counters.keep_alives_sent.add();
            if keep_alive == KeepAlive::LineEnds {
                self.out.send(hop, b"\r\n\r\n");
                continue;
            }
            binding.lost = binding.lost.saturating_add(1);
            let mark = ping_mark(record.aor(), index, &record.bindings[index]);
            let token = BranchToken {
                node: self.node_id,
                worker: self.options.worker,
                attempt: PING,
                transaction: Key { slot: place as u32, generation: mark },
                cookie: keyed_hash(&self.options.process_secret, &[b"ping", &place.to_le_bytes(), &mark.to_le_bytes()]) as u32,
                loop_hash: 0,
            };
            let contact = record.bindings[index].contact();
            self.out.send_with(hop, |out| write_options(out, snapshot, hop, &token, contact, now));
        }
    }

    /// Whether `message` answers an OPTIONS that keeps a way open; then it is dealt with.
    pub(crate) fn ping_answered(&mut self, message: &Message<'_>) -> bool {
        let Some(token) = BranchToken::read(message.text(message.head.via.branch)).filter(|token| token.attempt == PING && token.node == self.node_id) else {
            return false;
        };
        let Key { slot, generation } = token.transaction;
        let cookie = keyed_hash(&self.options.process_secret, &[b"ping", &(slot as usize).to_le_bytes(), &generation.to_le_bytes()]) as u32;
        if cookie != token.cookie || message.first(HeaderName::Via).is_none() {
            return false;
        }
        let code = message.head.status_code;
        let dead = self.snapshot.settings.registrar.as_ref().is_some_and(|registrar| registrar.keep_alive.dead_codes.contains(&code));
        if code >= 200 && !dead {
            self.counters.keep_alives_answered.add();
            if let Some(record) = self.users.location.at_mut(slot as usize) {
                let index = (generation & 0xff) as usize;
                let same = record.bindings.get(index).is_some_and(|binding| ping_mark(record.aor(), index, binding) == generation);
                if same {
                    record.bindings[index].lost = 0;
                }
            }
        }
        true
    }
}

/// Tells the bindings of one place apart from those that had it before; its low byte is the index.
fn ping_mark(aor: &[u8], index: usize, binding: &Binding) -> u32 {
    (row_number(aor, binding) as u32) << 8 | index.min(0xff) as u32
}

fn write_options(out: &mut Vec<u8>, snapshot: &Snapshot, hop: Hop, token: &BranchToken, contact: &[u8], now: Now) {
    let sent_by = snapshot.sent_by(hop.listener);
    out.extend_from_slice(b"OPTIONS ");
    out.extend_from_slice(contact);
    out.extend_from_slice(b" SIP/2.0\r\nVia: SIP/2.0/");
    out.extend_from_slice(hop.transport.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(sent_by);
    out.extend_from_slice(b";branch=");
    token.write(out);
    // Writing to a Vec cannot fail.
    let mark = token.transaction.generation;
    let _ = write!(out, "\r\nMax-Forwards: 70\r\nFrom: <sip:keep-alive@");
    out.extend_from_slice(sent_by);
    let _ = write!(out, ">;tag={mark:08x}\r\nTo: <");
    out.extend_from_slice(contact);
    let _ = write!(out, ">\r\nCall-ID: keep-alive-{:x}-{mark:08x}@", now.moment.0);
    out.extend_from_slice(sent_by);
    out.extend_from_slice(b"\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_visits_each_place_once_in_a_round_and_evenly() {
        let mut walk = Walk::new(Moment(0));
        let mut visits = vec![0; 1_000];
        let mut longest = 0;
        let round = seconds(30);
        for step in 1..=3_000u64 {
            if let Some((start, count)) = walk.step(Moment(step * STEP), visits.len(), round) {
                (0..count).for_each(|index| visits[(start + index) % 1_000] += 1);
                longest = longest.max(count);
            }
        }
        assert_eq!((visits.iter().min(), visits.iter().max(), longest), (Some(&1), Some(&1), 1));
    }

    #[test]
    fn the_more_bindings_the_slower_they_are_looked_at_for_their_end_within_bounds() {
        assert_eq!([0, 1_000, 200_000, 500_000, 1_000_000, 10_000_000].map(|places| expiry_round(places) / seconds(1)), [4, 4, 4, 10, 20, 30]);
    }

    #[test]
    fn whoever_is_kept_open_often_enough_is_looked_at_once_for_both() {
        let of = |interval: u64, places: usize| looks_for_ends(seconds(interval), places);
        assert_eq!([of(30, 1_000_000), of(20, 250_000), of(31, 1_000_000), of(30, 200_000)], [true, true, false, false]);
    }

    #[test]
    fn runs_are_of_all_places_and_short() {
        for (start, count, places) in [(0, 1, 1), (90, 70, 100), (99, 100, 100), (10, 64, 100), (5, 0, 9)] {
            let found: Vec<Range<usize>> = runs(start, count, places).collect();
            let expected: Vec<usize> = (0..count).map(|step| (start + step) % places).collect();
            assert!(found.iter().all(|run| (1..=RUN).contains(&run.len())), "{found:?}");
            assert_eq!(found.into_iter().flatten().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn after_a_pause_nothing_is_made_up_for() {
        let mut walk = Walk::new(Moment(0));
        let (_, count) = walk.step(Moment(seconds(3_600)), 1_000, seconds(30)).unwrap();
        assert_eq!(count, 1_000);
        assert_eq!(walk.step(Moment(seconds(3_600)) + STEP, 1_000, seconds(30)), None);
    }
}
