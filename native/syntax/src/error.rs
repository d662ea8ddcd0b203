//! Why bytes are not a SIP message we can act on.

/// The part of a message that an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each variant is the header field of its name")]
pub enum Field {
    StartLine,
    RequestUri,
    HeaderName,
    HeaderValue,
    Via,
    From,
    To,
    CallId,
    CSeq,
    MaxForwards,
    ContentLength,
    Route,
    Contact,
    Body,
}

impl Field {
    /// The name as it stands in a message.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StartLine => "start line",
            Self::RequestUri => "Request-URI",
            Self::HeaderName => "header field name",
            Self::HeaderValue => "header field value",
            Self::Via => "Via",
            Self::From => "From",
            Self::To => "To",
            Self::CallId => "Call-ID",
            Self::CSeq => "CSeq",
            Self::MaxForwards => "Max-Forwards",
            Self::ContentLength => "Content-Length",
            Self::Route => "Route",
            Self::Contact => "Contact",
            Self::Body => "body",
        }
    }
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why bytes are not a SIP message we can act on. Always the peer's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// No SIP start line: another protocol, or garbage.
    #[error("not a SIP message")]
    NotSip,
    /// A SIP version other than 2.0.
    #[error("unsupported SIP version")]
    Version,
    /// A field that does not follow the grammar.
    #[error("malformed {field} at byte {at}")]
    Malformed {
        /// What is malformed.
        field: Field,
        /// Offset into the message.
        at: u16,
    },
    /// A field that every message must have is absent.
    #[error("missing mandatory header field: {field}")]
    Missing {
        /// What is missing.
        field: Field,
    },
    /// A field that may stand once stands twice, or with differing values.
    #[error("repeated {field}")]
    Repeated {
        /// What is repeated.
        field: Field,
    },
    /// More of something than the limits allow.
    #[error("{field} over its limit")]
    TooLarge {
        /// What is too large, or too many.
        field: Field,
    },
    /// Content-Length promises more body than there is.
    #[error("body shorter than Content-Length")]
    Truncated,
    /// The method of CSeq is not that of the start line.
    #[error("CSeq method differs from the request's")]
    CSeqMismatch,
    /// The Request-URI has a scheme that no element here understands.
    #[error("unknown URI scheme")]
    UnknownScheme,
}

impl ParseError {
    /// The status code to answer a request with (RFC 3261 sections 8.2, 16.3, 21.4).
    pub const fn status_code(self) -> u16 {
        match self {
            Self::Version => 505,
            Self::UnknownScheme => 416,
            Self::TooLarge { field: Field::RequestUri } => 414,
            Self::TooLarge { field: Field::Body } => 413,
            Self::TooLarge { field: Field::StartLine } => 513,
            Self::NotSip
            | Self::Malformed { .. }
            | Self::Missing { .. }
            | Self::Repeated { .. }
            | Self::TooLarge { .. }
            | Self::Truncated
            | Self::CSeqMismatch => 400,
        }
    }

    /// A short, fixed name for counters and logs.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotSip => "not_sip",
            Self::Version => "version",
            Self::Malformed { .. } => "malformed",
            Self::Missing { .. } => "missing",
            Self::Repeated { .. } => "repeated",
            Self::TooLarge { .. } => "too_large",
            Self::Truncated => "truncated",
            Self::CSeqMismatch => "cseq_mismatch",
            Self::UnknownScheme => "unknown_scheme",
        }
    }
}
