//! Limits without I/O: concurrent calls as leases, and the pace of new ones. Any worker asks; nothing here is locked.
#![forbid(unsafe_code)]

mod calls;
mod capacity;
mod pace;

pub use calls::{CallCount, CallLease};
pub use capacity::{Capacity, Caps, Full};
pub use pace::Pace;
