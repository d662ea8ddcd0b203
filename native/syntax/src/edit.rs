//! Edits that build an outgoing message in one pass; what no edit names is copied byte for byte.

use crate::cursor::is_lws;
use crate::{Message, Slot, Span};

#[derive(Clone, Copy)]
struct Edit {
    at: Span,
    text: (u32, u32),
}

/// A reusable list of replacements, insertions and removals on one message.
#[derive(Default)]
pub struct Edits {
    list: Vec<Edit>,
    text: Vec<u8>,
}

impl Edits {
    /// Forgets all edits and keeps the memory.
    pub fn clear(&mut self) {
        self.list.clear();
        self.text.clear();
    }

    /// Whether nothing is to be changed.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Replaces `at` with what `write` appends.
    pub fn replace_with(&mut self, at: Span, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.text.len() as u32;
        write(&mut self.text);
        self.list.push(Edit { at, text: (start, self.text.len() as u32) });
    }

    /// Replaces `at` with `text`.
    pub fn replace(&mut self, at: Span, text: &[u8]) {
        self.replace_with(at, |out| out.extend_from_slice(text));
    }

    /// Inserts what `write` appends before offset `at`; insertions at one offset keep their order.
    pub fn insert_with(&mut self, at: usize, write: impl FnOnce(&mut Vec<u8>)) {
        self.replace_with(Span::new(at, at), write);
    }

    /// Removes `at`.
    pub fn remove(&mut self, at: Span) {
        self.list.push(Edit { at, text: (0, 0) });
    }

    /// Removes the first element of a comma list, with its comma; the whole line where it is the only one.
    pub fn remove_first_element(&mut self, slot: &Slot, rest: Span) {
        if rest.is_empty() { self.remove(slot.line) } else { self.remove(Span::new(slot.value.start(), rest.start())) }
    }

    /// Appends the edited message to `out`. Lines that a next hop could read differently are repaired: folds become
    /// a space, white space before the colon goes, a bare line feed becomes CRLF (RFC 3261 section 7.3.1).
    pub fn apply(&mut self, message: &Message<'_>, out: &mut Vec<u8>) {
        if message.head.irregular {
            self.regularize(message);
        }
        // Stable, so that insertions at one place stay in order, before what is replaced there; the list is short.
        self.list.sort_by_key(|edit| (edit.at.start(), !edit.at.is_empty()));
        let bytes = message.bytes.get(..message.head.body.end()).unwrap_or(message.bytes);
        out.reserve(bytes.len() + self.text.len());
        let mut at = 0;
        for edit in &self.list {
            // An edit inside what an earlier one replaced has nothing left to change.
            if edit.at.start() < at {
                continue;
            }
            out.extend_from_slice(bytes.get(at..edit.at.start()).unwrap_or_default());
            out.extend_from_slice(self.text.get(edit.text.0 as usize..edit.text.1 as usize).unwrap_or_default());
            at = edit.at.end();
        }
        out.extend_from_slice(bytes.get(at..).unwrap_or_default());
    }

    fn regularize(&mut self, message: &Message<'_>) {
        let head = message.head;
        let bytes = message.bytes;
        let leading = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        self.remove(Span::new(0, leading));
        if head.start_line_bare_lf {
            self.line_end(usize::from(head.headers_start) - 1);
        }
        for slot in head.slots().iter().filter(|slot| slot.irregular) {
            // A fold may stand right behind the colon, too.
            self.replace(Span::new(slot.name_span.end(), slot.value.start()), b": ");
            let mut at = slot.value.start();
            while let Some(feed) = memchr::memchr(b'\n', Span::new(at, slot.value.end()).of(bytes)) {
                let mut start = at + feed;
                let mut end = start + 1;
                while start > slot.value.start() && bytes.get(start - 1).is_some_and(|b| is_lws(*b)) {
                    start -= 1;
                }
                while end < slot.value.end() && bytes.get(end).is_some_and(|b| is_lws(*b)) {
                    end += 1;
                }
                self.replace(Span::new(start, end), b" ");
                at = end;
            }
            self.replace(Span::new(slot.value.end(), slot.line.end()), b"\r\n");
        }
        let empty_line = usize::from(head.headers_end);
        if empty_line == bytes.len() {
            self.replace(Span::new(empty_line, empty_line), b"\r\n");
        } else if bytes.get(empty_line) == Some(&b'\n') {
            self.line_end(empty_line);
        }
    }

    fn line_end(&mut self, feed: usize) {
        self.replace(Span::new(feed, feed + 1), b"\r\n");
    }
}
