//! Message grammar of SIP (RFC 3261 section 25) and the line structure of SDP (RFC 8866).
//!
//! Owns framing, the zero-copy parse, edits and printing. Parsing allocates nothing: every
//! field is a [`Span`] into the receive buffer, so a message is at most 65,535 bytes.
//! Knows nothing of transactions, sockets or time.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

mod credentials;
mod cursor;
mod edit;
mod error;
mod escape;
mod frame;
mod header;
mod limits;
mod media_description;
mod message;
mod method;
mod name_addr;
mod parse;
mod response;
mod same_uri;
mod sdp;
mod span;
mod status;
mod uri;
mod via;

pub use credentials::{Credentials, CredentialsError};
pub use edit::Edits;
pub use error::{Field, ParseError};
pub use escape::{push_user, unescaped};
pub use frame::{Frame, Framer};
pub use header::{HeaderName, long_name, same_name};
pub use limits::{Limits, MAX_HEADERS};
pub use media_description::{Connection, MediaDescription, MediaDirection, RtcpPlace, SessionDescription};
pub use message::{Head, Message, MessageKind, Slot, list_elements};
pub use method::Method;
pub use name_addr::{NameAddr, header_param, header_param_span, parse_name_addr};
pub use parse::parse;
pub use response::{LocalReply, is_answerable, push_decimal, push_unfolded};
pub use same_uri::same_uri;
pub use sdp::{SdpLine, sdp_lines};
pub use span::Span;
pub use status::reason_phrase;
pub use uri::{Scheme, Transport, Uri, is_odd_address, parse_ip, uri_param};
pub use via::{Rport, Via};

/// The branch prefix that tells an RFC 3261 element from an older one (section 8.1.1.7).
pub const MAGIC_COOKIE: &[u8] = b"z9hG4bK";
