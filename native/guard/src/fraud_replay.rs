//! What a profile would have said of calls that were: to tune it before it acts.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::fraud::{Alarm, Fraud, FraudTerms, Level, WatchedCall};
use crate::fraud_rules::{Figure, FraudRules};

/// A call of the past. Times are microseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastCall {
    /// When it began.
    pub started: u64,
    /// When it was answered, 0 where it was not.
    pub answered: u64,
    /// When it ended.
    pub ended: u64,
    /// Who called.
    pub user: String,
    /// Whom.
    pub number: String,
    /// The profile that it goes by.
    pub profile: u32,
    /// A hash of the number.
    pub hashed: u64,
}

/// An alarm that would have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PastAlarm {
    /// When, microseconds since 1970.
    pub at: u64,
    /// The call's place.
    pub call: usize,
    /// The rule.
    pub rule: u32,
    /// What was crossed.
    pub alarm: Alarm,
}

/// When something is due of which call: its end, or a threshold of its duration, which counts when both come at once.
type Due = BinaryHeap<Reverse<(u64, bool, usize, Level, u32)>>;

/// Tells what is due until a moment, and ends the calls that end.
fn pass(until: u64, due: &mut Due, live: &mut [Option<WatchedCall>]) -> Vec<PastAlarm> {
    let mut alarms = Vec::new();
    while let Some(Reverse((at, ends, place, level, threshold))) = due.peek().copied().filter(|Reverse((at, ..))| *at <= until) {
        due.pop();
        if ends {
            live[place] = None;
        } else if let Some(call) = &live[place] {
            let alarm = Alarm { figure: Figure::CallDuration, level, value: threshold, threshold, news: true };
            alarms.push(PastAlarm { at, call: place, rule: call.rule.id, alarm });
        }
    }
    alarms
}

/// Runs calls of the past, in the order of their beginnings, by `rules`.
pub fn replay(rules: &FraudRules, terms: FraudTerms, calls: &[PastCall]) -> Vec<PastAlarm> {
    let (fraud, mut found) = (Fraud::new(usize::MAX), Vec::new());
    let mut order: Vec<usize> = (0..calls.len()).collect();
    order.sort_by_key(|place| calls[*place].started);
    let mut live: Vec<Option<WatchedCall>> = (0..calls.len()).map(|_| None).collect();
    let mut due = Due::new();
    for place in order {
        let call = &calls[place];
        found.extend(pass(call.started, &mut due, &mut live));
        let wall = (call.started / 1_000_000) as i64;
        let Some(finding) = fraud.begin(rules, terms, call.started, wall, &call.user, call.profile, &call.number, call.hashed) else { continue };
        let Some(watched) = finding.call else { continue };
        found.extend(finding.alarms.iter().map(|alarm| PastAlarm { at: call.started, call: place, rule: watched.rule.id, alarm: *alarm }));
        for (level, seconds) in watched.durations() {
            let at = call.answered + u64::from(seconds) * 1_000_000;
            if call.answered > 0 && at <= call.ended {
                due.push(Reverse((at, false, place, level, seconds)));
            }
        }
        live[place] = Some(watched);
        due.push(Reverse((call.ended.max(call.started), true, place, Level::Warning, 0)));
    }
    found.extend(pass(u64::MAX, &mut due, &mut live));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fraud_rules::FraudRule;

    #[test]
    fn the_past_is_told_as_it_would_have_been() {
        let rule =
            FraudRule { id: 3, profile: 1, prefix: "".into(), minutes: (0, 1439), days: 127, thresholds: [[0; 2], [0; 2], [2, 0], [0; 2], [60, 0], [0; 2]] };
        let rules = FraudRules::new(vec![rule], Vec::new());
        let call = |started: u64, answered: u64, ended: u64, number: &str| PastCall {
            started: started * 1_000_000,
            answered: answered * 1_000_000,
            ended: ended * 1_000_000,
            user: "alice".to_owned(),
            number: number.to_owned(),
            profile: 1,
            hashed: started,
        };
        // Written when they ended: the long one last.
        let calls = [call(150, 151, 160, "1"), call(400, 0, 500, "2"), call(100, 101, 300, "3")];
        let told: Vec<_> =
            replay(&rules, FraudTerms::default(), &calls).iter().map(|past| (past.at / 1_000_000, past.call, past.alarm.figure.name(), past.rule)).collect();
        assert_eq!(told, [(150, 0, "concurrent-calls", 3), (161, 2, "call-duration", 3)]);
    }
}
