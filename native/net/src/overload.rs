//! Notices that a worker cannot keep up: it has worked for so long without once emptying its sockets.

use edge::Shedding;

/// Processor time is what counts: a worker that the machine did not let run is late, but not overloaded.
pub(crate) struct Overload {
    limit: u64,
    rounds: u32,
    since: u64,
    shedding: Shedding,
}

impl Overload {
    pub(crate) fn new(limit_milliseconds: u64) -> Self {
        Self { limit: limit_milliseconds * 1_000, rounds: 0, since: 0, shedding: Shedding::Nothing }
    }

    /// One round of the loop is done; `backlog` says that there still was more to do. `processor_time` gives microseconds.
    pub(crate) fn round(&mut self, backlog: bool, processor_time: impl Fn() -> u64) -> Shedding {
        if !backlog {
            self.rounds = 0;
            self.shedding = Shedding::Nothing;
            return self.shedding;
        }
        self.rounds += 1;
        if self.rounds == 1 {
            self.since = processor_time();
        } else if self.rounds.is_multiple_of(8) {
            let spent = processor_time().saturating_sub(self.since);
            self.shedding = match spent {
                _ if spent <= self.limit => Shedding::Nothing,
                _ if spent <= 4 * self.limit => Shedding::Calls,
                _ => Shedding::Registrations,
            };
        }
        self.shedding
    }

    /// What the last round decided.
    pub(crate) const fn shedding(&self) -> Shedding {
        self.shedding
    }
}

#[cfg(test)]
mod tests {
    use super::{Overload, Shedding};

    #[test]
    fn a_queue_that_never_empties_sheds_until_it_does() {
        let mut overload = Overload::new(10);
        let shed: Vec<_> = (0..100).map(|round| overload.round(true, || round * 500)).collect();
        assert_eq!([shed[15], shed[31], shed[99]], [Shedding::Nothing, Shedding::Calls, Shedding::Registrations]);
        assert_eq!(overload.round(false, || 50_000), Shedding::Nothing);
        assert_eq!(overload.round(true, || 50_000), Shedding::Nothing);
    }
}
