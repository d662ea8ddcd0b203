//! Calls with media that are given up, each at another step of offer and answer: nothing may be left of them.

use std::io;

use crate::arguments::Arguments;
use crate::media::{Calls, Report, answer, read_text, request, routes_of, sdp};

pub(crate) fn run(arguments: &Arguments) -> io::Result<Report> {
    let calls = Calls::sockets(arguments)?;
    let run = std::process::id();
    eprintln!("begun");
    for number in 0..arguments.streams {
        abort(&calls, arguments, number, run)?;
    }
    eprintln!("ended");
    Ok(Report { streams: arguments.streams, attempted: arguments.streams as u64, ..Report::default() })
}

fn abort(calls: &Calls, arguments: &Arguments, number: usize, run: u32) -> io::Result<()> {
    let (from, to, target) = (arguments.caller, arguments.callee, calls.target);
    let mine = format!("Call-ID: m{number}-{run}\r\n");
    let make = |method: &str, cseq: u32, tag: &str, routes: &str, body: &str| request([from, to], (number, run), method, cseq, &[tag, routes, body]);
    let send = |text: String| calls.caller.send_to(text.as_bytes(), target);
    let reply = |text: &str, status: &str, body: &str| calls.callee.send_to(answer(text, to, status, body).as_bytes(), target);
    let arrives = |start: &str| read_text(&calls.callee, |text| text.starts_with(start) && text.contains(&mine));
    let answered = |start: &str| read_text(&calls.caller, |text| text.starts_with(start) && text.contains(&mine));
    // Every other call leaves the offer to the callee.
    let late = number % 2 == 1;
    let offer = sdp(from);
    send(make("INVITE", 1, "", "", if late { "" } else { &offer }))?;
    let invite = arrives("INVITE ")?;
    let step = number / 2 % 5;
    if step >= 1 {
        reply(&invite, "180 Ringing", "")?;
        answered("SIP/2.0 180")?;
    }
    if step >= 2 {
        reply(&invite, "183 Progress", &sdp(to))?;
        answered("SIP/2.0 183")?;
    }
    if step < 3 {
        let refused = if step == 0 {
            reply(&invite, "486 Busy Here", "")?;
            answered("SIP/2.0 486")?
        } else {
            send(make("CANCEL", 1, "", "", ""))?;
            let cancel = arrives("CANCEL ")?;
            reply(&cancel, "200 OK", "")?;
            reply(&invite, "487 Request Terminated", "")?;
            answered("SIP/2.0 487")?
        };
        let tag = refused.split("To: ").nth(1).and_then(|rest| rest.lines().next()).and_then(|line| line.split(";tag=").nth(1)).unwrap_or_default();
        send(make("ACK", 1, &format!(";tag={tag}"), "", ""))?;
        arrives("ACK ")?;
        return Ok(());
    }
    reply(&invite, "200 OK", &sdp(to))?;
    let ok = answered("SIP/2.0 200")?;
    let routes = routes_of(&ok);
    send(make("ACK", 1, ";tag=c", &routes, if late { &offer } else { "" }))?;
    arrives("ACK ")?;
    if step == 4 {
        // Another offer, which is refused.
        send(make("INVITE", 2, ";tag=c", &routes, &sdp(to)))?;
        let again = arrives("INVITE ")?;
        reply(&again, "488 Not Acceptable Here", "")?;
        answered("SIP/2.0 488")?;
        send(make("ACK", 2, ";tag=c", "", ""))?;
        arrives("ACK ")?;
    }
    send(make("BYE", 3, ";tag=c", &routes, ""))?;
    let bye = arrives("BYE ")?;
    reply(&bye, "200 OK", "")?;
    answered("SIP/2.0 200").map(drop)
}
