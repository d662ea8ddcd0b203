//! What a target takes: concurrent calls, and new ones a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::calls::{CallCount, CallLease};
use crate::pace::Pace;

/// How much it may be; 0 means that there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Concurrent calls.
    pub calls: u32,
    /// New calls in any second.
    pub calls_per_second: u16,
}

/// Why it takes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// It has all calls that it may have.
    Calls,
    /// It has had as many new ones within the last second as it may.
    Pace,
}

impl Full {
    /// In words.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Calls => "as many calls as it may have",
            Self::Pace => "as many new calls within a second as it may have",
        }
    }
}

/// The calls of one target, and what it may have.
#[derive(Clone, Debug, Default)]
pub struct Capacity {
    caps: Caps,
    count: Arc<CallCount>,
    pace: Option<Arc<Pace>>,
    refused: Arc<AtomicU64>,
}

impl Capacity {
    /// The one that follows `before`, whose calls it goes on counting.
    pub fn after(before: Option<&Self>, caps: Caps) -> Self {
        let known = before.cloned().unwrap_or_default();
        let wanted = usize::from(caps.calls_per_second);
        let pace = match known.pace {
            _ if wanted == 0 => None,
            Some(pace) if pace.per_second() == wanted => Some(pace),
            Some(pace) => Some(Arc::new(pace.with(caps.calls_per_second))),
            None => Some(Arc::new(Pace::new(caps.calls_per_second))),
        };
        Self { caps, pace, ..known }
    }

    /// What it may have.
    pub fn caps(&self) -> Caps {
        self.caps
    }

    /// A place for a new call at `now`, microseconds of the monotonic clock.
    ///
    /// # Errors
    /// [`Full`] where there is none; that is counted.
    pub fn admit(&self, now: u64) -> Result<CallLease, Full> {
        let taken = match self.count.take(self.caps.calls) {
            None => Err(Full::Calls),
            Some(lease) => self.pace.as_ref().is_none_or(|pace| pace.take(now)).then_some(lease).ok_or(Full::Pace),
        };
        taken.inspect_err(|_| self.count_refusal())
    }

    /// Whether there is a place for a new call; nothing is taken. It is for who needs places at several targets at once.
    ///
    /// # Errors
    /// [`Full`] where there is none; that is counted.
    pub fn look(&self, now: u64) -> Result<(), Full> {
        let room = self.pace.as_ref().is_none_or(|pace| pace.has_room(now));
        let found = if self.is_full() { Err(Full::Calls) } else { room.then_some(()).ok_or(Full::Pace) };
        found.inspect_err(|_| self.count_refusal())
    }

    fn count_refusal(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// A place for one that was admitted before and is sent another way.
    pub fn lease(&self) -> Option<CallLease> {
        self.count.take(0)
    }

    /// Calls under way.
    pub fn live(&self) -> u32 {
        self.count.live()
    }

    /// Whether it has all calls that it may have.
    pub fn is_full(&self) -> bool {
        self.caps.calls != 0 && self.live() >= self.caps.calls
    }

    /// How many were not admitted.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_one_refuses_and_a_refusal_for_pace_keeps_no_place() {
        let one = Capacity::after(None, Caps { calls: 3, calls_per_second: 2 });
        let leases = [one.admit(0), one.admit(1)].map(Result::ok);
        assert_eq!((one.look(2), one.admit(2).err()), (Err(Full::Pace), Some(Full::Pace)));
        assert_eq!((one.live(), one.is_full()), (2, false));
        assert_eq!(one.look(1_000_001), Ok(()));
        let third = one.admit(1_000_001);
        assert_eq!(one.admit(1_000_002).err(), Some(Full::Calls));
        assert!(third.is_ok() && one.is_full() && one.refused() == 3);
        drop((leases, third));
        assert_eq!(one.live(), 0);
    }

    #[test]
    fn its_calls_and_its_pace_outlive_other_caps() {
        let one = Capacity::after(None, Caps { calls: 1, calls_per_second: 1 });
        let _held = one.admit(0);
        let other = Capacity::after(Some(&one), Caps { calls: 2, calls_per_second: 1 });
        assert_eq!((other.live(), other.admit(1).err()), (1, Some(Full::Pace)));
        let faster = Capacity::after(Some(&other), Caps { calls: 0, calls_per_second: 2 });
        assert!(faster.admit(2).is_ok() && faster.admit(3).is_err());
        let free = Capacity::after(Some(&other), Caps::default());
        assert!(free.admit(2).is_ok() && free.refused() == 2);
    }
}
