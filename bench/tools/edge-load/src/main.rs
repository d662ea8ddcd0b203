//! An open-loop load generator: calls begin when the clock says so, however the proxy fares.
//!
//! Caller and callee in one process on two sockets. Latencies are counted from the moment a call was due, so that a
//! stall of the generator itself is not hidden. Prints one JSON object.

mod aborted;
mod arguments;
mod call;
mod datagram;
mod histogram;
mod media;
mod network;
mod stream;
mod text;

use std::io;
use std::process::ExitCode;

use arguments::{Arguments, Scenario};

fn report(arguments: &Arguments) -> io::Result<String> {
    if arguments.scenario == Scenario::Media {
        return Ok(serde_json::to_string(&media::run(arguments)?)?);
    }
    Ok(serde_json::to_string(&call::run(arguments)?)?)
}

fn main() -> ExitCode {
    let result = Arguments::parse(std::env::args().skip(1)).and_then(|arguments| report(&arguments).map_err(|error| error.to_string()));
    match result {
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
