//! Carrier routing without I/O: prefixes, gateways, carriers, health. What is provisioned is one immutable [`Table`]; what is
//! learned of a gateway is its [`GatewayState`], which outlives tables.
//!
//! Tables and their meaning follow OpenSIPS's `drouting`, so that what is provisioned for it routes as its users expect.
#![forbid(unsafe_code)]

mod builder;
mod explain;
mod gateway;
mod number;
mod quality;
mod recurrence;
mod retry;
mod row;
mod search;
mod state;
mod table;
mod translation;
mod trie;

pub use builder::{Builder, Fault, LoadOptions, Loaded};
pub use explain::{Explanation, Present, explain};
pub use gateway::{Carrier, Gateway};
pub use number::{Alphabet, LONGEST_PREFIX};
pub use quality::{FIGURES, Figures, Final, Grade, Pair, PairName, Profile, Quality, QualityRules, Worth};
pub use recurrence::Recurrence;
pub use retry::{Outcome, RetryRules};
pub use search::{Guide, Pick, Search, SearchOptions, Whitelist};
pub use state::{Down, GatewayState, HealthRules, ProbeMode, Trial};
pub use table::{Machine, Rule, Sort, Table};
pub use translation::{Becomes, Fits, LONGEST_NUMBER, NumberRule, NumberRules, SEPARATORS, pattern, unknown_group};
