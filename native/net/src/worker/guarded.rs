//! Handing inputs to the edge, so that a panic ends one of them and not the worker.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use edge::{Edge, Hop};
use proto::Now;

use super::{PANICS, Worker};
use crate::mail::Mail;
use crate::trace::TraceKind;

impl Worker {
    pub(super) fn deliver(&mut self, now: Now, hop: &Hop, bytes: &[u8], handed_over: bool) {
        if self.tracing && !handed_over {
            self.shared.traces[self.index].write(TraceKind::Received, now.wall, std::iter::once((hop, bytes)));
        }
        let edge = &mut self.edge;
        match catch_unwind(AssertUnwindSafe(|| edge.handle_message(now, hop, bytes, handed_over))) {
            Ok(None) => {}
            Ok(Some(owner)) => {
                self.status.handed_over.fetch_add(1, Ordering::Relaxed);
                if !self.shared.posts[usize::from(owner)].post(Mail::Message(*hop, bytes.into())) {
                    self.status.mailbox_full.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(_) => {
                self.panicked(now);
                let edge = &mut self.edge;
                if catch_unwind(AssertUnwindSafe(|| edge.handle_panic(now, hop, bytes))).is_err() {
                    log::error!(target: "worker", "a message that made us panic cannot be answered either");
                }
            }
        }
    }

    /// Runs one input; a panic ends that input, not the worker.
    pub(super) fn guarded(&mut self, now: Now, work: impl FnOnce(&mut Edge)) {
        let edge = &mut self.edge;
        if catch_unwind(AssertUnwindSafe(|| work(edge))).is_err() {
            self.panicked(now);
            let edge = &mut self.edge;
            if catch_unwind(AssertUnwindSafe(|| edge.handle_inner_panic(now))).is_err() {
                log::error!(target: "worker", "what a panic left cannot be put away either");
            }
        }
    }

    pub(super) fn panicked(&mut self, now: Now) {
        self.status.panics.fetch_add(1, Ordering::Relaxed);
        let second = now.moment.0 / 1_000_000;
        self.panics.retain(|at| second - at < 10);
        self.panics.push(second);
        if self.panics.len() >= PANICS {
            self.panics.clear();
            self.status.restarts.fetch_add(1, Ordering::Relaxed);
            log::error!(target: "worker", "worker {} panicked {PANICS} times in ten seconds and starts afresh", self.index);
            self.edge.restart(now);
        }
    }

    /// A message came back undelivered: its attempt failed, or the worker whose attempt it was is told.
    pub(crate) fn handle_undeliverable(&mut self, now: Now, bytes: &[u8]) {
        match self.edge.attempt_owner(bytes) {
            Some(owner) if usize::from(owner) != self.index => {
                if !self.shared.posts[usize::from(owner)].post(Mail::Undeliverable(bytes.into())) {
                    self.status.mailbox_full.fetch_add(1, Ordering::Relaxed);
                }
            }
            _ => self.guarded(now, |edge| edge.handle_undeliverable(now, bytes)),
        }
    }
}
