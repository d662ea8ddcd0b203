//! The INVITE server transaction.

use super::{ServerAction, SipTimers};
use crate::Moment;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Proceeding,
    Completed,
    Accepted,
    Confirmed,
    Terminated,
}

/// What to do with an ACK that matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckOutcome {
    /// It ends here.
    Absorb,
    /// It acknowledges a 2xx and belongs to the endpoint.
    PassToTu,
}

/// INVITE server transaction (RFC 3261 section 17.2.1, RFC 6026 section 7.1).
///
/// ```text
/// Proceeding --300-699--> Completed --ACK--> Confirmed --I--> Terminated
///     |                    G: resend   `--------H-----------> Terminated
///     `------2xx-------> Accepted ---------L----------------> Terminated
/// ```
#[derive(Clone, Copy, Debug)]
pub struct InviteServer {
    state: State,
    reliable: bool,
    interval: u32,
    retransmit_at: Moment,
    end_at: Moment,
}

impl InviteServer {
    /// A request came in.
    pub const fn new(reliable: bool) -> Self {
        Self { state: State::Proceeding, reliable, interval: 0, retransmit_at: Moment::NEVER, end_at: Moment::NEVER }
    }

    /// A final response is about to be sent. False where it must not be sent: one was sent before, or it is a refusal after a 2xx.
    pub fn handle_final(&mut self, now: Moment, status_code: u16, timers: &SipTimers) -> bool {
        match self.state {
            State::Proceeding if status_code < 300 => {
                self.state = State::Accepted;
                self.end_at = now + timers.linger;
                true
            }
            State::Proceeding => {
                self.state = State::Completed;
                self.interval = timers.t1 as u32;
                self.retransmit_at = if self.reliable { Moment::NEVER } else { now + timers.t1 };
                self.end_at = now + timers.linger;
                true
            }
            // RFC 6026 section 7.1: further 2xx responses pass through the Accepted state.
            State::Accepted => status_code < 300,
            State::Completed | State::Confirmed | State::Terminated => false,
        }
    }

    /// A matching ACK came in.
    pub fn handle_ack(&mut self, now: Moment, timers: &SipTimers) -> AckOutcome {
        match self.state {
            State::Completed => {
                self.state = State::Confirmed;
                self.retransmit_at = Moment::NEVER;
                self.end_at = if self.reliable { now } else { now + timers.t4 };
                AckOutcome::Absorb
            }
            // RFC 6026: an ACK to a 2xx belongs to the TU, even when it matches us.
            State::Accepted => AckOutcome::PassToTu,
            State::Proceeding | State::Confirmed | State::Terminated => AckOutcome::Absorb,
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Moment, timers: &SipTimers) -> ServerAction {
        match self.state {
            State::Proceeding | State::Terminated => ServerAction::Wait,
            State::Completed | State::Accepted | State::Confirmed if now >= self.end_at => {
                self.state = State::Terminated;
                (self.retransmit_at, self.end_at) = (Moment::NEVER, Moment::NEVER);
                ServerAction::Terminated
            }
            State::Completed if now >= self.retransmit_at => {
                self.interval = self.interval.saturating_mul(2).min(timers.t2 as u32);
                self.retransmit_at = now + u64::from(self.interval);
                ServerAction::Retransmit
            }
            State::Completed | State::Accepted | State::Confirmed => ServerAction::Wait,
        }
    }

    /// When [`InviteServer::handle_timeout`] should be called next.
    pub fn poll_timeout(&self) -> Moment {
        self.retransmit_at.min(self.end_at)
    }

    /// Whether no final response was sent yet.
    pub fn is_proceeding(&self) -> bool {
        self.state == State::Proceeding
    }

    /// Whether a retransmitted request is answered with the last response: after a 2xx the endpoint does that.
    pub fn answers_retransmission(&self) -> bool {
        matches!(self.state, State::Proceeding | State::Completed)
    }

    /// Whether nothing more can come.
    pub fn is_terminated(&self) -> bool {
        self.state == State::Terminated
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{milliseconds, seconds};

    const T: SipTimers = SipTimers::STANDARD;

    #[test]
    fn completed_resends_the_final_response_until_acked() {
        let mut server = InviteServer::new(false);
        assert!(server.handle_final(Moment(0), 486, &T));
        let mut sent = Vec::new();
        while sent.len() < 6 {
            let now = server.poll_timeout();
            assert_eq!(server.handle_timeout(now, &T), ServerAction::Retransmit);
            sent.push(now.0 / 1000);
        }
        assert_eq!(sent, [500, 1_500, 3_500, 7_500, 11_500, 15_500]);
        assert_eq!(server.handle_ack(Moment(seconds(16)), &T), AckOutcome::Absorb);
        assert_eq!(server.handle_timeout(Moment(seconds(21)), &T), ServerAction::Terminated);
    }

    #[test]
    fn an_unacknowledged_refusal_ends_with_timer_h() {
        let mut server = InviteServer::new(true);
        server.handle_final(Moment(0), 404, &T);
        assert_eq!(server.poll_timeout(), Moment(T.linger));
        assert_eq!(server.handle_timeout(Moment(T.linger), &T), ServerAction::Terminated);
        assert!(server.is_terminated());
    }

    #[test]
    fn after_a_2xx_only_further_2xx_pass() {
        let mut server = InviteServer::new(false);
        assert!(server.handle_final(Moment(0), 200, &T));
        assert!(server.handle_final(Moment(milliseconds(5)), 200, &T));
        assert!(!server.handle_final(Moment(milliseconds(6)), 486, &T));
        assert_eq!(server.handle_ack(Moment(milliseconds(9)), &T), AckOutcome::PassToTu);
        assert!(!server.answers_retransmission());
    }
}
