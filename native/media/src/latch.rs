//! Where a port's packets come from and go to: learnt from what comes in, since a NAT shows nobody else where a phone really
//! is (RFC 4961, RFC 7362), and from nobody who could not be it.
//!
//! Believing any first packet is what "RTP bleed" lives from: whoever sends to all ports of a relay gets the calls' media, or
//! puts its own in. So a source must have an address that the signalling knows, and once it was heard it is the only one, until
//! it has been silent for a while or the signalling moves it.

use std::net::{IpAddr, SocketAddr};

/// Whose packets are believed before anybody was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learning {
    /// Only the address and port of the SDP.
    Never,
    /// Any port of the SDP's address, or of the one that the signalling came from.
    Known,
    /// Anybody's: for networks where media and signalling leave a NAT by different addresses.
    Any,
}

/// A source may move so often between two descriptions.
const MOVES: u8 = 8;
/// For so long after the first packet the very place of the SDP may still take over, in microseconds: what came first may
/// have been a leftover of an earlier call.
const SETTLING: u64 = 1_000_000;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is from where all are from.
    Known,
    /// It is the first one, or the first after a move.
    Learnt,
    /// It was under way when the far end moved.
    Late,
    /// It is from somebody else.
    Refused,
}

/// One port's far end.
#[derive(Clone, Debug)]
pub(crate) struct Latch {
    expected: Option<SocketAddr>,
    signalled: Option<IpAddr>,
    learnt: Option<SocketAddr>,
    /// When its source was last heard.
    heard: u64,
    /// When it was learnt first.
    since: u64,
    moves: u8,
    /// It wants no packets.
    held: bool,
    /// Where it was before the signalling moved it: what is still under way from there opens nothing.
    former: Option<SocketAddr>,
    moved: u64,
}

impl Latch {
    pub(crate) const fn new() -> Self {
        Self { expected: None, signalled: None, learnt: None, heard: 0, since: 0, moves: 0, held: true, former: None, moved: 0 }
    }

    /// The signalling says where the far end is; `None` while it wants nothing. A new place is learnt anew.
    pub(crate) fn expect(&mut self, now: u64, expected: Option<SocketAddr>, signalled: IpAddr) {
        self.held = expected.is_none();
        self.moves = 0;
        if expected.is_some() && (expected, Some(signalled)) != (self.expected, self.signalled) {
            if expected != self.expected {
                (self.former, self.moved) = (self.learnt.take().or(self.former), now);
            }
            (self.expected, self.signalled) = (expected, Some(signalled));
        }
    }

    /// Whether a packet from `source` is taken. One that opens or moves something must be `plausible`.
    pub(crate) fn take(&mut self, now: u64, source: SocketAddr, learning: Learning, relearn_after: u64, plausible: bool) -> Taken {
        if self.learnt == Some(source) {
            self.heard = now;
            return Taken::Known;
        }
        if self.former == Some(source) && self.expected != Some(source) && now.saturating_sub(self.moved) < SETTLING {
            return Taken::Late;
        }
        if !plausible || !self.may_be(source, learning) {
            return Taken::Refused;
        }
        let first = self.learnt.is_none();
        if !first {
            let silent = now.saturating_sub(self.heard) >= relearn_after;
            let settles = Some(source) == self.expected && now.saturating_sub(self.since) < SETTLING;
            if !(silent || settles) || self.moves >= MOVES {
                return Taken::Refused;
            }
            self.moves += 1;
        }
        (self.learnt, self.heard) = (Some(source), now);
        if first {
            self.since = now;
        }
        Taken::Learnt
    }

    fn may_be(&self, source: SocketAddr, learning: Learning) -> bool {
        match learning {
            Learning::Never => self.expected == Some(source),
            Learning::Known => self.expected.is_some_and(|expected| expected.ip() == source.ip()) || self.signalled == Some(source.ip()),
            Learning::Any => self.expected.is_some(),
        }
    }

    /// Where packets for the far end go: where it was heard, else where the signalling says.
    pub(crate) fn target(&self) -> Option<SocketAddr> {
        if self.held { None } else { self.learnt.or(self.expected) }
    }

    /// Whether the signalling has said anything of it.
    pub(crate) fn is_described(&self) -> bool {
        self.expected.is_some()
    }

    /// When its source was last heard, 0 for never.
    pub(crate) fn heard(&self) -> u64 {
        self.heard
    }

    /// Where it was heard.
    pub(crate) fn source(&self) -> Option<SocketAddr> {
        self.learnt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn latch(expected: &str, signalled: &str) -> Latch {
        let mut latch = Latch::new();
        latch.expect(0, Some(at(expected)), signalled.parse().unwrap());
        latch
    }

    fn take(latch: &mut Latch, now: u64, source: &str) -> Taken {
        latch.take(now, at(source), Learning::Known, 2 * SECOND, true)
    }

    #[test]
    fn a_stranger_is_never_heard_whenever_it_comes() {
        let mut latch = latch("10.0.0.5:4000", "203.0.113.9");
        assert_eq!(take(&mut latch, SECOND, "198.51.100.1:4000"), Taken::Refused, "before anybody");
        assert_eq!(take(&mut latch, SECOND, "203.0.113.9:61000"), Taken::Learnt);
        assert_eq!(latch.target(), Some(at("203.0.113.9:61000")), "behind its NAT, not where the SDP says");
        assert_eq!(take(&mut latch, SECOND, "198.51.100.1:4000"), Taken::Refused, "beside it");
        assert_eq!(take(&mut latch, 3_600 * SECOND, "198.51.100.1:4000"), Taken::Refused, "after it fell silent");
    }

    #[test]
    fn a_source_moves_only_after_silence_and_not_for_ever() {
        let mut latch = latch("203.0.113.9:4000", "203.0.113.9");
        assert_eq!(take(&mut latch, 10 * SECOND, "203.0.113.9:1"), Taken::Learnt);
        assert_eq!(take(&mut latch, 11 * SECOND + SECOND / 2, "203.0.113.9:2"), Taken::Refused, "while the other talks");
        for number in 1..=MOVES {
            assert_eq!(take(&mut latch, (10 + 3 * u64::from(number)) * SECOND, &format!("203.0.113.9:{}", 100 + u16::from(number))), Taken::Learnt);
        }
        assert_eq!(take(&mut latch, 600 * SECOND, "203.0.113.9:9"), Taken::Refused, "too often");
        latch.expect(0, Some(at("203.0.113.9:4000")), "203.0.113.9".parse().unwrap());
        assert_eq!(take(&mut latch, 601 * SECOND, "203.0.113.9:9"), Taken::Learnt, "a description lets it move again");
    }

    #[test]
    fn the_place_of_the_sdp_takes_over_from_a_leftover_at_once_and_only_at_first() {
        let mut one = latch("203.0.113.9:4000", "203.0.113.9");
        assert_eq!(take(&mut one, SECOND, "203.0.113.9:7"), Taken::Learnt);
        assert_eq!(take(&mut one, SECOND + 500_000, "203.0.113.9:4000"), Taken::Learnt);
        let mut other = latch("203.0.113.9:4000", "203.0.113.9");
        assert_eq!(take(&mut other, SECOND, "203.0.113.9:7"), Taken::Learnt);
        assert_eq!(take(&mut other, 2 * SECOND, "203.0.113.9:7"), Taken::Known);
        assert_eq!(take(&mut other, 3 * SECOND, "203.0.113.9:4000"), Taken::Refused);
    }

    #[test]
    fn hold_sends_nothing_and_resuming_goes_on_where_it_was() {
        let mut latch = latch("10.0.0.5:4000", "203.0.113.9");
        assert_eq!(take(&mut latch, SECOND, "203.0.113.9:61000"), Taken::Learnt);
        latch.expect(2 * SECOND, None, "203.0.113.9".parse().unwrap());
        assert_eq!(latch.target(), None);
        latch.expect(0, Some(at("10.0.0.5:4000")), "203.0.113.9".parse().unwrap());
        assert_eq!(latch.target(), Some(at("203.0.113.9:61000")));
        latch.expect(5 * SECOND, Some(at("10.0.0.5:4002")), "203.0.113.9".parse().unwrap());
        assert_eq!(latch.target(), Some(at("10.0.0.5:4002")), "a new place is learnt anew");
        // What is still under way from the old one does not take it over.
        assert_eq!(take(&mut latch, 5 * SECOND + 100_000, "203.0.113.9:61000"), Taken::Late);
        assert_eq!(take(&mut latch, 5 * SECOND + 200_000, "203.0.113.9:62000"), Taken::Learnt);
    }

    #[test]
    fn each_way_of_learning_believes_whom_it_says() {
        for (learning, exact, port, stranger) in
            [(Learning::Never, true, false, false), (Learning::Known, true, true, false), (Learning::Any, true, true, true)]
        {
            for (source, expected) in [("10.0.0.5:4000", exact), ("10.0.0.5:4001", port), ("192.0.2.77:4000", stranger)] {
                let taken = latch("10.0.0.5:4000", "203.0.113.9").take(1, at(source), learning, SECOND, true);
                assert_eq!(taken == Taken::Learnt, expected, "{learning:?} {source}");
            }
            assert_eq!(latch("10.0.0.5:4000", "203.0.113.9").take(1, at("10.0.0.5:4000"), learning, SECOND, false), Taken::Refused, "no RTP");
        }
    }
}
