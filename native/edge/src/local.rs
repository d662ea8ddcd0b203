//! What the proxy answers itself: OPTIONS to its own address (RFC 3261 section 11).

use syntax::{Message, Method};

use crate::edge::Edge;
use crate::hop::Hop;
use crate::route::RouteView;

impl Edge {
    /// Whether this is an OPTIONS for the proxy itself; such a one needs no further hop (section 16.3 step 3).
    pub(crate) fn is_ping(&self, message: &Message<'_>, route: &RouteView) -> bool {
        message.head.method == Method::Options
            && message.head.to.tag.is_empty()
            && route.next.is_none()
            && route.request_uri_is_own
            && message.head.request_uri.user.is_empty()
    }

    pub(crate) fn answer_ping(&mut self, arrival: &Hop, message: &Message<'_>) {
        if self.draining {
            let refusal = self.shed();
            return self.reply(arrival, message, refusal.status_code, None, &refusal.headers);
        }
        self.reply(
            arrival,
            message,
            200,
            None,
            b"Accept: */*\r\nAllow: INVITE, ACK, CANCEL, BYE, OPTIONS, REGISTER, SUBSCRIBE, NOTIFY, PUBLISH, MESSAGE, REFER, INFO, UPDATE, PRACK\r\n",
        );
    }
}
