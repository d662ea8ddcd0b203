//! The two clocks.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use proto::{Moment, Now};

/// Reads both clocks against one zero for the whole process.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    zero: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { zero: Instant::now() }
    }

    pub(crate) fn now(&self) -> Now {
        Now { moment: Moment(self.zero.elapsed().as_micros() as u64), wall: wall() }
    }
}

/// Microseconds since 1970; 0 for a clock set before that.
pub(crate) fn wall() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}
