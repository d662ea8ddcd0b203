//! Ports of one local address: those that were free the longest come first, in an order that nobody can guess.

use std::collections::VecDeque;

/// Even ports that are free, each for a pair.
#[derive(Debug)]
pub struct PortPool {
    free: VecDeque<u16>,
}

impl PortPool {
    /// The pairs between `first` and `last` that are the `share`-th of `shares`; `seed` decides their order.
    pub fn new(first: u16, last: u16, share: u16, shares: u16, seed: u64) -> Self {
        let even = u32::from(first).next_multiple_of(2);
        let pairs = (even..u32::from(last)).step_by(2).map(|port| port as u16);
        let mut free: Vec<u16> = pairs.filter(|port| port / 2 % shares.max(1) == share).collect();
        let mut state = seed | 1;
        for index in (1..free.len()).rev() {
            // xorshift64: it need not be strong, only differ from start to start.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            free.swap(index, (state % (index as u64 + 1)) as usize);
        }
        Self { free: free.into() }
    }

    /// The pair that was free the longest.
    pub fn take(&mut self) -> Option<u16> {
        self.free.pop_front()
    }

    /// A pair is free again: what still comes for its last call finds it unused for as long as there are others.
    pub fn give(&mut self, port: u16) {
        self.free.push_back(port);
    }

    /// How many are free.
    pub fn len(&self) -> usize {
        self.free.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.free.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_belongs_to_one_share_and_comes_back_last() {
        let mut all: Vec<u16> = (0..3).flat_map(|share| PortPool::new(30_001, 30_020, share, 3, 7).free).collect();
        all.sort_unstable();
        assert_eq!(all, (30_002..30_020).step_by(2).collect::<Vec<u16>>());
        let mut pool = PortPool::new(30_000, 30_007, 0, 1, 7);
        let first = pool.take().unwrap();
        pool.give(first);
        let order: Vec<u16> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!((order.len(), *order.last().unwrap()), (4, first));
    }

    #[test]
    fn the_order_differs_from_start_to_start_and_the_highest_port_is_not_passed() {
        let order = |seed| PortPool::new(65_000, 65_535, 0, 1, seed).free;
        assert_ne!(order(1), order(3));
        assert_eq!(order(1).iter().max(), Some(&65_534));
        assert!(PortPool::new(30_000, 30_000, 0, 1, 1).is_empty());
    }
}
