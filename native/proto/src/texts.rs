//! A few texts in one allocation.

/// Five texts, 65,535 bytes at most together: what is more is cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Texts {
    bytes: Box<[u8]>,
    ends: [u16; 5],
}

impl Texts {
    /// Copies `parts`.
    pub fn new(parts: [&[u8]; 5]) -> Self {
        let mut ends = [0; 5];
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        for (end, part) in ends.iter_mut().zip(parts) {
            bytes.extend_from_slice(part);
            *end = bytes.len().min(usize::from(u16::MAX)) as u16;
        }
        Self { bytes: bytes.into_boxed_slice(), ends }
    }

    /// The text at `index`; empty where there is none.
    pub fn part(&self, index: usize) -> &[u8] {
        let end = |index: usize| self.ends.get(index).map_or(0, |end| usize::from(*end));
        let start = index.checked_sub(1).map_or(0, end);
        self.bytes.get(start..end(index)).unwrap_or_default()
    }

    /// Bytes of all together.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::Texts;

    #[test]
    fn each_text_comes_back_and_what_is_too_much_is_cut() {
        let texts = Texts::new([b"a", b"", b"bcd", b"e", b""]);
        assert_eq!((0..6).map(|index| texts.part(index)).collect::<Vec<_>>(), [&b"a"[..], b"", b"bcd", b"e", b"", b""]);
        let long = vec![b'x'; 70_000];
        let texts = Texts::new([b"a", &long, b"b", b"", b""]);
        assert_eq!((texts.part(1).len(), texts.part(2)), (65_534, &b""[..]));
    }
}
