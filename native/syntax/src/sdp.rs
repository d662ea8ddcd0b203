//! Lines of a session description (RFC 8866), to be edited without touching the others.

use crate::{Edits, Span};

/// One line: its type letter, its value and the media description that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SdpLine {
    /// The letter before the equals sign.
    pub kind: u8,
    /// What follows the equals sign.
    pub value: Span,
    /// The line with its terminator.
    pub line: Span,
    /// 0 for the session part, n for the n-th media description.
    pub media: u16,
}

impl SdpLine {
    /// Replaces this line's value.
    pub fn replace(&self, edits: &mut Edits, value: &[u8]) {
        edits.replace(self.value, value);
    }
}

/// Walks the lines of the body at `body` in `bytes`. A last line without terminator is a line;
/// what is not `letter=` is passed over and so kept as it is.
pub fn sdp_lines(bytes: &[u8], body: Span) -> impl Iterator<Item = SdpLine> + use<'_> {
    let end = body.end().min(bytes.len());
    let mut at = body.start();
    let mut media = 0u16;
    std::iter::from_fn(move || {
        while at < end {
            let start = at;
            let feed = memchr::memchr(b'\n', Span::new(start, end).of(bytes)).map(|f| start + f);
            at = feed.map_or(end, |f| f + 1);
            let mut stop = feed.unwrap_or(end);
            if stop > start && bytes.get(stop - 1) == Some(&b'\r') {
                stop -= 1;
            }
            if let Some([kind, b'=']) = bytes.get(start..(start + 2).min(stop)) {
                media = media.saturating_add(u16::from(*kind == b'm'));
                return Some(SdpLine { kind: *kind, value: Span::new(start + 2, stop), line: Span::new(start, at), media });
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_know_their_media_description_and_a_last_line_needs_no_end() {
        let text = b"v=0\r\nc=IN IP4 192.0.2.1\nm=audio 1 RTP/AVP 0\r\nbroken\r\nb\r\na=x\r\nm=video 2 RTP/AVP 9\r\na=last";
        let lines: Vec<_> = sdp_lines(text, Span::new(0, text.len())).map(|l| (l.kind, l.value.of(text).to_vec(), l.media)).collect();
        assert_eq!(lines[1], (b'c', b"IN IP4 192.0.2.1".to_vec(), 0));
        assert_eq!(lines[3], (b'a', b"x".to_vec(), 1));
        assert_eq!(lines[5], (b'a', b"last".to_vec(), 2));
    }
}
