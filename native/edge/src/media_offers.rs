//! Offers of media that have no answer yet (RFC 3264), of each side: two may cross, and one of them be accepted while the other is refused
//! with 491 (RFC 3261 section 14.2).

use media::{Command, Side};

/// The exchange of offer and answer in one session.
#[derive(Debug, Default)]
pub(crate) struct Offers {
    /// What each side has offered, by the number of the request that it came in.
    open: [Option<u32>; 2],
    /// What waits for its answer: until then what was agreed on before holds (RFC 3261 section 14.1).
    waiting: [Option<Box<Command>>; 2],
    /// Whether any was answered.
    pub(crate) negotiated: bool,
}

impl Offers {
    /// Whether `side` has an offer without an answer.
    pub(crate) fn is_open(&self, side: Side) -> bool {
        self.open[side as usize].is_some()
    }

    /// Whether what `side` has offered came in the request `number`.
    pub(crate) fn is_open_by(&self, side: Side, number: u32) -> bool {
        self.open[side as usize] == Some(number)
    }

    /// `side` offers something in the request `number`, or its response; the command is given back where that holds at once, as nothing
    /// was agreed on before.
    pub(crate) fn offered(&mut self, side: Side, number: u32, command: Command) -> Option<Command> {
        let first = !self.negotiated && !self.is_open(side.other());
        self.open[side as usize] = Some(number);
        if first {
            return Some(command);
        }
        self.waiting[side as usize] = Some(Box::new(command));
        None
    }

    /// `side` answers the other one: what of that holds from now on, besides the answer itself.
    pub(crate) fn answered(&mut self, side: Side, last: bool) -> Option<Command> {
        self.negotiated = true;
        if last {
            self.open[side.other() as usize] = None;
        }
        self.waiting[side.other() as usize].take().map(|command| *command)
    }

    /// `side` offers something to an engine, which keeps what was agreed on itself.
    pub(crate) fn open(&mut self, side: Side, number: u32) {
        self.open[side as usize] = Some(number);
    }

    /// What `side` offered has its answer, or will have none.
    pub(crate) fn close(&mut self, side: Side) {
        (self.open[side as usize], self.waiting[side as usize]) = (None, None);
    }

    /// What `side` offered in the request `number` was refused, or never answered. The first offer of a call stands until that is gone.
    pub(crate) fn forget(&mut self, side: Side, number: u32) {
        if self.negotiated && self.is_open_by(side, number) {
            self.close(side);
        }
    }

    /// `side` has no offer of its own any more, whatever became of the last one.
    pub(crate) fn give_up(&mut self, side: Side) {
        if self.negotiated {
            self.close(side);
        }
    }

    /// Nothing waits any more.
    pub(crate) fn clear(&mut self) {
        (self.open, self.waiting) = Default::default();
    }
}
