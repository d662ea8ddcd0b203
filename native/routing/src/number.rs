//! Numbers as prefixes see them: digits and a few further characters, four bits each.

/// Most characters of a prefix.
pub const LONGEST_PREFIX: usize = 32;
/// Further characters beside the digits, at most: a symbol has four bits, and 0 means that there is none.
const MOST_EXTRA: usize = 5;

/// The characters of prefixes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alphabet([u8; 256]);

impl Alphabet {
    /// Digits and the characters of `extra`; `None` where those are more than five, or no printable ASCII.
    pub fn new(extra: &str) -> Option<Self> {
        let mut symbols = [0; 256];
        for (symbol, byte) in (1..).zip(b'0'..=b'9') {
            symbols[usize::from(byte)] = symbol;
        }
        let mut next = 11;
        for byte in extra.bytes().filter(|byte| !byte.is_ascii_digit()) {
            if !byte.is_ascii_graphic() || next > 10 + MOST_EXTRA as u8 {
                return None;
            }
            if symbols[usize::from(byte)] == 0 {
                symbols[usize::from(byte)] = next;
                next += 1;
            }
        }
        Some(Self(symbols))
    }

    /// The symbol of a character, 1 to 15; 0 where prefixes cannot have it.
    pub(crate) fn symbol(&self, byte: u8) -> u8 {
        self.0[usize::from(byte)]
    }

    /// Whether prefixes can have this character.
    pub fn has(&self, byte: u8) -> bool {
        self.symbol(byte) != 0
    }

    /// A prefix as a number whose order is that of the texts, each before those that it begins.
    pub(crate) fn pack(&self, prefix: &[u8]) -> Option<u128> {
        if prefix.len() > LONGEST_PREFIX {
            return None;
        }
        let mut packed = 0;
        for (place, byte) in prefix.iter().enumerate() {
            let symbol = self.symbol(*byte);
            if symbol == 0 {
                return None;
            }
            packed |= u128::from(symbol) << (124 - 4 * place);
        }
        Some(packed)
    }
}

impl Default for Alphabet {
    fn default() -> Self {
        let mut symbols = [0; 256];
        for (symbol, byte) in (1..).zip(b'0'..=b'9') {
            symbols[usize::from(byte)] = symbol;
        }
        Self(symbols)
    }
}

/// The symbol at `place` of a packed prefix, 0 behind its end.
pub(crate) fn symbol_at(packed: u128, place: usize) -> usize {
    if place >= LONGEST_PREFIX { 0 } else { (packed >> (124 - 4 * place)) as usize & 15 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_packed_prefixes_is_that_of_the_texts() {
        let alphabet = Alphabet::new("+*#").unwrap();
        let mut texts = vec!["", "1", "10", "100", "11", "2", "9", "99", "+4", "*"];
        texts.sort_by_key(|text| alphabet.pack(text.as_bytes()).unwrap());
        assert_eq!(texts, ["", "1", "10", "100", "11", "2", "9", "99", "+4", "*"]);
        assert_eq!(symbol_at(alphabet.pack(b"07").unwrap(), 1), 8);
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        let alphabet = Alphabet::new("").unwrap();
        assert_eq!(alphabet, Alphabet::default());
        assert_eq!(alphabet.pack(b"+40"), None);
        assert_eq!(alphabet.pack(&[b'1'; 33]), None);
        assert!(alphabet.pack(&[b'9'; 32]).is_some());
        assert_eq!(Alphabet::new("abcdef"), None);
        assert_eq!(Alphabet::new(" "), None);
        assert!(Alphabet::new("0011+*#").is_some());
    }
}
