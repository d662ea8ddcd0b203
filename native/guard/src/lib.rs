//! Limits without I/O: concurrent calls as leases, the pace of new ones, shares of what several nodes have together, failures by key, and the ban list. Any worker asks;
//! nothing on the way of a message is locked.
#![forbid(unsafe_code)]

mod bans;
mod calls;
mod capacity;
mod fraud;
mod fraud_others;
mod fraud_replay;
mod fraud_rules;
mod keyed;
mod pace;
mod pipe;
mod seen;
mod share;
mod slots;
mod window;

pub use bans::{Ban, BanChange, BanList};
pub use calls::{CallCount, CallLease};
pub use capacity::{Capacity, Caps, Full};
pub use fraud::{Alarm, Alarms, Fraud, FraudFinding, FraudRow, FraudStats, FraudTerms, FraudValue, Level, WatchedCall};
pub use fraud_others::FraudTold;
pub use fraud_replay::{PastAlarm, PastCall, replay};
pub use fraud_rules::{Figure, FraudRule, FraudRules, LocalTime};
pub use keyed::{Holder, Keyed, NotHeld, Slot};
pub use pace::Pace;
pub use pipe::{Algorithm, Meters, Pipe, Steering};
pub use seen::LastSeen;
pub use share::{Share, ShareAsk, ShareNews, ShareStore};
pub use window::WindowCounts;
