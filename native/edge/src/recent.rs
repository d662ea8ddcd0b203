//! Requests refused lately, without a transaction to remember them.

use proto::Now;

const SLOTS: usize = 4_096;
/// As long as a request may be repeated: 64 x T1.
const SECONDS: u64 = 32;

/// Tells a repeated request from a new one. Two that fall on one place may be told apart wrongly: that costs a record
/// too many, and never memory.
pub(crate) struct Recent {
    places: Box<[(u64, u64)]>,
    strangers: u32,
    answered: u32,
}

impl Default for Recent {
    fn default() -> Self {
        Self { places: vec![(0, 0); SLOTS].into_boxed_slice(), strangers: 0, answered: 0 }
    }
}

impl Recent {
    /// Whether `key`, the key of a transaction, was not refused within the last half minute; from now on it was.
    pub(crate) fn is_new(&mut self, key: u128, now: Now) -> bool {
        let (mark, second) = ((key >> 64) as u64, now.moment.0 / 1_000_000);
        let place = &mut self.places[key as usize % SLOTS];
        let repeated = place.0 == mark && place.1 + SECONDS > second;
        *place = (mark, second);
        !repeated
    }

    /// Whether one more call of a stranger may be recorded in this second.
    pub(crate) fn may_record_stranger(&mut self, limit: u32) -> bool {
        self.strangers = self.strangers.saturating_add(1);
        self.strangers <= limit
    }

    /// Whether one more request of a stranger may be answered in this second.
    pub(crate) fn may_answer_stranger(&mut self, limit: u32) -> bool {
        self.answered = self.answered.saturating_add(1);
        self.answered <= limit
    }

    /// A second has gone by.
    pub(crate) fn begin_second(&mut self) {
        (self.strangers, self.answered) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::Moment;

    #[test]
    fn a_repeated_request_is_known_for_half_a_minute() {
        let mut recent = Recent::default();
        let at = |second: u64| Now { moment: Moment(second * 1_000_000), wall: 0 };
        assert!(recent.is_new(7 << 64 | 1, at(0)));
        assert!(!recent.is_new(7 << 64 | 1, at(31)));
        assert!(recent.is_new(8 << 64 | 1, at(31)));
        assert!(recent.is_new(7 << 64 | 1, at(31)));
        assert!(recent.is_new(7 << 64 | 1, at(64)));
    }
}
