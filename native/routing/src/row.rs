//! Rows as text: many of them in one block, so that a million cross from a database in a few hundred pieces.

/// Ends a row.
const END: u8 = 0x1e;
/// Parts the columns of a row.
const BETWEEN: u8 = 0x1f;

/// The rows of a block with `N` columns each; one with another number of columns is given as it is.
pub(crate) fn rows<const N: usize>(block: &[u8]) -> impl Iterator<Item = Result<[&[u8]; N], &[u8]>> {
    block.split(|byte| *byte == END).filter(|row| !row.is_empty()).map(|row| {
        let mut columns = [&[][..]; N];
        let mut parts = row.split(|byte| *byte == BETWEEN);
        for column in &mut columns {
            *column = parts.next().ok_or(row)?;
        }
        if parts.next().is_some() { Err(row) } else { Ok(columns) }
    })
}

/// A number in a column; nothing is 0.
pub(crate) fn number<T: std::str::FromStr + Default>(text: &[u8]) -> Option<T> {
    let text = trimmed(text);
    if text.is_empty() { Some(T::default()) } else { std::str::from_utf8(text).ok()?.parse().ok() }
}

pub(crate) fn trimmed(text: &[u8]) -> &[u8] {
    text.trim_ascii()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_all_their_columns_or_are_told() {
        let block = b"1\x1fa\x1f\x1e2\x1fb\x1fc\x1e\x1e3\x1fd\x1e4\x1f\x1f\x1f\x1e";
        let found: Vec<_> = rows::<3>(block).collect();
        assert_eq!(found, [Ok([&b"1"[..], b"a", b""]), Ok([&b"2"[..], b"b", b"c"]), Err(&b"3\x1fd"[..]), Err(&b"4\x1f\x1f\x1f"[..])]);
        assert_eq!((number::<i32>(b" -7 "), number::<u32>(b""), number::<u32>(b"x"), number::<u8>(b"300")), (Some(-7), Some(0), None, None));
    }
}
