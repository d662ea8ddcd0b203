//! What was decided about a call, for whoever looks at its trace: one line each, written into one buffer.

/// Bytes of one line; more is cut.
const LONGEST: usize = 512;

/// Decisions since the last time that they were taken.
#[derive(Default)]
pub struct Decisions {
    bytes: Vec<u8>,
    /// Where Call-ID and text of each end.
    ends: Vec<(u32, u32)>,
}

impl Decisions {
    pub(crate) fn add(&mut self, call_id: &[u8], text: &str) {
        self.bytes.extend_from_slice(&call_id[..call_id.len().min(LONGEST)]);
        let call_id_end = self.bytes.len();
        self.bytes.extend_from_slice(&text.as_bytes()[..text.len().min(LONGEST)]);
        self.ends.push((call_id_end as u32, self.bytes.len() as u32));
    }

    /// Each Call-ID with what was decided, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        starts.zip(&self.ends).map(|(start, (middle, end))| (&self.bytes[start as usize..*middle as usize], &self.bytes[*middle as usize..*end as usize]))
    }

    /// Forgets them and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_come_back_in_order_and_cut() {
        let mut decisions = Decisions::default();
        decisions.add(b"a@b", "from peer core");
        decisions.add(b"c", &"x".repeat(5_000));
        let found: Vec<_> = decisions.iter().collect();
        assert_eq!(found[0], (&b"a@b"[..], &b"from peer core"[..]));
        assert!(found[1].0 == b"c" && found[1].1.len() < 1_024);
        decisions.clear();
        assert_eq!(decisions.iter().count(), 0);
    }
}
