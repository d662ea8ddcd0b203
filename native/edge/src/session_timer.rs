//! Session timers as a proxy (RFC 4028 section 8): calls whose ends have gone without a word are ended, and give back what they hold.
//!
//! Section 8.3 wants no BYE of a proxy then. We send one to both sides all the same: a caller whose far end knows no timers could else
//! let each session expire, be counted for no call any more, and go on talking.

use std::io::Write;

use proto::{Key, Moment, Now, seconds};
use serde::Deserialize;
use syntax::{Message, Method};

use crate::edge::Edge;
use crate::matching::Refusal;
use crate::outbound::supports;

/// Min-SE where a request has none (section 5).
const LEAST: u32 = 90;

/// How often sessions must be refreshed.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionTimerSettings {
    /// Asked for where nobody asks for less.
    pub expires_seconds: u32,
    /// Less than that is refused, or raised.
    pub min_expires_seconds: u32,
}

/// The first number of a header field.
fn number(message: &Message<'_>, names: [&'static [u8]; 2]) -> Option<u32> {
    let slot = names.into_iter().find_map(|name| message.named(name).next())?;
    let text = std::str::from_utf8(message.text(slot.value)).ok()?;
    text.split(';').next()?.trim().parse().ok()
}

fn expires(message: &Message<'_>) -> Option<u32> {
    number(message, [b"Session-Expires", b"x"])
}

fn least(message: &Message<'_>) -> u32 {
    number(message, [b"Min-SE", b"Min-SE"]).unwrap_or(LEAST).max(LEAST)
}

impl SessionTimerSettings {
    /// The interval that a request leaves with: ours, or what it asks for if that is less, and no less than anybody bears.
    fn interval(&self, request: &Message<'_>) -> u32 {
        let most = expires(request).unwrap_or(self.expires_seconds).min(self.expires_seconds);
        most.max(least(request)).max(self.min_expires_seconds)
    }
}

impl Edge {
    fn timer_for(&self, method: Method) -> Option<SessionTimerSettings> {
        self.snapshot.settings.session_timer.filter(|_| matches!(method, Method::Invite | Method::Update))
    }

    /// Whether a request asks for too short an interval (section 8.1): only one that knows what 422 means is told so.
    pub(crate) fn too_short(&self, message: &Message<'_>) -> Option<Refusal> {
        let settings = self.timer_for(message.head.method)?;
        let short = expires(message).is_some_and(|expires| expires < settings.min_expires_seconds) && supports(message, b"timer");
        short.then(|| {
            self.counters.sessions_too_short.add();
            let headers = format!("Min-SE: {}\r\n", settings.min_expires_seconds).into_bytes();
            Refusal { reason_phrase: Some("Session Interval Too Small".to_owned()), headers, ..Refusal::new(422, "match") }
        })
    }

    /// Writes the interval into a request that goes on.
    pub(crate) fn edit_session_timer(&mut self, message: &Message<'_>) {
        let Some(settings) = self.timer_for(message.head.method) else { return };
        let (wanted, interval) = (expires(message), settings.interval(message));
        let top = usize::from(message.head.headers_end);
        match [b"Session-Expires", &b"x"[..]].into_iter().find_map(|name| message.named(name).next()) {
            // What no number can be read from asks for nothing.
            Some(slot) if wanted.is_none() => self.edits.replace_with(slot.value, |out| drop(write!(out, "{interval}"))),
            Some(slot) if wanted.is_some_and(|wanted| wanted != interval) => {
                let refresher = message.text(slot.value).iter().position(|byte| *byte == b';').map_or(&[][..], |at| &message.text(slot.value)[at..]);
                self.edits.replace_with(slot.value, |out| {
                    // Writing into memory does not fail.
                    let _ = write!(out, "{interval}");
                    out.extend_from_slice(refresher);
                });
            }
            Some(_) => {}
            None => self.edits.insert_with(top, |out| drop(write!(out, "Session-Expires: {interval}\r\n"))),
        }
        // One that asks for less without knowing of 422 is raised, and who answers must not lower it again. The Min-SE of one that knows is
        // its own (section 8.1).
        let said = number(message, [b"Min-SE", b"Min-SE"]).unwrap_or(LEAST);
        if settings.min_expires_seconds > said && !supports(message, b"timer") {
            match message.named(b"Min-SE").next() {
                Some(slot) => self.edits.replace_with(slot.value, |out| drop(write!(out, "{}", settings.min_expires_seconds))),
                None => self.edits.insert_with(top, |out| drop(write!(out, "Min-SE: {}\r\n", settings.min_expires_seconds))),
            }
        }
    }

    /// A 2xx goes back: where the far end knows no session timers and the near one does, the near one shall refresh (section 8.2).
    pub(crate) fn edit_session_answer(&mut self, entry: Key, response: &Message<'_>) {
        if self.answers_session(entry, response).is_none() || expires(response).is_some() {
            return;
        }
        if let Some(interval) = self.near_interval(entry) {
            let top = usize::from(response.head.headers_end);
            self.edits.insert_with(top, |out| drop(write!(out, "Session-Expires: {interval};refresher=uac\r\nRequire: timer\r\n")));
        }
    }

    /// The interval by which the near side of `entry` is to refresh, if it knows timers; a 2xx that comes again finds no request any more.
    fn near_interval(&mut self, entry: Key) -> Option<u32> {
        let transaction = self.transactions.get(entry)?;
        let (call, settings) = (transaction.call, self.timer_for(transaction.method)?);
        match self.with_request(entry, |_, request| supports(request, b"timer").then(|| settings.interval(request))) {
            Some(found) => {
                if let Some(call) = self.calls.get_mut(call) {
                    call.session_interval = found;
                }
                found
            }
            None => self.calls.get(call)?.session_interval,
        }
    }

    fn answers_session(&self, entry: Key, response: &Message<'_>) -> Option<SessionTimerSettings> {
        let method = self.transactions.get(entry)?.method;
        self.timer_for(method).filter(|_| (200..300).contains(&response.head.status_code))
    }

    /// A 2xx to an INVITE or UPDATE of `entry` passes: until when its call is believed to live.
    pub(crate) fn note_session(&mut self, now: Now, entry: Key, response: &Message<'_>) {
        if self.answers_session(entry, response).is_none() {
            return;
        }
        let interval = expires(response).map(|interval| interval.max(LEAST)).or_else(|| self.near_interval(entry));
        let Some(key) = self.transactions.get(entry).map(|transaction| transaction.call) else { return };
        let early = self.transactions.get(entry).is_some_and(|transaction| transaction.method != Method::Invite);
        let Some(call) = self.calls.get_mut(key) else { return };
        if early && call.answered.is_none() {
            // A dialog that is not confirmed has no session that could expire (RFC 4028 section 4).
            return;
        }
        call.session_until = interval.map_or(Moment::NEVER, |interval| now.moment + seconds(u64::from(interval)));
        self.arm_call(key);
    }

    /// Sets the timer of a call to whatever comes first.
    pub(crate) fn arm_call(&mut self, key: Key) {
        let Some(call) = self.calls.get(key) else { return };
        let longest = call.started.moment + seconds(self.snapshot.settings.timers.call_seconds);
        let due = call.session_until.min(longest).min(call.next_ping);
        self.calls.arm(key, due);
    }

    /// Something is due for a call: a ping, or its end, because nobody refreshed its session or because it lasted as long as any may.
    pub(crate) fn call_due(&mut self, now: Now, key: Key) {
        let Some(call) = self.calls.get(key) else { return };
        let call_id = call.texts.call_id().to_vec();
        if call.session_until <= now.moment {
            self.counters.sessions_expired.add();
            self.decide(&call_id, |_| "account: nobody refreshed the session".to_owned());
            self.end_or_forget(now, key, "Session expired");
        } else if call.started.moment + seconds(self.snapshot.settings.timers.call_seconds) > now.moment {
            self.ping_call(now, key);
            self.arm_call(key);
        } else {
            self.counters.calls_too_long.add();
            self.end_or_forget(now, key, "Call too long");
        }
    }

    /// Ends a call with a BYE both ways; one of which too little is known, or that was not answered, is forgotten.
    pub(crate) fn end_or_forget(&mut self, now: Now, key: Key, why: &str) {
        let answered = self.calls.get(key).is_some_and(|call| call.answered.is_some());
        if !answered || !self.end_one(now, key, why) {
            self.end_call(now, key, 200, "answered", "proxy");
        }
    }
}
