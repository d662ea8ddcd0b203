//! Policies (DESIGN rules 1, 3 and 4): a request that opens something is parked with a question to another process, and
//! goes on with the verdict. Deadlines run here; whatever goes wrong there ends in the verdict that the file names.

use std::borrow::Cow;
use std::sync::Arc;

use proto::{Key, Moment, Now, keyed_hash, milliseconds};
use smallvec::SmallVec;
use syntax::{HeaderName, Message, Method, Span, Uri};

use crate::edge::Edge;
use crate::limits::Within;
use crate::policy_edit::edited;
use crate::question::Address;
use crate::route::RouteView;
use crate::settings::PolicyTerms;
use crate::target::{NoTarget, Target, TargetSet};
use crate::transaction::{Best, Transaction, WaitKind, Waiting};
use crate::variables::Variables;
use crate::verdict::{EditAction, HeaderEdit, Named, PolicyEvent, PolicyQuestion, PolicyToken, QuestionView, Verdict, VerdictKind};

/// What a request's transaction remembers of the policy that decides it.
#[derive(Debug)]
pub(crate) struct PolicyState {
    /// The process that was asked.
    pub(crate) link: u32,
    /// What it was asked last.
    pub(crate) event: PolicyEvent,
    /// Where the attempt goes that it is asked about, and with what that ends where the policy fails.
    pub(crate) pending: Option<(Address, u16)>,
    /// The request as it went out with an attempt, where the policy edited it for that.
    pub(crate) branch_edits: Option<(usize, Box<[u8]>)>,
    /// What handlers of rules changed: it goes out with all gateways of the call, on top of what the request's own handler changes.
    pub(crate) rule_edits: Vec<HeaderEdit>,
    /// It was asked about the failure of all attempts; that is done once.
    pub(crate) failure_asked: bool,
    /// How long each answer may take.
    pub(crate) deadline: u64,
    /// When it was asked last.
    pub(crate) asked: Moment,
    /// What the caller gets where the policy fails.
    pub(crate) status_code: u16,
    /// The policy waits for what comes of its attempts.
    pub(crate) report: bool,
    /// Something at the policy still runs: it is to be told of the end.
    pub(crate) running: bool,
    /// Header fields of the trust domain are to be taken out of the request as it came.
    pub(crate) strip_identity: bool,
    /// How long an attempt may take to its first answer, where the policy says.
    pub(crate) first_answer: Option<u64>,
    /// And from there to its final answer.
    pub(crate) final_answer: Option<u64>,
    /// The last response of an attempt that a policy waits for, as its caller would get it.
    pub(crate) last_response: Option<Box<[u8]>>,
    /// What is tried is a service, and nobody who could be called.
    pub(crate) service: bool,
    /// Failures that were reported: attempts that cannot even be sent add no branch that would bound them.
    pub(crate) reports: usize,
    /// Tells a loop by the request as it came: where a policy rewrites it, that it comes back rewritten is a spiral.
    pub(crate) loop_hash: Option<u64>,
    /// Variables of a request that opens no call: those of a call are with it.
    pub(crate) variables: Option<Box<Variables>>,
}

impl PolicyState {
    /// The time for the whole request is over: what its attempts end with is its end.
    pub(crate) fn ask_no_more(&mut self) {
        self.report = false;
    }
}

/// Bytes of a message that a policy makes or changes: what a datagram carries over IPv4.
pub(crate) const MOST_BYTES: usize = 65_507;

/// What a verdict asks for that cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum VerdictError {
    #[error("cannot be read: {0}")]
    Unreadable(String),
    #[error("not a SIP URI with a host: {0}")]
    Target(String),
    #[error("target names this proxy itself: {0}")]
    Own(String),
    #[error("no such peer, or one without `to`: {0}")]
    Peer(String),
    #[error("no such route: {0}")]
    Route(String),
    #[error("no such limit: {0}")]
    Limit(String),
    #[error("more variables than {} bytes, or too many of them", crate::variables::MOST_BYTES)]
    Variables,
    #[error("media is relayed only where the configuration has [media]")]
    Media,
    #[error("no target")]
    NoTarget,
    #[error("the message would be too large for a datagram")]
    TooLarge,
    #[error("header field may not be changed: {0}")]
    Header(String),
    #[error("control characters, or not what may stand there, in: {0}")]
    Text(String),
    #[error("not a final status code that fits the request: {0}")]
    StatusCode(u16),
    #[error("not a verdict for this hook")]
    Hook,
}

impl Edge {
    /// The rule for `event` that fits a request of `method` from `peer`; deadlines of all that fit add up, since they are
    /// asked one after the other.
    pub(crate) fn policy_rule(&self, event: PolicyEvent, method: &[u8], peer: u16) -> Option<PolicyTerms> {
        let mut fitting = self.snapshot.policies.iter().filter(|rule| rule.fits(event, method, peer)).map(|rule| rule.terms);
        let first = fitting.next()?;
        Some(PolicyTerms { deadline: first.deadline + fitting.map(|terms| terms.deadline).sum::<u64>(), ..first })
    }

    /// The processes that take questions.
    pub fn set_policy_links(&mut self, links: Vec<u32>) {
        self.policy_links = links;
    }

    /// Parks the request of `entry` until its policy decides.
    pub(crate) fn ask_policy(&mut self, now: Now, entry: Key, message: &Message<'_>, event: PolicyEvent, terms: &PolicyTerms) {
        let there = self.begin_policy(now, entry, message, event, terms);
        self.counters.policy_questions.add();
        if !there {
            self.counters.policy_unavailable.add();
            return self.policy_failed(now, entry);
        }
        let trace = self.trace_id(message.call_id(), message.text(message.head.from.tag));
        self.put_question(now, entry, event, 0, trace, Some(message.bytes), terms.deadline);
    }

    /// The process that is asked about `entry`.
    pub(crate) fn policy_link(&self, entry: Key) -> Option<u32> {
        self.policy_links.get(entry.slot as usize % self.policy_links.len().max(1)).copied()
    }

    /// Makes a place for what is to be remembered of the policy for `entry`; false where no process is there.
    pub(crate) fn begin_policy(&mut self, now: Now, entry: Key, message: &Message<'_>, event: PolicyEvent, terms: &PolicyTerms) -> bool {
        let link = self.policy_link(entry);
        // A response tells nothing of the way that its request took.
        let loop_hash = message.is_request().then(|| self.loop_hash(message));
        let Some(transaction) = self.transactions.get_mut(entry) else { return false };
        if let Some(state) = transaction.policy.as_mut() {
            // A handler that waits for its attempts keeps its process and its terms.
            if !state.running {
                (state.deadline, state.status_code) = (terms.deadline, terms.status_code);
                state.link = link.unwrap_or(state.link);
            }
            return link.is_some();
        }
        let state = PolicyState {
            link: link.unwrap_or_default(),
            event,
            pending: None,
            branch_edits: None,
            rule_edits: Vec::new(),
            failure_asked: false,
            deadline: terms.deadline,
            asked: now.moment,
            status_code: terms.status_code,
            report: false,
            running: false,
            strip_identity: transaction.shape.as_ref().is_some_and(|shape| shape.strip_identity),
            first_answer: None,
            final_answer: None,
            last_response: None,
            service: false,
            reports: 0,
            loop_hash,
            variables: None,
        };
        transaction.policy = Some(Box::new(state));
        link.is_some()
    }

    /// Writes a question about `entry` for its policy and waits for the verdict. `request` is what is in somebody's hands at
    /// the moment, where it is not in its place.
    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn put_question(&mut self, now: Now, entry: Key, event: PolicyEvent, status_code: u16, trace: [u8; 16], request: Option<&[u8]>, deadline: u64) {
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        let Some(state) = transaction.policy.as_mut() else { return };
        // What is asked about an attempt is over with its verdict.
        state.running |= !PolicyEvent::stands_alone(event as u8);
        state.event = event;
        state.asked = now.moment;
        transaction.questions = transaction.questions.wrapping_add(1);
        transaction.waiting = Some(Waiting { number: transaction.questions, deadline: now.moment + deadline, kind: WaitKind::Policy });
        self.tell_policy(entry, event, status_code, deadline, trace, request);
    }

    fn tell_policy(&mut self, entry: Key, event: PolicyEvent, status_code: u16, deadline: u64, trace: [u8; 16], request: Option<&[u8]>) {
        let Some(transaction) = self.transactions.get(entry) else { return };
        let Some(state) = transaction.policy.as_ref() else { return };
        // A later question about what a handler knows carries nothing: the process keeps it.
        let request = request.or(transaction.request.as_deref());
        let mut of_call = Vec::new();
        if event == PolicyEvent::Ended && (200..300).contains(&status_code) && self.calls.get(transaction.call).is_some() {
            // A handler that goes on after the answer may still keep something for the record.
            PolicyToken { worker: self.options.worker, number: 0, names: Named::Call, transaction: transaction.call }.write(&mut of_call);
        }
        let message = match event {
            PolicyEvent::Failed => state.last_response.as_deref().unwrap_or_default(),
            _ if PolicyEvent::brings_request(event as u8) => request.unwrap_or_default(),
            _ => &of_call,
        };
        let gateway = || match event {
            // Who sent it, where that is a gateway.
            PolicyEvent::Request => self.sender(&transaction.arrival).unwrap_or_default().to_owned(),
            PolicyEvent::Rule => transaction.plan.as_ref().map_or_else(String::new, |plan| plan.rule_in_words()),
            _ => transaction.plan.as_ref().map_or_else(String::new, |plan| plan.gateway_name().to_owned()),
        };
        let target = state.pending.map_or_else(gateway, |(address, _)| {
            let by = transaction.plan.as_ref().map(|plan| plan.gateway_in_words()).filter(|words| !words.is_empty());
            format!("{address}\x1f{}", by.as_deref().unwrap_or("\x1f\x1f"))
        });
        let question = self.question(entry, event, status_code, deadline, trace, transaction.questions, &target, message);
        if let Some(question) = question {
            self.out.policy.push(question);
        }
    }

    /// Who sent a request; after its answer only the call knows.
    pub(crate) fn caller_peer(&self, transaction: &Transaction) -> Option<u16> {
        match transaction.shape.as_ref() {
            Some(shape) => shape.from_peer,
            None => self.calls.get(transaction.call)?.from_peer,
        }
    }

    /// A question about `entry`.
    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    pub(crate) fn question(
        &self,
        entry: Key,
        event: PolicyEvent,
        status_code: u16,
        deadline: u64,
        trace: [u8; 16],
        number: u8,
        target: &str,
        message: &[u8],
    ) -> Option<PolicyQuestion> {
        let transaction = self.transactions.get(entry)?;
        let state = transaction.policy.as_ref()?;
        let token = PolicyToken { worker: self.options.worker, number, names: Named::Transaction, transaction: entry };
        let mut written = Vec::with_capacity(crate::verdict::TOKEN);
        token.write(&mut written);
        let peer = self.caller_peer(transaction).and_then(|index| self.snapshot.settings.peers.get(usize::from(index)));
        let account = transaction.account.as_ref().map_or_else(String::new, |account| account.text());
        let variables = self.variables(entry);
        let view = QuestionView {
            event: event as u8,
            status_code,
            token: &written,
            deadline: deadline.min(u64::from(u32::MAX)) as u32,
            source: (transaction.arrival.address.ip().to_canonical(), transaction.arrival.address.port()),
            trace,
            transport: transaction.arrival.transport.as_str(),
            listener: self.snapshot.listener(transaction.arrival.listener).label(),
            peer: peer.map_or("", |peer| &peer.name),
            target,
            account: &account,
            variables: &variables,
            message,
        };
        let mut bytes = Vec::with_capacity(128 + message.len());
        view.write(&mut bytes);
        // What is asked about an attempt or a response is no handler's that runs already: whoever is there may answer.
        let own = !PolicyEvent::stands_alone(event as u8);
        let link = if own { state.link } else { self.policy_link(entry).unwrap_or(state.link) };
        Some(PolicyQuestion { link, bytes, token })
    }

    /// The W3C trace id of a call, the same wherever it is asked for.
    pub(crate) fn trace_id(&self, call_id: &[u8], caller_tag: &[u8]) -> [u8; 16] {
        keyed_hash(&self.options.process_secret, &[b"trace", call_id, caller_tag]).to_be_bytes()
    }

    /// Tells a policy that has something running for `entry` that it is over.
    pub(crate) fn end_policy(&mut self, entry: Key, status_code: u16) {
        self.end_part(entry, status_code);
        let Some(state) = self.transactions.get_mut(entry).and_then(|t| t.policy.as_mut()) else { return };
        if std::mem::take(&mut state.running) {
            self.tell_policy(entry, PolicyEvent::Ended, status_code, 0, [0; 16], None);
        }
    }

    /// The same for a handler that was asked about an attempt or a rule, and has not answered yet.
    pub(crate) fn end_part(&mut self, entry: Key, status_code: u16) {
        let Some(transaction) = self.transactions.get(entry) else { return };
        let Some(waiting) = transaction.waiting.filter(|waiting| waiting.kind == WaitKind::Policy) else { return };
        let part = transaction.policy.as_ref().and_then(|state| state.event.part());
        let Some(part) = part else { return };
        let link = self.policy_link(entry);
        if let (Some(link), Some(question)) = (link, self.question(entry, PolicyEvent::Ended, status_code, 0, [0; 16], waiting.number, part, &[])) {
            self.out.policy.push(PolicyQuestion { link, ..question });
        }
    }

    /// Nothing is under way any more: true where a policy is asked what to do about that.
    pub(crate) fn report_to_policy(&mut self, now: Now, entry: Key) -> bool {
        let Some(transaction) = self.transactions.get_mut(entry) else { return false };
        let most = self.snapshot.settings.limits.branches;
        let may = !transaction.caller_cancelled && transaction.branches.len() <= most;
        let Some(state) = transaction.policy.as_mut().filter(|state| may && state.report && state.reports < most) else { return false };
        state.report = false;
        state.reports += 1;
        // The plan of a policy that has no gateway left says so with 0.
        let spent = transaction.plan.as_ref().is_some_and(|plan| plan.asks && plan.exhausted);
        let (status_code, deadline) = (if spent { 0 } else { transaction.last_failure }, state.deadline);
        self.put_question(now, entry, PolicyEvent::Failed, status_code, [0; 16], None, deadline);
        true
    }

    /// A question could not be put to `link`: there is no room, or no such process any more.
    pub fn handle_policy_refusal(&mut self, now: Now, token: PolicyToken) {
        self.counters.policy_unavailable.add();
        let waits = |w: Waiting| w.kind == WaitKind::Policy && w.number == token.number;
        if self.transactions.get(token.transaction).is_some_and(|t| t.waiting.is_some_and(waits)) {
            self.in_hand = token.transaction;
            self.policy_failed(now, token.transaction);
            self.rearm(token.transaction);
        } else {
            self.release(now, token.transaction, token.number, None);
        }
    }

    /// The policy gave no usable verdict.
    pub(crate) fn policy_failed(&mut self, now: Now, entry: Key) {
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        transaction.waiting = None;
        let Some(state) = transaction.policy.as_mut() else { return };
        state.report = false;
        let (event, status_code) = (state.event, state.status_code);
        let emergency = self.calls.get(transaction.call).is_some_and(|call| call.emergency);
        if event == PolicyEvent::Branch {
            if !emergency || !self.make_branch(now, entry) {
                self.branch_failed(entry);
            }
            return self.conclude(now, entry);
        }
        let emergency = emergency && matches!(event, PolicyEvent::Request | PolicyEvent::Rule);
        if event == PolicyEvent::InDialog && transaction.method == Method::Bye || emergency {
            // A dialog must be able to end, and help to be called for, whatever became of a policy.
            transaction.edited = None;
            self.decide_for(entry, |_| "policy: no usable verdict, it goes on as the configuration says".to_owned());
            self.with_request(entry, |edge, message| edge.advance(now, entry, message));
            return self.conclude(now, entry);
        }
        transaction.targets.clear();
        transaction.addresses.clear();
        if transaction.best.is_some() {
            // Attempts were made: what they ended with says more than that the policy failed.
            return self.conclude(now, entry);
        }
        self.decide_for(entry, |_| format!("policy: no usable verdict, {status_code} by configuration"));
        let headers = self.retry_after();
        self.mark_refused(entry, "policy");
        self.finish_saying(now, entry, status_code, None, &headers, b"");
    }

    /// An attempt that a policy was asked about is not made, nor any after it; those under way go on. Whoever calls concludes.
    pub(crate) fn branch_failed(&mut self, entry: Key) {
        let Some(transaction) = self.transactions.get_mut(entry) else { return };
        transaction.waiting = None;
        transaction.targets.clear();
        transaction.addresses.clear();
        let Some(state) = transaction.policy.as_mut() else { return };
        let status_code = state.pending.take().map_or(state.status_code, |(_, status_code)| status_code);
        self.decide_for(entry, |_| format!("policy: no usable verdict on an attempt, it counts as failed with {status_code}"));
        self.note_failure(entry, status_code, None);
    }

    /// Takes what came by `link`: a token, and a decision or a request to send as MessagePack.
    pub fn handle_verdict(&mut self, now: Now, link: u32, bytes: &[u8]) {
        let Some((token, decision)) = PolicyToken::read(bytes) else { return self.counters.policy_errors.add() };
        let entry = token.transaction;
        match token.names {
            Named::Origin => return self.originate(now, link, token, decision),
            Named::Call if token.worker == self.options.worker => return self.keep_of_call(now, entry, decision),
            Named::Call | Named::Transaction => {}
        }
        let waits = |w: Waiting| w.kind == WaitKind::Policy && w.number == token.number;
        if token.worker == self.options.worker && self.release(now, entry, token.number, Some(decision)) {
            return;
        }
        if token.worker != self.options.worker || !self.transactions.get(entry).is_some_and(|t| t.waiting.is_some_and(waits)) {
            if token.worker == self.options.worker && self.gives_up(entry, decision) {
                return self.give_up_attempts(now, entry);
            }
            return self.counters.late_answers.add();
        }
        self.in_hand = entry;
        if let Some(state) = self.transactions.get(entry).and_then(|t| t.policy.as_ref()) {
            let took = now.moment.since(state.asked);
            self.counters.decided(took);
            self.tell_slow(now, "policy decision", took, |edge| {
                let call = edge.transactions.get(entry).and_then(|transaction| edge.calls.get(transaction.call));
                call.map_or_else(String::new, |call| String::from_utf8_lossy(call.texts.call_id()).into_owned())
            });
        }
        let verdict = rmp_serde::from_slice::<Verdict>(decision).map_err(|error| VerdictError::Unreadable(error.to_string()));
        let applied = verdict.and_then(|verdict| {
            let asked = self.transactions.get(entry).and_then(|t| t.policy.as_ref()).map_or(now.moment, |state| state.asked);
            self.decide_for(entry, |_| format!("policy: {} after {} us", verdict.in_words(), now.moment.since(asked)));
            self.apply_verdict(now, entry, verdict)
        });
        self.verdict_applied(now, entry, applied);
    }

    /// Goes on with a verdict that waited for places in limits.
    pub(crate) fn take_up_verdict(&mut self, now: Now, entry: Key, verdict: Verdict) {
        let waits = |transaction: &Transaction| transaction.waiting.is_some_and(|waiting| waiting.kind == WaitKind::Policy);
        if !self.transactions.get(entry).is_some_and(waits) {
            return self.counters.late_answers.add();
        }
        self.in_hand = entry;
        let applied = self.apply_verdict(now, entry, verdict);
        self.verdict_applied(now, entry, applied);
    }

    fn verdict_applied(&mut self, now: Now, entry: Key, applied: Result<(), VerdictError>) {
        match applied {
            Ok(()) => {}
            Err(error) => {
                self.counters.policy_errors.add();
                if self.may_log(now) {
                    let name = self.name_of_entry(entry);
                    log::warn!(target: "policy", call_id = name.call_id.as_str(), trace_id = name.trace_id.as_str(); "a verdict cannot be carried out: {error}");
                }
                self.policy_failed(now, entry);
            }
        }
        self.rearm(entry);
    }

    fn apply_verdict(&mut self, now: Now, entry: Key, verdict: Verdict) -> Result<(), VerdictError> {
        let event = self.transactions.get(entry).and_then(|t| t.policy.as_ref()).map_or(PolicyEvent::Request, |state| state.event);
        if event == PolicyEvent::Branch {
            return self.decide_branch(now, entry, &verdict);
        }
        if event == PolicyEvent::Rule {
            return self.decide_rule(now, entry, &verdict);
        }
        if event == PolicyEvent::InDialog && matches!(verdict.kind, VerdictKind::Relay | VerdictKind::Best | VerdictKind::Route | VerdictKind::Next) {
            return Err(VerdictError::Hook);
        }
        self.keep(entry, &verdict)?;
        if let Some((seconds, reason)) = &verdict.ban {
            self.ban_by_policy(now, entry, *seconds, reason);
        }
        if !verdict.limits.is_empty() && event == PolicyEvent::InDialog {
            return Err(VerdictError::Hook);
        }
        if !verdict.limits.is_empty() {
            match self.within_verdict_limits(now, entry, &verdict)? {
                Within::Yes => {}
                Within::No => return Ok(()),
                Within::Waits(slot) => {
                    self.verdict_waits(now, entry, verdict, slot);
                    return Ok(());
                }
            }
        }
        let targets = self.verdict_targets(&verdict)?;
        self.edit_request(entry, &verdict)?;
        self.plan_anew(now, entry, &verdict)?;
        if verdict.anew && !self.begin_anew(now, entry, &verdict) {
            return Ok(());
        }
        let Some(transaction) = self.transactions.get_mut(entry) else { return Ok(()) };
        let method = transaction.method;
        let breadth = self.with_request(entry, |_, message| crate::identify::breadth(message)).unwrap_or(1);
        let Some(transaction) = self.transactions.get_mut(entry) else { return Ok(()) };
        let Some(state) = transaction.policy.as_mut() else { return Ok(()) };
        match verdict.kind {
            VerdictKind::Error => {
                if (400..700).contains(&verdict.status_code) {
                    // Of the module that failed; until now there was only that of the first.
                    state.status_code = verdict.status_code;
                }
                self.counters.policy_errors.add();
                self.policy_failed(now, entry);
            }
            VerdictKind::Drop | VerdictKind::Originate | VerdictKind::GiveUp => return Err(VerdictError::Hook),
            VerdictKind::Continue | VerdictKind::Relay | VerdictKind::Route | VerdictKind::Next => {
                (state.report, state.running) = (verdict.report, verdict.report);
                state.service = verdict.service && verdict.kind == VerdictKind::Relay;
                state.first_answer = verdict.first_answer_milliseconds.map(milliseconds);
                state.final_answer = verdict.final_answer_milliseconds.map(milliseconds);
                transaction.waiting = None;
                if let Some(found) = targets {
                    // A pool chooses its machines itself, one after the other.
                    transaction.targets = if transaction.plan.is_some() { SmallVec::new() } else { found.targets };
                    transaction.addresses.clear();
                    let count = transaction.targets.len().max(1);
                    let wish = found.policy.and_then(|policy| self.snapshot.peer_listeners.get(usize::from(policy)).copied().flatten());
                    if let Some(shape) = transaction.shape.as_mut() {
                        (shape.policy, shape.listener) = (found.policy, wish);
                        // RFC 5393 section 5.3.3: too little to share out is tried one after the other.
                        shape.parallel = verdict.parallel && usize::from(breadth) >= count;
                        shape.breadth = (shape.parallel && count > 1).then(|| breadth / count as u16);
                    }
                }
                if transaction.targets.is_empty() && transaction.addresses.is_empty() && transaction.plan.is_none() {
                    (state.running, state.report) = (false, false);
                    if transaction.best.is_some() {
                        // Attempts were made and nothing more is wished for: the best of them it is.
                        self.conclude(now, entry);
                        return Ok(());
                    }
                    self.mark_refused(entry, "target");
                    self.finish_saying(now, entry, 404, None, b"", b"");
                    return Ok(());
                }
                self.with_request(entry, |edge, message| edge.advance(now, entry, message));
                self.conclude(now, entry);
            }
            VerdictKind::Reply => {
                self.check_reply(method, &verdict)?;
                self.end_with(now, entry, &verdict)?;
            }
            VerdictKind::Best => {
                if verdict.status_code != 0 {
                    self.check_reply(method, &verdict)?;
                }
                let Some(transaction) = self.transactions.get_mut(entry) else { return Ok(()) };
                // What we made up ourselves for silence and dead transports is no answer of anybody.
                if verdict.status_code != 0 && !matches!(transaction.best, Some(Best { response: Some(_), .. })) {
                    return self.end_with(now, entry, &verdict);
                }
                transaction.waiting = None;
                if let Some(state) = transaction.policy.as_mut() {
                    (state.report, state.running) = (false, false);
                }
                self.conclude(now, entry);
            }
        }
        Ok(())
    }

    pub(crate) fn verdict_targets(&self, verdict: &Verdict) -> Result<Option<TargetSet>, VerdictError> {
        if verdict.kind != VerdictKind::Relay {
            return Ok(None);
        }
        if !verdict.peer.is_empty() {
            let index = self.snapshot.settings.peers.iter().position(|peer| peer.name == verdict.peer).map(|index| index as u16);
            let index = index.filter(|index| !self.snapshot.peers.targets(*index).is_empty()).ok_or_else(|| VerdictError::Peer(verdict.peer.clone()))?;
            return Ok(Some(TargetSet {
                targets: self.snapshot.peers.targets(index).iter().rev().cloned().collect(),
                policy: Some(index),
                plan: None,
                from: None,
                loop_hash: None,
            }));
        }
        let target = |text: &String| {
            let bytes = text.as_bytes();
            let uri = Uri::parse(bytes, Span::new(0, bytes.len())).ok().filter(|uri| !uri.host.is_empty()).ok_or_else(|| VerdictError::Target(text.clone()))?;
            if self.snapshot.own.is_own(bytes, &uri) { Err(VerdictError::Own(text.clone())) } else { Ok(Target::of_uri(bytes, &uri)) }
        };
        let targets: SmallVec<[Target; 1]> = verdict.targets.iter().rev().map(target).collect::<Result<_, _>>()?;
        if targets.is_empty() { Err(VerdictError::NoTarget) } else { Ok(Some(TargetSet { targets, policy: None, plan: None, from: None, loop_hash: None })) }
    }

    /// Makes the request as it goes out; each verdict starts from the request as it came. What handlers of rules changed stays as long as
    /// their gateways are tried.
    fn edit_request(&mut self, entry: Key, verdict: &Verdict) -> Result<(), VerdictError> {
        let Some(transaction) = self.transactions.get_mut(entry) else { return Ok(()) };
        transaction.edited = None;
        let strip = transaction.policy.as_ref().is_some_and(|state| state.strip_identity);
        let mut edits = Cow::Borrowed(verdict.edits.as_slice());
        if let Some(state) = transaction.policy.as_mut() {
            if verdict.kind != VerdictKind::Next {
                state.rule_edits.clear();
            } else if !state.rule_edits.is_empty() {
                edits.to_mut().extend_from_slice(&state.rule_edits);
            }
        }
        if let Some(shape) = transaction.shape.as_mut() {
            // What the policy sets stays; what the sender set goes with the edits.
            shape.strip_identity = strip && edits.is_empty();
        }
        if edits.is_empty() {
            let read = self.with_request(entry, |edge, message| RouteView::read(&edge.snapshot.own, &edge.options.route_secret, message));
            if let (Some(Ok(route)), Some(shape)) = (read, self.transactions.get_mut(entry).and_then(|t| t.shape.as_mut())) {
                shape.route = route;
            }
            return Ok(());
        }
        let made = self.with_request(entry, |edge, message| edited(&mut edge.edits, message, &edits, strip)).transpose()?;
        let Some(made) = made else { return Ok(()) };
        // Offsets into the request as it came mean nothing in this one; and one that is too large now must not be kept.
        let read = self.with_stored(&made, |edge, message| RouteView::read(&edge.snapshot.own, &edge.options.route_secret, message));
        let Some(Ok(route)) = read else { return Err(VerdictError::TooLarge) };
        self.remember_from(entry, verdict);
        if let Some(transaction) = self.transactions.get_mut(entry) {
            transaction.edited = Some(made.into_boxed_slice());
            if let Some(shape) = transaction.shape.as_mut() {
                shape.route = route;
            }
        }
        Ok(())
    }

    /// What was tried so far asked a service, and tried nobody: it is forgotten. Where the configuration decides, it does so as for a
    /// request that has just come; false where it refuses.
    fn begin_anew(&mut self, now: Now, entry: Key, verdict: &Verdict) -> bool {
        let Some(transaction) = self.transactions.get_mut(entry) else { return false };
        transaction.best = None;
        transaction.challenges.clear();
        transaction.last_failure = 0;
        let Some(shape) = transaction.shape.as_deref().copied() else { return false };
        let (VerdictKind::Continue, Some(peer)) = (verdict.kind, shape.from_peer) else { return true };
        let found = self.with_request(entry, |edge, message| {
            let breadth = crate::identify::breadth(message);
            edge.find_targets(now, message, &shape.route, peer).map(|found| (edge.spread(&found, breadth), found))
        });
        let Some(transaction) = self.transactions.get_mut(entry) else { return false };
        transaction.waiting = None;
        match found {
            Some(Ok(((parallel, share), found))) => {
                (transaction.targets, transaction.plan) = (found.targets, found.plan);
                transaction.addresses.clear();
                let terms = transaction.plan.as_ref().map(|plan| Arc::clone(&plan.terms)).filter(|terms| terms.pool.is_none());
                if let Some(shape) = transaction.shape.as_mut() {
                    (shape.policy, shape.parallel, shape.breadth) = (found.policy, parallel, share);
                    shape.listener = found.policy.and_then(|policy| self.snapshot.peer_listeners[usize::from(policy)]);
                }
                match terms.filter(|_| !verdict.routing_number.is_empty()) {
                    Some(terms) => self.replace_plan(now, entry, &terms, None, verdict.routing_number.as_bytes(), false).is_ok(),
                    None => true,
                }
            }
            Some(Err(NoTarget::NoRule(place))) => {
                let (status_code, phrase) = self.snapshot.routes[usize::from(place)].settings.not_found.clone();
                self.mark_refused(entry, "target");
                self.finish_saying(now, entry, status_code, (!phrase.is_empty()).then_some(phrase.as_str()), b"", b"");
                false
            }
            Some(Err(NoTarget::NotFound | NoTarget::ForeignRoute)) | None => {
                self.mark_refused(entry, "target");
                self.finish_saying(now, entry, 404, None, b"", b"");
                false
            }
        }
    }

    /// Keeps From as the caller has it, where a verdict changes it.
    pub(crate) fn remember_from(&mut self, entry: Key, verdict: &Verdict) {
        if !verdict.edits.iter().any(|edit| edit.action == EditAction::From) {
            return;
        }
        let from = self.with_request(entry, |_, message| message.first(HeaderName::From).map(|slot| slot.value.of(message.bytes).into())).flatten();
        if let Some(transaction) = self.transactions.get_mut(entry) {
            transaction.from = transaction.from.take().or(from);
        }
    }

    /// A reply of ours ends the request; only endpoints make dialogs, so an INVITE can only be refused.
    pub(crate) fn check_reply(&self, method: Method, verdict: &Verdict) -> Result<(), VerdictError> {
        let least = if method == Method::Invite { 300 } else { 200 };
        if !(least..700).contains(&verdict.status_code) {
            return Err(VerdictError::StatusCode(verdict.status_code));
        }
        let clean = |text: &str| !text.bytes().any(|b| b < b' ' || b == 0x7f);
        if let Some((name, _)) = verdict.headers.iter().find(|(name, _)| !crate::policy_edit::may_set_in_reply(name)) {
            return Err(VerdictError::Header(name.clone()));
        }
        if let Some((name, _)) = verdict.headers.iter().find(|(_, value)| !clean(value)) {
            return Err(VerdictError::Text(name.clone()));
        }
        if clean(&verdict.reason_phrase) { Ok(()) } else { Err(VerdictError::Text("the reason phrase".to_owned())) }
    }

    pub(crate) fn end_with(&mut self, now: Now, entry: Key, verdict: &Verdict) -> Result<(), VerdictError> {
        let mut headers = Vec::new();
        for (name, value) in &verdict.headers {
            headers.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        let phrase = (!verdict.reason_phrase.is_empty()).then_some(verdict.reason_phrase.as_str());
        let Some(response) = self.own_response(entry, verdict.status_code, phrase, &headers, verdict.body.as_bytes()) else { return Ok(()) };
        if response.len() > MOST_BYTES {
            return Err(VerdictError::TooLarge);
        }
        let Some(transaction) = self.transactions.get_mut(entry) else { return Ok(()) };
        transaction.waiting = None;
        transaction.targets.clear();
        transaction.addresses.clear();
        if let Some(state) = transaction.policy.as_mut() {
            (state.report, state.running) = (false, false);
        }
        if verdict.status_code >= 300 {
            self.mark_refused(entry, "policy");
        }
        self.finish(now, entry, verdict.status_code, &response, "proxy");
        Ok(())
    }

    /// A request that had its transaction is refused: it counts for its sender, and the record of a call will say which phase did it.
    pub(crate) fn mark_refused(&mut self, entry: Key, phase: &'static str) {
        let Some(transaction) = self.transactions.get(entry) else { return };
        self.counts_of(self.caller_peer(transaction)).refused.add();
        let call = self.transactions.get(entry).filter(|t| t.dialog.is_none()).map(|t| t.call);
        if let Some(call) = call.and_then(|key| self.calls.get_mut(key)) {
            call.refused_by = phase;
        }
    }

    /// Tells policies that asked for it how a call ended.
    pub(crate) fn tell_final(&mut self, record: &crate::CallRecord, peer: Option<u16>, source: std::net::SocketAddr) {
        let Some(rule) = peer.and_then(|peer| self.policy_rule(PolicyEvent::Final, b"INVITE", peer)) else { return };
        let Some(link) = self.policy_links.get(self.call_number as usize % self.policy_links.len().max(1)).copied() else { return };
        let token = PolicyToken { worker: self.options.worker, number: 0, names: Named::Transaction, transaction: Key::NONE };
        let mut written = Vec::new();
        token.write(&mut written);
        let Ok(json) = serde_json::to_vec(record) else { return };
        let view = QuestionView {
            event: PolicyEvent::Final as u8,
            status_code: record.status_code,
            token: &written,
            deadline: rule.deadline.min(u64::from(u32::MAX)) as u32,
            source: (source.ip().to_canonical(), source.port()),
            trace: self.trace_id(record.call_id.as_bytes(), record.caller_tag.as_bytes()),
            transport: "",
            listener: &record.listener,
            peer: &record.from_peer,
            target: "",
            account: "",
            variables: "",
            message: &json,
        };
        let mut bytes = Vec::with_capacity(128 + json.len());
        view.write(&mut bytes);
        self.out.policy.push(PolicyQuestion { link, bytes, token });
    }

    /// Whether a policy wants to decide on `event` for a request of `message`'s kind.
    pub(crate) fn policy_for(&self, event: PolicyEvent, message: &Message<'_>, peer: u16) -> Option<PolicyTerms> {
        if self.snapshot.policies.is_empty() { None } else { self.policy_rule(event, message.text(message.head.method_span), peer) }
    }

    /// The wait for a policy is over without an answer.
    pub(crate) fn policy_due(&mut self, now: Now, entry: Key) {
        self.counters.policy_deadlines.add();
        if self.may_log(now) {
            let (name, asked) = (self.name_of_entry(entry), self.transactions.get(entry).and_then(|t| t.policy.as_ref()));
            let (subject, waited) = asked.map_or(("", 0), |state| (state.event.subject(), now.moment.since(state.asked) / 1_000));
            log::warn!(target: "policy", call_id = name.call_id.as_str(), trace_id = name.trace_id.as_str(); "no verdict on {subject} within its deadline ({waited} ms)");
        }
        // First the end of what was asked: failing may ask something else under the same name.
        let Some(transaction) = self.transactions.get(entry) else { return };
        let Some(state) = transaction.policy.as_ref() else { return };
        if !PolicyEvent::stands_alone(state.event as u8) {
            let status_code = transaction.best.as_ref().map_or(state.status_code, |best| best.status_code);
            self.end_policy(entry, status_code);
        }
        self.policy_failed(now, entry);
    }
}
