//! Rules that make one form of a number of another: those of the file, and rows of `dialplan` (OpenSIPS).

use regex::bytes::{Regex, RegexBuilder};

/// Memory that one compiled pattern may take: a row of a database must not take all of it.
const MOST_PATTERN_BYTES: usize = 1 << 20;
/// Characters of a number; what is longer is none.
pub const LONGEST_NUMBER: usize = 64;

/// Which numbers a rule is for.
#[derive(Clone, Debug)]
pub enum Fits {
    /// Those that begin so.
    Prefix(Box<[u8]>),
    /// This one.
    Whole(Box<[u8]>, bool),
    /// Those in which this pattern is found.
    Pattern(Regex),
}

/// What becomes of such a number.
#[derive(Clone, Debug)]
pub enum Becomes {
    /// So many characters go from its front, and this comes there.
    Stripped(u8, Box<[u8]>),
    /// What the template says of the groups of the rule's pattern, or of another one that must be found too.
    Made(Option<Regex>, Box<[u8]>),
    /// It stays as it is.
    Same,
}

/// The first group that `template` speaks of and `pattern` does not have.
pub fn unknown_group(pattern: &Regex, template: &[u8]) -> Option<usize> {
    let named = template.windows(2).filter(|pair| pair[0] == b'\\' && pair[1].is_ascii_digit());
    named.map(|pair| usize::from(pair[1] - b'0')).find(|group| *group >= pattern.captures_len())
}

/// One rule.
#[derive(Clone, Debug)]
pub struct NumberRule {
    /// What it is called: its place in the file, or the row.
    pub name: Box<str>,
    /// Which numbers it is for.
    pub fits: Fits,
    /// What becomes of them.
    pub becomes: Becomes,
    /// The place of its time recurrence in the table, where it has one.
    pub recurrence: Option<u32>,
}

/// Compiles a pattern; time and memory of a search are bounded by the length of what is searched.
///
/// # Errors
/// What is wrong with it; look-around and back references are unknown here.
pub fn pattern(text: &str, any_case: bool) -> Result<Regex, String> {
    let compiled = RegexBuilder::new(text).unicode(false).case_insensitive(any_case).size_limit(MOST_PATTERN_BYTES).build();
    compiled.map_err(|error| error.to_string().lines().last().unwrap_or_default().trim().to_owned())
}

/// Characters that only part a number's digits for readers (RFC 3966 section 5.1.1).
pub const SEPARATORS: &[u8] = b"-.() ";

/// Whether there is nothing but separators.
pub(crate) fn parts_only(text: &[u8]) -> bool {
    text.iter().all(|byte| SEPARATORS.contains(byte))
}

impl NumberRule {
    /// The number as this rule makes it; `None` where the rule is not for it. One that would leave nothing of a number is not
    /// for it: there is no URI with a user part that is empty (RFC 3261 section 25.1).
    fn apply(&self, number: &[u8]) -> Option<Vec<u8>> {
        self.made(number).filter(|made| !parts_only(made))
    }

    fn made(&self, number: &[u8]) -> Option<Vec<u8>> {
        let fits = match &self.fits {
            Fits::Prefix(prefix) => number.starts_with(prefix),
            Fits::Whole(whole, false) => *number == **whole,
            Fits::Whole(whole, true) => number.eq_ignore_ascii_case(whole),
            Fits::Pattern(pattern) => pattern.is_match(number),
        };
        if !fits {
            return None;
        }
        match &self.becomes {
            Becomes::Stripped(count, front) => Some([front, number.get(usize::from(*count)..)?].concat()),
            Becomes::Same => Some(number.to_vec()),
            Becomes::Made(other, template) => {
                let found = match (other, &self.fits) {
                    (Some(other), _) => other.captures(number)?,
                    (None, Fits::Pattern(pattern)) => pattern.captures(number)?,
                    // Nothing to refer to: the template is the number.
                    (None, Fits::Prefix(_) | Fits::Whole(..)) => return Some(template.to_vec()),
                };
                let mut made = Vec::with_capacity(number.len() + template.len());
                let mut rest = template.iter();
                while let Some(byte) = rest.next() {
                    match (byte, rest.as_slice().first()) {
                        (b'\\', Some(digit @ b'0'..=b'9')) => {
                            rest.next();
                            made.extend_from_slice(found.get(usize::from(digit - b'0')).map_or(&[][..], |group| group.as_bytes()));
                        }
                        _ => made.push(*byte),
                    }
                }
                Some(made)
            }
        }
    }
}

/// Rules in the order in which they are asked.
#[derive(Clone, Debug, Default)]
pub struct NumberRules(pub Vec<NumberRule>);

impl NumberRules {
    /// The first rule that is for `number` and holds now, by its name, with what it makes of it.
    pub fn translate(&self, number: &[u8], holds: impl Fn(u32) -> bool) -> Option<(&str, Vec<u8>)> {
        if number.is_empty() || number.len() > LONGEST_NUMBER {
            return None;
        }
        let held = self.0.iter().filter(|rule| rule.recurrence.is_none_or(&holds));
        held.into_iter().find_map(|rule| Some((&*rule.name, rule.apply(number)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(fits: Fits, becomes: Becomes) -> NumberRule {
        NumberRule { name: "1".into(), fits, becomes, recurrence: None }
    }

    fn made(rule: NumberRule, number: &str) -> Option<String> {
        NumberRules(vec![rule]).translate(number.as_bytes(), |_| true).map(|(_, made)| String::from_utf8(made).unwrap())
    }

    #[test]
    fn each_kind_of_rule_makes_what_it_says() {
        let prefix = |text: &str| Fits::Prefix(text.as_bytes().into());
        let found = |text: &str| Fits::Pattern(pattern(text, false).unwrap());
        let template = |text: &str| Becomes::Made(None, text.as_bytes().into());
        let table = [
            (rule(prefix("00"), Becomes::Stripped(2, (*b"+").into())), "004930", Some("+4930")),
            (rule(prefix("00"), Becomes::Stripped(2, (*b"+").into())), "04930", None),
            (rule(found("^9"), template("- ")), "95", None),
            (rule(prefix("0"), Becomes::Stripped(9, (*b"4").into())), "01", None),
            (rule(prefix("0"), Becomes::Stripped(2, (*b"4").into())), "01", Some("4")),
            (rule(prefix("0"), Becomes::Stripped(2, (*b"").into())), "01", None),
            (rule(found("^(..)(.)?$"), template("\\2")), "12", None),
            (rule(Fits::Whole((*b"Echo").into(), true), Becomes::Same), "eCHO", Some("eCHO")),
            (rule(Fits::Whole((*b"Echo").into(), false), Becomes::Same), "echo", None),
            (rule(Fits::Whole((*b"112").into(), false), template("\\1sos")), "112", Some("\\1sos")),
            (rule(found("^0([1-9][0-9]{3,})$"), template("+49\\1")), "030123", Some("+4930123")),
            (rule(found("^0([1-9][0-9]{3,})$"), template("+49\\1")), "0301a23", None),
            (rule(found("^(..)(.)?$"), template("\\2\\1\\9\\0\\")), "12", Some("1212\\")),
            (rule(prefix("4"), Becomes::Made(pattern("^4(.*)9", false).ok(), (*b"<\\1>").into())), "41239x", Some("<123>")),
            (rule(prefix("4"), Becomes::Made(pattern("^4(.*)9", false).ok(), (*b"<\\1>").into())), "4123", None),
        ];
        for (rule, number, wanted) in table {
            assert_eq!(made(rule.clone(), number).as_deref(), wanted, "{number}: {rule:?}");
        }
    }

    #[test]
    fn the_first_that_fits_and_holds_decides_and_what_is_no_number_has_none() {
        let timed = NumberRule { name: "timed".into(), recurrence: Some(3), ..rule(Fits::Prefix((*b"0").into()), Becomes::Same) };
        let rules = NumberRules(vec![timed, rule(Fits::Prefix((*b"").into()), Becomes::Stripped(1, (*b"").into()))]);
        assert_eq!(rules.translate(b"01", |index| index == 3), Some(("timed", b"01".to_vec())));
        assert_eq!(rules.translate(b"01", |_| false), Some(("1", b"1".to_vec())));
        assert_eq!(rules.translate(b"1", |_| false), None);
        assert_eq!(rules.translate(b"", |_| true), None);
        assert_eq!(rules.translate(&[b'1'; LONGEST_NUMBER + 1], |_| true), None);
    }

    #[test]
    fn patterns_that_cannot_be_bounded_are_refused_with_a_reason() {
        assert!(pattern("(?=1)", false).unwrap_err().contains("look-around"));
        assert!(pattern("(", false).is_err());
        assert!(pattern("(.{1000}){1000}", false).is_err());
    }

    #[test]
    fn groups_that_there_are_not_are_found() {
        let two = pattern("^(.)(.)", false).unwrap();
        assert_eq!(unknown_group(&two, b"\\0\\1\\2\\"), None);
        assert_eq!(unknown_group(&two, b"+\\1\\3"), Some(3));
    }
}
