//! Events on their way from the workers to whoever listens; who is slow loses some, and that is counted.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};

use edge::{Event, Listening};
use ring_queue::Mailbox;

use crate::wait::Bell;

/// The way of events.
pub(crate) struct EventQueue {
    queue: Mailbox<Event>,
    pub(crate) listening: Listening,
    pub(crate) dropped: AtomicU64,
    bell: Bell,
}

impl EventQueue {
    pub(crate) fn new(capacity: usize) -> io::Result<Self> {
        Ok(Self { queue: Mailbox::new(capacity), listening: Listening::default(), dropped: AtomicU64::new(0), bell: Bell::new()? })
    }

    pub(crate) fn push(&self, event: Event) {
        match self.queue.post(event) {
            Ok(true) => self.bell.ring(),
            Ok(false) => {}
            Err(_) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Readable while events wait of which nobody has taken any.
    pub(crate) fn descriptor(&self) -> RawFd {
        self.bell.descriptor()
    }

    /// Events that wait.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Takes up to `limit` events, the oldest first; who puts one from now on rings.
    pub(crate) fn take(&self, limit: usize) -> Vec<Event> {
        self.bell.answer_if_rung();
        self.queue.open();
        std::iter::from_fn(|| self.queue.take()).take(limit).collect()
    }
}
