//! The INVITE client transaction.

use super::{ClientAction, SipTimers};
use crate::Moment;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Calling,
    Proceeding,
    /// Given up without a final answer, which may come all the same.
    Abandoned,
    Completed,
    Accepted,
    Terminated,
}

/// What to do with a final response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinalOutcome {
    /// The first one: pass it on; acknowledge it where it is no 2xx.
    First,
    /// A 2xx after a 2xx: pass it on, it may be of another fork or a retransmission (RFC 6026 section 8.4).
    AnotherSuccess,
    /// A retransmitted refusal: acknowledge it again and pass nothing on.
    Repeated,
    /// Of one that was given up long before timer B: a 2xx is passed on, a refusal acknowledged and passed on to nobody.
    Late,
    /// Too late to mean anything.
    Ignore,
}

/// INVITE client transaction (RFC 3261 section 17.1.1, RFC 6026 section 7.2).
///
/// ```text
/// Calling --1xx--> Proceeding --300-699--> Completed --D--> Terminated
///    | A: resend       |  `-------2xx----> Accepted ---M--> Terminated
///    |                 `--C: no final answer (CANCEL) --abandon--> Abandoned
///    `--first answer: no answer--> Abandoned --200-699--> Accepted or Completed
/// ```
/// `first answer` may be shorter than timer B: then the far end, which has the request, may answer later. So it may where
/// timer C ran out and the call went on elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct InviteClient {
    state: State,
    reliable: bool,
    interval: u32,
    retransmit_at: Moment,
    give_up_at: Moment,
}

impl InviteClient {
    /// The request was just sent; `first_answer` is how long any answer may take, at most timer B of 64 × T1.
    pub fn new(now: Moment, reliable: bool, first_answer: u64, timers: &SipTimers) -> Self {
        let retransmit_at = if reliable { Moment::NEVER } else { now + timers.t1 };
        Self { state: State::Calling, reliable, interval: timers.t1 as u32, retransmit_at, give_up_at: now + first_answer.min(64 * timers.t1) }
    }

    /// A 1xx came; `final_answer` is how long the final one may take from now on. A 100 after another one says nothing new
    /// (RFC 3261 section 16.7 step 2).
    pub fn handle_provisional(&mut self, now: Moment, status_code: u16, final_answer: u64) {
        match self.state {
            State::Proceeding if status_code == 100 => {}
            State::Calling | State::Proceeding => {
                self.state = State::Proceeding;
                self.retransmit_at = Moment::NEVER;
                self.give_up_at = now + final_answer;
            }
            State::Abandoned | State::Completed | State::Accepted | State::Terminated => {}
        }
    }

    /// A final response came.
    pub fn handle_final(&mut self, now: Moment, status_code: u16, timers: &SipTimers) -> FinalOutcome {
        let success = status_code < 300;
        match self.state {
            State::Calling | State::Proceeding => {
                self.retransmit_at = Moment::NEVER;
                self.state = if success { State::Accepted } else { State::Completed };
                // Timer D is zero over a reliable transport; timer M is not, since a 2xx may come from other forks.
                self.give_up_at = if self.reliable && !success { now } else { now + timers.linger };
                FinalOutcome::First
            }
            State::Abandoned => {
                self.state = if success { State::Accepted } else { State::Completed };
                self.give_up_at = if self.reliable && !success { now } else { now + timers.linger };
                FinalOutcome::Late
            }
            State::Completed if !success => FinalOutcome::Repeated,
            State::Accepted if success => FinalOutcome::AnotherSuccess,
            State::Completed | State::Accepted | State::Terminated => FinalOutcome::Ignore,
        }
    }

    /// A CANCEL was sent: the final response must come within 64 × T1 (RFC 3261 section 9.1).
    pub fn handle_cancel_sent(&mut self, now: Moment, timers: &SipTimers) {
        match self.state {
            State::Calling | State::Proceeding => self.give_up_at = self.give_up_at.min(now + 64 * timers.t1),
            // Its refusal is still to be acknowledged.
            State::Abandoned => self.give_up_at = now + 64 * timers.t1,
            State::Completed | State::Accepted | State::Terminated => {}
        }
    }

    /// Nobody waits for the final answer of one that was just cancelled: it may come all the same.
    pub fn abandon(&mut self) {
        if self.state == State::Proceeding {
            self.state = State::Abandoned;
        }
    }

    /// The same for one that perhaps nobody has heard of yet, and that is not sent again: what comes late is to be cancelled then.
    pub fn give_up(&mut self) {
        if matches!(self.state, State::Calling | State::Proceeding) {
            (self.state, self.retransmit_at) = (State::Abandoned, Moment::NEVER);
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
            State::Calling if now >= self.give_up_at => {
                (self.state, self.retransmit_at) = (State::Abandoned, Moment::NEVER);
                self.give_up_at = now + timers.linger;
                ClientAction::NoAnswer
            }
            State::Calling if now >= self.retransmit_at => {
                self.interval = self.interval.saturating_mul(2);
                self.retransmit_at = now + u64::from(self.interval);
                ClientAction::Retransmit
            }
            State::Proceeding if now >= self.give_up_at => {
                self.give_up_at = now + 64 * timers.t1;
                ClientAction::NoFinalAnswer
            }
            State::Abandoned | State::Completed | State::Accepted if now >= self.give_up_at => {
                self.handle_transport_error();
                ClientAction::Terminated
            }
            State::Calling | State::Proceeding | State::Abandoned | State::Completed | State::Accepted | State::Terminated => ClientAction::Wait,
        }
    }

    /// When [`InviteClient::handle_timeout`] should be called next.
    pub fn poll_timeout(&self) -> Moment {
        self.retransmit_at.min(self.give_up_at)
    }

    /// Whether no final response has come yet.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Calling | State::Proceeding)
    }

    /// Whether a provisional response has come and no final one: only then may a CANCEL go out (RFC 3261 section 9.1).
    pub fn is_proceeding(&self) -> bool {
        self.state == State::Proceeding
    }

    /// Whether it was given up without any answer, and may be answered still.
    pub fn is_abandoned(&self) -> bool {
        self.state == State::Abandoned
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

    fn run(client: &mut InviteClient, until: Moment) -> Vec<(u64, ClientAction)> {
        let mut seen = Vec::new();
        while client.poll_timeout() <= until {
            let now = client.poll_timeout();
            seen.push((now.0 / 1000, client.handle_timeout(now, &T)));
        }
        seen
    }

    #[test]
    fn an_unanswered_invite_is_sent_seven_times_and_given_up_after_32_seconds() {
        let mut client = InviteClient::new(Moment(0), false, seconds(60), &T);
        let seen = run(&mut client, Moment(seconds(100)));
        let sent: Vec<_> = seen.iter().filter(|(_, a)| *a == ClientAction::Retransmit).map(|(t, _)| *t).collect();
        assert_eq!(sent, [500, 1_500, 3_500, 7_500, 15_500, 31_500]);
        assert_eq!(seen[6..], [(32_000, ClientAction::NoAnswer), (64_000, ClientAction::Terminated)]);
        assert!(client.is_terminated());
    }

    #[test]
    fn an_answer_after_it_was_given_up_is_late_and_no_news() {
        let given_up = || {
            let mut client = InviteClient::new(Moment(0), false, seconds(1), &T);
            assert_eq!(run(&mut client, Moment(seconds(1))).last(), Some(&(1_000, ClientAction::NoAnswer)));
            assert!(client.is_abandoned() && !client.is_open() && !client.is_terminated());
            client
        };
        let mut client = given_up();
        client.handle_provisional(Moment(seconds(2)), 180, T.c);
        assert!(client.is_abandoned(), "nobody waits for it any more");
        assert_eq!(client.handle_final(Moment(seconds(3)), 200, &T), FinalOutcome::Late);
        assert_eq!(client.handle_final(Moment(seconds(3)), 200, &T), FinalOutcome::AnotherSuccess);
        let mut client = given_up();
        client.handle_cancel_sent(Moment(seconds(20)), &T);
        assert_eq!(client.handle_final(Moment(seconds(50)), 487, &T), FinalOutcome::Late);
        assert_eq!(client.handle_final(Moment(seconds(51)), 487, &T), FinalOutcome::Repeated);
        assert_eq!(run(&mut client, Moment(seconds(90))), [(82_000, ClientAction::Terminated)]);
    }

    #[test]
    fn a_provisional_response_stops_timer_a_and_starts_timer_c() {
        let mut client = InviteClient::new(Moment(0), false, seconds(32), &T);
        client.handle_provisional(Moment(milliseconds(600)), 100, T.c);
        client.handle_provisional(Moment(milliseconds(900)), 100, T.c);
        assert_eq!(run(&mut client, Moment(seconds(186))), [(185_600, ClientAction::NoFinalAnswer)]);
        assert!(client.is_proceeding());
        client.handle_provisional(Moment(seconds(187)), 180, T.c);
        assert_eq!(run(&mut client, Moment(seconds(400))).first(), Some(&(372_000, ClientAction::NoFinalAnswer)), "a 180 is news, a second 100 is not");
    }

    #[test]
    fn one_that_is_given_up_is_sent_no_more_and_its_late_answer_is_known() {
        let mut client = InviteClient::new(Moment(0), false, seconds(300), &T);
        client.give_up();
        assert!(client.is_abandoned() && !client.is_open());
        assert_eq!(client.handle_timeout(Moment(seconds(1)), &T), ClientAction::Wait);
        assert_eq!(client.handle_final(Moment(seconds(2)), 200, &T), FinalOutcome::Late);
    }

    #[test]
    fn one_that_is_abandoned_after_its_cancel_is_acknowledged_and_ends_with_it() {
        let mut client = InviteClient::new(Moment(0), false, seconds(32), &T);
        client.abandon();
        assert!(client.is_open(), "what nobody answered yet has its own end");
        client.handle_provisional(Moment(0), 100, seconds(10));
        assert_eq!(client.handle_timeout(Moment(seconds(10)), &T), ClientAction::NoFinalAnswer);
        client.handle_cancel_sent(Moment(seconds(10)), &T);
        client.abandon();
        assert_eq!(run(&mut client.clone(), Moment(seconds(90))), [(42_000, ClientAction::Terminated)]);
        assert_eq!(client.handle_final(Moment(seconds(11)), 487, &T), FinalOutcome::Late);
    }

    #[test]
    fn a_repeated_refusal_is_acknowledged_until_timer_d_ends() {
        let mut client = InviteClient::new(Moment(0), false, seconds(32), &T);
        assert_eq!(client.handle_final(Moment(10), 486, &T), FinalOutcome::First);
        assert_eq!(client.handle_final(Moment(20), 486, &T), FinalOutcome::Repeated);
        assert_eq!(client.handle_final(Moment(30), 200, &T), FinalOutcome::Ignore);
        assert_eq!(client.handle_timeout(Moment(10) + T.linger, &T), ClientAction::Terminated);
        assert_eq!(client.handle_final(Moment(seconds(60)), 486, &T), FinalOutcome::Ignore);
    }

    #[test]
    fn every_2xx_is_passed_on_while_accepted() {
        let mut client = InviteClient::new(Moment(0), true, seconds(32), &T);
        assert_eq!(client.handle_final(Moment(10), 200, &T), FinalOutcome::First);
        assert_eq!(client.handle_final(Moment(20), 200, &T), FinalOutcome::AnotherSuccess);
        assert_eq!(client.handle_final(Moment(20), 500, &T), FinalOutcome::Ignore);
        assert!(!client.is_open() && !client.is_terminated());
    }
}
