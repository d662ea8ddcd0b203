//! When a rule holds: plain spans of time, made by whoever can read the grammar (RFC 5545) and knows the zones.

/// Spans in seconds since 1970, each with its end left out; sorted, and none overlaps another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recurrence {
    spans: Box<[(i64, i64)]>,
}

impl Recurrence {
    /// Sorts and joins `spans`; empty ones go.
    pub fn new(mut spans: Vec<(i64, i64)>) -> Self {
        spans.retain(|(start, end)| start < end);
        spans.sort_unstable();
        let mut joined: Vec<(i64, i64)> = Vec::with_capacity(spans.len());
        for (start, end) in spans {
            match joined.last_mut() {
                Some(last) if start <= last.1 => last.1 = last.1.max(end),
                _ => joined.push((start, end)),
            }
        }
        Self { spans: joined.into_boxed_slice() }
    }

    /// Whether `now` lies in one of them.
    pub fn holds(&self, now: i64) -> bool {
        let behind = self.spans.partition_point(|(start, _)| *start <= now);
        behind > 0 && now < self.spans[behind - 1].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_joined_and_their_ends_left_out() {
        let recurrence = Recurrence::new(vec![(50, 60), (10, 20), (20, 30), (12, 15), (70, 70)]);
        assert_eq!(&*recurrence.spans, [(10, 30), (50, 60)]);
        let holds: Vec<i64> = (0..80).filter(|second| recurrence.holds(*second)).collect();
        assert_eq!(holds, (10..30).chain(50..60).collect::<Vec<_>>());
        assert!(!Recurrence::default().holds(0));
    }
}
