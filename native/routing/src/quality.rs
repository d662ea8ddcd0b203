//! How well gateways do for the rules that lead to them: figures over a sliding window, only for pairs that have calls, and
//! what profiles make of them (RFC 6076, ITU-T E.411).

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;

/// Parts of the window; the oldest goes as a whole.
const SLOTS: usize = 12;
/// Counts of one part.
const COUNTS: usize = 8;
const FINALS: usize = 0;
const ANSWERED: usize = 1;
const COMPLETE: usize = 2;
const RANG: usize = 3;
const RING_MILLISECONDS: usize = 4;
const SETUP_MILLISECONDS: usize = 5;
const ENDED: usize = 6;
const CALL_SECONDS: usize = 7;

/// How many figures there are: ASR, CCR, PDD, AST, ACD.
pub const FIGURES: usize = 5;

/// How an attempt counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Final {
    /// Answered: 2xx.
    Answered,
    /// Not answered, and no fault of the gateway: 3xx, 4xx such as 404 and 486, 6xx.
    Complete,
    /// The gateway failed: silence, an address that refuses, 5xx.
    Failed,
    /// Says nothing: the caller gave up (487).
    Nothing,
}

impl Final {
    /// How a final response counts.
    pub const fn of_code(code: u16) -> Self {
        match code {
            200..=299 => Self::Answered,
            487 => Self::Nothing,
            500..=599 => Self::Failed,
            _ => Self::Complete,
        }
    }
}

/// What holds for all pairs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QualityRules {
    /// Seconds that figures look back.
    pub span_seconds: u64,
    /// Samples below which a figure says nothing: ASR, CCR, PDD, AST, ACD.
    pub samples: [u32; FIGURES],
    /// Whether the best comes first; else scores are weights of a draw.
    pub best_first: bool,
    /// Whether a critical gateway is left out of its rule...
    pub drop: bool,
    /// ...but for so many of a thousand calls, by which it can come back.
    pub probation_permille: u32,
}

/// Thresholds and what crossing them costs, in the order ASR, CCR, PDD, AST, ACD (`qr_profiles`).
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Its number.
    pub id: u16,
    /// Worse than this is a warning; absent: never.
    pub warn: [Option<f32>; FIGURES],
    /// Worse than this is critical.
    pub critical: [Option<f32>; FIGURES],
    /// What a score is multiplied with at a warning.
    pub warn_penalty: [f32; FIGURES],
    /// And where it is critical.
    pub critical_penalty: [f32; FIGURES],
}

/// How a pair does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// Within all thresholds, or not known well enough.
    Good,
    /// Over one for warnings.
    Warning,
    /// Over a critical one.
    Critical,
}

impl Grade {
    fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Good,
            1 => Self::Warning,
            _ => Self::Critical,
        }
    }
}

/// Figures with the number of their samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Figures {
    /// Answered of all that ended: 0 to 1.
    pub asr: f32,
    /// Complete of all that ended: 0 to 1.
    pub ccr: f32,
    /// Milliseconds from INVITE to the first 18x, of those that rang.
    pub pdd: f32,
    /// Milliseconds from INVITE to the answer.
    pub ast: f32,
    /// Seconds from the answer to the end.
    pub acd: f32,
    /// Samples of each.
    pub samples: [u32; FIGURES],
}

impl Figures {
    fn values(&self) -> [f32; FIGURES] {
        [self.asr, self.ccr, self.pdd, self.ast, self.acd]
    }
}

/// Whether a figure is a share of all calls.
pub(crate) const IS_SHARE: [bool; FIGURES] = [true, true, false, false, false];
/// Whether more is better.
pub(crate) const MORE_IS_BETTER: [bool; FIGURES] = [true, true, false, false, true];

impl Profile {
    fn is_worse(&self, threshold: Option<f32>, place: usize, figures: &Figures, rules: &QualityRules) -> bool {
        let value = figures.values()[place];
        let enough = figures.samples[place] >= rules.samples[place].max(1);
        enough && threshold.is_some_and(|threshold| if MORE_IS_BETTER[place] { value < threshold } else { value > threshold })
    }

    /// The figures beyond a critical threshold, a bit each.
    fn critical_ones(&self, figures: &Figures, rules: &QualityRules) -> u8 {
        (0..FIGURES).filter(|place| self.is_worse(self.critical[*place], *place, figures, rules)).fold(0, |mask, place| mask | 1 << place)
    }

    /// Grade and score, 1 at best, of figures.
    pub fn judge(&self, figures: &Figures, rules: &QualityRules) -> (Grade, f32) {
        let (mut grade, mut score) = (Grade::Good, 1.0);
        for place in 0..FIGURES {
            if self.is_worse(self.critical[place], place, figures, rules) {
                grade = Grade::Critical;
                score *= self.critical_penalty[place];
            } else if self.is_worse(self.warn[place], place, figures, rules) {
                if grade == Grade::Good {
                    grade = Grade::Warning;
                }
                score *= self.warn_penalty[place];
            }
        }
        (grade, score)
    }
}

#[derive(Debug, Default)]
struct Slot {
    number: AtomicU64,
    counts: [AtomicU32; COUNTS],
}

/// One gateway for one rule. Any worker writes and reads it; at the turn of a slot a count may be lost.
#[derive(Debug, Default)]
pub struct Pair {
    slots: [Slot; SLOTS],
    off: AtomicBool,
    grade: AtomicU8,
    /// The figures for which it was left out, a bit each: of these it has to prove itself.
    reasons: AtomicU8,
}

/// What a pair is worth to a choice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Worth {
    /// Its score.
    Score(f32),
    /// It is left out but for a few calls.
    Probation,
    /// It takes no calls.
    Nothing,
}

impl Pair {
    fn slot(&self, now: u64, rules: &QualityRules) -> &Slot {
        // 0 is no slot's number, so that an empty one is never taken for one that counts.
        let number = now / 1_000_000 / (rules.span_seconds / SLOTS as u64).max(1) + SLOTS as u64;
        let slot = &self.slots[(number % SLOTS as u64) as usize];
        let before = slot.number.load(Ordering::Relaxed);
        if before != number && slot.number.compare_exchange(before, number, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            slot.counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        }
        slot
    }

    fn add(&self, now: u64, rules: &QualityRules, counts: &[(usize, u32)]) {
        let slot = self.slot(now, rules);
        for (place, count) in counts {
            slot.counts[*place].fetch_add(*count, Ordering::Relaxed);
        }
    }

    /// An attempt ended; one that was answered took `setup_milliseconds` to that.
    pub fn note_final(&self, now: u64, rules: &QualityRules, ended: Final, setup_milliseconds: u64) {
        match ended {
            Final::Answered => {
                self.add(now, rules, &[(FINALS, 1), (ANSWERED, 1), (COMPLETE, 1), (SETUP_MILLISECONDS, clipped(setup_milliseconds))]);
            }
            Final::Complete => self.add(now, rules, &[(FINALS, 1), (COMPLETE, 1)]),
            Final::Failed => self.add(now, rules, &[(FINALS, 1)]),
            Final::Nothing => {}
        }
    }

    /// An attempt rang for the first time.
    pub fn note_ringing(&self, now: u64, rules: &QualityRules, milliseconds: u64) {
        self.add(now, rules, &[(RANG, 1), (RING_MILLISECONDS, clipped(milliseconds))]);
    }

    /// A call is over.
    pub fn note_end(&self, now: u64, rules: &QualityRules, seconds: u64) {
        self.add(now, rules, &[(ENDED, 1), (CALL_SECONDS, clipped(seconds))]);
    }

    /// The figures of the window.
    pub fn figures(&self, now: u64, rules: &QualityRules) -> Figures {
        let current = self.slot(now, rules).number.load(Ordering::Relaxed);
        let mut sums = [0_u64; COUNTS];
        // Numbers of another span, from before a reload, lie far from this one.
        let counts = |number: u64| number <= current && number + SLOTS as u64 > current;
        for slot in self.slots.iter().filter(|slot| counts(slot.number.load(Ordering::Relaxed))) {
            for (sum, count) in sums.iter_mut().zip(&slot.counts) {
                *sum += u64::from(count.load(Ordering::Relaxed));
            }
        }
        let share = |part: usize, whole: usize| if sums[whole] == 0 { 0.0 } else { sums[part] as f32 / sums[whole] as f32 };
        let count = |place: usize| sums[place].min(u64::from(u32::MAX)) as u32;
        Figures {
            asr: share(ANSWERED, FINALS),
            ccr: share(COMPLETE, FINALS),
            pdd: share(RING_MILLISECONDS, RANG),
            ast: share(SETUP_MILLISECONDS, ANSWERED),
            acd: share(CALL_SECONDS, ENDED),
            samples: [count(FINALS), count(FINALS), count(RANG), count(ANSWERED), count(ENDED)],
        }
    }

    /// Judges it by its profile; the grade before and after where that changed.
    pub fn judge(&self, now: u64, rules: &QualityRules, profile: &Profile) -> Option<(Grade, Grade)> {
        let before = self.grade();
        let figures = self.figures(now, rules);
        let (after, _) = profile.judge(&figures, rules);
        if before == Grade::Critical && rules.drop {
            // It has to prove itself by the calls of its probation.
            let reasons = self.reasons.load(Ordering::Relaxed);
            let unproven = |place: usize| reasons & 1 << place != 0 && figures.samples[place] < rules.samples[place].max(1);
            if after != Grade::Critical && (0..FIGURES).any(unproven) || figures.samples[0] < rules.samples[0].max(1) {
                return None;
            }
            if after == Grade::Critical {
                self.forget();
                return None;
            }
        }
        if after == before || self.grade.compare_exchange(before as u8, after as u8, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return None;
        }
        if after == Grade::Critical && rules.drop {
            self.reasons.store(profile.critical_ones(&figures, rules), Ordering::Relaxed);
            self.forget();
        }
        Some((before, after))
    }

    /// How it does.
    pub fn grade(&self) -> Grade {
        Grade::from_number(self.grade.load(Ordering::Relaxed))
    }

    /// What it is worth to a choice.
    pub fn worth(&self, now: u64, rules: &QualityRules, profile: &Profile) -> Worth {
        if self.is_off() {
            return Worth::Nothing;
        }
        if self.grade() == Grade::Critical && rules.drop {
            return Worth::Probation;
        }
        Worth::Score(profile.judge(&self.figures(now, rules), rules).1)
    }

    /// Forgets what was counted.
    fn forget(&self) {
        self.slots.iter().for_each(|slot| slot.counts.iter().for_each(|count| count.store(0, Ordering::Relaxed)));
    }

    /// Begins anew, as if it had had no calls.
    pub fn reset(&self) {
        self.forget();
        self.grade.store(Grade::Good as u8, Ordering::Relaxed);
    }

    /// Lets this gateway take calls of this rule, or not.
    pub fn switch(&self, on: bool) {
        self.off.store(!on, Ordering::Relaxed);
    }

    /// Whether an operator has switched it off.
    pub fn is_off(&self) -> bool {
        self.off.load(Ordering::Relaxed)
    }
}

fn clipped(value: u64) -> u32 {
    value.min(u64::from(u32::MAX / 1_024)) as u32
}

/// A rule by its `ruleid`, a gateway by its name.
pub type PairName = (u32, Box<str>);

/// The pairs of one partition, by rule and gateway; it outlives tables.
#[derive(Debug, Default)]
pub struct Quality {
    pairs: Mutex<HashMap<PairName, Arc<Pair>>>,
}

impl Quality {
    /// The pair of a rule and a gateway; a new one unless there are `most` already. Takes a lock: to be kept by whoever asks.
    pub fn pair(&self, rule: u32, gateway: &str, most: usize) -> Option<Arc<Pair>> {
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (rule, gateway.into());
        if let Some(pair) = pairs.get(&key) {
            return Some(Arc::clone(pair));
        }
        if pairs.len() >= most {
            return None;
        }
        let pair = Arc::new(Pair::default());
        pairs.insert(key, Arc::clone(&pair));
        Some(pair)
    }

    /// The pair of a rule and a gateway, if it has had calls.
    pub fn known(&self, rule: u32, gateway: &str) -> Option<Arc<Pair>> {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner).get(&(rule, gateway.into())).map(Arc::clone)
    }

    /// All pairs.
    pub fn all(&self) -> Vec<(PairName, Arc<Pair>)> {
        let pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        pairs.iter().map(|(key, pair)| (key.clone(), Arc::clone(pair))).collect()
    }

    /// Forgets pairs that `keep` does not want: rules and gateways that are gone.
    pub fn retain(&self, keep: impl Fn(u32, &str) -> bool) {
        self.pairs.lock().unwrap_or_else(PoisonError::into_inner).retain(|(rule, gateway), _| keep(*rule, gateway));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: QualityRules = QualityRules { span_seconds: 120, samples: [10, 10, 5, 5, 5], best_first: false, drop: false, probation_permille: 50 };
    const SECOND: u64 = 1_000_000;

    fn profile() -> Profile {
        Profile {
            id: 1,
            warn: [Some(0.5), None, Some(2_000.0), None, None],
            critical: [Some(0.2), Some(0.5), Some(5_000.0), None, Some(10.0)],
            warn_penalty: [0.5; FIGURES],
            critical_penalty: [0.05; FIGURES],
        }
    }

    fn note(pair: &Pair, now: u64, rules: &QualityRules, ended: Final, times: usize) {
        (0..times).for_each(|_| pair.note_final(now, rules, ended, 3_000));
    }

    #[test]
    fn the_window_slides_and_few_samples_say_nothing() {
        let pair = Pair::default();
        note(&pair, 0, &RULES, Final::Failed, 9);
        assert_eq!(pair.worth(0, &RULES, &profile()), Worth::Score(1.0));
        note(&pair, 0, &RULES, Final::Answered, 1);
        let figures = pair.figures(0, &RULES);
        assert_eq!((figures.asr, figures.ccr, figures.ast, figures.samples), (0.1, 0.1, 3_000.0, [10, 10, 0, 1, 0]));
        assert_eq!(pair.worth(0, &RULES, &profile()), Worth::Score(0.05 * 0.05));
        assert_eq!(pair.figures(119 * SECOND, &RULES).samples[0], 10);
        assert_eq!(pair.figures(120 * SECOND, &RULES).samples[0], 0);
        // A whole window later nothing of the old slot is left in the new one.
        note(&pair, 121 * SECOND, &RULES, Final::Answered, 1);
        assert_eq!(pair.figures(121 * SECOND, &RULES).samples[0], 1);
    }

    #[test]
    fn what_counts_as_what() {
        let table = [
            (200, Final::Answered),
            (302, Final::Complete),
            (404, Final::Complete),
            (486, Final::Complete),
            (487, Final::Nothing),
            (503, Final::Failed),
            (603, Final::Complete),
        ];
        for (code, wanted) in table {
            assert_eq!(Final::of_code(code), wanted, "{code}");
        }
        let pair = Pair::default();
        note(&pair, 0, &RULES, Final::Nothing, 50);
        note(&pair, 0, &RULES, Final::Complete, 10);
        let figures = pair.figures(0, &RULES);
        assert_eq!((figures.asr, figures.ccr, figures.samples[0]), (0.0, 1.0, 10));
    }

    #[test]
    fn each_figure_has_its_thresholds_and_absent_ones_never_count() {
        let pair = Pair::default();
        (0..5).for_each(|_| pair.note_ringing(0, &RULES, 3_000));
        (0..5).for_each(|_| pair.note_end(0, &RULES, 9));
        let (grade, score) = profile().judge(&pair.figures(0, &RULES), &RULES);
        assert_eq!((grade, score), (Grade::Critical, 0.5 * 0.05));
        let none = Profile { warn: [None; FIGURES], critical: [None; FIGURES], ..profile() };
        assert_eq!(none.judge(&pair.figures(0, &RULES), &RULES), (Grade::Good, 1.0));
    }

    #[test]
    fn a_grade_changes_once_each_way() {
        let pair = Pair::default();
        note(&pair, 0, &RULES, Final::Failed, 10);
        assert_eq!(pair.judge(0, &RULES, &profile()), Some((Grade::Good, Grade::Critical)));
        assert_eq!(pair.judge(0, &RULES, &profile()), None);
        note(&pair, 0, &RULES, Final::Answered, 90);
        assert_eq!(pair.judge(0, &RULES, &profile()), Some((Grade::Critical, Grade::Good)));
        pair.switch(false);
        assert_eq!(pair.worth(0, &RULES, &profile()), Worth::Nothing);
    }

    #[test]
    fn one_that_is_left_out_comes_back_by_its_probation_only() {
        let rules = QualityRules { drop: true, ..RULES };
        let pair = Pair::default();
        note(&pair, 0, &rules, Final::Failed, 10);
        assert_eq!(pair.judge(0, &rules, &profile()), Some((Grade::Good, Grade::Critical)));
        // An empty window is no proof.
        assert_eq!((pair.judge(500 * SECOND, &rules, &profile()), pair.worth(500 * SECOND, &rules, &profile())), (None, Worth::Probation));
        note(&pair, 500 * SECOND, &rules, Final::Failed, 10);
        assert_eq!(pair.judge(500 * SECOND, &rules, &profile()), None);
        note(&pair, 501 * SECOND, &rules, Final::Answered, 10);
        assert_eq!(pair.judge(501 * SECOND, &rules, &profile()), Some((Grade::Critical, Grade::Good)));
    }

    #[test]
    fn one_left_out_for_its_short_calls_proves_itself_by_calls_that_ended() {
        let rules = QualityRules { drop: true, ..RULES };
        let pair = Pair::default();
        note(&pair, 0, &rules, Final::Answered, 10);
        (0..5).for_each(|_| pair.note_end(0, &rules, 2));
        assert_eq!(pair.judge(0, &rules, &profile()), Some((Grade::Good, Grade::Critical)));
        note(&pair, 0, &rules, Final::Answered, 20);
        assert_eq!(pair.judge(0, &rules, &profile()), None);
        (0..5).for_each(|_| pair.note_end(0, &rules, 60));
        assert_eq!(pair.judge(0, &rules, &profile()), Some((Grade::Critical, Grade::Good)));
    }

    #[test]
    fn pairs_are_bounded_and_outlive_what_asks_for_them() {
        let quality = Quality::default();
        let first = quality.pair(1, "a", 2).unwrap();
        assert!(Arc::ptr_eq(&first, &quality.pair(1, "a", 2).unwrap()));
        assert!(quality.pair(1, "b", 2).is_some() && quality.pair(2, "a", 2).is_none());
        quality.retain(|_, gateway| gateway == "a");
        assert!(quality.known(1, "b").is_none() && quality.all().len() == 1);
    }
}
