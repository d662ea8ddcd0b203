//! Hook by opt-in: a response is held until a policy has looked at it. It is passed on in any case, but for a provisional
//! one that the policy drops; whatever goes wrong there only means that it goes on as it came.

use proto::{Key, Moment, Now};
use syntax::{HeaderName, Message, Method};

use crate::edge::Edge;
use crate::hop::Hop;
use crate::policy::{MOST_BYTES, VerdictError};
use crate::policy_edit::edited;
use crate::transaction::Client;
use crate::verdict::{EditAction, PolicyEvent, PolicyQuestion, Verdict, VerdictKind};

/// Responses of one request held at once; more go on unseen.
const MOST: usize = 16;

/// A response that waits for its policy.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) number: u8,
    attempt: u8,
    arrival: Hop,
    bytes: Box<[u8]>,
    pub(crate) deadline: Moment,
    asked: Moment,
}

impl Edge {
    /// Holds a response until a policy has looked at it; false where none wants to.
    pub(crate) fn ask_about_response(&mut self, now: Now, arrival: &Hop, entry: Key, attempt: usize, message: &Message<'_>) -> bool {
        if !self.snapshot.asks(PolicyEvent::Response) || message.head.status_code == 100 {
            return false;
        }
        let Some(transaction) = self.transactions.get(entry).filter(|t| t.dialog.is_none() && t.origin.is_none()) else { return false };
        // A repeated refusal is only acknowledged; a repeated 2xx is passed on, so it must be edited like the first.
        let success = transaction.method == Method::Invite && (200..300).contains(&message.head.status_code);
        let open = transaction.branches.get(attempt).is_some_and(|branch| branch.client.is_open() || success && matches!(branch.client, Client::Invite(_)));
        let Some(peer) = self.caller_peer(transaction).filter(|_| open && transaction.held.len() < MOST) else { return false };
        // The method stands in CSeq only.
        let cseq = message.first(HeaderName::CSeq).map_or(&[][..], |slot| slot.value.of(message.bytes));
        let method = cseq.rsplit(|byte| matches!(byte, b' ' | b'\t')).next().unwrap_or_default();
        let Some(terms) = self.policy_rule(PolicyEvent::Response, method, peer) else { return false };
        let there = if transaction.policy.is_some() {
            self.policy_link(entry).is_some()
        } else {
            self.begin_policy(now, entry, message, PolicyEvent::Response, &terms)
        };
        self.counters.policy_questions.add();
        if !there {
            self.counters.policy_unavailable.add();
            return false;
        }
        let trace = self.trace_id(message.call_id(), message.text(message.head.from.tag));
        let Some(transaction) = self.transactions.get_mut(entry) else { return false };
        transaction.questions = transaction.questions.wrapping_add(1);
        let number = transaction.questions;
        transaction.held.push(Held {
            number,
            attempt: attempt as u8,
            arrival: *arrival,
            bytes: message.bytes.into(),
            deadline: now.moment + terms.deadline,
            asked: now.moment,
        });
        let code = message.head.status_code;
        // While it is held, silence must not be taken for what it is not.
        self.note_provisional(now, entry, attempt, code);
        let from = crate::question::Address { transport: arrival.transport, address: arrival.address }.to_string();
        let question = self.question(entry, PolicyEvent::Response, code, terms.deadline, trace, number, &from, message.bytes);
        if let Some(question) = question {
            self.out.policy.push(question);
        }
        true
    }

    /// Lets a held response go on as `decision` says, or as it came; false where no such response is held.
    pub(crate) fn release(&mut self, now: Now, entry: Key, number: u8, decision: Option<&[u8]>) -> bool {
        let Some(transaction) = self.transactions.get_mut(entry) else { return false };
        let Some(place) = transaction.held.iter().position(|held| held.number == number) else { return false };
        let held = transaction.held.remove(place);
        self.in_hand = entry;
        let wanted = decision.map(|bytes| rmp_serde::from_slice::<Verdict>(bytes).map_err(|error| VerdictError::Unreadable(error.to_string())));
        if wanted.is_some() {
            self.counters.decided(now.moment.since(held.asked));
        }
        let made = wanted.unwrap_or_else(|| Ok(Verdict::default())).and_then(|verdict| {
            self.keep(entry, &verdict)?;
            self.response_as_wanted(&held.bytes, &verdict)
        });
        match &made {
            Ok(None) => self.decide_for(entry, |_| "policy: keeps a response back".to_owned()),
            Ok(Some(bytes)) if *bytes != held.bytes => self.decide_for(entry, |_| "policy: changes a response".to_owned()),
            Ok(Some(_)) | Err(_) => {}
        }
        let bytes = match made {
            Ok(made) => made,
            Err(error) => {
                self.counters.policy_errors.add();
                if self.may_log(now) {
                    let name = self.name_of_entry(entry);
                    log::warn!(target: "policy", call_id = name.call_id.as_str(), trace_id = name.trace_id.as_str(); "a verdict on a response cannot be carried out: {error}");
                }
                Some(held.bytes)
            }
        };
        if let Some(bytes) = bytes {
            self.with_stored(&bytes, |edge, message| edge.take_response(now, &held.arrival, entry, usize::from(held.attempt), message));
        }
        self.rearm(entry);
        true
    }

    /// The response as a policy wants it; nothing where it drops it.
    fn response_as_wanted(&mut self, bytes: &[u8], verdict: &Verdict) -> Result<Option<Box<[u8]>>, VerdictError> {
        match verdict.kind {
            VerdictKind::Continue if verdict.edits.is_empty() => Ok(Some(bytes.into())),
            VerdictKind::Continue => {
                if verdict.edits.iter().any(|edit| edit.action == EditAction::RequestUri) {
                    return Err(VerdictError::Hook);
                }
                let made = self.with_stored(bytes, |edge, message| edited(&mut edge.edits, message, &verdict.edits, false));
                let made = made.unwrap_or(Err(VerdictError::TooLarge))?;
                // One that nobody could read, or no datagram carry, would be lost for its caller.
                let goes = made.len() <= MOST_BYTES && self.with_stored(&made, |_, _| ()).is_some();
                if goes { Ok(Some(made.into_boxed_slice())) } else { Err(VerdictError::TooLarge) }
            }
            // A final one goes on in any case: without it nothing would ever end.
            VerdictKind::Drop => {
                let provisional = self.with_stored(bytes, |_, message| message.head.status_code < 200).unwrap_or(false);
                Ok((!provisional).then(|| bytes.into()))
            }
            // The log has it already, with what was raised and where.
            VerdictKind::Error => {
                self.counters.policy_errors.add();
                Ok(Some(bytes.into()))
            }
            VerdictKind::Relay
            | VerdictKind::Route
            | VerdictKind::Next
            | VerdictKind::Reply
            | VerdictKind::Best
            | VerdictKind::Originate
            | VerdictKind::GiveUp => Err(VerdictError::Hook),
        }
    }

    /// Lets all held responses of a request go on as they came, and tells their handlers that it ends with `status_code`.
    pub(crate) fn let_held_go(&mut self, now: Now, entry: Key, status_code: u16) {
        while let Some(number) = self.transactions.get(entry).and_then(|transaction| transaction.held.first()).map(|held| held.number) {
            let part = PolicyEvent::Response.part().unwrap_or_default();
            let ended = self.question(entry, PolicyEvent::Ended, status_code, 0, [0; 16], number, part, &[]);
            if let (Some(link), Some(ended)) = (self.policy_link(entry), ended) {
                self.out.policy.push(PolicyQuestion { link, ..ended });
            }
            self.release(now, entry, number, None);
        }
    }

    /// Responses that waited for too long go on as they came.
    pub(crate) fn release_late(&mut self, now: Now, entry: Key) {
        while let Some(transaction) = self.transactions.get(entry)
            && let Some(held) = transaction.held.iter().find(|held| now.moment >= held.deadline)
        {
            let number = held.number;
            self.counters.policy_deadlines.add();
            if self.may_log(now) {
                let name = self.name_of_entry(entry);
                log::warn!(target: "policy", call_id = name.call_id.as_str(), trace_id = name.trace_id.as_str(); "no verdict on a response within the deadline, it goes on as it came");
            }
            self.release(now, entry, number, None);
        }
    }
}
