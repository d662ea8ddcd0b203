//! Header field names that routing knows, with their compact forms (RFC 3261 section 7.3.3).

/// A header field that some phase of a request looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "each variant is the header field of its name")]
pub enum HeaderName {
    #[default]
    Other,
    Via,
    From,
    To,
    CallId,
    CSeq,
    MaxForwards,
    MaxBreadth,
    Route,
    RecordRoute,
    Contact,
    ContentLength,
    ContentType,
    ProxyRequire,
    Require,
    Supported,
    Timestamp,
    Reason,
    RetryAfter,
    WwwAuthenticate,
    ProxyAuthenticate,
    Authorization,
    ProxyAuthorization,
    PAssertedIdentity,
    PPreferredIdentity,
    PChargingVector,
    PChargingFunctionAddresses,
    PServedUser,
    PProfileKey,
    PUserDatabase,
    RemotePartyId,
    Diversion,
    HistoryInfo,
}

impl HeaderName {
    /// How many variants there are.
    pub const COUNT: usize = 33;

    /// The known header field of this name, compared without case; [`HeaderName::Other`] else.
    pub fn from_bytes(name: &[u8]) -> Self {
        let mut lower = [0u8; 32];
        let Some(lower) = lower.get_mut(..name.len()) else { return Self::Other };
        for (to, from) in lower.iter_mut().zip(name) {
            *to = from.to_ascii_lowercase();
        }
        match &*lower {
            b"via" | b"v" => Self::Via,
            b"from" | b"f" => Self::From,
            b"to" | b"t" => Self::To,
            b"call-id" | b"i" => Self::CallId,
            b"cseq" => Self::CSeq,
            b"max-forwards" => Self::MaxForwards,
            b"max-breadth" => Self::MaxBreadth,
            b"route" => Self::Route,
            b"record-route" => Self::RecordRoute,
            b"contact" | b"m" => Self::Contact,
            b"content-length" | b"l" => Self::ContentLength,
            b"content-type" | b"c" => Self::ContentType,
            b"proxy-require" => Self::ProxyRequire,
            b"require" => Self::Require,
            b"supported" | b"k" => Self::Supported,
            b"timestamp" => Self::Timestamp,
            b"reason" => Self::Reason,
            b"retry-after" => Self::RetryAfter,
            b"www-authenticate" => Self::WwwAuthenticate,
            b"proxy-authenticate" => Self::ProxyAuthenticate,
            b"authorization" => Self::Authorization,
            b"proxy-authorization" => Self::ProxyAuthorization,
            b"p-asserted-identity" => Self::PAssertedIdentity,
            b"p-preferred-identity" => Self::PPreferredIdentity,
            b"p-charging-vector" => Self::PChargingVector,
            b"p-charging-function-addresses" => Self::PChargingFunctionAddresses,
            b"p-served-user" => Self::PServedUser,
            b"p-profile-key" => Self::PProfileKey,
            b"p-user-database" => Self::PUserDatabase,
            b"remote-party-id" => Self::RemotePartyId,
            b"diversion" => Self::Diversion,
            b"history-info" => Self::HistoryInfo,
            _ => Self::Other,
        }
    }

    /// Whether it says who a caller is, which one who wants privacy has withheld (RFC 3325 section 7).
    pub const fn tells_identity(self) -> bool {
        matches!(self, Self::PAssertedIdentity | Self::RemotePartyId)
    }

    /// Whether it is for elements of the trust domain alone, whatever the caller wishes (RFC 3325 section 9.2, RFC 5002 section 6,
    /// RFC 5502 section 6, RFC 7315 section 4).
    pub const fn stays_within(self) -> bool {
        matches!(
            self,
            Self::PPreferredIdentity | Self::PChargingVector | Self::PChargingFunctionAddresses | Self::PServedUser | Self::PProfileKey | Self::PUserDatabase
        )
    }

    /// Whether only an element of the trust domain may set this (RFC 3325 section 5, RFC 4457, RFC 5002, RFC 5502, RFC 5806, RFC 7044,
    /// RFC 7315 sections 4.5 and 4.6).
    pub const fn needs_trust(self) -> bool {
        matches!(
            self,
            Self::PAssertedIdentity
                | Self::PChargingVector
                | Self::PChargingFunctionAddresses
                | Self::PServedUser
                | Self::PProfileKey
                | Self::PUserDatabase
                | Self::RemotePartyId
                | Self::Diversion
                | Self::HistoryInfo
        )
    }
}

/// The long form of a compact name (RFC 3261 section 7.3.3, and IANA's register of header fields); any other name as it is.
pub fn long_name(name: &[u8]) -> &[u8] {
    let [letter] = name else { return name };
    match letter.to_ascii_lowercase() {
        b'a' => b"Accept-Contact",
        b'b' => b"Referred-By",
        b'c' => b"Content-Type",
        b'd' => b"Request-Disposition",
        b'e' => b"Content-Encoding",
        b'f' => b"From",
        b'i' => b"Call-ID",
        b'j' => b"Reject-Contact",
        b'k' => b"Supported",
        b'l' => b"Content-Length",
        b'm' => b"Contact",
        b'o' => b"Event",
        b'r' => b"Refer-To",
        b's' => b"Subject",
        b't' => b"To",
        b'u' => b"Allow-Events",
        b'v' => b"Via",
        b'x' => b"Session-Expires",
        b'y' => b"Identity",
        _ => name,
    }
}

/// Whether two names are of one header field, in whichever form each is.
pub fn same_name(a: &[u8], b: &[u8]) -> bool {
    long_name(a).eq_ignore_ascii_case(long_name(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compact_name_is_that_of_its_field() {
        assert!(same_name(b"R", b"refer-to") && same_name(b"x", b"Session-Expires") && same_name(b"Y", b"y") && same_name(b"X-A", b"x-a"));
        assert!(!same_name(b"r", b"Referred-By") && !same_name(b"z", b"x") && !same_name(b"", b"x"));
        // Both ways to know a name say the same.
        for letter in b'a'..=b'z' {
            assert_eq!(HeaderName::from_bytes(&[letter]), HeaderName::from_bytes(long_name(&[letter])), "{}", letter as char);
        }
    }

    #[test]
    fn names_are_found_without_case_and_in_compact_form() {
        assert_eq!(HeaderName::from_bytes(b"cAlL-iD"), HeaderName::CallId);
        assert_eq!(HeaderName::from_bytes(b"I"), HeaderName::CallId);
        assert_eq!(HeaderName::from_bytes(b"P-Preferred-Identity"), HeaderName::PPreferredIdentity);
        assert_eq!(HeaderName::from_bytes(b"A-name-of-more-than-thirty-bytes"), HeaderName::Other);
        assert_eq!(HeaderName::from_bytes(b""), HeaderName::Other);
    }
}
