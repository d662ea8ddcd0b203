//! A reading position inside one header field value.

/// Whether `byte` may stand in a token (RFC 3261 section 25.1).
pub(crate) const fn is_token(byte: u8) -> bool {
    #[expect(clippy::indexing_slicing, reason = "a byte always lies inside a table of 256")]
    const TABLE: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            let b = byte as u8;
            table[byte] = b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~');
            byte += 1;
        }
        table
    };
    #[expect(clippy::indexing_slicing, reason = "a byte always lies inside a table of 256")]
    TABLE[byte as usize]
}

/// Whether `byte` separates words; CR and LF do inside a folded value, which is checked before.
pub(crate) const fn is_lws(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// A reading position inside `bytes[..end]`; offsets are those of the message.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8], start: usize, end: usize) -> Self {
        Self { bytes: bytes.get(..end).unwrap_or(bytes), at: start }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn end(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub(crate) fn jump(&mut self, at: usize) {
        self.at = at;
    }

    pub(crate) fn slice(&self, start: usize, end: usize) -> &'a [u8] {
        self.bytes.get(start..end).unwrap_or_default()
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Skips white space.
    pub(crate) fn lws(&mut self) {
        while self.peek().is_some_and(is_lws) {
            self.at += 1;
        }
    }

    /// Takes `byte` if it is next.
    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.at += 1;
        }
        found
    }

    /// Takes `byte` with white space allowed on both sides.
    pub(crate) fn eat_separator(&mut self, byte: u8) -> bool {
        let before = self.at;
        self.lws();
        if self.eat(byte) {
            self.lws();
            return true;
        }
        self.at = before;
        false
    }

    /// Takes bytes as long as `accept` holds and returns their range.
    pub(crate) fn take_while(&mut self, accept: impl Fn(u8) -> bool) -> (usize, usize) {
        let start = self.at;
        while self.peek().is_some_and(&accept) {
            self.at += 1;
        }
        (start, self.at)
    }

    /// Takes a token of at least one byte.
    pub(crate) fn token(&mut self) -> Option<(usize, usize)> {
        let (start, end) = self.take_while(is_token);
        (end > start).then_some((start, end))
    }

    /// Takes a quoted string with its quotes; `None` where it does not end.
    pub(crate) fn quoted(&mut self) -> Option<(usize, usize)> {
        let start = self.at;
        if !self.eat(b'"') {
            return None;
        }
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'"' => return Some((start, self.at)),
                b'\\' => self.at += 1,
                _ => {}
            }
        }
        None
    }

    /// Takes `;name[=value]`; the value may be a token, a host or a quoted string.
    #[expect(clippy::type_complexity, reason = "two ranges, one of them optional")]
    pub(crate) fn param(&mut self) -> Option<((usize, usize), Option<(usize, usize)>)> {
        let name = self.token()?;
        if !self.eat_separator(b'=') {
            return Some((name, None));
        }
        let value = if self.peek() == Some(b'"') {
            self.quoted()?
        } else {
            let value = self.take_while(|b| is_token(b) || matches!(b, b'[' | b']' | b':'));
            if value.0 == value.1 {
                return None;
            }
            value
        };
        Some((name, Some(value)))
    }
}

/// The number that `digits` write, if they are one to ten ASCII digits up to `max`.
pub(crate) fn number(digits: &[u8], max: u64) -> Option<u64> {
    // Leading zeros are legal ("CSeq: 0009"), so only the value is bounded.
    if digits.is_empty() || digits.len() > 24 {
        return None;
    }
    let mut value = 0u64;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
        if value > max {
            return None;
        }
    }
    Some(value)
}
