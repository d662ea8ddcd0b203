//! Events on their way from the workers to whoever listens; who is slow loses some, and that is counted.

use std::sync::atomic::{AtomicU64, Ordering};

use edge::{Event, Listening};
use ring_queue::Mailbox;

/// The way of events.
pub(crate) struct EventQueue {
    queue: Mailbox<Event>,
    pub(crate) listening: Listening,
    pub(crate) dropped: AtomicU64,
}

impl EventQueue {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { queue: Mailbox::new(capacity), listening: Listening::default(), dropped: AtomicU64::new(0) }
    }

    pub(crate) fn push(&self, event: Event) {
        if self.queue.post(event).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Events that wait.
    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Takes up to `limit` events, the oldest first.
    pub(crate) fn take(&self, limit: usize) -> Vec<Event> {
        std::iter::from_fn(|| self.queue.take()).take(limit).collect()
    }
}
