//! The non-INVITE server transaction.

use super::{ServerAction, SipTimers};
use crate::Moment;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Trying,
    Proceeding,
    Completed,
    Terminated,
}

/// Non-INVITE server transaction (RFC 3261 section 17.2.2).
///
/// ```text
/// Trying --1xx--> Proceeding --200-699--> Completed --J--> Terminated
///    `-------------200-699-------------------^
/// ```
#[derive(Clone, Copy, Debug)]
pub struct NonInviteServer {
    state: State,
    reliable: bool,
    end_at: Moment,
}

impl NonInviteServer {
    /// A request came in.
    pub const fn new(reliable: bool) -> Self {
        Self { state: State::Trying, reliable, end_at: Moment::NEVER }
    }

    /// A provisional response is about to be sent; false where a final one was.
    pub fn handle_provisional(&mut self) -> bool {
        match self.state {
            State::Trying | State::Proceeding => {
                self.state = State::Proceeding;
                true
            }
            State::Completed | State::Terminated => false,
        }
    }

    /// A final response is about to be sent; false where one was before.
    pub fn handle_final(&mut self, now: Moment, timers: &SipTimers) -> bool {
        match self.state {
            State::Trying | State::Proceeding => {
                self.state = State::Completed;
                self.end_at = if self.reliable { now } else { now + 64 * timers.t1 };
                true
            }
            State::Completed | State::Terminated => false,
        }
    }

    /// Ends without a response: RFC 4320 section 4.2 forbids a late 408.
    pub fn handle_silence(&mut self) {
        self.state = State::Terminated;
        self.end_at = Moment::NEVER;
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Moment) -> ServerAction {
        match self.state {
            State::Completed if now >= self.end_at => {
                self.handle_silence();
                ServerAction::Terminated
            }
            State::Trying | State::Proceeding | State::Completed | State::Terminated => ServerAction::Wait,
        }
    }

    /// When [`NonInviteServer::handle_timeout`] should be called next.
    pub fn poll_timeout(&self) -> Moment {
        self.end_at
    }

    /// Whether no final response was sent yet.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Trying | State::Proceeding)
    }

    /// Whether nothing more can come.
    pub fn is_terminated(&self) -> bool {
        self.state == State::Terminated
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seconds;

    #[test]
    fn timer_j_keeps_the_response_for_32_seconds() {
        let timers = SipTimers::STANDARD;
        let mut server = NonInviteServer::new(false);
        assert!(server.handle_provisional() && server.handle_final(Moment(0), &timers));
        assert!(!server.handle_final(Moment(1), &timers) && !server.handle_provisional());
        assert_eq!(server.handle_timeout(Moment(seconds(31))), ServerAction::Wait);
        assert_eq!(server.handle_timeout(Moment(seconds(32))), ServerAction::Terminated);
    }
}
