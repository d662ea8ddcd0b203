//! Many datagrams for one wake-up: under load a worker sleeps a little before it looks again, as a network card
//! holds back its interrupts. Waking for each datagram costs more than handling it.

use std::time::Duration;

const WINDOW: u64 = 10_000;

/// Decides whether the next wait is a short sleep.
pub(crate) struct Coalesce {
    pause: Duration,
    busy: u64,
    window: u64,
    count: u64,
    active: bool,
}

impl Coalesce {
    /// Pauses of `microseconds`, once more than `per_second` datagrams come in.
    pub(crate) fn new(microseconds: u64, per_second: u64) -> Self {
        Self { pause: Duration::from_micros(microseconds), busy: (per_second * WINDOW / 1_000_000).max(1), window: 0, count: 0, active: false }
    }

    /// `count` datagrams were received at `now`, in microseconds.
    pub(crate) fn received(&mut self, now: u64, count: usize) {
        let window = now / WINDOW;
        if window != self.window {
            // A window without any datagram in between ends the load at once.
            self.active = window == self.window + 1 && self.count >= self.busy;
            (self.window, self.count) = (window, 0);
        }
        self.count += count as u64;
    }

    /// How long to sleep before looking again; `None` where the sockets should be waited for.
    pub(crate) fn pause(&self, now: u64) -> Option<Duration> {
        // Where nothing comes any more, nothing is counted either.
        let silent = now / WINDOW > self.window + 1;
        (self.active && !silent && !self.pause.is_zero()).then_some(self.pause)
    }
}

#[cfg(test)]
mod tests {
    use super::Coalesce;

    #[test]
    fn only_a_load_makes_it_pause_and_the_end_of_the_load_ends_that() {
        let mut coalesce = Coalesce::new(100, 1_000);
        (0..30).for_each(|n| coalesce.received(n * 1_000, 1));
        assert!(coalesce.pause(30_000).is_some());
        assert!(coalesce.pause(50_000).is_none(), "silence");
        coalesce.received(100_000, 1);
        assert!(coalesce.pause(100_000).is_none());
    }
}
