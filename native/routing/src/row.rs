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

/// The rows of `N` columns that hold one value of each row, parted as those of a row are; an empty one has nothing in any row.
/// `None` where one has not as many values as the first.
pub(crate) fn rows_of_columns<const N: usize>(columns: [&[u8]; N]) -> Option<impl Iterator<Item = [&[u8]; N]>> {
    let values = |column: &[u8]| memchr::memchr_iter(BETWEEN, column).count() + 1;
    let rows = values(columns.first()?);
    if columns.iter().any(|column| !column.is_empty() && values(column) != rows) {
        return None;
    }
    let mut rest = columns;
    let row = move |_| {
        std::array::from_fn(|place| {
            let column = rest[place];
            let end = column.iter().position(|byte| *byte == BETWEEN);
            let (value, behind) = end.map_or((column, &[][..]), |end| (&column[..end], &column[end + 1..]));
            rest[place] = behind;
            value
        })
    };
    Some((0..rows).map(row))
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
        let columns = rows_of_columns([b"1\x1f2\x1f3".as_slice(), b"a\x1f\x1f", b""]).unwrap().collect::<Vec<_>>();
        assert_eq!(columns, [[&b"1"[..], b"a", b""], [b"2", b"", b""], [b"3", b"", b""]]);
        assert!(rows_of_columns([b"1\x1f2".as_slice(), b"a\x1fb\x1fc"]).is_none());
        assert!(rows_of_columns([b"1\x1f2".as_slice(), b"a"]).is_none());
        assert_eq!(rows_of_columns([b"1".as_slice(), b""]).unwrap().collect::<Vec<_>>(), [[&b"1"[..], b""]]);
        assert_eq!((number::<i32>(b" -7 "), number::<u32>(b""), number::<u32>(b"x"), number::<u8>(b"300")), (Some(-7), Some(0), None, None));
    }
}
