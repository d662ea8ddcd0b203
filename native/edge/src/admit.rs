//! Phase *admit*: what is refused because of how much there is already.

use crate::edge::Edge;
use crate::matching::Refusal;

impl Edge {
    /// Whether a request that opens something is let in. Only here is 503 said: it tells the sender that the node as a whole sheds.
    pub(crate) fn admit(&mut self) -> Result<(), Refusal> {
        let counter = if self.draining {
            &self.counters.shed_draining
        } else if self.shedding {
            &self.counters.shed_overload
        } else {
            return Ok(());
        };
        counter.add();
        Err(self.shed())
    }

    /// A refusal with a Retry-After that differs from sender to sender, so that they do not come back at once.
    pub(crate) fn shed(&mut self) -> Refusal {
        let (least, most) = self.snapshot.settings.limits.retry_after_seconds;
        let seconds = u64::from(least) + self.random() % u64::from(most.saturating_sub(least) + 1);
        Refusal { status_code: 503, phase: "admit", headers: format!("Retry-After: {seconds}\r\n").into_bytes() }
    }
}
