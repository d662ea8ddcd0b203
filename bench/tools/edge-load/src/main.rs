//! An open-loop load generator: calls begin when the clock says so, however the proxy fares.
//!
//! Caller and callee in one process on two sockets. Latencies are counted from the moment a call was due, so that a
//! stall of the generator itself is not hidden. Prints one JSON object.

mod arguments;
mod call;
mod datagram;
mod histogram;
mod network;
mod stream;
mod text;

use std::process::ExitCode;

use arguments::Arguments;

fn main() -> ExitCode {
    let result = Arguments::parse(std::env::args().skip(1)).and_then(|arguments| call::run(&arguments).map_err(|error| error.to_string()));
    match result.and_then(|report| serde_json::to_string(&report).map_err(|error| error.to_string())) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("edge-load: {error}");
            ExitCode::FAILURE
        }
    }
}
