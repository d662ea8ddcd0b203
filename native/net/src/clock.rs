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

/// Microseconds of the machine's monotonic clock, which is the same for all processes.
pub fn monotonic() -> u64 {
    read(libc::CLOCK_MONOTONIC)
}

/// Processor time of the calling thread in microseconds.
pub(crate) fn thread_time() -> u64 {
    read(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// One of the kernel's clocks; 0 where it cannot be read.
fn read(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid, writable timespec.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return 0;
    }
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}
