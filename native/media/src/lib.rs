//! The media relay without sockets and without a clock: which packets are taken, where they go, what is counted of them.
//!
//! An established stream is a row for each of its ports: from where, to where, by which other row. Whoever has the sockets
//! asks [`Relay::packet`] for each datagram; commands open, change and close sessions, notices come back as values.
#![forbid(unsafe_code)]

mod bencode;
mod command;
mod latch;
mod ng;
mod packet;
mod ports;
mod quality;
mod relay;
mod report;
mod row;

pub use command::{Command, Described, PortPair, Rules, SessionId, Side, StreamKind};
pub use latch::Learning;
pub use ng::{NgAnswer, NgCommand, NgKind, ng_answer, ng_ping, ng_report};
pub use ports::PortPool;
pub use relay::{Relay, RelayCounts, Way};
pub use report::{Notice, SessionReport, SideReport, StreamReport};
