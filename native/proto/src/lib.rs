//! SIP state without I/O: transactions, response contexts, dialogs, registrar and location, digest, sealed tokens,
//! timers.
//!
//! Time is always an argument ([`Moment`]); sockets, threads and clocks are unknown here.
//! RFC 3261 sections 10, 12, 16, 17 and 22, RFC 6026, RFC 4320, RFC 7616.
#![forbid(unsafe_code)]

mod dialog;
mod digest;
mod gruu;
mod index;
mod location;
mod moment;
mod nonce;
mod registrar;
mod response_context;
mod secret;
mod texts;
mod timed_slab;
mod token;
mod transaction;

pub use dialog::{Dialog, DialogState};
pub use digest::{Algorithm, DigestInput, DigestText, Protection, digest_response, ha1};
pub use gruu::TemporaryGruu;
pub use index::TransactionIndex;
pub use location::{Binding, Flow, FlowConnection, LargePages, Location, Places, Record};
pub use moment::{Moment, Now, milliseconds, seconds};
pub use nonce::{Nonce, NonceState, NonceWindows, Use};
pub use registrar::{Change, Contact, RegistrarRules, Registration, RegistrationError, push_of, register};
pub use response_context::{is_better, rank};
pub use secret::{Secret, keyed_hash, stable_id};
pub use texts::Texts;
pub use timed_slab::{Key, TimedSlab};
pub use token::{BRANCH_TEXT, BranchToken, Direction, FlowToken, RouteToken};
pub use transaction::{
    AckOutcome, ClientAction, FinalOutcome, InviteClient, InviteServer, NonInviteClient, NonInviteServer, ServerAction, SipTimers, transaction_key,
};
