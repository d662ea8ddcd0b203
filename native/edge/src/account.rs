//! Phase *account*: one record for each call, whatever its end.

use std::sync::atomic::Ordering::Relaxed;

use proto::{DialogState, Key, Moment, Now};
use syntax::{Message, Transport, push_decimal};

use crate::call::{Attempt, Call, CallView};
use crate::edge::Edge;
use crate::hop::Hop;
use crate::record::{AttemptRecord, CallRecord, RECORD_VERSION};

impl Edge {
    /// An attempt was answered: times and code for the record.
    pub(crate) fn note_answer(&mut self, now: Now, entry: Key, attempt: usize, status_code: u16) {
        let Some(transaction) = self.transactions.get(entry).filter(|t| t.dialog.is_none()) else { return };
        let Some(noted) = self.calls.get_mut(transaction.call).and_then(|call| call.attempts.get_mut(attempt)) else { return };
        let mut rang = false;
        if noted.first_answer == Moment::NEVER {
            noted.first_answer = now.moment;
        }
        if (180..190).contains(&status_code) && noted.ringing == Moment::NEVER {
            noted.ringing = now.moment;
            rang = true;
            if let Some(gateway) = noted.led_by.as_ref().map(|led_by| &led_by.gateway) {
                gateway.post_dial_delay[0].fetch_add(now.moment.since(noted.sent) / 1_000, Relaxed);
                gateway.post_dial_delay[1].fetch_add(1, Relaxed);
            }
        }
        if status_code >= 200 && noted.status_code == 0 {
            noted.status_code = status_code;
            noted.final_answer = now.moment;
        }
        if rang {
            self.note_gateway_ringing(now, entry, attempt);
        }
    }

    /// Whether an attempt of a call rang.
    pub(crate) fn rang(&self, entry: Key, attempt: usize) -> bool {
        let call = self.transactions.get(entry).and_then(|transaction| self.calls.get(transaction.call));
        call.and_then(|call| call.attempts.get(attempt)).is_some_and(|attempt| attempt.ringing != Moment::NEVER)
    }

    /// Ends a call: its lease is given back and its record written.
    pub(crate) fn end_call(&mut self, now: Now, key: Key, status_code: u16, outcome: &'static str, ended_by: &'static str) {
        let Some(mut call) = self.calls.remove(key) else { return };
        call.lease = None;
        call.limits.clear();
        if let Some(watched) = call.watched.take().filter(|_| !call.refused_by.is_empty() && call.answered.is_none()) {
            self.take_back(*watched);
        }
        if let (Some(place), Some(answered)) = (call.gateway.take(), call.answered) {
            let seconds = now.moment.since(answered.moment) / 1_000_000;
            place.count(|state| {
                state.call_seconds[0].fetch_add(seconds, Relaxed);
                state.call_seconds[1].fetch_add(1, Relaxed);
            });
            self.note_gateway_end(now, &place, seconds);
        }
        let dialog = self.dialog_key(call.texts.call_id(), call.texts.caller_tag());
        self.dialogs.remove(dialog, key);
        if call.adopted {
            for session in std::mem::take(&mut call.media) {
                self.close_session(session, false);
            }
            return;
        }
        // A call whose final response was a 2xx is answered, however its end came about.
        let (outcome, status_code) = match call.answered {
            Some(_) => ("answered", 200),
            None if outcome == "answered" => ("failed", 408),
            None => (outcome, status_code),
        };
        if call.answered.is_none() {
            self.counters.calls_failed.add();
        }
        let outcome = if call.refused_by.is_empty() || call.answered.is_some() { outcome } else { "refused" };
        let record = self.record(now, &call, status_code, outcome, call.refused_by, ended_by);
        self.tell_end(now, &call, &record);
        log::debug!(target: "account", call_id = self.shown_text(call.texts.call_id()).as_str(), trace_id = record.trace_id.as_str(); "call {outcome} {status_code} ended by {ended_by}");
        if !call.media.is_empty() && self.close_media(now, &mut call, &record) {
            return;
        }
        self.tell_final(&record, call.from_peer, call.arrival.address);
        self.out.records.push(record);
    }

    /// Records an INVITE that was refused before it became a call.
    pub(crate) fn record_refused(&mut self, now: Now, arrival: &Hop, message: &Message<'_>, peer: Option<u16>, status_code: u16, phase: &'static str) {
        self.call_number += 1;
        let call = Call::new(message, arrival, peer, now, self.call_number, None);
        let record = self.record(now, &call, status_code, "refused", phase, "proxy");
        self.out.records.push(record);
    }

    pub(crate) fn view(&self, call: &Call) -> CallView {
        let shown = |bytes: &[u8]| if self.snapshot.settings.mask_identities { "(masked)".to_owned() } else { String::from_utf8_lossy(bytes).into_owned() };
        let peer = |index: Option<u16>| index.and_then(|i| self.snapshot.settings.peers.get(usize::from(i))).map_or_else(String::new, |p| p.name.clone());
        let early = call.dialogs.iter().any(|dialog| dialog.state == DialogState::Early);
        CallView {
            call_id: shown(call.texts.call_id()),
            from_uri: shown(call.texts.uri_of_from()),
            request_uri: shown(call.texts.request_uri()),
            from_peer: peer(call.from_peer),
            to_peer: peer(call.attempts.last().and_then(|attempt| attempt.peer)),
            source: if self.snapshot.settings.mask_identities { "(masked)".to_owned() } else { place(call.arrival.transport, call.arrival.address) },
            state: match (call.answered, early) {
                (Some(_), _) => "confirmed",
                (None, true) => "early",
                (None, false) => "calling",
            },
            started_at: call.started.wall,
            answered_at: call.answered.map_or(0, |now| now.wall),
            attempts: call.attempts.len(),
            dialogs: call.dialogs.len(),
            trace_id: hex(&self.trace_id(call.texts.call_id(), call.texts.caller_tag())),
            limits: call.limits.iter().map(|held| format!("{}={}", held.slot().value().limit.name, shown(held.slot().key().as_bytes()))).collect(),
        }
    }

    /// Unique over nodes and restarts: node, start of the process, worker, number.
    pub(crate) fn record_id(&self, call: &Call) -> String {
        format!("{}-{:x}-{}-{}", self.snapshot.settings.node, self.options.epoch, self.options.worker, call.number)
    }

    fn record(&self, now: Now, call: &Call, status_code: u16, outcome: &'static str, refused_by: &'static str, ended_by: &'static str) -> CallRecord {
        let settings = &self.snapshot.settings;
        // The check for valid text is several times as fast as the search for what is not.
        let text = |bytes: &[u8]| std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes).into_owned(), str::to_owned);
        let peer = |index: Option<u16>| index.and_then(|i| settings.peers.get(usize::from(i))).map_or_else(String::new, |p| p.name.clone());
        let confirmed = call.dialogs.iter().find(|d| d.state != DialogState::Early);
        let answered = call.answered;
        let setup_end = answered.map_or(now.moment, |a| a.moment);
        CallRecord {
            version: RECORD_VERSION,
            id: self.record_id(call),
            node: settings.node.clone(),
            call_id: text(call.texts.call_id()),
            caller_tag: text(call.texts.caller_tag()),
            callee_tag: confirmed.map_or_else(String::new, |d| text(&d.callee_tag)),
            from_uri: text(call.texts.uri_of_from()),
            to_uri: text(call.texts.uri_of_to()),
            request_uri: text(call.texts.request_uri()),
            sent_request_uri: if call.attempts.is_empty() { String::new() } else { text(call.sent_request_uri.as_deref().unwrap_or(call.texts.request_uri())) },
            from_peer: peer(call.from_peer),
            to_peer: peer(call.attempts.last().and_then(|attempt| attempt.peer)),
            source: place(call.arrival.transport, call.arrival.address),
            listener: self.snapshot.listener(call.arrival.listener).label().to_owned(),
            attempts: call.attempts.iter().map(|attempt| told(attempt, call.started.moment, peer(attempt.peer))).collect(),
            outcome,
            status_code,
            refused_by,
            ended_by,
            started_at: call.started.wall,
            answered_at: answered.map_or(0, |a| a.wall),
            ended_at: now.wall,
            setup_milliseconds: setup_end.since(call.started.moment) / 1_000,
            duration_milliseconds: answered.map_or(0, |a| now.moment.since(a.moment) / 1_000),
            trace_id: hex(&self.trace_id(call.texts.call_id(), call.texts.caller_tag())),
            notes: call.notes.clone(),
            variables: call.variables.as_ref().map_or_else(Vec::new, |variables| variables.values()),
            media: Vec::new(),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

/// `udp:192.0.2.1:5060`. Written by hand for IPv4: it stands in each record twice, and the formatting machinery costs more than
/// all the rest of it.
fn place(transport: Transport, address: std::net::SocketAddr) -> String {
    let std::net::SocketAddr::V4(v4) = address else { return format!("{}:{address}", transport.as_str().to_ascii_lowercase()) };
    let mut text = Vec::with_capacity(28);
    text.extend(transport.as_str().bytes().map(|byte| byte.to_ascii_lowercase()));
    for (octet, before) in v4.ip().octets().into_iter().zip(*b":...") {
        text.push(before);
        push_decimal(u64::from(octet), &mut text);
    }
    text.push(b':');
    push_decimal(u64::from(v4.port()), &mut text);
    String::from_utf8(text).unwrap_or_default()
}

fn told(attempt: &Attempt, started: Moment, peer: String) -> AttemptRecord {
    let after = |moment: Moment| (moment != Moment::NEVER).then(|| moment.since(attempt.sent) / 1_000);
    let led_by = attempt.led_by.as_ref();
    AttemptRecord {
        target: place(attempt.to.transport, attempt.to.address),
        peer,
        partition: led_by.map_or_else(String::new, |led_by| led_by.partition.to_string()),
        gateway: led_by.map_or_else(String::new, |led_by| led_by.gateway.id.to_string()),
        carrier: led_by.and_then(|led_by| led_by.carrier.as_ref()).map_or_else(String::new, |carrier| carrier.id.to_string()),
        rule: led_by.map(|led_by| led_by.rule).filter(|rule| *rule != 0),
        status_code: attempt.status_code,
        sent_after_milliseconds: attempt.sent.since(started) / 1_000,
        first_answer_milliseconds: after(attempt.first_answer),
        ringing_milliseconds: after(attempt.ringing),
        final_answer_milliseconds: after(attempt.final_answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_as_its_parts_do() {
        for address in ["192.0.2.1:5060", "0.10.200.255:65535", "[2001:db8::1]:5061"] {
            assert_eq!(place(Transport::Tcp, address.parse().unwrap()), format!("tcp:{address}"));
        }
    }
}
