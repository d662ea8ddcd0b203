//! Per-call variables: what handlers of a call keep for handlers that come later, in whatever process those run, and for the record.

use serde_json::Value;

use crate::edge::Edge;
use crate::policy::VerdictError;
use crate::record::Json;
use crate::verdict::Verdict;
use proto::{Key, Now};

/// Bytes of all names and values of one call as JSON: they cross with every question about it.
pub(crate) const MOST_BYTES: usize = 16_384;
/// Names of one call.
const MOST_NAMES: usize = 256;

/// Names with their values, which are JSON that only policies read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Variables(Vec<(Box<str>, Box<str>)>);

impl Variables {
    /// Sets some and takes away those without a value; on an error none of them.
    fn change(&mut self, changes: &[(String, Option<String>)]) -> Result<(), VerdictError> {
        // First, so that no handler's mistake holds up a worker.
        if changes.len() > 2 * MOST_NAMES
            || changes.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, String::len)).sum::<usize>() > 2 * MOST_BYTES
        {
            return Err(VerdictError::Variables);
        }
        let mut changed = self.clone();
        for (name, value) in changes {
            let place = changed.0.iter().position(|(have, _)| **have == **name);
            match (place.and_then(|place| changed.0.get_mut(place)), value) {
                (Some(have), Some(value)) => have.1 = value.as_str().into(),
                (None, Some(value)) => changed.0.push((name.as_str().into(), value.as_str().into())),
                (Some(_), None) => changed.0.retain(|(have, _)| **have != **name),
                (None, None) => {}
            }
            // As the record will have it: nested no deeper than its writer can.
            if value.as_ref().is_some_and(|value| serde_json::from_str::<Value>(value).is_err()) {
                return Err(VerdictError::Unreadable(format!("variable {name:?}")));
            }
        }
        if changed.0.len() > MOST_NAMES || changed.as_object().len() > MOST_BYTES {
            return Err(VerdictError::Variables);
        }
        *self = changed;
        Ok(())
    }

    /// All of them as one JSON object; nothing where there are none.
    fn as_object(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.0 {
            text.push(if text.is_empty() { '{' } else { ',' });
            text.push_str(&Value::from(&**name).to_string());
            text.push(':');
            text.push_str(value);
        }
        if !text.is_empty() {
            text.push('}');
        }
        text
    }

    /// Names and values, for the record.
    pub(crate) fn values(&self) -> Vec<(String, Json)> {
        self.0.iter().map(|(name, value)| (name.to_string(), Json(value.clone()))).collect()
    }
}

impl Edge {
    /// Keeps what a verdict says that outlives it: notes, variables, and whether media is relayed.
    pub(crate) fn keep(&mut self, entry: Key, verdict: &Verdict) -> Result<(), VerdictError> {
        if verdict.media == Some(true) && self.snapshot.settings.media.is_none() {
            return Err(VerdictError::Media);
        }
        let Some(transaction) = self.transactions.get_mut(entry) else { return Ok(()) };
        if let Some(call) = self.calls.get_mut(transaction.call) {
            call.note(&verdict.notes);
            call.wants_media = verdict.media.or(call.wants_media);
            if !verdict.variables.is_empty() {
                call.variables.get_or_insert_default().change(&verdict.variables)?;
            }
        } else if let Some(state) = transaction.policy.as_mut().filter(|_| !verdict.variables.is_empty()) {
            state.variables.get_or_insert_default().change(&verdict.variables)?;
        }
        Ok(())
    }

    /// Keeps what a handler says of a call that it answered, as long as that lasts.
    pub(crate) fn keep_of_call(&mut self, now: Now, key: Key, decision: &[u8]) {
        let Some(call) = self.calls.get_mut(key) else { return self.counters.late_answers.add() };
        let verdict = rmp_serde::from_slice::<Verdict>(decision);
        let kept = verdict.map_err(|error| VerdictError::Unreadable(error.to_string())).and_then(|verdict| {
            call.note(&verdict.notes);
            if verdict.variables.is_empty() { Ok(()) } else { call.variables.get_or_insert_default().change(&verdict.variables) }
        });
        if let Err(error) = kept {
            self.counters.policy_errors.add();
            if self.may_log(now) {
                let name = self.name_of_call(key);
                log::warn!(target: "policy", call_id = name.call_id.as_str(), trace_id = name.trace_id.as_str(); "what a handler keeps of its call cannot be kept: {error}");
            }
        }
    }

    /// The variables of the call that `entry` opens, or of the request alone, as a question brings them.
    pub(crate) fn variables(&self, entry: Key) -> String {
        let Some(transaction) = self.transactions.get(entry) else { return String::new() };
        let of_request = || transaction.policy.as_ref().and_then(|state| state.variables.as_deref());
        let found = self.calls.get(transaction.call).map_or_else(of_request, |call| call.variables.as_deref());
        found.map_or_else(String::new, Variables::as_object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str, value: &str) -> (String, Option<String>) {
        (name.to_owned(), Some(value.to_owned()))
    }

    #[test]
    fn variables_are_set_changed_and_taken_away() {
        let mut variables = Variables::default();
        assert_eq!(variables.as_object(), "");
        variables.change(&[set("a", "1"), set("q\"", "[true,\"x\"]")]).unwrap();
        variables.change(&[set("a", "{\"b\":2}"), ("none".to_owned(), None)]).unwrap();
        assert_eq!(variables.as_object(), r#"{"a":{"b":2},"q\"":[true,"x"]}"#);
        variables.change(&[("a".to_owned(), None)]).unwrap();
        assert_eq!(variables.values(), [("q\"".to_owned(), Json(r#"[true,"x"]"#.into()))]);
    }

    #[test]
    fn too_much_and_what_is_no_json_changes_nothing() {
        let mut variables = Variables::default();
        variables.change(&[set("a", "1")]).unwrap();
        let long = format!("\"{}\"", "x".repeat(MOST_BYTES));
        assert_eq!(variables.change(&[set("a", "2"), set("b", &long)]), Err(VerdictError::Variables));
        assert_eq!(variables.change(&[set("a", "2"), set("b", "nonsense")]), Err(VerdictError::Unreadable("variable \"b\"".to_owned())));
        let many: Vec<_> = (0..40_000).map(|number| set(&number.to_string(), "0")).collect();
        assert_eq!(variables.change(&many), Err(VerdictError::Variables));
        assert_eq!(variables.change(&many[..257]), Err(VerdictError::Variables));
        assert_eq!(variables.change(&[set(&"\u{1}".repeat(12_000), "0")]), Err(VerdictError::Variables), "as long as it is written");
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        assert_eq!(variables.change(&[set("b", &deep)]), Err(VerdictError::Unreadable("variable \"b\"".to_owned())));
        assert_eq!(variables.as_object(), r#"{"a":1}"#);
    }
}
