//! The run: begins calls by the clock, follows each to its end, retransmits as RFC 3261 section 17 says.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::arguments::{Arguments, Scenario};
use crate::histogram::Histogram;
use crate::network::{Network, wait};
use crate::text::{DialogText, Places, Registrant, ack_refusal, answer, call_of, cancel, credentials, in_dialog, invite, read_response, register};

const T1: u64 = 500_000;
const GIVE_UP: u64 = 32_000_000;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Calling,
    Proceeding,
    Talking,
    Ending,
}

struct Call {
    due: u64,
    state: State,
    interval: u64,
    since: u64,
    dialog: DialogText,
    /// The answer to a challenge; empty before there was one.
    credentials: String,
}

/// What came of it all.
#[derive(Default, Serialize)]
pub(crate) struct Report {
    attempted: u64,
    completed: u64,
    refused: u64,
    refused_with_retry_after: u64,
    /// INVITEs without any answer.
    unanswered: u64,
    /// Calls that failed once they had begun.
    failed: u64,
    retransmissions: u64,
    answers_retransmitted: u64,
    /// Callers that went without a word.
    killed: u64,
    /// Calls that the callee had at once, at most.
    most_live: usize,
    seconds: f64,
    setup_p50_microseconds: u64,
    setup_p90_microseconds: u64,
    setup_p99_microseconds: u64,
    setup_p999_microseconds: u64,
    setup_max_microseconds: u64,
    late_starts: u64,
    /// Calls completed in each second since the start.
    completed_by_second: Vec<u64>,
}

struct Run<'a> {
    arguments: &'a Arguments,
    target: String,
    places: Places,
    caller: Network,
    callee: Network,
    calls: HashMap<usize, Call>,
    timers: BinaryHeap<Reverse<(u64, usize)>>,
    /// Calls at the callee.
    live: HashSet<usize>,
    start: Instant,
    report: Report,
    setup: Histogram,
}

pub(crate) fn run(arguments: &Arguments) -> io::Result<Report> {
    let run = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |d| d.subsec_nanos() ^ d.as_secs() as u32);
    let mut run = Run {
        places: Places {
            caller: arguments.caller,
            callee: arguments.callee,
            target: arguments.target,
            run,
            transport: if arguments.reliable { "TCP" } else { "UDP" },
            parameter: if arguments.reliable { ";transport=tcp" } else { "" },
            digits: arguments.digits,
        },
        // The callee first: a forwarder may connect to it as soon as the caller does.
        callee: if arguments.reliable { Network::listen(arguments.callee)? } else { Network::datagrams(arguments.callee)? },
        caller: if arguments.reliable { Network::connect(arguments.target)? } else { Network::datagrams(caller_socket(arguments))? },
        target: arguments.target.to_string(),
        arguments,
        calls: HashMap::new(),
        timers: BinaryHeap::new(),
        live: HashSet::new(),
        start: Instant::now(),
        report: Report::default(),
        setup: Histogram::new(),
    };
    run.go();
    let mut report = run.report;
    report.seconds = run.start.elapsed().as_secs_f64();
    let unanswered = run.calls.values().filter(|call| call.state == State::Calling).count() as u64;
    report.unanswered += unanswered;
    report.failed += run.calls.len() as u64 - unanswered;
    for (place, share) in [
        (&mut report.setup_p50_microseconds, 0.5),
        (&mut report.setup_p90_microseconds, 0.9),
        (&mut report.setup_p99_microseconds, 0.99),
        (&mut report.setup_p999_microseconds, 0.999),
        (&mut report.setup_max_microseconds, 1.0),
    ] {
        *place = run.setup.percentile(share);
    }
    Ok(report)
}

/// Whether a call is the one of `every`.
fn is_nth(number: usize, every: usize) -> bool {
    every > 0 && number % every == every - 1
}

/// Where callers listen: at every address, where there are several.
fn caller_socket(arguments: &Arguments) -> SocketAddr {
    if arguments.callers > 0 { SocketAddr::from((Ipv4Addr::UNSPECIFIED, arguments.caller.port())) } else { arguments.caller }
}

impl Run<'_> {
    /// The places of a call.
    fn places(&self, number: usize) -> Places {
        if self.arguments.callers == 0 {
            return self.places;
        }
        let index = number % self.arguments.callers;
        let (network, host) = (1 + index % 2, index / 2);
        let address = Ipv4Addr::new(127, network as u8, (host / 250) as u8, (1 + host % 250) as u8);
        Places { caller: SocketAddr::from((address, self.places.caller.port())), ..self.places }
    }

    fn send_as_caller(&mut self, number: usize, bytes: Vec<u8>) {
        let Places { caller, target, .. } = self.places(number);
        self.caller.send_from(bytes, caller, target);
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    fn go(&mut self) {
        let total = (self.arguments.rate * self.arguments.duration_seconds) as usize;
        let mut next = 0;
        let end = (self.arguments.duration_seconds * 1e6) as u64 + GIVE_UP + self.arguments.hold_milliseconds * 1_000;
        loop {
            let now = self.now();
            let mut begun = 0;
            while next < total && begun < 64 && self.due(next) <= now {
                self.begin(next, now);
                next += 1;
                begun += 1;
            }
            self.expire(now);
            let busy = self.receive() + begun;
            self.caller.flush();
            self.callee.flush();
            if (next >= total && self.calls.is_empty()) || now > end {
                return;
            }
            if busy == 0 {
                let until = if next < total { self.due(next).saturating_sub(self.now()) } else { 2_000 };
                wait([&self.caller, &self.callee], until.min(2_000));
            }
        }
    }

    fn due(&self, number: usize) -> u64 {
        (number as f64 / self.arguments.rate * 1e6) as u64
    }

    fn begin(&mut self, number: usize, now: u64) {
        let due = self.due(number);
        self.report.late_starts += u64::from(now > due + 10_000);
        self.report.attempted += 1;
        if self.arguments.scenario == Scenario::Garbage {
            let mut bytes = self.caller.buffer();
            bytes.extend((0..200 + number % 300).map(|i| (i * 31 + number * 7) as u8));
            self.caller.send(bytes, self.places.target);
            self.report.completed += 1;
            return;
        }
        self.calls.insert(number, Call { due, state: State::Calling, interval: T1, since: now, dialog: DialogText::default(), credentials: String::new() });
        self.send_request(number);
        self.timers.push(Reverse((now + T1, number)));
    }

    /// Sends what the state of the call wants sent.
    fn send_request(&mut self, number: usize) {
        let (mut bytes, places) = (self.caller.buffer(), self.places(number));
        let Some(call) = self.calls.get(&number) else { return };
        match (self.arguments.scenario, call.state) {
            (Scenario::Register, _) => register(&mut bytes, &places, &self.registrant(number), number, &call.credentials),
            (_, State::Ending) => in_dialog(&mut bytes, &places, number, "BYE", 2, &call.dialog),
            _ => invite(&mut bytes, &places, number),
        }
        self.send_as_caller(number, bytes);
    }

    fn registrant(&self, number: usize) -> Registrant<'_> {
        let user = if self.arguments.users > 0 { number % self.arguments.users } else { number };
        let domain = if self.arguments.domain.is_empty() { &self.target } else { &self.arguments.domain };
        Registrant { domain, user, password: self.arguments.password.as_deref() }
    }

    fn expire(&mut self, now: u64) {
        while let Some(Reverse((at, number))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            let Some(call) = self.calls.get_mut(&number) else { continue };
            match call.state {
                State::Talking if is_nth(number, self.arguments.killed_every) => {
                    self.report.killed += 1;
                    self.calls.remove(&number);
                }
                State::Talking => {
                    call.state = State::Ending;
                    (call.interval, call.since) = (T1, now);
                    self.send_request(number);
                    self.timers.push(Reverse((now + T1, number)));
                }
                State::Proceeding => {
                    if now - call.since > GIVE_UP {
                        self.end(number, false);
                    } else {
                        self.timers.push(Reverse((now + 1_000_000, number)));
                    }
                }
                State::Calling if now - call.since >= GIVE_UP => {
                    self.report.unanswered += 1;
                    self.calls.remove(&number);
                }
                State::Ending if now - call.since >= GIVE_UP => self.end(number, false),
                State::Calling | State::Ending if self.arguments.reliable => self.timers.push(Reverse((now + 1_000_000, number))),
                State::Calling | State::Ending => {
                    call.interval = (call.interval * 2).min(if call.state == State::Ending { 4_000_000 } else { GIVE_UP });
                    let again = (now + call.interval).min(call.since + GIVE_UP);
                    self.report.retransmissions += 1;
                    self.send_request(number);
                    self.timers.push(Reverse((again, number)));
                }
            }
        }
    }

    fn end(&mut self, number: usize, completed: bool) {
        if self.calls.remove(&number).is_none() {
            return;
        }
        if completed {
            self.report.completed += 1;
            let second = (self.now() / 1_000_000) as usize;
            if self.report.completed_by_second.len() <= second {
                self.report.completed_by_second.resize(second + 1, 0);
            }
            self.report.completed_by_second[second] += 1;
        } else {
            self.report.failed += 1;
        }
    }

    fn receive(&mut self) -> usize {
        let mut requests: Vec<Vec<u8>> = Vec::new();
        let mut responses: Vec<Vec<u8>> = Vec::new();
        let count = self.callee.receive(&mut |bytes| requests.push(bytes.to_vec())) + self.caller.receive(&mut |bytes| responses.push(bytes.to_vec()));
        for request in requests {
            self.callee_takes(&request);
        }
        for response in responses {
            if response.starts_with(b"BYE") {
                // Somebody on the way has ended what nobody spoke of any more.
                let mut bytes = self.caller.buffer();
                answer(&mut bytes, &self.places, &response, "200 OK", false);
                self.caller.send(bytes, self.arguments.target);
            } else {
                self.caller_takes(&response);
            }
        }
        count
    }

    fn callee_takes(&mut self, request: &[u8]) {
        let number = call_of(request, &self.places);
        let refused = number.is_some_and(|number| is_nth(number, self.arguments.refused_every));
        let answers: &[(&str, bool)] = match request {
            [b'I', b'N', b'V', ..] if refused => &[("486 Busy Here", false)],
            [b'I', b'N', b'V', ..] => &[("180 Ringing", false), ("200 OK", true)],
            [b'B', b'Y', b'E', ..] | [b'R', b'E', b'G', ..] | [b'C', b'A', b'N', ..] => &[("200 OK", false)],
            _ => &[],
        };
        match (request.first(), number) {
            (Some(b'I'), Some(number)) if !refused => {
                self.live.insert(number);
                self.report.most_live = self.report.most_live.max(self.live.len());
            }
            (Some(b'B'), Some(number)) => {
                self.live.remove(&number);
            }
            _ => {}
        }
        for (status, with_sdp) in answers {
            let mut bytes = self.callee.buffer();
            answer(&mut bytes, &self.places, request, status, *with_sdp);
            self.callee.send(bytes, self.arguments.target);
        }
    }

    fn caller_takes(&mut self, response: &[u8]) {
        let Some((code, number, method)) = read_response(response, &self.places) else { return };
        let (now, places) = (self.now(), self.places(number));
        let Some(call) = self.calls.get_mut(&number) else {
            self.report.answers_retransmitted += u64::from(code >= 200);
            return;
        };
        match (method, code) {
            (b"REGISTER", 200) => {
                self.setup.add(now - call.due);
                self.end(number, true);
            }
            (b"REGISTER", 401) if call.credentials.is_empty() && self.arguments.password.is_some() => {
                let Some(found) = credentials(response, &self.registrant(number)) else { return self.end(number, false) };
                if let Some(call) = self.calls.get_mut(&number) {
                    call.credentials = found;
                }
                self.send_request(number);
            }
            (b"REGISTER", 300..) => {
                self.report.refused += 1;
                self.report.refused_with_retry_after += u64::from(memchr::memmem::find(response, b"\r\nRetry-After: ").is_some());
                self.calls.remove(&number);
            }
            (b"INVITE", 100..=199) if call.state == State::Calling => {
                call.state = State::Proceeding;
                if is_nth(number, self.arguments.cancelled_every) {
                    let mut bytes = self.caller.buffer();
                    cancel(&mut bytes, &places, number);
                    self.send_as_caller(number, bytes);
                }
            }
            (b"INVITE", 200..=299) => {
                let first = matches!(call.state, State::Calling | State::Proceeding);
                if first {
                    self.setup.add(now - call.due);
                    call.dialog = DialogText::of(response);
                    call.state = State::Talking;
                    self.timers.push(Reverse((now + self.arguments.hold_milliseconds * 1_000, number)));
                } else {
                    self.report.answers_retransmitted += 1;
                }
                let mut bytes = self.caller.buffer();
                in_dialog(&mut bytes, &places, number, "ACK", 1, &call.dialog);
                self.send_as_caller(number, bytes);
            }
            (b"INVITE", 300..) => {
                let mut bytes = self.caller.buffer();
                ack_refusal(&mut bytes, &places, number, response);
                self.send_as_caller(number, bytes);
                self.report.refused += 1;
                self.report.refused_with_retry_after += u64::from(memchr::memmem::find(response, b"\r\nRetry-After: ").is_some());
                self.calls.remove(&number);
            }
            (b"BYE", 200) => self.end(number, true),
            (b"BYE", 300..) => self.end(number, false),
            _ => {}
        }
    }
}
