//! What a worker shares with others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use crate::clock::Clock;
use crate::events::EventQueue;
use crate::mail::Post;
use crate::records::RecordQueue;
use crate::resolve::Resolver;
use crate::rtpengine::Rtpengines;
use crate::shares::ShareQueue;
use crate::trace::TraceRing;
use crate::users::UserQueue;

/// What a worker tells others while it runs.
#[derive(Default)]
pub(crate) struct Status {
    pub(crate) drained: AtomicBool,
    pub(crate) connections: AtomicU64,
    pub(crate) connections_refused: AtomicU64,
    pub(crate) send_errors: AtomicU64,
    /// Bytes that wait for policy processes.
    pub(crate) policy_bytes: AtomicU64,
    pub(crate) handed_over: AtomicU64,
    pub(crate) mailbox_full: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) restarts: AtomicU64,
    /// The longest time between two looks at the sockets in the last second, in microseconds.
    pub(crate) lag: AtomicU64,
    /// Share of the new INVITEs that the kernel drops unread, at present.
    pub(crate) unread_percent: AtomicU64,
    /// Datagrams that the kernel dropped at our sockets.
    pub(crate) socket_drops: AtomicU64,
}

/// Everything that a worker shares with others.
pub(crate) struct Shared {
    pub(crate) clock: Clock,
    pub(crate) posts: Vec<Arc<Post>>,
    pub(crate) statuses: Vec<Arc<Status>>,
    pub(crate) records: Option<Arc<RecordQueue>>,
    pub(crate) resolver: Resolver,
    pub(crate) traces: Vec<Arc<TraceRing>>,
    pub(crate) events: Arc<EventQueue>,
    pub(crate) rtpengines: Rtpengines,
    pub(crate) users: UserQueue,
    pub(crate) shares: ShareQueue,
}
