//! Which rule of a fraud profile is for a number at a time: the longest prefix whose window is open, in the local time of a zone.

use std::collections::HashMap;
use std::sync::Arc;

const DAY: i64 = 86_400;

/// What is watched of a user's calls to a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Figure {
    /// Calls within the last minute.
    CallsPerMinute,
    /// Calls since the window or the day began.
    TotalCalls,
    /// Calls at once.
    ConcurrentCalls,
    /// Calls of one number in a row.
    SequentialCalls,
    /// Seconds of one call.
    CallDuration,
    /// Calls within the last second.
    CallsPerSecond,
}

impl Figure {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::CallsPerMinute, Self::TotalCalls, Self::ConcurrentCalls, Self::SequentialCalls, Self::CallDuration, Self::CallsPerSecond];

    /// As events name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CallsPerMinute => "calls-per-minute",
            Self::TotalCalls => "total-calls",
            Self::ConcurrentCalls => "concurrent-calls",
            Self::SequentialCalls => "sequential-calls",
            Self::CallDuration => "call-duration",
            Self::CallsPerSecond => "calls-per-second",
        }
    }
}

/// One rule. Thresholds are those of [`Figure::ALL`], warning and critical; 0 is off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FraudRule {
    /// Its number.
    pub id: u32,
    /// The profile that it belongs to.
    pub profile: u32,
    /// What numbers begin with, without a leading `+`.
    pub prefix: Box<str>,
    /// The first minute of the day, and the last one, which is in; where the last is before the first it is of the next day.
    pub minutes: (u16, u16),
    /// Days on which the window begins: bit 0 is Monday.
    pub days: u8,
    /// Warning and critical thresholds.
    pub thresholds: [[u32; 2]; 6],
}

/// A moment in the local time of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// Days since 1970.
    pub day: i64,
    /// 0 is Monday.
    pub weekday: u8,
    /// Of the day.
    pub minute: u16,
}

/// All rules, and the zone whose days and hours they are by.
#[derive(Clone, Debug, Default)]
pub struct FraudRules {
    profiles: HashMap<u32, HashMap<Box<str>, Vec<Arc<FraudRule>>>>,
    longest: usize,
    /// From which second since 1970 on local time differs from UTC by how many seconds, the earliest first.
    offsets: Vec<(i64, i32)>,
}

impl FraudRules {
    /// These rules in a zone; `offsets` says from when on it differs from UTC by how many seconds.
    pub fn new(rules: Vec<FraudRule>, mut offsets: Vec<(i64, i32)>) -> Self {
        offsets.sort_unstable();
        let mut made = Self { offsets, ..Self::default() };
        for rule in rules {
            made.longest = made.longest.max(rule.prefix.len());
            made.profiles.entry(rule.profile).or_default().entry(rule.prefix.clone()).or_default().push(Arc::new(rule));
        }
        made
    }

    /// Whether there is such a profile.
    pub fn has_profile(&self, profile: u32) -> bool {
        self.profiles.contains_key(&profile)
    }

    /// The local time at a second since 1970.
    pub fn local(&self, wall: i64) -> LocalTime {
        let place = self.offsets.partition_point(|(from, _)| *from <= wall);
        let offset = self.offsets.get(place.saturating_sub(1)).map_or(0, |(_, offset)| i64::from(*offset));
        let local = wall + offset;
        let day = local.div_euclid(DAY);
        // 1970 began with a Thursday.
        LocalTime { day, weekday: (day + 3).rem_euclid(7) as u8, minute: (local.rem_euclid(DAY) / 60) as u16 }
    }

    /// The rule for a number, without a leading `+`, at a local time.
    pub fn find(&self, profile: u32, number: &str, time: LocalTime) -> Option<&Arc<FraudRule>> {
        let rules = self.profiles.get(&profile)?;
        let number = number.strip_prefix('+').unwrap_or(number);
        let longest = number.len().min(self.longest);
        (0..=longest)
            .rev()
            .filter(|length| number.is_char_boundary(*length))
            .find_map(|length| rules.get(&number[..length])?.iter().find(|rule| rule.is_open(time)))
    }
}

impl FraudRule {
    /// Which of the times between window, midnight and window `time` lies in: day, and whether a window that goes on past midnight has
    /// begun on it. In another one total and sequential calls begin anew.
    pub fn period(&self, time: LocalTime) -> i64 {
        let (first, last) = self.minutes;
        time.day * 2 + i64::from(last < first && time.minute >= first)
    }

    /// The day of a period.
    pub fn day_of(period: i64) -> i64 {
        period.div_euclid(2)
    }

    /// Whether its window is open.
    pub fn is_open(&self, time: LocalTime) -> bool {
        let (first, last) = self.minutes;
        let begins = |weekday: u8| self.days & 1 << weekday != 0;
        if first <= last {
            begins(time.weekday) && (first..=last).contains(&time.minute)
        } else {
            // What began yesterday goes on past midnight.
            time.minute >= first && begins(time.weekday) || time.minute <= last && begins((time.weekday + 6) % 7)
        }
    }

    /// The threshold of a figure: `level` 0 is warning, 1 is critical.
    pub fn threshold(&self, figure: Figure, level: usize) -> Option<u32> {
        let threshold = self.thresholds[figure as usize][level.min(1)];
        (threshold > 0).then_some(threshold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(id: u32, prefix: &str, minutes: (u16, u16), days: u8) -> FraudRule {
        FraudRule { id, profile: 1, prefix: prefix.into(), minutes, days, thresholds: [[0; 2]; 6] }
    }

    #[test]
    fn the_longest_prefix_whose_window_is_open_counts() {
        let rules = FraudRules::new(vec![rule(1, "", (0, 1439), 127), rule(2, "49", (480, 1079), 31), rule(3, "49900", (1320, 359), 64)], Vec::new());
        let at = |weekday, minute| LocalTime { day: 0, weekday, minute };
        let found = |number: &str, time| rules.find(1, number, time).map(|rule| rule.id);
        assert_eq!(found("+4930", at(0, 480)), Some(2));
        assert_eq!((found("4930", at(0, 479)), found("4930", at(0, 1080)), found("4930", at(5, 600))), (Some(1), Some(1), Some(1)));
        // From Sunday ten in the evening to Monday six in the morning.
        assert_eq!((found("49900", at(6, 1320)), found("49900", at(0, 359))), (Some(3), Some(3)));
        assert_eq!((found("49900", at(6, 359)), found("49900", at(0, 1320)), found("49900", at(0, 360))), (Some(1), Some(1), Some(1)));
        assert_eq!((rules.find(2, "49", at(0, 0)), found("", at(3, 5))), (None, Some(1)));
    }

    #[test]
    fn days_are_those_of_the_zone_and_a_change_of_the_clock_moves_them() {
        // Berlin in 2026: summer time from 29 March 01:00 UTC to 25 October 01:00 UTC.
        let rules = FraudRules::new(Vec::new(), vec![(1_774_746_000, 7_200), (1_761_440_400, 3_600), (1_792_890_000, 3_600)]);
        let midnight = 1_774_738_800; // 29 March 00:00 local, 23:00 UTC of the day before.
        assert_eq!(rules.local(midnight), LocalTime { day: 20_541, weekday: 6, minute: 0 });
        assert_eq!(rules.local(midnight - 1).day, 20_540);
        // The day of 23 hours: its last second, and the next day's first.
        assert_eq!((rules.local(midnight + 23 * 3_600 - 1).day, rules.local(midnight + 23 * 3_600).day), (20_541, 20_542));
        assert_eq!((rules.local(1_774_745_999).minute, rules.local(1_774_746_000).minute), (119, 180));
    }
}
