//! What workers tell each other.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use edge::{
    Answer, BanChange, CallView, CredentialAnswer, CredentialQuestion, Hop, LocationRow, MediaAnswer, MediaNotice, QuestionId, Reach, ReachQuestion, Released,
    Routing, SharedFailures, Snapshot, SourceView,
};
use ring_queue::Mailbox;

use crate::bind::Bound;
use crate::media::MediaEnds;
use crate::policies::WorkerLink;

/// What a worker changes at once when the configuration does.
pub(crate) struct Reload {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) links: Vec<WorkerLink>,
    pub(crate) drain: Vec<u32>,
    /// Sockets of listeners that are new, to be put behind those that there are.
    pub(crate) bound: Vec<Bound>,
    /// Rules and gateways that come with it.
    pub(crate) routes: Option<Arc<Routing>>,
    /// The way to media workers, where media is relayed.
    pub(crate) media: Option<MediaEnds>,
}

/// One item for a worker.
pub(crate) enum Mail {
    /// A message that belongs to it.
    Message(Hop, Box<[u8]>),
    /// A message to send on one of its connections.
    Send(Hop, Box<[u8]>),
    /// A message of its own that could not be delivered.
    Undeliverable(Box<[u8]>),
    /// The answer to one of its questions.
    Answer(Answer),
    /// A policy process to ask from now on.
    Link(Box<WorkerLink>),
    /// Ask that policy process nothing more.
    DrainLink(u32),
    /// That policy process is gone.
    Unlink(u32),
    /// Go by another configuration, with the processes that belong to it, and ask those of the last one nothing more.
    Reload(Box<Reload>),
    /// Route by these tables.
    Routing(Arc<Routing>),
    /// Close the sockets of these listeners.
    CloseListeners(Vec<u16>),
    /// Tell of live calls: those with this Call-ID, or all, so many at most.
    Calls(Option<Box<[u8]>>, usize, Sender<Vec<CallView>>),
    /// End the calls of this Call-ID; tell how many those were, and how many could not be told.
    EndCalls(Box<[u8]>, Sender<(usize, usize)>),
    /// End the calls that hold a key of a limit, or any of its keys; tell how many those were, and how many could not be told.
    EndLimited(Box<str>, Box<str>, Sender<(usize, usize)>),
    /// Tell where a user is whom this worker knows.
    Reach(ReachQuestion),
    /// What an rtpengine says.
    MediaAnswer(Box<MediaAnswer>),
    /// What a media worker tells.
    Media(MediaNotice),
    /// Where a user is that was asked for.
    Reached(QuestionId, Vec<Reach>),
    /// What the database says of a user.
    Credentials(Box<(CredentialQuestion, CredentialAnswer)>),
    /// The store of shared limits answered for these keys, or does not.
    Shares(Released),
    /// Tell of bindings: those of this address of record, or all, so many records at most.
    Location(Option<Box<[u8]>>, usize, Sender<Vec<LocationRow>>),
    /// Remove the bindings of this address of record, or only that of this Contact; tell how many those were.
    RemoveBindings(Box<[u8]>, Option<Box<[u8]>>, Sender<usize>),
    /// Listen to this source no more for so many seconds, and why; tell whether that is new.
    Ban(IpAddr, u32, String, Sender<BanChange>),
    /// The same since another node does, unless somebody known comes from there.
    BanWithOthers(IpAddr, u32, String, Sender<bool>),
    /// What all nodes together counted of failures.
    Failures(Vec<SharedFailures>),
    /// Listen to this source again, and why; tell whether it was banned.
    Unban(IpAddr, String, Sender<bool>),
    /// Tell what is known of a source.
    Source(IpAddr, Sender<SourceView>),
    /// Refuse new work from now on.
    Drain,
    /// End.
    Stop,
}

/// A worker's mailbox and the way to wake it.
pub(crate) struct Post {
    mailbox: Mailbox<Mail>,
    waker: mio::Waker,
}

impl Post {
    pub(crate) fn new(capacity: usize, waker: mio::Waker) -> Arc<Self> {
        Arc::new(Self { mailbox: Mailbox::new(capacity), waker })
    }

    /// Queues `mail`; false where the mailbox is full.
    pub(crate) fn post(&self, mail: Mail) -> bool {
        self.offer(mail).is_ok()
    }

    /// The same, giving `mail` back where the mailbox is full.
    pub(crate) fn offer(&self, mail: Mail) -> Result<(), Mail> {
        let wake = self.mailbox.post(mail)?;
        if wake && let Err(error) = self.waker.wake() {
            log::error!(target: "worker", "cannot wake a worker: {error}");
        }
        Ok(())
    }

    pub(crate) fn open(&self) {
        self.mailbox.open();
    }

    /// Whether something waits that the owner has not looked at.
    pub(crate) fn is_behind(&self) -> bool {
        !self.mailbox.is_empty()
    }

    /// Items that wait.
    pub(crate) fn len(&self) -> usize {
        self.mailbox.len()
    }

    pub(crate) fn take(&self) -> Option<Mail> {
        self.mailbox.take()
    }
}
