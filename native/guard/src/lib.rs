//! Limits without I/O: concurrent calls as leases, the pace of new ones, failures by key, and the ban list. Any worker asks;
//! nothing on the way of a message is locked.
#![forbid(unsafe_code)]

mod bans;
mod calls;
mod capacity;
mod pace;
mod seen;
mod window;

pub use bans::{Ban, BanList};
pub use calls::{CallCount, CallLease};
pub use capacity::{Capacity, Caps, Full};
pub use pace::Pace;
pub use seen::LastSeen;
pub use window::WindowCounts;
