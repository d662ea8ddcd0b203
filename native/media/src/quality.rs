//! How well RTP comes in: packets lost and jitter as a receiver reckons them (RFC 3550 sections 6.4.1, A.1, A.3 and A.8),
//! and what a listener would say of it (ITU-T G.107, for G.711 with concealment of losses).

use crate::packet::RtpHead;

/// A jump of the sequence number beyond this is another beginning (RFC 3550 A.1: MAX_DROPOUT).
const DROPOUT: u16 = 3_000;

/// What came of one port's source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quality {
    source: u32,
    started: bool,
    base: u64,
    highest: u64,
    received: u32,
    /// Expected and received of what was before a new beginning.
    before: [u64; 2],
    /// Sixteenths of a tick (A.8).
    jitter: u32,
    most_jitter: u32,
    transit: u32,
}

impl Quality {
    /// Takes a packet that came at `now`, in microseconds.
    pub(crate) fn take(&mut self, now: u64, head: &RtpHead, clock_rate: u32) {
        let arrival = (now.wrapping_mul(u64::from(clock_rate)) / 1_000_000) as u32;
        let transit = arrival.wrapping_sub(head.timestamp);
        let step = head.sequence.wrapping_sub(self.highest as u16);
        // Late and doubled packets have a small step back.
        let late = step > u16::MAX - DROPOUT;
        if !self.started || self.source != head.source || step > DROPOUT && !late {
            self.begin(head, transit);
            return;
        }
        self.received += 1;
        if late {
            return;
        }
        self.highest += u64::from(step);
        if step == 0 {
            return;
        }
        let difference = transit.wrapping_sub(self.transit).cast_signed().unsigned_abs();
        self.transit = transit;
        // A clock that was set, or silence without timestamps, is no jitter.
        if difference < clock_rate {
            self.jitter = self.jitter + difference - ((self.jitter + 8) >> 4);
            self.most_jitter = self.most_jitter.max(self.jitter);
        }
    }

    fn begin(&mut self, head: &RtpHead, transit: u32) {
        self.before = [self.expected(), self.all_received()];
        let base = u64::from(head.sequence);
        (self.started, self.source, self.base, self.highest, self.received, self.transit) = (true, head.source, base, base, 1, transit);
        self.jitter = 0;
    }

    fn expected(&self) -> u64 {
        self.before[0] + if self.started { self.highest - self.base + 1 } else { 0 }
    }

    fn all_received(&self) -> u64 {
        self.before[1] + u64::from(self.received)
    }

    /// Packets that never came.
    pub(crate) fn lost(&self) -> u64 {
        self.expected().saturating_sub(self.all_received())
    }

    /// The jitter at the end and the most that there was, in milliseconds.
    pub(crate) fn jitter_milliseconds(&self, clock_rate: u32) -> [f32; 2] {
        [self.jitter, self.most_jitter].map(|jitter| jitter as f32 / 16.0 / clock_rate.max(1) as f32 * 1_000.0)
    }

    /// A mean opinion score between 1 and 4.5; `None` before there is anything to judge by.
    pub(crate) fn mos(&self, clock_rate: u32) -> Option<f32> {
        let expected = self.expected();
        let [jitter, _] = self.jitter_milliseconds(clock_rate);
        (expected >= 50).then(|| mos(self.lost() as f32 / expected as f32 * 100.0, jitter))
    }
}

/// What a share of lost packets, in percent, and jitter make of G.711.
fn mos(lost_percent: f32, jitter_milliseconds: f32) -> f32 {
    // One packet, and a buffer of twice the jitter; the way between is not known.
    let delay = 20.0 + 2.0 * jitter_milliseconds;
    let by_delay = 0.024 * delay + 0.11 * (delay - 177.3).max(0.0);
    // G.113 appendix I: Bpl of G.711 with packet loss concealment.
    let by_loss = 95.0 * lost_percent / (lost_percent + 25.1);
    let r = (93.2 - by_delay - by_loss).clamp(0.0, 100.0);
    1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(packets: impl Iterator<Item = (u64, u16, u32)>) -> Quality {
        let mut quality = Quality::default();
        for (milliseconds, sequence, source) in packets {
            quality.take(milliseconds * 1_000, &RtpHead { sequence, timestamp: u32::from(sequence) * 160, source }, 8_000);
        }
        quality
    }

    #[test]
    fn losses_are_counted_over_the_end_of_the_numbers_and_late_ones_are_none() {
        let all = |number: u64| (number * 20, 65_500u16.wrapping_add(number as u16), 1);
        assert_eq!(run((0..200).map(all)).lost(), 0);
        assert_eq!(run((0..200).filter(|number| number % 10 != 5).map(all)).lost(), 20);
        let swapped = (0..200u64).map(|number| all(number ^ 1));
        assert_eq!(run(swapped).lost(), 0);
    }

    #[test]
    fn another_source_begins_anew_and_nothing_is_lost_between() {
        let first = (0..100u64).map(|number| (number * 20, 1_000 + number as u16, 1));
        let second = (100..200u64).map(|number| (number * 20, 40_000 + number as u16, 2));
        let quality = run(first.chain(second));
        assert_eq!((quality.lost(), quality.expected()), (0, 200));
    }

    #[test]
    fn jitter_is_that_of_the_arrivals_and_opinion_follows_loss() {
        let even = run((0..500u64).map(|number| (number * 20, number as u16, 1)));
        let [jitter, _] = even.jitter_milliseconds(8_000);
        assert!(jitter < 0.2, "{jitter}");
        let uneven = run((0..500u64).map(|number| (number * 20 + number % 2 * 10, number as u16, 1)));
        let [jitter, most] = uneven.jitter_milliseconds(8_000);
        assert!((8.0..11.0).contains(&jitter) && most >= jitter, "{jitter} {most}");
        let lossy = run((0..500u64).filter(|number| number % 20 != 3).map(|number| (number * 20, number as u16, 1)));
        let (clean, lossy) = (even.mos(8_000).unwrap(), lossy.mos(8_000).unwrap());
        assert!((4.3..4.5).contains(&clean) && (3.5..4.1).contains(&lossy), "{clean} {lossy}");
        assert_eq!(run(std::iter::once((0, 1, 1))).mos(8_000), None);
    }
}
