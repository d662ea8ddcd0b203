//! Sockets, threads and clocks: carries bytes between the network and [`edge::Edge`], and decides nothing about SIP.

mod answers;
mod bind;
mod clock;
mod coalesce;
mod connection;
mod datagram;
mod engine;
mod install;
mod limits;
mod logging;
mod mail;
mod overload;
mod policies;
mod records;
mod resolve;
mod roster;
mod routes;
mod runner;
mod secrets;
mod sieve;
mod stream;
mod wait;
mod worker;

pub use bind::{BindError, inherited};
pub use engine::{Engine, StartError};
pub use install::{DnsSettings, Document, InstallSettings, RecordSettings, StreamSettings};
pub use logging::{LogLine, drain_log, install_logger, set_log_level};
pub use policies::{PolicyExchange, PolicyLink, PolicyPort};
pub use records::record_text;
