//! Calls of the past, run by profiles that may come.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// User, profile, prefix, rule, calls a minute, in all, at once, in a row.
pub(crate) type StatsRow = (String, u32, String, u32, u32, u32, u32, u32);
/// The key of a user and prefix, rule, day, calls in all, within a minute, at once, in a row, the number of those, and what was told.
pub(crate) type ToldRow = (String, u32, i64, u32, u32, u32, u32, u64, u16);
/// When it began, was answered and ended in microseconds since 1970, who called whom, and by which profile.
type PastCall = (u64, u64, u64, String, String, u32);
/// When, which call, which rule, the figure, whether it is critical, value and threshold.
type PastAlarm = (u64, usize, u32, &'static str, bool, u32, u32);

/// Who is watched for a call, and the number that was dialled; nothing where one of them cannot be read.
#[pyfunction]
pub(crate) fn watched_parties(account: &str, from_uri: &str, request_uri: &str) -> Option<(String, String)> {
    edge::watched_parties(Some(account).filter(|account| !account.is_empty()), from_uri.as_bytes(), request_uri.as_bytes())
}

/// What the fraud part of a document would have said of calls.
#[pyfunction]
#[expect(clippy::needless_pass_by_value, reason = "what Python hands over")]
pub(crate) fn replay_fraud(py: Python<'_>, document: &[u8], calls: Vec<PastCall>) -> PyResult<Vec<PastAlarm>> {
    let settings = edge::FraudSettings::read(document).map_err(PyValueError::new_err)?;
    let alarms = py.detach(|| {
        let past = |(started, answered, ended, user, number, profile): &PastCall| edge::PastCall {
            started: *started,
            answered: *answered,
            ended: *ended,
            user: user.clone(),
            hashed: edge::number_hash(number),
            number: number.clone(),
            profile: *profile,
        };
        let calls: Vec<edge::PastCall> = calls.iter().map(past).collect();
        edge::replay_fraud(&settings.rules(), settings.terms(), &calls)
    });
    let told = |past: edge::PastAlarm| {
        let alarm = past.alarm;
        (past.at, past.call, past.rule, alarm.figure.name(), alarm.level == edge::Level::Critical, alarm.value, alarm.threshold)
    };
    Ok(alarms.into_iter().map(told).collect())
}
