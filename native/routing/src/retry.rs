//! Which failed attempts are followed by another gateway.

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nobody answered in time.
    Silence,
    /// The network, or the transport, refused.
    Unreachable,
    /// It has no address, or none that a listener of ours sends to: nothing went out.
    OutOfReach,
    /// It rang, and then the time was up.
    RangOut,
    /// It was refused with this status code and, where its Reason header field had one, this Q.850 cause (RFC 3326).
    Refused(u16, Option<u16>),
}

/// What is retried. A cause says more than a code, what stops more than what goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryRules {
    /// Status codes that are retried.
    pub codes: Vec<u16>,
    /// Q.850 causes that are retried.
    pub causes: Vec<u16>,
    /// Q.850 causes that are not.
    pub stop_causes: Vec<u16>,
    /// Whether silence is retried.
    pub silence: bool,
    /// Whether what rang too long is.
    pub ringing: bool,
}

impl RetryRules {
    /// Whether another gateway is tried.
    pub fn retries(&self, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Silence => self.silence,
            Outcome::Unreachable | Outcome::OutOfReach => true,
            Outcome::RangOut => self.ringing,
            Outcome::Refused(_, Some(cause)) if self.stop_causes.contains(&cause) => false,
            Outcome::Refused(_, Some(cause)) if self.causes.contains(&cause) => true,
            Outcome::Refused(code, _) => self.codes.contains(&code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_say_more_than_codes() {
        let rules = RetryRules { codes: vec![500, 503], causes: vec![34, 38], stop_causes: vec![1, 17], silence: true, ringing: false };
        let table = [
            (Outcome::Silence, true),
            (Outcome::Unreachable, true),
            (Outcome::OutOfReach, true),
            (Outcome::RangOut, false),
            (Outcome::Refused(503, None), true),
            (Outcome::Refused(503, Some(17)), false),
            (Outcome::Refused(404, Some(34)), true),
            (Outcome::Refused(503, Some(99)), true),
            (Outcome::Refused(486, None), false),
            (Outcome::Refused(404, Some(1)), false),
        ];
        for (outcome, wanted) in table {
            assert_eq!(rules.retries(outcome), wanted, "{outcome:?}");
        }
    }
}
