//! Concurrent calls: their number is that of the leases that live, so that it cannot drift.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many calls one key has.
#[derive(Debug, Default)]
pub struct CallCount(AtomicU32);

impl CallCount {
    /// Calls under way.
    pub fn live(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// A place among `most` calls, if there is one; 0 means that there is always one.
    pub fn take(self: &Arc<Self>, most: u32) -> Option<CallLease> {
        let most = if most == 0 { u32::MAX } else { most };
        let add = |live: u32| if live < most { live.checked_add(1) } else { None };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()?;
        Some(CallLease(Arc::clone(self)))
    }
}

/// One live call; given back when dropped.
#[derive(Debug)]
pub struct CallLease(Arc<CallCount>);

impl Drop for CallLease {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_leases_than_places() {
        let count = Arc::new(CallCount::default());
        let taken: Vec<_> = (0..5).map_while(|_| count.take(3)).collect();
        assert_eq!((taken.len(), count.live()), (3, 3));
        assert!(count.take(0).is_some() && count.take(4).is_some());
        drop(taken);
        assert_eq!(count.live(), 0);
    }

    #[test]
    fn many_threads_at_once_get_no_place_twice() {
        let count = Arc::new(CallCount::default());
        let most = std::thread::scope(|scope| {
            let work = || (0..20_000).filter_map(|_| count.take(2).map(|_| count.live())).max();
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
            workers.into_iter().filter_map(|worker| worker.join().ok().flatten()).max()
        });
        assert!(most.is_some_and(|most| most <= 2));
        assert_eq!(count.live(), 0);
    }
}
