//! What workers have for the store that nodes share: keys of limits that they have no place of, and failed authentications.

use std::io;
use std::os::fd::RawFd;

use edge::{Failure, ShareQuestion};
use ring_queue::Mailbox;

use crate::wait::Bell;

/// Questions that wait at once; whoever asks one more waits as long as it may.
const QUESTIONS: usize = 65_536;
/// Failures that wait to be told; more of them count on this node alone.
const FAILURES: usize = 65_536;

/// The questions, and the bell that tells of them.
pub(crate) struct ShareQueue {
    questions: Mailbox<ShareQuestion>,
    bell: Bell,
    failures: Mailbox<Failure>,
}

impl ShareQueue {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { questions: Mailbox::new(QUESTIONS), bell: Bell::new()?, failures: Mailbox::new(FAILURES) })
    }

    /// Puts a question; false where too many wait.
    pub(crate) fn ask(&self, question: ShareQuestion) -> bool {
        let Ok(wake) = self.questions.post(question) else { return false };
        if wake {
            self.bell.ring();
        }
        true
    }

    /// Readable while questions wait.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.bell.descriptor()
    }

    /// Takes up to `limit` questions; who puts one from now on rings.
    pub(crate) fn take(&self, limit: usize) -> Vec<ShareQuestion> {
        self.bell.answer_if_rung();
        self.questions.open();
        std::iter::from_fn(|| self.questions.take()).take(limit).collect()
    }

    /// Puts a failure; false where too many wait.
    pub(crate) fn tell(&self, failure: Failure) -> bool {
        self.failures.post(failure).is_ok()
    }

    /// Takes up to `limit` failures.
    pub(crate) fn failures(&self, limit: usize) -> Vec<Failure> {
        std::iter::from_fn(|| self.failures.take()).take(limit).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.questions.len()
    }
}
