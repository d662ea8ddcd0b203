//! Counts for each peer: as many as the file has peers, and never more than a page of metrics bears.

use std::sync::{Arc, Mutex, PoisonError};

use crate::counters::Counter;

/// Peers with counts of their own; all others share the last place.
pub const COUNTED_PEERS: usize = 500;

/// What is counted of one peer.
#[derive(Default)]
pub struct PeerCounters {
    /// Requests from it that open something.
    pub requests: Counter,
    /// Requests of it that were refused.
    pub refused: Counter,
    /// Attempts to reach it.
    pub attempts: Counter,
    /// Attempts that it never answered.
    pub unanswered: Counter,
    /// Its responses to them, by the first digit of the status code.
    pub classes: [Counter; 7],
}

/// The counts of one worker; readers get a view of their own, so that more peers can come.
#[derive(Default)]
pub struct PeerCounts {
    shown: Mutex<Arc<Vec<Arc<PeerCounters>>>>,
}

impl PeerCounts {
    /// Makes places for so many peers beside those that there are, and returns all of them.
    pub(crate) fn grow(&self, peers: usize) -> Arc<Vec<Arc<PeerCounters>>> {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = peers.min(COUNTED_PEERS) + 1;
        if shown.len() < wanted {
            // The last place is that of all others, and of those that are nobody we know.
            let mut next: Vec<_> = shown.iter().take(shown.len().saturating_sub(1)).cloned().collect();
            let others = shown.last().cloned().unwrap_or_default();
            next.resize_with(wanted - 1, Arc::default);
            next.push(others);
            *shown = Arc::new(next);
        }
        Arc::clone(&shown)
    }

    /// All counts; the last are those of all peers that have none of their own.
    pub fn all(&self) -> Arc<Vec<Arc<PeerCounters>>> {
        Arc::clone(&self.shown.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_stay_when_peers_come_and_too_many_share_one_place() {
        let counts = PeerCounts::default();
        let two = counts.grow(2);
        two[1].requests.add();
        two[2].requests.add_many(5);
        let many = counts.grow(10_000);
        assert_eq!(many.len(), COUNTED_PEERS + 1);
        assert_eq!((many[1].requests.get(), many[2].requests.get(), many[COUNTED_PEERS].requests.get()), (1, 0, 5));
        assert_eq!(counts.grow(3).len(), COUNTED_PEERS + 1);
    }
}
