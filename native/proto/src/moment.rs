//! Time as an argument.

use std::ops::{Add, Sub};

/// A point on the monotonic clock, in microseconds since the process chose its zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl Moment {
    /// Later than every deadline: a timer that is not set.
    pub const NEVER: Self = Self(u64::MAX);

    /// Microseconds from `earlier` to here, 0 where that lies later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for Moment {
    type Output = Self;
    fn add(self, microseconds: u64) -> Self {
        Self(self.0.saturating_add(microseconds))
    }
}

impl Sub<u64> for Moment {
    type Output = Self;
    fn sub(self, microseconds: u64) -> Self {
        Self(self.0.saturating_sub(microseconds))
    }
}

/// One reading of both clocks: windows and timers use the first, records the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock.
    pub moment: Moment,
    /// The wall clock, in microseconds since 1970 (UTC).
    pub wall: u64,
}

/// Microseconds in `count` milliseconds.
pub const fn milliseconds(count: u64) -> u64 {
    count * 1_000
}

/// Microseconds in `count` seconds.
pub const fn seconds(count: u64) -> u64 {
    count * 1_000_000
}
