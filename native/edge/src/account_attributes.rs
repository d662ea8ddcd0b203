//! Accounts: who a request proved to be of, and what the database says of them beside their credentials.

use std::sync::Arc;

/// Attributes of one account that are kept, and bytes of each name and value.
const MOST: usize = 32;
const LONGEST: usize = 256;
/// The name under which users stand that an account may be besides its own (table `uri`); no attribute can have it.
pub(crate) const ALSO: &str = "=uri";

type Pair = (Box<str>, Box<str>);

/// Names and values in the order of the database; a name may stand more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes(Option<Arc<[Pair]>>);

impl Attributes {
    /// Those of these pairs that are within bounds.
    pub(crate) fn new(pairs: &[(String, String)]) -> Self {
        let fits = |pair: &&(String, String)| {
            pair.0.len() <= LONGEST && pair.1.len() <= LONGEST && !pair.0.contains(char::is_control) && !pair.1.contains(char::is_control)
        };
        let kept: Vec<_> = pairs.iter().filter(fits).take(MOST).map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect();
        Self((!kept.is_empty()).then(|| kept.into()))
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|pairs| pairs.iter()).map(|(name, value)| (&**name, &**value))
    }

    /// Whether one of the values of `name`, which may be lists, is `wanted`.
    pub(crate) fn has(&self, name: &str, wanted: &str) -> bool {
        self.parts(name).any(|value| value == wanted)
    }

    /// The same where `Alice` and `alice` are one.
    pub(crate) fn has_in_any_case(&self, name: &str, wanted: &str) -> bool {
        self.parts(name).any(|value| value.eq_ignore_ascii_case(wanted))
    }

    /// Whether one of them is the telephone number `wanted`, however each is written.
    pub(crate) fn has_number(&self, name: &str, wanted: &str) -> bool {
        let number = plain_number(wanted);
        self.has(name, wanted) || number.is_some() && self.parts(name).any(|value| plain_number(value) == number)
    }

    fn parts(&self, name: &str) -> impl Iterator<Item = &str> {
        let values = self.all().filter(move |(own, _)| *own == name).map(|(_, value)| value);
        values.flat_map(|value| value.split([',', ';', ' '])).filter(|value| !value.is_empty())
    }
}

/// A global number without visual separators, which count for nothing when numbers are compared, and without parameters; `None` for
/// what is none, or where a parameter makes another number of it (RFC 3966 section 5).
fn plain_number(text: &str) -> Option<String> {
    let mut parts = text.split(';');
    let digits: String = parts.next()?.strip_prefix('+')?.chars().filter(|c| !"-.()".contains(*c)).collect();
    let extends = |part: &str| ["ext=", "isub=", "phone-context="].iter().any(|name| part.to_ascii_lowercase().starts_with(name));
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && !parts.any(extends)).then_some(digits)
}

/// An account that a request proved to be of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    /// `user@domain`.
    pub(crate) name: Box<[u8]>,
    pub(crate) attributes: Attributes,
    /// The URI among its own that it wants to be known by.
    pub(crate) preferred: Option<Box<[u8]>>,
}

impl Account {
    /// As the record of a call has it: `account`, and `account.NAME` for each attribute.
    pub(crate) fn notes(&self) -> Vec<(String, String)> {
        let mut notes = vec![("account".to_owned(), String::from_utf8_lossy(&self.name).into_owned())];
        for (name, value) in self.attributes.all().filter(|(name, _)| *name != ALSO) {
            let name = format!("account.{name}");
            match notes.iter_mut().find(|(have, _)| *have == name) {
                Some((_, values)) => *values = format!("{values},{value}"),
                None => notes.push((name, value.to_owned())),
            }
        }
        notes
    }

    /// As it crosses to a policy: the name, then each attribute as `name=value`, parted by 0x1f.
    pub(crate) fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.name).into_owned();
        for (name, value) in self.attributes.all().filter(|(name, _)| *name != ALSO) {
            text.push('\u{1f}');
            text.push_str(name);
            text.push('=');
            text.push_str(value);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn lists_and_repeated_names_are_one() {
        let attributes = Attributes::new(&pairs(&[("numbers", "+1, +2"), ("numbers", "+3"), ("limit", "5"), ("=uri", "sales")]));
        assert!(["+1", "+2", "+3"].iter().all(|number| attributes.has("numbers", number)));
        assert!(!attributes.has("numbers", "") && !attributes.has("numbers", "+") && !attributes.has("limit", "+1") && attributes.has(ALSO, "sales"));
        let account = Account { name: b"alice@x"[..].into(), attributes, preferred: None };
        assert_eq!(account.notes(), pairs(&[("account", "alice@x"), ("account.numbers", "+1, +2,+3"), ("account.limit", "5")]));
        assert_eq!(account.text(), "alice@x\u{1f}numbers=+1, +2\u{1f}numbers=+3\u{1f}limit=5");
    }

    #[test]
    fn numbers_are_one_however_they_are_written() {
        let attributes = Attributes::new(&pairs(&[("numbers", "+4930111,+49-40-(222) 77")]));
        for number in ["+4930111", "+49-30-111", "+49.30.(1)11;npdi=yes", "77"] {
            assert!(attributes.has_number("numbers", number), "{number}");
        }
        for number in ["4930111", "+49301112", "+4930111;ext=5", "+4930111;phone-context=x", "+", "", "7-7"] {
            assert!(!attributes.has_number("numbers", number), "{number}");
        }
    }

    #[test]
    fn what_is_too_much_or_would_break_a_line_is_left_out() {
        let many: Vec<_> = (0..100).map(|number| (format!("a{number}"), "x".to_owned())).collect();
        assert_eq!(Attributes::new(&many).all().count(), MOST);
        assert_eq!(Attributes::new(&pairs(&[("a", "b\r\nc"), ("a\u{1f}", "b")])), Attributes::default());
        assert_eq!(Attributes::new(&[("a".to_owned(), "x".repeat(LONGEST + 1))]), Attributes::default());
    }
}
