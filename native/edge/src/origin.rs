//! Requests that a policy sends of its own accord (OPTIONS, MESSAGE, NOTIFY), over native transactions: the proxy is their
//! user agent client (RFC 3261 section 8.1), the answer goes back by the link that the request came by.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use proto::{Key, NonInviteServer, Now, milliseconds};
use routing::GatewayState;
use smallvec::SmallVec;
use syntax::{Method, Transport};

use crate::admit::Class;
use crate::edge::Edge;
use crate::hop::Hop;
use crate::limit_settings::HeldLimit;
use crate::policy::VerdictError;
use crate::route::RouteView;
use crate::target::TargetSet;
use crate::transaction::{Server, Shape, Transaction};
use crate::verdict::{PolicyEvent, PolicyQuestion, PolicyToken, QuestionView, TOKEN, Verdict, VerdictKind};

/// Who waits for the answer.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// A policy, by the link that the request came by.
    Policy { link: u32, token: PolicyToken },
    /// Whoever waited was told.
    Told,
    /// Nobody: the proxy tells both sides of a call that it is over. Its places in limits are others' once one of them knows: a far end
    /// that counts calls too must not have one more before that.
    Bye(Arc<Mutex<SmallVec<[HeldLimit; 2]>>>),
    /// The proxy wants to know whether a side of a call is there.
    CallPing { call: Key, to_caller: bool },
    /// The proxy wants to know how a gateway does.
    Probe { partition: usize, pool: Option<u16>, gateway: Arc<GatewayState> },
}

impl Edge {
    /// Sends a request for the policy process behind `link`; whatever keeps it from that is told like an answer, with status 0
    /// where the fault is the policy's.
    pub(crate) fn originate(&mut self, now: Now, link: u32, token: PolicyToken, decision: &[u8]) {
        let origin = Origin::Policy { link, token };
        let verdict = rmp_serde::from_slice::<Verdict>(decision).map_err(|error| VerdictError::Unreadable(error.to_string()));
        match verdict.and_then(|verdict| self.send_for(now, origin.clone(), &verdict)) {
            Ok(true) => self.counters.requests_originated.add(),
            Ok(false) => self.tell_origin(now, &origin, 503, b""),
            Err(error) => {
                self.counters.policy_errors.add();
                self.tell_origin(now, &origin, 0, error.to_string().as_bytes());
            }
        }
    }

    fn send_for(&mut self, now: Now, origin: Origin, verdict: &Verdict) -> Result<bool, VerdictError> {
        if verdict.kind != VerdictKind::Originate {
            return Err(VerdictError::Hook);
        }
        let found = self.with_stored(verdict.request.as_bytes(), |edge, message| {
            let head = message.head;
            if !message.is_request() || matches!(head.method, Method::Invite | Method::Ack | Method::Cancel) {
                return Err(VerdictError::Unreadable("not a request that a policy may send".to_owned()));
            }
            let route = RouteView::read(&edge.snapshot.own, &edge.options.route_secret, message).map_err(|_| VerdictError::TooLarge)?;
            let targets = if verdict.peer.is_empty() && verdict.targets.is_empty() {
                let next = Self::next_hop(message, &route).ok_or(VerdictError::NoTarget)?;
                TargetSet { targets: SmallVec::from_buf([next]), policy: None, plan: None, from: None, loop_hash: None }
            } else {
                let wanted = Verdict { kind: VerdictKind::Relay, peer: verdict.peer.clone(), targets: verdict.targets.clone(), ..Verdict::default() };
                edge.verdict_targets(&wanted)?.ok_or(VerdictError::NoTarget)?
            };
            Ok((head.method, route, targets))
        });
        let (method, route, targets): (Method, RouteView, TargetSet) =
            found.unwrap_or_else(|| Err(VerdictError::Unreadable("not a SIP request".to_owned())))?;
        let most = 64 * self.snapshot.timers.t1;
        let wait = if verdict.deadline_milliseconds == 0 { most } else { milliseconds(verdict.deadline_milliseconds).min(most) };
        Ok(self.send_own(now, origin, verdict.request.as_bytes(), method, route, targets, None, wait))
    }

    /// Sends a request of our own, whole but for its Via, and by `flow` where one is named; false where there is no room for it.
    #[expect(clippy::too_many_arguments, reason = "one request with where it goes and who waits")]
    pub(crate) fn send_own(
        &mut self,
        now: Now,
        origin: Origin,
        request: &[u8],
        method: Method,
        route: RouteView,
        targets: TargetSet,
        flow: Option<Hop>,
        wait: u64,
    ) -> bool {
        let wish = targets.policy.and_then(|policy| self.snapshot.peer_listeners.get(usize::from(policy)).copied().flatten());
        self.send_by(now, origin, request, method, route, targets, flow, flow.map(|hop| hop.listener).or(wish), wait)
    }

    /// The same from a listener of the caller's choice.
    #[expect(clippy::too_many_arguments, reason = "one request with where it goes and who waits")]
    pub(crate) fn send_by(
        &mut self,
        now: Now,
        origin: Origin,
        request: &[u8],
        method: Method,
        route: RouteView,
        targets: TargetSet,
        flow: Option<Hop>,
        listener: Option<u16>,
        wait: u64,
    ) -> bool {
        let key = u128::from(self.random()) << 64 | u128::from(self.random());
        let nowhere = Hop { listener: 0, transport: Transport::Udp, address: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0), connection: None };
        let shape = Shape {
            route,
            from_peer: None,
            policy: targets.policy,
            listener,
            flow,
            bound_to: None,
            record_route: false,
            strip_identity: false,
            parallel: false,
            breadth: None,
            dialog: None,
            call: Key::NONE,
            renumber: 0,
            originated: true,
        };
        let server = Server::NonInvite(NonInviteServer::new(true));
        let mut transaction = Transaction::new(key, method, server, nowhere, request, shape, targets.targets, now.moment + wait);
        // What policies send counts as new work, what ends a call does not.
        let last = matches!(origin, Origin::Bye(_));
        transaction.origin = Some(Box::new(origin));
        let class = if last { Class::Last } else { Class::Registration };
        let full = self.transactions.len() >= class.share(self.transactions.limit());
        let Some(entry) = (if full { None } else { self.transactions.insert(transaction) }) else {
            self.counters.shed_table_full.add();
            return false;
        };
        self.in_hand = entry;
        self.index.insert(key, entry);
        self.with_request(entry, |edge, message| edge.advance(now, entry, message));
        self.conclude(now, entry);
        self.rearm(entry);
        true
    }

    /// The request of `entry` is over: whoever sent it is told, once.
    pub(crate) fn answer_origin(&mut self, now: Now, entry: Key, status_code: u16, response: &[u8]) {
        let Some(transaction) = self.transactions.get(entry) else { return };
        if let Some(origin) = transaction.origin.as_deref().cloned() {
            self.tell_origin(now, &origin, status_code, response);
        }
    }

    fn tell_origin(&mut self, now: Now, origin: &Origin, status_code: u16, message: &[u8]) {
        let (link, name) = match origin {
            Origin::Policy { link, token } => (*link, *token),
            Origin::Probe { partition, pool, gateway } => return self.probed(now, *partition, *pool, gateway, status_code),
            Origin::CallPing { call, to_caller } => return self.call_pinged(now, *call, *to_caller, status_code, !message.is_empty()),
            Origin::Bye(places) => {
                places.lock().unwrap_or_else(PoisonError::into_inner).clear();
                return;
            }
            Origin::Told => return,
        };
        let mut token = Vec::with_capacity(TOKEN);
        name.write(&mut token);
        let view = QuestionView { event: PolicyEvent::Answer as u8, status_code, token: &token, message, ..QuestionView::NOTHING };
        let mut bytes = Vec::with_capacity(128 + message.len());
        view.write(&mut bytes);
        self.out.policy.push(PolicyQuestion { link, bytes, token: name });
    }
}
