//! Bounds on what one message may hold.

/// Most header field lines that one message may have; the table of offsets has this size.
pub const MAX_HEADERS: usize = 128;

/// Bounds on what one message may hold. Every bound is inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole message, at most 65,535.
    pub message_bytes: usize,
    /// Header field lines, at most [`MAX_HEADERS`].
    pub headers: usize,
    /// Bytes of one header field name.
    pub header_name_bytes: usize,
    /// Bytes of one header field value.
    pub header_value_bytes: usize,
    /// Bytes of the Request-URI.
    pub uri_bytes: usize,
    /// Via header field values, counted by line.
    pub vias: usize,
    /// Bytes of the body.
    pub body_bytes: usize,
}

impl Limits {
    /// The bounds that tests and tools use; the product takes its own from the configuration.
    pub const STANDARD: Self =
        Self { message_bytes: 65_535, headers: MAX_HEADERS, header_name_bytes: 255, header_value_bytes: 8_192, uri_bytes: 1_024, vias: 70, body_bytes: 65_535 };

    /// The bounds for what we wrote ourselves: it may exceed what an arriving message may hold by what we added.
    pub const OWN: Self = Self { header_value_bytes: 65_535, uri_bytes: 65_535, vias: MAX_HEADERS, ..Self::STANDARD };
}
