//! Any stream, cut anywhere: the frames are those of the uncut stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use syntax::{Frame, Framer, Limits};

fn frames(stream: &[u8], cuts: &[u8]) -> (Vec<Vec<u8>>, bool) {
    let mut framer = Framer::default();
    let mut buffer: Vec<u8> = Vec::new();
    let mut found = Vec::new();
    let mut rest = stream;
    let mut turn = 0;
    while !rest.is_empty() {
        let wanted = if cuts.is_empty() { rest.len() } else { usize::from(cuts[turn % cuts.len()]) + 1 };
        let (now, later) = rest.split_at(wanted.min(rest.len()));
        (rest, turn) = (later, turn + 1);
        buffer.extend_from_slice(now);
        loop {
            match framer.next(&buffer, &Limits::STANDARD) {
                Ok(Frame::Incomplete) => break,
                Ok(Frame::Message(length)) => {
                    assert!(length > 0 && length <= buffer.len(), "a frame of {length} in {} bytes", buffer.len());
                    found.push(buffer.drain(..length).collect());
                }
                Ok(Frame::Ping) => found.push(buffer.drain(..4).collect()),
                Ok(Frame::Pong) => found.push(buffer.drain(..2).collect()),
                Err(_) => return (found, true),
            }
        }
    }
    (found, false)
}

fuzz_target!(|input: (&[u8], &[u8])| {
    let (cuts, stream) = input;
    if cuts.len() > 16 {
        return;
    }
    assert_eq!(frames(stream, cuts), frames(stream, &[]));
});
