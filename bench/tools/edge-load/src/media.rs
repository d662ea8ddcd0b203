//! RTP both ways over streams that were set up before: what is lost, what comes to the wrong place, how long it takes.
//!
//! Streams begin by calls through a proxy (`sip:`), by commands of the ng protocol to an rtpengine (`ng:`), or are the
//! ports of a bare relay (`ports:`). One socket a side sends and receives for all streams.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::arguments::Arguments;
use crate::datagram::Datagrams;
use crate::histogram::Histogram;

/// A packet of 20 ms of G.711.
const PACKET: usize = 172;
/// Time for what is under way to come in.
const LINGER: Duration = Duration::from_millis(500);

/// What came of it all.
#[derive(Default, Serialize)]
pub(crate) struct Report {
    /// Streams, each with packets both ways.
    pub(crate) streams: usize,
    pub(crate) attempted: u64,
    pub(crate) received: u64,
    pub(crate) lost: u64,
    /// Packets that the generator sent more than a millisecond late.
    pub(crate) late: u64,
    pub(crate) seconds: f64,
    pub(crate) delay_p50_microseconds: u64,
    pub(crate) delay_p99_microseconds: u64,
    pub(crate) delay_p999_microseconds: u64,
    pub(crate) delay_max_microseconds: u64,
}

/// Where each stream's packets go: of the caller, and of the callee.
type Streams = Vec<[SocketAddr; 2]>;

pub(crate) fn run(arguments: &Arguments) -> io::Result<Report> {
    if arguments.setup == "aborted" {
        return crate::aborted::run(arguments);
    }
    // Signalling has sockets of its own, so that addresses of media are no peers of the proxy.
    let media = [arguments.caller, arguments.callee].map(|place| SocketAddr::new(place.ip(), place.port() + 1_000));
    let (streams, calls) = set_up(arguments, media)?;
    let sides = [Datagrams::bind(media[0])?, Datagrams::bind(media[1])?];
    // Whoever measures wants to know when what is measured begins and ends.
    eprintln!("begun");
    std::thread::sleep(Duration::from_millis(arguments.hold_milliseconds));
    let report = exchange(arguments, &streams, sides);
    eprintln!("ended");
    if let Some(calls) = calls {
        calls.end()?;
    }
    Ok(report)
}

fn exchange(arguments: &Arguments, streams: &Streams, mut sides: [Datagrams; 2]) -> Report {
    let start = Instant::now();
    let end = (arguments.duration_seconds * 1e6) as u64;
    let mut report = Report { streams: streams.len(), seconds: arguments.duration_seconds, ..Report::default() };
    let mut delays = Histogram::new();
    let mut spare = Vec::new();
    let mut most = 0;
    let mut round = vec![0u16; streams.len()];
    let mut finished = None;
    loop {
        let now = start.elapsed().as_micros() as u64;
        // In turns over all streams and both sides, as their own clocks would have it.
        let due = (now.min(end) as f64 * arguments.rate / 1e6) as u64;
        while report.attempted < due {
            let turn = report.attempted as usize;
            let (side, stream) = (turn & 1, (turn / 2) % streams.len());
            if side == 0 {
                round[stream] = round[stream].wrapping_add(1);
            }
            report.late += u64::from(now.saturating_sub((report.attempted as f64 / arguments.rate * 1e6) as u64) > 1_000);
            sides[side].send(packet(spare.pop().unwrap_or_default(), side, stream, round[stream], start), streams[stream][side]);
            report.attempted += 1;
            if report.attempted.is_multiple_of(64) {
                break;
            }
        }
        let mut busy = false;
        for (side, socket) in sides.iter_mut().enumerate() {
            socket.flush(&mut spare);
            busy |= socket.receive(&mut |bytes| {
                let Some((from, sent)) = read(bytes, streams.len()) else { return };
                if from != side {
                    report.received += 1;
                    let delay = (start.elapsed().as_micros() as u64).saturating_sub(sent);
                    most = most.max(delay);
                    delays.add(delay);
                }
            }) > 0;
        }
        if now >= end {
            let since = finished.get_or_insert_with(Instant::now);
            if since.elapsed() > LINGER {
                break;
            }
        }
        if !busy && report.attempted >= due {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    report.lost = report.attempted.saturating_sub(report.received);
    report.delay_p50_microseconds = delays.percentile(0.5);
    report.delay_p99_microseconds = delays.percentile(0.99);
    report.delay_p999_microseconds = delays.percentile(0.999);
    report.delay_max_microseconds = most;
    report
}

/// RTP version 2, payload type 0; the payload says who sent it when.
fn packet(mut out: Vec<u8>, side: usize, stream: usize, sequence: u16, start: Instant) -> Vec<u8> {
    out.extend_from_slice(&[0x80, 0]);
    out.extend_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(&(u32::from(sequence) * 160).to_be_bytes());
    out.extend_from_slice(&((stream * 2 + side) as u32).to_be_bytes());
    out.extend_from_slice(&((stream * 2 + side) as u32).to_be_bytes());
    out.extend_from_slice(&(start.elapsed().as_micros() as u64).to_be_bytes());
    out.resize(PACKET, 0xd5);
    out
}

/// Side and time of sending.
fn read(bytes: &[u8], streams: usize) -> Option<(usize, u64)> {
    let number = u32::from_be_bytes(bytes.get(12..16)?.try_into().ok()?) as usize;
    let sent = u64::from_be_bytes(bytes.get(16..24)?.try_into().ok()?);
    (bytes.len() == PACKET && number < streams * 2).then_some((number & 1, sent))
}

fn set_up(arguments: &Arguments, media: [SocketAddr; 2]) -> io::Result<(Streams, Option<Calls>)> {
    let fault = || io::Error::other("--setup: ports:FIRST, sip, aborted or ng:ADDRESS expected");
    if let Some(first) = arguments.setup.strip_prefix("ports:") {
        let first: u16 = first.parse().map_err(|_| fault())?;
        let place = |port| SocketAddr::from(([127, 0, 0, 1], port));
        return Ok(((0..arguments.streams as u16).map(|n| [place(first + 2 * n), place(first + 2 * n + 1)]).collect(), None));
    }
    if let Some(place) = arguments.setup.strip_prefix("ng:") {
        let place = place.parse().map_err(|_| fault())?;
        return Ok((by_commands(place, arguments.streams, media)?, None));
    }
    if arguments.setup != "sip" {
        return Err(fault());
    }
    let (calls, streams) = Calls::begin(arguments, media)?;
    Ok((streams, Some(calls)))
}

pub(crate) fn sdp(media: SocketAddr) -> String {
    format!("v=0\r\no=load 1 1 IN IP4 {0}\r\ns=-\r\nc=IN IP4 {0}\r\nt=0 0\r\nm=audio {1} RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n", media.ip(), media.port())
}

/// Address and port of the first stream in a text that holds SDP.
fn place_of(text: &str) -> io::Result<SocketAddr> {
    let host = text.split("c=IN IP4 ").nth(1).and_then(|rest| rest.split(['\r', '\n']).next());
    let port = text.split("m=audio ").nth(1).and_then(|rest| rest.split(' ').next());
    let place = host.zip(port).and_then(|(host, port)| format!("{host}:{port}").parse().ok());
    place.ok_or_else(|| io::Error::other(format!("no media address in: {text}")))
}

fn by_commands(place: SocketAddr, streams: usize, media: [SocketAddr; 2]) -> io::Result<Streams> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let ask = |number: usize, command: &str, tags: &str, media: SocketAddr| -> io::Result<SocketAddr> {
        let sdp = sdp(media);
        let id = format!("load-{number}");
        let text = format!("{command}-{number} d7:call-id{}:{id}7:command{}:{command}8:from-tag1:a3:sdp{}:{sdp}{tags}e", id.len(), command.len(), sdp.len());
        socket.send_to(text.as_bytes(), place)?;
        let mut buffer = [0; 4_096];
        let length = socket.recv(&mut buffer)?;
        place_of(&String::from_utf8_lossy(&buffer[..length]))
    };
    (0..streams)
        .map(|number| {
            let facing_callee = ask(number, "offer", "", media[0])?;
            let facing_caller = ask(number, "answer", "6:to-tag1:b", media[1])?;
            Ok([facing_caller, facing_callee])
        })
        .collect()
}

/// Calls that hold the streams.
pub(crate) struct Calls {
    pub(crate) caller: UdpSocket,
    pub(crate) callee: UdpSocket,
    pub(crate) target: SocketAddr,
    byes: Vec<String>,
}

impl Calls {
    pub(crate) fn sockets(arguments: &Arguments) -> io::Result<Self> {
        let (caller, callee) = (UdpSocket::bind(arguments.caller)?, UdpSocket::bind(arguments.callee)?);
        for socket in [&caller, &callee] {
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        }
        Ok(Self { caller, callee, target: arguments.target, byes: Vec::new() })
    }

    fn begin(arguments: &Arguments, media: [SocketAddr; 2]) -> io::Result<(Self, Streams)> {
        let mut calls = Self::sockets(arguments)?;
        let run = std::process::id();
        let mut streams = Vec::new();
        for number in 0..arguments.streams {
            streams.push(calls.call(arguments, media, number, run)?);
        }
        Ok((calls, streams))
    }

    fn call(&mut self, arguments: &Arguments, media: [SocketAddr; 2], number: usize, run: u32) -> io::Result<[SocketAddr; 2]> {
        let (from, to) = (arguments.caller, arguments.callee);
        let request = |method: &str, cseq: u32, tag: &str, routes: &str, body: &str| request([from, to], (number, run), method, cseq, &[tag, routes, body]);
        self.caller.send_to(request("INVITE", 1, "", "", &sdp(media[0])).as_bytes(), self.target)?;
        let invite = read_text(&self.callee, |text| text.starts_with("INVITE ") && text.contains(&format!("Call-ID: m{number}-{run}\r\n")))?;
        let facing_callee = place_of(&invite)?;
        self.callee.send_to(answer(&invite, to, "200 OK", &sdp(media[1])).as_bytes(), self.target)?;
        let answer = read_text(&self.caller, |text| text.starts_with("SIP/2.0 200") && text.contains(&format!("Call-ID: m{number}-{run}\r\n")))?;
        let routes = routes_of(&answer);
        self.caller.send_to(request("ACK", 1, ";tag=c", &routes, "").as_bytes(), self.target)?;
        read_text(&self.callee, |text| text.starts_with("ACK "))?;
        self.byes.push(request("BYE", 2, ";tag=c", &routes, ""));
        Ok([place_of(&answer)?, facing_callee])
    }

    /// Hangs up, and waits until every BYE was seen.
    fn end(self) -> io::Result<()> {
        for bye in &self.byes {
            self.caller.send_to(bye.as_bytes(), self.target)?;
            let came = read_text(&self.callee, |text| text.starts_with("BYE "))?;
            self.callee.send_to(answer(&came, self.target, "200 OK", "").as_bytes(), self.target)?;
        }
        Ok(())
    }
}

/// A request of call `number` of `run` from the first place to the second; with the To tag, the Route lines and the body.
pub(crate) fn request([from, to]: [SocketAddr; 2], (number, run): (usize, u32), method: &str, cseq: u32, [tag, routes, body]: &[&str; 3]) -> String {
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    let branch = if matches!(method, "CANCEL" | "ACK") && routes.is_empty() { "INVITE" } else { method };
    format!(
        "{method} sip:service@{to} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK-{cseq}{branch}{number}-{run}\r\n{routes}From: <sip:load@{from}>;tag=m{number}\r\nTo: <sip:service@{to}>{tag}\r\nCall-ID: m{number}-{run}\r\nCSeq: {cseq} {method}\r\nContact: <sip:load@{from}>\r\nMax-Forwards: 70\r\n{kind}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The response of the agent at `place`.
pub(crate) fn answer(request: &str, place: SocketAddr, status: &str, body: &str) -> String {
    let kept = |line: &&str| ["Via:", "Record-Route:", "From:", "Call-ID:", "CSeq:"].iter().any(|name| line.starts_with(name));
    let mut head = String::new();
    for line in request.split("\r\n\r\n").next().unwrap_or_default().lines() {
        if line.starts_with("To:") {
            head += line;
            head += if line.contains(";tag=") { "\r\n" } else { ";tag=c\r\n" };
        } else if kept(&line) {
            head += line;
            head += "\r\n";
        }
    }
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!("SIP/2.0 {status}\r\n{head}Contact: <sip:service@{place}>\r\n{kind}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// The caller's route set as lines.
pub(crate) fn routes_of(response: &str) -> String {
    let mut routes: Vec<&str> = response.lines().filter(|line| line.starts_with("Record-Route:")).collect();
    routes.reverse();
    routes.iter().fold(String::new(), |all, line| all + &line.replacen("Record-Route", "Route", 1) + "\r\n")
}

/// The next message that is wanted; others are passed over.
pub(crate) fn read_text(socket: &UdpSocket, wanted: impl Fn(&str) -> bool) -> io::Result<String> {
    let mut buffer = [0; 8_192];
    loop {
        let length = socket.recv(&mut buffer)?;
        let text = String::from_utf8_lossy(&buffer[..length]);
        if wanted(&text) {
            return Ok(text.into_owned());
        }
    }
}
