//! Events: facts for whoever listens, under the names and with the parameters that operators know from other proxies.
//! Where nobody listens nothing is built.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proto::{Key, Now};

use crate::call::Call;
use crate::edge::Edge;
use crate::record::CallRecord;

/// Events of one worker that wait to be taken; more are dropped and counted.
const MOST: usize = 4_096;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum EventKind {
    /// Something took long.
    CoreThreshold = 0,
    /// A table is nearly full.
    CoreShmThreshold = 1,
    /// A connection is gone.
    CoreTcpDisconnect = 2,
    /// A target does not answer, or may be tried again.
    DispatcherStatus = 3,
    /// A call began, rang, was answered, or ended.
    DialogState = 4,
    /// A call that was answered is over.
    AccCdr = 5,
    /// A call was not answered.
    AccMissed = 6,
    /// A gateway went down, or came back.
    DroutingStatus = 7,
    /// A gateway crossed a threshold of quality for the worse.
    QroutingBad = 8,
    /// A gateway is within a threshold of quality again.
    QroutingGood = 9,
    /// An address of record has a binding.
    AorInsert = 10,
    /// An address of record has none any more.
    AorDelete = 11,
    /// A binding is new.
    ContactInsert = 12,
    /// A binding was refreshed.
    ContactUpdate = 13,
    /// A binding is gone.
    ContactDelete = 14,
    /// Somebody guesses passwords or users.
    AuthAttack = 15,
    /// A source is not listened to any more, or for another time than was told before.
    BanAdded = 16,
    /// A source is listened to again.
    BanRemoved = 17,
    /// Somebody wanted to be reached where nobody may be.
    RegisterPoisoning = 18,
    /// Nothing came from either side of a call for long.
    MediaTimeout = 19,
    /// Somebody else sends to the ports of a call.
    MediaIntrusion = 20,
    /// An rtpengine does not answer, or does again.
    RtpengineStatus = 21,
    /// A key has all that a limit lets it have.
    LimitReached = 22,
    /// It has not had too much for a while.
    LimitCleared = 23,
    /// Somebody calls for help.
    EmergencyCall = 24,
    /// A source floods, or behaves as scanners do.
    PikeBlocked = 25,
    /// It is listened to again.
    PikeUnblocked = 26,
    /// A figure of an account crossed its first threshold.
    FraudWarning = 27,
    /// A figure of an account crossed its second threshold.
    FraudCritical = 28,
    /// An account may not call for a while.
    FraudBarred = 29,
    /// It may again.
    FraudUnbarred = 30,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 31] = [
        Self::CoreThreshold,
        Self::CoreShmThreshold,
        Self::CoreTcpDisconnect,
        Self::DispatcherStatus,
        Self::DialogState,
        Self::AccCdr,
        Self::AccMissed,
        Self::DroutingStatus,
        Self::QroutingBad,
        Self::QroutingGood,
        Self::AorInsert,
        Self::AorDelete,
        Self::ContactInsert,
        Self::ContactUpdate,
        Self::ContactDelete,
        Self::AuthAttack,
        Self::BanAdded,
        Self::BanRemoved,
        Self::RegisterPoisoning,
        Self::MediaTimeout,
        Self::MediaIntrusion,
        Self::RtpengineStatus,
        Self::LimitReached,
        Self::LimitCleared,
        Self::EmergencyCall,
        Self::PikeBlocked,
        Self::PikeUnblocked,
        Self::FraudWarning,
        Self::FraudCritical,
        Self::FraudBarred,
        Self::FraudUnbarred,
    ];

    /// Parameters of what is told of fraud.
    const FRAUD: &'static [&'static str] = &["param", "value", "threshold", "user", "called_number", "rule_id", "profile_id"];
    /// Parameters of what is told of a binding.
    const CONTACT: &'static [&'static str] =
        &["domain", "aor", "uri", "received", "path", "qval", "user_agent", "socket", "bflags", "expires", "callid", "cseq"];

    /// Name and parameters.
    pub const fn shape(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::CoreThreshold => ("E_CORE_THRESHOLD", &["source", "time", "extra"]),
            Self::CoreShmThreshold => ("E_CORE_SHM_THRESHOLD", &["usage", "threshold", "used", "size", "table"]),
            Self::CoreTcpDisconnect => ("E_CORE_TCP_DISCONNECT", &["src_ip", "src_port", "dst_ip", "dst_port", "proto"]),
            Self::DispatcherStatus => ("E_DISPATCHER_STATUS", &["partition", "group", "address", "status"]),
            Self::DialogState => ("E_DLG_STATE_CHANGED", &["id", "db_id", "callid", "from_tag", "to_tag", "old_state", "new_state"]),
            Self::AccCdr => (
                "E_ACC_CDR",
                &["method", "from_tag", "to_tag", "callid", "code", "reason", "time", "duration", "ms_duration", "setuptime", "created", "trace_id"],
            ),
            Self::QroutingBad => ("E_QROUTING_BAD_DST", &["partition", "rule_id", "dst_name", "grade"]),
            Self::QroutingGood => ("E_QROUTING_GOOD_DST", &["partition", "rule_id", "dst_name", "grade"]),
            Self::DroutingStatus => ("E_DROUTING_STATUS", &["partition", "gwid", "address", "status", "reason"]),
            Self::AorInsert => ("E_UL_AOR_INSERT", &["domain", "aor"]),
            Self::AorDelete => ("E_UL_AOR_DELETE", &["domain", "aor"]),
            Self::ContactInsert => ("E_UL_CONTACT_INSERT", Self::CONTACT),
            Self::ContactUpdate => ("E_UL_CONTACT_UPDATE", Self::CONTACT),
            Self::ContactDelete => ("E_UL_CONTACT_DELETE", Self::CONTACT),
            Self::AuthAttack => ("E_AUTH_ATTACK", &["scope", "ip", "user", "failures", "window", "domain"]),
            Self::BanAdded => ("E_BAN_ADDED", &["ip", "seconds", "reason", "proto"]),
            Self::BanRemoved => ("E_BAN_REMOVED", &["ip", "reason"]),
            Self::RegisterPoisoning => ("E_REGISTER_POISONING", &["ip", "aor", "contact", "reason"]),
            Self::MediaTimeout => ("E_MEDIA_TIMEOUT", &["callid", "from_tag", "to_tag", "ended"]),
            Self::MediaIntrusion => ("E_MEDIA_INTRUSION", &["callid", "side", "ip", "port"]),
            Self::RtpengineStatus => ("E_RTPENGINE_STATUS", &["socket", "status", "set"]),
            Self::LimitReached => ("E_LIMIT_REACHED", &["limit", "key", "counts", "most"]),
            Self::LimitCleared => ("E_LIMIT_CLEARED", &["limit", "key"]),
            Self::EmergencyCall => ("E_EMERGENCY_CALL", &["callid", "from_uri", "to_uri", "ip", "peer"]),
            Self::PikeBlocked => ("E_PIKE_BLOCKED", &["ip", "state", "reason"]),
            Self::PikeUnblocked => ("E_PIKE_UNBLOCKED", &["ip", "reason"]),
            Self::FraudWarning => ("E_FRD_WARNING", Self::FRAUD),
            Self::FraudCritical => ("E_FRD_CRITICAL", Self::FRAUD),
            Self::FraudBarred => ("E_FRD_BARRED", &["user", "seconds", "reason"]),
            Self::FraudUnbarred => ("E_FRD_UNBARRED", &["user", "reason"]),
            Self::AccMissed => ("E_ACC_MISSED_EVENT", &["method", "from_tag", "to_tag", "callid", "code", "reason", "time", "trace_id"]),
        }
    }
}

/// A parameter's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventValue {
    /// A number.
    Number(i64),
    /// A text.
    Text(String),
}

impl From<u64> for EventValue {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<String> for EventValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&str> for EventValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// Wall clock, microseconds since 1970.
    pub wall: u64,
    /// The values of its parameters, in order.
    pub values: Vec<EventValue>,
}

/// What somebody listens to, for all workers.
#[derive(Clone, Default)]
pub struct Listening(Arc<AtomicU64>);

impl Listening {
    /// From now on somebody listens to events of these names, and to nothing else; names of other producers are left out.
    pub fn set(&self, names: &[String]) {
        let kinds = EventKind::ALL.into_iter().filter(|kind| names.iter().any(|name| name == kind.shape().0));
        self.0.store(kinds.fold(0, |mask, kind| mask | 1 << kind as u64), Ordering::Relaxed);
    }

    /// Whether somebody listens to `kind`.
    pub fn to(&self, kind: EventKind) -> bool {
        self.0.load(Ordering::Relaxed) & 1 << kind as u64 != 0
    }
}

impl Edge {
    /// Tells of an event where somebody listens.
    pub(crate) fn tell(&mut self, now: Now, kind: EventKind, values: impl FnOnce(&Self) -> Vec<EventValue>) {
        if !self.options.listening.to(kind) {
            return;
        }
        if self.out.events.len() >= MOST {
            return self.counters.events_dropped.add();
        }
        let values = values(self);
        self.out.events.push(Event { kind, wall: now.wall, values });
    }

    /// Tells that a call went from one state to another: 1 begun, 2 ringing, 4 answered, 5 over.
    pub(crate) fn tell_state(&mut self, now: Now, key: Key, callee_tag: &[u8], old: u64, new: u64) {
        if let Some(call) = self.calls.get(key).filter(|_| self.options.listening.to(EventKind::DialogState)) {
            let values = self.state_values(call, callee_tag, old, new);
            self.tell(now, EventKind::DialogState, |_| values);
        }
    }

    fn state_values(&self, call: &Call, callee_tag: &[u8], old: u64, new: u64) -> Vec<EventValue> {
        let text = |bytes: &[u8]| EventValue::Text(String::from_utf8_lossy(bytes).into_owned());
        let id = self.record_id(call);
        vec![id.into(), call.number.into(), text(call.texts.call_id()), text(call.texts.caller_tag()), text(callee_tag), old.into(), new.into()]
    }

    /// Tells of the end of a call: its last state, and what an account is kept of.
    pub(crate) fn tell_end(&mut self, now: Now, call: &Call, record: &CallRecord) {
        let old = if call.answered.is_some() {
            4
        } else if call.dialogs.is_empty() {
            1
        } else {
            2
        };
        if self.options.listening.to(EventKind::DialogState) {
            let values = self.state_values(call, record.callee_tag.as_bytes(), old, 5);
            self.tell(now, EventKind::DialogState, |_| values);
        }
        let tail = |values: &mut Vec<EventValue>| values.push(record.trace_id.as_str().into());
        let head = || -> Vec<EventValue> {
            let reason = syntax::reason_phrase(record.status_code);
            let texts = ["INVITE", &record.caller_tag, &record.callee_tag, &record.call_id].map(EventValue::from);
            texts.into_iter().chain([u64::from(record.status_code).into(), reason.into(), (record.ended_at / 1_000_000).into()]).collect()
        };
        if record.answered_at > 0 {
            self.tell(now, EventKind::AccCdr, |_| {
                let mut values = head();
                let milliseconds = record.duration_milliseconds;
                values.extend(
                    [milliseconds.div_ceil(1_000), milliseconds, record.setup_milliseconds / 1_000, record.started_at / 1_000_000].map(EventValue::from),
                );
                tail(&mut values);
                values
            });
        } else {
            self.tell(now, EventKind::AccMissed, |_| {
                let mut values = head();
                tail(&mut values);
                values
            });
        }
    }

    /// Tells that `source` took so many microseconds, where that is more than the configuration finds normal.
    pub(crate) fn tell_slow(&mut self, now: Now, source: &'static str, microseconds: u64, extra: impl FnOnce(&Self) -> String) {
        let limit = self.snapshot.settings.slow_milliseconds * 1_000;
        if limit > 0 && microseconds > limit {
            self.tell(now, EventKind::CoreThreshold, |edge| vec![source.into(), microseconds.into(), extra(edge).into()]);
        }
    }
}
