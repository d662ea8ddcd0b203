//! Many messages for one wake-up: under load a worker sleeps a little before it looks again, as a network card holds
//! back its interrupts. Waking for each message costs more than handling it.

use std::time::Duration;

const WINDOW: u64 = 10_000;
/// A shorter sleep would cost more than it gathers.
const LEAST: u64 = 30;

/// Decides whether the next wait is a short sleep, and how short.
pub(crate) struct Coalesce {
    most: u64,
    messages: u64,
    window: u64,
    count: u64,
    dropped: u64,
    pause: u64,
}

impl Coalesce {
    /// Pauses of at most `microseconds`, as long as it takes for `messages` to come.
    pub(crate) fn new(microseconds: u64, messages: u64) -> Self {
        Self { most: microseconds, messages, window: 0, count: 0, dropped: 0, pause: 0 }
    }

    /// `count` messages were received at `now`, in microseconds, and so many more dropped unread.
    pub(crate) fn received(&mut self, now: u64, count: usize, dropped: usize) {
        let window = now / WINDOW;
        if window != self.window {
            // A window without any message in between ends the load at once.
            self.pause = if window == self.window + 1 { self.pause_for(self.count, self.dropped) } else { 0 };
            (self.window, self.count, self.dropped) = (window, 0, 0);
        }
        self.count += count as u64;
        self.dropped += dropped as u64;
    }

    /// The pause for so many messages in a window: none where it would gather less than two. What is dropped is no message to wake
    /// up for, but a flood of it makes a pause pay that would not for the few between.
    fn pause_for(&self, in_window: u64, dropped: u64) -> u64 {
        if (in_window + dropped) * self.most < 2 * WINDOW {
            return 0;
        }
        if in_window == 0 {
            return self.most;
        }
        let pause = (self.messages * WINDOW / in_window).min(self.most);
        if pause < LEAST { 0 } else { pause }
    }

    /// How long to sleep before looking again; `None` where the sockets should be waited for.
    pub(crate) fn pause(&self, now: u64) -> Option<Duration> {
        // Where nothing comes any more, nothing is counted either.
        let silent = now / WINDOW > self.window + 1;
        (self.pause > 0 && !silent).then(|| Duration::from_micros(self.pause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_load_makes_it_pause_and_the_end_of_the_load_ends_that() {
        let mut coalesce = Coalesce::new(400, 4);
        (0..300).for_each(|n| coalesce.received(n * 100, 1, 0));
        assert_eq!(coalesce.pause(30_000), Some(Duration::from_micros(400)));
        assert_eq!(coalesce.pause(50_000), None, "silence");
        coalesce.received(100_000, 1, 0);
        assert_eq!(coalesce.pause(100_000), None);
    }

    #[test]
    fn the_pause_gathers_so_many_messages_and_no_more() {
        let coalesce = Coalesce::new(400, 4);
        let per_second = |rate: u64| coalesce.pause_for(rate * WINDOW / 1_000_000, 0);
        assert_eq!([4_000, 6_000, 20_000, 40_000, 200_000].map(per_second), [0, 400, 200, 100, 0]);
        assert_eq!(Coalesce::new(0, 4).pause_for(1_000, 0), 0);
        // A flood that is dropped: nothing, few and many messages between.
        assert_eq!([0, 35, 400].map(|count| coalesce.pause_for(count, 2_000)), [400, 400, 100]);
    }
}
