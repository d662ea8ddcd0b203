//! The call record: exactly one for each INVITE that opens a call, whatever its end.

use serde::Serialize;
use serde::ser::Serializer;

/// Version of the record's fields; it grows when one changes its meaning, not when one is added.
pub const RECORD_VERSION: u8 = 1;

/// A value as JSON, which is written as it is: numbers keep all their digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Json(pub Box<str>);

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_str::<&serde_json::value::RawValue>(&self.0).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

/// One attempt to reach a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AttemptRecord {
    /// Transport and address.
    pub target: String,
    /// The peer there, empty where we know none.
    pub peer: String,
    /// The partition of the rules that led it there, empty for the tables without one.
    pub partition: String,
    /// The gateway that rules led it to, empty where none did.
    pub gateway: String,
    /// The carrier by which that was found, empty where it was by none.
    pub carrier: String,
    /// `ruleid` of the rule.
    pub rule: Option<u32>,
    /// The final status code; 408 without any answer, 503 where the transport failed; 0 where it was still open.
    pub status_code: u16,
    /// Milliseconds from the INVITE's arrival to sending.
    pub sent_after_milliseconds: u64,
    /// Milliseconds from sending to the first answer of any kind.
    pub first_answer_milliseconds: Option<u64>,
    /// Milliseconds from sending to the first 18x.
    pub ringing_milliseconds: Option<u64>,
    /// Milliseconds from sending to the final answer.
    pub final_answer_milliseconds: Option<u64>,
}

/// One call. Points in time are wall clock, durations are monotonic.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CallRecord {
    /// [`RECORD_VERSION`].
    pub version: u8,
    /// Unique over nodes and restarts: node, start of the process, worker, number.
    pub id: String,
    /// The node that handled the call.
    pub node: String,
    /// Call-ID.
    pub call_id: String,
    /// Caller's tag.
    pub caller_tag: String,
    /// Callee's tag of the dialog that was confirmed.
    pub callee_tag: String,
    /// URI of From.
    pub from_uri: String,
    /// URI of To.
    pub to_uri: String,
    /// Request-URI as received.
    pub request_uri: String,
    /// Request-URI as sent at the last attempt.
    pub sent_request_uri: String,
    /// The peer that called, empty for a stranger.
    pub from_peer: String,
    /// The peer of the last attempt.
    pub to_peer: String,
    /// Transport and address that the INVITE came from.
    pub source: String,
    /// The listener that it came to.
    pub listener: String,
    /// Every attempt, in order.
    pub attempts: Vec<AttemptRecord>,
    /// `answered`, `failed`, `cancelled` or `refused`.
    pub outcome: &'static str,
    /// The final status code that the caller got.
    pub status_code: u16,
    /// The phase that refused it, empty where none did.
    pub refused_by: &'static str,
    /// `caller`, `callee` or `proxy`.
    pub ended_by: &'static str,
    /// When the INVITE came.
    #[serde(serialize_with = "rfc3339")]
    pub started_at: u64,
    /// When the first 2xx was relayed.
    #[serde(serialize_with = "rfc3339")]
    pub answered_at: u64,
    /// When the call was over.
    #[serde(serialize_with = "rfc3339")]
    pub ended_at: u64,
    /// From INVITE to the final response.
    pub setup_milliseconds: u64,
    /// From the 2xx to the end; 0 for a call that was not answered.
    pub duration_milliseconds: u64,
    /// The W3C trace id, by which logs, policies and their HTTP requests name the call.
    pub trace_id: String,
    /// What policies noted, in the order of the first time.
    #[serde(serialize_with = "map")]
    pub notes: Vec<(String, String)>,
    /// The variables that policies kept of it.
    #[serde(serialize_with = "map")]
    pub variables: Vec<(String, Json)>,
    /// What its media was like that was relayed here, by stream; empty where none was, or no media worker told in time.
    pub media: Vec<MediaRecord>,
}

/// One stream of a call.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MediaRecord {
    /// The attempt whose stream it was, from 0.
    pub attempt: usize,
    /// The media description's place in the SDP, from 0.
    pub stream: u8,
    /// What came from the caller.
    pub caller: MediaSideRecord,
    /// What came from the callee.
    pub callee: MediaSideRecord,
}

/// What came from one side of a stream.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MediaSideRecord {
    /// Packets, without RTCP.
    pub packets: u64,
    /// Their bytes, RTP's heads included.
    pub octets: u64,
    /// Packets that never came, by RTP's numbers (RFC 3550 section A.3).
    pub lost: u64,
    /// Packets of others, which went nowhere.
    pub refused: u64,
    /// Jitter at the end (RFC 3550 section A.8).
    pub jitter_milliseconds: f64,
    /// The most jitter that there was.
    pub most_jitter_milliseconds: f64,
    /// A mean opinion score from 1 to 4.5 (ITU-T G.107), null where there was too little to judge by.
    pub mos: Option<f64>,
    /// Where the packets came from.
    pub source: String,
}

/// Microseconds since 1970 as RFC 3339 text in UTC; null for 0.
fn rfc3339<S: Serializer>(microseconds: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    if *microseconds == 0 { serializer.serialize_none() } else { serializer.serialize_str(&wall_text(*microseconds)) }
}

fn map<S: Serializer, V: Serialize>(pairs: &[(String, V)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name, value)))
}

fn wall_text(microseconds: u64) -> String {
    let (seconds, micros) = (microseconds / 1_000_000, microseconds % 1_000_000);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to date by eras of 400 years that start on 1 March.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{micros:06}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    #[test]
    fn wall_clock_text_knows_leap_years() {
        assert_eq!(super::wall_text(951_782_400_000_000), "2000-02-29T00:00:00.000000Z");
        assert_eq!(super::wall_text(1_795_420_062_000_001), "2026-11-23T07:47:42.000001Z");
    }
}
