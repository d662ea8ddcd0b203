//! A range of bytes inside one message.

/// A half-open range of offsets into a message of at most 65,535 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    start: u16,
    end: u16,
}

impl Span {
    /// The range from `start` to `end`; offsets past 65,535 are clamped, which the size limit of the parser rules out.
    pub const fn new(start: usize, end: usize) -> Self {
        let clamp = u16::MAX as usize;
        Self { start: if start > clamp { u16::MAX } else { start as u16 }, end: if end > clamp { u16::MAX } else { end as u16 } }
    }

    /// The bytes that this span names, or none where it does not lie inside `bytes`.
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start()..self.end()).unwrap_or_default()
    }

    /// Offset of the first byte.
    pub const fn start(self) -> usize {
        self.start as usize
    }

    /// Offset behind the last byte.
    pub const fn end(self) -> usize {
        self.end as usize
    }

    /// Number of bytes.
    pub const fn len(self) -> usize {
        (self.end as usize).saturating_sub(self.start as usize)
    }

    /// Whether the span names no byte.
    pub const fn is_empty(self) -> bool {
        self.start >= self.end
    }
}
