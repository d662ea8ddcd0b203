//! Framing of a byte stream into messages (RFC 3261 section 18.3, RFC 5626 section 3.5.1).

use crate::{Field, Limits, ParseError};

/// What the first bytes of a stream are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// More bytes are needed.
    Incomplete,
    /// A keep-alive ping, CRLF CRLF, to be answered with CRLF.
    Ping,
    /// A lone CRLF: the answer to a ping, or stray.
    Pong,
    /// A whole message of this many bytes.
    Message(usize),
}

/// Remembers how far an incomplete message was searched, so that a slow sender costs no more than a fast one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Framer {
    scanned: usize,
    whole: usize,
}

impl Framer {
    /// Looks at the bytes received and not yet consumed. The caller consumes 4 bytes for a ping, 2 for a pong, all of a message.
    ///
    /// # Errors
    /// What makes the rest of the stream unreadable: the connection must be closed.
    pub fn next(&mut self, buffer: &[u8], limits: &Limits) -> Result<Frame, ParseError> {
        if self.whole > 0 {
            return Ok(self.complete(buffer));
        }
        match buffer {
            [] | [b'\r'] => return Ok(Frame::Incomplete),
            [b'\r', b'\n', b'\r', b'\n', ..] => return Ok(Frame::Ping),
            // Only a third byte tells a pong from the first half of a ping.
            [b'\r', b'\n'] | [b'\r', b'\n', b'\r'] => return Ok(Frame::Incomplete),
            [b'\r', b'\n', ..] => return Ok(Frame::Pong),
            _ => {}
        }
        let from = self.scanned.saturating_sub(3);
        let unseen = buffer.get(from..).unwrap_or_default();
        let Some(end) = memchr::memmem::find(unseen, b"\r\n\r\n") else {
            self.scanned = buffer.len();
            if buffer.len() > limits.message_bytes {
                return Err(ParseError::TooLarge { field: Field::StartLine });
            }
            // A line that no SIP message starts with is another protocol: do not wait for more of it.
            if let Some(line) = memchr::memchr(b'\n', buffer)
                && !starts_sip(buffer.get(..line).unwrap_or_default())
            {
                return Err(ParseError::NotSip);
            }
            return Ok(Frame::Incomplete);
        };
        let headers = from + end + 4;
        if !starts_sip(buffer.get(..memchr::memchr(b'\n', buffer).unwrap_or(0)).unwrap_or_default()) {
            return Err(ParseError::NotSip);
        }
        let length = content_length(buffer.get(..headers).unwrap_or_default())?;
        if length > limits.body_bytes || headers + length > limits.message_bytes {
            return Err(ParseError::TooLarge { field: Field::Body });
        }
        self.whole = headers + length;
        Ok(self.complete(buffer))
    }

    fn complete(&mut self, buffer: &[u8]) -> Frame {
        if buffer.len() < self.whole {
            return Frame::Incomplete;
        }
        let whole = std::mem::take(self).whole;
        Frame::Message(whole)
    }
}

fn starts_sip(line: &[u8]) -> bool {
    memchr::memmem::find(line, b"SIP/").is_some()
}

/// Content-Length of a stream message; it is mandatory there (RFC 3261 section 20.14).
fn content_length(headers: &[u8]) -> Result<usize, ParseError> {
    let field = Field::ContentLength;
    let mut found: Option<usize> = None;
    for line in headers.split(|b| *b == b'\n') {
        let Some(colon) = memchr::memchr(b':', line) else { continue };
        let name = line.get(..colon).unwrap_or_default().trim_ascii_end();
        if !(name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"l")) {
            continue;
        }
        let text = line.get(colon + 1..).unwrap_or_default().trim_ascii();
        let malformed = ParseError::Malformed { field, at: 0 };
        let value = crate::cursor::number(text, u64::from(u32::MAX)).ok_or(malformed)? as usize;
        if found.is_some_and(|earlier| earlier != value) {
            return Err(ParseError::Repeated { field });
        }
        found = Some(value);
    }
    found.ok_or(ParseError::Missing { field })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TWO: &[u8] = b"OPTIONS sip:a SIP/2.0\r\nl: 3\r\n\r\nabc\r\n\r\nSIP/2.0 200 OK\r\nContent-Length : 0\r\n\r\n";

    fn frames(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut framer, mut buffer, mut found) = (Framer::default(), Vec::new(), Vec::new());
        for chunk in chunks {
            buffer.extend_from_slice(chunk);
            loop {
                let used = match framer.next(&buffer, &Limits::STANDARD).unwrap() {
                    Frame::Incomplete => break,
                    Frame::Ping => 4,
                    Frame::Pong => 2,
                    Frame::Message(length) => length,
                };
                found.push(buffer.drain(..used).collect());
            }
        }
        found
    }

    #[test]
    fn a_stream_cut_at_every_byte_gives_the_same_frames() {
        let whole = frames(&[TWO]);
        assert_eq!(whole.len(), 3);
        for cut in 0..TWO.len() {
            assert_eq!(frames(&[&TWO[..cut], &TWO[cut..]]), whole, "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn any_split_of_a_stream_gives_the_same_frames(mut cuts in proptest::collection::vec(0..TWO.len(), 0..8)) {
            cuts.extend([0, TWO.len()]);
            cuts.sort_unstable();
            let chunks: Vec<_> = cuts.windows(2).map(|w| &TWO[w[0]..w[1]]).collect();
            prop_assert_eq!(frames(&chunks), frames(&[TWO]));
        }
    }

    #[test]
    fn lengths_that_wrap_or_differ_close_the_stream() {
        for bad in ["4294967296", "2147483647", "-1", "99999999999999999999999999", "3\r\nl: 4", "0x10", ""] {
            let text = format!("BYE sip:a SIP/2.0\r\nContent-Length: {bad}\r\n\r\n");
            assert!(Framer::default().next(text.as_bytes(), &Limits::STANDARD).is_err(), "{bad}");
        }
        assert!(Framer::default().next(b"BYE sip:a SIP/2.0\r\n\r\n", &Limits::STANDARD).is_err());
    }

    #[test]
    fn other_protocols_are_noticed_at_their_first_line() {
        assert_eq!(Framer::default().next(b"GET /phpinfo.php HTTP/1.1\r\nHost: x\r\n", &Limits::STANDARD), Err(ParseError::NotSip));
    }
}
