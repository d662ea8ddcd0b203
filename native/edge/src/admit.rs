//! Phase *admit*: what is refused because of how much there is already.

use syntax::{Message, Method};

use crate::edge::Edge;
use crate::matching::Refusal;

/// What is refused while a worker cannot keep up. In-dialog requests never are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shedding {
    /// All is well.
    #[default]
    Nothing,
    /// Whatever opens something, but for registrations.
    Calls,
    /// Registrations too.
    Registrations,
}

/// What a request is worth when not all can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// A call, a message, a subscription.
    New,
    /// A registration: without it a phone is dead for minutes.
    Registration,
    /// A request within a dialog.
    Last,
    /// An emergency call (RFC 5031).
    Emergency,
}

impl Class {
    pub(crate) fn of(message: &Message<'_>, in_dialog: bool, emergency: bool) -> Self {
        if emergency {
            Self::Emergency
        } else if in_dialog {
            Self::Last
        } else if message.head.method == Method::Register {
            Self::Registration
        } else {
            Self::New
        }
    }

    /// How much of a table of `limit` this class may fill.
    pub(crate) const fn share(self, limit: usize) -> usize {
        match self {
            Self::New => limit - limit / 8,
            Self::Registration => limit - limit / 16,
            Self::Last | Self::Emergency => limit,
        }
    }
}

impl Edge {
    /// Whether a request that opens something is let in. Only here is 503 said: it tells the sender that the node as a whole sheds.
    pub(crate) fn admit(&mut self, class: Class, listener: u16) -> Result<(), Refusal> {
        let overloaded = match self.shedding {
            Shedding::Nothing => false,
            Shedding::Calls => class == Class::New,
            Shedding::Registrations => class <= Class::Registration,
        };
        if class == Class::Emergency {
            return Ok(());
        }
        let counter = if self.draining || self.snapshot.listener(listener).drained {
            &self.counters.shed_draining
        } else if overloaded {
            &self.counters.shed_overload
        } else {
            return Ok(());
        };
        counter.add();
        Err(self.shed())
    }

    /// A refusal with a Retry-After that differs from sender to sender, so that they do not come back at once.
    pub(crate) fn shed(&mut self) -> Refusal {
        Refusal { headers: self.retry_after(), ..Refusal::new(503, "admit") }
    }

    /// A Retry-After header field line.
    pub(crate) fn retry_after(&mut self) -> Vec<u8> {
        let (least, most) = self.snapshot.settings.limits.retry_after_seconds;
        let seconds = u64::from(least) + self.random() % u64::from(most.saturating_sub(least) + 1);
        format!("Retry-After: {seconds}\r\n").into_bytes()
    }
}
