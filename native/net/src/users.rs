//! What workers want of the server process about users, and what they have for it: credentials, and bindings to be written.

use std::io;
use std::os::fd::RawFd;
use std::thread;
use std::time::Duration;

use edge::{CredentialQuestion, LocationWrite};
use ring_queue::Mailbox;

use crate::wait::Bell;

/// Questions for credentials that wait at once; more are answered as by a database that is gone.
const QUESTIONS: usize = 65_536;
/// Bindings on their way to the database.
const WRITES: usize = 262_144;

/// Both queues, and the bell that tells of questions.
pub(crate) struct UserQueue {
    questions: Mailbox<CredentialQuestion>,
    writes: Mailbox<LocationWrite>,
    bell: Bell,
    write_bell: Bell,
}

impl UserQueue {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { questions: Mailbox::new(QUESTIONS), writes: Mailbox::new(WRITES), bell: Bell::new()?, write_bell: Bell::new()? })
    }

    /// Puts a question; false where too many wait.
    pub(crate) fn ask(&self, question: CredentialQuestion) -> bool {
        match self.questions.post(question) {
            Ok(wake) => {
                if wake {
                    self.bell.ring();
                }
                true
            }
            Err(_) => false,
        }
    }

    /// Readable while questions wait.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.bell.descriptor()
    }

    /// Takes up to `limit` questions; who puts one from now on rings.
    pub(crate) fn questions(&self, limit: usize) -> Vec<CredentialQuestion> {
        self.bell.answer_if_rung();
        self.questions.open();
        std::iter::from_fn(|| self.questions.take()).take(limit).collect()
    }

    /// How many more bindings there is room for.
    pub(crate) fn room(&self, workers: usize) -> usize {
        WRITES.saturating_sub(self.writes.len()) / workers.max(1)
    }

    /// Puts a binding. There is room for it, but for the last ones of a worker that ends: those wait for the writer.
    pub(crate) fn write(&self, mut write: LocationWrite) {
        for _ in 0..5_000 {
            match self.writes.post(write) {
                Ok(wake) => {
                    if wake {
                        self.write_bell.ring();
                    }
                    return;
                }
                Err(back) => write = back,
            }
            thread::sleep(Duration::from_millis(1));
        }
        log::error!(target: "register", "bindings are not written: nobody takes them");
    }

    /// Readable while bindings wait of which none was taken.
    pub(crate) fn write_descriptor(&self) -> RawFd {
        self.write_bell.descriptor()
    }

    /// Takes up to `limit` bindings to be written; who puts one from now on rings.
    pub(crate) fn writes(&self, limit: usize) -> Vec<LocationWrite> {
        self.write_bell.answer_if_rung();
        self.writes.open();
        std::iter::from_fn(|| self.writes.take()).take(limit).collect()
    }

    /// Questions and bindings that wait.
    pub(crate) fn depths(&self) -> (usize, usize) {
        (self.questions.len(), self.writes.len())
    }
}
