//! What one worker holds of a request under way: server transaction, response context and branches in one entry.

use proto::{InviteClient, InviteServer, Key, Moment, NonInviteClient, NonInviteServer};
use smallvec::SmallVec;
use syntax::Method;

use crate::account_attributes::Account;
use crate::gateway_call::GatewayCall;
use crate::hop::Hop;
use crate::media_external::MediaWait;
use crate::origin::Origin;
use crate::plan::Plan;
use crate::policy::PolicyState;
use crate::policy_response::Held;
use crate::question::Address;
use crate::reach::{KnownWay, Reach};
use crate::route::RouteView;
use crate::target::Target;

/// The server side.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Server {
    Invite(InviteServer),
    NonInvite(NonInviteServer),
    /// An ACK that waits for its next hop to be resolved: it is never answered.
    Ack,
}

/// The client side of one attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Client {
    Invite(InviteClient),
    NonInvite(NonInviteClient),
}

impl Client {
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::Invite(client) => client.is_open(),
            Self::NonInvite(client) => client.is_open(),
        }
    }

    /// Whether it was given up without any answer, and may be answered still.
    pub(crate) fn is_abandoned(&self) -> bool {
        matches!(self, Self::Invite(client) if client.is_abandoned())
    }

    pub(crate) fn is_terminated(&self) -> bool {
        match self {
            Self::Invite(client) => client.is_terminated(),
            Self::NonInvite(client) => client.is_terminated(),
        }
    }

    pub(crate) fn poll_timeout(&self) -> Moment {
        match self {
            Self::Invite(client) => client.poll_timeout(),
            Self::NonInvite(client) => client.poll_timeout(),
        }
    }

    pub(crate) fn handle_transport_error(&mut self) {
        match self {
            Self::Invite(client) => client.handle_transport_error(),
            Self::NonInvite(client) => client.handle_transport_error(),
        }
    }
}

/// A CANCEL under way.
#[derive(Debug)]
pub(crate) struct Cancelling {
    pub(crate) client: NonInviteClient,
    pub(crate) sent: Box<[u8]>,
}

/// Why a branch is to be cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CancelReason {
    /// The caller gave up; with its own Reason header field value, if it gave one (RFC 3326).
    Caller(Option<Box<[u8]>>),
    /// Another branch answered.
    Elsewhere,
    /// Another branch refused for all, with this code.
    Refused(u16),
    /// Time is up.
    Timeout,
}

/// One attempt.
#[derive(Debug)]
pub(crate) struct Branch {
    pub(crate) client: Client,
    pub(crate) cookie: u32,
    pub(crate) hop: Hop,
    /// Who is there.
    pub(crate) peer: Option<u16>,
    /// The request as sent, until a final response; then, for a refused INVITE, the ACK.
    pub(crate) sent: Box<[u8]>,
    /// A CANCEL is wanted as soon as a provisional response allows it.
    pub(crate) cancel_wanted: Option<Box<CancelReason>>,
    pub(crate) cancelling: Option<Box<Cancelling>>,
    /// Went over TCP for its size only: if that fails, UDP will do.
    pub(crate) fall_back_to_udp: bool,
    /// A CANCEL went out: it bounds the branch, whatever provisional responses still come.
    pub(crate) cancelled: bool,
    /// Timer C cancelled it: its 487 is our 408.
    pub(crate) timed_out: bool,
    /// The place that it takes at a gateway.
    pub(crate) gateway: Option<Box<GatewayCall>>,
    /// Other flows to the user agent that it is for.
    pub(crate) spare: Vec<Reach>,
}

/// Whom a question was put to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitKind {
    /// The resolver.
    Resolve,
    /// A policy.
    Policy,
    /// The worker that knows where a user is.
    Reach,
    /// An rtpengine.
    Media,
}

/// A question asked and not yet answered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    pub(crate) kind: WaitKind,
    pub(crate) number: u8,
    pub(crate) deadline: Moment,
}

/// The best refusal so far.
#[derive(Debug)]
pub(crate) struct Best {
    pub(crate) status_code: u16,
    /// As it would be sent; `None` for one that we make ourselves.
    pub(crate) response: Option<Box<[u8]>>,
}

/// How attempts of this request are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) route: RouteView,
    /// Peer that sent it.
    pub(crate) from_peer: Option<u16>,
    /// Peer whose `to` is tried; gives time limits and fail-over codes.
    pub(crate) policy: Option<u16>,
    /// Listener to send from, where the dialog names one.
    pub(crate) listener: Option<u16>,
    /// The far end's own connection, where the dialog knows one.
    pub(crate) flow: Option<Hop>,
    /// The only peer that this may go to, by [`proto::stable_id`]; 0 for one that is nobody we know.
    pub(crate) bound_to: Option<u32>,
    pub(crate) record_route: bool,
    pub(crate) strip_identity: bool,
    pub(crate) parallel: bool,
    /// What a branch of several gets of Max-Breadth (RFC 5393 section 5.3).
    pub(crate) breadth: Option<u16>,
    /// The dialog's side that sends; `None` for what opens something.
    pub(crate) dialog: Option<proto::Direction>,
    /// The call of that dialog.
    pub(crate) call: Key,
    /// By how much its CSeq is raised, since requests of ours took numbers of its sender.
    pub(crate) renumber: u32,
    /// It is our own: the Via that it was built with is no hop's, and ours takes its place.
    pub(crate) originated: bool,
}

/// One request under way, or lingering after its final response.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) key: u128,
    pub(crate) method: Method,
    pub(crate) server: Server,
    /// Where it came from.
    pub(crate) arrival: Hop,
    /// Where its responses go.
    pub(crate) reply_to: Hop,
    /// The request as it came, until the final response is sent.
    pub(crate) request: Option<Box<[u8]>>,
    /// By how much its CSeq was raised.
    pub(crate) renumbered: u32,
    /// From as the caller has it, where it goes out otherwise.
    pub(crate) from: Option<Box<[u8]>>,
    /// Tells a loop by the request as it came, where its numbers were changed.
    pub(crate) loop_hash: Option<u64>,
    /// The account that its sender proved to be.
    pub(crate) account: Option<Box<Account>>,
    /// The request as a policy wants it to go out, where that differs.
    pub(crate) edited: Option<Box<[u8]>>,
    pub(crate) policy: Option<Box<PolicyState>>,
    /// Responses that wait for a policy.
    pub(crate) held: Vec<Held>,
    /// The policy that sent it, where no network did.
    pub(crate) origin: Option<Box<Origin>>,
    /// The last response sent, while a retransmission could ask for it.
    pub(crate) response: Option<Box<[u8]>>,
    pub(crate) best: Option<Best>,
    /// How the last attempt failed.
    pub(crate) last_failure: u16,
    /// Challenge lines of refusals with 401 and 407, to be merged (RFC 3261 section 16.7 step 7).
    pub(crate) challenges: Vec<u8>,
    pub(crate) branches: SmallVec<[Branch; 1]>,
    /// Targets not yet tried, last one first.
    pub(crate) targets: SmallVec<[Target; 1]>,
    /// Addresses of the target at hand, last one first.
    pub(crate) addresses: Vec<Address>,
    /// The way to a registered user that is at hand.
    pub(crate) way: Option<Box<Reach>>,
    /// The way to a phone of a dialog, while it is asked whether there is a newer one.
    pub(crate) known_way: Option<Box<KnownWay>>,
    /// What waits for a description of an rtpengine.
    pub(crate) media: Option<Box<MediaWait>>,
    /// Its way over gateways, where rules lead it.
    pub(crate) plan: Option<Box<Plan>>,
    pub(crate) waiting: Option<Waiting>,
    pub(crate) questions: u8,
    pub(crate) shape: Option<Box<Shape>>,
    pub(crate) call: Key,
    /// The dialog's side that sent an in-dialog request; `None` for what opens something.
    pub(crate) dialog: Option<proto::Direction>,
    pub(crate) caller_cancelled: bool,
    /// When 100 is due, where it waits.
    pub(crate) trying_at: Moment,
    /// When the whole request must have its final response.
    pub(crate) give_up_at: Moment,
}

impl Transaction {
    /// One that has just begun: nothing was sent, responses go where it came from.
    #[expect(clippy::too_many_arguments, reason = "one request with what is known of it")]
    pub(crate) fn new(
        key: u128,
        method: Method,
        server: Server,
        arrival: Hop,
        request: &[u8],
        shape: Shape,
        targets: SmallVec<[Target; 1]>,
        give_up_at: Moment,
    ) -> Self {
        Self {
            key,
            method,
            server,
            arrival,
            reply_to: arrival,
            request: Some(request.into()),
            from: None,
            loop_hash: None,
            renumbered: 0,
            account: None,
            edited: None,
            policy: None,
            held: Vec::new(),
            origin: None,
            response: None,
            best: None,
            last_failure: 0,
            challenges: Vec::new(),
            branches: SmallVec::new(),
            targets,
            addresses: Vec::new(),
            way: None,
            known_way: None,
            media: None,
            plan: None,
            waiting: None,
            questions: 0,
            call: shape.call,
            dialog: shape.dialog,
            shape: Some(Box::new(shape)),
            caller_cancelled: false,
            trying_at: Moment::NEVER,
            give_up_at,
        }
    }

    /// Whether it asks a gateway how it does.
    pub(crate) fn is_probe(&self) -> bool {
        matches!(self.origin.as_deref(), Some(Origin::Probe { .. }))
    }

    /// Whether a final response is still owed.
    pub(crate) fn is_open(&self) -> bool {
        match &self.server {
            Server::Invite(server) => server.is_proceeding(),
            Server::NonInvite(server) => server.is_open(),
            Server::Ack => true,
        }
    }

    /// Whether an attempt is under way or a question is open.
    pub(crate) fn is_trying(&self) -> bool {
        self.waiting.is_some() || self.branches.iter().any(|branch| branch.client.is_open())
    }

    /// Whether nothing can come any more.
    pub(crate) fn is_over(&self) -> bool {
        let server = match &self.server {
            Server::Invite(server) => server.is_terminated(),
            Server::NonInvite(server) => server.is_terminated(),
            Server::Ack => self.waiting.is_none(),
        };
        server && self.branches.iter().all(|b| b.client.is_terminated() && b.cancelling.is_none())
    }

    /// The earliest deadline of all that is in here.
    pub(crate) fn poll_timeout(&self) -> Moment {
        let server = match &self.server {
            Server::Invite(server) => server.poll_timeout(),
            Server::NonInvite(server) => server.poll_timeout(),
            Server::Ack => Moment::NEVER,
        };
        let branch = |b: &Branch| b.client.poll_timeout().min(b.cancelling.as_ref().map_or(Moment::NEVER, |c| c.client.poll_timeout()));
        let held = self.held.iter().map(|held| held.deadline).fold(Moment::NEVER, Moment::min);
        let held = self.media.as_ref().map_or(held, |wait| wait.deadline().min(held));
        let own = self.waiting.map_or(Moment::NEVER, |w| w.deadline).min(self.trying_at).min(self.give_up_at).min(held);
        self.branches.iter().map(branch).fold(server.min(own), Moment::min)
    }
}
