//! The non-INVITE client transaction.

use super::{ClientAction, SipTimers};
use crate::Moment;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Trying,
    Proceeding,
    Completed,
    Terminated,
}

/// Non-INVITE client transaction (RFC 3261 section 17.1.2).
///
/// ```text
/// Trying --1xx--> Proceeding --200-699--> Completed --K--> Terminated
///    `-------------200-699-------------------^
///  E: resend, every T2 once proceeding; F: no answer
/// ```
#[derive(Clone, Copy, Debug)]
pub struct NonInviteClient {
    state: State,
    reliable: bool,
    interval: u32,
    retransmit_at: Moment,
    give_up_at: Moment,
}

impl NonInviteClient {
    /// The request was just sent; `answer` is how long the final response may take, at most timer F of 64 × T1.
    pub fn new(now: Moment, reliable: bool, answer: u64, timers: &SipTimers) -> Self {
        let retransmit_at = if reliable { Moment::NEVER } else { now + timers.t1 };
        Self { state: State::Trying, reliable, interval: timers.t1 as u32, retransmit_at, give_up_at: now + answer.min(64 * timers.t1) }
    }

    /// A 1xx came.
    pub fn handle_provisional(&mut self, now: Moment, timers: &SipTimers) {
        match self.state {
            State::Trying => {
                self.state = State::Proceeding;
                self.interval = timers.t2 as u32;
                // Somebody is at work: what remains is timer F, which a shorter wait for the first answer may have cut.
                self.give_up_at = self.give_up_at.max(now + 64 * timers.t1);
                if !self.reliable {
                    self.retransmit_at = now + timers.t2;
                }
            }
            State::Proceeding | State::Completed | State::Terminated => {}
        }
    }

    /// A final response came; true where it is the first.
    pub fn handle_final(&mut self, now: Moment, timers: &SipTimers) -> bool {
        match self.state {
            State::Trying | State::Proceeding => {
                self.state = State::Completed;
                self.retransmit_at = Moment::NEVER;
                self.give_up_at = if self.reliable { now } else { now + timers.t4 };
                true
            }
            State::Completed | State::Terminated => false,
        }
    }

    /// The transport failed: nothing more is sent or expected.
    pub fn handle_transport_error(&mut self) {
        self.state = State::Terminated;
        (self.retransmit_at, self.give_up_at) = (Moment::NEVER, Moment::NEVER);
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Moment, timers: &SipTimers) -> ClientAction {
        match self.state {
            State::Trying | State::Proceeding if now >= self.give_up_at => {
                self.handle_transport_error();
                ClientAction::NoAnswer
            }
            State::Trying | State::Proceeding if now >= self.retransmit_at => {
                self.interval = if self.state == State::Trying { self.interval.saturating_mul(2).min(timers.t2 as u32) } else { timers.t2 as u32 };
                self.retransmit_at = now + u64::from(self.interval);
                ClientAction::Retransmit
            }
            State::Completed if now >= self.give_up_at => {
                self.handle_transport_error();
                ClientAction::Terminated
            }
            State::Trying | State::Proceeding | State::Completed | State::Terminated => ClientAction::Wait,
        }
    }

    /// When [`NonInviteClient::handle_timeout`] should be called next.
    pub fn poll_timeout(&self) -> Moment {
        self.retransmit_at.min(self.give_up_at)
    }

    /// Whether no final response has come yet.
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

    const T: SipTimers = SipTimers::STANDARD;

    #[test]
    fn an_unanswered_request_is_sent_eleven_times_in_32_seconds() {
        let mut client = NonInviteClient::new(Moment(0), false, seconds(32), &T);
        let mut sent = vec![0];
        loop {
            let now = client.poll_timeout();
            match client.handle_timeout(now, &T) {
                ClientAction::Retransmit => sent.push(now.0 / 1000),
                action => break assert_eq!((action, now), (ClientAction::NoAnswer, Moment(seconds(32)))),
            }
        }
        assert_eq!(sent, [0, 500, 1_500, 3_500, 7_500, 11_500, 15_500, 19_500, 23_500, 27_500, 31_500]);
    }

    #[test]
    fn timer_k_absorbs_repeated_responses() {
        let mut client = NonInviteClient::new(Moment(0), false, seconds(32), &T);
        client.handle_provisional(Moment(1), &T);
        assert_eq!(client.poll_timeout(), Moment(1) + T.t2);
        assert!(client.handle_final(Moment(2), &T));
        assert!(!client.handle_final(Moment(3), &T));
        assert_eq!(client.handle_timeout(Moment(2) + T.t4, &T), ClientAction::Terminated);
    }
}
