//! Gateways and carriers as they are provisioned.

use std::sync::Arc;

use crate::state::{GatewayState, ProbeMode};
use crate::table::Sort;

/// One row of `dr_gateways`.
#[derive(Debug)]
pub struct Gateway {
    /// Its name, and what is known of it.
    pub state: Arc<GatewayState>,
    /// A class that peers and lookups can ask for.
    pub kind: i32,
    /// A SIP URI without user part: `sip:host[:port][;parameters]`.
    pub uri: Box<str>,
    /// Characters taken from the front of the number.
    pub strip: u8,
    /// What is put there instead.
    pub prefix: Box<str>,
    /// Opaque.
    pub attrs: Box<str>,
    /// When it is probed.
    pub probe: ProbeMode,
    /// `transport:address[:port]` of the listener to send from, or its name; empty for any.
    pub socket: Box<str>,
    /// Concurrent calls that it may have; 0 for any number.
    pub max_calls: u32,
    /// New calls that it may have in any second; 0 for any number.
    pub calls_per_second: u16,
}

impl Gateway {
    /// Its name.
    pub fn id(&self) -> &str {
        &self.state.id
    }

    /// Whether probes tell of it.
    pub fn is_probed(&self) -> bool {
        self.probe != ProbeMode::Never
    }

    /// The Request-URI for a number, without what a caller's Request-URI had beside it.
    pub fn request_uri(&self, number: &str) -> String {
        let mut user = Vec::new();
        syntax::push_user(&self.number(number.as_bytes()), &mut user);
        let (scheme, place) = self.uri.split_once(':').unwrap_or(("sip", &self.uri));
        if user.is_empty() { format!("{scheme}:{place}") } else { format!("{scheme}:{}@{place}", String::from_utf8_lossy(&user)) }
    }

    /// The number as this gateway wants it.
    pub fn number(&self, number: &[u8]) -> Vec<u8> {
        let kept = number.get(usize::from(self.strip)..).unwrap_or_default();
        [self.prefix.as_bytes(), kept].concat()
    }
}

/// One row of `dr_carriers`.
#[derive(Debug)]
pub struct Carrier {
    /// Its name.
    pub id: Box<str>,
    /// Its gateways with their weights.
    pub gateways: Vec<(u32, u16)>,
    /// How they are sorted.
    pub sort: Sort,
    /// Only the first of them that is usable is tried.
    pub first_only: bool,
    /// As for a gateway, by this carrier.
    pub max_calls: u32,
    /// As for a gateway, by this carrier.
    pub calls_per_second: u16,
    /// What is known of it: its switch, and the counts of its gateways' calls by it.
    pub state: Arc<GatewayState>,
    /// Opaque.
    pub attrs: Box<str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_stripped_and_prefixed() {
        let gateway = |strip, prefix: &str| Gateway {
            state: Arc::new(GatewayState::new("a")),
            kind: 0,
            uri: "sip:192.0.2.1".into(),
            strip,
            prefix: prefix.into(),
            attrs: "".into(),
            probe: ProbeMode::Never,
            socket: "".into(),
            max_calls: 0,
            calls_per_second: 0,
        };
        assert_eq!(gateway(0, "").number(b"4930"), b"4930");
        assert_eq!(gateway(2, "0011").number(b"4930"), b"001130");
        assert_eq!(gateway(9, "0").number(b"4930"), b"0");
        assert_eq!(gateway(0, "0").request_uri("4930"), "sip:04930@192.0.2.1");
        assert_eq!(gateway(4, "").request_uri("4930"), "sip:192.0.2.1");
        assert_eq!(gateway(0, "").request_uri("#31"), "sip:%2331@192.0.2.1");
    }
}
