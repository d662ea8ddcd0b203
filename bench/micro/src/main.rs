//! Runs one unit of work so many times, for callgrind: `micro parse|call COUNT`.

use std::process::ExitCode;

use syntax::Head;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.as_slice() {
        [unit, count] => count.parse().ok().and_then(|count| run(unit, count)),
        _ => None,
    };
    match done {
        Some(done) => {
            println!("{done}");
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("usage: micro parse|call COUNT");
            ExitCode::FAILURE
        }
    }
}

fn run(unit: &str, count: u32) -> Option<usize> {
    match unit {
        "parse" => {
            let mut head = Head::default();
            Some((0..count).map(|_| micro::parse_invite(std::hint::black_box(micro::INVITE.as_bytes()), &mut head)).sum())
        }
        "call" => {
            let mut rig = micro::rig();
            Some((0..count).map(|number| micro::relay_call(&mut rig, number)).sum())
        }
        _ => None,
    }
}
