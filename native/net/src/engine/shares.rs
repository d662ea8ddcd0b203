//! Shares of limits that several nodes have together: what the store is to be asked, and what it said.

use std::os::fd::RawFd;
use std::sync::Arc;

use edge::{KeyAsk, KeyShare};

use super::{Engine, insist};
use crate::mail::Mail;

impl Engine {
    /// Readable while requests wait for shares.
    pub fn share_descriptor(&self) -> RawFd {
        self.shared.shares.descriptor()
    }

    /// What to ask for up to `limit` keys whose share does not do.
    pub fn share_questions(&self, limit: usize) -> Vec<KeyAsk> {
        edge::share_asks(self.moment(), self.shared.shares.take(limit))
    }

    /// As [`edge::Snapshot::share_walk`].
    pub fn share_walk(&self) -> Vec<KeyAsk> {
        self.snapshot().map_or_else(Vec::new, |snapshot| snapshot.share_walk(self.moment()))
    }

    /// As [`edge::Snapshot::share_ask`].
    pub fn share_ask(&self, keys: &[(String, String)]) -> Vec<KeyAsk> {
        self.snapshot().map_or_else(Vec::new, |snapshot| snapshot.share_ask(self.moment(), keys))
    }

    /// As [`edge::Snapshot::share_report`].
    pub fn share_report(&self, keys: &[(String, String, u64)]) -> Vec<KeyAsk> {
        self.snapshot().map_or_else(Vec::new, |snapshot| snapshot.share_report(self.moment(), keys))
    }

    /// As [`edge::Snapshot::share_all`]; what was granted is void where the store has not answered for too long.
    pub fn share_all(&self) -> Vec<KeyAsk> {
        let now = self.moment();
        self.snapshot().map_or_else(Vec::new, |snapshot| snapshot.share_all(now, !snapshot.shares_hold(now)))
    }

    /// Takes what the store said, and lets whoever waited for it go on; what to ask again, and keys that
    /// nobody knows any more.
    pub fn give_shares(&self, shares: Vec<KeyShare>) -> (Vec<KeyAsk>, Vec<(String, String)>) {
        let Some(snapshot) = self.snapshot() else { return Default::default() };
        let (released, again, unknown) = snapshot.give_shares(self.moment(), shares);
        self.release_shares(released);
        (again, unknown)
    }

    /// The store did not answer for these keys.
    pub fn fail_shares(&self, keys: &[(String, String)]) {
        if let Some(snapshot) = self.snapshot() {
            self.release_shares(snapshot.fail_shares(keys));
        }
    }

    fn release_shares(&self, released: Vec<usize>) {
        if released.is_empty() {
            return;
        }
        let released: edge::Released = Arc::from(released);
        for post in &self.shared.posts {
            insist(post, Mail::Shares(Arc::clone(&released)));
        }
    }

    /// As [`edge::Snapshot::prolong_shares`].
    pub fn prolong_shares(&self, until: u64, settled: u64) {
        if let Some(snapshot) = self.snapshot() {
            snapshot.prolong_shares(until, settled);
        }
    }

    /// As [`edge::Snapshot::hush_shares`].
    pub fn hush_shares(&self, until: u64) {
        if let Some(snapshot) = self.snapshot() {
            snapshot.hush_shares(until);
        }
    }

    /// As [`edge::Snapshot::lapse_shares`].
    pub fn lapse_shares(&self) {
        if let Some(snapshot) = self.snapshot() {
            snapshot.lapse_shares();
        }
    }

    /// As [`edge::Snapshot::shares_unknown`].
    pub fn shares_unknown(&self, keys: Vec<(String, String)>) -> Vec<(String, String)> {
        self.snapshot().map_or_else(Vec::new, |snapshot| snapshot.shares_unknown(keys))
    }

    /// Whether what the store granted still holds.
    pub fn shares_hold(&self) -> bool {
        self.snapshot().is_some_and(|snapshot| snapshot.shares_hold(self.moment()))
    }
}
