//! What other nodes count of the same users: told once in a while, taken over as a whole, and added to what is counted here.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use smallvec::SmallVec;

/// What one node says of one user and prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FraudTold {
    /// The user, the profile and the prefix, as they are counted under.
    pub key: String,
    /// The rule that counted last.
    pub rule: u32,
    /// The [period](crate::FraudRule::period) that total and sequential calls are of.
    pub period: i64,
    /// Calls since window or day began.
    pub total: u32,
    /// Calls within the last minute.
    pub minute: u32,
    /// Calls at once.
    pub concurrent: u32,
    /// Calls of one number in a row.
    pub sequential: u32,
    /// A hash of that number.
    pub last: u64,
    /// Thresholds that it has told of and that it is beyond still: two bits for each figure.
    pub told: u16,
}

/// What all others have besides, for one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Elsewhere {
    pub(crate) total: u32,
    pub(crate) minute: u32,
    pub(crate) concurrent: u32,
    pub(crate) sequential: u32,
    pub(crate) told: u16,
}

type Told = HashMap<String, SmallVec<[FraudTold; 1]>>;

/// The others' figures, as they were heard last.
#[derive(Debug, Default)]
pub(crate) struct FraudOthers(RwLock<Arc<Told>>);

impl FraudOthers {
    /// Takes over what all others say; what was heard before is void.
    pub(crate) fn hear(&self, told: Vec<FraudTold>) {
        let mut heard = Told::new();
        for row in told {
            heard.entry(row.key.clone()).or_default().push(row);
        }
        let before = std::mem::replace(&mut *self.0.write().unwrap_or_else(PoisonError::into_inner), Arc::new(heard));
        // Whoever holds it last frees it: not under the lock.
        drop(before);
    }

    /// What they have of a key. Totals are of the same rule and period, calls in a row of the same number.
    pub(crate) fn of(&self, key: &str, rule: u32, period: i64, number: u64) -> Elsewhere {
        let told = Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner));
        let mut sum = Elsewhere::default();
        for row in told.get(key).into_iter().flatten() {
            sum.minute = sum.minute.saturating_add(row.minute);
            sum.concurrent = sum.concurrent.saturating_add(row.concurrent);
            if (row.rule, row.period) == (rule, period) {
                sum.told |= row.told;
                sum.total = sum.total.saturating_add(row.total);
                let row_of_calls = if row.last == number { row.sequential } else { 0 };
                sum.sequential = sum.sequential.saturating_add(row_of_calls);
            }
        }
        sum
    }
}
