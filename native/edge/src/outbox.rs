//! What the edge wants done, collected over one batch of input.

use crate::decision::Decisions;
use crate::{CallRecord, CredentialQuestion, Event, Failure, Hop, LocationWrite, MediaQuestion, PolicyQuestion, Question, ReachQuestion, ShareQuestion};

/// One message to send.
#[derive(Clone, Copy, Debug)]
pub struct Transmit {
    /// Where to.
    pub hop: Hop,
    start: u32,
    end: u32,
}

/// Effects in the order in which they arose; reused from batch to batch.
#[derive(Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    sends: Vec<Transmit>,
    /// What must be looked up.
    pub questions: Vec<Question>,
    /// Users whose credentials must be fetched.
    pub credentials: Vec<CredentialQuestion>,
    /// Failed authentications that other nodes should know of.
    pub failures: Vec<Failure>,
    /// Keys of limits whose share does not do.
    pub shares: Vec<ShareQuestion>,
    /// Users whom other workers know.
    pub reaches: Vec<ReachQuestion>,
    /// What media workers are to do, each with its number.
    pub media: Vec<(u8, media::Command)>,
    /// What rtpengines are asked.
    pub media_questions: Vec<MediaQuestion>,
    /// What the database is to be told of bindings.
    pub location: Vec<LocationWrite>,
    /// What policies must decide or be told.
    pub policy: Vec<PolicyQuestion>,
    /// Records of calls that have ended.
    pub records: Vec<CallRecord>,
    /// What happened, while somebody listens.
    pub events: Vec<Event>,
    /// What was decided, while somebody may look at it.
    pub decisions: Decisions,
}

impl Outbox {
    /// Queues one message.
    pub fn send(&mut self, hop: Hop, message: &[u8]) {
        self.send_with(hop, |bytes| bytes.extend_from_slice(message));
    }

    /// Queues the message that `write` appends, and returns it.
    pub fn send_with(&mut self, hop: Hop, write: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.sends.push(Transmit { hop, start: start as u32, end: self.bytes.len() as u32 });
        &self.bytes[start..]
    }

    /// The messages queued.
    pub fn sends(&self) -> &[Transmit] {
        &self.sends
    }

    /// The bytes of one of them.
    pub fn bytes(&self, transmit: &Transmit) -> &[u8] {
        &self.bytes[transmit.start as usize..transmit.end as usize]
    }

    /// Forgets the messages and keeps the memory, unless a burst made it large.
    pub fn clear_sends(&mut self) {
        self.sends.clear();
        self.bytes.clear();
        if self.bytes.capacity() > 4 << 20 {
            self.bytes.shrink_to(1 << 20);
        }
    }
}
