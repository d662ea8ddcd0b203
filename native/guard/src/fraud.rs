//! Fraud figures: what each user does towards each prefix, and which thresholds that crosses.
//!
//! A figure counts the call at hand, and is compared with `>=`. A crossing is told once, until the figure was below again. Figures of a
//! key lie behind a lock of that key: only calls of one user to one prefix ever wait for each other, for a few dozen instructions.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use crate::fraud_others::{FraudOthers, FraudTold};
use crate::fraud_rules::{Figure, FraudRule, FraudRules};
use crate::keyed::{Holder, Keyed, NotHeld};

const BUCKETS: usize = 60;
const SECOND: u64 = 1_000_000;
/// Calls of a user who may be forgotten where room is short, and since when there was none.
const FEW: u32 = 2;
const IDLE_SECONDS: u64 = 3_600;
/// Stands between user, profile and prefix in a key; no SIP URI has it.
const PARTED: char = '\u{1f}';

/// How far a threshold was crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The first threshold.
    Warning,
    /// The second one.
    Critical,
}

/// A threshold was crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alarm {
    /// Of what.
    pub figure: Figure,
    /// Which one.
    pub level: Level,
    /// What the figure was.
    pub value: u32,
    /// What the threshold is.
    pub threshold: u32,
    /// Whether this call crossed it; else it is one of those beyond, which are told where that is wished.
    pub news: bool,
}

/// Alarms of one call.
pub type Alarms = SmallVec<[Alarm; 2]>;

/// What is counted of one user and prefix.
#[derive(Debug, Default)]
struct Figures {
    rule: u32,
    /// [`FraudRule::period`] that total and sequential calls are of.
    period: i64,
    total: u32,
    sequential: u32,
    /// A hash of the number dialled last.
    last: u64,
    /// Calls of each of the last seconds, by the second's number.
    buckets: Buckets,
    /// Thresholds that were told: two bits for each figure.
    told: u16,
    /// Thresholds that are to be told once more, whoever told them before.
    again: u16,
    /// Thresholds that calls are beyond which were let in: once the figure is below, crossing one again is news.
    beyond: u16,
}

#[derive(Debug)]
struct Buckets {
    newest: u64,
    counts: [u16; BUCKETS],
}

impl Default for Buckets {
    fn default() -> Self {
        Self { newest: 0, counts: [0; BUCKETS] }
    }
}

impl Buckets {
    /// Moves on to a second; what is older than a minute is forgotten.
    fn go_on(&mut self, second: u64) {
        for passed in (self.newest + 1..=second).take(BUCKETS) {
            *self.at(passed) = 0;
        }
        self.newest = self.newest.max(second);
    }

    fn at(&mut self, second: u64) -> &mut u16 {
        &mut self.counts[(second % BUCKETS as u64) as usize]
    }

    fn sum(&self) -> u32 {
        self.counts.iter().map(|count| u32::from(*count)).sum()
    }
}

/// The value of a key.
#[derive(Debug, Default)]
pub struct FraudValue(Mutex<Figures>);

impl FraudValue {
    fn lock(&self) -> MutexGuard<'_, Figures> {
        // What a panic left half done are counts, and none is worse than another.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How calls are watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FraudTerms {
    /// Whether each call beyond a threshold is told, and not only the one that crosses it.
    pub each_call: bool,
    /// Calls within a second that are a warning, and critical, for every rule.
    pub calls_per_second: [u32; 2],
}

/// One call that is watched; while it is kept it counts among those at once.
#[derive(Debug)]
pub struct WatchedCall {
    holder: Holder<FraudValue>,
    /// The rule that it goes by.
    pub rule: Arc<FraudRule>,
    second: u64,
    before: (u32, u64, u16),
    /// Thresholds that it is the first one beyond.
    beyond: u16,
    period: i64,
    hashed: u64,
    sequential: u32,
}

/// What a call came to.
#[derive(Debug, Default)]
pub struct FraudFinding {
    /// The call, where there was room to count it.
    pub call: Option<WatchedCall>,
    /// What is to be told.
    pub alarms: Alarms,
    /// The worst threshold that any figure is beyond, whether that is news or not.
    pub level: Option<Level>,
}

/// What is known of one user and prefix, for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FraudStats {
    /// The user.
    pub user: String,
    /// The profile.
    pub profile: u32,
    /// The prefix.
    pub prefix: String,
    /// The rule that counted last.
    pub rule: u32,
    /// Calls within the last minute.
    pub calls_per_minute: u32,
    /// Calls since window or day began.
    pub total_calls: u32,
    /// Calls at once.
    pub concurrent_calls: u32,
    /// Calls of one number in a row.
    pub sequential_calls: u32,
}

/// What survives a restart of one user and prefix.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FraudRow {
    key: String,
    rule: u32,
    #[serde(alias = "day")]
    period: i64,
    total: u32,
    sequential: u32,
    last: u64,
    told: u16,
    /// The age of calls of the last minute in seconds, with their numbers.
    minute: Vec<(u8, u16)>,
}

/// The figures of all users.
#[derive(Debug)]
pub struct Fraud {
    table: Arc<Keyed<FraudValue>>,
    others: FraudOthers,
}

fn key_of(user: &str, rule: &FraudRule) -> String {
    format!("{user}{PARTED}{}{PARTED}{}", rule.profile, rule.prefix)
}

impl Fraud {
    /// Figures of `keys` users and prefixes at most.
    pub fn new(keys: usize) -> Self {
        Self { table: Arc::new(Keyed::keeping(keys)), others: FraudOthers::default() }
    }

    /// Keys that are there.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Counts a call of `user` to `number`, whose hash is `hashed`, at `now` microseconds of the monotonic clock and `wall` seconds
    /// since 1970. Nothing where no rule is for it.
    #[expect(clippy::too_many_arguments, reason = "one call with the clocks that it is counted by")]
    pub fn begin(
        &self,
        rules: &FraudRules,
        terms: FraudTerms,
        now: u64,
        wall: i64,
        user: &str,
        profile: u32,
        number: &str,
        hashed: u64,
    ) -> Option<FraudFinding> {
        let time = rules.local(wall);
        let rule = rules.find(profile, number, time)?;
        let holder = match self.table.hold(&key_of(user, rule), u32::MAX, FraudValue::default) {
            Ok(holder) => holder,
            Err(NotHeld::Full(_) | NotHeld::NoRoom) => return Some(FraudFinding::default()),
        };
        let second = now / SECOND + 1;
        let period = rule.period(time);
        let concurrent = holder.slot().holders();
        let mut figures = holder.slot().value().lock();
        if (figures.rule, figures.period) != (rule.id, period) {
            (figures.total, figures.sequential, figures.last) = (0, 0, 0);
            // A new window, or a new day: what crosses a threshold of it is news again.
            figures.told &= Self::bits(Figure::ConcurrentCalls) | Self::bits(Figure::CallsPerMinute) | Self::bits(Figure::CallsPerSecond);
            (figures.rule, figures.period) = (rule.id, period);
        }
        let before = (figures.sequential, figures.last, figures.told & Self::bits(Figure::SequentialCalls));
        figures.total = figures.total.saturating_add(1);
        figures.sequential = if figures.last == hashed { figures.sequential.saturating_add(1) } else { 1 };
        figures.last = hashed;
        let sequential = figures.sequential;
        figures.buckets.go_on(second);
        let bucket = figures.buckets.at(second);
        *bucket = bucket.saturating_add(1);
        let this_second = u32::from(*bucket);
        let mut beyond = 0;
        let elsewhere = self.others.of(holder.slot().key(), rule.id, period, hashed);
        let values = [
            (Figure::CallsPerMinute, figures.buckets.sum().saturating_add(elsewhere.minute)),
            (Figure::TotalCalls, figures.total.saturating_add(elsewhere.total)),
            (Figure::ConcurrentCalls, concurrent.saturating_add(elsewhere.concurrent)),
            (Figure::SequentialCalls, figures.sequential.saturating_add(elsewhere.sequential)),
            (Figure::CallsPerSecond, this_second),
        ];
        let (mut alarms, mut worst) = (Alarms::new(), None);
        for (figure, value) in values {
            for level in [Level::Critical, Level::Warning] {
                let own = if figure == Figure::CallsPerSecond { Some(terms.calls_per_second[level as usize]).filter(|most| *most > 0) } else { None };
                let Some(threshold) = own.or_else(|| rule.threshold(figure, level as usize)) else { continue };
                let bit = 1 << (2 * figure as u16 + level as u16);
                // What ends, or is a minute old, is looked at with the next call only: without that one the figure may have been below.
                let fell = matches!(figure, Figure::CallsPerMinute | Figure::ConcurrentCalls) && value - 1 < threshold && figures.beyond & bit != 0;
                if value < threshold || fell {
                    figures.told &= !bit;
                    figures.again &= !bit;
                    figures.beyond &= !bit;
                }
                if value < threshold {
                    continue;
                }
                beyond |= bit & !figures.beyond;
                figures.beyond |= bit;
                worst = worst.max(Some(level));
                // What another node has told is no news, and its bar may have been lifted since.
                let news = (figures.told | elsewhere.told) & bit == 0 || figures.again & bit != 0;
                figures.told |= bit;
                figures.again &= !bit;
                if terms.each_call || news {
                    alarms.push(Alarm { figure, level, value, threshold, news });
                }
            }
        }
        drop(figures);
        // Critical ones first, each in the order of the figures.
        alarms.sort_by_key(|alarm| std::cmp::Reverse(alarm.level));
        Some(FraudFinding {
            call: Some(WatchedCall { holder, rule: Arc::clone(rule), second, before, beyond, period, hashed, sequential }),
            alarms,
            level: worst,
        })
    }

    /// What `users` are beyond at these levels is news again, whichever node told it before. It looks at all figures once.
    pub fn tell_again(&self, users: &HashSet<Box<str>>, levels: &[Level]) {
        if users.is_empty() {
            return;
        }
        let bits =
            Figure::ALL.iter().flat_map(|figure| levels.iter().map(move |level| 1u16 << (2 * *figure as u16 + *level as u16))).fold(0, |all, bit| all | bit);
        for slot in self.table.all() {
            if slot.key().split(PARTED).next().is_some_and(|user| users.contains(user)) {
                slot.value().lock().again |= bits;
            }
        }
    }

    const fn bits(figure: Figure) -> u16 {
        3 << (2 * figure as u16)
    }

    /// What is known of `user`, or of all; so many at most.
    pub fn stats(&self, user: Option<&str>, now: u64, most: usize) -> Vec<FraudStats> {
        let mut found = Vec::new();
        for slot in self.table.all() {
            let mut parts = slot.key().split(PARTED);
            let (Some(own), Some(profile), Some(prefix)) = (parts.next(), parts.next(), parts.next()) else { continue };
            if user.is_some_and(|user| user != own) {
                continue;
            }
            let mut figures = slot.value().lock();
            figures.buckets.go_on(now / SECOND + 1);
            let elsewhere = self.others.of(slot.key(), figures.rule, figures.period, figures.last);
            found.push(FraudStats {
                user: own.to_owned(),
                profile: profile.parse().unwrap_or_default(),
                prefix: prefix.to_owned(),
                rule: figures.rule,
                calls_per_minute: figures.buckets.sum().saturating_add(elsewhere.minute),
                total_calls: figures.total.saturating_add(elsewhere.total),
                concurrent_calls: slot.holders().saturating_add(elsewhere.concurrent),
                sequential_calls: figures.sequential.saturating_add(elsewhere.sequential),
            });
        }
        found.sort_by(|a, b| b.total_calls.cmp(&a.total_calls).then_with(|| (&a.user, &a.prefix).cmp(&(&b.user, &b.prefix))));
        found.truncate(most);
        found
    }

    /// What other nodes are to hear: so many users and prefixes at most, those that call now first, then those with the most calls.
    pub fn told(&self, now: u64, most: usize) -> Vec<FraudTold> {
        let second = now / SECOND + 1;
        let mut slots = self.table.all();
        if slots.len() > most {
            slots.sort_by_cached_key(|slot| {
                let mut figures = slot.value().lock();
                figures.buckets.go_on(second);
                std::cmp::Reverse((figures.buckets.sum().max(slot.holders()) > 0, figures.total))
            });
            slots.truncate(most);
        }
        let row = |slot: &Arc<crate::keyed::Slot<FraudValue>>| {
            let mut figures = slot.value().lock();
            figures.buckets.go_on(second);
            let (rule, period, total, sequential, last) = (figures.rule, figures.period, figures.total, figures.sequential, figures.last);
            let (minute, concurrent) = (figures.buckets.sum(), slot.holders());
            // A figure that fell is looked at with the next call only.
            let fell = |figure: Figure, value: u32| if value == 0 { Self::bits(figure) } else { 0 };
            let over = fell(Figure::CallsPerMinute, minute) | fell(Figure::CallsPerSecond, minute) | fell(Figure::ConcurrentCalls, concurrent);
            // What is news here again is no old story elsewhere.
            let told = figures.told & !over & !figures.again;
            FraudTold { key: slot.key().to_owned(), rule, period, total, minute, concurrent, sequential, last, told }
        };
        slots.iter().map(row).collect()
    }

    /// Takes over what all other nodes say, instead of what they said before.
    pub fn hear(&self, told: Vec<FraudTold>) {
        self.others.hear(told);
    }

    /// Has room for `keys` users and prefixes from now on.
    pub fn set_most(&self, keys: usize) {
        self.table.set_most(keys);
    }

    /// Forgets those of other days who neither call by now nor did within the last minute; and where there is hardly any room left,
    /// those who called once or twice and not within the last hour: whoever makes users up must not keep others from being watched.
    pub fn sweep(&self, rules: &FraudRules, now: u64, wall: i64) {
        let day = rules.local(wall).day;
        let crowded = self.table.is_crowded();
        for slot in self.table.all() {
            let figures = slot.value().lock();
            let idle = figures.total <= FEW && figures.buckets.newest + IDLE_SECONDS < now / SECOND;
            // The minute slides across midnight.
            let over = figures.buckets.newest + BUCKETS as u64 <= now / SECOND + 1;
            let old = FraudRule::day_of(figures.period) != day && over || crowded && idle;
            drop(figures);
            if old {
                self.table.retire(&slot);
            }
        }
    }

    /// What survives a restart.
    pub fn rows(&self, now: u64) -> Vec<FraudRow> {
        let second = now / SECOND + 1;
        let row = |slot: &Arc<crate::keyed::Slot<FraudValue>>| {
            let mut figures = slot.value().lock();
            figures.buckets.go_on(second);
            let ages = (0..BUCKETS as u64).filter_map(|age| {
                let count = *figures.buckets.at(second.checked_sub(age)?);
                (count > 0).then_some((age as u8, count))
            });
            let minute = ages.collect();
            FraudRow {
                key: slot.key().to_owned(),
                rule: figures.rule,
                period: figures.period,
                total: figures.total,
                sequential: figures.sequential,
                last: figures.last,
                // Nothing is at once after a restart.
                told: figures.told & !Self::bits(Figure::ConcurrentCalls),
                minute,
            }
        };
        self.table.all().iter().map(row).collect()
    }

    /// Takes over what was kept `ago` seconds before.
    pub fn restore(&self, rows: &[FraudRow], now: u64, ago: u64) {
        let second = now / SECOND + 1;
        for row in rows {
            let Ok(holder) = self.table.hold(&row.key, u32::MAX, FraudValue::default) else { return };
            let mut figures = holder.slot().value().lock();
            let buckets = Buckets { newest: second, counts: [0; BUCKETS] };
            *figures = Figures {
                rule: row.rule,
                period: row.period,
                total: row.total,
                sequential: row.sequential,
                last: row.last,
                told: row.told,
                again: 0,
                beyond: 0,
                buckets,
            };
            for (age, count) in &row.minute {
                let age = u64::from(*age) + ago;
                if age < BUCKETS as u64 {
                    // Before the clock began there were seconds all the same.
                    let place = (second + BUCKETS as u64 - age) % BUCKETS as u64;
                    figures.buckets.counts[place as usize] = *count;
                }
            }
        }
    }
}

impl WatchedCall {
    /// The user and what it is counted under.
    pub fn user(&self) -> &str {
        self.holder.slot().key().split(PARTED).next().unwrap_or_default()
    }

    /// It was refused: as if it had not been.
    pub fn take_back(self) {
        let mut figures = self.holder.slot().value().lock();
        figures.beyond &= !self.beyond;
        if (figures.rule, figures.period) == (self.rule.id, self.period) {
            figures.total = figures.total.saturating_sub(1);
            if figures.last == self.hashed && figures.sequential == self.sequential {
                let told;
                (figures.sequential, figures.last, told) = self.before;
                figures.told |= told;
            }
        }
        if figures.buckets.newest < self.second + BUCKETS as u64 {
            let bucket = figures.buckets.at(self.second);
            *bucket = bucket.saturating_sub(1);
        }
    }

    /// How many seconds after its answer there is something to say.
    pub fn durations(&self) -> impl Iterator<Item = (Level, u32)> {
        let threshold = |level: Level| self.rule.threshold(Figure::CallDuration, level as usize).map(|seconds| (level, seconds));
        [Level::Warning, Level::Critical].into_iter().filter_map(threshold).collect::<SmallVec<[_; 2]>>().into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Monday, 5 January 2026, noon UTC.
    const NOON: i64 = 1_767_614_400;

    fn rules(thresholds: [[u32; 2]; 6], minutes: (u16, u16)) -> FraudRules {
        let all = FraudRule { id: 7, profile: 1, prefix: "".into(), minutes: (0, 1439), days: 127, thresholds: [[0; 2]; 6] };
        FraudRules::new(vec![FraudRule { id: 9, prefix: "900".into(), minutes, thresholds, ..all.clone() }, all], Vec::new())
    }

    struct Bench(Fraud, FraudRules, FraudTerms);

    type Told = Vec<(&'static str, Level, u32, u32)>;

    impl Bench {
        fn call(&self, second: u64, number: &str) -> (Option<WatchedCall>, Told) {
            let hashed = number.bytes().fold(7, |sum: u64, byte| sum.wrapping_mul(31) + u64::from(byte));
            let FraudFinding { call, alarms, .. } = self.0.begin(&self.1, self.2, second * SECOND, NOON + second as i64, "alice", 1, number, hashed).unwrap();
            (call, alarms.into_iter().map(|alarm| (alarm.figure.name(), alarm.level, alarm.value, alarm.threshold)).collect())
        }
    }

    fn bench(thresholds: [[u32; 2]; 6]) -> Bench {
        Bench(Fraud::new(10), rules(thresholds, (0, 1439)), FraudTerms::default())
    }

    #[test]
    fn each_threshold_is_told_once_per_crossing() {
        let bench = bench([[2, 4], [0, 5], [0, 0], [0, 0], [0, 0], [0, 0]]);
        let told = |second, number: &str| bench.call(second, number).1;
        assert_eq!(told(0, "9001"), []);
        assert_eq!(told(10, "9002"), [("calls-per-minute", Level::Warning, 2, 2)]);
        assert_eq!(told(20, "9003"), []);
        assert_eq!(told(30, "9004"), [("calls-per-minute", Level::Critical, 4, 4)]);
        assert_eq!(told(40, "9005"), [("total-calls", Level::Critical, 5, 5)]);
        // The minute has slid: one is left of five, so that this is the second crossing.
        assert_eq!(told(95, "9006"), [("calls-per-minute", Level::Warning, 2, 2)]);
        assert_eq!(told(200, "9007"), []);
        assert_eq!(told(201, "9008"), [("calls-per-minute", Level::Warning, 2, 2)]);
        assert_eq!(bench.0.stats(Some("alice"), 201 * SECOND, 10)[0].total_calls, 8);
        assert!(bench.call(202, "123").1.is_empty() && bench.0.len() == 2, "another prefix, another count");
    }

    #[test]
    fn what_other_nodes_count_is_added_and_a_node_that_is_gone_is_not() {
        let thresholds = [[5, 0], [0, 30], [3, 0], [4, 0], [0; 2], [0; 2]];
        let (here, there) = (bench(thresholds), bench(thresholds));
        let hears = |rows: &[FraudTold]| here.0.hear(rows.to_vec());
        let (_kept, _) = there.call(0, "9001");
        let (kept, _) = there.call(1, "9001");
        let told = there.0.told(SECOND, 10);
        assert_eq!((told[0].total, told[0].minute, told[0].concurrent, told[0].sequential), (2, 2, 2, 2));
        hears(&told);
        let three = ("concurrent-calls", Level::Warning, 3, 3);
        assert_eq!(here.call(2, "9001").1, [three]);
        // Two there and two here of the same number; those of another number are no row.
        assert_eq!(here.call(3, "9001").1, [three, ("sequential-calls", Level::Warning, 4, 4)]);
        assert_eq!(here.call(4, "9002").1, [("calls-per-minute", Level::Warning, 5, 5), three]);
        let stats = &here.0.stats(None, 4 * SECOND, 1)[0];
        assert_eq!((stats.calls_per_minute, stats.total_calls, stats.concurrent_calls, stats.sequential_calls), (5, 5, 2, 1));
        // Totals of another rule or day are not ours, the last minute is.
        hears(&[FraudTold { period: told[0].period + 2, total: 900, ..told[0].clone() }, FraudTold { rule: 8, total: 900, ..told[0].clone() }]);
        assert_eq!(here.call(5, "9003").1, []);
        let stats = &here.0.stats(None, 5 * SECOND, 1)[0];
        assert_eq!((stats.calls_per_minute, stats.total_calls), (8, 4));
        hears(&[]);
        assert_eq!(here.0.stats(None, 5 * SECOND, 1)[0].calls_per_minute, 4);
        // A crossing that another node has told is no news.
        hears(&[FraudTold { told: 3 << (2 * Figure::SequentialCalls as u16), ..told[0].clone() }]);
        for second in [70, 71, 72, 73] {
            assert_eq!(here.call(second, "9005").1.iter().filter(|alarm| alarm.0 == "sequential-calls").count(), 0);
        }
        assert_eq!(here.0.stats(None, 73 * SECOND, 1)[0].sequential_calls, 4);
        // What was refused is not told any more.
        kept.unwrap().take_back();
        assert_eq!((there.0.told(SECOND, 10)[0].total, there.0.told(SECOND, 10)[0].concurrent), (1, 1));
    }

    #[test]
    fn what_is_news_again_is_told_by_whichever_node_it_happens_at() {
        let thresholds = [[0; 2], [0, 3], [0; 2], [0; 2], [0; 2], [0; 2]];
        let (here, there) = (bench(thresholds), bench(thresholds));
        for second in 0..3 {
            there.call(second, "9001");
        }
        // The bar is over by its time: the account goes on elsewhere, where it has not called yet.
        there.0.tell_again(&std::iter::once("alice".into()).collect(), &[Level::Critical]);
        here.0.hear(there.0.told(3 * SECOND, 10));
        assert_eq!(here.call(4, "9001").1, [("total-calls", Level::Critical, 4, 3)]);
    }

    #[test]
    fn those_who_call_now_are_told_first_then_those_with_most_calls() {
        let bench = bench([[0; 2]; 6]);
        for (second, calls, prefix) in [(0, 1, "1"), (0, 3, "9001"), (100, 1, "")] {
            let user = format!("user{prefix}");
            for _ in 0..calls {
                bench.0.begin(&bench.1, bench.2, second * SECOND, NOON, &user, 1, "123", 7);
            }
        }
        let told =
            |most| bench.0.told(110 * SECOND, most).into_iter().map(|row| row.key.chars().take_while(|c| *c != PARTED).collect()).collect::<Vec<String>>();
        assert_eq!((told(1), told(2)), (vec!["user".to_owned()], vec!["user".to_owned(), "user9001".to_owned()]));
        assert_eq!(told(10).len(), 3);
    }

    #[test]
    fn the_minute_slides_second_by_second() {
        let bench = bench([[3, 0], [0; 2], [0; 2], [0; 2], [0; 2], [0; 2]]);
        let minute = |second: u64| bench.0.stats(None, second * SECOND, 1)[0].calls_per_minute;
        for second in [0, 30, 59] {
            bench.call(second, "9001");
        }
        assert_eq!((minute(59), minute(60), minute(89), minute(90), minute(118), minute(119), minute(500)), (3, 2, 2, 1, 1, 0, 0));
    }

    #[test]
    fn calls_at_once_are_those_that_live_and_refused_ones_never_were() {
        let bench = bench([[0; 2], [0; 2], [2, 3], [2, 0], [0; 2], [0; 2]]);
        let first = bench.call(0, "9001").0.unwrap();
        let (second, told) = bench.call(1, "9002");
        assert_eq!(told, [("concurrent-calls", Level::Warning, 2, 2)]);
        let (third, told) = bench.call(2, "9002");
        assert_eq!(told, [("concurrent-calls", Level::Critical, 3, 3), ("sequential-calls", Level::Warning, 2, 2)]);
        third.unwrap().take_back();
        let stats = bench.0.stats(None, 2 * SECOND, 1);
        assert_eq!((stats[0].total_calls, stats[0].concurrent_calls, stats[0].sequential_calls, stats[0].calls_per_minute), (2, 2, 1, 2));
        drop((first, second));
        // Both are over: the next one is below, and crossing again is news.
        let (_one, told) = bench.call(3, "9003");
        assert_eq!(told, []);
        assert_eq!(bench.call(4, "9004").1, [("concurrent-calls", Level::Warning, 2, 2)]);
    }

    #[test]
    fn a_figure_that_fell_and_crosses_again_is_news_and_a_refused_call_is_no_fall() {
        let warned = [("concurrent-calls", Level::Warning, 1, 1)];
        let one = bench([[0; 2], [0; 2], [1, 0], [0; 2], [0; 2], [0; 2]]);
        for second in 0..3 {
            let (call, told) = one.call(second, "9001");
            assert_eq!(told, warned, "each call ends before the next");
            drop(call);
        }
        let two = bench([[0; 2], [0; 2], [2, 0], [0; 2], [0; 2], [0; 2]]);
        let _held = two.call(0, "9001").0;
        for second in 1..3 {
            assert_eq!(two.call(second, "9002").1.len(), 1, "let in, and ended");
        }
        let refused = bench([[0; 2], [0; 2], [2, 0], [0; 2], [0; 2], [0; 2]]);
        let _held = refused.call(0, "9001").0;
        let told: Vec<usize> = (1..4)
            .map(|second| {
                let (call, told) = refused.call(second, "9002");
                call.unwrap().take_back();
                told.len()
            })
            .collect();
        assert_eq!(told, [1, 0, 0], "what was never let in changes nothing");
    }

    #[test]
    fn the_minute_slides_across_midnight() {
        let bench = bench([[4, 0], [0; 2], [0; 2], [0; 2], [0; 2], [0; 2]]);
        // Twelve hours after noon, on a clock that began then.
        let midnight = 43_200;
        for second in [midnight - 13, midnight - 12, midnight - 11] {
            bench.call(second, "9001");
        }
        bench.0.sweep(&bench.1, (midnight + 20) * SECOND, NOON + midnight as i64 + 20);
        assert_eq!(bench.call(midnight + 30, "9001").1, [("calls-per-minute", Level::Warning, 4, 4)]);
        bench.0.sweep(&bench.1, (midnight + 200) * SECOND, NOON + midnight as i64 + 200);
        assert_eq!(bench.0.len(), 1, "a new day has begun for it");
        bench.0.sweep(&bench.1, (midnight + 86_600) * SECOND, NOON + midnight as i64 + 86_600);
        assert!(bench.0.is_empty());
    }

    #[test]
    fn totals_begin_anew_with_the_day_and_with_another_window() {
        let bench = Bench(Fraud::new(10), rules([[0; 2], [2, 0], [0; 2], [0; 2], [0; 2], [0; 2]], (720, 779)), FraudTerms::default());
        let told = |second, number: &str| bench.call(second, number).1.len();
        assert_eq!((told(0, "9001"), told(1, "9001"), told(2, "9001")), (0, 1, 0));
        // At one o'clock the window is over, and the shorter prefix counts.
        assert_eq!((told(3_599, "9001"), told(3_600, "9001"), told(3_601, "9001")), (0, 0, 0));
        assert_eq!((told(86_400, "9001"), told(86_401, "9001")), (0, 1));
        bench.0.sweep(&bench.1, 5 * 86_400 * SECOND, NOON + 5 * 86_400);
        assert!(bench.0.is_empty());
    }

    #[test]
    fn a_window_that_opens_again_on_the_day_that_it_ended_on_begins_anew() {
        // From ten in the evening until two: noon is at 0.
        let bench = Bench(Fraud::new(10), rules([[0; 2], [2, 0], [0; 2], [2, 0], [0; 2], [0; 2]], (1_320, 120)), FraudTerms::default());
        let told = |minute: u64| bench.call(minute * 60, "9001").1.len();
        // 23:00, and past midnight, which begins anew too.
        assert_eq!([told(660), told(670)], [0, 2]);
        assert_eq!([told(730), told(780)], [0, 2]);
        // 22:10 of the day that began at that midnight.
        assert_eq!([told(2_050), told(2_060)], [0, 2]);
        bench.0.sweep(&bench.1, 2_070 * 60 * SECOND, NOON + 2_070 * 60);
        assert_eq!(bench.0.len(), 1);
        bench.0.sweep(&bench.1, 2_170 * 60 * SECOND, NOON + 2_170 * 60);
        assert_eq!(bench.0.len(), 0, "the next day, and nobody calls");
    }

    #[test]
    fn bursts_and_every_call_are_told_where_that_is_wished() {
        let terms = FraudTerms { each_call: true, calls_per_second: [0, 2] };
        let bench = Bench(Fraud::new(10), rules([[0; 2], [2, 0], [0; 2], [0; 2], [0; 2], [0; 2]], (0, 1439)), terms);
        assert_eq!(bench.call(0, "9001").1, []);
        assert_eq!(bench.call(0, "9002").1, [("calls-per-second", Level::Critical, 2, 2), ("total-calls", Level::Warning, 2, 2)]);
        assert_eq!(bench.call(9, "9003").1, [("total-calls", Level::Warning, 3, 2)]);
    }

    #[test]
    fn figures_survive_a_restart() {
        let bench = bench([[3, 0], [4, 0], [0; 2], [3, 0], [0; 2], [0; 2]]);
        bench.call(1_000, "9001");
        bench.call(1_020, "9001");
        let rows = bench.0.rows(1_020 * SECOND);
        let other = Bench(Fraud::new(10), bench.1, bench.2);
        // The new process's clock has just begun; 25 seconds have passed.
        other.0.restore(&rows, 5 * SECOND, 25);
        let stats = other.0.stats(None, 5 * SECOND, 1);
        assert_eq!((stats[0].total_calls, stats[0].calls_per_minute, stats[0].sequential_calls, stats[0].concurrent_calls), (2, 2, 2, 0));
        assert_eq!(other.0.stats(None, 21 * SECOND, 1)[0].calls_per_minute, 1);
        assert_eq!(other.call(22, "9001").1, [("sequential-calls", Level::Warning, 3, 3)]);
    }

    #[test]
    fn a_full_table_watches_no_more() {
        let bench = Bench(Fraud::new(1), rules([[0; 2]; 6], (0, 1439)), FraudTerms::default());
        let _held = bench.call(0, "9001").0;
        assert!(bench.call(1, "1").0.is_none());
    }
}
