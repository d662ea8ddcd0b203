//! Notices that a worker cannot keep up: it has worked for so long without once emptying its sockets.

/// Processor time is what counts: a worker that the machine did not let run is late, but not overloaded.
pub(crate) struct Overload {
    limit: u64,
    rounds: u32,
    since: u64,
    shedding: bool,
}

impl Overload {
    pub(crate) fn new(limit_milliseconds: u64) -> Self {
        Self { limit: limit_milliseconds * 1_000, rounds: 0, since: 0, shedding: false }
    }

    /// One round of the loop is done; `backlog` says that a socket still held more. `processor_time` gives microseconds.
    pub(crate) fn round(&mut self, backlog: bool, processor_time: impl Fn() -> u64) -> bool {
        if !backlog {
            self.rounds = 0;
            self.shedding = false;
            return false;
        }
        self.rounds += 1;
        if self.rounds == 1 {
            self.since = processor_time();
        } else if self.rounds.is_multiple_of(8) {
            self.shedding = processor_time().saturating_sub(self.since) > self.limit;
        }
        self.shedding
    }
}

#[cfg(test)]
mod tests {
    use super::Overload;

    #[test]
    fn a_queue_that_never_empties_sheds_until_it_does() {
        let mut overload = Overload::new(10);
        let shed: Vec<_> = (0..40).map(|round| overload.round(true, || round * 500)).collect();
        assert!(!shed[15] && shed[31]);
        assert!(!overload.round(false, || 20_000));
        assert!(!overload.round(true, || 20_000));
    }
}
