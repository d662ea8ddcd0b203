//! A simulated clock and network around one [`edge::Edge`], and messages to throw at it. Tests only.
#![forbid(unsafe_code)]

mod digest;
mod gateways;
mod media_worker;
mod message;
mod rig;
mod settings;
mod verdict;

pub use digest::{answer, challenge_param};
pub use gateways::gateways;
pub use media_worker::MediaWorker;
pub use message::{Request, final_to_tag, header, headers, response, sdp, with_body};
pub use rig::{Rig, Sent};
pub use settings::{flood, fraud, limit, listener, media, peer, registrar, route, settings};
pub use verdict::{origination, packed, verdict};
