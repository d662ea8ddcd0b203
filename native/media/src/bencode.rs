//! Bencode, in which the ng protocol writes its dictionaries. Bounded in depth: what it reads comes over the network.

/// Dictionaries and lists within each other.
const DEEPEST: u8 = 16;

/// One value; texts are those of the buffer that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Number(i64),
    Text(&'a [u8]),
    List(Vec<Self>),
    Dictionary(Vec<(&'a [u8], Self)>),
}

impl<'a> Value<'a> {
    /// The value that is all of `bytes`; `None` where they are none, or more.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Self> {
        let (value, rest) = read(bytes, DEEPEST)?;
        rest.is_empty().then_some(value)
    }

    /// What a dictionary has under `key`.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Dictionary(pairs) => pairs.iter().find(|(name, _)| *name == key.as_bytes()).map(|(_, value)| value),
            Self::Number(_) | Self::Text(_) | Self::List(_) => None,
        }
    }

    pub(crate) fn text(&self) -> Option<&'a [u8]> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub(crate) fn number(&self) -> Option<i64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    pub(crate) fn list(&self) -> &[Self] {
        if let Self::List(list) = self { list } else { &[] }
    }

    pub(crate) fn pairs(&self) -> &[(&'a [u8], Self)] {
        if let Self::Dictionary(pairs) = self { pairs } else { &[] }
    }
}

fn read(bytes: &[u8], depth: u8) -> Option<(Value<'_>, &[u8])> {
    let depth = depth.checked_sub(1)?;
    let (first, rest) = bytes.split_first()?;
    match first {
        b'i' => {
            let end = rest.iter().position(|byte| *byte == b'e')?;
            let number = std::str::from_utf8(rest.get(..end)?).ok()?.parse().ok()?;
            Some((Value::Number(number), rest.get(end + 1..)?))
        }
        b'l' => {
            let (mut list, mut rest) = (Vec::new(), rest);
            while *rest.first()? != b'e' {
                let (value, more) = read(rest, depth)?;
                list.push(value);
                rest = more;
            }
            Some((Value::List(list), rest.get(1..)?))
        }
        b'd' => {
            let (mut pairs, mut rest) = (Vec::new(), rest);
            while *rest.first()? != b'e' {
                let (key, more) = text(rest)?;
                let (value, more) = read(more, depth)?;
                pairs.push((key, value));
                rest = more;
            }
            Some((Value::Dictionary(pairs), rest.get(1..)?))
        }
        b'0'..=b'9' => text(bytes).map(|(text, rest)| (Value::Text(text), rest)),
        _ => None,
    }
}

fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = bytes.iter().take(8).position(|byte| *byte == b':')?;
    let length: usize = std::str::from_utf8(bytes.get(..colon)?).ok()?.parse().ok()?;
    bytes.get(colon + 1..)?.split_at_checked(length)
}

/// Appends a text.
pub(crate) fn push_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(text.len().to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(text);
}

/// Appends a list of texts.
pub(crate) fn push_list(out: &mut Vec<u8>, texts: &[&[u8]]) {
    out.push(b'l');
    texts.iter().for_each(|text| push_text(out, text));
    out.push(b'e');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_of_every_kind_is_read() {
        let value = Value::read(b"d3:onei-7e4:textl1:a0:ee").unwrap();
        assert_eq!(value.get("one").and_then(Value::number), Some(-7));
        assert_eq!(value.get("text").map(Value::list), Some(&[Value::Text(b"a"), Value::Text(b"")][..]));
        let deep = [b"l".repeat(20), b"e".repeat(20)].concat();
        for bad in [&b""[..], b"i7", b"5:abc", b"d1:ae", b"i7ex", b"99999999999:a", b"d i1ee", &deep] {
            assert_eq!(Value::read(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(prop_oneof![Just(b'd'), Just(b'l'), Just(b'e'), Just(b'i'), Just(b'1'), Just(b':'), any::<u8>()], 0..64)) {
            let _ = Value::read(&bytes);
        }
    }
}
