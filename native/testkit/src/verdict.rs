//! Verdicts as a policy process encodes them.

use serde_json::{Value, json};

/// What a policy may decide, by number; some of it fits a hook and some does not.
pub fn verdict(kind: u8, status_code: u16, text: &str) -> Vec<u8> {
    let edits = json!([{"action": "set", "name": "X-Policy", "value": text}]);
    let value = match kind % 15 {
        0 => json!({"kind": "continue"}),
        1 => json!({"kind": "continue", "edits": edits}),
        2 => json!({"kind": "relay", "targets": ["sip:203.0.113.20", "sip:203.0.113.21"]}),
        3 => json!({"kind": "relay", "targets": ["sip:203.0.113.20", "sip:203.0.113.21"], "parallel": true, "report": true}),
        4 => json!({"kind": "relay", "peer": "core", "report": true, "edits": edits}),
        5 => json!({"kind": "relay", "targets": [text]}),
        6 => json!({"kind": "reply", "status_code": status_code, "reason_phrase": text}),
        7 => json!({"kind": "best", "status_code": status_code}),
        8 => json!({"kind": "drop"}),
        9 => json!({"kind": "error"}),
        10 => json!({"kind": "continue", "edits": [{"action": "request_uri", "name": "", "value": "sip:other@example.net"}]}),
        11 => json!({"kind": "route", "report": true, "number": "49301"}),
        12 => json!({"kind": "route", "group": 0, "fall_back": true, "whitelist": ["a", "#one"], "edits": edits}),
        13 => json!({"kind": "next", "report": true}),
        _ => json!({"kind": "relay", "targets": ["sip:core.example.net"]}),
    };
    packed(&value)
}

/// A value as it crosses; empty where it cannot be encoded, which no value of JSON is.
pub fn packed(value: &Value) -> Vec<u8> {
    rmp_serde::to_vec(value).unwrap_or_default()
}

/// What a policy process writes to have a request sent.
pub fn origination(number: u32, method: &str, uri: &str) -> Vec<u8> {
    let request = format!(
        "{method} {uri} SIP/2.0\r\nVia: SIP/2.0/UDP origin.invalid;branch=z9hG4bK-origin\r\nMax-Forwards: 70\r\nFrom: <sip:edge@x>;tag=1\r\nTo: <{uri}>\r\nCall-ID: own-{number}\r\nCSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
    );
    let [a, b, c, d] = number.to_le_bytes();
    let mut bytes = vec![0, 0, 1, 0, a, b, c, d, 0, 0, 0, 0];
    bytes.extend(packed(&json!({"kind": "originate", "request": request})));
    bytes
}
