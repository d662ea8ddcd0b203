//! Which worker a message belongs to (DESIGN rule 2): the one named in our token, else a keyed hash of Call-ID.

use proto::{BranchToken, RouteToken, keyed_hash};
use syntax::{HeaderName, Message};

use crate::edge::Edge;
use crate::route::element_uri;

impl Edge {
    pub(crate) fn owner(&self, message: &Message<'_>) -> u8 {
        if message.is_request()
            && message.head.method == syntax::Method::Register
            && let Some(home) = self.home_of_register(message)
        {
            return home;
        }
        let named = if message.is_request() { self.named_in_route(message) } else { self.named_in_via(message) };
        // A token of a time with more workers names none that exists.
        named.filter(|worker| *worker < self.options.workers).unwrap_or_else(|| {
            let hash = keyed_hash(&self.options.process_secret, &[b"owner", message.call_id()]) as u64;
            (hash % u64::from(self.options.workers)) as u8
        })
    }

    /// A registration belongs to the worker that holds the bindings.
    fn home_of_register(&self, message: &Message<'_>) -> Option<u8> {
        if !self.is_served(message) {
            return None;
        }
        let to = syntax::Uri::parse(message.bytes, message.head.to.uri).ok()?;
        self.address_of_record(message.bytes, &to).map(|aor| self.home(&aor))
    }

    fn named_in_via(&self, message: &Message<'_>) -> Option<u8> {
        BranchToken::read(message.text(message.head.via.branch)).filter(|token| token.node == self.node_id).map(|token| token.worker)
    }

    fn named_in_route(&self, message: &Message<'_>) -> Option<u8> {
        let from_request_uri = RouteToken::unverified_worker(message.text(message.head.request_uri.user));
        from_request_uri.or_else(|| {
            let first = message.elements(HeaderName::Route).next()?;
            RouteToken::unverified_worker(message.text(element_uri(message.bytes, first)?.user))
        })
    }
}
