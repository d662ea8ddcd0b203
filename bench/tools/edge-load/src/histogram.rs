//! Latencies in buckets of 1/32 of their size: exact enough for percentiles, and as small for an hour as for a second.

pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; 64 * 32], count: 0 }
    }

    pub(crate) fn add(&mut self, microseconds: u64) {
        self.buckets[bucket(microseconds)] += 1;
        self.count += 1;
    }

    /// The value below which `share` of all lie, in microseconds; 0 where there are none.
    pub(crate) fn percentile(&self, share: f64) -> u64 {
        let wanted = (self.count as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return value(index);
            }
        }
        0
    }
}

fn bucket(value: u64) -> usize {
    if value < 64 {
        return value as usize;
    }
    let exponent = 63 - value.leading_zeros() as usize;
    (exponent - 4) * 32 + ((value >> (exponent - 5)) as usize - 32)
}

fn value(bucket: usize) -> u64 {
    if bucket < 64 {
        return bucket as u64;
    }
    let exponent = bucket / 32 + 4;
    ((bucket % 32 + 32) as u64) << (exponent - 5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_within_a_thirty_second_of_itself() {
        for number in [0, 1, 63, 64, 65, 1_000, 123_456, 60_000_000] {
            let back = value(bucket(number));
            assert!(back <= number && number - back <= number / 32, "{number} {back}");
        }
    }
}
