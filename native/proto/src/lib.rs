//! SIP state without I/O: transactions, response contexts, dialogs, sealed tokens, timers.
//!
//! Time is always an argument ([`Moment`]); sockets, threads and clocks are unknown here.
//! RFC 3261 sections 12, 16 and 17, RFC 6026, RFC 4320.
#![forbid(unsafe_code)]

mod dialog;
mod index;
mod moment;
mod response_context;
mod secret;
mod timed_slab;
mod token;
mod transaction;

pub use dialog::{Dialog, DialogState};
pub use index::TransactionIndex;
pub use moment::{Moment, Now, milliseconds, seconds};
pub use response_context::{is_better, rank};
pub use secret::{Secret, keyed_hash, stable_id};
pub use timed_slab::{Key, TimedSlab};
pub use token::{BRANCH_TEXT, BranchToken, Direction, RouteToken};
pub use transaction::{
    AckOutcome, ClientAction, FinalOutcome, InviteClient, InviteServer, NonInviteClient, NonInviteServer, ServerAction, SipTimers, transaction_key,
};
