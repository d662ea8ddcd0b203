//! What others ask of users: credentials, bindings, and who is not listened to.

use std::net::IpAddr;
use std::os::fd::RawFd;
use std::sync::mpsc;
use std::time::Duration;

use edge::{Ban, BanChange, CredentialAnswer, CredentialQuestion, Failure, LocationRow, LocationWrite, SharedFailures};

use super::{Engine, insist};
use crate::mail::Mail;

impl Engine {
    /// Readable while workers want credentials.
    pub fn user_descriptor(&self) -> RawFd {
        self.shared.users.descriptor()
    }

    /// Takes up to `limit` questions for credentials.
    pub fn credential_questions(&self, limit: usize) -> Vec<CredentialQuestion> {
        self.shared.users.questions(limit)
    }

    /// Answers a question for credentials.
    pub fn give_credentials(&self, question: CredentialQuestion, answer: CredentialAnswer) {
        if let Some(post) = self.shared.posts.get(usize::from(question.worker)) {
            insist(post, Mail::Credentials(Box::new((question, answer))));
        }
    }

    /// Readable while bindings wait to be written of which none was taken.
    pub fn location_descriptor(&self) -> RawFd {
        self.shared.users.write_descriptor()
    }

    /// Takes up to `limit` bindings to be written to the database.
    pub fn location_writes(&self, limit: usize) -> Vec<LocationWrite> {
        self.shared.users.writes(limit)
    }

    /// Bindings of an address of record, or of the first `limit`.
    pub fn location(&self, aor: Option<&[u8]>, limit: usize) -> Vec<LocationRow> {
        let rows: Vec<Vec<LocationRow>> = self.gather(|reply| Mail::Location(aor.map(Into::into), limit, reply));
        let mut rows: Vec<LocationRow> = rows.into_iter().flatten().collect();
        rows.sort_by(|a, b| (&a.user, &a.domain, &a.contact).cmp(&(&b.user, &b.domain, &b.contact)));
        // Each worker has given as many.
        let mut seen = 0;
        let mut last = None;
        rows.into_iter()
            .take_while(|row| {
                let own = Some((row.user.clone(), row.domain.clone()));
                seen += usize::from(own != last);
                last = own;
                seen <= limit
            })
            .collect()
    }

    /// Removes the bindings of an address of record, or only that of a Contact; how many those were.
    pub fn remove_bindings(&self, aor: &[u8], contact: Option<&[u8]>) -> usize {
        self.gather(|reply| Mail::RemoveBindings(aor.into(), contact.map(Into::into), reply)).into_iter().sum()
    }

    /// Listens to a source no more for so many seconds, whatever ban there was; `None` where the worker does not answer.
    pub fn ban(&self, source: IpAddr, seconds: u32, reason: &str) -> Option<BanChange> {
        self.ask_first(|reply| Mail::Ban(source, seconds, reason.to_owned(), reply))
    }

    /// The same since another node does, unless somebody known comes from there.
    pub fn ban_with_others(&self, source: IpAddr, seconds: u32, reason: &str) -> bool {
        self.ask_first(|reply| Mail::BanWithOthers(source, seconds, reason.to_owned(), reply)).unwrap_or(false)
    }

    /// Takes up to `limit` failed authentications that other nodes should know of.
    pub fn take_failures(&self, limit: usize) -> Vec<Failure> {
        self.shared.shares.failures(limit)
    }

    /// What all nodes together counted of failures.
    pub fn raise_failures(&self, told: Vec<SharedFailures>) {
        if let Some(post) = self.shared.posts.first() {
            insist(post, Mail::Failures(told));
        }
    }

    /// Listens to a source again; whether it was banned.
    pub fn unban(&self, source: IpAddr, reason: &str) -> bool {
        self.ask_first(|reply| Mail::Unban(source, reason.to_owned(), reply)).unwrap_or(false)
    }

    /// Sources that are not listened to, the latest first, and the second of the monotonic clock that it is.
    pub fn bans(&self) -> (Vec<Ban>, u32) {
        let bans = self.snapshot.lock().map(|snapshot| snapshot.bans()).unwrap_or_default();
        (bans, (self.clock.now().moment.0 / 1_000_000) as u32)
    }

    /// What is known of a source, as JSON.
    pub fn source(&self, source: IpAddr) -> Option<String> {
        let (reply, answer) = mpsc::channel();
        let posted = self.shared.posts.first().is_some_and(|post| post.post(Mail::Source(source, reply)));
        let view = answer.recv_timeout(Duration::from_secs(1)).ok().filter(|_| posted)?;
        serde_json::to_string(&view).ok()
    }

    /// What the first worker answers: what all share is changed by one of them.
    fn ask_first<T>(&self, mail: impl FnOnce(mpsc::Sender<T>) -> Mail) -> Option<T> {
        let (reply, answer) = mpsc::channel();
        let posted = self.shared.posts.first().is_some_and(|post| post.post(mail(reply)));
        if posted { answer.recv_timeout(Duration::from_secs(1)).ok() } else { None }
    }
}
